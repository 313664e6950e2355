"""The real hands of the driver: live store, release store, Git, DVC, engines."""

from __future__ import annotations

import json
import os
import threading
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import to_builtins

from tunectl.artifacts import io
from tunectl.artifacts.records import DriftWindow
from tunectl.backends import git_worktree, process_group
from tunectl.config import check, overrides
from tunectl.config.harvest import LiveHarvest
from tunectl.config.root import Root
from tunectl.core import log
from tunectl.core.errors import GateError, TunectlError, UsageError
from tunectl.live import forgetting, gathering, snapshot
from tunectl.live.gathering import Named
from tunectl.live.snapshot import Frozen
from tunectl.live.store import Event, LiveStore
from tunectl.monitor import window as windows
from tunectl.release import calendar, gate, golden, links, machine
from tunectl.release.experiment import Reading
from tunectl.release.links import Question
from tunectl.release.machine import Run, Trigger
from tunectl.release.store import Store
from tunectl.release.trials import Trials
from tunectl.services.watcher import judging, rebuild, trying
from tunectl.services.watcher.hands import Found, Prepared
from tunectl.services.watcher.place import Place

APART: Final = ("watch", "monitor", "serve", "live", "annotate")
"""Sections of the configuration that change nothing about a build."""
BACK: Final = timedelta(days=30)
"""How far a snapshot reaches back behind the one before it, for opinions that came late."""
NEWS: Final = (timedelta(days=2), timedelta(days=32))
"""How far back windows are looked for, the nearest first: this is asked every few seconds, for years."""
DAWN: Final = datetime(1970, 1, 1, tzinfo=UTC)
_log = log.get(__name__)


