from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_rows import START, finish, inference, thumb
from msgspec.structs import asdict, replace

from tunectl.artifacts.records import DriftWindow
from tunectl.monitoring import window as windows


def done(number: int, **other):
    return replace(inference(number, session=None), **{**asdict(finish(number)), **other})


def test_a_row_is_the_last_prompt_and_its_answer() -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "First"},
        {"role": "assistant", "content": "Yes"},
        {"role": "user", "content": [{"type": "text", "text": "Second"}, {"type": "text", "text": "part"}]},
    ]
    found = windows.to_monitored_inference(done(1, request={"messages": turns}), [thumb(1)])
    assert (found.prompt, found.answer) == ("Second part", "Antwort 1 🎈")
    assert (found.prompt_tokens, found.answer_tokens, found.finish_reason) == (12, 7, "stop")
    assert (found.refused, found.mean_logprob, found.feedback) == (False, -0.25, True)


def test_an_empty_answer_is_refused_and_a_missing_one_is_not_known() -> None:
    empty = {"choices": [{"message": {"role": "assistant", "content": "  "}}]}
    assert windows.to_monitored_inference(done(1, response=empty)).refused is True
    assert windows.to_monitored_inference(done(1, response=None, refusal=None)).refused is None
    calls = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": []}}]}
    assert windows.to_monitored_inference(done(1, response=calls)).answer is None
    old = {"choices": [{"text": "continued"}]}
    found = windows.to_monitored_inference(done(1, request={"prompt": "Once"}, response=old))
    assert (found.prompt, found.answer) == ("Once", "continued")


@pytest.mark.parametrize("request_", [None, {}, {"messages": "no list"}, {"messages": [7]}, {"prompt": 7}])
def test_odd_requests_have_no_prompt(request_) -> None:
    assert windows.to_monitored_inference(done(1, request=request_)).prompt is None


def test_one_a_session_of_the_champion_and_finished() -> None:
    given = [
        done(1, session="a"),
        done(2, session="a"),
        done(3),
        done(4, variant="challenger"),
        inference(5, session=None),
        done(6, erased_at=START),
        replace(done(7), finish_reason="cancelled"),
        done(8),
    ]
    assert [one.id[-1] for one in windows.select_rows(given)] == ["1", "3", "8"]


def test_sessions_of_two_keys_with_one_name_are_two() -> None:
    """Else whoever uses the names of somebody else's sessions first keeps their rows out of the windows."""
    given = [done(1, session="1", key_hash="b"), done(2, session="1", key_hash="a"), done(3, session="1", key_hash="a")]
    assert [one.id[-1] for one in windows.select_rows(given)] == ["1", "2"]


def test_no_more_is_read_than_one_window_needs() -> None:
    moments = [0, 1, 2, 2, 3, 4]
    given = iter(
        [replace(done(number), accepted_at=START + timedelta(seconds=at)) for number, at in enumerate(moments)]
    )
    assert [one.id[-1] for one in windows.select_window_rows(given, 3)] == ["0", "1", "2", "3"]
    assert [one.id[-1] for one in given] == ["5"], "one was read to see that it is of a later moment"
    assert len(windows.select_window_rows([done(1), done(2)], 3)) == 2


def closing(now: datetime, accepted: list[datetime], *, rows: int = 3, hours: float = 24.0, settle: float = 60.0):
    return windows.closable_window(START, now, accepted, rows=rows, hours=hours, settle=settle)


def test_it_closes_behind_its_last_row_or_after_its_time() -> None:
    times = [START + timedelta(minutes=minute) for minute in (1, 2, 3, 4)]
    late = START + timedelta(hours=1)
    assert closing(late, times) == windows.TimeSpan(START, times[2] + timedelta(microseconds=1))
    assert closing(times[2] + timedelta(seconds=59), times[:3]) is None
    assert closing(late, times[:2]) is None
    assert closing(START + timedelta(days=1, seconds=59), []) is None
    assert closing(START + timedelta(days=1, minutes=1), []) == windows.TimeSpan(START, START + timedelta(days=1))


