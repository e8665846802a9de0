"""Adding one thing touches one file and one line: done here in a copy of the package, and used from its command."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import toydiff
from toydiff.catalog import METHODS, TOKEN_METHODS
from toydiff.cli import main
from toydiff.training.checkpoints import read_tensors

END = "---- end of a command"


def copy_to(folder):
    """A copy of the package there, without its weights."""
    unneeded = shutil.ignore_patterns("*.safetensors", "*.json", "__pycache__")
    shutil.copytree(Path(toydiff.__file__).parent, folder / "toydiff", ignore=unneeded)
    return folder


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """A copy of the package with a solver, a problem and a method of its own, and what its command prints of each."""
    folder = copy_to(tmp_path_factory.mktemp("grown"))
    add_solver(folder / "toydiff")
    add_problem(folder / "toydiff")
    add_method(folder / "toydiff")
    printed = iter(commands(folder, ["methods", "--json", "-"], *OF_THE_SOLVER, *OF_THE_PROBLEM, *OF_THE_METHOD))
    return (
        folder,
        json.loads(next(printed)),
        {
            of: [next(printed) for _ in lines]
            for of, lines in (("solver", OF_THE_SOLVER), ("problem", OF_THE_PROBLEM), ("method", OF_THE_METHOD))
        },
    )


def add_line(file, line, after):
    """The line, below the one that is given."""
    lines = file.read_text().splitlines()
    lines.insert(lines.index(after) + 1, line)
    file.write_text("\n".join(lines) + "\n")


def python(folder, *words):
    """What Python prints where the copy is what it finds."""
    found = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def commands(folder, *lines):
    """What `toydiff` prints there for each of these command lines, one after the other in a process of its own."""
    lines = [list(map(str, words)) for words in lines]
    program = "import sys, toydiff.cli as c\nfor words in {}: assert c.main(words) == 0, words; print({!r}, flush=True)"
    return python(folder, "-c", program.format(lines, END)).split(f"{END}\n")[:-1]


MIDPOINT = '''"""The midpoint rule in NSR."""

from dataclasses import dataclass

from ..prediction import Prediction, jump
from .base import InnerStep
from .entry import SKY, Entry


@dataclass(frozen=True)
class Midpoint(InnerStep):
    """z_s = z_t + (n_s - n_t) eps(x_m, m), z = x/alpha, n = NSR; m half way in lambda."""

    order = 2
    nfe_per_step = 2

    def advance(self, D, p, s, past, noise):
        m = D.schedule.part_way(p.t, s, 0.5)
        eps = D(jump(p, m), m).eps
        return jump(Prediction.of("eps", eps, p.x, p.t, D.schedule), s)


MIDPOINT_ENTRIES = [Entry(name="mine", solver=Midpoint(), title="Midpoint in NSR", paper="a textbook", color=SKY)]
'''


HOW = ["sample", "--mixture", "ring", "--steps", "8", "--n", "50", "--solver"]
OF_THE_SOLVER = [
    ["convergence", "--solver", "mine", "--schedule", "vp", "--json", "-"],
    [*HOW, "mine", "--out", "mine.npz"],
]


def add_solver(package):
    (package / "solvers" / "midpoint.py").write_text(MIDPOINT)
    line = "from .midpoint import MIDPOINT_ENTRIES"
    add_line(package / "solvers" / "registry.py", line, after="from .tcd import TCD_ENTRIES")


@pytest.mark.slow
@pytest.mark.xdist_group("grown")
def test_a_solver(grown):
    folder, listed, printed = grown
    listed, (measured, sampled) = listed["solvers"], printed["solver"]
    assert [row["name"] for row in listed] == [*toydiff.SOLVERS, "mine"]
    assert (listed[-1]["title"], listed[-1]["order"], listed[-1]["calls_per_step"]) == ("Midpoint in NSR", 2, 2)
    [row] = json.loads(measured)
    assert (row["solver"], row["declared"]) == ("mine", 2)
    assert row["measured"] == pytest.approx(2, abs=0.15)
    assert "mine on mixture:ring: 50 samples" in sampled
    # written out, DPM-Solver-2 is this rule
    assert main([*HOW, "dpm2", "--out", str(folder / "dpm2.npz")]) == 0
    mine, dpm2 = (np.load(folder / f"{name}.npz")["samples"] for name in ("mine", "dpm2"))
    np.testing.assert_allclose(mine, dpm2, atol=1e-4)


# ---- a schedule of a user: no line of the package at all


SQUARE = """
from toydiff import Schedule


