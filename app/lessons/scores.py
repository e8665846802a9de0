"""Score distillation: particles that are moved by the difference of two scores."""

import plotly.graph_objects as go
import torch
from torch import Tensor, nn

import toydiff
from toydiff.catalog import METHODS
from toydiff.distill.dmd import dmd_loss
from toydiff.distill.sim import huber_slope, sim_loss
from toydiff.distill.vsd import kl_weight, sigma2_weight, vsd_loss
from toydiff.measure import floor, modes, sliced_wasserstein
from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.solvers.registry import GREY
from toydiff.training import Draws

from screen.controls import Choice, Mixture, Number
from screen.lesson import Lesson

WAYS = ("vsd", "swiftbrush", "dmd", "sim", "sds: no second score")
PULLS = (
    "the sum: where a particle goes",
    "towards data: their score",
    "away from others: minus the particles' score",
)
STARTS = ("the middle", "one mode", "noise")
PARTICLES, LR, ARROWS, NSR = 256, 0.05, 20, 0.25
ON_THEIR_WAY = 0.3
"""The fraction of the data that is found where the figure opens: arrows are still long there."""


class Particles(toydiff.Denoiser):
    """A generator that is its samples, g = theta: whatever the noise, its x_0 is theta, (B, 2)."""

    def __init__(self, places: Tensor, schedule: toydiff.Schedule):
        super().__init__(schedule)
        self.theta = nn.Parameter(places)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> toydiff.Prediction:
        return toydiff.Prediction.of("x0", self.theta, x, t, self.schedule)


def loss_of(
    method: str, particles: Particles, psi: toydiff.Denoiser, phi: toydiff.Denoiser, z: Tensor, draws: Draws
) -> Tensor:
    """What the particles descend, a scalar: psi is the teacher, phi the second score."""
    if method == "vsd":
        return vsd_loss(particles, psi, phi, kl_weight, z, None, draws)
    if method == "swiftbrush":
        return vsd_loss(particles, psi, phi, sigma2_weight, z, None, draws)
    if method == "dmd":
        return dmd_loss(particles, psi, phi, z, None, draws)
    if method == "sim":
        return sim_loss(particles, psi, phi, huber_slope, z, None, draws)
    # DreamFusion (arXiv 2209.14988, eq. 3): a second model that knows each particle alone predicts its very noise
    return vsd_loss(particles, psi, particles, kl_weight, z, None, draws)


def scores(mixture: GaussianMixture, method: str, start: str, lag: int, updates: int) -> tuple[go.Figure, list[dict]]:
    """Particles in place of a generator: both scores are exact, the second that of the particles `lag` updates ago."""
    psi, color = mixture.denoiser(toydiff.VP()), METHODS[method].color if method in METHODS else GREY
    draws = Draws(0)
    noise = draws.normal(PARTICLES, 2)
    places = {
        "the middle": psi(noise, torch.ones(())).x0 + 0.15 * noise,  # the teacher's one-step guess is a blob
        "one mode": mixture.means[0].float() + 0.15 * noise,
        "noise": noise,
    }
    particles = Particles(places[start].clone(), psi.schedule)
    optimizer = torch.optim.Adam(particles.parameters(), lr=LR, betas=(0.0, 0.99))
    true, past, frames, ratios, rows = mixture.sample(PARTICLES, 1), [], {}, {}, []
    least = floor(sliced_wasserstein, mixture.sample, PARTICLES).mean
    shown = {round(updates * (k / 30) ** 1.5) for k in range(31)}
    for step in range(updates + 1):
        now = particles.theta.detach().clone()
        past = [*past[-lag:], now] if lag else [now]
        phi = toydiff.Empirical(past[0]).denoiser(psi.schedule)  # knows where the particles are, or were
        if step in shown:
            level = psi.schedule.t_of_lam(-torch.log(torch.tensor(NSR)))
            some = now[:ARROWS]
            at = psi.schedule.alpha(level) * some
            away = torch.zeros_like(some) if method.startswith("sds") else some - phi(at, level).x0
            towards = psi(at, level).x0 - some
            frames[step] = now, some, torch.stack([towards + away, towards, away])
            found = modes(mixture, now)
            ratios[step] = (found.weights / found.expected).tolist()
            rows.append(
                {
                    "method": method,
                    "updates": step,
                    "distance": sliced_wasserstein(now, true),
                    "found": float((found.weights / found.expected).clamp(max=1).mean()),
                    "coverage": found.coverage,
                    "outside": found.outside,
                    "spread": float(now.std(0).norm() / true.std(0).norm()),
                    "floor": least,
                }
            )
        optimizer.zero_grad()
        loss = loss_of(method, particles, psi, phi, noise, draws)
        (PARTICLES * loss).backward()  # a loss is the mean over particles, and each follows its own
        optimizer.step()
    drawn = {
        "arrows": PULLS,
        "head": f"arrows: scores times NSR², at NSR {NSR:g}",
        "color": color,
        "active": on_show(rows)["updates"],
    }
    return interactive.score_coverage(frames, ratios, mixture, **drawn), rows


