"""A residual MLP for points."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from ..support.checks import check_count
from .embedding import Embedding

After = Callable[[int, Tensor], Tensor]


class MLP(nn.Module):
    """net(x, lam, cond, guidance_scale) = head(h) + s(e) x on points: x (B, dim) gives (B, dim).

    e is the `Embedding` of lam (B,), cond (B,) and guidance_scale (B,). h starts as a linear map of x, and each of
    `depth` residual layers of width `hidden` adds W_2 silu(W_1 h + shift(e)) to it. s(e) is one number a sample.

    Every kind of prediction contains a multiple of x that depends on the noise level. The term s(e) x represents it
    exactly. The layers start as the identity and the output as 0. after: after(k, h) (B, hidden) takes the place of h
    (B, hidden) after residual layer k, as a temporal layer's output does (`toydiff.nets.ClipMLP`). `ValueError` for
    sizes that are no whole numbers >= 1.
    """

    def __init__(self, dim: int = 2, hidden: int = 128, depth: int = 3, classes: int = 0, guided: bool = False):
        super().__init__()
        for value, what in ((dim, "dim"), (hidden, "hidden"), (depth, "depth")):
            check_count(value, what)
        self.config = {"dim": dim, "hidden": hidden, "depth": depth, "classes": classes, "guided": guided}
        self.embed = Embedding(hidden, classes, guided)
        self.into = nn.Linear(dim, hidden)
        self.shifts = nn.Linear(hidden, depth * hidden)
        self.first = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth))
        self.second = nn.ModuleList(nn.Linear(hidden, hidden) for _ in range(depth))
        self.head = nn.Linear(hidden, dim)
        self.through = nn.Linear(hidden, 1)
        for layer in (*self.second, self.head, self.through):  # every layer starts as the identity, the whole as zero
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,
        lam: Tensor,
        cond: Tensor | None = None,
        guidance_scale: Tensor | None = None,
        after: After | None = None,
    ) -> Tensor:
        e = F.silu(self.embed(lam, cond, guidance_scale))
        return self.head(F.silu(self._body(x, e, after))) + self.through(e) * x

    @property
    def feature_width(self) -> int:
        """How many numbers `features` gives of a sample."""
        return self.config["hidden"]

    def features(self, x: Tensor, lam: Tensor, cond: Tensor | None = None, after: After | None = None) -> Tensor:
        """What the head reads, (B, feature_width)."""
        return self._body(x, F.silu(self.embed(lam, cond, None)), after)

    def _body(self, x: Tensor, e: Tensor, after: After | None) -> Tensor:
        h = self.into(x)
        shifts = self.shifts(e).chunk(len(self.first), 1)
        for k, (first, second, shift) in enumerate(zip(self.first, self.second, shifts, strict=True)):
            h = h + second(F.silu(first(h) + shift))
            h = h if after is None else after(k, h)
        return h
