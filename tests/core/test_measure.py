"""Measures against closed forms, brute force and scipy."""

import dataclasses
import itertools
import math
import subprocess
import sys

import pytest
import torch
from cases import close, normal
from hypothesis import given, settings
from hypothesis import strategies as st

from toydiff import VP, Cosine, Denoiser, Empirical, GaussianMixture, Linear, Prediction, jump, mixture, solve
from toydiff.measure import (
    PairedError,
    energy_distance,
    first_orderness,
    fitted_order,
    floor,
    mode_coverage,
    mode_weights,
    modes,
    nearest,
    paired_error,
    sliced_wasserstein,
    spread,
    straightness,
    wasserstein2,
)
from toydiff.solvers import Trajectory

DISTANCES = [wasserstein2, sliced_wasserstein, energy_distance]
QUICK = settings(max_examples=25, deadline=None)


def trajectory(ts, xs, x0s=None) -> Trajectory:
    """A path as a container only: no sampler has run."""
    xs = torch.as_tensor(xs, dtype=torch.float64)
    x0s = xs[1:] if x0s is None else x0s
    return Trajectory(torch.as_tensor(ts, dtype=torch.float64), xs, x0s, nfe=0, rounds=0, seconds=0.0)


# ---- order


@QUICK
@given(p=st.floats(0.5, 5), C=st.floats(1e-3, 1e3))
def test_order_of_a_power_law(p, C):
    steps = [10, 17, 40, 80]
    assert fitted_order(steps, [C * n**-p for n in steps]) == pytest.approx(p, abs=1e-9)


def test_order_is_a_least_squares_fit_of_all_points():
    steps, errors = torch.tensor([4, 8, 16, 32, 64]), torch.tensor([1.0, 0.2, 0.08, 0.011, 0.004])
    design = torch.stack([steps.double().log(), torch.ones(5, dtype=torch.float64)], 1)
    slope = torch.linalg.lstsq(design, errors.double().log()).solution[0]
    assert fitted_order(steps, errors) == pytest.approx(-float(slope), rel=1e-12)


def test_floor_leaves_out_rounding():
    steps = [10, 20, 40, 80, 160, 320]
    errors = [max(n**-6.0, 3e-13) for n in steps[:-1]] + [0.0]
    assert fitted_order(steps, errors, floor=3e-13) == pytest.approx(6, abs=1e-9)
    assert fitted_order(steps[:-1], errors[:-1]) < 5.9  # without a floor the flat end is fitted too


@pytest.mark.parametrize(
    ("steps", "errors", "options", "says"),
    [
        ([10], [0.1], {}, "two different"),
        ([10, 10], [0.1, 0.2], {}, "two different"),
        ([10, 20, 40], [0.1, 1e-15, 1e-15], {"floor": 1e-12}, "two different"),
        ([10, 20], [0.1], {}, "same length"),
        ([10, 0], [0.1, 0.2], {}, "steps must be > 0"),
        ([10, 20], [0.1, -0.2], {}, "errors must be >= 0"),
        ([10, 20], [0.1, 0.0], {}, "no logarithm"),
        ([10, 20], [0.1, math.nan], {}, "NaN"),
        ([10, math.inf], [0.1, 0.2], {}, "infinite"),
        ([[10, 20]], [[0.1, 0.2]], {}, "shape"),
        (["ten", 20], [0.1, 0.2], {}, "list of numbers"),
        ([10, 20], [0.1, 0.2], {"floor": -1}, "floor must be"),
        ([10, 20], [0.1, 0.2], {"floor": math.nan}, "floor must be"),
    ],
)
def test_order_refuses(steps, errors, options, says):
    with pytest.raises(ValueError, match=says):
        fitted_order(steps, errors, **options)


# ---- paired error


def test_paired_error_by_hand():
    a = torch.zeros(5, 2)
    b = torch.tensor([[3.0, 4.0], [0, 0], [0, 1], [2, 0], [0, 10]])  # distances 5, 0, 1, 2, 10
    found = paired_error(a, b)
    assert dataclasses.astuple(found) == pytest.approx(
        (2, 3.6, 9, math.sqrt(130 / 5))
    )  # p95 at 0.95 * 4 = 3.8: 5 + 0.8 * 5
    assert all(type(value) is float for value in dataclasses.astuple(found))


