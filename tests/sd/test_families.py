"""Families of checkpoints beside those with a UNet, on tiny ones in the published layouts. The oracles are diffusers'
own pipelines, schedulers and networks.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny_families
import torch
from diffusers import (
    FluxImg2ImgPipeline,
    FluxInpaintPipeline,
    FluxPipeline,
    SD3Transformer2DModel,
    StableDiffusion3Img2ImgPipeline,
    StableDiffusion3InpaintPipeline,
)
from safetensors.torch import load_file, save_file

from toydiff import Linear
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.families import FAMILIES, SUPPORTED
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
PROMPTS = ["a cat", "Two dogs"]
PERTURBED = 4


@pytest.fixture(scope="module")
def pipes(families):
    """What diffusers itself makes of them."""
    return {kind: tiny_families.pipeline(folder) for kind, folder in families.items()}


@pytest.fixture
def broken(families, tmp_path):
    """A checkpoint of one's own to break: a copy of SD3's."""
    return Path(shutil.copytree(families["sd3"], tmp_path / "broken"))


def change(file, **keys):
    """Change keys of a JSON file."""
    Path(file).write_text(json.dumps(json.loads(Path(file).read_text()) | keys))


def said(*args, **settings):
    """The one line that a checkpoint is refused with."""
    with pytest.raises(ValueError) as error:  # noqa: PT011
        StableDiffusion.load(*args, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def starts(shape=(16, 8, 8), seed=5):
    """The noise of two images, as both libraries draw it."""
    return torch.cat([torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed + k)) for k in range(2)])


def theirs(pipe, steps, guidance_scale, start=None, **settings):
    """Their pipeline's latents, (2, 16, h, w). FLUX.1-schnell is guided by what they call true_cfg_scale."""
    start = starts() if start is None else start
    settings = {"guidance_scale": guidance_scale} | settings
    flux, (_, channels, h, w) = isinstance(pipe, FluxPipeline), start.shape
    if flux and not pipe.transformer.config.guidance_embeds and guidance_scale != 1:
        settings = {"true_cfg_scale": settings.pop("guidance_scale"), "negative_prompt": [""] * 2} | settings
    made = pipe(
        PROMPTS,
        num_inference_steps=steps,
        latents=pipe._pack_latents(start, 2, channels, h, w) if flux else start,
        output_type="latent",
        height=8 * h,
        width=8 * w,
        **settings,
    ).images
    return pipe._unpack_latents(made, 8 * h, 8 * w, 8) if flux else made


# ---- text to image


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("kind", tiny_families.KINDS)
def test_the_same_latents_and_images_as_diffusers(families, pipes, kind, steps, guidance_scale):
    ours = sample_images(
        StableDiffusion.load(families[kind]),
        PROMPTS,
        steps=steps,
        solver="ddim",
        grid="shifted",
        guidance_scale=guidance_scale,
        size=64,
        seed=5,
    )
    want = theirs(pipes[kind], steps, guidance_scale)
    floor = 0.0
    for k in range(PERTURBED):  # a start that is one rounding away
        up = torch.rand(want.shape, generator=torch.Generator().manual_seed(k)) < 0.5
        start = torch.nextafter(starts(), torch.where(up, torch.inf, -torch.inf))
        floor = max(floor, float((theirs(pipes[kind], steps, guidance_scale, start) - want).abs().max()))
    gap = float((ours.latents - want).abs().max())
    assert gap <= max(1e-4, floor), (gap, floor)
    vae = pipes[kind].vae
    with torch.no_grad():
        image = vae.decode(want / vae.config.scaling_factor + vae.config.shift_factor)[0]
    assert float((ours.images - (image / 2 + 0.5).clamp(0, 1)).abs().max()) <= 1 / 255
    assert ours.trajectory.nfe == steps * (1 if guidance_scale == 1 or kind == "flux-dev" else 2)


@pytest.mark.parametrize("kind", ["sd3", "flux-dev", "flux-schnell"])
def test_a_negative_prompt_and_another_size(families, pipes, kind):
    """FLUX.1-dev takes none beside the guidance scale."""
    settings = {} if kind == "flux-dev" else {"negative_prompt": "ugly"}
    ours = sample_images(
        StableDiffusion.load(families[kind]),
        PROMPTS,
        steps=2,
        solver="ddim",
        grid="shifted",
        size=(64, 96),
        guidance_scale=3.0,
        seed=5,
        decode=False,
        **settings,
    )
    their_settings = {name: [text] * 2 for name, text in settings.items()}
    want = theirs(pipes[kind], 2, 3.0, starts((16, 8, 12)), **their_settings)
    torch.testing.assert_close(ours.latents, want, rtol=0, atol=1e-4)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("steps", [1, 4, 28])
