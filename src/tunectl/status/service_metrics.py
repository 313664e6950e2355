"""Read what the servers of ``console.servers`` and the monitor of this project say at their ``/metrics``.

With ``console.prometheus`` they are read from there. All are asked at once, for a second at most. Counts and latencies are those since each of them started; a program that cannot be asked
has its state alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from math import inf, isfinite, isinf
from typing import TYPE_CHECKING, Final

from msgspec import Struct, field, structs

from tunectl.artifacts import lock
from tunectl.core.optional import import_optional
from tunectl.status.http_fetch import UNREACHABLE, fetch
from tunectl.status.prometheus_query import Samples, query_samples

if TYPE_CHECKING:
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.schema.root import TunectlConfig

ANSWERS: Final = "answers"
NO_METRICS: Final = "no metrics"
OTHER_METRICS: Final = (LookupError, ValueError, ArithmeticError, OSError)
"""What reading metrics raises that have names of tunectl's, but other labels or values; OSError for a time that no clock shows."""
MAX_COUNT: Final = 2.0**53
"""Counts from which a floating-point number is not exact."""
MAX_LINE: Final = 4_000
"""Characters of a line; a server has at most some 200."""
MAX_SERVERS: Final = 8
"""Most servers that are asked at the same time."""
TAIL: Final = 0.95
"""The higher of the two quantiles of a latency; the lower one is the median."""
EVERY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  nothing is opened here
"""Addresses to listen on that mean all of a machine's, to the one by which the machine itself asks."""


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
    prometheus: str = ""
    """Address of the Prometheus that has these figures; empty: the programs were asked themselves."""
    problem: str = ""
    """Why Prometheus was not used although ``console.prometheus`` names one."""


def read_service_figures(layout: ProjectPaths, root: TunectlConfig) -> ServiceFigures:
    """Return what Prometheus has, where ``console.prometheus`` names one that answers, else what servers and monitor say.

    They are all asked at once, with the key in the environment variable ``console.server_key_env``; Prometheus is asked without a key.
    Raises  MissingExtraError where a server answers and prometheus_client is not installed.
    """
    address = root.console.prometheus
    if address is None:
        return _ask_services(layout, root)
    samples = query_samples(address)
    figures = ServiceFigures() if samples is None else _sort_services(samples, address)
    if figures.servers or figures.monitor is not None:
        return figures
    reason = "does not answer as Prometheus does" if samples is None else "has no metrics of tunectl"
    return structs.replace(
        _ask_services(layout, root), problem=f"{address} {reason}: the programs were asked themselves"
    )


def _sort_services(samples: Mapping[str, Samples], prometheus: str) -> ServiceFigures:
    """Return the figures of all servers that Prometheus scrapes, and of the first monitor."""
    servers: list[ServerFigures] = []
    monitors: list[MonitorFigures] = []
    for instance, metrics in sorted(samples.items()):
        with suppress(*OTHER_METRICS):
            if "tunectl_requests_running" in metrics:
                servers.append(_build_server_figures(instance, metrics))
            elif "tunectl_drift_evidence_required" in metrics:
                monitors.append(_build_monitor_figures(instance, metrics))
    return ServiceFigures(servers, monitors[0] if monitors else None, prometheus)


def _ask_services(layout: ProjectPaths, root: TunectlConfig) -> ServiceFigures:
    key = os.environ.get(root.console.server_key_env, "")
    host = EVERY_ADDRESS.get(root.monitor.host, root.monitor.host)
    monitor = f"http://{f'[{host}]' if ':' in host else host}:{root.monitor.port}"
    with ThreadPoolExecutor(MAX_SERVERS) as pool:
        servers = pool.map(lambda address: _read_server(address, key), root.console.servers)
        runs = lock.is_locked(layout.monitor_lock)
        return ServiceFigures(monitor=_read_monitor(monitor, key) if runs else None, servers=list(servers))


def _read_server(address: str, key: str) -> ServerFigures:
    """Return the figures of a server; metrics that are not those of a server of tunectl count as none."""
    state, samples = _ask(address, key)
    if state != ANSWERS:
        return ServerFigures(address, state)
    try:
        return _build_server_figures(address, samples)
    except OTHER_METRICS:
        return ServerFigures(address, NO_METRICS)


