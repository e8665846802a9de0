"""AnimateLCM on clips of digits: its student in few steps beside the video teacher in 25, a first frame that is given,
and styles that are swapped in without any clip of them. Training is continued where RUN has not ended.

    python tests/benchmarks/moving_digits.py RUN [--n 500] [--styles outlined,inverted,bold] [--updates 500]
"""

import argparse

from toydiff import runs
from toydiff.cli.terminal import table
from toydiff.problems import ClipsProblem
from toydiff.studies.moving_digits import (
    OF_TEACHER,
    STEPS,
    figures,
    found_again,
    from_first_frame,
    judge_of_styles,
    sampled,
    styled_base,
    swap_figures,
)

MEASURES = ("distance", "frame", "lag-1", "velocity", "turning", "identity", "accuracy")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--n", type=int, default=500)
    parser.add_argument("--styles", default="outlined,inverted,bold")
    parser.add_argument("--updates", type=int, default=500, help="of a style's image network")
    args = parser.parse_args()
    on = ClipsProblem()
    run = runs.train("animatelcm", on, out=args.run, resume=True, progress=True)
    model = run.finish()

    def line(name, row):
        return [name, *(f"{row[key]:.3g}" for key in MEASURES)]

    found = {f"teacher, {OF_TEACHER} steps": sampled(runs.teacher_of_run(run, OF_TEACHER), on, OF_TEACHER, args.n)}
    found |= {f"student, {steps} steps": sampled(model, on, steps, args.n) for steps in STEPS}
    first = next(iter(found.values()))
    floors = ["floor", *(f"{first[f'floor {key}']:.3g}" for key in MEASURES[:-1]), ""]
    print(table(["", *MEASURES], [*(line(name, row) for name, row in found.items()), floors]), flush=True)

    clips, labels = on.data(args.n, 12345)
    made = from_first_frame(model, clips[:, 0], labels)
    rows = [
        [*line(name, figures(on, of, labels)), f"{found_again(of):.3g}"]
        for name, of in (("first frame given, 4 steps", made), ("true", clips))
    ]
    print(table(["", *MEASURES, "found again"], rows), flush=True)

    judge, rows = judge_of_styles(), []
    for style in args.styles.split(","):
        row = swap_figures(model, styled_base(model.denoiser, style, args.updates), style, judge, n=args.n)
        rows.append([*line(style, row), f"{row['style']:.3g}", f"{row['floor style']:.3g}"])
    print(table(["style, 4 steps", *MEASURES, "in style", "of true"], rows))


if __name__ == "__main__":
    main()
