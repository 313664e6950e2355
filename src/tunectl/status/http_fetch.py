"""One GET request to a program that may be somebody else's: limits on time and bytes, and no redirect."""

from __future__ import annotations

import http.client
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

TIMEOUT_SECONDS: Final = 1.0
MAX_BYTES: Final = 1_000_000
"""Bytes of an answer that are read; the metrics of a server have about 20,000."""
UNREACHABLE: Final = (OSError, ValueError, http.client.HTTPException)
"""What ``fetch`` raises where there is no answer."""


def fetch(address: str, path: str, key: str = "", *, max_bytes: int = MAX_BYTES) -> tuple[int, bytes]:
    """Return status and body of a GET request; no redirect is followed, which would pass the key on.

    ``path``: behind ``address``; ``key``: sent as a bearer token. Raises  one of ``UNREACHABLE`` where no answer comes within a second.
    """
    target = urlsplit(address)
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.hostname or "", target.port, timeout=TIMEOUT_SECONDS)
    try:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request("GET", f"{target.path.rstrip('/')}{path}", headers=headers)
        answer = connection.getresponse()
        return answer.status, _read_body(answer, max_bytes)
    finally:
        connection.close()


def _read_body(answer: http.client.HTTPResponse, max_bytes: int) -> bytes:
    """Return at most ``max_bytes`` of a body; raise TimeoutError where it takes too long, however regularly a part arrives."""
    body, until = b"", monotonic() + TIMEOUT_SECONDS
    while len(body) < max_bytes and (part := answer.read1(max_bytes - len(body))):
        body += part
        if monotonic() > until:
            raise TimeoutError(f"more than {TIMEOUT_SECONDS:g} s")
    return body
