"""The generated parts of the READMEs: tables between markers, and the pictures in tutorials/pictures.

    python tutorials/readme.py              both
    python tutorials/readme.py tables       solvers' names from the registry, and the measurements in the weights' JSON
    python tutorials/readme.py pictures     the animation of README.md, seed 0, pages of `toydiff site`, and one of the
                                            app, which need Debian's chromium

A table stands between `<!-- made by tutorials/readme.py: NAME -->` and `<!-- end -->`; tests/test_readme.py says when
it is stale.
"""

import dataclasses
import functools
import io
import math
import re
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from scipy.stats import spearmanr

import toydiff
from toydiff import weights
from toydiff.catalog import METHODS
from toydiff.discrete import SAMPLERS
from toydiff.grids import SHIFTS
from toydiff.measure import paired_error
from toydiff.plots import static, style
from toydiff.runs import zoo
from toydiff.runs.zoo import RECIPES
from toydiff.solvers import DEFAULT_SOLVER, SOLVERS, Trajectory
from toydiff.studies import choices, headline, scoreboard
from toydiff.support.files import write_bytes, write_text
from toydiff.support.words import plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
PICTURES = ROOT / "tutorials" / "pictures"
SEED = 0
WIDTH = 1000
"""Pixels of a picture: as wide as a code host shows a README."""

READMES = [
    ROOT / place / "README.md"
    for place in (
        ".",
        "toydiff/solvers",
        "toydiff/solvers/parallel",
        "toydiff/discrete",
        "toydiff/distill",
        "toydiff/adapters",
        "toydiff/plots",
        "toydiff/studies",
        "app",
        "tutorials",
        "tests",
        "tests/benchmarks",
    )
]


# ---- tables


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("|" + "|".join(line) + "|" if line[0] == "---" else f"| {' | '.join(line)} |" for line in lines)


def names() -> str:
    """Our solvers, and what others call them."""
    places = {"diffusers": "diffusers", "k-diffusion": "k-diffusion", "UI": "user interfaces"}
    rows = [[f"`{entry.name}`", *(entry.elsewhere.get(place, "—") for place in places)] for entry in SOLVERS.values()]
    return table(["ours", *places.values()], rows)


def solvers() -> str:
    """Our solvers: what they are, the order they declare, their evaluations a step, and their papers."""
    rows = [
        [f"`{entry.name}`", entry.title, f"{entry.solver.order:g}", str(entry.solver.nfe_per_step), entry.paper]
        for entry in SOLVERS.values()
    ]
    return table(["`solver=`", "what it is", "order", "NFE a step", "paper"], rows)


GRID_ROWS = {
    "shifted-lambda": ("log((NSR + a)/(NSR + b))", "the default: all the way from noise to data in few steps"),
    "shifted-lambda-wide": ("the same", "data that spread twice as wide"),
    "shifted-lambda-narrow": ("the same", "data with finer details"),
    "lambda": ("lambda, between two noise levels; then 0", "DPM-Solver, UniPC, DEIS: steps equal in lambda"),
    "karras": ("NSR^(1/rho), rho = 7, between two noise levels; then 0", "EDM's networks, with `heun`"),
    "uniform": ("t: t = 1 - i/N", "distilled students, and parallel samplers"),
    "quadratic": ("√t: t = (1 - i/N)^2", "as the DDIM paper has it: more steps near data"),
}
"""For each time grid of `toydiff.GRIDS`: what its points are uniform in, and when to take it."""


def grids() -> str:
    """Our time grids; `KeyError` for one that has no row yet."""
    rows = []
    for name in toydiff.GRIDS:
        formula, when = GRID_ROWS[name]
        if name in SHIFTS:
            a, b = SHIFTS[name]
            formula += f", a = {a:g}, b = {b:g}"
        rows.append([f"`{name}`", formula, when])
    return table(["`grid=`", "N + 1 points uniform in", "when"], rows)


def bundled(problem: str) -> str:
    """All that the bundled weights of a problem measure, `ring`, `markov` or `grey`."""
    rows = []
    for id_ in RECIPES:
        if id_.startswith(f"{problem}-"):
            about = weights.read_about(id_)
            for row in about["rows"]:
                distance = f"{row['distance'] / row['floor']:.2f}"
                accuracy = "—" if row["accuracy"] is None else f"{100 * row['accuracy']:.1f}%"
                spent = str(row["steps"]), str(row["nfe"])
                rows.append([f"`{id_}`", f"`{row['solver']}`", *spent, distance, accuracy, str(about["updates"])])
    return table(["weights", "solver", "steps", "NFE", "distance / floor", "accuracy", "updates"], rows)


