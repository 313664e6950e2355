"""The chapters, in the order in which they are played. Each ends with what was promised, and whether it was so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from loop_demo import timeline as times
from loop_demo.context import BrokenPromiseError, Play
from loop_demo.simulated_users import Tally
from loop_demo.timeline import Promise, Timeline, Tone, length
from tunectl.artifacts.records import DriftWindow
from tunectl.retraining.state_machine import RetrainRun

MORE = 2
"""Windows beyond the first that a change may take to be forgotten."""
PATIENCE = 5
"""Windows that a change may take to be noticed."""
SWIFT = 5.0
"""Seconds that a rollback may take."""
TITLE = "Retraining loop"
WATCHED = "Prometheus counts windows, Alertmanager tells the retrain controller, and the controller records it."
UNWATCHED = "Prometheus would count windows, and Alertmanager would tell the retrain controller, which records it."


def describe_window(window: DriftWindow) -> tuple[str, Tone]:
    """A window in words."""
    if window.verdict == "insufficient":
        return f"window {window.id[:6]}: {window.rows} answers; {window.reason}", "calm"
    tone: Tone = "bad" if window.verdict == "drift" else "moved" if window.shifted else "good"
    return f"window {window.id[:6]}: {window.verdict}; {window.reason}", tone


def quiet(play: Play) -> None:
    """People ask as always: no alarm, no retrain."""
    play.narrator.chapter(
        "A quiet day",
        "People ask for ads as they always did. The first windows become what is usual;\nthe next ones must say nothing.",
    )
    scene, names, result = play.scene, list[str](), list[DriftWindow]()
    with play.phase("people", "everyday"):
        for _ in range(scene.baseline):
            window, _ = play.window(play.everyday)
            names.append(window.id)
            play.narrator.say(*describe_window(window))
        play.command("monitor", "set-reference", *names, "-m", "quiet days")
        play.narrator.say(
            f"a person accepts them as usual: tunectl monitor set-reference {' '.join(name[:6] for name in names)}",
            "work",
        )
        for _ in range(scene.quiet):
            window, _ = play.window(play.everyday)
            result.append(window)
            play.narrator.say(*describe_window(window))
    silent = all(item.verdict == "ok" for item in result) and not play.stack.firing() and not play.run_store.runs()
    signals = max(sum(signal.p_value is not None for signal in window.signals.values()) for window in result)
    evidence = f"{len(result)} windows of {scene.rows} answers, {signals} signals each; no alert, no retrain"
    play.narrator.promise(
        "quiet traffic raises no alarm", holds=silent, evidence=evidence if silent else describe_window(result[-1])[0]
    )


def change(play: Play) -> None:
    """People ask for something else, and the monitor notices."""
    play.narrator.chapter(
        "Requests change",
        "A new neighbourhood, a new kind of business, another tone. Some people write a better ad\nthan the one they got.",
    )
    tally = play.crowd.tally
    up, down, edits = tally.up, tally.down, tally.edits
    with play.phase("people", "changed requests", "moved"):
        play.changed_at = datetime.now(play.began.tzinfo)
        for turn in range(1, 100):
            window, made_at = play.window(play.changed, edits=play.scene.edits)
            play.narrator.say(*describe_window(window))
            if window.verdict == "drift" or turn >= PATIENCE:
                break
    liked = Tally(up=tally.up - up, down=tally.down - down).liked or 0
    play.narrator.say(f"people wrote {tally.edits - edits} better ads, and liked {liked:.0%} of the others")
    if not play.narrator.promise(
        "the change is noticed",
        holds=window.verdict == "drift",
        evidence=f"after {turn} {'window' if turn == 1 else 'windows'}, evidence {window.evidence:.1f} of {window.evidence_required:.1f}; {length((made_at - play.changed_at).total_seconds())} after the first new question",
    ):
        raise BrokenPromiseError(f"no drift in {turn} windows: {window.reason}")
    play.drifted = window, made_at


def alert(play: Play) -> None:
    """The alert starts one retrain."""
    installed = play.stack.prometheus is not None
    play.narrator.chapter("An alert and a webhook", WATCHED if installed else UNWATCHED)
    assert play.drifted is not None
    window, made_at = play.drifted
    if not installed:
        play.narrator.say("no Prometheus here: the same webhook is delivered by hand", "work")
        summary = f"The world has changed: {window.reason}."
        play.stack.retrain.until(lambda: play.stack.deliver(made_at, summary) == 200, play.scene.settle_seconds)
    run = play.next_run(0)
    waited = (run.trigger.at - made_at).total_seconds()
    play.narrator.say(f"{times.sender(run)}: {run.trigger.message}", "moved")
    one = len(play.run_store.runs()) == 1 and run.trigger.kind == "alert"
    play.narrator.promise(
        "one alert starts one retrain", holds=one, evidence=f"{run.id}, {waited:.1f} s after the verdict"
    )


def rebuild(play: Play) -> None:
    """The model learns what people wrote, and the gate compares."""
    play.narrator.chapter(
        "Feedback, dvc repro, gate",
        "What people wrote becomes training rows, under caps; some of the questions are kept for the\ngate. The model goes on from the champion, while people go on asking.",
    )
    run, scene = play.run_store.runs()[0], play.scene
    with (
        play.phase("people", "while it builds", "moved"),
        play.crowd.murmuring(play.changed, scene.murmur) as meanwhile,
    ):
        run = play.follow(run, "canary", seconds=scene.build_seconds)
    facts = run.facts("training")
    learned = f"{facts.get('examples', 0)} rows to learn from {facts.get('annotators', 0)} people, {facts.get('held_out', 0)} kept for the gate"
    play.narrator.promise("people's own words are learned from", holds=facts.get("edits", 0) > 0, evidence=learned)
    answered = f"{meanwhile.answered} of {meanwhile.requests} requests"
    play.narrator.promise(
        "the service answers meanwhile", holds=not meanwhile.dropped and meanwhile.answered > 0, evidence=answered
    )
    _gate(play, run)
    if not play.narrator.promise("the gate says yes", holds=run.state == "canary", evidence=_reason(run)):
        raise BrokenPromiseError(f"the retrain is {run.state}: {run.steps[-1].message}")


def canary(play: Play) -> None:
    """The challenger proves itself on live traffic and is promoted."""
    play.narrator.chapter(
        "A canary on live traffic",
        "Half of the people get the challenger and stay with it. A test that may be looked at at any\ntime decides, and the champion is swapped under everybody's hands.",
    )
    old = play.champion
    with play.phase("people", "canary", "moved"):
        run = play.try_out(play.run_store.runs()[0])
        play.crowd.ask(play.changed, play.scene.batch)
    new = play.champion
    if not play.narrator.promise(
        "the better model is promoted", holds=run.state == "promoted" and new != old, evidence=_reason(run)
    ):
        raise BrokenPromiseError(f"the canary ended: {run.state}, {run.steps[-1].message}")
    promoted = datetime.fromisoformat(play.store.champion().promoted_at)  # type: ignore[union-attr]
    seconds = _measure_delay(play, promoted, lambda variants: variants.get("champion") == new)
    tally = play.crowd.tally
    whole = (
        f"{tally.answered:,} of {tally.requests:,} answers whole so far; the new model answered after {seconds:.1f} s"
    )
    play.narrator.promise(
        "no request is dropped", holds=not tally.dropped, evidence=whole if not tally.dropped else tally.dropped[0]
    )


def calm(play: Play) -> None:
    """Against the new reference there is no drift any more."""
    play.narrator.chapter(
        "Calm again",
        "The window that asked for all this is the new reference of questions, and the answers of the\ncanary are that of answers.",
    )
    new = play.champion
    with play.phase("people", "the new usual"):
        for _ in range(1 + MORE):
            window, _ = play.window(play.changed, edits=play.scene.edits / 2)  # what a next retrain can learn
            play.narrator.say(*describe_window(window))
            if window.release == new and window.verdict == "ok" and not window.shifted:
                break
    is_quiet = window.release == new and window.verdict == "ok" and not window.shifted
    play.narrator.promise("the drift is gone against the new reference", holds=is_quiet, evidence=window.reason)


def poor(play: Play) -> None:
    """A challenger that the gate rejects."""
    bad = play.scene.poor
    play.narrator.chapter(
        "A bad challenger",
        f"Release {bad.release[:6]} was made to be bad: {bad.what}.\nSomebody proposes it all the same.",
    )
    before = play.champion
    run = play.follow(play.propose(bad), seconds=play.scene.build_seconds)
    _gate(play, run)
    is_rejected = run.state == "rejected" and play.champion == before
    play.narrator.promise("the gate rejects a bad challenger", holds=is_rejected, evidence=_reason(run))


def harmful(play: Play) -> None:
    """A challenger that the gate cannot see through is rolled back."""
    bad = play.scene.harmful
    play.narrator.chapter(
        "A challenger that does harm",
        f"Release {bad.release[:6]} was made to be bad: {bad.what}.\nThe gate cannot see that; people can.",
    )
    before = play.champion
    run = play.follow(play.propose(bad), "canary", seconds=play.scene.build_seconds)
    _gate(play, run)
    if not play.narrator.promise("it passes the gate", holds=run.state == "canary", evidence=_reason(run)):
        raise BrokenPromiseError(f"the proposal is {run.state}: {run.steps[-1].message}")
    with play.phase("people", "canary", "moved"):
        run = play.try_out(run)
    is_withdrawn = run.state == "withdrawn" and play.champion == before
    play.narrator.promise("harm is seen and rolled back", holds=is_withdrawn, evidence=_reason(run))
    seconds = _measure_rollback(play, run)
    evidence = (
        "the service still has it" if seconds is None else f"{seconds:.1f} s after the decision nobody got it any more"
    )
    play.narrator.promise("a rollback takes seconds", holds=seconds is not None and seconds < SWIFT, evidence=evidence)


CHAPTERS: tuple[Callable[[Play], None], ...] = (quiet, change, alert, rebuild, canary, calm, poor, harmful)


def _measure_rollback(play: Play, run: RetrainRun) -> float | None:
    """Seconds from the end of the experiment until the service no longer had the challenger."""
    ended = next((item.ended_at for item in play.canaries.all() if item.run == run.id), None)
    return None if ended is None else _measure_delay(play, ended, lambda variants: "challenger" not in variants)


def _measure_delay(play: Play, moment: datetime, holds: Callable[[dict[str, str]], bool]) -> float | None:
    """Seconds from a moment until the lookout saw that it ``holds``.

    Raises  NotReadyError where it never does.
    """
    play.stack.service.until(lambda: play.lookout.since(moment, holds) is not None, play.scene.settle_seconds)
    return play.lookout.since(moment, holds)


def _reason(run: RetrainRun) -> str:
    return f"{run.state.replace('_', ' ')}; {run.steps[-1].message or next((step.message for step in reversed(run.steps) if step.message), '')}"


def _gate(play: Play, run: RetrainRun) -> None:
    """What the gate saw, a line a set."""
    facts: dict[str, Any] = next((step.facts for step in run.steps if "parts" in step.facts), {})
    for part in facts.get("parts", ()):
        numbers = [part.get(name) for name in ("champion", "challenger", "difference", "low", "high")]
        if None not in numbers:
            champion, challenger, difference, low, high = numbers
            play.narrator.say(
                f"{part['name']:<7} {part['items']:>4} items   champion {champion:5.1f}   challenger {challenger:5.1f}   "
                f"{difference:+5.1f} ({low:+.1f} to {high:+.1f})"
            )


def timeline(play: Play, ended: datetime) -> Timeline:
    """Everything that happened, out of the records."""
    clock, runs = play.clock, play.run_store.runs()
    now = clock(ended)
    parts = [*times.retrains(runs, clock, now), *times.alerts(runs, clock), *times.windows(play.windows(), clock)]
    spans = [
        *play.spans,
        *times.experiments(play.canaries.all(), clock, now),
        *times.champions(play.store.log(), clock, now),
    ]
    return Timeline(
        TITLE, play.began, now,
        spans + [part for part in parts if isinstance(part, times.Span)],
        [part for part in parts if isinstance(part, times.Mark)],
        list(play.narrator.promises), figures(play, runs),
    )  # fmt: skip


def figures(play: Play, runs: Sequence[RetrainRun]) -> list[tuple[str, str]]:
    """Numbers for people who read nothing else."""
    result = []
    tally = play.crowd.tally
    if play.drifted is not None and play.changed_at is not None:
        made_at = play.drifted[1]
        result.append((length((made_at - play.changed_at).total_seconds()), "from the change to the verdict"))
        if runs:
            result.append(
                (f"{(runs[0].trigger.at - made_at).total_seconds():.1f} s", "from the verdict to the webhook")
            )
    for state, what in (
        ("training", "to rebuild the model"),
        ("evaluating", "for the gate"),
        ("canary", "on live traffic"),
    ):
        spent = _spent(runs[0], state) if runs else None
        if spent is not None:
            result.append((length(spent), what))
    result.append((f"{len(tally.dropped)} of {tally.requests:,}", "requests dropped"))
    return result


def _spent(run: RetrainRun, state: str) -> float | None:
    for step, after in zip(run.steps, run.steps[1:], strict=False):
        if step.state == state:
            return (after.at - step.at).total_seconds()
    return None


def promises(result: Sequence[Promise]) -> list[str]:
    """Those that did not hold."""
    return [f"{item.words}: {item.evidence}" for item in result if not item.held]
