"""Reflow: rounds of rectified flow side by side, the pairs that each learnt from, and a round trained on the page."""

import threading
import time

import plotly.graph_objects as go
import streamlit as st
import torch

import toydiff
from toydiff import runs
from toydiff.measure import floor, meeting, paired_error, sliced_wasserstein, straightness
from toydiff.mixtures import GaussianMixture
from toydiff.plots import interactive
from toydiff.plots.screen import for_screen
from toydiff.problems import MixtureProblem
from toydiff.problems.pairs import Recipe, make_pairs

from screen import chart
from screen.controls import Choice, Mixture, Number
from screen.lesson import Lesson, remember
from screen.messages import EXPECTED, line_of
from screen.mixtures import code_of, mixture_of
from screen.theme import is_dark
from screen.turns import Turns

FLOWS, PAIRS = "flows", "pairs"
BUNDLED = {
    "round 0: flow matching": "ring-flow-matching",
    "round 1: reflow": "ring-rectified-flow",
    "round 2: reflow": "ring-rectified-flow-2",
}
PARTICLES, NEAR = 256, 0.03
"""Particles that are measured, and how near two lines come where they meet."""


@remember
def flows(mixture: GaussianMixture, ring: bool) -> dict:
    """Each round's flow: the bundled ones of the ring, otherwise round 0, which is known exactly for every mixture."""
    if ring:
        return {name: runs.load(id_).denoiser for name, id_ in BUNDLED.items()}
    return {"round 0: the exact flow": mixture.denoiser(toydiff.Linear(), "velocity")}


@remember
def least(mixture: GaussianMixture) -> float:
    """The distance of fresh true samples from true samples, the mean over five pairs of them."""
    return floor(sliced_wasserstein, mixture.sample, PARTICLES).mean


def measured(name: str, D: toydiff.Denoiser, mixture: GaussianMixture) -> tuple:
    """A flow's paths, where one step of it ends, and how straight and how good that is."""
    noise = D.schedule.prior((PARTICLES, 2), 0)
    path = toydiff.solve(D, noise, 50, solver="ddim", grid="uniform")
    once = toydiff.solve(D, noise, 1, solver="ddim", grid="uniform").end
    true = mixture.sample(PARTICLES, 1, dtype=noise.dtype)
    row = {
        "round": name,
        "S": straightness(path, normalised=True),
        "one_step_error": paired_error(once, path.end).rms,
        "one_step_distance": sliced_wasserstein(once, true),
        "floor": least(mixture),
    }
    return path, once, row


def reflow(mixture: GaussianMixture, view: str, paths: int) -> tuple[go.Figure, list[dict]]:
    """Rounds side by side: the flows' paths and where one step ends, or the pairs that each flow learnt from."""
    # the bundled flows are the ring's
    ring = torch.equal(mixture.means, toydiff.mixture("ring").means)
    drawn, ends, couplings, marks, rows = {}, {}, {}, {}, []
    coupling = toydiff.Linear().prior((paths, 2), 0), mixture.sample(paths, 0)  # round 0: any noise with any data
    for name, D in flows(mixture, ring).items():
        path, once, row = measured(name, D, mixture)
        couplings[name], marks[name] = coupling, meeting(*coupling, within=NEAR)
        own = path.xs[0, :paths], path.end[:paths]  # what the next round learns from
        meet = {
            "pairs": paths,
            "pairs_that_meet": int(marks[name].sum()),
            "own_pairs_that_meet": int(meeting(*own, within=NEAR).sum()),
        }
        rows.append(row | meet)
        drawn[name], ends[name] = path, once
        coupling = own
    if view == PAIRS:
        return interactive.pairs(couplings, marks, mixture), rows
    return interactive.reflow(drawn, mixture, one_step=ends, lines=paths), rows


def words(rows: list[dict]) -> str:
    first, last = rows[0], rows[-1]
    text = f"**One step** ends {first['one_step_error']:.2g} from the flow's end"
    if len(rows) > 1:
        text += f" in round 0, and {last['one_step_error']:.2g} after {len(rows) - 1} rounds of reflow"
    text += ". Round 0 learnt from any noise paired with any data"
    if first["pairs_that_meet"]:
        text += (
            f": {first['pairs_that_meet']} of {first['pairs']} lines meet (*Show: pairs*). There the flow has "
            f"one direction only, and so it bends (S = {first['S']:.2g}). "
        )
    else:
        text += f". Of {first['pairs']} lines none meets another here; the flow bends by S = {first['S']:.2g}. "
    if len(rows) == 1:
        return text + (
            "**Train a round below**: it learns from the flow's own pairs, of which "
            f"{first['own_pairs_that_meet']} meet."
        )
    return text + (
        f"The next round learns from the flow's own pairs, of which {first['own_pairs_that_meet']} meet. The distance "
        f"of one step's samples to data goes from {first['one_step_distance']:.2g} to "
        f"{last['one_step_distance']:.2g} (floor {last['floor']:.2g})."
    )


UPDATES = 900
"""Updates of the round that is trained on the page."""

LONGEST = 120.0
"""Seconds of training at most, on a slow machine: the round so far is shown then."""

AT_ONCE = Turns(2)
"""Trainings at a time, of all visitors together: each takes a processor."""

PAUSE = 0.5
"""Seconds after which one who waits asks again."""

KEY = "reflow-training"
"""Of the session: {word, run, done, loss, going, lock}, the run None until it is set up."""