def test_paired_error_is_over_all_dimensions_of_a_sample():
    a, b = normal(6, 12), normal(6, 12, seed=1)
    assert paired_error(a.reshape(6, 3, 2, 2), b.reshape(6, 3, 2, 2)) == paired_error(a, b)
    assert paired_error(a, a) == PairedError(0, 0, 0, 0)


@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (torch.zeros(3, 2), torch.zeros(4, 2), "same shape"),
        (torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.float64), "same dtype"),
        (torch.zeros(3, 2), torch.full((3, 2), math.nan), "NaN"),
        (torch.zeros(3), torch.zeros(3), "at least one data dimension"),
        (torch.zeros(0, 2), torch.zeros(0, 2), "at least one sample"),
        ([[0.0]], torch.zeros(1, 1), "floating-point tensor"),
    ],
)
def test_paired_error_refuses(a, b, says):
    with pytest.raises(ValueError, match=says):
        paired_error(a, b)


# ---- distances


@QUICK
@given(n=st.integers(1, 5), d=st.integers(1, 3), seed=st.integers(0, 1000))
def test_wasserstein2_is_the_best_of_all_matchings(n, d, seed):
    a, b = normal(n, d, seed=seed), normal(n, d, seed=seed + 1)
    best = min(float((a - b[list(order)]).square().sum(1).mean()) for order in itertools.permutations(range(n)))
    assert wasserstein2(a, b) == pytest.approx(math.sqrt(best), rel=1e-9)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_wasserstein2_of_a_shift_is_its_length(d):
    a = normal(60, d)
    c = torch.arange(1.0, d + 1, dtype=torch.float64)
    assert wasserstein2(a, a.flip(0) + c) == pytest.approx(float(c.norm()), rel=1e-9)


@pytest.mark.slow
def test_wasserstein2_of_gaussians_nears_its_closed_form():
    # W2^2 = |m|^2 + (s - 1)^2 per coordinate; the sampling error at n = 1500 in 1-D is about 0.03
    a, b = normal(1500, 1), 3 + 2 * normal(1500, 1, seed=1)
    assert wasserstein2(a, b) == pytest.approx(math.sqrt(9 + 1), abs=0.12)


def test_wasserstein2_splits_the_weight_of_unequal_sets():
    # half of the mass at 0 goes to 1, the other half to -3
    a, b = torch.zeros(1, 1), torch.tensor([[1.0], [-3.0]])
    assert wasserstein2(a, b) == pytest.approx(math.sqrt((1 + 9) / 2))


def test_wasserstein2_has_a_limit_and_says_so():
    a, b = normal(12, 2), normal(30, 2, seed=1)
    with pytest.raises(ValueError, match=r"limit of 20.*sliced_wasserstein"):
        wasserstein2(a, b, limit=20)
    assert wasserstein2(a, b, limit=30) > 0


def test_wasserstein2_does_not_pass_an_unfinished_coupling_for_the_optimum(monkeypatch):
    import ot

    exact = ot.emd2
    monkeypatch.setattr(ot, "emd2", lambda a, b, cost, numItermax, log: exact(a, b, cost, numItermax=1, log=log))
    with pytest.warns(UserWarning, match="numItermax"), pytest.raises(RuntimeError, match="coupling was not found"):
        wasserstein2(normal(50, 2), normal(50, 2, seed=1))


def test_sliced_wasserstein_of_shifts():
    a = normal(80, 1)
    assert sliced_wasserstein(a, a + 0.7) == pytest.approx(0.7, rel=1e-9)
    assert sliced_wasserstein(a, a + 0.7) == pytest.approx(wasserstein2(a, a + 0.7), rel=1e-9)
    # E (u . c)^2 = |c|^2/d; the relative error of 4000 directions is about 1/sqrt(2 * 4000)
    a, c = normal(20, 3), torch.tensor([1.0, 2.0, 2.0], dtype=torch.float64)
    assert sliced_wasserstein(a, a + c, projections=4000) == pytest.approx(3 / math.sqrt(3), rel=0.04)


