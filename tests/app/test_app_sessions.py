"""Many readers of one server at once: each sees what its own link requests, and the server's memory has a bound."""

import concurrent.futures
import json
import sys
import time

import browser
import pytest

pytest.importorskip("streamlit")
pytest.importorskip("psutil")
sync = pytest.importorskip("websockets.sync.client")

from streamlit.proto.BackMsg_pb2 import BackMsg  # noqa: E402
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:connect:DeprecationWarning")]
READERS = 10
MOST = 50e6
"""Bytes that a second wave of as many readers, of other figures, may add: up to a hundred figures are kept, whoever
asks.
"""


class Reader:
    """A session, as a browser's page holds it."""

    def __init__(self, url):
        self.socket = sync.connect(
            url.replace("http", "ws") + "/_stcore/stream", subprotocols=["streamlit"], max_size=2**27
        )

    def request(self, query):
        """Run the first page with this link; the figures that it drew, as JSON, and what it complained of."""
        message = BackMsg()
        message.rerun_script.query_string = query
        message.rerun_script.page_name = "paths"
        self.socket.send(message.SerializeToString())
        charts, alerts = [], []
        while True:
            answer = ForwardMsg()
            answer.ParseFromString(self.socket.recv(timeout=120))
            kind = answer.WhichOneof("type")
            if kind == "delta":
                element = answer.delta.new_element
                if element.bidi_component.component_name == "toydiff_chart":
                    charts.append(json.loads(element.bidi_component.bytes)["figure"])
                if element.WhichOneof("type") in ("alert", "exception"):
                    alerts.append(str(element))
            if kind == "script_finished":
                return [chart for chart in charts if chart], alerts


def memory(url):
    """Resident bytes of the server that listens there."""
    return browser.listener(url).memory_info().rss


def all_imported(url):
    """Wait until the server has imported what later pages need (`screen.later`, after 4 s), which
    takes memory once."""
    time.sleep(5)
    before, now = 0, memory(url)
    while now > before + 1e6:
        time.sleep(1.5)
        before, now = now, memory(url)


def test_sessions_do_not_mix_and_memory_is_bounded():
    with browser.serve() as url, concurrent.futures.ThreadPoolExecutor(READERS) as pool:
        readers = list(pool.map(lambda _: Reader(url), range(READERS)))

        def visit(k, wave):
            """Each reader asks for its own number of steps and mixture."""
            steps = 1 + k
            charts, alerts = readers[k].request(f"steps={steps}&mixture={0.1 * k + wave:.2f},0,0.2,1;-1,-1,0.3,1")
            assert not alerts, alerts
            [chart] = charts
            assert len(chart["layout"]["sliders"][0]["steps"]) == steps + 1
            assert f"ddim, {steps} call" in chart["layout"]["annotations"][0]["text"]
            return json.dumps(chart["data"])

        figures = list(pool.map(lambda k: visit(k, 0), range(READERS)))
        assert len(set(figures)) == READERS
        all_imported(url)
        before = memory(url)
        list(pool.map(lambda k: visit(k, 1), range(READERS)))
        grown = memory(url) - before
        # the same links again give the same figures, whoever came in between
        assert list(pool.map(lambda k: visit(k, 0), range(3))) == figures[:3]
        for reader in readers:
            reader.socket.close()
    assert grown < MOST, f"{grown / 1e6:.0f} MB"
    print(
        f"{READERS} readers: {before / 1e6:.0f} MB, and {grown / 1e6:.0f} MB more after as many other figures",
        file=sys.stderr,
    )
