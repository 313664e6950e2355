"""Whether the servers of ``console.servers`` answer: each is asked for its ``/readyz`` at once, for a second at most."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from msgspec import Struct

TIMEOUT_SECONDS: Final = 1.0
MAX_SERVERS: Final = 8
"""Most servers that are requested at the same time."""


class ServerState(Struct, frozen=True):
    """Address of one server of ``console.servers``, and whether it is ready."""

    address: str
    state: str
    """``ready``, ``not ready`` or ``not reachable``."""


def ask_servers(addresses: Sequence[str]) -> list[ServerState]:
    """Request ``/readyz`` of each server at once; return the states in the order of ``addresses``."""
    with ThreadPoolExecutor(MAX_SERVERS) as several:
        return list(several.map(_ask_server, addresses))


def _ask_server(address: str) -> ServerState:
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/readyz", timeout=TIMEOUT_SECONDS):  # noqa: S310  the settings allow http and https
            return ServerState(address, "ready")
    except urllib.error.HTTPError:
        return ServerState(address, "not ready")
    except (OSError, ValueError):
        return ServerState(address, "not reachable")
