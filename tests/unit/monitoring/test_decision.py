from __future__ import annotations

from math import log10

import pytest
from drift_fixtures import RULE
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import DriftSignal
from tunectl.monitoring import decision, window_size

WEIGHTS = {"prompt_text": 6.0, "prompt_tone": 6.0, "feedback": 1.0, "refusals": 1.0}
BUDGET = 0.001


def signal(name: str = "prompt_text", p_value: float | None = 0.5, effect: float = 1.0) -> DriftSignal:
    reason = "too few rows" if p_value is None else ""
    return DriftSignal(
        name,
        "mmd",
        300,
        1000,
        score=1.0,
        threshold=2.0,
        p_value=p_value,
        effect=effect,
        effect_floor=0.5,
        reason=reason,
    )


def combined(*signals: DriftSignal, **pools: list[DriftSignal]) -> dict[str, DriftSignal]:
    tests = {1: list(signals)} | {int(name[1:]): found for name, found in pools.items()}
    return decision.combine_pools(tests, WEIGHTS, BUDGET)


@pytest.mark.parametrize(
    ("available", "sizes"), [(1, [1]), (2, [1, 2]), (3, [1, 3]), (5, [1, 3, 5]), (9, [1, 3, 9]), (40, [1, 3, 9])]
)
def test_pools_grow_to_nine_windows(available: int, sizes: list[int]) -> None:
    assert decision.pool_sizes(available) == sizes


def test_the_budget_is_shared_by_weight_and_by_pool() -> None:
    """Six of seven parts for the text, one for feedback; two pools."""
    found = combined(signal(p_value=1e-5), signal("feedback", 1e-5), p3=[signal(p_value=0.3), signal("feedback", 0.2)])
    assert found["prompt_text"].adjusted_p_value == pytest.approx(1e-5 * 2 * 7 / 6)
    assert found["feedback"].adjusted_p_value == pytest.approx(1e-5 * 2 * 7)
    assert [(one.windows, one.p_value) for one in found["prompt_text"].pooled] == [(3, 0.3)]
    assert found["prompt_text"].p_value == 1e-5


def test_a_signal_without_rows_gives_its_part_to_the_others() -> None:
    found = combined(signal(p_value=1e-5), signal("feedback", None))
    assert found["prompt_text"].adjusted_p_value == pytest.approx(1e-5)
    assert found["feedback"].adjusted_p_value is None
    assert found["feedback"].reason == "too few rows"


def test_windows_too_small_alone_are_tested_together() -> None:
    found = combined(signal(p_value=None), p3=[signal(p_value=1e-6)])
    assert found["prompt_text"].shifted
    assert found["prompt_text"].p_value is None
    verdict = decision.window_verdict(found, budget=BUDGET)
    assert (verdict.verdict, verdict.pooled_windows) == ("drift", 3)


def test_an_effect_under_the_floor_is_no_evidence() -> None:
    found = combined(signal(p_value=1e-9, effect=0.4), signal("feedback", 0.2))
    assert not found["prompt_text"].shifted
    verdict = decision.window_verdict(found, budget=BUDGET)
    assert verdict.verdict == "ok"
    assert verdict.evidence < 3
    over = combined(signal(p_value=1e-9, effect=0.4), p3=[signal(p_value=1e-5)])
    assert over["prompt_text"].adjusted_p_value == pytest.approx(2e-5), "of the pool in which it is over the floor"


def test_the_verdict_says_over_how_many_windows_and_how_rare() -> None:
    found = combined(signal(p_value=1e-3), signal("feedback", 0.5), p3=[signal(p_value=1e-7), signal("feedback", 0.5)])
    verdict = decision.window_verdict(found, budget=BUDGET)
    assert (verdict.verdict, verdict.pooled_windows) == ("drift", 3)
    assert verdict.evidence == pytest.approx(-log10(1e-7 * 2 * 7 / 6), abs=1e-3)
    assert (
        verdict.reason == "shifted over the last 3 windows: prompt_text; without a change once in 4,285,485 evaluations"
    )


