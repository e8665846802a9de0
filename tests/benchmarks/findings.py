"""The findings (`toydiff.studies.findings`): each measured over seeds, mean ± standard deviation.

    python tests/benchmarks/findings.py [ID ...] [--seeds N] [--write] [--json FILE]

Without ids all are measured, in about two minutes of one core. `--write` puts them into toydiff/studies/FINDINGS.md; a
sentence that is not true of what was measured is an error, and nothing is written.
"""

import argparse
import re
import sys
from pathlib import Path

import torch
from common import versions, write

from toydiff.studies.findings import FINDINGS, table_row, written
from toydiff.support.files import write_text

PAGE = Path(__file__).resolve().parents[2] / "toydiff" / "studies" / "FINDINGS.md"
PLACE = re.compile(r"(<!-- made by tests/benchmarks/findings\.py -->\n)(.*?)(<!-- end -->)", re.DOTALL)
HEAD = "| finding | figures, mean ± deviation over seeds | command |\n|---|---|---|"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*", metavar="ID", help=f"of {', '.join(FINDINGS)}")
    parser.add_argument("--seeds", type=int, metavar="N", help="seeds 0 to N - 1 (default: each finding's own number)")
    parser.add_argument("--write", action="store_true", help="all of them, into FINDINGS.md")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if unknown := [id_ for id_ in args.ids if id_ not in FINDINGS]:
        parser.error(f"no finding is called {unknown[0]}; allowed: {', '.join(FINDINGS)}")
    if args.write and (args.ids or args.seeds):
        parser.error("--write takes all findings with their own seeds")
    torch.set_num_threads(1)
    try:
        if args.write:
            rows = [table_row(finding) for finding in FINDINGS.values()]
            made = "\n".join([HEAD, *rows])
            write_text(PAGE, PLACE.sub(lambda found: f"{found[1]}\n{made}\n\n{found[3]}", PAGE.read_text()))
            return 0
        report = {}
        for id_ in args.ids or FINDINGS:
            finding = FINDINGS[id_]
            report[id_] = finding.figures(range(args.seeds) if args.seeds else None)
            print(f"{id_}: {finding.says}", flush=True)
            for name, pair in report[id_].items():
                print(f"    {name:40} {written(*pair)}", flush=True)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    write({"versions": versions(), "findings": report}, args.json)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
