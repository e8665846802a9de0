"""Derivatives with respect to time: by autograd, forward mode and torch.func, against finite differences."""

import warnings

import pytest
import torch
from cases import ALL_SCHEDULES, derivative, f64, normal

from toydiff import Empirical, Guided, Linear, NetDenoiser, Rescheduled, Tabulated, chord, jump, mixtures
from toydiff.denoisers import LambdaDenoiser
from toydiff.nets import MLP
from toydiff.schedules import PiecewiseLinear

EVERY = ALL_SCHEDULES | {
    "pieces": PiecewiseLinear(Linear(), [0.0, 0.4, 1.0]),
    "zero-snr": Tabulated(torch.linspace(0.99, 0.0, 1000, dtype=torch.float64)),
}
TABLES = ("scaled-linear", "linear-table", "zero-snr")
MID = f64([0.30057, 0.61234])  # between the steps of tables, whose slope jumps there


def slopes(f, t):
    """df/dt at each of the times (n,) by autograd, jvp, vmap of grad, and grad of vmap; f gives one number a time."""
    again = t.clone().requires_grad_()
    torch.stack([f(u) for u in again]).sum().backward()
    yield again.grad
    yield torch.stack([torch.func.jvp(f, (u,), (torch.ones_like(u),))[1] for u in t])
    yield torch.func.vmap(torch.func.grad(f))(t)
    yield torch.func.grad(lambda u: torch.func.vmap(f)(u).sum())(t)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_of_a_data_set(name):
    S, x = EVERY[name], normal(1, 2)
    points = mixtures.ring().sample(20, 0, dtype=torch.float64)
    labels = torch.arange(20) % 2
    h = 1e-6 if name in TABLES else 1e-4
    for chunk, cond in ((7, torch.tensor(1)), (4096, None)):
        D = Empirical(points, labels).denoiser(S, chunk=chunk)

        def value(t, D=D, cond=cond):
            return (D(x, t, cond).x0 * f64([[1.0, 2.0]])).sum()

        right = torch.stack([derivative(value, t, h) for t in MID])
        for found in slopes(value, MID):
            torch.testing.assert_close(found, right, rtol=1e-5, atol=1e-6)


def wrapped(S):
    net = torch.nn.Linear(2, 2).double()
    net.forward = lambda x, t, cond=None: torch.sin(x + t[:, None])
    for kind in ("x0", "eps", "v", "score", "velocity", "preconditioned"):
        yield NetDenoiser(net, S, kind)
    yield LambdaDenoiser(MLP(2).double(), S, "v")
    yield mixtures.ring().denoiser(S)
    yield Rescheduled(mixtures.ring().denoiser(EVERY["vp"]), S)


@pytest.mark.parametrize("name", ["vp", "ve", "scaled-linear", "user"])
def test_of_every_denoiser(name):
    S, x = EVERY[name], normal(1, 2)
    t, h = (MID[:1], 1e-6 if name in TABLES else 1e-4)
    for D in wrapped(S):

        def value(t, D=D):
            return D(x, t).x0.sum()

        right = torch.stack([derivative(value, u, h) for u in t])
        for found in slopes(value, t):
            torch.testing.assert_close(found, right.detach(), rtol=1e-4, atol=1e-5, msg=f"{type(D).__name__} {D.kind}")


@pytest.mark.parametrize("name", EVERY)
def test_vmap_over_times(name):
    """The same as one call at many times; nothing is looked at."""
    S, x = EVERY[name], normal(1, 2)
    D = mixtures.ring().denoiser(S)
    for f in (
        lambda t: D(x, t, torch.tensor([3])).eps,
        lambda t: S.mix(x, x, t),
        lambda t: jump(D(x, t), 0.1 * t),
        lambda t: chord(S, x, t, 2 * x, 0.5 * t).x0,
        lambda t: Guided(D, 2.0)(x, t, torch.tensor(1)).x0,
        lambda t: D(x, t).read("v"),
        lambda t: torch.stack(S.rates(t)),
        lambda t: S.part_way(t, 0.5 * t, 0.3),
    ):
        torch.testing.assert_close(torch.func.vmap(f)(MID), torch.stack([f(t) for t in MID]), rtol=1e-10, atol=1e-10)


def test_one_time_that_wants_a_gradient_is_no_warning():
    t = torch.tensor(0.3, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for S in EVERY.values():
            D = mixtures.ring().denoiser(S)
            S.mix(torch.ones(1, 2), torch.ones(1, 2), t)
            jump(D(torch.ones(1, 2), t), 0.5 * t).sum().backward()
            chord(S, torch.ones(1, 2), t, torch.zeros(1, 2), 0.5 * t)


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_rates_are_the_same_in_every_mode(name):
    S = ALL_SCHEDULES[name]
    right = S.rates(MID)
    with torch.inference_mode():
        inside = S.rates(MID.clone())
    for found in (inside, torch.func.vmap(S.rates)(MID)):
        torch.testing.assert_close(torch.stack(found), torch.stack(right), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ALL_SCHEDULES)
def test_the_clean_end_has_a_derivative_or_says_that_it_has_none(name):
    S = ALL_SCHEDULES[name]
    D = mixtures.ring().denoiser(S)
    for at in ([0.0, 0.3], [0.0]):
        t = f64(at).requires_grad_()
        if torch.isfinite(S.rates(f64(0.0))[1]):
            D(normal(len(at), 2), t).x0.sum().backward()
            assert torch.isfinite(t.grad).all()
        else:
            with pytest.raises(ValueError, match="there is no derivative with respect to t at t = 0 on"):
                D(normal(len(at), 2), t)
            with torch.no_grad():
                D(normal(len(at), 2), t)
