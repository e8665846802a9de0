"""Methods of tokens: their losses against closed forms, and runs that are interrupted, resumed and loaded."""

import json
import math

import pytest
import torch

from toydiff import runs, weights
from toydiff.catalog import TOKEN_METHODS
from toydiff.discrete import ChainPosterior, Posterior, TokenPath, scheduler, solve_tokens
from toydiff.discrete.jumps import ExactJumps
from toydiff.discrete.laws import propagate, source_law, strings
from toydiff.distill.base import uniform_times
from toydiff.distill.di4c import di4c_loss, walked
from toydiff.distill.discrete_flow_matching import cross_entropy_loss, generalised_kl_loss, noised
from toydiff.problems import TokensProblem, problem
from toydiff.training import Draws
from toydiff.training.checkpoints import read_tensors

SMALL = {"updates": 6, "batch": 8, "warmup": 2}
LENGTH = 3


def tiny(vocab=3):
    rng = torch.Generator().manual_seed(1)
    laws = torch.rand(vocab + 1, vocab, generator=rng, dtype=torch.float64)
    laws = laws / laws.sum(1, keepdim=True)
    return TokensProblem("tokens:tiny", laws[0], laws[1:], LENGTH)


def entropy(on):
    """Of a string, in nats."""
    plogp = -(on.transition * on.transition.log()).sum(1)
    law, total = on.start, float(-(on.start * on.start.log()).sum())
    for _ in range(LENGTH - 1):
        total += float(law @ plogp)
        law = law @ on.transition
    return total


class Blurred(ChainPosterior):
    """The exact posterior, but for a part of it."""

    def logits(self, x, t, latent=None, cond=None):
        return 0.5 * super().logits(x, t)


def mean_loss(loss, student, on, batches=20, n=2000):
    """(mean, standard error) of a loss."""
    draws = Draws(0)
    with torch.no_grad():
        values = torch.stack([loss(student, on.data(n, k)[0], draws) for k in range(batches)])
    return float(values.mean()), float(values.std() / math.sqrt(batches))


@pytest.mark.parametrize("kappa", ["linear", "power:2"])
def test_the_generalised_kl_of_the_exact_posterior_bounds_the_entropy_of_data(kappa):
    """With the mask it is the entropy. With uniform noise it is more: there a string does not say which positions have
    jumped, and a chain that forgets it pays for that.
    """
    on = tiny()
    found, error = mean_loss(generalised_kl_loss, on.exact(TokenPath(3, "mask", scheduler(kappa))), on)
    assert LENGTH * found == pytest.approx(entropy(on), abs=4 * LENGTH * error)
    assert LENGTH * error < 0.02 * entropy(on)
    found, error = mean_loss(generalised_kl_loss, on.exact(TokenPath(3, "uniform", scheduler(kappa))), on)
    assert entropy(on) + 4 * LENGTH * error < LENGTH * found < 1.5 * entropy(on)


@pytest.mark.parametrize("loss", [cross_entropy_loss, generalised_kl_loss])
@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_the_exact_posterior_has_the_least_loss(source, loss):
    on = tiny()
    path = TokenPath(3, source)
    best, _ = mean_loss(loss, on.exact(path), on, 4)
    worse, _ = mean_loss(loss, Blurred(path, on.start, on.transition, LENGTH), on, 4)
    assert best < worse - 0.003


def test_cross_entropy_counts_what_is_masked_and_uniform_counts_all():
    """A posterior that knows nothing has log V at each position that counts; half of them are masked on average."""
    on = problem("tokens:markov")
    for source, part in (("mask", 0.5), ("uniform", 1.0)):
        student = on.posterior(TokenPath(8, source))
        found, error = mean_loss(cross_entropy_loss, student, on, 5, 500)
        assert found == pytest.approx(part * math.log(8), abs=4 * error + 2e-3)


@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_a_short_training_nears_the_exact_posterior(source):
    on = problem("tokens:bits")
    changes = {"source": source, "updates": 150, "batch": 64}
    D = runs.train("discrete-flow-matching", on, changes=changes).finish().denoiser
    X = torch.cartesian_prod(torch.arange(D.path.size), torch.arange(D.path.size))
    for t in (0.3, 0.7):
        assert float((D(X, t) - on.exact(D.path)(X, t)).abs().max()) < 0.12
    if source == "mask":
        assert torch.equal(D(X, 0.2), D(X, 0.9))


