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
# # 18 · The scoreboard: which method, for which steps, at which price
#
# The deck ends with a table of 17 rows (slides 29 to 31), trained by different people for different times. Here all
# methods pay the same.
#
# **In this lesson (20 minutes)** you read a scoreboard, train two of its rows yourself, set the deck's directions
# beside ours with their standard errors, and answer: which method would you take? You need lessons 06 to 14.

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
import statistics

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown, display
from scipy.stats import spearmanr

from toydiff import runs
from toydiff.catalog import METHODS
from toydiff.distill.distances import HUBER
from toydiff.distill.rectified_diffusion import rectified_diffusion_loss, x0_huber
from toydiff.distill.rectified_flow import rectified_flow_loss
from toydiff.plots import static, style
from toydiff.problems import problem
from toydiff.problems.pairs import Recipe, make_pairs
from toydiff.runs.cost import passes_of_update
from toydiff.studies import choices, deck, headline, scoreboard
from toydiff.training import Draws

# %%
SEED = 0

plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})
key = {}
board = scoreboard.bundled("ring")
rows, plan = scoreboard.summary(board), board["plan"]
title = f"ring: {plan['budget']:,} network passes each, {plan['seeds']} seeds"
display(static.scoreboard(rows, title=title))

# %% [markdown]
# **A row is a method, a panel a number of steps. Left is better; the dashed line is the distance of true samples from
# other true samples, the floor,** the band its deviation over ten pairs of sets. In all panels the methods are in the
# order of the first. Follow the best one to the panels at its right: does it stay the best? The table below says which
# entries lead, and which others noise cannot tell from them.

# %%
best = {steps: scoreboard.tied(board, steps) for steps in plan["steps"]}
lines = ["| steps | best | distance / floor | not told apart from it |", "|---" * 4 + "|"]
for steps, (first, *ties) in best.items():
    others = ", ".join(row["method"] for row in ties) or "—"
    lines.append(f"| {steps} | **{first['method']}** | {first['distance'] / first['floor']:.2f} | {others} |")
    key[f"best, {steps} steps"] = first["distance"] / first["floor"]
display(Markdown("\n".join(lines)))

# %% [markdown]
# ## 1 · Equal terms
#
# A comparison is fair when nothing but the method differs. Here: one teacher, one network, one set of evaluation
# noises, several training seeds, and one **budget**. Its unit is a *pass*: one sample through one network, forwards 1,
# backwards 2. A budget of updates would favour methods that run three networks in an update.
#
# $$\text{passes}=\text{updates}\cdot\text{batch}\cdot(3\,\text{student}+\text{all other calls})+\text{pairs}+
# \text{what came before}$$

# %%
ring, teacher = problem("mixture:ring"), runs.load("ring-teacher").denoiser
few = make_pairs(ring, teacher, Recipe(n=64, steps=4))
per_update = {}
for method in ("rectified-flow", "naive", "ect", "cd", "dmd", "sim"):
    pairs = few if METHODS[method].needs == "pairs" else None
    run = runs.train(method, ring, teacher=teacher, pairs=pairs)
    per_update[method] = passes_of_update(run.training) / run.knobs.batch
print("passes for one sample of an update:")
for method, cost in per_update.items():
    print(f"  {method:16} {cost:5.1f}")

# %% [markdown]
# Rectified flow pays 3 a sample: its own pass there and back. CD adds a teacher that its solver calls; score
# distillation trains a second network beside the student. At an equal budget the dearer update comes less often.

# %%
of = {row["method"]: row for row in rows if row["steps"] == 1}
figure, axis = plt.subplots(figsize=(9, 4.4), layout="constrained")
order = sorted(of, key=lambda method: of[method]["updates"])
axis.barh(order, [of[method]["updates"] for method in order], color=style.BLUE)
axis.set(xscale="log", xlabel="updates (of the last training) that the budget pays for")
axis.tick_params(axis="y", labelsize=8)
places = style.ticks(*axis.get_xlim())
axis.set_xticks(places, [f"{place:g}" for place in places])
axis.minorticks_off()
axis.set_title(title)
plt.show()
spent = [cell["passes"] for cell in board["cells"]]
assert max(spent) <= 1.05 * plan["budget"]
print(f"passes spent: {min(spent):,} to {max(spent):,} of {plan['budget']:,}")

