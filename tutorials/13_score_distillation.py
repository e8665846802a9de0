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
# # 13 · Score distillation: whose score moves the generator
#
# A one-step generator $x=g_\theta(z)$ needs no pairs, trajectories or data: noise its samples, and move them by the
# *difference of two scores* (slides 18 to 20 of the deck, *The Principle and Application of Diffusion Acceleration*).
#
# **In this lesson (30 minutes)** you derive that gradient, train SwiftBrush's loop and DMD's in plain PyTorch, break
# them, drop a mode, and prove the theorem behind score implicit matching. You need lesson 00.

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
from toydiff.distill.dmd import dmd_loss
from toydiff.distill.sim import huber_slope, l2_slope, sim_loss
from toydiff.distill.vsd import kl_weight, vsd_loss
from toydiff.plots import static, style
from toydiff.problems import problem
from toydiff.training import Draws

# %%
SEED = 0
SEEDS = (0, 1, 2)

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# Teacher $\psi$, generator $\theta$, and a second diffusion model $\phi$ of the *generator's* samples, the **fake
# model**. Their scores are $-\varepsilon_\psi/\sigma_t$ and $-\varepsilon_\phi/\sigma_t$ (lesson 00). Data: two
# Gaussians on the line, a teacher in closed form, cosine schedule.
#
# **Predict before you run.** The samples are $N(0,1)$. Where will the difference of the scores send a sample at 0, and
# one at 2.5?


# %%
def alpha_sigma(t):
    """The cosine schedule; t (B,), each result (B, 1)."""
    return torch.cos(t * math.pi / 2)[:, None], torch.sin(t * math.pi / 2)[:, None]


cosine = td.Cosine()
data = td.GaussianMixture([[-1.2], [1.0]], weights=torch.tensor([0.6, 0.4]), std=0.3)
normal = td.GaussianMixture([[0.0]], std=1.0)
x = torch.linspace(-3, 3, 241, dtype=torch.float64)[:, None].requires_grad_()
at, scores = 0.2, {}
figure, (upper, lower) = plt.subplots(2, 1, figsize=(9, 5), sharex=True, layout="constrained")
for mixture, name, color, line in ((data, "data", style.INK, "-"), (normal, "samples", style.VERMILLION, "--")):
    log_p = mixture.marginal(cosine, at).log_prob(x)
    [score] = torch.autograd.grad(log_p.sum(), x)
    scores[name], shown = score[:, 0], x.detach()[:, 0]
    upper.plot(shown, log_p.detach().exp(), color=color, ls=line, lw=2, label=f"{name}, noised")
    lower.plot(shown, scores[name], color=color, ls=line, lw=1.5, label=f"score of the {name}")
moved = scores["data"] - scores["samples"]
lower.plot(shown, moved, color=style.BLUE, lw=2.5, label="difference: the push")
some = slice(8, None, 16)
arrows = moved[some].clamp(-4, 4)
upper.quiver(shown[some], -0.06 + 0 * arrows, arrows, 0 * arrows, color=style.BLUE, scale=60, width=0.004)
lower.axhline(0, color=style.FLOOR_COLOR, lw=0.8)
upper.set(ylabel="density", ylim=(-0.12, None), title="Samples are moved by the difference of two scores")
lower.set(xlabel="$x_t$ (t = 0.2)", ylabel="score", ylim=(-9, 9))
for axis in (upper, lower):
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# **Out of the gap between the modes, and in from the tails.** Near 0 the push changes sign: samples part to both sides.
# It is 0 where the slopes of both log densities agree, and everywhere only if the densities are the same.
#
# ## 1 · Why the difference of scores: KL, in two lines
#
# Let $p_t$ be the density of $x_t=\alpha_tg_\theta(z)+\sigma_t\varepsilon$, $q_t$ that of noised data. Then
#
# $$\partial_\theta\,\mathrm{KL}(p_t\|q_t)=\partial_\theta\mathbb E[\log p_t(x_t)-\log q_t(x_t)]
# =\mathbb E\big[(s_p-s_q)\,\partial_\theta x_t\big]+\underbrace{\mathbb E[(\partial_\theta\log p_t)(x_t)]}_{
# =\int\partial_\theta p_t=0}.$$

