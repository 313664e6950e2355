"""Decide whether the tuned model is worth it. A pure function of differences with their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.evaluation.results import EvalVerdict, MetricDifference

TUNED, PROMPT, KEEP, UNCLEAR = "tuned_better", "prompting_is_enough", "do_not_tune", "not_enough_evidence"


def gate_tuned(
    differences: Sequence[MetricDifference], *, title: str, least: float, confidence: float, items: int
) -> EvalVerdict:
    """Return whether the tuned model beats base and prompt by enough.

    ``differences`` are of the primary metric (``title``; more is better), of tuned against each rival and of the best
    prompt against the base; ``least`` is the smallest gain that matters, in points; ``confidence`` is the level of the
    intervals, 0 to 1; ``items`` the number of test inputs.

    "Surely" means by the whole interval.

    - tuned_better: against base and best prompt the gain is at least ``least`` and the interval lies above zero.
    - do_not_tune: surely worse than the base or than copying the nearest training answer, or surely less than ``least``
      better than every rival.
    - prompting_is_enough: surely less than ``least`` better than the best prompt.
    - not_enough_evidence: everything else, and whatever has no interval.
    """
    evidence = [describe_metric_difference(d, title, confidence) for d in differences]
    rivals = [d for d in differences if d.system == "tuned" and d.against in {"base", "prompted"}]
    if not rivals or any(d.low is None or d.high is None for d in rivals):
        reason = f"Not enough evidence: intervals are undefined on {items} test input{'' if items == 1 else 's'}."
        return EvalVerdict(False, UNCLEAR, reason, evidence)
    copied = next((d for d in differences if (d.system, d.against) == ("tuned", "nearest")), None)
    if copied is not None and upper_bound(copied) < 0:
        margin = f"{copied.value:+.1f} {title}, {_ends(copied)}"
        return EvalVerdict(
            False, KEEP, f"Do not tune: copying the nearest training answer does better ({margin}).", evidence
        )
    name, reason = _outcome(rivals, title, least)
    return EvalVerdict(name == TUNED, name, reason, evidence)


def _outcome(rivals: Sequence[MetricDifference], title: str, minimum: float) -> tuple[str, str]:
    worst = min(rivals, key=lambda d: d.value)
    margin = f"{worst.value:+.1f} {title} against {describe_system(worst.against)}, {_ends(worst)}"
    if all(lower_bound(d) > 0 and d.value >= minimum for d in rivals):
        return TUNED, f"Tuned is better: {margin}."
    if any(d.against == "base" for d in rivals if upper_bound(d) < 0):
        return KEEP, f"Do not tune: the tuned model is worse than the untuned one ({margin})."
    if all(upper_bound(d) < minimum for d in rivals):
        return KEEP, f"Do not tune: the gain is below the {minimum:g} points that count ({margin})."
    prompted = next((d for d in rivals if d.against == "prompted"), None)
    if prompted is not None and (upper_bound(prompted) < minimum or upper_bound(prompted) < 0):
        text = f"{prompted.value:+.1f} {title} over the best prompt, {_ends(prompted)}; {minimum:g} is the least that counts"
        return PROMPT, f"Prompting is enough: tuning gains {text}."
    requirement = f"at least {minimum:g} points and an interval above zero are wanted"
    return UNCLEAR, f"Not enough evidence: {margin}; {requirement}."


def describe_metric_difference(difference: MetricDifference, title: str, confidence: float) -> str:
    """Return a difference in the metric ``title`` as text, with its interval of level ``confidence`` (0 to 1)."""
    systems = f"{describe_system(difference.system)} against {describe_system(difference.against)}"
    text = f"{systems}: {difference.value:+.2f} {title}"
    if difference.low is None:
        return f"{text} (no interval: too few inputs)"
    return f"{text}, {confidence:.0%} interval {difference.low:+.2f} to {difference.high:+.2f}"


def describe_system(name: str) -> str:
    """Return the name of a system (``base``, ``prompted``, ...) as text for a sentence, such as ``the untuned model``."""
    titles = {
        "base": "the untuned model",
        "prompted": "the best prompt",
        "nearest": "the nearest training answer",
        "tuned": "the tuned model",
        "aligned": "the aligned model",
    }
    return titles.get(name, name)


def lower_bound(difference: MetricDifference) -> float:
    """Return the lower end of the interval; minus infinity where it has none."""
    return float("-inf") if difference.low is None else difference.low


def upper_bound(difference: MetricDifference) -> float:
    """Return the upper end of the interval; infinity where it has none."""
    return float("inf") if difference.high is None else difference.high


def _ends(difference: MetricDifference) -> str:
    return f"interval {lower_bound(difference):+.1f} to {upper_bound(difference):+.1f}"
