"""The READMEs keep their word: tables are the registries' and the weights', counts are measured, code runs, commands
parse, links lead somewhere."""

import importlib.util
import io
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

import toydiff
from toydiff import weights
from toydiff.catalog import METHODS
from toydiff.cli import command as cli
from toydiff.discrete import SAMPLERS
from toydiff.runs.zoo import RECIPES
from toydiff.solvers import PARALLEL, SOLVERS
from toydiff.studies.parallel_sampling import METHODS as METHODS_COMPARED
from toydiff.studies.parallel_sampling import compare

ROOT = Path(__file__).parent.parent

spec = importlib.util.spec_from_file_location("readme", ROOT / "tutorials" / "readme.py")
make = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make)

READMES = {str(path.parent.relative_to(ROOT)): path.read_text() for path in make.READMES}
"""The text of each, by its folder; the one at the top is "."."""

SD = "toydiff/adapters"
MOST_BYTES, MOST_WORDS, MOST_PICTURES = 10_000, 80, 1_500_000
everywhere = pytest.mark.parametrize("place", READMES)


def section(place, title):
    """From one heading of a README to the next of its kind."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", READMES[place], re.MULTILINE | re.DOTALL)[1]


def named_rows(text):
    """The rows of a table whose first cell is a name: (name, cell, cell, cell)."""
    return re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)


# ---- tables


@everywhere
def test_generated_tables_are_fresh(place):
    """If not: python tutorials/readme.py tables."""
    assert READMES[place] == make.with_tables(READMES[place])


def test_each_generated_table_stands_once():
    text = "\n".join(READMES.values())
    assert sorted(found[1] for found in make.PLACE.findall(text)) == sorted(make.TABLES)
    elsewhere = text.count("<!-- made by tests/benchmarks/deck.py -->")  # in tests/test_findings.py
    assert elsewhere == 1
    assert text.count("<!-- made by") == text.count("<!-- end -->") == len(make.TABLES) + elsewhere


def test_table_of_names_is_the_registry():
    rows = named_rows(section("toydiff/solvers", "Names elsewhere"))
    written = {name: dict(zip(("diffusers", "k-diffusion", "UI"), cells, strict=True)) for name, *cells in rows}
    assert list(written) == list(SOLVERS)
    for name, cells in written.items():
        assert {where: text for where, text in cells.items() if text != "—"} == SOLVERS[name].elsewhere, name


def test_table_of_parallel_samplers_is_the_registry():
    rows = named_rows(READMES["toydiff/solvers/parallel"])
    assert [(name, title, paper) for name, title, _, paper in rows] == [
        (entry.name, entry.title, entry.paper) for entry in PARALLEL.values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "methods"), [(100, METHODS_COMPARED), (1000, ("window",))])
def test_counts_of_parallel_samplers_are_those_of_the_command(steps, methods):
    """Rounds and calls; the seconds are another machine's. A thousand steps of one method tell how old a table is."""
    written = re.findall(
        rf"^\| {steps} \| `([^`]+)` \| (\d+), (\d+) \| (\d+) \| (\d+) \|",
        READMES["toydiff/solvers/parallel"],
        re.MULTILINE,
    )
    keys = ("solver", "rounds_to_target", "rounds_to_target_p95", "rounds", "nfe")
    assert len(written) == len(METHODS_COMPARED)
    rows = [tuple(str(row[key]) for key in keys) for row in compare(steps=(steps,), cost=0, methods=methods)]
    assert rows == [written[METHODS_COMPARED.index(method)] for method in methods]


