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
# # 03 · Solvers and their orders
#
# Slide 5 (*DPM-Solver*): between two times the probability-flow ODE has an exact solution with one unknown integral.
# Expand the prediction in a Taylor series in $\lambda$, keep $k$ terms, and a step is wrong by $\mathcal O(h^{k+1})$
# only. A better formula, not a better network, buys a good sample in fewer calls.
#
# **In this lesson (35 minutes)** you measure every solver's order, write one, and break the promise in four ways.
# Needed: lesson 02.

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
from dataclasses import dataclass
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from toydiff.studies.orders import FLOOR, convergence, deterministic
from toydiff.measure import fitted_order, paired_error
from toydiff.plots import static, style
from toydiff.prediction import jump
from toydiff.solvers import DATA, DEFAULT_SOLVER, SOLVERS, Multistep3, solver_by_name
from toydiff.solvers.dpm import multistep_third, usable

# %%
SEED = 0
SAMPLES = 1000
LONG = (20, 40, 80, 160, 320, 640)

schedule = td.VP()
plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · The exact solution
#
# Notation: $x_t=\alpha_t x_0+\sigma_t\varepsilon$, $t=1$ noise; $n=\sigma/\alpha$ (NSR) and $\lambda=-\log n$ say how
# noisy. A step goes from $t$ down to $s<t$, $h=\lambda_s-\lambda_t>0$. With predictions $\hat\varepsilon$, $\hat x_0$
# on the way (lesson 02):
#
# $$
# x_s=\frac{\alpha_s}{\alpha_t}x_t
# -\alpha_s\int_{\lambda_t}^{\lambda_s}e^{-\lambda}\,\hat\varepsilon\,d\lambda,
# \qquad
# x_s=\frac{\sigma_s}{\sigma_t}x_t
# +\sigma_s\int_{\lambda_t}^{\lambda_s}e^{\lambda}\,\hat x_0\,d\lambda .
# $$
#
# *Noise form* and *data form* are the same curve. The data are Gaussian mixtures whose best denoiser is a closed form:
# **every error below is the solver's own.**

# %%
line = td.GaussianMixture([[-1.5], [0.3], [1.8]], std=[0.3, 0.2, 0.4], weights=[0.4, 0.35, 0.25])
D1 = line.denoiser(schedule)
start_lam, stop_lam = 0.25, 0.65
start_x = torch.tensor([[1.1]], dtype=torch.float64)


def time_of(lam):
    return schedule.t_of_lam(torch.as_tensor(lam, dtype=torch.float64))


def prediction(lam):
    """What the model predicts at lam on the true path through start_x at start_lam."""
    t = time_of(lam)
    return D1(line.flow(schedule, start_x, time_of(start_lam), t), t)


def integral(f, a, b):
    """The integral of f from a to b, by 32 Gauss-Legendre nodes: exact to rounding for smooth f."""
    nodes, weights = np.polynomial.legendre.leggauss(32)
    return (b - a) / 2 * sum(w * f((a + b) / 2 + (b - a) / 2 * u) for u, w in zip(nodes, weights, strict=True))


(a_t, s_t, _), (a_s, s_s, _) = schedule.levels(time_of(start_lam)), schedule.levels(time_of(stop_lam))
truth = line.flow(schedule, start_x, time_of(start_lam), time_of(stop_lam))
by_noise = a_s / a_t * start_x - a_s * integral(lambda lam: math.exp(-lam) * prediction(lam).eps, start_lam, stop_lam)
by_data = s_s / s_t * start_x + s_s * integral(lambda lam: math.exp(lam) * prediction(lam).x0, start_lam, stop_lam)
both_forms = max(abs(float(by_noise - truth)), abs(float(by_data - truth)))
print(f"true x_s {float(truth):.12f}, noise form {float(by_noise):.12f}, data form {float(by_data):.12f}")
assert both_forms < 1e-10

# %% [markdown]
# ## 2 · Taylor in $\lambda$
#
# The integral needs $\hat\varepsilon$ along the whole step, and all we have is its value at the start. Slide 5 expands
# it:
#
# $$\hat\varepsilon(\lambda)=\sum_{j=0}^{k-1}\frac{(\lambda-\lambda_t)^j}{j!}\,\hat\varepsilon^{(j)}(\lambda_t)
# +\mathcal O\big((\lambda-\lambda_t)^k\big).$$
#
# $k=1$ says "it stays constant", $k=2$ "it is a line", $k=3$ "it is a parabola". The weights
# $\int e^{-\lambda}(\lambda-\lambda_t)^j/j!\,d\lambda$ are exact: only the model is approximated.

