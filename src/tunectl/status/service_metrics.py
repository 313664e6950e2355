"""Read what the servers of ``console.servers`` and the monitor of this project say at their ``/metrics``.

All are asked at once, for a second at most. Counts and latencies are those since each of them started; a program that cannot be asked
has its state alone.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from math import inf, isfinite, isinf
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from msgspec import Struct, field

from tunectl.artifacts import lock
from tunectl.core.optional import import_optional

if TYPE_CHECKING:
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.schema.root import TunectlConfig

TIMEOUT_SECONDS: Final = 1.0
MAX_BYTES: Final = 1_000_000
"""Bytes of an answer that are read; a server has about 20,000."""
MAX_SERVERS: Final = 8
"""Most servers that are asked at the same time."""
TAIL: Final = 0.95
"""The higher of the two quantiles of a latency; the lower one is the median."""
EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  nothing is opened here
"""Addresses to listen on that mean all of a machine's, to the one by which the machine itself asks."""
Samples = Mapping[str, Sequence[tuple[Mapping[str, str], float]]]
"""(labels, value) of each series, by the name of its metric."""


class LatencyFigures(Struct, frozen=True):
    """Number of measurements of a latency, and two quantiles in seconds, estimated from the histogram as Prometheus does."""

    count: int
    median: float
    p95: float
    """The upper bound of the histogram where it lies beyond."""


class ServerFigures(Struct, frozen=True):
    """Metrics of one server since it started; a figure is None where the server does not have it."""

    address: str
    state: str
    """``answers``, ``key refused``, ``not reachable``, or ``no metrics`` for an answer that holds none."""
    releases: dict[str, str] = field(default_factory=dict)
    """Release that each variant serves."""
    running: int | None = None
    waiting: int | None = None
    finished: dict[str, int] = field(default_factory=dict)
    """Finished answers by reason of the end, without zeros."""
    rejected: dict[str, int] = field(default_factory=dict)
    """Rejected requests by reason, without zeros."""
    log_errors: int | None = None
    """Rows that the inference log could not write in time, and texts that it left out."""
    first_token: LatencyFigures | None = None
    """From arrival to the first token; None before the first answer, as the next three."""
    between_tokens: LatencyFigures | None = None
    whole_answer: LatencyFigures | None = None
    queue: LatencyFigures | None = None
    """From arrival to the engine."""


class MonitorFigures(Struct, frozen=True):
    """Metrics of the monitor: counts since it started, and the evidence of the newest windows."""

    address: str
    state: str
    """As that of a server."""
    evidence: float | None = None
    """Orders of magnitude by which the newest windows are rarer than chance."""
    evidence_required: float | None = None
    windows: dict[str, int] = field(default_factory=dict)
    """Closed windows by verdict, without zeros."""
    succeeded_at: datetime | None = None
    """End of the last check that did not fail."""


class ServiceFigures(Struct, frozen=True):
    """Metrics of all servers of ``console.servers``, and of the monitor; None where no monitor runs here."""

    servers: list[ServerFigures] = field(default_factory=list)
    monitor: MonitorFigures | None = None


def read_service_figures(layout: ProjectPaths, root: TunectlConfig) -> ServiceFigures:
    """Ask all servers and the monitor at once, with the key in the environment variable ``console.server_key_env``.

    Raises  MissingExtraError where one answers and prometheus_client is not installed.
    """
    key = os.environ.get(root.console.server_key_env, "")
    host = EVERY_ADDRESS.get(root.monitor.host, root.monitor.host)
    monitor = f"http://{f'[{host}]' if ':' in host else host}:{root.monitor.port}"
    with ThreadPoolExecutor(MAX_SERVERS) as pool:
        servers = pool.map(lambda address: _read_server(address, key), root.console.servers)
        runs = lock.is_locked(layout.monitor_lock)
        return ServiceFigures(monitor=_read_monitor(monitor, key) if runs else None, servers=list(servers))


def _read_server(address: str, key: str) -> ServerFigures:
    state, samples = _ask(address, key)
    return ServerFigures(
        address,
        state,
        {labels["variant"]: labels["release"] for labels, _ in samples.get("tunectl_model_info", ())},
        _read_count(samples, "tunectl_requests_running"),
        _read_count(samples, "tunectl_requests_waiting"),
        _read_counts(samples, "tunectl_requests_total", "finished_reason"),
        _read_counts(samples, "tunectl_requests_rejected_total", "reason"),
        _read_count(samples, "tunectl_inference_log_errors_total"),
        _read_latency(samples, "tunectl_time_to_first_token_seconds"),
        _read_latency(samples, "tunectl_inter_token_latency_seconds"),
        _read_latency(samples, "tunectl_e2e_request_latency_seconds"),
        _read_latency(samples, "tunectl_request_queue_time_seconds"),
    )


