"""Problems: data, students and measures, held against closed forms and true samples."""

import dataclasses

import numpy as np
import pytest
import scipy.linalg
import torch
from cases import RING, close, f64, normal
from tiny import TinyDigits, TinyMixture

from toydiff import Cosine, GaussianMixture, Linear, solve
from toydiff.denoisers import LambdaDenoiser
from toydiff.measure import Moments, frechet_distance
from toydiff.mixtures import MIXTURES
from toydiff.nets import MLP, UNet
from toydiff.problems import ENTRIES, PROBLEMS, DigitsProblem, MixtureProblem, PointsProblem, Sizes, problem, scale_of
from toydiff.problems.classifier import Classifier
from toydiff.problems.data import Digits
from toydiff.problems.digits import Features, classifier_turn
from toydiff.training import Draws, fit


def refused(make, match):
    with pytest.raises(ValueError, match=match) as found:
        make()
    assert "\n" not in str(found.value)
    return True


# ---- by name


NAMES = [
    *(f"mixture:{name}" for name in MIXTURES if name not in ("moons", "swiss-roll")),
    "mixture:random,3",
    "points:moons",
    "digits",
    "digits:openml",
    "digits:embedded,2",
    "clips",
    "clips:outlined",
]


@pytest.mark.parametrize("name", NAMES)
def test_a_problem_s_own_name_gives_it_back(name):
    made = problem(name)
    assert made.name == name
    again = problem(made.name)
    assert (type(again), again.name, again.shape, again.classes) == (type(made), made.name, made.shape, made.classes)
    if isinstance(made, MixtureProblem):
        assert torch.equal(again.data(5, 0)[0], made.data(5, 0)[0])
    if isinstance(made, DigitsProblem):
        assert (again.source, again.seed) == (made.source, made.seed)


def test_names_and_seeds():
    assert problem("mixture").name == "mixture:ring"
    assert problem("mixture:random", 3).name == "mixture:random,3"
    assert torch.equal(problem("mixture:random", 3).data(5, 0)[0], problem("mixture:random,3").data(5, 0)[0])
    assert not torch.equal(problem("mixture:random", 3).data(5, 0)[0], problem("mixture:random").data(5, 0)[0])
    refused(
        lambda: problem(MixtureProblem(RING).name), "unknown problem"
    )  # a mixture of one's own has no name in the registry
    refused(
        lambda: problem("digit"),
        r"unknown problem 'digit' \(did you mean 'digits'\?\); allowed: mixture, points, digits, tokens, sd",
    )
    refused(lambda: problem("mixture:rign"), r"unknown mixture 'rign' \(did you mean 'ring'\?\)")
    refused(lambda: problem("digits:net"), "unknown source of digits 'net'")
    refused(lambda: problem("points:"), "unknown set of points ''")
    refused(lambda: problem("mixture:random,x"), "the seed in a problem's name must be a whole number >= 0, got 'x'")
    refused(lambda: problem("mixture", -1), "seed must be a whole number >= 0, got -1")


def test_each_kind_says_its_scale_and_how_it_is_written():
    assert {name: entry.scale for name, entry in ENTRIES.items()} == {
        "mixture": "points", "points": "points", "digits": "images", "tokens": "tokens", "sd": "latents",
        "file": "points", "sequence": "sequences", "clips": "clips",
    }  # fmt: skip
    assert list(PROBLEMS) == list(ENTRIES)
    for name, title in PROBLEMS.items():
        assert title.startswith(name)
    for name in ("mixture", "points:moons", "digits", "tokens:bits"):
        assert problem(name).scale == ENTRIES[name.partition(":")[0]].scale == scale_of(name)
    assert problem("tokens:digits").scale == scale_of("tokens:digits,2") == "token-images"
    refused(lambda: problem("mixture", settings={"rank": 4}), "the problem mixture has no settings, got rank")


def test_sizes():
    """As many samples as it takes to tell a change from chance, and no more than there is time for."""
    assert problem("mixture").sizes == problem("points:moons").sizes == Sizes(1000, 2000, 8000, {})
    assert problem("digits").sizes == Sizes(1000, 1000, 1000, {})


# ---- data


