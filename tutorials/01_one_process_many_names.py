# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 · One process, many names
#
# **DDPM, score SDE, EDM, flow matching, rectified flow:** five notations, one process
#
# $$x_t = \alpha_t\,x_0 + \sigma_t\,\varepsilon,\qquad \varepsilon\sim\mathcal N(0, I),$$
#
# with $t=0$ data and $t=1$ noise. They differ in *how fast* they run through the noise levels (schedule), and in *which
# combination* of $x_0$ and $\varepsilon$ a network predicts (kind).
#
# **In this lesson (25 minutes)** you check slides 2, 23 and 25 of the deck as numbers, on data whose best denoiser is a
# closed form. Needed: lesson 00.

# %%
# %matplotlib inline
try:
    import toydiff
except ImportError as missing:
    raise ImportError(
        "install the library first: in a clone `pip install -e .`; in Colab clone it, then `%pip install ./toydiff`"
    ) from missing

import math

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display

from toydiff import KINDS, SCHEDULES, Cosine, Linear, Prediction, Schedule, chord, jump, schedule, solve
from toydiff.measure import first_orderness, modes
from toydiff.plots import static, style

torch.set_default_dtype(torch.float64)  # identities should hold to the last digits
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "figure.dpi": 90})
COLORS = dict(zip(SCHEDULES, style.PATH_COLORS, strict=False))

# %%
SEED = 0
rng = torch.Generator().manual_seed(SEED)
ring = toydiff.mixtures.ring()  # eight Gaussians on a circle
n = 4000
x0 = ring.sample(n, rng)
eps = torch.randn(n, 2, generator=rng)

# %% [markdown]
# ## 1 · Six schedules, one process
#
# What a schedule $(\alpha_t,\sigma_t)$ has reached at $t$ is a noise level,
#
# $$\lambda_t=\log\frac{\alpha_t}{\sigma_t},\qquad \mathrm{NSR}_t=\frac{\sigma_t}{\alpha_t}=e^{-\lambda_t}.$$
#
# | name | $\alpha_t$ | $\sigma_t$ |
# |---|---|---|
# | vp (score SDE) | $e^{-4.975\,t^2-0.05\,t}$ | $\sqrt{1-\alpha_t^2}$ |
# | cosine | $\cos\frac\pi2t$ | $\sin\frac\pi2t$ |
# | linear (flow matching) | $1-t$ | $t$ |
# | ve (EDM) | $1$ | $80\,t^7$ |
# | scaled-linear (SD) | $\sqrt{\prod_{k\le1000t}(1-\beta_k)}$, $\sqrt{\beta_k}$ linear in $k$ | $\sqrt{1-\alpha_t^2}$ |
# | linear-table | the same, $\beta_k$ linear in $k$ | $\sqrt{1-\alpha_t^2}$ |

# %% [markdown]
# **Predict before you run.** How well can the *best* denoiser guess $x_0$? We draw $E|x_0-\hat x_0(x_t)|^2$ for six
# schedules, against $t$ and against $\lambda$. How many curves will you see in each panel?

# %%
lams = torch.linspace(-2.5, 4.5, 57)
guess_error, times = {}, {}
for name in SCHEDULES:
    process = schedule(name)
    denoiser = ring.denoiser(process)
    times[name] = process.t_of_lam(lams)
    errors = [(denoiser(process.mix(x0, eps, t), t).x0 - x0).square().sum(1).mean() for t in times[name]]
    guess_error[name] = torch.stack(errors)

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), sharey=True, layout="constrained")
for k, name in enumerate(SCHEDULES):
    left.plot(times[name], guess_error[name], color=COLORS[name], lw=2, label=name)
    right.plot(lams, guess_error[name], color=COLORS[name], lw=11 - 1.8 * k)
