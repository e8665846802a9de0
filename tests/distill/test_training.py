"""The training loop: what one update does, checked against updates written by hand; several players; bad input; several
processes.
"""

import copy
import json
import math
import os
import pickle
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import browser
import pytest
import torch
from cases import RING, f64
from torch import nn

from toydiff import Cosine, runs
from toydiff.catalog import METHODS, TOKEN_METHODS
from toydiff.denoisers import LambdaDenoiser
from toydiff.discrete import TokenPath
from toydiff.nets import MLP
from toydiff.prediction import jump
from toydiff.problems import problem
from toydiff.runs.run import _no_pairs
from toydiff.support.seeds import seeded
from toydiff.training import EMA, Collapse, Diverged, Draws, State, Turn, Watch, fit, lr_factor
from toydiff.training.checkpoints import Checkpoints, read_tensors


def linear(seed=0, outputs=1):
    torch.manual_seed(seed)
    return nn.Linear(3, outputs).double()


def residual(net, batch=8):
    """A regression whose gradient is easy to write down: mean |W x + b - x_1|^2, x normal."""

    def loss(step, draws):
        x = draws.normal(batch, 3).double()
        return (net(x)[:, 0] - x[:, 0]).square().mean()

    return loss


def weights_of(net):
    return torch.cat([p.detach().reshape(-1).clone() for p in net.parameters()])


def saved_by(saves, state, steps, **settings):
    """The loop of a caller that saves: after each record, before anything else is done with it."""
    saves.load(state)
    for record in fit(state, steps, **settings):
        saves.after(record, state, steps)
        yield record


class ByHand:
    """Adam (arXiv 1412.6980, alg. 1) on the regression of `residual`, clipping and the average, all written out in
    float64.
    """

    def __init__(self, net, lr, clip=None, betas=(0.9, 0.999), decay=0.999):
        self.w, self.lr, self.clip, self.betas, self.decay = weights_of(net), lr, clip, betas, decay
        self.m, self.v, self.n, self.average = torch.zeros(4).double(), torch.zeros(4).double(), 0, self.w.clone()
        self.rng = torch.Generator().manual_seed(0)

    def update(self, factor):
        x = torch.randn(8, 3, generator=self.rng).double()
        gap = x @ self.w[:3] + self.w[3] - x[:, 0]
        gradient = torch.cat([2 * (gap[:, None] * x).mean(0), 2 * gap.mean()[None]])
        norm = gradient.norm()
        if self.clip is not None and norm > self.clip:
            gradient = gradient * (self.clip / (norm + 1e-6))
        self.n += 1
        b1, b2 = self.betas
        self.m = b1 * self.m + (1 - b1) * gradient
        self.v = b2 * self.v + (1 - b2) * gradient**2
        m, v = self.m / (1 - b1**self.n), self.v / (1 - b2**self.n)
        self.w = self.w - self.lr * factor * m / (v.sqrt() + 1e-8)
        d = min(self.decay, self.n / (9 + self.n))  # update n counts from 0 in the docstring: (1 + n)/(10 + n)
        self.average = d * self.average + (1 - d) * self.w
        return gap.square().mean().item(), norm.item()


@pytest.mark.slow
@pytest.mark.parametrize("clip", [None, 0.7, 100.0])
@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_updates_are_those_written_by_hand(clip, decay):
    """Loss, norm before clipping, weights, average, learning rate: after each record, everything is already done."""
    net = linear()
    average, hand = EMA(net, decay), ByHand(net, 0.05, clip, decay=decay)
    turn = Turn(residual(net), list(net.parameters()), 0.05)
    clipped = 0
    for record in fit(turn, 40, averages=[average], clip=clip, warmup=5, decay="cosine", period=20):
        at = (record.step - 1) % 20
        factor = (at + 1) / 6 if at < 5 else 0.01 + 0.99 * (1 + math.cos(math.pi * (at - 5) / 15)) / 2
        assert record.lr == pytest.approx(factor, rel=1e-14)
        loss, norm = hand.update(factor)
        assert record.loss == pytest.approx(loss, rel=1e-9)
        assert record.grad_norms["loss"] == pytest.approx(norm, rel=1e-9)
        clipped += clip is not None and norm > clip
        torch.testing.assert_close(weights_of(net), hand.w, rtol=1e-9, atol=1e-11)
        torch.testing.assert_close(weights_of(average.module), hand.average, rtol=1e-9, atol=1e-11)
    assert record.step == 40
    assert clip != 0.7 or clipped > 5


