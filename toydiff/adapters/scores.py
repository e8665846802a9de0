"""The quality of images by other networks: CLIP score and FID. The networks are the user's, by their paths.

Each image is measured once, and what was measured is kept on disk: an interrupted measurement continues, and a larger
one begins where a smaller one ended.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..measure import Moments, frechet_distance
from ..support.checks import check_count
from ..support.files import read_bytes
from ..support.forms import parsed
from .images import Kept, as_bytes, computed, digest, stamps
from .quiet import naming, quietly
from .shards import Picture
from .store import Store
from .weights import PICKLES

ROWS = 1000
"""Rows that are read at once."""


class Network(Protocol):
    """What measures images."""

    stamp: list
    """What it was read from, and the state of those files."""

    def features(self, images: Tensor) -> Tensor:
        """Features (n, d) of images (n, 3, H, W) in [0, 1]."""


class Clip:
    """A CLIP model of transformers, with its tokenizer and what prepares its images.

    folder: with config.json, weights in safetensors, tokenizer and preprocessor_config.json. `ValueError` in one line
    for what is none.
    """

    def __init__(self, folder: str | Path, device: str = "cpu"):
        place = Path(folder)
        if not (place / "config.json").is_file():
            raise ValueError(f"there is no CLIP model at {str(folder)!r}: it has no config.json")
        config = parsed(read_bytes(place / "config.json", 10**6).decode())
        kind = config.get("model_type") if isinstance(config, dict) else None
        if kind != "clip":
            raise ValueError(f"{str(folder)!r} is a model of the type {kind!r}, and a CLIP model is needed ('clip')")
        with naming(place), quietly():
            from transformers import CLIPModel, CLIPTokenizer

            try:
                from transformers import CLIPImageProcessorPil as Prepare
            except ImportError:  # before the one that needs torchvision
                from transformers import CLIPImageProcessor as Prepare
            self._model = CLIPModel.from_pretrained(place, use_safetensors=True, local_files_only=True)
            self._words = CLIPTokenizer.from_pretrained(place, local_files_only=True)
            self._prepare = Prepare.from_pretrained(place, local_files_only=True)
        self._model.eval().requires_grad_(False).to(device)
        self.stamp = stamps(sorted(path for path in place.glob("*") if path.is_file()))

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """The embeddings of images, (n, d)."""
        with quietly():
            pixels = self._prepare(list(as_bytes(images)), return_tensors="pt").pixel_values
        return _pooled(self._model.get_image_features(pixel_values=pixels.to(self._model.device))).float().cpu()

    @torch.no_grad()
    def scores(self, embeddings: Tensor, texts: Sequence[str]) -> Tensor:
        """100 cos(image, text), (n,), of the embeddings of images (n, d) and their captions (Hessel et al., arXiv
        2104.08718, without their factor 2.5). A caption that is too long loses its end."""
        most = self._model.config.text_config.max_position_embeddings
        with quietly():
            words = self._words(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        said = _pooled(self._model.get_text_features(**words.to(self._model.device))).float().cpu()
        return 100 * torch.nn.functional.cosine_similarity(embeddings, said)


def _pooled(found: Any) -> Tensor:
    """The embedding itself: transformers wraps it since its version 5."""
    return found if isinstance(found, Tensor) else found.pooler_output


class Inception:
    """A network in TorchScript that makes features (n, d) of bytes (n, 3, H, W), as the Inception of FID does in
    NVIDIA's file inception-2015-12-05.pt; of a network that gives several things, the first counts.

    TorchScript is code, so that unsafe must be True. `ValueError` in one line for what is no such file.
    """

    def __init__(self, file: str | Path, device: str = "cpu", *, unsafe: bool = False):
        place = Path(file)
        if not place.is_file():
            raise ValueError(f"there is no file of TorchScript, and no folder of a CLIP model, at {str(file)!r}")
        with place.open("rb") as opened:
            archive = opened.read(4) == PICKLES[1]
        if not unsafe and not archive:
            raise ValueError(f"{str(file)!r} is no network: neither TorchScript, nor the folder of a CLIP model")
        if not unsafe:
            raise ValueError(f"{str(file)!r} is TorchScript, which can run code; if you trust it: --unsafe-weights")
        with naming(place), quietly():
            self._net = torch.jit.load(str(place), map_location=device).eval()
            known = {argument.name for argument in self._net.forward.schema.arguments}
        self._settings = {"return_features": True} if "return_features" in known else {}
        self._device, self.stamp = device, stamps([place])

    @torch.no_grad()
    def features(self, images: Tensor) -> Tensor:
        """Features (n, d) of images (n, 3, H, W) in [0, 1]."""
        pixels = torch.from_numpy(as_bytes(images)).permute(0, 3, 1, 2).contiguous().to(self._device)
        try:
            found = self._net(pixels, **self._settings)
        except RuntimeError as error:
            raise ValueError(f"the network does not take bytes (n, 3, H, W): {str(error).strip()[-120:]!r}") from None
        found = found[0] if isinstance(found, tuple | list) else found
        if not isinstance(found, Tensor) or len(found) != len(images):
            raise ValueError(f"the network makes no features (n, d) of {len(images)} images")
        return found.flatten(1).float().cpu()


def network(path: str | Path, device: str = "cpu", *, unsafe: bool = False) -> Network:
    """What makes features for FID: the CLIP model in a folder, or a file of TorchScript."""
    return Clip(path, device) if Path(path).is_dir() else Inception(path, device, unsafe=unsafe)


class Scores(NamedTuple):
    """What was measured of n images; what was not asked for is None."""

    clip_score: float | None
    """The mean of 100 cos(image, caption)."""
    clip_error: float | None
    """Its standard error over captions, of which each may have several images; None of one caption alone."""
    fid: float | None
    """The squared Fréchet distance of the features of the images to those of the real ones."""
    nfe: int
    """Network calls each image took."""


def score(
    make: Callable[[Sequence[str], Sequence[int]], tuple[Tensor, int]],
    prompts: Sequence[str],
    n: int,
    *,
    made_by: object,
    folder: Path,
    size: tuple[int, int],
    clip: Clip | None = None,
    features: Network | None = None,
    real: Sequence[Picture] = (),
    seed: int = 0,
    at_once: int = 8,
    progress: bool = False,
    bad: list[str] | None = None,
) -> Scores:
    """Measure n images; image k has prompt k of `prompts`, which begin again after the last, and seed `seed` + k.

    make: (prompts, seeds) to (images (m, 3, H, W) in [0, 1], network calls each). made_by: what `make` depends on, as
    JSON. folder: keeps what was measured. size: (height, width), to which the real images are cut. clip: for the CLIP
    score. features: for FID to the images `real`, at least two. bad: as `images.computed` has it. `ValueError` where
    there is nothing to measure.
    """
    check_count(n, "n", 1 if features is None else 2)
    if clip is None and features is None:
        raise ValueError("there is nothing to measure: name a network for the CLIP score, or one for FID")
    true = None
    if features is not None:
        if len(real) < 2:
            raise ValueError(f"FID needs at least two real images, got {len(real)}")
        true = computed(
            lambda images: {"features": features.features(images)},
            "real",
            features.stamp,
            real,
            size,
            cache=folder,
            progress=progress,
            bad=bad,
        )
    by = [made_by, None if clip is None else clip.stamp, None if features is None else features.stamp]
    store = Store(folder / f"made-{digest([by, seed, list(prompts)]).hex()[:24]}")
    keys = np.arange(n, dtype=np.int64)
    missing = np.flatnonzero(store.places(keys) < 0)
    for i in tqdm(range(0, len(missing), at_once), desc="images", unit="batch", disable=not progress):
        part = missing[i : i + at_once]
        texts = [prompts[k % len(prompts)] for k in part.tolist()]
        images, nfe = make(texts, [seed + k for k in part.tolist()])
        rows = {"nfe": torch.full((len(part), 1), float(nfe))}
        if clip is not None:
            rows["clip"] = clip.scores(clip.features(images), texts)[:, None]
        if features is not None:
            rows["features"] = features.features(images)
        store.add(part, rows)
    made = Kept(store, store.places(keys), range(n))
    first = made.rows(torch.arange(1))
    clip_score = clip_error = None
    if clip is not None:
        values = torch.cat([rows["clip"].flatten() for rows in _chunks(made)]).double()
        clip_score = float(values.mean())
        clip_error = error_of_mean(values, [prompts[k % len(prompts)] for k in range(n)])
    fid = None if true is None else frechet_distance(moments(made), moments(true))
    return Scores(clip_score, clip_error, fid, int(first["nfe"]))


def error_of_mean(values: Tensor, groups: Sequence[str]) -> float | None:
    """The standard error of the mean of n values whose errors are independent between groups only:
    sqrt(G / (G - 1) sum_g e_g^2) / n, where e_g is the sum over a group of its values less the mean. None of one group.
    (Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference.)"""
    number = {group: g for g, group in enumerate(dict.fromkeys(groups))}
    if len(number) < 2:
        return None
    rest = values - values.mean()
    sums = torch.zeros(len(number), dtype=rest.dtype)
    sums.index_add_(0, torch.tensor([number[group] for group in groups]), rest)
    return math.sqrt(len(number) / (len(number) - 1) * float(sums.square().sum())) / len(values)


def _chunks(kept: Kept) -> Iterator[dict[str, Tensor]]:
    return (kept.rows(i) for i in torch.arange(len(kept)).split(ROWS))


def moments(kept: Kept) -> Moments:
    """Mean and covariance of the rows `features`, of which never more than some are in memory."""
    mean = torch.stack([rows["features"].double().sum(0) for rows in _chunks(kept)]).sum(0) / len(kept)
    spread = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for rows in _chunks(kept):
        gap = rows["features"].double() - mean
        spread += gap.T @ gap
    return Moments(mean, spread / (len(kept) - 1))
