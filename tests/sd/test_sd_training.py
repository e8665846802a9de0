"""Every method on every kind of problem by one function; on Stable Diffusion checkpoints: what is trained, kept,
shared, continued, and taken elsewhere.
"""

import copy
import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import tiny_sd
import torch
from PIL import Image
from students import ANYWHERE
from tiny import TinyDigits, TinyMixture

from toydiff import Linear, runs
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.export import export, merged
from toydiff.adapters.families.base import guidance_embedding
from toydiff.adapters.images import read_image
from toydiff.adapters.network import CheckpointNetwork
from toydiff.adapters.pictures import image_folder
from toydiff.adapters.sampling import sample_images
from toydiff.adapters.text import prompt_id
from toydiff.catalog import METHODS
from toydiff.cli import command as cli
from toydiff.denoisers import NO_CLASS
from toydiff.problems import problem
from toydiff.problems.pairs import Recipe, load_pairs, make_pairs, save_pairs
from toydiff.problems.stable_diffusion import StableDiffusionProblem
from toydiff.training import EMA

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
FEW = {"updates": 2, "batch": 4, "warmup": 0, "ema": 0.0}
SMALL = {
    "progressive": {"first": 4, "last": 2},
    "ct": {"first": 2, "last": 4},
    "cd": {"intervals": 5},
    "perflow": {"substeps": 2},
    "rectified-diffusion-phased": {"substeps": 2},
    "multistep-consistency": {"first": 2, "last": 4},
    "pcm": {"adversarial": 0.1},
    "dmd2": {"ratio": 1},
}
"""Knobs with which two updates of a method take a moment."""


@pytest.fixture
def sd(checkpoints, pictures):
    """A fresh problem on SD's tiny checkpoint, with pictures."""
    return problem(f"sd:{checkpoints['sd']}", settings={"data": str(pictures), "rank": 4})


@pytest.fixture
def sd_without_data(checkpoints):
    """As `sd`, with prompts alone."""
    return problem(f"sd:{checkpoints['sd']}", settings={"prompts": ["a cat", "a dog"], "rank": 4})


@pytest.fixture
def sd3(families, pictures):
    """A fresh problem on SD3's tiny checkpoint, with pictures."""
    return problem(f"sd:{families['sd3']}", settings={"data": str(pictures), "rank": 4})


@pytest.fixture
def sd3_without_data(families):
    """As `sd3`, with prompts alone."""
    return problem(f"sd:{families['sd3']}", settings={"prompts": ["a cat", "a dog"], "rank": 4})


@pytest.fixture
def flux(families, pictures):
    """A fresh problem on FLUX.1-schnell's tiny checkpoint, with pictures."""
    return problem(f"sd:{families['flux-schnell']}", settings={"data": str(pictures), "rank": 4, "size": 64})


@pytest.fixture
def flux_without_data(families):
    """As `flux`, with prompts alone."""
    settings = {"prompts": ["a cat", "a dog"], "rank": 4, "size": 64}
    return problem(f"sd:{families['flux-schnell']}", settings=settings)


@pytest.fixture
def clips(animatediff, moving):
    """A fresh problem on AnimateDiff's tiny checkpoint, with clips."""
    return problem(f"sd:{animatediff}", settings={"data": str(moving), "rank": 4, "frames": 4})


@pytest.fixture
def clips_without_data(animatediff):
    """As `clips`, with prompts alone."""
    return problem(f"sd:{animatediff}", settings={"prompts": ["a cat", "a dog"], "rank": 4, "frames": 4})


def everything(module):
    """All tensors of a network, the shared ones too."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


CHECKPOINTS = ("sd", "sd3", "flux", "clips")
"""The problems on a checkpoint, one a family."""
ON_CLIPS = ("rectified-diffusion", "progressive", "lcm", "sct", "vsd", "adversarial")
"""On clips, whose network is the slowest, one method for each thing that a training may hold beside the student: pairs,
a teacher that changes, a guidance scale that is told, references, a second network, a discriminator."""
PLAIN = {"guided": 3.0, "lcm": 3.0}
"""Students that are conditioned on the guidance scale."""

EXPORTED = {
    ("Tabulated", "eps", False, "dpm++2m"): ["diffusion"],
    ("Linear", "velocity", False, "dpm++2m"): ["flow-matching"],
    ("Tabulated", "eps", True, "dpm++2m"): ["guided"],
    ("Tabulated", "eps", False, "ddim"): ["rectified-diffusion"],
    ("Linear", "velocity", False, "ddim"): ["rectified-flow"],
    ("PiecewiseLinear", "eps", False, "ddim"): ["perflow"],
    ("Tabulated", "eps", False, "lcm"): ["cd", "vsd"],
    ("Tabulated", "eps", True, "lcm"): ["lcm"],
}
"""All that diffusers is given of a student (schedule, kind, whether it takes the scale, solver): methods of it.

Two where the one is meant for one step and the other for four.
"""


EXPORTED_OF_A_FLOW = {
    ("Linear", "velocity", False, "dpm++2m"): ["flow-matching"],
    ("Linear", "velocity", True, "dpm++2m"): [],
    ("Linear", "velocity", False, "ddim"): ["rectified-flow"],
    ("PiecewiseLinear", "velocity", False, "ddim"): ["perflow"],
    ("Linear", "velocity", False, "lcm"): ["cd", "dmd2"],
    ("Linear", "velocity", True, "lcm"): [],
}
"""The same of a student of SD3 or FLUX.1-schnell. diffusers' SD3 does not take the scale."""


