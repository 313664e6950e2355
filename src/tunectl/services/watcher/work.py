"""The real hands of the driver: live store, release store, Git, DVC, engines."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import to_builtins

from tunectl.artifacts import io
from tunectl.artifacts.records import DriftWindow
from tunectl.backends import git_worktree, process_group
from tunectl.config import check, overrides
from tunectl.config.harvest import LiveHarvest
from tunectl.config.root import Root
from tunectl.config.watch import Watch
from tunectl.core import log
from tunectl.core.errors import GateError, TunectlError, UsageError
from tunectl.live import snapshot
from tunectl.live.gathering import Named
from tunectl.live.store import Event
from tunectl.monitor import window as windows
from tunectl.release import gate, links, machine
from tunectl.release.experiment import Reading
from tunectl.release.links import Question
from tunectl.release.machine import Run, Trigger
from tunectl.release.store import Store
from tunectl.release.trials import Trials
from tunectl.services.watcher import drifting, judging, learning, rebuild, telling, trying
from tunectl.services.watcher.hands import Found, LiveOpener, Prepared
from tunectl.services.watcher.place import Place

APART: Final = {"watch", "monitor", "serve", "live", "annotate"}
"""Sections of the configuration that change nothing about a build."""
DECIDING: Final[dict[str, Any]] = {"train": {"start", "overrides"}, "data": True, "gate": True, "canary": True}
"""Of the watcher's settings those that decide how a retrain ends; the others say when one begins."""
_log = log.get(__name__)


def deciding(root: Root, watch: Watch) -> str:
    """A digest of the settings that decide how a retrain ends: asked again after one of them has changed, it is no duplicate."""
    build = root.model_dump(mode="json", exclude=APART)
    return io.digest_value({**build, "watch": watch.model_dump(mode="json", include=DECIDING)})


class Work:
    """See ``hands.Hands``."""

    def __init__(self, place: Place, store: Store, live: LiveOpener, root: Root) -> None:
        """``root`` is the configuration as this watcher began with it."""
        self.place, self.store, self._live, self._root = place, store, live, root
        self.watch, self.trials = root.watch, Trials(store)

    def drift(self, now: datetime) -> tuple[DriftWindow, datetime] | None:
        """See ``Hands``."""
        champion = self.store.champion()
        if champion is None:
            return None
        return drifting.newest(self._live, champion.release, self._root.monitor.prompts.reference, now)

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
        config = deciding(root, self.watch)
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
        frozen = learning.frozen(self._live, layout, section, now, drift[0].id if drift else None)
        facts["snapshot"] = to_builtins(frozen)
        if drift is not None:
            facts["window"] = to_builtins(drift[0])
            return Prepared(machine.key_of(drift[0].id, config, commit, base), facts)
        quarantine = timedelta(hours=section.quarantine_hours)
        ripe = snapshot.settled(layout.root / section.snapshots, frozen, quarantine)
        return Prepared(machine.key_of(io.digest_value([frozen.digest, ripe]), config, commit, base), facts)

    def data(self, run: Run) -> Found:
        """See ``Hands``."""
        proposal = run.facts("proposed").get("proposal")
        if proposal is not None:
            return Found(True, f"release {proposal} is there already: nothing is learned for it")
        section = _section(self._root)
        named = learning.named(run, section, self.place, self.store, self._live)
        io.write_json(self.place.named(run), named)
        return learning.enough(named, section, self.watch.data, self.place.layout.root)

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
        """The sequence of the pointer to the champion that the gate compared with, or to ``release`` where that is champion already.

        Raises  GateError where another one is: nothing is known about how the challenger compares with that.
        """
        pointer, against = self.store.champion(), run.facts("staged").get("against")
        if pointer is None:
            return None
        if against and pointer.release not in (against, release):
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

    def _tell(self, words: str) -> None:
        telling.send(words, self._root.project, self.watch.ask.notify_variable)


def _section(root: Root) -> LiveHarvest:
    section = root.harvest.root
    if not isinstance(section, LiveHarvest):
        raise UsageError(
            "harvest: none, so there is nothing to retrain with", hint="choose harvest: default in conf/config.yaml"
        )
    return section
