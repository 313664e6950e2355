"""The page on which people compare answers: the wrapper of starlette and uvicorn. Its files are in this package, so it works offline.

Every click is one POST; the answer to it, the next question, is only sent when the choice is on the disk (``preferences.annotation_store``).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast, get_args
from urllib.parse import parse_qs, quote, unquote

from tunectl.access import sessions
from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import KeyStore
from tunectl.access.guard import ServiceGuard
from tunectl.access.guard_middleware import GuardMiddleware
from tunectl.access.routes import Credential
from tunectl.access.sessions import SessionStore
from tunectl.access.throttle import KeyThrottle
from tunectl.annotation.annotation_queue import AnnotationQueue, Button
from tunectl.backends.reports import render
from tunectl.backends.web import bounded_http
from tunectl.chat import tool_calls
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional

ASSETS: Final = Path(__file__).parent / "assets"
SHARED_ASSETS: Final = [("tunectl.backends.reports", "static")]
"""The style sheet of all pages."""
LONGEST_NAME = 40
LONGEST_BODY = 200_000
"""Bytes of a form; an edit is a few thousand."""
FORM_SECONDS: Final = 30.0
"""Seconds for a form to arrive."""
WHO: Final = "tunectl_annotator"
NAME_SECONDS: Final = 7 * 24 * 3600
"""How long a browser keeps the name of somebody who signed in without a key."""
TOO_MANY = "Too many wrong keys came from where you are. Try again in a minute."
WRONG_KEY = "That key is not right, or it may not annotate. Ask whoever started this page."
NO_NAME = f"Please type a name of 1 to {LONGEST_NAME} characters, so that your choices stay yours."
REFUSED = f"this form is not one of this page, or not whole within {FORM_SECONDS:g} s, or it is longer than {LONGEST_BODY} bytes"
OUT_OF_DATE = "This page was out of date, so nothing was saved. Here is the question as it is now."
NOT_SAVED = "Not saved: {reason}. Your choice does not count yet."
NOT_UNDONE = "Not taken back: {reason}. Your last choice still counts."


@dataclass(frozen=True, slots=True)
class AnnotateAppConfig:
    """Settings of the annotation page: project, tags, keys and host names."""

    project: str
    tags: tuple[str, ...]
    keys: KeyStore | None
    """Keys, of which people type one with the scope annotate; None where the page is reached from this machine only."""
    hosts: frozenset[str] | None
    """Host names that the page answers to; None for any. Others are refused, so that no web site can point its own name here."""
    pending: Callable[[], str | None]
    """A sentence while answers are still being written, else None."""


def listen(address: str, port: int) -> socket.socket:
    """Return a listening socket of the page; ``port`` 0 takes a free one.

    Raises  InfrastructureError when the port is taken, or the address is not this machine's.
    """
    host = "127.0.0.1" if address == "localhost" else address
    try:
        return bounded_http.listen(host, port)
    except OSError as error:
        raise _describe_bind_error(host, port, error) from error


def _describe_bind_error(host: str, port: int, error: OSError) -> InfrastructureError:
    if error.errno == errno.EADDRNOTAVAIL:
        return InfrastructureError(
            f"annotate.host = {host}: this machine has no such address",
            hint="use one that it has, 0.0.0.0 for all of them, or 127.0.0.1 for this machine alone",
        )
    port_in_use = error.errno == errno.EADDRINUSE
    reason = "is taken by another program" if port_in_use else f"cannot be used: {error.strerror}"
    other = max(1024, min(port + 1, 65535))  # those below belong to the system
    return InfrastructureError(
        f"annotate.port = {port}: {host}:{port} {reason}",
        hint=f"{'close that program, or ' * port_in_use}choose another port: tunectl annotate annotate.port={other}",
    )


def serve(queue: AnnotationQueue, setup: AnnotateAppConfig, listening: socket.socket) -> None:
    """Serve the annotation page on the socket until SIGINT or SIGTERM."""
    bounded_http.build_server(application(queue, setup)).run(sockets=[listening])


def application(queue: AnnotationQueue, setup: AnnotateAppConfig) -> Any:
    """Return the ASGI application of the annotation page."""
    applications = import_optional("starlette.applications", extra="annotate")
    routing = import_optional("starlette.routing", extra="annotate")
    static = import_optional("starlette.staticfiles", extra="annotate")
    page = _Routes(queue, setup)
    inner = applications.Starlette(
        routes=[
            routing.Route("/", page.home),
            routing.Route("/enter", page.enter, methods=["POST"]),
            routing.Route("/leave", page.leave, methods=["POST"]),
            routing.Route("/question", page.question),
            routing.Route("/said", page.save_choice, methods=["POST"]),
            routing.Route("/undo", page.undo, methods=["POST"]),
            routing.Mount("/assets", static.StaticFiles(directory=ASSETS, packages=SHARED_ASSETS)),
        ]
    )
    return GuardMiddleware(inner, ServiceGuard("annotate", refuse_key, lambda: setup.hosts, "nothing"))


def refuse_key(_secret: str | None, _opened_by: Credential) -> None:
    """Refuse every API key in a header, since these pages have a sign-in form of their own.

    Raises  ApiError (401).
    """
    raise ApiError("a key in a header does not open these pages; sign in at /", "authentication_error")


async def read_form(request: Any) -> Mapping[str, list[str]] | None:
    """Return the fields of a form; None for one that is too long, or not there in time."""
    client_disconnect = import_optional("starlette.requests", extra="annotate").ClientDisconnect
    body = b""
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LONGEST_BODY:
                    return None
    except (TimeoutError, client_disconnect):
        return None
    return parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True)


def _read_session(request: Any) -> str:
    https = sessions.is_https(request.url.scheme, request.headers)
    return sessions.read_cookie(request.cookies, WHO, https=https)


def _is_name(name: str) -> bool:
    return 1 <= len(name) <= LONGEST_NAME and name.isprintable()


class _Routes:
    """Endpoints of the page: sign in, the next task, a choice, undo."""

    def __init__(self, queue: AnnotationQueue, setup: AnnotateAppConfig) -> None:
        self._queue, self._setup = queue, setup
        self._responses = import_optional("starlette.responses", extra="annotate")
        self._throttle = KeyThrottle()
        keys = setup.keys
        self._people: SessionStore[str] = SessionStore(lambda key: keys is not None and keys.opens(key, "annotate"))

    def _who(self, request: Any) -> str | None:
        """Return the name of the person, if they are signed in; without keys the cookie is that name."""
        cookie = _read_session(request)
        if self._setup.keys is not None:
            return self._people.find(cookie)
        name = unquote(cookie)
        return name if _is_name(name) else None

    def _html(self, text: str, status: int = 200) -> Any:
        return self._responses.HTMLResponse(text, status)

    async def home(self, request: Any) -> Any:
        """Return the annotator's current task, or the sign-in page without a session."""
        who = self._who(request)
        if who is None:
            return self._show_sign_in("")
        return self._html(
            render.render(
                "annotate.html",
                who=who,
                project=self._setup.project,
                part=self._question(who),
                leave="/leave",
                assets="/assets",
            )
        )

    def _show_sign_in(self, trouble: str, status: int = 200) -> Any:
        page = render.render(
            "annotate_sign_in.html",
            project=self._setup.project,
            keyed=self._setup.keys is not None,
            trouble=trouble,
            assets="/assets",
        )
        return self._html(page, status)

    async def enter(self, request: Any) -> Any:
        """Sign somebody in by name, or by key where keys are asked for: then the name is that of the key."""
        form = await read_form(request)
        if form is None:
            return self._reject_form()
        address = request.client.host if request.client else ""
        try:
            self._throttle.check(address)
        except ApiError as problem:
            return self._show_sign_in(TOO_MANY, problem.status)
        name, key = " ".join(form.get("name", [""])[0].split()), form.get("key", [""])[0].strip()
        if self._setup.keys is not None:
            try:
                holder = self._setup.keys.key(key, "annotate", time.monotonic())
            except ApiError:
                self._throttle.count(address)
                return self._show_sign_in(WRONG_KEY, 401)
            name = name if holder.allows("acts_for") else holder.name
        if not _is_name(name):
            return self._show_sign_in(NO_NAME, 422)
        response, https = self._redirect_home(), sessions.is_https(request.url.scheme, request.headers)
        if self._setup.keys is None:
            sessions.set_cookie(response, WHO, quote(name, safe=""), https=https, max_age=NAME_SECONDS)
        else:
            sessions.set_cookie(response, WHO, self._people.create(key, name), https=https)
        return response

    async def leave(self, request: Any) -> Any:
        """Sign the person out."""
        self._people.remove(_read_session(request))
        response = self._redirect_home()
        sessions.delete_cookie(response, WHO)
        return response

    def _redirect_home(self) -> Any:
        return self._responses.RedirectResponse("/", 303)

    async def question(self, request: Any) -> Any:
        """Return the current task again, while answers are still being generated."""
        who = self._who(request)
        return self._redirect_to_sign_in() if who is None else self._html(self._question(who))

    async def save_choice(self, request: Any) -> Any:
        """Save a choice, then return the next task."""
        form, who = await read_form(request), self._who(request)
        if form is None:
            return self._reject_form()
        if who is None:
            return self._redirect_to_sign_in()
        button = form.get("choice", [""])[0]
        tags = [tag for tag in form.get("tag", []) if tag in self._setup.tags]
        if button not in get_args(Button):
            return self._reject_form()
        try:
            is_current = self._queue.submit(
                who, form.get("showing", [""])[0], cast("Button", button), tags, form.get("edit", [None])[0]
            )
        except InfrastructureError as error:
            return self._html(self._question(who, NOT_SAVED.format(reason=error.message)), 507)
        return self._html(self._question(who, "" if is_current else OUT_OF_DATE))

    async def undo(self, request: Any) -> Any:
        """Delete the last choice, and return its task again."""
        who = self._who(request)
        if who is None:
            return self._redirect_to_sign_in()
        try:
            self._queue.undo(who)
        except InfrastructureError as error:
            return self._html(self._question(who, NOT_UNDONE.format(reason=error.message)), 507)
        return self._html(self._question(who))

    def _question(self, who: str, trouble: str = "") -> str:
        showing = self._queue.get_current_task(who)
        return render.render(
            "annotate_question.html",
            showing=showing,
            asked=[(turn.role, tool_calls.render_tool_calls(turn)) for turn in showing.task.messages]
            if showing
            else [],
            texts=showing.texts if showing else ("", ""),
            progress=self._queue.progress(who),
            tags=self._setup.tags,
            pending=self._setup.pending(),
            trouble=trouble,
        )

    def _redirect_to_sign_in(self) -> Any:
        """Answer a request without a session: htmx loads the sign-in page."""
        return self._responses.Response(status_code=401, headers={"HX-Redirect": "/"})

    def _reject_form(self) -> Any:
        return self._responses.PlainTextResponse(REFUSED, 403)
