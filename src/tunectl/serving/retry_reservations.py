"""Reserve capacity for clients that were refused with Retry-After, so that new ones do not take it.

A server that stays full would otherwise serve those who are in again and again, and the others never: a place is free for
a moment only, and whoever was refused knocks at another one. With twice as many clients as places a third of all requests
would use up their retries. So a promise counts as a place that is taken, as far as such promises were kept lately.
Times are monotonic seconds.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Final

GRACE: Final = 1.0
"""Seconds for which a promise holds after the last moment at which its client was told to come."""
MOST: Final = 10_000
"""Promises at once; beyond, no more are made."""
LEARNING: Final = 0.05
"""How much one promise, kept or not, says about the next."""


@dataclass(slots=True)
class Reservation:
    """A place for one request."""

    name: bytes
    answers: int
    due: float
    """From when the client may come."""
    until: float
    """How long the place is kept."""
    open: bool = True
    """False once the client came, or did not."""


@dataclass(slots=True)
class Reservations:
    """The promises of one server."""

    _share: float = 1.0
    """Of promises whose client came in time, smoothed."""
    _answers: int = 0
    _made: dict[bytes, list[Reservation]] = field(default_factory=dict)
    _ending: list[tuple[float, int, Reservation]] = field(default_factory=list)
    _last: int = 0

    @property
    def ahead(self) -> float:
        """Answers that are likely to come because they were promised a place."""
        return self._answers * self._share

    def of(self, name: bytes, now: float) -> Reservation | None:
        """Return the oldest promise that was made to a name and still holds."""
        self._forget(now)
        result = self._made.get(name)
        return result[0] if result else None

    def make(self, name: bytes, answers: int, wait: float, now: float) -> None:
        """Promise a place ``wait`` seconds from now. Told in whole seconds the wait is rounded up, so it holds that long."""
        if len(self._ending) >= MOST:
            return
        reservation = Reservation(name, answers, now + wait, now + math.ceil(wait) + GRACE)
        self._made.setdefault(name, []).append(reservation)
        self._last += 1
        heapq.heappush(self._ending, (reservation.until, self._last, reservation))
        self._answers += answers

    def close(self, reservation: Reservation, *, kept: bool) -> None:
        """Close a reservation: the client was admitted, got a new time, or did not come."""
        reservation.open = False
        self._answers -= reservation.answers
        stored = self._made[reservation.name]
        stored.remove(reservation)
        if not stored:
            del self._made[reservation.name]
        self._share += LEARNING * (kept - self._share)

    def _forget(self, now: float) -> None:
        while self._ending and (not self._ending[0][2].open or self._ending[0][0] < now):
            result = heapq.heappop(self._ending)[2]
            if result.open:
                self.close(result, kept=False)
