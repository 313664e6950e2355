"""Activities of the retrain controller on this machine: inference log, registry, Git, DVC, engines."""

from __future__ import annotations

import threading
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import to_builtins

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import DriftWindow
from tunectl.backends.system import supervised_process
from tunectl.backends.vcs import git_worktree
from tunectl.canary.canary_store import CanaryStore
from tunectl.canary.sequential_test import CanaryResult
from tunectl.config.loading import checks
from tunectl.config.schema.feedback import FeedbackFromLog
from tunectl.config.schema.retrain import RetrainingConfig
from tunectl.config.schema.root import TunectlConfig
from tunectl.core import logging_setup
from tunectl.core.errors import GateError, TunectlError, UsageError
from tunectl.inference_log import snapshot, training_window
from tunectl.inference_log.log_store import LogEvent
from tunectl.monitoring import reference_data
from tunectl.monitoring import window as windows
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import (
    canary_run,
    data_collection,
    gate_evidence,
    notifications,
    promotion_gate,
    signed_links,
    state_machine,
    worktree_build,
)
from tunectl.retraining.activities import LiveOpener, RetrainRequest, StepResult
from tunectl.retraining.run_store import RunStore
from tunectl.retraining.signed_links import ApprovalQuestion
from tunectl.retraining.state_machine import RetrainRun, Trigger
from tunectl.retraining.workspace import RetrainWorkspace

APART: Final = {"retrain", "monitor", "serve", "inference_log", "annotate"}
"""Sections of the configuration that do not affect a build."""
DECIDING: Final[dict[str, Any]] = {"train": {"start", "overrides"}, "data": True, "gate": True, "canary": True}
"""Settings of the retrain controller that affect the result of a retrain; the others affect when one begins."""
_log = logging_setup.get_logger(__name__)


def settings_digest(root: TunectlConfig, settings: RetrainingConfig) -> str:
    """Return a digest of the settings that affect the result of a retrain; it is part of the run's key, by which duplicates are recognized."""
    build = root.model_dump(mode="json", exclude=APART)
    return atomic_io.sha256_json({**build, "retrain": settings.model_dump(mode="json", include=DECIDING)})


