"""The app in a real browser: pages open, figures have marks, sliders move them without asking the server, links restore
the state, files come out.

Debian's chromium is needed; without one these tests are skipped, unless TOYDIFF_BROWSER=1 says that there must be one.
Screenshots of all pages go to the folder that TOYDIFF_SCREENSHOTS names, build/screenshots otherwise.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import zlib
from pathlib import Path
from xml.etree import ElementTree

import browser
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

import toydiff

playwright = pytest.importorskip("playwright.sync_api")
pytest.importorskip("streamlit")
sys.path.insert(0, str(browser.APP))

from lessons import LESSONS  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]
SCREENSHOTS = Path(os.environ.get("TOYDIFF_SCREENSHOTS") or Path(__file__).parents[2] / "build" / "screenshots")
SMALL, LARGE = {"width": 1280, "height": 800}, {"width": 1920, "height": 1080}
PHONE, TABLET = {"width": 390, "height": 844}, {"width": 1024, "height": 768}
UPRIGHT = {"width": 820, "height": 1180}
EQUATION = "Math.max(...[...document.querySelectorAll('.katex-html .base')].map(e => e.getBoundingClientRect().right))"
"""Where the equation ends."""
BUTTON_ON_SLIDER = f"""() => [...document.querySelectorAll('{browser.FIGURE} .slider-group')].some((slider) =>
    slider.getBoundingClientRect().left < document.querySelector('{browser.FIGURE} .updatemenu-button')
        .getBoundingClientRect().right)"""
PROBES = re.compile(r"/_stcore/(health|host-config)")
"""Streamlit, opened at a page's own address, first asks below it where its server is, and gets 404."""
EXPECTED = re.compile(r"404 \(Not Found\)|page that you have requested does not seem to exist")
"""What the console says of such a request, and of an unknown address."""
FRAMES = f"() => document.querySelector('{browser.FIGURE}').layout.sliders[0].steps.length"
ACTIVE = f"() => document.querySelector('{browser.FIGURE}').layout.sliders[0].active"
DOTS = (
    f"() => [...document.querySelectorAll('{browser.FIGURE} .points path')]"
    ".map(e => e.getAttribute('transform')).join()"
)
SHAPES = (".point", ".js-line", ".imagelayer image", ".hm")
COUNT = f"() => document.querySelectorAll('{', '.join(f'{browser.FIGURE} {shape}' for shape in SHAPES)}').length"


UPDATES = 300
"""Of a round of live training here, where it need not come out well."""

SERVER = f"""
import importlib, sys

sys.path.insert(0, {str(browser.APP)!r})
importlib.import_module("lessons.reflow").UPDATES = {UPDATES}
importlib.import_module("toydiff.cli").main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def url():
    """The address of `toydiff app`, whose live training is short."""
    with browser.serve(
        "-c", SERVER.replace("{", "{{").replace("}", "}}"), *["app", "--no-browser", "--port", "{port}"]
    ) as address:
        yield address


@pytest.fixture(scope="module")
def chromium():
    if browser.executable() is None:
        if os.environ.get(browser.REQUIRED) == "1":
            pytest.fail("no chromium on this machine, and TOYDIFF_BROWSER=1 asks for one: apt-get install chromium")
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with browser.chromium() as running:
        yield running


@pytest.fixture(scope="module")
def visitors(chromium):
    """visitors(viewport, scheme) -> a profile with that screen: its tabs are sessions of their own, and share what the
    browser has fetched.
    """
    contexts = {}

    def visitor(viewport, scheme):
        key = viewport["width"], scheme
        if key not in contexts:
            contexts[key] = chromium.new_context(viewport=viewport, color_scheme=scheme, accept_downloads=True)
        return contexts[key]

    yield visitor
    for context in contexts.values():
        context.close()


@pytest.fixture
def open_page(visitors, url):
    """open_page(path) -> a tab whose figure has marks; what its console complains of is checked in the end."""
    pages, complaints = [], []

    def open_(path=LESSONS[0].id, *, viewport=SMALL, scheme="light", marks=True):
        page = visitors(viewport, scheme).new_page()
        pages.append(page)
        page.set_default_timeout(40_000)
        page.on("websocket", lambda socket: socket.on("framesent", lambda data: open_.sent.append(data)))
        page.on(
            "response",
            lambda r: (
                complaints.append(f"{r.status} {r.url}") if r.status >= 400 and not PROBES.search(r.url) else None
            ),
        )
        page.on("requestfailed", lambda r: complaints.append(f"failed {r.url}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda m: complaints.append(m.text) if m.type == "error" and not EXPECTED.search(m.text) else None,
        )
        page.goto(f"{url}/{path}")
        if marks:
            page.wait_for_selector(browser.MARKS)
        return page

    open_.sent = []  # what the tabs request of the server
    yield open_
    for page in pages:
        page.close()
    assert not complaints, complaints


def until(page, truth):
    """Wait for an expression, or a function of no arguments, of the browser to be true.

    What it reads may be missing for a moment, while one figure takes the place of another: it is then not true yet.
    """
    value = f"({truth})()" if truth.startswith("() =>") else truth
    page.wait_for_function(f"() => {{ try {{ return {value}; }} catch {{ return false; }} }}")


def one_step_more(page):
    """Move the slider of steps by its key, and wait for the figure."""
    before = page.evaluate(FRAMES)
    page.locator(".st-key-paths-steps input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    until(page, f"({FRAMES})() === {before + 1}")


def settled(page):
    """No run goes on, and what an earlier one left on the page is gone."""
    until(page, "() => !document.querySelector('[data-testid=stStatusWidget], [data-stale=true]')")
    page.wait_for_timeout(150)


def open_menu(page):
    """A profile remembers whether its menu was open."""
    page.locator("[data-testid=stSidebar]").wait_for(state="attached")
    settled(page)
    if page.get_by_test_id("stExpandSidebarButton").count():
        page.get_by_test_id("stExpandSidebarButton").click()


@pytest.mark.parametrize(("viewport", "scheme", "paper"), [(SMALL, "light", "#FFFFFF"), (LARGE, "dark", "#14161A")])
def test_every_page_opens_with_its_figure(open_page, viewport, scheme, paper):
    """One after the other by a clicker's key, the first by its address; a screenshot of each.

    Every other page on the large screen.
    """
    page = open_page(viewport=viewport, scheme=scheme)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    every = 1 if scheme == "light" else 2
    for lesson in LESSONS[::every]:
        for k in range(every if lesson is not LESSONS[0] else 0):
            before = page.url
            page.keyboard.press("PageDown")
            until(page, f"location.href !== '{before}'")
            if k + 1 < every:
                page.wait_for_selector(".st-key-files")
        figure = f".st-key-{lesson.id}-figure .js-plotly-plot"
        page.wait_for_selector(f"{figure} .trace:visible, {figure} .imagelayer image")
        page.wait_for_selector(f".st-key-{lesson.id}-save")
        settled(page)
        assert page.locator("h2").first.inner_text() == lesson.title
        assert page.evaluate(COUNT) > 0, lesson.id
        assert page.locator("[data-testid=stException], [data-testid=stAlert]").count() == 0, lesson.id
        box = page.locator(figure).bounding_box()
        assert box["width"] > 700
        assert box["y"] + box["height"] <= viewport["height"], lesson.id  # the whole figure is on the screen
        assert page.evaluate(AXES, figure) >= (0.35 if viewport is SMALL else 0.45), lesson.id  # and fills it
        wide = (
            "() => { const e = document.querySelector('.stMainBlockContainer'); return e.scrollWidth - e.clientWidth; }"
        )
        assert page.evaluate(wide) <= 0, lesson.id
        assert page.evaluate(f"() => document.querySelector('{figure}').layout.paper_bgcolor") == paper
        page.screenshot(path=SCREENSHOTS / f"{lesson.id}-{viewport['width']}-{scheme}.png")
    background = page.evaluate("() => getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    assert background == f"rgb({', '.join(str(int(paper[k : k + 2], 16)) for k in (1, 3, 5))})"


AXES = """(figure) => {
  const place = document.querySelector(figure), { _plots, width } = place._fullLayout;
  const scale = place.getBoundingClientRect().width / width;
  const areas = Object.values(_plots).map(({ xaxis, yaxis }) => xaxis._length * yaxis._length * scale * scale);
  return areas.reduce((a, b) => a + b) / (innerWidth * innerHeight);
}"""
"""The fraction of the screen that is between axes."""


def overlaps(a, b):
    """Two boxes overlap by more than a pixel both ways: letters have some air around them."""
    return min(a[2], b[2]) - max(a[0], b[0]) > 1 and min(a[3], b[3]) - max(a[1], b[1]) > 3


PLANES = f"""() => Object.values(document.querySelector('{browser.FIGURE}')._fullLayout._plots)
    .map(({{ xaxis, yaxis }}) => [xaxis._length, yaxis._length])"""
"""The panels' widths and heights."""