def test_sliced_wasserstein_is_the_root_mean_square_of_its_shadows(monkeypatch):
    import ot

    a, b = normal(40, 2), 2 * normal(30, 2, seed=1)
    directions = torch.as_tensor(ot.sliced.get_random_projections(2, 7, 3))
    shadows = [wasserstein2(a @ u[:, None], b @ u[:, None]) for u in directions.T]
    expected = math.sqrt(sum(w**2 for w in shadows) / 7)
    assert sliced_wasserstein(a, b, projections=7, seed=3) == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr("toydiff.measure.ENTRIES", 140)  # chunks of 2, 2, 2 and 1 directions
    assert sliced_wasserstein(a, b, projections=7, seed=3) == pytest.approx(expected, rel=1e-9)


def test_sliced_wasserstein_follows_its_seed_and_no_other_state():
    a, b = normal(50, 3), normal(50, 3, seed=1)
    torch.manual_seed(1)
    first = sliced_wasserstein(a, b, projections=8, seed=4)
    torch.manual_seed(2)
    assert sliced_wasserstein(a, b, projections=8, seed=4) == first
    assert sliced_wasserstein(a, b, projections=8, seed=5) != first


@QUICK
@given(n=st.integers(1, 12), m=st.integers(1, 12), d=st.integers(1, 4), seed=st.integers(0, 1000))
def test_energy_distance_is_its_definition(n, m, d, seed):
    a, b = normal(n, d, seed=seed), normal(m, d, seed=seed + 1)

    def mean(x, y):
        return sum(math.dist(p, q) for p in x.tolist() for q in y.tolist()) / (len(x) * len(y))

    assert energy_distance(a, b) ** 2 == pytest.approx(2 * mean(a, b) - mean(a, a) - mean(b, b), abs=1e-12)


def test_energy_distance_is_scipys_in_one_dimension():
    from scipy.stats import energy_distance as of_scipy

    a, b = normal(90, 1), 1 + 2 * normal(70, 1, seed=1)
    assert energy_distance(a, b) == pytest.approx(of_scipy(a[:, 0], b[:, 0]), rel=1e-9)


def test_energy_distance_does_not_depend_on_its_chunks(monkeypatch):
    a, b = normal(90, 2), 1 + normal(70, 2, seed=1)
    whole = energy_distance(a, b)
    monkeypatch.setattr("toydiff.measure.ENTRIES", 200)
    assert energy_distance(a, b) == pytest.approx(whole, rel=1e-12)


@pytest.mark.parametrize("distance", DISTANCES)
@QUICK
@given(n=st.integers(1, 20), d=st.integers(1, 3), seed=st.integers(0, 1000), offset=st.sampled_from([0.0, 1e3]))
def test_distances_are_zero_for_equal_multisets_and_symmetric(distance, n, d, seed, offset):
    a, b = offset + normal(n, d, seed=seed), offset + normal(n + 1, d, seed=seed + 1)
    assert distance(a, a) == 0 if distance is not sliced_wasserstein else distance(a, a) < 1e-9 * (1 + offset)
    shuffled = a[torch.randperm(n, generator=torch.Generator().manual_seed(seed))]
    # the root turns a rounding of 1e-16 into 1e-8
    assert distance(a, shuffled) < 1e-6
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-6)
    assert distance(a, b) > 1e-3
    assert type(distance(a, b)) is float


@pytest.mark.parametrize("distance", DISTANCES)
def test_distances_scale_with_the_data_and_take_float32(distance):
    power = 0.5 if distance is energy_distance else 1
    a, b = normal(40, 2), normal(40, 2, seed=1)
    assert distance(9 * a, 9 * b) == pytest.approx(9**power * distance(a, b), rel=1e-6)
    assert distance(a.float(), b.float().requires_grad_()) == pytest.approx(distance(a, b), rel=1e-4)


