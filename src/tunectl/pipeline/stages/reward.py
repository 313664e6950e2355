"""Stage reward: pairs -> a model of what people prefer, measured on pairs that it never saw."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from msgspec import Struct

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.records import SPLIT_NAMES, PreferencePair
from tunectl.artifacts.row_counts import RowCounter, RowCounts, save
from tunectl.backends.reports import reward
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.reward import RewardModelConfig, RewardStage
from tunectl.core import logging_setup
from tunectl.core.errors import DataError, UsageError
from tunectl.preferences.agreement import InterAnnotatorAgreement, Proportion
from tunectl.training.protocols import LogPoint, TrainResult
from tunectl.training.reward import pair_batches, reward_artifacts, reward_evaluation
from tunectl.training.reward.pair_batches import PromptGroup, TokenizedPair
from tunectl.training.reward.reward_args import RewardArgs, RewardTrainer, from_config
from tunectl.training.reward.reward_artifacts import JUDGE, MEMBERS, WEIGHTS, Fit, RewardFacts, RewardResults
from tunectl.training.reward.reward_evaluation import EnsembleScores, EvalContext
from tunectl.training.reward.reward_gate import GateContext
from tunectl.training.reward.reward_metrics import CalibrationBin
from tunectl.training.sft import report
from tunectl.training.train_args import derive_seed, suggest_for_lost_loss

_log = logging_setup.get_logger(__name__)
_DONE = "fitted.json"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that reward reads, one per stage."""

    model: Path
    cpt: Path
    """The model of cpt, or passed_through.json where cpt is switched off."""
    sft: Path
    """The adapter that the reward model is based on, and its system text."""
    preferences: Path


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folders that reward fills; ``work`` has checkpoints and survives a kill."""

    artifact: Path
    """members/0, members/1, ..., judge, reward.json, results.json, verdict.json, report.html, model_spec.json, row_counts.json,
    rejects.jsonl, history.csv; or passed_through.json."""
    plots: Path
    """history.csv, reliability.csv."""
    work: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Results of the reward model on the test pairs; shares from 0 to 1, losses in nats per pair. None where it is switched off."""

    passed: bool | None
    verdict: str
    accuracy: float | None
    accuracy_low: float | None
    accuracy_high: float | None
    log_loss: float | None
    ece: float | None
    length_only: float | None
    """Accuracy of a model that knows only the lengths."""
    judge_accuracy: float | None
    train_pairs: int
    test_pairs: int
    rejected: int
    tokens_per_second: float | None
    """Tokens of prompts and answers per second in all training steps, without padding."""


class _PreferenceReportView(Struct, frozen=True):
    """The part of the report of ``preferences`` that this stage reads."""

    longer_wins: Proportion | None
    agreement: InterAnnotatorAgreement


@dataclass(frozen=True, slots=True)
class _Part:
    """The pairs of one part, as tokens and side by side."""

    available: int
    """Number of pairs in preferences."""
    items: list[TokenizedPair]
    bundles: list[PromptGroup]

    @property
    def pairs(self) -> list[PreferencePair]:
        return [item.pair for item in self.items]


