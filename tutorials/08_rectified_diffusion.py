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
# # 08 · Rectified Diffusion: straightness is not needed
#
# **What the deck claims** (slides 26 to 31 of the lecture deck *The Principle and Application of Diffusion
# Acceleration*). Rectified flow trains on the teacher's own pairs (noise, sample), and is said to work because paths
# become *straight*. Not so: what the pairs make of a model is a **first-order ODE**, one on which a single step is
# exact. Such a path has the form $x_t=\alpha_t x_0+\sigma_t\varepsilon$ with *fixed* $(x_0,\varepsilon)$, may be
# "inherently curved", and is straight only after a "timestep dependent scaling". So the schedule and the network's kind
# of prediction can stay what they were, and training is faster for it.
#
# We first build models that are first-order *exactly*, look at their paths, and break each part of the claim. Then
# networks: before, after, and on the way.
#
# House notation: $x_t=\alpha_t x_0+\sigma_t\varepsilon$, $t=1$ noise, $t=0$ data,
# $\mathrm{NSR}=\sigma/\alpha=e^{-\lambda}$.

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

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

from toydiff import runs
from toydiff.problems.pairs import Recipe, make_pairs
from toydiff.distill.rectified_diffusion import own_mse, rectified_diffusion_loss
from toydiff.measure import first_orderness, floor, paired_error, sliced_wasserstein, straightness
from toydiff.plots import static, style
from toydiff.problems import problem
from toydiff.schedules import PiecewiseLinear
from toydiff.training import EMA, Turn, fit

# %%
SEED = 0
FAST = os.environ.get("TOYDIFF_FAST") == "1"  # smaller sizes for tests; the numbers in KEY_NUMBERS do not depend on it
UPDATES = 16 if FAST else 64  # of the training in section 7

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # the numbers that the last cell prints

# %% [markdown]
# ## 1 · First order, exactly
#
# Slide 27 gives three marks of a first-order ODE. They are one statement, because along *any* model's ODE, with
# $z=x/\alpha$ and $y=x/\sigma$,
#
# $$\frac{dz}{d\,\mathrm{NSR}}=\hat\varepsilon(x_t,t),\qquad\frac{dy}{d(\alpha/\sigma)}=\hat x_0(x_t,t).$$
#
# So these are equivalent: (i) $\hat\varepsilon$ is constant along each path; (ii) $\hat x_0$ is; (iii) $z$ is a
# straight line in NSR, and $y=\frac{\alpha}{\sigma}x_0+\varepsilon$ one in $\alpha/\sigma$; (iv) a `jump` (a DDIM step)
# between any two times is exact. Nothing is said of $x$ against $t$.
#
# On the line such a model can be written down for any data. The exact ODE takes noise $\varepsilon$ to
# $T(\varepsilon)$, a map between quantiles, which increases. Then so does $\alpha_tT(\varepsilon)+\sigma_t\varepsilon$:
# no two of these paths ever meet, and at $(x,t)$ there is exactly one pair. The model that *names that pair* is what
# rectification with perfect pairs converges to. Data: three Gaussians.

# %%
line = td.GaussianMixture(
    torch.tensor([[-1.5], [0.3], [1.8]]), weights=torch.tensor([0.4, 0.35, 0.25]), std=torch.tensor([0.3, 0.2, 0.4])
)
noise = torch.linspace(-4.5, 4.5, 4001, dtype=torch.float64)
data = line.flow(td.Linear(), noise[:, None], 1.0, 0.0)[:, 0]  # T at each of these noises


def at(x, states, values):
    """The values that belong to x, where increasing states (K,) have the values (K,): linear in between."""
    k = (torch.searchsorted(states, x.contiguous()) - 1).clamp(0, len(states) - 2)
    return torch.lerp(values[k], values[k + 1], (x - states[k]) / (states[k + 1] - states[k]))


class Rectified(td.Denoiser):
    """The pair (x_0, eps) whose path alpha x_0 + sigma eps passes through (x, t), from a table of pairs on the line."""

    def __init__(self, schedule, eps, x0):
        super().__init__(schedule)
        self.table = x0, eps

    def forward(self, x, t, cond=None):
        x0, eps = self.table
        states = self.schedule.alpha(t) * x0 + self.schedule.sigma(t) * eps
        return td.Prediction(x, t, at(x, states, x0), at(x, states, eps), self.schedule)


eps = torch.linspace(-2.2, 2.2, 9, dtype=torch.float64)[:, None]
T = at(eps, noise, data)


def judged(D, start, ends, solver="ddim"):
    """A model's 200-step path from its start, its straightness and first-orderness, and one step's largest error."""
    path = td.solve(D, start, 200, solver=solver, grid="uniform")
    one = td.solve(D, start, 1, solver=solver, grid="uniform").end
    S, C = straightness(path, normalised=True), first_orderness(path, D.schedule, normalised=True)
    return path, S, C, float((one - ends).abs().max())