def test_the_average_of_decay_zero_is_the_source_and_reset_forgets():
    net = linear()
    copy_, slow = EMA(net, 0.0), EMA(net, 0.99)
    for _ in fit(Turn(residual(net), list(net.parameters()), 0.1), 7, averages=[copy_, slow]):
        assert torch.equal(weights_of(copy_.module), weights_of(net))
    assert not torch.equal(weights_of(slow.module), weights_of(net))
    slow.reset()
    assert torch.equal(weights_of(slow.module), weights_of(net))
    assert int(slow.n_averaged) == 0
    assert not any(p.requires_grad for p in slow.parameters())


def test_the_average_follows_a_source_that_was_moved():
    """To another device, or to another precision: the tensors behind the parameters are then new ones."""
    net = linear().float()
    average = EMA(net, 0.0)
    net.double()
    average.double()
    with torch.no_grad():
        net.weight += 1
    average.follow()
    assert torch.equal(weights_of(average.module), weights_of(net))


def test_learning_rate():
    factors = [lr_factor(k, 10, 3, "cosine") for k in range(10)]
    assert factors[:4] == [0.25, 0.5, 0.75, 1.0]
    assert factors[3:] == sorted(factors[3:], reverse=True)
    assert lr_factor(10, 10, 3) == pytest.approx(0.01)
    assert [lr_factor(k, 10, 2, "constant") for k in range(4)] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 1.0, 1.0]
    assert all(0 < lr_factor(k, 5, 5) <= 1 for k in range(5))


def test_a_record_comes_after_the_step_and_leaving_stops():
    net = linear()
    before = weights_of(net)
    for record in fit(Turn(residual(net), list(net.parameters())), 100):
        assert not torch.equal(weights_of(net), before)
        if record.step == 3:
            break
    at_three = weights_of(net)
    fresh = linear()
    for _ in fit(Turn(residual(fresh), list(fresh.parameters())), 100):
        if _.step == 3:
            assert torch.equal(weights_of(fresh), at_three)
            break
    assert record.seconds > 0


def test_the_same_seed_gives_the_same_bits_and_another_one_others():
    def run(seed):
        net = linear()
        for _ in fit(Turn(residual(net), list(net.parameters())), 5, seed=seed):
            pass
        return weights_of(net)

    assert torch.equal(run(3), run(3))
    assert not torch.equal(run(3), run(4))


def test_a_state_goes_on_where_it_is():
    """Seven updates in one loop, or four and three: what the loop does not hold itself is all in the state."""

    def run(*parts):
        net = linear()
        average = EMA(net, 0.5)
        state = State.of(Turn(residual(net), list(net.parameters()), 0.1), averages=[average], seed=3)
        for stop in parts:
            for record in fit(state, 7, warmup=2):
                if record.step == stop:
                    break
        assert state.step == 7
        return weights_of(net), weights_of(average.module)

    for one, other in zip(run(7), run(4, 7), strict=True):
        assert torch.equal(one, other)


def test_of_several_processes_the_first_saves(tmp_path):
    net = linear()
    state = State.of(Turn(residual(net), list(net.parameters())), modules={"net": net})
    state.draws = Draws(0, rank=1, world=2)
    list(saved_by(Checkpoints(tmp_path / "run", {}, every=1), state, 3))
    assert not (tmp_path / "run").exists()


# ---- draws


