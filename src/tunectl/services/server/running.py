"""The life of the server in its process: settings, start, signals, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from tunectl.backends import arena_page, engines, release_place
from tunectl.backends.prometheus_metrics import ServingMetrics
from tunectl.config.serve import ServeSettings
from tunectl.core import log
from tunectl.core.errors import TunectlError
from tunectl.services.server import keeping, process
from tunectl.services.server.app import Server
from tunectl.services.server.residents import Residents
from tunectl.services.server.settings import home, settings
from tunectl.services.server.web import Receive, Scope, Send
from tunectl.serving.admission import Admission, Bounds
from tunectl.serving.keys import Ring

STORE, KEYS, SEED = "TUNECTL_STORE", "TUNECTL_KEYS", "TUNECTL_SEED"
JUDGEMENTS = "TUNECTL_JUDGEMENTS"
LOOK = 1.0
"""Seconds between looks at the file of keys."""
SILENT = 60.0
"""Seconds beyond the longest time for a request: an engine that has said nothing for so long is opened anew."""
CLOSING = 0.5
"""Seconds after which the web server has stopped taking connections."""


class Running:
    """The server of a process, or why there is none."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self._follow: asyncio.Task[None] | None = None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request to the server."""
        if self.server is None:
            raise RuntimeError("a request came before the server was started")
        await self.server(scope, receive, send)

    async def start(self) -> None:
        """Start the server; the champion loads afterwards, while ``/readyz`` says that it is not ready."""
        log.setup(json_lines=True)
        try:
            self.server = made(settings())
        except TunectlError as error:
            log.get(__name__).error("the server cannot start: %s", error)
            sys.exit(error.exit_code)
        process.end_with_supervisor()
        _drain_on_sigterm(self.server)
        self._follow = asyncio.create_task(self.server.residents.follow(self.server.settings.serve.poll_seconds))
        self._follow.add_done_callback(_ended)

    async def stop(self) -> None:
        """Close everything in the order in which it depends on another."""
        if self.server is None:
            return
        if self._follow is not None:
            self._follow.cancel()
        await self.server.residents.close()
        await self.server.settle()
        await asyncio.to_thread(self.server.keeper.close)
        log.get(__name__).info("the server has stopped")


def made(given: ServeSettings) -> Server:
    """A server that is wired up and has loaded nothing yet."""
    serve, limits, place = given.serve, given.serve.limits, home()
    metrics = ServingMetrics()
    ring = Ring(place / os.environ.get(KEYS, serve.keys), LOOK)
    ring.open()
    keeper = keeping.opened(given.live, place, on_error=metrics.store_errors.inc)
    residents = Residents(
        release_place.opened(os.environ.get(STORE, serve.store), place),
        lambda name: engines.engine(name, serve),
        seed=seed(),
        base=serve.arms.base,
        observe=serve.arms.observe_seconds,
        changed=lambda: metrics.loaded(
            {arm: (one.id, one.contract.base.source) for arm, one in residents.loaded.items()}
        ),
        patience=limits.seconds + SILENT,
        within=serve.load_seconds,
    )
    admission = Admission(Bounds(limits.running, limits.waiting, limits.tokens))
    server = Server(given, residents, ring, admission, metrics, keeper)
    server.mounts["/arena"] = _arena(server, place)
    return server


def _arena(server: Server, place: Path) -> Any:
    """The page on which people chat and choose; a client of this server."""
    annotate = server.settings.annotate
    folder = place / os.environ.get(JUDGEMENTS, annotate.store)
    masker = keeping.masker(server.settings.live)
    setup = arena_page.Setup(server.settings.project, tuple(annotate.tags), folder, masker)
    return arena_page.application(server, setup)


def seed() -> Path | None:
    """The release that the Bento brought: the one folder below ``release/``, or the folder that TUNECTL_SEED names."""
    named = os.environ.get(SEED)
    if named:
        return Path(named)
    found = sorted(Path("release").glob("*/manifest.json"))
    return found[0].parent if found else None


def _drain_on_sigterm(server: Server) -> None:
    """Readiness turns false first; after the notice the web server closes its door and waits for open answers."""
    before: Any = signal.getsignal(signal.SIGTERM)
    loop, doors, notice = asyncio.get_running_loop(), process.doors(), server.settings.serve.drain.notice_seconds

    def drain(number: int, frame: FrameType | None) -> None:
        server.draining = True
        if callable(before):
            loop.call_soon_threadsafe(loop.call_later, notice, before, number, frame)
            loop.call_soon_threadsafe(loop.call_later, notice + CLOSING, process.shut, doors)

    signal.signal(signal.SIGTERM, drain)


def _ended(task: asyncio.Task[None]) -> None:
    """The loop that follows the store never ends by itself: if it does, the process must not live on as if it did."""
    if not task.cancelled() and task.exception() is not None:
        log.get(__name__).error("following the release store failed", exc_info=task.exception())
        os.kill(os.getpid(), signal.SIGTERM)
