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
# # 10 · Consistency distillation and training
#
# Do not learn where the ODE goes next, learn where it *ends* (slides 12, 16): a consistency function $f(x_t,t)$ maps
# every point of a path to its end. It has $f(x,0)=x$, and $f(x_t,t)=f(x_r,r)$ for neighbours on one path.
# *Distillation* (CD) gets the neighbour from a teacher's step; *training* (CT) from the sample itself.
#
# **In this lesson (35 minutes)** you write both, find out to what they converge, and break them. Needed: 06.

# %%
# %matplotlib inline
try:
    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import copy
import itertools

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from toydiff import runs
from toydiff.distill.cd import cd_loss as consistency_distillation_loss
from toydiff.distill.ct import ct_loss as consistency_training_loss
from toydiff.distill.distances import mse, vector_huber
from toydiff.measure import consistency_error, fitted_order, floor, sliced_wasserstein
from toydiff.plots import static, style
from toydiff.problems import problem
from toydiff.solvers import SOLVERS
from toydiff.training import Draws

# %% [markdown]
# Notation: $x_t=\alpha_t x_0+\sigma_t\varepsilon$, $t=1$ noise, $t=0$ data, $\mathrm{NSR}=\sigma/\alpha=e^{-\lambda}$.
# A network's consistency function is its `jump` to 0.

# %%
SEED = 0
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · The function itself
#
# On the line the flow's map is known for any mixture: it keeps the order of points, so it takes the quantiles of $p_t$
# to those of the data. Data: three Gaussians.

# %%
line = td.GaussianMixture(
    torch.tensor([[-1.5], [0.3], [1.8]]), weights=torch.tensor([0.4, 0.35, 0.25]), std=torch.tensor([0.3, 0.2, 0.4])
)
vp = td.VP()


class Exact(td.Denoiser):
    """The exact consistency function of a mixture on the line: its x_0 is where the ODE ends."""

    def __init__(self, mixture, schedule):
        super().__init__(schedule)
        self.mixture = mixture

    def forward(self, x, t, cond=None):
        return td.Prediction.of("x0", self.mixture.flow(self.schedule, x, float(t.max()), 0.0), x, t, self.schedule)


f = Exact(line, vp)
x = torch.linspace(-2.6, 2.6, 401, dtype=torch.float64)[:, None]
figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained")
for k, nsr in enumerate((0.02, 0.3, 1.0, 10.0)):
    t = vp.t_of_lam(-torch.log(torch.tensor(nsr, dtype=torch.float64)))
    for axis, D, word in (
        (axes[0], f, "where the ODE ends"),
        (axes[1], line.denoiser(vp), "mean of $x_0$ given $x_t$"),
    ):
        axis.plot(x[:, 0], D(x, t).x0[:, 0], color=style.PATH_COLORS[k], lw=2, label=f"NSR {nsr:g}")
        axis.set(xlabel="$x_t$", ylabel="$x_0$", title=word)
axes[1].legend()
figure.suptitle("A consistency function, and the denoiser of a diffusion model", x=0.01, ha="left", fontweight="bold")
plt.show()

# %% [markdown]
# At low noise both are the identity. In noise the denoiser's answer is a *mean*, which is no sample; the consistency
# function's is a sample, with steep steps between the modes. One jump from $t=1$ is all the sampling there is.

# %% [markdown]
# ## 2 · What a neighbour's error costs
#
# $f(x_t,t)-f(\Phi(x_t,t\to r),r)$, with $\Phi$ one solver step and the *exact* $f$, is that step's error, carried to
# the end: its **local** order, $h^2$ for DDIM, $h^3$ for Heun. **Predict before you run:** with the sample itself,
# $x_r=\alpha_rx_0+\sigma_r\varepsilon$, in the teacher's place, one target is wrong by a lot. And on average over $x_0$
# given $x_t$?

