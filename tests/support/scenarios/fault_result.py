"""The result of a fault test, compared with its target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass
class FaultResult:
    """Figures and failures of one scenario."""

    number: int
    """Number in the list of fault tests."""
    name: str
    target: str
    figures: dict[str, Any] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    """Failed requirements, independent of the load of the machine."""
    slow: list[str] = field(default_factory=list)
    """Exceeded times; only meaningful on a quiet machine."""

    @property
    def held(self) -> bool:
        """Whether the target is met."""
        return not self.wrong and not self.slow

    def require(self, holds: bool, message: str) -> None:
        """Record a failed requirement; the first twenty are kept."""
        if not holds and len(self.wrong) < 20:
            self.wrong.append(message)

    def require_at_most(self, name: str, value: float, most: float) -> None:
        """Record a figure, and a failure if it is above ``most``."""
        self.figures[name] = round(value, 4)
        if value > most:
            self.slow.append(f"{name} is {value:.4g}, at most {most:.4g}")


def quantile(values: Sequence[float], share: float) -> float:
    """Return the quantile of ``values``; 0.0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
