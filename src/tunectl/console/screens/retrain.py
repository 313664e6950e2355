"""Screens of retrains: the running one, the steps of each, triggers that started nothing and why, schedules and limits; and open decisions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from tunectl.canary.canary_store import CanaryRecord, CanaryStore
from tunectl.console.read_context import NotFoundError, ProblemList
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import approvals, rate_limits, report, signed_links
from tunectl.retraining.run_store import LOCK, ApprovalDecision, RunStore, TriggerOutcome
from tunectl.retraining.state_machine import RetrainRun, Trigger
from tunectl.status.collect import process_state

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.console.read_context import ReadContext

SHOWN: Final = 100
PATH: Final = ("proposed", "data_gate", "training", "evaluating", "staged", "canary", "promoted")
"""States of a retrain that ends with a new champion, in order. A person may be asked before the training, and before the promotion."""
IF_NOBODY: Final = {
    "retrain": "If nobody decides, the retrain is dismissed and the champion stays.",
    "promote": "If nobody decides, the new release is not promoted and the champion stays.",
}


class RetrainRow(Struct, frozen=True):
    """One retrain in a list: its state, trigger, reason and release."""

    id: str
    state: str
    began: datetime
    at: datetime
    """Time of its newest step."""
    trigger: str
    """Kind of the trigger, for example alert or schedule."""
    author: str
    """Who or what triggered it."""
    why: str
    """Message of the trigger: why a retrain was requested."""
    reason: str
    """Reason of its current state."""
    release: str
    """Release that it built; empty: none."""
    ended: bool


class PathState(Struct, frozen=True):
    """One state in the course of a retrain: passed, current or still to come."""

    state: str
    status: str
    """``done``, ``now`` or ``next``."""
    at: datetime | None = None


class TriggerRow(Struct, frozen=True):
    """A trigger of a retrain that is pending, or that started none, with the reason."""

    id: str
    at: datetime
    kind: str
    message: str
    reason: str = ""
    """Why nothing was started."""
    detail: str = ""


class ScheduleRow(Struct, frozen=True):
    """One schedule of ``retrain.schedules`` and the time of its next run."""

    name: str
    cron: str
    at: datetime


class PendingDecision(Struct, frozen=True):
    """An approval that a retrain waits for: start the training (``retrain``) or promote the release (``promote``)."""

    run: str
    question: str
    title: str
    why: str
    until: datetime
    """Deadline; after it the controller decides without a person."""
    if_nobody: str
    nonce: str
    """Identifies this question: a decision about another one does not count."""
    yes: str
    no: str
    facts: list[tuple[str, str]] = field(default_factory=list)


class DecisionRow(Struct, frozen=True):
    """An answered approval of a retrain: approved or rejected, by whom, when and why."""

    run: str
    question: str
    approved: bool
    author: str
    at: datetime
    message: str = ""
    """Why, where it was said."""


class RetrainScreen(Struct, frozen=True):
    """Content of the screen Retrain: the running retrain, all others, triggers, schedules and limits."""

    controller: str = "never"
    """``runs``, ``stopped`` or ``never``."""
    active: RetrainRow | None = None
    path: list[PathState] = field(default_factory=list)
    runs: list[RetrainRow] = field(default_factory=list)
    pending: list[TriggerRow] = field(default_factory=list)
    suppressed: list[TriggerRow] = field(default_factory=list)
    schedules: list[ScheduleRow] = field(default_factory=list)
    rests_until: datetime | None = None
    """End of the cooldown; None where there is none. A person can start a retrain before."""
    used: int = 0
    """Retrains that began training in the last seven days."""
    allowed: int = 0
    approval: str = ""
    """Whether a person must approve a retrain: ``none`` or ``required``."""
    waiting: list[PendingDecision] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


class RetrainRunScreen(Struct, frozen=True):
    """Content of the screen of one retrain: its states, steps and pending approvals."""

    row: RetrainRow | None = None
    path: list[PathState] = field(default_factory=list)
    sections: list[report.ReportSection] = field(default_factory=list)
    waiting: list[PendingDecision] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)


class DecisionsScreen(Struct, frozen=True):
    """Content of the screen Decisions: pending approvals, and answered ones."""

    waiting: list[PendingDecision] = field(default_factory=list)
    decided: list[DecisionRow] = field(default_factory=list)
    controller: str = "never"
    problems: dict[str, str] = field(default_factory=dict)


def read_retrain(context: ReadContext, query: Mapping[str, str]) -> RetrainScreen:  # noqa: ARG001 - every screen is read alike
    """Return the retrains, triggers, schedules and limits, from files; no lock is taken."""
    problems = ProblemList()
    store = RunStore(context.layout.retrain)
    runs: list[RetrainRun] = problems.attempt("retrains", store.runs, [])
    active = next((run for run in reversed(runs) if not run.ended), None)
    settings = problems.attempt("settings", context.load_settings, None)
    outcomes: list[TriggerOutcome] = problems.attempt("triggers", store.list_outcomes, [])
    pending: list[Trigger] = problems.attempt("triggers", store.list_pending_triggers, [])
    limits = rate_limits.policy_of(settings.retrain.limits) if settings else None
    return RetrainScreen(
        controller=process_state(context.layout.retrain / LOCK),
        active=describe_run(active) if active else None,
        path=list_path(active, canary=uses_canary(settings)) if active else [],
        runs=[describe_run(run) for run in runs[::-1][:SHOWN]],
        pending=[TriggerRow(one.id, one.at, one.kind, one.message) for one in pending],
        suppressed=[
            TriggerRow(one.trigger.id, one.at, one.trigger.kind, one.trigger.message, one.reason, one.detail)
            for one in outcomes[::-1]
            if one.reason
        ][:SHOWN],
        schedules=problems.attempt("schedules", lambda: list_schedules(settings, store, context.now), []),
        rests_until=rate_limits.cooldown_until(runs, context.now, limits) if limits else None,
        used=rate_limits.runs_within(runs, context.now),
        allowed=limits.week if limits else 0,
        approval=settings.retrain.approval.training if settings else "",
        waiting=problems.attempt("decisions", lambda: list(list_waiting(store, runs, context.now)), []),
        problems=problems.problems,
    )


def list_schedules(settings: TunectlConfig | None, store: RunStore, now: datetime) -> list[ScheduleRow]:
    """Return each schedule with the time of its next run, the soonest first."""
    from tunectl.retraining import cron
    from tunectl.retraining.schedules import AHEAD, CronSchedule

    if settings is None:
        return []
    marks = store.get_schedule_marks()
    rows = []
    for name, declared in settings.retrain.schedules.items():
        mark = marks.get(name)
        begin = now if mark is None or mark > now + AHEAD else mark
        rows.append(
            ScheduleRow(name, declared.cron, cron.next_slot(CronSchedule(name, declared.cron, declared.zone), begin))
        )
    return sorted(rows, key=lambda one: one.at)


def describe_run(run: RetrainRun) -> RetrainRow:
    """Return state, trigger and reason of one retrain, for a list."""
    last = run.steps[-1]
    release = (run.facts("evaluating") or run.facts("rejected")).get("release", "")
    reason = "" if last.message == run.trigger.message else last.message
    return RetrainRow(
        run.id,
        run.state,
        run.steps[0].at,
        last.at,
        run.trigger.kind,
        run.trigger.author,
        run.trigger.message,
        reason,
        str(release),
        run.ended,
    )


def uses_canary(settings: TunectlConfig | None) -> bool:
    """Return whether a staged release gets a canary test first; true where the settings cannot be read."""
    return settings is None or settings.retrain.canary is not None


def list_path(run: RetrainRun, *, canary: bool) -> list[PathState]:
    """Return the states of a retrain in their order: those that it went through, the current one, and those that may follow."""
    states = [PathState(step.state, "done", step.at) for step in run.steps]
    if run.ended:
        return states
    last = run.steps[-1]
    if last.state == "awaiting_approval":
        canary = canary and "staged" not in {step.state for step in run.steps}  # asked then, only a promotion follows
    furthest = max((PATH.index(step.state) for step in run.steps if step.state in PATH), default=0)
    ahead = [PathState(state, "next") for state in PATH[furthest + 1 :] if state != "canary" or canary]
    return [*states[:-1], PathState(last.state, "now", last.at), *ahead]


def list_waiting(store: RunStore, runs: Sequence[RetrainRun], now: datetime) -> Iterator[PendingDecision]:
    """Yield the approvals that retrains wait for and whose deadline is not over."""
    for run, until in approvals.list_open(store, runs, now):
        facts = run.steps[-1].facts
        question = facts["question"]
        yes, no = signed_links.BUTTONS[question]
        yield PendingDecision(
            run.id,
            question,
            signed_links.QUESTION_TEXTS[question],
            str(facts.get("message") or run.trigger.message),
            until,
            IF_NOBODY[question],
            facts["nonce"],
            yes,
            no,
            list(_list_facts(run, question)),
        )


def _list_facts(run: RetrainRun, question: str) -> Iterator[tuple[str, str]]:
    yield "started by", f"{run.trigger.kind}{f' ({run.trigger.author})' if run.trigger.author else ''}"
    yield "why", run.trigger.message
    snapshot_facts: dict[str, Any] = run.facts("proposed").get("snapshot") or {}
    if snapshot_facts:
        yield "people's feedback", f"on {snapshot_facts.get('inferences', 0)} answers"
    data: dict[str, Any] = run.facts("awaiting_approval").get("data") or run.facts("training")
    if "examples" in data:
        yield "rows to learn" if question == "retrain" else "rows learned", str(data["examples"])
    yield "champion", str(run.facts("proposed").get("champion") or "none")
    if question == "promote":
        yield "new release", str(run.facts("evaluating").get("release", ""))


def read_retrain_run(context: ReadContext, query: Mapping[str, str]) -> RetrainRunScreen:
    """Return one retrain, given by its id or the beginning of it.

    Raises  NotFoundError where there is none.
    """
    problems = ProblemList()
    store = RunStore(context.layout.retrain)
    name = query.get("run", "")
    runs: list[RetrainRun] = problems.attempt("retrains", store.runs, [])
    run = next((one for one in runs if name and one.id.startswith(name)), None)
    if run is None:
        if problems.problems:
            return RetrainRunScreen(problems=problems.problems)
        raise NotFoundError(name)
    canaries: list[CanaryRecord] = problems.attempt(
        "canary", lambda: CanaryStore(ReleaseRegistry(context.layout.releases)).all(), []
    )
    canary = next((one for one in canaries if one.run == run.id), None)
    retrain_report = problems.attempt("report", lambda: report.build_report(run, canary), None)
    settings = problems.attempt("settings", context.load_settings, None)
    return RetrainRunScreen(
        describe_run(run),
        list_path(run, canary=uses_canary(settings)),
        [] if retrain_report is None else retrain_report.sections,
        problems.attempt("decisions", lambda: list(list_waiting(store, [run], context.now)), []),
        problems.problems,
    )


def read_decisions(context: ReadContext, query: Mapping[str, str]) -> DecisionsScreen:  # noqa: ARG001 - every screen is read alike
    """Return the pending approvals with their deadlines, and the answered ones."""
    problems = ProblemList()
    store = RunStore(context.layout.retrain)
    runs: list[RetrainRun] = problems.attempt("retrains", store.runs, [])
    return DecisionsScreen(
        problems.attempt("decisions", lambda: list(list_waiting(store, runs, context.now)), []),
        problems.attempt("decided", lambda: _list_decided(store, runs), []),
        process_state(context.layout.retrain / LOCK),
        problems.problems,
    )


def _list_decided(store: RunStore, runs: Sequence[RetrainRun]) -> list[DecisionRow]:
    rows: list[DecisionRow] = []
    for run in runs:
        for question in signed_links.BUTTONS:
            decision: ApprovalDecision | None = store.get_decision(run.id, question)
            if decision is not None:
                rows.append(
                    DecisionRow(run.id, question, decision.approved, decision.author, decision.at, decision.message)
                )
    return sorted(rows, key=lambda row: row.at, reverse=True)[:SHOWN]
