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
# # 06 · Naive, guided and progressive distillation
#
# A solver walks from noise to a sample in many calls. **Naive distillation** learns the whole way as one step (slide
# 10). **Guided distillation** makes guidance's two calls one (slides 4, 6, 9). **Progressive distillation** learns two
# steps as one, and repeats (slide 11). One regression, three targets.
#
# **In this lesson (30 minutes)** you write two of them, and find out what each converges to. Needed: lessons 00 to 03.

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
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython.display import Markdown, display

from toydiff.catalog import METHODS
from toydiff.distill.naive import naive_loss as naive_distillation_loss
from toydiff.distill.progressive import progressive_loss as progressive_distillation_loss
from toydiff.measure import floor, modes, sliced_wasserstein
from toydiff.plots import static, style
from toydiff.problems import problem
from toydiff.runs import load, sample
from toydiff.runs import train as train_method
from toydiff.training import Draws

# %%
SEED = 0
SAMPLES = 1000

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %% [markdown]
# ## 1 · Naive distillation: learn where the ODE goes
#
# Notation: $x_t=\alpha_tx_0+\sigma_t\varepsilon$, $t=1$ noise, $t=0$ data. Draw noise, let the teacher's solver take it
# to a sample, keep the pair, and fit $G(\varepsilon)$ to the samples. On the line the ODE's map is known: paths cannot
# overtake one another, so the lowest tenth of the noise goes to the lowest tenth of the data. That is the **quantile
# map** $T=F^{-1}\circ\Phi$ ($F,\Phi$: distribution functions of data and noise).

# %%
line = td.GaussianMixture([[-1.5], [0.3], [1.8]], std=[0.3, 0.2, 0.4], weights=[0.4, 0.35, 0.25])
cosine = td.Cosine()  # alpha = 0 at t = 1: the walk starts from pure noise
D_line = line.denoiser(cosine, "v")
noise = torch.special.ndtri((torch.arange(4000, dtype=torch.float64)[:, None] + 0.5) / 4000)  # equal parts of N(0, 1)
exact = line.flow(cosine, noise, 1.0, 0.0)
dataset = line.sample(50_000, SEED).float()


def alpha_sigma(t):
    return torch.cos(t * math.pi / 2)[:, None], torch.sin(t * math.pi / 2)[:, None]


class Net(torch.nn.Module):
    """(z, t) -> the x_0 that it predicts; z (B, 1), t (B,)."""

    def __init__(self, hidden=64):
        super().__init__()
        sizes = [(3, hidden), (hidden, hidden), (hidden, hidden)]
        layers = [layer for size in sizes for layer in (torch.nn.Linear(*size), torch.nn.SiLU())]
        self.layers = torch.nn.Sequential(*layers, torch.nn.Linear(hidden, 1))

    def forward(self, z, t):
        alpha, sigma = alpha_sigma(t)
        return alpha * z - sigma * self.layers(torch.cat([z, alpha, sigma], 1))


