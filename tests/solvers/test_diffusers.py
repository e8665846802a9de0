"""diffusers as the other party: the same eps function, betas and noise levels give the same samples, step for step.

The noise levels come from a scheduler itself, and the model is exact at each of them, so what is compared is the
algorithm alone. Where the two differ (start-up orders, the last steps, rounded times) a test says how, and that nothing
else does. diffusers keeps its coefficients in float32; samples are of size 2.
"""

import logging
from dataclasses import dataclass

import pytest
import torch

from toydiff import Tabulated, jump, mixtures, solve
from toydiff.solvers import (
    DATA,
    DDIM,
    DDPM,
    DEIS,
    NOISE,
    Heun,
    Multistep2,
    Multistep3,
    Multistep3Published,
    SDEMultistep2,
    Singlestep2,
    Singlestep3,
    UniPC,
)
from toydiff.solvers.base import InnerStep
from toydiff.solvers.dpm import second_order

diffusers = pytest.importorskip("diffusers")
diffusers.logging.set_verbosity(logging.CRITICAL)
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

TABLE = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MIXTURE = mixtures.random_mixture(3)
CLOSE, DIFFERENT = 1e-5, 3e-5


def scheduler(name, steps, **settings):
    made = getattr(diffusers, name + "Scheduler")(**TABLE, **settings)
    made.set_timesteps(steps)
    return made


@dataclass
class Walk:
    """What a scheduler did: its times (N+1,), the states at them (N+1, B, d) in x, and its network calls."""

    S: Tabulated
    ts: torch.Tensor
    xs: torch.Tensor
    calls: int

    @property
    def D(self):
        return MIXTURE.denoiser(self.S)

    def of_ours(self, solver, **options):
        """Our run over the same times from the same start."""
        return solve(self.D, self.xs[0], ts=self.ts, solver=solver, **options)


def walk(other, end=None, seed=0, **step_options):
    """A scheduler's loop, the model exact at the scheduler's own noise levels; `end`: the time where it stops, unless
    at its last level.
    """
    S = Tabulated(other.alphas_cumprod.double())
    if hasattr(other, "sigmas"):
        times = S.t_of_lam(-torch.log(other.sigmas.double()))
    else:
        times = torch.cat([(other.timesteps.double() + 1) / 1000, torch.tensor([end], dtype=torch.float64)])
    x = MIXTURE.marginal(S, times[0]).sample(16, seed, dtype=torch.float64)
    D = MIXTURE.denoiser(S)
    in_z = type(other).__name__.startswith(("Euler", "Heun"))
    y, xs = (x / S.alpha(times[0]) if in_z else x), [x]
    for i, timestep in enumerate(other.timesteps):
        eps = D(other.scale_model_input(y, timestep), times[i]).eps
        y = other.step(eps, timestep, y, return_dict=False, **step_options)[0]
        xs.append(S.alpha(times[i + 1]) * y if in_z else y)
    return Walk(S, times, torch.stack(xs), len(other.timesteps))


def gap(a, b):
    """The largest difference."""
    return float((a - b).abs().max())


def same_path(theirs, solver, until=None, **options):
    """Our states are theirs at every time, or, with `until`, at every time before index `until` and not at it."""
    ours = theirs.of_ours(solver, **options)
    gaps = [gap(a, b) for a, b in zip(ours.xs, theirs.xs, strict=True)]
    last = len(gaps) if until is None else until % len(gaps)
    assert max(gaps[:last]) < CLOSE, gaps
    if until is not None:
        assert gaps[last] > DIFFERENT, gaps
    return ours


def same_steps(theirs, solver, steps):
    """From their own states and the model's answers at them, our solver makes their next step."""
    predictions = [theirs.D(x, t) for x, t in zip(theirs.xs[:-1], theirs.ts[:-1], strict=True)]
    for i in steps:
        past = predictions[max(0, i - solver.memory) : i]
        x, _ = solver.step(theirs.D, theirs.xs[i], theirs.ts[i], theirs.ts[i + 1], past)
        assert gap(x, theirs.xs[i + 1]) < CLOSE, i


def test_the_table_is_theirs():
    # their product of 1000 factors is rounded to float32 at each
    alphas = scheduler("DDIM", 10).alphas_cumprod.double().sqrt()
    ours = Tabulated.scaled_linear().alpha(torch.arange(1, 1001, dtype=torch.float64) / 1000)
    torch.testing.assert_close(ours, alphas, rtol=1e-5, atol=0)


