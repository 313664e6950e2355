"""Slot errors: what an answer says about the attributes of its input."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tunectl.artifacts.records import Message
from tunectl.config.schema.slot_error import SlotErrorRules
from tunectl.evaluation import metrics, slot_error
from tunectl.evaluation.items import Item

ROOT = Path(__file__).parents[3]
CFG = SlotErrorRules.model_validate(yaml.safe_load((ROOT / "conf/evaluate/e2e.yaml").read_text())["slots"])
MR = (
    "name[The Vaults], eatType[pub], priceRange[more than £30], customer rating[5 out of 5], near[Café Adriatic], "
    "area[riverside], familyFriendly[yes], food[English]"
)


def item(mr: str, **fields: str) -> Item:
    return Item("1", (Message("user", mr),), (), fields)


def found(mr: str, answer: str, *others: str) -> slot_error.SlotMatch:
    rules = slot_error.build_slot_matcher(CFG, [item(text) for text in (mr, *others)])
    return rules.find(rules.attributes(item(mr)), answer)


def test_all_attributes_are_read_from_the_input():
    assert [name for name, _ in slot_error.input_slots(CFG, item(MR))] == [
        "name", "eatType", "priceRange", "customer rating", "near", "area", "familyFriendly", "food",
    ]  # fmt: skip
    assert slot_error.input_slots(CFG, item(f"Write about it: {MR}. Thanks!")) == slot_error.input_slots(CFG, item(MR))
    assert slot_error.input_slots(CFG, item("name[ ], color[red], area[riverside]")) == (("area", "riverside"),)


@pytest.mark.parametrize(
    "answer",
    [
        "The Vaults pub near Café Adriatic has a 5 star rating. Prices start at £30. Kids are welcome, English food by the river.",
        "the vaults, a highly-rated family-friendly English pub in Riverside: price range more than Â£30, next to Cafe Adriatic",
        "Close to Café Adriatic by the riverside, VAULTS is an expensive British pub rated 5/5 where children are welcome.",
    ],
)
def test_paraphrases_are_right(answer):
    assert found(MR, answer) == slot_error.SlotMatch(slot_error.input_slots(CFG, item(MR)), (), (), ())


def test_other_values_are_wrong_and_silence_is_missing():
    one = found(MR, "The Vaults is a cheap Italian coffee shop in the city centre, rated 1 out of 5. No kids.")
    assert one.missing == (("near", "Café Adriatic"),)
    assert one.wrong == (
        ("eatType", "pub", "coffee shop"),
        ("priceRange", "more than £30", "cheap"),
        ("customer rating", "5 out of 5", "low"),
        ("area", "riverside", "city centre"),
        ("familyFriendly", "yes", "no"),
        ("food", "English", "Italian"),
    )
    assert (one.errors, one.attributes) == (7, 8)


def test_what_was_added_is_counted_apart():
    one = found("name[Clowns], area[riverside]", "Clowns is a cheap, kid-friendly riverside place in the city centre.")
    assert one.errors == 0
    assert one.added == (("area", "city centre"), ("familyFriendly", "yes"), ("priceRange", "cheap"))


def test_names_are_no_attributes():
    mr = "name[Fast Food Corner], near[Raja Indian Cuisine], area[riverside]"
    assert found(mr, "Fast Food Corner is by the river near Raja Indian Cuisine.").added == ()


def test_a_value_of_another_input_is_wrong():
    one = found("name[The Mill], near[Ranch]", "The Mill is near Burger King.", "name[Cotto], near[Burger King]")
    assert one.wrong == (("near", "Ranch", "Burger King"),)


def test_a_value_without_patterns_is_looked_for_verbatim():
    assert found("food[Ethiopian]", "They serve ethiopian food.").errors == 0
    assert found("food[Ethiopian]", "They serve French food.").wrong == (("food", "Ethiopian", "French"),)
    assert found("near[-]", "Anything").missing == (("near", "-"),)


SENTENCES = {
    "familyFriendly": {
        "yes": ["kid friendly", "Children are welcome.", "family-friendly", "Bring the kids!", "for all age groups", "adults and children"],
        "no": ["not family-friendly", "isn't kid friendly", "No kids.", "Children are not welcome", "adults only", "non family friendly",
               "It is not a place for families with children", "unsuitable for kids, not child friendly", "family unfriendly"],
    },
    "priceRange": {
        "cheap": ["cheap", "low-priced", "inexpensive", "a low price range", "Prices are low", "affordable"],
        "less than £20": ["less than £20", "under 20 pounds", "for less than Â£20", "cheap", "below £ 20"],
        "moderate": ["moderately priced", "average prices", "mid-range prices", "a moderate price range", "medium priced"],
        "£20-25": ["£20-25", "£20-£25", "20 to 25 pounds", "between £20 and £25", "the price range is 20-25", "moderate price range"],
        "high": ["high price range", "expensive", "pricey", "high-priced", "Prices are high", "not cheap"],
        "more than £30": ["more than £30", "over 30 pounds", "above £30", "£30 or more", "high price range"],
    },
    "customer rating": {
        "low": ["low customer rating", "poorly rated", "a one star place", "customers rate it low", "rated 1 out of 5"],
        "1 out of 5": ["1 out of 5", "1 star", "one-star", "1/5", "rated 1 out of 5 stars", "low rating"],
        "average": ["average customer rating", "averagely rated", "3 star rating", "The customer rating is average"],
        "3 out of 5": ["3 out of 5", "three stars", "3-star", "customer rating of 3 out of 5", "rated three out of five"],
        "high": ["high customer rating", "highly rated", "Customer rating is high", "five stars", "great reviews"],
        "5 out of 5": ["5 out of 5", "5 star", "5-star", "rated five stars", "a customer rating of 5 out of 5", "5 of 5"],
    },
    "area": {
        "riverside": ["in the riverside area", "by the river", "on the river bank", "river-side"],
        "city centre": ["city centre", "in the center of the city", "downtown", "in the city", "centrally"],
    },
    "eatType": {"coffee shop": ["coffee shop", "café", "coffee-shop"], "pub": ["pub", "a bar"], "restaurant": ["restaurants"]},
    "food": {"English": ["British"], "Chinese": ["chinese food"], "Italian": ["pasta"], "Fast food": ["fast-food"], "Indian": ["Curry"]},
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [(name, value, text) for name, values in SENTENCES.items() for value, texts in values.items() for text in texts],
)
def test_a_phrase_says_its_value_and_no_other(name, value, text):
    one = found(f"{name}[{value}]", text)
    assert one.right == ((name, value),), one
    assert one.added == ()
    same = CFG.attributes[name].values[value]
    for other, patterns in CFG.attributes[name].values.items():
        if patterns != same:
            assert found(f"{name}[{other}]", text).errors == 1, other


@pytest.mark.parametrize(
    ("mr", "text"),
    [
        ("priceRange[high], customer rating[low]", "It has a high price range and a low customer rating."),
        ("priceRange[high], customer rating[low]", "Low rated but high priced."),
        ("priceRange[£20-25], customer rating[high]", "In the £20-25 price range that has a high customer rating."),
        ("priceRange[moderate], customer rating[1 out of 5]", "It is average priced and rated 1 out of 5 stars."),
        (
            "priceRange[cheap], customer rating[average]",
            "Customers rate it as having a cheap price, with average reviews.",
        ),
        ("area[riverside]", "On the river, north of the city centre."),
    ],
)
def test_neighbouring_attributes_are_kept_apart(mr, text):
    assert found(mr, text).errors == 0
    assert found(mr, text).added == ()


def test_the_table_gives_the_corpus_rate():
    items = [item("name[Clowns], area[riverside]"), item("nothing stated"), item("food[French]")]
    table = slot_error.compute_slot_statistics(
        slot_error.build_slot_matcher(CFG, items), items, ["Clowns.", "Anything, cheap.", "French food"]
    )
    assert table["slot_error"].tolist() == [[1, 2], [0, 0], [0, 1]]
    assert float(metrics.get_metric("slot_error").combine(table["slot_error"].sum(axis=0))) == pytest.approx(100 / 3)
    assert float(metrics.get_metric("slot_added").combine(table["slot_added"].sum(axis=0))) == pytest.approx(100 / 3)
    assert slot_error.compute_slot_statistics(slot_error.build_slot_matcher(CFG, []), [], [])["slot_error"].shape == (
        0,
        2,
    )


def test_fields_can_be_the_attributes():
    cfg = SlotErrorRules.model_validate(
        {"parse": "fields", "terms": {}, "attributes": {"town": {"method": "verbatim", "optional": []}}}
    )
    one = item("Where is it?", town="Bath", street="High Street")
    rules = slot_error.build_slot_matcher(cfg, [one])
    assert rules.attributes(one) == (("town", "Bath"),)
    assert rules.find((("town", "Bath"),), "It is in Bath's centre.").errors == 0


words = st.text(st.characters(codec="utf-8"), max_size=80)


@given(words, st.lists(st.tuples(st.sampled_from(["name", "near", "food", "area", "priceRange"]), words), max_size=5))
def test_every_attribute_is_counted_once_whatever_the_text(answer, pairs):
    wanted = tuple((name, value) for name, value in dict(pairs).items() if value.strip())
    one = slot_error.build_slot_matcher(CFG, []).find(wanted, answer)
    said = [*one.right, *one.missing, *((name, value) for name, value, _ in one.wrong)]
    assert sorted(said) == sorted(wanted)
    assert not set(one.added) & set(wanted)


@given(words)
def test_plain_is_plain_already(text):
    assert slot_error.normalize(slot_error.normalize(text)) == slot_error.normalize(text)


def _bad(**changes: object) -> str:
    values = {"method": "patterns", "decoys": [], "values": {"red": ["red"]}}
    cfg = {"parse": "bracketed", "terms": {"a": ["x"]}, "attributes": {"color": values | changes}}
    with pytest.raises(ValidationError) as caught:
        SlotErrorRules.model_validate(cfg)
    return str(caught.value.errors()[0]["msg"])


def test_bad_rules_are_refused_with_their_place():
    assert _bad(values={"red": ["<b>"]}) == (
        "Value error, attributes.color.values.red: '<b>' uses <b>, which is no term; there are: a"
    )
    assert _bad(values={"red": ["(red"]}) == (
        "Value error, attributes.color.values.red: '(red' is not a regular expression: "
        "missing ), unterminated subpattern at position 0"
    )
    assert _bad(decoys=["r?"]) == (
        "Value error, attributes.color.decoys: 'r?' matches an empty text, so it would be found everywhere; make it need a character"
    )
    assert "attributes.color.values.decoys: '(red' is not" in _bad(values={"decoys": ["(red"]})


def _rules(terms: dict[str, list[str]]) -> SlotErrorRules:
    return SlotErrorRules.model_validate(
        {"parse": "bracketed", "terms": terms, "attributes": {"n": {"method": "verbatim", "optional": []}}}
    )


def test_terms_may_use_each_other_in_any_order_but_not_in_a_circle() -> None:
    """The resolved configuration of a stage has its keys sorted, so their order says nothing."""
    assert _rules({"a": ["<b>s"], "b": ["x"]}).expand_terms("<a>") == _rules({"b": ["x"], "a": ["<b>s"]}).expand_terms(
        "<a>"
    )
    with pytest.raises(ValidationError, match=r"terms.a: '<b>' uses <b>, which is no term; there are: a"):
        _rules({"a": ["<b>"]})
    with pytest.raises(ValidationError, match=r"terms: a, b use each other in a circle; break it"):
        _rules({"a": ["<b>"], "b": ["<a>"], "c": ["x"]})


def test_the_rules_of_e2e_come_through_the_sorted_json_of_a_stage() -> None:
    assert SlotErrorRules.model_validate_json(msgspec.json.encode(CFG.model_dump(mode="json"), order="sorted")) == CFG


def test_statistics_are_numbers():
    items = [item(MR)]
    assert (
        slot_error.compute_slot_statistics(slot_error.build_slot_matcher(CFG, items), items, [""])["slot_error"].dtype
        == np.float64
    )
