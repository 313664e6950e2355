"""Ask an ASGI application in the same process, as a client over HTTP would: no socket, the same answers."""

from __future__ import annotations

from typing import Any

import msgspec

from tunectl.access.guard_middleware import AsgiApplication
from tunectl.core.optional import import_optional


async def ask(application: AsgiApplication, method: str, path: str, key: str, body: Any = None) -> tuple[int, Any]:
    """Send one request with the bearer token ``key``; return its status and the decoded JSON, None for a body that is not JSON."""
    httpx = import_optional("httpx", extra="annotate")
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    content = None if body is None else msgspec.json.encode(body)
    # No proxy from the environment, and no time limit: the application has one.
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(application), base_url="http://localhost", timeout=None, trust_env=False
    ) as client:
        answer = await client.request(method, path, headers=headers, content=content)
    try:
        return answer.status_code, msgspec.json.decode(answer.content)
    except msgspec.DecodeError:
        return answer.status_code, None