def test_tables_of_bundled_weights_are_those_of_their_files():
    written = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| (\d+) \| (\d+) \| ([\d.]+) \| (\S+) \| (\d+) \|$",
        READMES["toydiff/distill"] + READMES["toydiff/discrete"],
        re.MULTILINE,
    )
    rows = [
        (id_, weights.read_about(id_), row)
        for id_ in RECIPES
        if id_.startswith(("ring-", "markov-", "grey-"))
        for row in weights.read_about(id_)["rows"]
    ]
    assert written == [
        (
            id_,
            row["solver"],
            str(row["steps"]),
            str(row["nfe"]),
            f"{row['distance'] / row['floor']:.2f}",
            "—" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f}%",
            str(about["updates"]),
        )
        for id_, about, row in rows
    ]


def test_the_table_of_digits_counts_what_a_student_began_with():
    written = re.findall(
        r"^\| `(digits-[^`]+)` \| (\S.*?) \| `(\S+)` \| (\d+) \| (\d+) \| ([\d.]+) ± ([\d.]+)[^|]* \| ([\d.]+) \| "
        r"([\d.]+)% \| ([\d.]+) \| ([\d.]+) \|$",
        READMES["toydiff/distill"],
        re.MULTILINE,
    )
    found = []
    for id_ in RECIPES:
        about = weights.read_about(id_)
        for row in about["rows"] if id_.startswith("digits-") else ():
            found.append((id_, about, row))
    assert [(id_, int(steps), int(nfe)) for id_, _, _, steps, nfe, *_ in written] == [
        (id_, row["steps"], row["nfe"]) for id_, _, row in found
    ]
    for (id_, made_with, *_, distance, _, excess, accuracy, rarest, passes), (_, about, row) in zip(
        written, found, strict=True
    ):
        assert made_with.count("digits-") == len({about["start"], about["teacher"]} - {None, "digits-teacher"}), id_
        assert float(accuracy) == pytest.approx(100 * row["accuracy"], abs=0.051)
        assert float(rarest) == pytest.approx(10 * min(row["fractions"]), abs=0.0051)
        assert float(passes) == pytest.approx(about["passes_in_all"] / 1e6, abs=0.0051)
        mean = float(excess) + row["floor"]
        assert float(distance) == pytest.approx(mean / row["floor"], abs=0.02)
        if not about["repeats"]:
            assert mean == pytest.approx(row["distance"], abs=0.0051)
        before = [weights.read_about(name)["passes"] for name in re.findall(r"digits-[a-z-]+", made_with)]
        assert about["passes_in_all"] >= about["passes"] + max(before, default=0), id_


def test_every_method_has_one_number():
    """That of one row of its first weights' file, and no other row is better."""
    written = re.findall(
        r"^\| `([^`]+)` \| (.*) \| (.*) \| (\d+) \| ([\d.]+) \| ([\d.]+) \|$", READMES["."], re.MULTILINE
    )
    assert [row[:3] for row in written] == [
        (card.id, card.title, card.paper) for card in METHODS.values() if not card.only
    ]
    for method, _, _, nfe, distance, floor in written:
        [id_, *_] = [i for i, recipe in RECIPES.items() if i.startswith("digits") and recipe.method == method]
        rows = [(row["distance"], row["nfe"], row["floor"]) for row in weights.read_about(id_)["rows"]]
        best = min(rows)
        assert (distance, nfe, floor) == (f"{best[0]:.2f}", str(best[1]), f"{best[2]:.2f}"), method


def test_the_table_of_grids_is_whole(monkeypatch):
    """A new grid needs a row: without one there is no table."""
    written = re.findall(r"^\| `([^`=]+)` \| .* \| .* \|$", section("toydiff/solvers", "Time grids"), re.MULTILINE)
    assert written == list(toydiff.GRIDS)
    monkeypatch.setitem(toydiff.GRIDS, "a new one", "uniform in nothing")
    with pytest.raises(KeyError):
        make.with_tables(READMES["toydiff/solvers"])


# ---- words

WORDS = re.compile(r"\b(?:CFG|EDM|EMA|LoRA|NFE|NSR|PF-ODE|SDS|knobs?|zoo)\b")
GLOSSARY = "tutorials"


