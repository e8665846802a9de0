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
# # 04 · Time grids and guidance
#
# With few calls, two settings decide: *where* the steps stop, and how much *guidance* is added. Slide 15 names both for
# AnimateLCM ("autoselect or lcm or lcm[100_ots]", "cfg … around 1.0 to 2.0"); slide 13 writes guidance
# as $(1+\omega)\,\Psi(\cdot,c)-\omega\,\Psi(\cdot,\varnothing)$.
#
# **In this lesson (35 minutes)** you see which grid suits which solver, break two common grids, find out what guidance
# really samples, and let a model learn its own steps. Needed: lesson 03.

# %%
# %matplotlib inline
try:
    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, Markdown, display

from toydiff.grids import SHIFTS, last_nsr
from toydiff.measure import fitted_order, paired_error
from toydiff.plots import interactive, static, style
from toydiff.solvers.learning import learn_solver
from toydiff.solvers.registry import YELLOW

# %%
SEED = 0
DRAWN = 400

schedule = td.VP()
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · The same calls in different places
#
# A **time grid** is a list of times from 1 (noise) to 0 (data); $n=\sigma/\alpha$ (NSR) is the noise level.
#
# | grid | its steps are even in |
# |---|---|
# | `uniform` | $t$ (on a table: "trailing") |
# | `quadratic` | $\sqrt t$ |
# | `lambda` | $\lambda=-\log n$, then a jump to data |
# | `karras` | $n^{1/7}$ (EDM), then a jump |
# | `shifted-lambda` | $u=\log\frac{n+a}{n+b}$, $(a,b)=(0.12,1.4)$ |
# | `…-wide`, `…-narrow` | $u$ with $(0.07,3.5)$, $(0.056,0.7)$ |
#
# ($u$ moves between $a$ and $b$ only, like $-\lambda$. `-narrow` lies nearer to data.)

# %% [markdown]
# Ten steps cost ten calls, but each grid evaluates the model at other noise levels. The denoisers are exact, so every
# error is the sampler's: median over five mixtures, distance to the exact flow from the same noise. The default solver,
# `guarded`, is lesson 03's `ab3` with a guard (section 8).
#
# **Predict before you run.** Which solver cares most about its grid: first-order `ddim`, or the default, `guarded`?


# %%
assert list(SHIFTS.values()) == [(0.12, 1.4), (0.07, 3.5), (0.056, 0.7)]


class Truth:
    """An exact model, noise to start from, and where the exact flow takes it."""

    def __init__(self, seed):
        mixture = td.mixtures.random_mixture(seed)
        self.D = mixture.denoiser(schedule)
        self.noise = mixture.marginal(schedule, 1.0).sample(64, seed, dtype=torch.float64)
        self.end = td.reference(self.D, self.noise, tolerance=1e-9)


truths = [Truth(seed) for seed in range(1, 6)]


def median_error(solver, **how):
    runs = [(td.solve(truth.D, truth.noise, solver=solver, keep="end", **how).end, truth.end) for truth in truths]
    return float(np.median([paired_error(*run).rms for run in runs]))


solvers = ("ddim", "dpm++2m", "guarded")
error = {
    (solver, grid, N): median_error(solver, steps=N, grid=grid)
    for solver in solvers
    for grid in td.GRIDS
    for N in (5, 10, 20)
}
static.time_grids(
    {grid: td.time_grid(schedule, 10, grid) for grid in td.GRIDS},
    schedule,
    errors={solver: {grid: error[solver, grid, 10] for grid in td.GRIDS} for solver in solvers},
    title="Ten calls in different places: the better the solver, the more it matters",
)

# %%
header = "| grid | " + " | ".join(f"`{solver}` {N}" for solver in solvers for N in (5, 10, 20)) + " |"
lines = [
    f"| {grid} | " + " | ".join(f"{error[solver, grid, N]:.2g}" for solver in solvers for N in (5, 10, 20)) + " |"
    for grid in td.GRIDS
]
display(Markdown("\n".join([header, "|---" * (1 + 3 * len(solvers)) + "|", *lines])))
spreads = {}
for solver in solvers:
    at_ten = sorted((error[solver, grid, 10], grid) for grid in td.GRIDS)
    spreads[solver] = at_ten[-1][0] / at_ten[0][0]
    key[f"best grid, 10 NFE, {solver}"] = at_ten[0][0]
    print(
        f"{solver:8} 10 NFE: best {at_ten[0][1]} {at_ten[0][0]:.2g}, worst {at_ten[-1][1]} {at_ten[-1][0]:.2g}: "
        f"{spreads[solver]:.1f} times"
    )
