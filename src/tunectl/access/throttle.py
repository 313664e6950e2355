"""Limit of wrong keys per address on a page: each costs one try, and tries are regained with time."""

from __future__ import annotations

from collections import OrderedDict
from math import ceil
from time import monotonic
from typing import Final

from tunectl.access.api_errors import ApiError
from tunectl.access.api_keys import TokenBucket

MAX_TRIES: Final = 10
"""Wrong keys in a row, and how many tries are regained per minute."""
MAX_ADDRESSES: Final = 10_000


class KeyThrottle:
    """Counts wrong keys by the address that sent them: of a proxy on this machine, the one that it names in ``X-Forwarded-For``.

    Programs on this machine may name any. Keys and tokens have 256 bits, so the limit spares work and logs, and keeps no key safe.
    """

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def check(self, address: str) -> None:
        """Check that an address has tries left, whatever key it sends.

        Raises  ApiError (429).
        """
        bucket = self._buckets.get(address)
        wait = 0.0 if bucket is None else bucket.measure_wait(monotonic())
        if wait:
            text = f"too many wrong keys from this address; try again in {ceil(wait)} s"
            raise ApiError(text, "rate_limit_error", code="wrong_keys", wait=wait)

    def count(self, address: str) -> None:
        """Count a wrong key of an address."""
        now = monotonic()
        bucket = self._buckets.setdefault(address, TokenBucket(MAX_TRIES, float(MAX_TRIES), now))
        self._buckets.move_to_end(address)
        bucket.acquire(now)
        if len(self._buckets) > MAX_ADDRESSES:
            self._buckets.popitem(last=False)
