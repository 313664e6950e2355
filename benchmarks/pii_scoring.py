"""Evaluate the detection of personal data, on texts in which it is marked, as in ``Call ⟦phone:404-555-0123⟧ now``."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from tunectl.privacy.spans import EntityType, PiiSpan

_MARK = re.compile(r"⟦(\w+):([^⟧]*)⟧")


@dataclass(frozen=True, slots=True)
class LabeledText:
    """A text, and the spans of its personal data."""

    text: str
    spans: tuple[tuple[EntityType, int, int], ...]


@dataclass(frozen=True, slots=True)
class EntityScore:
    """Scores of one kind. A marked value counts as found when all of it is masked, as any kind."""

    planted: int
    found: int
    """Marked values that were masked completely."""
    reported: int
    right: int
    """Reported spans that overlap a marked value of the same kind."""

    @property
    def recall(self) -> float:
        """Share of the marked values that were masked, 0 to 1; 1 where there are none."""
        return self.found / self.planted if self.planted else 1.0

    @property
    def precision(self) -> float:
        """Share of the reported spans that are right, 0 to 1; 1 where none was reported."""
        return self.right / self.reported if self.reported else 1.0


def parse(line: str) -> LabeledText:
    """Return a text without its marks, and the marked spans."""
    text, end = "", 0
    spans: list[tuple[EntityType, int, int]] = []
    for match in _MARK.finditer(line):
        text += line[end : match.start()]
        spans.append((cast("EntityType", match[1]), len(text), len(text) + len(match[2])))
        text += match[2]
        end = match.end()
    return LabeledText(text + line[end:], tuple(spans))


def score(find: Callable[[str], list[PiiSpan]], planted: Iterable[LabeledText]) -> Mapping[EntityType, EntityScore]:
    """Return recall and precision of ``find`` by kind."""
    counts: dict[str, Counter[EntityType]] = {name: Counter() for name in ("planted", "found", "reported", "right")}
    for item in planted:
        reported = find(item.text)
        masked = {index for result in reported for index in range(result.start, result.end)}
        for kind, start, end in item.spans:
            counts["planted"][kind] += 1
            counts["found"][kind] += masked.issuperset(
                index for index in range(start, end) if item.text[index].isalnum()
            )
        for result in reported:
            counts["reported"][result.kind] += 1
            counts["right"][result.kind] += any(
                kind == result.kind and start < result.end and result.start < end for kind, start, end in item.spans
            )
    kinds = sorted({kind for counter in counts.values() for kind in counter})
    return {
        kind: EntityScore(*(counts[name][kind] for name in ("planted", "found", "reported", "right"))) for kind in kinds
    }
