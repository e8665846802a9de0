"""A state of a page as a file: the figure's JSON and, apart from it, the numbers of its long arrays and the pixels of
its pictures, with no more of either than the eye sees. They are most of a site, and `site.js` puts them back."""

import base64
import gzip
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

LONG = 32
"""Numbers from which on an array is packed."""
PARTS = 2**13
"""Into which the width of an axis is divided: of 800 pixels a point is off by a twentieth of one at most."""
MOST = 16_000
"""Such parts from 0 to the farthest number: two of them are never farther apart than an int16 holds."""
GAP = -(2**15)
"""In place of a difference: the number is NaN, a gap in a line."""


def packed(drawn: dict, k: int) -> str:
    """The script of the state of number k: gzip of the JSON, a zero byte, and `Numbers.bytes`.

    A packed array is {packed: [its place, how many, step]}: step times the sums of the numbers there. A picture is
    {pixels: [their place, how many], width, times, colors}: each pixel the number of its colour, drawn so often down
    and across.
    """
    numbers = Numbers()
    if "figure" in drawn:
        drawn = drawn | {"figure": numbers.without(drawn["figure"])}
    text = json.dumps(drawn, separators=(",", ":")).encode() + b"\0" + numbers.bytes()
    return f'toydiff.take({k},"{base64.b64encode(gzip.compress(text, mtime=0)).decode()}");\n'


@dataclass
class Numbers:
    """The arrays that are taken out of a figure, one after another, as int16."""

    taken: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def bytes(self) -> bytes:
        """The low bytes of all, and then the high ones, which are nearly all alike."""
        all_ = np.concatenate([np.zeros(0, np.int16), *self.taken]).astype("<i2")
        return all_.view(np.uint8).reshape(-1, 2).T.tobytes()

    def take(self, numbers: np.ndarray) -> int:
        """Where they begin among all."""
        self.taken.append(numbers.astype(np.int16))
        self.count += len(numbers)
        return self.count - len(numbers)

    def without(self, figure: dict) -> dict:
        """The figure without its long arrays and its pictures' pixels."""
        layout, traces = figure["layout"], figure["data"]
        frames = [
            frame
            | {"data": [self._trace(t, traces[k], layout) for k, t in zip(frame["traces"], frame["data"], strict=True)]}
            for frame in figure.get("frames", ())
        ]
        drawn = {"data": [self._trace(t, t, layout) for t in traces], "frames": frames}
        if "images" in layout:
            layout = layout | {"images": [self._picture(image) for image in layout["images"]]}
        return figure | drawn | {"layout": layout}

    def _picture(self, image: dict) -> dict:
        source = image["source"]
        if isinstance(source, str):
            return image
        first = self.take(np.frombuffer(source["pixels"], np.uint8))
        return image | {"source": source | {"pixels": [first, len(source["pixels"])]}}

    def _trace(self, part: dict, trace: dict, layout: dict) -> dict:
        axes = {key: layout.get(trace.get(f"{key}axis", key).replace(key, f"{key}axis"), {}) for key in "xy"}
        return {key: self._pack(value, axes.get(key, {})) for key, value in part.items()}

    def _pack(self, part: object, axis: dict) -> object:
        if isinstance(part, list):
            return [self._pack(one, {}) for one in part]
        if not isinstance(part, dict):
            return part
        if part.get("dtype") not in ("f4", "f8"):
            return {key: self._pack(value, {}) for key, value in part.items()}
        values = np.frombuffer(base64.b64decode(part["bdata"]), dtype=part["dtype"]).astype(float)
        there = np.isfinite(values)
        kept = np.where(there, values, 0.0)
        low, high = axis.get("range") or (kept.min(initial=0.0), kept.max(initial=0.0))
        step = abs(high - low) / PARTS or 1.0
        if len(values) < LONG or axis.get("type") == "log" or np.isinf(values).any() or abs(kept).max() > MOST * step:
            return rounded(part, values)
        places = np.round(kept / step)
        before = np.maximum.accumulate(np.where(there, np.arange(len(values)), 0))  # a gap stays where the line was
        first = self.take(np.where(there, np.diff(places[before], prepend=0.0), GAP))
        return {"packed": [first, len(values), step]} | {key: part[key] for key in part if key == "shape"}


BITS = 11
"""Of a number's 24 that an array keeps which is not packed."""


def rounded(part: dict, values: np.ndarray) -> dict:
    """An array in float32, of which the end is zeros."""
    mantissa, exponent = np.frexp(values.astype(np.float32))
    with np.errstate(invalid="ignore"):  # NaN, a gap in a line, stays one
        short = np.ldexp(np.round(mantissa * 2.0**BITS) / 2.0**BITS, exponent).astype(np.float32)
    return part | {"dtype": "f4", "bdata": base64.b64encode(short.tobytes()).decode()}


def pictures(light: dict, dark: dict) -> None:
    """The pictures of two figures that are the same but for their colours, in place: pixels that both share, and the
    colours of each. Those of more than 256 colours stay addresses of PNG."""
    for one, other in zip(light["layout"].get("images", ()), dark["layout"].get("images", ()), strict=True):
        pair = np.concatenate([_pixels(one["source"]), _pixels(other["source"])], axis=2)
        times = [_times(pair, axis) for axis in (0, 1)]
        pair = pair[:: times[0], :: times[1]].astype(np.int64)
        keys, index = np.unique(pair @ 256 ** np.arange(6), return_inverse=True)
        if len(keys) > 256:
            continue
        colors = (keys[:, None] // 256 ** np.arange(6) % 256).astype(np.uint8)
        shared = {"pixels": index.astype(np.uint8).tobytes(), "width": pair.shape[1], "times": times}
        for image, own in ((one, colors[:, :3]), (other, colors[:, 3:])):
            image["source"] = shared | {"colors": own.tobytes().hex()}


def _times(pixels: np.ndarray, axis: int) -> int:
    """How often each row, or column, stands in a picture that was enlarged."""
    changed = np.flatnonzero(np.diff(pixels, axis=axis).any(axis=(1 - axis, 2))) + 1
    return int(np.gcd.reduce([pixels.shape[axis], *changed]))


def _pixels(source: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))


def changes(one: object, other: object, path: tuple = ()) -> Iterator[tuple[list, object]]:
    """What makes the second of the first: (path, value)."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() <= other.keys():
        for key in other:
            if key in one:
                yield from changes(one[key], other[key], (*path, key))
            else:
                yield [*path, key], other[key]
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for k, (left, right) in enumerate(zip(one, other, strict=True)):
            yield from changes(left, right, (*path, k))
    elif one != other:
        yield list(path), other
