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
# Flow matching draws a straight line from noise to data and learns its velocity. *Reflow* trains again, on lines
# between the trained flow's **own** ends (slides 21, 22, 24 of the deck). The same regression, run twice: why would it
# give something new?
#
# **In this lesson (25 minutes)** you write both in 25 lines, see which pairs make a model fast, and break it three
# ways. Needed: lessons 00 and 01.

# %%
# %matplotlib inline
try:
    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import copy
import math

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import HTML, Markdown, display

from toydiff.catalog import METHODS
from toydiff.distill.flow_matching import flow_matching_loss
from toydiff.distill.rectified_flow import rectified_flow_loss
from toydiff.measure import floor, paired_error, sliced_wasserstein, straightness, wasserstein2
from toydiff.plots import interactive, static, style
from toydiff.problems import problem
from toydiff.runs import load, sample
from toydiff.training import Draws

# %%
SEED = 0
SAMPLES = 1000

linear = td.Linear()
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · Lines may cross, and the paths of an ODE may not
#
# Notation: $x_t=(1-t)\,x_0+t\,\varepsilon$, $t=1$ noise, $t=0$ data, velocity $v=dx/dt=\varepsilon-x_0$.
#
# Three Gaussians on the line, whose flow is known exactly. Four ways of drawing paths from noise to data, each path
# coloured by the mode where it ends:

# %%
line = td.GaussianMixture([[-1.5], [0.3], [1.8]], std=[0.3, 0.2, 0.4], weights=[0.4, 0.35, 0.25])
D_line = line.denoiser(linear, "velocity")
N = 4000
noise = torch.special.ndtri((torch.arange(N, dtype=torch.float64)[:, None] + 0.5) / N)  # equal parts of N(0, 1)
exact = line.flow(linear, noise, 1.0, 0.0)  # where the ODE takes it: the map from quantile to quantile
order = (
    (torch.arange(N, dtype=torch.float64) * (math.sqrt(5) - 1) / 2 % 1).argsort().argsort()
)  # well mixed: as good as independent
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
plt.show()

# %% [markdown]
# **Crossing lines make curved paths; the curves' ends make lines that do not cross.** Left: noise and data are drawn
# independently. Where many lines pass through one $(x_t,t)$, which is all that a network sees, least squares answers
# with their *mean* velocity, $v^\star(x,t)=\mathbb E[\varepsilon-x_0\mid x_t=x]$.
#
# Second: its path turns where lines crossed; one Euler step along the first tangent misses. Third: lines
# between the *curves' ends*. On the line an ODE keeps the order, so they **never cross**. Fourth: wrong order.

# %% [markdown]
# **Why do the mean velocities lead to the same distribution?** (Liu et al., theorem 3.3.) For any smooth $\varphi$,
#
# $$\tfrac{d}{dt}\mathbb E\,\varphi(x_t)=\mathbb E[\nabla\varphi(x_t)\cdot\dot x_t]
# =\mathbb E[\nabla\varphi(x_t)\cdot v^\star(x_t,t)]=-\textstyle\int\varphi\,\nabla\!\cdot(p_tv^\star)\,dx .$$
#
# (The mean given $x_t$ first, then by parts.) So $\partial_tp_t=-\nabla\!\cdot(p_tv^\star)$: the continuity equation
# of points that move with $v^\star$ (lesson 00). They start with the density $p_1$, so they have $p_t$ at every $t$,
# the data's at $t=0$. Only the *pairs* are new.

# %% [markdown]
# ## 2 · The algorithm, line by line
#
# Slide 24: Algorithm 1 (flow matching) and Algorithm 3 (rectified flow) differ in where the pair comes from. The rest
# is shared: sample $t$, compute $x_t$, predict $\hat v$, square, backpropagate. Data: eight Gaussians on a ring.

# %%
ring = td.mixtures.ring()
dataset = ring.sample(50_000, SEED).float()


class Net(torch.nn.Module):
    """(x_t, t) -> velocity; x (B, 2), t (B,)."""

    def __init__(self, hidden=96):
        super().__init__()
        sizes = [(3, hidden), (hidden, hidden), (hidden, hidden)]
        layers = [layer for size in sizes for layer in (torch.nn.Linear(*size), torch.nn.SiLU())]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(hidden, 2))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[:, None].to(x)], 1))