# %%
starts = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
gaps = [128, 256, 512, 1024]  # small enough to resolve the steep steps of f
errors = {"DDIM step": [], "Heun step": [], "the sample, on average": [], "the sample, one draw": []}
nodes = 2001  # of x_0, for a posterior by quadrature
inner = torch.linspace(-4, 4, nodes, dtype=torch.float64)[:, None]
t = vp.t_of_lam(torch.tensor(0.3, dtype=torch.float64))
alpha, sigma = vp.alpha(t), vp.sigma(t)
for N in gaps:
    r = vp.t_of_lam(torch.tensor(0.3 + 3.2 / N, dtype=torch.float64))
    for name, solver in (("DDIM step", "ddim"), ("Heun step", "heun")):
        x_r = td.solve(line.denoiser(vp), starts, ts=torch.stack([t, r]), solver=solver).end
        errors[name].append(float((f(starts, t).x0 - f(x_r, r).x0).abs().mean()))
    off, spread = [], []
    for point in starts[::8]:
        w = torch.softmax(line.log_prob(inner) - (point - alpha * inner)[:, 0] ** 2 / (2 * sigma**2), 0)[:, None]
        y = f(vp.alpha(r) * inner + vp.sigma(r) * (point - alpha * inner) / sigma, r).x0
        gap = y - f(point[None], t).x0
        off.append(float((w * gap).sum().abs()))
        spread.append(float((w * gap**2).sum().sqrt()))
    errors["the sample, on average"].append(sum(off) / len(off))
    errors["the sample, one draw"].append(sum(spread) / len(spread))

figure, axis = plt.subplots(figsize=(8, 4.6), layout="constrained")
for (name, values), color, marker in zip(
    errors.items(), (style.BLUE, style.GREEN, style.ORANGE, style.VERMILLION), "osD^", strict=True
):
    key[f"order, {name}"] = fitted_order(gaps, values)
    axis.loglog(
        [3.2 / N for N in gaps],
        values,
        color=color,
        marker=marker,
        label=f"{name}: $h^{{{key[f'order, {name}']:.1f}}}$",
    )
axis.set(xlabel="gap h in λ", ylabel="$|f(x_t, t) - f(x_r, r)|$", title="The exact function against its neighbour")
axis.set_xticks([3.2 / N for N in gaps], [f"{3.2 / N:g}" for N in gaps])
axis.minorticks_off()
axis.grid(True, which="major", color="#EEEEEE")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
assert abs(key["order, DDIM step"] - 2) < 0.2
assert abs(key["order, Heun step"] - 3) < 0.3
assert abs(key["order, the sample, on average"] - 2) < 0.4
assert abs(key["order, the sample, one draw"] - 1) < 0.2

# %% [markdown]
# On average it is off by $h^2$, too; a single draw by $h$: that is the variance slide 16 speaks of. *One* target is no
# clearer over a smaller gap: a change of size $h$ under noise of size $h$. The whole way has $1/h$ gaps with noise of
# their own, which partly cancels: $h\sqrt{1/h}=\sqrt h$ in sum. So a finer grid helps, but slowly. Lesson 11 measures
# it in a training.

# %% [markdown]
# ## 3 · To what do they converge?
#
# Give the student one affine map for each time of a grid, and Gaussian data: every loss is least squares, with a
# solution in closed form, no network in the way. The target at $r$ is the student's own, so the times are settled one
# after the other, from data upwards.

# %%
m, c, N = 0.7, 0.5, 12
ts = torch.linspace(1.0, 1e-3, N + 1, dtype=torch.float64).flip(0)  # rising
gauss = td.GaussianMixture([[m]], std=c)
D = gauss.denoiser(vp)


def fixed_point(neighbour):
    """(a, b) of f(x, t_N) = a x + b, each f(., t_i) the least-squares fit to f(x_r, t_i-1); data by its moments."""
    a, b = torch.ones(()), torch.zeros(())
    a, b = a.double() / vp.alpha(ts[0]), b.double()  # at the first time, x/alpha
    x0 = m + c * torch.tensor([-1.0, 1.0, -1.0, 1.0], dtype=torch.float64)
    eps = torch.tensor([-1.0, -1.0, 1.0, 1.0], dtype=torch.float64)
    for r, t in itertools.pairwise(ts):
        x_t = vp.alpha(t) * x0 + vp.sigma(t) * eps
        y = a * neighbour(x0, eps, x_t, t, r) + b
        a_new = ((x_t - x_t.mean()) * (y - y.mean())).sum() / ((x_t - x_t.mean()) ** 2).sum()
        a, b = a_new, y.mean() - a_new * x_t.mean()
    return a, b


