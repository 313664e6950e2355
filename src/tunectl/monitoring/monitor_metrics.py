"""The monitor's metrics for Prometheus: closed label sets, and no NaN: an unknown number has no series."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any, Final, get_args

from tunectl.artifacts.records import DriftVerdict, DriftWindow
from tunectl.core.optional import import_optional
from tunectl.monitoring.self_calibration import CalibrationRow

EXTRA: Final = "monitor"
VERDICTS: Final = get_args(DriftVerdict)
SIDES: Final = ("window", "reference")


class DriftMetrics:
    """Prometheus metrics of one monitor: the newest window's values, and counts of windows."""

    def __init__(self, required: float) -> None:
        self._library = library = import_optional("prometheus_client", extra=EXTRA)
        self._registry = registry = library.CollectorRegistry(auto_describe=True)

        def gauge(name: str, text: str, labels: Sequence[str] = ()) -> Any:
            return library.Gauge(f"tunectl_drift_{name}", text, labels, registry=registry)

        self._score = gauge("score", "The statistic of a signal in the newest window.", ("signal",))
        self._threshold = gauge("threshold", "What it must exceed at the signal's own level.", ("signal",))
        self._p_value = gauge("p_value", "Permutation p-value of a signal in the newest window alone.", ("signal",))
        self._evidence = gauge(
            "evidence", "Orders of magnitude by which the newest windows together are rarer than chance."
        )
        self._required = gauge("evidence_required", "The evidence that makes drift; 3 is one false alarm in 1,000.")
        self._samples = gauge(
            "window_samples", "Rows that were compared; the fewest of any signal's reference.", ("side",)
        )
        self._evaluations = library.Counter(
            "tunectl_drift_evaluations", "Windows by verdict.", ("verdict",), registry=registry
        )
        self._calibrated = gauge(
            "calibrated_ratio",
            "Share of null or changed sequences in which `tunectl monitor calibrate` saw a verdict by the third window.",
            ("side", "change"),
        )
        self._success = gauge("last_success_timestamp_seconds", "When the monitor last looked and nothing failed.")
        self._required.set(required)
        self._evidence.set(0)
        for verdict in VERDICTS:
            self._evaluations.labels(verdict)
        for side in SIDES:
            self._samples.labels(side).set(0)

    def restore(self, window: DriftWindow | None) -> None:
        """Set the gauges to the newest window of an earlier run, which is not counted again."""
        if window is not None:
            self._show(window)

    def record_window(self, window: DriftWindow) -> None:
        """Set the gauges to the values of a closed window, and count it."""
        self._show(window)
        self._evaluations.labels(window.verdict).inc()

    def record_calibration(self, figures: Sequence[CalibrationRow]) -> None:
        """Set the gauges to the results of the newest calibration, so that alerts can state their reliability."""
        self._calibrated.clear()
        for figure in figures:
            self._calibrated.labels(figure.side, figure.change).set(figure.third[0])

    def record_failure(self) -> None:
        """Count a failed check; the gauges keep the values of the newest window."""
        self._evaluations.labels("error").inc()

    def record_success(self, at: float) -> None:
        """Record the time (seconds since 1970) of a drift check that ended without an error."""
        self._success.set(at)

    def reset(self) -> None:
        """Clear the gauges for another release or reference, which has no window yet."""
        self._clear()
        self._evidence.set(0)

    def _clear(self) -> None:
        for item in (self._score, self._threshold, self._p_value):
            item.clear()

    def _show(self, window: DriftWindow) -> None:
        self._clear()
        self._evidence.set(window.evidence)
        self._required.set(window.evidence_required)
        self._samples.labels("window").set(window.rows)
        compared = [item.reference for item in window.signals.values() if item.p_value is not None]
        self._samples.labels("reference").set(min(compared, default=0))
        for name, signal in window.signals.items():
            for metric, value in (
                (self._score, signal.score),
                (self._threshold, signal.threshold),
                (self._p_value, signal.p_value),
            ):
                if value is not None and isfinite(value):
                    metric.labels(name).set(value)

    def render(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        exposition: bytes = self._library.generate_latest(self._registry)
        return exposition
