"""Lifecycle of the server in its process: settings, start, signals, stop."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyLimits, KeyStore
from tunectl.access.signatures import TRUSTED_KEYS_ENV, TrustStore
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.engines import engine_registry
from tunectl.backends.storage import open_registry
from tunectl.config.schema.serve import ServeSettings
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError
from tunectl.registry import sequence_guard
from tunectl.registry.sequence_guard import CanaryGuard, SequenceGuard
from tunectl.serving import inference_logger, supervisor
from tunectl.serving.admission_control import AdmissionController, CapacityLimits
from tunectl.serving.app import Server
from tunectl.serving.http_io import AsgiScope, Receive, Send
from tunectl.serving.model_manager import ModelManager
from tunectl.serving.server_settings import home_dir, settings
from tunectl.serving.serving_metrics import ServingMetrics

STORE, BUNDLED = "TUNECTL_REGISTRY", "TUNECTL_BUNDLED_RELEASE"
CHECK_SECONDS = 1.0
"""Seconds between checks of the keys file."""
SILENT = 60.0
"""Seconds beyond the longest time for a request after which a silent engine is opened again."""
CLOSING = 0.5
"""Seconds after which the web server has stopped taking connections."""


class ServerLifecycle:
    """Starts and stops the one server of this process, for BentoML's hooks."""

    def __init__(self, mount: Callable[[Server, Path], None]) -> None:
        """``mount`` adds applications of other packages to a server; it gets the base folder of relative paths."""
        self.server: Server | None = None
        self._mount = mount
        self._follow: asyncio.Task[None] | None = None

    async def answer(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Pass an ASGI request to the server."""
        if self.server is None:
            raise RuntimeError("a request came before the server was started")
        await self.server(scope, receive, send)

    async def start(self) -> None:
        """Start the server; the champion loads afterwards, while ``/readyz`` says that it is not ready."""
        logging_setup.configure_logging(json_lines=True)
        try:
            self.server = build_server(settings(), self._mount)
        except TunectlError as error:
            logging_setup.get_logger(__name__).error("the server cannot start: %s", error)
            sys.exit(error.exit_code)
        supervisor.die_with_parent()
        _drain_on_sigterm(self.server)
        self._follow = asyncio.create_task(
            self.server.model_manager.run_forever(self.server.settings.serve.poll_seconds)
        )
        self._follow.add_done_callback(_terminate_on_failure)

    async def stop(self) -> None:
        """Stop following the registry, release the models, and close the inference log."""
        if self.server is None:
            return
        if self._follow is not None:
            self._follow.cancel()
        await self.server.model_manager.close()
        await self.server.wait_pending()
        await asyncio.to_thread(self.server.request_logger.close)
        logging_setup.get_logger(__name__).info("the server has stopped")


def build_server(settings: ServeSettings, mount: Callable[[Server, Path], None]) -> Server:
    """Return a server with all its components, which has loaded no release yet; ``mount`` adds further applications to it."""
    serve, limits, home = settings.serve, settings.serve.limits, home_dir()
    metrics = ServingMetrics()
    declared = serve.key_limits
    limits_of_keys = KeyLimits(declared.per_minute, declared.max_concurrency, declared.tokens_per_minute)
    key_store = KeyStore(api_keys.find_keys_file(home, serve.keys_file), CHECK_SECONDS, limits_of_keys)
    key_store.load()
    logger = inference_logger.open_logger(settings.inference_log, home, on_error=metrics.inference_log_errors.inc)
    trusted = os.environ.get(TRUSTED_KEYS_ENV) or serve.trusted_keys_file
    trust = TrustStore(home / trusted) if trusted else None
    model_manager = ModelManager(
        open_registry.open_registry(os.environ.get(STORE, serve.registry), home, trust),
        lambda name: engine_registry.get_engine(name, serve),
        bundled=find_bundled_release(),
        base=serve.variants.base,
        standby_seconds=serve.variants.standby_seconds,
        changed=lambda: metrics.set_model_info(
            {variant: (one.id, one.contract.base.source) for variant, one in model_manager.loaded.items()}
        ),
        silence_seconds=limits.request_timeout_seconds + SILENT,
        load_timeout_seconds=serve.load_timeout_seconds,
    )
    state = ProjectPaths(home).state_dir
    model_manager.vetting.guard = SequenceGuard(state / sequence_guard.FILE)
    model_manager.vetting.canary_guard = CanaryGuard(state / sequence_guard.CANARY_FILE)
    model_manager.vetting.trust = trust
    admission = AdmissionController(
        CapacityLimits(limits.max_concurrency, limits.max_queue, limits.max_tokens_in_flight)
    )
    server = Server(settings, model_manager, key_store, admission, metrics, logger)
    mount(server, home)
    return server


def find_bundled_release() -> Path | None:
    """Return the folder of the release in the Bento (the one below ``release/``), or the folder that the environment variable TUNECTL_BUNDLED_RELEASE names; None without both."""
    named = os.environ.get(BUNDLED)
    if named:
        return Path(named)
    manifests = sorted(Path("release").glob("*/manifest.json"))
    return manifests[0].parent if manifests else None


def _drain_on_sigterm(server: Server) -> None:
    """Readiness turns false first; after the notice requests are refused, and the web server closes its listening sockets and waits for open answers."""
    before: Any = signal.getsignal(signal.SIGTERM)
    loop, sockets, notice = (
        asyncio.get_running_loop(),
        supervisor.listening_sockets(),
        server.settings.serve.shutdown.pre_stop_seconds,
    )

    def refuse() -> None:
        server.refusing = True

    def drain(number: int, frame: FrameType | None) -> None:
        server.draining = True
        loop.call_soon_threadsafe(loop.call_later, notice, refuse)
        if callable(before):
            loop.call_soon_threadsafe(loop.call_later, notice, before, number, frame)
            loop.call_soon_threadsafe(loop.call_later, notice + CLOSING, supervisor.stop_accepting, sockets)

    signal.signal(signal.SIGTERM, drain)


def _terminate_on_failure(task: asyncio.Task[None]) -> None:
    """End the process when the task that follows the registry fails: without it the server would serve an old release."""
    if not task.cancelled() and task.exception() is not None:
        logging_setup.get_logger(__name__).error("following the release store failed", exc_info=task.exception())
        os.kill(os.getpid(), signal.SIGTERM)
