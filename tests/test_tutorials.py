"""The tutorials: each source runs in a fresh process, and the committed notebook is what its source makes."""

import ast
import importlib.util
import json
import math
import os
import re
import sys
from pathlib import Path

import nbformat
import notebooks
import pytest

TUTORIALS = Path(__file__).resolve().parent.parent / "tutorials"
APP = TUTORIALS.parent / "app" / "lessons"
SECONDS = 60
"""A lesson takes at most a minute: of the processor, since other tests share the cores and the clock."""

_spec = importlib.util.spec_from_file_location("tutorials_execute", TUTORIALS / "execute.py")
maker = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(maker)

SMALLER = {
    "11": {"LEVELS = 13 ": "LEVELS = 5 ", "SEEDS = (0, 1, 2)": "SEEDS = (0,)"},
    "12": {"SHOWN = 1200": "SHOWN = 200"},
    "13": {"SEEDS = (0, 1, 2)": "SEEDS = (0,)"},
    "14": {"SEEDS = (0, 1, 2)": "SEEDS = (0,)"},
    "15": {"UPDATES = 150": "UPDATES = 60"},
    "16": {"n = (1, 2, 4, 8, 16, 32), 20_000": "n = (1, 2, 4, 8, 16, 32), 2000"},
    "17": {"\nn = 700": "\nn = 400", "tuple(range(10)) * 4": "tuple(range(10))"},
}
"""Sizes with which a lesson is run here, {its number: {what stands there: what is run}}; what it says holds at these
too, and its key numbers do not depend on them."""

SOURCES = pytest.mark.parametrize("source", maker.sources(), ids=lambda path: path.stem)


def solution_of(source):
    return TUTORIALS / "solutions" / source.name


def committed(source):
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def programs(source):
    """A lesson's code cells, with the sizes of `SMALLER`."""
    cells = [cell.source for cell in code(maker.read(source))]
    for usual, small in SMALLER.get(source.stem[:2], {}).items():
        assert sum(cell.count(usual) for cell in cells) == 1, usual
        cells = [cell.replace(usual, small) for cell in cells]
    return cells


def texts(notebook):
    for cell in code(notebook):
        for output in cell.outputs:
            yield output.get("text", "")
            yield from (data for kind, data in output.get("data", {}).items() if not kind.startswith("image/"))


def test_there_are_tutorials():
    assert [path.stem[:2] for path in maker.sources()][:5] == ["00", "01", "02", "03", "04"]


@SOURCES
def test_notebook_is_in_step_with_its_source(source):
    kept, made = committed(source), maker.read(source)
    assert [(cell.cell_type, cell.source) for cell in kept.cells] == [
        (cell.cell_type, cell.source) for cell in made.cells
    ], f"run `python tutorials/execute.py {source.stem}`"


@SOURCES
def test_notebook_was_run_with_the_weights_that_are_bundled(source):
    """Else it prints what weights measured that are no longer there."""
    opened = committed(source).metadata.weights
    stale = [id_ for id_, version in opened.items() if version != maker.version_of(id_)]
    assert not stale, f"run `python tutorials/execute.py {source.stem}`"
    named = re.findall(r"runs\.load\(\"([\w-]+)\"\)", source.read_text())
    assert set(named) <= set(opened), "a notebook knows what it opened"


@SOURCES
def test_notebook_was_run_whole_and_holds_figures(source):
    cells = code(committed(source))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert source.with_suffix(".ipynb").stat().st_size < 2_000_000


@SOURCES
def test_notebook_tells_nothing_of_the_machine(source):
    notebook = committed(source)
    for text in texts(notebook):
        assert not re.search(
            r"(?<![\w.:/])/(home|root|Users|tmp|work|usr|opt|var|mnt)/|[A-Z]:\\\\|ipykernel_\d", text
        ), text
        assert str(TUTORIALS.parent) not in text
        assert sys.prefix not in text
    assert not any("stderr" in output.get("name", "") for cell in code(notebook) for output in cell.outputs)
    assert not any(cell.metadata for cell in notebook.cells), "no timings or editor settings in the cells"


@SOURCES
def test_notebook_teaches_by_the_conventions(source):
    cells = maker.read(source).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    python = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    assert "install" in cells[1].source
    assert len(re.findall(r"^SEED = ", python, re.M)) == 1
    assert re.search(r"slides? \d", prose), "names the deck's slide"
    assert re.search(r"what the deck says", prose, re.I)
    assert re.search(r"^#+ .*exercises", prose, re.I | re.M)
    assert re.search(r"arXiv[: ]\d{4}\.\d{4,5}", prose)