def run(cfg: RewardStage, inputs: Inputs, outputs: Outputs, *, trainer: RewardTrainer | None = None) -> Metrics:
    """Train the reward models (the ensemble for align, one for evaluate), measure them on test pairs, and decide whether align may use them.

    Reads    inputs.preferences  train.jsonl, validation.jsonl, test.jsonl, report.json
             inputs.sft          the adapter and model_spec.json; inputs.cpt or inputs.model as the base
    Writes   see ``Outputs``; a failed verdict is not an error, because DVC would delete the files that explain it
    Returns  Metrics

    Raises   DataError           preferences are switched off, a part has no pairs, or too many pairs were rejected
             ArtifactError       the sft adapter belongs to another base
             UsageError          the loss or a reward is NaN or infinite
             InfrastructureError  memory, disk, or stopped by the user: the same command resumes
    """
    section = cfg.reward.root
    if not isinstance(section, RewardModelConfig):
        atomic_io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": "reward: none"})
        _plot([], [], outputs.plots)  # columns without lines: `dvc plots` complains of absent files
        return Metrics(None, "switched_off", None, None, None, None, None, None, None, 0, 0, 0, None)
    _refuse_no_pairs(inputs.preferences)
    base = inputs.model if (inputs.cpt / manifest.PASSED_THROUGH).is_file() else inputs.cpt
    model_spec.check_base_matches(inputs.sft, base)
    (train, validation, test), account = _read(inputs, base, section, cfg.seed, outputs.artifact)
    own, judges = _shares(train.items, section, cfg.seed)
    fitting = _ResumableTrainer(
        cfg, section, (base, inputs.sft), validation.bundles, outputs.work, trainer or _default_trainer()
    )
    for number in range(section.ensemble_size):
        fitting.fit(f"{MEMBERS}/{number}", own, number)
    if section.evaluation_model is not None:
        fitting.fit(JUDGE, judges, section.ensemble_size - 1 + section.evaluation_model.seed_offset)
    raw = fitting.rewards([*validation.bundles, *test.bundles])
    members = reward_evaluation.center_and_combine(raw[: section.ensemble_size], validation.bundles, test.bundles)
    judge = (
        reward_evaluation.center_and_combine(raw[section.ensemble_size :], validation.bundles, test.bundles)
        if section.evaluation_model
        else None
    )
    context = _build_eval_context(cfg, section, (train, validation, test), own)
    gate_context = _around(inputs.preferences, len(own), fitting.fitted[0])
    results = reward_evaluation.results(context, members, judge, fitting.records, gate_context)
    _write(results, fitting, outputs)
    records, folder = fitting.records, outputs.artifact
    spec = model_spec.load(base)
    facts = RewardFacts(
        base=spec.weights_sha256,
        sft=atomic_io.sha256_path(inputs.sft / WEIGHTS),
        template=spec.template_sha256,
        max_tokens=section.max_length,
        members=_part(members, own, records[: section.ensemble_size], folder),
        judge=_part(judge, judges, records[section.ensemble_size :], folder) if judge else None,
        validation_pairs=len(validation.items),
        test_pairs=len(test.items),
    )
    atomic_io.write_json(folder / reward_artifacts.FACTS, facts)
    shutil.rmtree(outputs.work, ignore_errors=True)
    _log.info("%s", results.verdict.reason)
    return _metrics(results, account, fitting.fitted)


def _refuse_no_pairs(preferences: Path) -> None:
    if (preferences / manifest.PASSED_THROUGH).is_file():
        raise DataError(
            "reward: preferences are switched off, so there are no pairs to learn from",
            hint="switch preferences on, for example preferences=default, or switch reward off: reward=none",
        )


def _read(
    inputs: Inputs, base: Path, section: RewardModelConfig, seed: int, folder: Path
) -> tuple[tuple[_Part, _Part, _Part], RowCounts]:
    """Return the three parts as rows, and the counts of their pairs.

    Raises  DataError where a part has none, or too many were rejected.
    """
    spec = model_spec.load(inputs.sft)
    model_spec.save(spec, folder)
    rendering = template.load(base, system=spec.system)
    masker = LossMasker(rendering, Tokenizer(base), end_of_turn=spec.eot_token.id, train_on="final_answer")
    tally = RowCounter("reward")
    result = {}
    for name in SPLIT_NAMES:
        rows = list(atomic_io.read_rows(inputs.preferences / f"{name}.jsonl", PreferencePair))
        _refuse_empty(name, rows)
        pairs = pair_batches.subsample_prompts(rows, getattr(section.max_pairs, name), seed)
        if len(pairs) < len(rows):
            _log.info("reward: %d of %d pairs of %s, as reward.max_pairs.%s says", len(pairs), len(rows), name, name)
        items = pair_batches.tokenize_pairs(pairs, masker, max_tokens=section.max_length, tally=tally)
        margins = section.margins and name == "train"  # held-out losses are compared with runs without margins
        result[name] = _Part(
            len(rows), items, pair_batches.group_pairs(items, share=section.prefix_sharing, margins=margins)
        )
    account = save(
        tally,
        folder,
        records_out=sum(len(part.items) for part in result.values()),
        max_rejected_share=section.max_rejected_share,
        setting="reward.max_rejected_share",
    )
    for name, part in result.items():
        _refuse_empty(name, part.items)
    return (result["train"], result["validation"], result["test"]), account


