"""Addresses of screens, made from the table of screens: an object without a screen gets no link, so there are no dead links."""

from __future__ import annotations

import re
from functools import cache
from typing import Final
from urllib.parse import quote, urlencode

_VARIABLE: Final = re.compile(r"\{\w*\}")


def link(pattern: str, *values: str, **query: str) -> str:
    """Return the address of a screen, for example ``link("/releases/{}", release)``; empty where the table has no such screen.

    ``query``: the query parameters; empty values are left out.
    """
    if pattern not in _list_patterns() or not all(values):
        return ""
    address = pattern.format(*(quote(value, safe="") for value in values))
    parameters = {name: value for name, value in query.items() if value}
    return f"{address}?{urlencode(parameters)}" if parameters else address


@cache
def _list_patterns() -> frozenset[str]:
    from tunectl.console import act_table, screen_table  # they import the screens, which make links

    paths = (*(screen.path for screen in screen_table.SCREENS), *(act.path for act in act_table.ACTS))
    return frozenset(_VARIABLE.sub("{}", path) for path in paths)
