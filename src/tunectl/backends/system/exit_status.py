"""Describe in errors how a child process ended."""

from __future__ import annotations

import signal


def describe_exit(code: int) -> str:
    """Return ``exit code 3``, or for a negative ``code`` the name of the signal that ended the process, such as ``SIGKILL``."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def suggest_after_kill(code: int, less_memory: str) -> str:
    """Return the beginning of a hint for a process that the kernel killed for memory; empty for another exit ``code``.

    ``less_memory`` is what lowers its memory, such as a setting.
    """
    return f"SIGKILL mostly means that memory ran out: {less_memory}; " if code == -signal.SIGKILL else ""
