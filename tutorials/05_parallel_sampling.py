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
# # 05 · Parallel sampling: the staircase
#
# A sampler of $T$ steps seems to need $T$ calls in a row. It does not (slides 7 and 8): guess the *whole path*, take
# all $T$ steps from the guess in one batched call, add them up, repeat. *More* calls (NFE) buy fewer **rounds**, calls
# that wait for one another.
#
# **In this lesson (40 minutes)** you write Picard and Parareal, prove the bound, break it, learn where it pays.
# Needed: 02, 03.

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

from toydiff.studies.parallel_sampling import compare
from toydiff.plots import interactive, static, style
from toydiff.solvers import DDPM
from toydiff.solvers.parallel.parareal import parareal_rounds

# %%
SEED = 0
SIDE = 21  # of a lattice of starts
LENGTHS = (25, 100)
SEEDS = range(4)
SAMPLES = 256
T = 100
TARGET = 1e-2
COST = 0.01  # seconds that a network's call takes longer in section 7

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · All steps at once
#
# Points are numbered in *sampling* order, as in the deck: $x_0$ is the noise (not the data!), $x_T$ the sample.
# The deck iterates the integral equation $x^{k+1}_t=x_0+\int_0^t s(x^k_u,u)\,du$, $s$: the ODE's drift $dx/dt$. On a
# grid any one-step solver will do. Its step from point $j$ is $\Phi_j$, and moves the point by $\Phi_j(x_j)-x_j$:
#
# $$x^{k+1}_{i+1}=x_0+\sum_{j=0}^{i}\big(\Phi_j(x^k_j)-x^k_j\big).$$
#
# All moves start from the *old* path $x^k$; none waits for another: one **sweep** is one batched call.

# %% [markdown]
# **Why it cannot lose.** Claim: after $k$ sweeps the points $0\dots k$ are those of the sequential walk $x^\star$.
# *Start:* point 0 is where the walk starts. *Step:* if the points $0\dots k$ are right, so are the moves taken from
# them, and their sum telescopes: $x_0+\sum_{j\le k}(x^\star_{j+1}-x^\star_j)=x^\star_{k+1}$. So the exact points form a
# **staircase**: one more each sweep, whatever the model. (Slide 7 composes its steps $h_{t-1}\dots h_1$; by its own
# indices the first one is $h_0$.)

# %%
table = td.schedule("scaled-linear")
ts = td.time_grid(table, T, "uniform")
mixture = td.mixtures.random_mixture(SEED)
D = mixture.denoiser(table)
x = mixture.marginal(table, 1.0).sample(SAMPLES, SEED, dtype=torch.float64)

walk = td.solve(D, x, solver="ddim", ts=ts)
exact = td.reference(D, x)
floor = float((walk.end - exact).norm(dim=1).median())
print(f"step by step: {walk.nfe} calls in {walk.rounds} rounds; median distance to the exact flow {floor:.3f}")
key["sequential to exact"] = floor


# %% [markdown]
# Five Gaussians, Stable Diffusion's table, 100 DDIM steps, 256 samples; the walk step by step is the truth of this
# lesson. `all_steps` takes one DDIM step from each of $n$ points of each sample, in **one** call. A sweep is then two
# lines.
#
# **Predict before you run.** The bound says 100 sweeps. How many will do for ten digits?


# %%
def all_steps(D, xs, ts):
    """Phi_i(x_i) for all points at once. xs (n, B, 2), ts (n+1,) -> (n, B, 2)."""
    n, B = xs.shape[:2]
    t, s = ts[:-1].repeat_interleave(B), ts[1:].repeat_interleave(B)  # every row has its own times
    return td.jump(D(xs.flatten(0, 1), t), s).unflatten(0, (n, B))


def picard_sweep(path):
    moves = all_steps(D, path[:-1], ts) - path[:-1]
    return torch.cat([path[:1], path[0] + moves.cumsum(0)])


path = x.expand(T + 1, *x.shape)  # the first guess: nothing moves
by_hand = [path]
for _ in range(20):
    path = picard_sweep(path)
    by_hand.append(path)
by_hand = torch.stack(by_hand)

picard = td.solve(D, x, solver="picard:tolerance=none", ts=ts)  # goes on to the exact end
off = float((by_hand - picard.sweeps[:21]).abs().max())
print(f"20 sweeps by hand against solve(..., solver='picard'): largest difference {off:.1e}")
assert off < 1e-10

prefix = [float((picard.sweeps[k, : k + 1] - walk.xs[: k + 1]).abs().max()) for k in range(len(picard.sweeps))]
print(f"largest error on the staircase, over {len(prefix) - 1} sweeps: {max(prefix):.1g}")
print(f"end against the sequential one: {float((picard.end - walk.end).abs().max()):.1g}, in {picard.rounds} rounds")
assert max(prefix) < 1e-10
assert picard.rounds <= T
usual = td.solve(D, x, solver="picard", ts=ts)  # stops by its tolerance, 1e-3 of the noise level
display(static.sweeps(usual, mixture, exact=walk.xs, title="Picard: the whole path at once, again and again"))
moved = interactive.staircase(usual, mixture, exact=walk.xs, most=12, samples=12, title="Move the sweep")
display(HTML(interactive.embedded(moved, "sweeps")))
display(
    static.sweep_errors(
        td.solve(D, x, solver="picard:tolerance=1e-9", ts=ts),
        walk.xs,
        title="The staircase is the guarantee. What happens is far better",
    )
)

# %% [markdown]
# **Right of the black line, the staircase, nothing is promised. Yet there the error falls at all points together:** 12
# sweeps for ten digits. The dashed line, what the solver *accepted*, lags: it must be content with each of the 256
# samples, while colours show their median. Printed: 99 sweeps, not 100. A point that a sweep leaves unchanged to the
# last bit is accepted, and once that was a sweep early; a model in section 6 takes all 100.

