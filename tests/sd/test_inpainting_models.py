"""Models that see a mask and what it leaves of an image; diffusers' inpainting pipelines are the oracle."""

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
PIPELINES = {"sd": diffusers.StableDiffusionInpaintPipeline, "xl": diffusers.StableDiffusionXLInpaintPipeline}
SIZE = (16, 24)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Checkpoints with UNets of 9 channels, as stable-diffusion-inpainting and stable-diffusion-xl-1.0-inpainting-0.1
    are saved."""
    tiny_sd.silent()
    place = tmp_path_factory.mktemp("inpainting")
    for kind, pipeline in PIPELINES.items():
        parts = tiny_sd.pipeline(place / f"{kind}-words", kind, seed=5, in_channels=9).components
        own = {"add_watermarker": False} if kind == "xl" else {"requires_safety_checker": False}
        pipeline(**parts, **own).save_pretrained(place / kind)
    return {kind: str(place / kind) for kind in PIPELINES}


@pytest.fixture(scope="module")
def photos():
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def masks():
    return torch.rand(2, 1, *SIZE, generator=torch.Generator().manual_seed(1))


def theirs(folder, kind, solver, spacing, image, mask, prompts=tiny_sd.PROMPTS[:2], guidance_scale=3.0, **settings):
    """The latents of their pipeline."""
    tiny_sd.silent()
    pipe = PIPELINES[kind].from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = getattr(diffusers, parity.SIDES[solver]).from_config(
        pipe.scheduler.config, timestep_spacing=spacing
    )
    height, width = SIZE
    return pipe(
        prompts,
        image=image,
        mask_image=mask,
        output_type="latent",
        height=height,
        width=width,
        guidance_scale=guidance_scale,
        **settings,
    ).images


@pytest.mark.parametrize(
    ("kind", "solver", "spacing", "steps", "strength"),
    [
        *((kind, "ddim", "trailing", steps, 1.0) for kind in PIPELINES for steps in (1, 4, 20)),
        ("sd", "dpm++2m", "trailing", 20, 0.6),
        ("sd", "heun", "trailing", 4, 1.0),
        ("sd", "ddpm", "trailing", 4, 0.5),
        ("xl", "ddim", "leading", 4, 0.9),
    ],
)
def test_the_pipelines_of_diffusers(folders, photos, masks, kind, solver, spacing, steps, strength):
    checkpoint = StableDiffusion.load(folders[kind])
    for batch, seed in ((2, 3), (1, 3), (2, torch.Generator().manual_seed(3))):
        rng = torch.Generator().manual_seed(3)
        want = theirs(
            folders[kind],
            kind,
            solver,
            spacing,
            photos,
            masks,
            num_inference_steps=steps,
            strength=strength,
            generator=[torch.Generator().manual_seed(k) for k in (3, 4)] if seed == 3 else rng,
        )
        if seed != 3 and solver == "ddpm":
            continue  # one stream for all is drawn from in another order
        ours = sample_images(
            checkpoint,
            tiny_sd.PROMPTS[:2],
            image=photos,
            mask=masks,
            steps=steps,
            strength=strength,
            solver=solver,
            grid=spacing,
            seed=seed,
            guidance_scale=3.0,
            at_once=batch,
            decode=False,
        )
        assert float((ours.latents - want).abs().max()) < 1e-4


def test_without_guidance_and_with_one_image_for_all(folders, photos, masks):
    both = [photo.expand(2, -1, -1, -1) for photo in (photos[:1], masks[:1])]
    rng = [torch.Generator().manual_seed(k) for k in (0, 1)]
    want = theirs(
        folders["sd"], "sd", "ddim", "trailing", *both, guidance_scale=1.0, num_inference_steps=4, generator=rng
    )
    ours = sample_images(
        StableDiffusion.load(folders["sd"]),
        tiny_sd.PROMPTS[:2],
        image=photos[0],
        mask=masks[0],
        steps=4,
        solver="ddim",
        grid="trailing",
        guidance_scale=1.0,
        decode=False,
    )
    assert float((ours.latents - want).abs().max()) < 1e-4


def test_all_its_steps_see_the_mask_on_any_grid(folders, photos, masks):
    sd = StableDiffusion.load(folders["sd"])
    settings = {"image": photos[0], "steps": 3, "guidance_scale": 2.0, "decode": False}
    for solver in ("guarded", "heun"):
        one, other = (sample_images(sd, "a cat", mask=mask, solver=solver, **settings).latents for mask in masks)
        assert float((one - other).abs().max()) > 1e-3


def test_by_the_command_and_from_a_single_file(folders, tmp_path, capsys):
    Image.new("RGB", (24, 16), (200, 30, 30)).save(tmp_path / "start.png")
    half = Image.new("L", (48, 32))
    half.paste(255, (0, 0, 24, 32))
    half.save(tmp_path / "mask.png")
    file = tiny_sd.single_file(folders["sd"], tmp_path / "sd-inpainting.safetensors")
    left = torch.zeros(1, 1, *SIZE)
    left[..., :12] = 1
    image, rng = read_image(tmp_path / "start.png", SIZE)[None], torch.Generator().manual_seed(0)
    want = theirs(
        folders["sd"], "sd", "ddim", "trailing", image, left, prompts="a cat", num_inference_steps=4, generator=rng
    )
    for model in ([folders["sd"]], [file, "--config", folders["sd"]]):
        words = ["sample", "--problem", "sd", "--model", *model, "--prompt", "a cat", "--size", "16x24", "--steps", "4"]
        words += ["--solver", "ddim", "--grid", "trailing", "--guidance-scale", "3", "--out", str(tmp_path / "out.npz")]
        words += ["--image", str(tmp_path / "start.png"), "--mask", str(tmp_path / "mask.png")]
        assert cli.main(words) == 0
        out = np.load(tmp_path / "out.npz")
        assert json.loads(str(out["settings"]))["strength"] == 1.0
        assert float(np.abs(out["latents"] - want.numpy()).max()) < 1e-4
    capsys.readouterr()
    assert cli.main(["doctor", "--model", folders["sd"]]) == 0
    assert "made for inpainting: it needs --image and --mask" in capsys.readouterr().out


def test_without_a_mask_it_is_refused(folders, checkpoints, pictures, tmp_path, capsys):
    Image.new("RGB", (16, 16)).save(tmp_path / "start.png")
    model = ["--problem", "sd", "--model", folders["sd"]]
    sheet = ["sample", *model, "--prompt", "a cat", "--out", str(tmp_path / "no.png")]
    training = ["--data", str(pictures), "--updates", "1", "--out", str(tmp_path / "no")]
    for words in (
        sheet,
        [*sheet, "--image", str(tmp_path / "start.png")],
        [*sheet, "--solver", "picard"],
        ["train", "pcm", *model, *training],
        ["train", "diffusion", *model, *training],
        ["pairs", *model, "--prompts", str(tmp_path / "prompts.txt"), "--n", "2", "--out", str(tmp_path / "no")],
    ):
        (tmp_path / "prompts.txt").write_text("a cat\n")
        assert cli.main(words) == 2, words
        line = capsys.readouterr().err
        assert "is made for inpainting: it makes images with an image and a mask only (--image, --mask)" in line
        assert line.count("\n") == 1
        assert not (tmp_path / "no.png").exists()
        assert not (tmp_path / "no").exists()
    StableDiffusion.load(checkpoints["sd"])
    with pytest.raises(ValueError, match="its in_channels is 9, not 4"):
        StableDiffusion.load(checkpoints["sd"], unet=folders["sd"])