def _refuse_empty(name: str, result: Sequence[object]) -> None:
    if not result:
        raise DataError(
            f"reward: the {name} part of preferences has no pairs to use",
            hint="one part trains, one selects the weights, one tests them: add preferences "
            "(tunectl annotate, or preferences.sources), or switch this off: reward=none",
        )


def _shares(
    items: Sequence[TokenizedPair], section: RewardModelConfig, seed: int
) -> tuple[list[TokenizedPair], list[TokenizedPair]]:
    """Return the training pairs of the members, and those of the judge: no prompt is in both.

    Raises  DataError where one of them would get none.
    """
    if section.evaluation_model is None:
        return list(items), []
    prompts = sorted(
        {item.pair.prompt for item in items}, key=lambda prompt: pair_batches.position(prompt, f"judge {seed}")
    )
    count = max(1, round(len(prompts) * section.evaluation_model.share))
    if count >= len(prompts):
        raise DataError(
            f"reward: the training pairs have {len(prompts)} prompt{'' if len(prompts) == 1 else 's'}, and the "
            "evaluation model needs prompts that training does not use",
            hint="add pairs of more prompts, or switch the evaluation model off: reward.evaluation_model=null",
        )
    chosen_prompts = set(prompts[:count])
    own = [item for item in items if item.pair.prompt not in chosen_prompts]
    return own, [item for item in items if item.pair.prompt in chosen_prompts]


class _ResumableTrainer:
    """Trains one reward model after the other; a finished one is kept in the work folder and not trained again."""

    def __init__(
        self,
        cfg: RewardStage,
        section: RewardModelConfig,
        model: tuple[Path, Path],
        validation: list[PromptGroup],
        work: Path,
        trainer: RewardTrainer,
    ) -> None:
        self._cfg, self._section, (self._base, self._sft) = cfg, section, model
        self._validation, self._work, self._trainer = validation, work, trainer
        self.fitted: list[TrainResult] = []
        self.records: list[Fit] = []

    def fit(self, name: str, items: Sequence[TokenizedPair], offset: int) -> None:
        """Train the ensemble member ``name``, ``offset`` after the stage's seed; one that a killed run had finished is read from its folder."""
        out, seed = self.folder(name), derive_seed(self._cfg.seed, offset)
        work = self._work.with_name(f"{self._work.name}-{name.replace('/', '-')}")
        if not (out / _DONE).is_file():
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            train = pair_batches.group_pairs(items, share=self._section.prefix_sharing, margins=self._section.margins)
            result = self._trainer.fit(
                self._plan(train, seed),
                model=self._base,
                sft=self._sft,
                train=train,
                validation=self._validation,
                out=out,
                work=work,
            )
            atomic_io.write_json(out / _DONE, result)
        shutil.rmtree(work, ignore_errors=True)  # a kill may have come just before
        fitted: TrainResult = atomic_io.read_json(out / _DONE, TrainResult)
        self.fitted.append(fitted)
        self.records.append(reward_artifacts.fit(name, seed, fitted))

    def _plan(self, train: Sequence[PromptGroup], seed: int) -> RewardArgs:
        """Return training arguments whose step has about the declared number of pairs: steps are cut by answers, and pairs may share some."""
        pairs = sum(len(bundle.pairs) for bundle in train)
        answers = sum(len(bundle.branches) for bundle in train)
        step = max(1, round(self._section.batch_size * answers / max(1, pairs)))
        cfg = self._cfg
        return from_config(self._section, answers=step, seed=seed, profile=cfg.hardware, project=cfg.project)

    def rewards(self, bundles: Sequence[PromptGroup]) -> list[list[list[float]]]:
        """Return raw rewards of all trained models, in their order.

        Raises  UsageError where one is no number.
        """
        members = [self.folder(record.name) for record in self.records]
        result = self._trainer.rewards(
            self._plan(bundles, self._cfg.seed), model=self._base, sft=self._sft, members=members, bundles=bundles
        )
        for record, raw in zip(self.records, result, strict=True):
            _refuse_no_number(record.name, [reward for rewards in raw for reward in rewards], self._section)
        return result

    def folder(self, name: str) -> Path:
        """Return the folder of the weights of ``name`` until all are finished."""
        return self._work / name


