"""What a monitor is put together from, as the configuration has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache

from tunectl.artifacts import lock
from tunectl.artifacts.layout import Layout
from tunectl.backends import (
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
from tunectl.live import identity
from tunectl.live.store import LiveStore
from tunectl.monitor.calibrate import Rule
from tunectl.monitor.examine import Examiner
from tunectl.monitor.features import Embedder, Tone
from tunectl.monitor.signals import Tools
from tunectl.privacy.mask import Masker
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
    declared = settings.monitor
    releases = release_place.opened(os.environ.get("TUNECTL_STORE") or settings.store, layout.root)
    examiner = Examiner(
        rule(settings), tools(settings, layout), tuple(declared.without), settings.seed, declared.window.most
    )
    report = evidently_report.write if declared.evidently else None
    return Watcher(settings, layout, store, releases, examiner, report, masker=_masker(settings.live))


def _masker(live: Live) -> Masker:
    """As servers mask what they keep."""
    personal = live.personal
    known = privacy_tools.tools(regions=personal.regions, locales=personal.locales)
    return Masker(known, kinds=personal.kinds, keep=personal.keep)
