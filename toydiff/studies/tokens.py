"""How few steps for tokens: the mismatch of two equal bits after N steps, exactly, for every sampler."""

from collections.abc import Sequence

import torch

from ..discrete import SAMPLERS, TablePosterior, TokenPath, sampler_by_name, scheduler
from ..discrete.driver import calls_of
from ..discrete.laws import propagate, source_law, strings
from ..support.checks import check_count

DEFAULT_STEPS = (1, 2, 4, 8, 16, 32, 64)


def mismatches(
    steps: Sequence[int] = DEFAULT_STEPS,
    *,
    samplers: Sequence[str] | None = None,
    source: str = "mask",
    kappa: str = "linear",
) -> list[dict]:
    """The probability that two equal bits differ after N steps, by propagating the law: no samples are drawn.

    A row has the keys sampler, source, steps, nfe, mismatch and exact_jumps. exact_jumps is 1/(2N), the mismatch of the
    exact jump rule with masks and the linear scheduler: the chance that both bits are drawn in one step, in which
    neither sees the other, times the chance 1/2 that they then differ.

    samplers: names, with settings where wanted; None is all that can start from the source. `ValueError` for an unknown
    name, source or scheduler, or a number of steps below 1.
    """
    P = TablePosterior(TokenPath(2, source, scheduler(kappa)), torch.tensor([[0, 0], [1, 1]]), torch.ones(2))
    if samplers is None:
        samplers = [name for name, entry in SAMPLERS.items() if source in entry.solver.sources]
    X = strings(P.path.size, 2)
    rows = []
    for name in samplers:
        sampler = sampler_by_name(name)
        if source not in sampler.sources:
            raise ValueError(f"{name} starts from the source {' or '.join(sampler.sources)}, not from {source}")
        for N in steps:
            ts = torch.linspace(1, 0, check_count(N, "each of the steps") + 1, dtype=torch.float64)
            law = propagate(sampler, P, source_law(P.path, 2), ts)
            rows.append(
                {
                    "sampler": name,
                    "source": source,
                    "steps": N,
                    "nfe": calls_of(sampler, P.path, ts),
                    "mismatch": float(law[X[:, 0] != X[:, 1]].sum()),
                    "exact_jumps": 1 / (2 * N),
                }
            )
    return rows
