"""Each image has a stream of noise of its own and may start from a picture, and no setting of guidance is ignored."""

import json

import diffusers
import parity
import pytest
import tiny_sd
import torch
from PIL import Image

from toydiff import solve
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images
from toydiff.cli import command as cli
from toydiff.problems.stable_diffusion import StableDiffusionProblem

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
FEW = {"steps": 3, "guidance_scale": 1.0, "decode": False}


@pytest.fixture(scope="module")
def sd(checkpoints):
    return StableDiffusion.load(checkpoints["sd"])


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def near(a, b, tolerance=1e-5):
    assert float((a - b).abs().max()) <= tolerance * max(1.0, float(b.abs().max()))


# ---- a stream of noise for each image


@pytest.mark.parametrize(
    "solver",
    [
        "ddpm",
        "sde-dpm++2m",
        "lcm",
        "ddim:eta=0.5",
        "dpm++2m",
        "picard:solver=ddpm,tolerance=none",
        "parareal:fine=ddpm,coarse=ddim,tolerance=none",
    ],
)
def test_an_image_does_not_depend_on_its_batch(sd, solver):
    words = ["a cat", "a dog"]
    sheet = sample_images(sd, words, each=2, solver=solver, seed=5, **FEW).latents
    near(sample_images(sd, words, each=2, solver=solver, seed=5, at_once=3, **FEW).latents, sheet)
    near(sample_images(sd, "a cat", solver=solver, seed=5, **FEW).latents, sheet[:1])
    near(sample_images(sd, "a dog", solver=solver, seed=5 + 3, **FEW).latents, sheet[3:])
    near(
        sample_images(sd, words, each=2, solver=solver, seed=[5, *generators(6), 7, 8], at_once=1, **FEW).latents, sheet
    )


def test_pndm_from_a_picture_is_no_walk(sd, photo, monkeypatch):
    pndm = diffusers.PNDMScheduler.from_config(sd.pipe.scheduler.config, skip_prk_steps=True)
    monkeypatch.setattr(sd.pipe, "scheduler", pndm)
    with pytest.raises(ValueError, match="diffusers' PNDM repeats its second timestep"):
        sample_images(sd, "a cat", image=photo, solver="plms", grid="leading")
    assert sample_images(sd, "a cat", image=photo, solver="plms", **FEW).trajectory.rounds == 3


@pytest.mark.parametrize("solver", ["lcm", "dpm++2m", "ddpm"])
def test_diffusers_with_a_generator_for_each_image(checkpoints, sd, solver):
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(checkpoints["sd"])
    pipe.set_progress_bar_config(disable=True)
    spacing = "lcm" if solver == "lcm" else "trailing"
    own = {} if spacing == "lcm" else {"timestep_spacing": spacing}
    pipe.scheduler = getattr(diffusers, parity.SIDES[solver.partition(":")[0]]).from_config(
        pipe.scheduler.config, **own
    )
    ours = {"steps": 3, "solver": solver, "grid": spacing, "decode": False, "guidance_scale": 3.0}
    for seed, theirs in ((5, generators(5, 6)), (torch.Generator().manual_seed(5), *generators(5))):
        want = pipe(
            tiny_sd.PROMPTS[:2], num_inference_steps=3, generator=theirs, output_type="latent", guidance_scale=3.0
        ).images
        near(sample_images(sd, tiny_sd.PROMPTS[:2], seed=seed, **ours).latents, want)


@pytest.mark.parametrize(
    ("seed", "line"),
    [
        ([1], "there are 1 seeds for 2 image"),
        ([1, 2, 3], "there are 3 seeds"),
        (2**63 - 1, "seed must be below 2"),
        (-1, "seed must be"),
        ([0, -1], "seed must be"),
        ([0, 1.5], "seed must be"),
        ("ab", "seed must be"),
        ([0, None], "seed must be"),
    ],
)
def test_seeds_that_are_none(sd, seed, line):
    with pytest.raises(ValueError, match=line):
        sample_images(sd, "a cat", each=2, seed=seed, **FEW)


def test_solve_takes_a_generator_for_each_sample(sd):
    D, x = sd.denoiser(), torch.randn(2, 4, 4, 4)
    with pytest.raises(ValueError, match="a list of generators has one"):
        solve(D, x, 2, solver="ddpm", generator=generators(1))
    with pytest.raises(ValueError, match="a list of generators has one"):
        solve(D, x, 2, solver="ddpm", generator=[1, 2])


# ---- a start from a picture