left.set(xlabel=style.TIME_LABEL, ylabel="mean square error of $\\hat x_0$", title="in time: six curves")
right.set(xlabel="λ = log(α/σ)   (noise ← → data)", title="in λ: one curve (six, drawn on top of each other)")
left.legend()
plt.show()
together = torch.stack(list(guess_error.values()))
lambda_gap = float((together.amax(0) - together.amin(0)).max())
print(f"largest disagreement of the six schedules at equal lambda: {lambda_gap:.1e}")
half = torch.tensor(0.5)
assert torch.isclose(schedule("vp").alpha(half), torch.exp(-4.975 * half**2 - 0.05 * half))
assert torch.isclose(schedule("ve").sigma(half), 80 * half**7)
noisiest = {name: float(schedule(name).lam(torch.tensor(1.0))) for name in SCHEDULES}
print("lambda at t = 1: " + ", ".join(f"{name} {value:.1f}" for name, value in noisiest.items()))
assert all(value == -math.inf for name, value in noisiest.items() if name in ("cosine", "linear"))

# %% [markdown]
# **One curve.** $x_t/\alpha_t=x_0+\mathrm{NSR}_t\,\varepsilon$: dividing by $\alpha_t$ makes all schedules equal where
# their $\lambda$ are. So "which schedule is better?" has no answer for the process itself. A schedule matters for
# *where a solver puts its steps*, for *how a loss weights the noise levels*, and for *where it begins*: cosine and
# linear in pure noise ($\alpha_1=0$, $\lambda=-\infty$), the others at a finite $\lambda$, printed above. The curves
# are one where all of them go.

# %% [markdown]
# ## 2 · Every kind of prediction is a row $(a, b)$
#
# Whatever the network predicts, it is $y = a\,x_0 + b\,\varepsilon$. Beside the state it was shown, that is a 2 × 2
# system:
#
# $$\begin{pmatrix} a & b\\ \alpha_t & \sigma_t\end{pmatrix}\begin{pmatrix}\hat x_0\\ \hat\varepsilon\end{pmatrix}
# =\begin{pmatrix} y\\ x_t\end{pmatrix}.$$
#
# One solve replaces every conversion formula in the literature. The rows: x0 $(1,0)$; eps $(0,1)$; v
# $(-\sigma,\alpha)$; score $(0,-1/\sigma)$; velocity, $dx_t/dt$, $(\alpha',\sigma')$; preconditioned, EDM's network
# for data of variance 1, $(\sigma,-\alpha)/\sqrt{\alpha^2+\sigma^2}$. On the linear schedule at $t=0.3$:

# %%
linear, cosine = Linear(), Cosine()
t = torch.tensor(0.3)
print(f"{'kind':16s}{'a':>9s}{'b':>9s}")
for kind, row in KINDS.items():
    a, b = row(linear, t)
    print(f"{kind:16s}{float(a):9.3f}{float(b):9.3f}")

# %% [markdown]
# In the library a solved system is called a `Prediction`, the network's $\hat x_0$ and $\hat\varepsilon$ together. Read
# one prediction in each kind, forget the rest, and rebuild it from that kind alone:

# %%
round_trip = {}
for kind in KINDS:
    worst = 0.0
    for name in SCHEDULES:
        process = schedule(name)
        t = torch.tensor(0.7)
        x_t = process.mix(x0, eps, t)
        prediction = ring.denoiser(process)(x_t, t)
        y = prediction.read(kind)  # what a network of this kind would print
        again = Prediction.of(kind, y, x_t, t, process)  # what we learn from that print
        worst = max(worst, float((again.x0 - prediction.x0).abs().max()))
    round_trip[kind] = worst
    print(f"{kind:16s} worst error over {len(SCHEDULES)} schedules: {worst:.1e}")

# %% [markdown]
# **Then why do people argue about kinds?** Because networks make errors, and the system *amplifies* them. Push the
# output by 1 and see how far $\hat x_0$ moves. **Predict before you run:** which kinds blow up, and at which end?


# %%
def amplification(kind: str, process: Schedule, t: float) -> float:
    """|change of x0| for a change of 1 in the network's output: the system is linear, so the place does not matter."""
    x, y = torch.zeros(1, 1), torch.zeros(1, 1)
    moved = Prediction.of(kind, y + 1, x, t, process).x0 - Prediction.of(kind, y, x, t, process).x0
    return float(moved.abs())


