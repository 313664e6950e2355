"""Estimate the memory of curate, and from how many documents on ``curate.engine=ray`` is faster than ``local``."""

from __future__ import annotations

from dataclasses import dataclass

from tunectl.pipeline.stages.curate import IN_MEMORY_BYTES

RECORD_BYTES = 120
"""Bytes of a line of JSON in addition to the texts of its record."""
IN_MEMORY_FACTOR = 12
"""Bytes in memory per character, before and after a filter."""
ON_DISK_BYTES = 300
"""Bytes in memory for each record on disk: its position, and its data in exact deduplication, or in the search for near duplicates."""


@dataclass(frozen=True, slots=True)
class CurationRates:
    """Seconds per document of exact and near deduplication, locally and on Ray (``make bench-curate``, short documents, two CPUs)."""

    local_seconds: float
    """Seconds per document, with two threads."""
    ray_start_seconds: float
    """Seconds to start a cluster and its workers, whatever the size."""
    ray_cpu_seconds: float
    """Seconds per document, summed over the CPUs."""


MEASURED = CurationRates(local_seconds=3.17e-5, ray_start_seconds=11.0, ray_cpu_seconds=1.22e-4)
"""500,000 and 10,000,000 documents on two CPUs of Zen 4 (``benchmarks/results/bench_curate_10m.json``)."""


def estimate_memory(records: int, characters: int) -> int:
    """Return the peak memory in bytes of curating ``records`` records with ``characters`` characters in all."""
    if characters + RECORD_BYTES * records > IN_MEMORY_BYTES:
        return ON_DISK_BYTES * records
    return IN_MEMORY_FACTOR * characters


def find_break_even(rates: CurationRates, cpus: int) -> int | None:
    """Return the number of documents above which Ray on ``cpus`` CPUs is faster than local; None where it never is."""
    gain = rates.local_seconds - rates.ray_cpu_seconds / cpus
    return round(rates.ray_start_seconds / gain) if gain > 0 else None


def describe_break_even(rates: CurationRates, cpus: tuple[int, ...] = (2, 16, 64)) -> str:
    """Return a sentence that names the number of documents above which Ray is faster, for each number of CPUs."""
    sizes = {count: find_break_even(rates, count) for count in cpus}
    parts = [f"{count} CPUs: {'never' if size is None else _round(size)}" for count, size in sizes.items()]
    return f"curate.engine=ray takes less time than local, extrapolated from two CPUs, on {'; '.join(parts)}"


def _round(documents: int) -> str:
    return f"from about {float(f'{documents:.2g}'):,.0f} documents"