# %%
lams = np.linspace(start_lam, stop_lam, 61)
seen = {"eps": r"noise form: $\hat\varepsilon$ along the path", "x0": r"data form: $\hat x_0$ along the path"}


def derivatives(kind, d=1e-3):
    """Value, slope and second derivative of the prediction at the start of the step, by central differences."""
    low, mid, high = (float(prediction(start_lam + shift).read(kind)) for shift in (-d, 0.0, d))
    return mid, (high - low) / (2 * d), (high - 2 * mid + low) / d**2


figure, axes = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained")
for ax, (kind, title) in zip(axes, seen.items(), strict=True):
    ax.plot(lams, [float(prediction(lam).read(kind)) for lam in lams], color=style.INK, lw=3, label="the truth")
    terms = derivatives(kind)
    for k, color in enumerate((style.ORANGE, style.BLUE, style.VERMILLION), 1):
        taylor = sum(c * (lams - start_lam) ** j / math.factorial(j) for j, c in enumerate(terms[:k]))
        name = f"k = {k}: {('constant', 'line', 'parabola')[k - 1]}"
        ax.plot(lams, taylor, color=color, lw=6 - 1.5 * k, ls="--", label=name)
    ax.set(xlabel="λ (one step, from noise to data ▸)", title=title)
axes[0].legend()
figure.suptitle("Each further term follows the model for longer", x=0.01, ha="left", fontweight="bold")
plt.show()

# %% [markdown]
# **A constant, a line, a parabola instead of the model.** (Right, the parabola happens to be nearly a line.) The slide
# promises $\mathcal O(h^{k+1})$ for **one** step. We halve $h$ again and again and fit the slope (with the true
# derivatives, so this is the slide's formula and nothing else).
#
# **Predict before you run:** by which factor does the error of $k=3$ fall for each halving?


# %%
def one_step_error(k, h):
    t, s = time_of(start_lam), time_of(start_lam + h)
    coefficients = derivatives("eps")[:k]

    def integrand(lam):
        return math.exp(-lam) * sum(c * (lam - start_lam) ** j / math.factorial(j) for j, c in enumerate(coefficients))

    alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
    x_s = alpha_s / alpha_t * start_x - alpha_s * integral(integrand, start_lam, start_lam + h)
    return abs(float(x_s - line.flow(schedule, start_x, t, s)))


hs = [0.2, 0.1, 0.05, 0.025]
for k in (1, 2, 3):
    errors = [one_step_error(k, h) for h in hs]
    key[f"one step, k={k}"] = -fitted_order(hs, errors)
    print(
        f"k = {k}: error of one step {', '.join(f'{e:.1e}' for e in errors)}   slope {key[f'one step, k={k}']:.2f}   "
        f"promised {k + 1}"
    )
    local = [math.log2(a / b) for a, b in itertools.pairwise(errors)]  # from each h to the next: no change of sign
    assert max(abs(slope - (k + 1)) for slope in local) < 0.3, local

# %% [markdown]
# About 16. A whole run has $N\sim 1/h$ such steps, so the error at its end is $N\,\mathcal O(h^{k+1})=\mathcal
# O(h^{k})$. That $k$ is the solver's **order**.
#
# ## 3 · Order 1 is DDIM
#
# With $\hat\varepsilon$ constant the integral is $\hat\varepsilon\,(e^{-\lambda_t}-e^{-\lambda_s})$, and the step
# becomes $x_s=\alpha_s\hat x_0+\sigma_s\hat\varepsilon$ (arXiv 2010.02502, eq. 12). A constant $\hat x_0$ in the data
# form gives the same line. Above order 1 the two forms differ: $\hat\varepsilon$ and $\hat x_0$ cannot both be straight
# in $\lambda$.

# %%
mixture = td.mixtures.random_mixture(SEED)
D = mixture.denoiser(schedule)
noise = mixture.marginal(schedule, 1.0).sample(64, SEED, dtype=torch.float64)