ts = torch.linspace(0.02, 0.98, 97)
drawn_as = dict(zip(KINDS, zip(style.PATH_COLORS, ["-", "-", "-", ":", "--", "-."], strict=True), strict=True))
figure, axes = plt.subplots(figsize=(7, 3.8), layout="constrained")
for kind, (color, line) in drawn_as.items():
    axes.plot(ts, [amplification(kind, cosine, float(t)) for t in ts], line, color=color, lw=2.2, label=kind)
axes.set(yscale="log", xlabel=style.TIME_LABEL, ylabel="error of $\\hat x_0$ per unit of output error")
axes.set_title("cosine schedule: eps and score blow up towards pure noise")
axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()

# %% [markdown]
# `eps` multiplies errors by NSR, which has no bound where $\alpha\to0$. `v`, `velocity` and `preconditioned` stay
# bounded. (`v` and `preconditioned` differ here by a sign only, as $\alpha^2+\sigma^2=1$ and the data's assumed
# variance is 1.)
#
# **Break it: eps at pure noise.** At $t=1$ of the cosine schedule $\alpha=0$. The state *is* the noise, and says
# nothing about $x_0$. The system is singular, and the library says so:

# %%
pure_noise = torch.randn(4, 2, generator=rng)
try:
    Prediction.of("eps", pure_noise, pure_noise, 1.0, cosine)
    eps_refused = False
except ValueError as error:
    eps_refused = True
    print("ValueError:", error)

# %% [markdown]
# ## 3 · Flow matching is diffusion with another weight
#
# Flow matching (slides 24 and 25, Algorithm 1) regresses the velocity $v=\dot x=\alpha'x_0+\sigma'\varepsilon$ on the
# linear schedule. For *any* network, good or bad, all these losses are the same number up to a factor that depends on
# $t$ only:
#
# $$|\hat v-v|^2=(\sigma\lambda')^2\,|\hat\varepsilon-\varepsilon|^2=(\alpha\lambda')^2\,|\hat x_0-x_0|^2,\qquad
# \text{linear: } |\hat v-v|^2=\frac{|\hat\varepsilon-\varepsilon|^2}{(1-t)^2}=\frac{|\hat x_0-x_0|^2}{t^2}.$$
#
# We check it with a network that knows nothing: random outputs.


# %%
def lambda_rate(process: Schedule, t: torch.Tensor) -> torch.Tensor:
    """d lambda/dt = alpha'/alpha - sigma'/sigma."""
    alpha_rate, sigma_rate = process.rates(t)
    return alpha_rate / process.alpha(t) - sigma_rate / process.sigma(t)


weight_error = 0.0
for name in SCHEDULES:
    process = schedule(name)
    t = torch.rand(n, generator=rng) * 0.9 + 0.05  # one time a sample
    x_t = process.mix(x0, eps, t)
    nonsense = Prediction.of("x0", torch.randn(n, 2, generator=rng), x_t, t, process)
    truth = Prediction(x_t, t, x0, eps, process)

    loss = {k: (nonsense.read(k) - truth.read(k)).square().sum(1) for k in ("velocity", "eps", "x0")}
    slope = lambda_rate(process, t)
    from_eps = (process.sigma(t) * slope) ** 2 * loss["eps"]
    from_x0 = (process.alpha(t) * slope) ** 2 * loss["x0"]
    gap = max(float((side / loss["velocity"] - 1).abs().max()) for side in (from_eps, from_x0))
    weight_error = max(weight_error, gap)
    print(f"{name:15s} relative error of both identities: {gap:.1e}")

# %% [markdown]
# So slide 25 is right, and more: the *set* of losses is one set. What differs is the emphasis. Here is the weight that
# each loss puts on the error in $\hat\varepsilon$, on the linear schedule:

# %%
ts = torch.linspace(0.02, 0.98, 97)
emphasis = {
    "eps loss (DDPM): 1": (torch.ones_like(ts), style.BLUE),
    "x0 loss: NSR²": (linear.nsr(ts) ** 2, style.ORANGE),
    "velocity loss (flow matching): 1/(1−t)²": (1 / (1 - ts) ** 2, style.GREEN),
}
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
for label, (weight, color) in emphasis.items():
    axes.plot(ts, weight, color=color, lw=2.2, label=label)
