"""Queue of the log writer: whoever has been served the fewest bytes is next, so that one key's large rows hold nobody else up.

Start-time fair queueing. Source: Goyal, Vin, Cheng 1996.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Generic, Protocol, TypeVar


class QueuedItem(Protocol):
    """What can wait."""

    @property
    def size(self) -> int:
        """Return its cost, in bytes."""
        ...


Queued = TypeVar("Queued", bound=QueuedItem)


class FairQueue(Generic[Queued]):
    """Items in line by the key that sent them. Those of one key keep their order. Not safe for threads."""

    def __init__(self) -> None:
        """Nobody waits."""
        self._lines: dict[str | None, deque[Queued]] = {}
        self._order: list[tuple[int, int, str | None]] = []
        """A heap of the keys that wait: bytes served, and a number, by which equals are served in the order of their coming."""
        self._turns = count()
        self._served = 0
        """Bytes that the key served last had before: a key that comes, or comes back, starts there."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Queued]:
        for line in self._lines.values():
            yield from line

    def append(self, key: str | None, item: Queued) -> None:
        """Put ``item`` behind those of the same key."""
        line = self._lines.setdefault(key, deque())
        if not line:
            heapq.heappush(self._order, (self._served, next(self._turns), key))
        line.append(item)

    def take(self, most: int, most_bytes: int) -> list[Queued]:
        """Take out at most ``most`` items of ``most_bytes`` together; a single one may be larger."""
        result: list[Queued] = []
        size = 0
        while self._order and len(result) < most:
            served, _, key = self._order[0]
            line = self._lines[key]
            size += line[0].size
            if result and size > most_bytes:
                break
            self._served = served
            result.append(line.popleft())
            if line:
                heapq.heapreplace(self._order, (served + result[-1].size, next(self._turns), key))
            else:
                heapq.heappop(self._order)
                del self._lines[key]
        return result

    def clear(self) -> None:
        """Forget all that wait."""
        self._lines.clear()
        self._order.clear()
