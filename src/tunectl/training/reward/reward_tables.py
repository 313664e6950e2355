"""CSV files of a reward model for ``dvc plots``."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from tunectl.training.reward.reward_metrics import CalibrationBin


def reliability(bins: Sequence[CalibrationBin]) -> str:
    """Return one line per bin: mean probability of its predicted winners, share of right ones, and number of pairs."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["confidence", "accuracy", "low", "high", "pairs"])
    writer.writerows([item.confidence, item.accuracy, item.low, item.high, item.pairs] for item in bins)
    return out.getvalue()
