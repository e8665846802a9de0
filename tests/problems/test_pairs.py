"""Pairs of a teacher's ODE: each shard from its number alone, damaged and foreign folders refused, and the coupling
exact where it must be.
"""

import json
import random
import shutil
from pathlib import Path

import pytest
import torch
from cases import ALL_SCHEDULES, RING, close, f64
from tiny import TinyDigits, TinyMixture

from toydiff import Cosine, Linear, Prediction, jump, solve
from toydiff.problems import MixtureProblem
from toydiff.problems import pairs as module
from toydiff.problems.pairs import Pairs, Recipe, load_pairs, make_pairs, save_pairs
from toydiff.training import Draws

PROBLEM = TinyMixture()
RECIPE = Recipe(n=25, steps=4, seed=3)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(module, "SHARD", 10)


@pytest.fixture
def folder(tmp_path):
    save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, tmp_path / "pairs", teacher_name="own")
    return tmp_path / "pairs"


def refused(make, match):
    with pytest.raises(ValueError, match=match) as found:
        make()
    assert "\n" not in str(found.value)
    return True


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_a_pair_is_where_the_teacher_takes_a_noise(folder):
    pairs = load_pairs(folder)
    assert len(pairs) == 25
    start = PROBLEM.schedule.sigma(torch.ones(())) * pairs.noise
    path = solve(PROBLEM.teacher, start, 4, solver=RECIPE.solver, grid=RECIPE.grid)
    close(pairs.x0, path.end, 1e-5)
    assert pairs.cond is None
    assert pairs.teacher_calls == 25 * path.nfe == 25 * 4
    # standard normal, all different
    assert len(torch.unique(pairs.noise[:, 0])) == 25
    big = make_pairs(PROBLEM, PROBLEM.teacher, Recipe(n=4000, steps=1)).noise
    assert abs(float(big.mean())) < 4 / 8000**0.5
    assert abs(float(big.var()) - 1) < 4 * (2 / 8000) ** 0.5


def test_pairs_on_disk_are_those_in_memory(folder):
    memory, disk = make_pairs(PROBLEM, PROBLEM.teacher, RECIPE), load_pairs(folder)
    assert torch.equal(memory.noise, disk.noise)
    assert torch.equal(memory.x0, disk.x0)
    assert memory.about | {"teacher": "own"} == disk.about


@pytest.mark.parametrize("lost", [(0,), (1,), (2,), (0, 2), (0, 1, 2)])
def test_an_interrupted_generation_goes_on_with_the_same_bits(folder, lost):
    before = content(folder)
    (folder / "pairs.json").unlink()
    for k in lost:
        (folder / f"pairs-{k:05d}.safetensors").unlink()
    made = []
    real = module.shard
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "shard", lambda *a: made.append(a[-1]) or real(*a))
        save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, folder, teacher_name="own")
    assert made == list(lost)
    assert content(folder) == before


def test_an_interrupted_generation_is_no_set_of_pairs_yet(tmp_path, monkeypatch):
    real = module.shard

    def dies(problem, teacher, recipe, k):
        if k == 2:
            raise KeyboardInterrupt
        return real(problem, teacher, recipe, k)

    monkeypatch.setattr(module, "shard", dies)
    with pytest.raises(KeyboardInterrupt):
        save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, tmp_path, teacher_name="own")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "pairs-00000.safetensors",
        "pairs-00001.safetensors",
        "plan.json",
    ]
    refused(lambda: load_pairs(tmp_path), "there is no set of pairs at .*: it has no pairs.json")
    monkeypatch.setattr(module, "shard", real)
    assert len(save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, tmp_path, teacher_name="own")) == 25


def test_a_finished_folder_is_only_loaded(folder, monkeypatch):
    monkeypatch.setattr(module, "shard", None)
    assert len(save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, folder, teacher_name="own")) == 25


@pytest.mark.parametrize(
    ("recipe", "teacher", "message"),
    [
        (Recipe(n=26, steps=4, seed=3), "own", "have n = 25, not 26; choose another folder, or the same settings"),
        (Recipe(n=25, steps=5, seed=3), "own", "have steps = 4, not 5"),
        (Recipe(n=25, steps=4, seed=4), "own", "have seed = 3, not 4"),
        (Recipe(n=25, steps=4, seed=3, solver="ddim"), "own", "have solver = 'guarded', not 'ddim'"),
        (Recipe(n=25, steps=4, seed=3, guidance_scale=2.0), "own", "have guidance_scale = 1.0, not 2.0"),
        (RECIPE, "another", "have teacher = 'own', not 'another'"),
    ],
)
def test_another_recipe_is_refused_whether_finished_or_not(folder, recipe, teacher, message):
    for _ in range(2):
        refused(lambda: save_pairs(PROBLEM, PROBLEM.teacher, recipe, folder, teacher_name=teacher), message)
        (folder / "pairs.json").unlink(missing_ok=True)


