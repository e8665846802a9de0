"""Generated command lines end in one line and exit code 2, or in a result: no traceback, no hang, no half a file."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import warnings

import pytest

from toydiff import cli

LIMIT = 60
"""Seconds for one command."""

NUMBERS = [
    "0",
    "1",
    "2",
    "3",
    "-1",
    "1.5",
    "1e3",
    "nan",
    "inf",
    "-inf",
    "1e400",
    "",
    " ",
    "x",
    "None",
    "none",
    "True",
    "0x10",
    "1_0",
    "٣",
    "²",
    "99999999999999999999",
    "-99999999999999999999",
    "9" * 5000,
    "1,2",
    "1:2",
    "4\n",
    "1e-320",
]
NAMES = [
    "",
    " ",
    "None",
    "ring",
    "RING",
    "rnig",
    "ring ",
    "ring\n",
    "x" * 5000,
    "é",
    "\udcff\udcfe",
    "a\x1b[31mb",
    "--",
    "-",
    "*",
    "../..",
    "random",
    "mixture",
    ":",
    "::",
    "mixture:",
    ":ring",
    "a:b:c",
    "%s%d%n",
    "{}",
    "{0.__class__}",
    "os:system",
    "toydiff:solve",
    "0",
    "'",
    '"',
]
PLACES = [
    "",
    ".",
    "..",
    "/proc",
    "~",
    "loop",
    "loop/a.png",
    "dangling",
    "file",
    "file/a.png",
    "folder",
    "folder.png",
    "folder.npz",
    "empty.json",
    "pairs",
    "run",
    "cut",
    "old.png",
    "old.json",
    "n" * 300,
    "n" * 5000,
    "a\0b",
    "new\nline.png",
    "\udcff.npz",
    "no/such/a.png",
    "/proc/x/a.png",
    "/dev/null",
    "/proc/self/mem",
    "/proc/1/cwd/a",
    "-",
    "é ü.npz",
    "a.PNG",
    ".png",
    "noise.safetensors",
    "a/../b.png",
    "text.npy",
]
SPECS = [
    "ddim",
    "heun",
    "euler",
    "ddpm",
    "dpm3",
    "picard",
    "picard:window=2",
    "picard:window=2,tolerance=none",
    "picard:window=0",
    "picard:window=-1",
    "picard:window=1e9",
    "picard:window=99999999999999999999",
    "picard:tolerance=nan",
    "picard:tolerance=-1",
    "picard:sweeps=0",
    "picard:",
    "picard:,",
    "picard:=",
    "picard:window",
    "picard:window=2,window=3",
    "picard:solver=heun",
    "picard:solver=ddpm",
    "picard:solver=picard",
    "picard:solver=",
    "anderson",
    "anderson:memory=0",
    "anderson:memory=-3",
    "anderson:history=2",
    "broyden:window=3",
    "parareal",
    "parareal:fine=heun",
    "parareal:fine=none",
    "parareal:blocks=0",
    "parareal:blocks=99999",
    "parareal:coarse=picard",
    "ddim:eta=1",
    "ddim:eta=nan",
    "ddim:eta=-1",
    "ddim:eta=1e308",
    "ddim:eta=" + "9" * 400,
    "ddim:et=1",
    "heun:eta=1",
    "dpm3:order=9",
    "unipc2:order=0",
    "deis:order=3",
    ":",
    "ddim:",
    "ddim::",
    "ddim:eta=1:eta=2",
    "ddpm:variance=lrge",
    "ddpm:variance=large",
    "picard: window = 2",
    "PICARD",
    "picard:window=2.0",
    "picard:window=True",
    "learned",
    "learned:",
    "learned:rnig",
    "learned:old.json",
    "learned:empty.json",
    "learned:folder",
    "learned:/dev/zero",
    "picard:solver=learned:old.json",
]
GRIDS = [
    "uniform",
    "lambda",
    "karras",
    "trailing",
    "leading",
    "linspace",
    "lcm",
    "shifted-lambda",
    "lamda",
    "karras:rho=3",
    "karras:rho=0",
    "uniform:",
    "uniform:x=1",
    "0",
    "1,0.5,0",
]
SCHEDULES = [
    "vp",
    "cosine",
    "linear",
    "ve",
    "scaled-linear",
    "piecewise",
    "os:system",
    "toydiff:VP",
    "toydiff.schedules:VP",
    "no.such:Thing",
    "cases:ALL",
    "sys:path",
    ".:x",
    "toydiff:",
    ":VP",
    "json:dumps",
    "vp:beta=1",
    "toydiff:Tabulated",
    "builtins:list",
    "builtins:print",
]
PROBLEMS = [
    "mixture",
    "mixture:ring",
    "mixture:two-moons",
    "mixture:0,0,1,1",
    "mixture:0.5,0.5",
    "mixture:random",
    "mixture:random:7",
    "mixture:folder",
    "points:spiral",
    "points:",
    "points:no",
    "file:text.npy",
    "file:folder",
    "file:",
    "sd",
    "sd:",
    "sd:folder",
    "sd:file",
    "sd:no/such",
    "digits:mnist",
    "digit",
]
KNOBS = [
    "updates=2",
    "batch=4",
    "lr=nan",
    "lr=inf",
    "lr=-1",
    "lr=1e30",
    "lr=0",
    "batch=0",
    "batch=99999999999999999999",
    "updates=1.5",
    "edge=1",
    "edge=2",
    "ema=1",
    "ema=-1",
    "width=0",
    "width=99999999999999999999",
    "depth=-1",
    "hidden=1e9",
    "x",
    "=",
    "=1",
    "x=",
    "lr",
    "lr==1",
    "warmup=-1",
    "loss=x",
    "rank=99999999999999999999",
    "target=",
    "steps=0",
    "steps=1,2",
    "steps=none",
    "phases=0",
    "k=0",
    "weighting=\udcff",
]
METHODS = [
    "diffusion",
    "flow-matching",
    "cd",
    "ct",
    "naive",
    "rectified-flow",
    "dmd",
    "pcm",
    "lcm",
    "progressive",
    "guided",
    "no",
    "",
    "Diffusion",
]
HERE = ["--json", "{place}"], ["--json", "-"], ["--seed", "{number}"]
MODEL = [
    ["--model", "{place}"],
    ["--config", "{place}"],
    ["--lora", "{place}"],
    ["--unet", "{place}"],
    ["--vae", "{place}"],
    ["--size", "{number}"],
    ["--size", "8x{number}"],
    ["--at-once", "{number}"],
    ["--dtype", "{name}"],
    ["--local-only"],
    ["--cut-prompts"],
    ["--unsafe-weights"],
]
TRAINING = [["--prompts", "{place}"], ["--data", "{place}"], ["--rank", "{number}"], ["--full"], ["--cache", "{place}"]]
COMMANDS = {
    # what is needed, so that a run takes little; what may be given; and whether one word has to be wrong
    "demo": ([], [["--out", "{place}"]], True),
    "methods": ([], [["--json", "{place}"]], False),
    "convergence": (
        ["--solver", "ddim", "--schedule", "{schedule}"],
        [*HERE, ["--mixture", "{name}"], ["--solver", "{spec}"]],
        True,
    ),
    "parallel": (
        ["--steps", "4", "--samples", "4", "--method", "picard"],
        [
            *HERE,
            ["--steps", "{number}"],
            ["--method", "{spec}", "{name}"],
            ["--mixture", "{name}"],
            ["--schedule", "{schedule}"],
            ["--grid", "{grid}"],
            ["--samples", "{number}"],
            ["--tolerance", "{number}"],
            ["--window", "{number}"],
            ["--cost", "{number}"],
        ],
        False,
    ),
    "sample": (
        ["--n", "8", "--steps", "3", "--out", "a.npz"],
        [
            *HERE,
            ["{run}"],
            ["--mixture", "{name}"],
            ["--schedule", "{schedule}"],
            ["--solver", "{spec}"],
            ["--solver", "{spec}"],
            ["--grid", "{grid}"],
            ["--steps", "{number}"],
            ["--n", "{number}"],
            ["--guidance-scale", "{number}"],
            ["--label", "{number}"],
            ["--out", "{place}"],
            ["--device", "{name}"],
            ["--problem", "{problem}"],
            ["--prompt", "{name}"],
            ["--negative-prompt", "{name}"],
            ["--round-timesteps"],
            *MODEL,
        ],
        False,
    ),
    "train": (
        ["{method}", "--problem", "{problem}", "--updates", "2", "--batch", "4", "--out", "new"],
        [
            *HERE,
            ["--set", "{knob}"],
            ["--set", "{knob}"],
            ["--out", "{place}"],
            ["--teacher", "{run}"],
            ["--start", "{run}"],
            ["--pairs", "{place}"],
            ["--resume"],
            ["--every", "{number}"],
            ["--watch", "{number}"],
            ["--patience", "{number}"],
            ["--accumulate", "{number}"],
            ["--device", "{name}"],
            ["--lr", "{number}"],
            ["--mixed-precision", "{name}"],
            ["--batch", "{number}"],
            ["--updates", "1.5"],
            *MODEL,
            *TRAINING,
        ],
        False,
    ),
    "pairs": (
        ["--problem", "{problem}", "--n", "8", "--steps", "2", "--out", "new"],
        [
            *HERE,
            ["--teacher", "{run}"],
            ["--n", "{number}"],
            ["--solver", "{spec}"],
            ["--grid", "{grid}"],
            ["--steps", "{number}"],
            ["--guidance-scale", "{number}"],
            ["--out", "{place}"],
            ["--device", "{name}"],
            *MODEL,
            *TRAINING,
        ],
        False,
    ),
    "evaluate": (
        ["{run}", "--n", "20", "--steps", "1,2"],
        [
            *HERE,
            ["--steps", "{number}"],
            ["--steps", "1,{number}"],
            ["--n", "{number}"],
            ["--solver", "{spec}"],
            ["--grid", "{grid}"],
            ["--guidance-scale", "{number}"],
            ["--device", "{name}"],
        ],
        False,
    ),
    "learn-solver": (
        ["{run}", "--steps", "2", "--n", "4", "--truth-steps", "3", "--seconds", "0.2", "--out", "new.json"],
        [
            *HERE,
            ["--problem", "{problem}"],
            ["--steps", "{number}"],
            ["--guidance-scale", "{number}"],
            ["--solver", "{spec}"],
            ["--times-only"],
            ["--n", "{number}"],
            ["--truth-steps", "{number}"],
            ["--seconds", "{number}"],
            ["--out", "{place}"],
            ["--device", "{name}"],
            *MODEL,
            *TRAINING,
        ],
        False,
    ),
    "export": (["{run}", "--out", "new"], [["--out", "{place}"], ["--whole"], ["--json", "{place}"]], False),
    "doctor": (["--model", "{place}"], [["--config", "{place}"], ["--json", "{place}"]], False),
    "zoo": (
        [],
        [["build", "{name}"], ["{name}"], ["--work", "{place}"], ["--out", "{place}"], ["--json", "{place}"]],
        False,
    ),
    "app": ([], [["--port", "{number}"], ["--host", "{name}"]], True),
    "site": (["--out", "{place}"], [["--pages", "{name}"]], True),
}
POOLS = {
    "number": NUMBERS,
    "name": NAMES,
    "place": PLACES,
    "spec": SPECS,
    "grid": GRIDS,
    "schedule": SCHEDULES,
    "problem": PROBLEMS,
    "knob": KNOBS,
    "method": METHODS,
    "run": [*PLACES, "run", "run", "run", "ring-cd", "ring-cd", "digits-cd", "rnig-cd"],
}
WRONG = ["--stesp", "-x", "extra", "--help=1", "---"]
FITTING = {
    "method": METHODS[:11],
    "problem": ["mixture", "mixture", "mixture:spirals"],
    "run": ["run", "run", "ring-cd"],
}
MISTAKES = [*WRONG, "--out", "--", "", "--json=", "-h=", "-1", "@file", "--n"]


def lines(seed, count):
    """Command lines, each a list of words: a command with what it needs, some options with odd values, sometimes a
    mistake of typing."""
    rng = random.Random(seed)

    def value(pool):  # of what is needed, mostly one that fits: a mistake hides the others
        return rng.choice(POOLS[pool]) if pool not in FITTING or rng.random() < 0.3 else rng.choice(FITTING[pool])

    for _ in range(count):
        name = rng.choices(list(COMMANDS), [1, 1, 1, 3, 5, 5, 4, 5, 4, 1, 2, 1, 1, 1])[0]
        needed, options, wrong = COMMANDS[name]
        words = [value(w[1:-1]) if w.startswith("{") else w for w in needed]
        for option in rng.sample(options, min(len(options), rng.choice([0, 1, 1, 1, 1, 2]))):
            said = [rng.choice(POOLS[w[w.index("{") + 1 : -1]]) if "{" in w else w for w in option]
            said = [
                w.replace("{number}", v) if w.startswith(("1,{", "8x{")) else v
                for w, v in zip(option, said, strict=True)
            ]
            words += (
                [f"{said[0]}={said[1]}"] if len(said) == 2 and said[0].startswith("-") and rng.random() < 0.3 else said
            )
        if wrong or rng.random() < 0.05:
            words.insert(rng.randint(0, len(words)), rng.choice(WRONG if wrong else MISTAKES))
        if rng.random() < 0.03 and words and name in ("sample", "train", "pairs", "evaluate", "parallel"):
            del words[rng.randrange(len(words))]
        yield [name if rng.random() < 0.98 else rng.choice(NAMES), *words]


class TooLong(BaseException):
    """Passes every `except Exception`."""


def furnish(folder):
    """Fill a folder with files and folders that a command line may name."""
    here = folder / "here"
    here.mkdir()
    (here / "loop").symlink_to("loop")
    (here / "dangling").symlink_to("nowhere/at/all")
    for name in ("folder", "folder.png", "folder.npz", "cut", "pairs"):
        (here / name).mkdir()
    for name, text in {
        "file": "x\n",
        "empty.json": "",
        "old.json": "{}",
        "old.png": "old",
        "text.npy": "no array",
        "noise.safetensors": "\x01" * 64,
    }.items():
        (here / name).write_text(text)
    (here / "cut" / "run.json").write_text('{"version": 1, "method": "cd"')
    (here / "pairs" / "pairs.json").write_text("[]")
    os.chdir(here)
    assert (
        cli.main(
            [
                "train",
                "flow-matching",
                "--problem",
                "mixture",
                "--updates",
                "2",
                "--batch",
                "8",
                "--every",
                "1",
                "--out",
                "run",
            ]
        )
        == 0
    )


def written():
    """{path: (size, time of change)} of all that the folder holds."""
    found = {}
    for folder, _, names in os.walk("."):
        found[folder] = ()
        for name in names:
            stat = os.lstat(os.path.join(folder, name))
            found[os.path.join(folder, name)] = stat.st_size, stat.st_mtime_ns
    return found


def fault_of(words):
    """What is wrong with how the command answers these words; None where nothing is."""
    before, out, err = written(), io.StringIO(), io.StringIO()

    def late(*_):
        raise TooLong

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            code = cli.main(words)
    except SystemExit as exit_:
        code = exit_.code
    except TooLong:
        return f"takes more than {LIMIT} s"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        said, after = err.getvalue(), written()
        for path in sorted(after.keys() - before.keys(), reverse=True):  # the next command finds what this one found
            (os.rmdir if after[path] == () else os.remove)(path)
    if code == 1 and "try a smaller learning rate" in said:  # it trained, and diverged
        return None
    if code not in (0, 2):
        return f"exit code {code}: {said}"
    if said.count("\n") != (code == 2) or (code == 2) != said.startswith("toydiff: error: ") or len(said) > 1600:
        return f"exit code {code}, and says {said!r}"
    if any(c in said[:-1] for c in "\x1b\r\n"):
        return f"prints {said!r}"
    if code == 2 and after != before:
        return f"exit code 2 ({said!r}), and writes {[k for k in after if after[k] != before.get(k)]}"
    if any(".part" in name for name in after):
        return "leaves a part of a file"
    warned = [str(w.message) for w in warned if issubclass(w.category, RuntimeWarning | UserWarning)]
    return f"warns {warned}" if warned else None


@pytest.mark.slow
def test_generated_lines_are_answered_in_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)  # and back
    furnish(tmp_path)
    before = signal.getsignal(signal.SIGALRM)
    try:
        faults = {" ".join(words): fault for words in lines(20, 60) if (fault := fault_of(words))}
    finally:
        signal.signal(signal.SIGALRM, before)
    assert not faults


@pytest.mark.parametrize(
    "words",
    [
        ["sample", "--label"],
        ["sample", "--solver"],
        ["sample", "--mixture"],
        ["train"],
        ["zoo"],
        ["evaluate"],
        ["--"],
        [],
    ],
)
def test_what_is_quoted_is_shortened(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for long in ("9" * 5000, "x" * 5000, "x y " * 1250, "\n" * 5000):
        more = {"sample": ["--out", "a.npz"], "train": ["--problem", "mixture", "--out", "r"]}.get(
            words[0] if words else "", []
        )
        assert cli.main([*words, long, *more]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        assert len(err) < 1600
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("loop", "Too many levels"),
        ("loop/a.npz", "Too many levels"),
        ("n" * 300, "File name too long"),
        ("a\0b", "null"),
    ],
)
def test_a_place_that_cannot_be_looked_at_is_said(where, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    train = ["train", "cd", "--problem", "mixture", "--out"]
    for words in (
        ["sample", "--out"],
        ["methods", "--json"],
        ["demo", "--out"],
        train,
        [*train, "r", "--teacher"],
        ["zoo", "build", "--work"],
        ["evaluate"],
    ):
        assert cli.main([*words, where]) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1
        assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["loop"]


CALLS = {
    "closed stdout": ("{toydiff} --version >&-", 0, ""),
    "closed stderr": ("{toydiff} nope 2>&-", 2, None),
    "all closed": ("{toydiff} --version <&- >&- 2>&-", 0, None),
    "closed stdin": ("{toydiff} nope <&-", 2, "toydiff: error: unknown command 'nope'"),
    "full": ("{toydiff} --version > /dev/full", 1, "toydiff: error: [Errno 28] No space left"),
    "full stderr": ("{toydiff} nope 2> /dev/full", 2, None),
    "an unknown locale": ("LC_ALL=xx_YY.weird {toydiff} h\xe9", 2, "toydiff: error: unknown command"),
    "ascii": ("PYTHONIOENCODING=ascii:strict {toydiff} h\u2014", 2, "toydiff: error: unknown command"),
    "bytes": ("{toydiff} $'\\xff\\xfe'", 2, "toydiff: error: unknown command"),
    "no home": ("env -u HOME {toydiff} nope", 2, "toydiff: error: unknown command"),
    "the folder is gone": (
        "mkdir g; cd g; rmdir ../g; {toydiff} sample --out a.npz",
        2,
        "toydiff: error: the current folder",
    ),
    "nobody reads": ("set -o pipefail; {toydiff} nope 2>&1 | true", 2, None),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", CALLS)
def test_odd_surroundings(call, tmp_path):
    line, code, said = CALLS[call]
    toydiff = f"{sys.executable} -m toydiff"
    done = subprocess.run(
        ["bash", "-c", line.format(toydiff=toydiff)],
        capture_output=True,
        text=True,
        errors="replace",
        cwd=tmp_path,
        timeout=60,
    )
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    if said is not None:
        assert done.stderr.startswith(said)
        assert done.stderr.count("\n") == bool(said)


if __name__ == "__main__":
    # python tests/cli/test_hard_lines.py SEED COUNT [FIRST]: the long form
    import tempfile
    import time
    import traceback
    from pathlib import Path

    seed, count, *skip = map(int, sys.argv[1:])
    with tempfile.TemporaryDirectory() as folder:
        home = os.getcwd()
        furnish(Path(folder))
        for number, words in enumerate(lines(seed, count)):
            if skip and number < skip[0]:
                continue
            began = time.monotonic()
            try:
                fault = fault_of(words)
            except Exception:
                fault = traceback.format_exc()
            took = time.monotonic() - began
            if fault or took > 10:
                print(
                    number,
                    [w if len(w) < 60 else w[:20] + "~" for w in words],
                    f"{took:.1f} s:",
                    (fault or "slow")[:600],
                    flush=True,
                )
        print("done", flush=True)
        os.chdir(home)
