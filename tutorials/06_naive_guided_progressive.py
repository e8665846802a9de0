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
# # 06 · Naive, guided and progressive distillation
#
# **What the deck claims.** The probability-flow ODE takes each noise to one sample (slide 10 of the lecture deck *The
# Principle and Application of Diffusion Acceleration*). A solver walks there in many calls; **naive distillation**
# learns the whole way as one step. **Guided distillation** (in the list of slides 4, 6 and 9) makes the two calls of
# guidance one. **Progressive distillation** (slide 11, Algorithm 2) learns two steps of the teacher as one, halves the
# number of steps, and repeats.
#
# All three are one regression, $\|\text{student}-\text{target}\|^2$; they differ in the target. So the question of this
# lesson is always the same: *what does the least square converge to?* On Gaussian data, and on the line, we know it
# exactly.
#
# House notation: $x_t=\alpha_t x_0+\sigma_t\varepsilon$, $t=1$ noise, $t=0$ data, $\lambda=\log(\alpha/\sigma)$,
# guidance scale $g$ (1 is off).

# %%
# %matplotlib inline
try:
    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import json
import math
import os
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from toydiff.catalog import METHODS
from toydiff.distill.base import snr_weight
from toydiff.problems.pairs import Pairs
from toydiff.measure import floor, modes, sliced_wasserstein
from toydiff.plots import static, style
from toydiff.problems import MixtureProblem, problem
from toydiff.runs import load, sample, train

# %%
SEED = 0
FAST = os.environ.get("TOYDIFF_FAST") == "1"  # smaller sizes for tests; the numbers in KEY_NUMBERS do not depend on it
UPDATES = 40 if FAST else 400  # of each student that is trained here
SAMPLES = 1000

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # the numbers that the last cell prints

# %% [markdown]
# ## 1 · Naive distillation: learn where the ODE goes
#
# Draw noise, let the teacher's solver take it to a sample, keep the pair; then fit $G(\varepsilon)$ to the samples. On
# the line the ODE's map is known: flows on a line cannot overtake one another, so that the lowest tenth of the noise
# goes to the lowest tenth of the data. That is the **quantile map** $T=F^{-1}\circ\Phi$.
#
# Why does a plain square do here, when one-step generators usually need an adversary? Because a least square
# finds the *conditional mean*, $G^\star(\varepsilon)=\mathbb E[x_0\mid\varepsilon]$, and for pairs of an ODE
# there is nothing to average: each noise has **one** sample.

# %%
line = td.GaussianMixture([[-1.5], [0.3], [1.8]], std=[0.3, 0.2, 0.4], weights=[0.4, 0.35, 0.25])
cosine = td.Cosine()  # alpha = 0 at t = 1: the walk starts from pure noise
D_line = line.denoiser(cosine, "v")

