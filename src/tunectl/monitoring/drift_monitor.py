"""Check the inference log once: close windows that are due, test them, store and show the result.

All state is in the inference log, so a killed monitor resumes where it was, and two checks of the same
traffic give one window: its id is the hash of the rows and the settings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import msgspec

from tunectl.artifacts import private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow, InferenceRecord
from tunectl.config.schema.monitor import MonitorSettings
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError, MissingExtraError, TunectlError
from tunectl.core.hashing import hash_to_id
from tunectl.inference_log.log_store import InferenceLog, LogEvent, TimeWindow
from tunectl.monitoring import reference_data, report_files
from tunectl.monitoring import window as windows
from tunectl.monitoring.decision import POOLS
from tunectl.monitoring.drift_detector import DriftDetector, MeasuredSignals, PooledWindow, ReferenceSample
from tunectl.monitoring.reference_data import ReferenceData
from tunectl.monitoring.signals import MonitoredInference, SignalSide
from tunectl.monitoring.window import TimeSpan
from tunectl.privacy.mask import PiiMasker
from tunectl.registry.protocols import RegistryReader
from tunectl.registry.release_state import ChampionPointer

AHEAD: Final = 100
"""Most windows closed in one check: a monitor that was off for long catches up in steps."""
LATE_ROW_TIME: Final = timedelta(minutes=2)
"""How long after its traffic has settled an open window is still read: then nothing new can be in it."""
Reporter = Callable[[DriftWindow, Sequence[MonitoredInference], dict[str, Sequence[MonitoredInference]], Path], None]
"""Writes the report of a window; a failure is logged, and the verdict is kept."""


@dataclass
class DriftMonitor:
    """Closes the due windows of one inference log, tests them for drift and stores the results; the monitor process owns it."""

    settings: MonitorSettings
    layout: ProjectPaths
    store: InferenceLog
    releases: RegistryReader
    examiner: DriftDetector
    report: Reporter | None = None
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    stopped: Callable[[], bool] = lambda: False
    """Called between two windows, so that a stop need not wait for the last of many."""
    masker: PiiMasker | None = None
    """Masks the recorded answers as live ones were masked before they were stored."""
    _measured: dict[tuple[SignalSide, str], ReferenceSample] = field(default_factory=dict)
    _counted: tuple[datetime | None, int, datetime] = (None, 0, datetime.min.replace(tzinfo=UTC))
    """Start of the open window, answers finished in it, and when that number was new."""
    _columns: dict[str, MeasuredSignals] = field(default_factory=dict)
    """Measured signals of the last windows, by id; others are measured again from the inference log."""
    _warned: bool = False
    """Whether the warning about too small windows was logged."""
    _before: list[DriftWindow] | None = None
    """All closed windows, oldest first; read once, because only one monitor at a time runs on a store."""

    def replay(self, store: InferenceLog, releases: RegistryReader, now: datetime) -> DriftMonitor:
        """Return a monitor with these settings for past traffic.

        It reads ``store`` and ``releases``, uses ``now`` as the current time, starts without closed windows, and writes no reports.
        """
        return replace(self, store=store, releases=releases, report=None, now=lambda: now, _before=[])

    def run_once(self, closed: Callable[[DriftWindow], None] = lambda _window: None) -> list[DriftWindow]:
        """Return the windows that were due, now tested and stored, oldest first; ``closed`` is called for each as soon as it is stored.

        Raises  InfrastructureError where the inference log fails, or the clock was set back by more than a window;
                ArtifactError for a damaged release.
        """
        windows: list[DriftWindow] = []
        champion = self.releases.champion()
        while champion is not None and len(windows) < AHEAD and not self.stopped():
            window = self._next(champion)
            if window is None:
                break
            windows.append(window)
            closed(window)
        return windows

    def find_latest_window(self) -> DriftWindow | None:
        """Return the newest closed window since the champion was promoted; None where there is none, or the reference of prompts has changed since."""
        champion = self.releases.champion()
        if champion is None:
            return None
        promoted = datetime.fromisoformat(champion.promoted_at)
        since_promotion = [
            window
            for window in self.list_closed_windows()
            if window.release == champion.release and window.since >= promoted
        ]
        return since_promotion[-1] if since_promotion and not self._is_stale(since_promotion[-1]) else None

    def _is_stale(self, window: DriftWindow) -> bool:
        if self.settings.monitor.prompts.reference == "training":
            return False
        return windows.is_stale(
            window, [event.body for event in self.store.events(window.until, windows.REFERENCE_SET)]
        )

    def list_closed_windows(self) -> list[DriftWindow]:
        """Return the windows that were closed so far, oldest first."""
        if self._before is None:
            self._before = reference_data.list_closed_windows(self.store)
        return self._before

    def _next(self, champion: ChampionPointer) -> DriftWindow | None:
        since = self._since(champion)
        if since is None:
            return None
        rule = self.settings.monitor.window
        if since - self.now() > timedelta(hours=rule.max_hours):
            raise InfrastructureError(
                f"the next window begins at {since:%Y-%m-%d %H:%M} UTC, but the clock of this machine says "
                f"{self.now():%Y-%m-%d %H:%M}; drift is not monitored until then",
                hint="set the clock of this machine, and of the servers that write to the inference log",
            )
        if not self._due(since):
            return None
        waiting = windows.select_window_rows(
            self.store.inferences(since, release=champion.release, variant=windows.CHAMPION), rule.max_rows
        )
        span = windows.closable_window(
            since,
            self.now(),
            [item.accepted_at for item in waiting],
            rows=rule.max_rows,
            hours=rule.max_hours,
            settle=rule.settle_seconds,
        )
        if span is None:
            return None
        inside = [item for item in waiting if span.since <= item.accepted_at < span.until]
        return self._close_window(champion, span, inside)

    def _due(self, since: datetime) -> bool:
        """Return whether a window may be ready: enough answers are finished, more than at the last check, or its time is over.

        Counting is cheap; reading all inferences of a day every few seconds is not.
        """
        rule = self.settings.monitor.window
        if self.now() - since >= timedelta(hours=rule.max_hours):
            return True
        finished, now = self.store.counts(since).finished, self.now()
        if self._counted[:2] != (since, finished):
            self._counted = (since, finished, now)
        settle_until = self._counted[2] + timedelta(seconds=rule.settle_seconds) + LATE_ROW_TIME
        return finished >= rule.max_rows and now <= settle_until

    def _since(self, champion: ChampionPointer) -> datetime | None:
        """Return the start of the next window: after the last one, but not before the champion's promotion.

        The first one begins with the first inference; None before there is one.
        """
        promoted = datetime.fromisoformat(champion.promoted_at)
        before = self.list_closed_windows()
        if before:
            return max(before[-1].until, promoted)
        first = self.store.counts(promoted).first
        return None if first is None else max(promoted, first)

    def _close_window(
        self, champion: ChampionPointer, span: TimeSpan, inside: Sequence[InferenceRecord]
    ) -> DriftWindow:
        feedback_by_inference = self.store.feedback_of([item.id for item in inside])
        rows = [
            windows.to_monitored_inference(item, feedback_by_inference.get(item.id, ()), self._within)
            for item in inside
        ]
        baselines, missing = self.baselines(champion.release)
        name = baselines["prompt"].name if "prompt" in baselines else windows.EMPTY
        before = windows.select_streak(self.list_closed_windows(), champion.release, name)
        try:
            measured, last = self.examiner.measure_rows(rows), self._last(champion.release)
            pooled = [*self._earlier(before), PooledWindow(span.since, measured)]
            window = self.examiner.examine_window(
                span, rows, baselines, before, release=champion.release, missing=missing, last=last, pooled=pooled
            )
            self._columns[window.id] = measured
        except MissingExtraError:
            raise
        except Exception as error:  # noqa: BLE001  whatever is in this window, the next one is looked at
            logging_setup.get_logger(__name__).exception("window from %s to %s", span.since, span.until)
            window = self.examiner.build_error_window(
                span, rows, baselines, before, release=champion.release, error=error
            )
        self._warn_once(window)
        window = self._write_report(window, rows, baselines)
        self.store.add_window(
            TimeWindow(window.id, window.since, window.until, self.now(), msgspec.to_builtins(window))
        )
        self.list_closed_windows().append(window)
        self._accept_first(window)
        return window

    def _last(self, release: str) -> MeasuredSignals | None:
        """Return the measured signals of a release's previous window, with enough rows for a verdict; None where it has none."""
        minimum = self.examiner.rule.minimum
        enough = [
            window
            for window in self.list_closed_windows()
            if window.release == release and window.rows >= minimum and window.verdict != "error"
        ]
        if not enough:
            return None
        return self._measure(enough[-1].id)

    def _measure(self, window: str) -> MeasuredSignals | None:
        """Return the measured signals of a closed window, for the rows that are still in the inference log; None where none are left."""
        if window not in self._columns:
            stored = next((item for item in self.store.windows() if item.id == window), None)
            if stored is None:
                return None
            self._columns[window] = self.examiner.measure_rows(reference_data.rows_of(self.store, stored, self._within))
        return self._columns[window]

    def _earlier(self, before: Sequence[DriftWindow]) -> list[PooledWindow]:
        """Return the windows that are pooled with the next one, oldest first; after a restart their rows are read from the inference log."""
        pooled = [item for item in before if item.rows and item.verdict != "error"][1 - max(POOLS) :]
        result = [(item, self._measure(item.id)) for item in pooled]
        needed = {item.id for item in pooled} | {window.id for window in self.list_closed_windows()[-1:]}
        self._columns = {name: columns for name, columns in self._columns.items() if name in needed}
        return [PooledWindow(item.since, columns) for item, columns in result if columns is not None]

    def _warn_once(self, window: DriftWindow) -> None:
        if window.too_small_for is None or self._warned:
            return
        self._warned = True
        logging_setup.get_logger(__name__).warning(
            "windows of %s rows never add up to a change of %s (monitor.rule.min_effect): raise monitor.window.max_rows and "
            "max_sampled_rows, or the rows of the reference; tunectl monitor calibrate says how many are needed",
            window.rows,
            window.too_small_for,
        )

    def baselines(self, release: str) -> tuple[dict[SignalSide, ReferenceSample], dict[SignalSide, str]]:
        """Return (measured references of a release, reasons why there is none), each by ``prompt`` and ``answer``.

        Raises  ArtifactError for a damaged release.
        """
        sides: dict[SignalSide, ReferenceData] = {
            "prompt": self._prompts(),
            "answer": self._answers(release),
        }
        samples: dict[SignalSide, ReferenceSample] = {}
        missing: dict[SignalSide, str] = {}
        for side, reference in sides.items():
            minimum = self.examiner.rule.minimum
            if len(reference.rows) >= minimum:
                samples[side] = self._baseline(side, reference)
            else:
                rows = f"the reference has {len(reference.rows)} rows of {minimum}"
                missing[side] = f"{side}s: {reference.why or rows}"
        return samples, missing

    def _baseline(self, side: SignalSide, reference: ReferenceData) -> ReferenceSample:
        # Rows may have been erased since, and others may have taken their places.
        key = (side, hash_to_id(reference.name, [row.id for row in reference.rows]))
        if key not in self._measured:
            self._measured = {item: values for item, values in self._measured.items() if item[0] != side}
            self._measured[key] = self.examiner.measure_reference(reference.name, reference.rows, side)
        return self._measured[key]

    def _prompts(self) -> ReferenceData:
        prompts = self.settings.monitor.prompts
        if prompts.reference == "training":
            return reference_data.training_prompts(self.layout, prompts.max_rows)
        return reference_data.load_accepted_windows(self.store, prompts.max_rows, self._within)

    def _answers(self, release: str) -> ReferenceData:
        """Return the reference rows of answers: those of the release; where live ones are declared, of accepted windows, else of its canary.

        Live ones are declared where people do not ask what the validation prompts ask, so that a comparison with the recorded answers would
        show drift: without live rows answers are not compared.
        """
        if self.settings.monitor.answers.reference == "release":
            return reference_data.load_recorded_answers(self.releases.fetch(release), self.masker)
        max_rows = self.settings.monitor.prompts.max_rows
        accepted = reference_data.load_accepted_windows(self.store, max_rows, self._within, release)
        if len(accepted.rows) >= self.examiner.rule.minimum:
            return accepted
        canary = reference_data.canary_answers(self.store, release, max_rows, self._within)
        return canary if len(canary.rows) >= self.examiner.rule.minimum else accepted

    @property
    def _within(self) -> float:
        return self.settings.monitor.window.settle_seconds

    def _accept_first(self, window: DriftWindow) -> None:
        prompts = self.settings.monitor.prompts
        must_accept = prompts.reference == "live" and prompts.accept_first
        enough = window.rows >= self.examiner.rule.minimum and window.verdict != "error"
        # a reference whose rows were pruned or erased is for a person to replace: what comes now may be the drift
        if must_accept and enough and not self.store.events(kind=windows.REFERENCE_SET):
            body = windows.accept(
                [window.id], author="tunectl monitor", message="the first window (prompts.accept_first)"
            )
            self.store.add_event(LogEvent(f"first-{window.id}", self.now(), windows.REFERENCE_SET, body))

    def _write_report(
        self, window: DriftWindow, rows: Sequence[MonitoredInference], baselines: dict[SignalSide, ReferenceSample]
    ) -> DriftWindow:
        if self.report is None or not baselines or not rows:
            return window
        folder = self.layout.root / self.settings.monitor.reports
        name = f"{window.id}.html"
        try:
            sides: dict[str, Sequence[MonitoredInference]] = {
                side: baseline.rows for side, baseline in baselines.items()
            }
            private_files.make_folder(folder)
            self.report(window, rows, sides, folder / name)
        except TunectlError as error:
            logging_setup.get_logger(__name__).error("%s", error)
            return window
        except Exception:  # noqa: BLE001  a picture that cannot be drawn costs no verdict
            logging_setup.get_logger(__name__).exception("the report of window %s", window.id)
            return window
        report_files.prune(folder, self.settings.monitor.keep_reports)
        return msgspec.structs.replace(window, report=name) if (folder / name).is_file() else window