# %% [markdown]
# With $s=-\varepsilon/\sigma_t$ and $\partial_\theta x_t=\alpha_t\partial_\theta g$ it is slide 18's
#
# $$\mathbb E\big[\omega(t)\,(\varepsilon_\psi-\varepsilon_\phi)\,\partial_\theta g\big],\qquad
# \omega=\alpha_t/\sigma_t .$$
#
# (The slide leaves the factor $\alpha_t$ to $\omega$.) Other $\omega>0$ weigh noise levels differently, with the same
# zero, $p=q$.

# %% [markdown]
# **Both networks see the generator's noised samples**, the teacher too. The mean is over $p_t$: the push is wanted
# where samples *are*, as only they can move. At noised data nothing depends on $\theta$, and $\phi$, which learns
# from samples, is not trained there.
#
# **Why noised?** Noise makes the supports overlap, so that the KL divergence is finite and samples feel far modes; and
# both networks know noised inputs only.

# %% [markdown]
# Is the library's VSD loss this gradient? Data $N(0.7,0.5^2)$, generator $g(z)=0.7+bz$, both scores exact,
# derivative by $b$ at $t=0.4$:

# %%
vp = td.VP()
t = torch.tensor(0.4, dtype=torch.float64)
alpha, sigma = vp.alpha(t), vp.sigma(t)
gaussian = td.GaussianMixture([[0.7]], std=0.5).denoiser(vp)
SAMPLES = 200_000


class AtOneTime(Draws):
    """A loss's random numbers, in double precision: normal ones as always, every time t = 0.4."""

    def normal(self, n, *shape):
        return torch.randn(n, *shape, generator=self.generator, dtype=torch.float64)

    def uniform(self, n, low=0.0, high=1.0):
        return t.expand(n)


class Samples(td.Denoiser):
    """A model whose x_0, row by row, is x (B, 1), whatever it is shown: as a generator, g(z) = x."""

    def __init__(self, x):
        super().__init__(vp)
        self.made = x

    def forward(self, x, t, cond=None):
        return td.Prediction.of("x0", self.made, x, t, vp)


def slope_by_scale(objective, b):
    """d/db of an objective at g(z) = 0.7 + b z, and its standard error: one b a sample, each with its gradient."""
    draws = AtOneTime(SEED)
    z = draws.normal(SAMPLES, 1)
    scale = torch.full((SAMPLES, 1), b, dtype=torch.float64, requires_grad=True)
    own = td.GaussianMixture([[0.7]], std=b).denoiser(vp)  # the exact fake model
    [each] = torch.autograd.grad(SAMPLES * objective(Samples(0.7 + scale * z), own, z, draws), scale)
    return float(each.mean()), float(each.std()) / SAMPLES**0.5


def vsd(g, own, z, draws):
    return vsd_loss(g, gaussian, own, kl_weight, z, None, draws)


def sds(g, own, z, draws):
    return vsd_loss(g, gaussian, g, kl_weight, z, None, draws)  # eps_phi is the noise itself


def dmd(g, own, z, draws):
    return dmd_loss(g, gaussian, own, z, None, draws)


def sim(g, own, z, draws, slope=l2_slope):
    return alpha / sigma**2 * sim_loss(g, gaussian, own, slope, z, None, draws)  # its weight made 1


def kl_slope(b):
    """d KL(p || q)/db in closed form."""
    S_q, S_p = alpha**2 * 0.25 + sigma**2, alpha**2 * b**2 + sigma**2
    return float(alpha**2 * b * (1 / S_q - 1 / S_p))


