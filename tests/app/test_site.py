"""`toydiff site`: pages that need no server, their links and controls in a browser, and the mathematics that a page
does by itself beside Python's.

Debian's chromium is needed; without one the tests in it are skipped, unless TOYDIFF_BROWSER=1 says that there must be
one.
"""

import base64
import gzip
import io
import json
import os
import random
import re
import sys

import browser
import numpy as np
import pytest
import torch
from PIL import Image

import toydiff
from toydiff.cli import command as cli
from toydiff.mixtures import random_mixture
from toydiff.plots.on_screen import source
from toydiff.plots.screen import for_screen

pytest.importorskip("streamlit")
sys.path.insert(0, str(browser.APP))

import offline.build as built
from lessons import LESSONS
from offline import equation, exact, packing, pages
from screen.mixtures import mixture_of

SCREENS = {
    "screen": {"width": 1280, "height": 800},
    "phone": {"width": 390, "height": 844},
    "tablet": {"width": 820, "height": 1180},
    "stage": {"width": 1920, "height": 1080},
}
HEADS = f"() => document.querySelector('{browser.FIGURE}').layout.annotations.map((note) => note.text)"
FEW = 6
"""States of a page here: the default, presets, and what comes first of the others."""
states = built.states


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The folder of a small site: the map, and four pages."""
    out = tmp_path_factory.mktemp("site") / "lessons"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(built, "states", lambda lesson: states(lesson)[:FEW])
        assert cli.main(["site", "--out", str(out), "--pages", "paths", "orders", "grids", "tokens"]) == 0
    return out


@pytest.fixture(scope="module")
def every_page(tmp_path_factory):
    """The folder of a site of all pages, each with its default only."""
    out = tmp_path_factory.mktemp("pages") / "lessons"
    assert built.build(out, most=1)["figures"] == len(LESSONS)
    return out


@pytest.fixture(scope="module")
def chromium():
    if browser.executable() is None:
        if os.environ.get(browser.REQUIRED) == "1":
            pytest.fail("no chromium on this machine, and TOYDIFF_BROWSER=1 asks for one: apt-get install chromium")
        pytest.skip("no chromium on this machine: apt-get install chromium")
    pytest.importorskip("playwright.sync_api")
    with browser.chromium() as running:
        yield running


@pytest.fixture
def open_page(chromium, site):
    """open_page(address) -> a tab, whose console complains of nothing, and whose page is no wider than the screen."""
    contexts, complaints = [], []

    def open_(address, *, screen="screen", scheme="light", figure=True, site=site, **device):
        contexts.append(chromium.new_context(viewport=SCREENS[screen], color_scheme=scheme, **device))
        page = contexts[-1].new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda m: complaints.append(m.text) if m.type in ("error", "warning", "trace") else None)
        page.on("request", lambda r: complaints.append(r.url) if not r.url.startswith(("file:", "data:")) else None)
        page.goto(f"{site.as_uri()}/{address}")
        if figure:
            page.wait_for_selector(browser.MARKS)
        wide = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wide <= 0
        return page

    yield open_
    for context in contexts:
        context.close()
    assert not complaints, complaints


def until(page, truth):
    page.wait_for_function(f"() => {{ try {{ return {truth}; }} catch {{ return false; }} }}")


CUT = """() => {
  const seen = (one) => one.checkVisibility({ visibilityProperty: true }) && one.getBoundingClientRect().width;
  const ruler = document.createElement("canvas").getContext("2d"), out = [];
  const edge = document.documentElement.clientWidth;
  const told = (one, text) => one.title === text && getComputedStyle(one).textOverflow === "ellipsis";
  const kinds = "h2, p, b, a, dt, dd, button, summary, output, .control > span, .said, .equation";
  for (const one of document.querySelectorAll(kinds)) {
    const { left, right } = one.getBoundingClientRect(), inline = getComputedStyle(one).display === "inline";
    if (!seen(one) || one.closest(".modebar, .mode, .board")) continue;
    const cut = !inline && !told(one, one.textContent) && one.scrollWidth > one.clientWidth + 1;
    if (left < -1 || right > edge + 1 || cut) out.push(one.textContent);
  }
  for (const one of document.querySelectorAll("select")) {
    const { font, paddingLeft } = getComputedStyle(one), text = one.selectedOptions[0]?.textContent ?? "";
    ruler.font = font;
    const room = one.clientWidth - 2 * parseFloat(paddingLeft) - 12;
    if (seen(one) && ruler.measureText(text).width > room && !told(one, text)) out.push(text);
  }
  return out;
}"""
"""The texts of a page, outside of its figure, that have too little room; a select's arrow takes 12 pixels, and what it
cuts off with an ellipsis its title says."""
BOXES = """() => [...document.querySelectorAll("header > *, .control, .st-key-drawer, .notice, main > *")]
    .filter((one) => one.checkVisibility() && !one.hidden)
    .map((one) => [one.className || one.id || one.textContent, one.getBoundingClientRect()])
    .map(([name, box]) => [name, box.left, box.top, box.right, box.bottom])"""
REACHABLE = """() => {
  const all = [...document.querySelectorAll("a[href], button, input, select, summary")];
  const seen = all.filter((one) => one.checkVisibility() && !one.disabled);
  seen.forEach((one, k) => (one.dataset.number = k));
  return seen.length;
}"""
"""Numbers whatever can be pressed or moved; how many there are."""


def overlap(a, b):
    """Two boxes overlap by more than a pixel across and three down: letters have some air around them."""
    return min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 3


# ---- what is written


def test_every_state_can_be_drawn_and_every_equation_is():
    for lesson in LESSONS:
        assert "<svg" in equation.drawn(lesson.equation), lesson.id
        found = states(lesson)
        assert found[0] == {c.name: c.default for c in lesson.controls}
        assert len({tuple(state.values()) for state in found}) == len(found)
        for state in found:
            for control in lesson.controls:
                control.value(state[control.name])
        assert set(lesson.together) <= {c.name for c in lesson.controls}, lesson.id
    assert "<code>" in equation.drawn(r"\notaword")
    assert "<svg" in equation.drawn(
        r"\begin{aligned}\text{passes}&=a\\&\quad+b\end{aligned}"
    )  # a row that only goes on


def test_combinations_of_controls_that_go_together():
    [lesson] = [one for one in LESSONS if one.id == "tokens"]
    found = states(lesson)
    assert {(s["source"], s["kappa"], s["steps"]) for s in found} >= {
        (source, kappa, N) for source in ("mask", "uniform") for kappa in ("linear", "cosine") for N in (1, 8, 64)
    }


def test_changes_make_the_second_of_the_first():
    one = {"a": [1, {"b": 2}], "c": "x", "d": [1, 2]}
    other = {"a": [1, {"b": 3, "e": 4}], "c": "y", "d": [1]}
    assert list(packing.changes(one, other)) == [
        (["a", 1, "b"], 3),
        (["a", 1, "e"], 4),
        (["c"], "y"),
        (["d"], [1]),
    ]


def test_what_is_packed_looks_the_same():
    values = np.array([np.nan, 0.0, -1.2345678, np.nan, np.nan, *np.linspace(-3, 3, 40)])
    typed = {"dtype": "f8", "bdata": base64.b64encode(values.tobytes()).decode()}
    far = {"dtype": "f8", "bdata": base64.b64encode((100 * values).tobytes()).decode()}
    trace = {"x": typed, "y": typed, "yaxis": "y2", "customdata": far | {"shape": "45, 1"}, "n": [1, 2.5]}
    layout = {"xaxis": {"range": [-4, 4]}, "yaxis2": {"type": "log"}}
    sheet = np.repeat(np.arange(48, dtype=np.uint8).reshape(4, 4, 3), 3, axis=1)
    light, dark = (
        {"data": [trace], "layout": layout | {"images": [{"source": source(p)}]}} for p in (sheet, 255 - sheet)
    )
    packing.pictures(light, dark)
    assert [path[-1] for path, _ in packing.changes(light, dark)] == ["colors"]
    text = packing.packed({"figure": light | {"frames": [{"traces": [0], "data": [{"x": far}]}]}}, 3)
    assert text.startswith('toydiff.take(3,"')
    head, _, body = gzip.decompress(base64.b64decode(text.split('"')[1])).partition(b"\0")
    figure = json.loads(head)["figure"]
    numbers = np.frombuffer(body, np.uint8).reshape(2, -1).T.copy().view("<i2").ravel()

    def array(part):
        first, count, step = part["packed"]
        taken = numbers[first : first + count].astype(float)
        return np.where(taken == packing.GAP, np.nan, step * np.where(taken == packing.GAP, 0, taken).cumsum())

    [drawn] = figure["data"]
    assert array(drawn["x"]) == pytest.approx(values, abs=8 / 2**14, nan_ok=True)
    assert array(drawn["customdata"]) == pytest.approx(100 * values, abs=600 / 2**14, nan_ok=True)
    assert (drawn["customdata"]["shape"], drawn["n"]) == ("45, 1", [1, 2.5])
    for part, whole, off in ((drawn["y"], values, 2**-11), (figure["frames"][0]["data"][0]["x"], 100 * values, 2**-11)):
        seen = np.frombuffer(base64.b64decode(part["bdata"]), dtype=part["dtype"])  # on a log axis, and far outside
        assert part["dtype"] == "f4"
        assert seen == pytest.approx(whole, rel=off, nan_ok=True)
    [picture] = figure["layout"]["images"]
    first, count = picture["source"]["pixels"]
    colors = np.frombuffer(bytes.fromhex(picture["source"]["colors"]), np.uint8).reshape(-1, 3)
    small = colors[numbers[first : first + count]].reshape(-1, picture["source"]["width"], 3)
    assert (picture["source"]["times"], small.shape) == ([1, 3], (4, 4, 3))
    assert (small.repeat(3, axis=1) == sheet).all()


def test_the_site_is_whole(site):
    assert {file.name for file in site.iterdir()} == {
        "grids.html",
        "index.html",
        "orders.html",
        "paths.html",
        "tokens.html",
        "toydiff",
        built.MARK,
    }
    assert sum(file.stat().st_size for file in site.rglob("*") if file.is_file()) < 3e6
    assert not list(site.parent.glob(".lessons*"))  # nothing half-written is left
    assert site.stat().st_mode & 0o055 == 0o055  # whoever serves it may read it


def test_an_earlier_site_stays_where_the_next_one_fails(tmp_path, monkeypatch):
    out = tmp_path / "site"
    monkeypatch.setattr(built, "states", lambda lesson: states(lesson)[:1])
    monkeypatch.setattr(built, "drawn", lambda lesson, state: {"error": "none here"})
    built.build(out, ["tokens"])
    before = (out / "index.html").read_bytes()
    monkeypatch.setattr(built, "drawn", lambda lesson, state: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        built.build(out, ["paths"])
    assert (out / "index.html").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["site"]
    monkeypatch.setattr(built, "drawn", lambda lesson, state: {"error": "none here"})
    built.build(out, ["paths"])  # and is replaced where it does not
    assert not (out / "tokens.html").exists()
    assert [file.name for file in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--out"),
        (["--out", ""], "must name a file or a folder"),
        (["--out", "file"], "'file' is a file"),
        (["--out", "file/inside"], "cannot write into the folder"),
        (["--out", "full"], "holds 'thesis.tex', which is not of an earlier site"),
        (["--out", "."], "name another than the current one"),
        (["--out", "new", "--pages", "pahts"], "did you mean 'paths'"),
    ],
)
def test_a_wrong_place_or_page_is_one_line(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    assert cli.main(["site", *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert (out, err.count("\n")) == ("", 1)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "full"]


@pytest.mark.parametrize(("size", "said"), [(24.9e6, False), (25.1e6, True)])
def test_a_large_site_says_so(tmp_path, monkeypatch, capsys, size, said):
    made = {"pages": 2, "figures": 9, "bytes": size, "seconds": 3}
    monkeypatch.setattr(built, "build", lambda *_, **__: made)
    assert cli.main(["site", "--out", str(tmp_path / "site")]) == 0
    out = capsys.readouterr().out
    assert f"9 figures, {size / 1e6:.1f} MB" in out
    assert ("that is more than 25 MB" in out) == said


# ---- in a browser


@pytest.mark.slow
@pytest.mark.xdist_group("browser")
class TestInABrowser:
    @pytest.mark.parametrize("screen", ["screen", "phone"])
    def test_the_map_leads_to_the_pages(self, open_page, screen):
        page = open_page("index.html", screen=screen, figure=False)
        page.keyboard.press("PageDown")
        page.wait_for_selector(browser.MARKS)
        assert page.locator("h2").inner_text() == LESSONS[0].title
        page.keyboard.press("PageUp")
        page.get_by_role("link", name="Tokens").click()
        page.wait_for_selector(browser.MARKS)

    @pytest.mark.parametrize("screen", ["screen", "phone"])
    def test_a_control_moves_the_figure_and_the_address(self, open_page, screen):
        page = open_page("tokens.html", screen=screen)
        if screen == "phone":
            page.get_by_role("button", name="Controls").click()
        said = page.locator(".said").inner_text()
        assert "After 8 steps" in said
        page.locator("[name=samplers]").select_option(label="maskgit")
        until(page, "document.querySelector('.said').textContent.includes('maskgit')")
        until(page, "location.hash.includes('samplers=maskgit')")
        assert "went back" in page.locator(".notice").inner_text() or page.locator(".notice").is_hidden()
        again = open_page(page.url.rsplit("/", 1)[1], screen=screen)
        assert again.locator(".said").inner_text() == page.locator(".said").inner_text()
        again.locator("#reset").click()
        until(again, f"document.querySelector('.said').textContent === {json.dumps(said)}")

    @pytest.mark.parametrize("screen", SCREENS)
    @pytest.mark.parametrize("id_", ["index", *(lesson.id for lesson in LESSONS)])
    def test_no_word_is_cut_off_or_lies_on_another(self, open_page, every_page, id_, screen):
        page = open_page(f"{id_}.html", screen=screen, figure=id_ != "index", site=every_page)
        page.wait_for_timeout(500)
        if screen in ("phone", "tablet") and id_ != "index":
            page.get_by_role("button", name="Controls").click()
        assert not page.evaluate(CUT)
        boxes = page.evaluate(BOXES)
        assert not [(a, b) for k, (a, *one) in enumerate(boxes) for b, *other in boxes[:k] if overlap(one, other)]
        if id_ == "index":
            return
        assert not page.evaluate(browser.COVERED)
        words, place = page.evaluate(browser.LETTERS), page.locator(browser.FIGURE).bounding_box()
        right, bottom = place["x"] + place["width"], place["y"] + place["height"]
        assert len(words) > 2
        outside = [
            word
            for word, *at in words
            if at[0] < place["x"] - 1 or at[1] < place["y"] - 1 or at[2] > right + 1 or at[3] > bottom + 1
        ]
        assert not outside
        assert not [(a, b) for k, (a, *one) in enumerate(words) for b, *other in words[:k] if overlap(one, other)]

    @pytest.mark.parametrize("id_", ["index", *(lesson.id for lesson in LESSONS)])
    def test_the_keyboard_alone_reaches_everything(self, open_page, every_page, id_):
        page = open_page(f"{id_}.html", figure=id_ != "index", site=every_page)
        wanted = page.evaluate(REACHABLE)
        assert wanted >= 5
        reached = set()
        for _ in range(wanted + 3):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("() => document.activeElement.dataset.number"))
        assert {str(k) for k in range(wanted)} <= reached
        page.locator(".menu summary").focus()  # and what a list holds, once it is open
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        assert page.evaluate("() => document.activeElement.closest('.menu nav')?.textContent.includes('The map')")

    def test_a_link_that_does_not_fit_says_so(self, open_page):
        page = open_page("tokens.html#steps=7&mode=<b>")
        assert "Steps" not in page.locator("h2").inner_text()
        said = page.locator(".notice").inner_text()
        assert "N (steps) 7 is not on this site" in said
        assert "the link has mode" in said.lower()

    def test_dark_and_in_a_frame(self, open_page):
        page = open_page("tokens.html?embed", scheme="dark")
        paper = f"document.querySelector('{browser.FIGURE}').layout.paper_bgcolor"
        assert page.evaluate(paper) == "#14161A"
        assert page.locator(".st-key-words").is_hidden()
        assert page.locator("h2").is_visible()
        page.evaluate("toydiffTheme(); dispatchEvent(new Event('toydiff-theme'))")
        until(page, f"{paper} === '#FFFFFF'")

    def test_figures_of_files_are_those_of_the_app(self, open_page, every_page):
        """Places to a ten-thousandth of their plane's width, and pictures pixel by pixel, in the dark, too."""
        [lesson] = [one for one in LESSONS if one.id == "halving"]
        figure, _ = lesson.figure(**{c.name: c.value(c.default) for c in lesson.controls})
        for_screen(figure, dark=True)
        page = open_page("halving.html", scheme="dark", site=every_page)
        seen = page.evaluate(
            f"() => {{ const {{ _fullData, layout }} = document.querySelector('{browser.FIGURE}'); return {{"
            "data: _fullData.map(({ x, y, marker }) => [x, y, marker?.color ?? []].map((v) => [...v])),"
            "images: layout.images.map((image) => image.source) }; }"
        )
        plane = np.ptp(figure.layout.xaxis.range)
        for mine, trace in zip(seen["data"], figure.data, strict=True):
            angles = trace.marker.color if trace.mode == "markers" else ()
            for values, theirs, width in zip(mine, (trace.x, trace.y, angles), (plane, plane, 360), strict=True):
                seen_here = [np.nan if value is None else value for value in values]
                assert seen_here == pytest.approx(list(theirs), abs=width / 2**13 * 0.51, nan_ok=True)
        assert len(seen["images"]) == len(figure.layout.images) > 0
        for mine, image in zip(seen["images"], figure.layout.images, strict=True):
            assert (pixels_of(mine) == pixels_of(image.source)).all()

    def test_the_code_has_the_values_on_show(self, open_page):
        page = open_page("paths.html#steps=7&b=heun")
        code = page.evaluate("document.querySelector('pre').textContent")
        assert "paths(mixture=toydiff.mixture('ring'), schedule='vp', a='ddim', b='heun', steps=7)" in code
        compile(code, "page", "exec")

    def test_paths_are_those_of_the_app(self, open_page):
        """Another mixture, schedule, solvers and steps than the page's own: heads, words, places and frames."""
        [lesson] = [one for one in LESSONS if one.id == "paths"]
        word = "-1,0.5,0.3,1;1.2,-0.4,0.15,2;0.3,1.5,0.2,0.5"
        chosen = {"mixture": word, "schedule": "ve", "a": "ddpm", "b": "guarded", "steps": 9}
        figure, rows = lesson.figure(**chosen | {"mixture": mixture_of(word)})
        page = open_page(pages.link(lesson, chosen).replace("&amp;", "&"))
        heads = [text.replace(",<br>", ", ") for text in page.evaluate(HEADS)]
        assert heads == [note.text for note in figure.layout.annotations]
        assert page.evaluate("document.querySelector('.said').innerHTML") == pages.marked(lesson.words(rows))
        seen = page.evaluate(
            f"() => {{ const p = document.querySelector('{browser.FIGURE}'); return {{"
            "range: [p.layout.xaxis.range, p.layout.yaxis2.range], image: p.layout.images[1].sizex,"
            "x: p.data.slice(0, 6).map((t) => [...t.x]), frames: p._transitionData._frames.map((f) => f.data[0].y) }; }"
        )
        assert seen["range"] == [
            pytest.approx(list(figure.layout.xaxis.range)),
            pytest.approx(list(figure.layout.yaxis2.range)),
        ]
        assert seen["image"] == pytest.approx(figure.layout.images[1].sizex)
        for mine, trace in zip(seen["x"], figure.data, strict=True):
            assert [v for v in mine if v is not None] == pytest.approx([v for v in trace.x if v == v], abs=2e-4)
        assert len(seen["frames"]) == len(figure.frames)
        assert seen["frames"][4] == pytest.approx(list(figure.frames[4].data[0].y), abs=2e-4)

    def test_orders_are_those_of_the_app(self, open_page):
        [lesson] = [one for one in LESSONS if one.id == "orders"]
        word = "-1,0.5,0.4,1;1.2,-0.4,0.3,2"
        chosen = {"mixture": word, "schedule": "cosine", "grid": "karras", "guess": "2"}
        chosen["solvers"] = ("ddim", "dpm++3m-published", "ab3")
        figure, rows = lesson.figure(**chosen | {"mixture": mixture_of(word)})
        page = open_page(pages.link(lesson, chosen).replace("&amp;", "&"))
        assert page.evaluate("document.querySelector('.said').innerHTML") == pages.marked(lesson.words(rows))
        seen = page.evaluate(
            f"() => {{ const {{ data, layout }} = document.querySelector('{browser.FIGURE}'); return {{"
            "data: data.map(({ name, x, y, line, marker }) => [name, x, y, line.color, marker.symbol]),"
            "axes: [layout.xaxis.range, layout.yaxis.range, layout.xaxis.tickvals],"
            "notes: layout.annotations.map(({ text, x, y, font }) => [text, x, y, font.color]) }; }"
        )
        slopes = [note for note in figure.layout.annotations if (note.text or "").startswith("slope")]
        assert slopes, "slopes stand beside their curves"
        for mine, note in zip(seen["notes"], slopes, strict=False):
            assert mine == [note.text, pytest.approx(note.x), pytest.approx(note.y), note.font.color]
        for mine, trace in zip(seen["data"], figure.data, strict=True):
            assert [mine[k] for k in (0, 1, 3, 4)] == [
                trace.name, list(trace.x), trace.line.color, trace.marker.symbol
            ]  # fmt: skip
            assert mine[2] == pytest.approx(list(trace.y), rel=1e-6)
        assert seen["axes"] == [
            pytest.approx(list(axis)) for axis in (figure.layout.xaxis.range, figure.layout.yaxis.range)
        ] + [list(figure.layout.xaxis.tickvals)]
        page.locator(".several summary").click()
        page.get_by_label("heun", exact=True).check()
        until(page, "location.hash.includes('solvers=heun')")
        until(page, f"document.querySelector('{browser.FIGURE}').data.length === 4")

    def test_grids_are_those_of_the_app(self, open_page):
        """A ready-made mixture whose classes are chains of modes, and one by hand; with guidance and without."""
        [lesson] = [one for one in LESSONS if one.id == "grids"]
        cases = [
            {"mixture": "spirals", "schedule": "cosine", "grids": ("karras", "quadratic"), "steps": 5, "g": 3},
            {"mixture": "-1,0.5,0.4,1;1.2,-0.4,0.3,2", "schedule": "ve", "grids": ("shifted-lambda-wide",), "steps": 8},
            {"mixture": "grid", "schedule": "vp", "grids": ("shifted-lambda",), "steps": 8, "g": 5},
            {"mixture": "ring", "schedule": "vp", "grids": ("shifted-lambda", "uniform"), "steps": 8},
        ]  # fmt: skip
        page = open_page("grids.html")
        for case in cases:
            chosen = {"g": 1} | case
            figure, rows = lesson.figure(**chosen | {"mixture": mixture_of(chosen["mixture"])})
            page.goto(page.url.split("#")[0] + "#" + pages.link(lesson, chosen).replace("&amp;", "&").split("#")[1])
            until(page, f"document.querySelector('{browser.FIGURE}').data.length === {len(figure.data)}")
            assert page.evaluate("document.querySelector('.said').innerHTML") == pages.marked(lesson.words(rows))
            seen = page.evaluate(
                f"() => {{ const {{ data, layout }} = document.querySelector('{browser.FIGURE}'); return {{"
                "data: data.map(({ name, x, y, marker }) => [name, x, y, marker.symbol]),"
                "axes: [layout.xaxis2.range, layout.xaxis3.range], ticks: layout.xaxis3.ticktext }; }"
            )
            D = mixture_of(chosen["mixture"]).denoiser(toydiff.schedule(chosen["schedule"]))
            spread = {"data_std": D.data_std, "guidance_scale": chosen["g"]}
            ts = toydiff.time_grid(D.schedule, chosen["steps"], chosen["grids"][0], **spread)
            assert seen["data"][0][1] == pytest.approx(ts.tolist(), abs=1e-9)  # the steps that were taken
            for mine, trace in zip(seen["data"], figure.data, strict=True):
                symbol = trace.marker.symbol
                assert [mine[0], mine[2]] == [trace.name, list(trace.y)]
                assert mine[3] == (symbol if isinstance(symbol, str) else list(symbol))
                if trace.showlegend is None or chosen["grids"] != ("shifted-lambda",):
                    assert mine[1] == pytest.approx(list(trace.x), rel=1e-6, abs=1e-12)
            assert seen["axes"][1] == pytest.approx(list(figure.layout.xaxis3.range))
            assert seen["ticks"] == list(figure.layout.xaxis3.ticktext)
        # the margins stay where they are while steps are moved, so that a figure is laid out once
        sizes = f"JSON.stringify(document.querySelector('{browser.FIGURE}')._fullLayout._size)"
        moved = set()
        for k, steps in enumerate((3, 5, 8, 10, 15, 20, 30, 50)):
            page.locator("input[name=steps]").evaluate(
                "(field, k) => { field.value = k; field.dispatchEvent(new Event('input')); }", k
            )
            until(page, f"document.querySelector('{browser.FIGURE}').data[0].x.length === {steps + 1}")
            moved.add(page.evaluate(sizes))
        assert len(moved) == 1
        axis = page.evaluate(f"document.querySelector('{browser.FIGURE}').layout.xaxis3")
        assert (axis.get("ticktext"), axis["dtick"]) == (None, 1)  # of many decades the powers of 10

    @pytest.mark.parametrize("schedule", toydiff.SCHEDULES)
    def test_the_denoiser_and_the_score_are_pythons(self, open_page, schedule):
        """At random places and times; of one class, with guidance and without; and the score as the gradient of the
        logarithm of the density."""
        page, rng = open_page("grids.html"), torch.Generator().manual_seed(3)
        for name in ("spirals", "random"):
            mixture = toydiff.mixture(name)
            D = mixture.denoiser(toydiff.schedule(schedule))
            _, labels = mixture.sample_labelled(12, rng)
            for t, g in ((1.0, 1.0), (0.7, 4.0), (0.31, 2.0), (0.02, 1.0)):
                at = mixture.marginal(D.schedule, t)
                x = at.sample(12, rng, dtype=torch.float64).requires_grad_()
                [slope] = torch.autograd.grad(at.log_prob(x).sum(), x)
                x = x.detach()
                free, led = D(x, t), D(x, t, labels, g)
                given = {
                    "rows": [[*m, w, *s, *U] for m, w, s, U in parts(mixture)], "schedule": schedule, "t": t, "g": g,
                    "classes": mixture.labels.tolist(), "cond": labels.tolist(), "x": x.flatten().tolist(),
                }  # fmt: skip
                mine = page.evaluate(PREDICTED, given)
                for key, theirs in (
                    ("x0", free.x0), ("eps", free.eps), ("led_x0", led.x0), ("led_eps", led.eps), ("score", slope)
                ):  # fmt: skip
                    assert mine[key] == pytest.approx(theirs.flatten().tolist(), rel=1e-6, abs=1e-6), (name, t, key)

    def test_paths_are_drawn_at_once_and_become_a_figure(self, open_page):
        """In the task of the control itself; the figure follows when the control rests."""
        page = open_page("paths.html")
        seen = page.evaluate(
            f"""async () => {{
              const steps = document.forms[0].elements.steps, before = document.querySelector(".said").textContent;
              steps.value = 8, steps.oninput();
              await new Promise((done) => setTimeout(done, 0));
              const heads = [...document.querySelectorAll("{browser.FIGURE} .annotation-text")];
              return [document.querySelectorAll(".sheet").length, heads[0].textContent,
                      document.querySelector(".said").textContent !== before];
            }}"""
        )
        assert seen[0] == 2
        assert seen[1].startswith("A: ddim, 9 calls")
        assert seen[2]
        drawn = f"document.querySelector('{browser.FIGURE}')"
        until(page, f"{drawn}.layout.sliders[0].steps.length === 10 && !document.querySelector('.sheet')")
        assert page.evaluate(f"{drawn}.layout.annotations[0].text") == seen[1]

    @pytest.mark.parametrize("screen", ["screen", "phone"])
    def test_touching_a_dot_and_choosing_layers(self, open_page, screen):
        """By mouse, and by a finger at 390 pixels; and by keys."""
        finger = screen == "phone"
        page = open_page("paths.html", screen=screen, has_touch=finger, is_mobile=finger)
        page.evaluate(f"document.querySelector('{browser.FIGURE}').scrollIntoView()")
        place, plot = (
            page.touchscreen.tap if finger else page.mouse.click,
            f"document.querySelector('{browser.FIGURE}')",
        )
        seen = f"(({SHAPES})({plot}))"
        place(*page.evaluate(DOT, {"figure": browser.FIGURE, "k": 5}))
        until(page, f"{seen}.length === 4")
        exact = page.evaluate(seen)[2:]  # on both planes, after both solvers'
        D = toydiff.mixture("ring").denoiser(toydiff.schedule("vp"))
        noise = toydiff.mixture("ring").marginal(D.schedule, 1.0).sample(64, 0, dtype=torch.float64)[5:6]
        for axis, (name, points) in zip(("x", "x2"), exact, strict=True):
            assert name == axis
            assert points[:2] == pytest.approx(noise[0].tolist(), abs=1e-3)
            assert points[-2:] == pytest.approx(toydiff.reference(D, noise)[0].tolist(), abs=1e-3)
        page.locator(browser.FIGURE).focus()
        page.keyboard.press("Enter")
        until(page, f"{plot}._fullData[2].selectedpoints[0] === 6")
        page.keyboard.press("Shift+Enter")
        until(page, f"{plot}._fullData[2].selectedpoints[0] === 5")
        page.wait_for_timeout(500)  # two quick taps would be a double one
        place(*page.evaluate(DOT, {"figure": browser.FIGURE, "k": 5}))
        until(page, f"{seen}.length === 0")
        for name in ("density", "paths", "score"):
            page.get_by_label(name, exact=True).click()
        until(page, f"{plot}.data[0].opacity === 0 && {plot}.layout.images.every((image) => !image.visible)")
        page.locator(browser.FIGURE).focus()
        page.keyboard.press("Home")
        until(page, f"{plot}.layout.sliders[0].active === 0")
        page.get_by_label("paths", exact=True).click()
        until(page, f"{plot}.data[0].opacity > 0")
        assert page.evaluate(f"{plot}.layout.sliders[0].active") == 0  # it stays
        page.wait_for_timeout(100)
        centre, along = page.evaluate(browser.ARROW, browser.FIGURE)
        score = -D(torch.tensor([centre], dtype=torch.float64), 1.0).eps[0]
        assert float(torch.nn.functional.cosine_similarity(torch.tensor(along), score, dim=0)) > 0.99
        how = f"{plot}.layout.updatemenus[0].buttons[0].args"
        before = page.evaluate(how)
        page.locator("#speed").select_option("2")
        page.locator("#loop").check()
        until(page, f"{how}[0].length > 100")
        assert page.evaluate(how)[1]["frame"]["duration"] == before[1]["frame"]["duration"] / 2

    @pytest.mark.parametrize("finger", [False, True])
    def test_a_mixture_is_drawn_by_hand(self, open_page, finger):
        page = open_page("paths.html", screen="phone" if finger else "screen", has_touch=finger, is_mobile=finger)
        heads = page.evaluate(HEADS)
        if finger:
            page.get_by_role("button", name="Controls").click()
        page.locator("#draw").click()
        board = page.locator(".board").bounding_box()
        middle = board["x"] + board["width"] / 2, board["y"] + board["height"] / 2
        ranges = f"() => document.querySelector('{browser.FIGURE}').layout.xaxis.range"
        plane = page.evaluate(ranges)
        page.mouse.click(*middle)
        until(page, "document.querySelectorAll('.mode').length === 9")
        until(page, "location.hash.includes('mixture=')")
        until(page, f"JSON.stringify(({HEADS})()) !== {json.dumps(json.dumps(heads, separators=(',', ':')))}")
        assert page.evaluate(ranges) == plane  # which stays while it is drawn on
        first = page.url
        browser.drag(page, finger, middle, (middle[0] + 60, middle[1] - 40))
        until(page, f"location.href !== {json.dumps(first)}")
        assert page.locator(".mode").count() == 9
        page.locator(".mode").nth(8).focus()
        page.keyboard.press("Delete")
        until(page, "document.querySelectorAll('.mode').length === 8")

    @pytest.mark.parametrize(("schedule", "screen"), [("vp", "screen"), ("ve", "screen"), ("linear", "phone")])
    def test_one_particle(self, open_page, schedule, screen):
        """Its denoiser and score are Python's, and so is where both solvers take it from there."""
        page = open_page(f"paths.html#mixture=random&schedule={schedule}&a=ab2&b=heun&steps=7", screen=screen)
        page.evaluate("document.querySelector('#particle').click()")
        until(page, "document.querySelector('.particle').dataset.hint.includes('score')")
        page.locator(".particle .mode").focus()
        for key in ("ArrowLeft", "ArrowUp", "ArrowUp"):
            page.keyboard.press(key)
        said = page.locator(".particle .mode").get_attribute("aria-label")
        places = [[float(v) for v in pair.split(", ")] for pair in re.findall(r"\((-?[\d.e-]+, -?[\d.e-]+)\)", said)]
        drawn, x0, score = torch.tensor(places, dtype=torch.float64)
        D = toydiff.mixture("random").denoiser(toydiff.schedule(schedule))
        ts = toydiff.time_grid(D.schedule, 7, data_std=D.data_std)
        ts = ts[page.evaluate(f"document.querySelector('{browser.FIGURE}').layout.sliders[0].active") :]
        alpha, sigma = D.schedule.alpha(ts[0]), D.schedule.sigma(ts[0])
        x = (drawn * (torch.hypot(alpha, sigma) if schedule == "ve" else 1.0))[None]
        p = D(x, ts[0])
        assert x0.tolist() == pytest.approx(p.x0[0].tolist(), rel=0.01, abs=0.005)
        assert score.tolist() == pytest.approx((-p.eps / sigma)[0].tolist(), rel=0.01, abs=0.005)
        for k, solver in enumerate(("ab2", "heun")):
            end = toydiff.solve(D, x, ts=ts, solver=solver).end[0]
            seen = page.evaluate(ENDS, {"figure": browser.FIGURE, "plane": k})
            assert seen[1] == pytest.approx(end.tolist(), abs=0.02), solver
            exact = toydiff.reference(D, x, float(ts[0]), tolerance=1e-8)[0]
            assert seen[0] == pytest.approx(exact.tolist(), abs=0.02)
        page.evaluate("document.querySelector('#draw').click()")  # takes its place
        assert page.locator(".sheet").count() == 0
        assert page.locator(".particle").is_hidden()

    def test_a_control_of_exact_mixtures_asks_the_server_for_nothing(self, chromium, site):
        with browser.static(site) as (url, _):
            page, asked = chromium.new_context().new_page(), []
            page.goto(f"{url}/paths.html")
            page.wait_for_selector(browser.MARKS)
            page.on("request", lambda request: asked.append(request.url))
            for steps in (3, 12):
                before = page.url
                page.evaluate(
                    "(k) => { const field = document.forms[0].elements.steps; field.value = k, field.oninput(); }",
                    steps,
                )
                until(page, f"location.href !== {json.dumps(before)}")
                page.wait_for_timeout(300)
            page.context.close()
        assert not [one for one in asked if one.startswith("http")]

    def test_the_mathematics_is_pythons(self, open_page):
        """Start, time grid, every solver and the exact flow, on random mixtures, schedules, steps and seeds."""
        page, rng = open_page("paths.html"), random.Random(5)
        names = page.evaluate("() => Object.keys(toydiffExact.SOLVERS)")
        assert set(names) <= set(toydiff.solvers.SOLVERS)
        assert set(page.evaluate("() => Object.keys(toydiffExact.SCHEDULES)")) == set(toydiff.SCHEDULES)
        assert set(page.evaluate("() => toydiffExact.GRIDS")) == set(toydiff.GRIDS)
        power = exact.data("paths")["power"]
        schedules = list(toydiff.SCHEDULES) * 4
        rng.shuffle(schedules)
        for name, schedule in zip(names, schedules, strict=False):
            mixture, steps, seed = random_mixture(rng.randrange(1000)), rng.choice([1, 3, 8, 21]), rng.randrange(1000)
            D = mixture.denoiser(toydiff.schedule(schedule))
            x = mixture.marginal(D.schedule, 1.0).sample(16, 0, dtype=torch.float64)
            grid = rng.choice(list(toydiff.GRIDS))
            path = toydiff.solve(D, x, steps, solver=name, grid=grid, generator=seed)
            uniforms, normals = exact.draws(16)
            fresh = torch.Generator().manual_seed(seed)
            noises = [torch.randn(16, 2, dtype=torch.float64, generator=fresh) for _ in range(steps)]
            given = {
                "rows": [[*m, w, *s, *U] for m, w, s, U in parts(mixture)],
                "schedule": schedule, "solver": name, "steps": steps, "grid": grid, "power": power,
                "uniforms": uniforms.tolist(), "normals": normals.flatten().tolist(),
                "noises": [noise.flatten().tolist() for noise in noises],
            }  # fmt: skip
            mine = page.evaluate(THEIRS, given)
            case, size = (name, schedule, grid, steps), float(path.xs.abs().max())
            assert mine["start"] == pytest.approx(x.flatten().tolist(), rel=1e-12, abs=1e-12 * size), case
            assert mine["times"] == pytest.approx(path.ts.tolist(), abs=1e-12), case
            assert mine["calls"] == path.nfe, case
            assert mine["xs"] == pytest.approx(path.xs.flatten().tolist(), rel=1e-6, abs=1e-6), case
        true = toydiff.reference(D, x, tolerance=1e-10)
        assert mine["flow"] == pytest.approx(true.flatten().tolist(), abs=1e-5)