def train(net, loss_of, updates, batch=256, lr=5e-3):
    torch.manual_seed(SEED)
    net = copy.deepcopy(net)
    optimizer = torch.optim.Adam(net.parameters(), lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
    for _ in range(updates):
        loss = loss_of(net, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return net


# %% [markdown]
# The teacher is a diffusion model (lesson 00's loop). The student begins with its weights; its loss is one line.
#
# **Predict before you run.** Three one-step maps: the student; a student of the *same* noise and samples, paired at
# random anew in each update; and the teacher's own single step. Which of them give samples? What do the others give?


# %%
def diffusion_loss(net, n):
    x, t, eps = dataset[torch.randint(len(dataset), (n,))], torch.rand(n), torch.randn(n, 1)
    alpha, sigma = alpha_sigma(t)
    weight = (alpha / sigma).square().clamp(1, 1e4)  # max(SNR, 1)
    return (weight * (net(alpha * x + sigma * eps, t) - x).square()).mean()


def naive_loss(net, eps, x0):
    return (net(eps, torch.ones(len(eps))) - x0).square().mean()  # at t = 1 x_t is the noise


def on_pairs(x0):
    def loss_of(net, n):
        row = torch.randint(len(noise), (n,))
        return naive_loss(net, noise[row].float(), x0[row].float())

    return loss_of


def shuffled_loss(net, n):  # every noise meets all samples in turn
    return naive_loss(
        net, noise[torch.randint(len(noise), (n,))].float(), exact[torch.randint(len(exact), (n,))].float()
    )


torch.manual_seed(SEED)
teacher_net = train(Net(), diffusion_loss, 1500)
one_shuffle = exact[torch.randperm(len(exact), generator=torch.Generator().manual_seed(SEED))]
students = {
    "naive student": train(teacher_net, on_pairs(exact), 500),
    "pairs shuffled": train(teacher_net, shuffled_loss, 500),
    "teacher, one step": teacher_net,
    "one stored shuffle": train(teacher_net, on_pairs(one_shuffle), 500),
}
with torch.no_grad():
    maps = {name: net(noise.float(), torch.ones(len(noise))).double() for name, net in students.items()}
    student = td.NetDenoiser(students["naive student"], cosine, "x0")
    library = naive_distillation_loss(student, exact.float(), noise.float(), None, Draws(SEED))
    assert abs(float(naive_loss(student.net, noise.float(), exact.float()) / library) - 1) < 1e-3
display(
    static.one_step_maps(
        noise[:, 0],
        {name: maps[name][:, 0] for name in ("naive student", "pairs shuffled", "teacher, one step")},
        exact[:, 0],
        title="Only an ODE's pairs give samples; the others give the mean",
    )
)
for name, ends in maps.items():
    print(
        f"{name:18} RMS distance to the exact map {float((ends - exact).square().mean().sqrt()):.2f}, spread "
        f"{float(ends.std()):.2f} (data {line.std:.2f})"
    )
assert float(maps["naive student"].std()) > 0.9 * line.std
assert max(float(maps[name].std()) for name in ("pairs shuffled", "one stored shuffle")) < 0.3 * line.std

# %% [markdown]
# **Pairs are all that naive distillation adds.** Least squares finds $\mathbb E[x_0\mid\varepsilon]$. An ODE gives each
# noise *one* sample: nothing to average. Shuffled anew, noise tells nothing, and this mean is the data's. So it is for
# the teacher's step: at $t=1$ $x_t$ tells nothing.
#
# One *stored* shuffle gives one sample to each noise, too, but neighbours get unrelated ones. A smooth network has no
# room to follow and averages over neighbours; a large one could learn them by heart.

# %% [markdown]
# **The student inherits its teacher's error.** Nobody tells it what the *exact* ODE would do. With pairs from $N$ steps
# the perfect student is the $N$-step map, error included, only at one call:

# %%
for N in (2, 4, 8, 16, 32, 64):
    walk = td.solve(D_line, noise, N, solver="ddim", grid="uniform", keep="end").end
    better = td.solve(D_line, noise, N, keep="end").end
    off, off_better = (float((end - exact).square().mean().sqrt()) for end in (walk, better))
    print(
        f"pairs made with {N:2} steps: a perfect student is off by {off:.4f} (DDIM), {off_better:.5f} (the default "
        "solver)"
    )
    key[f"line: {N} steps of ddim"] = off
key["line: 16 steps of the default solver"] = float(
    (td.solve(D_line, noise, 16, keep="end").end - exact).square().mean().sqrt()
)

# %% [markdown]
# ## 2 · The same in the plane
#
# The ring of eight, a trained teacher, and the student that comes with the library. Above, the noise, coloured by where
# it is taken; below, where that is. Distances are sliced Wasserstein distances to true samples, over the **floor**:
# what two sets of true samples show.

# %%
ring = td.mixtures.ring()
on_ring = problem("mixture:ring")
teacher, naive = load("ring-teacher"), load("ring-naive")
truths = [ring.sample(SAMPLES, 10**6 + k) for k in range(2)]


def apart(a, b):
    return sliced_wasserstein(a.double(), b.double(), projections=32)


PAIRS = 20  # of true sets, for the floor
ground, ground_of_more = (
    floor(apart, lambda n, seed: ring.sample(n, seed), n, seeds=range(PAIRS)) for n in (SAMPLES, 4 * SAMPLES)
)


def over_floor(cloud):
    """Sliced Wasserstein distance to true samples, as a multiple of the floor: 1 is perfect."""
    return float(np.mean([apart(cloud, truth) for truth in truths])) / ground.mean


clouds = {
    "teacher, 20 steps": sample(teacher, on_ring, SAMPLES, 20)[0].end,
    "naive student, 1 step": sample(naive, on_ring, SAMPLES, 1)[0].end,
    "teacher, 1 step": sample(teacher, on_ring, SAMPLES, 1)[0].end,
}
starts = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(10**6))  # the noise that `sample` starts from
static.one_step_planes(starts, clouds, ring, title="Where each noise goes")

# %%
rows = []
for name, cloud in clouds.items():
    found = modes(ring, cloud)
    key[f"ring, {name}"] = over_floor(cloud)
    rows.append(f"| {name} | {key[f'ring, {name}']:.1f} | {100 * found.outside:.1f} % | {100 * found.coverage:.0f} % |")
display(Markdown("\n".join(["| | distance / floor | outside all modes | modes found |", "|---" * 4 + "|", *rows])))
print(
    f"floor of {SAMPLES:,} samples: {ground.mean:.3f}, its spread over {PAIRS} pairs {ground.std / ground.mean:.1f} of "
    f"it: within it nothing is ahead. Floor of {4 * SAMPLES:,}: {ground_of_more.mean:.3f}"
)
agree = float((clouds["naive student, 1 step"] - clouds["teacher, 20 steps"]).norm(dim=1).median())
print(f"from the same noise, student and teacher end {agree:.3f} apart (median); a mode's standard deviation is 0.15")
spent = naive.about
print(f"the student cost {spent['pair_calls']:,} teacher calls for its pairs, once, and {spent['updates']:,} updates")
assert key["ring, naive student, 1 step"] < 0.5 * key["ring, teacher, 1 step"]
assert ground_of_more.mean < 0.8 * ground.mean

# %% [markdown]
# The student learned the teacher's *map*, not just its distribution: the colours agree. It cannot tear: a
# network is continuous, and between two sectors the map goes from one mode to the next within a hair's breadth: a few
# samples fall in between. The teacher has the same seams, and more calls to make them narrow.
#
# More samples have a lower floor, so the same error is *more floors*: compare such ratios at one number of
# samples only.

# %% [markdown]
# ## 3 · Guided distillation: two calls become one
#
# The target is the guided prediction itself ($c$: the class, $\varnothing$: none; the paper's guidance weight is
# $g-1$):
#
# $$\hat x_0^{\,g}(x_t,c)=\hat x_0(x_t,\varnothing)+g\,\big(\hat x_0(x_t,c)-\hat x_0(x_t,\varnothing)\big),
# \qquad g\sim U[1,5],$$
#
# and the student **sees $g$**: again a mean square, with $g$ as an input of the network. We train one from the exact
# guided mixture; it starts as the conditional model of a trained teacher, its new input at zero.

# %%
schedule = on_ring.schedule
D_ring = ring.denoiser(schedule, "v")
changes = {"updates": 300, "batch": 256, "lr": 4e-3, "ema": 0.97, "warmup": 20}
guided = train_method("guided", on_ring, teacher=D_ring, start=teacher, changes=changes, seed=SEED).finish()

many = torch.arange(512) % 8
x = schedule.prior((512, 2), SEED)
two = td.solve(D_ring, x, 10, cond=many, guidance_scale=3.0, keep="end")
one = td.solve(guided.denoiser, x, 10, cond=many, guidance_scale=3.0, keep="end")
key["guided: NFE of the teacher"], key["guided: NFE of the student"] = two.nfe, one.nfe
print(f"10 steps at g = 3: the teacher spends {two.nfe} calls, the student {one.nfe}")
assert one.nfe * 2 == two.nfe

# %% [markdown]
# **Predict before you run.** Two controls. *A student that does not see $g$*: the target is linear in $g$, so the best
# it can say is the target at the mean scale, 3, which can be written down. *Scales that were not trained*: beyond 5.
# Which hurts more at $g=12$?

# %%
scales = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 9.0, 12.0)
rng = torch.Generator().manual_seed(SEED)
x0, c = ring.sample_labelled(SAMPLES, rng)
t = 0.02 + 0.97 * torch.rand(SAMPLES, generator=rng)
x_t = schedule.mix(x0, torch.randn(SAMPLES, 2, generator=rng), t)