def on_show(rows: list[dict]) -> dict:
    """The row of the frame that the figure opens with: the first in which enough is found, else the last."""
    return next((row for row in rows[1:] if row["found"] >= ON_THEIR_WAY), rows[-1])


def words(rows: list[dict]) -> str:
    first, here, last = rows[0], on_show(rows), rows[-1]
    text = (
        f"On show: after {here['updates']} updates {here['coverage']:.0%} of the modes are found, and "
        f"{here['outside']:.0%} of the particles are at none. "
    )
    if here is not last:
        text += f"After {last['updates']} it is {last['coverage']:.0%} and {last['outside']:.0%}. "
    text += (
        f"The distance to data goes from {first['distance']:.2g} to **{last['distance']:.2g}** (floor "
        f"{last['floor']:.2g}). "
    )
    if last["method"].startswith("sds"):
        return (
            text + "Without the second score nothing pushes particles away from each other: each climbs to the most "
            "probable place."
        )
    return (
        text
        + "Where both scores agree the two arrows cancel. A second score that lags pushes particles from where they "
        "*were*."
    )


LESSON = Lesson(
    id="scores",
    menu="Score distillation",
    icon=":material/compare_arrows:",
    title="Two scores move a particle: towards data, away from others",
    equation=(
        r"\nabla_\theta=\mathbb E\Big[\omega(t)\,\big(\varepsilon_\psi(x_t,t)-\varepsilon_\phi(x_t,t)\big)"
        r"\,\tfrac{\partial g}{\partial\theta}\Big]"
    ),
    source=(
        "VSD, arXiv 2305.16213, eq. 9, on particles (g = θ), as in its sec. 3; SwiftBrush 2312.05239, DMD "
        "2311.18828, SIM 2410.16794."
    ),
    controls=(
        Mixture(),
        Choice("method", "Method", WAYS, "vsd"),
        Choice("start", "Start", STARTS, "the middle"),
        Number(
            "lag",
            "Second score lags",
            (0, 5, 10, 20, 40, 80),
            0,
            "It is the score of the particles so many updates ago",
        ),
        Number("updates", "Updates", (20, 40, 80, 120, 160, 240, 320), 160),
    ),
    figure=scores,
    uses=(Particles, loss_of, on_show),
    words=words,
    together=("method", "start"),
    ask=(
        "Particles follow the score of the data, uphill to where data are more probable. What becomes of 256 of them?",
        "They pile up at the most probable places. Only the second score, that of the particles themselves, pushes "
        "them apart, until both scores agree.",
    ),
    presets={
        "Without the second score": {"method": WAYS[-1]},
        "From one mode: reverse KL is mode-seeking": {"start": "one mode"},
        "A stale second score": {"lag": 40},
    },
)
