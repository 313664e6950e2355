"""A JSON Schema as a grammar (EBNF of xgrammar and llama.cpp), written by us for two reasons.

A schema that a library cannot compile may take the whole engine with it, so what is not supported is refused here, before it
gets there. And the grammar says where white space may be: a small model that may write blanks writes nothing else.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from tunectl.access.api_errors import ApiError

PARAM: Final = "response_format.json_schema"
MOST_RULES: Final = 2000
MOST_REPEATS: Final = 2000
MOST_DEEP: Final = 64
"""Schemas inside one another, references followed: far from the depth at which Python gives up."""
_TALK: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id", "$comment"}
    | {"$defs", "definitions", "additionalProperties"}
)
"""Keywords that change nothing about the texts that are written here: no property is written that is not declared."""
_KNOWN: Final[dict[str, frozenset[str]]] = {
    "object": frozenset({"properties", "required"}),
    "array": frozenset({"items", "minItems", "maxItems"}),
    "string": frozenset({"minLength", "maxLength"}),
    "integer": frozenset(),
    "number": frozenset(),
    "boolean": frozenset(),
    "null": frozenset(),
}
_BASE: Final = r"""char ::= [^\0-\x1f\"\\\r\n] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])
string ::= "\"" char* "\""
whole ::= "-"? ("0" | [1-9] [0-9]{0,15})
number ::= whole ("." [0-9]{1,16})? ([eE] [-+]? [0-9]{1,3})?
gap ::= "," " "?
anyobject ::= "{" (anymember (gap anymember)*)? "}"
anymember ::= string ":" " "? anyvalue
anyarray ::= "[" (anyvalue (gap anyvalue)*)? "]"
anyvalue ::= anyobject | anyarray | string | number | "true" | "false" | "null"
"""
_PLAIN: Final = {
    "string": "string",
    "integer": "whole",
    "number": "number",
    "boolean": '("true" | "false")',
    "null": '"null"',
}


@lru_cache(maxsize=256)
def schema_to_ebnf(schema: str) -> str:
    """Return the grammar of a schema's JSON text; its rule ``root`` is the whole answer.

    Raises  Problem naming the place for what is not supported, refers nowhere, or could never end.
    """
    document = json.loads(schema)
    writer = _Writer(document)
    root = writer.value(document, "#", ())
    _refuse_endless(document, writer.refs)
    return f"root ::= {root}\n" + _BASE + "".join(f"{name} ::= {body}\n" for name, body in writer.rules.items())


@dataclass
class _Writer:
    document: Any
    rules: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    deep: int = 0

    def value(self, schema: Any, place: str, open_refs: tuple[str, ...]) -> str:
        """Return the expression of one schema; ``open_refs`` are references that were followed without a letter in between."""
        if self.deep == MOST_DEEP:
            raise _wrong(place, f"more than {MOST_DEEP} schemas lie inside one another, references followed")
        self.deep += 1
        written = self._value(schema, place, open_refs)
        self.deep -= 1
        return written

    def _value(self, schema: Any, place: str, open_refs: tuple[str, ...]) -> str:
        if schema is True or schema == {}:
            return "anyvalue"
        if not isinstance(schema, dict):
            raise _wrong(place, "is no schema")
        if "$ref" in schema:
            return self._ref(schema["$ref"], place, open_refs)
        for key in ("const", "enum"):
            if key in schema:
                return self._literals(schema, key, place)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._several(schema, key, place, open_refs)
        return self._write_type(schema, place)

    def _ref(self, ref: Any, place: str, open_refs: tuple[str, ...]) -> str:
        target = _target(self.document, ref, place)
        if ref in open_refs:
            raise _wrong(place, f"$ref {ref} refers to itself")
        if ref not in self.refs:
            name = self.refs[ref] = self._name()
            self.rules[name] = ""
            self.rules[name] = self.value(target, str(ref), (*open_refs, ref))
        elif not self.rules[self.refs[ref]] and open_refs:
            raise _wrong(place, f"$ref {ref} refers to itself")
        return self.refs[ref]

    def _literals(self, schema: Mapping[str, Any], key: str, place: str) -> str:
        _refuse_others(schema, frozenset({key, "type"}), place)
        values = [schema[key]] if key == "const" else schema[key]
        if not isinstance(values, list) or not values:
            raise _wrong(place, f"{key} needs a value")
        return "(" + " | ".join(_quote(json.dumps(value, ensure_ascii=False)) for value in values) + ")"

    def _several(self, schema: Mapping[str, Any], key: str, place: str, open_refs: tuple[str, ...]) -> str:
        _refuse_others(schema, frozenset({key}), place)
        found = schema[key]
        if not isinstance(found, list) or not found or (key == "allOf" and len(found) > 1):
            raise _wrong(place, f"{key} needs {'exactly one' if key == 'allOf' else 'some'} schema")
        parts = [self.value(one, f"{place}/{key}/{number}", open_refs) for number, one in enumerate(found)]
        return "(" + " | ".join(parts) + ")"

    def _write_type(self, schema: Mapping[str, Any], place: str) -> str:
        kinds = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else None)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        wrong = [kind for kind in kinds if not isinstance(kind, str) or kind not in _KNOWN]
        if wrong or not kinds:
            raise _wrong(place, f"type {json.dumps((wrong or [None])[0])}; there are {', '.join(_KNOWN)}")
        _refuse_others(schema, frozenset({"type"}).union(*(_KNOWN[kind] for kind in kinds)), place)
        parts = [self._kind(kind, schema, place) for kind in kinds]
        return parts[0] if len(parts) == 1 else "(" + " | ".join(parts) + ")"

    def _kind(self, kind: str, schema: Mapping[str, Any], place: str) -> str:
        if kind == "object":
            return self._object(schema, place)
        if kind == "array":
            return self._array(schema, place)
        if kind == "string" and ("minLength" in schema or "maxLength" in schema):
            return f'"\\"" char{_repeats(schema, "Length", place)} "\\""'
        return _PLAIN[kind]

    def _array(self, schema: Mapping[str, Any], place: str) -> str:
        item = self.value(schema.get("items", True), f"{place}/items", ())
        least, most = _bounds(schema, "Items", place)
        if most == 0:
            return '"[]"'
        name = self._rule(item)
        rest = f"(gap {name}){{{max(0, least - 1)},{most - 1 if most is not None else ''}}}"
        inside = f"{name} {rest}"
        return f'"[" {inside} "]"' if least else f'"[" ({inside})? "]"'

    def _object(self, schema: Mapping[str, Any], place: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if (
            not isinstance(properties, dict)
            or not isinstance(required, list)
            or not all(isinstance(one, str) for one in required)
        ):
            raise _wrong(place, "properties is no object, or required no list of names")
        absent = next((name for name in required if name not in properties), None)
        if absent is not None:
            raise _wrong(place, f"required names {json.dumps(absent)}, which properties does not describe")
        if not properties:
            return self._map(schema.get("additionalProperties", True), f"{place}/additionalProperties")
        members = [
            (
                name in required,
                f'{_quote(json.dumps(name, ensure_ascii=False) + ":")} " "? {self.value(one, f"{place}/{name}", ())}',
            )
            for name, one in properties.items()
        ]
        return f'"{{" {self._members(members)} "}}"'

    def _map(self, value: Any, place: str) -> str:
        """Return an object of any names; ``value`` is the schema of what each stands for, or whether there may be any."""
        if value is False:
            return '"{}"'
        if value is True or value == {}:
            return "anyobject"
        member = self._rule(f'string ":" " "? {self.value(value, place, ())}')
        return f'"{{" ({member} (gap {member})*)? "}}"'

    def _members(self, members: list[tuple[bool, str]]) -> str:
        """Return members in their order, optional ones left out or not; commas stand only between two."""
        first, later = '""', '""'
        for required, member in reversed(members):
            name = self._rule(member)
            then = later if later == '""' else self._rule(later)
            start = f"{name} {then}"
            first = start if required else f"{start} | {first}"
            later = f"gap {start}" if required else f"gap {start} | {then}"
        return self._rule(first)

    def _rule(self, body: str) -> str:
        name = self._name()
        self.rules[name] = body
        return name

    def _name(self) -> str:
        if len(self.rules) >= MOST_RULES:
            raise _wrong("#", f"is too large: it needs more than {MOST_RULES} rules")
        return f"r{len(self.rules)}"


def _refuse_others(schema: Mapping[str, Any], known: frozenset[str], place: str) -> None:
    other = next((key for key in schema if key not in known and key not in _TALK), None)
    if other is not None:
        raise _wrong(place, f"{other} is not supported here; leave it out and check the answer yourself")


def _target(document: Any, ref: Any, place: str) -> Any:
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise _wrong(place, f"$ref {json.dumps(ref)} is not inside this schema")
    found = document
    for part in ref[2:].split("/") if ref != "#" else []:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, dict) or key not in found:
            raise _wrong(place, f"$ref {ref} refers to nothing")
        found = found[key]
    return found


def _bounds(schema: Mapping[str, Any], what: str, place: str) -> tuple[int, int | None]:
    least, most = schema.get(f"min{what}", 0), schema.get(f"max{what}")
    for value in (least, most):
        if value is not None and (type(value) is not int or not 0 <= value <= MOST_REPEATS):
            raise _wrong(place, f"min{what} and max{what} are whole numbers up to {MOST_REPEATS}")
    if most is not None and most < least:
        raise _wrong(place, f"min{what} is {least} and max{what} is {most}")
    return least, most


def _repeats(schema: Mapping[str, Any], what: str, place: str) -> str:
    least, most = _bounds(schema, what, place)
    return f"{{{least},{'' if most is None else most}}}"


@dataclass
class _TerminationChecker:
    """Which references lead to a text that ends; each is looked at again only when one that it waits for turns out to end."""

    known: set[str] = field(default_factory=set)
    waiting: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def ends(self, schema: Any, asker: str) -> bool:
        """Return whether some text of a schema ends, as far as is known; ``asker`` is the reference that asks."""
        if not isinstance(schema, dict):
            return True
        if "$ref" in schema:
            ref: str = schema["$ref"]
            if ref not in self.known:
                self.waiting[ref].append(asker)
            return ref in self.known
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return any(self.ends(one, asker) for one in schema[key])
        kinds = schema.get("type")
        return (isinstance(kinds, list) and len(kinds) > 1) or all(
            self.ends(one, asker) for one in _list_required_schemas(schema)
        )

    def follow(self, document: Any, refs: Iterable[str]) -> None:
        """Find out for all of ``refs``."""
        todo = list(refs)
        while todo:
            ref = todo.pop()
            if ref not in self.known and self.ends(_target(document, ref, "#"), ref):
                self.known.add(ref)
                todo += self.waiting.pop(ref, ())


def _list_required_schemas(schema: Mapping[str, Any]) -> list[Any]:
    """List the schemas of the parts that every text of a schema contains."""
    required = frozenset(schema.get("required", ()))
    found = [one for name, one in schema.get("properties", {}).items() if name in required]
    return [*found, schema["items"]] if schema.get("minItems", 0) and "items" in schema else found


def _refuse_endless(document: Any, refs: Iterable[str]) -> None:
    """Refuse a schema whose every text would be infinite, such as an object that requires itself."""
    finite = _TerminationChecker()
    finite.follow(document, refs)
    if not finite.ends(document, "#"):
        raise _wrong("#", "has no text that ends: something requires itself")


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _wrong(place: str, why: str) -> ApiError:
    return ApiError(f"{PARAM}: {place}: {why}", param=PARAM)
