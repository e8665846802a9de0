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
# # 11 · Stable consistency tuning: the variance of a target
#
# Consistency training has no teacher, so its targets are noisy (lesson 10). Slides 16 and 17 of the deck, *The
# Principle and Application of Diffusion Acceleration*, say why, and how a *reference batch* reduces the noise.
#
# **In this lesson (25 minutes)** you derive the estimator of stable consistency tuning (SCT), train it and easy
# consistency tuning (ECT) in plain PyTorch, and break both. You need lessons 00 and 10.

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

from toydiff.distill.distances import mse
from toydiff.distill.ect import ect_loss, nearer
from toydiff.distill.sct import sct_loss
from toydiff.measure import target_variance
from toydiff.plots import static, style
from toydiff.training import Draws

# %%
SEED = 0
LEVELS = 13  # of noise, in section 4's figure
SEEDS = (0, 1, 2)  # of the trainings in section 5

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · One noisy state, many sources
#
# Data: three Gaussians on the line. In this lesson $t$ is the noise level itself, $x_t=x_0+t\,\varepsilon$, so
# $\mathrm{NSR}=t$. Fix one state, $x_t=1$ at $t=1$. Many $x_0$ could have become it, its *sources*, distributed as
# $p(x_0|x_t)$.
#
# **Predict before you run.** A training target uses one source (left), or a weighted mean of $n$ candidates, one of
# which is the source. Will the means of the three histograms agree?

# %%
line = td.GaussianMixture(
    torch.tensor([[-1.5], [0.3], [1.8]]), weights=torch.tensor([0.4, 0.35, 0.25]), std=torch.tensor([0.3, 0.2, 0.4])
)
ve = td.VE()
rng = torch.Generator().manual_seed(SEED)
X_T, T, REPEATS = 1.0, 1.0, 40_000
x_t = torch.tensor([[X_T]], dtype=torch.float64)
exact = float(line.denoiser(ve)(x_t, ve.t_of_lam(torch.tensor(-math.log(T)).double())).x0)  # E[x_0 | x_t]
fine = torch.linspace(-4, 4, 40_001, dtype=torch.float64)
posterior = torch.softmax(line.log_prob(fine[:, None]) - (X_T - fine) ** 2 / (2 * T**2), 0)


def sources(n):
    """Draws of x_0 given x_t, (n, 1)."""
    return fine[torch.multinomial(posterior, n, replacement=True, generator=rng)][:, None]


def others(n):
    """REPEATS rows of n fresh draws of the data."""
    return line.sample(REPEATS * n, rng, dtype=torch.float64).view(REPEATS, n)


def weighted(batch):
    """Each row's mean, weighted by how probable x_t is from each member; (REPEATS, n) -> (REPEATS,)."""
    return (torch.softmax(-((X_T - batch) ** 2) / (2 * T**2), 1) * batch).sum(1)


figure, axes = plt.subplots(1, 3, figsize=(12, 3.8), sharex=True, layout="constrained")
for axis, n in zip(axes, (1, 8, 64), strict=True):
    targets = weighted(torch.cat([sources(REPEATS), others(n - 1)], 1) if n > 1 else sources(REPEATS))
    axis.hist(targets, bins=90, density=True, color=style.SKY)
    axis.axvline(exact, color=style.INK, lw=2, ls="--", label="$E[x_0|x_t]$, closed form")
    axis.set(xlabel=r"the target's $\tilde x_0$", title=f"n = {n}: variance {float(targets.var()):.3f}")
axes[0].set_ylabel("density")
axes[2].legend(fontsize=9, loc="upper left", bbox_to_anchor=(-0.02, 0.95))
plt.show()

# %% [markdown]
# **Same mean, less variance.** On the left is consistency training's target, on the right SCT's. Where do the weights
# come from, and why do the means agree exactly, for every $n$? First: what is the target a target *of*?

