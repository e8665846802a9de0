"""The consistency family: one objective, in which a jump from t agrees with a jump from a neighbour on the same trajectory (slides 12, 16, 17).

| method | where the neighbour comes from | how near it is |
|---|---|---|
| consistency distillation | a teacher's solver step | the next point of a grid |
| consistency training | the sample itself | the next point of a grid that gets finer |
| easy consistency tuning | the sample itself | from all the way to data to almost no way |
| stable consistency tuning | the softmax-weighted reference batch | the same |

The student's consistency function is a jump of its belief, f(x_t, t) = jump(D(x_t, t), s), s = 0 here and the lower edge of a phase in
`phased_consistency`. As x_t = alpha x_0 + sigma eps, f(x_s, s) = x_s holds for every network: the boundary condition needs no c_skip and c_out.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checks import check_count, check_number, check_positive, unknown
from ..denoisers import Denoiser, Guided, LambdaDenoiser
from ..grids import time_grid
from ..mixtures import Empirical
from ..prediction import Prediction, jump
from ..problems.base import Problem
from ..schedules import Schedule
from ..solvers.base import Solver
from ..solvers.registry import solver_by_name
from ..training import EMA, Draws, Loss, Turn
from .base import Knobs, Training, like_teacher, starting_from
from .distances import Between, distance


@dataclass(frozen=True)
class Neighbours:
    """Two points of one trajectory for each sample: x at t, and x_r at the less noisy r; the edge that both jump to, edge <= r < t; all times (B,).

    cond (B,) or None; guidance_scale (B,) where the student sees it, else None.
    """

    x: Tensor
    t: Tensor
    x_r: Tensor
    r: Tensor
    edge: Tensor
    cond: Tensor | None = None
    guidance_scale: Tensor | None = None


Pairing = Callable[[int, Draws], Neighbours]
"""pairing(update, draws) -> a batch of neighbours."""

Times = Callable[[int, Draws], tuple[Tensor, Tensor]]
"""times(update, draws) -> (t, r), (B,) each, r < t."""

Comparison = Callable[[Prediction, Tensor, Neighbours], Tensor]
"""comparison(the student's belief at (x, t), the target's state at the edge, the neighbours) -> (B,)."""


def belief(D: Denoiser, n: Neighbours, x: Tensor, t: Tensor) -> Prediction:
    """What a denoiser believes at (x, t), told the neighbours' condition, and their guidance scale where there is one."""
    return D(x, t, n.cond) if n.guidance_scale is None else D.at_guidance(x, t, n.cond, n.guidance_scale)


@torch.no_grad()
def target_state(target: Denoiser, n: Neighbours) -> Tensor:
    """f_theta-(x_r, r), (B, ...): where the target's jump from the neighbour lands; the neighbour itself where r is the edge."""
    inside = n.r > n.edge
    rows = inside.reshape(-1, *[1] * (n.x.ndim - 1))
    # whose neighbour is at the edge is asked at t instead, in vain: at t = 0 not every kind can be asked
    y = jump(belief(target, n, torch.where(rows, n.x_r, n.x), torch.where(inside, n.r, n.t)), n.edge)
    return torch.where(rows, y, n.x_r)


def consistency(student: Denoiser, target: Denoiser, pairing: Pairing, compare: Comparison) -> Loss:
    """E d(f_theta(x_t, t), sg f_theta-(x_r, r)): what all methods of the family minimise (arXiv 2303.01469, eq. 7 and 10)."""

    def loss(step: int, draws: Draws) -> Tensor:
        n = pairing(step, draws)
        y = target_state(target, n)  # sg f_theta-(x_r, r)
        return compare(belief(student, n, n.x, n.t), y, n).mean()

    return loss


def at_the_edge(between: Between, weight: Callable[[Neighbours], Tensor] | None = None) -> Comparison:
    """w d(f_theta(x_t, t), y): the jump itself is compared."""

    def compare(p: Prediction, y: Tensor, n: Neighbours) -> Tensor:
        d = between(jump(p, n.edge), y)
        return d if weight is None else weight(n) * d

    return compare


