"""Sampling checkpoints in the layouts of the published ones; diffusers' pipelines are the oracles."""

import diffusers
import parity
import pytest
import real_layouts
import tiny_sd

from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    """Folders by layout, with diffusers' own pipelines of them."""
    tiny_sd.silent()
    folders = {
        name: real_layouts.save(tmp_path_factory.mktemp("layouts") / name, name)
        for name in ("sd15", "sd21", "zsnr", "sdxl", "sdxl-turbo")
    }
    return {name: (folder, real_layouts.pipeline(folder)) for name, folder in folders.items()}


# ---- what a scheduler's JSON says, and does not say


@pytest.mark.parametrize(
    ("name", "solver", "spacing", "steps"),
    [
        ("sd15", "ddim", "trailing", 4),
        ("sd15", "ddim", "leading", 4),
        ("sd15", "dpm++2m", "linspace", 4),
        ("sd15", "dpm++2m", "trailing", 1),
        ("sd15", "unipc2", "leading", 4),
        ("sd15", "heun", "trailing", 4),
        ("sd15", "lcm", "lcm", 4),
        ("zsnr", "dpm++2m", "leading", 4),
        ("zsnr", "ddim", "trailing", 1),
        ("sdxl", "unipc2", "trailing", 4),
        ("sdxl", "heun", "linspace", 4),
    ],
)
def test_the_latents_of_diffusers_on_published_layouts(layouts, name, solver, spacing, steps):
    found = parity.compare(*layouts[name], solver, spacing, steps)
    assert found.same, found


@pytest.mark.parametrize(
    ("name", "solver", "spacing", "steps", "scheduler"),
    [
        ("sdxl", "ddim", "leading", 4, "EulerDiscreteScheduler"),  # its own
        ("sdxl", "ddim", "trailing", 4, "DDIMScheduler"),
        ("sd15", "ddim", "linspace", 8, "EulerDiscreteScheduler"),
        ("sd21", "ddim", "trailing", 4, "EulerDiscreteScheduler"),
        ("zsnr", "ddim", "trailing", 4, "EulerDiscreteScheduler"),
        ("sdxl-turbo", "ddpm", "trailing", 1, "EulerAncestralDiscreteScheduler"),  # its own
        ("sdxl-turbo", "ddpm", "trailing", 4, "EulerAncestralDiscreteScheduler"),
        ("sd15", "ddpm", "leading", 4, "EulerAncestralDiscreteScheduler"),
        ("sd21", "ddpm", "linspace", 4, "EulerAncestralDiscreteScheduler"),
        ("sd15", "tcd", "lcm", 4, "TCDScheduler"),
        ("sd21", "tcd", "lcm", 8, "TCDScheduler"),
        ("sdxl", "tcd", "lcm", 1, "TCDScheduler"),
        ("sdxl-turbo", "tcd", "lcm", 4, "TCDScheduler"),
        ("sd15", "plms", "leading", 1, "PNDMScheduler"),  # its own
        ("sd15", "plms", "leading", 8, "PNDMScheduler"),
        ("sd21", "plms", "trailing", 4, "PNDMScheduler"),
        ("sdxl", "plms", "leading", 4, "PNDMScheduler"),
        ("sd15", "deis2", "trailing", 1, "DEISMultistepScheduler"),
        ("sd15", "deis2", "leading", 8, "DEISMultistepScheduler"),
        ("sd21", "deis2", "linspace", 4, "DEISMultistepScheduler"),
        ("sdxl-turbo", "deis2", "trailing", 4, "DEISMultistepScheduler"),
    ],
)
def test_the_scheduler_of_a_checkpoint_or_another_one(layouts, name, solver, spacing, steps, scheduler):
    found = parity.compare(*layouts[name], solver, spacing, steps, scheduler)
    assert found.same, found


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_the_eta_of_tcd(layouts, eta):
    folder, pipe = layouts["sd21"]
    settings = {"steps": 4, "grid": "lcm", "guidance_scale": 3.0, "size": 64, "decode": False}
    ours = sample_images(StableDiffusion.load(folder), "a cat", solver=f"tcd:eta={eta}", **settings).latents
    assert float((ours - parity.theirs(pipe, "TCDScheduler", "lcm", 4, eta=eta)).abs().max()) < 1e-4


