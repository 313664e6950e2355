"""The gate between champion and challenger: golden set, drifted slice, safety floors, infrastructure check. Pure.

    reject        a guardrail or a check failed; significantly worse on the golden set; not better on the drifted slice
    insufficient  too few items, whatever their results, or too wide intervals
    promote       not worse on the golden set by more than the margin, and significantly better on the slice

Equal is a rejection: a promotion has a cost and must have a benefit. All differences are paired, item by item, challenger
minus champion, in points of the primary metric where more is better.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct, field

from tunectl.stats import bootstrap

if TYPE_CHECKING:
    from numpy.typing import NDArray

GateOutcome = Literal["promote", "reject", "insufficient"]
POWER = 0.8
"""Power at which the smallest detectable difference of a set of items is computed."""


class GateLimits(Struct, frozen=True):
    """Thresholds of the promotion gate, and the settings of its intervals."""

    margin: float
    """Points by which the challenger may be worse on the golden set at most."""
    matters: float
    """Smallest gain on the slice that counts, in points: a wider interval is insufficient."""
    golden_items: int
    slice_items: int
    """Fewest items (independent groups of them) of each part."""
    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


class GateComparison(Struct, frozen=True, omit_defaults=True):
    """Score of champion and challenger on the golden set or the drifted slice, with the paired difference."""

    name: Literal["golden", "slice"]
    items: int
    groups: int
    """Number of independent items: near duplicates count once."""
    champion: float | None = None
    challenger: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    sees: float | None = None
    """Smallest true difference that this number of items detects with a power of 80 %."""


class Guardrail(Struct, frozen=True):
    """A limit on a safety or format measurement of the challenger, which no gain outweighs."""

    name: str
    value: float
    bound: float
    most: bool
    """Whether ``bound`` is the largest allowed value; else it is the smallest."""

    @property
    def holds(self) -> bool:
        """Whether the challenger's value is within the limit."""
        return self.value <= self.bound if self.most else self.value >= self.bound


class GateCheck(Struct, frozen=True):
    """Result of one check that the packaged challenger can serve: it loads, answers, in time, within memory."""

    name: str
    holds: bool
    said: str


class GateVerdict(Struct, frozen=True):
    """Verdict of the promotion gate, with the comparisons, guardrails and checks that led to it."""

    verdict: GateOutcome
    reason: str
    parts: list[GateComparison] = field(default_factory=list)
    floors: list[Guardrail] = field(default_factory=list)
    checks: list[GateCheck] = field(default_factory=list)
    margin: float = 0.0
    against: str = ""
    """The champion that the challenger was compared with."""
    version: int = 0
    """Version of the golden set."""
    leaked: int = 0
    """Number of golden items that were left out, because they were in the challenger's training data."""


def compare_on_items(
    name: Literal["golden", "slice"],
    champion: NDArray[Any],
    challenger: NDArray[Any],
    groups: Sequence[str],
    combine: Callable[[NDArray[Any]], NDArray[Any]],
    limits: GateLimits,
) -> GateComparison:
    """Return the scores of champion and challenger on one set of items, with their paired difference and its interval.

    champion, challenger  statistics (items, statistics) of the primary metric, one row per item, the same items in the same order
    groups                one name per item; items of one group are resampled together
    combine               sums of statistics (..., statistics) to values (...), in points
    Source: paired bootstrap as in ``stats.bootstrap``; the smallest detectable difference follows from the interval's width at a power of 80 %.
    """
    units = len(dict.fromkeys(groups))
    if not len(champion):
        return GateComparison(name, 0, 0)
    left, right = (bootstrap.sum_by_group(table, groups) for table in (challenger, champion))
    counts = bootstrap.resample_counts(units, limits.resamples, limits.seed)
    result = bootstrap.difference(left, right, combine, counts, limits.confidence)
    values = float(combine(champion.sum(axis=0))), float(combine(challenger.sum(axis=0)))
    if result is None:
        return GateComparison(name, len(champion), units, *values, values[1] - values[0])
    normal = NormalDist()
    z = normal.inv_cdf(0.5 + limits.confidence / 2)
    sees = (result.high - result.low) / (2 * z) * (z + normal.inv_cdf(POWER))
    return GateComparison(name, len(champion), units, *values, result.value, result.low, result.high, sees)


