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
# Reflow (07) is said to work because paths become *straight*. Slides 26 to 31 say no: matching pairs make a model's ODE
# **first order**, so that one step is exact. Its paths may be curved; schedule and kind of prediction can stay.
#
# **In this lesson (30 minutes)** you build such models exactly, train one beside a rectified flow in the same loop, and
# break each claim. Needed: lesson 07.

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
import torch
from IPython.display import Markdown, display

from toydiff import runs
from toydiff.distill.rectified_diffusion import own_mse, rectified_diffusion_loss, x0_huber
from toydiff.distill.rectified_flow import rectified_flow_loss
from toydiff.measure import first_orderness, floor, paired_error, sliced_wasserstein, straightness
from toydiff.plots import static, style
from toydiff.problems import problem
from toydiff.schedules import PiecewiseLinear
from toydiff.training import Draws

# %%
SEED = 0
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · First order, exactly
#
# $x_t=\alpha_tx_0+\sigma_t\varepsilon$, $t=1$ noise. With $z=x/\alpha$, $y=x/\sigma$, $\mathrm{NSR}=\sigma/\alpha$,
# along *any* model's ODE
#
# $$\frac{dz}{d\,\mathrm{NSR}}=\hat\varepsilon(x_t,t),\qquad\frac{dy}{d(\alpha/\sigma)}=\hat x_0(x_t,t).$$
#
# So slide 27's marks of a first-order *ODE* (lesson 03's order was a *solver's*) are one statement: (i)
# $\hat\varepsilon$ is constant along each path; (ii) $\hat x_0$ is; (iii) $z$ is straight in NSR, and
# $y=\frac\alpha\sigma x_0+\varepsilon$ in $\alpha/\sigma$; (iv) a `jump` (one DDIM step, the solver of order 1) between
# any two times is exact. Nothing is said of $x$ against $t$.

# %% [markdown]
# On the line such a model can be written down. The exact ODE takes noise $\varepsilon$ to $T(\varepsilon)$, which
# increases; so does $\alpha_tT(\varepsilon)+\sigma_t\varepsilon$, and at $(x,t)$ there is exactly one pair: least
# squares has nothing to average. The model that *names that pair* is what training on perfect pairs converges to.
#
# **Predict before you run.** Nine such pairs on VP (figure), and on three schedules (table). On which are the paths
# straight? On which is one jump exact?

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


def measured(D, start, ends, solver="ddim"):
    """A model's 200-step path from its start, its straightness and first-orderness, and one step's largest error."""
    path = td.solve(D, start, 200, solver=solver, grid="uniform")
    one = td.solve(D, start, 1, solver=solver, grid="uniform").end
    S, C = straightness(path, normalised=True), first_orderness(path, D.schedule, normalised=True)
    return path, S, C, float((one - ends).abs().max())


schedules = {"linear": td.Linear(), "cosine": td.Cosine(), "VP": td.VP()}
lines, followed = [], {}
for name, schedule in schedules.items():
    start = schedule.mix(T, eps, 1.0)
    models = {"exact model of the data": line.denoiser(schedule), "rectified": Rectified(schedule, noise, data)}
    for what, D in models.items():
        path, S, C, error = measured(D, start, T)
        lines.append(f"| {name} | {what} | {S:.2g} | {C:.2g} | {error:.2g} |")
        key[f"{name}, {what}: S"], key[f"{name}, {what}: one jump"] = S, error
        followed[what] = path, D(start, 1.0), S, error
    assert C < 1e-20  # of the rectified one
    assert error < 1e-12

figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")  # on the last schedule, VP
COLORS = [style.PATH_COLORS[b % 6] for b in range(len(eps))]
for ax, what, title in zip(
    axes,
    followed,
    ("Before: one jump misses by up to {error:.1f}", "Rectified: one jump lands on every end"),
    strict=False,
):
    path, at_noise, S, error = followed[what]
    jumps = torch.stack([td.jump(at_noise, t)[:, 0] for t in path.ts])
    for b, color in enumerate(COLORS):
        ax.plot(path.ts, path.xs[:, b, 0], color=color, lw=2)
        ax.plot(path.ts, jumps[:, b], color=style.INK, lw=1, ls=":")
    ax.scatter(torch.zeros(len(eps)), jumps[-1], marker="x", s=60, color=style.INK, zorder=3, clip_on=False)
    ax.set(xlim=(1, 0), ylim=(-3.6, 3.6), xlabel=style.TIME_LABEL, ylabel="x", title=title.format(error=error))
    ax.text(0.97, 3.2, f"S = {S:.1f}")