WIDEST = ("picard?view=cost", "reflow?view=pairs", "consistency?view=same+noise")
"""Views with many panels side by side."""


@pytest.mark.parametrize("view", [*(lesson.id for lesson in LESSONS), *WIDEST])
def test_a_phone_shows_panels_below_one_another(open_page, view):
    """With no word that is cut off or lies on another, and controls in a drawer."""
    page = open_page(view, viewport=PHONE)
    page.wait_for_selector(".st-key-files")
    settled(page)
    until(page, f"document.querySelector('{browser.FIGURE}').layout.dragmode === false")
    assert page.evaluate("() => document.querySelector('.stMainBlockContainer').scrollWidth") <= PHONE["width"]
    planes = page.evaluate(PLANES)
    assert all(wide > 0.3 * PHONE["width"] for wide, _ in planes)  # two columns at most
    controls = page.locator(".st-key-controls")
    assert not controls.is_visible()
    page.get_by_role("button", name="Controls").click()
    assert controls.is_visible()
    page.get_by_role("button", name="Controls").click()
    no_word_is_cut_or_covered(page)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{re.sub(r'[^a-z]+', '-', view) or 'first'}-phone.png")


def no_word_is_cut_or_covered(page):
    box = page.locator(browser.FIGURE).bounding_box()
    words = page.evaluate(browser.LETTERS)
    assert len(words) > 2
    for word, left, top, right, bottom in words:
        assert box["x"] - 1 <= left < right <= box["x"] + box["width"] + 1, word
        assert box["y"] - 1 <= top < bottom <= box["y"] + box["height"] + 1, word
    on_another = [(a, b) for k, (a, *one) in enumerate(words) for b, *other in words[:k] if overlaps(one, other)]
    assert not on_another
    assert not page.evaluate(browser.COVERED)
    assert not page.evaluate(BUTTON_ON_SLIDER)
    assert page.evaluate(EQUATION) <= page.evaluate("innerWidth")


@pytest.mark.parametrize(
    ("view", "screen"),
    [
        *((view, TABLET) for view in ("grids", "picard", "lines", "scoreboard")),
        ("halving", UPRIGHT),
    ],
)
def test_a_tablet_shows_the_whole_figure(open_page, view, screen):
    """Also where the claim takes two lines, and upright."""
    page = open_page(view, viewport=screen, scheme="dark")
    page.wait_for_selector(".st-key-files")
    settled(page)
    box = page.locator(browser.FIGURE).bounding_box()
    assert box["y"] + box["height"] <= screen["height"]
    no_word_is_cut_or_covered(page)
    page.screenshot(path=SCREENSHOTS / f"{view}-{screen['width']}.png")


def test_a_phone_shows_the_map_without_controls(open_page):
    """No word of it is cut off, and no button that opens nothing is shown."""
    page = open_page("", viewport=PHONE, marks=False)
    words = page.locator(".stMain").locator("h2, p")
    words.filter(has_text="PF-ODE trajectories").wait_for()
    assert not page.get_by_role("button", name="Controls").is_visible()
    assert page.evaluate("() => document.querySelector('.stMainBlockContainer').scrollWidth") <= PHONE["width"]
    menu = page.get_by_test_id("stExpandSidebarButton").bounding_box()
    boxes = [word.bounding_box() for word in words.all() if word.is_visible()]
    assert len(boxes) > 20
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)
    assert min(box["y"] for box in boxes) >= menu["y"] + menu["height"] - 1
    page.get_by_test_id("stExpandSidebarButton").click()
    page.locator('[data-testid="stSidebarNavLink"]', has_text="Solvers and orders").click()
    page.wait_for_selector(".st-key-orders-figure .trace")
    until(page, "document.querySelector('.stSidebar').getBoundingClientRect().right <= 0")  # not over the page


@pytest.mark.parametrize("id_", ["paths", "scores"])
def test_the_slider_moves_marks_in_the_browser(open_page, id_):
    page = open_page(id_)
    page.wait_for_selector(".st-key-files")
    settled(page)
    assert open_page.sent  # the page itself was requested
    requests = len(open_page.sent)
    rail = page.locator(f"{browser.FIGURE} .slider-rail-touch-rect").bounding_box()
    ranges = f"() => JSON.stringify(document.querySelector('{browser.FIGURE}').layout.xaxis.range)"
    before, axes = page.evaluate(DOTS), page.evaluate(ranges)
    middle = rail["y"] + rail["height"] / 2
    page.mouse.move(rail["x"] + rail["width"] * 0.95, middle)
    page.mouse.down()
    seen = set()
    for fraction in (0.8, 0.5, 0.3):
        page.mouse.move(rail["x"] + rail["width"] * fraction, middle, steps=4)
        page.wait_for_timeout(150)
        seen.add(page.evaluate(DOTS))
    page.mouse.up()
    assert before not in seen
    assert len(seen) == 3
    assert page.evaluate(ranges) == axes
    assert len(open_page.sent) == requests

    at, shown = page.evaluate(ACTIVE), page.evaluate(DOTS)
    page.locator("h2").first.click()
    page.keyboard.press("ArrowRight")
    until(page, f"({ACTIVE})() === {at + 1}")
    page.wait_for_timeout(150)
    assert page.evaluate(DOTS) != shown
    page.keyboard.press("ArrowLeft")
    until(page, f"({ACTIVE})() === {at}")