def test_training_samples_are_of_the_class_that_they_say():
    x0, cond = TinyMixture().data(2000, 1)
    assert RING.accuracy(x0, cond) > 0.99
    assert set(cond.tolist()) == set(range(8))
    digits = TinyDigits()
    images, labels = digits.data(200, torch.Generator().manual_seed(0))
    known = {
        image.numpy().tobytes(): int(label)
        for image, label in zip(digits.digits.train, digits.digits.train_labels, strict=True)
    }
    assert [known[image.numpy().tobytes()] for image in images] == labels.tolist()
    assert PointsProblem("circles").data(7, 0)[1] is None
    unlabelled = MixtureProblem(GaussianMixture([[0.0], [1.0]], std=0.1))
    assert unlabelled.data(7, 0)[1] is None
    assert (unlabelled.classes, unlabelled.shape) == (0, (1,))


def test_labels_to_ask_for():
    """Every class in turn, as the data has them, and each as likely as another: three different laws."""
    digits = TinyDigits()
    assert digits.eval_labels(12).tolist() == [*range(10), 0, 1]
    digits.digits = dataclasses.replace(
        digits.digits, train=torch.zeros(9, 1, 28, 28), train_labels=torch.tensor([3] * 8 + [5])
    )
    found = torch.bincount(digits.data_labels(4000, 0), minlength=10)
    assert found.nonzero()[:, 0].tolist() == [3, 5]
    assert abs(float(found[5]) / 4000 - 1 / 9) < 4 * (8 / 81 / 4000) ** 0.5
    assert torch.equal(digits.data_labels(7, 2), digits.data(7, 2)[1])
    uniform = torch.bincount(digits.uniform_labels(4000, 0), minlength=10)
    assert float((uniform / 4000 - 0.1).abs().max()) < 4 * (0.09 / 4000) ** 0.5
    points = TinyMixture()
    assert points.eval_labels(12) is None
    assert points.uniform_labels(12) is None
    assert set(points.data_labels(400, 0).tolist()) == set(range(8))


def test_the_mixture_s_teacher_is_exact():
    p = TinyMixture()
    path = solve(
        p.teacher,
        p.schedule.sigma(torch.ones(())) * torch.randn(500, 2, generator=torch.Generator().manual_seed(0)),
        20,
    )
    found = p.measure(path.end)
    assert found.distance < 2 * found.floor


# ---- measures


@pytest.mark.slow
@pytest.mark.parametrize("p", [TinyMixture(), PointsProblem("circles")], ids=["mixture", "points"])
def test_true_samples_are_at_the_floor_and_others_are_not(p):
    """The mean of several fresh sets over the floor is 1, within what a mean of so few may be off."""
    ratios, spreads = [], []
    for seed in range(5):
        found = p.measure(p.data(500, 5000 + seed)[0])
        ratios.append(found.distance / found.floor)
        spreads.append(found.floor_std / found.floor)
    error = np.mean(spreads) / 5**0.5
    assert abs(np.mean(ratios) - 1) < 4 * error
    assert 4 * error < 0.6
    x = p.data(500, 1)[0]
    for wrong in (0.7 * x, x + 0.5, torch.randn_like(x)):
        found = p.measure(wrong)
        assert found.distance > found.floor + 4 * found.floor_std
    assert p.measure(x) == p.measure(x)


@pytest.mark.slow
def test_accuracy_is_of_the_class_requested():
    p = TinyMixture()
    cond = torch.arange(400) % 8
    x = RING.sample(400, 0, cond=cond)
    assert p.measure(x, cond).accuracy == 1.0
    half = torch.where(torch.arange(400) < 200, cond, (cond + 1) % 8)
    assert p.measure(x, half).accuracy == 0.5
    assert p.measure(x).accuracy is None
    # requested by class, they are compared with samples of these classes
    few = torch.zeros(400, dtype=torch.long)
    assert (
        p.measure(RING.sample(400, 1, cond=few), few).distance < 0.2 * p.measure(RING.sample(400, 1, cond=few)).distance
    )


