"""Students of published layouts: the exported scheduler is the student's alone, and the printed Python runs."""

import json
import resource
import shutil

import pytest
import real_layouts
import tiny_sd
import torch
from diffusers import DPMSolverMultistepScheduler, StableDiffusionPipeline

from toydiff.adapters import export as room
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.export import export, scheduler_of
from toydiff.adapters.sampling import sample_images
from toydiff.problems.stable_diffusion import StableDiffusionProblem

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
]
KARRAS = {
    "use_karras_sigmas": True,
    "algorithm_type": "sde-dpmsolver++",
    "solver_order": 3,
    "final_sigmas_type": "sigma_min",
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "thresholding": True,
    "euler_at_final": True,
    "lower_order_final": False,
}


@pytest.fixture(scope="module")
def layouts(tmp_path_factory):
    tiny_sd.silent()
    folder = tmp_path_factory.mktemp("layouts")
    return {name: real_layouts.save(folder / name, name) for name in ("sd15", "sd21")}


def student(folder, kind=None, **settings):
    """A student whose LoRA does something, as training leaves it."""
    on = StableDiffusionProblem(StableDiffusion.load(folder, **settings), size=64, rank=2)
    D = on.student(kind=on.checkpoint.kind if kind is None else kind).eval()
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, p in D.named_parameters():
            if "lora_B" in name:
                p.copy_(0.2 * torch.randn(p.shape, generator=rng))
    return on.checkpoint, D


def about(solver="ddim", steps=4):
    return {"method": "pcm", "sampler": {"solver": solver, "grid": "uniform", "steps": [1, steps]}}


def run(code):
    """The printed Python, with a seed, for a latent of 64 pixels."""
    *lines, last = code.splitlines()
    last = last.replace(".images[0]", ".images").replace(
        "guidance_scale=",
        'generator=torch.Generator().manual_seed(3), output_type="latent", height=64, width=64, guidance_scale=',
    )
    found = {"torch": torch}
    exec("\n".join([*lines, "pipe.set_progress_bar_config(disable=True)", last]), found)
    return found["image"]


def same_there(checkpoint, D, made, solver, steps):
    """The image of the printed Python is ours."""
    grid = "trailing" if solver == "dpm++2m" else "uniform"
    ours = sample_images(
        checkpoint,
        "a photograph of an astronaut riding a horse",
        denoiser=D,
        steps=steps,
        solver=solver,
        grid=grid,
        guidance_scale=1.0,
        rounded=True,
        seed=3,
        size=64,
        decode=False,
    ).latents
    theirs = run(made.code)
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1, float(theirs.abs().max()))


@pytest.mark.parametrize(("name", "solver"), [("sd15", "ddim"), ("sd21", "lcm"), ("sd15", "dpm++2m")])
def test_a_student_of_a_published_layout(layouts, tmp_path, name, solver):
    checkpoint, D = student(layouts[name])
    made = export(D, about(solver), tmp_path / "student")
    config = json.loads((tmp_path / "student" / "scheduler" / "scheduler_config.json").read_text())
    assert config["prediction_type"] == {"sd15": "epsilon", "sd21": "v_prediction"}[name]
    assert config["timestep_spacing"] == "trailing"
    same_there(checkpoint, D, made, solver, 4)


def test_the_kind_is_the_students(layouts):
    _, D = student(layouts["sd15"], kind="v")
    assert {scheduler_of(D, solver, (4,)).config.prediction_type for solver in room.SCHEDULERS} == {"v_prediction"}


@pytest.mark.parametrize("solver", ["ddim", "lcm", "dpm++2m"])
def test_nothing_of_the_bases_sampler_is_left(layouts, monkeypatch, solver):
    checkpoint, D = student(layouts["sd15"])
    plain = scheduler_of(D, solver, (4,)).config
    base = DPMSolverMultistepScheduler.from_config(checkpoint.pipe.scheduler.config, **KARRAS)
    monkeypatch.setattr(checkpoint.pipe, "scheduler", base)
    left = {key for key, value in scheduler_of(D, solver, (4,)).config.items() if value != plain[key]}
    assert left <= {"_use_default_values"}


def test_levels_that_no_scheduler_has_are_refused(layouts, monkeypatch):
    checkpoint, D = student(layouts["sd15"])
    base = DPMSolverMultistepScheduler.from_config(checkpoint.pipe.scheduler.config, beta_end=0.02)
    monkeypatch.setattr(checkpoint.pipe, "scheduler", base)
    with pytest.raises(ValueError, match="cannot have the noise levels of"):
        scheduler_of(D, "ddim", (4,))


def test_a_base_in_half_precision_and_a_path_with_quotes(layouts, tmp_path):
    folder = tmp_path / 'half "quoted" it\'s\n```'
    pipe = StableDiffusionPipeline.from_pretrained(layouts["sd15"], safety_checker=None, feature_extractor=None)
    pipe.to(torch.float16).save_pretrained(folder, variant="fp16")
    assert not (folder / "unet" / "diffusion_pytorch_model.safetensors").exists()
    checkpoint, D = student(folder)
    made = export(D, about(), folder / "student")
    assert "variant='fp16', torch_dtype=torch.float32" in made.code
    same_there(checkpoint, D, made, "ddim", 4)
    page = (folder / "student" / "README.md").read_text()
    assert page.splitlines()[0].startswith("# pcm on ")
    assert page.split("\n````python\n")[1].split("\n````\n")[0] + "\n" == made.code


def test_a_single_file_leaves_as_well(checkpoints, tmp_path):
    file = tiny_sd.single_file(checkpoints["sd"], tmp_path / "it's one.safetensors")
    checkpoint, D = student(file, config=checkpoints["sd"])
    same_there(checkpoint, D, export(D, about(), tmp_path / "student"), "ddim", 4)


@pytest.mark.parametrize("whole", [False, True])
def test_a_disk_without_space(layouts, tmp_path, whole):
    _, D = student(layouts["sd15"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(
            ValueError, match=r"the student cannot be written into .*new/student': .*File too large"
        ) as error:
            export(D, about(), tmp_path / "new" / "student", whole=whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
    (tmp_path / "there").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(ValueError, match="cannot be written"):
            export(D, about(), tmp_path / "there", whole=whole)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.rglob("*")] == ["there"]
    shutil.rmtree(tmp_path / "there")
