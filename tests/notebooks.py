"""A fresh process for each notebook, without importing torch each time.

One process imports the libraries that every notebook uses, nothing of toydiff, and is forked for each of them.
"""

import importlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

LIBRARIES = (
    "torch",
    "torch._dynamo",  # by the first optimizer
    "scipy.stats",
    "sklearn",
    "ot",
    "matplotlib.pyplot",
    "IPython.core.interactiveshell",
)


class CellFailedError(Exception):
    """What a cell wrote that raised."""


@contextmanager
def runner(folder: Path) -> Iterator[Callable[[list[str]], tuple[str, str, float]]]:
    """run(cells): a new process runs them in a folder.

    Returns what the last cell printed, what all wrote on stderr, and the seconds of the processor that they took.
    `CellFailedError` where a cell raises.
    """
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    server = spawn.Process(target=_serve, args=(there, folder))
    server.start()
    there.close()  # so that the end of the server is the end of what comes from it

    def run(cells: list[str]) -> tuple[str, str, float]:
        here.send(cells)
        failure, *outcome = here.recv()
        if failure:
            raise CellFailedError(failure)
        return tuple(outcome)

    try:
        yield run
    finally:
        with suppress(BrokenPipeError):
            here.send(None)
        server.join()


def _serve(jobs: Connection, folder: Path) -> None:
    os.environ["MPLBACKEND"] = "module://matplotlib_inline.backend_inline"  # as in a kernel
    for library in LIBRARIES:
        importlib.import_module(library)
    fork = multiprocessing.get_context("fork")
    while job := jobs.recv():
        process = fork.Process(target=_run, args=(jobs, folder, job))
        process.start()
        process.join()
        if process.exitcode:
            jobs.send((f"the notebook's process ended with code {process.exitcode}",))


def _run(answer: Connection, folder: Path, cells: list[str]) -> None:
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None:
            """Nothing: figures are inline."""

    os.chdir(folder)
    shell, printed, complaints = Shell.instance(colors="nocolor"), "", ""
    for number, cell in enumerate(cells, 1):
        with capture_output() as output:
            result = shell.run_cell(cell, store_history=True)
        printed, complaints = output.stdout, complaints + output.stderr
        if not result.success:
            answer.send((f"code cell {number}:\n{cell}\n{printed}{complaints}",))
            return
    answer.send(("", printed, complaints, time.process_time()))