axes.set(yscale="log", xlabel=style.TIME_LABEL, ylabel="weight of $|\\hat\\varepsilon-\\varepsilon|^2$")
axes.set_title("three losses, one error, three emphases")
axes.legend()
plt.show()

# %% [markdown]
# A weight that is positive everywhere cannot move the optimum of a network that is flexible enough: the best guess at
# each $(x_t, t)$ is the posterior mean. It does change on which errors a *real* network works.
#
# The likelihood of slide 2 is one more weight (section 4 derives it). Its term for a step $t\to s$ compares the true
# reverse step $q$, which knows $x_0$, with the model's $p_\theta$, the same Gaussian with $\hat x_0$ in its place. With
# $\mathrm{SNR}=\alpha^2/\sigma^2=\mathrm{NSR}^{-2}$:
#
# $$D_{\mathrm{KL}}\big(q(x_s|x_t,x_0)\,\|\,p_\theta(x_s|x_t)\big)
# =\tfrac12\big(\mathrm{SNR}_s-\mathrm{SNR}_t\big)|\hat x_0-x_0|^2 .$$


# %%
def posterior(process: Schedule, x_t, x0, t: float, s: float):
    """Mean and variance of q(x_s | x_t, x_0) (arXiv 2006.11239, eq. 6 and 7)."""
    t, s = torch.tensor(t), torch.tensor(s)
    alpha_ts = process.alpha(t) / process.alpha(s)
    var_ts = process.sigma(t) ** 2 - (alpha_ts * process.sigma(s)) ** 2
    to_x, to_x0 = alpha_ts * process.sigma(s) ** 2, process.alpha(s) * var_ts
    return (to_x * x_t + to_x0 * x0) / process.sigma(t) ** 2, var_ts * (process.sigma(s) / process.sigma(t)) ** 2


guess = x0 + 0.3 * torch.randn(n, 2, generator=rng)
x_t = cosine.mix(x0, eps, 0.6)
true_mean, variance = posterior(cosine, x_t, x0, 0.6, 0.55)
model_mean, _ = posterior(cosine, x_t, guess, 0.6, 0.55)
kl = (true_mean - model_mean).square().sum(1) / (2 * variance)
snr = torch.exp(2 * cosine.lam(torch.tensor([0.55, 0.6])))
kl_error = float((kl / (0.5 * (snr[0] - snr[1]) * (guess - x0).square().sum(1)) - 1).abs().max())
print(f"relative error of the KL identity: {kl_error:.1e}")

# %% [markdown]
# **Break it: the deck's two velocity signs.** Slide 22 lets time run from noise to data, so $dX=(X_1-X_0)\,dt$.
# Algorithm 1 of slide 24 lets $t=1$ be noise, as we do, but keeps that target: $v_\text{deck}=x_0-\varepsilon=-\dot x$.
# Both are fine, if the sampler knows:
#
# | target | a step towards data |
# |---|---|
# | $v=\varepsilon-x_0$ | $x_{t-\Delta}=x_t-\Delta\,v$ |
# | $v_\text{deck}=x_0-\varepsilon$ | $x_{t-\Delta}=x_t+\Delta\,v_\text{deck}$ |
#
# Train with one row and sample with the other:

# %%
flow = ring.denoiser(linear)
noise = torch.randn(1500, 2, generator=rng)
N = 40


def walk(sign: int) -> torch.Tensor:
    """N Euler steps from noise with the deck's velocity; sign +1 is right for it."""
    x = noise
    for i in range(N):
        v_deck = -flow(x, 1 - i / N).read("velocity")
        x = x + sign * v_deck / N
    return x


ends = {"right sign: $x + \\Delta\\, v_{deck}$": walk(+1), "wrong sign: $x - \\Delta\\, v_{deck}$": walk(-1)}
frame = style.density(
    ring, [torch.tensor([[-4.5, -4.5], [4.5, 4.5]])]
)  # the same for both; some wrong ones lie outside
figure = static.samples(ends, frame)
figure.set_dpi(75)
display(figure)
lost_right, lost_wrong = (modes(ring, x).outside for x in ends.values())
print(f"fraction of the samples at none of the eight modes: right sign {lost_right:.3f}, wrong sign {lost_wrong:.3f}")

