"""The monitor: looks at the live store again and again, says whether the world has changed, and shows it.

One process a live store. What it needs at run time is numpy, a table of word vectors and the live store; no torch (unless the
encoder itself embeds), no network.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from tunectl.artifacts import io
from tunectl.artifacts.layout import Layout
from tunectl.backends import drift_metrics, drift_page
from tunectl.config.monitor import MonitorSettings
from tunectl.core import log
from tunectl.core.errors import MissingExtra, TunectlError
from tunectl.monitor.selftest import Calibration, Figure
from tunectl.monitor.window import EMPTY
from tunectl.services.drift import assembly, references, reports
from tunectl.services.drift.door import Door, Pages
from tunectl.services.drift.watcher import Watcher


def run(settings: MonitorSettings, layout: Layout, *, started: Callable[[int], None] = lambda _port: None) -> None:
    """Watch until SIGTERM or SIGINT; ``started`` hears the port.

    A look that fails is logged and counted, and tried again: the exporter never dies of a database that is away.
    """
    metrics = drift_metrics.DriftMetrics(settings.monitor.rule.required)
    told: SimpleQueue[None] = SimpleQueue()  # a handler of signals may wait for no lock, and an event has one
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: told.put(None))
    with assembly.opened(settings, layout) as watching:
        watching.stopped = lambda: not told.empty()
        with suppress(TunectlError):  # the first look meets it again, counts it and says so
            metrics.restore(watching.newest())
        keys = Path(os.environ.get("TUNECTL_KEYS", layout.root / settings.keys))
        door = Door(settings.monitor.address, settings.monitor.port, keys, _pages(settings, layout, watching, metrics))
        door.open()
        started(door.port)
        try:
            while told.empty():
                look(watching, metrics)
                metrics.calibrated(_calibration(layout, watching))
                with suppress(Empty):
                    told.get(timeout=settings.monitor.poll_seconds)
                    break
        finally:
            door.close()


def _calibration(layout: Layout, watching: Watcher) -> list[Figure]:
    """What was measured of the references that the newest window was compared with; figures of others say nothing about it."""
    if not layout.calibration.is_file():
        return []
    with suppress(TunectlError):
        kept: Calibration = io.read_json(layout.calibration, Calibration)
        about = kept.release, kept.references.get("prompt", EMPTY)
        return kept.figures if about in [(one.release, one.reference) for one in watching.before()[-1:]] else []
    return []


def look(watching: Watcher, metrics: drift_metrics.DriftMetrics) -> None:
    """One look, counted."""
    try:
        champion, newest = watching.releases.champion(), watching.newest()
        if champion is not None and newest is None:
            metrics.reset()
        watching.look(metrics.evaluated)
    except MissingExtra:
        raise
    except TunectlError as error:
        log.get(__name__).error("%s", error)
        metrics.failed()
    except Exception:  # noqa: BLE001  whatever a window holds, the next one is looked at
        log.get(__name__).exception("a look at the live store failed")
        metrics.failed()
    else:
        metrics.succeeded(time.time())


def _pages(settings: MonitorSettings, layout: Layout, watching: Watcher, metrics: drift_metrics.DriftMetrics) -> Pages:
    folder = layout.root / settings.monitor.reports

    def there() -> set[str]:
        return {one.name for one in reports.kept(folder)}

    def window(name: str) -> str | None:
        found = next((one for one in watching.before() if one.id == name), None)
        if found is None:
            return None
        return drift_page.window(settings.project, found, references.shown(watching.store, name), there())

    return Pages(
        metrics=metrics.text,
        listing=lambda: drift_page.index(settings.project, watching.before(), there()),
        window=window,
        data=lambda: msgspec.json.encode(watching.before()),
        reports=folder,
    )