# %%
def velocity_loss(net, x0, eps, t):
    x_t = (1 - t[:, None]) * x0 + t[:, None] * eps  # compute x_t
    return (net(x_t, t) - (eps - x0)).square().mean()  # predict the velocity; its squared error


def train(net, draw_pair, draw_time=torch.rand, updates=1500, batch=256, lr=3e-3):
    torch.manual_seed(SEED)
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
    for _ in range(updates):
        eps, x0 = draw_pair(batch)  # Algorithm 1: independent. Algorithm 3: a pair of the last flow
        loss = velocity_loss(net, x0, eps, draw_time(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return net


# %%
@torch.no_grad()
def walk(net, x, steps):
    for i in range(steps, 0, -1):  # Euler from t = 1 to 0
        x = x - net(x, torch.full((len(x),), i / steps)) / steps
    return x


def independent(n):
    return torch.randn(n, 2), dataset[torch.randint(len(dataset), (n,))]


def of(eps, x0):
    """Draws rows of stored pairs."""

    def draw(n):
        row = torch.randint(len(eps), (n,))
        return eps[row], x0[row]

    return draw


torch.manual_seed(SEED)
round_0 = train(Net(), independent)  # Algorithm 1
eps = torch.randn(8000, 2)
x0_hat = walk(round_0, eps, 50)  # the pairs: where its ODE takes each noise
round_1 = train(round_0, of(eps, x0_hat))  # Algorithm 3

# %% [markdown]
# That is all of reflow: the same `train`, on other pairs. Is it the library's method? With the same random numbers
# (`Draws` is the library's source of them) the losses must agree:

# %%
wrapped = td.NetDenoiser(round_0, linear, "velocity")
with torch.no_grad():
    draws = Draws(SEED)
    ours = velocity_loss(round_0, x0_hat, eps, draws.uniform(len(eps), 1e-3, 1.0))
    library = rectified_flow_loss(wrapped, x0_hat, eps, None, Draws(SEED))
    assert abs(float(ours / library) - 1) < 1e-5, (ours, library)
    draws = Draws(SEED)
    drawn_anew = draws.normal(4096, 2)
    again = velocity_loss(round_0, dataset[:4096], drawn_anew, draws.uniform(4096, 1e-3, 1.0))
    flow = flow_matching_loss(wrapped, dataset[:4096], None, Draws(SEED))
    assert abs(float(again / flow) - 1) < 1e-5, (again, flow)
print(f"round 0's loss: independent pairs {flow:.2f}, its own pairs {library:.2f} (library: the same)")

# %% [markdown]
# **Predict before you run.** Two controls, trained by the same `train` from the same `round_0`: *fresh noise*, the same
# samples but with $\varepsilon$ drawn anew; *turned round*, the stored pairs with $-\varepsilon$ for $\varepsilon$
# (still perfect noise, still one to one). Which of them samples well in one step? And in four?

# %%
nets = {
    "round 0: flow matching": round_0,
    "round 1: reflow": round_1,
    "control: fresh noise": train(round_0, lambda n: (torch.randn(n, 2), x0_hat[torch.randint(len(x0_hat), (n,))])),
    "control: turned round": train(round_0, of(-eps, x0_hat)),
}
start = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(SEED + 1))
truths = [ring.sample(SAMPLES, 10**6 + k) for k in range(2)]
by_euler = {"solver": "ddim", "grid": "uniform"}  # Euler, on the linear schedule


def apart(a, b):
    return sliced_wasserstein(a.double(), b.double(), projections=32)


PAIRS = 20  # of true sets, for the floor
ground = floor(apart, lambda n, seed: ring.sample(n, seed), SAMPLES, seeds=range(PAIRS))


def over_floor(cloud):
    """Sliced Wasserstein distance to true samples, as a multiple of what true samples show among themselves."""
    return float(np.mean([apart(cloud, truth) for truth in truths])) / ground.mean


denoisers = {name: td.NetDenoiser(net, linear, "velocity") for name, net in nets.items()}
display(
    static.reflow(
        {name: td.solve(D, start[:40], 50, **by_euler) for name, D in denoisers.items()},
        ring,
        one_step={name: walk(net, start[:40], 1) for name, net in nets.items()},
        title="Paths in 50 steps (lines), and where one step ends (rings)",
    )
)
live = {name: [over_floor(walk(net, start, steps)) for steps in (1, 2, 4, 50)] for name, net in nets.items()}
rows = [f"| {name} | " + " | ".join(f"{far:.1f}" for far in found) + " |" for name, found in live.items()]
display(Markdown("\n".join(["| distance / floor | 1 step | 2 | 4 | 50 |", "|---" * 5 + "|", *rows])))
print(
    f"spread of the floor over {PAIRS} pairs of {SAMPLES:,} true samples: {ground.std / ground.mean:.1f} of it; "
    "within it nothing is ahead"
)
assert live["round 1: reflow"][0] < 0.3 * min(live["round 0: flow matching"][0], live["control: fresh noise"][0])
assert live["control: turned round"][2] > 2 * live["round 1: reflow"][2]

# %% [markdown]
# Reflow: any number of steps gives the same. It learns round 0's samples, errors included (section 5).
#
# *Fresh noise* is flow matching again. Good samples and good noise do not help: all lies in who is paired with whom.
# *Turned round* is nearly right in one step, since at $t=1$ the point *is* the noise and nothing has crossed. In the
# middle all lines meet, and more steps get worse.

# %% [markdown]
# **Two traps in the deck.** *Signs:* slide 22 writes $X_t=tX_1+(1-t)X_0$ with $X_0$ the noise, slide 24 has $x_0$ the
# data: time runs the other way. And slide 24's target $x_0-\varepsilon$ is $-dx/dt$ in its own $t$: from $t$ down to
# $s$ the step is $x+(t-s)\,v_\text{deck}$.
#
# *Pairs:* Algorithm 3, as printed in the text, is given a pair, then samples $x_0$ and $\varepsilon$. The method uses
# the stored pair; the control above shows why.


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
# with $(1-t)\,y+t\,T^{-1}(y)=x$, where $T^{-1}=\Phi^{-1}\circ F$ is the noise that the ODE takes to $y$ ($F$, $\Phi$:
# the distribution functions of data and noise). The left side increases in $y$, because $T$ does: there is exactly one.


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
# One step is exact, as are three: "flexibility on inference steps" (slide 21).
#
# ## 4 · In the plane: can lines cross there?
#
# A flow in the plane keeps no order: two lines between its ends may meet at one place and time. The test: is
# $\varepsilon\mapsto(1-t)\,T(\varepsilon)+t\,\varepsilon$ one-to-one for each $t$? Neighbouring lines do not meet where
# the Jacobian $DT$ has no real eigenvalue $\le0$, for then $\det[(1-t)\,DT+t\,I]\ne0$. That is local, so we try all
# pairs of a lattice too.


# %%
def jacobian(D, points, h=1e-4):
    """DT at points (n, 2), by central differences of the ODE's map: (n, 2, 2)."""
    e = h * torch.eye(2, dtype=torch.float64)
    ends = td.solve(D, torch.cat([points + e[0], points - e[0], points + e[1], points - e[1]]), 40, keep="end").end
    right, left, up, down = ends.chunk(4)
    return torch.stack([right - left, up - down], 2) / (2 * h)


axis = torch.linspace(-2.9, 2.9, 24, dtype=torch.float64)  # an even number: 0, where modes meet, is not on it
lattice = torch.cartesian_prod(axis, axis)
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
# No crossing was found: pairs of the *exact* ODE of these mixtures make lines that do not cross, and one perfect reflow
# would be exact in the plane, too. This is a measurement on a lattice, not a theorem: data whose flow turns can cross.
# And the test can fail: with the noise turned by half a turn every line crosses.
#
# What is left after one reflow of the ring is the doing of *imperfect* pairs and networks.

# %% [markdown]
# ## 5 · What rounds of reflow do on the ring
#
# Three networks of the library, trained longer: flow matching (round 0, also called 1-rectified flow), reflow on its
# pairs (round 1) and on those of round 1 (round 2). **Straightness** $S$: the mean square
# of the velocity's change along a path, over that of its mean; 0: straight, at constant speed.
#
# **Predict before you run.** Which round gains most in one step? Does the transport cost
# $\mathbb E|\varepsilon-x_0|^2$ keep falling?

# %%
on_ring = problem("mixture:ring")
rounds = {
    "round 0": load("ring-flow-matching"),
    "round 1": load("ring-rectified-flow"),
    "round 2": load("ring-rectified-flow-2"),
}
x = linear.prior((48, 2), SEED)
walks = {name: td.solve(model.denoiser, x, 50, **by_euler) for name, model in rounds.items()}
one_step = {name: td.solve(model.denoiser, x, 1, **by_euler).end for name, model in rounds.items()}
display(
    static.reflow(
        walks,
        ring,
        one_step=one_step,
        title="After one reflow, one step ends where 50 do (S is of these 48 paths)",
    )
)
two = ("round 0", "round 1")
moved = interactive.reflow(
    {name: walks[name] for name in two},
    ring,
    one_step={name: one_step[name] for name in two},
    lines=24,
    title="Move the time",
)
display(HTML(interactive.embedded(moved, "reflow")))

# %%
counts = (1, 2, 50)
from_here = linear.prior((300, 2), SEED, dtype=torch.float64)


def cost(ends):
    """E|eps - x_0|^2 of pairs, and the least that any pairing of the same noise and samples has."""
    return float((ends - from_here).square().sum(1).mean()), wasserstein2(from_here, ends) ** 2


paths = {"the exact flow": td.solve(D_ring, from_here, 50, **by_euler)}
paths |= {name: td.solve(model.denoiser, from_here.float(), 50, **by_euler) for name, model in rounds.items()}
curves = {
    name: [over_floor(sample(model, on_ring, SAMPLES, n, **by_euler)[0].end) for n in counts]
    for name, model in rounds.items()
}
drawn_alone = 2 + float(ring.means.square().sum(1).mean() + ring.covariances.diagonal(dim1=1, dim2=2).sum(1).mean())
rows = [f"| independent pairs | | {drawn_alone:.2f} | | | | |"]
for name, path in paths.items():
    S, (paid, least) = straightness(path, normalised=True), cost(path.end.double())
    key[f"straightness, {name}"], key[f"transport cost, {name}"], key[f"least cost, {name}"] = S, paid, least
    measured = curves.get(name)
    cells = " | ".join(f"{far:.1f}" for far in measured) if measured else " | | "
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
assert all(key[f"transport cost, {name}"] < 1.01 * key[f"least cost, {name}"] for name in paths)

# %%
net, last = round_0, walk(round_0, start, 50)
flow_ends = td.solve(D_ring, start.double(), 50, keep="end").end.float()  # the exact flow, from the same noise
off, moved = [paired_error(last, flow_ends).rms], [0.0]
for k in range(1, 6):
    net = train(net, of(eps, x0_hat if k == 1 else walk(net, eps, 50)), updates=300)
    now = walk(net, start, 50)
    off, moved, last = [*off, paired_error(now, flow_ends).rms], [*moved, paired_error(now, last).rms], now
    key[f"live round {k}, off"] = off[-1]
print("trained live, rounds 0 to 5, RMS distance to the exact flow: " + ", ".join(f"{value:.3f}" for value in off))
print("RMS distance to the round before: " + ", ".join(f"{value:.3f}" for value in moved[1:]))
long = [paired_error(paths[name].end.double(), paths["the exact flow"].end).rms for name in rounds]
print("the library's three rounds, trained longer: " + ", ".join(f"{value:.3f}" for value in long))
assert off == sorted(off), "each short round ends farther from the exact flow"
assert max(long) < 1.1 * long[0]

# %% [markdown]
# **Errors add up.** A perfect reflow keeps the distribution; a trained one adds its own error, and never sees the data
# again. So (triangle inequality) the distance to the exact flow is at most the sum of all rounds' errors. Short rounds
# raise it each time; long ones by too little to be seen.
#
# **Transport cost.** Rectifying never raises $\mathbb E|\varepsilon-x_0|^2$ (theorem 3.5). The *first* fall is large:
# the flow's pairs cost nearly the least that these points allow.

# %% [markdown]
# ## 6 · InstaFlow: give up all times but one
#
# **Why is one step of a straight flow exact?** On $x_t=(1-t)x_0+t\varepsilon$ the velocity is $\varepsilon-x_0$ at
# *every* $t$. So what the model says at $t=1$ is the whole way, and Euler's step ends at
# $\varepsilon-1\cdot(\varepsilon-x_0)=x_0$. Distilling it into one step has nothing left to learn.

# %% [markdown]
# If one step is all that is wanted, why train at any other time than $t=1$? InstaFlow distils a rectified flow by the
# same loss with $t=1$ alone, which is naive distillation in velocity. The price: at all other times *nothing is
# trained*. On the line, let the training be perfect at $t=1$ and leave all other times as flow matching has them:


# %%
class OnlyAtNoise(td.Denoiser):
    """`trained` at t = 1, `before` at all other times."""

    def __init__(self, trained, before):
        super().__init__(linear, "velocity")
        self.trained, self.before = trained, before

    def forward(self, x, t, cond=None):
        return (self.trained if t == 1 else self.before)(x, t, cond)


starts, target_all = noise[20::40], exact[20::40]
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
#
# **Predict before you run.** The same live, on the ring: the loop of section 2 with `draw_time=torch.ones`, once from
# round 0, once from round 1, each with its own pairs. Which of the two loses more by a second step?

# %%
own_pairs = {"round 0": (round_0, x0_hat), "round 1": (round_1, walk(round_1, eps, 25))}
counts = (1, 2, 4, 8, 50)
curves = {}
for (name, (net, ends)), color in zip(own_pairs.items(), (style.GREY, METHODS["rectified-flow"].color), strict=True):
    only = train(net, of(eps, ends), draw_time=torch.ones, updates=800)
    for what, trained, dash in ((name, net, "o-"), (f"{name}, then t = 1 only", only, "v:")):
        curves[what] = [over_floor(walk(trained, start, steps)) for steps in counts], color, dash
figure, ax = plt.subplots(figsize=(8.5, 4.5), layout="constrained")
for name, (values, color, dash) in curves.items():
    ax.loglog(counts, values, dash, color=color, lw=2, label=name)
ax.axhspan(1 - ground.std / ground.mean, 1 + ground.std / ground.mean, color=style.CONTEXT_COLOR, lw=0, alpha=0.6)
ax.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1, label="floor: true samples, and its spread")
ax.set_xticks(counts, [str(n) for n in counts])
ax.set_yticks(levels := style.ticks(*ax.get_ylim()), [f"{level:g}" for level in levels])
ax.minorticks_off()
ax.set(xlabel="Euler steps (one call each)", ylabel="distance / floor")
ax.set_title("After reflow any number of steps will do; training at t = 1 only loses that")
ax.legend()
plt.show()
assert curves["round 0, then t = 1 only"][0][0] < 0.5 * curves["round 0"][0][0]
assert curves["round 0, then t = 1 only"][0][1] > 1.2 * curves["round 0, then t = 1 only"][0][0]

