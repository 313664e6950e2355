"""Records of jobs: versioned, found by the beginning of their name."""

from __future__ import annotations

import json
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
