"""Stage split: curated records -> train, validation and test without leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import SPLIT_NAMES, Document, Example, RejectedRow, SplitName, truncate
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.artifacts.row_counts import RowCounter, save
from tunectl.config.schema.split import ContaminationCheck, HoldOut, Resample, Reweight, Split, SplitStage
from tunectl.core import logging_setup
from tunectl.core.errors import DataError
from tunectl.data import population_balance
from tunectl.data.record_text import input_text
from tunectl.data.split import contamination
from tunectl.data.split.assign import HELD, SplitRule, assign_splits
from tunectl.data.split.groups import Group, answer_texts, find_connected_groups
from tunectl.data.split.report import NAME, ContaminationReport, LeakSample, SplitReport, Weights, imbalance_sentences

_log = logging_setup.get_logger(__name__)
_R = TypeVar("_R", Example, Document)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folder that split reads: curate's."""

    curate: Path


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folder that split fills with train, validation, test, documents and its report."""

    artifact: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of records per split; shares from 0 to 1."""

    train: int
    validation: int
    test: int
    documents: int
    rejected: int
    leaks: int
    """Train records and documents that contain most of a validation or test text."""
    test_4grams_seen: float | None
    train_effective: float
    """Kish's effective number of train records; equal to ``train`` where nothing is weighted."""


def run(cfg: SplitStage, inputs: Inputs, outputs: Outputs) -> Metrics:
    """Split the curated records, remove leaks from train, and adjust it to the declared population.

    Reads    inputs.curate     examples.jsonl, documents.jsonl
    Writes   outputs.artifact  train.jsonl, validation.jsonl, test.jsonl, documents.jsonl, row_counts.json, rejects.jsonl, report.json
    Returns  Metrics

    Raises   DataError         a split would be empty, or too many rows were rejected
    """
    rules = cfg.split
    examples = list(atomic_io.read_rows(inputs.curate / "examples.jsonl", Example))
    documents = list(atomic_io.read_rows(inputs.curate / "documents.jsonl", Document))
    tally = RowCounter("split")
    tally.read(len(examples) + len(documents))
    parts = _divide(examples, rules, cfg.seed, tally)
    train_documents = _train_side(documents, parts, rules.documents_exclude_groups, tally)
    parts["train"], kept_documents, leaks = _without_leaks(parts, train_documents, rules.leakage, tally)
    train, weights = _balance_train(parts["train"], rules, cfg.seed, tally)
    parts["train"] = train
    tally.keep(len(parts["validation"]) + len(parts["test"]) + len(kept_documents))
    report = replace(_report(examples, documents, parts, (leaks, weights), cfg), documents=len(kept_documents))
    _write(outputs.artifact, parts, kept_documents, report)
    records_out = sum(map(len, parts.values())) + len(kept_documents)
    account = save(
        tally,
        outputs.artifact,
        records_out=records_out,
        max_rejected_share=rules.max_rejected_share,
        setting="split.max_rejected_share",
    )
    for sentence in imbalance_sentences(report.balance, "records"):
        _log.warning(sentence)
    effective = weights.effective if weights else float(len(train))
    return Metrics(
        train=len(train),
        validation=len(parts["validation"]),
        test=len(parts["test"]),
        documents=len(kept_documents),
        rejected=sum(account.rejected.values()),
        leaks=leaks.found + leaks.documents if leaks else 0,
        test_4grams_seen=report.test_4grams_seen,
        train_effective=effective,
    )


def _rule(cfg: Split, seed: int) -> SplitRule:
    """Return the split section as plain values."""
    shares: dict[SplitName, float] = {
        "train": cfg.shares.train,
        "validation": cfg.shares.validation,
        "test": cfg.shares.test,
    }
    hold_out = {field: _group_hold_out_by_part(values) for field, values in cfg.hold_out.items()}
    return SplitRule(shares, tuple(cfg.stratify), tuple(cfg.group), hold_out, seed)


def _group_hold_out_by_part(values: HoldOut) -> dict[SplitName, frozenset[str]]:
    return {"validation": frozenset(values.validation), "test": frozenset(values.test)}