# %%
scales = [0.15, 0.3, 0.5, 0.7, 0.9]
fine = torch.linspace(0.1, 1.0, 60).tolist()
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
left.plot(fine, [kl_slope(b) for b in fine], color=style.CONTEXT_COLOR, lw=7, label="KL, closed form")
for axis, name, objective, color, marker in (
    (left, "VSD, ω = α/σ", vsd, style.PURPLE, "o"),
    (left, "without the fake model (SDS)", sds, style.VERMILLION, "s"),
    (right, "DMD", dmd, style.BLUE, "P"),
    (right, "SIM, squared distance", sim, style.ORANGE, "D"),
):
    table = [(b, *slope_by_scale(objective, b)) for b in scales]
    unit = 1.0 if axis is left else max(abs(row[1]) for row in table)
    values, errors = [row[1] / unit for row in table], [row[2] / unit for row in table]
    axis.errorbar(scales, values, errors, color=color, marker=marker, ls="--", lw=1, label=name)
for axis, label in ((left, "derivative by b"), (right, "derivative by b / its largest")):
    axis.axhline(0, color=style.FLOOR_COLOR, lw=0.8)
    axis.axvline(0.5, color=style.FLOOR_COLOR, lw=0.8, ls=":")
    axis.set(xlabel="b, the samples' spread (the data's: 0.5)", ylabel=label)
    axis.legend()
left.set_title("VSD is the gradient of KL; SDS never is 0")
right.set_title("DMD and SIM: other gradients, the same zero")
plt.show()
for b in (0.15, 0.9):
    found, error = slope_by_scale(vsd, b)
    key[f"VSD's slope at b = {b}"], key[f"the KL divergence's at b = {b}"] = found, kl_slope(b)
    assert abs(found - kl_slope(b)) < 4 * error
key["SDS's slope at the data"] = slope_by_scale(sds, 0.5)[0]
assert key["SDS's slope at the data"] > 0.1

# %% [markdown]
# Negative: the samples spread. Positive: they contract. Without the fake model (the noise $\varepsilon$ in its place:
# score distillation *sampling*, DreamFusion's) the derivative is positive *everywhere*: samples contract to the most
# probable point.
#
# ## 2 · SwiftBrush's loop, line by line
#
# Slide 18's Algorithm 1; the numbers are its lines. There are no prompts $y$. $\phi$ starts as $\psi$ plus a correction
# that is 0, as a LoRA is.


# %%
def teacher_of(mixture):
    exact = mixture.denoiser(cosine)
    return lambda x_t, t: exact(x_t, t).eps


def mlp(inputs, hidden=64):
    last = torch.nn.Linear(hidden, 1)
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.zeros_(last.bias)
    first, second = torch.nn.Linear(inputs, hidden), torch.nn.Linear(hidden, hidden)
    return torch.nn.Sequential(first, torch.nn.SiLU(), second, torch.nn.SiLU(), last)


class Generator(torch.nn.Module):
    """g(z): z (B, 1); at first mean + std z."""

    def __init__(self, mean=0.0, std=1.0):
        super().__init__()
        self.layers, self.mean, self.std = mlp(1), mean, std

    def forward(self, z):
        return self.mean + self.std * z + self.layers(z)


class Fake(torch.nn.Module):
    """eps_phi(x_t, t), at first the teacher's."""

    def __init__(self, teacher):
        super().__init__()
        self.layers, self.teacher = mlp(3), teacher

    def forward(self, x_t, t):
        alpha, sigma = alpha_sigma(t)
        return self.teacher(x_t, t) + alpha * self.layers(torch.cat([2 * x_t, alpha, sigma], 1))


# %%
def vsd_direction(x, x_t, alpha, sigma, eps_psi, eps_phi):
    return alpha / sigma * (eps_psi - eps_phi)


def generator_loss(g, teacher, fake, z, t, eps, direction=vsd_direction):
    x = g(z)  # 6
    alpha, sigma = alpha_sigma(t)
    with torch.no_grad():
        x_t = alpha * x + sigma * eps  # 9
        eps_phi = eps if fake is None else fake(x_t, t)
        delta = direction(x, x_t, alpha, sigma, teacher(x_t, t), eps_phi)
    return (0.5 * (x - (x - delta).detach()) ** 2).sum(1).mean()  # 10: its gradient is delta dx/dtheta


