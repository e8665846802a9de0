"""Consistency: how CD, CT, ECT, SCT, LCM and PCM differ."""

import plotly.graph_objects as go
import torch

import toydiff
from toydiff import jump, runs
from toydiff.measure import paired_error, target_variance
from toydiff.plots import interactive

from screen.controls import Choice, Number, Several
from screen.lesson import Lesson, remember

MAP, SAME, EDGES, VARIANCE = "map from noise", "same noise", "edges", "variance"
SHOWN = ("cd", "ct", "ect", "sct", "lcm", "pcm")
PHASED = {1: None, 2: "ring-pcm-2", 4: "ring-pcm", 8: "ring-pcm-8"}
"""PCM's students: each knows as many steps as it has phases."""
STEPS = tuple(PHASED)
EXACT = "exact flow"
EDGE_PATHS = 200
"""Paths from which jumps are measured."""


@remember
def truth(noises: int) -> tuple:
    """The ring, noise at t = 1 on the students' schedule, and the exact path from it."""
    ring, on = toydiff.mixture("ring"), toydiff.schedule("scaled-linear")
    noise = torch.randn(noises, 2, generator=torch.Generator().manual_seed(0))
    sigma = on.sigma(torch.ones((), dtype=torch.float64))
    path = toydiff.solve(ring.denoiser(on), sigma * noise.double(), 60)
    return ring, on, noise, path


def sample(method: str, steps: int, x: torch.Tensor) -> torch.Tensor | None:
    """Where a student takes states at t = 1 in so many steps; None where it has no such number."""
    id_ = PHASED[steps] if method == "pcm" else f"ring-{method}"
    if id_ is None:
        return None
    solver = "ddim" if method == "pcm" else "lcm"
    return toydiff.solve(runs.load(id_).denoiser, x, steps, solver=solver, grid="uniform", generator=0, keep="end").end


def jumps(method: str, path: toydiff.Trajectory) -> list[tuple[float, float]]:
    """How far a student's jump from each time t of the exact path ends from that path's edge: (t, RMS distance)."""
    D = runs.load("ring-pcm" if method == "pcm" else f"ring-{method}").denoiser
    phases = 4 if method == "pcm" else 1
    out = []
    for t, x in zip(path.ts[:-1].tolist(), path.xs[:-1].float(), strict=True):
        edge = int(t * phases - 1e-9) / phases  # the lower end of the phase that t is in
        k = int((path.ts - edge).abs().argmin())
        with torch.no_grad():
            landed = jump(D(x, torch.tensor(t)), edge)
        out.append((t, paired_error(landed.double(), path.xs[k]).rms))
    return out


def consistency(view: str, methods: tuple[str, ...], noises: int) -> tuple[go.Figure, list[dict]]:
    """Students of the ring's teacher: where they send noise, where their jumps end, how much their target varies."""
    ring, on, noise, path = truth(noises)
    x = path.xs[0].float()
    if view == VARIANCE:
        levels = torch.logspace(-1.2, 1.2, 13, dtype=torch.float64)
        ts, counts = on.t_of_lam(-levels.log()), {"ct": 1, "4 references": 4, "32 references": 32, "sct": 256}
        curves = {name: target_variance(ring, on, ts, n, samples=1024, seed=0) for name, n in counts.items()}
        rows = [
            {"target": name, "references": counts[name], "nsr": nsr, "variance": v}
            for name, c in curves.items()
            for nsr, v, _ in c
        ]
        return interactive.against_noise(curves, ylabel="variance of the target's x₀"), rows
    if view == EDGES:
        # a grid that holds the edges of four phases
        exact = toydiff.solve(
            ring.denoiser(on), truth(EDGE_PATHS)[3].xs[0], ts=torch.linspace(1, 0, 81, dtype=torch.float64)
        )
        curves = {method: jumps(method, exact) for method in methods}
        rows = [{"method": method, "t": t, "rms": rms} for method, curve in curves.items() for t, rms in curve]
        return interactive.jump_errors(curves, edges=(0.75, 0.5, 0.25) if "pcm" in methods else ()), rows
    ends = {m: {n: end for n in STEPS if (end := sample(m, n, x)) is not None} for m in methods}
    rows = [
        {"method": m, "steps": n, "rms_from_exact": paired_error(end.double(), path.end).rms}
        for m, by in ends.items()
        for n, end in by.items()
    ]
    if view == SAME:
        return interactive.same_noise({m: ends[m] for m in methods[:2]}, ring), rows
    shown = {EXACT: path.end} | {
        f"{m}, {min(by)} step{'s' if min(by) > 1 else ''}": by[min(by)].double() for m, by in ends.items()
    }
    return interactive.one_step_planes(noise.double(), shown, ring, true=path.end), rows


