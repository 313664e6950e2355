"""The retrain state machine, by hypothesis: whatever happens in whatever order, its promises hold."""

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunectl.retraining import rate_limits, state_machine
from tunectl.retraining.rate_limits import RateLimits
from tunectl.retraining.state_machine import CONCLUDED, ENDS, NEXT, RetrainRun, Transition, Trigger

START = datetime(2026, 3, 29, tzinfo=UTC)
POLICY = RateLimits(timedelta(hours=6), timedelta(days=7), 3)


def _trigger(name="t", kind="alert", **more):
    return Trigger(kind, name, START, "drift", **more)


def test_every_state_is_reached_and_every_end_is_one():
    assert set(NEXT) == set(
        msgspec.json.schema_components([Transition])[1]["Transition"]["properties"]["state"]["enum"]
    )
    reached = {"proposed"}
    while True:
        more = reached | {after for state in reached for after in NEXT[state]}
        if more == reached:
            break
        reached = more
    assert reached == set(NEXT)
    assert {state for state, after in NEXT.items() if not after} == ENDS


def test_a_step_out_of_order_is_our_bug():
    run = state_machine.new_run("ab" * 32, 1, _trigger(), START, {})
    with pytest.raises(state_machine.InvalidTransitionError) as error:
        state_machine.apply_transition(run, Transition("canary", START))
    assert error.value.message == (
        "retrain abababababab-1: canary after proposed; allowed is awaiting_approval, data_gate, dismissed, failed"
    )


def test_the_key_depends_on_each_of_its_four_parts():
    keys = {state_machine.run_key(*[("a" if place != other else "b") for place in range(4)]) for other in range(5)}
    assert len(keys) == 5


def test_words_of_what_starts_nothing():
    done = _ended("promoted", START)
    words = rate_limits.admit_trigger(done.key, _trigger(), [done], START, POLICY)
    assert (words.reason, words.detail) == (
        "duplicate",
        f"retrain {done.id} with the same data, settings and code: promoted",
    )
    words = rate_limits.admit_trigger("c" * 64, _trigger(), [done], START + timedelta(hours=1), POLICY)
    assert words.detail == "the last retrain was promoted; the next one may start 2026-03-29 06:00 UTC"
    assert rate_limits.admit_trigger("c" * 64, _trigger(ignore_limits=True), [done], START, POLICY).attempt == 1
    assert rate_limits.admit_trigger("c" * 64, _trigger(), [done], START + timedelta(hours=6), POLICY).attempt == 1


def test_the_cooldown_doubles_after_a_rejection_and_never_exceeds_its_bound():
    runs = [_ended("rejected", START, str(number)) for number in range(1)]
    assert rate_limits.cooldown_until(runs, START, POLICY) == START + timedelta(hours=12)
    runs = [_ended("rejected", START, str(number)) for number in range(9)]
    assert rate_limits.cooldown_until(runs, START, POLICY) == START + timedelta(days=7)
    assert rate_limits.cooldown_until([*runs, _ended("promoted", START)], START, POLICY) == START + timedelta(hours=6)


def test_a_clock_that_was_ahead_delays_nobody_for_years():
    future = _ended("promoted", START + timedelta(days=3650))
    assert rate_limits.cooldown_until([future], START, POLICY) is None
    assert rate_limits.runs_within([future] * 3, START) == 0


def test_a_year_of_rejections_is_a_number_still():
    runs = [_ended("rejected", START, str(number)) for number in range(400)]
    assert rate_limits.cooldown_until(runs, START, POLICY) == START + POLICY.longest


def test_after_a_dismissal_only_what_nags_rests():
    no = _ended("dismissed", START + timedelta(hours=1))
    assert rate_limits.cooldown_until([no], START + timedelta(hours=2), POLICY) is None
    assert rate_limits.cooldown_until([no], START + timedelta(hours=2), POLICY, recurring=True) == START + timedelta(
        hours=7
    )
    both = [*(_ended("rejected", START, str(number)) for number in range(2)), no]
    for recurring in (True, False):
        assert rate_limits.cooldown_until(
            both, START + timedelta(hours=2), POLICY, recurring=recurring
        ) == START + timedelta(hours=24)


def _ended(state, at, key="a"):
    return RetrainRun(
        key.ljust(64, "0"),
        1,
        _trigger(),
        [Transition("proposed", at), Transition("training", at), Transition(state, at)],
    )


@settings(max_examples=60, stateful_step_count=40, deadline=None)
class Loop(RuleBasedStateMachine):
    """Triggers, steps and clocks in any order."""

    def __init__(self):
        super().__init__()
        self.now, self.runs = START, []

    @rule(hours=st.integers(-3, 60))
    def time_goes_by_or_jumps_back(self, hours):
        self.now += timedelta(hours=hours)

    @rule(
        key=st.sampled_from("abcd"), kind=st.sampled_from(["alert", "poll", "schedule", "person"]), urgent=st.booleans()
    )
    def somebody_wants_a_run(self, key, kind, urgent):
        trigger = Trigger(kind, f"{key}-{self.now}", self.now, "why", ignore_limits=urgent)
        key = key * 64
        found = rate_limits.admit_trigger(key, trigger, self.runs, self.now, POLICY)
        if found.attempt is None:
            assert found.reason
            assert found.detail
            return
        assert not any(run.key == key and run.state in CONCLUDED for run in self.runs)
        assert urgent or rate_limits.runs_within(self.runs, self.now) < POLICY.week
        self.runs.append(state_machine.new_run(key, found.attempt, trigger, self.now, {}))

    @precondition(lambda self: any(not run.ended for run in self.runs))
    @rule(data=st.data())
    def the_run_goes_on(self, data):
        last = self.runs[-1]
        after = data.draw(st.sampled_from(sorted(NEXT[last.state])))
        self.runs[-1] = state_machine.apply_transition(last, Transition(after, self.now))

    @invariant()
    def at_most_one_run_is_active_and_it_is_the_last(self):
        assert all(run.ended for run in self.runs[:-1])

    @invariant()
    def names_are_unique_and_times_never_go_back(self):
        assert len({run.id for run in self.runs}) == len(self.runs)
        for run in self.runs:
            times = [step.at for step in run.steps]
            assert times == sorted(times)

    @invariant()
    def a_record_reads_back_as_it_was(self):
        for run in self.runs[-1:]:
            assert msgspec.json.decode(msgspec.json.encode(run), type=RetrainRun) == run


TestLoop = Loop.TestCase


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(ENDS)), st.integers(0, 400)), max_size=8), st.integers(0, 900))
def test_no_cooldown_lasts_longer_than_its_bound(ends, hour):
    runs = [
        _ended(state, START + timedelta(hours=at), str(place))
        for place, (state, at) in enumerate(sorted(ends, key=lambda e: e[1]))
    ]
    now = START + timedelta(hours=hour)
    until = rate_limits.cooldown_until(runs, now, POLICY)
    assert until is None or timedelta(0) < until - now <= 2 * POLICY.longest