noise = torch.special.ndtri((torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000)  # equal parts of N(0, 1)
exact = line.flow(cosine, noise, 1.0, 0.0)
pairs = Pairs(noise.float(), exact.float(), None, {"problem": "three Gaussians on the line", "nfe": 0})
on_line = MixtureProblem(line, "three Gaussians on the line", cosine)


def naive_student(pairs):
    changes = {"updates": UPDATES, "batch": 256, "lr": 2e-3, "ema": 0.97, "warmup": 20}
    return train("naive", on_line, teacher=D_line, pairs=pairs, changes=changes, seed=SEED).finish().denoiser


students = {"naive": naive_student(pairs), "naive, pairs shuffled": naive_student(pairs.shuffled(SEED))}
maps = {name: td.jump(student(noise.float(), 1.0), 0.0).double() for name, student in students.items()}
maps["teacher, one step"] = td.jump(D_line(noise, 1.0), 0.0)
static.one_step_maps(
    noise[:, 0], {name: ends[:, 0] for name, ends in maps.items()}, exact[:, 0], title="One step, three targets"
)

# %%
for name, ends in maps.items():
    print(
        f"{name:22} RMS distance to the exact map {float((ends - exact).square().mean().sqrt()):.3f}, std "
        f"{float(ends.std()):.3f}"
    )
print(f"data: std {line.std:.3f}, mean {float(line.mean):.3f}")

# %% [markdown]
# **The negative control** is the second curve: the very same noise and the very same samples, paired at random. Noise
# then says nothing about the sample, $\mathbb E[x_0\mid\varepsilon]=\mathbb E[x_0]$, and the student gives *the mean*
# to everyone (what slope it has left is what the short training here has not yet removed). The third curve, the
# teacher's own single step, is the same failure: at $t=1$ the best guess of a denoiser is the data's mean. Pairs are
# all that naive distillation adds.
#
# No network is needed to see it. Cut the noise into 40 groups of equal size: the mean sample of each is the best that
# any function of the group can say.


# %%
def best_std(pairs, groups=40):
    """Standard deviation of the best piecewise constant student: of the mean samples of groups of like noise."""
    order = pairs.noise[:, 0].argsort()
    return float(pairs.x0[order, 0].double().reshape(groups, -1).mean(1).std(correction=0))


key["line: std of the data"] = line.std
key["line: best student, pairs"] = best_std(pairs)
mixed = best_std(pairs.shuffled(SEED))
print(
    f"std of the best student of 40 groups: {key['line: best student, pairs']:.3f} with pairs, {mixed:.3f} with "
    f"shuffled ones; data {line.std:.3f}"
)
assert key["line: best student, pairs"] > 0.97 * line.std > 5 * mixed

# %% [markdown]
# **The student inherits its teacher's error.** Nobody tells it what the *exact* ODE would do. With pairs from $N$ steps
# of DDIM the perfect student is the $N$-step map, error included, only at one call:

# %%
for N in (2, 4, 8, 16, 32, 64):
    walk = td.solve(D_line, noise, N, solver="ddim", grid="uniform", keep="end").end
    better = td.solve(D_line, noise, N, keep="end").end
    off, off_better = (float((end - exact).square().mean().sqrt()) for end in (walk, better))
    print(
        f"pairs made with {N:2} steps: a perfect student is off by {off:.4f} (DDIM), {off_better:.5f} (the default "
        "solver)"
    )
    key[f"line: {N} steps of ddim"] = off
key["line: 16 steps of the default solver"] = float(
    (td.solve(D_line, noise, 16, keep="end").end - exact).square().mean().sqrt()
)

# %% [markdown]
# ## 2 · The same in the plane
#
# The ring of eight, a trained teacher, and the student that ships with the library. Above, the noise, coloured by where
# it is taken; below, where that is. Distances are sliced Wasserstein distances to true samples, over the **floor**:
# what two sets of true samples show.

# %%
ring = td.mixtures.ring()
on_ring = problem("mixture:ring")
teacher, naive = load("ring-teacher"), load("ring-naive")
truths = [ring.sample(SAMPLES, 10**6 + k) for k in range(2)]


def apart(a, b):
    return sliced_wasserstein(a.double(), b.double(), projections=32)


lowest = floor(apart, lambda n, seed: ring.sample(n, seed), SAMPLES).mean


def over_floor(cloud):
    """Sliced Wasserstein distance to true samples, as a multiple of the floor: 1 is perfect."""
    return float(np.mean([apart(cloud, truth) for truth in truths])) / lowest


clouds = {
    "teacher, 20 steps": sample(teacher, on_ring, SAMPLES, 20)[0].end,
    "naive student, 1 step": sample(naive, on_ring, SAMPLES, 1)[0].end,
    "teacher, 1 step": sample(teacher, on_ring, SAMPLES, 1)[0].end,
}
starts = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(10**6))  # the noise that `sample` starts from
static.one_step_planes(starts, clouds, ring, title="Where each noise goes")