SHAPES = """(place) =>
  (place.layout.shapes ?? []).map(({ xref, path }) => [xref, path.split(/[ML,]/).slice(1).map(Number)])"""
"""The axes and the numbers of the paths that are drawn over a figure."""
DOT = """({ figure, k }) => {
  const place = document.querySelector(figure), { x, y } = place._fullData[2], { xaxis, yaxis } = place._fullLayout;
  const { left, top } = place.getBoundingClientRect();
  return [left + xaxis._offset + xaxis.l2p(x[k]), top + yaxis._offset + yaxis.l2p(y[k])];
}"""
"""Where the dot of number k of the first plane is on the screen."""


def pixels_of(address):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB"))


ENDS = """({ figure, plane }) => {
  const full = document.querySelector(figure)._fullLayout, own = (one) => full[`${one}axis${plane ? 2 : ""}`];
  const [X, Y] = [own("x"), own("y")];
  return [...document.querySelectorAll(".sheet")[plane].querySelectorAll("path")].slice(0, 2).map((path) => {
    const [x, y] = path.getAttribute("d").split(/[ML]/).at(-1).split(" ").map(Number);
    return [X.p2l(x), Y.p2l(y)];
  });
}"""
"""Where the exact way and the solver's end on a plane, in the plane's numbers."""