# ---- a mixture of products


class TwoProducts(Posterior):
    """Two equal bits as a mixture: the latent is what is masked. A bit that is shown says what the other is."""

    latents = 2

    def logits(self, x, t, latent, cond=None):
        shown = torch.where(x < 2, x, -1).amax(1)
        bit = torch.where(shown >= 0, shown, latent)
        return torch.nn.functional.one_hot(bit, 2)[:, None].expand(-1, 2, -1).double().log()


def mismatch(D, N):
    ts = torch.linspace(1, 0, N + 1, dtype=torch.float64)
    law, X = propagate(ExactJumps(), D, source_law(D.path, 2), ts), strings(3, 2)
    return float(law[X[:, 0] != X[:, 1]].sum())


@pytest.mark.parametrize("N", [1, 2, 5])
def test_two_products_hold_two_equal_bits_in_any_number_of_steps(N):
    D = TwoProducts(TokenPath(2), 2)
    assert mismatch(D, N) == 0
    x = solve_tokens(D, D.path.noise(500, 2), N, generator=0).end
    assert bool((x[:, 0] == x[:, 1]).all())
    assert 180 < int(x[:, 0].sum()) < 320
    with pytest.raises(ValueError, match="a posterior of 2 products takes a latent"):
        D(x, 0.5)
    with pytest.raises(ValueError, match="a posterior of 1 products takes no latent"):
        problem("tokens:bits").teacher(x, 0.5, torch.zeros(500, dtype=torch.long))


def test_the_loss_of_a_mixture_is_that_of_all_its_products():
    on = tiny()
    student = on.posterior(TokenPath(3), latents=4)
    torch.nn.init.normal_(student.net.head.weight)
    x1 = on.data(16, 0)[0]
    found = float(di4c_loss(student, on.teacher, 3, x1, Draws(5), 0.5).detach())
    draws = Draws(5)
    t = uniform_times(16, draws, 0.5)
    x_t = noised(student.path, x1, t, draws)
    y = walked(on.teacher, x_t, t, 3, draws)
    assert bool(((x_t == 3) | (x_t == y)).all())  # what is revealed stays
    total = 0.0
    for b in range(16):
        products = []
        for k in range(4):
            p = student(x_t[b : b + 1], t[b : b + 1], torch.tensor([k]))[0]
            products.append(math.prod(float(p[i, y[b, i]].detach()) for i in range(LENGTH)))
        total -= math.log(sum(products) / 4)
    assert found == pytest.approx(total / 16 / LENGTH, rel=1e-4)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_teachers_walk_has_the_law_of_its_sampler(steps):
    on, n = problem("tokens:bits"), 20_000
    y = walked(on.teacher, on.teacher.path.noise(n, 2), torch.ones(n), steps, Draws(0))
    p = 1 / (2 * steps)
    assert int(y.max()) < 2
    assert abs(float((y[:, 0] != y[:, 1]).double().mean()) - p) < 4 * math.sqrt(p * (1 - p) / n)


def test_two_latents_learn_what_one_cannot():
    """With one product, one step is as bad as it was; with two it is nearly as good as the teacher's 8 steps."""
    changes = {"updates": 120, "batch": 64, "walk": 8, "lr": 5e-3, "edge": 0.5}
    found = {K: runs.train("di4c", "tokens:bits", changes=changes | {"latents": K}).finish() for K in (1, 2)}
    assert abs(mismatch(found[1].denoiser, 1) - 0.5) < 0.02
    assert mismatch(found[2].denoiser, 1) < 0.15
    assert found[2].about["teacher_calls"] == 120 * 64 * 8


def test_a_mixture_starts_from_a_product_and_is_stored():
    first = runs.train("discrete-flow-matching", "tokens:bits", changes=SMALL).finish()
    student = problem("tokens:bits").posterior(first.denoiser.path, start=first.denoiser, latents=3)
    assert torch.equal(student.net.gru.weight_ih_l0, first.denoiser.net.gru.weight_ih_l0)
    again = weights.build(json.loads(json.dumps(weights.describe(student))), student.net.state_dict())
    x, k = torch.tensor([[2, 2], [0, 2]]), torch.tensor([2, 0])
    assert torch.equal(again(x, 0.5, k), student(x, 0.5, k).detach())
    with pytest.raises(ValueError, match="the source mask and 3 latents, and it has mask and 2"):
        problem("tokens:bits").posterior(first.denoiser.path, start=again, latents=2)


