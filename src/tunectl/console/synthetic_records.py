"""Synthetic records of the project behind ``tunectl demo``, made when it starts: API keys, and people's judgments of its recorded questions.

The recording has neither: its keys are left out, and its judgments are those of one simulated editor. Every name says that it is
synthetic. The secrets of the keys are thrown away, so nobody can use one. The same recording gives the same judgments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import islice
from random import Random
from typing import Final

from tunectl.access import api_keys
from tunectl.access.api_keys import ApiKey
from tunectl.access.scopes import KeyScope
from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Comparison
from tunectl.config.loading import checks
from tunectl.preferences import annotation_store
from tunectl.preferences.annotation_store import AnnotationChoice, AnnotationEvent, AnnotationTask

QUESTIONS: Final = 40
REPEATS: Final = 8
PEOPLE: Final[dict[str, tuple[int, float]]] = {
    "Ana (synthetic)": (36, 0.9),
    "Ben (synthetic)": (28, 0.75),
    "Cleo (synthetic)": (20, 0.6),
}
"""Name to number of judged questions, and the chance of the simulated editor's choice."""
KEYS: Final[tuple[tuple[str, list[KeyScope], int], ...]] = (
    ("synthetic-app", ["chat", "feedback"], 40),
    ("synthetic-dashboard", ["look", "scrape"], 33),
    ("synthetic-annotators", ["annotate"], 12),
    ("synthetic-old-app", ["chat"], 200),
)
"""Name, scopes, and age in days; the last one is disabled."""


def add_records(layout: ProjectPaths, now: datetime) -> None:
    """Write the keys file and the store of judgments of a recorded project; ``now`` is the end of the recording."""
    settings = checks.load_project_config(layout).root
    api_keys.write(layout.root / settings.serve.keys_file, list(_list_keys(now)))
    path = layout.artifact("preferences") / "judgments.jsonl"
    if not path.is_file():
        return
    tasks = {judgment.prompt: judgment for judgment in atomic_io.read_rows(path, Comparison)}
    judgments = list(islice(tasks.values(), QUESTIONS))
    store = layout.root / settings.annotate.store
    annotation_store.TASK.write_lines(store / annotation_store.TASKS, map(_build_task, judgments))
    annotation_store.EVENT.write_lines(store / annotation_store.ANNOTATIONS, list(_judge(judgments, now)))


def _list_keys(now: datetime) -> Iterator[ApiKey]:
    for name, scopes, days in KEYS:
        at = now - timedelta(days=days)
        expires = at + timedelta(days=90) if name == "synthetic-annotators" else None
        yield api_keys.create_key(name, scopes, 60, at, expires_at=expires, enabled=name != "synthetic-old-app")[1]


def _build_task(judgment: Comparison) -> AnnotationTask:
    answers = [answer[-1].content for answer in judgment.answers]
    return AnnotationTask(
        judgment.id,
        judgment.prompt,
        judgment.annotation.source,
        judgment.messages,
        answers,
        judgment.systems,
        fields=judgment.fields,
    )


def _judge(judgments: Sequence[Comparison], now: datetime) -> Iterator[AnnotationEvent]:
    """Yield the choices of each person in turn: one question is skipped, and the first ones are asked again."""
    random = Random(0)  # noqa: S311 - no secret: the same people in every demo
    for name, (count, agreement) in PEOPLE.items():
        questions = random.sample(judgments, min(count, len(judgments)))
        at = now - timedelta(hours=6)
        choices: dict[str, AnnotationChoice] = {}
        for number, judgment in enumerate([*questions, *questions[:REPEATS]]):
            seconds = round(random.uniform(6, 40), 1)
            at += timedelta(seconds=seconds)
            before = choices.get(judgment.id, judgment.choice)  # a repeated question is compared with the own choice
            first = (before == "first") == (random.random() < agreement)
            choices[judgment.id] = "skip" if number == len(questions) - 1 else "first" if first else "second"
            yield AnnotationEvent(
                f"{name.split()[0].lower()}-{number}",
                judgment.id,
                name,
                at.isoformat(timespec="seconds"),
                choices[judgment.id],
                random.randrange(2),
                seconds,
                repeat=number >= len(questions),
            )
