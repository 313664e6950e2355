"""Whose row is it: people by a field, sources by the file of each answer."""

import pytest

from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Segment, Source, Tokens
from tunectl.artifacts.row_counts import RowCounter
from tunectl.config.schema.sft import Privacy
from tunectl.core.errors import DataError
from tunectl.training.sft import private_units


def privacy(unit="person", field="user"):
    values = {"unit": unit, "person_field": field, "min_units": 2, "target_epsilon": 8.0, "target_delta": None}
    values |= {"noise_multiplier": None, "max_grad_norm": 1.0, "expected_batch_size": 2, "accountant": "prv"}
    return Privacy(**values, noise_key_file="key", noise_key_env="KEY")


def example(row, *answers, file="a.csv", **fields):
    source = Source(file, row)
    found = [ReferenceAnswer(text, Source(*where)) for text, where in answers]
    return Example(f"e{row}", source, [Message("user", "Hi")], found, fields=fields)


def test_answers_of_other_people_are_rejected():
    tally = RowCounter("sft")
    given = [example(1, ("own", ("a.csv", 1)), ("another's", ("a.csv", 7)), user="ann"), example(2, ("x", ("a.csv", 2)), user="bob")]  # fmt: skip
    found = private_units.split_by_unit(given, privacy(), tally)
    assert [[answer.text for answer in item.answers] for item in found] == [["own"], ["x"]]
    assert [private_units.find_unit(item, privacy()) for item in found] == ["ann", "bob"]
    assert [(item.source, item.reason) for item in tally.rejects] == [(Source("a.csv", 7), "unknown_person")]
    assert tally.rejects[0].detail == "its input came first from a.csv:1"


def test_an_input_whose_first_answer_was_dropped_is_left_out():
    tally = RowCounter("sft")
    given = [
        example(1, ("another's", ("a.csv", 7)), user="ann"),
        Example("s", Source("a.csv", 2), segments=[Segment("Hi", train=True)], fields={"user": "bob"}),
        Example("t", Source("a.csv", 3), tokens=Tokens([1], [1]), fields={"user": "cy"}),
    ]
    found = private_units.split_by_unit(given, privacy(), tally)
    assert [item.id for item in found] == ["s", "t"]
    assert [(item.source, item.reason) for item in tally.rejects] == [(Source("a.csv", 7), "unknown_person")]


def test_each_source_has_its_own_answers():
    secret = privacy("source", None)
    given = [
        example(1, ("one", ("a.csv", 1)), ("two", ("b.csv", 5)), ("three", ("a.csv", 3))),
        example(4, file="c.csv"),
    ]
    found = private_units.split_by_unit(given, secret, RowCounter("sft"))
    assert [private_units.find_unit(item, secret) for item in found] == ["a.csv", "b.csv", "c.csv"]
    assert [[answer.text for answer in item.answers] for item in found] == [["one", "three"], ["two"], []]


def test_an_input_without_a_person_is_named():
    given = [example(1, ("x", ("a.csv", 1)), user="ann"), example(2, ("y", ("a.csv", 2)), town="Ulm")]
    with pytest.raises(DataError) as caught:
        private_units.split_by_unit(given, privacy(), RowCounter("sft"))
    assert caught.value.message == (
        "sft.privacy.person_field = user: 1 of 2 training inputs do not have that field, the first is a.csv:2; "
        "fields there are: town, user"
    )
    assert "ingest.sources.<name>.fields" in caught.value.hint