@pytest.fixture(scope="module")
def run():
    """`notebooks.runner` in the tutorials' folder."""
    with notebooks.runner(TUTORIALS) as running:
        yield running


def children():
    """Seconds of the processor that ended processes of this one have taken."""
    return os.times().children_user + os.times().children_system


def check(source, fast, complaints, seconds):
    """What a run here has to share with the committed one. fast: its key numbers."""
    assert not [text for text in complaints if "Error" in text or "Warning" in text], complaints
    full = committed(source).metadata.key_numbers
    assert full, "a tutorial has key numbers"
    assert fast.keys() == full.keys()
    off = {
        name: (fast[name], full[name])
        for name in full
        if not math.isclose(fast[name], full[name], rel_tol=0.01, abs_tol=1e-9)
    }
    assert not off, f"(now, committed): {off}"
    assert seconds < SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("source", maker.sources()[1:], ids=lambda path: path.stem)
def test_source_runs_in_a_fresh_process_and_gives_the_same_numbers(source, run):
    before = source.with_suffix(".ipynb").read_bytes()
    printed, complaints, seconds = run([maker.LISTEN, *programs(source), maker.TELL])
    check(source, json.loads(printed)["key_numbers"], [complaints], seconds)
    assert source.with_suffix(".ipynb").read_bytes() == before


@pytest.mark.slow
def test_the_first_source_runs_in_a_kernel_of_its_own():
    """As `make notebooks` runs them all."""
    source = maker.sources()[0]
    notebook, before = maker.read(source), children()
    complaints = maker.execute(notebook)  # raises where a cell fails
    check(source, notebook.metadata.key_numbers, complaints, children() - before)


# ---- exercises: a stub raises NotImplementedError, and its solution has the same name

STUB = "raise NotImplementedError"
WITH_SOLUTIONS = pytest.mark.parametrize(
    "source", [path for path in maker.sources() if solution_of(path).exists()], ids=lambda path: path.stem
)
MOST_WORDS, MOST_CELLS, FIRST_PICTURE = 80, 45, 8


def functions(program):
    return [node.name for node in ast.parse(program).body if isinstance(node, ast.FunctionDef)]


def stubs(cells):
    return [cell.source for cell in cells if STUB in cell.source]


def test_every_solution_has_its_lesson():
    assert {solution_of(path) for path in maker.sources()} >= set((TUTORIALS / "solutions").glob("*.py"))


@WITH_SOLUTIONS
def test_each_stub_has_a_solution_and_is_left_to_the_reader(source):
    notebook = committed(source)
    asked = [name for stub in stubs(code(notebook)) for name in functions(stub)]
    assert asked == functions(solution_of(source).read_text())
    printed = "\n".join(texts(notebook))
    assert len(asked) >= 2
    assert len(re.findall(r"^exercise \d: to do$", printed, re.M)) == len(asked)


@WITH_SOLUTIONS
def test_text_cells_are_short_and_ask_for_a_prediction(source):
    cells = maker.read(source).cells
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert len(cells) <= MOST_CELLS
    for text in prose:
        words = re.sub(r"\$\$.*?\$\$|\$.*?\$", "x", text, flags=re.DOTALL).replace("|", " ").replace("---", " ").split()
        assert "## References" in text or len(words) <= MOST_WORDS, (len(words), text)
    assert any("Predict before you run" in text for text in prose)


