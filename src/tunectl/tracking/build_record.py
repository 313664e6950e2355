"""The record of a build for trackers: one parent, and one child for each stage that ran."""

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
    """A stage that ran, in contrast to one from the cache."""

    name: str
    metrics: dict[str, float]
    curves: dict[str, list[tuple[int, float]]]
    """Points of step and value by curve."""


class BuildRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The record of one ``tunectl repro`` for experiment trackers."""

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
    """Return the overrides of settings that a build reads: the differences from ``conf/``. Addresses with credentials are left out."""
    allowed = {*sections, "seed", "data", "hardware", "experiment", "project"}
    params: dict[str, str] = {}
    for text in overrides:
        key, _, value = text.partition("=")
        if key.strip().partition(".")[0] in allowed and not has_credentials(value):
            params[key.strip()] = value.strip()[:6000]
    return params


def read_stage(layout: ProjectPaths, name: str) -> StageRecord:
    """Return metrics and curves of a stage."""
    file = layout.metrics(name)
    metrics = dict(flatten(atomic_io.read_json(file))) if file.is_file() else {}
    return StageRecord(name=name, metrics=metrics, curves=read_curves(layout.plots(name) / "history.csv"))


def flatten(value: Any, above: str = "") -> Iterator[tuple[str, float]]:
    """Yield every finite number of a tree, with its dotted name."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            yield from flatten(below, f"{above}.{key}" if above else str(key))
    elif isinstance(value, int | float) and math.isfinite(value):
        yield above, float(value)


def read_curves(file: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the columns of ``history.csv`` by step; empty where a stage has none."""
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
    """Return every score of every system with the ends of its interval: ``bleu``, ``bleu_low``, ``bleu_high`` are the tuned model's."""
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
