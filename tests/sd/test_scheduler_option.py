"""The scheduler and the kind of prediction of a checkpoint, overridden; diffusers' pipelines are the oracle."""

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


def theirs(folder, scheduler, steps=4, guidance_scale=3.0, **settings):
    """The latent of diffusers' pipeline with this scheduler."""
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config, **settings)
    rng = torch.Generator().manual_seed(3)
    made = pipe("a cat", num_inference_steps=steps, generator=rng, output_type="latent", guidance_scale=guidance_scale)
    return made.images


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
    want = theirs(checkpoints["sd"], "DDIMScheduler", prediction_type=kind, timestep_spacing="trailing")
    near(ours.latents, want)


def test_a_scheduler_alone_says_the_solver_and_the_grid(checkpoints, tmp_path):
    to = ("--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a cat", "--steps", 4, "--seed", 3)
    for scheduler, solver in COMPARABLE.items():
        if scheduler == "PNDMScheduler":  # this configuration asks for its Runge-Kutta steps
            continue
        made, latents = sampled(*to, "--scheduler", scheduler, "--guidance-scale", 3, tmp_path / f"{scheduler}.npz")
        assert (made["scheduler"], made["solver"]) == (scheduler, solver)
        near(latents, theirs(checkpoints["sd"], scheduler))


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
