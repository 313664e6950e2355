"""Records of jobs: versioned, found by the beginning of their name."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tunectl.artifacts.record_format import NewerRecordError
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.jobs import job_records
from tunectl.jobs.job_records import JobRecord


def record(name: str, at: str = "2026-11-28T05:00:00+00:00") -> JobRecord:
    return JobRecord(
        id=name,
        to="slurm",
        stages=["sft"],
        commit="c" * 40,
        submitted_at=at,
        scheduler_id="7",
        remote="store",
        storage="/shared/x",
        location="",
    )


def test_jobs_are_listed_with_the_newest_first(tmp_path: Path) -> None:
    assert job_records.list_jobs(tmp_path) == []
    old, new = record("sft-1"), record("sft-2", "2026-11-28T06:00:00+00:00")
    for one in (new, old):
        job_records.save(tmp_path, one)
    assert job_records.list_jobs(tmp_path) == [new, old]
    assert json.loads((tmp_path / "sft-1" / "job.json").read_text())["version"] == 1


def test_a_job_is_found_by_the_beginning_of_its_id(tmp_path: Path) -> None:
    for name in ("sft-1a", "sft-1b", "sft-1", "align-1"):
        job_records.save(tmp_path, record(name))
    assert job_records.find_job(tmp_path, "al").id == "align-1"
    assert job_records.find_job(tmp_path, "sft-1").id == "sft-1"
    with pytest.raises(UsageError, match="sft is the beginning of sft-1"):
        job_records.find_job(tmp_path, "sft")
    with pytest.raises(UsageError, match="cpt is not a job of this project"):
        job_records.find_job(tmp_path, "cpt")


def test_an_empty_id_is_not_the_beginning_of_the_only_job(tmp_path: Path) -> None:
    job_records.save(tmp_path, record("sft-1"))
    with pytest.raises(UsageError, match="an empty id is not a job of this project"):
        job_records.find_job(tmp_path, "")


def test_a_record_that_is_damaged_or_newer_is_named(tmp_path: Path) -> None:
    job_records.save(tmp_path, record("sft-1"))
    path = tmp_path / "sft-1" / "job.json"
    newer = msgspec.json.decode(path.read_bytes()) | {"version": 9}
    path.write_bytes(msgspec.json.encode(newer))
    with pytest.raises(NewerRecordError, match="job record of version 9"):
        job_records.list_jobs(tmp_path)
    path.write_text("{")
    with pytest.raises(ArtifactError, match=r"sft-1/job\.json is not the expected JSON"):
        job_records.list_jobs(tmp_path)


AT = datetime(2026, 11, 28, 7, tzinfo=UTC)


def test_what_was_last_seen_of_a_job_is_recorded_beside_it(tmp_path: Path) -> None:
    job_records.save(tmp_path, record("sft-1"))
    assert job_records.list_ids(tmp_path) == ["sft-1"]
    first = job_records.read_progress(tmp_path, "sft-1")
    assert (first.state, first.seen_at, first.fetched_at) == ("unknown", None, None)
    job_records.record_state(tmp_path, "sft-1", "pending", "Priority", AT)
    seen = job_records.read_progress(tmp_path, "sft-1")
    assert (seen.state, seen.reason, seen.seen_at) == ("pending", "Priority", "2026-11-28T07:00:00+00:00")
    job_records.record_fetch(tmp_path, "sft-1", "run-1", AT)
    after = job_records.read_progress(tmp_path, "sft-1")
    assert (after.state, after.run, after.fetched_at) == ("pending", "run-1", "2026-11-28T07:00:00+00:00")
    assert job_records.list_jobs(tmp_path) == [record("sft-1")]


@pytest.mark.parametrize("end", ["finished", "failed", "canceled"])
def test_an_end_that_was_seen_stays_when_the_scheduler_forgets_the_job(tmp_path: Path, end: str) -> None:
    job_records.save(tmp_path, record("sft-1"))
    job_records.record_state(tmp_path, "sft-1", end, "", AT)
    assert job_records.record_state(tmp_path, "sft-1", "lost", "", AT).state == end
    assert job_records.record_state(tmp_path, "sft-1", "running", "", AT).state == "running", "it was started again"


def test_a_canceled_job_that_its_scheduler_deleted_is_canceled_and_another_is_lost(tmp_path: Path) -> None:
    for name in ("sft-1", "sft-2"):
        job_records.save(tmp_path, record(name))
        job_records.record_state(tmp_path, name, "running", "", AT)
    job_records.record_cancel(tmp_path, "sft-1", AT)
    assert job_records.record_state(tmp_path, "sft-1", "lost", "", AT).state == "canceled"
    assert job_records.record_state(tmp_path, "sft-2", "lost", "", AT).state == "lost"