@pytest.mark.parametrize("spacing", ["trailing", "leading"])
@pytest.mark.parametrize(("to_one", "end"), [(True, 0.0), (False, 0.001)])
def test_ddim(spacing, to_one, end):
    # leading ends on timestep 0, which with set_alpha_to_one=False is where it stops: a step of no length, left out
    other = scheduler("DDIM", 20, timestep_spacing=spacing, clip_sample=False, set_alpha_to_one=to_one)
    theirs = walk(other, end)
    if theirs.ts[-1] == theirs.ts[-2]:
        assert gap(theirs.xs[-1], theirs.xs[-2]) < CLOSE
        theirs = Walk(theirs.S, theirs.ts[:-1], theirs.xs[:-1], theirs.calls - 1)
    assert same_path(theirs, DDIM()).nfe == theirs.calls


def test_ddim_with_noise():
    other = scheduler("DDIM", 20, timestep_spacing="trailing", clip_sample=False)
    theirs = walk(other, 0.0, eta=0.7, generator=torch.Generator().manual_seed(5))
    same_path(theirs, DDIM(eta=0.7), generator=5)


def test_ddim_steps_by_a_fixed_stride():
    """DDIMScheduler goes to timestep - 1000//N, which is not its next timestep unless N divides 1000."""
    other = scheduler("DDIM", 7, timestep_spacing="trailing", clip_sample=False)
    theirs = walk(other, 0.0)
    assert int(other.timesteps[0] - other.timesteps[1]) == 143 != 1000 // 7
    p = theirs.D(theirs.xs[0], theirs.ts[0])
    assert gap(jump(p, (other.timesteps[0] - 142 + 1).double() / 1000), theirs.xs[1]) < CLOSE
    assert gap(jump(p, theirs.ts[1]), theirs.xs[1]) > DIFFERENT


@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
def test_euler_is_ddim(spacing):
    same_path(walk(scheduler("EulerDiscrete", 20, timestep_spacing=spacing)), DDIM())


@pytest.mark.parametrize("steps", [5, 20])
def test_heun(steps):
    other = scheduler("HeunDiscrete", steps, timestep_spacing="trailing")
    pairs = walk(other)
    # it makes two calls a step, and its lists hold each inner level twice: the states between are trials
    theirs = Walk(
        pairs.S,
        torch.cat([pairs.ts[:1], pairs.ts[1::2]]),
        torch.cat([pairs.xs[:1], pairs.xs[2::2], pairs.xs[-1:]]),
        pairs.calls,
    )
    assert same_path(theirs, Heun()).nfe == pairs.calls == 2 * steps - 1


def test_kdpm2_is_dpm_solver_2():
    """Its step is the midpoint rule on dz/dn = eps with the node at the geometric mean of the levels: DPM-Solver-2 with
    r = 1/2.
    """
    other = scheduler("KDPM2Discrete", 20, timestep_spacing="trailing")
    S = Tabulated(other.alphas_cumprod.double())
    D = MIXTURE.denoiser(S)
    ts = S.t_of_lam(-torch.log(torch.cat([other.sigmas[:1], other.sigmas[1:-1:2]]).double()))
    x = MIXTURE.marginal(S, ts[0]).sample(16, 0, dtype=torch.float64)
    z = x / S.alpha(ts[0])
    for i, timestep in enumerate(other.timesteps):
        level = (other.sigmas_interpol if i % 2 else other.sigmas)[i]
        eps = D(other.scale_model_input(z, timestep), S.t_of_lam(-torch.log(level.double()))).eps
        z = other.step(eps, timestep, z, return_dict=False)[0]
    ours = solve(D, x, ts=ts, solver=Singlestep2(NOISE))
    assert ours.nfe == len(other.timesteps)
    assert gap(ours.end, z) < CLOSE


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("spacing", ["trailing", "linspace", "leading"])
def test_dpmpp_2m(spacing, steps):
    theirs = walk(scheduler("DPMSolverMultistep", steps, timestep_spacing=spacing))
    assert same_path(theirs, "dpm++2m").nfe == theirs.calls


def test_dpm_2m():
    other = scheduler(
        "DPMSolverMultistep", 20, timestep_spacing="trailing", algorithm_type="dpmsolver", final_sigmas_type="sigma_min"
    )
    same_path(walk(other), Multistep2(NOISE))


def test_dpmpp_3m_is_the_published_one():
    theirs = walk(scheduler("DPMSolverMultistep", 20, timestep_spacing="trailing", solver_order=3))
    same_path(theirs, "dpm++3m-published")
    # the corrected one has another start (one call more), and another step from the same history
    same_path(theirs, "dpm++3m", until=1)
    with pytest.raises(AssertionError):
        same_steps(theirs, Multistep3(DATA), range(2, 19))