# %%
rows = []
for name, cloud in clouds.items():
    found = modes(ring, cloud)
    key[f"ring, {name}"] = over_floor(cloud)
    rows.append(f"| {name} | {key[f'ring, {name}']:.2f} | {100 * found.outside:.1f} % | {100 * found.coverage:.0f} % |")
display(Markdown("\n".join(["| | distance / floor | outside all modes | modes found |", "|---" * 4 + "|", *rows])))
agree = float((clouds["naive student, 1 step"] - clouds["teacher, 20 steps"]).norm(dim=1).median())
print(f"from the same noise, student and teacher end {agree:.3f} apart (median); a mode's standard deviation is 0.15")
spent = naive.about
print(f"the student cost {spent['pair_calls']:,} teacher calls for its pairs, once, and {spent['updates']:,} updates")
assert key["ring, naive student, 1 step"] < 0.5 * key["ring, teacher, 1 step"]

# %% [markdown]
# The student learned the teacher's *map*, not just its distribution: the colours above agree. What it cannot do is
# jump. A network is continuous, and between two sectors the map goes from one mode to the next within a hair's breadth,
# so that a few samples fall in between. The teacher has the same seams; it only has more calls to make them narrow.
#
# ## 3 · Guided distillation: two calls become one
#
# Guidance costs two calls a step. The target of guided distillation is the guided prediction itself (the paper's $w$ is
# $g-1$):
#
# $$\hat x_0^{\,g}(x_t,c)=\hat x_0(x_t,\varnothing)+g\,\big(\hat x_0(x_t,c)-\hat x_0(x_t,\varnothing)\big),
# \qquad g\sim U[1,5],$$
#
# and the student **sees $g$**. We train one right here, from the exact guided mixture; it starts as the conditional
# model of the trained teacher, its new input at zero.

# %%
schedule = on_ring.schedule
D_ring = ring.denoiser(schedule, "v")
changes = {"updates": UPDATES, "batch": 256, "lr": 4e-3, "ema": 0.97, "warmup": 20}
guided = train("guided", on_ring, teacher=D_ring, start=teacher, changes=changes, seed=SEED).finish()

many = torch.arange(512) % 8
x = schedule.prior((512, 2), SEED)
two = td.solve(D_ring, x, 10, cond=many, guidance_scale=3.0, keep="end")
one = td.solve(guided.denoiser, x, 10, cond=many, guidance_scale=3.0, keep="end")
key["guided: NFE of the teacher"], key["guided: NFE of the student"] = two.nfe, one.nfe
print(f"10 steps at g = 3: the teacher spends {two.nfe} calls, the student {one.nfe}")
assert one.nfe * 2 == two.nfe

# %% [markdown]
# Two controls. *A student that does not see $g$*: the target is linear in $g$, so the best it can say is the mean
# target, which is the target at the mean scale, $g=3$. It can be written down exactly. *Scales that were not trained*:
# beyond 5 the student is given what it never saw.

# %%
scales = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0, 12.0)
rng = torch.Generator().manual_seed(SEED)
x0, c = ring.sample_labelled(SAMPLES, rng)
t = 0.02 + 0.97 * torch.rand(SAMPLES, generator=rng)
x_t = schedule.mix(x0, torch.randn(SAMPLES, 2, generator=rng), t)


def rms(x0, g):
    return float((x0 - D_ring(x_t, t, c, g).x0).square().sum(1).mean().sqrt())


with torch.no_grad():
    errors = {
        "student that sees g": [rms(guided.denoiser(x_t, t, c, g).x0, g) for g in scales],
        "before training (ignores g)": [rms(teacher.denoiser(x_t, t, c).x0, g) for g in scales],
        "best student that does not see g": [rms(D_ring(x_t, t, c, 3.0).x0, g) for g in scales],
    }
