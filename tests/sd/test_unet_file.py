"""A UNet of which there are only weights, in one file; diffusers' pipeline with that UNet is the oracle."""

import json

import diffusers
import numpy as np
import pytest
import tiny_sd
import torch
from safetensors.torch import load_file, save_file

from toydiff import runs
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.cli import command as cli

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

LAYERS = ["down_blocks.0.resnets.0.conv1.weight", "up_blocks.1.resnets.0.conv1.bias"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Other UNets: their weights by kind, and files of them by (kind, whose names they have), in half precision as they
    are published."""
    folder, files, tensors = tmp_path_factory.mktemp("unets"), {}, {}
    for kind in ("sd", "xl"):
        torch.manual_seed(7)
        unet = tiny_sd.unet(kind == "xl").half()
        tensors[kind] = unet.state_dict()
        for names, held in (("diffusers", tensors[kind]), ("original", tiny_sd.original_unet(unet))):
            files[kind, names] = folder / f"{kind}-{names}.safetensors"
            save_file(held, files[kind, names])
    return tensors, files


def theirs(folder, kind, names, file, prompt, steps):
    """The images of their pipeline, as the pages of these UNets have it."""
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    if names == "diffusers":
        pipe.unet = diffusers.UNet2DConditionModel.from_config(folder, subfolder="unet")
        pipe.unet.load_state_dict(load_file(file))
    else:
        pipe.unet = diffusers.UNet2DConditionModel.from_single_file(str(file), config=folder, subfolder="unet").float()
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    rng = torch.Generator().manual_seed(3)
    return pipe(prompt, num_inference_steps=steps, guidance_scale=0.0, generator=rng, output_type="np").images


@pytest.mark.slow
@pytest.mark.parametrize("names", ["diffusers", "original"])
@pytest.mark.parametrize(("kind", "steps"), [("sd", 4), ("xl", 1), ("xl", 4), ("xl", 20)])
def test_images_are_those_of_diffusers_with_this_unet(kind, names, steps, weights, checkpoints, tmp_path):
    file, out = weights[1][kind, names], tmp_path / "a.npz"
    words = ["sample", "--problem", "sd", "--model", checkpoints[kind], "--unet", file, "--prompt", "a cat"]
    words += ["--scheduler", "EulerDiscreteScheduler", "--grid", "trailing", "--steps", steps, "--seed", 3]
    assert cli.main([str(word) for word in [*words, "--guidance-scale", 1, "--out", out]]) == 0
    want = theirs(checkpoints[kind], kind, names, file, "a cat", steps)
    with np.load(out) as made:
        assert np.abs(made["images"] / 255 - want).max() <= 1 / 255
        assert json.loads(str(made["settings"]))["unet"] == str(file)


@pytest.mark.parametrize("names", ["diffusers", "original"])
@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_the_weights_are_the_files(kind, names, weights, checkpoints):
    made = StableDiffusion.load(checkpoints[kind], unet=weights[1][kind, names])
    for name, value in made.network.state_dict().items():
        assert torch.equal(value, weights[0][kind][name].float()), name
    assert made.network.dtype == torch.float32
    assert StableDiffusion.load(**made.about) is made


def test_a_whole_checkpoint_in_one_file_gives_its_unet(checkpoints, tmp_path):
    file = tiny_sd.single_file(tiny_sd.save(tmp_path / "other", seed=3), tmp_path / "whole.safetensors")
    made = StableDiffusion.load(checkpoints["sd"], unet=file)
    assert torch.equal(made.network.conv_in.weight, load_file(file)["model.diffusion_model.input_blocks.0.0.weight"])
    plain = StableDiffusion.load(checkpoints["sd"])
    assert torch.equal(made.vae.decoder.conv_in.weight, plain.vae.decoder.conv_in.weight)


@pytest.mark.slow
def test_a_run_and_its_export_have_it(weights, checkpoints, tmp_path, capsys):
    file = weights[1]["sd", "diffusers"]
    (tmp_path / "prompts.txt").write_text("a cat\n")
    words = ["train", "vsd", "--problem", "sd", "--model", checkpoints["sd"], "--unet", file, "--rank", 2]
    words += ["--prompts", tmp_path / "prompts.txt", "--updates", 1, "--batch", 2, "--out", tmp_path / "run"]
    assert cli.main([str(word) for word in words]) == 0
    assert runs.load(tmp_path / "run").about["settings"]["unet"] == str(file)
    capsys.readouterr()
    assert cli.main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "student")]) == 0
    assert "wrote a UNet" in capsys.readouterr().out
    made = diffusers.UNet2DConditionModel.from_pretrained(tmp_path / "student", subfolder="unet").state_dict()
    given = load_file(file)
    assert torch.equal(made["conv_in.weight"], given["conv_in.weight"].float())  # a layer without a LoRA


def test_what_does_not_fit_is_named(weights, checkpoints, tmp_path, capsys):
    tensors, files = weights

    def said(held, model="sd"):
        file = tmp_path / "other.safetensors"
        if isinstance(held, dict):
            save_file({name: value.contiguous() for name, value in held.items()}, file)
        else:
            file = held
        words = ["sample", "--problem", "sd", "--model", checkpoints[model], "--unet", file, "--prompt", "a cat"]
        assert cli.main([str(word) for word in [*words, "--out", tmp_path / "no.png"]]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1
        assert not (tmp_path / "no.png").exists()
        return line

    sd, original = tensors["sd"], load_file(files["sd", "original"])
    assert f"it lacks '{LAYERS[0]}', (16, 16, 3, 3)" in said({k: v for k, v in sd.items() if k != LAYERS[0]})
    assert f"its '{LAYERS[1]}' is (3,), not (16,)" in said(sd | {LAYERS[1]: torch.zeros(3)})
    assert "which has no 'extra', (2, 3)" in said(sd | {"extra": torch.zeros(2, 3)})
    assert "it has no weight of this unet, but 'a'; a LoRA goes" in said({"a": torch.zeros(1)})
    assert "add_embedding" in said(files["sd", "diffusers"], "xl")
    assert "does not fit this checkpoint" in said(files["xl", "original"])
    lost = "model.diffusion_model.input_blocks.0.0.weight"
    assert "it lacks 'conv_in.weight', (16, 4, 3, 3)" in said({k: v for k, v in original.items() if k != lost})
    assert "which has no 'model.diffusion_model.extra', (1,)" in said(
        original | {"model.diffusion_model.extra": torch.zeros(1)}
    )
    assert "weights that are not finite" in said(sd | {"conv_in.bias": torch.full((16,), float("nan"))})
    assert "there is no file" in said(tmp_path / "nowhere.safetensors")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    assert "it is truncated" in said(tmp_path / "cut.safetensors")
    (tmp_path / "old.bin").write_bytes(b"\x80\x02pickle")
    assert "is a pickle" in said(tmp_path / "old.bin")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    assert "holds no weights" in said(tmp_path / "picture.png")


def test_as_a_model_it_is_told_where_it_belongs(weights, tmp_path, capsys):
    assert cli.main(["doctor", "--model", str(weights[1]["sd", "diffusers"])]) == 2
    assert "a UNet alone, with --unet" in capsys.readouterr().err
