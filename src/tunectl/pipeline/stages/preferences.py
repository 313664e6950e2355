"""Stage preferences: imported, collected and generated judgments -> pairs and labeled answers in train, validation and test."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import SPLIT_NAMES, Comparison, Example, RejectedRow, SplitName
from tunectl.artifacts.row_counts import RowCounter, save
from tunectl.backends.readers import source_rows
from tunectl.backends.wiring import preferences
from tunectl.backends.wiring.preferences import PreferencesBackend
from tunectl.chat import model_spec as contracts
from tunectl.config.schema.feedback import FeedbackConfig
from tunectl.config.schema.preferences import (
    BracketedAttributes,
    PreferencesConfig,
    PreferencesDisabled,
    PreferencesStage,
)
from tunectl.core import logging_setup, progress
from tunectl.core.errors import DataError
from tunectl.data.readers.preference_reader import SECTION, PreferenceReader, PreferenceSourceReport
from tunectl.data.split.groups import prompt_key
from tunectl.preferences import (
    agreement,
    annotation_store,
    annotation_tasks,
    answer_cache,
    arena_limits,
    contrastive_pairs,
    meaning_representation,
    nearest_inputs,
    prompt_split,
    simulated_annotator,
    vote_aggregation,
)
from tunectl.preferences.report import PreferenceReport

_log = logging_setup.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that preferences reads, one per stage."""

    model: Path
    """The base model; loaded only for simulated annotation, like the next two."""
    cpt: Path
    """The weights of cpt that the adapter belongs to, or passed_through.json where cpt is switched off."""
    split: Path
    """The artifact of split: its inputs keep their parts, so that no test input is trained on."""
    sft: Path
    """The adapter of the tuned model."""
    feedback: Path
    """People's edits of live answers, or passed_through.json where the stage is switched off."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folders that preferences fills: the judgments' and that of sampled answers."""

    work: Path
    """Sampled answers, until all are judged."""
    artifact: Path
    """train.jsonl, validation.jsonl, test.jsonl (PreferencePair), labeled_completions.jsonl (LabeledCompletion), judgments.jsonl,
    candidates.jsonl (Example), sampled.jsonl (SampledAnswers of a simulated annotator), decisions.json, row_counts.json, rejects.jsonl,
    report.json; or
    passed_through.json."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of judgments and pairs; shares from 0 to 1. All zero where there are no judgments."""

    judgments: int
    pairs: int
    marks: int
    candidates: int
    """Number of answers that people wrote."""
    contrasts: int
    """Number of judgments made from references."""
    simulated: int
    """Number of judgments of a simulated annotator."""
    annotators: int
    rejected: dict[str, int]
    alpha: float | None
    """Krippendorff's alpha; None where nothing was judged twice."""
    longer_wins: float | None
    """Share of the pairs in which the longer answer won."""


def run(
    cfg: PreferencesStage, inputs: Inputs, outputs: Outputs, *, backend: PreferencesBackend | None = None
) -> Metrics:
    """Merge the judgments of all sources, reject contradictory ones, and split them by input into train, validation and test.

    Reads    the declared sources, the store of ``tunectl annotate`` and feedback/judgments.jsonl; split/{train,validation,test}.jsonl; the tuned model
             where an annotator is simulated
    Writes   see ``Outputs``
    Returns  Metrics

    Raises   DataError for a source that is absent, empty or misread, when too many judgments were rejected, or when a part
             would be empty; ArtifactError where the adapter belongs to another model
    """
    rules = cfg.preferences.root
    if isinstance(rules, PreferencesDisabled):
        atomic_io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": "preferences: none"})
        return Metrics(0, 0, 0, 0, 0, 0, 0, {}, None, None)
    tools = backend or preferences.build_backend(cfg.hardware)
    tally = RowCounter("preferences")
    collected = _collect(cfg, rules, inputs, outputs, tools, tally)
    aggregate = vote_aggregation.aggregate_votes(collected.judgments, _rules(rules, cfg.seed), tally)
    _write_account(aggregate, collected.reports, rules, tally, outputs.artifact)
    shares: dict[SplitName, float] = {part: getattr(rules.shares, part) for part in SPLIT_NAMES}
    split_names = _read_split_assignments(inputs.split)
    parts = prompt_split.split_by_prompt([*aggregate.pairs, *aggregate.marks], split_names, shares, cfg.seed)
    measured = agreement.inter_annotator_agreement(collected.annotated, tools.alpha, seed=cfg.seed)
    report = _report(collected, aggregate, parts, split_names, measured)
    candidates = _write(collected, aggregate, parts, report, outputs.artifact)
    shutil.rmtree(outputs.work, ignore_errors=True)
    return Metrics(
        judgments=len(collected.judgments),
        pairs=len(aggregate.pairs),
        marks=len(aggregate.marks),
        candidates=candidates,
        contrasts=len(collected.contrasts.judgments),
        simulated=collected.simulated_summary.judged if collected.simulated_summary else 0,
        annotators=sum(person.name != agreement.UNNAMED for person in measured.people),
        rejected=tally.finish(records_out=0).rejected,
        alpha=measured.alpha,
        longer_wins=report.longer_wins.value if report.longer_wins else None,
    )


