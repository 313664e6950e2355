"""Fault test 16: windows that hold nothing, little, one thing only, or far too much; and drift that is really there."""

from __future__ import annotations

import time
from math import inf, isfinite, nan

import pytest
from drift_fixtures import at, examiner, rows
from msgspec.structs import asdict, replace

from tunectl.artifacts.records import DriftWindow
from tunectl.monitoring import signals
from tunectl.monitoring.drift_detector import DriftDetector, PooledWindow
from tunectl.monitoring.signals import MonitoredInference
from tunectl.monitoring.window import TimeSpan

SPAN = TimeSpan(at(1), at(2))


@pytest.fixture(scope="module")
def looking() -> DriftDetector:
    return examiner()


@pytest.fixture(scope="module")
def baselines(looking: DriftDetector):
    known = rows(400, seed=1)
    return {side: looking.measure_reference("ref", known, side) for side in ("prompt", "answer")}


def looked(looking: DriftDetector, baselines, window: list[MonitoredInference], before=()) -> DriftWindow:
    found = looking.examine_window(SPAN, window, baselines, before, release="r" * 16, missing={})
    for signal in found.signals.values():
        numbers = [value for value in asdict(signal).values() if isinstance(value, float)]
        assert all(isfinite(value) for value in numbers), signal
    return found


@pytest.mark.parametrize("count", [0, 1, 10, 49])
def test_too_few_rows_are_insufficient(looking: DriftDetector, baselines, count: int) -> None:
    found = looked(looking, baselines, rows(count, seed=2))
    assert found.verdict == "insufficient"
    assert found.reason == f"too few rows: {count} of 50"
    assert not found.shifted


def test_log_probabilities_are_compared_over_the_rows_that_have_them(looking: DriftDetector, baselines) -> None:
    some = [row if index % 3 else replace(row, mean_logprob=None) for index, row in enumerate(rows(300, seed=3))]
    found = looked(looking, baselines, some)
    assert (found.rows, found.signals["mean_logprob"].n, found.signals["answer_tokens"].n) == (300, 200, 300)
    assert found.verdict == "ok"
    known = [row for row in some if row.mean_logprob is not None]
    alone = looked(looking, baselines, known).signals["mean_logprob"]
    assert found.signals["mean_logprob"].p_value == alone.p_value  # nothing stands in for what was not computed
    lower = [row if row.mean_logprob is None else replace(row, mean_logprob=row.mean_logprob - 1) for row in some]
    assert looked(looking, baselines, lower).signals["mean_logprob"].shifted
    few = [replace(row, mean_logprob=None) if index >= 49 else row for index, row in enumerate(some)]
    silent = looked(looking, baselines, few)
    assert silent.signals["mean_logprob"].reason == "too few rows in the window: 32 of 50"
    assert silent.verdict == "ok"


def test_quiet_traffic_is_ok(looking: DriftDetector, baselines) -> None:
    found = looked(looking, baselines, rows(300, seed=3))
    assert (found.verdict, found.shifted, found.changed_since) == ("ok", False, None)
    assert set(found.signals) == set(signals.WEIGHTS)
    assert found.reason == f"none of 13 signals shifted, evidence {found.evidence:.1f} of 3.0"


def test_another_topic_is_seen_and_shown(looking: DriftDetector, baselines) -> None:
    changed = rows(300, seed=4, topics=["garden", "bike", "bread"])
    found = looked(looking, baselines, changed)
    assert found.shifted
    assert found.signals["prompt_text"].shifted
    assert (found.verdict, found.pooled_windows, found.changed_since) == ("drift", 1, SPAN.since)
    assert found.evidence >= found.evidence_required == 3.0
    assert found.reason.startswith("shifted in this window: prompt_text")
    assert found.reason.endswith("evaluations; likely since 2026-03-01 12:00 UTC")
    texts = {row.id: row.prompt for row in changed}
    bread = [name for name in found.exemplars if {"dough", "flour", "rye", "loaf", "oven"} & set(texts[name].split())]
    assert len(bread) >= 8
    assert found.segments[0].window > found.segments[0].reference
    assert found.segments[0].name.removeprefix("word:") in "flour yeast oven dough crust loaf butter rye starter knead"
    assert all(name in texts for name in found.segments[0].exemplars)