def inverse_gap(schedule: Schedule) -> Callable[[Neighbours], Tensor]:
    """1/(NSR_t - NSR_r), (B,): the weight of iCT (arXiv 2310.14189, sec. 3.4) and ECT (arXiv 2406.14548), whose time is the NSR."""
    return lambda n: 1 / (schedule.nsr(n.t) - schedule.nsr(n.r))


@dataclass(frozen=True)
class ConsistencyKnobs(Knobs):
    """`distance`, "l2", "huber" (of the vector) or "element-huber", with its `c`; `target_ema`, the decay of the target's weights, where 0 is
    the student itself without a gradient.
    """

    distance: str = "l2"
    c: float = 1e-3
    target_ema: float = 0.0


def student_of(problem: Problem, teacher: Denoiser, start: Denoiser | None, *, guided: bool = False) -> Denoiser:
    """A student on the teacher's schedule, from its weights and in its kind; a fresh network, where there are no weights, says v.

    Its first jump is then the right size at every level, where an error in eps counts NSR times in x_0, 15 at Stable Diffusion's noisy end.
    """
    if isinstance(starting_from(teacher, start), LambdaDenoiser):
        return like_teacher(problem, teacher, start, guided=guided)
    return problem.student(teacher.schedule, "v", guided=guided)


def target_of(student: Denoiser, knobs: ConsistencyKnobs) -> tuple[Denoiser, dict[str, EMA]]:
    """theta-: the student itself (stop-gradient), or an average of its weights, which is then to be followed."""
    if knobs.target_ema == 0:
        return student, {}
    average = EMA(student, knobs.target_ema, warm=False)
    return average.module, {"target": average}


# ---- consistency distillation


