"""Runs on disk: resumed bit for bit, never lost whenever the process dies, and refused in one line when damaged or
foreign.
"""

import json
import math
import multiprocessing
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from cases import UserSchedule
from students import ANYWHERE
from tiny import TinyDigits, TinyMixture

from toydiff import runs, weights
from toydiff.catalog import METHODS
from toydiff.problems import mixture
from toydiff.problems.pairs import Recipe, make_pairs
from toydiff.support import files
from toydiff.support.sealed import checksum, read_index, write_index
from toydiff.training import State, Turn, fit, laid_out_as
from toydiff.training.checkpoints import Checkpoints, read_tensors, tensor_bytes

UPDATES = 12
SMALL = {"updates": UPDATES, "batch": 16, "warmup": 3, "ema": 0.9}
OWN = {
    "progressive": {"first": 4, "last": 1},
    "perflow": {"substeps": 2},
    "rectified-diffusion-phased": {"substeps": 2},
}
PROBLEMS = {"points": TinyMixture(), "images": TinyDigits(), "full size": mixture("ring")}
PAIRS = {}


def pairs_for(method, what):
    if METHODS[method].needs != "pairs":
        return None
    if what not in PAIRS:
        the_problem = PROBLEMS[what]
        PAIRS[what] = make_pairs(the_problem, the_problem.teacher, Recipe(n=40, steps=4))
    return PAIRS[what]


def set_up(folder, method="diffusion", what="points", resume=False, every=1, seed=3, **changes):
    """A run from nothing but what is on disk, as a new process would set it up, with torch's global stream somewhere
    else.
    """
    torch.manual_seed(time.perf_counter_ns())
    settings = SMALL | OWN.get(method, {}) | changes
    watch = 6 if METHODS[method].evaluations else 0
    return runs.train(
        method,
        PROBLEMS[what],
        out=folder,
        changes=settings,
        pairs=pairs_for(method, what),
        resume=resume,
        every=every,
        watch=watch,
        seed=seed,
    )


def end_of(folder):
    """Everything that the last checkpoint holds, but for the time that it took and torch's global stream, which no
    method draws from.
    """
    index = json.loads((folder / "run.json").read_text())
    assert [p.name for p in folder.glob("step-*")] == [index["file"]]
    tensors = read_tensors(folder / index["file"], index["sha256"])
    assert tensors.pop("global_random").dtype == torch.uint8
    return tensors, {key: index[key] for key in ("about", "step", "steps", "turns", "history", "measured", "file")}


def same(folder, whole):
    tensors, index = end_of(folder)
    assert index == whole[1]
    assert tensors.keys() == whole[0].keys()
    different = [key for key in tensors if not torch.equal(tensors[key], whole[0][key])]
    assert different == []
    return True


def train_in_pieces(folder, stops, **how):
    """Left at each of these updates in turn, and continued by fresh objects."""
    for k, stop in enumerate([*stops, None]):
        for record in set_up(folder, resume=k > 0, **how):
            if record.step == stop:
                break


# ---- resumed runs


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "every", "stops"),
    [(method, 1, (5, 8)) for method in ANYWHERE if method != "progressive"]
    + [("progressive", 1, (1, 4, 5, 8, 11))]
    + [
        (method, *how)
        for method in ("diffusion", "progressive")
        for how in ((3, (2, 5, 8, 10)), (4, (4, 8)), (5, (3, 7)))
    ],
)
def test_every_method_resumes_bit_for_bit(tmp_path, method, every, stops):
    """Progressive distillation has stages of 4 updates here: it is left before, at and after their ends."""
    for _ in set_up(tmp_path / "whole", method, every=every):
        pass
    train_in_pieces(tmp_path / "pieces", stops, method=method, every=every)
    whole = end_of(tmp_path / "whole")
    assert same(tmp_path / "pieces", whole)
    assert whole[1]["step"] == UPDATES
    assert [row[0] for row in whole[1]["history"]] == list(range(1, UPDATES + 1))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["diffusion", pytest.param("guided", marks=pytest.mark.slow), "progressive"])
def test_image_networks_resume_bit_for_bit(tmp_path, method):
    """Their convolutions keep their weights channels last, and fused Adam walks weights and moments as they lie in
    memory.
    """
    for _ in set_up(tmp_path / "whole", method, "images"):
        pass
    train_in_pieces(tmp_path / "pieces", (3, 4, 9), method=method, what="images")
    assert same(tmp_path / "pieces", end_of(tmp_path / "whole"))