# %% [markdown]
# ## 2 · Two rows, live
#
# We train the deck's two rivals at a small budget, on the ring, from the same teacher and pairs:
#
# ```
# 1  (eps, x_0) a pair of the teacher's ODE      both
# 2  t ~ U(0, 1)                                 both
# 3  x_t = (1-t) x_0 + t eps                     RF
#    x_t = alpha_t x_0 + sigma_t eps             RD
# 4  |v(x_t, t) - (eps - x_0)|^2                 RF
#    pseudo-Huber(x_0 of theta, x_0)             RD
# ```

# %%
S = teacher.schedule
noise = torch.randn(6000, 2, generator=torch.Generator().manual_seed(SEED))
start = S.sigma(torch.ones(())) * noise
ends = td.solve(teacher, start, 20, keep="end").end


def flow_loss(student, x0, eps, t):
    x_t = (1 - t)[:, None] * x0 + t[:, None] * eps  # 3
    v = student(x_t, t).read("velocity")
    return (v - (eps - x0)).square().mean()  # 4


def diffusion_loss(student, x0, eps, t, c=HUBER):
    x_t = S.alpha(t)[:, None] * x0 + S.sigma(t)[:, None] * eps  # 3
    return (((student(x_t, t).x0 - x0).square() + c * c).sqrt() - c).mean()  # 4


def train(student, loss, eps, updates=220, batch=256, lr=1e-3):
    """The student after some updates, and its losses."""
    rng, losses = torch.Generator().manual_seed(SEED), []
    optimizer = torch.optim.Adam(student.parameters(), lr)
    for _ in range(updates):
        i = torch.randint(len(ends), (batch,), generator=rng)  # 1
        t = 1e-3 + (1 - 1e-3) * torch.rand(batch, generator=rng)  # 2
        value = loss(student, ends[i], eps[i], t)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return student, losses


# %% [markdown]
# On the teacher's schedule alpha(1) is not 0, and the path must start where the teacher started: its eps is
# $(x_1-\alpha_1x_0)/\sigma_1$, and not the noise. Is this the library's? With the same draws the losses must be the
# same numbers.

# %%
alpha_1, sigma_1 = S.alpha(torch.ones(())), S.sigma(torch.ones(()))
own_eps = (start - alpha_1 * ends) / sigma_1
flow = ring.student(td.Linear(), "velocity", start=teacher)
rectified = ring.student(S, teacher.kind, start=teacher)
with torch.no_grad():
    t = Draws(SEED).uniform(512, 1e-3, 1.0)
    ours = [
        float(flow_loss(flow, ends[:512], noise[:512], t)),
        float(diffusion_loss(rectified, ends[:512], own_eps[:512], t)),
    ]
    library = [
        float(rectified_flow_loss(flow, ends[:512], noise[:512], None, Draws(SEED))),
        float(rectified_diffusion_loss(rectified, ends[:512], own_eps[:512], None, Draws(SEED), 0.0, x0_huber)),
    ]
for mine, theirs in zip(ours, library, strict=True):
    assert math.isclose(mine, theirs, rel_tol=1e-4), (ours, library)
print("ours", [f"{value:.6f}" for value in ours], " library", [f"{value:.6f}" for value in library])

# %% [markdown]
# **Predict before you run.** Both begin with the teacher's weights and get 220 updates. The rectified flow has to learn
# that its output now means a velocity; Rectified Diffusion starts with what it needs. Which is nearer to the ring in
# one step? And in four?

# %%
flow, flow_losses = train(flow, flow_loss, noise)
rectified, own_losses = train(rectified, diffusion_loss, own_eps)
shown, measured = {}, {}
for title_, student, x in (("rectified-flow", flow, noise), ("rectified-diffusion", rectified, start)):
    for steps in (1, 2, 4):
        with torch.no_grad():
            end = td.solve(student, x, steps, solver="ddim", grid="uniform", keep="end").end
        found = ring.measure(end)
        measured[title_, steps] = found.distance / found.floor
        shown[f"{title_}, {steps}"] = end[:700]

figure, axes = plt.subplots(2, 3, figsize=(9, 6.2), layout="constrained", sharex=True, sharey=True)
for axis, (title_, end) in zip(axes.flat, shown.items(), strict=True):
    axis.scatter(*end.T, s=3, color=style.ORANGE if "flow" in title_ else style.BLUE, rasterized=True)
    method, steps = title_.split(", ")
    axis.set_title(
        f"{method}, {steps} step{'s' if steps != '1' else ''}: {measured[method, int(steps)]:.1f}", fontsize=10
    )
    axis.set(aspect="equal", xlim=(-2.8, 2.8), ylim=(-2.8, 2.8))
