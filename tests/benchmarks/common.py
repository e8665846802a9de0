"""What the side-by-side commands use: diffusers' schedulers on Stable Diffusion's table, and a report's header."""

import logging
import platform
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

from toydiff.support.files import write_json

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

TIMESTEPS = 1000
"""Steps of a table; time t is (timestep + 1)/TIMESTEPS."""

TABLES = {"scaled-linear": "scaled_linear", "linear-table": "linear"}
"""Our names of the schedules that diffusers has too, and its names."""

IN_Z = {"EulerDiscreteScheduler", "HeunDiscreteScheduler", "KDPM2DiscreteScheduler", "LMSDiscreteScheduler"}
"""The schedulers that walk z = x/alpha; the others walk x."""


def make(name: str, table: str = "scaled-linear", **settings: object):
    """A scheduler of diffusers by its class's name, with the betas of one of our tables."""
    import diffusers

    diffusers.logging.set_verbosity_error()
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": TABLES[table]}
    return getattr(diffusers, name)(num_train_timesteps=TIMESTEPS, **betas, **settings)


def versions() -> dict[str, str]:
    """What a report was measured with."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "threads": str(torch.get_num_threads()),
    }


def write(report: dict, path: Path | None) -> None:
    """The report as JSON, where a path is given; one line and exit code 2 where that cannot be written."""
    if path is None:
        return
    try:
        write_json(path, report)
    except ValueError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None
