"""`toydiff doctor`: what it says of a checkpoint is what diffusers and peft find in it, and no weight is loaded."""

import json
import re
import shutil
from pathlib import Path

import pytest
import tiny_families
import tiny_sd
import torch
from diffusers import DiffusionPipeline, StableDiffusionPipeline
from peft import LoraConfig, get_peft_model_state_dict
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


@pytest.mark.parametrize("layout", ["saved", "v1-5"])
def test_it_knows_both_layouts_of_clips(layout, clips, found, doctor):
    adapter = [] if layout == "saved" else ["--motion-adapter", clips[layout]]
    folder = clips["saved" if layout == "saved" else "sd15"]
    row = found(folder, *adapter)
    pipe = tiny_families.pipeline_of_clips(folder, None if layout == "saved" else clips[layout])
    assert (row["pipeline"], row["scheduler"]) == ("AnimateDiffPipeline", type(pipe.scheduler).__name__)
    assert row["parameters"] == {name: parameters(getattr(pipe, name)) for name in ("unet", "vae", "text_encoder")}
    most = 32 if layout == "saved" else 24
    assert (row["latent"], row["most_frames"]) == ([4, 16, 64, 64], most)
    assert (row["missing"], "motion_adapter" in row["left_out"]) == ([], layout == "saved")
    assert ("motion_adapter" in row["weights"]) == (layout != "saved")
    assert f"clips of 16 frames, {most} at most" in doctor(folder, *adapter)[1]
    checkpoint = StableDiffusion.load(folder, **({} if layout == "saved" else {"motion_adapter": clips[layout]}))
    assert row["like_scheduler"]["solver"] == {"saved": "ddim", "v1-5": "plms"}[layout]
    lora = checkpoint.denoiser().net.to_train("lora", 64)
    assert row["memory"]["lora_parameters"] == sum(p.numel() for p in lora.parameters() if p.requires_grad)