def test_the_same_network_laid_out_otherwise_trains_the_same():
    """What layouts could spoil: moments in another order than the weights would give other updates, not only after a
    resume.
    """
    ends = []
    for form in (torch.channels_last, torch.contiguous_format):
        run = runs.train("diffusion", PROBLEMS["images"], changes=SMALL)
        run.training.student.to(memory_format=form)
        for _ in run:
            pass
        ends.append(torch.cat([p.detach().reshape(-1) for p in run.training.student.parameters()]))
        layouts = {p.stride() for p in run.training.student.parameters() if p.ndim == 4 and min(p.shape[1:]) > 1}
        assert any(s[1] == 1 for s in layouts) == (form == torch.channels_last)
    # Adam's first steps are the gradients' signs: where one is lost in rounding, a weight may differ by the sum of the
    # steps, lr an update
    gap = (ends[0] - ends[1]).abs()
    assert gap.median() < 1e-6
    assert gap.quantile(0.99) < 1e-4


def test_a_tensor_laid_out_as_another_has_the_same_values():
    p = torch.randn(4, 8, 3, 3).contiguous(memory_format=torch.channels_last)
    value = torch.randn(4, 8, 3, 3)
    found = laid_out_as(p, value)
    assert torch.equal(found, value)
    assert found.stride() == p.stride() != value.stride()
    assert laid_out_as(p, found) is found


def test_another_seed_or_batch_is_another_run(tmp_path):
    """So that equal bits mean something."""
    ends = []
    for k, changes in enumerate(({}, {"seed": 4}, {"lr": 5e-3})):
        for _ in set_up(tmp_path / str(k), **changes):
            pass
        ends.append(end_of(tmp_path / str(k))[0]["module.student.net.head.weight"])
    assert not torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_what_identifies_a_run_is_json(tmp_path):
    """The file gives lists back where tuples were given, and a run of one's own is continued all the same."""
    net = torch.nn.Linear(1, 1)

    def fitted(steps):
        state = State.of(
            Turn(lambda step, draws: net(draws.normal(4, 1)).square().mean(), list(net.parameters())),
            modules={"net": net},
        )
        checkpoints = Checkpoints(tmp_path / "own", {"widths": (4, 4)}, every=1, resume=True)
        checkpoints.load(state)
        for record in fit(state, steps):
            checkpoints.after(record, state, steps)
        return state.step

    assert fitted(2) == 2
    assert fitted(3) == 3
    with pytest.raises(ValueError, match="about, which identifies a run, must be JSON"):
        Checkpoints(tmp_path / "other", {"net": net})


def test_an_unfinished_run_and_a_finished_one_load(tmp_path):
    run = set_up(tmp_path / "run", every=5)
    for record in run:
        if record.step == 7:
            break
    half = runs.load(tmp_path / "run")
    assert half.about["updates"] == 5
    done = set_up(tmp_path / "run", resume=True, every=5).finish()
    again = set_up(tmp_path / "run", resume=True, every=5).finish()  # nothing is left to do
    loaded = runs.load(tmp_path / "run")
    assert done.about["updates"] == again.about["updates"] == loaded.about["updates"] == UPDATES
    x, t = torch.randn(5, 2), torch.linspace(0.1, 1, 5)
    for model in (again, loaded):
        assert torch.equal(model.denoiser(x, t).x0, done.denoiser(x, t).x0)
    assert not torch.equal(half.denoiser(x, t).x0, done.denoiser(x, t).x0)
    assert not any(p.requires_grad for p in loaded.denoiser.parameters())


def test_teacher_calls_are_counted():
    run = runs.train("naive", PROBLEMS["points"], changes=SMALL, pairs=pairs_for("naive", "points"))
    assert run.finish().about["teacher_calls"] == 40 * 4
    run = runs.train("progressive", PROBLEMS["points"], changes=SMALL | OWN["progressive"])
    assert run.finish().about["teacher_calls"] == UPDATES * 16 * 2


