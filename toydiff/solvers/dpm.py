"""DPM-Solver (arXiv 2206.00927) and DPM-Solver++ (arXiv 2211.01095): exponential integrators in lambda.

The exact solution of the PF-ODE over a step t -> s, h = lambda_s - lambda_t, in its two forms:

    noise:  x_s = (alpha_s/alpha_t) x_t - alpha_s int e^-lambda eps dlambda     (arXiv 2206.00927, eq. 3.4)
    data:   x_s = (sigma_s/sigma_t) x_t + sigma_s int e^lambda x_0 dlambda      (arXiv 2211.01095, eq. 8)

Replacing (alpha, sigma, lambda, eps) of the first by (sigma, alpha, -lambda, x_0) gives the second. So each formula
stands here once, in a `Form`. It is written in (a, b, H, m): (alpha, sigma, h, eps) in the noise form, (sigma, alpha,
-h, x_0) in the data form. Over the step, r from 0 to 1, the model is approximated by m + r D1 + r^2 D2/2. That is
integrated exactly:

    x_s = (a_s/a_t) x_t - b_s [phi1 m + phi2 D1 + phi3 D2],   phi1 = e^H - 1, phi2 = phi1/H - 1, phi3 = phi2/H - 1/2.

The most used of them is DPM-Solver++(2M), `multistep_second` of `DATA`. It takes D1 = (x0_t - x0_prev) h/h_prev from
the step before, of length h_prev in lambda, and phi1/2 for phi2, from which it differs by O(h^2). Written out:

    x_s = (sigma_s/sigma_t) x_t - alpha_s (e^-h - 1) (x0_t + (x0_t - x0_prev) h/(2 h_prev))
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ..denoisers import Denoiser
from ..prediction import Prediction, jump
from ..schedules import Coefficient, Schedule, combine, expand, finite
from .base import InnerStep, between, everywhere, expm1, given, root
from .entry import BLUE, PURPLE, SKY, Entry


@dataclass(frozen=True)
class Form:
    """The noise or the data form of the exact solution; `kind` is what its model value m is."""

    kind: str
    sign: int

    def value(self, p: Prediction) -> Tensor:
        """m: the model's eps or x_0."""
        return p.eps if self.kind == "eps" else p.x0

    def levels(self, schedule: Schedule, t: Tensor) -> tuple[Coefficient, Coefficient]:
        """(a, b) at t."""
        alpha, sigma, _ = schedule.levels(t)
        return (alpha, sigma) if self.kind == "eps" else (sigma, alpha)

    def phis(self, h: Coefficient) -> tuple[Coefficient, Coefficient, Coefficient]:
        """(phi1, phi2, phi3) of H = h or -h."""
        H = self.sign * h
        phi1 = expm1(H)
        phi2 = phi1 / H - 1
        return phi1, phi2, phi2 / H - 0.5

    def integrate(self, schedule: Schedule, p: Prediction, s: Tensor, *terms: tuple[Coefficient, Tensor]) -> Tensor:
        """(a_s/a_t) x_t - b_s sum coefficient * value over the terms (coefficient, value)."""
        a_t, _ = self.levels(schedule, p.t)
        a_s, b_s = self.levels(schedule, s)
        return combine((a_s / a_t, p.x), *((-b_s * coefficient, value) for coefficient, value in terms))


NOISE = Form("eps", 1)
DATA = Form("x0", -1)


def second_order(form: Form, D: Denoiser, p: Prediction, s: Tensor) -> Tensor:
    """Singlestep, one inner node at r = 1/2: DPM-Solver-2 (arXiv 2206.00927, alg. 1), DPM-Solver++(2S) (2211.01095,
    alg. 1)."""
    schedule, r = D.schedule, 0.5
    h = schedule.levels(s).lam - schedule.levels(p.t).lam
    middle = schedule.part_way(p.t, s, r)
    m = form.value(p)
    u = form.integrate(schedule, p, middle, (form.phis(r * h)[0], m))
    m_r = form.value(D(u, middle))
    phi1 = form.phis(h)[0]
    return form.integrate(schedule, p, s, (phi1, m), (phi1 / (2 * r), m_r - m))


