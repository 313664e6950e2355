"""Queue of the log writer: the key with the fewest written bytes is next, so that one key's large rows do not delay the others.

Start-time fair queueing. Source: Goyal, Vin, Cheng 1996.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from itertools import count
from typing import Generic, Protocol, TypeVar


class QueuedItem(Protocol):
    """An item of a FairQueue, with its size."""

    @property
    def size(self) -> int:
        """Size of the item in bytes."""
        ...


Queued = TypeVar("Queued", bound=QueuedItem)


class FairQueue(Generic[Queued]):
    """A queue in which the keys that sent items take turns by bytes; items of one key keep their order. Not thread-safe."""

    def __init__(self) -> None:
        """Create an empty queue."""
        self._lines: dict[str | None, deque[Queued]] = {}
        self._order: list[tuple[int, int, str | None]] = []
        """A heap of the keys with items: bytes written, and a number, so that keys with equal bytes are taken in order of arrival."""
        self._turns = count()
        self._served = 0
        """Bytes of the key that was taken last: a key that is new, or comes back, starts with these."""

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    def __iter__(self) -> Iterator[Queued]:
        for line in self._lines.values():
            yield from line

    def append(self, key: str | None, item: Queued) -> None:
        """Append ``item`` after those of the same ``key``."""
        line = self._lines.setdefault(key, deque())
        if not line:
            heapq.heappush(self._order, (self._served, next(self._turns), key))
        line.append(item)

    def take(self, most: int, most_bytes: int) -> list[Queued]:
        """Remove and return the next items, at most ``most`` with at most ``most_bytes`` in all; a first item above that is returned alone."""
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
        """Remove all items."""
        self._lines.clear()
        self._order.clear()
