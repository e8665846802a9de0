"""Problems so small that a dozen updates take a tenth of a second: the library's own, with smaller networks."""

import functools

import torch
from cases import RING

from toydiff.denoisers import LambdaDenoiser
from toydiff.nets import MLP, ClipUNet, UNet
from toydiff.problems import ClipsProblem, DigitsProblem, MixtureProblem
from toydiff.problems.base import Sizes
from toydiff.problems.data import DIGIT_CLASSES, Digits

FEW = Sizes(watched=100, evaluated=100)
"""How many samples a problem is measured by where the figure itself says nothing."""


class TinyMixture(MixtureProblem):
    """The ring of eight with a network of some 2,000 weights, measured by few samples."""

    sizes = FEW

    def __init__(self):
        super().__init__(RING, "mixture:ring")

    def network(self, *, guided=False):
        return MLP(2, hidden=16, depth=1, classes=self.classes, guided=guided)


class TinyDigits(DigitsProblem):
    """Images of noise for digits, a UNet of some 10,000 weights, and an untrained one of its kind as the teacher."""

    @functools.cached_property
    def digits(self):
        rng = torch.Generator().manual_seed(0)
        images, labels = torch.rand(40, 1, 28, 28, generator=rng) * 2 - 1, torch.arange(40) % DIGIT_CLASSES
        return Digits(images[:30], labels[:30], images[30:], labels[30:], "noise")

    def network(self, *, guided=False):
        return UNet(widths=(8, 16), embedding=16, classes=DIGIT_CLASSES, guided=guided)

    @functools.cached_property
    def teacher(self):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            net = self.network()
            with torch.no_grad():  # networks start as zero
                for p in net.parameters():
                    p.add_(0.02 * torch.randn_like(p))
        return LambdaDenoiser(net, self.schedule, "eps").eval().requires_grad_(False)


class TinyClips(ClipsProblem):
    """Clips of the noise of `TinyDigits`, and a network of some 20,000 weights."""

    sizes = FEW

    @functools.cached_property
    def digits(self):
        return TinyDigits().digits

    def network(self, *, guided=False):
        return ClipUNet(widths=(8, 16), embedding=16, classes=DIGIT_CLASSES, guided=guided)
