"""Schedules under clock changes, in time zones, by a simulated clock; and links and the book of records."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.core.errors import UsageError
from tunectl.retraining import schedules, signed_links
from tunectl.retraining.cron import next_slot
from tunectl.retraining.run_store import ApprovalDecision, RunStore, TriggerOutcome
from tunectl.retraining.schedules import CronSchedule
from tunectl.retraining.signed_links import ApprovalToken
from tunectl.retraining.state_machine import Transition, Trigger, apply_transition, new_run

BERLIN = CronSchedule("nightly", "30 2 * * *", "Europe/Berlin")


def _walk(schedule: CronSchedule, start: datetime, minutes: list[int]) -> list[datetime]:
    """Slots that are found by a clock that moves by ``minutes``; the mark is kept between two looks."""
    now, mark, found = start, None, []
    for step in minutes:
        now += timedelta(minutes=step)
        slot, mark = schedules.due_slot(schedule, mark, now, next_slot)
        if slot is not None:
            found.append(slot)
    return found


def test_a_night_without_half_past_two_and_one_with_two_of_them_run_once() -> None:
    spring = _walk(BERLIN, datetime(2026, 3, 28, 12, tzinfo=UTC), [30] * 96)
    assert len(spring) == 2
    autumn = _walk(BERLIN, datetime(2026, 10, 24, 12, tzinfo=UTC), [30] * 96)
    assert len(autumn) == 2


def test_monthly_and_quarterly_run_where_the_zone_says() -> None:
    monthly = CronSchedule("m", "monthly", "America/New_York")
    slots = _walk(monthly, datetime(2026, 1, 15, tzinfo=UTC), [6 * 60] * 4 * 365)
    assert len(slots) == 12
    assert {slot.hour for slot in slots} == {7, 8}  # three at night, with and without summer time
    quarterly = CronSchedule("q", "quarterly", "UTC")
    slots = _walk(quarterly, datetime(2026, 1, 15, tzinfo=UTC), [6 * 60] * 4 * 365)
    assert [slot.month for slot in slots] == [4, 7, 10, 1]


def test_slots_that_were_missed_are_one() -> None:
    start = datetime(2026, 5, 1, 12, tzinfo=UTC)
    slot, mark = schedules.due_slot(BERLIN, start, start + timedelta(days=10), next_slot)
    assert slot == mark == datetime(2026, 5, 11, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("cron", ["0 * * * *", "30 2 * * *", "monthly", "0 0 29 2 *"])
def test_after_years_without_a_look_the_newest_slot_is_found_at_once(cron: str) -> None:
    schedule, start = CronSchedule("s", cron, "UTC"), datetime(2021, 5, 1, tzinfo=UTC)
    asked: list[datetime] = []

    def counted(which: CronSchedule, after: datetime) -> datetime:
        asked.append(after)
        return next_slot(which, after)

    slot, mark = schedules.due_slot(schedule, start, NOW, counted)
    assert slot == mark
    assert slot is not None
    assert slot <= NOW < next_slot(schedule, slot)
    assert len(asked) < 800


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-2000, 3000), max_size=60))
def test_a_clock_that_jumps_finds_no_slot_twice(minutes: list[int]) -> None:
    slots = _walk(BERLIN, datetime(2026, 3, 25, tzinfo=UTC), minutes)
    ids = [schedules.trigger(BERLIN, slot, slot).id for slot in slots]
    assert len(set(ids)) == len(
        set(slots)
    )  # one that is found again after a jump back has the id that is known already


def test_what_is_no_schedule_says_so() -> None:
    with pytest.raises(UsageError) as error:
        next_slot(CronSchedule("x", "61 * * * *", "UTC"), datetime.now(UTC))
    assert str(error.value).startswith("retrain.schedules: x: cron = '61 * * * *' is not a schedule: ")
    with pytest.raises(UsageError) as error:
        next_slot(CronSchedule("x", "monthly", "Mars/Olympus"), datetime.now(UTC))
    assert error.value.message == "retrain.schedules: x: zone = 'Mars/Olympus' is not a time zone"


NOW = datetime(2026, 5, 1, tzinfo=UTC)
SECRET = b"s" * 32


def test_a_link_is_read_until_its_time_and_not_when_it_was_changed() -> None:
    given_ = ApprovalToken("run-1", "retrain", int(NOW.timestamp()) + 60, "n")
    token = signed_links.sign(given_, SECRET)
    assert signed_links.verify(token, SECRET, NOW) == given_
    with pytest.raises(UsageError) as error:
        signed_links.verify(token, SECRET, NOW + timedelta(minutes=2))
    assert error.value.message == "this link expired on 2026-05-01 00:01 UTC"
    for wrong in (token[:-2] + "AA", token.replace(".", ""), "", "a.b.c", "é.ü", token + "x" * 5000):
        with pytest.raises(UsageError) as error:
            signed_links.verify(wrong, SECRET, NOW)
        assert error.value.message == "this approval link was not signed by this retrain controller"
    with pytest.raises(UsageError):
        signed_links.verify(token, b"t" * 32, NOW)


def test_the_book_keeps_triggers_once_and_decisions_once(tmp_path: Path) -> None:
    book, trigger = RunStore(tmp_path), Trigger("alert", "alert-1", NOW, "drift")
    assert book.enqueue_trigger(trigger)
    assert not book.enqueue_trigger(trigger)
    assert book.list_pending_triggers() == [trigger]
    book.resolve_trigger(TriggerOutcome(trigger, NOW, reason="cooldown"))
    assert book.list_pending_triggers() == []
    assert not book.enqueue_trigger(trigger)
    assert book.record_decision("run-1", "retrain", ApprovalDecision(True, NOW, "Ann", "n"))
    assert not book.record_decision("run-1", "retrain", ApprovalDecision(False, NOW, "Bob", "n"))
    assert book.get_decision("run-1", "retrain") == ApprovalDecision(True, NOW, "Ann", "n")
    with pytest.raises(ValueError, match="is not the name"):
        book.get_outcome("../../etc/passwd")


def test_a_kill_between_settling_and_forgetting_starts_nothing_twice(tmp_path: Path) -> None:
    book, trigger = RunStore(tmp_path), Trigger("alert", "alert-1", NOW, "drift")
    book.enqueue_trigger(trigger)
    book.resolve_trigger(TriggerOutcome(trigger, NOW, "run-1"))
    (tmp_path / "inbox").mkdir(exist_ok=True)
    (tmp_path / "inbox" / "alert-1.json").write_bytes((tmp_path / "outcomes" / "alert-1.json").read_bytes())
    assert book.list_pending_triggers() == []


def test_runs_are_written_whole_and_read_in_order(tmp_path: Path) -> None:
    book = RunStore(tmp_path)
    runs = [new_run(f"{letter}" * 64, 1, Trigger("poll", letter, NOW, "drift"), NOW, {}) for letter in "cab"]
    for run in runs:
        book.save(run)
    later = apply_transition(runs[0], Transition("data_gate", NOW))
    book.save(later)
    (tmp_path / "runs" / ".00001-half.json.tmp").write_text("{")
    assert book.runs() == [later, *runs[1:]]
    (tmp_path / "runs" / f"00000-{runs[0].id}.json").unlink()
    newest = new_run("d" * 64, 1, Trigger("poll", "d", NOW, "drift"), NOW, {})
    book.save(newest)
    assert book.runs() == [*runs[1:], newest], "the newest stays the last, whatever somebody deleted"