class LocalActivities:
    """Runs the steps of a run on this machine, with the project's own stores and processes; each may be repeated after a kill."""

    def __init__(
        self, workspace: RetrainWorkspace, store: ReleaseRegistry, open_log: LiveOpener, root: TunectlConfig
    ) -> None:
        """``root`` is the configuration at the start of this controller."""
        self.workspace, self.store, self._open_log, self._root = workspace, store, open_log, root
        self.settings, self.canaries = root.retrain, CanaryStore(store)

    def drift(self, now: datetime) -> tuple[DriftWindow, datetime] | None:
        champion = self.store.champion()
        if champion is None:
            return None
        return data_collection.latest_drift_window(
            self._open_log, champion.release, self._root.monitor.prompts.reference, now
        )

    def prepare(self, trigger: Trigger, now: datetime) -> RetrainRequest | None:
        """Return the frozen inputs of a run (commit, snapshot, champion), and the key by which duplicates are recognized.

        The key contains the window of a drift, the release of a proposal, and otherwise the digest of the training data.
        """
        drift = self.drift(now) if trigger.kind in ("alert", "poll") else None
        if drift is None and trigger.kind in ("alert", "poll"):
            return None
        champion = self.store.champion()
        if champion is None:
            raise UsageError(
                f"{self.store.root} has no champion, so there is nothing to compare a retrain with",
                hint="the first release: tunectl repro, or tunectl release promote ID",
            )
        layout, manifest = self.workspace.layout, self.store.manifest(champion.release)
        root = checks.load_project_config(layout).root
        commit = git_worktree.revision(layout.root)
        section = _section(root)
        config = settings_digest(root, self.settings)
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
            return RetrainRequest(state_machine.run_key(about, config, commit, base), facts)
        frozen = data_collection.freeze_snapshot(self._open_log, layout, section, now, drift[0].id if drift else None)
        facts["snapshot"] = to_builtins(frozen)
        if drift is not None:
            facts["window"] = to_builtins(drift[0])
            return RetrainRequest(state_machine.run_key(drift[0].id, config, commit, base), facts)
        quarantine = timedelta(hours=section.quarantine_hours)
        ripe = snapshot.feedback_out_of_quarantine(layout.root / section.snapshots, frozen, quarantine)
        return RetrainRequest(
            state_machine.run_key(atomic_io.sha256_json([frozen.digest, ripe]), config, commit, base), facts
        )

    def data(self, run: RetrainRun) -> StepResult:
        proposal = run.facts("proposed").get("proposal")
        if proposal is not None:
            return StepResult(True, f"release {proposal} is there already: nothing is learned for it")
        section = _section(self._root)
        window = data_collection.build_window(run, section, self.workspace, self.store, self._open_log)
        training_window.WINDOW_FORMAT.write(self.workspace.window_path(run), window)
        return data_collection.has_enough_data(window, section, self.settings.data, self.workspace.layout.root)

    def train(self, run: RetrainRun, stop: threading.Event) -> StepResult:
        proposal = run.facts("proposed").get("proposal")
        if proposal is not None:
            return worktree_build.use_existing_release(run, proposal, self.workspace, self.store)
        window = training_window.load_window(self.workspace.window_path(run))
        return worktree_build.build_release(run, window, self.settings, self.workspace, self.store, stop)

    def judge(self, run: RetrainRun, stop: threading.Event) -> promotion_gate.GateVerdict:
        release = run.facts("evaluating")["release"]
        worktree_build.check_gate_data(run, self.workspace)
        return gate_evidence.collect_evidence(
            run, release, self.store, self.settings, self._root.evaluate, self.workspace, stop
        )

    def start_canary(self, run: RetrainRun, now: datetime) -> dict[str, Any]:
        canary = self.settings.canary
        if canary is None:
            raise UsageError(
                "retrain.canary is null, so this retrain cannot start its canary test",
                hint="declare retrain.canary in conf/retrain/, then start the retrain controller again",
            )
        release = run.facts("evaluating")["release"]
        self._get_expected_sequence(run, release)  # a win over another champion could not be promoted
        result = self.canaries.start(
            canary_run.build_canary_record(
                canary,
                release,
                name=run.id,
                now=now,
                author="tunectl retrain controller",
                message=run.trigger.message,
            )
        )
        return {"canary": result.id, "share": result.rules.share, "until": result.until.isoformat()}

    def poll_canary(self, run: RetrainRun, now: datetime) -> CanaryResult | None:
        result = next((item for item in self.canaries.all() if item.id == run.id), None)
        if result is None or result.ended_at is not None:
            return None if result is None or result.decision in (None, "running") else result.reading
        with self._open_log() as log:
            reading = canary_run.evaluate_canary(result, log, self.canaries, now)
        if reading is not None and reading.decision == "running":
            self.canaries.repair()  # after the evaluation: a challenger that it stops is not restored first
        return reading

    def stop_canary(self, run: RetrainRun, reading: CanaryResult | None, now: datetime) -> None:
        result = self.canaries.running()
        if result is not None and result.run == run.id:
            self.canaries.end(result, reading.decision if reading else "running", now, reading)

    def _get_approver(self, run: RetrainRun) -> str:
        """Return who promotes: the key of the person who approved, else this program."""
        decision = RunStore(self.workspace.store_dir).get_decision(run.id, "promote")
        return decision.author if decision is not None and decision.approved else "tunectl retrain controller"

    def promote(self, run: RetrainRun, message: str, now: datetime) -> dict[str, Any]:
        """Promote the challenger: the pointer first, then the canary's end, the drift reference, and the branch; return facts."""
        facts = run.facts("evaluating")
        full_message = f"retrain {run.id}: {run.trigger.message}; {message}"
        after = self._get_expected_sequence(run, facts["release"])
        pointer = self.store.promote(
            facts["release"], author=self._get_approver(run), message=full_message[:1000], after=after
        )
        running = self.canaries.running()
        if running is not None and running.run == run.id:
            self.canaries.end(running, "promote", now, running.reading)
        self._accept_prompts(run, now)
        obstacle = None
        if self.settings.train.branch == "fast_forward":
            obstacle = git_worktree.fast_forward(self.workspace.layout.root, facts["branch"])
        return {"release": pointer.release, "sequence": pointer.sequence, "branch": facts["branch"], "left": obstacle}

    def _accept_prompts(self, run: RetrainRun, now: datetime) -> None:
        """Make the prompts since the change that started ``run`` the reference. Too few rows leave the reference as it is."""
        window = run.facts("proposed").get("window")
        if window is None:
            return
        with self._open_log() as log:
            accepted = reference_data.list_windows_since_change(log, window["id"])
            rows, minimum = sum(item.rows for item in accepted), self._root.monitor.window.min_rows
            if rows < minimum:
                _log.warning(
                    "the reference of prompts stays: the windows since the change have %s rows of %s", rows, minimum
                )
                return
            body = windows.accept(
                [item.id for item in accepted],
                author="tunectl retrain controller",
                message=f"retrain {run.id} was promoted",
            )
            log.add_event(LogEvent(f"accepted-{run.id}", now, windows.REFERENCE_SET, body))

    def _get_expected_sequence(self, run: RetrainRun, release: str) -> int:
        """Return the sequence of the pointer to the champion that the gate compared with, or to ``release`` where that is champion already; 0 without any.

        Raises  GateError where the champion is another one: the gate did not compare the challenger with that.
        """
        pointer, against = self.store.champion(), run.facts("staged").get("against")
        if pointer is None:
            return 0
        if against and pointer.release not in (against, release):
            raise GateError(
                f"release {release} was compared with {against}, but the champion is now {pointer.release}",
                hint=f"compare it with the new champion: tunectl release propose {release}",
            )
        return pointer.sequence

    def is_promoted(self, run: RetrainRun) -> bool:
        pointer, facts = self.store.champion(), run.facts("evaluating")
        return pointer is not None and pointer.release == facts.get("release")

    def cleanup(self, run: RetrainRun) -> None:
        """End the canary, kill remaining processes, and remove the worktree. Errors here are logged: the run has ended."""
        try:
            self.stop_canary(run, None, run.steps[-1].at)
            supervised_process.kill_marked(self.workspace.mark)
            if self.workspace.worktree.exists():
                git_worktree.remove(self.workspace.layout.root, self.workspace.worktree)
        except (TunectlError, OSError) as error:
            _log.error("tidying up after retrain %s: %s", run.id, error)

    def notify_finished(self, run: RetrainRun) -> None:
        """Record the end of a run in the inference log, and notify people once. Errors here are logged: the run has ended."""
        is_new, last = True, run.steps[-1]
        try:
            body = {"run": run.id, "state": run.state, "message": run.trigger.message, "reason": last.message}
            with self._open_log() as log:
                is_new = log.add_event(LogEvent(f"retrain-{run.id}", last.at, "retrain", body))
        except (TunectlError, OSError) as error:
            _log.error("retrain %s ended, but the inference log does not know: %s", run.id, error)
        if is_new:
            obstacle = last.facts.get("left") if run.state == "promoted" else None
            self._notify(
                f"retrain {run.id} {run.state}: {last.message or run.trigger.message}{f'; {obstacle}' if obstacle else ''}"
            )

    def request_approval(self, run: RetrainRun, question: ApprovalQuestion, link: str) -> None:
        self._notify(f"{signed_links.QUESTION_TEXTS[question]} {run.trigger.message}", link)

    def _notify(self, text: str, link: str = "") -> None:
        notifications.notify(text, self._root.project, self.settings.approval.notify_url_env, link)


def _section(root: TunectlConfig) -> FeedbackFromLog:
    section = root.feedback.root
    if not isinstance(section, FeedbackFromLog):
        raise UsageError(
            "feedback: none, so there is nothing to retrain with", hint="choose feedback: default in conf/config.yaml"
        )
    return section
