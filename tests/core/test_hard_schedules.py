"""Schedules that users write: what does not keep the promises is named as such, in one line."""

import numpy as np
import pytest
import torch
from cases import ALL_SCHEDULES, UserSchedule

from toydiff import Linear, NetDenoiser, Rescheduled, Schedule, mixtures, solve, time_grid


def made(alpha, sigma):
    return type("Mine", (Schedule,), {"alpha": lambda self, t: alpha(t), "sigma": lambda self, t: sigma(t)})()


def rising(t):
    return t.clone()


def falling(t):
    return 1 - t


WRONG = {
    "the other convention of time": (made(rising, falling), r"alpha of Mine\(\) rises with t"),
    "sigma falls": (made(torch.ones_like, falling), r"sigma of Mine\(\) falls with t"),
    "a number": (made(lambda t: 1.0, rising), r"alpha\(t\) of Mine\(\) must return .* got float"),
    "an array": (made(falling, lambda t: np.asarray(t)), r"sigma\(t\) .* got ndarray"),
    "whole numbers": (made(lambda t: torch.ones_like(t).long(), rising), "got torch.int64"),
    "another shape": (made(lambda t: torch.ones(3), rising), r"must be shaped like t"),
    "nothing": (made(lambda t: None, rising), "got NoneType"),
    "nan": (made(falling, lambda t: torch.log(t - 0.5)), "must be finite"),
    "negative": (made(lambda t: 0.5 - t, rising), "not negative"),
    "infinite": (made(falling, lambda t: t / (1 - t)), "must be finite"),
    "both 0": (made(lambda t: (1 - 2 * t).clamp(min=0), lambda t: (2 * t - 1).clamp(min=0)), "not both 0"),
    "a bump": (made(lambda t: 1 - t + 0.3 * torch.sin(9 * t), rising), "rises with t"),
    "half written": (type("Half", (Schedule,), {"sigma": lambda self, t: t.clone()})(), r"Half\(\) has no alpha"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_schedule_that_is_none_is_named_as_such(case):
    S, message = WRONG[case]
    D = mixtures.ring().denoiser(Linear())
    for use in (
        lambda: time_grid(S, 5),
        lambda: mixtures.ring().denoiser(S),
        lambda: NetDenoiser(torch.nn.Identity(), S),
        lambda: Rescheduled(D, S),
    ):
        with pytest.raises(ValueError, match=message) as caught:
            use()
        assert "\n" not in str(caught.value)


def test_a_schedule_that_is_wrong_between_the_times_looked_at_is_found_by_its_grid():
    class Dent(Schedule):
        def alpha(self, t):
            return torch.where((t - 0.51).abs() < 0.005, torch.nan, 1 - t)

        def sigma(self, t):
            return t.clone()

    with pytest.raises(ValueError, match=r"must be finite.* t = 0.51"):
        solve(mixtures.ring().denoiser(Dent()), torch.zeros(2, 2), ts=torch.tensor([1.0, 0.51, 0.0]), solver="ddim")


def test_numbers_as_times_of_a_users_schedule():
    for S in (*ALL_SCHEDULES.values(), UserSchedule()):
        assert float(S.sigma(0.5)) == float(S.sigma(torch.tensor(0.5, dtype=torch.float64)))
        assert S.alpha(1).shape == ()


@pytest.mark.parametrize(
    "args",
    [(8,), ((8,),), ("ab",), ((2, -1),), ((2, 1.5),), ((2, 2), "seed"), ((2, 2), True), (None,), ((True, 2),)],
)
def test_a_prior_of_odd_arguments(args):
    with pytest.raises(ValueError, match=r"shape must be whole numbers|a seed is"):
        Linear().prior(*args)


def test_a_prior_of_odd_dtypes():
    for dtype in (torch.int64, torch.bool, "float32", torch.complex64):
        with pytest.raises(ValueError, match="dtype"):
            Linear().prior((2, 2), 0, dtype=dtype)
    assert Linear().prior(torch.Size([0, 2])).shape == (0, 2)
    assert Linear().prior([2, 3], dtype=torch.float16).dtype == torch.float16