def third_order(form: Form, D: Denoiser, p: Prediction, s: Tensor) -> Tensor:
    """Singlestep, inner nodes at r1 = 1/3, r2 = 2/3: DPM-Solver-3 (arXiv 2206.00927, alg. 2), and its data form."""
    schedule, r1, r2 = D.schedule, 1 / 3, 2 / 3
    h = schedule.levels(s).lam - schedule.levels(p.t).lam
    first, second = schedule.part_way(p.t, s, r1), schedule.part_way(p.t, s, r2)
    m = form.value(p)
    u1 = form.integrate(schedule, p, first, (form.phis(r1 * h)[0], m))
    m_1 = form.value(D(u1, first))
    phi1, phi2, _ = form.phis(r2 * h)
    u2 = form.integrate(schedule, p, second, (phi1, m), (phi2 * r2 / r1, m_1 - m))
    m_2 = form.value(D(u2, second))
    phi1, phi2, _ = form.phis(h)
    return form.integrate(schedule, p, s, (phi1, m), (phi2 / r2, m_2 - m))


@dataclass(frozen=True)
class Singlestep2(InnerStep):
    """DPM-Solver-2 (noise form) or DPM-Solver++(2S) (data form); see `second_order`."""

    form: Form
    order = 2
    nfe_per_step = 2

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        return second_order(self.form, D, p, s)


@dataclass(frozen=True)
class Singlestep3(InnerStep):
    """DPM-Solver-3 (noise form) or its data form; see `third_order`."""

    form: Form
    order = 3
    nfe_per_step = 3

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        return third_order(self.form, D, p, s)


def usable(schedule: Schedule, past: Sequence[Prediction]) -> list[Prediction]:
    """The past predictions that an interpolation in lambda can use, newest first: those at finite lambda."""
    return [p for p in reversed(past) if everywhere(finite(schedule.levels(p.t).lam))]


def _differences(
    form: Form, schedule: Schedule, p: Prediction, s: Tensor, olds: Sequence[Prediction]
) -> tuple[Coefficient, Tensor, list[Coefficient], list[Tensor]]:
    """h, m_0, the ratios r_i = h_i/h of earlier steps to this one, and D1_i = (m_i - m_i+1)/r_i."""
    lam_t = schedule.levels(p.t).lam
    h = schedule.levels(s).lam - lam_t
    m_0 = newer = form.value(p)
    lam_newer, ratios, slopes = lam_t, [], []
    for old in olds:
        lam_old, older = schedule.levels(old.t).lam, form.value(old)
        ratios.append((lam_newer - lam_old) / h)
        slopes.append((newer - older) / expand(ratios[-1], p.x))
        lam_newer, newer = lam_old, older
    return h, m_0, ratios, slopes


def multistep_second(form: Form, schedule: Schedule, p: Prediction, s: Tensor, olds: Sequence[Prediction]) -> Tensor:
    """x_s = (a_s/a_t) x - b_s phi1 (m_0 + D1_0/2) (arXiv 2211.01095, alg. 2)."""
    h, m_0, _, (D1_0,) = _differences(form, schedule, p, s, olds[:1])
    phi1 = form.phis(h)[0]
    return form.integrate(schedule, p, s, (phi1, m_0), (0.5 * phi1, D1_0))


def multistep_third(
    form: Form, schedule: Schedule, p: Prediction, s: Tensor, olds: Sequence[Prediction], second_difference: float = 2.0
) -> Tensor:
    """x_s = (a_s/a_t) x - b_s (phi1 m_0 + phi2 D1 + phi3 D2), from three model values.

    D1 = D1_0 + r_0/(r_0 + r_1) (D1_0 - D1_1); D2 = 2 (D1_0 - D1_1)/(r_0 + r_1), the second derivative of the parabola
    through the three values. `second_difference` is its factor 2, which the published update lacks.
    """
    h, m_0, (r_0, r_1), (D1_0, D1_1) = _differences(form, schedule, p, s, olds[:2])
    phi1, phi2, phi3 = form.phis(h)
    bend = D1_0 - D1_1
    D1 = D1_0 + expand(r_0 / (r_0 + r_1), p.x) * bend
    D2 = expand(second_difference / (r_0 + r_1), p.x) * bend
    return form.integrate(schedule, p, s, (phi1, m_0), (phi2, D1), (phi3, D2))