@pytest.fixture(scope="module")
def photo():
    return torch.rand(3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("kind", "solver", "spacing", "steps", "strength"),
    [
        ("sd", "ddim", "leading", 5, 0.5),
        ("sd", "dpm++2m", "trailing", 5, 0.8),
        ("sd", "unipc2", "trailing", 5, 1.0),
        ("sd", "heun", "linspace", 5, 0.5),
        ("sd", "lcm", "lcm", 4, 0.6),
        ("sd-v", "ddim", "trailing", 5, 1.0),
        ("xl", "dpm++2m", "leading", 4, 0.3),
        ("sd", "heun", "trailing", 3, 1.0),
        ("sd", "ddpm", "trailing", 5, 0.5),
        ("sd", "deis2", "trailing", 5, 0.8),
        ("sd", "tcd:eta=0", "lcm", 4, 0.6),
    ],
)
def test_the_img2img_of_diffusers(checkpoints, photo, kind, solver, spacing, steps, strength):
    tiny_sd.silent()
    made = diffusers.StableDiffusionXLImg2ImgPipeline if kind == "xl" else diffusers.StableDiffusionImg2ImgPipeline
    pipe = made.from_pretrained(checkpoints[kind])
    pipe.set_progress_bar_config(disable=True)
    own = {} if spacing == "lcm" else {"timestep_spacing": spacing}
    pipe.scheduler = getattr(diffusers, parity.SIDES[solver.partition(":")[0]]).from_config(
        pipe.scheduler.config, **own
    )
    checkpoint = StableDiffusion.load(checkpoints[kind])
    for seed, theirs in ((3, generators(3, 4)), (torch.Generator().manual_seed(3), *generators(3))):
        pictures = torch.stack([photo, photo]) if isinstance(theirs, torch.Generator) else photo
        want = pipe(
            tiny_sd.PROMPTS[:2],
            image=pictures,
            strength=strength,
            num_inference_steps=steps,
            generator=theirs,
            output_type="latent",
            guidance_scale=3.0,
        ).images
        ours = sample_images(
            checkpoint,
            tiny_sd.PROMPTS[:2],
            image=pictures,
            strength=strength,
            steps=steps,
            solver=solver,
            grid=spacing,
            seed=seed,
            guidance_scale=3.0,
            decode=False,
        )
        near(ours.latents, want)
        assert ours.trajectory.rounds == int(steps * strength) * (2 if solver == "heun" else 1) - (solver == "heun")


def test_a_start_below_one_is_the_pictures_state(sd, photo):
    ts = torch.tensor([0.6, 0.4, 0.2, 0.0])
    with pytest.raises(ValueError, match=r"ts begins at 0\.6, where a state holds part of an image"):
        sample_images(sd, "a cat", ts=ts)
    made = sample_images(sd, "a cat", ts=ts, image=photo, solver="ddim", guidance_scale=1.0, seed=1, decode=False)
    rng = torch.Generator().manual_seed(1)
    mean, std = sd.encode(photo[None])
    z = mean + std * torch.randn(mean.shape, generator=rng)
    x = sd.schedule.mix(z, torch.randn(mean.shape, generator=rng), 0.6)
    near(made.latents, solve(sd.denoiser(), x, ts=ts, solver="ddim", cond=sd.prompts.add(["a cat"])).end)
    # an image of a batch is that made alone
    both = torch.stack([photo, photo.flip(2)])
    pair = sample_images(sd, "a cat", each=2, image=both, solver="lcm", seed=1, **FEW).latents
    near(sample_images(sd, "a cat", image=both[1], solver="lcm", seed=2, **FEW).latents, pair[1:])
    assert sample_images(sd, "a cat", ts=torch.tensor([1.0, 0.5, 0.0]), guidance_scale=1.0).images.shape == (
        1,
        3,
        16,
        16,
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"strength": 0.5}, "it needs image, and no ts"),
        ({"image": 0.5, "strength": 0.5, "ts": torch.tensor([0.5, 0.0])}, "it needs image, and no ts"),
        ({"image": 0.5, "strength": 0.0}, r"strength must be in \(0, 1\]"),
        ({"image": 0.5, "strength": 1.5}, "strength must be in"),
        ({"image": 0.5, "strength": float("nan")}, "strength"),
        ({"image": 0.5, "strength": 0.3}, "strength 0.3 of 3 step"),
        ({"image": 2.0}, r"image must lie in \[0, 1\]"),
        ({"image": float("nan")}, "image has"),
        ({"image": 0.5, "size": 8}, "image is 16 x 24 pixels, and size is 8"),
        ({"image": 0.5, "each": 3, "n": 2}, r"image must be \(3, H, W\), or \(3, 3, H, W\)"),
        ({"image": 0.5, "odd": True}, "multiples of 2"),
        ({"ts": torch.tensor([0.2, 0.5])}, "strictly decreasing"),
        ({"ts": torch.tensor([0.5])}, "a time grid has shape"),
    ],
)
def test_starts_that_are_none(sd, photo, settings, line):
    settings = dict(settings)
    if "image" in settings:
        shape = (
            (3, 15, 24)
            if settings.pop("odd", False)
            else (*((settings.pop("n"),) if "n" in settings else ()), 3, 16, 24)
        )
        settings["image"] = torch.full(shape, settings["image"])
    with pytest.raises(ValueError, match=line):
        sample_images(sd, "a cat", **FEW | settings)