# ---- runs


@pytest.mark.parametrize("method", TOKEN_METHODS)
@pytest.mark.parametrize("source", ["mask", "uniform"])
def test_an_interrupted_run_ends_with_the_same_bits(method, source, tmp_path):
    on = problem("tokens:markov")
    own = {"discrete-flow-matching": {"source": source}, "di4c": {"walk": 2, "latents": 1 + 2 * (source == "mask")}}
    changes = SMALL | own[method]

    def begin(folder, resume=False):
        torch.manual_seed(len(str(folder)) + resume)
        return runs.train(
            method, on, out=folder, changes=changes, seed=2, resume=resume, every=1, watch=3, device="cpu"
        )

    whole = begin(tmp_path / "whole").finish()
    for stop in (2, 4, None):
        for record in begin(tmp_path / "cut", resume=stop != 2):
            if record.step == stop:
                break
    a, b = (read_tensors(tmp_path / name / "step-00000006.safetensors") for name in ("whole", "cut"))
    assert [key for key in a if key != "global_random" and not torch.equal(a[key], b[key])] == []
    loaded = runs.load(tmp_path / "cut")
    X = on.data(4, 0)[0]
    X[:, ::2] = loaded.denoiser.path.noise(4, 8, 0)
    latent = None if loaded.denoiser.latents == 1 else torch.tensor([0, 1, 2, 2])
    assert torch.equal(loaded.denoiser(X, 0.5, latent), whole.denoiser(X, 0.5, latent))
    rows = runs.evaluate(loaded, runs.problem_of(loaded), steps=[1, 2], n=50)
    assert [(row["steps"], row["nfe"], row["solver"], row["grid"]) for row in rows] == [
        (1, 1, "jump-exact", "uniform"),
        (2, 2, "jump-exact", "uniform"),
    ]


def test_a_chain_of_ones_own_is_kept_by_its_run(tmp_path):
    on = tiny()
    runs.train("discrete-flow-matching", on, out=tmp_path / "run", changes=SMALL).finish()
    model = runs.load(tmp_path / "run")
    again = runs.problem_of(model)
    assert (again.name, again.shape, again.vocab) == (on.name, on.shape, on.vocab)
    assert torch.equal(again.transition, on.transition)
    assert runs.evaluate(model, again, steps=[2], n=50)[0]["distance"] > 0
    other = TokensProblem("tokens:tiny", on.start, on.transition.flip(0), LENGTH)
    with pytest.raises(ValueError, match="of another content"):
        runs.train("discrete-flow-matching", other, out=tmp_path / "run", changes=SMALL, resume=True).finish()


def test_accumulated_parts_make_the_same_update(tmp_path):
    on = problem("tokens:markov")
    nets = [
        runs.train("discrete-flow-matching", on, changes=SMALL | {"updates": 1}, accumulate=parts).finish().denoiser
        for parts in (1, 4)
    ]
    for a, b in zip(*(net.parameters() for net in nets), strict=True):
        assert torch.allclose(a, b, atol=1e-6)


def test_a_start_gives_its_weights_and_another_path_is_refused():
    on = problem("tokens:bits")
    first = runs.train("discrete-flow-matching", on, changes=SMALL).finish()
    again = runs.train("discrete-flow-matching", on, changes=SMALL | {"lr": 1e-9, "kappa": "cosine"}, start=first)
    X = torch.tensor([[0, 2], [2, 2]])
    assert torch.allclose(again.finish().denoiser(X, 0.5), first.denoiser(X, 0.5), atol=1e-5)
    with pytest.raises(ValueError, match="the source mask and 1 latents, and it has uniform and 1"):
        runs.train("discrete-flow-matching", on, changes=SMALL | {"source": "uniform"}, start=first)


