"""Kinds for data of any standard deviation: EDM's preconditioned one, and the setting of every other."""

import json
import math

import pytest
import torch
from cases import ALL_SCHEDULES, f64, normal

from toydiff import VE, GaussianMixture, NetDenoiser, Prediction, chord, mixtures, solve, weights
from toydiff.denoisers import LambdaDenoiser
from toydiff.nets import MLP
from toydiff.nets.discriminator import Discriminator
from toydiff.prediction import KINDS, row
from toydiff.problems.mixture import MixtureProblem

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


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_the_setting(kind):
    """It is the kind of the data divided by s, and a network of it sees that data: y of s x_0 is y of x_0."""
    s, S = 0.07, ALL_SCHEDULES["linear"]
    x0, eps, t = normal(5, 2), normal(5, 2, seed=1), f64(0.3)
    p, wide = Prediction.exact(x0, eps, t, S), Prediction.exact(s * x0, eps, t, S)
    of_s = f"{kind}:sigma_data={s}"
    if kind != "preconditioned":
        torch.testing.assert_close(wide.read(of_s), p.read(kind), rtol=1e-12, atol=1e-12)
    again = Prediction.of(of_s, wide.read(of_s), wide.x, t, S)
    torch.testing.assert_close(again.x0, s * x0, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(again.eps, eps, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", ["x0", "eps", "preconditioned"])
def test_a_network_does_not_see_the_scale_of_the_data(kind):
    """Data s times as wide, at s times the NSR: it gets the same numbers, and x_0 is s times what it was."""
    s, S = 12.0, VE()
    net = MLP(2).double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    unit, wide = LambdaDenoiser(net, S, kind), LambdaDenoiser(net, S, f"{kind}:sigma_data={s}")
    x, t = normal(4, 2), S.t_of_lam(f64(0.4))
    with torch.no_grad():
        p, q = unit(x, t), wide(s * x, S.t_of_lam(f64(0.4) - math.log(s)))
    torch.testing.assert_close(q.x0, s * p.x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(q.eps, p.eps, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("by", [0.05, 0.7, 1.0, 5.0])
def test_students_of_narrow_and_of_wide_data_get_it(by):
    ring = mixtures.ring()
    on = MixtureProblem(GaussianMixture(ring.means * by, cov=ring.covariances * by**2))
    student = on.student(kind="v")
    setting = f":sigma_data={ring.std * by!r}" if by in (0.05, 5.0) else ""
    assert student.kind.partition(":")[2][:14] == setting[1:15]
    assert on.student(kind="eps", start=student).kind == student.kind.replace("v", "eps", 1)
    assert on.student(kind="v:sigma_data=3").kind == "v:sigma_data=3"
    assert Discriminator.on(on, student, on.schedule).denoiser.kind == student.kind
