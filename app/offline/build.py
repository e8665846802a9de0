"""Writing the site: which states of a lesson are drawn, their figures as data, and all files at once."""

import copy
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go
from tqdm import tqdm

import toydiff
from toydiff.plots.screen import for_screen
from toydiff.support.checks import unknown

from . import exact, packing, pages
from lessons import LESSONS
from screen import chart
from screen.controls import Control, Several
from screen.lesson import Lesson
from screen.messages import EXPECTED

HERE = Path(__file__).parent
SCREEN = HERE.parent / "screen"
MARK = "toydiff-site.json"
"""The file by which a folder is known as such a site."""
SHARED = {
    pages.PLOTLY: SCREEN / "plotly" / pages.PLOTLY,
    "plotly-LICENSE": SCREEN / "plotly" / "LICENSE",
    "theme.js": HERE / "theme.js",
    "site.js": HERE / "site.js",
    "toydiff.js": HERE / "toydiff.js",
    "mixtures.js": HERE / "mixtures.js",
    "axes.js": HERE / "axes.js",
    "particle.js": HERE / "particle.js",
    "layers.js": HERE / "layers.js",
    "modes.js": HERE / "modes.js",
}
ALSO = {"paths": ["particle.js", "layers.js", "modes.js"]}
"""What a page that is computed in the browser loads besides."""
CALL = "{call}"
"""In a page's code, what the figure's function is called with."""
MODULES = {"chart.js": "toydiffChart", "frame.js": "toydiffFrameOf"}
"""The app's modules, and the name by which the site's scripts call each: a page in a folder may load no modules."""


def build(out: Path, ids: Sequence[str] = (), *, most: int | None = None, progress: bool = False) -> dict:
    """Write the site into the folder `out`, whole or not at all. ids: some pages only; the map always comes. most: at
    most so many figures a page, the default's first.

    Returns {pages, figures, bytes, seconds}. `ValueError` for an unknown page, and where `check_place` refuses.
    """
    names = [lesson.id for lesson in LESSONS]
    for id_ in ids:
        if id_ not in names:
            raise unknown("page", id_, names)
    check_place(out)
    chosen = [lesson for lesson in LESSONS if not ids or lesson.id in ids]
    began = time.monotonic()
    part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
    try:
        wanted = {lesson: states(lesson)[:most] for lesson in chosen}
        count = sum(map(len, wanted.values()))
        with tqdm(total=count, desc="site", unit="figure", disable=not progress) as bar:
            _write_shared(part, chosen)
            for lesson, values in wanted.items():
                bar.set_postfix_str(lesson.id)
                _write_page(part, lesson, chosen, values, bar)
        size = sum(file.stat().st_size for file in part.rglob("*") if file.is_file())
        about = {"toydiff": toydiff.__version__, "entries": sorted([*(f.name for f in part.iterdir()), MARK])}
        (part / MARK).write_text(json.dumps(about, indent=1) + "\n")
        _publish(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return {"pages": len(chosen), "figures": count, "bytes": size, "seconds": time.monotonic() - began}


def check_place(out: Path) -> None:
    """`ValueError` for a folder that holds anything but an earlier site, since it is replaced as a whole."""
    if out == Path.cwd():
        raise ValueError("the folder of a site is replaced as a whole: name another than the current one")
    if not out.exists():
        return
    there = {entry.name for entry in out.iterdir()}
    try:
        own = set(json.loads((out / MARK).read_text())["entries"]) if MARK in there else set()
    except (ValueError, KeyError, TypeError, OSError):
        own = set()
    if other := sorted(there - own):
        raise ValueError(
            f"the folder {str(out)!r} holds {other[0]!r}, which is not of an earlier site: name a new folder, or one "
            "that is empty"
        )


def _publish(part: Path, out: Path) -> None:
    """The finished folder takes its name; an earlier site makes room, and comes back if that fails."""
    umask = os.umask(0)
    os.umask(umask)
    part.chmod(0o777 & ~umask)  # a temporary folder is private
    if not out.exists():
        part.rename(out)
        return
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".old"))
    try:
        out.rename(old / "site")
        try:
            part.rename(out)
        except OSError:
            (old / "site").rename(out)
            raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def states(lesson: Lesson) -> list[dict]:
    """The states that are drawn, the default first: {control: value}.

    Presets, each control's few values with all others at their defaults, and all combinations of the controls of
    `Lesson.together`. A page whose figures the browser computes, or the app on request only, has its presets only.
    """
    default = {c.name: c.default for c in lesson.controls}
    named = {c.name: c for c in lesson.controls}
    found = [default, *(default | _chosen(named, preset) for preset in lesson.presets.values())]
    if not live(lesson) and lesson.long is None:
        found += [default | {c.name: value} for c in lesson.controls for value in c.few]
        grid = [[named[name].default, *named[name].few] for name in lesson.together]
        found += [
            default | dict(zip(lesson.together, values, strict=True)) for values in itertools.product(*grid) if values
        ]
    unique = {}
    for state in found:
        resting = dict.fromkeys(lesson.resting(state))
        state |= {name: default[name] for name in resting}
        unique.setdefault(tuple(state.values()), state)
    return list(unique.values())