def test_who_was_away_closes_the_windows_that_would_have_been_closed() -> None:
    """The third row came on the second day; the window of the first day had ended by then."""
    times = [START + timedelta(hours=hour) for hour in (1, 2, 25, 26)]
    first = closing(START + timedelta(days=3), times)
    assert first == windows.TimeSpan(START, START + timedelta(days=1))
    second = windows.closable_window(first.until, START + timedelta(days=3), times, rows=2, hours=24, settle=60)
    assert second == windows.TimeSpan(first.until, times[3] + timedelta(microseconds=1))


def test_a_clock_that_was_set_back_makes_it_wait() -> None:
    assert closing(START - timedelta(hours=2), [START + timedelta(minutes=1)] * 5) is None


def test_daylight_saving_changes_nothing() -> None:
    from zoneinfo import ZoneInfo

    zone = ZoneInfo("America/New_York")
    since = datetime(2026, 3, 7, 12, tzinfo=zone)
    end = windows.closable_window(
        since.astimezone(UTC), datetime(2026, 3, 8, 13, 1, tzinfo=zone), [], rows=9, hours=24, settle=60
    )
    assert end is not None
    assert end.until - end.since == timedelta(hours=24)


@settings(deadline=None)
@given(st.lists(st.integers(0, 100_000), max_size=60), st.integers(1, 10), st.floats(0.1, 20), st.integers(0, 600))
def test_windows_share_no_row_and_lose_none(seconds: list[int], rows: int, hours: float, settle: int) -> None:
    times = sorted(START + timedelta(seconds=second) for second in seconds)
    now, since, seen = START + timedelta(days=30), START, []
    while (span := windows.closable_window(since, now, times, rows=rows, hours=hours, settle=settle)) is not None:
        assert span.since == since < span.until
        inside = [at for at in times if span.since <= at < span.until]
        seen += inside
        assert len(inside) <= rows or len(set(inside[rows - 1 :])) == 1  # rows of one moment stay together
        since = span.until
        if span.until > times[-1] if times else True:
            break
    assert seen == [at for at in times if at < since]


def test_the_id_is_the_hash_of_what_was_looked_at_and_how() -> None:
    span = windows.TimeSpan(START, START + timedelta(hours=1))
    first = windows.compute_window_id(span, ["a", "b"], "r", "p", {"level": 0.05})
    assert first == windows.compute_window_id(span, ["b", "a"], "r", "p", {"level": 0.05})
    assert len(first) == 16
    others = [
        windows.compute_window_id(span, ["a"], "r", "p", {"level": 0.05}),
        windows.compute_window_id(span, ["a", "b"], "s", "p", {"level": 0.05}),
        windows.compute_window_id(span, ["a", "b"], "r", "q", {"level": 0.05}),
        windows.compute_window_id(span, ["a", "b"], "r", "p", {"level": 0.01}),
    ]
    assert len({first, *others}) == 5


def test_the_newest_acceptance_counts() -> None:
    assert windows.find_accepted_windows([]) == []
    bodies = [windows.accept(["a"], author="me", message=""), windows.accept(["b", "c"], author="me", message="")]
    assert windows.find_accepted_windows(bodies) == ["b", "c"]
    with pytest.raises(ValueError, match="no window is named"):
        windows.accept([], author="me", message="")


def test_what_is_about_a_reference_of_yesterday_is_superseded() -> None:
    window = DriftWindow("w", START, START + timedelta(hours=1), 100, "drift", True, "r", "b+c")
    assert not windows.is_stale(window, [])
    same, other = windows.accept(["b", "c"], author="me", message=""), windows.accept(["w"], author="me", message="")
    assert not windows.is_stale(window, [other, same])
    assert windows.is_stale(window, [same, other])