def test_parts_make_the_whole_batch():
    """Numbers are drawn for a process's own samples, as a loss that got its rows of the batch does."""

    def all_of(draws):
        own = draws.own(12)
        numbers = [draws.normal(own, 2, 3), draws.uniform(own, -1.0, 4.0), draws.integers(own, 7)]
        numbers += [draws.uniform(own, shape=(3,)), draws.integers(own, 7, (2, 2))]
        return [*numbers, draws.rows(lambda n, rng: torch.arange(n), 12)]

    whole = all_of(Draws(5))
    for world in (2, 3, 4):
        parts = [all_of(Draws(5, rank=rank, world=world)) for rank in range(world)]
        for k, one in enumerate(whole):
            together = torch.empty_like(one)
            for rank, part in enumerate(parts):
                assert len(part[k]) == 12 // world
                together[rank::world] = part[k]
            assert torch.equal(together, one)
    assert whole[1].min() >= -1
    assert whole[1].max() < 4
    assert set(whole[2].tolist()) <= set(range(7))


# ---- several players, as the consistency family and score distillation need


def ring_net(seed, kind="v", hidden=16):
    torch.manual_seed(seed)
    net = MLP(2, hidden=hidden, depth=1).double()
    with torch.no_grad():  # networks start as zero, where gradients through them vanish
        for p in net.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return LambdaDenoiser(net, Cosine(), kind)


def mixture_rows(draws, batch):
    return draws.rows(lambda n, rng: RING.sample(n, rng, dtype=torch.float64), batch)


def consistency(student, target, teacher, batch=16):
    """Consistency distillation in miniature: |f(x_t, t) - f_target(x_s, s)|^2, x_s a step of the teacher from x_t."""

    def loss(step, draws):
        t = draws.uniform(batch, 0.2, 1.0).double()
        x_t = teacher.schedule.mix(mixture_rows(draws, batch), draws.normal(batch, 2).double(), t)
        with torch.no_grad():
            y = target.module(jump(teacher(x_t, t), t - 0.1), t - 0.1).x0
        return (student(x_t, t).x0 - y).square().mean()

    return loss


def test_a_target_that_is_an_average_is_used_inside_the_loss():
    """The target of update n is the average after update n - 1: the same as a loop with `torch.optim` and a recursion
    by hand.
    """
    teacher = RING.denoiser(Cosine(), "x0")
    student, mirror = ring_net(1), ring_net(1)
    target, behind = EMA(student, 0.9), copy.deepcopy(mirror)
    turn = Turn(consistency(student, target, teacher), list(student.parameters()), 1e-2)

    class Holder:
        module = behind

    by_hand, draws = consistency(mirror, Holder, teacher), Draws(0)
    optimizer = torch.optim.Adam(mirror.parameters(), lr=1e-2, foreach=False)
    records = []
    for record in fit(turn, 30, averages=[target], clip=None, decay="constant"):
        records.append(record.loss)
        optimizer.zero_grad()
        loss = by_hand(record.step - 1, draws)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            d = min(0.9, record.step / (9 + record.step))
            for a, p in zip(behind.parameters(), mirror.parameters(), strict=True):
                a.copy_(d * a + (1 - d) * p)
        assert record.loss == pytest.approx(loss.item(), rel=1e-8)
        torch.testing.assert_close(weights_of(student), weights_of(mirror), rtol=1e-8, atol=1e-9)
        torch.testing.assert_close(weights_of(target.module), weights_of(behind), rtol=1e-8, atol=1e-9)
    assert len(set(records)) == 30


def score_players(seed=0):
    """Score distillation in miniature: a generator, a second model that learns the generator's samples, and a frozen
    denoiser.
    """
    return ring_net(seed + 1, "x0"), ring_net(seed + 2), ring_net(seed + 3).requires_grad_(False)


