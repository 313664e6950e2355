"""The driver with fake activities: every path through the machine, and kills at every moment, by hypothesis."""

from __future__ import annotations

import json
import tempfile
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from fake_retrain_world import NOW, SECRET, FakeActivities, Killed, alert, driver, states, walk, window
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.lock import LockTimeoutError
from tunectl.canary.canary_store import CanaryRunningError
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.retraining import alert_webhook
from tunectl.retraining.approval_pages import ApprovalPages
from tunectl.retraining.controller import RetrainController
from tunectl.retraining.cron import next_slot
from tunectl.retraining.run_store import ApprovalDecision, RunStore
from tunectl.retraining.state_machine import Trigger


def test_from_alert_to_promotion(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities)
    one.store.enqueue_trigger(alert())
    assert walk(one) == "promoted"
    assert states(one) == ["proposed", "data_gate", "training", "evaluating", "staged", "canary", "promoted"]
    assert activities.champion == f"r-{one.store.runs()[0].id}"
    assert one.store.get_outcome("alert-1").run == one.store.runs()[0].id


def test_a_step_is_of_the_time_at_which_its_work_ended(tmp_path):
    activities = FakeActivities()
    told = iter(range(0, 10_000, 60))
    one = driver(tmp_path, activities, seconds=lambda: next(told))
    one.store.enqueue_trigger(alert())
    walk(one)
    first, *later = one.store.runs()[0].steps
    assert first.at == NOW
    assert {step.at - NOW for step in later} == {timedelta(seconds=60)}


@pytest.mark.parametrize(
    ("change", "state"),
    [
        ({"enough": False}, "insufficient"),
        ({"passed": False}, "rejected"),
        ({"verdict": "reject"}, "rejected"),
        ({"verdict": "insufficient"}, "insufficient"),
        ({"decision": "harm"}, "withdrawn"),
        ({"decision": "undecided"}, "insufficient"),
        ({"decision": "unfair"}, "insufficient"),
        ({"trouble": InfrastructureError("no space left")}, "failed"),
    ],
)
def test_every_other_end_leaves_the_champion_alone(tmp_path, change, state):
    activities = FakeActivities()
    for name, value in change.items():
        setattr(activities, name, value)
    one = driver(tmp_path, activities)
    one.store.enqueue_trigger(alert())
    assert walk(one) == state
    assert (activities.champion, activities.serving) == ("r0", None)
    assert activities.done == [(one.store.runs()[0].id, state)]


def test_a_failed_run_may_be_tried_again_and_a_concluded_one_is_a_duplicate(tmp_path):
    activities = FakeActivities()
    activities.trouble = InfrastructureError("no space left")
    one = driver(tmp_path, activities, limits__cooldown_hours=0, reconcile_minutes=1e6)
    one.store.enqueue_trigger(alert())
    assert walk(one) == "failed"
    activities.trouble = None
    one.store.enqueue_trigger(alert("alert-2"))
    assert walk(one) == "promoted"
    assert [run.attempt for run in one.store.runs()] == [1, 2]
    one.store.enqueue_trigger(alert("alert-3"))
    walk(one)
    assert one.store.get_outcome("alert-3").reason == "duplicate"


def test_drift_without_an_alert_is_found_by_polling(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities)
    assert walk(one) == "promoted"
    assert one.store.runs()[0].trigger.kind == "poll"


def test_alertmanager_gets_its_time_first(tmp_path):
    activities = FakeActivities()
    activities.examined = NOW - timedelta(minutes=5)
    assert walk(driver(tmp_path, activities)) == "nothing"


def test_an_alert_without_a_drift_window_starts_nothing(tmp_path):
    activities = FakeActivities()
    activities.window = None
    one = driver(tmp_path, activities)
    one.store.enqueue_trigger(alert())
    assert walk(one) == "nothing"
    assert one.store.get_outcome("alert-1").reason == "no_drift"


@pytest.mark.parametrize("cooldown", [24, 0])
def test_one_drift_that_alertmanager_and_grafana_see_is_one_run(tmp_path, cooldown):
    """Each has a start and a fingerprint of its own, so they are two triggers; the window behind them is one."""
    activities, later = FakeActivities(), NOW + timedelta(minutes=1)
    one = driver(tmp_path, activities, limits__cooldown_hours=cooldown)
    for version, mark, start in (("4", "f00d", "2026-05-01T11:59:30Z"), ("1", "beef", "2026-05-01T12:00:10.5+00:00")):
        seen = {"status": "firing", "labels": {"alertname": "Drift"}, "startsAt": start, "fingerprint": mark}
        body = json.dumps({"version": version, "alerts": [seen]}).encode()
        (trigger,) = alert_webhook.parse_alertmanager(body, ("Drift",), NOW)
        assert one.store.enqueue_trigger(trigger)
        assert walk(one, later) == "promoted"
    assert [run.trigger.author for run in one.store.runs()] == ["Alertmanager"]
    assert sorted(str(each.reason) for each in one.store.list_outcomes()) == ["None", "duplicate", "duplicate"]


