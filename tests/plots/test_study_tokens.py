"""The study of two equal bits, and its figure."""

import math

import numpy as np
import pytest

from toydiff.discrete import SAMPLERS
from toydiff.plots import static
from toydiff.plots.tokens import EXACT_NAME, sampler_marking
from toydiff.studies.tokens import mismatches


@pytest.fixture(scope="module")
def rows():
    return mismatches((1, 2, 8))


def test_rows_are_of_every_sampler_and_exact(rows):
    assert list(dict.fromkeys(row["sampler"] for row in rows)) == list(SAMPLERS)
    by = {(row["sampler"], row["steps"]): row for row in rows}
    for N in (1, 2, 8):
        assert by["jump-exact", N]["exact_jumps"] == 1 / (2 * N)
        assert by["jump-exact", N]["mismatch"] == pytest.approx(1 / (2 * N), abs=1e-14)
        assert by["jump-euler", N]["nfe"] == N
        assert by["tau-midpoint", N]["nfe"] == 2 * N - 1
    assert by["maskgit", 2]["mismatch"] == pytest.approx(0, abs=1e-14)
    assert by["tau-midpoint", 8]["mismatch"] < 1 / 16


def test_uniform_noise_leaves_out_what_needs_a_mask():
    rows = mismatches((2,), source="uniform")
    assert "maskgit" not in {row["sampler"] for row in rows}
    assert all(row["mismatch"] > 1 / 4 for row in rows)


def test_the_figure_has_a_curve_a_sampler_and_the_exact_line(rows):
    [axes] = static.mismatch(rows, title="Two equal bits").axes
    curves = {line.get_label(): line for line in axes.lines}
    assert list(curves) == [EXACT_NAME, *SAMPLERS]
    assert np.allclose(curves[EXACT_NAME].get_ydata(), [0.5, 0.25, 1 / 16])
    assert curves["jump-exact"].get_color() == sampler_marking("jump-exact").color
    assert curves["maskgit"].get_xdata().tolist() == [1]  # 0 elsewhere
    assert axes.get_yscale() == "log"
    assert all(math.isfinite(y) for line in axes.lines for y in line.get_ydata())


def test_bad_input_is_named():
    for wrong, message in (
        (lambda: mismatches((0,)), "each of the steps must be a whole number >= 1"),
        (lambda: mismatches(samplers=["heun"]), "heun is a solver of vectors"),
        (lambda: mismatches(samplers=["maskgit"], source="uniform"), "maskgit starts from the source mask"),
        (lambda: mismatches(kappa="x"), "unknown scheduler"),
        (lambda: static.mismatch([]), "at least one row"),
        (lambda: static.mismatch([{"sampler": "x", "steps": 1, "mismatch": 0.5}]), "unknown sampler of tokens 'x'"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
