"""Rows for tests of the inference log."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.inference_log.log_store import RequestOutcome

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def inference(number: int = 0, **other) -> InferenceRecord:
    values = {
        "id": f"chatcmpl-{number:06}",
        "accepted_at": START + timedelta(seconds=number),
        "variant": "champion",
        "release": "0123456789abcdef",
        "template_hash": "f" * 64,
        "request": {"model": "champion", "messages": [{"role": "user", "content": f"Frage {number} ✓ \x00"}]},
        "user_hash": f"user-{number % 3}",
        "session": f"session-{number % 2}",
    }
    return InferenceRecord(**{**values, **other})


def finish(number: int = 0, **other) -> RequestOutcome:
    message = {"role": "assistant", "content": f"Antwort {number} 🎈"}
    values = {
        "finished_at": START + timedelta(seconds=number + 1),
        "response": {"object": "chat.completion", "choices": [{"index": 0, "message": message}]},
        "prompt_tokens": 12,
        "completion_tokens": 7,
        "finish_reason": "stop",
        "latency_seconds": 1.0,
        "mean_logprob": -0.25,
        "refusal": False,
        "format_valid": None,
    }
    return RequestOutcome(**{**values, **other})


def thumb(number: int = 0, **other) -> Feedback:
    values = {
        "id": f"fb-{number}",
        "inference_id": f"chatcmpl-{number:06}",
        "kind": "thumb",
        "value": "up",
        "created_at": START + timedelta(days=1, seconds=number),
        "annotator": "user-2",
    }
    return Feedback(**{**values, **other})