class Square(Schedule):
    def __init__(self, power=2.0):
        self.power = power

    def alpha(self, t):
        return 1 - t**self.power

    def sigma(self, t):
        return t


class NoSchedule:
    pass
"""

INTERRUPTED = """
from toydiff import runs

changes = {"schedule": "my_schedules:Square", "updates": 4, "batch": 16}
for record in runs.train("diffusion", "mixture", changes=changes, out="cut", every=1):
    if record.step == 2:
        break
"""


@pytest.fixture
def installed(tmp_path):
    """As an installed command runs in a folder, here several lines in one process: Python's search path begins with
    the folder of the command, and lacks the current one.
    """
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "toydiff"
    script.write_text(
        "import sys\n\nfrom toydiff.cli import main\n\n"
        "for line in sys.argv[1:]:\n    assert main(line.split()) == 0, line\n"
    )

    def run(folder, *lines):
        package = str(Path(toydiff.__file__).parents[1])
        return subprocess.run(
            [sys.executable, script, *lines],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": package},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.slow
def test_a_schedule_of_a_user_is_saved_and_loaded(installed, tmp_path):
    """By the command, in the folder of its module: an interrupted run ends with the same bits, and is measured and
    sampled.
    """
    here = tmp_path / "here"
    here.mkdir()
    (here / "my_schedules.py").write_text(SQUARE)
    (here / "interrupted.py").write_text(INTERRUPTED)

    subprocess.run(
        [sys.executable, "interrupted.py"],
        cwd=here,
        check=True,
        env=os.environ | {"PYTHONPATH": str(Path(toydiff.__file__).parents[1])},
    )
    assert json.loads((here / "cut" / "run.json").read_text())["step"] == 2
    train = "train diffusion --problem mixture --set schedule=my_schedules:Square --updates 4 --batch 16 --out"
    found = installed(
        here,
        f"{train} whole",
        f"{train} cut --resume",
        "evaluate cut --steps 2 --n 50",
        "sample cut --steps 2 --n 50 --out a.npz",
    )
    assert found.returncode == 0, found.stderr
    index = json.loads((here / "whole" / "run.json").read_text())
    assert index["about"]["denoiser"]["schedule"] == {
        "name": "import",
        "path": "my_schedules:Square",
        "settings": {"power": 2.0},
    }
    whole, cut = (read_tensors(here / name / "step-00000004.safetensors") for name in ("whole", "cut"))
    assert [key for key in whole if key != "global_random" and not torch.equal(whole[key], cut[key])] == []
    assert "after 4 updates" in found.stdout
    assert np.isfinite(np.load(here / "a.npz")["samples"]).all()


@pytest.mark.slow
def test_where_a_schedule_of_a_user_is_not_found_the_command_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / "schedules_of_mine.py").write_text(SQUARE)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.chdir(tmp_path)
    train = ["train", "diffusion", "--problem", "mixture", "--updates", "1", "--batch", "8", "--set"]
    sample = ["sample", "--mixture", "ring", "--steps", "2", "--n", "50", "--out", "a.npz", "--schedule"]
    assert main([*train, "schedule=schedules_of_mine:Square", "--out", "run"]) == 0
    assert main([*sample, "schedules_of_mine:Square"]) == 0
    capsys.readouterr()
    for name, message in (("NoSchedule", "is no noise schedule"), ("Other", "cannot be imported: AttributeError")):
        for words in (
            [*train, f"schedule=schedules_of_mine:{name}", "--out", "x"],
            [*sample, f"schedules_of_mine:{name}"],
        ):
            assert main(words) == 2
            err = capsys.readouterr().err
            assert err.count("\n") == 1
            assert f"'schedules_of_mine:{name}' {message}" in err
    # in another folder, in a process that has not seen it
    monkeypatch.delitem(sys.modules, "schedules_of_mine")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place not in ("", str(tmp_path))])
    monkeypatch.chdir("elsewhere")
    for words in (
        ["evaluate", "../run"],
        ["sample", "../run", "--out", "b.npz"],
        [*train, "schedule=schedules_of_mine:Square", "--out", "x"],
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert "the schedule 'schedules_of_mine:Square' cannot be imported: ModuleNotFoundError" in err
    assert list(Path().iterdir()) == []


# ---- a problem


CHECKERBOARD = """
import torch

from ..support.checks import as_generator
from ..nets import MLP
from ..schedules import Tabulated
from .base import Entry, Measured, Problem
from .mixture import distance_and_floor