def exported(D, about):
    return type(D.schedule).__name__, D.kind, D.scale_conditioned, about["sampler"]["solver"]


def trained(method, on, **options):
    """A run of two updates, and its losses."""
    card = METHODS[method]
    pairs = make_pairs(on, on.teacher, Recipe(n=8, steps=3, solver="ddim")) if card.needs == "pairs" else None
    changes = FEW | SMALL.get(method, {}) | options.pop("changes", {})
    run = runs.train(method, on, changes=changes, pairs=pairs, watch=0, **options)
    return run, [record.losses for record in run]


@pytest.mark.parametrize(
    ("on", "method"),
    [
        *((on, method) for on in ("mixture", "digits") for method in ANYWHERE),
        *(
            pytest.param(on, method, marks=pytest.mark.slow)
            for on in CHECKPOINTS
            for method in (ON_CLIPS if on == "clips" else ANYWHERE)
        ),
    ],
)
def test_every_method_on_every_problem(on, method, request, monkeypatch):
    prompts = on if METHODS[method].data else f"{on}_without_data"
    the_problem = {"mixture": TinyMixture, "digits": TinyDigits}.get(on, lambda: request.getfixturevalue(prompts))()
    teacher = the_problem.teacher
    before = everything(teacher)
    start, seen = {}, runs.run.fit

    def watched(state, *args, **settings):
        start.update(everything(state.modules["student"]))
        return seen(state, *args, **settings)

    monkeypatch.setattr(runs.run, "fit", watched)
    run, losses = trained(method, the_problem)
    assert len(losses) == 2
    assert all(torch.isfinite(torch.tensor(list(record.values()))).all() for record in losses)
    for name, p in everything(teacher).items():
        assert torch.equal(p, before[name]), name
    student = everything(run.training.student)
    model = run.finish()
    assert everything(model.denoiser).keys() == student.keys() == start.keys()
    changed = [name for name in student if not torch.equal(student[name], start[name])]
    assert changed
    if on in CHECKPOINTS:
        assert all(".lora_" in name or "cond_proj" in name or "guidance_embedder" in name for name in changed)
        assert exported(model.denoiser, model.about) in (EXPORTED if on in ("sd", "clips") else EXPORTED_OF_A_FLOW)


@pytest.mark.slow
@pytest.mark.parametrize("method", [method for methods in EXPORTED.values() for method in methods])
def test_a_student_in_plain_diffusers_makes_our_images(sd, checkpoints, tmp_path, method):
    run, _ = trained(method, sd, changes={"lr": 1e-2})
    model = run.finish()
    D, g = model.denoiser, PLAIN.get(method, 1.0)
    assert method in EXPORTED[exported(D, model.about)]
    made = export(D, model.about, tmp_path / "student")
    solver, flow, steps = model.about["sampler"]["solver"], isinstance(D.schedule, Linear), max(made.steps)
    many = solver == "dpm++2m"
    ours = sample_images(
        sd.checkpoint,
        tiny_sd.PROMPTS[:2],
        denoiser=D,
        steps=steps,
        seed=3,
        guidance_scale=g,
        rounded=True,
        solver="ddim" if flow else solver,
        grid="trailing" if many and not flow else "uniform",
    )
    theirs = by_its_own_code(made.code, g)
    assert float((ours.images - theirs).abs().max()) <= 1 / 255
    # and they are not the checkpoint's
    without = sample_images(
        sd.checkpoint, tiny_sd.PROMPTS[:2], steps=steps, seed=3, guidance_scale=1.0, solver="ddim", grid="uniform"
    )
    assert float((without.images - theirs).abs().max()) > 4 / 255
    # what leaves by one door comes in by the other
    parts = {"unet": made.folder} if made.what == "unet" else {"lora": [made.folder]}
    back = StableDiffusion.load(checkpoints["sd"], **parts)
    assert isinstance(back.schedule, Linear) == flow
    again = sample_images(
        back,
        tiny_sd.PROMPTS[:2],
        steps=steps,
        seed=3,
        guidance_scale=g,
        rounded=True,
        solver="ddim" if flow else solver,
        grid="trailing" if many and not flow else "uniform",
    )
    assert float((again.images - ours.images).abs().max()) <= 1 / 255


EACH = "[torch.Generator().manual_seed(3 + k) for k in range(2)]"
"""A stream of noise for each of two images."""


