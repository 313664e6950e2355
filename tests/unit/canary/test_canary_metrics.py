"""From live traffic to units: who counts, when, and with what."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.canary import canary_metrics

DAY = datetime(2026, 5, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def inference(name, user="u", variant="champion", *, hours=0.0, model="shop", **more):
    at = DAY + hours * HOUR
    release = "r1" if variant == "challenger" else "r0"
    given = {"finished_at": at, "finish_reason": "stop", "latency_seconds": 1.0, "refusal": False} | more
    return InferenceRecord(name, at, variant, release, "t", {"model": model}, user, **given)


def collect(inferences, said=(), measure="satisfaction", hours=48.0):
    by_inference = {}
    for one in said:
        by_inference.setdefault(one.inference_id, []).append(one)
    return canary_metrics.collect_observations(
        inferences,
        lambda ids: {name: by_inference[name] for name in ids if name in by_inference},
        metric=measure,
        challenger="r1",
        attribution=24 * HOUR,
        slow=5.0,
        now=DAY + hours * HOUR,
    )


def opinion(name, kind="thumb", value="up", hours=1.0):
    return Feedback(f"{name}{kind}{hours}", name, kind, value, DAY + hours * HOUR)


def test_a_unit_is_an_identity_and_counts_once_its_time_is_over():
    ones = [inference("a"), inference("b", hours=2), inference("c", "v", "challenger", hours=30)]
    found = collect(ones, [opinion("a"), opinion("b", value="down", hours=3)])
    assert [(unit.challenger, unit.outcome) for unit in found.units] == [(False, 0.5)]
    assert found.open == 1
    assert len(collect(ones, hours=55).units) == 2


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ([], 0.5),
        ([opinion("a")], 1.0),
        ([opinion("a", value="down")], 0.0),
        ([opinion("a", "rating", 4)], 0.75),
        ([opinion("a", "edit", "better")], 0.25),
        ([opinion("a", hours=25)], 0.5),  # after its time
        ([opinion("a"), opinion("a", "rating", 1)], 0.5),
    ],
)
def test_satisfaction(said, outcome):
    assert collect([inference("a")], said).units[0].outcome == outcome


def test_clicks_and_conversions_count_once_whatever_they_are_worth():
    said = [opinion("a", "click", "buy"), opinion("a", "click", "more", 2.0), opinion("a", "conversion", 90.0)]
    assert collect([inference("a")], said, "click").units[0].outcome == 1.0
    assert collect([inference("a")], said, "conversion").units[0].outcome == 1.0
    assert collect([inference("a")], [], "click").units[0].outcome == 0.0


def test_guards_are_shares_of_the_inferences():
    ones = [
        inference("a", latency_seconds=9.0),
        inference("b", refusal=True),
        inference("c", finish_reason="error"),
        inference("d"),
    ]
    assert collect(ones).units[0].guards == {"errors": 0.25, "refusals": 0.25, "slow answers": 0.25}


def test_whoever_asked_for_a_variant_was_seen_in_both_or_is_nobody_does_not_count():
    ones = [
        inference("a", model="challenger"),
        inference("b", model="r0"),
        inference("c", "v"),
        inference("d", "v", "challenger", hours=1),
        inference("e", None),
        inference("f", "w", "base"),
    ]
    found = collect(ones)
    assert (found.units, found.by_name, found.both) == ([], 2, 1)


def test_what_comes_after_the_time_of_a_unit_changes_it_no_more():
    ones = [inference(name, name) for name in "abc"]
    late = DAY + 30 * HOUR
    for at in (DAY + HOUR, datetime(2000, 1, 1, tzinfo=UTC)):
        replayed = [Feedback(f"f{one.id}", one.id, "thumb", "down", at, received_at=late) for one in ones]
        assert collect(ones, replayed).units == collect(ones).units
    heard = [Feedback(f"f{one.id}", one.id, "thumb", "down", DAY, received_at=DAY + HOUR) for one in ones]
    assert [unit.outcome for unit in collect(ones, heard).units] == [0.0, 0.0, 0.0]


def test_one_key_with_many_names_is_one_unit_unless_it_acts_for_others():
    ones = [inference(str(number), f"u{number}", key_hash="k", acts_for=False) for number in range(12)]
    assert len(collect(ones).units) == 1
    assert len(collect([replace(one, acts_for=True) for one in ones]).units) == 12


@pytest.mark.parametrize(("kind", "measure", "honest"), [("click", "click", 0.0), ("edit", "satisfaction", 0.5)])
def test_feedback_of_an_erased_key_on_other_answers_does_not_count(kind, measure, honest):
    """In mid-experiment: the mark that an erasure leaves has kind and time of what was said, and no value."""
    asked = [inference("a"), inference("b", "v", "challenger")]
    poison = opinion("b", kind, "buy" if kind == "click" else "worse")
    assert collect(asked, [poison], measure).units[1].outcome != honest
    erased = replace(poison, value=None, annotator=None, erased_at=DAY + 2 * HOUR)
    assert collect(asked, [erased], measure).units[1].outcome == honest


def test_users_invented_by_an_erased_key_are_no_canary_units():
    invented = [
        inference(f"x{number}", f"user-{number}", "challenger", key_hash="poison", acts_for=True) for number in range(3)
    ]
    honest = [inference("a"), inference("b", "v", "challenger")]
    assert len(collect([*honest, *invented]).units) == 5
    gone = [replace(one, request=None, response=None, user_hash=None, key_hash=None, erased_at=DAY) for one in invented]
    assert len(collect([*honest, *gone]).units) == 2
