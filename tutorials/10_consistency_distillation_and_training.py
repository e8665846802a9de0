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
# **What the deck claims** (slides 12 and 16 of the lecture deck *The Principle and Application of Diffusion
# Acceleration*). Do not learn where the ODE goes next, learn where it *ends*: a consistency function $f(x_t,t)$ maps
# every point of a trajectory to its end at $t=0$. Two conditions make it: $f(x,0)=x$, and $f(x_t,t)=f(x_r,r)$ for
# neighbours on one trajectory. *Distillation* (CD) gets the neighbour from a step of a teacher; *training* (CT)
# "bootstraps" from the sample itself, without any teacher, and its target is "unbiased to first order, of high
# variance".
#
# We take the function exactly, see what a neighbour's error costs, find out to what CD and CT converge (not to the
# exact flow), and then look at networks.
#
# House notation: $x_t=\alpha_t x_0+\sigma_t\varepsilon$, $t=1$ noise, $t=0$ data,
# $\mathrm{NSR}=\sigma/\alpha=e^{-\lambda}$. A network's consistency function is its `jump` to 0.

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

from toydiff import runs
from toydiff.distill.distances import vector_huber
from toydiff.measure import consistency_error, fitted_order
from toydiff.plots import static, style
from toydiff.problems import MixtureProblem, problem

# %%
SEED = 0
FAST = os.environ.get("TOYDIFF_FAST") == "1"  # smaller sizes for tests; the numbers in KEY_NUMBERS do not depend on it
UPDATES = 10 if FAST else 500  # of the trainings in section 5

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # the numbers that the last cell prints

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
#
# ## 2 · What a neighbour's error costs
#
# $f(x_t,t)-f(\Phi(x_t,t\to r),r)$ for the *exact* $f$ is the error of one solver step, carried to the end. So it falls
# with the solver's **local** order: $h^2$ for DDIM, $h^3$ for Heun.
#
# And with the sample itself in the teacher's place, $x_r=\alpha_rx_0+\sigma_r\varepsilon$? One target is wrong by a
# lot, but on average over $x_0$ given $x_t$ it is off by $O(h^2)$ too.

# %%
starts = torch.linspace(-2, 2, 41, dtype=torch.float64)[:, None]
gaps = [128, 256, 512, 1024]  # small enough to resolve the steep steps of f
errors = {"DDIM step": [], "Heun step": [], "the sample, on average": [], "the sample, one draw": []}
nodes = 2001 if FAST else 4001  # of x_0, for a posterior by quadrature
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
# A single draw is off by $O(h)$: that is the variance slide 16 speaks of. It does not vanish by making the gap
# small *relative to what is learnt*, since $f$ must be carried over $1/h$ gaps.
#
# ## 3 · To what do they converge?
#
# Give the student one affine map for each time of a grid, and Gaussian data: then every loss is least squares, with a
# solution in closed form, no network in the way. The target at $r$ is the student's own, so we settle the times one
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
# To ten digits: **CD becomes its teacher's N-step solution, CT the N-step DDIM solution**, though CT never saw a
# teacher. A perfect consistency model still has the error of its grid. That is why CT's grids get finer while it trains
# (curricula), and why CD's teacher takes Heun steps.
#
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
# ## 5 · Networks on the line
#
# The same three Gaussians, small networks, some seconds of training: CD from the exact denoiser, CT from samples alone.
# One jump from noise, against the exact map.


# %%
def fine(name):
    """How far one jump is from the exact map, over noise drawn at random: root mean square."""
    return float((maps[name] - ends).square().mean().sqrt())


on_line = MixtureProblem(line, "three Gaussians", td.VP())
settings = {"updates": UPDATES, "batch": 256, "lr": 2e-3}
students = {
    # a fresh network had better say v: an error in eps counts 152 times in x_0 at VP's noisy end
    "cd": runs.train(
        "cd", on_line, seed=SEED, changes=settings | {"target_ema": 0.0}, teacher=line.denoiser(vp, "v")
    ).finish(),
    "ct": runs.train("ct", on_line, seed=SEED, changes=settings).finish(),
}
noise = torch.randn(300 if FAST else 2000, 1, generator=torch.Generator().manual_seed(SEED)).sort(0).values.double()
start = vp.sigma(torch.ones(())).double() * noise
ends = line.flow(vp, start, 1.0, 0.0)[:, 0]
with torch.no_grad():
    maps = {name: model.denoiser(start.float(), 1.0).x0[:, 0].double() for name, model in students.items()}
figure = static.one_step_maps(noise[:, 0], maps, ends, title=f"One jump after {UPDATES} updates, from nothing")
display(figure)
print({name: f"{fine(name):.3f} from the exact map" for name in maps})

# %% [markdown]
# CD follows the exact map and rounds its corners off: a steep step is what a network finds hardest, and samples on it
# lie between the modes. CT has found the steps from samples alone, but not their places and not the tails: its targets
# are noisy, and its distance is a pseudo-Huber, which section 4 warned of.
#
# ## 6 · On the ring, and on digits
#
# Bundled students of the ring's trained teacher. A trajectory of the teacher with 200 steps; from each of its points
# one jump to data. The teacher's own jump is far off in noise. The students' land near the end from *everywhere*, which
# was the definition.