schedules = {"linear": td.Linear(), "cosine": td.Cosine(), "VP": td.VP()}
figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
lines = []
for k, (name, schedule) in enumerate(schedules.items()):
    start = schedule.mix(T, eps, 1.0)
    before = judged(line.denoiser(schedule), start, T)
    after = judged(Rectified(schedule, noise, data), start, T)
    snr = torch.exp(schedule.lam(after[0].ts))
    near = snr <= 2.5
    for path, grey in ((before[0], True), (after[0], False)):
        for b in range(len(eps)):
            line_style = {"color": style.GREY if grey else style.PATH_COLORS[b % 6], "lw": 1 if grey else 1.8}
            axes[0, k].plot(path.ts, path.xs[:, b, 0], **line_style)
            axes[1, k].plot(
                snr[near], (path.xs[:, b, 0] / schedule.sigma(path.ts))[near], **line_style
            ) if b % 2 == 0 else None
    axes[0, k].set(xlim=(1, 0), xlabel=style.TIME_LABEL, ylabel="x", title=f"{name}: x against t, S = {after[1]:.1f}")
    axes[1, k].set(xlim=(0, 2.5), xlabel=style.SNR_LABEL, ylabel="y = x/σ", title="y against α/σ")
    for what, (_, S, C, error) in (("exact model of the data", before), ("rectified", after)):
        lines.append(f"| {name} | {what} | {S:.2g} | {C:.2g} | {error:.2g} |")
        key[f"{name}, {what}: S"], key[f"{name}, {what}: one jump"] = S, error
    assert after[2] < 1e-20
    assert after[3] < 1e-12
figure.suptitle("The same pairs on three schedules (grey: the model before)", x=0.01, ha="left", fontweight="bold")
plt.show()
head = (
    "| schedule | model | straightness S (0: straight) | first-orderness C (0: first order) | largest error of one "
    "jump |"
)
display(Markdown("\n".join([head, "|---" * 5 + "|", *lines])))

# %% [markdown]
# The same nine pairs. On the linear schedule their paths are straight lines; on the cosine schedule and on VP they are
# curved, **more than those of the model before**. And one jump is exact on all three, to the last bit. What the rows of
# a rectified model share is not $S=0$ but $C=0$, and the straight lines of the lower row.
#
# ## 2 · Break it: straight, and not first order
#
# If straightness were what counts, it should suffice. Let a model on VP move every noise to its sample on a straight
# line at constant speed, $x_t=x_0+t\,(x_1-x_0)$.


# %%
class Straight(td.Denoiser):
    """dx/dt = x_1 - x_0 of the straight line through (x, t), on any schedule."""

    def __init__(self, schedule, eps, x0):
        super().__init__(schedule, "velocity")
        self.table = schedule.mix(x0[:, None], eps[:, None], 1.0)[:, 0], x0

    def forward(self, x, t, cond=None):
        start, x0 = self.table
        states = torch.lerp(x0, start, t)
        return td.Prediction.of("velocity", at(x, states, start) - at(x, states, x0), x, t, self.schedule)


vp = schedules["VP"]
start = vp.mix(T, eps, 1.0)
straight = Straight(vp, noise, data)
_, S_straight, _, euler_error = judged(straight, start, T, "euler")  # Euler's step in t follows a straight line
_, _, C_straight, jump_error = judged(straight, start, T)
moved = td.Rescheduled(Rectified(vp, noise, data), td.Linear())
_, S_moved, _, moved_error = judged(moved, eps, T)
print(f"straight lines on VP: S = {S_straight:.1g}, C = {C_straight:.2g}")
print(f"  one Euler step in t is off by {euler_error:.1g}, one jump (DDIM) by {jump_error:.2g}")
print(
    f"the first-order model of VP, moved to the linear schedule: S = {S_moved:.2g}, one jump off by {moved_error:.2g}"
)
assert S_straight < 1e-12 < C_straight
assert euler_error < 1e-12 < 1 < jump_error
key["straight on VP: C"], key["straight on VP: one jump"] = C_straight, jump_error

# %% [markdown]
# Perfectly straight, and a jump misses by units: a diffusion sampler of this model needs many steps. So neither
# property implies the other. "First order" belongs to a path *and a schedule*: straight lines at constant speed are
# first order on the linear schedule, and on that one only. (Section 8 needs a schedule for straight *pieces*.)
#
# The last line is the way back. A first-order model is first order on **every** schedule, so that moved to the linear
# one it is straight. What is left of $S$ there, and of the error, is because VP's noise still holds 0.7 % of the
# signal, and pure noise is not quite what the model starts from.
#
# ## 3 · A network, before and after
#
# `ring-teacher` was trained on eight Gaussians, on Stable Diffusion's table of noise levels. `ring-rectified-diffusion`
# starts with its weights and was trained on its pairs, on the *same schedule* and with the *same kind* of prediction.
# 50 steps of DDIM show the paths, one step from the same noise shows what they are worth.

# %%
ring = problem("mixture:ring")
models = {
    name: runs.load(id_) for name, id_ in {"teacher": "ring-teacher", "after": "ring-rectified-diffusion"}.items()
}
table = models["teacher"].denoiser.schedule
print(
    f"teacher: predicts {models['teacher'].denoiser.kind} on {table}; after: {models['after'].denoiser.kind} on "
    f"{models['after'].denoiser.schedule}"
)


def from_noise(D, steps, n=1000, seed=SEED):
    """Samples of a model by uniform DDIM steps, from the same noise for all models."""
    return td.solve(D, D.schedule.prior((n, 2), seed, dtype=torch.float32), steps, solver="ddim", grid="uniform")


paths = {name: from_noise(model.denoiser, 50) for name, model in models.items()}
few = {
    name: td.Trajectory(path.ts, path.xs[:, :8], path.x0s[:, :8], path.nfe, path.rounds, path.seconds)
    for name, path in paths.items()
}
static.rescaled(
    few,
    table,
    dict.fromkeys(few, ring.mixture),
    measured=True,
    title="Curved before, curved after; straight in y only after (S, C: of these eight)",
)

# %%
found = {}
for name, path in paths.items():
    found[name] = {
        "S": straightness(path, normalised=True),
        "C": first_orderness(path, table, normalised=True),
        "one jump": paired_error(from_noise(models[name].denoiser, 1).end, path.end).rms,
    }
    key |= {f"{name}: {what}": value for what, value in found[name].items()}
