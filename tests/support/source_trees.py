"""The syntax trees of the package, for tests that read its code: parsed when first asked for, once a process."""

from __future__ import annotations

import ast
import gc
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "tunectl"
FILES = sorted(SOURCE.rglob("*.py"))


@cache
def parse_file(path: Path) -> ast.Module:
    """The tree of one file. Whoever asks must not change it."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def parse_package() -> dict[Path, ast.Module]:
    """Every file of the package, in order.

    No garbage is collected meanwhile, nor looked for in the trees later: with 600,000 nodes that takes longer than parsing.
    """
    gc.disable()
    try:
        trees = {path: parse_file(path) for path in FILES}
    finally:
        gc.enable()
    gc.freeze()
    return trees
