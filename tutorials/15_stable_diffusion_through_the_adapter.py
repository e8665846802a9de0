# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 15 · Stable Diffusion through the adapter
#
# The deck's tables (slides 29 to 31) are about latents of 64 × 64 × 4 and a UNet of 860 million weights; so far we had
# points and digits. The claim behind them: the *same* mathematics carries over.
#
# **In this lesson (25 minutes)** a checkpoint becomes a `Denoiser`, is compared with diffusers image by image, broken
# twice, distilled, and handed back. Needed: 03, 05, 08.

# %%
# %matplotlib inline
import warnings

warnings.filterwarnings("ignore", message="IProgress not found")  # of a bar that nothing here shows
try:
    import diffusers

    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library with its extra first: in a clone `pip install -e '.[sd]' -c constraints.txt`; in Colab "
        "clone it, then `%pip install './toydiff[sd]'`"
    ) from missing

import os
import tempfile

import matplotlib.pyplot as plt
import torch
from diffusers import DiffusionPipeline, UNet2DConditionModel
from IPython.display import Markdown, display

from toydiff import runs
from toydiff.adapters import tiny
from toydiff.adapters.checkpoint import StableDiffusion
from toydiff.adapters.export import export
from toydiff.adapters.reading import quietly
from toydiff.adapters.sampling import sample_images
from toydiff.studies.orders import WINDOW
from toydiff.problems.pairs import Recipe, make_pairs
from toydiff.measure import fitted_order
from toydiff.plots import static, style
from toydiff.problems import problem
from toydiff.solvers.registry import SOLVERS

# %%
SEED = 0
UPDATES = 150  # of the distillation

diffusers.logging.set_verbosity_error()
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

work = tempfile.TemporaryDirectory()
MODEL = os.environ.get("TOYDIFF_SD_MODEL") or tiny.save(f"{work.name}/tiny", "sd", seed=SEED)
PROMPTS = ["a photograph of a red fox", "a lighthouse by the sea"]

# %% [markdown]
# The cells run on a **tiny checkpoint of random weights**, made above in diffusers' layout. Its images are noise, so we
# look at *numbers* whose truth is known. Put the folder of a real checkpoint into `TOYDIFF_SD_MODEL`, and the same
# cells make real images.
#
# ## 1 · What a checkpoint says of itself
#
# The table of $\bar\alpha_k=\alpha_k^2$ at timesteps $k=0\dots K-1$, and the `prediction_type`: a schedule and a kind,
# and with the UNet a denoiser.

# %% [markdown]
# **Why is that all?** Lesson 00's ODE is $dz/dn=\hat\varepsilon$ with $z=x_t/\alpha_t$, $n=\sigma_t/\alpha_t$. It asks
# for $\alpha$, $\sigma$ and $\hat\varepsilon$, and for nothing else: not what $x$ shows, nor which network answers. So
# the adapter is three lines:
#
# ```
# k   = K t(lambda) - 1              the table's time, a fraction too
# out = unet(x, k, text(prompt))     eps, v or x_0
# eps = out,  or sigma x + alpha out,  or (x - alpha out)/sigma
# ```
#
# Theirs, and what it is here:

# %% [markdown]
# | theirs (diffusers) | ours |
# |---|---|
# | timestep $k=0\dots K-1$ | $t=(k+1)/K$; the UNet is told $k$, a fraction too |
# | `alphas_cumprod`, $\bar\alpha_k$ | $\alpha_t=\sqrt{\bar\alpha_k}$, $\sigma_t=\sqrt{1-\bar\alpha_k}$ |
# | `prediction_type` epsilon, v_prediction, sample | kind eps, v, x0 |
# | prompt; empty or negative prompt | `cond`; no class, $\varnothing$ |
# | `guidance_scale` $g$ | the same $g$; the papers' $\omega$ is $g-1$ |
# | VAE, `scaling_factor` $s$ | $x=s\cdot$ latent, of about unit spread; $x/s$ is decoded at the end |

# %% [markdown]
# House notation: $t=1$ noise, $t=0$ data; timestep $k$ of $K=1000$ is $t=(k+1)/K$. (Lesson 04 counted the same steps
# from 1.) The UNet is told $k$, our models $\lambda=\log(\alpha/\sigma)$: the adapter looks up where the table has that
# $\lambda$.
#
# **Predict before you run.** Eight steps on four grids: at which timesteps is the UNet evaluated? At whole ones?

