"""What training costs: our loop against smalldiffusion's, and a UNet's updates by what is meant to make them faster.

    pip install smalldiffusion einops accelerate
    python tests/benchmarks/training.py [--updates 60] [--rounds 5] [--json FILE]

- Loop: the same network, batch, optimizer (Adam) and data on both sides, in turns; the figure is updates per second,
  the median over the rounds. Ours also clips, averages the weights and draws its noise from one stream;
  smalldiffusion's does none of it. It imports torchvision for its data sets only, which no processor build of torch
  has, so a stand-in takes its place.
- UNet: the digits' network, batch 128, an update with Adam, plain and eager in float32 against each means alone and
  together.
"""

import argparse
import itertools
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from unittest.mock import MagicMock

import torch
from common import versions, write
from torch import nn

from toydiff import Tabulated
from toydiff.denoisers import LambdaDenoiser
from toydiff.distill.diffusion import diffusion_loss
from toydiff.mixtures import GaussianMixture, ring
from toydiff.nets import MLP, UNet
from toydiff.problems import MixtureProblem
from toydiff.training import EMA, Draws, Turn, fit


def smalldiffusion_loop(net: nn.Module, batches: Callable[[], torch.Tensor], batch: int, lr: float) -> Iterator[None]:
    """smalldiffusion's own `training_loop` over the same network, given sigma as lambda = -log sigma."""
    # its data sets import torchvision, which the loop never uses
    for name in ("torchvision", "torchvision.transforms"):
        sys.modules.setdefault(name, MagicMock())
    from smalldiffusion.diffusion import ScheduleLDM, training_loop
    from smalldiffusion.model import ModelMixin

    class Model(nn.Module, ModelMixin):
        def __init__(self):
            super().__init__()
            self.net, self.input_dims = net, (2,)

        def forward(self, x, sigma, cond=None):
            sigma = sigma.reshape(-1)
            return self.net(x / torch.sqrt(1 + sigma**2)[:, None], -torch.log(sigma).expand(len(x)))

    class Endless:
        def __iter__(self):
            return iter([batches()])

    return training_loop(Endless(), Model(), ScheduleLDM(), epochs=10**9, lr=lr)


def our_loop(net: nn.Module, problem: MixtureProblem, batch: int, lr: float) -> Iterator[None]:
    """`fit` as `toydiff train diffusion` calls it."""
    D = LambdaDenoiser(net, Tabulated.scaled_linear(), "eps")

    def loss(step: int, draws: Draws) -> torch.Tensor:
        return diffusion_loss(D, *draws.rows(problem.data, batch), draws, 0.1)

    return fit(Turn(loss, list(D.parameters()), lr), 10**9, averages=[EMA(D)], decay="constant")


def rate(loop: Iterator[None], updates: int) -> float:
    """Updates per second over the next so many."""
    began = time.perf_counter()
    for _ in itertools.islice(loop, updates):
        pass
    return updates / (time.perf_counter() - began)


def compare_loops(updates: int, rounds: int) -> list[dict]:
    """Both loops in turns, for each batch."""
    rows = []
    for batch in (128, 512, 2048):
        mixture = GaussianMixture(ring().means, std=0.15)  # without classes, as theirs has none
        torch.manual_seed(0)
        nets = [MLP(2), MLP(2)]
        nets[1].load_state_dict(nets[0].state_dict())
        rng = torch.Generator().manual_seed(0)
        loops = {
            "toydiff": our_loop(nets[0], MixtureProblem(mixture), batch, 1e-3),
            "smalldiffusion": smalldiffusion_loop(
                nets[1], lambda b=batch, m=mixture, g=rng: m.sample(b, g), batch, 1e-3
            ),
        }
        for loop in loops.values():
            rate(loop, 10)
        found = {name: [] for name in loops}
        for _ in range(rounds):
            for name, loop in loops.items():
                found[name].append(rate(loop, updates))
        ours, theirs = (statistics.median(found[name]) for name in loops)
        rows.append({"batch": batch, "toydiff": ours, "smalldiffusion": theirs, "ratio": ours / theirs})
        print(
            f"MLP, batch {batch}: {ours:.0f} updates/s, smalldiffusion {theirs:.0f}: ratio {ours / theirs:.2f}",
            flush=True,
        )
    return rows


def unet_update(channels_last: bool, fused: bool, compiled: bool, bf16: bool) -> Callable[[], None]:
    """One update of the digits' UNet, batch 128, by some means."""
    torch.manual_seed(0)
    net = UNet(classes=10).to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    call = torch.compile(net) if compiled else net
    optimizer = torch.optim.Adam(net.parameters(), fused=fused)
    x, lam, cond = torch.randn(128, 1, 28, 28), torch.randn(128), torch.arange(128) % 10
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = x.contiguous(memory_format=layout)

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = (call(x, lam, cond).float() - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return update


MEANS = {
    "eager float32": (False, False, False, False),
    "channels-last": (True, False, False, False),
    "fused Adam": (False, True, False, False),
    "channels-last, fused Adam (ours)": (True, True, False, False),
    "compiled": (False, False, True, False),
    "compiled, channels-last, fused Adam": (True, True, True, False),
    "bfloat16": (False, False, False, True),
    "bfloat16, channels-last, fused Adam": (True, True, False, True),
}
"""(channels_last, fused, compiled, bf16) by name; the first is what the others are compared with."""


def compare_means(rounds: int) -> list[dict]:
    """Milliseconds an update of each, in turns."""
    updates = {name: unet_update(*flags) for name, flags in MEANS.items()}
    for update in updates.values():
        for _ in range(3):
            update()
    found = {name: [] for name in updates}
    for _ in range(rounds):
        for name, update in updates.items():
            began = time.perf_counter()
            update()
            found[name].append(time.perf_counter() - began)
    plain = statistics.median(found["eager float32"])
    rows = []
    for name, seconds in found.items():
        median = statistics.median(seconds)
        rows.append({"means": name, "milliseconds": 1e3 * median, "ratio": plain / median})
        print(f"UNet, {name}: {1e3 * median:.0f} ms an update, ratio {plain / median:.2f}", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    report = {"versions": versions() | {"smalldiffusion": version("smalldiffusion")}}
    report["loops"] = compare_loops(args.updates, args.rounds)
    report["unet"] = compare_means(max(args.rounds, 9))
    write(report, args.json)


if __name__ == "__main__":
    main()