figure, ax = plt.subplots(figsize=(8, 4.3), layout="constrained")
colors = (METHODS["guided"].color, style.FLOOR_COLOR, style.VERMILLION)
for (name, values), color, mark in zip(errors.items(), colors, "osv", strict=True):
    ax.semilogy(scales, [value if value > 1e-6 else math.nan for value in values], mark + "-", color=color, label=name)
ax.text(3, 0.03, "0 at g = 3", transform=ax.get_xaxis_transform(), ha="center", color=style.VERMILLION)
ax.axvspan(1, 5, color=style.CONTEXT_COLOR, alpha=0.5, lw=0)
ax.text(1.1, 0.98, "trained", transform=ax.get_xaxis_transform(), va="top", color=style.INK)
ax.set(
    xlabel="guidance scale g",
    ylabel="RMS error of the predicted $x_0$",
    title="One call that sees g, inside and outside its range",
)
ax.legend(loc="lower right")
plt.show()
for g in (1.0, 5.0, 12.0):
    key[f"blind student, g = {g:g}"] = errors["best student that does not see g"][scales.index(g)]
    key[f"conditional teacher, g = {g:g}"] = errors["before training (ignores g)"][scales.index(g)]

# %% [markdown]
# What matters in the end is the sample. The exact guided model in 20 steps, 40 calls, against the student in 20 calls,
# from the same noise:

# %%
rows = []
for g in (1.0, 3.0, 5.0, 12.0):
    target = td.solve(D_ring, x, 20, cond=many, guidance_scale=g, keep="end").end
    end = td.solve(guided.denoiser, x, 20, cond=many, guidance_scale=g, keep="end").end
    plain = td.solve(D_ring, x, 20, cond=many, keep="end").end
    off, moved = (float((a - target).norm(dim=1).median()) for a in (end, plain))
    key[f"what guidance moves, g = {g:g}"] = moved
    rows.append(f"| {g:g}{' (not trained)' if g > 5 else ''} | {off:.3f} | {moved:.3f} |")
head = "| g | student to exact guided sample (median) | what guidance moved (median) |"
display(Markdown("\n".join([head, "|---" * 3 + "|", *rows])))

# %% [markdown]
# A few hundred small updates are a short training. But the shape is there: inside the range the student follows $g$,
# outside it is soon lost. It also pays a little at $g=1$, which its teacher knew before. Choose the range that you will
# sample. And guided distillation alone only *halves* the calls: it is stage one of the paper, and stage two is what
# comes now.
#
# ## 4 · Progressive distillation: two steps become one
#
# One stage of slide 11's Algorithm 2, with $N$ steps for the student. At $t=i/N$ the teacher takes two DDIM
# steps, $x_t\to x_{t-1/2N}\to x_{t-1/N}$. One DDIM step is a `jump` with a fixed $(\hat x_0,\hat\varepsilon)$;
# the target is the *one* $\tilde x$ whose single jump lands on the same point. The slide's formula for it, with
# $t''=t-1/N$, is
#
# $$\tilde x=\frac{x_{t''}-\frac{\sigma_{t''}}{\sigma_t}x_t}{\alpha_{t''}-\frac{\sigma_{t''}}{\sigma_t}\alpha_t},$$
#
# which is the library's `chord`. The slide's $\lambda_t=\log[\alpha_t^2/\sigma_t^2]$ is **twice** the $\lambda$ of this
# library and of DPM-Solver; with it, $e^{\lambda}$ is the SNR, and the paper's weight is $w=\max(\mathrm{SNR},1)$ or
# $\mathrm{SNR}+1$.