words = {
    "S": "straightness S of x against t",
    "C": "first-orderness C",
    "one jump": "RMS distance of one jump to 50 steps",
}
lines = [
    (
        f"| {text} | {found['teacher'][what]:.3g} | {found['after'][what]:.3g} | "
        f"{found['teacher'][what] / found['after'][what]:.1f} |"
    )
    for what, text in words.items()
]
display(Markdown("\n".join(["| 1000 paths | teacher | after | teacher / after |", "|---" * 4 + "|", *lines])))
lines = []
for name, model in models.items():
    for row in model.about["rows"]:
        lines.append(f"| {name} | {row['steps']} | {row['solver']} | {row['distance'] / row['floor']:.2f} |")
display(Markdown("\n".join(["| stored measurement | steps | solver | distance / floor |", "|---" * 4 + "|", *lines])))
falls = {what: found["teacher"][what] / found["after"][what] for what in words}
assert falls["C"] > 5
assert falls["one jump"] > 3

# %% [markdown]
# $C$ fell by the factor in the last column, and the error of one jump with it. $S$ did not need to fall, and nothing in
# the training makes it fall: see its row. The distance is sliced Wasserstein-2 to fresh samples, and its floor is what
# true samples have among themselves: how good the *samples* are, where $C$ says how few steps give the model's own.
#
# $C$ stays above 0. Exact pairs of this ring do not cross (lesson 07; the schedule has no say in that, since
# $x_t/\alpha_t=x_0+n\varepsilon$). What remains is due to the pairs, which a network and a solver made, and to a
# student that is not perfect.
#
# ## 4 · The schedule can be swapped afterwards
#
# If the paths of a model are first order, then a sampler on any schedule ends at the same samples. (In *one* step every
# model does, since it evaluates the model at $t=1$ only.) Distance between the ends on another schedule and on its own,
# from the same noise:

# %%
others = {"linear": td.Linear(), "cosine": td.Cosine(), "VP": td.VP()}
lines = []
for N in (1, 2, 4):
    gaps = {}
    for name, model in models.items():
        D, own = model.denoiser, from_noise(model.denoiser, N)
        for other, schedule in others.items():
            gaps[name, other] = paired_error(from_noise(td.Rescheduled(D, schedule), N).end, own.end).rms
    lines.append(f"| {N} | " + " | ".join(f"{gaps[name, o]:.3f}" for o in others for name in models) + " |")
    if N > 1:
        key |= {f"{N} steps, {other} instead: {name}": gap for (name, other), gap in gaps.items()}
head = "| steps | " + " | ".join(f"{other}, {name}" for other in others for name in models) + " |"
display(Markdown("\n".join([head, "|---" * 7 + "|", *lines])))
assert all(gaps["after", other] < gaps["teacher", other] / 2 for other in others)  # at the last number of steps
on_linear = {name: from_noise(td.Rescheduled(model.denoiser, td.Linear()), 50) for name, model in models.items()}
S_linear = {name: straightness(path, normalised=True) for name, path in on_linear.items()}
key |= {f"S on the linear schedule: {name}": S for name, S in S_linear.items()}
print(
    "S of the same networks, walked on the linear schedule: "
    + ", ".join(f"{name} {S:.3g}" for name, S in S_linear.items())
)
assert S_linear["after"] < S_linear["teacher"]

# %% [markdown]
# So a rectified diffusion model *contains* a rectified flow: look at it on the linear schedule, and its paths are
# nearly straight, without having been trained there.
#
# ## 5 · Which noise belongs to a pair?
#
# Two things can go wrong with the $\varepsilon$ of a pair. Algorithms 3 and 4 of the deck take a pair as their input,
# and go on "Sample $x_0$", "Sample noise $\varepsilon$" in the text at hand, where struck-out lines may not show. The
# method uses the stored pair. Noise that is sampled anew throws the pairing away: on independent $(x_0,\varepsilon)$
# the loss is that of plain diffusion training, whose minimiser is the model *before*.
#
# The second is finer. Where $\alpha_1>0$, as on Stable Diffusion's table, the teacher does not start from
# $\alpha_1x_0+\sigma_1\varepsilon$, but from $\sigma_1\varepsilon$: noise alone. The first-order path from *there* to
# $x_0$ has another $\varepsilon'=\varepsilon-x_0/\mathrm{NSR}_1$, the `chord` of the two ends (`Pairs.draw`). With
# $\varepsilon$ itself, the training states would hold the answer's trace $\alpha_1x_0$, which no sampler can supply. On
# the line we know the perfect student of each choice, and sample it in one jump from $\sigma_1\varepsilon$.

# %%
sd = td.Tabulated.scaled_linear()
one_time = torch.ones((), dtype=torch.float64)
alpha_1, sigma_1 = float(sd.alpha(one_time)), float(sd.sigma(one_time))
stored = td.chord(sd, sigma_1 * noise[:, None], 1.0, data[:, None], 0.0).eps[:, 0]
assert float((stored - (noise - alpha_1 / sigma_1 * data)).abs().max()) < 1e-12
levels = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000
drawn = torch.special.ndtri(levels)[:, None]  # one noise for each of 2000 equal parts of the normal law
truth = at(drawn, noise, data)

students = {
    "chord, from where the teacher started": Rectified(sd, stored, data),
    "the noise itself": Rectified(sd, noise, data),
    "fresh noise (as printed)": line.denoiser(sd),
}
figure, ax = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
lines = []
for (name, D), color, dash in zip(
    students.items(), (style.BLUE, style.ORANGE, style.VERMILLION), ("-", "--", ":"), strict=True
):
    end = td.solve(D, sigma_1 * drawn, 1, solver="ddim").end
    paired = float((end - truth).square().mean().sqrt())
    key[f"eps of a pair, {name}: paired"] = paired
    lines.append(f"| {name} | {paired:.2g} |")
    ax.plot(drawn, end, color=color, ls=dash, lw=2, label=name)
