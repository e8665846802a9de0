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
# # 16 · Discrete flow matching: the 1/(2N) of two bits
#
# The deck's reference 7 is the other half of "flow" (slide 25): a state is a string of tokens, and a sampler jumps.
# *How few steps?* has an answer here that can be counted.
#
# **In this lesson (20 minutes)** you find the error of N steps by hand, sample bits in plain PyTorch, break the
# sampler, train a posterior, and see what no distillation repairs. You need lesson 00.

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
from toydiff.discrete.jumps import ExactJumps
from toydiff.discrete.laws import propagate, source_law, strings, total_variation
from toydiff.distill.discrete_flow_matching import cross_entropy_loss
from toydiff.plots import static, style
from toydiff.plots.tokens import cells
from toydiff.problems import problem
from toydiff.studies.tokens import mismatches
from toydiff.training import Draws

# %%
SEED = 0

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}  # numbers for the tables below

# %%
rows = mismatches(samplers=["jump-exact"])  # exact laws, no samples
calls, differ = [row["nfe"] for row in rows], [row["mismatch"] for row in rows]
figure, axis = plt.subplots(figsize=(8, 4.4), layout="constrained")
axis.plot(calls, [1 / (2 * N) for N in calls], color=style.FLOOR_COLOR, lw=6, alpha=0.5, label="1/(2N)")
axis.plot(calls, differ, "o", color=style.BLUE, ms=8, label="the sampler jump-exact: N steps of one evaluation")
axis.set(xscale="log", yscale="log", xlabel="N (evaluations)", ylabel="probability that the two bits differ")
axis.set_title("The data: two bits, always equal. The price of drawing both at once: exactly 1/(2N)")
axis.set_xticks(calls, calls)
axis.minorticks_off()
axis.set_yticks([1 / 2, 1 / 8, 1 / 32, 1 / 128], ["1/2", "1/8", "1/32", "1/128"])
axis.grid(True, which="major", color="#EEEEEE")
axis.legend()
plt.show()
assert all(abs(p - 1 / (2 * N)) < 1e-12 for N, p in zip(calls, differ, strict=True))

# %% [markdown]
# **The data are 00 and 11. After N steps the two bits differ with probability exactly 1/(2N).** No network and no
# sampling noise: the posterior is exact, and the law of every step is multiplied out. What is left is the price of
# drawing two things at once.

# %% [markdown]
# ## 1 · The path
#
# The source is a third symbol, the *mask*. At time $t$ each position by itself holds its data token with probability
# $\kappa_t$, else the mask:
#
# $$p_t(x^i\,|\,x_1^i)=\kappa_t\,\delta(x^i,x_1^i)+(1-\kappa_t)\,\delta(x^i,\mathrm{mask}),\qquad\kappa_t=1-t.$$
#
# As everywhere here $t=1$ is noise. The paper's time is $1-t$, and its $x_1$ is data; we keep its $x_1$.

# %%
MASK = 2
rng = torch.Generator().manual_seed(SEED)
x1 = torch.randint(2, (36, 1), generator=rng).repeat(1, 2)
u = torch.rand(36, 2, generator=rng)
figure, axes = plt.subplots(4, 1, figsize=(9, 3.4), layout="constrained")
for axis, t in zip(axes, (1.0, 0.6, 0.3, 0.0), strict=True):
    axis.imshow(cells(torch.where(u < 1 - t, x1, MASK), 2).rgb.swapaxes(0, 1))  # a column a string
    axis.set(xticks=[], yticks=[0, 1], yticklabels=["first bit", "second"])
    axis.set_title(f"t = {t:g}", loc="left")
axes[-1].set_xlabel("36 strings: 0 dark, 1 bright, mask grey")
plt.show()

# %% [markdown]
# ## 2 · One step, in four lines
#
# The model is the *posterior* of each position, $p(x_1^i\,|\,x_t)$. For two equal bits it is known: if the other bit is
# revealed, it is that bit; if both are masked, it is 1/2. A masked position at $t$ is of data at $s<t$ with
# probability $q=(\kappa_s-\kappa_t)/(1-\kappa_t)=(t-s)/t$.

