"""The scoreboard: equal cost for all, the same rows however the work is divided, and verdicts by standard errors."""

import json
import shutil

import pytest
from boards import made_up, mean, standard
from commands import run, written

from toydiff import runs, weights
from toydiff.catalog import METHODS
from toydiff.studies import choices, headline, scoreboard
from toydiff.studies.scoreboard import Plan

WORDS = ("scoreboard", "--methods", "ect", "instaflow", "--seeds", 2, "--budget", 60_000, "--n", 200, "--steps", 1, 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small scoreboard, made by one command."""
    folder = tmp_path_factory.mktemp("whole") / "board"
    assert run(*WORDS, "--out", folder) == 0
    return folder


def board_of(folder):
    return json.loads((folder / scoreboard.RESULT).read_text())


def rows_of(folder):
    return [cell["rows"] for cell in board_of(folder)["cells"]]


def test_every_method_of_vectors_may_stand_on_it():
    assert set(scoreboard.names()) == {card.id for card in METHODS.values() if card.only is None}
    assert len(scoreboard.names()) == 23


def test_one_command_writes_rows_a_table_and_figures(whole):
    assert {"plan.json", "scoreboard.json", "scoreboard.md", "quality.png", "cost.png"} <= set(written(whole))
    board = board_of(whole)
    assert [(cell["method"], cell["seed"]) for cell in board["cells"]] == [
        ("ect", 0),
        ("ect", 1),
        ("instaflow", 0),
        ("instaflow", 1),
    ]
    for cell in board["cells"]:
        assert 0.85 * 60_000 <= cell["passes"] <= 60_000  # what it began with and its pairs are in it
        assert [row["steps"] for row in cell["rows"]] == [1, 2]
        assert all(row["n"] == 200 and row["distance"] > 0 for row in cell["rows"])
    assert [row["begins_with"] for row in board["rows"]] == ["the teacher's weights"] * 2 + ["rectified-flow"] * 2
    first = board["cells"][0]["rows"][0]["distance"], board["cells"][1]["rows"][0]["distance"]
    assert board["rows"][0]["distance"] == pytest.approx(sum(first) / 2)
    assert first[0] != first[1]
    lines = (whole / "scoreboard.md").read_text().splitlines()
    assert [line.count("|") for line in lines] == [7] * 4


@pytest.mark.slow
def test_shards_give_the_same_rows_to_the_last_bit(whole, tmp_path, capsys):
    out = tmp_path / "board"
    assert run(*WORDS, "--shard", "2/2", "--out", out) == 0
    assert run("scoreboard", "--merge", "--out", out) == 2
    assert "2 cells of 4" in capsys.readouterr().err
    assert run(*WORDS, "--shard", "1/2", "--out", out) == 0
    assert run("scoreboard", "--merge", "--out", out) == 0
    assert rows_of(out) == rows_of(whole)


@pytest.mark.slow
def test_a_cell_that_was_killed_goes_on_and_is_the_same(whole, tmp_path, monkeypatch):
    out = tmp_path / "board"
    plan = Plan("mixture:ring", ("instaflow",), seeds=1, budget=60_000, n=200, steps=(1, 2))

    class KilledError(BaseException):
        pass

    def killed(*args, **kwargs):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(scoreboard.runs, "evaluate", killed)  # trained, and not yet measured
        with pytest.raises(KilledError):
            scoreboard.run(plan, out)
    assert not list((out / scoreboard.CELLS).iterdir())
    trained = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    shutil.rmtree(out / scoreboard.RUNS / "instaflow-0" / "1-instaflow" / "run")  # and a part of it is lost
    (cell,) = scoreboard.run(plan, out)
    assert cell["rows"] == rows_of(whole)[2]
    again = {path: path.read_bytes() for path in out.rglob("*.safetensors")}
    assert again.keys() == trained.keys()
    assert all(again[path] == trained[path] for path in trained if "pairs" in str(path))


def test_a_teacher_of_ones_own(tmp_path, capsys, monkeypatch):
    own, out = tmp_path / "own", tmp_path / "board"
    train = ("train", "diffusion", "--problem", "mixture:moons", "--out", own)
    assert run(*train, "--updates", 20) == 0
    words = ("scoreboard", "--methods", "cd", "--seeds", 1, "--budget", 5000, "--n", 50, "--steps", 1, "--out", out)
    assert run(*words, "--problem", "mixture:moons", "--teacher", own) == 0
    index = json.loads((out / scoreboard.RUNS / "cd-0" / "0-cd" / "run" / "run.json").read_text())
    assert index["about"]["content"]["a teacher"] == runs.load(own).denoiser.content()
    assert run(*words, "--problem", "mixture:moons") == 2
    assert f"holds a scoreboard with teacher = {str(own)!r}, not None" in capsys.readouterr().err
    board = made_up({entry: [1.0] for entry in scoreboard.entries(standard())})
    file = scoreboard.bundle(board | {"plan": board["plan"] | {"teacher": str(own)}}, tmp_path / "bundled")
    assert file == tmp_path / "bundled" / scoreboard.ANOTHER / "ring.json"
    of = json.loads(file.read_text())["plan"]["teacher"]
    assert (of["method"], of["seed"], of["updates"], of["knobs"]["batch"]) == ("diffusion", 0, 20, 512)
    with monkeypatch.context() as patch:
        patch.setattr(scoreboard, "BUNDLED", tmp_path / "bundled")
        assert scoreboard.of_another_teacher("ring")["cells"] == json.loads(file.read_text())["cells"]
        assert scoreboard.bundled_names() == []
    # its weights are others after more updates
    shutil.rmtree(own)
    assert run(*train, "--updates", 21) == 0
    assert run(*words, "--problem", "mixture:moons", "--teacher", own) == 2
    assert "holds a scoreboard with teacher_content" in capsys.readouterr().err
    for teacher in (own, tmp_path / "none", ""):  # another problem's, no run, and no word
        assert run(*words[:-1], tmp_path / "other", "--teacher", teacher) == 2
    assert not (tmp_path / "other").exists()
    first, second, third = capsys.readouterr().err.strip().splitlines()
    assert "of the problem mixture:moons, not mixture:ring" in first
    assert "unknown run or bundled weights" in second
    assert "no run" in third


def test_a_verdict_counts_standard_errors():
    board = made_up(
        {("a", 1): [2.0, 2.2, 2.4], ("b", 1): [3.0, 3.2, 3.4], ("c", 1): [2.0, 2.2, 2.7], ("d", 1): [2.25, 2.25, 2.25]}
    )
    found = scoreboard.verdict(board, ("a", 1), ("b", 1))
    assert found.difference == pytest.approx(1.0)
    assert found.errors == pytest.approx(1.0 / (2 * 0.04 / 3) ** 0.5)
    assert found.word == scoreboard.HOLDS
    assert scoreboard.verdict(board, ("b", 1), ("a", 1)).word == scoreboard.NOT
    assert scoreboard.verdict(board, ("a", 1), ("c", 1)).word == scoreboard.WITHIN
    assert scoreboard.verdict(board, ("a", 1), ("d", 1)).word == scoreboard.WITHIN  # below the floor's deviation
    with pytest.raises(ValueError, match="no e in 1 step"):
        scoreboard.verdict(board, ("a", 1), ("e", 1))
    with pytest.raises(ValueError, match="two seeds"):
        scoreboard.verdict(made_up({("a", 1): [1.0], ("b", 1): [2.0]}), ("a", 1), ("b", 1))


def test_the_decks_table_stands_beside_a_scoreboard():
    assert len(headline.ROWS) == 17
    for better, worse in headline.DIRECTIONS:  # as the deck has them
        assert headline.row(*better).fid < headline.row(*worse).fid
    by_fid = {row.entry: [row.fid, row.fid + 0.02, row.fid - 0.02] for row in headline.ROWS if row.method}
    full = {
        (method, steps): by_fid.get((method, steps), [90.0, 91.0, 92.0]) for method, _ in by_fid for _, steps in by_fid
    }
    board = made_up(full)
    assert {found.word for *_, found in headline.verdicts(board)} == {scoreboard.HOLDS}
    full["rectified-flow", 1] = [1.0, 1.1, 1.2]  # ahead of all, which the deck denies twice and more
    words = [found.word for *_, found in headline.verdicts(made_up(full))]
    assert words.count(scoreboard.NOT) == 3
    lines = headline.markdown(board).splitlines()
    assert len(lines) == 2 + 17 + 3 + 2 + len(headline.DIRECTIONS)
    assert lines[20].startswith("15 of 17 rows")
    assert sum("a teacher twice as wide" in line for line in lines) == 2
    turned = headline.markdown(made_up(full))
    assert "does not | [" in turned  # a link to the experiment
    assert "does not | beyond two standard errors, the other way round" in turned
    assert headline.settled(made_up(full))[headline.row(headline.DISTILL, 1)] is False
    # on digits the bundled students, trained for longer, have it as the deck does
    of = weights.read_about("digits-instaflow")
    one, two = (row["distance"] / row["floor"] for row in of["rows"] if row["steps"] in (1, 2))
    longer = headline.markdown(made_up(full | {("instaflow", 1): [200.0, 201.0, 202.0]}, "digits"))
    assert f"does not | [longer training: {one:.1f} < {two:.1f} floors" in longer
    assert "a teacher twice as wide |" in headline.markdown(made_up(full, "mixture:moons"))  # whose teacher is exact
    with pytest.raises(ValueError, match="the scoreboard has no rectified-flow"):
        headline.verdicts(made_up({("ect", 1): [1.0, 2.0]}))


def test_a_verdict_says_how_many_seeds_it_would_need():
    board = made_up({("a", 1): [2.0, 2.4, 2.8], ("b", 1): [2.2, 2.6, 3.0], ("c", 1): [2.0, 2.4, 2.8]})
    seen = scoreboard.verdict(board, ("a", 1), ("b", 1))
    assert seen.word == scoreboard.WITHIN
    n = seen.seeds_needed
    error = (2 * 0.4**2) ** 0.5
    assert 0.2 / (error / n**0.5) >= 2 > 0.2 / (error / (n - 1) ** 0.5)
    assert scoreboard.verdict(board, ("a", 1), ("c", 1)).seeds_needed == float("inf")


def test_a_board_that_is_bundled_says_what_its_folder_says(tmp_path, monkeypatch):
    monkeypatch.setattr(scoreboard, "BUNDLED", tmp_path / "bundled")
    assert scoreboard.bundled_names() == []
    with pytest.raises(ValueError, match="unknown bundled scoreboard 'ring'; allowed: none yet"):
        scoreboard.bundled("ring")
    board = standard()
    file = scoreboard.bundle(board, scoreboard.BUNDLED)
    assert file.name == "ring.json"
    assert scoreboard.bundled_names() == ["ring"]
    kept = scoreboard.bundled("ring")
    assert scoreboard.markdown(kept) == scoreboard.markdown(board)
    assert headline.markdown(kept) == headline.markdown(board)
    file.write_text(file.read_text().replace("1.45", "1.25"))
    with pytest.raises(ValueError, match="was altered"):
        scoreboard.bundled("ring")


def test_only_a_whole_board_is_bundled(tmp_path, whole, capsys):
    board = standard()
    for changed, message in (
        ({"methods": board["plan"]["methods"][1:]}, "lacks diffusion"),
        ({"steps": [1, 2, 4, 8]}, "lacks 25"),
        ({"seeds": 2}, "3 seeds or more, and this one has 2"),
    ):
        with pytest.raises(ValueError, match=message):
            scoreboard.bundle(board | {"plan": board["plan"] | changed}, tmp_path)
    assert not list(tmp_path.iterdir())
    assert run("scoreboard", "--merge", "--bundle", "--out", whole) == 2
    assert "a bundled scoreboard has all methods" in capsys.readouterr().err


def test_questions_are_answered_by_the_board():
    board = standard(first="dmd", later="cd")
    found = {answer.question: answer.best["method"] for answer in choices.answers(board)}
    assert found["for one step"] == "dmd"
    assert found["for four steps"] == "cd"
    able = [m for m in scoreboard.standard() if not any(METHODS[s].data for s in scoreboard.stages_of(m))]
    assert "naive" in able
    assert "cd" not in able
    assert found["without data, in four steps"] == min(able, key=lambda m: mean(board, m, 4))
    with pytest.raises(ValueError, match="none of these methods"):
        scoreboard.tied(board, 4, ["no such"])
    near = standard()
    for cell in near["cells"]:
        if cell["method"] == "vsd":
            cell["rows"][0]["distance"] = 1.52  # within the floor's deviation
    assert choices.answers(near)[0].ties == ("vsd",)
    cheap, rows = choices.cheapest("digits")
    good = [row for row in rows if row["distance"] <= choices.WITHIN * min(row["distance"] for row in rows)]
    assert cheap == min(good, key=lambda row: row["passes"])
    assert len(good) < len(rows)
    ten_passes = made_up({("vsd", 1): [1.7, 1.7], ("dmd", 1): [1.6, 1.6]}, "digits", "the teacher's weights")
    entry, _ = choices.cheapest("digits", board=ten_passes)
    assert (entry["id"], entry["passes"]) == ("dmd", 10)
    with pytest.raises(ValueError, match="no student"):
        choices.cheapest("cats")
    assert choices.markdown(board).count("\n") == 1 + len(choices.QUESTIONS) + 1


def test_the_table_marks_what_the_floor_cannot_tell_from_the_best():
    board = made_up({("a", 1): [2.0, 2.0], ("b", 1): [2.05, 2.05], ("c", 1): [2.3, 2.3]})
    lines = scoreboard.markdown(board).splitlines()[2:]
    assert ["**" in line for line in lines] == [True, True, False]


def test_the_front_is_what_nothing_beats():
    rows = [{"nfe": n, "distance": d} for n, d in ((1, 5.0), (1, 4.0), (2, 4.5), (4, 2.0), (8, 2.0), (8, 1.0))]
    assert [(row["nfe"], row["distance"]) for row in scoreboard.pareto(rows)] == [(1, 4.0), (4, 2.0), (8, 1.0)]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--methods", "naiv"], "unknown method of the scoreboard 'naiv' (did you mean 'naive'?)"),
        (["--methods", "animatelcm"], "unknown method of the scoreboard"),
        (["--methods", "cd", "cd"], "name each method once"),
        (["--methods", "cd+"], "unknown method of the scoreboard ''"),
        (["--problem", "tokens:bits"], "a scoreboard is of points or images"),
        (["--problem", "mixture:rng"], "did you mean"),
        (["--shard", "3/2"], "a shard is i/m"),
        (["--shard", "0/2"], "a shard is i/m"),
        (["--budget", "0"], "--budget"),
        (["--merge"], "there is no"),
        (["--merge", "--seeds", "3"], "--merge takes all from the plan"),
        (["--bundle"], "--bundle goes with --merge"),
    ],
)
def test_bad_words_are_one_line_and_leave_nothing(words, line, tmp_path, capsys):
    assert run("scoreboard", *words, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert line in error
    assert not (tmp_path / "out").exists()


def test_another_plan_in_the_same_folder_is_refused(whole, capsys):
    before = written(whole)
    assert run(*WORDS[:-2], 4, "--out", whole) == 2
    assert "holds a scoreboard with" in capsys.readouterr().err
    assert written(whole) == before
