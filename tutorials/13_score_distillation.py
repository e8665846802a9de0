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
# **What the deck claims** (slides 18 to 20 of the lecture deck *The Principle and Application of Diffusion
# Acceleration*). A one-step generator $x=g_\theta(z)$ needs no pairs and no trajectories. Noise its samples again,
# $x_t=\alpha_tx+\sigma_t\varepsilon$, and move them by the *difference of two scores*: the teacher's, which says where
# data is denser, minus that of the generator's own samples, which says where *they* are denser. The second one nobody
# has, so a second network learns it along the way. That is VSD, and SwiftBrush's Algorithm 1; DMD normalises the
# difference, and score implicit matching (SIM) differentiates a distance between the two scores.
#
# We check the gradient against a closed form, leave out the second score to see what it is for, watch eight modes
# during training, and let the second score go stale.
#
# House notation: $t=1$ noise, $t=0$ data; teacher $\psi$, generator $\theta$, *fake* model $\phi$.

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
from toydiff.distill.dmd import dmd_loss
from toydiff.problems.pairs import Recipe, make_pairs
from toydiff.distill.sim import huber_slope, l2_slope, sim_loss
from toydiff.distill.vsd import kl_weight, vsd_loss
from toydiff.plots import static
from toydiff.problems import problem
from toydiff.training import Draws

# %%
SEED = 0
FAST = os.environ.get("TOYDIFF_FAST") == "1"  # smaller sizes for tests; the numbers in KEY_NUMBERS do not depend on it
UPDATES = 12 if FAST else 120  # of the generators in section 3
WATCH = UPDATES // (2 if FAST else 6)  # updates from one measurement to the next

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # the numbers that the last cell prints

# %% [markdown]
# ## 1 · The gradient, where everything is known
#
# Data $N(m,c^2)$ with $m=0.7$, $c=0.5$, and a generator $g(z)=a+bz$, whose samples are $N(a,b^2)$: both scores are
# exact. VSD moves the samples by
# $$\nabla_\theta=\mathbb E\Big[\omega(t)\,\big(\varepsilon_\psi(x_t,t)-\varepsilon_\phi(x_t,t)\big)\,
# \frac{\partial g}{\partial\theta}\Big]\qquad\text{(slide 18)},$$
# and with $\omega=\alpha_t/\sigma_t$ this *is* $\nabla_\theta\,\mathrm{KL}(p_{\theta,t}\,\|\,q_t)$. (The slide leaves
# out the factor $\alpha_t$ of $\partial x_t/\partial\theta$; it is in $\omega$ here.) SIM moves them along
# $$\mathbb E\big[d'(y)^{\!\top}\partial_\theta s_{p_\theta}(x_t)\big]
# =-\partial_\theta\,\mathbb E\big[d'(y)^{\!\top}\big(s_{\mathrm{sg}[p]}(x_t)-\nabla\log q(x_t|x_0)\big)\big],
# \qquad y=s_p-s_q\qquad\text{(slide 20, eq. 3.6)}$$
# whose right side needs no derivative of a score by $\theta$. Here are the derivatives by the scale $b$ of the
# library's own losses, held at one time, $t=0.4$, from 400,000 samples of each:

# %%
vp = td.VP()
t = torch.tensor(0.4, dtype=torch.float64)
alpha, sigma = vp.alpha(t), vp.sigma(t)
data = td.GaussianMixture([[0.7]], std=0.5).denoiser(vp)
SAMPLES = 400_000


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


def slope_by_scale(objective, a, b, seed=SEED):
    """d/db of an objective at g(z) = a + b z, and its standard error."""
    draws = AtOneTime(seed)
    z = draws.normal(SAMPLES, 1)
    scale = torch.full(
        (SAMPLES, 1), b, dtype=torch.float64, requires_grad=True
    )  # one a sample: each has its own gradient
    own = td.GaussianMixture([[a]], std=b).denoiser(vp)  # the exact fake model
    [each] = torch.autograd.grad(SAMPLES * objective(Samples(a + scale * z), own, z, draws), scale)
    return float(each.mean()), float(each.std()) / SAMPLES**0.5