# %% [markdown]
# The algorithm's box, and its lines in the code:
#
# ```
# 1  p = p(x_1^i | x_t)
# 2  q = (t - s)/t
# 3  x_s^i ~ p with probability q, else x_t^i stays
# 4  the last step, s = 0, has q = 1
# ```


# %%
def exact_posterior(x):
    """p(x_1^i | x_t) of two equal bits: x (B, 2) gives (B, 2, 3). A revealed position keeps its token."""
    other = x.flip(1)
    guess = torch.where((other == MASK)[..., None], torch.tensor([0.5, 0.5, 0.0]), torch.eye(3)[other])
    return torch.where((x == MASK)[..., None], guess, torch.eye(3)[x])


def jump_probability(t, s):
    return (t - s) / t  # 1 at s = 0


def step_law(p, x, t, s, jump=jump_probability):
    """The law of each position at s, (B, 2, 3)."""
    q = jump(t, s) if s > 0 else 1.0  # 2, 4
    return q * p + (1 - q) * torch.eye(3)[x]  # 3


def walk(posterior, n, N, rng, jump=jump_probability):
    x = torch.full((n, 2), MASK)
    times = [1 - k / N for k in range(N + 1)]
    for t, s in itertools.pairwise(times):
        law = step_law(posterior(x), x, t, s, jump)  # 1
        x = torch.multinomial(law.reshape(-1, 3), 1, generator=rng).view(n, 2)
    return x


# %% [markdown]
# The same step in the library: the law of each position must be the same numbers, for all seven strings that can occur
# (01 and 10 cannot).

# %%
path = td.discrete.TokenPath(2)
table = td.discrete.TablePosterior(path, torch.tensor([[0, 0], [1, 1]]), torch.ones(2))
every = strings(3, 2)
possible = every[(every.max(1).values == MASK) | (every[:, 0] == every[:, 1])]  # 01 and 10 are no states of the path
t, s = torch.tensor(0.7), torch.tensor(0.4)
library = ExactJumps().stage(path, t, s, [possible], [table(possible, t)])
assert torch.allclose(step_law(exact_posterior(possible), possible, 0.7, 0.4), library.float(), atol=1e-6)
print(f"{len(possible)} strings, one step from t = 0.7 to 0.4: the same laws")

# %% [markdown]
# **Predict before you run.** With one step, both bits are drawn at once. How often do they differ? With two steps?
# Find the rule for N: in which step is a position revealed, with which probability? When is the second bit wrong?

# %%
counts, n = (1, 2, 4, 8, 16, 32), 20_000
found = []
for N in counts:
    ends = walk(exact_posterior, n, N, torch.Generator().manual_seed(SEED + N))
    found.append(float((ends[:, 0] != ends[:, 1]).float().mean()))
    p = 1 / (2 * N)
    assert abs(found[-1] - p) < 4 * math.sqrt(p * (1 - p) / n), (N, found[-1])
    assert int(ends.max()) < MASK, "the mask is never output"
assert mismatches((2,), samplers=["maskgit"])[0]["mismatch"] < 1e-12

figure, axis = plt.subplots(figsize=(7, 4.2), layout="constrained")
axis.plot(counts, [1 / (2 * N) for N in counts], color=style.FLOOR_COLOR, ls="--", lw=3, label="1/(2N)")
errors = [2 * math.sqrt(p * (1 - p) / n) for p in found]
axis.errorbar(counts, found, errors, color=style.BLUE, fmt="o", capsize=4, label="walks, 2 standard errors")
axis.set(xscale="log", yscale="log", xlabel="N (steps)", ylabel="share whose two bits differ")
axis.set_title(f"{n:,} walks of the four lines above")
axis.set_xticks(counts, counts)
axis.minorticks_off()
axis.legend()
plt.show()

# %% [markdown]
# A position is masked at t with probability t, and then revealed with $q=(t-s)/t$: in each step with probability
# $t-s=1/N$. The two jump independently, so both in the *same* step with probability $N\cdot(1/N)^2=1/N$: neither sees
# the other, and in half of the cases they differ. Else the second sees the first, and is right:
# $\tfrac1N\cdot\tfrac12$.

# %% [markdown]
# One position alone is exact in one step. All error of few steps is in what tokens know of each other.
#
# Three samplers by name: `jump-exact` is the box above. `maskgit` reveals a fixed number of positions a step, those
# that the network is surest of: with one bit a step it is exact here. `tau-midpoint` jumps half of a step, asks again,
# and goes on with rates corrected by both answers.