# %% [markdown]
# From round 0 the first step is mended, and the next ones make it worse. From round 1 nothing is lost in this short
# training: the weights hardly move. A long one moves them. In the deck's table (slide 31, "Rectified Flow
# (Distill)") FID is 23.7, 73.5 and 103.5 in 1, 2 and 4 steps. Of slide 21's advantages, one-step distillation keeps the
# first and gives up the second.
#
# ## What the deck says / what we measured

# %%
first, second, fresh = (live[name] for name in list(live)[:3])
display(
    Markdown(
        f"""
| the deck | measured here |
|---|---|
| $X_t=tX_1+(1-t)X_0$ (slide 22), $x_t=(1-t)x_0+t\\varepsilon$ (slide 24) | the same line with time reversed; the \
target $x_0-\\varepsilon$ is $-dx/dt$: 50 steps with the wrong sign end {key["wrong sign"]:.1f} from the exact flow, \
with the right one {key["right sign"]:.2f} |
| rectification (slides 22, 24) | on the line one perfect reflow is exact in any number of steps; before it one step \
is off by up to {key["flow matching, 1 steps"]:.1f} |
| Algorithm 3: which $\\varepsilon$ (slide 24)? | the stored one. One step of the network trained live: \
{second[0]:.1f} floors; with fresh noise {fresh[0]:.0f}, as before reflow ({first[0]:.0f}) |
| paths become straight | bundled rounds 0, 1, 2: $S$ = {key["straightness, round 0"]:.2f}, \
{key["straightness, round 1"]:.4f}, {key["straightness, round 2"]:.4f} |
| flexibility on inference steps (slide 21) | round 1, trained live, in 1, 4, 50 steps: {second[0]:.1f}, \
{second[2]:.1f}, {second[3]:.1f} floors; distilled at $t=1$ only, from round 0: \
{curves["round 0, then t = 1 only"][0][0]:.1f} in 1, {curves["round 0, then t = 1 only"][0][2]:.1f} in 4 |
| *(not said)* what it costs | transport cost {drawn_alone:.2f} of independent pairs, \
{key["transport cost, the exact flow"]:.2f} of the exact flow, {key["least cost, the exact flow"]:.2f} the least \
possible |
"""
    )
)

