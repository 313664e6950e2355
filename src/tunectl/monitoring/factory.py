"""Build the monitor from the configuration."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import cast

from tunectl.access.signatures import TRUSTED_KEYS_ENV, TrustStore
from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import inference_log_sql, open_registry
from tunectl.backends.text import language_id, pii_resources, sentence_encoder, static_embedding, vader
from tunectl.config.schema.monitor import MonitorSettings
from tunectl.inference_log import pseudonyms
from tunectl.inference_log.log_store import InferenceLog
from tunectl.monitoring import evidently_report
from tunectl.monitoring.drift_detector import DriftDetector
from tunectl.monitoring.drift_monitor import DriftMonitor
from tunectl.monitoring.features import Embedder, Sentiment
from tunectl.monitoring.signals import SignalBackends
from tunectl.monitoring.window_size import DetectionRule
from tunectl.registry.protocols import RegistryReader
from tunectl.registry.sequence_guard import SequenceGuard
from tunectl.registry.signed_registry import SignedRegistry

LETTERS = 12
"""Letters of a text from which its language is detected."""


def detection_rule(settings: MonitorSettings) -> DetectionRule:
    """Return the settings of the drift decision that the configuration declares."""
    rule = settings.monitor.rule
    return DetectionRule(
        permutations=rule.permutations,
        quantile=rule.effect_floor_quantile,
        minimum=settings.monitor.window.min_rows,
        false_alarms=rule.false_alarms_per_1000 / 1000,
        min_effect=rule.min_effect,
    )


def feature_tools(settings: MonitorSettings, layout: ProjectPaths) -> SignalBackends:
    """Return the functions that convert texts to numbers; the encoder is downloaded and distilled first where that was not done yet.

    Raises  InfrastructureError where the encoder cannot be fetched; MissingExtraError without tokenizers, or torch to distil.
    """
    lexicon = vader.lexicon()
    folder = sentence_encoder.download(settings.monitor.encoder, layout.embeddings)
    embedder: Embedder
    embedding = settings.monitor.embedding
    if embedding == "encoder" or (embedding == "auto" and sentence_encoder.is_installed(settings.monitor.encoder)):
        embedder = sentence_encoder.EncoderEmbedding(folder)
    else:
        embedder = static_embedding.StaticEmbedding(static_embedding.distill(folder, layout.embeddings))
    return SignalBackends(embedder, Sentiment(lexicon), _language())


def _language() -> Callable[[str], str]:
    guess = language_id.make_detector([])

    @lru_cache(maxsize=20_000)
    def code(text: str) -> str:
        letters = sum(sign.isalpha() for sign in text)
        return guess(text)[0] if letters >= LETTERS else "unknown"

    return code


@contextmanager
def open_monitor(settings: MonitorSettings, layout: ProjectPaths) -> Iterator[DriftMonitor]:
    """Yield the drift monitor of the project, and close its inference log afterwards; only one monitor may run.

    Raises  InfrastructureError where another monitor runs on this project, or the store cannot be opened.
    """
    with (
        lock.file_lock(
            layout.monitor_lock,
            "tunectl monitor",
            busy=f"{layout.monitor_lock}: another monitor watches this inference log",
            hint="stop it, or look at its pages",
        ),
        inference_log_sql.open_log(pseudonyms.address(settings.inference_log), layout.root) as store,
    ):
        yield build_monitor(settings, layout, store)


def _open_releases(settings: MonitorSettings, layout: ProjectPaths) -> RegistryReader:
    """Return the registry that servers follow; what no trusted key signed, or is older than what was seen, counts here as little as there."""
    trusted = os.environ.get(TRUSTED_KEYS_ENV) or settings.trusted_keys_file
    trust = TrustStore(layout.root / trusted) if trusted else None
    address = os.environ.get("TUNECTL_REGISTRY") or settings.registry
    releases = open_registry.open_registry(address, layout.root, trust)
    if trust is None:
        return releases
    return cast("RegistryReader", SignedRegistry(releases, trust, SequenceGuard(layout.monitor_newest_champion)))


def build_monitor(settings: MonitorSettings, layout: ProjectPaths, store: InferenceLog) -> DriftMonitor:
    """Return the drift monitor of the inference log ``store``, with detector, release store and reports as configured."""
    monitor = settings.monitor
    releases = _open_releases(settings, layout)
    examiner = DriftDetector(
        detection_rule(settings),
        feature_tools(settings, layout),
        tuple(monitor.disabled_signals),
        settings.seed,
        monitor.window.max_sampled_rows,
    )
    report = evidently_report.write if monitor.evidently else None
    return DriftMonitor(
        settings, layout, store, releases, examiner, report, masker=pii_resources.build_masker(settings.inference_log)
    )
