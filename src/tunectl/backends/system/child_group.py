"""Run several commands side by side with one log: each line has the name of its command in front, on the terminal and in a file.

Every command has a process group whose guard ends it when this process dies, even by ``kill -9`` (``process_guard``).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from tunectl.backends.system import process_guard
from tunectl.core.errors import InfrastructureError

STOP_TIMEOUT_SECONDS: Final = 20.0
"""Seconds from SIGINT to SIGTERM, and from there to SIGKILL."""
POLL_SECONDS: Final = 0.1


class ChildGroup:
    """Runs several commands side by side: copies their output to one log, and ends all of them when the block ends."""

    def __init__(
        self, folder: Path, log: Path, tell: Callable[[str], None], stop_timeout_seconds: float = STOP_TIMEOUT_SECONDS
    ) -> None:
        """``folder``: where the commands run. ``tell`` gets each line; ``log`` gets it with the time, too."""
        self._folder, self._log, self._tell, self._stop_timeout_seconds = folder, log, tell, stop_timeout_seconds
        self._children: dict[str, subprocess.Popen[str]] = {}
        self._readers: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._stream: IO[str] | None = None

    def __enter__(self) -> Self:
        """Begin a new log; the previous one is kept as ``*.previous``."""
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            if self._log.is_file():
                self._log.replace(self._log.with_suffix(".previous"))
            self._stream = self._log.open("w", encoding="utf-8", buffering=1)
        except OSError as error:
            raise InfrastructureError(
                f"cannot write {self._log}: {error.strerror}",
                hint="check the free space and the permissions of that folder",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End running commands, the last one first."""
        try:
            self.stop()
        finally:
            for child in self._children.values():
                if child.stdin is not None:
                    child.stdin.close()
            if self._stream is not None:
                self._stream.close()

    def start(self, name: str, command: Sequence[str]) -> None:
        """Start ``command`` in its own process group; ``name`` prefixes its output."""
        guard = [sys.executable, "-m", process_guard.__name__, "0", "0", *command]
        child = subprocess.Popen(
            guard,
            cwd=self._folder,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self._children[name] = child
        reader = threading.Thread(target=self._copy, args=(name, child), daemon=True)
        reader.start()
        self._readers.append(reader)

    def print_line(self, name: str, text: str) -> None:
        """Print one line, with ``name`` as its prefix, and add it to the log."""
        with self._lock:
            self._tell(f"{name:<8} {text}")
            if self._stream is not None and not self._stream.closed:
                self._stream.write(f"{time.strftime('%H:%M:%S')} {name:<8} {text}\n")

    def list_running(self) -> list[str]:
        """Return the names of the commands that have not ended."""
        return [name for name, child in self._children.items() if child.poll() is None]

    def wait(self, name: str) -> int:
        """Wait until command ``name`` ends, and return its exit code; the end of any other command is logged meanwhile."""
        before = set(self.list_running())
        while (code := self._children[name].poll()) is None:
            time.sleep(POLL_SECONDS)
            before = self._report_ended(before, but=name)
        self._join()
        return code

    def wait_all(self) -> int:
        """Wait until every command has ended; return the exit code of the first one that failed, in the order of their start, 0 where none did."""
        before = set(self.list_running())
        while before:
            time.sleep(POLL_SECONDS)
            before = self._report_ended(before)
        self._join()
        return next((child.returncode for child in self._children.values() if child.returncode), 0)

    def stop(self) -> None:
        """End every command: by SIGINT, then SIGTERM, then SIGKILL."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
            for name in reversed(self.list_running()):
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._children[name].pid, number)
            end = time.monotonic() + self._stop_timeout_seconds
            while self.list_running() and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
        self._join()

    def _report_ended(self, before: set[str], but: str | None = None) -> set[str]:
        now = set(self.list_running())
        for name in sorted(before - now - {but}):
            self.print_line(name, f"ended with exit code {self._children[name].returncode}")
        return now

    def _join(self) -> None:
        for reader in self._readers:
            reader.join(timeout=1)

    def _copy(self, name: str, child: subprocess.Popen[str]) -> None:
        stream = child.stdout
        if stream is not None:
            with stream:
                for line in stream:
                    self.print_line(name, line.rstrip())