# %% [markdown]
# ## 2 · Bootstrapping: $h\leftarrow r+h$ (slide 16)
#
# In lesson 00's coordinates the ODE is $dz/dn=\hat\varepsilon$ with $z=x_t/\alpha_t$, $n=$ NSR. The *way that is left*
# from $x_t$ to its end, and its split at a time $r<t$, are
#
# $$h(x_t,t)=\int_0^{n_t}\!\hat\varepsilon\,dn,\qquad
# h(x_t,t)=\underbrace{\int_{n_r}^{n_t}\!\hat\varepsilon\,dn}_{\text{slide: }\boldsymbol r}+h(x_r,r).$$
#
# The slide's $\int e^{-\lambda}d\lambda$ is $\int dn$ up to sign, as $n=e^{-\lambda}$. The consistency function is
# $f=z_t-h$.

# %% [markdown]
# So fit $h_\theta(x_t,t)$ to $\boldsymbol r+h_{\theta^-}(x_r,r)$: a short, known piece plus *the network's own
# estimate* of the rest. Reinforcement learning calls this bootstrapping (temporal differences), $\boldsymbol r$ the
# reward and $h$ the value.
#
# **CD or CT is the choice of $\boldsymbol r$.** CD: $\varepsilon_\phi(x_t,t)\,(n_t-n_r)$, a teacher's. CT:
# $\varepsilon\,(n_t-n_r)$ with the sample's own $\varepsilon=(x_t-\alpha_tx_0)/\sigma_t$. SCT: the same, with
# $\tilde x_0$ for $x_0$. One reward from our state, down to $n_r=0.8$:

# %%
N_R = 0.8
states = torch.linspace(N_R, T, 201, dtype=torch.float64)  # noise levels along the exact path from x_t
times = ve.t_of_lam(-states.log())
path = [line.flow(ve, x_t, times[-1], t) for t in times]
along = torch.stack([line.denoiser(ve)(x, t).eps[0, 0] for x, t in zip(path, times, strict=True)])
true_reward = float(torch.trapezoid(along, states))
assert abs(true_reward - float(x_t - path[0])) < 1e-4, "the reward is z_t - z_r"

rows = ["| who gives the reward | mean | standard deviation |", "|---|---|---|"]
one, many = sources(REPEATS)[:, 0], weighted(torch.cat([sources(REPEATS), others(63)], 1))
for name, x0 in (("CD, exact teacher", torch.full((2,), exact)), ("CT, one source", one), ("SCT, n = 64", many)):
    reward = (X_T - x0) / T * (T - N_R)
    rows.append(f"| {name} | {float(reward.mean()):.4f} | {float(reward.std()):.4f} |")
    key[f"standard deviation of the reward, {name}"] = float(reward.std())
display(Markdown("\n".join([*rows, f"| *the integral* | *{true_reward:.4f}* | *0* |"])))

# %% [markdown]
# All three have one mean (the printed ones differ by the sampling), off the integral by the error of one Euler step,
# $O((n_t-n_r)^2)$: *bias*. CT's *standard deviation* is larger than the reward itself, and bootstrapping passes this
# noise from time to time. SCT keeps the mean and removes nearly all of the variance.

# %% [markdown]
# **Why CT does not settle.** No network now: $f$ is a *table*, a row for each of 12 noise levels, a column for each
# place $x/\sqrt{1+t^2}$. An update moves the cells that 256 samples meet towards the mean of their targets, by a rate
# $\eta$. The control is CD: the same table and samples, the exact mean reward.
#
# **Predict before you run.** Do both come to rest? If $\eta$ falls, does CT end where CD does?

# %%
places = torch.linspace(-4, 4, 161, dtype=torch.float64)
ends_of = line.flow(ve, 80 * places[:, None], 1.0, 0.0)[:, 0]
normal = (-places.square() / 2).softmax(0)


