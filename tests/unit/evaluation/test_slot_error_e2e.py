"""The slot rules on human references of the E2E development set: docs/decisions/0005-slot-rules.md."""

from __future__ import annotations

import csv
import gzip
import random
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import yaml

from tunectl.artifacts.records import Message
from tunectl.config.schema.slot_error import PatternSlot, SlotErrorRules
from tunectl.evaluation import slot_error
from tunectl.evaluation.items import Item

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "corpora" / "e2e_devset.csv.gz"
CFG = SlotErrorRules.model_validate(yaml.safe_load((ROOT / "conf/evaluate/e2e.yaml").read_text())["slots"])


@cache
def references() -> tuple[slot_error.SlotMatcher, dict[slot_error.SlotPairs, list[str]]]:
    """The rules, and the references by what their input states."""
    with gzip.open(DATA, "rt", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    items = [Item(row["mr"], (Message("user", row["mr"]),), (row["ref"],)) for row in rows]
    rules = slot_error.build_slot_matcher(CFG, items)
    found: dict[slot_error.SlotPairs, list[str]] = defaultdict(list)
    for item in items:
        found[rules.attributes(item)].extend(item.references)
    return rules, dict(found)


def test_human_references_are_flagged_about_as_often_as_people_leave_things_out():
    rules, found = references()
    flagged, stated = Counter(), Counter()
    for wanted, texts in found.items():
        for text in texts:
            one = rules.find(wanted, text)
            stated.update(name for name, _ in wanted)
            flagged.update(pair[0] for pair in (*one.missing, *one.wrong))
    rates = {name: flagged[name] / count for name, count in stated.items()}
    assert 0.06 < sum(flagged.values()) / sum(stated.values()) < 0.08
    assert rates["name"] < 0.001
    assert rates["near"] < 0.02
    assert rates["eatType"] < 0.03
    assert max(rates.values()) < 0.14


def alike(name: str, one: str, other: str) -> bool:
    """Whether the rules take two values as equal, for example cheap and less than £20."""
    slot = CFG.attributes[name]
    return isinstance(slot, PatternSlot) and slot.values.get(one) == slot.values.get(other)


def test_a_swapped_value_is_found():
    """A reference is put beside an input that differs from its own in one value."""
    rules, found = references()
    chance = random.Random(5)
    asked, missed = Counter(), Counter()
    for wanted in found:
        for other, texts in found.items():
            own, theirs = dict(wanted), dict(other)
            apart = [name for name in own if theirs.get(name) != own[name]]
            if len(apart) != 1 or own.keys() != theirs.keys():
                continue
            (name,) = apart
            if not alike(name, own[name], theirs[name]):
                one = rules.find(wanted, chance.choice(texts))
                asked[name] += 1
                missed[name] += name not in {pair[0] for pair in (*one.missing, *one.wrong)}
    assert sum(asked.values()) > 2000
    assert sum(missed.values()) / sum(asked.values()) < 0.02
    assert all(missed[name] / count < 0.04 for name, count in asked.items())


def test_a_dropped_value_is_found():
    """An attribute is added to the input that its reference does not speak of: all but the references that say it anyway."""
    rules, found = references()
    chance = random.Random(6)
    values = {
        name: sorted({value for wanted in found for own, value in wanted if own == name}) for name in CFG.attributes
    }
    asked = missed = 0
    for wanted, texts in found.items():
        for name in sorted(CFG.attributes.keys() - dict(wanted).keys() - {"eatType"}):
            text = chance.choice(texts)
            more = (*wanted, (name, chance.choice(values[name])))
            one = rules.find(more, text)
            asked += 1
            missed += name not in {pair[0] for pair in (*one.missing, *one.wrong)}
    assert asked > 500
    assert missed / asked < 0.02
