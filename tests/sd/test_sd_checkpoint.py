"""Reading Stable Diffusion checkpoints: what is found in them, and one line for everything that is wrong with them."""

import json
import shutil
from pathlib import Path

import diffusers
import pytest
import tiny_sd
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file

from toydiff import Linear, Tabulated, solve
from toydiff.adapters.checkpoint import StableDiffusion, table_of
from toydiff.adapters.sampling import sample_images
from toydiff.adapters.text import prompt_id
from toydiff.denoisers import NO_CLASS, Guided

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.fixture
def broken(checkpoints, tmp_path):
    """A checkpoint of one's own to break: a copy of SD's."""
    return Path(shutil.copytree(checkpoints["sd"], tmp_path / "broken"))


@pytest.mark.parametrize(
    ("kind", "prediction", "ends_in_noise"), [("sd", "eps", False), ("sd-v", "v", True), ("xl", "eps", False)]
)
def test_what_a_checkpoint_says(checkpoints, kind, prediction, ends_in_noise):
    checkpoint = StableDiffusion.load(checkpoints[kind])
    scheduler = tiny_sd.SCHEDULERS[kind]
    assert checkpoint.kind == prediction
    assert hasattr(checkpoint.pipe, "text_encoder_2") == (kind == "xl")
    assert (checkpoint.scale, checkpoint.channels, checkpoint.resolution, checkpoint.timesteps) == (
        2,
        4,
        (16, 16),
        1000,
    )
    assert checkpoint.latent_shape() == (4, 8, 8)
    assert checkpoint.latent_shape((8, 24)) == (4, 4, 12)
    times = torch.arange(1, 1001, dtype=torch.float64) / 1000
    torch.testing.assert_close(
        checkpoint.schedule.alpha(times) ** 2, scheduler.alphas_cumprod.double(), rtol=1e-12, atol=1e-15
    )
    assert (float(checkpoint.schedule.alpha(times[-1])) == 0) == ends_in_noise
    assert StableDiffusion.load(checkpoints[kind]) is checkpoint
    assert not any(p.requires_grad for p in checkpoint.network.parameters())


def test_a_table_that_ends_in_noise():
    table = table_of(tiny_sd.SCHEDULERS["sd-v"])
    t = torch.tensor([0.0, 0.5, 0.99, 0.9985, 0.999, 0.9992, 0.9999, 1.0], dtype=torch.float64)
    torch.testing.assert_close(table.alpha(t) ** 2 + table.sigma(t) ** 2, torch.ones_like(t), rtol=1e-14, atol=0)
    torch.testing.assert_close(table.t_of_lam(table.lam(t)), t, rtol=0, atol=1e-13)
    assert bool((table.lam(torch.linspace(0, 1, 5001, dtype=torch.float64)).diff() < 0).all())
    slope = (table.alpha(t[5:6] + 1e-6) - table.alpha(t[5:6] - 1e-6)) / 2e-6
    torch.testing.assert_close(table.rates(t)[0][5:6], slope, rtol=1e-6, atol=0)
    assert all(bool(torch.isfinite(rate[1:]).all()) for rate in table.rates(t))
    for bad in ([0.9, 0.0, 0.0], [0.9, 0.0, 0.1], [1.0, 0.5], [0.5, -0.1]):
        with pytest.raises(ValueError, match="only the last may be 0"):
            Tabulated(torch.tensor(bad))


def test_a_single_file_is_the_same_checkpoint(checkpoints, tmp_path):
    file = tiny_sd.single_file(checkpoints["sd"], tmp_path / "one.safetensors")
    one, folder = StableDiffusion.load(file, config=checkpoints["sd"]), StableDiffusion.load(checkpoints["sd"])
    for name in ("unet", "vae", "text_encoder"):
        theirs = getattr(folder.pipe, name).state_dict()
        ours = getattr(one.pipe, name).state_dict()
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert torch.equal(one.schedule._log_alpha, folder.schedule._log_alpha)
    settings = {"steps": 2, "seed": 1, "decode": False}
    a, b = (sample_images(checkpoint, "a cat", **settings).latents for checkpoint in (one, folder))
    torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny_sd.KINDS)