def learnt_tables(reward, rate, N=12, updates=1200, batch=256):
    """The table's last row, f(., 80), after each update. reward: "CD", "CT" or "SCT"; rate: of the update k."""
    draws, levels = torch.Generator().manual_seed(SEED), ve.sigma(td.time_grid(ve, N, "karras").flip(0))[:, None]
    table = torch.zeros(len(levels), len(places), dtype=torch.float64)
    table[0] = places  # f(x, 0) = x
    t, r = levels[1:], levels[:-1]  # 0 to 80
    for k in range(updates):
        x0, eps = line.sample(batch, draws, dtype=torch.float64)[:, 0], torch.randn(batch, generator=draws).double()
        x = x0 + t * eps  # (N, batch)
        if reward == "CD":
            times = ve.t_of_lam(-t.log()).expand_as(x).flatten()
            eps = line.denoiser(ve)(x.flatten()[:, None], times).eps.view_as(x)
        elif reward == "SCT":  # four reference batches of 64, each with its own sources
            near, of = x.view(len(t), -1, 64, 1), x0.view(-1, 1, 64)
            w = torch.softmax(-((near - of) ** 2) / (2 * t[..., None, None] ** 2), 3)
            eps = (x - (w * of).sum(3).view_as(x)) / t
        y = x + (r - t) * eps
        column = ((y / (1 + r**2).sqrt() + 4) / 0.05).clamp(0, 159.99)
        low, part = column.long(), column % 1
        y = table[:-1].gather(1, low) * (1 - part) + table[:-1].gather(1, low + 1) * part  # f at the neighbour
        met = ((x / (1 + t**2).sqrt() + 4) / 0.05).round().long().clamp(0, 160)
        count = torch.zeros_like(table[1:]).scatter_add(1, met, torch.ones_like(x))
        mean = torch.zeros_like(table[1:]).scatter_add(1, met, y) / count.clamp(min=1)
        table[1:] += rate(k) * (mean - table[1:]) * (count > 0)
        yield table[-1].clone()