ts = td.time_grid(schedule, 10)
x = noise
for t, s in pairwise(ts):
    eps = D(x, t).eps
    x = schedule.alpha(s) / schedule.alpha(t) * x - schedule.alpha(s) * (schedule.nsr(t) - schedule.nsr(s)) * eps
same = float((x - td.solve(D, noise, solver="ddim", ts=ts).end).abs().max())
print(f"ten steps by hand against the solver ddim: largest difference {same:.1e}")
assert same < 1e-12

# %% [markdown]
# ## 4 · Where do the derivatives come from?
#
# A network gives values, not derivatives in $\lambda$. **Singlestep** (Heun, DPM-Solver-2 and -3): call it again at
# places *inside* the step; order $k$ costs $k$ calls. **Multistep** (2M, 3M, UniPC, DEIS, Adams–Bashforth): reuse the
# values of *earlier* steps; one call a step, whatever the order.
#
# So never compare at equal steps. What counts is the **NFE**, the number of network calls.

# %%
rows = []
for name in ("ddim", "dpm2", "dpm3", "dpm++2m", "dpm++3m", "unipc2", DEFAULT_SOLVER):
    path = td.solve(D, noise, 12, solver=name)
    solver = SOLVERS[name].solver
    rows.append(
        f"| `{name}` | {SOLVERS[name].title} | {solver.order} | {'multistep' if solver.memory else 'one step'} | "
        f"{path.nfe} |"
    )
display(
    Markdown(
        "\n".join(
            ["| solver | what it is | order | uses the past? | NFE for 12 steps |", "|---|---|---|---|---|", *rows]
        )
    )
)

# %% [markdown]
# (`dpm3` does not cost 36: its last step, to $\sigma=0$, is infinitely long in $\lambda$, so it is a jump, section 8.
# `dpm++3m` takes one call more at first, section 6. `guarded` is section 8's `ab3` with a guard.)
#
# ## 5 · Measured orders
#
# Every deterministic solver of the library: float64, steps uniform in $\lambda$ between two *inner* noise levels (NSR 1
# to 0.14), error against a reference solved to $10^{-12}$. On log-log axes an order is a slope.

# %%
table = convergence(solvers=deterministic(), schedules=[schedule.name], starts=32, seed=SEED)
short = [row for row in table if row["measured"] < row["declared"] - (0.15 if row["declared"] < 4 else 0.3)]
assert not short, f"slower than declared: {[row['solver'] for row in short]}"
measured = {row["solver"]: row["measured"] for row in table}
for name in ("euler", "ddim", "heun", "dpm2", "dpm3", "dpm++2m", "dpm++3m", "unipc2", "ab3"):
    key[f"slope {name}"] = measured[name]
static.convergence(table, floor=FLOOR, title="Each solver is a line, and its order is the slope")

# %% [markdown]
# Every one keeps what it declares. Slopes in a panel are equal, *heights* differ: the order tells how fast an error
# falls, not how large it is.
#
# **UniPC's free corrector.** `unipc2` predicts with the same two values as `dpm++2m`. Then, having called the model at
# the new point anyway, it uses that value to *correct* the step just made (arXiv 2302.04867, alg. 5). No extra call,
# one order more:

# %%
pair = {row["solver"]: row for row in table if row["solver"] in ("dpm++2m", "unipc2")}
for name, row in pair.items():
    print(
        f"{name:8} NFE {row['nfe']}  error {', '.join(f'{e:.1e}' for e in row['error'])}  slope {row['measured']:.2f}"
    )
assert pair["unipc2"]["nfe"] == pair["dpm++2m"]["nfe"]
assert pair["unipc2"]["measured"] > pair["dpm++2m"]["measured"] + 0.8

# %% [markdown]
# ## 6 · Break it: a missing factor 2, and a careless start
#
# Third-order multistep (3M) lays a parabola $P$ through the last three predictions $m_0,m_1,m_2$ of $\hat x_0$, newest
# first. With $u=(\lambda-\lambda_t)/h$ they lie at $u=0$, $-r_0$, $-r_0-r_1$; $\delta_0=(m_0-m_1)/r_0$ and
# $\delta_1=(m_1-m_2)/r_1$ are the slopes between them. Newton's form is
#
# $$P(u)=m_0+\delta_0\,u+\frac{\delta_0-\delta_1}{r_0+r_1}\,u\,(u+r_0).$$
#
# The step is the data form with $P$ for $\hat x_0$. With $P(u)=m_0+P'(0)\,u+D_2\,u^2/2$,
#
# $$x_s=\frac{\sigma_s}{\sigma_t}x_t+\alpha_sh\,\big(c_0\,m_0+c_1P'(0)+c_2D_2\big),\qquad
# c_j=\int_0^1e^{-h(1-u)}\,\frac{u^j}{j!}\,du\approx\frac1{(j+1)!}.$$

