"""Wait until servers have loaded a release as their champion."""

from __future__ import annotations

import json
import math
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

from tunectl.core.errors import InfrastructureError, UsageError

EVERY, ANSWER = 0.5, 5.0
"""Seconds between two checks, and for one answer."""


def refuse_addresses(addresses: Sequence[str], seconds: float) -> None:
    """Raise ``UsageError`` for what is no HTTP address or no time: before anything is promoted."""
    for address in addresses:
        try:
            parts = urlsplit(address)
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:  # a port that is no number, a broken IPv6 address
            valid = False
        if not valid or not address.isprintable() or " " in address:
            raise UsageError(f"--wait {address}: is not an address", hint="for example --wait http://127.0.0.1:3000")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise UsageError(f"--seconds {seconds:g}: must be 0 or more", hint="for example --seconds 120")


def wait_until_ready(addresses: Sequence[str], release: str, seconds: float) -> float:
    """Wait until ``/readyz`` at all ``addresses`` names ``release`` as champion; return the seconds that it took.

    Raises  UsageError for what is no address; InfrastructureError after ``seconds`` with the last answer of each server that is not ready.
    """
    refuse_addresses(addresses, seconds)
    start = time.monotonic()
    while pending := {address: state for address in addresses if (state := _find_difference(address, release))}:
        if time.monotonic() - start > seconds:
            states = "; ".join(f"{address}: {state}" for address, state in pending.items())
            raise InfrastructureError(
                f"after {seconds:g} s {len(pending)} of {len(addresses)} servers do not serve {release}: {states}",
                hint="the release is champion now, and those servers keep trying to load it; to undo it: tunectl release rollback -m TEXT",
            )
        time.sleep(EVERY)
    return time.monotonic() - start


def _find_difference(address: str, release: str) -> str:
    """Return what a server reports instead; empty where it serves ``release``."""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/readyz", timeout=ANSWER) as answer:  # noqa: S310  # checked above
            reply = json.load(answer)
    except urllib.error.HTTPError as error:
        reply = _read(error)
    except (OSError, ValueError, HTTPException) as error:
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
    except (OSError, ValueError, HTTPException):
        return None