@pytest.mark.parametrize(
    ("folder", "every", "left"),
    [
        ("run", 2, "the last good checkpoint is that of update 4 in '{}'"),
        ("run", 100, "no checkpoint was saved in '{}' yet"),
        (None, 1, "nothing was saved"),
    ],
)
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_that_diverges_says_what_is_left(tmp_path, folder, every, left, resume):
    """And it continues from there, to diverge again."""
    out = folder and tmp_path / folder
    for again in (False, True)[: 1 + resume]:
        run = set_up(out, resume=again, every=every)
        [turn] = run.training.turns
        plain = turn.loss
        turn.loss = lambda step, draws, plain=plain: plain(step, draws) * (math.nan if step == 5 else 1)
        seen = []
        with pytest.raises(FloatingPointError) as found:
            seen += [record.step for record in run]
        assert str(found.value) == (
            f"the loss 'loss' at update 6 is nan, with a gradient of norm nan; {left.format(out)}; "
            "try a smaller learning rate"
        )
        if out is not None:
            assert len(list(out.glob("step-*"))) == (every == 2)


class Power(UserSchedule):
    """A user's schedule with a setting."""

    def __init__(self, power=2):
        self.power = power

    def alpha(self, t):
        return (1 - t) ** self.power


def test_a_run_on_a_schedule_of_a_user_is_loaded_and_continued(tmp_path):
    def run(folder, power=3, stop=None, resume=False):
        on = TinyMixture()
        on.schedule = Power(power)
        for record in runs.train("diffusion", on, out=folder, changes=SMALL, every=1, resume=resume):
            if record.step == stop:
                break

    run(tmp_path / "whole")
    run(tmp_path / "cut", stop=5)
    run(tmp_path / "cut", resume=True)
    assert same(tmp_path / "cut", end_of(tmp_path / "whole"))
    schedule = runs.load(tmp_path / "cut").denoiser.schedule
    assert (type(schedule), schedule.power) == (Power, 3)
    refused(lambda: run(tmp_path / "cut", power=4, resume=True), "has power = 3, not 4; resume it as it was begun")


def test_a_problem_of_ones_own_has_the_knobs_of_its_scale():
    own = TinyMixture()
    own.name = "dots: mine"
    assert (
        runs.knobs("diffusion", own) == runs.knobs("diffusion", "mixture:spirals") == runs.knobs("diffusion", "points")
    )
    own.scale = "images"
    assert runs.knobs("diffusion", own) == runs.knobs("diffusion", "digits")
    own.scale = "sounds"  # one that a method has no recipe for
    assert runs.knobs("diffusion", own) == METHODS["diffusion"].knobs()
    assert runs.train("diffusion", own, changes=SMALL | {"updates": 1}).finish().about["problem"] == "dots: mine"
    refused(lambda: runs.knobs("diffusion", "dots: mine"), "unknown problem 'dots: mine'; allowed: mixture, points")


# ---- processes that die


class Snapshots:
    """Copies of a folder as it is at each moment of writing: what a process that is killed then leaves behind."""

    def __init__(self, folder, out, monkeypatch):
        self.folder, self.out, self.count = folder, out, 0
        real = {name: getattr(os, name) for name in ("replace", "fdopen")}
        unlink = Path.unlink

        def replace(source, target):
            self.take("before the rename")
            real["replace"](source, target)
            self.take("after the rename")

        def fdopen(handle, *mode):
            self.take("empty temporary file")
            return Halved(real["fdopen"](handle, *mode), self)

        def remove(path, missing_ok=False):
            there = path.exists()
            unlink(path, missing_ok=missing_ok)
            if there:
                self.take("after a removal")

        monkeypatch.setattr(files.os, "replace", replace)
        monkeypatch.setattr(files.os, "fdopen", fdopen)
        monkeypatch.setattr(Path, "unlink", remove)

    def take(self, why):
        shutil.copytree(self.folder, self.out / f"{self.count:03d} {why}")
        self.count += 1


