"""The decision rule for windows, and how many rows a window needs."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log10, sqrt
from statistics import NormalDist

from tunectl.monitoring.decision import POOLS
from tunectl.monitoring.signals import WEIGHTS
from tunectl.monitoring.tail_probabilities import MARGIN

POWER = 0.8
"""Power from which a window is called large enough."""


@dataclass(frozen=True, slots=True)
class DetectionRule:
    """Settings of the drift decision: permutations, budget of false alarms, smallest effect, fewest rows."""

    permutations: int
    quantile: float
    """Quantile of reference-against-reference splits that is the effect floor."""
    minimum: int
    """Fewest rows of a signal on either side."""
    false_alarms: float
    """False verdicts per evaluation, all signals and pools together."""
    min_effect: float = 0.2
    """Smallest change that matters, in standard deviations of a signal."""
    level: float = 0.05
    """Significance level of a single signal, for the threshold that people see; no verdict uses it."""

    @property
    def evidence_required(self) -> float:
        """Evidence (-log10 of p) from which the verdict is drift."""
        return round(-log10(self.false_alarms), 3)


def min_window_rows(rule: DetectionRule, reference: int, windows: int) -> int | None:
    """Return how many rows a window needs so that a shift of ``rule.min_effect`` is detected by the ``windows``-th window, power 80 %.

    None where ``reference`` rows are too few for any window size. Computed for a signal of the smallest weight, by the normal approximation
    of a difference of means.
    """
    rest = 1 / _effective_rows(rule) - 1 / reference
    return ceil(1 / rest / windows) if rest > 0 else None


def min_reference_rows(rule: DetectionRule) -> int:
    """Return how many reference rows are needed so that a shift of ``rule.min_effect`` is detected by the ninth window of 1,000 rows."""
    return ceil(1 / (1 / _effective_rows(rule) - 1 / 9000))


def power(rule: DetectionRule, effect: float, rows: int, reference: int) -> float:
    """Return the power of a numeric signal when its mean shifts by ``effect`` standard deviations.

    rows       rows with a value in the window, or in the windows that are tested together
    reference  rows with a value in the reference
    For a signal of the smallest weight, by the normal approximation, with the margin of the earth mover's tail.
    """
    normal = NormalDist()
    distance = effect / sqrt(1 / rows + 1 / reference)
    return normal.cdf(distance - normal.inv_cdf(1 - _signal_level(rule) ** (1 / MARGIN) / 2))


def min_visible_effect(rule: DetectionRule, rows: int, reference: int) -> float:
    """Return the smallest shift of a numeric signal's mean, in standard deviations, that its test detects with a power of 80 %.

    rows       number of rows with a value in the window, or in the windows that are tested together
    reference  number of rows with a value in the reference
    For a signal of the smallest weight, by the same approximation as ``power``.
    """
    normal = NormalDist()
    critical = normal.inv_cdf(1 - _signal_level(rule) ** (1 / MARGIN) / 2)
    return (critical + normal.inv_cdf(POWER)) * sqrt(1 / rows + 1 / reference)


def _signal_level(rule: DetectionRule) -> float:
    """Return the share of the budget of false alarms for one pool of a signal of the smallest weight."""
    return rule.false_alarms / len(POOLS) * min(WEIGHTS.values()) / sum(WEIGHTS.values())


def _effective_rows(rule: DetectionRule) -> float:
    """Return 1 / (1/n + 1/m) that a test needs to detect the declared change."""
    normal = NormalDist()
    return float(((normal.inv_cdf(1 - _signal_level(rule) / 2) + normal.inv_cdf(POWER)) / rule.min_effect) ** 2)