@pytest.mark.parametrize("distance", DISTANCES)
@pytest.mark.parametrize(
    ("a", "b", "says"),
    [
        (torch.zeros(4, 2), torch.zeros(4, 3), "same dimension"),
        (torch.zeros(4, 2), torch.zeros(4, 2, dtype=torch.float64), "same dtype"),
        (torch.zeros(4), torch.zeros(4), "at least one data dimension"),
        (torch.zeros(4, 2, 2), torch.zeros(4, 2, 2), r"\(n, d\)"),
        (torch.zeros(4, 2), torch.zeros(0, 2), "at least one sample"),
        (torch.zeros(4, 2), torch.full((4, 2), math.nan), "b has 8 value"),
        (torch.full((4, 2), math.inf), torch.zeros(4, 2), "a has 8 value"),
        (torch.zeros(4, 2, dtype=torch.long), torch.zeros(4, 2), "floating-point"),
    ],
)
def test_distances_refuse(distance, a, b, says):
    with pytest.raises(ValueError, match=says):
        distance(a, b)


def test_options_of_distances_are_checked():
    a = torch.zeros(4, 2)
    for options in ({"projections": 0}, {"projections": 2.5}, {"seed": -1}, {"seed": None}):
        with pytest.raises(ValueError, match="whole number"):
            sliced_wasserstein(a, a, **options)
    with pytest.raises(ValueError, match="limit must be a whole number"):
        wasserstein2(a, a, limit=0)


# ---- floors


def test_spread_by_hand():
    found = spread([1.0, 2.0, 6.0])
    assert (found.mean, found.values) == (3, (1, 2, 6))
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))


@pytest.mark.parametrize(("values", "says"), [([1.0], "at least 2"), ([1.0, math.nan], "NaN"), ([[1.0, 2.0]], "shape")])
def test_spread_refuses(values, says):
    with pytest.raises(ValueError, match=says):
        spread(values)


@pytest.mark.parametrize("distance", DISTANCES)
def test_floors_fall_with_the_number_of_samples(distance):
    draw = mixture("ring").sample
    few, many = (floor(distance, draw, n, seeds=range(4)) for n in (50, 800))
    assert len(few.values) == 4
    assert 0 < many.mean < 0.6 * few.mean
    # and a biased sampler is above them
    assert distance(draw(800, 90), draw(800, 91) + 0.5) > many.mean + 5 * many.std


def test_a_floor_uses_independent_draws_and_is_the_same_each_time():
    drawn = []

    def draw(n, seed):
        drawn.append((n, seed))
        return mixture("ring").sample(n, seed)

    first = floor(energy_distance, draw, 30, seeds=[0, 1, 5])
    assert drawn == [(30, 0), (30, 1), (30, 2), (30, 3), (30, 10), (30, 11)]
    assert floor(energy_distance, draw, 30, seeds=[0, 1, 5]) == first


@pytest.mark.parametrize("seeds", [[1], [1, 1], [0, -1], [0, 1.5]])
def test_floors_refuse_seeds(seeds):
    with pytest.raises(ValueError, match="seeds"):
        floor(energy_distance, mixture("ring").sample, 10, seeds=seeds)
    with pytest.raises(ValueError, match="n must be"):
        floor(energy_distance, mixture("ring").sample, 0)


# ---- modes

APART = GaussianMixture(
    [[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]],
    cov=[[[1.0, 0.0], [0.0, 1.0]], [[4.0, 0.0], [0.0, 0.01]], [[1.0, 0.5], [0.5, 1.0]], [[1.0, 0.0], [0.0, 1.0]]],
    weights=[0.4, 0.3, 0.2, 0.1],
    labels=[7, 2, 7, 2],
)


def test_modes_by_hand():
    at = [0] * 5 + [1] * 3 + [2] * 1
    samples = torch.cat([APART.means[at], torch.tensor([[5.0, 5.0]], dtype=torch.float64)])
    found = modes(APART, samples)
    assert found.weights.tolist() == pytest.approx([0.5, 0.3, 0.1, 0])
    assert found.expected.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert (found.outside, found.coverage) == (0.1, 0.75)
    assert found.total_variation == pytest.approx((0.1 + 0 + 0.1 + 0.1 + 0.1) / 2)
    assert modes(APART, samples, fraction=0.5).coverage == 0.75
    assert modes(APART, samples, fraction=0.51).coverage == 0.5
    assert torch.equal(mode_weights(APART, samples), found.weights)
    assert mode_coverage(APART, samples, fraction=0.51) == 0.5


