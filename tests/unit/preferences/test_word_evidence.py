"""Which references leave an attribute out, told from words alone; held to the slot rules on the E2E development set."""

from __future__ import annotations

import csv
import gzip
import random
from collections import Counter, defaultdict
from pathlib import Path

import yaml

from tunectl.artifacts.records import Message
from tunectl.config.schema.slot_error import SlotErrorRules
from tunectl.evaluation import slot_error
from tunectl.evaluation.items import Item
from tunectl.preferences.meaning_representation import parse_mr
from tunectl.preferences.word_evidence import MIN_COUNT, WordEvidence

ROOT = Path(__file__).parents[3]
E2E = ROOT / "tests" / "data" / "corpora" / "e2e_devset.csv.gz"
SLOTS = SlotErrorRules.model_validate(yaml.safe_load((ROOT / "conf/evaluate/e2e.yaml").read_text())["slots"])
INPUTS = [{"name": name, "food": food} for name in ("Aromi", "Cocum", "Zizzi") for food in ("Thai", "French")]


def write(attributes, *, complete=True):
    name, food = attributes["name"], attributes["food"]
    return f"{name} serves {food} dishes" if complete else f"{name} is a restaurant"


def test_a_reference_that_leaves_an_attribute_out_is_not_chosen():
    known = WordEvidence((one, write(one)) for one in INPUTS for _ in range(MIN_COUNT))
    whole, short = write(INPUTS[0]), write(INPUTS[0], complete=False)
    assert known.choose_complete(INPUTS[0], [short, whole]) == {whole}
    assert known.choose_complete(INPUTS[0], [short]) == {short}, "one of several is always left"
    assert known.choose_complete(INPUTS[0], [whole, write(INPUTS[1])]) == {whole}, (
        "another value is no statement of this"
    )
    assert known.choose_complete(INPUTS[0], []) == frozenset()


def test_words_that_are_rare_tell_nothing():
    known = WordEvidence((one, write(one)) for one in INPUTS[:1] for _ in range(MIN_COUNT - 1))
    texts = [write(INPUTS[0], complete=False), write(INPUTS[0])]
    assert known.choose_complete(INPUTS[0], texts) == set(texts)
    assert known.choose_complete({"area": "unseen"}, texts) == set(texts)


def test_e2e():
    """Learned from two thirds of the inputs, without the slot rules: of the references left in the others, far fewer omit an attribute."""
    by_input: dict[str, list[str]] = defaultdict(list)
    with gzip.open(E2E, "rt", newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            by_input[row["mr"]].append(row["ref"])
    items = [Item(mr, (Message("user", mr),), tuple(texts)) for mr, texts in by_input.items()]
    rules = slot_error.build_slot_matcher(SLOTS, items)
    random.Random(1).shuffle(items)
    learned, unseen = items[: len(items) * 2 // 3], items[len(items) * 2 // 3 :]
    known = WordEvidence((parse_mr(one.id), text) for one in learned for text in one.references)
    stated, flagged, texts = Counter(), Counter(), Counter()
    for item in unseen:
        for kind, some in (
            ("all", item.references),
            ("complete", known.choose_complete(parse_mr(item.id), item.references)),
        ):
            texts[kind] += len(some)
            for text in some:
                match = rules.find(rules.attributes(item), text)
                stated[kind] += len(rules.attributes(item))
                flagged[kind] += len((*match.missing, *match.wrong))
    assert flagged["all"] / stated["all"] > 0.06
    assert flagged["complete"] / stated["complete"] < 0.03
    assert texts["complete"] > 0.4 * texts["all"]
