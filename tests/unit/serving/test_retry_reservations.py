"""Promises: who was refused finds a place when told to come, and nobody else suffers from those who never come."""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable

import pytest

from tunectl.serving.admission_control import AdmissionController, CapacityLimits, OverloadedError
from tunectl.serving.retry_reservations import MOST, Reservations


class SimulatedClients:
    """Clients of a server on a clock of their own: each asks, is told to wait, asks again, at most three times."""

    def __init__(
        self, bounds: CapacityLimits, clients: int, *, seconds: float, returns: bool = True, whole: bool = False
    ) -> None:
        self.door = AdmissionController(bounds)
        self.chance, self.seconds, self.returns, self.whole = random.Random(7), seconds, returns, whole
        self.answered = self.failed = 0
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = itertools.count()
        for client in range(clients):
            self._at(client / 1000, lambda now, client=client: self._ask(now, f"{client}", 0))

    def run(self, until: float) -> float:
        """Share of requests that were answered."""
        while self._events and self._events[0][0] < until:
            now, _, act = heapq.heappop(self._events)
            act(now)
        return self.answered / (self.answered + self.failed)

    def _at(self, when: float, act: Callable[[float], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), act))

    def _ask(self, now: float, client: str, tries: int) -> None:
        started = []
        try:
            ticket = self.door.admit(
                1, 1, now, lambda: started.append(now), name=client.encode(), may_be_retry=tries > 0
            )
        except OverloadedError as refused:
            wait = -(-refused.wait // 1) if self.whole else refused.wait
            if tries == 2 or not self.returns:
                self.failed += 1
                self._at(now + 0.01, lambda now: self._ask(now, f"{client}'"[-40:], 0))
            else:
                self._at(now + wait + 0.002, lambda now: self._ask(now, client, tries + 1))
            return
        ticket.on_start = lambda: self._write(ticket, client)
        if started:
            self._write(ticket, client)

    def _write(self, ticket, client: str) -> None:
        took = self.seconds * self.chance.uniform(0.5, 1.5)

        def done(now: float) -> None:
            self.answered += 1
            self.door.leave(ticket, now)
            self._at(now + 0.001, lambda now: self._ask(now, f"{client}+"[-40:], 0))

        self._at(ticket.started_at + took, done)


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(("running", "waiting", "seconds"), [(4, 8, 0.3), (32, 64, 3.0), (4, 4, 1.0)])
def test_twice_as_many_clients_as_places_are_nearly_all_answered(running, waiting, seconds, whole):
    clients = SimulatedClients(
        CapacityLimits(running, waiting, 10**6), 2 * (running + waiting), seconds=seconds, whole=whole
    )
    assert clients.run(60) >= 0.99
    assert clients.answered >= 0.9 * running / seconds * 60


def test_those_who_never_come_again_cost_nothing():
    clients = SimulatedClients(CapacityLimits(4, 8, 10**6), 24, seconds=0.3, returns=False)
    clients.run(60)
    assert clients.answered >= 0.97 * 4 / 0.3 * 60


def test_a_promise_is_kept_for_its_own_client_and_told_once():
    door = AdmissionController(CapacityLimits(1, 1, 100))
    inside = [door.admit(1, 1, 0, lambda: None, name=b"%d" % number) for number in range(2)]
    with pytest.raises(OverloadedError) as first:
        door.admit(1, 1, 0, lambda: None, name=b"late")
    with pytest.raises(OverloadedError) as early:
        door.admit(1, 1, 0.2, lambda: None, name=b"late")
    assert early.value.wait == pytest.approx(max(1.0, first.value.wait - 0.2))
    door._promises._share = 1.0
    door.leave(inside[0], 1.0)
    with pytest.raises(
        OverloadedError, match="this server is full: 1 answers are being written, 0 wait, 1 reserved for retries"
    ):
        door.admit(1, 1, 1.1, lambda: None, name=b"new")
    assert door.admit(1, 1, first.value.wait, lambda: None, name=b"late").started_at is None


def test_promises_end_and_are_bounded():
    made = Reservations()
    for number in range(MOST + 5):
        made.make(b"%d" % number, 1, 1.0, 0.0)
    made.forget_expired(1.9)
    assert made.of(b"0") is not None
    assert made.of(b"%d" % MOST) is None
    made.forget_expired(2.1)
    assert made.of(b"0") is None
    assert made.ahead == 0
    assert made._share < 0.01


def test_reservations_of_clients_that_never_come_expire_for_clients_that_say_they_are_new() -> None:
    door = AdmissionController(CapacityLimits(1, 4, 10**6))
    tickets = [door.admit(1, 1, 0.0, lambda: None, may_be_retry=False) for _ in range(5)]
    for number in range(10):
        with pytest.raises(OverloadedError):
            door.admit(1, 1, 0.1, lambda: None, name=f"{number}".encode(), may_be_retry=False)
    for number, ticket in enumerate(tickets):
        door.leave(ticket, 1.0 + number)
    for _ in range(5):
        door.admit(1, 1, 200.0, lambda: None, may_be_retry=False)