def digits() -> str:
    """What the digits' weights measure, with what they begin with and what they cost in all."""
    rows = []
    for id_ in RECIPES:
        if not id_.startswith("digits-"):
            continue
        about = weights.read_about(id_)
        for row in about["rows"]:
            again = [
                other["distance"]
                for other in about["repeats"]
                if (other["steps"], other["solver"]) == (row["steps"], row["solver"])
            ]
            found = statistics.mean([row["distance"], *again])
            distance = f"{found / row['floor']:.2f} ± {row['distance_std'] / row['floor']:.2f}"
            if again:
                distance += f", trainings ± {statistics.stdev([row['distance'], *again]) / row['floor']:.2f}"
            before = [name for name in (about["start"], about["teacher"]) if name and name != "digits-teacher"]
            rows.append(
                [
                    f"`{id_}`",
                    ", ".join(f"`{name}`" for name in dict.fromkeys(before)) or "—",
                    f"`{row['solver']}`",
                    str(row["steps"]),
                    str(row["nfe"]),
                    distance,
                    f"{found - row['floor']:.2f}",
                    f"{100 * row['accuracy']:.1f}%",
                    f"{10 * min(row['fractions']):.2f}",
                    f"{about['passes_in_all'] / 1e6:.2f}",
                ]
            )
    head = "weights,made with,solver,steps,NFE,distance / floor,excess,accuracy,rarest class,million passes"
    return table(head.split(","), rows)