def test_modes_by_label_add_up_their_components():
    at = [0] * 5 + [1] * 3 + [2] * 2
    found = modes(APART, APART.means[at], by="label")
    assert found.weights.tolist() == pytest.approx([0.3, 0.7])  # labels 2 and 7
    assert found.expected.tolist() == pytest.approx([0.4, 0.6])
    assert (found.coverage, found.outside) == (1, 0)
    assert found.total_variation == pytest.approx(0.1)


def test_near_is_judged_by_each_components_own_covariance():
    # component 1 reaches sqrt(chi2(0.999, 2)) = 3.717 standard deviations: 7.43 along x, 0.37 along y
    offsets = torch.tensor([[7.4, 0.0], [7.5, 0.0], [0.0, 0.36], [0.0, 0.38]], dtype=torch.float64)
    near = [float(mode_weights(APART, (APART.means[1] + off)[None])[1]) for off in offsets]
    assert near == [1, 0, 1, 0]
    # component 2 reaches further along its diagonal than across it
    along, across = (APART.means[2] + 3.0 * torch.tensor(u, dtype=torch.float64) for u in ([1.0, 1.0], [1.0, -1.0]))
    assert mode_weights(APART, torch.stack([along, across])).tolist() == [0, 0, 0.5, 0]


def test_of_overlapping_components_the_likeliest_near_one_counts():
    # both are near 0.6, which is closer to the first; the second's weight decides
    pair = GaussianMixture([[1.0], [0.0]], std=1.0, weights=[0.1, 0.9])
    assert mode_weights(pair, torch.tensor([[0.6], [0.95], [2.0], [4.0]])).tolist() == [0.25, 0.75]
    # at 4, beyond the first one's reach of 3.29, that is still the likelier: 0.9 exp(-8) against 0.1/1000
    nested = GaussianMixture([[0.0], [0.0]], std=[1.0, 1000.0], weights=[0.9, 0.1])
    assert float(nested.responsibilities(torch.tensor([[4.0]]))[0, 0]) > 0.7
    assert mode_weights(nested, torch.tensor([[3.2], [4.0]])).tolist() == [0.5, 0.5]


def test_far_samples_cover_nothing():
    # nearest to component 0 by far, and yet no sample of it
    found = modes(mixture("ring"), torch.full((100, 2), 50.0))
    assert (found.coverage, found.outside, found.total_variation) == (0, 1, 1)
    assert modes(mixture("ring"), torch.full((100, 2), 50.0), tail=0).outside == 0


@pytest.mark.parametrize("name", ["ring", "grid", "random", "checkerboard"])
def test_true_samples_find_every_mode_and_stay_inside(name):
    truth = mixture(name)
    found = modes(truth, truth.sample(20000, 0), tail=0.01)
    assert found.coverage == 1
    # a binomial fraction of 1 % at most, to five standard errors
    assert found.outside < 0.01 + 5 * math.sqrt(0.01 / 20000)
    if name in ("ring", "grid"):  # apart from one another: then the tail is outside, and the fractions are the weights
        assert found.outside > 0.01 - 5 * math.sqrt(0.01 / 20000)
        assert torch.allclose(
            found.weights, found.expected, atol=5 * math.sqrt(float(found.expected.max()) / 20000) + 0.01
        )
    assert float(found.weights.sum()) == pytest.approx(1 - found.outside)


def test_a_lost_mode_is_seen():
    ring = mixture("ring")
    x, k = ring.sample_labelled(4000, 0)
    found = modes(ring, x[k != 3])
    assert found.coverage == 7 / 8
    assert found.weights[3] == 0
    assert found.total_variation == pytest.approx(1 / 8, abs=0.03)


