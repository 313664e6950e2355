"""Send a prompt to a server of this project and pass on the streamed answer: the server logs, limits and counts it like any other.

The response is JSON lines: ``{"text", "chance"}`` for each piece, with the mean probability of its tokens (null where the
server gives none), and at the end ``{"id", "tokens"}``, or ``{"error"}``.
"""

from __future__ import annotations

import http.client
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec

from tunectl.access.api_errors import ApiError
from tunectl.artifacts.canary_state import VARIANTS
from tunectl.console.read_context import ReadContext
from tunectl.console.screens.play import read_replay
from tunectl.core.errors import InfrastructureError

TIMEOUT_SECONDS: Final = 120.0
MAX_QUESTION: Final = 20_000
"""Most characters of a question."""
MAX_TOKENS: Final = 2000
MAX_ID: Final = 200
MAX_PLAYS: Final = 16
"""Most answers and thumbs at a time."""


class PlaySlots:
    """Limits how many requests wait for servers at a time: each has a thread, and a server that says nothing holds it for ``TIMEOUT_SECONDS``."""

    def __init__(self) -> None:
        self._free = MAX_PLAYS

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Take a slot for the time of the block.

        Raises  ApiError (503) where all are taken.
        """
        if not self._free:
            text = f"{MAX_PLAYS} questions of Play wait for an answer; ask again when one has ended"
            raise ApiError(text, "rate_limit_error", code="busy", status=503)
        self._free -= 1
        try:
            yield
        finally:
            self._free += 1


def open_answer(context: ReadContext, form: Mapping[str, str]) -> Iterator[bytes]:
    """Send the form's prompt to one of ``console.servers`` and return the JSON lines of its answer, the first of them already received.

    Raises  ApiError for an invalid form, for a replay without the scope look, or with the server's error; InfrastructureError where it does
            not answer.
    """
    question = form.get("question", "").strip()
    if form.get("variant") not in VARIANTS or not question or len(question) > MAX_QUESTION:
        raise ApiError(
            f"variant is {form.get('variant', '')[:40]!r}, and question has {len(question)} characters; variant must be champion, challenger or base, and question 1 to {MAX_QUESTION} characters",
            code="form",
            status=422,
        )
    replay = form.get("replay", "")
    if replay and "look" not in context.scopes:  # a model repeats what came before, if it is asked to
        raise ApiError(
            "a logged conversation can be asked again with the scope look only; sign in with a key that has it, or leave replay out",
            "permission_error",
            code="scope",
        )
    body = {
        "model": form["variant"],
        "messages": [*read_replay(context, replay)[0], {"role": "user", "content": question}],
        "temperature": _parse_number("temperature", form.get("temperature", ""), 0.0, 2.0),
        "max_tokens": MAX_TOKENS
        if not form.get("max_tokens")
        else int(_parse_number("max_tokens", form["max_tokens"], 1, MAX_TOKENS) or 1),
        "user": f"console:{context.visitor}",
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
    }
    return _read_lines(_send(context, form, "/v1/chat/completions", body))


def send_feedback(context: ReadContext, form: Mapping[str, str]) -> None:
    """Send a thumb up or down for an answer to the server that gave it, under the visitor's name.

    Raises  ApiError for an invalid form, or with the server's error; InfrastructureError where it does not answer.
    """
    name, value = form.get("inference", ""), form.get("value", "")
    if value not in {"up", "down"} or not 1 <= len(name) <= MAX_ID:
        raise ApiError(
            f"value is {value[:40]!r}, and inference has {len(name)} characters; value must be up or down, and inference an id of 1 to {MAX_ID} characters",
            code="form",
            status=422,
        )
    body = {"inference_id": name, "kind": "thumb", "value": value, "annotator": f"console:{context.visitor}"}
    _send(context, form, "/v1/feedback", body).close()


def _parse_number(name: str, text: str, low: float, high: float) -> float | None:
    if not text:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if math.isnan(number):
        raise ApiError(f"{name}: {text[:40]!r} is not a number; give {low:g} to {high:g}", code="form", status=422)
    return min(max(number, low), high)


def _send(
    context: ReadContext, form: Mapping[str, str], path: str, body: Mapping[str, object]
) -> http.client.HTTPResponse:
    settings, server = context.load_settings().console, form.get("server", "")
    if server not in settings.servers:
        raise ApiError(
            f"{server[:200]!r} is not in console.servers; add it there, and start the console again",
            code="server",
            status=422,
        )
    address = urlsplit(server)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    connection = kind(address.hostname or "", address.port, timeout=TIMEOUT_SECONDS)
    headers = {"Content-Type": "application/json", "Accept": "text/event-stream"}
    key = os.environ.get(settings.server_key_env, "")
    if key:
        headers["Authorization"] = f"Bearer {key}"
    try:
        connection.request("POST", address.path.rstrip("/") + path, msgspec.json.encode(body), headers)
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        raise InfrastructureError(f"{server} does not answer: {error}", hint="start it: tunectl serve") from error
    if answer.status != 200:
        reason = _read_reason(answer)
        connection.close()
        raise ApiError(f"{server} answered HTTP {answer.status}: {reason}", code="server", status=502)
    return answer


def _read_reason(answer: http.client.HTTPResponse) -> str:
    try:
        return str(msgspec.json.decode(answer.read(10_000))["error"]["message"])[:500]
    except (OSError, http.client.HTTPException, msgspec.MsgspecError, KeyError, TypeError):
        return answer.reason


def _read_lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    name, tokens = "", None
    try:
        for line in answer:
            data = line.strip().removeprefix(b"data:").strip()
            if not data or data == b"[DONE]" or not line.startswith(b"data:"):
                continue
            event = msgspec.json.decode(data)
            name, tokens = event.get("id") or name, (event.get("usage") or {}).get("completion_tokens", tokens)
            if event.get("error"):
                yield _encode_line(error=str(event["error"].get("message", ""))[:500])
            for choice in event.get("choices") or ():
                text = (choice.get("delta") or {}).get("content")
                if text:
                    yield _encode_line(text=text, chance=_compute_chance(choice.get("logprobs")))
        yield _encode_line(id=name, tokens=tokens)
    except (OSError, http.client.HTTPException, msgspec.MsgspecError) as error:
        yield _encode_line(error=f"the server broke off: {error}")
    finally:
        answer.close()


def _encode_line(**values: object) -> bytes:
    return msgspec.json.encode(values) + b"\n"


def _compute_chance(logprobs: Any) -> float | None:
    """Return the geometric mean of the probabilities of a piece's tokens."""
    tokens = (logprobs or {}).get("content") or ()
    return round(math.exp(sum(token["logprob"] for token in tokens) / len(tokens)), 4) if tokens else None