def teacher_step(solver):
    return lambda x0, eps, x_t, t, r: td.solve(D, x_t[:, None], ts=torch.stack([t, r]), solver=solver).end[:, 0]


found = {
    "CD, DDIM steps": fixed_point(teacher_step("ddim")),
    "CD, Heun steps": fixed_point(teacher_step("heun")),
    "CT": fixed_point(lambda x0, eps, x_t, t, r: vp.alpha(r) * x0 + vp.sigma(r) * eps),
}
start = torch.tensor([[1.37]], dtype=torch.float64)
walks = {s: float(td.solve(D, start, ts=ts.flip(0), solver=s).end) / float(vp.alpha(ts[0])) for s in ("ddim", "heun")}
exact = float(gauss.flow(vp, start, 1.0, 1e-3)) / float(vp.alpha(ts[0]))
lines = ["| | where it takes 1.37 |", "|---|---|"]
for name, (a, b) in found.items():
    key[f"fixed point, {name}"] = float(a * start + b)
    lines.append(f"| {name} | {key[f'fixed point, {name}']:.10f} |")
for name, value in (
    (f"the teacher's {N} DDIM steps", walks["ddim"]),
    (f"the teacher's {N} Heun steps", walks["heun"]),
    ("exact flow", exact),
):
    lines.append(f"| *{name}* | {value:.10f} |")
display(Markdown("\n".join(lines)))
assert abs(key["fixed point, CD, DDIM steps"] - walks["ddim"]) < 1e-9
assert abs(key["fixed point, CD, Heun steps"] - walks["heun"]) < 1e-9
assert abs(key["fixed point, CT"] - walks["ddim"]) < 1e-9
assert abs(walks["ddim"] - exact) > 0.05

# %% [markdown]
# To ten digits: **CD becomes its teacher's N-step solution**, and on Gaussian data CT the N-step DDIM solution, though
# it never saw a teacher. A perfect consistency model still has the error of its grid. That is why CT's grids get finer
# while it trains (curricula), and why CD's teacher takes Heun steps.

# %% [markdown]
# **Is CT always DDIM? Predict before you run.** DDIM evaluates $f$ at the *mean* neighbour, $f(\mathbb E[x_r|x_t])$; CT
# finds the mean of $f$ over all neighbours, $\mathbb E[f(x_r)|x_t]$. They agree for affine $f$. Now three Gaussians,
# the same 12 steps, and CT's fixed point by quadrature over $x_0$: is the gap smaller or larger than DDIM's own error?

# %%
at_x = np.linspace(-5, 5, 601)
nodes_x0 = torch.linspace(-4, 4, 2001, dtype=torch.float64)
f_ct = at_x / float(vp.alpha(ts[0]))  # on the points at_x, at the first time
for r, t in itertools.pairwise(ts):
    here = torch.as_tensor(at_x)[:, None]
    log_w = line.log_prob(nodes_x0[:, None]) - (here - vp.alpha(t) * nodes_x0) ** 2 / (2 * vp.sigma(t) ** 2)
    w = torch.softmax(log_w, 1)  # x_0 given x_t
    x_r = vp.alpha(r) * nodes_x0 + vp.sigma(r) * (here - vp.alpha(t) * nodes_x0) / vp.sigma(t)
    f_ct = (w * torch.as_tensor(np.interp(x_r, at_x, f_ct))).sum(1).numpy()

