"""When rectified flow leads Rectified Diffusion, one thing at a time, on the ring (`toydiff.studies.reversal`).

    python tests/benchmarks/reversal.py [--seeds 0 1 2] [--write] [--json FILE]

Five minutes of one core. Distances of samples in one and two steps to where the exact ODE ends from the same noise,
mean and deviation over seeds; each seed has a first network and pairs of its own. `--write` puts the table into
toydiff/studies/FINDINGS.md.
"""

import argparse
import re
from pathlib import Path

import torch
from common import versions, write

from toydiff.studies.reversal import markdown, reversal, summary
from toydiff.support.files import write_text

PAGE = Path(__file__).resolve().parents[2] / "toydiff" / "studies" / "FINDINGS.md"
PLACE = re.compile(r"(<!-- made by tests/benchmarks/reversal\.py -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--write", action="store_true", help="the table, into FINDINGS.md")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if len(args.seeds) < 2:
        parser.error("a spread needs two seeds or more")
    torch.set_num_threads(1)
    rows = reversal(seeds=args.seeds)
    made = markdown(rows)
    print(made)
    if args.write:
        write_text(PAGE, PLACE.sub(lambda found: f"{found[1]}\n{made}\n\n{found[3]}", PAGE.read_text()))
    write({"versions": versions(), "rows": rows, "summary": summary(rows)}, args.json)


if __name__ == "__main__":
    main()
