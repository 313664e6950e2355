"""Stage evaluate: base, prompted, nearest, tuned and aligned side by side -> results, report, verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunectl.artifacts import atomic_io, manifest, privacy_budget
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Comparison, Example
from tunectl.backends.reports import evaluate
from tunectl.backends.wiring import evaluation
from tunectl.chat import model_spec as contracts
from tunectl.config.schema.evaluate import Evaluate, EvaluateStage, FactsCheck, SchemaCheck
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.evaluation import (
    alignment_gate,
    few_shot,
    items,
    plot_data,
    privacy_note,
    results,
    run_evaluation,
    summary,
)
from tunectl.evaluation.protocols import Generator
from tunectl.evaluation.results import AnswerRow, Results
from tunectl.evaluation.run_evaluation import EvaluationData, EvaluationSettings, SystemOutputs
from tunectl.evaluation.system import TITLES
from tunectl.evaluation.win_rates_by_judge import JudgeInputs
from tunectl.pipeline import alignment_diagnosis
from tunectl.preferences import annotation_store
from tunectl.training.reward import reward_artifacts
from tunectl.training.reward.protocols import ScoredPrompt
from tunectl.training.reward.reward_artifacts import RewardAccuracies
from tunectl.training.reward.reward_gate import format_percent

_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that evaluate reads, one per stage."""

    model: Path
    """The base model."""
    cpt: Path
    """The weights of cpt that the adapter belongs to, or passed_through.json where cpt is switched off."""
    split: Path
    """Test inputs; validation inputs for the prompt search; train for examples and the nearest answer."""
    sft: Path
    """The adapter and its training curve."""
    reward: Path
    """``judge``: the reward model that was not used for training, ``members``: that of align; or passed_through.json where the stage is switched off."""
    align: Path
    """The adapter of align, or passed_through.json where the stage is switched off."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folders that evaluate fills: results, and CSV files for plots."""

    artifact: Path
    """results.json, answers.jsonl, input_scores.jsonl, verdict.json, report.html."""
    plots: Path
    """scores.csv, differences.csv, slices.csv, prompts.csv, win_rates.csv, slots.csv."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers for ``dvc metrics``: verdict, gains and scores; units are those of ``evaluation.metrics``."""

    inputs: int
    """Number of test inputs answered by every system."""
    passed: bool
    verdict: str
    gain: float | None
    """Tuned minus base in the primary metric."""
    gain_low: float | None
    gain_high: float | None
    aligned: str | None
    """Verdict about aligned against tuned; None where align was switched off."""
    aligned_gain: float | None
    """Aligned minus tuned in the primary metric of the aligned gate; for the win rate, points over 50 %."""
    win_rates: dict[str, float]
    """Share of the pairs that aligned won against tuned by each judge, ties half; 0 to 1."""
    epsilon: float | None
    """Privacy loss of the tuned adapter; None where sft was not private, or had no noise."""
    systems: dict[str, dict[str, float]]
    """Value of each metric by system."""


