"""How windows are decided on, and how many rows they need for it."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log10, sqrt
from statistics import NormalDist

from tunectl.monitoring.decision import POOLS
from tunectl.monitoring.signals import WEIGHTS
from tunectl.monitoring.tail_probabilities import MARGIN

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


def power(rule: DetectionRule, effect: float, rows: int, reference: int) -> float:
    """Return the chance that a signal of numbers is flagged when its mean moves by ``effect`` standard deviations.

    rows       of the window, or of the windows that are tested together, that have a value
    reference  rows of the reference that have one
    In a signal of the smallest weight, by the normal approximation, with the margin of the earth mover's tail.
    """
    normal = NormalDist()
    distance = effect / sqrt(1 / rows + 1 / reference)
    return normal.cdf(distance - normal.inv_cdf(1 - _signal_level(rule) ** (1 / MARGIN) / 2))


def min_visible_effect(rule: DetectionRule, rows: int, reference: int) -> float:
    """Return the smallest change of the mean, in standard deviations, that ``power`` gives a chance of ``POWER``."""
    normal = NormalDist()
    critical = normal.inv_cdf(1 - _signal_level(rule) ** (1 / MARGIN) / 2)
    return (critical + normal.inv_cdf(POWER)) * sqrt(1 / rows + 1 / reference)


def _signal_level(rule: DetectionRule) -> float:
    """Return the part of the budget of false alarms that one pool of a signal of the smallest weight has."""
    return rule.false_alarms / len(POOLS) * min(WEIGHTS.values()) / sum(WEIGHTS.values())


def _effective_rows(rule: DetectionRule) -> float:
    """Return 1 / (1/n + 1/m) that a test needs to see the declared change."""
    normal = NormalDist()
    return float(((normal.inv_cdf(1 - _signal_level(rule) / 2) + normal.inv_cdf(POWER)) / rule.min_effect) ** 2)
