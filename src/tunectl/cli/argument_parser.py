"""Parser of the command line: options may stand between the positional arguments, those of a subcommand too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class MixedArgumentParser(argparse.ArgumentParser):
    """Like argparse's parser, but ``run sft --to slurm key=value`` is parsed as ``run sft key=value --to slurm`` is.

    Subcommands inherit it, because argparse creates their parsers with the class of their parent.
    """

    _mixing = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Return the parsed arguments, and those that no option takes."""
        if self._mixing or self._subparsers is not None:  # argparse mixes no words around a subcommand
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