axes[0].plot([], [], color=style.GREY, lw=2, label="the path, in 200 steps")
axes[0].plot([], [], "x:", color=style.INK, label="one jump, as it goes")
axes[0].legend(loc="lower left")
path, snr = followed["rectified"][0], torch.exp(schedule.lam(followed["rectified"][0].ts))
near = snr <= 2.5
for b, color in enumerate(COLORS):
    axes[2].plot(snr[near], (path.xs[:, b, 0] / schedule.sigma(path.ts))[near], color=color, lw=2)
axes[2].set(xlim=(0, 2.5), xlabel=style.SNR_LABEL, ylabel="y = x/σ", title="Why: the same, as x/σ against α/σ")
figure.suptitle("The more bent paths are the ones that one jump follows exactly", x=0.01, ha="left", fontweight="bold")
plt.show()
head = "| schedule | model | S (0: straight in t) | C (0: first order) | largest error of one jump |"
display(Markdown("\n".join([head, "|---" * 5 + "|", *lines])))

# %% [markdown]
# **Curved, more than the model before, and still exact in one jump.** $S$ measures how much $dx/dt$ varies along a path
# (0: straight at constant speed), $C$ how much $\hat\varepsilon$ varies (0: first order). Only on the linear schedule
# is $S=0$ as well. A jump keeps $\hat\varepsilon$, not $dx/dt$: it needs $C=0$, the straight lines on the right.

# %% [markdown]
# ## 2 · Break it: straight, and not first order
#
# A model on VP that moves every noise to its sample on a straight line at constant speed:


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
_, S_straight, _, euler_error = measured(straight, start, T, "euler")  # Euler's step in t follows a straight line
_, _, C_straight, jump_error = measured(straight, start, T)
moved = td.Rescheduled(Rectified(vp, noise, data), td.Linear())
_, S_moved, _, moved_error = measured(moved, eps, T)
print(f"straight lines on VP: S = {S_straight:.1g}, C = {C_straight:.2g}")
print(f"  one Euler step in t is off by {euler_error:.1g}, one jump (DDIM) by {jump_error:.2g}")
print(
    f"the first-order model of VP, moved to the linear schedule: S = {S_moved:.2g}, one jump off by {moved_error:.2g}"
)
assert S_straight < 1e-12 < C_straight
assert euler_error < 1e-12 < 1 < jump_error
key["straight on VP: C"], key["straight on VP: one jump"] = C_straight, jump_error

# %% [markdown]
# Perfectly straight, and a jump misses by units: neither property implies the other. First order is a property of
# $z=x/\alpha$ against NSR: straight lines in $x$ at constant speed have it where $\alpha$ and $\sigma$ are linear in
# $t$, and nowhere else.
#
# The way back: moving a first-order *model* to another schedule keeps $z$ against NSR, so on the linear schedule it is
# straight. (What is left of $S$: VP's noise still holds a little signal, $\alpha_1>0$.)

# %% [markdown]
# ## 3 · The algorithm, line by line
#
# Slides 24 and 26: Algorithm 3 (rectified flow) and Algorithm 4 (Rectified Diffusion) side by side. The loop is lesson
# 07's, unchanged. The network is lesson 00's: $F(x_t,t)$, read as $\hat\varepsilon=\sigma_tx_t+\alpha_tF$ and
# $\hat x_0=\alpha_tx_t-\sigma_tF$ on the cosine schedule. A rectified flow takes over the same weights, and has to
# learn that $F$ now means $\varepsilon-x_0$.


