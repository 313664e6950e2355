"""From the tests of one window to a verdict: Holm, effect floors, windows in a row.

A signal moved when its p-value passes Holm's correction over all signals of its window and its effect is over the floor that
splits of the reference against itself set. Windows in a row are counted on that, not signal by signal: what moves may change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from tunectl.artifacts.records import DriftSignal, DriftVerdict, DriftWindow


@dataclass(frozen=True, slots=True)
class WindowDecision:
    """What one window adds up to."""

    verdict: DriftVerdict
    moved: bool
    consecutive: int
    reason: str


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values, in the given order: at most ``level`` of them keeps the chance of any false one at ``level``.

    Holds whatever the dependence between the tests. Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - place) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def adjust_p_values(signals: Iterable[DriftSignal], level: float) -> dict[str, DriftSignal]:
    """The signals of one window by name, with ``adjusted`` and ``moved`` filled in; those without a number stay as they are."""
    given = list(signals)
    told = [one for one in given if one.p_value is not None]
    adjusted = dict(zip([one.name for one in told], holm([one.p_value or 0.0 for one in told]), strict=True))
    return {
        one.name: _apply_adjusted_p_value(one, adjusted[one.name], level) if one.name in adjusted else one
        for one in given
    }


def _apply_adjusted_p_value(one: DriftSignal, p_value: float, level: float) -> DriftSignal:
    over = one.effect is not None and one.effect_floor is not None and one.effect > one.effect_floor
    return replace(one, adjusted_p_value=p_value, shifted=over and p_value <= level)


def window_verdict(
    signals: Mapping[str, DriftSignal], before: Sequence[DriftWindow], *, required: int, missing: Sequence[str] = ()
) -> WindowDecision:
    """The verdict of a window, given the earlier ones of the same release and reference, oldest first.

    ``missing`` says why a side that was asked for could not be looked at (no reference yet, no signal with enough rows): then
    a window in which nothing moved is ``insufficient``, not ``ok``: not all of it was looked at.
    """
    told = [one for one in signals.values() if one.p_value is not None]
    moved = [one for one in told if one.shifted]
    run = consecutive(before)
    if moved:
        names = ", ".join(one.name for one in sorted(moved, key=lambda one: one.adjusted_p_value or 0.0))
        count = run + 1
        verdict: DriftVerdict = "drift" if count >= required else "ok"
        return WindowDecision(
            verdict, moved=True, consecutive=count, reason=f"moved, {count} of {required} in a row: {names}"
        )
    if not told or missing:
        silent = [f"{one.name}: {one.reason}" for one in signals.values() if one.p_value is None and one.reason]
        reasons = list(dict.fromkeys(missing or silent))  # what is missing as a whole is why each of them is silent
        return WindowDecision("insufficient", moved=False, consecutive=run, reason="; ".join(reasons) or "no rows")
    untold = [one.name for one in signals.values() if one.p_value is None]
    quiet = f"none of {len(told)} signals moved" + (f"; too few rows for {', '.join(untold)}" if untold else "")
    return WindowDecision("ok", moved=False, consecutive=0, reason=quiet)


def consecutive(before: Sequence[DriftWindow]) -> int:
    """Windows in a row so far: what could not be told neither counts nor breaks the row."""
    for window in reversed(before):
        if window.verdict in {"ok", "drift"}:
            return window.consecutive
    return 0