# %% [markdown]
# **Why 2.** $D_2$ is $P''$, and $u(u+r_0)$ has second derivative 2: $D_2=2\,(\delta_0-\delta_1)/(r_0+r_1)$, *twice* the
# second divided difference. Since $D_2\approx h^2\,d^2\hat x_0/d\lambda^2$, it gives the step's $h^3$ term. The widely
# copied code of DPM-Solver++ (3M) has no 2: *every* step lacks half of that term, $\mathcal O(Nh^3)=\mathcal O(h^2)$.
# And its first step is of order 1: wrong by $\mathcal O(h^2)$, *once*.
#
# **Predict before you run.** Which orders do four variants keep, each slip on or off? ("2-2-3": orders of the first,
# the second, all later steps.)


# %%
@dataclass(frozen=True)
class Variant(Multistep3):
    """DPM-Solver++ 3M with the factor 1 or 2 in the second difference, and a first or second order first step."""

    factor: float = 2.0
    jump_start: bool = False

    def advance(self, D, p, s, past, noise):
        olds = usable(D.schedule, past)
        if len(olds) >= 2:
            return multistep_third(self.form, D.schedule, p, s, olds, second_difference=self.factor)
        return jump(p, s) if self.jump_start and not olds else super().advance(D, p, s, past, noise)


STEPS = (40, 80, 160, 320)
inner = {N: time_of(torch.linspace(0.0, 2.0, N + 1, dtype=torch.float64)) for N in STEPS}
inner_start = mixture.marginal(schedule, inner[40][0]).sample(32, SEED, dtype=torch.float64)
inner_end = td.reference(D, inner_start, float(inner[40][0]), float(inner[40][-1]))


def inner_errors(solver, steps=STEPS):
    return [
        paired_error(td.solve(D, inner_start, solver=solver, ts=inner[N], keep="end").end, inner_end).rms for N in steps
    ]


variants = {
    "factor 2, start 2-2-3": Variant(DATA),
    "factor 2, start 1-2-3": Variant(DATA, jump_start=True),
    "factor 1, start 2-2-3": Variant(DATA, factor=1.0),
    "factor 1, start 1-2-3": Variant(DATA, factor=1.0, jump_start=True),
}
figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
for (name, solver), color, marker in zip(
    variants.items(), (style.BLUE, style.ORANGE, style.VERMILLION, style.PURPLE), "o^sD", strict=True
):
    errors = inner_errors(solver)
    key[name] = fitted_order(STEPS, errors)
    ax.loglog(STEPS, errors, marker + "-", color=color, label=f"{name}: slope {key[name]:.2f}")
ax.set(
    xlabel="steps",
    ylabel=style.ERROR_LABEL,
    title="Third order needs both: the factor 2 and a good start",
    xticks=STEPS,
)
ax.set_xticks(STEPS, [str(N) for N in STEPS])
ax.minorticks_off()
ax.legend()
plt.show()
assert key["factor 2, start 2-2-3"] > 2.85
assert all(key[name] < 2.3 for name in list(variants)[1:])

# %% [markdown]
# Either slip alone holds the whole run at order 2; no later step repairs it. In the library `dpm++3m` is the first
# line, `dpm++3m-published` the last.
#
# ## 7 · Break it: rounding, and a model with a kink
#
# "Slope = order" holds in exact arithmetic, for a *smooth* model. Two ways out of it: **float32**, and **clipping**
# $\hat x_0$ to a box, as many pipelines do with pixels. (The error is measured to the *clipped* model's own exact
# flow.)

# %%
FINE = (10, 20, 40, 80, 160, 320)
fine = {N: time_of(torch.linspace(0.0, 2.0, N + 1, dtype=torch.float64)) for N in FINE}


class Clipped(td.Denoiser):
    """A denoiser whose x_0 is clipped to [-limit, limit]."""

    def __init__(self, denoiser, limit):
        super().__init__(denoiser.schedule)
        self.denoiser, self.limit = denoiser, limit

    def forward(self, x, t, cond=None):
        return td.Prediction.of("x0", self.denoiser(x, t).x0.clamp(-self.limit, self.limit), x, t, self.schedule)