def fake_loss(fake, x, t, eps):
    alpha, sigma = alpha_sigma(t)
    return (fake(alpha * x + sigma * eps, t) - eps).square().mean()  # 13, 14: denoising score matching


def train(mixture=data, start=(0.0, 1.0), seed=SEED, direction=vsd_direction, whose="own", updates=400, batch=256):
    """Returns g, phi and g on the way. whose samples phi learns: "own", the "first" generator's, "nobody's"; or
    "no model" at all."""
    torch.manual_seed(seed)
    g, teacher, seen = Generator(*start), teacher_of(mixture), {}
    first, phi = copy.deepcopy(g), Fake(teacher)  # 2: phi <- psi
    move = torch.optim.Adam(g.parameters(), 2e-3, betas=(0.0, 0.999))
    learn = torch.optim.Adam(phi.parameters(), 5e-3, betas=(0.0, 0.999))
    decay = torch.optim.lr_scheduler.LinearLR(move, 1.0, 0.05, updates)
    for k in range(updates):  # 3
        z, t = torch.randn(batch, 1), torch.empty(batch).uniform_(0.02, 0.98)  # 4, 7
        fake = None if whose == "no model" else phi
        loss = generator_loss(g, teacher, fake, z, t, torch.randn(batch, 1), direction)  # 8
        move.zero_grad()
        loss.backward()
        move.step()
        if whose in ("own", "first"):
            with torch.no_grad():
                x = (g if whose == "own" else first)(torch.randn(batch, 1))
            loss = fake_loss(phi, x, torch.empty(batch).uniform_(1e-3, 1.0), torch.randn(batch, 1))  # 11, 12
            learn.zero_grad()
            loss.backward()
            learn.step()
        decay.step()
        if k in (0, 40, 120, updates - 1):
            seen[k + 1] = copy.deepcopy(g)
    return g, phi, seen


# %% [markdown]
# Two optimizers take turns: the generator's gradient is right only while $\phi$ is the score of its *current* samples.
# **Predict before you run:** are both modes found from $g(z)=z$, with their shares, 60 % and 40 %?

# %%
generators = {seed: train(seed=seed) for seed in SEEDS}
z_test = torch.randn(20_000, 1, generator=torch.Generator().manual_seed(SEED))
points = torch.linspace(-4, 4, 400, dtype=torch.float64)[:, None]


def measured(g, mixture=data):
    """(share of the left mode, root mean square distance of the quantiles to the data's, samples)."""
    with torch.no_grad():
        x = g(z_test)
    true = mixture.sample(len(x), 1).float()
    off = float((x.sort(0).values - true.sort(0).values).square().mean().sqrt())
    return float((x < mixture.means.mean()).float().mean()), off, x


def histogram(axis, g, title, mixture=data, color=style.PURPLE):
    axis.hist(measured(g)[2][:, 0], bins=80, range=(-4, 4), density=True, color=color, alpha=0.7)
    axis.plot(points[:, 0], mixture.log_prob(points).exp(), color=style.INK, lw=1.6, label="data")
    axis.set(xlabel="x", title=title, ylim=(0, 1.6))


figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), sharey=True, layout="constrained")
for axis, (k, g) in zip(axes, generators[SEED][2].items(), strict=True):
    histogram(axis, g, f"{k} update{'s' if k > 1 else ''}")
axes[0].set_ylabel("density of the samples")
axes[0].legend()
plt.show()
two = (data.sample(20_000, seed).float().sort(0).values for seed in (1, 2))
floor = float((next(two) - next(two)).square().mean().sqrt())
rows = ["| seed | share of the left mode (data: 0.60) | distance W2 to the data |", "|---|---|---|"]
for seed, (g, _, _) in generators.items():
    share, off, _ = measured(g)
    rows.append(f"| {seed} | {share:.2f} | {off:.2f} |")
    assert abs(share - 0.6) < 0.08
    assert off < 0.3
