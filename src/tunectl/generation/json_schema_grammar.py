"""Convert a JSON Schema to a grammar (EBNF of xgrammar and llama.cpp).

Our own conversion, for two reasons. A schema that a library cannot compile can crash the engine for all requests, so unsupported
keywords are refused here. And the grammar limits white space: small models that may write blanks often write nothing else.
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
"""Limit on the rules of a grammar: an engine compiles it while other requests wait, and ``anyOf`` in ``anyOf`` doubles it at each level."""
MOST_LETTERS: Final = 1_000_000
"""Limit on the letters of all expressions and locations, so on the work: references may lead to overlapping parts, and names may be long."""
MOST_REPEATS: Final = 2000
"""Limit on minItems, maxLength and the like: engines expand a repetition into as many states."""
MOST_DEEP: Final = 64
"""Limit on nested schemas, references followed, and on nested arrays and objects in a value without a schema; far below Python's recursion limit."""
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
    """Return a grammar for the JSON texts that fit ``schema``; its rule ``root`` is the whole answer.

    Raises  ApiError with the location of a keyword that is not supported, a broken reference, or endless recursion.
    """
    document = json.loads(schema)
    writer = _Writer(document)
    root = writer.value(document, "#", ())
    _refuse_endless(document, writer.refs)
    own = f"root ::= {root}\n" + "".join(f"{name} ::= {body}\n" for name, body in writer.rules.items())
    return own + _BASE + (_write_free_rules() if "any" in own else "")


def _write_free_rules() -> str:
    """Return the rules of values without a schema, each level by rules of its own: a rule that names itself would nest without end."""
    levels = ["", *map(str, range(2, MOST_DEEP + 1))]
    inners = [*(f"anyvalue{level}" for level in levels[1:]), "anyscalar"]
    return (
        "".join(_FREE.format(level=level, inner=inner) for level, inner in zip(levels, inners, strict=True)) + _SCALAR
    )


@dataclass
class _Writer:
    document: Any
    rules: dict[str, str] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    deep: int = 0
    letters: int = 0

    def value(self, schema: Any, location: str, open_refs: tuple[str, ...]) -> str:
        """Return the expression of one schema; ``open_refs`` are references followed since the last terminal: one of them again is left recursion."""
        if self.deep == MOST_DEEP:
            raise _wrong(location, f"schemas nest deeper than {MOST_DEEP} levels, references included; flatten them")
        self.deep += 1
        self._count(location)
        rule = self._value(schema, location, open_refs)
        self._count(rule)
        self.deep -= 1
        return rule

    def _count(self, text: str) -> None:
        self.letters += len(text)
        if self.letters > MOST_LETTERS:
            raise _wrong(
                "#", f"the schema is too large: its grammar needs more than {MOST_LETTERS} characters; shorten it"
            )

    def _value(self, schema: Any, location: str, open_refs: tuple[str, ...]) -> str:
        if schema is True or schema == {}:
            return "anyvalue"
        if not isinstance(schema, dict):
            raise _wrong(location, f"{schema!r:.40} is not a schema; write an object, or true for any value")
        if "$ref" in schema:
            return self._ref(schema["$ref"], location, open_refs)
        for key in ("const", "enum"):
            if key in schema:
                return self._literals(schema, key, location)
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return self._several(schema, key, location, open_refs)
        return self._write_type(schema, location)

    def _ref(self, ref: Any, location: str, open_refs: tuple[str, ...]) -> str:
        target = _target(self.document, ref, location)
        if ref in open_refs:
            raise _wrong(location, f"$ref {ref} refers to itself")
        if ref not in self.refs:
            name = self.refs[ref] = self._name()
            self.rules[name] = ""  # the rule is in progress: a reference to it from inside is recursion
            self.rules[name] = self.value(target, str(ref), (*open_refs, ref))
        elif not self.rules[self.refs[ref]] and open_refs:
            raise _wrong(location, f"$ref {ref} refers to itself")
        return self.refs[ref]

    def _literals(self, schema: Mapping[str, Any], key: str, location: str) -> str:
        _refuse_others(schema, frozenset({key, "type"}), location)
        values = [schema[key]] if key == "const" else schema[key]
        if not isinstance(values, list) or not values:
            raise _wrong(location, "enum must be a list with at least one value")
        return "(" + " | ".join(_quote(json.dumps(value, ensure_ascii=False)) for value in values) + ")"

    def _several(self, schema: Mapping[str, Any], key: str, location: str, open_refs: tuple[str, ...]) -> str:
        _refuse_others(schema, frozenset({key}), location)
        result = schema[key]
        if not isinstance(result, list) or not result or (key == "allOf" and len(result) > 1):
            raise _wrong(
                location, f"{key} must be a list with {'exactly' if key == 'allOf' else 'at least'} one schema"
            )
        parts = [self.value(item, f"{location}/{key}/{number}", open_refs) for number, item in enumerate(result)]
        return "(" + " | ".join(parts) + ")"

    def _write_type(self, schema: Mapping[str, Any], location: str) -> str:
        kinds = schema.get("type", "object" if "properties" in schema else "array" if "items" in schema else None)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        wrong = [kind for kind in kinds if not isinstance(kind, str) or kind not in _KNOWN]
        if wrong or not kinds:
            raise _wrong(
                location,
                f"type {json.dumps((wrong or [None])[0])[:40]} is not allowed; allowed are {', '.join(_KNOWN)}",
            )
        if len(set(kinds)) < len(kinds):
            raise _wrong(location, f"type lists {max(kinds, key=kinds.count)} more than once")
        _refuse_others(schema, frozenset({"type"}).union(*(_KNOWN[kind] for kind in kinds)), location)
        parts = [self._kind(kind, schema, location) for kind in kinds]
        return parts[0] if len(parts) == 1 else "(" + " | ".join(parts) + ")"

    def _kind(self, kind: str, schema: Mapping[str, Any], location: str) -> str:
        if kind == "object":
            return self._object(schema, location)
        if kind == "array":
            return self._array(schema, location)
        if kind == "string" and ("minLength" in schema or "maxLength" in schema):
            return f'"\\"" char{_repeats(schema, "Length", location)} "\\""'
        return _PLAIN[kind]

    def _array(self, schema: Mapping[str, Any], location: str) -> str:
        least, most = _bounds(schema, "Items", location)
        if most == 0:
            return '"[]"'
        name = self._rule(self.value(schema.get("items", True), f"{location}/items", ()))
        rest = f"(gap {name}){{{max(0, least - 1)},{most - 1 if most is not None else ''}}}"
        inside = f"{name} {rest}"
        return f'"[" {inside} "]"' if least else f'"[" ({inside})? "]"'

    def _object(self, schema: Mapping[str, Any], location: str) -> str:
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
        needed = frozenset(required)
        members = [
            (
                name in needed,
                f'{_quote(json.dumps(name, ensure_ascii=False) + ":")} " "? {self.value(item, f"{location}/{name}", ())}',
            )
            for name, item in properties.items()
        ]
        return f'"{{" {self._members(members)} "}}"'

    def _map(self, value: Any, location: str) -> str:
        """Return an object with any names; ``value`` is the schema of the values, or whether other members are allowed."""
        if value is False:
            return '"{}"'
        if value is True or value == {}:
            return "anyobject"
        member = self._rule(f'string ":" " "? {self.value(value, location, ())}')
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
        name = self._name()
        self.rules[name] = body
        return name

    def _name(self) -> str:
        if len(self.rules) >= MOST_RULES:
            raise _wrong("#", f"the schema is too large: its grammar needs more than {MOST_RULES} rules; shorten it")
        return f"r{len(self.rules)}"


