"""Schedules: levels, inverses, rates, tables, and the little that a user's own schedule must write."""

import copy
import json
import math
import sys

import numpy as np
import pytest
import torch
from cases import ALL_SCHEDULES, VARIANCE_PRESERVING, UserSchedule, derivative, f64, normal

from toydiff import SCHEDULES, VE, VP, Linear, Schedule, Tabulated
from toydiff import schedule as by_name
from toydiff.schedules import PiecewiseLinear, schedule_config, schedule_from_config

# middles of a thousandth: clear of the kinks of the tables
TIMES = (torch.arange(10, 990, 7, dtype=torch.float64) + 0.5) / 1000


def test_levels_are_monotone_and_lambda_falls(schedule):
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)
    assert (schedule.alpha(t).diff() <= 0).all()
    assert (schedule.sigma(t).diff() >= 0).all()
    assert (schedule.lam(t)[1:-1].diff() < 0).all()
    assert (schedule.nsr(t)[:-1].diff() > 0).all()
    assert schedule.alpha(t[0]) == 1
    assert schedule.sigma(t[0]) == 0


@pytest.mark.parametrize("name", ["cosine", "linear", "user"])
def test_alpha_is_exactly_zero_at_the_noisy_end(name):
    one = torch.ones((), dtype=torch.float64)
    assert ALL_SCHEDULES[name].alpha(one) == 0
    assert ALL_SCHEDULES[name].lam(one) == -math.inf
    assert ALL_SCHEDULES[name].alpha(one.float()) == 0


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
def test_variance_is_preserved(name):
    t = torch.linspace(0, 1, 777, dtype=torch.float64)
    levels = ALL_SCHEDULES[name].alpha(t) ** 2 + ALL_SCHEDULES[name].sigma(t) ** 2
    assert torch.allclose(levels, torch.ones_like(t), rtol=0, atol=1e-14)


def test_t_of_lam_inverts_lam(schedule):
    t = torch.cat([f64([1e-6, 1e-4, 1e-3]), TIMES, f64([0.999, 0.9999])])
    assert (schedule.t_of_lam(schedule.lam(t)) - t).abs().max() < 1e-9
    lam = torch.linspace(-2.5, 8, 101, dtype=torch.float64)
    assert (schedule.lam(schedule.t_of_lam(lam)) - lam).abs().max() < 1e-9


def test_t_of_lam_at_and_beyond_the_ends(schedule):
    ends = f64([0.0, 1.0])
    assert torch.equal(schedule.t_of_lam(schedule.lam(ends)).round(decimals=12), ends)
    beyond = f64([math.inf, -math.inf])
    assert torch.equal(schedule.t_of_lam(beyond), ends)
    assert schedule.t_of_lam(torch.tensor([-60.0])).dtype == torch.float32


def test_rates_are_the_derivatives(schedule):
    for rate, level in zip(schedule.rates(TIMES), (schedule.alpha, schedule.sigma), strict=True):
        numeric = derivative(level, TIMES, h=1e-4)
        assert torch.allclose(rate, numeric, rtol=1e-7, atol=1e-8)


def test_rates_leave_no_graph_and_work_without_gradients(schedule):
    t = torch.tensor(0.3, requires_grad=True)
    with torch.no_grad():
        a, b = schedule.rates(t)
    assert not a.requires_grad
    assert not b.requires_grad
    assert t.grad is None
    plain = torch.tensor(0.3)
    schedule.rates(plain)
    assert not plain.requires_grad


def test_vp_has_the_coefficients_of_its_sde():
    schedule = VP()
    alpha_rate, sigma_rate = schedule.rates(TIMES)
    alpha, sigma = schedule.alpha(TIMES), schedule.sigma(TIMES)
    beta = 0.1 + TIMES * 19.9
    f = alpha_rate / alpha
    assert torch.allclose(f, -beta / 2, rtol=1e-12)
    assert torch.allclose(2 * sigma * sigma_rate - 2 * f * sigma**2, beta, rtol=1e-9)
    assert abs(float(schedule.alpha(torch.ones((), dtype=torch.float64))) - 0.00657) < 1e-5


