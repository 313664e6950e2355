"""Addresses of screens, made from the table: what has no screen has no link, so no page leads nowhere."""

from __future__ import annotations

import re
from functools import cache
from typing import Final
from urllib.parse import quote, urlencode

_VARIABLE: Final = re.compile(r"\{\w*\}")


def link(pattern: str, *values: str, **query: str) -> str:
    """Return the address of a screen, for example ``link("/releases/{}", release)``; empty where there is no such screen.

    ``query``: what stands behind the question mark; empty values are left out.
    """
    if pattern not in _list_patterns() or not all(values):
        return ""
    address = pattern.format(*(quote(value, safe="") for value in values))
    given = {name: value for name, value in query.items() if value}
    return f"{address}?{urlencode(given)}" if given else address


@cache
def _list_patterns() -> frozenset[str]:
    from tunectl.console import act_table, screen_table  # they import the screens, which make links

    paths = (*(screen.path for screen in screen_table.SCREENS), *(act.path for act in act_table.ACTS))
    return frozenset(_VARIABLE.sub("{}", path) for path in paths)
