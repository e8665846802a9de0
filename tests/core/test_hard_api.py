"""Seeded nonsense: calls of the public API with odd shapes, types and values end in a result or in one line.

A result that was made of finite numbers has no NaN. `python tests/core/test_hard_api.py SEED CALLS` runs more of them.
"""

import random
import sys
import time
import warnings

import numpy as np
import pytest
import torch
from cases import ALL_SCHEDULES

import toydiff
from toydiff import (
    GRIDS,
    PARALLEL,
    SOLVERS,
    Conditioned,
    Counted,
    Empirical,
    GaussianMixture,
    Guided,
    NetDenoiser,
    Prediction,
    Rescheduled,
    Tabulated,
    chord,
    jump,
    measure,
    mixtures,
    solve,
    time_grid,
)
from toydiff.prediction import noise_travel
from toydiff.schedules import VE, VP, PiecewiseLinear

ALLOWED = (ValueError, TypeError, FloatingPointError)
NUMBERS = [
    0,
    1,
    -1,
    2,
    0.5,
    0.0,
    1.0,
    1e-9,
    1e9,
    3,
    7,
    True,
    None,
    "3",
    "",
    [],
    (),
    {},
    float("nan"),
    float("inf"),
    1 + 2j,
]
NUMBERS += [
    np.float32(0.5),
    np.int64(3),
    np.array(0.5),
    torch.tensor(0.5),
    torch.tensor(2),
    b"x",
    object(),
    10**20,
    -(10**20),
]
TIMES = [
    0,
    1,
    0.5,
    0.0,
    1.0,
    1e-12,
    0.999,
    -0.1,
    1.1,
    "1",
    None,
    [0.5],
    torch.tensor(0.5),
    torch.tensor(1),
    float("nan"),
]
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.bool, torch.complex64]
SHAPES = [
    (4, 2),
    (4, 2),
    (4, 2),
    (4, 2),
    (1, 2),
    (0, 2),
    (4, 0),
    (4,),
    (),
    (4, 3),
    (3, 2),
    (4, 1),
    (4, 2, 1),
    (2, 3, 4, 4),
]


