"""The flow keeps the account, and finds blocks that lose or invent records."""

from __future__ import annotations

import pytest

from tunectl.artifacts.records import Document, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.core.errors import TunectlError
from tunectl.data.transform import Dropped, Pipeline

ROWS = [Document(str(number), f"text {number}", Source("a.csv", number)) for number in (1, 2, 3)]


class Drop:
    """Rejects one id."""

    def __init__(self, name: str) -> None:
        self.name = f"drop {name}"
        self.id = name

    def __call__(self, records):  # type: ignore[no-untyped-def]
        return (Dropped(record, "language", "why") if record.id == self.id else record for record in records)


def test_rows_in_are_kept_or_rejected_with_their_source_and_sample() -> None:
    tally = RowCounter("curate")
    left = Pipeline(tally).run([Drop("1"), Drop("3")], ROWS)
    account = tally.finish(records_out=len(left))
    assert left == [ROWS[1]]
    assert (account.rows_in, account.kept, account.rejected) == (3, 1, {"language": 2})
    assert [(reject.source.row, reject.detail, reject.sample) for reject in tally.rejects] == [
        (1, "why", "text 1"),
        (3, "why", "text 3"),
    ]


def test_a_block_that_loses_a_record_is_our_bug() -> None:
    class Lossy:
        name = "lossy"

        def __call__(self, records):  # type: ignore[no-untyped-def]
            return iter(list(records)[1:])

    with pytest.raises(TunectlError) as caught:
        Pipeline(RowCounter("curate")).run([Lossy()], ROWS)
    assert caught.value.message == ("filter lossy returned 2 outcomes for 3 records; one for each record is required")
    assert caught.value.exit_code == 1