# %% [markdown]
# ## You can now
#
# * write flow matching and reflow as one loop, and say which line differs;
# * explain why crossing lines make a flow curved, and why a reflowed one is straight;
# * say what a pair has to be, and name two controls that expose a wrong pairing;
# * tell reflow from one-step distillation by its second step.
#
# In the app: *Reflow*. Next: straightness is not what counts (08).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** Data $N(m,c^2)$ on the line; the flow's map is $T(\varepsilon)=m+c\,\varepsilon$. Write the
# velocity $v(x,t)$ that a perfect reflow learns.


# %%
def perfect_velocity(x, t, m, c):
    """x (B, 1); t, m, c: numbers. (B, 1)."""
    raise NotImplementedError


# %%
try:
    gaussian = PerfectReflow(lambda y: (y - 0.7) / 0.5)
    for t in (1.0, 0.6, 0.2):
        wanted = gaussian(some, t).read("velocity")
        assert torch.allclose(perfect_velocity(some, t, 0.7, 0.5), wanted, atol=1e-9), (
            "not yet: which eps has its line through x at t?"
        )
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** The same data, with $m=0$, and the pairs turned round: $x_0=-c\,\varepsilon$. At one time *all* lines
# meet in one point, and no network can tell them apart. Which time?


# %%
def meeting_time(c):
    """c: a positive number. A number in (0, 1)."""
    raise NotImplementedError


