"""Personal data is found however it is written: in JSON, URLs, HTML, Markdown, with other signs; and JSON stays JSON."""

from __future__ import annotations

import base64
import contextlib
import html
import itertools
import json
import re
import textwrap
import time
import unicodedata
from collections.abc import Callable
from functools import reduce
from urllib.parse import quote

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tunectl.backends.text.pii_resources import tools
from tunectl.privacy.decoded_text import decode_text
from tunectl.privacy.json_numbers import find_json_numbers
from tunectl.privacy.mask import PiiMasker
from tunectl.privacy.patterns import find_emails
from tunectl.privacy.spans import EntityType, PiiSpan

pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")
pytest.importorskip("faker")

SAMPLES: dict[EntityType, tuple[str, str]] = {
    "url_credentials": ("Pull from https://", "bob:hunter22"),
    "secret": ("Use the key ", "AKIAIOSFODNN7EXAMPLE"),
    "email": ("Write to ", "ada@example.org"),
    "iban": ("Wire to ", "DE89 3704 0044 0532 0130 00"),
    "card": ("Charge ", "4111 1111 1111 1111"),
    "ssn": ("Her number is ", "536-22-8726"),
    "ip": ("Blocked ", "203.0.113.77"),
    "phone": ("Please call ", "404-555-0123"),
    "address": ("Deliver to ", "77 N. Highland Avenue"),
    "person": ("Met ", "Sarah Miller"),
}
"""By kind: what comes before a value, and the value."""
BEHIND: dict[EntityType, str] = {"url_credentials": "@git.example.com/menu.git"}
WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)} | {0x20: 0x3000}


def escape_twice(text: str) -> str:
    return json.dumps({"a": json.dumps({"b": [text]})})


def digits_from(zero: int) -> dict[int, int]:
    return {ord(str(number)): zero + number for number in range(10)}


FORMS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "JSON": json.dumps,
    "JSON in JSON": escape_twice,
    "\\u escapes": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "between lines": lambda text: f"\n{text}\n",
    "between lines, in JSON": lambda text: json.dumps({"text": f"Hello,\n{text}\nBye"}),
    "percent": quote,
    "all percent": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "Markdown": lambda text: f"_{text}_",
    "Markdown, bold": lambda text: f"**{text}**",
    "full width": lambda text: text.translate(WIDE),
    "entities": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
    "JSON in a parameter": lambda text: quote(json.dumps({"a": f"Hello,\n{text}"})),
    "hexadecimal entities": lambda text: html.escape(text).replace("@", "&#x40;").replace(" ", "&#xa0;"),
    "spaces that do not break": lambda text: text.replace(" ", "\u00a0"),
    "invisible signs": "\u200b".join,
    "variation selectors": "\U000e0100".join,
    "tags of Unicode": "\U000e0020".join,
    "Hangul fillers": "\u3164".join,
    "a deprecated sign": "\u206f".join,
    "two spaces": lambda text: text.replace(" ", "  "),
    "tabs": lambda text: text.replace(" ", "\t"),
    "Arabic digits": lambda text: text.translate(digits_from(0x660)),
    "Devanagari digits": lambda text: text.translate(digits_from(0x966)),
    "digits of a segmented display": lambda text: text.translate(digits_from(0x1FBF0)),
    "\\x escapes": lambda text: "".join(f"\\x{ord(letter):02x}" for letter in text),
    "\\U escapes": lambda text: "".join(f"\\U{ord(letter):08x}" for letter in text),
    "\\u{} escapes": lambda text: "".join(f"\\u{{{ord(letter):x}}}" for letter in text),
    "octal escapes": lambda text: "".join(f"\\{ord(letter):03o}" for letter in text),
    "long entities": lambda text: "".join(f"&#{ord(letter):010};" for letter in text),
    "percent, four times": lambda text: quote(quote(quote(quote(text)))),
    "Base64": lambda text: base64.b64encode(text.encode()).decode(),
    "Base64 with an end of a string": lambda text: base64.b64encode(f"{text}\0".encode()).decode(),
    "Base64 in lines": lambda text: base64.encodebytes(f"{text}, {'and more ' * 12}".encode()).decode(),
    "Base64 in short lines": lambda text: "\r\n".join(textwrap.wrap(base64.b64encode(text.encode()).decode(), 16)),
}
"""Ways to write a text."""


@pytest.fixture(scope="module")
def masker() -> PiiMasker:
    return PiiMasker(tools(regions=["US"], locales=["en_US", "de_DE", "es_ES"]))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", SAMPLES)
def test_each_kind_is_found_in_each_form(masker: PiiMasker, kind: EntityType, form: str) -> None:
    before, value = SAMPLES[kind]
    write = FORMS[form]
    text = write(before + value + BEHIND.get(kind, ""))
    masked = masker.mask(text)
    assert masked.counts == {kind: 1}, text
    assert value not in decode_text(masked.text).text
    assert masker.mask(masked.text).text == masked.text


