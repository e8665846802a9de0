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
# # 00 · A map
#
# A diffusion model is a network that removes noise. It makes samples from noise in many calls. This course, after
# the deck *The Principle and Application of Diffusion Acceleration*, is about few calls, or parallel ones.
#
# **In this lesson (15 minutes)** you train a diffusion model in plain PyTorch, see why predicting noise gives the
# score, derive the ODE in two lines, and get a map of the methods. You need calculus, probability and PyTorch.

# %%
# %matplotlib inline
try:
    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import itertools
import math

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

from toydiff import runs
from toydiff.distill.diffusion import diffusion_loss
from toydiff.plots import static, style
from toydiff.training import Draws

# %%
SEED = 0
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %%
ring = td.mixture("ring")
teacher, student = runs.load("ring-teacher").denoiser, runs.load("ring-cd").denoiser
noise = torch.randn(600, 2, generator=torch.Generator().manual_seed(SEED))
with torch.no_grad():
    shown = {
        "100 calls: the ODE": td.solve(teacher, noise, 100, solver="ddim").end,
        "1 call: the same network": td.solve(teacher, noise, 1, solver="ddim").end,
        "1 call: a distilled student": td.solve(student, noise, 1, solver="ddim").end,
    }
display(static.samples(shown, ring, title="The same noise, three ways to data"))
key["100 calls, share near a mode"], key["1 call, share near a mode"], key["student, share near a mode"] = (
    float((torch.cdist(x, ring.means.float()).amin(1) < 0.5).float().mean()) for x in shown.values()
)
assert key["100 calls, share near a mode"] > 0.95
assert key["1 call, share near a mode"] < 0.1
assert key["student, share near a mode"] > 0.9

# %% [markdown]
# **One call of a diffusion model gives a mean, which is no sample; a student that was trained to jump gives a sample.**
# Data: eight Gaussians on a ring (shaded). Left, a solver follows an ODE from noise to data (section 5); middle, the
# same in one step; right, one call of another network, trained for it. The course explains how one gets there, what it
# costs, and when it fails.

# %% [markdown]
# ## 1 · The families, and what each costs
#
# The deck's list (slides 4, 6, 9). A *round* is a set of calls that run at the same time. *Over the floor*: the
# distance of 8,000 samples to the data, divided by the **floor**, that of as many real samples to the data. The floor's
# spread stands below the table: within it nothing is ahead. More samples have a lower floor, so compare ratios at one
# number of samples only.

# %%
FAMILIES = [  # family, what changes, weights, steps, lessons
    ("solvers", "better steps, same network", "ring-teacher", 10, "03, 04"),
    ("progressive", "two steps become one, again and again", "ring-progressive", 4, "06"),
    ("rectification", "retrain on (noise, sample) pairs", "ring-rectified-flow", 1, "07, 08"),
    ("consistency distillation", "neighbours on a path share an end", "ring-cd", 1, "10, 12"),
    ("consistency training", "the same, without a teacher", "ring-ct", 1, "10, 11"),
]
rows = [
    "| family | what changes | calls | rounds | updates | teacher's calls in training | over the floor | lessons |",
    "|---" * 8 + "|",
]
for family, change, name, steps, lessons in FAMILIES:
    about = runs.load(name).about
    row = next(row for row in about["rows"] if row["steps"] == steps)
    rows.append(
        f"| {family} | {change} | {row['nfe']} | {row['rounds']} | {about['updates']:,} | {row['teacher_calls']:,} | "
        f"{row['distance'] / row['floor']:.1f} | {lessons} |"
    )
vp = td.VP()  # the schedule of score-based models: lesson 01
serial, parallel = (td.solve(ring.denoiser(vp), noise.double(), 100, solver=s) for s in ("ddim", "picard"))
rows += [
    f"| parallel sampling | all steps at once, repeated | {parallel.nfe:,} | {parallel.rounds} | 0 | 0 | that of "
    f"{serial.rounds} steps | 05 |",
    "| score distillation | the difference of two scores moves a generator | 1 | 1 | | | on digits | 13 |",
    "| adversarial | a discriminator judges noised samples | 1 | 1 | | | on digits | 14 |",
]
display(Markdown("\n".join(rows)))
print(
    f"spread of the floor over 10 pairs of sets: {row['floor_std'] / row['floor']:.2f} of it (one standard deviation)"
)
assert row["n"] == 8000
key["rounds of 100 parallel steps"], key["calls of 100 parallel steps"] = parallel.rounds, parallel.nfe
assert parallel.rounds < serial.rounds < parallel.nfe

