"""Anytime-valid sequential test of champion against challenger on live traffic. Pure.

The unit is an identity (a user, else a key), which stays in one variant. Its outcome is one number from 0 to 1, fixed once its
attribution time is over. Each question has an e-process (``canary/e_process.py``): is the challenger better, does it do harm, is a
guardrail violated, do the variants get their shares.
Why no library: ``docs/decisions/0009-sequential-test.md``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import log
from typing import TYPE_CHECKING, Any, Final, Literal

from msgspec import Struct, field

from tunectl.canary import e_process
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional

if TYPE_CHECKING:
    from numpy.typing import NDArray

CanaryDecision = Literal["running", "promote", "harm", "undecided", "unfair"]
"""running: no decision yet. promote: the goal is proved. harm: the challenger is worse, or a guardrail is violated. undecided: time or
units are over. unfair: the variants are not the declared ones, or do not get their shares, so nothing can be concluded."""
CURVE: Final = 60
"""Largest number of points of a curve."""
GRID: Final = 161
"""Candidate differences from -1 to 1 among which the confidence interval is searched."""


class Observation(Struct, frozen=True):
    """Final outcome and guardrails of one identity in the canary."""

    challenger: bool
    outcome: float
    """0 to 1, more is better."""
    guards: dict[str, float] = field(default_factory=dict)
    """Guardrails by name, 0 to 1, more is worse: share of refusals, errors, slow answers."""


class SequentialTestRules(Struct, frozen=True):
    """Goal and error rates of the sequential test, and when it stops."""

    share: float
    """Share of the identities that get the challenger, above 0 and below 1."""
    margin: float
    """0: the challenger must be better. Above: it must not be worse by that much (in units of the outcome)."""
    alpha: float
    """Largest probability of promoting a challenger that does not reach the goal."""
    harm_alpha: float
    """Largest probability of stopping for harm where there is none, all guardrails together."""
    guardrail_tolerance: float
    """By how much a guardrail may be worse, 0 to 1."""
    min_units_per_variant: int
    """Units of each variant before anything is promoted."""
    max_total_units: int | None
    """Units of both variants, at which an open question is undecided; None: only time ends it."""


class Point(Struct, frozen=True):
    """One point of the curve of a canary: difference and evidence after ``units`` identities."""

    units: int
    difference: float
    low: float
    high: float
    better: float
    """E-value for the goal; 1 / alpha proves it."""
    harm: float
    """E-value for harm; 1 / harm level proves it."""


class CanaryResult(Struct, frozen=True):
    """Result of one evaluation of a canary: decision, mean outcomes, confidence sequence and e-values."""

    decision: CanaryDecision
    reason: str
    champion_units: int
    challenger_units: int
    champion: float | None
    challenger: float | None
    """Mean outcome of each variant; None without units."""
    low: float | None
    high: float | None
    """Ends of the confidence sequence of the difference: it holds for all evaluations together."""
    evidence: dict[str, float]
    """Largest e-value so far: ``better``, ``harm``, ``fair`` and the guardrails."""
    at: int | None = None
    """Units after which the decision was reached."""
    curve: list[Point] = field(default_factory=list)


def validate_rules(rules: SequentialTestRules) -> None:
    """Check that ``rules.share`` is above 0 and below 1. Raises  UsageError."""
    if not 0 < rules.share < 1:
        raise UsageError(
            f"share = {rules.share}; a canary test needs a share above 0 and below 1",
            hint="change --share or retrain.canary.share",
        )


def evaluate(
    units: Sequence[Observation], rules: SequentialTestRules, *, over: bool = False, curve: bool = True
) -> CanaryResult:
    """Return the result of testing the units in the order in which they became final; ``over``: the time of the canary is over.

    ``curve`` False leaves out the points of the curve, for speed.
    More units never reverse a decision: the first crossing counts.
    Raises  UsageError for a share of 0 or 1, which leaves one variant empty.
    """
    validate_rules(rules)
    np = import_optional("numpy", extra="retrain")
    variant = np.asarray([unit.challenger for unit in units], dtype=bool)
    outcome = np.asarray([unit.outcome for unit in units], dtype=float)
    bad = {
        name: np.asarray([unit.guards.get(name, 0.0) for unit in units], dtype=float)
        for name in sorted({name for unit in units for name in unit.guards})
    }
    ipw_outcomes, evidence = (
        e_process.ipw_outcomes(variant, outcome, rules.share),
        _log_e_values(variant, outcome, bad, rules),
    )
    decision, reason, at = _find_first_crossing(evidence, list(bad), variant, rules)
    if decision == "running" and (over or (rules.max_total_units is not None and len(units) >= rules.max_total_units)):
        decision, reason = "undecided", f"{len(units)} units, and neither the goal nor harm is proved"
    champion, challenger = (float(outcome[side].mean()) if side.any() else None for side in (~variant, variant))
    band = _band(ipw_outcomes, rules) if len(units) else None
    return CanaryResult(
        decision,
        reason,
        int((~variant).sum()),
        int(variant.sum()),
        champion,
        challenger,
        None if band is None else float(band[0][-1]),
        None if band is None else float(band[1][-1]),
        {name: float(np.exp(min(path.max(), 700.0))) if len(path) else 1.0 for name, path in evidence.items()},
        at,
        _curve(ipw_outcomes, evidence, band) if curve and band is not None else [],
    )


def first_decision(
    variant: NDArray[Any], outcome: NDArray[Any], bad: Mapping[str, NDArray[Any]], rules: SequentialTestRules
) -> tuple[CanaryDecision, str, int | None]:
    """Return (first decision, reason, number of units after which it was made), from arrays with one value per unit: for simulations.

    variant  whether the challenger answered
    outcome  0 to 1
    bad      outcomes by guardrail, 0 to 1, more is worse
    """
    return _find_first_crossing(_log_e_values(variant, outcome, bad, rules), list(bad), variant, rules)


def _log_e_values(
    variant: NDArray[Any], outcome: NDArray[Any], bad: Mapping[str, NDArray[Any]], rules: SequentialTestRules
) -> dict[str, NDArray[Any]]:
    """Return the log e-value of each question after each unit."""
    ipw_outcomes = e_process.ipw_outcomes(variant, outcome, rules.share)
    return {
        "better": e_process.log_e_process(ipw_outcomes, -rules.margin, rules.share),
        "harm": e_process.log_e_process(-ipw_outcomes, 0.0, rules.share),
        "fair": e_process.sample_ratio_mismatch(variant, rules.share),
        **{
            name: e_process.log_e_process(
                e_process.ipw_outcomes(variant, values, rules.share), rules.guardrail_tolerance, rules.share
            )
            for name, values in bad.items()
        },
    }


def _find_first_crossing(
    evidence: dict[str, NDArray[Any]], guards: Sequence[str], variant: NDArray[Any], rules: SequentialTestRules
) -> tuple[CanaryDecision, str, int | None]:
    """Return the decision of the first threshold that was crossed; harm before promotion where both are crossed at once."""
    np = import_optional("numpy", extra="retrain")
    # Bonferroni over the outcome and the guardrails: harm_alpha bounds all false stops together
    harm_level = rules.harm_alpha / (1 + len(guards))
    enough = np.minimum(np.cumsum(variant), np.cumsum(~variant)) >= rules.min_units_per_variant
    crossed: list[tuple[int, int, CanaryDecision, str]] = []

    def add_crossing(rank: int, path: NDArray[Any], level: float, decision: CanaryDecision, reason: str) -> None:
        over = path >= log(1 / level)
        if over.any():
            crossed.append((int(over.argmax()) + 1, rank, decision, reason))

    add_crossing(0, evidence["fair"], 0.001, "unfair", "the variants do not get the shares that were declared")
    add_crossing(1, evidence["harm"], harm_level, "harm", "the challenger's outcome is worse")
    for name in guards:
        add_crossing(
            2, evidence[name], harm_level, "harm", f"more {name} than {rules.guardrail_tolerance:g} above the champion"
        )
    # The maximum so far, so that evidence gathered before min_units_per_variant still counts after it
    goal = "better" if rules.margin == 0 else f"not worse by {rules.margin:g}"
    best = np.maximum.accumulate(evidence["better"]) if len(variant) else evidence["better"]
    add_crossing(3, np.where(enough, best, -np.inf), rules.alpha, "promote", f"the challenger is {goal}")
    if not crossed:
        return "running", "neither the goal nor harm is proved yet", None
    at, _, decision, reason = min(crossed)
    return decision, reason, at


def _band(x: NDArray[Any], rules: SequentialTestRules) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the confidence sequence: lowest and highest difference not refuted after each unit; ``alpha`` on each side."""
    np = import_optional("numpy", extra="retrain")
    line, low, high = log(1 / rules.alpha), np.full(len(x), -1.0), np.full(len(x), 1.0)
    # A difference is outside once its e-process has crossed the line; the running maximum keeps it outside, so all
    # intervals hold together
    for position in np.linspace(-1, 1, GRID):
        above = np.maximum.accumulate(e_process.log_e_process(x, position, rules.share)) >= line
        below = np.maximum.accumulate(e_process.log_e_process(-x, -position, rules.share)) >= line
        low = np.where(above, np.maximum(low, position), low)
        high = np.where(below, np.minimum(high, position), high)
    return low, high


def _curve(x: NDArray[Any], evidence: dict[str, NDArray[Any]], band: tuple[NDArray[Any], NDArray[Any]]) -> list[Point]:
    np = import_optional("numpy", extra="retrain")
    mean = np.cumsum(x) / np.arange(1, len(x) + 1)
    indexes = np.unique(np.linspace(0, len(x) - 1, min(CURVE, len(x))).astype(int))
    money = {name: np.exp(np.minimum(evidence[name], 700.0)) for name in ("better", "harm")}
    return [
        Point(
            int(p) + 1,
            float(mean[p]),
            float(band[0][p]),
            float(band[1][p]),
            float(money["better"][p]),
            float(money["harm"][p]),
        )
        for p in indexes
    ]
