"""Students whose optimum is known, and batches that hold a distribution's moments exactly: what the tests of
distillation put through the real losses.
"""

import itertools

import torch
from cases import R2
from torch import nn

from toydiff import Denoiser, Prediction, schedule
from toydiff.catalog import METHODS
from toydiff.nets import MLP
from toydiff.problems import MixtureProblem
from toydiff.problems.pairs import Pairs
from toydiff.training import Draws

ANYWHERE = [name for name, card in METHODS.items() if card.only is None]
"""The methods that are for all problems."""

LEAST = 1e-3
"""The earliest time that losses over uniform times draw."""


class Spline(Denoiser):
    """In one dimension, a piecewise linear map for each of `times`, of its kind: with two knots, an affine one.

    Linear in its parameters.
    """

    def __init__(self, schedule, kind, times, knots=(-1.0, 1.0)):
        super().__init__(schedule, kind)
        self.register_buffer("times", torch.as_tensor(times, dtype=torch.float64))
        self.register_buffer("knots", torch.as_tensor(knots, dtype=torch.float64))
        self.values = nn.Parameter(torch.zeros(len(self.times), len(self.knots), dtype=torch.float64))

    def forward(self, x, t, cond=None):
        gap, i = (t.expand(len(x))[:, None] - self.times).abs().min(1)
        assert float(gap.max()) < 1e-9, "evaluated at a time that it has no map for"
        k = (torch.searchsorted(self.knots, x[:, 0].contiguous()) - 1).clamp(0, len(self.knots) - 2)
        w = (x[:, 0] - self.knots[k]) / (self.knots[k + 1] - self.knots[k])
        y = (1 - w) * self.values[i, k] + w * self.values[i, k + 1]
        return Prediction.of(self.kind, y[:, None], x, t, self.schedule)


class Table(Denoiser):
    """One answer of its own for every sample of the batch: its optimum is the target of a loss.

    `inputs` is what it was called with.
    """

    def __init__(self, schedule, kind, *shape):
        super().__init__(schedule, kind)
        self.values = nn.Parameter(torch.zeros(*shape, dtype=torch.float64))
        self.inputs = None

    def forward(self, x, t, cond=None, guidance_scale=None):
        self.inputs = (x, t, cond, guidance_scale)
        return Prediction.of(self.kind, self.values, x, t, self.schedule)


class Known(Denoiser):
    """A denoiser, plus a number to train in its own kind, `shift`, which is best at 0 if the denoiser is."""

    def __init__(self, denoiser, kind):
        super().__init__(denoiser.schedule, kind)
        self.denoiser, self.shift = denoiser, nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x, t, cond=None):
        y = self.denoiser(x, t, cond).read(self.kind) + self.shift
        return Prediction.of(self.kind, y, x, t, self.schedule)


class FirstOrder(Denoiser):
    """The perfect first-order model in one dimension, window by window, as methods 2.4 and G6 have it.

    x0, eps (M, K): K curves alpha x_0 + sigma eps in each of M equally long windows, which rise with k at all times;
    between two of them the prediction is linear in x, so that it is constant along a curve everywhere.
    """

    def __init__(self, schedule, kind, x0, eps):
        super().__init__(schedule, kind)
        self.x0, self.eps = x0, eps

    def forward(self, x, t, cond=None):
        times = t.expand(len(x))
        m = (torch.ceil(times * len(self.x0) - 1e-9) - 1).long()
        x0, eps = self.x0[m], self.eps[m]
        curves = self.schedule.alpha(times)[:, None] * x0 + self.schedule.sigma(times)[:, None] * eps
        assert bool((curves.diff(dim=1) > 0).all()), "the curves cross"
        k = (torch.searchsorted(curves, x) - 1).clamp(0, curves.shape[1] - 2)
        low, high = curves.gather(1, k), curves.gather(1, k + 1)
        w = (x - low) / (high - low)
        found = [values.gather(1, k) * (1 - w) + values.gather(1, k + 1) * w for values in (x0, eps)]
        return Prediction(x, t, *found, self.schedule)


class With(MixtureProblem):
    """A mixture's problem whose students are those of a test: make(schedule, kind).

    Its teacher is exact, of the kind given.
    """

    def __init__(self, mixture, schedule, kind, make=None, *, conditional=False, data=None):
        super().__init__(mixture, "test", schedule)
        self.make, self.conditional, self.given = make, conditional, data
        self.teacher = mixture.denoiser(schedule, kind)

    def data(self, n, generator=None):
        if self.given is None:
            return super().data(n, generator)
        return tiled(self.given, n), None

    def student(self, schedule=None, kind="eps", *, start=None, guided=False):
        if self.make is None:
            return super().student(schedule, kind, start=start, guided=guided)
        return self.make(self.schedule if schedule is None else schedule, kind)


class Small(With):
    """With a network of some hundred weights, in any dimension."""

    def network(self, *, guided=False):
        return MLP(self.mixture.dim, hidden=16, depth=1, classes=self.classes, guided=guided)


def small(mixture=R2, kind="eps", seed=0, **more):
    """A `Small` problem, and a frozen network of its kind with random weights for a teacher."""
    torch.manual_seed(seed)
    problem = Small(mixture, schedule("scaled-linear"), kind, **more)
    teacher = problem.student(problem.schedule, kind)
    with torch.no_grad():
        for p in teacher.parameters():
            p.copy_(0.3 * torch.randn(p.shape))
    return problem, teacher.requires_grad_(False)


