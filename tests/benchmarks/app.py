"""How long a reader of the app waits for a figure, in a real browser.

    python tests/benchmarks/app.py [--rounds 5]

- cold: a page in a new browser, until its figure has marks; the first visitor of a server that has just started is
  listed apart.
- bare: the same for a page of Streamlit with one slider and a line of two points, the least that any such app takes.
- again: a new tab of that browser.
- warm: a page chosen in the menu of an open one, its figure computed before; and, once, when it was not.
- control: a key pressed on a control of the first page (64 particles, two solvers, up to 50 steps), until there is
  another figure, which was never requested before; and the server's processor time for it.

Seconds: the median and the extremes over the rounds. The browser and the server share this machine's processors.
"""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browser import APP, MARKS, chromium, executable, listener, serve

BARE = """
import plotly.graph_objects as go
import streamlit as st
st.slider("steps", 1, 50)
with st.container(key="picture"):
    st.plotly_chart(go.Figure(go.Scatter(x=[0, 1], y=[0, 1])), theme=None)
"""
SEEN = "() => document.querySelector({!r})"
FIGURE = "document.querySelector('.st-key-picture .js-plotly-plot')"
OTHERS = {
    "mixture": ("grid", "spirals", "checkerboard", "moons"),
    "schedule": ("cosine", "linear", "ve"),
    "b": ("heun", "unipc3", "dpm++2m"),
}


def timed(action, wait) -> float:
    began = time.perf_counter()
    action()
    wait()
    return time.perf_counter() - began


def seen(page, selector: str) -> None:
    """Wait for it, and check a hundred times a second: Playwright's own waits check twice a second."""
    page.wait_for_function(SEEN.format(selector.replace(":visible", "")), polling=10)  # :visible is Playwright's own


def show(name: str, seconds: list[float], first: str = "") -> None:
    """The seconds' median and extremes; those of the first time apart, where `first` says what it is."""
    once, rest = (seconds[:1], seconds[1:]) if first else ([], seconds)
    spread = f"{min(rest):.2f} to {max(rest):.2f}   ({len(rest)} times)"
    print(f"{name:32} {statistics.median(rest):6.2f} s   {spread}", *(f"  {first}: {s:.2f}" for s in once))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if executable() is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    sys.path.insert(0, str(APP))
    from lessons import LESSONS

    with tempfile.TemporaryDirectory() as folder, chromium() as browser, serve() as url:
        first, bare = f"{url}/{LESSONS[0].id}", Path(folder) / "bare.py"
        bare.write_text(BARE)
        flags = (
            "--server.headless=true",
            "--server.fileWatcherType=none",
            "--browser.gatherUsageStats=false",
            "--server.port={port}",
        )
        with serve("-m", "streamlit", "run", str(bare), *flags) as bare_url:
            cold, least, again = [], [], []
            for _ in range(args.rounds + 1):
                for address, seconds in ((bare_url, least), (first, cold)):
                    context = browser.new_context(viewport={"width": 1280, "height": 800})
                    page = context.new_page()
                    seconds.append(timed(lambda: page.goto(address), lambda: seen(page, MARKS)))  # noqa: B023
                    if address == first:
                        page.wait_for_timeout(2500)
                        tab = context.new_page()
                        again.append(timed(lambda: tab.goto(first), lambda: seen(tab, MARKS)))  # noqa: B023
                    context.close()
            show("cold, bare Streamlit", least, "first visitor")
            show("cold, first page", cold, "first visitor")
            show("again, new tab", again)
            print(f"{'ratio of cold to bare':32} {statistics.median(cold[1:]) / statistics.median(least[1:]):6.2f}")
        page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
        page.goto(first)
        page.wait_for_selector(MARKS)
        page.get_by_test_id("stExpandSidebarButton").click()
        warm: dict[str, list[float]] = {}
        for _ in range(args.rounds + 1):
            for lesson in (*LESSONS[1:], LESSONS[0]):
                page.wait_for_timeout(400)
                link = page.locator('[data-testid="stSidebarNavLink"]', has_text=lesson.menu)
                marks = f".st-key-{lesson.id}-figure .trace, .st-key-{lesson.id}-figure .imagelayer image"
                seconds = timed(link.click, lambda: seen(page, marks))  # noqa: B023
                warm.setdefault(lesson.menu, []).append(seconds)
        for name, seconds in warm.items():
            show(f"warm, {name}", seconds, "when it was computed" if name != LESSONS[0].menu else "once more")
        slider = page.locator('[data-testid="stSlider"] input[type=range]').first
        server, moves = listener(url), min(3 * args.rounds, 18)
        began = server.cpu_times()
        show("control: one step more", [changed(page, slider, "ArrowRight") for _ in range(moves)])
        spent = sum(server.cpu_times()[:2]) - sum(began[:2])
        print(f"{'the server worked':32} {spent / moves:6.2f} CPU-s a move")
        for name, values in OTHERS.items():
            box = page.locator(f".st-key-paths-{name} input")
            seconds = []
            for value in values:
                box.click()
                page.keyboard.type(value)
                seconds.append(changed(page, box, "Enter"))
            show(f"control: another {name if len(name) > 1 else 'solver'}", seconds)


def changed(page, control, key: str) -> float:
    """Seconds from this key on a control to another figure."""
    page.wait_for_timeout(700)
    page.evaluate(f"() => {{ window.before = {FIGURE}.layout; }}")
    control.focus()
    return timed(
        lambda: page.keyboard.press(key),
        lambda: page.wait_for_function(f"() => {FIGURE}.layout !== window.before", polling=10),
    )


if __name__ == "__main__":
    main()