ax.set(xlabel="noise ε", ylabel="sample after one jump", title="The perfect student of each choice of ε")
ax.legend()
plt.show()
display(Markdown("\n".join(["| ε of the pair | RMS distance to the true sample |", "|---" * 2 + "|", *lines])))
assert key["eps of a pair, chord, from where the teacher started: paired"] < 1e-9
assert 0.01 < key["eps of a pair, the noise itself: paired"] < key["eps of a pair, fresh noise (as printed): paired"]

# %% [markdown]
# Fresh noise gives back the unrectified model, whose single jump lands near the mean of the data. The noise
# itself is *nearly* right: every sample is pulled a little towards the middle, and those at the border of two
# modes change sides.
#
# ## 6 · Which loss?
#
# The deck's Algorithm 4 has $\lVert\hat\varepsilon-\varepsilon\rVert^2$. The published code has a pseudo-Huber distance
# between $\hat x_0$ and $x_0$. At one state, for one and the same network,
# $\hat x_0-x_0=-\mathrm{NSR}\,(\hat\varepsilon-\varepsilon)$: the two differ by a **weight**,
# $\lVert\hat x_0-x_0\rVert^2=\mathrm{NSR}^2\lVert\hat\varepsilon-\varepsilon\rVert^2$. In $v$, on a table with
# $\alpha^2+\sigma^2=1$,
# $\lVert\hat v-v\rVert^2=\lVert\hat\varepsilon-\varepsilon\rVert^2/\alpha^2=\lVert\hat x_0-x_0\rVert^2/\sigma^2$.

# %%
rng = torch.Generator().manual_seed(SEED)
x0, e, wrong = (torch.randn(64, 2, generator=rng, dtype=torch.float64) for _ in range(3))
t = torch.rand(64, generator=rng, dtype=torch.float64) * 0.98 + 0.01
x_t = sd.mix(x0, e, t)
true, guess = td.Prediction.of("eps", e, x_t, t, sd), td.Prediction.of("eps", wrong, x_t, t, sd)
off = {kind: (guess.read(kind) - true.read(kind)).square().sum(1) for kind in ("x0", "eps", "v")}
rounding = max(
    float((off["x0"] / (off["eps"] * sd.nsr(t) ** 2) - 1).abs().max()),
    float((off["v"] * sd.alpha(t) ** 2 / off["eps"] - 1).abs().max()),
)
assert rounding < 1e-9
ts = torch.linspace(0.01, 1, 200, dtype=torch.float64)
figure, ax = plt.subplots(figsize=(7.5, 3.9), layout="constrained")
weight = sd.nsr(ts) ** 2
ax.semilogy(ts, weight, color=style.BLUE, lw=2, label=r"$|\hat x_0-x_0|^2$: NSR²")
ax.semilogy(ts, 1 / sd.alpha(ts) ** 2, color=style.ORANGE, lw=2, ls="--", label=r"$|\hat v-v|^2$: 1/α²")
ax.axhline(1, color=style.GREY, ls=":", lw=2, label=r"$|\hatε-ε|^2$: 1 (the deck)")
ax.set(xlim=(1, 0), xlabel=style.TIME_LABEL, ylabel="weight of an error in ε", title="The same loss, but for a weight")
ax.legend()
plt.show()
heaviest = float(sd.nsr(one_time)) ** 2
key["NSR^2 at t = 1"] = heaviest
print(
    f"both identities hold to {rounding:.0e}; at t = 1 the weight NSR² is {heaviest:.1f}, at t = 0.5 "
    f"{float(sd.nsr(one_time / 2)) ** 2:.2f}"
)
print(f"an error of 0.05 in ε at t = 1 is an error of {0.05 * math.sqrt(heaviest):.2f} in the sample of one step")

# %% [markdown]
# Few steps depend on $\hat x_0$ at the noisiest level, to which the mean square in $\varepsilon$ gives little weight.
# That is why the code's choice matters for a network that predicts $\varepsilon$; one that predicts $v$, like our
# teacher of the ring, has the weight of $x_0$ there to begin with.
#
# ## 7 · Rectified flow against Rectified Diffusion, by updates
#
# Slides 29 to 31: with the same pairs, Rectified Diffusion is ahead, and needs far fewer updates. The two
# differ in **two** things, the schedule and the kind of prediction. A rectified flow made from a diffusion
# model takes over its weights, but their output now has to *mean* something else. How wrong is it before the
# first update? The exact denoiser of the ring answers that without any training: let it write its output as one
# kind on its own schedule, and read that as the student's kind on the student's schedule, at the same noise
# level.

# %%
exact = ring.mixture.denoiser(table)
CHOICES = {
    "own schedule, own kind (Rectified Diffusion)": ("own", "own"),
    "linear schedule, own kind": ("linear", "own"),
    "own schedule, velocity": ("own", "velocity"),
    "linear schedule, velocity (rectified flow)": ("linear", "velocity"),
}


def misread(teacher_kind, on, kind):
    """RMS error in x_0 of a student before its first update, against its teacher, over the linear schedule's times."""
    kind = teacher_kind if kind == "own" else kind
    squares = []
    for tau in torch.linspace(0.05, 0.93, 23, dtype=torch.float64):
        t = table.t_of_lam(td.Linear().lam(tau))  # the same noise level
        x = ring.mixture.marginal(table, t).sample(256, SEED, dtype=torch.float64)
        p = exact(x, t)
        y = p.read(teacher_kind)
        x_linear = x * td.Linear().sigma(tau) / table.sigma(t)
        q = td.Prediction.of(kind, y, *((x, t, table) if on == "own" else (x_linear, tau, td.Linear())))
        squares.append((q.x0 - p.x0).square().sum(1).mean())
    return float(torch.stack(squares).mean().sqrt())