def rms(x0, g):
    return float((x0 - D_ring(x_t, t, c, g).x0).square().sum(1).mean().sqrt())


with torch.no_grad():
    errors = {
        "student that sees g": [rms(guided.denoiser(x_t, t, c, g).x0, g) for g in scales],
        "before training (ignores g)": [rms(teacher.denoiser(x_t, t, c).x0, g) for g in scales],
        "best student that does not see g": [rms(D_ring(x_t, t, c, 3.0).x0, g) for g in scales],
    }
figure, ax = plt.subplots(figsize=(8, 4.3), layout="constrained")
colors = (METHODS["guided"].color, style.FLOOR_COLOR, style.VERMILLION)
for (name, values), color, mark in zip(errors.items(), colors, "osv", strict=True):
    ax.plot(scales, values, mark + "-", color=color, lw=2, label=name)
ax.axvspan(1, 5, color=style.CONTEXT_COLOR, alpha=0.5, lw=0)
ax.text(3, 0.96, "trained", transform=ax.get_xaxis_transform(), va="top", ha="center", color=style.INK)
ax.set(
    xlabel="guidance scale g",
    ylabel="RMS error of the predicted $x_0$",
    ylim=(0, None),
    title="A student that sees g is right inside its range, and lost outside",
)
ax.legend(loc="upper left", bbox_to_anchor=(0.0, 0.9))
plt.show()
for g in (1.0, 5.0, 12.0):
    key[f"blind student, g = {g:g}"] = errors["best student that does not see g"][scales.index(g)]
    key[f"conditional teacher, g = {g:g}"] = errors["before training (ignores g)"][scales.index(g)]
