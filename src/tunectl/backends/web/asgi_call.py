"""Ask an ASGI application in the same process, as a client over HTTP would: no socket, the same answers.

httpx.ASGITransport does the same, but the extra `serve` does not declare httpx: it would be one more dependency for one caller, the arena.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tunectl.access.guard_middleware import AsgiApplication, AsgiEvent


async def ask(application: AsgiApplication, method: str, path: str, key: str, body: Any = None) -> tuple[int, Any]:
    """Return status and decoded JSON of one request with a bearer key; None for a body that is no JSON."""
    content = b"" if body is None else msgspec.json.encode(body)
    headers = [
        (b"host", b"localhost"),
        (b"authorization", f"Bearer {key}".encode()),
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    scope: AsgiEvent = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": headers,
        "client": None,
        "server": None,
    }
    body_sent, status, parts = False, 500, bytearray()

    async def receive() -> AsgiEvent:
        nonlocal body_sent
        if body_sent:
            await asyncio.Event().wait()  # nobody hangs up
        body_sent = True
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(event: AsgiEvent) -> None:
        nonlocal status
        if event["type"] == "http.response.start":
            status = event["status"]
        elif event["type"] == "http.response.body":
            parts.extend(event.get("body", b""))

    await application(scope, receive, send)
    try:
        return status, msgspec.json.decode(bytes(parts))
    except msgspec.DecodeError:
        return status, None