class Pixels(Classifier):
    """A classifier whose features are the means of 64 patches, and that reads the class off the brightest of the first
    ten.
    """

    def __init__(self):
        super().__init__()
        self.register_buffer("patches", torch.nn.functional.one_hot(torch.arange(784) % 64, 64).float() / 12.25)

    def features(self, images):
        return images.flatten(1) @ self.patches

    def features_of(self, images, chunk=1000):
        features = self.features(images)
        return features, features[:, :10].argmax(1)


@pytest.mark.slow
def test_fractions_of_modes_and_what_is_lost():
    uneven = GaussianMixture([[-3.0, 0.0], [3.0, 0.0], [0.0, 4.0]], std=0.3, weights=[0.6, 0.3, 0.1])
    p = MixtureProblem(uneven)
    true = p.measure(uneven.sample(4000, 0))
    np.testing.assert_allclose(true.fractions, [0.6, 0.3, 0.1], atol=0.03)
    np.testing.assert_allclose(true.expected, [0.6, 0.3, 0.1])
    assert true.coverage == 1
    assert true.least_fraction == pytest.approx(1, abs=0.2)
    two = uneven.sample(4000, 1)
    half = p.measure(two[two[:, 1] < 2])
    assert (half.least_fraction, half.coverage) == (0, 2 / 3)
    nowhere = p.measure(torch.full((50, 2), 9.0) + normal(50, 2).float())
    assert (nowhere.fractions, nowhere.coverage) == ((0, 0, 0), 0)
    # samples of a class that was requested have another law, and points without modes none
    ring = MixtureProblem(RING)
    requested = torch.zeros(50, dtype=torch.long)
    assert ring.measure(RING.sample(50, 0, cond=requested), requested).fractions is None
    moons = problem("points:moons")
    found = moons.measure(moons.data(50, 0)[0])
    assert (found.fractions, found.least_fraction, found.coverage) == (None, None, None)


def test_digits_are_measured_by_their_features():
    """Images of noise: the features are Gaussian, so that the distance of shifted ones is known."""
    rng = torch.Generator().manual_seed(0)
    train, test = (torch.randn(n, 1, 28, 28, generator=rng) for n in (3000, 600))
    digits = Digits(train, torch.arange(3000) % 10, test, torch.arange(600) % 10, "noise")
    known = Features.of(Pixels(), digits)
    p = TinyDigits()
    p._features = known
    fresh = torch.randn(600, 1, 28, 28, generator=rng)
    found = p.measure(fresh, torch.zeros(600, dtype=torch.long))
    assert found.distance == pytest.approx(
        frechet_distance(known.net.features(fresh), known.net.features(digits.train))
    )
    assert 0.8 < found.distance / found.floor < 1.25
    assert found.floor == pytest.approx(
        frechet_distance(known.net.features(digits.test), known.net.features(digits.train))
    )
    assert abs(found.accuracy - 0.1) < 4 * (0.09 / 600) ** 0.5
    shifted = p.measure(fresh + 0.5)
    step = known.net.features(torch.full((1, 1, 28, 28), 0.5)).double()
    cross = 2 * (step[0] * (Moments.of(known.net.features(fresh)).mean - known.reference.mean)).sum()
    assert shifted.distance == pytest.approx(found.distance + float(step.square().sum() + cross), rel=1e-5)
    # fewer samples have a higher floor, of as many held-out ones
    fewer = p.measure(fresh[:200])
    assert fewer.floor > 1.5 * found.floor
    assert 0.8 < fewer.distance / fewer.floor < 1.25
    assert fewer.floor_std > 0
    assert found.floor_std > 0
    # more than are held out are measured in groups
    many = torch.randn(900, 1, 28, 28, generator=rng)
    halves = [p.measure(half) for half in many.split(450)]
    together = p.measure(many)
    assert together.distance == pytest.approx(sum(half.distance for half in halves) / 2)
    assert together.distance_std == pytest.approx(abs(halves[0].distance - halves[1].distance) / 2**0.5)
    assert (together.floor, found.distance_std) == (halves[0].floor, None)
    refused(lambda: p.measure(torch.randn(5, 28, 28)), r"digits have shape \(n, 1, 28, 28\), got \(5, 28, 28\)")
    refused(lambda: p.measure(fresh * float("nan")), "samples has .* NaN or infinite")