# %% [markdown]
# With the wrong sign every mode *repels*.
#
# ## 4 · Slide 2: the chain, and its likelihood
#
# Slide 2 writes $q(x_t|x_{t-1})=\mathcal N(\sqrt{\alpha_t}\,x_{t-1},(1-\alpha_t)I)$. That $\alpha$ belongs to *one
# step*, ours to the *whole way* from the data:
#
# $$\alpha^{\text{ours}}_t=\sqrt{\bar\alpha_k}=\sqrt{\prod_{j\le k}\alpha^{\text{deck}}_j}.$$
#
# We run the deck's chain, literally, on two spikes, and compare with our one-line marginal, and with the mix-up.

# %%
spikes = toydiff.GaussianMixture([[-1.0], [1.5]], std=0.15, weights=[0.4, 0.6])
ddpm = toydiff.Tabulated.linear(1e-4, 0.02)  # DDPM's own table: 1000 betas
deck_alpha = 1 - torch.linspace(1e-4, 0.02, 1000)
k = 300
m = 40000

x = spikes.sample(m, rng)
for a in deck_alpha[:k]:
    x = a.sqrt() * x + (1 - a).sqrt() * torch.randn(m, 1, generator=rng)

ours = spikes.marginal(ddpm, k / 1000)
a = deck_alpha[k - 1]  # the mix-up: the step's alpha_k used as if it were the whole way's alpha-bar_k
mixed_up = toydiff.GaussianMixture(
    a.sqrt() * spikes.means, std=(a * 0.15**2 + 1 - a).sqrt(), weights=spikes.weights.tolist()
)

line = torch.linspace(-3.5, 3.5, 400)[:, None]
figure, axes = plt.subplots(figsize=(7.5, 3.6), layout="constrained")
axes.hist(x[:, 0], bins=90, density=True, color=style.CONTEXT_COLOR, label=f"deck's chain, {k} steps")
axes.plot(line, ours.log_prob(line).exp(), color=style.BLUE, lw=2.2, label="ours: $\\alpha_t=\\sqrt{\\bar\\alpha_k}$")
axes.plot(
    line, mixed_up.log_prob(line).exp(), color=style.VERMILLION, ls="--", lw=1.6, label="mix-up: step's $\\alpha_k$"
)
axes.set(xlabel="$x$", ylabel="density", title=f"step {k} of 1000: the mix-up has hardly added noise", xlim=(-3.5, 3.5))
axes.set_yticks([])
axes.legend()
plt.show()
marginal_std = ours.std
mixup_std = mixed_up.std
table_gap = abs(float(ddpm.alpha(torch.tensor(k / 1000))) - float(deck_alpha[:k].prod().sqrt()))
noise_right = math.sqrt(1 - float(deck_alpha[:k].prod()))
noise_mixed = math.sqrt(1 - float(a))
print(f"alpha by the two routes differs by {table_gap:.1e}")
print(f"noise level sigma after {k} steps: {noise_right:.3f}; with the mix-up: {noise_mixed:.3f}")
print(f"std of x_t: chain {float(x.std()):.3f}, ours {marginal_std:.3f}, mix-up {mixup_std:.3f}")

# %% [markdown]
# **The reverse step, by Bayes' rule** (slide 2, read for $x_{t-1}$, our $x_s$; the forward step is Markov):
#
# $$q(x_s|x_t,x_0)=\frac{q(x_t|x_s)\,q(x_s|x_0)}{q(x_t|x_0)} .$$
#
# (As printed, the slide solves the same identity for $q(x_t|x_{t-1},x_0)$.) Three known Gaussians on the right, one
# closed form on the left:


# %%
def normal(x, mean, var):
    """The density of N(mean, var) at x."""
    return torch.exp(-((x - mean) ** 2) / (2 * var)) / torch.sqrt(2 * math.pi * torch.as_tensor(var))