def curve(model, dtype):
    exact = td.reference(model, inner_start, float(fine[10][0]), float(fine[10][-1]), tolerance=1e-10)
    runs = [td.solve(model, inner_start.to(dtype), solver="dpm3", ts=fine[N], keep="end").end for N in FINE]
    return [paired_error(run.double(), exact).rms for run in runs]


curves = {
    "float64, smooth": (curve(D, torch.float64), style.BLUE, "o-"),
    "float32, smooth": (curve(D, torch.float32), style.ORANGE, "^-"),
    "float64, clipped to [-0.5, 0.5]": (curve(Clipped(D, 0.5), torch.float64), style.VERMILLION, "s-"),
}
figure, ax = plt.subplots(figsize=(7.5, 4.2), layout="constrained")
for name, (errors, color, mark) in curves.items():
    ax.loglog(FINE, errors, mark, color=color, label=name)
for slope, top in ((3, curves["float64, smooth"][0][0] / 3), (2, curves["float64, clipped to [-0.5, 0.5]"][0][0] * 3)):
    ax.loglog(FINE, [top * (FINE[0] / N) ** slope for N in FINE], ":", color=style.GREY)
    ax.text(FINE[-1], top * (FINE[0] / FINE[-1]) ** slope, f" {slope}", va="center", color=style.GREY)
ax.set(xlabel="steps of dpm3", ylabel=style.ERROR_LABEL, title="Third order needs exact arithmetic and a smooth model")
ax.set_xticks(FINE, [str(N) for N in FINE])
ax.minorticks_off()
ax.legend(loc="lower left")
plt.show()
slope_clipped = fitted_order(FINE, curves["float64, clipped to [-0.5, 0.5]"][0])
assert slope_clipped < 2.5  # no key number: where errors cross the kinks depends on rounding

# %% [markdown]
# In float32 more steps only collect rounding. Where a path meets the clip, the prediction has a kink, and no Taylor
# series: third order is gone.
#
# ## 8 · The two ends
#
# At $t=0$ $\lambda=\infty$: a formula in $\lambda$ cannot take the last step, it **jumps**, $x_0:=\hat x_0$. From the
# last level $n$ that is a DDIM step of length $n$ in NSR, wrong by $\mathcal O(n^2)$. On the default grid $n$ shrinks
# like $1/N$: slope 2, whatever the order inside.

# %% [markdown]
# The cure is a variable that is finite at both ends: the angle $\theta=\arctan(n/\sigma_d)$, from $\pi/2$ (noise) to 0
# (data), $\sigma_d$: the data's standard deviation. With $S=\sqrt{\sigma^2+\sigma_d^2\alpha^2}$ the scaled state
# $w=x/S$ obeys $dw/d\theta=-F$, where $F=(\sigma\hat x_0/\sigma_d-\sigma_d\alpha\hat\varepsilon)/S$ (EDM, arXiv
# 2206.00364, eq. 7). `ab3` (Adams–Bashforth) integrates a parabola through the last three $F$: the last step is like
# any other.

# %%
end = td.reference(D, noise)


def whole_way(solver, N):
    return paired_error(td.solve(D, noise, N, solver=solver, keep="end").end, end).rms


def last_jump(N):
    """The error of the last step alone: the true path as far as the last inner time, then one jump."""
    last = td.time_grid(schedule, N)[-2]
    return paired_error(jump(D(td.reference(D, noise, 1.0, float(last)), last), 0.0), end).rms


whole = {name: [whole_way(name, N) for N in LONG] for name in ("dpm3", "dpm++3m", "deis4", "ab3")}
figure, ax = plt.subplots(figsize=(7.8, 4.6), layout="constrained")
for name, errors in whole.items():
    seen_as = style.marking(name)
    slope = key[f"whole way {name}"] = fitted_order(LONG[2:], errors[2:])
    ax.loglog(
        LONG,
        errors,
        color=seen_as.color,
        marker=seen_as.marker,
        ls=seen_as.line,
        lw=2,
        label=f"{name}: slope {slope:.2f} (inside {measured[name]:.2f})",
    )
