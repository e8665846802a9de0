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
# # 12 · Phases, LCM and guidance
#
# **What the deck claims** (slides 13 to 15 of the lecture deck *The Principle and Application of Diffusion
# Acceleration*). A latent consistency model (LCM) distils a *guided* teacher, with big skips. But sampled in several
# steps it re-noises, so the same noise gives another picture with every number of steps. A phased consistency model
# (PCM) cuts the trajectory at *edge timesteps* into $M$ phases, is consistent within each, and samples through the
# edges without noise.
#
# We check what the edges promise, watch one noise through 1, 2, 4 and 8 steps, fall into the trap of edges that no
# sampler meets, and take guidance apart.
#
# House notation: $x_t=\alpha_t x_0+\sigma_t\varepsilon$, $t=1$ noise, $t=0$ data; guidance scale $g$, where 1 is off
# (the deck's $\omega$ is $g-1$).

# %%
# %matplotlib inline
try:
    import toydiff as td
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import itertools
import json
import os

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

from toydiff import jump, runs
from toydiff.catalog import METHODS
from toydiff.measure import paired_error
from toydiff.plots import static, style
from toydiff.problems import problem

# %%
SEED = 0
FAST = os.environ.get("TOYDIFF_FAST") == "1"  # smaller sizes for tests; the numbers in KEY_NUMBERS do not depend on it
SHOWN = 200 if FAST else 1200  # points in section 2's figure
SAMPLES = 20 if FAST else 300  # digits that are classified in section 5

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # the numbers that the last cell prints

# %% [markdown]
# ## 1 · Edges
#
# In phase $m$, from edge $s_{m+1}$ down to $s_m$, PCM's consistency function is the `jump` to $s_m$ instead of to 0:
# $f^m(x_t,t)=\alpha_{s_m}\hat x_0+\sigma_{s_m}\hat\varepsilon$. For *any* network $f^m(x,s_m)=x$, since
# $x=\alpha\hat x_0+\sigma\hat\varepsilon$; so the phases meet. And the exact maps of the phases, one after the other,
# are the exact flow:

# %%
line = td.GaussianMixture(
    torch.tensor([[-1.5], [0.3], [1.8]]), weights=torch.tensor([0.4, 0.35, 0.25]), std=torch.tensor([0.3, 0.2, 0.4])
)
vp = td.VP()
x = torch.linspace(-2.5, 2.5, 41, dtype=torch.float64)[:, None]
whole = line.flow(vp, x, 1.0, 0.0)
for M in (2, 4, 8):
    y = x
    for high, low in itertools.pairwise(torch.linspace(1, 0, M + 1).double().tolist()):
        y = line.flow(vp, y, high, low)
    composed = float((y - whole).abs().max())
    assert composed < 1e-9
    print(f"{M} phases composed: off by {composed:.0e}")
untrained = problem("mixture:ring").student(td.Tabulated.scaled_linear(), "v")
with torch.no_grad():
    for p in untrained.parameters():
        p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(SEED)))
    z = torch.randn(5, 2, generator=torch.Generator().manual_seed(SEED))
    off = max(float((jump(untrained(z, s), s) - z).abs().max()) for s in (0.25, 0.5, 0.75))
print(f"an untrained network at the edges: off by {off:.0e}")
assert off < 1e-4

# %% [markdown]
# ## 2 · The same noise in 1, 2, 4, 8 steps
#
# Students of the ring of eight's teacher. A noise has the colour of the place to which the *fewest* steps take it. LCM
# is one student, sampled with re-noising. PCM is one student for each number of phases, without noise.

# %%
ring = problem("mixture:ring")
teacher = runs.load("ring-teacher")
sigma_1 = teacher.denoiser.schedule.sigma(torch.ones(())).float()
noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(SEED))
reference = td.solve(teacher.denoiser, sigma_1 * noise, 100, solver="dpm2", keep="end").end


def at_once(id_, steps, solver):
    """Where a student takes the noise."""
    return td.solve(
        runs.load(id_).denoiser, sigma_1 * noise, steps, solver=solver, grid="uniform", generator=SEED, keep="end"
    ).end