display(Markdown("\n".join([*rows, f"| *data to data, one pair of sets* | *0.60* | *{floor:.2f}* |"])))

# %% [markdown]
# Yes, on every seed. The shares are right, the shapes are not: $g$ is continuous, so some samples must lie between the
# modes, and a small network is not steep; and samples pile up at the modes' outer sides.
#
# Is it the library's VSD? And **DMD** changes one function, the direction: the difference in $\hat x_0$, divided for
# each sample by its distance from the teacher's $\hat x_0$. (DMD's regression on pairs comes on top.)


# %%
def dmd_direction(x, x_t, alpha, sigma, eps_psi, eps_phi):
    D_psi, D_phi = (x_t - sigma * eps_psi) / alpha, (x_t - sigma * eps_phi) / alpha
    scale = (x - D_psi).abs().mean(1, keepdim=True)
    return (D_phi - D_psi) / scale.clamp(min=0.03 * scale.mean())  # in one dimension |x - D_psi| may be near 0


g, phi, _ = generators[SEED]
student, fake = td.NetDenoiser(lambda z, t: g(z), cosine, "x0"), td.NetDenoiser(phi, cosine, "eps")
z, exact = z_test[:1000], data.denoiser(cosine)
with torch.no_grad():
    draws = Draws(SEED)
    same = draws.uniform(len(z), 0.02, 0.98), draws.normal(*z.shape)
    ours = [float(generator_loss(g, teacher_of(data), phi, z, *same, how)) for how in (vsd_direction, dmd_direction)]
    library = [
        float(vsd_loss(student, exact, fake, kl_weight, z, None, Draws(SEED))),
        float(dmd_loss(student, exact, fake, z, None, Draws(SEED))),
    ]
print(f"VSD: {ours[0]:.6f}, library {library[0]:.6f}; DMD: {ours[1]:.6f}, library {library[1]:.6f}")
assert torch.allclose(torch.tensor(ours), torch.tensor(library), rtol=1e-3)
share, off, _ = measured(train(direction=dmd_direction)[0])
print(f"DMD's direction: share of the left mode {share:.2f}, distance {off:.2f}")
assert abs(share - 0.6) < 0.08

# %% [markdown]
# ## 3 · Break it: whose score?
#
# Three ways to get the second score wrong. **Predict before you run** what each does to the samples:
#
# 1. *no model*: the noise $\varepsilon$ in its place (SDS);
# 2. *nobody's*: $\phi$ is never trained, and stays $\psi$;
# 3. *first*: stale, $\phi$ learns the samples of the generator as it was at the start.

# %%
broken = {whose: train(whose=whose)[0] for whose in ("no model", "nobody's", "first")}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), sharey=True, layout="constrained")
histogram(axes[0], g, "own: as it should be")
for axis, (whose, model) in zip(axes[1:], broken.items(), strict=True):
    histogram(axis, model, whose, color=style.VERMILLION)
    axis.set_ylim(0, 2)
axes[0].set_ylabel("density of the samples")
plt.show()
spread = {whose: float(measured(model)[2].std()) for whose, model in broken.items()}
for whose, model in broken.items():
    print(f"{whose:10} spread {spread[whose]:.2f} (data {data.std:.2f}), distance {measured(model)[1]:.2f}")
assert spread["no model"] < 0.2 * data.std
assert abs(spread["nobody's"] - 1) < 0.05
assert spread["first"] < 0.2 * data.std

# %% [markdown]
# 1 and 3 collapse to a point: the push no longer depends on how dense the samples are, so nothing holds them apart.
# With 2 nothing moves: $\varepsilon_\psi-\varepsilon_\phi=0$ whatever the samples are, as $\phi$ equals $\psi$, and the
# generator's loss is 0, its least value.

# %% [markdown]
# So the loss tells nothing: its gradient is right, its value $|\Delta|^2/2$ is no divergence. Watch samples instead.
#
# ## 4 · Mode dropping
#
# $\mathrm{KL}(p\|q)$ is *reverse*: it averages over samples, and a mode without samples costs little.

