"""The ASGI application of the console: routes made from the table of screens, each page with its JSON at ``.json``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec

from tunectl.access import sessions
from tunectl.access.api_errors import ApiError
from tunectl.access.guard_middleware import GuardMiddleware
from tunectl.access.security_headers import APP_POLICY, SANDBOX_POLICY
from tunectl.access.throttle import KeyThrottle
from tunectl.artifacts.paths import ProjectPaths
from tunectl.console import console_guard, html_pages, play_stream
from tunectl.console.act_table import ACTS, Act
from tunectl.console.acts.act_errors import ConflictError
from tunectl.console.console_guard import ConsoleGuard
from tunectl.console.console_routes import PLAY_PATHS, PLAY_SCOPE, REPORT_PATH
from tunectl.console.console_sessions import SignIn, Visitor
from tunectl.console.event_stream import ChangeWatcher, stamp_project, stream_changes
from tunectl.console.read_context import NotFoundError, ReadCache, ReadContext
from tunectl.console.recorded_project import Recording
from tunectl.console.screen_table import SCREENS, Screen, json_path
from tunectl.console.screens import drift
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError
from tunectl.core.optional import import_optional
from tunectl.serving.background_threads import run_in_thread

FORM_SECONDS: Final = 30.0
"""Longest time in seconds for a form, however slowly it arrives."""
KEEP_STATIC: Final = {"Cache-Control": "private, max-age=31536000, immutable"}
WRONG: Final = "That link or key does not open this console: a link works once, for ten minutes."
Endpoint = Callable[[Any], Awaitable[Any]]


class ConsoleApp:
    """The console's web application: builds its routes, and holds what they share (cache, sessions, watcher of changes)."""

    def __init__(
        self,
        layout: ProjectPaths,
        guard: ConsoleGuard,
        sign_in: SignIn,
        *,
        project: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        recording: Recording | None = None,
    ) -> None:
        """``project``: its name, for the frame; ``recording``: set for a recorded project."""
        self.layout, self.guard, self.sign_in, self.project, self.clock = layout, guard, sign_in, project, clock
        self.recording = recording
        self.cache = ReadCache()
        self.watcher = ChangeWatcher(self._stamp_project)
        self._throttle = KeyThrottle()
        self._plays = play_stream.PlaySlots()
        self._responses = import_optional("starlette.responses", extra="console")
        self._client_disconnect: type[Exception] = import_optional(
            "starlette.requests", extra="console"
        ).ClientDisconnect

    def _stamp_project(self) -> Any:
        try:
            settings = ReadContext(self.layout, self.clock(), cache=self.cache).load_settings()
        except TunectlError:  # Home says what is wrong with them
            settings = None
        return stamp_project(self.layout, settings)

    def build(self) -> GuardMiddleware:
        """Return the ASGI application: all routes behind the guard."""
        applications = import_optional("starlette.applications", extra="console")
        routing = import_optional("starlette.routing", extra="console")
        gzip = import_optional("starlette.middleware.gzip", extra="console")
        middleware = import_optional("starlette.middleware", extra="console")
        static = import_optional("starlette.staticfiles", extra="console")
        routes = [
            routing.Route("/healthz", self._health),
            routing.Route("/enter", self._show_sign_in),
            routing.Route("/enter", self._catch_errors(self._sign_in), methods=["POST"]),
            routing.Route("/events", self._catch_errors(self._stream)),
            routing.Route("/leave", self._catch_errors(self._sign_out), methods=["POST"]),
            routing.Mount(
                "/static",
                _KeepFiles(
                    static.StaticFiles(directory=html_pages.STATIC, packages=[("tunectl.backends.reports", "static")])
                ),
            ),
        ]
        for path, endpoint in zip(PLAY_PATHS, (self._stream_answer, self._send_feedback), strict=True):
            routes.append(routing.Route(path, self._catch_errors(endpoint), methods=["POST"]))
        routes.append(routing.Route(REPORT_PATH, self._catch_errors(self._send_report)))
        for act in ACTS:
            routes += [
                routing.Route(act.path, self._catch_errors(self._show_act(act), act.parent)),
                routing.Route(act.path, self._catch_errors(self._perform(act), act.parent), methods=["POST"]),
            ]
        for screen in SCREENS:
            routes += [
                routing.Route(json_path(screen.path), self._catch_errors(self._answer(screen, as_json=True))),
                routing.Route(
                    screen.path, self._catch_errors(self._answer(screen, as_json=False), screen.parent or screen.path)
                ),
            ]
        inner = applications.Starlette(
            routes=routes,
            middleware=[middleware.Middleware(gzip.GZipMiddleware, minimum_size=1000)],
            exception_handlers={404: self._show_absent},
        )
        return GuardMiddleware(inner, self.guard, APP_POLICY)

    def context(self, visitor: Visitor) -> ReadContext:
        """Return the context of one request: the project's files, the time, the shared cache, and the name and scopes of ``visitor``."""
        scopes = visitor.scopes if self.guard.acts else visitor.scopes & {"look"}
        return ReadContext(self.layout, self.clock(), scopes, visitor.name, self.cache, self.recording)

    def _answer(self, screen: Screen, *, as_json: bool) -> Endpoint:
        async def answer(request: Any) -> Any:
            visitor = self.guard.identify(request)
            if visitor is None:
                return self._ask_who(request, as_json=as_json)
            self.guard.require(visitor, screen.scope)
            query = {**request.query_params, **request.path_params}
            context = self.context(visitor)
            try:
                content = await asyncio.to_thread(screen.read, context, query)
            except NotFoundError:
                return await self._show_absent(request, None)
            if as_json:
                return self._responses.Response(msgspec.json.encode(content), media_type="application/json")
            return self._responses.HTMLResponse(
                await asyncio.to_thread(self.render, screen.template, context, screen, request, screen=content)
            )

        return answer

    def _show_act(self, act: Act) -> Endpoint:
        async def show(request: Any) -> Any:
            visitor = self.guard.identify(request)
            if visitor is None:
                return self._ask_who(request, as_json=False)
            self.guard.require(visitor, "look")
            context = self.context(visitor)
            try:
                content = await asyncio.to_thread(act.show, context, {**request.query_params, **request.path_params})
            except NotFoundError:
                return await self._show_absent(request, None)
            entry = Screen(act.path, act.title, act.template, act.show, parent=act.parent)
            page = await asyncio.to_thread(self.render, act.template, context, entry, request, screen=content)
            return self._responses.HTMLResponse(page)

        return show

    def _perform(self, act: Act) -> Endpoint:
        async def perform(request: Any) -> Any:
            visitor, fields = await self._admit_act(request, act.scope)
            form = {**fields, **request.path_params}
            try:
                result = await asyncio.to_thread(act.perform, self.context(visitor), form)
            except NotFoundError:
                return await self._show_absent(request, None)
            logging_setup.get_logger(__name__).info("%s: %s", visitor.name, request.url.path)
            if isinstance(result, str):
                return self._responses.RedirectResponse(result, 303)
            entry = Screen(act.path, act.title, act.template, act.show, parent=act.parent)
            page = self.render("act.html", self.context(visitor), entry, request, screen=result)
            return self._responses.HTMLResponse(page)

        return perform

    async def _send_report(self, request: Any) -> Any:
        visitor = self.guard.identify(request)
        if visitor is None:
            return self._ask_who(request, as_json=False)
        self.guard.require(visitor, "look")
        try:
            content = await asyncio.to_thread(drift.read_report, self.context(visitor), request.path_params["window"])
        except NotFoundError:
            return await self._show_absent(request, None)
        return self._responses.HTMLResponse(content, headers={"Content-Security-Policy": SANDBOX_POLICY})

    async def _stream_answer(self, request: Any) -> Any:
        visitor, form = await self._admit_act(request, PLAY_SCOPE)
        with ExitStack() as slot:
            slot.enter_context(self._plays.hold())
            lines = await run_in_thread(partial(play_stream.open_answer, self.context(visitor), form))
            # with an encoding it passes Starlette's compression, which before 1.5 kept all pieces to the end
            unpacked = {"Content-Encoding": "identity"}
            answer = self._responses.StreamingResponse(lines, media_type="application/x-ndjson", headers=unpacked)
            return _SlotResponse(answer, slot.pop_all())

    async def _send_feedback(self, request: Any) -> Any:
        visitor, form = await self._admit_act(request, PLAY_SCOPE)
        with self._plays.hold():
            await run_in_thread(partial(play_stream.send_feedback, self.context(visitor), form))
        return self._responses.Response(status_code=204)

    async def _admit_act(self, request: Any, scope: str) -> tuple[Visitor, dict[str, str]]:
        """Return the visitor who may change something, and the form of the request.

        Both are checked before the form is read, and after it: a key may be revoked while its form arrives.
        Raises  ApiError (401, 403), and as ``read_form``.
        """
        self._require_visitor(request, scope)
        form = await self.read_form(request)
        return self._require_visitor(request, scope), form

    def _require_visitor(self, request: Any, scope: str) -> Visitor:
        visitor = self.guard.identify(request)
        if visitor is None:
            raise ApiError("sign in first: open the start page of this console", "authentication_error")
        self.guard.require(visitor, scope, act=True)
        return visitor

    def render(self, template: str, context: ReadContext, entry: Screen, request: Any, **values: Any) -> str:
        """Return the HTML of a screen: its ``template`` filled with ``values``, inside the console's frame."""
        query = request.url.query
        return html_pages.render_page(
            template,
            project=self.project,
            title=entry.title,
            now=context.now,
            scopes=context.scopes,
            visitor=context.visitor,
            recording=context.recording,
            release_link=context.find_release_link,
            navigation=list_groups(),
            active=entry.parent or entry.path,
            path=request.url.path,
            query=dict(request.query_params),
            twin=json_path(request.url.path) + (f"?{query}" if query else "") if entry in SCREENS else "",
            **values,
        )

    def _ask_who(self, request: Any, *, as_json: bool) -> Any:
        if as_json:
            raise ApiError("sign in first: tunectl console prints a link when it starts", "authentication_error")
        target = console_guard.sign_in_address(request.url.path, request.url.query)
        return self._responses.RedirectResponse(target, 303)

    async def _stream(self, request: Any) -> Any:
        visitor = self.guard.identify(request)
        if visitor is None:
            raise ApiError("sign in first: open the start page of this console", "authentication_error")
        self.guard.require(visitor, "look")
        event = self.watcher.subscribe()
        if event is None:
            raise ApiError("too many pages of this console are open; close some", "rate_limit_error", status=503)
        return self._responses.StreamingResponse(
            stream_changes(self.watcher, event, lambda: self.guard.identify(request) is not None),
            media_type="text/event-stream",
            headers={"X-Accel-Buffering": "no"},
        )

    async def _health(self, _request: Any) -> Any:
        return self._responses.PlainTextResponse("ok\n")

    async def _show_sign_in(self, request: Any) -> Any:
        return self._show_form(console_guard.check_target(request.query_params.get("next", "/")), "")

    def _show_form(self, target: str, trouble: str, status: int = 200) -> Any:
        page = html_pages.render_page("enter.html", project=self.project, target=target, trouble=trouble)
        return self._responses.HTMLResponse(page, status)

    async def _sign_in(self, request: Any) -> Any:
        form = await self.read_form(request)
        target, address = (
            console_guard.check_target(form.get("next", "/")),
            request.client.host if request.client else "",
        )
        self._throttle.check(address)
        if form.get("link"):
            cookie = self.sign_in.open_by_link(form["link"].strip())
        else:
            cookie = self.sign_in.open_session(form.get("secret", "").strip().rpartition("#")[2])
        if cookie is None:
            self._throttle.count(address)
            return self._show_form(target, WRONG, 401)
        response = self._responses.RedirectResponse(target, 303)
        sessions.set_cookie(
            response,
            self.guard.cookie_name(request),
            cookie,
            https=self.guard.is_https(request),
            max_age=sessions.MAX_AGE_SECONDS,
        )
        return response

    async def _sign_out(self, request: Any) -> Any:
        name = self.guard.cookie_name(request)
        self.sign_in.close_session(sessions.read_cookie(request.cookies, name, https=self.guard.is_https(request)))
        response = self._responses.RedirectResponse("/enter", 303)
        sessions.delete_cookie(response, name)
        return response

    async def read_form(self, request: Any) -> dict[str, str]:
        """Return the fields of a POST request's form, each with its last value.

        Raises  ApiError: 413 for one that is too long, 408 for one that does not arrive in time, 400 where the browser has left.
        """
        try:
            async with asyncio.timeout(FORM_SECONDS):
                return await console_guard.read_form(request)
        except TimeoutError as error:
            raise ApiError(f"the form did not arrive within {FORM_SECONDS:g} s; send it again", status=408) from error
        except self._client_disconnect as error:
            raise ApiError("the form did not arrive whole; send it again") from error

    async def _show_absent(self, request: Any, _error: Any) -> Any:
        visitor = self.guard.identify(request)
        if visitor is None or request.url.path.endswith(".json"):
            return self._responses.PlainTextResponse("there is nothing here\n", 404 if visitor else 401)
        entry = Screen(request.url.path, "Not found", "absent.html", lambda _context, _query: None)
        return self._responses.HTMLResponse(self.render("absent.html", self.context(visitor), entry, request), 404)

    def _catch_errors(self, endpoint: Endpoint, parent: str = "/") -> Endpoint:
        """Turn an error of ``endpoint`` into a page that explains it. ``parent``: path of the screen to which that page leads back."""

        async def answer(request: Any) -> Any:
            try:
                return await endpoint(request)
            except ApiError as problem:
                return self._refuse(request, str(problem), problem.status, parent)
            except TunectlError as problem:
                status = 409 if isinstance(problem, ConflictError) else 422
                return self._refuse(request, str(problem), status, parent)
            except Exception:  # noqa: BLE001  a bug in one screen keeps no other from being shown
                logging_setup.get_logger(__name__).exception("%s failed", request.url.path)
                return self._refuse(request, "This failed; the log of the console says why.", 500, parent)

        return answer

    def _refuse(self, request: Any, text: str, status: int, parent: str) -> Any:
        visitor = self.guard.identify(request)
        if visitor is None or request.url.path.endswith(".json") or request.url.path in PLAY_PATHS:
            return self._responses.PlainTextResponse(f"{text}\n", status)
        path = request.url.path
        is_form = request.method == "POST" and status == 422  # its fields can be corrected
        back = path if is_form else parent if parent != path or request.url.query else "/"
        entry = Screen(path, "This did not work", "refusal.html", lambda _context, _query: None, parent=parent)
        page = self.render("refusal.html", self.context(visitor), entry, request, text=text, status=status, back=back)
        return self._responses.HTMLResponse(page, status)


class _KeepFiles:
    """Static files with a digest in their address: a browser may cache them."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_kept(event: Any) -> None:
            if event["type"] == "http.response.start" and event["status"] in {200, 304}:
                more = [(name.lower().encode(), value.encode()) for name, value in KEEP_STATIC.items()]
                event = {**event, "headers": [*event.get("headers", []), *more]}
            await send(event)

        await self._inner(scope, receive, send_kept)


class _SlotResponse:
    """A response that gives its slot back once it was sent, or the browser has left."""

    def __init__(self, inner: Any, slot: ExitStack) -> None:
        self._inner, self._slot = inner, slot

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        with self._slot:
            await self._inner(scope, receive, send)


def list_groups() -> list[tuple[str, list[Screen]]]:
    """Return the navigation as (group, its screens), in the order of the table."""
    groups: dict[str, list[Screen]] = {}
    for screen in SCREENS:
        if screen.group:
            groups.setdefault(screen.group, []).append(screen)
    return list(groups.items())