def _chosen(controls: Mapping[str, Control], preset: Mapping[str, object]) -> dict:
    """A preset's values, as a link of it is read."""
    texts = {name: value if isinstance(value, list | tuple) else [value] for name, value in preset.items()}
    return {name: controls[name].read(list(map(str, words))) for name, words in texts.items()}


def live(lesson: Lesson) -> str | None:
    """The file that computes a lesson's figures in the browser; None where there is none."""
    return f"live-{lesson.id}.js" if lesson.id in exact.OWN else None


def _write_shared(part: Path, lessons: Sequence[Lesson]) -> None:
    files = part / pages.FILES
    files.mkdir()
    for name, source in SHARED.items():
        shutil.copyfile(source, files / name)
    for name, called in MODULES.items():
        text = (SCREEN / name).read_text()
        head, found, body = text.partition("export default function")
        assert found, name
        (files / name).write_text(f"(() => {{\n{head}window.{called} = function{body}}})();\n")
    (files / "style.css").write_text((SCREEN / "chart.css").read_text() + (HERE / "style.css").read_text())
    (part / pages.HOME).write_text(pages.first(lessons, ["frame.js", "site.js"]), encoding="utf-8")


def _write_page(part: Path, lesson: Lesson, lessons: Sequence[Lesson], wanted: Sequence[dict], bar: tqdm) -> None:
    files, own = part / pages.FILES, live(lesson)
    (files / lesson.id).mkdir()
    for k, state in enumerate(wanted):
        (files / lesson.id / f"{k}.js").write_text(packing.packed(drawn(lesson, state), k))
        bar.update()
    (files / f"{lesson.id}.js").write_text(f"toydiff.page({json.dumps(about(lesson, wanted))});\n", encoding="utf-8")
    scripts = ["chart.js", "frame.js", "site.js"]
    if own:
        shutil.copyfile(HERE / own, files / own)
        scripts += ["toydiff.js", "mixtures.js", "axes.js", *ALSO.get(lesson.id, ()), own]
    text = pages.page(lesson, lessons, [*scripts, f"{lesson.id}.js"], live=bool(own))
    (part / pages.address(lesson)).write_text(text, encoding="utf-8")


def about(lesson: Lesson, wanted: Sequence[dict]) -> dict:
    """What a page's script knows of the lesson: its controls' values, and the file of each state."""
    controls = []
    for c in lesson.controls:
        options = c.few if isinstance(c, Several) else list(getattr(c, "options", c.few))
        # what can be computed by the page has all values
        values = list(dict.fromkeys([*(options if live(lesson) else ()), *(state[c.name] for state in wanted)]))
        order = {value: k for k, value in enumerate(options)}
        values.sort(key=lambda value: order.get(value, -1))
        controls.append(
            {
                "name": c.name,
                "label": c.label,
                "values": [{"texts": c.texts(value), "code": c.code(value)} for value in values],
                "default": values.index(c.default),
                "words": list(c.options) if isinstance(c, Several) else None,
                "order": values,
            }
        )
    numbers = [[c["order"].index(state[c["name"]]) for c in controls] for state in wanted]
    default = {c.name: c.default for c in lesson.controls}
    call = ", ".join(f"{c.name}={c.code(c.default)}" for c in lesson.controls)
    return {
        "id": lesson.id,
        "title": lesson.title,
        "controls": [{key: value for key, value in c.items() if key != "order"} for c in controls],
        "states": numbers,
        "idle": [[name, str(value), list(names)] for (name, value), names in lesson.idle.items()],
        "code": lesson.code(default).replace(f"({call})", f"({CALL})"),
        "config": chart.CONFIG,
        "live": exact.data(lesson.id) if live(lesson) else None,
    }


def drawn(lesson: Lesson, state: Mapping[str, object]) -> dict:
    """A state's figure in the light, what differs in the dark, its words and its numbers; or what went wrong."""
    try:
        values = {c.name: c.value(state[c.name]) for c in lesson.controls}
        figure, rows = lesson.figure(**values)
    except EXPECTED as error:
        return {"error": " ".join(str(error).split())}
    said = lesson.words(rows)
    light, dark = (_data(figure, dark) for dark in (False, True))
    packing.pictures(light, dark)
    return {
        "figure": light,
        "dark": list(packing.changes(light, dark)),
        "words": pages.marked(said),
        "alt": f"{lesson.title}. {said.replace('*', '')}",
        "rows": json.loads(json.dumps(rows), parse_constant=lambda _: None),
    }


def _data(figure: go.Figure, dark: bool) -> dict:
    data = json.loads(for_screen(copy.deepcopy(figure), dark=dark).to_json())
    for axis in data["layout"].values():
        if isinstance(axis, dict) and "matches" in axis:
            axis.pop("scaleanchor", None)  # it has the other's scale already, and plotly.js warns of both
    return data