def test_evidence_of_windows_adds_up_and_the_change_is_dated(looking: DriftDetector, baselines) -> None:
    """An eighth of each window is about bread, and three such windows together say what one does not."""
    pooled = [PooledWindow(at(day), looking.measure_rows(rows(60, seed=40 + day))) for day in range(1, 9)]
    found = []
    for turn in range(3):
        mixed = [*rows(50, seed=60 + turn), *rows(10, seed=70 + turn, topics=["bread"])]
        pooled.append(PooledWindow(at(11 + turn), looking.measure_rows(mixed)))
        span = TimeSpan(at(11 + turn), at(12 + turn))
        found.append(looking.examine_window(span, mixed, baselines, [], release="r", missing={}, pooled=pooled[-9:]))
    last = found[-1]
    assert last.verdict == "drift"
    assert last.pooled_windows > 1
    assert last.evidence > found[0].evidence
    assert last.changed_since in {at(10), at(11), at(12)}
    assert [each.windows for each in last.signals["prompt_text"].pooled] == [3, 9]
    assert last.signals["prompt_text"].pooled[0].rows == 180
    assert f"over the last {last.pooled_windows} windows" in last.reason


def test_windows_too_small_for_the_declared_change_say_so(looking: DriftDetector, baselines) -> None:
    assert looked(looking, baselines, rows(60, seed=3)).too_small_for == 0.2
    coarse = examiner(min_effect=1.0)
    assert looked(coarse, baselines, rows(60, seed=3)).too_small_for is None
    assert looked(examiner(min_effect=0.4), baselines, rows(60, seed=3)).too_small_for is None
    sampled = examiner(most=20, min_effect=0.4)
    assert looked(sampled, baselines, rows(60, seed=3)).too_small_for == 0.4, "20 of the 60 rows are tested"


def test_all_rows_equal(looking: DriftDetector) -> None:
    one = rows(1, seed=5)[0]
    same = [replace(one, id=str(number)) for number in range(200)]
    bases = {side: looking.measure_reference("ref", same, side) for side in ("prompt", "answer")}
    assert looked(looking, bases, same[:80]).verdict == "ok"


def test_numbers_that_are_none_and_texts_that_are_empty(looking: DriftDetector, baselines) -> None:
    odd = [
        MonitoredInference(
            str(number), prompt="", answer="", prompt_tokens=-1, mean_logprob=[nan, inf, -inf, None][number % 4]
        )
        for number in range(100)
    ]
    found = looked(looking, baselines, odd)
    assert found.signals["mean_logprob"].p_value is None
    assert found.signals["mean_logprob"].reason == "too few rows in the window: 0 of 50"
    assert found.signals["prompt_text"].p_value is not None


def test_other_scripts(looking: DriftDetector, baselines) -> None:
    words = ["駅はどこですか", "أين المحطة القريبة", "где ближайшая станция", "🎈🎈🎈", "\ud800"]
    foreign = [
        replace(row, prompt=words[place % 5], answer=words[place % 5]) for place, row in enumerate(rows(200, seed=6))
    ]
    found = looked(looking, baselines, foreign)
    assert found.signals["prompt_text"].shifted
    assert found.signals["prompt_language"].shifted
    again = {side: looking.measure_reference("foreign", foreign, side) for side in ("prompt", "answer")}
    assert looked(looking, again, foreign[:100]).verdict == "ok"


def test_a_hundred_thousand_rows_are_sampled() -> None:
    looking = examiner(most=2000)
    bases = {side: looking.measure_reference("ref", rows(400, seed=1), side) for side in ("prompt", "answer")}
    few = rows(1000, seed=7)
    many = [replace(row, id=f"{row.id}-{copy}") for copy in range(100) for row in few]
    began = time.process_time()
    found = looked(looking, bases, many)
    assert time.process_time() - began < 60
    assert found.rows == 100_000
    assert found.signals["prompt_tokens"].n == 2000