# %% [markdown]
# ## 2 · Faster than any power
#
# The error at the sample, sweep by sweep: median, 95th percentile, slowest.


# %%
def quantile(path, truth, q):
    """The q-quantile over the samples of the distance at the end of the path, after each sweep: (K+1,)."""
    return path.errors(truth)[:, -1].quantile(q, dim=1)


def rounds_to_target(path, truth, q=0.5):
    """The rounds spent when that quantile was first at most TARGET."""
    return path.sweep_rounds[int((quantile(path, truth, q) <= TARGET).nonzero()[0])]


long = td.solve(D, x, solver="picard:tolerance=1e-12", ts=ts)
median = quantile(long, walk.xs, 0.5).numpy()
to_exact = (long.sweeps[:, -1] - exact).norm(dim=2).median(1).values
ks = np.arange(1, len(median))
factor = ks * median[1:] / median[:-1]
seen = [k for k in ks if k >= 3 and median[k] > 1e-13]  # the first sweeps still travel, the last ones are rounding
assert median[12] < 1e-10 < median[11]  # ten digits
L = float(np.median(factor[np.array(seen) - 1]))
key["picard L"] = L

figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.3), layout="constrained")
for q, color, line, name in (
    (0.5, style.BLUE, "o-", "median"),
    (0.95, style.ORANGE, "^--", "95th percentile"),
    (1.0, style.VERMILLION, "v:", "slowest"),
):
    left.semilogy(
        quantile(long, walk.xs, q).clamp(min=1e-15), line, ms=4, color=color, label=f"{name}, to the sequential end"
    )
left.semilogy(to_exact, "s-", ms=3, color=style.GREY, label="median, to the exact flow")
left.axhline(floor, color=style.FLOOR_COLOR, ls="--", lw=1)
left.axhline(TARGET, color=style.INK, ls=":", lw=1)
left.set(
    xlabel=style.SWEEP_LABEL,
    ylabel="distance at the sample",
    xlim=(-0.5, 25.5),
    ylim=(1e-15, 1e6),
    title="each sweep gains more than the one before",
)
left.legend(fontsize=9, loc="upper right")
right.plot(seen, factor[np.array(seen) - 1], "o-", color=style.BLUE, label=r"$k\,e_k/e_{k-1}$")
right.axhline(L, color=style.INK, ls="--", lw=1, label=f"its median, L = {L:.2f}")
right.set(xlabel=style.SWEEP_LABEL, ylim=(0, 2), title=r"the law: $e_k\approx e_{k-1}\,L/k$, a factorial")
right.legend()
plt.show()

for q, name in ((0.5, "median"), (0.95, "p95"), (1.0, "slowest")):
    key[f"picard rounds to 1e-2, {name}"] = rounds_to_target(long, walk.xs, q)
print({name: value for name, value in key.items() if "rounds" in name})
beyond = next(k for k, value in enumerate(median) if value < floor)
print(
    f"after {beyond} sweeps the median sample is nearer to the sequential end than that is to the exact flow "
    f"({floor:.3f})"
)
key["picard sweeps to the walk's own error"] = beyond
assert 0.75 < L < 0.85

# %% [markdown]
# **Why so few?** The error $e_k$ after $k$ sweeps is the integral of the one before, times how much the drift reacts to
# it. Integrate $k$ times: $L^k/k!$ (Picard's theorem; $L$: the drift's Lipschitz constant, integrated over time). The
# number $T$ of steps is not in it. The right panel finds the $k!$: $k\,e_k/e_{k-1}$ is flat, $L\approx0.8$. The grey
# curve bends where the sequential path is itself as wrong.

# %% [markdown]
# ## 3 · One formula, many choices
#
# $$x^{k+1}_{i+1}=\Phi_i(x^k_i)+G_i(x^{k+1}_i)-G_i(x^k_i),$$
#
# $G_i$ a cheap guess of what $\Phi_i$ does to a *change* of its input. It cancels where the point is right, so the
# staircase holds for every $G$.
#
# | $G_i(y)$ | method |
# |---|---|
# | $0$ | Jacobi |
# | $y$ | **Picard** |
# | $J_iy$, $J_i$ by secants over sweeps | **Broyden** |
# | $J_iy$, $J_i=\partial\Phi_i/\partial x$ | Newton ($2d$ calls more, $d$ coordinates) |
# | a coarse solver, on blocks | **Parareal** |
#
# Anderson (ParaTAA) mixes *whole paths* of earlier sweeps.


# %%
def iterate(phi, G, first, sweeps):
    """The formula above: paths (sweeps + 1, n + 1, B, 2).

    phi: old points (n, B, 2) -> where their steps lead. G(path) -> the function (i, y) of this sweep.
    """
    paths = [first]
    for _ in range(sweeps):
        old = paths[-1]
        step, guess, new = phi(old[:-1]), G(old), [old[0]]
        for i in range(len(step)):
            new.append(step[i] + guess(i, new[i]) - guess(i, old[i]))
        paths.append(torch.stack(new))
    return torch.stack(paths)


def phi(points):
    return all_steps(D, points, ts)


def jacobian(path, h=1e-5):
    """G = J y with the true J, by central differences: 2 d more calls, but no more rounds."""
    J = torch.stack(
        [(phi(path[:-1] + h * e) - phi(path[:-1] - h * e)) / (2 * h) for e in torch.eye(2, dtype=torch.float64)], 3
    )
    return lambda i, y: torch.einsum("bij,bj->bi", J[i], y)


first = x.expand(T + 1, *x.shape)
choices = {
    "0 (Jacobi)": lambda path: lambda i, y: 0 * y,
    "y (Picard)": lambda path: lambda i, y: y,
    "J y (Newton)": jacobian,
}
print("median distance to the sequential end, by sweep")
for name, G in choices.items():
    paths = iterate(phi, G, first, 5)
    errors = (paths[:, -1] - walk.end).norm(dim=2).median(1).values
    print(f"  G = {name:13}", "  ".join(f"{e:.0e}" for e in errors))
    if "Picard" in name:
        assert float((paths - by_hand[:6]).abs().max()) < 1e-10
    key[f"G = {name}, 3 sweeps"] = float(errors[3])