def vsd(g, own, z, draws):
    return vsd_loss(g, data, own, kl_weight, z, None, draws)


def sim(g, own, z, draws, slope=l2_slope):
    return alpha / sigma**2 * sim_loss(g, data, own, slope, z, None, draws)  # its w, sigma^2/alpha, made 1


def kl_slope(b):
    """d KL(p || q)/db in closed form."""
    S_q, S_p = alpha**2 * 0.25 + sigma**2, alpha**2 * b**2 + sigma**2
    return float(alpha**2 * b * (1 / S_q - 1 / S_p))


def dmd(g, own, z, draws):
    return dmd_loss(g, data, own, z, None, draws)


def rescaled(objective):
    """Its slopes, scaled to meet the KL divergence's at b = 0.9: units differ, and Adam does not see them."""
    table = [(b, *slope_by_scale(objective, 0.7, b)) for b in scales]
    unit = kl_slope(scales[-1]) / table[-1][1]
    return [(b, unit * value, unit * error) for b, value, error in table]


scales = [0.15, 0.9] if FAST else [0.15, 0.3, 0.5, 0.7, 0.9]
fine = torch.linspace(0.1, 1.0, 60).tolist()
display(
    static.gradients(
        {
            "vsd": [(b, *slope_by_scale(vsd, 0.7, b)) for b in scales],
            "dmd": rescaled(dmd),
            "sim": rescaled(sim),
        },
        [(b, kl_slope(b)) for b in fine],
        xlabel="b, the spread of the generator's samples (the data's is 0.5)",
        ylabel="derivative by b (dmd, sim: scaled)",
        exact_name="KL, closed form",
        title="VSD is the gradient of a KL divergence, the others agree on where it is 0",
    )
)
for b in (0.15, 0.9):
    found, error = slope_by_scale(vsd, 0.7, b)
    key[f"VSD's slope at b = {b}"], key[f"the KL divergence's at b = {b}"] = found, kl_slope(b)
    assert abs(found - kl_slope(b)) < 4 * error

# %% [markdown]
# Negative: the samples spread. Positive: they contract. Zero exactly where they are the data, for all three; elsewhere
# DMD (whose denominator weighs samples differently) and SIM (another divergence) pull with other strength.
#
# **Break it 1: whose score?** Instead of a model of *all* samples, take one that knows each of them alone. It answers
# with the noise itself, and what moves a sample is $\varepsilon_\psi(x_t,t)-\varepsilon$: score distillation *sampling*
# (DreamFusion). And **break it 2**: in SIM, detach $d'(y)$ from the graph.


# %%
def sds(g, own, z, draws):
    return vsd_loss(g, data, g, kl_weight, z, None, draws)  # the generator's own samples, row by row, are known


def detached(g, own, z, draws):
    return sim(g, own, z, draws, slope=lambda y, c: l2_slope(y, c).detach())


# SIM's exact slope for the squared distance: E d(s_p - s_q) with the law of x_t held, differentiated by b
def sim_slope(b):
    S_q, S_p = alpha**2 * 0.25 + sigma**2, alpha**2 * b**2 + sigma**2
    return float(2 * (1 / S_q - 1 / S_p) * 2 * alpha**2 * b / S_p**2 * S_p)


figure, axes = plt.subplots(1, 2, figsize=(11.5, 4.3), layout="constrained")
for axis, name, loss, exact, words in (
    (axes[0], "SDS: without the second score", sds, kl_slope, "KL"),
    (axes[1], "SIM with d' detached", detached, sim_slope, r"$E\,|s_p-s_q|^2$"),
):
    rows = [(b, *slope_by_scale(loss, 0.7, b)) for b in scales]
    axis.axhline(0, color="#999999", lw=0.8)
    axis.plot(fine, [exact(b) for b in fine], color="#D9D9D9", lw=6, label=f"{words}, closed form")
    right = [(b, *slope_by_scale(vsd if axis is axes[0] else sim, 0.7, b)) for b in scales]
    axis.errorbar(*zip(*right, strict=True), fmt="o", color="#0072B2", ms=6, label="as it should be")
    axis.errorbar(*zip(*rows, strict=True), fmt="s--", color="#D55E00", ms=6, label="broken")
    axis.set(xlabel="b, the spread of the samples", ylabel="derivative by b", title=name)
    axis.legend()
