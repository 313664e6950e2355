"""Schedules under clock changes, in time zones, by a simulated clock; and links and the book of records."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.backends.cron_calendar import following
from tunectl.core.errors import UsageError
from tunectl.release import calendar, links
from tunectl.release.book import Answer, Book, Seen
from tunectl.release.calendar import Schedule
from tunectl.release.links import Pass
from tunectl.release.machine import Step, Trigger, advanced, begun

BERLIN = Schedule("nightly", "30 2 * * *", "Europe/Berlin")


def _walk(schedule: Schedule, start: datetime, minutes: list[int]) -> list[datetime]:
    """Slots that are found by a clock that moves by ``minutes``; the mark is kept between two looks."""
    now, mark, found = start, None, []
    for step in minutes:
        now += timedelta(minutes=step)
        slot, mark = calendar.due(schedule, mark, now, following)
        if slot is not None:
            found.append(slot)
    return found


def test_a_night_without_half_past_two_and_one_with_two_of_them_run_once() -> None:
    spring = _walk(BERLIN, datetime(2026, 3, 28, 12, tzinfo=UTC), [30] * 96)
    assert len(spring) == 2
    autumn = _walk(BERLIN, datetime(2026, 10, 24, 12, tzinfo=UTC), [30] * 96)
    assert len(autumn) == 2


def test_monthly_and_quarterly_run_where_the_zone_says() -> None:
    monthly = Schedule("m", "monthly", "America/New_York")
    slots = _walk(monthly, datetime(2026, 1, 15, tzinfo=UTC), [6 * 60] * 4 * 365)
    assert len(slots) == 12
    assert {slot.hour for slot in slots} == {7, 8}  # three at night, with and without summer time
    quarterly = Schedule("q", "quarterly", "UTC")
    slots = _walk(quarterly, datetime(2026, 1, 15, tzinfo=UTC), [6 * 60] * 4 * 365)
    assert [slot.month for slot in slots] == [4, 7, 10, 1]


def test_slots_that_were_missed_are_one() -> None:
    start = datetime(2026, 5, 1, 12, tzinfo=UTC)
    slot, mark = calendar.due(BERLIN, start, start + timedelta(days=10), following)
    assert slot == mark == datetime(2026, 5, 11, 0, 30, tzinfo=UTC)


@pytest.mark.parametrize("cron", ["0 * * * *", "30 2 * * *", "monthly", "0 0 29 2 *"])
def test_after_years_without_a_look_the_newest_slot_is_found_at_once(cron: str) -> None:
    schedule, start = Schedule("s", cron, "UTC"), datetime(2021, 5, 1, tzinfo=UTC)
    asked: list[datetime] = []

    def counted(which: Schedule, after: datetime) -> datetime:
        asked.append(after)
        return following(which, after)

    slot, mark = calendar.due(schedule, start, NOW, counted)
    assert slot == mark
    assert slot is not None
    assert slot <= NOW < following(schedule, slot)
    assert len(asked) < 800


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-2000, 3000), max_size=60))
def test_a_clock_that_jumps_finds_no_slot_twice(minutes: list[int]) -> None:
    slots = _walk(BERLIN, datetime(2026, 3, 25, tzinfo=UTC), minutes)
    ids = [calendar.trigger(BERLIN, slot, slot).id for slot in slots]
    assert len(set(ids)) == len(
        set(slots)
    )  # one that is found again after a jump back has the id that is known already


def test_what_is_no_schedule_says_so() -> None:
    with pytest.raises(UsageError) as error:
        following(Schedule("x", "61 * * * *", "UTC"), datetime.now(UTC))
    assert str(error.value).startswith("watch.schedules: x: cron = '61 * * * *' is no schedule: ")
    with pytest.raises(UsageError) as error:
        following(Schedule("x", "monthly", "Mars/Olympus"), datetime.now(UTC))
    assert error.value.message == "watch.schedules: x: zone = 'Mars/Olympus' is no time zone"


NOW = datetime(2026, 5, 1, tzinfo=UTC)
SECRET = b"s" * 32


def test_a_link_is_read_until_its_time_and_not_when_it_was_changed() -> None:
    given_ = Pass("run-1", "retrain", int(NOW.timestamp()) + 60, "n")
    token = links.signed(given_, SECRET)
    assert links.read(token, SECRET, NOW) == given_
    with pytest.raises(UsageError) as error:
        links.read(token, SECRET, NOW + timedelta(minutes=2))
    assert error.value.message == "this link ended on 2026-05-01 00:01 UTC"
    for wrong in (token[:-2] + "AA", token.replace(".", ""), "", "a.b.c", "é.ü", token + "x" * 5000):
        with pytest.raises(UsageError) as error:
            links.read(wrong, SECRET, NOW)
        assert error.value.message == "this link is not one of ours"
    with pytest.raises(UsageError):
        links.read(token, b"t" * 32, NOW)


def test_the_book_keeps_triggers_once_and_decisions_once(tmp_path: Path) -> None:
    book, trigger = Book(tmp_path), Trigger("alert", "alert-1", NOW, "drift")
    assert book.receive(trigger)
    assert not book.receive(trigger)
    assert book.waiting() == [trigger]
    book.settle(Seen(trigger, NOW, reason="cooldown"))
    assert book.waiting() == []
    assert not book.receive(trigger)
    assert book.answer("run-1", "retrain", Answer(True, NOW, "Ann", "n"))
    assert not book.answer("run-1", "retrain", Answer(False, NOW, "Bob", "n"))
    assert book.answered("run-1", "retrain") == Answer(True, NOW, "Ann", "n")
    with pytest.raises(ValueError, match="is no name"):
        book.seen("../../etc/passwd")


def test_a_kill_between_settling_and_forgetting_starts_nothing_twice(tmp_path: Path) -> None:
    book, trigger = Book(tmp_path), Trigger("alert", "alert-1", NOW, "drift")
    book.receive(trigger)
    book.settle(Seen(trigger, NOW, "run-1"))
    (tmp_path / "inbox").mkdir(exist_ok=True)
    (tmp_path / "inbox" / "alert-1.json").write_bytes((tmp_path / "seen" / "alert-1.json").read_bytes())
    assert book.waiting() == []


def test_runs_are_written_whole_and_read_in_order(tmp_path: Path) -> None:
    book = Book(tmp_path)
    runs = [begun(f"{letter}" * 64, 1, Trigger("poll", letter, NOW, "drift"), NOW, {}) for letter in "cab"]
    for run in runs:
        book.save(run)
    later = advanced(runs[0], Step("data_gate", NOW))
    book.save(later)
    (tmp_path / "runs" / ".00001-half.json.tmp").write_text("{")
    assert book.runs() == [later, *runs[1:]]
    (tmp_path / "runs" / f"00000-{runs[0].id}.json").unlink()
    newest = begun("d" * 64, 1, Trigger("poll", "d", NOW, "drift"), NOW, {})
    book.save(newest)
    assert book.runs() == [*runs[1:], newest], "the newest stays the last, whatever somebody deleted"
