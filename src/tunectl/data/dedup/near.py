"""Near duplicates: one record of a cluster is kept, or all are kept with the id of their cluster, so that they get into one split."""

from __future__ import annotations

import os
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec.structs import replace

from tunectl.artifacts.disk_list import DiskList
from tunectl.artifacts.records import Document, Example
from tunectl.config.schema.curate import NearDedupConfig
from tunectl.data.dedup import minhash
from tunectl.data.dedup.jaccard import JaccardMatrix
from tunectl.data.dedup.side_texts import read_sides
from tunectl.data.record_text import input_text, output_text
from tunectl.data.text_normalization import digest16
from tunectl.data.transform import Outcome, Record, RejectedRecord, Scope

if TYPE_CHECKING:
    from tunectl.data.dedup.shingles import Indexes


class NearDedup:
    """The filter for near duplicates: rejects all records of a cluster but one, or gives all of them the cluster's id.

    It runs after ``exact.MergeReferences``, so that answers to one input are never compared. Rows that came in as token ids have
    no text and pass.
    """

    name = "near duplicates"
    scope: Scope = "corpus"

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
        """Yield each record, marked with its cluster, or a reject ``near_duplicate`` with the kept record and the similarity."""
        everything = records if isinstance(records, Sequence) else list(records)
        documents, examples = array("q"), array("q")
        for index, record in enumerate(everything):
            if isinstance(record, Document):
                documents.append(index)
            elif record.tokens is None:
                examples.append(index)
        marks = ClusterMarks.make(len(everything))
        for indexes in (documents, examples):
            self._compare(everything, indexes, marks)
        for index, record in enumerate(everything):
            best = marks.best[index]
            if best < 0:
                yield record
            elif self.near.action == "cluster" or best == index:
                yield with_cluster_id(record, marks.names[best])
            else:
                detail = f"{marks.similarity[index]:.2f} like {everything[best].id}"
                yield RejectedRecord(record, "near_duplicate", detail)

    def _compare(self, records: Sequence[Record], indexes: array[int], marks: ClusterMarks) -> None:
        if len(indexes) < 2:
            return
        sides = read_sides(records, indexes, self.near.side)
        scratch = records.folder if isinstance(records, DiskList) else None
        members_of = find_members(minhash.label_clusters(sides, self.plan, scratch))
        twins, bests = array("q"), array("q")
        for members in members_of:
            self.sizes[len(members)] += 1
            ours = [indexes[member] for member in members]
            best = ours[0] if self.near.keep == "first" else choose_longest(records, ours)
            marks.names[best] = name_cluster(records, ours)
            for member, index in zip(members, ours, strict=True):
                marks.best[index] = best
                if index != best:
                    twins.append(member)
                    bests.append(bisect_left(indexes, best))
        if self.near.action == "remove":
            for twin, share in zip(twins, _measure_similarity(sides, twins, bests, self.plan), strict=True):
                marks.similarity[indexes[twin]] = share


@dataclass(frozen=True, slots=True)
class ClusterMarks:
    """Cluster of near duplicates of each record, by the record's position."""

    best: array[int]
    """Position of the record that is kept of its cluster; -1 without a cluster."""
    similarity: array[float]
    """Similarity to the kept record."""
    names: dict[int, str | None]
    """Id of the cluster, by the position of the kept record."""

    @classmethod
    def make(cls, count: int) -> ClusterMarks:
        """Return marks for ``count`` records, none of them in a cluster yet."""
        return cls(array("q", [-1]) * count, array("d", [0.0]) * count, {})


def find_members(labels: Indexes) -> Iterator[list[int]]:
    """Yield for each label that occurs at least twice its positions in ``labels``, ascending; the smallest label first."""
    import numpy as np

    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    begins = np.flatnonzero(np.diff(ranked, prepend=-1))
    sizes = np.diff(begins, append=len(ranked))
    for begin, size in zip(begins[sizes > 1].tolist(), sizes[sizes > 1].tolist(), strict=True):
        yield order[begin : begin + size].tolist()


def choose_longest(records: Sequence[Record], members: list[int]) -> int:
    """Return the position of the member with the longest text; of equally long ones the first in the alphabet."""

    def rank(index: int) -> tuple[int, str, int]:
        text = _length_text(records[index])
        return -len(text), text, index

    return min(members, key=rank)


def name_cluster(records: Sequence[Record], members: list[int]) -> str | None:
    """Return the id of a cluster of examples; None for documents, which are never split."""
    if isinstance(records[members[0]], Document):
        return None
    return digest16(*sorted(records[index].id for index in members)).hex()[:16]


def with_cluster_id(record: Record, cluster: str | None) -> Record:
    """Return an example with ``cluster`` as its cluster id; a document, which is never split, unchanged."""
    return replace(record, cluster=cluster) if isinstance(record, Example) else record


def _length_text(record: Record) -> str:
    return record.text if isinstance(record, Document) else f"{input_text(record)}\n{output_text(record)}"


def _measure_similarity(
    sides: Sequence[Sequence[str]], twins: array[int], bests: array[int], plan: minhash.MinHashParams
) -> Iterator[float]:
    """Yield the smallest Jaccard similarity over the sides of each pair of items."""
    import numpy as np

    measure = JaccardMatrix(sides, plan.unit, plan.size)
    everything = np.arange(len(sides[0]), dtype=np.int64)
    for part in measure.parts(np.array(twins, np.int64), np.array(bests, np.int64), everything):
        shares: list[float] = np.min([measure.similarity(side, *part) for side in sides], axis=0).tolist()
        yield from shares