def test_schedule_and_drift_at_the_same_second_are_one_run(tmp_path):
    activities = FakeActivities()
    schedules = {"nightly": {"cron": "0 12 * * *", "zone": "UTC"}}
    one = driver(tmp_path, activities, schedules=schedules)
    one.store.set_schedule_marks({"nightly": NOW - timedelta(hours=1)})
    one.store.enqueue_trigger(alert())
    assert walk(one) == "promoted"
    walk(one)
    assert len(one.store.runs()) == 1
    assert sorted(str(seen.reason) for seen in one.store.list_outcomes()) == ["None", "cooldown", "duplicate"]


def test_a_score_that_flaps_for_a_week_starts_one_run_a_cooldown(tmp_path):
    activities = FakeActivities()
    activities.verdict = "reject"
    one = driver(tmp_path, activities, limits__max_per_week=100, limits__max_cooldown_hours=24)
    for hour in range(24 * 7):
        now = NOW + timedelta(hours=hour)
        activities.window = window(hour) if hour % 3 else None
        activities.examined = now
        if hour % 3 == 1:
            one.store.enqueue_trigger(Trigger("alert", f"alert-{hour}", now, "flapping"))
        walk(one, now)
    starts = [run.steps[0].at for run in one.store.runs()]
    assert 6 <= len(starts) <= 7
    assert all(later - sooner >= timedelta(hours=24) for sooner, later in pairwise(starts))


def test_the_budget_of_a_week_holds_and_a_person_may_override_it(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities, limits__cooldown_hours=0, reconcile_minutes=1e6)
    for number in range(5):
        activities.window = window(number)
        one.store.enqueue_trigger(alert(f"alert-{number}"))
        walk(one)
    assert len(one.store.runs()) == 3
    assert one.store.get_outcome("alert-4").detail == "3 retrains in seven days; 3 are allowed"
    one.store.enqueue_trigger(Trigger("person", "person-1", NOW, "I say so", ignore_limits=True))
    walk(one)
    assert len(one.store.runs()) == 4


def _decision(author, *, approved=True):
    return ApprovalDecision(approved, NOW, author, "")


def _token(activities):
    return activities.asked[-1][1].rpartition("/")[2]


def test_a_person_is_asked_once_and_the_link_works_once(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities, approval__training="required", approval__promotion="required")
    pages = ApprovalPages(one.store, Trials(), "shop", SECRET, lambda: "about 9 min")
    one.store.enqueue_trigger(alert())
    assert walk(one) == "awaiting_approval"
    assert walk(one) == "awaiting_approval"
    assert len(activities.asked) == 1
    page = pages.decide(_token(activities), NOW)
    assert "the world changed" in page
    assert "about 9 min" in page
    assert "rows to learn" in page
    assert walk(one) == "awaiting_approval", "looking at the page decides nothing"
    page = pages.decide(_token(activities), NOW, trouble="Not decided: that key is not known here.")
    assert "Not decided: that key is not known here." in page
    assert walk(one) == "awaiting_approval"
    assert "Thank you, ann: yes." in pages.decide(_token(activities), NOW, _decision("ann"))
    assert "this question is decided" in pages.decide(_token(activities), NOW, _decision("bob", approved=False))
    assert one.store.get_decision(one.store.runs()[0].id, "retrain").author == "ann"
    assert walk(one) == "awaiting_approval"
    assert activities.asked[-1][0] == "promote"
    page = pages.decide(_token(activities), NOW)
    assert '<p class="verdict">words</p>' in page, "what speaks for it, not what began it"
    assert "rows learned" in page
    assert "about 9 min" not in page, "that is spent"
    assert (activities.champion, activities.serving) == ("r0", None), "nobody meets what nobody looks at"
    pages.decide(_token(activities), NOW, _decision("ann"))
    assert walk(one) == "promoted"
    assert one.store.runs()[0].steps[-1].message == "ann said yes; words"


class Trials:
    def all(self):
        return []


