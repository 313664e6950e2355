"""The real libraries behind repair, language and personal data."""

from __future__ import annotations

import pytest

from tunectl.core.errors import ConfigError

pytest.importorskip("ftfy")
pytest.importorskip("py3langid")
pytest.importorskip("phonenumbers")
pytest.importorskip("faker")
pytest.importorskip("stdnum")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("cafÃ©", "café"),
        ("itâ€™s", "it\u2019s"),
        ("plain", "plain"),
        ("sound café, naïve 東京 🎉", "sound café, naïve 東京 🎉"),
        ("good é\nbad Ã©", "good é\nbad é"),
    ],
)
def test_mojibake(before: str, after: str) -> None:
    from tunectl.backends.text.mojibake import make_fixer

    assert make_fixer()(before) == after


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("The bakery on the corner sells fresh bread every morning.", "en"),
        ("Die Bäckerei an der Ecke verkauft jeden Morgen frisches Brot.", "de"),
        ("La panadería de la esquina vende pan fresco todas las mañanas.", "es"),
        ("角のパン屋は毎朝焼きたてのパンを売っています。", "ja"),
    ],
)
def test_language(text: str, code: str) -> None:
    from tunectl.backends.text.language_id import make_detector

    found, sure = make_detector(["en"])(text)
    assert found == code
    assert 0.9 < sure <= 1.0


def test_unknown_language_is_a_mistake_in_yaml() -> None:
    from tunectl.backends.text.language_id import make_detector

    with pytest.raises(ConfigError, match=r"^curate\.language\.allowed holds xx; known languages are .*\bde, .*\ben, "):
        make_detector(["en", "xx"])


def test_phones_of_declared_regions() -> None:
    from tunectl.backends.text.pii_resources import finder

    text = "030 901820 or +44 20 7946 0958"
    found = [text[start:end] for start, end in finder(["DE"])(text)]
    assert found == ["030 901820", "+44 20 7946 0958"]
    assert [text[start:end] for start, end in finder(["US"])(text)] == ["+44 20 7946 0958"]


def test_unknown_region_is_a_mistake_in_yaml() -> None:
    from tunectl.backends.text.pii_resources import finder

    with pytest.raises(
        ConfigError, match=r"^curate\.pii\.regions or inference_log\.pii\.regions holds XX; known regions are AC, AD, "
    ):
        finder(["US", "XX"])


def test_checksums() -> None:
    from tunectl.backends.text.pii_resources import card, iban, ssn

    assert [card()(digits) for digits in ("4111111111111111", "4111111111111112")] == [True, False]
    assert [iban()(number) for number in ("DE89 3704 0044 0532 0130 00", "DE88 3704 0044 0532 0130 00", "XX89")] == [
        True,
        False,
        False,
    ]
    assert [ssn()(number) for number in ("536-22-8726", "666-22-8726", "000-22-8726")] == [True, False, False]


def test_names_by_locale() -> None:
    from tunectl.backends.text.pii_resources import names

    first, last = names(["en_US"])
    assert {"sarah", "michael"} <= first
    assert {"smith", "garcia"} <= last
    more, _ = names(["en_US", "de_DE"])
    assert "jürgen" in more - first


def test_unknown_locale_is_a_mistake_in_yaml() -> None:
    from tunectl.backends.text.pii_resources import names

    with pytest.raises(
        ConfigError,
        match=r"^curate\.pii\.locales or inference_log\.pii\.locales holds xx_XX; known locales are .*en_US",
    ):
        names(["xx_XX"])
