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
# # 07 · Rectified flow and reflow
#
# **What the deck claims** (slides 21, 22 and 24 of the lecture deck *The Principle and Application of Diffusion
# Acceleration*). Draw a straight line from noise to data, and predict its velocity: that is flow matching
# (Algorithm 1). Then *rectify*: take the trained flow's own pairs of noise and sample, draw straight lines
# between *them*, and train again (reflow, Algorithm 3). The result has "high-quality few-step generation",
# "flexibility on inference steps" and "simple forms".
#
# Why would the same regression, run twice, give something new? Because of one fact: **lines may cross, and the paths of
# an ODE may not.** We look at it on the line, where everything is exact, and then measure in the plane what is left of
# it.
#
# House notation: $x_t=(1-t)\,x_0+t\,\varepsilon$, $t=1$ noise, $t=0$ data, velocity $v=dx/dt=\varepsilon-x_0$.

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
import numpy as np
import torch
from IPython.display import Markdown, display

from toydiff.catalog import METHODS
from toydiff.distill.flow_matching import flow_matching_loss
from toydiff.problems.pairs import Pairs, Recipe, make_pairs
from toydiff.distill.rectified_flow import rectified_flow_loss
from toydiff.measure import floor, sliced_wasserstein, straightness, wasserstein2
from toydiff.plots import static, style
from toydiff.problems import MixtureProblem, problem
from toydiff.runs import load, sample, train
from toydiff.training import Draws

# %%
SEED = 0
FAST = os.environ.get("TOYDIFF_FAST") == "1"  # smaller sizes for tests; the numbers in KEY_NUMBERS do not depend on it
UPDATES = 25 if FAST else 300  # of each student that is trained here
SAMPLES = 1000

linear = td.Linear()
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # the numbers that the last cell prints

# %% [markdown]
# ## 1 · Lines that cross, and an ODE that cannot
#
# Three Gaussians on the line, whose flow is exact. Four ways of drawing paths from noise to data:

# %%
line = td.GaussianMixture([[-1.5], [0.3], [1.8]], std=[0.3, 0.2, 0.4], weights=[0.4, 0.35, 0.25])
D_line = line.denoiser(linear, "velocity")
N = 4000
noise = torch.special.ndtri((torch.arange(N, dtype=torch.float64)[:, None] + 0.5) / N)  # equal parts of N(0, 1)
exact = line.flow(linear, noise, 1.0, 0.0)  # where the ODE takes it: the map from quantile to quantile
order = (
    (torch.arange(N, dtype=torch.float64) * (math.sqrt(5) - 1) / 2 % 1).argsort().argsort()
)  # well mixed: as good as independent
couplings = {
    "independent (Algorithm 1)": (noise, exact[order]),
    "the ODE's pairs (reflow)": (noise, exact),
    "one-to-one, but turned round": (noise, exact.flip(0)),
}
few = torch.arange(60, N, 160)
ts = torch.linspace(1, 0, 101, dtype=torch.float64)
curved = td.solve(D_line, noise[few], solver="ddim", ts=ts).xs[..., 0]


def lines(x0):
    """The straight lines from the few noises to their samples x0, (times, lines)."""
    return ts[:, None] * noise[few, 0] + (1 - ts[:, None]) * x0[few, 0]


drawn = {
    "independent lines": lines(exact[order]),
    "the ODE that fits them": curved,
    "reflow: lines between its ends": lines(exact),
    "turned round": lines(exact.flip(0)),
}
figure, axes = plt.subplots(1, 4, figsize=(14, 4), sharey=True, layout="constrained")
for ax, (name, xs) in zip(axes, drawn.items(), strict=True):
    for path in xs.T:
        ends_at = int((path[-1] > -0.6).long() + (path[-1] > 0.9).long())
        ax.plot(ts, path, color=style.PATH_COLORS[ends_at], lw=1.2, alpha=0.8)
    ax.set(xlim=(1, 0), xlabel=style.TIME_LABEL, title=name)
axes[0].set_ylabel("x")
figure.suptitle("Coloured by the mode where a path ends", x=0.01, ha="left", fontweight="bold")
plt.show()

