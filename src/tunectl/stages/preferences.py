"""Stage preferences: imported, collected and made judgements -> pairs and marks in train, validation and test."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tunectl.artifacts import io, manifest
from tunectl.artifacts.layout import Layout
from tunectl.artifacts.records import Example, Judgement, Reject
from tunectl.artifacts.tally import Tally, save
from tunectl.backends import preference_tools, source_files
from tunectl.backends.preference_tools import Backend
from tunectl.chat import contract as contracts
from tunectl.config.preferences import BracketedAttributes, Merged, NoPreferences, PreferencesStage
from tunectl.core import log, progress
from tunectl.core.errors import DataError
from tunectl.data.grouping import input_key
from tunectl.data.reading.judged import SECTION, JudgedIntake, JudgedReport
from tunectl.preferences import agreement, attributes, contrast, division, pairs, questions, rubric, sampled, store
from tunectl.preferences.division import PARTS, Part
from tunectl.preferences.report import PreferenceReport

_log = log.get(__name__)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Folders of upstream stages."""

    model: Path
    """The base model; opened only for simulated answers, like the next two."""
    adapt: Path
    """The further pre-trained weights that the adapter belongs to, or a note that there are none."""
    split: Path
    """Its inputs keep their parts, so that no test input is learned from."""
    sft: Path
    """The adapter of the tuned model."""
    harvest: Path
    """What people edited in live answers, or a note that there is nothing."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where results go."""

    work: Path
    """Sampled answers, until all are judged."""
    artifact: Path
    """train.jsonl, validation.jsonl, test.jsonl (Pair), marks.jsonl (Mark), judgements.jsonl, candidates.jsonl (Example),
    sampled.jsonl (Sampled, where an annotator is simulated), decisions.json, account.json, rejects.jsonl, report.json; or
    passed_through.json."""


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counts; shares from 0 to 1. All zero where nobody was asked."""

    judgements: int
    pairs: int
    marks: int
    candidates: int
    """Answers that people wrote."""
    contrasts: int
    """Of the judgements, those made of references."""
    simulated: int
    """Of the judgements, those of a rubric."""
    annotators: int
    rejected: dict[str, int]
    alpha: float | None
    """Krippendorff's; None where nothing was judged twice."""
    longer_wins: float | None
    """Share of the pairs in which the longer answer won."""


def run(cfg: PreferencesStage, inputs: Inputs, outputs: Outputs, *, backend: Backend | None = None) -> Metrics:
    """Merge what people said, throw out what contradicts itself, and divide it by input.

    Reads    the declared sources, the store of ``tunectl annotate`` and harvest/judgements.jsonl; split/{train,validation,test}.jsonl; the tuned model
             where an annotator is simulated
    Writes   see ``Outputs``
    Returns  Metrics

    Raises   DataError for a source that is absent, empty or misread, when too many judgements were rejected, or when a part
             would be empty; ArtifactError where the adapter belongs to another model
    """
    rules = cfg.preferences.root
    if isinstance(rules, NoPreferences):
        io.write_json(outputs.artifact / manifest.PASSED_THROUGH, {"reason": "preferences: none"})
        return Metrics(0, 0, 0, 0, 0, 0, 0, {}, None, None)
    tools = backend or preference_tools.backend(cfg.profile)
    tally = Tally("preferences")
    heard = _hear(rules, inputs, outputs, cfg.seed, tools, tally)
    found = pairs.gather(heard.judgements, _rules(rules, cfg.seed), tally)
    _write_account(found, heard.reports, rules, tally, outputs.artifact)
    shares: dict[Part, float] = {part: getattr(rules.shares, part) for part in PARTS}
    known = _known(inputs.split)
    parts = division.divide([*found.pairs, *found.marks], known, shares, cfg.seed)
    measured = agreement.measure(heard.said, tools.alpha, seed=cfg.seed)
    report = _report(heard, found, parts, known, measured)
    candidates = _write(heard, found, parts, report, outputs.artifact)
    shutil.rmtree(outputs.work, ignore_errors=True)
    return Metrics(
        judgements=len(heard.judgements),
        pairs=len(found.pairs),
        marks=len(found.marks),
        candidates=candidates,
        contrasts=len(heard.contrasts.judgements),
        simulated=heard.asked.judged if heard.asked else 0,
        annotators=sum(person.name != agreement.UNNAMED for person in measured.people),
        rejected=tally.close(records_out=0).rejected,
        alpha=measured.alpha,
        longer_wins=report.longer_wins.value if report.longer_wins else None,
    )