plt.show()
print("distance in floors:", {f"{m}, {n}": round(value, 2) for (m, n), value in measured.items()})
print(
    f"loss of the flow {flow_losses[0]:.2f} to {flow_losses[-1]:.3f}, of the other {own_losses[0]:.3f} to "
    f"{own_losses[-1]:.3f}"
)

# %% [markdown]
# Which leads? After one training each nobody can say: the differences are near the floor's own deviation. A scoreboard
# has seeds, so that a difference comes with its standard error, and the same cost for both.

# %% [markdown]
# ## 3 · When is a difference one?
#
# Two means over $n$ seeds differ by $\Delta$; its standard error is $\sqrt{(s_1^2+s_2^2)/n}$. We say **holds** beyond 2
# of them, **does not** beyond 2 the other way, else **within noise**. So is what is smaller than the floor's own
# deviation: more seeds do not help where the measure cannot see it.
#
# **Break it.** One seed has no deviation: what would be the verdict on two trainings of *the same* method?

# %%
distances = {
    method: [
        cell["rows"][0]["distance"] / cell["rows"][0]["floor"] for cell in board["cells"] if cell["method"] == method
    ]
    for method in plan["methods"]
}
fooled = sum(max(values) - min(values) > 0.05 * min(values) for values in distances.values())
print(f"two of the three seeds are more than 5 percent apart in {fooled} of {len(distances)} methods")
widest = max(distances, key=lambda method: statistics.stdev(distances[method]) / statistics.mean(distances[method]))
print(f"the widest: {widest}, " + ", ".join(f"{value:.2f}" for value in distances[widest]))
figure, axis = plt.subplots(figsize=(9, 4.2), layout="constrained")
for k, values in enumerate(distances.values()):
    axis.plot([k] * len(values), values, "o", color=style.BLUE, alpha=0.6)
floor_std = rows[0]["floor_std"] / rows[0]["floor"]
axis.axhspan(1 - floor_std, 1 + floor_std, color=style.CONTEXT_COLOR, alpha=0.6, lw=0)
axis.axhline(1, color=style.FLOOR_COLOR, ls="--")
axis.set_xticks(range(len(distances)), list(distances), rotation=60, ha="right", fontsize=8)
axis.set(yscale="log", ylabel="distance / floor, one step")
axis.set_title("Every training of the board; the band is the floor's own deviation (ten pairs of true sets)")
plt.show()
assert fooled > len(distances) / 4, "the control bites: one seed says little"

# %% [markdown]
# ## 4 · The deck's 17 rows
#
# Near the floor the board cannot tell the deck's rows apart. But all approximate *one map*: from noise to where the
# guided teacher's ODE ends. So here they are compared by the root mean square distance to that end **from the same
# noise**, at equal cost, over three seeds.
#
# **Predict before you run.** In the deck the student trained at t = 1 alone gets *worse* with steps; phases help. Here?

# %%
of_deck = deck.bundled()
display(Markdown(deck.table(of_deck).replace("(FINDINGS.md", "(../toydiff/studies/FINDINGS.md")))
found = {pair: deck.errors(of_deck, deck.case_of(pair[0]), *pair) for pair in deck.DIRECTIONS}
words = [deck.word(errors) for errors in found.values()]
for word in (scoreboard.HOLDS, scoreboard.WITHIN, scoreboard.NOT):
    key[f"directions: {word}"] = words.count(word)
    print(f"{words.count(word):2} of {len(words)} directions: {word}")
figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
colors = {scoreboard.HOLDS: style.GREEN, scoreboard.NOT: style.VERMILLION, scoreboard.WITHIN: style.GREY}
for k, (pair, errors) in enumerate(reversed(found.items())):
    a, b = (statistics.mean(deck.values(of_deck, deck.case_of(entry), entry)) for entry in pair)
    there = headline.row(*pair[0]).fid / headline.row(*pair[1]).fid
    axis.plot([there, a / b], [k, k], color=style.CONTEXT_COLOR, lw=2, zorder=0)
    axis.plot(there, k, "D", color=style.INK, ms=6)
    axis.plot(a / b, k, "o", color=colors[deck.word(errors)], ms=9)
