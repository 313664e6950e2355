"""Outcomes of a canary, one number per identity: clicks, conversions, satisfaction, and guardrails. Pure.

An identity's outcome counts once its attribution time is over: from then on it is final, and the order in which identities
become final is the order of the test. Everybody who was assigned counts, also without feedback: who gives feedback may depend on
the variant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts.canary_state import VARIANTS
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.canary.sequential_test import Observation

CanaryMetric = Literal["click", "conversion", "satisfaction"]


class CanaryData(Struct, frozen=True):
    """The outcomes per identity of a canary, and the numbers of identities left out."""

    units: list[Observation]
    """In the order in which they became final."""
    open: int
    """Number of identities whose attribution time is not over."""
    by_name: int
    """Number of inferences whose caller asked for a variant by name: they were not assigned."""
    both: int
    """Number of identities that were seen in both variants; assigned ones never are."""


def collect_observations(
    inferences: Iterable[InferenceRecord],
    feedback_of: Callable[[Sequence[str]], Mapping[str, Sequence[Feedback]]],
    *,
    metric: CanaryMetric,
    challenger: str,
    attribution: timedelta,
    slow: float,
    now: datetime,
) -> CanaryData:
    """Return one outcome per identity whose attribution time is over at ``now``; the others are counted as open or left out.

    inferences    of both variants, the oldest first
    feedback_of   returns the feedback by inference id
    challenger    release of the challenger
    attribution   time from an identity's first inference to the end of what counts for it
    slow          seconds beyond which an answer counts as slow
    metric        what makes the outcome: a click, a conversion, or satisfaction
    """
    groups: dict[str, list[InferenceRecord]] = {}
    by_name = 0
    for inference in inferences:
        if inference.variant not in ("champion", "challenger") or (
            inference.variant == "challenger" and inference.release != challenger
        ):
            continue
        if (inference.request or {}).get("model") in (*VARIANTS, inference.release):
            by_name += 1
        elif inference.person is not None:  # a canary lasts for weeks of traffic: its text is not kept in memory
            groups.setdefault(inference.person, []).append(replace(inference, request=None, response=None))
    final: list[tuple[datetime, str, list[InferenceRecord]]] = []
    still_open = both = 0
    for name, group in groups.items():
        end = group[0].accepted_at + attribution
        inside = [item for item in group if item.accepted_at < end]
        if len({item.variant for item in inside}) > 1:
            both += 1
        elif end > now:
            still_open += 1
        else:
            final.append((end, name, inside))
    final.sort(key=lambda row: row[:2])
    feedback = feedback_of([item.id for _, _, inside in final for item in inside])
    units = [_unit(inside, feedback, end, metric, slow) for end, _, inside in final]
    return CanaryData(units, still_open, by_name, both)


def _unit(
    inferences: Sequence[InferenceRecord],
    feedback_by_inference: Mapping[str, Sequence[Feedback]],
    end: datetime,
    measure: CanaryMetric,
    slow: float,
) -> Observation:
    feedback = [
        [
            item
            for item in feedback_by_inference.get(inference.id, ())
            if item.counted_at < end and item.erased_at is None
        ]
        for inference in inferences
    ]
    count = len(inferences)
    guards = {
        "errors": sum(item.finish_reason == "error" or item.finished_at is None for item in inferences) / count,
        "refusals": sum(bool(item.refusal) for item in inferences) / count,
        "slow answers": sum(item.latency_seconds is not None and item.latency_seconds > slow for item in inferences)
        / count,
    }
    if measure != "satisfaction":
        # a click, whatever was clicked; a conversion, whatever it was worth
        return Observation(
            inferences[0].variant == "challenger",
            float(any(item.kind == measure for row in feedback for item in row)),
            guards,
        )
    marks = [_mark(row) for row in feedback]
    return Observation(inferences[0].variant == "challenger", sum(marks) / count, guards)


def _mark(feedback: Sequence[Feedback]) -> float:
    """Return satisfaction with one answer, 0 to 1; one half without feedback. Somebody who wrote a better answer was not satisfied."""
    result: list[float] = []
    for item in feedback:
        if item.kind == "thumb" and item.value is not None:
            result.append(float(item.value == "up"))
        elif item.kind == "rating" and item.value is not None:
            result.append((float(item.value) - 1) / 4)
        elif item.kind == "edit":
            result.append(0.25)
    return sum(result) / len(result) if result else 0.5