for name, values in errors.items():
    print(f"{name:32} " + ", ".join(f"{values[scales.index(g)]:.2f} at g = {g:g}" for g in (1.0, 3.0, 5.0, 12.0)))
seeing, _, blind = (values[-1] for values in errors.values())
assert 0.5 * blind < seeing < blind, "at g = 12 not seeing g hurts more, and neither is of use"
assert max(errors["student that sees g"][:5]) < 0.5

# %%
rows = []
for g in (1.0, 3.0, 5.0, 12.0):
    target = td.solve(D_ring, x, 20, cond=many, guidance_scale=g, keep="end").end
    end = td.solve(guided.denoiser, x, 20, cond=many, guidance_scale=g, keep="end").end
    plain = td.solve(D_ring, x, 20, cond=many, keep="end").end
    off, moved = (float((a - target).norm(dim=1).median()) for a in (end, plain))
    key[f"what guidance moves, g = {g:g}"] = moved
    rows.append(f"| {g:g}{' (not trained)' if g > 5 else ''} | {off:.3f} | {moved:.3f} |")
assert 0.4 * moved < off < 0.6 * moved, "at g = 12, the last"
head = "| g | student to exact guided sample (median) | plain conditional to exact guided sample (median) |"
display(Markdown("\n".join([head, "|---" * 3 + "|", *rows])))

# %% [markdown]
# Inside the range the student follows $g$. **At $g=12$ not seeing it hurts more, but both are lost**: the student has
# most of the control's error, and its samples end half as far from the guided ones as unguided samples do. So train
# the range that you will sample. At $g=1$ it pays a little (its teacher knew that scale).
# And guided distillation only *halves* the calls: it is stage one of the paper. Stage two follows.

# %% [markdown]
# ## 4 · Progressive distillation, line by line
#
# Slide 11's Algorithm 2, with its letters: $\mathbf z_t$ is our $x_t$, $\mathbf x$ our $x_0$, $\eta$ the teacher's
# weights, $\theta$ the student's. The target $\tilde{\mathbf x}$ is the one prediction whose single DDIM step lands
# where two steps of the teacher land, at $t''=t-1/N$:
#
# $$\tilde{\mathbf x}=\frac{\mathbf z_{t''}-(\sigma_{t''}/\sigma_t)\,\mathbf z_t}{\alpha_{t''}-(\sigma_{t''}/\sigma_t)\,
# \alpha_t}.$$
#
# The slide's $\lambda_t=\log[\alpha_t^2/\sigma_t^2]$ is **twice** the $\lambda$ of slides 3 and 5;
# the weight of the loss is $w=\max(e^{\lambda},1)$.


# %%
def ddim(x, z, t, s):  # keep (x, eps), go to the noise level of s
    (alpha, sigma), (alpha_s, sigma_s) = alpha_sigma(t), alpha_sigma(s)
    return alpha_s * x + sigma_s * (z - alpha * x) / sigma