def _betas(name, start, end, steps=1000):
    return (
        np.linspace(math.sqrt(start), math.sqrt(end), steps) ** 2
        if name == "scaled"
        else np.linspace(start, end, steps)
    )


@pytest.mark.parametrize(
    ("schedule", "betas", "last"),
    [
        (Tabulated.scaled_linear(), _betas("scaled", 8.5e-4, 1.2e-2), 4.66e-3),
        (Tabulated.linear(), _betas("plain", 8.5e-4, 1.2e-2), 1.58e-3),
        (Tabulated.linear(1e-4, 0.02), _betas("plain", 1e-4, 0.02), 4.04e-5),
    ],
    ids=["scaled-linear", "linear", "ddpm"],
)
def test_tables_hold_at_their_steps(schedule, betas, last):
    alphas_bar = torch.tensor(np.cumprod(1 - betas))
    t = torch.arange(1, 1001, dtype=torch.float64) / 1000
    assert torch.allclose(schedule.alpha(t) ** 2, alphas_bar, rtol=1e-11)
    assert abs(float(alphas_bar[-1]) / last - 1) < 2e-3
    # between two steps log alpha is the straight line
    middle = schedule.alpha(f64(0.4565))
    assert torch.isclose(middle, (schedule.alpha(t[455]) * schedule.alpha(t[456])).sqrt(), rtol=1e-12)


def test_ve_is_the_rho_spacing_of_edm():
    n, rho, sigma_max = 18, 7.0, 80.0
    levels = [(sigma_max ** (1 / rho) * (1 - i / n)) ** rho for i in range(n + 1)]
    t = torch.linspace(1, 0, n + 1, dtype=torch.float64)
    assert torch.allclose(VE().sigma(t), f64(levels), rtol=1e-12, atol=1e-30)
    assert (VE().alpha(t) == 1).all()


def test_times_of_any_shape_and_precision(schedule):
    for shape in ((), (3,), (2, 3)):
        t = torch.full(shape, 0.4)
        for level in (schedule.alpha(t), schedule.sigma(t), schedule.lam(t), schedule.nsr(t), *schedule.rates(t)):
            assert level.shape == shape
            assert level.dtype == torch.float32


def test_mix_and_prior(schedule):
    x0, eps = normal(3, 2, 2, seed=1), normal(3, 2, 2, seed=2)
    t = f64([0.0, 0.4, 1.0])
    mixed = schedule.mix(x0, eps, t)
    for i in range(3):
        assert torch.equal(mixed[i], schedule.alpha(t[i]) * x0[i] + schedule.sigma(t[i]) * eps[i])
    noise = schedule.prior((20000, 2), 0)
    sigma = float(schedule.sigma(torch.ones((), dtype=torch.float64)))
    # five standard errors of a standard deviation from 40000 draws
    assert abs(float(noise.std()) / sigma - 1) < 5 / math.sqrt(2 * 40000)
    assert noise.dtype == torch.get_default_dtype()
    assert torch.equal(noise, schedule.prior((20000, 2), torch.Generator().manual_seed(0)))


def test_registry_and_repr():
    for name in SCHEDULES:
        assert by_name(name).name == name
    assert repr(VP()) == "VP(beta0=0.1, beta1=20)"
    assert "scaled-linear" in repr(Tabulated.scaled_linear())
    assert repr(Linear()) == "Linear()"