def test_fractions_of_digits_are_those_of_the_classes_requested():
    net, p = Pixels(), TinyDigits()
    p._features = Features.of(net, p.digits)
    images = net.patches.T[torch.tensor([3, 3, 3, 5, 5, 7, 7, 7])].reshape(8, 1, 28, 28)  # each is read as this class
    found = p.measure(images, torch.tensor([3, 3, 3, 3, 5, 5, 5, 5]))
    assert (found.fractions, found.expected) == ((3 / 8, 2 / 8), (0.5, 0.5))
    assert (found.least_fraction, found.coverage, found.accuracy) == (0.5, 1, 4 / 8)
    every = p.measure(images)  # nothing was requested: every class in turn
    assert len(every.fractions) == 8
    assert every.least_fraction == 0


def test_features_come_back_from_a_file(tmp_path, monkeypatch):
    from toydiff import weights

    net = Classifier()
    known = Features.of(net, TinyDigits().digits)
    weights.save("digits-features", known.tensors(), {}, tmp_path)
    load = weights.load
    monkeypatch.setattr(weights, "load", lambda id_: load(id_, tmp_path))
    again = Features.bundled.__wrapped__(Features)
    images = torch.rand(5, 1, 28, 28)
    assert torch.equal(again.net.features_of(images)[0], net.features_of(images)[0])
    assert torch.equal(again.reference.cov, known.reference.cov)
    torch.testing.assert_close(again.held_out, known.held_out, rtol=1e-3, atol=1e-3)  # half precision


def test_the_classifier_learns_by_its_recipe():
    torch.manual_seed(0)
    net, labels = Classifier().train(), torch.arange(30) % 10
    images = torch.where(torch.arange(784) // 79 == labels[:, None], 1.0, -1.0).reshape(-1, 1, 28, 28)  # bars
    digits = Digits(images, labels, images, labels, "bars")
    losses = [record.loss for record in fit(classifier_turn(net, digits, batch=16), 30)]
    assert losses[-1] < 0.5 * losses[0]
    assert (net.features_of(images)[1] == digits.train_labels).double().mean() > 0.9
    assert torch.isfinite(classifier_turn(net, digits, batch=4).loss(0, Draws(0)))


# ---- the Fréchet distance


@pytest.mark.parametrize(
    ("m1", "s1", "m2", "s2"), [(0, 1, 0, 1), (0.3, 1.2, -1, 0.5), (2, 0, 0, 3), (-1, 1e-3, 1, 1e3)]
)
def test_frechet_distance_in_one_dimension(m1, s1, m2, s2):
    a, b = (Moments(f64([m]), f64([[s**2]])) for m, s in ((m1, s1), (m2, s2)))
    assert frechet_distance(a, b) == pytest.approx((m1 - m2) ** 2 + (s1 - s2) ** 2, rel=1e-9, abs=1e-12)


def test_frechet_distance_is_that_of_matrix_square_roots():
    for seed in range(4):
        A, B = normal(6, 6, seed=seed), normal(6, 6, seed=seed + 10)
        if seed == 3:
            B[:, 3:] = 0  # a covariance of half its rank
        a, b = Moments(normal(6, seed=seed + 20), A @ A.T), Moments(normal(6, seed=seed + 30), B @ B.T)
        cross = scipy.linalg.sqrtm((a.cov @ b.cov).numpy()).real
        by_hand = float((a.mean - b.mean).square().sum() + a.cov.trace() + b.cov.trace()) - 2 * float(np.trace(cross))
        assert frechet_distance(a, b) == pytest.approx(by_hand, rel=1e-5 if seed == 3 else 1e-9)
        assert frechet_distance(b, a) == pytest.approx(frechet_distance(a, b), rel=1e-5 if seed == 3 else 1e-9)
        assert frechet_distance(a, a) < 1e-6 if seed == 3 else frechet_distance(a, a) < 1e-10


def test_frechet_distance_of_commuting_covariances_is_closed():
    """Same axes: |m_a - m_b|^2 + sum (s_a - s_b)^2. And of samples: their moments', with n - 1."""
    axes = torch.linalg.qr(normal(5, 5)).Q
    s, r = f64([0.1, 0.5, 1.0, 2.0, 3.0]), f64([1.0, 0.2, 1.0, 0.7, 5.0])
    a, b = (Moments(torch.zeros(5).double(), axes @ torch.diag(v**2) @ axes.T) for v in (s, r))
    assert frechet_distance(a, b) == pytest.approx(float((s - r).square().sum()), rel=1e-9)
    x, y = normal(40, 3), 2 * normal(30, 3, seed=1) + 1
    hand = [Moments(torch.tensor(v.numpy().mean(0)), torch.tensor(np.cov(v.numpy().T, ddof=1))) for v in (x, y)]
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(*hand), rel=1e-9)
    refused(lambda: frechet_distance(x, y[:, :2]), "must have the same dimension, got 3 and 2")
    refused(lambda: frechet_distance(x[:1], y), "n >= 2")


