"""The first seconds of the command: help and wrong words import nothing heavy, and Ctrl-C is one line."""

import ast
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import toydiff
from toydiff.cli import command as cli
from toydiff.grids import DEFAULT_GRID
from toydiff.solvers import DEFAULT_SOLVER
from toydiff.studies.orders import DEFAULT_SCHEDULES
from toydiff.studies.parallel_sampling import DEFAULT_STEPS, METHODS


def python(program, *words, **environment):
    return subprocess.run(
        [sys.executable, "-c", program, *words],
        capture_output=True,
        text=True,
        env=os.environ | environment,
        timeout=60,
    )


def test_lazy_names_are_those_that_type_checkers_see():
    body = ast.parse(Path(toydiff.__file__).read_text()).body
    [block] = [
        node.body for node in body if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
    ]
    seen = {node.module: tuple(alias.name for alias in node.names) for node in block}
    assert seen.pop(None) == ("mixtures",)
    assert seen == toydiff._NAMES
    assert sorted(toydiff.__all__) == sorted([*sum(seen.values(), ()), "mixtures"])
    assert set(toydiff.__all__) <= set(dir(toydiff))


@pytest.mark.slow
def test_lazy_names_are_what_they_were():
    program = """
import pickle, sys
import toydiff
assert "torch" not in sys.modules
assert toydiff.mixtures.ring is toydiff.MIXTURES["ring"]        # a module, and a name, by attribute
assert toydiff.measure.modes                                    # a module that nothing has imported yet
import toydiff.solvers, toydiff.schedules as schedules
from toydiff import *
assert VP is toydiff.VP is schedules.VP and solve is toydiff.solvers.solve and toydiff.mixture is mixture
assert type(pickle.loads(pickle.dumps(Linear()))) is toydiff.Linear
"""
    done = python(program)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("sovle", "_private", "nothing.here"):
        with pytest.raises(AttributeError, match=f"module 'toydiff' has no attribute '{name}'"):
            getattr(toydiff, name)
    assert not hasattr(toydiff, "__wrapped__")  # tools ask for such names
    with pytest.raises(ImportError, match="cannot import name 'sovle' from 'toydiff'"):
        exec("from toydiff import sovle")
    assert pickle.loads(pickle.dumps(toydiff.mixture)) is toydiff.mixture


def test_help_and_wrong_words_import_nothing_heavy():
    lines = ["", "--help", "--version", "smaple", "--nothing", "sample --stesp 3 --out a.png", "zoo -x"]
    lines += ["sample --steps x --out a.png", "sample --out no/such/folder/../\0/a.png"]
    lines += [f"{name} --help" for name in cli.COMMANDS]
    program = f"""
import contextlib, io, sys
from toydiff.cli import main
for line in {lines}:
    silent = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with silent[0], silent[1], contextlib.suppress(SystemExit):
        assert main(line.split()) == 2, line
    assert not {{"torch", "numpy", "scipy", "streamlit"}} & set(sys.modules), line
"""
    done = python(program)
    assert (done.returncode, done.stderr) == (0, "")


def test_defaults_on_the_pages_of_help_are_true(capsys):
    def page(name):
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        return " ".join(capsys.readouterr().out.split())

    assert f"(default: {DEFAULT_SOLVER}; of a RUN" in page("sample")
    assert f"(default: {DEFAULT_GRID}; of a RUN" in page("sample")
    assert f"(default: {' '.join(DEFAULT_SCHEDULES)})" in page("convergence")
    assert f"(default: {' '.join(map(str, DEFAULT_STEPS))})" in page("parallel")
    assert f"(default: {' '.join(METHODS)})" in page("parallel")


def test_the_command_stands_first(capsys):
    for words in (["--", "methods"], ["--"], ["-5", "sample"]):
        assert cli.main(words) == 2
        assert capsys.readouterr().err.count("\n") == 1


SLOW = "import time; print('importing', flush=True); time.sleep(30)"


SWALLOWED = f"""
try:
    {SLOW}
except:
    pass
import time
time.sleep(30)
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    "torch", [SLOW, f"exec({SLOW!r})", SWALLOWED], ids=["import", "exec in an import", "swallowed"]
)
def test_interrupt_while_torch_is_imported(tmp_path, torch, rank):
    """Of several processes, here of Open MPI, the first one speaks.

    Libraries catch everything while they are imported; and an interrupt inside an `exec` of text makes Python end by
    the signal, whoever catches it.
    """
    (tmp_path / "torch.py").write_text(torch)
    path = os.pathsep.join([str(tmp_path), str(Path(toydiff.__file__).parent.parent)])
    process = subprocess.Popen(
        [sys.executable, "-m", "toydiff", "sample", "--out", str(tmp_path / "a.png")],
        env=os.environ | {"PYTHONPATH": path, "OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": str(rank)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "" if rank else "toydiff: interrupted\n")
    assert os.listdir(tmp_path) == ["torch.py"] or sorted(os.listdir(tmp_path)) == ["__pycache__", "torch.py"]
