"""Repair: each step, its counts, and that it is done after once."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Segment, Source
from tunectl.chat import tool_calls
from tunectl.config.schema.curate import Repair
from tunectl.data.filters.repair import RepairText, normalize_whitespace, strip_control_chars, strip_html
from tunectl.data.transform import RejectedRecord

PLACE = Source("a.csv", 1)
ALL = Repair(mojibake=True, control_characters=True, html=True, unicode_form="NFC", white_space=True)


def mend(text: str, repair: Repair = ALL) -> str:
    (outcome,) = RepairText(repair, mojibake=lambda text: text.replace("Ã©", "é"))([Document("d", text, PLACE)])
    assert isinstance(outcome, Document)
    return outcome.text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Fish &amp; chips", "Fish & chips"),
        ("AT&amp;amp;T", "AT&T"),
        ("a&lt;br&gt;b", "a\nb"),
        (f"x &amp; &#{'9' * 5000};y", "x & \ufffdy"),
        (f"&amp;lt; &amp;#{'9' * 5000};z", "< \ufffdz"),
        ("<p>One</p><p>Two</p>", "\nOne\n\nTwo\n"),
        ("<b>bold</b> and <a href='x'>link</a>", "bold and link"),
        ("before<script>var x = '<p>';</script>after", "before after"),
        ("a<!-- note -->b", "a b"),
        ("<style>p {}</STYLE >text", " text"),
        ("x < y and y > z", "x < y and y > z"),
        ("List<T> and I <3 you", "List<T> and I <3 you"),
        ("R&D; Q&A", "R&D; Q&A"),
        ("<script>never closed", "never closed"),
        ("word<b>bold</b>", "wordbold"),
        ("A<B>bold</B>", "Abold"),
        ("text<br>more", "text\nmore"),
        ("TEXT<BR>MORE<HR >", "TEXT\nMORE\n"),
        ("text<br/>more<wbr>x", "text\nmorex"),
        ("<p>One<p>Two", "\nOne\nTwo"),
        ("One<p>Two", "One\nTwo"),
        ("One. <P>Two<P>Three</P>", "One. \nTwo\nThree\n"),
        ("one<li>two<td nowrap>three", "one\ntwothree"),
        ("word<a href='x'>link</a>, word<p class=x>", "wordlink, word\n"),
        ("<div\n  id = 'x' hidden>a</div>", "\na\n"),
        ("<TITLE>a", "a"),
        ("a</b>c", "ac"),
    ],
)
def test_markup(before: str, after: str) -> None:
    assert strip_html(before) == after


@pytest.mark.parametrize(
    "text",
    [
        "#include <map>\n# include <form>\n#include<a>",
        "List<Object> a; Set<Button> b; Map<A> c; my_<S> d;",
        "React.ComponentType<P> and Option<A>, Vec::<A>::new()",
        "fn f<S>(x: S); public <U> void f(); public <S extends T> S save(S entity);",
        "class Node<A extends Comparable<A>> {}",
        "<S> ::= <A> and <B>",
        "for(;n<p; n = n->next)",
        "for(;n<p;\n    n = n->next)\n  x = n->p;",
        "x = 1 if n<p else 2 if m>q else 3",
        "if n<a and m>q:",
        "std::vector<b> v; List<object> w; map<a> m; vector<table> t;",
        "n<p == m>q",
    ],
)
def test_programs_that_look_like_html_stay(text: str) -> None:
    assert strip_html(text) == text
    assert strip_html(text.replace("<", "&lt;").replace(">", "&gt;")) == text


def test_a_tag_behind_a_word_is_closed_only_by_a_later_end_in_its_spelling() -> None:
    assert strip_html("<b>x</b> vector<b> v") == "x vector<b> v"
    assert strip_html("Option<B> <b>x</b>") == "Option<B> x"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\u00a0b\u2003c", "a b c"),
        ("a  b\t\tc", "a b c"),
        ("a  \r\nb\rc", "a\nb\nc"),
        ("a\n\n\n\nb", "a\n\nb"),
        ("\n\n  code:\n    deep  end\n", "  code:\n    deep end"),
        ("one\u2029two", "one\n\ntwo"),
    ],
)
def test_blanks(before: str, after: str) -> None:
    assert normalize_whitespace(before) == after


def test_controls_go_and_joiners_stay() -> None:
    assert strip_control_chars("a\x00b\x1b[31mred\x1b[0m\ufeff\u200b\u202e!") == "abred!"
    assert (
        strip_control_chars("\U0001f469\u200d\U0001f4bb نمی\u200cشود\tx\ny")
        == "\U0001f469\u200d\U0001f4bb نمی\u200cشود\tx\ny"
    )


def test_steps_are_counted_by_text() -> None:
    block = RepairText(ALL, mojibake=lambda text: text.replace("Ã©", "é"))
    list(
        block([Document("1", "cafÃ©  x", PLACE), Document("2", "e\u0301 &amp; y", PLACE), Document("3", "fine", PLACE)])
    )
    assert block.counts == {"mojibake": 1, "html": 1, "control_characters": 0, "unicode_form": 1, "white_space": 1}


def test_what_is_off_leaves_text_alone() -> None:
    off = Repair(mojibake=False, control_characters=False, html=False, unicode_form=None, white_space=False)
    text = "cafÃ© <b>\x00  e\u0301 &amp; "
    assert mend(text, off) == text


def test_segments_keep_tags_and_white_space() -> None:
    example = Example("e", PLACE, segments=[Segment("<s>  a\x00", train=False), Segment(" b </s>", train=True)])
    (outcome,) = RepairText(ALL, mojibake=str)([example])
    assert isinstance(outcome, Example)
    assert [segment.text for segment in outcome.segments] == ["<s>  a", " b </s>"]


def test_tool_arguments_are_data_and_stay() -> None:
    call = {"function": {"name": "f", "arguments": {"html": "<b>&amp;</b>"}}}
    example = Example(
        "e",
        PLACE,
        [Message("user", "x"), Message("assistant", "", tool_calls=[call]), Message("user", "y")],
        [ReferenceAnswer("z", PLACE)],
    )
    (outcome,) = RepairText(ALL, mojibake=str)([example])
    assert outcome == example


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Document("d", "<br> \x00", PLACE), "empty"),
        (Example("e", PLACE, [Message("user", "<p></p>")], [ReferenceAnswer("x", PLACE)]), "empty_input"),
        (Example("e", PLACE, [Message("user", "x")], [ReferenceAnswer("&nbsp;", PLACE)]), "empty_answer"),
        (Example("e", PLACE, segments=[Segment("x", train=False), Segment(" ", train=True)]), "empty_answer"),
    ],
)
def test_nothing_left_is_rejected(record: Document | Example, reason: str) -> None:
    (outcome,) = RepairText(ALL, mojibake=str)([record])
    assert isinstance(outcome, RejectedRecord)
    assert outcome.reason == reason


def test_one_empty_answer_of_two_is_dropped_and_counted() -> None:
    block = RepairText(ALL, mojibake=str)
    (outcome,) = block(
        [
            Example(
                "e", PLACE, [Message("user", "x")], [ReferenceAnswer("\u200b", PLACE), ReferenceAnswer("good", PLACE)]
            )
        ]
    )
    assert isinstance(outcome, Example)
    assert [answer.text for answer in outcome.answers] == ["good"]
    assert [reject.source for reject in block.dropped] == [PLACE]


PIECES = st.lists(
    st.sampled_from(
        [
            "&amp;",
            "&lt;",
            "<p>",
            "</p>",
            "<script>",
            "</script>",
            "<!--",
            "-->",
            "b ",
            " ",
            "\n",
            "\t",
            "x",
            "\u200b",
            "é",
            "e\u0301",
            "\x07",
        ]
    )
)


@given(PIECES.map("".join))
def test_a_second_time_changes_only_what_entities_hid(text: str) -> None:
    once = normalize_whitespace(strip_control_chars(text))
    assert normalize_whitespace(strip_control_chars(once)) == once


@given(PIECES.map("".join))
def test_text_without_signs_of_html_is_untouched(text: str) -> None:
    plain = text.replace("<", "").replace("&", "")
    assert strip_html(plain) == plain


@pytest.mark.parametrize(
    "piece",
    ["<script>", "<!--", "<script ", "<a ", "x<b>", "x<p and ", "</b>", " \n", "\n" + " " * 50, "&lt;", "\x1b]"],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    started = time.process_time()
    mend(piece * 20_000 + "x")
    assert time.process_time() - started < 3


def test_the_answer_that_calls_a_tool_keeps_its_tags_and_parts_keep_their_spaces() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {"x": "a <b>bold</b> city"}}}
    answers = [
        tool_calls.to_answer(Message("assistant", "Let  me <b>look</b>.", tool_calls=[call]), PLACE),
        ReferenceAnswer("Sun ny", PLACE, parts=[Segment("Sun ", train=False), Segment("ny", train=True)]),
    ]
    example = Example("e", PLACE, [Message("user", "Weather?")], answers)
    (found,) = RepairText(ALL, mojibake=str)([example])
    assert isinstance(found, Example)
    said, calls = tool_calls.parse_tool_calls(found.answers[0].text)
    assert said == "Let me look."
    assert calls[0]["function"] == call["function"]
    assert found.answers[1] == answers[1]
