"""Near duplicates in partitions: compute MinHash keys, list candidate pairs per bucket, compare them exactly, describe clusters."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunectl.artifacts.records import Document
from tunectl.config.schema.curate import NearDedupConfig
from tunectl.data.dedup import minhash, shingles
from tunectl.data.dedup.jaccard import JaccardMatrix
from tunectl.data.dedup.near import choose_longest, name_cluster
from tunectl.data.dedup.side_texts import read_sides
from tunectl.data.partitioned.record_steps import decode_records
from tunectl.data.partitioned.tables import FILE_BITS, Batch, Columns, Load
from tunectl.data.transform import Record

if TYPE_CHECKING:
    from tunectl.data.dedup.jaccard import Flags
    from tunectl.data.dedup.shingles import Indexes

SIGNATURES: Columns = dict.fromkeys(("part", "example", "band", "key", "print", "row"), "int64")
PAIRS: Columns = dict.fromkeys(("left", "right", "exact"), "int64")
TEXTS: Columns = {"part": "int64", "order": "int64", "payload": "binary"}
SIMILARITIES: Columns = {"pair": "int64", "similarity": "float64"}
CLUSTERS: Columns = {"label": "int64", "best": "int64", "name": "binary", "best_id": "binary"}


class SignRecords:
    """Computes for each record with words its MinHash key in each band, and the fingerprint of its words; a map step."""

    def __init__(self, near: NearDedupConfig, plan: minhash.MinHashParams, parts: int) -> None:
        self.near, self.plan, self.parts = near, plan, parts

    def __call__(self, batch: Batch) -> Batch:
        """Return one row for each record that has words, and band: ``part``, ``example`` (0: document), ``band``, ``key``, ``print``, ``row``."""
        import numpy as np

        rows, records = decode_records(batch)
        factors = minhash.draw_factors(self.plan)
        result: dict[str, list[Any]] = {name: [np.zeros(0, np.int64)] for name in SIGNATURES}
        for example, indexes in enumerate(split_by_shape(records)):
            sides = read_sides(records, indexes, self.near.side) if indexes else [[]]
            for start, stop in shingles.char_batches(sides[-1]):
                prints, keys = minhash.sign([side[start:stop] for side in sides], factors, self.plan)
                numbers = np.array([rows[index] for index in indexes[start:stop]], np.int64)
                worded = np.flatnonzero(keys[0])
                signed = {
                    "example": np.full(keys[:, worded].size, example),
                    "band": np.repeat(np.arange(self.plan.bands), len(worded)),
                    "key": keys[:, worded].ravel().view(np.int64),
                    "part": (keys[:, worded].ravel() % np.uint64(self.parts)).astype(np.int64),
                    "print": np.tile(prints[worded].view(np.int64), self.plan.bands),
                    "row": np.tile(numbers[worded], self.plan.bands),
                }
                for name, values in signed.items():
                    result[name].append(values)
        return {name: np.concatenate(values) for name, values in result.items()}


def split_by_shape(records: list[Record]) -> tuple[list[int], list[int]]:
    """Return (positions of documents, positions of examples that have text)."""
    documents = [index for index, record in enumerate(records) if isinstance(record, Document)]
    examples = [
        index for index, record in enumerate(records) if not isinstance(record, Document) and record.tokens is None
    ]
    return documents, examples


def list_pairs(batch: Batch) -> Batch:
    """Return the candidate pairs of a partition as columns ``left``, ``right`` (record numbers) and ``exact`` (1: equal fingerprints)."""
    import numpy as np

    key, prints = batch["key"].view(np.uint64), batch["print"].view(np.uint64)
    order = np.lexsort((batch["row"], prints, key, batch["band"], batch["example"]))
    row, band, prints = batch["row"][order], batch["band"][order], prints[order]
    bucket = np.stack((batch["example"][order], band, key[order].view(np.int64)))
    new_bucket = np.ones(len(row), np.bool_)
    new_bucket[1:] = (bucket[:, 1:] != bucket[:, :-1]).any(axis=0)
    new_print = new_bucket.copy()
    new_print[1:] |= prints[1:] != prints[:-1]
    firsts = np.flatnonzero(new_print)
    twins = np.flatnonzero(~new_print & (band == 0))
    lefts, rights = [row[firsts][np.cumsum(new_print)[twins] - 1]], [row[twins]]
    for left, right in minhash.find_candidates(np.cumsum(new_bucket)[firsts].astype(np.uint64), np.arange(len(firsts))):
        lefts.append(row[firsts[left]])
        rights.append(row[firsts[right]])
    exact = np.zeros(sum(map(len, lefts)), np.int64)
    exact[: len(twins)] = 1
    return {"left": np.concatenate(lefts), "right": np.concatenate(rights), "exact": exact}


class PickTexts:
    """Sends the texts of compared records to the partitions that compare them; a map step."""

    def __init__(self, requests: Load) -> None:
        """Store ``requests``, a function of (2, n): numbers of records, ascending, and the partition; a record may occur several times."""
        self.requests = requests

    def __call__(self, batch: Batch) -> Batch:
        """Return each requested record once for each partition that asks for it: columns ``part``, ``order`` (its number), ``payload``."""
        import numpy as np

        rows, parts = self.requests()
        order: Indexes = batch["order"]
        low = np.asarray(np.searchsorted(rows, order, side="left"), np.int64)
        counts = np.asarray(np.searchsorted(rows, order, side="right"), np.int64) - low
        source = np.repeat(np.arange(len(counts), dtype=np.int64), counts)
        own_index = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + low[source]
        payload = [batch["payload"][index] for index in source.tolist()]
        return {"part": parts[own_index], "order": batch["order"][source], "payload": payload}


class ComparePairs:
    """Computes the exact similarity of the pairs of one partition; a map step."""

    def __init__(self, pairs: Load, near: NearDedupConfig, threshold: float | None) -> None:
        """Measure ``pairs``, which returns (3, n): partition, ascending, and the numbers of two records.

        With a threshold the result is 1 where every side reaches it; without one it is the smallest similarity.
        """
        self.pairs, self.near, self.threshold = pairs, near, threshold

    def __call__(self, batch: Batch) -> Batch:
        """Return one row for each pair of the partition: ``pair`` (its position in ``pairs``) and ``similarity`` (0 to 1)."""
        import numpy as np

        rows, records = decode_records(batch)
        parts, lefts, rights = self.pairs()
        first, last = np.searchsorted(parts, batch["part"][0]), np.searchsorted(parts, batch["part"][0], side="right")
        left, right = np.searchsorted(rows, lefts[first:last]), np.searchsorted(rows, rights[first:last])
        sides = read_sides(records, range(len(records)), self.near.side)
        measure = JaccardMatrix(sides, self.near.shingle.unit, self.near.shingle.size)
        result: list[Any] = [np.zeros(0)]
        for part in measure.parts(left, right, np.arange(len(records))):
            if self.threshold is None:
                result.append(np.min([measure.similarity(side, *part) for side in sides], axis=0))
            else:
                result.append(measure.at_least(*part, self.threshold).astype(np.float64))
        return {"pair": np.arange(first, last), "similarity": np.concatenate(result)}


class DescribeClusters:
    """Determines for each cluster of a partition which record is kept, and the cluster's id; a map step."""

    def __init__(self, labels: Load, keep: str) -> None:
        """``labels`` returns (2, n): numbers of records, ascending, and the label of their cluster."""
        self.labels, self.keep = labels, keep

    def __call__(self, batch: Batch) -> Batch:
        """Return one row for each cluster: ``label``, ``best`` (number of the kept record), ``name`` (cluster id), ``best_id``."""
        import numpy as np

        rows, records = decode_records(batch)
        numbers, labels = self.labels()
        label = labels[np.searchsorted(numbers, rows)]
        result: dict[str, list[Any]] = {name: [] for name in CLUSTERS}
        for value in np.unique(label).tolist():
            members = np.flatnonzero(label == value).tolist()
            best = members[0] if self.keep == "first" else choose_longest(records, members)
            result["label"].append(value)
            result["best"].append(rows[best])
            result["name"].append((name_cluster(records, members) or "").encode())
            result["best_id"].append(records[best].id.encode())
        return {**result, "label": np.array(result["label"], np.int64), "best": np.array(result["best"], np.int64)}


def is_document(row: Indexes) -> Flags:
    """Return for each record number whether it is that of a document; shape (rows,)."""
    result: Flags = row >> FILE_BITS == 0
    return result