# %% [markdown]
# ## 3 · Break it
#
# A tempting mistake: take $q=t-s$, "a step's share of the time", in place of $(t-s)/t$. The last line of the box still
# reveals what is left, so every output is a string of bits and looks fine.
#
# **Predict before you run.** With ever more steps, how much is left for the last one, and where does the mismatch end?


# %%
def wrong_jump(t, s):
    return t - s


def of_increments(q):
    """Half the sum of squares: both in one step, and then different."""
    return sum(p * p for p in q) / 2


broken, predicted = [], []
for N in counts:
    ends = walk(exact_posterior, n, N, torch.Generator().manual_seed(SEED + N), jump=wrong_jump)
    broken.append(float((ends[:, 0] != ends[:, 1]).float().mean()))
    left = [(1 - 1 / N) ** k for k in range(N)]  # masked after k steps
    predicted.append(of_increments([left[k] / N for k in range(N - 1)] + [left[-1]]))
    assert abs(broken[-1] - predicted[-1]) < 4 * math.sqrt(predicted[-1] * (1 - predicted[-1]) / n)
limit = math.exp(-2) / 2
key["mismatch of the wrong rule, 32 steps"] = predicted[-1]
print(" N   1/(2N)   wrong rule (walks)   (predicted)")
for N, walked, p in zip(counts, broken, predicted, strict=True):
    print(f"{N:2d}   {1 / (2 * N):.4f}   {walked:.4f}               {p:.4f}")
print(f"for N to infinity 1/(2 e^2) = {limit:.4f}")
assert predicted[-1] > 4 / (2 * counts[-1]), "the control bites: more steps do not help"

# %% [markdown]
# A share of $1/e$ of the positions waits for the last step, which draws them all at once. More steps do not help: when
# the error stalls, the rate is wrong, or the posterior, and not the number of steps. (The rate is the probability of a
# jump per unit of time; here $1/t$, which grows towards data.)

# %% [markdown]
# ## 4 · Train the posterior
#
# ```
# 1  x_1 ~ data,  t ~ U(0, 1)
# 2  x_t^i = x_1^i with probability kappa_t, else the mask
# 3  p^i = p_theta(x_1^i | x_t)
# 4  loss = -log p^i(x_1^i), where x_t^i is masked
# ```
#
# The network sees no time: with the mask, what is revealed is data and the rest says nothing, so the posterior does not
# depend on $t$.


# %%
class Net(torch.nn.Module):
    """x (B, 2) of three symbols gives logits (B, 2, 2). t is not used."""

    def __init__(self, hidden=32):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(6, hidden), torch.nn.SiLU(), torch.nn.Linear(hidden, 4))

    def forward(self, x, t=None):
        return self.layers(torch.eye(3)[x].flatten(1)).view(-1, 2, 2)


def masked_loss(net, x1, t, u):
    x_t = torch.where(u < 1 - t[:, None], x1, MASK)  # 2
    log_p = torch.log_softmax(net(x_t), 2)  # 3
    each = -log_p.gather(2, x1[..., None])[..., 0]  # 4
    return (each * (x_t == MASK)).mean()  # 4


def train(draw_data, updates=600, batch=256, lr=1e-2):
    torch.manual_seed(SEED)
    net, losses = Net(), []
    optimizer = torch.optim.Adam(net.parameters(), lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, updates)
    for _ in range(updates):
        loss = masked_loss(net, draw_data(batch), torch.rand(batch), torch.rand(batch, 2))  # 1
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return net, losses


def equal_bits(n):
    return torch.randint(2, (n, 1)).repeat(1, 2)


net, losses = train(equal_bits)

# %% [markdown]
# Is this the library's loss? With the same draws the two must be the same number.

# %%
student, some = td.discrete.NetPosterior(net, path, 2), equal_bits(4096)
with torch.no_grad():
    library = float(cross_entropy_loss(student, some, Draws(SEED)))
    draws = Draws(SEED)
    ours = float(masked_loss(net, some, draws.uniform(len(some), 1e-3, 1.0), draws.uniform(len(some), shape=(2,))))