lines = []
for name, choice in CHOICES.items():
    errors = {kind: misread(kind, *choice) for kind in ("eps", "x0", "v")}
    key |= {f"{name}, teacher predicts {kind}": value for kind, value in errors.items()}
    lines.append(f"| {name} | " + " | ".join(f"{errors[kind]:.2g}" for kind in errors) + " |")
head = "| student | teacher predicts ε | x₀ | v |"
display(Markdown("\n".join([head, "|---" * 4 + "|", *lines])))
assert key["own schedule, own kind (Rectified Diffusion), teacher predicts eps"] < 1e-9
assert key["linear schedule, own kind, teacher predicts eps"] < 1e-9
assert key["linear schedule, velocity (rectified flow), teacher predicts eps"] > 0.5
by_schedule, by_kind = (
    key[f"{name}, teacher predicts v"] for name in ("linear schedule, own kind", "own schedule, velocity")
)
assert 0.5 < by_schedule / by_kind < 2

# %% [markdown]
# RMS errors in $\hat x_0$, for data at distance 2 from the middle. For an $\varepsilon$-teacher what costs is the kind
# of prediction, not the schedule. For a $v$-teacher both cost something, and neither much more. An
# $\varepsilon$-teacher moved to the linear schedule starts right; read as a velocity, it is wrong from the start, on
# either schedule. (A network that predicts $v$ also suffers a little from the linear schedule: its output is $v$ where
# $\alpha^2+\sigma^2=1$, and the linear schedule has $\alpha+\sigma=1$.) Which of the two is ahead at first is decided
# by what the head has to unlearn.
#
# Now the training, small: all four students start with the weights of `ring-teacher`, see the same pairs in the same
# order, and minimise the mean square in their own kind. Fifth, a control: fresh noise. The distance is to the teacher's
# own ends, from other noise.

# %%
teacher = models["teacher"].denoiser
pairs = make_pairs(ring, teacher, Recipe(n=2000 if FAST else 6000, steps=16))
target = td.solve(teacher, table.prior((500, 2), SEED + 1, dtype=torch.float32), 50, keep="end").end


def train(on, kind, pairs, updates=UPDATES, batch=128):
    """The distance to the teacher's ends by 1 and 2 steps, at updates that double: {steps: [(updates, distance)]}."""
    schedule, kind = (table if on == "own" else td.Linear()), (teacher.kind if kind == "own" else kind)
    student = ring.student(schedule, kind, start=teacher)

    def loss(step, draws):
        x0, eps, cond = pairs.draw(schedule, batch, draws)
        return rectified_diffusion_loss(student, x0, eps, cond, draws, compare=own_mse)

    average = EMA(student, 0.99)
    curve = {1: [], 2: []}

    def evaluate(updates):
        for steps, rows in curve.items():
            end = from_noise(average.module, steps, 500, SEED + 1).end
            rows.append((updates, paired_error(end, target).rms))

    evaluate(0)
    due = 2
    for record in fit(
        Turn(loss, list(student.parameters()), 1e-3), updates, averages=[average], seed=SEED, warmup=5, decay="constant"
    ):
        if record.step == due:
            evaluate(due)
            due *= 2
    return curve


curves = {name: train(*choice, pairs) for name, choice in CHOICES.items()}
curves["fresh noise (own schedule, own kind)"] = train("own", "own", pairs.shuffled(SEED))
figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.6), layout="constrained")
LOOKS = ((style.BLUE, "o-"), (style.SKY, "v--"), (style.GREEN, "^--"), (style.ORANGE, "s-"), (style.GREY, "x:"))
for (name, curve), (color, mark) in zip(curves.items(), LOOKS, strict=True):
    for ax, rows in zip(axes, curve.values(), strict=True):
        updates, distances = zip(*rows, strict=True)
        ax.loglog([max(u, 1) for u in updates], distances, mark, color=color, lw=1.8, label=name)
for ax, steps in zip(axes, (1, 2), strict=True):
    ax.set_xticks([max(u, 1) for u in updates], [str(u) for u in updates])
    ax.minorticks_off()
    ax.set_yticks(levels := style.ticks(*ax.get_ylim()), [f"{level:g}" for level in levels])
    ax.set(xlabel="updates (0: before training)", title=f"{steps} step{'s' * (steps > 1)}")
axes[0].set_ylabel("RMS distance to the teacher's own ends")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
plt.show()

# %%
head = (
    "| student | 1 step: at the start | after "
    + f"{UPDATES} updates | 2 steps: at the start | after {UPDATES} updates |"
)
lines = [
    f"| {name} | " + " | ".join(f"{rows[i][1]:.2f}" for rows in curve.values() for i in (0, -1)) + " |"
    for name, curve in curves.items()
]
display(Markdown("\n".join([head, "|---" * 5 + "|", *lines])))
last = {name: curve[2][-1][1] for name, curve in curves.items()}
key |= {f"{N} steps, before training, {name}": curves[name][N][0][1] for name in CHOICES for N in (1, 2)}
ahead = min(list(CHOICES), key=lambda name: last[name])
print(f"by 2 steps after {UPDATES} updates the first is: {ahead}")
noise_itself = paired_error(table.prior((500, 2), SEED + 1, dtype=torch.float32), target).rms
print(f"for comparison: the noise itself is {noise_itself:.2f} from where it is taken")