def _divide(examples: Sequence[Example], cfg: Split, seed: int, tally: RowCounter) -> dict[SplitName, list[Example]]:
    _refuse_unknown_fields(examples, cfg)
    parts: dict[SplitName, list[Example]] = {part: [] for part in SPLIT_NAMES}
    clusters = _clusters(find_connected_groups(examples, cfg.group))
    for example, assignment, cluster in zip(examples, assign_splits(examples, _rule(cfg, seed)), clusters, strict=True):
        if assignment.reason is None:
            parts[assignment.part].append(replace(example, split=assignment.part, cluster=cluster))
        else:
            tally.reject(_reject(example, assignment.reason, assignment.detail))
    return parts


def _refuse_unknown_fields(examples: Sequence[Example], cfg: Split) -> None:
    """Raise for a field that no record has: it is a mistake in the YAML."""
    if not examples:
        raise DataError(
            "split: there is no example to train and test on",
            hint="declare a source of inputs with answers in ingest.sources; tunectl data counts shows what was rejected",
        )
    present = {name for example in examples for name in example.fields}
    named = {
        "split.stratify": cfg.stratify,
        "split.group": cfg.group,
        "split.hold_out": cfg.hold_out,
        "split.population": cfg.population,
    }
    for setting, fields in named.items():
        for name in fields:
            if name not in present:
                names = ", ".join(sorted(present)) or "none"
                raise DataError(
                    f"{setting}: no record has a field {name}; fields kept by ingest: {names}",
                    hint="list it under fields of its source in the ingest section",
                )


def _without_leaks(
    parts: Mapping[SplitName, list[Example]],
    documents: list[Document],
    cfg: ContaminationCheck | None,
    tally: RowCounter,
) -> tuple[list[Example], list[Document], ContaminationReport | None]:
    train = parts["train"]
    if cfg is None:
        return train, documents, None
    held_out = [example for part in HELD for example in parts[part]]
    examples, inside = _leaking(train, held_out, cfg, tally)
    texts, document_leaks = _leaking(documents, held_out, cfg, tally)
    if not examples:
        raise DataError(
            f"split: train is empty: all {len(train)} records leak into validation or test ({cfg.min_overlap:.0%} of word {cfg.ngram}-grams)",
            hint="raise split.leakage.min_overlap or split.leakage.ngram, or count leaks only: split.leakage.action=report",
        )
    samples = [_sample(train[leak.train], held_out[leak.held_out], leak) for leak in inside[:5]]
    samples += [_sample(documents[leak.train], held_out[leak.held_out], leak) for leak in document_leaks[:5]]
    report = ContaminationReport(
        len(inside), len(document_leaks), cfg.action == "remove", cfg.ngram, cfg.min_overlap, samples
    )
    return examples, texts, report


def _leaking(
    records: list[_R], examples: list[Example], cfg: ContaminationCheck, tally: RowCounter
) -> tuple[list[_R], list[contamination.Leak]]:
    """Return the records that are kept, and the leaks that were found; with ``report`` all are kept."""
    leaks = contamination.find_contaminated(
        records, examples, compare=cfg.compare, ngram=cfg.ngram, overlap=cfg.min_overlap
    )
    if cfg.action == "report":
        return records, leaks
    for leak in leaks:
        detail = f"{leak.overlap:.0%} of the {leak.what} of {examples[leak.held_out].split} record {examples[leak.held_out].id}"
        tally.reject(_reject(records[leak.train], "leaks_into_test", detail))
    leaking = {leak.train for leak in leaks}
    return [record for row, record in enumerate(records) if row not in leaking], leaks


def _sample(train: Example | Document, example: Example, leak: contamination.Leak) -> LeakSample:
    texts = [
        record.text
        if isinstance(record, Document)
        else " / ".join(answer_texts(record))
        if leak.what == "answer"
        else input_text(record)
        for record in (train, example)
    ]
    return LeakSample(leak.what, leak.overlap, truncate(texts[0]), truncate(texts[1]))


def _train_side(
    documents: Sequence[Document], parts: Mapping[SplitName, list[Example]], fields: Sequence[str], tally: RowCounter
) -> list[Document]:
    held_values = {
        name: {e.fields[name]: part for part in HELD for e in parts[part] if e.fields.get(name)} for name in fields
    }
    remaining = []
    for document in documents:
        name = next((name for name in fields if document.fields.get(name) in held_values[name]), None)
        if name is None:
            remaining.append(document)
            continue
        value = document.fields[name]
        detail = f"{name}={value} is in {held_values[name][value]}"
        tally.reject(_reject(document, "about_a_test_group", detail))
    return remaining


