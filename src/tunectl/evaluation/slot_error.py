"""Slot error rate: which attributes of an input an answer gets right, misses, gets wrong, or adds.

The slot error rate is (missing + wrong) / attributes, over all answers of a system. Rules are declared patterns
(``config.schema.slot_error``); nothing here is trained, and no reward sees it. After the slot error rate of Wen et al., "Semantically
Conditioned LSTM-based Natural Language Generation", EMNLP 2015, and the pattern scripts of the E2E challenge (Dušek, Novikova,
Rieser, "Evaluating the state-of-the-art of end-to-end natural language generation", Computer Speech & Language 59, 2020), but
added attributes are counted separately: people add true things.

How an answer is read:
- It is normalized: lower case, no accents and apostrophes, a blank for a hyphen, one sign for a pound.
- Verbatim values of the input are found first and then blanked out, so that no word of a name is read as an attribute.
- A match counts for whole words only, and not inside a longer match of another value of the same attribute: in "not
  family friendly" the value "family friendly" is not stated.
- right: some match states the value. wrong: none does, but one states another value of the attribute. missing: neither.
- added: matches that state a value the input does not have, outside those that state one it has.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunectl.config.schema.slot_error import PatternSlot, SlotErrorRules, VerbatimSlot
from tunectl.core import unicode_form
from tunectl.core.declared_pattern import DeclaredPattern
from tunectl.evaluation.items import Item

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MOJIBAKE = re.compile("\u00c2\u00a3|\u00ef\u00bf\u00bd|\ufffd")
_POUND = re.compile("(?:gbp|£) ?")
_APOSTROPHES = re.compile("['\u2018\u2019\u02bc`\u00b4]")
_BLANKS = re.compile('[-\u2010-\u2015\u2212/:;()*"\u201c\u201d\u201e\u00ab\u00bb]')
_BLANKED = "_"
_DECOY = ""

SlotPairs = tuple[tuple[str, str], ...]
"""Attributes and their values."""


@dataclass(frozen=True, slots=True)
class SlotMatch:
    """The attributes of one input that its answer states right, misses, gets wrong or adds."""

    right: SlotPairs
    missing: SlotPairs
    wrong: tuple[tuple[str, str, str], ...]
    """Attribute, its value, the value that was stated instead."""
    added: SlotPairs

    @property
    def errors(self) -> int:
        """Number of missing and wrong attributes."""
        return len(self.missing) + len(self.wrong)

    @property
    def attributes(self) -> int:
        """Number of attributes of the input that were checked."""
        return len(self.right) + self.errors


@dataclass(frozen=True, slots=True)
class _Match:
    value: str
    start: int
    end: int

    def inside(self, other: _Match) -> bool:
        """Return whether this match is inside a longer one."""
        return other.start <= self.start and self.end <= other.end and other.end - other.start > self.end - self.start

    def overlaps(self, other: _Match) -> bool:
        """Return whether the two share a character."""
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class SlotMatcher:
    """Compiled patterns of ``evaluate.slot_error``: for each attribute, which texts state which value."""

    cfg: SlotErrorRules
    patterns: Mapping[str, Mapping[str, DeclaredPattern]]
    """Patterns that state a value, by attribute and value."""
    loose: Mapping[str, Mapping[str, DeclaredPattern]]
    """The same for verbatim values without their optional words; used for the input's own values."""

    def attributes(self, item: Item) -> SlotPairs:
        """Return the attribute values in the input of ``item`` that the rules name; see ``input_slots``."""
        return input_slots(self.cfg, item)

    def find(self, pairs: SlotPairs, answer: str) -> SlotMatch:
        """Return which of the input's attributes ``pairs`` the answer states right, misses or gets wrong, and what it adds."""
        text = normalize(answer)
        matches: dict[str, list[_Match]] = {name: [] for name in self.cfg.attributes}
        for name, value in pairs:
            if name in self.loose:
                pattern = self.loose[name].get(value) or _verbatim(value, self._optional(name))
                result = [_Match(value, match.start(), match.end()) for match in pattern.find_all(text)]
                matches[name] += result
                for item in result:
                    text = text[: item.start] + _BLANKED * (item.end - item.start) + text[item.end :]
        own = dict(pairs)
        for name, values in self.patterns.items():
            matches[name] += self._find_matches(values, own.get(name), text, verbatim=name in self.loose)
        return _verdict(pairs, matches)

    def _find_matches(
        self, values: Mapping[str, DeclaredPattern], own: str | None, text: str, *, verbatim: bool
    ) -> list[_Match]:
        accepted = values if own is None or own in values or verbatim else {**values, own: _verbatim(own, ())}
        every = [
            _Match(value, m.start(), m.end()) for value, pattern in accepted.items() for m in pattern.find_all(text)
        ]
        counted = [
            item for item in every if not any(item.inside(other) and item.value != other.value for other in every)
        ]
        return [item for item in counted if item.value != _DECOY]

    def _optional(self, name: str) -> tuple[str, ...]:
        slot = self.cfg.attributes[name]
        return slot.optional if isinstance(slot, VerbatimSlot) else ()


