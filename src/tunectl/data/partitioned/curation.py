"""Curate in partitions. The driver holds numbers of records and counts, and streams texts only when it writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from tunectl.artifacts.records import RejectedRow
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.curate import CurateFilters, NearDedupConfig
from tunectl.core.errors import DataError
from tunectl.data.curation_pipeline import BLOCKS, CurationPipeline
from tunectl.data.curation_report import RecordTally
from tunectl.data.dedup import minhash
from tunectl.data.dedup.exact import identity
from tunectl.data.dedup.near import find_members, with_cluster_id
from tunectl.data.partitioned import pair_steps, record_steps
from tunectl.data.partitioned.record_steps import FilterTally
from tunectl.data.partitioned.tables import (
    ANSWER,
    BLOCK_BITS,
    EVENTS,
    FAILURE,
    MERGED,
    REJECT,
    CurationTables,
    SelectRecords,
)
from tunectl.data.text_normalization import normalize
from tunectl.data.transform import Record, RejectedRecord, reject_outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tunectl.artifacts.disk_list import RowList
    from tunectl.data.dedup.shingles import Indexes

    Links = tuple[Indexes, Indexes]

RANGE_BYTES = 2**25  # of the input files, that one call reads: a few hundred thousand short records
PARTITION_BYTES = 2**26  # of the input files, for one partition: about 0.3 GB while it is worked on
PAIRS_A_PART = 2**18  # pairs whose texts one call holds
RANGES: Any = {"path": "binary", "file": "int64", "start": "int64", "stop": "int64"}


@dataclass
class PartitionedCuration:
    """One run of curation in partitions; the counts and dropped answers are added to ``blocks``, as in local curation."""

    tables: CurationTables
    filters: CurateFilters
    blocks: CurationPipeline
    build: Callable[[], CurationPipeline]
    """Creates the filters anew in another process."""
    run_name: str
    """Name that differs from that of any other run."""
    range_bytes: int = RANGE_BYTES
    pairs_a_part: int = PAIRS_A_PART
    tally: FilterTally = field(default_factory=lambda: FilterTally(RecordTally()))

    def run(self, files: Sequence[Path], total: RowCounter, after: RowList[Record]) -> RecordTally:
        """Curate the records of ``files``, documents first, into ``after``, counting rows in ``total``; return the counts of the records that were read.

        Raises  DataError for a line that is no record.
        """
        ranges = list(record_steps.list_ranges(files, self.range_bytes))
        if not ranges:
            return RecordTally()
        exact = self.filters.exact
        form = None if exact is None else normalize if exact.normalize else identity
        tables = self.tables
        size = sum(item["stop"] - item["start"] for item in ranges)
        tables.partitions = max(tables.partitions, size // PARTITION_BYTES)
        judge = record_steps.JudgeRecords(self.run_name, self.build, form, tables.partitions)
        outcomes = tables.map(tables.start(ranges, RANGES), judge, EVENTS)
        unique = record_steps.DropDuplicates(exact=exact is not None, loose=exact is not None and exact.normalize)
        curated = tables.group(tables.map(outcomes, SelectRecords(), EVENTS), unique, EVENTS)
        remaining = tables.map(curated, SelectRecords(), EVENTS)
        side_results = tables.map(tables.join([outcomes, curated]), SelectRecords(others=True), EVENTS)
        merged = self._take_side_results(side_results, total)
        del outcomes, curated, side_results  # frees their disk
        total.read(self.tally.records.count)
        marks = self._find_near_duplicates(remaining) if self.filters.near is not None else ClusterTable()
        inside = 0
        for row, record in self._stream(remaining):
            outcome = marks.judge(row, record)
            if isinstance(outcome, RejectedRecord):
                for lost in (
                    outcome,
                    *(RejectedRecord(one, outcome.reason, outcome.detail) for one in merged.get(row, [])),
                ):
                    total.reject(reject_outcome(lost))
            else:
                after.append(outcome)
                inside += len(merged.get(row, []))
        total.keep(len(after) + inside)
        return self.tally.records

    def _stream(self, remaining: Any) -> Iterator[tuple[int, Record]]:
        for batch in self.tables.read(remaining, sort=("order",)):
            for row, payload in zip(batch["order"].tolist(), batch["payload"], strict=True):
                yield row, record_steps.decode_record(row, payload)

    def _take_side_results(self, events: Any, total: RowCounter) -> dict[int, list[Record]]:
        """Add rejects, dropped answers and counts to ``total`` and the filters; return the merged records of each record."""
        merged: dict[int, list[Record]] = {}
        for batch in self.tables.read(events, sort=("type", "order", "own")):
            for kind, order, payload in zip(
                batch["type"].tolist(), batch["order"].tolist(), batch["payload"], strict=True
            ):
                if kind == FAILURE:
                    raise DataError(msgspec.json.decode(payload, type=str))
                if kind == REJECT:
                    total.reject(msgspec.json.decode(payload, type=RejectedRow))
                elif kind == ANSWER:
                    block: Any = self.blocks.find_block(BLOCKS[order >> BLOCK_BITS])
                    block.dropped += msgspec.json.decode(payload, type=list[RejectedRow])
                elif kind == MERGED:
                    merged.setdefault(order, []).append(record_steps.decode_record(order, payload))
                else:
                    self._count(msgspec.json.decode(payload, type=FilterTally))
        return merged

    def _count(self, part: FilterTally) -> None:
        self.tally.records.add(part.records)
        if self.blocks.repair is not None:
            self.blocks.repair.counts.update(part.repairs)
        if self.blocks.language is not None:
            self.blocks.language.counts.update(part.languages)
        if self.blocks.pii is not None:
            self.blocks.pii.counts.update(part.personal)
            self.blocks.pii.records += part.personal_records
        self.blocks.references.conflicts += part.conflicts

    def _find_near_duplicates(self, remaining: Any) -> ClusterTable:
        """Return what happens to each record that has a near duplicate."""
        import numpy as np

        near, block = self.filters.near, self.blocks.near
        if near is None or block is None:
            return ClusterTable()
        sign = pair_steps.SignRecords(near, block.plan, self.tables.partitions)
        signed = self.tables.map(remaining, sign, pair_steps.SIGNATURES)
        pairs = self._read_pairs(self.tables.group(signed, pair_steps.list_pairs, pair_steps.PAIRS))
        if not len(pairs[0]):
            return ClusterTable()
        lefts, rights, exact = pairs
        close = exact.astype(np.bool_)
        near_pairs = np.flatnonzero(~close)
        close[near_pairs] = self._compare(remaining, near, (lefts[near_pairs], rights[near_pairs]), near.threshold) > 0
        rows, ends = np.unique(np.concatenate((lefts[close], rights[close])), return_inverse=True)
        if not len(rows):
            return ClusterTable()
        half = len(ends) // 2
        group = minhash.find_components(len(rows), ends[:half], ends[half:])
        _, first = np.unique(group, return_index=True)
        labels = rows[first][group]
        for members in find_members(labels):
            block.sizes[len(members)] += 1
        table = self._describe(remaining, near, rows, labels)
        if near.action == "remove":
            table.similarity[table.twins] = self._compare(
                remaining, near, (rows[table.twins], table.best[table.twins]), None
            )
        return table

    def _read_pairs(self, table: Any) -> tuple[Indexes, Indexes, Indexes]:
        """Return each pair once."""
        import numpy as np

        names = ("left", "right", "exact")
        parts = [np.stack([batch[name] for name in names]) for batch in self.tables.read(table)]
        pairs = np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)
        pairs[:2] = np.sort(pairs[:2], axis=0)
        pairs = pairs[:, np.lexsort((pairs[1], pairs[0]))]
        fresh = np.ones(pairs.shape[1], np.bool_)
        fresh[1:] = (pairs[:2, 1:] != pairs[:2, :-1]).any(axis=0)
        pairs = pairs[:, fresh]
        return pairs[0], pairs[1], pairs[2]

    def _compare(self, remaining: Any, near: NearDedupConfig, pairs: Links, threshold: float | None) -> Any:
        """Return (pairs,) similarities, or with a threshold 1 where they reach it."""
        import numpy as np

        result = np.zeros(len(pairs[0]))
        if not len(result):
            return result
        order = np.lexsort((pairs[1], pairs[0]))
        lefts, rights = pairs[0][order], pairs[1][order]
        documents = int(pair_steps.is_document(lefts).sum())
        index = np.arange(len(lefts))
        part = np.where(index < documents, index, index - documents) // self.pairs_a_part
        part[documents:] += -(-documents // self.pairs_a_part)
        requests = np.unique(np.stack((np.concatenate((lefts, rights)), np.tile(part, 2))), axis=1)
        pick = pair_steps.PickTexts(self.tables.share(requests))
        compare = pair_steps.ComparePairs(self.tables.share(np.stack((part, lefts, rights))), near, threshold)
        measured = self.tables.group(
            self.tables.map(remaining, pick, pair_steps.TEXTS), compare, pair_steps.SIMILARITIES
        )
        for batch in self.tables.read(measured):
            result[order[batch["pair"]]] = batch["similarity"]
        return result

    def _describe(self, remaining: Any, near: NearDedupConfig, rows: Indexes, labels: Indexes) -> ClusterTable:
        import numpy as np

        pick = pair_steps.PickTexts(self.tables.share(np.stack((rows, labels % self.tables.partitions))))
        describe = pair_steps.DescribeClusters(self.tables.share(np.stack((rows, labels))), near.keep)
        described = self.tables.group(self.tables.map(remaining, pick, pair_steps.TEXTS), describe, pair_steps.CLUSTERS)
        best = np.zeros(len(rows), np.int64)
        table = ClusterTable(rows, best, np.zeros(len(rows)), remove=near.action == "remove")
        order = np.argsort(labels, kind="stable")
        ranked = labels[order]
        for batch in self.tables.read(described):
            for label, representative, name, best_id in zip(
                batch["label"].tolist(), batch["best"].tolist(), batch["name"], batch["best_id"], strict=True
            ):
                begin, end = np.searchsorted(ranked, label), np.searchsorted(ranked, label, side="right")
                best[order[begin:end]] = representative
                table.names[representative] = (name.decode() or None, best_id.decode())
        table.twins = np.flatnonzero(best != rows)
        return table


class ClusterTable:
    """Cluster of each record that has near duplicates, looked up by the record's number."""

    def __init__(
        self, rows: Indexes | None = None, best: Indexes | None = None, similarity: Any = None, *, remove: bool = False
    ) -> None:
        self.rows: Any = rows
        """Numbers of the records, ascending."""
        self.best: Any = best
        """Number of the kept record of each one's cluster."""
        self.similarity = similarity
        self.remove = remove
        self.names: dict[int, tuple[str | None, str]] = {}
        """Name of the cluster and id of its kept record, by the number of that record."""
        self.twins: Any = None
        """Positions in ``rows`` of the records that are not kept."""

    def judge(self, row: int, record: Record) -> Record | RejectedRecord:
        """Return the record numbered ``row`` with its cluster id, or as rejected where it is a near duplicate that is not kept."""
        import numpy as np

        if self.rows is None:
            return record
        index = int(np.searchsorted(self.rows, row))
        if index == len(self.rows) or self.rows[index] != row:
            return record
        best = int(self.best[index])
        name, best_id = self.names[best]
        if not self.remove or best == row:
            return with_cluster_id(record, name)
        return RejectedRecord(record, "near_duplicate", f"{self.similarity[index]:.2f} like {best_id}")
