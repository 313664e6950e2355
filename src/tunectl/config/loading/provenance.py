"""Where each value was set: the file and line, or the override."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunectl.core.url_credentials import hide_credentials

KeyPath = tuple[str | int, ...]
"""Path of a key in the tree, for example ``("ingest", "sources", 0, "path")``."""


@dataclass(frozen=True, slots=True)
class ValueOrigin:
    """Place where a value was set: file and line, or an override."""

    file: str = ""
    """Relative to the project; empty for an override."""
    line: int = 0
    """From 1; 0 for the file as a whole."""
    override: str = ""
    """As typed, for example ``sft.lora_rank=32``."""

    def __str__(self) -> str:
        if self.override and not self.file:
            return f"override {self.override}"
        return f"{self.file}:{self.line}" if self.line else self.file


@dataclass(slots=True)
class Provenance:
    """Origin of every key of a composed tree; a later file or override replaces the origin of what it sets."""

    by_path: dict[KeyPath, ValueOrigin] = field(default_factory=dict)

    def set(self, path: KeyPath, value: Any, origin: ValueOrigin) -> None:
        """Record that ``origin`` set ``value`` at ``path``; everything below a value that is not a mapping has the same origin."""
        if not isinstance(value, Mapping):
            self._forget(path)
        self.by_path[path] = origin
        for key, inner in _children(value):
            self.set((*path, key), inner, origin)

    def merge(self, path: KeyPath, nodes: Mapping[KeyPath, tuple[Any, ValueOrigin]]) -> None:
        """Record the keys of one file below ``path``; ``nodes`` maps key path to (value, origin), parents first."""
        for below, (value, origin) in nodes.items():
            if not isinstance(value, Mapping):
                self._forget((*path, *below))
            self.by_path[(*path, *below)] = origin

    def find(self, path: Sequence[str | int]) -> ValueOrigin | None:
        """Return the origin of ``path``, or of the nearest section above it; None where none is recorded."""
        for length in range(len(path), 0, -1):
            origin = self.by_path.get(tuple(path[:length]))
            if origin is not None:
                return origin
        return None

    def file_of(self, path: Sequence[str | int]) -> str:
        """Return the file that sets most keys of the section at ``path``, for a message about a missing key; empty where none does."""
        files = [origin.file for below, origin in self.by_path.items() if below[: len(path)] == tuple(path)]
        named = [file for file in files if file]
        return max(set(named), key=named.count) if named else ""

    def _forget(self, path: KeyPath) -> None:
        for below in [other for other in self.by_path if other[: len(path)] == path and other != path]:
            del self.by_path[below]


def to_dotted_key(path: Sequence[str | int]) -> str:
    """Return a key path as text, as in overrides: ``ingest.sources.0.path``."""
    return ".".join(str(part) for part in path)


def format_value(value: Any) -> str:
    """Return a value as messages show it: JSON, so that text and numbers differ, without credentials of addresses, cut at 80 characters."""
    text = hide_credentials(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 80 else text[:79] + "…"


def iter_leaves(tree: Any, path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    """Yield (key path, value) of every value of a tree that is not a filled mapping or list."""
    below = list(_children(tree))
    if not below:
        yield path, tree
    for key, inner in below:
        yield from iter_leaves(inner, (*path, key))


def key_lines(file: Path, name: str) -> dict[KeyPath, tuple[Any, ValueOrigin]]:
    """Return (value, origin with line) by key path for every key of a YAML file, parents before children.

    ``name`` is the file's name in messages. Raises  yaml.YAMLError for a file that is not YAML.
    """
    import yaml

    with file.open(encoding="utf-8") as stream:
        root = yaml.compose(stream, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    result: dict[KeyPath, tuple[Any, ValueOrigin]] = {}
    if root is not None:
        _visit(root, (), name, result)
    return result


def comment_above(file: Path, line: int) -> str:
    """Return the block of comment lines right above ``line`` (from 1), joined into one text; empty where there is none."""
    rows = file.read_text(encoding="utf-8").splitlines()[: line - 1]
    block: list[str] = []
    while rows and rows[-1].lstrip().startswith("#"):
        block.insert(0, rows.pop().strip().lstrip("#").strip())
    return " ".join(block)


def _children(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _visit(node: Any, path: KeyPath, name: str, result: dict[KeyPath, tuple[Any, ValueOrigin]]) -> None:
    import yaml

    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below = (*path, key.value)
            result[below] = (_plain(value), ValueOrigin(name, key.start_mark.line + 1))
            _visit(value, below, name, result)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            below = (*path, index)
            result[below] = (_plain(value), ValueOrigin(name, value.start_mark.line + 1))
            _visit(value, below, name, result)


def _plain(node: Any) -> Any:
    """Return only what ``Provenance`` needs: a mapping, a list, or the text of a scalar."""
    import yaml

    if isinstance(node, yaml.MappingNode):
        return {key.value: None for key, _ in node.value}
    return [] if isinstance(node, yaml.SequenceNode) else node.value
