"""Compare two runs by their test inputs, in a subprocess: numpy would stay in the console's memory for good.

``python -m tunectl.console.paired_scores OLD NEW CONFIDENCE`` prints the answer as JSON.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.core.errors import InfrastructureError
from tunectl.evaluation import paired_comparison
from tunectl.evaluation.results import InputScores, MetricDifference

RESAMPLES: Final = 1000
SECONDS: Final = 60
"""Longest time in seconds; a thousand inputs take one."""
InputValues = dict[str, dict[str, dict[str, float]]]
"""Value of each test input, by system and metric."""


class PairedRuns(msgspec.Struct, frozen=True):
    """Metric differences of two runs, paired by test input, and the values behind them."""

    differences: list[MetricDifference]
    """The second run minus the first; none where the inputs differ."""
    old: InputValues
    new: InputValues


def pair_runs(old: Path, new: Path, confidence: float) -> PairedRuns:
    """Compare two files of input scores (``input_scores.jsonl``) in a subprocess; return the differences with intervals at ``confidence`` (0.95).

    Raises  InfrastructureError where the process fails.
    """
    command = [sys.executable, "-m", __name__, str(old), str(new), str(confidence)]
    try:
        process = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
        return msgspec.json.decode(process.stdout, type=PairedRuns)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError) as error:
        reason = getattr(error, "stderr", b"") or str(error).encode()
        last = reason.decode(errors="replace").strip().splitlines()[-1:]
        raise InfrastructureError(
            f"the scores of the inputs could not be compared: {' '.join(last)[:300]}",
            hint=f"check that {old} and {new} are whole; tunectl repro --force --to evaluate writes new ones",
        ) from error


def main(old: str, new: str, confidence: str) -> None:
    """Print the comparison of two files of input scores as JSON."""
    before, after = (list(atomic_io.read_rows(Path(path), InputScores)) for path in (old, new))
    same = {row.id for row in before} == {row.id for row in after}
    result = PairedRuns(
        paired_comparison.compare_runs(before, after, resamples=RESAMPLES, confidence=float(confidence), seed=0)
        if same
        else [],
        paired_comparison.score_inputs(before),
        paired_comparison.score_inputs(after),
    )
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main(*sys.argv[1:])
