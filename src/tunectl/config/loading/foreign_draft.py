"""What an import collects: settings of ours, and what has no counterpart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

EFFECT, NONE, TOOL = "changes the result", "no effect on the result", "unknown to tunectl"
"""How much a setting without a counterpart matters."""


@dataclass(frozen=True, slots=True)
class UnsupportedKey:
    """A setting that could not be carried over."""

    key: str
    value: Any
    matters: str
    """One of ``EFFECT``, ``NONE``, ``TOOL``."""
    reason: str


@dataclass(slots=True)
class ImportedConfig:
    """What an import has collected so far."""

    given: Mapping[str, Any]
    """The other tool's file."""
    groups: dict[str, str] = field(default_factory=dict)
    """Group to file, for example ``sft: dora``."""
    values: dict[str, Any] = field(default_factory=dict)
    """Dotted setting to value."""
    notes: dict[str, str] = field(default_factory=dict)
    """Dotted setting to a comment."""
    sources: dict[str, str] = field(default_factory=dict)
    """Name of a source to what it starts from: ``files`` or ``hub``."""
    dropped: list[UnsupportedKey] = field(default_factory=list)

    def set(self, name: str, value: Any, note: str = "") -> None:
        """Give one of our settings a value; ``note`` becomes a comment beside it."""
        self.values[name] = value
        if note:
            self.notes[name] = note

    def drop(self, key: str, reason: str, matters: str = EFFECT) -> None:
        """List one of their settings as having no counterpart."""
        self.dropped.append(UnsupportedKey(key, self.given.get(key), matters, reason))