def run(
    cfg: EvaluateStage, inputs: Inputs, outputs: Outputs, *, backend: evaluation.EvaluationBackend | None = None
) -> Metrics:
    """Answer the test inputs with every system, score and compare the answers, and write the verdict.

    Reads    split/{train,validation,test}.jsonl, split/report.json, the models, reward/judge, sft/history.csv, the judgments in
             ``evaluate.aligned.human_judgments_dir``; align and reward/members where aligned is not surely better
    Writes   results.json, answers.jsonl and input_scores.jsonl (one line a test input), verdict.json (``passed`` is the gate), report.html
    Returns  Metrics; a failed verdict is not an error, because DVC would delete the files that explain it

    Raises   DataError for test data without a usable input, and for checks and slices of fields that no input has;
             ArtifactError where an adapter or the judge belongs to another model
    """
    tools = backend or evaluation.build_backend(cfg.hardware, cfg.evaluate.judge)
    for check in cfg.evaluate.checks:
        if isinstance(check, SchemaCheck):
            tools.refuse_bad_schema(check.document, f"evaluate.checks.{check.name}.document")
    data = _read_data(inputs.split, cfg.evaluate, cfg.seed)
    setting = EvaluationSettings(cfg.evaluate, cfg.project, cfg.seed, tools.tools, tools.signature)
    tuned_on = inputs.model if (inputs.cpt / manifest.PASSED_THROUGH).is_file() else inputs.cpt
    trained = {"tuned": inputs.sft, "aligned": inputs.align}
    if (inputs.align / manifest.PASSED_THROUGH).is_file():
        del trained["aligned"]
    for adapter in trained.values():
        contracts.check_base_matches(adapter, tuned_on)
    prompters = [tools.prompter(inputs.model, None), *(tools.prompter(tuned_on, item) for item in trained.values())]
    data, first = _run_base(tools, inputs.model, setting, data, prompters)
    rounds = [first, run_evaluation.run_retrieval_baseline(setting, data)]
    rounds += [
        _run_system(tools, tuned_on, adapter, partial(run_evaluation.run_model, name, setting, data))
        for name, adapter in trained.items()
    ]
    panel = _collect_judges(cfg, inputs, tuned_on, data, rounds, tools) if "aligned" in trained else None
    result, input_scores = run_evaluation.evaluate(setting, data, rounds, tools.ask, panel)
    if panel is not None:
        alignment = _alignment(inputs, tuned_on, data, rounds, panel, tools)
        result = alignment_diagnosis.add_causes(result, input_scores, cfg, alignment)
    if budget := privacy_budget.load(inputs.sft):
        trained_openly = [
            name for name, on in (("cpt", tuned_on != inputs.model), ("align", "aligned" in trained)) if on
        ]
        result = privacy_note.add_privacy(result, budget, trained_openly)
    _write(result, data, rounds, inputs, outputs)
    atomic_io.write_rows(outputs.artifact / results.INPUT_SCORES, input_scores)
    _log_result(result)
    gain, own_gain = result.difference("base"), alignment_gate.primary_difference(cfg.evaluate.aligned, result)
    return Metrics(
        inputs=result.inputs,
        passed=result.verdict.passed,
        verdict=result.verdict.verdict,
        gain=gain.value if gain else None,
        gain_low=gain.low if gain else None,
        gain_high=gain.high if gain else None,
        aligned=result.verdict.aligned.verdict if result.verdict.aligned else None,
        aligned_gain=own_gain.value if own_gain else None,
        win_rates={rate.judge: rate.rate for rate in result.win_rates if rate.rate is not None},
        epsilon=budget.epsilon if budget else None,
        systems=summary.to_dvc_metrics(result),
    )


def _run_base(
    tools: evaluation.EvaluationBackend,
    folder: Path,
    setting: EvaluationSettings,
    data: EvaluationData,
    prompters: Sequence[few_shot.FewShotRenderer],
) -> tuple[EvaluationData, SystemOutputs]:
    """Return the inputs that every system is asked, and the answers of the base model, whose renderer is the first of ``prompters``."""
    generator = tools.open(folder, None)
    try:
        data = run_evaluation.leave_out_unanswerable(setting, data, generator, prompters)
        return data, run_evaluation.run_base(setting, data, generator, prompters[0])
    finally:
        generator.close()


def _run_system(
    tools: evaluation.EvaluationBackend,
    folder: Path,
    adapter: Path | None,
    run: Callable[[Generator, few_shot.FewShotRenderer], SystemOutputs],
) -> SystemOutputs:
    """Load one model, run it, give its memory back."""
    generator = tools.open(folder, adapter)
    try:
        return run(generator, tools.prompter(folder, adapter))
    finally:
        generator.close()


def _collect_judges(
    cfg: EvaluateStage,
    inputs: Inputs,
    base: Path,
    data: EvaluationData,
    rounds: Sequence[SystemOutputs],
    tools: evaluation.EvaluationBackend,
) -> JudgeInputs:
    """Return the scores and judgments of the reward model and of people on tuned and aligned answers."""
    people = _read_human_judgments(cfg.evaluate.aligned.human_judgments_dir)
    trust, why_not = _judge_facts(inputs.reward)
    if why_not:
        return JudgeInputs(why_not, people)
    entries = run_evaluation.all_systems(rounds)
    judge = tools.reward(base=base, sft=inputs.sft, reward=inputs.reward, part="judge", profile=cfg.hardware)
    try:
        prompts = [ScoredPrompt(item.messages, item.tools) for item in data.items]
        scores = {
            name: [item.value for item in judge.score(prompts, entries[name].answers)] for name in ("tuned", "aligned")
        }
    finally:
        judge.close()
    return JudgeInputs(scores, people, trust)


def _read_human_judgments(folder: str | None) -> list[Comparison] | str:
    """Return the judgments of people from the annotation page, or the reason why there are none.

    Raises  DataError where the declared folder holds no judgments.
    """
    if folder is None:
        return "evaluate.aligned.human_judgments_dir is null"
    folder_path = ProjectPaths().root / folder
    if not annotation_store.has_annotations(folder_path):
        raise DataError(
            f"evaluate.aligned.human_judgments_dir = {folder}: that folder holds no judgments",
            hint="let people compare align and sft: tunectl annotate annotate.prepare.systems=[align,sft]",
        )
    return [
        annotation
        for annotation in annotation_store.load_annotations(folder_path)
        if isinstance(annotation, Comparison)
    ]