def test_a_rejection_and_a_timeout_dismiss_the_run(tmp_path):
    for folder, answer in (("a", False), ("b", None)):
        activities = FakeActivities()
        one = driver(tmp_path / folder, activities, approval__training="required")
        one.store.enqueue_trigger(alert())
        walk(one)
        if answer is not None:
            said = ApprovalDecision(answer, NOW, "Ann", "n", "it is a holiday")
            one.store.record_decision(one.store.runs()[0].id, "retrain", said)
        assert walk(one, NOW + timedelta(hours=73)) == "dismissed"
        assert answer is None or one.store.runs()[0].steps[-1].message == "Ann said no: it is a holiday"
        assert activities.trained == 0
    assert one.store.runs()[0].steps[-1].message == "nobody answered in 72 hours"


def test_a_person_who_asked_is_not_asked_back(tmp_path):
    one = driver(tmp_path, FakeActivities(), approval__training="required", reconcile_minutes=1e6)
    one.store.enqueue_trigger(Trigger("person", "person-1", NOW, "new shops"))
    assert walk(one) == "promoted"


def test_a_trigger_that_cannot_be_prepared_waits(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities, reconcile_minutes=1e6)
    one.store.enqueue_trigger(alert())
    for trouble in (UsageError("no commit"), KeyError("our bug")):
        activities.prepare = lambda trigger, now, trouble=trouble: (_ for _ in ()).throw(trouble)
        with pytest.raises(type(trouble)):  # the look fails, so that it is counted
            one.reconcile(NOW)
        assert [trigger.id for trigger in one.store.list_pending_triggers()] == ["alert-1"]
    activities.prepare = lambda trigger, now: (
        None if trigger.id == "alert-1" else FakeActivities.prepare(activities, trigger, now)
    )
    one.store.enqueue_trigger(alert("alert-2"))
    assert walk(one) == "promoted", "and holds up no other"


def test_a_live_store_that_is_away_does_not_end_an_experiment(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities)
    one.store.enqueue_trigger(alert())
    look, activities.poll_canary = (
        activities.poll_canary,
        lambda run, now: (_ for _ in ()).throw(InfrastructureError("no server")),
    )
    with pytest.raises(InfrastructureError):
        walk(one)
    activities.poll_canary = look
    assert walk(one) == "promoted"


def test_what_is_busy_for_a_moment_is_waited_for(tmp_path):
    activities = FakeActivities()
    activities.trouble = LockTimeoutError("somebody copies a release")
    one = driver(tmp_path, activities)
    one.store.enqueue_trigger(alert())
    with pytest.raises(LockTimeoutError):
        walk(one)
    assert states(one)[-1] == "training"
    activities.trouble = None
    assert walk(one) == "promoted"


def test_our_own_bug_fails_the_run_and_not_the_watcher(tmp_path):
    activities = FakeActivities()
    activities.trouble = KeyError("loss")
    one = driver(tmp_path, activities)
    one.store.enqueue_trigger(alert())
    assert walk(one) == "failed"
    assert one.store.runs()[0].steps[-1].message == "KeyError: 'loss'"


@pytest.mark.parametrize("changes", [{"canary": None}, {}, {"canary": None, "approval__promotion": "required"}])
def test_a_store_that_is_away_after_the_swap_leaves_no_record_of_a_failure(tmp_path, changes):
    activities = FakeActivities()
    one = driver(tmp_path, activities, **changes)
    one.store.enqueue_trigger(alert())
    promote = activities.promote

    def cut(run, why, now):
        promote(run, why, now)
        raise InfrastructureError("no server")

    activities.promote = cut
    if "approval__promotion" in changes:
        assert walk(one) == "awaiting_approval"
        run = one.store.runs()[0]
        one.store.record_decision(run.id, "promote", ApprovalDecision(True, NOW, "Ann", run.steps[-1].facts["nonce"]))
    for later in (NOW, NOW + timedelta(days=30)):  # however long it is away
        with pytest.raises(InfrastructureError):
            walk(one, later)
    activities.promote = promote
    assert walk(one, NOW + timedelta(days=31)) == "promoted"
    assert activities.champion == f"r-{one.store.runs()[0].id}"


def test_another_challenger_is_waited_for_as_long_as_an_experiment_may_last(tmp_path):
    for folder, later, state in (("a", timedelta(hours=1), "promoted"), ("b", timedelta(days=15), "failed")):
        activities = FakeActivities()
        one = driver(tmp_path / folder, activities)
        begin, activities.start_canary = (
            activities.start_canary,
            lambda run, now: (_ for _ in ()).throw(CanaryRunningError("experiment x runs")),
        )
        one.store.enqueue_trigger(alert())
        assert walk(one) == "staged"
        if state == "promoted":
            activities.start_canary = begin
        assert walk(one, NOW + later) == state


