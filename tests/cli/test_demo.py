"""The demo: files, numbers, and what it says when it cannot write."""

import json
import math
import os
import re
import time

import pytest
import torch

import toydiff
from toydiff.grids import GRIDS
from toydiff.solvers import PARALLEL
from toydiff.studies import demo
from toydiff.studies.orders import deterministic

NAMES = ("1-trajectories", "2-straight-lines", "3-convergence", "4-time-grids", "5-picard")


pytestmark = pytest.mark.xdist_group("demo")  # one worker makes it


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder and the report of a whole run, and the seconds of this process that it took."""
    folder, began = tmp_path_factory.mktemp("demo") / "new" / "folder", time.process_time()
    return folder, demo.run(folder, progress=False), time.process_time() - began


def test_one_worker_runs_a_group(request):
    if getattr(request.config.option, "loadgroup", False):  # in a worker of pytest-xdist, which names the group
        assert request.node.nodeid.endswith("@demo")


def numbers(value):
    """All numbers in nested dicts and lists."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [n for part in value for n in numbers(part)]
    return [value] if isinstance(value, int | float) else []


@pytest.mark.slow
def test_it_writes_what_the_index_shows_and_nothing_else(made):
    folder, *_ = made
    files = {f"{name}.{suffix}" for name in NAMES for suffix in ("png", "html")} | {"index.html", "report.json"}
    assert set(os.listdir(folder)) == files
    index = (folder / "index.html").read_text()
    assert set(re.findall(r'(?:src|href)="([^"]+)"', index)) == files - {"index.html"}
    assert "http" not in index