def by_its_own_code(code, guidance_scale, generator=EACH):
    """Run the Python that an export prints, with our prompts and seed."""
    *lines, last = code.splitlines()
    last = last.replace('"a photograph of an astronaut riding a horse"', repr(tiny_sd.PROMPTS[:2])).replace(
        ".images[0]", ".images"
    )
    last = re.sub(r"guidance_scale=[\d.]+", f"guidance_scale={guidance_scale}", last)
    last = last.replace(
        "guidance_scale=",
        f'generator={generator}, output_type="pt", guidance_scale=',
    )
    found = {"torch": torch}
    exec("\n".join([*lines, "pipe.set_progress_bar_config(disable=True)", last]), found)
    return found["image"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "method", "whole"),
    [
        *(("sd3", method, whole) for m in EXPORTED_OF_A_FLOW.values() for method in m for whole in (False, True)),
        ("flux-schnell", "dmd2", False),
        ("flux-schnell", "rectified-flow", True),
        ("flux-schnell", "lcm", True),
        ("flux-dev", "cd", False),
        ("flux-dev", "lcm", False),
    ],
)
def test_a_student_of_a_flow_in_plain_diffusers_makes_our_images(families, pictures, tmp_path, kind, method, whole):
    on = problem(f"sd:{families[kind]}", settings={"data": str(pictures), "rank": 4, "size": 64})
    run, _ = trained(method, on, out=tmp_path / "run", changes={"lr": 1e-2})
    model = run.finish()
    loaded = runs.load(tmp_path / "run").denoiser
    assert all(torch.equal(p, everything(model.denoiser)[name]) for name, p in everything(loaded).items())
    made = export(model.denoiser, model.about, tmp_path / "student", whole=whole)
    assert made.what == ("transformer" if whole else "lora")
    solver, steps, code = model.about["sampler"]["solver"], max(made.steps), made.code
    if kind != "sd3" and solver == "lcm":  # they draw the noise of FLUX's steps packed, in another order
        steps, code = 1, made.code.replace(f"linspace(1, 0, {steps},", "linspace(1, 0, 1,")
    settings = {"steps": steps, "guidance_scale": PLAIN.get(method, 1.0), "grid": "uniform", "size": 64}
    settings["solver"] = solver if solver == "lcm" else "ddim"

    def images(checkpoint, **more):
        rng = torch.Generator().manual_seed(3)
        return sample_images(checkpoint, tiny_sd.PROMPTS[:2], seed=rng, **settings, **more).images

    ours = images(on.checkpoint, denoiser=loaded)
    torch.manual_seed(3)  # their pipeline draws the noise of the steps from the global stream
    theirs = by_its_own_code(code, PLAIN.get(method, 1.0), "torch.default_generator, height=64, width=64")
    assert float((ours - theirs).abs().max()) <= 1 / 255
    assert float((images(on.checkpoint) - theirs).abs().max()) > 2 / 255
    # what leaves by one door comes in by the other
    parts = {"unet": made.folder} if whole else {"lora": [made.folder]}
    assert float((images(StableDiffusion.load(on.checkpoint.source, **parts)) - ours).abs().max()) <= 1 / 255


@pytest.mark.slow
@pytest.mark.parametrize(("method", "scale"), [("cd", 1.0), ("rectified-flow", 1.0), ("lcm", 3.5), ("guided", 3.5)])
def test_a_student_is_sampled_with_the_guidance_that_it_was_trained_with(families, pictures, tmp_path, method, scale):
    """The scale is an input of FLUX.1-dev: a student that was trained with one keeps it, in diffusers too."""
    on = problem(f"sd:{families['flux-dev']}", settings={"data": str(pictures), "rank": 4, "size": 64})
    run, _ = trained(method, on, out=tmp_path / "run", changes={"lr": 1e-2})
    words = ["sample", str(tmp_path / "run"), "--prompt", "a cat", "--steps", "1", "--seed", "5"]
    assert cli.main([*words, "--out", str(tmp_path / "a.npz")]) == 0
    made = np.load(tmp_path / "a.npz")
    assert json.loads(str(made["settings"]))["guidance_scale"] == scale
    assert cli.main([*words, "--guidance-scale", str(scale), "--out", str(tmp_path / "b.npz")]) == 0
    assert np.array_equal(made["latents"], np.load(tmp_path / "b.npz")["latents"])
    model = run.finish()
    assert f"guidance_scale={scale})" in export(model.denoiser, model.about, tmp_path / "student").code


@pytest.mark.slow
def test_a_student_of_sd3_that_takes_the_scale_stays_here(sd3, tmp_path):
    run, _ = trained("lcm", sd3, out=tmp_path / "run", changes={"lr": 1e-2})
    model = run.finish()
    D, x, t, cond = model.denoiser, torch.randn(2, 16, 8, 8), torch.tensor([0.4, 0.8]), sd3.eval_labels(2)
    assert not torch.equal(D(x, t, cond, 5.0).x0, D(x, t, cond, 2.0).x0)
    assert torch.equal(runs.load(tmp_path / "run").denoiser(x, t, cond, 5.0).x0, D(x, t, cond, 5.0).x0)
    with pytest.raises(ValueError, match="SD3Transformer2DModel has none"):
        export(D, model.about, tmp_path / "student")