def test_a_figure_fills_the_screen(open_page):
    page = open_page("picard")
    page.wait_for_selector(".st-key-files")
    settled(page)
    height = f"() => document.querySelector('{browser.FIGURE} .main-svg').clientHeight"
    before = page.evaluate(height)
    page.locator(browser.FIGURE).hover()
    page.locator('[data-title="Whole screen"]').click()
    until(page, f"({height})() > {before + 100}")
    assert page.evaluate("() => document.fullscreenElement.classList.contains('figure')")
    page.locator('[data-title="Whole screen"]').click()
    until(page, f"({height})() === {before}")


def test_a_figure_turns_dark_with_its_page(open_page):
    paper = f"document.querySelector('{browser.FIGURE}').layout.paper_bgcolor"
    page = open_page()
    page.wait_for_selector(".st-key-files")
    assert page.evaluate(paper) == "#FFFFFF"
    page.emulate_media(color_scheme="dark")  # as the system turns
    until(page, f"{paper} === '#14161A'")
    settled(page)
    requests = len(open_page.sent)
    page.get_by_test_id("stMainMenuButton").click()
    page.get_by_test_id("stMainMenuItem-theme-Light").click()
    until(page, f"{paper} === '#FFFFFF'")
    settled(page)
    page.wait_for_timeout(500)
    assert len(open_page.sent) == requests + 1  # once, not again and again


def test_letters_grow_with_the_screen(open_page):
    letters = f"document.querySelector('{browser.FIGURE}').layout.font.size"
    page = open_page()
    page.wait_for_selector(".st-key-files")
    assert page.evaluate(letters) == 17
    page.set_viewport_size(LARGE)
    until(page, f"Math.abs({letters} - {1920 / 90:.2f}) < 0.1")
    page.set_viewport_size(SMALL)
    until(page, f"{letters} === 17")


def test_a_control_moved_while_the_figure_plays_stops_it(open_page):
    """The frames of the figure before must not go on in the new one."""
    page = open_page("paths?steps=6&mixture=moons")
    page.wait_for_selector(".st-key-files")
    settled(page)
    page.locator(f"{browser.FIGURE} .updatemenu-button").click()
    until(page, f"({ACTIVE})() === 2")
    one_step_more(page)
    at, shown = page.evaluate(ACTIVE), page.evaluate(DOTS)
    page.wait_for_timeout(2500)
    assert page.evaluate(ACTIVE) == at == 7
    assert page.evaluate(DOTS) == shown
    page.locator("h2").first.click()
    page.keyboard.press("ArrowLeft")  # and its slider is alive
    until(page, f"({ACTIVE})() === 6")


