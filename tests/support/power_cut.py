"""A power cut by count: this process ends before its n-th call that changes a file, without a word and without flushing anything.

What Python's audit hooks tell of (open for writing, rename, remove, link, mkdir, chmod, locks, processes) and the calls that they
do not tell of (write, fsync, ftruncate) are the boundaries. Run as a program it cuts one swap of a release store:

    python power_cut.py STORE promote|rollback RELEASE N
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

CUT = 137
EVENTS = frozenset(
    (
        "os.rename",
        "os.remove",
        "os.link",
        "os.mkdir",
        "os.rmdir",
        "os.truncate",
        "os.chmod",
        "fcntl.flock",
        "subprocess.Popen",
        "shutil.rmtree",
    )
)
CALLS = ("fsync", "write", "ftruncate", "pwrite")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


def install(after: int) -> None:
    """Let ``after`` calls pass, counted from now, and none more."""
    left = after

    def step() -> None:
        nonlocal left
        if left == 0:
            os._exit(CUT)
        left -= 1

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and isinstance(args[2], int) and args[2] & WRITES):
            step()

    sys.addaudithook(hook)
    for name in CALLS:
        setattr(os, name, _counted(getattr(os, name), step))


def _counted(call: Callable[..., Any], step: Callable[[], None]) -> Callable[..., Any]:
    def counted(*args: Any, **named: Any) -> Any:
        step()
        return call(*args, **named)

    return counted


def main() -> None:
    from tunectl.registry.release_store import ReleaseRegistry

    store, release = ReleaseRegistry(Path(sys.argv[1])), sys.argv[3]
    install(int(sys.argv[4]))
    if sys.argv[2] == "promote":
        store.promote(release, author="cut", message="power cut")
    else:
        store.rollback(author="cut", message="power cut")


if __name__ == "__main__":
    main()