@pytest.mark.slow
def test_a_run_on_sd3_that_is_stopped_is_continued_bit_for_bit(sd3, tmp_path):
    def run(name, stop=None, resume=False):
        changes = FEW | SMALL["cd"] | {"updates": 4}
        made = runs.train("cd", sd3, changes=changes, out=tmp_path / name, every=1, resume=resume, watch=0)
        for record in made:
            if record.step == stop:
                return None
        return made.finish().denoiser.state_dict()

    whole, _ = run("whole"), run("parts", stop=2)
    parts = run("parts", resume=True)
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "method"),
    [("sd-v", "cd"), ("sd-v", "rectified-flow"), ("xl", "rectified-diffusion"), ("xl", "lcm"), ("xl", "perflow")],
)
def test_students_of_other_checkpoints_leave_as_well(checkpoints, pictures, tmp_path, kind, method):
    on = problem(f"sd:{checkpoints[kind]}", settings={"data": str(pictures), "rank": 4})
    run, losses = trained(method, on, changes={"lr": 1e-2})
    assert all(torch.isfinite(torch.tensor(list(record.values()))).all() for record in losses)
    model = run.finish()
    made = export(model.denoiser, model.about, tmp_path / "student")
    g = PLAIN.get(method, 1.0)
    solver = "ddim" if isinstance(model.denoiser.schedule, Linear) else model.about["sampler"]["solver"]
    ours = sample_images(
        on.checkpoint,
        tiny_sd.PROMPTS[:2],
        denoiser=model.denoiser,
        steps=max(made.steps),
        seed=3,
        guidance_scale=g,
        rounded=True,
        solver=solver,
        grid="uniform",
    )
    assert float((ours.images - by_its_own_code(made.code, g)).abs().max()) <= 1 / 255


@pytest.mark.slow
def test_all_weights_instead_of_a_lora(checkpoints, pictures, tmp_path):
    on = problem(f"sd:{checkpoints['sd']}", settings={"data": str(pictures), "trained": "full"})
    before = everything(on.teacher)
    run, _ = trained("pcm", on, out=tmp_path / "run", changes={"lr": 1e-3, "adversarial": 0.0})
    model = run.finish()
    assert all(torch.equal(p, before[name]) for name, p in everything(on.teacher).items())
    moved = [name for name, p in everything(model.denoiser).items() if not torch.equal(p, before[name])]
    assert len(moved) > 0.9 * len(before)
    made = export(model.denoiser, model.about, tmp_path / "student")
    assert made.what == "unet"
    ours = sample_images(
        on.checkpoint,
        tiny_sd.PROMPTS[:2],
        denoiser=model.denoiser,
        steps=4,
        seed=3,
        guidance_scale=1.0,
        rounded=True,
        solver="ddim",
        grid="uniform",
    )
    assert float((ours.images - by_its_own_code(made.code, 1.0)).abs().max()) <= 1 / 255
    loaded = runs.load(tmp_path / "run").denoiser
    assert all(torch.equal(p, everything(model.denoiser)[name]) for name, p in everything(loaded).items())


@pytest.mark.slow
def test_a_whole_unet_of_a_lora_is_the_same_student(sd, tmp_path):
    run, _ = trained("cd", sd, changes={"lr": 1e-2})
    model = run.finish()
    made = export(model.denoiser, model.about, tmp_path / "whole", whole=True)
    assert made.what == "unet"
    back = StableDiffusion.load(sd.checkpoint.source, unet=made.folder)
    a, b = (
        sample_images(c, "a cat", denoiser=D, steps=2, solver="lcm", grid="uniform", guidance_scale=1.0)
        for c, D in ((sd.checkpoint, model.denoiser), (back, None))
    )
    torch.testing.assert_close(a.images, b.images, rtol=0, atol=1e-4)
    before = everything(sd.checkpoint.network)
    merged(model.denoiser.net)
    assert all(torch.equal(p, before[name]) for name, p in everything(sd.checkpoint.network).items())


@pytest.mark.slow
def test_a_student_of_a_student(sd, tmp_path):
    first, _ = trained("rectified-diffusion", sd, out=tmp_path / "first", changes={"lr": 1e-2})
    first.finish()
    second = runs.train(
        "cd", sd, changes=FEW | SMALL["cd"], teacher=str(tmp_path / "first"), start=str(tmp_path / "first"), watch=0
    )
    D = second.training.student
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([0.4, 0.8]), sd.eval_labels(2)
    start = runs.load(tmp_path / "first").denoiser
    torch.testing.assert_close(D(x, t, cond).x0, start(x, t, cond).x0, rtol=0, atol=1e-4)
    assert not torch.allclose(D(x, t, cond).x0, sd.teacher(x, t, cond).x0, atol=1e-3)
    second.finish()
    with pytest.raises(ValueError, match="is of the problem sd:"):
        runs.train("cd", "mixture:ring", teacher=str(tmp_path / "first"))


# ---- what is shared, and what a file holds


@pytest.mark.slow
def test_copies_share_what_is_not_trained(sd, tmp_path):
    student = sd.student(start=sd.teacher)
    net, base = student.net, sd.checkpoint.network
    average, copied = EMA(student, 0.9), copy.deepcopy(student)
    shared = {id(p) for p in base.parameters()}
    own = [p for p in net.unet.parameters() if id(p) not in shared]
    assert len(own) == sum(".lora_" in name for name, _ in net.unet.named_parameters())
    for other in (average.module, copied):
        theirs = [p for p in other.net.unet.parameters() if id(p) not in shared]
        assert len(theirs) == len(own)
        assert not {id(p) for p in theirs} & {id(p) for p in own}
    assert len(average._averaged) == len(own)
    held = student.state_dict()
    assert len(held) == len(own)
    with torch.no_grad():
        for p in own:
            p.add_(1.0)
    copied.load_state_dict(student.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(copied.parameters(), student.parameters(), strict=True))
    broken = dict(list(student.state_dict().items())[1:])
    with pytest.raises(RuntimeError, match="Missing key"):
        copied.load_state_dict(broken)
    trained("cd", sd, out=tmp_path / "run")
    size = (tmp_path / "run" / json.loads((tmp_path / "run" / "run.json").read_text())["file"]).stat().st_size
    # the student, its average, its target, and two moments of Adam
    assert size < 5.5 * sum(p.numel() * 4 for p in own) + 100_000


