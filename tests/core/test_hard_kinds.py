"""EDM's preconditioned kind for data of any standard deviation."""

import json

import pytest
import torch
from cases import ALL_SCHEDULES, f64, normal

from toydiff import VE, GaussianMixture, NetDenoiser, Prediction, chord, solve, weights
from toydiff.denoisers import LambdaDenoiser
from toydiff.nets import MLP
from toydiff.prediction import row

E = GaussianMixture([[0.4, 0.0], [-0.4, 0.2]], std=0.15)


class F(torch.nn.Module):
    """The exact EDM network of E, for a standard deviation of data."""

    def __init__(self, schedule, sigma_data):
        super().__init__()
        self.exact, self.sigma_data = E.denoiser(schedule), sigma_data

    def forward(self, x, t):
        p = self.exact(x, t)
        alpha, sigma = (level(t)[:, None] for level in (p.schedule.alpha, p.schedule.sigma))
        d = self.sigma_data
        S2 = (alpha * d) ** 2 + sigma**2
        skip = alpha * d**2 / S2
        return (p.x0 - skip * x) / torch.where(sigma > 0, sigma * d / S2.sqrt(), torch.inf)


@pytest.mark.slow
@pytest.mark.parametrize("sigma_data", [0.5, 1.0, 2.6, 1e-3])
@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_the_samples_of_edms_own_network(name, sigma_data):
    S = ALL_SCHEDULES[name]
    x = E.marginal(S, 1.0).sample(20, 0, dtype=torch.float64)
    D = NetDenoiser(F(S, sigma_data), S, f"preconditioned:sigma_data={sigma_data}")
    right = solve(E.denoiser(S), x, 8, solver="heun", grid="karras").end
    torch.testing.assert_close(solve(D, x, 8, solver="heun", grid="karras").end, right, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_there_and_back_and_at_the_ends(name):
    S, kind = ALL_SCHEDULES[name], "preconditioned:sigma_data=0.5"
    for t in (0.0, 0.3, 1.0):
        p = Prediction.exact(normal(3, 2), normal(3, 2, seed=1), f64(t), S)
        again = Prediction.of(kind, p.read(kind), p.x, t, S)
        assert bool(again.x0.isfinite().all() & again.eps.isfinite().all())
        if t == 0.3:
            torch.testing.assert_close(again.x0, p.x0, rtol=1e-9, atol=1e-9)
    a, b = row("preconditioned", S, f64(0.3))
    assert (a, b) == row("preconditioned:sigma_data=1", S, f64(0.3))
    assert chord(S, normal(2, 2), 0.5, normal(2, 2), 0.2).read(kind).shape == (2, 2)


def test_it_is_saved_with_the_model():
    D = LambdaDenoiser(MLP(2), VE(), "preconditioned:sigma_data=0.5")
    again = weights.build(json.loads(json.dumps(weights.describe(D))), D.net.state_dict())
    assert again.kind == D.kind
    x = torch.randn(3, 2)
    torch.testing.assert_close(again(x, 0.4).x0, D(x, 0.4).x0)


@pytest.mark.parametrize(
    "kind",
    [
        "preconditioned:",
        "preconditioned:0.5",
        "preconditioned:sigma_data=0",
        "preconditioned:sigma_data=nan",
        "eps:a=1",
        "preconditioned:sigma=1",
        "preconditioned:sigma_data=x",
        "",
        "V",
        None,
        3,
        ["eps"],
        "preconditioned:sigma_data=inf",
    ],
)
def test_a_kind_that_is_none(kind):
    for use in (
        lambda: NetDenoiser(torch.nn.Identity(), VE(), kind),
        lambda: Prediction.of(kind, torch.zeros(1, 2), torch.zeros(1, 2), 0.5, VE()),
    ):
        with pytest.raises(ValueError, match="kind") as caught:
            use()
        assert "\n" not in str(caught.value)
