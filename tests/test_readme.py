"""The README keeps its word: its tables of names are the registries', its counts are measured, and its code runs."""

import re
import shlex
from pathlib import Path

import pytest

from toydiff import cli, weights
from toydiff.parallel import compare
from toydiff.solvers import PARALLEL, SOLVERS
from toydiff.zoo import RECIPES

README = (Path(__file__).parent.parent / "README.md").read_text()


def section(title):
    """From one heading to the next of its kind."""
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]


def named_rows(title):
    """The rows of a section's table whose first cell is a name: (name, cell, cell, cell)."""
    return re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \| (.*) \|$", section(title), re.MULTILINE)


def test_table_of_names_is_the_registry():
    rows = named_rows("Names elsewhere")
    written = {name: dict(zip(("diffusers", "k-diffusion", "UI"), cells, strict=True)) for name, *cells in rows}
    assert list(written) == list(SOLVERS)
    for name, cells in written.items():
        assert {where: text for where, text in cells.items() if text != "—"} == SOLVERS[name].elsewhere, name


def test_table_of_parallel_samplers_is_the_registry():
    rows = named_rows("Parallel sampling")
    assert [(name, title, paper) for name, title, _, paper in rows] == [
        (entry.name, entry.title, entry.paper) for entry in PARALLEL.values()
    ]


@pytest.mark.slow
@pytest.mark.parametrize("steps", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_counts_of_parallel_samplers_are_those_of_the_command(steps):
    """Rounds and calls; the seconds are another machine's."""
    written = re.findall(
        rf"^\| {steps} \| `([^`]+)` \| (\d+), (\d+) \| (\d+) \| (\d+) \|", section("Parallel sampling"), re.MULTILINE
    )
    keys = ("solver", "rounds_to_goal", "rounds_to_goal_p95", "rounds", "nfe")
    assert written == [tuple(str(row[key]) for key in keys) for row in compare(steps=(steps,), cost=0)]


def test_tables_of_bundled_weights_are_those_of_their_files():
    written = re.findall(
        r"^\| `([^`]+)` \| `([^`]+)` \| (\d+) \| (\d+) \| ([\d.]+) \| (\S+) \| (\d+) \|$",
        section("Training and distillation"),
        re.MULTILINE,
    )
    rows = [(id_, weights.read_about(id_), row) for id_ in RECIPES for row in weights.read_about(id_)["rows"]]
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


def blocks():
    return re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def printed(block, capsys):
    """What a block of the README prints: the words of each line, tensors as their numbers."""
    exec(block, {})
    return [re.sub(r"tensor\(([^,)]*).*\)", r"\1", line).split() for line in capsys.readouterr().out.splitlines()]


def test_python_blocks_run(capsys):
    first, parallel, training, method, _ = blocks()
    (fast_nfe, fast_error), (slow_nfe, slow_error) = printed(first, capsys)
    # the example's lesson: the same ten calls, far closer
    assert fast_nfe == slow_nfe == "10"
    assert float(fast_error) < 0.2 * float(slow_error)
    # the second: the same path in a fraction of the rounds, for more calls
    [(walk_rounds, rounds, nfe, error)] = printed(parallel, capsys)
    assert walk_rounds == "100"
    assert int(rounds) < 20
    assert int(nfe) > 200
    assert float(error) < 1e-3
    # the third: a run of 300 updates, and one bundled student in one step
    [(step, loss), (distance,)] = printed(training, capsys)
    assert step == "300"
    assert 0 < float(loss) < 1.5  # that of a network which predicts nothing is about 1.6
    assert 0 < float(distance) < 0.2
    # the fourth: one value of a method's pure loss
    [(loss,)] = printed(method, capsys)
    assert 0 < float(loss) < 1


def test_the_python_of_a_checkpoint_runs(checkpoints):
    *_, block = blocks()
    block = block.replace('"path/to/checkpoint"', repr(checkpoints["sd"])).replace(
        '.to("cuda", "float16")', '.to("cpu", "float32")'
    )
    found = {}
    exec(block, found)
    assert found["made"].images.shape == (1, 3, 16, 16)
    assert found["made"].trajectory.nfe == 40


def test_the_commands_on_checkpoints_are_right():
    lines = re.findall(r"^(toydiff .*?)(?:  +#.*)?$", section("Stable Diffusion"), re.MULTILINE)
    assert len(lines) >= 6
    for line in lines:
        cli.parse(shlex.split(line.replace("$MODEL", "tiny-sd"))[1:])
    rows = re.findall(r"^\| [^|]+ \| (`.*`) \|$", section("Stable Diffusion"), re.MULTILINE)
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
