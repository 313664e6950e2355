"""Pairs from references: who is near whom, what is balanced, and what may never be in two parts."""

from __future__ import annotations

import csv
import gzip
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunectl.artifacts.records import SPLIT_NAMES, Example, Message, ReferenceAnswer, Source
from tunectl.core.errors import DataError
from tunectl.data.split.groups import prompt_key
from tunectl.preferences import contrastive_pairs
from tunectl.preferences.contrastive_pairs import ContrastRules, PromptRecord, sample_pairs
from tunectl.preferences.meaning_representation import from_fields, parse_mr, remove_attribute
from tunectl.preferences.nearest_inputs import (
    KINDS,
    MAX_CANDIDATES,
    AttributeDifference,
    NearestInputs,
    diff_attributes,
)

E2E = Path(__file__).parents[2] / "data" / "corpora" / "e2e_devset.csv.gz"
ATTRIBUTES = st.dictionaries(st.sampled_from("abcd"), st.sampled_from("123"), max_size=4)


def rules(train=1000, validation=100, test=100, **changes):
    return ContrastRules(
        {"train": train, "validation": validation, "test": test},
        **{"per_input": 4, "differences": 2, "kinds": {"wrong": 1, "missing": 1, "extra": 1}, "seed": 17, **changes},
    )


def card(number, attributes, texts=None):
    asked = ", ".join(f"{name}[{value}]" for name, value in attributes.items())
    answers = [ReferenceAnswer(text, Source("s", number)) for text in texts or (f"{asked} is one", f"this is {asked}")]
    return PromptRecord(
        f"prompt {number}", Example(f"e{number}", Source("s", number), [Message("user", asked)], answers), attributes
    )


def dealt(lists, **changes):
    parts = {part: [] for part in SPLIT_NAMES}
    for number, (place, attributes, texts) in enumerate(lists):
        parts[SPLIT_NAMES[place]].append(card(number, attributes, texts))
    return parts, sample_pairs(parts, rules(**changes))


GRID = [{"a": a, "b": b, **({"c": c} if c else {})} for a in "123" for b in "123" for c in ("", "1", "2")]


# Attributes


def test_brackets():
    assert parse_mr("name[The Vaults], eatType[pub], customer rating[5 out of 5], near[Café Adriatic]") == {
        "name": "The Vaults",
        "eatType": "pub",
        "customer rating": "5 out of 5",
        "near": "Café Adriatic",
    }
    assert parse_mr("inform(name[X]; price=3)") == {"name": "X"}
    assert parse_mr("near[b], near[ a ]") == {"near": "a | b"}


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z ]{0,8}[a-z]", fullmatch=True),
        st.from_regex(r"[^\[\]\s][^\[\]\n]{0,8}", fullmatch=True),
    )
)
def test_what_is_written_in_brackets_is_read_back(attributes):
    text = ", ".join(f"{name}[{value}]" for name, value in attributes.items())
    assert parse_mr(text) == {name: value.strip() for name, value in attributes.items()}


def test_an_attribute_is_taken_out_with_its_separator():
    asked = "name[The Vaults], eatType[pub], near[a], near[b]"
    assert remove_attribute(asked, "name") == "eatType[pub], near[a], near[b]"
    assert remove_attribute(asked, "eatType") == "name[The Vaults], near[a], near[b]"
    assert remove_attribute(asked, "near") == "name[The Vaults], eatType[pub]"
    assert remove_attribute(asked, "food") == asked
    assert remove_attribute("Write about name[X]; food[Thai]", "food") == "Write about name[X]"
    assert remove_attribute("name[X]", "name") == ""


@given(
    st.dictionaries(st.sampled_from(["a", "b b", "c"]), st.sampled_from(["1", "x, y", "; z"]), min_size=1), st.data()
)
def test_the_others_stay_as_they_are(attributes, data):
    name = data.draw(st.sampled_from(sorted(attributes)))
    asked = ", ".join(f"{one}[{value}]" for one, value in attributes.items())
    rest = {one: value for one, value in attributes.items() if one != name}
    assert remove_attribute(asked, name) == ", ".join(f"{one}[{value}]" for one, value in rest.items())


def test_fields_that_are_empty_are_absent():
    assert from_fields({"a": "x", "b": " ", "c": "y"}, ["b", "a", "d"]) == {"a": "x"}


# Near ones


def test_the_kinds_are_told_from_the_input():
    assert diff_attributes({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "4", "d": "5"}) == [
        AttributeDifference("wrong", "b"),
        AttributeDifference("missing", "c"),
        AttributeDifference("extra", "d"),
    ]


