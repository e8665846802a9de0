"""The README keeps its word: its table of names is the registry's, and its code runs."""

import re
from pathlib import Path

from toydiff.solvers import SOLVERS

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_table_of_names_is_the_registry():
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \| (.*) \| (.*) \|$", README, re.MULTILINE)
    written = {name: dict(zip(("diffusers", "k-diffusion", "UI"), cells, strict=True)) for name, *cells in rows}
    assert list(written) == list(SOLVERS)
    for name, cells in written.items():
        assert {where: text for where, text in cells.items() if text != "—"} == SOLVERS[name].elsewhere, name


def test_python_blocks_run(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert blocks
    for block in blocks:
        exec(block, {})
    lines = capsys.readouterr().out.splitlines()
    (fast_nfe, fast_error), (slow_nfe, slow_error) = (
        line.replace("tensor(", "").replace(")", "").split()[:2] for line in lines
    )
    # the example's lesson: the same ten calls, far closer
    assert fast_nfe == slow_nfe == "10"
    assert float(fast_error.rstrip(",")) < 0.2 * float(slow_error.rstrip(","))
