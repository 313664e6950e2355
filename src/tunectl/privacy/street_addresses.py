"""Street addresses in the usual written forms of English, German, French, Spanish, Italian, Portuguese, Dutch and Swedish.

There is no gazetteer: a house number and a street word must be together, and street names must be capitalized. A
street without a number, or a town alone, is no address.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tunectl.privacy.resources import PiiResources
from tunectl.privacy.spans import PiiSpan

_STREETS = (
    r"Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Circle|Cir|Way|Place|Pl|Terrace|Ter|Parkway|Pkwy|"
    r"Highway|Hwy|Square|Sq|Trail|Trl|Alley|Pike|Crescent|Close|Mews|Broadway|Plaza|Row"
)
# Bounded, and blanks between words always asked for: else a long run of capitals takes for ever.
_WORD = r"[A-Z][\w'.\-]{0,40}"
_NAME = r"(?:[A-Z][\w'\u2019.\-]{0,40}|\d{1,3}(?:st|nd|rd|th)|de|la|del)"
_UNIT = r"(?:,?\s(?:Apt|Apartment|Suite|Ste|Unit|Floor|Fl|Bldg|Room|Rm)\.?\s?#?\w{1,6}|,?\s#\s?\w{1,6})"
_STATES = (
    "AL|AK|AZ|AR|CA|CO|CT|DE|DC|FL|GA|HI|ID|IL|IN|IA|KS|KY|LA|ME|MD|MA|MI|MN|MS|MO|MT|NE|NV|NH|NJ|NM|NY|NC|ND|OH|OK|OR|PA|RI|SC|SD|TN|TX|UT|VT|"
    "VA|WA|WV|WI|WY"
)
_TOWN = rf"(?:,\s{_WORD}(?:\s{_WORD}){{0,2}}(?:,\s?|\s)(?:{_STATES}|Georgia)\b(?:,?\s\d{{5}}(?:-\d{{4}})?)?|,?\s(?:{_STATES})\s\d{{5}}(?:-\d{{4}})?)"
# Great Britain: towns, then a code such as SW1A 2AA.
_POSTCODE = rf"(?:,?\s(?:{_WORD},?\s){{0,4}}[A-Z]{{1,2}}\d[A-Z\d]?\s\d[A-Z]{{2}}\b)"
_ENGLISH = re.compile(
    rf"(?<![\w$€£#.,:/\-])\d{{1,6}}(?:-\d{{1,5}})?[A-Za-z]?\s(?:[NSEW]\.?\s|(?:North|South|East|West|NE|NW|SE|SW)\s)?"
    rf"(?:{_NAME}\s){{0,4}}?(?:{_STREETS})\b\.?(?:,?\s(?:NE|NW|SE|SW|N|S|E|W|North|South|East|West)\b\.?)?{_UNIT}?(?:{_TOWN}|{_POSTCODE})?"
)
# Any name will do for a street where town, state and postal code follow.
_ZIPPED = re.compile(
    rf"(?<![\w$€£#.,:/\-])\d{{1,6}}(?:-\d{{1,5}})?[A-Za-z]?\s(?:[NSEW]\.?\s)?{_NAME}(?:\s{_NAME}){{0,4}}{_UNIT}?"
    rf"\s?,\s{_WORD}(?:\s{_WORD}){{0,3}},?\s(?:{_STATES}|PR|GU|VI|AS|MP|PW|FM|MH)\s\d{{5}}(?:-\d{{4}})?"
)
_MILITARY = re.compile(
    r"\b(?:(?:Unit|PSC)\s\d+\s?,?\sBox\s\d+|USNS?S?V?\s[A-Z]\w+),\s[ADF]PO\sA[AEP]\s\d{5}(?:-\d{4})?"
)
_BOX = re.compile(rf"\bP\.?\s?O\.?\s?Box\s\d{{1,7}}{_TOWN}?", re.IGNORECASE)
_CODE = r"(?:,?\s(?:\d{5}|\d{3}\s\d{2}|\d{4}\s?[A-Z]{2}\b)(?:\s[A-ZÀ-Þ][\w\-]+)?)?"
_GERMAN = re.compile(
    rf"\b(?:[A-ZÄÖÜ][\wäöüß\-]{{0,40}}\s?(?:[Ss]traße|[Ss]trasse|[Ss]tr\.|weg|platz|allee|gasse|ufer|damm)|Am\s[A-ZÄÖÜ]\w+)\s\d{{1,4}}\s?[a-z]?\b{_CODE}"
)
_FRENCH = re.compile(
    r"\b\d{1,4}(?:\s?(?:bis|ter))?,?\s(?:[Rr]ue|[Aa]venue|[Bb]oulevard|[Pp]lace|[Cc]hemin|[Ii]mpasse|[Aa]llée|[Qq]uai|[Cc]ours)\s"
    rf"(?:(?:de|du|des|la|le|les)\s|[dl]['\u2019])*[A-ZÀ-Þ][\w\-]+(?:\s[A-ZÀ-Þ][\w\-]+){{0,2}}{_CODE}",
)
_SOUTHERN = re.compile(  # Spanish, Italian, Portuguese
    r"\b(?:Calle|C/|Avenida|Avda\.?|Plaza|Paseo|Via|Viale|Piazza|Corso|Rua|Travessa|Praça)\s"
    r"(?:(?:de|del|della|dei|di|da|do|dos|das|la|las|los|el)\s)*[A-ZÀ-Þ][\w\-]+(?:\s[A-ZÀ-Þ][\w\-]+){0,2},?\s(?:n[º°.]\s?)?\d{1,4}\b"
    rf"{_CODE}"
)
_NORTHERN = re.compile(  # Dutch, Swedish
    rf"\b[A-ZÅÄÖ][\wåäö\-]{{0,40}}(?:straat|laan|plein|gracht|kade|gatan|vägen|torget|gränd)\s\d{{1,4}}\s?[a-zA-Z]?\b{_CODE}"
)
_DIGIT = re.compile(r"\d")
# "2 St" or "5 Way" alone is not an address: a street needs a name, unless its word is one.
_NAMELESS = re.compile(rf"\d+\w?\s(?:{_STREETS})\b\.?", re.IGNORECASE)
_YEAR = re.compile(r"(?:19|20)\d\d\s")
_AFTER_IN = re.compile(r"\b(?:in|since|of|until|from|during|est\.?|by)\s$", re.IGNORECASE)


def find_street_addresses(text: str, tools: PiiResources) -> Iterator[PiiSpan]:  # noqa: ARG001 one signature for all finders
    """Yield house number and street, with unit, town and postal code where they follow."""
    if not _DIGIT.search(text):
        return
    for pattern in (_ZIPPED, _MILITARY, _ENGLISH, _BOX, _GERMAN, _FRENCH, _SOUTHERN, _NORTHERN):
        for match in pattern.finditer(text):
            address = match[0].rstrip(" ,.")
            if _NAMELESS.fullmatch(address) and "Broadway" not in address:
                continue
            if _YEAR.match(address) and _AFTER_IN.search(text[max(0, match.start() - 8) : match.start()]):
                continue
            value = " ".join(address.casefold().replace(",", " ").replace(".", "").split())
            yield PiiSpan("address", match.start(), match.start() + len(address), value)