# %%
class Net(torch.nn.Module):
    """F(x_t, t); x (B, 2), t (B,)."""

    def __init__(self, hidden=96):
        super().__init__()
        sizes = [(3, hidden), (hidden, hidden), (hidden, hidden)]
        layers = [layer for size in sizes for layer in (torch.nn.Linear(*size), torch.nn.SiLU())]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(hidden, 2))

    def forward(self, x, t):
        return self.layers(torch.cat([x, t[:, None].to(x)], 1))


def alpha_sigma(t):
    return torch.cos(t * math.pi / 2)[:, None], torch.sin(t * math.pi / 2)[:, None]


def train(net, draw_pair, loss_of, updates=1000, batch=256, lr=3e-3, watch=lambda k, net: None):
    torch.manual_seed(SEED)
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
    for k in range(updates):
        watch(k, net)
        eps, x0 = draw_pair(batch)
        loss = loss_of(net, x0, eps, torch.rand(batch))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    watch(updates, net)
    return net


# %%
def rectified_flow(net, x0, eps, t):  # Algorithm 3: linear schedule, velocity
    x_t = (1 - t[:, None]) * x0 + t[:, None] * eps
    return (net(x_t, t) - (eps - x0)).square().mean()


def rectified_diffusion(net, x0, eps, t):  # Algorithm 4: the teacher's schedule, and its eps
    alpha, sigma = alpha_sigma(t)
    x_t = alpha * x0 + sigma * eps
    eps_hat = sigma * x_t + alpha * net(x_t, t)
    return (eps_hat - eps).square().mean()


def rectified_diffusion_x0(net, x0, eps, t, c=1e-3):  # the same state and network; the published code's distance
    alpha, sigma = alpha_sigma(t)
    x_t = alpha * x0 + sigma * eps
    x0_hat = alpha * x_t - sigma * net(x_t, t)
    return (((x0_hat - x0).square() + c**2).sqrt() - c).mean()  # pseudo-Huber


ring = problem("mixture:ring")
dataset = ring.mixture.sample(50_000, SEED).float()
torch.manual_seed(SEED)
diffusion = train(  # the teacher: independent pairs make Algorithm 4 plain diffusion training (Algorithm 2)
    Net(), lambda n: (torch.randn(n, 2), dataset[torch.randint(len(dataset), (n,))]), rectified_diffusion, 1500
)
eps_all = torch.randn(8000, 2)
by_euler = {"solver": "ddim", "grid": "uniform"}
x0_all = td.solve(td.NetDenoiser(diffusion, td.Cosine(), "v"), eps_all, 50, **by_euler).end  # its pairs

# %%
# the library has one function for each: with the same random numbers the losses must be the same
on_linear = td.NetDenoiser(diffusion, td.Linear(), "velocity")
on_cosine = td.NetDenoiser(diffusion, td.Cosine(), "v")  # F is progressive distillation's v


def reads_eps(x, t):
    alpha, sigma = alpha_sigma(t)
    return sigma * x + alpha * diffusion(x, t)


as_eps = td.NetDenoiser(reads_eps, td.Cosine(), "eps")
with torch.no_grad():
    t = Draws(SEED).uniform(len(eps_all), 1e-3, 1.0)
    for name, ours, library in (
        ("Algorithm 3", rectified_flow, rectified_flow_loss(on_linear, x0_all, eps_all, None, Draws(SEED))),
        (
            "Algorithm 4",
            rectified_diffusion,
            rectified_diffusion_loss(as_eps, x0_all, eps_all, None, Draws(SEED), compare=own_mse),
        ),
        (
            "Algorithm 4, loss in x0",
            rectified_diffusion_x0,
            rectified_diffusion_loss(on_cosine, x0_all, eps_all, None, Draws(SEED), compare=x0_huber),
        ),
    ):
        value = float(ours(diffusion, x0_all, eps_all, t))
        assert abs(value / float(library) - 1) < 1e-4, (name, value, library)
        print(f"{name}: {value:.4f}, library {float(library):.4f}")

# %% [markdown]
# **Predict before you run.** Four students from the teacher's weights, on the same pairs in the same order: Algorithm
# 3, Algorithm 4, Algorithm 4 with the loss in $x_0$, and a control with *fresh noise*. Which is ahead after 16 updates?
# Which samples best in one step at the end? Whose paths are straight?

