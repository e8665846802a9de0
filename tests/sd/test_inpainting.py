"""A part of an image is made anew as diffusers' inpainting pipelines do for models that take no mask."""

import json

import diffusers
import numpy as np
import parity
import pytest
import tiny_sd
import torch
from PIL import Image

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.images import read_image
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
FEW = {"steps": 3, "guidance_scale": 1.0, "decode": False}


@pytest.fixture(scope="module")
def sd(checkpoints):
    return StableDiffusion.load(checkpoints["sd"])


@pytest.fixture(scope="module")
def photo():
    return torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def mask():
    """Grey of every brightness: half of it counts."""
    return torch.rand(1, 16, 24, generator=torch.Generator().manual_seed(1))


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def theirs(
    folder, solver, spacing, kind=diffusers.StableDiffusionInpaintPipeline, prompts=tiny_sd.PROMPTS[:2], **settings
):
    """The latents of their pipeline."""
    tiny_sd.silent()
    pipe = kind.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    own = {} if spacing == "lcm" else {"timestep_spacing": spacing}
    pipe.scheduler = getattr(diffusers, parity.SIDES[solver.partition(":")[0]]).from_config(
        pipe.scheduler.config, **own
    )
    return pipe(prompts, output_type="latent", height=16, width=24, guidance_scale=3.0, **settings).images


@pytest.mark.parametrize(
    ("kind", "solver", "spacing", "steps", "strength"),
    [
        *(("sd", solver, "trailing", n, s) for solver in ("ddim", "dpm++2m") for n in (4, 20) for s in (1.0, 0.6)),
        ("sd", "ddim", "leading", 4, 1.0),  # ends at the table's first level
        ("sd", "unipc2", "trailing", 5, 0.8),
        ("sd", "lcm", "lcm", 4, 1.0),
        ("sd", "ddpm", "trailing", 4, 0.5),
        ("xl", "ddim", "trailing", 4, 1.0),
    ],
)
def test_the_inpainting_of_diffusers(checkpoints, photo, mask, kind, solver, spacing, steps, strength):
    made = diffusers.StableDiffusionXLInpaintPipeline if kind == "xl" else diffusers.StableDiffusionInpaintPipeline
    checkpoint = StableDiffusion.load(checkpoints[kind])
    images, masks = torch.stack([photo, photo.flip(1)]), torch.stack([mask, mask.flip(2)])
    settings = {"image": images, "strength": strength}
    for seed, rng in ((3, generators(3, 4)), (torch.Generator().manual_seed(3), *generators(3))):
        want = theirs(
            checkpoints[kind],
            solver,
            spacing,
            made,
            mask_image=masks,
            num_inference_steps=steps,
            generator=rng,
            **settings,
        )
        ours = sample_images(
            checkpoint,
            tiny_sd.PROMPTS[:2],
            mask=masks,
            steps=steps,
            solver=solver,
            grid=spacing,
            seed=seed,
            guidance_scale=3.0,
            decode=False,
            **settings,
        )
        assert float((ours.latents - want).abs().max()) < 1e-4


def test_the_strength_of_a_mask_is_one(checkpoints, sd, photo, mask):
    both = torch.stack([photo, photo])
    want = theirs(
        checkpoints["sd"],
        "ddim",
        "trailing",
        image=both,
        mask_image=mask[None],
        num_inference_steps=4,
        generator=generators(0, 1),
    )
    settings = {"image": photo, "mask": mask, "steps": 4, "solver": "ddim", "grid": "trailing", "guidance_scale": 3.0}
    for at_once in (1, 2):
        ours = sample_images(sd, tiny_sd.PROMPTS[:2], at_once=at_once, decode=False, **settings)
        assert float((ours.latents - want).abs().max()) < 1e-4


def test_what_the_mask_leaves_is_kept_on_every_grid(sd, photo, mask):
    mean, std = sd.encode(photo[None])
    z = mean + std * torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    kept = (mask[None, :, ::2, ::2] < 0.5).expand_as(z)
    for settings in (FEW, FEW | {"solver": "heun"}, FEW | {"ts": torch.tensor([0.6, 0.3, 0.0])}):
        made = sample_images(sd, "a cat", image=photo, mask=mask, **settings).latents
        assert torch.equal(made[kept], z[kept])
        assert float((made - z)[~kept].abs().min()) > 1e-4


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"image": None}, "it needs image"),
        ({"mask": "white"}, "mask must be a floating-point tensor, got str"),
        ({"mask": torch.ones(1, 16, 24, dtype=torch.bool)}, "mask must be a floating-point tensor, got torch.bool"),
        ({"mask": torch.ones(16, 24)}, r"mask must be \(1, 16, 24\), or \(1, 1, 16, 24\) for as many images"),
        ({"mask": torch.ones(1, 16, 16)}, r"got \(1, 16, 16\)"),
        ({"mask": torch.full((1, 16, 24), 255.0)}, r"mask must lie in \[0, 1\], got 255 to 255"),
        ({"mask": torch.full((1, 16, 24), float("nan"))}, "mask has 384 value"),
        ({"mask": torch.zeros(1, 16, 24)}, "nothing would be made anew"),
        ({"solver": "picard"}, "a parallel sampler takes no mask"),
        ({"solver": "heun", "grid": "trailing"}, "after each of the two calls of a step of heun"),
    ],
)
def test_masks_that_are_none(sd, photo, mask, settings, line):
    with pytest.raises(ValueError, match=line) as error:
        sample_images(sd, "a cat", **FEW | {"image": photo, "mask": mask} | settings)
    assert "\n" not in str(error.value)


def test_inpainting_by_the_command(checkpoints, tmp_path, capsys):
    Image.new("RGB", (24, 16), (200, 30, 30)).save(tmp_path / "start.png")
    half = Image.new("L", (48, 32))
    half.paste(255, (0, 0, 24, 32))
    half.save(tmp_path / "mask.png")
    words = ["sample", "--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a cat", "--size", "16x24"]
    words += ["--steps", "4", "--solver", "ddim", "--grid", "trailing", "--guidance-scale", "3"]
    masked = ["--mask", str(tmp_path / "mask.png")]
    start = ["--image", str(tmp_path / "start.png")]
    assert cli.main([*words, *start, *masked, "--out", str(tmp_path / "out.npz")]) == 0
    assert "8 network calls each" in capsys.readouterr().out
    out = np.load(tmp_path / "out.npz")
    settings = json.loads(str(out["settings"]))
    assert (settings["mask"], settings["strength"]) == (str(tmp_path / "mask.png"), 1.0)
    left = torch.zeros(1, 1, 16, 24)
    left[..., :12] = 1
    want = theirs(
        checkpoints["sd"],
        "ddim",
        "trailing",
        prompts="a cat",
        image=read_image(tmp_path / "start.png", (16, 24))[None],
        mask_image=left,
        num_inference_steps=4,
        generator=torch.Generator().manual_seed(0),
    )
    assert float(np.abs(out["latents"] - want.numpy()).max()) < 1e-4
    capsys.readouterr()
    assert cli.main([*words, *masked, "--out", str(tmp_path / "no.png")]) == 2
    error = capsys.readouterr().err
    assert "--mask needs --image" in error
    assert error.count("\n") == 1
    assert cli.main(["sample", "--mixture", "ring", *masked, "--out", str(tmp_path / "no.png")]) == 2