# %% [markdown]
# There are two costs: *calls* cost energy, *rounds* cost time. Parallel sampling needs fewer rounds and more calls;
# distillation needs fewer calls and a second training. Every student here, except consistency training's, starts from a
# trained diffusion model, whose updates the table leaves out.

# %% [markdown]
# ## 2 · Notation card
#
# | symbol | meaning |
# |---|---|
# | $x_0,\ \varepsilon$ | data; noise, $\varepsilon\sim\mathcal N(0,I)$ |
# | $x_t=\alpha_tx_0+\sigma_t\varepsilon$ | noised data, $t=0$ data, $t=1$ noise |
# | $n=\sigma_t/\alpha_t$ | noise-to-signal ratio, NSR |
# | $z=x_t/\alpha_t$ | $=x_0+n\,\varepsilon$ |
# | $p_t$ | density of $x_t$ |
# | $\nabla\log p_t$ | score |
# | $\hat\varepsilon(x_t,t)$ | the network's prediction of $\varepsilon$ |
# | $\hat x_0$ | $(x_t-\sigma_t\hat\varepsilon)/\alpha_t$ |
# | $\theta$ | the network's weights |
#
# In code, on the cosine schedule:


# %%
def alpha_sigma(t):
    """The cosine schedule; t (B,), each result (B, 1)."""
    return torch.cos(t * math.pi / 2)[:, None], torch.sin(t * math.pi / 2)[:, None]


schedule = td.Cosine()
data = td.GaussianMixture(
    torch.tensor([[-1.5], [0.3], [1.8]]), weights=torch.tensor([0.4, 0.35, 0.25]), std=torch.tensor([0.3, 0.2, 0.4])
)  # three Gaussians on the line: everything about them is known in closed form
exact = data.denoiser(schedule)

# %% [markdown]
# ## 3 · Why predicting noise gives the score
#
# Slide 3: *the only unknown term is the score*. The density of $x_t$ is a mixture over all data,
# $p_t(x)=\int p(x_0)\,\mathcal N(x;\alpha_tx_0,\sigma_t^2)\,dx_0$. Differentiate, and divide by $p_t$:
#
# $$\nabla\log p_t(x)=\mathbb E\Big[-\frac{x-\alpha_tx_0}{\sigma_t^2}\,\Big|\,x_t=x\Big]
# =-\frac{\mathbb E[\varepsilon\,|\,x_t=x]}{\sigma_t}.$$
#
# And least squares finds conditional means: with $m(x_t)=\mathbb E[\varepsilon\,|\,x_t]$
#
# $$\mathbb E|\hat\varepsilon-\varepsilon|^2=\mathbb E|\hat\varepsilon-m|^2+\mathbb E|m-\varepsilon|^2,$$
#
# since given $x_t$ the cross term has mean $(\hat\varepsilon-m)\cdot\mathbb E[m-\varepsilon\,|\,x_t]=0$. The last
# term is out of reach; the other is least for $\hat\varepsilon=m=-\sigma_t\nabla\log p_t$.

# %% [markdown]
# **Predict before you run.** Draw many $(x_0,\varepsilon)$, form $x_t$ at $t=0.3$, plot $\varepsilon$ against $x_t$. Is
# there one $\varepsilon$ for each $x_t$? Where is the mean of $\varepsilon$ zero, and what is special about the density
# there?

# %%
rng = torch.Generator().manual_seed(SEED)
N = 200_000
x0, eps = data.sample(N, rng, dtype=torch.float64), torch.randn(N, 1, generator=rng, dtype=torch.float64)
alpha, sigma = alpha_sigma(torch.full((N,), 0.3, dtype=torch.float64))
x_t = alpha * x0 + sigma * eps

