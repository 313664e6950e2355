"""Reading and counting what a judge says."""

import pytest

from tunectl.artifacts.records import Message
from tunectl.evaluation import llm_judge
from tunectl.evaluation.items import Item
from tunectl.evaluation.llm_judge import Pair

ITEM = Item("a", (Message("user", "Write an ad"),), ("x",))


@pytest.mark.parametrize(
    ("reply", "choice"),
    [
        ("A is vivid. [[A]]", "first"),
        ("First I thought [[A]], but no: [[b]]", "second"),
        ("[[TIE]]", "tie"),
        ("B", "second"),
        ("Answer A.", "first"),
        ("Both are fine.", "unreadable"),
        ("", "unreadable"),
    ],
)
def test_replies_are_read(reply, choice):
    assert llm_judge.parse_verdict(reply) == choice


def test_a_win_needs_both_positions():
    both = [("first", "second"), ("first", "first"), ("second", "first"), ("tie", "tie"), ("unreadable", "second")]
    found = llm_judge.count("base", both, equal=1, confidence=0.95)
    assert (found.inputs, found.wins, found.losses, found.ties, found.unreadable) == (6, 1, 1, 4, 1)
    assert found.score == 0.5
    assert found.first_position == pytest.approx(4 / 7)
    assert found.consistent == pytest.approx(4 / 6)
    assert found.low < 0.5 < found.high


def test_the_judge_reads_all_that_the_models_read():
    call = {"id": "c", "type": "function", "function": {"name": "find", "arguments": {"of": "soup"}}}
    turns = (
        Message("system", "Be brief."),
        Message("user", "I am allergic to nuts"),
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "soup: no nuts"),
        Message("user", "What shall I cook?"),
    )
    told = llm_judge.conversation("be safe", Pair(Item("a", turns, ("x",)), "one", "two"), tuned_first=True)[-1].content
    for text in ("system: Be brief.", "user: I am allergic to nuts", '"find"', "tool: soup: no nuts"):
        assert text in told
    plain = llm_judge.conversation("be safe", Pair(ITEM, "one", "two"), tuned_first=True)[-1].content
    assert "<input>\nWrite an ad\n</input>" in plain


def test_a_judge_that_likes_the_first_answer_is_seen():
    pairs = [Pair(ITEM, f"good {number}", f"bad {number}") for number in range(10)]
    found = llm_judge.compare("base", pairs, "be good", lambda asked: ["[[A]]"] * len(asked), confidence=0.95)
    assert (found.wins, found.losses, found.ties) == (0, 0, 10)
    assert found.first_position == 1
    assert found.consistent == 0


def test_a_judge_that_sees_the_better_answer_is_counted():
    def ask(conversations):
        return ["[[A]]" if "<answer_a>\ngood" in talk[-1].content else "[[B]]" for talk in conversations]

    pairs = [Pair(ITEM, "good", "bad"), Pair(ITEM, "same", "same")]
    found = llm_judge.compare("base", pairs, "be good", ask, confidence=0.95)
    assert (found.wins, found.ties, found.first_position) == (1, 1, 0.5)
