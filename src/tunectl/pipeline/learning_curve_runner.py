"""Measure the learning curve of ``tunectl data report --learning-curve`` with the project's own training.

Every finished size is kept in ``.tunectl/work/curve-<key>``; a stopped curve resumes from there, inside a size from the
trainer's last checkpoint. The training on all of train is reused where the sft artifact has this configuration.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import structs

from tunectl.artifacts import atomic_io, manifest, private_files
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example
from tunectl.core import logging_setup, progress
from tunectl.core.errors import ArtifactError
from tunectl.data.learning_curve import (
    SHARES,
    Curve,
    Likelihood,
    MeasuredSize,
    TrainAndScore,
    fit_and_advise,
    take_nested_subsets,
)
from tunectl.data.split.groups import find_connected_groups
from tunectl.pipeline.runner import load_input_artifact

if TYPE_CHECKING:
    from tunectl.evaluation.few_shot import FewShotRenderer
    from tunectl.evaluation.items import Item

NEW_TOKENS = 1
"""The shortest answer: only the likelihood of the references is wanted."""
_log = logging_setup.get_logger(__name__)


def measure_learning_curve(layout: ProjectPaths, *, worth: float, learner: TrainAndScore | None = None) -> Curve:
    """Train on growing subsets of train, score each on validation, and return the curve that is fitted to the losses.

    ``worth`` is the fall of the loss, in nats per token, for which twice the data is worth collecting.
    Raises  ArtifactError where model, split or cpt is not built, or was made from another configuration;
            DataError where train or validation is too small, or too many validation examples cannot be scored.
    """
    from tunectl.pipeline import resolved_config

    digests = {
        name: atomic_io.sha256_json(atomic_io.read_json(layout.artifact(name) / manifest.NAME))
        for name in _upstream(layout)
    }
    settings, record = resolved_config.load_stage_config(layout, "sft")
    work = layout.work("curve", atomic_io.sha256_json({"record": record, "inputs": digests})[:16])
    private_files.make_folder(work.parent)
    train = list(atomic_io.read_rows(layout.artifact("split") / "train.jsonl", Example))
    trainer = learner or SftTrainAndScore(
        layout, settings, work, seed=settings.seed, is_sft_current=_is_sft_current(layout, digests)
    )
    left_out = trainer.left_out  # before the trainings: too many are an error
    points = []
    with progress.bar("learning curve", len(SHARES)) as bar:
        for share, rows in take_nested_subsets(train, seed=settings.seed):
            points.append(_point(work, share, rows, trainer))
            bar.advance()
    curve = fit_and_advise(points, worth=worth, seed=settings.seed, clusters=_clusters(layout))
    return structs.replace(curve, left_out=left_out)


def _clusters(layout: ProjectPaths) -> dict[str, str]:
    """Map each validation example to its group of the split."""
    from tunectl.pipeline import resolved_config

    settings, _ = resolved_config.load_stage_config(layout, "split")
    examples = list(atomic_io.read_rows(layout.artifact("split") / "validation.jsonl", Example))
    together = find_connected_groups(examples, settings.split.group)
    return {examples[row].id: group.key for group in together for row in group.rows}


def _upstream(layout: ProjectPaths) -> Sequence[str]:
    """Return the stages that training reads, after each was verified."""
    names = ("model", "split", "cpt")
    for name in names:
        load_input_artifact(layout, name)
    return names


def _is_sft_current(layout: ProjectPaths, digests: dict[str, str]) -> bool:
    """Return whether the sft artifact is finished, and made from this configuration and these inputs."""
    try:
        result = load_input_artifact(layout, "sft")
    except ArtifactError:
        return False
    return all(digests[name] == digest for name, digest in result.inputs.items() if name in digests)


def _point(work: Path, share: float, rows: Sequence[Example], learner: TrainAndScore) -> MeasuredSize:
    result_path = work / f"point-{share:.2f}.json"
    if result_path.is_file():
        measured_size: MeasuredSize = atomic_io.read_json(result_path, MeasuredSize)
        return measured_size
    _log.info("learning curve: %.0f %% of train, %d records", 100 * share, len(rows))
    point = MeasuredSize(share, len(rows), learner.learn(rows, label=f"{share:.0%}"))
    atomic_io.write_json(result_path, point)
    return point


class SftTrainAndScore:
    """Trains an adapter with the sft stage and measures the likelihood of the validation answers; the default of ``learner``."""

    def __init__(self, layout: ProjectPaths, settings: Any, work: Path, *, seed: int, is_sft_current: bool) -> None:
        """Use ``settings`` of the stage sft; ``is_sft_current``: its artifact has them, so the full training set is not trained on again."""
        self._layout, self._settings, self._work, self._seed, self._is_sft_current = (
            layout,
            settings,
            work,
            seed,
            is_sft_current,
        )
        adapted = layout.artifact("cpt")
        self._base = layout.artifact("model") if (adapted / manifest.PASSED_THROUGH).is_file() else adapted

    @property
    def left_out(self) -> dict[str, int]:
        """Number of the validation examples that have no reference answer or cannot be asked, by reason."""
        return self._validation[1]

    def learn(self, train: Sequence[Example], *, label: str) -> list[Likelihood]:
        """Train an adapter on ``train`` (``label``: its share of all, ``50%``); return the likelihood of each validation example's answers under it."""
        if label == "100%" and self._is_sft_current:
            return self._score(self._layout.artifact("sft"))
        folder = self._work / label.rstrip("%")
        adapter = folder / "adapter"
        if not adapter.is_dir():
            self._tune(train, folder, adapter)
        result = self._score(adapter)
        shutil.rmtree(folder, ignore_errors=True)
        return result

    def _tune(self, train: Sequence[Example], folder: Path, adapter: Path) -> None:
        from tunectl.pipeline.stages import sft

        part = folder / "split"
        atomic_io.write_rows(part / "train.jsonl", train)
        split_folder = self._layout.artifact("split")
        for name in ("validation.jsonl", "test.jsonl", "documents.jsonl"):
            shutil.copyfile(split_folder / name, part / name)
        upstream = {field.name: self._layout.artifact(field.name) for field in dataclasses.fields(sft.Inputs)}
        inputs = sft.Inputs(**{**upstream, "split": part})
        with atomic_io.atomic_directory(adapter, folder / "tmp") as scratch:
            folders = {"artifact": scratch, "plots": folder / "plots", "work": folder / "trainer"}
            for path in folders.values():
                path.mkdir(parents=True, exist_ok=True)
            names = {field.name for field in dataclasses.fields(sft.Outputs)}
            outputs = sft.Outputs(**{name: path for name, path in folders.items() if name in names})
            sft.run(self._settings, inputs, outputs)

    def _score(self, adapter: Path) -> list[Likelihood]:
        from tunectl.backends.modeling import generator as modeling_generator
        from tunectl.config.schema.evaluate import Greedy
        from tunectl.evaluation.protocols import GenerationPrompt

        items, prompter = self._validation[0], self._prompter
        requests = [
            GenerationPrompt(
                prompter.prompt(item.messages, item.tools),
                tuple(
                    prompter.answer(item.messages, item.turn(number), item.tools)
                    for number in range(len(item.references))
                ),
            )
            for item in items
        ]
        generator = modeling_generator.model_loader(self._settings.hardware)(self._base, adapter)
        try:
            replies = generator.answer(
                requests, Greedy(method="greedy", max_new_tokens=NEW_TOKENS), seed=self._seed, label="validation"
            )
        finally:
            generator.close()
        return [
            Likelihood(
                item.id,
                sum(reference.nats for reference in reply.references),
                sum(reference.tokens for reference in reply.references),
            )
            for item, reply in zip(items, replies, strict=True)
        ]

    @cached_property
    def _prompter(self) -> FewShotRenderer:
        """Renders prompts with the system text that the adapters are trained with."""
        from tunectl.chat import model_spec, template
        from tunectl.evaluation.few_shot import FewShotRenderer

        spec, system = model_spec.load(self._base), self._settings.sft.system
        loaded = template.load(self._base, system=spec.system if system is None else system)
        return FewShotRenderer(loaded, spec.eot_token.text)

    @cached_property
    def _validation(self) -> tuple[list[Item], dict[str, int]]:
        """Return the validation inputs that can be scored, the same for every size, and the number of the others by reason."""
        from tunectl.backends.wiring import evaluation
        from tunectl.evaluation import few_shot
        from tunectl.evaluation.items import from_examples

        rows = atomic_io.read_rows(self._layout.artifact("split") / "validation.jsonl", Example)
        items, unusable = from_examples(rows)
        kept, left_out = few_shot.leave_out_unanswerable(
            items,
            [(self._prompter, evaluation.token_counter(self._base))],
            new_tokens=NEW_TOKENS,
            references=max((len(item.references) for item in items), default=0),
            inputs="validation inputs",
        )
        return kept, unusable | left_out