# %% [markdown]
# Left: noise and data are drawn independently, as in Algorithm 1, and the lines cross everywhere. A network sees only
# $(x_t,t)$. Where many lines pass through one point it cannot know on which one it is, and the least square makes it
# answer their *mean velocity*, $v^\star(x,t)=\mathbb E[\varepsilon-x_0\mid x_t=x]$. Following the means gives the
# second panel: it ends in the same distribution, but its paths had to turn aside where lines crossed. So they are
# curved, and one Euler step along the first tangent misses.
#
# Third panel: straight lines between the *ends of the curves*. On the line, the ODE keeps the order of points, so that
# these lines **never cross**, and then each point knows its line.
#
# ## 2 · Algorithms 1 and 3 are one regression
#
# In the library each has its own loss, and they differ in one line: Algorithm 1 draws its noise, Algorithm 3 is given
# that of the pair. Give slide 24's Algorithm 3 a noise that is drawn, and it is Algorithm 1, to the last bit:

# %%
on_line = MixtureProblem(line, "three Gaussians on the line", linear)
untrained = on_line.student(linear, "velocity")
pairs = Pairs(noise.float(), exact.float(), None, {"problem": on_line.name, "nfe": 0})


def independent(draws):
    """A batch of data, and noise that knows nothing of it."""
    x0, _ = draws.rows(on_line.data, 256)
    return x0, draws.normal(256, 1)


def paired(draws):
    """A batch of the ODE's pairs."""
    x0, eps, _ = pairs.draw(linear, 256, draws)
    return x0, eps


losses = {}
for name, batch in {"Algorithm 1, flow matching": independent, "Algorithm 3, rectified flow": paired}.items():
    draws = Draws(SEED)
    x0, eps = batch(draws)
    together = float(torch.corrcoef(torch.cat([eps, x0], 1).T)[0, 1])
    with torch.no_grad():
        losses[name] = float(rectified_flow_loss(untrained, x0, eps, None, draws))
    print(
        f"{name}: loss of an untrained student {losses[name]:.2f}; correlation of noise and sample in a batch "
        f"{together:+.2f}"
    )
draws = Draws(SEED)
x0, _ = draws.rows(on_line.data, 256)
with torch.no_grad():
    assert float(flow_matching_loss(untrained, x0, None, draws)) == losses["Algorithm 1, flow matching"]

# %% [markdown]
# **Two traps in the deck.** *Signs:* slide 22 writes $X_t=tX_1+(1-t)X_0$ with $X_0$ the *noise*, slide 24
# $x_t=(1-t)x_0+t\varepsilon$ with $x_0$ the *data*: time runs the other way. And slide 24's target $x_0-\varepsilon$ is
# $-dx/dt$ in its own $t$: from $t$ down to $s$ the step is $x+(t-s)\,v_{\text{deck}}$, a plus where one expects
# $(s-t)$. *Pairs:* Algorithm 3 takes a pair $(\varepsilon,\hat x_0)$ as its input, and then goes on "Sample $x_0$ …",
# "Sample noise $\varepsilon$ …" in the text at hand, where struck-out lines may not show. The method uses the stored
# pair: with a new $\varepsilon$, Algorithm 3 would be Algorithm 1 on generated data. Both traps are checked below.


# %%
def euler(velocity, x, steps, sign=-1.0):
    """From t = 1 to 0: x + sign * h * velocity(x, t)."""
    for i in range(steps, 0, -1):
        x = x + sign / steps * velocity(x, i / steps)
    return x


deck = {"right sign": 1.0, "wrong sign": -1.0}
ends = {name: euler(lambda x, t: -D_line(x, t).read("velocity"), noise, 50, sign) for name, sign in deck.items()}
for name, end in ends.items():
    key[name] = float((end - exact).square().mean().sqrt())
    print(f"50 steps with the deck's velocity, {name}: RMS distance to the exact flow {key[name]:.3f}")
same = td.solve(D_line, noise, 50, solver="ddim", grid="uniform", keep="end").end
assert torch.allclose(ends["right sign"], same, atol=1e-10), "Euler on a flow is DDIM on the linear schedule"

