"""Which series an expression of PromQL names, and with what matchers. By words, not by grammar: enough for rules and boards of our own."""

from __future__ import annotations

import re

WORDS = {"and", "or", "unless", "bool", "offset", "by", "on", "without", "ignoring", "group_left", "group_right"}
_MATCHERS = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"')
_NAME = re.compile(r"[a-zA-Z_][\w:]*")


def selectors(expr: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each series name with its matchers: label, operator, value."""
    found: list[tuple[str, list[tuple[str, str, str]]]] = []
    rest = expr.replace("$__rate_interval", "5m").replace("$__interval", "5m")
    rest = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", rest)
    rest = re.sub(r"\[[^\]]*\]", " ", rest)
    place = 0
    while match := _NAME.search(rest, place):
        name, place = match[0], match.end()
        after = rest[place:].lstrip()
        if name in WORDS or after.startswith("(") or rest[match.start() - 1 : match.start()].isdigit():
            continue
        matchers: list[tuple[str, str, str]] = []
        if after.startswith("{"):
            inside = after[1 : after.index("}")]
            matchers = _MATCHERS.findall(inside)
            place = rest.index("}", place) + 1
        found.append((name, matchers))
    return found


def ranges(expr: str) -> list[str]:
    """The spans in square brackets."""
    return re.findall(r"\[([^\]]+)\]", expr)
