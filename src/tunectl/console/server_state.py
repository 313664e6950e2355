"""State of the servers of ``console.servers``, and the releases that they serve: each is asked for its ``/readyz`` at once, for a second at most."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
from msgspec import Struct, field

from tunectl.artifacts.records import truncate
from tunectl.status.http_fetch import UNREACHABLE, fetch
from tunectl.status.service_metrics import MAX_SERVERS


class ServerState(Struct, frozen=True):
    """Address of one server of ``console.servers``, whether it is ready, and which releases it serves."""

    address: str
    state: str
    """``ready``, ``not ready`` or ``not reachable``."""
    releases: dict[str, str] = field(default_factory=dict)
    """Release that each variant serves; empty where the server does not say."""
    current: bool | None = None
    """Whether its champion is that of the registry; None where it does not say, or nothing is the champion."""
    proof: float | None = None
    """Share of probe tokens that its champion answers as the training side did; None where it was not proved."""
    problem: str = ""
    """Why it does not have the release that it should have, as it says itself."""


class _Variant(Struct):
    release: str
    agreement: float | None = None


class _Readiness(Struct):
    """The part of ``/readyz`` that is shown; other programs answer other things there."""

    variants: dict[str, _Variant] = {}
    problems: dict[str, str] = {}
    reason: str = ""


def ask_servers(addresses: Sequence[str], champion: str | None) -> list[ServerState]:
    """Request ``/readyz`` of each server at once; return the states in the order of ``addresses``.

    ``champion``: release that the servers should serve; None where there is none.
    """
    with ThreadPoolExecutor(MAX_SERVERS) as several:
        return list(several.map(partial(_ask_server, champion=champion), addresses))


def _ask_server(address: str, champion: str | None) -> ServerState:
    try:
        status, body = fetch(address, "/readyz")
    except UNREACHABLE:
        return ServerState(address, "not reachable")
    try:
        readiness = msgspec.json.decode(body, type=_Readiness)
    except msgspec.MsgspecError:
        readiness = _Readiness()
    served = readiness.variants.get("champion")
    says = champion is not None and (served is not None or bool(readiness.reason))
    return ServerState(
        address,
        "ready" if status == 200 else "not ready",
        {variant: one.release for variant, one in readiness.variants.items()},
        (served is not None and served.release == champion) if says else None,
        served.agreement if served is not None else None,
        truncate(readiness.problems.get("champion") or readiness.reason),
    )