# %% [markdown]
# Jacobi gains its one point a sweep and *nothing else*: there the deck's bound is attained. Newton squares the error,
# but needs derivatives.
#
# **Predict before you run.** The library's four methods on four mixtures, in rounds to a distance of $10^{-2}$: does
# acceleration help the median sample? And the slow ones?

# %%
METHODS = ("picard", "anderson", "broyden", "parareal")
spent = {method: {0.5: [], 0.95: []} for method in METHODS}
curves = {}
for seed in SEEDS:
    other = td.mixtures.random_mixture(seed)
    D_ = other.denoiser(table)
    start = other.marginal(table, 1.0).sample(SAMPLES, seed, dtype=torch.float64)
    truth = td.solve(D_, start, solver="ddim", ts=ts).xs
    for method in METHODS:
        run = td.solve(D_, start, solver=f"{method}:tolerance=1e-6", ts=ts)
        for q, found in spent[method].items():
            found.append(rounds_to_target(run, truth, q))
        if seed == SEED:
            curves[method] = run.sweep_rounds, quantile(run, truth, 0.5), quantile(run, truth, 0.95), run.nfe

figure, (left, right) = plt.subplots(1, 2, figsize=(13, 4.6), layout="constrained", width_ratios=(1.3, 1))
for method, (rounds, typical, slow, _) in curves.items():
    seen_as = style.marking(method)
    line_style = {"color": seen_as.color, "ls": seen_as.line}
    drawn = slice(1, None) if rounds[0] == 0 else slice(None)  # a guess that cost nothing has no place on a log axis
    left.loglog(rounds[drawn], typical[drawn], marker=seen_as.marker, ms=5, label=method, **line_style)
    left.loglog(rounds[drawn], slow[drawn], lw=0.8, **line_style)
left.axhline(TARGET, color=style.INK, ls=":", lw=1)
left.axvline(T, color=style.INK, lw=1.2)
left.text(T, 3e-6, "sequential ", ha="right", color=style.INK, rotation=90)
left.set(
    xlabel=style.ROUNDS_LABEL,
    ylabel=style.SEQUENTIAL_ERROR_LABEL,
    ylim=(1e-6, 10),
    title="mixture 0: median thick, 95th percentile thin",
)
left.set_xticks(places := (1, 2, 5, 10, 20, 50, 100), [str(n) for n in places])
left.legend(loc="lower left")
for row, method in enumerate(METHODS):
    color, jitter = style.marking(method).color, np.linspace(-0.13, 0.13, len(SEEDS))
    right.semilogx(spent[method][0.5], row - 0.12 + jitter, "o", color=color, ms=6)
    right.semilogx(spent[method][0.95], row + 0.2 + jitter, "o", color=color, mfc="white", ms=6)
right.plot([], [], "o", color=style.INK, label=f"median of {SAMPLES} samples")
right.plot([], [], "o", color=style.INK, mfc="white", label="their 95th percentile")
right.set_yticks(range(len(METHODS)), METHODS)
right.set_xticks(places := (3, 5, 10, 20, 50), [str(n) for n in places])
right.minorticks_off()
right.set(xlabel="rounds to a distance of 0.01", title="four mixtures, a dot each", ylim=(3.7, -0.5))
right.legend(loc="lower left")
plt.show()

rows, mean = [], {}
for method in METHODS:
    cells = []
    for q, name in ((0.5, "median"), (0.95, "p95")):
        found = np.array(spent[method][q], float)
        key[f"rounds to 1e-2, {method}, {name}"] = found[SEED]
        mean[method, name] = found.mean()
        cells.append(f"{found.mean():.1f} ± {found.std(ddof=1):.1f} ({found.min():.0f} to {found.max():.0f})")
    rows.append(f"| `{method}` | {cells[0]} | {cells[1]} | {curves[method][3]} |")
display(
    Markdown(
        "\n".join(
            [
                "| method | rounds to 0.01, median | 95th percentile | NFE to tolerance 1e-6, mixture 0 |",
                "|---|---|---|---|",
                *rows,
            ]
        )
    )
)
assert mean["broyden", "median"] < mean["picard", "median"]
assert mean["anderson", "p95"] > mean["picard", "p95"]
assert mean["picard", "p95"] - mean["broyden", "p95"] < np.std(spent["broyden"][0.95], ddof=1)

# %% [markdown]
# Acceleration helps the *typical* sample, from 5 rounds to 4 or 3. The slow ones gain nothing beyond the spread of four
# mixtures. Judge a parallel sampler by its tail as well. (Parareal's round moves a block one *step*. A solver does not
# know its error: it goes on until its tolerance is met.)
#
# ## 4 · Coordinates matter
#
# DDIM in $z=x/\alpha$ is the *same* walk: same levels, same samples. To a parallel sampler it is another problem:

# %%
ve = td.VE()
ts_z = ve.t_of_lam(table.lam(ts))  # the same 100 noise levels
ts_z[-1] = 0.0
alpha = table.alpha(ts)[0]
D_z = mixture.denoiser(ve)
walk_z = td.solve(D_z, x / alpha, solver="ddim", ts=ts_z)
print(f"the same samples: largest difference {float((walk_z.end - walk.end).abs().max()):.1e}")
assert torch.allclose(walk_z.end, walk.end, atol=1e-10)