def test_quiet_says_how_far_it_is_from_drift() -> None:
    verdict = decision.window_verdict(combined(signal(p_value=0.01)), budget=BUDGET)
    assert (verdict.verdict, verdict.shifted, verdict.evidence) == ("ok", False, 2.0)
    assert verdict.reason == "none of 1 signals shifted, evidence 2.0 of 3.0"


def test_what_could_not_be_tested_leaves_the_evidence_of_the_window_before() -> None:
    verdict = decision.window_verdict(combined(signal(p_value=None)), budget=BUDGET, last_evidence=4.2)
    assert (verdict.verdict, verdict.evidence, verdict.reason) == ("insufficient", 4.2, "prompt_text: too few rows")


def test_without_a_reference_quiet_is_insufficient_and_drift_is_still_drift() -> None:
    why = ["prompts: no window was accepted yet"]
    assert decision.window_verdict(combined(signal()), budget=BUDGET, missing=why).verdict == "insufficient"
    assert decision.window_verdict(combined(signal(p_value=1e-6)), budget=BUDGET, missing=why).verdict == "drift"


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(WEIGHTS)), st.floats(1e-12, 1)),
        min_size=1,
        max_size=4,
        unique_by=lambda one: one[0],
    )
)
def test_drift_exactly_when_the_evidence_reaches_what_is_required(p_values: list[tuple[str, float]]) -> None:
    found = combined(*(signal(name, p_value) for name, p_value in p_values))
    verdict = decision.window_verdict(found, budget=BUDGET)
    assert (verdict.verdict == "drift") == any(one.shifted for one in found.values())
    assert (verdict.evidence >= 3.0) == (verdict.verdict == "drift") or abs(verdict.evidence - 3.0) < 1e-3


def test_the_union_bound_holds_for_uniform_p_values() -> None:
    """The sum of all levels is the budget: whatever depends on what, no more evaluations say drift."""
    pools = 3
    total = sum(WEIGHTS.values())
    levels = [BUDGET / pools * weight / total for weight in WEIGHTS.values()] * pools
    assert sum(levels) == pytest.approx(BUDGET)
    for name, weight in WEIGHTS.items():
        level = BUDGET / pools * weight / total
        others = [signal(other, 0.9) for other in WEIGHTS if other != name]
        every = {f"p{size}": [signal(one, 0.9) for one in WEIGHTS] for size in (3, 9)}
        assert combined(signal(name, level * 0.999), *others, **every)[name].shifted
        assert not combined(signal(name, level * 1.001), *others, **every)[name].shifted


def test_rows_that_windows_need() -> None:
    needed = window_size.min_window_rows(RULE, 1000, 9)
    assert needed is not None
    assert 200 < needed < 300
    assert (window_size.min_window_rows(RULE, 1000, 3) or 10**9) > 2 * needed
    assert window_size.min_window_rows(RULE, 300, 9) is None
    reference = window_size.min_reference_rows(RULE)
    assert (window_size.min_window_rows(RULE, reference, 9) or 10**9) <= 1000
    assert RULE.evidence_required == 3.0


def test_power_of_a_signal_with_fewer_rows() -> None:
    """Figures of docs/concepts/drift.md; 400 draws of normal values gave 0.79, 0.75, 0.61 and 0.37."""
    shares = {share: window_size.power(RULE, 0.2, round(share * 2700), 1000) for share in (1.0, 0.85, 0.5, 0.3)}
    assert {share: round(value, 2) for share, value in shares.items()} == {1.0: 0.79, 0.85: 0.75, 0.5: 0.57, 0.3: 0.35}
    for rows in (2700, 810):
        effect = window_size.min_visible_effect(RULE, rows, 1000)
        assert window_size.power(RULE, effect, rows, 1000) == pytest.approx(window_size.POWER)
    assert [round(window_size.min_visible_effect(RULE, rows, 1000), 2) for rows in (2700, 1350, 810)] == [
        0.2,
        0.23,
        0.26,
    ]
