"""Clips of digits: AnimateLCM's student in few steps beside its video teacher, another style, a first frame given."""

import plotly.graph_objects as go
import torch

from toydiff import runs, weights
from toydiff.distill.animatelcm import swapped
from toydiff.nets import FirstFrame
from toydiff.plots import interactive
from toydiff.problems import problem
from toydiff.problems.clips import STYLES
from toydiff.runs.zoo import CLIPS_ID, CLIPS_TEACHER_ID, GUIDANCE
from toydiff.runs.zoo import STYLES as PERSONAL

from screen.controls import Choice, Number, Several
from screen.lesson import Lesson, remember

SEED, TEACHER_STEPS = 1, 25
STEPS = ("1", "2", "4", "8")
PLAIN, FREE, GIVEN = "plain", "sampled", "given"


@remember
def clip(id_: str, steps: int, digit: int, g: float, style: str, given: bool) -> tuple[torch.Tensor, int]:
    """A clip of a digit from a noise, (8, 1, 28, 28), and its calls. style: whose image network lies under the
    student's adapter and temporal layers. given: the first frame is that of the teacher's clip, in the style."""
    model = runs.load(id_)
    D = model.denoiser
    if style != PLAIN:
        D = swapped(D, runs.load(next(id_ for id_, name in PERSONAL.items() if name == style)).denoiser.net)
    if given:
        first = clip(CLIPS_TEACHER_ID, TEACHER_STEPS, digit, GUIDANCE, PLAIN, False)[0][:1]
        D = FirstFrame(D, STYLES[style](first.clamp(-1, 1)))
    path, _ = runs.sample(
        runs.Model(D, model.about),
        problem("clips"),
        1,
        steps,
        cond=torch.tensor([digit]),
        guidance_scale=g,
        seed=SEED,
    )
    return path.end[0], path.nfe


def clips(digit: int, steps: tuple[str, ...], guidance: str, style: str, first: str) -> tuple[go.Figure, list[dict]]:
    """A row of frames for the teacher, and for the student in each number of steps, from the same noise. The last frame
    is in motion first: there rows differ most, also where the first one is given."""
    g, known = float(guidance), {row["steps"]: row for row in weights.read_about(CLIPS_ID)["rows"]}
    [best] = weights.read_about(CLIPS_TEACHER_ID)["rows"]
    shown, calls = clip(CLIPS_TEACHER_ID, TEACHER_STEPS, digit, GUIDANCE, PLAIN, False)
    rows = [{"model": "teacher", "steps": TEACHER_STEPS, "nfe": calls, "style": PLAIN, "first": FREE}]
    strip = {f"teacher · {TEACHER_STEPS} steps": shown}
    for count in map(int, steps):
        shown, calls = clip(CLIPS_ID, count, digit, g, style, first == GIVEN)
        strip[f"student · {count} step{'s' if count > 1 else ''}"] = shown
        worse = {
            f"{name}_times_teacher": known[count]["parts"][name]["value"] / best["parts"][name]["value"]
            for name in ("frame", "velocity")
        }
        row = {"model": "student", "steps": count, "nfe": calls, "style": style, "first": first}
        rows.append(row | worse | {"n": known[count]["n"]})
    return interactive.film_strip(strip, active=len(shown) - 1, first=GIVEN if first == GIVEN else ""), rows


def words(rows: list[dict]) -> str:
    teacher, *students = rows
    several = ", ".join(str(row["nfe"]) for row in students)
    text = f"The video teacher makes {teacher['nfe']} calls, the student {several}. "
    if len(students) > 1:
        text = text.replace(f", {students[-1]['nfe']}.", f" or {students[-1]['nfe']}.")
    best = min(students, key=lambda row: abs(row["steps"] - 4))
    text += (
        f"Over {best['n']} clips, all frames sampled, in the plain style at g = {GUIDANCE}, {best['steps']} step"
        f"{'s have' if best['steps'] > 1 else ' has'} a per-frame Fréchet distance "
        f"**{best['frame_times_teacher']:.2f}** times the teacher's, and a velocity error "
        f"**{best['velocity_times_teacher']:.2f}** times. "
    )
    if best["style"] != PLAIN:
        text += "The image network is another, trained on single frames alone; motion comes from the same layers. "
    if best["first"] == GIVEN:
        text += "Here the first frame is the teacher's in every row, and the others follow it. "
    return text


LESSON = Lesson(
    id="clips",
    menu="Clips",
    icon=":material/movie:",
    title="Four steps make a clip; one makes a blur",
    equation=(
        r"\begin{aligned}\text{image: }&W+BA\;\leftarrow\;\text{LCM of frames}\\ "
        r"\text{motion: }&h+\mathrm{out}(\ldots)\;\leftarrow\;\text{LCM of clips}\end{aligned}"
    ),
    source=(
        "AnimateLCM, arXiv 2402.00769; slides 14 and 15. Real digits that move and turn, 8 frames of 28 × 28. All "
        "frames share the time, and each has its own noise. Weights: `toydiff zoo`."
    ),
    controls=(
        Number("digit", "Digit", tuple(range(10)), 5),
        Several("steps", "Steps of the student", STEPS, STEPS),
        Choice("guidance", "Guidance g", ("1", "1.5", "2"), "1.5"),
        Choice("style", "Image network", (PLAIN, *PERSONAL.values()), PLAIN, "Swapped under the same motion layers"),
        Choice("first", "First frame", (FREE, GIVEN), GIVEN, "Given: that of the teacher's clip"),
    ),
    figure=clips,
    uses=(clip,),
    words=words,
    ask=(
        "Another image network, which never saw a clip, is put under the layers that learned motion. What moves?",
        "The digits in the new look, with the old motion: frames come from the image network and its adapter, motion "
        "from the temporal layers, and they were learned apart.",
    ),
    presets={
        "One step is not enough": {"steps": ["1", "4"]},
        "Another style, the same motion": {"steps": ["4"], "style": next(iter(PERSONAL.values()))},
        "All frames sampled": {"first": FREE},
        "Guidance beyond the advice": {"guidance": "2"},
    },
)
