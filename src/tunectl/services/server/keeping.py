"""What the server tells the live store: an exchange when it is let in, how it ended, and what people said."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts.records import Exchange, Feedback
from tunectl.backends import privacy_tools, sqlalchemy_store
from tunectl.config.live import Live
from tunectl.core import log
from tunectl.core.errors import DataError, EnvironmentFailure
from tunectl.evaluation.safety import refuses
from tunectl.live import identity, opinion
from tunectl.live.identity import hidden, holder
from tunectl.live.redact import Redactor
from tunectl.live.store import Finish, LiveStore
from tunectl.live.writer import NotKept, Writer
from tunectl.privacy.mask import Masker
from tunectl.services.server.job import Job
from tunectl.serving.arms import ARMS, Arm
from tunectl.serving.keys import Key
from tunectl.serving.reply import Choice
from tunectl.serving.schema import FeedbackRequest
from tunectl.serving.wire import Problem


@dataclass(slots=True)
class Keeper:
    """The way into the live store."""

    store: LiveStore
    writer: Writer
    salt: bytes
    _held: ExitStack

    def close(self) -> None:
        """Write what is in line and let go of the database."""
        self.writer.close()
        self._held.close()

    async def accepted(self, job: Job, key: Key, request: dict[str, Any]) -> None:
        """Make the exchange durable before anything of it is answered.

        Raises  Problem (503) where the policy is to refuse what cannot be kept.
        """
        user, session = job.request.user, job.request.session
        exchange = Exchange(
            id=job.head.id,
            accepted_at=datetime.now(UTC),
            arm=job.arm,
            release=job.resident.id,
            template_hash=job.resident.contract.template_sha256,
            request=request,
            user_hash=hidden(user or holder(key.name), self.salt),
            session=hidden(session, self.salt) if session else None,
        )
        try:
            await self.writer.accept(exchange)
        except NotKept as error:
            raise _not_kept() from error

    async def finished(self, job: Job, response: dict[str, Any] | None, reason: str, choices: list[Choice]) -> None:
        """Make the end of an exchange durable before its last part is sent; the policy for a full disk is the writer's.

        Raises  Problem (503) where the policy is to refuse what cannot be kept.
        """
        finish = Finish(
            finished_at=datetime.now(UTC),
            response=response,
            prompt_tokens=job.prompt_tokens,
            completion_tokens=job.completion_tokens,
            finish_reason=reason,
            latency=time.monotonic() - job.arrived,
            mean_logprob=job.mean_logprob,
            refusal=any(refuses(choice.text) for choice in choices) if choices else None,
            format_valid=_kept_form(job, choices),
        )
        try:
            await self.writer.finish(job.head.id, finish)
        except NotKept as error:
            raise _not_kept() from error

    async def said(self, given: FeedbackRequest, key: Key) -> tuple[bool, str, Arm]:
        """Keep feedback: whether it is new, its id, and the arm that it is about.

        Raises  Problem: 400 for a wrong value, 404 for an unknown exchange, 503 when it is not on the disk.
        """
        try:
            kind = opinion.check(given.kind, given.value)
            opinion.refuse_itself(kind, given.value, given.exchange_id)
            at = _moment(given.at) if given.at else datetime.now(UTC)
        except DataError as error:
            raise Problem(error.message, param="value") from error
        except (ValueError, OverflowError) as error:
            raise Problem(f"at: {given.at!r} is no ISO 8601 time", param="at") from error
        name = given.id or _derived(given, key)
        annotator = hidden(_annotator(given, key), self.salt)
        feedback = Feedback(name, given.exchange_id, kind, given.value, at, annotator)
        try:
            new = await self.writer.feedback(feedback)
        except DataError as error:
            raise Problem(error.message, "not_found_error", param="exchange_id") from error
        except NotKept as error:
            raise _not_kept() from error
        return new, name, await self._arm(given.exchange_id)

    async def _arm(self, exchange_id: str) -> Arm:
        """The arm that an exchange was answered by; the champion where the database does not say: what was said is kept by now."""
        try:
            exchange = await asyncio.to_thread(self.store.exchange, exchange_id)
        except EnvironmentFailure as error:
            log.get(__name__).error("the arm of %s cannot be read: %s", exchange_id, error)
            return "champion"
        return exchange.arm if exchange is not None and exchange.arm in ARMS else "champion"


def _not_kept() -> Problem:
    """What a client hears; the writer has logged why, in words that name the database."""
    return Problem(
        "this cannot be kept just now, so it is refused; try again", "unavailable_error", code="not_kept", wait=5
    )


def _moment(text: str) -> datetime:
    """A time in UTC; one without a zone is in UTC already."""
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)


def _annotator(given: FeedbackRequest, key: Key) -> str:
    return given.annotator or holder(key.name)


def _derived(given: FeedbackRequest, key: Key) -> str:
    """The id of feedback that brings none: the same words about the same exchange count once."""
    told = [given.exchange_id, given.kind, given.value, _annotator(given, key)]
    return f"fb-{hashlib.sha256(msgspec.json.encode(told, order='sorted')).hexdigest()[:32]}"


def _kept_form(job: Job, choices: list[Choice]) -> bool | None:
    if job.asks[0].schema is None:
        return None
    for choice in choices:
        try:
            json.loads(choice.text)
        except ValueError:
            return False
    return bool(choices)


def opened(live: Live, home: Path, on_error: Callable[[int], None]) -> Keeper:
    """Open the live store as its server; ``home`` is where relative paths begin.

    Raises  EnvironmentFailure when the database says no, another server writes to the same file, or the people in it are hidden
            under another salt.
    """
    salt = identity.salt(live, home)
    with ExitStack() as held:
        store = held.enter_context(sqlalchemy_store.opened(identity.address(live), home, serving=True))
        identity.mark(store, live, salt)
        writer = Writer(
            store,
            Redactor(masker(live), salt),
            policy=live.disk_full,
            patience=live.patience,
            waiting=live.waiting,
            waiting_bytes=live.waiting_bytes,
            on_error=on_error,
        )
        return Keeper(store, writer, salt, held.pop_all())


def masker(live: Live) -> Masker:
    """What masks personal data in everything that is kept."""
    personal = live.personal
    tools = privacy_tools.tools(regions=personal.regions, locales=personal.locales)
    return Masker(tools, kinds=personal.kinds, keep=personal.keep)