# %%
STUDENTS = {
    "rectified flow": (rectified_flow, style.ORANGE, "s-"),
    "Rectified Diffusion, loss in ε": (rectified_diffusion, style.SKY, "o--"),
    "Rectified Diffusion, loss in $x_0$": (rectified_diffusion_x0, style.BLUE, "o-"),
    "control: fresh noise, loss in $x_0$": (rectified_diffusion_x0, style.GREY, "x:"),
}


def stored(n):
    row = torch.randint(len(eps_all), (n,))
    return eps_all[row], x0_all[row]


def fresh(n):
    return torch.randn(n, 2), x0_all[torch.randint(len(x0_all), (n,))]


start = torch.randn(500, 2, generator=torch.Generator().manual_seed(SEED + 1))
goal = td.solve(on_cosine, start, 50, **by_euler).end  # the teacher's own ends, from noise that no student has seen
live, curves = {"the teacher, before": on_cosine}, {}
for name, (loss_of, _, _) in STUDENTS.items():
    wrap = (td.Linear(), "velocity") if loss_of is rectified_flow else (td.Cosine(), "v")
    curves[name] = {1: [], 2: []}

    def watch(k, net, curve=curves[name], wrap=wrap):
        if k in (0, 4, 16, 64, 256, 1000):
            for steps, rows in curve.items():
                end = td.solve(td.NetDenoiser(net, *wrap), start, steps, **by_euler).end
                rows.append((max(k, 1), paired_error(end, goal).rms))

    net = train(diffusion, fresh if name.startswith("control") else stored, loss_of, watch=watch)
    live[name] = td.NetDenoiser(net, *wrap)

figure, axes = plt.subplots(1, 2, figsize=(12.5, 4.4), sharey=True, layout="constrained")
for name, (_, color, dash) in STUDENTS.items():
    for ax, rows in zip(axes, curves[name].values(), strict=True):
        ax.loglog(*zip(*rows, strict=True), dash, color=color, lw=2, label=name)
for ax, steps in zip(axes, (1, 2), strict=True):
    ax.set_xticks([1, 4, 16, 64, 256, 1000], ["0", "4", "16", "64", "256", "1000"])
    ax.set_yticks(levels := style.ticks(*ax.get_ylim()), [f"{level:g}" for level in levels])
    ax.minorticks_off()
    ax.set(xlabel="updates", title=f"{steps} step{'s' * (steps > 1)}")
axes[0].set_ylabel("RMS distance to the teacher's own ends")
axes[0].legend(fontsize=9)
plt.show()
measured_live = {}
for name, D in live.items():
    path = td.solve(D, start, 50, **by_euler)
    S, C = straightness(path, normalised=True), first_orderness(path, D.schedule, normalised=True)
    measured_live[name] = S, C, paired_error(td.solve(D, start, 1, **by_euler).end, goal).rms
rows = [f"| {name} | {S:.2g} | {C:.2g} | {gap:.2f} |" for name, (S, C, gap) in measured_live.items()]
head = "| after 1000 updates | straightness S | first-orderness C | one jump: RMS distance to the teacher's 50 steps |"
display(Markdown("\n".join([head, "|---" * 4 + "|", *rows])))
before, ours = measured_live["the teacher, before"], measured_live["Rectified Diffusion, loss in $x_0$"]
assert ours[0] > before[0]
assert ours[1] < 0.02 * before[1]
by_flow, by_diffusion = (curves[name] for name in ("rectified flow", "Rectified Diffusion, loss in $x_0$"))
print(f"two steps, after 1000 updates: {by_flow[2][-1][1]:.2f} (rectified flow), {by_diffusion[2][-1][1]:.2f}")
assert by_flow[1][-1][1] < by_diffusion[1][-1][1]
assert ours[2] < measured_live["Rectified Diffusion, loss in ε"][2]
assert measured_live["control: fresh noise, loss in $x_0$"][2] > 3 * ours[2]

