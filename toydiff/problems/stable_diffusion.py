"""A Stable Diffusion checkpoint as a problem. Its own model is the teacher, prompts are the classes, latents are the
data."""

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..adapters.checkpoint import AT_ONCE, StableDiffusion
from ..adapters.images import encoded, sizes_of_picture
from ..adapters.network import TRAINED, CheckpointNetwork, needs_mask, network_of
from ..adapters.pictures import is_pattern, pictures, read_text
from ..adapters.reading import whole
from ..adapters.text import Terms, check_text, label_of, text_of
from ..denoisers import Denoiser, LambdaDenoiser
from ..measure import Spread
from ..schedules import Linear, Schedule
from ..support.checks import as_generator, check_count, shape, unknown
from .base import CheckpointProblem, Entry, Measured, Sizes
from .mixture import distance_and_floor

if TYPE_CHECKING:
    from .pairs import Pairs

PAIRS = {"n": 1000, "solver": "dpm++2m", "grid": "lambda", "steps": 25, "guidance_scale": 7.5}
"""How pairs are made for a method that was given none: fewer than of points, and with guidance."""


class StableDiffusionProblem(CheckpointProblem):
    """A checkpoint with prompts and data. Its samples are latents (n, C, H, W), or (n, C, F, H, W) of clips, and its
    labels stand for prompts.

    model: a path or hub id, which `StableDiffusion.load` takes together with config, lora, unet, scheduler,
    prediction_type, vae, motion_adapter, beta_schedule, local_only and unsafe; or a loaded `StableDiffusion`. size: of
    images, (height, width) in pixels, or the side of a square; None is the checkpoint's own. frames: F of a clip, where
    the checkpoint makes clips; None is 16, or as many as it can. The data of clips are animated pictures, GIF, WebP or
    PNG.

    prompts: texts, or a file with one prompt a line. data: pictures with captions (`adapters.pictures.pictures`), or a
    folder of pairs that `toydiff pairs` wrote. The pictures, or the pairs' samples, are the data then, and their
    captions or prompts are prompts too. A method that trains without data needs prompts only. skip_bad: pictures that
    cannot be read, or have no caption, are left out; `skipped` says why each was.

    trained: which weights a student trains: "lora", a change of low rank `rank`; "motion", the layers between the
    frames of a clip; or "full", all of them. checkpointing:
    a student's activations are computed twice instead of kept in memory. at_once: latents in one call while sampling.
    cache: a folder for encoded images and prompts. cut: prompts that are too long lose their end. `ValueError` in one
    line for what does not fit.

    A UNet that sees sizes beside a prompt, SDXL's, is trained with those of each picture and of what was cut out of it
    (`adapters.sizes`). Where a method drops the prompt, it sees the size of the image alone.

    Samples are measured by the sliced Wasserstein distance of their latents to those of the data. It shows a collapse
    or a gross error. It does not measure the quality of images.
    """

    scale = "latents"
    conditional = True
    progress = False
    """Whether a bar is shown while images and prompts are encoded."""

    def __init__(
        self,
        model: str | Path | StableDiffusion,
        *,
        prompts: str | Path | Sequence[str] = (),
        data: str | Path | None = None,
        size: int | Sequence[int] | None = None,
        frames: int | None = None,
        trained: str = "lora",
        rank: int = 64,
        checkpointing: bool = False,
        at_once: int = AT_ONCE,
        cache: str | Path | None = None,
        cut: bool = False,
        skip_bad: bool = False,
        config: str | None = None,
        lora: Sequence[str] = (),
        unet: str | None = None,
        scheduler: str | None = None,
        prediction_type: str | None = None,
        vae: str | None = None,
        motion_adapter: str | None = None,
        beta_schedule: str | None = None,
        local_only: bool = False,
        unsafe: bool = False,
    ):
        from . import pairs  # it knows problems, and not the other way round

        if trained not in TRAINED[1:]:
            raise unknown("choice of the weights to train", trained, TRAINED[1:])
        self.trained, self.rank = trained, check_count(rank, "rank")
        self.sizes = Sizes(check_count(at_once, "at_once"), watched=64, evaluated=64, pairs=PAIRS)
        self.checkpointing, self.cut = bool(checkpointing), bool(cut)
        self.cache = None if cache is None else Path(cache)
        self._texts = self._given(prompts)
        self._pairs = data if data is not None and (Path(data) / pairs.INDEX).exists() else None
        if skip_bad and (data is None or self._pairs is not None):
            raise ValueError("bad pictures can be skipped where there are pictures (--data); here are none")
        self.skipped: list[str] = []
        """What is wrong with each picture that was left out."""
        self._bad = self.skipped if skip_bad else None
        self._images = None if data is None or self._pairs is not None else pictures(data, self._bad)
        self.checkpoint = (
            model
            if isinstance(model, StableDiffusion)
            else StableDiffusion.load(
                model,
                config=config,
                lora=lora,
                unet=unet,
                scheduler=scheduler,
                prediction_type=prediction_type,
                vae=vae,
                motion_adapter=motion_adapter,
                beta_schedule=beta_schedule,
                local_only=local_only,
                unsafe=unsafe,
            )
        )
        self.name = f"sd:{self.checkpoint.source}"
        about = self.checkpoint.about
        self._settings = {
            "prompts": whole(prompts) if isinstance(prompts, str | Path) else list(prompts),
            "data": None if data is None else str(Path(data).absolute()) if is_pattern(data) else whole(data),
            "size": size if size is None or isinstance(size, int) else list(size),
            **({} if frames is None else {"frames": frames}),
            "trained": trained,
            "rank": rank,
            "checkpointing": self.checkpointing,
            "cut": self.cut,
            **({"skip_bad": True} if skip_bad else {}),
            **{key: about[key] for key in about if key != "model"},
        }
        self.schedule = self.checkpoint.schedule
        self.shape = self.checkpoint.latent_shape(tuple(size) if isinstance(size, Sequence) else size, frames)
        if trained == "motion" and not self.checkpoint.family.clips:
            raise ValueError("this checkpoint makes images: it has no layers between frames to train")
        self.distance_name = None if data is None else "sliced Wasserstein distance of latents"
        self._floors: dict[int, Spread] = {}
        if self._pairs is not None:
            self._texts = [*self._texts, *pairs.about_pairs(self._pairs).get("texts", ())]
        for text in self._texts:
            check_text(text)

    @staticmethod
    def _given(prompts: str | Path | Sequence[str]) -> list[str]:
        if not isinstance(prompts, str | Path):
            return [str(text) for text in prompts]
        texts = [line.strip() for line in read_text(Path(prompts)).split("\n") if line.strip()]
        if not texts:
            raise ValueError(f"the file of prompts {str(prompts)!r} has none; one a line is needed")
        return texts

    def texts(self) -> list[str]:
        """All prompts, each once: those given, then the captions of the images. Without any, the empty prompt alone."""
        captions = [caption for _, caption in self._images or ()]
        return list(dict.fromkeys([*self._texts, *captions])) or [""]

    def accept(self, pairs: "Pairs") -> None:
        self._add(pairs.about.get("texts", ()))
        for id_ in _labels(pairs).unique().tolist():
            text_of(id_)  # before any update, whose batch may not hold it

    def inputs(self) -> dict:
        fingerprint = hashlib.sha256("\0".join(self.texts()).encode()).hexdigest()
        dtype = self.checkpoint.network.dtype
        # "asked" is how run folders and folders of pairs name the fingerprint of the prompts
        return {"asked": fingerprint} | ({} if dtype == torch.float32 else {"dtype": str(dtype)})

    def _add(self, texts: Sequence[str]) -> Tensor:
        key = json.dumps(self.checkpoint.stamp(*self.checkpoint.family.texts))
        return self.checkpoint.prompts.add(texts, cut=self.cut, cache=self.cache, key=key, progress=self.progress)

    def to(self, device: torch.device, *models: Denoiser) -> None:
        self.checkpoint.to(device)
        for D in models:
            # what was made of another checkpoint, or of this one with something added, has text encoders of its own
            if isinstance(D, LambdaDenoiser) and isinstance(D.net, CheckpointNetwork):
                D.net.checkpoint.to(device, self.checkpoint.network.dtype)

    def ready(self) -> None:
        self._check_trains()
        _ = self._latents

    def _check_trains(self) -> None:
        if self.checkpoint.takes_mask:
            raise ValueError(needs_mask(self.checkpoint.source))

    def settings(self) -> dict:
        return self._settings

    @functools.cached_property
    def ids(self) -> Tensor:
        """The labels of all prompts, (N,)."""
        return self._add(self.texts())

    @property
    def classes(self) -> int:  # type: ignore[override]  # read only: what is added to the prompts changes it
        return len(self.ids)

    @functools.cached_property
    def teacher(self) -> LambdaDenoiser:  # type: ignore[override]  # an attribute, made when it is first needed
        """The checkpoint's own model. `ValueError` for one that is made for inpainting."""
        self._check_trains()
        return self.checkpoint.denoiser()

    @functools.cached_property
    def _latents(self) -> tuple[Callable[[Tensor], tuple[Tensor, Tensor | None]], Tensor]:
        """(rows, labels) of the data: rows(i) are mean and standard deviation, or None, of the latents i (n,)."""
        _ = self.ids  # all prompts are encoded, those of the data among them
        if self._images is not None:
            height, width = (side * self.checkpoint.scale for side in self.shape[-2:])
            found = encoded(
                self.checkpoint,
                [picture for picture, _ in self._images],
                (height, width),
                frames=self.shape[1] if self.checkpoint.family.clips else None,
                cache=self.cache,
                at_once=self.sizes.at_once,
                progress=self.progress,
                bad=self._bad,
            )
            kept = [self._images[k] for k in found.kept]

            def rows(i: Tensor) -> tuple[Tensor, Tensor]:
                row = found.rows(i)
                return row["mean"], row["std"]

            labels = self._add([caption for _, caption in kept])
            if self.checkpoint.family.takes_sizes(self.checkpoint.network):
                terms = (Terms(text, None, sizes_of_picture(path, (height, width))) for path, text in kept)
                labels = torch.tensor([label_of(one) for one in terms])
            return rows, labels
        if self._pairs is not None:
            from .pairs import load_pairs

            held = load_pairs(self._pairs)
            if held.x0.shape[1:] != self.shape:
                raise ValueError(f"the pairs have latents {shape(held.x0[0])}, and this problem {self.shape}")
            return lambda i: (held.x0[i], None), _labels(held)
        raise ValueError(
            f"this method trains on data, and {self.name} was given none: give pictures with captions, "
            "or a folder of pairs, samples of the teacher (--data)"
        )

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor]:
        """n latents (n, *shape) and the labels (n,) of their prompts.

        The latents of an image are drawn from the normal distribution that the VAE's encoder gives it. The samples of
        pairs are latents as they are.
        """
        rng = as_generator(generator)
        rows, labels = self._latents
        i = torch.randint(len(labels), (n,), generator=rng)
        mean, std = rows(i)
        latents = mean.float()
        if std is not None:
            latents = latents + std.float() * torch.randn(latents.shape, generator=rng)
        return latents, labels[i]

    def data_labels(self, n: int, generator: torch.Generator | int | None = None) -> Tensor:
        return self.ids[torch.randint(len(self.ids), (n,), generator=as_generator(generator))]

    def uniform_labels(self, n: int, generator: torch.Generator | int | None = None) -> Tensor:
        return self.data_labels(n, generator)

    def eval_labels(self, n: int) -> Tensor:
        return self.ids[torch.arange(n) % len(self.ids)]

    def network(self, *, guided: bool = False) -> nn.Module:
        """A network of the checkpoint's size with fresh weights. All of them are trained."""
        fresh, family = (
            type(self.checkpoint.network).from_config(self.checkpoint.network.config),
            self.checkpoint.family,
        )
        net = CheckpointNetwork(self.checkpoint, fresh, trained="full", guided=family.sees_guidance(fresh))
        return net.to_train("full", guided=guided)

    def student(
        self,
        schedule: Schedule | None = None,
        kind: str = "eps",
        *,
        start: Denoiser | None = None,
        guided: bool = False,
    ) -> LambdaDenoiser:
        """A trainable denoiser that starts as `start`, or else as the checkpoint.

        It trains a LoRA on the network, or all weights (`trained`). On the linear schedule, or of a flow, it is a flow
        model as diffusers has them (InstaFlow): it sees x over alpha + sigma, x itself on the linear schedule, and the
        timestep 1000 t of the linear schedule's time of this noise level. Elsewhere its timestep is that of the same
        noise level in the checkpoint's own table.
        """
        schedule = self.schedule if schedule is None else schedule
        net = start.net if isinstance(start, LambdaDenoiser) else None
        if not isinstance(net, CheckpointNetwork):
            net = network_of(self.teacher)
        made = net.to_train(
            self.trained,
            self.rank,
            guided=guided,
            flow=self.checkpoint.flow or isinstance(schedule, Linear),
            checkpointing=self.checkpointing,
        )
        made.rounded = False
        return LambdaDenoiser(made.train(), schedule, kind)

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        if self.distance_name is None:
            raise ValueError(
                f"there is nothing to compare samples of {self.name} with: give a folder of images or of pairs (--data)"
            )
        if samples.shape[1:] != self.shape:
            raise ValueError(f"latents have shape {('n', *self.shape)} here, got {shape(samples)}")
        samples = samples.float().cpu().flatten(1)
        distance, lowest = distance_and_floor(samples, lambda n, seed: self.data(n, seed)[0].flatten(1), self._floors)
        return Measured(distance, lowest.mean, lowest.std, None)


def _labels(pairs: "Pairs") -> Tensor:
    """The labels of the prompts of pairs, (n,)."""
    if pairs.cond is None:
        raise ValueError("the pairs have no prompts: they are not those of a checkpoint")
    return pairs.cond


def _open(which: str, seed: int, **settings: Any) -> StableDiffusionProblem:
    if not which:
        raise ValueError(
            "a Stable Diffusion problem is sd:MODEL, with a folder, a hub id or a .safetensors file for MODEL"
        )
    return StableDiffusionProblem(which, **settings)


ENTRY = Entry(
    name="sd",
    title="sd:MODEL, a Stable Diffusion checkpoint: a folder, a hub id or a .safetensors file (the extra sd)",
    scale="latents",
    open=_open,
    checkpoint=True,
)
