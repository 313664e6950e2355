"""The run ledger: one file a run, whole, also of a run that fails, and only of what the run stands for."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.manifest import Manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import ArtifactError, GateError, InfrastructureError
from tunectl.evaluation import results
from tunectl.evaluation.results import EvalVerdict, MetricDifference, Results, Score, System
from tunectl.pipeline import run_ledger
from tunectl.pipeline.background_build import BuildStop
from tunectl.pipeline.run_ledger import RunRecord, record_run

YES = {"passed": True, "verdict": "tuned_better", "reason": "Tuned is better.", "evidence": ["+1"], "aligned": None}
SCORES = {"base": Score(6.0, 4.0, 9.0, 40), "tuned": Score(27.0, 24.0, 30.0, 40)}


@pytest.fixture
def layout(tmp_path: Path) -> ProjectPaths:
    return ProjectPaths(tmp_path)


def build(layout: ProjectPaths, name: str, inputs: tuple[str, ...] = (), rank: int = 8, **files: str) -> None:
    """What a stage leaves: its settings, artifact and metrics."""
    config = {
        "stage": name,
        "settings": {name: {"rank": rank, "urls": ["https://me:secret@host/data"]}},
        "code": "c",
        "sources": {},
    }
    atomic_io.write_json(layout.config(name), config)
    for file, text in files.items():
        atomic_io.write_text(layout.artifact(name) / file.replace("__", "."), text)
    digests = {one: atomic_io.sha256_json(manifest.read(layout.artifact(one))) for one in inputs}
    manifest.write(layout.artifact(name), Manifest(name, atomic_io.sha256_json(config), digests))
    atomic_io.write_json(layout.metrics(name), {"seconds": 12.5})


def evaluation() -> Results:
    differences = [
        MetricDifference("tuned", "base", "bleu", 21.0, 17.0, 24.0, 0.0),
        MetricDifference("tuned", "base", "chrf", 17.0, 13.0, 20.0, 0.0),
    ]
    return Results(
        project="shop", seed=1, inputs=40, available=40, skipped={}, primary="bleu", min_difference=1, confidence=0.95,
        resamples=100, units=24, decoding={}, bleu_signature="s", differences=differences, slices=[], search=None,
        systems=[System(name, name.title(), {"bleu": score}) for name, score in SCORES.items()],
        references_seen=None, safety=None, judge=[], cases=[], warnings=[], verdict=EvalVerdict(True, "tuned_better", "Better."),
    )  # fmt: skip


def newest(layout: ProjectPaths) -> RunRecord:
    return run_ledger.read_run(layout, run_ledger.list_runs(layout)[0])


def build_all(layout: ProjectPaths) -> None:
    build(layout, "split", test__jsonl="{}\n")
    build(layout, "sft", ("split",))
    atomic_io.write_text(layout.plots("sft") / "history.csv", "step,loss\n1,3.0\n2,2.0\n")
    build(layout, "evaluate", ("sft", "split"))
    atomic_io.write_json(layout.artifact("evaluate") / "verdict.json", YES)
    layout.executed.parent.mkdir(parents=True, exist_ok=True)
    layout.executed.write_text("sft\nevaluate\n")


def test_a_run_leaves_settings_stages_verdicts_measures_and_curves(layout: ProjectPaths) -> None:
    build_all(layout)
    texts = ["sft.lora_rank=8", "evaluate.judge.base_url=http://me:se/cret@host/v1?token=secret"]
    override_file.save_overrides(layout, [Override.from_cli(text) for text in texts])
    atomic_io.write_json(layout.artifact("evaluate") / results.NAME, evaluation())
    with record_run(layout, "shop", targets=["evaluate"]) as end:
        end.release = "0123456789abcdef"
    record = newest(layout)
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{8}", record.id)
    assert (record.project, record.exit_code, record.targets, record.release) == (
        "shop",
        0,
        ["evaluate"],
        "0123456789abcdef",
    )
    assert record.overrides == ["sft.lora_rank=8", "evaluate.judge.base_url=http://***@host/v1?token=***"]
    assert [(one.name, one.executed, one.seconds) for one in record.stages] == [
        ("split", False, 12.5), ("sft", True, 12.5), ("evaluate", True, 12.5),
    ]  # fmt: skip
    assert record.settings["sft"] == {"sft": {"rank": 8, "urls": ["https://***@host/data"]}}
    assert record.verdicts["evaluate"].reason == "Tuned is better."
    assert record.curves == {"sft": {"loss": [(1, 3.0), (2, 2.0)]}}
    assert (record.primary, record.inputs, record.primary_scores) == ("bleu", 40, SCORES)
    assert [(one.system, one.measure, one.low) for one in record.differences] == [("tuned", "bleu", 17.0)]
    assert record.test_set == manifest.read(layout.artifact("split")).outputs["test.jsonl"]
    summaries, problems = run_ledger.read_summaries(layout, run_ledger.list_runs(layout))
    assert (summaries[0].id, summaries[0].primary_scores, problems) == (record.id, SCORES, [])


def test_what_is_left_of_an_earlier_run_is_not_in_it(layout: ProjectPaths) -> None:
    build_all(layout)
    build(layout, "split", rank=9, test__jsonl="{}\n")  # sft and evaluate were made from another split
    with record_run(layout, "shop"):
        pass
    record = newest(layout)
    assert [one.name for one in record.stages] == ["split"]
    assert (record.verdicts, record.curves, record.primary) == ({}, {}, None)
    build(layout, "sft", ("split",))
    config = layout.config("sft")
    config.write_text(config.read_text().replace("8", "16"))  # and this one from other settings
    with record_run(layout, "shop"):
        pass
    assert [one.name for one in newest(layout).stages] == ["split"]


class FastClock:
    """A clock that a test sets forward: names of runs begin with the second."""

    strftime, gmtime = staticmethod(time.strftime), staticmethod(time.gmtime)
    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


def test_a_run_that_fails_is_kept_with_its_reason(layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FastClock()
    monkeypatch.setattr(run_ledger, "time", clock)
    build(layout, "split")
    atomic_io.write_json(
        layout.failure, {"stage": "sft", "exit_code": 5, "message": "out of memory", "hint": "buy some"}
    )
    with record_run(layout, "shop") as end:
        end.exit_code = 5
    record = newest(layout)
    assert record.failure is not None
    assert (record.exit_code, record.failure.stage, record.failure.message) == (5, "sft", "out of memory")
    layout.failure.unlink()
    clock.ahead += 1.1
    with pytest.raises(InfrastructureError), record_run(layout, "shop"):
        raise InfrastructureError("dvc repro failed", hint="look above")
    record = newest(layout)
    assert record.failure is not None
    assert (record.exit_code, record.failure.stage, record.failure.message) == (5, None, "dvc repro failed")
    clock.ahead += 1.1
    with pytest.raises(GateError), record_run(layout, "shop"):
        raise GateError("do not tune")
    assert (newest(layout).exit_code, newest(layout).failure) == (3, None)
    clock.ahead += 1.1
    with pytest.raises(KeyboardInterrupt), record_run(layout, "shop"):
        raise KeyboardInterrupt
    assert newest(layout).exit_code == 130
    assert len(run_ledger.list_runs(layout)) == 4


def test_a_retrain_is_in_the_ledger_of_the_project_and_a_trial_in_its_own(layout: ProjectPaths) -> None:
    worktree = ProjectPaths(layout.retrain / "worktree" / "shop")
    build(worktree, "split")
    with record_run(worktree, "shop", unattended=True):
        pass
    assert run_ledger.list_runs(worktree) == []
    assert [one.name for one in newest(layout).stages] == ["split"]
    assert newest(layout).unattended
    trial = ProjectPaths(layout.sweeps / "one" / "worktree")
    build(trial, "split")
    with record_run(trial, "shop", unattended=True):
        pass
    assert (len(run_ledger.list_runs(trial)), len(run_ledger.list_runs(layout))) == (1, 1)


def test_a_ledger_that_cannot_be_written_stops_no_build(layout: ProjectPaths) -> None:
    layout.state_dir.mkdir()
    layout.runs.write_text("a file where the folder should be")
    with record_run(layout, "shop") as end:
        end.exit_code = 0
    assert run_ledger.list_runs(layout) == []


def test_records_that_cannot_be_read_are_named(layout: ProjectPaths) -> None:
    with record_run(layout, "shop"):
        pass
    (name,) = run_ledger.list_runs(layout)
    (layout.runs / "20200101T000000Z-00000000.json").write_text("{")
    newer = (layout.runs / f"{name}.json").read_text().replace('"version":1', '"version":2')
    (layout.runs / "20300101T000000Z-00000000.json").write_text(newer)
    summaries, problems = run_ledger.read_summaries(layout, run_ledger.list_runs(layout))
    assert [one.id for one in summaries] == [name]
    assert [re.sub(r".*/", "", one.split(".json")[0]) for one in problems] == [
        "20300101T000000Z-00000000", "20200101T000000Z-00000000",
    ]  # fmt: skip
    with pytest.raises(ArtifactError, match=r"no run called '\.\./secret'"):
        run_ledger.read_run(layout, "../secret")


def test_curves_are_thinned_and_end_where_they_end() -> None:
    points = [(step, float(step)) for step in range(1, 1002)]
    thinned = run_ledger._thin({"loss": points})["loss"]
    assert len(thinned) <= run_ledger.MAX_POINTS
    assert thinned[-1] == points[-1]
    assert run_ledger._thin({"loss": points[:5]})["loss"] == points[:5]


def test_a_run_that_was_stopped_from_the_console_says_by_whom_and_why(layout: ProjectPaths) -> None:
    atomic_io.write_json(layout.build_stop, BuildStop(os.getpid(), "ada", "wrong rank"))
    with pytest.raises(KeyboardInterrupt), record_run(layout, "shop"):
        raise KeyboardInterrupt
    failure = newest(layout).failure
    assert failure is not None
    assert failure.message == "ada stopped it: wrong rank"
    atomic_io.write_json(layout.build_stop, BuildStop(1, "ada", "another build"))
    with pytest.raises(KeyboardInterrupt), record_run(layout, "shop"):
        raise KeyboardInterrupt
    failure = newest(layout).failure
    assert failure is not None
    assert failure.message == "KeyboardInterrupt"