def train(method, problem, teacher=None, *, pairs=None, start=None, **knobs):
    """A method's `Training`, by its card."""
    return METHODS[method].train(problem, METHODS[method].knobs(**knobs), teacher, pairs, start)


class Designed(Draws):
    """Values of a test's choice in the place of random ones, each repeated to the size of the batch. What is not given
    is random.

    normals: one tensor for all draws of normal numbers, or a list with one for each draw of a loss, in their order.
    uniforms: such a list of tensors in [0, 1).
    """

    def __init__(self, *, normals=None, uniforms=(), indices=None, seed=0):
        super().__init__(seed)
        self.normals = [normals] if isinstance(normals, torch.Tensor) else normals or []
        self.uniforms, self.indices, self.drawn = uniforms, indices, [0, 0]

    def normal(self, n, *shape):
        return self._next(0, self.normals, n) if self.normals else super().normal(n, *shape)

    def uniform(self, n, low=0.0, high=1.0):
        if not self.uniforms:
            return super().uniform(n, low, high)
        return low + (high - low) * self._next(1, self.uniforms, n)

    def _next(self, which, values, n):
        self.drawn[which] += 1
        return tiled(values[(self.drawn[which] - 1) % len(values)], n)

    def integers(self, n, high):
        return super().integers(n, high) if self.indices is None else tiled(self.indices, n) % high


def tiled(values, n):
    assert n % len(values) == 0
    return values.repeat(n // len(values), *[1] * (values.ndim - 1))


def corners(mean, std):
    """x_0 and eps, (4, 1) each: four points with the first two moments of N(mean, std^2) and of N(0, 1), uncorrelated.
    All that least squares over affine maps sees of the two."""
    x0 = torch.tensor([[mean - std], [mean + std]] * 2, dtype=torch.float64)
    eps = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]], dtype=torch.float64)
    return x0, eps


def uniforms_for(times, low=LEAST):
    """The uniform numbers in [0, 1) that a loss turns into these times in [low, 1)."""
    return (torch.as_tensor(times, dtype=torch.float64) - low) / (1 - low)


def pairs_of(noise, x0, cond=None):
    """Pairs that no solver made."""
    return Pairs(noise, x0, cond, {"problem": "test", "nfe": 0})


def exact_pairs(mixture, schedule, noise):
    """Where the exact ODE of a mixture, in one dimension, takes each noise (n, 1)."""
    sigma = schedule.sigma(torch.ones((), dtype=torch.float64))
    return pairs_of(noise, mixture.flow(schedule, sigma * noise, 1.0, 0.0))


def rectified(pairs, schedule, kind):
    """What rectification with these pairs tends to where curves do not cross: x_0 and eps constant along the curve of
    each pair.

    eps is such that the curve starts where the teacher did, at sigma(1) noise.
    """
    one = torch.ones((), dtype=torch.float64)
    order = pairs.noise[:, 0].argsort()
    noise, x0 = pairs.noise[order, 0], pairs.x0[order, 0]
    eps = noise - schedule.alpha(one) / schedule.sigma(one) * x0
    return FirstOrder(schedule, kind, x0[None], eps[None])


def ddim(D, x, t, s, cond=None):
    """One DDIM step, written out."""
    p = D(x, t, cond)
    alpha, sigma = D.schedule.alpha(s), D.schedule.sigma(s)
    return alpha.reshape(-1, 1) * p.x0 + sigma.reshape(-1, 1) * p.eps


def walk(D, x, ts, cond=None):
    """DDIM through the times ts, each () or (B,)."""
    for t, s in itertools.pairwise(ts):
        x = ddim(D, x, t, s, cond)
    return x


def minimise(loss, params):
    """Put the parameters at the optimum of a loss that is quadratic in them: one step of Newton's method."""
    params = list(params)
    slopes = torch.autograd.grad(loss, params, create_graph=True)
    slope = torch.cat([g.reshape(-1) for g in slopes])
    every = torch.eye(len(slope), dtype=slope.dtype)
    H = torch.cat([part.flatten(1) for part in torch.autograd.grad(slope, params, every, is_grads_batched=True)], 1)
    diagonal = H.diagonal()
    scale = torch.where(diagonal > 0, diagonal, 1.0).rsqrt()  # a part of the batch may weigh 1e13 of another
    step = scale * (
        torch.linalg.pinv(scale[:, None] * H * scale, rcond=1e-14, hermitian=True) @ (scale * slope.detach())
    )
    with torch.no_grad():
        for p, change in zip(params, step.split([p.numel() for p in params]), strict=True):
            p -= change.view_as(p)


def at_and_beside(turn, student, draws, beside=0.1):
    """A loss and its slope at a `Known` student, and the loss beside it."""
    found = []
    for shift in (0.0, beside):
        with torch.no_grad():
            student.shift.fill_(shift)
        loss = turn.loss(0, draws())
        found.append((float(loss.detach()), float(torch.autograd.grad(loss, student.shift)[0])))
    return found[0][0], found[0][1], found[1][0]