@dataclass(frozen=True)
class Multistep2(InnerStep):
    """DPM-Solver multistep 2 (noise form) or DPM-Solver++(2M) (data form); see `multistep_second`.

    It starts with one jump: a single first-order step costs O(h^2) once, so the order stays 2.
    """

    form: Form
    order = 2
    memory = 1

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        olds = usable(D.schedule, past)
        if not olds:
            return jump(p, s)
        return multistep_second(self.form, D.schedule, p, s, olds)


@dataclass(frozen=True)
class Multistep3(InnerStep):
    """DPM-Solver multistep 3 (noise form) or DPM-Solver++(3M) (data form), corrected; see `multistep_third`.

    It starts with one singlestep second-order step (one call more) and one 2M step: each costs O(h^3) once, so the
    order stays 3. Starting with a jump, as others do, costs O(h^2) once and holds the whole run at order 2.
    """

    form: Form
    order = 3
    memory = 2

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        olds = usable(D.schedule, past)
        if not olds:
            return second_order(self.form, D, p, s)
        if len(olds) == 1:
            return multistep_second(self.form, D.schedule, p, s, olds)
        return multistep_third(self.form, D.schedule, p, s, olds)


@dataclass(frozen=True)
class Multistep3Published(Multistep2):
    """DPM-Solver++(3M) as its code was published: D2 lacks a factor 2, and the start goes 1, 2, 3. Its true order is 2.

    Either slip alone holds the order at 2. Kept to reproduce results of other libraries.
    """

    memory = 2

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        olds = usable(D.schedule, past)
        if len(olds) < 2:
            return super().advance(D, p, s, past, noise)
        return multistep_third(self.form, D.schedule, p, s, olds, second_difference=1.0)


@dataclass(frozen=True)
class SDEMultistep2(InnerStep):
    """SDE-DPM-Solver++(2M) (arXiv 2211.01095, eq. 18): the data form of the reverse SDE, two values.

    x_s = (sigma_s/sigma_t) e^-h x_t + alpha_s (1 - e^-2h)(x_0 + D1_0/2) + sigma_s sqrt(1 - e^-2h) xi. The step to sigma
    = 0 is a jump; leaving alpha = 0 it is x_s = alpha_s x_0 + sigma_s xi, the limit h -> infinity.
    """

    order = 1
    memory = 1
    stochastic = True

    def step(
        self, D: Denoiser, x: Tensor, t: Tensor, s: Tensor, past: Sequence[Prediction] = (), noise: Tensor | None = None
    ) -> tuple[Tensor, Prediction]:
        if everywhere(between(D.schedule, t, s)):
            return super().step(D, x, t, s, past, noise)
        p = D(x, t)
        return self._first(D.schedule, p, s, p.x0, given(noise)), p

    def advance(
        self, D: Denoiser, p: Prediction, s: Tensor, past: Sequence[Prediction], noise: Tensor | None
    ) -> Tensor:
        olds = usable(D.schedule, past)
        if not olds:
            return self._first(D.schedule, p, s, p.x0, given(noise))
        _, m_0, _, (D1_0,) = _differences(DATA, D.schedule, p, s, olds[:1])
        return self._first(D.schedule, p, s, m_0 + 0.5 * D1_0, given(noise))

    def _first(self, schedule: Schedule, p: Prediction, s: Tensor, m: Tensor, noise: Tensor) -> Tensor:
        (alpha_t, sigma_t, lam_t), (alpha_s, sigma_s, lam_s) = schedule.levels(p.t), schedule.levels(s)
        fresh = -expm1(-2 * (lam_s - lam_t))
        kept = (sigma_s / sigma_t) ** 2 * (alpha_t / alpha_s)  # (sigma_s/sigma_t) e^-h, also where h is infinite
        return combine((kept, p.x), (alpha_s * fresh, m), (sigma_s * root(fresh), noise))