edges = torch.linspace(-2, 2, 41, dtype=torch.float64)
which = torch.bucketize(x_t[:, 0], edges)
middle, mean_eps = [], []
for k in range(1, len(edges)):
    inside = which == k
    middle.append(float(x_t[inside].mean()))
    mean_eps.append(float(eps[inside].mean()))
line = torch.linspace(-2.2, 2.2, 300, dtype=torch.float64)[:, None].requires_grad_()
noised = data.marginal(schedule, 0.3)  # p_t, again a mixture of Gaussians
[score] = torch.autograd.grad(noised.log_prob(line).sum(), line)  # the score by its definition, no network
by_score = -float(sigma[0]) * score[:, 0]

figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 5.4), sharex=True, layout="constrained", height_ratios=(1, 2.4))
grid = line.detach()
upper.fill_between(grid[:, 0], noised.log_prob(grid).exp(), color="#B5B5B5")
upper.set(ylabel="$p_t$", title=r"The mean of the noise, given $x_t$, is $-\sigma_t$ times the slope of $\log p_t$")
lower.scatter(x_t[:3000, 0], eps[:3000, 0], s=3, color=style.SKY, alpha=0.4, label="draws of ($x_t$, ε)")
lower.plot(grid[:, 0], by_score, color=style.INK, lw=2.5, label=r"$-\sigma_t\nabla\log p_t$, closed form")
lower.plot(middle, mean_eps, "o", color=style.VERMILLION, ms=5, label="mean of ε in a bin")
lower.set(xlabel="$x_t$", ylabel="ε", xlim=(-2.2, 2.2))
lower.legend(loc="upper left")
plt.show()
at = torch.tensor(middle, dtype=torch.float64)[:, None].requires_grad_()
[slope] = torch.autograd.grad(noised.log_prob(at).sum(), at)
gap = float((torch.tensor(mean_eps) + float(sigma[0]) * slope[:, 0]).abs().max())
print(f"largest gap between the bins' means and the score: {gap:.3f}")
assert gap < 0.08

# %% [markdown]
# Many $\varepsilon$ for each $x_t$, and their mean is zero where $p_t$ is flat: at its peaks and valleys. The scatter
# around the mean is what no network can know. Its size is the loss that remains.

# %% [markdown]
# ## 4 · Train it
#
# *Denoising score matching*, slide 25's Algorithm 2: sample $x_0$, $t$, $\varepsilon$; compute $x_t$; predict
# $\hat\varepsilon$; loss $\|\hat\varepsilon-\varepsilon\|^2$; backpropagate. Our network is
# $\hat\varepsilon=\sigma_tx_t+\alpha_t\cdot(\text{layers})$: at $t=1$, where $\alpha=0$ and $\sigma=1$, it returns
# $x_t$, which is the noise.


# %%
class Net(torch.nn.Module):
    """(x_t, t) -> eps, each (B, 1); t (B,)."""

    def __init__(self, hidden=64):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, hidden),
            torch.nn.SiLU(),
            torch.nn.Linear(hidden, 1),
        )

    def forward(self, x, t):
        alpha, sigma = alpha_sigma(t)
        return sigma * x + alpha * self.layers(torch.cat([x, alpha, sigma, torch.log(alpha / sigma)], 1))


def denoising_loss(net, x0, eps, t):
    alpha, sigma = alpha_sigma(t)
    x_t = alpha * x0 + sigma * eps
    return (net(x_t, t) - eps).square().mean()


dataset = x0.float()  # section 3's