# %%
t, mid, end = torch.tensor([0.75, 0.625, 0.5], dtype=torch.float64)
x_t = noise[::50]
x_s = td.jump(D_line(td.jump(D_line(x_t, t), mid), mid), end)
target = td.chord(cosine, x_t, t, x_s, end)
ratio = cosine.sigma(end) / cosine.sigma(t)
formula = (x_s - ratio * x_t) / (cosine.alpha(end) - ratio * cosine.alpha(t))
print(f"slide 11's formula and chord: largest difference {float((target.x0 - formula).abs().max()):.0e}")
print(
    "one jump with it and the teacher's two steps: largest difference "
    f"{float((td.jump(target, end) - x_s).abs().max()):.0e}"
)
assert torch.allclose(target.x0, formula, atol=1e-12)
assert torch.allclose(td.jump(target, end), x_s, atol=1e-12)
early = torch.tensor(0.1, dtype=torch.float64)
weight = float(snr_weight(cosine, early))
print(
    f"weight at t = 0.1: e^λ = {weight:.1f} in the slide's λ; with the house λ put in by mistake it would be "
    f"{float(cosine.lam(early).exp()):.1f}"
)
key["weight at t = 0.1"] = weight

# %% [markdown]
# **What stays.** A stage keeps the *first teacher's* answer. Take data $N(0,1)$ on the cosine schedule: the true map is
# $x_0=\varepsilon$, and a DDIM step from $t$ to $s$ multiplies by $\cos\frac\pi2(t-s)$. So $N$ steps shrink the
# standard deviation to $\cos(\pi/2N)^N$: 0 in one step. On Gaussian data every target is affine in $x$, so that a
# student of one affine map a time, fitted by least squares, is as good as any network could ever be. We halve all the
# way down:


# %%
class Affine(td.Denoiser):
    """x_0 = a x + b, with its own (a, b) at each time of a grid: maps {t: (a, b)}."""

    def __init__(self, schedule, maps):
        super().__init__(schedule)
        self.maps = maps

    def forward(self, x, t, cond=None):
        a, b = self.maps[float(t)]
        return td.Prediction.of("x0", a * x + b, x, t, self.schedule)


def stage(teacher, N, x, halves=2):
    """A student of N steps, from `halves` teacher steps a student step, fitted by least squares on the states x."""
    maps = {}
    for i in range(1, N + 1):
        ts = torch.linspace(i / N, (i - 1) / N, halves + 1, dtype=torch.float64)
        x_s = x
        for t, s in pairwise(ts):
            x_s = td.jump(teacher(x_s, t), s)
        target = td.chord(cosine, x, ts[0], x_s, ts[-1]).x0
        maps[i / N] = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), target).solution[:, 0].tolist()
    return Affine(cosine, maps)


def spread(D, N):
    return float(td.solve(D, noise, N, solver="ddim", grid="uniform", keep="end").end.std() / noise.std())


gaussian = td.GaussianMixture([[0.0]], std=1.0).denoiser(cosine)
counts = (1, 2, 4, 8, 16, 32, 64)
teachers = {N: spread(gaussian, N) for N in counts}
chains, worst = {}, 0.0
for first in (4, 16, 64):
    student, N, found = gaussian, first, {first: teachers[first]}
    while N > 1:
        N //= 2
        student = stage(student, N, noise[::40])
        found[N] = spread(student, N)
    chains[first] = found
    worst = max(worst, *(abs(value - teachers[first]) for value in found.values()))
law = max(abs(value - math.cos(math.pi / (2 * N)) ** N) for N, value in teachers.items())
print(f"teachers against cos(π/2N)^N: largest difference {law:.0e}; students against their first teacher: {worst:.0e}")
assert worst < 1e-10 > law
key |= {f"Gaussian: {N} steps": value for N, value in teachers.items() if N > 1}
key["Gaussian: 16 halved to 1"] = chains[16][1]

# %% [markdown]
# **The control:** what if a stage's target were *one* teacher step of the same length instead of two? Then nothing is
# passed on, and each student is the teacher with fewer steps.

# %%
student, control = gaussian, {}
for N in (32, 16, 8, 4, 2, 1):
    student = stage(gaussian, N, noise[::40], halves=1)
    control[N] = spread(student, N)

