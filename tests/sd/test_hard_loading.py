"""Checkpoints as strangers send them: code of their own, foreign kinds, files that are broken or lack something."""

import gc
import json
import shutil
import sys
import weakref
from pathlib import Path

import pytest
import real_layouts
import tiny_sd
import torch
from diffusers import AutoencoderTiny
from safetensors.torch import load_file, save_file

from toydiff.adapters import layout
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def broken(checkpoints, tmp_path):
    """A checkpoint of one's own to break: a copy of SD's."""
    return Path(shutil.copytree(checkpoints["sd"], tmp_path / "broken"))


@pytest.fixture(scope="module")
def single(checkpoints, tmp_path_factory):
    """The tensors of a single file."""
    return load_file(tiny_sd.single_file(checkpoints["sd"], tmp_path_factory.mktemp("single") / "one.safetensors"))


def said(*args, **settings):
    """The one line that a checkpoint is refused with."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        StableDiffusion.load(*args, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def change(file, **keys):
    """Change keys of a JSON file; a key given as ... is dropped."""
    settings = json.loads(Path(file).read_text()) | keys
    Path(file).write_text(json.dumps({key: value for key, value in settings.items() if value is not ...}))


# ---- code (R6)


EVIL = (
    "open({!r}, 'w').write('run')\n"
    "class Evil:\n    from_pretrained = from_config = classmethod(lambda cls, *a, **k: cls())\n"
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("place", "part", "value"),
    [
        ("scheduler/evil.py", "scheduler", ["evil", "Evil"]),
        ("scheduler/None.py", "scheduler", [None, "Evil"]),
        ("unet/evil.py", "unet", ["evil", "Evil"]),
        ("evil.py", "tokenizer", ["evil", "Evil"]),
        ("evil.py", "safety_checker", ["evil", "Evil"]),
        ("evil.py", "extra", ["evil", "Evil"]),
        ("evil.py", "_class_name", ["evil", "Evil"]),
        ("pipeline.py", "_class_name", "Evil"),
        ("pipeline.py", "custom_pipeline", "pipeline"),
        ("pipeline.py", "_name_or_path", "harmless"),
        ("scheduler/scheduler.py", "_name_or_path", "harmless"),
        ("evil.py", "scheduler", ["diffusers", "evil.Evil"]),
        ("evil.py", "scheduler", ["diffusers.evil", "Evil"]),
        ("evil.py", "vae", ["transformers", "pipeline"]),
        ("evil.py", "scheduler", ["diffusers", "UNet2DConditionModel"]),
        ("evil.py", "scheduler", ["os", "system"]),
        ("evil.py", "unet", "evil"),
        ("evil.py", "unet", ["diffusers", "UNet2DConditionModel", "evil"]),
        ("evil.py", "unet", [["evil"], {}]),
    ],
)
def test_code_of_a_checkpoint_is_not_run(broken, tmp_path, monkeypatch, single, place, part, value):
    """Neither that of its folder nor that of the current one, which a single file's configuration could name too."""
    trace = tmp_path / "trace"
    here = tmp_path / "here"
    here.mkdir()
    for file in (broken / place, here / "evil.py"):
        file.write_text(EVIL.format(str(trace)))
    monkeypatch.chdir(here)
    monkeypatch.syspath_prepend(str(here))
    change(broken / "model_index.json", **{part: value})
    said(broken)
    said(broken, unsafe=True)
    if part != "_name_or_path":
        save_file(single, tmp_path / "one.safetensors")
        said(tmp_path / "one.safetensors", config=broken)
    assert not trace.exists()
    assert "evil" not in sys.modules


@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("text_encoder/config.json", {"auto_map": {"AutoModel": "evil.Evil"}}),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}}),
        ("unet/config.json", {"auto_map": {"AutoModel": "someone/evil--evil.Evil"}}),
        ("scheduler/scheduler_config.json", {"trust_remote_code": True}),
        ("text_encoder/config.json", {"attn_implementation": "someone/evil"}),
    ],
)
def test_configurations_that_name_code(broken, file, keys):
    change(broken / file, **keys)
    line = said(broken)
    assert "code of its own" in line
    assert Path(file).name in line


