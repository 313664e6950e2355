"""Arena chat: two answers to each message, of which the user chooses one; choices become judgments.

The conversation continues with the answer that was chosen, or with what the person wrote instead; after "both" buttons, with
the left one. Sides are drawn at random for every comparison, and nothing here tells a person who wrote what.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from msgspec.structs import replace

from tunectl.annotation.annotation_queue import Button, button_to_choice
from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Message, Source
from tunectl.preferences.annotation_store import ARENA, AnnotationEvent, AnnotationTask
from tunectl.privacy.mask import PiiMasker, PlaceholderMap


@dataclass(frozen=True, slots=True)
class BattleAnswer:
    """Answer of one system in a battle, and its id in the inference log."""

    text: str
    system: str
    """The system that wrote it, as the judgment names it."""
    inference_id: str
    """Id of the answer in the inference log."""


@dataclass(frozen=True, slots=True)
class Battle:
    """Two answers to the last message of a conversation, on one person's screen, waiting for a vote."""

    id: str
    messages: tuple[Message, ...]
    """The conversation before the answers."""
    answers: tuple[BattleAnswer, BattleAnswer]
    left: int
    """Which answer stands on the left: 0 or 1."""
    since: datetime

    @property
    def texts(self) -> tuple[str, str]:
        """Text of the left and of the right answer."""
        return self.answers[self.left].text, self.answers[1 - self.left].text


@dataclass(frozen=True, slots=True)
class Vote:
    """A decided battle: the judgment to store, and the answer with which the conversation continues."""

    task: AnnotationTask
    annotation: AnnotationEvent
    first: BattleAnswer
    """The first of the two answers of ``task``."""
    second: BattleAnswer
    goes_on_with: BattleAnswer
    """The answer that the conversation continues with."""
    turn: str
    """Text of the next assistant turn: the answer's, or what the person wrote instead."""


def _draw_side() -> int:
    return secrets.randbelow(2)


@dataclass(slots=True)
class Conversation:
    """The arena chat of one person: past messages, and the open battle."""

    who: str
    turns: list[Message] = field(default_factory=list)
    """The turns so far, without the answers on the screen."""
    comparison: Battle | None = None
    coin: Callable[[], int] = _draw_side
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def build_messages(self, text: str) -> list[Message]:
        """Return the conversation with ``text`` as its next message; it is stored only by ``compare``."""
        return [*self.turns, Message("user", text.replace("\r\n", "\n").strip())]

    def compare(self, messages: Sequence[Message], answers: tuple[BattleAnswer, BattleAnswer]) -> Battle:
        """Open a battle of two answers to ``messages`` and return it; which one is on the left is drawn at random."""
        self.comparison = Battle(secrets.token_hex(8), tuple(messages), answers, self.coin(), self.clock())
        return self.comparison

    def decide(self, comparison: str, button: Button, tags: Sequence[str], edit: str | None) -> Vote | None:
        """Return the vote for the battle with the id ``comparison``; None when it is not open. Changes nothing: call ``go_on`` once the vote is stored."""
        now = self.comparison
        if now is None or now.id != comparison:
            return None
        first, second = now.answers
        task = AnnotationTask(
            id=f"{ARENA}-{now.id}",
            prompt=atomic_io.sha256_json(now.messages)[:16],
            source=Source(ARENA),
            messages=list(now.messages),
            answers=[first.text, second.text],
            systems=[first.system, second.system],
        )
        at, edited_text = self.clock(), (edit or "").replace("\r\n", "\n").strip()
        better = edited_text if edited_text and edited_text not in {first.text.strip(), second.text.strip()} else None
        choice = button_to_choice(button, now.left)
        annotation = AnnotationEvent(
            id=now.id,
            task=task.id,
            annotator=self.who,
            created_at=at.isoformat(timespec="seconds"),
            choice=choice,
            left=now.left,
            seconds=round((at - now.since).total_seconds(), 1),
            tags=list(tags),
            edit=better,
        )
        after = {"first": first, "second": second}.get(choice, now.answers[now.left])
        return Vote(task, annotation, first, second, after, better or after.text)

    def go_on(self, verdict: Vote) -> None:
        """Append the chosen answer to the conversation; called once the judgment is on the disk."""
        self.turns = [*verdict.task.messages, Message("assistant", verdict.turn)]
        self.comparison = None

    def restart(self) -> None:
        """Start a new conversation and drop an open battle."""
        self.turns, self.comparison = [], None


def mask_pii(
    task: AnnotationTask, annotation: AnnotationEvent, masker: PiiMasker
) -> tuple[AnnotationTask, AnnotationEvent]:
    """Return task and annotation with personal data replaced by placeholders, as curate does: judgments are kept and trained on."""
    memory = PlaceholderMap()
    texts = [*(turn.content for turn in task.messages), *task.answers, annotation.edit or ""]
    for text in texts:
        memory.reserve(text)
    clean = [masker.mask(text, memory).text for text in texts]
    messages = [replace(turn, content=text) for turn, text in zip(task.messages, clean, strict=False)]
    prompt = atomic_io.sha256_json(messages)[:16]
    hidden = replace(task, prompt=prompt, messages=messages, answers=clean[-3:-1])
    return hidden, replace(annotation, edit=clean[-1] or None)