def test_prompts_and_latents_are_the_pipelines(checkpoints, kind):
    checkpoint, pipe = StableDiffusion.load(checkpoints[kind]), DiffusionPipeline.from_pretrained(checkpoints[kind])
    ids = checkpoint.prompts.add(tiny_sd.PROMPTS)
    assert ids.tolist() == [prompt_id(text) for text in tiny_sd.PROMPTS]
    like = torch.zeros(4, 4, 8, 8)
    found = checkpoint.prompts.rows(torch.cat([ids, torch.tensor([NO_CLASS])]), like)
    with torch.no_grad():
        parts = pipe.encode_prompt(
            tiny_sd.PROMPTS, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True
        )
    torch.testing.assert_close(found.hidden[:3], parts[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.hidden[3], parts[1][0], rtol=0, atol=1e-5)
    if kind == "xl":
        torch.testing.assert_close(found.pooled[:3], parts[2], rtol=0, atol=1e-5)
        torch.testing.assert_close(
            found.pooled[3], parts[3][0], rtol=0, atol=1e-5
        )  # others may have encoded them in another batch
        assert float(found.hidden[3].abs().max()) == 0
    assert torch.equal(checkpoint.prompts.rows(None, like).hidden, found.hidden[3].expand_as(found.hidden))
    z = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        want = pipe.image_processor.postprocess(
            pipe.vae.decode(z / pipe.vae.config.scaling_factor)[0], output_type="pt"
        )
    torch.testing.assert_close(checkpoint.decode(z, at_once=2), want, rtol=0, atol=1e-6)
    images = torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    mean, std = checkpoint.encode(images, at_once=2)
    with torch.no_grad():
        law = pipe.vae.encode(2 * images - 1).latent_dist
    torch.testing.assert_close(mean, law.mean * pipe.vae.config.scaling_factor, rtol=0, atol=1e-6)
    torch.testing.assert_close(std, law.std * pipe.vae.config.scaling_factor, rtol=0, atol=1e-6)


def test_both_sides_of_guidance_go_in_one_call(checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    D, cond = checkpoint.denoiser(), checkpoint.prompts.add(["a cat", "a dog"])
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.3, 0.9])
    calls = []
    hook = checkpoint.network.register_forward_hook(lambda *args: calls.append(1))
    try:
        p = Guided(D, 4.0)(x, t, cond)
        assert len(calls) == 1
        D.net.batches_guidance = False
        q = Guided(D, 4.0)(x, t, cond)
        assert len(calls) == 3
    finally:
        hook.remove()
    torch.testing.assert_close(p.eps, q.eps, rtol=0, atol=1e-5)
    torch.testing.assert_close(p.eps, D(x, t).eps + 4 * (D(x, t, cond).eps - D(x, t).eps), rtol=0, atol=1e-5)


def test_half_precision_keeps_its_state_in_float32(tmp_path):
    checkpoint = StableDiffusion.load(tiny_sd.save(tmp_path / "half", "sd-v"))
    whole = sample_images(checkpoint, "a cat", steps=4, grid="uniform").latents
    checkpoint.to(dtype="bfloat16")
    half = sample_images(checkpoint, "a cat", steps=4, grid="uniform")
    assert half.latents.dtype == torch.float32
    assert half.images.dtype == torch.float32
    assert 1e-4 < float((half.latents - whole).abs().max()) < 0.3
    with pytest.raises(ValueError, match="float16 is too slow"):
        checkpoint.to(dtype="float16")
    with pytest.raises(ValueError, match="did you mean 'bfloat16'"):
        checkpoint.to(dtype="bfloat")


@pytest.mark.slow
def test_another_unet_and_a_lora(checkpoints, tmp_path):
    other = tiny_sd.pipeline(tmp_path / "words", "sd", seed=7)
    other.unet.save_pretrained(tmp_path / "alone")
    other.save_pretrained(tmp_path / "whole")
    for place in ("alone", "whole"):
        made = StableDiffusion.load(checkpoints["sd"], unet=tmp_path / place)
        assert torch.equal(made.network.conv_in.weight, other.unet.conv_in.weight)
    # as published LoRAs are: kohya's names, a scale of alpha/rank
    rng = torch.Generator().manual_seed(3)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    down, up = (torch.randn(*shape, generator=rng) for shape in ((2, 16), (16, 2)))
    key = "lora_unet_" + name.replace(".", "_")
    save_file(
        {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up, f"{key}.alpha": torch.tensor(1.0)},
        tmp_path / "kohya.safetensors",
    )
    plain = StableDiffusion.load(checkpoints["sd"]).network.get_submodule(name).weight
    made = (
        StableDiffusion.load(checkpoints["sd"], lora=[tmp_path / "kohya.safetensors"])
        .network.get_submodule(name)
        .weight
    )
    torch.testing.assert_close(made, plain + 0.5 * up @ down, rtol=0, atol=1e-5)


