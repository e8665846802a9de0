"""Problems of tokens: strings of a Markov chain. Their law is known exactly, and so is the posterior on every path.

`tokens:bits` are two equal bits, the smallest strings whose positions depend on one another: after N steps of exact
jumps they differ with probability 1/(2N). `tokens:markov` are strings of 16 tokens out of 8.
"""

import functools

import torch
from torch import Tensor, nn

from ..discrete import ChainPosterior, TokenPath
from ..measure import Spread, spread
from ..nets import StringGRU
from ..schedules import Schedule
from ..support.checks import as_generator, check_count, unknown
from .base import TOKEN_IMAGES, TOKENS, Entry, Measured, Part, Sizes, TokenProblem
from .token_digits import LEVELS, TokenDigitsProblem

LENGTH, VOCAB = 16, 8
MOST_GRAM = 4
KNOWN = {
    "bits": "two equal bits",
    "markov": f"strings of {LENGTH} tokens out of {VOCAB}, a Markov chain",
    "digits": f"digits in {LEVELS} grey levels",
}


class TokensProblem(TokenProblem):
    """Strings of a Markov chain. Its teacher is its exact posterior on the path of linear masking.

    start (V,), transition (V, V): the law of the first token, and of the next one by row. Samples are measured by the
    total variation of n-grams, n = min(4, L), to their exact law: those of all places together. The shorter n-grams are
    `Measured.parts`. The floor is that of as many true strings.
    """

    sizes = Sizes(at_once=8000, watched=2000, evaluated=8000)
    compared_with = "their exact law"
    ready = False
    """Whether the name is that of a ready-made problem. If not, a run keeps the chain itself."""

    def __init__(self, name: str, start: Tensor, transition: Tensor, length: int):
        self.name, self.vocab, self.shape = name, len(start), (length,)
        self.start, self.transition = start, transition
        self.distance_name = f"total variation of {self.longest}-grams"
        self.teacher = self.exact(TokenPath(self.vocab))
        self._floors: dict[int, dict[int, Spread]] = {}

    @property
    def longest(self) -> int:
        """The n of the longest n-grams that are measured."""
        return min(MOST_GRAM, self.shape[0])

    def exact(self, path: TokenPath) -> ChainPosterior:
        """The exact posterior on a path."""
        return ChainPosterior(path, self.start, self.transition, self.shape[0])

    def definition(self) -> tuple[dict, dict[str, Tensor]] | None:
        chain = {"start": self.start, "transition": self.transition, "length": torch.tensor(self.shape[0])}
        return None if self.ready else ({"what": "tokens"}, chain)

    def data(self, n: int, generator: torch.Generator | int | None = None) -> tuple[Tensor, Tensor | None]:
        u = torch.rand(n, self.shape[0], generator=as_generator(generator), dtype=torch.float64)
        first, rows = self.start.cumsum(0)[:-1], self.transition.cumsum(1)[:, :-1]
        x = [(u[:, 0, None] >= first).sum(1)]
        for i in range(1, self.shape[0]):
            x.append((u[:, i, None] >= rows[x[-1]]).sum(1))
        return torch.stack(x, 1), None

    def string_network(self, path: TokenPath, *, latents: int = 1) -> nn.Module:
        return StringGRU(path.vocab, path.size, self.shape[0], timed=not path.masked, latents=latents)

    @functools.cached_property
    def laws(self) -> dict[int, Tensor]:
        """The exact laws of n-grams, (V^n,), by n: the mean over their places in a string."""
        law, first = self.start, []
        for _ in range(self.shape[0]):
            first.append(law)
            law = law @ self.transition
        out = {}
        for n in range(1, self.longest + 1):
            law = torch.stack(first[: self.shape[0] - n + 1]).mean(0)
            for _ in range(n - 1):
                law = (law.view(-1, self.vocab, 1) * self.transition).flatten()
            out[n] = law
        return out

    def variations(self, samples: Tensor) -> dict[int, float]:
        """The total variation of the n-grams of strings (m, L) to their exact law, by n."""
        found = {}
        for n, law in self.laws.items():
            grams = samples.unfold(1, n, 1).reshape(-1, n)
            number = (grams * self.vocab ** torch.arange(n - 1, -1, -1)).sum(1)
            seen = torch.bincount(number, minlength=len(law)).double() / len(number)
            found[n] = float((seen - law).abs().sum() / 2)
        return found

    def floors(self, n: int) -> dict[int, Spread]:
        """The same of n true strings: the mean of ten draws, with their spread."""
        if n not in self._floors:
            # seeds beyond those of anything that was trained with a small seed
            draws = [self.variations(self.data(n, 10**6 + k)[0]) for k in range(10)]
            self._floors[n] = {gram: spread([draw[gram] for draw in draws]) for gram in self.laws}
        return self._floors[n]

    def measure(self, samples: Tensor, cond: Tensor | None = None) -> Measured:
        samples = samples.cpu()
        TokenPath(self.vocab, "uniform").check(samples, "samples")
        if samples.shape[1:] != self.shape:
            raise ValueError(f"samples must hold strings of {self.shape[0]} tokens, got {samples.shape[1]}")
        found, floors = self.variations(samples), self.floors(len(samples))
        parts = {f"{n}-grams": Part(found[n], floors[n].mean, floors[n].std) for n in range(1, self.longest)}
        lowest = floors[self.longest]
        return Measured(found[self.longest], lowest.mean, lowest.std, None, parts=parts)


