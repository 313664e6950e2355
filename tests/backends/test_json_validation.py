"""JSON checks by jsonschema."""

import pytest

from tunectl.backends.text import json_validation
from tunectl.core.errors import ConfigError

pytest.importorskip("jsonschema")


def test_text_that_is_and_is_not_of_the_shape():
    document = {"type": "object", "required": ["a"], "properties": {"a": {"type": "integer"}}}
    assert json_validation.valid('{"a": 1}', document)
    assert not json_validation.valid('{"a": "1"}', document)
    assert not json_validation.valid("no json", document)


@pytest.mark.parametrize("text", ["NaN", "[Infinity]", "9" * 5000, "[" * 100_000])
def test_what_python_takes_or_chokes_on_is_no_json(text):
    assert not json_validation.valid(text, {})


def test_a_bad_schema_is_named_with_its_place():
    with pytest.raises(ConfigError) as caught:
        json_validation.check_schema({"properties": {"a": {"type": "whole"}}}, "evaluate.checks.x.document")
    assert caught.value.message.startswith(
        "evaluate.checks.x.document is not a JSON Schema: at properties/a/type: 'whole' is not valid"
    )
