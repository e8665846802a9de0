"""The deck's 17 rows on labelled mixtures with guidance, and what turns its directions (`toydiff.studies.deck`).

    python tests/benchmarks/deck.py [--seeds 0 1 2] [--write] [--json FILE]
    python tests/benchmarks/deck.py --tables

Four minutes of an idle core. Distances of samples to where the guided teacher's ODE ends from the same noise, over
seeds; each seed has a teacher and pairs of its own. `--write` keeps the rows in toydiff/studies/deck.json, and puts the
tables into toydiff/studies/README.md and FINDINGS.md. `--tables` makes them of the rows that are kept.
"""

import argparse
import re
from pathlib import Path

import torch
from common import versions, write

from toydiff.studies.deck import RESULT, SEEDS, bundled, deck, experiments, table
from toydiff.support.files import write_text

STUDIES = Path(__file__).resolve().parents[2] / "toydiff" / "studies"
PLACE = re.compile(r"(<!-- made by tests/benchmarks/deck\.py -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PAGES = {STUDIES / "README.md": table, STUDIES / "FINDINGS.md": experiments}


def with_table(text: str, made: str) -> str:
    """A page's text with this table in its place."""
    return PLACE.sub(lambda found: f"{found[1]}\n{made}\n\n{found[3]}", text)


def write_tables(rows: list[dict]) -> None:
    """Put the tables of these rows into their pages."""
    for page, made in PAGES.items():
        write_text(page, with_table(page.read_text(), made(rows)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--write", action="store_true", help="the rows and the tables, into toydiff/studies")
    parser.add_argument("--tables", action="store_true", help="the tables of the rows that are kept; trains nothing")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.tables:
        write_tables(bundled())
        return
    if len(args.seeds) < 2:
        parser.error("a verdict needs two seeds or more")
    torch.set_num_threads(1)
    rows = deck(seeds=args.seeds, report=lambda line: print(line, flush=True))
    print("", table(rows), experiments(rows), sep="\n\n")
    report = {"versions": versions(), "seeds": args.seeds, "rows": rows}
    if args.write:
        write(report, RESULT)
        write_tables(rows)
    write(report, args.json)


if __name__ == "__main__":
    main()
