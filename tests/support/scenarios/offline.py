"""The whole loop without a network: a namespace in which only loopback is up (fault 18)."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from scenarios.fault_result import FaultResult

NAMESPACE = ("unshare", "--net")
LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as one:
    flags = struct.unpack("16sH", fcntl.ioctl(one, 0x8913, struct.pack("16sH14x", b"lo", 0))[:18])[1]
    fcntl.ioctl(one, 0x8914, struct.pack("16sH14x", b"lo", flags | 1))
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Brings loopback up (SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP), then becomes the command."""


def possible() -> bool:
    """Whether this machine lets us make network namespaces."""
    try:
        return subprocess.run([*NAMESPACE, sys.executable, "-c", LOOPBACK, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        return False


def offline(
    words: Sequence[str], folder: Path, environment: Mapping[str, str], what: str, *, seconds: float = 3000
) -> FaultResult:
    """Run a command there, from ``folder``; it must end well."""
    found = FaultResult(18, f"no network: {what}", "all of it works: no hub, no corpora of libraries, no telemetry")
    if not possible():
        found.require(False, "this machine makes no network namespaces, so nothing was tried")
        return found
    command = [*NAMESPACE, sys.executable, "-c", LOOPBACK, *words]
    given = {**os.environ, **environment, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=folder, env=given, capture_output=True, text=True, timeout=seconds)
    found.require(done.returncode == 0, f"it ended with {done.returncode}: {(done.stdout + done.stderr)[-800:]}")
    return found