a, b = SHIFTS["shifted-lambda"]
longest = {}
for grid in td.GRIDS:
    n = schedule.nsr(td.time_grid(schedule, 10, grid))
    longest[grid] = float(((n + a) / (n + b)).log().diff().abs().max())
by_length, by_error = sorted(longest, key=longest.get), sorted(longest, key=lambda grid: error["guarded", grid, 10])
for grid in by_length:
    print(f"longest step in u {longest[grid]:.2f}, error of guarded {error['guarded', grid, 10]:.3f}: {grid}")
assert set(by_length[:3]) == set(by_error[:3])
assert error["guarded", by_error[2], 10] < 1.15 * error["guarded", by_error[0], 10]  # these three are level
assert by_length[3:] == by_error[3:]

# %% [markdown]
# **The better the solver, the more the grid matters.** `ddim` hardly cares; `guarded` gains or loses many times. Why?
# At $n\gg b$ $\hat x_0$ is about the data's mean, at $n\ll a$ about $x$: predictions *change* in between, where $u$
# moves. `guarded` goes on along a parabola through its last predictions, a worse guess the longer a step in $u$.
# Printed: the three grids with the shortest longest steps are level; beyond, the longer, the worse. Choose a grid
# *with* its solver.

# %% [markdown]
# ## 2 · The last level before the jump
#
# The grids `lambda` and `karras` stop at a last noise level, and jump from there: $x_0:=\hat x_0$. Too **high**, and
# the jump is coarse. Too **low**, and steps are spent on noise levels where nothing happens any more.

# %%
lasts = np.geomspace(0.003, 1.0, 12)
figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
for N, color, mark in zip((5, 10, 20), (style.ORANGE, style.BLUE, style.GREEN), "os^", strict=True):
    swept = [median_error("dpm++2m", ts=td.time_grid(schedule, N, "lambda", last=last)) for last in lasts]
    ax.loglog(lasts, swept, mark + "-", color=color, ms=4, label=f"{N} steps")
    usual = median_error("dpm++2m", ts=td.time_grid(schedule, N, "lambda"))
    ax.plot(last_nsr(N), usual, "*", color=color, ms=15, mec=style.INK)
    best = lasts[int(np.argmin(swept))]
    high = median_error("dpm++2m", ts=td.time_grid(schedule, N, "lambda", last=min(1.0, best**2 / last_nsr(N))))
    print(
        f"{N:2} steps: lowest at NSR {best:.2f}, {min(swept):.3f}; {best / last_nsr(N):.1f} times lower, at 0.5/N, "
        f"{usual:.3f}; as many times higher (or at NSR 1) {high:.3f}"
    )
    assert last_nsr(N) < best
    assert usual < high
    assert usual < 1.6 * min(swept)
    key[f"last level, {N} steps, low / usual"] = (
        median_error("dpm++2m", ts=td.time_grid(schedule, N, "lambda", last=0.003)) / usual
    )
ax.plot([], [], "*", color="white", ms=12, mec=style.INK, label="the library's choice, 0.5/N")
ax.set(
    xlabel="last NSR before the jump (◂ nearer to data)",
    ylabel=style.ERROR_LABEL,
    title="dpm++2m on the grid lambda: too low wastes steps, too high jumps far",
)
ax.legend()
ax.set_yticks(levels := style.ticks(*ax.get_ylim()), [f"{level:g}" for level in levels])
ax.yaxis.minorticks_off()
plt.show()

# %% [markdown]
# The lowest point moves left as steps are added. To its right the error rises fast, to its left slowly (with 5 steps
# not even steadily: there is a second dip). The library's 0.5/N is *not* the minimum: it lies three to four times below
# it, for an error up to 1.6 times as large. As far off on the other side costs more (printed).

# %% [markdown]
# ## 3 · Break it: a grid that never visits $t=1$
#
# Early samplers chose integer steps with **leading** spacing: of 1000, for $N=10$, the steps 901, 801, …, 1. The model
# is first evaluated at $t=0.901$, but is given *pure noise*, which belongs to $t=1$. **Trailing** spacing starts at
# 1000 (arXiv 2305.08891, sec. 3.3).

# %% [markdown]
# **Predict before you run.** Stable Diffusion's schedule, data with mean 3 (eight modes about the point (3, 0)). Which
# way are the means of the samples pulled, and does the better spacing reach 3?

