"""`toydiff scoreboard`: every method on equal terms."""

import argparse
import re
from pathlib import Path

from ..support.words import quoted
from .terminal import MOST_STEPS, Parser, add_json, output_file, place, report, show_progress, whole

MORE = (
    "A cell is a method with a seed. All have the same teacher, network, noises and budget: the network passes of the\n"
    "updates, of the pairs, and of the students that a method begins with (forwards 1, backwards 2). The same command\n"
    "goes on where it was stopped. On several machines that share DIR each runs one --shard; then --merge writes the\n"
    "table. A + joins trainings: rectified-diffusion+cd begins CD with Rectified Diffusion's student."
)


def run(args: argparse.Namespace) -> None:
    """Run cells and write the table."""
    json_to = output_file(args.json)
    if not args.out:
        raise ValueError("--out must name a folder, got ''")
    from ..studies import headline, scoreboard

    if args.merge:
        for name in ("problem", "methods", "seeds", "budget", "steps", "n", "teacher", "shard", "jobs"):
            if getattr(args, name) is not None:
                raise ValueError(f"--merge takes all from the plan in --out, and no --{name}")
        board = scoreboard.merge(args.out)
        if args.bundle:
            scoreboard.bundle(board)
    elif args.bundle:
        raise ValueError("--bundle goes with --merge: it takes a scoreboard that is done")
    else:
        plan = scoreboard.Plan(
            args.problem or "mixture:ring",
            tuple(args.methods or scoreboard.standard()),
            args.seeds or 3,
            args.budget or 0,
            tuple(args.steps or scoreboard.STEPS),
            args.n or 0,
            args.teacher,
        )
        shard = args.shard or (1, 1)
        try:
            done = scoreboard.run(plan, args.out, jobs=args.jobs or 1, shard=shard, progress=show_progress())
        except KeyboardInterrupt:
            raise KeyboardInterrupt("; the same command continues") from None
        if len(done) < len(plan.cells()):
            left = len(plan.cells()) - len(done)
            report(json_to, {"done": len(done), "left": left}, f"{len(done)} cells are done, {left} are other shards'")
            return
        board = scoreboard.merge(args.out)
    text = scoreboard.markdown(board)
    if board["plan"]["seeds"] > 1 and {row.entry for row in headline.ROWS if row.method} <= scoreboard.entries(board):
        text += f"\n\nthe deck's table:\n\n{headline.markdown(board)}"
    report(json_to, board, f"{text}\n\n{Path(args.out) / 'quality.png'}")


def _shard(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"a shard is i/m with i from 1 to m, such as 1/4, got {quoted(text)}")
    return int(found[1]), int(found[2])


def arguments(parser: Parser) -> None:
    """The options of `toydiff scoreboard`."""
    parser.add_argument("--problem", metavar="P", help="mixture:NAME or digits (default: mixture:ring)")
    parser.add_argument(
        "--methods", metavar="M", nargs="+", help="methods by name (default: all, and rectified-diffusion+cd)"
    )
    parser.add_argument("--seeds", metavar="N", type=whole(1, 1000), help="seeds of each method (default: 3)")
    parser.add_argument(
        "--budget",
        metavar="N",
        type=whole(1, 10**12),
        help="network passes of a cell (default: 2,000,000 for points, 200,000 for digits)",
    )
    parser.add_argument(
        "--steps",
        metavar="N",
        nargs="+",
        type=whole(1, MOST_STEPS),
        help="steps to measure at (default: 1 2 4 8 25)",
    )
    parser.add_argument(
        "--n", metavar="N", type=whole(1, 10**6), help="samples of a measurement (default: the problem's)"
    )
    parser.add_argument(
        "--teacher",
        metavar="RUN",
        help="a run's folder, or an id of `toydiff zoo` (default: the bundled teacher, or a mixture's exact one)",
    )
    parser.add_argument("--jobs", metavar="N", type=whole(1, 1024), help="processes at a time (default: 1)")
    parser.add_argument("--shard", metavar="i/m", type=_shard, help="run every m-th cell only, from the i-th on")
    parser.add_argument("--merge", action="store_true", help="run nothing; write the table of the cells in --out")
    parser.add_argument(
        "--bundle", action="store_true", help="with --merge: put the scoreboard beside those that come with the library"
    )
    parser.add_argument("--out", metavar="DIR", type=place, required=True, help="folder that keeps all of it")
    add_json(parser)
