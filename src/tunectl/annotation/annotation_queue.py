"""Annotation queue: gives each annotator the next task, and records, or takes back, what they choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import RLock
from typing import Literal

from tunectl.annotation.active_sampling import NextTask, QueuePolicy, next_task, open_tasks
from tunectl.core.hashing import hash_to_id
from tunectl.preferences.annotation_store import AnnotationChoice, AnnotationEvent, AnnotationTask, Retraction, Store

Button = Literal["left", "right", "both_good", "both_bad", "skip"]
"""Button that an annotator presses: the better answer, both alike, or skip."""


@dataclass(frozen=True, slots=True)
class DisplayedTask:
    """An annotation task on one person's screen: which answer is on the left, and since when it is shown."""

    id: str
    task: AnnotationTask
    left: int
    """Which answer is shown on the left: 0 or 1."""
    repeat: bool
    since: datetime

    @property
    def texts(self) -> tuple[str, str]:
        """Text of the left and of the right answer."""
        return self.task.answers[self.left], self.task.answers[1 - self.left]


@dataclass(frozen=True, slots=True)
class Progress:
    """Numbers of answered and remaining tasks of one annotator."""

    answered: int
    """Number of recorded choices, skips included."""
    remaining: int
    """Questions not yet answered."""
    undo: bool
    """Whether the last choice can be undone."""


class AnnotationQueue:
    """Tasks and annotations of one store, served to several annotators. Thread-safe."""

    def __init__(
        self, store: Store, plan: QueuePolicy, *, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._store, self._plan, self._clock = store, plan, clock
        self._showing: dict[str, DisplayedTask] = {}
        self._uncertainties: dict[str, float] = {}
        self._lock = RLock()

    def get_current_task(self, annotator: str) -> DisplayedTask | None:
        """Return the task of ``annotator``, the same one until it is answered; None when the queue is empty."""
        with self._lock:
            result = self._showing.get(annotator)
            if result is None:
                result = self._choose(annotator)
                if result is not None:
                    self._showing[annotator] = result
            return result

    def _choose(self, annotator: str) -> DisplayedTask | None:
        turn = self._store.count_turns(annotator)
        others = [item.task.id for name, item in self._showing.items() if name != annotator]
        tasks = list(self._store.tasks.values())
        result = next_task(
            tasks,
            self._store.list_annotations(),
            annotator,
            turn,
            self._plan,
            uncertainties=self._uncertainties,
            on_screen=others,
        )
        if result is None:
            return None
        return self._build_displayed_task(annotator, turn, result)

    def submit(self, annotator: str, showing: str, button: Button, tags: Sequence[str], edit: str | None) -> bool:
        """Record a choice for the displayed task with the id ``showing``; it is on the disk when this returns. Return False if that is not on the screen.

        The same choice sent twice, as by a double click, counts once and returns True; another choice returns False.
        """
        with self._lock:
            now = self.get_current_task(annotator)
            if now is None or now.id != showing:
                return self._is_repeat_submission(showing, button, tags, edit)
            at = self._clock()
            self._store.write(
                AnnotationEvent(
                    id=now.id,
                    task=now.task.id,
                    annotator=annotator,
                    created_at=at.isoformat(timespec="seconds"),
                    choice=button_to_choice(button, now.left),
                    left=now.left,
                    seconds=round((at - now.since).total_seconds(), 1),
                    tags=list(tags),
                    edit=_accept_edit(edit, now.task),
                    repeat=now.repeat,
                )
            )
            del self._showing[annotator]
            return True

    def _is_repeat_submission(self, showing: str, button: Button, tags: Sequence[str], edit: str | None) -> bool:
        annotation = self._store.get_annotation(showing)
        if annotation is None:
            return False
        accepted = _accept_edit(edit, self._store.tasks[annotation.task])
        return (annotation.choice, annotation.tags, annotation.edit) == (
            button_to_choice(button, annotation.left),
            list(tags),
            accepted,
        )

    def undo(self, annotator: str) -> bool:
        """Delete the last choice of ``annotator`` and show its task again; return False when there is none."""
        with self._lock:
            annotations = self._store.list_annotations(annotator)
            if not annotations:
                return False
            last = annotations[-1]
            self._store.write(Retraction(last.id, annotator, self._clock().isoformat(timespec="seconds")))
            again = NextTask(self._store.tasks[last.task], last.left, last.repeat)
            self._showing[annotator] = self._build_displayed_task(annotator, self._store.count_turns(annotator), again)
            return True

    def _build_displayed_task(self, annotator: str, turn: int, what: NextTask) -> DisplayedTask:
        """Return what one annotator sees, with an id made of all that is on the screen: a choice made on another screen never counts for it."""
        name = hash_to_id(turn, annotator, what.task.id, what.left, what.repeat)
        return DisplayedTask(name, what.task, what.left, what.repeat, self._clock())

    def progress(self, annotator: str) -> Progress:
        """Return the numbers of answered and remaining tasks of ``annotator``."""
        with self._lock:
            annotations = self._store.list_annotations(annotator)
            task_count = open_tasks(list(self._store.tasks.values()), annotations, annotator)
            return Progress(len(annotations), task_count, bool(annotations))

    def rank(self, uncertainties: Mapping[str, float]) -> None:
        """Order the queue by uncertainty from now on: ``uncertainties`` maps a task's id to the probability that a reward model orders it wrongly."""
        with self._lock:
            self._uncertainties.update(uncertainties)

    def list_tasks(self) -> list[AnnotationTask]:
        """Return all tasks of the queue."""
        with self._lock:
            return list(self._store.tasks.values())

    def add(self, tasks: Sequence[AnnotationTask]) -> None:
        """Append tasks to the queue; annotators who are working get them, too."""
        with self._lock:
            self._store.add(tasks)


def button_to_choice(button: Button, left: int) -> AnnotationChoice:
    """Return the choice that a button means, where the answer with the index ``left`` (0 or 1) is shown on the left."""
    if button == "left":
        return "first" if left == 0 else "second"
    if button == "right":
        return "second" if left == 0 else "first"
    return button


def _accept_edit(edit: str | None, task: AnnotationTask) -> str | None:
    """Return the edit, unless it is empty or one of the answers unchanged."""
    text = (edit or "").replace("\r\n", "\n").strip()
    return text if text and text not in {answer.strip() for answer in task.answers} else None