s_, t_ = torch.tensor(0.30), torch.tensor(0.36)
clean, noisy = torch.tensor(0.8), torch.tensor(0.1)
x_s = torch.linspace(-1, 1.5, 301)
alpha_ts = ddpm.alpha(t_) / ddpm.alpha(s_)
forward = normal(noisy, alpha_ts * x_s, ddpm.sigma(t_) ** 2 - (alpha_ts * ddpm.sigma(s_)) ** 2)
bayes = (
    forward
    * normal(x_s, ddpm.alpha(s_) * clean, ddpm.sigma(s_) ** 2)
    / normal(noisy, ddpm.alpha(t_) * clean, ddpm.sigma(t_) ** 2)
)
mean, variance = posterior(ddpm, noisy, clean, 0.36, 0.30)
bayes_error = float((bayes - normal(x_s, mean, variance)).abs().max() / bayes.max())
print(f"largest difference of the two sides, relative to the peak: {bayes_error:.1e}")

# %% [markdown]
# **From likelihood to a sum of KLs.** By Jensen's inequality
#
# $$-\log p_\theta(x_0)\le\mathbb E_q\Big[-\log p(x_T)-\sum_k\log\frac{p_\theta(x_{k-1}|x_k)}{q(x_k|x_{k-1})}\Big]$$
# $$=D_{\mathrm{KL}}\big(q(x_T|x_0)\|p(x_T)\big)+\sum_{k\ge2}\mathbb E\,D_{\mathrm{KL}}\big(q(x_{k-1}|x_k,x_0)\|
# p_\theta(x_{k-1}|x_k)\big)-\mathbb E\log p_\theta(x_0|x_1).$$
#
# Second line: replace $q(x_k|x_{k-1})$ by Bayes' rule; the marginals $q(x_k|x_0)$ telescope. Slide 2 keeps the sum: all
# that a network has a say in. **Predict before you run:** is the bound tight for the best denoiser?

# %%
draws = spikes.sample(4000, rng)
best_guess = spikes.denoiser(ddpm)
exact_nll = -float(spikes.log_prob(draws).mean())


def elbo(guess_of, N):
    """The bound with N steps, each KL by section 3's formula; guess_of(x_t, t) is the model's x_0."""
    ts = ddpm.t_of_lam(torch.linspace(*ddpm.lam(torch.tensor([1.0, 1e-3])).tolist(), N + 1))  # equal steps of lambda
    alpha, sigma = ddpm.alpha(ts), ddpm.sigma(ts)
    snr = (alpha / sigma) ** 2
    prior = 0.5 * (alpha[0] ** 2 * draws**2 + sigma[0] ** 2 - 1).mean() - sigma[0].log()
    kls = 0.0
    for k in range(N):
        x = alpha[k] * draws + sigma[k] * torch.randn(draws.shape, generator=rng)
        kls += 0.5 * (snr[k + 1] - snr[k]) * (draws - guess_of(x, ts[k])).square().mean()
    last = 0.5 * torch.log(2 * math.pi * math.e / snr[-1])  # p(x_0 | x_1) = N(x_1/alpha_1, NSR_1^2)
    return float(prior + kls + last)


bounds = {N: elbo(lambda x, t: best_guess(x, t).x0, N) for N in (10, 30, 100, 300, 1000)}
blind = elbo(lambda x, t: spikes.mean.expand_as(x), 1000)
print(f"-log p: exact {exact_nll:.3f}; bound " + ", ".join(f"{value:.3f} ({N} steps)" for N, value in bounds.items()))
print(f"control, a model that always says the mean: {blind:.0f}")
assert list(bounds.values()) == sorted(bounds.values(), reverse=True)
assert exact_nll < bounds[1000] < exact_nll + 0.1 < blind

# %% [markdown]
# For the *best* denoiser the bound comes down to the exact value as steps get finer: in this limit minimising it is
# maximum likelihood.
#
# ## 5 · Two verbs: jump and chord
#
# **Jump**: hold $(\hat x_0,\hat\varepsilon)$ fixed and move to another time, $x_s=\alpha_s\hat
# x_0+\sigma_s\hat\varepsilon$. It is the DDIM step, DPM-Solver-1, the Euler step of a flow, and (for $s=0$) a
# consistency function.
#
# **Chord**: the one prediction that lies on two given states. In $z=x/\alpha$ it is
# $\varepsilon=\Delta z/\Delta\mathrm{NSR}$ (slide 28).