names = [f"{a[0]}, {a[1]} / {b[0]}, {b[1]}" for a, b in reversed(found)]
axis.axvline(1, color=style.FLOOR_COLOR, ls="--")
axis.set_yticks(range(len(names)), names, fontsize=8)
axis.set(xscale="log", xlabel="the first's error / the second's; left of the line the deck's direction holds")
places = style.ticks(*axis.get_xlim())
axis.set_xticks(places, [f"{place:g}" for place in places])
axis.minorticks_off()
axis.set_title("Diamonds: the deck. Circles: here (green holds, orange not, grey noise)", fontsize=11, loc="right")
plt.show()

# %% [markdown]
# Where a direction does not hold, the last column names the change that turns it: four times the cost, or a teacher
# that predicts v. An error of eps is NSR times as large in $x_0$, and one step calls the network where NSR is largest.
# One direction nothing has turned: in 2 and 4 steps the distilled student calls its network at times that it was never
# trained at. All cases: `toydiff/studies/FINDINGS.md`.

# %% [markdown]
# Two traps. The teacher's *distance to data* is larger than a student's: guidance leads away from data on purpose, so
# the paired error decides. And CD after Rectified Diffusion is ahead of Rectified Diffusion here in one step, but
# behind on the board at the top, at eight times the price. Measure, labels and guidance differ there too, so price
# alone need not be why. Errors of one seed belong together: standard errors here are of their differences.

# %% [markdown]
# ## 5 · What a call buys
#
# The same rows against calls a sample, a panel a family; the other families are grey. The black steps are the *Pareto
# front*: no row has both fewer calls and a lower distance.
#
# **Predict before you run.** Which family is good in one call, which only from four on, and which gets *worse* with
# more?

# %%
FAMILIES = {
    "one network, many steps": ("diffusion", "flow-matching", "guided"),
    "whole paths become one step": ("naive", "instaflow", "progressive", "rectified-flow", "rectified-diffusion"),
    "phases": ("perflow", "rectified-diffusion-phased", "multistep-consistency", "pcm"),
    "consistency": ("cd", "ct", "ect", "sct", "lcm", scoreboard.RD_CD),
    "two distributions": ("vsd", "swiftbrush", "dmd", "dmd2", "sim", "adversarial"),
}
assert sorted(itertools.chain(*FAMILIES.values())) == sorted(plan["methods"])
curves = {}
for row in sorted(rows, key=lambda row: row["nfe"]):
    curves.setdefault(row["method"], []).append((row["nfe"], row["distance"] / row["floor"]))
front = scoreboard.pareto(rows)
steps_of_front = [row["nfe"] for row in front], [row["distance"] / row["floor"] for row in front]
figure, axes = plt.subplots(2, 3, figsize=(13, 7.4), sharex=True, sharey=True, layout="constrained")
for axis, (family, methods) in zip(axes.flat, [*FAMILIES.items(), ("the front", ())], strict=True):
    for curve in curves.values():
        axis.plot(*zip(*curve, strict=True), color=style.CONTEXT_COLOR, lw=0.8, zorder=1)
    height = 0.0  # of the label below
    for method, color in sorted(zip(methods, style.PATH_COLORS, strict=False), key=lambda one: curves[one[0]][-1][1]):
        axis.plot(*zip(*curves[method], strict=True), "o-", color=color, lw=2, ms=5)
        height = max(curves[method][-1][1], 1.25 * height)
        axis.text(1.12 * curves[method][-1][0], height, method, color=color, va="center", fontsize=9)
    axis.axhline(1, color=style.FLOOR_COLOR, ls="--", lw=1)
    axis.set(xscale="log", yscale="log", title=family)
    axis.set_xticks(plan["steps"], plan["steps"])
    axis.set_yticks([1, 2, 5, 10, 20], [1, 2, 5, 10, 20])
    axis.minorticks_off()
axes[1, 2].step(*steps_of_front, where="post", color=style.INK, lw=3)
axes[1, 2].plot(*steps_of_front, "o", color=style.INK)
for row in front:
    axes[1, 2].annotate(
        f"{row['method']}, {row['nfe']}", (row["nfe"], row["distance"] / row["floor"]), (4, 8),
        textcoords="offset points", rotation=50, fontsize=9,
    )  # fmt: skip
for axis in axes[1]:
    axis.set_xlabel(style.NFE_LABEL)
for axis in axes[:, 0]:
    axis.set_ylabel("distance / floor")
