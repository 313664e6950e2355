"""A glance at the loop, out of the records; nothing needs to run.

What cannot be told (a database that is away, a file that is broken) is a trouble of its own part and keeps no other from being told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import MsgspecError

from tunectl.artifacts import lock
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import DriftWindow
from tunectl.cli import live_store
from tunectl.cli.status_glance import Drift, Glance, Program, Retrain, Slot, Traffic, Wait
from tunectl.core.errors import TunectlError
from tunectl.release.history import Champion

if TYPE_CHECKING:
    from tunectl.config.root import Root
    from tunectl.live.store import LiveStore
    from tunectl.release.book import Book
    from tunectl.release.machine import Run
    from tunectl.release.store import Store

SPAN: Final = timedelta(hours=24)
"""Of traffic that is counted."""
RECENT: Final = timedelta(days=30)
"""Windows that are read; older ones only where there is none."""
T = TypeVar("T")
Live = tuple[Traffic | None, Drift | None, Wait | None]
"""What the live store says: traffic, drift, and whether a reference has to be accepted."""
NOTHING: Final[Live] = (None, None, None)


def glance(layout: Layout, root: Root, now: datetime) -> Glance:
    """Look at everything; ``now`` is the time."""
    from tunectl.release.book import LOCK, Book
    from tunectl.release.store import Store

    store, book = Store(layout.releases), Book(layout.retrain)
    troubles: dict[str, str] = {}

    def told(part: str, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except (TunectlError, OSError, MsgspecError) as error:
            troubles.setdefault(part, error.message if isinstance(error, TunectlError) else str(error))
            return otherwise

    champion = told("champion", store.champion, None)
    traffic, drift, unaccepted = told("live", lambda: _live(layout, root, champion, now), NOTHING)
    runs: list[Run] = told("retrains", book.runs, [])
    watcher, active = program(layout.retrain / LOCK), next((run for run in reversed(runs) if not run.ended), None)
    ended = [run for run in runs if run.ended]
    waits: list[Wait] = told("waits", lambda: list(_waits(layout, root, runs, book, now)), [])
    idle: list[Wait] = told("waits", lambda: list(_idle(store, book)), []) if watcher != "runs" else []
    rests, budget = _limits(root, runs, now)
    return Glance(
        champion=champion,
        challenger=told("champion", store.trial, None),
        releases=len(store.ids()),
        traffic=traffic,
        monitor=program(layout.monitor_lock),
        drift=drift,
        watcher=watcher,
        mode=root.watch.mode,
        now=_retrain(active) if active else None,
        last=_retrain(ended[-1]) if ended else None,
        next=told("schedules", lambda: _slots(root, book, now), []),
        rests_until=rests,
        budget=budget,
        waits=[*waits, *([unaccepted] if unaccepted else []), *idle],
        troubles=troubles,
    )


def program(place: Path) -> Program:
    """What the lock of a program says of it."""
    return "runs" if lock.taken(place) else "stopped" if place.is_file() else "never"


def _retrain(run: Run) -> Retrain:
    last = run.steps[-1]
    return Retrain(run.id, run.state, last.at, run.trigger.kind, run.trigger.why, last.why)


def _live(layout: Layout, root: Root, champion: Champion | None, now: datetime) -> Live:
    from tunectl.services.drift import references

    with live_store.kept(root.live, layout) as live:
        if live is None:
            return NOTHING
        counts, newest = live.counts(now - SPAN), live.newest(1)
        windows = references.closed(live, now - RECENT) or references.closed(live)
        return (
            Traffic(
                SPAN.total_seconds() / 3600,
                counts.exchanges,
                counts.finished,
                counts.users,
                counts.feedback,
                newest[0].accepted_at if newest else None,
            ),
            _drift(windows, champion.release if champion else None),
            _unaccepted(live, windows, root),
        )


def _drift(windows: Sequence[DriftWindow], release: str | None) -> Drift | None:
    found = [one for one in windows if one.release == release] or list(windows)
    if not found:
        return None
    one = found[-1]
    moved = sorted(name for name, signal in one.signals.items() if signal.moved)
    return Drift(
        one.id, one.release, one.verdict, one.reason, one.until, one.rows, one.consecutive, one.required, moved
    )


def _unaccepted(live: LiveStore, windows: Sequence[DriftWindow], root: Root) -> Wait | None:
    """Prompts are compared with windows that somebody accepted, and nobody has accepted one."""
    from tunectl.monitor.window import ACCEPTED

    declared, least = root.monitor.prompts, root.monitor.window.minimum
    enough = [one for one in windows if one.rows >= least]
    if declared.reference != "live" or declared.accept_first or not enough or live.events(kind=ACCEPTED):
        return None
    return Wait(f"accept a window that prompts are compared with: tunectl monitor accept {enough[-1].id}")


def _slots(root: Root, book: Book, now: datetime) -> list[Slot]:
    """The next slot of each schedule, as the watcher would see it."""
    from tunectl.backends import cron_calendar
    from tunectl.release.calendar import AHEAD, Schedule

    marks = book.calendar()
    found: list[Slot] = []
    for name, declared in root.watch.schedules.items():
        mark = marks.get(name)
        begin = now if mark is None or mark > now + AHEAD else mark
        at = cron_calendar.following(Schedule(name, declared.cron, declared.zone), begin)
        found.append(Slot(name, declared.cron, at))
    return sorted(found, key=lambda slot: slot.at)


def _limits(root: Root, runs: Sequence[Run], now: datetime) -> tuple[datetime | None, tuple[int, int]]:
    from tunectl.release import admission

    limits = admission.policy_of(root.watch.limits)
    return admission.rests_until(runs, now, limits), (admission.trained_within(runs, now), limits.week)


def _waits(layout: Layout, root: Root, runs: Sequence[Run], book: Book, now: datetime) -> Iterator[Wait]:
    """Questions that are open, and a branch that was left to be looked at."""
    from tunectl.backends import git_worktree
    from tunectl.release import links

    for run in runs:
        facts = run.steps[-1].facts
        if run.state != "awaiting_approval" or book.answered(run.id, facts["question"]) is not None:
            continue
        until = datetime.fromisoformat(facts["until"])
        if now < until:
            yield Wait(f"{links.WORDS[facts['question']]} {run.trigger.why}", until, _link(layout, root, run, until))
    done = [run for run in runs if run.state == "promoted"]
    branch = done[-1].steps[-1].facts.get("branch") if done else None
    if branch and git_worktree.unmerged(layout.root, branch):
        yield Wait(f"look at what retrain {done[-1].id} committed, and merge it: git merge {branch}")


def _link(layout: Layout, root: Root, run: Run, until: datetime) -> str | None:
    """The very link that people were sent; None for who may not read the secret that signs it."""
    from tunectl.release import links
    from tunectl.services.watcher.place import Place

    facts = run.steps[-1].facts
    try:
        secret = Place(layout).secret.read_text(encoding="utf-8").strip().encode()
    except OSError:
        return None
    given = links.Pass(run.id, facts["question"], int(until.timestamp()), facts["nonce"])
    return links.address(root.watch.ask.url, given, secret)


def _idle(store: Store, book: Book) -> Iterator[Wait]:
    """What nobody takes up while no watcher runs."""
    from tunectl.release.trials import Trials

    waiting, running = book.waiting(), Trials(store).running()
    if waiting:
        yield Wait(f"{len(waiting)} asked for a retrain and nobody takes it up: tunectl watch")
    if running is not None:
        yield Wait(
            f"experiment {running.id} runs and nobody looks at it: tunectl watch, or tunectl release experiment stop"
        )