# %%
x_t = linear.mix(x0, eps, 0.8)
prediction = flow(x_t, 0.8)
x_s = jump(prediction, 0.5)

euler = x_t + (0.5 - 0.8) * prediction.read("velocity")  # an Euler step of the flow
back = chord(linear, x_t, 0.8, x_s, 0.5)
z_t, z_s = x_t / linear.alpha(torch.tensor(0.8)), x_s / linear.alpha(torch.tensor(0.5))
slope = (z_s - z_t) / (linear.nsr(torch.tensor(0.5)) - linear.nsr(torch.tensor(0.8)))

jump_error = float((x_s - euler).abs().max())
chord_error = max(float((back.eps - prediction.eps).abs().max()), float((slope - prediction.eps).abs().max()))
print(f"jump - Euler on the flow: {jump_error:.1e};  chord undoes jump, and is slide 28's slope: {chord_error:.1e}")

# %% [markdown]
# A jump is exact precisely when the prediction *stays constant* along the path. Slide 27 gives the picture: scale the
# path to
#
# $$y_t=\frac{x_t}{\sigma_t}=\frac{\alpha_t}{\sigma_t}x_0+\varepsilon,$$
#
# and such a path is a straight line in $\alpha/\sigma$, even where $x_t$ itself is curved. With a single data point it
# is. With eight modes the path bends while it decides where to go: look at the right column, where dashed is straight.

# %%
place = torch.tensor([[1.4, 1.4]])
worlds = {
    "one data point": (
        toydiff.Empirical(place).denoiser(cosine),
        toydiff.GaussianMixture(place, std=0.08),
    ),
    "ring of eight": (ring.denoiser(cosine), ring),
}
starts = torch.randn(64, 2, generator=torch.Generator().manual_seed(SEED + 5))
paths, backgrounds, variation = {}, {}, {}
for name, (D, background) in worlds.items():
    path = solve(D, starts, 300)
    variation[name] = first_orderness(path, cosine, kind="x0", normalised=True)
    path.xs, path.x0s = path.xs[:, :6], path.x0s[:, :6]  # six are enough to look at
    paths[name], backgrounds[name] = path, background
figure = static.rescaled(
    paths,
    cosine,
    backgrounds,
    title="Right: one data point gives straight lines after scaling, eight modes give bent ones",
)
figure.set_dpi(80)
display(figure)
for name, value in variation.items():
    print(f"{name}: {100 * value:.1f} % of the mean square of the predicted x0 is change along the path")

# %% [markdown]
# That bend is what costs steps. The rest of the course either follows it with better solvers, or trains it away.
#
# ## What the deck says / what we measured

# %%
identities = [lambda_gap, *round_trip.values(), weight_error, kl_error, table_gap, bayes_error, jump_error, chord_error]
key = {
    "identities_to_1e-10": float(max(identities) < 1e-10),
    "eps_refused": float(eps_refused),
    "lost_wrong_sign": lost_wrong,
    "marginal_std": marginal_std,
    "mixup_std": mixup_std,
    "sigma_right": noise_right,
    "sigma_mixup": noise_mixed,
    "x0_variation_point": round(variation["one data point"], 12),
    "x0_variation_ring": variation["ring of eight"],
    "bound with 1000 steps": bounds[1000],
}
assert key["identities_to_1e-10"] == 1
box = f"""
| The deck says | Slide | We measured |
|---|---|---|
| One process behind all names | 23 | Six schedules, error of the best guess at equal λ: differ by {lambda_gap:.0e} |
| (kinds are interchangeable) | 23 | Worst round trip through {len(KINDS)} kinds × {len(SCHEDULES)} schedules: \
{max(round_trip.values()):.0e} |
| Flow matching training is a subset of diffusion training | 25 | True: its loss is the eps loss times 1/(1−t)², to \
{weight_error:.0e}, for any network |
| MLE is a sum of KLs | 2 | Each is ½ΔSNR · squared error of x̂₀, to {kl_error:.0e}; with the best denoiser the bound \
is {bounds[10] - exact_nll:.2f} above −log p with 10 steps, {bounds[1000] - exact_nll:.3f} with 1000 |
| Target x₀ − ε in Alg. 1 | 24 | Fine, if the sampler adds it; with the wrong sign {100 * lost_wrong:.0f} % of the \
samples end at no mode, else {100 * lost_right:.1f} % |
| q(xₜ given xₜ₋₁) with its α_t | 2 | A per-step α: used as ours, σ at step {k} is {noise_mixed:.2f} instead of \
{noise_right:.2f} |
| Bayes form of the reverse step | 2 | Right, to {bayes_error:.0e} |
| ε = Δz/ΔNSR | 28 | Right, to {chord_error:.0e} |
| First-order paths are straight after scaling | 27 | One data point: {variation["one data point"]:.0e} of x̂₀ varies; \
ring of eight: {variation["ring of eight"]:.2f} |
"""
display(Markdown(box))