def _build_server_figures(address: str, samples: Samples) -> ServerFigures:
    return ServerFigures(
        address,
        ANSWERS,
        {labels["variant"]: labels["release"] for labels, _ in samples.get("tunectl_model_info", ())},
        _check_count(samples["tunectl_requests_running"][0][1]),
        _check_count(samples["tunectl_requests_waiting"][0][1]),
        _read_counts(samples, "tunectl_requests_total", "finished_reason"),
        _read_counts(samples, "tunectl_requests_rejected_total", "reason"),
        _check_count(_read_value(samples, "tunectl_inference_log_errors_total")),
        _read_latency(samples, "tunectl_time_to_first_token_seconds"),
        _read_latency(samples, "tunectl_inter_token_latency_seconds"),
        _read_latency(samples, "tunectl_e2e_request_latency_seconds"),
        _read_latency(samples, "tunectl_request_queue_time_seconds"),
    )


def _read_monitor(address: str, key: str) -> MonitorFigures:
    """Return the figures of the monitor; metrics that are not those of a monitor of tunectl count as none."""
    state, samples = _ask(address, key)
    if state != ANSWERS:
        return MonitorFigures(address, state)
    try:
        return _build_monitor_figures(address, samples)
    except OTHER_METRICS:
        return MonitorFigures(address, NO_METRICS)


def _build_monitor_figures(address: str, samples: Samples) -> MonitorFigures:
    succeeded = _read_value(samples, "tunectl_drift_last_success_timestamp_seconds")
    return MonitorFigures(
        address,
        ANSWERS,
        samples["tunectl_drift_evidence"][0][1],
        samples["tunectl_drift_evidence_required"][0][1],
        _read_counts(samples, "tunectl_drift_evaluations_total", "verdict"),
        datetime.fromtimestamp(succeeded, UTC) if succeeded else None,
    )


def _ask(address: str, key: str) -> tuple[str, Samples]:
    """Return the state of a program, and its samples."""
    try:
        status, body = fetch(address, "/metrics", key)
    except UNREACHABLE:
        return "not reachable", {}
    if status in {401, 403}:
        return "key refused", {}
    samples = _parse(body.decode("utf-8", "replace")) if status == 200 else {}
    return ANSWERS if samples else NO_METRICS, samples


def _parse(text: str) -> Samples:
    """Return the samples of tunectl's metrics in Prometheus' text format; none where ``text`` is not in that format."""
    if any(len(line) > MAX_LINE for line in text.splitlines()):
        return {}  # time and memory of the parser grow with the square of a line's length
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


def _check_count(value: float | None) -> int | None:
    """Return a count as a whole number; raise ValueError for one that is below 0 or that no counter of tunectl reaches."""
    if value is not None and not 0 <= value < MAX_COUNT:
        raise ValueError(f"{value} is not a count")
    return None if value is None else round(value)


def _read_counts(samples: Samples, name: str, label: str) -> dict[str, int]:
    counts = {labels[label]: _check_count(value) for labels, value in samples.get(name, ())}
    return {reason: count for reason, count in counts.items() if count}


def _read_latency(samples: Samples, name: str) -> LatencyFigures | None:
    buckets = sorted((float(labels["le"]), value) for labels, value in samples.get(f"{name}_bucket", ()))
    for (low, fewer), (high, more) in pairwise([(0.0, 0.0), *buckets]):
        if not (low < high and fewer <= more):
            raise ValueError(f"{name} is not a histogram")
    count = _check_count(buckets[-1][1]) if buckets else None
    return LatencyFigures(count, estimate_quantile(buckets, 0.5), estimate_quantile(buckets, TAIL)) if count else None


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
    if services.prometheus or services.problem:
        yield services.problem or f"metrics as Prometheus has them: {services.prometheus}"
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
    if service.state != ANSWERS:
        return f"{name} {service.address}: {service.state}{' of tunectl' if service.state == NO_METRICS else ''}"
    return f"{name} {service.address}, since it started: {', '.join(parts)}"


def _join_counts(name: str, counts: Mapping[str, int]) -> str:
    of = f" ({', '.join(f'{count} {reason}' for reason, count in counts.items())})" if counts else ""
    return f"{sum(counts.values())} {name}{of}"
