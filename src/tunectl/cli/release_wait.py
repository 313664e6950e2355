"""Wait until servers have loaded a release as their champion."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from tunectl.core.errors import InfrastructureError, UsageError

EVERY, ANSWER = 0.5, 5.0
"""Seconds between two checks, and for one answer."""


def wait_until_ready(addresses: Sequence[str], release: str, seconds: float) -> float:
    """Wait until ``/readyz`` at all ``addresses`` names ``release`` as champion; return the seconds that it took.

    Raises  UsageError for what is no address; InfrastructureError after ``seconds`` with the last answer of each server that is not ready.
    """
    for address in addresses:
        if not address.startswith(("http://", "https://")):
            raise UsageError(f"--wait {address}: is not an address", hint="for example --wait http://127.0.0.1:3000")
    start = time.monotonic()
    while pending := {address: state for address in addresses if (state := _other(address, release))}:
        if time.monotonic() - start > seconds:
            states = "; ".join(f"{address}: {state}" for address, state in pending.items())
            raise InfrastructureError(
                f"after {seconds:g} s {len(pending)} of {len(addresses)} servers do not serve {release}: {states}",
                hint="the release is champion now, and those servers keep trying to load it; to undo it: tunectl release rollback -m TEXT",
            )
        time.sleep(EVERY)
    return time.monotonic() - start


def _other(address: str, release: str) -> str:
    """Return another release or state that a server reports; empty where it serves ``release``."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/readyz", timeout=ANSWER) as answer:  # noqa: S310  # checked above
            reply = json.load(answer)
    except urllib.error.HTTPError as error:
        reply = _read(error)
    except (OSError, ValueError) as error:
        return f"does not answer ({error})"
    if not isinstance(reply, dict):
        return "is no server of ours"
    now = ((reply.get("variants") or {}).get("champion") or {}).get("release")
    if now == release:
        return ""
    trouble = (reply.get("problems") or {}).get("champion") or reply.get("reason")
    return f"serves {now or 'nothing'}" + (f" ({str(trouble).splitlines()[0]})" if trouble else "")


def _read(error: urllib.error.HTTPError) -> Any:
    try:
        return json.load(error)
    except ValueError:
        return None
