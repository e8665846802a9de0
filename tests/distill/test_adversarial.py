"""Adversarial post-training through its own losses: hinges, signs, the gradient penalty, what is compared with what."""

import copy

import pytest
import torch
from cases import N1, R2, close, f64, normal
from students import Small, With, small, train
from torch import nn

from toydiff import Denoiser, Prediction, schedule
from toydiff.catalog import METHODS
from toydiff.denoisers import LambdaDenoiser
from toydiff.distill import adversarial as ad
from toydiff.nets.discriminator import Discriminator
from toydiff.training import Draws, fit

pytestmark = pytest.mark.usefixtures("float64")


class Linear(nn.Module):
    """D(x, t, cond) = w x + b, in the place of a discriminator; keeps what it was shown."""

    def __init__(self, w, b=0.0):
        super().__init__()
        self.w, self.b, self.seen = nn.Parameter(f64(w)), nn.Parameter(f64(b)), []

    def forward(self, x, t, cond=None):
        self.seen.append((x.detach().clone(), t, cond))
        return x @ self.w + self.b


def judged_by(monkeypatch, D):
    monkeypatch.setattr(ad.Discriminator, "on", classmethod(lambda cls, *a: D))
    return D


@pytest.mark.parametrize("b", [0.0, 0.4, -3.0])
def test_a_constant_discriminator_gives_the_hinges_themselves(monkeypatch, b):
    problem, teacher = small(kind="v")
    judged_by(monkeypatch, Linear([0.0, 0.0], b))
    training = train("adversarial", problem, teacher, batch=16)
    generate, discriminate = (float(turn.loss(0, Draws(1)).detach()) for turn in training.turns)
    assert generate == pytest.approx(-b)
    assert discriminate == pytest.approx(max(1 + b, 0) + max(1 - b, 0))


def test_each_side_goes_its_own_way(monkeypatch):
    """A step of the generator raises what D says of it; a step of D lowers that, and raises what it says of data."""
    problem, teacher = small(kind="v")
    D = judged_by(monkeypatch, Linear([0.3, -0.2], 0.1))
    training = train("adversarial", problem, teacher, batch=16, reach=0.1)

    def said():
        training.turns[1].loss(0, Draws(5))
        (fake, _, _), (real, _, _) = D.seen[-2:]
        return float((fake @ D.w + D.b).mean().detach()), float((real @ D.w + D.b).mean().detach())

    before = said()
    list(fit([copy.copy(training.turns[0])], 20, seed=1))
    moved = said()
    assert moved[0] > before[0] + 1e-3
    assert moved[1] == before[1]
    list(fit([training.turns[1]], 20, seed=1))
    learnt = said()
    assert learnt[1] - learnt[0] > moved[1] - moved[0] + 1e-3


def test_keep_is_the_distance_to_the_student_before(monkeypatch):
    problem, teacher = small(kind="v")
    judged_by(monkeypatch, Linear([0.0, 0.0]))
    training = train("adversarial", problem, teacher, batch=16, start=teacher, keep=2.0)
    loss = training.turns[0].loss
    assert float(loss(0, Draws(1)).detach()) == 0
    with torch.no_grad():
        training.student.net.head.bias += 0.1  # v is shifted by 0.1, and x_0 by sigma as much
    sigma = problem.schedule.sigma(f64(1.0))
    assert float(loss(0, Draws(1)).detach()) == pytest.approx(2 * (0.1 * float(sigma)) ** 2, rel=1e-6)
    assert {id(p) for p in training.modules["before"].parameters()}.isdisjoint(
        id(p) for p in training.student.parameters()
    )


def test_r1_is_half_the_square_of_the_slope_on_data(monkeypatch):
    problem, teacher = small(kind="v")
    w = [0.3, -0.4]
    D = judged_by(monkeypatch, Linear(w))
    plain, fined = (
        train("adversarial", problem, teacher, batch=16, r1=r1).turns[1].loss(0, Draws(1)) for r1 in (0.0, 3.0)
    )
    assert float((fined - plain).detach()) == pytest.approx(0.5 * 3.0 * 0.25)
    slopes = [torch.autograd.grad(loss, D.w)[0] for loss in (plain, fined)]
    close(slopes[1] - slopes[0], 3.0 * f64(w), 1e-12)


class Flow(Denoiser):
    """The exact flow of a Gaussian as a student: its jump from t lands where the ODE does, at the s that is requested
    for.
    """

    def __init__(self, mixture, on, s):
        super().__init__(on)
        self.mixture, self.s, self.unused = mixture, s, nn.Parameter(torch.zeros(()))

    def forward(self, x, t, cond=None):
        from toydiff import chord

        times, ends = t.expand(len(x)), torch.empty_like(x)
        for time in times.unique().tolist():
            ends[times == time] = self.mixture.flow(self.schedule, x[times == time], time, self.s(time))
        s = torch.tensor([self.s(float(time)) for time in times])
        p = chord(self.schedule, x, times, ends, s)
        return Prediction(x, t, p.x0 + 0 * self.unused, p.eps, self.schedule)