@given(st.lists(ATTRIBUTES, max_size=25), ATTRIBUTES, st.sampled_from([1, 2]))
def test_the_index_finds_what_comparing_every_two_finds(inputs, own, most):
    found = NearestInputs(inputs, most).find(own, random.Random(1))
    every = {place: diff_attributes(own, other) for place, other in enumerate(inputs)}
    assert found == {place: apart for place, apart in every.items() if 1 <= len(apart) <= most}


def test_many_nearest_inputs_are_sampled():
    crowd = [{"a": str(number), "b": "1"} for number in range(500)]
    found = NearestInputs(crowd, 1).find({"a": "x", "b": "1"}, random.Random(1))
    assert len(found) == MAX_CANDIDATES
    assert found == NearestInputs(crowd, 1).find({"a": "x", "b": "1"}, random.Random(1))


def test_it_is_quick_for_many_inputs():
    dice = random.Random(1)
    names = "abcdefgh"
    inputs = [{name: str(dice.randrange(9)) for name in names if dice.random() < 0.8} for _ in range(5000)]
    started = time.perf_counter()
    parts = {
        part: [card(n, one) for n, one in enumerate(inputs) if n % 20 == at or (at == 2 and n % 20 > 2)]
        for at, part in enumerate(("validation", "test", "train"))
    }
    assert len(sample_pairs(parts, rules(2400)).judgments) == 2600
    assert time.perf_counter() - started < 20  # two seconds here; comparing every two would take minutes


# Pairs


LISTS = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 0, 1, 2]),
        ATTRIBUTES.filter(bool),
        st.none() | st.lists(st.sampled_from(["x", "X ", "y", "z", "only", " "]), min_size=1, max_size=3),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(LISTS, st.integers(0, 3), st.sampled_from([1, 2]), st.sampled_from([(1, 1, 1), (1, 0, 0), (1, 2, 0)]))
def test_what_always_holds(lists, seed, most, shares):
    kinds = dict(zip(KINDS, shares, strict=True))
    try:
        parts, found = dealt(lists, seed=seed, differences=most, kinds=kinds, per_input=3)
    except DataError:
        return
    cards = {one.prompt: one for part in parts.values() for one in part}
    texts = {part: set() for part in SPLIT_NAMES}
    every = Counter()
    for one in found.judgments:
        own = cards[one.prompt]
        chosen, rejected = (answer[0].content for answer in one.answers)
        folded = {contrastive_pairs._normalize_text(answer.text) for answer in own.example.answers}
        assert chosen in {answer.text for answer in own.example.answers}
        assert contrastive_pairs._normalize_text(rejected) not in folded
        assert own in parts[one.split]
        assert any(
            rejected in {answer.text for answer in other.example.answers}
            and [f"{item.kind} {item.name}" for item in diff_attributes(own.attributes, other.attributes)]
            == one.annotation.tags
            for other in cards.values()
        )
        assert 1 <= len(one.annotation.tags) <= most
        assert all(kinds[tag.split()[0]] > 0 for tag in one.annotation.tags)
        assert one.choice == "first"
        assert one.annotation.annotator is None
        texts[one.split] |= {contrastive_pairs._normalize_text(chosen), contrastive_pairs._normalize_text(rejected)}
        every[one.prompt] += 1
    assert not texts["train"] & texts["validation"]
    assert not texts["train"] & texts["test"]
    assert not texts["validation"] & texts["test"]
    assert all(count <= 3 for count in every.values())
    assert len({one.id for one in found.judgments}) == len(found.judgments)
    assert dealt(lists, seed=seed, differences=most, kinds=kinds, per_input=3)[1] == found
    for part in SPLIT_NAMES:
        assert found.reports[part].pairs == sum(one.split == part for one in found.judgments)


