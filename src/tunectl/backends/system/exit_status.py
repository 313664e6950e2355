"""Whether a process runs, and in errors how a child process ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path


def describe_exit(code: int) -> str:
    """Return ``exit code 3``, or for a negative ``code`` the name of the signal that ended the process, such as ``SIGKILL``."""
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def suggest_after_kill(code: int, less_memory: str) -> str:
    """Return the beginning of a hint for a process that the kernel killed for memory; empty for another exit ``code``.

    ``less_memory`` is what lowers its memory, such as a setting.
    """
    return f"SIGKILL mostly means that memory ran out: {less_memory}; " if code == -signal.SIGKILL else ""


def is_running(pid: int) -> bool:
    """Return whether a process runs; a zombie does not."""
    if Path("/proc/self/stat").exists():
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            return False
        # The state is the first field after the name, which is in brackets and may contain anything.
        return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