# %% [markdown]
# Read the table, not the slogan. Before training, the first student *is* the teacher: in one step it draws the mean of
# the data, in two steps something useful, and it goes on from there. The rectified flow's head reads $v$ as
# $\varepsilon-x_0$, so that its first "sample" is $\varepsilon-v$: the noise, a little stretched. On a ring that
# happens to be not far off, since noise is taken outwards on nearly straight ways; but it is luck, not knowledge, and
# its lead is soon gone. The control stays where it was: with fresh noise there is nothing to learn but what the teacher
# knows. Enough updates bring all four close together on a problem as small as this. (`tests/benchmarks/turning.py` runs
# the same comparison to the end, from $\varepsilon$-teachers, on the ring and on digits, three seeds each.)
#
# ## 8 · Phased: one chord a window
#
# Slide 28 cuts $[0,1]$ into windows with edges $s_m$ and makes the path first order *within each*. No pairs need to be
# stored: the teacher walks one window from noised data, and
#
# $$\varepsilon=\frac{x_{s_{m-1}}/\alpha_{s_{m-1}}-x_{s_m}/\alpha_{s_m}}{\mathrm{NSR}_{s_{m-1}}-\mathrm{NSR}_{s_m}}
# =\frac{\Delta z}{\Delta\mathrm{NSR}},$$
#
# the `chord` of the window's ends. PeRFlow came first, and moves on a *straight line at constant speed* in each window.
# It is the same method on another schedule: $\alpha$ and $\sigma$ as they were at the edges, linear between them.

# %%
M = 4
edges = torch.linspace(0, 1, M + 1, dtype=torch.float64)
pieces = PiecewiseLinear(sd, edges)
high, low = 0.75, 0.5
x_high = ring.mixture.marginal(sd, high).sample(200, SEED, dtype=torch.float64)
x_low = td.reference(ring.mixture.denoiser(sd), x_high, high, low)
ours, theirs = td.chord(sd, x_high, high, x_low, low), td.chord(pieces, x_high, high, x_low, low)


def value(f, t):
    return float(f(torch.tensor(t, dtype=torch.float64)))


slope = (x_low / value(sd.alpha, low) - x_high / value(sd.alpha, high)) / (value(sd.nsr, low) - value(sd.nsr, high))
ratio = value(sd.alpha, low) / value(sd.alpha, high)
ddim_eps = (x_low - ratio * x_high) / (value(sd.sigma, low) - ratio * value(sd.sigma, high))  # PeRFlow's
forgot_alpha = (x_low - x_high) / (value(sd.sigma, low) - value(sd.sigma, high))
inside = (0.7, 0.62, 0.55)
on_line = max(
    float((td.jump(theirs, t) - (x_high + (t - high) / (low - high) * (x_low - x_high))).abs().max()) for t in inside
)
lands = max(
    float((td.jump(td.Prediction.of("eps", theirs.eps, td.jump(theirs, t), t, pieces), low) - x_low).abs().max())
    for t in inside
)
apart = max(float((td.jump(theirs, t) - td.jump(ours, t)).norm(dim=1).max()) for t in inside)
print(
    f"ε of the window: Δz/ΔNSR off the chord by {float((slope - ours.eps).abs().max()):.0e}, PeRFlow's by "
    f"{float((ddim_eps - ours.eps).abs().max()):.0e}"
)
print(
    f"PeRFlow's straight line is the jump on the pieces to {on_line:.0e}; from inside a window a jump lands on its "
    f"end to {lands:.0e}"
)
print(f"between the edges the two paths are up to {apart:.3f} apart")
print(f"control, Δx/Δσ with α forgotten: off by {float((forgot_alpha - ours.eps).abs().max()):.1f}")
assert max(float((slope - ours.eps).abs().max()), float((ddim_eps - ours.eps).abs().max()), on_line, lands) < 1e-12
assert float((theirs.eps - ours.eps).abs().max()) < 1e-12
assert float((forgot_alpha - ours.eps).abs().max()) > 0.1
key["window paths apart"] = apart

# %% [markdown]
# So the *target* is one and the same number; what differs is at which states between the edges the network is trained
# to predict it. The paths of four windows on the line, all through the same edges:

# %%
starts = sd.mix(T, eps, 1.0)[1:8:2]
corners = [line.flow(sd, starts, 1.0, float(s)) for s in edges]  # the exact states at the edges
snr_at = torch.exp(sd.lam(torch.linspace(0.02, 1, 400, dtype=torch.float64)))
figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.4), layout="constrained")
kinds = {"phased Rectified Diffusion": (sd, style.BLUE, "-"), "PeRFlow": (pieces, style.VERMILLION, "--")}
for schedule, color, dash in kinds.values():
    for m in range(M):
        lower, upper = float(edges[m]), float(edges[m + 1])
        p = td.chord(schedule, corners[m + 1], upper, corners[m], lower)
        times = [float(s) for s in torch.linspace(upper, max(lower, 0.02), 40, dtype=torch.float64)]
        states = torch.stack([td.jump(p, s) for s in times])[..., 0]
        snr = torch.exp(sd.lam(torch.tensor(times, dtype=torch.float64)))
        axes[0].plot(times, states, color=color, ls=dash, lw=1.8)
        near = snr <= 3
        axes[1].plot(
            snr[near],
            (states / sd.sigma(torch.tensor(times, dtype=torch.float64))[:, None])[near],
            color=color,
            ls=dash,
            lw=1.8,
        )
for s in edges[1:-1]:
    axes[0].axvline(float(s), color=style.CONTEXT_COLOR, zorder=0)
    axes[1].axvline(float(torch.exp(sd.lam(s))), color=style.CONTEXT_COLOR, zorder=0)