from_noise = torch.randn(4000, 1, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
by_ddim = td.solve(line.denoiser(vp), from_noise, ts=ts.flip(0), solver="ddim").end / vp.alpha(ts[0])
by_flow = line.flow(vp, from_noise, 1.0, 1e-3) / vp.alpha(ts[0])
by_ct = torch.as_tensor(np.interp(from_noise, at_x, f_ct))
key["fixed point, three Gaussians: CT to DDIM"] = float((by_ct - by_ddim).square().mean().sqrt())
key["fixed point, three Gaussians: DDIM to exact"] = float((by_ddim - by_flow).square().mean().sqrt())
ct_gap, ddim_gap = key["fixed point, three Gaussians: CT to DDIM"], key["fixed point, three Gaussians: DDIM to exact"]
print(f"root mean square: CT from DDIM {ct_gap:.2f}, DDIM from the exact flow {ddim_gap:.2f}")
assert ct_gap > ddim_gap > 0.1

# %% [markdown]
# Larger: on data that is not Gaussian, CT on a coarse grid is a method of its own, and averages over the steep steps of
# $f$. Both gaps close as the grid gets finer.

# %% [markdown]
# ## 4 · Break it: the distance
#
# CT's target is random, and least squares finds its mean. The pseudo-Huber distance with a small $c$, which papers
# prefer for its robustness, finds a median instead. For a skewed target, exponential of mean 1, that is another place:

# %%
skewed = -torch.log1p(-torch.linspace(0, 1, 200_002, dtype=torch.float64)[1:-1])
at = torch.linspace(0.4, 1.2, 801, dtype=torch.float64)
rows = ["| c | best answer |", "|---|---|"]
for c_huber in (0.001, 0.1, 1.0, 10.0, 1000.0):
    losses = [float(vector_huber(skewed[::50, None], a, c_huber).mean()) for a in at]
    key[f"best answer, c = {c_huber:g}"] = float(at[int(torch.tensor(losses).argmin())])
    rows.append(f"| {c_huber:g} | {key[f'best answer, c = {c_huber:g}']:.3f} |")
display(Markdown("\n".join([*rows, "| *median, mean* | *0.693, 1* |"])))
assert abs(key["best answer, c = 0.001"] - 0.693) < 0.005
assert abs(key["best answer, c = 1000"] - 1) < 0.005

# %% [markdown]
# ## 5 · The algorithm, line by line
#
# Slide 12's Algorithm 2, in its own coordinates: $t$ is the noise level, $x_t=x+t\varepsilon$, on a grid
# $0=t_1<\dots<t_N$. The **boundary condition** $f_\theta(x,0)=x$ holds for every network $F_\theta$:
# $f_\theta=c_\mathrm{skip}x+c_\mathrm{out}F_\theta$ with $c_\mathrm{skip}=1$, $c_\mathrm{out}=0$ at $t=0$. $d$ is the
# squared distance, $\lambda(t_n)=1$, $\Phi$ the teacher's $\hat\varepsilon$ (Euler's step).


# %%
ve = td.VE()
grid_t = td.time_grid(ve, 40, "karras").flip(0)  # the library's times, rising
levels = ve.sigma(grid_t).float()  # t_1 ... t_N of the box, 0 to 80
teacher_on_line = line.denoiser(ve)


class F(torch.nn.Module):
    """F(x, t): x (B, 1), t (B, 1)."""

    def __init__(self, hidden=64):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(2, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, 1),
        )

    def forward(self, x, t):
        return self.layers(torch.cat([2 * x / (1 + t**2).sqrt(), t.clamp(min=1e-3).log() / 2], 1))


def f(net, x, t):
    c_skip, c_out = 1 / (1 + t**2), t / (1 + t**2).sqrt()
    return c_skip * x + c_out * net(x, t)


def phi(x, t):
    """The teacher's dx/dt: its eps."""
    return teacher_on_line(x, ve.t_of_lam(-t[:, 0].log())).eps


def d(a, b):
    return (a - b).square().mean(1)


# %%
def cd_loss(net, target, x, n, eps, f=f):
    t_next, t = levels[n + 1, None], levels[n, None]
    x_next = x + t_next * eps  # sample x_{t_{n+1}} ~ N(x, t_{n+1}^2 I)
    with torch.no_grad():  # stopgrad
        x_hat = x_next + (t - t_next) * phi(x_next, t_next)  # one step of the ODE solver
        y = f(target, x_hat, t)  # f_theta-(x_hat, t_n)
    return d(f(net, x_next, t_next), y).mean()  # lambda(t_n) d(., .), lambda = 1


