"""The parser of the command line: options may stand between the words, those of a subcommand too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any


class MixedArgumentParser(argparse.ArgumentParser):
    """Like argparse's, and ``run sft --to slurm key=value`` is read as ``run sft key=value --to slurm`` is.

    Subcommands inherit it, because argparse makes their parsers of the class of their parent.
    """

    _mixing = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Return arguments, and words that nothing takes."""
        if self._mixing or self._subparsers is not None:  # argparse mixes no words around a subcommand
            return super().parse_known_args(args, namespace)
        self._mixing = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixing = False