def test_levels_are_kept_for_the_same_times_only():
    """At the same tensor the answer is a copy of what is kept; at changed times, other times, or with a gradient, it is
    computed.
    """
    for name in SCHEDULES:
        on, t = by_name(name), torch.linspace(0.1, 0.9, 5, dtype=torch.float64)
        first = on.sigma(t)
        assert torch.equal(on.sigma(t), first)
        assert torch.equal(on.sigma(t.clone()), first)
        t += 0.05
        assert torch.equal(on.sigma(t), on.sigma(t.clone()))
        assert not torch.equal(on.sigma(t), first)
        again = t.clone().requires_grad_()
        slope = torch.autograd.grad(on.sigma(again).sum(), again)[0]
        assert torch.equal(torch.autograd.grad(on.sigma(again).sum(), again)[0], slope)
        copy.deepcopy(on).alpha(t)
        assert schedule_config(on) == schedule_config(by_name(name))


# ---- as JSON, and by import path


class Power(UserSchedule):
    """One with settings."""

    def __init__(self, power=2, scale=1.5):
        self.power, self.scale = power, scale

    def alpha(self, t):
        return (1 - t) ** self.power

    def sigma(self, t):
        return self.scale * t


class Doubled(Power):
    """Its attribute is not what it was made of."""

    def __init__(self, power=2):
        super().__init__(2 * power)
        del self.scale
        self.scale_ = 1.0

    def sigma(self, t):
        return t


class Unlike(VP):
    """Made again of its attributes it is another schedule."""

    def __init__(self, beta0=0.1, beta1=20.0):
        super().__init__(beta0, beta1)
        self.beta1 = beta1 + 1


class Held(Linear):
    """It holds a tensor."""

    def __init__(self, table=()):
        self.table = torch.as_tensor(table)


class Renamed(Linear):
    """At its place there is another class."""


Moved, Renamed = Renamed, Linear
HERE = __name__


@pytest.mark.parametrize(
    "on",
    [
        *ALL_SCHEDULES.values(),
        Power(3, 1.25),
        VP(0.2, 15.0),
        VE(50.0),
        Tabulated.linear(1e-4, 0.02),
        PiecewiseLinear(Power(3), [0, 0.25, 1]),
    ],
    ids=repr,
)
def test_a_schedule_comes_back_from_json(on):
    config = schedule_config(on)
    again = schedule_from_config(json.loads(json.dumps(config)))
    assert type(again) is type(on)
    assert schedule_config(again) == config
    for one, other in ((on.alpha, again.alpha), (on.sigma, again.sigma)):
        torch.testing.assert_close(one(TIMES), other(TIMES), rtol=1e-12, atol=0)


def test_a_schedule_of_a_user_is_its_import_path_and_settings():
    path = f"{HERE}:Power"
    assert schedule_config(Power(3)) == {"name": "import", "path": path, "settings": {"power": 3, "scale": 1.5}}
    made = by_name(path)
    assert type(made) is Power
    assert (made.power, made.scale) == (2, 1.5)
    assert type(by_name("toydiff.schedules:VP")) is VP


def in_a_function():
    class Local(Linear):
        pass

    return Local()


def in_main():
    made = type("Mine", (Linear,), {"__module__": "__main__"})
    return made()


CANNOT_BE_SAVED = {
    "a function": (
        in_a_function,
        r"a file cannot hold the schedule Local\(\), whose class is written inside a function: "
        "put it at the top of a module",
    ),
    "a notebook": (
        in_main,
        r"the schedule Mine\(\), whose class is written in a notebook or the script that runs: put it",
    ),
    "another attribute": (
        lambda: Doubled(),
        r"its __init__ must take each under its name.*unexpected keyword argument 'scale_'",
    ),
    "other levels": (lambda: Unlike(), r"what is made of \{.*\} has other levels"),
    "a tensor": (lambda: Held([0.5]), "each must be a JSON value; Object of type Tensor is not JSON serializable"),
    "infinite": (lambda: Power(2, math.inf), "each must be a JSON value; Out of range float"),
    "another class": (lambda: Moved(), "its import path '.*:Renamed' gives another class"),
}