ts_ve = td.time_grid(ve, T, "uniform")  # VE's own levels, up to sigma = 80
x_ve = mixture.marginal(ve, 1.0).sample(SAMPLES, SEED, dtype=torch.float64)
walk_ve = td.solve(D_z, x_ve, solver="ddim", ts=ts_ve)
problems = {
    "x, scaled-linear": (D, x, ts, walk),
    "z = x/α, the same levels": (D_z, x / alpha, ts_z, walk_z),
    "VE, σ up to 80": (D_z, x_ve, ts_ve, walk_ve),
}
figure, ax = plt.subplots(figsize=(8.2, 4.4), layout="constrained")
lines = []
for (name, (model, start, times, truth)), dash in zip(problems.items(), ("-", "--", ":"), strict=True):
    found = {}
    for method in METHODS[:3]:
        run = td.solve(model, start, solver=f"{method}:tolerance=1e-6", ts=times)
        found[method] = rounds_to_target(run, truth.xs)
        key[f"{name}: {method}"] = found[method]
        if method != "anderson":
            errors = quantile(run, truth.xs, 0.5)
            ax.semilogy(errors[:26], dash, color=style.marking(method).color, lw=2, label=f"{method}, {name}")
    lines.append(f"| {name} | " + " | ".join(str(n) for n in found.values()) + " |")
ax.axhline(TARGET, color=style.INK, ls=":", lw=1)
ax.set(
    xlabel=style.SWEEP_LABEL,
    ylabel="median distance to the sequential end",
    ylim=(1e-5, 5e3),
    title="The same model in other coordinates",
)
ax.legend(fontsize=9)
plt.show()
display(Markdown("\n".join(["| rounds to 0.01 (median) | picard | anderson | broyden |", "|---|---|---|---|", *lines])))

# %% [markdown]
# Plain Picard needs two to three times the sweeps, and its error first *grows*. Two things differ. The guess "nothing
# moves" is of size 15 or 80 where data are of size 1. And the sum hands an error at one point on to all later points at
# *full size*, while the flow in $z$ shrinks everything. One factor cures both, the size of a state
# $S=\sqrt{\alpha^2+\sigma^2}$: guess $x_0S_i/S_0$, carry $G_i(y)=\frac{S_{i+1}}{S_i}y$. Which of the two does it?

# %%
S = torch.sqrt(1 + table.nsr(ts) ** 2)[:, None, None]  # in z
start_z = x / alpha


def steps_z(points):
    return all_steps(D_z, points, ts_z)


L_of = {}
for guess_name, guess in (("constant", start_z.expand(T + 1, *x.shape)), ("scaled", start_z * S / S[0])):
    for sum_name, G in (
        ("plain", lambda path: lambda i, y: y),
        ("scaled", lambda path: lambda i, y: S[i + 1] / S[i] * y),
    ):
        errors = (iterate(steps_z, G, guess, 15)[:, -1] - walk.end).norm(dim=2).median(1).values.numpy()
        needed = int(np.argmax(errors <= TARGET))
        late = np.arange(5, 14)
        L_of[sum_name] = float(np.median(late * errors[late] / errors[late - 1]))
        key[f"z: {guess_name} guess, {sum_name} sum"] = needed
        print(f"{guess_name:8} guess, {sum_name:6} sum: {needed:2} sweeps, L = {L_of[sum_name]:.1f}")
key["L, plain sum in z"] = L_of["plain"]

# %% [markdown]
# Mostly the **sum**: the plain one has $L\approx3$ in $z$. `anderson` and `broyden` are built with this factor, so they
# need (nearly) the same rounds on all schedules. "Picard needs $k$ sweeps" means little without coordinates.
#
# **Window and tolerance.** ParaDiGMS sweeps over a *window* only: settled points leave it, new ones enter. And it stops
# by a *tolerance*, relative to each point's noise level. Both trade rounds for calls:

# %%
figure, ax = plt.subplots(figsize=(8.2, 4.8), layout="constrained")
ax.loglog(walk.nfe, walk.rounds, "o", color=style.INK, ms=10)
ax.annotate("sequential", (walk.nfe, walk.rounds), (8, 2), textcoords="offset points")
tolerances = (
    (1e-1, style.ORANGE, "^"),
    (1e-2, style.BLUE, "o"),
    (1e-3, style.GREEN, "s"),
)
lines = []
for tolerance, color, mark in tolerances:
    runs = {
        w: td.solve(D, x, solver=f"picard:window={w},tolerance={tolerance}", ts=ts) for w in (2, 5, 10, 25, 50, 100)
    }
    ax.loglog(
        [run.nfe for run in runs.values()],
        [run.rounds for run in runs.values()],
        mark + "-",
        color=color,
        label=f"tolerance {tolerance:g}",
    )
    print(
        f"tolerance {tolerance:g}: "
        + ", ".join(f"W = {w} {run.rounds} rounds {run.nfe} NFE" for w, run in runs.items())
    )
    assert (runs[25].rounds < runs[100].rounds) == (tolerance == 1e-1)
    off = (runs[100].end - walk.end).norm(dim=1)
    lines.append(
        f"| {tolerance:g} | {runs[100].rounds} | {runs[100].nfe} | {off.median():.0e} | {off.quantile(0.95):.0e} | "
        f"{off.max():.0e} |"
    )
    if tolerance == 1e-3:
        for w, run in runs.items():
            ax.annotate(f"W = {w}", (run.nfe, run.rounds), (7, 4), textcoords="offset points", fontsize=9)
    if tolerance == 1e-3:
        for w, run in runs.items():
            key[f"window {w}: rounds"], key[f"window {w}: NFE"] = run.rounds, run.nfe
ax.set(
    xlabel=style.NFE_LABEL, ylabel=style.ROUNDS_LABEL, title="A wider window buys rounds with calls, until it does not"
)
ax.set_xticks(places := (100, 200, 400, 800), [str(n) for n in places])
ax.set_yticks(places := (10, 20, 50, 100), [str(n) for n in places])
ax.minorticks_off()
ax.legend()
plt.show()
display(
    Markdown(
        "\n".join(
            [
                "| tolerance (W = 100) | rounds | NFE | error: median | 95th percentile | largest |",
                "|---|---|---|---|---|---|",
                *lines,
            ]
        )
    )
)
assert key["window 10: NFE"] < key["window 25: NFE"] < 0.65 * key["window 100: NFE"]
assert key["window 25: rounds"] < 1.25 * key["window 100: rounds"]

