"""Everything in conf/ composes: every experiment, and every file of every group."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.config.loading.compose import compose
from tunectl.config.loading.override_parsing import Override, list_options
from tunectl.config.schema.reward import RewardModelConfig

ROOT = Path(__file__).parents[2]
LAYOUT = ProjectPaths(ROOT)
COMMIT = "0123456789abcdef0123456789abcdef01234567"
GROUPS = sorted(folder.name for folder in LAYOUT.conf.iterdir() if folder.is_dir() and folder.name != "experiment")
GIVEN = {
    ("model", "hub"): ["model.source.repo=a/b", f"model.source.revision={COMMIT}"],
    ("model", "folder"): ["model.source.path=m"],
    ("ingest", "table"): ["data.path=x.csv"],
    ("ingest", "documents"): ["data.path=x"],
    ("preferences", "hh"): ["data.path=x"],
}
"""What a file leaves to the user."""
BARE = {("ingest", "declared")}
"""Holds no source by intent; tests/unit/config/test_foreign_keys.py composes it with some."""


def _load(*words: str) -> checks.ResolvedConfig:
    return checks.load_config(LAYOUT, [Override.from_cli(word) for word in words])


@pytest.mark.parametrize("name", list_options(LAYOUT.conf, "experiment"))
def test_an_experiment_composes_once_it_has_what_it_asks_for(name: str) -> None:
    found = compose(LAYOUT.conf, [Override.from_cli(f"experiment={name}")])
    asked = [".".join(map(str, problem.path)) for problem in found.problems if "must be given" in problem.text]
    given = [f"{key}={COMMIT if key.endswith('revision') else 'x'}" for key in asked]
    assert _load(f"experiment={name}", *given).composition.choices["experiment"] == name


@pytest.mark.parametrize("name", list_options(LAYOUT.conf, "experiment"))
def test_what_an_experiment_asks_for_it_explains(name: str) -> None:
    found = compose(LAYOUT.conf, [Override.from_cli(f"experiment={name}")])
    for problem in found.problems:
        if "conf/experiment/" in problem.text:
            assert len(problem.text.splitlines()) == 2, f"no comment above: {problem.text}"


def test_e2e_align_starts_from_the_sft_of_e2e() -> None:
    """Whatever stages up to sft see of the configuration is the same, so that a finished sft is not trained again."""
    from tunectl.pipeline import resolved_config

    plain, aligned = (_load(f"experiment={name}", "data.path=x.csv").root for name in ("e2e", "e2e_align"))
    for stage in ("model", "ingest", "curate", "split", "cpt", "sft"):
        assert resolved_config.stage_view(stage, plain) == resolved_config.stage_view(stage, aligned), stage
    assert aligned.align.root.method == "rloo"
    assert aligned.reward.root.evaluation_model is not None, "evaluate wants a judge of its own"
    assert aligned.evaluate.aligned.metric == "slot_error"
    assert aligned.evaluate.aligned.max_regression == {"bleu": 2.0}
    assert aligned.evaluate.slots is not None


def test_small_goes_on_from_the_sft_of_first() -> None:
    """Whatever stages up to sft see of the configuration is the same, so that nothing is trained again after a first look."""
    from tunectl.pipeline import resolved_config

    first, small = (_load(f"experiment={name}").root for name in ("first", "small"))
    for stage in ("model", "ingest", "curate", "split", "cpt", "sft"):
        assert resolved_config.stage_view(stage, first) == resolved_config.stage_view(stage, small), stage
    for stage in (first.preferences, first.reward, first.align, first.package):
        assert stage.root.method == "none"


@pytest.mark.parametrize("profile", ["cpu", "gpu"])
@pytest.mark.parametrize("align", ["none", "rloo"])
def test_hh_composes_for_a_cpu_and_a_gpu(profile: str, align: str) -> None:
    words = ["experiment=hh", "data.path=harmless.jsonl.gz", f"hardware={profile}", f"align={align}"]
    root = _load(*words).root
    assert (root.hardware.device, root.align.root.method) == ({"cpu": "cpu", "gpu": "cuda"}[profile], align)
    assert isinstance(root.reward.root, RewardModelConfig)
    assert root.reward.root.max_pairs.train == {"cpu": 400, "gpu": None}[profile]


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, option) for group in GROUPS for option in list_options(LAYOUT.conf, group) if (group, option) not in BARE],
)
def test_a_file_of_a_group_composes(group: str, option: str) -> None:
    assert _load(f"{group}={option}", *GIVEN.get((group, option), [])).composition.choices[group] == option


def test_the_recipe_composes_and_every_value_has_an_origin() -> None:
    from tunectl.config.loading.provenance import iter_leaves

    found = _load().composition
    silent = [path for path, _ in iter_leaves(found.tree) if found.origins.find(path) is None]
    assert silent == []
