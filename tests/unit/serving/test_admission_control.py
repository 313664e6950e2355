"""Admission: bounds hold whatever happens, first come first served, refusals say when to come again."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tunectl.access.api_errors import ApiError
from tunectl.serving.admission_control import (
    AdmissionController,
    AdmissionTicket,
    CapacityLimits,
    OverloadedError,
    estimate_tokens,
)

BOUNDS = CapacityLimits(running=4, waiting=3, tokens=100)


class Door(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.admission, self.now = AdmissionController(BOUNDS), 0.0
        self.inside: list[AdmissionTicket] = []
        self.started: list[int] = []
        self.order: list[int] = []
        self.waits: list[tuple[int, float]] = []

    @rule(answers=st.integers(1, 4), tokens=st.integers(1, 60))
    def come(self, answers: int, tokens: int) -> None:
        number: list[int] = []
        early: list[bool] = []
        self.now += 1
        try:
            ticket = self.admission.admit(
                answers, tokens, self.now, lambda: self.started.append(number[0]) if number else early.append(True)
            )
        except OverloadedError as refused:
            self.waits.append((refused.status, refused.wait or 0))
            return
        number.append(ticket.number)
        self.started += [ticket.number] * len(early)
        self.order.append(ticket.number)
        self.inside.append(ticket)

    @precondition(lambda self: self.inside)
    @rule(place=st.integers(0, 50))
    def go(self, place: int) -> None:
        self.now += 1
        gone = self.inside.pop(place % len(self.inside))
        if gone.started_at is None:
            self.order.remove(gone.number)
        self.admission.leave(gone, self.now)

    @invariant()
    def bounds_hold(self) -> None:
        door = self.admission
        assert 0 <= door.running <= BOUNDS.running
        assert door.running + door.waiting <= BOUNDS.running + BOUNDS.waiting
        assert door.running == sum(item.answers for item in self.inside if item.started_at is not None)
        assert door.waiting == sum(item.answers for item in self.inside if item.started_at is None)
        assert door.tokens == sum(item.tokens for item in self.inside) <= BOUNDS.tokens

    @invariant()
    def refusals_say_when_to_come_again(self) -> None:
        assert all(status == 429 and 1 <= wait <= 60 for status, wait in self.waits)

    @invariant()
    def first_come_first_served(self) -> None:
        assert self.started == [number for number in self.order if number in self.started]
        assert len(set(self.started)) == len(self.started)


TestDoor = Door.TestCase
TestDoor.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_what_can_never_come_in_is_a_mistake_of_the_request() -> None:
    door = AdmissionController(BOUNDS)
    with pytest.raises(
        ApiError, match="n = 5 answers: this server writes at most 4 at once; lower n or send fewer prompts"
    ) as caught:
        door.admit(5, 1, 0, lambda: None)
    assert caught.value.status == 400
    with pytest.raises(
        ApiError, match="the request needs up to 101 tokens, but this server takes at most 100; lower max_tokens"
    ):
        door.admit(1, 101, 0, lambda: None)


def test_tokens_are_foreseen_without_tokenizing() -> None:
    assert estimate_tokens(300, 50, 2) == 200


def test_a_request_that_the_engine_never_had_does_not_shorten_the_expected_wait() -> None:
    door = AdmissionController(CapacityLimits(running=1, waiting=1, tokens=100))
    before = door.estimate_wait_seconds(4)
    for turn in range(20):
        door.leave(door.admit(1, 1, float(turn), lambda: None), turn + 0.001, generated=False)
    assert door.estimate_wait_seconds(4) == before
    door.leave(door.admit(1, 1, 30.0, lambda: None), 30.5)
    assert door.estimate_wait_seconds(4) < before
