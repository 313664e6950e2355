"""Sweeps in Optuna on SQLite: who has which trial, seeds, pruning of another process, and what goes wrong."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
import sweep_fixtures as fixtures

from tunectl.backends.reports import sweep as sweep_page
from tunectl.backends.sweeps import optuna_study
from tunectl.core.errors import InfrastructureError, TunectlError, UsageError
from tunectl.pipeline import sweep_worker
from tunectl.sweeps import sweep_report
from tunectl.sweeps.trial_records import SweepSummary, TrialOutcome

pytest.importorskip("optuna")


def run(study: optuna_study.SweepStudy, trials: Any | None = None) -> SweepSummary:
    sweep_worker.run_worker(study, trials or fixtures.FormulaTrials(), threading.Event(), lambda line: None)
    return study.summarize()


def test_the_first_trial_has_the_settings_as_they_are(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=3)
    summary = run(study)
    first = summary.trials[0]
    assert first.start
    assert first.overrides == []
    assert first.settings == fixtures.START
    assert first.values == [pytest.approx(4.1)]
    assert [trial.state for trial in summary.trials] == ["complete"] * 3
    assert all(len(trial.overrides) == 2 for trial in summary.trials[1:])


def test_one_worker_and_the_same_seed_give_the_same_trials_also_where_it_starts_anew(tmp_path: Path) -> None:
    whole = run(fixtures.create(tmp_path / "whole", n_trials=14))
    for part in (3, 11, 14):  # each time by a new process's worth of state
        study = fixtures.create(tmp_path / "parts", n_trials=14)
        study.set_limits(study.section.model_copy(update={"n_trials": part}), None)
        parts = run(study)
    assert [trial.overrides for trial in parts.trials] == [trial.overrides for trial in whole.trials]
    assert len({tuple(trial.overrides) for trial in whole.trials}) == 14


def test_a_trial_whose_worker_died_is_taken_over_under_the_same_number(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, start=None, n_trials=2, max_attempts=3)
    lost = study.claim("first")
    assert lost is not None
    assert study.claim("second").number == 1  # type: ignore[union-attr]
    assert study.claim("third") is None  # both still give signs of life
    time.sleep(5)
    taken = study.claim("third")
    assert taken is not None
    assert (taken.number, taken.overrides, taken.attempt) == (lost.number, lost.overrides, 2)
    outcome = TrialOutcome(state="complete", values=[1.0])
    assert not study.finish(lost, "first", outcome)  # the worker was asleep, not dead
    assert study.finish(taken, "third", outcome)
    assert not study.finish(taken, "third", outcome)
    assert study.summarize().trials[0].attempts == 2


def test_a_trial_that_was_given_back_is_taken_at_once_and_counts_no_attempt(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=1)
    claim = study.claim("first")
    assert claim is not None
    study.release(claim, "first")
    again = study.claim("second")
    assert again is not None
    assert (again.number, again.attempt) == (claim.number, 1)


def test_a_trial_whose_workers_die_again_and_again_has_failed(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=1, max_attempts=1)
    assert study.claim("first") is not None
    time.sleep(5)
    assert study.claim("second") is None
    trial = study.summarize().trials[0]
    assert (trial.state, trial.reason) == ("failed", "its worker died 1 times")
    assert study.is_finished()


def test_asha_stops_a_stage_in_another_process(tmp_path: Path) -> None:
    pruner = {"method": "asha", "stage": "sft", "min_resource": 1, "reduction_factor": 2}
    summary = run(fixtures.create(tmp_path, n_trials=6, sampler="random", pruner=pruner), fixtures.ChildTrials())
    states = [trial.state for trial in summary.trials]
    assert states.count("pruned") >= 1
    assert states.count("complete") >= 1
    for trial in summary.trials:
        assert trial.steps == 8 if trial.state == "complete" else 1 <= trial.steps < 8
        assert trial.values is None or trial.state == "complete"
    stopped = next(trial for trial in summary.trials if trial.state == "pruned")
    assert stopped.reason.startswith(f"sft stopped at step {stopped.steps}: its validation loss of ")
    best = summary.find(summary.best[0])
    assert best is not None
    assert best.values == [min(trial.values[0] for trial in summary.trials if trial.values)]


def test_a_grid_is_all_of_it_and_no_more(tmp_path: Path) -> None:
    space = {"sft.learning_rate": [1.0, 2.0], "sft.lora_rank": [4, 8]}
    start = {"sft.learning_rate": 2.0, "sft.lora_rank": 8}
    summary = run(fixtures.create(tmp_path, start=start, n_trials=100, sampler="grid", space=space))
    assert len(summary.trials) == 4
    assert {tuple(sorted(trial.settings.items())) for trial in summary.trials} == {
        (("sft.learning_rate", rate), ("sft.lora_rank", rank)) for rate in (1.0, 2.0) for rank in (4, 8)
    }


class TwoNumbers(fixtures.FormulaTrials):
    """Loss and cost: the lower the learning rate, the longer it takes."""

    def run(self, claim: Any, note: Any, stop: threading.Event) -> TrialOutcome:
        rate = fixtures.loss_of(claim)
        return TrialOutcome(state="complete", values=[rate, 1.0 / rate])


@pytest.mark.parametrize("sampler", ["tpe", "nsgaii"])
def test_several_objectives_give_a_front(tmp_path: Path, sampler: str) -> None:
    goals = [{"metric": f"sft.{name}", "direction": "minimize"} for name in ("validation_loss", "seconds")]
    study = fixtures.create(tmp_path, n_trials=6, objective=goals, sampler=sampler)
    summary = run(study, TwoNumbers())
    values = {trial.number: trial.values for trial in summary.trials}
    for number in summary.best:
        own = values[number]
        assert own is not None
        assert not [1 for other in values.values() if other and other[0] < own[0] and other[1] < own[1]]
    assert len(summary.best) > 1
    assert any(line.startswith("front: trials") for line in sweep_report.summary_lines(summary, study.section))
    assert "Front" in sweep_page.page(summary, study.section)


def test_the_table_the_lines_and_the_page_say_what_is_best_and_why(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=12)
    summary = run(study)
    columns, rows = sweep_report.table(summary, study.section)
    assert columns[:3] == ["trial", "state", "sft.validation_loss"]
    assert rows[0][0] == f"{summary.best[0]} (best)"
    lines = sweep_report.summary_lines(summary, study.section)
    assert lines[0] == "demo: 12 of 12 trials: 12 complete"
    assert lines[1] == "reused: 60 of 84 stages (71 %) came from DVC's cache"
    assert lines[2].startswith(f"best: trial {summary.best[0]}, sft.validation_loss ")
    assert lines[2].endswith("with the settings as they are; take it over: tunectl sweep take demo")
    assert set(summary.importance) == {"sft.learning_rate", "sft.lora_rank"}
    assert summary.importance["sft.learning_rate"] > summary.importance["sft.lora_rank"]
    page = sweep_page.page(summary, study.section)
    assert page.count("<svg") == 4


def test_where_no_trial_is_better_the_start_is_best(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=3, start={"sft.learning_rate": 5.0, "sft.lora_rank": 8})

    class Worse(fixtures.FormulaTrials):
        def run(self, claim: Any, note: Any, stop: threading.Event) -> TrialOutcome:
            return TrialOutcome(state="complete", values=[0.0 if claim.start else 1.0])

    summary = run(study, Worse())
    assert "the settings as they are; no trial is better" in sweep_report.summary_lines(summary, study.section)[-1]


class Failing(fixtures.FormulaTrials):
    """Every trial but the first fails."""

    def run(self, claim: Any, note: Any, stop: threading.Event) -> TrialOutcome:
        if claim.start:
            return TrialOutcome(state="complete", values=[1.0])
        return TrialOutcome(state="failed", reason="stage sft failed: out of memory")


def test_three_failed_trials_in_a_row_stop_a_worker(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path)
    with pytest.raises(TunectlError) as caught:
        run(study, Failing())
    assert (
        caught.value.message == "the last of 3 trials that failed in a row ended with: stage sft failed: out of memory"
    )
    assert study.summarize().count("failed") == 3


class NoStart(fixtures.FormulaTrials):
    """The trial of the current settings fails."""

    def run(self, claim: Any, note: Any, stop: threading.Event) -> TrialOutcome:
        assert claim.start
        return TrialOutcome(state="failed", reason="stage sft failed: out of memory")


@pytest.mark.parametrize("sampler", ["tpe", "grid"])
def test_a_start_that_failed_runs_again_when_the_sweep_is_resumed(tmp_path: Path, sampler: str) -> None:
    space = {"sft.learning_rate": [1.0, 5.0], "sft.lora_rank": [8]}
    changes = {"n_trials": 2, "space": space, "sampler": sampler}
    with pytest.raises(TunectlError, match="the trial of the current settings ended with") as caught:
        run(fixtures.create(tmp_path, **changes), NoStart())
    assert "run the same command again to resume" in caught.value.hint
    assert caught.value.hint.endswith("add sweep.name=demo_2")
    fixtures.create(tmp_path, start={"sft.learning_rate": 1.0, "sft.lora_rank": 8}, **changes)
    study = fixtures.create(tmp_path, **changes)  # it waits once, whoever resumes the sweep
    summary = run(study)
    starts = [trial for trial in summary.trials if trial.start]
    assert [trial.state for trial in starts] == ["failed", "complete"]
    assert starts[-1].settings == {"sft.learning_rate": 5.0, "sft.lora_rank": 8}, "those of the commit of the sweep"
    assert starts[-1].overrides == []
    assert summary.count("complete") == 2, "the one that failed is none of sweep.n_trials"
    assert len(fixtures.create(tmp_path, **changes).summarize().trials) == len(summary.trials)


def test_a_sweep_that_was_stopped_begins_no_trial_and_goes_on_when_asked(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=2)
    study.set_stopped(True)
    assert run(study).count("complete") == 0
    study.set_stopped(False)
    assert run(study).count("complete") == 2


def test_no_trial_begins_after_the_deadline(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path, n_trials=2)
    study.set_limits(study.section, time.time() - 1)
    assert run(study).count("complete") == 0


def test_a_name_stays_with_its_space(tmp_path: Path) -> None:
    fixtures.create(tmp_path)
    with pytest.raises(UsageError) as caught:
        fixtures.create(tmp_path, space={"sft.lora_rank": [4, 8]})
    assert caught.value.message == "sweep demo has trials already, and this one differs in space"
    assert caught.value.hint == "give it another name: sweep.name=demo_2"
    fixtures.create(tmp_path, n_trials=20)


def test_an_unknown_sweep_names_those_there_are(tmp_path: Path) -> None:
    fixtures.create(tmp_path)
    with pytest.raises(UsageError, match="there is no sweep dmo; the storage has demo"):
        optuna_study.open_study("sqlite:///sweeps.sqlite", "dmo", tmp_path)


def test_a_storage_that_goes_away_between_two_trials_is_named(tmp_path: Path) -> None:
    study = fixtures.create(tmp_path)
    claim = study.claim("first")
    assert claim is not None
    (tmp_path / "sweeps.sqlite").write_bytes(b"no database" * 1000)
    for use in (
        lambda: study.claim("second"),
        lambda: study.finish(claim, "first", TrialOutcome(state="complete", values=[1.0])),
    ):
        with pytest.raises(InfrastructureError, match=r"sweep\.storage sqlite:.*sweeps\.sqlite cannot be used: "):
            use()


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as caught:
        fixtures.create(tmp_path, url="postgresql://me:secret@127.0.0.1:port/sweeps")
    assert caught.value.message == "sweep.storage is no address of a database"
    assert "secret" not in str(caught.value)


def test_a_storage_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    with pytest.raises(InfrastructureError) as caught:
        fixtures.create(tmp_path, url="postgresql://me:secret@127.0.0.1:1/sweeps")
    assert caught.value.message.startswith("sweep.storage postgresql://***@127.0.0.1:1/sweeps cannot be used: ")
    assert "secret" not in str(caught.value)
    assert caught.value.exit_code == 5


def test_a_storage_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweeps.sqlite").write_text("no database at all" * 100)
    with pytest.raises(InfrastructureError, match="file is not a database"):
        fixtures.create(tmp_path)


@pytest.mark.parametrize(
    "pruner",
    [
        {"method": "hyperband", "stage": "sft", "min_resource": 1, "max_resource": 8, "reduction_factor": 3},
        {"method": "median", "stage": "sft", "n_startup_trials": 0, "n_warmup_steps": 1},
    ],
    ids=lambda pruner: pruner["method"],
)
def test_each_pruner_can_be_built_where_the_stage_runs(tmp_path: Path, pruner: dict[str, Any]) -> None:
    summary = run(fixtures.create(tmp_path, n_trials=2, pruner=pruner), fixtures.ChildTrials())
    assert {trial.state for trial in summary.trials} <= {"complete", "pruned"}
    assert all(trial.steps for trial in summary.trials)
