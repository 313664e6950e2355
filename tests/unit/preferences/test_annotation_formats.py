"""What people said in tunectl 0.1 is all there, with the line numbers that judgments name, and is written anew by the next page."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import version_0_1
from msgspec import to_builtins
from version_0_1 import expected, renamed

from tunectl.artifacts.record_format import NewerRecordError
from tunectl.artifacts.records import Comparison, RejectedRow
from tunectl.core.errors import DataError
from tunectl.preferences.annotation_store import (
    AnnotationEvent,
    has_annotations,
    list_files,
    load_annotations,
    open_store,
)

TOLD = expected("judgements")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(version_0_1.copy_project(tmp_path / "project"))
    return Path("judgements")


def comparison_of_today(was: dict[str, Any]) -> dict[str, Any]:
    today = {**{key: was[key] for key in was if key != "vote"}, "annotation": renamed(was["vote"], at="created_at")}
    votes = {entry["id"] for entry in TOLD["said"] if entry["question"] == f"arena-{entry['id']}"}
    return {**today, "kind": "arena"} if was["id"].removeprefix("j-") in votes else today


def read(folder: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    found = list(load_annotations(folder))
    rejects = [one for one in found if isinstance(one, RejectedRow)]
    return [to_builtins(one) for one in found if isinstance(one, Comparison)], [to_builtins(one) for one in rejects]


def test_what_was_said_is_read_as_it_is(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    judgments, rejects = read(folder)
    assert has_annotations(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    renamed_file = [
        {
            **one,
            "annotation": {
                **one["annotation"],
                "source": {**one["annotation"]["source"], "file": "judgements/said.jsonl"},
            },
        }
        for one in judgments
    ]
    assert renamed_file == [comparison_of_today(one) for one in TOLD["judgements"]]
    assert [(one["source"]["row"], one["reason"], one["detail"]) for one in rejects] == [
        (one["source"]["row"], one["reason"], one["detail"]) for one in TOLD["rejects"]
    ]
    assert Counter(one["annotation"]["annotator"] for one in judgments) == TOLD["by_annotator"]


def test_the_next_page_writes_it_anew_and_goes_on(folder: Path) -> None:
    before = read(folder)
    said = [renamed(one, what="kind", question="task", at="created_at") for one in TOLD["said"]]
    with open_store(folder) as store:
        assert {who: store.count_turns(who) for who in TOLD["turns"]} == TOLD["turns"]
        assert [to_builtins(one) for one in store.tasks.values()] == TOLD["questions"]
        assert [to_builtins(one) for one in store.list_annotations()] == [{**one, "kind": "annotation"} for one in said]
        task = next(iter(store.tasks))
        store.write(AnnotationEvent("new", task, "dora", "2026-11-28T00:00:00+00:00", "first", 0, 1.0))
    assert {path.name for path in folder.iterdir()} == {"tasks.jsonl", "annotations.jsonl", ".gitignore", ".lock"}
    judgments, rejects = read(folder)
    assert (judgments[:-1], rejects) == before
    lines = [json.loads(line) for line in (folder / "annotations.jsonl").read_bytes().splitlines()]
    assert {line["version"] for line in lines} == {2}
    assert judgments[-1]["annotation"]["source"] == {"file": "judgements/annotations.jsonl", "row": len(lines)}


def test_a_rewrite_that_is_cut_off_loses_and_doubles_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, unlink = read(folder), Path.unlink

    def cut(path: Path, missing_ok: bool = False) -> None:
        if path.name == "said.jsonl":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", cut)
        with pytest.raises(KeyboardInterrupt), open_store(folder):
            pass
    assert read(folder) == before
    with open_store(folder):
        pass
    assert read(folder) == before
    assert not (folder / "said.jsonl").exists()


def test_a_line_that_0_1_did_not_finish_is_none(folder: Path) -> None:
    before = read(folder)
    with (folder / "said.jsonl").open("ab") as stream:
        stream.write(b'{"what": "said", "id":')
    assert read(folder) == before
    with open_store(folder):
        pass
    assert read(folder) == before


def test_the_folder_of_0_1_is_named_where_the_one_of_today_is_wanted(folder: Path) -> None:
    for wanted in (
        lambda: list(load_annotations(Path("judgments"))),
        lambda: open_store(Path("judgments")).__enter__(),
    ):
        with pytest.raises(
            DataError, match=r"judgments does not exist, and judgements is a store of tunectl 0\.1"
        ) as caught:
            wanted()
        assert caught.value.hint == "rename it: git mv judgements judgments; or set annotate.store to judgements"
    folder.rename("judgments")
    assert len(read(Path("judgments"))[0]) == len(TOLD["judgements"])


def test_a_stage_that_reads_the_store_digests_the_files_that_are_there(folder: Path) -> None:
    assert [path.name for path in list_files(folder)] == [
        "tasks.jsonl",
        "annotations.jsonl",
        "questions.jsonl",
        "said.jsonl",
    ]
    with open_store(folder):
        pass
    assert [path.name for path in list_files(folder)] == ["tasks.jsonl", "annotations.jsonl"]


@pytest.mark.parametrize("name", ["questions.jsonl", "said.jsonl"])
def test_a_line_of_a_later_tunectl_is_refused_by_name(folder: Path, name: str) -> None:
    lines = (folder / name).read_text().splitlines()
    lines[1] = json.dumps({**json.loads(lines[1]), "version": 99})
    (folder / name).write_text("\n".join(lines) + "\n")
    with pytest.raises(NewerRecordError, match=rf"judgements/{name}:2 is a .* of version 99"):
        list(load_annotations(folder))
    with pytest.raises(NewerRecordError), open_store(folder):
        pass
    assert (folder / name).is_file()
