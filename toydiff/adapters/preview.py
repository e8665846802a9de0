"""What a model predicts on the way, as pictures: after each step x_0 is decoded by the small VAE of TAESD."""

from pathlib import Path

import torch
from torch import Tensor

from ..support.checks import check_finite
from ..support.files import check_folder, writable_folder, write_bytes
from ..support.words import with_article
from .checkpoint import AT_ONCE, StableDiffusion
from .images import as_bytes, sheet_png
from .quiet import quietly
from .reading import other_vae, whole
from .weights import check_weights


class Preview:
    """A callback of `sampling.sample_images` that writes a picture after each step: BATCH-STEP.png, both counted from
    0, a row of the images of the batch, or a row of frames for each of its clips. Its text field `toydiff` holds the
    batch, the step and its time.

    taesd: the folder or hub id of an AutoencoderTiny for the checkpoint's latents; local_only, unsafe: as
    `StableDiffusion.load` has them. folder: where the pictures go; it is empty, or is made with the first of them.
    `ValueError` for a VAE of another class, or for other latents, and for a folder that holds something.
    """

    def __init__(
        self,
        checkpoint: StableDiffusion,
        taesd: str | Path,
        folder: str | Path,
        *,
        local_only: bool = False,
        unsafe: bool = False,
    ):
        self.checkpoint, self.folder, self.batch = checkpoint, check_folder(folder), -1
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(f"the folder of the preview, {str(folder)!r}, is not empty; choose another one")
        place = whole(taesd)
        with quietly():
            self.vae = other_vae(checkpoint.pipe, checkpoint.family, place, local_only, unsafe)
        if type(self.vae).__name__ != "AutoencoderTiny":
            raise ValueError(
                f"a preview is made by an AutoencoderTiny, and {place!r} is {with_article(type(self.vae).__name__)}"
            )
        check_weights(self.vae, f"the VAE {place!r}")
        self.vae.eval().requires_grad_(False)

    @torch.no_grad()
    def __call__(self, i: int, t: float, x0: Tensor) -> None:
        """Decode the x_0 (B, C, h, w), or (B, C, F, h, w) of clips, that was predicted in step i, which began at the
        time t, and write it."""
        self.batch += i == 0
        self.vae.to(x0.device)
        columns = len(x0)
        if x0.ndim == 5:
            columns, x0 = x0.shape[2], x0.transpose(1, 2).flatten(0, 1)
        shift, factor = self.checkpoint.family.moments(self.vae, x0)
        z = x0.float() * factor + shift
        decoded = torch.cat([self.vae.decode(part, return_dict=False)[0] for part in z.split(AT_ONCE)])
        check_finite(decoded, "the preview")
        images = as_bytes((decoded / 2 + 0.5).clamp(0, 1).cpu())
        about = {"batch": self.batch, "step": i, "t": t}
        writable_folder(self.folder)
        write_bytes(self.folder / f"{self.batch:03d}-{i:04d}.png", sheet_png(images, columns, about))
