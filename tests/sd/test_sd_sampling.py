"""Stable Diffusion checkpoints through the adapter: diffusers' pipelines, an exact mixture and the sequential walk are
the oracles.
"""

import diffusers
import pytest
import tiny_sd
import torch
from cases import R2
from diffusers import DiffusionPipeline, UNet2DConditionModel

from toydiff import reference, solve
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.sampling import sample_images
from toydiff.adapters.schedulers import COMPARABLE, like_scheduler
from toydiff.measure import fitted_order
from toydiff.solvers.registry import SOLVERS
from toydiff.studies.orders import WINDOW

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
PROMPTS = tiny_sd.PROMPTS[:2]
SIDES = {
    "ddim": "DDIMScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "unipc2": "UniPCMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
}


@pytest.fixture(scope="module")
def pipes(checkpoints):
    made = {}
    for kind, folder in checkpoints.items():
        made[kind] = DiffusionPipeline.from_pretrained(folder)
        made[kind].set_progress_bar_config(disable=True)
    return made


def theirs(pipe, scheduler, spacing, steps, seed, output="latent", guidance_scale=3.0, **options):
    """Their pipeline's own result."""
    own = {} if spacing == "lcm" else {"timestep_spacing": spacing}
    before = pipe.scheduler
    try:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(before.config, **own)
        n = len(PROMPTS) * options.get("num_images_per_prompt", 1)
        rng = [torch.Generator().manual_seed(seed + k) for k in range(n)]
        return pipe(
            PROMPTS,
            num_inference_steps=steps,
            generator=rng,
            output_type=output,
            guidance_scale=guidance_scale,
            **options,
        ).images
    finally:
        pipe.scheduler = before


def same(ours, other, tolerance=1e-4):
    """Equal to 1e-4, or, of latents far beyond the size that those of a trained model have, to 3e-6 of it: float32 has
    seven digits.
    """
    size = float(other.abs().max())
    gap = float((ours - other).abs().max())
    assert gap <= max(tolerance, 3e-6 * size), f"differ by {gap:.1e}, of size {size:.0f}"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "solver", "steps"),
    [
        *((kind, solver, 4) for kind in tiny_sd.KINDS for solver in SIDES),
        *(("sd", solver, 1) for solver in SIDES),
        *zip(("sd", "xl", "sd-v", "xl", "sd-v"), SIDES, (50, 20, 20, 10, 20), strict=True),
    ],
)
def test_the_same_latents_and_images_as_diffusers(checkpoints, pipes, kind, solver, steps):
    spacing = "lcm" if solver == "lcm" else "trailing"
    checkpoint = StableDiffusion.load(checkpoints[kind])
    ours = sample_images(checkpoint, PROMPTS, steps=steps, solver=solver, grid=spacing, guidance_scale=3.0, seed=5)
    want = theirs(pipes[kind], SIDES[solver], spacing, steps, 5)
    same(ours.latents, want)
    with torch.no_grad():
        images = pipes[kind].vae.decode(want / pipes[kind].vae.config.scaling_factor, return_dict=False)[0]
    images = pipes[kind].image_processor.postprocess(images, output_type="np")
    assert abs(ours.images.permute(0, 2, 3, 1).numpy() - images).max() <= 1 / 255
    calls = {"heun": 2 * steps - 1}.get(solver, steps)
    assert ours.trajectory.nfe == 2 * calls
    assert ours.trajectory.rounds == calls


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["leading", "linspace"])
@pytest.mark.parametrize("solver", ["ddim", "dpm++2m", "unipc2", "heun"])
def test_every_spacing_of_their_schedulers(checkpoints, pipes, spacing, solver):
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    if solver == "ddim" and spacing == "linspace":
        with pytest.raises(ValueError, match=r"goes down by 142 timesteps a step"):
            sample_images(checkpoint, PROMPTS, steps=7, solver=solver, grid=spacing)
        return
    ours = sample_images(checkpoint, PROMPTS, steps=7, solver=solver, grid=spacing, guidance_scale=3.0, seed=1)
    same(ours.latents, theirs(pipes["sd"], SIDES[solver], spacing, 7, 1))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "guidance_scale"), [("sd", 1.0), ("sd", 4.0), ("sd-v", 4.0), ("xl", 4.0)])