class Work:
    """See ``hands.Hands``."""

    def __init__(
        self, place: Place, store: Store, live: Callable[[], AbstractContextManager[LiveStore]], root: Root
    ) -> None:
        """``live`` opens the live store; ``root`` is the configuration as this watcher began with it."""
        self.place, self.store, self._live, self._root = place, store, live, root
        self.watch, self.trials = root.watch, Trials(store)

    def drift(self, now: datetime) -> tuple[DriftWindow, datetime] | None:
        """See ``Hands``. What is older than all of ``NEWS`` is no news, and what lies ahead was made by a clock that was wrong.

        A window that could not be told neither counts nor breaks the row, as for the monitor.
        """
        champion = self.store.champion()
        if champion is None:
            return None
        for back in NEWS:
            with self._live() as live:
                rows = live.windows(now - back)
            for row in reversed(rows):
                found = _window(row.body) if row.made_at <= now + calendar.AHEAD else None
                if found is not None and found.verdict in {"ok", "drift"}:
                    fits = found.verdict == "drift" and found.release == champion.release
                    return (found, row.made_at) if fits and not self._superseded(found) else None
        return None

    def _superseded(self, window: DriftWindow) -> bool:
        """Whether a person has accepted another reference since: to whoever says that this is the world now, it is no drift."""
        if self._root.monitor.prompts.reference == "training":
            return False
        with self._live() as live:
            events = live.events(window.until, windows.ACCEPTED)
        return windows.superseded(window, [one.body for one in events])

    def prepare(self, trigger: Trigger, now: datetime) -> Prepared | None:
        """See ``Hands``. A drift is known by its window, a proposal by its release, anything else by what there is to learn."""
        drift = self.drift(now) if trigger.kind in ("alert", "poll") else None
        if drift is None and trigger.kind in ("alert", "poll"):
            return None
        champion = self.store.champion()
        if champion is None:
            raise UsageError(
                f"{self.store.root} has no champion, so there is nothing to compare a retrain with",
                hint="the first release: tunectl repro, or tunectl release promote ID",
            )
        layout, manifest = self.place.layout, self.store.manifest(champion.release)
        root = check.load(layout, overrides.replay(layout)).root
        commit = git_worktree.revision(layout.root)
        section = _section(root)
        plain = root.model_dump(mode="json")
        config = io.digest_value({name: value for name, value in plain.items() if name not in APART})
        base = manifest.lineage.revision if manifest.lineage else ""
        facts: dict[str, Any] = {
            "commit": commit,
            "champion": champion.release,
            "window_file": section.window,
            "config": config[:16],
        }
        if trigger.release is not None:
            facts["proposal"] = trigger.release
            about = f"{trigger.release} against {facts['champion']}"
            return Prepared(machine.key_of(about, config, commit, base), facts)
        frozen = self._frozen(section, now, drift[0] if drift else None)
        facts["snapshot"] = to_builtins(frozen)
        if drift is not None:
            facts["window"] = to_builtins(drift[0])
            return Prepared(machine.key_of(drift[0].id, config, commit, base), facts)
        quarantine = timedelta(hours=section.quarantine_hours)
        ripe = snapshot.settled(layout.root / section.snapshots, frozen, quarantine)
        return Prepared(machine.key_of(io.digest_value([frozen.digest, ripe]), config, commit, base), facts)

    def _frozen(self, section: LiveHarvest, now: datetime, drift: DriftWindow | None) -> Frozen:
        layout = self.place.layout
        before = gathering.named(layout.root / section.window).snapshots
        since = min(before[-1].until, now) - BACK if before else DAWN
        with self._live() as live:
            return snapshot.freeze(
                live,
                layout.root / section.snapshots,
                since=since,
                until=now,
                at=now,
                window=drift.id if drift else None,
            )

    def data(self, run: Run) -> Found:
        """See ``Hands``."""
        proposal = run.facts("proposed").get("proposal")
        if proposal is not None:
            return Found(True, f"release {proposal} is there already: nothing is learned for it")
        section, wanted = _section(self._root), self.watch.data
        named = self._named(run, section)
        io.write_json(self.place.named(run), named)
        found = gathering.harvested(named, section, self.place.layout.root)
        lessons = [lesson for lesson in found.harvest.lessons if not lesson.held]
        fresh = sum(lesson.exchange.id in found.fresh for lesson in lessons)
        people = len({lesson.by for lesson in lessons if lesson.by is not None})
        told = {
            "lessons": len(lessons),
            "new": fresh,
            "people": people,
            "edits": sum(lesson.kind == "edit" for lesson in lessons),
            "held": len(found.harvest.lessons) - len(lessons),
            "left": found.harvest.reasons,
        }
        short = [
            f"{count} {what}, {least} are needed"
            for what, count, least in (
                ("rows to learn", len(lessons), wanted.least_lessons),
                ("new rows", fresh, wanted.least_new),
                ("people", people, wanted.least_people),
            )
            if count < least
        ]
        words = f"{len(lessons)} rows to learn, {fresh} of them new, from {people} people"
        return Found(not short, f"too little to learn: {'; '.join(short)}" if short else words, told)

    def _named(self, run: Run, section: LiveHarvest) -> Named:
        """What the build learns from: the snapshots before, this one, without those who were forgotten meanwhile."""
        layout = self.place.layout
        frozen = msgspec.convert(run.facts("proposed")["snapshot"], Frozen)
        before = [one for one in gathering.named(layout.root / section.window).snapshots if one.id != frozen.id]
        snapshots = [*before, frozen]
        ids = {one.id for named in snapshots for one in snapshot.read(layout.root / section.snapshots, named)[0]}
        with self._live() as live:
            forgotten = sorted(forgetting.forgotten(live, ids))
        found = golden.newest(self.store.root)
        asked = golden.items(found[1], found[0]) if found else []
        keys = sorted({judging.digest_of(one.messages) for one in asked if one.messages})
        return Named(snapshots, forgotten, keys)

    def train(self, run: Run, stop: threading.Event) -> Found:
        """See ``Hands``."""
        proposal = run.facts("proposed").get("proposal")
        if proposal is not None:
            return rebuild.proposed(run, proposal, self.place, self.store)
        named: Named = io.read_json(self.place.named(run), Named)
        return rebuild.rebuilt(run, named, self.watch, self.place, self.store, stop)

    def judge(self, run: Run, stop: threading.Event) -> gate.Verdict:
        """See ``Hands``."""
        release = run.facts("evaluating")["release"]
        rebuild.refuse_lost(run, self.place)
        return judging.judged(run, release, self.store, self.watch, self._root.evaluate, self.place, stop)

    def begin(self, run: Run, now: datetime) -> dict[str, Any]:
        """See ``Hands``."""
        wanted = self.watch.canary
        if wanted is None:
            raise UsageError("watch.canary is null, so there is no experiment to begin", hint="tunectl check")
        made = self.trials.start(
            trying.experiment(
                wanted,
                run.facts("evaluating")["release"],
                name=run.id,
                now=now,
                by="tunectl watch",
                why=run.trigger.why,
            )
        )
        return {"experiment": made.id, "share": made.rules.share, "until": made.until.isoformat()}

    def look(self, run: Run, now: datetime) -> Reading | None:
        """See ``Hands``."""
        found = next((one for one in self.trials.all() if one.id == run.id), None)
        if found is None or found.ended is not None:
            return None if found is None or found.decision in (None, "running") else found.reading
        with self._live() as live:
            reading = trying.looked(found, live, self.trials, now)
        if reading is not None and reading.decision == "running":
            self.trials.mend()  # after the look: what does harm is not put up again for a moment
        return reading

    def end(self, run: Run, reading: Reading | None, now: datetime) -> None:
        """See ``Hands``."""
        found = self.trials.running()
        if found is not None and found.run == run.id:
            self.trials.end(found, reading.decision if reading else "running", now, reading)

    def promote(self, run: Run, why: str, now: datetime) -> dict[str, Any]:
        """See ``Hands``: the pointer first, then the experiment's end, the drift reference, and the branch."""
        told = run.facts("evaluating")
        words = f"retrain {run.id}: {run.trigger.why}; {why}"
        after = self._compared(run, told["release"])
        pointer = self.store.promote(told["release"], by="tunectl watch", why=words[:1000], after=after)
        running = self.trials.running()
        if running is not None and running.run == run.id:
            self.trials.end(running, "promote", now, running.reading)
        window = run.facts("proposed").get("window")
        if window is not None:
            body = windows.accept([window["id"]], by="tunectl watch", why=f"retrain {run.id} was promoted")
            with self._live() as live:
                live.add_event(Event(f"accepted-{run.id}", now, windows.ACCEPTED, body))
        left = None
        if self.watch.train.branch == "fast_forward":
            left = git_worktree.fast_forward(self.place.layout.root, told["branch"])
        return {"release": pointer.release, "sequence": pointer.sequence, "branch": told["branch"], "left": left}

    def _compared(self, run: Run, release: str) -> int | None:
        """The sequence of the pointer to the champion that the gate compared with; None where ``release`` is champion already.

        Raises  GateError where another one is: nothing is known about how the challenger compares with that.
        """
        pointer, against = self.store.champion(), run.facts("staged").get("against")
        if self.won(run) or pointer is None:
            return None
        if against and pointer.release != against:
            raise GateError(
                f"the champion is {pointer.release} now, and {release} was compared with {against}",
                hint=f"compare it with that: tunectl release propose {release}",
            )
        return pointer.sequence

    def won(self, run: Run) -> bool:
        """See ``Hands``."""
        pointer, told = self.store.champion(), run.facts("evaluating")
        return pointer is not None and pointer.release == told.get("release")

    def tidy(self, run: Run) -> None:
        """See ``Hands``. What fails here is logged: the run has ended."""
        try:
            self.end(run, None, run.steps[-1].at)
            process_group.sweep(self.place.mark)
            if self.place.worktree.exists():
                git_worktree.remove(self.place.layout.root, self.place.worktree)
        except (TunectlError, OSError) as error:
            _log.error("tidying up after retrain %s: %s", run.id, error)

    def concluded(self, run: Run) -> None:
        """See ``Hands``. What fails here is logged: the run has ended."""
        fresh, last = True, run.steps[-1]
        try:
            body = {"run": run.id, "state": run.state, "why": run.trigger.why, "reason": last.why}
            with self._live() as live:
                fresh = live.add_event(Event(f"retrain-{run.id}", last.at, "retrain", body))
        except (TunectlError, OSError) as error:
            _log.error("retrain %s ended, but the live store does not know: %s", run.id, error)
        if fresh:
            left = last.facts.get("left") if run.state == "promoted" else None
            self._tell(f"retrain {run.id} {run.state}: {last.why or run.trigger.why}{f'; {left}' if left else ''}")

    def ask(self, run: Run, question: Question, link: str) -> None:
        """See ``Hands``."""
        self._tell(f"{links.WORDS[question]} {run.trigger.why}\n{link}")

    def _tell(self, text: str) -> None:
        """Send a message where an address is set; people also find it in ``tunectl status``."""
        _log.info("%s", text)
        url = os.environ.get(self.watch.ask.notify_variable)
        if not url:
            return
        body = json.dumps({"text": f"{self._root.project}: {text}"}).encode()
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  the user's own address
        try:
            with urllib.request.urlopen(request, timeout=10):  # noqa: S310
                pass
        except OSError as error:
            _log.error("the message was not delivered: %s", error)


def _section(root: Root) -> LiveHarvest:
    section = root.harvest.root
    if not isinstance(section, LiveHarvest):
        raise UsageError(
            "harvest: none, so there is nothing to retrain with", hint="choose harvest: default in conf/config.yaml"
        )
    return section


def _window(body: dict[str, Any]) -> DriftWindow | None:
    try:
        return msgspec.convert(body, DriftWindow, strict=False)
    except msgspec.ValidationError:
        return None