def test_mode_weights_do_not_depend_on_their_chunks(monkeypatch):
    truth = mixture("random")
    samples = truth.sample(500, 0)
    whole = mode_weights(truth, samples)
    monkeypatch.setattr("toydiff.measure.ENTRIES", 70)
    assert torch.equal(mode_weights(truth, samples), whole)


@pytest.mark.parametrize(
    ("samples", "options", "says"),
    [
        (torch.zeros(5, 3), {}, r"shape \(n, 2\)"),
        (torch.zeros(5, 2, 1), {}, r"shape \(n, 2\)"),
        (torch.zeros(0, 2), {}, "at least one sample"),
        (torch.full((5, 2), math.nan), {}, "NaN"),
        (torch.zeros(5, 2), {"by": "lable"}, "did you mean 'label'"),
        (torch.zeros(5, 2), {"fraction": 0}, "fraction"),
        (torch.zeros(5, 2), {"fraction": 1.5}, "fraction"),
        (torch.zeros(5, 2), {"tail": 1}, "tail"),
        (torch.zeros(5, 2), {"tail": -0.1}, "tail"),
    ],
)
def test_modes_refuse(samples, options, says):
    with pytest.raises(ValueError, match=says):
        modes(APART, samples, **options)


def test_modes_by_label_need_labels():
    with pytest.raises(ValueError, match="no labels"):
        modes(GaussianMixture([[0.0]], std=1.0), torch.zeros(3, 1), by="label")


# ---- straightness


def test_a_straight_path_at_constant_speed_has_straightness_zero():
    start, end = normal(6, 3), normal(6, 3, seed=1)
    ts = torch.tensor([1.0, 0.9, 0.55, 0.2, 0.0], dtype=torch.float64)
    path = trajectory(ts, torch.stack([t * start + (1 - t) * end for t in ts]))
    assert straightness(path) < 1e-28
    # the same places at another pace: a line, but not at constant speed
    assert straightness(dataclasses.replace(path, ts=ts**2)) > 1e-3


def test_straightness_of_a_bent_path_by_hand():
    # whole = (2, 0); the halves have velocities (2, 2) and (2, -2): S = |(0, 2)|^2 = 4, |whole|^2 = 4
    path = trajectory([1.0, 0.5, 0.0], [[[0.0, 0.0]], [[1.0, 1.0]], [[2.0, 0.0]]])
    assert straightness(path) == pytest.approx(4)
    assert straightness(path, normalised=True) == pytest.approx(1)
    # unequal steps: w = 1/4, 3/4; velocities (4, 4) and (4/3, -4/3): S = (2^2 + 4^2)/4 + 3 ((2/3)^2 + (4/3)^2)/4
    assert straightness(dataclasses.replace(path, ts=torch.tensor([1.0, 0.75, 0.0]))) == pytest.approx(5 + 5 / 3)
    # only the fraction of the way counts, not the ends of the time
    assert straightness(dataclasses.replace(path, ts=torch.tensor([0.8, 0.6, 0.4]))) == pytest.approx(4)


@pytest.mark.parametrize("N", [1, 2, 10, 200])
def test_straightness_of_a_parabola(N):
    # x = (u, u - u^2), (dx/du - whole) = (0, 1 - 2u): S = 1/3, and 1/3 (1 - 1/N^2) for its polygon of N equal steps
    u = torch.linspace(0, 1, N + 1, dtype=torch.float64)
    path = trajectory(1 - u, torch.stack([u, u - u**2], 1)[:, None, :])
    assert straightness(path) == pytest.approx((1 - 1 / N**2) / 3, abs=1e-12)


def test_straightness_is_a_mean_over_samples_and_scales_with_their_square():
    u = torch.linspace(0, 1, 11, dtype=torch.float64)
    bent = torch.stack([u, u - u**2], 1)[:, None, :]
    straight = torch.stack([3 * u, 0 * u], 1)[:, None, :]
    one, both = trajectory(1 - u, bent), trajectory(1 - u, torch.cat([bent, straight], 1))
    assert straightness(both) == pytest.approx(straightness(one) / 2)
    assert straightness(both, normalised=True) == pytest.approx((straightness(one) / 2) / ((1 + 9) / 2))
    assert straightness(trajectory(1 - u, 7 * bent)) == pytest.approx(49 * straightness(one))
    assert straightness(trajectory(1 - u, 7 * bent), normalised=True) == pytest.approx(
        straightness(one, normalised=True)
    )


