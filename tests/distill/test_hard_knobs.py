"""A knob that leads nowhere is refused before anything is trained."""

import dataclasses
import math

import pytest

from toydiff import runs
from toydiff.catalog import METHODS, TOKEN_METHODS
from toydiff.problems import ENTRIES


@pytest.mark.slow
@pytest.mark.parametrize("method", [*METHODS, *TOKEN_METHODS])
def test_no_knob_is_infinite_or_beyond_all_sense(method):
    card = (METHODS | TOKEN_METHODS)[method]
    on = next(name for name, entry in ENTRIES.items() if card.fits(entry.scale))
    for field in dataclasses.fields(card.knobs):
        if field.type is str or field.type == "str":
            continue
        for value in (math.inf, -math.inf, math.nan, "inf", "1e400", 1e30, 10**30, -(10**30), 10**400, "9" * 5000):
            if field.name == "clip" and value in (1e30, 10**30):
                continue  # as large as no clipping
            with pytest.raises(ValueError, match=field.name) as error:
                runs.knobs(method, on, {field.name: value})
            assert len(str(error.value)) < 400


def test_what_is_large_and_sensible_is_a_knob():
    made = runs.knobs(
        "diffusion", "mixture", {"updates": 10**7, "batch": 10**5, "clip": "1e30", "lr": 10.0, "warmup": 10**6}
    )
    assert (made.updates, made.clip) == (10**7, 1e30)