def progressive_loss(student, teacher, N, x, i, eps):
    t = i / N
    alpha, sigma = alpha_sigma(t)
    z = alpha * x + sigma * eps
    t1, t2 = t - 0.5 / N, t - 1 / N
    with torch.no_grad():  # 2 steps of DDIM with teacher
        z1 = ddim(teacher(z, t), z, t, t1)
        z2 = ddim(teacher(z1, t1), z1, t1, t2)
        alpha2, sigma2 = alpha_sigma(t2)
        target = (z2 - sigma2 / sigma * z) / (alpha2 - sigma2 / sigma * alpha)  # teacher x target
    weight = (alpha / sigma).square().clamp(min=1)  # w(lambda_t)
    return (weight * (target - student(z, t)).square()).mean()


# %%
def distil(teacher, loss_of=progressive_loss, N=16, updates=400):
    while N >= 1:  # for K iterations
        student = copy.deepcopy(teacher)  # theta <- eta
        optimizer = torch.optim.Adam(student.parameters(), 2e-3)
        for _ in range(updates):  # while not converged
            x = dataset[torch.randint(len(dataset), (256,))]
            i, eps = torch.randint(1, N + 1, (256,)), torch.randn(256, 1)
            loss = loss_of(student, teacher, N, x, i, eps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()  # theta <- theta - gamma gradient (Adam's)
        teacher, N = student, N // 2  # eta <- theta; halve number of sampling steps
    return student


def one_step_target(student, teacher, N, x, i, eps):
    """The control: one DDIM step of the teacher, as long as the student's."""
    alpha, sigma = alpha_sigma(i / N)
    with torch.no_grad():
        target = teacher(alpha * x + sigma * eps, i / N)  # whose jump to t - 1/N is that step
    return ((alpha / sigma).square().clamp(min=1) * (target - student(alpha * x + sigma * eps, i / N)).square()).mean()


rows = torch.arange(2048)
with torch.no_grad():
    draws = Draws(SEED)
    i = 1 + draws.integers(len(rows), 8)
    ours = progressive_loss(teacher_net, students["naive student"], 8, dataset[rows], i, draws.normal(len(rows), 1))
    nets = (td.NetDenoiser(net, cosine, "x0") for net in (teacher_net, students["naive student"]))
    library = progressive_distillation_loss(*nets, 8, dataset[rows], None, Draws(SEED))
assert abs(float(ours / library) - 1) < 1e-3, (ours, library)
print(f"the loss of two networks: {ours:.4f}, library {library:.4f}")

# %% [markdown]
# **Predict before you run.** Halve a teacher of 32 steps down to one. The control's target is *one* teacher step of the
# student's length instead of two. What does each give in one step?

# %%
torch.manual_seed(SEED)
halved = {
    "progressive, 32 halved to 1": distil(teacher_net),
    "control: one teacher step": distil(teacher_net, one_step_target),
}


def walk(net, steps):
    """DDIM from all the noise, uniform in t."""
    return td.solve(
        td.NetDenoiser(net, cosine, "x0"), noise.float(), steps, solver="ddim", grid="uniform", keep="end"
    ).end.double()


ends = {name: walk(net, 1) for name, net in halved.items()} | {"the teacher in 32 steps": walk(teacher_net, 32)}
figure = static.one_step_maps(
    noise[:, 0],
    {name: x[:, 0] for name, x in ends.items()},
    exact[:, 0],
    title="One step after five halvings: what 32 steps of the teacher do",
)
[ax] = figure.axes
for drawn in (ax.lines[-1], ax.get_legend().get_lines()[-1]):  # the teacher lies on its student
    drawn.set_linestyle((0, (2, 2)))
display(figure)
off = {name: float((x - ends["the teacher in 32 steps"]).square().mean().sqrt()) for name, x in ends.items()}
for name in halved:
    print(f"{name:28} {off[name]:.2f} from the teacher's 32 steps (RMS), spread {float(ends[name].std()):.2f}")
assert off["progressive, 32 halved to 1"] < 0.5 * off["control: one teacher step"]

# %% [markdown]
# The control passes nothing on: each student is the teacher with fewer steps, and one step gives the mean.
#
# **What stays?** Data $N(0,1)$, cosine schedule: the true map is $x_0=\varepsilon$, and a DDIM step from $t$ to $s$
# multiplies by $\cos\frac\pi2(t-s)$, so $N$ steps shrink the spread to $\cos(\pi/2N)^N$. Every target is affine here:
# one affine map a time, fitted by least squares, is as good as any network. We halve all the way down, and the control
# too.


# %%
class Affine(td.Denoiser):
    """x_0 = a x + b, with its own (a, b) at each time of a grid: maps {t: (a, b)}."""

    def __init__(self, schedule, maps):
        super().__init__(schedule)
        self.maps = maps

    def forward(self, x, t, cond=None):
        a, b = self.maps[float(t)]
        return td.Prediction.of("x0", a * x + b, x, t, self.schedule)


def stage(teacher, N, x, halves=2):
    """A student of N steps, from `halves` teacher steps a student step, fitted by least squares on the states x."""
    maps = {}
    for i in range(1, N + 1):
        ts = torch.linspace(i / N, (i - 1) / N, halves + 1, dtype=torch.float64)
        x_s = x
        for t, s in pairwise(ts):
            x_s = td.jump(teacher(x_s, t), s)
        target = td.chord(cosine, x, ts[0], x_s, ts[-1]).x0
        maps[i / N] = torch.linalg.lstsq(torch.cat([x, torch.ones_like(x)], 1), target).solution[:, 0].tolist()
    return Affine(cosine, maps)


def spread(D, N):
    return float(td.solve(D, noise, N, solver="ddim", grid="uniform", keep="end").end.std() / noise.std())


gaussian = td.GaussianMixture([[0.0]], std=1.0).denoiser(cosine)
counts = (1, 2, 4, 8, 16, 32, 64)
teachers = {N: spread(gaussian, N) for N in counts}
chains, worst = {}, 0.0
for first in (4, 16, 64):
    student, N, found = gaussian, first, {first: teachers[first]}
    while N > 1:
        N //= 2
        student = stage(student, N, noise[::40])
        found[N] = spread(student, N)
    chains[first] = found
    worst = max(worst, *(abs(value - teachers[first]) for value in found.values()))
law = max(abs(value - math.cos(math.pi / (2 * N)) ** N) for N, value in teachers.items())
print(f"teachers against cos(π/2N)^N: largest difference {law:.0e}; students against their first teacher: {worst:.0e}")
assert worst < 1e-10 > law
key |= {f"Gaussian: {N} steps": value for N, value in teachers.items() if N > 1}
key["Gaussian: 16 halved to 1"] = chains[16][1]

# %%
student, control = gaussian, {}
for N in (32, 16, 8, 4, 2, 1):
    student = stage(gaussian, N, noise[::40], halves=1)
    control[N] = spread(student, N)

figure, ax = plt.subplots(figsize=(8, 4.3), layout="constrained")
ax.plot(
    counts, list(teachers.values()), "o-", color=style.INK, ms=9, label="DDIM teacher in N steps, $\\cos(\\pi/2N)^N$"
)
for (first, found), mark in zip(chains.items(), "sD^", strict=True):
    ax.plot(
        list(found),
        list(found.values()),
        mark + "--",
        color=METHODS["progressive"].color,
        label=f"progressive, halved from {first}",
    )
ax.plot(
    list(control),
    list(control.values()),
    "x",
    color=style.VERMILLION,
    ms=9,
    mew=2,
    label="control: target of one teacher step",
)
ax.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1)
ax.text(1, 1.01, "data", color=style.FLOOR_COLOR)
ax.set(
    xscale="log",
    xlabel="steps N (one call each)",
    ylabel="standard deviation of the samples",
    title="Halving keeps the first teacher's answer, and its error",
)
ax.set_xticks(counts, [str(N) for N in counts])
ax.minorticks_off()
ax.legend(loc="lower right")
plt.show()
assert all(abs(control[N] - teachers[N]) < 1e-10 for N in control)

