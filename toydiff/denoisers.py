"""The one contract between models and everything else: a Denoiser maps (x, t, cond) to a Prediction.

Solvers and losses know nothing else of a model. Here are the wrappers; exact denoisers are in `mixtures`.
"""

import torch
from torch import Tensor, nn

from .checks import check_batch_of_times, check_number, check_range, check_state, unknown
from .nets import NO_CLASS
from .prediction import KINDS, Prediction
from .schedules import Schedule, as_time, check_schedule, expand


class Denoiser(nn.Module):
    """A model of x_0 and eps given x_t. A subclass sets `schedule` and `kind` and writes `forward(x, t, cond)`.

    Call it with x (B, ...), t () or (B,) in [0, 1], and cond (B,) labels, or whatever the model takes, or None
    (unconditional); it returns a `Prediction` at (x, t). `calls` is the number of network calls that one evaluation
    costs per sample. Shapes, dtypes and times are checked before `forward` is reached; `ValueError` names what is wrong.
    """

    calls = 1
    sees_guidance = False
    """Whether the model takes the guidance scale itself, by `at_guidance`, so that guidance costs no second call."""

    def __init__(self, schedule: Schedule, kind: str = "x0"):
        super().__init__()
        check_schedule(schedule)
        if kind not in KINDS:
            raise unknown("kind of prediction", kind, KINDS)
        self.schedule, self.kind = schedule, kind

    def __call__(self, x: Tensor, t: Tensor | float, cond: Tensor | None = None) -> Prediction:
        check_state(x)
        t = as_time(t, x)
        check_batch_of_times(t, x)
        check_range(t)
        belief = super().__call__(x, t, cond)
        if not isinstance(belief, Prediction):
            raise ValueError(
                f"{type(self).__name__}.forward must return a Prediction, such as Prediction.of(kind, y, x, t, schedule), "
                f"got {type(belief).__name__}"
            )
        return belief

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        """The belief at (x, t)."""
        raise NotImplementedError

    def at_guidance(
        self, x: Tensor, t: Tensor | float, cond: Tensor | None, guidance_scale: Tensor | float
    ) -> Prediction:
        """The belief of a model that sees the guidance scale g > 0, a number or one a sample (B,): what `Guided` asks it for."""
        raise ValueError(f"{type(self).__name__} does not see the guidance scale; wrap it as Guided(D, guidance_scale)")

    def without_and_with(self, x: Tensor, t: Tensor, cond: Tensor) -> tuple[Prediction, Prediction]:
        """The beliefs without a condition and with it: what guidance combines. A model may make them in one call of twice the size."""
        return self(x, t, None), self(x, t, cond)


def check_denoiser(D: object) -> None:
    """`D` is a `Denoiser`: a bare network or function has no schedule and no kind."""
    if not isinstance(D, Denoiser):
        raise ValueError(
            f"a Denoiser is needed, got {type(D).__name__}; wrap a network as NetDenoiser(net, schedule, kind)"
        )


class NetDenoiser(Denoiser):
    """A network behind the contract: `net(x, t)`, or `net(x, t, cond)` when a condition is given, predicts `kind`.

    The network gets t as (B,), in x's dtype and on its device, and returns (B, ...).
    """

    def __init__(self, net: nn.Module, schedule: Schedule, kind: str = "eps"):
        super().__init__(schedule, kind)
        self.net = net

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        times = t.to(x).expand(x.shape[0])
        y = self.net(x, times) if cond is None else self.net(x, times, cond)
        return Prediction.of(self.kind, y, x, t, self.schedule)