trained = {
    "CD, η = 1": torch.stack(list(learnt_tables("CD", lambda k: 1.0))),
    "CT, η = 1": torch.stack(list(learnt_tables("CT", lambda k: 1.0))),
    "CT, η falls": torch.stack(list(learnt_tables("CT", lambda k: min(1.0, 40 / (k + 1))))),
    "CT, η = 1, 48 levels": torch.stack(list(learnt_tables("CT", lambda k: 1.0, N=48))),
    "CD, η = 1, 48 levels": torch.stack(list(learnt_tables("CD", lambda k: 1.0, N=48))),
    "SCT, η = 1": torch.stack(list(learnt_tables("SCT", lambda k: 1.0))),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
right.plot(places, ends_of, color=style.INK, lw=5, alpha=0.25, label="exact")
table = [
    "| | distance of the last 300 tables' mean to the exact map | how far a table is from that mean |",
    "|---|---|---|",
]
shown = dict(zip(trained, (style.INK, style.SKY, style.VERMILLION), strict=False))  # the first three
for name, tables in trained.items():
    if color := shown.get(name):
        off = (normal * (tables - ends_of).square()).sum(1).sqrt()[::5]
        left.plot(range(0, len(tables), 5), off, color=color, lw=1.2, label=name)
        right.plot(places, tables[-1], color=color, lw=1.2, label=name)
    mean = tables[-300:].mean(0)
    key[f"table, {name}: offset"] = float((normal * (mean - ends_of).square()).sum().sqrt())
    key[f"table, {name}: wander"] = float((normal * (tables[-300:] - mean).square()).sum(1).mean().sqrt())
    table.append(f"| {name} | {key[f'table, {name}: offset']:.3f} | {key[f'table, {name}: wander']:.3f} |")
left.set(xlabel="updates", ylabel="distance to the exact map", title="CT goes on moving", ylim=(0, 0.8))
right.set(xlabel="place: noise", ylabel="f(x, 80)", title="The last tables", xlim=(-2.5, 2.5), ylim=(-3, 3.5))
for axis in (left, right):
    axis.legend()
plt.show()
display(Markdown("\n".join(table)))
assert key["table, CT, η = 1: wander"] > 3 * key["table, CD, η = 1: wander"]
assert key["table, CT, η falls: wander"] < 0.3 * key["table, CT, η = 1: wander"]
assert key["table, CT, η = 1, 48 levels: offset"] < 0.8 * key["table, CT, η = 1: offset"]
assert key["table, CT, η = 1, 48 levels: wander"] > 2 * key["table, CD, η = 1: wander"]
assert key["table, SCT, η = 1: offset"] < 1.1 * key["table, CD, η = 1: offset"]
assert key["table, SCT, η = 1: wander"] < 0.8 * key["table, CT, η = 1: wander"]
assert key["table, CT, η falls: offset"] > 1.3 * key["table, CD, η = 1: offset"]

# %% [markdown]
# **CT has two troubles.** *Noise:* one sample stands for a mean, so no table is at rest. A falling $\eta$ averages that
# away. *Offset:* what then settles is the mean of $f(x_r)$, not $f$ at the mean neighbour (lesson 10), and rounds the
# steps. A finer grid lessens both, the noise slowly: a gap $\delta=n_t-n_r$ carries noise $\propto\delta$, and
# $1/\delta$ of them add up to $\sqrt\delta$. A better target, SCT's, does so on the same grid: nearly
# CD's offset.

# %% [markdown]
# ## 3 · The estimator, derived (slide 17)
#
# The score is a posterior mean (lesson 00). Change the distribution to the data's by Bayes' rule:
#
# $$\nabla\log p_t(x_t)=\mathbb E_{p(x_0|x_t)}[s_0]=\mathbb E_{p(x_0)}\Big[\tfrac{p(x_t|x_0)}{p_t(x_t)}\,s_0\Big],
# \qquad s_0=\nabla\log p(x_t|x_0).$$

# %% [markdown]
# Replace both expectations by means over a batch, $p_t(x_t)=\mathbb E_{p(x_0)}[p(x_t|x_0)]$ included:
#
# $$\approx\frac{\frac1n\sum_ip(x_t|x_0^{(i)})\,s_0^{(i)}}{\frac1n\sum_jp(x_t|x_0^{(j)})}=\sum_iw_i\,s_0^{(i)},\qquad
# w_i=\mathrm{softmax}_i\Big(\!-\frac{|x_t-\alpha_tx_0^{(i)}|^2}{2\sigma_t^2}\Big).$$
#
# The two $\frac1n$ cancel. The slide as printed keeps the upper one, which divides the score by $n$. As
# $s_0=(\alpha_tx_0-x_t)/\sigma_t^2$ is linear in $x_0$, this is the score of $\tilde x_0=\sum_iw_ix_0^{(i)}$.

# %% [markdown]
# A quotient of two means is biased, by $O(1/n)$. Except in one case: **if the source is in the batch**, and the others
# are drawn like it. Given $x_t$ and the batch as a *set*, the source is member $i$ with probability $w_i$. So
# $\tilde x_0=\mathbb E[x_0\,|\,x_t,\text{batch}]$, and averaging over batches gives $\mathbb E[x_0|x_t]$: for every
# $n$, already for two (Rao–Blackwell).
#
# **Predict before you run.** $n=1$ *without* the source is one random point. What is the mean of this target?

# %%
rows = ["| n | source in the batch: mean | variance | source left out: mean |", "|---" * 4 + "|"]
for n in (1, 2, 4, 16, 64):
    rest = others(n)
    with_source, without = weighted(torch.cat([sources(REPEATS), rest[:, 1:]], 1)), weighted(rest)
    error = float(with_source.std()) / math.sqrt(REPEATS)
    key[f"with, n = {n}"], key[f"without, n = {n}"] = float(with_source.mean()), float(without.mean())
    key[f"variance, n = {n}"] = float(with_source.var())
    rows.append(f"| {n} | {with_source.mean():.3f} ± {error:.3f} | {with_source.var():.3f} | {without.mean():.3f} |")
    assert abs(float(with_source.mean()) - exact) < 4 * error
display(Markdown("\n".join([*rows, f"| *exact* | *{exact:.3f}* | *0* | *{exact:.3f}* |"])))
assert abs(key["without, n = 2"] - exact) > 0.05
assert abs(key["without, n = 1"] - float(line.mean)) < 0.03

# %% [markdown]
# One random point knows nothing of $x_t$: its mean is the data's. With the source, no $n$ is off by more than the
# sampling error. But $f(x_r)$ is biased, $f$ being curved: its offset grows with the variance of $x_r$, which SCT
# lessens (section 2).
#
# ## 4 · Where is there something to gain?
#
# **Predict before you run.** The ring of eight modes, targets with 1, 4, 32, 256 references, at all noise levels. Where
# do the curves meet?

# %%
ring, schedule = td.mixture("ring"), td.Tabulated.scaled_linear()


def at_nsr(levels):
    return schedule.t_of_lam(-torch.log(torch.as_tensor(levels, dtype=torch.float64)))


levels = torch.logspace(-1.3, 1.15, LEVELS).double()
names = {1: "ct: its own sample", 4: "4 references", 32: "32 references", 256: "sct: 256 references"}
display(
    static.against_noise(
        {name: target_variance(ring, schedule, at_nsr(levels), n, seed=SEED) for n, name in names.items()},
        ylabel="variance of the target's x₀",
        note="the exact score's: 0",
        title="More references, less variance: in noise (ring of eight)",
    )
)
for n in names:
    [(_, variance, error)] = target_variance(ring, schedule, at_nsr([1.0]), n, seed=SEED)
    key[f"variance at NSR 1, {n} references"] = variance
assert key["variance at NSR 1, 256 references"] < 0.05 * key["variance at NSR 1, 1 references"]

# %% [markdown]
# In noise all weights are equal: $n$ references divide the variance by $n$. Towards data fewer of them are candidates.
# With 4 the source is alone, and the curve meets CT's; of 256, each mode has 32, and some gain is left.
#
# ## 5 · The algorithm, line by line
#
# ECT and SCT begin with a *diffusion model*. Stage by stage the neighbour $r$ moves from data towards $t$ (line 2
# below). Where $r=0$ the target is $x_0$: diffusion training.

# %%
nsr = torch.logspace(-2, 1.2, 200).double()
figure, axis = plt.subplots(figsize=(8, 4), layout="constrained")
for stage, color in zip((0, 1, 2, 3, 4, 6), style.PATH_COLORS, strict=False):
    axis.semilogx(nsr, nearer(nsr, stage, 2.0, 8.0, 1.0) / nsr, color=color, lw=2, label=f"stage {stage}")
axis.set(
    xlabel="noise level t",
    ylabel="r / t",
    ylim=(-0.02, 1.02),
    title="The neighbour r moves from data (0) towards t (1)",
)
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
key["stage 0 is diffusion training up to NSR"] = float(nsr[nearer(nsr, 0, 2.0, 8.0, 1.0) == 0].max())
assert abs(key["stage 0 is diffusion training up to NSR"] - math.log(7)) < 0.1

# %% [markdown]
# Stage $k$ has $r=t\,\max(0,\,1-2^{-(k+1)}(1+8\,\mathrm{sigmoid}(-t)))$. So stage 0 is diffusion training for
# $t\le\log7\approx1.95$ only; above, $r>0$ from the start.
#
# One loss serves both methods. `references` is what the mean runs over: for ECT the source alone, for SCT the whole
# batch. $f_\theta$ meets $f(x,0)=x$ as in lesson 10, $\theta^-$ is $\theta$ without a gradient, $d$ the squared
# distance (the papers take pseudo-Huber). The weight $1/(t-r)$ makes up for small gaps, over which $f$ hardly changes.


# %%
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
    return x / (1 + t**2) + t / (1 + t**2).sqrt() * net(x, t)


def d(a, b):
    return (a - b).square().mean(1)


# %%
def tuning_loss(net, x0, references, stage, u, eps, c=1.0):
    """x0, u, eps (B, 1), u and eps normal; references (B, n): row i may be the source of x_t in row i."""
    t = torch.exp(-1.1 + 2 * u).clamp(2e-3, 80)  # 1  ln t ~ N(-1.1, 2^2)
    r = t * (1 - 2.0 ** -(stage + 1) * (1 + 8 * torch.sigmoid(-t))).clamp(min=0)  # 2
    x_t = x0 + t * eps  # 3
    w = torch.softmax(-((x_t - references) ** 2) / (2 * t**2), 1)  # 4
    x0_mean = (w * references).sum(1, keepdim=True)  # 5  x~_0
    eps_mean = c * (x_t - x0_mean) / t  # 5  c is 1; the slide as printed has 1/n
    x_r = x_t + (r - t) * eps_mean  # 5  the bootstrap: subtract the reward
    with torch.no_grad():
        y = f(net, x_r, r)  # 6  x_r itself where r = 0
    return (d(f(net, x_t, t), y) / (t - r)[:, 0]).mean()  # 7


def train(net, references_of, seed=SEED, stages=6, updates=600, batch=256, eta=2e-3, c=1.0):
    torch.manual_seed(seed)
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), eta)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
    for k in range(updates):
        x0 = dataset[torch.randint(len(dataset), (batch,))]
        stage = k * stages // updates if stages else -1  # -1: r = 0 everywhere
        u, eps = torch.randn(batch, 1), torch.randn(batch, 1)
        loss = tuning_loss(net, x0, references_of(x0), stage, u, eps, c)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return net