# %% [markdown]
# **Halving keeps the first teacher's answer, and its error.** So begin with many steps. What halving costs is training:
# each stage has to converge before the next begins, and a student of a student adds up what each stage missed
# (exercise 2).
#
# ## 5 · Break it: off its grid
#
# The student's $\hat x_0$ is no longer anybody's expectation of $x_0$: it makes *one step of length $1/N$* come out
# right, and another length has another one.

# %% [markdown]
# **Predict before you run.** The Gaussian student of four steps, used with two; and the bundled student of the ring,
# halved from 16 to 4 steps, used with 1 to 16. Does it gain by more steps, as its teacher does?

# %%
four = stage(stage(gaussian, 8, noise[::40]), 4, noise[::40])
key["4-step student in 4 steps"], key["4-step student in 2 steps"] = spread(four, 4), spread(four, 2)
print(
    f"student of a 16-step teacher, made for 4 steps: std {key['4-step student in 4 steps']:.4f} in 4 steps, "
    f"{key['4-step student in 2 steps']:.4f} in 2; "
    f"the untrained DDIM has {teachers[2]:.4f} in 2"
)

# %%
progressive = load("ring-progressive")
counts = (1, 2, 3, 4, 5, 6, 8, 16)
curves = {
    "progressive, made for 4 steps": [over_floor(sample(progressive, on_ring, SAMPLES, N)[0].end) for N in counts],
    "its teacher, same sampler": [
        over_floor(sample(teacher, on_ring, SAMPLES, N, solver="ddim", grid="uniform")[0].end) for N in counts
    ],
}
figure, ax = plt.subplots(figsize=(8, 4.3), layout="constrained")
for (name, values), color, mark in zip(curves.items(), (METHODS["progressive"].color, style.INK), "Do", strict=True):
    ax.loglog(counts, values, mark + "-", color=color, label=name)