def _alignment(
    inputs: Inputs,
    base: Path,
    data: EvaluationData,
    rounds: Sequence[SystemOutputs],
    panel: JudgeInputs,
    tools: evaluation.EvaluationBackend,
) -> alignment_diagnosis.AlignmentInputs:
    entries = run_evaluation.all_systems(rounds)
    return alignment_diagnosis.AlignmentInputs(
        base=base,
        sft=inputs.sft,
        reward=inputs.reward,
        align=inputs.align,
        items=data.items,
        answers={name: entries[name].answers for name in ("tuned", "aligned")},
        scores=panel.scores,
        load_reward=tools.reward,
    )


def _judge_facts(reward: Path) -> tuple[str, str]:
    """Return how reliable the reward judge is, and why there is none; one of the two is empty.

    A judge that may be no better than chance on held-out pairs is not used: its win rate would be noise.
    """
    if (reward / manifest.PASSED_THROUGH).is_file():
        return "", "there is no reward model (reward: none)"
    result: RewardAccuracies = atomic_io.read_json(reward / reward_artifacts.RESULTS, RewardAccuracies)
    if result.judge is None or not (reward / reward_artifacts.JUDGE).is_dir():
        return "", "no second reward model was trained to judge (reward.evaluation_model is null)"
    accuracy = result.judge.accuracy
    fact = f"it is right on {format_percent(accuracy)} of {result.judge.pairs} held-out pairs"
    return ("", f"{fact}, which may be chance") if (accuracy.low or 0) <= 0.5 else (fact, "")


def _read_data(split: Path, cfg: Evaluate, seed: int) -> EvaluationData:
    """Return the inputs to answer (of ``evaluate.split``), validation and train.

    Raises  DataError where no such example can be answered, or a declared field is in none of them.
    """
    path = split / f"{cfg.split}.jsonl"
    test, skipped = items.from_examples(atomic_io.read_rows(path, Example))
    if not test:
        reasons = ", ".join(f"{count} {reason}" for reason, count in skipped.items()) or "it is empty"
        raise DataError(
            f"{path} holds no input with a reference answer: {reasons}",
            hint="declare sources whose rows have an input and an answer (ingest.sources), and give test a share (split.shares)",
        )
    _refuse_unknown_fields(test, cfg)
    validation, _ = items.from_examples(atomic_io.read_rows(split / "validation.jsonl", Example))
    pool, _ = items.from_examples(atomic_io.read_rows(split / "train.jsonl", Example))
    return EvaluationData(items.sample_items(test, cfg.max_inputs, seed), validation, pool, len(test), skipped)


def _refuse_unknown_fields(test: Sequence[items.Item], cfg: Evaluate) -> None:
    """Refuse slices and facts of fields that no test input has: such a check could not fail.

    Raises  DataError with the setting, the field and the fields there are.
    """
    fields = sorted({name for item in test for name in item.fields})
    named_fields = [("evaluate.slices.fields", name) for name in cfg.slices.fields]
    for check in cfg.checks:
        if isinstance(check, FactsCheck):
            named_fields += [(f"evaluate.checks.{check.name}.fields", name) for name in check.fields]
    for setting, name in named_fields:
        if name not in fields:
            raise DataError(
                f"{setting} names {name}, but no test input has that field; there are: {', '.join(fields) or 'none'}",
                hint="declare it in ingest.sources.<name>.fields, or take it out of this list",
            )


def _table(result: Results) -> list[str]:
    """Return the comparison as lines of text for the log."""
    columns, rows = summary.summary_rows(result)
    widths = [max(len(row[index]) for row in (columns, *rows)) for index in range(len(columns))]
    return [
        "  ".join(
            cell.ljust(width) if not index else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (columns, *rows)
    ]


def _log_result(result: Results) -> None:
    lines = (*_table(result), *summary.win_lines(result), *result.warnings, result.verdict.reason)
    for line in (*lines, *summary.cause_lines(result)):
        _log.info("%s", line)


def _write(
    result: Results, data: EvaluationData, rounds: Sequence[SystemOutputs], inputs: Inputs, outputs: Outputs
) -> None:
    answers = {entry.name: entry.answers for round_ in rounds for entry in round_.entries}
    names = [name for name in TITLES if name in answers]
    rows = (
        AnswerRow(
            item.id,
            item.question,
            list(item.references),
            item.fields,
            {name: answers[name][index] for name in names},
        )
        for index, item in enumerate(data.items)
    )
    atomic_io.write_json(outputs.artifact / results.NAME, result)
    atomic_io.write_rows(outputs.artifact / results.ANSWERS, rows)
    atomic_io.write_json(outputs.artifact / results.VERDICT, result.verdict)
    page = evaluate.page(result, history=inputs.sft / "history.csv", split=inputs.split / "report.json")
    atomic_io.write_text(outputs.artifact / results.REPORT, page)
    for name, text in plot_data.csv_files(result).items():
        atomic_io.write_text(outputs.plots / name, text)
