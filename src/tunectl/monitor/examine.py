"""One window, examined: tests, decision, exemplars and slices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunectl.artifacts.records import DriftWindow, Signal
from tunectl.monitor import decide, exemplars, signals, test
from tunectl.monitor.calibrate import Rule
from tunectl.monitor.signals import SIDES, Columns, Row, Side, Tools
from tunectl.monitor.window import EMPTY, Span, identity

SHOWN = 10
"""Exemplars, and slices, of a window."""
GLANCE = 199
"""Permutations against the window before, on which nothing rests."""
Measured = Mapping[Side, Columns]
"""What a window's rows were turned into, both sides."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one side of a window is compared with: measured once, with its floors."""

    name: str
    """Id of a window, of a release, or ``training``."""
    rows: tuple[Row, ...]
    columns: Columns
    floors: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Examiner:
    """Examines windows of one release against its baselines."""

    rule: Rule
    tools: Tools
    without: tuple[str, ...]
    """Signals that are switched off."""
    seed: int
    most: int
    """Rows of a window, or of a reference, that are looked at; more are drawn from at random."""

    def baseline(self, name: str, rows: Sequence[Row], side: Side) -> Baseline:
        """Measure a reference and work out its floors."""
        kept = self._sampled(rows)
        measured = signals.columns(kept, side, self.tools, without=self.without)
        dealer = test.Dealer(self.rule.permutations, self.seed)
        floors = signals.floors(
            measured, dealer, quantile=self.rule.quantile, minimum=self.rule.minimum, seed=self.seed
        )
        return Baseline(name, tuple(kept), measured, floors)

    def measured(self, rows: Sequence[Row]) -> Measured:
        """The values of a window's signals, of those rows that are looked at."""
        kept = self._sampled(rows)
        return {side: signals.columns(kept, side, self.tools, without=self.without) for side in SIDES}

    def window(
        self,
        span: Span,
        rows: Sequence[Row],
        baselines: Mapping[Side, Baseline],
        before: Sequence[DriftWindow],
        *,
        release: str,
        missing: Mapping[Side, str],
        measured: Measured | None = None,
        last: Measured | None = None,
    ) -> DriftWindow:
        """Compare the rows of ``span`` with the baselines; ``missing`` says of a side without one why it has none.

        ``before`` are the earlier windows of this release and reference, oldest first. ``measured``: its rows, where they were
        measured already. ``last``: those of the window before, for people to see whether this is new.
        """
        dealer = test.Dealer(self.rule.permutations, self.seed)
        measured = measured or self.measured(rows)
        found = [
            signal
            for side, baseline in baselines.items()
            for signal in signals.compared(
                measured[side],
                baseline.columns,
                baseline.floors,
                dealer,
                level=self.rule.level,
                minimum=self.rule.minimum,
            )
        ]
        judged = decide.judged(found, self.rule.level)
        few = len(rows) < self.rule.minimum
        unseen = [*missing.values(), *_silent(baselines, judged)]
        why = [f"too few rows: {len(rows)} of {self.rule.minimum}"] if few else unseen
        decision = decide.decided(judged, before, required=self.rule.required, missing=why)
        shown = self._shown(self._sampled(rows), measured, baselines, judged) if decision.moved else {}
        beside = self._beside(measured, last or {})
        return self._made(span, rows, baselines, release, decision, signals=judged, last=beside, **shown)

    def _beside(self, measured: Measured, last: Measured) -> dict[str, float]:
        dealer = test.Dealer(GLANCE, self.seed)
        found = [
            signal
            for side, columns in last.items()
            for signal in signals.compared(measured[side], columns, {}, dealer, level=0.05, minimum=self.rule.minimum)
        ]
        return {one.name: one.p_value for one in found if one.p_value is not None}

    def failed(
        self,
        span: Span,
        rows: Sequence[Row],
        baselines: Mapping[Side, Baseline],
        before: Sequence[DriftWindow],
        *,
        release: str,
        error: Exception,
    ) -> DriftWindow:
        """A window that could not be examined: it neither counts nor breaks the row."""
        reason = f"{type(error).__name__}: {error}"[:300]
        decision = decide.Decision("error", moved=False, consecutive=decide.in_a_row(before), reason=reason)
        return self._made(span, rows, baselines, release, decision)

    def _made(
        self,
        span: Span,
        rows: Sequence[Row],
        baselines: Mapping[Side, Baseline],
        release: str,
        decision: decide.Decision,
        **found: Any,
    ) -> DriftWindow:
        reference = baselines["prompt"].name if "prompt" in baselines else EMPTY
        return DriftWindow(
            id=identity(span, [row.id for row in rows], release, reference, self._settings()),
            since=span.since,
            until=span.until,
            rows=len(rows),
            verdict=decision.verdict,
            consecutive=decision.consecutive,
            required=self.rule.required,
            moved=decision.moved,
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

    def _sampled(self, rows: Sequence[Row]) -> list[Row]:
        import numpy as np

        if len(rows) <= self.most:
            return list(rows)
        places = np.random.default_rng(self.seed).choice(len(rows), self.most, replace=False)
        return [rows[place] for place in sorted(places)]

    def _shown(
        self,
        rows: Sequence[Row],
        measured: Measured,
        baselines: Mapping[Side, Baseline],
        judged: Mapping[str, Signal],
    ) -> dict[str, Any]:
        """Exemplars of a side that has texts: one that moved before one that did not, prompts before answers; slices of prompts."""
        texts = [
            side
            for side, base in baselines.items()
            if len(measured[side].get(f"{side}_text", ())) and len(base.columns.get(f"{side}_text", ()))
        ]
        if not texts:
            return {}
        side = next((one for one in texts if any(judged[name].moved for name in _of(one, judged))), texts[0])
        ours, theirs = measured[side][f"{side}_text"], baselines[side].columns[f"{side}_text"]
        places = exemplars.most_different(ours.parts[0], theirs.parts[0], SHOWN)
        told = {"exemplars": [rows[int(ours.rows[place])].id for place in places]}
        if "prompt" not in baselines:
            return told
        return told | {"slices": exemplars.slices(rows, baselines["prompt"].rows, SHOWN)}


def _of(side: Side, judged: Mapping[str, Signal]) -> list[str]:
    return [one.name for one in signals.SIGNALS if one.side == side and one.name in judged]


def _silent(baselines: Mapping[Side, Baseline], judged: Mapping[str, Signal]) -> list[str]:
    """Of each side that has a reference, and of which no signal could be told: why."""
    found = []
    for side in baselines:
        of_it = [judged[name] for name in _of(side, judged)]
        if of_it and all(one.p_value is None for one in of_it):
            found.append(f"{side}s: {of_it[0].reason}")
    return found