# %% [markdown]
# **Curvier than before, and good in one jump.** Rectified Diffusion's $S$ *rose*, its $C$ fell by two orders of
# magnitude. Fresh noise changes little.
#
# *Who learns faster?* Slides 29 to 31 say Rectified Diffusion. Here, with one seed, rectified flow is ahead by one
# step; by two the curves cross. A likely reason: $F\approx\alpha\varepsilon-\sigma x_0$ and the new target
# $\varepsilon-x_0$ are alike, whereas the deck's networks predict $\varepsilon$ (section 7;
# `tests/benchmarks/turning.py` trains such teachers to the end, three seeds each).

# %% [markdown]
# ## 4 · A network that was trained longer
#
# `ring-teacher` was trained on the ring on Stable Diffusion's table of noise levels; `ring-rectified-diffusion` starts
# with its weights and was trained on its pairs, same schedule, same kind of prediction. 50 steps of DDIM show the
# paths, one step from the same noise what they are worth.

# %%
models = {
    name: runs.load(id_) for name, id_ in {"teacher": "ring-teacher", "after": "ring-rectified-diffusion"}.items()
}
table = models["teacher"].denoiser.schedule


def from_noise(D, steps, n=1000, seed=SEED):
    """Samples of a model by uniform DDIM steps, from the same noise for all models."""
    return td.solve(D, D.schedule.prior((n, 2), seed, dtype=torch.float32), steps, **by_euler)


paths = {name: from_noise(model.denoiser, 50) for name, model in models.items()}
few = {
    name: td.Trajectory(path.ts, path.xs[:, :8], path.x0s[:, :8], path.nfe, path.rounds, path.seconds)
    for name, path in paths.items()
}
display(
    static.rescaled(
        few,
        table,
        dict.fromkeys(few, ring.mixture),
        measured=True,
        title="Curved before, curved after; straight in y only after (S, C: of these eight)",
    )
)
words = {
    "S": "straightness S of x against t",
    "C": "first-orderness C",
    "one jump": "RMS distance of one jump to 50 steps",
}
found = {}
for name, path in paths.items():
    found[name] = {
        "S": straightness(path, normalised=True),
        "C": first_orderness(path, table, normalised=True),
        "one jump": paired_error(from_noise(models[name].denoiser, 1).end, path.end).rms,
    }
    key |= {f"{name}: {what}": value for what, value in found[name].items()}
falls = {what: found["teacher"][what] / found["after"][what] for what in words}
lines = [
    f"| {text} | {found['teacher'][what]:.3g} | {found['after'][what]:.3g} | {falls[what]:.1f} |"
    for what, text in words.items()
]
display(Markdown("\n".join(["| 1000 paths | teacher | after | teacher / after |", "|---" * 4 + "|", *lines])))
assert falls["C"] > 5
assert falls["one jump"] > 3

# %% [markdown]
# Both fell, by the factors in the last column. $C$ is a mean *square*: the error goes with $\sqrt C$, whose factor is
# about 60. $S$ did not need to fall, and nothing in training makes it.
#
# Why is $C$ not 0? Not because paths of exact pairs cross: none of this ring were found to (07), on any schedule, since
# $x_t/\alpha_t=x_0+n\varepsilon$, $n$ = NSR. But a network and a solver made these pairs, and the student is not
# perfect.

# %% [markdown]
# **The schedule can be swapped afterwards.** If paths are first order, a sampler on any schedule ends at the same
# samples. (In *one* step every model does: it is evaluated at $t=1$ only.) Distance between the ends on another
# schedule and on its own, from the same noise:

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
# So a rectified diffusion model *contains* a rectified flow: on the linear schedule its paths are nearly straight,
# without having been trained there.
#
# ## 5 · Which noise belongs to a pair?
#
# Algorithms 3 and 4, as printed in the text, are given a pair and then sample $\varepsilon$. The method uses the stored
# pair; with fresh noise it is diffusion training (section 3).

# %% [markdown]
# A finer point. Where $\alpha_1>0$, as on Stable Diffusion's table, the teacher starts from $\sigma_1\varepsilon$,
# noise alone, not from $\alpha_1x_0+\sigma_1\varepsilon$. The first-order path from *there* to $x_0$ has
# $\varepsilon'=\varepsilon-x_0/\mathrm{NSR}_1$, the `chord` of the two ends. With $\varepsilon$ itself, training would
# see a trace $\alpha_1x_0$ of the answer that no sampler can supply. The perfect student of each choice, on the line,
# after one jump from $\sigma_1\varepsilon$:

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
    "fresh noise": line.denoiser(sd),
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
assert 0.01 < key["eps of a pair, the noise itself: paired"] < key["eps of a pair, fresh noise: paired"]