@pytest.mark.parametrize("kind", ["sd3", "flux-schnell"])
def test_the_timesteps_and_sigmas_of_the_scheduler(families, tmp_path, kind, steps, dynamic):
    folder = Path(shutil.copytree(families[kind], tmp_path / "own"))
    change(folder / "scheduler" / "scheduler_config.json", **tiny_families.DYNAMIC | {"use_dynamic_shifting": dynamic})
    checkpoint, pipe = StableDiffusion.load(folder), tiny_families.pipeline(folder)
    seen = {"ours": [], "theirs": []}
    for name, network in (("ours", checkpoint.network), ("theirs", pipe.transformer)):
        network.register_forward_pre_hook(
            lambda module, args, named, name=name: seen[name].append(named["timestep"]), with_kwargs=True
        )
    made = sample_images(
        checkpoint, PROMPTS, steps=steps, solver="ddim", grid="shifted", guidance_scale=1.0, size=64, seed=5
    )
    theirs(pipe, steps, 1.0)
    assert torch.equal(torch.stack(seen["ours"]), torch.stack(seen["theirs"]))
    assert float(seen["ours"][0][0]) == (1000 if kind == "sd3" else 1)  # FLUX takes it over 1000
    assert torch.equal(made.trajectory.ts, pipe.scheduler.sigmas.double())
    assert isinstance(checkpoint.schedule, Linear)
    assert checkpoint.kind == "velocity"


@pytest.mark.slow
@pytest.mark.parametrize("solver", ["picard:tolerance=none", "parareal:tolerance=none"])
@pytest.mark.parametrize("kind", ["sd35", "flux-dev"])
def test_parallel_samplers_are_the_sequential_walk(families, kind, solver):
    checkpoint = StableDiffusion.load(families[kind])
    settings = {"steps": 12, "guidance_scale": 5.0, "seed": 4, "decode": False, "grid": "shifted", "size": 64}
    walk = sample_images(checkpoint, PROMPTS, solver="ddim", **settings)
    swept = sample_images(checkpoint, PROMPTS, solver=solver, at_once=6, **settings)
    torch.testing.assert_close(swept.latents, walk.latents, rtol=0, atol=1e-4)
    assert swept.trajectory.nfe >= walk.trajectory.nfe


@pytest.mark.parametrize("solver", ["dpm++2m", "heun", "lcm", "guarded"])
def test_other_solvers_walk_the_shifted_grid(families, solver):
    made = sample_images(StableDiffusion.load(families["sd3"]), "a", steps=3, solver=solver, grid="shifted")
    assert bool(torch.isfinite(made.images).all())


def test_what_the_shifted_grid_refuses(checkpoints, broken):
    with pytest.raises(ValueError, match="the spacing 'shifted' is of a flow"):
        sample_images(StableDiffusion.load(checkpoints["sd"]), "a", solver="ddim", grid="shifted")
    with pytest.raises(ValueError, match="the spacing 'trailing' is of a table's timesteps"):
        sample_images(StableDiffusion.load(broken), "a", solver="ddim", grid="trailing")
    change(broken / "scheduler" / "scheduler_config.json", stochastic_sampling=True)
    with pytest.raises(ValueError, match="asks for stochastic_sampling = True, which ddim does not do"):
        sample_images(StableDiffusion.load(broken), "a", solver="ddim", grid="shifted")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd3", "flux-schnell"])
