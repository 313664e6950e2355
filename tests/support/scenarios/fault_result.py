"""What a fault test found, held against its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Found:
    """One scenario's figures and everything that was not as it should be."""

    number: int
    """As in the list of fault tests."""
    name: str
    target: str
    figures: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """Promises that were broken, whatever the machine is busy with."""
    slow: list[str] = field(default_factory=list)
    """Times that were missed; on a busy machine that says little."""

    @property
    def held(self) -> bool:
        """Whether the target is met."""
        return not self.wrong and not self.slow

    def must(self, holds: bool, otherwise: str) -> None:
        """Note a broken promise; the first twenty are kept."""
        if not holds and len(self.wrong) < 20:
            self.wrong.append(otherwise)

    def within(self, name: str, value: float, most: float) -> None:
        """Note a figure that must not be above ``most``."""
        self.figures[name] = round(value, 4)
        if value > most:
            self.slow.append(f"{name} is {value:.4g}, at most {most:.4g}")


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share lies; 0.0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
