"""The CSV files that ``dvc plots`` draws of a reward model."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tunectl.training.reward.reward_metrics import CalibrationBin


def reliability(bins: Sequence[CalibrationBin]) -> str:
    """Return a line a bin: the mean chance of its predicted winners, the share that won, and how many pairs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["confidence", "accuracy", "low", "high", "pairs"])
    writer.writerows([item.confidence, item.accuracy, item.low, item.high, item.pairs] for item in bins)
    return out.getvalue()
