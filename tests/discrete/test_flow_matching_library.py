"""Path, velocity, loss and Euler solver against Facebook's flow_matching, where it is installed; and against their
published formulas, written out, where it is not. Its time is 1 - t."""

import pytest
import torch
from tables import chain, table

from toydiff.discrete import TokenPath, scheduler, solve_tokens
from toydiff.discrete.jumps import EulerJumps
from toydiff.discrete.laws import generator, numbers, propagate, source_law, strings
from toydiff.distill.discrete_flow_matching import generalised_kl_loss
from toydiff.training import Draws

SOURCES = ["mask", "uniform"]
KAPPAS = {"linear": 1.0, "power:2": 2.0}
N = 20_000


class Recorded:
    """A posterior whose logits are recorded with what they were asked for."""

    def __init__(self, P):
        self.P, self.path = P, P.path

    def logits(self, x, t, latent=None, cond=None):
        p = self.P(x, t)
        self.asked = x, t, torch.log(p.clamp(min=1e-30))
        return self.asked[2][..., : self.path.vocab]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_the_loss_is_the_divergence_of_the_rates(kappa, source):
    """sum over y != x_t of u log(u/v) - u + v, with the rates u of the data's token and v of the posterior."""
    P = chain(3, 4, source, kappa)
    student, x1 = Recorded(P), torch.randint(3, (6, 4), generator=torch.Generator().manual_seed(3))
    loss = generalised_kl_loss(student, x1, Draws(4))
    x, t, log_p = student.asked
    total, size = 0.0, P.path.size
    for b in range(6):
        a = min(float(P.path.rate(t[b])), 1e3)
        for i in range(4):
            for y in range(size):
                if y != int(x[b, i]):
                    u, v = a * (y == int(x1[b, i])), a * float(log_p[b, i, y].exp())
                    total += (u * (torch.log(torch.tensor(u / v)) if u else 0.0)) - u + v
    assert float(loss) == pytest.approx(float(total) / 24, rel=1e-4)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_euler_is_that_of_the_conditional_rates(kappa, source):
    """x_1 ~ p; the position jumps to x_1 with probability 1 - exp(-h a), unless it is there."""
    P = table(source, kappa)
    X, t, s = strings(P.path.size, 2), torch.tensor(0.7), torch.tensor(0.45)
    p = P(X, t)
    law = EulerJumps().stage(P.path, t, s, [X], [p])
    expected = torch.zeros_like(p)
    for x1 in range(P.path.size):
        leaves = torch.where(x1 == X, 0.0, 1 - torch.exp(-(t - s) * P.path.rate(t)).double())
        expected[..., x1] += p[..., x1] * leaves
        expected += torch.nn.functional.one_hot(X, P.path.size) * (p[..., x1] * (1 - leaves))[..., None]
    assert torch.allclose(law, expected, atol=1e-6)


@pytest.fixture(scope="module")
def library():
    pytest.importorskip("flow_matching.solver")
    import flow_matching.loss
    import flow_matching.path
    import flow_matching.path.scheduler
    import flow_matching.solver

    return flow_matching


def mixture_path(library, kappa):
    return library.path.MixtureDiscreteProbPath(library.path.scheduler.PolynomialConvexScheduler(n=KAPPAS[kappa]))


@pytest.mark.parametrize("kappa", KAPPAS)
def test_the_path_is_the_librarys(library, kappa):
    path, t = TokenPath(3, "uniform", scheduler(kappa)), torch.linspace(0.05, 0.95, 10)
    theirs = mixture_path(library, kappa).scheduler(1 - t)
    assert torch.allclose(path.kappa(t), theirs.alpha_t, atol=1e-6)
    assert torch.allclose(path.scheduler.slope(t), -theirs.d_alpha_t, atol=1e-6)  # dt changes its sign
    rng = torch.Generator().manual_seed(0)
    data, noise = torch.ones(N, 2, dtype=torch.long), path.noise(N, 2, rng)
    torch.manual_seed(0)
    sample = mixture_path(library, kappa).sample(x_0=noise, x_1=data, t=torch.full((N,), 0.6)).x_t
    ours = path.mix(data, noise, torch.rand(N, 2, generator=rng), 0.4)
    assert abs(float((sample == 1).double().mean() - (ours == 1).double().mean())) < 4.5 * (0.5 / N) ** 0.5


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_the_velocity_is_the_generator(library, kappa, source):
    P, t = table(source, kappa), 0.3
    X = strings(P.path.size, 2)
    u = mixture_path(library, kappa).posterior_to_velocity(P(X, t).log(), X, torch.full((len(X),), 1 - t).double())
    Q = P.path.rate(t) * generator(P, t)
    for i in range(2):
        for y in range(P.path.size):
            moved = X.clone()
            moved[:, i] = y
            differs = X[:, i] != y
            here = torch.arange(len(X))[differs]
            assert torch.allclose(u[differs, i, y], Q[here, numbers(moved, P.path.size)[differs]], atol=1e-9)


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("kappa", KAPPAS)
def test_the_loss_is_the_librarys(library, kappa, source):
    P = chain(3, 4, source, kappa)
    student, x1 = Recorded(P), torch.randint(3, (64, 4), generator=torch.Generator().manual_seed(3))
    ours = generalised_kl_loss(student, x1, Draws(4))
    x, t, log_p = student.asked
    loss = library.loss.MixturePathGeneralizedKL(mixture_path(library, kappa))
    assert float(loss(log_p, x1, x, 1 - t.double())) == pytest.approx(float(ours), rel=1e-4)


@pytest.mark.parametrize("source", SOURCES)
def test_euler_samples_are_the_librarys(library, source):
    """Its solver's strings have the law that ours propagates."""
    P, steps = table(source, "linear"), 4
    ts = torch.linspace(1, 0, steps + 1, dtype=torch.float64)

    def model(x, t):
        return P(x, 1 - t[0])

    torch.manual_seed(0)
    solver = library.solver.MixtureDiscreteEulerSolver(model, mixture_path(library, "linear"), P.path.size)
    x = solver.sample(P.path.noise(N, 2, 1), step_size=None, time_grid=1 - ts)
    law = propagate(EulerJumps(), P, source_law(P.path, 2), ts)
    for samples in (x, solve_tokens(P, P.path.noise(N, 2, 1), ts=ts, solver="jump-euler", generator=0).end):
        found = torch.bincount(numbers(samples, P.path.size), minlength=len(law)).double() / N
        assert bool(((found - law).abs() <= 4.5 * (law * (1 - law) / N).sqrt() + 1e-12).all())
