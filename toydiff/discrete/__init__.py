"""Discrete flow matching: states are strings of tokens, and samplers jump. See the README of this room."""

from .base import TokenSampler
from .driver import GRIDS, solve_tokens, token_grid
from .paths import SOURCES, TokenPath, path_from_config
from .posteriors import ChainPosterior, NetPosterior, Posterior, TablePosterior
from .registry import DEFAULT_SAMPLER, SAMPLERS, is_sampler, sampler_by_name
from .schedulers import Cosine, Power, Scheduler, scheduler

__all__ = [
    "DEFAULT_SAMPLER",
    "GRIDS",
    "SAMPLERS",
    "SOURCES",
    "ChainPosterior",
    "Cosine",
    "NetPosterior",
    "Posterior",
    "Power",
    "Scheduler",
    "TablePosterior",
    "TokenPath",
    "TokenSampler",
    "is_sampler",
    "path_from_config",
    "sampler_by_name",
    "scheduler",
    "solve_tokens",
    "token_grid",
]