def score_turns(generator, fake, teacher, batch=16, repeats=2):
    ones = torch.ones(batch).double()

    def generate(draws):
        return generator(draws.normal(batch, 2).double(), ones).x0

    def noised(x0, draws):
        t = draws.uniform(batch, 0.1, 0.9).double()
        return teacher.schedule.mix(x0, draws.normal(batch, 2).double(), t), t

    def match(step, draws):
        x_t, t = noised(generate(draws), draws)
        # gradients run through both denoisers, the frozen one and the fake one, into the generator
        return (fake(x_t, t).x0 - teacher(x_t, t).x0).square().mean()

    def learn(step, draws):
        with torch.no_grad():
            x0 = generate(draws)
        x_t, t = noised(x0, draws)
        return (fake(x_t, t).x0 - x0).square().mean()

    return [
        Turn(match, list(generator.parameters()), 1e-3, betas=(0.0, 0.9), name="generator"),
        Turn(learn, list(fake.parameters()), 3e-3, repeats=repeats, name="fake"),
    ]


def test_two_turns_alternate_and_touch_only_their_own_parameters():
    """The same weights as a loop of two `torch.optim` optimizers, in which what a loss leaves in another's gradient is
    wiped.
    """
    players = score_players()
    mirror = copy.deepcopy(players)
    turns, by_hand = score_turns(*players), score_turns(*mirror)
    optimizers = [torch.optim.Adam(turn.params, lr=turn.lr, betas=turn.betas, foreach=False) for turn in by_hand]
    draws, frozen = Draws(0), weights_of(players[2])
    for record in fit(turns, 12, clip=0.5, decay="constant"):
        for turn, optimizer in zip(by_hand, optimizers, strict=True):
            for _ in range(turn.repeats):
                for p in (p for player in mirror for p in player.parameters()):
                    p.grad = None
                loss = turn.loss(record.step - 1, draws)
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(turn.params, 0.5)
                optimizer.step()
            assert record.losses[turn.name] == pytest.approx(loss.item(), rel=1e-7)
            assert record.grad_norms[turn.name] == pytest.approx(norm.item(), rel=1e-7)
        for mine, theirs in zip(players[:2], mirror[:2], strict=True):
            torch.testing.assert_close(weights_of(mine), weights_of(theirs), rtol=1e-7, atol=1e-9)
        assert all(p.grad is None for player in players for p in player.parameters())
        assert torch.equal(weights_of(players[2]), frozen)
    assert record.loss == record.losses["generator"]


@pytest.mark.parametrize("who", [0, 1])
def test_one_turn_alone_moves_one_player(who):
    players = score_players()
    before = [weights_of(player) for player in players]
    for _ in fit(score_turns(*players)[who], 2):
        pass
    moved = [not torch.equal(weights_of(player), was) for player, was in zip(players, before, strict=True)]
    assert moved == [k == who for k in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 3])
def test_two_players_and_a_target_resume_bit_for_bit(tmp_path, every):
    """As the next families will save themselves: two optimizers, an average that a loss uses, a frozen teacher,
    dropout's global stream.
    """

    def run(folder, stops, resume=False):
        generator, fake, teacher = score_players()
        drop = nn.Dropout(0.3)
        target = EMA(generator, 0.9)
        turns = score_turns(generator, fake, teacher)

        def with_target(step, draws, plain=turns[0].loss):
            noise, ones = draws.normal(16, 2).double(), torch.ones(16).double()
            return (
                plain(step, draws) + (drop(generator(noise, ones).x0) - target.module(noise, ones).x0).square().mean()
            )

        turns[0].loss = with_target
        modules = {"generator": generator, "fake": fake, "teacher": teacher, "target": target}
        saves = Checkpoints(folder, {"what": "two players"}, every, resume)
        state = State.of(turns, averages=[target], modules=modules, seed=5)
        for record in saved_by(saves, state, 12, warmup=2):
            if record.step == stops:
                break

    torch.manual_seed(0)
    run(tmp_path / "whole", None)
    torch.manual_seed(0)
    for k, stop in enumerate((4, 6, 11, None)):
        run(tmp_path / "cut", stop, resume=k > 0)
        torch.manual_seed(99 + k)
    name = "step-00000012.safetensors"
    whole, cut = read_tensors(tmp_path / "whole" / name), read_tensors(tmp_path / "cut" / name)
    assert whole.keys() == cut.keys()
    assert sum(key.startswith("optimizer.1.") for key in whole) > 10
    assert [key for key in whole if not torch.equal(whole[key], cut[key])] == []
    history = [json.loads((tmp_path / k / "run.json").read_text())["history"] for k in ("whole", "cut")]
    assert history[0] == history[1]
    assert [len(row) for row in history[0]] == [3] * 12


