"""A negative prompt for each prompt; diffusers' pipelines, which take a list of them, are the oracle."""

import json

import diffusers
import numpy as np
import pytest
import tiny_sd
import torch

from toydiff import denoisers
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
PROMPTS = ["a cat", "a small dog", "a cat"]
NEGATIVES = ["ugly", "", "blurry, two heads"]
SAME = {"solver": "ddim", "grid": "trailing", "guidance_scale": 3.0, "decode": False}


def theirs(folder, steps, **settings):
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    rng = [torch.Generator().manual_seed(seed) for seed in range(3)]
    settings = {"guidance_scale": 3.0, "output_type": "latent"} | settings
    return pipe(PROMPTS, negative_prompt=NEGATIVES, num_inference_steps=steps, generator=rng, **settings).images


@pytest.mark.parametrize(("kind", "steps"), [("sd", 1), ("sd", 4), ("sd", 20), ("xl", 4)])
def test_the_pipelines_of_diffusers(kind, steps, checkpoints):
    want, checkpoint = theirs(checkpoints[kind], steps), StableDiffusion.load(checkpoints[kind])
    for at_once in (1, 2, 3):
        ours = sample_images(checkpoint, PROMPTS, negative_prompt=NEGATIVES, steps=steps, at_once=at_once, **SAME)
        assert float((ours.latents - want).abs().max()) < 1e-4
    one = sample_images(checkpoint, PROMPTS, negative_prompt=NEGATIVES[0], steps=steps, **SAME)
    assert float((ours.latents - one.latents).abs().amax((1, 2, 3))[1:].min()) > 1e-3


def test_with_rescaled_guidance(checkpoints):
    want = theirs(checkpoints["sd"], 4, guidance_rescale=0.7)
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    ours = sample_images(checkpoint, PROMPTS, negative_prompt=NEGATIVES, steps=4, guidance_rescale=0.7, **SAME)
    assert float((ours.latents - want).abs().max()) < 1e-4


@pytest.mark.parametrize("solver", ["picard:tolerance=none", "parareal:tolerance=none"])
def test_parallel_samplers_walk_to_the_same_images(solver, checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    settings = SAME | {"negative_prompt": NEGATIVES, "steps": 4, "at_once": 2}
    walk = sample_images(checkpoint, PROMPTS, **settings)
    ours = sample_images(checkpoint, PROMPTS, **settings | {"solver": solver})
    assert float((ours.latents - walk.latents).abs().max()) < 1e-4


def test_a_flow_has_them_too(families):
    tiny_sd.silent()
    pipe = diffusers.StableDiffusion3Pipeline.from_pretrained(families["sd3"])
    pipe.set_progress_bar_config(disable=True)
    checkpoint = StableDiffusion.load(families["sd3"])
    height, width = checkpoint.resolution
    rng = [torch.Generator().manual_seed(seed) for seed in range(3)]
    want = pipe(
        PROMPTS,
        negative_prompt=NEGATIVES,
        num_inference_steps=4,
        generator=rng,
        guidance_scale=3.0,
        output_type="latent",
        height=height,
        width=width,
    ).images
    settings = SAME | {"grid": "shifted", "negative_prompt": NEGATIVES, "steps": 4}
    assert float((sample_images(checkpoint, PROMPTS, **settings).latents - want).abs().max()) < 1e-4


def test_each_of_several_images_of_a_prompt_has_its_own(checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    both = sample_images(checkpoint, PROMPTS[:2], negative_prompt=NEGATIVES[:2], each=2, steps=4, **SAME)
    alone = sample_images(checkpoint, PROMPTS[1], negative_prompt=NEGATIVES[1], each=2, seed=2, steps=4, **SAME)
    assert float((both.latents[2:] - alone.latents).abs().max()) < 1e-4


def test_a_model_says_what_guidance_leads_away_from():
    class Two(denoisers.Denoiser):
        """Predicts its condition."""

        def __init__(self):
            from toydiff.schedules import Linear

            super().__init__(Linear())

        def without(self, cond):
            return None if cond is None else -cond

        def forward(self, x, t, cond=None):
            from toydiff.prediction import Prediction

            return Prediction.of("x0", torch.zeros_like(x) + cond[:, None], x, t, self.schedule)

    x, cond = torch.zeros(2, 3), torch.tensor([1.0, 2.0])
    for D in (Two(), denoisers.GuidanceInterval(Two(), 0.0, 1.0)):
        # without + g (given - without), with without = -given
        assert torch.equal(D(x, 0.5, cond, 3.0).x0[:, 0], torch.tensor([5.0, 10.0]))
        assert torch.equal(D(x, 0.5, cond, 0.0).x0[:, 0], torch.tensor([-1.0, -2.0]))


def test_by_the_command(checkpoints, tmp_path, capsys):
    words = ["sample", "--problem", "sd", "--model", checkpoints["sd"], "--steps", "4", "--solver", "ddim"]
    words += ["--grid", "trailing", "--guidance-scale", "3", *(word for text in PROMPTS for word in ("--prompt", text))]
    negatives = [word for text in NEGATIVES for word in ("--negative-prompt", text)]
    assert cli.main([*words, *negatives, "--out", str(tmp_path / "out.npz")]) == 0
    with np.load(tmp_path / "out.npz") as made:
        assert np.abs(made["latents"] - theirs(checkpoints["sd"], 4).numpy()).max() < 1e-4
        assert json.loads(str(made["settings"]))["negative_prompt"] == NEGATIVES
    capsys.readouterr()
    for given, line in (
        (negatives[:4], "there are 2 negative prompts for 3 prompts; give one for all, or one for each"),
        ([*negatives[:4], "--negative-prompt", "x" * 100], "of the negative prompt: the prompt has 100 tokens"),
        ([*negatives, "--guidance-scale", "1"], "the negative prompt has no effect at guidance scale 1"),
    ):
        assert cli.main([*words, *given, "--out", str(tmp_path / "no.png")]) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
    sd = StableDiffusion.load(checkpoints["sd"])
    with pytest.raises(ValueError, match="the negative prompt must be text, got None"):
        sample_images(sd, PROMPTS, negative_prompt=["a", None, "b"], **SAME)