# %% [markdown]
# ## 3 · One perfect reflow is exact on the line
#
# The perfectly rectified field needs no network. Given $(x,t)$, find the one pair whose line passes there: the $y=x_0$
# with $(1-t)\,y+t\,T^{-1}(y)=x$, where $T^{-1}=\Phi^{-1}\circ F$ is the noise that the ODE takes to $y$. The left side
# increases in $y$, because $T$ does, so that there is exactly one:


# %%
class PerfectReflow(td.Denoiser):
    """The velocity eps - y of the one line through (x, t), for the map y -> eps = noise_of(y); x (B, 1), t ()."""

    def __init__(self, noise_of):
        super().__init__(linear, "velocity")
        self.noise_of = noise_of

    def forward(self, x, t, cond=None):
        low, high = torch.full_like(x, -9.0), torch.full_like(x, 9.0)
        for _ in range(60):
            y = (low + high) / 2
            above = linear.mix(y, self.noise_of(y), t) > x
            low, high = torch.where(above, low, y), torch.where(above, y, high)
        return td.Prediction.of("velocity", self.noise_of(y) - y, x, t, linear)


def noise_of(y):
    """T^-1 on the line: the quantile of y among the data, as one of the noise."""
    below = torch.special.ndtr((y - line.means[:, 0]) / line.covariances[:, 0, 0].sqrt()) @ line.weights
    return torch.special.ndtri(below)[:, None]


perfect = PerfectReflow(noise_of)
some = noise[20::200]
target = exact[20::200]
for steps in (1, 3):
    off = float((td.solve(perfect, some, steps, solver="ddim", grid="uniform", keep="end").end - target).abs().max())
    before = float((td.solve(D_line, some, steps, solver="ddim", grid="uniform", keep="end").end - target).abs().max())
    key[f"flow matching, {steps} steps"] = before
    print(f"{steps} Euler steps: largest error {off:.0e} after one reflow, {before:.2f} before it")
    assert off < 1e-9 < before

# %% [markdown]
# One step, exact, for data that are far from Gaussian; and with three steps the same: "flexibility on inference steps".
#
# **The control** is Algorithm 3 with $\varepsilon$ sampled anew. To compare couplings without a network,
# take the student that a least square would give if the network could do anything: at $(x,t)$ it answers the average
# velocity of all pairs whose line passes within a small distance (0.02) of $x$. The same student, three couplings:


# %%
class Averages(td.Denoiser):
    """The mean velocity of all pairs (eps, x_0), (N, 1), whose line at time t () passes about `blur` from x."""

    def __init__(self, eps, x0, blur=0.02):
        super().__init__(linear, "velocity")
        self.eps, self.x0, self.blur = eps[:, 0], x0[:, 0], blur

    def forward(self, x, t, cond=None):
        passing = (1 - t) * self.x0 + t * self.eps
        weights = torch.softmax(-((x - passing) ** 2) / (2 * self.blur**2), dim=1)
        return td.Prediction.of("velocity", (weights @ (self.eps - self.x0))[:, None], x, t, linear)


def to_data(ends):
    """Wasserstein-2 distance to the data, of ends whose starts are equal parts of the noise: sort and compare."""
    return float((ends.sort(0).values - target_all.sort(0).values).square().mean().sqrt())


starts, target_all = noise[20::40], exact[20::40]
rows, one_step = [], {}
for name, (eps, x0) in couplings.items():
    student = Averages(eps, x0)
    two_at_random = torch.randint(N, (2, 20_000), generator=torch.Generator().manual_seed(SEED))
    crossing = float(
        ((eps[two_at_random[0]] - eps[two_at_random[1]]) * (x0[two_at_random[0]] - x0[two_at_random[1]]) < 0)
        .double()
        .mean()
    )
    remains = []
    for t in torch.linspace(0.05, 0.95, 10, dtype=torch.float64):
        x_t = linear.mix(x0[::20], eps[::20], t)
        remains.append(float((student(x_t, t).read("velocity") - (eps - x0)[::20]).square().mean()))
    ends = {n: td.solve(student, starts, n, solver="ddim", grid="uniform", keep="end").end for n in (1, 20)}
    one_step[name] = ends[1][:, 0]
    found = (crossing, float(np.mean(remains)), to_data(ends[1]), to_data(ends[20]))
    key |= {
        f"{what}: {name}": value for what, value in zip(("crossing", "loss", "1 step", "20 steps"), found, strict=True)
    }
    rows.append(f"| {name} | {100 * crossing:.0f} % | {found[1]:.3f} | {found[2]:.3f} | {found[3]:.3f} |")
