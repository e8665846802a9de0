"""A running app and a real browser for tests and benchmarks: Debian's chromium, driven by Playwright, which downloads
none.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

APP = Path(__file__).parent.parent / "app"
FIGURE = ".st-key-picture .js-plotly-plot"
MARKS = f"{FIGURE} .trace:visible, {FIGURE} .imagelayer image"
LETTERS = f"""() => [...document.querySelectorAll('{FIGURE} text')]
    .filter(e => e.textContent.trim())
    .map(e => [e.textContent, e.getBoundingClientRect()])
    .map(([text, box]) => [text, box.left, box.top, box.right, box.bottom])
"""
"""All the words of a figure, and where they stand: left, top, right, bottom."""
COVERED = f"""() => [...document.querySelectorAll('{FIGURE} :is(.legend, .legend2)')].flatMap((legend) => {{
  const box = legend.querySelector('.bg').getBoundingClientRect();
  return [...document.querySelectorAll('{FIGURE} text')].filter((word) => {{
    const one = word.getBoundingClientRect(), x = [one.left, one.right], y = [one.top, one.bottom];
    const apart = x[1] < box.left + 1 || x[0] > box.right - 1 || y[1] < box.top + 3 || y[0] > box.bottom - 3;
    return word.textContent.trim() && !legend.contains(word) && !apart;
  }}).map((word) => word.textContent);
}})"""
"""The words of a figure that lie below a legend."""
ARROW = """(figure) => {
  const { xaxis, yaxis } = document.querySelector(figure)._fullLayout;
  const path = document.querySelector(".field path").getAttribute("d");
  const [a, b, c, d] = path.split(/[ML ]/).slice(1, 5).map(Number);
  const [from, to] = [[xaxis.p2l(a), yaxis.p2l(b)], [xaxis.p2l(c), yaxis.p2l(d)]];
  return [from.map((v, k) => (v + to[k]) / 2), from.map((v, k) => to[k] - v)];
}"""
"""Middle and direction of the score's first arrow, in the plane's numbers."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
REQUIRED = "TOYDIFF_BROWSER"
"""Set to 1 where a browser must be there: the tests then fail without one."""


def executable() -> str | None:
    """The browser's path, None where there is none."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@contextmanager
def serve(*command: str, port: int | None = None, base: str = "", **environment: str) -> Iterator[str]:
    """A server's address while it runs; by default that of `toydiff app`. base: "/" and the path that it is below."""
    port = port or free_port()
    words = [word.format(port=port) for word in command] or [
        "-m",
        "toydiff",
        "app",
        "--no-browser",
        "--port",
        str(port),
    ]
    process = subprocess.Popen(
        [sys.executable, *words],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    url = f"http://localhost:{port}{base}"
    try:
        for _ in range(240):
            if process.poll() is not None:
                raise RuntimeError(f"the server stopped: {process.stdout.read()}")
            try:
                urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.25)
        else:
            raise RuntimeError("the server did not come up in a minute")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):  # it stopped, and what it said is the error
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def listener(url: str) -> Any:
    """The process that listens there, as psutil has it."""
    import psutil

    port = urllib.parse.urlsplit(url).port
    [owner] = {c.pid for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.laddr.port == port}
    return psutil.Process(owner)


@contextmanager
def static(folder: Path) -> Iterator[tuple[str, int]]:
    """The address and the process of a server of a folder's files, while it runs."""
    port = free_port()
    words = [sys.executable, "-m", "http.server", str(port), "--bind", "localhost", "--directory", str(folder)]
    process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://localhost:{port}"
    try:
        for _ in range(300):
            try:
                urllib.request.urlopen(url, timeout=1).read()
                break
            except OSError:
                time.sleep(0.1)
        yield url, process.pid
    finally:
        process.kill()
        process.wait()


@contextmanager
def chromium() -> Iterator:
    """The browser, started; contexts of it are fresh profiles."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=FLAGS)
        yield browser
        browser.close()


def drag(page, finger: bool, from_: tuple[float, float], to: tuple[float, float]) -> None:
    """Press at one place of the window, move to another, and let go; with the mouse or a finger."""
    if not finger:
        page.mouse.move(*from_)
        page.mouse.down()
        page.mouse.move(*to, steps=3)
        return page.mouse.up()
    hand = page.context.new_cdp_session(page)
    for kind, points in (("Start", [from_]), ("Move", [to]), ("End", [])):
        at = [{"x": x, "y": y} for x, y in points]
        hand.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": at})


@contextmanager
def stripping_proxy(target: str, prefix: str) -> Iterator[str]:
    """The address below which another server is reached, which sees its paths without `prefix`; as JupyterHub's proxy
    does it, for web sockets too."""
    port = int(target.rpartition(":")[2])

    def forward(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def serve_one(client: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = client.recv(65536)
            if not data:
                return client.close()
            head += data
        method, path, rest = head.split(b" ", 2)
        if not path.startswith(prefix.encode()):
            client.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return client.close()
        if b"pgrade: websocket" not in rest:  # one request a connection, since only the first is looked at
            rest = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"\r\nConnection: close", rest)
        try:
            server = socket.create_connection(("localhost", port))
        except ConnectionRefusedError:  # it has ended
            return client.close()
        server.sendall(method + b" " + (path[len(prefix) :] or b"/") + b" " + rest)
        threading.Thread(target=forward, args=(server, client), daemon=True).start()
        forward(client, server)

    with socket.create_server(("localhost", 0)) as door:

        def listen() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=serve_one, args=(door.accept()[0],), daemon=True).start()

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://localhost:{door.getsockname()[1]}{prefix}"
