"""Examine one window: tests, decision, exemplars and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from tunectl.artifacts.records import DriftSignal, DriftWindow
from tunectl.monitoring import decision as decisions
from tunectl.monitoring import exemplars, signals, two_sample_tests, window_size
from tunectl.monitoring.signals import SIDES, MonitoredInference, SignalBackends, SignalColumns, SignalSide
from tunectl.monitoring.window import EMPTY, TimeSpan, compute_window_id
from tunectl.monitoring.window_size import DetectionRule

SHOWN = 10
"""Most exemplars, and slices, of a window."""
PREVIOUS_WINDOW_PERMUTATIONS = 199
"""Permutations of the test against the previous window, which no verdict uses."""
MAX_POOLED_ROWS = 9000
"""Most rows of several windows together, or of a reference, that are tested; of more, a sample is drawn."""
CHANGE_POINT_ROWS = 100
"""Rows of each window from which the begin of a change is estimated."""
MeasuredSignals = Mapping[SignalSide, SignalColumns]
"""Measured signals of a window's rows, both sides."""


@dataclass(frozen=True, slots=True)
class PooledWindow:
    """Start of a window and the signals measured on its rows, to be pooled with those of other windows."""

    since: datetime
    columns: MeasuredSignals


@dataclass(frozen=True, slots=True)
class ReferenceSample:
    """Reference rows for prompts or for answers, with their signals and effect floors; measured once per reference."""

    name: str
    """Id of a window, of a release, or ``training``."""
    rows: tuple[MonitoredInference, ...]
    columns: SignalColumns
    floors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class DriftDetector:
    """Tests windows of one release against its references."""

    rule: DetectionRule
    tools: SignalBackends
    without: tuple[str, ...]
    """Signals that are switched off."""
    seed: int
    most: int
    """Most rows of a window that are tested; of more, a random sample is drawn."""

    def measure_reference(self, name: str, rows: Sequence[MonitoredInference], side: SignalSide) -> ReferenceSample:
        """Return the reference ``name`` for ``side`` (prompt or answer) with its signals and effect floors."""
        inferences = self._subsample(rows, MAX_POOLED_ROWS)
        signal_values = signals.compute_signal_values(inferences, side, self.tools, without=self.without)
        permuter = two_sample_tests.PermutationCache(self.rule.permutations, self.seed)
        floors = signals.effect_floors(
            signal_values, permuter, quantile=self.rule.quantile, minimum=self.rule.minimum, seed=self.seed
        )
        return ReferenceSample(name, tuple(inferences), signal_values, floors)

    def measure_rows(self, rows: Sequence[MonitoredInference]) -> MeasuredSignals:
        """Return the signals of a window's rows, or of a sample of them."""
        inferences = self._subsample(rows)
        return {
            side: signals.compute_signal_values(inferences, side, self.tools, without=self.without) for side in SIDES
        }

    def examine_window(
        self,
        span: TimeSpan,
        rows: Sequence[MonitoredInference],
        baselines: Mapping[SignalSide, ReferenceSample],
        before: Sequence[DriftWindow],
        *,
        release: str,
        missing: Mapping[SignalSide, str],
        last: MeasuredSignals | None = None,
        pooled: Sequence[PooledWindow] = (),
    ) -> DriftWindow:
        """Return the tested window: the rows of ``span``, alone and with those of earlier windows, compared with the references.

        ``missing`` says why prompts or answers have no reference. ``before`` are the earlier windows of this release and
        reference, oldest first, and ``pooled`` the measured signals of the last of them, and of this window at
        the end. ``last``: those of the previous window, so that people see whether the change is new.
        """
        rule = self.rule
        permuter = two_sample_tests.PermutationCache(rule.permutations, self.seed)
        windows = list(pooled) or [PooledWindow(span.since, self.measure_rows(rows))]
        columns = windows[-1].columns
        tests = {
            size: self._test_pool(windows[-size:], baselines, permuter) for size in decisions.pool_sizes(len(windows))
        }
        signals_by_name = decisions.combine_pools(tests, signals.WEIGHTS, rule.false_alarms)
        untested = all(item.adjusted_p_value is None for item in signals_by_name.values())
        few = untested and len(rows) < rule.minimum
        reason = (
            [f"too few rows: {len(rows)} of {rule.minimum}"]
            if few
            else [*missing.values(), *_silent(baselines, signals_by_name)]
        )
        last_evidence = before[-1].evidence if before else 0.0
        decision = decisions.window_verdict(
            signals_by_name, budget=rule.false_alarms, last_evidence=last_evidence, missing=reason
        )
        exemplar_data: dict[str, Any] = {}
        if decision.shifted:
            exemplar_data = self._select_exemplars(self._subsample(rows), columns, baselines, signals_by_name)
            since = self._find_change(windows, baselines, signals_by_name)
            exemplar_data |= {"changed_since": since}
            decision = replace(decision, reason=f"{decision.reason}; likely since {since:%Y-%m-%d %H:%M} UTC")
        with_last = self._compare_with_last(columns, last or {})
        return self._build_window(
            span, rows, baselines, release, decision, signals=signals_by_name, previous_p_values=with_last,
            too_small_for=self._too_small(rows, baselines), **exemplar_data,
        )  # fmt: skip

    def _test_pool(
        self,
        windows: Sequence[PooledWindow],
        baselines: Mapping[SignalSide, ReferenceSample],
        permuter: two_sample_tests.PermutationCache,
    ) -> list[DriftSignal]:
        drift_signals: list[DriftSignal] = []
        for side, baseline in baselines.items():
            columns = signals.pool_columns([each.columns[side] for each in windows], MAX_POOLED_ROWS, self.seed)
            drift_signals += signals.run_all_tests(
                columns, baseline.columns, baseline.floors, permuter, level=self.rule.level, minimum=self.rule.minimum
            )
        return drift_signals

    def _find_change(
        self,
        windows: Sequence[PooledWindow],
        baselines: Mapping[SignalSide, ReferenceSample],
        drift_signals: Mapping[str, DriftSignal],
    ) -> datetime:
        """Return the start of the window from which on the rows together differ most from the reference, by the strongest signal."""
        name = min(
            (item for item in drift_signals.values() if item.shifted), key=lambda item: item.adjusted_p_value or 0.0
        ).name
        side = next(spec.side for spec in signals.SIGNALS if spec.name == name)
        columns = [each.columns[side][name] for each in windows if name in each.columns[side]]
        strengths = signals.suffix_strengths(name, columns, baselines[side].columns[name], CHANGE_POINT_ROWS, self.seed)
        strongest = strengths.index(max(strengths))
        return windows[-1 - strongest].since if len(columns) == len(windows) else windows[-1].since

    def _too_small(
        self, rows: Sequence[MonitoredInference], baselines: Mapping[SignalSide, ReferenceSample]
    ) -> float | None:
        """Return the declared smallest effect, where windows of this size can never add up to enough rows to detect it."""
        if not baselines or len(rows) < self.rule.minimum:
            return None
        reference = min(len(baseline.rows) for baseline in baselines.values())
        needed = window_size.min_window_rows(self.rule, reference, max(decisions.POOLS))
        return None if needed is not None and min(len(rows), self.most) >= needed else self.rule.min_effect

    def _compare_with_last(self, values: MeasuredSignals, last: MeasuredSignals) -> dict[str, float]:
        permuter = two_sample_tests.PermutationCache(PREVIOUS_WINDOW_PERMUTATIONS, self.seed)
        result = [
            signal
            for side, columns in last.items()
            for signal in signals.run_all_tests(
                values[side], columns, {}, permuter, level=0.05, minimum=self.rule.minimum
            )
        ]
        return {item.name: item.p_value for item in result if item.p_value is not None}

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
        """Return a window with the verdict error, because testing it raised ``error``, and the evidence of the previous one."""
        reason = f"{type(error).__name__}: {error}"[:300]
        last_evidence = before[-1].evidence if before else 0.0
        decision = decisions.WindowDecision("error", False, last_evidence, 1, reason)
        return self._build_window(span, rows, baselines, release, decision)

    def _build_window(
        self,
        span: TimeSpan,
        rows: Sequence[MonitoredInference],
        baselines: Mapping[SignalSide, ReferenceSample],
        release: str,
        decision: decisions.WindowDecision,
        **result: Any,
    ) -> DriftWindow:
        reference = baselines["prompt"].name if "prompt" in baselines else EMPTY
        return DriftWindow(
            id=compute_window_id(span, [row.id for row in rows], release, reference, self._settings()),
            since=span.since,
            until=span.until,
            rows=len(rows),
            verdict=decision.verdict,
            evidence=decision.evidence,
            evidence_required=self.rule.evidence_required,
            pooled_windows=decision.pooled_windows,
            shifted=decision.shifted,
            release=release,
            reference=reference,
            reason=decision.reason,
            **result,
        )

    def _settings(self) -> dict[str, Any]:
        rule = self.rule
        return {
            "permutations": rule.permutations,
            "quantile": rule.quantile,
            "minimum": rule.minimum,
            "false_alarms": rule.false_alarms,
            "pools": list(decisions.POOLS),
            "without": sorted(self.without),
            "embedder": self.tools.embedder.name,
            "seed": self.seed,
        }

    def _subsample(self, rows: Sequence[MonitoredInference], maximum: int | None = None) -> list[MonitoredInference]:
        import numpy as np

        maximum = maximum or self.most
        if len(rows) <= maximum:
            return list(rows)
        indexes = np.random.default_rng(self.seed).choice(len(rows), maximum, replace=False)
        return [rows[index] for index in sorted(indexes)]

    def _select_exemplars(
        self,
        rows: Sequence[MonitoredInference],
        values: MeasuredSignals,
        baselines: Mapping[SignalSide, ReferenceSample],
        drift_signals: Mapping[str, DriftSignal],
    ) -> dict[str, Any]:
        """Return exemplars of a side with texts: a shifted side before one that is not, prompts before answers; and segments of prompts."""
        texts = [
            side
            for side, base in baselines.items()
            if len(values[side].get(f"{side}_text", ())) and len(base.columns.get(f"{side}_text", ()))
        ]
        if not texts:
            return {}
        side = next(
            (text for text in texts if any(drift_signals[name].shifted for name in _of(text, drift_signals))), texts[0]
        )
        window_values, reference_values = values[side][f"{side}_text"], baselines[side].columns[f"{side}_text"]
        indexes = exemplars.most_shifted(window_values.parts[0], reference_values.parts[0], SHOWN)
        exemplar_data = {"exemplars": [rows[int(window_values.rows[index])].id for index in indexes]}
        if "prompt" not in baselines:
            return exemplar_data
        return exemplar_data | {"segments": exemplars.word_shifts(rows, baselines["prompt"].rows, SHOWN)}


def _of(side: SignalSide, drift_signals: Mapping[str, DriftSignal]) -> list[str]:
    return [item.name for item in signals.SIGNALS if item.side == side and item.name in drift_signals]


def _silent(baselines: Mapping[SignalSide, ReferenceSample], drift_signals: Mapping[str, DriftSignal]) -> list[str]:
    """Return the reason for each side that has a reference but no testable signal."""
    result = []
    for side in baselines:
        of_it = [drift_signals[name] for name in _of(side, drift_signals)]
        if of_it and all(item.adjusted_p_value is None for item in of_it):
            result.append(f"{side}s: {of_it[0].reason}")
    return result
