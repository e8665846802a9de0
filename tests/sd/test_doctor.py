"""`toydiff doctor`: what it says of a checkpoint is what diffusers and peft find in it, and no weight is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import tiny_families
import tiny_sd
import torch
from diffusers import DiffusionPipeline
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.families import family_of
from toydiff.cli import command as cli

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def doctor(capsys):
    """(code, what it printed, what it complained of)."""

    def run(model, *more):
        code = cli.main(["doctor", "--model", str(model), *map(str, more)])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def found(doctor, capsys):
    """What it found, as JSON, with nothing that reads weights being called."""

    def run(model, *more):
        with pytest.MonkeyPatch.context() as patch:
            for place in READ_WEIGHTS:
                patch.setattr(place, read)
            capsys.readouterr()
            code, out, err = doctor(model, "--json", "-", *more)
        assert (code, err) == (0, "")
        return json.loads(out)

    return run


@pytest.fixture
def broken(checkpoints, tmp_path):
    return Path(shutil.copytree(checkpoints["sd"], tmp_path / "broken"))


READ_WEIGHTS = (
    "safetensors.torch.load_file",
    "diffusers.ModelMixin.from_pretrained",
    "transformers.PreTrainedModel.from_pretrained",
    "torch.load",
)


def read(*_, **__):
    raise AssertionError("weights are read")


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kind", ["sd", "xl", "sd3", "sd3-without-t5"])
def test_it_says_what_diffusers_finds(kind, checkpoints, families, found):
    folder = (checkpoints | families)[kind]
    row = found(folder)
    pipe = tiny_families.pipeline(folder) if kind in families else DiffusionPipeline.from_pretrained(folder)
    modules = {name: one for name, one in pipe.components.items() if isinstance(one, torch.nn.Module)}
    assert row["pipeline"] == type(pipe).__name__
    assert row["scheduler"] == type(pipe.scheduler).__name__
    assert row["parameters"] == {name: parameters(one) for name, one in modules.items()}
    assert {name: held["dtypes"] for name, held in row["weights"].items()} == {name: ["float32"] for name in modules}
    for name, held in row["weights"].items():
        size = sum(file.stat().st_size for file in (Path(folder) / name).glob("*.safetensors"))
        assert 0 <= size - held["bytes"] < 0.2 * size + 8192  # the header
    assert row["missing"] == (["text_encoder_3", "tokenizer_3"] if kind == "sd3-without-t5" else [])
    vae, rest = 4 * parameters(pipe.vae), sum(map(parameters, modules.values())) - parameters(pipe.vae)
    assert row["memory"]["image"] == {"float32": 4 * rest + vae, "float16": 2 * rest + vae}
    family = family_of(type(pipe).__name__)
    network = modules[family.part]
    before = parameters(network)
    network.add_adapter(LoraConfig(r=64, target_modules=list(family.lora_layers)))
    lora = parameters(network) - before
    assert row["memory"]["lora_update"] == {"bfloat16": 2 * rest + vae + 5 * 4 * lora}


def test_it_says_what_runs(checkpoints, families, found, doctor):
    table = found(checkpoints["sd-v"])
    assert (table["predicts"], table["timesteps"], table["resolution"]) == ("v", 1000, [16, 16])
    assert table["like_scheduler"] == {"solver": "ddim", "grid": "trailing"}
    assert table["spacings"] == {"trailing": "dpm++2m", "leading": "dpm++2m", "linspace": "dpm++2m", "lcm": "lcm"}
    flow = found(families["sd3"])
    assert (flow["predicts"], flow["spacings"]) == ("velocity", {"shifted": "ddim"})
    said = doctor(families["sd3"])[1]
    assert "StableDiffusion3Pipeline" in said
    assert "--solver ddim --grid shifted" in said


def test_a_spacing_that_the_scheduler_refuses_is_told_with_the_reason(broken, found, doctor):
    file = broken / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"use_karras_sigmas": True}))
    assert list(found(broken)["spacings"]) == ["lcm"]
    assert "not leading: the checkpoint's scheduler configuration asks" in doctor(broken)[1]


def cut(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def without_a_weight(folder):
    file = folder / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["conv_in.weight"]
    save_file(tensors, file)


def changed(file, **keys):
    def change(folder):
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | keys))

    return change


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: shutil.rmtree(folder / "vae"),
        lambda folder: (folder / "model_index.json").unlink(),
        lambda folder: (folder / "unet" / "more.py").write_text(""),
        lambda folder: [file.unlink() for file in (folder / "tokenizer").glob("*o*.json")],
        lambda folder: (folder / "text_encoder" / "model.safetensors").rename(
            folder / "text_encoder" / "pytorch_model.bin"
        ),
        cut,
        without_a_weight,
        changed("model_index.json", _class_name="StableDiffusionUpscalePipeline"),
        changed("model_index.json", unet=["mine", "Network"]),
        changed("vae/config.json", scaling_factor=-1),
        changed("scheduler/scheduler_config.json", prediction_type="noise"),
        changed("unet/config.json", class_embed_type="timestep"),
    ],
)
def test_what_cannot_be_loaded_is_refused_with_the_same_reason(harm, broken, doctor):
    harm(broken)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        StableDiffusion.load(broken)
    assert doctor(broken) == (2, "", f"toydiff: error: {error.value}\n")


def test_weights_under_older_names_are_not_missing(broken, found):
    file = broken / "vae" / "diffusion_pytorch_model.safetensors"
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = {}
    for name, value in load_file(file).items():
        for new, old in older.items():
            name = name.replace(f".{new}.", f".{old}.")
        tensors[name] = value
    assert any(".query." in name for name in tensors)
    save_file(tensors, file)
    DiffusionPipeline.from_pretrained(broken)
    assert found(broken)["missing"] == []


def test_a_single_file(checkpoints, tmp_path, found, doctor):
    file = tiny_sd.single_file(checkpoints["sd"], tmp_path / "one.safetensors")
    whole = found(checkpoints["sd"])
    alone, with_config = found(file), found(file, "--config", checkpoints["sd"])
    assert alone["missing"] == ["config"]
    assert alone["weights"]["unet"] == with_config["weights"]["unet"] == whole["weights"]["unet"]
    for key in ("pipeline", "predicts", "parameters", "memory", "spacings"):
        assert with_config[key] == whole[key]
    assert "--config" in doctor(file)[1]
    tensors = {"lora_unet_mid.lora_down.weight": torch.zeros(2, 2)}
    save_file(tensors, tmp_path / "lora.safetensors")
    code, out, err = doctor(tmp_path / "lora.safetensors")
    assert (code, out) == (2, "")
    assert "--lora" in err
    (tmp_path / "old.ckpt").write_bytes(b"x")
    for name, word in (("old.ckpt", "pickle"), ("none", "no checkpoint"), ("none.safetensors", "no checkpoint")):
        code, out, err = doctor(tmp_path / name)
        assert (code, out) == (2, "")
        assert word in err