def test_img2img_by_the_command(checkpoints, tmp_path, capsys):
    Image.new("RGB", (30, 16), (200, 30, 30)).save(tmp_path / "start.png")
    common = [
        "sample",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--prompt",
        "a cat",
        "--steps",
        "4",
        "--guidance-scale",
        "1",
    ]
    out = tmp_path / "out.png"
    assert cli.main([*common, "--image", str(tmp_path / "start.png"), "--strength", "0.5", "--out", str(out)]) == 0
    settings = json.loads(Image.open(out).text["toydiff"])
    assert (settings["image"], settings["strength"], settings["size"]) == (str(tmp_path / "start.png"), 0.5, [16, 16])
    assert "2 network calls each" in capsys.readouterr().out
    for words, line in (
        (["--strength", "0.5"], "--strength needs --image"),
        (["--image", str(tmp_path / "none.png")], "none.png' cannot be read as an image"),
        (["--image", str(tmp_path / "start.png"), "--strength", "0.1"], "leaves no step"),
    ):
        assert cli.main([*common, *words, "--out", str(tmp_path / "no.png")]) == 2
        error = capsys.readouterr().err
        assert line in error
        assert error.count("\n") == 1
    assert not (tmp_path / "no.png").exists()
    assert cli.main(["sample", "--mixture", "ring", "--image", "x.png", "--out", str(tmp_path / "no.png")]) == 2


# ---- guidance that has no effect


def test_a_negative_prompt_without_guidance_is_refused(checkpoints, sd, tmp_path, capsys):
    with pytest.raises(ValueError, match="the negative prompt has no effect at guidance scale 1"):
        sample_images(sd, "a cat", negative_prompt="ugly", **FEW)
    guided = StableDiffusionProblem(sd, prompts=["a cat"], rank=2).student(guided=True)
    with pytest.raises(ValueError, match="has the guidance scale as an input"):
        sample_images(sd, "a cat", denoiser=guided, negative_prompt="ugly", guidance_scale=4.0, steps=2)
    assert (
        cli.main(
            [
                "sample",
                "--problem",
                "sd",
                "--model",
                checkpoints["sd"],
                "--prompt",
                "a",
                "--negative-prompt",
                "b",
                "--guidance-scale",
                "1",
                "--out",
                str(tmp_path / "a.png"),
            ]
        )
        == 2
    )
    assert capsys.readouterr().err.count("\n") == 1


def test_guidance_below_one_says_what_diffusers_means(checkpoints, sd, tmp_path, capsys):
    with pytest.raises(
        ValueError,
        match=r"guidance_scale=0\.0, as for its Turbo models, it means that guidance is off, and that is 1 here",
    ):
        sample_images(sd, "a cat", guidance_scale=0.0)
    words = [
        "sample",
        "--problem",
        "sd",
        "--model",
        checkpoints["sd"],
        "--prompt",
        "a",
        "--steps",
        "2",
        "--out",
        str(tmp_path / "a.png"),
        "--guidance-scale",
    ]
    assert cli.main([*words, "0"]) == 2
    assert "that is 1 here" in capsys.readouterr().err
    assert cli.main([*words, "0.5"]) == 0
    assert "diffusers turns it off below 1: --guidance-scale 1\n" in capsys.readouterr().out
    assert cli.main([*words, "1"]) == 0
    assert "below 1" not in capsys.readouterr().out


# ---- sizes, and decoders that break


@pytest.mark.parametrize("size", [(18, 22), (2, 6)])
def test_every_size_that_diffusers_takes(checkpoints, sd, size):
    tiny_sd.silent()
    pipe = diffusers.DiffusionPipeline.from_pretrained(checkpoints["sd"])
    pipe.set_progress_bar_config(disable=True)
    pipe.check_inputs = lambda *args, **settings: None  # which asks for multiples of 8 whatever the VAE
    pipe.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config, timestep_spacing="trailing")
    want = pipe(
        "a cat",
        num_inference_steps=4,
        height=size[0],
        width=size[1],
        generator=generators(0),
        output_type="latent",
        guidance_scale=3.0,
    ).images
    ours = sample_images(sd, "a cat", steps=4, solver="ddim", grid="trailing", size=size, guidance_scale=3.0)
    near(ours.latents, want)
    assert ours.images.shape == (1, 3, *size)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_decoder_that_gives_no_numbers(checkpoints, tmp_path, monkeypatch, capsys, value):
    sd = StableDiffusion.load(checkpoints["sd"])
    bias = sd.vae.decoder.conv_out.bias
    monkeypatch.setattr(bias, "data", torch.full_like(bias, value))
    assert (
        cli.main(
            [
                "sample",
                "--problem",
                "sd",
                "--model",
                checkpoints["sd"],
                "--prompt",
                "a",
                "--steps",
                "2",
                "--out",
                str(tmp_path / "a.png"),
            ]
        )
        == 2
    )
    error = capsys.readouterr().err
    assert "the VAE of" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "a.png").exists()
    bias = sd.vae.quant_conv.bias
    monkeypatch.setattr(bias, "data", torch.full_like(bias, value))
    with pytest.raises(ValueError, match=r"what the VAE of .* made of images has"):
        sd.encode(torch.zeros(1, 3, 16, 16))
