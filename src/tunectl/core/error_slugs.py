"""The name of an error in the documentation: the first constant words of its message, as ``tunectl docs`` accepts them.

The generated page docs/reference/errors.md has a heading for each. Both sides read the statement that raises the error, so there is no
table of names to maintain: the page reads all sources, the command line the traceback of the one error that it shows.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

MAX_WORDS = 7
"""Most words of the message in a slug."""
MIN_WORDS = 3
"""A message with fewer constant words has no slug: it is all values."""
PLACEHOLDER = "…"
"""Placeholder for a value in a message that was read from the source."""
_SOURCES = Path(__file__).parents[1]


def find_slug(error: BaseException) -> str | None:
    """Return the slug of a raised error, its heading in docs/reference/errors.md; None where it was not raised in this package or has none."""
    trace = error.__traceback__
    if trace is None:
        return None
    while trace.tb_next is not None:
        trace = trace.tb_next
    path = Path(trace.tb_frame.f_code.co_filename)
    if not path.is_relative_to(_SOURCES):
        return None
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):  # a package without its sources
        return None
    name = type(error).__name__
    return next(
        (slug for line, slug, call in iter_raises(tree) if line == trace.tb_lineno and _name(call) == name), None
    )


def iter_raises(tree: ast.AST) -> Iterator[tuple[int, str, ast.Call]]:
    """Yield (line, slug, call) of each ``raise Error(message, ...)`` whose message has constant words."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args:
            slug = make_slug(read_text(node.exc.args[0]) or "")
            if slug is not None:
                yield node.lineno, slug, node.exc


def make_slug(message: str) -> str | None:
    """Return the slug of a message with placeholders, its first constant words joined by hyphens; None where there are too few."""
    words = re.findall(r"[a-z0-9_]+", message.replace("'", "").lower())[:MAX_WORDS]
    return "-".join(words) if len(words) >= MIN_WORDS else None


def read_text(node: ast.expr) -> str | None:
    """Return the text of a string in a syntax tree, with a placeholder for each value; None for what is not a string."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(read_text(part) or PLACEHOLDER for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (read_text(node.left) or PLACEHOLDER) + (read_text(node.right) or PLACEHOLDER)
    return None


def _name(call: ast.Call) -> str:
    return (
        call.func.id
        if isinstance(call.func, ast.Name)
        else call.func.attr
        if isinstance(call.func, ast.Attribute)
        else ""
    )