# %% [markdown]
# Start the generator *inside* the right mode, with its mean and spread. If $p$ is exactly one mode of weight $\pi$ and
# the modes lie apart, $\mathrm{KL}(p\|q)=\log(1/\pi)$: finite, and flat, since $s_p=s_q$ wherever there are samples.
# Noise is the remedy: at large $t$ the modes overlap, and samples of one feel the other.
#
# **Predict before you run.** Modes 2.2 or 3.6 apart, or 3.6 and a wide start: who finds the left mode?

# %%
far = td.GaussianMixture([[-2.0], [1.6]], weights=torch.tensor([0.6, 0.4]), std=0.3)
cases = {
    "2.2 apart": [train(data, (1.0, 0.3))],
    "3.6 apart": [train(far, (1.6, 0.3), seed) for seed in SEEDS],
    "3.6 apart, wide start": [train(far, (0.0, 1.0))],
}
figure, axes = plt.subplots(1, 3, figsize=(12, 3.4), sharey=True, layout="constrained")
shares = {}
for axis, (name, trained) in zip(axes, cases.items(), strict=True):
    mixture = data if name == "2.2 apart" else far
    shares[name] = [measured(g, mixture)[0] for g, _, _ in trained]
    histogram(axis, trained[0][0], f"{name}: left {shares[name][0]:.0%}", mixture)
axes[0].set_ylabel("density of the samples")
plt.show()
for name, values in shares.items():
    print(
        f"{name:22} share of the left mode (data: 0.60), seed by seed: " + ", ".join(f"{value:.2f}" for value in values)
    )
assert max(shares["3.6 apart"]) < 0.35
assert min(shares["2.2 apart"]) > 0.4
assert min(shares["3.6 apart, wide start"]) > 0.4

# %% [markdown]
# Near modes are found even from inside one. The far one has, after the same 400 updates, a fraction of its share: it is
# found slowly if at all (no longer run is shown), and at once if samples start on both sides. So score distillation
# begins with a generator that covers the data, and DMD adds regression on pairs, whose ends are in every mode.

# %% [markdown]
# ## 5 · The theorem of slides 19 and 20
#
# Score implicit matching (SIM) minimises a distance of scores, $\mathbb E\,d(s_p-s_q)$. The trouble: $s_p$ depends on
# $\theta$, and $\partial_\theta s_p$ cannot be computed. The theorem trades it away.

# %% [markdown]
# *Proof.* For any fixed function $u$, the score being a posterior mean (lesson 00),
# $$\mathbb E_{p_t}[u^\top s_p]=\mathbb E[u(x_t)^\top\nabla\log q(x_t|x_0)].$$
# Differentiate both sides by $\theta$. On the left $\theta$ is in $s_p$ and in $x_t$; write $s_{\mathrm{sg}}$ for $s_p$
# held fixed:
# $$\mathbb E[u^\top\partial_\theta s_p]+\partial_\theta\mathbb E[u^\top s_{\mathrm{sg}}]
# =\partial_\theta\mathbb E[u^\top\nabla\log q(x_t|x_0)].$$
# Move the second term to the right, and put $u=d'(s_{\mathrm{sg}}-s_q)$: that is slide 20's (3.6). ∎

# %% [markdown]
# What is left to differentiate is $x_t$, also *inside* $u$. The bracket is
# $s_{\mathrm{sg}}-\nabla\log q(x_t|x_0)=\frac{\alpha}{\sigma^2}(D_\phi(x_t)-x_0)$, with $D_\phi$ the fake model's
# $\hat x_0$: the slide's "simplify".
#
# **Predict before you run.** VSD needs a stop-gradient around its networks. What happens to SIM if $u$ is detached?


# %%
def sim_slope(b):
    """The exact left side for d(y) = y^2: E[2 (s_p - s_q) ds_p/db], the law of x_t held."""
    S_q, S_p = alpha**2 * 0.25 + sigma**2, alpha**2 * b**2 + sigma**2
    return float(2 * (1 / S_q - 1 / S_p) * 2 * alpha**2 * b / S_p)