head = "| coupling | pairs of lines that cross | loss that remains | 1 step: distance to data | 20 steps |"
display(Markdown("\n".join([head, "|---" * 5 + "|", *rows])))
shown = {
    "rectified-flow": "the ODE's pairs (reflow)",
    "Algorithm 3 as printed": "independent (Algorithm 1)",
    "turned round": "one-to-one, but turned round",
}
static.one_step_maps(
    starts[:, 0],
    {name: one_step[which] for name, which in shown.items()},
    target_all[:, 0],
    title="One Euler step after training on three couplings",
)

# %% [markdown]
# With fresh noise the loss keeps a large part that no network can remove, and one step gives everyone the mean. That
# the *marginals* are right, that each $\hat x_0$ is a perfect sample and each $\varepsilon$ perfect noise, does not
# help: all lies in who is paired with whom.
#
# The third coupling is instructive. It too is one-to-one, but the lowest noise goes to the highest sample, so *every*
# two lines cross. Its **one step is still right**: at $t=1$ the point *is* the noise, nothing has crossed yet. (That is
# all that naive distillation needs, lesson 06.) Its many steps are not: in the middle the lines are mixed up.
# Straightness is what makes *any* number of steps agree.
#
# ## 4 · In the plane: can lines cross there?
#
# A two-dimensional ODE keeps no order, so nothing forbids that the straight lines between its ends meet at one place at
# the same time. Whether they do can be tested: the map $\varepsilon\mapsto(1-t)\,T(\varepsilon)+t\,\varepsilon$ must be
# one-to-one for each $t$. Neighbouring lines do not cross if the Jacobian of $T$ has no real eigenvalue $\le0$, for
# then $\det\big[(1-t)\,DT+t\,I\big]\ne0$. That is local: it says nothing of two lines that start far apart. So we take
# $DT$ by finite differences on a lattice, and also try all pairs of its points.


# %%
def jacobian(D, points, h=1e-4):
    """DT at points (n, 2), by central differences of the ODE's map: (n, 2, 2)."""
    e = h * torch.eye(2, dtype=torch.float64)
    ends = td.solve(D, torch.cat([points + e[0], points - e[0], points + e[1], points - e[1]]), 40, keep="end").end
    right, left, up, down = ends.chunk(4)
    return torch.stack([right - left, up - down], 2) / (2 * h)


axis = torch.linspace(-2.9, 2.9, 24, dtype=torch.float64)  # an even number: 0, where modes meet, is not on it
lattice = torch.cartesian_prod(axis, axis)
ring = td.mixtures.ring()
D_ring = ring.denoiser(linear, "velocity")
half_turn = -torch.eye(2, dtype=torch.float64)
tested = {
    "ring": jacobian(D_ring, lattice),
    "ring, noise turned by 180°": jacobian(D_ring, lattice @ half_turn) @ half_turn,
    "random mixture 1": jacobian(td.mixtures.random_mixture(1).denoiser(linear, "velocity"), lattice),
    "random mixture 2": jacobian(td.mixtures.random_mixture(2).denoiser(linear, "velocity"), lattice),
}
for name, J in tested.items():
    eigen = torch.linalg.eigvals(J)
    real = eigen.real[eigen.imag.abs() < 1e-9]
    print(
        f"{name:27} least real eigenvalue of DT {float(real.min()):+.2f}; points with a real eigenvalue below 0: "
        f"{int((real < 0).sum() + 1) // 2} of {len(J)}"
    )
    key[f"least eigenvalue, {name}"] = float(real.min())
assert key["least eigenvalue, ring"] > 0 > key["least eigenvalue, ring, noise turned by 180°"]


