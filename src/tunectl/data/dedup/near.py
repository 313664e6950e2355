"""Near duplicates: one of a cluster stays, or all stay and are marked so that one split gets them all."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from tunectl.artifacts.records import Document, Example
from tunectl.config.schema.curate import NearDedupConfig
from tunectl.data.dedup import minhash
from tunectl.data.dedup.jaccard import JaccardMatrix
from tunectl.data.record_text import input_text, output_text
from tunectl.data.text_normalization import digest16
from tunectl.data.transform import Dropped, Outcome, Record


class NearDedup:
    """The block for near duplicates.

    Examples must be one record an input before (``exact.MergeReferences``), so answers to one input are never compared. Rows
    that came tokenized have no text and pass.
    """

    name = "near duplicates"

    def __init__(self, near: NearDedupConfig, *, seed: int, threads: int | None) -> None:
        self.near = near
        self.plan = minhash.MinHashParams(
            threshold=near.threshold,
            unit=near.shingle.unit,
            size=near.shingle.size,
            bands=near.bands,
            rows=near.rows,
            seed=seed,
            threads=threads or len(os.sched_getaffinity(0)),
        )
        self.sizes: Counter[int] = Counter()
        """Clusters of two or more records, by size."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Outcome]:
        """Give each record, marked with its cluster, or rejected as ``near_duplicate`` with twin and similarity."""
        everything = list(records)
        outcomes: dict[int, Outcome] = {}
        for indexes in (
            [index for index, record in enumerate(everything) if isinstance(record, Document)],
            [index for index, record in enumerate(everything) if isinstance(record, Example) and record.tokens is None],
        ):
            self._compare([everything[index] for index in indexes], indexes, outcomes)
        for index, record in enumerate(everything):
            yield outcomes.get(index, record)

    def _compare(self, records: list[Record], indexes: list[int], outcomes: dict[int, Outcome]) -> None:
        if len(records) < 2:
            return
        sides = _sides(records, self.near)
        groups: dict[int, list[int]] = {}
        for index, label in enumerate(minhash.clusters(sides, self.plan)):
            groups.setdefault(label, []).append(index)
        twins: list[tuple[int, int]] = []
        for members in groups.values():
            if len(members) < 2:
                continue
            self.sizes[len(members)] += 1
            best = self._best(records, members)
            cluster = digest16(*sorted(records[index].id for index in members)).hex()[:16]
            for index in members:
                if self.near.action == "cluster" or index == best:
                    outcomes[indexes[index]] = with_cluster_id(records[index], cluster)
                else:
                    twins.append((index, best))
        likeness = _likeness(sides, twins, self.plan)
        for (index, best), share in zip(twins, likeness, strict=True):
            detail = f"{share:.2f} like {records[best].id}"
            outcomes[indexes[index]] = Dropped(records[index], "near_duplicate", detail)

    def _best(self, records: Sequence[Record], members: list[int]) -> int:
        """Return the member that stays: the first, or the longest; of equally long ones the first in the alphabet."""
        if self.near.keep == "first":
            return members[0]
        texts = {index: _length_text(records[index]) for index in members}
        return min(members, key=lambda index: (-len(texts[index]), texts[index], index))


def with_cluster_id(record: Record, cluster: str) -> Record:
    """Return the record with its cluster written on it; documents are never split, so they carry none."""
    return replace(record, cluster=cluster) if isinstance(record, Example) else record


def _length_text(record: Record) -> str:
    return record.text if isinstance(record, Document) else f"{input_text(record)}\n{output_text(record)}"


def _sides(records: Sequence[Record], near: NearDedupConfig) -> list[list[str]]:
    if isinstance(records[0], Document):
        return [[record.text for record in records if isinstance(record, Document)]]
    examples = [record for record in records if isinstance(record, Example)]
    sides = {"input": [input_text], "output": [output_text], "both": [input_text, output_text]}
    return [[side(example) for example in examples] for side in sides[near.side]]


def _likeness(sides: list[list[str]], twins: list[tuple[int, int]], plan: minhash.MinHashParams) -> list[float]:
    """Return least Jaccard similarity over the sides of each pair."""
    import numpy as np

    if not twins:
        return []
    measure = JaccardMatrix(sides, plan.unit, plan.size)
    left, right = np.array(twins, dtype=np.int64).T
    parts = measure.parts(left, right, np.arange(len(sides[0]), dtype=np.int64))
    similarities = [np.min([measure.similarity(side, *part) for side in sides], axis=0) for part in parts]
    shares: list[float] = np.concatenate(similarities).tolist()
    return shares