assert abs(ours - library) < 1e-6, (ours, library)
print(f"ours {ours:.6f}, library {library:.6f}")

# %% [markdown]
# **Predict before you run.** Can the loss reach zero? And a control: we train on bits of *different* strings, each as
# often 0 as 1, so that every position alone looks the same. What does its loss end at, and what do its samples do with
# more steps?


# %%
def shuffled_bits(n):
    """The second bit is another string's."""
    return torch.stack([equal_bits(n)[:, 0], equal_bits(n)[:, 0]], 1)


control, control_losses = train(shuffled_bits)
least, least_control = math.log(2) / 3, math.log(2) / 2


def posterior_of(net):
    """As `exact_posterior`, of a network."""

    @torch.no_grad()
    def posterior(x):
        p = torch.nn.functional.pad(torch.softmax(net(x), 2), (0, 1))
        return torch.where((x == MASK)[..., None], p, torch.eye(3)[x])

    return posterior


def mismatch_of(net, N):
    """Exactly, by propagating the law."""
    ts = torch.linspace(1, 0, N + 1, dtype=torch.float64)
    law = propagate(ExactJumps(), td.discrete.NetPosterior(net, path, 2), source_law(path, 2), ts)
    return float(law[every[:, 0] != every[:, 1]].sum())


with torch.no_grad():
    trained, unpaired = ([mismatch_of(f, N) for N in counts] for f in (net, control))
    off = float((posterior_of(net)(possible) - exact_posterior(possible)).abs().max())
print(f"largest error of the trained posterior: {off:.4f}")

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for values, bound, color, name in (
    (losses, least, style.BLUE, "equal bits"),
    (control_losses, least_control, style.ORANGE, "control: shuffled"),
):
    smooth = torch.tensor(values).unfold(0, 20, 10).mean(1)
    left.plot(range(20, len(values) + 1, 10), smooth, color=color, lw=2, label=name)
    left.axhline(bound, color=color, ls="--", lw=1)
left.set(xlabel="updates", ylabel="cross-entropy (mean of 20)", ylim=(0, 0.45), title="Dashed: the least possible")
left.legend()
right.plot(counts, [1 / (2 * N) for N in counts], color=style.FLOOR_COLOR, ls="--", lw=3, label="1/(2N)")
right.plot(counts, trained, "o-", color=style.BLUE, label="trained on equal bits")
right.plot(counts, unpaired, "s-", color=style.ORANGE, label="control: shuffled")
right.set(xscale="log", yscale="log", xlabel="N (steps)", ylabel="probability that the bits differ")
right.set_xticks(counts, counts)
right.minorticks_off()
right.legend()
plt.show()
assert off < 0.03
assert abs(trained[0] - 0.5) < 0.01
assert abs(trained[-1] - 1 / 64) < 0.01
assert min(unpaired) > 0.45, "the control bites: no number of steps makes dependent what the posterior does not know"

# %% [markdown]
# The least loss is $\ln2\cdot P(\text{both masked})=\ln2\int_0^1t^2\,dt=\ln2/3$: a bit whose partner is masked cannot
# be known. The control's is $\ln2/2$, every masked bit. In one step its samples are as good as ours; only more steps
# tell the two apart. **One step sees the marginals alone.**

# %% [markdown]
# ## 5 · What no product repairs, and what does
#
# Distillation into one step means: find a better product $p(x^1)\,p(x^2)$. For all products of two bits, with
# probabilities $a$ and $b$ of a 1, the total variation to the law of 00 and 11:

# %%
a, b = torch.meshgrid(*[torch.linspace(0, 1, 401, dtype=torch.float64)] * 2, indexing="xy")
product = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b])
target = torch.tensor([0.5, 0.0, 0.0, 0.5], dtype=torch.float64)[:, None, None]
distance = (product - target).abs().sum(0) / 2
best = float(distance.min())
figure, axis = plt.subplots(figsize=(5.6, 4.4), layout="constrained")
image = axis.pcolormesh(a, b, distance, cmap="viridis", shading="nearest", rasterized=True)
axis.plot(0.5, 0.5, "o", color="white", mec=style.INK, ms=8)
axis.annotate("the posterior's own", (0.5, 0.5), (0.53, 0.44), color="white")
least_at = float(a[0][distance.diagonal().argmin()])  # on the diagonal: the figure is symmetric
axis.plot([least_at, 1 - least_at], [least_at, 1 - least_at], "D", color=style.ORANGE, mec=style.INK, ms=8)
axis.set(xlabel="a, probability that the first bit is 1", ylabel="b, of the second", aspect="equal")
axis.set_title(f"Products of two bits: the least is {best:.3f} (orange)")
figure.colorbar(image, label="total variation")
plt.show()
key["least total variation of a product"] = best
assert abs(best - (math.sqrt(2) - 1)) < 1e-3

