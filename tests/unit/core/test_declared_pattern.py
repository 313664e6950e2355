"""Patterns of the configuration on texts of strangers: found as ever, and ended where they take too long."""

from __future__ import annotations

import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from tunectl.config.schema.curate import Quality
from tunectl.config.schema.evaluate import FactsCheck, RegexCheck
from tunectl.config.schema.simulated_annotator import PatternCriterion
from tunectl.config.schema.slot_error import SlotErrorRules
from tunectl.core.declared_pattern import DeclaredPattern
from tunectl.core.errors import ConfigError
from tunectl.data.filters import quality
from tunectl.evaluation import declared_checks, safety, slot_error
from tunectl.preferences import simulated_annotator

HOSTILE, TEXT = r"(?:a(?!c)|a)+$", "a" * 60 + "b"
NO_FACTS: dict[str, Any] = {"fields": (), "ignore_case": False}


def score_check() -> object:
    check = RegexCheck(method="regex", name="c", pattern=HOSTILE, expect="present")
    return declared_checks.score(check, TEXT, "", {}, lambda *_: False)


def score_facts() -> object:
    check = FactsCheck(method="facts", name="c", pattern=HOSTILE, **NO_FACTS)
    return declared_checks.score(check, "", TEXT, {}, lambda *_: False)


def annotate() -> object:
    criterion = PatternCriterion(method="pattern", name="c", weight=1, pattern=HOSTILE, min_matches=1, max_matches=None)
    return simulated_annotator.score([criterion], TEXT, "", {})


def match_slots() -> object:
    slot = {"method": "patterns", "values": {"x": (HOSTILE,)}, "decoys": ()}
    rules = SlotErrorRules.model_validate({"parse": "bracketed", "terms": {}, "attributes": {"name": slot}})
    return slot_error.build_slot_matcher(rules, []).find((("name", "x"),), TEXT)


def curate() -> object:
    return quality.any_of([HOSTILE]).search(TEXT)


def find_leaks() -> object:
    item: Any = SimpleNamespace(messages=[])
    return safety.leaks_placeholder(HOSTILE, item, TEXT)


@pytest.mark.parametrize("act", [score_check, score_facts, annotate, match_slots, curate, find_leaks])
def test_a_pattern_that_backtracks_without_end_is_an_error_within_a_second(act: Any) -> None:
    begun = time.process_time()
    with pytest.raises(ConfigError) as caught:
        act()
    assert "took more than 1 s on 61 characters" in str(caught.value)
    assert time.process_time() - begun < 3


def test_the_usual_example_ends() -> None:
    begun = time.process_time()
    assert DeclaredPattern(r"(a+)+$").search("a" * 40 + "b") is None
    assert time.process_time() - begun < 1


def list_bundled() -> list[str]:
    """Every pattern that the project's own configuration declares."""
    rules = SlotErrorRules.model_validate(yaml.safe_load(Path("conf/evaluate/e2e.yaml").read_text())["slots"])
    found = [
        rules.whole(one)
        for slot in rules.attributes.values()
        for patterns in getattr(slot, "values", {}).values()
        for one in patterns
    ]
    curated = yaml.safe_load(Path("conf/curate/default.yaml").read_text())["quality"]
    found += [*curated["boilerplate"]["phrases"], *curated["placeholder_text"], *(curated["control_tokens"] or [])]
    for path in sorted(Path("conf").rglob("*.yaml")):
        found += re.findall(r"pattern: (?:&\w+ )?'([^'\n]+)'", path.read_text())
    return found


def test_the_bundled_patterns_find_what_re_finds() -> None:
    patterns = list_bundled()
    assert len(patterns) > 40
    assert Quality.model_fields["boilerplate"]
    texts = [path.read_text() for path in sorted(Path("docs/concepts").glob("*.md"))]
    lines = Path("examples/local_lens/data/campaigns.jsonl").read_text().splitlines()
    for text in [
        *texts,
        *lines[:100],
        "a low priced pub, Phone: 3, Inman Park.",
        "Lorem ipsum [NAME] £20-25, family-friendly",
    ]:
        for pattern in patterns:
            for flags in (0, re.IGNORECASE):
                expected = [match.span() for match in re.finditer(pattern, text, flags)]
                found = DeclaredPattern(pattern, ignore_case=bool(flags)).find_all(text)
                assert [match.span() for match in found] == expected, pattern