ax.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1, label="floor: true samples")
ax.axvline(4, color=METHODS["progressive"].color, lw=1, ls=":")
ax.set_xticks(counts, [str(N) for N in counts])
ax.set_yticks(levels := style.ticks(*ax.get_ylim()), [f"{level:g}" for level in levels])
ax.minorticks_off()
ax.set(
    xlabel="steps of DDIM, uniform in t", ylabel="distance / floor", title="A student of four steps, used with others"
)
ax.legend(loc="upper right")
plt.show()
for N, mine, theirs in zip(counts, *curves.values(), strict=True):
    if N in (1, 2, 4, 8, 16):
        key[f"ring, progressive, {N} steps"], key[f"ring, ddim, {N} steps"] = mine, theirs
        print(f"{N:2} steps: progressive {mine:4.1f}, its teacher {theirs:4.1f} floors")
best = counts[int(np.argmin(curves["progressive, made for 4 steps"]))]
print(f"the student is at its best in {best} steps")
print(
    f"it cost {progressive.about['teacher_calls']:,} teacher calls in {progressive.about['updates']:,} updates; the "
    f"naive one {naive.about['teacher_calls']:,}; both begin with the teacher's weights, whose "
    f"{teacher.about['updates']:,} updates come on top"
)

# %% [markdown]
# A teacher gains by more steps, up to a limit. This student was made for one grid: extra steps cost calls and gain
# nothing (what they lose is within the floor's spread); one or two steps lose much.
#
# One more thing breaks: predicting $\varepsilon$ where $\alpha_1=0$. One step must say what $x_0$ is, and
# $(x-\sigma\hat\varepsilon)/\alpha$ divides by zero. `Prediction.of("eps", ...)` refuses there. Hence networks that
# predict $v=\alpha\varepsilon-\sigma x_0$, or $x_0$.
#
# ## What the deck says / what we measured

# %%
display(
    Markdown(
        f"""
| the deck | measured here |
|---|---|
| the ODE takes noise to samples; learn that map (slide 10) | ring, one step: {key["ring, naive student, 1 step"]:.1f} \
times the floor; the teacher {key["ring, teacher, 20 steps"]:.1f} in 20 steps, {key["ring, teacher, 1 step"]:.0f} in \
one |
| *(not said)* the pairs do it, not the square | shuffled pairs: the spread falls from \
{float(maps["naive student"].std()):.2f} to {float(maps["pairs shuffled"].std()):.2f}, data {line.std:.2f} |
| *(not said)* the teacher's error is inherited | pairs of 4 DDIM steps: a perfect student is off by \
{key["line: 4 steps of ddim"]:.2f}; of 16: {key["line: 16 steps of ddim"]:.2f}; of 16 better steps: \
{key["line: 16 steps of the default solver"]:.4f} |
| guided distillation (slides 4, 6, 9: named only) | {two.nfe} calls become {one.nfe}. A student that does not see $g$ \
is off by {key["blind student, g = 1"]:.2f} at $g=1$, one that does by {errors["student that sees g"][0]:.2f}; at \
$g=12$, untrained, by {errors["student that sees g"][-1]:.1f} |
| two teacher steps become one (slide 11) | live: {off["progressive, 32 halved to 1"]:.2f} from the teacher's 32 \
steps; with a one-step target {off["control: one teacher step"]:.2f}. Gaussian: halving 16 to 1 keeps the spread \
{key["Gaussian: 16 halved to 1"]:.4f} = cos(π/32)¹⁶; one untrained step has {teachers[1]:.0f} |
| *(not said)* only on its own grid | the 4-step student on the ring: {key["ring, progressive, 4 steps"]:.1f} in 4 \
steps, {key["ring, progressive, 2 steps"]:.1f} in 2, {key["ring, progressive, 8 steps"]:.1f} in 8 (times the floor) |
"""
    )
)