def _balance_train(
    train: list[Example], cfg: Split, seed: int, tally: RowCounter
) -> tuple[list[Example], Weights | None]:
    if isinstance(cfg.balance, Resample):
        return _resample_train(train, cfg.population, cfg.balance, seed, tally)
    tally.keep(len(train))
    if isinstance(cfg.balance, Reweight):
        raked = population_balance.raking_weights(
            train, cfg.population, low=cfg.balance.min_weight, high=cfg.balance.max_weight
        )
        weights = Weights("reweight", raked.effective, raked.gap, min(raked.weights), max(raked.weights))
        return [
            replace(example, weight=round(weight, 6)) for example, weight in zip(train, raked.weights, strict=True)
        ], weights
    return train, None


def _resample_train(
    train: list[Example], population: Mapping[str, Mapping[str, float]], cfg: Resample, seed: int, tally: RowCounter
) -> tuple[list[Example], Weights]:
    raked = population_balance.raking_weights(train, population, low=1e-3, high=cfg.max_copies / cfg.size)
    copies = [weight * cfg.size for weight in raked.weights]
    times = population_balance.resample_counts(train, copies, fields=list(population), most=cfg.max_copies, seed=seed)
    tally.keep(sum(count > 0 for count in times))
    resampled = []
    for example, count in zip(train, times, strict=True):
        if count == 0:
            values = ", ".join(f"{name}={example.fields.get(name, '')}" for name in population)
            tally.reject(_reject(example, "over_represented", values))
        resampled += [
            example if copy == 0 else replace(example, id=f"{example.id}#{copy + 1}") for copy in range(count)
        ]
    return resampled, Weights("resample", raked.effective, raked.gap, float(min(times)), float(max(times)))


def _report(
    examples: Sequence[Example],
    documents: Sequence[Document],
    parts: Mapping[SplitName, list[Example]],
    result: tuple[ContaminationReport | None, Weights | None],
    cfg: SplitStage,
) -> SplitReport:
    together = find_connected_groups(examples, cfg.split.group)
    train = parts["train"]
    observed = {
        "records": ([example.fields for example in examples], None, _names(together)),
        "documents": ([document.fields for document in documents], None, _document_names(documents, cfg.split.group)),
        "train": (
            [example.fields for example in train],
            [example.weight for example in train],
            _names(find_connected_groups(train, cfg.split.group)),
        ),
    }
    return SplitReport(
        sizes={part: len(rows) for part, rows in parts.items()},
        answers={part: sum(len(answer_texts(example)) for example in rows) for part, rows in parts.items()},
        documents=0,
        groups=len(together),
        largest_group=max(len(group.rows) for group in together),
        leaks=result[0],
        test_4grams_seen=contamination.overlap_share(train, parts["test"]),
        validation_4grams_seen=contamination.overlap_share(train, parts["validation"]),
        balance={
            name: [
                population_balance.measure_shares(
                    rows, field, target, seed=cfg.seed, weights=weights, clusters=clusters
                )
                for field, target in cfg.split.population.items()
            ]
            for name, (rows, weights, clusters) in observed.items()
            if cfg.split.population
        },
        weights=result[1],
    )


def _clusters(together: Sequence[Group]) -> list[str | None]:
    """Return the group of each record, in their order; None where it is in none. Later intervals are resampled by it."""
    singletons = {group.key for group in together if len(group.rows) == 1}
    return [None if name in singletons else name for name in _names(together)]


def _names(together: Sequence[Group]) -> list[str]:
    """Return the group of each record, in their order."""
    names = {row: group.key for group in together for row in group.rows}
    return [names[row] for row in range(len(names))]


def _document_names(documents: Sequence[Document], fields: Sequence[str]) -> list[str]:
    """Group documents by their declared value; a document without one is its own group."""
    return [next((f"{name}={d.fields[name]}" for name in fields if d.fields.get(name)), d.id) for d in documents]


def _write(
    folder: Path, parts: Mapping[SplitName, list[Example]], documents: list[Document], report: SplitReport
) -> None:
    for part, rows in parts.items():
        atomic_io.write_rows(folder / f"{part}.jsonl", rows)
    atomic_io.write_rows(folder / "documents.jsonl", documents)
    atomic_io.write_json(folder / NAME, report)


def _reject(record: Example | Document, reason: RejectReason, detail: str) -> RejectedRow:
    text = record.text if isinstance(record, Document) else input_text(record)
    return RejectedRow(record.source, reason, detail, truncate(text))