def test_pickles_are_read_only_where_that_is_allowed(broken):
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    want = load_file(file)["conv_in.weight"]
    file.unlink()
    assert "only pickles (.bin), which can run code" in said(broken)
    assert torch.equal(StableDiffusion.load(broken, unsafe=True).network.conv_in.weight, want)
    assert "only pickles" in said(broken)  # though it is in memory


# ---- the real layouts


@pytest.mark.slow
@pytest.mark.parametrize("name", real_layouts.NAMES)
def test_real_layouts(tmp_path, name):
    folder = real_layouts.save(tmp_path / name, name)
    checkpoint = StableDiffusion.load(folder)
    assert checkpoint.kind == ("v" if name in ("sd20", "sd21", "zsnr") else "eps")
    xl = name in real_layouts.XL
    assert hasattr(checkpoint.pipe, "text_encoder_2") == xl
    assert checkpoint.denoiser().scale_conditioned == (name == "lcm")
    assert (float(checkpoint.schedule.alpha(torch.tensor([1.0]))) == 0) == (name == "zsnr")
    pixels = 8 * real_layouts.UNETS[name]["sample_size"]
    assert checkpoint.resolution == (pixels, pixels)
    theirs = real_layouts.pipeline(folder)
    words = ["a fox", "two"]
    found = checkpoint.prompts.rows(checkpoint.prompts.add(words), torch.zeros(2, 4, 8, 8))
    with torch.no_grad():
        parts = theirs.encode_prompt(words, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
        want = theirs.unet(
            torch.ones(1, 4, 8, 8),
            10,
            parts[0][:1],
            added_cond_kwargs={"text_embeds": parts[2][:1], "time_ids": torch.zeros(1, 6)} if xl else None,
        )[0]
        ours = checkpoint.network(
            torch.ones(1, 4, 8, 8),
            10,
            found.hidden[:1],
            added_cond_kwargs={"text_embeds": found.pooled[:1], "time_ids": torch.zeros(1, 6)} if xl else None,
        )[0]
    torch.testing.assert_close(found.hidden, parts[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(ours, want, rtol=0, atol=1e-5)
    z = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        image = (theirs.vae.decode(z / theirs.vae.config.scaling_factor)[0] / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(checkpoint.decode(z), image, rtol=0, atol=1e-5)


# ---- kinds that are not supported (C6)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("StableDiffusionDepth2ImgPipeline", {"depth_estimator": ["transformers", "DPTForDepthEstimation"]}),
        ("StableDiffusionUpscalePipeline", {"low_res_scheduler": ["diffusers", "DDPMScheduler"]}),
        ("StableDiffusionLatentUpscalePipeline", {}),
        ("StableUnCLIPPipeline", {"prior": ["diffusers", "PriorTransformer"]}),
        ("StableUnCLIPImg2ImgPipeline", {}),
        ("StableDiffusionInstructPix2PixPipeline", {}),
        ("FlaxStableDiffusionPipeline", {"unet": ["diffusers", "FlaxUNet2DConditionModel"]}),
        ("OnnxStableDiffusionPipeline", {"unet": ["diffusers", "OnnxRuntimeModel"]}),
        ("KandinskyPipeline", {}),
        ("DDPMPipeline", {}),
        ("StableDiffusionXLImg2ImgPipeline", {"requires_aesthetics_score": True, "text_encoder": [None, None]}),
    ],
)
def test_foreign_pipelines_are_refused_by_their_names(broken, kind, parts):
    change(broken / "model_index.json", _class_name=kind, **parts)
    shutil.rmtree(broken / "unet")  # before any weight is looked for
    line = said(broken)
    assert f"is a{'n' * kind.startswith('O')} {kind}" in line
    assert layout.SUPPORTED in line


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_class_embeds": 10}, "takes class labels (num_class_embeds = 10)"),
        ({"class_embed_type": "timestep"}, "class labels or image embeddings"),
        ({"in_channels": 8}, "for depth, editing or upscaling"),
        ({"cross_attention_dim": 24}, "reads 24 numbers a token, and its text encoders give 16"),
    ],
)
def test_unets_of_another_task_in_a_plain_pipeline(tmp_path, settings, line):
    folder = tiny_sd.save(tmp_path / "other", "sd", **settings)
    assert line in said(folder)