def test_a_link_carries_the_state(open_page):
    page = open_page()
    page.wait_for_selector(".st-key-files")
    before = page.evaluate(FRAMES)
    page.evaluate(f"() => {{ window.place = document.querySelector('{browser.FIGURE}'); }}")
    page.locator(".st-key-paths-steps input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    until(page, f"({FRAMES})() !== {before}")
    # drawn over, not made anew
    assert page.evaluate(f"() => window.place === document.querySelector('{browser.FIGURE}')")
    page.locator(".st-key-paths-b input").click()
    page.keyboard.type("heun")
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('{browser.FIGURE}').textContent.includes('B: heun')")
    settled(page)
    assert "steps=6" in page.url
    assert "b=heun" in page.url
    data = f"() => JSON.stringify(document.querySelector('{browser.FIGURE}').layout.annotations.map(a => a.text))"
    again = open_page(page.url.split("/", 3)[3])
    settled(again)
    assert again.evaluate(data) == page.evaluate(data)
    assert again.evaluate(FRAMES) == page.evaluate(FRAMES)
    assert again.locator(".st-key-paths-b input").input_value() == "heun"


def test_presets_set_the_page(open_page):
    page = open_page("picard")
    page.wait_for_selector(".st-key-files")
    open_menu(page)
    page.get_by_role("link", name="Rounds, calls, seconds").click()
    page.wait_for_selector(f"{browser.FIGURE} .barlayer .trace")
    page.wait_for_url("**/picard?steps=100&view=cost")
    page.get_by_role("link", name="Picard's staircase").click()
    page.wait_for_selector(f"{browser.FIGURE} .heatmaplayer")
    page.wait_for_url("**/picard?steps=20")
    page.wait_for_timeout(500)
    page.go_back()
    page.wait_for_selector(f"{browser.FIGURE} .barlayer .trace")
    page.locator('[data-testid="stSidebarNavLink"]', has_text="Solvers and orders").click()
    page.wait_for_selector(".st-key-orders-figure .trace")
    assert "?" not in page.url  # the menu opens a page as it is at first


def test_the_first_page_is_also_where_its_name_says(open_page):
    page = open_page(f"{LESSONS[0].id}?steps=7")
    page.wait_for_selector(".st-key-files")
    assert page.locator("h2").first.inner_text() == LESSONS[0].title
    assert page.evaluate(FRAMES) == 8
    assert page.locator("[role=dialog]").count() == 0
    open_menu(page)
    marked = page.locator('[data-testid="stSidebarNavLink"][aria-current=page]')
    assert marked.inner_text().strip().endswith(LESSONS[0].menu)


def test_the_map_leads_to_every_page(open_page):
    page = open_page("", marks=False)
    for lesson in LESSONS:
        page.get_by_role("link", name=lesson.menu).first.wait_for()
    assert page.get_by_role("link", name=lesson.menu).first.get_attribute("href").endswith(lesson.id)
    settled(page)
    until(page, "window.toydiffFrame")  # the keys are there
    page.keyboard.press("PageDown")
    page.wait_for_selector(f".st-key-{LESSONS[0].id}-figure .trace")
    settled(page)
    page.keyboard.press("PageUp")
    until(page, "location.pathname === '/'")
    old = open_page("?steps=7")  # a link of the time when the first lesson stood here
    old.wait_for_url(f"**/{LESSONS[0].id}?steps=7")
    assert old.evaluate(FRAMES) == 8
    address = old.url.split("/paths")[0]
    old.goto(f"{address}/no-such-page")  # says so, above the map
    old.get_by_role("dialog").get_by_text("Page not found").wait_for()
    old.get_by_role("button", name="Close").click()
    old.get_by_role("link", name=lesson.menu).first.wait_for()
    old.goto(f"{address}/no-such/page/at-all?steps=3")  # whose scripts would not be found
    old.get_by_role("dialog").get_by_text("Page not found").wait_for()


def test_after_a_restart_of_the_server_the_first_move_counts(chromium):
    """The page stays open meanwhile; then the control, the figure and the link have the new value."""
    page, port = chromium.new_context(viewport=SMALL).new_page(), browser.free_port()
    page.set_default_timeout(40_000)
    with browser.serve(port=port) as address:
        page.goto(f"{address}/paths?steps=6")
        page.wait_for_selector(".st-key-files")
        settled(page)
    with browser.serve(port=port):
        page.wait_for_event("websocket")  # the browser is there again
        one_step_more(page)
        settled(page)
        assert page.url.endswith("/paths?steps=7")
        assert "7" in page.locator(".st-key-paths-steps").inner_text().split()
    page.context.close()


@contextlib.contextmanager
def below(path, url):
    """The app's address below a path: one that the server knows, or one that a proxy takes away."""
    if path == "known":
        words = ["-m", "toydiff", "app", "--no-browser", "--port", "{port}", "--base", "user/ann/lessons"]
        with browser.serve(*words, base="/user/ann/lessons") as address:
            yield address
    else:
        with browser.stripping_proxy(url, "/user/ann/proxy/8501") as address:
            yield address


@pytest.mark.parametrize("path", ["known", "taken away"])
def test_the_app_below_a_path(chromium, url, path):
    """As in JupyterHub: figures are drawn, controls move them, and links lead to the pages."""
    page = chromium.new_context(viewport=SMALL).new_page()
    page.set_default_timeout(120_000)  # the server's first page
    with below(path, url) as address:
        page.goto(f"{address}/paths?steps=6")
        page.wait_for_selector(browser.MARKS)
        page.wait_for_selector(".st-key-files")
        settled(page)
        one_step_more(page)
        settled(page)
        assert page.url == f"{address}/paths?steps=7"
        page.goto(f"{address}/paths/and/more/?steps=5")
        page.wait_for_selector(browser.MARKS)
        page.wait_for_selector(".st-key-files")
        settled(page)
        assert page.url == f"{address}/paths"  # of 5 steps, as it opens
        page.locator("h2").first.click()
        page.keyboard.press("PageDown")
        page.wait_for_selector(".st-key-orders-figure .trace")
        assert page.url.startswith(f"{address}/orders")
        page.context.close()


def test_a_page_left_by_the_menu_is_as_it_was(open_page):
    page = open_page("paths?mixture=0,0,0.3,1;1,1,0.3,1")
    page.wait_for_selector(".st-key-files")
    settled(page)
    one_step_more(page)
    settled(page)
    open_menu(page)
    for menu, id_ in (("Solvers and orders", "orders"), (LESSONS[0].menu, "paths")):
        page.locator('[data-testid="stSidebarNavLink"]', has_text=menu).click()
        page.wait_for_selector(f".st-key-{id_}-figure .trace")
        settled(page)
    assert page.evaluate(FRAMES) == 7
    assert "steps=6" in page.url
    assert "mixture=" in page.url


FOCUSED = """() => {
  let e = document.activeElement;
  while (e.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
  const box = e.getBoundingClientRect();
  const name = e.getAttribute("aria-label") || (e.matches("button, a, summary") ? e.innerText : e.tagName);
  return [name.trim(), e.checkVisibility({ visibilityProperty: true }) && box.right > 0 && box.left < innerWidth];
}"""
"""What the keyboard is at, as a screen reader says it, and whether it is seen."""


def test_by_keyboard_and_on_paper(open_page):
    """Tab goes from the claim through controls, figure, files and code, and through nothing that is not seen; a screen
    reader says what the figure shows; print has claim, figure and words, and no buttons."""
    page = open_page("paths?steps=6")
    page.wait_for_selector(".st-key-files")
    settled(page)
    names = []
    while not any("The code of this figure" in name for name in names):
        page.keyboard.press("Tab")
        name, seen = page.evaluate(FOCUSED)
        assert seen, name
        names.append(name)
        assert len(names) < 60, names
    title = LESSONS[0].title
    wanted = ["Predict first", "Reset", "Next", "Mixture", "edit", "Schedule", "Solver A", "Solver B", "Steps", title]
    rest = iter(names)
    for want in [*wanted, "PNG", "SVG", "PDF", "GIF", "HTML", "numbers", "Copy link", "The code"]:
        assert any(want in name for name in rest), (want, names)
    figure = page.locator(".st-key-picture [role=figure]")
    assert figure.get_attribute("aria-label").startswith(f"{title}. From each noise the ODE has one exact end")
    page.emulate_media(media="print")
    until(page, "getComputedStyle(document.querySelector('.slider-container')).visibility === 'hidden'")
    for part in ("h2", browser.FIGURE, ".st-key-words"):
        assert page.locator(part).first.is_visible(), part
    for part in (
        ".stAppHeader",
        ".st-key-controls",
        ".st-key-files",
        ".st-key-ask",
        ".stExpander",
        ".updatemenu-button",
    ):
        assert not page.locator(part).first.is_visible(), part
    page.emulate_media(media="screen")


SAVED = """() => {
  window.Plotly.downloadImage = (figure, how) => { window.saved = { figure, how }; };
  document.querySelector('%s').save();
}"""


def test_keys_and_pictures(open_page):
    """Arrows after a choice in a box, Home, End, space, F; a zoom of one plane; a picture without the slider."""
    page = open_page()
    page.wait_for_selector(".st-key-files")
    settled(page)
    page.locator(".st-key-paths-b input").click()
    page.keyboard.type("heun")
    page.keyboard.press("Enter")
    until(page, f"document.querySelector('{browser.FIGURE}').textContent.includes('B: heun')")
    settled(page)
    last = page.evaluate(FRAMES) - 1
    page.keyboard.press("ArrowLeft")  # the box still has the focus
    until(page, f"({ACTIVE})() === {last - 1}")
    page.locator("h2").first.click()
    page.keyboard.press("Home")
    until(page, f"({ACTIVE})() === 0")
    page.keyboard.press(" ")
    until(page, f"({ACTIVE})() > 0")
    page.keyboard.press(" ")  # pause
    page.wait_for_timeout(300)
    at = page.evaluate(ACTIVE)
    page.wait_for_timeout(1500)
    assert page.evaluate(ACTIVE) == at < last
    page.keyboard.press("End")
    until(page, f"({ACTIVE})() === {last}")

    layout = f"document.querySelector('{browser.FIGURE}')._fullLayout"
    ranges = f"() => [{layout}.xaxis.range.join(), {layout}.xaxis2.range.join()]"
    before = page.evaluate(ranges)
    plane = page.locator(f"{browser.FIGURE} .nsewdrag").first.bounding_box()
    page.mouse.move(plane["x"] + 0.3 * plane["width"], plane["y"] + 0.3 * plane["height"])
    page.mouse.down()
    page.mouse.move(plane["x"] + 0.6 * plane["width"], plane["y"] + 0.6 * plane["height"], steps=5)
    page.mouse.up()
    until(page, f"({ranges})()[0] !== '{before[0]}'")
    one, other = page.evaluate(ranges)
    assert one == other

    page.evaluate(SAVED % browser.FIGURE)
    layout = page.evaluate("() => window.saved.figure.layout")
    assert (layout["sliders"], layout["updatemenus"]) == ([], [])
    assert LESSONS[0].title in layout["title"]["text"]
    assert any("/paths?b=heun" in note["text"] for note in layout["annotations"])

    shown = page.locator(".st-key-words"), page.locator(".st-key-files")
    page.keyboard.press("f")
    assert not any(part.is_visible() for part in shown)
    assert page.locator("h2").first.is_visible()
    assert page.locator(".st-key-controls").is_visible()
    page.keyboard.press("f")
    assert all(part.is_visible() for part in shown)


def test_a_step_back_gives_the_state_back(open_page):
    page = open_page("reflow")
    page.wait_for_selector(".st-key-files")
    page.locator(".st-key-reflow-paths input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/reflow?paths=96")
    settled(page)
    open_menu(page)
    page.locator('[data-testid="stSidebarNavLink"]', has_text="Digits").click()
    page.wait_for_selector(".st-key-digits-figure .trace")
    page.wait_for_url("**/digits")
    settled(page)
    page.go_back()
    page.wait_for_url("**/reflow?paths=96")
    page.wait_for_selector(".st-key-reflow-figure .trace")
    settled(page)
    assert page.url.endswith("/reflow?paths=96")
    assert "96" in page.locator(".st-key-reflow-paths").inner_text().split()


def test_a_held_key_leaves_the_figure_alive(open_page):
    """Controls change faster than figures are made: Streamlit overtakes runs, and the newest figure is on show."""
    page = open_page("paths?steps=3")
    page.wait_for_selector(".st-key-files")
    settled(page)
    page.locator(".st-key-paths-steps input[type=range]").focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(40)
    until(page, f"({FRAMES})() === 16")
    settled(page)
    assert page.locator("text=cannot be drawn").count() == 0
    page.locator("h2").first.click()
    page.keyboard.press("ArrowLeft")
    until(page, f"({ACTIVE})() === 14")
    width = f"document.querySelector('{browser.FIGURE} .main-svg').clientWidth"
    before = page.evaluate(width)
    page.set_viewport_size({"width": 1100, "height": 800})
    until(page, f"{width} < {before - 100}")


OVERTAKEN = """async (js) => {
  const module = await import(URL.createObjectURL(new Blob([js], { type: "text/javascript" })));
  const parent = document.createElement("div"), pause = () => new Promise((done) => setTimeout(done, 600));
  parent.innerHTML = '<div class="figure" style="inset: auto; width: 500px; height: 300px"></div>';
  document.body.append(parent);
  const place = parent.firstChild;
  const given = (n) => ({
    url: "", has: {}, alt: "", config: {}, figure: { data: [{ x: [1, 2], y: [n, n] }], layout: {} },
  });
  const run = (n) => module.default({
    data: new TextEncoder().encode(JSON.stringify(given(n))),
    parentElement: parent, setStateValue() {}, setTriggerValue() {},
  });
  const first = run(1);
  await pause();
  const second = run(2);
  first();
  await pause();
  const drawn = place.data?.[0].y[0];
  place.style.width = "350px";
  await pause();
  const fits = place._fullLayout?.width;
  second();
  return [drawn, fits, place.data === undefined];
}"""


def test_a_run_that_was_overtaken_leaves_the_figure_to_the_newer_one(open_page):
    """Streamlit tells both that they are over: the first at once, the second when the figure goes."""
    page = open_page()
    page.wait_for_selector(".st-key-files")
    drawn = page.evaluate(OVERTAKEN, (browser.APP / "screen" / "chart.js").read_text())
    assert drawn == [2, 350, True]


def test_a_wrong_link_is_said_on_the_page(open_page):
    page = open_page("paths?steps=1000&a=ddimm&colour=red")
    page.wait_for_selector("text=The link does not fit")
    settled(page)
    said = page.locator("[data-testid=stAlert]").all_inner_texts()
    assert len(said) == 3
    assert any("did you mean 'ddim'" in text for text in said)
    assert "steps" not in page.url
    assert "colour" not in page.url


def test_an_absurd_mixture_is_said_on_the_page(open_page):
    page = open_page("paths?mixture=0,0,0,1", marks=False)
    page.wait_for_selector("text=std of component 1 is a number from 0.02 to 10")
    assert page.locator("[data-testid=stException]").count() == 0


def test_figures_are_saved_as_files(open_page, tmp_path):
    page = open_page("paths?steps=6")
    page.wait_for_selector(".st-key-files")
    settled(page)
    page.locator("h2").first.click()
    page.keyboard.press("Home")
    until(page, f"({ACTIVE})() === 0")
    saved = {}
    for name, ending in (
        ("PNG", "png"),
        ("SVG", "svg"),
        ("PDF", "pdf"),
        ("GIF", "gif"),
        ("HTML", "html"),
        ("numbers", "json"),
    ):
        with page.expect_download() as waiting:
            page.locator(".st-key-files").get_by_role("button", name=name).click()
        assert waiting.value.suggested_filename == f"toydiff-paths.{ending}"
        saved[ending] = tmp_path / f"file.{ending}"
        waiting.value.save_as(saved[ending])
    assert saved["png"].read_bytes().startswith(b"\x89PNG")
    picture = Image.open(saved["png"])
    assert picture.width > 2000
    assert len(picture.convert("RGB").resize((300, 150)).getcolors(100_000)) > 20
    drawing = ElementTree.parse(saved["svg"]).getroot()
    assert drawing.tag.endswith("}svg")
    texts = [node.text for node in drawing.iter() if node.text]
    assert any(LESSONS[0].title in text for text in texts)
    assert any("/paths?steps=6" in text for text in texts)
    assert not any("play" in text for text in texts)
    assert np.abs(pixels_of_pdf(saved["pdf"]) - np.asarray(picture.convert("RGB"), int)).mean() < 1
    film = Image.open(saved["gif"])
    assert film.n_frames == page.evaluate(FRAMES) == 7
    frames = [np.asarray(frame.convert("RGB"), int) for frame in ImageSequence.Iterator(film)]
    small = np.asarray(picture.convert("RGB").resize(film.size), int)
    off = [np.abs(frame - small).mean() for frame in frames]  # the picture shows the first frame
    assert off[0] < 3, off
    assert off[0] < min(off[1:]) - 0.3, off
    assert page.evaluate(ACTIVE) == 0  # and the figure is as it was
    rows = json.loads(saved["json"].read_text())
    assert [row["solver"] for row in rows] == ["ddim", "guarded"]
    own = page.context.new_page()
    own.goto(saved["html"].as_uri())
    own.wait_for_selector(".js-plotly-plot .trace")
    assert own.title() == LESSONS[0].title
    assert [LESSONS[0].title, page.locator(".st-key-words p").first.inner_text()] == [
        own.locator(part).first.inner_text() for part in ("h1", "p")
    ]
    at = own.evaluate(MOVED)
    own.keyboard.press("ArrowLeft")
    until(own, f"({MOVED})() === {at - 1}")
    own.close()


MOVED = "() => document.querySelector('.js-plotly-plot').layout.sliders[0].active"


def pixels_of_pdf(file):
    """The picture of a page that has nothing else, after a check that the table of objects is right."""
    data = file.read_bytes()
    table = int(re.search(rb"startxref\n(\d+)\n%%EOF", data)[1])
    assert data[table:].startswith(b"xref\n0 6\n")
    for number, start in enumerate(re.findall(rb"(\d{10}) 00000 n", data), 1):
        assert data[int(start) :].startswith(b"%d 0 obj" % number)
    head = re.search(rb"/Width (\d+) /Height (\d+) .*/Length (\d+) >>\nstream\n", data)
    width, height, length = map(int, head.groups())
    raw = zlib.decompress(data[head.end() : head.end() + length])
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3).astype(int)


