"""Posteriors of tokens: the probability of each position's data token, given the string at time t.

`Posterior` is the one contract between models of tokens and everything else, as `Denoiser` is for vectors. The exact
ones are closed forms: of a finite table of strings (`TablePosterior`), and of a Markov chain (`ChainPosterior`). With
the mask as source a posterior does not depend on t: what is revealed is data, and the rest says nothing.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..schedules import as_time
from ..support.checks import check_batch_of_times, check_count, check_finite, check_number, check_range, shape
from ..support.sealed import digest
from .paths import TokenPath

LEAST = 1e-30
"""The likelihood of what cannot be: a string that no data leads to has the posterior of the nearest strings."""


class Posterior(nn.Module):
    """p(x_1^i | x_t) for each position i. A subclass writes `logits`.

    Called as P(x, t, latent, cond, guidance_scale), it returns probabilities (B, L, S), S = `path.size`:

    - x: strings (B, L) of the symbols 0 ... S - 1, L = `length`;
    - t: times () or (B,) in [0, 1];
    - latent: of a mixture, which of its `latents` K products each string has, (B,); None of any other posterior;
    - cond: labels (B,) of 0 ... `classes` - 1, or `NO_CLASS`; None for no class;
    - guidance_scale: g, a number; 1 is off and costs no second call, and 0 is unconditional.

    Guidance is that of each position: log p_g = log p + g (log p(. | cond) - log p) up to a constant, p the posterior
    without a class (arXiv 2412.10193, D-CFG). p_g is a law again, so that positions jump as often as they did.

    A mixture is p(x_1 | x_t) = 1/K sum_k prod_i p_k(x_1^i | x_t): its positions depend on one another through k, which
    a sampler draws anew in each step (arXiv 2410.08709).

    The mask's probability is 0, and with the mask as source a position that is revealed keeps its token. `ValueError`
    for strings, times or labels that do not fit.
    """

    latents = 1
    """K, how many products of positions it is a mixture of."""
    classes = 0
    """How many classes a string may be asked for; 0 for none."""

    def __init__(self, path: TokenPath, length: int):
        super().__init__()
        self.path, self.length = path, check_count(length, "length")

    def logits(self, x: Tensor, t: Tensor, latent: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        """log p(x_1^i = v | x_t) up to a constant, (B, L, vocab). t () or (B,); latent (B,) of a mixture; cond (B,) or
        None."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        t: Tensor | float,
        latent: Tensor | None = None,
        cond: Tensor | None = None,
        guidance_scale: float = 1.0,
    ) -> Tensor:
        self.path.check(x)
        if x.shape[1] != self.length:
            raise ValueError(f"x must hold strings of {self.length} tokens, got shape {shape(x)}")
        t = as_time(t).to(x.device)
        check_batch_of_times(t, x)
        check_range(t)
        if (latent is not None) != (self.latents > 1):
            raise ValueError(
                f"a posterior of {self.latents} products takes {'no' if latent is not None else 'a'} latent"
            )
        p = torch.softmax(self._guided(x, t, latent, cond, check_number(guidance_scale, "guidance_scale")), 2)
        if not self.path.masked:
            return p
        p = F.pad(p, (0, 1))
        return torch.where((x == self.path.mask)[..., None], p, F.one_hot(x, self.path.size).to(p))

    def _guided(self, x: Tensor, t: Tensor, latent: Tensor | None, cond: Tensor | None, g: float) -> Tensor:
        if not self.classes and (cond is not None or g != 1):
            given = "cond" if cond is not None else f"guidance_scale = {g:g}"
            raise ValueError(f"this model of tokens has no classes, and so neither labels nor guidance, got {given}")
        if g in (0, 1):
            return self.logits(x, t, latent, cond if g else None)
        if cond is None:
            raise ValueError(f"guidance_scale = {g:g} needs a condition to guide towards, but cond is None")
        without = self.logits(x, t, latent, None)
        return without + g * (self.logits(x, t, latent, cond) - without)

    def calls_at(self, guidance_scale: float = 1.0) -> int:
        """Network calls per sample of one evaluation at a guidance scale."""
        return 1 if guidance_scale in (0, 1) else 2

    def content(self) -> str | None:
        """What identifies the model, whatever it is called: the digest of its tensors."""
        return digest(self.state_dict())