def nearest_meeting(eps, x0):
    """Over all pairs of lines: the least distance at any t, relative to that at t = 1; 0 where two lines meet."""
    i, j = torch.triu_indices(len(eps), len(eps), 1)
    start, end = eps[i] - eps[j], x0[i] - x0[j]
    t = ((end * (end - start)).sum(1) / (end - start).square().sum(1)).clamp(0, 1)[:, None]  # of the least distance
    return ((1 - t) * end + t * start).norm(dim=1) / start.norm(dim=1)


ring_ends = td.solve(D_ring, lattice, 40, keep="end").end
key["nearest meeting, ring"] = float(nearest_meeting(lattice, ring_ends).min())
turned = float(nearest_meeting(lattice @ half_turn, ring_ends).min())
print(f"nearest meeting of two lines: ring {key['nearest meeting, ring']:.3f}, noise turned {turned:.1e}")
assert key["nearest meeting, ring"] > 0.02 > turned

# %% [markdown]
# No crossing was found here: on these mixtures, pairs of the *exact* ODE make lines that do not cross, and one perfect
# reflow would be exact in the plane, too. This is a measurement on a lattice for a few mixtures, not a theorem: the
# literature on rectified flow promises less, and data whose flow turns can cross. The test can fail: turn the noise by
# half a turn (it is still perfect Gaussian noise, and the pairs are still one-to-one), and every line crosses.
#
# So on the ring, whatever is left after one reflow is the doing of pairs and networks that are *not* perfect.
#
# ## 5 · What rounds of reflow do on the ring
#
# Three networks that ship with the library: flow matching (also called 1-rectified flow; here round 0), reflow on its
# pairs (round 1), and reflow on those of round 1 (round 2). **Straightness** $S$ is how much the velocity varies along
# a path, relative to the squared length of the way: 0 is straight at constant speed.

# %%
on_ring = problem("mixture:ring")
rounds = {
    "round 0": load("ring-flow-matching"),
    "round 1": load("ring-rectified-flow"),
    "round 2": load("ring-rectified-flow-2"),
}
x = linear.prior((48, 2), SEED)
fifty = {"solver": "ddim", "grid": "uniform"}
static.reflow(
    {name: td.solve(model.denoiser, x, 50, **fifty) for name, model in rounds.items()},
    ring,
    one_step={name: td.solve(model.denoiser, x, 1, **fifty).end for name, model in rounds.items()},
    title="Reflow on the ring: paths in 50 steps, and where one step ends (S: of these 48; the table: of 300)",
)

# %%
truths = [ring.sample(SAMPLES, 10**6 + k) for k in range(2)]


def apart(a, b):
    return sliced_wasserstein(a.double(), b.double(), projections=32)


lowest = floor(apart, lambda n, seed: ring.sample(n, seed), SAMPLES).mean
counts = (1, 2, 4, 8, 50)


def over_floor(model, steps):
    """Sliced Wasserstein distance of samples to true ones, as a multiple of what true samples show among themselves."""
    end = sample(model, on_ring, SAMPLES, steps, **fifty)[0].end
    return float(np.mean([apart(end, truth) for truth in truths])) / lowest


from_here = linear.prior((300, 2), SEED, dtype=torch.float64)


def cost(ends):
    """E|eps - x_0|^2 of pairs, and the least that any pairing of the same noise and samples has."""
    return float((ends - from_here).square().sum(1).mean()), wasserstein2(from_here, ends) ** 2


paths = {"the exact flow": td.solve(D_ring, from_here, 50, **fifty)}
paths |= {name: td.solve(model.denoiser, from_here.float(), 50, **fifty) for name, model in rounds.items()}
curves = {name: [over_floor(model, n) for n in counts] for name, model in rounds.items()}
drawn_alone = 2 + float(ring.means.square().sum(1).mean() + ring.covariances.diagonal(dim1=1, dim2=2).sum(1).mean())
rows = [f"| independent pairs | | {drawn_alone:.2f} | | | | |"]
for name, path in paths.items():
    S, (paid, least) = straightness(path, normalised=True), cost(path.end.double())
    key[f"straightness, {name}"], key[f"transport cost, {name}"], key[f"least cost, {name}"] = S, paid, least
    measured = curves.get(name)
    cells = " | ".join(f"{measured[counts.index(n)]:.2f}" for n in (1, 2, 50)) if measured else " | | "
    rows.append(f"| {name} | {S:.4f} | {paid:.3f} | {least:.3f} | {cells} |")
