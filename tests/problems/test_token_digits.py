"""Digits as images of tokens: grey levels, a UNet as the posterior, and guidance."""

import json

import pytest
import torch

from toydiff import runs, weights
from toydiff.denoisers import NO_CLASS
from toydiff.discrete import NetPosterior, TokenPath, solve_tokens
from toydiff.distill.discrete_flow_matching import cross_entropy_loss
from toydiff.nets import TokenUNet
from toydiff.problems import problem
from toydiff.problems.token_digits import LEVELS, images_of, tokens_of
from toydiff.training import Draws

VOCAB, SIDE, CLASSES = 3, 4, 2


def small(source="mask", seed=0):
    """A posterior of images of 4 x 4 tokens with weights that are no zeros."""
    path = TokenPath(VOCAB, source)
    net = TokenUNet(VOCAB, path.size, SIDE, (8, 32), embedding=16, classes=CLASSES, timed=source == "uniform")
    rng = torch.Generator().manual_seed(seed)
    for p in net.parameters():
        p.data = 0.3 * torch.randn(p.shape, generator=rng)
    return NetPosterior(net, path, SIDE**2).eval().requires_grad_(False)


def states(P, n=4, seed=0):
    """(x, cond) with masks and tokens."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randint(P.path.size, (n, P.length), generator=rng), torch.arange(n) % CLASSES


class Counted(torch.nn.Module):
    """A network that counts its calls, and keeps what it was conditioned on."""

    def __init__(self, net):
        super().__init__()
        self.net, self.config, self.seen = net, net.config, []

    def forward(self, x, t, cond=None):
        self.seen.append(cond)
        return self.net(x, t, cond)


def counted():
    P = small()
    P.net = Counted(P.net)
    return P


def test_pixels_get_their_nearest_grey_level():
    levels = torch.linspace(-1, 1, LEVELS)
    images = torch.linspace(-1.2, 1.21, 784).view(1, 1, 28, 28)
    tokens = tokens_of(images)
    nearest = (images.flatten(1)[..., None] - levels).abs().argmin(2)
    assert torch.equal(tokens, nearest)
    assert torch.allclose(images_of(tokens).flatten(1), levels[tokens])
    assert torch.equal(tokens_of(images_of(tokens)), tokens)


@pytest.fixture(scope="module")
def on():
    """The problem, whose digits are read once."""
    return problem("tokens:digits")


def test_data_are_the_digits_in_grey_levels(on):
    x, labels = on.data(5, 3)
    chosen = torch.randint(len(on.images.digits.train), (5,), generator=torch.Generator().manual_seed(3))
    assert torch.equal(labels, on.images.digits.train_labels[chosen])
    assert torch.allclose(images_of(x), on.images.digits.train[chosen])
    assert len(on.images.digits.train.unique()) == LEVELS
    assert (x.shape, on.shape, on.vocab, on.classes) == ((5, 784), (784,), LEVELS, 10)
    assert problem("tokens:digits,3").name == problem("tokens:digits", 3).name == "tokens:digits,3"


@pytest.mark.slow
def test_held_out_digits_measure_as_the_floor_and_swapped_labels_do_not_count(on):
    digits = on.images.digits
    held_out = tokens_of(digits.test)
    found = on.measure(held_out, digits.test_labels)
    assert found.distance == pytest.approx(found.floor, rel=0.01)
    assert found.accuracy > 0.97
    assert on.measure(held_out, (digits.test_labels + 1) % 10).accuracy < 0.02
    flat = on.measure(torch.where(held_out > 0, LEVELS - 1, 0), digits.test_labels)  # all ink is black
    assert flat.distance > 2 * found.floor


def test_a_masked_posterior_does_not_depend_on_time_and_a_uniform_one_does():
    for source in ("mask", "uniform"):
        P = small(source)
        x, cond = states(P)
        early, late = P(x, 0.9, cond=cond), P(x, 0.2, cond=cond)
        assert torch.equal(early, late) == (source == "mask")
        assert early.shape == (4, SIDE**2, P.path.size)
        assert torch.isfinite(P(x, 1.0, cond=cond)).all()
        assert torch.isfinite(P(x, 0.0, cond=cond)).all()


def test_pixels_are_read_row_by_row():
    """What a pixel holds changes its own logits, and those of its neighbours in the image."""
    net = TokenUNet(VOCAB, VOCAB + 1, 16, (8, 32), embedding=16)
    torch.nn.init.normal_(net.unet.head.weight)
    x = torch.zeros(1, 16 * 16, dtype=torch.long)
    changed = x.clone()
    changed[0, 16 * 2 + 13] = 1
    with torch.no_grad():
        moved = (net(changed, torch.ones(1)) - net(x, torch.ones(1))).abs().sum(2).view(16, 16) > 1e-6
    assert moved[2, 13]
    # blocks start as the identity, so that only the first and the last convolution and the lower level reach others
    assert not moved[10:].any()
    assert not moved[:, :6].any()


@pytest.mark.parametrize("g", [0.5, 1.5, 3.0])
def test_guidance_is_a_product_of_powers(g):
    """p_g = p(. | cond)^g p^(1 - g), normalised at each position."""
    P = small()
    x, cond = states(P)
    given, without = P(x, 0.5, cond=cond), P(x, 0.5)
    expected = torch.nan_to_num(given[..., :VOCAB] ** g * without[..., :VOCAB] ** (1 - g))
    expected = expected / expected.sum(2, keepdim=True)
    found, masked = P(x, 0.5, cond=cond, guidance_scale=g), x == P.path.mask
    assert torch.allclose(found[masked][:, :VOCAB], expected[masked], atol=1e-5)
    assert torch.equal(found[~masked], torch.eye(VOCAB + 1)[x[~masked]])  # what is revealed stays
    assert float(found[..., P.path.mask].max()) == 0


def test_guidance_of_one_costs_no_second_call():
    for g, calls in ((1.0, 1), (0.0, 1), (2.0, 2)):
        P = counted()
        x, cond = states(P)
        P(x, 0.5, cond=cond, guidance_scale=g)
        assert len(P.net.seen) == P.calls_at(g) == calls
        assert [c is None for c in P.net.seen] == {1.0: [False], 0.0: [True], 2.0: [True, False]}[g]
    P = counted()
    path = solve_tokens(P, P.path.noise(4, SIDE**2), 3, cond=cond, guidance_scale=2.0, generator=0)
    assert (path.nfe, path.rounds, len(P.net.seen)) == (6, 3, 6)
    P = counted()
    path = solve_tokens(P, P.path.noise(4, SIDE**2), 3, cond=cond, generator=0)
    assert (path.nfe, path.rounds, len(P.net.seen)) == (3, 3, 3)


@pytest.mark.parametrize("solver", ["jump-exact", "jump-corrector", "tau-midpoint", "maskgit"])
def test_the_mask_is_never_output(solver):
    P = small()
    cond = torch.arange(8) % CLASSES
    for steps in (1, 3):
        path = solve_tokens(
            P, P.path.noise(8, SIDE**2), steps, solver=solver, cond=cond, guidance_scale=4.0, generator=0
        )
        assert int(path.end.max()) < VOCAB


def test_a_label_is_dropped_as_often_as_is_said(on):
    """drop = 1: no label is ever seen, so that none of their vectors has a gradient; drop = 0: all are."""
    for drop, seen in ((1.0, False), (0.0, True)):
        run = runs.train("discrete-flow-matching", on, changes={"updates": 1, "batch": 2, "drop": drop})
        student = run.training.student
        torch.nn.init.normal_(student.net.unet.head.weight)
        torch.nn.init.normal_(student.net.unet.up[0].second.weight)
        [turn] = run.training.turns
        turn.loss(0, Draws(0)).backward()
        labels = student.net.unet.embed.label.weight.grad
        assert bool((labels[:-1] != 0).any()) == seen
        assert bool((labels[-1] != 0).any()) == (not seen)


def test_the_loss_is_that_of_the_labels_given():
    P = small()
    x, cond = states(P, 16)
    x = x % VOCAB
    without, given = (float(cross_entropy_loss(P, x, Draws(0), c)) for c in (None, cond))
    none = float(cross_entropy_loss(P, x, Draws(0), torch.full((16,), NO_CLASS)))
    assert without == pytest.approx(none, rel=1e-6)
    assert abs(without - given) > 1e-3


def test_a_run_is_trained_kept_and_sampled(on, tmp_path):
    run = runs.train("discrete-flow-matching", on, out=tmp_path / "run", changes={"updates": 2, "batch": 2})
    made = run.finish()
    again = runs.load(tmp_path / "run")
    x, cond = on.data(2, 0)
    x[:, ::2] = again.denoiser.path.mask
    assert torch.equal(
        again.denoiser(x, 0.5, cond=cond, guidance_scale=2.0), made.denoiser(x, 0.5, cond=cond, guidance_scale=2.0)
    )
    path, labels = runs.sample(again, on, 3, 2, guidance_scale=1.5)
    assert path.end.shape == (3, 784)
    assert (path.nfe, path.rounds, labels.tolist()) == (4, 2, [0, 1, 2])
    assert on.pictures(path.end).shape == (3, 1, 28, 28)
    assert runs.knobs("discrete-flow-matching", "tokens:digits") == runs.knobs("discrete-flow-matching", on)
    with pytest.raises(ValueError, match="4 tokens and strings of 784, and tokens:markov has 8"):
        runs.sample(again, problem("tokens:markov"), 2, 1)
    net = TokenUNet(LEVELS, LEVELS + 1, 28, (8, 32), embedding=16)
    other = runs.Model(NetPosterior(net, TokenPath(LEVELS), 784), made.about)
    with pytest.raises(ValueError, match="the model has 0 classes, and tokens:digits has 10"):
        runs.sample(other, on, 2, 1)


def test_bad_input_is_one_line(on):
    P = small()
    x, cond = states(P)
    right = weights.describe(P)
    for wrong, message in (
        (lambda: P(x, 0.5, guidance_scale=2.0), "guidance_scale = 2 needs a condition to guide towards"),
        (lambda: P(x, 0.5, cond=cond, guidance_scale=float("nan")), "guidance_scale must be a finite number"),
        (lambda: P(x, 0.5, cond=cond + 1), "labels are 0 ... 1, or -1 for none; got values from 1 to 2"),
        (lambda: P(x, 0.5, cond=cond[:2]), r"cond must have shape \(4,\)"),
        (lambda: problem("tokens:bits").teacher(torch.zeros(1, 2).long(), 0.5, cond=cond[:1]), "no classes, and so"),
        (lambda: problem("tokens:digits,x"), "whole number >= 0, got 'x'"),
        (lambda: problem("tokens:digit"), "did you mean 'tokens:digits'"),
        (lambda: on.measure(torch.zeros(2, 783, dtype=torch.long)), "strings of 784 tokens, got 783"),
        (lambda: on.measure(torch.full((2, 784), LEVELS)), "symbols 0 ... 3, got 4 ... 4"),
        (lambda: on.string_network(TokenPath(LEVELS), latents=2), "one product of positions and no mixture, got 2"),
        (lambda: runs.train("di4c", on), "di4c is for tokens, such as tokens:markov, and not for tokens:digits"),
        (lambda: runs.train("diffusion", on), "diffusion trains models of vectors, and tokens:digits is no problem"),
        (lambda: runs.train("discrete-flow-matching", on, changes={"drop": 2.0}), "drop"),
        (lambda: TokenUNet(2, 1, 4), "symbols must be a whole number >= 2, got 1"),
        (lambda: TokenUNet(2, 3, 0), "side must be a whole number >= 1, got 0"),
        (lambda: weights.build(right | {"kind": "eps"}, P.net.state_dict()), "does not predict eps"),
        (lambda: weights.build(right | {"config": {"vocab": 2}}, P.net.state_dict()), "cannot be made"),
    ):
        with pytest.raises(ValueError, match=message) as found:
            wrong()
        assert "\n" not in str(found.value)
    again = weights.build(json.loads(json.dumps(right)), P.net.state_dict())
    assert torch.allclose(again(x, 0.5, cond=cond), P(x, 0.5, cond=cond), atol=1e-6)
