"""Check the machine: Python, cores, memory, disk, torch build, GPU, programs, ports, extras. Each result says what to do.

Nothing heavy is imported and nothing is written: versions come from installed metadata, the GPU from ``nvidia-smi``.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Literal, NamedTuple

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.distribution import DISTRIBUTION, format_install_command
from tunectl.core.errors import InfrastructureError, TunectlError
from tunectl.training.resource_check import available_memory

Status = Literal["ok", "note", "problem"]
"""note: something optional is absent. problem: a build will stop there."""
MIN_PYTHON = (3, 11)
MIN_CORES = 2
MIN_MEMORY = MIN_DISK = 6_000_000_000
"""Bytes. The bundled example needs about 6 GB of memory, and 5 GB of disk with its environments."""
PORTS = {"serve": 3000, "monitor": 3001, "retrain": 3200, "annotate": 8321, "console": 8300}
"""Port that a new project declares for each section."""
SECONDS = 10.0
"""Seconds after which a program counts as not answering."""
_REQUIREMENT = re.compile(r"^([\w.-]{1,100})(?:\[([\w,-]{1,200})\])?")
_EXTRA = re.compile(r"extra ?== ?['\"]([\w-]{1,60})['\"]")


class SystemCheck(NamedTuple):
    """Result of one check of ``tunectl doctor``: status, what was found and what to do."""

    name: str
    status: Status
    found: str
    advice: str
    """What to do; empty where nothing is needed."""


def check_system(folder: Path) -> list[SystemCheck]:
    """Return the results of all checks of this machine, for a project in ``folder``."""
    gpus = list_gpus()
    return [
        check_python(sys.version_info[:3]),
        check_cores(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1),
        check_memory(available_memory()),
        check_disk(shutil.disk_usage(folder).free),
        check_torch(find_version("torch"), gpus),
        check_gpu(gpus),
        check_git(run_program("git", "--version")),
        check_docker(
            shutil.which("docker") is not None, run_program("docker", "info", "--format", "{{.ServerVersion}}")
        ),
        check_ports(list_ports(folder)),
        check_extras(find_missing_by_extra()),
    ]


def refuse_problems(checks: Sequence[SystemCheck]) -> None:
    """Check that none of ``checks`` is a problem.

    Raises  InfrastructureError with every problem and what to do.
    """
    problems = [check for check in checks if check.status == "problem"]
    if problems:
        raise InfrastructureError(
            "; ".join(f"{problem.name}: {problem.found}" for problem in problems),
            hint="\n  ".join(problem.advice for problem in problems),
        )


def check_python(version: tuple[int, ...]) -> SystemCheck:
    """Return the check of the interpreter's version."""
    result, minimum = ".".join(map(str, version)), ".".join(map(str, MIN_PYTHON))
    if version[:2] >= MIN_PYTHON:
        return SystemCheck("Python", "ok", result, "")
    return SystemCheck(
        "Python", "problem", result, f"install Python {minimum} or newer, and make the environment again"
    )


def check_cores(count: int) -> SystemCheck:
    """Return the check of the number of cores that this process may use."""
    if count >= MIN_CORES:
        return SystemCheck("cores", "ok", str(count), "")
    return SystemCheck("cores", "note", str(count), f"training is slow on fewer than {MIN_CORES} cores")


def check_memory(free: int | None) -> SystemCheck:
    """Return the check of free memory; ``free``: bytes, None where the machine does not report them."""
    if free is None:
        return SystemCheck("memory", "note", "unknown", "this system does not report its free memory")
    if free >= MIN_MEMORY:
        return SystemCheck("memory", "ok", f"{free / 1e9:.1f} GB free", "")
    advice = "end other programs, or lower hardware.train_batch_tokens; tunectl estimate says how much a build needs"
    return SystemCheck("memory", "note", f"{free / 1e9:.1f} GB free", advice)


def check_disk(free: int) -> SystemCheck:
    """Return the check of the free space on the project's disk; ``free``: bytes."""
    if free >= MIN_DISK:
        return SystemCheck("disk", "ok", f"{free / 1e9:.1f} GB free", "")
    return SystemCheck("disk", "note", f"{free / 1e9:.1f} GB free", "free some space; dvc gc -w deletes old artifacts")


def check_torch(version: str | None, gpus: list[str]) -> SystemCheck:
    """Return the check that torch (its version, None where absent) is installed in a build that fits the GPUs, named as by ``list_gpus``."""
    if version is None:
        return SystemCheck("torch", "problem", "not installed", format_install_command("train"))
    if gpus and version.endswith("+cpu"):
        advice = "this build cannot use the GPU: install torch from https://pytorch.org/get-started/locally"
        return SystemCheck("torch", "problem", version, advice)
    return SystemCheck("torch", "ok", version, "")