THEIRS = """(given) => {
  const E = toydiffExact, schedule = E.SCHEDULES[given.schedule];
  const mixture = given.rows.map(([x, y, weight, s, r, ...axes]) => ({ x, y, weight, stds: [s, r], axes }));
  const D = E.denoiser(mixture), size = E.sizeOf(mixture, given.power);
  const levels = E.grid(schedule, given.steps, size, given.grid);
  const start = E.start(mixture, levels[0], given.uniforms, given.normals);
  const noises = given.noises.map((noise) => Float64Array.from(noise));
  const path = E.solve(D, schedule, given.solver, start, levels, size, noises);
  const flat = (xs) => xs.flatMap((x) => [...x]);
  return {
    start: [...start], times: levels.map(({ t }) => t), calls: path.calls, xs: flat(path.xs),
    flow: [...E.flow(D, start, levels[0], levels.at(-1))],
  };
}"""


PREDICTED = """(given) => {
  const E = toydiffExact, at = E.level(E.SCHEDULES[given.schedule], given.t), x = Float64Array.from(given.x);
  const mixture = given.rows.map(([x, y, weight, s, r, ...axes]) => ({ x, y, weight, stds: [s, r], axes }));
  const free = E.denoiser(mixture)(x, at), led = E.guided(mixture, given.classes, given.cond, given.g)(x, at);
  const all = { x0: free.x0, eps: free.eps, led_x0: led.x0, led_eps: led.eps, score: E.score(free) };
  return Object.fromEntries(Object.entries(all).map(([name, values]) => [name, [...values]]));
}"""


def parts(mixture):
    """Means, weights, standard deviations and axes of a mixture's components."""
    variances, axes = torch.linalg.eigh(mixture.covariances)
    own = (mixture.means, mixture.weights, variances.sqrt(), axes.flatten(1))
    return zip(*(part.tolist() for part in own), strict=True)
