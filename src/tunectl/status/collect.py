"""Collect the status of the project from its records; no service has to run.

A part that cannot be read (an unreachable database, a broken file) becomes a trouble, and the other parts are still shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from msgspec import MsgspecError

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import DriftWindow
from tunectl.backends.storage import open_inference_log
from tunectl.core.errors import TunectlError
from tunectl.registry.release_state import ChampionPointer
from tunectl.status.status_report import Drift, NextSchedule, PendingApproval, Program, Retrain, StatusReport, Traffic

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.inference_log.log_store import InferenceLog
    from tunectl.registry.release_store import ReleaseRegistry
    from tunectl.retraining.run_store import RunStore
    from tunectl.retraining.state_machine import RetrainRun

SPAN: Final = timedelta(hours=24)
"""Period of the counted traffic."""
RECENT: Final = timedelta(days=30)
"""Period of windows that are read; older ones only where there are none."""
T = TypeVar("T")
Live = tuple[Traffic | None, Drift | None, PendingApproval | None]
"""Facts from the inference log: traffic, drift, and whether a reference has to be accepted."""
NOTHING: Final[Live] = (None, None, None)


def collect_status(layout: ProjectPaths, root: TunectlConfig, now: datetime) -> StatusReport:
    """Return the status of a project as of ``now``."""
    from tunectl.registry.release_store import ReleaseRegistry
    from tunectl.retraining.run_store import LOCK, RunStore

    store, run_store = ReleaseRegistry(layout.releases), RunStore(layout.retrain)
    troubles: dict[str, str] = {}

    def collect_part(part: str, work: Callable[[], T], otherwise: T) -> T:
        try:
            return work()
        except (TunectlError, OSError, MsgspecError) as error:
            troubles.setdefault(part, error.message if isinstance(error, TunectlError) else str(error))
            return otherwise

    champion = collect_part("champion", store.champion, None)
    traffic, drift, unaccepted = collect_part("live", lambda: _live(layout, root, champion, now), NOTHING)
    runs: list[RetrainRun] = collect_part("retrains", run_store.runs, [])
    controller, active = (
        process_state(layout.retrain / LOCK),
        next((run for run in reversed(runs) if not run.ended), None),
    )
    ended = [run for run in runs if run.ended]
    waits: list[PendingApproval] = collect_part("waits", lambda: list(_waits(layout, root, runs, run_store, now)), [])
    idle: list[PendingApproval] = (
        collect_part("waits", lambda: list(_idle(store, run_store)), []) if controller != "runs" else []
    )
    rests, budget = _limits(root, runs, now)
    return StatusReport(
        champion=champion,
        challenger=collect_part("champion", store.canary, None),
        releases=len(store.ids()),
        traffic=traffic,
        monitor=process_state(layout.monitor_lock),
        drift=drift,
        controller=controller,
        approval=root.retrain.approval.training,
        now=_retrain(active) if active else None,
        last=_retrain(ended[-1]) if ended else None,
        next=collect_part("schedules", lambda: _slots(root, run_store, now), []),
        rests_until=rests,
        budget=budget,
        waits=[*waits, *([unaccepted] if unaccepted else []), *idle],
        troubles=troubles,
    )


def process_state(path: Path) -> Program:
    """Return the state of a program from its lock file ``path``: ``runs``, ``stopped``, or ``never`` where it has not run here."""
    return "runs" if lock.is_locked(path) else "stopped" if path.is_file() else "never"


def _retrain(run: RetrainRun) -> Retrain:
    last = run.steps[-1]
    return Retrain(run.id, run.state, last.at, run.trigger.kind, run.trigger.message, last.message)


def _live(layout: ProjectPaths, root: TunectlConfig, champion: ChampionPointer | None, now: datetime) -> Live:
    from tunectl.monitoring import reference_data

    with open_inference_log.open_if_exists(root.inference_log, layout) as log:
        if log is None:
            return NOTHING
        counts, newest = log.counts(now - SPAN), log.newest(1)
        windows = reference_data.list_closed_windows(log, now - RECENT) or reference_data.list_closed_windows(log)
        return (
            Traffic(
                SPAN.total_seconds() / 3600,
                counts.inferences,
                counts.finished,
                counts.users,
                counts.feedback,
                newest[0].accepted_at if newest else None,
            ),
            _drift(windows, champion.release if champion else None),
            _check_reference(log, windows, root),
        )


def _drift(windows: Sequence[DriftWindow], release: str | None) -> Drift | None:
    result = [window for window in windows if window.release == release] or list(windows)
    if not result:
        return None
    last = result[-1]
    moved = sorted(name for name, signal in last.signals.items() if signal.shifted)
    return Drift(
        last.id,
        last.release,
        last.verdict,
        last.reason,
        last.until,
        last.rows,
        last.evidence,
        last.evidence_required,
        moved,
        last.too_small_for,
    )


def _check_reference(log: InferenceLog, windows: Sequence[DriftWindow], root: TunectlConfig) -> PendingApproval | None:
    """Return the pending acceptance of a first reference window; None where none is pending."""
    from tunectl.monitoring.window import REFERENCE_SET

    prompts, least = root.monitor.prompts, root.monitor.window.min_rows
    enough = [window for window in windows if window.rows >= least]
    if prompts.reference != "live" or prompts.accept_first or not enough or log.events(kind=REFERENCE_SET):
        return None
    return PendingApproval(
        f"accept a window that prompts are compared with: tunectl monitor set-reference {enough[-1].id}",
        page=f"/drift/{enough[-1].id}",
    )


def _slots(root: TunectlConfig, store: RunStore, now: datetime) -> list[NextSchedule]:
    """Return the next slot of each schedule, as the retrain controller would see it."""
    from tunectl.retraining import cron
    from tunectl.retraining.schedules import AHEAD, CronSchedule

    marks = store.get_schedule_marks()
    next_schedules: list[NextSchedule] = []
    for name, schedule in root.retrain.schedules.items():
        mark = marks.get(name)
        begin = now if mark is None or mark > now + AHEAD else mark
        at = cron.next_slot(CronSchedule(name, schedule.cron, schedule.zone), begin)
        next_schedules.append(NextSchedule(name, schedule.cron, at))
    return sorted(next_schedules, key=lambda slot: slot.at)


def _limits(root: TunectlConfig, runs: Sequence[RetrainRun], now: datetime) -> tuple[datetime | None, tuple[int, int]]:
    from tunectl.retraining import rate_limits

    limits = rate_limits.policy_of(root.retrain.limits)
    return rate_limits.cooldown_until(runs, now, limits), (rate_limits.runs_within(runs, now), limits.week)


def _waits(
    layout: ProjectPaths, root: TunectlConfig, runs: Sequence[RetrainRun], store: RunStore, now: datetime
) -> Iterator[PendingApproval]:
    """Yield approvals that wait for a person, and a branch that was left for review."""
    from tunectl.backends.vcs import git_worktree
    from tunectl.retraining import approvals, signed_links

    for run, until in approvals.list_open(store, runs, now):
        question = signed_links.QUESTION_TEXTS[run.steps[-1].facts["question"]]
        link = _link(layout, root, run, until)
        yield PendingApproval(f"{question} {run.trigger.message}", until, link, f"/decisions/{run.id}")
    promoted = [run for run in runs if run.state == "promoted"]
    branch = promoted[-1].steps[-1].facts.get("branch") if promoted else None
    if branch and git_worktree.has_unmerged_commits(layout.root, branch):
        sentence = f"look at what retrain {promoted[-1].id} committed, and merge it: git merge {branch}"
        yield PendingApproval(sentence, page=f"/retrain/{promoted[-1].id}")


def _link(layout: ProjectPaths, root: TunectlConfig, run: RetrainRun, until: datetime) -> str | None:
    """Return the link that people were sent; None for users who may not read the secret that signs it."""
    from tunectl.retraining import signed_links
    from tunectl.retraining.workspace import RetrainWorkspace

    facts = run.steps[-1].facts
    try:
        secret = RetrainWorkspace(layout).secret.read_text(encoding="utf-8").strip().encode()
    except OSError:
        return None
    token = signed_links.ApprovalToken(run.id, facts["question"], int(until.timestamp()), facts["nonce"])
    return signed_links.address(root.retrain.approval.url, token, secret)


def _idle(store: ReleaseRegistry, run_store: RunStore) -> Iterator[PendingApproval]:
    """Yield triggers and runs that wait for a retrain controller."""
    from tunectl.canary.canary_store import CanaryStore

    waiting, running = run_store.list_pending_triggers(), CanaryStore(store).running()
    if waiting:
        what = "1 request for a retrain waits" if len(waiting) == 1 else f"{len(waiting)} requests for a retrain wait"
        yield PendingApproval(f"{what}, and no controller takes it up: tunectl retrain controller", page="/retrain")
    if running is not None:
        yield PendingApproval(
            f"canary {running.id} runs and nobody evaluates it: tunectl retrain controller, or tunectl release canary stop",
            page="/releases",
        )
