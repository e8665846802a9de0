"""Single files of SD3: the same checkpoint as its folder, bit for bit, or one line."""

import json

import pytest
import sd3_file
import torch
from safetensors.torch import load_file, save_file

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Folder and file of a kind, made once."""
    known = {}

    def of(kind):
        if kind not in known:
            place = tmp_path_factory.mktemp(kind)
            folder = sd3_file.save(place / "folder", kind)
            known[kind] = folder, sd3_file.single_file(folder, place / "one.safetensors")
        return known[kind]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd3", "sd35", "sd3-without-t5"])
def test_a_single_file_is_the_same_checkpoint(made, capsys, kind):
    folder, file = made(kind)
    one, whole = StableDiffusion.load(file, config=folder, local_only=True), StableDiffusion.load(folder)
    for name in whole.family.networks:
        if (theirs := getattr(whole.pipe, name)) is not None:
            ours = getattr(one.pipe, name).state_dict()
            assert all(torch.equal(ours[key], value) for key, value in theirs.state_dict().items()), name
    for checkpoint in (one, whole):  # mapped from a file weights lie at odd addresses, where kernels round otherwise
        for name in checkpoint.family.networks:
            if (network := getattr(checkpoint.pipe, name)) is not None:
                network.load_state_dict({key: w.clone() for key, w in network.state_dict().items()}, assign=True)
    settings = {"steps": 2, "solver": "ddim", "grid": "shifted", "size": 64, "guidance_scale": 3.0, "decode": False}
    a, b = (sample_images(checkpoint, "a cat", **settings).latents for checkpoint in (one, whole))
    assert torch.equal(a, b)
    rows = []
    for words in (["--model", file, "--config", folder], ["--model", folder], ["--model", file]):
        assert cli.main(["doctor", *words, "--json", "-"]) == 0
        rows.append(json.loads(capsys.readouterr().out))
    for key in ("pipeline", "parameters", "memory", "spacings", "missing"):
        assert rows[0][key] == rows[1][key]
    assert rows[0]["weights"]["transformer"] == rows[1]["weights"]["transformer"] == rows[2]["weights"]["transformer"]
    assert rows[2]["like"] == "stabilityai/stable-diffusion-3-medium-diffusers"


@pytest.mark.parametrize(
    ("without", "said"),
    [
        ("joint_blocks.1.x_block.attn.qkv.weight", "lacks weights of the transformer"),
        ("first_stage_model", "lacks weights of the vae"),
        ("text_encoders.clip_l", "cannot be read"),
        ("text_encoders", "cannot be read"),
    ],
)
def test_what_a_file_lacks_is_one_line(made, tmp_path, without, said):
    folder, file = made("sd3-without-t5")
    save_file({k: v for k, v in load_file(file).items() if without not in k}, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=said) as error:
        StableDiffusion.load(tmp_path / "part.safetensors", config=folder, local_only=True)
    assert "\n" not in str(error.value)
