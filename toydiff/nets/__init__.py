"""Networks conditioned on lambda, so that one network serves every schedule: `LambdaDenoiser` puts them behind the
contract."""

from .mlp import MLP
from .unet import UNet

DIFFUSERS = "diffusers-unet"
"""The name of a Stable Diffusion checkpoint's network, which is made by `toydiff.adapters`."""

__all__ = ["DIFFUSERS", "MLP", "UNet"]
