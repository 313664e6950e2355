"""Curation with its records in files: the same bytes as in memory, nothing left behind, and room is asked for first."""

from __future__ import annotations

import resource
import tempfile
from pathlib import Path
from typing import Any

import pytest
from curation_corpus import curate_into, document, make_corpus
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts import atomic_io
from tunectl.artifacts.disk_list import DiskList, require_free_bytes
from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Source
from tunectl.core.errors import InfrastructureError
from tunectl.data.dedup import minhash
from tunectl.data.dedup.band_keys import BandKeys
from tunectl.pipeline.stages import curate

WORDS = ["peach", "Bakery", "straße", "12", "café", "東京", "o'clock"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(", ".join), max_size=14)


def example(number: int, asked: str, *answers: str) -> Example:
    place = Source("ads.csv", number)
    return Example(f"e{number}", place, [Message("user", asked)], [ReferenceAnswer(text, place) for text in answers])


def test_rows_are_read_back_by_number_in_runs_and_in_order(tmp_path: Path) -> None:
    rows = [document(number, "é" * number) if number % 3 else example(number, "q", "a") for number in range(3000)]
    on_disk: DiskList[Document | Example] = DiskList(tmp_path, Document, Example)
    assert [on_disk.append(row) for row in rows[:2000]] == list(range(2000))
    assert on_disk[1999] == rows[1999]
    on_disk.extend(rows[2000:])
    assert list(on_disk) == rows
    assert on_disk[-1] == rows[-1]
    assert on_disk[10:13] == rows[10:13]
    assert on_disk[3000:] == []
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(IndexError):
        on_disk[3000]


def test_a_full_disk_is_named_with_the_bytes_that_were_written(tmp_path: Path) -> None:
    rows: DiskList[Document] = DiskList(tmp_path, Document)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        with pytest.raises(InfrastructureError) as error:
            rows.extend(document(number, "a" * 1000) for number in range(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert error.value.message == f"{tmp_path}: File too large after 0.0 GB of scratch data"


def test_the_room_is_asked_for_before_the_work(tmp_path: Path) -> None:
    require_free_bytes(tmp_path, 1, "one byte")
    with pytest.raises(InfrastructureError, match=rf"{tmp_path}: it all needs 1000000000.0 GB on this disk, and \d+\."):
        require_free_bytes(tmp_path, 10**18, "it all")
    with pytest.raises(InfrastructureError, match=r"near-duplicate search in 10,000,000,000,000 records \(20 bands\)"):
        BandKeys(20, 10**13, tmp_path)


@given(TEXTS, st.sampled_from([0.5, 1.0]), st.sampled_from([1, 2**20]))
@settings(deadline=None, max_examples=60)
def test_clusters_from_files_are_those_from_memory(texts: list[str], threshold: float, part: int) -> None:
    plan = minhash.MinHashParams(threshold, "word", 2, bands=5, rows=2, threads=2)
    expected = minhash.label_clusters([texts], plan).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minhash, "BUCKET_PART", part)
        scratch = Path(tempfile.gettempdir())
        assert minhash.label_clusters([texts], plan, scratch).tolist() == expected
        assert (
            minhash.label_clusters([texts, texts], plan, scratch).tolist()
            == minhash.label_clusters([texts, texts], plan).tolist()
        )


@pytest.mark.parametrize("part", [7, 2**20])
def test_one_giant_bucket_is_one_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr(minhash, "BUCKET_PART", part)
    texts = [f"the very same template of many words for shop number {number} in town today" for number in range(200)]
    plan = minhash.MinHashParams(0.6, "word", 2, 20, 2)
    assert set(minhash.label_clusters([texts], plan, tmp_path).tolist()) == {0}
    assert minhash.label_clusters([["same words"] * 50], plan, tmp_path).tolist() == [0] * 50
    assert minhash.label_clusters([[]], plan, tmp_path).tolist() == []
    assert minhash.label_clusters([["", "?", "word"]], plan, tmp_path).tolist() == [0, 1, 2]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("near", [{}, {"action": "cluster"}, {"keep": "first", "side": "output"}], ids=str)
def test_the_stage_leaves_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, near: dict[str, Any]
) -> None:
    records = make_corpus(seed)
    in_memory = curate_into(tmp_path / "memory", records, near)
    monkeypatch.setattr(curate, "IN_MEMORY_BYTES", -1)
    assert curate_into(tmp_path / "disk", records, near) == in_memory
    reasons = set(atomic_io.read_json(tmp_path / "memory" / "curate" / "report.json")["rejected"])
    expected = {"exact_duplicate", "language", "document_too_short", "empty"}
    assert reasons >= (expected if near.get("action") else {*expected, "near_duplicate"})


def test_a_disk_without_room_stops_the_stage_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate, "IN_MEMORY_BYTES", -1)
    monkeypatch.setattr(curate, "DISK_FACTOR", 10**16)
    with pytest.raises(InfrastructureError, match=r"curate, of records of 0\.0 GB, needs \d+\.\d GB on this disk"):
        curate_into(tmp_path, [document(1, "one text of several words")], {})
