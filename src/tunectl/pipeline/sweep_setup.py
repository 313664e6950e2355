"""Validate ``conf/sweep`` and open its sweep: every mistake of its space and objective is reported before a trial begins."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NamedTuple

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.sweeps import optuna_study
from tunectl.backends.vcs import git_worktree
from tunectl.config.loading import checks, override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.config.loading.provenance import ValueOrigin
from tunectl.config.schema.sweep import Sweep
from tunectl.config.schema.track import Track
from tunectl.core.errors import ConfigError, UsageError
from tunectl.core.optional import RequiredPackage, require_all
from tunectl.pipeline.required_extras import list_build_packages, list_upstream_stages
from tunectl.pipeline.stages import find
from tunectl.sweeps import search_space
from tunectl.sweeps.trial_records import SweepDefinition

STORAGES = ("sqlite:///", "postgresql://")
PACKAGES = (RequiredPackage("optuna", "sweep", "sweep"),)


class SweepPlan(NamedTuple):
    """A sweep from ``conf/sweep`` whose space and objective are valid, before its study is opened."""

    section: Sweep
    overrides: list[str]
    """Overrides of every trial in addition to its own values."""
    start: dict[str, Any] | None
    """Current values of the settings of the space; None where there is no trial with the current settings."""
    seed: int
    project: str
    track: Track


def load_plan(layout: ProjectPaths, new_overrides: Sequence[str]) -> SweepPlan:
    """Return the validated sweep. ``new_overrides``: ``sweep.KEY=VALUE`` for the sweep itself, others for every trial.

    Raises  ConfigError with file and line of every mistake; MissingExtraError for the sweep, its stages, and those of the
            confirmation.
    """
    overrides = override_file.merge_overrides(override_file.load_overrides(layout), new_overrides)
    resolved = checks.load_config(layout, overrides)
    section = resolved.root.sweep
    problems = [*_check_objective(section, resolved)]
    problems += _check_space(layout, overrides, section, resolved)
    problems += _check_fixed(section, new_overrides)
    if problems:
        raise ConfigError(problems, hint="correct these settings of sweep; nothing was run")
    targets = [section.stage, "evaluate"] if section.confirm and section.start == "current" else [section.stage]
    require_all([*PACKAGES, *list_build_packages(resolved.root, targets)])
    composition = resolved.composition
    start = search_space.current_values(section, composition.tree, composition.choices)
    return SweepPlan(
        section=section,
        overrides=[override for override in new_overrides if not _is_of_sweep(override)],
        start=start if section.start == "current" else None,
        seed=resolved.root.seed,
        project=resolved.root.project,
        track=resolved.root.track,
    )


def read_storage(layout: ProjectPaths, new_overrides: Sequence[str] = ()) -> tuple[Sweep, str]:
    """Return the section ``sweep``, and the URL of its storage; ``new_overrides`` win over the recorded ones."""
    require_all(PACKAGES)
    overrides = override_file.merge_overrides(override_file.load_overrides(layout), new_overrides)
    section = checks.load_config(layout, overrides).root.sweep
    return section, storage_url(section)


def storage_url(section: Sweep) -> str:
    """Return the URL of a sweep's storage: the value of its environment variable where that is set, else the setting.

    Raises  UsageError where the variable holds an address of another kind.
    """
    url = os.environ.get(section.storage_env) or section.storage
    if not url.startswith(STORAGES):
        raise UsageError(
            f"{section.storage_env} does not begin with {' or '.join(STORAGES)}",
            hint="set it to the address of an SQLite file or of a PostgreSQL database, or unset it",
        )
    return url


def open_or_create(layout: ProjectPaths, plan: SweepPlan) -> optuna_study.SweepStudy:
    """Return the study of the planned sweep in its storage; a new one records the commit that is checked out, which its trials build.

    Raises  UsageError for a tree with changes that are not committed, and for a name that another sweep has.
    """
    url = storage_url(plan.section)
    commit = git_worktree.revision(layout.root)
    if plan.section.name not in optuna_study.list_sweeps(url, layout.root):
        git_worktree.require_clean(layout.root)
    definition = SweepDefinition(
        section=plan.section.model_dump(mode="json"),
        seed=plan.seed,
        overrides=plan.overrides,
        commit=commit,
        project=plan.project,
    )
    return optuna_study.create_study(url, definition, layout.root, plan.start)


def _is_of_sweep(override: str) -> bool:
    key = override.partition("=")[0].strip()
    return key == "sweep" or key.startswith("sweep.")


def _where(resolved: checks.ResolvedConfig, *path: str | int) -> str:
    origin = resolved.composition.origins.find(("sweep", *path))
    return f" ({origin})" if origin else ""


def _check_objective(section: Sweep, resolved: checks.ResolvedConfig) -> Iterator[str]:
    """Yield a message for each unknown stage or metric, and for metrics of the test split."""
    find(section.stage)
    stages = list_upstream_stages([section.stage])
    for index, goal in enumerate(section.objective):
        head = f"sweep.objective.{index}.metric = {goal.metric}{_where(resolved, 'objective', index)}"
        if goal.stage not in stages:
            yield f"{head}: sweep.stage = {section.stage} does not build {goal.stage}; it builds {', '.join(stages)}"
            continue
        if goal.stage == "evaluate" and resolved.root.evaluate.split == "test":
            yield f"{head}: evaluate.split is test, and settings must not be chosen by the test split; add evaluate.split=validation"
            continue
        names = [field.name for field in dataclasses.fields(import_module(find(goal.stage).module).Metrics)]
        name = goal.metric.split(".")[1]
        if name not in {*names, "seconds"}:
            near = get_close_matches(name, names, 1)
            guess = f"; did you mean {goal.stage}.{near[0]}?" if near else f"; it has {', '.join([*names, 'seconds'])}"
            yield f"{head}: {goal.stage} has no such metric{guess}"
    if section.pruner is not None and section.pruner.stage not in stages:
        yield f"sweep.pruner.stage = {section.pruner.stage}{_where(resolved, 'pruner', 'stage')}: sweep.stage = {section.stage} does not build that stage; it builds {', '.join(stages)}"


def _check_space(
    layout: ProjectPaths, overrides: Sequence[Override], section: Sweep, resolved: checks.ResolvedConfig
) -> list[str]:
    """Check every bound and choice, applied to the current settings."""
    problems: dict[str, None] = {}
    for values in search_space.list_test_values(section):
        more = []
        for key, value in values.items():
            more.append(Override(search_space.format_override(key, value), _origin_of(resolved, key)))
        try:
            checks.load_config(layout, [*overrides, *more])
        except ConfigError as error:
            problems |= dict.fromkeys(error.problems)
    return list(problems)


def _origin_of(resolved: checks.ResolvedConfig, key: str) -> ValueOrigin:
    """Return the origin of a setting of the space: an override of one of its bounds or choices, else the line of its key."""
    find_origin = resolved.composition.origins.find
    below = [find_origin(("sweep", "space", key, part)) for part in ("low", "high", 0)]
    typed = next((origin for origin in below if origin is not None and not origin.file), None)
    return typed or find_origin(("sweep", "space", key)) or ValueOrigin()


def _check_fixed(section: Sweep, new_overrides: Sequence[str]) -> Iterator[str]:
    for override in new_overrides:
        key = override.partition("=")[0].strip()
        if key in section.space:
            yield f"override {override}: sweep.space varies {key} already; leave the override out, or take {key} out of sweep.space"