def test_a_lora_is_of_its_rank_and_starts_at_nothing(sd):
    student, teacher = sd.student(start=sd.teacher), sd.teacher
    downs = [p for name, p in student.named_parameters() if "lora_A" in name]
    assert {p.shape[0] for p in downs} == {4}
    x, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([0.4, 0.8]), sd.eval_labels(2)
    torch.testing.assert_close(student(x, t, cond).x0, teacher(x, t, cond).x0, rtol=0, atol=1e-5)
    assert student.net.low_rank(16) is student.net
    conditioned = sd.student(start=sd.teacher, guided=True)
    assert conditioned.scale_conditioned
    assert torch.equal(conditioned(x, t, cond, 5.0).x0, conditioned(x, t, cond).x0)
    torch.testing.assert_close(conditioned(x, t, cond).x0, teacher(x, t, cond).x0, rtol=0, atol=1e-5)
    pipe = sd.checkpoint.pipe
    for g in (1.0, 2.5, 7.5):
        theirs = pipe.get_guidance_scale_embedding(torch.tensor([g - 1]), embedding_dim=256)
        torch.testing.assert_close(guidance_embedding(torch.tensor([g]), 256), theirs, rtol=0, atol=2e-3)


@pytest.mark.slow
def test_gradient_checkpointing_and_accumulation_change_no_update(checkpoints, pictures):
    def weights(checkpointing, accumulate):
        on = problem(
            f"sd:{checkpoints['sd-v']}", settings={"data": str(pictures), "rank": 4, "checkpointing": checkpointing}
        )
        run, losses = trained("pcm", on, accumulate=accumulate, changes={"adversarial": 0.0})
        return losses, run.finish().denoiser.state_dict()

    losses, plain = weights(False, 1)
    for other_losses, other in (weights(False, 4), weights(True, 2)):
        assert losses[0]["loss"] == pytest.approx(other_losses[0]["loss"], rel=1e-4)
        for name, value in plain.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=2e-5)
    with pytest.raises(ValueError, match="a batch of 4 cannot be accumulated in 3 equal parts"):
        weights(False, 3)


@pytest.mark.slow
def test_frozen_weights_in_half_precision(tmp_path, pictures):
    on = problem(f"sd:{tiny_sd.save(tmp_path / 'half', 'sd')}", settings={"data": str(pictures), "rank": 4})
    on.checkpoint.to(dtype="bfloat16")
    for method in ("lcm", "vsd", "pcm"):
        run, losses = trained(method, on)
        assert all(torch.isfinite(torch.tensor(list(record.values()))).all() for record in losses)
        own = set(run.training.student.state_dict())
        dtypes = {p.dtype for name, p in run.training.student.named_parameters() if name in own}
        assert dtypes == {torch.float32}
        assert {p.dtype for name, p in run.training.student.named_parameters() if name not in own} == {torch.bfloat16}
        made = sample_images(
            on.checkpoint,
            "a cat",
            denoiser=run.finish().denoiser,
            steps=2,
            solver="ddim",
            grid="uniform",
            guidance_scale=1.0,
        )
        assert made.latents.dtype == torch.float32


def test_accumulation_is_the_same_update_on_points():
    def weights(accumulate):
        run = runs.train("cd", TinyMixture(), changes={"updates": 3, "batch": 12, "warmup": 0}, accumulate=accumulate)
        return run.finish().denoiser.state_dict()

    whole = weights(1)
    for name, value in weights(4).items():
        torch.testing.assert_close(value, whole[name], rtol=0, atol=1e-5)


# ---- data


