"""Curation pipeline: the filters of curate in the order in which they must run, and the counts that they report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

from tunectl.artifacts.disk_list import RowList
from tunectl.artifacts.records import RejectedRow
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.curate import CurateFilters, Language, PiiConfig, Repair
from tunectl.data import curation_report
from tunectl.data.curation_report import CurationReport, Duplicates, RecordTally
from tunectl.data.dedup.exact import ExactDedup, MergeReferences
from tunectl.data.dedup.near import NearDedup
from tunectl.data.filters.language import Guesser, LanguageFilter
from tunectl.data.filters.pii import MaskPii
from tunectl.data.filters.quality import QualityFilter
from tunectl.data.filters.repair import RepairStep, RepairText
from tunectl.data.transform import Record, Transform
from tunectl.privacy.mask import PiiMasker


@dataclass(frozen=True, slots=True)
class FilterDeps:
    """Functions from libraries that the filters need, built from their settings; tests pass plain functions."""

    mojibake: Callable[[Repair], RepairStep]
    languages: Callable[[Language], Guesser]
    personal: Callable[[PiiConfig], PiiMasker]


class CurationEngine(Protocol):
    """Runs the filters on Ray, in other processes, with the same result as in this one."""

    def __call__(
        self,
        filters: CurateFilters,
        blocks: CurationPipeline,
        build: Callable[[], CurationPipeline],
        files: Sequence[Path],
        total: RowCounter,
        after: RowList[Record],
    ) -> RecordTally:
        """Curate the records of ``files`` into ``after``; returns the counts of the records read.

        The first file holds documents, the others examples; one may be absent. Counts go to ``blocks`` and ``total``.
        ``build`` creates the filters anew in another process.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationPipeline:
    """The filters of one run of curate, in the order in which they run; a filter that is switched off is None.

    Repair is first, so that all others see complete text; masking is before comparing, so that rows which differ only in a name are duplicates.
    """

    repair: RepairText | None
    quality: QualityFilter | None
    language: LanguageFilter | None
    pii: MaskPii | None
    exact: ExactDedup | None
    references: MergeReferences = field(default_factory=MergeReferences)
    near: NearDedup | None

    @classmethod
    def build(cls, parts: CurateFilters, libraries: FilterDeps, *, seed: int, threads: int | None) -> CurationPipeline:
        """Return the filters that ``parts`` declares; ``threads`` None: all cores."""
        return cls(
            repair=RepairText(parts.repair, mojibake=libraries.mojibake(parts.repair)) if parts.repair else None,
            quality=QualityFilter(parts.quality) if parts.quality else None,
            language=LanguageFilter(parts.language, libraries.languages(parts.language)) if parts.language else None,
            pii=MaskPii(libraries.personal(parts.pii)) if parts.pii else None,
            exact=ExactDedup(loose=parts.exact.normalize) if parts.exact else None,
            near=NearDedup(parts.near, seed=seed, threads=threads) if parts.near else None,
        )

    def blocks(self) -> list[Transform]:
        """Return the filters that are switched on, in the order in which they run."""
        return [block for block in map(self.find_block, BLOCKS) if block is not None]

    def find_block(self, name: str) -> Transform | None:
        """Return the filter called ``name`` (a name in ``BLOCKS``); None where it is switched off."""
        block: Transform | None = getattr(self, name)
        return block

    def collect_dropped_answers(self) -> list[RejectedRow]:
        """Return the reference answers that were dropped from records which were kept with other answers, as lines for a file."""
        return [
            reject for block in (self.repair, self.quality, self.exact) if block is not None for reject in block.dropped
        ]

    def report(self, before: RecordTally, after: RecordTally, *, rejected: Counter[str], merged: int) -> CurationReport:
        """Return the report of the run: counts before and after, rejects by reason, and ``merged``, the records merged into others."""
        sizes = sorted(self.near.sizes.items()) if self.near else []
        return CurationReport(
            records=curation_report.count_records(before, after),
            answers=curation_report.count_answers(before, after, self.collect_dropped_answers()),
            repairs=dict(self.repair.counts) if self.repair else None,
            languages=dict(self.language.counts.most_common()) if self.language else None,
            personal=dict(self.pii.counts.most_common()) if self.pii else None,
            personal_records=self.pii.records if self.pii else None,
            duplicates=Duplicates(
                exact=rejected["exact_duplicate"],
                near=rejected["near_duplicate"],
                merged=merged,
                field_conflicts=self.references.conflicts,
                cluster_sizes={str(size): count for size, count in sizes},
            ),
            rejected=dict(rejected.most_common()),
            sources=curation_report.count_sources(before, after),
        )


BLOCKS = tuple(item.name for item in fields(CurationPipeline))
"""The names of the filters in the order in which they run."""
