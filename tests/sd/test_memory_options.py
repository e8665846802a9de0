"""Options that spend less memory: diffusers' pipelines with the same switches are the oracle."""

import json

import diffusers
import numpy as np
import pytest
import tiny_sd
import torch
from accelerate.hooks import CpuOffload

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
PROMPTS = tiny_sd.PROMPTS[:2]


def small():
    """TAESD, tiny."""
    return diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


@pytest.mark.parametrize("kind", ["sd", "xl"])
@pytest.mark.parametrize("switches", [("tiling",), ("slicing",), ("tiling", "slicing"), ()])
def test_the_switches_of_the_vae(kind, switches, checkpoints, tmp_path):
    out = tmp_path / "a.npz"
    words = [
        "sample",
        "--problem",
        "sd",
        "--model",
        checkpoints[kind],
        "--size",
        "32x48",
        "--steps",
        "4",
        "--seed",
        "3",
    ]
    words += ["--solver", "ddim", "--grid", "trailing", "--guidance-scale", "3", "--out", str(out)]
    words += [word for text in PROMPTS for word in ("--prompt", text)] + [f"--vae-{name}" for name in switches]
    assert cli.main(words) == 0
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(checkpoints[kind])
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    settings = {"num_inference_steps": 4, "guidance_scale": 3.0, "height": 32, "width": 48, "output_type": "np"}
    images = {}
    for on in (switches, ()):
        for name in ("tiling", "slicing"):
            getattr(pipe.vae, f"{'enable' if name in on else 'disable'}_{name}")()
        rng = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
        images[on] = pipe(PROMPTS, generator=rng, **settings).images
    with np.load(out) as made:
        assert np.abs(made["images"] / 255 - images[switches]).max() <= 1 / 255
        said = json.loads(str(made["settings"]))
    assert (said["vae_tiling"], said["vae_slicing"]) == ("tiling" in switches, "slicing" in switches)
    assert (np.abs(images[switches] - images[()]).max() > 1 / 255) == ("tiling" in switches)  # tiles are seen


def test_the_switches_are_the_vaes_own(checkpoints, tmp_path):
    sd = StableDiffusion.load(checkpoints["sd"])
    z = torch.randn(3, 4, 16, 24, generator=torch.Generator().manual_seed(0))
    plain = sd.decode(z)
    sd.switch_vae(tiling=True, slicing=True)
    assert (sd.vae.use_tiling, sd.vae.use_slicing) == (True, True)
    tiled = sd.decode(z)
    sd.switch_vae()
    assert torch.equal(sd.decode(z), plain)
    assert float((tiled - plain).abs().max()) > 1e-3
    small().save_pretrained(tmp_path / "taesd")
    taesd = StableDiffusion.load(checkpoints["sd"], vae=tmp_path / "taesd")
    plain = taesd.decode(z)
    taesd.switch_vae(slicing=True)
    assert taesd.vae.use_slicing
    assert float((taesd.decode(z) - plain).abs().max()) < 1e-5
    with pytest.raises(ValueError, match="tiles of AutoencoderTiny are of latents 8 times smaller") as error:
        taesd.switch_vae(tiling=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_offload_changes_no_number(kind, checkpoints, tmp_path, monkeypatch):
    checkpoint = StableDiffusion.load(tiny_sd.save(tmp_path / "model", kind))
    settings = {"steps": 3, "guidance_scale": 3.0, "image": torch.rand(3, 16, 16)}
    plain = sample_images(checkpoint, PROMPTS, **settings)
    checkpoint.prompts.forget(all_=True)
    used, before = [], CpuOffload.pre_forward

    def noted(hook, module, *args, **kwargs):
        used.append(module)
        return before(hook, module, *args, **kwargs)

    monkeypatch.setattr(CpuOffload, "pre_forward", noted)
    checkpoint._offload(torch.device("cpu"))  # the hooks of a device, here without one
    made = sample_images(checkpoint, PROMPTS, **settings)
    assert torch.equal(made.images, plain.images)
    parts = [checkpoint.pipe.text_encoder, checkpoint.network, checkpoint.vae]
    assert {id(part) for part in parts} <= {id(module) for module in used}
    assert used[-1] is checkpoint.vae
    checkpoint.to("cpu")
    used.clear()
    assert torch.equal(sample_images(checkpoint, PROMPTS, **settings).images, plain.images)
    assert not used


def test_offload_of_a_run_is_refused(checkpoints, tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    words = ["train", "vsd", "--problem", "sd", "--model", checkpoints["sd"], "--rank", "2", "--updates", "1"]
    words += ["--batch", "1", "--prompts", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "run")]
    assert cli.main(words) == 0
    capsys.readouterr()
    words = ["sample", str(tmp_path / "run"), "--prompt", "a cat", "--out", str(tmp_path / "a.png")]
    assert cli.main([*words, "--cpu-offload"]) == 2
    assert "--cpu-offload is for sampling a checkpoint without a run" in capsys.readouterr().err
    assert cli.main([*words, "--vae-tiling", "--vae-slicing"]) == 0


def test_offload_is_refused_where_it_has_no_effect(checkpoints, tmp_path, capsys):
    words = ["sample", "--problem", "sd", "--model", checkpoints["sd"], "--prompt", "a cat", "--cpu-offload"]
    assert cli.main([*words, "--out", str(tmp_path / "no.png")]) == 2
    said = capsys.readouterr().err
    assert "--cpu-offload needs --device cuda or mps" in said
    assert said.count("\n") == 1
    assert not (tmp_path / "no.png").exists()