for name, (_, color, dash) in kinds.items():
    axes[0].plot([], [], color=color, ls=dash, lw=1.8, label=name)
axes[0].legend()
axes[0].set(xlim=(1, 0), xlabel=style.TIME_LABEL, ylabel="x", title="x against t: PeRFlow is straight")
axes[1].set(xlim=(0, 3), xlabel=style.SNR_LABEL, ylabel="y = x/σ")
axes[1].set_title("y against α/σ: phased Rectified Diffusion is straight")
plt.show()

# %% [markdown]
# Both are sampled with as many uniform steps as windows, or a multiple. Break it: with fewer steps, or a number that
# does not divide into windows, a jump crosses an edge at which the pair changes.

# %%
phased = {
    name: runs.load(id_)
    for name, id_ in {
        "PeRFlow": "ring-perflow",
        "phased Rectified Diffusion": "ring-rectified-diffusion-phased",
    }.items()
}
true_samples = [ring.mixture.sample(2000, SEED + 100 + k, dtype=torch.float32) for k in range(4)]


def sliced(a, b):
    return sliced_wasserstein(a, b, projections=32)


def far_from_data(samples):
    """The mean distance of samples to four sets of true ones."""
    return sum(sliced(samples, true) for true in true_samples) / len(true_samples)


ground = floor(sliced, lambda n, seed: ring.mixture.sample(n, seed, dtype=torch.float32), 2000).mean
counts = (1, 2, 3, 4, 8)
lines = []
for name, model in (phased | {"teacher": models["teacher"], "Rectified Diffusion": models["after"]}).items():
    far = {N: far_from_data(from_noise(model.denoiser, N, 2000).end) / ground for N in counts}
    key |= {f"{name}, {N} steps": far[N] for N in (1, 4)}
    lines.append(f"| {name} | " + " | ".join(f"{far[N]:.1f}" for N in counts) + " |")
head = "| distance / floor, uniform DDIM, one set of 2000 noises | " + " | ".join(f"{N} steps" for N in counts) + " |"
display(Markdown("\n".join([head, "|---" * (1 + len(counts)) + "|", *lines])))
for name in phased:
    assert key[f"{name}, 1 steps"] > 2 * key[f"{name}, 4 steps"]

# %% [markdown]
# ## What the deck says, and what we measured

# %%
display(
    Markdown(
        f"""
| the deck (slides 26 to 31) | measured here |
|---|---|
| a first-order ODE has the form $\\alpha_tx_0+\\sigma_t\\varepsilon$, and may be curved | S = \
{key["VP, rectified: S"]:.1f} on VP (before: {key["VP, exact model of the data: S"]:.1f}), and one jump exact to \
rounding |
| *(title)* straightness is not needed | nor enough: straight lines on VP miss by {jump_error:.2g} in one jump |
| it is straight after scaling, $y_t=\\frac{{\\alpha_t}}{{\\sigma_t}}x_0+\\varepsilon$ | yes, exactly; so a \
first-order model is first order on every schedule |
| retraining with pairs makes it so | C of a network falls {falls["C"]:.0f} times, the error of one jump \
{falls["one jump"]:.1f} times; S goes from {found["teacher"]["S"]:.2f} to {found["after"]["S"]:.2f}, and from \
{S_linear["teacher"]:.2f} to {S_linear["after"]:.3f} on the linear schedule |
| Algorithm 4: "Sample noise ε" (as printed in the text) | the method uses the stored pair. Fresh noise: \
{key["eps of a pair, fresh noise (as printed): paired"]:.2f} \
off after one jump, as before training; with the chord 0 |
| *(not said)* ε where $\\alpha_1>0$ | the stored noise itself is {key["eps of a pair, the noise itself: paired"]:.2f} \
off; the chord from where the teacher started is exact |
| Algorithm 4: loss in ε | the published code's is in $x_0$, which weighs an error in ε by NSR², {heaviest:.0f} at t = \
1 |
| it trains faster than rectified flow, because schedule and kind stay | from an ε-teacher the kind is what costs: \
{key["linear schedule, own kind, teacher predicts eps"]:.1g} for the schedule, \
{key["linear schedule, velocity (rectified flow), teacher predicts eps"]:.1f} for the velocity, in $\\hat x_0$, before \
any training. From our v-teacher the first after {UPDATES} updates, by 2 steps, was: {ahead} ({last[ahead]:.2f}; \
rectified flow {last["linear schedule, velocity (rectified flow)"]:.2f}) |
| phased: ε = Δz/ΔNSR | right as printed. PeRFlow has the same target, on a schedule of straight pieces. Four uniform \
DDIM steps: {key["phased Rectified Diffusion, 4 steps"]:.1f} and {key["PeRFlow, 4 steps"]:.1f} floors, the teacher by \
the same steps {key["teacher, 4 steps"]:.1f} |
"""
    )
)

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `None` and run the check below it. While an answer is `None`, the solution cell fills it
# in.
#
# **1.** A model on VE ($\alpha=1$) is first order. Is $x$ against $t$ a straight line, if $\sigma=80\,t^7$? And $x$
# against $\sigma$? Answer with a pair of booleans.

# %%
answer_1 = None

# %%
# Solution: x = x_0 + sigma eps is affine in sigma, and sigma is no affine function of t.
answer_1 = (False, True) if answer_1 is None else answer_1

# %%
ve = td.VE()
grid = torch.linspace(1, 0.2, 9, dtype=torch.float64)
walk = torch.stack([ve.mix(T, eps, s) for s in grid])[:, 0, 0]
in_t = bool(walk.diff().diff().abs().max() < 1e-9)
by_sigma = walk.diff() / ve.sigma(grid).diff()
in_sigma = bool(by_sigma.diff().abs().max() < 1e-9)
assert answer_1 == (in_t, in_sigma), f"not yet: measured {(in_t, in_sigma)}"
print("exercise 1: right")

