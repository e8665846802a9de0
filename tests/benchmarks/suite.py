"""What the test suite costs beside what it cost at another revision: CPU seconds, in one go.

    python tests/benchmarks/suite.py --against REV [--without 'test_hard_*'] [tests/core tests/sd/test_sd_cli.py ...]

REV is checked out in a temporary git worktree, and pytest runs in both trees at the same time, with one worker each.
CPU seconds are those of pytest and of the processes that it started, user and system. A file is known by its name,
wherever it lies: it is counted where it is now, or as "gone".
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parents[2]
TIMES = "TOYDIFF_SUITE_TIMES"
"""The file into which pytest writes `seconds name` for every test, where this module is its plugin."""
IMPORTS = "collecting"
"""What is of no test: starting, and collecting the files."""


def pytest_configure(config):
    config.addinivalue_line("markers", "xdist_group: older revisions know it from pytest-xdist alone")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    before = sum(os.times()[:4])
    result = yield
    with open(os.environ[TIMES], "a") as file:
        file.write(f"{sum(os.times()[:4]) - before} {item.path.name}\n")
    return result


def start(tree: Path, paths: list[Path], notes: Path) -> subprocess.Popen:
    """Pytest on paths of a tree; the folder `notes` gets what it prints and what each test took."""
    notes.mkdir()
    places = os.pathsep.join([str(tree), str(Path(__file__).parent)])
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "suite", *paths],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": places, TIMES: str(notes / "times")},
        stdout=(notes / "log").open("w"),
        stderr=subprocess.STDOUT,
    )


def finish(running: subprocess.Popen, notes: Path) -> dict[str, float]:
    """The CPU seconds of each file, by its name, once pytest is done; how its tests ended is printed."""
    _, status, usage = os.wait4(running.pid, 0)
    running.returncode = os.waitstatus_to_exitcode(status)
    last = (notes / "log").read_text().splitlines()[-1]
    print(f"{notes.name}: {last}", flush=True)
    if not (notes / "times").exists():
        raise SystemExit(f"no test ran: {last}")
    seconds = defaultdict(float)
    for line in (notes / "times").read_text().splitlines():
        spent, name = line.split(maxsplit=1)
        seconds[name] += float(spent)
    return seconds | {IMPORTS: usage.ru_utime + usage.ru_stime - sum(seconds.values())}


def files(tree: Path, paths: list[Path]) -> list[Path]:
    """The files of tests at paths of a tree, folders or files."""
    return [file for path in paths for file in ([tree / path] if path.suffix else (tree / path).rglob("test_*.py"))]


def report(before: dict[str, float], now: dict[str, float], folders: dict[str, str], without: str | None) -> None:
    """A row a folder, of all, and of all but the files of a pattern."""
    rows = defaultdict(lambda: [0.0, 0.0])
    for column, seconds in enumerate((before, now)):
        for name, spent in seconds.items():
            rows[folders.get(name, IMPORTS if name == IMPORTS else "gone")][column] += spent
    rows["all"] = [sum(before.values()), sum(now.values())]
    if without:
        others = [[spent for name, spent in seconds.items() if not fnmatch(name, without)] for seconds in (before, now)]
        rows[f"all but {without}"] = [sum(spent) for spent in others]
    print(f"{'CPU seconds':28}{'before':>8}{'now':>8}{'ratio':>8}")
    for name, (old, new) in rows.items():
        print(f"{name:28}{old:8.0f}{new:8.0f}" + (f"{new / old:8.2f}" if old else ""))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="REV", required=True)
    parser.add_argument("--without", metavar="PATTERN", help="a further row without the files of such names")
    parser.add_argument("paths", nargs="*", type=Path, help="of this tree; by default all of tests/")
    args = parser.parse_args()
    git = ["git", "-C", str(HERE), "worktree"]
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "tree"
        if subprocess.run([*git, "add", "--quiet", "--detach", other, args.against]).returncode:
            raise SystemExit(2)
        try:
            asked = files(HERE, args.paths)
            same = [file for file in files(other, [Path("tests")]) if file.name in {file.name for file in asked}]
            if asked and not same:
                parser.error(f"{args.against} has none of these files")
            notes = Path(folder) / "before", Path(folder) / "now"
            running = start(other, same, notes[0]), start(HERE, asked, notes[1])
            before, now = map(finish, running, notes)
        finally:
            subprocess.run([*git, "remove", "--force", other], check=True)
    folders = {file.name: str(file.parent.relative_to(HERE)) for file in files(HERE, [Path("tests")])}
    report(before, now, folders, args.without)


if __name__ == "__main__":
    main()