jumps = [last_jump(N) for N in LONG]
key["last jump alone"] = fitted_order(LONG[2:], jumps[2:])
ax.loglog(
    LONG, jumps, color=style.INK, ls="--", lw=1.5, label=f"the last jump alone: slope {key['last jump alone']:.2f}"
)
ax.set(xlabel="steps", ylabel=style.ERROR_LABEL, title="The whole way: the last jump holds solvers in λ back")
ax.set_xticks(LONG, [str(N) for N in LONG])
ax.minorticks_off()
ax.legend(loc="lower left")
plt.show()
assert key["whole way ab3"] > 2.8
assert abs(key["last jump alone"] - 2) < 0.1
assert abs(key["whole way dpm3"] - 2) < 0.2
assert whole["ab3"][-1] < jumps[-1] < 0.3 * whole["dpm3"][-1]

# %% [markdown]
# (Equal *steps*, as this is about slopes.) `dpm3` runs parallel to the dashed line. Near data the grid's levels are
# evenly spaced, $\dots,2n,n,0$: the step before the jump stays $\log2$ *long in $\lambda$* (printed), so it too is
# wrong by $\mathcal O(n^2)$. The other solvers in $\lambda$ suffer more from long steps: their polynomials run through
# *past* values. `ab3`, in the angle, starts behind `dpm3`, keeps its order, and at 640 steps is below the line.

# %%
for N in (5, 20, 80, 320):
    h = schedule.lam(td.time_grid(schedule, N)).diff()
    print(
        f"{N:3} steps: h of the first {float(h[0]):.2f}, shortest {float(h.min()):.3f}, last before the jump "
        f"{float(h[-2]):.2f} (log 2 = {math.log(2):.2f})"
    )

# %% [markdown]
# ## 9 · What you pay for: error against NFE
#
# Orders are about many steps. At 5, 10 or 20 calls constants matter as much. Nine solvers with the default grid, median
# over five random mixtures; each gets as many steps as its calls allow. (`deis4`: DEIS, a polynomial in
# $\lambda$ through four values of $\hat\varepsilon$.)
#
# **Predict before you run.** Who wins at 5 calls: the highest order?

# %%
BUDGETS = (5, 10, 20)
NAMED = ("ddim", "heun", "dpm3", "dpm++2m", "ab3")


