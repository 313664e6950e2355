"""Rows are followed through the stages, by id and by source, without reading lines that cannot hold them."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

import pytest

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.manifest import Manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, RejectedRow, Source
from tunectl.core.errors import DataError
from tunectl.pipeline import lineage_trace
from tunectl.pipeline.lineage_trace import RowStep
from tunectl.registry.release_manifest import BuildFacts, Lineage
from tunectl.registry.release_store import ReleaseRegistry


def write_example(name: str, file: str, row: int) -> Example:
    source = Source(file, row)
    return Example(name, source, [Message("user", "An ad?")], [ReferenceAnswer("Come in!", source)])


@pytest.fixture
def layout(tmp_path: Path) -> ProjectPaths:
    paths = ProjectPaths(tmp_path)
    rows = [write_example("e-1", "data/ads.jsonl", 1), write_example("e-2", "data/ads.jsonl", 12)]
    atomic_io.write_rows(paths.artifact("ingest") / "examples.jsonl", rows)
    reject = RejectedRow(Source("data/ads.jsonl", 2), "exact_duplicate", "twin e-1")
    atomic_io.write_rows(paths.artifact("curate") / "rejects.jsonl", [reject])
    atomic_io.write_rows(paths.artifact("split") / "train.jsonl", rows[:1])
    atomic_io.write_rows(paths.artifact("split") / "test.jsonl", rows[1:])
    manifest.write(paths.artifact("split"), Manifest("split", "c"))
    return paths


def test_a_row_is_followed_by_its_id(layout: ProjectPaths) -> None:
    assert list(lineage_trace.trace_row(layout, "e-1")) == [
        RowStep("ingest", "examples.jsonl", "kept", "e-1", "data/ads.jsonl:1"),
        RowStep("split", "train.jsonl", "kept", "e-1", "data/ads.jsonl:1"),
    ]


@pytest.mark.parametrize("word", ["data/ads.jsonl:2", "data/ads.jsonl:12"])
def test_a_row_number_is_not_taken_for_the_beginning_of_another(layout: ProjectPaths, word: str) -> None:
    assert {step.source for step in lineage_trace.trace_row(layout, word)} == {word}


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["", "\udcff", "a\nb", ":"])
def test_a_name_that_no_row_has_finds_none_and_ends(layout: ProjectPaths, name: str) -> None:
    assert list(lineage_trace.trace_row(layout, name)) == []


def test_a_reject_says_its_reason_and_what_offended(layout: ProjectPaths) -> None:
    (step,) = lineage_trace.trace_row(layout, "data/ads.jsonl:2")
    assert step == RowStep("curate", "rejects.jsonl", "exact_duplicate", "", "data/ads.jsonl:2", "twin e-1")


@pytest.mark.parametrize("name", ["./data/ads.jsonl:2", "ads.jsonl:2"])
def test_a_row_is_found_by_the_path_that_a_shell_completes_and_by_the_end_of_a_path(
    layout: ProjectPaths, name: str
) -> None:
    assert {step.source for step in lineage_trace.trace_row(layout, name)} == {"data/ads.jsonl:2"}


def test_the_end_of_a_path_names_all_rows_of_a_file(layout: ProjectPaths) -> None:
    assert len(list(lineage_trace.trace_row(layout, "ads.jsonl"))) == 5


def test_a_damaged_line_is_named_with_its_file_and_number(layout: ProjectPaths) -> None:
    path = layout.artifact("split") / "train.jsonl"
    path.write_text('{"id": "e-1", \n')
    with pytest.raises(DataError) as error:
        list(lineage_trace.trace_row(layout, "e-1"))
    assert str(path) + ":1" in error.value.message


def test_only_releases_of_the_split_at_hand_learned_a_row(layout: ProjectPaths, tmp_path: Path) -> None:
    store = ReleaseRegistry(layout.releases)
    digest = atomic_io.sha256_json(manifest.read(layout.artifact("split")))
    names = []
    for word in (digest, "0" * 64):
        folder = tmp_path / word[:4]
        folder.mkdir()
        (folder / "weights").write_text(word)
        facts = BuildFacts("shop", "transformers", "adapter", lineage=Lineage("base", "r", {"split": word}))
        names.append(store.add(folder, facts).id)
    learned, tested = (list(lineage_trace.trace_row(layout, name)) for name in ("e-1", "e-2"))
    assert lineage_trace.list_learning_releases(store, layout, learned) == names[:1]
    assert lineage_trace.list_learning_releases(store, layout, tested) == []


def test_raw_files_and_rows_are_counted_by_part(layout: ProjectPaths) -> None:
    assert lineage_trace.count_rows_by_file(layout) == {"data/ads.jsonl": {"train": 1, "test": 1}}
    assert lineage_trace.list_raw_rows(layout) == ["data/ads.jsonl:1"]


@pytest.mark.parametrize("block", [1, 3, 1 << 20])
@pytest.mark.parametrize("text", [b"", b"ab\n", b"ab", b"a\nb\nab\n\nxab b", b"b\n" * 5 + b"a b", b"\n\na"])
def test_lines_are_found_as_reading_each_would(
    tmp_path: Path, text: bytes, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lineage_trace, "BLOCK", block)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(text)
    lines = text.splitlines(keepends=True)
    offsets = accumulate(map(len, lines), initial=0)
    wanted = [
        (offset, line.rstrip(b"\n"))
        for offset, line in zip(offsets, lines, strict=False)
        if b"a" in line or b"b b" in line
    ]
    assert list(lineage_trace.find_lines(path, [b"b b", b"a"])) == wanted
    assert list(lineage_trace.find_lines(tmp_path / "absent", [b"a"])) == []
    assert list(lineage_trace.find_lines(path, [b""])) == []