ends = {
    "lcm": {n: at_once("ring-lcm", n, "lcm") for n in (1, 2, 4, 8)},
    "pcm": {n: at_once(id_, n, "ddim") for n, id_ in ((2, "ring-pcm-2"), (4, "ring-pcm"), (8, "ring-pcm-8"))},
}
display(
    static.same_noise(
        {name: {n: cloud[:SHOWN] for n, cloud in by_steps.items()} for name, by_steps in ends.items()},
        ring.mixture,
        title="LCM mixes the colours: with more steps the noise goes elsewhere. PCM keeps them",
    )
)

rows = [
    "| student | steps | from the teacher's ODE, same noise (root mean square) | distance over the floor |",
    "|---" * 4 + "|",
]
for name, by_steps in ends.items():
    for n, cloud in by_steps.items():
        key[f"{name}, {n} steps: from the ODE"] = paired_error(cloud, reference).rms
        id_ = {2: "ring-pcm-2", 4: "ring-pcm", 8: "ring-pcm-8"}[n] if name == "pcm" else "ring-lcm"
        [row] = [r for r in runs.load(id_).about["rows"] if r["steps"] == n]
        rows.append(
            f"| {name} | {n} | {key[f'{name}, {n} steps: from the ODE']:.3f} | {row['distance'] / row['floor']:.2f} |"
        )
display(Markdown("\n".join(rows)))
figure, axis = plt.subplots(figsize=(7.5, 4), layout="constrained")
for name, by_steps in ends.items():
    card = METHODS[name]
    far = [key[f"{name}, {n} steps: from the ODE"] for n in by_steps]
    axis.plot(list(by_steps), far, color=card.color, marker=card.marker, ls=style.LINES[card.dash], lw=2, label=name)
axis.set(
    xscale="log",
    yscale="log",
    xlabel="steps = NFE",
    ylabel="RMS distance to the teacher's end",
    xticks=[1, 2, 4, 8],
    xticklabels=[1, 2, 4, 8],
)
axis.set_title("The same noise: how far from where the teacher takes it")
axis.minorticks_off()
axis.grid(True, which="major", color="#EEEEEE")
axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
assert key["pcm, 8 steps: from the ODE"] < key["lcm, 8 steps: from the ODE"] / 2

# %% [markdown]
# All are fair *samples*. But only PCM's are the teacher's. LCM's stay near it in 2 steps: it re-noises to $t=0.5$ then,
# where NSR is 1.6 and the mode is decided. In 4 and 8 steps the first stops are at $t=0.75$ and more, where noise
# decides, and that noise is fresh: the same start ends anywhere.
#
# ## 3 · Break it: edges that no sampler meets
#
# The published code draws training times from 50 DDIM points of 1,000 timesteps. Four phases do not divide 50, so the
# edges are rounded down to grid points; a sampler of four trailing steps goes elsewhere.