def source_alone(x0):
    return x0  # n = 1: ECT


def whole_batch(x0):
    return x0.T.expand(len(x0), -1)  # n = B, and row i holds its source: SCT


dataset = line.sample(50_000, SEED).float()
torch.manual_seed(SEED)
diffusion_model = train(F(), source_alone, stages=0, updates=800, eta=5e-3)

# %% [markdown]
# Are these the library's ECT and SCT? With the same random numbers, the same losses:

# %%
student = td.NetDenoiser(lambda x, t: f(diffusion_model, x, ve.sigma(t)[:, None].to(x)), ve, "x0")
some = dataset[:500]
for name, library_loss, references_of in (("ECT", ect_loss, source_alone), ("SCT", sct_loss, whole_batch)):
    with torch.no_grad():
        library = float(library_loss(student, student, mse, some, None, Draws(SEED), 3))
        draws = Draws(SEED)
        u, eps = draws.normal(len(some))[:, None], draws.normal(*some.shape)
        ours = float(tuning_loss(diffusion_model, some, references_of(some), 3, u, eps))
    print(f"{name}: {ours:.6f}, library {library:.6f}")
    assert abs(ours / library - 1) < 1e-4

# %% [markdown]
# ## 6 · Does less variance make better students?
#
# First what the optimizer feels: the gradient at the *same* weights, over 60 batches. Its noise is the trace of its
# covariance, relative to the squared length of its mean. **Predict before you run:** does SCT help more early, when $r$
# is far from $t$, or late?