def test_dpm_3m_is_the_published_one():
    other = scheduler(
        "DPMSolverMultistep",
        20,
        timestep_spacing="trailing",
        solver_order=3,
        algorithm_type="dpmsolver",
        final_sigmas_type="sigma_min",
    )
    same_path(walk(other), Multistep3Published(NOISE))


def test_3m_ends_in_lower_order_below_15_steps():
    """With lower_order_final (its default) and N < 15, the last step but one has order 2 and the last order 1."""
    settings = {"timestep_spacing": "trailing", "solver_order": 3}
    same_path(walk(scheduler("DPMSolverMultistep", 14, lower_order_final=False, **settings)), "dpm++3m-published")
    theirs = walk(scheduler("DPMSolverMultistep", 14, **settings))
    same_path(theirs, "dpm++3m-published", until=-2)
    same_steps(theirs, Multistep2(DATA), [12, 13])


@pytest.mark.parametrize("solver_type", ["midpoint", "heun"])
def test_2m_has_two_second_order_terms(solver_type):
    """solver_type="heun" integrates the slope exactly (phi2 D1); ours and the default use phi1 D1/2, the paper's."""
    theirs = walk(scheduler("DPMSolverMultistep", 20, timestep_spacing="trailing", solver_type=solver_type))
    same_path(theirs, "dpm++2m", until=None if solver_type == "midpoint" else 2)


def test_sde_dpmpp_2m():
    other = scheduler("DPMSolverMultistep", 20, timestep_spacing="trailing", algorithm_type="sde-dpmsolver++")
    noise = torch.randn(20, 16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5)).unbind()
    draws = iter(noise)
    inner = other.step
    other.step = lambda *args, **options: inner(*args, variance_noise=next(draws), **options)
    theirs = walk(other)
    x, past = theirs.xs[0], []
    for i, xi in enumerate(noise):
        x, p = SDEMultistep2().step(theirs.D, x, theirs.ts[i], theirs.ts[i + 1], past[-1:], xi)
        past.append(p)
        assert gap(x, theirs.xs[i + 1]) < CLOSE, i


@pytest.mark.parametrize("variance", ["small", "large"])
def test_ddpm(variance):
    # leading: the last timestep is 0, the only one at which DDPMScheduler adds no noise
    other = scheduler("DDPM", 20, timestep_spacing="leading", clip_sample=False, variance_type=f"fixed_{variance}")
    theirs = walk(other, 0.0, generator=torch.Generator().manual_seed(5))
    same_path(theirs, DDPM(variance), generator=5)


def test_euler_ancestral_is_ddpm():
    other = scheduler("EulerAncestralDiscrete", 20, timestep_spacing="trailing")
    theirs = walk(other, generator=torch.Generator().manual_seed(5))
    same_path(theirs, DDPM("small"), generator=5)


def test_ddpm_large_adds_noise_at_the_end():
    """With fixed_large and a spacing that does not end on timestep 0, DDPMScheduler leaves noise in its samples; ours
    never does.
    """
    other = scheduler("DDPM", 20, timestep_spacing="trailing", clip_sample=False, variance_type="fixed_large")
    theirs = walk(other, 0.0, generator=torch.Generator().manual_seed(5))
    same_path(theirs, DDPM("large"), until=-1, generator=5)


@pytest.mark.parametrize("steps", [5, 20])
def test_unipc_2(steps):
    theirs = walk(scheduler("UniPCMultistep", steps, timestep_spacing="trailing", final_sigmas_type="zero"))
    assert same_path(theirs, UniPC(2)).nfe == theirs.calls


@pytest.mark.parametrize("order", [2, 3])
def test_unipc_to_the_last_level(order):
    other = scheduler(
        "UniPCMultistep",
        20,
        timestep_spacing="trailing",
        final_sigmas_type="sigma_min",
        solver_order=order,
        lower_order_final=False,
    )
    same_path(walk(other), UniPC(order))


def test_unipc_3_ends_in_lower_order():
    """lower_order_final (its default) takes the last steps at order 2 and 1, at any N: the last but one differs from
    ours.
    """
    theirs = walk(
        scheduler("UniPCMultistep", 20, timestep_spacing="trailing", final_sigmas_type="zero", solver_order=3)
    )
    same_path(theirs, UniPC(3), until=-2)


def precise(other):
    """Its levels in float64: DEIS of order 3 loses digits in float32, as differences of large terms, up to 3e-5 in a
    sample.
    """
    other.sigmas = other.sigmas.double()
    return other