def tokens_again(name: str, tensors: dict[str, Tensor], schedule: Schedule | None) -> TokensProblem:
    """The problem of a definition."""
    return TokensProblem(name, tensors["start"], tensors["transition"], int(tensors["length"]))


def bits() -> TokensProblem:
    """Two equal bits, each 0 or 1 alike."""
    half, same = torch.full((2,), 0.5, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    return _ready_made(TokensProblem("tokens:bits", half, same, 2))


def markov(seed: int = 0) -> TokensProblem:
    """A chain of 8 tokens, strings of 16, in its stationary law. seed: of the chain, whose rows are drawn from a
    Dirichlet law."""
    rng = torch.Generator().manual_seed(check_count(seed, "seed", 0))
    clocks = _gamma(rng, VOCAB * VOCAB).view(VOCAB, VOCAB)
    transition = clocks / clocks.sum(1, keepdim=True)
    start = torch.full((VOCAB,), 1 / VOCAB, dtype=torch.float64) @ torch.linalg.matrix_power(transition, 2**20)
    name = f"tokens:markov,{seed}" if seed else "tokens:markov"
    return _ready_made(TokensProblem(name, start / start.sum(), transition, LENGTH))


def _ready_made(problem: TokensProblem) -> TokensProblem:
    problem.ready = True
    return problem


def _gamma(rng: torch.Generator, n: int) -> Tensor:
    """n draws of Gamma(1/2), half the square of normal numbers: the Dirichlet law of concentration 1/2 is made of
    them."""
    return torch.randn(n, generator=rng, dtype=torch.float64).square() / 2


def _open(which: str, seed: int) -> TokenProblem:
    if which not in KNOWN:
        raise unknown("problem of tokens", f"tokens:{which}", [f"tokens:{name}" for name in KNOWN])
    if which == "bits":
        if seed:
            raise ValueError(f"tokens:bits has no seed, got {seed}")
        return bits()
    return markov(seed) if which == "markov" else TokenDigitsProblem(seed)


ENTRY = Entry(
    name="tokens",
    title=f"tokens:NAME, strings with their exact posterior (bits, markov), or digits in {LEVELS} grey levels (digits)",
    scale=TOKENS,
    open=_open,
    scales={"digits": TOKEN_IMAGES},
)
