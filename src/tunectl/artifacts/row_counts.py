"""Row counts: every stage proves that rows in = kept + rejected by named reason.

A unit is whatever the stage counts (raw rows, examples); a stage that merges several rows into one record counts the
merged rows as kept, in ``merged``.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from msgspec import Struct, field

from tunectl.artifacts import atomic_io
from tunectl.artifacts.disk_list import RowList
from tunectl.artifacts.records import RejectedRow
from tunectl.artifacts.reject_reasons import REJECT_REASONS
from tunectl.core.errors import DataError, TunectlError

SAMPLES_A_REASON = 5
ROW_COUNTS, REJECTS = "row_counts.json", "rejects.jsonl"


class RowCounts(Struct, frozen=True):
    """Row counts of one stage, as in row_counts.json: ``rows_in == kept + sum(rejected.values())``; ``records_out`` were written."""

    stage: str
    rows_in: int
    kept: int
    rejected: dict[str, int] = field(default_factory=dict)
    records_out: int = 0
    """Records written; smaller than ``kept`` where several rows became one record (references of one input)."""
    samples: dict[str, list[RejectedRow]] = field(default_factory=dict)

    @property
    def rejected_share(self) -> float:
        """Rejected rows over all rows; 0 where there were none."""
        return sum(self.rejected.values()) / self.rows_in if self.rows_in else 0.0


class RowCounter:
    """Counts rows while a stage runs; ``finish`` checks the sum."""

    def __init__(self, stage: str, rejects: RowList[RejectedRow] | None = None) -> None:
        """``rejects`` takes the rejected rows; a list in memory when it is left out."""
        self.stage = stage
        self.rows_in = 0
        self.kept = 0
        self.rejects: RowList[RejectedRow] = [] if rejects is None else rejects

    def read(self, rows: int = 1) -> None:
        """Count ``rows`` rows as read."""
        self.rows_in += rows

    def keep(self, rows: int = 1) -> None:
        """Count ``rows`` rows as kept."""
        self.kept += rows

    def reject(self, reject: RejectedRow) -> None:
        """Count one row as rejected, and keep it for rejects.jsonl."""
        self.rejects.append(reject)

    def finish(self, *, records_out: int) -> RowCounts:
        """Return the counts, after checking that they add up; ``records_out`` is the number of records that were written.

        Raises  TunectlError when the sum does not hold, or a reason is not in the closed set: a bug in the stage, never the user's
                mistake.
        """
        reasons: Counter[str] = Counter(reject.reason for reject in self.rejects)
        if unknown := sorted(reasons.keys() - REJECT_REASONS.keys()):
            raise TunectlError(
                f"{self.stage}: {unknown[0]!r} is not a known reason (artifacts/reject_reasons.py has all)",
                hint="a bug in this stage: please report it",
            )
        if self.rows_in != self.kept + sum(reasons.values()):
            raise TunectlError(
                f"{self.stage}: {self.rows_in} rows in, but {self.kept} kept and {sum(reasons.values())} rejected",
                hint="a bug in this stage: please report it",
            )
        samples: dict[str, list[RejectedRow]] = {reason: [] for reason in reasons}
        for reject in self.rejects:
            if len(samples[reject.reason]) < SAMPLES_A_REASON:
                samples[reject.reason].append(reject)
        return RowCounts(self.stage, self.rows_in, self.kept, dict(sorted(reasons.items())), records_out, samples)


def save(
    tally: RowCounter, folder: Path, *, records_out: int, max_rejected_share: float, setting: str | None
) -> RowCounts:
    """Finish the counts, write them and the rejects into ``folder``, and return them; ``records_out`` records were written.

    ``setting`` is the dotted key that allows more, for the message; None where there is none.
    Raises  DataError when every row, or more than ``max_rejected_share`` (0 to 1), was rejected.
    """
    account = tally.finish(records_out=records_out)
    atomic_io.write_rows(folder / REJECTS, tally.rejects)
    atomic_io.write_json(folder / ROW_COUNTS, account)
    if account.rows_in == 0:
        raise DataError(f"{tally.stage}: no rows came in", hint="tunectl data counts shows where they were lost")
    if account.kept == 0 or account.rejected_share > max_rejected_share:
        raise _too_many(account, max_rejected_share, setting)
    return account


def _too_many(account: RowCounts, allowed: float, setting: str | None) -> DataError:
    reasons = sorted(account.rejected.items(), key=lambda item: -item[1])
    lines = [f"    {count:>7}  {reason}: {_first(account, reason)}" for reason, count in reasons]
    if account.kept == 0:
        text = f"{account.stage}: all {account.rows_in} rows were rejected, so nothing is left\n"
        return DataError(text + "\n".join(lines), hint="fix the data, or bring other rows too")
    text = f"{account.stage}: {account.rejected_share:.1%} of {account.rows_in} rows were rejected; the limit is {allowed:.0%}\n"
    return DataError(
        text + "\n".join(lines),
        hint="fix the data" + (f", or allow more: {setting}=<share from 0 to 1>" if setting else ""),
    )


def _first(account: RowCounts, reason: str) -> str:
    reject = account.samples[reason][0]
    location = reject.source.location
    return f"first {location} {reject.detail or reject.sample}".rstrip()


def load(folder: Path) -> RowCounts:
    """Return the row counts of a finished artifact folder, from row_counts.json."""
    account: RowCounts = atomic_io.read_json(folder / ROW_COUNTS, RowCounts)
    return account