def test_the_same_rows_give_the_same_window(looking: DriftDetector, baselines) -> None:
    window = rows(120, seed=8)
    assert looked(looking, baselines, window) == looked(examiner(), baselines, window)
    assert looked(looking, baselines, window[1:]).id != looked(looking, baselines, window).id


def test_a_large_window_is_held_to_what_the_reference_shows_against_itself(looking: DriftDetector) -> None:
    """Over 5,000 rows nearly any difference is significant; the floor of 400 reference rows is what counts."""
    bases = {"prompt": looking.measure_reference("ref", rows(400, seed=9), "prompt")}
    flagged = [looked(looking, bases, rows(3000, seed=20 + turn)).shifted for turn in range(3)]
    assert not any(flagged)


def test_without_a_side_its_signals_are_not_there(looking: DriftDetector, baselines) -> None:
    found = looking.examine_window(
        SPAN,
        rows(100, seed=1),
        {"answer": baselines["answer"]},
        [],
        release="r",
        missing={"prompt": "prompts: none yet"},
    )
    assert (found.verdict, found.reason, found.reference) == ("insufficient", "prompts: none yet", "none")
    assert not [name for name in found.signals if name.startswith("prompt")]


def test_a_side_of_which_nothing_could_be_told_is_not_ok(looking: DriftDetector, baselines) -> None:
    """Many answers, and not one with anything to compare: quiet prompts do not speak for them."""
    mute = [
        MonitoredInference(row.id, prompt=row.prompt, prompt_tokens=row.prompt_tokens) for row in rows(120, seed=11)
    ]
    found = looked(looking, baselines, mute)
    assert (found.verdict, found.reason) == ("insufficient", "answers: too few rows in the window: 0 of 50")
    some = [replace(row, mean_logprob=None) for row in rows(300, seed=3)]
    found = looked(looking, baselines, some)
    assert (found.verdict, found.reason) == (
        "ok",
        f"none of 12 signals shifted, evidence {found.evidence:.1f} of 3.0; too few rows for mean_logprob",
    )


def test_exemplars_are_of_the_side_that_moved(looking: DriftDetector, baselines) -> None:
    quiet, other = rows(300, seed=3), rows(300, seed=4, topics=["bread"])
    found = looked(looking, baselines, [replace(one, answer=two.answer) for one, two in zip(quiet, other, strict=True)])
    moved = [name for name, one in found.signals.items() if one.shifted]
    assert moved
    assert not [name for name in moved if name.startswith("prompt") or name == "feedback"]
    answers = {one.id: two.answer for one, two in zip(quiet, other, strict=True)}
    bread = {"dough", "flour", "rye", "loaf", "oven", "crust", "knead", "yeast", "starter", "butter"}
    assert all(bread & set(answers[name].split()) for name in found.exemplars)


def test_a_side_is_embedded_once_and_its_language_is_looked_at_from_end_to_end() -> None:
    from dataclasses import replace as changed

    from drift_fixtures import tools

    class Counting:
        name, calls = "counting", 0

        def embed(self, texts):
            Counting.calls += 1
            return tools().embedder.embed(texts)

    given = rows(50, seed=1)
    found = signals.compute_signal_values(given, "prompt", changed(tools(), embedder=Counting()))
    assert Counting.calls == 1
    assert (found["prompt_text"].parts[0] == found["prompt_tone"].parts[1]).all()
    many = [MonitoredInference(str(number), prompt="soil") for number in range(signals.MAX_LANGUAGE_TEXTS * 2 + 1)]
    looked_at = signals.compute_signal_values(many, "prompt", tools(), without=["prompt_text", "prompt_tone"])[
        "prompt_language"
    ].rows
    assert len(looked_at) <= signals.MAX_LANGUAGE_TEXTS
    assert looked_at[-1] > len(many) - 4


def test_names_in_the_schema_are_the_signals() -> None:
    from typing import get_args

    from tunectl.config.schema.monitor import SignalName

    assert get_args(SignalName) == tuple(signals.WEIGHTS)
