"""Networks conditioned on lambda, so that one network serves every schedule: `LambdaDenoiser` makes a `Denoiser` of
one. `StringGRU` and `TokenUNet` are of tokens."""

from .clips import ClipMLP, ClipNet, ClipUNet
from .first_frame import FirstFrame
from .mlp import MLP
from .strings import StringGRU
from .token_unet import TokenUNet
from .unet import UNet

DIFFUSERS = "diffusers-unet"
"""The name of a Stable Diffusion checkpoint's network, which is made by `toydiff.adapters`."""

__all__ = ["DIFFUSERS", "MLP", "ClipMLP", "ClipNet", "ClipUNet", "FirstFrame", "StringGRU", "TokenUNet", "UNet"]