# ---- a watch


def watched(figures, every=2, patience=None, seed=0):
    """A regression whose average is looked at; the figures are those of a test, one row after the other."""
    net = linear(seed)
    average = EMA(net, 0.5)
    rows = iter(figures)
    seen = []

    def evaluate(module):
        seen.append(weights_of(module))
        row = next(rows)
        return dict(row) if isinstance(row, dict) else {"distance": row}

    watch = Watch(average, evaluate, every, patience)
    return net, average, watch, seen


def fit_watched(net, average, watch, updates, saves=None):
    turn = Turn(residual(net), list(net.parameters()), 1e-2)
    if saves is None:
        return fit(turn, updates, averages=[average], watch=watch)
    state = State.of(turn, averages=[average], modules={"net": net, "average": average, "watch": watch})
    return saved_by(saves, state, updates, watch=watch)


def test_a_watch_keeps_the_best_average_that_it_saw():
    net, average, watch, seen = watched([5.0, 3.0, 4.0, 2.0, 6.0])
    records = list(fit_watched(net, average, watch, 7))
    assert [(r.step, r.measured["distance"]) for r in records if r.measured] == [(2, 3.0), (4, 4.0), (6, 2.0), (7, 6.0)]
    assert (int(watch.step), float(watch.distance), int(watch.last), watch.over) == (6, 2.0, 7, False)
    assert torch.equal(weights_of(watch.best), seen[3])
    assert not torch.equal(seen[3], weights_of(average.module))
    assert records[1].measured["gradient_loss"] == records[1].grad_norms["loss"]
    assert not any(p.requires_grad for p in watch.best.parameters())


def test_a_start_that_was_never_beaten_is_the_best():
    net, average, watch, _seen = watched([1.0, 3.0, math.nan])
    before = weights_of(net)
    list(fit_watched(net, average, watch, 4))
    assert int(watch.step) == 0
    assert torch.equal(weights_of(watch.best), before)


def test_a_watch_ends_a_run_that_gets_no_better(tmp_path):
    figures = [5.0, 3.0, 3.0, 4.0, 3.5, 1.0]
    net, average, watch, _ = watched(figures, patience=3)
    saves = Checkpoints(tmp_path / "run", {}, every=100)
    records = list(fit_watched(net, average, watch, 50, saves))
    assert records[-1].step == 8
    assert [record.last for record in records] == [False] * 7 + [True]
    assert watch.over
    index = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (index["step"], index["steps"]) == (8, 8)  # it is saved, and is finished
    assert [row["distance"] for row in index["measured"]] == figures[:5]
    # a continued run knows that it is over
    net, average, watch, seen = watched([1.0], patience=3, seed=4)
    assert list(fit_watched(net, average, watch, 50, Checkpoints(tmp_path / "run", {}, resume=True))) == []
    assert (seen, int(watch.step)) == ([], 2)