# %%
def gradient_noise(references_of, stage, batches=60):
    torch.manual_seed(SEED)
    gradients = []
    for _ in range(batches):
        x0 = dataset[torch.randint(len(dataset), (256,))]
        loss = tuning_loss(diffusion_model, x0, references_of(x0), stage, torch.randn(256, 1), torch.randn(256, 1))
        gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, diffusion_model.parameters())]))
    gradients = torch.stack(gradients)
    noise = gradients.var(0).sum()
    return float(noise), float(gradients.mean(0).square().sum() - noise / batches)


rows = ["| stage | ECT: noise of the gradient | SCT | ECT / SCT |", "|---" * 4 + "|"]
ratios = {}
for stage in (0, 2, 4, 6):
    (ect, _), (sct, _) = gradient_noise(source_alone, stage), gradient_noise(whole_batch, stage)
    ratios[stage] = ect / sct
    rows.append(f"| {stage} | {ect:.2g} | {sct:.2g} | {ect / sct:.1f} |")
display(Markdown("\n".join(rows)))
assert ratios[0] > ratios[6] > 1.2

# %% [markdown]
# Early: there the target is mostly the source itself. Late, what remains is the choice of $t$ and $x_t$, which SCT does
# not touch.
#
# Now train both, three seeds each, from the same diffusion model. And two controls: **the source left out**, four
# random points as references (beside four with the source), and **the slide as printed**, with $\frac1n$ in front.
# **Predict before you run:** which control misses the range of the data, and why?


# %%
def four(x0, first):
    rest = dataset[torch.randint(len(dataset), (len(x0), 3)), 0]
    return torch.cat([first, rest], 1)


def three_and_the_source(x0):
    return four(x0, x0)


def without_the_source(x0):
    return four(x0, dataset[torch.randint(len(dataset), (len(x0),))])


students = {
    "ECT": [train(diffusion_model, source_alone, seed) for seed in SEEDS],
    "SCT": [train(diffusion_model, whole_batch, seed) for seed in SEEDS],
    "4 references, source included": [train(diffusion_model, three_and_the_source)],
    "4 references, source left out": [train(diffusion_model, without_the_source)],
    "1/n in front, as printed": [train(diffusion_model, whole_batch, c=1 / 256)],
}