# %% [markdown]
# At tolerance 0.001 a window of 25 has nearly all the gain for three fifths of the calls; at 0.1 it saves rounds too.
# Tolerance bounds the *change*, not the error.
#
# ## 5 · Break it: noise drawn anew, a sum one short
#
# With noise in every step the proof still holds, if each step's noise is **drawn once**. **Predict before you run:**
# what if it is drawn anew in each sweep? And if the sum runs over $j<i$?

# %%
draw = torch.Generator().manual_seed(SEED)
noises = torch.stack([torch.randn(x.shape, generator=draw, dtype=x.dtype) for _ in range(T)])
ancestral = td.solve(D, x, solver="ddpm", ts=ts, generator=SEED)  # draws the same noises, in the same order


def ddpm_sweep(path, noise):
    rows = path[:-1].flatten(0, 1)
    t, s = ts[:-1].repeat_interleave(len(x)), ts[1:].repeat_interleave(len(x))
    stepped, _ = DDPM().step(D, rows, t, s, (), noise.flatten(0, 1))
    moves = stepped.unflatten(0, (T, len(x))) - path[:-1]
    return torch.cat([path[:1], path[0] + moves.cumsum(0)])


def off_by_one(path):
    moves = all_steps(D, path[:-1], ts) - path[:-1]
    return torch.cat([path[:1], path[:1], path[0] + moves[:-1].cumsum(0)])  # the last move is never made


def watch(sweep, truth, sweeps=30):
    """Median error at the end, median change at the end, and the largest error on the staircase, after each sweep."""
    path, seen = first, []
    for k in range(1, sweeps + 1):
        new = sweep(path)
        stairs = float((new[: k + 1] - truth[: k + 1]).abs().max())
        seen.append([float((new[-1] - other).norm(dim=1).median()) for other in (truth[-1], path[-1])] + [stairs])
        path = new
    return np.array(seen).T


watched = {
    "DDPM, noise drawn once": watch(lambda path: ddpm_sweep(path, noises), ancestral.xs),
    "DDPM, new noise in each sweep": watch(
        lambda path: ddpm_sweep(path, torch.randn(noises.shape, generator=draw, dtype=x.dtype)), ancestral.xs
    ),
    "DDIM, sum over j < i": watch(off_by_one, walk.xs),
}
figure, axes = plt.subplots(1, 3, figsize=(14, 4), sharey=True, layout="constrained")
for ax, (name, (error, change, stairs)) in zip(axes, watched.items(), strict=True):
    ks = np.arange(1, len(error) + 1)
    ax.semilogy(ks, np.maximum(error, 1e-16), "o-", ms=4, color=style.VERMILLION, label="error to the sequential end")
    ax.semilogy(ks, np.maximum(change, 1e-16), "s--", ms=3, color=style.BLUE, label="change in this sweep")
    ax.semilogy(ks, np.maximum(stairs, 1e-16), ":", lw=2, color=style.INK, label="largest error on the staircase")
    ax.set(title=name, xlabel=style.SWEEP_LABEL)
axes[0].set_ylabel(f"distance (median of {SAMPLES})")
axes[1].legend(loc="lower left")
plt.show()
good, redrawn, slipped = watched.values()
key["noise once, 30 sweeps"] = bool(good[0][-1] < 1e-10)
key["new noise, 30 sweeps"], key["off by one, 30 sweeps"] = redrawn[0][-1], slipped[0][-1]
assert good[2].max() < 1e-10
assert redrawn[1][-1] > 0.5
assert slipped[1][-1] < 1e-10 < floor / 2 < slipped[0][-1] < 2 * floor
for method in METHODS[:3]:
    run = td.solve(D, x, solver=f"{method}:solver=ddpm,tolerance=1e-6", ts=ts, generator=SEED)
    key[f"ddpm: {method}"] = rounds_to_target(run, ancestral.xs)
    print(f"DDPM by {method:9}: {key[f'ddpm: {method}']} rounds to 0.01 instead of {T}")

# %% [markdown]
# Middle: it never converges, as the moves answer to noise that is no longer there. Right is the dangerous one: it
# **converges**, to a path one move behind. Its samples are off by about as much as the walk is off the exact flow, so
# no score of quality would notice. The staircase finds out after one sweep. *That a method has settled does not say
# where.*

# %% [markdown]
# ## 6 · Where it fails
#
# **The tail.** A whole lattice of starts. Left: how sensitive the *sequential* end is to its start, the largest
# singular value of $\partial x_T/\partial x_0$. Then: how many rounds each start needs until its error stays below
# 0.01. **Predict before you run:** where are the slow ones?

# %%
line = torch.linspace(-3, 3, SIDE, dtype=torch.float64)
lattice = torch.cartesian_prod(line, line)
across = td.solve(D, lattice, solver="ddim", ts=ts)
h = 1e-4
columns = [
    (
        td.solve(D, lattice + h * e, solver="ddim", ts=ts, keep="end").end
        - td.solve(D, lattice - h * e, solver="ddim", ts=ts, keep="end").end
    )
    / (2 * h)
    for e in torch.eye(2, dtype=torch.float64)
]
sensitivity = torch.linalg.svdvals(torch.stack(columns, 2))[:, 0]


def last_above(path, truth):
    """The rounds by which each sample's error has gone below TARGET for good, (B,)."""
    above = path.errors(truth)[:, -1] > TARGET
    return above.flip(0).cummax(0).values.sum(0)


