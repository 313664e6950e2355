"""The Bento: one service whose only work is to start our server inside BentoML's process and to hand it every request.

``bentoml serve tunectl.services.bento:Tunectl`` wants one file, whose path is in TUNECTL_SERVE (serve.json of the working
folder by default): the resolved ``ServeSettings``. BentoML's own metrics, access log and time limits are off: its metrics
name every path that a scanner makes up, and its limits know neither Retry-After nor OpenAI's errors.
"""

from __future__ import annotations

from typing import Any

import bentoml  # noqa: TID253  # BentoML finds its services at module level

from tunectl.services.server.running import Running


class Door:
    """The middleware that answers every request itself; BentoML's own routes are never reached."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Hand a request over; what is not HTTP (the lifespan) stays BentoML's."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        await RUNNING.answer(scope, receive, send)


RUNNING = Running()
"""The server of this process; empty until the service starts."""


@bentoml.service(
    name="tunectl",
    workers=1,
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    traffic={"timeout": None},
)
class Tunectl:
    """Serves a release."""

    @bentoml.on_startup
    async def start(self) -> None:
        """Open keys and live store, then load and prove the champion beside the event loop."""
        await RUNNING.start()

    @bentoml.on_shutdown
    async def stop(self) -> None:
        """Give back what is open; requests have finished by now."""
        await RUNNING.stop()


Tunectl.add_asgi_middleware(Door)  # type: ignore[attr-defined]