def decide(
    golden: GateComparison,
    drifted: GateComparison | None,
    floors: Sequence[Guardrail],
    checks: Sequence[GateCheck],
    limits: GateLimits,
) -> GateVerdict:
    """Return the gate's verdict, by the intervals of challenger minus champion.

    - reject: a check or a guardrail fails; the challenger is surely worse, on the golden set by at least ``limits.margin``;
      or it is measured precisely and is not better.
    - insufficient: too few items, a loss of ``limits.margin`` on the golden set is not excluded, or the gain's interval is too wide.
    - promote: the interval of the gain lies above zero on the drifted slice, or, without one (a scheduled retrain), on the golden set.
    """
    parts = [golden, *([drifted] if drifted is not None else [])]
    verdict, reason = _outcome(golden, drifted, floors, checks, limits)
    return GateVerdict(verdict, reason, parts, list(floors), list(checks), limits.margin)


def _outcome(
    golden: GateComparison,
    drifted: GateComparison | None,
    floors: Sequence[Guardrail],
    checks: Sequence[GateCheck],
    limits: GateLimits,
) -> tuple[GateOutcome, str]:
    broken = [f"{check.name}: {check.said}" for check in checks if not check.holds]
    if broken:
        return "reject", f"The challenger cannot serve: {'; '.join(broken)}."
    low = [_breach(floor) for floor in floors if not floor.holds]
    if low:
        return "reject", f"A safety floor does not hold: {'; '.join(low)}."
    few = _few(golden, limits.golden_items) or (_few(drifted, limits.slice_items) if drifted is not None else None)
    if few:
        return "insufficient", few
    allowed = {golden.name: limits.margin}  # a small loss on the golden set is what the margin is for
    worse = [part for part in (golden, drifted) if part is not None and _worse(part, allowed.get(part.name, 0.0))]
    if worse:
        return "reject", f"The challenger is worse on {_set(worse[0])}: {_ends(worse[0])}."
    if golden.low is None or golden.low <= -limits.margin:
        wide = f"{_ends(golden)} does not exclude a loss of {limits.margin:g} points"
        return "insufficient", f"Not enough evidence on the golden set: {wide}."
    aim = golden if drifted is None else drifted
    return _gain(aim, limits)


def _worse(part: GateComparison, margin: float) -> bool:
    """Return whether the challenger is significantly worse, by more than the margin."""
    return part.high is not None and part.low is not None and part.high < 0 and part.low <= -margin


def _gain(aim: GateComparison, limits: GateLimits) -> tuple[GateOutcome, str]:
    if aim.low is not None and aim.low > 0:
        return "promote", f"The challenger is better on {_set(aim)}: {_ends(aim)}."
    if aim.low is None or aim.high is None or aim.high - (aim.difference or 0.0) > limits.matters:
        wide = f"{_ends(aim)}; {limits.matters:g} points matter, and so few items see {aim.sees or 0:.1f}"
        return "insufficient", f"Not enough evidence on {_set(aim)}: {wide}."
    return "reject", f"The challenger is not better on {_set(aim)}: {_ends(aim)}; equal is not enough."


def _few(part: GateComparison, minimum: int) -> str | None:
    if part.groups >= minimum and part.difference is not None:
        return None
    return f"Too few items in {_set(part)}: {part.groups}; at least {minimum} are needed."


def _set(part: GateComparison) -> str:
    return "the golden set" if part.name == "golden" else "the drifted slice"


def _ends(part: GateComparison) -> str:
    if part.low is None or part.high is None or part.difference is None:
        return "no interval"
    return f"{part.difference:+.1f} points, interval {part.low:+.1f} to {part.high:+.1f}"


def _breach(floor: Guardrail) -> str:
    return f"{floor.name} is {floor.value:g}, {'at most' if floor.most else 'at least'} {floor.bound:g} is allowed"