def _build_eval_context(
    cfg: RewardStage, section: RewardModelConfig, parts: tuple[_Part, _Part, _Part], pairs: Sequence[TokenizedPair]
) -> EvalContext:
    train, validation, test = parts
    return EvalContext(
        project=cfg.project,
        seed=cfg.seed,
        gate=section.gate,
        available=[part.available for part in parts],
        train=train.pairs,
        own=[item.pair for item in pairs],
        validation=validation.pairs,
        test=test.pairs,
    )


def _refuse_no_number(name: str, rewards: Sequence[float], section: RewardModelConfig) -> None:
    bad = [reward for reward in rewards if not isfinite(reward)]
    if bad:
        raise UsageError(
            f"reward: the reward that {name} gives to {len(bad)} of {len(rewards)} held-out answers is {bad[0]}, not a number",
            hint=suggest_for_lost_loss("reward", section.learning_rate, section.max_grad_norm),
        )


def _around(preferences: Path, train: int, result: TrainResult) -> GateContext:
    report: _PreferenceReportView = atomic_io.read_json(preferences / "report.json", _PreferenceReportView)
    longer = report.longer_wins
    biased = longer is not None and not longer.low <= 0.5 <= longer.high
    losses = [point.loss for point in result.history if point.loss is not None]
    return GateContext(
        train_pairs=train,
        train_loss=losses[-1] if losses else None,
        validation_loss=result.best_loss,
        judgments=report.agreement.judgments,
        alpha=report.agreement.alpha,
        longer_wins=longer.value if longer is not None and biased else None,
    )


def _write(results: RewardResults, fitting: _ResumableTrainer, outputs: Outputs) -> None:
    folder = outputs.artifact
    for record, fitted in zip(fitting.records, fitting.fitted, strict=True):
        shutil.copytree(fitting.folder(record.name), folder / record.name, ignore=shutil.ignore_patterns(_DONE))
        atomic_io.write_text(folder / record.name / report.HISTORY, report.curve(fitted.history, timed=False))
    first = fitting.fitted[0].history
    atomic_io.write_text(folder / report.HISTORY, report.curve(first, timed=False))
    _plot(first, results.test.bins, outputs.plots)
    atomic_io.write_json(folder / reward_artifacts.RESULTS, results)
    atomic_io.write_json(folder / reward_artifacts.VERDICT, results.verdict)
    atomic_io.write_text(folder / reward_artifacts.REPORT, reward.page(results, first))


def _plot(history: Sequence[LogPoint], bins: Sequence[CalibrationBin], folder: Path) -> None:
    atomic_io.write_text(folder / report.HISTORY, report.curve(history, timed=True))
    atomic_io.write_text(folder / "reliability.csv", reward_artifacts.reliability(bins))


def _part(
    scores: EnsembleScores, items: Sequence[TokenizedPair], records: Sequence[Fit], folder: Path
) -> reward_artifacts.Ensemble:
    return reward_artifacts.Ensemble(
        seeds=[record.seed for record in records],
        weights=[atomic_io.sha256_path(folder / record.name / WEIGHTS) for record in records],
        centers=scores.centers,
        scale=scores.scale,
        pairs=len(items),
        prompts=len({item.pair.prompt for item in items}),
    )


def _metrics(results: RewardResults, account: RowCounts, fitted: Sequence[TrainResult]) -> Metrics:
    accuracy = results.test.accuracy
    return Metrics(
        passed=results.verdict.passed,
        verdict=results.verdict.verdict,
        accuracy=accuracy.value,
        accuracy_low=accuracy.low,
        accuracy_high=accuracy.high,
        log_loss=results.test.log_loss.value,
        ece=results.test.ece.value,
        length_only=results.length_only.accuracy.value,
        judge_accuracy=results.judge.accuracy.value if results.judge else None,
        train_pairs=results.train_pairs,
        test_pairs=results.test.pairs,
        rejected=sum(account.rejected.values()),
        tokens_per_second=round(sum(fit.tokens for fit in fitted) / max(1e-9, sum(fit.seconds for fit in fitted)), 1),
    )


def _default_trainer() -> RewardTrainer:
    from tunectl.backends.trainers.reward_trainer import RewardModelTrainer

    return RewardModelTrainer()