class _CollectedJudgments(NamedTuple):
    """All judgments, from all sources."""

    annotated: list[Comparison]
    """Judgments of people, and of a simulated annotator."""
    reports: dict[str, PreferenceSourceReport]
    contrasts: contrastive_pairs.Contrasts
    simulated_summary: simulated_annotator.AnnotationSummary | None

    @property
    def judgments(self) -> list[Comparison]:
        return [*self.annotated, *self.contrasts.judgments]


def _collect(
    cfg: PreferencesStage,
    rules: PreferencesConfig,
    inputs: Inputs,
    outputs: Outputs,
    tools: PreferencesBackend,
    tally: RowCounter,
) -> _CollectedJudgments:
    judgments, reports = _read(rules, tally)
    if rules.collected is not None:
        judgments += _read_store(ProjectPaths().root / rules.collected, cfg.feedback, tally)
    contrasts = _contrasts(rules, inputs.split, cfg.seed, tally)
    simulated, simulation = _simulate_annotator(rules, inputs, outputs, cfg.seed, tools, tally)
    return _CollectedJudgments(
        [*judgments, *_read_edits(inputs.feedback, tally), *simulated], reports, contrasts, simulation
    )


def _report(
    collected: _CollectedJudgments,
    aggregate: vote_aggregation.AggregatedVotes,
    parts: dict[str, SplitName],
    split_names: dict[str, SplitName],
    measured: agreement.InterAnnotatorAgreement,
) -> PreferenceReport:
    return PreferenceReport(
        sizes={part: sum(parts[pair.prompt] == part for pair in aggregate.pairs) for part in SPLIT_NAMES},
        marks={part: sum(parts[mark.prompt] == part for mark in aggregate.marks) for part in SPLIT_NAMES},
        prompts=len(parts),
        prompts_of_split={part: sum(split_names.get(prompt) == part for prompt in parts) for part in SPLIT_NAMES},
        moved=prompt_split.count_moved([*aggregate.pairs, *aggregate.marks], parts),
        longer_wins=agreement.longer_wins(map(agreement.pair_texts, aggregate.pairs)),
        agreement=measured,
        contrast=collected.contrasts.reports,
        simulated=collected.simulated_summary,
    )


def _write(
    collected: _CollectedJudgments,
    aggregate: vote_aggregation.AggregatedVotes,
    parts: dict[str, SplitName],
    report: PreferenceReport,
    folder: Path,
) -> int:
    """Write pairs, labeled answers, judgments and candidates; returns how many candidates there are."""
    pairs = prompt_split.with_split(aggregate.pairs, parts)
    for part in SPLIT_NAMES:
        atomic_io.write_rows(folder / f"{part}.jsonl", (pair for pair in pairs if pair.split == part))
    atomic_io.write_rows(folder / "labeled_completions.jsonl", prompt_split.with_split(aggregate.marks, parts))
    atomic_io.write_rows(folder / "judgments.jsonl", collected.judgments)
    atomic_io.write_json(folder / "report.json", report)
    return atomic_io.write_rows(folder / "candidates.jsonl", vote_aggregation.human_written_examples(aggregate.edited))


def _rules(cfg: PreferencesConfig, seed: int) -> vote_aggregation.AggregationRules:
    return vote_aggregation.AggregationRules(cfg.min_attention_score, cfg.contradictions, cfg.max_per_annotator, seed)


def _read(cfg: PreferencesConfig, tally: RowCounter) -> tuple[list[Comparison], dict[str, PreferenceSourceReport]]:
    """Return the imported judgments; invalid rows are rejected already."""
    comparisons: list[Comparison] = []
    reports = {}
    for kind, source in cfg.sources.items():
        key = f"{SECTION}.{kind}"
        intake = PreferenceReader(
            kind, source, tally=tally, emit=comparisons.append, max_rejected_share=cfg.max_rejected_share
        )
        for file in source_rows.files(source.path, source, source.limits.max_files, key):
            intake.read_file(
                file, source_rows.with_progress(source_rows.rows(file, source, key, source_rows.TABLE_READERS), kind)
            )
        reports[kind] = intake.finish()
    return comparisons, reports


def _read_store(folder: Path, feedback: FeedbackConfig, tally: RowCounter) -> list[Comparison]:
    """Return the judgments of a store of ``tunectl annotate``; arena votes over the limits of feedback are rejected."""
    rows = list(progress.track(annotation_store.load_annotations(folder), "collected"))
    # the arena, in the server, names a conversation by a digest of its own; by the key of split a test input is known as one
    keyed = [
        replace(row, prompt=prompt_key(Example("", row.annotation.source, messages=row.messages, tools=row.tools)))
        if row.kind == annotation_store.ARENA
        else row
        for row in rows
        if isinstance(row, Comparison)
    ]
    judgments, over = arena_limits.limit_arena_votes(keyed, feedback.root)
    tally.read(len(rows))
    for row in (*(row for row in rows if isinstance(row, RejectedRow)), *over):
        tally.reject(row)
    return judgments