class Checkerboard(Problem):
    \"\"\"Points on the dark squares of a board.\"\"\"

    name, shape, distance_name = "checkerboard", (2,), "sliced Wasserstein distance"

    def __init__(self):
        self.schedule, self._floors = Tabulated.scaled_linear(), {}

    def data(self, n, generator=None):
        rng = as_generator(generator)
        column, row = torch.randint(4, (n,), generator=rng), torch.randint(2, (n,), generator=rng)
        corner = torch.stack([column, 2 * row + column % 2], 1)
        return corner + torch.rand(n, 2, generator=rng) - 2, None

    def network(self, *, guided=False):
        return MLP(2, guided=guided)

    def measure(self, samples, cond=None):
        distance, lowest = distance_and_floor(samples, lambda n, seed: self.data(n, seed)[0], self._floors)
        return Measured(distance, lowest.mean, lowest.std, None)


ENTRY = Entry(
    name="checkerboard",
    title="checkerboard, points on the dark squares of a board",
    scale="points",
    open=lambda which, seed: Checkerboard(),
)
"""


BRIEFLY = ["--updates", "3", "--batch", "16", "--watch", "3"]
OF_THE_PROBLEM = [
    ["train", "diffusion", "--problem", "checkerboard", *BRIEFLY, "--out", "board"],
    ["evaluate", "board", "--steps", "1", "--n", "50"],
    ["sample", "board", "--steps", "1", "--n", "50", "--out", "board.png"],
]


def add_problem(package):
    (package / "problems" / "checkerboard.py").write_text(CHECKERBOARD)
    line = "from .checkerboard import ENTRY as checkerboard_entry"
    add_line(package / "problems" / "__init__.py", line, after="from .digits import ENTRY as digits_entry")


@pytest.mark.slow
@pytest.mark.xdist_group("grown")
def test_a_problem(grown):
    folder, listed, printed = grown
    trained, measured, _ = printed["problem"]
    assert [row["name"] for row in listed["problems"]] == [
        "mixture",
        "points",
        "digits",
        "checkerboard",
        "tokens",
        "sd",
        "file",
        "sequence",
        "clips",
    ]
    for row in listed["methods"]:
        assert row["knobs"].get("checkerboard") == row["knobs"].get("points")
    assert "the best on the way is kept" in trained
    assert "diffusion on checkerboard, after 3 updates" in measured
    assert "sliced Wasserstein distance to true samples" in measured
    assert (folder / "board.png").read_bytes().startswith(b"\x89PNG")


OWN_METHOD = '''"""Two steps of the teacher in one answer.

    1  x_0 ~ data,  t ~ U(0, 1),  x_t = alpha_t x_0 + sigma_t eps,  eps ~ N(0, I)
    2  y = the teacher's x_0 at t/2, where its DDIM step leads     no gradient
    3  loss = |x_0 student(x_t, t) - y|^2
