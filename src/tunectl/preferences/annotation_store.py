"""Store of the annotation page: questions and annotations, durable before they are confirmed.

``tasks.jsonl`` holds the questions: those of a preparation appear all at once (the file is rewritten), that of an arena vote is
appended. ``annotations.jsonl`` is a journal: each line is written and fsynced before the page confirms it, and none is ever
moved; undo is a separate line. A line that was cut off by a crash was never confirmed, so it is dropped at the next opening.
One process at a time may open the store.
A store of tunectl 0.1 has ``questions.jsonl`` and ``said.jsonl``: they are read unchanged, and rewritten under their new
names by the next process that opens the store.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct, field

from tunectl.artifacts import atomic_io, lock, private_files
from tunectl.artifacts.record_format import RecordFormat, find_existing, rename_keys
from tunectl.artifacts.records import AnnotationMetadata, Choice, Comparison, Message, RejectedRow, Source
from tunectl.core.errors import DataError

TASKS, ANNOTATIONS, LOCK = "tasks.jsonl", "annotations.jsonl", ".lock"
OLD_NAMES: Final = {TASKS: "questions.jsonl", ANNOTATIONS: "said.jsonl"}
OLD_FOLDER: Final = "judgements"
"""The folder's name by default, in tunectl 0.1."""
PAGE, PREPARE, VOTE = "tunectl annotate", "tunectl annotate prepare", "a vote in the arena"
"""Who holds the lock of a store, for readers of the lock file: the annotation page, the writer of questions, or a server."""
ARENA: Final = "arena"
"""Source of the tasks that people make by chatting in the arena, and ``kind`` of their votes."""
AnnotationChoice = Literal["first", "second", "both_good", "both_bad", "skip"]


class AnnotationTask(Struct, frozen=True, omit_defaults=True):
    """An annotation task: one input with two answers, of which people choose the better one."""

    id: str
    prompt: str
    """Digest that equal inputs share."""
    source: Source
    messages: list[Message]
    answers: list[str]
    """Two answers. For an attention check, the first is the right one."""
    systems: list[str]
    """System that wrote each answer; people never see it."""
    attention: bool = False
    fields: dict[str, str] = field(default_factory=dict)
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Tools that the model may call."""


class AnnotationEvent(Struct, frozen=True, omit_defaults=True, tag="annotation", tag_field="kind"):
    """One line of ``annotations.jsonl``: a person's choice for one annotation task."""

    id: str
    """Id of this display of the question; an event with the same id counts once."""
    task: str
    annotator: str
    created_at: str
    """UTC, ISO 8601."""
    choice: AnnotationChoice
    left: int
    """Which answer was shown on the left: 0 or 1."""
    seconds: float
    tags: list[str] = field(default_factory=list)
    edit: str | None = None
    repeat: bool = False


class Retraction(Struct, frozen=True, tag="retraction", tag_field="kind"):
    """One line of ``annotations.jsonl`` that takes a person's last choice back."""

    id: str
    """Id of the ``AnnotationEvent`` that no longer counts."""
    annotator: str
    created_at: str