def _read_edits(feedback: Path, tally: RowCounter) -> list[Comparison]:
    """Return edits of live answers as judgments: the edited answer is the better one."""
    path = feedback / "judgments.jsonl"
    result = list(atomic_io.read_rows(path, Comparison)) if path.is_file() else []
    tally.read(len(result))
    return result


def _contrasts(cfg: PreferencesConfig, split: Path, seed: int, tally: RowCounter) -> contrastive_pairs.Contrasts:
    """Return pairs made from references, where they are declared.

    Raises  DataError when no input has attributes, or a part has no two similar inputs
    """
    contrast = cfg.contrast
    if contrast is None:
        return contrastive_pairs.Contrasts([], {})
    attributes, cards = contrast.attributes, {}
    for part in SPLIT_NAMES:
        rows = [(prompt_key(row), row) for row in atomic_io.read_rows(split / f"{part}.jsonl", Example) if row.messages]
        own = [
            meaning_representation.parse_mr(row.messages[-1].content)
            if isinstance(attributes, BracketedAttributes)
            else meaning_representation.from_fields(row.fields, attributes.fields)
            for _, row in rows
        ]
        cards[part] = contrastive_pairs.build_prompt_records(rows, own)
    rules = contrastive_pairs.ContrastRules(
        pairs={part: getattr(contrast.max_pairs, part) for part in SPLIT_NAMES},
        per_input=contrast.max_pairs_per_input,
        differences=contrast.max_differences,
        kinds={kind: getattr(contrast.kinds, kind) for kind in nearest_inputs.KINDS},
        seed=seed,
        withhold=attributes.masked_attribute_share if isinstance(attributes, BracketedAttributes) else 0.0,
    )
    contrasts = contrastive_pairs.sample_pairs(cards, rules)
    for part in SPLIT_NAMES:
        tally.read(contrasts.reports[part].pairs)
        _log.info("preferences: contrast, %s: %s", part, contrasts.reports[part].format_summary(rules.pairs[part]))
    return contrasts


def _simulate_annotator(
    cfg: PreferencesConfig, inputs: Inputs, outputs: Outputs, seed: int, tools: PreferencesBackend, tally: RowCounter
) -> tuple[list[Comparison], simulated_annotator.AnnotationSummary | None]:
    """Return the judgments of a rubric on answers sampled from the tuned model, where one is declared.

    Raises  ArtifactError where the adapter belongs to another model; DataError without an input to answer
    """
    settings = cfg.simulated
    if settings is None:
        return [], None
    tuned_on = inputs.model if (inputs.cpt / manifest.PASSED_THROUGH).is_file() else inputs.cpt
    contracts.check_base_matches(inputs.sft, tuned_on)
    rows_with_keys = []
    for part in SPLIT_NAMES:
        path = inputs.split / f"{part}.jsonl"
        rows = annotation_tasks.sample_inputs(
            list(atomic_io.read_rows(path, Example)), getattr(settings.inputs, part), seed
        )
        if not rows:
            raise DataError(
                f"preferences.simulated: {path} holds no input to answer",
                hint=f"give the {part} part a larger share in split.shares, or bring more data",
            )
        rows_with_keys += [(row, prompt_key(row)) for row in rows]
    with ExitStack() as stack:
        answers = list(
            answer_cache.sample_answers(
                rows_with_keys,
                settings.answers,
                lambda: preferences.make_answer_writer(
                    tools, tuned_on, inputs.sft, settings.decoding, "answers of sft", stack
                ),
                seed,
                outputs.work,
            )
        )
    atomic_io.write_rows(outputs.artifact / "sampled.jsonl", answers)
    judgments, result = simulated_annotator.annotate(answers, settings, seed)
    _log.info(
        "preferences: %s: %d judgments of %d comparisons, %d ties",
        settings.annotator,
        result.judged,
        result.compared,
        result.ties,
    )
    tally.read(len(judgments))
    return judgments, result


def _write_account(
    aggregate: vote_aggregation.AggregatedVotes,
    reports: dict[str, PreferenceSourceReport],
    cfg: PreferencesConfig,
    tally: RowCounter,
    folder: Path,
) -> None:
    atomic_io.write_json(folder / "decisions.json", reports)
    account = save(
        tally,
        folder,
        records_out=len(aggregate.pairs) + len(aggregate.marks),
        max_rejected_share=cfg.max_rejected_share,
        setting="preferences.max_rejected_share",
    )
    _log.info(
        "preferences: %d judgments, %d kept; %d pairs, %d marks",
        account.rows_in,
        account.kept,
        len(aggregate.pairs),
        len(aggregate.marks),
    )


def _read_split_assignments(split: Path) -> dict[str, SplitName]:
    """Return the part of every input in ``split``."""
    return {
        prompt_key(row): part for part in SPLIT_NAMES for row in atomic_io.read_rows(split / f"{part}.jsonl", Example)
    }
