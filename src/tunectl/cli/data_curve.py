"""Measures the learning curve of ``tunectl data report --curve`` with the project's own tuning.

Every finished size is kept in ``.tunectl/work/curve-<key>``; a curve that was stopped goes on from there, inside a size from the
trainer's last checkpoint. All of train is not tuned again where the sft artifact of this configuration stands.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunectl.artifacts import io, manifest
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Example
from tunectl.cli.run import read_input
from tunectl.core import log, progress
from tunectl.core.errors import ArtifactError
from tunectl.data.curve import SHARES, Curve, Learner, Likelihood, Point, judge, parts
from tunectl.data.grouping import groups

_log = log.get(__name__)


def measure(layout: Layout, *, worth: float, learner: Learner | None = None) -> Curve:
    """Tune on parts of train, score each on validation, judge.

    ``worth`` is the fall of the loss, in nats a token, that is worth twice the data.
    Raises  ArtifactError where model, split or adapt is not built, or was made from another configuration;
            DataError where train or validation is too small.
    """
    from tunectl.config import resolved

    digests = {name: io.digest_value(io.read_json(layout.artifact(name) / manifest.NAME)) for name in _upstream(layout)}
    settings, record = resolved.read(layout, "sft")
    work = layout.work("curve", io.digest_value({"record": record, "inputs": digests})[:16])
    train = list(io.read_rows(layout.artifact("split") / "train.jsonl", Example))
    chosen = learner or Tuner(layout, settings, work, seed=settings.seed, stands=_stands(layout, digests))
    points = []
    with progress.bar("learning curve", len(SHARES)) as shown:
        for share, rows in parts(train, seed=settings.seed):
            points.append(_point(work, share, rows, chosen))
            shown.advance()
    return judge(points, worth=worth, seed=settings.seed, clusters=_clusters(layout))


def _clusters(layout: Layout) -> dict[str, str]:
    """Validation example to the group that split kept together."""
    from tunectl.config import resolved

    settings, _ = resolved.read(layout, "split")
    examples = list(io.read_rows(layout.artifact("split") / "validation.jsonl", Example))
    together = groups(examples, settings.split.group)
    return {examples[row].id: group.key for group in together for row in group.rows}


def _upstream(layout: Layout) -> Sequence[str]:
    """The stages that tuning reads, after each was verified."""
    names = ("model", "split", "adapt")
    for name in names:
        read_input(layout, name)
    return names


def _stands(layout: Layout, digests: dict[str, str]) -> bool:
    """Whether the sft artifact is finished, and made from this configuration and these inputs."""
    try:
        found = read_input(layout, "sft")
    except ArtifactError:
        return False
    return all(digests[name] == digest for name, digest in found.inputs.items() if name in digests)


def _point(work: Path, share: float, rows: Sequence[Example], learner: Learner) -> Point:
    kept = work / f"point-{share:.2f}.json"
    if kept.is_file():
        found: Point = io.read_json(kept, Point)
        return found
    _log.info("learning curve: %.0f %% of train, %d records", 100 * share, len(rows))
    point = Point(share, len(rows), learner.learn(rows, label=f"{share:.0%}"))
    io.write_json(kept, point)
    return point


class Tuner:
    """Tunes with the sft stage and measures with the evaluation's generator."""

    def __init__(self, layout: Layout, settings: Any, work: Path, *, seed: int, stands: bool) -> None:
        """``settings`` is what the sft stage sees; ``stands`` says that its artifact can be used for all of train."""
        self._layout, self._settings, self._work, self._seed, self._stands = layout, settings, work, seed, stands
        adapted = layout.artifact("adapt")
        self._base = layout.artifact("model") if (adapted / manifest.PASSED_THROUGH).is_file() else adapted

    def learn(self, train: Sequence[Example], *, label: str) -> list[Likelihood]:
        """How likely the answers of each validation example are, under an adapter that was tuned on ``train``."""
        if label == "100%" and self._stands:
            return self._score(self._layout.artifact("sft"))
        folder = self._work / label.rstrip("%")
        adapter = folder / "adapter"
        if not adapter.is_dir():
            self._tune(train, folder, adapter)
        found = self._score(adapter)
        shutil.rmtree(folder, ignore_errors=True)
        return found

    def _tune(self, train: Sequence[Example], folder: Path, adapter: Path) -> None:
        from tunectl.stages import sft

        part = folder / "split"
        io.write_rows(part / "train.jsonl", train)
        whole = self._layout.artifact("split")
        for name in ("validation.jsonl", "test.jsonl", "documents.jsonl"):
            shutil.copyfile(whole / name, part / name)
        upstream = {field.name: self._layout.artifact(field.name) for field in dataclasses.fields(sft.Inputs)}
        inputs = sft.Inputs(**{**upstream, "split": part})
        with io.replacing_folder(adapter, folder / "tmp") as fresh:
            places = {"artifact": fresh, "plots": folder / "plots", "work": folder / "trainer"}
            for place in places.values():
                place.mkdir(parents=True, exist_ok=True)
            names = {field.name for field in dataclasses.fields(sft.Outputs)}
            outputs = sft.Outputs(**{name: place for name, place in places.items() if name in names})
            sft.run(self._settings, inputs, outputs)

    def _score(self, adapter: Path) -> list[Likelihood]:
        from tunectl.backends import evaluation_tools, hf_generate
        from tunectl.config.evaluate import Greedy
        from tunectl.evaluation.generator import Request
        from tunectl.evaluation.items import from_examples

        rows = io.read_rows(self._layout.artifact("split") / "validation.jsonl", Example)
        items, _ = from_examples(rows)
        prompter = evaluation_tools.prompter(self._base, adapter)
        requests = [
            Request(
                prompter.prompt(item.messages, item.tools),
                tuple(
                    prompter.answer(item.messages, item.turn(number), item.tools)
                    for number in range(len(item.references))
                ),
            )
            for item in items
        ]
        generator = hf_generate.opener(self._settings.profile)(self._base, adapter)
        try:
            # one token is the shortest answer; only the likelihood of the references is wanted
            replies = generator.answer(
                requests, Greedy(method="greedy", max_new_tokens=1), seed=self._seed, label="validation"
            )
        finally:
            generator.close()
        return [
            Likelihood(item.id, sum(one.nats for one in reply.references), sum(one.tokens for one in reply.references))
            for item, reply in zip(items, replies, strict=True)
        ]
