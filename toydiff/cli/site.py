"""`toydiff site`: the lessons as pages that need no server."""

import argparse
import importlib
import importlib.util
import sys

from ..support.files import seen, writable_folder
from ..support.words import plural
from . import app
from .terminal import Parser, given, one_thread, show_progress

INSTALL = "the pages are those of the app, which needs the extra `app`: pip install 'toydiff[app]'"
MORE = (
    "Every page of the app with its presets, and figures for some values of its controls; on exact mixtures the\n"
    "browser computes paths itself. The folder opens by its index.html, without a network, and any static host\n"
    "serves it, also below another address or in a frame of another page. An earlier site in DIR is replaced."
)

LIMIT = 25e6
"""Bytes that a site should have at most, so that it fits into a course's pages and on a slow line."""


def arguments(parser: Parser) -> None:
    """The options of `toydiff site`."""
    parser.add_argument(
        "--out",
        metavar="DIR",
        type=given,
        required=True,
        help="folder to write: a new one, an empty one, or an earlier site",
    )
    parser.add_argument(
        "--pages",
        metavar="NAME",
        nargs="+",
        default=[],
        help="only these pages, by the last word of their address in the app: paths orders ... (default: all)",
    )


def run(args: argparse.Namespace) -> None:
    """Write the site, and print where it opens and how large it is."""
    out = seen(args.out).resolve()
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must name a folder, and {args.out!r} is a file")
    if importlib.util.find_spec("streamlit") is None:
        raise ValueError(INSTALL)
    writable_folder(out.parent)  # the site is written beside its place, and moved there when it is whole
    sys.path.insert(0, str(app.folder()))
    one_thread()
    made = importlib.import_module("offline.build").build(out, args.pages, progress=show_progress())
    pages, figures = plural(made["pages"], "page"), plural(made["figures"], "figure")
    print(f"wrote {pages} and {figures}, {made['bytes'] / 1e6:.1f} MB, in {made['seconds']:.0f} s")
    if made["bytes"] > LIMIT:
        print(f"that is more than {LIMIT / 1e6:g} MB: with --pages it has fewer pages")
    print(f"open {(out / 'index.html').as_uri()}")
