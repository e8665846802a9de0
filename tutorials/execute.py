"""Make the executed notebooks: `python tutorials/execute.py [NAME ...]`.

A name is such as 03 or 03_solvers_and_their_orders; by default all are made. Each source NN_name.py (jupytext's
py:percent) is run from a clean kernel in this folder, and NN_name.ipynb is written beside it, whole or not at all. What
differs from run to run or machine to machine is left out, so that the file changes only when its content does. The
notebook's metadata say which bundled weights it opened, and what they were: "weights", {id: `version_of`}; and what it
measured: "key_numbers", its dictionary `key`, which tests compare.
"""

import json
import os
import re
import site
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from toydiff import weights
from toydiff.support.files import write_text
from toydiff.support.sealed import checksum

HERE = Path(__file__).resolve().parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
SECONDS_PER_CELL = 300
LISTEN = """
import os as _os, sys as _sys
_opened = set()
def _listen(event, arguments):
    if event == "open" and isinstance(arguments[0], str | _os.PathLike):
        folder, name = _os.path.split(_os.fspath(arguments[0]))
        if name.endswith(".json") and folder.endswith(_os.path.join("toydiff", "weights")):
            _opened.add(name.removesuffix(".json"))
_sys.addaudithook(_listen)
"""
"""A cell before all others: from then on it is known which files of weights are opened."""
TELL = """
import json as _json
_key = {_name: float(f"{_value:.6g}") for _name, _value in globals().get("key", {}).items()}
print(_json.dumps({"weights": sorted(_opened), "key_numbers": _key}))
"""
"""A cell after all others."""


def sources(names: list[str] | None = None) -> list[Path]:
    """The tutorials' sources, in order: all, or those whose file name starts with one of `names`.

    `ValueError` for a name that fits none.
    """
    found = sorted(HERE.glob("[0-9][0-9]_*.py"))
    if not names:
        return found
    stems = [Path(name).stem for name in names]
    for stem in stems:
        if not any(path.stem.startswith(stem) for path in found):
            raise ValueError(f"no tutorial is called {stem!r}; there are {', '.join(path.stem for path in found)}")
    return [path for path in found if path.stem.startswith(tuple(stems))]


def read(source: Path) -> NotebookNode:
    """The notebook that a source describes, not executed.

    Cells are numbered, so that the same source gives the same notebook.
    """
    notebook = jupytext.read(source)
    for k, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{k}", NotebookNode()
    notebook.metadata = NotebookNode(kernelspec=NotebookNode(KERNEL))
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    return notebook


def execute(notebook: NotebookNode) -> list[str]:
    """Run a notebook in a clean kernel in this folder, and tidy its outputs; returns what it wrote on stderr.

    Raises nbclient's `CellExecutionError` where a cell fails.
    """
    own = notebook.cells
    notebook.cells = [nbformat.v4.new_code_cell(LISTEN), *own, nbformat.v4.new_code_cell(TELL)]
    client = NotebookClient(
        notebook,
        timeout=SECONDS_PER_CELL,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(HERE)}},
    )
    # the batches are too small to be divided among threads, which on a busy machine only wait for one another
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    told = json.loads(notebook.cells[-1].outputs[0].text)
    notebook.cells = own
    notebook.metadata = NotebookNode(
        kernelspec=NotebookNode(KERNEL),
        language_info=NotebookNode(name="python"),
        weights=NotebookNode({id_: version_of(id_) for id_ in told["weights"]}),
        key_numbers=NotebookNode(told["key_numbers"]),
    )
    complaints = []
    for cell in notebook.cells:
        cell.metadata = NotebookNode()
        if cell.cell_type == "code":
            cell.execution_count -= 1  # the first cell is not the notebook's
            complaints += [o.text for o in cell.outputs if o.get("name") == "stderr"]
            cell.outputs = [_tidy(o) for o in cell.outputs if o.get("name") != "stderr"]
    return complaints


def version_of(id_: str) -> str:
    """What changes where bundled weights, or what they measured, change."""
    about = weights.read_about(id_)
    return checksum(json.dumps([about["sha256"], about["rows"], about.get("repeats", [])]).encode())[:16]


def _tidy(output: NotebookNode) -> NotebookNode:
    """An output without machine paths and memory addresses."""
    if "text" in output:
        output.text = _anonymous(output.text)
    for kind, data in output.get("data", {}).items():
        if kind.startswith("text/"):
            output.data[kind] = _anonymous(data)
    output.pop("transient", None)
    return output


def _anonymous(text: str) -> str:
    folders = {str(HERE.parent), sys.prefix, str(Path.home()), *site.getsitepackages()} - {"/"}
    for folder in sorted(folders, key=len, reverse=True):
        text = text.replace(folder, "...")
    return re.sub(r" at 0x[0-9a-fA-F]+", "", text)


def main(names: list[str]) -> int:
    try:
        chosen = sources(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for source in chosen:
        notebook, began = read(source), time.perf_counter()
        try:
            complaints = execute(notebook)
        except CellExecutionError as error:
            print(f"{source.name} failed; its notebook was left as it was\n{error}", file=sys.stderr)
            return 1
        write_text(source.with_suffix(".ipynb"), nbformat.writes(notebook) + "\n")
        print(f"{source.name}: {time.perf_counter() - began:.0f} s")
        for complaint in complaints:
            print(f"  stderr: {complaint.strip()}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
