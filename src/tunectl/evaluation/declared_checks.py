"""Declared checks of an answer: patterns, JSON shape, and facts of the input that it must contain."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tunectl.config.schema.evaluate import Check, FactsCheck, RegexCheck, SchemaCheck
from tunectl.core.declared_pattern import DeclaredPattern

Valid = Callable[[str, Mapping[str, object]], bool]
"""Returns whether a text is JSON that a schema accepts; implemented by the json_validation backend."""


def score(check: Check, answer: str, question: str, fields: Mapping[str, str], valid: Valid) -> float | None:
    """Return how far ``answer`` to ``question`` passes, 0 to 1; None where the check does not apply, because the input has no facts.

    ``fields`` are the input's attributes; ``valid`` tells whether a JSON value conforms to a JSON schema.
    """
    if isinstance(check, RegexCheck):
        result = DeclaredPattern(check.pattern).search(answer) is not None
        return float(result == (check.expect == "present"))
    if isinstance(check, SchemaCheck):
        return float(valid(answer, check.document))
    expected = collect_expected_facts(check, question, fields)
    if not expected:
        return None
    text = answer.casefold() if check.ignore_case else answer
    return sum(_plain(fact, fold=check.ignore_case) in text for fact in expected) / len(expected)


def collect_expected_facts(check: FactsCheck, question: str, fields: Mapping[str, str]) -> Sequence[str]:
    """Return the texts that the answer must contain: values of the declared fields, and matches of the pattern in the input."""
    result = [fields[name] for name in check.fields if fields.get(name, "").strip()]
    if check.pattern is not None:
        matches = DeclaredPattern(check.pattern).find_all(question)
        result += [match.group(1) if match.re.groups else match.group(0) for match in matches]
    return list(dict.fromkeys(fact.strip() for fact in result if fact and fact.strip()))


def _plain(text: str, *, fold: bool) -> str:
    return text.casefold() if fold else text
