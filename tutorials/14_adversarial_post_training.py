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
# # 14 · Adversarial post-training: a judge for the last mile
#
# **What the deck claims** (the lecture deck *The Principle and Application of Diffusion Acceleration*: its list of ways
# to speed up, slides 4, 6 and 9; reference 16). *Adversarial post-training* is a stage of its own, after any
# distillation: a discriminator (the *judge* below) learns to tell a few-step student's samples from data, and the
# student learns to fool it. It needs data, no teacher's trajectory, and it sharpens what a regression has left blurred.
#
# We check the losses where they are known, take an unfinished consistency student (tutorial 10) and post-train it, see
# why such a run must be watched, and ask what is left to gain for a finished one.
#
# House notation: $t=1$ noise, $t=0$ data; $g$ the student's samples, $D$ the discriminator.

# %%
# %matplotlib inline
try:
    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import json
import os

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

from toydiff import runs, weights
from toydiff.plots import static
from toydiff.problems import problem

# %%
SEED = 0
FAST = os.environ.get("TOYDIFF_FAST") == "1"  # smaller sizes for tests; the numbers in KEY_NUMBERS do not depend on it
UPDATES = 10 if FAST else 300  # of the adversarial stage
WATCH = UPDATES // (2 if FAST else 10)  # updates from one measurement to the next
EARLY = 10 if FAST else 300  # of the consistency distillation before it

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # the numbers that the last cell prints

# %% [markdown]
# ## 1 · The hinge, and what a perfect judge says
#
# $$L_D=\mathbb E\,\mathrm{relu}(1-D(x_u,u))+\mathbb E\,\mathrm{relu}(1+D(g_u,u)),\qquad L_G=-\mathbb E\,D(g_u,u),$$
# with data $x$ and samples $g$ *both noised to the same random level* $u$: without noise a judge finds a difference in
# every pixel, and has nothing to teach. If $D$ could be any function, the best one is known: at each point it is $+1$
# where data is denser, $-1$ where samples are, $D^*=\mathrm{sign}(p-q)$, and then $L_D=2(1-\mathrm{TV}(p,q))$. Two
# Gaussians on the line, at three levels of noise:

# %%
vp = td.VP()
data, student = td.GaussianMixture([[0.7]], std=0.5), td.GaussianMixture([[0.2]], std=0.3)
x = torch.linspace(-4, 5, 4001, dtype=torch.float64)[:, None]
step = float(x[1] - x[0])
figure, axes = plt.subplots(1, 3, figsize=(11.5, 3.6), layout="constrained", sharey=True)
for axis, u in zip(axes, (0.0, 0.3, 0.8), strict=True):
    p, q = (mixture.marginal(vp, u).log_prob(x).exp() for mixture in (data, student))
    best = torch.sign(p - q)
    loss = float((p * torch.relu(1 - best) + q * torch.relu(1 + best)).sum()) * step
    variation = 0.5 * float((p - q).abs().sum()) * step
    key[f"the best judge's loss at u = {u}"] = loss
    assert abs(loss - 2 * (1 - variation)) < 1e-3
    axis.plot(x, p, color="#222222", lw=2, label="data")
    axis.plot(x, q, color="#D55E00", lw=2, ls="--", label="samples")
    axis.fill_between(x[:, 0], 0, 1.45, where=best > 0, color="#0072B2", alpha=0.12, lw=0, label="D = +1")
    axis.set(xlabel="x", xlim=(-2.5, 3.5), title=f"u = {u}: the best judge's loss {loss:.2f}")
axes[0].set_ylabel("density")
axes[0].legend(fontsize=9)
plt.show()

# %% [markdown]
# 2 is the loss of a judge who knows nothing; in noise even the best one comes near it. At every $u$ the best judge is a
# *step*: beside it, $D$ has no slope, and the generator no gradient. What noise makes wide is the average. A sample $g$
# is noised to many places $g_u$, on both sides of the step, so $\mathbb E\,D^*(g_u)$ over the noise is a smooth
# function of $g$.
#
# ## 2 · Post-training a student
#
# A consistency student of the ring, stopped early. The judge reads features of the *frozen* teacher through a small
# head: it starts with eyes, and cannot overfit with them.

