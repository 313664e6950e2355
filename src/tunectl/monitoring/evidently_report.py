"""Evidently report of one window, with our tests registered as its statistical tests.

Evidently would choose a test by the size of the reference and test embeddings with thresholds that raise false alarms;
here every column names its method, which returns the p-value of the verdict.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import DriftSignal, DriftWindow
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional
from tunectl.monitoring.signals import SIGNALS, MonitoredInference

EXTRA: Final = "monitor"
TESTS: Final = {"tunectl_mmd": "text", "tunectl_wasserstein": "num", "tunectl_variation": "cat"}
"""Names of our tests in Evidently, and the kinds of columns they take."""
KINDS: Final = {
    "text": ("text", "tunectl_mmd"),
    "number": ("num", "tunectl_wasserstein"),
    "category": ("cat", "tunectl_variation"),
    "share": ("cat", "tunectl_variation"),
}
"""Column type and test for each kind of signal. Tone and language are derived from texts, and are shown on our own page only."""
DRAWN: Final = 2000
"""Most rows of a side in the plots; the numbers beside them are of all rows. On shifted texts Evidently trains a classifier."""
_results: dict[str, DriftSignal] = {}
"""Results of the window that is being written, by column: Evidently calls tests with values only."""


def write(
    window: DriftWindow,
    rows: Sequence[MonitoredInference],
    references: Mapping[str, Sequence[MonitoredInference]],
    target: Path,
) -> None:
    """Write the HTML page of ``window`` to the file ``target``; ``references`` are the rows for ``prompt`` and ``answer``.

    It has only the signals that were compared, and contains its pictures and scripts, so it needs no network.
    Raises  InfrastructureError where Evidently cannot make it.
    """
    os.environ["DO_NOT_TRACK"] = "1"
    pandas = import_optional("pandas", extra=EXTRA)
    evidently = import_optional("evidently", extra=EXTRA)
    _register()
    signals = [item for item in SIGNALS if item.kind in KINDS and _has_p_value(window, item.name)]
    if not signals:
        return
    _results.clear()
    _results.update({item.name: window.signals[item.name] for item in signals})
    metrics = import_optional("evidently.metrics", extra=EXTRA)
    kinds = {kind: [item.name for item in signals if KINDS[item.kind][0] == kind] for kind in ("text", "num", "cat")}
    definition = evidently.DataDefinition(
        text_columns=kinds["text"], numerical_columns=kinds["num"], categorical_columns=kinds["cat"]
    )
    parts = [metrics.ValueDrift(column=item.name, method=KINDS[item.kind][1], threshold=0.05) for item in signals]
    window_rows, reference_rows = (
        evidently.Dataset.from_pandas(pandas.DataFrame(table), data_definition=definition)
        for table in (_table(signals, dict.fromkeys(references, rows)), _table(signals, references))
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            snapshot = evidently.Report(parts, include_tests=True).run(window_rows, reference_rows, name=window.id)
            page = snapshot.get_html_str(as_iframe=False)
    except Exception as error:  # whatever Evidently raises, the verdict stands without its picture
        raise InfrastructureError(
            f"Evidently cannot show window {window.id}: {str(error)[:300]}",
            hint=f"its verdict does not depend on this page: tunectl monitor show {window.id}",
        ) from error
    atomic_io.write_text(target, page)


def _has_p_value(window: DriftWindow, name: str) -> bool:
    return name in window.signals and window.signals[name].p_value is not None


def _table(signals: Sequence[Any], rows: Mapping[str, Sequence[MonitoredInference]]) -> dict[str, list[Any]]:
    """Return columns of equal length: a side with fewer rows is padded with None."""
    sampled = {side: row[:: -(-len(row) // DRAWN) or 1] for side, row in rows.items()}
    longest = max(len(some) for some in sampled.values())
    table: dict[str, list[Any]] = {}
    for item in signals:
        values = [item.value(row) for row in sampled[item.side]]
        if item.kind != "number":
            values = [None if value is None else _strip_tag_start(str(value)) for value in values]
        table[item.name] = values + [None] * (longest - len(values))
    return table


def _strip_tag_start(text: str) -> str:
    """Remove the character that begins a tag: Evidently writes texts into a script unescaped, and users may send any text."""
    return text.replace("<", "\N{FULLWIDTH LESS-THAN SIGN}")


@cache
def _register() -> None:
    """Register our tests with Evidently, once."""
    tests = import_optional("evidently.legacy.calculations.stattests", extra=EXTRA)
    kinds = import_optional("evidently.legacy.core", extra=EXTRA).ColumnType
    for name, kind in TESTS.items():
        title = f"{name.removeprefix('tunectl_')}, permutation p-value"
        tests.register_stattest(
            tests.StatTest(name=name, display_name=title, allowed_feature_types=[kinds(kind)]), _look_up_result
        )


def _look_up_result(_reference: Any, current: Any, _kind: Any, _threshold: float) -> tuple[float, bool]:
    """Return the p-value that the monitor computed for a column, and whether it is shifted."""
    signal = _results[str(current.name)]
    return signal.p_value if signal.p_value is not None else 1.0, signal.shifted
