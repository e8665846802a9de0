"""Prompts as labels. A prompt is encoded once, and is known by a number that depends on its text alone.

So a batch of prompts is a tensor of labels (B,), and all that works with classes works with prompts: labels that are
dropped for guidance, pairs on disk, batches split between processes.
"""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..denoisers import NO_CLASS
from ..support.checks import check_batch_of_times
from .sizes import Six
from .store import Store

AT_ONCE = 32
"""Prompts that are encoded in one call."""
REMEMBERED = 4
"""Batches of encoded prompts that are kept on the device."""
IN_FULL = 2**30
"""So many bytes of prompts are kept as they were encoded: some 4,500 prompts of SD 1.x, and 200 of SD3 with T5. Further
ones, as in training, are kept in half precision. The same holds for each folder of them on disk."""


class Encoded(NamedTuple):
    """What the text encoders make of n prompts."""

    hidden: Tensor
    """(n, tokens, width), what cross-attention reads."""
    pooled: Tensor | None
    """(n, width), SDXL's vector of the whole prompt; None for other checkpoints."""
    sizes: Tensor | None = None
    """(n, 6), what SDXL sees beside a prompt (`sizes`), -1 in a row of which nothing is said; None where it is of
    none."""


def check_text(text: str, what: str = "the prompt") -> str:
    """The text itself; `ValueError` where it has no form in UTF-8: half of a surrogate pair ("\\ud83d" in JSON), or
    bytes of a command line that were no UTF-8."""
    if not isinstance(text, str):
        raise ValueError(f"{what} must be text, got {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{what} {text[:80]!r} is no text in UTF-8: its character {error.start} is not one") from None
    return text


def prompt_id(text: str) -> int:
    """The label of a prompt: the first 63 bits of its SHA-256, the same in every process and on every machine."""
    check_text(text)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


TEXTS: dict[int, str] = {}
"""The prompts behind the labels that this process has given."""


def text_of(id_: int) -> str:
    """The prompt that a label stands for; `ValueError` if this process does not know it."""
    if id_ not in TEXTS:
        raise ValueError(
            f"the label {id_} is of a prompt that was not given to this process; "
            "add it to the checkpoint's prompts first"
        )
    return TEXTS[id_]


class Terms(NamedTuple):
    """What a label stands for where that is more than a prompt."""

    prompt: str | None
    """None is what the checkpoint gets without a prompt."""
    negative: str | None
    """What guidance leads away from, beside this prompt; None as for `prompt`."""
    sizes: Six | None = None
    """What SDXL sees beside the prompt; None is the size of the image that is made."""
    parts: int = 1
    """In how many parts both prompts are read."""

    @property
    def without(self) -> "Terms":
        """What guidance leads away from."""
        return self._replace(prompt=self.negative)


NO_SIZES = (-1,) * 6
TERMS: dict[int, Terms] = {}
"""What is behind the labels that this process has given for more than a prompt."""


def label_of(terms: Terms) -> int:
    """The label of these terms: 63 bits as of a prompt."""
    id_ = prompt_id("\0" + repr(tuple(terms)))
    TERMS[id_] = terms
    return id_


def without(cond: Tensor) -> Tensor:
    """The labels (B,) of what guidance leads away from, beside each of the labels (B,)."""
    ids = [label_of(TERMS[id_].without) if id_ in TERMS else NO_CLASS for id_ in cond.tolist()]
    return torch.tensor(ids, dtype=cond.dtype, device=cond.device)