def test_a_loop_cannot_be_normalised():
    path = trajectory([1.0, 0.5, 0.0], [[[0.0]], [[1.0]], [[0.0]]])
    assert straightness(path) == pytest.approx(4)
    with pytest.raises(ValueError, match="ends where it starts"):
        straightness(path, normalised=True)


# ---- first-orderness


def jumps(schedule, ts, x0, eps) -> Trajectory:
    """The path of fixed (x0, eps): jump upon jump."""
    ts = torch.as_tensor(ts, dtype=torch.float64)
    first = Prediction(schedule.mix(x0, eps, ts[0]), ts[0], x0, eps, schedule)
    return trajectory(ts, torch.stack([jump(first, s) for s in ts]), x0.expand(len(ts) - 1, *x0.shape))


@pytest.mark.parametrize("kind", ["eps", "x0"])
def test_fixed_x0_and_eps_are_first_order_on_every_schedule(schedule, kind):
    path = jumps(schedule, [1.0, 0.8, 0.5, 0.3, 0.1, 0.0], normal(7, 2), normal(7, 2, seed=1))
    # VE at t = 0.1 has sigma = 8e-6: rounding of 1e-16 over it, squared
    assert first_orderness(path, schedule, kind=kind) < (1e-19 if schedule.name == "ve" else 1e-26)


@pytest.mark.parametrize("schedule", [VP(), Cosine()])
def test_first_order_paths_need_not_be_straight(schedule):
    ts = torch.linspace(1, 0, 21, dtype=torch.float64)
    x0, eps = normal(7, 2), normal(7, 2, seed=1)
    assert straightness(jumps(schedule, ts, x0, eps), normalised=True) > 0.01
    assert straightness(jumps(Linear(), ts, x0, eps), normalised=True) < 1e-28


class Rectified(Denoiser):
    """The perfectly rectified model of N(m, c^2): x_t = alpha (m + c eps) + sigma eps, so eps = (x - alpha m)/(alpha c
    + sigma).
    """

    def forward(self, x, t, cond=None):
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        eps = (x - alpha * 0.7) / (alpha * 0.5 + sigma)
        return Prediction(x, t, 0.7 + 0.5 * eps, eps, self.schedule)


@pytest.mark.parametrize("solver", ["ddim", "dpm++2m"])
def test_a_rectified_model_is_first_order_where_the_solver_keeps_its_path(solver):
    schedule = VP()
    path = solve(Rectified(schedule), schedule.mix(0.7 + 0.5 * normal(9, 1), normal(9, 1), 1.0), 8, solver=solver)
    assert first_orderness(path, schedule) < 1e-20
    assert first_orderness(path, schedule, kind="x0") < 1e-20
    # Euler in t leaves the path x_t = alpha x_0 + sigma eps on this schedule, and off it the model says something else
    assert first_orderness(solve(Rectified(schedule), path.xs[0], 8, solver="euler"), schedule) > 1e-4


def test_one_data_point_is_first_order():
    point = Empirical(torch.tensor([[1.0, -2.0]], dtype=torch.float64))
    assert first_orderness(solve(point.denoiser(Linear()), normal(9, 2), 6, solver="ddim"), Linear()) < 1e-20