def train(loss_of, updates=1500, batch=512, lr=1e-2):
    torch.manual_seed(SEED)
    net, losses = Net(), []
    optimizer = torch.optim.Adam(net.parameters(), lr)
    decay = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=updates)
    for _ in range(updates):
        some = torch.randint(len(dataset), (batch,))
        x0, eps, t = dataset[some], torch.randn(batch, 1), torch.empty(batch).uniform_(1e-3, 1.0)
        loss = loss_of(net, x0, eps, t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return net, losses


net, losses = train(denoising_loss)

# %% [markdown]
# Is this the library's training? With the same draws the two losses must be the same number. And is the network the
# score? Its loss should come down to that of the closed form, and no further.

# %%
model = td.NetDenoiser(net, schedule, "eps")
some = dataset[:4096]
with torch.no_grad():
    library = float(diffusion_loss(model, some, None, Draws(SEED)))
    draws = Draws(SEED)
    ours = float(denoising_loss(net, some, draws.normal(*some.shape), draws.uniform(len(some), 1e-3, 1.0)))
assert abs(ours - library) < 1e-5, (ours, library)

with torch.no_grad():
    t = torch.rand(N, generator=rng, dtype=torch.float64) * 0.98 + 0.01
    alpha, sigma = alpha_sigma(t)
    x_t = alpha * x0 + sigma * eps
    best, found = exact(x_t, t).eps, net(x_t.float(), t.float()).double()
    floor, reached = float((best - eps).square().mean()), float((found - eps).square().mean())
    apart = float((found - best).square().mean())
key["least loss"] = floor
print(f"loss: least possible {floor:.4f}, the network {reached:.4f}; mean square distance of the two {apart:.4f}")
assert apart < 0.01, "the trained network is not the score"
assert abs(reached - floor - apart) < 0.005, "Pythagoras: loss = least loss + distance to the mean"

# %% [markdown]
# **Predict before you run.** The left curve shows the training loss. Will it reach zero? The right one compares
# $\hat\varepsilon$ and the closed form at three noise levels. Where will the network be worst?

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
smooth = torch.tensor(losses).unfold(0, 20, 10).mean(1)
left.plot(range(20, len(losses) + 1, 10), smooth, color=style.BLUE, lw=2, label="training loss (mean of 20)")
left.axhline(floor, color=style.INK, ls="--", label="least possible: what $x_t$ does not tell of ε")
left.set(xlabel="updates", ylabel=r"$|\hat\varepsilon-\varepsilon|^2$", ylim=(0, 1.05), title="The loss has a floor")
left.legend()
line = torch.linspace(-2.5, 2.5, 300)[:, None]
for level, color in ((0.1, style.GREEN), (0.3, style.ORANGE), (0.7, style.PURPLE)):
    same = torch.full((300,), level)
    with torch.no_grad():
        right.plot(line[:, 0], exact(line.double(), same.double()).eps[:, 0], color=color, lw=5, alpha=0.35)
        right.plot(line[:, 0], net(line, same)[:, 0], color=color, lw=1.6, label=f"t = {level}")
right.set(xlabel="$x_t$", ylabel=r"$\hat\varepsilon$", title="Thin: the network. Wide: closed form")
right.legend()
plt.show()

# %% [markdown]
# The loss stops at the variance of $\varepsilon$ given $x_t$. So a loss that is "high" may be perfect; only the
# distance to the mean counts. That is largest near data ($t=0.1$), where $\hat\varepsilon$ turns fastest.
#
# **Break it.** Give the network, as its target, noise that is *not* the one in $x_t$. Nothing else changes.


# %%
def unpaired_loss(net, x0, eps, t):
    alpha, sigma = alpha_sigma(t)
    return (net(alpha * x0 + sigma * eps, t) - torch.randn_like(eps)).square().mean()


broken, broken_losses = train(unpaired_loss, updates=300)
with torch.no_grad():
    size = float(broken(x_t.float(), t.float()).square().mean())
print(f"the loss ends at {sum(broken_losses[-50:]) / 50:.2f}; mean square of its prediction: {size:.4f}")
assert size < 0.05

# %% [markdown]
# It learns $\mathbb E[\varepsilon]=0$: no score, no direction, loss 1. What makes denoising work is the *pairing* of
# $\varepsilon$ with $x_t$. Remember it in lessons 07 and 08, where another pairing makes other models.

# %% [markdown]
# ## 5 · From the score to the ODE, in two lines
#
# Let $z=x_t/\alpha_t=x_0+n\varepsilon$ with density $q_n$. Adding noise is diffusion: $q_n$ is $q_0$ convolved with
# $\mathcal N(0,n^2)$, which solves the heat equation, and the score turns that into transport:
#
# $$\partial_nq_n=n\,\Delta q_n=-\nabla\!\cdot\!\big(q_n\,[-n\nabla\log q_n]\big),$$
# $$\frac{dz}{dn}=-n\,\nabla\log q_n(z)=\mathbb E[\varepsilon\,|\,z]=\hat\varepsilon .$$
#
# The first line is a continuity equation, $\partial q=-\nabla\!\cdot(qv)$: points that move with $v=-n\nabla\log q_n$
# have density $q_n$ for every $n$. The second is section 3.

# %% [markdown]
# That is the probability flow ODE of slide 3, free of $f$ and $g$. All schedules share it; they differ in how they walk
# through $n$. A sampler is a way to integrate it from large $n$ to $0$. Euler's method, six lines:


# %%
def walk(eps_hat, z, times):
    """Euler steps of dz/dn = eps from times[0] down to times[-1]; all states, (steps + 1, B, 1)."""
    states = [z]
    for t, s in itertools.pairwise(times):
        (alpha, sigma), (alpha_s, sigma_s) = alpha_sigma(t.expand(len(z))), alpha_sigma(s.expand(len(z)))
        z = z + (sigma_s / alpha_s - sigma / alpha) * eps_hat(alpha * z, t.expand(len(z)))
        states.append(z)
    return torch.stack(states)


times = torch.linspace(0.99, 0.0, 101, dtype=torch.float64)
start = torch.randn(3000, 1, generator=rng, dtype=torch.float64)  # x at t = 0.99, nearly pure noise
z_start = start / alpha_sigma(times[:1])[0]
with torch.no_grad():
    by_net = walk(lambda x, t: net(x.float(), t.float()).double(), z_start, times)
    by_truth = walk(lambda x, t: exact(x, t).eps, z_start, times)
    library = td.solve(exact, start, ts=times, solver="ddim").end
assert float((by_truth[-1] - library).abs().max()) < 1e-9, "Euler in (z, n) is DDIM"

# %% [markdown]
# The last line is a first result: Euler's method in $(z,n)$ *is* DDIM, to rounding. On the line the ODE's exact map is
# known too (it keeps the order of points), so the errors can be told apart.
#
# **Predict before you run.** Which error is larger with 100 steps: that of the steps, or that of the network?

# %%
truth = data.flow(schedule, start, 0.99, 0.0)
steps_error = float((by_truth[-1] - truth).square().mean().sqrt())
net_error = float((by_net[-1] - by_truth[-1]).square().mean().sqrt())
key["error of 100 DDIM steps"] = steps_error

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
order = start[:, 0].argsort()[:: len(start) // 40]
levels = torch.tan(times * math.pi / 2)
scaled = by_net * torch.cos(times * math.pi / 2)[:, None, None]
left.plot(times, scaled[:, order, 0], color=style.BLUE, lw=0.9, alpha=0.7)
left.set(xlabel=style.TIME_LABEL, ylabel="$x_t$", xlim=(0.99, 0), title="Paths of the trained network's ODE")
fine = torch.linspace(-2.8, 3.2, 400, dtype=torch.float64)[:, None]
right.hist(by_net[-1, :, 0], bins=80, density=True, color=style.SKY, alpha=0.7, label="their ends")
right.plot(fine[:, 0], data.log_prob(fine).exp(), color=style.INK, lw=2, label="data")
right.set(xlabel="$x_0$", title="100 calls of a network trained for seconds")
right.legend()
plt.show()
print(f"root mean square error: of the steps {steps_error:.3f}, of the network {net_error:.3f}")
assert net_error > 2 * steps_error

# %% [markdown]
# The network's error is the larger one. Paths never cross, and the noise decides the sample. Acceleration means: the
# same ends with fewer than 100 calls. Try the crudest way, a single Euler step:

# %%
one = torch.tensor([0.99, 0.0], dtype=torch.float64)
with torch.no_grad():
    jump = walk(lambda x, t: exact(x, t).eps, z_start, one)[-1]
key["spread of one Euler step"] = float(jump.std() / data.std)
print(
    f"mean {float(jump.mean()):.3f} (data {float(data.mean):.3f}), spread {key['spread of one Euler step']:.3f} of it"
)
assert key["spread of one Euler step"] < 0.2

# %% [markdown]
# All samples land near the mean of the data: $\hat x_0$ at high noise is $\mathbb E[x_0]$. This is the middle panel of
# the first figure. Each family is an answer to it: step better (03, 04), iterate in parallel (05), train the jump
# (06 to 12), or train a generator by scores or a discriminator (13, 14).

# %% [markdown]
# ## What the deck says / what we measured

# %%
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| "the only unknown term is the score function" (slide 3) | it is $-E[\\varepsilon\\mid x_t]/\\sigma_t$: bins agree to \
{gap:.2f} |
| "train a neural network through score matching" (slide 3) | {len(losses)} updates: mean square \
distance to the closed form {apart:.4f}; least loss {floor:.2f}, not 0 |
| "a deterministic reverse process" (slide 3) | 100 Euler steps in $(z,n)$ are DDIM, \
{steps_error:.3f} from the exact map |
| "slow inference" (slide 4) | one step: {key["spread of one Euler step"]:.2f} of the data's spread |
""")
)

# %% [markdown]
# ## You can now
#
# * say why regressing noise gives the score, and what loss remains;
# * train a diffusion model in a dozen lines, and check it against a closed form;
# * derive $dz/dn=\hat\varepsilon$, and sample with it;
# * place a method on the map: what it changes, and whether it saves calls or rounds.
#
# After the course: write each method's loss from its box, measure a solver's order, and name the control that exposes a
# wrong implementation.

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** Flow matching (slide 25, Algorithm 1, in our sign): $x_t=(1-t)x_0+t\varepsilon$, and the
# network predicts $dx_t/dt$. Return the mean square error.


# %%
def flow_matching(net, x0, eps, t):
    """net(x_t, t) gives (B, 1); x0, eps (B, 1); t (B,). A scalar."""
    raise NotImplementedError


# %%
try:
    draws = Draws(SEED)
    with torch.no_grad():
        answer = flow_matching(net, some, draws.normal(*some.shape), draws.uniform(len(some), 1e-3, 1.0))
        library = diffusion_loss(td.NetDenoiser(net, td.Linear(), "velocity"), some, None, Draws(SEED))
    assert abs(float(answer) - float(library)) < 1e-4, "not yet: differentiate (1 - t) x_0 + t eps by t"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** Somebody stops the walk early, at noise level $n$, and takes $z$ for a sample. The data's standard
# deviation is $c$. Which standard deviation do the samples have?


# %%
def spread_when_stopped(c, n):
    """c, n: numbers. A number."""
    raise NotImplementedError


# %%
try:
    stopped = int((levels > 0.5).sum()) - 1
    n = float(levels[stopped])
    answer, measured = spread_when_stopped(float(data.std), n), float(by_truth[stopped].std())
    assert abs(answer / measured - 1) < 0.05, f"not yet: {measured:.3f} is measured at n = {n:.2f}"
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** The least loss depends on $t$: it goes to 1 for $t\to0$, and to 0 for $t\to1$. Why? And why does that
# *not* mean that a network learns most at small $t$?

# %% [markdown]
# ## References
#
# * The deck, slides 2 to 4, 6, 9 and 25 (Algorithms 1 and 2).
# * Vincent, *A Connection Between Score Matching and Denoising Autoencoders*, Neural Computation 23 (2011), sec. 4.
# * Ho et al., *DDPM*, arXiv 2006.11239: alg. 1. Song et al., *Score SDE*, arXiv 2011.13456: eq. 13 (the ODE).
# * Karras et al., *EDM*, arXiv 2206.00364: eq. 1, the ODE in our $(z,n)$. Song et al., *DDIM*, arXiv 2010.02502: eq.
#   12.