def test_a_watched_run_continues_as_if_it_had_not_been_interrupted(tmp_path):
    figures = [5.0, 3.0, 4.0, 2.0, 6.0, 7.0]

    def run(folder, stops, k):
        net, average, watch, _ = watched(figures[k:])
        saves = Checkpoints(tmp_path / folder, {}, every=1, resume=True)
        for record in fit_watched(net, average, watch, 10, saves):
            if record.step == stops:
                break
        return watch

    whole = run("whole", None, 0)
    run("cut", 3, 0)
    run("cut", 8, 2)
    cut = run("cut", None, 5)
    assert {k: v.tolist() for k, v in whole.state_dict().items()} == {
        k: v.tolist() for k, v in cut.state_dict().items()
    }
    a, b = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("whole", "cut"))
    assert a["measured"] == b["measured"]
    assert a["sha256"] == b["sha256"]


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"spread": (0.9, 1.0, 0.2)}, r"at update 4 the spread of the samples is 0.2, and was 1"),
        ({"coverage": (1.0, 1.0, 0.375)}, r"at update 4 the part of the modes that were found is 0.375, and was 1"),
        ({"spread": (0.9, 1.0, math.nan)}, r"the spread of the samples is nan, and was 1"),
    ],
)
def test_a_collapse_stops_the_run_and_is_not_saved(tmp_path, figures, message):
    [(name, values)] = figures.items()
    net, average, watch, _ = watched([{"distance": 1.0, name: value} for value in values])
    saves = Checkpoints(tmp_path / "run", {}, every=3)
    with pytest.raises(Collapse, match=rf"{message}; try a smaller learning rate, and, where there is a second model"):
        list(fit_watched(net, average, watch, 50, saves))
    assert saves.last_good == f"the last good checkpoint is that of update 3 in {str(tmp_path / 'run')!r}"
    assert json.loads((tmp_path / "run" / "run.json").read_text())["step"] == 3
    assert issubclass(Collapse, FloatingPointError)


def test_a_spread_that_grows_from_nothing_is_no_collapse():
    """A generator that starts as a mean starts as a point; one that starts too wide comes back to the data's spread."""
    net, average, watch, _ = watched(
        [{"distance": 1.0, "spread": v, "coverage": c} for v, c in ((0.0, 0.0), (5.0, 0.5), (0.6, 0.375), (1.0, 1.0))]
    )
    list(fit_watched(net, average, watch, 6))


def test_a_watch_refuses_what_is_no_number_of_updates():
    average = EMA(linear(), 0.5)
    for settings, message in (((0,), "every must be"), ((2, 0), "patience must be"), ((1.5,), "every must be")):
        with pytest.raises(ValueError, match=message):
            Watch(average, dict, *settings)


# ---- what must not happen


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(tmp_path, bad, where):
    net = linear()
    average = EMA(net, 0.5)
    plain = residual(net)

    def loss(step, draws):
        value = plain(step, draws)
        if step < 7:
            return value
        if where == "loss":
            return value * bad
        return value + torch.sqrt(net.weight.sum() * 0)  # finite itself, but d sqrt(x) is infinite at 0

    saves = Checkpoints(tmp_path / "run", {}, every=3)
    turn = Turn(loss, list(net.parameters()))
    steps = saved_by(saves, State.of(turn, averages=[average], modules={"net": net, "average": average}), 20)
    for record in steps:
        last = weights_of(net), weights_of(average.module)
        if record.step == 7:
            break
    message = r"^the loss 'loss' at update 8 is [^\n]*, with a gradient of norm [^\n]*; try a smaller learning rate$"
    with pytest.raises(FloatingPointError, match=message):
        next(steps)
    assert torch.equal(weights_of(net), last[0])
    assert torch.equal(weights_of(average.module), last[1])
    assert [p.name for p in (tmp_path / "run").glob("step-*")] == ["step-00000006.safetensors"]
    assert "that of update 6 in" in saves.last_good