def grid_times(ts: Tensor, batch: int) -> Times:
    """A random pair of neighbours of a decreasing grid ts (N+1,): n ~ U{0 ... N-1}."""
    rising = ts.flip(0)

    def times(step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        n = draws.integers(batch, len(rising) - 1)
        at = rising.to(n.device, torch.get_default_dtype())
        return at[n + 1], at[n]

    return times


def taught(problem: Problem, teacher: Denoiser, solver: Solver, times: Times, batch: int) -> Pairing:
    """x_t is noised data, and its neighbour where one step of a solver with the teacher leads."""

    def pairing(step: int, draws: Draws) -> Neighbours:
        x0, cond = draws.rows(problem.data, batch)
        cond = cond if problem.conditional else None
        t, r = times(step, draws)
        x = teacher.schedule.mix(x0, draws.normal(batch, *problem.shape), t)
        x_r = step_of(solver, teacher, x, t, r, cond)
        return Neighbours(x, t, x_r, r, torch.zeros_like(r), cond)

    return pairing


@torch.no_grad()
def step_of(solver: Solver, teacher: Denoiser, x: Tensor, t: Tensor, r: Tensor, cond: Tensor | None) -> Tensor:
    """One step of a one-step solver from t to r, (B, ...), with a condition."""
    return solver.step(Asked(teacher, cond), x, t, r)[0]


class Asked(Denoiser):
    """A denoiser with its condition: what a solver's step calls."""

    def __init__(self, denoiser: Denoiser, cond: Tensor | None):
        super().__init__(denoiser.schedule, denoiser.kind)
        self.denoiser, self.cond = denoiser, cond

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        return self.denoiser(x, t, self.cond)


def one_step_solver(name: str) -> Solver:
    """A deterministic one-step solver by its name; `ValueError` for another."""
    solver = solver_by_name(name)
    if not isinstance(solver, Solver) or solver.memory or solver.stochastic:
        raise ValueError(
            f"a teacher's step is that of a deterministic one-step solver such as heun, ddim or dpm2, not {name!r}"
        )
    return solver


@dataclass(frozen=True)
class DistillationKnobs(ConsistencyKnobs):
    """`intervals`, N, of the `grid` (a name of `GRIDS`) between data and noise; `solver` of the teacher's step; `guidance_scale` of the teacher,
    which the student then has built in (1 is off).
    """

    intervals: int = 40
    grid: str = "karras"
    solver: str = "heun"
    guidance_scale: float = 1.0
    target_ema: float = 0.95


def consistency_distillation(
    problem: Problem, knobs: DistillationKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Consistency distillation, CD (arXiv 2303.01469, alg. 2): d(f_theta(x_t, t), f_theta-(Phi(x_t, t -> r), r)), weight 1.

    Phi is one solver step of the teacher, Heun's in the paper; t and r are neighbours of Karras's grid. With an exact teacher the fixed point
    is the solution of the solver's N steps.
    """
    solver = one_step_solver(knobs.solver)
    student = student_of(problem, teacher, start)
    target, targets = target_of(student, knobs)
    guide = Guided(teacher, knobs.guidance_scale)
    times = grid_times(time_grid(teacher.schedule, knobs.intervals, knobs.grid), knobs.batch)
    pairing = taught(problem, guide, solver, times, knobs.batch)
    loss = consistency(student, target, pairing, at_the_edge(distance(knobs.distance, knobs.c)))
    calls = solver.nfe_per_step * guide.calls * knobs.batch
    turn = Turn(loss, list(student.parameters()), knobs.lr)
    return Training(student, EMA(student, knobs.ema), [turn], targets, teacher_calls=calls)


# ---- consistency training


def sampled(problem: Problem, schedule: Schedule, times: Times, batch: int) -> Pairing:
    """Both neighbours are the same x_0 with the same noise: x_r = alpha_r x_0 + sigma_r eps, one sample in the place of the teacher's mean."""

    def pairing(step: int, draws: Draws) -> Neighbours:
        x0, cond = draws.rows(problem.data, batch)
        cond = cond if problem.conditional else None
        t, r = times(step, draws)
        eps = draws.normal(batch, *problem.shape)  # the SAME eps at t and r
        x, x_r = schedule.mix(x0, eps, t), schedule.mix(x0, eps, r)
        return Neighbours(x, t, x_r, r, torch.zeros_like(r), cond)

    return pairing


@dataclass(frozen=True)
class Curriculum:
    """How a grid gets finer: intervals(share of the training, s0, s1), and the decay of the target at N intervals, given that at s0."""

    intervals: Callable[[float, int, int], int]
    target_ema: Callable[[int, int, float], float]


def _slowly(k: float, s0: int, s1: int) -> int:
    """N(k) - 1, N = ceil(sqrt(k ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1 (arXiv 2303.01469, app. C): the intervals, not the points."""
    return max(math.ceil(math.sqrt(k * ((s1 + 1) ** 2 - s0**2) + s0**2) - 1), 1)


def _doubling(k: float, s0: int, s1: int) -> int:
    """min(s0 2^floor(k/K'), s1), K' = 1/(log2(s1/s0) + 1) of the training (arXiv 2310.14189, sec. 3.4)."""
    stages = math.floor(math.log2(s1 / s0)) + 1
    return min(s0 * 2 ** math.floor(min(k, 1 - 1e-9) * stages), s1)


CURRICULA = {
    "cm": Curriculum(_slowly, lambda N, s0, mu0: mu0 ** (s0 / N)),
    "ict": Curriculum(_doubling, lambda N, s0, mu0: 0.0),
}
"""Curricula by name: that of consistency models, whose target is an average with mu = exp(s0 log mu0/N), and iCT's, whose target is the student."""


@dataclass(frozen=True)
class TrainingKnobs(ConsistencyKnobs):
    """`curriculum`, "cm" or "ict", from `first` (s0) to `last` (s1) intervals of Karras's grid; `target_ema` is mu0 of "cm" ("ict" has none);
    `mean` and `std` of log NSR, by which "ict" draws its intervals.
    """

    curriculum: str = "ict"
    first: int = 10
    last: int = 160
    mean: float = -1.1
    std: float = 2.0
    distance: str = "huber"
    c: float = 0.01


def consistency_training(
    problem: Problem, knobs: TrainingKnobs, teacher: None = None, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Consistency training, CT (arXiv 2303.01469, alg. 3; iCT: arXiv 2310.14189): d(f_theta(x_t, t), f_theta-(x_r, r)), same x_0, same eps.

    "cm" draws intervals uniformly with weight 1; "ict" by the log-normal density of their NSR with weight 1/(NSR_t - NSR_r). The slide's integral
    of eps is this Euler step with x_0 as the denoiser. The target is unbiased to first order in the gap, and noisy.
    """
    if knobs.curriculum not in CURRICULA:
        raise unknown("curriculum", knobs.curriculum, CURRICULA)
    if not 1 <= check_count(knobs.first, "first") <= check_count(knobs.last, "last"):
        raise ValueError(f"first must not exceed last, got {knobs.first} and {knobs.last} intervals")
    plan, improved = CURRICULA[knobs.curriculum], knobs.curriculum == "ict"
    student = problem.student(problem.schedule, "v" if start is None else start.kind, start=start)
    average = EMA(student, knobs.target_ema, warm=False)
    schedule, batch = student.schedule, knobs.batch
    grids = {}

    def times(step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        N = plan.intervals(step / knobs.updates, knobs.first, knobs.last)
        average.decay = plan.target_ema(N, knobs.first, knobs.target_ema)
        if N not in grids:
            ts = time_grid(schedule, N, "karras")
            shares = _lognormal_shares(schedule, ts, knobs.mean, knobs.std) if improved else torch.ones(N)
            grids[N] = ts.flip(0), (shares.cumsum(0) / shares.sum())
        rising, upto = grids[N]
        n = torch.searchsorted(upto, draws.uniform(batch).cpu().to(upto.dtype)).clamp(max=N - 1)
        at = rising.to(draws.device, torch.get_default_dtype())
        return at[n + 1], at[n]

    weight = inverse_gap(schedule) if improved else None
    compare = at_the_edge(distance(knobs.distance, knobs.c), weight)
    loss = consistency(student, average.module, sampled(problem, schedule, times, batch), compare)
    turn = Turn(loss, list(student.parameters()), knobs.lr)
    return Training(student, EMA(student, knobs.ema), [turn], {"target": average})


def _lognormal_shares(schedule: Schedule, ts: Tensor, mean: float, std: float) -> Tensor:
    """The mass of a normal distribution of log NSR in each interval, from data to noise (arXiv 2310.14189, eq. 10)."""
    log_nsr = -schedule.lam(ts.flip(0))
    return torch.erf((log_nsr - mean) / (math.sqrt(2) * check_positive(std, "std"))).diff().clamp(min=1e-12)


# ---- easy and stable consistency tuning


@dataclass(frozen=True)
class TuningKnobs(ConsistencyKnobs):
    """`mean`, `std` of log NSR at t; `stages`, K: at stage k the neighbour is at NSR_r = NSR_t max(0, 1 - q^-(k+1) (1 + k_ sigmoid(-b NSR_t)));
    `q`, `k`, `b` of that map.
    """

    distance: str = "huber"
    mean: float = -1.1
    std: float = 2.0
    stages: int = 8
    q: float = 2.0
    k: float = 8.0
    b: float = 1.0


def nearer(nsr: Tensor, stage: int, q: float, k: float, b: float) -> Tensor:
    """NSR_r of NSR_t at a stage, from 0 (the clean sample) towards NSR_t as the stages pass (arXiv 2406.14548, sec. 3.3, as in its code)."""
    return nsr * (1 - q ** -(stage + 1) * (1 + k * torch.sigmoid(-b * nsr))).clamp(min=0)


def tuning_times(schedule: Schedule, knobs: TuningKnobs) -> Times:
    """t by a normal distribution of log NSR, kept within the schedule's range, and r by `nearer`, stage by stage."""
    check_count(knobs.stages, "stages")
    check_number(knobs.mean, "mean")
    check_positive(knobs.std, "std")
    if knobs.q <= 1:
        raise ValueError(f"q must exceed 1, so that the neighbours draw nearer, got {knobs.q:g}")
    noisiest = min(float(schedule.nsr(torch.ones((), dtype=torch.float64))), 80.0)

    def times(step: int, draws: Draws) -> tuple[Tensor, Tensor]:
        stage = step * knobs.stages // knobs.updates
        nsr = torch.exp(knobs.mean + knobs.std * draws.normal(knobs.batch)).clamp(
            2e-3, noisiest
        )  # ln t ~ N(mean, std^2)
        r = nearer(nsr, stage, knobs.q, knobs.k, knobs.b)
        return schedule.t_of_lam(-torch.log(nsr)), schedule.t_of_lam(-torch.log(r))

    return times


def tuned(
    problem: Problem,
    knobs: TuningKnobs,
    teacher: Denoiser,
    start: Denoiser | None,
    pair: Callable[[Schedule, Times], Pairing],
) -> Training:
    """What ECT and SCT share: a diffusion model to start from, ECT's times, weight 1/(NSR_t - NSR_r), and the student as the target."""
    student = student_of(problem, teacher, start)
    target, targets = target_of(student, knobs)
    schedule = student.schedule
    compare = at_the_edge(distance(knobs.distance, knobs.c), inverse_gap(schedule))
    loss = consistency(student, target, pair(schedule, tuning_times(schedule, knobs)), compare)
    return Training(student, EMA(student, knobs.ema), [Turn(loss, list(student.parameters()), knobs.lr)], targets)


def easy_consistency_tuning(
    problem: Problem, knobs: TuningKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Easy consistency tuning, ECT (arXiv 2406.14548, alg. 1): consistency training from a diffusion model's weights, r from 0 towards t.

    At r = 0 it is diffusion training. The teacher gives its weights only.
    """
    return tuned(problem, knobs, teacher, start, lambda on, ts: sampled(problem, on, ts, knobs.batch))


def referenced(problem: Problem, schedule: Schedule, times: Times, batch: int) -> Pairing:
    """The neighbour of x_t by the mean of x_0 over the reference batch, which holds x_t's own source: x_r = alpha_r x~_0 + sigma_r eps~.

    w_i = softmax_i(-|x_t - alpha x_0^(i)|^2/(2 sigma^2)) over the batch, of the same label where samples have classes; x~_0 = sum_i w_i x_0^(i). The slide's
    1/n in front of weights that already sum to one is a slip. The batch is drawn first and noised afterwards: with the source in it,
    E[x~_0 | x_t] = E[x_0 | x_t] for every n, and the variance is smaller than one sample's.
    """

    def pairing(step: int, draws: Draws) -> Neighbours:
        x0, cond = draws.rows(problem.data, batch)
        cond = cond if problem.conditional else None
        t, r = times(step, draws)
        x = schedule.mix(x0, draws.normal(batch, *problem.shape), t)
        x_r = jump(Empirical(x0, cond).denoiser(schedule)(x, t, cond), r)
        return Neighbours(x, t, x_r, r, torch.zeros_like(r), cond)

    return pairing


def stable_consistency_tuning(
    problem: Problem, knobs: TuningKnobs, teacher: Denoiser, pairs: None = None, start: Denoiser | None = None
) -> Training:
    """Stable consistency tuning, SCT (slide 17; arXiv 2410.18958): ECT whose neighbour comes from the reference batch, not from one sample."""
    return tuned(problem, knobs, teacher, start, lambda on, ts: referenced(problem, on, ts, knobs.batch))