# %%
table = td.schedule("scaled-linear")
centre = 3.0
moved = td.GaussianMixture(td.mixtures.ring().means + torch.tensor([centre, 0.0]), std=0.15)
D_moved = moved.denoiser(table)
pure = td.schedule("cosine").prior((512, 2), SEED, dtype=torch.float64)  # N(0, 1), as every pipeline starts
flow_mean = float(td.reference(D_moved, pure, tolerance=1e-8)[:, 0].mean())


def leading(N):
    """Times with leading spacing on a table of 1000 steps, then 0."""
    return torch.tensor([(k * (1000 // N) + 1) / 1000 for k in reversed(range(N))] + [0.0], dtype=torch.float64)


def mean_of(ts):
    return float(td.solve(D_moved, pure, solver="ddim", ts=ts, keep="end").end[:, 0].mean())


COUNTS = (5, 10, 20, 50)
means = {
    "leading": [mean_of(leading(N)) for N in COUNTS],
    "trailing": [mean_of(td.time_grid(table, N, "uniform")) for N in COUNTS],
}
figure, ax = plt.subplots(figsize=(7.5, 3.9), layout="constrained")
for (name, values), color, mark in zip(means.items(), (style.VERMILLION, style.BLUE), "so", strict=True):
    ax.semilogx(COUNTS, values, mark + "-", color=color, label=f"{name} spacing")
    key[f"mean, 5 steps, {name}"] = values[0]
ax.axhline(centre, color=style.INK, lw=1.2, label="the data")
ax.axhline(flow_mean, color=style.FLOOR_COLOR, ls="--", label="exact flow from pure noise")
ax.set_xticks(COUNTS, [str(N) for N in COUNTS])
ax.minorticks_off()
ax.set(
    xlabel="steps of ddim",
    ylabel="mean of the samples, first coordinate",
    title="Leading spacing pulls the samples towards 0",
)
ax.legend(loc="lower right")
plt.show()
key["mean, exact flow"] = flow_mean
assert abs(means["trailing"][0] - flow_mean) < 0.1 < abs(means["leading"][0] - flow_mean)
true_start = moved.marginal(table, 1.0).sample(512, SEED, dtype=torch.float64)
ended = td.reference(D_moved, true_start, tolerance=1e-8)[:, 0]
started_right, off_by_chance = float(ended.mean()), float(ended.std() / math.sqrt(len(ended)))
print(
    f"exact flow from x_1 of the data, not pure noise: mean {started_right:.2f} ± {off_by_chance:.2f} (standard error)"
)
assert abs(started_right - centre) < 2 * off_by_chance < 0.2 < abs(flow_mean - centre)
at_first = {t: float(table.alpha(torch.tensor(t))) for t in (0.901, 1.0)}
print("alpha_t: " + ", ".join(f"{alpha:.3f} at t = {t:g}" for t, alpha in at_first.items()))
assert abs(at_first[0.901] - 0.119) < 0.001
assert abs(at_first[1.0] - 0.068) < 0.001

# %% [markdown]
# At $t=0.901$ the model expects $\alpha_tx_0$ under the noise, $\alpha_t=0.119$, finds nothing, and takes that for data
# near 0: in pictures, medium grey. Even trailing spacing does not reach the data's mean: this table ends with
# $\alpha_1=0.068$, so pure noise is not quite right at $t=1$ either. Two things mend it: a schedule with $\alpha_1=0$,
# or starts $x_1=\alpha_1x_0+\sigma_1\varepsilon$ with a trace of data (printed: within two standard errors of 3).

# %% [markdown]
# ## 4 · Break it: integer time steps
#
# A network trained on 1000 integer steps is often evaluated at the *nearest integer*, while the solver computes with
# the exact time. An $\hat\varepsilon$ for the wrong noise level is an error that no number of steps removes.


# %%
class Rounded(td.Denoiser):
    """A model that is evaluated at t rounded to a whole step of the table; its eps is then used at the true t."""

    def __init__(self, denoiser, steps=1000):
        super().__init__(denoiser.schedule, "eps")
        self.denoiser, self.steps = denoiser, steps

    def forward(self, x, t, cond=None):
        nearest = (t * self.steps).round().clamp(min=1) / self.steps
        return td.Prediction.of("eps", self.denoiser(x, nearest).eps, x, t, self.schedule)


mixture = td.mixtures.random_mixture(SEED)
D = mixture.denoiser(table)
STEPS = (10, 20, 40, 80, 160)
lams = {N: torch.linspace(-1.5, 2.0, N + 1, dtype=torch.float64) for N in STEPS}
inner = {N: table.t_of_lam(lam) for N, lam in lams.items()}
first, final = float(inner[10][0]), float(inner[10][-1])
start = mixture.marginal(table, first).sample(64, SEED, dtype=torch.float64)
exact = td.reference(D, start, first, final)
figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
models = {
    "continuous times": (D, style.BLUE, "o-"),
    "times rounded to 1/1000": (Rounded(D), style.VERMILLION, "s-"),
    "times rounded to 1/100": (Rounded(D, 100), style.ORANGE, "^-"),
}
for name, (model, color, mark) in models.items():
    errors = [
        paired_error(td.solve(model, start, solver="dpm3", ts=ts, keep="end").end, exact).rms for ts in inner.values()
    ]
    key[f"dpm3, {name}"] = fitted_order(STEPS, errors)
    ax.loglog([3 * N for N in STEPS], errors, mark, color=color, label=f"{name}: slope {key[f'dpm3, {name}']:.2f}")
ax.set(
    xlabel=style.NFE_LABEL,
    ylabel=style.ERROR_LABEL,
    title="DPM-Solver-3 stops improving when the model's time is rounded",
)
ax.set_xticks([3 * N for N in STEPS], [str(3 * N) for N in STEPS])
ax.minorticks_off()
ax.legend(loc="lower left")
plt.show()
assert key["dpm3, continuous times"] > 2.7 > 1.5 > key["dpm3, times rounded to 1/1000"]
of_ddim = {
    name: paired_error(td.solve(models[name][0], start, solver="ddim", ts=inner[10], keep="end").end, exact).rms
    for name in models
}
print("ddim in 10 calls: " + ", ".join(f"{name} {error:.4f}" for name, error in of_ddim.items()))
assert abs(of_ddim["times rounded to 1/1000"] / of_ddim["continuous times"] - 1) < 0.05

# %% [markdown]
# With ten calls of `ddim` you would not notice (printed). But it is free to do right: pass fractional times.
#
# ## 5 · Guidance
#
# Classifier-free guidance evaluates the model twice, with the condition $c$ and without, and goes further in the
# direction of the difference (arXiv 2207.12598, eq. 6):
#
# $$\hat\varepsilon_g=\hat\varepsilon_\varnothing+g\,(\hat\varepsilon_c-\hat\varepsilon_\varnothing).$$
#
# $g=1$ is **off**: $\hat\varepsilon_c$ alone. The deck's $\omega$ (slide 13) and the paper's $w$ are $g-1$, since
# $(1+\omega)\hat\varepsilon_c-\omega\,\hat\varepsilon_\varnothing$ is the same with $g=1+\omega$; "cfg" in user
# interfaces is $g$.

# %%
ring = td.mixtures.ring()  # eight modes; the label of a sample is its mode
D_ring = ring.denoiser(schedule)
labels = torch.arange(256) % 8
noise = schedule.prior((256, 2), SEED, dtype=torch.float64)
off = td.solve(D_ring, noise, 10, cond=labels, guidance_scale=1.0)
plain = td.solve(D_ring, noise, 10, cond=labels)
on = td.solve(D_ring, noise, 10, cond=labels, guidance_scale=3.0)
print(
    f"10 steps: g = 1 costs {off.nfe} calls and is the conditional model itself: "
    f"{bool((off.end == plain.end).all())}; g = 3 costs {on.nfe} calls"
)
assert off.nfe == 10
assert on.nfe == 20
assert torch.equal(off.end, plain.end)

# %% [markdown]
# ## 6 · What guidance does to the distribution
#
# We request one of the eight modes for each noise, and follow the *exact* guided flow, so that no step size is to
# blame. Background: the true data.

# %%
many = schedule.prior((DRAWN, 2), SEED + 1, dtype=torch.float64)
requested = torch.arange(DRAWN) % 8


def guided(g, x, c):
    return td.reference(D_ring, x, cond=c, guidance_scale=g, tolerance=1e-8)


ends = {g: guided(g, many, requested) for g in (0.0, 1.0, 3.0, 7.5)}
behind = style.density(ring, list(ends.values()))
CLASS_COLORS = (*style.PATH_COLORS, style.INK, YELLOW)
figure, axes = plt.subplots(1, len(ends), figsize=(14, 4.4), sharey=True, layout="constrained")
for ax, (g, cloud) in zip(axes, ends.items(), strict=True):
    ax.imshow(behind.shade, origin="lower", extent=behind.extent, cmap="Greys", vmax=2.5)
    ax.scatter(*cloud.T, c=[CLASS_COLORS[k] for k in requested], s=4)
    ax.set(title=f"g = {g:g}", xlabel="$x_1$", aspect="equal")
axes[0].set_ylabel("$x_2$")
figure.suptitle(
    "Coloured by the requested class: g = 0 ignores it, g = 1 is right, above it overshoots\n",
    x=0.01,
    ha="left",
    fontweight="bold",
)
plt.show()
clouds = {
    f"{g:g}": td.solve(D_ring, many, 30, cond=requested, guidance_scale=g, keep="end").end
    for g in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 7.5)
}
slide = interactive.samples(
    clouds, ring, colors=[CLASS_COLORS[k] for k in requested], prefix="g = ", active=2, title="Move g (30 steps)"
)
display(HTML(interactive.embedded(slide, "guidance")))

# %% [markdown]
# A common explanation says that guidance samples the *sharpened* density
#
# $$\tilde p_g(x)\;\propto\;p(x\mid c)^{g}\;p(x)^{1-g}\;\propto\;p(x\mid c)\;p(c\mid x)^{g-1}.$$
#
# It does not: the guided score of *each noise level* is that of a sharpened density at that level, but these densities
# are not the noised versions of one another, so that the flow ends elsewhere. Here we can compute both. Zoom in on mode
# 0 (centre (2, 0), standard deviation 0.15):

# %%
lattice_line = torch.linspace(-4, 4, 321, dtype=torch.float64)
lattice = torch.cartesian_prod(lattice_line, lattice_line)


def sharpened(g):
    """Of the sharpened density of class 0, on a lattice: mean shift outwards, std outwards, std along the ring."""
    zero = torch.zeros(len(lattice), dtype=torch.long)
    weight = torch.softmax(g * ring.log_prob(lattice, zero) + (1 - g) * ring.log_prob(lattice), 0)
    mean = weight @ lattice
    return float(mean[0] - 2), *(float(s) for s in (weight @ (lattice - mean) ** 2).sqrt())


def measured(samples, c):
    """The same of samples, each turned so that its class is on the first axis; and the mean posterior of its class."""
    outwards = ring.means[c] / 2
    along = torch.stack([-outwards[:, 1], outwards[:, 0]], 1)
    out, side = ((samples - ring.means[c]) * outwards).sum(1), (samples * along).sum(1)
    posterior = ring.responsibilities(samples)[torch.arange(len(c)), c].mean()
    return float(out.mean()), float(out.std()), float(side.std()), float(posterior)


rows = []
for g in (1.0, 2.0, 3.0, 7.5):
    wanted, found = sharpened(g), measured(guided(g, noise, labels), labels)
    key[f"shift g={g:g}"], key[f"std out g={g:g}"], key[f"std along g={g:g}"] = found[:3]
    rows.append(
        f"| {g:g} | {round(wanted[0], 6) + 0:.2f} | **{found[0]:.2f}** | {wanted[1]:.3f} | **{found[1]:.3f}** | "
        f"{wanted[2]:.3f} | **{found[2]:.3f}** | {found[3]:.4f} |"
    )
    key[f"sharpened shift g={g:g}"] = wanted[0]
title = (
    "| g | shift outwards: sharpened | guided | std outwards: sharpened | guided | std along the ring: sharpened | "
    "guided | posterior of the class |"
)
display(Markdown("\n".join([title, "|---" * 8 + "|", *rows])))
assert key["shift g=7.5"] > 3 * 0.15 > 0.01 > key["sharpened shift g=7.5"]

# %%
background = ring.log_prob(lattice, torch.zeros(len(lattice), dtype=torch.long)).exp().reshape(321, 321).T
figure, ax = plt.subplots(figsize=(6.6, 4.4), layout="constrained")
ax.contourf(lattice_line, lattice_line, background, levels=8, cmap="Greys", alpha=0.6)
first_class = torch.zeros(DRAWN // 8, dtype=torch.long)
for g, color in ((1.0, style.BLUE), (3.0, style.ORANGE), (7.5, style.VERMILLION)):
    cloud = guided(g, many[: DRAWN // 8], first_class)
    ax.plot(cloud[:, 0], cloud[:, 1], ".", color=color, ms=5, label=f"guided, g = {g:g}")
ax.set(
    xlim=(1.3, 3.1),
    ylim=(-0.6, 0.6),
    aspect="equal",
    xlabel="$x_1$ (outwards ▸)",
    ylabel="$x_2$ (along the ring)",
    title="Mode 0. Grey: the sharpened density, the same for every g",
)
ax.legend(loc="upper right")
plt.show()

# %% [markdown]
# Near a mode the class is certain, $p(c\mid x)=1$, so sharpening would change nothing. Guidance moved the mode by more
# than three standard deviations and squeezed it: at *high noise* the class was not certain, and there the push outwards
# happened. More guidance is not "more of the class"; the posterior was 1 already at $g=1$. This is the saturated look
# of pictures at a high scale.

# %% [markdown]
# ## 7 · What may be combined
#
# Slide 13 combines *solver outputs*, $(1+\omega)\Psi_c-\omega\Psi_\varnothing$, where $\Psi$ is the point at which a
# solver's step ends. That equals a step with the combined prediction only if $\Psi$ is linear in the prediction and
# calls it once: a single DDIM step. In two sub-steps the second call is made at another point.


# %%
def step_by(t, s, c, g, pieces):
    """`pieces` DDIM steps from t to s with guidance g inside; c = None is the unconditional model."""
    ts = torch.linspace(t, s, pieces + 1, dtype=torch.float64)
    return td.solve(D_ring, noise, solver="ddim", ts=ts, cond=c, guidance_scale=g, keep="end").end


g, t, s = 4.0, 0.6, 0.3
for pieces in (1, 2):
    inside = step_by(t, s, labels, g, pieces)
    outside = g * step_by(t, s, labels, 1.0, pieces) + (1 - g) * step_by(t, s, None, 1.0, pieces)
    gap = float((inside - outside).norm(dim=1).mean())
    key[f"combining outputs, {pieces} sub-steps"] = gap
    print(f"Ψ of {pieces} DDIM step(s): combining outputs instead of predictions is off by {gap:.1e}")
assert key["combining outputs, 1 sub-steps"] < 1e-12 < 1e-2 < key["combining outputs, 2 sub-steps"]

# %% [markdown]
# ## 8 · High guidance needs more steps
#
# Guidance multiplies not only the prediction but how fast it *changes*, and a high-order solver extrapolates that
# change. Error to the exact guided flow against NFE (two calls a step for $g\ne1$). **Predict before you run:** who
# suffers most at $g=7.5$ in 5 steps?

# %%
GS = (1.0, 3.0, 7.5)
STEPS = (5, 10, 20, 40)
by_steps = {}
guided_ends = {g: td.reference(D_ring, noise, cond=labels, guidance_scale=g, tolerance=1e-9) for g in GS}
figure, axes = plt.subplots(1, 4, figsize=(14, 3.9), sharey=True, layout="constrained")
for ax, solver in zip(axes, ("ddim", "dpm++2m", "ab3", "guarded"), strict=True):
    for g, color, mark in zip(GS, (style.BLUE, style.ORANGE, style.VERMILLION), "o^s", strict=True):
        runs = [td.solve(D_ring, noise, N, solver=solver, cond=labels, guidance_scale=g, keep="end") for N in STEPS]
        errors = [paired_error(run.end, guided_ends[g]).rms for run in runs]
        key[f"{solver} g={g:g}, 5 steps"], key[f"{solver} g={g:g}, 20 steps"] = errors[0], errors[2]
        by_steps[solver, g] = np.array(errors)
        ax.loglog([run.nfe for run in runs], errors, mark + "-", color=color, label=f"g = {g:g}")
    ax.set_xticks((5, 10, 20, 40, 80), ["5", "10", "20", "40", "80"])
    ax.minorticks_off()
    ax.set(xlabel=style.NFE_LABEL, title=solver)
axes[0].set_ylabel(style.ERROR_LABEL)
axes[0].legend(loc="lower left")
plt.show()
by_calls = {solver: [by_steps[solver, g][1 if g == 1 else 0] for g in GS] for solver, _ in by_steps}
for solver, errors in by_calls.items():
    print(f"{solver:8} in 10 calls: " + ", ".join(f"g = {g:g} {e:.2g}" for g, e in zip(GS, errors, strict=True)))
assert key["dpm++2m g=7.5, 5 steps"] > 3 * key["dpm++2m g=1, 5 steps"]
assert key["ab3 g=7.5, 20 steps"] < key["ddim g=7.5, 20 steps"]
assert key["ab3 g=7.5, 5 steps"] > 5 * key["guarded g=7.5, 5 steps"]
assert key["guarded g=7.5, 20 steps"] < key["ddim g=7.5, 20 steps"]
assert (by_steps["ddim", 7.5] < 2 * by_steps["ddim", 1.0]).all()
assert key["ddim g=7.5, 5 steps"] < key["guarded g=7.5, 5 steps"]
assert all((by_steps["ab3", 7.5][1:] < 1.02 * by_steps[solver, 7.5][1:]).all() for solver in ("dpm++2m", "guarded"))

# %% [markdown]
# The higher the order, the worse few guided steps become (printed; 10 calls are 5 guided steps). At $g=7.5$ in 5 steps
# `ab3` is thrown far off the data; from 10 steps on it is the best again. `ddim` at $g=7.5$ is off by at most twice
# what it is at $g=1$ in as many *steps*; at equal calls, by more. The DPM-Solver++ paper reports the same of high-order
# solvers at large scales (arXiv 2211.01095, sec. 3).

# %% [markdown]
# The default, `guarded`, is `ab3` with a guard: where order 2 would change a sample by more than about a third of a
# DDIM step, only a part of that is taken, and likewise for order 3; where even DDIM would overshoot, its step is
# shortened (`toydiff/solvers/guarded.py` has the five lines). In 5 steps at $g=7.5$ `ddim` is still ahead of it. The
# guard is for not having to know where `ab3` holds.

# %% [markdown]
# ## 9 · Where should the calls go? Let the model say
#
# For *one* model, one number of calls and one scale, times and coefficients can be **learned** (arXiv 2403.01329,
# 2502.17423). Each step stays the default's plus a learned change, $\bar x_{i+1}=\bar x_{i+1}^{\text{default}}+a_i\bar
# x_i+\sum_{j\le i}b_{ij}F_j$; $\bar x_i$ is the scaled state after step $i$, $F_j$ what call $j$ predicted (03, section
# 8: $w$, $F$). The search begins at $a=b=0$.
#
# **Predict before you run.** How much do better times alone give, how much do coefficients add?

# %%
calls, one = 5, truths[0]
start = td.mixtures.random_mixture(1).marginal(schedule, 1.0).sample(256, 100, dtype=torch.float64)
WAYS = {"the default": None, "times": True, "times and coefficients": False}
size, learned = {}, {}
for name, only in WAYS.items():
    how = "guarded"
    if only is not None:
        for found in learn_solver(one.D, start, calls, times_only=only, seconds=300):
            how = found.solver  # the last one is the best on noises that were held out
        learned[name] = how
    end = td.solve(one.D, one.noise, calls, solver=how).end
    size[name] = key[f"learned, {name}"] = float((end - one.end).norm(dim=1).median())
    print(f"{name:24} median error in {calls} calls {size[name]:.4f}")
of_default, of_times, of_both = size.values()
assert of_both < of_times < of_default
assert 0.28 < of_both / of_default < 0.38

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(15, 3.9), layout="constrained")
colors = dict(zip(WAYS, (style.INK, style.ORANGE, style.BLUE), strict=True))
rows = {"the default": td.time_grid(schedule, calls, data_std=one.D.data_std).tolist()}
rows |= {name: how.times for name, how in learned.items()}
for y, (name, ts) in enumerate(rows.items()):
    nsr = schedule.nsr(torch.tensor(ts[:-1], dtype=torch.float64))
    left.semilogx(nsr, [y] * calls, "o-", color=colors[name], ms=8)
left.set_yticks(range(len(rows)), [name.replace(" and ", "\nand ") for name in rows])
left.set(xlabel="NSR at each call (noise ▸)", ylim=(-0.6, 2.6), title="Where the five calls go")
b = np.full((calls, calls), np.nan)
for i, row in enumerate(learned["times and coefficients"].b):
    b[i, : len(row)] = row
limit = np.nanmax(np.abs(b))
shown = middle.imshow(b, cmap="PuOr", vmin=-limit, vmax=limit)
middle.set(xlabel="of call $j$", ylabel="in step $i$", title="What each step adds of each call: $b_{ij}$")
figure.colorbar(shown, ax=middle)
right.barh([name.replace(" and ", "\nand ") for name in size], list(size.values()), color=list(colors.values()))
right.set(xlabel="median distance to the exact end", title="What each contributes, in five calls")
right.locator_params(axis="x", nbins=4)
plt.show()

# %% [markdown]
# Better times alone help a little; times and coefficients together take two thirds off: each step may use *every* call
# so far, with weights fitted to this model. (Section 1's figure for the default is larger: a median over mixtures of an
# *RMS*, which bad samples dominate; here it is *one* mixture's *median* distance.) `toydiff learn-solver` does this for
# a trained model; its file is refused elsewhere.
#
# ## What the deck says / what we measured

# %%
display(
    Markdown(
        f"""
| the deck | measured here |
|---|---|
| few steps need the right time steps (slide 15) | at 10 NFE the choice of grid changes the error \
{spreads["ddim"]:.1f}× for `ddim`, {spreads["dpm++2m"]:.1f}× for `dpm++2m`, {spreads["guarded"]:.0f}× for `guarded` |
| *(not said)* the first one must be $t=1$ | 5 leading steps: mean {key["mean, 5 steps, leading"]:.2f}; trailing \
{key["mean, 5 steps, trailing"]:.2f}; exact flow {flow_mean:.2f}; data {centre:.2f} |
| *(not said)* integer time steps will do | DPM-Solver-3: slope {key["dpm3, continuous times"]:.2f} with continuous \
times, {key["dpm3, times rounded to 1/1000"]:.2f} with rounded ones |
| $(1+\\omega)\\Psi_c-\\omega\\Psi_\\varnothing$ (slide 13) | right for one DDIM step \
({key["combining outputs, 1 sub-steps"]:.0e}); for two off by {key["combining outputs, 2 sub-steps"]:.2f} |
| AnimateLCM is guided with 1.0 to 2.0 (slide 15) | said of a distilled model, which has guidance built in; here an \
exact, undistilled one: $g$ = 2 shifts modes by {key["shift g=2"] / 0.15:.1f} standard deviations, 7.5 by \
{key["shift g=7.5"] / 0.15:.1f}; the sharpened density by {key["sharpened shift g=7.5"] + 0:.0f} |
| guidance costs two calls a step | {on.nfe} calls for 10 steps, {off.nfe} at $g$ = 1 |
"""
    )
)

# %% [markdown]
# ## You can now
#
# * choose a grid for a solver, and say what its first and last level do;
# * name two grids that look right and are not;
# * translate $\omega$, $w$ and "cfg" into $g$, and count guided calls;
# * say why guidance does not sample the sharpened density.
#
# Next: all steps at once (05).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** The noise levels of the grid `shifted-lambda`: from `first` to 0, even in
# $u=\log\frac{n+a}{n+b}$.


# %%
def shifted_levels(N, first, a, b):
    """N + 1 levels of NSR, falling from first (a number) to 0."""
    raise NotImplementedError


# %%
try:
    for a, b in SHIFTS.values():
        levels = torch.as_tensor(shifted_levels(10, float(schedule.nsr(torch.ones(()))), a, b), dtype=torch.float64)
        ratio = (levels + a) / (levels + b)
        assert torch.allclose(levels[[0, -1]], schedule.nsr(torch.tensor([1.0, 0.0])).double()), "not yet: the ends"
        assert float(ratio.log().diff().std()) < 1e-6, "not yet: the steps in u differ"
    wanted = schedule.nsr(td.time_grid(schedule, 10))
    yours = torch.as_tensor(shifted_levels(10, float(wanted[0]), *SHIFTS["shifted-lambda"]))
    assert torch.allclose(yours.double(), wanted, rtol=1e-4), "not yet: the library's grid has other levels"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** Leading spacing starts too late. Write the integer steps of *trailing* spacing on a table of 1000,
# noisiest first; step $k$, from 1 to 1000 here, is $t=k/1000$. (Diffusers numbers the same steps 0 to 999: its $k$ is
# $t=(k+1)/1000$, as in lesson 15.)


# %%
def trailing_steps(N):
    """N: a divisor of 1000. N integers, falling."""
    raise NotImplementedError


# %%
try:
    for N in (4, 10):
        wanted = td.time_grid(table, N, "uniform")[:-1]
        assert torch.allclose(torch.tensor(trailing_steps(N)) / 1000, wanted.float()), (
            "not yet: the first is 1000, and the last stride leads to 0"
        )
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) You have 24 calls and guide with $g=3$. How many steps may `dpm2` (two calls a step, one on the
# jump to data) take from $t=1$ to $t=0$? (b) At $g=7.5$ all modes lie too far out. Somebody takes more steps to mend
# it. Will they?

# %% [markdown]
# ## References
#
# * The deck, slides 4 (reducing NFE), 13 ($\omega$) and 15 (AnimateLCM's settings).
# * Ho and Salimans, *Classifier-Free Diffusion Guidance*, arXiv 2207.12598: eq. 6.
# * Karras et al., *EDM*, arXiv 2206.00364: the grid, eq. 5.
# * Lu et al., *DPM-Solver*, arXiv 2206.00927, sec. 3.4 (steps uniform in $\lambda$); *DPM-Solver++*, arXiv 2211.01095,
#   sec. 3 (guidance).
# * Song et al., *DDIM*, arXiv 2010.02502: linear and quadratic spacing, app. D.2.
# * Lin et al., *Common Diffusion Noise Schedules and Sample Steps Are Flawed*, arXiv 2305.08891: sec. 3.1 and 3.3.
# * Wang et al., *Phased Consistency Model*, arXiv 2405.18407: the guided solver of slide 13.
