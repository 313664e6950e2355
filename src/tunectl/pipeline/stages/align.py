"""Stage align: train the tuned model on preferences -> an adapter that replaces that of sft."""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.records import Example, LabeledCompletion, PreferencePair, RejectedRow, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.artifacts.row_counts import RowCounter, save
from tunectl.backends.wiring import align
from tunectl.backends.wiring.align import AlignBackend
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.align import AlignStage, Grpo, NoAlign, RewardModelTerm, Rloo
from tunectl.config.schema.evaluate import FactsCheck
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, GateError, UsageError
from tunectl.data.split.groups import prompt_key
from tunectl.training.rl import preference_batches, rl_artifacts
from tunectl.training.rl.report import AlignSettings
from tunectl.training.rl.rl_types import (
    PolicyData,
    Prompt,
    RewardFunctions,
    RlArgs,
    RlResult,
    StepMetrics,
    ValidationPoint,
)

_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that align reads, one per stage."""

    model: Path
    cpt: Path
    """The model of cpt, or passed_through.json where cpt is switched off."""
    split: Path
    """Inputs to answer, and validation inputs."""
    sft: Path
    """The adapter that is trained further, and the reference."""
    preferences: Path
    """Judgments (dpo, kto), and which inputs were judged."""
    reward: Path
    """The reward model and its verdict, or passed_through.json where the stage is switched off."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folders that align fills; ``work`` has checkpoints and survives a kill."""

    artifact: Path
    """adapter_model.safetensors, adapter_config.json, model_spec.json, align.json, history.csv, validation.csv, samples.jsonl, report.html,
    row_counts.json, rejects.jsonl; or passed_through.json."""
    plots: Path
    """history.csv, validation.csv."""
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Results of the alignment training, for ``dvc metrics``; validations are greedy answers to validation inputs."""

    method: str
    steps: int
    planned_steps: int
    best_step: int
    """Step whose weights were kept; 0: those of sft."""
    stopped: str | None
    """Why it stopped early."""
    answers: int
    reward_before: float | None
    reward: float | None
    """Mean reward of the kept weights."""
    measure: str | None
    """Name of the independent metric."""
    metric_before: float | None
    metric_after: float | None
    kl: float | None
    """Nats per answer between the kept weights and sft."""
    length: float | None
    """Tokens per answer, of the kept weights."""
    rejected: int
    seconds_a_step: float | None
    """Seconds per step, without validations."""
    seconds_by_part: dict[str, float] = field(default_factory=dict)


def run(cfg: AlignStage, inputs: Inputs, outputs: Outputs, *, tools: AlignBackend | None = None) -> Metrics:
    """Train the adapter of sft further by preferences; keep the weights of the best validation that the independent metric allows.

    Reads    see ``Inputs``
    Writes   see ``Outputs``
    Returns  Metrics

    Raises   GateError           the method learns from the reward model, and its verdict is failed
             UsageError          align.rewards has reward_model and reward is none; all answers were cut; a reward or the loss is
                                 NaN or infinite; the KL to sft exceeded its limit
             DataError           there are no inputs, no judgments, or too many were rejected; a check names a field that no
                                 input has
             ConfigError         the JSON Schema of a check is invalid
             ArtifactError       sft or reward belong to another base, template or adapter
             InfrastructureError  memory, disk, vLLM, or stopped by the user: the same command resumes
    """
    settings = cfg.align.root
    if isinstance(settings, NoAlign):
        atomic_io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": "align: none"})
        _write_curves((), (), outputs.plots)  # dvc plots wants the files that it is told of
        return Metrics("none", 0, 0, 0, None, 0, None, None, None, None, None, None, None, 0, None)
    align.refuse_bad_schemas(settings)
    needs_reward_model = _wants_reward_model(settings)
    if needs_reward_model:
        _refuse_bad_reward(inputs.reward)
    base = inputs.model if (inputs.cpt / manifest.PASSED_THROUGH).is_file() else inputs.cpt
    model_spec.check_base_matches(inputs.sft, base)
    tools = tools or align.build_backend()
    asking = _PromptRenderer.load(base, inputs.sft, RowCounter("align"))
    data = _data(cfg, settings, inputs, asking)
    _refuse_unknown_fields(settings, data)
    rejected = save(
        asking.tally,
        outputs.artifact,
        records_out=len(data.prompts) + len(data.judged) + len(data.held_out),
        max_rejected_share=settings.max_rejected_share,
        setting="align.max_rejected_share",
    ).rejected
    model = tools.reward(base, inputs.sft, inputs.reward, cfg.hardware) if needs_reward_model else None
    judges = align.build_judges(settings, tools, model)
    try:
        aligned = tools.trainer(settings).fit(
            RlArgs(settings, cfg.seed, cfg.hardware, cfg.project),
            model=base,
            sft=inputs.sft,
            data=data,
            judges=judges,
            out=outputs.artifact,
            work=outputs.work,
        )
    finally:
        if model is not None:
            model.close()
    _write(cfg, settings, data, judges, aligned, tools, inputs, outputs)
    shutil.rmtree(outputs.work, ignore_errors=True)
    return _metrics(settings, aligned, judges, sum(rejected.values()))


def _wants_reward_model(settings: AlignSettings) -> bool:
    return isinstance(settings, Rloo | Grpo) and any(isinstance(term, RewardModelTerm) for term in settings.rewards)


def _refuse_bad_reward(reward: Path) -> None:
    """Refuse a reward model that failed its gate, or is absent."""
    if (reward / manifest.PASSED_THROUGH).is_file():
        raise UsageError(
            "align.rewards names reward_model, but there is none (reward: none)",
            hint="train one: reward=lora, or declare other rewards",
        )
    verdict: dict[str, Any] = atomic_io.read_json(reward / "verdict.json", dict[str, Any])
    if not verdict["passed"]:
        helps = verdict.get("helps") or ["More judgments."]
        raise GateError(
            f"align refuses a reward model whose verdict is {verdict['verdict']}: {verdict['reason']}",
            hint=f"what would help: {' '.join(helps)} Or switch align off: align=none",
        )


@dataclass(frozen=True)
class _PromptRenderer:
    """Renders the inputs of examples as prompts with the chat template."""

    renderer: template.Template
    tokenizer: Tokenizer
    spec: model_spec.ModelSpec
    tally: RowCounter

    @classmethod
    def load(cls, base: Path, sft: Path, tally: RowCounter) -> _PromptRenderer:
        spec = model_spec.load(sft)
        return cls(template.load(base, system=spec.system), Tokenizer(base), spec, tally)

    def render_prompts(self, examples: Sequence[Example], room: int, *, count: bool) -> list[Prompt]:
        """Return the examples that have a separate input and leave ``room`` tokens for an answer; ``count`` counts each."""
        refused: dict[str, str] = {}
        texts = [self._render(example, refused) for example in examples]
        result = []
        limit = self.spec.context
        for example, text, encoded in zip(examples, texts, self.tokenizer.encode(texts), strict=True):
            reason: tuple[RejectReason, str] | None = None
            if not example.messages:
                reason = ("no_separate_answer", "its input and answer are one text")
            elif example.id in refused:
                reason = ("template_refuses", refused[example.id])
            elif limit is not None and len(encoded.ids) + room > limit:
                reason = ("too_long", f"{len(encoded.ids)} tokens and {room} for an answer; the limit is {limit}")
            if count:
                self._count_reject(example, reason)
            if reason is None:
                answers = tuple(answer.text for answer in example.answers)
                result.append(
                    Prompt(
                        id=example.id,
                        messages=tuple(example.messages),
                        text=text,
                        ids=tuple(encoded.ids),
                        references=answers,
                        fields=example.fields,
                        tools=tuple(example.tools),
                        cluster=example.cluster or example.id,
                    )
                )
        return result

    def _render(self, example: Example, refused: dict[str, str]) -> str:
        """Return the prompt of an example; empty where there is none, or the template refuses it, which ``refused`` notes."""
        if not example.messages:
            return ""
        try:
            return self.renderer.render(example.messages, add_generation_prompt=True, tools=example.tools)
        except DataError as error:
            refused[example.id] = error.message
            return ""

    def _count_reject(self, example: Example, reason: tuple[RejectReason, str] | None) -> None:
        self.tally.read()
        if reason is None:
            self.tally.keep()
            return
        text = example.messages[-1].content if example.messages else ""
        self.tally.reject(RejectedRow(example.source, *reason, truncate(text)))


def _data(cfg: AlignStage, settings: AlignSettings, inputs: Inputs, asking: _PromptRenderer) -> PolicyData:
    """Read the training inputs or judgments, and the validation inputs."""
    room = settings.max_new_tokens
    validation = [row for row in atomic_io.read_rows(inputs.split / "validation.jsonl", Example) if row.answers]
    examples = _sample_examples(
        validation, settings.validation.inputs, cfg.seed, "watch"
    )  # the word goes into the seed, so it stays
    prompts = asking.render_prompts(examples, room, count=False)
    if examples and not prompts:
        raise DataError(
            f"align: none of {len(examples)} validation inputs can be answered: they leave no room for an answer of {room} tokens, "
            "or are pre-rendered texts that contain the answer",
            hint=f"lower align.max_new_tokens (now {room}), or bring shorter inputs",
        )
    if len(prompts) < len(examples):
        left_out = len(examples) - len(prompts)
        _log.warning("align: %d of %d validation inputs cannot be asked, and are left out", left_out, len(examples))
    if not prompts:
        raise DataError(
            "align: the validation split has no input with a reference answer, so nothing can be validated",
            hint="add data, or change split.shares; tunectl data counts shows the rows of each split",
        )
    if isinstance(settings, Rloo | Grpo):
        return PolicyData(_prompts(cfg.seed, settings, inputs, asking), (), (), prompts)
    masker = LossMasker(
        asking.renderer, asking.tokenizer, end_of_turn=asking.spec.eot_token.id, train_on="final_answer"
    )
    parts = [_read_preferences(inputs.preferences, part) for part in ("train", "validation")]
    train_records, held_out = preference_batches.build_rows(settings, parts[0], parts[1], masker, asking.tally)
    return PolicyData((), train_records, held_out, prompts)


def _refuse_unknown_fields(settings: AlignSettings, data: PolicyData) -> None:
    """Refuse facts of fields that no input has: such a check applies to no answer.

    Raises  DataError with the setting, the field and the fields there are.
    """
    for key, check in align.checks_of(settings):
        examples = data.validation if key == "align.validation.metric" else data.prompts
        fields = sorted({name for prompt in examples for name in prompt.fields})
        for name in check.fields if isinstance(check, FactsCheck) else ():
            if name not in fields:
                raise DataError(
                    f"{key}.fields names {name}, but no input has that field; there are: {', '.join(fields) or 'none'}",
                    hint="declare it in ingest.sources.<name>.fields, or take it out of this list",
                )


def _prompts(seed: int, settings: Rloo | Grpo, inputs: Inputs, asking: _PromptRenderer) -> list[Prompt]:
    examples = list(atomic_io.read_rows(inputs.split / "train.jsonl", Example))
    if settings.prompts == "preferred":
        preference_split = _read_preferences(inputs.preferences, "train")
        used_prompts = {pair.prompt for pair in preference_split.pairs} | {
            mark.prompt for mark in preference_split.marks
        }
        examples = [example for example in examples if prompt_key(example) in used_prompts]
    examples = _sample_examples(examples, settings.max_inputs or len(examples), seed, "prompts")
    prompts = asking.render_prompts(examples, settings.max_new_tokens, count=True)
    if not prompts:
        qualifier = " that was judged" if settings.prompts == "preferred" else ""
        raise DataError(
            f"align: the train split has no input{qualifier} that leaves room for an answer",
            hint="align.prompts=train takes all inputs; tunectl data show prints them",
        )
    return prompts


def _read_preferences(preferences: Path, part: str) -> preference_batches.PreferenceSplit:
    """Return pairs and labeled answers of one part; none where preferences are switched off."""
    if (preferences / manifest.PASSED_THROUGH).is_file():
        return preference_batches.PreferenceSplit((), ())
    marks = [
        mark
        for mark in atomic_io.read_rows(preferences / "labeled_completions.jsonl", LabeledCompletion)
        if mark.split == part
    ]
    return preference_batches.PreferenceSplit(
        list(atomic_io.read_rows(preferences / f"{part}.jsonl", PreferencePair)), marks
    )


def _sample_examples(examples: Sequence[Example], maximum: int, seed: int, description: str) -> list[Example]:
    """Return a sample of at most ``maximum`` of ``examples``, in their order."""
    if len(examples) <= maximum:
        return list(examples)
    indexes = sorted(random.Random(f"{seed}:{description}").sample(range(len(examples)), maximum))  # noqa: S311  a draw, not a secret
    return [examples[index] for index in indexes]


def _write(
    cfg: AlignStage,
    settings: AlignSettings,
    data: PolicyData,
    judges: RewardFunctions,
    aligned: RlResult,
    tools: AlignBackend,
    inputs: Inputs,
    outputs: Outputs,
) -> None:
    folder = outputs.artifact
    model_spec.save(model_spec.load(inputs.sft), folder)
    count = len(data.prompts) or len(data.judged)
    record = rl_artifacts.to_record(aligned, settings, inputs=count, measure=judges.measure.name)
    atomic_io.write_json(folder / rl_artifacts.FACTS, record)
    atomic_io.write_rows(folder / rl_artifacts.SAMPLES, aligned.samples)
    atomic_io.write_text(folder / rl_artifacts.HISTORY, rl_artifacts.curve(aligned.history, timed=False))
    atomic_io.write_text(folder / rl_artifacts.VALIDATION, rl_artifacts.validation_csv(aligned.validation))
    _write_curves(aligned.history, aligned.validation, outputs.plots)
    atomic_io.write_text(folder / "report.html", tools.page(cfg.project, settings, aligned))


def _write_curves(history: Sequence[StepMetrics], points: Sequence[ValidationPoint], folder: Path) -> None:
    atomic_io.write_text(folder / rl_artifacts.HISTORY, rl_artifacts.curve(history, timed=True))
    atomic_io.write_text(folder / rl_artifacts.VALIDATION, rl_artifacts.validation_csv(points))


def _metrics(settings: AlignSettings, aligned: RlResult, judges: RewardFunctions, rejected: int) -> Metrics:
    first = aligned.validation[0]
    selected = next(point for point in aligned.validation if point.step == aligned.best_step)
    spent = {name: round(seconds, 1) for name, seconds in aligned.seconds.items()}
    stepping = sum(point.seconds for point in aligned.history)
    return Metrics(
        method=settings.method,
        steps=aligned.steps,
        planned_steps=aligned.planned_steps,
        best_step=aligned.best_step,
        stopped=aligned.stopped,
        answers=aligned.answers,
        reward_before=first.reward,
        reward=selected.reward,
        measure=judges.measure.name,
        metric_before=first.metric,
        metric_after=selected.metric,
        kl=selected.kl,
        length=selected.length,
        rejected=rejected,
        seconds_a_step=round(stepping / len(aligned.history), 2) if aligned.history else None,
        seconds_by_part=spent,
    )