@pytest.mark.parametrize("schedule", [VP(), Cosine(), Linear()])
def test_first_orderness_of_a_gaussian_is_its_closed_form(schedule):
    # along the exact flow x = alpha m + S xi and eps = sigma xi/S with S^2 = alpha^2 c^2 + sigma^2, so C = E|xi|^2
    # var_i(sigma_i/S_i)
    truth, ts = GaussianMixture([[0.7, -0.2]], std=0.5), torch.linspace(1, 0, 9, dtype=torch.float64)
    alpha, sigma = schedule.alpha(ts), schedule.sigma(ts)
    S = torch.sqrt(0.25 * alpha**2 + sigma**2)
    xi = normal(20, 2)
    xs = torch.stack([a * truth.means[0] + s * xi for a, s in zip(alpha, S, strict=True)])
    D = truth.denoiser(schedule)
    path = trajectory(ts, xs, torch.stack([D(x, t).x0 for x, t in zip(xs[:-1], ts[:-1], strict=True)]))
    fraction = (sigma / S)[:-1]
    C = float(xi.square().sum(1).mean() * fraction.var(correction=0))
    assert first_orderness(path, schedule) == pytest.approx(C, rel=1e-9)
    assert first_orderness(path, schedule, normalised=True) == pytest.approx(
        float(fraction.var(correction=0) / fraction.square().mean()), rel=1e-9
    )
    # x_0 = (alpha c^2 x + sigma^2 m)/S^2 = m + alpha c^2 xi/S
    drift = (0.25 * alpha / S)[:-1]
    C0 = float(xi.square().sum(1).mean() * drift.var(correction=0))
    assert first_orderness(path, schedule, kind="x0") == pytest.approx(C0, rel=1e-9)


@pytest.mark.parametrize("schedule", [VP(), Cosine(), Linear()])
def test_a_mixture_is_not_first_order(schedule):
    path = solve(mixture("ring").denoiser(schedule), schedule.prior((100, 2), 0, dtype=torch.float64), 20)
    assert first_orderness(path, schedule) > 0.1
    assert 0.05 < first_orderness(path, schedule, normalised=True) < 1


def test_a_single_prediction_does_not_vary():
    path = jumps(VP(), [1.0, 0.0], normal(3, 2), normal(3, 2, seed=1))
    assert first_orderness(path, VP()) == 0


def test_first_orderness_refuses():
    path = jumps(VP(), [1.0, 0.5, 0.0], normal(3, 2), normal(3, 2, seed=1))
    with pytest.raises(ValueError, match="unknown kind"):
        first_orderness(path, VP(), kind="v")
    nothing = jumps(VP(), [1.0, 0.5, 0.0], torch.zeros(3, 2, dtype=torch.float64), normal(3, 2))
    with pytest.raises(ValueError, match="all predictions of x0 are 0"):
        first_orderness(nothing, VP(), kind="x0", normalised=True)


@pytest.mark.parametrize("measure", [straightness, lambda path: first_orderness(path, VP())])
def test_paths_are_checked(measure):
    D, x = mixture("ring").denoiser(VP()), VP().prior((4, 2), 0)
    with pytest.raises(ValueError, match="keep='path'"):
        measure(solve(D, x, 5, keep="end"))
    broken = solve(D, x, 5)
    broken.xs[2, 0, 0] = math.nan
    with pytest.raises(ValueError, match="NaN"):
        measure(broken)


def test_paths_of_images():
    ts, x0, eps = [1.0, 0.4, 0.0], normal(3, 8), normal(3, 8, seed=1)
    flat = jumps(Linear(), ts, x0, eps)
    flat = dataclasses.replace(flat, x0s=flat.xs[1:])
    image = dataclasses.replace(flat, xs=flat.xs.reshape(3, 3, 2, 2, 2), x0s=flat.x0s.reshape(2, 3, 2, 2, 2))
    assert straightness(image) == straightness(flat)
    assert first_orderness(image, Linear()) == first_orderness(flat, Linear()) > 0


# ---- cost of importing


@pytest.mark.slow
def test_importing_measures_loads_no_heavy_library():
    heavy = ("ot", "scipy", "sklearn", "matplotlib", "plotly")
    code = f"import sys, toydiff.measure; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_nearest_of_the_data():
    """Against all distances by the formula, over more samples than one part; a copy is at 0."""
    a, b = normal(1100, 3, seed=1), normal(40, 3, seed=2)
    by_hand = (a[:, None] - b).square().sum(2).sqrt().min(1).values
    close(nearest(a, b), by_hand, 1e-12)
    assert nearest(b[:5], b).max() < 1e-7
    with pytest.raises(ValueError, match=r"a and b must have the same dimension, got shapes .*"):
        nearest(a, b[:, :2])
