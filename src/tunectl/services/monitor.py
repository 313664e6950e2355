"""The monitor: looks at the live store again and again, says whether the world has changed, and shows it.

One process a live store. What it needs at run time is numpy, a table of word vectors and the live store; no torch (unless the
encoder itself embeds), no network.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec

from tunectl.artifacts import io, lock
from tunectl.artifacts.layout import Layout
from tunectl.backends import (
    drift_metrics,
    drift_page,
    evidently_report,
    language_id,
    privacy_tools,
    release_place,
    sentence_encoder,
    sqlalchemy_store,
    static_embedding,
    tone_lexicon,
)
from tunectl.config.live import Live
from tunectl.config.monitor import MonitorSettings
from tunectl.core import log
from tunectl.core.errors import MissingExtra, TunectlError
from tunectl.live import identity
from tunectl.live.store import LiveStore
from tunectl.monitor.calibrate import Rule
from tunectl.monitor.examine import Examiner
from tunectl.monitor.features import Embedder, Tone
from tunectl.monitor.selftest import Calibration, Figure
from tunectl.monitor.signals import Row, Tools
from tunectl.monitor.window import EMPTY
from tunectl.privacy.mask import Masker
from tunectl.services.drift import references, reports
from tunectl.services.drift.door import Door, Pages
from tunectl.services.drift.watcher import Watcher

LETTERS = 12
"""Fewest of a text whose language is guessed."""


def rule(settings: MonitorSettings) -> Rule:
    """How windows are decided on, as the configuration has it."""
    declared = settings.monitor.rule
    return Rule(
        declared.level, declared.permutations, declared.floor, settings.monitor.window.minimum, declared.required
    )


def tools(settings: MonitorSettings, layout: Layout) -> Tools:
    """What turns texts into numbers; fetches and distils the encoder where that was not done yet.

    Raises  EnvironmentFailure where the encoder cannot be fetched; MissingExtra without tokenizers, or torch to distil.
    """
    words = tone_lexicon.lexicon()
    folder = sentence_encoder.fetched(settings.monitor.encoder, layout.embeddings)
    embedder: Embedder
    if settings.monitor.embedding == "encoder":
        embedder = sentence_encoder.EncoderEmbedding(folder)
    else:
        embedder = static_embedding.StaticEmbedding(static_embedding.distilled(folder, layout.embeddings))
    return Tools(embedder, Tone(words), _language())


def _language() -> Callable[[str], str]:
    guess = language_id.guesser([])

    @lru_cache(maxsize=20_000)
    def code(text: str) -> str:
        letters = sum(sign.isalpha() for sign in text)
        return guess(text)[0] if letters >= LETTERS else "unknown"

    return code


def examiner(settings: MonitorSettings, layout: Layout) -> Examiner:
    """What examines windows."""
    return Examiner(
        rule(settings),
        tools(settings, layout),
        tuple(settings.monitor.without),
        settings.seed,
        settings.monitor.window.most,
    )


@contextmanager
def opened(settings: MonitorSettings, layout: Layout) -> Iterator[Watcher]:
    """A watcher of the configured live store; one at a time.

    Raises  EnvironmentFailure where another monitor watches this project, or the store cannot be opened.
    """
    with (
        lock.held(
            layout.monitor_lock,
            "tunectl monitor",
            busy=f"{layout.monitor_lock}: another monitor watches this live store",
            hint="stop it, or look at its pages",
        ),
        sqlalchemy_store.opened(identity.address(settings.live), layout.root) as store,
    ):
        yield watcher(settings, layout, store)


def watcher(settings: MonitorSettings, layout: Layout, store: LiveStore) -> Watcher:
    """A watcher of ``store``."""
    releases = release_place.opened(os.environ.get("TUNECTL_STORE", settings.store), layout.root)
    report = evidently_report.write if settings.monitor.evidently else None
    return Watcher(settings, layout, store, releases, examiner(settings, layout), report, masker=_masker(settings.live))


def _masker(live: Live) -> Masker:
    """As servers mask what they keep."""
    personal = live.personal
    known = privacy_tools.tools(regions=personal.regions, locales=personal.locales)
    return Masker(known, kinds=personal.kinds, keep=personal.keep)


def run(settings: MonitorSettings, layout: Layout, *, started: Callable[[int], None] = lambda _port: None) -> None:
    """Watch until SIGTERM or SIGINT; ``started`` hears the port.

    A look that fails is logged and counted, and tried again: the exporter never dies of a database that is away.
    """
    metrics = drift_metrics.DriftMetrics(settings.monitor.rule.required)
    told: SimpleQueue[None] = SimpleQueue()  # a handler of signals may wait for no lock, and an event has one
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: told.put(None))
    with opened(settings, layout) as watching:
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
        kept = io.read_json(layout.calibration, Calibration)
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

    def window(name: str) -> str | None:
        found = next((one for one in watching.before() if one.id == name), None)
        return None if found is None else drift_page.window(settings.project, found, shown(watching.store, name))

    return Pages(
        metrics=metrics.text,
        listing=lambda: drift_page.index(
            settings.project, watching.before(), {one.name for one in reports.kept(folder)}
        ),
        window=window,
        data=lambda: msgspec.json.encode(watching.before()),
        reports=folder,
    )


def shown(store: LiveStore, name: str) -> dict[str, Row]:
    """The exchanges of a closed window by id, as the live store has them now."""
    found = next((one for one in store.windows() if one.id == name), None)
    return {} if found is None else {row.id: row for row in references.rows_of(store, found)}