plt.show()
key["SDS's slope at the data"] = slope_by_scale(sds, 0.7, 0.5)[0]
key["SIM's slope at b = 0.9"], error = slope_by_scale(sim, 0.7, 0.9)
key["SIM's slope at b = 0.9, detached"] = slope_by_scale(detached, 0.7, 0.9)[0]
assert abs(key["SIM's slope at b = 0.9"] - sim_slope(0.9)) < 4 * error
assert key["SDS's slope at the data"] > 0.1
assert key["SIM's slope at b = 0.9, detached"] < 0.8 * sim_slope(0.9)

# %% [markdown]
# Without the second score the derivative is positive *everywhere*, at the data too: samples contract to the most
# probable point, whatever they are. With $d'$ detached, half of the derivative is missing: SIM has to be differentiated
# through both networks, VSD must not be.
#
# ## 2 · On the ring: two scores, one difference
#
# Now the second score is learnt. A generator starts as the teacher's own one-step guess, which is a blob in the middle.
# The arrows are $D_\psi-D_\phi$ on its samples at a low noise level: where they are sent.

# %%
ring = problem("mixture:ring")
teacher = weights.load_denoiser("ring-teacher")
z = torch.randn(1500, 2, generator=torch.Generator().manual_seed(SEED))
SETTINGS = {"updates": UPDATES, "batch": 256, "lr": 1e-3, "ratio": 2}


def samples_of(D):
    with torch.no_grad():
        return D(D.schedule.sigma(torch.ones(())) * z, 1.0).x0


def moved(fake, x, level=0.25):
    """D_psi - D_phi at alpha x, where NSR is `level`."""
    on = teacher.schedule
    s = on.t_of_lam(-torch.log(torch.tensor(level)))
    with torch.no_grad():
        return teacher(on.alpha(s) * x, s).x0 - fake(on.alpha(s) * x, s).x0


