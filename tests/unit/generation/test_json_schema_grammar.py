"""Schemas as grammars: what is written, what is refused and in which words."""

import json
import re
import time
from contextlib import suppress
from graphlib import TopologicalSorter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.access.api_errors import ApiError
from tunectl.generation.json_schema_grammar import (
    LEAST_DEEP,
    MOST_DEEP,
    MOST_LETTERS,
    MOST_LEVEL_RULES,
    MOST_RULES,
    schema_to_ebnf,
)


def rules(schema: Any) -> dict[str, str]:
    text = schema_to_ebnf(json.dumps(schema))
    return dict(line.split(" ::= ", 1) for line in text.splitlines())


def test_required_and_optional_members_keep_their_order() -> None:
    found = rules(
        {
            "type": "object",
            "properties": {"a": {"type": "string"}, "b": {"type": "integer"}, "c": {"enum": ["x", 1, None]}},
            "required": ["b"],
            "additionalProperties": False,
        }
    )
    assert found["root"] == '"{" r5 "}"'
    texts = " ".join(found.values())
    for part in (r'"\"a\":" " "? string', r'"\"b\":" " "? whole', r'("\"x\"" | "1" | "null")'):
        assert part in texts
    assert found["r5"].endswith(found["r2"].join(("", ""))) or " | " in found["r5"]


def test_arrays_and_lengths() -> None:
    assert (
        rules({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3})["root"]
        == '"[" r0 (gap r0){1,2} "]"'
    )
    assert rules({"type": "array", "items": {"type": "null"}})["root"] == '"[" (r0 (gap r0){0,})? "]"'
    assert rules({"type": "array", "maxItems": 0})["root"] == '"[]"'
    assert rules({"type": "string", "maxLength": 5})["root"] == r'"\"" char{0,5} "\""'
    assert rules({"type": ["string", "null"]})["root"] == '(string | "null")'


