"""What a sampler did: its path, what it predicted on the way, and what that cost."""

from dataclasses import dataclass

from torch import Tensor

from ..support.checks import check_same


@dataclass
class Trajectory:
    """What a sampler did.

    - ts (N+1,): the times, decreasing;
    - xs (N+1, B, ...): the state at each time; with keep = "end" the last state only, (1, B, ...);
    - x0s (N, B, ...): the predictions of x_0 made on the way; with keep = "end" none, (0, B, ...);
    - nfe: network calls per sample, guidance counted;
    - rounds: network calls that had to wait for one another;
    - seconds: wall-clock time.

    A parallel solver with keep = "path" also keeps its K sweeps:

    - sweeps (K+1, N+1, B, ...): the path after k sweeps, k = 0 being the first guess; points beyond the window have the
      state of its last point;
    - fronts (K+1,): the point up to which the path was accepted;
    - sweep_rounds (K+1,): the rounds spent by then.
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
        """The Euclidean distance of each sweep from a path, at each point and sample: (K+1, N+1, B).

        exact (N+1, B, ...): the path, such as the sequential one; None for the last sweep's. [:, -1] of the result is
        the error of the samples, sweep by sweep. `ValueError` if no sweeps were kept, or if the shapes differ.
        """
        if self.sweeps is None:
            raise ValueError(
                "this trajectory has no sweeps: solve with a parallel solver, such as picard, and keep='path'"
            )
        exact = self.xs if exact is None else exact
        check_same(exact, self.xs, "exact and xs")
        return (self.sweeps - exact).flatten(3).norm(dim=3)