def spend(model, x, solver, calls):
    """The run with the most steps that costs at most `calls`, or None if even one step costs more."""
    for N in range(calls // solver_by_name(solver).nfe_per_step + 1, 0, -1):
        path = td.solve(model, x, N, solver=solver, keep="end")
        if path.nfe <= calls:
            return path
    return None


errors_at = {name: {calls: [] for calls in BUDGETS} for name in (*NAMED, "dpm2", "dpm++3m", "unipc2", "deis4")}
truths = {}
for seed in range(1, 6):
    other = td.mixtures.random_mixture(seed)
    D_ = other.denoiser(schedule)
    x = other.marginal(schedule, 1.0).sample(64, seed, dtype=torch.float64)
    exact = truths[seed] = td.reference(D_, x, tolerance=1e-9)
    for name, by_calls in errors_at.items():
        for calls, found in by_calls.items():
            found.append(paired_error(spend(D_, x, name, calls).end, exact).rms)
median = {
    name: {calls: float(np.median(found)) for calls, found in by_calls.items()} for name, by_calls in errors_at.items()
}

ranked = sorted(median, key=lambda name: median[name][10])
figure, ax = plt.subplots(figsize=(8.5, 6.6), layout="constrained")
for calls, color, mark in zip(BUDGETS, (style.ORANGE, style.BLUE, style.GREEN), "os^", strict=True):
    ax.semilogx(
        [median[name][calls] for name in ranked], range(len(ranked)), mark, color=color, ms=8, label=f"{calls} NFE"
    )
ax.set_yticks(range(len(ranked)), [f"{name}  (order {SOLVERS[name].solver.order})" for name in ranked])
ax.invert_yaxis()
ax.grid(axis="y", color="#EEEEEE")
ax.set(
    xlabel=style.ERROR_LABEL + ", median of 5 mixtures (◂ better)",
    title="Equal calls, not equal steps (best at 10 NFE on top)",
)
ax.legend()
plt.show()
for name in NAMED:
    key[f"10 NFE {name}"] = median[name][10]
assert all(median[name][5] < 1.001 * median["deis4"][5] for name in median if name != "heun")
assert median["heun"][5] > median["deis4"][5]

# %% [markdown]
# One grid for all is not fair to all: the default one was made for `ab3`. So here is each at 10 calls on its best grid
# of those that the library has. Heun's steps are lines in NSR, where the default grid's first step is huge:

# %%
rows = ["| solver | default grid | best grid | there |", "|---|---|---|---|"]
for name in NAMED:
    on_grid = {}
    for grid in td.GRIDS:
        found = []
        for seed in range(1, 6):
            other = td.mixtures.random_mixture(seed)
            D_ = other.denoiser(schedule)
            x = other.marginal(schedule, 1.0).sample(64, seed, dtype=torch.float64)
            steps = spend(D_, x, name, 10).ts.numel() - 1
            end_of = td.solve(D_, x, steps, solver=name, grid=grid, keep="end").end
            found.append(paired_error(end_of, truths[seed]).rms)
        on_grid[grid] = float(np.median(found))
    best_grid = min(on_grid, key=on_grid.get)
    key[f"10 NFE {name}, best grid"] = on_grid[best_grid]
    rows.append(f"| {name} | {median[name][10]:.3f} | {best_grid} | {on_grid[best_grid]:.3f} |")
display(Markdown("\n".join(rows)))
print(f"heun: {median['heun'][5]:.1f} with 5 calls, {median['heun'][10]:.1f} with 10, {median['heun'][20]:.2f} with 20")

# %% [markdown]
# Order is not everything: it is a promise for *small* $h$, and in 5 steps every $h$ is 0.9 or more (section 8). `deis4`
# has the highest order, and at 5 NFE only `heun` is worse. Its first steps take three calls each, so that 5 calls are
# one step and a jump, as for `dpm3`; multistep solvers that take one call from the start, like `dpm++2m` and `ab3`,
# make five steps of them.

# %% [markdown]
# ## 10 · Stochastic solvers have no such slope
#
# DDPM's path is *random*, so its distance to the ODE's end does not fall at all. What converges is the
# **distribution**: on the ring of eight, how wide are the modes, compared with the truth? (`ddpm` adds noise of the
# smaller of the two variances of the DDPM paper, `ddpm-large` of the larger.)

# %%
ring = td.mixtures.ring()
D_ring = ring.denoiser(schedule)
x = schedule.prior((SAMPLES, 2), SEED, dtype=torch.float64)
exact = td.reference(D_ring, x, tolerance=1e-8)
COUNTS = (10, 20, 40, 80, 160)


def width(samples):
    """Root mean square distance to the nearest mode's centre, over its true value."""
    near = torch.cdist(samples, ring.means).min(1).values
    return float((near**2).mean().sqrt() / (math.sqrt(2) * 0.15))


figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.9), layout="constrained")
for name in ("ddim", "ddpm", "ddpm-large"):
    runs = [td.solve(D_ring, x, N, solver=name, generator=SEED, keep="end").end for N in COUNTS]
    seen_as = style.marking(name)
    line_style = {"color": seen_as.color, "marker": seen_as.marker, "ls": seen_as.line, "label": name}
    left.loglog(COUNTS, [paired_error(run, exact).rms for run in runs], **line_style)
    right.semilogx(COUNTS, [width(run) for run in runs], **line_style)
noise_of_width = 1 / math.sqrt(4 * SAMPLES)
right.axhspan(
    1 - 2 * noise_of_width,
    1 + 2 * noise_of_width,
    color=style.CONTEXT_COLOR,
    zorder=0,
    label=f"{SAMPLES} true samples, 95 %",
)
left.set(xlabel="NFE", ylabel=style.ERROR_LABEL, title="each sample against the ODE: no slope")
right.set(xlabel="NFE", ylabel="width of the modes / true width", title="the distribution: both variances come in")
for ax in (left, right):
    ax.set_xticks(COUNTS, [str(N) for N in COUNTS])
    ax.minorticks_off()
    ax.legend()
plt.show()

# %% [markdown]
# ## What the deck says / what we measured