@WITH_SOLUTIONS
def test_a_lesson_has_its_frame_and_an_early_picture(source):
    notebook = committed(source)
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert re.search(r"\*\*In this lesson \(\d+ minutes\)\*\*", notebook.cells[0].source)
    assert "## You can now" in prose
    drawn = [
        k
        for k, cell in enumerate(notebook.cells)
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    assert drawn[0] <= FIRST_PICTURE


@pytest.mark.slow
@WITH_SOLUTIONS
def test_solutions_pass_the_checks_of_their_lesson(source, run):
    """A check that is not met raises AssertionError, which `run` does not let pass."""
    solutions = solution_of(source).read_text()
    run([solutions if STUB in cell else cell for cell in programs(source)])


# ---- the deck: each slide has a section, a control and an exercise

SLIDES = set(range(2, 32))
"""Of the deck, without its title and its list of references."""


def slides_in(prose):
    """The numbers of all slides that a text names: "slide 3", "slides 4, 6 and 9", "slides 26 to 31"."""
    found = set()
    for words in re.findall(r"slides? ((?:\d+(?:, | and | to )?)+)", " ".join(prose.split())):
        found |= {int(number) for number in re.findall(r"\d+", words)}
        for first, last in re.findall(r"(\d+) to (\d+)", words):
            found |= set(range(int(first), int(last) + 1))
    return found


def rows_of_the_deck():
    """(slides, [(lesson, section)], control, (lesson, exercise)) of each row of README's table."""
    text = (TUTORIALS / "README.md").read_text().partition("## The deck, slide by slide")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([\d, ]+) \|[^|]*\|([^|]*)\| ([^|]*) \| (\d\d)\.(\d) \|$", text, re.M)
    for slides, places, control, lesson, number in rows:
        sections = re.findall(r"\[(\d\d) §(\d)\]\((\d\d)_\w+\.ipynb\)", places)
        assert all(lesson == file for lesson, _, file in sections), places
        yield {int(n) for n in slides.split(", ")}, [place[:2] for place in sections], control, (lesson, number)


def test_every_slide_has_a_section_a_control_and_an_exercise():
    sources = {path.stem[:2]: path.read_text().replace("\n# ", " ") for path in maker.sources()}
    texts = {path.stem[:2]: path.read_text() for path in maker.sources()}
    seen = set()
    for slides, sections, control, (lesson, number) in rows_of_the_deck():
        seen |= slides
        assert sections, slides
        for name, section in sections:
            assert re.search(rf"^# ## {section} · ", texts[name], re.M), (name, section)
        lessons = [name for name, _ in sections]
        assert slides <= set().union(*(slides_in(sources[name]) for name in lessons)), (slides, lessons)
        assert any(control in sources[name] for name in lessons), control
        assert re.search(rf"^# \*\*{number}\.", texts[lesson], re.M), (lesson, number)
    assert seen == SLIDES


@SOURCES
def test_pages_of_the_app_are_called_by_their_names(source):
    pages = re.findall(r"^    menu=\"(.+)\",$", "".join(p.read_text() for p in APP.glob("*.py")), re.M)
    assert len(pages) > 5
    for named in re.findall(r"^# In the app: (.*)$", source.read_text(), re.M):
        assert set(re.findall(r"\*(.+?)\*", named)) <= set(pages), (named, pages)


def test_a_failing_cell_is_said_and_the_next_notebook_starts_afresh(run):
    with pytest.raises(notebooks.CellFailedError, match=r"code cell 2:\nraise(.|\n)*broken on purpose"):
        run(["left = 1", "raise RuntimeError('broken on purpose')"])
    with pytest.raises(notebooks.CellFailedError, match="ended with code 3"):
        run(["import os; os._exit(3)"])
    cells = ["import sys, warnings", "print('left' in globals(), 'toydiff' in sys.modules)\nwarnings.warn('odd')"]
    printed, complaints, _ = run(cells)
    assert printed == "False False\n"
    assert "UserWarning: odd" in complaints


def test_unknown_tutorial_is_one_line_and_code_2(capsys):
    assert maker.main(["77"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "77" in error
    assert "01_" in error


@pytest.mark.slow
def test_failing_cell_leaves_the_notebook_as_it_was(tmp_path, monkeypatch, capsys):
    source, kept = tmp_path / "01_broken.py", tmp_path / "01_broken.ipynb"
    source.write_text("# %%\nprint(1)\n\n# %%\nraise RuntimeError('broken on purpose')\n")
    kept.write_text("as it was")
    monkeypatch.setattr(maker, "HERE", tmp_path)
    assert maker.main([]) == 1
    assert kept.read_text() == "as it was"
    assert "broken on purpose" in capsys.readouterr().err
    source.write_text(
        "# %%\nimport os\nfrom toydiff import weights\nweights.read_about('ring-cd')\nprint(os.getcwd())\n"
        "key = {'pi': 3.14159265}\nobject()\n"
    )
    assert maker.main(["01"]) == 0
    notebook = nbformat.read(kept, as_version=4)
    assert str(tmp_path) not in kept.read_text()
    assert "0x" not in "".join(texts(notebook))
    assert notebook.metadata.weights == {"ring-cd": maker.version_of("ring-cd")}
    assert notebook.metadata.key_numbers == {"pi": 3.14159}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["01_broken.ipynb", "01_broken.py"]
