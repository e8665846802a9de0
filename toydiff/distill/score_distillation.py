"""Score distillation: a generator is moved by the difference of two scores, the teacher's and that of its own samples (slides 18 to 20).

| method | what moves the generator | the fake model |
|---|---|---|
| VSD | w(t) (eps_psi - eps_phi) dg/dtheta | a copy of the teacher |
| SwiftBrush | the same, w = sigma^2 | a LoRA on the teacher |
| DMD | (D_phi - D_psi)/mean|x - D_psi| dg/dtheta, and a regression on pairs | a copy |
| DMD2 | the same, and a GAN on the fake model's features; no pairs | a copy, more updates than the generator |
| score implicit matching | the gradient of a distance d(s_phi - s_psi), through both scores | a copy |

psi is the teacher, theta the generator g, and phi the *fake* model: a diffusion model of the generator's samples, trained beside it. Each has its own
turn. The loss that is printed for a generator is a surrogate with the right gradient; its value says little, and the monitor says more.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..checks import check_count, check_number, check_positive, unknown
from ..denoisers import Denoiser, Guided, LambdaDenoiser
from ..measure import score_error
from ..nets.discriminator import Discriminator
from ..nets.low_rank import low_rank
from ..prediction import Prediction
from ..problems.base import Problem
from ..schedules import Schedule, expand
from ..solvers.lcm import LCM
from ..training import EMA, Draws, Loss, Turn
from .base import Knobs, Training
from .generator import Generator, generator, generator_of
from .naive import in_x0
from .pairs import Pairs
from .regression import Pair, in_own_kind, only_noise, regression, uniform_times

EARLIEST, LATEST = 0.02, 0.98
"""Times at which two scores are compared: beyond them one knows nothing of the other (SwiftBrush, alg. 1; DMD's code)."""

MONITORED = 1024
"""Samples, at least, with which the monitor knows the generator's score."""


@dataclass(frozen=True)
class ScoreKnobs(Knobs):
    """`guidance_scale` of the teacher, which the generator then has built in (1 is off); `ratio`, updates of the fake model in one of the generator,
    and its learning rate `lr_fake`; `rank` of the fake model's LoRA, 0 for a full copy of the teacher. Where the teacher has no network, the fake model is a
    fresh one, whatever the rank.
    """

    guidance_scale: float = 1.0
    ratio: int = 5
    lr_fake: float = 1e-3
    rank: int = 0

    def __post_init__(self):
        check_count(self.ratio, "ratio")
        check_positive(self.lr_fake, "lr_fake")
        check_count(self.rank, "rank", 0)
        check_number(self.guidance_scale, "guidance_scale")


@dataclass(frozen=True)
class Players:
    """Who takes part: the generator's student and what it makes, the (guided) teacher psi, the fake model phi."""

    student: Denoiser
    make: Generator
    teacher: Denoiser
    fake: LambdaDenoiser
    problem: Problem
    knobs: ScoreKnobs

    @property
    def schedule(self) -> Schedule:
        """On which samples are noised again: the teacher's."""
        return self.teacher.schedule

    def samples(self, draws: Draws) -> tuple[Tensor, Tensor | None]:
        """x = g_theta(z), (B, ...), with its gradient, and what was asked for, (B,) or None."""
        made = self.make(draws)
        return made.x, made.cond

    def noised(self, x: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """t ~ U(0.02, 0.98) and x_t = alpha x + sigma eps."""
        batch = self.knobs.batch  # of all processes together, where x is this one's part
        t = draws.uniform(batch, EARLIEST, LATEST)
        return t, self.schedule.mix(x, draws.normal(batch, *self.problem.shape), t)

    def training(
        self, move: Loss, learn: Loss | None = None, head: nn.Module | None = None, steps: tuple[int, ...] = ()
    ) -> Training:
        """The turns of an update: the generator's, then `ratio` of the fake model's, with a head on its features where there is one."""
        knobs, beside = self.knobs, {} if head is None else {"head": head}
        modules = {"fake": self.fake, **beside}
        learners = [p for module in modules.values() for p in module.parameters()]
        without_momentum = (0.0, 0.999)  # what moves one side is where the other one was
        turns = [
            Turn(move, list(self.student.parameters()), knobs.lr, without_momentum),
            Turn(learn or fake_loss(self), learners, knobs.lr_fake, without_momentum, knobs.ratio, "fake"),
        ]
        return Training(
            self.student, EMA(self.student, knobs.ema), turns, modules=modules, teacher_calls=self.teacher.calls * knobs.batch, steps=steps,
            monitor=self.monitor,
        )  # fmt: skip

    def monitor(self) -> dict[str, float]:
        """How far the fake model's score is from that of the generator's samples, where that can be known: points of few dimensions."""
        if len(self.problem.shape) > 1:
            return {}
        draws = Draws(0, next(self.student.parameters()).device)
        with torch.no_grad():
            parts = [self.samples(draws) for _ in range(-(-MONITORED // self.knobs.batch))]
        x = torch.cat([x for x, _ in parts])
        cond = None if parts[0][1] is None else torch.cat([cond for _, cond in parts])
        return {"fake_error": score_error(self.fake, x, cond=cond)}


def players(problem: Problem, knobs: ScoreKnobs, teacher: Denoiser, start: Denoiser | None, steps: int = 1) -> Players:
    """Set the stage: theta from `start` or psi, phi <- psi, a LoRA on psi if `rank` asks for it."""
    if knobs.guidance_scale != 1 and not problem.classes:
        raise ValueError(
            f"guidance needs classes to guide towards, and {problem.name} has none; set guidance_scale to 1"
        )
    student = generator_of(problem, teacher, start)
    fake = generator_of(problem, teacher, None)  # phi <- psi
    if knobs.rank and isinstance(teacher, LambdaDenoiser):
        fake.net = low_rank(fake.net, knobs.rank)
    make = generator(problem, student, LCM(), steps, knobs.batch, knobs.guidance_scale)
    return Players(student, make, Guided(teacher, knobs.guidance_scale), fake, problem, knobs)


def fake_loss(on: Players) -> Loss:
    """Diffusion training on the generator's samples: |eps_phi(alpha' x + sigma' eps', t') - eps'|^2, in the kind that phi predicts."""

    def coupling(draws: Draws) -> Pair:
        with torch.no_grad():
            x, cond = on.samples(draws)  # sg g_theta(z)
        eps = draws.normal(on.knobs.batch, *on.problem.shape)  # eps', fresh
        return Prediction(eps, torch.ones((), dtype=x.dtype, device=x.device), x, eps, on.schedule), cond

    return regression(on.fake, coupling, uniform_times(on.knobs.batch), in_own_kind(on.fake.kind))


def towards(x: Tensor, delta: Tensor) -> Tensor:
    """|x - sg(x - delta)|^2/2, (B,): its gradient by x is delta, whatever delta is. Its value, |delta|^2/2, is no divergence."""
    return 0.5 * (x - (x - delta).detach()).square().flatten(1).sum(1)


# ---- VSD and SwiftBrush

WEIGHTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "kl": lambda alpha, sigma: alpha / sigma,
    "sigma2": lambda alpha, sigma: sigma**2,
    "x0": lambda alpha, sigma: sigma / alpha,
}
"""w(t) of alpha and sigma, by name: that with which the gradient is that of KL(p_theta,t || q_t), SwiftBrush's, and that of the difference in x_0."""


@dataclass(frozen=True)
class VSDKnobs(ScoreKnobs):
    """`weight`, w(t): "kl", alpha/sigma, with which the gradient is that of the KL divergence; "sigma2"; or "x0", sigma/alpha."""

    weight: str = "kl"


def vsd(
    problem: Problem, knobs: VSDKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Variational score distillation, VSD (arXiv 2305.16213, eq. 9; slide 18): E[w(t) (eps_psi(x_t, t) - eps_phi(x_t, t)) dg/dtheta], x_t = alpha g(z) + sigma eps.

    With w = alpha/sigma this is the gradient of KL(p_theta,t || q_t), averaged over t: reverse KL, which may drop modes. The slide's w holds the factor alpha of dx_t/dtheta.
    """
    if knobs.weight not in WEIGHTS:
        raise unknown("weight", knobs.weight, WEIGHTS)
    on = players(problem, knobs, teacher, start)
    weight = WEIGHTS[knobs.weight]

    def move(step: int, draws: Draws) -> Tensor:
        x, cond = on.samples(draws)  # x = g_theta(z)
        with torch.no_grad():
            t, x_t = on.noised(x, draws)
            w = expand(weight(on.schedule.alpha(t), on.schedule.sigma(t)), x)
            delta = w * (on.teacher(x_t, t, cond).eps - on.fake(x_t, t, cond).eps)
        return towards(x, delta).mean()

    return on.training(move)


@dataclass(frozen=True)
class SwiftBrushKnobs(VSDKnobs):
    """Those of VSD, with a LoRA as the fake model, one update of it in each, and w = sigma^2, as in the original code."""

    weight: str = "sigma2"
    rank: int = 16
    ratio: int = 1


def swiftbrush(
    problem: Problem, knobs: SwiftBrushKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """SwiftBrush (arXiv 2312.05239, alg. 1; slide 18): VSD's gradient for a one-step generator, phi a *LoRA teacher*, no data at all.

    The original guides both scores by 4.5, drops a tenth of the prompts for it, and weighs the LoRA's loss by alpha^2; the slide shows neither, and here the teacher alone
    is guided.
    """
    return vsd(problem, knobs, teacher, pairs, start)


# ---- DMD and DMD2


@dataclass(frozen=True)
class DMDKnobs(ScoreKnobs):
    """`regression`, the weight of the regression on pairs (0: none)."""

    ratio: int = 1
    regression: float = 0.25

    def __post_init__(self):
        super().__post_init__()
        if check_number(self.regression, "regression") < 0:  # before any pair is made
            raise ValueError(f"regression, a weight, must be >= 0, got {self.regression:g}")


LEAST_SCALE = 0.03
"""DMD's denominator is at least this part of its mean over the batch, or over a process's own part of it."""


def matched(on: Players, x: Tensor, cond: Tensor | None, draws: Draws) -> Tensor:
    """(D_phi - D_psi)/mean_i|x - D_psi| at a noised x, (B, ...): DMD's direction (arXiv 2311.18828, eq. 7 and 8).

    D_phi - D_psi = (sigma/alpha)(eps_psi - eps_phi): VSD's direction in x_0. The denominator makes it independent of the data's scale and of t. Over the many numbers of an
    image it is never near 0, but of a sample of few numbers 1/|x - D_psi| has no finite variance (of one number no mean), and without a bound, which the paper does
    not have, a Gaussian generator on the line drifts away from its data.
    """
    with torch.no_grad():
        t, x_t = on.noised(x, draws)
        D_psi, D_phi = on.teacher(x_t, t, cond).x0, on.fake(x_t, t, cond).x0
        scale = (x - D_psi).abs().flatten(1).mean(1)
        scale = scale.clamp(min=LEAST_SCALE * float(scale.mean()))
        return torch.nan_to_num((D_phi - D_psi) / expand(scale, x), 0.0, 0.0, 0.0)


def dmd(problem: Problem, knobs: DMDKnobs, teacher: Denoiser, pairs: Pairs, start: Denoiser | None = None) -> Training:
    """Distribution matching distillation, DMD (arXiv 2311.18828, alg. 1): `matched`, and d(g(z), y) on pairs (z, y) of the teacher's ODE.

    The regression holds the modes that reverse KL would drop. The paper's distance is LPIPS, here the square in x_0. Pairs and teacher should have the same guidance.
    """
    on = players(problem, knobs, teacher, start)
    paired = regression(on.student, pairs.coupling(on.student.schedule, knobs.batch), only_noise(knobs.batch), in_x0)

    def move(step: int, draws: Draws) -> Tensor:
        x, cond = on.samples(draws)  # x = g_theta(z)
        loss = towards(x, matched(on, x, cond, draws)).mean()
        return loss + knobs.regression * paired(step, draws) if knobs.regression else loss

    return on.training(move)


@dataclass(frozen=True)
class DMD2Knobs(ScoreKnobs):
    """`gan`, the weight of the generator's GAN loss, and `gan_fake`, that of the discriminator's beside the fake model's own; `steps` of the generator."""

    gan: float = 1e-2
    gan_fake: float = 1e-2
    steps: int = 1


def dmd2(
    problem: Problem, knobs: DMD2Knobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """DMD2 (arXiv 2405.14867): DMD without pairs, more updates of the fake model, and a GAN whose discriminator C is a head on phi's features.

    C sees noised samples, and noised *data* as the real ones; both losses are softplus. With several `steps` the generator is trained on its own intermediate
    results (sec. 4.5, backward simulation): x_0 -> noise -> x_0 at uniform times; sample it with the solver `lcm`.
    """
    for name in ("gan", "gan_fake"):
        if check_number(getattr(knobs, name), name) < 0:
            raise ValueError(f"{name}, a weight, must be >= 0, got {getattr(knobs, name):g}")
    on = players(problem, knobs, teacher, start, knobs.steps)
    C, learn_scores, batch = Discriminator.shared(on.fake), fake_loss(on), knobs.batch

    def move(step: int, draws: Draws) -> Tensor:
        x, cond = on.samples(draws)  # x = g_theta(z)
        t, x_t = on.noised(x, draws)
        fooled = F.softplus(-C(x_t, t, cond))
        return (towards(x, matched(on, x, cond, draws)) + knobs.gan * fooled).mean()

    def learn(step: int, draws: Draws) -> Tensor:
        with torch.no_grad():
            x, cond = on.samples(draws)
        data, label = draws.rows(problem.data, batch)
        told_apart = 0.0
        for sample, c, sign in ((x, cond, 1), (data, label if cond is not None else None, -1)):
            t, x_t = on.noised(sample, draws)
            told_apart = told_apart + F.softplus(sign * C(x_t, t, c))
        return learn_scores(step, draws) + knobs.gan_fake * told_apart.mean()

    return on.training(move, learn, C.head, (knobs.steps,))


# ---- score implicit matching

SLOPES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "l2": lambda y, c: 2 * y,
    "huber": lambda y, c: y / torch.sqrt(expand(y.square().flatten(1).sum(1), y) + c**2),
    "element-huber": lambda y, c: y / torch.sqrt(y.square() + c**2),
}
"""d'(y) by the name of d: |y|^2, the pseudo-Huber sqrt(|y|^2 + c^2) - c of the vector, and the sum of that of each number, which tends to |y|_1 as c -> 0."""


@dataclass(frozen=True)
class SIMKnobs(ScoreKnobs):
    """`distance`, d: "l2", "huber" or "element-huber", with its `c`, in units of the score."""

    distance: str = "huber"
    c: float = 1.0


def score_implicit_matching(
    problem: Problem, knobs: SIMKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Score implicit matching, SIM (arXiv 2410.16794, alg. 1; slides 19, 20): E w(t) d(s_p - s_q), differentiated by the score divergence gradient theorem.

    E[d'(y) ds_p/dtheta] = -d/dtheta E[d'(y)^T (s_p - grad log q(x_t | x_0))], y = s_p - s_q, with the parameters of s_p held and the gradient flowing through x_t into both
    scores. As s_p - grad log q(x_t | x_0) = (alpha/sigma^2)(D_phi(x_t) - x_0), the loss is -w (alpha/sigma^2) d'(y)^T (D_phi - x_0), here with w = sigma^2/alpha.
    """
    if knobs.distance not in SLOPES:
        raise unknown("distance", knobs.distance, SLOPES)
    check_positive(knobs.c, "c")
    on = players(problem, knobs, teacher, start)
    slope = SLOPES[knobs.distance]

    def move(step: int, draws: Draws) -> Tensor:
        x, cond = on.samples(draws)  # x_0 = g_theta(z)
        t, x_t = on.noised(x, draws)  # its graph is kept
        p, q = on.fake(x_t, t, cond), on.teacher(x_t, t, cond)  # s_p of phi, s_q of psi
        u = slope(p.read("score") - q.read("score"), knobs.c)  # d'(s_p - s_q)
        return -(u * (p.x0 - x)).flatten(1).sum(1).mean()

    return on.training(move)
