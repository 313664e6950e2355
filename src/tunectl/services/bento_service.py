"""The Bento: a service that only starts our server inside BentoML's process and passes every request to it.

``bentoml serve tunectl.services.bento_service:TunectlService`` needs one file, whose path is in the environment variable TUNECTL_SERVE (serve.json
of the working folder by default): the resolved ``ServeSettings``. BentoML's own metrics, access log and limits are not used:
its metrics name every path that a scanner makes up, and its limits know neither Retry-After nor OpenAI's errors.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml  # noqa: TID253  # BentoML finds its services at module level

from tunectl.access.routes import ARENA_SCOPES
from tunectl.annotation import arena_app
from tunectl.backends.text import pii_resources
from tunectl.backends.web import bounded_http
from tunectl.serving.app import Server
from tunectl.serving.lifecycle import ServerLifecycle

JUDGMENTS = "TUNECTL_JUDGMENTS"


def mount_arena(server: Server, home: Path) -> None:
    """Mount the arena, where people chat with two models and vote, on ``server``; it sends its requests to the server's own API."""
    annotate = server.settings.annotate
    folder = home / os.environ.get(JUDGMENTS, annotate.store)
    masker = pii_resources.build_masker(server.settings.inference_log)
    config = arena_app.ArenaAppConfig(
        server.settings.project,
        tuple(annotate.tags),
        folder,
        masker,
        lambda key: server.key_store.find(key, *ARENA_SCOPES),
    )
    server.mounts["/arena"] = arena_app.application(server, config)


bounded_http.limit_protocols()  # before BentoML starts uvicorn in this process
RUNNING = ServerLifecycle(mount_arena)
"""The server of this process; empty until the service starts."""


class AsgiBentoService(bentoml.Service):
    """A BentoML service whose HTTP requests go directly to tunectl's server, without BentoML's own layers.

    Those layers would process every token of every stream, and BentoML's time limit leaves a timer behind for each request.
    """

    __slots__ = ()

    def to_asgi(self, is_main: bool = True) -> Any:
        """Return the ASGI application: BentoML's handles startup and shutdown, tunectl's server the HTTP requests."""
        inner = super().to_asgi(is_main)

        async def application(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "http":
                await RUNNING.answer(scope, receive, send)
            elif scope["type"] == "lifespan":
                await inner(scope, receive, send)

        return application


@bentoml.service(name="tunectl", workers=1, metrics={"enabled": False}, service_class=AsgiBentoService)
class TunectlService:
    """BentoML service that serves a release: its hooks start and stop the server of this process."""

    @bentoml.on_startup
    async def start(self) -> None:
        """Read the API keys, open the inference log, and start loading the champion release in the background."""
        await RUNNING.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Close the server, once its last request has ended."""
        await RUNNING.stop()