@pytest.mark.parametrize("kind", [Diverged, Collapse])
def test_an_error_says_what_is_left_where_that_is_known(kind):
    assert str(kind("it broke")) == f"it broke; {kind.ADVICE}"
    error = kind("it broke", "nothing was saved")
    assert str(error) == f"it broke; nothing was saved; {kind.ADVICE}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_parameters_that_a_loss_does_not_reach_stay():
    """They get a zero gradient, so that a checkpoint has one set of moments whatever the loss reaches."""
    net = linear(outputs=2)
    before = weights_of(net).reshape(-1)
    for _ in fit(Turn(residual(net), list(net.parameters())), 3):
        pass
    after = weights_of(net)
    assert torch.equal(after[3:6], before[3:6])
    assert not torch.equal(after[:3], before[:3])


def _turn(**changes):
    net = linear()
    return Turn(**{"loss": residual(net), "params": list(net.parameters())} | changes)


NET = linear()
BAD = {
    "no turns": (lambda: fit([], 3), "nothing to train"),
    "no parameters": (lambda: _turn(params=[]), "the turn 'loss' has no parameters to train"),
    "frozen parameters": (
        lambda: _turn(params=list(linear().requires_grad_(False).parameters())),
        "no parameters to train",
    ),
    "lr zero": (lambda: _turn(lr=0.0), "lr must be a finite number > 0, got 0.0"),
    "lr nan": (lambda: _turn(lr=math.nan), "lr must be a finite number > 0, got nan"),
    "no repeats": (lambda: _turn(repeats=0), "repeats must be a whole number >= 1, got 0"),
    "two of a name": (lambda: fit([_turn(), _turn()], 3), "every turn needs a name of its own, got loss, loss"),
    "no steps": (lambda: fit(_turn(), 0), "steps must be a whole number >= 1, got 0"),
    "half a step": (lambda: fit(_turn(), 2.5), "steps must be a whole number >= 1, got 2.5"),
    "warm-up": (lambda: fit(_turn(), 3, warmup=-1), "warmup must be a whole number >= 0, got -1"),
    "period": (lambda: fit(_turn(), 3, period=0), "period must be a whole number >= 1, got 0"),
    "decay": (
        lambda: fit(_turn(), 3, decay="cosin"),
        r"unknown decay 'cosin' \(did you mean 'cosine'\?\); allowed: cosine, constant",
    ),
    "clip": (lambda: fit(_turn(), 3, clip=0), "clip must be a finite number > 0, got 0"),
    "seed": (lambda: fit(_turn(), 3, seed=-1), "seed must be a whole number >= 0, got -1"),
    "a loss of two numbers": (
        lambda: fit(_turn(loss=lambda s, d: NET(torch.ones(2, 3).double())[:, 0]), 3),
        r"a loss is a scalar, got shape \(2,\)",
    ),
    "average, one": (lambda: EMA(NET, 1.0), r"the decay of an average lies in \[0, 1\), got 1.0"),
    "average, nan": (lambda: EMA(NET, math.nan), r"lies in \[0, 1\), got nan"),
    "an uneven share": (lambda: Draws(0, world=2).own(3), "a batch of 3 cannot be shared evenly by 2 processes"),
    "uneven rows": (
        lambda: Draws(0, world=2).rows(lambda n, rng: torch.zeros(n), 3),
        "a batch of 3 cannot be shared evenly by 2 processes",
    ),
    "an empty batch": (lambda: Draws(0).own(0), "batch must be a whole number >= 1, got 0"),
    "a seed beside a state": (
        lambda: fit(State.of(_turn()), 3, seed=1),
        "a state has its averages and its seed already",
    ),
    "averages beside a state": (
        lambda: fit(State.of(_turn()), 3, averages=[EMA(NET)]),
        "a state has its averages and its seed already",
    ),
    "a state of no turns": (lambda: State.of([]), "nothing to train"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_one_line(what):
    make, message = BAD[what]
    with pytest.raises(ValueError, match=message) as found:
        next(iter(make()))
    assert "\n" not in str(found.value)


def test_a_checkpoint_that_would_lack_weights_is_refused(tmp_path):
    net, other = linear(), linear(1)
    average = EMA(net, 0.5)
    turns = [Turn(residual(net), list(net.parameters())), Turn(residual(other), list(other.parameters()), name="other")]
    saves = Checkpoints(tmp_path / "run", {})
    lacking = {
        "'other'": State.of(turns, modules={"net": net}),
        "'average 0'": State.of(turns[0], averages=[average], modules={"net": net}),
    }
    for name, state in lacking.items():
        for save in (lambda state=state: saves.load(state), lambda state=state: saves.save(state, 3)):
            with pytest.raises(ValueError, match=f"a checkpoint would lack weights of {name}"):
                save()
    assert not (tmp_path / "run").exists()


# ---- several processes


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    """Two processes on the processor share the batch, and their weights are those of one process without accelerate.

    They are given what a launcher gives them; torchrun itself starts the command in test_hard_folders.

    In float64, to 1e-9: the processes' gradients are added in another order than one process adds them, which is some
    1e-16 of them, and Adam divides each by its own size, however small, so that the smallest may differ by more.
    Resumed, two processes repeat themselves bit for bit.
    """
    pytest.importorskip("accelerate", reason="several processes need the extra package accelerate")
    job = Path(__file__).with_name("accelerate_job.py")
    searched = os.pathsep.join(map(str, [job.parents[1], *filter(None, [os.environ.get("PYTHONPATH")])]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "PYTHONPATH": searched}
    environment |= {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(browser.free_port())}
    ranks = [{"RANK": rank, "LOCAL_RANK": rank} for rank in "01"]
    pair = [subprocess.Popen([sys.executable, job, tmp_path / "2"], env=environment | rank) for rank in ranks]
    assert [process.wait(300) for process in pair] == [0, 0]
    before = torch.get_default_dtype()
    try:
        runpy.run_path(str(job))["main"](tmp_path / "1", 1)
    finally:
        torch.set_default_dtype(before)
    for what in ("points", "images", "clips"):
        runs = {}
        for folder in ("1/whole", "2/whole", "2/cut"):
            index = json.loads((tmp_path / f"{folder}-{what}" / "run.json").read_text())
            runs[folder] = read_tensors(tmp_path / f"{folder}-{what}" / index["file"]), index["history"]
        (one, losses), (two, losses_of_two), (cut, losses_of_cut) = runs.values()
        assert [key for key in two if not torch.equal(two[key], cut[key])] == []
        assert losses_of_two == losses_of_cut
        torch.testing.assert_close(f64(losses_of_two), f64(losses), rtol=1e-9, atol=0)
        del one["global_random"]  # of the process, which nothing here draws from
        for key, value in one.items():
            torch.testing.assert_close(two[key], value, rtol=1e-9, atol=1e-9, msg=lambda m, key=key: f"{key}: {m}")
        assert {value.dtype for key, value in one.items() if key.endswith("through.weight")} == {torch.float64}


def test_threads_that_draw_weights_together_draw_what_each_alone_would():
    def weights(seed):
        with seeded(seed):
            return torch.cat([torch.nn.Linear(8, 8).weight.detach().ravel() for _ in range(20)])

    alone = {seed: weights(seed) for seed in range(4)}
    before, interval = torch.get_rng_state(), sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda k: (k % 4, weights(k % 4)), range(80)))
    finally:
        sys.setswitchinterval(interval)
    assert all(torch.equal(drawn, alone[seed]) for seed, drawn in together)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["mixture:ring", "digits", "tokens:markov", "tokens:digits", "sequence:ring"])
def test_every_recipe_is_allowed_where_it_stands(name):
    on, set_up = problem(name), 0
    for method, card in (METHODS | TOKEN_METHODS).items():
        if card.fits(on.scale):
            teacher = on.posterior(TokenPath(on.vocab)) if card.tokens else on.student()
            pairs = _no_pairs(on) if card.needs == "pairs" else None
            card.train(on, runs.knobs(method, on), None if card.needs == "nothing" else teacher, pairs)
            set_up += 1
    assert set_up