class TablePosterior(Posterior):
    """The exact posterior of a finite table of strings.

    p(x_1 = row | x_t) = w_row prod_i p_t(x^i | row^i) / sum, and a position's is the sum over the rows with its token.
    rows (R, L); weights (R,), > 0, are scaled to sum to 1. `ValueError` for rows or weights that are none.
    """

    rows: Tensor
    weights: Tensor

    def __init__(self, path: TokenPath, rows: Tensor, weights: Tensor):
        path.check(rows, "rows")
        super().__init__(path, rows.shape[1])
        if len(rows) == 0:
            raise ValueError("a table needs at least one row")
        if int(rows.max()) >= path.vocab:
            raise ValueError(f"the rows of a table hold tokens 0 ... {path.vocab - 1}, got {int(rows.max())}")
        if weights.shape != rows.shape[:1]:
            raise ValueError(f"a table needs a weight for each of its {len(rows)} rows, got shape {shape(weights)}")
        check_finite(weights, "weights")
        if bool((weights <= 0).any()):
            raise ValueError(f"the weights of a table are > 0, got a least of {float(weights.min()):g}")
        self.register_buffer("rows", rows)
        self.register_buffer("weights", weights.double() / weights.double().sum())

    def logits(self, x: Tensor, t: Tensor, latent: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        seen = self.path.likelihood(x, t).clamp(min=LEAST).log()  # (B, L, V)
        rows = F.one_hot(self.rows, self.path.vocab).double()  # (R, L, V)
        of_rows = torch.softmax(self.weights.log() + torch.einsum("blv,rlv->br", seen, rows), 1)
        return torch.einsum("br,rlv->blv", of_rows, rows).log()


class ChainPosterior(Posterior):
    """The exact posterior of the strings of a Markov chain, by the forward and backward recursions (Rabiner 1989).

    With e_i(v) = p_t(x^i | x_1^i = v), f_i = e_i (f_{i-1} P) and b_i = P (e_{i+1} b_{i+1}), a position's posterior is
    f_i b_i / sum. start (V,): the law of the first token; transition (V, V): P, whose rows sum to 1. Nothing is made of
    the V^L strings. `ValueError` for laws that are none.
    """

    start: Tensor
    transition: Tensor

    def __init__(self, path: TokenPath, start: Tensor, transition: Tensor, length: int):
        super().__init__(path, length)
        V = path.vocab
        if start.shape != (V,) or transition.shape != (V, V):
            raise ValueError(
                f"a chain of {V} tokens needs a start ({V},) and a transition ({V}, {V}), got {shape(start)} and "
                f"{shape(transition)}"
            )
        for law, what in ((start, "start"), (transition, "transition")):
            check_finite(law, what)
            if bool((law < 0).any()) or not bool(((law.sum(-1) - 1).abs() < 1e-6).all()):
                raise ValueError(f"the {what} of a chain holds probabilities that sum to 1")
        self.register_buffer("start", start.double())
        self.register_buffer("transition", transition.double())

    def logits(self, x: Tensor, t: Tensor, latent: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        seen = self.path.likelihood(x, t).clamp(min=LEAST).log()
        P = self.transition.log()  # all in logarithms: over a long string either law falls below the least number
        forward, backward = [seen[:, 0] + self.start.log()], [torch.zeros_like(seen[:, 0])]
        for i in range(1, self.length):
            forward.append(seen[:, i] + torch.logsumexp(forward[-1][:, :, None] + P, 1))
            backward.append(torch.logsumexp((seen[:, -i] + backward[-1])[:, None] + P, 2))
        return torch.stack(forward, 1) + torch.stack(backward[::-1], 1)


class NetPosterior(Posterior):
    """A network behind the contract: net(x, t) gives the logits (B, L, vocab) of x (B, L) at t (B,).

    The `config` of the network says by `latents` whether it is a mixture, and by `classes` whether its strings have
    classes. It then also takes latent or cond, by name."""

    def __init__(self, net: nn.Module, path: TokenPath, length: int):
        super().__init__(path, length)
        sizes = [
            getattr(net, "config", {}).get(name, size) for name, size in (("vocab", path.vocab), ("symbols", path.size))
        ]
        if sizes != [path.vocab, path.size]:
            raise ValueError(
                f"the network is of {sizes[0]} tokens and {sizes[1]} symbols, and the path has {path.vocab} and "
                f"{path.size}"
            )
        self.net = net

    @property
    def latents(self) -> int:  # type: ignore[override]
        return getattr(self.net, "config", {}).get("latents", 1)

    @property
    def classes(self) -> int:  # type: ignore[override]
        return getattr(self.net, "config", {}).get("classes", 0)

    def logits(self, x: Tensor, t: Tensor, latent: Tensor | None = None, cond: Tensor | None = None) -> Tensor:
        times = t.to(next(self.net.parameters())).expand(len(x))
        given = {name: value for name, value in (("latent", latent), ("cond", cond)) if value is not None}
        return self.net(x, times, **given)