class _Heard(NamedTuple):
    """All judgements, wherever they come from."""

    said: list[Judgement]
    """Of people, and of an annotator that is simulated."""
    reports: dict[str, JudgedReport]
    contrasts: contrast.Contrasts
    asked: rubric.Asked | None

    @property
    def judgements(self) -> list[Judgement]:
        return [*self.said, *self.contrasts.judgements]


def _hear(cfg: Merged, inputs: Inputs, outputs: Outputs, seed: int, tools: Backend, tally: Tally) -> _Heard:
    said, reports = _read(cfg, tally)
    contrasts = _contrasts(cfg, inputs.split, seed, tally)
    simulated, asked = _simulated(cfg, inputs, outputs, seed, tools, tally)
    return _Heard([*said, *_edited(inputs.harvest, tally), *simulated], reports, contrasts, asked)


def _report(
    heard: _Heard, found: pairs.Gathered, parts: dict[str, Part], known: dict[str, Part], measured: agreement.Agreement
) -> PreferenceReport:
    return PreferenceReport(
        sizes={part: sum(parts[pair.prompt] == part for pair in found.pairs) for part in PARTS},
        marks={part: sum(parts[mark.prompt] == part for mark in found.marks) for part in PARTS},
        prompts=len(parts),
        prompts_of_split={part: sum(known.get(prompt) == part for prompt in parts) for part in PARTS},
        moved=division.moved([*found.pairs, *found.marks], parts),
        longer_wins=agreement.longer_wins(map(agreement.pair_texts, found.pairs)),
        agreement=measured,
        contrast=heard.contrasts.made,
        simulated=heard.asked,
    )


def _write(heard: _Heard, found: pairs.Gathered, parts: dict[str, Part], report: PreferenceReport, folder: Path) -> int:
    """Write pairs, marks, judgements and candidates; returns how many candidates there are."""
    placed = division.placed(found.pairs, parts)
    for part in PARTS:
        io.write_rows(folder / f"{part}.jsonl", (pair for pair in placed if pair.split == part))
    io.write_rows(folder / "marks.jsonl", division.placed(found.marks, parts))
    io.write_rows(folder / "judgements.jsonl", heard.judgements)
    io.write_json(folder / "report.json", report)
    return io.write_rows(folder / "candidates.jsonl", pairs.candidates(found.edited))


def _rules(cfg: Merged, seed: int) -> pairs.Rules:
    return pairs.Rules(cfg.attention, cfg.contradictions, cfg.rows_per_annotator, seed)


def _read(cfg: Merged, tally: Tally) -> tuple[list[Judgement], dict[str, JudgedReport]]:
    """All judgements, imported first; rows that are none are rejected already."""
    found: list[Judgement] = []
    reports = {}
    for kind, declared in cfg.sources.items():
        key = f"{SECTION}.{kind}"
        intake = JudgedIntake(kind, declared, tally=tally, emit=found.append, max_rejected_share=cfg.max_rejected_share)
        for file in source_files.files(declared.path, declared, declared.limits.files, key):
            intake.take(
                file, source_files.counted(source_files.rows(file, declared, key, source_files.TABLE_READERS), kind)
            )
        reports[kind] = intake.finish()
    if cfg.collected is not None:
        for item in progress.track(store.collected(Layout().root / cfg.collected), "collected"):
            tally.saw()
            if isinstance(item, Reject):
                tally.reject(item)
            else:
                found.append(item)
    return found, reports