# %%
ring = problem("mixture:ring")
teacher = runs.load("ring-teacher")
z = torch.randn(400, 2, generator=torch.Generator().manual_seed(SEED))
with torch.no_grad():
    path = td.solve(
        teacher.denoiser,
        td.Tabulated.scaled_linear().sigma(torch.ones(())).float() * z,
        40 if FAST else 200,
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
        rows.append(f"| {name} | {row['steps']} | {row['distance'] / row['floor']:.2f} |")
        key[f"{name}, {row['steps']} steps"] = row["distance"] / row["floor"]
display(Markdown("\n".join(rows)))
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
| the sample's own score: unbiased, of high variance (slide 16) | one draw is off by \
$h^{{{key["order, the sample, one draw"]:.1f}}}$, their mean by $h^{{{key["order, the sample, on average"]:.1f}}}$ |
| *(not said)* what the minimum is | the teacher's N-step solution: 1.37 goes to \
{key["fixed point, CD, Heun steps"]:.4f} by CD with Heun steps; CT ends where DDIM does, {key["fixed point, CT"]:.4f}; \
exact {exact:.4f} |
| *(not said)* which distance | with $c\\to0$ pseudo-Huber finds medians: {key["best answer, c = 0.001"]:.3f} where \
the mean is 1 |
| one step suffices | ring: CD {key["ring-cd, 1 steps"]:.2f} floors in one step, its teacher \
{key["ring-teacher, 20 steps"]:.2f} in 20; digits: {key["digits-cd, 1 steps"]:.1f} in one step, \
{key["digits-cd, 4 steps"]:.1f} in four, the teacher {key["digits-teacher, 25 steps"]:.1f} |
""")
)

# %% [markdown]
# ## Exercises
#
# **1.** On Gaussian data $N(0,1)$ with the cosine schedule, DDIM from $t=1$ to $0$ in $N$ equal steps multiplies $x$ by
# $\cos(\pi/2N)^N$. What standard deviation has a perfect CT student with $N=8$?

# %%
answer_1 = None

# %%
# Solution: its fixed point is that walk.
answer_1 = float(torch.cos(torch.tensor(torch.pi / 16)) ** 8) if answer_1 is None else answer_1

# %%
unit, cosine = td.GaussianMixture([[0.0]], std=1.0), td.Cosine()
walked = float(
    td.solve(unit.denoiser(cosine), torch.ones(1, 1, dtype=torch.float64), 8, solver="ddim", grid="uniform").end
)
assert abs(answer_1 - walked) < 1e-3, f"not yet: the walk gives {walked:.3f}"
print(f"exercise 1: right, {walked:.3f}")

# %% [markdown]
# **2.** Why does a network's `jump` fulfil $f(x,0)=x$ without the $c_\mathrm{skip}, c_\mathrm{out}$ of the papers?
# Write $f(x,s)$, the jump from $s$ to $s$, for a network that says $\hat\varepsilon$.


# %%
def answer_2(x, eps_hat, alpha, sigma):
    return None


# %%
# Solution: x_0 = (x - sigma eps)/alpha, and alpha x_0 + sigma eps = x whatever eps is.
def solution_2(x, eps_hat, alpha, sigma):
    return alpha * (x - sigma * eps_hat) / alpha + sigma * eps_hat


if answer_2(torch.ones(1), torch.ones(1), 0.8, 0.6) is None:
    answer_2 = solution_2

# %%
some = torch.randn(5, generator=torch.Generator().manual_seed(1)).double()
assert torch.allclose(answer_2(some, 7 * some + 3, 0.8, 0.6), some), "not yet: put x_0 into alpha x_0 + sigma eps"
print("exercise 2: right")

# %% [markdown]
# **3.** Section 2's average error of a sampled target falls as $h^2$ a gap. By which power of $h$ is the whole map off
# after all $1/h$ gaps?

# %%
answer_3 = None

# %%
# Solution: 1/h gaps of h^2 each: h, DDIM's global order.
answer_3 = 1 if answer_3 is None else answer_3

# %%
solutions = []
for n in (20, 40, 80):
    grid = torch.linspace(1.0, 1e-3, n + 1, dtype=torch.float64)
    solutions.append(
        float(
            (
                td.solve(D, torch.ones(1, 1, dtype=torch.float64), ts=grid, solver="ddim").end
                - gauss.flow(vp, torch.ones(1, 1, dtype=torch.float64), 1.0, 1e-3)
            ).abs()
        )
    )
assert abs(fitted_order([20, 40, 80], solutions) - answer_3) < 0.15, "not yet"
print(f"exercise 3: right, DDIM's global order measures {fitted_order([20, 40, 80], solutions):.2f}")

# %% [markdown]
# ## References
#
# * The deck, slides 12 (consistency distillation, Algorithm 2) and 16 (training, Bellman form).
# * Song, Dhariwal, Chen and Sutskever, *Consistency Models*, arXiv 2303.01469: eq. 7 and 10, alg. 1 to 3, app. C
#   (curriculum).
# * Song and Dhariwal, *Improved Techniques for Training Consistency Models* (iCT), arXiv 2310.14189: eq. 7
#   (pseudo-Huber), sec. 3.4.
# * Karras et al., *EDM*, arXiv 2206.00364: eq. 5 (the grid), alg. 1 (Heun).

# %%
print("KEY_NUMBERS", json.dumps({name: float(f"{value:.6g}") for name, value in key.items()}))