"""

import torch

from ..prediction import jump
from ..solvers.registry import GREY
from ..training import EMA, Turn
from .base import Card, Knobs, Training, batch_of, student_like, uniform_times
from .distances import mse


def mine_loss(student, teacher, x0, cond, draws):
    """A scalar. x0 (B, ...); cond (B,) or None."""
    t = uniform_times(len(x0), draws)  # 1
    x_t = teacher.schedule.mix(x0, draws.normal(*x0.shape), t)  # 1
    with torch.no_grad():
        y = teacher(jump(teacher(x_t, t, cond), t / 2), t / 2, cond).x0  # 2
    return mse(student(x_t, t, cond).x0, y).mean()  # 3


def mine(problem, knobs, teacher, pairs=None, start=None):
    """The student and its one turn."""
    student = student_like(problem, teacher, start)

    def turn(step, draws):
        return mine_loss(student, teacher, *batch_of(problem, knobs.batch, draws), draws)

    return Training(student, EMA(student, knobs.ema), [Turn(turn, list(student.parameters()), knobs.lr)])


CARD = Card(
    id="mine", title="Two steps in one", paper="none", deck="none", equation="|x_0(x_t, t) - y|^2", needs="teacher",
    train=mine, knobs=Knobs, recipes={"points": {"batch": 64}}, color=GREY,
)  # fmt: skip
'''


OF_THE_METHOD = [
    ["train", "mine", "--problem", "mixture", "--updates", "20", "--out", "run"],
    ["sample", "run", "--steps", "2", "--n", "50", "--out", "method.npz"],
    ["evaluate", "run", "--steps", "2", "--n", "100", "--json", "-"],
]


def add_method(package):
    (package / "distill" / "mine.py").write_text(OWN_METHOD)
    line = "from .distill.mine import CARD as mine"
    add_line(package / "catalog.py", line, after="from .distill.animatelcm import CARD as animatelcm")


@pytest.mark.slow
@pytest.mark.xdist_group("grown")
def test_a_method(grown):
    folder, listed, printed = grown
    listed = listed["methods"]
    assert [row["id"] for row in listed] == [*METHODS, "mine", *TOKEN_METHODS]
    mine = listed[len(METHODS)]
    assert (mine["title"], mine["needs"]) == ("Two steps in one", "teacher")
    assert mine["knobs"]["mixture"]["batch"] == 64
    samples = np.load(folder / "method.npz")["samples"]
    assert samples.shape == (50, 2)
    assert np.isfinite(samples).all()
    [row] = json.loads(printed["method"][2])
    assert (row["method"], row["updates"], row["nfe"]) == ("mine", 20, 2)


PAGE = '''"""Samples of a mixture."""

import plotly.graph_objects as go

from screen.controls import Mixture, Number
from screen.lesson import Lesson


def samples(mixture, n):
    """n of them, as points."""
    x = mixture.sample(n, 0)
    return go.Figure(go.Scatter(x=x[:, 0].tolist(), y=x[:, 1].tolist(), mode="markers")), [{"samples": n}]


def words(rows):
    return f"Here are {rows[0]['samples']} of them. Each is drawn by itself."


LESSON = Lesson(
    id="mine",
    menu="Samples",
    icon=":material/grain:",
    title="What a mixture draws",
    equation=r"x \\sim p",
    source="a textbook",
    controls=(Mixture(), Number("n", "Samples", (10, 30), 30)),
    figure=samples,
    words=words,
    presets={"Ten samples": {"n": 10}},
)
'''

SHOW = """
import json

from streamlit.testing.v1 import AppTest

from toydiff.cli import app as cli_app

at = AppTest.from_file(str(cli_app.folder() / "main.py"), default_timeout=60).run()  # what `toydiff app` serves
assert not at.exception, at.exception[0].value
links = [link.proto.label for link in at.get("page_link")]


def page():
    from lessons import LESSONS
    from screen.lesson import show

    show(LESSONS[0])


at = AppTest.from_function(page, default_timeout=60).run()
assert not at.exception, at.exception[0].value
parts = [part.proto for part in at.get("bidi_component")]
charts = [json.loads(part.bytes) for part in parts if part.component_name == "toydiff_chart"]
shown = {
    "header": at.header[0].value,
    "words": [part.value for part in at.markdown],
    "links": links,
    "points": [len(chart["figure"]["data"][0]["x"]) for chart in charts if chart["figure"]],
}
from lessons import LESSONS  # the page has told Python where they are

print(json.dumps(shown | {"menu": [lesson.id for lesson in LESSONS]}))
"""


@pytest.mark.slow
def test_a_page_of_the_app(tmp_path):
    pytest.importorskip("streamlit")
    copied = copy_to(tmp_path)
    boards = Path("toydiff", "studies", "bundled")  # a page is there where they are
    shutil.copytree(Path(toydiff.__file__).parents[1] / boards, copied / boards, dirs_exist_ok=True)
    app = Path(__file__).resolve().parent.parent / "app"
    shutil.copytree(app, copied / "app", ignore=shutil.ignore_patterns("__pycache__"))
    menu = re.findall(r"from \.(\w+) import LESSON", (app / "lessons" / "__init__.py").read_text())
    (copied / "app" / "lessons" / "mine.py").write_text(PAGE)
    # the first line is the first page, which is the one that opens
    lessons = copied / "app" / "lessons" / "__init__.py"
    add_line(lessons, "from .mine import LESSON as mine", after="from screen.lesson import Lesson")

    (copied / "show.py").write_text(SHOW)
    shown = json.loads(python(copied, "show.py").splitlines()[-1])
    assert shown["menu"] == ["mine", *(name.replace("_", "-") for name in menu)]
    assert shown["header"] == "What a mixture draws"
    assert "Here are 30 of them. Each is drawn by itself." in shown["words"]
    assert shown["points"] == [30]
    assert "Ten samples" in shown["links"]
    assert any(label.startswith("1. ") for label in shown["links"])  # its place on the map
