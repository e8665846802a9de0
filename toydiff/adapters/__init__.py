"""Models of other libraries behind the library's own contract. Nothing here is imported before it is asked for: the
packages are an extra, `sd`.

`reading` reads the files of a Stable Diffusion checkpoint and `checkpoint` says what they are in this library's terms;
`unet` puts the network behind `LambdaDenoiser`; `text` and `images` turn prompts and pictures into what it is told and
trained on; `sampling` makes images, `schedulers` down to the details of diffusers' own; `export` writes students for
diffusers; `tiny` makes a checkpoint of random weights to try all of this on.
"""