def test_a_motion_adapter_that_is_none(checkpoints, clips, doctor):
    for folder, adapter, line in (
        (clips["sd15"], clips["sd15"], "holds no motion adapter"),
        (clips["sd15"], "nowhere", "there is no motion adapter at 'nowhere'"),
        (checkpoints["sd"], clips["v1-5"], "does not fit this checkpoint"),
        (checkpoints["xl"], clips["v1-5"], "a motion adapter is for SD 1.x, SD 2.x and AnimateDiff"),
    ):
        code, out, err = doctor(folder, "--motion-adapter", adapter)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert line in err


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
    save_file({"x": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    code, out, err = doctor(tmp_path / "other.safetensors")
    assert (code, out) == (2, "")
    assert "no weights of a UNet (model.diffusion_model), and none of a LoRA" in err
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02x")
    for name, word in (("old.ckpt", "pickle"), ("none", "no checkpoint"), ("none.safetensors", "no checkpoint")):
        code, out, err = doctor(tmp_path / name)
        assert (code, out) == (2, "")
        assert word in err


@pytest.mark.parametrize(
    ("layer", "width", "of"),
    [
        ("lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight", 768, "SD 1"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_A.weight", 1024, "SD 2"),
        ("unet.mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_k_lora.down.weight", 2048, "SDXL"),
        ("transformer.transformer_blocks.0.attn.to_k.lora_A.weight", 24, "SD3 or SD3.5"),
        ("transformer.single_transformer_blocks.0.attn.to_k.lora_A.weight", 24, "FLUX.1"),
        ("lora_unet_single_blocks_0_linear1.lora_down.weight", 24, "FLUX.1"),
        ("lora_unet_mid_block_conv.lora_down.weight", 24, "unknown: it changes no cross-attention"),
    ],
)
def test_for_what_a_lora_is(tmp_path, found, doctor, layer, width, of):
    up = re.sub(r"(?<=lora[_.])down|lora_A", lambda side: {"down": "up", "lora_A": "lora_B"}[side[0]], layer)
    text = "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_"
    tensors = {
        layer: torch.zeros(4, width),
        up: torch.zeros(8, 4),
        f"{text}down.weight": torch.zeros(2, 8),
        f"{text}up.weight": torch.zeros(8, 2),
        f"{text[:-6]}.dora_scale": torch.zeros(1, 8),
    }
    file = tmp_path / "pytorch_lora_weights.safetensors"
    save_file(tensors, file)
    for place in (file, tmp_path):
        row = found(place)
        assert (row["lora"], row["dora"]) == (of, True)
        assert row["layers"] == {"network": 1, "text encoders": 1}
        assert row["ranks"] == {"2": 1, "4": 1}
    assert f"a DoRA for {of}" in doctor(file)[1]
    save_file(tensors | {"lora_unet_x.hada_w1_a": torch.zeros(2, 2)}, file)
    code, out, err = doctor(file)
    assert (code, out) == (2, "")
    assert "'lora_unet_x.hada_w1_a', which is no low-rank change of a layer" in err


SPATIAL = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_"
TEMPORAL = "unet.down_blocks.0.motion_modules.0.transformer_blocks.0.attn2.to_k.lora_"


@pytest.mark.parametrize(
    ("layers", "of", "text"),
    [
        ((SPATIAL, TEMPORAL), "clips (AnimateDiff), on SD 1", "1 layer of the network, 1 layer of the motion modules"),
        ((TEMPORAL,), "the layers between frames of AnimateDiff (a motion LoRA)", "changes 1 layer of the motion"),
    ],
)
def test_a_lora_of_clips(tmp_path, found, doctor, layers, of, text):
    """The widths that layers between frames read are those of their frames, not of a text."""
    tensors = {f"{name}A.weight": torch.zeros(4, 768 if name == SPATIAL else 320) for name in layers}
    tensors |= {f"{name}B.weight": torch.zeros(320, 4) for name in layers}
    save_file(tensors, tmp_path / "lora.safetensors")
    assert found(tmp_path / "lora.safetensors")["lora"] == of
    assert text in doctor(tmp_path / "lora.safetensors")[1]


def test_a_motion_adapter_is_no_checkpoint(clips, tmp_path, doctor):
    """Neither a folder, nor a file, nor what `toydiff export` wrote."""
    exported = tmp_path / "exported"
    shutil.copytree(clips["v1-5"], exported / "motion_adapter")
    (exported / "toydiff.json").write_text("{}")
    file = tmp_path / "mm.safetensors"
    shutil.copyfile(clips["v1-5"] / "diffusion_pytorch_model.safetensors", file)
    for place, line in (
        (clips["v1-5"], "holds a motion adapter"),
        (exported, "was written by `toydiff export` and holds a motion adapter"),
        (file, "holds a motion adapter"),
    ):
        code, out, err = doctor(place)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert line in err
        assert "as --motion-adapter" in err
    assert "left out: motion_adapter (its layers are in the UNet already)" in doctor(clips["saved"])[1]


def test_a_lora_that_diffusers_wrote(checkpoints, tmp_path, found):
    network = DiffusionPipeline.from_pretrained(checkpoints["sd"]).unet
    layers = list(family_of("StableDiffusionPipeline").lora_layers)
    network.add_adapter(LoraConfig(r=4, target_modules=layers))
    StableDiffusionPipeline.save_lora_weights(tmp_path, get_peft_model_state_dict(network))
    row = found(tmp_path)
    assert row["layers"]["network"] == sum(name.endswith("lora_A.default") for name, _ in network.named_modules())
    assert row["ranks"] == {"4": row["layers"]["network"]}
    assert row["lora"] == f"a UNet that reads {network.config.cross_attention_dim} numbers a token"


def test_a_single_file_of_flux_is_refused_by_its_name(tmp_path, doctor):
    save_file({"double_blocks.0.x": torch.zeros(2)}, tmp_path / "one.safetensors")
    with pytest.raises(
        ValueError, match=r"holds a transformer of FLUX.1, which is not read from single files"
    ) as error:
        StableDiffusion.load(tmp_path / "one.safetensors", local_only=True)
    assert doctor(tmp_path / "one.safetensors") == (2, "", f"toydiff: error: {error.value}\n")