class Halved:
    """A file that is written in two halves, with a snapshot between them."""

    def __init__(self, file, snapshots):
        self.file, self.snapshots = file, snapshots

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *error):
        return self.file.__exit__(*error)

    def flush(self):
        self.file.flush()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        self.snapshots.take("half a file")
        self.file.write(data[len(data) // 2 :])


@pytest.mark.slow
def test_a_run_killed_at_any_point_of_a_write_is_whole(tmp_path):
    """Each state that the folder passes through, resumed: the run ends as the uninterrupted one, and what had been
    saved is not lost.
    """
    changes = {"updates": 3}
    with pytest.MonkeyPatch.context() as patch:
        Snapshots(tmp_path / "run", tmp_path / "shots", patch)
        for _ in set_up(tmp_path / "run", **changes):
            pass
    whole = end_of(tmp_path / "run")
    found = sorted((tmp_path / "shots").iterdir())
    # two files a save, each empty, half, whole and renamed, the tensors that are removed from the second save on, and
    # the lock
    assert len(found) == 3 * 2 * 4 + 2 + 1
    last = 0
    for folder in found:
        step = 0
        if (folder / "run.json").exists():
            step = runs.load(folder).about["updates"]
        assert last <= step <= last + 1
        last = step
        for _ in set_up(folder, resume=True, **changes):
            pass
        assert same(folder, whole)
        assert list(folder.glob(".*")) == []
    assert last == 3


@pytest.mark.slow
@pytest.mark.parametrize("death", [KeyboardInterrupt, SystemExit])
def test_a_run_interrupted_in_a_rename_goes_on(tmp_path, monkeypatch, death):
    """An exception in the k-th rename, for every k in turn."""
    changes = {"updates": 3}
    for _ in set_up(tmp_path / "whole", **changes):
        pass
    whole, real, left = end_of(tmp_path / "whole"), os.replace, 0

    def replace(source, target):
        nonlocal left
        left -= 1
        if left == 0:
            raise death
        real(source, target)

    monkeypatch.setattr(files.os, "replace", replace)
    for k in range(6):
        folder, left = tmp_path / str(k), k + 1
        with pytest.raises(death):
            for _ in set_up(folder, **changes):
                pass
        assert list(folder.glob(".*")) == []
        for _ in set_up(folder, resume=True, **changes):
            pass
        assert same(folder, whole)


def _train_until_killed(folder, updates, started):
    torch.set_num_threads(1)
    run = set_up(Path(folder), what="full size", resume=True, updates=updates)
    started.send(True)
    for _ in run:
        pass


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_killed_twenty_times(tmp_path):
    """kill -9 at random moments of a process that saves after every update; each time a new process resumes."""
    updates, kills = 100, 0
    began = time.perf_counter()
    for _ in set_up(tmp_path / "whole", what="full size", updates=updates):
        pass
    seconds = time.perf_counter() - began
    whole, rng = end_of(tmp_path / "whole"), random.Random(0)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["toydiff.runs"])
    rounds = 0
    while kills < 20:  # in a second folder too, should the first run be done before
        folder, step = tmp_path / f"killed-{rounds}", 0
        rounds += 1
        while True:
            started, says = context.Pipe(False)
            process = context.Process(target=_train_until_killed, args=(str(folder), updates, says))
            process.start()
            assert started.poll(240)
            process.join(rng.uniform(0, seconds / 20) if kills < 20 else 120)
            if process.exitcode is not None:
                assert process.exitcode == 0
                break
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            kills += 1
            if (folder / "run.json").exists():
                now = runs.load(folder).about["updates"]
                assert now >= step, "a killed process took saved updates with it"
                step = now
        assert same(folder, whole)
    assert kills == 20


# ---- damaged and foreign files


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    for _ in set_up(folder, updates=3):
        pass
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "run"))


def refused(make, match):
    with pytest.raises(ValueError, match=match) as found:
        make()
    assert "\n" not in str(found.value)
    return True


def both_refuse(folder, match):
    """Loading it and continuing it."""
    refused(lambda: runs.load(folder), match)
    return refused(lambda: next(iter(set_up(folder, resume=True, updates=3))), match)


