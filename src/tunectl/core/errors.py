"""Types of errors.

    TunectlError            1   our bug, or a failure of no other type
    ├── ConfigError         2   a mistake in YAML or in an override
    ├── UsageError          2   a mistake in what was typed, or in the file it names
    │   └── DataError       2   a mistake in a user's data: names file and row
    ├── GateError           3   a gate failed, for the reason given
    ├── MissingExtraError        4   an optional library is not installed: the hint is the pip line
    ├── InfrastructureError  5   disk, memory, port, lock, network or server
    │   └── ArtifactError   5   an artifact is missing, half-written, corrupted or from another config
    └── TrialPrunedError   75   no failure: a trial of a sweep fell behind and was stopped

Each carries a message (what, where, which value, what is allowed) and a hint (what to do next). The command line prints
both and exits with the code; a traceback is only ever shown for a bug.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.core.url_credentials import hide_credentials


class TunectlError(Exception):
    """The root of every error that tunectl raises on purpose.

    ``message`` names the offending value and place; ``hint`` says what to type or change next, and may be empty.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class ConfigError(TunectlError):
    """One or more mistakes in the configuration, all reported together.

    ``problems`` holds one line per mistake: dotted key, value, what is allowed, where it was set, the nearest right name.
    """

    exit_code = 2

    def __init__(self, problems: Sequence[str], *, hint: str = "") -> None:
        self.problems = tuple(map(hide_credentials, problems))  # they repeat values
        super().__init__("\n".join(self.problems), hint=hint)


class UsageError(TunectlError):
    """A command-line argument, or a file that it names, cannot be used."""

    exit_code = 2


class DataError(UsageError):
    """A user's data cannot be used as declared; the message names file and row."""


class GateError(TunectlError):
    """A gate failed; the message is the reason."""

    exit_code = 3


class MissingExtraError(TunectlError):
    """An optional library is not installed."""

    exit_code = 4


class InfrastructureError(TunectlError):
    """The machine refused: disk, memory, port, lock, network or another server."""

    exit_code = 5


class ArtifactError(InfrastructureError):
    """An artifact is missing, half-written, corrupted, or made from another configuration."""


class TrialPrunedError(TunectlError):
    """A trial of a sweep was pruned, so its stage stops; nothing of it is cached."""

    exit_code = 75
