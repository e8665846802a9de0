"""Digits in grey levels: the bundled posterior of tokens by its number of steps, beside the continuous teacher, whose
samples are put into the same grey levels.

    python tests/benchmarks/token_digits.py [--n 1000] [--steps 8,16,32,64] [--seed 0] [--of-teacher 1.5]
"""

import argparse

from toydiff import runs, weights
from toydiff.cli.terminal import table
from toydiff.problems import problem
from toydiff.problems.digits import TEACHER_ID
from toydiff.problems.token_digits import GreyDigits, images_of, tokens_of
from toydiff.runs.zoo import DIGIT_TOKENS_ID, GUIDANCE, TOKENS_GUIDANCE

OF_TEACHER = 25


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=1000)
    parser.add_argument("--steps", default="8,16,32,64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--of-teacher", type=float, default=GUIDANCE, help="the continuous teacher's guidance scale")
    args = parser.parse_args()
    on, grey, digits = problem("tokens:digits"), GreyDigits(), problem("digits")
    teacher = runs.Model(weights.load_model(TEACHER_ID), weights.read_about(TEACHER_ID))
    path, cond = runs.sample(teacher, digits, args.n, OF_TEACHER, guidance_scale=args.of_teacher, seed=args.seed)
    of_teacher = grey.measure(images_of(tokens_of(path.end)), cond)
    rows = [("continuous teacher, in grey levels", OF_TEACHER, of_teacher)]
    model = runs.Model(weights.load_model(DIGIT_TOKENS_ID), weights.read_about(DIGIT_TOKENS_ID))
    for steps in map(int, args.steps.split(",")):
        path, cond = runs.sample(model, on, args.n, steps, guidance_scale=TOKENS_GUIDANCE, seed=args.seed)
        rows.append(("tokens", steps, on.measure(path.end, cond)))
    shown = [
        [
            name,
            str(steps),
            f"{found.distance:.2f}",
            f"{found.distance / of_teacher.distance:.2f}",
            f"{100 * found.accuracy:.1f}%",
        ]
        for name, steps, found in rows
    ]
    print(table(["model", "steps", "Fréchet distance", "of the teacher's", "accuracy"], shown))
    scales = f"guidance {args.of_teacher:g} and {TOKENS_GUIDANCE:g}"
    print(f"floor {of_teacher.floor:.2f} ± {of_teacher.floor_std:.2f}; {args.n} samples, {scales}")


if __name__ == "__main__":
    main()
