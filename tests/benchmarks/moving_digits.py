"""AnimateLCM on clips of digits: its student in few steps at several guidance scales beside the video teacher in 25, a
first frame that is given, and styles that are swapped in without any clip of them. Of the bundled weights, or of a
run, whose training is continued where it has not ended.

    python tests/benchmarks/moving_digits.py [RUN] [--n 100] [--updates 500] [--json FILE]

tutorials/measured/clips.json is made without RUN.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from toydiff import runs, weights
from toydiff.cli.terminal import table
from toydiff.problems import ClipsProblem
from toydiff.runs.zoo import CLIPS_ID, CLIPS_TEACHER_ID, STYLES
from toydiff.studies.moving_digits import (
    OF_TEACHER,
    advice,
    figures,
    found_again,
    from_first_frame,
    judge_of_styles,
    sampled,
    styled_base,
    swap_figures,
)
from toydiff.support.files import write_json

MEASURES = ("distance", "frame", "lag-1", "velocity", "turning", "identity", "accuracy")


def cells(row: Mapping) -> list[str]:
    return [f"{row[key]:.3g}" for key in MEASURES]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?")
    parser.add_argument("--n", type=int, default=100)
    parser.add_argument("--styles", default=",".join(STYLES.values()))
    parser.add_argument("--updates", type=int, default=500, help="of a style's image network, of a run's")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    on = ClipsProblem()
    if args.run:
        run = runs.train("animatelcm", on, out=args.run, resume=True, progress=True)
        model, teacher = run.finish(), runs.teacher_of_run(run, OF_TEACHER)
    else:
        model, teacher = runs.load(CLIPS_ID), runs.load(CLIPS_TEACHER_ID)

    best = sampled(teacher, on, OF_TEACHER, args.n)
    floors = {key: best[f"floor {key}"] for key in MEASURES[:-1]}
    rows = advice(model, on, args.n)
    lines = [[f"student, {row['steps']} steps, g = {row['guidance_scale']:g}", *cells(row)] for row in rows]
    head = [["floor", *(f"{value:.3g}" for value in floors.values()), ""], [f"teacher, {OF_TEACHER}", *cells(best)]]
    print(table(["", *MEASURES], [*head, *lines]), flush=True)

    clips, labels = on.data(args.n, 12345)
    given = {"first frame given, 4 steps": from_first_frame(model, clips[:, 0], labels), "true": clips}
    first = {name: figures(on, x, labels) | {"found again": found_again(x)} for name, x in given.items()}
    lines = [[name, *cells(row), f"{row['found again']:.3g}"] for name, row in first.items()]
    print(table(["", *MEASURES, "found again"], lines), flush=True)

    judge, styles = judge_of_styles(), {}
    for style in args.styles.split(","):
        if args.run:
            base = styled_base(model.denoiser, style, args.updates)
        else:
            base = weights.load_denoiser(f"clips-{style}").net
        styles[style] = swap_figures(model, base, style, judge, n=args.n)
    lines = [[style, *cells(row), f"{row['style']:.3g}", f"{row['floor style']:.3g}"] for style, row in styles.items()]
    print(table(["style, 4 steps", *MEASURES, "in style", "of true"], lines))

    if args.json:
        made_of = {} if args.run else {id_: weights.read_about(id_)["sha256"] for id_ in (CLIPS_ID, CLIPS_TEACHER_ID)}
        found = {"teacher": best, "advice": rows, "first": first, "styles": styles}
        write_json(args.json, {"n": args.n, "weights": made_of, **found})


if __name__ == "__main__":
    main()