noise = torch.linspace(-2.5, 2.5, 400, dtype=torch.float64)[:, None]
ends = line.flow(ve, 80 * noise, 1.0, 0.0)
weight = (-noise.square() / 2).exp() / (-noise.square() / 2).exp().sum()  # of a normal distribution


def one_step(net):
    with torch.no_grad():
        return f(net, (80 * noise).float(), torch.full((len(noise), 1), 80.0)).double()


figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), sharey=True, layout="constrained")
colors = (style.SKY, style.GREEN, style.BLUE, style.VERMILLION, style.ORANGE)
errors = {}
for k, (name, nets) in enumerate(students.items()):
    errors[name] = torch.tensor([float((weight * (one_step(net) - ends).square()).sum().sqrt()) for net in nets])
    axes[0 if k < 2 else 1].plot(noise[:, 0], one_step(nets[0])[:, 0], color=colors[k], lw=2, label=name)
for axis, title in zip(axes, ("ECT and SCT, seed 0", "what the references are"), strict=True):
    axis.plot(noise[:, 0], ends[:, 0], color=style.INK, lw=4, alpha=0.25, label="exact")
    axis.set(xlabel="noise", ylabel="one step's sample", title=title, ylim=(-4, 5))
    axis.legend(fontsize=9, loc="upper left")
plt.show()
rows = ["| student | seeds | distance to the exact map (root mean square) |", "|---|---|---|"]
for name, values in errors.items():
    spread = f" ± {values.std():.3f}" if len(values) > 1 else ""
    rows.append(f"| {name} | {len(values)} | {values.mean():.3f}{spread} |")
display(Markdown("\n".join(rows)))
assert errors["4 references, source left out"] > 2 * errors["4 references, source included"]
assert errors["1/n in front, as printed"] > 2 * errors["SCT"].mean()

# %%
gap = errors["ECT"] - errors["SCT"]
by_seed = ", ".join(f"{value:+.3f}" for value in gap)
assert (gap > 0).all()
display(
    Markdown(
        f"ECT's distance less SCT's, seed by seed: {by_seed}. The controls are off by "
        f"{float(errors['4 references, source left out']):.2f} and {float(errors['1/n in front, as printed']):.2f}."
    )
)

# %% [markdown]
# With the source left out, the target is biased at every gap, and each gap passes its bias on. As printed,
# $\tilde\varepsilon\approx0$: no reward, $x_r\approx x_t$, and $f$ never learns to remove noise (off the axes).
#
# SCT is ahead of ECT on every seed, by 5 to 10 % of the distance: little beside the gain in variance. Four references
# (one seed) are as good as 256: many updates average noise too. And this is a line, which 256 points cover.

# %% [markdown]
# ## 7 · Where the gain ends: dimension
#
# The number of references that count, $1/\sum_iw_i^2$, in a batch of 64. **Predict before you run:** data $N(0,I)$ in
# 784 dimensions, as many as a digit has pixels. At $t=1$, how many of the 64 count?

# %%
dims, n = (1, 2, 8, 32, 128, 784), 64
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
levels = torch.logspace(-1, 1.15, 12).double()
for dim, color in zip(dims, [*style.PATH_COLORS, style.INK], strict=False):
    counts = []
    for level in levels:
        x0 = torch.randn(n, dim, generator=rng, dtype=torch.float64)
        z = x0 + level * torch.randn(n, dim, generator=rng, dtype=torch.float64)
        w = torch.softmax(-(torch.cdist(z, x0) ** 2) / (2 * level**2), 1)
        counts.append(float((1 / (w**2).sum(1)).mean()))
    axis.semilogx(levels, counts, color=color, lw=2, label=f"{dim} dimension{'s' if dim > 1 else ''}")
    key[f"references that count at the noisiest level, {dim} dimensions"] = counts[-1]
axis.set(
    xlabel=style.NSR_LABEL,
    ylabel=f"references that count, of {n}",
    ylim=(0, n + 2),
    title="Few references count in many dimensions",
)
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# One: distances grow with the dimension, and the softmax is one-hot at all but the noisiest levels. Wherever it is
# one-hot, SCT *is* ECT. Images have far fewer dimensions that matter than pixels, and the paper's batches are larger:
# both let more references count (not measured here).
#
# ## What the deck says / what we measured