def build_slot_matcher(cfg: SlotErrorRules, items: Iterable[Item]) -> SlotMatcher:
    """Return the declared rules, compiled; verbatim attributes take their other values from ``items``."""
    values: dict[str, dict[str, None]] = {name: {} for name in cfg.attributes}
    for item in items:
        for name, value in input_slots(cfg, item):
            values[name][value] = None
    exact: dict[str, dict[str, DeclaredPattern]] = {}
    loose: dict[str, dict[str, DeclaredPattern]] = {}
    for name, slot in cfg.attributes.items():
        if isinstance(slot, PatternSlot):
            exact[name] = {
                value: _words("|".join(f"(?:{cfg.expand_terms(pattern)})" for pattern in patterns))
                for value, patterns in [*slot.values.items(), (_DECOY, slot.decoys)]
                if patterns
            }
        else:
            exact[name] = {value: _verbatim(value, ()) for value in values[name]}
            loose[name] = {value: _verbatim(value, slot.optional) for value in values[name]}
    return SlotMatcher(cfg, exact, loose)


def input_slots(cfg: SlotErrorRules, item: Item) -> SlotPairs:
    """Return (attribute, value) of an input for those attributes that the rules name, in its order; an empty value is left out."""
    if cfg.parse == "fields":
        result: Iterable[tuple[str, str]] = item.fields.items()
    else:
        names = "|".join(re.escape(name) for name in sorted(cfg.attributes, key=len, reverse=True))
        closed = item.question[
            : item.question.rfind("]") + 1
        ]  # behind the last one, each bracket would be followed to the end
        result = re.findall(rf"(?<!\w)({names})\s*\[([^\]]*)\]", closed)
    unique = {name: value.strip() for name, value in result if value.strip() and name in cfg.attributes}
    return tuple(unique.items())


def normalize(text: str) -> str:
    """Return the text in lower case without accents and apostrophes, blanks for hyphens, slashes and line ends, ``£`` for every pound sign."""
    text = unicode_form.normalize("NFKD", _APOSTROPHES.sub("", _MOJIBAKE.sub("£", text)))
    text = unicode_form.normalize("NFKD", text.casefold())
    text = "".join(letter for letter in text if not unicodedata.combining(letter))
    return _POUND.sub("£", " ".join(_BLANKS.sub(" ", _APOSTROPHES.sub("", text)).split()))


def compute_slot_statistics(
    rules_: SlotMatcher, items: Sequence[Item], answers: Sequence[str]
) -> dict[str, NDArray[Any]]:
    """Return statistics for ``metrics``: ``slot_error`` (errors, attributes) and ``slot_added`` (added, 1), one row per answer.

    ``answers`` has one text per item, in the order of ``items``.
    """
    import numpy as np

    match = match_answers(rules_, items, answers)
    return {
        "slot_error": np.asarray([(item.errors, item.attributes) for item in match], dtype=np.float64).reshape(-1, 2),
        "slot_added": np.asarray([(len(item.added), 1) for item in match], dtype=np.float64).reshape(-1, 2),
    }


def match_answers(rules_: SlotMatcher, items: Sequence[Item], answers: Sequence[str]) -> list[SlotMatch]:
    """Return the matched attributes of each answer and its input; ``answers`` has one text per item, in the order of ``items``."""
    return [rules_.find(rules_.attributes(item), text) for item, text in zip(items, answers, strict=True)]


def _verdict(pairs: SlotPairs, matches: Mapping[str, Sequence[_Match]]) -> SlotMatch:
    right, missing, wrong, added = [], [], [], []
    own = dict(pairs)
    for name, value in pairs:
        found_values = matches[name]
        if any(item.value == value for item in found_values):
            right.append((name, value))
        elif found_values:
            wrong.append((name, value, found_values[0].value))
        else:
            missing.append((name, value))
    for name, found_values in matches.items():
        own_matches = [item for item in found_values if item.value == own.get(name)]
        others = [
            item for item in found_values if item.value != own.get(name) and not any(map(item.overlaps, own_matches))
        ]
        spans = {
            (match.start, match.end): match.value for match in reversed(others)
        }  # two values of one wording count once
        if name not in own or own_matches:  # a wrong value is counted as wrong already
            added += [(name, value) for value in dict.fromkeys(spans.values())]
    return SlotMatch(tuple(right), tuple(missing), tuple(wrong), tuple(added))


def _verbatim(value: str, optional: Sequence[str]) -> DeclaredPattern:
    """Return a pattern for the value itself, with an optional plural or possessive s; leading ``optional`` words may be missing."""
    words = normalize(value).split()
    if not words:
        return DeclaredPattern("(?!)")
    start = ""
    while len(words) > 1 and words[0] in optional:
        start += f"(?:{re.escape(words.pop(0))} )?"
    return _words(start + " ".join(map(re.escape, words)) + "s?")


def _words(pattern: str) -> DeclaredPattern:
    return DeclaredPattern(rf"(?<!\w)(?:{pattern})(?!\w)")
