"""Clips to look at: a GIF or a video."""

import io
import itertools
import json
from typing import TYPE_CHECKING

import numpy as np

from .images import sheet

if TYPE_CHECKING:
    from PIL.Image import Image

FPS = 8
"""Frames a second, as AnimateDiff was trained."""
EXTRA = "an .mp4 needs the extra `video`: pip install 'toydiff[video]'; a .gif or .png needs nothing"


def _sheets(clips: np.ndarray, columns: int) -> "list[Image]":
    """For each moment the sheet of that frame of all clips."""
    return [sheet(clips[:, k], columns) for k in range(clips.shape[1])]


def gif(clips: np.ndarray, columns: int, settings: dict, fps: int = FPS) -> bytes:
    """A GIF, without an end, of clips (n, F, H, W, 3) in rows of `columns`. Its comment holds the settings as JSON."""
    first, *rest = _sheets(clips, columns)
    ends = [100 * k // fps for k in range(clips.shape[1] + 1)]  # GIF counts hundredths of a second
    out = io.BytesIO()
    first.save(
        out,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=[10 * (end - begin) for begin, end in itertools.pairwise(ends)],
        loop=0,
        comment=json.dumps(settings).encode(),
    )
    return out.getvalue()


def check_video() -> None:
    """`ValueError` where the packages that write an .mp4 are missing."""
    try:
        import imageio.v3  # noqa: F401
        import imageio_ffmpeg  # noqa: F401
    except ImportError:
        raise ValueError(EXTRA) from None


def mp4(clips: np.ndarray, columns: int, settings: dict, fps: int = FPS) -> bytes:
    """An MP4 (H.264) of clips (n, F, H, W, 3) in rows of `columns`. Its comment holds the settings as JSON."""
    check_video()
    import imageio.v3

    return imageio.v3.imwrite(
        "<bytes>",
        np.stack([np.asarray(one) for one in _sheets(clips, columns)]),
        extension=".mp4",
        plugin="FFMPEG",
        fps=fps,
        codec="libx264",
        macro_block_size=2,
        output_params=["-metadata", f"comment={json.dumps(settings)}"],
    )
