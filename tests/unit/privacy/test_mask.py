"""Masking: the same value has the same placeholder, and nothing else changes."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, RejectedRow, Source
from tunectl.data.filters.pii import MaskPii, mask_reject
from tunectl.privacy.decoded_text import decode_text, find_base64_texts
from tunectl.privacy.mask import PiiMasker, PlaceholderMap
from tunectl.privacy.resources import PiiResources
from tunectl.privacy.spans import PLACEHOLDER

NAMES = frozenset(["sarah", "john", "grace", "tom"])
TOOLS = PiiResources(
    phones=lambda text: [match.span() for match in re.finditer(r"\+\d[\d ]{8,14}\d", text)],
    card=lambda digits: sum(sum(divmod(int(d) * (1 + i % 2), 10)) for i, d in enumerate(reversed(digits))) % 10 == 0,
    iban=lambda text: text.replace(" ", "") == "DE89370400440532013000",
    ssn=lambda text: not text.startswith("000"),
    first_names=NAMES,
    surnames=frozenset(["miller", "smith"]),
)
PLACE = Source("a.csv", 1)


def masked(text: str, **more: object) -> str:
    return PiiMasker(TOOLS, **more).mask(text).text  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a@x.com, B@X.com, A@x.com", "[EMAIL_1], [EMAIL_2], [EMAIL_1]"),
        ("(404) 555-0123 is 404.555.0123 is +1 404-555-0123", "[PHONE_1] is [PHONE_1] is [PHONE_1]"),
        ("Sarah Miller came. Sarah left, Miller too.", "[PERSON_1] came. [PERSON_1] left, [PERSON_1] too."),
        ("Sarah Miller's dog", "[PERSON_1]'s dog"),
        ("[EMAIL_1] wrote to new@x.com", "[EMAIL_1] wrote to [EMAIL_2]"),
        ("DE89 3704 0044 0532 0130 00 THANKS", "[IBAN_1] THANKS"),
        ("4111 1111 1111 1111 but 4111 1111 1111 1112", "[CARD_1] but 4111 1111 1111 1112"),
        ("https://u:pw@h.com/p?token=abcd1234&x=1", "https://[SECRET_1]@h.com/p?token=[SECRET_2]&x=1"),
        ("https://shop.com/404-555-0123/Sarah-Miller", "https://shop.com/404-555-0123/Sarah-Miller"),
        ("123-45-6789 and 000-45-6789", "[SSN_1] and 000-45-6789"),
        ("from 203.0.113.9, v1.2.3.4, 127.0.0.1", "from [IP_1], v1.2.3.4, 127.0.0.1"),
        ("System.Web, Version=4.0.0.0, Culture=neutral", "System.Web, Version=4.0.0.0, Culture=neutral"),
        ('"version": "1.2.3.4", version="6.0.0.0"', '"version": "1.2.3.4", version="6.0.0.0"'),
        ("newVersion='6.0.0.0' file_version : 1.2.3.4", "newVersion='6.0.0.0' file_version : 1.2.3.4"),
        ("<FileVersion>1.2.3.4</FileVersion>", "<FileVersion>1.2.3.4</FileVersion>"),
        ('[assembly: AssemblyVersion("1.2.3.4")]', '[assembly: AssemblyVersion("1.2.3.4")]'),
        ("version 2 at 10.0.0.4, version=2, host=10.0.0.5", "version 2 at [IP_1], version=2, host=[IP_2]"),
        ("conversion: 10.0.0.4, user=a, host=10.0.0.5", "conversion: [IP_1], user=a, host=[IP_2]"),
        ('{"version": "2", "host": "10.0.0.4"}, v = "10.0.0.5"', '{"version": "2", "host": "[IP_1]"}, v = "[IP_2]"'),
        ("icon@2x.png, https://cdn.x.com/logo@1.5x.webp?v=1", "icon@2x.png, https://cdn.x.com/logo@1.5x.webp?v=1"),
        ("main@3x.8f3ab2.jpeg and a@2x.com and a@x.png.org", "main@3x.8f3ab2.jpeg and [EMAIL_1] and [EMAIL_2]"),
        ("12 Oak Lane. Then 12 OAK LANE", "[ADDRESS_1]. Then 12 OAK LANE"),
        ("Grace hour, Grace Notes, Sarah Smith Bakery", "Grace hour, Grace Notes, Sarah Smith Bakery"),
        ("7,4111111111111111,12.50", "7,[CARD_1],12.50"),
        ('{"a":[4111111111111111,5500005555555559]}', '{"a":["[CARD_1]","[CARD_2]"]}'),
        ("paid by 4111111111111111.0, 4111111111111111.00", "paid by [CARD_1], [CARD_1]"),
        ('{"a": 4111111111111111.0}', '{"a": "[CARD_1]"}'),
        ("4111,1111,1111,1111,5", "4111,1111,1111,1111,5"),
        ("1,4111,1111,1111,1111", "1,4111,1111,1111,1111"),
        ("4111111111111111.05", "4111111111111111.05"),
        ("nothing here", "nothing here"),
        ("", ""),
    ],
)
def test_masking(before: str, after: str) -> None:
    assert masked(before) == after


@pytest.mark.parametrize("number", ["1" * 5000, "9" * 4300, "0", "007", "\u0661", "1234567"])
def test_a_placeholder_that_nobody_gave_out_is_text(number: str) -> None:
    assert masked(f"[EMAIL_{number}] a@x.com") == f"[EMAIL_{number}] [EMAIL_1]"


def test_only_declared_kinds_are_masked() -> None:
    assert masked("a@x.com 404-555-0123", kinds=["phone"]) == "a@x.com [PHONE_1]"


def test_public_values_stay() -> None:
    assert (
        masked("a@x.com 404-555-0123 b@x.com", keep=["A@X.com", "(404) 555 0123"]) == "a@x.com 404-555-0123 [EMAIL_1]"
    )


def test_counts_hold_no_values() -> None:
    assert PiiMasker(TOOLS).mask("a@x.com a@x.com 404-555-0123").counts == {"email": 2, "phone": 1}


def test_one_memory_serves_all_texts_of_a_record() -> None:
    memory = PlaceholderMap()
    masker = PiiMasker(TOOLS)
    assert masker.mask("b@x.com a@x.com", memory).text == "[EMAIL_1] [EMAIL_2]"
    assert masker.mask("a@x.com", memory).text == "[EMAIL_2]"


def test_a_record_shares_placeholders_between_input_answers_and_arguments() -> None:
    call = {"function": {"name": "mail", "arguments": {"to": ["b@x.com"]}}}
    example = Example(
        "e",
        PLACE,
        [
            Message("user", "mail b@x.com"),
            Message("assistant", "", tool_calls=[call]),
            Message("user", "and [EMAIL_1]?"),
        ],
        [ReferenceAnswer("done: b@x.com", PLACE), ReferenceAnswer("c@x.com", PLACE)],
    )
    block = MaskPii(PiiMasker(TOOLS))
    (outcome,) = block([example])
    assert isinstance(outcome, Example)
    assert outcome.messages[0].content == "mail [EMAIL_2]"
    assert outcome.messages[1].tool_calls == [{"function": {"name": "mail", "arguments": {"to": ["[EMAIL_2]"]}}}]
    assert outcome.messages[2].content == "and [EMAIL_1]?"
    assert [answer.text for answer in outcome.answers] == ["done: [EMAIL_2]", "[EMAIL_3]"]
    assert (block.counts, block.records) == ({"email": 4}, 1)


def test_rejects_do_not_leak() -> None:
    hidden = mask_reject(RejectedRow(PLACE, "banned_word", "a@x.com", "write to a@x.com"), PiiMasker(TOOLS))
    assert (hidden.detail, hidden.sample) == ("[EMAIL_1]", "write to [EMAIL_1]")


PIECES = [
    "a@x.com",
    "404-555-0123",
    "Sarah Miller",
    "Sarah",
    "12 Oak Lane",
    "203.0.113.9",
    "[EMAIL_3]",
    "[",
    "word",
    ",",
    ".",
    "\n",
    "Dr.",
    "http://h.com/Sarah Miller",
    "$5",
    "4111111111111111",
]


@given(st.lists(st.sampled_from(PIECES)).map(" ".join))
@settings(deadline=None)
def test_masking_again_changes_nothing_and_the_rest_stays(text: str) -> None:
    masker = PiiMasker(TOOLS)
    found = masker.find(text)
    assert all(one.end <= other.start for one, other in pairwise(found))
    once = masker.mask(text).text
    assert PLACEHOLDER.sub("", once).count("@") == 0
    outside, end = "", 0
    for one in found:
        outside += text[end : one.start]
        end = one.end
    assert PLACEHOLDER.sub("", once) == PLACEHOLDER.sub("", outside + text[end:])


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        "1 ",
        "A ",
        "@",
        "a.b-",
        "1-",
        "12:",
        "1.2.",
        "DE89 ",
        "12 Main ",
        "(404) ",
        "\n- ",
        "?token=",
        "Sarah Miller ",
        "https://a:b",
        "ACGT",
        "A-",
        "ab12 ",
    ],
)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    started = time.process_time()
    PiiMasker(TOOLS).mask("10 " + piece * 10_000)
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mail ada @ example.org today", "mail [EMAIL_1] today"),
        ("ada@ example.org, ada@example.org", "[EMAIL_1], [EMAIL_1]"),
        ("write to ada at example dot org.", "write to [EMAIL_1]."),
        ("ada at example dot org", "[EMAIL_1]"),
        ("ping ada.l at gmail dot com", "ping [EMAIL_1]"),
        ("ada [at] example [dot] org", "[EMAIL_1]"),
        ("<p>ada<b>@</b>example.org</p>", "<p>[EMAIL_1]</p>"),
        ("ada</b>@<i>example</i>.org", "[EMAIL_1]"),
        ("ada<wbr>&#64;<!-- x -->example.org", "[EMAIL_1]"),
        ("ada&#64;example.org ada%40example.org", "[EMAIL_1] [EMAIL_1]"),
    ],
)
def test_addresses_with_blanks_words_and_tags_are_masked(text: str, expected: str) -> None:
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "thanks @example.org",
        "find us @ example.org",
        "two lattes @ 3.50",
        "lunch @ home.It was raining",
        "she works at amazon dot com and looks at example dot org daily",
        "email me at example dot org",
        "the end</b>.next",
        "ada<p>@</p>example",
    ],
)
def test_places_on_the_web_are_no_addresses(text: str) -> None:
    assert masked(text) == text


@given(
    st.from_regex(r"[a-z_]{0,15}", fullmatch=True)
    | st.sampled_from(["call_me_anna", "token_is_secret", "password", "my_ssn"])
)
def test_in_a_short_word_that_is_not_read_no_finder_finds_anything(word: str) -> None:
    masker = PiiMasker(TOOLS)
    text = decode_text(word).text
    assert masker.find(word) == []
    assert [span for finder, _ in masker.finders for span in finder(text, TOOLS)] == []
    assert list(find_base64_texts(text)) == []