head = (
    "| | straightness S | transport cost | least possible for the same points | 1 step: distance / floor | 2 steps | "
    "50 steps |"
)
display(Markdown("\n".join([head, "|---" * 7 + "|", *rows])))
key["transport cost, independent"] = drawn_alone
for name, values in curves.items():
    key |= {f"{name}, {n} steps": value for n, value in zip(counts, values, strict=True)}
assert key["straightness, round 1"] < 0.5 * key["straightness, round 0"]
assert key["round 1, 1 steps"] < 0.5 * key["round 0, 1 steps"]

# %% [markdown]
# **Transport cost.** The theorem says that $\mathbb E|\varepsilon-x_0|^2$ never rises by rectifying, and indeed for
# every convex cost. The large fall is the *first* one, from independent pairs to those of the flow. What flow matching
# leaves is already all but the least cost that any pairing of these points can have, so that later rounds have nothing
# to gain there: they buy straightness. (Where a later round's cost seems to move in the last digits, compare the column
# beside it: the networks' samples differ a little, too.)
#
# ## 6 · InstaFlow: give up all times but one
#
# If one step is all that is wanted, why train at any other time than $t=1$? InstaFlow distils a rectified flow by
# Algorithm 3 with $t=1$ alone, which is naive distillation in velocity. The price: at all other times *nothing is
# trained*. On the line, let the training be perfect at $t=1$ and leave all other times as the flow matching model has
# them:


# %%
class OnlyAtNoise(td.Denoiser):
    """`trained` at t = 1, `before` at all other times."""

    def __init__(self, trained, before):
        super().__init__(linear, "velocity")
        self.trained, self.before = trained, before

    def forward(self, x, t, cond=None):
        return (self.trained if t == 1 else self.before)(x, t, cond)


for steps in (1, 2, 4, 8, 50):
    rms = {}
    for name, D in {"t = 1 only": OnlyAtNoise(perfect, D_line), "flow matching": D_line}.items():
        end = td.solve(D, starts, steps, solver="ddim", grid="uniform", keep="end").end
        key[f"{name}, {steps} steps on the line"] = rms[name] = float((end - target_all).square().mean().sqrt())
    print(
        f"{steps:2} steps: distilled at t = 1 only {rms['t = 1 only']:.3f}, flow matching {rms['flow matching']:.3f} "
        "(RMS distance to the exact flow)"
    )
assert key["t = 1 only, 1 steps on the line"] < 1e-9 < 0.1 < key["t = 1 only, 2 steps on the line"]

# %% [markdown]
# One step is exact; a second one spoils it, because it evaluates the model where it still has the old, curved flow.
# (Here it is still ahead of plain flow matching in as many steps; and with very many the first one hardly counts, and
# it *is* that old flow.) On the ring we train two such students live, for some hundred small updates, each with its
# teacher's own pairs: one from round 0, one from round 1, as InstaFlow does.

# %%
for name in ("round 0", "round 1"):
    made = make_pairs(
        on_ring, rounds[name].denoiser, Recipe(n=1000 if FAST else 4000, steps=25, seed=SEED + 7, **fifty)
    )
    changes = {"updates": UPDATES, "batch": 256, "ema": 0.97, "warmup": 20}
    student = train("instaflow", on_ring, teacher=rounds[name], pairs=made, changes=changes, seed=SEED).finish()
    curves[f"{name}, then t = 1 only"] = [over_floor(student, n) for n in counts]

figure, ax = plt.subplots(figsize=(8.5, 4.5), layout="constrained")
marks = (
    (METHODS["flow-matching"].color, "s-"),
    (METHODS["rectified-flow"].color, "o-"),
    (style.BLUE, "D--"),
    (METHODS["flow-matching"].color, "v:"),
    (METHODS["instaflow"].color, "v:"),
)
for (name, values), (color, mark) in zip(curves.items(), marks, strict=True):
    ax.loglog(counts, values, mark, color=color, label=name)