def lengths(size):
    """Every class of truncation: nothing, inside the header, at its ends, in the middle, all but a byte; and a byte too
    many.
    """
    return sorted({0, 1, 7, 8, 9, 100, size // 2, size - 9, size - 1})


def test_truncated_tensors_are_refused(run):
    file = next(run.glob("step-*"))
    data = file.read_bytes()
    for length in lengths(len(data)):
        file.write_bytes(data[:length])
        both_refuse(run, "is truncated or was altered: its checksum is not the one that was saved")
        refused(lambda: read_tensors(file), "is truncated or is not a safetensors file")
    file.write_bytes(data + b"\0")
    both_refuse(run, "was altered")
    file.unlink()
    both_refuse(run, "the file of tensors .*step-00000003.safetensors' is missing")
    file.mkdir()
    both_refuse(run, "cannot read .*step-00000003.safetensors': Is a directory")


def test_flipped_bits_of_tensors_are_refused(run):
    file = next(run.glob("step-*"))
    data = bytearray(file.read_bytes())
    rng = random.Random(0)
    for place in [0, 8, 30, len(data) - 1, *(rng.randrange(len(data)) for _ in range(20))]:
        data[place] ^= 1 << rng.randrange(8)
        file.write_bytes(data)
        refused(lambda: runs.load(run), "was altered")


def test_a_truncated_index_is_refused(run):
    file = run / "run.json"
    data = file.read_bytes()
    for length in range(0, len(data) - 1, 7):  # without its last newline it is whole
        file.write_bytes(data[:length])
        refused(lambda: runs.load(run), "is truncated or is not JSON: it is not a whole run of toydiff")
    both_refuse(run, "is truncated or is not JSON")


def test_flipped_bits_of_an_index_are_refused_or_change_nothing(run):
    """A byte in the case of an exponent's e, say, is the same number."""
    file = run / "run.json"
    data = file.read_bytes()
    content = read_index(file, "toydiff-run", "run of toydiff")
    rng, refusals = random.Random(0), []
    for _ in range(400):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        file.write_bytes(flipped)
        try:
            found = read_index(file, "toydiff-run", "run of toydiff")
        except ValueError as error:
            refusals.append(str(error))
        else:
            assert {key: found[key] for key in content} == content
    assert len(refusals) > 380
    assert not any("\n" in message for message in refusals)


FOREIGN = {
    "": "is truncated or is not JSON",
    "[]": "is not a run of toydiff: its format is not 'toydiff-run'",
    "3": "its format is not",
    "{}": "its format is not",
    '{"format": "pt"}': "its format is not",
    '{"format": "toydiff-weights", "version": 1}': "its format is not",
    '{"format": "toydiff-run", "version": 2}': "has version 2 of the format 'toydiff-run'; "
    "this toydiff reads version 1",
    '{"format": "toydiff-run", "version": 1}': "is not a whole run of toydiff: it has no 'about'",
}


@pytest.mark.parametrize("text", FOREIGN)
def test_a_foreign_index_is_refused(run, text):
    (run / "run.json").write_text(text)
    both_refuse(run, FOREIGN[text])


def test_a_foreign_file_in_place_of_either_is_refused(run):
    (run / "run.json").write_bytes(bytes(range(256)))
    both_refuse(run, "is truncated or is not JSON")
    file = run / "step-00000003.safetensors"
    for data in (b"PK\x03\x04" + bytes(500), b"\x80\x02}q\x00.", bytes(200), b"\xff" * 200):
        file.write_bytes(data)
        refused(lambda: read_tensors(file), "is truncated or is not a safetensors file")


def test_tensors_of_another_method_or_network_are_refused(run):
    index = read_index(run / "run.json", "toydiff-run", "run of toydiff")
    tensors = read_tensors(run / index["file"])

    def put(changed, match):
        data = tensor_bytes(changed)
        (run / index["file"]).write_bytes(data)
        write_index(run / "run.json", index | {"sha256": checksum(data)})
        return refused(lambda: next(iter(set_up(run, resume=True, updates=4 - 1))), match)

    put({k: v for k, v in tensors.items() if "student.net.head" not in k}, "does not fit this method: .*head")
    put({k: v for k, v in tensors.items() if not k.startswith("optimizer.0.2.")}, "another number of parameters")
    put({k: v for k, v in tensors.items() if k != "random"}, "does not fit this method: 'random'")
    put(tensors | {"module.student.net.head.weight": torch.zeros(3, 3)}, "does not fit this method: .*size mismatch")
    put(tensors | {"module.student.net.other": torch.zeros(3)}, "does not fit this method: .*Unexpected key")


def test_a_run_is_resumed_as_it_was_begun(run):
    for changes, what in (
        ({"seed": 4, "updates": 3}, r"has seed = 3, not 4; resume it as it was begun"),
        ({"method": "flow-matching", "updates": 3}, r"has method = 'diffusion', not 'flow-matching'"),
        ({"updates": 5}, "has updates = 3, not 5; resume it as it was begun"),
    ):
        refused(lambda changes=changes: next(iter(set_up(run, resume=True, **changes))), what)
    refused(lambda: set_up(run, updates=3), "already holds a run; continue it with --resume, or choose another folder")


def test_what_is_no_run_is_refused(tmp_path):
    refused(lambda: runs.load(tmp_path), "holds no run of toydiff: it has no run.json")
    refused(lambda: runs.load(tmp_path / "none"), "unknown run or bundled weights")
    (tmp_path / "file").write_text("x")
    refused(lambda: set_up(tmp_path / "file"), "it is a file")
    refused(lambda: set_up(tmp_path / "run", every=0), "every must be a whole number >= 1, got 0")


# ---- bundled weights


@pytest.fixture
def shelf(finished, tmp_path):
    D = runs.load(finished).denoiser
    weights.save("a", D.net.state_dict(), {"denoiser": weights.describe(D), "problem": "mixture:ring"}, tmp_path)
    return tmp_path, D


def test_weights_come_back_as_they_were(shelf):
    folder, D = shelf
    again = weights.load_denoiser("a", folder)
    x, t = torch.randn(4, 2), torch.linspace(0, 1, 4)
    assert torch.equal(again(x, t).x0, D(x, t).x0)
    assert (again.kind, repr(again.schedule)) == (D.kind, repr(D.schedule))
    assert not any(p.requires_grad for p in again.parameters())
    half = {key: value.half() for key, value in D.net.state_dict().items()}
    weights.save("b", half, {"denoiser": weights.describe(D)}, folder)
    rounded = weights.load_denoiser("b", folder)
    assert all(p.dtype == torch.float32 for p in rounded.parameters())
    assert sorted(p.name for p in folder.iterdir()) == ["a.json", "a.safetensors", "b.json", "b.safetensors"]


def test_damaged_weights_are_refused(shelf):
    folder, D = shelf
    for name, message in (("a.safetensors", "was altered"), ("a.json", "is truncated or is not JSON")):
        file = folder / name
        data = file.read_bytes()
        for length in lengths(len(data) - 1):
            file.write_bytes(data[:length])
            refused(lambda: weights.load_denoiser("a", folder), message)
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 1
        file.write_bytes(flipped)
        refused(lambda: weights.load_denoiser("a", folder), "was altered|is not JSON")
        file.unlink()
        refused(lambda: weights.load_denoiser("a", folder), "is missing|there is no file of weights")
        file.write_bytes(data)
    (folder / "a.json").write_text('{"format": "toydiff-run", "version": 1}')
    refused(lambda: weights.load("a", folder), "is not a file of weights: its format is not 'toydiff-weights'")
    (folder / "a.json").write_text('{"format": "toydiff-weights", "version": 1}')
    refused(lambda: weights.load("a", folder), "it has no 'sha256'")
    refused(lambda: weights.load("a weight"), "unknown bundled weights 'a weight'")
    weights.save("b", D.net.state_dict(), {}, folder)
    refused(lambda: weights.load_denoiser("b", folder), "the weights 'b' are no denoiser, and cannot be sampled from")


def test_weights_that_do_not_fit_their_description_are_refused(shelf):
    folder, _ = shelf
    tensors, about = weights.load("a", folder)
    description = about["denoiser"]
    for changed, message in (
        ({"net": "mpl"}, r"unknown network 'mpl' \(did you mean 'mlp'\?\)"),
        (
            {"config": description["config"] | {"hidden": 8}},
            "the weights do not fit their description: .*size mismatch",
        ),
        (
            {"config": description["config"] | {"width": 8}},
            "the network 'mlp' cannot be made: .*unexpected keyword argument 'width'",
        ),
        ({"kind": "epsilon"}, "unknown kind of prediction 'epsilon'"),
        ({"schedule": {"name": "vb"}}, r"unknown schedule 'vb' \(did you mean"),
        ({"schedule": {"name": "vp", "beta": 3}}, "the schedule 'vp' has wrong settings"),
    ):
        refused(lambda changed=changed: weights.build(description | changed, tensors), message)
    refused(lambda: weights.build({}, tensors), "the weights do not fit their description: 'net'")
