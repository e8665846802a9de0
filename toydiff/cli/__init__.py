"""The command `toydiff`, a file a group of subcommands."""

from .command import main, parse

__all__ = ["main", "parse"]
