"""Stage curate: records as they came -> records to learn from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts import atomic_io, manifest, row_counts
from tunectl.artifacts.records import Document, Example
from tunectl.config.schema.curate import CurateStage, PiiConfig
from tunectl.data.curation_pipeline import CurationPipeline, FilterDeps
from tunectl.data.filters.pii import mask_reject
from tunectl.data.transform import Pipeline, Record
from tunectl.privacy.mask import PiiMasker

_DOCUMENTS, _EXAMPLES, _REPORT = "documents.jsonl", "examples.jsonl", "report.json"
_DROPPED = "dropped_answers.jsonl"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the stage reads."""

    ingest: Path
    feedback: Path
    """Rows of live traffic, or a note that there are none."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """What the stage leaves."""

    artifact: Path


@dataclass(frozen=True, slots=True)
class Metrics:
    """Counts of records, before and after."""

    records_in: int
    documents: int
    examples: int
    answers: int
    rejected: int
    merged: int
    personal: int
    """Places that were masked."""
    reasons: dict[str, int]
    """Rejected records by reason."""


def run(cfg: CurateStage, inputs: Inputs, outputs: Outputs, *, libraries: FilterDeps | None = None) -> Metrics:
    """Repair, judge, mask and deduplicate documents and examples; several references of one input become one record.

    Reads    inputs.ingest     documents.jsonl, examples.jsonl
             inputs.feedback    examples.jsonl
    Writes   outputs.artifact  the same two, row_counts.json, rejects.jsonl, report.json (``data/curation_report.py`` tells its shape),
                               dropped_answers.jsonl: answers left out of records that went on with others
    Returns  Metrics           counts of records

    Raises   DataError    a line is no record, or more than ``curate.max_rejected_share`` was turned away
             ConfigError  an unknown language, region or locale; a pattern that is no regular expression
    """
    line = CurationPipeline.build(cfg.curate, libraries or _libraries(), seed=cfg.seed, threads=cfg.hardware.threads)
    before: list[Record] = [
        *atomic_io.read_rows(inputs.ingest / _DOCUMENTS, Document),
        *atomic_io.read_rows(inputs.ingest / _EXAMPLES, Example),
        *_read_feedback_examples(inputs.feedback),
    ]
    total = row_counts.RowCounter("curate")
    after = Pipeline(total).run(line.blocks(), before)
    dropped = line.collect_dropped_answers()
    if line.hide is not None:
        total.rejects = [mask_reject(reject, line.hide.masker) for reject in total.rejects]
        dropped = [mask_reject(reject, line.hide.masker) for reject in dropped]
    merged = total.kept - len(after)
    report = line.report(before, after, rejected=Counter(reject.reason for reject in total.rejects), merged=merged)
    atomic_io.write_rows(outputs.artifact / _DOCUMENTS, (record for record in after if isinstance(record, Document)))
    atomic_io.write_rows(outputs.artifact / _EXAMPLES, (record for record in after if isinstance(record, Example)))
    atomic_io.write_rows(outputs.artifact / _DROPPED, dropped)
    atomic_io.write_json(outputs.artifact / _REPORT, report)
    share, setting = cfg.curate.max_rejected_share, "curate.max_rejected_share"
    row_counts.save(total, outputs.artifact, records_out=len(after), max_rejected_share=share, setting=setting)
    return Metrics(
        records_in=len(before),
        documents=report.records.documents_after,
        examples=report.records.examples_after,
        answers=report.answers.after,
        rejected=len(total.rejects),
        merged=merged,
        personal=sum((report.personal or {}).values()),
        reasons=report.rejected,
    )


def _read_feedback_examples(folder: Path) -> list[Example]:
    """Return the examples from feedback on live traffic; none where nothing was collected."""
    if (folder / manifest.PASSED_THROUGH).is_file():
        return []
    return list(atomic_io.read_rows(folder / _EXAMPLES, Example))


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
