"""The comparison as CSV files for ``dvc plots``."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from tunectl.evaluation.prompt_search import describe
from tunectl.evaluation.results import Results

Cell = str | float | int | None


def csv_files(results: Results) -> dict[str, str]:
    """Return CSV text by file name; slices.csv, win_rates.csv, slots.csv and prompts.csv only where there is data for them."""
    files = {
        "scores.csv": _csv(
            ("system", "measure", "value", "low", "high", "items"),
            (
                (system.name, name, score.value, score.low, score.high, score.items)
                for system in results.systems
                for name, score in system.scores.items()
            ),
        ),
        "differences.csv": _csv(
            ("system", "against", "measure", "value", "low", "high", "probability"),
            ((d.system, d.against, d.measure, d.value, d.low, d.high, d.probability) for d in results.differences),
        ),
    }
    if results.slices:
        files["slices.csv"] = _csv(
            ("field", "value", "items", "system", results.primary),
            (
                (part.field, part.value, part.items, name, score.value)
                for part in results.slices
                for name, score in part.scores.items()
            ),
        )
    if results.win_rates:
        files["win_rates.csv"] = _csv(
            ("judge", "pairs", "wins", "ties", "losses", "rate", "low", "high"),
            ((w.judge, w.pairs, w.wins, w.ties, w.losses, w.rate, w.low, w.high) for w in results.win_rates),
        )
    if results.slots is not None:
        files["slots.csv"] = _csv(
            ("attribute", "stated", "system", "right", "missing", "wrong", "added"),
            (
                (part.attribute, part.stated, name, count.right, count.missing, count.wrong, count.added)
                for part in results.slots.parts
                for name, count in part.systems.items()
            ),
        )
    if results.search is not None:
        files["prompts.csv"] = _csv(
            ("prompt", results.primary, "tokens", "seconds"),
            ((describe(c.prompt), c.score, c.tokens, c.seconds) for c in results.search.candidates),
        )
    return files


def _csv(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(["" if cell is None else cell for cell in row] for row in rows)
    return buffer.getvalue()