def test_a_controlnet_is_ignored_aloud(broken, tmp_path):
    change(
        broken / "model_index.json",
        _class_name="StableDiffusionControlNetPipeline",
        controlnet=["diffusers", "ControlNetModel"],
    )
    with pytest.warns(UserWarning, match="the ControlNet of .* is ignored: images are made without it"):
        checkpoint = StableDiffusion.load(broken)
    assert checkpoint.kind == "eps"


def test_the_small_vae_of_taesd(broken):
    small = AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    shutil.rmtree(broken / "vae")
    small.save_pretrained(broken / "vae")
    change(broken / "model_index.json", vae=["diffusers", "AutoencoderTiny"])
    checkpoint = StableDiffusion.load(broken)
    assert (checkpoint.scale, checkpoint.channels) == (2, 4)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mean, std = checkpoint.encode(images, at_once=2)
    with torch.no_grad():
        torch.testing.assert_close(mean, small.encode(2 * images - 1).latents, rtol=0, atol=1e-6)
        want = (small.decode(mean)[0] / 2 + 0.5).clamp(0, 1)
    assert std.shape == mean.shape
    assert float(std.abs().max()) == 0
    torch.testing.assert_close(checkpoint.decode(mean), want, rtol=0, atol=1e-6)


# ---- variants and shards (C4)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "shard"), [("fp16", "150KB"), (None, "150KB"), ("ema", "10GB")])
def test_variants_and_shards(broken, variant, shard):
    whole = StableDiffusion.load(broken)
    for part in ("unet", "vae", "text_encoder"):
        network = getattr(whole.pipe, part)
        for file in (broken / part).glob("*.safetensors"):
            file.unlink()
        network.save_pretrained(broken / part, variant=variant, max_shard_size=shard)
    files = [file.name for file in (broken / "unet").glob("*.safetensors")]
    assert (len(files) > 1) == (shard == "150KB")
    again = StableDiffusion.load(broken)
    assert again is not whole
    assert again.network.dtype == torch.float32
    for part in ("unet", "vae", "text_encoder"):
        old, new = (getattr(checkpoint.pipe, part).state_dict() for checkpoint in (whole, again))
        assert all(torch.equal(old[key], new[key]) for key in old)


def test_which_weights_are_taken():
    def chosen(*names, unsafe=False):
        return layout.choose(names, "unet", unsafe)

    stem = "diffusion_pytorch_model"
    assert chosen(f"{stem}.fp16.safetensors", f"{stem}.safetensors", f"{stem}.bin") == ("", [f"{stem}.safetensors"])
    assert chosen(f"{stem}.non_ema.safetensors", f"{stem}.fp16.safetensors")[0] == "fp16"
    assert chosen(f"{stem}.non_ema.safetensors")[0] == "non_ema"
    shards = [f"model.fp16-0000{k}-of-00002.safetensors" for k in (1, 2)]
    assert chosen(*shards, "model.safetensors.index.fp16.json", "openvino_model.bin") == ("fp16", shards)
    assert chosen("model-00001-of-00001.fp16.safetensors")[0] == "fp16"  # the older order
    assert chosen(f"{stem}.fp16.bin", f"{stem}.bin", unsafe=True) == ("", [f"{stem}.bin"])
    for names, line in (
        ((f"{stem}.bin",), "only pickles"),
        (("openvino_model.bin", "flax_model.msgpack"), "no weights in safetensors"),
        ((f"{stem}.a.safetensors", f"{stem}.b.safetensors"), "several variants, a, b"),
    ):
        with pytest.raises(ValueError, match=line):
            chosen(*names)


def test_a_shard_that_is_missing(broken):
    network = StableDiffusion.load(broken).network
    for file in (broken / "unet").glob("*.safetensors"):
        file.unlink()
    network.save_pretrained(broken / "unet", variant="fp16", max_shard_size="150KB")
    sorted((broken / "unet").glob("*.safetensors"))[0].unlink()
    assert "unet" in said(broken)


# ---- single files (F5, F6)


