"""Curation as a line of blocks, in the order in which they must stand, and what they counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tunectl.artifacts.records import Reject
from tunectl.config.curate import Curate, Language, Personal, Repair
from tunectl.data import curation
from tunectl.data.block import Block, Record
from tunectl.data.clean import Mend, Step
from tunectl.data.curation import Curation, Duplicates
from tunectl.data.dedup import Exact, References
from tunectl.data.language import Guesser, Speaks
from tunectl.data.near import Alike
from tunectl.data.pii import Hide
from tunectl.data.quality import Judge
from tunectl.privacy.mask import Masker


@dataclass(frozen=True, slots=True)
class Libraries:
    """What the blocks need from libraries; tests put plain functions here."""

    mojibake: Callable[[Repair], Step]
    languages: Callable[[Language], Guesser]
    personal: Callable[[Personal], Masker]


@dataclass(frozen=True, slots=True)
class Line:
    """The blocks of one run in their order; None is switched off."""

    mend: Mend | None
    judge: Judge | None
    speaks: Speaks | None
    hide: Hide | None
    exact: Exact | None
    alike: Alike | None
    references: References = field(default_factory=References)

    @classmethod
    def build(cls, parts: Curate, libraries: Libraries, *, seed: int, threads: int | None) -> Line:
        """The blocks that ``parts`` declares; ``threads`` None uses all cores."""
        return cls(
            mend=Mend(parts.repair, mojibake=libraries.mojibake(parts.repair)) if parts.repair else None,
            judge=Judge(parts.quality) if parts.quality else None,
            speaks=Speaks(parts.language, libraries.languages(parts.language)) if parts.language else None,
            hide=Hide(libraries.personal(parts.personal)) if parts.personal else None,
            exact=Exact(loose=parts.exact.fold) if parts.exact else None,
            alike=Alike(parts.near, seed=seed, threads=threads) if parts.near else None,
        )

    def blocks(self) -> list[Block]:
        """Repair first, so that all others see whole text; masking before comparing, so that rows that differ only in a name are twins."""
        order = (self.mend, self.judge, self.speaks, self.hide, self.exact, self.references, self.alike)
        return [block for block in order if block is not None]

    def dropped(self) -> list[Reject]:
        """Answers that were left out of records which went on with others."""
        return [
            reject for block in (self.mend, self.judge, self.exact) if block is not None for reject in block.dropped
        ]

    def report(self, before: list[Record], after: list[Record], *, rejected: Counter[str], merged: int) -> Curation:
        """What the blocks counted."""
        sizes = sorted(self.alike.sizes.items()) if self.alike else []
        return Curation(
            records=curation.counts(before, after),
            answers=curation.answers(before, after, self.dropped()),
            repairs=dict(self.mend.counts) if self.mend else None,
            languages=dict(self.speaks.counts.most_common()) if self.speaks else None,
            personal=dict(self.hide.counts.most_common()) if self.hide else None,
            personal_records=self.hide.records if self.hide else None,
            duplicates=Duplicates(
                exact=rejected["exact_duplicate"],
                near=rejected["near_duplicate"],
                merged=merged,
                field_conflicts=self.references.conflicts,
                cluster_sizes={str(size): count for size, count in sizes},
            ),
            rejected=dict(rejected.most_common()),
            sources=curation.sources(before, after),
        )
