"""Mistakes in the space of a sweep: file and line, the nearest name, and nothing is run."""

from __future__ import annotations

from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.core import optional
from tunectl.core.errors import ConfigError, MissingExtraError, UsageError
from tunectl.pipeline import sweep_setup

pytest.importorskip("optuna")


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectPaths:
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    return ProjectPaths()


def problems(layout: ProjectPaths, *words: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        sweep_setup.load_plan(layout, words)
    assert caught.value.exit_code == 2
    return list(caught.value.problems)


def test_an_unknown_key_of_the_space_is_named_with_its_line_and_the_nearest(layout: ProjectPaths) -> None:
    file = layout.conf / "sweep" / "default.yaml"
    text = file.read_text().replace("  sft.lora_rank:", "  sft.lora_rnak:")
    file.write_text(text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "lora_rnak" in row)
    found = problems(layout)
    assert len(found) == 3  # once for each value
    assert (
        found[0] == f"sft.lora_rnak = 8 (conf/sweep/default.yaml:{line}): no such setting; did you mean sft.lora_rank?"
    )


def test_a_bound_that_the_schema_forbids_is_named(layout: ProjectPaths) -> None:
    found = problems(layout, "sweep.space={sft.learning_rate: {low: 0.1, high: 7.5, log: true}}")
    assert found == [
        (
            "sft.learning_rate = 7.5 (override sweep.space={sft.learning_rate: {low: 0.1, high: 7.5, log: true}}): "
            "must be a number above 0 and below 1"
        )
    ]


def test_an_unknown_file_of_a_group_is_named(layout: ProjectPaths) -> None:
    found = problems(layout, "sweep.space={sft: [lora, doora]}")
    options = "dora, local_lens, lora, private, qlora, rslora"
    assert f"conf/sft has no option doora; there are {options}; did you mean sft=dora?" in found[0]


def test_a_metric_that_the_stage_does_not_have(layout: ProjectPaths) -> None:
    found = problems(layout, "sweep.objective=[{metric: sft.validation_los, direction: minimize}]")
    assert found == [
        (
            "sweep.objective.0.metric = sft.validation_los "
            "(override sweep.objective=[{metric: sft.validation_los, direction: minimize}]): "
            "sft has no such metric; did you mean sft.validation_loss?"
        )
    ]


def test_a_metric_of_a_stage_that_no_trial_builds(layout: ProjectPaths) -> None:
    found = problems(layout, "sweep.objective=[{metric: reward.seconds, direction: minimize}]")
    assert (
        "sweep.stage = sft does not build reward; it builds model, ingest, feedback, curate, split, cpt, sft"
        in found[0]
    )


def test_the_stage_of_the_pruner_is_one_that_a_trial_builds(layout: ProjectPaths) -> None:
    found = problems(layout, "sweep.pruner.stage=reward")
    assert found == [
        "sweep.pruner.stage = reward (override sweep.pruner.stage=reward): sweep.stage = sft does not build that stage; it builds model, ingest, feedback, curate, split, cpt, sft"
    ]


def test_an_unknown_stage_names_the_nearest(layout: ProjectPaths) -> None:
    with pytest.raises(UsageError, match="stf: no such stage"):
        sweep_setup.load_plan(layout, ["sweep.stage=stf"])


def test_a_setting_is_either_varied_or_fixed(layout: ProjectPaths) -> None:
    found = problems(layout, "sft.lora_rank=8")
    assert found == [
        "override sft.lora_rank=8: sweep.space varies sft.lora_rank already; leave the override out, or take sft.lora_rank out of sweep.space"
    ]


def test_the_plan_holds_what_every_trial_gets_and_where_it_starts(layout: ProjectPaths) -> None:
    plan = sweep_setup.load_plan(layout, ["sweep.n_trials=3", "sft.epochs=1"])
    assert plan.overrides == ["sft.epochs=1"]
    assert plan.start == {"sft.learning_rate": 0.0025, "sft.lora_rank": 16}
    assert plan.section.n_trials == 3
    assert sweep_setup.load_plan(layout, ["sweep.start=none"]).start is None


def test_the_sweep_stands_in_the_configuration_of_no_stage() -> None:
    from tunectl.pipeline import resolved_config
    from tunectl.pipeline.stages import STAGES

    for stage in STAGES:
        assert "sweep" not in resolved_config.settings_class(stage.name).model_fields


def test_without_optuna_the_extra_is_named(layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    real = optional.find_spec
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name == "optuna" else real(name))
    with pytest.raises(MissingExtraError) as caught:
        sweep_setup.load_plan(layout, [])
    assert "sweep: optuna (for sweep)" in caught.value.message
    assert caught.value.hint.startswith("pip install 'tunectl-lm[sweep]'")
    assert caught.value.exit_code == 4


def test_packages_of_the_confirmation_are_checked_where_there_is_one(
    layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = optional.find_spec
    monkeypatch.setattr(optional, "find_spec", lambda name: None if name == "bm25s" else real(name))
    with pytest.raises(MissingExtraError, match=r"evaluate: bm25s \(for evaluate\)"):
        sweep_setup.load_plan(layout, [])
    for word in ("sweep.confirm=false", "sweep.start=none"):  # nothing is built up to evaluate
        assert sweep_setup.load_plan(layout, [word]).section.stage == "sft"


def test_the_variable_of_the_environment_wins_over_the_storage(
    layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    section, url = sweep_setup.read_storage(layout)
    assert url == section.storage
    monkeypatch.setenv(section.storage_env, "postgresql://me:secret@host/sweeps")
    assert sweep_setup.read_storage(layout)[1] == "postgresql://me:secret@host/sweeps"
    monkeypatch.setenv(section.storage_env, "mysql://me:secret@host/sweeps")
    with pytest.raises(UsageError) as caught:
        sweep_setup.read_storage(layout)
    assert caught.value.message == f"{section.storage_env} does not begin with sqlite:/// or postgresql://"


def test_a_pruner_that_would_stop_nothing_is_refused(layout: ProjectPaths) -> None:
    pruner = "{method: hyperband, stage: sft, min_resource: 90, max_resource: 9, reduction_factor: 3}"
    found = problems(layout, f"sweep.pruner={pruner}")
    assert len(found) == 1
    assert "min_resource is 90 and max_resource is 9; no trial would ever be stopped" in found[0]


def test_evaluate_may_choose_on_validation_and_not_on_test(layout: ProjectPaths) -> None:
    words = ["sweep.objective=[{metric: evaluate.systems.tuned.bleu, direction: maximize}]", "sweep.stage=evaluate"]
    found = problems(layout, *words)
    assert found[0].endswith(
        "evaluate.split is test, and settings must not be chosen by the test split; add evaluate.split=validation"
    )
    plan = sweep_setup.load_plan(layout, [*words, "evaluate.split=validation"])
    assert plan.overrides == ["evaluate.split=validation"]