plt.show()
print("on the front: " + ", ".join(f"{row['method']} in {row['nfe']}" for row in front))
print(f"fewest calls until the distance is within the floor's own deviation, {1 + floor_std:.2f} floors:")
for family, methods in FAMILIES.items():
    first = {m: next((str(calls) for calls, over in curves[m] if over <= 1 + floor_std), "never") for m in methods}
    print(f"  {family:28} " + ", ".join(f"{method} {calls}" for method, calls in first.items()))
key["rows on the front"] = len(front)

# %% [markdown]
# **A student is good at the steps that it was trained for.** A phased student meets its edges only in its own number of
# steps. Naive, InstaFlow and the generators of score distillation were trained at $t=1$ alone: a second step asks them
# at a time that they never saw. Consistency models learn every $t$, and lose less in more steps. PeRFlow
# learns a flow inside its phases, and eight steps are no worse than four.

# %% [markdown]
# **So which one, on a ring of two dimensions?** *Without data* means that no training draws any (the teacher's own
# samples take its place); *without a teacher's answers*, that none is asked while training, though the student may
# begin with its weights. The last column is as good an answer as the second. A distance below 1 floor is luck of the
# samples. For digits see section 6.

# %% [markdown]
# **What "cheapest" counts.** The first five answers are the board's, where every row costs the same. The sixth takes in
# *other* trainings, the bundled students, each with a budget of its own: all passes of one, with its pairs and what it
# began with, the teacher left out. Where the board's rows win, several of them do, at the same price.

# %%
display(Markdown(choices.markdown(board)))

# %% [markdown]
# ## 6 · Does the order hold for images?
#
# The same entries on digits, 28 x 28, with a network three times as large and a tenth of the passes.
#
# **Predict before you run.** Which methods lead there in one step: the same as on the ring?

# %%
on_digits = scoreboard.bundled("digits")
images = scoreboard.summary(on_digits)
figure, axes = plt.subplots(1, 2, figsize=(12, 5.6), layout="constrained")
for axis, steps in zip(axes, (1, 4), strict=True):
    there = {row["method"]: row["distance"] / row["floor"] for row in images if row["steps"] == steps}
    here = {row["method"]: row["distance"] / row["floor"] for row in rows if row["steps"] == steps}
    ranks = [sorted(values, key=values.get) for values in (here, there)]
    moved = sorted(here, key=lambda method: abs(ranks[0].index(method) - ranks[1].index(method)))[-3:]
    for k, (family, methods) in enumerate(FAMILIES.items()):
        places = [here[method] for method in methods], [there[method] for method in methods]
        axis.plot(*places, "o", color=style.PATH_COLORS[k], ms=8, label=family if steps == 1 else None)
    for method in dict.fromkeys([ranks[0][0], ranks[1][0], *moved]):
        axis.annotate(method, (here[method], there[method]), (7, 5), textcoords="offset points", fontsize=9)
    axis.set(xscale="log", yscale="log", xlabel="ring: distance / floor", ylabel="digits: distance / floor")
    for side, limits in (("x", axis.get_xlim()), ("y", axis.get_ylim())):
        places = style.ticks(*limits)
        axis.set(**{f"{side}ticks": places, f"{side}ticklabels": [f"{place:g}" for place in places]})
    axis.minorticks_off()
    correlation = float(spearmanr([here[m] for m in here], [there[m] for m in here])[0])
    key[f"rank correlation, {steps} steps"] = correlation
    axis.set_title(f"{steps} step{'s' if steps > 1 else ''}: rank correlation {correlation:.2f}")
figure.legend(loc="outside lower center", ncols=5, fontsize=9)
plt.show()
display(Markdown(choices.markdown(on_digits)))

# %% [markdown]
# **Roughly, and not at the top.** In one step `naive` leads on both, and what was made for many steps is last. In
# four, SCT leads on the ring, LCM on digits; diffusion falls from near the best to 38 floors. In one step nobody
# is near the floor on digits at this price: trained longer, the best student is at 2.3 (lesson 09).
#
# Data, network, price and guidance differ. Which of them moved a method, the boards cannot say.

# %% [markdown]
# ## What the deck says / what we measured

# %%
flat = [row for method in (scoreboard.RD_CD,) for row in rows if row["method"] == method and row["steps"] <= 4]
distilled = [row for row in rows if row["method"] == "instaflow" and row["steps"] <= 4]


def by_steps(found):
    return ", ".join(f"{row['distance'] / row['floor']:.1f}" for row in found)


