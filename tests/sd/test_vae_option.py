"""Another VAE in place of a checkpoint's; diffusers' pipeline with that VAE is the oracle."""

import json

import numpy as np
import pytest
import tiny_sd
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, DiffusionPipeline

from toydiff import runs
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.cli import command as cli

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def small(channels=4, levels=2):
    """TAESD, tiny."""
    return AutoencoderTiny(
        encoder_block_out_channels=(8,) * levels,
        decoder_block_out_channels=(8,) * levels,
        num_encoder_blocks=(1,) * levels,
        num_decoder_blocks=(1,) * levels,
        latent_channels=channels,
    )


@pytest.fixture
def vaes(tmp_path):
    """Folders of other VAEs: one alone, and one in a folder of its name."""
    tiny_sd.silent()
    torch.manual_seed(7)
    tiny_sd.tiny.vae().save_pretrained(tmp_path / "kl" / "vae")
    small().save_pretrained(tmp_path / "taesd")
    return {"kl": tmp_path / "kl", "taesd": tmp_path / "taesd"}


@pytest.mark.parametrize(("name", "kind"), [("kl", AutoencoderKL), ("taesd", AutoencoderTiny)])
def test_images_are_those_of_diffusers_with_this_vae(name, kind, vaes, checkpoints, tmp_path):
    out = tmp_path / "a.npz"
    words = ["sample", "--problem", "sd", "--model", checkpoints["sd"], "--vae", vaes[name], "--prompt", "a cat"]
    words += ["--solver", "ddim", "--grid", "trailing", "--steps", 4, "--seed", 3, "--guidance-scale", 3, "--out", out]
    assert cli.main([str(word) for word in words]) == 0
    pipe = DiffusionPipeline.from_pretrained(checkpoints["sd"])
    pipe.vae = kind.from_pretrained(vaes[name] / "vae" if name == "kl" else vaes[name])
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    want = pipe(
        "a cat", num_inference_steps=4, guidance_scale=3.0, generator=torch.Generator().manual_seed(3), output_type="np"
    ).images
    with np.load(out) as made:
        assert np.abs(made["images"] / 255 - want).max() <= 1 / 255
        assert json.loads(str(made["settings"]))["vae"] == str(vaes[name])


def test_it_is_recorded_and_its_files_are_watched(vaes, checkpoints):
    one = StableDiffusion.load(checkpoints["sd"], vae=vaes["taesd"])
    assert one.about["vae"] == str(vaes["taesd"])
    assert type(one.vae) is AutoencoderTiny
    assert StableDiffusion.load(**one.about) is one
    assert "vae" not in StableDiffusion.load(checkpoints["sd"]).about
    before = one.stamp("vae")
    small().save_pretrained(vaes["taesd"])
    assert one.stamp("vae") != before
    assert StableDiffusion.load(**one.about) is not one


@pytest.mark.parametrize("name", ["kl", "taesd"])
def test_a_run_and_its_export_have_it(name, vaes, checkpoints, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    words = ["train", "vsd", "--problem", "sd", "--model", checkpoints["sd"], "--vae", vaes[name], "--rank", 2]
    words += ["--prompts", tmp_path / "prompts.txt", "--updates", 1, "--batch", 2, "--out", tmp_path / "run"]
    assert cli.main([str(word) for word in words]) == 0
    model = runs.load(tmp_path / "run")
    assert model.about["settings"]["vae"] == str(vaes[name])
    ours = model.denoiser.net.checkpoint.vae
    capsys.readouterr()
    assert cli.main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "student")]) == 0
    code = capsys.readouterr().out.partition("alone:")[2].partition("image = ")[0]
    found = {}
    exec(code, found)
    assert type(found["pipe"].vae) is type(ours)
    for key, value in found["pipe"].vae.state_dict().items():
        assert torch.equal(value, ours.state_dict()[key])


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (lambda: small(channels=16), "does not fit this checkpoint: the channels of its latents is 16, not 4"),
        (lambda: small(levels=3), "does not fit this checkpoint: the scale of its latents is 4, not 2"),
        (lambda: scaled(0.5), "does not fit this checkpoint: its scaling_factor is 0.5, not 0.18215"),
        (lambda: tiny_sd.unet(), "it is a UNet2DConditionModel, and an AutoencoderKL or AutoencoderTiny is needed"),
    ],
)
def test_one_that_does_not_fit_is_refused(made, line, checkpoints, tmp_path):
    made().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=line):
        StableDiffusion.load(checkpoints["sd"], vae=tmp_path / "other")


def scaled(factor):
    found = tiny_sd.tiny.vae()
    found.register_to_config(scaling_factor=factor)
    return found
