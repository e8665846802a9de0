"""How long a reader of the site without a server waits, and what the site costs whoever serves it.

    python tests/benchmarks/site.py [--site DIR] [--rounds 5] [--readers 30]

--site: a folder that `toydiff site` wrote; by default its pages of exact mixtures are written first.

- cold: a page in a new browser from a static file server, from the navigation's start until its figure has marks.
- control: an event on a control of a page of exact mixtures until the frame with the new figure is painted, by the
  browser's own clock, up to 20 events of each kind; and the processor time that the page's main thread spent on it,
  which says the same of a machine that does nothing else.
- readers: so many at once open a page each, fetch what a browser fetches, and move controls; what the server worked.

The median and the extremes. The browser shares this machine's processors with whatever else runs on it; the load is
printed.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from browser import FIGURE, MARKS, chromium, executable, static

OWN = ("paths", "orders", "grids")
"""The pages whose figures the browser computes."""
TIMES = 20
TICK = os.sysconf("SC_CLK_TCK")

MOVE = """async ({ figure, name, value, drag }) => {
  const frame = () => new Promise((done) => requestAnimationFrame(done));
  const sheet = () => document.querySelector(".sheet")?.innerHTML, old = sheet();
  const place = document.querySelector(figure), before = place.layout;
  const field = drag ? document.querySelector(".mode") : document.forms[0].elements[name], began = performance.now();
  if (drag) {
    const { left, top } = field.getBoundingClientRect(), how = { bubbles: true, pointerId: 1, buttons: 1 };
    field.setPointerCapture = () => {};
    field.dispatchEvent(new PointerEvent("pointerdown", { ...how, clientX: left + 8, clientY: top + 8 }));
    field.dispatchEvent(new PointerEvent("pointermove", { ...how, clientX: left + value, clientY: top + value }));
  } else {
    field.value = value;
    field.dispatchEvent(new Event(field.type === "range" ? "input" : "change"));
  }
  while (place.layout === before && (sheet() ?? old) === old) await frame();
  await frame();
  await new Promise((done) => setTimeout(done, 0)); // the frame is painted
  const took = performance.now() - began;
  if (drag) field.dispatchEvent(new PointerEvent("pointerup", { bubbles: true, pointerId: 1 }));
  return took;
}"""


def show(name: str, values: list[float], unit: str) -> None:
    spread = f"{min(values):.3g} to {max(values):.3g}   ({len(values)} times)"
    print(f"{name:42} {statistics.median(values):7.3g} {unit:5} {spread}", flush=True)


def worked(pid: int) -> float:
    """CPU-seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def work(clock) -> float:
    """Processor seconds of the page's main thread so far."""
    return {one["name"]: one["value"] for one in clock.send("Performance.getMetrics")["metrics"]}["TaskDuration"]


def cold(browser, url: str) -> float:
    """Seconds from the navigation's start to marks, in a new browser."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(url, wait_until="commit")
    seen = page.wait_for_function(
        f"() => document.querySelector({MARKS.replace(':visible', '')!r}) && performance.now()"
    )
    seconds = seen.json_value() / 1000
    context.close()
    return seconds


def reader(url: str, moves: int) -> int:
    """What a browser fetches for a page and for `moves` controls whose figures are files; the bytes."""
    size, folder = 0, url.rpartition("/")[0]

    def fetch(address: str) -> str:
        nonlocal size
        data = urllib.request.urlopen(address, timeout=60).read()
        size += len(data)
        return data.decode("utf-8", "replace")

    text = fetch(url)
    for name in re.findall(r'(?:src|href)="(toydiff/[^"]+)"', text):
        fetch(f"{folder}/{name}")
    fetch(f"{folder}/toydiff/plotly-cartesian.min.js")
    id_ = Path(url).stem
    about = json.loads(fetch(f"{folder}/toydiff/{id_}.js").removeprefix("toydiff.page(").rstrip().removesuffix(");"))
    for k in range(1 if about["live"] else min(moves + 1, len(about["states"]))):
        fetch(f"{folder}/toydiff/{id_}/{k}.js")
    return size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--site", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readers", type=int, default=30)
    args = parser.parse_args()
    if executable() is None:
        raise SystemExit("no chromium on this machine: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        site = args.site or Path(folder) / "site"
        if args.site is None:
            words = [sys.executable, "-m", "toydiff", "site", "--out", str(site), "--pages", *OWN]
            subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
        print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
        size = sum(file.stat().st_size for file in site.rglob("*") if file.is_file())
        ids = sorted(file.stem for file in site.glob("*.html") if file.stem != "index")
        print(f"{len(ids)} pages, {size / 1e6:.1f} MB")
        with static(site) as (url, pid), chromium() as browser:
            measure(browser, url, pid, ids, args.rounds, args.readers)


def measure(browser, url: str, pid: int, ids: list[str], rounds: int, readers: int) -> None:
    cold(browser, f"{url}/{ids[0]}.html")  # the browser's own start
    for id_ in OWN:
        show(f"cold, {id_}", [cold(browser, f"{url}/{id_}.html") for _ in range(rounds)], "s")
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    clock = page.context.new_cdp_session(page)
    clock.send("Performance.enable", {"timeDomain": "threadTicks"})
    moved = {
        "paths": {"steps": 20, "b": 20, "schedule": 6, "mixture": 6, "drag": 20},
        "orders": {"schedule": 6, "grid": 8, "mixture": 6},
        "grids": {"steps": 8, "g": 5, "schedule": 6, "mixture": 6},
    }
    for id_, controls in moved.items():
        page.goto(f"{url}/{id_}.html")
        page.wait_for_selector(MARKS)
        for name, most in controls.items():
            page.locator("#reset").click()
            page.wait_for_timeout(800)
            asked.clear()
            drag = name == "drag"
            if drag:
                page.locator("#draw").click()
                values = [9 + 2 * (-1) ** k * (k + 1) for k in range(TIMES)]
            else:
                count = page.evaluate(
                    "(name) => { const field = document.forms[0].elements[name];"
                    "return field.length ?? Number(field.max) + 1; }",
                    name,
                )
                values = (list(range(count)) * TIMES)[1 : min(most, count) * (TIMES // min(most, count)) + 1]
            taken, spent = [], []
            for value in values[:TIMES]:
                page.wait_for_timeout(600)
                before = work(clock)
                taken.append(page.evaluate(MOVE, {"figure": FIGURE, "name": name, "value": value, "drag": drag}))
                spent.append(1000 * (work(clock) - before))
            what = "a mode is dragged" if drag else name
            show(f"{id_}: {what}", taken, "ms")
            show(f"{id_}: {what}, processor", spent, "ms")
            assert not [one for one in asked if one.startswith("http")], asked  # nothing is asked of the server
    before, began = worked(pid), time.perf_counter()
    with ThreadPoolExecutor(readers) as pool:
        sizes = list(pool.map(lambda k: reader(f"{url}/{ids[k % len(ids)]}.html", 20), range(readers)))
    spent, took = worked(pid) - before, time.perf_counter() - began
    print(f"{readers} readers at once: the server worked {spent:.2f} CPU-s ({spent / readers * 1000:.0f} ms a reader)")
    print(f"for {sum(sizes) / 1e6:.0f} MB in {took:.1f} s; a control of a page of mixtures asks it for nothing")


if __name__ == "__main__":
    main()
