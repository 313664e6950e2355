"""Stage curate: raw records -> training records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.disk_list import DiskList, RowList, require_free_bytes
from tunectl.artifacts.records import Document, Example, RejectedRow
from tunectl.config.schema.curate import CurateStage, PiiConfig
from tunectl.data.curation_pipeline import CurationEngine, CurationPipeline, FilterDeps
from tunectl.data.curation_report import tally_records
from tunectl.data.filters.pii import mask_reject
from tunectl.data.transform import Pipeline, Record
from tunectl.privacy.mask import PiiMasker

_DOCUMENTS, _EXAMPLES, _REPORT = "documents.jsonl", "examples.jsonl", "report.json"
_DROPPED = "dropped_answers.jsonl"
IN_MEMORY_BYTES = 2**29
"""Size up to which records are kept in memory, where they take about four times as much; larger ones are kept in files in between."""
DISK_FACTOR = 4
"""Disk space over the size of the records: the input, before and after a filter, and the output."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """Artifact folders that curate reads: ingest's and feedback's."""

    ingest: Path
    feedback: Path
    """Rows from feedback on live traffic, or passed_through.json where the stage is switched off."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """Folder that curate fills with records, rejects and its report."""

    artifact: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Numbers of records before and after curation."""

    records_in: int
    documents: int
    examples: int
    answers: int
    rejected: int
    merged: int
    personal: int
    """Number of masked places."""
    reasons: dict[str, int]
    """Rejected records by reason."""


def run(
    cfg: CurateStage,
    inputs: Inputs,
    outputs: Outputs,
    *,
    libraries: FilterDeps | None = None,
    engine: CurationEngine | None = None,
) -> Metrics:
    """Repair, filter, mask and deduplicate documents and examples; several references of one input become one record.

    ``engine`` None: in this process.

    Reads    inputs.ingest     documents.jsonl, examples.jsonl
             inputs.feedback    examples.jsonl
    Writes   outputs.artifact  the same two, row_counts.json, rejects.jsonl, report.json (its fields are in ``data/curation_report.py``),
                               dropped_answers.jsonl: answers removed from records that keep other answers
    Returns  Metrics           counts of records

    Raises   DataError    a line is not a record, or more than ``curate.max_rejected_share`` was rejected
             ConfigError  an unknown language, region or locale; an invalid regular expression
    """
    build = partial(CurationPipeline.build, cfg.curate, libraries or _libraries(), seed=cfg.seed)
    line = build(threads=cfg.hardware.threads)
    scratch = _choose_scratch(inputs, outputs.artifact)
    total = row_counts.RowCounter("curate", _open_rejects(scratch))
    if engine is None:
        records = _read_records(inputs, scratch)
        before = tally_records(records)
        after = Pipeline(total, scratch).run(line.blocks(), records)
    else:
        after = [] if scratch is None else DiskList(scratch, Document, Example)
        before = engine(cfg.curate, line, partial(build, threads=1), _input_files(inputs), total, after)
    dropped = line.collect_dropped_answers()
    if line.pii is not None:
        masked = _open_rejects(scratch)
        for reject in total.rejects:
            masked.append(mask_reject(reject, line.pii.masker))
        total.rejects = masked
        dropped = [mask_reject(reject, line.pii.masker) for reject in dropped]
    merged = total.kept - len(after)
    report = line.report(
        before, tally_records(after), rejected=Counter(reject.reason for reject in total.rejects), merged=merged
    )
    atomic_io.write_rows(outputs.artifact / _DOCUMENTS, (record for record in after if isinstance(record, Document)))
    atomic_io.write_rows(outputs.artifact / _EXAMPLES, (record for record in after if isinstance(record, Example)))
    atomic_io.write_rows(outputs.artifact / _DROPPED, dropped)
    atomic_io.write_json(outputs.artifact / _REPORT, report)
    share, setting = cfg.curate.max_rejected_share, "curate.max_rejected_share"
    row_counts.save(total, outputs.artifact, records_out=len(after), max_rejected_share=share, setting=setting)
    return Metrics(
        records_in=before.count,
        documents=report.records.documents_after,
        examples=report.records.examples_after,
        answers=report.answers.after,
        rejected=len(total.rejects),
        merged=merged,
        personal=sum((report.personal or {}).values()),
        reasons=report.rejected,
    )


def _choose_scratch(inputs: Inputs, folder: Path) -> Path | None:
    """Return where records are kept meanwhile: None for memory, ``folder`` where there are more than ``IN_MEMORY_BYTES``.

    Raises  InfrastructureError where the disk has too little space for them.
    """
    size = sum(path.stat().st_size for path in _input_files(inputs) if path.is_file())
    if size <= IN_MEMORY_BYTES:
        return None
    require_free_bytes(folder, DISK_FACTOR * size, f"curate, of records of {size / 1e9:.1f} GB,")
    return folder


def _input_files(inputs: Inputs) -> list[Path]:
    """Return the files of records; that of feedback is left out where nothing was collected."""
    feedback = [] if (inputs.feedback / manifest.PASSED_THROUGH).is_file() else [inputs.feedback / _EXAMPLES]
    return [inputs.ingest / _DOCUMENTS, inputs.ingest / _EXAMPLES, *feedback]


def _open_rejects(scratch: Path | None) -> RowList[RejectedRow]:
    return [] if scratch is None else DiskList(scratch, RejectedRow)


def _read_records(inputs: Inputs, scratch: Path | None) -> Sequence[Record]:
    """Return documents, examples, and the examples from feedback on live traffic."""
    documents, *examples = _input_files(inputs)
    rows: list[Iterable[Record]] = [
        atomic_io.read_rows(documents, Document),
        *(atomic_io.read_rows(path, Example) for path in examples),
    ]
    if scratch is None:
        return [record for part in rows for record in part]
    records: DiskList[Record] = DiskList(scratch, Document, Example)
    for part in rows:
        records.extend(part)
    return records


def _libraries() -> FilterDeps:
    from tunectl.backends.text import language_id, mojibake, pii_resources

    def masker(personal: PiiConfig) -> PiiMasker:
        tools = pii_resources.tools(regions=personal.regions, locales=personal.locales)
        return PiiMasker(tools, kinds=personal.kinds, keep=personal.keep)

    return FilterDeps(
        mojibake=lambda repair: mojibake.make_fixer() if repair.mojibake else str,
        languages=lambda language: language_id.make_detector(language.allowed),
        personal=masker,
    )