def more_digits() -> str:
    """What more passes would take: the excess of a student over the floor falls as passes^-r, by the second half of its
    curve; at that rate it needs so many times the passes to be within 2.5 times the teacher's distance in one step, or
    1.3 times in four."""
    teacher = min(row["distance"] for row in weights.read_about("digits-teacher")["rows"])
    rows = []
    for id_, recipe in RECIPES.items():
        steps = min(recipe.steps)
        times = {1: 2.5, 4: 1.3}.get(steps)
        if not id_.startswith("digits-") or times is None:
            continue
        about = weights.read_about(id_)
        if "curve" not in about:  # it was trained before runs were followed
            continue
        row = next(row for row in about["rows"] if row["steps"] == steps)
        half, last = about["curve"][len(about["curve"]) // 2 - 1], about["curve"][-1]
        over = [point["distance"] - row["floor"] for point in (half, last)]
        rate = math.log(over[0] / over[1]) / math.log(last["passes"] / half["passes"])
        missing = (row["distance"] - row["floor"]) / (times * teacher - row["floor"])
        factor = missing ** (1 / rate) if rate > 0.05 else math.inf
        needs = "reached" if missing <= 1 else f"{factor:.2g} times" if factor < 1000 else "no number: it is flat"
        now = row["distance"] / teacher
        rows.append(
            [f"`{id_}`", str(steps), f"{now:.2f}", f"{times:g}", *(f"{e:.2f}" for e in over), f"{rate:.2f}", needs]
        )
    head = "weights,steps,times the teacher's distance,target,excess midway,in the end,rate r,if it went on so"
    return table(head.split(","), rows)


def clips() -> str:
    """What the weights of clips measure; a personal image network under the student's adapter and temporal layers."""
    rows = []
    for id_ in [id_ for id_ in zoo.ids() if id_.startswith("clips-")]:
        for row in weights.read_about(id_)["rows"]:
            cells = [f"{row['parts'][name]['value']:.2g} ({row['parts'][name]['floor']:.2g})" for name in CLIP_MEASURES]
            accuracy = f"{100 * row['accuracy']:.1f}%"
            rows.append([f"`{id_}`", f"`{row['solver']}`", str(row["steps"]), str(row["nfe"]), *cells, accuracy])
    return table(["weights", "solver", "steps", "NFE", *CLIP_MEASURES, "right digit"], rows)


CLIP_MEASURES = ("frame", "lag-1", "velocity", "turning", "identity")
"""Of `toydiff.problems.clips.MEASURES`, each with its floor."""


def samplers() -> str:
    """The samplers of tokens: the order that they declare, the sources that they can start from, and their papers."""
    rows = [
        [f"`{entry.name}`", entry.title, f"{entry.solver.order:g}", ", ".join(entry.solver.sources), entry.paper]
        for entry in SAMPLERS.values()
    ]
    return table(["`--solver`", "what it is", "order", "sources", "paper"], rows)


def methods() -> str:
    """Every method with one number: the digits' weights at the number of steps where their distance is least."""
    of = {recipe.method: id_ for id_, recipe in RECIPES.items() if id_.startswith("digits-")}
    rows = []
    for card in METHODS.values():
        if card.id not in of:  # it is for other problems
            continue
        best = min(weights.read_about(of[card.id])["rows"], key=lambda row: row["distance"])
        number = [str(best["nfe"]), f"{best['distance']:.2f}", f"{best['floor']:.2f}"]
        rows.append([f"`{card.id}`", card.title, card.paper, *number])
    return table(["`toydiff train`", "method", "paper", "NFE", "distance", "floor"], rows)


def families() -> str:
    """What works with which family of checkpoints, as tests/sd/test_what_works.py tests it."""
    sys.path.insert(0, str(ROOT / "tests"))
    try:
        import what_works
    finally:
        sys.path.pop(0)
    return table(["", *what_works.columns().values()], what_works.rows())


def of_board(name: str, made: Callable[[Mapping], str]) -> str:
    """A table of a bundled scoreboard, below what it was made with; one sentence where there is none."""
    if name not in scoreboard.bundled_names():
        return f"No scoreboard of {name} is bundled."
    board = scoreboard.bundled(name)
    plan = board["plan"]
    head = f"{plan['budget']:,} network passes each, {plan['seeds']} seeds, {plan['n']:,} samples:"
    return f"{head}\n\n{made(board)}"


def another_teacher(name: str) -> str:
    """Whether the order on a bundled scoreboard is that with another teacher."""
    boards = scoreboard.bundled(name), scoreboard.of_another_teacher(name)
    here, there = ({(row["method"], row["steps"]): row for row in scoreboard.summary(board)} for board in boards)
    of, plan = boards[1]["plan"]["teacher"], boards[1]["plan"]
    taught = [method for method in plan["methods"] if method not in scoreboard.FRESH]
    lines = [
        f"Another teacher: {of['method']} with seed {of['seed']}, {of['updates']:,} updates; "
        f"{plan['budget']:,} passes each, {plural(plan['seeds'], 'seed')}, {plan['n']:,} samples:",
        "",
        "| steps | rank correlation | least distance | with the other teacher | change of a distance | of a seed |",
        "|---|---|---|---|---|---|",
    ]
    for steps in plan["steps"]:
        a, b = ({method: found[method, steps]["distance"] for method in taught} for found in (here, there))
        correlation = spearmanr(list(a.values()), [b[method] for method in a])[0]
        nearest = (", ".join(f"`{method}`" for method in sorted(x, key=x.__getitem__)[:3]) for x in (a, b))
        moved = statistics.median(abs(b[method] / a[method] - 1) for method in a)
        seeds = statistics.median(here[method, steps]["distance_std"] / a[method] for method in a)
        lines.append(f"| {steps} | {correlation:.2f} | {' | '.join(nearest)} | {moved:.0%} | {seeds:.0%} |")
    signs = [
        (found.word, there[worse.entry]["distance"] > there[better.entry]["distance"])
        for better, worse, found in headline.verdicts(boards[0])
    ]
    same = sum(ahead for word, ahead in signs if word == scoreboard.HOLDS)
    held = sum(word == scoreboard.HOLDS for word, _ in signs)
    return "\n".join(
        [
            *lines,
            "",
            f"{same} of the {held} directions of the deck that hold with the bundled teacher keep their sign.",
        ]
    )


TABLES: dict[str, Callable[[], str]] = {
    "names": names,
    "solvers": solvers,
    "grids": grids,
    "digits": digits,
    "more-digits": more_digits,
    "ring": lambda: bundled("ring"),
    "samplers": samplers,
    "markov": lambda: bundled("markov"),
    "grey": lambda: bundled("grey"),
    "clips": clips,
    "methods": methods,
    "families": families,
    **{
        f"{what}-{name}": functools.partial(of_board, name, made)
        for name in ("ring", "digits")
        for what, made in (
            ("scoreboard", scoreboard.markdown),
            ("choices", choices.markdown),
        )
    },
    "deck-digits": functools.partial(of_board, "digits", headline.markdown),
    "another-teacher-digits": functools.partial(another_teacher, "digits"),
}

PLACE = re.compile(r"(<!-- made by tutorials/readme\.py: (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def with_tables(text: str) -> str:
    """A README's text with its tables as they are now; `KeyError` for a marker that names none."""
    return PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[4]}", text)


# ---- pictures


def flow(steps: int = 6, between: int = 6, hold: int = 16, samples: int = 32) -> Iterator["Figure"]:
    """Frames: DDIM and the default solver go from the same noise to the ring; in the end rings are where the exact flow
    ends.

    steps: evaluations of each. between: frames a step, on the straight line that the step takes. hold: frames at the
    end.
    """
    mixture = toydiff.mixtures.ring()
    D = mixture.denoiser(toydiff.VP())
    noise = D.schedule.prior((samples, 2), SEED, dtype=torch.float64)
    exact = toydiff.reference(D, noise)
    solvers = {"DDIM, order 1": "ddim", "Adams-Bashforth, order 3": DEFAULT_SOLVER}
    paths = {name: toydiff.solve(D, noise, steps, solver=solver) for name, solver in solvers.items()}
    behind = style.density(mixture, [path.xs for path in paths.values()])
    for frame in range(steps * between + 1 + hold):
        n, part = divmod(frame, between)
        ended = n >= steps
        shown, named = {}, {}
        for name, path in paths.items():
            error = paired_error(path.end, exact).rms
            state = f"ends {error:.2g} from the exact flow" if ended else f"evaluation {n + 1} of {steps}"
            head = f"{name}\n{state}"
            shown[head], named[head] = path if ended else _until(path, n, part / between), solvers[name]
        # the rings are drawn at the end; before it they are beyond the frame, so that the legend does not move
        figure = static.trajectories(shown, behind, solvers=named, exact=exact if ended else exact + 1e3)
        figure.set_size_inches(9.0, 5.2)
        yield figure


def _until(path: Trajectory, n: int, part: float) -> Trajectory:
    """A path up to a part of its step n."""
    ts, xs = (torch.cat([each[: n + 1], torch.lerp(each[n], each[n + 1], part)[None]]) for each in (path.ts, path.xs))
    return dataclasses.replace(path, ts=ts, xs=xs, x0s=path.x0s[: n + 1])


def animation(frames: Iterator["Figure"], milliseconds: int = 90) -> bytes:
    """Figures as an endless GIF that rests on its last one."""
    from PIL import Image

    images = []
    for figure in frames:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=WIDTH / figure.get_figwidth())
        images.append(Image.open(buffer).convert("RGB"))
    # one palette for all frames, that of the last: what does not move is the same in each
    palette = images[-1].quantize(64)
    drawn = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    out = io.BytesIO()
    drawn[0].save(
        out, format="GIF", save_all=True, append_images=drawn[1:], duration=milliseconds, loop=0, optimize=True
    )
    return out.getvalue()