figure, ax = plt.subplots(figsize=(8, 4.3), layout="constrained")
ax.plot(
    counts, list(teachers.values()), "o-", color=style.INK, ms=9, label="DDIM teacher in N steps, $\\cos(\\pi/2N)^N$"
)
for (first, found), mark in zip(chains.items(), "sD^", strict=True):
    ax.plot(
        list(found),
        list(found.values()),
        mark + "--",
        color=METHODS["progressive"].color,
        label=f"progressive, halved from {first}",
    )
ax.plot(
    list(control),
    list(control.values()),
    "x",
    color=style.VERMILLION,
    ms=9,
    mew=2,
    label="control: target of one teacher step",
)
ax.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1)
ax.text(1, 1.01, "data", color=style.FLOOR_COLOR)
ax.set(
    xscale="log",
    xlabel="steps N (one call each)",
    ylabel="standard deviation of the samples",
    title="Halving keeps the first teacher's answer, and its error",
)
ax.set_xticks(counts, [str(N) for N in counts])
ax.minorticks_off()
ax.legend(loc="lower right")
plt.show()
assert all(abs(control[N] - teachers[N]) < 1e-10 for N in control)

# %% [markdown]
# So begin with many steps: all error that a perfect progressive distillation will ever have is made by the *first*
# teacher, and it stays. What halving costs is training: each stage has to converge before the next begins, and a
# student of a student adds up what each stage missed (exercise 4).
#
# ## 5 · Break it: off its grid
#
# The student's $\hat x_0$ is no longer anybody's expectation of $x_0$. It is the point that makes *one step of length
# $1/N$* come out right, and another length has another one. The Gaussian student of four steps, used with two, exactly
# where it was trained ($t=1$ and $t=\frac12$), but with steps twice as long:

# %%
four = stage(stage(gaussian, 8, noise[::40]), 4, noise[::40])
key["4-step student in 4 steps"], key["4-step student in 2 steps"] = spread(four, 4), spread(four, 2)
print(
    f"student of a 16-step teacher, made for 4 steps: std {key['4-step student in 4 steps']:.4f} in 4 steps, "
    f"{key['4-step student in 2 steps']:.4f} in 2; "
    f"the untrained DDIM has {teachers[2]:.4f} in 2"
)

# %% [markdown]
# On the ring we can use any number of steps, also more than four: the bundled student was halved from 16 to 4 steps.

# %%
progressive = load("ring-progressive")
counts = (1, 2, 3, 4, 5, 6, 8, 16)
curves = {
    "progressive, made for 4 steps": [over_floor(sample(progressive, on_ring, SAMPLES, N)[0].end) for N in counts],
    "its teacher, same sampler": [
        over_floor(sample(teacher, on_ring, SAMPLES, N, solver="ddim", grid="uniform")[0].end) for N in counts
    ],
}
figure, ax = plt.subplots(figsize=(8, 4.3), layout="constrained")
for (name, values), color, mark in zip(curves.items(), (METHODS["progressive"].color, style.INK), "Do", strict=True):
    ax.loglog(counts, values, mark + "-", color=color, label=name)
ax.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1, label="floor: true samples")
ax.axvline(4, color=METHODS["progressive"].color, lw=1, ls=":")
ax.set_xticks(counts, [str(N) for N in counts])
ax.set_yticks(levels := style.ticks(*ax.get_ylim()), [f"{level:g}" for level in levels])
ax.minorticks_off()
ax.set(
    xlabel="steps of DDIM, uniform in t", ylabel="distance / floor", title="A student of four steps, used with others"
)
ax.legend(loc="upper right")
plt.show()
for N, mine, theirs in zip(counts, *curves.values(), strict=True):
    if N in (1, 2, 4, 8, 16):
        key[f"ring, progressive, {N} steps"], key[f"ring, ddim, {N} steps"] = mine, theirs
        print(f"{N:2} steps: progressive {mine:6.2f}, its teacher {theirs:6.2f}")