def check_gpu(gpus: list[str]) -> SystemCheck:
    """Return a result that lists the GPUs of the driver; never a problem."""
    if gpus:
        return SystemCheck("GPU", "ok", "; ".join(gpus), "")
    return SystemCheck("GPU", "note", "none that nvidia-smi lists", "hardware=cpu is the setting for this machine")


def check_git(version: str | None) -> SystemCheck:
    """Return the check that Git works (its version, None where absent); DVC and the release tags need it."""
    if version is not None:
        return SystemCheck("Git", "ok", version.removeprefix("git version "), "")
    return SystemCheck("Git", "problem", "not found", "install Git, for example: apt-get install git")


def check_docker(installed: bool, version: str | None) -> SystemCheck:
    """Return the check that a Docker engine runs (its version, None where none answers); only images and monitoring need it."""
    if version:
        return SystemCheck("Docker", "ok", version, "")
    if installed:
        return SystemCheck("Docker", "note", "the engine does not answer", "start it, or join the group docker")
    return SystemCheck("Docker", "note", "not found", "only images and monitoring/compose.yaml need it")


def check_ports(ports: dict[str, int]) -> SystemCheck:
    """Return the check that the ports of the project's services are free; ``ports`` has the port of each section."""
    occupied = {section: port for section, port in ports.items() if port and not is_port_free(port)}
    listing = ", ".join(f"{port} {section}" for section, port in ports.items())
    if not occupied:
        return SystemCheck("ports", "ok", f"free: {listing}", "")
    names = ", ".join(f"{port} ({section})" for section, port in occupied.items())
    example = next(iter(occupied))
    advice = f"it runs already, or another program listens there: choose another port, for example {example}.port=0"
    if example == "serve":
        advice = advice.replace(".port=0", f".port={occupied[example] + 10}")
    return SystemCheck("ports", "note", f"taken: {names}", advice)


def check_extras(missing: dict[str, list[str]]) -> SystemCheck:
    """Return a result that lists complete and incomplete extras; ``missing`` has the absent packages of each."""
    complete = [extra for extra, packages in missing.items() if not packages]
    absent = [extra for extra, packages in missing.items() if packages]
    result = f"complete: {', '.join(complete) or 'none'}; not complete: {', '.join(absent) or 'none'}"
    if not absent:
        return SystemCheck("extras", "ok", result, "")
    advice = f"tunectl check says which ones the recipe needs; {format_install_command('EXTRA')}"
    return SystemCheck("extras", "note", result, advice)


def find_missing_by_extra(requirements: list[str] | None = None) -> dict[str, list[str]]:
    """Return for each extra of this distribution the packages that are not installed.

    Args:
        requirements: as the installed metadata lists them (``Requires-Dist``); None reads those.
    """
    extras: dict[str, set[str]] = {}
    nested: dict[str, set[str]] = {}
    for line in (metadata.requires(DISTRIBUTION) or []) if requirements is None else requirements:
        named, extra = _REQUIREMENT.match(line), _EXTRA.search(line)
        if named is None or extra is None:
            continue
        own = extras.setdefault(extra[1], set())
        if named[1] == DISTRIBUTION:  # an extra that is made of others
            nested.setdefault(extra[1], set()).update((named[2] or "").split(","))
        else:
            own.add(named[1])
    absent = {package for packages in extras.values() for package in packages if find_version(package) is None}
    return {name: sorted(_collect(name, extras, nested, set()) & absent) for name in sorted(extras)}


def find_version(package: str) -> str | None:
    """Return the installed version of a distribution; None where it is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def list_ports(folder: Path) -> dict[str, int]:
    """Return the port of each service by its section: as the project in ``folder`` declares them, else the defaults."""
    from tunectl.config.loading import checks

    layout = ProjectPaths(folder)
    if not (layout.conf / "config.yaml").is_file():
        return dict(PORTS)
    try:
        root = checks.load_project_config(layout).root
    except TunectlError:  # tunectl check says what is wrong there
        return dict(PORTS)
    return {name: getattr(root, name).port for name in PORTS if hasattr(root, name)}


def is_port_free(port: int) -> bool:
    """Return whether a program could listen on this port of the machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def list_gpus() -> list[str]:
    """Return one line per GPU from ``nvidia-smi``: name, memory and driver; empty without one."""
    output = run_program("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader")
    return output.splitlines() if output else []


def run_program(*command: str) -> str | None:
    """Return the output of a program; None where it is absent, fails or does not end in time."""
    try:
        process = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()


def _collect(name: str, extras: dict[str, set[str]], nested: dict[str, set[str]], seen: set[str]) -> set[str]:
    if name in seen:
        return set()
    seen.add(name)
    return extras.get(name, set()).union(*(_collect(item, extras, nested, seen) for item in nested.get(name, ())))
