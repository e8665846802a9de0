"""What the score distillation methods share (slides 18 to 20 of the deck): a generator is moved by the difference of
two scores, the teacher's and that of its own samples.

| method | what moves the generator | the fake model |
|---|---|---|
| `vsd` | w(t) (eps_psi - eps_phi) dg/dtheta | a copy of the teacher |
| `swiftbrush` | the same, w = sigma^2 | a LoRA on the teacher |
| `dmd` | (D_phi - D_psi)/mean|x - D_psi| dg/dtheta, and a regression on pairs | a copy |
| `dmd2` | the same, and a GAN on the fake model's features; no pairs | a copy, more updates than the generator |
| `sim` | the gradient of a distance d(s_phi - s_psi), through both scores | a copy |

psi is the teacher, theta the generator g, and phi the *fake* model: a diffusion model of the generator's samples,
trained beside it. The generator and the fake model have a turn each. The printed loss of a generator is a surrogate:
its gradient is right, but its value says little. The monitor's figure says more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..denoisers import LambdaDenoiser
from ..measure import score_error
from ..nets.low_rank import low_rank
from ..prediction import jump
from ..support.checks import check_count, check_number, check_positive
from ..training import EMA, Draws, Loss, Turn
from .base import Knobs, Training
from .diffusion import diffusion_loss
from .generator import generator_of, noise_for

EARLIEST, LATEST = 0.02, 0.98
"""The range of times at which the two scores are compared (SwiftBrush, alg. 1; DMD's code). Nearer to 0 or 1 their
difference says little."""

MONITORED = 1024
"""The least number of samples from which the monitor computes the generator's true score."""


@dataclass(frozen=True)
class ScoreKnobs(Knobs):
    """Those of every method, and:"""

    guidance_scale: float = 1.0
    """The teacher's guidance scale, which the generator then has built in; 1 is off."""
    ratio: int = 5
    """Updates of the fake model for each update of the generator."""
    lr_fake: float = 1e-3
    """The learning rate of the fake model, > 0."""
    rank: int = 0
    """The rank of the fake model's LoRA on the teacher; 0 for a full copy of the teacher. If the teacher is exact, the
    fake model is a fresh network, whatever the rank."""

    def __post_init__(self):
        check_count(self.ratio, "ratio")
        check_positive(self.lr_fake, "lr_fake")
        check_count(self.rank, "rank", 0)
        check_number(self.guidance_scale, "guidance_scale")


def generator_and_fake(problem, knobs, teacher, start=None) -> tuple[LambdaDenoiser, LambdaDenoiser]:
    """The generator theta, a copy of `start` or psi; and the fake model phi, a copy of psi, or a LoRA on it if `rank`
    is not 0."""
    if knobs.guidance_scale != 1 and not problem.classes:
        raise ValueError(
            f"guidance needs classes to guide towards, and {problem.name} has none; set guidance_scale to 1"
        )
    student, fake = generator_of(problem, teacher, start), generator_of(problem, teacher, None)
    if knobs.rank and isinstance(teacher, LambdaDenoiser):
        fake.net = low_rank(fake.net, knobs.rank)
    return student, fake


def one_step_noise(problem, student, knobs, draws):
    """(z, cond) for a one-step generator: noise (B, ...) at t = 1, and labels (B,) or None."""
    z, cond = noise_for(problem, student, knobs.batch, draws, labelled=problem.conditional or knobs.guidance_scale != 1)
    draws.integers(len(z), 1)  # the step that is trained, as in DMD2: a seed gives the whole family the same z
    return z, cond


def one_step_samples(problem, student, knobs, draws):
    """(x, cond): samples x = sg g_theta(z), (B, ...), and the labels they were made for, (B,) or None."""
    z, cond = one_step_noise(problem, student, knobs, draws)
    with torch.no_grad():
        return jump(student(z, 1.0, cond), 0.0), cond


def two_players(
    problem, knobs, teacher, student, fake, move: Loss, learn: Loss, generate: Callable, heads: dict, **rest
) -> Training:
    """The turns of an update: one of the generator's, by `move`, then `ratio` of the fake model's, by `learn`.

    heads: modules on the fake model's features, by name, which are trained with it. generate(draws): the generator's
    samples and their labels, with which the monitor compares the fake model. rest: fields of `Training`.
    """
    modules = {"fake": fake, **heads}
    learners = [p for module in modules.values() for p in module.parameters()]
    without_momentum = (0.0, 0.999)  # what moves one side is where the other one was
    turns = [
        Turn(move, list(student.parameters()), knobs.lr, without_momentum),
        Turn(learn, learners, knobs.lr_fake, without_momentum, knobs.ratio, "fake"),
    ]

    def monitor():
        if len(problem.shape) > 1:  # the true score is known for points of few dimensions
            return {}
        draws = Draws(0, next(student.parameters()).device)
        with torch.no_grad():
            xs, conds = zip(*(generate(draws) for _ in range(-(-MONITORED // knobs.batch))), strict=True)
        return {"fake_error": score_error(fake, torch.cat(xs), cond=None if conds[0] is None else torch.cat(conds))}

    calls = teacher.calls_at(knobs.guidance_scale) * knobs.batch
    average = EMA(student, knobs.ema)
    return Training(student, average, turns, modules=modules, teacher_calls=calls, monitor=monitor, **rest)


def one_step_players(problem, knobs, teacher, student, fake, move: Loss) -> Training:
    """The turns of an update for a one-step generator; the fake model's is diffusion training on x = sg g_theta(z)."""

    def generate(draws):
        return one_step_samples(problem, student, knobs, draws)

    def learn(step, draws):
        x, cond = generate(draws)
        return diffusion_loss(fake, x, cond, draws)

    return two_players(problem, knobs, teacher, student, fake, move, learn, generate, {})
