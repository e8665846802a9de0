"""Rows of numbers in files that only grow, and that are memory-mapped: what was encoded is on disk, and not in memory.

A store NAME is four files. NAME.json says what a row is; NAME.rows holds the rows, one after the other; NAME.keys holds
a key of 8 bytes for each row, written after it; NAME.lock is held while rows are added. What has no key yet does not
count and is overwritten, so that a process that is killed loses no more than what it was about to add. Several
processes may add to one store.
"""

import contextlib
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..support.files import check_folder, read_bytes, take, writable_folder, write_json
from ..support.forms import check_form, count, parsed, word

DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in (torch.float32, torch.float16, torch.bfloat16)}
PAUSE, PATIENCE = 0.05, 60.0
"""Seconds between two tries to add to a store that another process adds to, and seconds until that is an error."""


class Store:
    """The rows of one store. A row is some tensors by name, of the same shapes and dtype in all rows."""

    def __init__(self, place: Path):
        """place: the path of the files without their suffixes; they are made with the first rows. `ValueError` in one
        line for a folder that cannot be written, and for damaged files."""
        check_folder(place.parent)
        self._files = {what: place.with_name(f"{place.name}.{what}") for what in ("json", "rows", "keys", "lock")}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._keys = np.zeros(0, np.int64)
        self._sorted: tuple[np.ndarray, np.ndarray] | None = None
        self._map: np.ndarray | None = None
        self._follow()

    def __len__(self) -> int:
        return len(self._keys)

    @property
    def nbytes(self) -> int:
        """The bytes of all rows."""
        return len(self) * self._width if self._shapes else 0

    @property
    def _width(self) -> int:
        """The bytes of a row."""
        return sum(math.prod(shape) for shape in self._shapes.values()) * self._dtype.itemsize

    def _follow(self) -> np.ndarray:
        """Read the keys that were added since the last look, by whomever; return them."""
        if not self._shapes and self._files["json"].exists():
            what = f"the file {str(self._files['json'])!r}"
            try:
                said = parsed(read_bytes(self._files["json"], 10_000).decode())
            except ValueError as error:
                raise ValueError(f"{what} is damaged, remove it: {error}") from None
            check_form(said, {"dtype": word, "shapes": {}}, what)
            for shape in said["shapes"].values():
                check_form(shape, [count(1)], what, "shapes")
            if said["dtype"] not in DTYPES or not said["shapes"]:
                raise ValueError(f"{what} is damaged, remove it: its dtype is {said['dtype']!r}")
            self._dtype = DTYPES[said["dtype"]]
            self._shapes = {name: tuple(shape) for name, shape in said["shapes"].items()}
        new = np.zeros(0, np.int64)
        if self._shapes and self._files["keys"].exists():
            rows = self._files["rows"].stat().st_size // self._width if self._files["rows"].exists() else 0
            whole = min(self._files["keys"].stat().st_size // 8, rows)
            if whole > len(self):
                new = np.fromfile(self._files["keys"], "<i8", whole - len(self), offset=8 * len(self))
                self._keys, self._sorted, self._map = np.concatenate([self._keys, new]), None, None
        return new

    def places(self, keys: np.ndarray) -> np.ndarray:
        """Which rows have these keys, int64 (n,); -1 where there is none, and for all where the file was removed."""
        if len(self) and self._map is None and not self._files["rows"].exists():
            self._keys, self._sorted, self._shapes = np.zeros(0, np.int64), None, {}
        if self._sorted is None:
            order = np.argsort(self._keys, kind="stable")
            self._sorted = self._keys[order], order
        known, order = self._sorted
        if not len(known):
            return np.full(len(keys), -1)
        found = np.searchsorted(known, keys).clip(max=len(known) - 1)
        return np.where(known[found] == keys, order[found], -1)

    def rows(self, places: np.ndarray) -> dict[str, Tensor]:
        """Copies of the rows at these places, (n, ...) by name."""
        if self._map is None:  # read only, and shared: a private map counts as memory that may be needed
            self._map = np.memmap(self._files["rows"], np.uint8, "r", shape=(len(self), self._width))
        block, found, begin = torch.from_numpy(self._map[places]), {}, 0
        for name, shape in self._shapes.items():
            end = begin + math.prod(shape) * self._dtype.itemsize
            found[name] = block[:, begin:end].contiguous().view(self._dtype).reshape(len(block), *shape)
            begin = end
        return found

    def add(self, keys: np.ndarray, rows: Mapping[str, Tensor]) -> None:
        """Append n rows, (n, ...) by name, with their keys (n,). Those that another process has added meanwhile are
        left out. `ValueError` for rows of another form, or where they cannot be written."""
        shapes, [dtype] = (
            {name: tuple(row.shape[1:]) for name, row in rows.items()},
            {row.dtype for row in rows.values()},
        )
        writable_folder(self._files["json"].parent)  # made with what comes into it: a refusal leaves no folder
        try:
            with self._held():
                others = self._follow()
                if not self._shapes:
                    said = {"dtype": str(dtype).removeprefix("torch."), "shapes": shapes}
                    write_json(self._files["json"], said)
                    self._shapes, self._dtype = shapes, dtype
                if (shapes, dtype) != (self._shapes, self._dtype):
                    raise ValueError(
                        f"the rows in {str(self._files['rows'])!r} are {self._shapes} of {self._dtype}, "
                        f"and these are {shapes} of {dtype}: remove it"
                    )
                new = ~np.isin(keys, others)
                if new.any():
                    flat = [
                        rows[name].detach().cpu().contiguous().flatten(1).view(torch.uint8) for name in self._shapes
                    ]
                    data = torch.cat(flat, 1)[torch.from_numpy(new)].numpy().tobytes()
                    _write_at(self._files["rows"], len(self) * self._width, data)
                    _write_at(self._files["keys"], len(self) * 8, keys[new].astype("<i8").tobytes())
                    self._follow()
        except OSError as error:
            raise ValueError(f"cannot write into {str(self._files['rows'])!r}: {error.strerror or error}") from None

    @contextlib.contextmanager
    def _held(self) -> Iterator[None]:
        """Within the block, no other process adds to the store."""
        handle = os.open(self._files["lock"], os.O_RDWR | os.O_CREAT, 0o666)
        began = time.monotonic()
        try:
            while True:
                try:
                    take(handle)
                    break
                except (BlockingIOError, PermissionError):
                    if time.monotonic() - began > PATIENCE:
                        raise ValueError(
                            f"another process has held {str(self._files['lock'])!r} for {PATIENCE:g} s"
                        ) from None
                    time.sleep(PAUSE)
                except OSError:  # a file system without locks
                    break
            yield
        finally:
            os.close(handle)


def _write_at(file: Path, begin: int, data: bytes) -> None:
    """Let a file end with `data`, which begins at byte `begin`, on the disk itself."""
    with open(file, "r+b" if file.exists() else "w+b") as out:
        out.truncate(begin)
        out.seek(begin)
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