# %%
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| bootstrapping: fit $h$ to $r+h$ (slide 16) | the reward is $z_t-z_r$: integral {true_reward:.4f}; CT's has standard \
deviation {key["standard deviation of the reward, CT, one source"]:.3f}, SCT's \
{key["standard deviation of the reward, SCT, n = 64"]:.3f} |
| the score from a reference batch (slide 17) | variance at NSR 1 on the ring: \
{key["variance at NSR 1, 1 references"]:.2f} with one sample, {key["variance at NSR 1, 256 references"]:.4f} with 256 |
| *(not said)* the bias | none with the source: {key["with, n = 2"]:.3f} for two, exact {exact:.3f}; without it \
{key["without, n = 2"]:.3f} |
| $\\frac1n\\sum$ (slide 17, as printed) | the two $\\frac1n$ cancel; with it, training ends \
{float(errors["1/n in front, as printed"]):.1f} from the exact map |
| *(the paper)* SCT before ECT | {errors["SCT"].mean():.3f} and {errors["ECT"].mean():.3f} from the exact map, \
{len(SEEDS)} seeds |
""")
)

# %% [markdown]
# ## You can now
#
# * derive slide 16's bootstrap and slide 17's weights, and say where each $\frac1n$ goes;
# * say what noise a one-sample target carries, and what keeps CT from the exact map;
# * say why the source must be in the batch, and what happens without it;
# * write ECT and SCT in a dozen lines, and name what they share with CD and CT;
# * say where a reference batch helps.

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** Slide 17 has a class $c$ everywhere: only members of the sample's own class are its
# candidates. Return SCT's neighbour $x_r$.


# %%
def labelled_neighbour(x_t, t, r, label, references, labels):
    """x_t, t, r (B, 1); label (B,); references (n, 1) with labels (n,). (B, 1)."""
    raise NotImplementedError


# %%
try:
    near, label = line.sample_labelled(300, SEED)
    at, to = torch.full((300, 1), 0.8), torch.full((300, 1), 0.3)
    noised = near + at * torch.randn(300, 1, generator=torch.Generator().manual_seed(SEED))
    answer = labelled_neighbour(noised, at, to, label, near, label)
    ideal = td.Empirical(near, label).denoiser(ve)(noised, ve.t_of_lam(-at[:, 0].log()), label)
    right = td.jump(ideal, ve.t_of_lam(-to[:, 0].log()))
    assert float((answer - right).abs().max()) < 1e-3, "not yet: weight 0 for members of another class"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** Somebody appends the source to a batch that already contains it, to be safe. Given the weights
# $w$ of the batch, source first, return those after it (in the batch's order, the source's two places summed).


# %%
def weights_with_the_source_twice(w):
    """w (REPEATS, n), each row sums to 1, column 0 the source's. The same shape."""
    raise NotImplementedError


# %%
try:
    batch = torch.cat([sources(REPEATS), others(3)], 1)
    w = torch.softmax(-((X_T - batch) ** 2) / (2 * T**2), 1)
    answer, right = weights_with_the_source_twice(w), weighted(torch.cat([batch, batch[:, :1]], 1))
    assert float(((answer * batch).sum(1) - right).abs().max()) < 1e-9, "not yet: exp of the same distance, twice"
    print(f"exercise 2: right, the variance grows from {weighted(batch).var():.3f} to {right.var():.3f}")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** Diffusion training regresses on a single sample too. Why is the variance of *its* target no problem,
# and that of consistency training's is?
#
# **4. Reason.** Let the reference batch be the whole data set. Is SCT then consistency training or distillation?

# %% [markdown]
# ## References
#
# * The deck, slides 16 (bootstrapping, consistency training) and 17 (ground truth of score estimation).
# * Wang, Geng and Li, *Stable Consistency Tuning: Understanding and Improving Consistency Models*, arXiv 2410.18958.
# * Geng et al., *Consistency Models Made Easy* (ECT), arXiv 2406.14548: alg. 1, sec. 3.3.
# * Xu, Tong and Jaakkola, *Stable Target Field for Reduced Variance Score Estimation in Diffusion Models*,
#   arXiv 2302.00670: the estimator.