# %%
try:
    for c in (0.5, 2.0):
        met = linear.mix(-c * noise, noise, torch.tensor(meeting_time(c), dtype=torch.float64))
        assert float(met.std()) < 1e-6, f"not yet: with c = {c:g} the points are still {float(met.std()):.2f} apart"
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) In the figure of the plane many reflowed paths cross as *drawn*. Why does that do no harm?
# (b) Somebody reflows a bad flow ten times. Do its samples get better?

# %% [markdown]
# ## References
#
# * The deck, slides 21 (advantages), 22 (linear interpolation, rectification), 24 (Algorithms 1 and 3) and the table of
#   slide 31.
# * Liu, Gong and Liu, *Flow Straight and Fast: Learning to Generate and Transfer Data with Rectified Flow*,
#   arXiv 2209.03003: eq. 1, alg. 1, theorems 3.3 (marginals), 3.5 (convex costs), 3.7 (straightness).
# * Lipman et al., *Flow Matching for Generative Modeling*, arXiv 2210.02747: eq. 23.
# * Liu et al., *InstaFlow: One Step is Enough for High-Quality Diffusion-Based Text-to-Image
#   Generation*, arXiv 2309.06380: eq. 5.
# * Song et al., *DDIM*, arXiv 2010.02502: eq. 12, of which Euler on the linear schedule is a case.