@pytest.mark.slow
def test_pngs_are_sharp_and_pages_need_no_network(made):
    folder, *_ = made
    for name in NAMES:
        png = (folder / f"{name}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        assert int.from_bytes(png[16:20], "big") >= 1600  # pixels across
        page = (folder / f"{name}.html").read_text()
        assert not re.findall(r"<(?:script|link|img)[^>]*(?:src|href)=", page)


@pytest.mark.slow
def test_the_report_round_trips_and_is_what_was_returned(made):
    folder, report, _ = made
    read = json.loads((folder / "report.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    assert read == report
    assert all(math.isfinite(n) for n in numbers(read))
    assert set(read["versions"]) >= {"python", "toydiff", "torch", "plotly", "matplotlib"}
    assert read["seed"] == demo.SEED
    assert [picture["name"] for picture in read["pictures"]] == list(NAMES)


@pytest.mark.slow
def test_a_floor_stands_beside_every_distance(made):
    for picture in made[1]["pictures"]:
        for row in picture["rows"]:
            assert 0 < row.get("floor", picture.get("floor")) < 1e-9


@pytest.mark.slow
def test_the_index_says_the_reports_sentences(made):
    folder, report, _ = made
    index = (folder / "index.html").read_text()
    for picture in report["pictures"]:
        assert len(picture["sentences"]) == 2
        for sentence in picture["sentences"]:
            assert sentence.replace("'", "&#x27;") in index


@pytest.mark.slow
def test_the_numbers_teach_what_the_titles_say(made):
    paths, lines, orders, grids, picard = made[1]["pictures"]
    few, many, better = paths["rows"]
    assert few["nfe"] < better["nfe"] < many["nfe"]
    assert better["error"] <= many["error"] < few["error"] / 5
    point, ring = lines["rows"]
    assert point["one_step_error"] < 1e-9 < 0.5 < ring["one_step_error"]
    assert point["variation_of_x0"] < 1e-12 < 0.05 < ring["variation_of_x0"]
    assert [row["solver"] for row in orders["rows"]] == deterministic()
    assert {row["grid"] for row in grids["rows"]} == {row["grid"] for row in grids["grids"]} == set(GRIDS)
    assert all(row["nfe"] <= 10 for row in grids["rows"])
    walk, *parallel = picard["rows"]
    assert [row["method"] for row in picard["rows"]] == ["sequential", *PARALLEL]
    assert walk["rounds"] == walk["nfe"] == walk["rounds_to_target"] == picard["steps"]
    for row in parallel:
        assert 1 < row["rounds_to_target"] <= row["rounds"] < walk["rounds"] < row["nfe"]
        assert row["error_to_sequential"] < picard["target"] / 50
        assert row["error"] == pytest.approx(walk["error"], rel=0.05)  # the same path, so the same error
    # what is drawn: the guarantee is a point a sweep, and the front is far ahead of it
    accepted, missed = picard["drawn"]["accepted"], picard["drawn"]["error_to_sequential"]
    assert len(accepted) == len(missed) < picard["steps"] / 2
    assert all(k <= front for k, front in enumerate(accepted))
    assert accepted[-1] == picard["steps"]
    assert missed[len(missed) // 2] < 1e-3 * missed[0]
    assert missed[-1] < 1e-8


@pytest.mark.slow
def test_a_sentence_quotes_the_run(made):
    few, _, better = made[1]["pictures"][0]["rows"]
    first, second = made[1]["pictures"][0]["sentences"]
    assert f"{few['error']:.2g}" in first
    assert f"with {better['nfe']} calls" in second
    picard = made[1]["pictures"][4]
    needed = {row["method"]: row["rounds_to_target"] for row in picard["rows"]}
    first, second = picard["sentences"]
    assert f"after {needed['picard']} rounds" in first
    assert f"Anderson acceleration needs {needed['anderson']} rounds" in second
    assert f"Broyden's secants {needed['broyden']} and Parareal {needed['parareal']};" in second
    assert f"spends {picard['rows'][1]['nfe']} a sample, in {picard['rows'][1]['rounds']} rounds" in second
    assert f"of {len(picard['drawn']['accepted']) - 1})" in second


@pytest.mark.slow
def test_rounds_to_the_target_are_where_the_median_sample_arrives():
    """Counted again from the sweeps themselves: then the median sample is within the target, and never before."""
    picture = demo._picard(demo.FAST)
    mixture, table = toydiff.mixtures.random_mixture(demo.SEED), toydiff.schedule("scaled-linear")
    D, noise = mixture.denoiser(table), mixture.marginal(table, 1.0).sample(24, demo.SEED, dtype=torch.float64)
    walk = toydiff.solve(D, noise, 100, solver="ddim", grid="uniform")
    for row in picture.numbers["rows"][1:]:
        path = toydiff.solve(D, noise, 100, solver=row["method"], grid="uniform")
        assert (path.rounds, path.nfe) == (row["rounds"], row["nfe"])
        by_rounds = {
            n: float((sweep[-1] - walk.end).norm(dim=1).quantile(0.5))
            for n, sweep in zip(path.sweep_rounds, path.sweeps, strict=True)
        }
        assert by_rounds[row["rounds_to_target"]] <= 0.01
        assert all(miss > 0.01 for n, miss in by_rounds.items() if n < row["rounds_to_target"])


@pytest.mark.slow
def test_the_index_counts_its_pictures(made):
    folder, report, _ = made
    index = (folder / "index.html").read_text()
    assert "five pictures</h1>" in index
    assert index.count("<section>") == len(report["pictures"]) == len(demo.MAKERS) == 5


def test_calls_to_reach_reads_the_curve():
    assert demo.calls_to_reach([10, 20, 40], [1.0, 0.25, 0.0625], 0.0625) == pytest.approx(40)
    assert demo.calls_to_reach([10, 20, 40], [1.0, 0.25, 0.0625], 0.5) == pytest.approx(10 * 2**0.5)
    assert demo.calls_to_reach([10, 20], [1.0, 0.25], 2.0) == 10
    assert demo.calls_to_reach([10, 20], [1.0, 0.25], 0.1) is None


def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MAKERS", (lambda size: pytest.fail("it computed"),))
    file = tmp_path / "file"
    file.write_text("mine")
    for out in (file, file / "below"):
        with pytest.raises(ValueError, match=r"^cannot write into the folder [^\n]*$"):
            demo.run(out, progress=False)
    assert file.read_text() == "mine"


@pytest.mark.slow
def test_a_second_run_replaces_the_first_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(demo, "MAKERS", (demo._trajectories,))
    for name in ("1-trajectories.png", "1-trajectories.html", "index.html", "report.json"):
        (tmp_path / name).write_text("old " * 10_000_000 if name.endswith("html") else "old")
    (tmp_path / "mine.txt").write_text("mine")
    report = demo.run(tmp_path, progress=False, fast=True)
    assert json.loads((tmp_path / "report.json").read_text()) == report
    assert (tmp_path / "index.html").read_text().endswith("</html>\n")
    assert (tmp_path / "1-trajectories.html").read_text().rstrip().endswith("</html>")
    assert len(os.listdir(tmp_path)) == 5  # no temporary file is left, and no other file is touched


@pytest.mark.slow
def test_an_interrupted_run_leaves_no_half_file(tmp_path, monkeypatch):
    def stop(size):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "MAKERS", (demo._trajectories, stop))
    with pytest.raises(KeyboardInterrupt):
        demo.run(tmp_path, progress=False, fast=True)
    assert set(os.listdir(tmp_path)) == {"1-trajectories.png", "1-trajectories.html"}


@pytest.mark.slow
def test_it_is_quick_and_its_orders_are_those_declared(made):
    """A minute of its own: of this process's time, since other tests share the cores and the clock."""
    assert made[2] <= 60
    report = made[1]
    assert report["seconds"] > 0
    slopes = {row["solver"]: row["measured"] for row in report["pictures"][2]["rows"]}
    assert slopes["ddim"] == pytest.approx(1, abs=0.15)
    assert slopes["heun"] == pytest.approx(2, abs=0.15)
    needed = {row["method"]: row["rounds_to_target"] for row in report["pictures"][4]["rows"]}
    assert needed["anderson"] < needed["picard"] < 10 < needed["parareal"] < needed["sequential"] == 100
