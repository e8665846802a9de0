"""The path of tokens between a source and data (discrete flow matching, arXiv 2407.15595).

Each position by itself holds its data token with probability kappa(t), and else a token of the source:

    p_t(x^i | x_1^i) = kappa_t delta(x^i, x_1^i) + (1 - kappa_t) p_0(x^i)

The papers call data x_1, and so do these files; their time is 1 - t.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..schedules import as_time
from ..support.checks import as_generator, check_count, shape, unknown
from ..support.words import quoted
from .schedulers import Power, Scheduler, scheduler

SOURCES = ("mask", "uniform")


@dataclass(frozen=True)
class TokenPath:
    """Strings of the tokens 0 ... vocab - 1, between data at t = 0 and a source at t = 1.

    source: "mask", where every position holds one more symbol, the mask, which data never has; or "uniform", where each
    token is equally likely. scheduler: kappa. `ValueError` for another source or a vocab below 2.
    """

    vocab: int
    source: str = "mask"
    scheduler: Scheduler = Power(1.0)  # noqa: RUF009 - it is frozen

    def __post_init__(self):
        check_count(self.vocab, "vocab", 2)
        if self.source not in SOURCES:
            raise unknown("source of tokens", self.source, SOURCES)
        if not isinstance(self.scheduler, Scheduler):
            got = quoted(self.scheduler)
            raise ValueError(f"scheduler must be a Scheduler, such as toydiff.discrete.scheduler('linear'), got {got}")

    @property
    def masked(self) -> bool:
        """Whether the source is the mask."""
        return self.source == "mask"

    @property
    def size(self) -> int:
        """S, how many symbols a position may hold: vocab, and the mask where there is one."""
        return self.vocab + self.masked

    @property
    def mask(self) -> int:
        """The mask's symbol, where there is one: the one after the tokens."""
        return self.vocab

    def config(self) -> dict:
        """What `path_from_config` makes the path of again, as JSON."""
        return {"name": self.scheduler.name, "source": self.source, "vocab": self.vocab}

    def kappa(self, t: Tensor | float) -> Tensor:
        """The probability of the data token at t, of any shape."""
        return self.scheduler.kappa(as_time(t))

    def rate(self, t: Tensor | float) -> Tensor:
        """-kappa'/(1 - kappa), the rate at which a position jumps towards data. Infinite at t = 0."""
        t = as_time(t)
        return -self.scheduler.slope(t) / (1 - self.scheduler.kappa(t))

    def jump(self, t: Tensor | float, s: Tensor | float) -> Tensor:
        """(kappa_s - kappa_t)/(1 - kappa_t), the probability that a position that is still of the source at t is of
        data at s < t. It is 1 - exp(-int rate), and (t - s)/t for the linear scheduler."""
        now, then = self.kappa(t), self.kappa(s)
        return (then - now) / (1 - now)

    def middle(self, t: Tensor, s: Tensor) -> Tensor:
        """The time between t and s < t at which half of the jumps are due: 1 - kappa is the geometric mean of that of
        both."""
        rest = ((1 - self.kappa(t)) * (1 - self.kappa(s))).sqrt()
        return self.scheduler.time(1 - rest)

    def source_law(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """p_0, the law of a position at t = 1, (S,)."""
        if self.masked:
            return F.one_hot(torch.tensor(self.mask), self.size).to(dtype)
        return torch.full((self.size,), 1 / self.size, dtype=dtype)

    def noise(self, n: int, length: int, generator: torch.Generator | int | None = None) -> Tensor:
        """n strings of the source, (n, length)."""
        if self.masked:
            return torch.full((n, length), self.mask)
        return torch.randint(self.vocab, (n, length), generator=as_generator(generator))

    def mix(self, data: Tensor, noise: Tensor, uniform: Tensor, t: Tensor) -> Tensor:
        """x_t: the data's token where uniform < kappa_t, and else the noise's. data, noise, uniform (B, L), uniform in
        [0, 1); t () or (B,)."""
        kappa = self.kappa(t).to(uniform)
        return torch.where(uniform < kappa.reshape(-1, 1), data, noise)

    def likelihood(self, x: Tensor, t: Tensor | float) -> Tensor:
        """p_t(x^i | x_1^i = v) for each token v: x (B, L), t () or (B,), the result (B, L, vocab) in float64."""
        kappa = self.kappa(torch.as_tensor(t, dtype=torch.float64)).reshape(-1, 1, 1)
        same = F.one_hot(x, self.size)[..., : self.vocab].double()
        return kappa * same + (1 - kappa) * self.source_law().to(x.device)[x][..., None]

    def check(self, x: Tensor, what: str = "x") -> None:
        """`ValueError` unless x holds strings of these symbols, (B, L), in int64."""
        if not isinstance(x, Tensor) or x.dtype != torch.int64:
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{what} must be tokens, a tensor of whole numbers (B, L) in int64, got {got}")
        if x.ndim != 2 or x.shape[1] < 1:
            raise ValueError(f"{what} must be tokens of shape (B, L) with L >= 1, got {shape(x)}")
        if x.numel() and (int(x.min()) < 0 or int(x.max()) >= self.size):
            mask = f", {self.mask} being the mask" if self.masked else ""
            raise ValueError(
                f"{what} must hold symbols 0 ... {self.size - 1}{mask}, got {int(x.min())} ... {int(x.max())}"
            )


def path_from_config(config: dict) -> TokenPath:
    """The path of a `TokenPath.config`. `ValueError` for what is none."""
    try:
        return TokenPath(config["vocab"], config["source"], scheduler(config["name"]))
    except KeyError as error:
        raise ValueError(f"a path of tokens needs {error.args[0]}") from None
