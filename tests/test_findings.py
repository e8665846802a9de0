"""The findings: what FINDINGS.md says is what its commands measure, and what they measure bears the words out."""

import dataclasses
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from toydiff.studies import findings, reversal
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