@pytest.mark.parametrize(
    "word", ["CFG", "EDM", "EMA", "LoRA", "NFE", "PF-ODE", "SDS", "card", "entry", "knob", "run", "zoo"]
)
def test_the_glossary_explains(word):
    assert re.search(rf"^\| (?:.*, )?{word}(?:, .*)? \| .+ \|$", section(GLOSSARY, "Words"), re.MULTILINE)


@everywhere
def test_who_uses_the_glossarys_words_links_to_it(place):
    text = re.sub(r"```.*?```|`[^`]+`", "", READMES[place], flags=re.DOTALL)
    if WORDS.search(text) and place not in (GLOSSARY, SD):  # the guide to checkpoints explains its own
        assert "tutorials/README.md#words)" in text


# ---- code


def of_minute(first):
    """The lesson: the same ten calls, far closer."""
    (fast_nfe, fast_error), (slow_nfe, slow_error) = first
    assert fast_nfe == slow_nfe == "10"
    assert float(fast_error) < 0.2 * float(slow_error)


def of_parallel(lines):
    """The same path in a fraction of the rounds, for more calls."""
    [(walk_rounds, rounds, nfe, error)] = lines
    assert walk_rounds == "100"
    assert int(rounds) < 20
    assert int(nfe) > 200
    assert float(error) < 1e-3


def of_training(lines):
    """A run of 300 updates, and one bundled student in one step."""
    [(step, loss), (distance,)] = lines
    assert step == "300"
    assert 0 < float(loss) < 1.5  # that of a network which predicts nothing is about 1.6
    assert 0 < float(distance) < 0.2


def of_method(lines):
    """One value of a method's pure loss."""
    [(loss,)] = lines
    assert 0 < float(loss) < 1


def of_tokens(lines):
    """The mismatch of each sampler after 8 steps: that of exact jumps is 1/16."""
    found = {name: float(mismatch) for name, mismatch in lines}
    assert list(found) == list(SAMPLERS)
    assert found["jump-exact"] == pytest.approx(1 / 16, abs=1e-6)
    assert found["tau-midpoint"] < found["jump-exact"] < found["jump-euler"]


def of_figures(lines):
    """A file with two panels, and a page with plotly inside."""
    [(file, page)] = lines
    assert int(file) > 50_000
    assert int(page) > 3_000_000


def of_edm(lines):
    # a network that predicts 0 is the exact F of data at 0 with the standard deviation 0.5
    [[std]] = lines
    assert 0.4 < float(std) < 0.6


def of_guided(lines):
    """The table above it, at g = 7.5 in 5 steps: median and root mean square of each solver on a grid."""
    text = READMES["toydiff/solvers"]
    table = text[text.index("| g = 3, 5 steps |") :]
    for solver, grid, median, rms in lines:
        [row] = re.findall(rf"^\| `{re.escape(solver)}` \| `{grid}` \|(.*)\|$", table, re.MULTILINE)
        written = [float(number) for number in row.split("|")[2].split(",")]
        assert [float(median), float(rms)] == pytest.approx(written, rel=0.06)
    assert len(lines) == 5


CHECKS = {
    (".", 0): of_minute,
    ("toydiff/solvers", 0): of_edm,
    ("toydiff/solvers", 1): of_guided,
    ("toydiff/solvers/parallel", 0): of_parallel,
    ("toydiff/discrete", 0): of_tokens,
    ("toydiff/distill", 0): of_training,
    ("toydiff/distill", 1): of_method,
    ("toydiff/plots", 0): of_figures,
}
"""What is required of what a block prints, by its README and number; the one of a checkpoint has a test of its own."""


def blocks(place, language="python"):
    return re.findall(rf"```{language}\n(.*?)```", READMES[place], re.DOTALL)


def printed(block, capsys):
    """What a block of a README prints: the words of each line, tensors as their numbers."""
    exec(block, {})
    return [re.sub(r"tensor\(([^,)]*).*\)", r"\1", line).split() for line in capsys.readouterr().out.splitlines()]


