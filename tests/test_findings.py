"""The findings: what FINDINGS.md says is what its commands measure, and what they measure bears the words out."""

import dataclasses
import importlib.util
import re
import statistics
import sys
from pathlib import Path

import pytest

from toydiff.studies import deck, findings, headline, reversal
from toydiff.studies.findings import FINDINGS

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "toydiff" / "studies" / "FINDINGS.md").read_text()
ROW = re.compile(r"^\| (.+) \| (.+) \| `python tests/benchmarks/findings\.py ([\w-]+)` \|$", re.MULTILINE)


def figures_of(text):
    """{name: (mean, deviation)} of a row's second cell."""
    found = re.findall(r"([^;]+): \*\*(-?[\d.]+) ± ([\d.]+)\*\*", text)
    return {name.strip(): (float(mean), float(std)) for name, mean, std in found}


def command(name):
    """A file of tests/benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / "tests" / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module


def test_the_page_has_every_finding_with_its_figures_and_command():
    rows = ROW.findall(PAGE)
    assert [id_ for *_, id_ in rows] == list(FINDINGS)
    assert len(rows) >= 10
    for says, figures, id_ in rows:
        assert says == FINDINGS[id_].says
        found = figures_of(figures)
        assert found, id_
        assert FINDINGS[id_].holds([mean for mean, _ in found.values()]), id_
    for file in re.findall(r"python (tests/[\w/]+\.py)", PAGE):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize(
    "id_",
    [pytest.param(id_, marks=() if finding.quick else pytest.mark.slow) for id_, finding in FINDINGS.items()],
)
def test_figures_are_those_of_the_command(id_):
    written = {id_: figures_of(figures) for _, figures, id_ in ROW.findall(PAGE)}[id_]
    measured = FINDINGS[id_].figures()
    assert list(written) == list(measured)
    for name, (mean, std) in measured.items():
        # libraries of another version round otherwise
        assert written[name][0] == pytest.approx(mean, rel=0.02, abs=max(std, 1e-6)), (id_, name)


def test_words_that_are_not_true_are_refused(capsys, monkeypatch):
    two_bits = FINDINGS["two-bits"]
    with pytest.raises(ValueError, match="two seeds or more"):
        two_bits.figures([0])
    wrong = dataclasses.replace(two_bits, holds=lambda f: f[2] > 1.9)  # that the midpoint were of order 2
    monkeypatch.setitem(FINDINGS, "two-bits", wrong)
    of = command("findings")
    monkeypatch.setattr(sys, "argv", ["findings.py", "two-bits"])
    assert of.main() == 2
    assert capsys.readouterr().err.startswith("the words of two-bits are not true of")
    monkeypatch.setattr(sys, "argv", ["findings.py", "two-bit"])
    with pytest.raises(SystemExit):
        of.main()
    assert "no finding is called two-bit" in capsys.readouterr().err


def test_a_figure_has_two_digits_of_its_spread():
    assert findings.written(2.0037, 0.0083) == "2.0037 ± 0.0083"
    assert findings.written(29.65, 0.23) == "29.65 ± 0.23"
    assert findings.written(334.9, 31.2) == "335 ± 31"
    assert findings.written(1.0, 0.0) == "1 ± 0"


# ---- who leads


def test_the_page_has_every_case_of_the_reversal_and_it_turns():
    rows = re.findall(
        r"^\| (.+) \| (\d) \| ([\d.]+) ± [\d.]+ \| ([\d.]+) ± [\d.]+ \| ([+-][\d.]+) \|$", PAGE, re.MULTILINE
    )
    assert [(name, steps) for name, steps, *_ in rows] == [(c.changed, n) for c in reversal.CASES for n in "12"]
    for _, _, flow, own, errors in rows:
        assert (float(flow) > float(own)) == (float(errors) > 0)
    of = {(name, int(steps)): float(errors) for name, steps, *_, errors in rows}
    few, many, half, published, v_few, v_many = (case.changed for case in reversal.CASES)
    # the words below the table
    assert of[few, 2] > 2
    assert of[many, 2] < -2
    assert max(of[name, 1] for name in (few, many, half, published)) < -2
    assert min(of[v_few, 1], of[v_many, 1], of[v_many, 2]) > 2
    errors = {name: float(own) for name, steps, _, own, _ in rows if steps == "1"}
    assert max(errors[half], errors[published]) < errors[many]


def test_cases_differ_in_one_thing_from_another():
    for k, case in enumerate(reversal.CASES[1:], 1):
        keys = ("updates", "edge", "loss", "teacher")
        apart = [
            sum(getattr(case, key) != getattr(other, key) for key in keys) for other in reversal.CASES if other != case
        ]
        assert min(apart) == 1, (k, case)


@pytest.mark.slow
def test_the_reversal_measures_both_methods_in_each_case():
    cases = [dataclasses.replace(reversal.CASES[0], updates=2), dataclasses.replace(reversal.CASES[-1], updates=2)]
    rows = reversal.reversal(cases, seeds=(0, 1), steps=(1,), start_updates=3)
    assert len(rows) == 2 * 2 * 2
    found = reversal.summary(rows)
    assert [row["changed"] for row in found] == [case.changed for case in cases]
    mine = [row["distance_to_teacher"] for row in rows if row["method"] == "rectified-flow"][0::2]
    assert found[0]["rectified-flow"] == pytest.approx(sum(mine) / 2)
    assert reversal.markdown(rows).count("\n") == 3
    with pytest.raises(ValueError, match="one seed"):
        reversal.reversal(cases, seeds=())


# ---- the deck's 17 rows


def made_up(changed=()):
    """Rows of all cases whose distances are the deck's FIDs, three seeds a little apart; changed: {(case, entry): three
    distances}."""
    changed, rows = dict(changed), []
    for case in deck.CASES:
        for name in case.names:
            for steps in deck.STEPS[name]:
                fid = headline.row(name, steps).fid
                found = changed.get((case.changed, (name, steps)), [fid, 1.01 * fid, 1.02 * fid])
                measured = {"distance": fid, "floor": 1.0, "accuracy": 0.5} if case.measured else {}
                rows += [
                    {"changed": case.changed, "name": name, "steps": steps, "seed": k, "passes": 1, "rms": rms}
                    | measured
                    for k, rms in enumerate(found)
                ]
    return rows


def test_a_verdict_is_of_the_differences_within_a_seed():
    better, worse = (deck.RD, 1), (deck.RF, 1)
    of = deck.BASE.changed
    rows = made_up({(of, better): [1.0, 2.0, 3.0], (of, worse): [1.5, 2.6, 3.7]})  # 0.5, 0.6, 0.7: 0.6 ± 0.1
    assert deck.errors(rows, deck.BASE, better, worse) == pytest.approx(0.6 / (0.1 / 3**0.5))
    assert deck.errors(rows, deck.BASE, worse, better) == pytest.approx(-0.6 / (0.1 / 3**0.5))
    assert [deck.word(found) for found in (2.1, 2.0, -2.0, -2.1)] == [
        "holds",
        "within noise",
        "within noise",
        "does not",
    ]
    with pytest.raises(ValueError, match="two seeds"):
        deck.errors([row for row in rows if row["seed"] == 0], deck.BASE, better, worse)
    with pytest.raises(ValueError, match="no PeRFlow in 8 steps was measured"):
        deck.errors(rows, deck.BASE, (deck.PERFLOW, 8), worse)


def test_a_direction_that_does_not_hold_is_settled_by_a_case_that_turns_it():
    assert all(deck.settled(made_up()).values())
    assert "17 of 17 rows" in deck.table(made_up())
    two, four, of = (deck.DISTILL, 2), (deck.DISTILL, 4), deck.BASE.changed
    turned = made_up({(of, four): [70.0, 70.1, 70.3]})  # less than in two steps, which a teacher of v turns
    assert deck.turned(turned, two, four) == deck.OF_V
    assert all(deck.settled(turned).values())
    assert f"does not | [{deck.OF_V.changed}: +" in deck.table(turned)
    never = made_up({(case.changed, four): [70.0, 70.1, 70.3] for case in (deck.BASE, deck.OF_V)})
    assert [entry for entry, done in deck.settled(never).items() if not done] == [two, four]
    assert "does not | the other way round" in deck.table(never)
    noisy = made_up({(of, (deck.RD, 25)): [20.0, 23.0, 25.0]})  # 3.0, 0.2 and -1.6 from two steps
    (line,) = (line for line in deck.table(noisy).splitlines() if "Rectified Diffusion, 25 steps before" in line)
    errors = deck.errors(noisy, deck.BASE, (deck.RD, 25), (deck.RD, 2))
    seeds = int(re.search(r"within noise \| ([\d,]+) seeds", line)[1].replace(",", ""))
    assert abs(errors) * (seeds / 3) ** 0.5 >= 2 > abs(errors) * ((seeds - 1) / 3) ** 0.5


def test_the_pages_have_the_tables_of_the_rows_that_are_kept():
    """If not: python tests/benchmarks/deck.py --tables."""
    of, rows = command("deck"), deck.bundled()
    for page, made in of.PAGES.items():
        assert page.read_text() == of.with_table(page.read_text(), made(rows))
        assert made(rows) in page.read_text()
    assert sum(deck.settled(rows).values()) >= 14
    assert {row["seed"] for row in rows} == set(deck.SEEDS)
    # the words below the table
    one, first = (deck.CD, 1), (deck.RD, 1)
    late, early, itself = (deck.errors(rows, case, one, first) for case in deck.CD_CASES)
    assert late < -2
    assert min(early, itself) > 2
    falls = [
        statistics.mean(deck.values(rows, deck.CD_CASES[1], entry))
        / statistics.mean(deck.values(rows, deck.CD_CASES[0], entry))
        for entry in (one, first)
    ]
    assert falls[0] < 2 < falls[1]
    assert all(deck.errors(rows, deck.OF_V, (deck.RD, steps), (deck.RF, steps)) > 2 for steps in (1, 2))
    assert deck.turned(rows, (deck.RF, 25), (deck.RF, 2)) == deck.LONG
    assert deck.turned(rows, (deck.DISTILL, 2), (deck.DISTILL, 4)) is None
    assert deck.errors(rows, deck.BASE, (deck.DISTILL, 2), (deck.DISTILL, 4)) < -2


def test_cases_of_the_deck_differ_in_one_thing():
    def apart(a, b):
        left = {"changed", "names", "measured"}
        return [key for key, value in vars(a).items() if key not in left and value != getattr(b, key)]

    assert apart(deck.BASE, deck.OF_V) == ["kind"]
    assert apart(deck.BASE, deck.LONG) == ["passes"]
    first, *others = deck.CD_CASES
    assert [apart(first, other) for other in others] == [["passes"], ["cd_teacher"]]
    assert len({case.changed for case in deck.CASES}) == len(deck.CASES)


@pytest.mark.slow
def test_the_same_command_gives_the_same_rows_of_the_deck():
    cases = [dataclasses.replace(case, passes=20_000) for case in deck.CASES]
    rows, again = (deck.deck(cases, seeds=(0, 1), teacher_updates=3, n=64) for _ in range(2))
    assert rows == again
    assert len(rows) == 2 * sum(len(deck.STEPS[name]) for case in cases for name in case.names)
    assert all(("accuracy" in row) == (row["changed"] in {deck.BASE.changed, deck.WIDE.changed}) for row in rows)
    assert deck.table(rows).count("\n| ") > 17
    models, wide = deck.Models(0, 3), cases[1]
    assert models.model(wide, deck.PERFLOW_WIDE).net.config["hidden"] == 2 * deck.WIDTH
    with pytest.raises(ValueError, match="one seed"):
        deck.deck(cases, seeds=())
