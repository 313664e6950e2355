"""Tables of rows that are spread over processes, and the events that curation writes into them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import msgspec

if TYPE_CHECKING:
    import numpy as np

Columns: TypeAlias = Mapping[str, Literal["int64", "float64", "binary"]]
Batch: TypeAlias = dict[str, Any]
"""Values by column: a numpy array, or for ``binary`` a list of bytes."""
Work: TypeAlias = Callable[[Batch], Batch]
Load: TypeAlias = Callable[[], Any]
"""Returns, in any process, a value that the driver shared."""

RECORD, FAILURE, REJECT, ANSWER, MERGED, TALLY = range(6)
"""Types of events: a kept record; a line that is no record, which ends the run; a rejected record; reference answers dropped from a kept record; a record whose answers were merged
into another; counts of a batch."""
EVENTS: Columns = {"type": "int64", "order": "int64", "own": "int64", "part": "int64", "payload": "binary"}
FILE_BITS = 48  # a row's number is its file, and in the bits below its position in bytes
BLOCK_BITS = 56


class CurationTables(Protocol):
    """Runs functions (``work``) on distributed tables, by Ray Data or, in tests, plain lists; tables are opaque handles.

    A function may run twice, so it has no side effects.
    """

    partitions: int
    """Fewest groups into which equal keys are spread."""

    def start(self, rows: list[dict[str, Any]], columns: Columns) -> Any:
        """Return a new distributed table with one batch per row."""

    def map(self, table: Any, work: Work, columns: Columns) -> Any:
        """Return the table of the results of ``work`` on each batch; ``columns``: their names and types."""

    def group(self, table: Any, work: Work, columns: Columns) -> Any:
        """Return the table of the results of ``work`` on all rows that have the same value in the column ``part``."""

    def join(self, tables: list[Any]) -> Any:
        """Return one table with the rows of all tables, which have the same columns."""

    def read(self, table: Any, *, sort: Sequence[str] = ()) -> Iterator[Batch]:
        """Yield the batches of a table, in the order of the named columns."""

    def share(self, value: Any) -> Load:
        """Make a value readable in every process; return a function that loads it there."""


class EventRows:
    """Collects the events of one batch (kept records, rejects, counts) as rows, and returns them as columns."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int, int, bytes]] = []

    def add(self, type_number: int, order: int, payload: Any, *, own: int = 0, part: int = 0) -> None:
        """Add one event: its type, its ``order`` in the output, the number ``own`` of a merged record, the partition ``part`` that it goes to, and a JSON ``payload``."""
        self._rows.append((type_number, order, own, part, msgspec.json.encode(payload)))

    def batch(self) -> Batch:
        """Return the collected events as columns: type, order, own, part, payload."""
        import numpy as np

        numbers = np.array([row[:4] for row in self._rows], np.int64).reshape(-1, 4)
        names = ("type", "order", "own", "part")
        return {
            **{name: numbers[:, column] for column, name in enumerate(names)},
            "payload": [row[4] for row in self._rows],
        }


def select_rows(batch: Batch, mask: np.ndarray[Any, Any]) -> Batch:
    """Return the rows of ``batch`` for which ``mask`` (rows,) is true."""
    import numpy as np

    indexes = np.flatnonzero(mask)
    return {
        name: [values[index] for index in indexes.tolist()] if isinstance(values, list) else values[indexes]
        for name, values in batch.items()
    }


class SelectRecords:
    """Selects the kept records of a batch, or with ``others`` all other events; a map step."""

    def __init__(self, *, others: bool = False) -> None:
        self.others = others

    def __call__(self, batch: Batch) -> Batch:
        """Return the selected events, with all their columns."""
        return select_rows(batch, (batch["type"] == RECORD) != self.others)
