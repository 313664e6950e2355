"""What a benchmark ran on, for its last line."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def machine() -> dict[str, object]:
    """Processor, cores that this process may use, memory in GB, system."""
    cpu = {
        name.strip(): value.strip()
        for name, found, value in (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        if found
    }
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return {
        "processor": describe_processor(cpu),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory, 1),
        "system": platform.platform(),
        "python": sys.version.split()[0],
    }


def describe_processor(cpu: Mapping[str, str]) -> str:
    """Name, generation and instruction sets of the fields ``cpu`` of /proc/cpuinfo: virtual machines often hide the model's name."""
    if "model name" not in cpu:
        return platform.processor() or platform.machine()
    flags = cpu.get("flags", "").split()
    sets = [shown for flag, shown in (("avx2", "AVX2"), ("avx512f", "AVX512"), ("amx_tile", "AMX")) if flag in flags]
    return f"{cpu['model name']} (family {cpu.get('cpu family')}, model {cpu.get('model')}, {sets[-1] if sets else 'no AVX2'})"


def versions(*packages: str) -> dict[str, str]:
    """Installed versions; a package that is absent is called so."""
    result = {}
    for package in packages:
        try:
            result[package] = version(package)
        except PackageNotFoundError:
            result[package] = "absent"
    return result
