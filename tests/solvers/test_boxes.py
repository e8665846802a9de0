"""The algorithm box at the head of a parallel sampler: its lines are numbered, and the code bears the numbers."""

import inspect
import re

import pytest

from toydiff.solvers.parallel import parareal, picard


@pytest.mark.parametrize("module", [inspect.getmodule(picard.Picard), inspect.getmodule(parareal.Parareal)])
def test_every_line_of_the_box_is_a_line_of_code(module):
    box = [int(n) for n in re.findall(r"^    (\d+)  +\S", module.__doc__, re.MULTILINE)]
    assert box == list(range(1, len(box) + 1))
    assert len(box) > 5
    comments = re.findall(r"\S  # (\d.*)$", inspect.getsource(module), re.MULTILINE)
    numbers = {int(n) for comment in comments for n in re.findall(r"\b\d+\b", comment)}
    assert set(box[:-1]) <= numbers  # the last line returns what the last sweep yielded
