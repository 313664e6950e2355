"""Nobody counts for more than their share: caps and shares on lessons. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tunectl.inference_log.feedback_rules import FeedbackExample, FeedbackRules, SkipReason


def apply_caps(
    lessons: Sequence[FeedbackExample], rules: FeedbackRules
) -> tuple[list[FeedbackExample], list[tuple[str, SkipReason]]]:
    """Return the lessons that stay, the oldest first, and which go, with the reason. Edits and newer rows have the right of way."""
    left: list[tuple[str, SkipReason]] = []
    counts: Counter[tuple[str, str | None]] = Counter()
    kept: list[FeedbackExample] = []
    caps: tuple[tuple[str, int, SkipReason], ...] = (
        ("user", rules.per_user, "user_cap"),
        ("by", rules.per_annotator, "annotator_cap"),
        ("prompt", rules.per_prompt, "prompt_cap"),
    )
    for lesson in sorted(lessons, key=lambda one: (one.kind == "edit", one.inference.accepted_at), reverse=True):
        names = {"user": lesson.inference.person, "by": lesson.by, "prompt": lesson.prompt}
        full = next((why for what, most, why in caps if counts[what, names[what]] >= most), None)
        if full is not None:
            left.append((lesson.inference.id, full))
            continue
        for what, name in names.items():
            counts[what, name] += 1
        kept.append(lesson)
    kept = _enforce_shares(kept, rules, left)
    return sorted(kept, key=lambda one: (one.inference.accepted_at, one.inference.id)), left


def _enforce_shares(
    kept: list[FeedbackExample], rules: FeedbackRules, left: list[tuple[str, SkipReason]]
) -> list[FeedbackExample]:
    """Take rows away, the last first, until no share is exceeded; taking one away makes the other shares larger, so: again.

    Rows without a name are one person's: nobody knows better.
    """
    people, own = Counter(lesson.by for lesson in kept), sum(lesson.kind == "approved" for lesson in kept)
    theirs: dict[str | None, list[int]] = {}
    for place, lesson in enumerate(kept):
        theirs.setdefault(lesson.by, []).append(place)
    written = [place for place, lesson in enumerate(kept) if lesson.kind == "approved"]
    there = set(range(len(kept)))
    while there:
        who, most = max(people.items(), key=lambda item: (item[1], str(item[0])))
        reason: SkipReason = "annotator_share"
        if rules.annotator_share < 1 and most > rules.annotator_share * len(there):
            place = _last(theirs[who], there)
        elif own > rules.model_text_share * len(there):
            place, reason = _last(written, there), "model_text_share"
        else:
            break
        there.remove(place)
        people[kept[place].by] -= 1
        own -= kept[place].kind == "approved"
        left.append((kept[place].inference.id, reason))
    return [lesson for place, lesson in enumerate(kept) if place in there]


def _last(places: list[int], there: Collection[int]) -> int:
    """Take the last place that is still there."""
    while True:
        place = places.pop()
        if place in there:
            return place