class Odd:
    """A generator of arguments: mostly right ones."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.torch = torch.Generator().manual_seed(seed)
        self.ring = mixtures.ring()
        self.finite = True
        self.line = GaussianMixture([[-1.0], [2.0]], std=[0.2, 0.4])

    def of(self, right, odd, often=0.75):
        return self.rng.choice(right) if self.rng.random() < often else self.rng.choice(odd)

    def state(self, often=0.8):
        shape = (4, 2) if self.rng.random() < often else self.rng.choice(SHAPES)
        dtype = torch.float32 if self.rng.random() < often else self.rng.choice(DTYPES)
        x = torch.randn(shape, generator=self.torch) * self.rng.choice([1, 1, 1, 0, 80, 1e-8, 1e4])
        if self.rng.random() < 0.04 and x.numel():
            x.view(-1)[0] = self.rng.choice([torch.nan, torch.inf, -torch.inf])
        x = x.to(dtype)
        self.finite &= not x.is_floating_point() or bool(x.isfinite().all())
        return x if self.rng.random() < 0.97 else self.rng.choice([None, x.tolist(), x.float().numpy(), "x", 3])

    def time(self):
        kind = self.rng.random()
        if kind < 0.5:
            return self.rng.choice([0.0, 1.0, 0.5, 1e-6, 0.37])
        if kind < 0.8:
            n = self.rng.choice([4, 4, 4, 1, 3, 0])
            return torch.rand(n, generator=self.torch).to(self.rng.choice(DTYPES[:4]))
        t = self.rng.choice(TIMES)
        self.finite &= t == t
        return t

    def schedule(self):
        return self.of(list(ALL_SCHEDULES.values()), ["vp", None, VP, 3, toydiff.Schedule(), NOT_ONE], 0.93)

    def kind(self):
        return self.of([*toydiff.KINDS, "preconditioned:sigma_data=0.5"], ["", "V", None, 3, "eps:x=1", ["v"]], 0.9)

    def denoiser(self):
        S = self.rng.choice(list(ALL_SCHEDULES.values()))
        D = self.ring.denoiser(S)
        return self.of(
            [D, D, Rescheduled(D, VP()), Guided(D, 2.0), Counted(D), Empirical(self.ring.sample(9, 0)).denoiser(S)]
            + [NetDenoiser(Net(), S, kind) for kind in ("v", "eps", "velocity", "x0", "score", "preconditioned")],
            [None, "D", torch.nn.Linear(2, 2), NetDenoiser(torch.nn.Linear(3, 2), S), lambda x, t: x],
            0.95,
        )

    def cond(self):
        labels = torch.tensor([0, 1, 2, 3])
        right = [None, None, labels, 3, torch.tensor(1), [0, 1, 2, 3], (0, 1, 2, 3), labels.numpy()]
        return self.of(
            right, [labels[:1], "x", {"a": labels}, labels.float(), -5, [None] * 4, object(), labels[:, None]]
        )

    def scale(self):
        return self.of(
            [1, 1, 1.0, 0, 3.0, torch.full((4,), 2.0), [2.0] * 4], [*NUMBERS, torch.ones(3), torch.ones(4, 1)], 0.85
        )

    def number(self, *right):
        return self.of(right, NUMBERS)


class Net(torch.nn.Module):
    def forward(self, x, t, cond=None):
        return torch.tanh(x) * (1 - t).reshape(-1, *[1] * (x.ndim - 1))


NOT_ONE = type("NotOne", (toydiff.Schedule,), {"alpha": lambda self, t: t + 0.0, "sigma": lambda self, t: 1 - t})()
WALKS = [
    *SOLVERS,
    *PARALLEL,
    "ddim:eta=0.5",
    "heun:gamma=0.2",
    "picard:window=2",
    "parareal:blocks=2",
    "picard:solver=ddpm",
]
WRONG_WALKS = [
    "",
    "dimm",
    None,
    3,
    "ddim:eta=2",
    "picard:window=0",
    "ddim:eta",
    "picard:window=99",
    object(),
    "parareal:blocks=3",
]


def call_solve(o):
    how = {"solver": o.of(WALKS, WRONG_WALKS, 0.92), "cond": o.cond(), "guidance_scale": o.scale()}
    if o.rng.random() < 0.3:
        how["grid"] = o.of(list(GRIDS), ["", None, 3, "karas"], 0.9)
    if o.rng.random() < 0.2:
        how["ts"] = o.of(
            [torch.tensor([1.0, 0.5, 0.0]), torch.tensor([0.7, 0.3])],
            [torch.tensor([0.0, 1.0]), torch.tensor([1.0]), [1.0, 0.0], torch.zeros(2, 2), "ts", torch.tensor([1, 0])],
        )
    if o.rng.random() < 0.2:
        how["keep"] = o.of(["path", "end"], ["all", None, 3])
    how["generator"] = o.of([0, 1, None], ["seed", 0.5, True, -(2**70)], 0.95)
    return solve(o.denoiser(), o.state(), o.of([1, 2, 4], NUMBERS[:-2], 0.95), **how).xs


def call_grid(o):
    how = {key: o.number(*right) for key, right in {"first": (20, None), "last": (0.01, None), "rho": (7, 3)}.items()}
    how = {key: value for key, value in how.items() if o.rng.random() < 0.4}
    return time_grid(o.schedule(), o.of([1, 3, 10], NUMBERS[:-2], 0.9), o.of(list(GRIDS), ["", None], 0.95), **how)


def call_schedule(o):
    S, t = o.of([*ALL_SCHEDULES.values()], [NOT_ONE], 0.95), o.time()
    verbs = [lambda: S.mix(o.state(), o.state(), t), lambda: S.prior(o.of([(4, 2), [4, 2]], [*SHAPES, *NUMBERS]), 0)]
    if isinstance(t, float | torch.Tensor):
        verbs += [lambda: S.alpha(t) + S.sigma(t), lambda: torch.stack(S.rates(torch.as_tensor(t)))]
    return o.rng.choice(verbs)()


def call_make(o):
    n = o.number
    tables = [[0.9, 0.5, 0.1], torch.linspace(0.99, 0, 9), np.linspace(0.9, 0.1, 4)]
    makers = [
        lambda: VP(n(0.1, 0.2), n(20.0, 5)),
        lambda: VE(n(80.0, 10), n(7, 3)),
        lambda: Tabulated(o.of(tables, [[0.1, 0.9], [], "t", [0.5], None, [[0.5, 0.1]], [np.nan, 0.1], *NUMBERS], 0.5)),
        lambda: PiecewiseLinear(
            o.schedule(), o.of([[0.0, 0.5, 1.0], np.array([0, 1.0])], [[], [1, 0], "e", None, 3, [0, 1, 1]])
        ),
        lambda: mixtures.ring(n(3, 8), n(2.0, 1), n(0.1, 0.3)),
        lambda: mixtures.grid(o.of([2, 3], NUMBERS[:-2]), n(1.0), n(0.1)),
        lambda: mixtures.random_mixture(
            o.of([0, 5], NUMBERS[:-2]), o.of([1, 3], NUMBERS[:8]), o.of([1, 2], NUMBERS[:8])
        ),
        lambda: toydiff.mixture(o.of(["ring", "grid"], NUMBERS)),
        lambda: toydiff.schedule(o.of(["vp", "linear"], NUMBERS)),
    ]
    return o.rng.choice(makers)()


def call_mixture(o):
    means = o.of(
        [[[0.0, 1.0], [1.0, 0.0]], torch.randn(2, 2)],
        [[], [[]], 3, "m", None, [[np.nan, 0]], torch.zeros(2), [["a"]], [[1], [1, 2]]],
    )
    spread = {
        o.rng.choice(["std", "std", "cov"]): o.of(
            [0.3, [0.2, 0.1], torch.eye(2), 1e-30], [0, -1, "s", None, [[1]], np.nan, 1e-200, *SHAPES]
        )
    }
    more = {"weights": o.of([None, [0.5, 0.5]], [[1.0], [0, 1], [0.5, 0.6], "w", np.nan, [-1, 2]], 0.9)}
    more["labels"] = o.of([None, [0, 1]], [[0], [0.5, 1], ["a", "b"], [-1, 0], 3, [[0, 1]]], 0.9)
    m = GaussianMixture(means, **spread, **more)
    x, t = o.state(), o.time()
    verbs = [
        lambda: m.sample(
            o.of([3], NUMBERS[:-2], 0.8),
            o.of([0, None], NUMBERS, 0.9),
            cond=o.of([None], [[0, 1, 0], 1, "c", [7]], 0.8),
        ),
        lambda: m.log_prob(x, o.cond()),
        lambda: m.responsibilities(x),
        lambda: m.squared_distances(x),
        lambda: torch.tensor(m.accuracy(x, o.cond())),
        lambda: m.marginal(VP(), t).means,
        lambda: m.flow(o.schedule(), x, o.time(), o.time()),
        lambda: o.line.flow(VP(), o.of([torch.randn(4, 1)], [o.state()]), o.time(), o.time()),
    ]
    return o.rng.choice(verbs)()


def call_empirical(o):
    data = Empirical(o.state(0.9), o.of([None, [0, 1, 2, 3]], [[0], "l", [0.5] * 4, 3, [-1] * 4], 0.9))
    D = data.denoiser(o.schedule(), o.kind(), o.of([4096, 2], NUMBERS[:-2], 0.9))
    return (D(o.state(0.9), o.time(), o.cond()).x0, data.sample(o.of([3], NUMBERS[:-2], 0.9), 0))[0]


def call_measure(o):
    a, b, n = o.state(0.9), o.state(0.9), o.number
    verbs = [
        lambda: measure.paired_error(a, b).rms,
        lambda: measure.wasserstein2(a, b, limit=n(5000, 9)),
        lambda: measure.sliced_wasserstein(a, b, projections=o.of([8], NUMBERS[:-2]), seed=n(0, 3)),
        lambda: measure.energy_distance(a, b),
        lambda: measure.frechet_distance(a, b),
        lambda: (
            measure.modes(
                o.ring, a, by=o.of(["component", "label"], ["x", None]), fraction=n(0.1), tail=n(1e-3)
            ).coverage
        ),
        lambda: measure.mode_weights(o.ring, a),
        lambda: measure.meeting(a, b, within=n(0.1)).double(),
        lambda: measure.fitted_order(
            o.of([[1, 2, 4]], [a, [], [1], NUMBERS[0], "s", [0, 1, 2]]),
            o.of([[1.0, 0.5, 0.2]], [b, [0, 0, 0], "e"]),
            floor=n(0.0, 0.1),
        ),
        lambda: measure.spread(o.of([[1.0, 2.0]], [a, [], [1], NUMBERS, "s"])).mean,
        lambda: (
            measure.floor(
                measure.energy_distance,
                o.ring.sample,
                o.of([5], NUMBERS[:-2]),
                seeds=o.of([range(2), [0, 3]], [[], [0], [0, 0], "ab", 3, [-1, 0]]),
            ).mean
        ),
        lambda: measure.target_variance(
            o.ring,
            o.schedule(),
            o.of([[0.0, 0.5, 1.0]], [a, "t", [2.0], [], 3, [None]]),
            o.of([1, 3], NUMBERS[:8]),
            samples=o.of([32], NUMBERS[:8]),
        )[0:1],
        lambda: measure.score_error(o.denoiser(), a, ts=o.of([(0.2, 0.9)], [[], [2.0], "t", 3, [0.0]])),
        lambda: measure.straightness(o.of([PATH], [None, 3, a])),
        lambda: measure.first_orderness(o.of([PATH], [None, a]), o.schedule(), kind=o.of(["eps", "x0"], ["v", None])),
        lambda: measure.consistency_error(o.denoiser(), PATH, o.cond())[0],
    ]
    return o.rng.choice(verbs)()


def call_prediction(o):
    S, x, y, t = o.schedule(), o.state(0.9), o.state(0.9), o.time()
    verbs = [
        lambda: Prediction.of(o.kind(), y, x, t, S).x0,
        lambda: Prediction.of("x0", y, x, t, S).read(o.kind()),
        lambda: Prediction.exact(x, y, t, S).x,
        lambda: jump(Prediction.exact(x, y, t, S), o.time()),
        lambda: chord(S, x, t, y, o.time()).x0,
        lambda: noise_travel(S, x, t, o.time(), y),
    ]
    return o.rng.choice(verbs)()


def call_denoiser(o):
    D, S = o.denoiser(), o.schedule()
    made = o.rng.choice(
        [
            lambda: D,
            lambda: Rescheduled(D, S),
            lambda: Guided(D, o.scale()),
            lambda: Conditioned(D, o.cond(), o.scale()),
            lambda: NetDenoiser(Net(), S, o.kind()),
        ]
    )()
    if isinstance(made, Conditioned):
        return made(o.state(), o.time()).x0
    return made(o.state(), o.time(), o.cond(), o.scale()).x0


PATH = solve(mixtures.ring().denoiser(VP()), torch.randn(4, 2, generator=torch.Generator().manual_seed(0)), 3)
CALLS = [call_solve, call_solve, call_grid, call_schedule, call_make, call_mixture, call_empirical, call_measure]
CALLS += [call_prediction, call_prediction, call_denoiser, call_denoiser]


def one(seed):
    """One call; what went wrong, or None."""
    o = Odd(seed)
    call, began = o.rng.choice(CALLS), time.monotonic()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call(o)
    except ALLOWED as error:
        text = str(error)
        if "\n" in text or len(text) > 500:
            return f"{call.__name__}: not one line: {text[:300]!r}"
        return None
    except Exception as error:
        return f"{call.__name__}: {type(error).__name__}: {str(error)[:200]}"
    if time.monotonic() - began > 20:
        return f"{call.__name__}: took {time.monotonic() - began:.0f} s"
    values = torch.as_tensor(result) if isinstance(result, torch.Tensor | float) else torch.zeros(1)
    return f"{call.__name__}: NaN" if o.finite and bool(values.isnan().any()) else None


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_odd_calls_end_in_a_result_or_in_one_line(part):
    wrong = {seed: found for seed in range(200 * part, 200 * part + 200) if (found := one(seed))}
    assert not wrong, wrong


if __name__ == "__main__":
    first, count = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    for seed in range(first, first + count):
        if found := one(seed):
            print(seed, found, flush=True)