# %% [markdown]
# ## You can now
#
# * read any paper's schedule and kind as $(\alpha,\sigma)$ and a row $(a,b)$, and convert between them with one solve;
# * say what a schedule changes, and what it cannot;
# * derive the sum of KLs of slide 2, and its weight;
# * spot a wrong velocity sign and a per-step $\alpha$.
#
# Next: where the ODE comes from (02).

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** Progressive distillation's network says $v=\alpha\varepsilon-\sigma x_0$. Return
# $(\hat x_0,\hat\varepsilon)$, for any $\alpha,\sigma$ (they need not satisfy $\alpha^2+\sigma^2=1$).


# %%
def solve_v(x, v, alpha, sigma):
    """x, v (B, 2); alpha, sigma: numbers. x_0 and eps, each (B, 2)."""
    raise NotImplementedError


# %%
try:
    x, v = torch.randn(5, 2, generator=rng), torch.randn(5, 2, generator=rng)
    for process in (cosine, linear):
        target, t = Prediction.of("v", v, x, 0.4, process), torch.tensor(0.4)
        mine = solve_v(x, v, process.alpha(t), process.sigma(t))
        assert torch.allclose(mine[0], target.x0), f"not yet on {process}: check x_0"
        assert torch.allclose(mine[1], target.eps), f"not yet on {process}: check eps"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** You downloaded a flow model trained with the deck's Algorithm 1: it says
# $v_\text{deck}=x_0-\varepsilon$ at $x_t=(1-t)x_0+t\varepsilon$. Your sampler wants $\hat\varepsilon$, and the wrong
# sign scatters its samples. Write the conversion.


# %%
def eps_of_deck(x, v_deck, t):
    """x, v_deck (B, 2); t: a number. eps, (B, 2)."""
    raise NotImplementedError


# %%
try:
    mine = eps_of_deck(0.3 * x0 + 0.7 * eps, x0 - eps, 0.7)
    assert torch.allclose(mine, eps), "not yet: x_0 = v_deck + eps; put that into x_t"
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** (a) How many times more does the flow matching loss weigh an error of $\hat\varepsilon$ at $t=0.8$ than
# at $t=0.2$? (b) A colleague finds that the cosine schedule "beats" the linear one with the same network and 10 DDIM
# steps. Name two reasons that have nothing to do with the process. (c) Even for the best denoiser the bound
# of section 4 is loose with 10 steps. What is lost?

# %% [markdown]
# ## References
#
# * Ho, Jain, Abbeel, *DDPM*, arXiv 2006.11239: the chain and its posterior, eq. 2, 4, 6, 7.
# * Song et al., *Score SDE*, arXiv 2011.13456: VP and VE, eq. 9, 11.
# * Kingma et al., *Variational Diffusion Models*, arXiv 2107.00630: the schedule does not matter for the process, eq.
#   17, 18.
# * Salimans and Ho, *Progressive Distillation*, arXiv 2202.00512: the kind `v`, sec. 4.
# * Karras et al., *EDM*, arXiv 2206.00364: preconditioning, eq. 7.
# * Lipman et al., *Flow Matching*, arXiv 2210.02747: the velocity regression, eq. 9.
# * Liu et al., *Rectified Flow*, arXiv 2209.03003: the linear path, eq. 1.
# * Wang et al., *Rectified Diffusion*, arXiv 2410.07303: first-order ODEs and $\Delta z/\Delta\mathrm{NSR}$, sec. 3.
