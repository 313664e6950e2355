"""A language model as judge of two answers, asked in both positions so that its position bias can be measured.

After Zheng et al., "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena", NeurIPS 2023: a win counts only where both
positions agree.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunectl.artifacts.records import Message
from tunectl.chat import tool_calls
from tunectl.evaluation.items import Item
from tunectl.evaluation.results import JudgeResult
from tunectl.stats.proportion_ci import wilson_interval

JudgeChoice = Literal["first", "second", "tie", "unreadable"]
_LAST = re.compile(r"\[\[(A|B|TIE)\]\]", re.IGNORECASE)
_ALONE = re.compile(r"^\W*(?:answer\s+)?(A|B|TIE)\W*$", re.IGNORECASE)


class JudgeClient(Protocol):
    """Sends conversations to the language model that judges, and returns its replies."""

    def __call__(self, conversations: Sequence[Sequence[Message]]) -> list[str]:
        """Return one reply per conversation, in their order.

        Raises  InfrastructureError when the judge cannot be reached or refuses.
        """


@dataclass(frozen=True, slots=True)
class Pair:
    """One input with the answers of the tuned model and a rival."""

    item: Item
    tuned: str
    other: str


def conversation(question: str, pair: Pair, *, tuned_first: bool) -> list[Message]:
    """Return the judge's prompt for a pair; ``question`` describes what makes an answer better."""
    first, second = (pair.tuned, pair.other) if tuned_first else (pair.other, pair.tuned)
    rules = (
        "You compare two answers to the same input. Which one is shown first says nothing about its quality. "
        "Give your reason in one sentence, then end with exactly one of [[A]], [[B]] or [[TIE]]."
    )
    text = (
        f"What counts: {question}\n\n<input>\n{_render_input(pair.item)}\n</input>\n\n"
        f"<answer_a>\n{first}\n</answer_a>\n\n<answer_b>\n{second}\n</answer_b>"
    )
    return [Message("system", rules), Message("user", text)]


def _render_input(item: Item) -> str:
    """Return all that the models read, with the roles where it is more than one question: an answer is right or wrong by it."""
    if len(item.messages) == 1:
        return item.question
    return "\n\n".join(f"{turn.role}: {tool_calls.render_tool_calls(turn)}" for turn in item.messages)


def parse_verdict(reply: str) -> JudgeChoice:
    """Return the judge's choice: its last ``[[A]]``, ``[[B]]`` or ``[[TIE]]``, or a reply that is only such a word; else ``unreadable``."""
    marks = _LAST.findall(reply) or _ALONE.findall(reply.strip())
    if not marks:
        return "unreadable"
    choice: JudgeChoice = {"A": "first", "B": "second", "TIE": "tie"}[marks[-1].upper()]  # type: ignore[assignment]
    return choice


def compare(
    against: str, pairs: Sequence[Pair], question: str, judge: JudgeClient, *, confidence: float
) -> JudgeResult:
    """Return the judge's verdicts over ``pairs``, each judged in both orders; equal answers are ties without being judged.

    ``question`` describes what makes an answer better; ``confidence`` is the level of the interval, 0 to 1.
    """
    both = [choices for choices in judge_both_orders(pairs, question, judge) if choices is not None]
    return count(against, both, equal=len(pairs) - len(both), confidence=confidence)


def judge_both_orders(
    pairs: Sequence[Pair], question: str, judge: JudgeClient
) -> list[tuple[JudgeChoice, JudgeChoice] | None]:
    """Return the judge's choices for every pair, with the tuned answer shown first, then second. None: equal answers, not judged."""
    different = [index for index, pair in enumerate(pairs) if pair.tuned.strip() != pair.other.strip()]
    talks = [conversation(question, pairs[index], tuned_first=first) for index in different for first in (True, False)]
    choices = [parse_verdict(reply) for reply in judge(talks)]
    both: list[tuple[JudgeChoice, JudgeChoice] | None] = [None] * len(pairs)
    for index, first, second in zip(different, choices[0::2], choices[1::2], strict=True):
        both[index] = (first, second)
    return both


def resolve_orders(both: tuple[JudgeChoice, JudgeChoice] | None) -> float:
    """Return tuned's score: 1 if it won in both positions, 0 if it lost in both, 0.5 for a tie or if the positions disagree."""
    return {("first", "second"): 1.0, ("second", "first"): 0.0}.get(both or ("tie", "tie"), 0.5)


def position_inconsistent(both: tuple[JudgeChoice, JudgeChoice] | None) -> bool:
    """Return whether the judge preferred the same position, first or second, in both orders; False where nothing was judged (None)."""
    return both in {("first", "first"), ("second", "second")}


def count(
    against: str, both: Sequence[tuple[JudgeChoice, JudgeChoice]], *, equal: int, confidence: float
) -> JudgeResult:
    """Return wins, losses and ties of tuned from its choices with the tuned answer shown first, then second.

    ``equal`` is the number of further pairs with equal answers, ties; ``confidence`` the level of the interval, 0 to 1.
    """
    inputs = len(both) + equal
    wins = sum(choice == ("first", "second") for choice in both)
    losses = sum(choice == ("second", "first") for choice in both)
    single = [choice for pair in both for choice in pair]
    decided = [choice for choice in single if choice in {"first", "second"}]
    same = wins + losses + sum(choice == ("tie", "tie") for choice in both)
    score = wins + (inputs - wins - losses) / 2
    low, high = wilson_interval(score, inputs, level=confidence) if inputs else (0.0, 1.0)
    return JudgeResult(
        against=against,
        inputs=inputs,
        wins=wins,
        losses=losses,
        ties=inputs - wins - losses,
        unreadable=single.count("unreadable"),
        score=score / inputs if inputs else 0.5,
        low=low,
        high=high,
        first_position=decided.count("first") / len(decided) if decided else None,
        consistent=(same + equal) / inputs if inputs else 1.0,
    )