def test_tokens_and_vectors_are_told_apart():
    """Problems, methods, models and solvers of the one kind are refused with those of the other."""
    bits, ring = problem("tokens:bits"), problem("mixture")
    of_tokens = runs.train("discrete-flow-matching", bits, changes=SMALL).finish()
    of_vectors = runs.train("diffusion", ring, changes={"updates": 1, "batch": 8}).finish()
    for wrong, message in (
        (lambda: runs.train("diffusion", bits), "diffusion trains models of vectors, and tokens:bits is no problem of"),
        (lambda: runs.train("cd", "tokens:markov"), "methods that fit it: discrete-flow-matching"),
        (
            lambda: runs.train("discrete-flow-matching", ring),
            "mixture:ring is no problem of tokens; methods",
        ),
        (lambda: runs.train("discrete-flow-matching", bits, start=of_vectors), "the start is a model of vectors"),
        (lambda: runs.train("naive", ring, teacher=of_tokens), "the teacher is a model of tokens"),
        (lambda: runs.sample(of_tokens, ring, 4, 1), "the model is of tokens, and mixture:ring is not"),
        (lambda: runs.sample(of_vectors, bits, 4, 1), "the model is of vectors, and tokens:bits is not"),
        (
            lambda: runs.sample(of_tokens, problem("tokens:markov"), 4, 1),
            "2 tokens and strings of 2, and",
        ),
        (lambda: runs.sample(of_tokens, bits, 4, 1, solver="heun"), "heun is a solver of vectors"),
        (lambda: runs.sample(of_tokens, bits, 4, 1, grid="karras"), "unknown grid of tokens 'karras'"),
        (lambda: runs.sample(of_tokens, bits, 4, 1, guidance_scale=2), "this model of tokens has no classes, and so"),
        (lambda: runs.sample(of_vectors, ring, 4, 1, solver="maskgit"), "maskgit is a sampler of tokens"),
        (lambda: runs.of_vectors(of_tokens.denoiser, "pairs are"), "pairs are of a model of vectors"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()


@pytest.mark.parametrize("changes", [{"latents": 0}, {"walk": 0}, {"edge": 1.0}, {"edge": -0.1}])
def test_bad_knobs_of_a_mixture_are_named(changes):
    with pytest.raises(ValueError, match=next(iter(changes))):
        runs.train("di4c", "tokens:bits", changes=changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "maks"}, "unknown source of tokens 'maks' (did you mean 'mask'?)"),
        ({"kappa": "cosin"}, "unknown scheduler of tokens 'cosin' (did you mean 'cosine'?)"),
        ({"kappa": "power:0"}, "power:A with A from 0.01 to 100"),
        (
            {"loss": "l2"},
            "unknown loss of discrete-flow-matching 'l2' (did you mean 'kl'?); allowed: cross-entropy",
        ),
    ],
)
def test_bad_knobs_are_named(changes, message):
    with pytest.raises(ValueError, match=r"unknown|power") as found:
        runs.train("discrete-flow-matching", "tokens:bits", changes=changes)
    assert message in str(found.value)


def test_a_strangers_description_of_tokens_is_refused_in_one_line():
    D = problem("tokens:bits").posterior(TokenPath(2))
    right, tensors = weights.describe(D), D.net.state_dict()
    assert torch.equal(
        weights.build(json.loads(json.dumps(right)), tensors)(torch.tensor([[2, 0]]), 0.5),
        D(torch.tensor([[2, 0]]), 0.5).detach(),
    )
    for change, message in (
        ({"kind": "eps"}, "does not predict eps"),
        ({"net": "mlp", "config": {"dim": 2}}, "does not predict posterior"),
        ({"schedule": {"name": "linear", "source": "mask"}}, "needs vocab"),
        ({"schedule": {"name": "linear", "source": "mask", "vocab": 3}}, "the path has 3 and 4"),
        ({"schedule": {"name": "linear", "source": "uniform", "vocab": 2}}, "the path has 2 and 2"),
        ({"schedule": {"name": "linear", "source": "mask", "vocab": "2"}}, "vocab must be a whole number"),
        ({"schedule": {"name": ["x"], "source": "mask", "vocab": 2}}, "unknown scheduler"),
        ({"config": right["config"] | {"hidden": 8}}, "do not fit"),
        ({"config": {"vocab": 2}}, "cannot be made"),
    ):
        with pytest.raises(ValueError, match=message) as found:
            weights.build(right | change, tensors)
        assert "\n" not in str(found.value)
