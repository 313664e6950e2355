"""Read the newest samples of tunectl's metrics from Prometheus' HTTP API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final
from urllib.parse import urlencode

import msgspec
from msgspec import Struct

from tunectl.status.http_fetch import UNREACHABLE, fetch

QUERY: Final = '{__name__=~"tunectl_.+"}'
"""All series of tunectl's programs; those of recording rules begin with ``tunectl:``."""
MAX_BYTES: Final = 16_000_000
"""Bytes of an answer that are read: some 100,000 a server."""
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""(labels, value) of each series, by the name of its metric."""


class _Series(Struct):
    metric: dict[str, str]
    value: tuple[float, str]
    """Time, and the value as text."""


class _Data(Struct):
    result: list[_Series]


class _Answer(Struct):
    data: _Data


def query_samples(address: str) -> dict[str, Samples] | None:
    """Return the newest samples of tunectl's metrics at the Prometheus at ``address``, by the instance that was scraped.

    None where nothing answers there, or another program than Prometheus.
    """
    try:
        status, body = fetch(address, f"/api/v1/query?{urlencode({'query': QUERY})}", max_bytes=MAX_BYTES)
        series = msgspec.json.decode(body, type=_Answer).data.result if status == 200 else None
    except (*UNREACHABLE, msgspec.MsgspecError):
        return None
    if series is None:
        return None
    samples: dict[str, dict[str, list[tuple[Mapping[str, str], float]]]] = {}
    for one in series:
        value = _parse_value(one.value[1])
        if value is not None:
            metrics = samples.setdefault(one.metric.get("instance", ""), {})
            metrics.setdefault(one.metric.get("__name__", ""), []).append((one.metric, value))
    return dict(samples)


def _parse_value(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if isfinite(value) else None