SITE = {
    "orders": "orders.html?embed#guess=3",
    "picard": "picard.html?embed",
    "reflow": "reflow.html?embed",
}
"""Pictures of pages of the site, without what stands around a figure, by the name of the file."""


def site() -> Iterator[tuple[str, bytes]]:
    """The pictures of `SITE`, from a site that is written for them."""
    import browser
    from offline.build import build

    pages = [address.partition(".")[0] for address in SITE.values()]
    with tempfile.TemporaryDirectory() as folder, browser.chromium() as chromium:
        out = Path(folder) / "site"
        build(out, pages, most=1)
        for name, address in SITE.items():
            tab = chromium.new_page(viewport={"width": 1280, "height": 760})
            tab.goto(f"{out.as_uri()}/{address}")
            tab.wait_for_selector(browser.MARKS)
            tab.wait_for_timeout(1500)
            yield name, small(tab.screenshot(), colors=256)


def app(page: str = "picard") -> bytes:
    """A page of the app in a browser, as it opens."""
    import browser

    with browser.serve() as url, browser.chromium() as chromium:
        tab = chromium.new_page(viewport={"width": 1280, "height": 800})
        tab.goto(f"{url}/{page}")
        tab.wait_for_selector(browser.MARKS)
        tab.wait_for_selector(".st-key-files")
        tab.wait_for_timeout(2000)  # letters and the equation arrive after the figure
        return small(tab.screenshot(), colors=256)


def small(picture: bytes, colors: int = 128) -> bytes:
    """A picture as a PNG of few colours, `WIDTH` pixels wide."""
    from PIL import Image

    image, out = Image.open(io.BytesIO(picture)).convert("RGB"), io.BytesIO()
    image = image.resize((WIDTH, round(image.height * WIDTH / image.width)))
    image.quantize(colors, dither=Image.Dither.NONE).save(out, format="PNG", optimize=True)
    return out.getvalue()


def main(words: Sequence[str]) -> None:
    """The command."""
    parts = list(words) or ["tables", "pictures"]
    if wrong := set(parts) - {"tables", "pictures"}:
        raise SystemExit(f"tutorials/readme.py makes tables or pictures, not {', '.join(sorted(wrong))}")
    if "tables" in parts:
        for readme in READMES:
            write_text(readme, with_tables(readme.read_text()))
    if "pictures" in parts:
        PICTURES.mkdir(exist_ok=True)
        sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "app")]
        for name, picture in site():
            write_bytes(PICTURES / f"{name}.png", picture)
        write_bytes(PICTURES / "flow.gif", animation(flow()))
        write_bytes(PICTURES / "app.png", app())


if __name__ == "__main__":
    main(sys.argv[1:])