def train(loss_of, mu=0.95, updates=800, batch=256, eta=5e-3):
    torch.manual_seed(SEED)
    net = F()
    target = copy.deepcopy(net)  # theta- <- theta
    optimizer = torch.optim.Adam(net.parameters(), eta)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
    for _ in range(updates):  # repeat
        x = dataset[torch.randint(len(dataset), (batch,))]  # sample x ~ D
        n = torch.randint(len(levels) - 1, (batch,))  # and n ~ U[1, N - 1]
        loss = loss_of(net, target, x, n, torch.randn(batch, 1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # theta <- theta - eta gradient (Adam's)
        decay.step()
        for slow, fast in zip(target.parameters(), net.parameters(), strict=True):
            slow.data.lerp_(fast.data, 1 - mu)  # theta- <- stopgrad(mu theta- + (1 - mu) theta)
    return net, loss.item()


dataset = line.sample(50_000, SEED).float()

# %% [markdown]
# Consistency *training* changes one line: the sample itself is the neighbour, with the **same** $\varepsilon$. (With
# another one, $x_t$ and $x_r$ would lie on different lines from data to noise, and not on neighbouring points.) And
# controls: no boundary condition, and the gradient through the target. **Predict before you run:** what happens to CD
# without the boundary condition, and to CT, and to CD, when the gradient flows through the target too?


# %%
def ct_loss(net, target, x, n, eps):
    t_next, t = levels[n + 1, None], levels[n, None]
    with torch.no_grad():
        y = f(target, x + t * eps, t)
    return d(f(net, x + t_next * eps, t_next), y).mean()


def without_boundary(net, x, t):
    return net(x, t)


def ct_through_target(net, target, x, n, eps):
    t_next, t = levels[n + 1, None], levels[n, None]
    return d(f(net, x + t_next * eps, t_next), f(net, x + t * eps, t)).mean()


def cd_through_target(net, target, x, n, eps, f=f):
    t_next, t = levels[n + 1, None], levels[n, None]
    x_next = x + t_next * eps
    x_hat = x_next + (t - t_next) * phi(x_next, t_next)
    return d(f(net, x_next, t_next), f(net, x_hat, t)).mean()


runs_of = {
    "CD": (f, *train(cd_loss)),
    "CT": (f, *train(ct_loss)),
    "CD, no boundary condition": (without_boundary, *train(lambda *batch: cd_loss(*batch, f=without_boundary))),
    "the same, gradient through the target": (
        without_boundary,
        *train(lambda *batch: cd_through_target(*batch, f=without_boundary)),
    ),
    "CT, gradient through the target": (f, *train(ct_through_target)),
    "CD, gradient through the target": (f, *train(cd_through_target)),
}

# %% [markdown]
# First the check that this is the library's method: with the same random numbers, the same loss.

# %%
nets = copy.deepcopy(runs_of["CD"][1]), runs_of["CT"][1]  # any two networks, as student and target
student, target = (
    td.NetDenoiser(lambda x, t, net=net: f(net, x, ve.sigma(t)[:, None].to(x)), ve, "x0") for net in nets
)
x, as_float = dataset[:2000], grid_t.float()
count = len(levels) - 1
with torch.no_grad():
    draws = Draws(SEED)
    ours = cd_loss(*nets, x, draws.integers(len(x), count), draws.normal(*x.shape))
    library = consistency_distillation_loss(
        student, target, teacher_on_line, SOLVERS["ddim"].solver, as_float, mse, x, None, Draws(SEED)
    )
    assert abs(float(ours / library) - 1) < 1e-2, (ours, library)
    draws = Draws(SEED)
    upto = torch.ones(count).cumsum(0) / count
    n = torch.searchsorted(upto, draws.uniform(len(x)))
    ours_ct = ct_loss(*nets, x, n, draws.normal(*x.shape))
    library_ct = consistency_training_loss(
        student, target, as_float, upto, torch.ones(count), mse, x, None, Draws(SEED)
    )
    assert abs(float(ours_ct / library_ct) - 1) < 1e-2, (ours_ct, library_ct)
print(f"CD: {ours:.6f}, library {library:.6f}; CT: {ours_ct:.6f}, library {library_ct:.6f}")

# %%
noise = torch.linspace(-2.5, 2.5, 400, dtype=torch.float64)[:, None]
top = float(levels[-1])
ends = line.flow(ve, top * noise, 1.0, 0.0)
weight = (-noise.square() / 2).exp() / (-noise.square() / 2).exp().sum()  # of a normal distribution
figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True, layout="constrained")
colors = iter((style.VERMILLION, style.GREEN, style.ORANGE, style.PURPLE, style.BLUE, style.SKY))
found = {}
for k, (name, (f_of, net, loss)) in enumerate(runs_of.items()):
    with torch.no_grad():
        ended = f_of(net, (top * noise).float(), torch.full((len(noise), 1), top)).double()
    error = float((weight * (ended - ends).square()).sum().sqrt())
    mean = (weight * ended).sum()
    spread = float((weight * (ended - mean).square()).sum().sqrt())
    found[name] = error, spread, loss
    axes[min(k // 2, 1)].plot(noise[:, 0], ended[:, 0], color=next(colors), lw=2, label=f"{name}: last loss {loss:.1e}")
for axis, title in zip(axes, ("as the box has it", "the controls"), strict=True):
    axis.plot(noise[:, 0], ends[:, 0], color=style.INK, lw=4, alpha=0.25, label="exact")
    axis.set(xlabel="noise", ylabel="$f(x, t_N)$", title=title, ylim=(-4, 6))
    axis.legend(fontsize=9, loc="upper left")
plt.show()
for name, (error, spread, loss) in found.items():
    print(
        f"{name:38} {error:.2f} from the exact map, spread {spread:.2f} (data {float(line.std):.2f}), loss {loss:.1e}"
    )
assert found["CD"][0] < 0.3
assert found["CD, no boundary condition"][0] > 1
assert found["the same, gradient through the target"][1] < 0.1 * float(line.std)
assert found["the same, gradient through the target"][2] < found["CD"][2]
assert found["CT, gradient through the target"][1] < 0.8 * found["CT"][1]
assert found["CD, gradient through the target"][0] < 1.2 * found["CD"][0], "its targets are not random"
for mu in (0.0, 0.995):
    net, _ = train(ct_loss, mu)
    with torch.no_grad():
        ended = f(net, (top * noise).float(), torch.full((len(noise), 1), top)).double()
    lag = float((weight * (ended - ends).square()).sum().sqrt())
    print(f"CT with mu = {mu:<5} instead of 0.95 {'':9}{lag:.2f} from the exact map")
assert lag > 3 * found["CT"][0]

# %% [markdown]
# Left: both find the exact map's range and slope, and round its steps off. A steep step is what a small network finds
# hardest, and samples on it lie between the modes. CT's last loss is the larger one, as its targets are random; its map
# is as good, from samples alone. (The curve of CD without the boundary condition is off the right axes.)

# %% [markdown]
# **What holds a consistency model up?** The boundary condition, since every constant is perfectly consistent; and,
# where targets are random, the stopped gradient (below). Without either, the loss is truly minimised: it is the
# smallest of all and all samples are one point. With the stop-gradient kept it does not even settle: target and network
# follow each other, and drift. With the condition, data enters at $t_1=0$ and is passed on from time to time.

# %% [markdown]
# **Why stop the gradient?** CT's neighbours are random, so $\mathbb E|f(x_t)-f(x_r)|^2$ holds the *variance* of
# $f(x_r)$. If the target may move, making $f$ flat lowers it, and samples shrink towards the mean. With the gradient
# stopped, the variance is a constant. CD's neighbours are not random: with the boundary condition kept, its gradient
# may flow through the target, and the map is as near to the exact one (light blue).

# %% [markdown]
# **Why an average as target?** With $\theta^-=\theta$ each noisy update moves its own goal; $\mu$ near 1 lets what is
# wrong at small $t$ settle before it is passed on. The price is lag: $\mu=0.995$ is still near its start after 800
# updates. It is no part of the fixed point: here $\mu=0$ does as well, and later work drops the average (iCT, sec.
# 3.2).

# %% [markdown]
# ## 6 · On the ring, and on digits
#
# Bundled students of the ring's trained teacher. A trajectory of the teacher in 100 second-order steps; from each of
# its points one jump to data. The teacher's own jump is far off in noise. The students' land near the end from
# *everywhere*, which was the definition.

# %%
ring = problem("mixture:ring")
teacher = runs.load("ring-teacher")
z = torch.randn(400, 2, generator=torch.Generator().manual_seed(SEED))
with torch.no_grad():
    path = td.solve(
        teacher.denoiser,
        td.Tabulated.scaled_linear().sigma(torch.ones(())).float() * z,
        100,
        solver="dpm2",
    )
nsr = teacher.denoiser.schedule.nsr(path.ts[:-1].double()).tolist()
curves = {"teacher's own jump (before)": list(zip(nsr, consistency_error(teacher.denoiser, path), strict=True))}
for name in ("cd", "ct"):
    curves[name] = list(zip(nsr, consistency_error(runs.load(f"ring-{name}").denoiser, path), strict=True))
display(
    static.against_noise(
        {name: [row for row in rows if row[0] > 0.02] for name, rows in curves.items()},
        ylabel="distance of the jump from the path's end",
        title="Consistency error along the teacher's trajectories, ring of eight",
    )
)

rows = ["| weights | steps | distance over the floor |", "|---|---|---|"]
for name in ("ring-teacher", "ring-cd", "ring-ct"):
    for row in runs.load(name).about["rows"]:
        rows.append(f"| {name} | {row['steps']} | {row['distance'] / row['floor']:.1f} |")
        key[f"{name}, {row['steps']} steps"] = row["distance"] / row["floor"]
display(Markdown("\n".join(rows)))
truth = floor(sliced_wasserstein, lambda n, seed: ring.mixture.sample(n, seed), row["n"], seeds=range(10))
assert abs(truth.mean / row["floor"] - 1) < 0.01
print(f"the floor: {len(truth.values)} pairs of sets of {row['n']:,} true samples, {truth.mean:.3f} apart on average;")
print(f"its spread is {truth.std / truth.mean:.1f} of it, and within that nothing is ahead")
assert key["ring-cd, 1 steps"] < 2.5

# %% [markdown]
# With more than one step the sampler is stochastic: jump to data, *re-noise* to the next level, jump again
# (`solver="lcm"`). Each jump starts from the right distribution, and may correct the one before.
#
# Digits, one column a noise. The teacher needs 50 calls for a digit (25 steps with guidance); its student has the
# guidance built in.

# %%
digits = problem("digits")
shown, rows = {}, ["| | calls a digit | distance (Fréchet) | accuracy |", "|---|---|---|---|"]
for id_, steps, g in (
    ("digits-teacher", 25, 1.5),
    ("digits-teacher", 1, 1.5),
    ("digits-cd", 1, 1.0),
    ("digits-cd", 2, 1.0),
    ("digits-cd", 4, 1.0),
):
    model = runs.load(id_)
    path, cond = runs.sample(model, digits, 10, steps, guidance_scale=g, seed=SEED)
    shown[f"{id_.removeprefix('digits-')}, {steps} step{'s' if steps > 1 else ''}"] = path.end
    measured = [row for row in model.about["rows"] if row["steps"] == steps]
    if measured:
        row = measured[0]
        key[f"{id_}, {steps} steps"] = row["distance"]
        rows.append(
            f"| {id_}, {steps} steps | {row['nfe']} | {row['distance']:.2f} (floor {row['floor']:.2f}) | "
            f"{row['accuracy']:.1%} |"
        )
display(static.digits(shown, title="The same noise"))
display(Markdown("\n".join(rows)))

# %% [markdown]
# ## What the deck says / what we measured

# %%
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| $f(x_t,t)=f(x_r,r)$, neighbours by one solver step $\\Phi$ (slide 12) | for the exact $f$ it holds to \
$h^{{{key["order, DDIM step"]:.1f}}}$ with DDIM and $h^{{{key["order, Heun step"]:.1f}}}$ with Heun, the order of one \
step's error |
| the sample's own noise in the integral's place (slide 16) | one draw is off by \
$h^{{{key["order, the sample, one draw"]:.1f}}}$, their mean by $h^{{{key["order, the sample, on average"]:.1f}}}$ |
| *(not said)* what the minimum is | the teacher's N-step solution: 1.37 goes to \
{key["fixed point, CD, Heun steps"]:.4f} by CD with Heun steps; exact {exact:.4f}. CT ends where DDIM does \
on Gaussian data, elsewhere not ({ct_gap:.2f} apart on three Gaussians) |
| *(not said)* which distance | with $c\\to0$ pseudo-Huber finds medians: {key["best answer, c = 0.001"]:.3f} where \
the mean is 1 |
| one step suffices | ring, yes: CD {key["ring-cd, 1 steps"]:.1f} floors in one step, its teacher \
{key["ring-teacher, 20 steps"]:.1f} in 20; digits, no: a Fréchet distance of {key["digits-cd, 1 steps"]:.1f} in one \
step, {key["digits-cd, 4 steps"]:.1f} in four, the teacher {key["digits-teacher, 25 steps"]:.1f} |
""")
)

# %% [markdown]
# ## You can now
#
# * write CD and CT from slide 12's box, and say which line differs;
# * say what a perfect consistency model is: its grid's solution, with its error;
# * answer what holds it up, and why the gradient stops at the target;
# * name three controls that expose a wrong implementation.
#
# In the app: *Consistency*. Next: the variance of CT's target (11).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** Gaussian data $N(0,1)$, cosine schedule, $N$ equal gaps: which standard deviation have the
# samples of a perfect CT student? ($f$ is affine here: whose walk does section 3 say it takes? What is $\hat x_0$ of
# $x_t$, and by which factor does one step multiply $x$?)


# %%
def spread_of_ct(N):
    """N: a whole number. A number."""
    raise NotImplementedError


# %%
try:
    unit, cosine = td.GaussianMixture([[0.0]], std=1.0), td.Cosine()
    for n in (4, 8):
        ones = torch.ones(1, 1, dtype=torch.float64)
        walked = float(td.solve(unit.denoiser(cosine), ones, n, solver="ddim", grid="uniform").end)
        assert abs(spread_of_ct(n) - walked) < 1e-3, f"not yet: the walk of {n} steps gives {walked:.3f}"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** Why can nobody break the boundary condition of a network's `jump`, which has no $c_\mathrm{skip}$ and
# $c_\mathrm{out}$? Write $f(x,s)$, the jump from $s$ to $s$, for a network that says $\hat\varepsilon$.


# %%
def jump_to_itself(x, eps_hat, alpha, sigma):
    """x, eps_hat (B,); alpha, sigma of s: numbers. (B,)."""
    raise NotImplementedError


# %%
try:
    some = torch.randn(5, generator=torch.Generator().manual_seed(1)).double()
    assert torch.allclose(jump_to_itself(some, 7 * some + 3, 0.8, 0.6), some), (
        "not yet: put x_0 into alpha x_0 + sigma eps"
    )
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) Section 2's average error of a sampled target falls as $h^2$ a gap. By which power of $h$ is the
# whole map off after $1/h$ gaps? (b) A training has no teacher and draws $x_t$ and $x_r$ from the *same* $\varepsilon$.
# CD or CT? And with two independent ones?

# %% [markdown]
# ## References
#
# * The deck, slides 12 (consistency distillation, Algorithm 2) and 16 (training, Bellman form).
# * Song, Dhariwal, Chen and Sutskever, *Consistency Models*, arXiv 2303.01469: eq. 7 and 10, alg. 1 to 3, app. C
#   (curriculum).
# * Song and Dhariwal, *Improved Techniques for Training Consistency Models* (iCT), arXiv 2310.14189: eq. 7
#   (pseudo-Huber), sec. 3.4.
# * Karras et al., *EDM*, arXiv 2206.00364: eq. 5 (the grid), alg. 1 (Heun).