frames, watched, models = {}, {}, {}
stops = sorted({0, UPDATES // 12, UPDATES // 4, UPDATES})
for method in ("vsd", "dmd", "sim"):
    pairs = make_pairs(ring, teacher, Recipe(n=5000, steps=16)) if method == "dmd" else None
    run = runs.train(method, ring, teacher=teacher, seed=SEED, changes=SETTINGS, pairs=pairs, watch=WATCH)
    rows = [] if method == "vsd" else None
    if rows is not None:
        student, fake = run.training.student, run.training.modules["fake"]
        frames[0] = samples_of(student), samples_of(student)[:80], moved(fake, samples_of(student)[:80])
    fractions = []
    for record in run:
        if rows is not None and record.step in stops:
            x = samples_of(student)
            frames[record.step] = x, x[:80], moved(fake, x[:80])
        if record.measured:
            fractions.append((record.step, record.measured["fractions"]))
    watched[method], models[method] = fractions, run.finish()
display(static.score_arrows(frames, ring.mixture, title="VSD: samples go where the teacher's score exceeds their own"))

# %% [markdown]
# At 0 updates the fake model is the teacher's copy, and there is no difference and no arrow. Then the blob is pushed
# apart, finds the ring, then the eight modes; in the end the arrows are short, and what is left of them is the fake
# model's own error. Between the modes samples are still on their way: the full training is eight times as long.
#
# ## 3 · Does it find all modes?
#
# VSD and DMD follow a *reverse* KL divergence, which forgives samples that are missing. So count them, during training:

# %%
display(
    static.mode_fractions(
        watched, [1 / 8] * 8, title=f"The eight modes' fractions during {UPDATES} updates (1: the data's)"
    )
)
if not FAST:
    for method, rows in watched.items():
        assert min(rows[-1][1]) > 0.05, f"{method} has lost a mode"

# %% [markdown]
# No mode is lost here, with full-size batches neither: the generator starts from a blob that covers everything. The
# longer trainings of the benchmark (three seeds, toydiff/distill/README.md) end with all eight modes between 9 % and 16
# %. It can go wrong, though.
#
# **Break it 3: a stale fake model.** $\phi$ must keep up with a generator that moves. Here the generator is ten times
# faster, and $\phi$ ten times slower:

# %%
hasty = {"lr": 1e-2, "ratio": 1, "lr_fake": 1e-4}
stale = runs.train("vsd", ring, teacher=teacher, seed=SEED, changes=SETTINGS | hasty, watch=WATCH)
try:
    for record in stale:
        if record.measured:
            seen = record.measured
            print(
                f"{seen['step']:4} updates: {seen['coverage']:.0%} of the modes, spread {seen['spread']:.2f} of the "
                "data's"
            )
except FloatingPointError as error:
    print(type(error).__name__, error)
display(
    static.samples(
        {
            "the fake model kept up": samples_of(models["vsd"].denoiser),
            "it did not": samples_of(stale.training.average.module),
        },
        ring.mixture,
        title="VSD with a fake model that keeps up, and with one that does not",
    )
)

# %% [markdown]
# Samples pile up where the teacher's score alone sends them: with an old $\phi$ it is SDS again. A fake model that is
# merely slow does less harm here than one expects, because it starts as the teacher's copy and the ring is easy (at a
# hundredth of its learning rate, and the generator at its own, the run above ends at 4.5 floors of 2,000 samples
# instead of 2.2, all modes found).
#
# The loss of the generator says nothing of this: it is a surrogate whose value, $|\Delta|^2/2$, may rise while the
# samples get better. That is why such a run is *watched*: `toydiff train vsd …` measures the samples twenty times on
# the way, keeps the best, reports the fake model's own error (exact here, since the score of 1,000 points is a softmax
# over them), and stops a run whose samples collapse.
#
# ## 4 · Digits in one call
#
# The bundled students: all started from the one-step rectified flow (tutorial 07), and went on for some hundred updates
# against the guided teacher.

# %%
rows = [
    "| student | network calls | distance over the floor | accuracy | rarest class, of its expected fraction |",
    "|---" * 5 + "|",
]
ids = ["digits-rectified-flow", "digits-vsd", "digits-swiftbrush", "digits-dmd", "digits-dmd2", "digits-sim"]
for id_ in ids:
    row = next(row for row in runs.load(id_).about["rows"] if row["steps"] == 1)
    rarest = f"{10 * min(row['fractions']):.0%}" if row.get("fractions") else "—"
    rows.append(f"| {id_} | 1 | {row['distance'] / row['floor']:.2f} | {row['accuracy']:.1%} | {rarest} |")
    key[f"{id_}, 1 step"] = row["distance"] / row["floor"]
best = next(row for row in runs.load("digits-teacher").about["rows"] if row["steps"] == 25)
key["digits-teacher, 25 steps"] = best["distance"] / best["floor"]
rows.append(
    f"| *digits-teacher* | *{best['nfe']}* | *{key['digits-teacher, 25 steps']:.2f}* | *{best['accuracy']:.1%}* | |"
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
# A generator that is moved by scores need not land where the teacher's ODE takes the same noise: compare a column with
# the teacher's. Its *distribution* is what is matched, not its map.
#
# ## What the deck says / what we measured

# %%
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| VSD's gradient is $\\omega(\\varepsilon_\\psi-\\varepsilon_\\phi)\\,\\partial g/\\partial\\theta$ (slide 18) | with \
$\\omega=\\alpha/\\sigma$ that of KL: {key["VSD's slope at b = 0.9"]:.3f}, closed form \
{key["the KL divergence's at b = 0.9"]:.3f}; the slide's $\\omega$ has to hold $\\alpha$ |
| the second score is needed (Algorithm 1) | without it the slope at the data is {key["SDS's slope at the data"]:.2f}, \
not 0: samples contract |
| score divergence gradient theorem (slide 20) | holds: {key["SIM's slope at b = 0.9"]:.2f}, closed form \
{sim_slope(0.9):.2f}; with $d'$ detached {key["SIM's slope at b = 0.9, detached"]:.2f} |
| "simplify" to $D-x_0$ (slide 20) | $s_p-\\nabla\\log q(x_t|x_0)=\\frac{{\\alpha}}{{\\sigma^2}}(D_\\phi-x_0)$: the \
prefactor goes into the weight |
| one step, no data (SwiftBrush) | digits: {key["digits-swiftbrush, 1 step"]:.1f} floors in one call, its start \
{key["digits-rectified-flow, 1 step"]:.1f}, the teacher in 50 calls {key["digits-teacher, 25 steps"]:.1f} |
""")
)

# %% [markdown]
# ## Exercises
#
# **1.** $D_\phi-D_\psi$ is what DMD uses, $\varepsilon_\psi-\varepsilon_\phi$ what VSD does. By which factor do they
# differ, in terms of `alpha` and `sigma`?


# %%
def answer_1(alpha, sigma):
    return None


# %%
# Solution: x_0 = (x_t - sigma eps)/alpha for both.
if answer_1(1.0, 1.0) is None:
    answer_1 = lambda alpha, sigma: sigma / alpha  # noqa: E731

# %%
x_t = torch.tensor([[0.3]], dtype=torch.float64)
own = td.GaussianMixture([[0.1]], std=0.8).denoiser(vp)
p, q = own(x_t, t), data(x_t, t)
assert abs(float((p.x0 - q.x0) / (q.eps - p.eps)) - answer_1(float(alpha), float(sigma))) < 1e-9, "not yet"
print("exercise 1: right")

# %% [markdown]
# **2.** SDS contracts the samples of section 1. Where does $b$ end up under it, on Gaussian data?

# %%
answer_2 = None

# %%
# Solution: the slope is alpha^2 b/S_q > 0 for every b > 0.
answer_2 = 0.0 if answer_2 is None else answer_2

# %%
assert all(slope_by_scale(sds, 0.7, b)[0] > 0 for b in (0.05, 0.5)), "not yet"
assert abs(answer_2) < 1e-9, "not yet"
print("exercise 2: right, nothing stops it above 0")

# %% [markdown]
# **3.** A bounded distance (pseudo-Huber) makes SIM steadier than the squared one. What is the largest $|d'(y)|$ it can
# have?

# %%
answer_3 = None

# %%
# Solution: |y|/sqrt(|y|^2 + c^2) < 1.
answer_3 = 1.0 if answer_3 is None else answer_3

# %%
far = float(huber_slope(torch.tensor([[3e4, -4e4]]), 0.5).norm())
assert abs(answer_3 - far) < 1e-3, "not yet"
print("exercise 3: right; the squared distance's would be", 2 * 5e4)

# %% [markdown]
# ## References
#
# * The deck, slides 18 (VSD, SwiftBrush's Algorithm 1), 19 and 20 (score divergence, its gradient theorem).
# * Wang et al., *ProlificDreamer* (VSD), arXiv 2305.16213; Poole et al., *DreamFusion* (SDS), arXiv 2209.14988.
# * Nguyen and Tran, *SwiftBrush*, arXiv 2312.05239: alg. 1.
# * Yin et al., *One-step Diffusion with Distribution Matching Distillation* (DMD), arXiv 2311.18828:
#   eq. 7, 8; *Improved DMD* (DMD2), arXiv 2405.14867.
# * Luo et al., *One-Step Diffusion Distillation through Score Implicit Matching*, arXiv 2410.16794: theorem 3.1.

# %%
print("KEY_NUMBERS", json.dumps({name: float(f"{value:.6g}") for name, value in key.items()}))