class Store:
    """The annotation tasks and choices in one folder, opened by ``open_store`` for one process at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tasks = {item.id: item for item in _rows(folder, TASKS, AnnotationTask)}
        self._judgments: dict[str, AnnotationEvent] = {}
        self._undone: set[str] = set()
        for row, entry in enumerate(_rows(folder, ANNOTATIONS, AnnotationEvent | Retraction), 1):
            _refuse_stray(folder, row, entry, self.tasks)
            self._take(entry)
        self._journal = _open_to_append(folder / ANNOTATIONS)
        atomic_io.fsync_directory(folder)

    def close(self) -> None:
        """Close ``annotations.jsonl``."""
        os.close(self._journal)

    def add(self, tasks: Sequence[AnnotationTask]) -> None:
        """Append tasks; those with a known id are left unchanged.

        Raises  InfrastructureError when the disk refuses; none is added then.
        """
        every = self.tasks | {item.id: item for item in tasks if item.id not in self.tasks}
        TASK.write_lines(self.folder / TASKS, every.values(), private_files.FILE)
        self.tasks = every  # nobody is asked what is not on the disk

    def write(self, entry: AnnotationEvent | Retraction) -> None:
        """Append one entry; when this returns, it is on the disk. An existing entry is not written again.

        Raises  InfrastructureError when the disk refuses; then nothing counts, and a half-written line is cut off.
        """
        if isinstance(entry, AnnotationEvent) and entry.id in self._judgments:
            return
        _append(self._journal, self.folder / ANNOTATIONS, EVENT.encode(entry))
        self._take(entry)

    def list_annotations(self, annotator: str | None = None) -> list[AnnotationEvent]:
        """Return the annotations that were not taken back, in their order, of ``annotator`` or (None) of all."""
        return [
            item
            for item in self._judgments.values()
            if item.id not in self._undone and (annotator is None or item.annotator == annotator)
        ]

    def get_annotation(self, name: str) -> AnnotationEvent | None:
        """Return the annotation with id ``name``; None where there is none, or where it was taken back."""
        return None if name in self._undone else self._judgments.get(name)

    def count_turns(self, annotator: str) -> int:
        """Return how often a person has annotated, taken back or not."""
        return sum(item.annotator == annotator for item in self._judgments.values())

    def _take(self, entry: AnnotationEvent | Retraction) -> None:
        if isinstance(entry, AnnotationEvent):
            self._judgments[entry.id] = entry
        else:
            self._undone.add(entry.id)


@contextmanager
def open_store(folder: Path, holder: str = PAGE) -> Iterator[Store]:
    """Yield the store in ``folder``, which is created where it is absent, and close it after; ``holder``: ``PAGE`` or ``PREPARE``.

    Raises  InfrastructureError when another process has it open; DataError when one of its files was changed by hand.
    """
    with _hold(folder, holder):
        store = Store(folder)
        try:
            yield store
        finally:
            store.close()


def append_vote(folder: Path, task: AnnotationTask, annotation: AnnotationEvent) -> None:
    """Append an arena vote and its task to the store in ``folder``, which is created where it is absent; on return both are on the disk.

    Reads and rewrites nothing, so a vote costs the same however many there are. After a kill between the two lines the task stays, like one
    that nobody has answered.
    Raises  InfrastructureError when another process has the store open, or when the disk refuses: then the vote does not count.
    """
    with _hold(folder, VOTE):
        for path, line in ((folder / TASKS, TASK.encode(task)), (folder / ANNOTATIONS, EVENT.encode(annotation))):
            descriptor = _open_to_append(path)
            try:
                _append(descriptor, path, line)
            finally:
                os.close(descriptor)
        atomic_io.fsync_directory(folder)


@contextmanager
def _hold(folder: Path, holder: str) -> Iterator[None]:
    """Hold the lock of the store in ``folder``; its files have their present names, private modes and whole lines only."""
    _refuse_old_folder(folder)
    private_files.make_folder(folder)
    busy = f"{folder}: another process has this store of judgments open"
    with lock.file_lock(folder / LOCK, holder, busy=busy, hint="let several people share one page, or close the other"):
        if not (folder / ".gitignore").exists():  # the folder is committed, who holds it is not
            atomic_io.write_text(folder / ".gitignore", f"{LOCK}\n")
        _adopt_old_names(folder)
        for name in (TASKS, ANNOTATIONS):
            _cut_unfinished_line(folder / name)
            private_files.restrict(folder / name)
        yield


def load_annotations(folder: Path) -> Iterator[Comparison | RejectedRow]:
    """Yield every annotation in ``folder``: as a judgment, or rejected as ``skipped`` or ``taken_back``.

    Reads without a lock: the journal only grows, and a last line that is still being written is ignored.
    Raises  DataError when there is no store, or a line of it is wrong.
    """
    if not has_annotations(folder):
        raise DataError(
            f"preferences.collected = {folder}: that folder holds no judgments", hint="collect some: tunectl annotate"
        )
    entries = list(enumerate(_rows(folder, ANNOTATIONS, AnnotationEvent | Retraction), 1))
    # Questions after judgments: an open page may add some of both meanwhile.
    tasks = {item.id: item for item in _rows(folder, TASKS, AnnotationTask)}
    undone = {entry.id for _, entry in entries if isinstance(entry, Retraction)}
    for row, entry in entries:
        if isinstance(entry, Retraction):
            continue
        _refuse_stray(folder, row, entry, tasks)
        source = Source((folder / ANNOTATIONS).as_posix(), row)
        if entry.id in undone or entry.choice == "skip":
            yield RejectedRow(source, "taken_back" if entry.id in undone else "skipped", f"by {entry.annotator}")
            continue
        yield _judgment(entry, entry.choice, tasks[entry.task], source)


def has_annotations(folder: Path) -> bool:
    """Return whether there are annotations in ``folder``.

    Raises  DataError where they are in the folder of 0.1.
    """
    _refuse_old_folder(folder)
    return find_existing(folder / ANNOTATIONS, OLD_NAMES[ANNOTATIONS]).is_file()


def count_tasks(folder: Path) -> int:
    """Return the number of annotation tasks in ``folder``; reads without a lock.

    Raises  DataError for an invalid line.
    """
    return len({item.id for item in _rows(folder, TASKS, AnnotationTask)})


def list_files(folder: Path) -> list[Path]:
    """Return the files of a store, existing or not; those of 0.1 where they exist."""
    older = [folder / name for name in OLD_NAMES.values()]
    return [folder / TASKS, folder / ANNOTATIONS, *(path for path in older if path.is_file())]


def _refuse_old_folder(folder: Path) -> None:
    older = folder.with_name(OLD_FOLDER)
    if not folder.exists() and any((older / name).is_file() for name in (*OLD_NAMES, *OLD_NAMES.values())):
        raise DataError(
            f"{folder} does not exist, and {older} is a store of tunectl 0.1",
            hint=f"rename it: git mv {older} {folder}; or set annotate.store to {OLD_FOLDER}",
        )


def _adopt_old_names(folder: Path) -> None:
    """Rewrite the files of tunectl 0.1, each complete before the old one is removed. Lines keep their numbers: artifacts refer to them."""
    for name, form, shape in (
        (TASKS, TASK, AnnotationTask),
        (ANNOTATIONS, EVENT, AnnotationEvent | Retraction),
    ):
        older = folder / OLD_NAMES[name]
        if not older.is_file():
            continue
        if not (folder / name).is_file():
            form.write_lines(folder / name, list(_rows(folder, name, shape)), private_files.FILE)
        older.unlink()


def _refuse_stray(
    folder: Path, row: int, entry: AnnotationEvent | Retraction, tasks: Mapping[str, AnnotationTask]
) -> None:
    if isinstance(entry, AnnotationEvent) and entry.task not in tasks:
        raise DataError(
            f"{folder / ANNOTATIONS}:{row} is about question {entry.task}, which is not in {folder / TASKS}",
            hint=f"restore {folder / TASKS} from Git",
        )


def _judgment(entry: AnnotationEvent, choice: Choice, task: AnnotationTask, source: Source) -> Comparison:
    check: Literal["repeat", "attention"] | None = "attention" if task.attention else "repeat" if entry.repeat else None
    return Comparison(
        id=f"j-{entry.id}",
        prompt=task.prompt,
        messages=task.messages,
        answers=[[Message("assistant", text)] for text in task.answers],
        choice=choice,
        annotation=AnnotationMetadata(source, entry.annotator, entry.created_at, None, entry.tags),
        kind=ARENA if entry.task == f"{ARENA}-{entry.id}" else "collected",
        fields=task.fields,
        left=entry.left,
        check=check,
        edit=entry.edit,
        systems=task.systems,
        seconds=entry.seconds,
        tools=task.tools,
    )


def _rows(folder: Path, name: str, shape: Any) -> Iterator[Any]:
    """Yield the whole lines of a file, none where it is absent; a last line without an end is still being written, or was cut off."""
    form = TASK if name == TASKS else EVENT
    path, content = _read(folder, name)
    for number, line in enumerate(content.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            return
        try:
            yield form.decode(line, shape, f"{path}:{number}")
        except atomic_io.NOT_JSON as error:
            raise DataError(
                f"{path}:{number} is malformed: {error}", hint="the file was changed by hand; restore it from Git"
            ) from error


def _read(folder: Path, name: str) -> tuple[Path, bytes]:
    """Read a file under its current name or that of 0.1; again under the current one, where it was rewritten meanwhile."""
    for path in (folder / name, folder / OLD_NAMES[name], folder / name):
        with suppress(FileNotFoundError):
            return path, path.read_bytes()
    return folder / name, b""


def _open_to_append(path: Path) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, private_files.FILE)


def _append(descriptor: int, path: Path, line: bytes) -> None:
    """Append ``line`` to the open file at ``path``, durable on return.

    Raises  InfrastructureError when the disk refuses; a half-written line is cut off.
    """
    size = os.fstat(descriptor).st_size
    try:
        offset = 0
        while offset < len(line):
            offset += os.write(descriptor, line[offset:])
        os.fsync(descriptor)
    except OSError as error:
        os.ftruncate(descriptor, size)
        raise atomic_io.write_error(path, error) from error


def _cut_unfinished_line(path: Path) -> None:
    """Cut off a last line that a crash left unfinished: it was never confirmed. A file that ends with a line end is not read."""
    if not path.is_file() or not path.stat().st_size:
        return
    with path.open("rb") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read() == b"\n":
            return
    with path.open("r+b") as stream:
        stream.truncate(stream.read().rfind(b"\n") + 1)
        os.fsync(stream.fileno())


_KINDS: Final = {"said": "annotation", "undone": "retraction"}


def upgrade_task(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line of ``questions.jsonl`` of 0.1 as a line of ``tasks.jsonl``; its keys are those of today."""
    return dict(record)


def upgrade_event(record: dict[str, Any]) -> dict[str, Any]:
    """Return a line of ``said.jsonl`` of 0.1 as a line of ``annotations.jsonl``, with the keys of today."""
    result = rename_keys(record, {"what": "kind", "question": "task", "at": "created_at"})
    return {**result, "kind": _KINDS.get(result.get("kind", ""), result.get("kind"))}


TASK: Final = RecordFormat("task", (upgrade_task,))
EVENT: Final = RecordFormat("line of annotations", (upgrade_event,))