# %%
ring = problem("mixture:ring")
teacher = weights.load_denoiser("ring-teacher")
early = runs.train(
    "cd", ring, teacher=teacher, seed=SEED, changes={"updates": EARLY, "batch": 256, "ema": 0.98}
).finish()
z = torch.randn(3000, 2, generator=torch.Generator().manual_seed(SEED))


def samples_of(D):
    with torch.no_grad():
        return D(D.schedule.sigma(torch.ones(())) * z, 1.0).x0


def trained(start, **changes):
    """An adversarial stage from a student: what was measured on the way, and the best of it."""
    run = runs.train(
        "adversarial",
        ring,
        teacher=teacher,
        start=start,
        seed=SEED,
        watch=WATCH,
        changes={"updates": UPDATES, "batch": 256} | changes,
    )
    seen = [run_.measured for run_ in run if run_.measured]
    return seen, run.finish()


seen, after = trained(early)
floor = seen[0]["floor"]
before = ring.measure(samples_of(early.denoiser))
best = ring.measure(samples_of(after.denoiser))
display(
    static.samples(
        {
            f"before: {before.distance / before.floor:.1f} floors": samples_of(early.denoiser),
            f"after: {best.distance / best.floor:.1f} floors": samples_of(after.denoiser),
        },
        ring.mixture,
        title="An unfinished one-step student, and its adversarial stage",
    )
)
print(f"rarest mode: {before.least_fraction:.2f} of its expected fraction before, {best.least_fraction:.2f} after")
if not FAST:
    assert best.distance < 0.8 * before.distance
    assert best.coverage == 1

# %% [markdown]
# ## 3 · It circles
#
# Generator and judge chase each other, so the distance goes down, and then up and down. What is kept is the best that
# was seen, by the measure; the losses would not tell which one that is.
#
# A comparison: the same judge, but its features are learnt from scratch along with the head. (The dotted line is
# measured with 3,000 samples, as above, the curves with 2,000.)

# %%
own, _ = trained(early, features="own")
figure, axis = plt.subplots(figsize=(8.6, 4.4), layout="constrained")
for rows, color, marker, words in (
    (seen, "#222222", "o", "frozen teacher's features"),
    (own, "#D55E00", "s", "features of its own"),
):
    axis.plot(
        [r["step"] for r in rows],
        [r["distance"] / r["floor"] for r in rows],
        color=color,
        marker=marker,
        lw=1.8,
        label=words,
    )
axis.axhline(before.distance / before.floor, color="#56B4E9", ls=":", lw=2, label="before")
axis.axhline(1, color="#999999", ls="--", lw=1.2, label="floor")
axis.set(xlabel="updates of the adversarial stage", ylabel="distance / floor", ylim=(0, None))
axis.set_title("Within 100 updates near the floor, then no further (one run each)")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# On two-dimensional points a network has no trouble learning its own features, so this breaks nothing: the papers'
# argument for frozen features is about images and few data. Each is a curve of one seed.
#
# ## 4 · What is left to gain?
#
# The full benchmark (`python tests/benchmarks/ring.py`, three seeds) says: from CD after 400 updates the stage takes
# most of the distance away; from CD after 2,500 updates, which is at the floor already, it takes nothing, because there
# is nothing (toydiff/distill/README.md has the figures). On digits:

# %%
rows = ["| student | network calls | distance over the floor | accuracy | updates |", "|---" * 5 + "|"]
for id_ in ("digits-cd", "digits-adversarial", "digits-dmd2"):
    row = next(row for row in runs.load(id_).about["rows"] if row["steps"] == 1)
    rows.append(f"| {id_} | 1 | {row['distance'] / row['floor']:.2f} | {row['accuracy']:.1%} | {row['updates']} |")
    key[f"{id_}, 1 step"] = row["distance"] / row["floor"]
    key[f"{id_}, accuracy"] = row["accuracy"]