def begin(word: str) -> runs.Run:
    """A round that is set up: pairs of the exact flow, and a student that learns their straight lines."""
    mixture = mixture_of(word)
    D = mixture.denoiser(toydiff.Linear(), "velocity")
    problem = MixtureProblem(mixture, schedule=D.schedule)
    pairs = make_pairs(problem, D, Recipe(n=8000, steps=30, solver="ddim", grid="uniform"))
    changes = {"updates": UPDATES, "batch": 512, "edge": 0.5, "warmup": 30, "ema": 0.99}
    return runs.train("rectified-flow", problem, teacher=D, pairs=pairs, seed=0, changes=changes, watch=0)


def start(word: str) -> None:
    """The button to train was pressed: the page, made again, trains."""
    lock = threading.Lock()
    st.session_state[KEY] = {"word": word, "run": None, "done": 0, "loss": float("nan"), "going": True, "lock": lock}


def stop() -> None:
    """The button to stop was pressed: the page shows what there is so far."""
    if st.session_state.get(KEY):
        st.session_state[KEY]["going"] = False


def live(chosen: dict) -> None:
    """Train one round on the page's mixture, with a bar and a button to stop it.

    The training goes on while other buttons and controls are used.
    """
    word, state = chosen["mixture"], st.session_state.get(KEY)
    if state and state["word"] != word:  # the mixture was changed
        state = st.session_state[KEY] = None
    going = bool(state and state["going"])
    with st.container(horizontal=True, key="train", vertical_alignment="center"):
        st.button(
            "Train one round of reflow here, 5 to 20 s",
            icon=":material/play_arrow:",
            key="reflow-start",
            disabled=going,
            on_click=start,
            args=(word,),
        )
        st.button("Stop", icon=":material/stop:", key="reflow-stop", disabled=not going, on_click=stop)
    if not state:
        return
    # when the page is made again, the run before it trains on until it next reports how far it is
    with state["lock"]:
        if going:
            state = _train_here(state)
        if state and state["done"]:
            _result(mixture_of(word), state)


def _train_here(state: dict) -> dict | None:
    """Go on with a training when its turn comes; the state, or None where it went wrong."""
    who, place = state["lock"], st.empty()
    while ahead := AT_ONCE.ahead(who):
        come = "1 training comes" if ahead == 1 else f"{ahead} trainings come"
        place.info(f"{come} first on this machine. Yours begins by itself.", icon=":material/hourglass_empty:")
        time.sleep(PAUSE)
    place.empty()
    try:
        if state["run"] is None:
            with st.spinner("The exact flow makes 8,000 pairs"):
                state["run"] = begin(state["word"])
        _train(state)
    except EXPECTED as error:
        st.session_state[KEY] = None
        st.error(line_of(error), icon=":material/error:")
        return None
    finally:
        AT_ONCE.leave(who)  # also where Streamlit ends this script, since something was pressed, or the reader left
    st.rerun()  # the buttons as they are now


def _train(state: dict) -> None:
    """The rest of a round's updates."""
    bar = st.progress(state["done"] / UPDATES)
    began = time.monotonic()
    for record in state["run"]:
        state["done"], state["loss"] = record.step, record.loss
        if time.monotonic() - began > LONGEST:
            break
        if record.step % 15 == 0:
            bar.progress(state["done"] / UPDATES, f"update {state['done']} of {UPDATES}, loss {record.loss:.3f}")
    bar.empty()
    state["going"] = False


def _result(mixture: GaussianMixture, state: dict) -> None:
    """The round so far, beside the one before it."""
    D = state["run"].training.average.module
    rounds = {
        "round 0: the exact flow": mixture.denoiser(toydiff.Linear(), "velocity"),
        f"round 1: {state['done']} updates, here": D,
    }
    found = {name: measured(name, flow, mixture) for name, flow in rounds.items()}
    paths, ends = ({name: one[k] for name, one in found.items()} for k in (0, 1))
    figure = interactive.reflow(paths, mixture, one_step=ends, lines=48)
    text = for_screen(figure, dark=is_dark()).to_json()
    chart.show(text, key="reflow-result", alt="The round trained here", file="toydiff-reflow-here", height=560)
    st.caption(
        f"Seed 0, batch 512, loss {state['loss']:.3f}. In Python: `toydiff.runs.train('rectified-flow', ...)` on "
        f"`{code_of(state['word'])}`."
    )


LESSON = Lesson(
    id="reflow",
    menu="Reflow",
    icon=":material/linear_scale:",
    title="Reflow straightens paths until one step is enough",
    equation=r"\min_\theta\;\mathbb E\,\big\|v_\theta(x_t,t)-(\varepsilon-x_0)\big\|^2",
    source=(
        "Rectified flow, arXiv 2209.03003, alg. 1; slide 24 of the lecture deck *The Principle and Application of "
        "Diffusion Acceleration*. x_t = (1 − t) x₀ + t ε, and the pairs (ε, x₀) come from the last round's flow."
    ),
    controls=(
        Mixture(),
        Choice(
            "view",
            "Show",
            (FLOWS, PAIRS),
            FLOWS,
            "*flows*: each round's paths. *pairs*: the lines that each round learnt from, and which of them meet",
        ),
        Number("paths", "Paths", (6, 12, 24, 48, 96, 192), 48),
    ),
    figure=reflow,
    uses=(flows, least, measured),
    words=words,
    together=("mixture", "view"),
    in_app="Training a round of reflow on your own mixture needs the app: `toydiff app`.",
    ask=(
        "Noise and data are paired at random and joined by straight lines. A flow learns them all. Are its paths "
        "straight?",
        "No. Where two lines meet, the flow has one direction only, and bends. Lines between its own starts and ends "
        "hardly meet, so the next round is nearly straight.",
    ),
    presets={"Where lines cross": {"view": PAIRS}, "Live reflow on spirals": {"mixture": "spirals"}},
    live=live,
)
