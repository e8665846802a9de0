"""How a file becomes a network: by the network's name and the arguments that it was made with."""

from torch import nn

from ..nets import DIFFUSERS, MLP, ClipMLP, ClipUNet, StringGRU, TokenUNet, UNet
from ..support.checks import unknown

NETS: dict[str, type[nn.Module]] = {
    "mlp": MLP,
    "unet": UNet,
    "clip-mlp": ClipMLP,
    "clip-unet": ClipUNet,
    "string-gru": StringGRU,
    "token-unet": TokenUNet,
}
"""The library's networks by name, as checkpoints name them. Each has `config`, the arguments that it was made with."""


def make_net(name: str, config: dict) -> nn.Module:
    """A fresh network by its name and arguments. `ValueError` for an unknown name or argument."""
    try:
        if name == DIFFUSERS:
            from ..adapters.checkpoint import network_from  # an extra, and what it needs is not needed here

            return network_from(**config)
        if name not in NETS:
            raise unknown("network", name, [*NETS, DIFFUSERS])
        return NETS[name](**config)
    except TypeError as error:
        raise ValueError(f"the network {name!r} cannot be made: {error}") from None


def name_of(net: nn.Module) -> str:
    """The name of a network. `ValueError` for one that `make_net` does not make."""
    for name, kind in NETS.items():
        if type(net) is kind:
            return name
    if getattr(net, "name", None) == DIFFUSERS:
        return DIFFUSERS
    raise ValueError(
        f"a checkpoint holds networks of toydiff ({', '.join(NETS)}) and UNets of diffusers, got {type(net).__name__}"
    )
