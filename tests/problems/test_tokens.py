"""Problems of tokens: their laws, and the measure of strings, against enumeration."""

import math

import pytest
import torch

from toydiff.discrete import TokenPath, solve_tokens
from toydiff.discrete.laws import numbers, strings
from toydiff.problems import TokensProblem, problem


def tiny(length=3, vocab=3, seed=0):
    rng = torch.Generator().manual_seed(seed)
    laws = torch.rand(vocab + 1, vocab, generator=rng, dtype=torch.float64)
    laws = laws / laws.sum(1, keepdim=True)
    return TokensProblem("tiny", laws[0], laws[1:], length)


def law_of(on):
    X = strings(on.vocab, on.shape[0])
    law = on.start[X[:, 0]]
    for i in range(1, on.shape[0]):
        law = law * on.transition[X[:, i - 1], X[:, i]]
    return X, law


def test_data_has_the_law_of_the_chain():
    on, n = tiny(), 40_000
    X, law = law_of(on)
    found = torch.bincount(numbers(on.data(n, 0)[0], 3), minlength=len(X)).double() / n
    assert bool(((found - law).abs() <= 4.5 * (law * (1 - law) / n).sqrt()).all())
    assert torch.equal(on.data(50, 1)[0], on.data(50, 1)[0])


def test_laws_of_n_grams_are_those_of_all_strings():
    """The start is not the stationary law, so that places differ."""
    on = tiny(length=5)
    X, law = law_of(on)
    for n, found in on.laws.items():
        expected = torch.zeros(3**n, dtype=torch.float64)
        for i in range(5 - n + 1):
            expected.index_add_(0, numbers(X[:, i : i + n], 3), law / (5 - n + 1))
        assert torch.allclose(found, expected, atol=1e-14)
    assert list(on.laws) == [1, 2, 3, 4]


def test_total_variation_counts_n_grams():
    on = problem("tokens:bits")
    samples = torch.tensor([[0, 0], [0, 0], [0, 1], [1, 1]])
    # pairs 00, 01, 10, 11 with 1/2, 1/4, 0, 1/4, and they should have 1/2, 0, 0, 1/2
    assert on.variations(samples) == {1: pytest.approx(abs(5 / 8 - 1 / 2)), 2: pytest.approx(1 / 4)}
    found = on.measure(samples)
    assert found.distance == pytest.approx(1 / 4)
    assert set(found.parts) == {"1-grams"}
    assert found.parts["1-grams"].value == pytest.approx(1 / 8)


def test_the_floor_is_what_as_many_true_strings_have():
    on = problem("tokens:bits")
    found = on.measure(on.data(4000, 5)[0])
    # |p - 1/2| of a coin thrown 4000 times is on average sqrt(2/pi) sqrt(1/4/4000)
    assert found.floor == pytest.approx(math.sqrt(2 / math.pi) * 0.5 / math.sqrt(4000), rel=0.6)
    assert found.distance < 6 * found.floor
    assert found.floor_std > 0


def test_the_known_problems():
    bits, markov = problem("tokens:bits"), problem("tokens:markov")
    assert (bits.shape, bits.vocab, markov.shape, markov.vocab) == ((2,), 2, (16,), 8)
    x = bits.data(500, 0)[0]
    assert bool((x[:, 0] == x[:, 1]).all())
    assert torch.allclose(markov.start @ markov.transition, markov.start, atol=1e-12)
    assert float(markov.transition.min()) > 0
    again, other = problem("tokens:markov,3"), problem("tokens:markov", 3)
    assert again.name == other.name == "tokens:markov,3"
    assert torch.equal(again.transition, other.transition)
    assert not torch.equal(again.transition, markov.transition)


def test_the_teacher_is_exact():
    """Its samples in many steps are as good as true ones, and in few they are not."""
    on = problem("tokens:markov")
    ends = [solve_tokens(on.teacher, on.teacher.path.noise(2000, 16), N, generator=0, keep="end").end for N in (2, 64)]
    few, many = (on.measure(end) for end in ends)
    assert many.distance < 1.25 * many.floor
    assert few.distance > 3 * few.floor
    assert on.exact(TokenPath(8, "uniform"))(torch.zeros(1, 16, dtype=torch.long), 0.5).shape == (1, 16, 8)


def test_bad_input_is_named():
    on = problem("tokens:bits")
    for wrong, message in (
        (
            lambda: problem("tokens"),
            "unknown problem of tokens 'tokens:' .*; allowed: tokens:bits, tokens:markov, tokens:dig",
        ),
        (lambda: problem("tokens:markow"), "did you mean 'tokens:markov'"),
        (lambda: problem("tokens:bits,3"), "tokens:bits has no seed, got 3"),
        (lambda: problem("tokens:markov,x"), "whole number >= 0, got 'x'"),
        (lambda: on.measure(torch.zeros(3, 2)), "whole numbers"),
        (lambda: on.measure(torch.tensor([[0, 2]])), "symbols 0 ... 1, got 0 ... 2"),
        (lambda: on.measure(torch.tensor([[0, 1, 1]])), "strings of 2 tokens, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong()
