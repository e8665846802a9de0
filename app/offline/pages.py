"""The pages' HTML: what stands on a page of the app, in its order. Names of classes are the app's, which chart.js and
frame.js look for."""

import base64
import html
import re
from collections.abc import Sequence
from pathlib import Path

from .equation import drawn
from screen import home
from screen.controls import Control, Mixture, Number, Several
from screen.lesson import Lesson

ICON = Path(__file__).parent.parent / "screen" / "icon.png"
FILES = "toydiff"
"""The folder of what the pages share, beside them."""
PLOTLY = "plotly-cartesian.min.js"
HOME = "index.html"


def page(lesson: Lesson, lessons: Sequence[Lesson], scripts: Sequence[str], *, live: bool) -> str:
    """A lesson's page; scripts: what it loads, in this order; live: whether they compute its figures."""
    at = [one.id for one in lessons].index(lesson.id)
    row = [HOME, *(address(one) for one in lessons), None]
    ask = ""
    if lesson.ask:
        question, answer = map(marked, lesson.ask)
        ask = (
            f'<details class="ask"><summary>Predict first</summary><div class="card"><b>{question}</b>'
            f"<details><summary>The answer</summary>{answer}</details></div></details>"
        )
    presets = "".join(f'<a href="{link(lesson, state)}">{plain(title)}</a>' for title, state in lesson.presets.items())
    body = f"""
<header class="st-key-head">
{menu(lessons, lesson)}
<h2>{plain(lesson.title)}</h2>
{ask}
<a class="button" id="reset" href="{address(lesson)}">Reset</a>
{THEME}
{beside(row[at], row[at + 2])}
</header>
<div class="st-key-drawer"><button type="button">Controls</button></div>
<form class="st-key-controls">{"".join(control(c, live) for c in lesson.controls)}</form>
<p class="notice" role="status" hidden></p>
<main>
<div class="st-key-picture"><div class="stBidiComponent"><div class="figure"></div></div></div>
<section class="st-key-words"><div class="said"></div>
<div>{drawn(lesson.equation)}<p class="small">{marked(lesson.source)}</p></div></section>
<p class="st-key-files"><span>Save the figure as</span> <button type="button" id="png">PNG</button>
<button type="button" id="json">numbers (JSON)</button>
<label class="pace">Play <select id="speed"><option value="0.5">½×</option>
<option value="1" selected>1×</option><option value="2">2×</option></select></label>
<label class="pace"><input type="checkbox" id="loop"> again and again</label>
<span class="keys">keys: ← → Home End move the slider, space plays, F presents; Enter, on the figure, or a click on a
dot shows its path alone</span></p>
{f'<p class="presets"><span>For a lecture</span> {presets}</p>' if presets else ""}
{f'<p class="small">{marked(lesson.in_app)}</p>' if lesson.in_app else ""}
<details class="code"><summary>The code of this figure</summary>
<button type="button" id="copy">Copy</button><pre></pre></details>
</main>"""
    return whole(lesson.title, body, scripts)


def first(lessons: Sequence[Lesson], scripts: Sequence[str]) -> str:
    """The map."""
    number = {lesson.id: k for k, lesson in enumerate(lessons, 1)}
    cards = []
    for name, cost, members in home.families(lessons):
        links = "".join(
            f'<p><a href="{address(one)}">{number[one.id]}. {plain(one.menu)}</a><span class="small">'
            f"{plain(one.title)}</span></p>"
            for one in members
        )
        cards.append(f'<section class="card"><b>{plain(name)}</b><p class="small">{plain(cost)}</p>{links}</section>')
    words = "".join(f"<dt>{plain(word)}</dt><dd>{plain(meaning)}</dd>" for word, meaning in home.WORDS.items())
    body = f"""
<header class="st-key-head">{menu(lessons)}<h2>{plain(home.QUESTION)}</h2>{THEME}
{beside(None, address(lessons[0]))}</header>
<main class="home"><p>{plain(home.START)}</p>
<div class="cards">{"".join(cards)}</div>
<p class="small">Keys: PageDown and PageUp turn the pages, F leaves title, figure and controls only.</p>
<details class="glossary"><summary>Words</summary><dl>{words}</dl></details></main>
<div class="st-key-drawer" hidden><button type="button">Controls</button></div>"""
    return whole(home.QUESTION, body, scripts)


def whole(title: str, body: str, scripts: Sequence[str]) -> str:
    # the icon is in the page: browsers ask for one at an address again whenever the page's own address changes
    icon = base64.b64encode(ICON.read_bytes()).decode()
    figures = f'<link rel="preload" as="script" href="{FILES}/{PLOTLY}">\n' if "chart.js" in scripts else ""
    tags = "".join(f'<script src="{FILES}/{name}" defer></script>\n' for name in scripts)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{plain(title)} · toydiff</title>
<link rel="icon" href="data:image/png;base64,{icon}">
<link rel="stylesheet" href="{FILES}/style.css">
{figures}<script src="{FILES}/theme.js"></script>
{tags}</head>
<body class="stApp"><noscript>These pages are drawn by your browser, and need JavaScript.</noscript>{body}
</body>
</html>
"""


THEME = '<button type="button" id="theme" aria-label="Light or dark" title="Light or dark">◐</button>'


def menu(lessons: Sequence[Lesson], here: Lesson | None = None) -> str:
    """The list of all pages."""
    places = [(HOME, "The map", here is None)]
    places += [(address(one), f"{k}. {one.menu}", one is here) for k, one in enumerate(lessons, 1)]
    links = "".join(
        f'<a href="{to}"{" aria-current=page" if current else ""}>{plain(name)}</a>' for to, name, current in places
    )
    return f'<details class="menu"><summary aria-label="Pages">☰</summary><nav class="card">{links}</nav></details>'


def beside(before: str | None, after: str | None) -> str:
    """The links that PageUp and PageDown follow."""
    sides = (("before", before, "‹", "Previous page (PageUp)"), ("after", after, "›", "Next page (PageDown)"))
    return "".join(
        f'<span class="st-key-{name}"><a class="button" href="{to}" aria-label="{words}" title="{words}">{sign}</a>'
        "</span>"
        for name, to, sign, words in sides
        if to
    )


def control(of: Control, live: bool) -> str:
    """A control's place; site.js fills it with the values that there are. live: whether several words can be chosen
    freely."""
    if live and isinstance(of, Several):
        return (
            f'<div class="control wide" data-name="{of.name}"><span>{plain(of.label)}</span>'
            '<details class="several"><summary></summary><div class="card"></div></details></div>'
        )
    wide = " wide" if isinstance(of, Mixture | Several) else ""
    field = (
        f'<input type="range" name="{of.name}"><output></output>'
        if isinstance(of, Number)
        else f'<select name="{of.name}"></select>'
    )
    about = plain(re.sub(r"[*`]", "", getattr(of, "help", None) or ""))
    return f'<label class="control{wide}" title="{about}"><span>{plain(of.label)}</span>{field}</label>'


def address(lesson: Lesson) -> str:
    return f"{lesson.id}.html"


def link(lesson: Lesson, state: dict) -> str:
    """The address of a state."""
    from urllib.parse import urlencode

    return html.escape(f"{address(lesson)}#{urlencode(state, doseq=True)}")


def plain(text: str) -> str:
    return html.escape(text)


def marked(text: str) -> str:
    """Markdown's bold, italic and code as HTML; everything else as it is."""
    text = re.sub(r"`(.+?)`", r"<code>\1</code>", plain(text))
    return re.sub(r"\*(.+?)\*", r"<i>\1</i>", re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text))