@pytest.mark.slow
def test_a_single_file_that_lacks_a_weight(checkpoints, tmp_path, single):
    """Any weight of any network; those that lie beside the configuration do not fill in."""
    file = tmp_path / "cut.safetensors"
    text = [key for key in single if key.startswith("cond_stage_model") and not key.endswith("position_ids")]
    others = [key for key in single if not key.startswith("cond_stage_model")]
    for key in [*text[::7], text[-1], *others[::100], others[-1]]:
        save_file({name: value for name, value in single.items() if name != key}, file)
        line = said(file, config=checkpoints["sd"])
        assert "cannot be read as a checkpoint" in line, key
        assert "meta" not in line, key


def test_a_single_file_without_a_component(checkpoints, tmp_path, single):
    file = tmp_path / "cut.safetensors"
    for prefix in ("cond_stage_model", "first_stage_model", "model.diffusion_model"):
        save_file({name: value for name, value in single.items() if not name.startswith(prefix)}, file)
        assert "cannot be read as a checkpoint" in said(file, config=checkpoints["sd"])
    save_file(single, file)
    assert "lacks weights of the unet" in said(file, config=real_layouts.save(tmp_path / "sd15", "sd15"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("keys", "metadata", "config", "want"),
    [
        (("v_pred",), {}, "sd", ("v", False)),
        (("v_pred", "ztsnr"), {}, "sd", ("v", True)),
        ((), {"modelspec.prediction_type": "v"}, "sd", ("v", False)),
        ((), {"modelspec.prediction_type": "epsilon"}, "sd", ("eps", False)),
        (("v_pred", "ztsnr"), {"modelspec.prediction_type": "v"}, "sd-v", ("v", True)),
        ((), {}, "sd-v", ("v", True)),
        ((), {"modelspec.title": "a file"}, "sd", ("eps", False)),
        (("v_pred",), {"modelspec.prediction_type": "epsilon"}, "sd", "contradicts itself"),
        ((), {"modelspec.prediction_type": "epsilon"}, "sd-v", "and its configuration v_prediction"),
        ((), {"modelspec.prediction_type": "something"}, "sd", "unknown modelspec.prediction_type"),
    ],
)
def test_the_kind_that_a_single_file_says(checkpoints, tmp_path, single, keys, metadata, config, want):
    file = tmp_path / "said.safetensors"
    save_file(single | {key: torch.tensor([]) for key in keys}, file, metadata=metadata)
    if isinstance(want, str):
        assert want in said(file, config=checkpoints[config])
        return
    checkpoint = StableDiffusion.load(file, config=checkpoints[config])
    kind, zero = want
    assert checkpoint.kind == kind
    assert (float(checkpoint.schedule.alpha(torch.tensor([1.0]))) == 0) == zero
    if zero:  # the same levels as those of a folder that says so
        times = torch.arange(1, 1001) / 1000
        other = StableDiffusion.load(checkpoints["sd-v"])
        torch.testing.assert_close(checkpoint.schedule.alpha(times), other.schedule.alpha(times))
        made = sample_images(checkpoint, "a", steps=2, solver="ddim", grid="trailing", guidance_scale=1.0)
        assert bool(torch.isfinite(made.latents).all())


def test_the_table_of_a_file_with_zero_terminal_snr_and_an_old_scheduler(tmp_path, single, checkpoints):
    """A scheduler of SD 1.x cannot rescale its table."""
    config = Path(shutil.copytree(checkpoints["sd"], tmp_path / "old"))
    (config / "scheduler" / "scheduler_config.json").write_text(json.dumps(real_layouts.SCHEDULERS["sd15"]))
    change(config / "model_index.json", scheduler=["diffusers", "PNDMScheduler"])
    save_file(single | {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, tmp_path / "v.safetensors")
    checkpoint = StableDiffusion.load(tmp_path / "v.safetensors", config=config)
    assert checkpoint.kind == "v"
    assert float(checkpoint.schedule.alpha(torch.tensor([1.0]))) == 0


# ---- objects in memory (C8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd", "xl", "single"])
def test_a_dropped_checkpoint_is_freed_at_once(checkpoints, tmp_path, single, kind):
    save_file(single, tmp_path / "one.safetensors")
    gc.collect()
    gc.disable()
    try:
        if kind == "single":
            checkpoint = StableDiffusion.load(tmp_path / "one.safetensors", config=checkpoints["sd"])
        else:
            checkpoint = StableDiffusion.load(shutil.copytree(checkpoints[kind], tmp_path / "own"))
        sample_images(checkpoint, "a fox", steps=1, size=16)
        D = checkpoint.denoiser()
        D.net.to_train("lora", 2)
        weights = [weakref.ref(checkpoint), weakref.ref(checkpoint.network.conv_in.weight), weakref.ref(checkpoint.vae)]
        del checkpoint
        assert weights[0]() is not None  # the denoiser needs it
        del D
        assert [ref() for ref in weights] == [None, None, None]
    finally:
        gc.enable()


def test_a_changed_file_is_read_anew(broken, tmp_path):
    old = StableDiffusion.load(broken)
    assert StableDiffusion.load(broken) is old
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["conv_in.bias"] = tensors["conv_in.bias"] + 1
    save_file(tensors, file)
    new = StableDiffusion.load(broken)
    assert new is not old
    assert torch.equal(new.network.conv_in.bias, tensors["conv_in.bias"])
    change(broken / "scheduler" / "scheduler_config.json", prediction_type="v_prediction")
    assert StableDiffusion.load(broken).kind == "v"
    old.to(dtype="bfloat16")
    with pytest.raises(ValueError, match="its files have changed"):
        old.to(dtype="float32")


def test_bfloat16_and_back_gives_the_files_weights(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints["xl"], tmp_path / "own")
    checkpoint = StableDiffusion.load(folder)
    D, prompt = checkpoint.denoiser(), "a fox"
    student = D.net.to_train("lora", 2)
    before = {key: value.clone() for key, value in checkpoint.network.state_dict().items()}
    words = checkpoint.prompts.rows(checkpoint.prompts.add([prompt]), torch.zeros(1, 4, 8, 8))
    checkpoint.to(dtype="bfloat16")
    assert not torch.equal(checkpoint.network.conv_in.weight.float(), before["conv_in.weight"])
    checkpoint.to(dtype="float32")
    assert all(torch.equal(before[key], value) for key, value in checkpoint.network.state_dict().items())
    again = checkpoint.prompts.rows(checkpoint.prompts.add([prompt]), torch.zeros(1, 4, 8, 8))
    assert torch.equal(words.hidden, again.hidden)
    shared = student.unet.get_submodule("mid_block.resnets.0.norm1").weight  # a student sees them, too
    assert shared is checkpoint.network.get_submodule("mid_block.resnets.0.norm1").weight


# ---- broken files (R5, R8)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("model_index.json", "["),
        ("model_index.json", "[" * 100_000),
        ("model_index.json", '{"a":' * 100_000),
        ("model_index.json", "{}"),
        ("model_index.json", '{"_class_name": 3}'),
        ("model_index.json", b"\xff\xfe{"),
        ("unet/config.json", "[]"),
        ("unet/config.json", '{"a":' * 100_000),
        ("unet/config.json", "{}"),
        ("vae/config.json", "null"),
        ("text_encoder/config.json", "3"),
        ("text_encoder/config.json", b"\x80"),
        ("scheduler/scheduler_config.json", "{"),
        ("scheduler/scheduler_config.json", b"\x00"),
        ("tokenizer/tokenizer_config.json", "[" * 100_000),
        ("tokenizer/tokenizer_config.json", "[]"),
        ("tokenizer/tokenizer.json", "{"),
        ("tokenizer/tokenizer.json", "{}"),
        ("tokenizer/tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": ["a"]}}'),
        ("unet/diffusion_pytorch_model.safetensors", b""),
        ("unet/diffusion_pytorch_model.safetensors", b"\xff" * 64),
        ("vae/diffusion_pytorch_model.safetensors", b"\x02\x00\x00\x00\x00\x00\x00\x00{}"),
        ("text_encoder/model.safetensors", b'\x08\x00\x00\x00\x00\x00\x00\x00{"a":{}}'),
        ("text_encoder/model.safetensors", b"PK\x03\x04"),
    ],
)
def test_broken_files_are_named(broken, file, content):
    path = broken / file
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    line = said(broken)
    assert Path(file).parts[0] in line
    assert len(line) < 900


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "keys"),
    [
        ("unet/config.json", {"in_channels": "four"}),
        ("unet/config.json", {"block_out_channels": ...}),
        ("unet/config.json", {"block_out_channels": 3}),
        ("unet/config.json", {"block_out_channels": []}),
        ("unet/config.json", {"block_out_channels": [10**15, 10**15]}),
        ("unet/config.json", {"down_block_types": ["Nothing", "DownBlock2D"]}),
        ("unet/config.json", {"layers_per_block": 10**9}),
        ("unet/config.json", {"attention_head_dim": 0}),
        ("unet/config.json", {"cross_attention_dim": None}),
        ("unet/config.json", {"sample_size": "big"}),
        ("unet/config.json", {"sample_size": -8}),
        ("vae/config.json", {"latent_channels": None}),
        ("vae/config.json", {"scaling_factor": 0}),
        ("vae/config.json", {"scaling_factor": "x"}),
        ("vae/config.json", {"scaling_factor": None}),
        ("text_encoder/config.json", {"num_hidden_layers": 10**8}),
        ("text_encoder/config.json", {"hidden_size": "wide"}),
        ("text_encoder/config.json", {"vocab_size": -1}),
        ("text_encoder/config.json", {"model_type": "nothing", "hidden_act": "nothing"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}),
        ("scheduler/scheduler_config.json", {"beta_start": None}),
        ("scheduler/scheduler_config.json", {"beta_start": -1.0}),
        ("scheduler/scheduler_config.json", {"beta_schedule": "nothing"}),
        ("scheduler/scheduler_config.json", {"trained_betas": [0.1, float("nan")]}),
        ("scheduler/scheduler_config.json", {"prediction_type": ["epsilon"]}),
        ("scheduler/scheduler_config.json", {"prediction_type": {}}),
    ],
)
def test_wrong_settings_are_one_line(broken, file, keys):
    change(broken / file, **keys)
    line = said(broken)
    assert len(line) < 900
    assert Path(file).parts[0] in line or "unet" in line.lower()


