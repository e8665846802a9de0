"""Score distillation: particles that are moved by the difference of two scores."""

import plotly.graph_objects as go
import torch
from torch import Tensor

import toydiff
from toydiff.catalog import METHODS
from toydiff.distill.score_distillation import EARLIEST, LATEST, LEAST_SCALE, SLOPES, WEIGHTS
from toydiff.measure import floor, modes, sliced_wasserstein
from toydiff.mixtures import GaussianMixture
from toydiff.plots import lecture
from toydiff.solvers.registry import GREY

from screen.controls import Choice, Mixture, Number
from screen.lesson import Lesson

WAYS = ("vsd", "swiftbrush", "dmd", "sim", "sds: no second score")
STARTS = ("the middle", "one mode", "noise")
PARTICLES, LR, ARROWS = 256, 0.05, 80


def direction(
    method: str, x: Tensor, x_t: Tensor, t: Tensor, eps: Tensor, psi: toydiff.Denoiser, phi: toydiff.Denoiser
) -> Tensor:
    """What a particle x is moved against, (B, 2): psi is the teacher, phi knows the particles."""
    on = psi.schedule
    alpha, sigma = on.alpha(t)[:, None], on.sigma(t)[:, None]
    p, q = phi(x_t, t), psi(x_t, t)
    if method == "vsd":  # arXiv 2305.16213, eq. 9
        return WEIGHTS["kl"](alpha, sigma) * (q.eps - p.eps)
    if method == "swiftbrush":  # arXiv 2312.05239, alg. 1
        return WEIGHTS["sigma2"](alpha, sigma) * (q.eps - p.eps)
    if method == "dmd":  # arXiv 2311.18828, eq. 7 and 8
        scale = (x - q.x0).abs().mean(1, keepdim=True)
        return (p.x0 - q.x0) / scale.clamp(min=LEAST_SCALE * float(scale.mean()))
    if method == "sim":  # arXiv 2410.16794, alg. 1
        u = SLOPES["huber"](p.read("score") - q.read("score"), 1.0)
        return torch.autograd.grad(-(u * (p.x0 - x)).sum(), x)[0]
    return WEIGHTS["kl"](alpha, sigma) * (q.eps - eps)  # DreamFusion, arXiv 2209.14988, eq. 3


def scores(mixture: GaussianMixture, method: str, start: str, lag: int, updates: int) -> tuple[go.Figure, list[dict]]:
    """Particles in the place of a generator: both scores are exact, the second one that of the particles `lag` updates ago."""
    psi, color = mixture.denoiser(toydiff.VP()), METHODS[method].color if method in METHODS else GREY
    rng = torch.Generator().manual_seed(0)
    noise = torch.randn(PARTICLES, 2, generator=rng)
    places = {
        "the middle": psi(noise, torch.ones(())).x0 + 0.15 * noise,  # the teacher's one-step guess is a blob
        "one mode": mixture.means[0].float() + 0.15 * noise,
        "noise": noise,
    }
    x = places[start].clone().requires_grad_()
    optimizer = torch.optim.Adam([x], lr=LR, betas=(0.0, 0.99))
    true, past, frames, shares, rows = mixture.sample(PARTICLES, 1), [], {}, {}, []
    least = floor(sliced_wasserstein, mixture.sample, PARTICLES).mean
    shown = {round(updates * (k / 30) ** 1.5) for k in range(31)}
    for step in range(updates + 1):
        past = [*past[-lag:], x.detach().clone()] if lag else [x.detach().clone()]
        phi = toydiff.Empirical(past[0]).denoiser(psi.schedule)  # knows where the particles are, or were
        if step in shown:
            level = psi.schedule.t_of_lam(-torch.log(torch.tensor(0.25)))
            at = psi.schedule.alpha(level) * past[-1][:ARROWS]
            frames[step] = past[-1], past[-1][:ARROWS], psi(at, level).x0 - phi(at, level).x0
            found = modes(mixture, past[-1])
            shares[step] = (found.weights / found.expected).tolist()
            rows.append(
                {
                    "method": method, "updates": step, "distance": sliced_wasserstein(past[-1], true), "coverage": found.coverage,
                    "outside": found.outside, "spread": float(past[-1].std(0).norm() / true.std(0).norm()),
                    "floor": least,
                }
            )  # fmt: skip
        t = EARLIEST + (LATEST - EARLIEST) * torch.rand(PARTICLES, generator=rng)
        eps = torch.randn(PARTICLES, 2, generator=rng)
        with torch.set_grad_enabled(method == "sim"):  # which alone differentiates through both scores
            x_t = psi.schedule.mix(x, eps, t)
            x.grad = direction(method, x, x_t, t, eps, psi, phi).detach()
        optimizer.step()
    return lecture.score_coverage(frames, shares, mixture, color=color), rows


def words(rows: list[dict]) -> str:
    first, last = rows[0], rows[-1]
    told = (
        f"After {last['updates']} updates {last['coverage']:.0%} of the modes are found, {last['outside']:.0%} of the particles "
        f"are at none, and the distance to data went from {first['distance']:.2g} to **{last['distance']:.2g}** (floor {last['floor']:.2g}). "
    )
    if last["method"].startswith("sds"):
        return (
            told + "Without the second score nothing says where the others are: each climbs to the most probable place."
        )
    return (
        told
        + "Where both scores agree the arrows vanish. A second score that lags pushes particles from where they *were*."
    )


LESSON = Lesson(
    id="scores",
    menu="Score distillation",
    icon=":material/compare_arrows:",
    title="Two scores, one difference: towards data, away from where the others are",
    equation=r"\nabla_\theta=\mathbb E\Big[\omega(t)\,\big(\varepsilon_\psi(x_t,t)-\varepsilon_\phi(x_t,t)\big)\,\tfrac{\partial g}{\partial\theta}\Big]",
    source="VSD, arXiv 2305.16213, eq. 9, on particles (g = θ), as its sec. 3 has it; SwiftBrush 2312.05239, DMD 2311.18828, SIM 2410.16794.",
    controls=(
        Mixture(),
        Choice("method", "Method", WAYS, "vsd"),
        Choice("start", "Start", STARTS, "the middle"),
        Number("lag", "Second score lags", (0, 5, 10, 20, 40, 80), 0, "by so many updates"),
        Number("updates", "Updates", (20, 40, 80, 120, 160, 240, 320), 160),
    ),
    figure=scores,
    uses=(direction,),
    words=words,
    presets={
        "Without the second score": {"method": WAYS[-1]},
        "From one mode: reverse KL forgives": {"start": "one mode"},
        "A stale fake model": {"lag": 40},
    },
)  # fmt: skip
