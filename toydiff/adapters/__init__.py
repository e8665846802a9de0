"""Models of other libraries behind the library's own contract. They need the packages of the extra `sd`, and nothing
here is imported before it is used.

- `reading` reads the files of a Stable Diffusion checkpoint.
- `checkpoint` gives the checkpoint in this library's terms: a schedule, a denoiser, prompts, latents.
- `summary` says what a checkpoint is before it is loaded.
- `families` says what differs between SD 1 and 2, SDXL, SD3 and FLUX.1.
- `network` is the UNet or transformer behind `LambdaDenoiser`.
- `text` encodes prompts, and `images` encodes pictures to train on.
- `sampling` makes images, and `schedulers` makes them as diffusers' schedulers do;
  `inpainting` makes a part of an image anew.
- `export` writes students for diffusers.
- `tiny` makes a checkpoint of random weights to try all of this on.
"""