def test_every_python_block_is_run():
    found = {(place, k) for place in READMES for k in range(len(blocks(place)))}
    assert found == {*CHECKS, (SD, 0)}


@pytest.mark.slow
@pytest.mark.parametrize(("place", "k"), CHECKS)
def test_python_blocks_run(place, k, capsys):
    CHECKS[place, k](printed(blocks(place)[k], capsys))


@pytest.mark.slow
def test_the_python_of_a_checkpoint_runs(checkpoints):
    [block] = blocks(SD)
    block = block.replace('"path/to/checkpoint"', repr(checkpoints["sd"])).replace(
        '.to("cuda", "float16")', '.to("cpu", "float32")'
    )
    found = {}
    exec(block, found)
    assert found["made"].images.shape == (1, 3, 16, 16)
    assert found["made"].trajectory.nfe == 40


# ---- commands


def command_lines(place):
    """The `toydiff` lines of a README's blocks, without their remarks."""
    text = "\n".join(blocks(place, "sh"))
    return [re.sub(r"\s+#.*", "", line) for line in text.splitlines() if line.startswith("toydiff ")]


def parsed(line):
    """The arguments of a command line, options in brackets and the words that stand for something filled in."""
    line = re.sub(r"[\[\]]", "", line).replace("$MODEL", "tiny-sd").replace("--port N", "--port 8501")
    return cli.parse(shlex.split(line)[1:])


@everywhere
def test_command_lines_parse(place):
    assert len(command_lines(place)) >= {".": 10, "toydiff/distill": 5, SD: 6, "app": 1}.get(place, 0)
    for line in command_lines(place):
        parsed(line)
    # every such line stands in a block of shell, where it is found
    outside = re.sub(r"```sh\n.*?```", "", READMES[place], flags=re.DOTALL)
    assert not re.search(r"^(\$ )?toydiff ", outside, re.MULTILINE)


@everywhere
def test_commands_in_sentences_are_right(place):
    """`toydiff WORD` names a command; with more words, it parses."""
    text = re.sub(r"```.*?```", "", READMES[place], flags=re.DOTALL)
    for words in map(shlex.split, re.findall(r"`(toydiff [^`]+)`", text)):
        if "$ON" in words:
            continue  # a row of the deck's table, below
        assert words[1] in cli.COMMANDS, words
        if len(words) > 2:
            parsed(shlex.join(words))


def test_the_commands_on_checkpoints_are_right():
    assert len(command_lines(SD)) >= 6
    rows = re.findall(r"^\| [^|]+ \| (`.*`) \|$", READMES[SD], re.MULTILINE)
    on = "--problem sd --model tiny-sd --device cuda"
    commands = [
        command
        for row in rows
        for command in re.findall(r"`([^`]+)`", row)
        if "toydiff" in command or "$TRAIN" in command
    ]
    assert len(commands) >= 9
    for command in commands:
        words = shlex.split(command.replace("$TRAIN", "toydiff train").replace("$ON", on))
        if words[1] in ("pairs", "sample", "train") and "--out" not in words:
            words += ["--out", "x.png"]
        cli.parse(words[1:])


@everywhere
def test_files_and_targets_that_are_named_exist(place):
    text = READMES[place]
    for file in re.findall(r"(?:python |`)((?:tests|tutorials|toydiff|app)/[\w/.]+\w)", text):
        assert (ROOT / file).exists(), file
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for target in re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE):
        assert target in targets, target


# ---- what a reader sees


def test_the_list_of_readmes_is_whole():
    found = {ROOT / "README.md"}
    for room in ("app", "tests", "toydiff", "tutorials"):
        for folder, rooms, files in os.walk(ROOT / room):
            rooms[:] = [name for name in rooms if not name.startswith((".", "_"))]
            found |= {Path(folder) / name for name in files if name == "README.md"}
    assert found == {path.resolve() for path in make.READMES}