SHAPES_OF = f"""() => (document.querySelector('{browser.FIGURE}').layout.shapes ?? [])
    .map(s => [s.xref, s.path, s.line.dash ?? ""])"""
RINGS = f"""() => [...document.querySelectorAll('{browser.FIGURE}')].flatMap((place) => {{
  const {{ x, y }} = place._fullData.find((t) => t.name === "exact end");
  return [...x.keys()].map((k) => [x[k], y[k]]);
}})"""
DOT = f"""() => {{
  const place = document.querySelector('{browser.FIGURE}'), box = place.getBoundingClientRect();
  const {{ xaxis, yaxis }} = place._fullLayout, {{ x, y }} = place._fullData.find((t) => t.name === "state at time t");
  const far = [...x.keys()].sort((i, k) => Math.hypot(x[k], y[k]) - Math.hypot(x[i], y[i]))[0];
  return [box.x + xaxis._offset + xaxis.l2p(x[far]), box.y + yaxis._offset + yaxis.l2p(y[far]), x[far], y[far]];
}}"""
"""Where the first panel's outermost dot is on the screen, and in the plane."""


@pytest.mark.parametrize("schedule", ["linear", "ve"])  # x as it is, and over sqrt(alpha^2 + sigma^2)
def test_a_click_on_a_dot_shows_its_path_alone(open_page, schedule):
    """In both panels, with the exact one; another click shows all again, and so does another figure."""
    page = open_page(f"paths?steps=6&schedule={schedule}")
    page.wait_for_selector(".st-key-files")
    settled(page)
    page.locator("h2").first.click()
    page.keyboard.press("Home")
    until(page, f"({ACTIVE})() === 0")
    *at, x, y = page.evaluate(DOT)
    page.mouse.click(*at)
    until(page, f"({SHAPES_OF})().length === 4")
    (left, one, _), (right, other, _), *exact = page.evaluate(SHAPES_OF)
    assert (left, right) == ("x", "x2")
    assert [(axis, dash) for axis, _, dash in exact] == [("x", "dot"), ("x2", "dot")]
    assert exact[0][1] == exact[1][1]
    begins = [path[1:].split("L")[0] for path in (one, other)]
    for begin in begins:  # both from this noise
        assert [float(n) for n in begin.split(",")] == pytest.approx([x, y], abs=1e-5)
    way = np.array([[float(n) for n in place.split(",")] for place in exact[0][1][1:].split("L")])
    rings = np.array(page.evaluate(RINGS))
    assert way[0] == pytest.approx([x, y], abs=1e-3)
    assert np.hypot(*(rings - way[-1]).T).min() < 2e-3  # one of the exact ends
    assert np.hypot(*np.diff(way, axis=0).T).max() < 0.4 * np.hypot(*(way[-1] - way[0]))  # a curve, in small steps
    assert one.count("L") == 6
    assert one != other
    page.screenshot(path=SCREENSHOTS / f"paths-alone-{schedule}.png")
    page.mouse.click(*at)
    until(page, f"({SHAPES_OF})().length === 0")
    page.mouse.click(*at)
    until(page, f"({SHAPES_OF})().length === 4")
    page.keyboard.press("End")  # and the slider moves on
    until(page, f"({ACTIVE})() === 6")
    page.locator(".st-key-paths-steps input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    until(page, f"({FRAMES})() === 8 && ({SHAPES_OF})().length === 0")


LAYERS = f"""() => {{
  const {{ data, layout: {{ images, sliders: [slider] }} }} = document.querySelector('{browser.FIGURE}');
  return [images.every((image) => image.visible !== false), data[0].opacity > 0, slider.active].join();
}}"""
"""Whether density and paths are seen, and where the slider stands."""
MODES = "() => [...document.querySelectorAll('.mode')].map((e) => e.ariaLabel.match(/-?[0-9.]+/g).slice(1).map(Number))"
"""Where the handles are, as a screen reader says it."""
COMPONENTS = """() => (decodeURIComponent(location.search).match(/mixture=([^&]*)/)?.[1] ?? "")
    .split(";").map((row) => row.split(",").map(Number))"""
PRESSED = f"""async (key) => {{
  document.activeElement.dispatchEvent(new KeyboardEvent("keydown", {{ key, bubbles: true, cancelable: true }}));
  await new Promise((done) => requestAnimationFrame(done));
  return document.querySelector('{browser.FIGURE}').layout.sliders[0].active;
}}"""
"""Where the slider stands just after a key."""


def test_layers_are_switched_and_modes_are_dragged(open_page):
    """Layers in the browser, at the slider's time; modes in a row and by keys, each in the link, with dots as ever."""
    page = open_page("paths?steps=6")
    page.wait_for_selector(".switches input")
    settled(page)
    requests, heads = len(open_page.sent), f"document.querySelector('{browser.FIGURE}').layout.annotations[0].text"
    page.locator("h2").first.click()
    page.keyboard.press("Home")
    until(page, f"({LAYERS})() === 'true,true,0'")
    for name, seen in (("density", "false,true,0"), ("paths", "false,false,0"), ("density", "true,false,0")):
        page.get_by_label(name, exact=True).click()
        until(page, f"({LAYERS})() === '{seen}'")
    page.get_by_label("score", exact=True).check()
    score = []
    for key, at in (("ArrowRight", 1), ("ArrowLeft", 0)):
        page.locator("h2").first.click()
        page.keyboard.press(key)
        until(page, f"({ACTIVE})() === {at}")
        page.wait_for_timeout(100)
        score.append(page.evaluate(browser.ARROW, browser.FIGURE))
    assert score[0] != score[1]
    centre, along = torch.tensor(score[1], dtype=torch.float64)
    D = toydiff.mixture("ring").denoiser(toydiff.schedule("vp"))
    assert float(torch.nn.functional.cosine_similarity(along, -D(centre[None], 1.0).eps[0], dim=0)) > 0.99
    assert len(open_page.sent) == requests
    one_step_more(page)
    until(page, f"({LAYERS})() === 'true,false,7'")
    page.get_by_label("paths", exact=True).check()
    page.get_by_label("modes", exact=True).check()
    until(page, f"({MODES})().length === 8")
    page.screenshot(path=SCREENSHOTS / "paths-layers.png")

    page.locator("h2").first.click()
    page.keyboard.press("Home")  # where the slider stood in the figure before
    until(page, f"({ACTIVE})() === 0")
    page.mouse.click(*page.evaluate(DOT)[:2])
    until(page, f"({SHAPES_OF})().length === 4")
    settled(page)

    began, before = page.evaluate(MODES), page.evaluate(heads)
    for k, by in ((2, 60), (4, 40)):  # before the first is answered
        x, y = middle(page.locator(".mode").nth(k).bounding_box())
        browser.drag(page, False, (x, y), (x + by, y))
    wanted = page.evaluate(MODES)
    page.evaluate(f"() => document.querySelector('{browser.FIGURE}').redraw()")  # an older figure moves no handle back
    assert page.evaluate(MODES) == wanted
    assert [k for k in range(8) if wanted[k] != began[k]] == [2, 4]
    until(page, f"JSON.stringify(({COMPONENTS})().map((row) => row.slice(0, 2))) === JSON.stringify({wanted})")
    until(page, f"{heads} !== '{before}'")
    settled(page)
    assert page.evaluate(MODES) == wanted
    page.locator("h2").first.click()
    page.keyboard.press("Home")
    until(page, f"({ACTIVE})() === 0")
    page.locator(".mode").nth(4).focus()
    assert page.evaluate(PRESSED, "ArrowRight") == 0  # the key is the mode's
    until(page, f"({COMPONENTS})()[4][0] === {round(wanted[4][0] + 0.1, 2)}")


def test_a_control_that_moves_before_a_drag_is_answered_does_not_undo_it(open_page):
    """Nor a click in the editor: the browser still sends the mixture of before, which it shows."""
    page = open_page("paths?steps=6")
    page.wait_for_selector(".switches input")
    settled(page)
    slider = page.locator(".st-key-paths-steps input[type=range]")
    for k in range(3):
        slider.focus()
        page.evaluate(f"() => document.querySelector('{browser.FIGURE}').tell('drags', [0, {k + 1}, 0.5])")
        page.keyboard.press("ArrowRight")
        until(page, f"location.search.includes('steps={7 + k}')")
        settled(page)
        assert page.evaluate(COMPONENTS)[0][:2] == [k + 1, 0.5]
        assert page.evaluate(FRAMES) == 8 + k
    # and the box takes a word as ever, also the one of before
    box = page.locator(".st-key-paths-mixture input")
    box.click()
    page.keyboard.type("ring")
    page.keyboard.press("Enter")
    until(page, "!location.search.includes('mixture')")


def middle(box):
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_a_finger_drags_a_mode_and_moves_the_page(chromium, url):
    page = chromium.new_context(viewport=PHONE, has_touch=True, is_mobile=True).new_page()
    page.set_default_timeout(40_000)
    page.goto(f"{url}/paths?steps=6")
    page.wait_for_selector(".switches input")
    settled(page)
    page.get_by_label("modes", exact=True).check()
    page.locator("h2").first.scroll_into_view_if_needed()
    top = "() => document.querySelector('h2').getBoundingClientRect().top"
    before, (x, y) = page.evaluate(top), middle(page.locator(".mode").nth(6).bounding_box())
    browser.drag(page, True, (x, y), (x, y - 50))
    until(page, f"({COMPONENTS})()[6][1] > -1.8")
    settled(page)
    assert page.evaluate(top) == before
    x, y = middle(page.locator(f"{browser.FIGURE} .nsewdrag").first.bounding_box())
    browser.drag(page, True, (x, y), (x, y - 150))
    until(page, f"({top})() < {before - 50}")
    page.screenshot(path=SCREENSHOTS / "paths-modes-phone.png")
    page.context.close()


DRAWN = f"""() => {{
  const {{ figure, width, height }} = document.querySelector('{browser.FIGURE}').picture();
  const sheet = document.createElement("div");
  sheet.id = "sheet";
  sheet.style = `position: fixed; z-index: 1e6; inset: 0 auto auto 0; width: ${{width}}px; height: ${{height}}px`;
  document.body.append(sheet);
  return Plotly.newPlot(sheet, figure.data, figure.layout);
}}"""
SHEET = browser.LETTERS.replace(browser.FIGURE, "#sheet")
"""The words of a picture that is laid over the page."""


@pytest.mark.parametrize("view", ["paths", "orders", "picard", "reflow", "scoreboard", "tokens"])
def test_a_picture_has_its_claim_and_its_link_beside_all_other_words(open_page, view):
    page = open_page(view)
    page.wait_for_selector(".st-key-files")
    settled(page)
    page.evaluate(DRAWN)
    words = page.evaluate(SHEET)
    page.locator("#sheet").screenshot(path=SCREENSHOTS / f"{view}-picture.png")
    box = page.locator("#sheet").bounding_box()
    lesson = next(lesson for lesson in LESSONS if lesson.id == view)
    assert {lesson.title, f"toydiff /{view}"} <= {word for word, *_ in words}
    for word, left, top, right, bottom in words:
        assert -1 <= left < right <= box["width"] + 1, word
        assert -1 <= top < bottom <= box["height"] + 1, word
    on_another = [(a, b) for k, (a, *one) in enumerate(words) for b, *other in words[:k] if overlaps(one, other)]
    assert not on_another


def test_a_figure_without_a_slider_has_no_film(open_page):
    page = open_page("orders")
    page.wait_for_selector(".st-key-files")
    settled(page)
    files = page.locator(".st-key-files")
    assert files.get_by_role("button", name="PDF").is_visible()
    assert not files.get_by_role("button", name="GIF").count()


def test_the_link_is_copied(open_page):
    """With the browser's clipboard, and without one: an address of the network has none."""
    page = open_page("paths?steps=6")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.wait_for_selector(".st-key-files")
    settled(page)
    for stolen in (False, True):
        page.evaluate("() => navigator.clipboard.writeText('')")
        if stolen:
            page.evaluate("""() => {
              window.kept = navigator.clipboard;
              Object.defineProperty(navigator, "clipboard", { value: undefined, configurable: true });
            }""")
        page.get_by_role("button", name="Copy link").click()
        page.get_by_role("button", name="Copied").wait_for()
        assert page.evaluate("() => (window.kept ?? navigator.clipboard).readText()") == page.url
        page.get_by_role("button", name="Copy link").wait_for()


def test_a_link_pares_a_page_down(open_page):
    page = open_page("paths?hide=menu,controls,words,files,code&steps=6")
    page.wait_for_selector(".st-key-files", state="attached")
    settled(page)
    for part in (".stSidebar", ".stAppHeader", ".st-key-controls", ".st-key-words", ".st-key-files", ".st-key-after"):
        assert not page.locator(part).first.is_visible(), part
    assert page.locator("h2").first.is_visible()
    assert page.locator(browser.FIGURE).bounding_box()["height"] > 680
    assert page.evaluate(FRAMES) == 7
    assert page.locator("[data-testid=stAlert]").count() == 0


def test_code_on_the_pages_gives_the_same_numbers(open_page, tmp_path):
    """The code as it stands on a page, in a fresh Python: the numbers are those of the page."""
    page = open_page("paths?steps=9&mixture=1,1,0.3,1;-1,0,0.2,2")
    page.wait_for_selector(".st-key-files")
    page.get_by_text("The code of this figure").click()
    code = page.locator("[data-testid=stCode] code").first.text_content()
    with page.expect_download() as waiting:
        page.locator(".st-key-files").get_by_role("button", name="numbers").click()
    waiting.value.save_as(tmp_path / "rows.json")
    script = tmp_path / "figure.py"
    script.write_text(code.replace("print(rows)", "import json\nprint(json.dumps(rows))"))
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PLOTLY_RENDERER": "plotly_mimetype"},
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == json.loads((tmp_path / "rows.json").read_text())


def test_a_mixture_is_edited_by_clicks(open_page):
    page = open_page("paths?mixture=0,0,0.3,1")
    page.wait_for_selector(".st-key-files")
    page.get_by_role("button", name="edit").click()
    plane = page.locator("[data-testid=stPopoverBody] .js-plotly-plot").first
    plane.wait_for()
    page.wait_for_timeout(600)
    press(page, plane, 1.5, 1.5)
    until(page, "decodeURIComponent(location.search).split(';').length === 2")
    assert page.evaluate("decodeURIComponent(location.search)") == "?mixture=0,0,0.3,1;1.5,1.5,0.3,1"
    for x in (-2, -1, 0, 1, 2):  # quickly
        press(page, plane, x, -2)
        page.wait_for_timeout(150)
    until(page, "decodeURIComponent(location.search).split(';').length === 7")
    settled(page)
    word = page.evaluate("decodeURIComponent(location.search)")
    assert [tuple(map(float, part.split(",")[:2])) for part in word.split(";")[2:]] == [
        (x, -2) for x in (-2, -1, 0, 1, 2)
    ]
    assert "-0," not in word
    page = open_page("paths?mixture=0,0,0.3,1;1.5,1.5,0.3,1")
    page.wait_for_selector(".st-key-files")
    page.get_by_role("button", name="edit").click()
    plane = page.locator("[data-testid=stPopoverBody] .js-plotly-plot").first
    plane.wait_for()
    page.get_by_text("takes one away").click()
    page.wait_for_timeout(1000)
    press(page, plane, 0, 0)
    until(page, "!decodeURIComponent(location.search).includes(';')")
    assert page.evaluate("decodeURIComponent(location.search)") == "?mixture=1.5,1.5,0.3,1"
    page.get_by_text("a line draws the mixture").click()
    until(page, "document.querySelector('[data-testid=stPopoverBody] .js-plotly-plot').draws")
    settled(page)
    page.mouse.move(*spot(plane, -2, -1))
    page.mouse.down()
    for x in np.linspace(-2, 2, 30):
        page.mouse.move(*spot(plane, x, -1))
    assert page.locator("polyline.drawn").count() == 1
    page.mouse.up()
    until(page, "decodeURIComponent(location.search).includes(';')")
    settled(page)
    drawn = page.evaluate("decodeURIComponent(location.search)").split("=")[1].split(";")
    assert all(abs(float(part.split(",")[1]) + 1) < 0.05 for part in drawn)
    assert page.locator("polyline.drawn").count() == 0


def press(page, plane, x, y):
    """Click at a place of the plane."""
    page.mouse.click(*spot(plane, x, y))


def spot(plane, x, y):
    """A place of the plane in the window's pixels."""
    place = """(e, at) => {
      const l = e._fullLayout, b = e.getBoundingClientRect();
      return [b.x + l.xaxis._offset + l.xaxis.d2p(at[0]), b.y + l.yaxis._offset + l.yaxis.d2p(at[1])];
    }"""
    return plane.evaluate(place, [float(x), float(y)])


def test_live_reflow_goes_on_when_something_else_is_pressed(open_page):
    page = open_page("reflow?mixture=moons&paths=6")
    page.wait_for_selector(".st-key-files")
    page.get_by_role("button", name="Train one round").click()
    page.wait_for_selector("text=/update \\d+ of/")
    page.locator(".st-key-reflow-paths input[type=range]").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**paths=12**")
    page.wait_for_selector(".st-key-reflow-result .trace")
    settled(page)
    assert f"round 1: {UPDATES} updates" in page.locator(".st-key-reflow-result").text_content()
    buttons = page.locator(".st-key-train").get_by_role("button")
    assert [button.is_enabled() for button in buttons.all()] == [True, False]  # train, stop
    assert len(buttons.all()) == 2


def test_live_reflow_can_be_stopped(open_page):
    page = open_page("reflow?mixture=moons&paths=6")
    page.wait_for_selector(".st-key-files")
    page.get_by_role("button", name="Train one round").click()
    page.wait_for_selector("text=/update \\d+ of/")
    page.locator("h2").first.scroll_into_view_if_needed()
    status = page.get_by_test_id("stStatusWidget").bounding_box()
    for part in page.locator(".st-key-head > *").all():  # the claim and what stands beside it
        box = part.bounding_box()
        assert box["y"] + box["height"] <= status["y"] or box["x"] + box["width"] <= status["x"]
    page.get_by_test_id("stMainBlockContainer").get_by_role("button", name="Stop").click()
    page.wait_for_selector(".st-key-reflow-result .trace")
    settled(page)
    text = page.locator(".st-key-reflow-result").text_content()
    done = int(re.search(r"(\d+) updates", text)[1])
    assert 1 < done < UPDATES
    assert page.locator("text=/update \\d+ of/").count() == 0