# %%
checkpoint = StableDiffusion.load(MODEL)
D = checkpoint.denoiser()
print(checkpoint.kind, checkpoint.schedule, f"{checkpoint.resolution[0]} px, latents {checkpoint.latent_shape()}")
print(
    f"alpha(1) = {float(checkpoint.schedule.alpha(torch.tensor(1.0))):.4f}: the noisiest state still holds a little "
    "of the image"
)

evaluated = {}
hook = checkpoint.network.register_forward_pre_hook(
    lambda module, args, given: evaluated.setdefault("timesteps", []).append(float(given["timestep"][0])),
    with_kwargs=True,
)
figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
for row, grid in enumerate(("uniform", "lambda", "karras", "leading")):
    evaluated.clear()
    sample_images(checkpoint, PROMPTS[0], steps=8, grid=grid, decode=False)
    axis.plot(evaluated["timesteps"], [row] * 8, "o", color=style.PATH_COLORS[row], ms=8)
hook.remove()
axis.set(
    xlabel="timestep that the UNet is evaluated at",
    yticks=range(4),
    yticklabels=["uniform", "lambda", "karras", "leading\n(diffusers')"],
    ylim=(-0.5, 3.5),
    xlim=(1020, -20),
)
axis.set_title("Eight steps on four grids: only the times differ")
plt.show()

# %% [markdown]
# At *fractions* of a timestep, unless the grid is one of diffusers' own. "leading" starts late (lesson 04).
#
# ## 2 · The same picture as diffusers'
#
# A grid that is named as one of diffusers' spacings is that scheduler down to its details: where it ends, how the noise
# is scaled. Same seed, same prompt, same guidance:

# %%
with quietly():
    pipe = DiffusionPipeline.from_pretrained(MODEL, safety_checker=None)
pipe.set_progress_bar_config(disable=True)
rows = {
    "ddim": "DDIMScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "unipc2": "UniPCMultistepScheduler",
    "heun": "HeunDiscreteScheduler",
    "lcm": "LCMScheduler",
}
config, gaps, shown = pipe.scheduler.config, {}, {}
for solver, name in rows.items():
    spacing = "lcm" if solver == "lcm" else "trailing"
    own = {} if solver == "lcm" else {"timestep_spacing": spacing}
    with quietly():
        pipe.scheduler = getattr(diffusers, name).from_config(config, **own)
    theirs = pipe(
        PROMPTS,
        num_inference_steps=10,
        guidance_scale=3.0,
        generator=[torch.Generator().manual_seed(SEED + k) for k in range(len(PROMPTS))],
        output_type="pt",
    ).images
    ours = sample_images(checkpoint, PROMPTS, steps=10, solver=solver, grid=spacing, guidance_scale=3.0, seed=SEED)
    gaps[solver], shown[solver] = float((ours.images - theirs).abs().max()), (ours.images[0], theirs[0])
    assert gaps[solver] <= 1 / 255
figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
for column, (solver, pictures) in enumerate(shown.items()):
    for axis, picture in zip(axes[:, column], pictures, strict=True):
        axis.imshow(picture.permute(1, 2, 0))
        axis.set(xticks=[], yticks=[])
    axes[0, column].set_title(solver, color=SOLVERS[solver].color, fontweight="bold")
    axes[1, column].set_xlabel(f"largest difference\n{gaps[solver]:.0e}", fontsize=10)
axes[0, 0].set_ylabel("toydiff")
axes[1, 0].set_ylabel("diffusers")
plt.show()
key["all five are diffusers' images, to 1/255"] = float(max(gaps.values()) <= 1 / 255)

# %% [markdown]
# The five pictures look alike, as a random network's ODE is nearly straight (section 5). The numbers are the check.
#
# **Break it.** Could it fail? Take the same UNet's output as $v$, where it is an $\hat\varepsilon$: one word of the
# configuration. And guide with $\omega=3$ in place of $g=3$.

# %%
settings = {"steps": 10, "solver": "ddim", "grid": "trailing", "seed": SEED}
right = sample_images(checkpoint, PROMPTS, guidance_scale=3.0, **settings).images
wrong_kind = checkpoint.denoiser()
wrong_kind.kind = "v"
controls = {
    "v for eps": sample_images(checkpoint, PROMPTS, guidance_scale=3.0, denoiser=wrong_kind, **settings).images,
    "omega for g": sample_images(checkpoint, PROMPTS, guidance_scale=1 + 3.0, **settings).images,
}
for name, images in controls.items():
    apart = float((images - right).abs().max())
    print(f"{name}: largest difference {apart:.2f}, {255 * apart:.0f} of 255 grey levels")
    assert apart > 2 / 255

