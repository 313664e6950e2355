"""Declared checks."""

import pytest

from tunectl.backends.text import json_validation
from tunectl.config.schema.evaluate import FactsCheck, RegexCheck, SchemaCheck
from tunectl.evaluation import declared_checks


def score(check, answer, question="", fields=None):
    return declared_checks.score(check, answer, question, fields or {}, json_validation.valid)


def test_patterns_that_must_and_must_not_match():
    must = RegexCheck(method="regex", name="call", pattern=r"\bcall us\b", expect="present")
    never = RegexCheck(method="regex", name="no_links", pattern="https?://", expect="absent")
    assert score(must, "Please call us now") == 1
    assert score(must, "Please write") == 0
    assert score(never, "no link") == 1
    assert score(never, "see http://x") == 0


def test_json_of_a_shape():
    shape = SchemaCheck(method="json_schema", name="shape", document={"type": "object", "required": ["title"]})
    assert score(shape, '{"title": "x"}') == 1
    assert score(shape, '{"text": "x"}') == 0
    assert score(shape, "title: x") == 0


def test_facts_by_pattern_and_field():
    facts = FactsCheck(method="facts", name="facts", fields=("area",), pattern=r"\w+\[([^\]]+)\]", ignore_case=True)
    question = "name[The Eagle], food[French]"
    assert declared_checks.collect_expected_facts(facts, question, {"area": "riverside"}) == [
        "riverside",
        "The Eagle",
        "French",
    ]
    answer = "the eagle serves French food"
    assert score(facts, answer, question, {"area": "riverside"}) == pytest.approx(2 / 3)


def test_case_counts_where_declared():
    facts = FactsCheck(method="facts", name="facts", fields=("area",), pattern=None, ignore_case=False)
    assert score(facts, "in inman park", fields={"area": "Inman Park"}) == 0


def test_no_fact_means_the_check_does_not_apply():
    facts = FactsCheck(method="facts", name="facts", fields=("area",), pattern=None, ignore_case=False)
    assert score(facts, "anything", fields={"area": "  "}) is None


def test_a_whole_match_is_a_fact_where_the_pattern_has_no_group():
    facts = FactsCheck(method="facts", name="facts", fields=(), pattern=r"\d+", ignore_case=False)
    assert declared_checks.collect_expected_facts(facts, "from 9 to 17 and 9", {}) == ["9", "17"]