class Prompts:
    """The prompts of a checkpoint, encoded.

    encode(texts) gives `Encoded`; encode(None) gives one row, which the model gets where there is no prompt;
    encode([text], n) or encode(None, n) gives one by n parts.
    too_long(text) gives what is wrong with a prompt of too many tokens, or None. state() changes when an encoder is
    replaced or its weights are changed in place; it is looked at when prompts are added, and all are then encoded
    anew. What goes around autograd, such as `weight.data.mul_(2)`, leaves no trace: call `forget(all_=True)`.
    """

    def __init__(
        self,
        encode: Callable[..., Encoded],
        too_long: Callable[[str], str | None],
        state: Callable[[], object] = lambda: None,
    ):
        self._encode, self._too_long, self._state = encode, too_long, state
        self._encoded_by = state()
        self._rows: dict[int | tuple[int | None, int] | None, Encoded] = {}
        self._stores: dict[tuple[Path, str], tuple[Store, Store]] = {}
        self._bytes = 0
        self._checked: set[int] = set()
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
        """The labels (n,) of n prompts. Those that are new are encoded.

        cut: a prompt that is too long loses its end, instead of a `ValueError`. cache: a folder for encoded prompts,
        from which they are read when they are needed, in this run and the next; None keeps them in memory. key: which
        text encoders encode them. progress: show a bar.
        """
        texts = [str(text) for text in texts]
        self._follow()
        labels = [prompt_id(text) for text in texts]
        unique = dict(zip(labels, texts, strict=True))
        unchecked = unique.keys() - self._checked
        self._cut |= {id_: lost for id_ in unchecked if (lost := self._too_long(unique[id_]))}
        self._checked |= unchecked
        if not cut:
            for id_ in unique:
                if id_ in self._cut:
                    raise ValueError(self._cut[id_])
        stores = None if cache is None else self._stores_in(cache, key)
        new = self._missing(list(unique))
        for i in tqdm(range(0, len(new), AT_ONCE), desc="prompts", unit="batch", disable=not progress):
            part = new[i : i + AT_ONCE]
            encoded = self._encode([unique[id_] for id_ in part])
            if stores is None:
                for id_, row in zip(part, _apart(encoded), strict=True):
                    self._bytes += row.hidden.nbytes
                    self._rows[id_] = row if self._bytes <= IN_FULL else _halved(row)
            else:
                full = not len(stores[1]) and stores[0].nbytes + encoded.hidden.nbytes <= IN_FULL
                store, kept = (stores[0], encoded) if full else (stores[1], _halved(encoded))
                store.add(np.array(part), {name: rows for name, rows in kept._asdict().items() if rows is not None})
        TEXTS.update(unique)
        return torch.tensor(labels, dtype=torch.long)

    def _follow(self) -> None:
        """Forget what other encoders have encoded."""
        if (now := self._state()) != self._encoded_by:
            self.forget(all_=True)
            self._encoded_by = now

    def _stores_in(self, cache: Path, key: str) -> tuple[Store, Store]:
        """What a folder keeps of the prompts of these encoders, in full precision and in half."""
        if (cache, key) not in self._stores:
            name = "text-" + hashlib.sha256(key.encode()).hexdigest()[:24]
            self._stores[cache, key] = Store(cache / name), Store(cache / f"{name}-half")
        return self._stores[cache, key]

    def _missing(self, ids: list[int]) -> list[int]:
        """Those prompts that are not encoded."""
        found = np.zeros(len(ids), bool)
        for pair in self._stores.values():
            for store in pair:
                found |= store.places(np.array(ids, np.int64)) >= 0
        return [id_ for id_, known in zip(ids, found, strict=True) if not known and id_ not in self._rows]

    def _stored(self, id_: int) -> Encoded | None:
        """A prompt as a store has it, or None."""
        for store in (store for pair in self._stores.values() for store in pair):
            if (place := store.places(np.array([id_])))[0] >= 0:
                row = store.rows(place)
                return _apart(Encoded(row["hidden"], row.get("pooled")))[0]
        return None

    def rows(self, cond: Tensor | None, like: Tensor, negative: str | None = None) -> Encoded:
        """The encoded prompts, of B rows, for a batch `like` (B, ...), on its device and in its dtype.

        cond: labels (B,) or (); None is `NO_CLASS` for all. `NO_CLASS` stands for the negative prompt, or for what the
        checkpoint gets without a prompt where `negative` is None. `ValueError` for a label that is not known.
        """
        if cond is None:
            cond = torch.full((len(like),), NO_CLASS, dtype=torch.long)
        check_batch_of_times(cond, like, "cond")
        wanted = (cond.shape, cond.dtype, cond.device, negative, like.shape[0], like.device, like.dtype)
        for known, how, encoded in self._last:  # a sampler has the same labels at every step
            if how == wanted and torch.equal(known, cond):
                return encoded
        ids = cond.expand(len(like)).tolist()
        rows = [self._row(id_, negative) for id_ in ids]
        sizes = [terms.sizes if (terms := TERMS.get(id_)) else None for id_ in ids]
        with torch.inference_mode(False):  # what is kept may be needed in training
            pooled = [row.pooled.to(like.dtype) for row in rows if row.pooled is not None]
            encoded = Encoded(
                torch.stack([row.hidden.to(like.dtype) for row in rows]).to(like.device),
                torch.stack(pooled).to(like.device) if pooled else None,
                like.new_tensor([six or NO_SIZES for six in sizes]) if any(sizes) else None,
            )
            self._last = [*self._last[1 - REMEMBERED :], (cond.clone(), wanted, encoded)]
        return encoded

    def _row(self, id_: int, negative: str | None) -> Encoded:
        parts = 1
        if id_ in TERMS:
            text, parts = TERMS[id_].prompt, TERMS[id_].parts
        elif id_ == NO_CLASS:
            text = negative
        elif id_ in self._rows:
            return self._rows[id_]
        elif (stored := self._stored(id_)) is not None:
            return stored
        else:  # added to another checkpoint, or encoded before this one was moved
            text = text_of(id_)
        label = None if text is None else prompt_id(text)
        key = label if parts == 1 else (label, parts)
        if key not in self._rows and isinstance(key, int) and (stored := self._stored(key)) is not None:
            return stored
        if key not in self._rows:
            several = () if parts == 1 else (parts,)
            self._rows[key] = _apart(self._encode(None if text is None else [text], *several))[0]
        return self._rows[key]

    def forget(self, *, all_: bool = False) -> None:
        """Forget what lies on a device, since the checkpoint was moved. all_: also what was encoded, since the encoders
        changed; a prompt is then encoded again when it is needed."""
        self._last = []
        if all_:
            self._rows, self._stores, self._checked, self._bytes = {}, {}, set(), 0


def _halved(encoded: Encoded) -> Encoded:
    return Encoded(encoded.hidden.half(), None if encoded.pooled is None else encoded.pooled.half())


def _apart(encoded: Encoded) -> list[Encoded]:
    hidden = encoded.hidden.detach().cpu().clone().unbind()
    pooled = None if encoded.pooled is None else encoded.pooled.detach().cpu().clone().unbind()
    return [Encoded(h, None if pooled is None else pooled[i]) for i, h in enumerate(hidden)]
