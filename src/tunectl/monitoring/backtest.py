"""Backtest: apply the monitor's windows and tests to past traffic; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from tunectl.artifacts.records import DriftWindow, Feedback, InferenceRecord
from tunectl.inference_log.log_store import Counts, InferenceLog, LogEvent, TimeWindow
from tunectl.monitoring.drift_monitor import DriftMonitor
from tunectl.registry import release_state
from tunectl.registry.protocols import RegistryReader
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent


@dataclass(frozen=True, slots=True)
class ChampionPeriod:
    """A period in which one release was the champion."""

    release: str
    since: datetime
    until: datetime


def champion_periods(
    log: Sequence[ReleaseEvent], champion: ChampionPointer, since: datetime, until: datetime
) -> list[ChampionPeriod]:
    """Return the periods of each champion in [since, until), in order, from the history of the release store.

    ``champion`` is the present pointer.
    """
    swaps = [(datetime.fromisoformat(entry.created_at), entry.release) for entry in release_state.swap_entries(log)]
    swaps = swaps or [(datetime.fromisoformat(champion.promoted_at), champion.release)]
    result = []
    for index, (start, release) in enumerate(swaps):
        end = swaps[index + 1][0] if index + 1 < len(swaps) else until
        first, last = max(start, since), min(end, until)
        if first < last:
            result.append(ChampionPeriod(release, first, last))
    return result


def backtest(monitor: DriftMonitor, since: datetime, until: datetime) -> Iterator[DriftWindow]:
    """Yield the windows that ``monitor`` would have closed in [since, until), tested against the current references."""
    champion = monitor.releases.champion()
    if champion is None:
        return
    settle = timedelta(seconds=monitor.settings.monitor.window.settle_seconds)
    for period in champion_periods(monitor.releases.log(), champion, since, until):
        past_monitor = monitor.replay(
            cast("InferenceLog", _ReadOnlyLog(monitor.store, period.until)),
            cast("RegistryReader", _RegistryAsOf(monitor.releases, period)),
            period.until + settle,
        )
        while closed := past_monitor.run_once():
            yield from closed


class _RegistryAsOf:
    """A release store with the champion pointer of a given time."""

    def __init__(self, releases: RegistryReader, period: ChampionPeriod) -> None:
        self._releases, self._period = releases, period

    def champion(self) -> ChampionPointer:
        return ChampionPointer(
            release=self._period.release,
            previous=None,
            promoted_at=self._period.since.isoformat(),
            author="",
            message="",
            sequence=0,
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._releases, name)


class _ReadOnlyLog:
    """An inference log that ends at a time, and in which nothing is written: a new window is taken as added, and dropped."""

    def __init__(self, store: InferenceLog, until: datetime) -> None:
        self._store, self._until = store, until

    def inferences(
        self, since: datetime | None = None, until: datetime | None = None, **filters: Any
    ) -> Iterator[InferenceRecord]:
        return self._store.inferences(since, min(until or self._until, self._until), **filters)

    def counts(self, since: datetime | None = None, until: datetime | None = None) -> Counts:
        return self._store.counts(since, min(until or self._until, self._until))

    def feedback_of(self, inference_ids: Sequence[str]) -> dict[str, list[Feedback]]:
        return self._store.feedback_of(inference_ids)

    def windows(self, since: datetime | None = None) -> list[TimeWindow]:
        return self._store.windows(since)

    def events(self, since: datetime | None = None, kind: str | None = None) -> list[LogEvent]:
        return self._store.events(since, kind)

    def add_window(self, _window: TimeWindow) -> bool:
        return True

    def add_event(self, _event: LogEvent) -> bool:
        return True
