"""Stage curate: records as they came -> records to learn from."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tunectl.artifacts import io, manifest, tally
from tunectl.artifacts.records import Document, Example
from tunectl.config.curate import CurateStage, Personal
from tunectl.data.block import Flow, Record
from tunectl.data.line import Libraries, Line
from tunectl.data.pii import hide_reject
from tunectl.privacy.mask import Masker

_DOCUMENTS, _EXAMPLES, _REPORT = "documents.jsonl", "examples.jsonl", "report.json"
_DROPPED = "dropped_answers.jsonl"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What the stage reads."""

    ingest: Path
    harvest: Path
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


def run(cfg: CurateStage, inputs: Inputs, outputs: Outputs, *, libraries: Libraries | None = None) -> Metrics:
    """Repair, judge, mask and deduplicate documents and examples; several references of one input become one record.

    Reads    inputs.ingest     documents.jsonl, examples.jsonl
             inputs.harvest    examples.jsonl
    Writes   outputs.artifact  the same two, account.json, rejects.jsonl, report.json (``data/curation.py`` tells its shape),
                               dropped_answers.jsonl: answers left out of records that went on with others
    Returns  Metrics           counts of records

    Raises   DataError    a line is no record, or more than ``curate.max_rejected_share`` was turned away
             ConfigError  an unknown language, region or locale; a pattern that is no regular expression
    """
    line = Line.build(cfg.curate, libraries or _libraries(), seed=cfg.seed, threads=cfg.profile.threads)
    before: list[Record] = [
        *io.read_rows(inputs.ingest / _DOCUMENTS, Document),
        *io.read_rows(inputs.ingest / _EXAMPLES, Example),
        *_harvested(inputs.harvest),
    ]
    total = tally.Tally("curate")
    after = Flow(total).run(line.blocks(), before)
    dropped = line.dropped()
    if line.hide is not None:
        total.rejects = [hide_reject(reject, line.hide.masker) for reject in total.rejects]
        dropped = [hide_reject(reject, line.hide.masker) for reject in dropped]
    merged = total.kept - len(after)
    report = line.report(before, after, rejected=Counter(reject.reason for reject in total.rejects), merged=merged)
    io.write_rows(outputs.artifact / _DOCUMENTS, (record for record in after if isinstance(record, Document)))
    io.write_rows(outputs.artifact / _EXAMPLES, (record for record in after if isinstance(record, Example)))
    io.write_rows(outputs.artifact / _DROPPED, dropped)
    io.write_json(outputs.artifact / _REPORT, report)
    share, setting = cfg.curate.max_rejected_share, "curate.max_rejected_share"
    tally.save(total, outputs.artifact, records_out=len(after), max_rejected_share=share, setting=setting)
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


def _harvested(folder: Path) -> list[Example]:
    """What people taught in live traffic; none where nothing was harvested."""
    if (folder / manifest.PASSED_THROUGH).is_file():
        return []
    return list(io.read_rows(folder / _EXAMPLES, Example))


def _libraries() -> Libraries:
    from tunectl.backends import ftfy_mojibake, language_id, privacy_tools

    def masker(personal: Personal) -> Masker:
        tools = privacy_tools.tools(regions=personal.regions, locales=personal.locales)
        return Masker(tools, kinds=personal.kinds, keep=personal.keep)

    return Libraries(
        mojibake=lambda repair: ftfy_mojibake.mender() if repair.mojibake else str,
        languages=lambda language: language_id.guesser(language.allowed),
        personal=masker,
    )
