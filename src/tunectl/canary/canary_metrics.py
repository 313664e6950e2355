"""What people did in an experiment, one number an identity: clicks, conversions, satisfaction, and what must not get worse. Pure.

An identity's outcome counts once its attribution time is over: from then on it is final, and the order in which identities
become final is the order of the test. Everybody who was assigned counts, also who said nothing: who speaks up may depend on
the variant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.canary.sequential_test import Observation

CanaryMetric = Literal["click", "conversion", "satisfaction"]
VARIANTS: Final = ("champion", "challenger", "base")


class ExperimentData(Struct, frozen=True):
    """The units of an experiment, and whom it leaves out."""

    units: list[Observation]
    """In the order in which they became final."""
    open: int
    """Identities whose attribution time is not over."""
    chosen: int
    """Inferences whose caller asked for a variant by name: nobody assigned those."""
    both: int
    """Identities that were seen in both variants, which nobody is who was assigned."""


def collect_observations(
    inferences: Iterable[InferenceRecord],
    said: Callable[[Sequence[str]], Mapping[str, Sequence[Feedback]]],
    *,
    metric: CanaryMetric,
    challenger: str,
    attribution: timedelta,
    slow: float,
    now: datetime,
) -> ExperimentData:
    """Return units of the inferences since the experiment began.

    inferences    of both variants, the oldest first
    said         finds the feedback of inferences
    challenger   its release
    attribution  from an identity's first inference to the end of what counts for it
    slow         seconds beyond which an answer is a slow one
    """
    groups: dict[str, list[InferenceRecord]] = {}
    chosen = 0
    for one in inferences:
        if one.variant not in ("champion", "challenger") or (one.variant == "challenger" and one.release != challenger):
            continue
        if (one.request or {}).get("model") in (*VARIANTS, one.release):
            chosen += 1
        elif one.person is not None:  # an experiment lasts for weeks of traffic: its text is not kept in memory
            groups.setdefault(one.person, []).append(replace(one, request=None, response=None))
    final: list[tuple[datetime, str, list[InferenceRecord]]] = []
    still_open = both = 0
    for name, ones in groups.items():
        end = ones[0].accepted_at + attribution
        inside = [one for one in ones if one.accepted_at < end]
        if len({one.variant for one in inside}) > 1:
            both += 1
        elif end > now:
            still_open += 1
        else:
            final.append((end, name, inside))
    final.sort(key=lambda row: row[:2])
    opinions = said([one.id for _, _, inside in final for one in inside])
    units = [_unit(inside, opinions, end, metric, slow) for end, _, inside in final]
    return ExperimentData(units, still_open, chosen, both)


def _unit(
    ones: Sequence[InferenceRecord],
    said: Mapping[str, Sequence[Feedback]],
    end: datetime,
    measure: CanaryMetric,
    slow: float,
) -> Observation:
    opinions = [[one for one in said.get(inference.id, ()) if one.counted_at < end] for inference in ones]
    count = len(ones)
    guards = {
        "errors": sum(one.finish_reason == "error" or one.finished_at is None for one in ones) / count,
        "refusals": sum(bool(one.refusal) for one in ones) / count,
        "slow answers": sum(one.latency_seconds is not None and one.latency_seconds > slow for one in ones) / count,
    }
    if measure != "satisfaction":
        # a click, whatever was clicked; a conversion, whatever it was worth
        return Observation(
            ones[0].variant == "challenger", float(any(one.kind == measure for row in opinions for one in row)), guards
        )
    marks = [_mark(row) for row in opinions]
    return Observation(ones[0].variant == "challenger", sum(marks) / count, guards)


def _mark(opinions: Sequence[Feedback]) -> float:
    """Return satisfaction with one answer, 0 to 1; half where nobody said. Somebody who wrote a better answer was not satisfied."""
    found: list[float] = []
    for one in opinions:
        if one.kind == "thumb" and one.value is not None:
            found.append(float(one.value == "up"))
        elif one.kind == "rating" and one.value is not None:
            found.append((float(one.value) - 1) / 4)
        elif one.kind == "edit":
            found.append(0.25)
    return sum(found) / len(found) if found else 0.5