@pytest.mark.parametrize("what", CANNOT_BE_SAVED)
def test_a_schedule_that_would_not_come_back_is_not_saved(what):
    make, message = CANNOT_BE_SAVED[what]
    refused(lambda: schedule_config(make()), message)


def refused(make, match):
    with pytest.raises(ValueError, match=match) as found:
        make()
    assert "\n" not in str(found.value)


NO_PATH = "the import path of a schedule is module:Class, got"
CANNOT_BE_LOADED = {
    "no module": (
        "no_such_module:Mine",
        r"the schedule 'no_such_module:Mine' cannot be imported: ModuleNotFoundError: No module named",
    ),
    "no class": (f"{HERE}:Nothing", "cannot be imported: AttributeError: .*Nothing"),
    "a function": (f"{HERE}:refused", "':?.*refused' is no noise schedule: that is a subclass of toydiff.Schedule"),
    "an instance": (f"{HERE}:HERE", "is no noise schedule"),
    "another class": ("toydiff:Denoiser", "'toydiff:Denoiser' is no noise schedule"),
    "the base": ("toydiff:Schedule", "'toydiff:Schedule' is no noise schedule"),
    "no name": ("toydiff:", NO_PATH),
    "relative": (".schedules:VP", NO_PATH),
    "a file": ("my/module.py:Mine", NO_PATH),
    "settings needed": (
        "toydiff:Tabulated",
        "the schedule 'toydiff:Tabulated' cannot be made of the settings {}: .*alphas_bar",
    ),
}


@pytest.mark.parametrize("what", CANNOT_BE_LOADED)
def test_a_path_that_leads_to_no_schedule_is_one_line(what):
    path, message = CANNOT_BE_LOADED[what]
    said = f"unknown schedule '{path}'.*; allowed: vp, .*MODULE:CLASS" if message == NO_PATH else message
    refused(lambda: by_name(path), said)
    refused(lambda: schedule_from_config({"name": "import", "path": path, "settings": {}}), message)


def test_a_module_that_fails_as_it_is_imported_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "broken_schedule.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    refused(lambda: by_name("broken_schedule:Mine"), "cannot be imported: ZeroDivisionError: division by zero")


def test_settings_that_a_file_never_has_are_one_line():
    for config in (
        {"path": f"{HERE}:Power"},
        {"settings": {}},
        {"path": f"{HERE}:Power", "settings": {"powr": 2}},
        {"path": f"{HERE}:Power", "settings": "x"},
    ):
        refused(lambda config=config: schedule_from_config({"name": "import"} | config), "the schedule '")


def test_a_module_in_the_current_folder_is_found_and_the_search_path_grows_once(tmp_path, monkeypatch):
    (tmp_path / "schedule_of_this_folder.py").write_text(
        "from toydiff import Linear\n\n\nclass Mine(Linear):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    before = list(sys.path)
    assert by_name("vp").name == "vp"
    assert sys.path == before
    made = by_name("schedule_of_this_folder:Mine")
    by_name("schedule_of_this_folder:Mine")
    assert isinstance(made, Schedule)
    assert sys.path == [*before, str(tmp_path)]
    del sys.modules["schedule_of_this_folder"]


def test_a_table_is_the_same_up_to_rounding():
    """What a run writes of a table is exp of a logarithm, and not the same bits on every processor."""
    table = Tabulated.scaled_linear()
    bars = torch.exp(2 * table._log_alpha[1:])
    assert Tabulated(bars * (1 + 1e-13)).equals(table)
    assert not Tabulated(bars * (1 - 1e-7)).equals(table)
    assert not Tabulated(bars[:-1]).equals(table)
    ends_in_zero = torch.cat([bars[:-1], bars.new_zeros(1)])
    assert Tabulated(ends_in_zero).equals(Tabulated(ends_in_zero))
    assert not Tabulated(ends_in_zero).equals(table)
    assert Tabulated(ends_in_zero).equals(table, last=False)
