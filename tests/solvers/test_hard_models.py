"""Models that are not well: weights that are not finite, predictions that are not, and stiffness without end."""

import pytest
import torch

from toydiff import PARALLEL, SOLVERS, VP, Denoiser, Linear, NetDenoiser, Prediction, mixtures, reference, solve
from toydiff.denoisers import Counted, LambdaDenoiser
from toydiff.nets import MLP


@pytest.mark.slow
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
@pytest.mark.parametrize("name", [*SOLVERS, *PARALLEL])
def test_weights_that_are_not_finite_are_named(name, value):
    D = LambdaDenoiser(MLP(2), VP())
    key, weight = next((key, weight) for key, weight in D.named_parameters() if weight.ndim == 2)
    weight.data[0, 0] = value
    for wrapped in (D, Counted(D)):
        with pytest.raises(
            FloatingPointError, match=rf"weights of this model are not finite: 1 of the .*{key}"
        ) as caught:
            solve(wrapped, torch.randn(4, 2), 4, solver=name)
        assert "\n" not in str(caught.value)
    if name == "ddim":
        with pytest.raises(FloatingPointError, match="weights of this model are not finite"):
            reference(D.double(), torch.randn(2, 2))


class Wild(Denoiser):
    """Noise as a model: no step is small enough."""

    def forward(self, x, t, cond=None):
        return Prediction.of("x0", torch.sin(1e9 * x + 1e7 * t), x, t, self.schedule)


class Broken(Denoiser):
    """Finite weights, and NaN below t = 0.5."""

    def forward(self, x, t, cond=None):
        return Prediction.of("x0", torch.where(t < 0.5, torch.nan, 0 * x), x, t, self.schedule)


def test_the_reference_has_an_end():
    with pytest.raises(RuntimeError, match="took its 500 calls and is not done") as caught:
        reference(Wild(VP()), torch.randn(2, 2), calls=500)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"computed in float64, .*D.double\(\)"):
        reference(LambdaDenoiser(MLP(2), VP()), torch.randn(2, 2))
    with pytest.raises(FloatingPointError, match="prediction at t = 0"):
        reference(Broken(VP()), torch.randn(2, 2))
    assert reference(mixtures.ring().denoiser(VP()), torch.zeros(0, 2)).shape == (0, 2)


@pytest.mark.parametrize(
    "odd",
    [
        {"tolerance": 0},
        {"tolerance": "x"},
        {"calls": 0},
        {"calls": 1.5},
        {"t": "a"},
        {"s": None},
        {"t": torch.ones(2)},
        {"t": 0.2, "s": 0.5},
        {"t": 2.0},
        {"guidance_scale": "x"},
        {"t": torch.nan},
    ],
)
def test_a_reference_of_odd_arguments(odd):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        reference(mixtures.ring().denoiser(Linear()), torch.randn(2, 2), **odd)
    assert "\n" not in str(caught.value)


def test_finite_weights_leave_the_blame_where_it_is():
    D = NetDenoiser(torch.nn.Linear(2, 2), VP(), "eps")
    D.net.forward = lambda x, t: x.square() * 1e20
    with pytest.raises(FloatingPointError, match="DDIM with 6 steps is unstable"):
        solve(D, torch.randn(4, 2), 6, solver="ddim")