def _read_monitor(address: str, key: str) -> MonitorFigures:
    state, samples = _ask(address, key)
    succeeded = _read_value(samples, "tunectl_drift_last_success_timestamp_seconds")
    return MonitorFigures(
        address,
        state,
        _read_value(samples, "tunectl_drift_evidence"),
        _read_value(samples, "tunectl_drift_evidence_required"),
        _read_counts(samples, "tunectl_drift_evaluations_total", "verdict"),
        datetime.fromtimestamp(succeeded, UTC) if succeeded else None,
    )


def _ask(address: str, key: str) -> tuple[str, Samples]:
    """Return the state of a program, and its samples; no redirect is followed, which would pass the key on."""
    try:
        target = urlsplit(address)
        kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
        connection = kind(target.hostname or "", target.port, timeout=TIMEOUT_SECONDS)
        try:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            connection.request("GET", f"{target.path.rstrip('/')}/metrics", headers=headers)
            answer = connection.getresponse()
            text = answer.read(MAX_BYTES).decode("utf-8", "replace")
        finally:
            connection.close()
    except (OSError, ValueError, http.client.HTTPException):
        return "not reachable", {}
    if answer.status in {401, 403}:
        return "key refused", {}
    samples = _parse(text) if answer.status == 200 else {}
    return "answers" if samples else "no metrics", samples


def _parse(text: str) -> Samples:
    """Return the samples of tunectl's metrics in Prometheus' text format; none where ``text`` is not in that format."""
    parser = import_optional("prometheus_client.parser", extra="inference-log")
    samples: dict[str, list[tuple[Mapping[str, str], float]]] = {}
    try:
        for family in parser.text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name.startswith("tunectl_") and isfinite(sample.value):
                    samples.setdefault(sample.name, []).append((sample.labels, sample.value))
    except (ValueError, KeyError, IndexError):
        return {}
    return samples


def _read_value(samples: Samples, name: str) -> float | None:
    return samples[name][0][1] if name in samples else None


def _read_count(samples: Samples, name: str) -> int | None:
    value = _read_value(samples, name)
    return None if value is None else round(value)


def _read_counts(samples: Samples, name: str, label: str) -> dict[str, int]:
    return {labels[label]: round(value) for labels, value in samples.get(name, ()) if value}


def _read_latency(samples: Samples, name: str) -> LatencyFigures | None:
    buckets = sorted((float(labels["le"]), value) for labels, value in samples.get(f"{name}_bucket", ()))
    if not buckets or not buckets[-1][1]:
        return None
    return LatencyFigures(round(buckets[-1][1]), estimate_quantile(buckets, 0.5), estimate_quantile(buckets, TAIL))


def estimate_quantile(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Return a quantile of a histogram, as Prometheus' ``histogram_quantile`` does: linear within the bucket in which it lies.

    Args:
        buckets: (upper bound, number of measurements up to it), ascending; the last bound is infinite, its number above 0.
        share: From 0 (excluded) to 1.
    """
    low, counted = 0.0, 0.0
    for high, count in buckets:
        if count >= share * buckets[-1][1]:
            return low if isinf(high) else low + (high - low) * (share * buckets[-1][1] - counted) / (count - counted)
        low, counted = high, count
    return inf


def describe_services(services: ServiceFigures) -> Iterator[str]:
    """Yield a line for a terminal about each server, and about the monitor where one runs."""
    for server in services.servers:
        parts = [f"{server.running} running", f"{server.waiting} waiting"]
        parts += [_join_counts("finished", server.finished), _join_counts("rejected", server.rejected)]
        for name, latency in (("first token", server.first_token), ("whole answer", server.whole_answer)):
            if latency is not None:
                parts.append(f"{name} {latency.median:.2f} s (95 % within {latency.p95:.2f} s)")
        yield _describe("server", server, parts)
    if services.monitor is not None:
        monitor = services.monitor
        evidence = (
            [] if monitor.evidence is None else [f"evidence {monitor.evidence:.1f} of {monitor.evidence_required:g}"]
        )
        yield _describe("monitor", monitor, [_join_counts("windows", monitor.windows), *evidence])


def _describe(name: str, service: ServerFigures | MonitorFigures, parts: Sequence[str]) -> str:
    if service.state != "answers":
        return f"{name} {service.address}: {service.state}"
    return f"{name} {service.address}, since it started: {', '.join(parts)}"


def _join_counts(name: str, counts: Mapping[str, int]) -> str:
    of = f" ({', '.join(f'{count} {reason}' for reason, count in counts.items())})" if counts else ""
    return f"{sum(counts.values())} {name}{of}"