# %% [markdown]
# **2.** Data with one Gaussian, $N(m,c^2)$, have $T(\varepsilon)=m+c\,\varepsilon$. Write the $\hat\varepsilon(x,t)$ of
# the rectified model, as a function of $x,\alpha,\sigma,m,c$.


# %%
def answer_2(x, alpha, sigma, m, c):
    return None


# %%
def solution_2(x, alpha, sigma, m, c):
    return (x - alpha * m) / (alpha * c + sigma)


if answer_2(0.0, 0.5, 0.5, 0.7, 0.5) is None:
    answer_2 = solution_2

# %%
m, c = 0.7, 0.5
model = Rectified(td.Cosine(), noise, m + c * noise)
x = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]
for t in (0.9, 0.5, 0.1):
    level = td.Cosine().levels(torch.tensor(t, dtype=torch.float64))
    gap = float((answer_2(x, level.alpha, level.sigma, m, c) - model(x, t).eps).abs().max())
    assert gap < 1e-9, f"not yet: off by {gap:.2g} at t = {t}"
print("exercise 2: right")

# %% [markdown]
# **3.** A student that predicts $\varepsilon$ on Stable Diffusion's table has a *constant* error $\delta$ in
# $\hat\varepsilon$ at $t=1$. How large a $\delta$ may it have, for a one-step sample that is off by 0.1 at most?

# %%
answer_3 = None

# %%
# Solution: the error in x_0 is NSR times that in eps.
answer_3 = 0.1 / math.sqrt(heaviest) if answer_3 is None else answer_3

# %%
wrong_eps = td.Prediction.of("eps", eps + answer_3, sd.mix(T, eps, 1.0), 1.0, sd)
missed = float((td.jump(wrong_eps, 0.0) - T).abs().max())
assert math.isclose(missed, 0.1, rel_tol=0.01), f"not yet: with your δ the sample is off by {missed:.3g}"
key["exercise 3"] = answer_3
print(f"exercise 3: right, {answer_3:.4f}: less than a hundredth")

# %% [markdown]
# **4.** Move the network of section 3 *back*: how far apart are 4 steps of `ring-rectified-diffusion` on its own table,
# and the same 4 noise levels visited on the linear schedule? Write the times on the linear schedule (5,), from the own
# times `own_ts` (5,). (`schedule.t_of_lam` inverts `schedule.lam`. Both walks are DDIM.)

# %%
own_ts = td.time_grid(table, 4, "uniform")
answer_4 = None

# %%
# Solution: the same lambda. Where the linear schedule could be noisier, the first step is from the same level.
answer_4 = td.Linear().t_of_lam(table.lam(own_ts)) if answer_4 is None else answer_4

# %%
D = models["after"].denoiser
x_own = table.prior((500, 2), SEED, dtype=torch.float32)
x_linear = x_own * float(td.Linear().sigma(answer_4[0]) / table.sigma(own_ts[0]))
here = td.solve(D, x_own, ts=own_ts, solver="ddim").end
there = td.solve(td.Rescheduled(D, td.Linear()), x_linear, ts=answer_4, solver="ddim").end
gap = paired_error(here, there).rms
assert gap < 1e-3, f"not yet: {gap:.3g} apart"
print("exercise 4: right, the same samples up to float32's rounding: DDIM knows noise levels, not times")

# %% [markdown]
# **5.** PeRFlow with one window only, $M=1$, on a table that begins with pure noise ($\alpha_1=0,\sigma_1=1$) and ends
# with data ($\alpha_0=1,\sigma_0=0$). Which named schedule of the library is its `PiecewiseLinear`? (So that PeRFlow is
# then…?)

# %%
answer_5 = None

# %%
# Solution: alpha = 1 - t, sigma = t: rectified flow's.
answer_5 = "linear" if answer_5 is None else answer_5

# %%
single = PiecewiseLinear(td.Cosine(), [0.0, 1.0])
named = td.schedule(answer_5)
s = torch.linspace(0, 1, 11, dtype=torch.float64)
assert torch.allclose(single.alpha(s), named.alpha(s)), f"not yet: {answer_5} has other levels"
assert torch.allclose(single.sigma(s), named.sigma(s)), f"not yet: {answer_5} has other levels"
print("exercise 5: right. PeRFlow in one window is rectified flow")

# %% [markdown]
# ## References
#
# * The deck, slides 26 (Algorithm 4), 27 (first-order ODE), 28 (phased), 29 to 31 (against rectified flow).
# * Wang et al., *Rectified Diffusion: Straightness Is Not Your Need in Rectified Flow*, arXiv 2410.07303: sec. 3.3
#   (first-order ODE), sec. 3.4 (phased).
# * Liu et al., *Flow Straight and Fast*, arXiv 2209.03003: eq. 1 (the loss), alg. 1 (reflow), sec. 2.2 (straightness).
# * Yan et al., *PeRFlow*, arXiv 2405.07510: alg. 1 (windows), sec. 3 (the parameterizations).
# * Salimans and Ho, *Progressive Distillation*, arXiv 2202.00512: sec. 4 ($v$, and losses as weights of one another).
# * Song et al., *DDIM*, arXiv 2010.02502: eq. 12. Lu et al., *DPM-Solver*, arXiv 2206.00927: prop. 3.1 (the exact
#   solution).

# %%
print("KEY_NUMBERS", json.dumps({name: float(f"{value:.6g}") for name, value in key.items()}))
