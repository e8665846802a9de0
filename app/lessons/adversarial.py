"""Adversarial post-training: what a generator can climb, with noise and without."""

import plotly.graph_objects as go
import torch

from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.plots.discriminators import Level, level

from screen.controls import Choice, Number
from screen.lesson import Lesson

MEANS, STD = torch.tensor([[-1.6], [0.1], [1.7]]), 0.15
FAULTS = ("blurred", "shifted", "a mode lost", "one mode only")
LEVELS = tuple(float(r) for r in torch.logspace(-2, 0.5, 26))
OPENS_AT, FLAT = 18, 0.05
"""The level that the figure opens with, NSR 0.63; a slope below which a generator stands still."""


def generator(fault: str, size: int) -> GaussianMixture:
    """A generator of the line's three modes with one fault, of a size in percent."""
    if fault == "blurred":
        return GaussianMixture(MEANS, std=STD + size / 100)
    if fault == "shifted":
        return GaussianMixture(MEANS + size / 100, std=STD)
    kept = MEANS[:2] if fault == "a mode lost" else MEANS[1:2]
    return GaussianMixture(kept, std=STD)


def row_of(one: Level, fault: str) -> dict:
    """How often the best discriminator is right, and how much of the generator's samples its average moves."""
    step = float(one.y[1] - one.y[0])
    here = one.q / one.q.sum()
    return {
        "fault": fault,
        "nsr": one.r,
        "right": 0.5 + 0.25 * float((one.p - one.q).abs().sum()) * step,
        "moved": float(here[one.slope.abs() > FLAT].sum()),
    }


def adversarial(fault: str, size: int) -> tuple[go.Figure, list[dict]]:
    """Data and generator on the line, the best discriminator of both with noise, and its average over the noise."""
    data = GaussianMixture(MEANS, std=STD)
    levels = [level(data, generator(fault, size), r) for r in LEVELS]
    return interactive.discriminators(levels, active=OPENS_AT), [row_of(one, fault) for one in levels]


def words(rows: list[dict]) -> str:
    here, least, most = rows[OPENS_AT], rows[0], rows[-1]
    return (
        f"On show: NSR {here['nsr']:.2g}. The best discriminator is right in {here['right']:.0%} of the cases, and its "
        f"average has a slope for **{here['moved']:.0%}** of the generator's samples, towards data. With hardly any "
        f"noise (NSR {least['nsr']:.2g}) it is right in {least['right']:.0%}, and only **{least['moved']:.0%}** of the "
        f"samples feel a slope: beside a step D is flat. At NSR {most['nsr']:.2g} it is right in {most['right']:.0%}: "
        "so much noise hides the fault."
    )


LESSON = Lesson(
    id="adversarial",
    menu="Adversarial",
    icon=":material/balance:",
    title="Noise gives the discriminator a slope that the generator can climb",
    equation=(
        r"\begin{aligned}D^*&=\mathrm{sign}(p_u-q_u)\\ "
        r"\nabla_g\,&\mathbb E_{\varepsilon}\,D^*\!\left(g+\mathrm{NSR}_u\,\varepsilon\right)\end{aligned}"
    ),
    source="The hinge loss's optimum, on the line in units of data; noised samples: LADD, arXiv 2403.12015.",
    controls=(
        Choice("fault", "The generator is", FAULTS, "one mode only"),
        Number("size", "by (% of a unit)", (10, 20, 30, 40, 60, 80), 40),
    ),
    figure=adversarial,
    uses=(generator, row_of),
    words=words,
    idle={("fault", "a mode lost"): ("size",), ("fault", "one mode only"): ("size",)},
    together=("fault", "size"),
    ask=(
        "A discriminator is as good as can be. Does that help the generator most?",
        "No. The best D is a step, with no slope beside it: samples are told that they are "
        "wrong, and not where to go. Noise on both makes the step wide, on average.",
    ),
    presets={
        "A blurred generator": {"fault": "blurred", "size": 40},
        "A generator that is off by a little": {"fault": "shifted", "size": 20},
    },
)
