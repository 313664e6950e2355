"""The server's process beside its supervisor: it does not outlive that one, and its listening socket is closed for good when it stops."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import stat
import sys
from contextlib import suppress
from typing import Final

PR_SET_PDEATHSIG: Final = 1
"""Constant of ``prctl(2)``."""
MOST_FILES: Final = 1024


def die_with_parent() -> None:
    """Have the kernel send SIGTERM when the process that started this one dies; on Linux, nothing elsewhere.

    Else the worker of a killed BentoML supervisor would keep running, unnoticed, with the port and the inference log open.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def listening_sockets() -> list[socket.socket]:
    """Return duplicates of the sockets on which this process listens."""
    numbers = []
    for number in range(3, MOST_FILES):
        with suppress(OSError):
            if stat.S_ISSOCK(os.fstat(number).st_mode):
                numbers.append(number)
    result = [socket.socket(fileno=os.dup(number)) for number in numbers]
    for item in result:
        if not _listens(item):
            item.close()
    return [item for item in result if item.fileno() >= 0]


def _listens(listener: socket.socket) -> bool:
    try:
        return listener.type == socket.SOCK_STREAM and bool(
            listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        )
    except OSError:
        return False


def stop_accepting(listeners: list[socket.socket]) -> None:
    """Shut down the listening sockets, so that new connections are refused.

    Closing them is not enough: the supervisor has them open, too, and clients would wait in their queue.
    """
    for item in listeners:
        with suppress(OSError):
            item.shutdown(socket.SHUT_RDWR)
        item.close()