def test_euler_has_no_eta(layouts):
    folder, pipe = layouts["sdxl"]
    assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
    settings = {"steps": 4, "grid": "leading", "guidance_scale": 3.0, "size": 64, "decode": False}
    ours = sample_images(StableDiffusion.load(folder), "a cat", solver="ddim:eta=0.5", **settings).latents
    want = parity.theirs(pipe, "DDIMScheduler", "leading", 4, eta=0.5)
    assert float((ours - want).abs().max()) < 1e-4


def test_a_spacing_is_that_of_the_run_whatever_the_configuration_lacks(layouts):
    folder, pipe = layouts["sd15"]
    assert "timestep_spacing" in pipe.scheduler.config["_use_default_values"]
    checkpoint = StableDiffusion.load(folder)
    ends = [
        sample_images(checkpoint, "a cat", steps=4, solver="dpm++2m", grid=spacing, size=64, decode=False).latents
        for spacing in parity.SPACINGS
    ]
    assert all(float((a - b).abs().max()) > 0.1 for a, b in ((ends[0], ends[1]), (ends[1], ends[2])))
    with pytest.raises(ValueError, match="goes down by 250 timesteps a step"):
        sample_images(checkpoint, "a cat", steps=4, solver="ddim", grid="linspace", size=64)


KARRAS = {
    "use_karras_sigmas": True,
    "algorithm_type": "sde-dpmsolver++",
    "solver_order": 3,
    "final_sigmas_type": "sigma_min",
    "euler_at_final": True,
    "solver_type": "heun",
}


@pytest.mark.parametrize(("solver", "spacing"), [("lcm", "lcm"), ("ddim", "trailing")])
def test_settings_of_other_schedulers_refuse_nothing(layouts, monkeypatch, solver, spacing):
    folder, pipe = layouts["sd15"]
    checkpoint = StableDiffusion.load(folder)
    karras = diffusers.DPMSolverMultistepScheduler.from_config(checkpoint.pipe.scheduler.config, **KARRAS)
    monkeypatch.setattr(checkpoint.pipe, "scheduler", karras)
    monkeypatch.setattr(pipe, "scheduler", karras)
    found = parity.compare(folder, pipe, solver, spacing, 4)
    assert found.same, found
    with pytest.raises(ValueError, match="asks DPMSolverMultistepScheduler for "):
        sample_images(checkpoint, "a cat", steps=4, solver="dpm++2m", grid="trailing", size=64)
    with pytest.raises(ValueError, match="asks HeunDiscreteScheduler for use_karras_sigmas"):
        sample_images(checkpoint, "a cat", steps=4, solver="heun", grid="trailing", size=64)


def test_settings_that_contradict_one_another_are_one_line(layouts, monkeypatch):
    checkpoint = StableDiffusion.load(layouts["sd15"][0])
    both = {**checkpoint.pipe.scheduler.config, "use_karras_sigmas": True, "use_exponential_sigmas": True}
    monkeypatch.setattr(checkpoint.pipe.scheduler, "_internal_dict", diffusers.configuration_utils.FrozenDict(both))
    with pytest.raises(ValueError, match=r"^HeunDiscreteScheduler cannot make 4 steps: [^\n]*$"):
        sample_images(checkpoint, "a cat", steps=4, solver="heun", grid="trailing", size=64)


def test_the_scaling_of_lcms_boundary_is_the_configurations(layouts, monkeypatch):
    folder, pipe = layouts["sd15"]
    checkpoint = StableDiffusion.load(folder)
    scaled = diffusers.LCMScheduler.from_config(pipe.scheduler.config, timestep_scaling=1e-3)
    for one in (checkpoint.pipe, pipe):
        monkeypatch.setattr(one, "scheduler", scaled)
    found = parity.compare(folder, pipe, "lcm", "lcm", 4)
    assert found.same, found


def test_settings_without_effect_refuse_nothing(layouts, monkeypatch):
    folder, pipe = layouts["sd15"]
    checkpoint = StableDiffusion.load(folder)
    same = {"euler_at_final": True, "thresholding": None}
    scheduler = diffusers.DPMSolverMultistepScheduler.from_config(pipe.scheduler.config, **same)
    for one in (checkpoint.pipe, pipe):
        monkeypatch.setattr(one, "scheduler", scheduler)
    for steps in (4, 16):
        found = parity.compare(folder, pipe, "dpm++2m", "trailing", steps)
        assert found.same, found