@pytest.mark.parametrize(("steps", "strength"), [(5, 0.5), (4, 0.75), (3, 1.0)])
def test_an_image_to_start_from(families, pipes, kind, steps, strength):
    flux, image = kind.startswith("flux"), torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    made = (FluxImg2ImgPipeline if flux else StableDiffusion3Img2ImgPipeline)(**pipes[kind].components)
    made.set_progress_bar_config(disable=True)
    want = made(
        "a cat",
        image=image,
        height=64,
        width=64,
        num_inference_steps=steps,
        strength=strength,
        guidance_scale=1.0,
        generator=[torch.Generator().manual_seed(7)],
        output_type="latent",
    ).images
    want = made._unpack_latents(want, 64, 64, 8) if flux else want
    ours = sample_images(
        StableDiffusion.load(families[kind]),
        "a cat",
        image=image,
        strength=strength,
        steps=steps,
        solver="ddim",
        grid="shifted",
        guidance_scale=1.0,
        seed=7,
    )
    torch.testing.assert_close(ours.latents, want, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sd3", "flux-schnell"])
@pytest.mark.parametrize(("steps", "strength"), [(4, 0.75), (3, 1.0)])
def test_a_part_of_an_image(families, pipes, kind, steps, strength):
    flux, rng = kind.startswith("flux"), torch.Generator().manual_seed(2)
    image, mask = torch.rand(1, 3, 64, 64, generator=rng), torch.zeros(1, 1, 64, 64)
    mask[..., 16:, :40] = 1
    made = (FluxInpaintPipeline if flux else StableDiffusion3InpaintPipeline)(**pipes[kind].components)
    made.set_progress_bar_config(disable=True)
    settings = {"image": image, "strength": strength, "guidance_scale": 1.0}
    want = made(
        "a cat",
        mask_image=mask,
        height=64,
        width=64,
        num_inference_steps=steps,
        generator=[torch.Generator().manual_seed(7)],
        output_type="latent",
        **settings,
    ).images
    want = made._unpack_latents(want, 64, 64, 8) if flux else want
    ours = sample_images(
        StableDiffusion.load(families[kind]),
        "a cat",
        mask=mask,
        steps=steps,
        solver="ddim",
        grid="shifted",
        seed=7,
        decode=False,
        **settings,
    )
    torch.testing.assert_close(ours.latents, want, rtol=0, atol=1e-4)


# ---- prompts and latents


@pytest.mark.parametrize("kind", ["sd3", "sd3-without-t5", "flux-dev"])
def test_prompts_and_latents_are_the_pipelines(families, pipes, kind):
    checkpoint, pipe = StableDiffusion.load(families[kind]), pipes[kind]
    like, flux = torch.zeros(2, 16, 8, 8), isinstance(pipe, FluxPipeline)

    def encoded(prompts):
        with torch.no_grad():
            return pipe.encode_prompt(prompts, None)[:2] if flux else pipe.encode_prompt(prompts, None, None)[::2]

    found = checkpoint.prompts.rows(checkpoint.prompts.add(PROMPTS), like)
    for ours, want in zip(found[:2], encoded(PROMPTS), strict=True):
        torch.testing.assert_close(ours, want, rtol=0, atol=1e-5)
    for ours, want in zip(checkpoint.prompts.rows(None, like)[:2], encoded([""]), strict=True):
        torch.testing.assert_close(ours, want.expand_as(ours), rtol=0, atol=1e-5)
    assert found.hidden.shape == (2, 512 if flux else 77 + 256, 40)
    assert bool(found.hidden[:, 77:].any()) == (kind != "sd3-without-t5")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    mean, std = checkpoint.encode(images)
    with torch.no_grad():
        law = pipe.vae.encode(2 * images - 1).latent_dist
    config = pipe.vae.config
    torch.testing.assert_close(mean, (law.mean - config.shift_factor) * config.scaling_factor, rtol=0, atol=1e-5)
    torch.testing.assert_close(std, law.std * config.scaling_factor, rtol=0, atol=1e-5)


def test_what_half_precision_rounds_is_read_again(broken):
    """The embedding of SD3's positions, too, which is no parameter."""
    checkpoint, settings = StableDiffusion.load(broken), {"steps": 2, "grid": "shifted", "solver": "ddim"}
    whole = sample_images(checkpoint, "a cat", **settings).latents
    half = sample_images(checkpoint.to(dtype="bfloat16"), "a cat", **settings).latents
    assert 1e-4 < float((half - whole).abs().max()) < 0.5
    assert torch.equal(sample_images(checkpoint.to(dtype="float32"), "a cat", **settings).latents, whole)


def test_t5_reads_what_clip_does_not(families):
    words = "a" * 100
    assert StableDiffusion.load(families["sd3"]).too_long(words) is None
    assert "the text encoder reads 255" in StableDiffusion.load(families["sd3"]).too_long("a" * 300)
    assert "the text encoder reads 511" in StableDiffusion.load(families["flux-dev"]).too_long("a" * 600)
    assert "the text encoder reads 75" in StableDiffusion.load(families["sd3-without-t5"]).too_long(words)


def test_sizes_are_whole_patches(families):
    checkpoint = StableDiffusion.load(families["sd3"])
    assert checkpoint.latent_shape() == (16, 8, 8)
    assert checkpoint.latent_shape((64, 96)) == (16, 8, 12)
    with pytest.raises(ValueError, match="multiples of 16 here, got 72 x 64"):
        checkpoint.latent_shape((72, 64))
    with pytest.raises(ValueError, match="192 at most for this checkpoint, got 208 x 64"):
        checkpoint.latent_shape((208, 64))
    flux = StableDiffusion.load(families["flux-dev"])
    assert flux.latent_shape() == (16, 128, 128)
    with pytest.raises(ValueError, match="multiples of 16 here, got 72 x 64"):
        flux.latent_shape((72, 64))


@pytest.mark.parametrize(("kind", "guidance_scale"), [("sd3", 7.0), ("flux-dev", 3.5), ("flux-schnell", 1.0)])
def test_the_command_samples_it(families, tmp_path, capsys, kind, guidance_scale):
    out = tmp_path / "sheet.npz"
    words = ["sample", "--problem", "sd", "--model", families[kind], "--prompt", "a cat", "--steps", "2", "--seed", "5"]
    assert cli.main([*words, "--size", "64", "--out", str(out)]) == 0, capsys.readouterr().err
    settings = {"steps": 2, "solver": "ddim", "grid": "shifted", "guidance_scale": guidance_scale, "size": 64}
    want = sample_images(StableDiffusion.load(families[kind]), "a cat", seed=5, **settings)
    assert np.array_equal(np.load(out)["latents"], want.latents.numpy())


# ---- what is refused before weights are read


def test_a_foreign_pipeline_is_refused_with_the_families(broken):
    change(broken / "model_index.json", _class_name="PixArtSigmaPipeline")
    shutil.rmtree(broken / "transformer")
    line = said(broken)
    assert "is a PixArtSigmaPipeline" in line
    assert SUPPORTED in line
    assert all(family.title in line for family in FAMILIES)


@pytest.mark.parametrize(
    ("component", "is_now", "line"),
    [
        ("transformer", ["diffusers", "FluxTransformer2DModel"], "is a FluxTransformer2DModel, not a SD3Transformer"),
        ("transformer", ["evil", "Evil"], "of 'evil', which is not known here"),
        ("text_encoder_3", ["transformers", "AutoModel"], "is an AutoModel, not a T5EncoderModel"),
        ("tokenizer_3", ["evil", "T5TokenizerFast"], "of 'evil', which is not known here"),
        ("text_encoder", ["transformers", "CLIPTextModel"], "not a CLIPTextModelWithProjection"),
        ("unet", ["diffusers", "UNet2DConditionModel"], "a component 'unet'"),
        ("_class_name", "FluxPipeline", "is a SD3Transformer2DModel, not a FluxTransformer2DModel"),
        ("text_encoder_3", [None, None], "lacks the component 'text_encoder_3'"),
    ],
)
def test_components_of_other_classes_are_refused(broken, component, is_now, line):
    change(broken / "model_index.json", **{component: is_now})
    shutil.rmtree(broken / "vae")  # before any weight is read
    (broken / "vae").mkdir()
    assert line in said(broken)


def test_code_and_pickles_of_the_new_components_are_refused(broken):
    (broken / "text_encoder_3" / "evil.py").write_text("open('ran', 'w')")
    assert "is code, which is not run" in said(broken)
    (broken / "text_encoder_3" / "evil.py").unlink()
    change(broken / "transformer" / "config.json", auto_map={"AutoModel": "someone/evil--evil.Evil"})
    assert "names code of its own (auto_map)" in said(broken)
    change(broken / "transformer" / "config.json", auto_map=None)
    change(broken / "transformer" / "config.json", num_layers=10**6)
    assert "num_layers = 1000000; 256 is the most" in said(broken)
    change(broken / "transformer" / "config.json", num_layers=2)
    [file] = (broken / "transformer").glob("*.safetensors")
    file.rename(file.with_suffix(".bin"))
    assert "only pickles (.bin), which can run code" in said(broken)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"pooled_projection_dim": 24}, "reads 24 numbers of a whole prompt, and its text encoders give 28"),
        ({"joint_attention_dim": 48}, "reads 48 numbers a token, and its text encoders give 32 and 40"),
        ({"sample_size": -8}, "has the sample_size -8, which is no size of latents"),
        ({"in_channels": 32}, "takes 32 channels where a latent has 16"),
    ],
)
def test_a_transformer_that_does_not_fit(broken, changes, line):
    settings = {k: v for k, v in tiny_families.MMDIT.items() if not k.startswith("_")}
    SD3Transformer2DModel(**settings | changes).save_pretrained(broken / "transformer")
    assert line in said(broken)


def test_another_transformer(families, broken, tmp_path):
    [weights] = (broken / "transformer").glob("*.safetensors")
    tensors = load_file(weights)
    tensors["proj_out.bias"] = tensors["proj_out.bias"] + 1
    save_file(tensors, weights)
    made = StableDiffusion.load(families["sd3"], unet=broken)
    assert torch.equal(made.network.proj_out.bias, tensors["proj_out.bias"])
    line = said(families["sd3"], unet=families["flux-dev"])
    assert "it is a FluxTransformer2DModel, and a SD3Transformer2DModel is needed" in line
    assert "there is no transformer at" in said(families["sd3"], unet="nowhere")


def test_a_shift_that_is_no_number(broken):
    change(broken / "vae" / "config.json", shift_factor="much")
    assert "has the shift_factor 'much', which is no number" in said(broken)