# %% [markdown]
# No product is nearer than $\sqrt2-1$, and the two at that distance give up the marginals. One product alone has the
# right marginals, the teacher's own (white, $a=b=\tfrac12$), and its distance is $\tfrac12$. *Di4C* changes the form: a
# mixture of K products, whose index is drawn anew in each step. Two products hold two equal bits exactly: one says 00,
# the other 11. It learns by cross-entropy from whole strings that the teacher made in many steps:
# $-\log\frac1K\sum_k\prod_i p_k(x^i\mid x_t)$.

# %%
changes = {"latents": 2, "walk": 8, "updates": 120, "batch": 64, "lr": 5e-3, "edge": 0.5}
mixture = runs.train("di4c", "tokens:bits", changes=changes).finish().denoiser
law = propagate(ExactJumps(), mixture, source_law(path, 2), torch.tensor([1.0, 0.0], dtype=torch.float64))
data_law = ((every[:, 0] == every[:, 1]) & (every[:, 0] != MASK)).double() / 2
one_step = total_variation(law, data_law)
print(f"total variation in one step: the best product {best:.3f}, a mixture of two products {one_step:.3f}")
print("its teacher, the exact posterior, has 1/16 = 0.0625 in the 8 steps that it learnt from")
assert one_step < 0.15

# %% [markdown]
# ## 6 · Longer strings
#
# `tokens:markov`: 16 tokens out of 8, a known Markov chain. Bundled weights; the distance is the total variation of
# 4-grams to their exact law, over its floor (that of true strings). The midpoint sampler makes two calls a step, and
# one in the last.

# %%
table_rows = ["| weights | sampler | steps | calls | distance over the floor |", "|---" * 5 + "|"]
for name in ("markov-discrete-flow-matching", "markov-di4c"):
    for row in runs.load(name).about["rows"]:
        if row["steps"] in (1, 4, 8, 16, 32):
            over = row["distance"] / row["floor"]
            key[f"{name}, {row['solver']}, {row['steps']} steps"] = over
            table_rows.append(f"| {name} | {row['solver']} | {row['steps']} | {row['nfe']} | {over:.2f} |")
display(Markdown("\n".join(table_rows)))
print(f"spread of the floor, over ten sets: {row['floor_std'] / row['floor']:.2f} of it; within it nothing is ahead")
jumps, midpoints = (
    key[f"markov-discrete-flow-matching, {name}"] for name in ("jump-exact, 16 steps", "tau-midpoint, 8 steps")
)
[two_bits] = mismatches((8,), samplers=["tau-midpoint"])
key["mismatch, tau-midpoint, 8 steps"] = two_bits["mismatch"]
assert midpoints < jumps - 2 * row["floor_std"] / row["floor"]
assert two_bits["nfe"] == 15
assert two_bits["mismatch"] > 1 / 30

markov, model = problem("tokens:markov"), runs.load("markov-discrete-flow-matching").denoiser
walked = td.discrete.solve_tokens(model, model.path.noise(12, 16), 8, generator=SEED)
shown = {f"t = {float(walked.ts[k]):g}": walked.xs[k] for k in (0, 3, 6, 8)}
display(static.strings(shown, markov.vocab, title="Eight steps of the trained posterior: masks (grey) become tokens"))

# %% [markdown]
# With one step all tokens are drawn independently. The distance falls with the steps down to near the floor. The
# midpoint in 15 calls is ahead of 16 exact jumps here, and on two bits behind 15 of them ($1/30$). A mixture of eight
# products is only a little nearer: strings of 16 tokens have far more to agree on than two bits.

# %% [markdown]
# ## What the deck says / what we measured

