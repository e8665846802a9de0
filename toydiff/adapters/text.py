"""Prompts: encoded once, known by a number that depends on their text alone, so that a batch of them is a tensor of
labels (B,).

So everything that works with classes works with prompts: labels that are dropped for guidance, pairs on disk, rows
shared by several processes.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from ..denoisers import NO_CLASS
from ..support.checks import check_batch_of_times
from ..support.files import writable_folder, write_bytes
from ..training.checkpoints import read_tensors, tensor_bytes

AT_ONCE = 32
"""Prompts that are encoded in one call, and kept in one file."""
REMEMBERED = 4
IN_FULL = 4096
"""Prompts that are kept as they were encoded, a quarter of a megabyte each of SD 1.x; more of them, for training,
are kept in half precision."""


class Encoded(NamedTuple):
    """hidden (n, tokens, width): what cross-attention reads; pooled (n, width) or None: SDXL's vector of the whole
    prompt."""

    hidden: Tensor
    pooled: Tensor | None


def prompt_id(text: str) -> int:
    """The label of a prompt: the first 63 bits of its SHA-256, the same in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


TEXTS: dict[int, str] = {}
"""The prompts behind the labels that this process has given."""


def text_of(id_: int) -> str:
    """The prompt behind a label; `ValueError` if none was given."""
    if id_ not in TEXTS:
        raise ValueError(
            f"the label {id_} is of a prompt that was not given to this process; add it to the checkpoint's prompts first"
        )
    return TEXTS[id_]


class Prompts:
    """The prompts that a checkpoint's text encoders have read.

    encode(texts) -> `Encoded`, or for None the prompt of a model that is given none, of one row; too_long(text) -> what
    is wrong with one that has too many tokens, or None.
    """

    def __init__(self, encode: Callable[[Sequence[str] | None], Encoded], too_long: Callable[[str], str | None]):
        self._encode, self._too_long = encode, too_long
        self._rows: dict[int | str | None, Encoded] = {}
        self._cut: dict[int, str] = {}
        self._last: list[tuple[Tensor, tuple, Encoded]] = []

    def add(
        self,
        texts: Iterable[str],
        *,
        cut: bool = False,
        cache: Path | None = None,
        key: str = "",
        progress: bool = False,
    ) -> Tensor:
        """Encode prompts that are new, and give the labels of all, (n,). `ValueError` for one that is too long, unless
        `cut`: its end is then lost.

        cache: a folder where encoded prompts are kept for the next time; `key` says by which encoders.
        """
        texts = [str(text) for text in texts]
        new = [text for text in dict.fromkeys(texts) if prompt_id(text) not in self._rows]
        self._cut |= {prompt_id(text): lost for text in new if (lost := self._too_long(text))}
        if not cut:
            for text in texts:
                if prompt_id(text) in self._cut:
                    raise ValueError(self._cut[prompt_id(text)])
        for i in tqdm(range(0, len(new), AT_ONCE), desc="prompts", unit="batch", disable=not progress):
            part = new[i : i + AT_ONCE]
            for text, row in zip(part, self._read(part, cache, key), strict=True):
                self._rows[prompt_id(text)] = row if len(self._rows) < IN_FULL else _halved(row)
        TEXTS.update((prompt_id(text), text) for text in new)
        return torch.tensor([prompt_id(text) for text in texts], dtype=torch.long)

    def _read(self, texts: Sequence[str], cache: Path | None, key: str) -> list[Encoded]:
        file = None
        if cache is not None:
            name = hashlib.sha256("\0".join([key, *texts]).encode()).hexdigest()[:24]
            file = writable_folder(cache) / f"text-{name}.safetensors"
            if file.exists():
                found = read_tensors(file)
                return _apart(Encoded(found["hidden"], found.get("pooled")))
        encoded = self._encode(texts)
        if file is not None:
            write_bytes(file, tensor_bytes({k: v for k, v in encoded._asdict().items() if v is not None}))
        return _apart(encoded)

    def rows(self, cond: Tensor | None, like: Tensor, negative: str | None = None) -> Encoded:
        """What the network reads for labels cond (B,), or None for the whole batch like (B, ...): on its device, in its
        dtype.

        `NO_CLASS` is the negative prompt, or with None what the checkpoint is given for no prompt.
        """
        if cond is None:
            cond = torch.full((len(like),), NO_CLASS, dtype=torch.long)
        check_batch_of_times(cond, like, "cond")
        wanted = (None if cond.is_inference() else cond._version, negative, len(like), like.device, like.dtype)
        for known, how, encoded in self._last:  # a sampler asks for the same labels at every step
            if known is cond and how == wanted:
                return encoded
        rows = [self._row(id_, negative) for id_ in cond.expand(len(like)).tolist()]
        pooled = None if rows[0].pooled is None else torch.stack([row.pooled.to(like.dtype) for row in rows]).to(like)
        encoded = Encoded(torch.stack([row.hidden.to(like.dtype) for row in rows]).to(like), pooled)
        self._last = [*self._last[1 - REMEMBERED :], (cond, wanted, encoded)]
        return encoded

    def _row(self, id_: int, negative: str | None) -> Encoded:
        key = negative if id_ == NO_CLASS else id_
        if key not in self._rows:
            text = (
                negative if id_ == NO_CLASS else text_of(id_)
            )  # added to another checkpoint, or encoded before this one was moved
            self._rows[key] = _apart(self._encode(None if text is None else [text]))[0]
        return self._rows[key]

    def forget(self, *, all_: bool = False) -> None:
        """Forget what was put on a device, since it was moved; `all_` that was encoded, since the encoders changed:
        it is encoded anew when it is asked for."""
        self._last = []
        if all_:
            self._rows = {}


def _halved(row: Encoded) -> Encoded:
    return Encoded(row.hidden.half(), None if row.pooled is None else row.pooled.half())


def _apart(encoded: Encoded) -> list[Encoded]:
    hidden, pooled = (None if part is None else part.detach().cpu().clone().unbind() for part in encoded)
    return [Encoded(h, None if pooled is None else pooled[i]) for i, h in enumerate(hidden)]
