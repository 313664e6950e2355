"""How a fit is launched reaches the stage, stands in its metrics, and in no stage's JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.launchers.launched_trainers import (
    LaunchedPolicyTrainer,
    LaunchedRewardTrainer,
    LaunchedSftTrainer,
)
from tunectl.backends.launchers.model_replicas import ReplicaEnd
from tunectl.backends.wiring import launch
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.config.schema.align import Rloo
from tunectl.config.schema.launch import LaunchConfig
from tunectl.core.errors import UsageError
from tunectl.pipeline import resolved_config, runner
from tunectl.pipeline.stages import STAGES
from tunectl.pipeline.stages.compose import compose
from tunectl.training import fit_request
from tunectl.training.fit_request import FitEnd
from tunectl.training.protocols import TrainResult

ROOT = Path(__file__).parents[2]
TORCHRUN = {
    "method": "torchrun",
    "nproc_per_node": 2,
    "nnodes": 1,
    "rdzv_endpoint": None,
    "storage_path": None,
    "max_restarts": 3,
    "shard": "layers",
    "collective_timeout_seconds": 600,
}

RAY = {
    "method": "ray",
    "address": "local",
    "num_workers": 2,
    "max_failures": 3,
    "storage_path": None,
    "shard": "layers",
    "collective_timeout_seconds": 600,
}


def test_another_launch_changes_no_json_of_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_conf(tmp_path)
    (tmp_path / "a.txt").write_text("text\n")
    monkeypatch.chdir(tmp_path)
    layout = ProjectPaths()
    common = [Override.from_cli("ingest=documents"), Override.from_cli("data.path=a.txt")]
    override_file.save_overrides(layout, common)
    compose(layout)
    assert launch.read(layout.launch).root.method == "local"
    override_file.save_overrides(
        layout,
        [*common, Override.from_cli("launch=torchrun"), Override.from_cli("launch.nproc_per_node=2")],
    )
    assert compose(layout) == {"written": [], "unchanged": [stage.name for stage in STAGES], "removed": []}
    assert launch.read(layout.launch).root.model_dump() == TORCHRUN | {"shard": "none"}
    for name in launch.WRITERS:
        own, _ = resolved_config.load_stage_config(layout, name)
        launched = launch.launch_backends(name, launch.read(layout.launch), own)
        assert launched is not None
        assert launched.record() == {}
        launched.ends.append(ReplicaEnd(2, "cpu"))
        assert launched.record()["launch"] == {
            "method": "torchrun", "ranks": 2, "nodes": 1, "device": "cpu", "shard": "none", "restarts": 0
        }  # fmt: skip
        assert launch.launch_backends(name, launch.read(tmp_path / "absent.json"), own) is None


@pytest.mark.parametrize("values", [TORCHRUN, RAY], ids=["torchrun", "ray"])
def test_the_stages_that_fit_get_a_trainer(tmp_path: Path, values: dict[str, object]) -> None:
    config = LaunchConfig.model_validate(values)
    kinds = {}
    for stage in STAGES:
        if values is TORCHRUN and stage.name in launch.WRITERS:
            continue
        launched = launch.launch_backends(stage.name, config)
        if launched and stage.name == "align":
            settings = Rloo.model_validate(yaml.safe_load((ROOT / "conf" / "align" / "rloo.yaml").read_text()))
            kinds[stage.name] = type(launched.backends["tools"].trainer(settings))
        elif launched:
            kinds[stage.name] = type(launched.backends["trainer"])
    assert kinds == {
        "cpt": LaunchedSftTrainer,
        "sft": LaunchedSftTrainer,
        "reward": LaunchedRewardTrainer,
        "align": LaunchedPolicyTrainer,
    }
    local = launch.launch_backends("sft", launch.read(tmp_path / "absent.json"))
    assert local is not None
    assert local.backends == {}
    assert local.record() == {"launch": {"method": "local", "ranks": 1}}


@pytest.mark.parametrize("values", [TORCHRUN, RAY], ids=["torchrun", "ray"])
def test_the_record_says_on_what_a_stage_was_fitted(values: dict[str, object]) -> None:
    launched = launch.launch_backends("reward", LaunchConfig.model_validate(values))
    assert launched is not None
    assert launched.record() == {}
    result = TrainResult(1, 1, 1, 0.5, 0.6, 10, 12, 1.0, 8, True, ())
    launched.ends += [FitEnd(result, 2, 1, "cpu", 1), FitEnd(result, 2, 1, "cpu", 0)]
    assert launched.record() == {
        "launch": {
            "method": values["method"],
            "ranks": 2,
            "nodes": 1,
            "device": "cpu",
            "shard": "layers",
            "restarts": 1,
        }
    }


def test_a_request_comes_back_as_it_was(tmp_path: Path) -> None:
    import tiny_fits

    from tunectl.training.prefix_sharing import PackedRow
    from tunectl.training.reward.pair_batches import PromptGroup
    from tunectl.training.reward.reward_args import RewardArgs
    from tunectl.training.train_args import TrainingArgs

    plan = tiny_fits.plan(init_adapter=tmp_path)
    words = json.loads(json.dumps(fit_request.encode_plan(plan)))
    assert fit_request.decode_plan(words, TrainingArgs) == plan
    both = RewardArgs(plan, None)
    assert fit_request.decode_plan(fit_request.encode_plan(both), RewardArgs) == both
    fit_request.write_rows(tmp_path, tiny_fits.rows(), tiny_fits.rows(2))
    assert fit_request.read_rows(tmp_path, PackedRow) == (tiny_fits.rows(), tiny_fits.rows(2))
    fit_request.write_rows(tmp_path, tiny_fits.groups(), tiny_fits.groups(2))
    assert fit_request.read_rows(tmp_path, PromptGroup) == (tiny_fits.groups(), tiny_fits.groups(2))


def test_a_machine_joins_only_what_fits_on_several(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        runner.join_stage(ProjectPaths(tmp_path), "ingest")
    assert (error.value.message, error.value.hint) == (
        "stage ingest trains no model",
        "give one of align, cpt, reward, sft",
    )
    with pytest.raises(UsageError, match="tunectl run sft --join needs training on several machines"):
        runner.join_stage(ProjectPaths(tmp_path), "sft")