def _refuse_others(schema: Mapping[str, Any], allowed: frozenset[str], location: str) -> None:
    other = next((key for key in schema if key not in allowed and key not in _ANNOTATIONS), None)
    if other is not None:
        raise _wrong(location, f"{other} is not supported here; leave it out and check the answer yourself")


def _target(document: Any, ref: Any, location: str) -> Any:
    if not isinstance(ref, str) or not (ref == "#" or ref.startswith("#/")):
        raise _wrong(
            location, f"$ref {json.dumps(ref)[:100]} does not point into this schema; write #/ and a path in it"
        )
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


@dataclass
class _TerminationChecker:
    """Find the references whose text can end, as a least fixed point. A reference is checked again only when one that it depends on is found to end."""

    terminating: set[str] = field(default_factory=set)
    waiting: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def ends(self, schema: Any, asker: str) -> bool:
        """Return whether some text of a schema is known to end; ``asker`` is the reference that is checked again later."""
        if not isinstance(schema, dict):
            return True
        if "$ref" in schema:
            ref: str = schema["$ref"]
            if ref not in self.terminating:
                self.waiting[ref].append(asker)
            return ref in self.terminating
        for key in ("anyOf", "oneOf", "allOf"):
            if key in schema:
                return any(self.ends(item, asker) for item in schema[key])
        kinds = schema.get("type")
        return (isinstance(kinds, list) and len(kinds) > 1) or all(
            self.ends(part, asker) for part in _list_required_schemas(schema)
        )

    def follow(self, document: Any, refs: Iterable[str]) -> None:
        """Compute the fixed point over all of ``refs``."""
        todo = list(refs)
        while todo:
            ref = todo.pop()
            if ref not in self.terminating and self.ends(_target(document, ref, "#"), ref):
                self.terminating.add(ref)
                todo += self.waiting.pop(ref, ())


def _list_required_schemas(schema: Mapping[str, Any]) -> list[Any]:
    """List the schemas of the parts that every text of a schema contains."""
    required = frozenset(schema.get("required", ()))
    result = [item for name, item in schema.get("properties", {}).items() if name in required]
    return [*result, schema["items"]] if schema.get("minItems", 0) and "items" in schema else result


def _refuse_endless(document: Any, refs: Iterable[str]) -> None:
    """Refuse a schema whose every text would be infinite, such as an object that requires itself."""
    finite = _TerminationChecker()
    finite.follow(document, refs)
    if not finite.ends(document, "#"):
        raise _wrong(
            "#",
            "the schema requires itself, so no finite answer fits it; make a property optional, or allow another type",
        )


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _wrong(location: str, reason: str) -> ApiError:
    return ApiError(f"{PARAM}: {location}: {reason}", param=PARAM)