@pytest.mark.parametrize("kind", SAMPLES)
def test_emphasis_around_the_value_alone(masker: PiiMasker, kind: EntityType) -> None:
    before, value = SAMPLES[kind]
    if kind == "url_credentials":  # underscores are part of a password
        return
    for sign in ("_", "__", "*", "**", "`", '"', "'", "(", ">"):
        assert masker.mask(f"{before}{sign}{value}{sign} now").counts == {kind: 1}, sign


@pytest.mark.parametrize("sign", ["\u200b", "\u2060", "\\u200b", "&#8203;", "%E2%80%8B"])
@pytest.mark.parametrize(
    "value",
    [
        "ghp_" + "a1" * 18,
        "sk_live_" + "a1" * 12,
        "github_pat_" + "a1" * 20,
        "ada_lovelace@example.org",
        "Sarah+Miller@example.org",
    ],
)
def test_an_invisible_sign_beside_an_underscore_makes_it_no_emphasis(masker: PiiMasker, value: str, sign: str) -> None:
    for mark in "_+":
        for written in (
            value.replace(mark, mark + sign),
            value.replace(mark, sign + mark),
            value.replace("@", sign + "@"),
        ):
            assert masker.mask(f"to={written} now").text in ("to=[SECRET_1] now", "to=[EMAIL_1] now"), written


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(SAMPLES)), st.lists(st.sampled_from(["JSON", "JSON in JSON", "between lines"]), max_size=3)
)
@example("person", ["between lines", "JSON", "JSON in JSON"])
def test_layers_of_json_hide_nothing(masker: PiiMasker, kind: EntityType, layers: list[str]) -> None:
    before, value = SAMPLES[kind]
    text = reduce(lambda text, form: FORMS[form](text), layers, before + value + BEHIND.get(kind, ""))
    assert masker.mask(text).counts == {kind: 1}


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9999, 9999)
    | st.just(4111111111111111)
    | st.sampled_from([f"{before}{value}" for before, value in SAMPLES.values()])
    | st.sampled_from(["x, 4111111111111111, y", "[4111111111111111", '"4111111111111111"', "a\\", 'he said "4, 5"'])
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3) | inner.map(json.dumps)
    ),
    max_leaves=8,
)


def refuse_broken_json(before: object, after: object) -> None:
    """Refuse a string inside that was JSON of a list or an object, and is none any more."""
    if isinstance(before, list):
        assert isinstance(after, list)
        for one, other in zip(before, after, strict=True):
            refuse_broken_json(one, other)
    elif isinstance(before, dict):
        assert isinstance(after, dict)
        for one, other in zip(before.values(), after.values(), strict=True):
            refuse_broken_json(one, other)
    elif isinstance(before, str) and before[:1] in ("{", "["):
        assert isinstance(after, str)
        with contextlib.suppress(ValueError):
            inner = json.loads(before)
            try:
                left = json.loads(after)
            except ValueError:
                pytest.fail(f"{before} became {after}")
            refuse_broken_json(inner, left)


@settings(deadline=None, max_examples=300)
@given(st.lists(VALUES, min_size=1, max_size=3) | st.dictionaries(st.text(max_size=4), VALUES, max_size=3))
@example({"a": json.dumps({"card": 4111111111111111, "b": [4111111111111111, 1]}), "c": "x, 4111111111111111, y"})
@example([json.dumps(["a\\", 4111111111111111, 'b"'])])
@example([{'"': 4111111111111111}])
def test_json_stays_json_and_the_rest_of_it_the_same(masker: PiiMasker, value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=2)):
        masked = masker.mask(text)
        after = json.loads(masked.text)
        assert type(after) is type(value)
        assert "4111111111111111" not in masked.text
        refuse_broken_json(value, after)
        if not masked.counts:
            assert masked.text == text


def test_a_number_of_json_becomes_a_string_and_one_in_prose_does_not(masker: PiiMasker) -> None:
    inner = json.dumps({"card": 4111111111111111, "note": "x, 4111111111111111, y"})
    masked = json.loads(masker.mask(json.dumps({"result": inner, "n": [4111111111111111, 3]})).text)
    assert masked["n"] == ["[CARD_1]", 3]
    assert json.loads(masked["result"]) == {"card": "[CARD_1]", "note": "x, [CARD_1], y"}
    assert masker.mask("[4111111111111111, is it]").text == "[[CARD_1], is it]"


def test_numbers_deep_inside_json_do_not_multiply_the_text(masker: PiiMasker) -> None:
    text = json.dumps([4111111111111111] * 300)
    for layer in range(1, 12):
        text = json.dumps(text)
        masked = masker.mask(text)
        assert (masked.counts, len(masked.text) < 3 * len(text)) == ({"card": 300}, True), layer
        assert isinstance(json.loads(masked.text), str)