def grid():
    return [
        (0 if n % 5 else 1 + n // 5 % 2, attributes, [f"{n} text {k}" for k in range(4)])
        for n, attributes in enumerate(GRID * 4)
    ]


def tags(found):
    return Counter(tag for one in found.judgments if one.split == "train" for tag in one.annotation.tags)


def test_attributes_and_kinds_are_balanced_as_declared():
    _, found = dealt(grid(), per_input=3)
    have = tags(found)
    assert set(have) == {"wrong a", "wrong b", "wrong c", "missing c", "extra c"}
    assert max(have.values()) - min(have.values()) < 0.15 * max(have.values())
    assert found.reports["train"].differences == {
        kind: sum(have[tag] for tag in have if tag.split()[0] == kind) for kind in KINDS
    }
    _, found = dealt(grid(), kinds={"wrong": 1, "missing": 2, "extra": 0})
    assert found.reports["train"].differences["extra"] == 0
    assert tags(found)["missing c"] > max(tags(found)[f"wrong {name}"] for name in "abc")


def test_an_attribute_that_gives_a_pair_away_is_withheld():
    whole, found = dealt(grid())[1], dealt(grid(), withhold=1.0)[1]
    assert [(one.id, one.answers) for one in found.judgments] == [(one.id, one.answers) for one in whole.judgments]
    for one, before in zip(found.judgments, whole.judgments, strict=True):
        hidden = [tag.removeprefix("withheld ") for tag in one.annotation.tags if tag.startswith("withheld ")]
        could = len(before.annotation.tags) == 2 and any(tag.startswith("wrong ") for tag in before.annotation.tags)
        assert bool(hidden) == (could and one.split != "test"), "a policy is asked in full, and so is test"
        asked = parse_mr(before.messages[-1].content)
        assert parse_mr(one.messages[-1].content) == {name: asked[name] for name in asked if name not in hidden}
        assert [tag.replace("withheld ", "wrong ") for tag in one.annotation.tags] == before.annotation.tags
    made = found.reports["train"]
    assert made.withheld == sum(
        "withheld" in str(one.annotation.tags) for one in found.judgments if one.split == "train"
    )
    assert f"; {made.withheld} asked without one attribute)" in made.format_summary(100)
    assert found.reports["test"].withheld == whole.reports["train"].withheld == 0
    some = dealt(grid(), withhold=0.5)[1].reports["train"].withheld
    assert 0.3 * made.withheld < some < 0.7 * made.withheld


def test_every_input_gets_one_before_any_gets_two():
    parts, found = dealt(grid(), train=len([row for row in grid() if row[0] == 0]))
    assert {
        Counter(one.prompt for one in found.judgments if one.split == "train")[card.prompt] for card in parts["train"]
    } == {1}


def test_another_seed_gives_other_pairs():
    assert dealt(grid(), seed=1)[1].judgments != dealt(grid(), seed=2)[1].judgments


def test_loans_are_counted_and_never_learned_from():
    lists = [(0, {"a": "1", "b": b}, [f"train {b} {k}" for k in range(3)]) for b in "12345"]
    lists += [(1, {"a": "1", "b": "6"}, ["validation", "of validation"]), (2, {"a": "1", "b": "7", "c": "1"}, ["test"])]
    _, found = dealt(lists, per_input=1)
    assert found.reports["test"].borrowed == {"validation": 1}
    assert found.reports["validation"].borrowed == {"train": 1}
    lost = {one.answers[1][0].content for one in found.judgments if one.split == "validation"}
    learned = {answer[0].content for one in found.judgments if one.split == "train" for answer in one.answers}
    assert not lost & learned
    assert found.reports["validation"].format_summary(100) == (
        "1 of 100 pairs on 1 inputs (1 wrong, 0 missing, 0 extra; 1 borrowed from train)"
    )


def test_no_attributes():
    with pytest.raises(DataError) as caught:
        dealt([])
    assert caught.value.message == "preferences.contrast: no input of the stage split has attributes and an answer"


def test_nobody_near():
    with pytest.raises(DataError) as caught:
        dealt(
            [
                (0, {"a": "1"}, None),
                (1, {"b": "1", "c": "1", "d": "2"}, None),
                (2, {"e": "1", "f": "2", "g": "3"}, None),
            ]
        )
    assert (caught.value.message, caught.value.hint) == (
        (
            "preferences.contrast: test has 1 inputs with attributes, and none of them has a similar input (at most 2 differing "
            "attributes: preferences.contrast.max_differences) whose answers no other split part uses"
        ),
        "give the part more inputs (split.shares), or name fewer attributes; max_differences may be 1 or 2",
    )


def test_e2e():
    rows: dict[str, list[ReferenceAnswer]] = {}
    with gzip.open(E2E, "rt") as stream:
        for number, row in enumerate(csv.DictReader(stream), 2):
            rows.setdefault(row["mr"], []).append(ReferenceAnswer(row["ref"], Source("devset.csv", number)))
    examples = [
        Example(str(n), answers[0].source, [Message("user", mr)], answers)
        for n, (mr, answers) in enumerate(rows.items())
    ]
    random.Random(1).shuffle(examples)
    parts = {}
    for part, some in zip(
        ("validation", "test", "train"), (examples[:80], examples[80:160], examples[160:]), strict=True
    ):
        parts[part] = contrastive_pairs.build_prompt_records(
            [(prompt_key(one), one) for one in some], [parse_mr(one.messages[0].content) for one in some]
        )
    found = sample_pairs(parts, rules(1200, 200, 200))
    assert {part: made.pairs for part, made in found.reports.items()} == {"train": 1200, "validation": 200, "test": 200}
    longer = sum(len(one.answers[0][0].content) > len(one.answers[1][0].content) for one in found.judgments)
    assert 0.45 < longer / len(found.judgments) < 0.55  # length alone tells nothing
    incomplete = found.reports["train"].incomplete
    assert incomplete > 500
    assert f"; {incomplete} references that leave attributes out are not compared)" in found.reports[
        "train"
    ].format_summary(1200)