DPM_ENTRIES = [
    Entry(
        name="dpm2",
        solver=Singlestep2(NOISE),
        title="DPM-Solver-2, singlestep",
        paper="arXiv 2206.00927, alg. 1",
        color=SKY,
        marker="o",
        dash="solid",
        elsewhere={
            "diffusers": "KDPM2DiscreteScheduler; DPMSolverSinglestepScheduler (dpmsolver, order 2)",
            "k-diffusion": "sample_dpm_2; inner step of sample_dpm_fast",
            "UI": "DPM2",
        },
    ),
    Entry(
        name="dpm3",
        solver=Singlestep3(NOISE),
        title="DPM-Solver-3, singlestep",
        paper="arXiv 2206.00927, alg. 2",
        color=SKY,
        marker="^",
        dash="dash",
        elsewhere={
            "diffusers": "DPMSolverSinglestepScheduler (dpmsolver, order 3; other inner node)",
            "k-diffusion": "inner step of sample_dpm_fast, sample_dpm_adaptive",
            "UI": "DPM fast, DPM adaptive (inner step)",
        },
    ),
    Entry(
        name="dpm2m",
        solver=Multistep2(NOISE),
        title="DPM-Solver multistep 2",
        paper="arXiv 2206.00927",
        color=SKY,
        marker="s",
        dash="dot",
        elsewhere={"diffusers": "DPMSolverMultistepScheduler (dpmsolver, order 2, final_sigmas_type=sigma_min)"},
    ),
    Entry(
        name="dpm3m",
        solver=Multistep3(NOISE),
        title="DPM-Solver multistep 3, corrected",
        paper="arXiv 2206.00927",
        color=SKY,
        marker="D",
        dash="dashdot",
    ),
    Entry(
        name="dpm++2s",
        solver=Singlestep2(DATA),
        title="DPM-Solver++ 2S",
        paper="arXiv 2211.01095, alg. 1",
        color=BLUE,
        marker="s",
        dash="dot",
        elsewhere={
            "diffusers": "DPMSolverSinglestepScheduler (order 2)",
            "k-diffusion": "sample_dpmpp_2s_ancestral (eta = 0)",
            "UI": "DPM++ 2S a (eta = 0)",
        },
    ),
    Entry(
        name="dpm++3s",
        solver=Singlestep3(DATA),
        title="DPM-Solver++ 3S",
        paper="arXiv 2211.01095",
        color=BLUE,
        marker="D",
        dash="dot",
        elsewhere={"diffusers": "DPMSolverSinglestepScheduler (order 3; other inner node)"},
    ),
    Entry(
        name="dpm++2m",
        solver=Multistep2(DATA),
        title="DPM-Solver++ 2M",
        paper="arXiv 2211.01095, alg. 2",
        color=BLUE,
        marker="o",
        dash="solid",
        elsewhere={
            "diffusers": "DPMSolverMultistepScheduler",
            "k-diffusion": "sample_dpmpp_2m",
            "UI": "DPM++ 2M (with grid karras: DPM++ 2M Karras)",
        },
    ),
    Entry(
        name="dpm++3m",
        solver=Multistep3(DATA),
        title="DPM-Solver++ 3M, corrected",
        paper="arXiv 2211.01095",
        color=BLUE,
        marker="^",
        dash="dash",
    ),
    Entry(
        name="dpm++3m-published",
        solver=Multistep3Published(DATA),
        title="DPM-Solver++ 3M as published",
        paper="arXiv 2211.01095",
        color=BLUE,
        marker="v",
        dash="dashdot",
        elsewhere={
            "diffusers": "DPMSolverMultistepScheduler (order 3)",
            "k-diffusion": "sample_dpmpp_3m_sde (eta = 0; its second step differs)",
            "UI": "DPM++ 3M SDE (eta = 0)",
        },
    ),
]

SDE_DPM_ENTRIES = [
    Entry(
        name="sde-dpm++2m",
        solver=SDEMultistep2(),
        title="SDE-DPM-Solver++ 2M",
        paper="arXiv 2211.01095, eq. 18",
        color=PURPLE,
        marker="D",
        dash="dashdot",
        elsewhere={
            "diffusers": "DPMSolverMultistepScheduler (sde-dpmsolver++)",
            "k-diffusion": "sample_dpmpp_2m_sde",
            "UI": "DPM++ 2M SDE",
        },
    ),
]