display(Markdown("\n".join(rows)))

digits = problem("digits")
pictures = {}
for id_ in ("digits-cd", "digits-adversarial", "digits-dmd2"):
    path, _ = runs.sample(runs.load(id_), digits, 10, 1, cond=torch.arange(10), seed=SEED)
    pictures[id_.removeprefix("digits-")] = path.end
display(static.digits(pictures, title="The same noise, one call each"))
assert key["digits-adversarial, 1 step"] < key["digits-cd, 1 step"]

# %% [markdown]
# ## What the deck says / what we measured

# %%
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| adversarial post-training is one of the ways to fewer steps (slides 4, 6, 9) | digits in one call: CD \
{key["digits-cd, 1 step"]:.1f} floors, after the stage {key["digits-adversarial, 1 step"]:.1f} |
| *(StyleGAN-T)* hinge losses | the best judge's loss is $2(1-\\mathrm{{TV}})$: \
{key["the best judge's loss at u = 0.0"]:.2f} without noise, {key["the best judge's loss at u = 0.8"]:.2f} at $u=0.8$ |
| slide 13 prints $\\mathrm{{relu}}(1+\\tilde x_s)+\\mathrm{{relu}}(1-\\hat x_s)$ as the student's loss | it is the \
judge's, and $D$ is missing: tutorial 12 |
| *(not said)* does it converge? | it circles; the best on the way is kept |
""")
)

# %% [markdown]
# ## Exercises
#
# **1.** What is $L_D$ of a judge that always says 0? And of one that always says 3?

# %%
answer_1 = None

# %%
# Solution: relu(1) + relu(1) = 2; relu(1 - 3) + relu(1 + 3) = 4.
answer_1 = (2, 4) if answer_1 is None else answer_1

# %%
hinge = lambda d: max(1 - d, 0) + max(1 + d, 0)  # noqa: E731
assert tuple(answer_1) == (hinge(0), hinge(3)), "not yet"
print("exercise 1: right")

# %% [markdown]
# **2.** Two students have total variations 0.1 and 0.4 from the data. What is the lowest loss that a judge of each can
# reach?

# %%
answer_2 = None

# %%
# Solution: 2 (1 - TV).
answer_2 = (1.8, 1.2) if answer_2 is None else answer_2

# %%
assert all(abs(a - 2 * (1 - tv)) < 1e-9 for a, tv in zip(answer_2, (0.1, 0.4), strict=True)), "not yet"
print("exercise 2: right")

# %% [markdown]
# **3.** The gradient penalty R1 is $\frac{\gamma}{2}|\nabla_xD(x)|^2$ on data. What is it for $D(x)=w\cdot x$ with
# $w=(3,4)$ and $\gamma=0.2$?

# %%
answer_3 = None

# %%
# Solution: 0.1 times 25.
answer_3 = 2.5 if answer_3 is None else answer_3

# %%
w = torch.tensor([3.0, 4.0])
point = torch.zeros(2, requires_grad=True)
[slope] = torch.autograd.grad(w @ point, point)
assert abs(answer_3 - 0.5 * 0.2 * float(slope.square().sum())) < 1e-6, "not yet"
print("exercise 3: right")

# %% [markdown]
# ## References
#
# * The deck, slides 4, 6, 9 (adversarial post-training among the ways), 13 (PCM's adversarial loss), 32 (reference 16).
# * Sauer et al., *StyleGAN-T*, arXiv 2301.09515: frozen features, hinge losses.
# * Sauer et al., *Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion Distillation* (LADD),
#   arXiv 2403.12015: noised samples, the teacher's features.
# * Mescheder, Geiger and Nowozin, *Which Training Methods for GANs do actually Converge?*, arXiv 1801.04406: R1.

# %%
print("KEY_NUMBERS", json.dumps({name: float(f"{value:.6g}") for name, value in key.items()}))
