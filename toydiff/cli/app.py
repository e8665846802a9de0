"""`toydiff app`: the lessons in a browser."""

import argparse
import importlib.util
import json
import os
import socket
import sys
import threading
import time
import webbrowser
from pathlib import Path

from .terminal import Parser, place, whole

INSTALL = "the app needs the extra `app`: pip install 'toydiff[app]'"
EVERYONE = ("0.0.0.0", "::")
"""Hosts that stand for all of this machine's addresses."""
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
        default="localhost",
        help="who may connect: localhost, or 0.0.0.0 for everyone on the network (default: %(default)s)",
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
    main = folder() / "main.py"
    _check_port(args.host, args.port)
    # what the pages need is loaded before the first reader comes: distances, networks, training, figures
    import ot  # noqa: F401
    from streamlit.web import cli

    from .. import runs  # noqa: F401
    from ..plots import interactive  # noqa: F401

    if args.host in EVERYONE:
        _invite(args.port)
    if not args.no_browser:
        threading.Thread(target=_open, args=(args.host, args.port), daemon=True).start()
    options = {
        "server.port": args.port,
        "server.address": args.host,
        "server.maxUploadSize": 1,  # megabytes; no page takes a file, but the server would
        "server.headless": "true",  # otherwise Streamlit lays an advertisement over the first page
        "browser.serverAddress": "localhost" if args.host == "0.0.0.0" else args.host,
    }
    os.environ["TOYDIFF_CHECKPOINTS"] = json.dumps(args.checkpoint or [])  # where the pages read them
    words = ["run", str(main), *(f"--{name}={value}" for name, value in options.items())]
    sys.argv = ["streamlit", *words]
    cli.main(words, standalone_mode=False)


def _invite(port: int) -> None:
    """Print the address that others on the network type."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it asks which of this machine's addresses leads out
            address = probe.getsockname()[0]
    except OSError:
        address = socket.gethostname()
    print(f"\n  For the class: http://{address}:{port}", flush=True)


def _open(host: str, port: int) -> None:
    """Open the first page in a browser once the address answers."""
    name = "localhost" if host == "0.0.0.0" else host
    for _ in range(300):
        try:
            socket.create_connection((name, port), 1).close()
        except OSError:
            time.sleep(0.2)
        else:
            webbrowser.open(f"http://{name}:{port}")
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