slow = {
    m: last_above(td.solve(D, lattice, solver=f"{m}:tolerance=1e-4", ts=ts), across.xs) for m in ("picard", "anderson")
}
figure, axes = plt.subplots(1, 3, figsize=(14, 4.5), layout="constrained", sharey=True)
pictures = [(sensitivity.log10(), "Blues", "log₁₀ sensitivity", "how sensitive the end is")]
pictures += [(needed, style.SWEEP_COLORS, "rounds", f"rounds to 0.01: {m}") for m, needed in slow.items()]
most = max(int(needed.max()) for needed in slow.values())
for ax, (values, colors, label, title) in zip(axes, pictures, strict=True):
    limits = {} if label != "rounds" else {"vmin": 2, "vmax": most}
    image = ax.imshow(
        values.reshape(SIDE, SIDE).T,
        origin="lower",
        extent=(-3, 3, -3, 3),
        cmap=colors,
        interpolation="nearest",
        **limits,
    )
    figure.colorbar(image, ax=ax, label=label, shrink=0.85)
    ax.set(title=title, xlabel="start, first coordinate")
axes[0].set_ylabel("start, second coordinate")
plt.show()
sharp = sensitivity > sensitivity.quantile(0.95)
calm = sensitivity < sensitivity.median()
for m, needed in slow.items():
    print(
        f"{m:9} mean rounds: most sensitive 5 % of the starts {needed[sharp].double().mean():.1f}, calm half "
        f"{needed[calm].double().mean():.1f}; slowest {int(needed.max())}"
    )
for method in METHODS[:3]:
    alone = [td.solve(D, x[i : i + 1], solver=method, ts=ts).rounds for i in range(16)]
    together = [td.solve(D, x[:n], solver=method, ts=ts).rounds for n in (16, SAMPLES)]
    key[f"alone, {method}"], key[f"all together, {method}"] = float(np.mean(alone)), together[1]
    print(
        f"{method:9} to tolerance 1e-3: alone {np.mean(alone):.1f} rounds, 16 together {together[0]}, {SAMPLES} "
        f"together {together[1]}"
    )

# %% [markdown]
# On the borders between basins. A start there must *decide* between two modes, late, by a small difference; an error is
# multiplied instead of carried on, and $L$ is large. And **a batch waits for its slowest sample** (printed).
#
# Guidance multiplies how fast a prediction changes (lesson 04), and with it $L$. At the far end is a model whose value
# at one point says nothing of its values nearby: it predicts the data as $\cos(ax)$, $a$ large.


# %%
class Chaotic(td.Denoiser):
    """Predicts cos(a x): not a model of anything, but a valid denoiser with a Lipschitz constant of a."""

    def __init__(self, schedule, a):
        super().__init__(schedule)
        self.a = a

    def forward(self, x, t, cond=None):
        return td.Prediction.of("x0", torch.cos(self.a * x), x, t, self.schedule)


ring = td.mixtures.ring()
noise = table.prior((32, 2), SEED, dtype=torch.float64)
labels = torch.arange(32) % 8
scales, rates = (1.0, 3.0, 7.5, 15.0), (1, 10, 100)
figure, axes = plt.subplots(1, 2, figsize=(12, 4.1), sharey=True, layout="constrained")
for method in METHODS[:3]:
    seen_as = style.marking(method)
    line_style = {"color": seen_as.color, "marker": seen_as.marker, "ls": seen_as.line, "label": method}
    found = []
    for g in scales:
        settings = {"ts": ts, "cond": labels, "guidance_scale": g}
        truth = td.solve(ring.denoiser(table), noise, solver="ddim", **settings)
        found.append(
            rounds_to_target(
                td.solve(ring.denoiser(table), noise, solver=f"{method}:tolerance=1e-6", **settings), truth.xs
            )
        )
        if method == "picard":
            key[f"g = {g:g}: picard"] = found[-1]
    axes[0].plot(scales, found, **line_style)
    found = []
    for a in rates:
        model = Chaotic(table, a)
        truth = td.solve(model, x[:16], solver="ddim", ts=ts)
        run = td.solve(model, x[:16], solver=f"{method}:tolerance=none", ts=ts)
        found.append(rounds_to_target(run, truth.xs))
        if method == "picard" and a in (1, 100):  # in between, chaos makes a number of the last digit
            key[f"a = {a}: picard"], calls = found[-1], run.nfe
    axes[1].semilogx(rates, found, **line_style)
for ax in axes:
    ax.axhline(T, color=style.INK, lw=1.2)
axes[0].text(scales[0], T - 2, "sequential", va="top", color=style.INK)
axes[0].set(xlabel="guidance scale g", ylabel="rounds to 0.01 (median)", title="guidance on the ring of eight")
axes[1].set(xlabel="a", title="a chaotic model: data predicted as cos(ax)")
axes[1].set_xticks(rates, [str(a) for a in rates])
axes[1].minorticks_off()
axes[0].legend(loc="center right")
plt.show()
assert key["a = 100: picard"] == T
assert calls == T * (T + 1) // 2 == 5050
truth = td.solve(model, x[:16], solver="ddim", ts=ts).end
run = td.solve(model, x[:16], solver="broyden:tolerance=1e-6", ts=ts)
largest = float((run.end - truth).norm(dim=1).max())
print(f"a = 100, broyden, tolerance 1e-6: {run.rounds} rounds, largest distance to the sequential end {largest:.1g}")
assert run.rounds <= T

# %% [markdown]
# At $a=100$ Picard needs all 100 sweeps: no round is lost, but 5050 calls do what 100 would. And a tolerance promises
# nothing: a point that hardly moved is accepted, and the model multiplies its error.
#
# ## 7 · Wall-clock
#
# It pays where a call on many points takes hardly longer than on one. *Measured:* on the mixture, whose calls are
# nearly free (median of up to five runs). *Computed:* that median plus 10 ms a call, whatever the batch.

# %%
rows = compare("random", steps=LENGTHS, samples=64, seed=SEED, cost=0)
for row in rows:
    row |= {"cost_per_call": COST, "seconds_with_cost": row["seconds"] + row["calls"] * COST}