def test_another_problem_is_refused(folder):
    other = MixtureProblem(RING, "mixture:other")
    refused(
        lambda: save_pairs(other, other.teacher, RECIPE, folder, teacher_name="own"),
        "have problem = 'mixture:ring', not 'mixture:other'",
    )


def test_damaged_pairs_are_refused(folder, tmp_path):
    rng = random.Random(0)
    for name, truncated in (
        ("pairs.json", "is truncated or is not JSON: it is not a whole set of pairs"),
        ("pairs-00001.safetensors", "is truncated or was altered"),
    ):
        data = (folder / name).read_bytes()
        for length in (0, 1, 7, 8, 9, len(data) // 2, len(data) - 9, len(data) - 2):
            (folder / name).write_bytes(data[:length])
            refused(lambda: load_pairs(folder), truncated)
        for _ in range(20):
            flipped = bytearray(data)
            flipped[rng.randrange(len(data) - 1)] ^= 1 << rng.randrange(8)
            (folder / name).write_bytes(flipped)
            refused(lambda: load_pairs(folder), "was altered|is not JSON|is not a set of pairs|has version")
        (folder / name).unlink()
        refused(lambda: load_pairs(folder), "there is no set of pairs|is missing")
        (folder / name).write_bytes(data)
    assert len(load_pairs(folder)) == 25
    (folder / "plan.json").write_text("{")
    refused(
        lambda: save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, folder, teacher_name="own"), "is not a whole plan of pairs"
    )
    (folder / "plan.json").unlink()
    refused(
        lambda: save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, folder, teacher_name="own"),
        "holds pairs without their plan",
    )
    refused(lambda: load_pairs(tmp_path / "none"), "there is no set of pairs at")
    (folder / "pairs.json").write_text(json.dumps({"format": "toydiff-run", "version": 1}))
    refused(lambda: load_pairs(folder), "is not a set of pairs: its format is not 'toydiff-pairs'")
    (tmp_path / "file").write_text("x")
    refused(lambda: save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, tmp_path / "file", teacher_name="own"), "it is a file")


def test_a_damaged_shard_of_an_unfinished_set_is_refused(folder):
    (folder / "pairs.json").unlink()
    shard = folder / "pairs-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    refused(
        lambda: save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, folder, teacher_name="own"),
        "pairs-00001.safetensors' is truncated",
    )
    shard.unlink()
    (folder / "pairs.json").unlink(missing_ok=True)
    assert len(save_pairs(PROBLEM, PROBLEM.teacher, RECIPE, folder, teacher_name="own")) == 25


def test_a_teacher_that_fails_is_said(tmp_path):
    class Broken(type(PROBLEM.teacher)):
        def forward(self, x, t, cond=None):
            p = super().forward(x, t, cond)
            return type(p)(p.x, p.t, p.x0 * float("nan"), p.eps, p.schedule)

    teacher = Broken(RING, PROBLEM.schedule, "eps")
    with pytest.raises(FloatingPointError, match="the samples became NaN or infinite"):
        save_pairs(PROBLEM, teacher, RECIPE, tmp_path, teacher_name="own")
    assert list(tmp_path.glob("pairs*")) == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n must be a whole number >= 1, got 0"),
        ({"steps": 0}, "steps must be a whole number >= 1"),
        ({"seed": -1}, "seed must be a whole number >= 0"),
    ],
)
def test_bad_recipes(settings, message):
    refused(lambda: Recipe(**settings), message)


# ---- by class, and guided