class LambdaDenoiser(NetDenoiser):
    """A network that is told the noise level instead of the time, and so serves every schedule: net(x/S, lambda, cond, guidance_scale).

    S = sqrt(alpha^2 + sigma^2), so that the network sees the same input on every schedule wherever NSR is the same. One network may
    then stand behind several of these, each with its own schedule and kind. It gets lambda (B,) in x's dtype, -inf where alpha = 0 and
    +inf where sigma = 0, cond as given, and guidance_scale (B,) or None.
    """

    def __init__(self, net: nn.Module, schedule: Schedule, kind: str = "eps"):
        super().__init__(net, schedule, kind)
        self._last_cond: tuple[Tensor, int | None, Tensor] | None = None

    @property
    def sees_guidance(self) -> bool:
        return bool(getattr(self.net, "config", {}).get("guided", False))

    def forward(
        self, x: Tensor, t: Tensor, cond: Tensor | None = None, guidance_scale: Tensor | None = None
    ) -> Prediction:
        y = self.net(*self._seen(x, t), cond, guidance_scale)
        return Prediction.of(self.kind, y, x, t, self.schedule)

    def without_and_with(self, x: Tensor, t: Tensor, cond: Tensor) -> tuple[Prediction, Prediction]:
        if not getattr(self.net, "batches_guidance", False):
            return super().without_and_with(x, t, cond)
        both = self(torch.cat([x, x]), t if t.ndim == 0 else torch.cat([t, t]), self._doubled(cond))
        return tuple(
            Prediction(x, t, x0, eps, self.schedule)
            for x0, eps in zip(both.x0.chunk(2), both.eps.chunk(2), strict=True)
        )

    def _doubled(self, cond: Tensor) -> Tensor:
        """No condition for the first half of a batch, cond for the second; the last one is kept, since a sampler asks for it at every step."""
        version = None if cond.is_inference() else cond._version
        if self._last_cond is None or self._last_cond[0] is not cond or self._last_cond[1] != version:
            self._last_cond = cond, version, torch.cat([torch.full_like(cond, NO_CLASS), cond])
        return self._last_cond[2]

    def features(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        """The network's features of x (B, ...) at t (B,), (B, net.feature_width): what a discriminator reads."""
        return self.net.features(*self._seen(x, t), cond)

    def _seen(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """What the network sees of (x, t): the scaled state, and lambda (B,)."""
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        lam = (alpha.log() - sigma.log()).to(x).expand(len(x))
        scale = torch.rsqrt(alpha**2 + sigma**2).to(x)
        return expand(scale, x) * x, lam

    def at_guidance(
        self, x: Tensor, t: Tensor | float, cond: Tensor | None, guidance_scale: Tensor | float
    ) -> Prediction:
        check_state(x)
        t = as_time(t, x)
        check_batch_of_times(t, x)
        check_range(t)
        g = torch.as_tensor(guidance_scale, dtype=x.dtype, device=x.device)
        check_batch_of_times(g, x, "guidance_scale")
        return self.forward(x, t, cond, g.expand(len(x)))


class Guided(Denoiser):
    """Classifier-free guidance (arXiv 2207.12598): eps = eps_uncond + g (eps_cond - eps_uncond), and x_0 alike.

    `guidance_scale` g: 1 is off and costs no second call; 0 is unconditional. The w of the paper and the omega of
    guided distillation are g - 1. The unconditional model is the same denoiser with cond = None. A model that sees the guidance
    scale itself (`sees_guidance`) is told it, in one call.
    """

    def __init__(self, denoiser: Denoiser, guidance_scale: float):
        check_denoiser(denoiser)
        check_number(guidance_scale, "guidance_scale")
        super().__init__(denoiser.schedule, denoiser.kind)
        self.denoiser, self.guidance_scale = denoiser, guidance_scale

    @property
    def calls(self) -> int:
        once = self.guidance_scale in (0, 1) or self.denoiser.sees_guidance
        return self.denoiser.calls * (1 if once else 2)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        g = self.guidance_scale
        if g == 1:
            return self.denoiser(x, t, cond)
        if g == 0:
            return self.denoiser(x, t, None)
        if cond is None:
            raise ValueError(f"guidance_scale = {g:g} needs a condition to guide towards, but cond is None")
        if self.denoiser.sees_guidance:
            return self.denoiser.at_guidance(x, t, cond, g)
        uncond, given = self.denoiser.without_and_with(x, t, cond)
        x0 = uncond.x0 + g * (given.x0 - uncond.x0)
        eps = uncond.eps + g * (given.eps - uncond.eps)
        return Prediction(x, t, x0, eps, uncond.schedule)


class Rescheduled(Denoiser):
    """The same model on another schedule: it is asked at the time where its own NSR equals that of the new schedule.

    With n = sigma/alpha equal on both, x' = x sigma'/sigma has the same x_0 and eps. Where the new schedule is noisier
    than the model ever saw (alpha = 0, say), the model answers at its own t = 1 for x_0, and eps follows from x.
    """

    def __init__(self, denoiser: Denoiser, schedule: Schedule):
        check_denoiser(denoiser)
        super().__init__(schedule, denoiser.kind)
        self.denoiser = denoiser

    @property
    def calls(self) -> int:
        return self.denoiser.calls

    @property
    def sees_guidance(self) -> bool:
        return self.denoiser.sees_guidance

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        belief = self.denoiser(*self._own(x, t), cond)
        return Prediction.of("x0", belief.x0, x, t, self.schedule)

    def at_guidance(
        self, x: Tensor, t: Tensor | float, cond: Tensor | None, guidance_scale: Tensor | float
    ) -> Prediction:
        t = as_time(t, x)
        belief = self.denoiser.at_guidance(*self._own(x, t), cond, guidance_scale)
        return Prediction.of("x0", belief.x0, x, t, self.schedule)

    def _own(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The state and time at which the model itself is asked."""
        own = self.denoiser.schedule
        alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
        t_own = own.t_of_lam(self.schedule.lam(t))
        # scale by signal or by noise, whichever the level is made of: the other ratio is 0/0 at its end
        a_own, s_own = own.alpha(t_own), own.sigma(t_own)
        return expand(torch.where(alpha > sigma, a_own / alpha, s_own / sigma), x) * x, t_own


class Counted(Denoiser):
    """Counts what is spent: `nfe`, network calls per sample, and `rounds`, calls that had to wait for one another."""

    def __init__(self, denoiser: Denoiser):
        check_denoiser(denoiser)
        super().__init__(denoiser.schedule, denoiser.kind)
        self.denoiser, self.nfe, self.rounds = denoiser, 0, 0

    @property
    def calls(self) -> int:
        return self.denoiser.calls

    @property
    def sees_guidance(self) -> bool:
        return self.denoiser.sees_guidance

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Prediction:
        self._count()
        return self.denoiser(x, t, cond)

    def at_guidance(
        self, x: Tensor, t: Tensor | float, cond: Tensor | None, guidance_scale: Tensor | float
    ) -> Prediction:
        self._count()
        return self.denoiser.at_guidance(x, t, cond, guidance_scale)

    def _count(self) -> None:
        self.nfe += self.denoiser.calls
        self.rounds += 1