best = counts[int(np.argmin(curves["progressive, made for 4 steps"]))]
print(f"the student is at its best in {best} steps")
print(
    f"it cost {progressive.about['teacher_calls']:,} teacher calls in {progressive.about['updates']:,} updates; the "
    f"naive one {naive.about['teacher_calls']:,}"
)

# %% [markdown]
# A teacher gains by more steps, until it is as good as it gets. This student does not: it was made for one grid, and
# extra steps are off it, so that they spend calls to do harm. Fewer are off it, too.
#
# One more thing breaks: a network that predicts $\varepsilon$, where $\alpha_1=0$. One step must say what $x_0$ is, and
# $\hat x_0=(x-\sigma\hat\varepsilon)/\alpha$ divides by zero. The library refuses:

# %%
try:
    td.Prediction.of("eps", noise, noise, 1.0, cosine)
except ValueError as error:
    print(error)

# %% [markdown]
# ## What the deck says, and what we measured

# %%
display(
    Markdown(
        f"""
| the deck | measured here |
|---|---|
| the ODE takes noise to samples; learn that map (slide 10) | ring, one step: {key["ring, naive student, 1 step"]:.2f} \
times the floor; the teacher {key["ring, teacher, 20 steps"]:.2f} in 20 steps, {key["ring, teacher, 1 step"]:.0f} in \
one |
| *(not said)* the pairs do it, not the square | shuffled pairs: the best student's std falls from \
{key["line: best student, pairs"]:.2f} to {mixed:.2f}, data {line.std:.2f} |
| *(not said)* the teacher's error is inherited | pairs of 4 DDIM steps: a perfect student is off by \
{key["line: 4 steps of ddim"]:.2f}; of 16: {key["line: 16 steps of ddim"]:.2f}; of 16 better steps: \
{key["line: 16 steps of the default solver"]:.4f} |
| guided distillation (slides 4, 6, 9: named only) | {two.nfe} calls become {one.nfe}. A student that does not see $g$ \
is off by {key["blind student, g = 1"]:.2f} at $g=1$, one that does by {errors["student that sees g"][0]:.2f} after \
{UPDATES} updates; at $g=12$, untrained, by {errors["student that sees g"][-1]:.1f} |
| two teacher steps become one (slide 11) | the target's one jump lands on them to rounding; halving 16 to 1 keeps std \
{key["Gaussian: 16 halved to 1"]:.4f} = cos(π/32)¹⁶; one untrained step has {teachers[1]:.0f} |
| *(not said)* only on its own grid | the 4-step student on the ring: {key["ring, progressive, 4 steps"]:.2f} in 4 \
steps, {key["ring, progressive, 2 steps"]:.1f} in 2, {key["ring, progressive, 8 steps"]:.1f} in 8 (times the floor) |
| $\\lambda_t=\\log[\\alpha_t^2/\\sigma_t^2]$ (slide 11) | twice the $\\lambda$ of slides 3 and 5 |
"""
    )
)

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `None` and run the check below it. While an answer is `None`, the solution cell fills it
# in.
#
# **1.** Distil the mixture `line` from shuffled pairs, perfectly. Which number does the student return for every noise?

# %%
answer_1 = None

# %%
# Solution: the mean of the data, sum of weight times mean.
answer_1 = 0.4 * -1.5 + 0.35 * 0.3 + 0.25 * 1.8 if answer_1 is None else answer_1

# %%
constants = torch.linspace(-2, 2, 4001, dtype=torch.float64)
least = float(constants[((constants[:, None] - exact[:, 0]) ** 2).mean(1).argmin()])
assert abs(answer_1 - least) < 2e-3, f"not yet: of all constants {least:.3f} has the least square"
print("exercise 1: right")

# %% [markdown]
# **2.** A guided model takes 32 steps. It is distilled by stage one (guided), and then halved to 4 steps. By what
# factor do the calls of a sample fall?