@pytest.mark.parametrize("keys", [{"_class_name": "FlaxPNDMScheduler"}, {"unheard_of": 1}, {"timestep_spacing": ...}])
def test_settings_that_do_not_matter(broken, keys):
    change(broken / "scheduler" / "scheduler_config.json", **keys)
    assert StableDiffusion.load(broken).kind == "eps"


def test_a_tokenizer_that_does_not_say_how_long_a_prompt_is(broken):
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        (broken / "tokenizer" / file).unlink(missing_ok=True)
    checkpoint = StableDiffusion.load(broken)
    assert "reads 75" in checkpoint.too_long("a" * 100)


def test_a_tokenizer_with_tokens_of_another_encoder(broken):
    settings = json.loads((broken / "tokenizer" / "tokenizer_config.json").read_text())
    change(broken / "tokenizer" / "tokenizer_config.json", pad_token="another")
    assert "has tokens beyond" in said(broken)
    change(broken / "tokenizer" / "tokenizer_config.json", **settings)
    checkpoint = StableDiffusion.load(broken)
    checkpoint.pipe.tokenizer.add_tokens(["newword"])
    with pytest.raises(ValueError, match="the prompt has a token that is none of the"):
        sample_images(checkpoint, "a newword", steps=1, cut=True)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(broken, part, number):
    [file] = (broken / part).glob("*.safetensors")
    tensors = load_file(file)
    name = next(key for key, value in tensors.items() if value.ndim > 1)
    tensors[name].view(-1)[3] = number
    save_file(tensors, file, metadata={"format": "pt"})
    line = said(broken)
    assert f"the {part} of" in line
    assert "not finite" in line


def test_large_finite_weights_are_no_error(broken):
    [file] = (broken / "vae").glob("*.safetensors")
    tensors = load_file(file)
    tensors["decoder.conv_in.weight"].fill_(3e38)
    save_file(tensors, file, metadata={"format": "pt"})
    assert StableDiffusion.load(broken).kind == "eps"


def test_the_lowest_version_of_diffusers_that_is_allowed():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for extra in ("sd", "dev"):
        assert "diffusers>=0.38" in project["optional-dependencies"][extra]  # before, it ran what a checkpoint names