# %% [markdown]
# ## 3 · Whole timesteps lose the order
#
# A UNet was trained at whole timesteps, and most code rounds to them. Then a solver's noise levels and the model's
# disagree a little. To see what that costs, the model must be *exact*: here is a mixture behind the interface of
# diffusers' UNet, every pixel of its latents two points of the plane.

# %% [markdown]
# **Predict before you run.** DPM-Solver-3, third order, on lesson 03's window. From 10 to 160 steps, what becomes of
# the error, with fractions and with whole timesteps?


# %%
class ExactUNet(UNet2DConditionModel):
    """A mixture's exact eps at any timestep, whole or not."""

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=False):
        x = sample.double().permute(0, 2, 3, 1).reshape(-1, 2)
        t = (timestep.double() + 1) / 1000
        eps = mixture.denoiser(self.table)(x, t.repeat_interleave(len(x) // len(t))).eps
        return (eps.reshape(sample.permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2).to(sample.dtype),)


mixture = td.mixtures.random_mixture(3)
exact_pipe = tiny.pipeline(f"{work.name}/exact")
exact_pipe.unet = ExactUNet.from_config(exact_pipe.unet.config).double()
exact = StableDiffusion(exact_pipe, {"model": "an exact mixture"})
exact_pipe.unet.table = schedule = exact.schedule
ends = schedule.t_of_lam(torch.tensor(WINDOW, dtype=torch.float64))
start = mixture.marginal(schedule, ends[0]).sample(128, SEED, dtype=torch.float64)
truth = td.reference(mixture.denoiser(schedule), start, float(ends[0]), float(ends[1]))
latents = start.reshape(1, 8, 8, 4).permute(0, 3, 1, 2).contiguous()
counts, errors = [10, 20, 40, 80, 160], {}
for rounded in (False, True):
    for N in counts:
        ts = schedule.t_of_lam(torch.linspace(*WINDOW, N + 1, dtype=torch.float64))
        end = td.solve(exact.denoiser(rounded=rounded), latents, ts=ts, solver="dpm3", keep="end").end
        errors.setdefault(rounded, []).append(float((end.permute(0, 2, 3, 1).reshape(-1, 2) - truth).abs().max()))
key["order of DPM-Solver-3, fractions of timesteps"] = fitted_order(counts[2:], errors[False][2:])
key["error at 160 steps, whole timesteps"] = errors[True][-1]
figure, axis = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
axis.loglog(counts, errors[True], "v--", color=style.VERMILLION, label="whole timesteps (rounded)")
axis.loglog(
    counts,
    errors[False],
    "o-",
    color=SOLVERS["dpm3"].color,
    label="fractions: order {:.1f}".format(key["order of DPM-Solver-3, fractions of timesteps"]),
)
axis.set(xlabel="steps", ylabel="largest error", title="DPM-Solver-3 behind diffusers' interface")
axis.set_xticks(counts, [str(n) for n in counts])
axis.minorticks_off()
axis.legend()
plt.show()
assert key["order of DPM-Solver-3, fractions of timesteps"] > 2.8
assert errors[True][-1] > 100 * errors[False][-1]

# %% [markdown]
# Rounded, the error stops falling: no solver is better than its model's answers. For images of a few steps it does not
# matter; for anyone who measures an order it does. The adapter evaluates the UNet at fractions unless it is given
# `rounded=True`.

# %% [markdown]
# ## 4 · Picard on a checkpoint
#
# Lesson 05's samplers see only a denoiser. On a real checkpoint and several devices, a sweep's calls go side by side;
# `at_once` bounds how many latents are in one call.

# %%
steps, tolerance = 25, 1e-3
settings = {"steps": steps, "grid": "uniform", "guidance_scale": 3.0, "seed": SEED, "decode": False}
walk = sample_images(checkpoint, PROMPTS, solver="ddim", keep="path", **settings)
picard = sample_images(checkpoint, PROMPTS, solver=f"picard:tolerance={tolerance}", keep="path", at_once=16, **settings)
gap = picard.trajectory.errors(walk.trajectory.xs).amax(2)
size = float(walk.latents.flatten(1).norm(dim=1).max())
key["Picard's end is the walk's, to 1e-2 of its size"] = float(float(gap[-1, -1]) < 1e-2 * size)
display(
    static.sweep_errors(
        picard.trajectory,
        walk.trajectory.xs,
        title=f"{walk.trajectory.rounds} rounds become {picard.trajectory.rounds}; "
        f"{walk.trajectory.nfe} calls become {picard.trajectory.nfe}",
    )
)
assert key["Picard's end is the walk's, to 1e-2 of its size"] == 1

# %% [markdown]
# ## 5 · A distillation, by the function that trained on the ring
#
# Rectified Diffusion (lesson 08 has its loop): pairs of the teacher's ODE, its own schedule and kind, a LoRA on the
# UNet. What a random teacher draws is noise, but *where it takes each noise* is as good a target as any: how far is one
# call of the student from the teacher's 16?

# %%
on = problem(f"sd:{MODEL}", settings={"prompts": PROMPTS, "rank": 8})
pairs = make_pairs(on, on.teacher, Recipe(n=64, steps=16, solver="ddim", grid="uniform"))
held = make_pairs(on, on.teacher, Recipe(n=32, steps=16, solver="ddim", grid="uniform", seed=1))
run = runs.train(
    "rectified-diffusion",
    on,
    pairs=pairs,
    seed=SEED,
    changes={"updates": UPDATES, "batch": 16, "lr": 3e-3, "warmup": 5, "ema": 0.9},
)


def miss(model, steps):
    """Root mean square distance from where the teacher takes the noise, over the size of that."""
    x = on.schedule.sigma(torch.ones(())) * held.noise
    end = td.solve(model, x, steps, solver="ddim", grid="uniform", cond=held.cond, keep="end").end
    return float((end - held.x0).square().mean().sqrt() / held.x0.square().mean().sqrt())


before = [miss(on.teacher, N) for N in (1, 2, 4, 8)]
losses = [record.loss for record in run]
student = run.finish().denoiser
after = [miss(student, N) for N in (1, 2, 4, 8)]
trained, frozen = (sum(p.numel() for p in net.parameters()) for net in (student.net, checkpoint.network))
trained -= frozen
figure, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
axes[0].plot(losses, color=style.BLUE)
axes[0].set(xlabel="update", ylabel="loss", title=f"the loss of a LoRA of {trained:,} weights")
axes[1].set_xscale("log")
axes[1].plot((1, 2, 4, 8), before, "o--", color=style.INK, label="teacher")
axes[1].plot((1, 2, 4, 8), after, "o-", color=style.BLUE, label="Rectified Diffusion")
axes[1].set(
    xlabel="steps (NFE)",
    ylabel="relative error to the teacher's 16 steps",
    xticks=(1, 2, 4, 8),
    xticklabels=(1, 2, 4, 8),
    title="on noise that it was not trained on",
    ylim=(0, None),
)
axes[1].minorticks_off()
axes[1].legend()
plt.show()
assert after[0] < before[0]

# %% [markdown]
# One and two calls are nearer to the teacher, four about as near, eight are not: a random network's ODE is nearly
# straight by itself, so that there is little to gain, and after a few updates the student follows its 64 pairs and not
# the teacher. What matters here is that nothing in this cell knows of latents: the ring's students were made by the
# same lines.

# %% [markdown]
# ## 6 · Out of the door
#
# A student leaves as a LoRA (or a UNet) with the scheduler that samples it as it was trained. Diffusers alone, without
# this library, makes the same image:

# %%
made = export(student, run.about, f"{work.name}/student")
print(made.code.replace(work.name, "FOLDER").replace(MODEL.replace(work.name, "FOLDER"), "MODEL"))
*lines, last = made.code.splitlines()
last = last.replace(".images[0]", ".images").replace(
    "guidance_scale=", f'generator=torch.Generator().manual_seed({SEED}), output_type="pt", guidance_scale='
)
found = {"torch": torch}
with quietly():
    exec("\n".join([*lines, "pipe.set_progress_bar_config(disable=True)", last]), found)
ours = sample_images(
    checkpoint,
    "a photograph of an astronaut riding a horse",
    denoiser=student,
    steps=max(made.steps),
    solver="ddim",
    grid="uniform",
    guidance_scale=1.0,
    rounded=True,
    seed=SEED,
)
difference = float((found["image"] - ours.images).abs().max())
key["the student's image in diffusers is ours, to 1/255"] = float(difference <= 1 / 255)
print(f"{made.what}, {made.scheduler}: largest difference {difference:.0e}")

# %% [markdown]
# On a real checkpoint the same from a shell, on one GPU (toydiff/adapters/README.md says what memory and time to
# expect):
#
# ```sh
# toydiff pairs --problem sd --model $MODEL --prompts prompts.txt --n 20000 --guidance-scale 7.5 --steps 25 \
#   --device cuda --out pairs
# toydiff train rectified-diffusion --problem sd --model $MODEL --prompts prompts.txt --pairs pairs \
#   --device cuda --mixed-precision bf16 --gradient-checkpointing --out rd
# toydiff sample rd --prompt "a photograph of a red fox" --steps 2 --device cuda --out fox.png
# toydiff export rd --out rd-lora
# ```
#
# ## What the deck says / what we measured

# %%
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| the same methods on Stable Diffusion (slides 29 to 31) | every card of the catalog runs on a checkpoint by the \
function that trains on points (tests: method × mixture, digits, sd) |
| FID of SD 1.5 and SDXL | **not measured**: no checkpoint of that size is here, and random weights have no FID. \
toydiff/adapters/README.md names the command of each row |
| Picard's bound: exact after as many sweeps as points (slides 7, 8) | {walk.trajectory.rounds} rounds become \
{picard.trajectory.rounds} at a tolerance of {tolerance:g}, for {picard.trajectory.nfe / walk.trajectory.nfe:.1f} \
times the calls |
| *(not said)* rounding to timesteps | DPM-Solver-3 has order \
{key["order of DPM-Solver-3, fractions of timesteps"]:.1f} at fractions; whole timesteps stop at an error of \
{key["error at 160 steps, whole timesteps"]:.0e} |
""")
)

# %% [markdown]
# ## You can now
#
# * say which two entries of a checkpoint make it a denoiser, and what happens if one is read wrongly;
# * compare a sampler with another library's, and say what such a check proves;
# * say what rounding to timesteps costs, and whom;
# * distil a checkpoint and hand the student back.
#
# Next: discrete flow matching (16).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** The adapter's look-up: at which fraction of a timestep has a table of $\bar\alpha_k$ the
# value $\lambda$? (VP: $\alpha^2+\sigma^2=1$. Interpolate $\log\alpha$ linearly between timesteps.)


# %%
def timestep_of(lam, alphas_bar):
    """lam: a number; alphas_bar (K,), falling. A number in [0, K - 1]."""
    raise NotImplementedError


# %%
try:
    alphas_bar = diffusers.DDIMScheduler(**tiny.TABLE).alphas_cumprod
    for lam in (2.0, 0.3, -2.0):
        wanted = 1000 * float(td.Tabulated(alphas_bar).t_of_lam(torch.tensor(lam, dtype=torch.float64))) - 1
        assert abs(timestep_of(lam, alphas_bar) - wanted) < 0.01, f"not yet: lambda {lam} is timestep {wanted:.3f}"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** SD 1.5's usual sampler has "leading" spacing with an offset of 1: with which timestep do $N$ steps
# begin ($N$ divides 1000)? Its start is pure noise: what is the model told that is not so?


# %%
def first_timestep(N, offset=1):
    """N: a divisor of 1000. A whole number."""
    raise NotImplementedError


# %%
try:
    for N in (4, 25):
        scheduler = diffusers.DDIMScheduler(**tiny.TABLE, timestep_spacing="leading", steps_offset=1)
        scheduler.set_timesteps(N)
        first = int(scheduler.timesteps[0])
        assert first_timestep(N) == first, f"not yet: {N} steps begin at {first}"
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) Guidance 7.5 with 20 steps of Heun's method: how many network calls a sample? (b) Which fraction of
# a 1280 × 1280 matrix's weights does a LoRA of rank 64 train? (c) Section 2 agrees to 1/255 with an *untrained* UNet.
# Why is that proof enough for the sampler, and of what is it no proof?

# %% [markdown]
# ## References
#
# * The deck, slides 29 to 31 (results on SD 1.5 and SDXL), 7 and 8 (Picard).
# * Rombach et al., *High-Resolution Image Synthesis with Latent Diffusion Models*, arXiv 2112.10752.
# * Lin et al., *Common Diffusion Noise Schedules and Sample Steps are Flawed*, arXiv 2305.08891: spacings, and tables
#   that end in noise.
# * Hu et al., *LoRA*, arXiv 2106.09685; Luo et al., *LCM-LoRA*, arXiv 2311.05556: which layers.
# * Wang et al., *Rectified Diffusion*, arXiv 2410.07303; Shih et al., *ParaDiGMS*, arXiv 2305.16317.

# %%
work.cleanup()