ax.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1, label="floor: true samples")
ax.set_xticks(counts, [str(n) for n in counts])
ax.set_ylim(bottom=0.9)  # the floor is in sight
ax.set_yticks(levels := style.ticks(*ax.get_ylim()), [f"{level:g}" for level in levels])
ax.minorticks_off()
ax.set(
    xlabel="Euler steps (one call each)",
    ylabel="distance / floor",
    title="After reflow any number of steps will do; training at t = 1 only loses that",
)
ax.legend(loc="upper right")
plt.show()
for name in ("round 0", "round 1"):
    after, own = curves[f"{name}, then t = 1 only"], curves[name]
    print(
        f"{name}, then t = 1 only: "
        + ", ".join(f"{n} steps {a:.2f} (before: {b:.2f})" for n, a, b in zip(counts, after, own, strict=True))
    )

# %% [markdown]
# From round 0 it is as on the line: the first step is mended, and further steps make it worse. From round 1 the other
# times were straight already, so that much less can be lost in a short training: not being trained there is harmless as
# long as the weights stay near. A long training takes them away: the deck's table (slide 31, "Rectified Flow
# (Distill)") has FID 23.7, 73.5 and 103.5 in 1, 2 and 4 steps. Of the advantages of slide 21, one-step distillation
# keeps the first and gives up the second.
#
# ## What the deck says, and what we measured

# %%
display(
    Markdown(
        f"""
| the deck | measured here |
|---|---|
| $X_t=tX_1+(1-t)X_0$ (slide 22), $x_t=(1-t)x_0+t\\varepsilon$ (slide 24) | the same line with time reversed; the \
target \
$x_0-\\varepsilon$ is $-dx/dt$: 50 steps with the wrong sign end {key["wrong sign"]:.1f} from the exact flow, with the \
right one {key["right sign"]:.2f} |
| rectification (slides 22, 24) | on the line one perfect reflow is exact in any number of steps; before it one step \
is off by up to {key["flow matching, 1 steps"]:.1f} |
| Algorithm 3: the stored pair, or $\\varepsilon$ anew (slide 24, as printed in the text)? | anew, nothing is \
rectified: one step is \
{key["1 step: independent (Algorithm 1)"]:.2f} from the data, with the paired $\\varepsilon$ \
{key["1 step: the ODE's pairs (reflow)"]:.3f} |
| paths become straight | ring: $S$ = {key["straightness, round 0"]:.3f}, {key["straightness, round 1"]:.4f}, \
{key["straightness, round 2"]:.4f} in rounds 0, 1, 2 |
| high-quality few-step generation (slide 21) | ring, one step: {curves["round 0"][0]:.1f}, \
{curves["round 1"][0]:.2f}, {curves["round 2"][0]:.2f} times the floor |
| flexibility on inference steps (slide 21) | round 1 in 1, 4, 50 steps: {curves["round 1"][0]:.2f}, \
{curves["round 1"][2]:.2f}, {curves["round 1"][-1]:.2f}; distilled at $t=1$ only: on the line \
{key["t = 1 only, 1 steps on the line"] + 0:.0f} off in 1 step, {key["t = 1 only, 2 steps on the line"]:.2f} in 2; on \
the ring, from round 0, {curves["round 0, then t = 1 only"][0]:.2f} in 1, {curves["round 0, then t = 1 only"][2]:.2f} \
in 4 |
| *(not said)* what it costs | transport cost {drawn_alone:.2f} of independent pairs, \
{key["transport cost, the exact flow"]:.2f} of the exact flow, {key["least cost, the exact flow"]:.2f} the least \
possible |
| *(not said)* do lines cross in the plane? | not on the ring: least real eigenvalue of $DT$ \
{key["least eigenvalue, ring"]:.2f} > 0 |
"""
    )
)

# %% [markdown]
# ## Exercises
#
# Put your answer in place of `None` and run the check below it. While an answer is `None`, the solution cell fills it
# in.
#
# **1.** Slide 22's time $t_{22}=0.3$. Which time is that here?