# %%
best10 = ranked[0]
display(
    Markdown(
        f"""
| the deck (slide 5) | measured here |
|---|---|
| the exact solution has one integral | both forms reproduce the true flow within 1e-10 (difference {both_forms:.0e}) |
| $k$ terms: one step is wrong by $O(h^{{k+1}})$ | slopes {key["one step, k=1"]:.2f}, {key["one step, k=2"]:.2f}, \
{key["one step, k=3"]:.2f} for $k$ = 1, 2, 3 |
| so a run has order $k$ | DDIM {measured["ddim"]:.2f}, DPM-Solver-2 {measured["dpm2"]:.2f}, DPM-Solver-3 \
{measured["dpm3"]:.2f} |
| *(not said)* the published 3M is third order | {key["factor 1, start 1-2-3"]:.2f}; with the factor 2 and a \
second-order start {key["factor 2, start 2-2-3"]:.2f} |
| *(not said)* the order holds from noise to data | DPM-Solver-3 {key["whole way dpm3"]:.2f}: it ends by a jump; `ab3` \
{key["whole way ab3"]:.2f} |
| around 10 steps are enough (title of ref. 6) | error at 10 NFE: `{best10}` {median[best10][10]:.2g}, `dpm++2m` \
{median["dpm++2m"][10]:.2g}, DDIM {median["ddim"][10]:.2g} |
"""
    )
)

# %% [markdown]
# ## You can now
#
# * say what an order is, measure it as a slope, and tell it from the size of an error;
# * derive DDIM and a second-order step from the exact solution;
# * name four things that destroy an order: a wrong factor, a careless start, a kink, the last jump;
# * compare solvers at equal calls.
#
# In the app: *Solvers and orders*. Next: where to put the steps (04).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** One second-order step: from the prediction at $(x_t,t)$, jump to the middle of the step *in
# $\lambda$* (`D.schedule.part_way(t, s, 0.5)`), evaluate the model there, and take the whole step with the middle's
# $\hat\varepsilon$. (DPM-Solver-2 does this up to $\mathcal O(h^3)$.)


# %%
def midpoint_step(D, x, t, s):
    """D(x, t) gives a prediction with .eps; x (B, 2); t > s: times, (). x at s, (B, 2)."""
    raise NotImplementedError


# %%
try:
    errors = []
    for N in (40, 80, 160):
        x = inner_start
        for t, s in pairwise(inner[N]):
            x = midpoint_step(D, x, t, s)
        errors.append(paired_error(x, inner_end).rms)
    slope = fitted_order((40, 80, 160), errors)
    assert 1.85 < slope < 2.3, f"not yet: your step has order {slope:.2f}"
    print(f"exercise 1: right, slope {slope:.2f}")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** The jump from NSR $n$ to data is wrong by $\mathcal O(n^2)$, and the default grid's last level falls
# like $1/N$. Which slope has the last jump of a grid whose last level falls like $N^{-p}$?


# %%
def slope_of_last_jump(p):
    """p: a positive number. A number."""
    raise NotImplementedError


# %%
try:
    for p in (1, 2):
        found = []
        for N in (10, 20, 40):
            last = time_of(-p * math.log(0.5 / N))
            found.append(paired_error(jump(D(td.reference(D, noise, 1.0, float(last)), last), 0.0), end).rms)
        slope = fitted_order((10, 20, 40), found)
        assert abs(slope_of_last_jump(p) - slope) < 0.4, f"not yet: measured with p = {p}, it is {slope:.2f}"
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) A solver of order 3 has error $10^{-3}$ at 20 steps. At how many do you expect $10^{-6}$, and what
# could spoil it? (b) You may spend 12 calls between two inner times. How many steps may `dpm3`, `dpm2` and `dpm++2m`
# take?

# %% [markdown]
# ## References
#
# * The deck, slide 5 (*DPM-Solver*); exact solution on slide 3.
# * Lu et al., *DPM-Solver*, arXiv 2206.00927: exact solution eq. 3.4, Taylor expansion eq. 3.6, algorithms 1 and 2.
# * Lu et al., *DPM-Solver++*, arXiv 2211.01095: data form eq. 8, 2M algorithm 2.
# * Song et al., *DDIM*, arXiv 2010.02502: eq. 12.
# * Zhao et al., *UniPC*, arXiv 2302.04867: algorithms 5 to 8.
# * Zhang and Chen, *DEIS*, arXiv 2204.13902: eq. 14, 15.
# * Karras et al., *EDM*, arXiv 2206.00364: eq. 5 and 7, Heun algorithm 1.
# * Ho et al., *DDPM*, arXiv 2006.11239: eq. 11.
