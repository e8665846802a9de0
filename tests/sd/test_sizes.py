"""The sizes that SDXL's UNet sees beside a prompt: diffusers' pipelines and UNet are the oracle."""

import json

import diffusers
import numpy as np
import pytest
import tiny_sd
import torch
from PIL import Image

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.images import read_image, sizes_of_picture
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli
from toydiff.problems.stable_diffusion import StableDiffusionProblem

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
PROMPTS = tiny_sd.PROMPTS[:2]
SIZES = {"original_size": (700, 900), "crops_coords_top_left": (20, 40), "target_size": (512, 768)}
SAME = {"solver": "ddim", "grid": "trailing", "guidance_scale": 3.0, "decode": False}


def theirs(folder, steps, kind=diffusers.StableDiffusionXLPipeline, **settings):
    tiny_sd.silent()
    pipe = kind.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    rng = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    settings = {"guidance_scale": 3.0, "output_type": "latent", "num_inference_steps": steps} | settings
    return pipe(PROMPTS, generator=rng, **settings).images


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("given", [tuple(SIZES), *((name,) for name in SIZES)])
def test_the_arguments_of_diffusers(steps, given, checkpoints):
    own = {name: SIZES[name] for name in given}
    checkpoint = StableDiffusion.load(checkpoints["xl"])
    want = theirs(checkpoints["xl"], steps, **own)
    for at_once in (1, 2):
        ours = sample_images(checkpoint, PROMPTS, steps=steps, at_once=at_once, **SAME, **own)
        assert float((ours.latents - want).abs().max()) < 1e-4
    plain = sample_images(checkpoint, PROMPTS, steps=steps, **SAME)
    assert float((plain.latents - want).abs().max()) > 1e-3


def test_with_negative_prompts_without_guidance_and_from_an_image(checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["xl"])
    for settings in ({"negative_prompt": ["ugly", "blurry"]}, {"guidance_scale": 1.0}):
        ours = sample_images(checkpoint, PROMPTS, steps=4, **SAME | settings | SIZES)
        assert float((ours.latents - theirs(checkpoints["xl"], 4, **settings, **SIZES)).abs().max()) < 1e-4
    photos = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    kind = diffusers.StableDiffusionXLImg2ImgPipeline
    want = theirs(checkpoints["xl"], 4, kind, image=photos, strength=0.75, **SIZES)
    ours = sample_images(checkpoint, PROMPTS, steps=4, image=photos, strength=0.75, **SAME, **SIZES)
    assert float((ours.latents - want).abs().max()) < 1e-4


def test_by_the_command(checkpoints, tmp_path, capsys):
    words = ["sample", "--problem", "sd", "--steps", "4", "--solver", "ddim", "--grid", "trailing"]
    words += ["--guidance-scale", "3", *(word for text in PROMPTS for word in ("--prompt", text))]
    sizes = ["--original-size", "700x900", "--crop", "20,40", "--target-size", "512,768"]
    out = tmp_path / "out.npz"
    assert cli.main([*words, "--model", checkpoints["xl"], *sizes, "--out", str(out)]) == 0
    with np.load(out) as made:
        assert np.abs(made["latents"] - theirs(checkpoints["xl"], 4, **SIZES).numpy()).max() < 1e-4
        settings = json.loads(str(made["settings"]))
    assert [settings[name] for name in ("original_size", "crop", "target_size")] == [[700, 900], [20, 40], [512, 768]]
    capsys.readouterr()
    for model, given, line in (
        ("xl", ["--crop", "20"], "must be two numbers of pixels, vertical and horizontal, as 768,512 or 768x512, of"),
        ("xl", ["--crop", "-1,0"], "of at least 0, got '-1,0'"),
        ("xl", ["--original-size", "0,0"], "of at least 1, got '0,0'"),
        (
            "xl",
            ["--size", "16x"],
            "must be one number, or height x width, as 512 or 512x768, from 8 to 8192, got '16x'",
        ),
        ("xl", ["--original-size", "0x512"], "of at least 1, got"),
        ("xl", ["--target-size", "512xy"], "--target-size"),
        ("sd", ["--crop", "0,0"], "sees no sizes beside a prompt, as SDXL does"),
    ):
        assert cli.main([*words, "--model", checkpoints[model], *given, "--out", str(tmp_path / "no.png")]) == 2
        said = capsys.readouterr().err
        assert line in said
        assert said.count("\n") == 1
    with pytest.raises(ValueError, match="target_size is two numbers of pixels"):
        sample_images(StableDiffusion.load(checkpoints["xl"]), PROMPTS, target_size=512, **SAME)


