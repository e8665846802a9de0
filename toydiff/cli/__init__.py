"""The command `toydiff`. Each group of subcommands has a file."""

from .command import main, parse

__all__ = ["main", "parse"]