holding = ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(words))
display(
    Markdown(f"""
| the deck, slides 29 to 31 | measured on the ring at equal cost |
|---|---|
| {len(words)} directions of its table | {holding} (section 4: labelled mixtures) |
| Rectified Diffusion (CD): FID 22.8, 21.7, 21.4 in 1, 2, 4 steps | {by_steps(flat)} floors |
| Rectified Flow (Distill): 23.7, 73.5, 103.5 | {by_steps(distilled)} floors |
| *(not said)* the price of each row | {plan["budget"]:,} passes for every one (section 4: 250,000) |
""")
)

# %% [markdown]
# ## You can now
#
# * make a comparison fair, and say what its unit of cost is;
# * tell a difference from noise, by seeds and by the floor;
# * read a table of results for the question that you have.

# %% [markdown]
# ## Exercises
#
# Write the body of each stub; until then its check says "to do". Solutions: `tutorials/solutions/`.
#
# **1. Ask the board yourself.** A row is a dict with `method`, `steps`, `distance`, `teacher_calls`, `begins_with`.
# Return the method with the least distance at `steps`, among those that `allowed(row)` lets pass. The check asks three
# questions that are not in section 5's table.


# %%
def best_method(rows, steps, allowed=lambda row: True):
    """A name."""
    raise NotImplementedError


# %%
questions = {
    "without data, in two steps": (2, choices.no_data),
    "without a teacher's answers, in one step": (1, choices.no_teacher),
    "with no model before it, in eight steps": (8, choices.from_nothing),
}
try:
    for question, (steps, allowed) in questions.items():
        able = [row["method"] for row in rows if row["steps"] == steps and allowed(row)]
        right, *ties = (row["method"] for row in scoreboard.tied(board, steps, able))
        found = best_method(rows, steps, allowed)
        assert found == right, f"not yet, {question}: not {found}"
        print(f"{question}: {found}" + (f" (or {', '.join(ties)})" if ties else ""))
    print("exercise 1: right")
except NotImplementedError:
    print("questions:", "; ".join(questions))
    print("exercise 1: to do")

# %% [markdown]
# **2. The cheapest to train, on digits.** Each row has `id`, `distance` (its best in four steps or fewer) and `passes`.
# Return the `id` that cost least, among those within `within` times the best distance. How does the price rise as you
# ask for more?


# %%
def cheapest_student(students, within):
    """An id."""
    raise NotImplementedError


# %%
try:
    for within in (2.0, 1.2, 1.0):
        right, students = choices.cheapest("digits", within)
        found = cheapest_student(students, within)
        assert found == right["id"], f"not yet: not {found}"
        print(f"cheapest within {within:g} times the best: {found}, {right['passes']:,} passes")
    print("exercise 2: right")
except NotImplementedError:
    print("exercise 2: to do")

# %% [markdown]
# **3. Two standard errors.** `a` and `b` are the distances of two entries over seeds. Return the difference of the
# means, positive where `a` is better, in standard errors.


# %%
def standard_errors(a, b):
    """A number."""
    raise NotImplementedError


# %%
try:
    for better, worse, seen in headline.verdicts(board):
        a, b = (
            [
                cell["rows"][plan["steps"].index(one.steps)]["distance"]
                for cell in board["cells"]
                if cell["method"] == one.method
            ]
            for one in (better, worse)
        )
        found = standard_errors(a, b)
        assert math.isclose(found, seen.errors, rel_tol=1e-6), f"not yet: {found:.2f}, not {seen.errors:.2f}"
    print("exercise 3: right")
except NotImplementedError:
    print("exercise 3: to do")

# %% [markdown]
# **4. Reason.** A paper shows its method ahead after a day of training, against numbers copied from other papers. Which
# three things would you ask for before you believe the order?

# %% [markdown]
# ## References
#
# In the app: *Scoreboard*
#
# * The deck, slides 29, 30 and 31: the figures and the table.
# * Wang et al., *Rectified Diffusion*, arXiv 2410.07303: the rows of Rectified Diffusion.
# * Liu et al., *InstaFlow*, arXiv 2309.06380: "Rectified Flow (Distill)".
# * Yan et al., *PeRFlow*, arXiv 2405.07510. Song et al., *Consistency Models*, arXiv 2303.01469.
# * `toydiff/studies/README.md`: the whole tables, and how to make a scoreboard of your own.