# %%
def edges_of(points, phases, T=1000):
    """(edges of the training grid, places where a trailing sampler of as many steps lands) in timesteps."""
    grid = [round((i + 1) * T / points) - 1 for i in range(points)]  # 19, 39, ..., 999
    return [0] + [grid[points * m // phases - 1] for m in range(1, phases)], [
        round(m * T / phases) - 1 for m in range(1, phases)
    ]


rows = ["| grid points | phases | edges trained | where the sampler lands |", "|---|---|---|---|"]
for points, phases in ((50, 4), (50, 8), (40, 4), (40, 8)):
    trained, landed = edges_of(points, phases)
    rows.append(f"| {points} | {phases} | {trained[1:]} | {landed} |")
    key[f"missed edges, {points} points, {phases} phases"] = sum(
        a != b for a, b in zip(trained[1:], landed, strict=True)
    )
display(Markdown("\n".join(rows)))
assert key["missed edges, 50 points, 4 phases"] > 0
assert key["missed edges, 40 points, 4 phases"] == 0
try:
    runs.train("pcm", ring, changes={"intervals": 50, "phases": 4}, teacher=teacher)
except ValueError as error:
    print(f"toydiff refuses: {error}")

# %% [markdown]
# At $t=749$ the student has been trained to jump to 739, and has to jump to 499. Here a grid has to be a multiple
# of the phases.
#
# ## 4 · The guided step
#
# The deck's solver for a guided teacher is $(1+\omega)\Psi(x,c)-\omega\Psi(x,\varnothing)$, a
# combination of two *steps*. A DDIM step is linear in $(\hat x_0,\hat\varepsilon)$, so it is the step
# of the combined *prediction*. A second-order step evaluates the model again in the middle, at two
# different places, and is not the step of any one prediction.

# %%
cond = torch.arange(400) % 8
schedule = td.Tabulated.scaled_linear()
D = ring.mixture.denoiser(schedule)
t, r = 0.8, 0.5
x = schedule.mix(
    ring.mixture.sample(400, SEED, dtype=torch.float64),
    torch.randn(400, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64),
    t,
)
ts = torch.tensor([t, r], dtype=torch.float64)
rows = ["| step | ω = 0.5 | 1 | 3 | 7 |", "|---" * 5 + "|"]
for solver in ("ddim", "heun", "dpm2"):
    gaps = []
    for w in (0.5, 1.0, 3.0, 7.0):
        both = td.solve(D, x, ts=ts, solver=solver, cond=cond, guidance_scale=1 + w).end
        steps = [td.solve(D, x, ts=ts, solver=solver, cond=c).end for c in (cond, None)]
        gaps.append(float((both - (1 + w) * steps[0] + w * steps[1]).abs().max()))
    if solver == "ddim":
        assert max(gaps) < 1e-10
    else:  # what is rounding is no number to keep
        key[f"{solver}: combining steps, w = 3"] = gaps[2]
    rows.append(f"| {solver} | " + " | ".join(f"{gap:.1g}" for gap in gaps) + " |")
display(Markdown("\n".join(rows)))
assert key["heun: combining steps, w = 3"] > 0.01
own = jump(D(x, t, cond, 4.0), r)
assert torch.allclose(own, td.solve(D, x, ts=ts, solver="ddim", cond=cond, guidance_scale=4.0).end)

# %% [markdown]
# ## 5 · Guidance in one call
#
# LCM's student *sees* $g$: one student, one call a step, with the scale as a dial; the teacher needs two calls. In its
# 500 updates our student has learnt the dial only weakly: its rows differ in a stroke here and there.

# %%
digits = problem("digits")
lcm = runs.load("digits-lcm")
shown, rows = {}, ["| student | given or guided by | calls | accuracy |", "|---|---|---|---|"]
for g in (1.0, 1.5, 3.0):
    path, labels = runs.sample(lcm, digits, SAMPLES, 4, guidance_scale=g, seed=SEED)
    shown[f"lcm, g = {g:g}"] = path.end[:10]
    accuracy = digits.measure(path.end, labels).accuracy
    rows.append(f"| lcm | g = {g:g} | {path.nfe} | {accuracy:.1%} |")
pcm = runs.load("digits-pcm")
for g in (1.0, 3.0):
    path, labels = runs.sample(pcm, digits, SAMPLES, 4, guidance_scale=g, seed=SEED)
    shown[f"pcm, guided again by {g:g}" if g > 1 else "pcm"] = path.end[:10]
    accuracy = digits.measure(path.end, labels).accuracy
    rows.append(f"| pcm, trained with 1.5 | g = {g:g} | {path.nfe} | {accuracy:.1%} |")
display(static.digits(shown, title="Four steps from the same noise"))
display(Markdown("\n".join(rows)))

# %% [markdown]
# PCM's student is not conditioned on $g$; it has the teacher's built in. Guiding it *again* compounds the two, which is
# the usual mistake with published weights (and it has never seen an unlabelled digit in this training).
#
# ## 6 · How good

# %%
rows = ["| weights | steps | calls | distance over the floor | accuracy |", "|---" * 5 + "|"]
for id_ in (
    "digits-teacher",
    "digits-cd",
    "digits-lcm",
    "digits-pcm",
    "digits-multistep-consistency",
    "ring-teacher",
    "ring-lcm",
    "ring-pcm",
    "ring-multistep-consistency",
):
    for row in runs.load(id_).about["rows"]:
        accuracy = "—" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        rows.append(
            f"| {id_} ({row['solver']}) | {row['steps']} | {row['nfe']} | {row['distance'] / row['floor']:.2f} | "
            f"{accuracy} |"
        )
        key.setdefault(f"{id_}, {row['steps']} steps", row["distance"] / row["floor"])
display(Markdown("\n".join(rows)))

# %% [markdown]
# Multistep consistency models are PCM's sister: the same phases, a distance in $x_0$ instead of at the edge, teacher
# steps that get smaller while it trains. In the common case the two differ by a weight,
# $(\alpha_s-\alpha_t\sigma_s/\sigma_t)^2$ with $s$ the edge.
#
# ## What the deck says / what we measured

# %%
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| LCM: another picture with every number of steps | from the teacher's end of the same noise: \
{key["lcm, 1 steps: from the ODE"]:.2f} in one step, {key["lcm, 2 steps: from the ODE"]:.2f}, \
{key["lcm, 4 steps: from the ODE"]:.2f}, {key["lcm, 8 steps: from the ODE"]:.2f} in 2, 4, 8 |
| PCM is deterministic, and follows the teacher (slide 13) | {key["pcm, 2 steps: from the ODE"]:.2f}, \
{key["pcm, 4 steps: from the ODE"]:.2f}, {key["pcm, 8 steps: from the ODE"]:.2f} with 2, 4, 8 phases |
| $(1+\\omega)\\Psi_c-\\omega\\Psi_\\varnothing$ for any solver | only for one DDIM step: at ω = 3 Heun's is off by \
{key["heun: combining steps, w = 3"]:.2f} |
| edge timesteps | 50 grid points and 4 phases miss {key["missed edges, 50 points, 4 phases"]} of 3 edges, 40 miss \
{key["missed edges, 40 points, 4 phases"]} |
| the loss of slide 13, $\\mathrm{{ReLU}}(1+\\tilde x_s)+\\mathrm{{ReLU}}(1-\\hat x_s)$ | lacks the discriminator, and \
is what *it* minimises; the generator's is $\\mathrm{{ReLU}}(1-D(\\tilde x_s))$ (knob `adversarial`) |
""")
)

# %% [markdown]
# ## Exercises
#
# **1.** With 40 grid points, which numbers of phases are possible up to 10?

# %%
answer_1 = None

# %%
# Solution: the divisors.
answer_1 = [1, 2, 4, 5, 8, 10] if answer_1 is None else answer_1

# %%
assert answer_1 == [M for M in range(1, 11) if 40 % M == 0], "not yet"
print("exercise 1: right")

# %% [markdown]
# **2.** Two sampling runs of PCM from one noise: how far apart are they?

# %%
answer_2 = None

# %%
# Solution: nothing is drawn.
answer_2 = 0.0 if answer_2 is None else answer_2

# %%
again = at_once("ring-pcm", 4, "ddim")
assert float((again - ends["pcm"][4]).abs().max()) == answer_2, "not yet"
print("exercise 2: right, bit for bit the same")

# %% [markdown]
# **3.** A paper trains with $\omega$ from 2 to 14. Which `g_min` and `g_max` are that here?

# %%
answer_3 = None

# %%
# Solution: g = 1 + omega.
answer_3 = (3, 15) if answer_3 is None else answer_3

# %%
assert tuple(answer_3) == (1 + 2, 1 + 14), "not yet: g = 1 is off, omega = 0 is"
print("exercise 3: right")

# %% [markdown]
# ## References
#
# * The deck, slides 13 (phased consistency, Algorithm 1), 14 and 15 (LCM's sampler).
# * Luo et al., *Latent Consistency Models*, arXiv 2310.04378: eq. 13, alg. 1.
# * Wang et al., *Phased Consistency Models*, arXiv 2405.18407: alg. 1.
# * Heek, Hoogeboom and Salimans, *Multistep Consistency Models*, arXiv 2403.06807: alg. 1.

# %%
print("KEY_NUMBERS", json.dumps({name: float(f"{value:.6g}") for name, value in key.items()}))
