"""An equation as a drawing: a page that works from a folder cannot fetch what sets formulas."""

import html
import re

import matplotlib
from matplotlib.textpath import TextPath

SIZE, GAP = 40, 0.35
"""The height of letters, and the room between two lines in such heights."""
PLAIN = (
    (re.compile(r"\\(big|Big|bigg|Bigg)[lrm]?(?![a-zA-Z])"), ""),
    (re.compile(r"\\(textstyle|displaystyle)(?![a-zA-Z])"), ""),
    (re.compile(r"\\[td]frac(?![a-zA-Z])"), r"\\frac"),
    (re.compile(r"\\(mathbb|mathrm|mathcal|mathbf) ([a-zA-Z])"), r"\\\1{\2}"),
    (re.compile(r"\\(begin|end)\{aligned\}"), ""),
)
"""What LaTeX has and matplotlib's mathtext has not, and what stands in its place."""


def drawn(tex: str) -> str:
    """LaTeX as inline SVG in the colour of the text around it, by matplotlib's mathtext; lines of `aligned` meet at
    their &. Where mathtext lacks a word, the LaTeX itself."""
    for form, instead in PLAIN:
        tex = form.sub(instead, tex)
    rows = [row.split("&") for row in tex.split(r"\\")]
    try:
        with matplotlib.rc_context({"mathtext.fontset": "cm"}):
            # a row's parts, each with the column that it stands in; None: the only one
            paths = [
                [(j if len(row) > 1 else None, _path(part)) for j, part in enumerate(row) if part.strip()]
                for row in rows
            ]
    except ValueError:
        return f"<code>{html.escape(tex)}</code>"
    # the left parts end where the right ones begin
    middle = max((path.get_extents().x1 for row in paths for j, path in row if j == 0), default=0.0)
    pieces, right, bottom = [], 1.0, 0.0
    for k, row in enumerate(paths):
        boxes = [path.get_extents() for _, path in row]
        down = bottom + (GAP * SIZE if k else 0.0) + max(box.y1 for box in boxes)  # where letters stand
        for (j, path), box in zip(row, boxes, strict=True):
            left = 0.0 if j is None else middle - box.x1 if j == 0 else middle + 0.2 * SIZE - box.x0
            pieces.append(_commands(path, left, down))
            right = max(right, left + box.x1)
        bottom = down - min(box.y0 for box in boxes)
    width, height = right + 2, bottom + 4
    return (
        f'<svg class="equation" role="img" aria-label="{html.escape(tex)}" viewBox="0 -2 {width:.0f} {height:.0f}" '
        f'style="width:{width / SIZE:.2f}em"><path fill="currentColor" d="{"".join(pieces)}"/></svg>'
    )


def _path(tex: str) -> TextPath:
    return TextPath((0, 0), f"${tex.strip()}$", size=SIZE)


def _commands(path: TextPath, left: float, down: float) -> str:
    """A path as SVG writes it: y points down there."""
    letter = {1: "M", 2: "L", 3: "Q", 4: "C", 79: "Z"}
    out = []
    for points, code in path.iter_segments(simplify=False, curves=True):
        numbers = [] if code == 79 else [left + v if k % 2 == 0 else down - v for k, v in enumerate(points.tolist())]
        out.append(letter[int(code)] + " ".join(f"{v:.1f}" for v in numbers))
    return "".join(out)
