"""JSON values are masked in keys, texts, numbers, texts in several parts, and values whose kind only the key says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Segment, Source
from tunectl.backends.text import pii_resources
from tunectl.data.filters.pii import MaskPii
from tunectl.privacy.mask import PiiMasker, PlaceholderMap
from tunectl.privacy.structured import ValueMasker

PLANTED = Path(__file__).parents[3] / "benchmarks" / "privacy_planted.txt"
PLACE = Source("a.csv", 1)


@pytest.fixture(scope="module")
def masker() -> PiiMasker:
    return PiiMasker(pii_resources.tools(regions=["US"], locales=["en_US"]))


def mask(masker: PiiMasker, value: Any, key: str = "") -> Any:
    memory = PlaceholderMap()
    return ValueMasker(lambda texts: [item.text for item in masker.mask_parts(texts, memory)])(value, key)


OBJECTS = [
    {"password": "Tr0ub4dor77"},
    {"first_name": "Amarachukwu"},
    {"ssn": "123456789"},
    {"ssn": 123456789},
    {"api_key": "k9f8s7d6f5g4h3"},
    {"Authorization": "Bearer abcdefghijkl1"},
    {"name": "Amarachukwu"},
    {"ada@example.org": "x", "to": ["ada@example.org"]},
    {"phone": 4045550123, "note": "call 404-555-0123"},
]


@pytest.mark.parametrize("value", OBJECTS)
@pytest.mark.parametrize("wrap", [lambda value: value, lambda value: {"a": [value, {"b": value}]}])
def test_an_object_is_masked_as_its_json_is(masker: PiiMasker, value: Any, wrap: Any) -> None:
    masked = mask(masker, wrap(value))
    assert masked == json.loads(masker.mask(json.dumps(wrap(value))).text)
    assert masked != wrap(value)


def test_what_a_key_says_holds_for_the_values_of_a_list(masker: PiiMasker) -> None:
    assert mask(masker, {"passwords": ["Tr0ub4dor77", "none"]}) == {"passwords": ["[SECRET_1]", "none"]}


@pytest.mark.parametrize(
    "clean",
    [
        {
            "type": "function",
            "function": {"name": "Lookup", "parameters": {"properties": {"password": {"type": "string"}}}},
        },
        {"type": "function", "name": "Search", "description": "Ask Paris", "strict": True},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "Answer", "schema": {"required": ["name"]}},
            }
        },
        {"tool_choice": {"type": "function", "function": {"name": "Lookup"}}},
        {
            "messages": [
                {"role": "tool", "name": "Lookup", "content": [{"type": "text", "text": "a"}, "b", 1, {"text": 2}]}
            ]
        },
        {
            "max_tokens": 4096,
            "created": 1772366400,
            "seed": 4.5,
            "n": None,
            "stream": True,
            "id": "call_1",
            "page": 2**60,
        },
        {"password": "", "token": "none", "secret": "x" * 600},
    ],
)
def test_what_is_no_personal_data_stays(masker: PiiMasker, clean: Any) -> None:
    assert mask(masker, clean) == clean


@pytest.mark.parametrize(
    ("parts", "masked"),
    [
        (["mail ada.lovelace@exam", "ple.org please"], ["mail [EMAIL_1]", " please"]),
        (["call 404-555", "-0123 now"], ["call [PHONE_1]", " now"]),
        (["card 4111 ", "1111 1111 ", "1111"], ["card [CARD_1]", "", ""]),
        (["my password: ", "Tr0ub4dor77"], ["my password: ", "[SECRET_1]"]),
        (["AKIAIOSFODNN", "", "7EXAMPLE"], ["[SECRET_1]", "", ""]),
        (["call 4045550123", "45 of us"], ["call [PHONE_1]", "45 of us"]),
        (['{"card": 4111111111111111}', " and 404-555-0123"], ['{"card": "[CARD_1]"}', " and [PHONE_1]"]),
        (["nothing", " here"], ["nothing", " here"]),
    ],
)
def test_a_value_in_several_parts_of_a_content_is_one(masker: PiiMasker, parts: list[str], masked: list[str]) -> None:
    content = [{"type": "text", "text": part} for part in parts]
    assert mask(masker, {"content": content}) == {"content": [{"type": "text", "text": part} for part in masked]}
    assert mask(masker, [{"text": part, "index": 0} for part in parts[:1]]) == [
        {"text": mask(masker, parts[0]), "index": 0}
    ]


def test_planted_texts_are_masked_the_same_wherever_they_are_cut(masker: PiiMasker) -> None:
    lines = [line for line in PLANTED.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    for text in (re.sub(r"\u27e6\w+:|\u27e7", "", line) for line in lines[::2] if "\u27e6" in line):
        whole = masker.mask(text).text
        for cut in range(1, len(text), 9):
            memory = PlaceholderMap()
            memory.reserve(text)
            parts = masker.mask_parts([text[:cut], text[cut:]], memory)
            assert "".join(part.text for part in parts) == whole, (text, cut)


@pytest.mark.parametrize(
    "hostile",
    [
        {"k" * 100_000: ["a1b2c3d4"] * 10_000},
        {"password": [4111111111111111] * 500},
        {"content": [{"text": "4111111111111111,"}] * 1000},
        {"content": [{"text": "["}, *[{"text": "4111111111111111,"}] * 1000, {"text": "1]"}]},
        {"content": [{"text": ""}] * 10_000},
    ],
)
def test_hostile_values_take_linear_time(masker: PiiMasker, hostile: Any) -> None:
    started = time.process_time()
    mask(masker, hostile)
    assert time.process_time() - started < 4


def test_curation_masks_speakers_calls_tools_and_cut_segments(masker: PiiMasker) -> None:
    arguments = {
        "ada@example.org": "x",
        "card": 4111111111111111,
        "password": "Tr0ub4dor77",
        "ssn": "123456789",
        "n": 3,
    }
    call = {"type": "function", "function": {"name": "Pay", "arguments": arguments}}
    turns = [
        Message("user", "hi", name="Sarah Miller"),
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "ok", name="Lookup"),
    ]
    tools = [{"type": "function", "function": {"name": "Pay", "description": "mail ada@example.org"}}]
    calls = f"<tool_call>\n{json.dumps({'name': 'Pay', 'arguments': arguments})}\n</tool_call>"
    pieces = [Segment("ada.lovelace@exam", train=False), Segment("ple.org wrote", train=True)]
    example = Example("e", PLACE, turns, [ReferenceAnswer(calls, PLACE, calls=True)], tools=tools)
    filter_ = MaskPii(masker)
    (one, two, three) = filter_([example, Example("s", PLACE, segments=pieces), example])
    assert one == three
    assert [turn.name for turn in one.messages] == ["[PERSON_1]", None, "Lookup"]
    masked = {"[EMAIL_1]": "x", "card": "[CARD_1]", "password": "[SECRET_1]", "ssn": "[SSN_1]", "n": 3}
    assert one.messages[1].tool_calls == [{"type": "function", "function": {"name": "Pay", "arguments": masked}}]
    assert json.dumps(masked) in one.answers[0].text
    assert one.tools[0]["function"] == {"name": "Pay", "description": "mail [EMAIL_1]"}
    assert [(piece.text, piece.train) for piece in two.segments] == [("[EMAIL_1]", False), (" wrote", True)]
    assert filter_.records == 3
    taken = Example("t", PLACE, [Message("user", "to b@example.org", name="[EMAIL_1]")], tools=[{"[EMAIL_7]": 1}])
    (last,) = filter_([taken])
    assert (last.messages[0].content, last.messages[0].name, last.tools) == ("to [EMAIL_8]", "[EMAIL_1]", taken.tools)


def test_tools_that_hold_nothing_are_masked_once(masker: PiiMasker, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    find = masker.find
    monkeypatch.setattr(masker, "find", lambda text: read.append(text) or find(text))
    tools = [{"type": "function", "function": {"name": "lookup", "description": "finds a table"}}]
    rows = [Example("e", PLACE, [Message("user", "hi")], [ReferenceAnswer("yes", PLACE)], tools=tools)] * 3
    assert list(MaskPii(masker)(rows)) == rows
    assert read.count("finds a table") == 1
