"""Separate environments: the exporters of models, and Flower, need older packages than the core.

An environment is made on first use from its lock, ``requirements/export.txt``, under ``.tunectl/exporters``, and used as a subprocess. A stamp is
written last, so a half-made environment is made again; another lock file or another Python gives another environment.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts import atomic_io, lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.system.exit_status import describe_exit, suggest_after_kill
from tunectl.core import logging_setup, progress
from tunectl.core.distribution import format_reinstall_command
from tunectl.core.errors import InfrastructureError

PACKAGE = Path(__file__).resolve().parents[2]
STAMP = ".ready"
LOCK = "requirements/export.txt"
VARIABLE = "TUNECTL_EXPORTER"
"""Names the Python of an environment that is there already, for machines without a package index."""

_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ToolEnvironment:
    """A virtual environment for a tool whose packages conflict with tunectl's: its lock file and where it is made."""

    name: str
    """Name of the environment in messages."""
    prefix: str
    """Prefix of its folder."""
    lock: str
    variable: str
    before: tuple[str, ...] = ()
    """Files beside the lock that are installed with it."""


EXPORTER = ToolEnvironment("exporter", "export", LOCK, VARIABLE, ("torch.txt", "torchvision.txt"))
FLOWER = ToolEnvironment("federated", "federated", "requirements/federated.txt", "TUNECTL_FLOWER")


def lock_file(name: str = LOCK) -> Path:
    """Return the path of the lock file ``name``: inside an installed wheel, or in the checkout that this code runs from.

    Raises  InfrastructureError where neither has it.
    """
    for folder in (PACKAGE / "_project", PACKAGE.parents[1]):
        if (folder / name).is_file():
            return folder / name
    raise InfrastructureError(f"{name} is missing from this installation", hint=format_reinstall_command())


def ensure_interpreter(exporters: Path | None = None, tool: ToolEnvironment = EXPORTER) -> Path:
    """Return the Python interpreter of the environment of ``tool``; the environment is made if it is absent.

    ``exporters`` is the folder of all such environments. Making the exporter's takes some minutes and 2 GB.
    Raises  InfrastructureError with pip's error message where the installation fails.
    """
    named = os.environ.get(tool.variable)
    if named:
        if not Path(named).is_file():
            raise InfrastructureError(
                f"{tool.variable} = {named}: there is no such file",
                hint="set it to the python of an environment, or unset it: tunectl then makes one",
            )
        return Path(named)
    exporters = exporters or ProjectPaths().exporters
    lock_path = lock_file(tool.lock)
    key = hashlib.sha256(lock_path.read_bytes() + sys.version.encode()).hexdigest()[:12]
    environment = (exporters / f"{tool.prefix}-{key}").absolute()
    result = environment / "bin" / "python"
    if (environment / STAMP).is_file():
        return result
    with lock.file_lock(
        exporters / ".lock", f"making the {tool.name} environment", busy=f"the {tool.name} environment is being made"
    ):
        if not (environment / STAMP).is_file():
            _make(environment, lock_path, tool)
    return result


def _make(folder: Path, lock_path: Path, tool: ToolEnvironment) -> None:
    _log.info("%s: making %s from %s (once; some minutes)", tool.prefix, folder, lock_path.name)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with progress.bar(f"{tool.name} environment", 2) as bar:
        _call([sys.executable, "-m", "venv", str(folder)], "python -m venv", tool)
        bar.advance(1)
        python = str(folder / "bin" / "python")
        files = [*tool.before, lock_path.name]
        _call([python, str(lock_path.with_name("install.py")), *files], f"installing {lock_path.name}", tool)
        bar.advance(1)
    atomic_io.write_text(folder / STAMP, lock_path.read_text())


def _add(folder: Path, lock_path: Path) -> None:
    """Install one more lock file, once; its packages need nothing that the environment does not have."""
    stamp = folder.parents[1] / f".{lock_path.stem}"
    if stamp.is_file() and stamp.read_text() == lock_path.read_text():
        return
    pip = [
        str(folder),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--require-hashes",
    ]
    _call([*pip, "-r", str(lock_path)], f"pip install -r {lock_path.name}")
    atomic_io.write_text(stamp, lock_path.read_text())


def _call(command: Sequence[str], description: str, tool: ToolEnvironment = EXPORTER) -> None:
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode:
        error_lines = [line for line in (process.stderr or process.stdout).splitlines() if line.strip()]
        raise InfrastructureError(
            f"the {tool.name} environment cannot be made: {description} failed: {error_lines[-1][:500] if error_lines else 'no output'}",
            hint=f"connect this machine to the network, name a mirror (PIP_INDEX_URL), or set {tool.variable} to a Python "
            f"in which {tool.lock} is installed",
        )


def error_line(stderr: str) -> str:
    """Return the line of ``stderr`` that names the error, or its last line.

    Where that line ends with a colon, the line below it is appended.
    """
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    named = [
        number
        for number, line in enumerate(lines)
        if re.match(r"[\w.]*(Error|Exception|Interrupt)\b.*:|.*\bNo module named\b", line)
    ]
    start = end = named[-1] if named else len(lines) - 1
    while end + 1 < len(lines) and lines[end].endswith(":"):
        end += 1
    return " ".join(lines[start : end + 1])[:500]


def run_in_env(
    arguments: Sequence[str], description: str, *, exporters: Path | None = None, extras: Sequence[str] = ()
) -> str:
    """Run ``python ARGUMENTS`` in the exporter environment, offline and without telemetry; return its standard output.

    ``description`` names the work in an error.
    ``extras`` names further lock files (with hashes), which are installed into the environment at the first use.
    tunectl is importable there. Raises  InfrastructureError with the command's error message where it fails.
    """
    hidden = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "OPENVINO_TELEMETRY": "0", "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **hidden, "PYTHONPATH": str(PACKAGE.parent)}
    folder = ensure_interpreter(exporters)
    for name in extras:
        _add(folder, lock_file(f"requirements/{name}.txt"))
    process = subprocess.run([str(folder), *arguments], env=environment, capture_output=True, text=True, check=False)
    _log.debug("%s: %s", description, process.stderr.strip()[-10_000:])
    if process.returncode:
        cause = error_line(process.stderr) if process.returncode > 0 else ""
        raise InfrastructureError(
            f"{description} failed: {cause or describe_exit(process.returncode)}",
            hint=suggest_after_kill(process.returncode, "close other programs, or take a smaller model")
            + "--verbose shows all of its output",
        )
    return process.stdout
