"""Export metrics of the retrain controller: closed label sets, never NaN.

Counters come from the records, not from this process: after a restart they continue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final, get_args

from tunectl.canary.canary_store import CanaryRecord
from tunectl.core.optional import import_optional
from tunectl.registry.release_state import ChampionPointer
from tunectl.retraining.run_store import TriggerOutcome
from tunectl.retraining.state_machine import ENDS, RetrainRun, Suppressed, TriggerKind

EXTRA: Final = "retrain"
KINDS: Final = get_args(TriggerKind)
REASONS: Final = get_args(Suppressed)
DECISIONS: Final = ("promoted", "rejected", "withdrawn", "insufficient", "dismissed")
EVIDENCE: Final = ("better", "harm")
LONG: Final = ("training", "evaluating")
"""States in which one reconcile lasts as long as the training or the gate, which have their own limits."""
_KEPT: Final = 1e6
"""Largest evidence that is exported: larger numbers mean nothing to people."""


class RetrainMetrics:
    """Prometheus metrics of run store, registry and canary test, computed anew for every scrape."""

    def __init__(self, began: float) -> None:
        """``began``: start of this controller, in seconds since 1970."""
        self._library = import_optional("prometheus_client", extra=EXTRA)
        self._core = import_optional("prometheus_client.core", extra=EXTRA)
        self.errors = 0
        """Number of failed reconciles."""
        self.last_reconcile = began
        """End of the newest reconcile, in seconds since 1970. It does not change while one hangs."""

    def text(
        self,
        runs: Sequence[RetrainRun],
        outcomes: Sequence[TriggerOutcome],
        champion: ChampionPointer | None,
        canary: CanaryRecord | None,
    ) -> bytes:
        """Return the metrics in Prometheus' text format; ``outcomes`` are those of all triggers."""
        registry = self._library.CollectorRegistry(auto_describe=False)
        families = [*self._retrain(runs, outcomes), *self._release(runs, champion), *self._canary(canary)]
        registry.register(_StaticCollector(families))
        exposition: bytes = self._library.generate_latest(registry)
        return exposition

    def _retrain(self, runs: Sequence[RetrainRun], outcomes: Sequence[TriggerOutcome]) -> list[Any]:
        ended = [run for run in runs if run.ended]
        counts = Counter((run.trigger.kind, run.state) for run in ended)
        total = self._core.CounterMetricFamily(
            "tunectl_retrain_runs", "Finished retrains, by trigger and outcome.", labels=("trigger", "outcome")
        )
        for kind in KINDS:
            for end in sorted(ENDS):
                total.add_metric((kind, end), counts[kind, end])
        reasons = Counter(item.reason for item in outcomes if item.reason is not None)
        suppressed = self._core.CounterMetricFamily(
            "tunectl_retrain_suppressed", "Triggers that started no retrain, by reason.", labels=("reason",)
        )
        for reason in REASONS:
            suppressed.add_metric((reason,), reasons[reason])
        active = next((run for run in runs if not run.ended), None)
        ends = [run.steps[-1].at.timestamp() for run in ended if run.state != "failed"]
        return [
            total,
            suppressed,
            self._gauge("tunectl_retrain_in_progress", "Whether a retrain is in progress.", float(active is not None)),
            self._gauge(
                "tunectl_retrain_awaiting_approval",
                "Whether a retrain waits for approval.",
                float(active is not None and active.state == "awaiting_approval"),
            ),
            self._gauge(
                "tunectl_retrain_last_success_timestamp_seconds",
                "End of the last retrain that did not fail; 0 before the first.",
                max(ends, default=0.0),
            ),
            self._core.CounterMetricFamily(
                "tunectl_retrain_errors",
                "Reconciles of the retrain controller that failed since it started.",
                value=float(self.errors),
            ),
            self._gauge(
                "tunectl_retrain_last_reconcile_timestamp_seconds",
                "End of the newest reconcile, or start of the controller.",
                self.last_reconcile,
            ),
            self._gauge(
                "tunectl_retrain_build_in_progress",
                "Whether a retrain trains or is evaluated now; both have time limits of their own.",
                float(active is not None and active.state in LONG),
            ),
        ]

    def _release(self, runs: Sequence[RetrainRun], champion: ChampionPointer | None) -> list[Any]:
        counts = Counter(run.state for run in runs)
        promotions = self._core.CounterMetricFamily(
            "tunectl_promotions", "Decisions about challengers of retrains.", labels=("decision",)
        )
        for decision in DECISIONS:
            promotions.add_metric((decision,), counts[decision])
        info = self._core.GaugeMetricFamily(
            "tunectl_champion_info", "The champion of the registry; the value is always 1.", labels=("release",)
        )
        if champion is not None:
            info.add_metric((champion.release,), 1.0)
        return [promotions, info]

    def _canary(self, canary: CanaryRecord | None) -> list[Any]:
        running = canary is not None and canary.ended_at is None
        units = self._core.GaugeMetricFamily(
            "tunectl_experiment_units", "Identities whose outcome is final, by variant.", labels=("variant",)
        )
        means = self._core.GaugeMetricFamily(
            "tunectl_experiment_outcome", "Mean outcome from 0 to 1, by variant.", labels=("variant",)
        )
        evidence = self._core.GaugeMetricFamily(
            "tunectl_experiment_evidence", "Largest e-value so far, by hypothesis.", labels=("hypothesis",)
        )
        ends = self._core.GaugeMetricFamily(
            "tunectl_experiment_difference",
            "Limits of the confidence sequence of challenger minus champion.",
            labels=("end",),
        )
        reading = canary.reading if canary is not None else None
        if reading is not None:
            for variant, count, mean in (
                ("champion", reading.champion_units, reading.champion),
                ("challenger", reading.challenger_units, reading.challenger),
            ):
                units.add_metric((variant,), count)
                if mean is not None:
                    means.add_metric((variant,), mean)
            for name in EVIDENCE:
                evidence.add_metric((name,), min(reading.evidence.get(name, 1.0), _KEPT))
            for end, value in (("low", reading.low), ("high", reading.high)):
                if value is not None:
                    ends.add_metric((end,), value)
        gauge = self._gauge("tunectl_experiment_running", "Whether a canary test runs.", float(running))
        share = canary.rules.share if canary is not None and running else 0.0
        return [
            gauge,
            self._gauge(
                "tunectl_experiment_share",
                "Share of identities that the challenger serves; 0 while no test runs.",
                share,
            ),
            units,
            means,
            evidence,
            ends,
        ]

    def _gauge(self, name: str, text: str, value: float) -> Any:
        return self._core.GaugeMetricFamily(name, text, value=value)


class _StaticCollector:
    """A collector of given metric families."""

    def __init__(self, families: Sequence[Any]) -> None:
        self._families = families

    def collect(self) -> Sequence[Any]:
        return self._families
