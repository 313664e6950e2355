"""The language rule, with a guesser of our own."""

from __future__ import annotations

import pytest

from tunectl.artifacts.records import Document, Example, Message, ReferenceAnswer, Source, Tokens
from tunectl.config.schema.curate import Language
from tunectl.data.filters.language import LanguageFilter
from tunectl.data.transform import RejectedRecord

PLACE = Source("a", 1)


def guess(text: str) -> tuple[str, float]:
    return ("de", 0.9) if "und" in text.split() else ("fr", 0.4) if "et" in text.split() else ("en", 0.99)


def rule(**more: object) -> Language:
    return Language.model_validate(
        {"allowed": ["en"], "min_confidence": 0.8, "min_letters": 10, "side": "output"} | more
    )


def outcomes(*records: Document | Example, **more: object) -> list[object]:
    return list(LanguageFilter(rule(**more), guess)(records))


def test_a_sure_foreign_text_goes_and_says_why() -> None:
    document = Document("1", "Brot und Butter und Bier", PLACE)
    assert outcomes(document) == [RejectedRecord(document, "language", "de with confidence 0.90")]


@pytest.mark.parametrize(
    "text", ["pain et beurre et miel", "Bier und", "https://und.example und@und.de #und 12 und 34"]
)
def test_unsure_and_short_texts_are_unknown_and_stay(text: str) -> None:
    block = LanguageFilter(rule(), guess)
    assert list(block([Document("1", text, PLACE)])) == [Document("1", text, PLACE)]
    assert block.counts == {"unknown": 1}


def test_allowed_languages_stay() -> None:
    document = Document("1", "Brot und Butter und Bier", PLACE)
    assert outcomes(document, allowed=["en", "de"]) == [document]


@pytest.mark.parametrize(("side", "rejected"), [("input", True), ("output", False), ("both", True)])
def test_sides_of_an_example(side: str, rejected: bool) -> None:
    example = Example(
        "1", PLACE, [Message("user", "Brot und Butter und Bier")], [ReferenceAnswer("bread and butter and beer", PLACE)]
    )
    assert isinstance(outcomes(example, side=side)[0], RejectedRecord) is rejected


def test_tokenized_rows_have_no_text_and_stay() -> None:
    row = Example("1", PLACE, tokens=Tokens([1], [1]))
    block = LanguageFilter(rule(), guess)
    assert list(block([row])) == [row]
    assert not block.counts
