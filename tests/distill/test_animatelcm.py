"""AnimateLCM: what each stage trains and freezes, its target, its fixed point, and its runs."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from cases import close
from commands import png_text, run
from students import minimise
from test_checkpoints import end_of, same
from tiny import TinyClips
from torch import nn

from toydiff import Denoiser, Prediction, jump, runs, solve
from toydiff.catalog import METHODS
from toydiff.distill.animatelcm import AnimateLCMKnobs, animatelcm
from toydiff.distill.distances import mse
from toydiff.distill.lcm import lcm_loss
from toydiff.nets import ClipMLP, FirstFrame
from toydiff.problems import SequenceProblem, mixture, problem, sequence
from toydiff.problems.sequences import lag_correlation, ring_clips
from toydiff.training import Draws, lr_factor

FEW = {"updates": 12, "batch": 8, "warmup": 0, "ema": 0.5, "rank": 2, "intervals": 10}


class Tiny(SequenceProblem):
    """Clips of four frames, and a small network of them."""

    def __init__(self):
        super().__init__(ring_clips(frames=4), "sequence:tiny", frames=4)

    def network(self, *, guided=False):
        return ClipMLP(4, 2, hidden=8, depth=1, classes=self.classes, guided=guided)


PROBLEMS = {"points": Tiny(), "digits": TinyClips()}
OWN = {"points": {}, "digits": {"batch": 2, "frames": 2, "given": 0.5, "g_max": 2.0}}


@pytest.fixture(params=PROBLEMS)
def what(request):
    return request.param


def few(what, **how):
    """The training of a few updates on points or digits."""
    changes = FEW | OWN[what] | how.pop("changes", {})
    return runs.train("animatelcm", PROBLEMS[what], changes=changes, **how)


def weights(training):
    """All weights of student and teacher, by name."""
    found = {"teacher": training.modules["teacher"].net, "student": training.student.net}
    return {f"{who}.{k}": v.detach().clone() for who, net in found.items() for k, v in net.named_parameters()}


def part(name):
    """The part of the method to which a weight belongs."""
    who, first, *rest = name.split(".")
    if first != "image":
        return f"{who} motion"
    return f"{who} LoRA" if rest[-1] in ("up", "down") else f"{who} image"


def test_each_stage_moves_its_own_weights_alone(what):
    r = few(what)
    before, moved, names = weights(r.training), [], []
    for record in r:
        now = weights(r.training)
        moved.append({part(name) for name in now if not torch.equal(now[name], before[name])})
        names.append(next(iter(record.losses)))
        before = now
    assert names == ["base"] * 3 + ["teacher"] * 3 + ["image"] * 3 + ["motion"] * 3
    assert moved[:3] == [{"teacher image"}] * 3
    # as a stage begins, it takes over the average of the one before
    assert moved[3:6] == [{"teacher image", "teacher motion"}, *[{"teacher motion"}] * 2]
    assert moved[6:9] == [{"student image", "student LoRA"}, *[{"student LoRA"}] * 2]
    assert moved[9:] == [{"student LoRA", "student motion"}, *[{"student motion"}] * 2]


@pytest.mark.parametrize(
    ("turn", "trained"), [(0, "teacher image"), (1, "teacher motion"), (2, "student LoRA"), (3, "student motion")]
)
def test_frozen_weights_get_no_gradient(turn, trained, what):
    r = few(what)
    r.finish()
    training = r.training
    training.turns[turn].loss(3 * turn + 1, Draws(0)).backward()
    found = {"teacher": training.modules["teacher"].net, "student": training.student.net}
    got = {part(f"{who}.{k}") for who, net in found.items() for k, p in net.named_parameters() if p.grad is not None}
    assert got == {trained}


@pytest.mark.parametrize(("start", "entered"), [("teacher", (0.5, 0.75, 0.875)), ("student", (1.0, 1.0, 1.0))])
def test_the_adapter_enters_the_target_through_its_average(start, entered):
    r = runs.train("animatelcm", Tiny(), changes=FEW | {"target_ema": 0.5, "target_start": start})
    name = "image.into.parametrizations.weight.0.up"
    fractions = []
    for record in r:
        if record.step > 9:
            up, mine = (D.net.get_parameter(name) for D in (r.training.targets["target"].module, r.training.student))
            fractions.append(float((up / mine).mean()))
    assert fractions == pytest.approx(entered, abs=1e-5)


def test_the_student_begins_as_base_with_adapter_and_the_teachers_layers():
    r = runs.train("animatelcm", Tiny(), changes=FEW | {"lr": 1e-12})
    r.finish()
    student, teacher = r.training.student.net, r.training.targets["teacher average"].module.net
    x, lam, cond = torch.randn(3, 4, 2), torch.randn(3), torch.tensor([0, 1, 2])
    torch.testing.assert_close(student(x, lam, cond), teacher(x, lam, cond), rtol=0, atol=1e-6)


def test_from_a_given_teacher_there_are_two_stages_at_the_fast_rate(what):
    made = few(what)
    made.finish()
    teacher = runs.teacher_of_run(made).denoiser
    r = few(what, start=teacher, changes={"fast_lr": 1e-12})
    assert [(turn.name, turn.lr, turn.during) for turn in r.training.turns] == [
        ("image", 1e-12, (0, 6)),
        ("motion", 1e-12, (6, 12)),
    ]
    student = r.finish().denoiser
    x, _ = PROBLEMS[what].data(2, 0)
    t, cond = torch.tensor(0.5), torch.tensor([0, 1])
    torch.testing.assert_close(student(x, t, cond).x0, teacher(x, t, cond).x0, rtol=0, atol=1e-4)
    rates = [turn.lr for turn in few(what, changes={"fast_lr": 0.5, "lr": 0.1}).training.turns]
    assert rates == [0.1, 0.1, 0.5, 0.5]


def test_the_fast_stages_may_be_short_and_each_stage_has_its_own_rise_and_fall(what):
    r = few(what, changes={"updates": 24, "fast_updates": 2, "warmup": 1})
    assert [turn.during for turn in r.training.turns] == [(0, 10), (10, 20), (20, 22), (22, 24)]
    rates = [record.lr for record in r]
    assert rates[:10] == rates[10:20] == [lr_factor(k, 10, 1) for k in range(10)]
    assert rates[20:22] == rates[22:] == [lr_factor(k, 2, 1) for k in range(2)]


def test_resumes_bit_for_bit(tmp_path, what):
    def set_up(folder, resume=False):
        torch.manual_seed(len(folder.name) + resume)
        return few(what, out=folder, every=1, resume=resume, seed=3)

    for _ in set_up(tmp_path / "whole"):
        pass
    for stop in (2, 3, 5, 6, 9, 10, None):  # within each stage, and where two meet
        for record in set_up(tmp_path / "pieces", resume=stop != 2):
            if record.step == stop:
                break
    assert same(tmp_path / "pieces", end_of(tmp_path / "whole"))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_killed_process_is_continued(tmp_path):
    """kill -9 in the middle of a run of the command; the same command with --resume ends as if nothing had been."""
    words = ["train", "animatelcm", "--problem", "sequence:ring", "--updates", "60", "--batch", "4", "--every", "1"]
    killed = tmp_path / "killed"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "toydiff", *words, "--out", str(killed)], env=environment)
    deadline = time.monotonic() + 240
    while not (killed / "run.json").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 0 < json.loads((killed / "run.json").read_text())["step"] < 60
    assert run(*words, "--out", str(killed), "--resume") == 0
    assert run(*words, "--out", str(tmp_path / "whole")) == 0
    assert same(killed, end_of(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"frames": 0}, "frames"),
        ({"given": -0.1}, "given"),
        ({"updates": 13}, "multiple of the 4 stages, got 13"),
        ({"rank": 0}, "rank"),
        ({"fast_lr": -1.0}, "fast_lr must be 0 or more"),
        ({"fast_updates": -1}, "fast_updates must be a whole number >= 0"),
        ({"drop": 1.5}, "drop"),
        ({"target_start": "base"}, "unknown target_start 'base'; allowed: teacher, student"),
        ({"target_ema": 0.0}, "target_ema must lie above 0"),
    ],
)
def test_wrong_knobs(changes, match):
    with pytest.raises(ValueError, match=match):
        runs.train("animatelcm", Tiny(), changes=FEW | changes)


def test_wrong_problems_and_starts():
    with pytest.raises(
        ValueError, match="animatelcm is for sequences, such as sequence:ring, and not for mixture:ring"
    ):
        runs.train("animatelcm", mixture("ring"))
    with pytest.raises(ValueError, match="starts from a video teacher"):
        runs.train("animatelcm", Tiny(), start=runs.train("animatelcm", Tiny(), changes=FEW).finish())
    with pytest.raises(ValueError, match="guidance needs classes"):
        runs.train("animatelcm", "sequence:gaussian", changes={"g_max": 2.0})


def test_with_guidance_the_scale_is_an_input_of_the_motion_alone():
    training = animatelcm(Tiny(), AnimateLCMKnobs(**FEW, g_min=1.0, g_max=2.0))
    assert training.student.scale_conditioned
    assert training.guidance_scale is None
    assert "guidance" not in " ".join(dict(training.student.net.image.named_parameters()))
    assert torch.isfinite(training.turns[3].loss(9, Draws(0)))


# ---- the first frame given


def test_given_frames_are_seen_without_noise_and_cost_nothing(what):
    """Lines 2 and 5 know the first frame: it adds nothing to their losses, and no network sees its noise."""
    r = few(what, changes={"given": 1.0})
    r.finish()
    student, teacher = r.training.student, r.training.modules["teacher"]
    x0, cond = PROBLEMS[what].data(2, 0)
    t = torch.tensor([0.3, 0.8])
    for D in (student, teacher):
        told = FirstFrame(D, x0[:, 0])
        x_t = D.schedule.mix(x0, torch.randn(x0.shape), t)
        noisier = torch.cat([x_t[:, :1] + 1, x_t[:, 1:]], 1)
        p, other = told(x_t, t, cond), told(noisier, t, cond)
        assert torch.equal(p.x0[:, 0], x0[:, 0])
        assert torch.equal(p.x0[:, 1:], other.x0[:, 1:])
        torch.testing.assert_close(D.schedule.mix(p.x0, p.eps, t), x_t, rtol=0, atol=1e-5)
        plain = FirstFrame(D, x0[:, 0], torch.tensor([True, False]))(x_t, t, cond)
        torch.testing.assert_close(plain.x0[0], p.x0[0])
        torch.testing.assert_close(plain.x0[1], D(x_t, t, cond).x0[1])
        end = solve(told, torch.randn(x0.shape), 3, solver="lcm", cond=cond, generator=0).end
        torch.testing.assert_close(end[:, 0], x0[:, 0], rtol=0, atol=1e-5)


def test_a_frame_is_given_to_a_network_of_clips():
    on = sequence("ring")
    with pytest.raises(ValueError, match="a LambdaDenoiser of clips, got ClipDenoiser"):
        FirstFrame(on.teacher, torch.zeros(3, 2))
    with pytest.raises(ValueError, match="first frames"):
        FirstFrame(Tiny().student(), torch.zeros(3, 1))(torch.zeros(3, 4, 2), torch.tensor(0.5))


# ---- the fixed point


class Affine(Denoiser):
    """A linear map of the frames to x_0 at each point of a grid of N intervals, the same for every coordinate."""

    def __init__(self, schedule, N, frames):
        super().__init__(schedule, "x0")
        self.N = N
        self.maps = nn.ParameterList(torch.zeros(frames, frames) for _ in range(N))

    def forward(self, x, t, cond=None):
        n = int((t.expand(len(x))[0] * self.N).round()) - 1
        return Prediction.of("x0", torch.einsum("fg,bgd->bfd", self.maps[n], x), x, t, self.schedule)


class At(Draws):
    """The interval i for the whole batch."""

    def __init__(self, i):
        super().__init__(0)
        self.i = i

    def integers(self, n, high):
        return torch.full((n,), self.i)


@pytest.mark.usefixtures("float64")
def test_an_affine_student_of_the_gaussian_has_the_exact_flows_variance_and_correlation():
    """At its fixed point the loss makes one jump of the teacher's walk; as the grid gets finer, that is the exact
    flow."""
    on, errors = sequence("gaussian"), {}
    noise = on.schedule.sigma(torch.ones(())) * torch.randn(2000, 8, 2)
    exact = on.flow(noise, 1.0, 0.0)
    for N in (20, 160):
        student, x0 = Affine(on.schedule, N, 8), on.data(64, 0)[0].double()
        for i in range(N):
            loss = lcm_loss(student, student, on.teacher, N, mse, x0, None, At(i))
            minimise(loss, [student.maps[i]])
        end = jump(student(noise, torch.tensor(1.0)), 0.0).detach()
        close(end, solve(on.teacher, noise, N, solver="ddim", grid="uniform").end, 1e-6)
        errors[N] = (
            float((end.var((0, 2)) / exact.var((0, 2)) - 1).abs().max()),
            abs(lag_correlation(end) - lag_correlation(exact)),
        )
    assert errors[160][0] < 0.04
    assert errors[160][1] < 0.01
    assert errors[160][0] < 0.25 * errors[20][0]
    assert errors[160][1] < 0.25 * errors[20][1]


# ---- the command


def test_the_command_trains_resumes_samples_and_evaluates(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("train", "animatelcm", "--problem", "sequence:ring", "--updates", "8", "--batch", "8", "--out", "run")
    assert run(*words) == 0
    assert run(*words, "--resume") == 0
    assert "nothing was left to do" in capsys.readouterr().out
    assert run("sample", "run", "--steps", "2", "--n", "12", "--out", "clips.npz") == 0
    assert np.load("clips.npz")["samples"].shape == (12, 8, 2)
    assert run("sample", "run", "--steps", "1", "--n", "5", "--label", "3", "--out", "strip.png") == 0
    assert '"label": 3' in png_text("strip.png")["toydiff"]
    assert run("evaluate", "run", "--steps", "1", "--n", "40", "--json", "rows.json") == 0
    (row,) = json.loads((tmp_path / "rows.json").read_text())
    assert set(row["parts"]) == {"frame", "lag-1", "velocity"}
    assert "velocity: floor" in capsys.readouterr().out
    assert run("train", "animatelcm", "--problem", "mixture", "--out", "other") == 2
    assert not (tmp_path / "other").exists()


def test_other_methods_train_on_clips_with_the_points_recipe():
    on = problem("sequence:ring")
    for method in ("diffusion", "lcm", "cd"):
        assert runs.knobs(method, on).batch == METHODS[method].recipes["points"]["batch"]
    model = runs.train("lcm", Tiny(), changes={"updates": 2, "batch": 4}).finish()
    assert runs.evaluate(model, Tiny(), steps=[1], n=40)[0]["n"] == 40