def test_many_strings_of_json_take_linear_time(masker: PiiMasker) -> None:
    text = json.dumps(["[4111111111111111]"] * 60_000)
    spans = [PiiSpan("card", *match.span(), match[0]) for match in re.finditer(r"\d+", text)]
    started = time.process_time()
    assert len(find_json_numbers(text, spans)) == 60_000
    assert time.process_time() - started < 2
    started = time.process_time()
    list(find_emails("ada at example dot org " * 50_000, masker.tools))
    assert time.process_time() - started < 2


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"customer": "Contact J\\u00fcrgen M\\u00fcller"}', '{"customer": "Contact [PERSON_1]"}'),
        ("https://x.org/?user=ada%40example.org&p=2", "https://x.org/?user=[EMAIL_1]&p=2"),
        ("https://x.org/u/ada@example.org/profile", "https://x.org/u/[EMAIL_1]/profile"),
        ("https://x.org/?name=Sarah+Miller&q=1", "https://x.org/?name=[PERSON_1]&q=1"),
        ("name=Sarah+Miller", "name=[PERSON_1]"),
        ("to=Sarah+Miller@example.org", "to=[EMAIL_1]"),
        ("lang=Java+Python&key=aB+cD", "lang=Java+Python&key=aB+cD"),
        ("https://wa.me/14045550123", "https://wa.me/[PHONE_1]"),
        ("https://x.org/404-555-0123/a?q=Sarah%20Miller", "https://x.org/404-555-0123/a?q=[PERSON_1]"),
        ("https:\\/\\/x.org\\/404-555-0123\\/Sarah Miller", "https:\\/\\/x.org\\/404-555-0123\\/Sarah Miller"),
        ("https://git@github.com/a/b and git+x", "https://git@github.com/a/b and git+x"),
        ("ada&#64;example.org, ada&#64example.org", "[EMAIL_1], [EMAIL_1]"),
        ("ada\uff20example.org is ada@example.org", "[EMAIL_1] is [EMAIL_1]"),
        ("My name is Jose\u0301 Garci\u0301a", "My name is [PERSON_1]"),
        ("ada**@**example.org, `ada`@`example.org`, ada\\@example.org", "[EMAIL_1], `[EMAIL_1]`, [EMAIL_1]"),
        ("ada@exam<b></b>ple.org, ada@exam<!-- x -->ple.org", "[EMAIL_1], [EMAIL_1]"),
        ("ada@example=\n.org, ada=40example=2Eorg", "[EMAIL_1], [EMAIL_1]"),
        ("https://bob:pa**@h.example.com/", "https://[SECRET_1]@h.example.com/"),
        ("<b>4111 1111 1111 1111</b><b>77</b>", "<b>[CARD_1]</b><b>77</b>"),
        ("_ada@example.org_ and snake_case_name", "_[EMAIL_1]_ and snake_case_name"),
        ("https://u:p%40ss@h.com/", "https://[SECRET_1]@h.com/"),
        ("k -----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY----- ok", "k [SECRET_1] ok"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "[SECRET_1]"),
        ("-----BEGIN CERTIFICATE-----\nMIIE", "-----BEGIN CERTIFICATE-----\nMIIE"),
        ("password: required, api_key=YOUR_API_KEY", "password: required, api_key=YOUR_API_KEY"),
        ("my password is hunter22.", "my password is [SECRET_1]."),
    ],
)
def test_what_stands_around_a_value_stays(masker: PiiMasker, before: str, after: str) -> None:
    assert masker.mask(before).text == after
    assert masker.mask(after).text == after


PIECES = [
    "\\",
    "\\n",
    "\\u00e9",
    "%",
    "%40",
    "%C3%A9",
    "%ff",
    "&",
    "&#64;",
    "&amp;",
    "_",
    "a",
    "\u200b",
    "e\u0301",
    "\uff20",
    "\u2011",
    " ",
    "1",
    "@",
    ".",
    "<b>",
    "</b>",
    "=2E",
    "=\n",
]


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES)).map("".join) | st.text())
def test_the_offset_map_leads_back_to_what_was_written(text: str) -> None:
    decoded = decode_text(text)
    places = [decoded.original_span(place, place + 1) for place in range(len(decoded.text))]
    assert all(0 <= start < end <= len(text) for start, end in places)
    assert all(one[1] <= other[0] or one == other for one, other in itertools.pairwise(places))
    for letter, (start, end) in zip(decoded.text, places, strict=True):
        assert (
            end - start > 1
            or letter == text[start]
            or decode_text(text[start:end]).text == letter
            or unicodedata.normalize("NFKC", text[start:end]) == letter  # raised digits, which only a row of them is
            or letter == " "
            or letter == "-"
        )


@pytest.mark.parametrize(
    "piece",
    [
        "\\",
        '\\"',
        "_",
        "%4",
        "%40",
        "&#",
        "&a",
        "e\u0301",
        "\u200b",
        "_\u200b",
        "<b>",
        "@a<b>",
        "1<b>1</b>",
        "@a<b ",
        "| password ",
        "password: <b>",
        "*@",
        '{"a": 4111111111111111, ',
        "[4111111111111111, ",
        "-----BEGIN ",
        "-----BEGIN PRIVATE KEY-----",
        "eyJ",
        "-eyJ",
        "tk-",
        "token:",
        "password is ",
        "wa.me/",
        '"a a',
    ],
)
def test_hostile_text_takes_linear_time(masker: PiiMasker, piece: str) -> None:
    started = time.process_time()
    masker.mask("10 " + piece * (100_000 // len(piece)))
    masker.mask("[" + piece * (100_000 // len(piece)))
    assert time.process_time() - started < 8
