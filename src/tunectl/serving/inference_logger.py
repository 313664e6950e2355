"""Write the server's inferences to the inference log: at admission, at their end, and feedback."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import ApiKey
from tunectl.artifacts.canary_state import VARIANTS, Variant
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.backends.storage import inference_log_sql
from tunectl.backends.text import pii_resources
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, InfrastructureError
from tunectl.evaluation.safety import refuses
from tunectl.inference_log import feedback_validation, pseudonyms
from tunectl.inference_log.log_store import InferenceLog, RequestOutcome
from tunectl.inference_log.log_writer import LogWriteError, Writer
from tunectl.inference_log.pseudonyms import identify_caller, key_holder_name, pseudonymize
from tunectl.inference_log.redact import Redactor
from tunectl.serving.request_job import ChatJob
from tunectl.serving.requests import FeedbackRequest
from tunectl.serving.response_encoding import ResponseChoice


@dataclass(slots=True)
class InferenceLogger:
    """Writes a server's requests, responses and feedback to the inference log, with pseudonyms in place of users and keys."""

    store: InferenceLog
    writer: Writer
    hash_key: bytes
    _resources: ExitStack

    def close(self) -> None:
        """Write the queued rows and close the database."""
        self.writer.close()
        self._resources.close()

    async def log_request(self, job: ChatJob, key: ApiKey, request: dict[str, Any]) -> None:
        """Log a request durably before any of its answer is sent; ``request`` are the fields of its body to be stored.

        Raises  ApiError (503) where it cannot be logged and ``inference_log.disk_full`` is refuse.
        """
        user, session = job.request.user, job.request.session
        job.key_hash = pseudonymize(key_holder_name(key.name), self.hash_key)
        inference = InferenceRecord(
            id=job.head.id,
            accepted_at=datetime.now(UTC),
            variant=job.variant,
            release=job.release.id,
            template_hash=job.release.contract.template_sha256,
            request=request,
            user_hash=pseudonymize(identify_caller(user, key.name), self.hash_key),
            session=pseudonymize(session, self.hash_key) if session else None,
            key_hash=job.key_hash,
            acts_for=key.allows("acts_for"),
        )
        try:
            await self.writer.accept(inference)
        except LogWriteError as error:
            raise _not_kept() from error

    async def log_response(
        self, job: ChatJob, response: dict[str, Any] | None, reason: str, choices: list[ResponseChoice]
    ) -> None:
        """Log the end of a request durably before the client gets its end: response, reason of the end, and answers.

        Raises  ApiError (503) where it cannot be logged and ``inference_log.disk_full`` is refuse.
        """
        finish = RequestOutcome(
            finished_at=datetime.now(UTC),
            response=response,
            prompt_tokens=job.prompt_tokens,
            completion_tokens=job.completion_tokens,
            finish_reason=reason,
            latency_seconds=time.monotonic() - job.arrived,
            mean_logprob=job.mean_logprob,
            refusal=any(refuses(choice.text) for choice in choices) if choices else None,
            format_valid=_check_json_format(job, choices),
        )
        try:
            await self.writer.finish(job.head.id, finish, job.key_hash)
        except LogWriteError as error:
            raise _not_kept() from error

    async def log_feedback(self, request: FeedbackRequest, key: ApiKey) -> tuple[bool, str, Variant]:
        """Log feedback durably; return whether it is new, its id, and the variant that gave the answer.

        Raises  ApiError: 400 for a wrong value, 404 for an unknown inference, 503 when it is not on the disk.
        """
        try:
            kind = feedback_validation.validate_feedback(request.kind, request.value)
            feedback_validation.reject_self_preference(kind, request.value, request.inference_id)
            received = datetime.now(UTC)
            at = _moment(request.at) if request.at else received
        except DataError as error:
            raise ApiError(error.message, param="value") from error
        except (ValueError, OverflowError) as error:
            raise ApiError(
                f"at: {request.at!r} is not an ISO 8601 time, for example 2026-03-01T12:00:00Z", param="at"
            ) from error
        name = request.id or _derive_feedback_id(request, key, self.hash_key)
        annotator = pseudonymize(_annotator(request, key), self.hash_key)
        feedback = Feedback(
            name,
            request.inference_id,
            kind,
            request.value,
            at,
            annotator,
            key_hash=pseudonymize(key_holder_name(key.name), self.hash_key),
            acts_for=key.allows("acts_for"),
            received_at=received,
        )
        try:
            new = await self.writer.feedback(feedback)
        except DataError as error:
            raise ApiError(error.message, "not_found_error", param="inference_id") from error
        except LogWriteError as error:
            raise _not_kept() from error
        return new, name, await self._read_variant(request.inference_id)

    async def _read_variant(self, inference_id: str) -> Variant:
        """Return the variant that answered an inference; champion where the database fails: the feedback is stored by now."""
        try:
            inference = await asyncio.to_thread(self.store.inference, inference_id)
        except InfrastructureError as error:
            logging_setup.get_logger(__name__).error("the variant of %s cannot be read: %s", inference_id, error)
            return "champion"
        return inference.variant if inference is not None and inference.variant in VARIANTS else "champion"


def _not_kept() -> ApiError:
    """Return the error for the client; the cause, which names the database, was logged by the writer."""
    return ApiError(
        "the inference log of this server cannot store the request now, so it is refused; try again",
        "unavailable_error",
        code="not_kept",
        wait=5,
    )


def _moment(text: str) -> datetime:
    """Return a time in UTC; one without a zone is taken as UTC."""
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _annotator(request: FeedbackRequest, key: ApiKey) -> str:
    return request.annotator or key_holder_name(key.name)


def _derive_feedback_id(request: FeedbackRequest, key: ApiKey, hash_key: bytes) -> str:
    """Return the id of feedback without one: equal feedback on the same inference, by the same key, counts once.

    It is a keyed hash: nobody else can compute it and send feedback under it first.
    """
    parts = [request.inference_id, request.kind, request.value, _annotator(request, key)]
    return f"fb-{hmac.new(hash_key, msgspec.json.encode(parts, order='sorted'), hashlib.sha256).hexdigest()[:32]}"


def _check_json_format(job: ChatJob, choices: list[ResponseChoice]) -> bool | None:
    if job.asks[0].schema is None:
        return None
    for choice in choices:
        try:
            json.loads(choice.text)
        except (ValueError, RecursionError):  # also for values nested deeper than a parser allows
            return False
    return bool(choices)


def open_logger(config: InferenceLogConfig, home: Path, on_error: Callable[[int], None]) -> InferenceLogger:
    """Open the inference log for writing by this server, and return its logger; ``home`` is the base of relative paths.

    ``on_error`` is called with the number of rows that could not be written.
    Raises  InfrastructureError when the database fails, another server writes to the same file, or the pseudonyms in it were made
            with another key.
    """
    hash_key = pseudonyms.load_hash_key(config, home)
    with ExitStack() as stack:
        store = stack.enter_context(inference_log_sql.open_log(pseudonyms.address(config), home, serving=True))
        pseudonyms.register_hash_key(store, config, hash_key)
        writer = Writer(
            store,
            Redactor(pii_resources.build_masker(config), hash_key, on_error),
            policy=config.disk_full,
            timeout_seconds=config.write_timeout_seconds,
            waiting=config.max_buffered_rows,
            waiting_bytes=config.max_buffered_bytes,
            on_error=on_error,
        )
        return InferenceLogger(store, writer, hash_key, stack.pop_all())
