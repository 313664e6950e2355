"""Our grammar of a JSON schema beside xgrammar's own conversion: what each accepts, refuses, ignores, and dies of.

``python benchmarks/bench_grammar.py`` in an environment with xgrammar. Every case runs in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

from tunectl.access.api_errors import ApiError
from tunectl.generation.json_schema_grammar import schema_to_ebnf

SHOP = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "price": {"type": "number"}},
    "required": ["name", "price"],
    "additionalProperties": False,
}
TREE = {"$defs": {"t": {"type": "object", "properties": {"next": {"$ref": "#/$defs/t"}}}}, "$ref": "#/$defs/t"}
ENDLESS = {
    "$defs": {"t": {"type": "object", "properties": {"next": {"$ref": "#/$defs/t"}}, "required": ["next"]}},
    "$ref": "#/$defs/t",
}
DEEP: dict[str, Any] = {"type": "string"}
for _ in range(300):
    DEEP = {"type": "array", "items": DEEP}
CASES: dict[str, tuple[Any, str]] = {
    "an object": (SHOP, '{"name": "a", "price": 1.5}'),
    "a tree": (TREE, '{"next": {"next": {}}}'),
    "1,000 blanks between members": (SHOP, '{"name": "a",' + " " * 1000 + '"price": 1.5}'),
    "500 digits": ({"type": "integer"}, "9" * 500),
    "uniqueItems, broken": ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, "[1, 1]"),
    "not, broken": ({"not": {"type": "string"}}, '"a"'),
    "multipleOf, broken": ({"type": "integer", "multipleOf": 7}, "8"),
    "if and then, broken": ({"type": "integer", "if": {"minimum": 3}, "then": {"maximum": 5}}, "9"),
    "a reference to itself": ({"$ref": "#"}, "1"),
    "a text that never ends": (ENDLESS, "{}"),
    "300 arrays in each other": (DEEP, "[]"),
    "maxLength of a billion": ({"type": "string", "maxLength": 10**9}, '"a"'),
}
"""Name to a schema, and a text: whether the grammar takes it."""


def run_case(side: str, name: str) -> None:
    """Print what one conversion makes of one case."""
    import xgrammar
    from xgrammar.testing import _is_grammar_accept_string

    schema, text = CASES[name]
    sys.setrecursionlimit(20_000)  # of json alone: neither conversion gets there by it
    encoded = json.dumps(schema)
    sys.setrecursionlimit(1000)
    started = time.perf_counter()
    if side == "ours":
        try:
            grammar = xgrammar.Grammar.from_ebnf(schema_to_ebnf(encoded))
        except ApiError as error:
            print(f"refused: {str(error).partition(': ')[2]}")
            return
    else:
        try:
            grammar = xgrammar.Grammar.from_json_schema(encoded)
        except Exception as error:  # noqa: BLE001  whatever it says is the result
            print(f"refused: {type(error).__name__}: {str(error).splitlines()[0][:80]}")
            return
    milliseconds = (time.perf_counter() - started) * 1000
    print(f"{'takes' if _is_grammar_accept_string(grammar, text) else 'does not take'} the text; {milliseconds:.1f} ms")


def main() -> None:
    """Print a table of all cases."""
    for name in CASES:
        for side in ("ours", "xgrammar"):
            words = [sys.executable, __file__, side, name]
            try:
                process = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
            except subprocess.TimeoutExpired:
                print(f"{name:32} {side:9} no answer in 120 s")
                continue
            last = (process.stdout.strip() or process.stderr.strip() or "nothing said").splitlines()[-1]
            print(
                f"{name:32} {side:9} {last if process.returncode == 0 else f'ended with {process.returncode}: {last[:80]}'}"
            )


if __name__ == "__main__":
    run_case(*sys.argv[1:]) if sys.argv[1:] else main()