def test_a_negative_prompt_and_no_guidance(checkpoints, pipes, kind, guidance_scale):
    checkpoint = StableDiffusion.load(checkpoints[kind])
    settings = {"guidance_scale": guidance_scale, "negative_prompt": None if guidance_scale == 1 else "ugly"}
    ours = sample_images(checkpoint, PROMPTS, steps=4, grid="trailing", seed=2, **settings)
    want = theirs(
        pipes[kind], SIDES["dpm++2m"], "trailing", 4, 2, guidance_scale=guidance_scale, negative_prompt=["ugly"] * 2
    )
    same(ours.latents, want)
    assert ours.trajectory.nfe == (4 if guidance_scale == 1 else 8)
    without = sample_images(checkpoint, PROMPTS, steps=4, grid="trailing", seed=2, guidance_scale=guidance_scale)
    assert torch.equal(without.latents, ours.latents) == (guidance_scale == 1)


def test_images_of_a_prompt_and_another_size(checkpoints, pipes):
    checkpoint = StableDiffusion.load(checkpoints["xl"])
    ours = sample_images(
        checkpoint, PROMPTS, each=2, steps=3, grid="leading", size=(16, 24), guidance_scale=2.0, seed=3
    )
    want = theirs(
        pipes["xl"], SIDES["dpm++2m"], "leading", 3, 3, "np", 2.0, num_images_per_prompt=2, height=16, width=24
    )
    assert ours.images.shape == (4, 3, 16, 24)
    assert abs(ours.images.permute(0, 2, 3, 1).numpy() - want).max() <= 1 / 255


def test_the_batch_changes_nothing(checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["sd-v"])
    whole = sample_images(checkpoint, PROMPTS, each=3, steps=3, seed=1)
    parts = sample_images(checkpoint, PROMPTS, each=3, steps=3, seed=1, at_once=2)
    same(parts.latents, whole.latents)
    assert parts.trajectory.xs.shape == (1, 6, 4, 8, 8)


def test_whole_timesteps_differ_from_fractions_and_are_whole(checkpoints):
    checkpoint = StableDiffusion.load(checkpoints["sd-v"])
    timesteps = []
    hook = checkpoint.network.register_forward_pre_hook(
        lambda module, args, named: timesteps.append(named["timestep"]), with_kwargs=True
    )
    try:
        for rounded in (False, True):
            sample_images(checkpoint, PROMPTS, steps=5, grid="lambda", rounded=rounded, decode=False)
    finally:
        hook.remove()
    fractions, whole = torch.stack(timesteps[:5]), torch.stack(timesteps[5:])
    assert torch.equal(whole, whole.round())
    assert not torch.equal(fractions, fractions.round())
    assert float((whole - fractions).abs().max()) < 1
    with pytest.raises(ValueError, match="the same whole timestep twice"):
        sample_images(checkpoint, PROMPTS, steps=900, grid="lambda", rounded=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "solver"),
    [
        ("sd", "picard:tolerance=none"),
        ("sd", "parareal:tolerance=none"),
        ("sd-v", "picard:window=5,tolerance=1e-5"),
        ("sd-v", "anderson:tolerance=1e-6"),
    ],
)
def test_parallel_samplers_are_the_sequential_walk(checkpoints, kind, solver):
    checkpoint = StableDiffusion.load(checkpoints[kind])
    largest = []
    hook = checkpoint.network.register_forward_pre_hook(
        lambda module, args, named: largest.append(len(named["sample"])), with_kwargs=True
    )
    settings = {"steps": 12, "guidance_scale": 3.0, "seed": 4, "decode": False, "grid": "uniform"}
    try:
        walk = sample_images(checkpoint, PROMPTS, solver="ddim", **settings)
        largest.clear()
        swept = sample_images(checkpoint, PROMPTS, solver=solver, at_once=6, **settings)
    finally:
        hook.remove()
    same(swept.latents, walk.latents)
    assert max(largest) == 12  # 6 states, with and without the prompt
    assert walk.trajectory.rounds == 12
    assert 1 < swept.trajectory.rounds <= 30
    assert swept.trajectory.nfe >= walk.trajectory.nfe


def test_a_solver_without_a_scheduler_has_no_spacing(checkpoints):
    D = StableDiffusion.load(checkpoints["sd"]).denoiser()
    checkpoint = D.net.checkpoint
    with pytest.raises(ValueError, match="none is known that does what ab3 does"):
        like_scheduler(checkpoint, D, "ab3", 4, "trailing")
    with pytest.raises(ValueError, match="the spacing of LCMScheduler is lcm"):
        like_scheduler(checkpoint, D, "lcm", 4, "trailing")
    with pytest.raises(ValueError, match="cannot make 51 steps"):
        like_scheduler(checkpoint, D, "lcm", 51, "lcm")
    words = {
        word for entry in SOLVERS.values() for word in entry.elsewhere.get("diffusers", "").replace(",", "").split()
    }
    assert set(SIDES.items()) <= {(solver, scheduler) for scheduler, solver in COMPARABLE.items()}
    assert set(COMPARABLE) <= words
    assert set(COMPARABLE.values()) <= set(SOLVERS)


