"""Aggregate judgments to pairs and labeled answers: several people's votes on the same two answers become one record.

Rejected rows have one of these reasons: ``same_answer`` (chosen = rejected), ``prompt_in_answer`` (one answer
begins with the prompt, the other does not: the echo would be trained), ``duplicate`` (the same person judged the same answers in the same way before), ``contradicts_self`` (the same
person also judged the opposite), ``contradicted`` (others did, and policy or majority is against this vote), ``tied``,
``failed_attention`` (its annotator failed the attention checks), ``attention_check`` (shown only to test attention),
``over_cap``.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from tunectl.artifacts.records import (
    Comparison,
    Example,
    LabeledCompletion,
    Message,
    PreferencePair,
    ReferenceAnswer,
    RejectedRow,
    truncate,
)
from tunectl.artifacts.reject_reasons import RejectReason
from tunectl.artifacts.row_counts import RowCounter
from tunectl.core.hashing import hash_to_id

AggregationPolicy = Literal["majority", "drop"]
MIN_ECHO_CHARACTERS = 40
"""Characters of a prompt from which repeating it is an echo; short ones are repeated in ordinary language."""


@dataclass(frozen=True, slots=True)
class AggregationRules:
    """Settings of the preferences stage for aggregation: attention checks, contradictions, most rows per annotator."""

    attention: float
    """Lowest share of passed attention checks."""
    contradictions: AggregationPolicy
    rows_per_annotator: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class AggregatedVotes:
    """Result of ``aggregate_votes``: pairs, labeled answers, and the judgments in which people edited an answer."""

    pairs: list[PreferencePair]
    marks: list[LabeledCompletion]
    edited: list[Comparison]
    """Edited judgments of attentive annotators: the written answer stays valid where the vote is a duplicate or outvoted."""


def aggregate_votes(judgments: Sequence[Comparison], rules: AggregationRules, tally: RowCounter) -> AggregatedVotes:
    """Return pairs and labeled answers from ``judgments``; each one that does not count is rejected with a reason in ``tally``.

    The tally has counted them already. The order of the judgments decides only which of two equal ones is the duplicate.
    """
    remaining = _drop(judgments, tally, _find_fault)
    remaining = _drop_inattentive(remaining, rules.attention, tally)
    edited = [item for item in remaining if item.edit]
    remaining = _consistent(remaining, tally)
    remaining = _cap_per_annotator(remaining, rules.rows_per_annotator, rules.seed, tally)
    remaining = _resolve_contradictions(remaining, rules.contradictions, tally)
    disputed = _find_disputed(remaining)
    remaining = _drop_disputed(remaining, disputed, tally)
    tally.keep(len(remaining))
    return AggregatedVotes(_pairs(remaining), _marks(remaining, disputed), edited)


def _reject(comparison: Comparison, reason: RejectReason, detail: str) -> RejectedRow:
    answers = " | ".join(answer[-1].content for answer in comparison.answers)
    return RejectedRow(comparison.annotation.source, reason, detail, truncate(answers))


def _drop(
    judgments: Sequence[Comparison], tally: RowCounter, reason: Callable[[Comparison], tuple[RejectReason, str] | None]
) -> list[Comparison]:
    remaining = []
    for judgment in judgments:
        result = reason(judgment)
        if result is None:
            remaining.append(judgment)
        else:
            tally.reject(_reject(judgment, *result))
    return remaining


def _find_fault(comparison: Comparison) -> tuple[RejectReason, str] | None:
    texts = [_text(answer) for answer in comparison.answers]
    if len(texts) == 2 and texts[0] == texts[1]:
        return "same_answer", f"chosen and rejected are both {truncate(texts[0], 60)!r}"
    prompt = " ".join(comparison.messages[-1].content.split())
    if len(prompt) >= MIN_ECHO_CHARACTERS:
        echoes = [number for number, text in enumerate(texts) if text.startswith(f"assistant: {prompt} ")]
        if len(echoes) == 1 and len(texts) == 2:
            return "prompt_in_answer", f"only answer {echoes[0] + 1} begins with the prompt {truncate(prompt, 60)!r}"
    return None


def _drop_inattentive(judgments: Sequence[Comparison], minimum: float, tally: RowCounter) -> list[Comparison]:
    """Drop attention checks, and annotators who failed too many."""
    checks: dict[str | None, list[bool]] = defaultdict(list)
    for judgment in judgments:
        if judgment.check == "attention":
            checks[judgment.annotation.annotator].append(judgment.choice == "first")
    failed = {name: sum(passed) for name, passed in checks.items() if sum(passed) < minimum * len(passed)}

    def why(comparison: Comparison) -> tuple[RejectReason, str] | None:
        name = comparison.annotation.annotator
        if comparison.check == "attention":
            return "attention_check", f"{name} {'passed' if comparison.choice == 'first' else 'failed'} it"
        if name in failed:
            return "failed_attention", f"{name} passed {failed[name]} of {len(checks[name])} checks"
        return None

    return _drop(judgments, tally, why)


def _consistent(judgments: Sequence[Comparison], tally: RowCounter) -> list[Comparison]:
    """Return one judgment per person and question: a repeated one is a duplicate, and opposite ones are both dropped.

    Votes without a name count as one person's where they agree, and as several people's where they do not.
    """
    votes: dict[tuple[str | None, str], dict[str, Comparison]] = defaultdict(dict)
    for judgment in judgments:
        votes[judgment.annotation.annotator, comparison_key(judgment)].setdefault(canonical_vote(judgment), judgment)

    def why(comparison: Comparison) -> tuple[RejectReason, str] | None:
        own_votes = votes[comparison.annotation.annotator, comparison_key(comparison)]
        annotator = comparison.annotation.annotator or "somebody unnamed"
        if len(own_votes) > 1:
            if comparison.annotation.annotator is None:
                return None
            other = next(item for name, item in own_votes.items() if name != canonical_vote(comparison))
            return "contradicts_self", f"{annotator} said otherwise at {other.annotation.source.location}"
        first = own_votes[canonical_vote(comparison)]
        if first is not comparison:
            return "duplicate", f"{annotator} said the same at {first.annotation.source.location}"
        return None

    return _drop(judgments, tally, why)


def _cap_per_annotator(
    judgments: Sequence[Comparison], maximum: int | None, seed: int, tally: RowCounter
) -> list[Comparison]:
    if maximum is None:
        return list(judgments)
    by_name: dict[str, list[str]] = defaultdict(list)
    for judgment in judgments:
        if judgment.annotation.annotator is not None:
            by_name[judgment.annotation.annotator].append(judgment.id)
    sampled = {name: set(_sample_ids(ids, maximum, f"{seed} {name}")) for name, ids in by_name.items()}

    def why(comparison: Comparison) -> tuple[RejectReason, str] | None:
        name = comparison.annotation.annotator
        if name is None or comparison.id in sampled[name]:
            return None
        return "over_cap", f"{name} has {len(by_name[name])} judgments; rows_per_annotator is {maximum}"

    return _drop(judgments, tally, why)


def _sample_ids(ids: list[str], maximum: int, seed: str) -> list[str]:
    return ids if len(ids) <= maximum else random.Random(seed).sample(sorted(ids), maximum)  # noqa: S311  (no secret)


def _resolve_contradictions(
    judgments: Sequence[Comparison], policy: AggregationPolicy, tally: RowCounter
) -> list[Comparison]:
    """Resolve disagreements between people: by the majority, or by dropping all."""
    votes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for judgment in judgments:
        votes[comparison_key(judgment)][canonical_vote(judgment)] += 1

    def why(comparison: Comparison) -> tuple[RejectReason, str] | None:
        result = votes[comparison_key(comparison)]
        own, most = result[canonical_vote(comparison)], max(result.values())
        if len(result) == 1:
            return None
        counts = " to ".join(str(count) for count in sorted(result.values(), reverse=True))
        if policy == "drop" or own < most:
            return "contradicted", f"votes are {counts}"
        if sum(count == most for count in result.values()) > 1:
            return "tied", f"votes are {counts}"
        return None

    return _drop(judgments, tally, why)


def _pairs(judgments: Sequence[Comparison]) -> list[PreferencePair]:
    result = []
    for name, group in _group_by_comparison(
        [judgment for judgment in judgments if judgment.choice in {"first", "second"}]
    ).items():
        one = group[0]
        at = 0 if one.choice == "first" else 1
        margins = [item.annotation.margin for item in group if item.annotation.margin is not None]
        result.append(
            PreferencePair(
                id=f"p-{name[:16]}",
                prompt=one.prompt,
                messages=one.messages,
                chosen=one.answers[at],
                rejected=one.answers[1 - at],
                annotations=[item.annotation for item in group],
                margin=sum(margins) / len(margins) if margins else None,
                kind=one.kind,
                fields=one.fields,
                split=one.split,
                tools=one.tools,
            )
        )
    return result


def _find_disputed(judgments: Sequence[Comparison]) -> set[str]:
    """Return the keys of answers that were labeled good beside one answer and bad beside another."""
    labels: dict[str, set[bool]] = defaultdict(set)
    for judgment in judgments:
        for key, _ in _list_labeled_answers(judgment):
            labels[key].add(_is_good(judgment))
    return {key for key, each in labels.items() if len(each) > 1}


def _drop_disputed(judgments: Sequence[Comparison], disputed: set[str], tally: RowCounter) -> list[Comparison]:
    def why(comparison: Comparison) -> tuple[RejectReason, str] | None:
        keys = [key for key, _ in _list_labeled_answers(comparison)]
        if keys and disputed.issuperset(keys):
            return "contradicted", "the answer was called good beside one answer and bad beside another"
        return None

    return _drop(judgments, tally, why)


def _list_labeled_answers(judgment: Comparison) -> list[tuple[str, list[Message]]]:
    """Return (key, answer) of the answers that a judgment labels good or bad; none where it prefers one of two."""
    if judgment.choice in {"first", "second"}:
        return []
    return [(hash_to_id(judgment.prompt, _text(answer), size=16), answer) for answer in judgment.answers]


def _is_good(judgment: Comparison) -> bool:
    return judgment.choice in {"good", "both_good"}


def _marks(judgments: Sequence[Comparison], disputed: set[str]) -> list[LabeledCompletion]:
    """Return single answers labeled good or bad; of two that were both called good (bad), each is one. ``disputed`` ones are left out."""
    result: dict[str, LabeledCompletion] = {}
    for judgment in judgments:
        for key, answer in _list_labeled_answers(judgment):
            if key in disputed:
                continue
            old = result.get(key)
            votes = old.annotations if old is not None else []
            votes.append(judgment.annotation)
            result[key] = LabeledCompletion(
                id=f"m-{key[:16]}",
                prompt=judgment.prompt,
                messages=judgment.messages,
                completion=answer,
                label=_is_good(judgment),
                annotations=votes,
                kind=judgment.kind,
                fields=judgment.fields,
                split=judgment.split,
                tools=judgment.tools,
            )
    return list(result.values())


def human_written_examples(judgments: Sequence[Comparison]) -> list[Example]:
    """Return the answers that annotators wrote, as examples for training after a review."""
    result = {}
    for judgment in judgments:
        if judgment.edit is not None and judgment.edit.strip():
            name = f"e-{hash_to_id(judgment.prompt, judgment.edit, size=16)[:16]}"
            answer = ReferenceAnswer(judgment.edit.strip(), judgment.annotation.source)
            result[name] = Example(
                name,
                judgment.annotation.source,
                judgment.messages,
                [answer],
                tools=judgment.tools,
                kind="edited",
                fields=judgment.fields,
            )
    return list(result.values())


def _group_by_comparison(judgments: Sequence[Comparison]) -> dict[str, list[Comparison]]:
    groups: dict[str, list[Comparison]] = defaultdict(list)
    for judgment in judgments:
        groups[comparison_key(judgment)].append(judgment)
    return groups


def comparison_key(comparison: Comparison) -> str:
    """Return a key that is equal for comparisons of the same two answers to the same prompt, in either order."""
    return hash_to_id(comparison.prompt, *sorted(_text(answer) for answer in comparison.answers), size=16)


def canonical_vote(comparison: Comparison) -> str:
    """Return the judgment as text that is independent of the order of the answers, to find equal and opposite votes."""
    if comparison.choice not in {"first", "second"}:
        return comparison.choice
    return hash_to_id(_text(comparison.answers[0 if comparison.choice == "first" else 1]), size=16)


def _text(answer: Sequence[Message]) -> str:
    """Return the text by which an answer is compared: without blanks."""
    return "\n".join(f"{turn.role}: {' '.join(turn.content.split())}{_calls(turn)}" for turn in answer)


def _calls(turn: Message) -> str:
    return msgspec.json.encode(turn.tool_calls, order="sorted").decode() if turn.tool_calls else ""