def detached(g, own, z, draws):
    return sim(g, own, z, draws, slope=lambda y, c: l2_slope(y, c).detach())


rows = ["| b | exact left side | SIM's loss, differentiated | $u$ detached |", "|---|---|---|---|"]
for b in (0.3, 0.5, 0.9):
    (right, error), (wrong, _) = slope_by_scale(sim, b), slope_by_scale(detached, b)
    rows.append(f"| {b} | {sim_slope(b):.3f} | {right:.3f} ± {error:.3f} | {wrong:.3f} |")
    assert abs(right - sim_slope(b)) < 4 * error + 1e-9
key["SIM's slope at b = 0.9"], key["SIM's slope at b = 0.9, detached"] = right, wrong
display(Markdown("\n".join(rows)))
assert wrong < 0.8 * sim_slope(0.9)

# %% [markdown]
# Half of the derivative is lost: $u$ moves with $\theta$ too, through $x_t$. SIM is differentiated *through* both
# networks. VSD must not be: its difference of scores already *is* KL's gradient, as the term that is left is 0
# (section 1).

# %% [markdown]
# ## 6 · Digits in one call
#
# The bundled students: all started from the one-step student of naive distillation (lesson 06), and went on for 200 to
# 800 updates against the guided teacher. `vsd` and `swiftbrush` have one gradient and two settings: $\omega$, updates,
# and a whole fake model or a LoRA.

# %%
rows = [
    "| student | network calls | distance over the floor | accuracy | rarest class, of its expected fraction |",
    "|---" * 5 + "|",
]
ids = ["digits-naive", "digits-vsd", "digits-swiftbrush", "digits-dmd", "digits-dmd2", "digits-sim"]
for id_ in ids:
    row = next(row for row in runs.load(id_).about["rows"] if row["steps"] == 1)
    rarest = f"{10 * min(row['fractions']):.0%}" if row.get("fractions") else "—"
    key[f"{id_}, 1 step"], error = row["distance"] / row["floor"], row["distance_std"] / row["floor"]
    rows.append(f"| {id_} | 1 | {key[f'{id_}, 1 step']:.1f} ± {error:.1f} | {row['accuracy']:.1%} | {rarest} |")
best = next(row for row in runs.load("digits-teacher").about["rows"] if row["steps"] == 25)
key["digits-teacher, 25 steps"] = best["distance"] / best["floor"]
rows.append(
    f"| *digits-teacher* | *{best['nfe']}* | *{key['digits-teacher, 25 steps']:.1f} ± "
    f"{best['distance_std'] / best['floor']:.1f}* | *{best['accuracy']:.1%}* | |"
)
display(Markdown("\n".join(rows)))

digits = problem("digits")
cond = torch.arange(10)
pictures = {}
for id_ in [*ids, "digits-teacher"]:
    steps, g = (25, 1.5) if id_ == "digits-teacher" else (1, 1.0)
    path, _ = runs.sample(runs.load(id_), digits, 10, steps, cond=cond, guidance_scale=g, seed=SEED)
    pictures[id_.removeprefix("digits-") + (", 50 calls" if steps > 1 else "")] = path.end
display(static.digits(pictures, title="The same noise, one call each"))
assert max(key[f"{id_}, 1 step"] for id_ in ids[1:]) < 3 * key["digits-teacher, 25 steps"]

# %% [markdown]
# One run each; ± is the deviation over five groups of 1,000 images. A generator that is moved by scores need not land
# where the teacher's ODE takes the same noise: compare a column with the teacher's. Its *distribution* is what is
# matched, not its map.
#
# ## What the deck says / what we measured