# %%
answer_2 = None

# %%
# Solution: 64 calls become 4.
answer_2 = 16 if answer_2 is None else answer_2

# %%
before = td.solve(D_ring, x[:8], 32, cond=many[:8], guidance_scale=3.0, keep="end").nfe
after = td.solve(guided.denoiser, x[:8], 4, cond=many[:8], guidance_scale=3.0, keep="end").nfe
assert answer_2 == before / after, f"not yet: {before} calls became {after}"
print("exercise 2: right")

# %% [markdown]
# **3.** The paper of Karras works in $\zeta=x/\alpha$, where a jump is a straight line in $n=\mathrm{NSR}$ and
# $\hat x_0$ is where the line meets $n=0$. Write progressive distillation's target that way: given $(\zeta_t,n_t)$ and
# $(\zeta_s,n_s)$, return $\tilde x$.


# %%
def answer_3(zeta_t, n_t, zeta_s, n_s):
    return None


# %%
def solution_3(zeta_t, n_t, zeta_s, n_s):
    return zeta_t - n_t * (zeta_s - zeta_t) / (n_s - n_t)


if answer_3(torch.ones(1), 2.0, torch.zeros(1), 1.0) is None:
    answer_3 = solution_3

# %%
yours = answer_3(x_t / cosine.alpha(t), cosine.nsr(t), x_s / cosine.alpha(end), cosine.nsr(end))
assert torch.allclose(yours, target.x0), "not yet: draw the line through the two points, and read it off at n = 0"
print("exercise 3: right")

# %% [markdown]
# **4.** Every student misses its target a little: each of its *steps* comes out 0.2 % too small, relative to two steps
# of its own teacher. You halve 16 to 8 to 4 to 2 to 1. By which factor is the final sample too small, compared with the
# 16-step teacher's?

# %%
answer_4 = None

# %%
# Solution: the 8-step student makes the mistake 8 times, the next one 4 times more, and so on: 8 + 4 + 2 + 1 = 15
# times.
answer_4 = 0.998**15 if answer_4 is None else answer_4

# %%
student = gaussian
for N in (8, 4, 2, 1):
    made = stage(student, N, noise[::40])
    maps = {}
    for time in made.maps:
        t_now, t_next = torch.tensor([time, time - 1 / N], dtype=torch.float64)
        states = noise[::40]
        landed = 0.998 * td.jump(made(states, t_now), t_next.clamp(min=0))
        x0 = td.chord(cosine, states, t_now, landed, t_next.clamp(min=0)).x0
        maps[time] = (float((x0 * states).sum() / (states**2).sum()), 0.0)
    student = Affine(cosine, maps)
wrong = spread(student, 1) / teachers[16]
assert abs(answer_4 - wrong) < 1e-4, f"not yet: measured, the factor is {wrong:.4f}"
key["exercise 4"] = wrong
print(f"exercise 4: right, {wrong:.4f}: mistakes made early, at many steps, weigh most")

# %% [markdown]
# ## References
#
# * The deck, slides 4, 6, 9 (the list), 10 (naive distillation) and 11 (Algorithm 2).
# * Luhman and Luhman, *Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed*,
#   arXiv 2101.02388: eq. 7.
# * Meng et al., *On Distillation of Guided Diffusion Models*, arXiv 2210.03142: alg. 1 (stage one) and alg. 2.
# * Salimans and Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, arXiv 2202.00512: alg. 2; sec. 4
#   (kinds and weights).
# * Ho and Salimans, *Classifier-Free Diffusion Guidance*, arXiv 2207.12598: eq. 6. Song et al., *DDIM*,
#   arXiv 2010.02502: eq. 12.
# * Karras et al., *EDM*, arXiv 2206.00364: sampling in $x/\alpha$.

# %%
print("KEY_NUMBERS", json.dumps({name: float(f"{value:.6g}") for name, value in key.items()}))
