"""Votes of the arena: they are stored without reading what is there, and nobody's key alone moves what is learned from them."""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import AnnotationMetadata, Comparison, Message, Source
from tunectl.config.schema.feedback import FeedbackConfig, FeedbackDisabled, FeedbackFromLog
from tunectl.core.errors import DataError, InfrastructureError
from tunectl.preferences import annotation_store
from tunectl.preferences.annotation_store import AnnotationEvent, AnnotationTask
from tunectl.preferences.arena_limits import limit_arena_votes

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
DEFAULT = yaml.safe_load((Path(__file__).parents[3] / "conf/feedback/default.yaml").read_text())


def declare(**changes: Any) -> FeedbackFromLog | FeedbackDisabled:
    return FeedbackConfig({**DEFAULT, **changes}).root


def vote(folder: Path, number: int, who: str, at: datetime = NOON, question: str | None = None) -> None:
    asked = [Message("user", question or f"Q{number}")]
    answers, systems = [f"good {number}", f"bad {number}"], ["champion a", "challenger b"]
    prompt = atomic_io.sha256_json(asked)[:16]
    task = AnnotationTask(f"arena-{number:016}", prompt, Source("arena"), asked, answers, systems)
    said = AnnotationEvent(f"{number:016}", task.id, who, at.isoformat(timespec="seconds"), "second", 0, 3.5)
    annotation_store.append_vote(folder, task, said)


def judge(folder: Path, number: int, task: str, at: datetime, who: str = "Ann") -> None:
    """A judgment on the page of ``tunectl annotate``, whose people the operator chose."""
    with annotation_store.open_store(folder) as store:
        store.write(AnnotationEvent(f"s{number}", task, who, at.isoformat(timespec="seconds"), "first", 0, 3.5))


def count(folder: Path, **changes: Any) -> tuple[Counter[str | None], Counter[str]]:
    """Votes that are learned from by person, and others by reason."""
    judgments = [row for row in annotation_store.load_annotations(folder) if isinstance(row, Comparison)]
    kept, over = limit_arena_votes(judgments, declare(**changes))
    assert len(kept) + len(over) == len(judgments)
    return Counter(item.annotation.annotator for item in kept), Counter(row.reason for row in over)


def test_one_key_that_votes_all_day_gets_its_share(tmp_path: Path) -> None:
    people = ["eve"] * 100 + ["ada"] * 3 + ["bo"] * 3 + ["cy"] * 3
    for number, who in enumerate(people):
        vote(tmp_path, number, who, NOON + timedelta(minutes=number))
    judge(tmp_path, 1, "arena-0000000000000007", NOON + timedelta(days=3))
    kept, over = count(tmp_path)
    assert kept == {"eve": 4, "ada": 3, "bo": 3, "cy": 3, "Ann": 1}  # a third of 13
    assert over == {"user_cap": 80, "annotator_share": 16}


def test_a_vote_waits_until_others_had_time_to_object(tmp_path: Path) -> None:
    for number, who in enumerate(("ada", "bo", "cy")):
        vote(tmp_path, number, who, NOON + timedelta(hours=number))
    assert count(tmp_path) == ({}, {"quarantined": 3})
    judge(tmp_path, 1, "arena-0000000000000000", NOON + timedelta(hours=25))
    assert count(tmp_path, max_annotator_share=1) == ({"ada": 1, "bo": 1, "Ann": 1}, {"quarantined": 1})
    assert count(tmp_path) == ({"Ann": 1}, {"quarantined": 1, "annotator_share": 2})


def test_the_newest_votes_about_one_prompt_count(tmp_path: Path) -> None:
    for number in range(6):
        vote(tmp_path, number, f"person {number}", NOON + timedelta(minutes=number), "The same?")
    vote(tmp_path, 9, "late", NOON + timedelta(days=2))
    kept, over = count(tmp_path)
    assert (set(kept), over) == ({"person 3", "person 4", "person 5"}, {"prompt_cap": 3, "quarantined": 1})


