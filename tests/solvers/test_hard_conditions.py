"""Conditions of every form, guidance of every form, and batches of no sample: parallel samplers as sequential ones."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from toydiff import PARALLEL, SOLVERS, VP, Denoiser, Empirical, Guided, Prediction, Rescheduled, mixtures, solve
from toydiff.denoisers import Counted, LambdaDenoiser
from toydiff.nets import MLP
from toydiff.schedules import Cosine

RING = mixtures.ring()
B = 6
WALKS = [
    "ddim",
    "picard:tolerance=none",
    "anderson:tolerance=none",
    "broyden:tolerance=none",
    "parareal:tolerance=none",
]


class Text(NamedTuple):
    rows: torch.Tensor
    scale: float


class Moved(Denoiser):
    """A model that takes any condition: what it finds of it is where the data lie."""

    def forward(self, x, t, cond=None):
        return Prediction.of("x0", 0.3 * x + self.place(cond, len(x)), x, t, self.schedule)

    def place(self, cond, n):
        if cond is None:
            return 0.0
        if isinstance(cond, dict):
            return sum(self.place(value, n) for value in cond.values())
        if isinstance(cond, Text):
            return self.place(cond.rows, n) * cond.scale
        if isinstance(cond, str):
            return float(len(cond))
        if isinstance(cond, list | tuple) and len(cond) == n:
            cond = [len(c) if isinstance(c, str) else c for c in cond]
            if isinstance(cond[0], torch.Tensor) and cond[0].ndim:
                cond = torch.stack(cond)
        elif isinstance(cond, list | tuple):
            return sum(self.place(value, n) for value in cond)
        cond = torch.as_tensor(cond, dtype=torch.float64)
        return cond[:, None] if cond.ndim == 1 else cond


LABELS = torch.arange(B)
ROWS = torch.arange(2.0 * B).reshape(B, 2)
FORMS = {
    "0-dim": torch.tensor(3),
    "int": 3,
    "float": 0.5,
    "(B,)": LABELS,
    "(B, d)": ROWS,
    "(1, d)": ROWS[:1],
    "array": LABELS.numpy(),
    "array ()": np.array(2),
    "list": LABELS.tolist(),
    "tuple": tuple(LABELS.tolist()),
    "words": ["a", "to", "the", "then", "there", "others"],
    "a prompt": "a red fox",
    "tensors": list(LABELS),
    "rows": list(ROWS),
    "dict": {"text": ROWS, "size": LABELS, "all": 2, "word": "x"},
    "nested": {"a": {"b": [ROWS, LABELS]}, "c": (torch.tensor(1.0), ROWS)},
    "pair": (ROWS, ROWS[:1]),
    "namedtuple": Text(ROWS, 2.0),
    "none": None,
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_condition_of_every_form(form):
    D, cond = Moved(VP()), FORMS[form]
    x = torch.randn(B, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for at_once in ("", ",at_once=9"):
        ends = [solve(D, x, 6, solver=w + (at_once if ":" in w else ""), cond=cond).end for w in WALKS]
        for walk, end in zip(WALKS[1:], ends[1:], strict=True):
            torch.testing.assert_close(end, ends[0], rtol=1e-8, atol=1e-8, msg=f"{walk} of {form}")


@pytest.mark.parametrize("walk", WALKS)
def test_a_condition_that_fits_no_batch_is_one_line(walk):
    for cond in (torch.tensor([3]), [3], "x", {"a": 1}, torch.zeros(B), torch.zeros(B, 1).long(), [None] * B, object()):
        with pytest.raises(ValueError, match="cond must be whole numbers") as caught:
            solve(RING.denoiser(VP()), torch.randn(B, 2), 4, solver=walk, cond=cond)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 200


SCALES = {
    "(B,)": torch.full((B,), 3.0),
    "(B,) of whole numbers": torch.full((B,), 3),
    "list": [3.0] * B,
    "tuple": (3,) * B,
    "array": np.full(B, 3.0),
    "0-dim": torch.tensor(3.0),
    "array ()": np.array(3.0),
    "numpy": np.float32(3),
    "int": 3,
}


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_guidance_of_every_form(scale):
    x = torch.randn(B, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    conditioned = LambdaDenoiser(MLP(2, classes=B, guided=True).double(), VP())
    exact = RING.denoiser(VP())
    for D in (exact, Counted(exact), Rescheduled(exact, Cosine()), conditioned):
        for walk in ("ddim", "ab3", "picard", "parareal"):
            right = solve(D, x, 4, solver=walk, cond=LABELS, guidance_scale=3.0)
            found = solve(D, x, 4, solver=walk, cond=LABELS, guidance_scale=SCALES[scale])
            torch.testing.assert_close(found.end, right.end, rtol=1e-9, atol=1e-9)
            assert found.nfe == right.nfe


def test_a_guidance_scale_that_is_none():
    x, D = torch.randn(B, 2), RING.denoiser(VP())
    wrong = [
        torch.ones(3),
        [3.0],
        [3.0] * 5,
        ["a"] * B,
        "3",
        None,
        torch.ones(B, 1),
        torch.full((B,), torch.nan),
        np.inf,
    ]
    wrong += [torch.ones(B, dtype=torch.bool), torch.ones(B, dtype=torch.complex64), True, [[3.0]] * B, {}, object()]
    for scale in wrong:
        for walk in ("ddim", "picard"):
            with pytest.raises(ValueError, match="guidance_scale") as caught:
                solve(D, x, 3, solver=walk, cond=LABELS, guidance_scale=scale)
            assert "\n" not in str(caught.value)
    for call in (lambda g: Guided(D, g), lambda g: solve(Guided(D, 2.0), x, 3, cond=LABELS, guidance_scale=g)):
        for scale in (torch.full((B,), 3.0), [3.0] * B):
            with pytest.raises(ValueError, match="guid") as caught:
                call(scale)
            assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="needs a condition"):
        solve(D, x, 3, guidance_scale=torch.full((B,), 3.0))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [*SOLVERS, *PARALLEL, "picard:start=2", "picard:window=3,solver=ddpm", "parareal:blocks=2"]
)
def test_no_sample(name):
    x = torch.zeros(0, 2)
    for D in (RING.denoiser(VP()), Empirical(torch.randn(5, 2)).denoiser(VP())):
        for keep, kept in (("path", 7), ("end", 1)):
            path = solve(D, x, 6, solver=name, keep=keep)
            assert path.end.shape == (0, 2)
            assert path.xs.shape == (kept, 0, 2)
    cond = torch.zeros(0, dtype=torch.long)
    assert solve(RING.denoiser(VP()), x, 6, solver=name, cond=cond, guidance_scale=2.0).end.shape == (0, 2)


class Shaped(Denoiser):
    """A model whose prediction has another shape than its state."""

    def __init__(self, x0, eps=None):
        super().__init__(VP())
        self.pair = x0, eps

    def forward(self, x, t, cond=None):
        return Prediction(x, t, self.pair[0], x if self.pair[1] is None else self.pair[1], self.schedule)


@pytest.mark.parametrize("walk", ["ddim", "ab3", "picard", "parareal", "heun"])
def test_a_prediction_of_another_shape(walk):
    for pair in ((torch.zeros(2),), (torch.zeros(1, 2),), (torch.zeros(B, 2), torch.zeros(())), (0.0,), (None,)):
        with pytest.raises(ValueError, match=r"must be shaped like x|must return") as caught:
            solve(Shaped(*pair), torch.zeros(B, 2), 3, solver=walk)
        assert "\n" not in str(caught.value)
