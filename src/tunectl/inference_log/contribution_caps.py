"""Cap the share of training examples from one person. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from tunectl.inference_log.feedback_rules import FeedbackExample, FeedbackRules, SkipReason


def apply_caps(
    examples: Sequence[FeedbackExample], rules: FeedbackRules
) -> tuple[list[FeedbackExample], list[tuple[str, SkipReason]]]:
    """Return the examples that are kept, the oldest first, and the removed ones with the reason. Edits and newer rows are preferred."""
    left: list[tuple[str, SkipReason]] = []
    counts: Counter[tuple[str, str | None]] = Counter()
    kept_examples: list[FeedbackExample] = []
    caps: tuple[tuple[str, int, SkipReason], ...] = (
        ("user", rules.per_user, "user_cap"),
        ("by", rules.per_annotator, "annotator_cap"),
        ("prompt", rules.per_prompt, "prompt_cap"),
    )
    for example in sorted(examples, key=lambda item: (item.kind == "edit", item.inference.accepted_at), reverse=True):
        names = {"user": example.inference.person, "by": example.by, "prompt": example.prompt}
        full = next((reason for what, most, reason in caps if counts[what, names[what]] >= most), None)
        if full is not None:
            left.append((example.inference.id, full))
            continue
        for what, name in names.items():
            counts[what, name] += 1
        kept_examples.append(example)
    kept_examples = _enforce_shares(kept_examples, rules, left)
    return sorted(kept_examples, key=lambda item: (item.inference.accepted_at, item.inference.id)), left


def _enforce_shares(
    examples: list[FeedbackExample], rules: FeedbackRules, left: list[tuple[str, SkipReason]]
) -> list[FeedbackExample]:
    """Remove rows, the last first, until no share is exceeded; removing one increases the other shares, so the check is repeated.

    Rows without a name count as one person's, since their people are unknown.
    """
    people, own = Counter(example.by for example in examples), sum(example.kind == "approved" for example in examples)
    indexes_by_person: dict[str | None, list[int]] = {}
    for index, example in enumerate(examples):
        indexes_by_person.setdefault(example.by, []).append(index)
    written = [index for index, example in enumerate(examples) if example.kind == "approved"]
    remaining = set(range(len(examples)))
    while remaining:
        person, most = max(people.items(), key=lambda item: (item[1], str(item[0])))
        reason: SkipReason = "annotator_share"
        if rules.annotator_share < 1 and most > rules.annotator_share * len(remaining):
            index = _last(indexes_by_person[person], remaining)
        elif own > rules.model_text_share * len(remaining):
            index, reason = _last(written, remaining), "model_text_share"
        else:
            break
        remaining.remove(index)
        people[examples[index].by] -= 1
        own -= examples[index].kind == "approved"
        left.append((examples[index].inference.id, reason))
    return [example for index, example in enumerate(examples) if index in remaining]


def _last(indexes: list[int], remaining: Collection[int]) -> int:
    """Remove the last index that is still in ``remaining``."""
    while True:
        index = indexes.pop()
        if index in remaining:
            return index
