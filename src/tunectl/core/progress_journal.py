"""The progress of a stage as a file, so that a page can show it: JSON lines, at most two per second.

The journal is written in addition to the drawn bars. It begins with the digest of the stage's configuration and ends with how the
stage ended; a kill leaves it without an end. No stage reads it, and no artifact depends on it: it may be deleted at any time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from tunectl.core import progress

MIN_SECONDS: Final = 0.5
"""Shortest time in seconds between two lines."""
MAX_SECONDS: Final = 5.0
"""Longest time between two lines, late in a stage: a day of training leaves less than 3 MB."""
LINES_UNTHINNED: Final = 1000.0
"""The time between two lines is the stage's seconds divided by this, within the two limits above."""
VARIABLE: Final = "TUNECTL_PROGRESS_JOURNAL"
"""Environment variable with the journal of the stage that started this process: the first rank of a training continues it."""
StageOutcome = Literal["finished", "failed", "stopped"]


class JournalStart(msgspec.Struct, frozen=True, tag_field="event", tag="start"):
    """First line of a journal: the stage, its process, and the digest of its configuration."""

    at: float
    """Seconds since 1970, as in the other lines."""
    stage: str
    pid: int
    config: str
    """Digest of the stage's resolved configuration, as in its manifest."""


class JournalStep(msgspec.Struct, frozen=True, tag_field="event", tag="step"):
    """A line of a journal: progress of one bar of a stage. ``at`` is in seconds since 1970."""

    at: float
    label: str
    done: float
    total: float | None = None
    figures: dict[str, str] = {}
    """Values beside the bar, for example ``loss``."""


class JournalEnd(msgspec.Struct, frozen=True, tag_field="event", tag="end"):
    """Last line of a journal: how the stage ended."""

    at: float
    outcome: StageOutcome
    message: str = ""
    """Error message of a failed stage; one line."""


JournalLine = JournalStart | JournalStep | JournalEnd
_LINE: Final = msgspec.json.Decoder(JournalLine)


class ProgressJournal:
    """Passes bars on to another renderer, and appends their progress to a file.

    A journal that cannot be written is given up without an error: a stage never fails for it.
    """

    def __init__(self, path: Path, inner: progress.ProgressRenderer, clock: Callable[[], float] = time.time) -> None:
        self._path, self._inner, self._clock = path, inner, clock
        self._started = self._written_at = clock()
        self._waiting: dict[str, JournalStep] = {}
        self._broken = False

    @contextmanager
    def bar(self, label: str, total: float | None) -> Iterator[progress.Bar]:
        """Yield a bar of the other renderer (``total`` steps, None: unknown) whose progress is recorded."""
        with self._inner.bar(label, total) as inner_bar:
            self.note(label, 0, total, {})
            yield _JournalBar(self, inner_bar, label, total)

    def note(self, label: str, completed: float, total: float | None, figures: dict[str, str]) -> None:
        """Record that the bar ``label`` has ``completed`` of ``total`` steps; it is written when the next line is due."""
        now = self._clock()
        self._waiting.pop(label, None)
        self._waiting[label] = JournalStep(now, label, completed, total, figures)
        pause = min(MAX_SECONDS, max(MIN_SECONDS, (now - self._started) / LINES_UNTHINNED))
        if now - self._written_at >= pause:
            self._written_at = now
            self.append(self._waiting.pop(label))

    def flush(self) -> None:
        """Write the last progress of each bar that was not written yet."""
        for step in self._waiting.values():
            self.append(step)
        self._waiting.clear()

    def append(self, line: JournalLine) -> None:
        """Write one line at once."""
        if self._broken:
            return
        try:
            with self._path.open("ab", buffering=0) as stream:
                stream.write(msgspec.json.encode(line) + b"\n")
        except OSError:
            self._broken = True


class _JournalBar:
    def __init__(self, journal: ProgressJournal, bar: progress.Bar, label: str, total: float | None) -> None:
        self._journal, self._inner_bar, self._label, self._total = journal, bar, label, total
        self._completed = 0.0
        self._figures: dict[str, str] = {}

    def advance(self, steps: float = 1, **figures: str) -> None:
        """Move the bar, and record its progress."""
        self._inner_bar.advance(steps, **figures)
        self._completed += steps
        self._figures = {**self._figures, **figures}
        self._journal.note(self._label, self._completed, self._total, self._figures)


@contextmanager
def record_progress(path: Path, stage: str, config: str) -> Iterator[None]:
    """Write the progress of ``stage`` to ``path`` while the block runs; the previous journal is kept as ``*.previous``."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(OSError):
        path.replace(path.with_suffix(".previous"))
    journal = ProgressJournal(path, progress.get_renderer())
    journal.append(JournalStart(time.time(), stage, os.getpid(), config))
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(path.absolute())
    outcome: StageOutcome = "finished"
    message = ""
    try:
        with progress.use_renderer(journal):
            yield
    except BaseException as error:
        outcome = "failed" if isinstance(error, Exception) else "stopped"
        message = (str(error).splitlines() or [type(error).__name__])[0]
        raise
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before
        journal.flush()
        journal.append(JournalEnd(time.time(), outcome, message))


def continue_journal() -> None:
    """Continue the journal of the stage that started this process, where there is one."""
    path = os.environ.get(VARIABLE)
    if path and Path(path).is_file():
        progress.set_renderer(ProgressJournal(Path(path), progress.get_renderer()))


def read_lines(path: Path) -> list[JournalLine]:
    """Return the lines of a journal; empty where there is none. Unreadable lines are left out, such as a last one that was cut off."""
    try:
        content = path.read_bytes()
    except OSError:
        return []
    lines: list[JournalLine] = []
    for text in content.splitlines():
        with suppress(msgspec.MsgspecError, UnicodeDecodeError):
            lines.append(_LINE.decode(text))
    return lines
