"""Ask a server of this project for one answer and pass it on as it comes: the server logs, limits and counts it like any other."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from tunectl.access.api_errors import ApiError
from tunectl.console.read_context import ReadContext
from tunectl.core.errors import InfrastructureError

TIMEOUT_SECONDS: Final = 120.0
MAX_QUESTION: Final = 20_000
"""Characters."""
MAX_TOKENS: Final = 2000
VARIANTS: Final = frozenset(("champion", "challenger", "base"))


def open_answer(context: ReadContext, form: Mapping[str, str]) -> Iterator[str]:
    """The pieces of an answer, the first of them already there; the server must be one that the settings name.

    Raises  ApiError for a form that asks for what is not there, or what the server said; InfrastructureError where it does not answer.
    """
    settings = context.load_settings().console
    server, question = form.get("server", ""), form.get("question", "").strip()
    if server not in settings.servers:
        raise ApiError("console.servers does not name this server", code="server", status=422)
    if form.get("variant") not in VARIANTS or not question or len(question) > MAX_QUESTION:
        raise ApiError(f"give a variant and a question of at most {MAX_QUESTION} characters", code="form", status=422)
    body = {
        "model": form["variant"],
        "messages": [{"role": "user", "content": question}],
        "temperature": _parse_number(form.get("temperature", ""), 0.0, 2.0),
        "max_tokens": MAX_TOKENS
        if not form.get("max_tokens")
        else int(_parse_number(form["max_tokens"], 1, MAX_TOKENS) or 1),
        "user": f"console:{context.visitor}",
        "stream": True,
    }
    answer = _send(server, os.environ.get(settings.server_key_env, ""), body)
    return _read_pieces(answer)


def _parse_number(text: str, low: float, high: float) -> float | None:
    if not text:
        return None
    try:
        return min(max(float(text), low), high)
    except ValueError as error:
        raise ApiError(f"{text[:40]!r} is no number", code="form", status=422) from error


def _send(server: str, key: str, body: Mapping[str, object]) -> http.client.HTTPResponse:
    address = urlsplit(server)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    path = f"{address.path.rstrip('/')}/v1/chat/completions"
    try:
        connection.request("POST", path, msgspec.json.encode(body), headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise InfrastructureError(f"{server} does not answer: {error}", hint="start it: tunectl serve") from error
    if answer.status != 200:
        reason = _read_reason(answer)
        connection.close()
        raise ApiError(f"{server} said {answer.status}: {reason}", code="server", status=502)
    return answer


def _read_reason(answer: http.client.HTTPResponse) -> str:
    try:
        return str(msgspec.json.decode(answer.read(10_000))["error"]["message"])[:500]
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, KeyError, TypeError):
        return answer.reason


def _read_pieces(answer: http.client.HTTPResponse) -> Iterator[str]:
    try:
        for line in answer:
            data = line.strip().removeprefix(b"data:").strip()
            if not data or data == b"[DONE]" or not line.startswith(b"data:"):
                continue
            event = msgspec.json.decode(data)
            for choice in event.get("choices") or ():
                piece = (choice.get("delta") or {}).get("content")
                if piece:
                    yield piece
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        yield f"\n[the server broke off: {error}]"
    finally:
        answer.close()
