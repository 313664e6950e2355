from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import sqrt
from statistics import NormalDist

import pytest
from drift_fixtures import RULE
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from tunectl.artifacts.records import DriftSignal, DriftWindow
from tunectl.monitoring import decision

SINCE = datetime(2026, 3, 1, tzinfo=UTC)


def signal(
    name: str = "prompt_text", p_value: float | None = 0.5, effect: float = 1.0, floor: float = 0.5
) -> DriftSignal:
    return DriftSignal(
        name, "mmd", 300, 1000, score=1.0, threshold=2.0, p_value=p_value, effect=effect, effect_floor=floor
    )


def window(verdict: str, consecutive: int, number: int = 0) -> DriftWindow:
    since = SINCE + timedelta(hours=number)
    return DriftWindow(
        f"{number:016x}",
        since,
        since + timedelta(hours=1),
        300,
        verdict,
        consecutive,
        3,
        consecutive > 0,
        "a" * 16,
        "b" * 16,
    )


def test_holm_of_a_textbook_example() -> None:
    assert [round(one, 10) for one in decision.holm([0.01, 0.04, 0.03, 0.005])] == [0.03, 0.06, 0.06, 0.02]
    assert decision.holm([]) == []


@settings(deadline=None)
@given(st.lists(st.floats(1e-6, 1), max_size=15))
def test_holm_is_no_smaller_than_the_p_value_and_keeps_their_order(p_values: list[float]) -> None:
    adjusted = decision.holm(p_values)
    assert all(one <= other <= 1 for one, other in zip(p_values, adjusted, strict=True))
    pairs = sorted(zip(p_values, adjusted, strict=True))
    assert [one for _, one in pairs] == sorted(adjusted)
    if p_values:
        assert min(adjusted) == min(1.0, len(p_values) * min(p_values))


def test_a_signal_moves_when_it_is_significant_and_larger_than_the_floor() -> None:
    found = decision.adjust_p_values(
        [
            signal("prompt_text", 0.001),
            signal("answer_text", 0.001, effect=0.4),
            signal("prompt_tone", 0.06),
            signal("feedback", None),
        ],
        0.05,
    )
    assert [name for name, one in found.items() if one.shifted] == ["prompt_text"]
    assert found["prompt_tone"].adjusted_p_value == 0.06
    assert found["prompt_text"].adjusted_p_value == 0.003
    assert found["feedback"].adjusted_p_value is None


def test_drift_after_so_many_windows_in_a_row() -> None:
    moved = decision.adjust_p_values([signal(p_value=0.0005)], 0.05)
    first = decision.window_verdict(moved, [], required=3)
    assert (first.verdict, first.consecutive, first.reason) == ("ok", 1, "moved, 1 of 3 in a row: prompt_text")
    third = decision.window_verdict(moved, [window("ok", 1), window("ok", 2, 1)], required=3)
    assert (third.verdict, third.consecutive) == ("drift", 3)
    assert decision.window_verdict(moved, [window("drift", 3)], required=3).consecutive == 4


def test_a_quiet_window_ends_the_row_and_one_that_says_nothing_does_not() -> None:
    quiet, silent = decision.adjust_p_values([signal()], 0.05), decision.adjust_p_values([signal(p_value=None)], 0.05)
    before = [window("ok", 2)]
    assert decision.window_verdict(quiet, before, required=3).consecutive == 0
    kept = decision.window_verdict(silent, before, required=3)
    assert (kept.verdict, kept.consecutive) == ("insufficient", 2)
    moved = decision.adjust_p_values([signal(p_value=0.0005)], 0.05)
    assert decision.window_verdict(moved, [*before, window("insufficient", 2, 1)], required=3).verdict == "drift"


def test_without_a_reference_quiet_is_insufficient_and_drift_is_still_drift() -> None:
    why = ["prompts: no window was accepted yet"]
    assert (
        decision.window_verdict(decision.adjust_p_values([signal()], 0.05), [], required=3, missing=why).verdict
        == "insufficient"
    )
    moved = decision.adjust_p_values([signal(p_value=0.0005)], 0.05)
    assert decision.window_verdict(moved, [window("ok", 2)], required=3, missing=why).verdict == "drift"


@settings(deadline=None)
@given(st.lists(st.sampled_from(["moved", "quiet", "silent"]), max_size=40), st.integers(1, 5))
def test_the_count_is_that_of_the_last_unbroken_row(story: list[str], required: int) -> None:
    signals = {
        "moved": decision.adjust_p_values([signal(p_value=0.0005)], 0.05),
        "quiet": decision.adjust_p_values([signal()], 0.05),
        "silent": decision.adjust_p_values([replace(signal(), p_value=None, reason="too few rows")], 0.05),
    }
    before: list[DriftWindow] = []
    expected = 0
    for number, chapter in enumerate(story):
        found = decision.window_verdict(signals[chapter], before, required=required)
        expected = {"moved": expected + 1, "quiet": 0, "silent": expected}[chapter]
        assert found.consecutive == expected
        assert (found.verdict == "drift") == (chapter == "moved" and expected >= required)
        before.append(window(found.verdict, found.consecutive, number))


@pytest.mark.parametrize("rows", [50, 100, 300, 1000, 3000, 10_000])
@pytest.mark.parametrize("reference", [200, 300, 1000])
def test_k_windows_that_share_an_unlucky_reference_are_false_once_in_a_thousand_at_most(
    rows: int, reference: int
) -> None:
    """By calculation, of thirteen signals that are means: given the luck of the reference, windows are independent.

    A large window tells an unlucky reference from the world; the floor is what holds then.
    """
    normal, signals = NormalDist(), 13
    spread = sqrt(1 / rows + 1 / reference)
    significant = normal.inv_cdf(1 - RULE.level / signals / 2)
    over_floor = normal.inv_cdf(0.5 + RULE.quantile / 2) * sqrt(4 / reference) / spread
    line, shared = max(significant, over_floor), sqrt(1 / reference) / spread
    own = sqrt(1 - shared**2)
    false = 0.0
    for step in range(-600, 601):
        luck = step / 100
        flagged = normal.cdf((luck * shared - line) / own) + normal.cdf((-luck * shared - line) / own)
        false += normal.pdf(luck) * flagged**RULE.required / 100
    assert signals * false <= 0.001