def test_a_flow_checkpoint_is_on_the_linear_schedule(broken):
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    scheduler.save_pretrained(broken / "scheduler")
    index = json.loads((broken / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "FlowMatchEulerDiscreteScheduler"]
    (broken / "model_index.json").write_text(json.dumps(index))
    checkpoint = StableDiffusion.load(broken)
    assert isinstance(checkpoint.schedule, Linear)
    assert checkpoint.kind == "velocity"
    D, x = checkpoint.denoiser(), torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    text = checkpoint.prompts.rows(None, x).hidden
    with torch.no_grad():
        want = checkpoint.network(x, torch.tensor([250.0]), text)[0]
    torch.testing.assert_close(D(x, 0.25).read("velocity"), want, rtol=0, atol=1e-4)
    end = solve(D, x, 1, solver="ddim", grid="uniform", cond=checkpoint.prompts.add(["a cat"])).end
    assert bool(torch.isfinite(end).all())
    with pytest.raises(ValueError, match="the spacing 'trailing' is of a table's timesteps"):
        sample_images(checkpoint, "a cat", solver="ddim", grid="trailing")


# ---- what is wrong, in a line


def said(*args, **settings):
    """The one line that a checkpoint is refused with."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        StableDiffusion.load(*args, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_wrong_place(tmp_path, checkpoints):
    assert "neither a folder, nor a .safetensors file, nor a hub id" in said(tmp_path / "nothing")
    assert "no file" in said(tmp_path / "nothing.safetensors")
    assert "it has no model_index.json" in said(tmp_path)
    assert "with --unet" in said(Path(checkpoints["sd"]) / "unet")
    (tmp_path / "lone").mkdir()
    save_file({"a": torch.zeros(1)}, tmp_path / "lone" / "model.safetensors")
    assert "give the file itself" in said(tmp_path / "lone")
    (tmp_path / "model_index.json").write_text("{")
    assert "not what it should be in JSON" in said(tmp_path)
    (tmp_path / "model_index.json").write_text("[1]")
    assert "not what it should be in JSON" in said(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "PixArtSigmaPipeline", "transformer": ["a", "X"]}')
    assert "is a PixArtSigmaPipeline; this adapter takes" in said(tmp_path)


@pytest.mark.parametrize("offline", [True, False])
def test_a_hub_that_is_not_reached(monkeypatch, tmp_path, offline):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    if not offline:
        import huggingface_hub

        def unreachable(*args, **settings):
            raise OSError("no route to host")

        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
        monkeypatch.setattr("diffusers.pipelines.pipeline_utils.model_info", unreachable)
    line = said("nobody/has-this-checkpoint", local_only=offline)
    assert "hf download nobody/has-this-checkpoint" in line
    assert "--local-dir has-this-checkpoint" in line
    assert ("the hub is not to be used" in line) == offline


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_component(broken, part):
    shutil.rmtree(broken / part)
    assert f"lacks the component {part!r}" in said(broken)


def test_damaged_weights_and_pickles(broken):
    file = broken / "unet" / "diffusion_pytorch_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    assert "cannot be read" in said(broken)
    file.unlink()
    assert "has no weights in safetensors" in said(broken)
    file.with_suffix(".bin").write_bytes(b"pickle")
    assert "only pickles (.bin), which can run code" in said(broken)
    tensors = load_file(Path(broken) / "vae" / "diffusion_pytorch_model.safetensors")
    file.with_suffix(".bin").unlink()
    save_file(tensors, file)
    assert "its unet lacks" in said(broken)


@pytest.mark.parametrize("part", ["text_encoder", "vae"])
def test_weights_that_are_not_all_there(broken, part):
    [file] = (broken / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors.pop(next(name for name in tensors if "weight" in name))
    save_file(tensors, file, metadata={"format": "pt"})
    assert f"its {part} lacks 1 weights" in said(broken)
    file.write_bytes(file.read_bytes()[:500])
    assert "cannot be read" in said(broken)


def test_a_tokenizer_without_words_and_a_class_without_its_parts(broken):
    index = broken / "model_index.json"
    for file in ("tokenizer.json", "vocab.json"):
        (broken / "tokenizer" / file).unlink(missing_ok=True)
    assert "the tokenizer of" in said(broken)
    parts = json.loads(index.read_text())
    index.write_text(json.dumps(parts | {"_class_name": "StableDiffusionXLPipeline"}))
    assert "lacks" in said(broken) or "has no vocabulary" in said(broken)


@pytest.mark.parametrize(("size", "pixels"), [([8, 12], (16, 24)), (None, (128, 128))])
def test_sizes_that_diffusers_allows(broken, size, pixels):
    config = broken / "unet" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"sample_size": size}))
    checkpoint = StableDiffusion.load(broken)
    assert checkpoint.resolution == pixels
    assert checkpoint.latent_shape() == (4, pixels[0] // 2, pixels[1] // 2)


def test_files_in_half_precision_only(broken):
    for part in ("unet", "vae"):
        [file] = (broken / part).glob("*.safetensors")
        file.rename(file.with_name(file.name.replace(".safetensors", ".fp16.safetensors")))
    assert StableDiffusion.load(broken).network.dtype == torch.float32


def test_a_unet_without_a_middle(tmp_path):
    checkpoint = StableDiffusion.load(tiny_sd.save(tmp_path / "flat", "sd", mid_block_type=None))
    D, x = checkpoint.denoiser(), torch.zeros(2, 4, 8, 8)
    assert D.features(x, torch.tensor([0.5, 0.6])).shape == (2, D.net.feature_width) == (2, 48)


def test_a_move_to_another_dtype_forgets_what_was_encoded(tmp_path):
    checkpoint = StableDiffusion.load(tiny_sd.save(tmp_path / "moved", "sd"))
    ids, like = checkpoint.prompts.add(["a fox", "a hen"]), torch.zeros(2, 4, 8, 8)
    before = checkpoint.prompts.rows(ids, like).hidden
    checkpoint.to(dtype="bfloat16")
    half = checkpoint.prompts.rows(ids, like.bfloat16()).hidden
    assert half.dtype == torch.bfloat16
    assert not torch.equal(half.float(), before)
    assert checkpoint.stamp("text_encoder")[1] == "torch.bfloat16"
    for device in ("foo", "cuda"):
        with pytest.raises(ValueError, match="no device"):
            checkpoint.to(device)


@pytest.mark.parametrize("kind", ["sd", "xl"])
def test_many_prompts_are_kept_in_half_precision(tmp_path, monkeypatch, kind):
    checkpoint = StableDiffusion.load(tiny_sd.save(tmp_path / "many", kind))
    like = torch.zeros(4, 4, 8, 8)
    texts = ["one", "two", "three", "four"]
    whole = checkpoint.prompts.rows(checkpoint.prompts.add(texts), like)
    checkpoint.prompts.forget(all_=True)
    monkeypatch.setattr("toydiff.adapters.text.IN_FULL", 2 * whole.hidden[0].nbytes)
    mixed = checkpoint.prompts.rows(checkpoint.prompts.add(texts), like)
    assert torch.equal(mixed.hidden[:2], whole.hidden[:2])
    assert not torch.equal(mixed.hidden[2:], whole.hidden[2:])
    torch.testing.assert_close(mixed.hidden, whole.hidden, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", tiny_sd.KINDS)
def test_what_is_kept_is_not_computed_in_the_callers_mode(tmp_path, kind):
    """A training in mixed precision encodes the empty prompt at its first guided call, and everyone reads it from then
    on.
    """
    folder = tiny_sd.save(tmp_path / "modes", kind)
    first, second, third = (StableDiffusion.load(shutil.copytree(folder, tmp_path / f"copy {i}")) for i in range(3))
    images, like = torch.rand(1, 3, 16, 16), torch.zeros(1, 4, 8, 8)

    def kept(checkpoint):
        ids = checkpoint.prompts.add(["a fox"])
        found = [
            *checkpoint.prompts.rows(ids, like),
            *checkpoint.prompts.rows(None, like),
            *checkpoint.encode(images),
            checkpoint.decode(like),
        ]
        return [part.clone() for part in found if part is not None]

    plain = kept(first)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = kept(second)
    with torch.inference_mode():
        inferred = kept(third)
    for a, b, c in zip(plain, mixed, inferred, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    D = third.denoiser()
    x = like.clone().requires_grad_()
    D(x, 0.5, third.prompts.add(["a fox"])).x0.sum().backward()
    assert bool(torch.isfinite(x.grad).all())


@pytest.mark.slow
def test_labels_of_another_checkpoint_and_inference_mode(checkpoints):
    first, second = (StableDiffusion.load(checkpoints[kind]) for kind in ("sd", "sd-v"))
    cond = first.prompts.add(["a prompt of the first alone"])
    x = torch.zeros(3, 4, 8, 8)
    with torch.inference_mode():
        D = second.denoiser()
        assert D(x, 0.5, cond[0]).x0.shape == x.shape
        assert D(x[:2], 0.5, cond[0]).x0.shape == x[:2].shape
        assert bool(torch.isfinite(solve(D, x, 2, solver="ddim", cond=cond.expand(3), guidance_scale=2.0).end).all())
    with pytest.raises(ValueError, match="does not fit"):
        sample_images(StableDiffusion.load(checkpoints["xl"]), "a", denoiser=first.denoiser(), steps=1)


def test_an_unsupported_prediction_type(broken):
    config = broken / "scheduler" / "scheduler_config.json"
    settings = json.loads(config.read_text())
    config.write_text(json.dumps(settings | {"prediction_type": "velocity"}))
    assert "unknown prediction_type of the scheduler 'velocity'" in said(broken)


@pytest.mark.slow
def test_a_unet_of_another_task(broken, tmp_path):
    tiny_sd.unet(in_channels=8).save_pretrained(tmp_path / "editing")
    shutil.rmtree(broken / "unet")
    shutil.copytree(tmp_path / "editing", broken / "unet")
    assert "for depth, editing or upscaling are not supported" in said(broken)


@pytest.mark.slow
def test_pieces_that_do_not_fit(checkpoints, tmp_path):
    sd = checkpoints["sd"]
    assert "there is no UNet at" in said(sd, unet="nowhere")
    assert "holds no UNet" in said(sd, unet=tmp_path)
    assert "its cross_attention_dim is 32, not 16" in said(sd, unet=checkpoints["xl"])
    assert "there is no LoRA at" in said(sd, lora=["nowhere"])
    assert "holds no LoRA" in said(sd, lora=[tmp_path])
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "does not fit this checkpoint" in said(sd, lora=[tmp_path / "foreign.safetensors"])
    key = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    save_file(
        {f"{key}.lora_A.weight": torch.zeros(2, 320), f"{key}.lora_B.weight": torch.zeros(320, 2)},
        tmp_path / "wide.safetensors",
    )
    assert "does not fit this checkpoint" in said(sd, lora=[tmp_path / "wide.safetensors"])
    for name, content in (("empty", b""), ("cut", (tmp_path / "wide.safetensors").read_bytes()[:90])):
        (tmp_path / f"{name}.safetensors").write_bytes(content)
        assert "cannot be read" in said(sd, lora=[tmp_path / f"{name}.safetensors"])
    (tmp_path / "old.bin").write_bytes(b"\x80\x02pickle")
    assert "is a pickle" in said(sd, lora=[tmp_path / "old.bin"])


def test_a_single_file_that_cannot_be_read(checkpoints, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00")
    assert "not a safetensors file" in said(tmp_path / "cut.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    assert "cannot be read as a checkpoint" in said(tmp_path / "foreign.safetensors", config=checkpoints["sd"])
    file = tiny_sd.single_file(checkpoints["sd"], tmp_path / "one.safetensors")
    assert "give --config a folder" in said(file, local_only=True)
    assert "says nothing of a checkpoint" in said(file, config=tmp_path)
    (tmp_path / "model_index.json").write_text("[1]")
    assert "not what it should be in JSON" in said(file, config=tmp_path)
    (tmp_path / "empty.safetensors").write_bytes(b"")
    assert "cannot be read as a checkpoint" in said(tmp_path / "empty.safetensors", config=checkpoints["sd"])
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x02pickle")
    assert "is a pickle" in said(tmp_path / "old.ckpt")


def test_prompts_that_are_too_long(checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["xl"])
    long = "a" * 60 + " " + "b" * 40
    with pytest.raises(
        ValueError, match=r"the prompt has 100 tokens and the text encoder reads 75: 'b+' would be lost"
    ):
        sample_images(checkpoint, long, steps=1)
    with pytest.raises(ValueError, match="of the negative prompt: the prompt has 100 tokens"):
        sample_images(checkpoint, "a", negative_prompt=long, steps=1)
    assert sample_images(checkpoint, long, steps=1, cut=True).images.shape == (1, 3, 16, 16)
    with pytest.raises(ValueError, match=r"latents have shape \(n, 4, H, W\)"):
        checkpoint.decode(torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="the prompt has 100 tokens"):  # also once its beginning is known
        sample_images(checkpoint, long, steps=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"prompts": []}, "at least one prompt"),
        ({"steps": 0}, "steps must be a whole number"),
        ({"solver": "dpm++"}, "unknown solver 'dpm\\+\\+'"),
        ({"grid": "trailling"}, "did you mean 'trailing'"),
        ({"size": 15}, "must be multiples of 2"),
        ({"size": (16, 17)}, "must be multiples of 2"),
        ({"each": 0}, "each must be"),
        ({"at_once": 0}, "at_once must be"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 2**64}, "seed must be below"),
        ({"size": 16.0}, "a size is a number of pixels"),
        ({"steps": 1001, "grid": "trailing"}, "cannot make 1001 steps"),
        ({"guidance_scale": float("nan")}, "guidance_scale must be a finite number"),
        ({"denoiser": "student"}, "a denoiser of a Stable Diffusion checkpoint is needed"),
    ],
)
def test_bad_settings_of_sampling(checkpoints, settings, line):
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    with pytest.raises(ValueError, match=line):
        sample_images(checkpoint, **({"prompts": "a cat"} | settings))


def test_labels_that_are_not_known_and_states_that_do_not_fit(checkpoints):
    D = StableDiffusion.load(checkpoints["sd"]).denoiser()
    x = torch.zeros(1, 4, 8, 8)
    with pytest.raises(ValueError, match="of a prompt that was not given"):
        D(x, 0.5, torch.tensor([12345]))
    with pytest.raises(ValueError, match=r"takes latents \(B, 4, H, W\), got \(1, 3, 8, 8\)"):
        D(torch.zeros(1, 3, 8, 8), 0.5)
    with pytest.raises(ValueError, match="guidance_scale = 2 needs a condition to guide towards"):
        D(x, 0.5, None, 2.0)
    with pytest.raises(ValueError, match="does not see a guidance scale"):
        D.net(x, torch.zeros(1), None, torch.ones(1))
    with pytest.raises(ValueError, match="cond must have shape"):
        D(torch.zeros(2, 4, 8, 8), 0.5, torch.zeros(3, dtype=torch.long))


def test_a_missing_extra_is_named(monkeypatch, tmp_path):
    import sys

    monkeypatch.setitem(sys.modules, "peft", None)
    assert "pip install 'toydiff[sd]'" in said(tmp_path / "any")


@pytest.mark.slow
def test_nothing_is_imported_before_it_is_needed():
    import subprocess
    import sys

    code = (
        "import sys, toydiff, toydiff.cli, toydiff.runs, toydiff.problems; "
        "print([m for m in ('diffusers', 'transformers', 'peft') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_a_network_of_ones_own_keeps_the_contract(checkpoints):
    """UNets differ by their class as well: what is required of one is its configuration and its call."""
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    assert isinstance(checkpoint.network, UNet2DConditionModel)
    D = checkpoint.denoiser()
    x, t = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0.2505, 1.0])
    with torch.no_grad():
        want = checkpoint.network(x, torch.tensor([249.5, 999.0]), checkpoint.prompts.rows(None, x).hidden)[0]
    torch.testing.assert_close(D(x, t).eps, want, rtol=0, atol=2e-4)
    features = D.features(x, t)
    assert features.shape == (2, D.net.feature_width) == (2, 16 + 32 + 32)


@pytest.mark.slow
def test_a_unet_that_is_conditioned_on_the_guidance_scale(tmp_path):
    """As the published LCM is: one call a step, with the scale embedded, and diffusers' pipeline does the same."""
    folder = tiny_sd.save(tmp_path / "conditioned", "sd", time_cond_proj_dim=64)
    checkpoint, pipe = StableDiffusion.load(folder), DiffusionPipeline.from_pretrained(folder)
    D = checkpoint.denoiser()
    assert D.scale_conditioned
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    want = pipe("a cat", num_inference_steps=4, guidance_scale=5.0, generator=rng, output_type="latent").images
    made = sample_images(checkpoint, "a cat", steps=4, solver="lcm", grid="lcm", guidance_scale=5.0, seed=0)
    torch.testing.assert_close(made.latents, want, rtol=1e-5, atol=1e-4)
    assert made.trajectory.nfe == 4
    student = D.net.to_train("lora", 2, guided=True)
    own = [name for name, p in student.named_parameters() if p.requires_grad and "cond_proj" in name]
    assert own == ["unet.time_embedding.cond_proj.weight"]
    assert torch.equal(student.unet.time_embedding.cond_proj.weight, checkpoint.network.time_embedding.cond_proj.weight)
    assert not checkpoint.network.time_embedding.cond_proj.weight.requires_grad