@pytest.mark.parametrize(("solver", "steps"), [("lcm", 1), ("lcm", 2), ("ddim", 1), ("ddim", 2)])
def test_real_and_fake_are_alike_where_the_student_is_right(monkeypatch, solver, steps):
    """Of a student whose every step keeps the law, the discriminator sees the same distribution twice, whatever the
    step and the noise.
    """
    on = schedule("vp")
    target = (lambda t: 0.0) if solver == "lcm" else (lambda t: max(t - 1 / steps, 0.0))
    student = Flow(N1, on, target)
    problem = With(N1, on, "v", lambda on, kind: student)
    D = judged_by(monkeypatch, Linear([0.0]))
    training = train("adversarial", problem, problem.teacher, batch=3000, steps=steps, solver=solver)
    training.turns[1].loss(0, Draws(2))
    (fake, u, _), (real, v, _) = D.seen
    assert torch.equal(u, v)
    assert training.steps == (steps,)
    low, high = float(u.min()), float(u.max())
    assert high > 0.95
    assert low < 0.05
    for part in (u < 0.3, (u >= 0.3) & (u < 0.6), u >= 0.6):
        a, b = fake[part][:, 0] / on.alpha(u[part]), real[part][:, 0] / on.alpha(u[part])
        close_to = 4 * float((a.std() ** 2 / len(a) + b.std() ** 2 / len(b)).sqrt())
        assert abs(float(a.mean() - b.mean())) < close_to
        assert float(a.std() / b.std()) == pytest.approx(1, abs=0.12)
    # and of one that is wrong it does not
    student.mixture = type(N1)([[2.2]], std=0.5)
    training.turns[1].loss(0, Draws(2))
    (fake, u, _), (real, _, _) = D.seen[2:]
    small_noise = u < 0.5
    assert float((fake - real)[small_noise].mean().abs()) > 0.3


def test_the_teachers_features_are_frozen_and_own_ones_are_not():
    problem, teacher = small(kind="v")
    for features, frozen in (("teacher", True), ("own", False)):
        training = train("adversarial", problem, teacher, batch=16, features=features)
        D = training.modules["discriminator"]
        assert isinstance(D, Discriminator)
        trunk = list(D.denoiser.parameters())
        assert all(p.requires_grad != frozen for p in trunk)
        assert any(torch.equal(p, q) for p, q in zip(trunk, teacher.parameters(), strict=True)) == frozen
        before = [p.clone() for p in trunk]
        list(fit(training.turns, 2))
        assert all(torch.equal(p, q) for p, q in zip(trunk, before, strict=True)) == frozen
    # of an exact teacher, which has none, they are always its own
    assert all(
        p.requires_grad
        for p in train("adversarial", problem, problem.teacher, batch=16).modules["discriminator"].parameters()
    )


def test_classes_are_given_to_both_sides(monkeypatch):
    from cases import RING

    problem, teacher = small(kind="v", mixture=RING, conditional=True)
    D = judged_by(monkeypatch, Linear([0.0, 0.0]))
    train("adversarial", problem, teacher, batch=16).turns[1].loss(0, Draws(3))
    (_, _, given), (_real, _, labels) = D.seen
    assert given.shape == labels.shape == (16,)
    assert len(given.unique()) > 1
    plain, teacher = small(kind="v", mixture=R2)
    train("adversarial", plain, teacher, batch=16).turns[1].loss(0, Draws(3))
    assert [cond for _, _, cond in D.seen[2:]] == [None, None]


def test_a_student_of_several_steps_is_sampled_as_it_was_trained():
    from toydiff import runs

    torch.set_default_dtype(torch.float32)
    changes = {"updates": 1, "batch": 8, "steps": 4, "solver": "ddim"}
    model = runs.train(
        "adversarial", "mixture", start="ring-pcm", teacher="ring-teacher", changes=changes, watch=0
    ).finish()
    assert model.about["sampler"] == {"solver": "ddim", "grid": "uniform", "steps": [4]}
    [row] = runs.evaluate(model, runs.problem_of(model), n=200)
    assert (row["solver"], row["nfe"]) == ("ddim", 4)


@pytest.mark.slow
def test_a_generator_is_pulled_to_the_data():
    """The whole of it, in one dimension: a student that is off by 1 comes back."""
    torch.manual_seed(0)
    problem = Small(N1, schedule("scaled-linear"), "v")
    start = problem.student(problem.schedule, "v")
    with torch.no_grad():
        start.net.through.bias.fill_(0.0)
        start.net.head.bias.fill_(-1.7)  # x_0 = -sigma v + ...: the mean is 1.7 and not 0.7
    teacher = copy.deepcopy(start)
    training = train("adversarial", problem, teacher, start=start, batch=128, lr=2e-3, lr_d=5e-3, features="own")

    def mean():
        z = normal(2000, 1, seed=9)
        return float(training.average.module(problem.schedule.sigma(f64(1.0)) * z, 1.0).x0.mean())

    assert abs(mean() - 0.7) > 0.8
    list(fit(training.turns, 300, averages=training.averages(), seed=0))
    assert abs(mean() - 0.7) < 0.4
    assert METHODS["adversarial"].train is ad.adversarial
    assert isinstance(training.student, LambdaDenoiser)
