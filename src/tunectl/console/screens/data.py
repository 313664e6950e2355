"""Screen Data: rows read, kept and rejected, stage by stage, with the reasons; and the raw files."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from msgspec import Struct, field

from tunectl.artifacts.row_counts import REJECTS, ROW_COUNTS, RowCounts
from tunectl.console.read_context import ProblemList, ReadContext, stamp_files
from tunectl.console.row_index import open_index
from tunectl.data import pipeline_row_counts
from tunectl.data.pipeline_row_counts import WRITES
from tunectl.pipeline.stages import STAGES


class FlowStep(Struct, frozen=True):
    """Rows that one stage read, kept and rejected, with the reasons."""

    stage: str
    help: str
    rows_in: int
    kept: int
    rejected: list[tuple[str, int]]
    """Rows by reason, most first."""
    records_out: int | None
    """Records that it handed on, as it said; None for a stage that hands none on."""
    files: list[str]
    """Files of rows that can be shown."""

    @property
    def kept_share(self) -> float:
        """Kept rows over all rows that the stage read, 0 to 1."""
        return self.kept / self.rows_in if self.rows_in else 0.0


class DataScreen(Struct, frozen=True):
    """Content of the screen Data: rows stage by stage, raw files, and counts that do not add up."""

    steps: list[FlowStep]
    sources: list[tuple[str, int]]
    """Raw files, with the number of rows that were read from each."""
    lost: list[str]
    """Stages whose sum does not hold: rows are unaccounted for."""
    wrong: list[str]
    """What does not add up, within a stage or between two, counted in the files themselves; a sentence each."""
    problems: dict[str, str] = field(default_factory=dict)


def read_data(context: ReadContext, query: object) -> DataScreen:  # noqa: ARG001 - every reader is called alike
    """Return the row counts of every stage that has written them."""
    problems, steps = ProblemList(), []
    lost: list[str] = []
    for stage in STAGES:
        folder = context.layout.artifact(stage.name)
        counts = problems.attempt(stage.name, partial(_read_counts, context, folder / ROW_COUNTS), None)
        if counts is None:
            continue
        rejected = sorted(counts.rejected.items(), key=lambda item: -item[1])
        if counts.rows_in != counts.kept + sum(counts.rejected.values()):
            lost.append(stage.name)
        files = [name for name in WRITES.get(stage.name, ()) if (folder / name).is_file()]
        steps.append(FlowStep(stage.name, stage.help, counts.rows_in, counts.kept, rejected, counts.records_out, files))
    sources = problems.attempt("sources", lambda: _count_sources(context), list[tuple[str, int]]())
    readable = steps and not problems.problems
    wrong = problems.attempt("row counts", lambda: _check_counts(context), list[str]()) if readable else []
    return DataScreen(steps, sources, lost, wrong, problems.problems)


def _check_counts(context: ReadContext) -> list[str]:
    """Return what ``tunectl data counts`` finds, counted once while the files stay the same."""
    folders = {stage.name: context.layout.artifact(stage.name) for stage in STAGES}
    files = [folders[stage] / name for stage, names in WRITES.items() for name in (*names, REJECTS)]
    files += [folder / ROW_COUNTS for folder in folders.values()]

    def count() -> list[str]:
        return pipeline_row_counts.problems(pipeline_row_counts.stage_row_counts(folders))

    return context.cache.get("row counts", stamp_files(files), count)


def _read_counts(context: ReadContext, path: Path) -> RowCounts | None:
    counts: RowCounts | None = context.read_json(path, RowCounts)
    return counts


def _count_sources(context: ReadContext) -> list[tuple[str, int]]:
    counts: dict[str, int] = {}
    for name in WRITES["ingest"]:
        index = open_index(context, context.layout.artifact("ingest") / name)
        for source, count in index.count_sources() if index is not None else ():
            counts[source] = counts.get(source, 0) + count
    return sorted(counts.items(), key=lambda item: -item[1])[:100]