# ---- students


def stirred(net):
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.1 * torch.randn_like(p))
    return net


@pytest.mark.parametrize("p", [TinyMixture(), TinyDigits()], ids=["points", "images"])
def test_a_student_starts_as_a_copy_with_memory_of_its_own(p):
    teacher = LambdaDenoiser(stirred(p.network()), p.schedule, "eps").eval().requires_grad_(False)
    student = p.student(start=teacher)
    x, t, cond = torch.randn(4, *p.shape), torch.tensor([0.1, 0.4, 0.8, 1.0]), torch.tensor([0, 3, 5, 7])
    assert torch.equal(student(x, t, cond).x0, teacher(x, t, cond).x0)
    assert all(q.requires_grad for q in student.parameters())
    assert student.net.training
    assert not any(q.requires_grad for q in teacher.parameters())
    own = {q.data_ptr() for q in student.parameters()}
    assert not own & {q.data_ptr() for q in teacher.parameters()}
    assert [q.stride() for q in student.parameters()] == [q.stride() for q in teacher.parameters()]
    before = [q.clone() for q in teacher.parameters()]
    with torch.no_grad():
        for q in student.parameters():
            q.add_(1)
    assert all(torch.equal(q, was) for q, was in zip(teacher.parameters(), before, strict=True))


@pytest.mark.parametrize("p", [TinyMixture(), TinyDigits()], ids=["points", "images"])
def test_a_guided_student_starts_as_the_teacher_at_every_scale(p):
    teacher = LambdaDenoiser(stirred(p.network()), p.schedule, "eps").eval().requires_grad_(False)
    student = p.student(start=teacher, guided=True)
    x, t, cond = torch.randn(4, *p.shape), torch.tensor([0.1, 0.4, 0.8, 1.0]), torch.tensor([0, 3, 5, 7])
    assert student.scale_conditioned
    assert not teacher.scale_conditioned
    conditioned = student(x, t, cond, torch.tensor([0.5, 1.0, 2.0, 9.0]))
    assert torch.equal(conditioned.x0, teacher(x, t, cond).x0)
    assert torch.equal(student(x, t).x0, teacher(x, t).x0)
    assert not {q.data_ptr() for q in student.parameters()} & {q.data_ptr() for q in teacher.parameters()}
    again = p.student(start=student, guided=True)  # from one that sees the scale already
    assert torch.equal(again(x, t, cond, 3.0).x0, student(x, t, cond, 3.0).x0)


def test_a_student_may_change_schedule_and_kind():
    p = TinyMixture()
    teacher = LambdaDenoiser(stirred(p.network()), p.schedule, "eps")
    student = p.student(Linear(), "velocity", start=teacher)
    assert (student.schedule.name, student.kind) == ("linear", "velocity")
    lam, x = torch.tensor([-1.0, 0.5]), torch.randn(2, 2)
    close(student.net(x, lam).detach(), teacher.net(x, lam).detach(), 1e-12)
    fresh = p.student(Cosine(), "v", start=p.teacher)  # an exact teacher has no weights
    assert torch.equal(fresh.net(x, lam), torch.zeros(2, 2))
    assert isinstance(fresh.net, MLP)
    assert p.student().schedule is p.schedule
    assert isinstance(DigitsProblem().student().net, UNet)


def test_fresh_students_are_the_seed_s():
    p = TinyMixture()

    def weights(seed):
        torch.manual_seed(seed)
        return p.student().net.into.weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
