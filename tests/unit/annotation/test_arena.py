"""A chat of chosen answers: what a press means, what the conversation goes on with, what is masked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.annotation.arena import BattleAnswer, Conversation, mask_pii
from tunectl.artifacts.records import Message
from tunectl.backends.text import pii_resources
from tunectl.privacy.mask import PiiMasker

AYE, BEE = BattleAnswer("aye ", "champion r1", "x1"), BattleAnswer("bee", "challenger r2", "x2")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def talk(left=0):
    moments = iter(NOON + timedelta(seconds=7 * number) for number in range(100))
    return Conversation("Ada", coin=lambda: left, clock=lambda: next(moments))


@pytest.mark.parametrize("left", [0, 1])
@pytest.mark.parametrize(
    ("button", "choice", "goes_on"),
    [
        ("left", "left", "left"),
        ("right", "right", "right"),
        ("both_good", "both_good", "left"),
        ("both_bad", "both_bad", "left"),
        ("skip", "skip", "left"),
    ],
)
def test_what_a_press_means(left, button, choice, goes_on):
    one = talk(left)
    comparison = one.compare(one.build_messages(" hi\r\nthere "), (AYE, BEE))
    shown = dict(zip(("left", "right"), (AYE, BEE) if left == 0 else (BEE, AYE), strict=True))
    assert comparison.texts == (shown["left"].text, shown["right"].text)
    verdict = one.decide(comparison.id, button, ["why"], None)
    names = {AYE: "first", BEE: "second"}
    assert verdict.annotation.choice == (names[shown[choice]] if choice in shown else choice)
    assert (verdict.annotation.left, verdict.annotation.seconds, verdict.annotation.tags) == (left, 7.0, ["why"])
    assert verdict.task.answers == ["aye ", "bee"]
    assert verdict.goes_on_with == shown[goes_on]
    assert one.turns == []  # nothing happens before it is saved
    one.go_on(verdict)
    assert one.turns == [Message("user", "hi\nthere"), Message("assistant", shown[goes_on].text)]
    assert one.decide(comparison.id, button, [], None) is None


@given(st.text(max_size=30))
def test_an_edit_counts_where_it_differs(edit):
    one = talk()
    comparison = one.compare(one.build_messages("hi"), (AYE, BEE))
    verdict = one.decide(comparison.id, "right", [], edit)
    words = edit.replace("\r\n", "\n").strip()
    differs = bool(words) and words not in {"aye", "bee"}
    assert verdict.annotation.edit == (words if differs else None)
    assert verdict.turn == (words if differs else "bee")


def test_a_restart_drops_what_is_open():
    one = talk()
    comparison = one.compare(one.build_messages("hi"), (AYE, BEE))
    one.restart()
    assert (one.decide(comparison.id, "left", [], None), one.turns) == (None, [])


def test_one_set_of_placeholders_for_question_answers_and_edit():
    masker = PiiMasker(pii_resources.tools(regions=["US"], locales=["en_US"]))
    one = talk()
    answers = (BattleAnswer("write to ada@example.org", "a", "1"), BattleAnswer("or bob@example.org", "b", "2"))
    comparison = one.compare(one.build_messages("I am ada@example.org"), answers)
    verdict = one.decide(comparison.id, "left", [], "to bob@example.org and ada@example.org")
    question, said = mask_pii(verdict.task, verdict.annotation, masker)
    assert question.messages == [Message("user", "I am [EMAIL_1]")]
    assert question.answers == ["write to [EMAIL_1]", "or [EMAIL_2]"]
    assert said.edit == "to [EMAIL_2] and [EMAIL_1]"
    assert question.prompt != verdict.task.prompt  # a digest of the unmasked text would tell it