@pytest.mark.parametrize("where", ["staged", "awaiting_approval"])
def test_a_person_who_was_faster_is_no_failure(tmp_path, where):
    activities = FakeActivities()
    one = driver(tmp_path, activities, canary=None, approval__promotion="required")
    one.store.enqueue_trigger(alert())
    while not one.store.runs() or one.store.runs()[0].state != where:
        one.reconcile(NOW)
    activities.champion = f"r-{one.store.runs()[0].id}"
    assert walk(one) == "promoted"
    assert one.store.runs()[0].steps[-1].message == "it is the champion already"


def test_what_was_asked_by_a_clock_that_was_wrong_delays_nobody(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities, approval__training="required")
    one.store.enqueue_trigger(alert())
    assert walk(one, NOW + timedelta(days=3650)) == "awaiting_approval"
    assert walk(one, NOW) == "dismissed"


def test_a_rejected_retrain_is_not_proposed_again_within_an_hour(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities, approval__training="required")
    one.store.enqueue_trigger(alert())
    walk(one)
    one.store.record_decision(one.store.runs()[0].id, "retrain", ApprovalDecision(False, NOW, "Ann", "n"))
    assert walk(one) == "dismissed"
    activities.window = window(2)
    one.store.enqueue_trigger(alert("alert-2"))
    walk(one, NOW + timedelta(hours=1))
    assert one.store.get_outcome("alert-2").reason == "cooldown"
    assert len(activities.asked) == 1
    one.store.enqueue_trigger(Trigger("person", "person-1", NOW, "now I want it"))
    assert walk(one, NOW + timedelta(hours=1)) == "promoted"


def test_while_the_cooldown_lasts_no_window_is_frozen(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities)
    walk(one)
    activities.prepare = lambda trigger, now: pytest.fail("prepared in vain")
    for hour in range(1, 24):
        activities.window = window(1 + hour)
        walk(one, NOW + timedelta(hours=hour))
    assert len(one.store.list_outcomes()) == 1
    activities.prepare = lambda trigger, now: FakeActivities.prepare(activities, trigger, now)
    assert walk(one, NOW + timedelta(hours=25)) == "promoted"
    assert len(one.store.runs()) == 2


def test_a_step_whose_work_is_done_is_written_though_somebody_says_stop(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities, canary=None)
    one.store.enqueue_trigger(alert())
    promote = activities.promote
    activities.promote = lambda run, why, now: one.stop.set() or promote(run, why, now)
    assert walk(one) == "promoted"


def test_with_a_new_secret_what_waits_is_asked_again(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities, approval__training="required")
    one.resend_approvals()
    assert activities.asked == []
    one.store.enqueue_trigger(alert())
    walk(one)
    again = RetrainController(one.store, activities, one.settings, b"t" * 64, next_slot, seconds=lambda: 0.0)
    again.resend_approvals()
    assert len({link for _, link in activities.asked}) == 2
    pages = ApprovalPages(one.store, Trials(), "shop", b"t" * 64, lambda: "about 9 min")
    assert "Thank you, ann: yes." in pages.decide(_token(activities), NOW, _decision("ann"))


def test_a_missed_notification_is_sent_by_the_next_controller(tmp_path):
    activities = FakeActivities()
    one = driver(tmp_path, activities)
    activities.notify_finished = lambda run: (_ for _ in ()).throw(Killed())
    with pytest.raises(Killed):
        walk(one)
    assert states(one)[-1] == "promoted"
    del activities.notify_finished
    walk(driver(tmp_path, activities))
    assert [state for _, state in activities.done] == ["promoted"]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 14), max_size=5),
    st.sampled_from(["promote", "harm"]),
    st.sampled_from(["promote", "reject"]),
)
def test_whenever_it_is_killed_one_run_comes_to_its_one_right_end(kills, decision, verdict):
    with tempfile.TemporaryDirectory() as folder:
        activities = FakeActivities()
        activities.decision, activities.verdict = decision, verdict
        RunStore(Path(folder)).enqueue_trigger(alert())
        for kill in [*kills, None]:
            activities.deadly = kill
            one = driver(folder, activities)  # another process: it knows what is on the disk, and nothing else
            for _ in range(40):
                try:
                    if not one.reconcile(NOW):
                        break
                except Killed:
                    one = driver(folder, activities)
        runs = one.store.runs()
        assert len(runs) == 1
        wanted = "rejected" if verdict == "reject" else "promoted" if decision == "promote" else "withdrawn"
        assert runs[0].state == wanted
        assert activities.champion == (f"r-{runs[0].id}" if wanted == "promoted" else "r0")
        assert activities.serving is None
        assert one.store.list_pending_triggers() == []