# %%
by_jumps = {N: key[f"markov-discrete-flow-matching, jump-exact, {N} steps"] for N in (1, 4, 8, 16, 32)}
display(
    Markdown(f"""
| the deck | measured here |
|---|---|
| "flow matching" (slide 25) for vectors; tokens are its reference 7 | the loss is a cross-entropy, {len(losses)} \
updates to {off:.3f} of the exact posterior |
| few steps cost quality (slide 4) | counted: {differ[0]:g} in 1 step, {differ[3]:g} in {calls[3]}, exactly 1/(2N) |
| better solvers, distillation (slides 4, 6, 9) | two bits, 15 calls: exact jumps {1 / 30:.4f}, \
a midpoint {key["mismatch, tau-midpoint, 8 steps"]:.4f}; total variation of one step: a product at least \
{best:.3f}, a mixture of two {one_step:.2f} |
| *(not said)* strings, exact jumps | {", ".join(f"{over:.1f}" for over in by_jumps.values())} floors in \
{", ".join(map(str, by_jumps))} steps |
""")
)

# %% [markdown]
# ## You can now
#
# * say what a posterior of tokens is, and train one in a dozen lines;
# * derive the error of N steps, and know a wrong rate or posterior by an error that stalls;
# * explain why one step sees marginals alone, and what a mixture changes.

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Implement the core.** Two equal tokens of $K$ symbols, all alike, and any scheduler $\kappa$: a position is
# revealed in a step from $t$ to $s$ with probability $\kappa_s-\kappa_t$, counted from the start. How often do they
# differ?


# %%
def mismatch_by(kappas, K):
    """kappas: from 0 to 1, a list of N + 1 numbers, kappa at the times of a grid. K symbols. A number."""
    raise NotImplementedError


# %%
try:
    ts = torch.linspace(1, 0, 9, dtype=torch.float64)
    for kappa, K in (("cosine", 2), ("linear", 3), ("cosine", 5)):
        curve = td.discrete.scheduler(kappa)
        answer = mismatch_by(curve.kappa(ts).tolist(), K)
        on = td.discrete.TokenPath(K, "mask", curve)
        equal = td.discrete.TablePosterior(on, torch.arange(K)[:, None].repeat(1, 2), torch.ones(K))
        law, X = propagate(ExactJumps(), equal, source_law(on, 2), ts), strings(on.size, 2)
        true = float(law[X[:, 0] != X[:, 1]].sum())
        assert abs(answer - true) < 1e-9, f"not yet: {true:.4f} with the {kappa} scheduler and {K} symbols"
    print("exercise 1: right")
except NotImplementedError:
    print("exercise 1: to do")

# %% [markdown]
# **2. Break it.** *Three* equal bits, the linear scheduler, N steps. With which probability are they not all equal?
# (The earliest step that reveals any decides: how many does it reveal?)


# %%
def mismatch_of_three(N):
    """A number."""
    raise NotImplementedError


# %%
try:
    three = td.discrete.TablePosterior(path, torch.tensor([[0, 0, 0], [1, 1, 1]]), torch.ones(2))
    for N in (1, 2, 5):
        ts = torch.linspace(1, 0, N + 1, dtype=torch.float64)
        law, X = propagate(ExactJumps(), three, source_law(path, 3), ts), strings(3, 3)
        true = float(law[X.min(1).values != X.max(1).values].sum())
        assert abs(mismatch_of_three(N) - true) < 1e-9, f"not yet: {true:.4f} after {N} steps"
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Reason.** Which scheduler has the least mismatch of two bits in N steps, and why? Would you expect the same of
# strings whose first tokens decide the rest?

# %% [markdown]
# ## References
#
# * The deck, slides 4, 6, 9 and 25, and its reference 7.
# * Gat et al., *Discrete Flow Matching*, arXiv 2407.15595: the paths, the posterior, the sampler.
# * Shaul et al., *Flow Matching with General Discrete Paths*, arXiv 2412.03487; the generalised KL, arXiv 2412.06264.
# * Ren et al., *Fast Solvers for Discrete Diffusion Models*, arXiv 2502.00234: alg. 2 (the midpoint sampler).
# * Hayakawa et al., *Distillation of Discrete Diffusion through Dimensional Correlations*, arXiv 2410.08709 (Di4C).
