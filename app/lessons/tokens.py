"""Tokens in N steps: two equal bits, whose error can be counted."""

import plotly.graph_objects as go
import torch

from toydiff.discrete import SAMPLERS, TablePosterior, TokenPath, scheduler, solve_tokens
from toydiff.plots import interactive
from toydiff.studies.tokens import mismatches

from screen.controls import Choice, Number, Several
from screen.lesson import Lesson, remember

STRINGS = 48
STEPS = (1, 2, 4, 8, 16, 32, 64)


@remember
def exact(sampler: str, source: str, kappa: str) -> list[dict]:
    """The mismatch after each number of steps, by propagating the law: no sampling noise."""
    return mismatches(STEPS, samplers=[sampler], source=source, kappa=kappa)


def tokens(samplers: tuple[str, ...], source: str, kappa: str, steps: int) -> tuple[go.Figure, list[dict]]:
    """Strings of two equal bits over the steps of the first of the samplers, and the mismatch of all of them."""
    able = [name for name in samplers if source in SAMPLERS[name].solver.sources]
    if not able:
        raise ValueError(f"{', '.join(samplers)} cannot start from the source {source}: choose another sampler")
    P = TablePosterior(TokenPath(2, source, scheduler(kappa)), torch.tensor([[0, 0], [1, 1]]), torch.ones(2))
    walk = solve_tokens(P, P.path.noise(STRINGS, 2, 0), steps, solver=able[0], generator=0)
    curves = [row for name in able for row in exact(name, source, kappa)]
    figure = interactive.two_bits(walk.xs, curves, sampler=able[0], shown=steps)
    masked = (walk.xs == P.path.vocab).sum(2)  # of each string after each step
    counts = {
        "strings": STRINGS,
        "drew_both_at_once": int(((masked[:-1] == 2) & (masked[1:] == 0)).any(0).sum()),
        "differ": int((walk.end[:, 0] != walk.end[:, 1]).sum()),
    }
    return figure, [row | counts for row in curves if row["steps"] == steps]


def number(row: dict) -> str:
    """Its mismatch; what is rounding is 0."""
    return f"{row['mismatch'] if row['mismatch'] > 1e-12 else 0:.3g}"


def words(rows: list[dict]) -> str:
    first = rows[0]
    name, N = first["sampler"], first["steps"]
    plural = f"{N} step{'s' if N > 1 else ''}"
    text = f"The data are 00 and 11. After {plural} of **{name}** the bits differ with probability "
    text += f"**{number(first)}**, exactly; 1/(2N) is {first['exact_jumps']:.3g}. "
    if first["source"] == "mask":
        text += (
            f"Of the {first['strings']} strings {first['drew_both_at_once']} drew both bits in one step, and "
            f"{first['differ']} end different: what is drawn at once does not see the other. "
        )
    else:
        text += (
            f"Of the {first['strings']} strings {first['differ']} end different. Without a mask a bit does not say "
            "whether it has jumped, and may jump again. "
        )
    others = [f"{row['sampler']} {number(row)}" for row in rows[1:]]
    return (text + (f"As many steps of the others: {', '.join(others)}." if others else "")).rstrip()


LESSON = Lesson(
    id="tokens",
    menu="Tokens",
    icon=":material/abc:",
    title="Equal bits drawn in one step can differ: 1/(2N) of pairs do",
    equation=(
        r"\begin{aligned}x^i_s&\sim q\,p(x_1^i\mid x_t)+(1-q)\,\delta_{x^i_t}\\ "
        r"q&=\frac{\kappa_s-\kappa_t}{1-\kappa_t}\end{aligned}"
    ),
    source=(
        "Discrete flow matching, arXiv 2407.15595; tau-midpoint: arXiv 2502.00234, alg. 2; maskgit: arXiv 2202.04200. "
        "The posterior is exact; t = 1 is noise. 1/(2N): masks, κ = 1 − t, exact jumps."
    ),
    controls=(
        Several("samplers", "Samplers (strings: the first)", tuple(SAMPLERS), ("jump-exact",)),
        Choice("source", "Source", ("mask", "uniform"), "mask"),
        Choice("kappa", "Scheduler κ", ("linear", "cosine", "power:2"), "linear"),
        Number("steps", "N (steps)", STEPS, 8),
    ),
    figure=tokens,
    uses=(exact,),
    words=words,
    together=("source", "kappa", "steps"),
    ask=(
        "The data are 00 and 11, each half of the time. A network knows each bit's probabilities exactly. Both bits "
        "are drawn in one step: how often do they differ?",
        "Half of the time: what is drawn at once does not see the other bit. In N steps both rarely jump in the same "
        "one, and 1/(2N) is left.",
    ),
    presets={
        "One step sees marginals alone": {"steps": 1},
        "A midpoint step makes it less": {"samplers": ["jump-exact", "tau-midpoint"]},
        "One bit at a time": {"samplers": ["maskgit"], "steps": 2},
        "Another scheduler is worse": {"samplers": ["jump-exact"], "kappa": "cosine", "steps": 8},
        "Bits that may jump again": {"source": "uniform", "steps": 16},
    },
)
