"""`toydiff app`: the lessons in a browser."""

import argparse
import contextlib
import importlib.util
import json
import os
import re
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path

from ..support.words import quoted
from .terminal import Parser, place, whole

INSTALL = "the app needs the extra `app`: pip install 'toydiff[app]'"
EVERYONE = ("0.0.0.0", "::")
"""Hosts that stand for all of this machine's addresses."""
QR = "pip install 'toydiff[qr]' prints its QR code here"
FOLDERS = ("toydiff_app", "app")
"""The folder of the app's files, beside this package: in an installation, and in a clone."""


def folder() -> Path:
    """The folder of the app's files; `ValueError` where there is none."""
    root = Path(__file__).parents[2]
    for name in FOLDERS:
        if (root / name / "main.py").is_file() and (root / name / "lessons").is_dir():
            return root / name
    raise ValueError(f"the app's files are missing: there is no {' and no '.join(FOLDERS)} in {str(root)!r}")


def arguments(parser: Parser) -> None:
    """The options of `toydiff app`."""
    parser.add_argument(
        "--port",
        type=whole(1, 65535),
        default=8501,
        help="port of the address (default: %(default)s)",
    )
    parser.add_argument(
        "--host",
        help="who may connect: localhost, or 0.0.0.0 for everyone on the network (default: localhost; with --class "
        "0.0.0.0)",
    )
    parser.add_argument(
        "--class",
        dest="for_class",
        action="store_true",
        help="for a class: everyone on the network may connect, the map shows the address to type, and nobody chooses "
        "a checkpoint",
    )
    parser.add_argument(
        "--base",
        metavar="PATH",
        type=_base,
        help="the path below which a proxy serves the app and which it passes on; in JupyterHub "
        "user/NAME/proxy/absolute/PORT",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="PATH",
        type=place,
        action="append",
        help="a Stable Diffusion checkpoint that visitors may choose; may be given again. On another host than "
        "localhost they can choose no other",
    )
    parser.add_argument(
        "--no-browser",
        action="store_true",
        help="print the address, and open no browser",
    )


def run(args: argparse.Namespace) -> None:
    """Serve the app until it is interrupted."""
    if importlib.util.find_spec("streamlit") is None:
        raise ValueError(INSTALL)
    served = folder() / "served.py"
    host = args.host or (EVERYONE[0] if args.for_class else "localhost")
    _check_port(host, args.port)
    print("Starting the app ...", flush=True)
    # what the pages need is loaded before the first reader comes: distances, networks, training, figures
    import ot  # noqa: F401
    from streamlit.web import cli

    from .. import runs  # noqa: F401
    from ..plots import interactive  # noqa: F401

    base = args.base or ""
    address = f"http://{_reached_at(host)}:{args.port}/{base}".rstrip("/")
    if host in EVERYONE:
        _invite(address)
    own = "localhost" if host in EVERYONE else host
    if not args.no_browser:
        threading.Thread(target=_open, args=(own, args.port, base), daemon=True).start()
    options = {
        "server.port": args.port,
        "server.address": host,
        "server.baseUrlPath": base,
        "server.maxUploadSize": 1,  # megabytes; no page takes a file, but the server would
        "server.headless": "true",  # otherwise Streamlit lays an advertisement over the first page
        "browser.serverAddress": own,
    }
    os.environ["TOYDIFF_CHECKPOINTS"] = json.dumps(args.checkpoint or [])  # where the pages read them
    os.environ["TOYDIFF_CLASS"] = address if args.for_class else ""
    words = ["run", str(served), *(f"--{name}={value}" for name, value in options.items())]
    sys.argv = ["streamlit", *words]
    cli.main(words, standalone_mode=False)


def _base(text: str) -> str:
    """A path without the slashes around it; `ValueError` for what no address can have."""
    path = text.strip("/")
    if not re.fullmatch(r"[\w.~@%+-]+(/[\w.~@%+-]+)*", path, re.ASCII):
        raise argparse.ArgumentTypeError(f"must be a path such as user/NAME/proxy/absolute/8501, got {quoted(text)}")
    return path


def _reached_at(host: str) -> str:
    """The name under which others reach this host."""
    if host not in EVERYONE:
        return host
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it asks which of this machine's addresses leads out
            return probe.getsockname()[0]
    except OSError:
        return socket.gethostname()


def _invite(address: str) -> None:
    """Print the address that others on the network type, and in a terminal its QR code for those with a phone."""
    print(f"\n  For the class: {address}", flush=True)
    try:
        import qrcode
    except ImportError:
        print(f"  ({QR})", flush=True)
        return
    if sys.stdout.isatty():
        code = qrcode.QRCode(border=2)
        code.add_data(address)
        # a terminal that has no block letters shows the address alone
        with contextlib.suppress(UnicodeEncodeError):
            code.print_ascii(tty=True)


def _open(host: str, port: int, base: str) -> None:
    """Open the first page in a browser once the host answers."""
    for _ in range(300):
        try:
            socket.create_connection((host, port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            webbrowser.open(f"http://{host}:{port}/{base}")
            return


def _check_port(host: str, port: int) -> None:
    """`ValueError` where the address is taken, or is none of this machine's."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ValueError(
                f"cannot serve at {host}:{port}: {error.strerror or error}; choose another --port or --host"
            ) from None
