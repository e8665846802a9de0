"""What a sampler did: its path, what it predicted on the way, and what that cost."""

from dataclasses import dataclass

from torch import Tensor

from ..support.checks import check_same


@dataclass
class Trajectory:
    """What a sampler did. `ts` (N+1,) decreasing; `xs` (N+1, B, ...), the state at each; `x0s` (N, B, ...), the
    predictions of x_0 made on the way. With keep = "end" `xs` holds the last state only, (1, B, ...), and `x0s` none,
    (0, B, ...).

    `nfe`: network calls per sample, guidance counted; `rounds`: calls that had to wait for one another; `seconds`:
    wall-clock.

    A parallel solver with keep = "path" also keeps its K sweeps: `sweeps` (K+1, N+1, B, ...), where sweeps[k] is the
    path after k sweeps and sweeps[0] the one it began with; points outside a window stay where the window's last one
    is. `fronts` (K+1,): up to which point the path was accepted; `sweep_rounds` (K+1,): the rounds spent by then.
    """

    ts: Tensor
    xs: Tensor
    x0s: Tensor
    nfe: int
    rounds: int
    seconds: float
    sweeps: Tensor | None = None
    fronts: tuple[int, ...] = ()
    sweep_rounds: tuple[int, ...] = ()

    @property
    def end(self) -> Tensor:
        """The last state, (B, ...): the samples, where the grid ends at 0."""
        return self.xs[-1]

    def errors(self, exact: Tensor | None = None) -> Tensor:
        """How far each sweep was from a path `exact` (N+1, B, ...), such as the sequential one; None: from where the
        sweeps arrived.

        (K+1, N+1, B): Euclidean distance at each sweep, point and sample; [:, -1] is the error of the samples, sweep by
        sweep. `ValueError` if no sweeps were kept, or if the shapes differ.
        """
        if self.sweeps is None:
            raise ValueError(
                "this trajectory has no sweeps: solve with a parallel solver, such as picard, and keep='path'"
            )
        exact = self.xs if exact is None else exact
        check_same(exact, self.xs, "exact and xs")
        return (self.sweeps - exact).flatten(3).norm(dim=3)
