"""How windows are decided on, and how many rows they need for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log10
from statistics import NormalDist

from tunectl.monitoring.decision import POOLS
from tunectl.monitoring.signals import WEIGHTS

POWER = 0.8
"""Chance of seeing a change for which a window is called large enough."""


@dataclass(frozen=True, slots=True)
class DetectionRule:
    """How windows are decided on."""

    permutations: int
    quantile: float
    """Of reference-against-reference splits: the effect floor."""
    minimum: int
    """Fewest rows of a signal on either side."""
    false_alarms: float
    """False verdicts per evaluation, all signals and pools together."""
    min_effect: float = 0.2
    """Smallest change that matters, in standard deviations of a signal."""
    level: float = 0.05
    """Of a signal alone, for the threshold that people see; no verdict rests on it."""

    @property
    def evidence_required(self) -> float:
        """The evidence that makes a drift."""
        return round(-log10(self.false_alarms), 3)


def min_window_rows(rule: DetectionRule, reference: int, windows: int) -> int | None:
    """Return rows of a window with which the declared smallest change is seen by the ``windows``-th window.

    None where the reference has too few rows for it, however many a window has. In a signal of the smallest weight, by the normal approximation of a difference of means.
    """
    rest = 1 / _effective_rows(rule) - 1 / reference
    return ceil(1 / rest / windows) if rest > 0 else None


def min_reference_rows(rule: DetectionRule) -> int:
    """Return rows of a reference with which windows of a thousand rows see the declared change by the ninth."""
    return ceil(1 / (1 / _effective_rows(rule) - 1 / 9000))


def _effective_rows(rule: DetectionRule) -> float:
    """Return 1 / (1/n + 1/m) that a test needs to see the declared change."""
    normal = NormalDist()
    level = rule.false_alarms / len(POOLS) * min(WEIGHTS.values()) / sum(WEIGHTS.values())
    return float(((normal.inv_cdf(1 - level / 2) + normal.inv_cdf(POWER)) / rule.min_effect) ** 2)
