"""Personal data in the forms of other countries, found with the default configuration, which declares the United States."""

from __future__ import annotations

import pytest

from tunectl.backends.text.pii_resources import tools
from tunectl.privacy.mask import PiiMasker

pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")
pytest.importorskip("faker")


@pytest.fixture(scope="module")
def mask():  # type: ignore[no-untyped-def]
    return PiiMasker(tools(regions=["US"], locales=["en_US", "fr_FR", "de_DE"])).mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Phone 020 7946 0958, any time", "Phone [PHONE_1], any time"),
        ("Tel.: (030) 901820-12", "Tel.: [PHONE_1]"),
        ("Anrufen: 0171/1234567", "Anrufen: [PHONE_1]"),
        ("Tél. 01 42 68 53 00.", "Tél. [PHONE_1]."),
        ("Telefoon: 06-12345678", "Telefoon: [PHONE_1]"),
        ("Text 0 to stop, or ring 100 times", "Text 0 to stop, or ring 100 times"),
        ("+81 3-3224-9999 or +55 11 91234-5678", "[PHONE_1] or [PHONE_2]"),
        ("iban de89 3704 0044 0532 0130 00 is mine", "iban [IBAN_1] is mine"),
        ("model ab12 3456 7890 1234 5678 is new", "model ab12 3456 7890 1234 5678 is new"),
        ("10 Downing Street, London SW1A 2AA", "[ADDRESS_1]"),
        ("at 5 Old Road, Oxford, OX3 7LE.", "at [ADDRESS_1]."),
        ("We sold 12 Places in Rome AB1 2CD", "We sold 12 Places in Rome AB1 2CD"),
        ("12 Rue de la Paix, 75002 Paris", "[ADDRESS_1]"),
        ("Via Roma 10, 00184 Roma", "[ADDRESS_1]"),
        ("Via Roma 10 e Via Milano 3", "[ADDRESS_1] e [ADDRESS_2]"),
        ("Rua das Flores 12, Lisboa", "[ADDRESS_1], Lisboa"),
        ("Kerkstraat 12, 1017 GL Amsterdam", "[ADDRESS_1]"),
        ("Storgatan 5, 111 22 Stockholm", "[ADDRESS_1]"),
        ("Corso 2000 EUR, Plaza 5", "Corso 2000 EUR, Plaza 5"),
        ("Mary-Jane Watson came", "[PERSON_1] came"),
        ("Virginia-Highland Park is green", "Virginia-Highland Park is green"),
    ],
)
def test_forms_of_other_countries(mask, text, masked):  # type: ignore[no-untyped-def]
    assert mask(text).text == masked
    assert mask(masked).text == masked
