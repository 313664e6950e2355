"""One window, examined: tests, decision, exemplars and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunectl.artifacts.records import DriftSignal, DriftWindow
from tunectl.monitoring import decision as monitoring_decision
from tunectl.monitoring import exemplars, signals, two_sample_tests
from tunectl.monitoring.power_study import DetectionRule
from tunectl.monitoring.signals import SIDES, MonitoredInference, SignalColumns, SignalSide, Tools
from tunectl.monitoring.window import EMPTY, TimeSpan, compute_window_id

SHOWN = 10
"""Exemplars, and slices, of a window."""
GLANCE = 199
"""Permutations against the window before, on which nothing rests."""
MeasuredSignals = Mapping[SignalSide, SignalColumns]
"""What a window's rows were turned into, both sides."""


@dataclass(frozen=True, slots=True)
class ReferenceSample:
    """What one side of a window is compared with: measured once, with its floors."""

    name: str
    """Id of a window, of a release, or ``training``."""
    rows: tuple[MonitoredInference, ...]
    columns: SignalColumns
    floors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DriftDetector:
    """Examines windows of one release against its baselines."""

    rule: DetectionRule
    tools: Tools
    without: tuple[str, ...]
    """Signals that are switched off."""
    seed: int
    most: int
    """Rows of a window, or of a reference, that are looked at; more are drawn from at random."""

    def measure_reference(self, name: str, rows: Sequence[MonitoredInference], side: SignalSide) -> ReferenceSample:
        """Measure a reference and work out its floors."""
        kept = self._subsample(rows)
        measured = signals.compute_signal_values(kept, side, self.tools, without=self.without)
        dealer = two_sample_tests.PermutationCache(self.rule.permutations, self.seed)
        floors = signals.effect_floors(
            measured, dealer, quantile=self.rule.quantile, minimum=self.rule.minimum, seed=self.seed
        )
        return ReferenceSample(name, tuple(kept), measured, floors)

    def measure_rows(self, rows: Sequence[MonitoredInference]) -> MeasuredSignals:
        """The values of a window's signals, of those rows that are looked at."""
        kept = self._subsample(rows)
        return {side: signals.compute_signal_values(kept, side, self.tools, without=self.without) for side in SIDES}

    def examine_window(
        self,
        span: TimeSpan,
        rows: Sequence[MonitoredInference],
        baselines: Mapping[SignalSide, ReferenceSample],
        before: Sequence[DriftWindow],
        *,
        release: str,
        missing: Mapping[SignalSide, str],
        measured: MeasuredSignals | None = None,
        last: MeasuredSignals | None = None,
    ) -> DriftWindow:
        """Compare the rows of ``span`` with the baselines; ``missing`` says of a side without one why it has none.

        ``before`` are the earlier windows of this release and reference, oldest first. ``measured``: its rows, where they were
        measured already. ``last``: those of the window before, for people to see whether this is new.
        """
        dealer = two_sample_tests.PermutationCache(self.rule.permutations, self.seed)
        measured = measured or self.measure_rows(rows)
        found = [
            signal
            for side, baseline in baselines.items()
            for signal in signals.test_all(
                measured[side],
                baseline.columns,
                baseline.floors,
                dealer,
                level=self.rule.level,
                minimum=self.rule.minimum,
            )
        ]
        judged = monitoring_decision.adjust_p_values(found, self.rule.level)
        few = len(rows) < self.rule.minimum
        unseen = [*missing.values(), *_silent(baselines, judged)]
        why = [f"too few rows: {len(rows)} of {self.rule.minimum}"] if few else unseen
        decision = monitoring_decision.window_verdict(judged, before, required=self.rule.required, missing=why)
        shown = self._select_exemplars(self._subsample(rows), measured, baselines, judged) if decision.moved else {}
        beside = self._beside(measured, last or {})
        return self._build_window(
            span, rows, baselines, release, decision, signals=judged, previous_p_values=beside, **shown
        )

    def _beside(self, measured: MeasuredSignals, last: MeasuredSignals) -> dict[str, float]:
        dealer = two_sample_tests.PermutationCache(GLANCE, self.seed)
        found = [
            signal
            for side, columns in last.items()
            for signal in signals.test_all(measured[side], columns, {}, dealer, level=0.05, minimum=self.rule.minimum)
        ]
        return {one.name: one.p_value for one in found if one.p_value is not None}

    def build_error_window(
        self,
        span: TimeSpan,
        rows: Sequence[MonitoredInference],
        baselines: Mapping[SignalSide, ReferenceSample],
        before: Sequence[DriftWindow],
        *,
        release: str,
        error: Exception,
    ) -> DriftWindow:
        """A window that could not be examined: it neither counts nor breaks the row."""
        reason = f"{type(error).__name__}: {error}"[:300]
        decision = monitoring_decision.WindowDecision(
            "error", moved=False, consecutive=monitoring_decision.consecutive(before), reason=reason
        )
        return self._build_window(span, rows, baselines, release, decision)

    def _build_window(
        self,
        span: TimeSpan,
        rows: Sequence[MonitoredInference],
        baselines: Mapping[SignalSide, ReferenceSample],
        release: str,
        decision: monitoring_decision.WindowDecision,
        **found: Any,
    ) -> DriftWindow:
        reference = baselines["prompt"].name if "prompt" in baselines else EMPTY
        return DriftWindow(
            id=compute_window_id(span, [row.id for row in rows], release, reference, self._settings()),
            since=span.since,
            until=span.until,
            rows=len(rows),
            verdict=decision.verdict,
            consecutive=decision.consecutive,
            required_windows=self.rule.required,
            shifted=decision.moved,
            release=release,
            reference=reference,
            reason=decision.reason,
            **found,
        )

    def _settings(self) -> dict[str, Any]:
        rule = self.rule
        return {
            "level": rule.level,
            "permutations": rule.permutations,
            "quantile": rule.quantile,
            "minimum": rule.minimum,
            "required": rule.required,
            "without": sorted(self.without),
            "embedder": self.tools.embedder.name,
            "seed": self.seed,
        }

    def _subsample(self, rows: Sequence[MonitoredInference]) -> list[MonitoredInference]:
        import numpy as np

        if len(rows) <= self.most:
            return list(rows)
        places = np.random.default_rng(self.seed).choice(len(rows), self.most, replace=False)
        return [rows[place] for place in sorted(places)]

    def _select_exemplars(
        self,
        rows: Sequence[MonitoredInference],
        measured: MeasuredSignals,
        baselines: Mapping[SignalSide, ReferenceSample],
        judged: Mapping[str, DriftSignal],
    ) -> dict[str, Any]:
        """Exemplars of a side that has texts: one that moved before one that did not, prompts before answers; segments of prompts."""
        texts = [
            side
            for side, base in baselines.items()
            if len(measured[side].get(f"{side}_text", ())) and len(base.columns.get(f"{side}_text", ()))
        ]
        if not texts:
            return {}
        side = next((one for one in texts if any(judged[name].shifted for name in _of(one, judged))), texts[0])
        ours, theirs = measured[side][f"{side}_text"], baselines[side].columns[f"{side}_text"]
        places = exemplars.most_shifted(ours.parts[0], theirs.parts[0], SHOWN)
        told = {"exemplars": [rows[int(ours.rows[place])].id for place in places]}
        if "prompt" not in baselines:
            return told
        return told | {"segments": exemplars.word_shifts(rows, baselines["prompt"].rows, SHOWN)}


def _of(side: SignalSide, judged: Mapping[str, DriftSignal]) -> list[str]:
    return [one.name for one in signals.SIGNALS if one.side == side and one.name in judged]


def _silent(baselines: Mapping[SignalSide, ReferenceSample], judged: Mapping[str, DriftSignal]) -> list[str]:
    """Of each side that has a reference, and of which no signal could be told: why."""
    found = []
    for side in baselines:
        of_it = [judged[name] for name in _of(side, judged)]
        if of_it and all(one.p_value is None for one in of_it):
            found.append(f"{side}s: {of_it[0].reason}")
    return found
