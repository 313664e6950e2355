"""Convert a JSON Schema to a grammar (EBNF of xgrammar and llama.cpp).

Our own conversion, for two reasons. A schema that a library cannot compile can crash the engine for all requests, so unsupported
keywords are refused here. And the grammar limits white space: small models that may write blanks often write nothing else.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from tunectl.access.api_errors import ApiError

PARAM: Final = "response_format.json_schema"
MOST_RULES: Final = 2000
"""Limit on the rules of a grammar: an engine compiles it while other requests wait, and ``anyOf`` in ``anyOf`` doubles it at each level."""
MOST_LEVEL_RULES: Final = 5000
"""Limit on the rules of values that refer to themselves, which each level has anew."""
MOST_LETTERS: Final = 1_000_000
"""Limit on the letters of all expressions and locations, so on the work: references may lead to overlapping parts, and names may be long."""
MOST_REPEATS: Final = 2000
"""Limit on minItems, maxLength and the like: engines expand a repetition into as many states."""
MOST_DEEP: Final = 64
"""Limit on nested schemas, references followed, and on nested arrays and objects in a value that refers to itself or has no schema; far below
Python's recursion limit."""
LEAST_DEEP: Final = 4
"""Levels of a value that refers to itself from which on its grammar is not refused: where all 64 exceed the other limits, it has as many as fit."""
_RULE_NAME: Final = re.compile(r"\br\d+\b")
_ANNOTATIONS: Final = frozenset(
    {"title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly", "$schema", "$id", "$comment"}
    | {"$defs", "definitions", "additionalProperties"}
)
"""Keywords without effect on the grammar: only declared properties are generated."""
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
"""
_FREE: Final = """anyobject{level} ::= "{{" (anymember{level} (gap anymember{level})*)? "}}"
anymember{level} ::= string ":" " "? {inner}
anyarray{level} ::= "[" ({inner} (gap {inner})*)? "]"
anyvalue{level} ::= anyobject{level} | anyarray{level} | anyscalar
"""
_SCALAR: Final = 'anyscalar ::= string | number | "true" | "false" | "null"\n'
_PLAIN: Final = {
    "string": "string",
    "integer": "whole",
    "number": "number",
    "boolean": '("true" | "false")',
    "null": '"null"',
}


@lru_cache(maxsize=256)
def schema_to_ebnf(schema: str) -> str:
    """Return an EBNF grammar for the JSON texts that fit ``schema`` (a JSON Schema, as JSON); its start rule is ``root``.

    Raises  ApiError with the location of a keyword that is not supported, a broken reference, or endless recursion.
    """
    document = json.loads(schema)
    writer = _Writer(document)
    root = writer.value(document, "#")
    recursive = writer.find_recursive_refs()
    if recursive:
        writer = _write_levels(writer, recursive)
        root = writer.value(document, "#")
    if root is None and writer.most_levels < MOST_DEEP:
        raise _too_large(f"its grammar has room for no more than {writer.most_levels} levels of what refers to itself")
    if root is None:
        raise _wrong("#", "the schema requires itself, so no finite answer fits it; make a property optional")
    rules = _list_reachable(root, writer.rules) if recursive else writer.rules
    own = f"root ::= {root}\n" + "".join(f"{name} ::= {body}\n" for name, body in rules.items())
    return own + _BASE + (_write_free_rules() if "any" in own else "")


def _write_levels(unbounded: _Writer, recursive: frozenset[str]) -> _Writer:
    """Return a writer with rules for each level of the recursive references: as many levels as its limits leave room for."""
    writer = _Writer(unbounded.document, recursive=recursive, most_rules=MOST_LEVEL_RULES)
    refs = [ref for ref in unbounded.refs if ref in recursive]
    for level in range(MOST_DEEP + 1):
        rules, letters = len(writer.rules), writer.letters
        try:
            for ref in refs:
                writer.write_level(ref, level, ref)
        except _TooLargeError:
            if level <= LEAST_DEEP:
                raise
            writer.forget(rules, letters)
            break
        writer.most_levels = level
    writer.most_rules, writer.most_letters = len(writer.rules) + MOST_RULES, writer.letters + MOST_LETTERS
    return writer


def _list_reachable(root: str, rules: Mapping[str, str]) -> dict[str, str]:
    names, todo = set[str](), _RULE_NAME.findall(root)
    while todo:
        name = todo.pop()
        if name in rules and name not in names:  # a text of the schema may look like a name
            names.add(name)
            todo += _RULE_NAME.findall(rules[name])
    return {name: body for name, body in rules.items() if name in names}


def _write_free_rules() -> str:
    """Return the rules of values without a schema, each level by rules of its own: a rule that names itself would nest without end."""
    levels = ["", *map(str, range(2, MOST_DEEP + 1))]
    inners = [*(f"anyvalue{level}" for level in levels[1:]), "anyscalar"]
    return (
        "".join(_FREE.format(level=level, inner=inner) for level, inner in zip(levels, inners, strict=True)) + _SCALAR
    )


class _TooLargeError(ApiError):
    """The grammar of a schema exceeds a limit."""


@dataclass
class _Writer:
    """Writes the rules of a grammar. A value for which there is no text within the levels is None: its member or branch is left out."""

    document: Any
    rules: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    recursive: frozenset[str] = frozenset()
    """References that lead to themselves, or to such: each level of them has rules of its own."""
    most_levels: int = 0
    most_rules: int = MOST_RULES
    most_letters: int = MOST_LETTERS
    letters: int = 0
    _deep: int = 0
    _level: int | None = None
    """Arrays and objects that may still be opened in each other; None outside of recursive references."""
    _levels: dict[tuple[str, int], str | None] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _uses: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _ref_in_progress: str = ""

    def value(self, schema: Any, location: str) -> str | None:
        """Return the expression of one schema; None where no text of it ends within the levels."""
        if self._deep == MOST_DEEP:
            raise _wrong(location, f"schemas nest deeper than {MOST_DEEP} levels, references included; flatten them")
        self._deep += 1
        self._count(location)
        rule = self._value(schema, location)
        self._count(rule or "")
        self._deep -= 1
        return rule

    def find_recursive_refs(self) -> frozenset[str]:
        """Return the references that lead to themselves, or to such."""
        sorter, finite = TopologicalSorter(self._uses), set[str]()
        with suppress(CycleError):
            sorter.prepare()
        while ready := sorter.get_ready():
            finite.update(ready)
            sorter.done(*ready)
        return frozenset(self.refs.keys() - finite)

    def write_level(self, ref: str, level: int, location: str) -> str | None:
        """Return the rule of a recursive reference whose text has at most ``level`` arrays and objects in each other; None where there is none."""
        key = (ref, level)
        if key not in self._levels:
            self._levels[key], outer, self._level = "", self._level, level
            body = self.value(_target(self.document, ref, location), ref)
            self._level = outer
            self._levels[key] = None if body is None else self._rule(body)
        elif self._levels[key] == "":
            raise _wrong(location, f"$ref {ref} refers to itself")
        return self._levels[key]

    def forget(self, rules: int, letters: int) -> None:
        """Remove all but the first rules: a level was too large."""
        for name in list(self.rules)[rules:]:
            self._names.pop(self.rules.pop(name), None)
        self.refs = {ref: name for ref, name in self.refs.items() if name in self.rules}
        self.letters, self._deep, self._level = letters, 0, None

    def _count(self, text: str) -> None:
        self.letters += len(text)
        if self.letters > self.most_letters:
            raise _too_large(f"its grammar needs more than {MOST_LETTERS} characters")

    def _value(self, schema: Any, location: str) -> str | None:
        if schema is True or schema == {}:
            return "anyvalue"
        if not isinstance(schema, dict):
            raise _wrong(location, f"{schema!r:.40} is not a schema; write an object, or true for any value")
        if "$ref" in schema:
            return self._ref(schema["$ref"], location)
        for key in ("const", "enum"):
            if key in schema:
                return self._literals(schema, key, location)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._several(schema, key, location)
        return self._write_type(schema, location)

    def _ref(self, ref: Any, location: str) -> str | None:
        target = _target(self.document, ref, location)
        if ref in self.recursive:
            return self.write_level(ref, self.most_levels if self._level is None else self._level, location)
        self._uses[self._ref_in_progress].add(ref)
        if ref not in self.refs:
            name = self.refs[ref] = self._name()
            self.rules[name] = ""
            outer, self._ref_in_progress, level, self._level = self._ref_in_progress, ref, self._level, None
            self.rules[name] = self.value(target, str(ref)) or ""
            self._ref_in_progress, self._level = outer, level
        return self.refs[ref]

    def _literals(self, schema: Mapping[str, Any], key: str, location: str) -> str:
        _refuse_others(schema, frozenset({key, "type"}), location)
        values = [schema[key]] if key == "const" else schema[key]
        if not isinstance(values, list) or not values:
            raise _wrong(location, "enum must be a list with at least one value")
        return "(" + " | ".join(_quote(json.dumps(value, ensure_ascii=False)) for value in values) + ")"

    def _several(self, schema: Mapping[str, Any], key: str, location: str) -> str | None:
        _refuse_others(schema, frozenset({key}), location)
        result = schema[key]
        if not isinstance(result, list) or not result or (key == "allOf" and len(result) > 1):
            count = "exactly" if key == "allOf" else "at least"
            raise _wrong(location, f"{key} must be a list with {count} one schema")
        parts = [self.value(item, f"{location}/{key}/{number}") for number, item in enumerate(result)]
        return _join_branches(parts, brackets=True)

    def _write_type(self, schema: Mapping[str, Any], location: str) -> str | None:
        kinds = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else None)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        wrong = [kind for kind in kinds if not isinstance(kind, str) or kind not in _KNOWN]
        if wrong or not kinds:
            stated = json.dumps((wrong or [None])[0])[:40]
            raise _wrong(location, f"type {stated} is not allowed; allowed are {', '.join(_KNOWN)}")
        if len(set(kinds)) < len(kinds):
            raise _wrong(location, f"type lists {max(kinds, key=kinds.count)} more than once")
        _refuse_others(schema, frozenset({"type"}).union(*(_KNOWN[kind] for kind in kinds)), location)
        parts = [self._kind(kind, schema, location) for kind in kinds]
        return _join_branches(parts, brackets=len(kinds) > 1)

    def _kind(self, kind: str, schema: Mapping[str, Any], location: str) -> str | None:
        if kind in {"object", "array"}:
            return self._nest(self._object if kind == "object" else self._array, schema, location)
        if kind == "string" and ("minLength" in schema or "maxLength" in schema):
            return f'"\\"" char{_repeats(schema, "Length", location)} "\\""'
        return _PLAIN[kind]

    def _nest(self, write: Callable[..., str | None], schema: Mapping[str, Any], location: str) -> str | None:
        level = self._level
        if level == 0:
            return None
        self._level = None if level is None else level - 1
        result = write(schema, location)
        self._level = level
        return result

    def _array(self, schema: Mapping[str, Any], location: str) -> str | None:
        least, most = _bounds(schema, "Items", location)
        if most == 0:
            return '"[]"'
        item = self.value(schema.get("items", True), f"{location}/items")
        if item is None:
            return None if least else '"[]"'
        name = self._rule(item)
        rest = f"(gap {name}){{{max(0, least - 1)},{most - 1 if most is not None else ''}}}"
        inside = f"{name} {rest}"
        return f'"[" {inside} "]"' if least else f'"[" ({inside})? "]"'

    def _object(self, schema: Mapping[str, Any], location: str) -> str | None:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        if (
            not isinstance(properties, dict)
            or not isinstance(required, list)
            or not all(isinstance(item, str) for item in required)
        ):
            raise _wrong(location, "properties must be an object, and required a list of names")
        absent = next((name for name in required if name not in properties), None)
        if absent is not None:
            raise _wrong(location, f"required names {json.dumps(absent)}, which properties does not describe")
        if not properties:
            return self._map(schema.get("additionalProperties", True), f"{location}/additionalProperties")
        needed, members = frozenset(required), list[tuple[bool, str]]()
        for name, item in properties.items():
            written = self.value(item, f"{location}/{name}")
            if written is not None:
                start = _quote(json.dumps(name, ensure_ascii=False) + ":")
                members.append((name in needed, f'{start} " "? {written}'))
            elif name in needed:
                return None
        return f'"{{" {self._members(members)} "}}"' if members else '"{}"'

    def _map(self, value: Any, location: str) -> str:
        """Return an object with any names; ``value`` is the schema of the values, or whether other members are allowed."""
        if value is False:
            return '"{}"'
        if value is True or value == {}:
            return "anyobject"
        written = self.value(value, location)
        if written is None:
            return '"{}"'
        member = self._rule(f'string ":" " "? {written}')
        return f'"{{" ({member} (gap {member})*)? "}}"'

    def _members(self, members: list[tuple[bool, str]]) -> str:
        """Return the members in their order, optional ones may be left out; commas are only between two members."""
        first, later = '""', '""'
        for required, member in reversed(members):
            name = self._rule(member)
            then = later if later == '""' else self._rule(later)
            start = f"{name} {then}"
            first = start if required else f"{start} | {first}"
            later = f"gap {start}" if required else f"gap {start} | {then}"
        return self._rule(first)

    def _rule(self, body: str) -> str:
        if body in self._names:
            return self._names[body]
        name = self._name()
        self.rules[name] = body
        if self.recursive:
            self._names[body] = name
        return name

    def _name(self) -> str:
        if len(self.rules) >= self.most_rules:
            raise _too_large(f"its grammar needs more than {self.most_rules} rules")
        return f"r{len(self.rules)}"


def _join_branches(parts: Iterable[str | None], *, brackets: bool) -> str | None:
    """Return the alternatives that have a text; None where none has."""
    branches = [part for part in parts if part is not None]
    if not branches:
        return None
    return "(" + " | ".join(branches) + ")" if brackets else branches[0]


def _refuse_others(schema: Mapping[str, Any], allowed: frozenset[str], location: str) -> None:
    other = next((key for key in schema if key not in allowed and key not in _ANNOTATIONS), None)
    if other is not None:
        raise _wrong(location, f"{other} is not supported here; leave it out and check the answer yourself")


def _target(document: Any, ref: Any, location: str) -> Any:
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise _wrong(location, f"$ref {json.dumps(ref)[:100]} does not point into this schema; write #/ and a path")
    result = document
    for part in ref[2:].split("/") if ref != "#" else []:
        key = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(result, dict) or key not in result:
            raise _wrong(location, f"$ref {ref[:100]} names a part that this schema does not have")
        result = result[key]
    return result


def _bounds(schema: Mapping[str, Any], description: str, location: str) -> tuple[int, int | None]:
    least, most = schema.get(f"min{description}", 0), schema.get(f"max{description}")
    for value in (least, most):
        if value is not None and (type(value) is not int or not 0 <= value <= MOST_REPEATS):
            raise _wrong(
                location,
                f"min{description} and max{description} must be whole numbers from 0 to {MOST_REPEATS}, not {json.dumps(value)[:40]}",
            )
    if most is not None and most < least:
        raise _wrong(location, f"min{description} = {least} is greater than max{description} = {most}")
    return least, most


def _repeats(schema: Mapping[str, Any], description: str, location: str) -> str:
    least, most = _bounds(schema, description, location)
    return f"{{{least},{'' if most is None else most}}}"


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _wrong(location: str, reason: str) -> ApiError:
    return ApiError(f"{PARAM}: {location}: {reason}", param=PARAM)


def _too_large(reason: str) -> _TooLargeError:
    return _TooLargeError(f"{PARAM}: #: the schema is too large: {reason}; shorten it", param=PARAM)
