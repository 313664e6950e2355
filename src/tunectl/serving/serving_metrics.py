"""The server's metrics, through prometheus_client: a separate registry in one process, closed label sets, no paths.

The names are a contract with dashboards and rules (``monitoring/``); they use vLLM's stems, so that its panels can be reused.
"""

from __future__ import annotations

import os
from typing import Any, Final, get_args

from tunectl.artifacts.canary_state import VARIANTS
from tunectl.artifacts.records import FeedbackKind
from tunectl.core.optional import import_optional
from tunectl.serving.admission_control import RefusalReason

EXTRA: Final = "serve"
FIRST: Final = (0.01, 0.025, 0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3, 6, 12, 30)
"""Buckets of the time to the first token, seconds."""
BETWEEN: Final = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
WHOLE: Final = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300)
WAITED: Final = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 60)
FINISHED: Final = ("stop", "length", "cancelled", "error", "timeout")


def _library() -> Any:
    """Return prometheus_client with values in memory.

    ``bentoml serve`` sets PROMETHEUS_MULTIPROC_DIR to a folder that all servers of a host share, and a file that a kill
    left broken there would break every scrape. One process has all our numbers, so they need no file.
    """
    for name in ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir"):
        os.environ.pop(name, None)
    values = import_optional("prometheus_client.values", extra=EXTRA)
    library = import_optional("prometheus_client", extra=EXTRA)
    values.ValueClass = values.MutexValue
    library.disable_created_metrics()  # one more line per counter, which no alert or dashboard uses
    return library


class ServingMetrics:
    """Prometheus metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._library = library = _library()
        self._registry = registry = library.CollectorRegistry(auto_describe=True)

        def histogram(name: str, text: str, buckets: tuple[float, ...]) -> Any:
            return library.Histogram(f"tunectl_{name}_seconds", text, buckets=buckets, registry=registry)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Any:
            return library.Counter(f"tunectl_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Any:
            return library.Gauge(f"tunectl_{name}", text, labels, registry=registry)

        self.first = histogram("time_to_first_token", "From arrival to the first token.", FIRST)
        self.between = histogram("inter_token_latency", "Between the tokens of an answer.", BETWEEN)
        self.whole = histogram("e2e_request_latency", "From arrival to the last token.", WHOLE)
        self.queued = histogram("request_queue_time", "From arrival to the engine.", WAITED)
        self.running = gauge("requests_running", "Answers that are being generated.")
        self.waiting = gauge("requests_waiting", "Requests that wait in the queue.")
        self.requests = counter("requests", "Finished answers, by reason of the end.", ("finished_reason",))
        self.rejected = counter("requests_rejected", "Requests that were rejected, by reason.", ("reason",))
        self.prompt_tokens = counter("prompt_tokens", "Prompt tokens processed.")
        self.generation_tokens = counter("generation_tokens", "Tokens generated.")
        self.model = gauge("model_info", "Loaded releases; the value is always 1.", ("release", "base", "variant"))
        self.feedback = counter("feedback", "Feedback records that were accepted.", ("kind", "variant"))
        self.inference_log_errors = counter(
            "inference_log_errors",
            "Rows that the inference log could not write in time, and texts that it left out because masking failed on them.",
        )
        self._start_at_zero()

    def _start_at_zero(self) -> None:
        for reason in FINISHED:
            self.requests.labels(reason)
        for reason in get_args(RefusalReason):
            self.rejected.labels(reason)
        for kind in get_args(FeedbackKind):
            for variant in VARIANTS:
                self.feedback.labels(kind, variant)

    def set_model_info(self, variants: dict[str, tuple[str, str]]) -> None:
        """Set the loaded releases: (release, base model) by variant."""
        self.model.clear()
        for variant, (release, base) in variants.items():
            self.model.labels(release, base, variant).set(1)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        exposition: bytes = self._library.generate_latest(self._registry)
        return exposition

    @property
    def content_type(self) -> str:
        """Content type of the metrics that ``render`` returns."""
        return "text/plain; version=0.0.4; charset=utf-8"