def test_objects_of_any_names_hold_what_their_schema_says() -> None:
    prices = {"type": "object", "additionalProperties": {"type": "integer"}}
    found = rules(prices)
    assert found["root"] == '"{" (r0 (gap r0)*)? "}"'
    assert found["r0"] == 'string ":" " "? whole'
    assert rules({"type": "object", "additionalProperties": False})["root"] == '"{}"'
    for any_at_all in ({}, {"additionalProperties": True}, {"additionalProperties": {}}):
        assert rules({"type": "object", **any_at_all})["root"] == "anyobject"
    tree = {"$defs": {"t": {"type": "object", "additionalProperties": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
    found = rules(tree)
    assert re.fullmatch(r'"\{" \((r\d+) \(gap \1\)\*\)\? "\}"', found[found["root"]])
    with pytest.raises(ApiError, match=r"#/additionalProperties: minimum is not supported here"):
        schema_to_ebnf(json.dumps({"type": "object", "additionalProperties": {"type": "integer", "minimum": 3}}))


def count_levels(found: dict[str, str]) -> int:
    """The most brackets around each other that a grammar can write; CycleError where there is no most."""
    uses = {name: found.keys() & re.findall(r"\w+", body) for name, body in found.items()}
    levels: dict[str, int] = {}
    for name in TopologicalSorter(uses).static_order():
        levels[name] = (found[name][:2] in {'"{', '"['}) + max((levels[one] for one in uses[name]), default=0)
    return levels["root"]


def test_a_value_without_a_schema_nests_as_deep_as_declared_and_no_deeper() -> None:
    for schema in (True, {}, {"type": "object"}, {"type": "object", "additionalProperties": {}}):
        assert count_levels(rules(schema)) == MOST_DEEP
    assert count_levels(rules({"type": "array"})) == MOST_DEEP + 1
    assert "anyvalue" not in schema_to_ebnf(json.dumps({"properties": {"a": {"type": "string"}}}))


TREE = {
    "$defs": {"t": {"properties": {"kids": {"type": "array", "items": {"$ref": "#/$defs/t"}}}}},
    "$ref": "#/$defs/t",
}
LISTS = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}
EITHER = {
    "$defs": {
        "value": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/values"}]},
        "values": {"type": "array", "items": {"$ref": "#/$defs/value"}, "minItems": 1},
    },
    "$ref": "#/$defs/values",
}
TWICE = {
    "$defs": {
        "outer": {"properties": {"o": {"$ref": "#/$defs/outer"}, "i": {"$ref": "#/$defs/inner"}}},
        "inner": {"properties": {"i": {"$ref": "#/$defs/inner"}, "x": {"$ref": "#/$defs/plain"}}, "required": ["x"]},
        "plain": {"enum": [1, 2]},
    },
    "$ref": "#/$defs/outer",
}


@pytest.mark.parametrize(
    ("schema", "levels"), [(TREE, MOST_DEEP // 2), (LISTS, MOST_DEEP), (EITHER, MOST_DEEP), (TWICE, MOST_DEEP)]
)
def test_a_value_that_refers_to_itself_nests_as_deep_as_declared_and_no_deeper(
    schema: dict[str, Any], levels: int
) -> None:
    """An object of ``TREE`` is around an array: its levels are counted once for two brackets."""
    found = rules(schema)
    assert count_levels(found) == levels
    assert all("anyvalue" not in body for body in found.values())
    assert (
        count_levels(rules({"type": "array", "items": {"$ref": "#/$defs/t"}, "$defs": LISTS["$defs"]})) == MOST_DEEP + 1
    )


def test_what_no_text_can_end_is_left_out() -> None:
    endless = {"properties": {"e": {"$ref": "#/$defs/e"}}, "required": ["e"]}
    found = rules({"$defs": {"e": endless}, "properties": {"a": {"type": "null"}, "e": {"$ref": "#/$defs/e"}}})
    assert '"\\"a\\":" " "? "null"' in found.values()
    assert not any('"\\"e\\":"' in body for body in found.values())
    assert rules({"$defs": {"e": endless}, "anyOf": [{"$ref": "#/$defs/e"}, {"type": "null"}]})["root"] == '("null")'
    assert rules({"$defs": {"e": endless}, "type": "array", "items": {"$ref": "#/$defs/e"}})["root"] == '"[]"'


def build_language(nodes: int) -> dict[str, Any]:
    """Expressions of a language: each kind of node may hold each other."""
    branches = {f"n{number}": {"$ref": f"#/$defs/n{number}"} for number in range(nodes)}
    own = {
        name: {
            "properties": {"kind": {"const": name}, "left": {"$ref": "#/$defs/e"}, "right": {"$ref": "#/$defs/e"}},
            "required": ["kind"],
        }
        for name in branches
    }
    return {"$defs": {"e": {"anyOf": list(branches.values())}, **own}, "$ref": "#/$defs/e"}


@pytest.mark.parametrize(("nodes", "levels"), [(5, MOST_DEEP), (20, 40), (250, LEAST_DEEP)])
def test_a_large_value_that_refers_to_itself_has_as_many_levels_as_fit(nodes: int, levels: int) -> None:
    started = time.process_time()
    found = rules(build_language(nodes))
    assert levels <= count_levels(found) <= MOST_DEEP
    assert len(found) < MOST_LEVEL_RULES + MOST_RULES
    assert time.process_time() - started < 2


def test_one_too_large_for_a_few_levels_is_refused() -> None:
    letters = {"e": {"properties": {"n" * 300_000: {"$ref": "#/$defs/e"}}}}
    with pytest.raises(
        ApiError, match=f"#: the schema is too large: its grammar needs more than {MOST_LETTERS} characters"
    ):
        schema_to_ebnf(json.dumps({"$defs": letters, "$ref": "#/$defs/e"}))


def test_a_text_that_looks_like_a_name_of_a_rule_changes_nothing() -> None:
    named = {"properties": {"r99999": {"const": "r88888"}, "t": {"$ref": "#"}}}
    assert count_levels(rules(named)) == MOST_DEEP + 1


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        (
            {"type": "nonsense"},
            '#: type "nonsense" is not allowed; allowed are object, array, string, integer, number, boolean, null',
        ),
        (
            {"type": "string", "pattern": "a+"},
            "#: pattern is not supported here; leave it out and check the answer yourself",
        ),
        (
            {"type": "integer", "minimum": 3},
            "#: minimum is not supported here; leave it out and check the answer yourself",
        ),
        ({"$ref": "http://x"}, '#: $ref "http://x" does not point into this schema; write #/ and a path'),
        ({"$ref": "#/$defs/no"}, "#: $ref #/$defs/no names a part that this schema does not have"),
        ({"$ref": "#"}, "#: $ref # refers to itself"),
        ({"anyOf": [{"$ref": "#"}, {"type": "null"}]}, "#/anyOf/0: $ref # refers to itself"),
        ({"type": "object", "required": ["a"]}, '#: required names "a", which properties does not describe'),
        (
            {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
            "#: the schema requires itself, so no finite answer fits it; make a property optional",
        ),
        ({"type": "array", "minItems": 3, "maxItems": 2}, "#: minItems = 3 is greater than maxItems = 2"),
        (
            {"type": "array", "maxItems": 10**9},
            "#: minItems and maxItems must be whole numbers from 0 to 2000, not 1000000000",
        ),
        ({"enum": []}, "#: enum must be a list with at least one value"),
        ({"type": ["array", "array"]}, "#: type lists array more than once"),
        (
            {"type": []},
            "#: type null is not allowed; allowed are object, array, string, integer, number, boolean, null",
        ),
        ({"properties": {"a": 5}}, "#/a: 5 is not a schema; write an object, or true for any value"),
    ],
)
def test_refusals(schema: Any, why: str) -> None:
    with pytest.raises(ApiError) as caught:
        schema_to_ebnf(json.dumps(schema))
    assert str(caught.value) == f"response_format.json_schema: {why}"
    assert caught.value.fault.param == "response_format.json_schema"


WORDS = st.sampled_from(
    ["type", "properties", "required", "items", "enum", "anyOf", "$ref", "#", "#/properties/a", "object", "array", "a"]
)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(WORDS, ANY, max_size=5))
@settings(max_examples=200, deadline=None)
def test_whatever_is_sent_is_written_or_refused(schema: dict[str, Any]) -> None:
    try:
        assert schema_to_ebnf(json.dumps(schema)).startswith("root ::= ")
    except ApiError as problem:
        assert problem.status == 400  # noqa: PT017


def test_a_schema_without_end_of_rules_is_refused() -> None:
    wide = {"type": "object", "properties": {f"p{number}": {"type": "null"} for number in range(3000)}}
    with pytest.raises(ApiError, match="the schema is too large: its grammar needs more than 2000 rules"):
        schema_to_ebnf(json.dumps(wide))


def test_references_that_lead_on_and_on_are_refused() -> None:
    """A chain as long as a body may be, forwards and backwards: neither Python's stack nor the event loop's patience ends first."""
    chain = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(1500)} | {"d1500": {"type": "null"}}
    with pytest.raises(ApiError, match="schemas nest deeper than 64 levels, references included"):
        schema_to_ebnf(json.dumps({"$defs": chain, "$ref": "#/$defs/d0"}))
    backwards = [{"$ref": f"#/$defs/d{number}"} for number in range(1500, -1, -1)]
    assert schema_to_ebnf(json.dumps({"$defs": chain, "anyOf": backwards})).startswith("root ::= ")


def test_what_ends_is_told_from_what_does_not() -> None:
    def needs(*names: str) -> dict[str, Any]:
        properties = {name: {"$ref": f"#/$defs/{name}"} for name in names}
        return {"type": "object", "properties": properties, "required": list(names)}

    ends = {"a": needs("b", "c"), "b": needs("c"), "c": {"anyOf": [needs("a"), needs("d")]}, "d": {"type": "null"}}
    assert schema_to_ebnf(json.dumps({"$defs": ends, **needs("a")}))
    with pytest.raises(ApiError, match="the schema requires itself"):
        schema_to_ebnf(json.dumps({"$defs": {**ends, "c": needs("a", "d")}, **needs("a")}))


def nest(levels: int, inside: dict[str, Any] | None = None, **around: Any) -> dict[str, Any]:
    schema = inside or {"type": "string"}
    for _ in range(levels):
        schema = {**around, "items": schema}
    return schema


def spread_required() -> dict[str, Any]:
    names = [f"p{number:05d}" for number in range(20_000)]
    return {"properties": dict.fromkeys(names, True), "required": names}


@pytest.mark.parametrize(
    "schema",
    [
        nest(40, type=["array", "array"], maxItems=0),
        nest(40, type=["array", "object", "string"], maxItems=0),
        nest(60, type=["array", "object", "string"], minItems=1),
        {"properties": {"n" * 400_000: {"properties": {f"p{number}": True for number in range(40_000)}}}},
        {
            "anyOf": [{"$ref": "#/$defs/a" + "/items" * up} for up in range(50)],
            "$defs": {"a": nest(50, {"const": "x" * 900_000}, type="array")},
        },
        spread_required(),
    ],
)
def test_a_schema_as_large_as_a_body_takes_little_work(schema: dict[str, Any]) -> None:
    started = time.process_time()
    with suppress(ApiError):
        assert len(schema_to_ebnf(json.dumps(schema))) < 2 * MOST_LETTERS
    assert time.process_time() - started < 1


def test_an_array_without_elements_is_written_without_their_schema() -> None:
    assert 'root ::= "[]"' in schema_to_ebnf(json.dumps({"type": "array", "maxItems": 0, "items": {"type": "string"}}))