display(static.rounds(rows, target=TARGET, title="What is won, and what it costs"))
lines = []
for row in rows:
    if row["steps"] == T:
        lines.append(
            f"| {row['method']} | {row['rounds']} | {row['nfe']} | {row['seconds']:.3f} s | "
            f"{row['seconds_with_cost']:.2f} s | {row['error_to_sequential']:.0e} | {row['error_to_exact']:.3f} |"
        )
display(
    Markdown(
        "\n".join(
            [
                (
                    f"| T = {T} | rounds | NFE | seconds, measured | with {1000 * COST:.0f} ms a call, computed | "
                    "error to sequential | error to exact |"
                ),
                "|---" * 7 + "|",
                *lines,
            ]
        )
    )
)
print("rounds are counted until each of 64 samples, others than section 1's, has met the tolerance of 1e-3")
by_method = {row["method"]: row for row in rows if row["steps"] == T}
slower = by_method["picard"]["seconds"] / by_method["sequential"]["seconds"]
faster = by_method["sequential"]["calls"] / by_method["picard"]["calls"]
print(
    f"picard against step by step: {slower:.1f} times the seconds as measured; 1/{faster:.1f} of them where nothing "
    "but calls takes time"
)
assert faster > 4
for N in (5, 6, 8, 10):
    key[f"default solver, {N} rounds"] = float((td.solve(D, x, N).end - exact).norm(dim=1).median())
    print(
        f"`guarded` in {N:2} rounds, {N:2} NFE: median distance to the exact flow "
        f"{key[f'default solver, {N} rounds']:.3f}"
    )
print(
    f"100 steps of DDIM by picard in {usual.rounds} rounds, {usual.nfe} NFE: "
    f"{float((usual.end - exact).norm(dim=1).median()):.3f}"
)

# %% [markdown]
# **A rule.** A call on one point costs $c$, each further point in it $p\,c$. The walk takes $Tc$, a parallel run
# $[\,\text{rounds}+p\,(\text{NFE}-\text{rounds})\,]\,c$, and wins where that is less: long walks, few rounds, small
# $p$ (exercise 2). And $T$ hardly changes the sweeps: they belong to the *flow* (left panel).
#
# But a better solver, step by step, gets as far in no more rounds (printed). Parallel sampling is for a fixed sampler,
# the *same* samples, or noise in every step.

# %% [markdown]
# ## 8 · Parareal
#
# Cut the grid into $M$ blocks; $U^k_n$ is where block $n$ starts after $k$ iterations. The coarse solver $G$ (one DDIM
# step over a block) guesses all $U^0_n$ in sequence; the fine one $F$ walks through all blocks *in parallel*; then
# $U^{k+1}_{n+1}=F(U^k_n)+G(U^{k+1}_n)-G(U^k_n)$. It is `iterate` again, with $\Phi=F$. A block can start its next fine
# walk as soon as its own $U_n$ is known: **pipelined** (SRDS), $k$ iterations take $k\frac TM+M-k$ rounds.

# %%
BLOCKS = 10
per_block = T // BLOCKS


def fine(points):
    """Through all blocks in parallel, step by step inside: (BLOCKS, samples, 2) -> where the blocks end."""
    for i in range(per_block):
        t, s = (ts[i + j : T + j : per_block].repeat_interleave(len(x)) for j in (0, 1))
        points = td.jump(D(points.flatten(0, 1), t), s).unflatten(0, (BLOCKS, len(x)))
    return points


def coarse(i, y):
    return td.jump(D(y, ts[i * per_block]), ts[(i + 1) * per_block])


U = [x]
for n in range(BLOCKS):
    U.append(coarse(n, U[n]))  # the first guess: the coarse walk
by_hand = iterate(fine, lambda path: coarse, torch.stack(U), 5)
run = td.solve(D, x, solver=f"parareal:blocks={BLOCKS},tolerance=none", ts=ts)
off = float((by_hand[1:] - run.sweeps[1:6, ::per_block]).abs().max())
without = iterate(fine, lambda path: lambda i, y: 0 * y, torch.stack(U), 5)  # the control: no coarse correction
for name, paths in {"Parareal": by_hand, "control: no correction, G = 0": without}.items():
    errors = (paths[:, -1] - walk.end).norm(dim=2).median(1).values
    print(f"{name:30}" + "  ".join(f"{error:.0e}" for error in errors))
    key[f"{name}, 3 iterations"] = float(errors[3])
assert key["Parareal, 3 iterations"] < 0.1 * key["control: no correction, G = 0, 3 iterations"]
print(f"5 iterations by hand against solve(..., solver='parareal'): largest difference {off:.1e}")
assert off < 1e-10

model_agrees = True
lines = []
for blocks in (4, 5, 10, 20, 25):
    run = td.solve(D, x, solver=f"parareal:blocks={blocks},tolerance=none", ts=ts)
    predicted = [parareal_rounds(T, blocks, k) for k in range(blocks + 1)]
    model_agrees &= list(run.sweep_rounds) == predicted
    k = int((quantile(run, walk.xs, 0.5) <= TARGET).nonzero()[0])
    key[f"parareal {blocks} blocks: rounds"] = run.sweep_rounds[k]
    lines.append(
        f"| {blocks} | {k} | {run.sweep_rounds[k]} | {predicted[k]} | "
        f"{parareal_rounds(T, blocks, k, pipelined=False)} | {rounds_to_target(run, walk.xs, 0.95)} |"
    )
assert model_agrees
head = (
    "| blocks | iterations to 0.01 (median) | rounds, counted | rounds, formula | not pipelined | rounds, 95th "
    "percentile |"
)
display(Markdown("\n".join([head, "|---" * 6 + "|", *lines])))