# %% [markdown]
# Fresh noise gives back the unrectified model, whose jump lands near the mean of the data. The noise itself is *nearly*
# right: every sample is pulled a little to the middle, and those at the border of two modes change sides.
#
# ## 6 · Which loss?
#
# Algorithm 4 squares $\hat\varepsilon-\varepsilon$; the published code compares $\hat x_0$ with $x_0$. At one state
# $\hat x_0-x_0=-\mathrm{NSR}\,(\hat\varepsilon-\varepsilon)$: a **weight** NSR². For $v=\alpha\varepsilon-\sigma x_0$
# (section 3's $F$; not 07's $v$, the velocity) it is $1/\alpha^2$, if $\alpha^2+\sigma^2=1$.

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

# %% [markdown]
# Few steps depend on $\hat x_0$ at the noisiest level, to which the square in $\varepsilon$ gives little weight.
# Perhaps that is why section 3's loss in $x_0$ jumps better; its pseudo-Huber distance differed too.
#
# ## 7 · Where does rectified flow lose its head start?
#
# It changes **two** things, schedule and kind. How wrong is it before its first update? The ring's exact denoiser
# writes one kind; we read it as the student's, on its schedule, at equal levels:

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
# RMS errors in $\hat x_0$, for data at distance 2 from the middle. For an $\varepsilon$-teacher what costs is the kind,
# not the schedule: read as a velocity it is wrong everywhere. For a $v$-teacher ($F$) both cost something.
#
# But in section 3 rectified flow *led* before any update! There a jump from $t=1$ was compared with its *end*. The
# teacher's $\hat x_0=-F$ is right, near the mean, and far from every end; misread, $\hat x_0=x_1-F$ is near the noise,
# which lies nearer.

# %% [markdown]
# ## 8 · Phased: one chord a window
#
# Slide 28 cuts $[0,1]$ into windows with edges $s_m$, and makes the path first order *within each*. No pairs are
# stored: the teacher walks one window from noised data, and the target is the `chord` of its ends,
#
# $$\varepsilon=\frac{x_{s_{m-1}}/\alpha_{s_{m-1}}-x_{s_m}/\alpha_{s_m}}{\mathrm{NSR}_{s_{m-1}}-\mathrm{NSR}_{s_m}}
# =\frac{\Delta z}{\Delta\mathrm{NSR}}.$$
#
# PeRFlow came first: a *straight line at constant speed* in each window. It is the same method on another schedule,
# $\alpha$ and $\sigma$ linear between the edges.

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
# The *target* is one and the same number; what differs is at which states between the edges a network is trained to
# predict it. Both are sampled with as many uniform steps as windows, or a multiple.
#
# **Break it:** with fewer steps, or a number that does not divide into windows, a jump crosses an edge at which the
# pair changes.

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


ground = floor(sliced, lambda n, seed: ring.mixture.sample(n, seed, dtype=torch.float32), 2000)
counts = (1, 2, 3, 4, 8)
lines = []
for name, model in (phased | {"teacher": models["teacher"], "Rectified Diffusion": models["after"]}).items():
    far = {N: far_from_data(from_noise(model.denoiser, N, 2000).end) / ground.mean for N in counts}
    key |= {f"{name}, {N} steps": far[N] for N in (1, 4)}
    lines.append(f"| {name} | " + " | ".join(f"{far[N]:.1f}" for N in counts) + " |")
head = "| distance / floor, uniform DDIM, one set of 2000 noises | " + " | ".join(f"{N} steps" for N in counts) + " |"
display(Markdown("\n".join([head, "|---" * (1 + len(counts)) + "|", *lines])))
print(f"spread of the floor: {ground.std / ground.mean:.1f} of it; within it nothing is ahead")
for name in phased:
    assert key[f"{name}, 1 steps"] > 2 * key[f"{name}, 4 steps"]

