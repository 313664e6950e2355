"""Build the record of one ``tunectl repro`` for experiment trackers: a parent run, and a child run for each stage that ran."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.core.url_credentials import has_credentials
from tunectl.evaluation import results

FILES = ("evaluate/verdict.json", "package/verdict.json", "reward/verdict.json")
"""Artifacts that trackers get as they are, below ``artifacts/``. Row counts and settings stay here: they quote rows and answers."""
DATA = ("ingest", "curate", "split", "feedback", "preferences")
"""Stages whose outputs are data: trackers get only their digests."""


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Metrics and curves of one stage that ran in a build (stages from the cache have none)."""

    name: str
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    """Points of step and value by curve."""


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Record of one ``tunectl repro`` for experiment trackers: settings, metrics, digests and stages."""

    id: str
    project: str
    started: float
    """Seconds since 1970."""
    seconds: float
    exit_code: int
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    digests: dict[str, str]
    """DVC's digest of the output of each data stage."""
    stages: list[StageRecord]


def select_params(overrides: Iterable[str], sections: Iterable[str]) -> dict[str, str]:
    """Return value by key of those ``overrides`` (KEY=VALUE) that the build's stages read; values with credentials are left out.

    ``sections``: the sections of settings that the stages read, such as ``sft``.
    """
    allowed = {*sections, "seed", "data", "hardware", "experiment", "project"}
    params: dict[str, str] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key.strip().partition(".")[0] in allowed and not has_credentials(value):
            params[key.strip()] = value.strip()[:6000]
    return params


def read_stage(layout: ProjectPaths, name: str) -> StageRecord:
    """Return the metrics and training curves that the stage ``name`` wrote; empty where it wrote none."""
    file = layout.metrics(name)
    metrics = dict(flatten(atomic_io.read_json(file))) if file.is_file() else {}
    return StageRecord(name=name, metrics=metrics, curves=read_curves(layout.plots(name) / "history.csv"))


def flatten(value: Any, above: str = "") -> Iterator[tuple[str, float]]:
    """Yield (dotted name, value) for every finite number in nested mappings; ``above`` is the name of ``value`` itself."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from flatten(below, f"{above}.{key}" if above else str(key))
    elif isinstance(value, int | float) and math.isfinite(value):
        yield above, float(value)


def read_curves(file: Path) -> dict[str, list[tuple[int, float]]]:
    """Return (step, value) pairs by column of a ``history.csv``; empty if there is no such file."""
    curves: dict[str, list[tuple[int, float]]] = {}
    if not file.is_file():
        return curves
    with file.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            step = int(float(row["step"]))
            for name, text in row.items():
                if name != "step" and text:
                    curves.setdefault(name, []).append((step, float(text)))
    return curves


def read_scores(layout: ProjectPaths) -> dict[str, float]:
    """Return the scores of all evaluated systems and the ends of their confidence intervals, by name; empty without an evaluation.

    ``bleu``, ``bleu_low``, ``bleu_high`` are the tuned model's; other systems' begin with ``SYSTEM.``.
    """
    file = layout.artifact("evaluate") / results.NAME
    if not file.is_file():
        return {}
    scores: dict[str, float] = {}
    for system in results.load(file).systems:
        head = "" if system.name == "tuned" else f"{system.name}."
        for name, score in system.scores.items():
            ends = {"": score.value, "_low": score.low, "_high": score.high}
            scores |= {f"{head}{name}{end}": value for end, value in ends.items() if value is not None}
    return {name: value for name, value in scores.items() if math.isfinite(value)}