# %%
left_shares = ", ".join(f"{measured(g)[0]:.2f}" for g, _, _ in generators.values())
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| VSD's gradient (slide 18) | with $\\omega=\\alpha/\\sigma$ that of KL: {key["VSD's slope at b = 0.9"]:.3f}, closed \
form {key["the KL divergence's at b = 0.9"]:.3f}; $\\omega$ has to hold $\\alpha$ |
| Algorithm 1 (slide 18) | both modes on every seed: left {left_shares} of 0.60; without $\\phi$ the spread is \
{spread["no model"]:.2f} |
| *(not said)* modes | from inside one of two far modes the other gets {max(shares["3.6 apart"]):.2f} at most |
| the theorem (slide 20) | {key["SIM's slope at b = 0.9"]:.2f}, exact {sim_slope(0.9):.2f}; $u$ detached \
{key["SIM's slope at b = 0.9, detached"]:.2f} |
| one step, no data (SwiftBrush) | digits: {key["digits-swiftbrush, 1 step"]:.1f} floors in one call, its start \
{key["digits-naive, 1 step"]:.1f}, the teacher in 50 calls {key["digits-teacher, 25 steps"]:.1f} |
""")
)

# %% [markdown]
# ## You can now
#
# * derive VSD's gradient from a KL divergence, and say what $\omega$ holds;
# * write SwiftBrush's alternating loop, and change one function to get DMD's direction;
# * say what happens with no fake model, an untrained and a stale one;
# * say why reverse KL drops modes, and what helps;
# * prove the score divergence gradient theorem, and say where gradients must flow.

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** SIM's loss for $d(y)=\sqrt{|y|^2+c^2}-c$, with the weight that makes it
# $-u^\top(D_\phi-x_0)$. Mind where gradients flow.


# %%
def score_implicit_loss(g, teacher, fake, z, t, eps, c=1.0):
    """teacher, fake: (x_t, t) -> eps. A scalar, to be differentiated by g's parameters."""
    raise NotImplementedError


# %%
try:
    g, phi, _ = generators[SEED]
    draws = Draws(SEED)
    same = draws.uniform(len(z), 0.02, 0.98), draws.normal(*z.shape)
    answer = score_implicit_loss(g, teacher_of(data), phi, z, *same)
    right = sim_loss(student, exact, fake, huber_slope, z, None, Draws(SEED))
    assert torch.allclose(answer, right, atol=1e-3), "not yet: the value"
    slopes = [torch.autograd.grad(loss, g.layers[0].weight)[0] for loss in (answer, right)]
    assert torch.allclose(*slopes, rtol=1e-2, atol=1e-4), "not yet: x_t keeps its graph, in u and in D_phi"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** A generator has dropped all but $k$ of $K$ equal, far modes, and fills those evenly. What is
# $\mathrm{KL}(p\|q)$? (And the forward one?)


# %%
def reverse_kl(k, K):
    """A number."""
    raise NotImplementedError


# %%
try:
    apart = torch.arange(4.0)[:, None] * 20
    few, all_ = td.GaussianMixture(apart[:2], std=0.3), td.GaussianMixture(apart, std=0.3)
    x = few.sample(5000, SEED, dtype=torch.float64)
    value = float((few.log_prob(x) - all_.log_prob(x)).mean())
    assert abs(reverse_kl(2, 4) - value) < 1e-3, f"not yet: 2 of 4 modes measure {value:.3f}"
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** Both scores are read at *noised* samples of the generator. Why noise them at all, when the samples
# themselves are at hand? And which of section 3's failures comes back if $\phi$ learns from noised *data* instead?

# %% [markdown]
# ## References
#
# * The deck, slides 18 (VSD, SwiftBrush's Algorithm 1), 19 and 20 (score divergence, its gradient theorem).
# * Wang et al., *ProlificDreamer* (VSD), arXiv 2305.16213: eq. 9; Poole et al., *DreamFusion* (SDS), arXiv 2209.14988.
# * Nguyen and Tran, *SwiftBrush*, arXiv 2312.05239: alg. 1.
# * Yin et al., *One-step Diffusion with Distribution Matching Distillation* (DMD), arXiv 2311.18828:
#   eq. 7, 8; *Improved DMD* (DMD2), arXiv 2405.14867.
# * Luo et al., *One-Step Diffusion Distillation through Score Implicit Matching*, arXiv 2410.16794: theorem 3.1.