def test_the_first_page_is_short():
    assert len(READMES["."].encode()) <= MOST_BYTES


@everywhere
def test_paragraphs_are_short(place):
    text = re.sub(r"```.*?```|<!--.*?-->", "", READMES[place], flags=re.DOTALL)
    for paragraph in re.split(r"\n\s*\n|\n(?=- |\d+\. |\|)", text):
        if not paragraph.lstrip().startswith("|"):
            assert len(paragraph.split()) <= MOST_WORDS, paragraph


def anchors(text):
    """The places in a page that a link can name, as code hosts call them."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}


@everywhere
def test_links_lead_somewhere(place):
    for target in re.findall(r"\]\(([^)\s]+)\)", READMES[place]):
        file, _, anchor = target.partition("#")
        path = (ROOT / place / (file or "README.md")).resolve()
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path.read_text()), target


def test_every_page_is_reached_from_the_first_one():
    linked = {
        (ROOT / target.partition("#")[0]).resolve()
        for target in re.findall(r"\]\(([^)\s]*README\.md[^)\s]*)\)", READMES["."])
    }
    assert linked | {ROOT.resolve() / "README.md"} == {path.resolve() for path in make.READMES}


# ---- pictures


def test_pictures_are_shown_with_words_and_are_small():
    from PIL import Image

    shown = {
        (ROOT / place / file).resolve(): words
        for place, text in READMES.items()
        for words, file in re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", text)
    }
    assert set(shown) == set((ROOT / "tutorials" / "pictures").iterdir())
    assert all(len(words.split()) >= 10 for words in shown.values())
    assert sum(file.stat().st_size for file in shown) <= MOST_PICTURES
    for file in shown:
        with Image.open(file) as image:
            assert image.width == make.WIDTH
            assert getattr(image, "n_frames", 1) > 20 or file.suffix != ".gif"


@pytest.mark.slow
def test_the_animation_is_made_of_its_frames():
    from PIL import Image

    image = Image.open(io.BytesIO(make.animation(make.flow(steps=2, between=1, hold=1, samples=3))))
    assert image.format == "GIF"
    assert image.info["loop"] == 0
    durations = []
    for k in range(image.n_frames):
        image.seek(k)
        durations.append(image.info["duration"])
    # two frames on the way, then rest: equal frames are one
    assert durations[:2] == [90] * 2
    assert sum(durations) == 90 * 4


@pytest.mark.slow
def test_captions_of_pages_say_what_they_measure():
    """The pictures are pages as they open, and a guess on that of orders: the captions' numbers are these pages'."""
    pytest.importorskip("streamlit")
    sys.path.insert(0, str(ROOT / "app"))
    from lessons import LESSONS

    text, rows = READMES["."], {}
    for address in make.SITE.values():
        [lesson] = [one for one in LESSONS if f"{one.id}.html" == address.partition("?")[0]]
        given = dict(re.findall(r"[#&](\w+)=(\w+)", address))
        values = {c.name: c.value(c.read([given[c.name]]) if c.name in given else c.default) for c in lesson.controls}
        _, rows[lesson.id] = lesson.figure(**values)
    for row in rows["orders"]:
        assert f"{row['measured']:.2f} for `{row['solver']}`" in text
    T, last = rows["picard"][0]["T"], rows["picard"][-1]
    [near] = [row for row in rows["picard"] if row["on_show"]]
    assert f"all {T} steps improve together: after {near['rounds']} rounds" in text
    assert near["median_error"] <= 0.01
    assert f"{last['rounds']} rounds, not {T}, bring all points to 1e-8" in text
    before, once, twice = (f"{row['one_step_error']:.2g}" for row in rows["reflow"])
    assert f"ends {before} from the flow's own end before, {once} after one round and {twice} after two" in text