def test_without_limits_no_vote_of_the_arena_counts_and_all_others_do(tmp_path: Path) -> None:
    vote(tmp_path, 1, "eve")
    judge(tmp_path, 1, "arena-0000000000000001", NOON)
    judgments = [row for row in annotation_store.load_annotations(tmp_path) if isinstance(row, Comparison)]
    kept, over = limit_arena_votes(judgments, FeedbackConfig({"method": "none"}).root)
    assert ([item.kind for item in kept], [row.reason for row in over]) == (["collected"], ["feedback_off"])


def test_a_time_that_is_none_is_named(tmp_path: Path) -> None:
    vote(tmp_path, 1, "eve")
    path = tmp_path / annotation_store.ANNOTATIONS
    path.write_text(path.read_text().replace("2026-11-25T12:00:00+00:00", "today"))
    with pytest.raises(DataError, match="jsonl:1: created_at = 'today' must be a time"):
        count(tmp_path)


@given(st.lists(st.integers(1, 40), max_size=8), st.sampled_from([0.2, 0.34, 0.5, 1.0]))
def test_nobody_has_more_than_the_share_and_a_flood_takes_nothing_from_others(counts: list[int], share: float) -> None:
    def kept_of(sizes: list[int]) -> Counter[str | None]:
        rows = [
            Comparison(
                f"j-{who}-{n}", f"p-{who}-{n}", [], [], "first",
                annotation=AnnotationMetadata(Source("f"), str(who), NOON.isoformat()), kind="arena",
            )
            for who, size in enumerate(sizes)
            for n in range(size)
        ]  # fmt: skip
        limits = declare(quarantine_hours=0, max_annotator_share=share, max_per_user=40)
        return Counter(item.annotation.annotator for item in limit_arena_votes(rows, limits)[0])

    kept = kept_of(counts)
    assert all(number <= share * kept.total() for number in kept.values())
    after = kept_of([*counts, 40])
    assert all(after[who] >= number for who, number in kept.items())


def test_a_vote_reads_and_rewrites_none_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vote(tmp_path, 1, "ada")
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in tmp_path.glob("*.jsonl")}
    monkeypatch.setattr(annotation_store, "_rows", lambda *_: pytest.fail("the store was read"))
    vote(tmp_path, 2, "bo")
    for name, (inode, content) in before.items():
        path = tmp_path / name
        assert path.stat().st_ino == inode
        assert path.read_bytes().startswith(content)
        assert path.read_bytes().count(b"\n") == 2
        assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", [annotation_store.TASKS, annotation_store.ANNOTATIONS])
def test_a_line_that_a_kill_cut_off_is_dropped_by_the_next_vote(tmp_path: Path, name: str) -> None:
    vote(tmp_path, 1, "ada")
    with (tmp_path / name).open("ab") as stream:
        stream.write(b'{"version": 2, "id": "arena-')
    vote(tmp_path, 2, "bo")
    with annotation_store.open_store(tmp_path) as store:
        assert [item.annotator for item in store.list_annotations()] == ["ada", "bo"]
        assert len(store.tasks) == 2


def test_a_full_disk_stores_no_vote_and_the_next_press_stores_it_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vote(tmp_path, 1, "ada")
    write, lines = os.write, iter((True, False))

    def fail_at_second(descriptor: int, data: bytes) -> int:
        if next(lines):
            return write(descriptor, data)
        write(descriptor, data[:9])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fail_at_second)
        with pytest.raises(InfrastructureError, match="No space left"):
            vote(tmp_path, 2, "bo")
    assert len([*annotation_store.load_annotations(tmp_path)]) == 1
    vote(tmp_path, 2, "bo")
    assert len([*annotation_store.load_annotations(tmp_path)]) == annotation_store.count_tasks(tmp_path) == 2