def test_deis_2():
    same_path(walk(scheduler("DEISMultistep", 20, timestep_spacing="trailing")), DEIS(2))


def test_deis_3_starts_in_lower_order():
    """It starts with a jump and a step of order 2; ours with a singlestep step of order 2, and then both take the same
    steps.
    """
    theirs = walk(precise(scheduler("DEISMultistep", 20, timestep_spacing="trailing", solver_order=3)))
    same_path(theirs, DEIS(3), until=1)
    same_steps(theirs, DDIM(), [0])
    same_steps(theirs, DEIS(2), [1])
    same_steps(theirs, DEIS(3), range(2, 20))


@pytest.mark.parametrize("order", [2, 3])
def test_deis_ends_in_lower_order_below_15_steps(order):
    theirs = walk(precise(scheduler("DEISMultistep", 10, timestep_spacing="trailing", solver_order=order)))
    same_steps(theirs, DEIS(order), range(order - 1, 10 - order + 1))
    same_steps(theirs, DDIM(), [9])
    if order == 3:
        same_steps(theirs, DEIS(2), [8])


def test_plms():
    """Its second call is a trial at the end of the first step, which the next call repeats."""
    other = scheduler("PNDM", 20, timestep_spacing="trailing", skip_prk_steps=True, set_alpha_to_one=True)
    S = Tabulated(other.alphas_cumprod.double())
    ts = torch.cat([(other.timesteps[[0, *range(2, 21)]].double() + 1) / 1000, torch.zeros(1, dtype=torch.float64)])
    D, x = MIXTURE.denoiser(S), MIXTURE.marginal(S, ts[0]).sample(16, 0, dtype=torch.float64)
    y, xs = x, []
    for timestep in other.timesteps:
        y = other.step(D(y, (timestep.double() + 1) / 1000).eps, timestep, y, return_dict=False)[0]
        xs.append(y)
    ours = solve(D, x, ts=ts, solver="plms")
    assert ours.nfe == len(other.timesteps) == 21
    assert gap(ours.xs[1:], torch.stack(xs[1:])) < CLOSE


def every(walked, k):
    """Of a singlestep scheduler only every k-th state is one; those between are its inner nodes."""
    keep = [*range(0, walked.calls, k), walked.calls]
    return Walk(walked.S, walked.ts[keep], walked.xs[keep], walked.calls)


def singlestep(order, steps, **settings):
    # exponential: its levels are uniform in lambda, so that its inner nodes lie where the papers put them
    return walk(
        scheduler(
            "DPMSolverSinglestep",
            steps,
            solver_order=order,
            use_exponential_sigmas=True,
            lower_order_final=True,
            **settings,
        )
    )


def test_singlestep_2s():
    theirs = every(singlestep(2, 21), 2)
    assert same_path(theirs, Singlestep2(DATA)).nfe == theirs.calls


@dataclass(frozen=True)
class InnerMidpoint(InnerStep):
    """DPM-Solver++(3S) whose node at 2/3 is reached by the midpoint rule of the second order instead of the paper's
    phi2 term.
    """

    def advance(self, D, p, s, past, noise):
        schedule, form = D.schedule, DATA
        first, second = schedule.part_way(p.t, s, 1 / 3), schedule.part_way(p.t, s, 2 / 3)
        h = schedule.lam(s) - schedule.lam(p.t)
        # `second_order` puts its node half way to 2/3, which is 1/3
        node = D(second_order(form, D, p, second), second)
        assert torch.isclose(schedule.part_way(p.t, second, 0.5), first)
        phi1, phi2, _ = form.phis(h)
        return form.integrate(schedule, p, s, (phi1, p.x0), (phi2 / (2 / 3), node.x0 - p.x0))


def test_singlestep_3s_has_another_inner_node():
    theirs = every(singlestep(3, 22), 3)
    same_path(theirs, InnerMidpoint())
    same_path(theirs, Singlestep3(DATA), until=2)


def test_rounded_timesteps():
    """Its Karras, exponential and beta levels are exact, but the timesteps it hands to the model are whole: rounded or
    cut.
    """
    for settings, most in ({"use_karras_sigmas": True}, 0.5), ({"use_exponential_sigmas": True}, 1.0):
        other = scheduler("DPMSolverMultistep", 20, **settings)
        exact = 1000 * Tabulated(other.alphas_cumprod.double()).t_of_lam(-other.sigmas[:-1].double().log()) - 1
        off = (exact - other.timesteps).abs()
        assert most / 2 < float(off.max()) <= most + 0.01, float(off.max())
        same_path(walk(other), "dpm++2m")  # at the exact times, nothing else differs