@pytest.mark.parametrize(
    ("solver", "setting"),
    [
        ("ddim", {"clip_sample": True}),
        ("ddim", {"thresholding": True}),
        ("dpm++2m", {"algorithm_type": "sde-dpmsolver++"}),
        ("dpm++2m", {"solver_order": 3}),
        ("dpm++2m", {"solver_type": "heun"}),
        ("dpm++2m", {"final_sigmas_type": "sigma_min"}),
        ("unipc2", {"disable_corrector": [0]}),
        ("heun", {"use_karras_sigmas": True}),
    ],
)
def test_settings_that_make_another_sampler_are_refused(checkpoints, monkeypatch, solver, setting):
    checkpoint = StableDiffusion.load(checkpoints["sd"])
    scheduler = getattr(diffusers, SIDES[solver]).from_config({**checkpoint.pipe.scheduler.config, **setting})
    monkeypatch.setattr(checkpoint.pipe, "scheduler", scheduler)
    with pytest.raises(ValueError, match=f"asks {SIDES[solver]} for {next(iter(setting))} = "):
        sample_images(checkpoint, PROMPTS, steps=4, solver=solver, grid="trailing")
    assert sample_images(checkpoint, PROMPTS, steps=2, solver=solver, grid="uniform", decode=False).trajectory.nfe


# ---- an exact model behind the interface


class ExactUNet(UNet2DConditionModel):
    """A mixture's exact prediction as a UNet of diffusers: every pixel of a latent is two independent points of the
    plane. Whole timesteps or not.
    """

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=False):
        D = R2.denoiser(self.table)
        x = sample.double().permute(0, 2, 3, 1).reshape(-1, 2)
        t = (timestep.double() + 1) / 1000
        eps = D(x, t.repeat_interleave(len(x) // len(t))).eps
        batch, channels, height, width = sample.shape
        return (eps.reshape(batch, height, width, channels).permute(0, 3, 1, 2).to(sample.dtype),)


@pytest.fixture(scope="module")
def exact(tmp_path_factory):
    """A checkpoint whose UNet is exact, in float64, and its model; starts at the noisy end of a window, and where they
    go.
    """
    pipe = tiny_sd.pipeline(tmp_path_factory.mktemp("exact"))
    pipe.unet = ExactUNet.from_config(pipe.unet.config).double()
    checkpoint = StableDiffusion(pipe, {"model": "exact"})
    S = pipe.unet.table = checkpoint.schedule  # the scheduler's own, which is of float32 numbers
    ends = S.t_of_lam(torch.tensor(WINDOW, dtype=torch.float64))
    x = R2.marginal(S, ends[0]).sample(64, 0, dtype=torch.float64).reshape(1, 8, 4, 4).permute(0, 3, 1, 2).contiguous()
    x = torch.cat([x, x.roll(1, 2)], 3)
    flat = x.permute(0, 2, 3, 1).reshape(-1, 2)
    end = reference(R2.denoiser(S), flat, float(ends[0]), float(ends[1]))
    return checkpoint, x, end


def through_the_adapter(exact, solver, steps, rounded=False):
    """The largest error of a solver at the end of the window, over steps that are even in lambda."""
    checkpoint, x, end = exact
    lams = torch.linspace(*WINDOW, steps + 1, dtype=torch.float64)
    D = checkpoint.denoiser(rounded=rounded)
    path = solve(D, x, ts=checkpoint.schedule.t_of_lam(lams), solver=solver, keep="end")
    return float((path.end.permute(0, 2, 3, 1).reshape(-1, 2) - end).abs().max())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("solver", "order"),
    [
        ("ddim", 1),
        ("heun", 2),
        ("dpm2", 2),
        ("dpm++2m", 2),
        ("dpm3", 3),
        ("dpm++3m", 3),
        ("unipc2", 3),
        ("deis3", 3),
        ("ab3", 3),
    ],
)
def test_orders_hold_through_the_adapter(exact, solver, order):
    steps = (40, 80, 160)
    assert SOLVERS[solver].solver.order == order
    errors = [through_the_adapter(exact, solver, N) for N in steps]
    assert fitted_order(steps, errors) > order - 0.2, errors


@pytest.mark.slow
def test_whole_timesteps_lose_the_order(exact):
    errors = [through_the_adapter(exact, "dpm3", N, rounded=True) for N in (40, 80, 160)]
    assert min(errors) > 1e-5, errors
    assert fitted_order((40, 80, 160), errors) < 2, errors
    assert through_the_adapter(exact, "dpm3", 160) < 1e-6