def test_images_are_drawn_by_class_and_guidance_costs_twice(tmp_path):
    digits = TinyDigits()
    plain = save_pairs(digits, digits.teacher, Recipe(n=12, steps=2), tmp_path / "1", teacher_name="own")
    guided = save_pairs(
        digits, digits.teacher, Recipe(n=12, steps=2, guidance_scale=3.0), tmp_path / "3", teacher_name="own"
    )
    assert plain.cond.shape == (12,)
    assert set(plain.cond.tolist()) <= set(range(10))
    assert torch.equal(plain.cond, guided.cond)
    assert torch.equal(plain.noise, guided.noise)
    assert not torch.equal(plain.x0, guided.x0)
    assert (plain.teacher_calls, guided.teacher_calls) == (12 * 2, 12 * 4)
    _, _, cond = plain.draw(digits.schedule, 6, Draws(0))
    assert cond.shape == (6,)


# ---- the coupling


@pytest.fixture(scope="module")
def pairs64():
    rng = torch.Generator().manual_seed(1)
    return Pairs(
        torch.randn(50, 2, generator=rng, dtype=torch.float64),
        torch.randn(50, 2, generator=rng, dtype=torch.float64),
        None,
        {"nfe": 4},
    )


def test_the_path_of_a_pair_runs_from_where_the_teacher_started_to_where_it_ended(schedule, pairs64):
    """x_1 = sigma(1) noise exactly, and x_0 as stored: whatever alpha(1) is."""
    x0, eps, cond = pairs64.draw(schedule, 64, Draws(0))
    i = Draws(0).integers(64, 50)
    assert cond is None
    start = schedule.sigma(f64(1.0)) * pairs64.noise[i]
    close(schedule.mix(x0, eps, 1.0), start, 1e-12)
    at_data = Prediction(start, f64(1.0), x0, eps, schedule)
    close(jump(at_data, 0.0), schedule.alpha(f64(0.0)) * pairs64.x0[i] + schedule.sigma(f64(0.0)) * eps, 1e-12)
    # by hand: with sigma(0) = 0 and alpha(0) = 1, eps = (start - alpha(1) x_0)/sigma(1)
    if schedule.sigma(f64(0.0)) == 0 and schedule.alpha(f64(0.0)) == 1:
        close(x0, pairs64.x0[i], 1e-12)
        by_hand = pairs64.noise[i] - schedule.alpha(f64(1.0)) / schedule.sigma(f64(1.0)) * pairs64.x0[i]
        close(eps, by_hand, 1e-12)


@pytest.mark.parametrize("schedule", [Cosine(), Linear()])
def test_where_there_is_no_signal_the_eps_is_the_noise(schedule, pairs64):
    x0, eps, _ = pairs64.draw(schedule, 32, Draws(5))
    i = Draws(5).integers(32, 50)
    assert torch.equal(eps, pairs64.noise[i])
    close(x0, pairs64.x0[i], 1e-15)


def test_where_there_is_signal_the_eps_is_not_the_noise(pairs64):
    schedule = ALL_SCHEDULES["scaled-linear"]
    _, eps, _ = pairs64.draw(schedule, 32, Draws(5))
    assert (eps - pairs64.noise[Draws(5).integers(32, 50)]).abs().max() > 0.01


def test_shuffling_breaks_the_pairing_and_nothing_else(pairs64):
    shuffled = pairs64.shuffled(0)
    assert torch.equal(shuffled.x0, pairs64.x0)
    assert torch.equal(shuffled.noise.sort(0).values, pairs64.noise.sort(0).values)
    assert (shuffled.noise == pairs64.noise).all(1).sum() < 5
    assert torch.equal(pairs64.shuffled(0).noise, shuffled.noise)
    assert not torch.equal(pairs64.shuffled(1).noise, shuffled.noise)
    assert shuffled.about["shuffled"]
    assert shuffled.teacher_calls == pairs64.teacher_calls == 200


def test_all_pairs_are_drawn_and_shared_by_processes(pairs64):
    x0, eps, _ = pairs64.draw(Linear(), 60, Draws(2))
    for rank in range(3):
        own_x0, own_eps, _ = pairs64.draw(Linear(), 60, Draws(2, rank=rank, world=3))
        assert torch.equal(own_x0, x0[rank::3])
        assert torch.equal(own_eps, eps[rank::3])
    draws = Draws(0)
    drawn = torch.cat([pairs64.draw(Linear(), 60, draws)[0] for _ in range(20)])
    assert len(torch.unique(drawn[:, 0])) == 50


def test_folders_can_be_moved(folder, tmp_path):
    shutil.move(folder, tmp_path / "elsewhere")
    assert len(load_pairs(Path(tmp_path / "elsewhere"))) == 25