# %%
answer_1 = None

# %%
# Solution: their 0 is noise.
answer_1 = 0.7 if answer_1 is None else answer_1

# %%
X0, X1 = torch.tensor([[2.0]]), torch.tensor([[5.0]])  # slide 22: noise, data
assert torch.allclose(linear.mix(X1, X0, answer_1), 0.3 * X1 + 0.7 * X0), "not yet: which end is noise?"
print("exercise 1: right")

# %% [markdown]
# **2.** Two pairs $(\varepsilon,x_0)$ are drawn independently, on the line, from any two continuous distributions. With
# which probability do their lines cross?

# %%
answer_2 = None

# %%
# Solution: which of the two samples is the higher one is a fair coin, whatever the noise.
answer_2 = 0.5 if answer_2 is None else answer_2

# %%
rng = torch.Generator().manual_seed(SEED)
e, d = torch.randn(2, 20_000, generator=rng), torch.rand(2, 20_000, generator=rng) ** 3
counted = float(((e[0] - e[1]) * (d[0] - d[1]) < 0).double().mean())
assert abs(answer_2 - counted) < 0.02, f"not yet: counted, it is {counted:.3f}"
print(f"exercise 2: right, counted {counted:.3f}")

# %% [markdown]
# **3.** Data $N(m,c^2)$ on the line; the flow's map is $T(\varepsilon)=m+c\,\varepsilon$. Write the velocity $v(x,t)$
# of a perfect reflow.


# %%
def answer_3(x, t, m, c):
    return None


# %%
# Solution: x = (1 - t)(m + c eps) + t eps gives eps, and v = eps - (m + c eps).
def solution_3(x, t, m, c):
    eps = (x - (1 - t) * m) / ((1 - t) * c + t)
    return (1 - c) * eps - m


if answer_3(torch.ones(1), 0.5, 0.0, 1.0) is None:
    answer_3 = solution_3

# %%
gaussian = PerfectReflow(lambda y: (y - 0.7) / 0.5)
for t in (1.0, 0.6, 0.2):
    wanted = gaussian(some, t).read("velocity")
    assert torch.allclose(answer_3(some, t, 0.7, 0.5), wanted, atol=1e-9), (
        "not yet: which eps has its line through x at t?"
    )
print("exercise 3: right")

# %% [markdown]
# **4.** The same data with $m=0.7$, $c=0.5$. What does $\mathbb E|\varepsilon-x_0|^2$ fall from, and to, by the first
# rectification? Give both numbers.

# %%
answer_4 = None

# %%
# Solution: independent: m^2 + c^2 + 1; with x_0 = m + c eps: m^2 + (1 - c)^2.
answer_4 = (0.7**2 + 0.5**2 + 1, 0.7**2 + 0.5**2) if answer_4 is None else answer_4

# %%
x0 = 0.7 + 0.5 * noise
counted = [float((noise - x0[pick]).square().mean()) for pick in (order, slice(None))]
assert all(math.isclose(a, b, rel_tol=0.03) for a, b in zip(answer_4, counted, strict=True)), (
    f"not yet: measured {counted}"
)
print(f"exercise 4: right, measured {counted[0]:.2f} and {counted[1]:.2f}")

# %% [markdown]
# ## References
#
# * The deck, slides 21 (advantages), 22 (linear interpolation, rectification), 24 (Algorithms 1 and 3) and the table of
#   slide 31.
# * Liu, Gong and Liu, *Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow*,
#   arXiv 2209.03003: eq. 1, alg. 1, sec. 2.2 (straightness; marginals and convex costs).
# * Lipman et al., *Flow Matching for Generative Modeling*, arXiv 2210.02747: eq. 23.
# * Liu et al., *InstaFlow: One Step is Enough for High-Quality Diffusion-Based Text-to-Image
#   Generation*, arXiv 2309.06380: eq. 5.
# * Song et al., *DDIM*, arXiv 2010.02502: eq. 12, of which Euler on the linear schedule is a case.

# %%
print("KEY_NUMBERS", json.dumps({name: float(f"{value:.6g}") for name, value in key.items()}))
