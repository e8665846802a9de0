"""A checkpoint's scheduler and kind of prediction, overridden, and guidance; diffusers' pipelines are the oracle."""

import json

import diffusers
import numpy as np
import pytest
import tiny_sd
import torch

from toydiff import runs
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.names import COMPARABLE
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


def theirs(folder, scheduler, own=None, **settings):
    """The latent of diffusers' pipeline with this scheduler, whose configuration has the settings `own`."""
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **(own or {}))
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "latent"} | settings
    return pipe("a cat", generator=torch.Generator().manual_seed(3), **settings).images


def near(ours, want):
    size = float(want.abs().max())
    assert float((torch.as_tensor(ours) - want).abs().max()) <= max(1e-4, 3e-6 * size)


def sampled(*arguments):
    """The settings and the latents of `toydiff sample`."""
    *arguments, out = map(str, arguments)
    assert cli.main(["sample", *arguments, "--out", out]) == 0
    with np.load(out) as made:
        return json.loads(str(made["settings"])), made["latents"]


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_a_kind_of_prediction_in_place_of_the_configurations(checkpoints, kind):
    checkpoint = StableDiffusion.load(checkpoints["sd"], scheduler="DDIMScheduler", prediction_type=kind)
    assert checkpoint.about["prediction_type"] == kind
    ours = sample_images(checkpoint, "a cat", steps=4, solver="ddim", grid="trailing", guidance_scale=3.0, seed=3)
    own = {"prediction_type": kind, "timestep_spacing": "trailing"}
    near(ours.latents, theirs(checkpoints["sd"], "DDIMScheduler", own))


def test_a_scheduler_alone_says_the_solver_and_the_grid(checkpoints, tmp_path):
    to = ("--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a cat", "--steps", 4, "--seed", 3)
    for scheduler, solver in COMPARABLE.items():
        if scheduler == "PNDMScheduler":  # this configuration asks for its Runge-Kutta steps
            continue
        made, latents = sampled(*to, "--scheduler", scheduler, "--guidance-scale", 3, tmp_path / f"{scheduler}.npz")
        assert (made["scheduler"], made["solver"]) == (scheduler, solver)
        near(latents, theirs(checkpoints["sd"], scheduler, eta=0.3 if solver == "tcd" else 0.0))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--scheduler", "Euler"], "unknown scheduler 'Euler'; allowed: DDIMScheduler, EulerDiscreteScheduler, "),
        (["--prediction-type", "eps"], "(did you mean 'epsilon'?); allowed: epsilon, v_prediction, sample"),
        (["--scheduler", "PNDMScheduler"], "asks PNDMScheduler for skip_prk_steps = False, which plms does not do"),
        (["--scheduler", "PNDMScheduler", "--solver", "heun"], "is the solver plms here, and --solver names heun"),
    ],
)
def test_words_that_are_none(checkpoints, tmp_path, capsys, options, line):
    to = ["sample", "--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a cat", *options]
    assert cli.main([*map(str, to), "--out", str(tmp_path / "a.png")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert line in said
    assert not list(tmp_path.iterdir())


def test_a_run_knows_what_was_overridden(checkpoints, tmp_path):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    overridden = ["--scheduler", "EulerDiscreteScheduler", "--prediction-type", "v_prediction"]
    run, to = tmp_path / "run", ["--problem", "sd", "--model", str(checkpoints["sd"])]
    train = ["train", "vsd", *to, *overridden, "--prompts", str(tmp_path / "prompts.txt"), "--rank", "2"]
    assert cli.main([*train, "--updates", "1", "--batch", "2", "--out", str(run)]) == 0
    model = runs.load(run)
    checkpoint = model.denoiser.net.checkpoint
    assert (checkpoint.kind, type(checkpoint.pipe.scheduler).__name__) == ("v", "EulerDiscreteScheduler")
    assert model.about["settings"]["scheduler"] == "EulerDiscreteScheduler"
    _, latents = sampled(run, "--prompt", "a cat", "--steps", 2, "--seed", 3, "--round-timesteps", tmp_path / "a.npz")
    assert np.isfinite(latents).all()
    assert cli.main(["export", str(run), "--out", str(tmp_path / "student")]) == 0
    written = json.loads((tmp_path / "student" / "scheduler" / "scheduler_config.json").read_text())
    assert written["prediction_type"] == "v_prediction"


# ---- guidance: rescaled, and on an interval


@pytest.mark.parametrize(("kind", "rescale"), [("sd", 0.7), ("sd-v", 1.0), ("xl", 0.5)])
def test_guidance_rescale_is_that_of_the_pipeline(checkpoints, kind, rescale):
    checkpoint = StableDiffusion.load(checkpoints[kind])
    settings = {"steps": 4, "solver": "ddim", "grid": "trailing", "guidance_scale": 6.0, "seed": 3, "decode": False}
    ours = sample_images(checkpoint, "a cat", guidance_rescale=rescale, **settings).latents
    own = {"timestep_spacing": "trailing"}
    near(ours, theirs(checkpoints[kind], "DDIMScheduler", own, guidance_scale=6.0, guidance_rescale=rescale))


def test_an_interval_of_guidance_is_guidance_turned_off_on_the_way(checkpoints, tmp_path):
    def off(pipe, i, t, inputs):
        if i == 1:  # after two of four steps
            pipe._guidance_scale = 1.0
            inputs["prompt_embeds"] = inputs["prompt_embeds"].chunk(2)[1]
        return inputs

    want = theirs(
        checkpoints["sd"],
        "DDIMScheduler",
        {"timestep_spacing": "trailing"},
        callback_on_step_end=off,
        callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"],
    )
    to = ("--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a cat", "--steps", 4, "--seed", 3)
    how = ("--solver", "ddim", "--grid", "trailing", "--guidance-scale", 3, "--guidance-interval", "0.6,1")
    made, latents = sampled(*to, *how, tmp_path / "a.npz")
    near(latents, want)
    assert made["guidance_interval"] == [0.6, 1.0]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--guidance-rescale", "1.5"], "rescale must lie in [0, 1], got 1.5"),
        (["--guidance-interval", "0.8,0.2"], "the lower first, got 0.8, 0.2"),
        (["--guidance-interval", "0.8"], "must be two times, A,B, got '0.8'"),
        (["--guidance-interval", "0,0.5", "--guidance-scale", "1"], "has no effect at scale 1"),
    ],
)
def test_settings_of_guidance_that_are_none(checkpoints, tmp_path, capsys, options, line):
    to = ["sample", "--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a cat", *options]
    assert cli.main([*map(str, to), "--out", str(tmp_path / "a.png")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert line in said
