"""Reserve capacity for clients that were refused with Retry-After, so that new ones do not take it.

A full server would otherwise answer the same clients again and again, and others never: a place is free for
a moment only, and a refused client usually comes at another one. With twice as many clients as places a third of all requests
would use up their retries. So a promised place counts as taken, weighted by the share of promises that were used lately.
Times are monotonic seconds.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Final

GRACE: Final = 1.0
"""Seconds for which capacity is kept after the time in the client's Retry-After."""
MOST: Final = 10_000
"""Most promises at once; no more are made beyond."""
LEARNING: Final = 0.05
"""Weight of one promise, used or not, in the smoothed share of used ones."""


@dataclass(slots=True)
class Reservation:
    """Capacity that is kept for the retry of one refused request; times are monotonic seconds."""

    name: bytes
    answers: int
    due: float
    """Time from which the client may come."""
    until: float
    """Time until which the capacity is kept."""
    open: bool = True
    """False once the client came, or the time is over."""


@dataclass(slots=True)
class Reservations:
    """All reservations of one server; owned by its ``AdmissionController``."""

    _share: float = 1.0
    """Smoothed share of promises whose client came in time."""
    _answers: int = 0
    _by_name: dict[bytes, list[Reservation]] = field(default_factory=dict)
    _ending: list[tuple[float, int, Reservation]] = field(default_factory=list)
    _last: int = 0

    @property
    def ahead(self) -> float:
        """Expected number of answers that clients with a reservation will ask for, by the share of them that came lately."""
        return self._answers * self._share

    def of(self, name: bytes) -> Reservation | None:
        """Return the oldest reservation for the request ``name``; None if there is none."""
        result = self._by_name.get(name)
        return result[0] if result else None

    def make(self, name: bytes, answers: int, wait: float, now: float) -> None:
        """Reserve room for ``answers`` answers ``wait`` seconds after ``now``.

        The room is kept until ``wait``, rounded up to whole seconds as in Retry-After, plus ``GRACE``. Nothing is reserved beyond ``MOST``.
        """
        if len(self._ending) >= MOST:
            return
        reservation = Reservation(name, answers, now + wait, now + math.ceil(wait) + GRACE)
        self._by_name.setdefault(name, []).append(reservation)
        self._last += 1
        heapq.heappush(self._ending, (reservation.until, self._last, reservation))
        self._answers += answers

    def close(self, reservation: Reservation, *, in_time: bool) -> None:
        """Remove a reservation; ``in_time`` says whether its client came in time."""
        reservation.open = False
        self._answers -= reservation.answers
        stored = self._by_name[reservation.name]
        stored.remove(reservation)
        if not stored:
            del self._by_name[reservation.name]
        self._share += LEARNING * (in_time - self._share)

    def forget_expired(self, now: float) -> None:
        """Remove the reservations that have expired at ``now``."""
        while self._ending and (not self._ending[0][2].open or self._ending[0][0] < now):
            result = heapq.heappop(self._ending)[2]
            if result.open:
                self.close(result, in_time=False)