# %% [markdown]
# Few iterations, but each costs $T/M$ rounds, so it is behind Picard here. (Rounds are counted until the *median* is
# within 0.01, as in section 3; section 7's table counts until the tolerance is met by *all* samples, which takes
# Parareal most of its iterations.) Its strength is memory: it moves $M$ points at a time instead of $T$. With $M=T$ it
# gains nothing (exercise 3).
#
# ## What the deck says / what we measured

# %%
display(
    Markdown(
        f"""
| the deck (slides 7, 8) | measured here |
|---|---|
| after $k$ sweeps the first $k$ points are exact | largest error on the staircase {max(prefix):.1g}, at every sweep \
(100 DDIM steps, float64) |
| so it is never slower than sequential denoising | true in *rounds*: at most {T}, and {key["a = 100: picard"]} on a \
chaotic model. In seconds no: {slower:.1f} times as slow on a cheap model |
| *(not said)* how many sweeps it takes | median to 0.01: {mean["picard", "median"]:.1f} rounds (Picard), \
{mean["anderson", "median"]:.1f} (Anderson), {mean["broyden", "median"]:.1f} (Broyden), mean of {len(SEEDS)} mixtures; \
95th percentile {mean["picard", "p95"]:.1f}, {mean["anderson", "p95"]:.1f}, {mean["broyden", "p95"]:.1f} |
| *(not said)* which coordinates | {key["x, scaled-linear: picard"]} sweeps in $x$, \
{key["z = x/α, the same levels: picard"]} in $x/\\alpha$, {key["VE, σ up to 80: picard"]} with σ up to 80, for the \
same data |
| *(not said)* what it costs | Picard to tolerance 1e-3: {usual.rounds} rounds, {usual.nfe} NFE instead of {T} |
| the proof composes $h_{{t-1}}\\dots h_1$ | the first step is $h_0$; a sum that is one step short converges, to a \
path that is {slipped[0][-1]:.2f} off |
| Parareal: coarse in sequence, fine in parallel | {key["parareal 10 blocks: rounds"]} rounds to 0.01 with 10 blocks, \
pipelined |
"""
    )
)

# %% [markdown]
# ## You can now
#
# * prove that Picard never needs more rounds than steps, and say why it usually needs far fewer;
# * write Jacobi, Picard, Newton and Parareal as one formula;
# * name two ways to break it, one of which converges;
# * say when parallel sampling pays, in calls and in seconds.
#
# In the app: *Picard and Parareal*. Next: buy calls with training (06).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** For data $N(0,c^2I)$ the best prediction of the data at $(x,t)$ is
# $\alpha_tc^2x/(\alpha_t^2c^2+\sigma_t^2)$. Write the $G$ for `iterate` with which *one* sweep is then the whole walk
# of DDIM: a function of the path that returns the function $(i,y)\mapsto G_i(y)$.


# %%
def gaussian_guess(alpha, sigma, c):
    """alpha, sigma (T + 1,): at the points of the grid. G: path -> (i, y) -> (B, 2)."""
    raise NotImplementedError


# %%
try:
    for c in (0.5, 2.0):
        D_gauss = td.GaussianMixture([[0.0, 0.0]], std=c).denoiser(table)
        true_path, gap = td.solve(D_gauss, x, solver="ddim", ts=ts).xs, {}
        for name, G in ("yours", gaussian_guess(*table.levels(ts)[:2], c)), ("Picard", choices["y (Picard)"]):
            swept = iterate(lambda points, D=D_gauss: all_steps(D, points, ts), G, first, 1)[1]
            gap[name] = float((swept - true_path).abs().max())
        assert gap["yours"] < 1e-9, f"not yet: with c = {c:g} one sweep is {gap['yours']:.2g} off"
        print(f"exercise 1: right; with c = {c:g} one sweep of Picard is {gap['Picard']:.2g} off")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** Each further point in a call costs the fraction $p$ of a lone call. From which $p$ on does a parallel
# run lose against the walk of $T$ steps?


# %%
def losing_p(T, rounds, nfe):
    """Numbers of steps, rounds and calls. A number."""
    raise NotImplementedError


# %%
try:
    p = losing_p(T, usual.rounds, usual.nfe)
    run_cost = usual.rounds + p * (usual.nfe - usual.rounds)
    assert math.isclose(T, run_cost, rel_tol=1e-6), (
        f"not yet: there the walk costs {T}, the parallel run {run_cost:.0f}"
    )
    print(f"exercise 2: right, {p:.2f} for Picard with tolerance 1e-3")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) With $G_i=\Phi_i$ one sweep would do. Why is that no free lunch? (b) A tolerance says "settled".
# Give two reasons why the samples may still be wrong. (c) Why does Parareal gain nothing with $M=T$ blocks, and how
# many rounds does it take?

# %% [markdown]
# ## References
#
# * The deck, slides 7 (Picard iteration and its lower bound) and 8 (Parareal).
# * Shih et al., *Parallel Sampling of Diffusion Models* (ParaDiGMS), arXiv 2305.16317: alg. 1 (window, tolerance, noise
#   drawn once).
# * Tang et al., *Accelerating Parallel Sampling of Diffusion Models* (ParaTAA), arXiv 2402.09970: sec. 3 (triangular
#   Anderson acceleration).
# * Selvam et al., *Self-Refining Diffusion Samplers* (SRDS), arXiv 2412.08292: Parareal for sampling, batched and
#   pipelined.
# * Gonzalez et al., *A Unifying Framework for Parallelizing Sequential Models with Linear Dynamical Systems*,
#   arXiv 2509.21716: Jacobi, Picard and Newton as choices of one matrix.
# * Fang and Saad, *Two classes of multisecant methods for nonlinear acceleration*, doi 10.1002/nla.617: Broyden and
#   Anderson as one family.
# * Lions, Maday and Turinici, *Résolution d'EDP par un schéma en temps « pararéel »*, 2001: Parareal.
# * Song et al., *DDIM*, arXiv 2010.02502: eq. 12. Ho et al., *DDPM*, arXiv 2006.11239: eq. 11.
