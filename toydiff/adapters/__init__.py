"""Models of other libraries behind the library's own contract. Nothing here is imported before it is asked for: the packages are an extra.

`checkpoint` reads a Stable Diffusion checkpoint, `unet` puts its network behind `LambdaDenoiser`, `text` and `images` turn prompts and pictures into what
it is told and trained on, `sampling` draws images, `export` writes students for diffusers.
"""
