"""Leader of a process group that dies with its starter; see ``supervised_process``. Linux and standard library only.

Run as a module: ``python -m tunectl.backends.system.process_guard NICENESS PROCESSORS COMMAND...``.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

STOPPED: Final = 130
_PR_SET_PDEATHSIG = 1
_AUTOGROUP, _OOM = Path("/proc/self/autogroup"), Path("/proc/self/oom_score_adj")
_FIRST: Final = 500
"""Score of 1000 (oom_score_adj): where memory runs out, the kernel kills a retrain before a server."""


def _lower_group_priority(nice: int) -> None:
    """Give the process's session group the niceness of its processes.

    Where the kernel groups processes by session (autogroup, the default outside of containers), their niceness counts only among
    themselves, and only the group's own niceness counts against the server's session. Source: sched(7), "The autogroup feature".
    """
    for _ in range(20):
        try:
            _AUTOGROUP.write_text(str(nice), encoding="ascii")
        except BlockingIOError:  # one such change per 0.1 s is allowed on the whole machine
            time.sleep(0.1)
        except OSError:
            return
        else:
            return


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it ends, however that happens."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def supervise(nice: int, threads: int, command: Sequence[str]) -> int:
    """Run ``command`` in this process group, and return its exit code.

    The group is ended when standard input closes. ``nice``: niceness to add; ``threads``: CPUs to use, 0 for all.
    """
    with suppress(OSError):
        _OOM.write_text(str(_FIRST), encoding="ascii")
    if nice:
        _lower_group_priority(os.nice(nice))
    if threads:
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])
        os.environ["OMP_NUM_THREADS"] = str(min(threads, len(cores)))
    leader = os.getpid()

    def die_with_me() -> None:
        die_with_parent()
        if os.getppid() != leader:
            os._exit(STOPPED)

    # one thread so far, so code between fork and exec is safe
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=die_with_me)  # noqa: PLW1509

    def watch() -> None:
        while os.read(0, 4096):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # the command received the signal as well: this process ends with it
    code = child.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(supervise(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
