"""One prediction in every parameterization, and the two verbs: jump and chord."""

import pytest
import torch
from cases import ALL_SCHEDULES, close, f64, normal

from toydiff import KINDS, Linear, Prediction, chord, jump
from toydiff.prediction import row

# what no output of that kind can determine, or what has no finite value, at the two ends
IMPOSSIBLE_AT_NOISE = {(name, kind) for name in ("cosine", "linear", "user") for kind in ("eps", "score")}
IMPOSSIBLE_AT_NOISE.add(("user", "velocity"))  # alpha and alpha' vanish together
IMPOSSIBLE_AT_DATA = {(name, "velocity") for name in ("vp", "ve", "scaled-linear", "linear-table")}
PAIRS = [(name, kind) for name in ALL_SCHEDULES for kind in KINDS]


def prediction(schedule, t, shape=(2, 2), seed=0):
    x0, eps = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    t = torch.as_tensor(t, dtype=torch.float64)
    return Prediction(schedule.mix(x0, eps, t), t, x0, eps, schedule)


# the batch equals the dimension: a coefficient (B,) multiplied along the wrong axis would not be noticed by shapes
@pytest.mark.parametrize("shape", [(2, 2), (3, 1, 3, 3)])
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_of_and_read_are_inverse_at_inner_times(name, kind, shape):
    schedule = ALL_SCHEDULES[name]
    times = torch.linspace(0.15, 0.85, shape[0], dtype=torch.float64)
    for t in (times, times[0]):
        p = prediction(schedule, t, shape)
        q = Prediction.of(kind, p.read(kind), p.x, t, schedule)
        close(q.x0, p.x0, 1e-10)
        close(q.eps, p.eps, 1e-10)
        for other in KINDS:
            close(q.read(other), p.read(other), 1e-9)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_each_kind_means_what_its_name_says(name, kind):
    schedule, t = ALL_SCHEDULES[name], f64(0.4567)
    p = prediction(schedule, t)
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    h = 1e-4
    S = torch.sqrt(alpha**2 + sigma**2)
    expected = {
        "x0": p.x0,
        "eps": p.eps,
        "v": alpha * p.eps - sigma * p.x0,
        "score": -(p.x - alpha * p.x0) / sigma**2,
        # the tables are smooth between 0.456 and 0.457 only
        "velocity": (schedule.mix(p.x0, p.eps, t + h) - schedule.mix(p.x0, p.eps, t - h)) / (2 * h),
        # x_0 = c_skip x + c_out F with sigma_data = 1
        "preconditioned": (p.x0 - alpha / S**2 * p.x) / (sigma / S),
    }
    close(p.read(kind), expected[kind], 1e-5 if kind == "velocity" else 1e-11)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_noisy_end(name, kind):
    schedule = ALL_SCHEDULES[name]
    p = prediction(schedule, 1.0)
    if (name, kind) in IMPOSSIBLE_AT_NOISE:
        with pytest.raises(ValueError, match=rf"kind '{kind}' cannot be used .*t = 1"):
            Prediction.of(kind, torch.zeros_like(p.x), p.x, p.t, schedule)
        return
    q = Prediction.of(kind, p.read(kind), p.x, p.t, schedule)
    close(q.x0, p.x0, 1e-10)
    close(q.eps, p.eps, 1e-10)


@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_the_clean_end(name, kind):
    schedule = ALL_SCHEDULES[name]
    p = prediction(schedule, 0.0)
    if (name, kind) in IMPOSSIBLE_AT_DATA:
        with pytest.raises(ValueError, match=r"kind 'velocity' cannot be used at t = 0"):
            Prediction.of(kind, torch.zeros_like(p.x), p.x, p.t, schedule)
        return
    if kind == "score":  # infinite as a number, but a finite score determines x_0
        with pytest.raises(ValueError, match="kind 'score' is infinite at t = 0"):
            p.read(kind)
        y = normal(*p.x.shape, seed=5)
    else:
        y = p.read(kind)
    q = Prediction.of(kind, y, p.x, p.t, schedule)
    close(q.x0, p.x0, 1e-12)
    # x0 and the score say nothing about the noise in a clean state: its mean is 0
    close(q.eps, torch.zeros_like(p.eps) if kind in ("x0", "score") else p.eps, 1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_an_end_in_one_sample_of_a_batch(kind):
    schedule = Linear()
    t = f64([1.0, 0.5])
    p = prediction(schedule, t)
    if kind in ("eps", "score"):
        with pytest.raises(ValueError, match="alpha = 0"):
            Prediction.of(kind, p.eps, p.x, t, schedule)
    else:
        q = Prediction.of(kind, p.read(kind), p.x, t, schedule)
        close(q.x0, p.x0, 1e-12)
        close(q.eps, p.eps, 1e-12)


def test_jump_holds_the_prediction(schedule):
    p = prediction(schedule, f64([0.7, 0.9]))
    for s in (0.0, 0.3, 1.0, f64([0.0, 0.6])):
        close(jump(p, s), schedule.mix(p.x0, p.eps, s), 1e-14)  # jump rounds once where mix rounds twice
    close(jump(p, p.t), p.x, 1e-14)
    close(jump(p, 0.0), p.x0, 0.0)


def test_chord_is_the_inverse_of_jump(schedule):
    for t, s in [(0.8, 0.3), (0.8, 0.0), (1.0, 0.0), (1.0, 0.5), (0.3, 0.8)]:
        p = prediction(schedule, t)
        q = chord(schedule, p.x, t, jump(p, s), s)
        close(q.x0, p.x0, 1e-10)
        close(q.eps, p.eps, 1e-10)
    t, s = f64([1.0, 0.8]), f64([0.5, 0.0])
    p = prediction(schedule, t)
    close(chord(schedule, p.x, t, jump(p, s), s).eps, p.eps, 1e-10)


def test_chord_in_the_scaled_plane_is_a_difference_quotient(schedule):
    x_t, x_s = normal(2, 2, seed=3), normal(2, 2, seed=4)
    t, s = f64(0.7), f64(0.4)
    q = chord(schedule, x_t, t, x_s, s)
    dz = x_t / schedule.alpha(t) - x_s / schedule.alpha(s)
    close(q.eps, dz / (schedule.nsr(t) - schedule.nsr(s)), 1e-10)
    close(jump(q, s), x_s, 1e-12)


def test_gradients_pass(schedule):
    p = prediction(schedule, 0.5)
    y = p.read("v").requires_grad_()
    jump(Prediction.of("v", y, p.x, 0.5, schedule), 0.2).sum().backward()
    assert torch.isfinite(y.grad).all()
    assert (y.grad != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_rows_follow_the_dtype(kind, schedule):
    for dtype in (torch.float32, torch.float64):
        x = torch.randn(3, 2, dtype=dtype)
        p = Prediction.of(kind, torch.randn(3, 2, dtype=dtype), x, 0.5, schedule)
        assert p.x0.dtype == p.eps.dtype == dtype
        assert p.read("velocity").dtype == dtype
        a, b = row(kind, schedule, torch.tensor(0.5, dtype=dtype))
        assert a.dtype == b.dtype == dtype