def words(rows: list[dict]) -> str:
    if "variance" in rows[0]:
        near = {
            row["target"]: row["variance"] for row in sorted(rows, key=lambda row: abs(row["nsr"] - 1), reverse=True)
        }
        return (
            "Without a teacher (CT, ECT) the target is made from **one** sample that could have become x_t: at NSR 1 "
            f"its variance is {near['ct']:.2g}. SCT takes the softmax-weighted mean over a batch that holds that "
            f"sample: with 256 references the variance is {near['sct']:.2g}, without bias. With a teacher's exact "
            "score (CD, LCM, PCM) it is 0."
        )
    if "t" in rows[0]:
        worst = {m: max(r["rms"] for r in rows if r["method"] == m) for m in dict.fromkeys(r["method"] for r in rows)}
        return (
            "For each point of the exact path: by how much the jump from it misses its target. CD, CT, ECT, SCT and "
            "LCM jump to **data** from everywhere, which is hardest from noise. PCM jumps to the **lower edge of its "
            "phase** (dotted), where the next phase starts. Largest misses: "
            + ", ".join(f"{m} {e:.2g}" for m, e in worst.items())
            + "."
        )
    by = {}
    for row in rows:
        by.setdefault(row["method"], {})[row["steps"]] = row["rms_from_exact"]
    listed = "; ".join(
        f"**{m}** {', '.join(f'{errors[n]:.2g}' if n in errors else '–' for n in STEPS)}" for m, errors in by.items()
    )
    return (
        "Each noise has the colour of its end, from where a grey line leads to that of the exact flow. RMS distance "
        f"between the two in {', '.join(map(str, STEPS))} steps: {listed}. All but PCM add fresh noise "
        "between steps, and so end at other samples. CT has no teacher, and so no flow to follow."
    )


LESSON = Lesson(
    id="consistency",
    menu="Consistency",
    icon=":material/target:",
    title="One jump lands where the whole path ends",
    equation=r"\min_\theta\; d\big(f_\theta(x_t,t),\,f_{\theta^-}(x_r,r)\big)",
    source=(
        "Consistency models, arXiv 2303.01469; ECT 2406.14548; SCT 2410.18958; LCM 2310.04378; PCM 2405.18407. f "
        "jumps to data; in PCM, to the lower edge of the phase."
    ),
    controls=(
        Choice(
            "view",
            "Show",
            (MAP, SAME, EDGES, VARIANCE),
            MAP,
            (
                "*map from noise*: where each noise goes in the fewest steps. *same noise*: where it goes in 1, 2, 4, "
                "8 steps. *edges*: how far jumps end from the exact path. *variance*: how much the target's x₀ varies"
            ),
        ),
        Several("methods", "Methods", SHOWN, ("cd", "ct", "sct"), "*same noise* shows the first two"),
        Number("noises", "Noises", (50, 100, 200, 400, 800, 1600), 200),
    ),
    figure=consistency,
    uses=(truth, sample, jumps),
    words=words,
    idle={("view", VARIANCE): ("methods", "noises"), ("view", EDGES): ("noises",)},
    together=("view", "noises"),
    ask=(
        "A student jumps from noise to where the teacher's path ends. With more steps, it jumps, adds noise, and jumps "
        "again. Does it end at the same place?",
        "No: fresh noise leads to another sample of the same data. Only PCM's steps are deterministic, and end near "
        "the same place.",
    ),
    presets={
        "LCM goes elsewhere with more steps": {"view": SAME, "methods": ["lcm", "pcm"]},
        "PCM's edges": {"view": EDGES, "methods": ["cd", "pcm"]},
        "What SCT averages away": {"view": VARIANCE},
    },
)
