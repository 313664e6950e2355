"""The arena: a signed-in person chats, sees two answers to each message, blind, and chooses. A part of the server.

It is a client of the server's own OpenAI routes, in the same process and with the person's own key: limits, keys, metrics and
the inference log treat its requests like any other. What people choose is stored in the store of ``tunectl annotate``, masked,
and as feedback into the inference log.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, get_args

from tunectl.access import sessions
from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import ApiKey
from tunectl.access.guard import ServiceGuard
from tunectl.access.guard_middleware import AsgiApplication, GuardMiddleware
from tunectl.access.sessions import SessionStore
from tunectl.access.throttle import KeyThrottle
from tunectl.annotation.annotate_app import (
    ASSETS,
    LONGEST_NAME,
    NO_NAME,
    NOT_SAVED,
    REFUSED,
    SHARED_ASSETS,
    TOO_MANY,
    read_form,
    refuse_key,
)
from tunectl.annotation.annotation_queue import Button
from tunectl.annotation.arena import BattleAnswer, Conversation, Vote, mask_pii
from tunectl.artifacts.records import Message
from tunectl.backends.reports import render
from tunectl.backends.web.asgi_call import ask
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError, TunectlError
from tunectl.core.optional import import_optional
from tunectl.preferences import annotation_store
from tunectl.privacy.mask import PiiMasker

COOKIE: Final = "tunectl_arena"
WARMTH: Final = 0.9
"""Temperature where both answers come from one model."""
WRONG_KEY = "That key is not right, or it may not chat and give feedback. Ask whoever runs this server."
OUT_OF_DATE = "This page was out of date, so nothing was saved. Here is the conversation as it is now."
NOTHING = "Please write something first."
UNANSWERED = "No answer: {reason}. {hint}"
ASK_AGAIN = "Send your message again; if that fails too, tell the operator of this server."
HALF_SAVED = "Your choice is saved, but the inference log was not told: {reason}"


@dataclass(frozen=True, slots=True)
class ArenaAppConfig:
    """Settings of the arena page: project, tags, folder of judgments, masking and keys."""

    project: str
    tags: tuple[str, ...]
    folder: Path
    """The store of judgments, as ``annotate.store`` names it."""
    masker: PiiMasker
    """Masks personal data in what is stored, as ``curate`` does."""
    find_key: Callable[[str], ApiKey | None]
    """The key behind a secret that may chat and give feedback, now: one that was revoked may not."""


@dataclass(slots=True)
class _Session:
    key: str
    talk: Conversation
    session: str


def application(server: AsgiApplication, setup: ArenaAppConfig) -> Any:
    """Return the ASGI application of the arena, which the server calls for every path that begins with ``/arena``."""
    applications = import_optional("starlette.applications", extra="annotate")
    routing = import_optional("starlette.routing", extra="annotate")
    static = import_optional("starlette.staticfiles", extra="annotate")
    page = _Routes(server, setup)
    inner = applications.Starlette(
        routes=[
            routing.Route("/arena", page.home),
            routing.Route("/arena/enter", page.enter, methods=["POST"]),
            routing.Route("/arena/leave", page.leave, methods=["POST"]),
            routing.Route("/arena/ask", page.ask, methods=["POST"]),
            routing.Route("/arena/said", page.save_choice, methods=["POST"]),
            routing.Route("/arena/new", page.start_conversation, methods=["POST"]),
            routing.Mount("/arena/assets", static.StaticFiles(directory=ASSETS, packages=SHARED_ASSETS)),
        ]
    )
    return GuardMiddleware(inner, ServiceGuard("server", refuse_key, lambda: None, "nothing"))


class _Routes:
    """Endpoints of the arena: sign in, a battle of two streamed answers, a vote."""

    def __init__(self, server: AsgiApplication, setup: ArenaAppConfig) -> None:
        self._server, self._setup = server, setup
        self._people: SessionStore[_Session] = SessionStore(lambda key: setup.find_key(key) is not None)
        self._throttle = KeyThrottle()
        self._writing = asyncio.Lock()
        self._responses = import_optional("starlette.responses", extra="annotate")

    def _who(self, request: Any) -> _Session | None:
        return self._people.find(_read_session(request))

    def _html(self, text: str, status: int = 200) -> Any:
        return self._responses.HTMLResponse(text, status)

    async def home(self, request: Any) -> Any:
        """Return the person's conversation, or the sign-in page without a session."""
        person = self._who(request)
        if person is None:
            return self._show_sign_in("")
        talk = self._talk(person)
        page = render.render(
            "arena.html",
            who=person.talk.who,
            project=self._setup.project,
            part=talk,
            leave="/arena/leave",
            assets="/arena/assets",
        )
        return self._html(page)

    def _show_sign_in(self, trouble: str, status: int = 200) -> Any:
        page = render.render("arena_sign_in.html", project=self._setup.project, trouble=trouble, assets="/arena/assets")
        return self._html(page, status)

    async def enter(self, request: Any) -> Any:
        """Sign somebody in by a key of the server; a key that does not act for others votes under its own name."""
        form = await read_form(request)
        if form is None:
            return self._reject_form()
        name = " ".join(form.get("name", [""])[0].split())
        key, address = form.get("key", [""])[0].strip(), request.client.host if request.client else ""
        try:
            self._throttle.check(address)
        except ApiError as problem:
            return self._show_sign_in(TOO_MANY, problem.status)
        holder = self._setup.find_key(key) if key.isascii() and key.isprintable() else None
        if holder is None:
            self._throttle.count(address)
            return self._show_sign_in(WRONG_KEY, 401)
        name = name if holder.allows("acts_for") else holder.name
        if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
            return self._show_sign_in(NO_NAME, 422)
        token = self._people.create(key, _Session(key, Conversation(name), secrets.token_hex(8)))
        response = self._responses.RedirectResponse("/arena", 303)
        sessions.set_cookie(response, COOKIE, token, https=sessions.is_https(request.url.scheme, request.headers))
        return response

    async def leave(self, request: Any) -> Any:
        """Sign out: forget the conversation and the key."""
        self._people.remove(_read_session(request))
        response = self._responses.RedirectResponse("/arena", 303)
        sessions.delete_cookie(response, COOKIE)
        return response

    async def start_conversation(self, request: Any) -> Any:
        """Start a new conversation."""
        person = self._who(request)
        if person is None:
            return self._redirect_to_sign_in()
        person.talk.restart()
        person.session = secrets.token_hex(8)
        return self._html(self._talk(person))

    async def ask(self, request: Any) -> Any:
        """Send the message to both systems, and return the battle."""
        form, person = await read_form(request), self._who(request)
        if form is None:
            return self._reject_form()
        if person is None:
            return self._redirect_to_sign_in()
        text = form.get("text", [""])[0]
        if person.talk.comparison is not None:
            return self._html(self._talk(person, OUT_OF_DATE))
        if not text.strip():
            return self._html(self._talk(person, NOTHING))
        messages = person.talk.build_messages(text)
        try:
            answers = await self._answers(person, messages)
        except TunectlError as error:
            return self._html(
                self._talk(person, UNANSWERED.format(reason=error.message, hint=error.hint or ASK_AGAIN), text)
            )
        person.talk.compare(messages, answers)
        return self._html(self._talk(person))

    async def _answers(self, person: _Session, messages: list[Message]) -> tuple[BattleAnswer, BattleAnswer]:
        """Return one answer each of champion and challenger; two of the champion where it stands alone.

        Raises  InfrastructureError with the server's own words where it refuses.
        """
        status, reply = await ask(self._server, "GET", "/v1/models", person.key)
        if status != 200:
            raise InfrastructureError(_reason(status, reply), hint=ASK_AGAIN)
        releases = {item.get("variant"): item.get("release") for item in reply["data"]}
        variants = ("champion", "challenger" if "challenger" in releases else "champion")
        body: dict[str, Any] = {
            "messages": [{"role": turn.role, "content": turn.content} for turn in messages],
            "user": person.talk.who,
            "metadata": {"session": person.session},
        }
        if variants[0] == variants[1]:
            body["temperature"] = WARMTH
        bodies = [{**body, "model": variant, "seed": secrets.randbelow(2**31)} for variant in variants]
        both = await asyncio.gather(
            *(ask(self._server, "POST", "/v1/chat/completions", person.key, item) for item in bodies)
        )
        first, second = (
            _answer(f"{variant} {releases.get(variant)}", status, body)
            for variant, (status, body) in zip(variants, both, strict=True)
        )
        return first, second

    async def save_choice(self, request: Any) -> Any:
        """Save a choice, then continue the conversation."""
        form, person = await read_form(request), self._who(request)
        if form is None:
            return self._reject_form()
        if person is None:
            return self._redirect_to_sign_in()
        button = form.get("choice", [""])[0]
        if button not in get_args(Button):
            return self._reject_form()
        tags = [tag for tag in form.get("tag", []) if tag in self._setup.tags]
        showing, edit = form.get("showing", [""])[0], form.get("edit", [None])[0]
        async with self._writing:  # one at a time holds the store, and a second press finds nothing to decide
            verdict = person.talk.decide(showing, cast("Button", button), tags, edit)
            if verdict is None:
                return self._html(self._talk(person, OUT_OF_DATE))
            try:
                await asyncio.to_thread(self._keep, verdict)
            except InfrastructureError as error:
                return self._html(self._talk(person, NOT_SAVED.format(reason=error.message)), 507)
            person.talk.go_on(verdict)
        return self._html(self._talk(person, await self._log_vote(person, verdict)))

    def _keep(self, verdict: Vote) -> None:
        task, annotation = mask_pii(verdict.task, verdict.annotation, self._setup.masker)
        annotation_store.append_vote(self._setup.folder, task, annotation)

    async def _log_vote(self, person: _Session, verdict: Vote) -> str:
        """Send the choice to the inference log as feedback; return a sentence for the person where that fails."""
        annotation = verdict.annotation
        if annotation.choice == "skip":
            return ""
        value: Any = {"other": verdict.second.inference_id, "choice": annotation.choice}
        rows = [
            {
                "id": f"arena-{annotation.id}",
                "inference_id": verdict.first.inference_id,
                "kind": "preference",
                "value": value,
            }
        ]
        if annotation.edit is not None:
            better = {"inference_id": verdict.goes_on_with.inference_id, "kind": "edit", "value": annotation.edit}
            rows.append({"id": f"arena-{annotation.id}-edit", **better})
        for row in rows:
            status, answer = await ask(
                self._server, "POST", "/v1/feedback", person.key, {**row, "annotator": annotation.annotator}
            )
            if status >= 400:
                logging_setup.get_logger(__name__).warning("feedback of the arena was refused with %d", status)
                return HALF_SAVED.format(reason=_reason(status, answer))
        return ""

    def _talk(self, person: _Session, trouble: str = "", text: str = "") -> str:
        comparison = person.talk.comparison
        return render.render(
            "arena_talk.html",
            turns=person.talk.turns if comparison is None else comparison.messages,
            comparison=comparison,
            texts=comparison.texts if comparison else ("", ""),
            tags=self._setup.tags,
            trouble=trouble,
            text=text,
        )

    def _redirect_to_sign_in(self) -> Any:
        """Answer a request without a session: htmx loads the sign-in page."""
        return self._responses.PlainTextResponse("sign in", 401, headers={"HX-Redirect": "/arena"})

    def _reject_form(self) -> Any:
        return self._responses.PlainTextResponse(REFUSED, 403)


def _read_session(request: Any) -> str:
    https = sessions.is_https(request.url.scheme, request.headers)
    return sessions.read_cookie(request.cookies, COOKIE, https=https)


def _answer(system: str, status: int, body: Any) -> BattleAnswer:
    if status != 200:
        raise InfrastructureError(_reason(status, body), hint=ASK_AGAIN)
    return BattleAnswer(body["choices"][0]["message"]["content"] or "", system, body["id"])


def _reason(status: int, body: Any) -> str:
    """Return the server's own words for its refusal."""
    if isinstance(body, dict) and isinstance(body.get("error"), dict):
        return str(body["error"].get("message", status))
    return f"the server answered {status}"