def cut(image, size):
    """The picture that is scaled, and its place in it: step by step, as SDXL's training in diffusers does it."""
    height, width = size
    scale = max(height / image.height, width / image.width)
    scaled = round(image.height * scale), round(image.width * scale)
    return scaled, ((scaled[0] - height) // 2, (scaled[1] - width) // 2)


@pytest.mark.parametrize("shape", [(40, 64), (64, 40), (16, 16), (32, 48), (33, 21)])
def test_sizes_of_a_picture(shape, tmp_path):
    image = Image.new("RGB", shape[::-1])
    image.save(tmp_path / "a.png")
    _, corner = cut(image, (16, 24))
    found = sizes_of_picture(tmp_path / "a.png", (16, 24))
    assert found[:2] == shape
    assert found[4:] == (16, 24)
    assert np.abs(np.subtract(found[2:4], corner)).max() <= 1  # half pixels are cut there
    # what is at the corner of what was read is what was at this place of the scaled picture
    scale = max(16 / shape[0], 24 / shape[1])
    ramp = np.broadcast_to(np.arange(shape[0])[:, None] * 3, shape).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "b.png")
    first = float(read_image(tmp_path / "b.png", (16, 24))[0, 0, 0]) * 255 / 3 * scale
    assert abs(first - found[2]) <= 2


def test_a_photo_that_lies_on_its_side(tmp_path):
    image = Image.new("RGB", (64, 40))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.jpg", exif=exif)
    assert sizes_of_picture(tmp_path / "a.jpg", (16, 16)) == (64, 40, 5, 0, 16, 16)
    assert tuple(read_image(tmp_path / "a.jpg", (16, 16)).shape) == (3, 16, 16)
    (tmp_path / "b.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="cannot be read as an image") as error:
        sizes_of_picture(tmp_path / "b.png", (16, 16))
    assert "\n" not in str(error.value)


def test_training_sees_those_of_each_picture(checkpoints, tmp_path):
    shapes = {"a": (40, 64), "b": (64, 40), "c": (16, 16)}
    for name, shape in shapes.items():
        noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text("a cat")  # one prompt, and three sizes
    problem = StableDiffusionProblem(checkpoints["xl"], data=tmp_path, size=16)
    x0, cond = problem.data(12, 0)
    corners = {(40, 64): (0, 5), (64, 40): (5, 0), (16, 16): (0, 0)}
    picked = torch.randint(3, (12,), generator=torch.Generator().manual_seed(0)).tolist()
    six = [[*shape, *corners[shape], 16, 16] for shape in (list(shapes.values())[i] for i in picked)]
    pipe = problem.checkpoint.pipe
    text, none, pooled, none_pooled = pipe.encode_prompt(["a cat"] * 12, device="cpu", do_classifier_free_guidance=True)

    def predicted(hidden, vector, k):
        extra = {"text_embeds": vector, "time_ids": torch.tensor(six, dtype=torch.float32)}
        with torch.no_grad():
            return pipe.unet(x0, k, encoder_hidden_states=hidden, added_cond_kwargs=extra).sample

    for D in (problem.teacher, problem.student()):
        for g, want in (
            (1.0, predicted(text, pooled, 499)),
            (3.0, predicted(none, none_pooled, 499).lerp(predicted(text, pooled, 499), 3.0)),
        ):
            with torch.no_grad():
                ours = D(x0, torch.full((12,), 0.5), cond, g).read("eps")
            assert float((ours - want).abs().max()) < 1e-4
    plain = StableDiffusionProblem(checkpoints["sd"], data=tmp_path, size=16)
    assert len(plain.data(12, 0)[1].unique()) == 1  # the label of the prompt alone