# %% [markdown]
# ## You can now
#
# * say why a plain square makes a one-step generator from an ODE's pairs, and not from shuffled ones;
# * write Algorithm 2 of slide 11, and derive its target;
# * say what halving keeps, what it costs, and why the student is tied to its grid;
# * say what guided distillation saves, and where it may be used.
#
# Next: the same pairs, but a model that works in any number of steps (07).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** In $\zeta=x/\alpha$ a jump is a straight line in $n=\mathrm{NSR}$, and $\hat x_0$ is where
# the line meets $n=0$. Write progressive distillation's target that way.


# %%
def target_in_zeta(zeta_t, n_t, zeta_s, n_s):
    """zeta_t, zeta_s (B, 1) at the noise levels n_t > n_s. The x_0 whose jump from t lands on zeta_s, (B, 1)."""
    raise NotImplementedError


# %%
try:
    t, mid, end = torch.tensor([0.75, 0.625, 0.5], dtype=torch.float64)
    x_t = noise[::50]
    x_s = td.jump(D_line(td.jump(D_line(x_t, t), mid), mid), end)
    yours = target_in_zeta(x_t / cosine.alpha(t), cosine.nsr(t), x_s / cosine.alpha(end), cosine.nsr(end))
    assert torch.allclose(yours, td.chord(cosine, x_t, t, x_s, end).x0), (
        "not yet: draw the line through the two points, and read it off at n = 0"
    )
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** Every student misses its target a little: each of its *steps* comes out too small by the factor `f`,
# relative to two steps of its own teacher. You halve 16 to 8 to 4 to 2 to 1. By which factor is the final sample too
# small, compared with the 16-step teacher's?


# %%
def shrunk_by(f):
    """f: a number a little below 1. A number."""
    raise NotImplementedError


# %%
def miss(student, N, f):
    """The same student, each of its N steps too small by the factor f."""
    maps = {}
    for time in student.maps:
        now, then = torch.tensor([time, max(time - 1 / N, 0.0)], dtype=torch.float64)
        states = noise[::40]
        x0 = td.chord(cosine, states, now, f * td.jump(student(states, now), then), then).x0
        maps[time] = (float((x0 * states).sum() / (states**2).sum()), 0.0)
    return Affine(cosine, maps)


try:
    student = gaussian
    for N in (8, 4, 2, 1):
        student = miss(stage(student, N, noise[::40]), N, 0.998)
    wrong = spread(student, 1) / teachers[16]
    assert abs(shrunk_by(0.998) - wrong) < 1e-4, f"not yet: measured, the factor is {wrong:.4f}"
    print(f"exercise 2: right, {wrong:.4f}: mistakes made early, at many steps, weigh most")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) Why not learn the 32 steps as one right away, from noised data instead of pairs, by walking the
# teacher 32 steps for each update? (b) A guided model takes 32 steps. It is distilled by stage one, then halved to 4
# steps. By what factor do a sample's calls fall?

# %% [markdown]
# ## References
#
# * The deck, slides 4, 6, 9 (the list), 10 (naive distillation) and 11 (Algorithm 2).
# * Luhman and Luhman, *Knowledge Distillation in Iterative Generative Models for Improved Sampling Speed*,
#   arXiv 2101.02388: eq. 7.
# * Meng et al., *On Distillation of Guided Diffusion Models*, arXiv 2210.03142: alg. 1 (stage one) and alg. 2.
# * Salimans and Ho, *Progressive Distillation for Fast Sampling of Diffusion Models*, arXiv 2202.00512: alg. 2; sec. 4
#   (kinds and weights).
# * Ho and Salimans, *Classifier-Free Diffusion Guidance*, arXiv 2207.12598: eq. 6. Song et al., *DDIM*,
#   arXiv 2010.02502: eq. 12.
# * Karras et al., *EDM*, arXiv 2206.00364: sampling in $x/\alpha$.
