"""Run DVC as a subprocess, because its Python API changes."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import Final

from tunectl.artifacts import atomic_io
from tunectl.backends.system import exit_status, process_guard
from tunectl.backends.vcs import guarded_dvc
from tunectl.core.distribution import format_install_command
from tunectl.core.errors import InfrastructureError, MissingExtraError, UsageError


def build_command(root: Path) -> tuple[list[str], dict[str, str]]:
    """Return the beginning of a DVC command line (interpreter and module), and the environment variables to run it with.

    Raises  MissingExtraError without DVC; UsageError where ``root`` is no project, or no DVC repository.
    """
    if importlib.util.find_spec("dvc") is None:
        raise MissingExtraError("dvc is not installed, and this needs it", hint=format_install_command("pipeline"))
    if not (root / "dvc.yaml").is_file():
        raise UsageError(
            f"{root.resolve()} is not a tunectl project: there is no dvc.yaml in it",
            hint="go to the project's folder, or make one: tunectl init DIR",
        )
    if not (root / ".dvc").is_dir():
        raise UsageError(
            f"{root.resolve()} is not a DVC repository yet", hint="run: dvc init (or dvc init --no-scm outside Git)"
        )
    # dvc.yaml says `tunectl`: the one of this environment must come first, whether or not the environment is activated.
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', '')}", "DVC_NO_ANALYTICS": "1"}
    return [sys.executable, "-m", guarded_dvc.__name__], environment


RESTORE_ONLY: Final = "TUNECTL_RESTORE_ONLY"
"""Environment variable that lets every stage but compose refuse to run: ``restore`` restores results and builds none."""


def restore(root: Path, targets: Sequence[str]) -> int:
    """Restore the outputs of ``targets`` from DVC's run cache or the remote; return DVC's exit code.

    A stage that is in neither fails instead of running.
    """
    return _run_repro(root, ["--pull", *targets], {RESTORE_ONLY: "1"})


def repro(root: Path, targets: Sequence[str] = (), *, force: bool = False, stdout: int | None = None) -> int:
    """Run ``dvc repro`` with its output passed through; returns its exit code, 130 where it was interrupted.

    ``targets`` are stages: they and what they need are rebuilt. ``force`` reruns them though nothing changed. ``stdout`` is the file
    descriptor that gets their standard output (None: this process's). What ends this process ends DVC and the stage that it runs, too: SIGINT, SIGTERM and SIGHUP let the current step finish, kill -9 does not.
    """
    return _run_repro(root, [*(["--force"] if force else []), *targets], {}, stdout)


def _run_repro(
    root: Path, arguments: Sequence[str], extra_environment: Mapping[str, str], stdout: int | None = None
) -> int:
    command, environment = build_command(root)
    clear_stale_locks(root)
    dvc_command = [*command, "repro", *arguments]
    # DVC passes no signal on to the stage, so both are in their own process group, whose guard ends it when this process dies.
    guard = [sys.executable, "-m", process_guard.__name__, "0", "0", *dvc_command]
    with (
        subprocess.Popen(
            guard,
            cwd=root,
            env={**environment, **extra_environment},
            stdin=subprocess.PIPE,
            stdout=stdout,
            process_group=0,
        ) as process,
        _pass_signals(process.pid) as interrupted,
    ):
        code = process.wait()
    return 130 if code and interrupted.is_set() else code


@contextmanager
def _pass_signals(group: int) -> Iterator[threading.Event]:
    """Send SIGINT to a process group when this process gets SIGINT, SIGTERM or SIGHUP; the yielded event is set then."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread may set handlers
        return

    def interrupt(*_: object) -> None:
        interrupted.set()
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGINT)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield interrupted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def share_cache(root: Path, worktree: Path, extra_environment: Mapping[str, str] = MappingProxyType({})) -> None:
    """Let the project in a worktree use the cache and the remotes of ``root``, then check out the outputs in its dvc.lock.

    Outputs that the cache does not hold are left out. ``extra_environment`` is added to DVC's, so that ``kill_marked`` finds it.
    Raises  InfrastructureError with DVC's error message when it cannot tell where its cache is.
    """
    command, environment = build_command(root)
    environment |= extra_environment
    process = subprocess.run(
        [*command, "cache", "dir"], cwd=root, env=environment, capture_output=True, text=True, check=False
    )
    if process.returncode:
        raise InfrastructureError(
            f"dvc cache dir failed in {root}: {process.stderr.strip()[-500:]}",
            hint="check .dvc/config: run dvc cache dir there",
        )
    local = root / ".dvc" / "config.local"
    if local.is_file():
        atomic_io.write_text(worktree / ".dvc" / "config.local", local.read_text(encoding="utf-8"))
    cache_folder = (root / process.stdout.strip()).absolute()
    for arguments in (["cache", "dir", "--local", str(cache_folder)], ["checkout", "--force", "--quiet"]):
        subprocess.run([*command, *arguments], cwd=worktree, env=environment, capture_output=True, check=False)


def clear_stale_locks(root: Path) -> int:
    """Remove dead processes from DVC's list of readers and writers; return how many were removed.

    DVC forgets a killed process by itself, but not one that nobody has waited for yet (a zombie, as in a container without an
    init), and it cannot read a list that a kill cut off half-way. Call this under the lock of ``tunectl repro``.
    """
    path = root / ".dvc" / "tmp" / "rwlock"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        writers = {name: info for name, info in result["write"].items() if exit_status.is_running(info["pid"])}
        readers = {
            name: [info for info in infos if exit_status.is_running(info["pid"])]
            for name, infos in result["read"].items()
        }
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError, AttributeError):
        path.unlink()
        return 1
    readers = {name: infos for name, infos in readers.items() if infos}
    before = len(result["write"]) + sum(map(len, result["read"].values()))
    removed = before - len(writers) - sum(map(len, readers.values()))
    if removed:
        atomic_io.write_text(path, json.dumps({"write": writers, "read": readers}))
    return removed
