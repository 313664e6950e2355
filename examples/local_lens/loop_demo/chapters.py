"""The chapters of the demo, in the order in which they run. Each one ends with checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from loop_demo import timeline as times
from loop_demo.context import DemoAbortedError, DemoContext
from loop_demo.simulated_users import RequestCounts
from loop_demo.timeline import Category, Timeline, format_duration
from tunectl.artifacts.records import DriftWindow
from tunectl.retraining.state_machine import RetrainRun

MAX_EXTRA_WINDOWS = 2
"""Windows after the first in which the drift may last against the new reference."""
MAX_WINDOWS_TO_DETECT = 5
"""Windows within which the monitor must detect the change."""
MAX_ROLLBACK_SECONDS = 5.0
"""Longest that a rollback may take."""
TITLE = "Retraining loop"
WITH_PROMETHEUS = "Prometheus counts windows with drift, Alertmanager sends a webhook to the retrain controller, and\nthe controller starts a retrain."
WITHOUT_PROMETHEUS = "Prometheus and Alertmanager are not installed; the demo script sends the webhook that Alertmanager\nwould send to the retrain controller."


def describe_window(window: DriftWindow) -> tuple[str, Category]:
    """Describe a window in one line."""
    if window.verdict == "insufficient":
        return f"window {window.id[:6]}: {window.rows} answers; {window.reason}", "normal"
    category: Category = "bad" if window.verdict == "drift" else "changed" if window.shifted else "good"
    return f"window {window.id[:6]}: {window.verdict}; {window.reason}", category


def run_quiet_traffic(demo: DemoContext) -> None:
    """Send baseline traffic: no alert, no retrain."""
    demo.console_log.start_chapter(
        "Baseline traffic",
        "Users send the requests that the model was trained for. The first windows become the reference;\nthe next ones must show no drift.",
    )
    scenario, names, result = demo.scenario, list[str](), list[DriftWindow]()
    with demo.measure_span("users", "baseline traffic"):
        for _ in range(scenario.baseline):
            window, _ = demo.fill_window(demo.baseline_requests)
            names.append(window.id)
            demo.console_log.print_line(*describe_window(window))
        demo.run_command("monitor", "set-reference", *names, "-m", "baseline traffic")
        demo.console_log.print_line(
            f"set as the reference: tunectl monitor set-reference {' '.join(name[:6] for name in names)}",
            "active",
        )
        for _ in range(scenario.quiet):
            window, _ = demo.fill_window(demo.baseline_requests)
            result.append(window)
            demo.console_log.print_line(*describe_window(window))
    is_quiet = (
        all(item.verdict == "ok" for item in result)
        and not demo.stack.list_firing_alerts()
        and not demo.run_store.runs()
    )
    signals = max(sum(signal.p_value is not None for signal in window.signals.values()) for window in result)
    evidence = f"windows of {scenario.rows} answers with {signals} signals: {len(result)}; no alert, no retrain"
    demo.console_log.record_check(
        "baseline traffic raises no alert",
        passed=is_quiet,
        evidence=evidence if is_quiet else describe_window(result[-1])[0],
    )


def run_changed_traffic(demo: DemoContext) -> None:
    """Send changed traffic, and wait until the monitor detects the drift."""
    demo.console_log.start_chapter(
        "Requests change",
        "Requests have a new neighbourhood, a new kind of business and a new tone. Some users edit the ad\nthat they got.",
    )
    counts = demo.users.counts
    up, down, edits = counts.up, counts.down, counts.edits
    with demo.measure_span("users", "changed requests", "changed"):
        demo.changed_at = datetime.now(demo.began.tzinfo)
        for turn in range(1, 100):
            window, made_at = demo.fill_window(demo.changed_requests, edits=demo.scenario.edits)
            demo.console_log.print_line(*describe_window(window))
            if window.verdict == "drift" or turn >= MAX_WINDOWS_TO_DETECT:
                break
    approval_rate = RequestCounts(up=counts.up - up, down=counts.down - down).approval_rate or 0
    demo.console_log.print_line(
        f"users edited {counts.edits - edits} ads; thumbs up for {approval_rate:.0%} of the others"
    )
    if not demo.console_log.record_check(
        "the monitor detects the change",
        passed=window.verdict == "drift",
        evidence=f"after {turn} {'window' if turn == 1 else 'windows'}, evidence {window.evidence:.1f} of {window.evidence_required:.1f}; {format_duration((made_at - demo.changed_at).total_seconds())} after the first changed request",
    ):
        raise DemoAbortedError(f"no drift in {turn} windows: {window.reason}")
    demo.drifted = window, made_at


def check_alert(demo: DemoContext) -> None:
    """Check that the alert starts one retrain."""
    installed = demo.stack.prometheus is not None
    demo.console_log.start_chapter("An alert and a webhook", WITH_PROMETHEUS if installed else WITHOUT_PROMETHEUS)
    assert demo.drifted is not None
    window, made_at = demo.drifted
    if not installed:
        demo.console_log.print_line("no Prometheus: the demo script sends the webhook", "active")
        summary = f"Drift: {window.reason}."
        demo.stack.retrain.until(lambda: demo.stack.send_webhook(made_at, summary) == 200, demo.scenario.settle_seconds)
    run = demo.wait_for_run(0)
    waited = (run.trigger.at - made_at).total_seconds()
    demo.console_log.print_line(f"{times.name_alert_sender(run)}: {run.trigger.message}", "changed")
    is_one = len(demo.run_store.runs()) == 1 and run.trigger.kind == "alert"
    demo.console_log.record_check(
        "one alert starts one retrain", passed=is_one, evidence=f"{run.id}, {waited:.1f} s after the verdict"
    )


def check_retrain(demo: DemoContext) -> None:
    """Follow the retrain through feedback, build and gate."""
    demo.console_log.start_chapter(
        "Feedback, dvc repro, gate",
        "Edits of users become training rows, with limits per user; a part is held out for the gate.\nFine-tuning continues from the champion, while users keep sending requests.",
    )
    run, scenario = demo.run_store.runs()[0], demo.scenario
    with (
        demo.measure_span("users", "requests during the build", "changed"),
        demo.users.send_in_background(demo.changed_requests, scenario.background_rate) as background,
    ):
        run = demo.follow(run, "canary", seconds=scenario.build_seconds)
    facts = run.facts("training")
    learned = f"{facts.get('examples', 0)} training rows from {facts.get('annotators', 0)} users, {facts.get('held_out', 0)} held out for the gate"
    demo.console_log.record_check(
        "the retrain learns from edits of users", passed=facts.get("edits", 0) > 0, evidence=learned
    )
    answered = f"{background.answered} of {background.requests} requests"
    demo.console_log.record_check(
        "the service answers during the build",
        passed=not background.dropped and background.answered > 0,
        evidence=answered,
    )
    _print_gate_result(demo, run)
    if not demo.console_log.record_check(
        "the gate accepts the new release", passed=run.state == "canary", evidence=_last_message(run)
    ):
        raise DemoAbortedError(f"the retrain is {run.state}: {run.steps[-1].message}")


def check_canary(demo: DemoContext) -> None:
    """Check that the canary test promotes the challenger."""
    demo.console_log.start_chapter(
        "A canary on live traffic",
        "Half of the users get answers of the challenger. A sequential test decides at any time, and the\nserver replaces the champion without a restart.",
    )
    old = demo.champion
    with demo.measure_span("users", "canary", "changed"):
        run = demo.run_canary(demo.run_store.runs()[0])
        demo.users.send_requests(demo.changed_requests, demo.scenario.batch)
    new = demo.champion
    if not demo.console_log.record_check(
        "the better model is promoted", passed=run.state == "promoted" and new != old, evidence=_last_message(run)
    ):
        raise DemoAbortedError(f"the canary ended: {run.state}, {run.steps[-1].message}")
    promoted = datetime.fromisoformat(demo.registry.champion().promoted_at)  # type: ignore[union-attr]
    seconds = _measure_delay(demo, promoted, lambda variants: variants.get("champion") == new)
    counts = demo.users.counts
    complete = f"{counts.answered:,} of {counts.requests:,} answers complete so far; the new release served after {seconds:.1f} s"
    demo.console_log.record_check(
        "no request is dropped",
        passed=not counts.dropped,
        evidence=complete if not counts.dropped else counts.dropped[0],
    )


def check_new_reference(demo: DemoContext) -> None:
    """Check that there is no drift against the new reference."""
    demo.console_log.start_chapter(
        "No drift against the new reference",
        "The window that started the retrain is the new reference of prompts, and the answers of the\ncanary are the new reference of answers.",
    )
    new = demo.champion
    with demo.measure_span("users", "new reference"):
        for _ in range(1 + MAX_EXTRA_WINDOWS):
            window, _ = demo.fill_window(
                demo.changed_requests, edits=demo.scenario.edits / 2
            )  # training rows for a next retrain
            demo.console_log.print_line(*describe_window(window))
            if window.release == new and window.verdict == "ok" and not window.shifted:
                break
    is_quiet = window.release == new and window.verdict == "ok" and not window.shifted
    demo.console_log.record_check(
        "there is no drift against the new reference", passed=is_quiet, evidence=window.reason
    )


def check_poor_challenger(demo: DemoContext) -> None:
    """Check that the gate rejects the poor challenger."""
    challenger = demo.scenario.poor
    demo.console_log.start_chapter(
        "A poor challenger",
        f"Release {challenger.release[:6]}: {challenger.defect}.\nIt is proposed with `tunectl release propose`.",
    )
    before = demo.champion
    run = demo.follow(demo.propose(challenger), seconds=demo.scenario.build_seconds)
    _print_gate_result(demo, run)
    is_rejected = run.state == "rejected" and demo.champion == before
    demo.console_log.record_check(
        "the gate rejects the poor challenger", passed=is_rejected, evidence=_last_message(run)
    )


def check_harmful_challenger(demo: DemoContext) -> None:
    """Check that the harmful challenger passes the gate and is rolled back in its canary."""
    demo.console_log.start_chapter(
        "A harmful challenger",
        "A challenger is built that is bad on purpose: it is packaged with a limit that cuts its ads off.\nThe gate sets its own limit, so only users see it.",
    )
    before = demo.champion
    with demo.measure_span("build", "build of the harmful challenger"):
        challenger = demo.scenario.build_harmful()
    demo.console_log.print_line(f"release {challenger.release[:6]}: {challenger.defect}", "active")
    run = demo.follow(demo.propose(challenger), "canary", seconds=demo.scenario.build_seconds)
    _print_gate_result(demo, run)
    if not demo.console_log.record_check(
        "the harmful challenger passes the gate", passed=run.state == "canary", evidence=_last_message(run)
    ):
        raise DemoAbortedError(f"the proposal is {run.state}: {run.steps[-1].message}")
    with demo.measure_span("users", "canary", "changed"):
        run = demo.run_canary(run)
    is_withdrawn = run.state == "withdrawn" and demo.champion == before
    demo.console_log.record_check(
        "the canary test stops the harmful challenger", passed=is_withdrawn, evidence=_last_message(run)
    )
    seconds = _measure_rollback(demo, run)
    evidence = (
        "the service still serves it" if seconds is None else f"no user got it {seconds:.1f} s after the decision"
    )
    demo.console_log.record_check(
        f"the rollback takes less than {MAX_ROLLBACK_SECONDS:.0f} s",
        passed=seconds is not None and seconds < MAX_ROLLBACK_SECONDS,
        evidence=evidence,
    )


CHAPTERS: tuple[Callable[[DemoContext], None], ...] = (
    run_quiet_traffic,
    run_changed_traffic,
    check_alert,
    check_retrain,
    check_canary,
    check_new_reference,
    check_poor_challenger,
    check_harmful_challenger,
)


def _measure_rollback(demo: DemoContext, run: RetrainRun) -> float | None:
    """Measure the seconds from the end of the canary until the service no longer served the challenger."""
    ended = next((item.ended_at for item in demo.canaries.all() if item.run == run.id), None)
    return None if ended is None else _measure_delay(demo, ended, lambda variants: "challenger" not in variants)


def _measure_delay(demo: DemoContext, moment: datetime, holds: Callable[[dict[str, str]], bool]) -> float | None:
    """Measure the seconds from ``moment`` until the poller saw variants for which ``holds`` is true.

    Raises  NotReadyError where it never does.
    """
    demo.stack.service.until(lambda: demo.poller.seconds_until(moment, holds) is not None, demo.scenario.settle_seconds)
    return demo.poller.seconds_until(moment, holds)


def _last_message(run: RetrainRun) -> str:
    return f"{run.state.replace('_', ' ')}; {run.steps[-1].message or next((step.message for step in reversed(run.steps) if step.message), '')}"


def _print_gate_result(demo: DemoContext, run: RetrainRun) -> None:
    """Print the scores that the gate compared, one line a set."""
    facts: dict[str, Any] = next((step.facts for step in run.steps if "parts" in step.facts), {})
    for part in facts.get("parts", ()):
        numbers = [part.get(name) for name in ("champion", "challenger", "difference", "low", "high")]
        if None not in numbers:
            champion, challenger, difference, low, high = numbers
            demo.console_log.print_line(
                f"{part['name']:<7} {part['items']:>4} items   champion {champion:5.1f}   challenger {challenger:5.1f}   "
                f"{difference:+5.1f} ({low:+.1f} to {high:+.1f})"
            )


def build_timeline(demo: DemoContext, ended: datetime) -> Timeline:
    """Build the timeline from the records of the programs."""
    clock, runs = demo.clock, demo.run_store.runs()
    now = clock(ended)
    parts = [
        *times.build_retrain_entries(runs, clock, now),
        *times.build_alert_marks(runs, clock),
        *times.build_window_marks(demo.windows(), clock),
    ]
    spans = [
        *demo.spans,
        *times.build_canary_spans(demo.canaries.all(), clock, now),
        *times.build_champion_spans(demo.registry.log(), clock, now),
    ]
    return Timeline(
        TITLE, demo.began, now,
        spans + [part for part in parts if isinstance(part, times.Span)],
        [part for part in parts if isinstance(part, times.Mark)],
        list(demo.console_log.checks), list_figures(demo, runs),
    )  # fmt: skip


def list_figures(demo: DemoContext, runs: Sequence[RetrainRun]) -> list[tuple[str, str]]:
    """List the headline numbers: each with what it measures."""
    result = []
    counts = demo.users.counts
    if demo.drifted is not None and demo.changed_at is not None:
        made_at = demo.drifted[1]
        result.append((format_duration((made_at - demo.changed_at).total_seconds()), "from the change to the verdict"))
        if runs:
            result.append(
                (f"{(runs[0].trigger.at - made_at).total_seconds():.1f} s", "from the verdict to the webhook")
            )
    for state, what in (
        ("training", "to retrain the model"),
        ("evaluating", "for the gate"),
        ("canary", "for the canary test"),
    ):
        spent = _measure_state(runs[0], state) if runs else None
        if spent is not None:
            result.append((format_duration(spent), what))
    result.append((f"{len(counts.dropped)} of {counts.requests:,}", "requests dropped"))
    return result


def _measure_state(run: RetrainRun, state: str) -> float | None:
    for step, after in zip(run.steps, run.steps[1:], strict=False):
        if step.state == state:
            return (after.at - step.at).total_seconds()
    return None