def _edited(harvest: Path, tally: Tally) -> list[Judgement]:
    """Edits of live answers: the edited one is the better one."""
    path = harvest / "judgements.jsonl"
    found = list(io.read_rows(path, Judgement)) if path.is_file() else []
    tally.saw(len(found))
    return found


def _contrasts(cfg: Merged, split: Path, seed: int, tally: Tally) -> contrast.Contrasts:
    """Pairs of references, where they are declared.

    Raises  DataError when no input has attributes, or a part has no two inputs that are near
    """
    wanted = cfg.contrast
    if wanted is None:
        return contrast.Contrasts([], {})
    how, cards = wanted.attributes, {}
    for part in PARTS:
        rows = [(input_key(row), row) for row in io.read_rows(split / f"{part}.jsonl", Example) if row.messages]
        own = [
            attributes.bracketed(row.messages[-1].content)
            if isinstance(how, BracketedAttributes)
            else attributes.declared(row.fields, how.fields)
            for _, row in rows
        ]
        cards[part] = contrast.cards(rows, own)
    rules = contrast.Rules(
        pairs={part: getattr(wanted.pairs, part) for part in PARTS},
        per_input=wanted.per_input,
        differences=wanted.differences,
        kinds={kind: getattr(wanted.kinds, kind) for kind in contrast.KINDS},
        seed=seed,
        withhold=how.withhold if isinstance(how, BracketedAttributes) else 0.0,
    )
    made = contrast.draw(cards, rules)
    for part in PARTS:
        tally.saw(made.made[part].pairs)
        _log.info("preferences: contrast, %s: %s", part, made.made[part].line(rules.pairs[part]))
    return made


def _simulated(
    cfg: Merged, inputs: Inputs, outputs: Outputs, seed: int, tools: Backend, tally: Tally
) -> tuple[list[Judgement], rubric.Asked | None]:
    """What a rubric says about answers that the tuned model samples, where one is declared.

    Raises  ArtifactError where the adapter belongs to another model; DataError without an input to answer
    """
    wanted = cfg.simulated
    if wanted is None:
        return [], None
    tuned_on = inputs.model if (inputs.adapt / manifest.PASSED_THROUGH).is_file() else inputs.adapt
    contracts.refuse_other_base(inputs.sft, tuned_on)
    chosen = []
    for part in PARTS:
        path = inputs.split / f"{part}.jsonl"
        rows = questions.drawn(list(io.read_rows(path, Example)), getattr(wanted.inputs, part), seed)
        if not rows:
            raise DataError(f"preferences.simulated: {path} holds no input to answer", hint="check split.shares")
        chosen += [(row, input_key(row)) for row in rows]
    with ExitStack() as stack:
        asked = list(
            sampled.sample(
                chosen,
                wanted.answers,
                lambda: preference_tools.writer(tools, tuned_on, inputs.sft, wanted.decoding, "answers of sft", stack),
                seed,
                outputs.work,
            )
        )
    io.write_rows(outputs.artifact / "sampled.jsonl", asked)
    judgements, found = rubric.judge(asked, wanted, seed)
    _log.info(
        "preferences: %s: %d judgements of %d comparisons, %d ties",
        wanted.annotator,
        found.judged,
        found.compared,
        found.ties,
    )
    tally.saw(len(judgements))
    return judgements, found


def _write_account(
    found: pairs.Gathered, reports: dict[str, JudgedReport], cfg: Merged, tally: Tally, folder: Path
) -> None:
    io.write_json(folder / "decisions.json", reports)
    account = save(
        tally,
        folder,
        records_out=len(found.pairs) + len(found.marks),
        max_rejected_share=cfg.max_rejected_share,
        setting="preferences.max_rejected_share",
    )
    _log.info(
        "preferences: %d judgements, %d kept; %d pairs, %d marks",
        account.rows_in,
        account.kept,
        len(found.pairs),
        len(found.marks),
    )


def _known(split: Path) -> dict[str, Part]:
    """The part of every input that ``split`` has placed."""
    return {input_key(row): part for part in PARTS for row in io.read_rows(split / f"{part}.jsonl", Example)}