# %% [markdown]
# With a step for each of four windows the phased students are as near as with eight. Three steps, which do not divide
# into windows, are worse than two, which do. Rectified Diffusion, one window, needs one step.
#
# ## What the deck says / what we measured

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
| Algorithm 4: which $\\varepsilon$? | the stored one. Fresh noise is \
{key["eps of a pair, fresh noise: paired"]:.2f} \
off after one jump, as before training; where $\\alpha_1>0$ the stored noise itself is \
{key["eps of a pair, the noise itself: paired"]:.2f} off, the chord exact |
| Algorithm 4: loss in ε | in $x_0$ it weighs an error in ε by NSR², {heaviest:.0f} at t = 1 of Stable Diffusion's \
table. Trained live, one jump is {measured_live["Rectified Diffusion, loss in ε"][2]:.2f} off with it and \
{measured_live["Rectified Diffusion, loss in $x_0$"][2]:.2f} with the code's |
| it trains faster than rectified flow, because schedule and kind stay | not from section 3's $F$: after 16 updates \
one jump is {curves["rectified flow"][1][2][1]:.2f} off for rectified flow, \
{curves["Rectified Diffusion, loss in $x_0$"][1][2][1]:.2f} for Rectified Diffusion. From an ε-teacher the \
kind costs {key["linear schedule, velocity (rectified flow), teacher predicts eps"]:.1f} in $\\hat x_0$ \
before training, the schedule {key["linear schedule, own kind, teacher predicts eps"]:.1g} |
| phased: ε = Δz/ΔNSR | right as printed. PeRFlow has the same target, on a schedule of straight pieces |
"""
    )
)

# %% [markdown]
# ## You can now
#
# * say what a first-order ODE is, and why its paths may be curved;
# * turn reflow into Rectified Diffusion by changing two lines, and say which loss one-step sampling needs;
# * name a straight model that is not first order;
# * pick the $\varepsilon$ of a pair where the noise still holds signal.
#
# In the app: *Straight or first-order?* Next: digits, where all of this is measured on images (09).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** Data with one Gaussian, $N(m,c^2)$, have $T(\varepsilon)=m+c\,\varepsilon$. Write
# $\hat\varepsilon(x,t)$ of the rectified model, as a function of $x,\alpha,\sigma,m,c$.


# %%
def rectified_eps(x, alpha, sigma, m, c):
    """x (B, 1); the rest numbers. (B, 1)."""
    raise NotImplementedError


# %%
try:
    model = Rectified(td.Cosine(), noise, 0.7 + 0.5 * noise)
    x = torch.linspace(-1, 2, 7, dtype=torch.float64)[:, None]
    for t in (0.9, 0.5, 0.1):
        level = td.Cosine().levels(torch.tensor(t, dtype=torch.float64))
        gap = float((rectified_eps(x, level.alpha, level.sigma, 0.7, 0.5) - model(x, t).eps).abs().max())
        assert gap < 1e-9, f"not yet: off by {gap:.2g} at t = {t}"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** A student on Stable Diffusion's table predicts $\varepsilon$ with a *constant* error $\delta$ at
# $t=1$. How large may $\delta$ be, if a one-step sample is to be off by `off` at most?


# %%
def allowed_error(off, nsr):
    """off: a number; nsr: NSR at t = 1. A number."""
    raise NotImplementedError


# %%
try:
    delta = allowed_error(0.1, math.sqrt(heaviest))
    wrong_eps = td.Prediction.of("eps", eps + delta, sd.mix(T, eps, 1.0), 1.0, sd)
    missed = float((td.jump(wrong_eps, 0.0) - T).abs().max())
    assert math.isclose(missed, 0.1, rel_tol=0.01), f"not yet: with your δ the sample is off by {missed:.3g}"
    print(f"exercise 2: right, {delta:.4f}: less than a hundredth")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) A model on VE ($\alpha=1$, $\sigma=80\,t^7$) is first order. Is $x$ straight against $t$? Against
# $\sigma$? (b) PeRFlow with a single window, on a table from pure noise to data: which method of lesson 07 is it?

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
