"""What all commands use: the parser, the types of its arguments, and output for people and for programs."""

import argparse
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ..support.files import json_text, seen, writable_file, write_text
from ..support.words import plural, quoted, unknown
from .launchers import is_first_process

MOST_SAMPLES = 100_000
MOST_STEPS = 100_000
MOST_SEED = 2**63 - 1
SUFFIXES = (".png", ".npz")
DEVICES = ("cpu", "cuda", "mps")


class Parser(argparse.ArgumentParser):
    """A parser that raises `ValueError` where argparse would exit. It keeps a list of its options, so that a misspelt
    one gets a suggestion."""

    def __init__(self, **settings: Any):
        self.options: list[str] = []
        super().__init__(allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter, **settings)
        # -1,0 is an argument, which its type refuses, and no option
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def add_argument(self, *names: Any, **settings: Any) -> argparse.Action:
        self.options += [name for name in names if name.startswith("--")]
        return super().add_argument(*names, **settings)

    def group(self, title: str) -> "Group":
        """A group of options, under a heading of its own."""
        return Group(self, self.add_argument_group(title))

    def error(self, message: str) -> NoReturn:
        raise ValueError(message)

    def _print_message(self, message: str, file: Any = None) -> None:
        (file or sys.stderr).write(message)  # argparse itself passes over what cannot be written

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        sys.stdout.flush()  # if the reader has left, the error is raised here, where `main` catches it
        super().exit(status, message)


class Group:
    """A group of options. The parser lists them like its own."""

    def __init__(self, parser: Parser, group: argparse._ArgumentGroup):
        self._parser, self._group = parser, group

    def add_argument(self, *names: str, **settings: Any) -> argparse.Action:
        self._parser.options += [name for name in names if name.startswith("--")]
        return self._group.add_argument(*names, **settings)


def add_json(parser: Parser) -> None:
    """Add the option --json."""
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=place,
        help="also write the result as JSON to FILE; with - print JSON instead of text",
    )


# ---- the types of arguments


def place(text: str) -> str:
    """The type of an argument that may name a file or a folder: the text as it is, of a place that can be looked at."""
    try:
        seen(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return text


def given(text: str) -> str:
    """The type of an argument that names a file or a folder which is there: a `place` that is not empty, which would
    mean the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("must name a file or a folder, got ''")
    return place(text)


def whole(least: int, most: int) -> Callable[[str], int]:
    """The type of an argument that is a whole number from `least` to `most`."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:  # no number, or one of thousands of digits
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}, got {quoted(text)}")
        return value

    return read


def finite(text: str) -> float:
    """The type of an argument that is a finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {quoted(text)}")
    return value


def between(least: float, most: float) -> Callable[[str], float]:
    """The type of an argument that is a number from `least` to `most`."""

    def read(text: str) -> float:
        value = finite(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be a number from {least:g} to {most:g}, got {quoted(text)}")
        return value

    return read


def finite_or_none(text: str) -> float | None:
    """The type of an argument that is a finite number or the word none."""
    try:
        return None if text == "none" else finite(text)
    except argparse.ArgumentTypeError:
        raise argparse.ArgumentTypeError(f"must be a finite number or none, got {quoted(text)}") from None


# ---- output


def output_file(text: str | None) -> str | None:
    """The argument of --json as it is; `ValueError` if that file cannot be written."""
    if text is not None and text != "-":
        writable_file(text)
    return text


def sample_file(text: str, json_to: str | None, suffixes: tuple[str, ...] = SUFFIXES) -> Path:
    """The argument of --out as a path; `ValueError` if it or the file of --json cannot be written."""
    out = Path(text)
    if out.suffix not in suffixes:
        raise ValueError(f"--out must end in {' or '.join(suffixes)}, got {quoted(text)}")
    writable_file(out)
    output_file(json_to)
    if json_to is not None and json_to != "-" and out.resolve() == Path(json_to).resolve():
        raise ValueError(f"--out and --json name the same file, {text!r}")
    return out


def report(json_to: str | None, obj: object, text: str) -> None:
    """Print the text for people, and write the JSON to the file of --json, if any. With `--json -` print the JSON
    alone, for pipes."""
    if json_to == "-":
        sys.stdout.write(json_text(obj))
        return
    if json_to is not None:
        write_text(json_to, json_text(obj))
    print(text)


def sample_text(row: Mapping, distance: str, out: Path) -> str:
    """What a call of `toydiff sample` did, for people. distance: what its distance is of, and to what."""
    accuracy = "" if row["accuracy"] is None else f"; {row['accuracy']:.1%} of the requested class"
    return (
        f"{row['method']} on {row['problem']}: {plural(row['n'], 'sample')} in "
        f"{plural(row['nfe'], 'network call')} each (NFE), {plural(row['rounds'], 'round')}, {row['seconds']:.3g} s\n"
        f"{distance} {row['distance']:.3g}; "
        f"that of true samples (floor) {row['floor']:.3g} ± {row['floor_std']:.1g}{accuracy}\n"
        f"wrote {out}"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> str:
    """Rows of text in columns. The columns numbered in `right` are aligned to the right, as numbers are."""
    widths = [max(len(row[k]) for row in [head, *rows]) for k in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:{'>' if k in right else '<'}{widths[k]}}" for k, cell in enumerate(row)).rstrip()
        for row in [head, *rows]
    )


def cell(value: float | str | None, as_: str = "") -> str:
    """A value in a table, in the format `as_`; a dash where there is none."""
    return "-" if value is None else format(value, as_)


def one_thread() -> None:
    """Keep torch to one thread. The batches are too small to divide, and on a busy machine threads only wait for one
    another."""
    import torch

    torch.set_num_threads(1)


def show_progress() -> bool:
    """Whether to show bars: only where stderr is a terminal, and only in the first process."""
    return sys.stderr.isatty() and is_first_process()


def usable(device: str) -> str:
    """The name of a device; `ValueError` if torch cannot use it on this machine."""
    if device not in DEVICES:
        raise unknown("device", device, DEVICES)
    import torch

    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there[device]:
        raise ValueError(
            f"this machine has no device {device!r} that torch can use; "
            f"there is {', '.join(k for k in DEVICES if there[k])}"
        )
    return device


def add_device(parser: Parser) -> None:
    """Add the option --device."""
    parser.add_argument(
        "--device",
        metavar="NAME",
        help=f"where to compute: {', '.join(DEVICES)} (default: cpu)",
    )


def refuse_device(args: argparse.Namespace) -> None:
    """`ValueError` for --device where no trained model is sampled."""
    if args.device is not None:
        raise ValueError(
            "--device is for trained models and checkpoints; a mixture's exact denoiser runs on the processor"
        )