def test_images_and_captions(tmp_path, pictures, checkpoints):
    assert [caption for _, caption in image_folder(pictures)] == [tiny_sd.PROMPTS[i % 3] for i in range(8)]
    inner = tmp_path / "inner"
    inner.mkdir()
    shutil.copy(pictures / "0.png", inner / "a.png")
    with pytest.raises(ValueError, match="has no caption"):
        image_folder(tmp_path)
    (inner / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "from the index"}\n\n')
    assert image_folder(tmp_path) == [(inner / "a.png", "from the index")]
    (inner / "metadata.jsonl").write_text("{}\n")
    with pytest.raises(ValueError, match="line 1 of"):
        image_folder(tmp_path)
    with pytest.raises(ValueError, match="there is no folder of images"):
        image_folder(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        image_folder(tmp_path / "empty")
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        read_image(tmp_path / "bad.png", (8, 8))
    assert read_image(pictures / "0.png", (16, 8)).shape == (3, 16, 8)


def test_latents_and_prompts_are_encoded_once(checkpoints, pictures, tmp_path, monkeypatch):
    settings = {"data": str(pictures), "cache": tmp_path / "cache", "rank": 4}
    fresh = shutil.copytree(checkpoints["sd-v"], tmp_path / "fresh")  # whose prompts no other test has encoded
    first = problem(f"sd:{fresh}", settings=settings)
    a, labels = first.data(16, 0)
    assert {path.name.partition("-")[0] for path in (tmp_path / "cache").iterdir()} == {"latents", "text"}
    assert set(labels.tolist()) <= set(first.ids.tolist())
    assert not torch.equal(a, first.data(16, 1)[0])
    second = problem(f"sd:{fresh}", settings=settings)

    def never(*args, **options):
        raise AssertionError("encoded again")

    monkeypatch.setattr(second.checkpoint, "encode", never)
    assert torch.equal(second.data(16, 0)[0], a)
    # each latent is of its prompt's image
    rng = torch.Generator().manual_seed(0)
    i = torch.randint(8, (16,), generator=rng)
    mean, std = second._latents[0](torch.arange(8))
    assert labels.tolist() == [prompt_id(tiny_sd.PROMPTS[int(k) % 3]) for k in i]
    x = mean[i].float() + std[i].float() * torch.randn(a.shape, generator=rng)
    assert torch.equal(x, a)
    # a batch's latents have the law that the VAE says
    x, _ = second.data(4000, 3)
    spread = (mean.float().var(0, unbiased=False) + std.float().square().mean(0)).sqrt()
    torch.testing.assert_close(x.std(0), spread, rtol=0.15, atol=1e-3)
    # an image that changed is encoded again
    shutil.copytree(pictures, tmp_path / "other")
    third = problem(f"sd:{fresh}", settings=settings | {"data": str(tmp_path / "other")})
    with pytest.raises(AssertionError, match="encoded again"):
        third.data(1, 0)


def test_prompts_from_the_cache_are_the_encoders_own(checkpoints, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a blue bird\n\na green tree\n")
    fresh = shutil.copytree(checkpoints["xl"], tmp_path / "fresh")
    on = problem(f"sd:{fresh}", settings={"prompts": prompts, "cache": tmp_path / "cache"})
    rows = on.checkpoint.prompts.rows(on.ids, torch.zeros(2, 4, 8, 8))
    assert on.classes == 2
    with torch.no_grad():
        want = on.checkpoint.pipe.encode_prompt(
            ["a blue bird", "a green tree"], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
    torch.testing.assert_close(rows.hidden, want[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(rows.pooled, want[2], rtol=0, atol=1e-5)


@pytest.mark.slow
def test_methods_with_data_do_not_with_prompts(sd_without_data):
    """The others do: `test_every_method_on_every_problem` gives them no data."""
    on = sd_without_data
    for method in ANYWHERE:
        if METHODS[method].data:
            with pytest.raises(ValueError, match="this method trains on data"):
                trained(method, on)
    with pytest.raises(ValueError, match="nothing to compare samples"):
        on.measure(torch.zeros(4, 4, 8, 8))
    with pytest.raises(ValueError, match="nothing to compare samples"):
        runs.train("vsd", on, changes=FEW, watch=1).finish()


@pytest.mark.slow
def test_pairs_are_data_and_are_continued(checkpoints, tmp_path, monkeypatch):
    prompts = ["a cat", "a dog"]
    on = problem(f"sd:{checkpoints['sd']}", settings={"prompts": prompts, "at_once": 2, "rank": 4})
    recipe = Recipe(n=20, steps=2, solver="ddim", guidance_scale=2.0)
    whole = save_pairs(on, on.teacher, recipe, tmp_path / "whole", teacher_name="own")
    assert len(list((tmp_path / "whole").glob("pairs-*.safetensors"))) == 3  # 8 a shard
    assert set(whole.cond.tolist()) == set(on.ids.tolist())
    shutil.copytree(tmp_path / "whole", tmp_path / "part")
    for name in ("pairs.json", "pairs-00001.safetensors"):
        (tmp_path / "part" / name).unlink()
    again = save_pairs(on, on.teacher, recipe, tmp_path / "part", teacher_name="own")
    assert torch.equal(again.x0, whole.x0)
    # in another process the prompts are read from what the pairs say
    other = problem(f"sd:{checkpoints['sd']}", settings={"data": str(tmp_path / "whole"), "rank": 4})
    assert set(other.ids.tolist()) == set(on.ids.tolist())
    x0, _ = other.data(6, 0)
    assert all(any(torch.equal(x, y) for y in whole.x0) for x in x0)
    run = runs.train("cd", other, changes=FEW | SMALL["cd"], watch=1)
    run.finish()
    assert run.watch is not None
    wrong = problem(f"sd:{checkpoints['sd']}", settings={"data": str(tmp_path / "whole"), "size": 24})
    with pytest.raises(ValueError, match="the pairs have latents"):
        wrong.data(1, 0)
    assert load_pairs(tmp_path / "whole").about["settings"]["prompts"] == prompts


def test_bad_settings_of_the_problem(checkpoints, tmp_path):
    def refused(match, **settings):
        with pytest.raises(ValueError, match=match):
            problem(f"sd:{checkpoints['sd']}", settings=settings)

    refused("did you mean 'full'", trained="ful")
    refused("rank must be", rank=0)
    refused("at_once must be", at_once=0)
    refused("multiples of 2", size=17)
    refused("cannot be read", prompts=tmp_path / "nothing.txt")
    (tmp_path / "empty.txt").write_text("\n")
    refused("has none", prompts=tmp_path / "empty.txt")
    with pytest.raises(ValueError, match="a Stable Diffusion problem is sd:MODEL"):
        problem("sd")
    with pytest.raises(ValueError, match="has no settings"):
        problem("digits", settings={"rank": 4})
    with pytest.raises(ValueError, match="did you mean 'mixture'"):
        problem("mixtures")


@pytest.mark.slow
def test_export_refuses_what_it_cannot_write(sd, tmp_path):
    run, _ = trained("cd", sd)
    model = run.finish()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("")
    with pytest.raises(ValueError, match="is not empty"):
        export(model.denoiser, model.about, tmp_path / "used")
    with pytest.raises(ValueError, match="the checkpoint itself"):
        export(sd.teacher, model.about, tmp_path / "new")
    with pytest.raises(ValueError, match="only students of Stable Diffusion checkpoints"):
        export(TinyMixture().student(), model.about, tmp_path / "new")
    other = sd.student(Linear(), "x0", start=sd.teacher)
    with pytest.raises(ValueError, match="no scheduler of diffusers has the schedule"):
        export(other, model.about, tmp_path / "new")
    score = sd.student(sd.schedule, "score", start=sd.teacher)
    with pytest.raises(ValueError, match="no scheduler of diffusers takes predictions of the kind 'score'"):
        export(score, model.about, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_a_flow_that_is_noised_again_has_no_scheduler(sd, tmp_path):
    flow, _ = trained("rectified-flow", sd)
    flow = flow.finish()
    run = runs.train("cd", sd, changes=FEW | SMALL["cd"], teacher=flow, watch=0)
    model = run.finish()
    with pytest.raises(ValueError, match="noises a flow again"):
        export(model.denoiser, model.about, tmp_path / "new")


@pytest.mark.slow
def test_an_export_that_fails_leaves_nothing(sd, tmp_path, monkeypatch):
    run, _ = trained("cd", sd)
    model = run.finish()

    def full(*args, **settings):
        raise OSError("no space left on device")

    monkeypatch.setattr("toydiff.adapters.export._save_lora", full)
    with pytest.raises(ValueError, match=r"cannot be written into .*no space"):
        export(model.denoiser, model.about, tmp_path / "student")
    assert not list(tmp_path.iterdir())


# ---- where things are


@pytest.mark.slow
def test_a_run_is_sampled_without_what_it_was_trained_on_and_from_anywhere(
    checkpoints, pictures, tmp_path, monkeypatch
):
    shutil.copytree(checkpoints["sd"], tmp_path / "model")
    shutil.copytree(pictures, tmp_path / "pictures")
    monkeypatch.chdir(tmp_path)
    on = problem("sd:model", settings={"data": "pictures", "rank": 2})
    trained("cd", on, out="run")[0].finish()
    shutil.rmtree("pictures")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    model = runs.load(tmp_path / "run")
    again = runs.problem_of(model, with_data=False)
    made = sample_images(
        again.checkpoint, "never encoded before", denoiser=model.denoiser, steps=2, solver="lcm", grid="uniform"
    )
    assert made.images.shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match="there is no folder of images"):
        runs.problem_of(model)
    # "./model" is "model"
    monkeypatch.chdir(tmp_path)
    assert problem("sd:./model").checkpoint is problem("sd:model", settings={"local_only": True}).checkpoint is not None


@pytest.mark.slow
def test_a_problem_of_a_checkpoint_that_is_in_hand_says_where_it_is_from(checkpoints, sd, tmp_path):
    first, _ = trained("rectified-diffusion", sd, changes={"lr": 1e-2})
    first = first.finish()
    made = export(first.denoiser, first.about, tmp_path / "lora")
    checkpoint = StableDiffusion.load(checkpoints["sd"], lora=made.folder)
    on = StableDiffusionProblem(checkpoint, prompts=["a cat"], rank=2)
    trained("vsd", on, out=tmp_path / "run", changes={"ratio": 1})
    again = runs.problem_of(runs.load(tmp_path / "run"))
    assert again.checkpoint is checkpoint
    # its student teaches one of the plain checkpoint: two of them are in memory, with one set of labels
    below = runs.train("cd", sd, changes=FEW | SMALL["cd"], teacher=str(tmp_path / "run"), watch=0)
    assert len(list(below)) == 2


@pytest.mark.slow
def test_pairs_bring_their_prompts(checkpoints, tmp_path):
    on = problem(f"sd:{checkpoints['sd']}", settings={"prompts": ["one", "two", "three"], "rank": 2})
    save_pairs(on, on.teacher, Recipe(n=6, steps=1, solver="ddim"), tmp_path / "pairs", teacher_name="own")
    other = problem(f"sd:{checkpoints['sd']}", settings={"prompts": ["four"], "rank": 2})
    assert len(list(runs.train("naive", other, changes=FEW, pairs=tmp_path / "pairs"))) == 2
    wide = problem(f"sd:{checkpoints['sd']}", settings={"prompts": ["four"], "size": 24})
    with pytest.raises(ValueError, match=r"the pairs have samples \(4, 8, 8\)"):
        runs.train("naive", wide, changes=FEW, pairs=tmp_path / "pairs")
    changed = problem(f"sd:{checkpoints['sd']}", settings={"prompts": ["one", "two"], "rank": 2})
    with pytest.raises(ValueError, match="the pairs in"):
        save_pairs(
            changed, changed.teacher, Recipe(n=6, steps=1, solver="ddim"), tmp_path / "pairs", teacher_name="own"
        )


def test_pictures_of_all_kinds(tmp_path):
    grey = np.linspace(0, 65535, 64).reshape(8, 8)
    Image.fromarray(grey.astype(np.uint16)).save(tmp_path / "deep.png")
    assert abs(float(read_image(tmp_path / "deep.png", (8, 8)).mean()) - 0.5) < 0.01
    for mode in ("L", "RGBA", "P", "1", "LA"):
        Image.new("RGB", (3, 5), (255, 0, 0)).convert(mode if mode != "LA" else "L").convert(mode).save(
            tmp_path / f"{mode}.png"
        )
        assert read_image(tmp_path / f"{mode}.png", (4, 4)).shape == (3, 4, 4)
    for path in tmp_path.iterdir():
        path.with_suffix(".txt").write_bytes(b"\xef\xbb\xbfa line\xe2\x80\xa8and more")
    assert {caption for _, caption in image_folder(tmp_path)} == {"a line\u2028and more"}
    (tmp_path / "L.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"L.txt' cannot be read as text in UTF-8"):
        image_folder(tmp_path)
    (tmp_path / "L.txt").unlink()
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "L.png", "text": null}')
    with pytest.raises(ValueError, match="is not like"):
        image_folder(tmp_path)


# ---- interruption


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_bits_from_its_cache(checkpoints, pictures, tmp_path):
    fresh = shutil.copytree(checkpoints["sd"], tmp_path / "fresh")  # whose prompts are always encoded together

    def run(name, stop=None, resume=False):
        on = problem(f"sd:{fresh}", settings={"data": str(pictures), "rank": 4, "cache": tmp_path / name / "cache"})
        made = runs.train(
            "cd", on, changes=FEW | SMALL["cd"] | {"updates": 4}, out=tmp_path / name, every=1, resume=resume
        )
        for record in made:
            if record.step == stop:
                return None
        return made.finish().denoiser.state_dict()

    whole = run("whole")
    run("parts", stop=2)
    parts = run("parts", resume=True)
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    other = problem(f"sd:{fresh}", settings={"data": str(pictures), "rank": 4, "prompts": ["one more"]})
    with pytest.raises(ValueError, match="resume it as it was begun"):
        runs.train(
            "cd", other, changes=FEW | SMALL["cd"] | {"updates": 4}, out=tmp_path / "parts", resume=True
        ).finish()


@pytest.mark.slow
def test_a_run_goes_on_with_the_same_bits(sd, tmp_path):
    sd.sizes = dataclasses.replace(sd.sizes, watched=8)

    def run(folder, stop=None, resume=False):
        made = runs.train(
            "dmd2", sd, changes=FEW | SMALL["dmd2"] | {"updates": 4}, out=folder, every=1, resume=resume, watch=2
        )
        for record in made:
            if record.step == stop:
                return None
        return made.finish().denoiser.state_dict()

    whole = run(tmp_path / "whole")
    run(tmp_path / "parts", stop=3)
    parts = run(tmp_path / "parts", resume=True)
    assert all(torch.equal(parts[name], value) for name, value in whole.items())
    other = problem(sd.name, settings={**{k: v for k, v in sd.settings().items() if k != "rank"}, "rank": 8})
    with pytest.raises(ValueError, match="has rank = 4, not 8"):
        runs.train(
            "dmd2", other, changes=FEW | SMALL["dmd2"] | {"updates": 4}, out=tmp_path / "parts", resume=True, watch=2
        ).finish()


@pytest.mark.slow
def test_a_killed_process_is_continued(checkpoints, pictures, tmp_path):
    """Its weights are those of this process, which was left alone."""
    words = [
        "train",
        "vsd",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--data",
        str(pictures),
        "--rank",
        "4",
        "--updates",
        "9",
        "--batch",
        "4",
        "--every",
        "1",
        "--watch",
        "0",
        "--set",
        "warmup=0",
        "--out",
    ]
    assert cli.main([*words, str(tmp_path / "whole")]) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "toydiff", *words, str(tmp_path / "killed")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    index = tmp_path / "killed" / "run.json"
    deadline = time.time() + 120
    while not (index.exists() and json.loads(index.read_text())["step"] >= 2) and time.time() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert json.loads(index.read_text())["step"] < 9
    assert cli.main([*words, str(tmp_path / "killed"), "--resume"]) == 0
    a, b = (runs.load(tmp_path / name).denoiser.state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_labels_are_dropped_to_the_negative_prompt(sd):
    D, x = sd.teacher, torch.randn(2, 4, 8, 8)
    none = torch.full((2,), NO_CLASS)
    assert torch.equal(D(x, 0.5, none).eps, D(x, 0.5, None).eps)
    assert not torch.equal(D(x, 0.5, sd.eval_labels(2)).eps, D(x, 0.5, None).eps)
    assert isinstance(D.net, CheckpointNetwork)
    assert len(set(sd.eval_labels(6).tolist())) == 3
