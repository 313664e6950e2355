"""Names of people: what makes a run of capitalised words a person, and what keeps it from being one."""

from __future__ import annotations

import pytest

from tunectl.privacy.person_names import find_person_names
from tunectl.privacy.resources import PiiResources

TOOLS = PiiResources(
    phones=lambda text: [],
    card=bool,
    iban=bool,
    ssn=bool,
    first_names=frozenset(["sarah", "john", "maria", "daniel", "grace", "austin", "jean"]),
    surnames=frozenset(["miller", "smith", "garcia", "kim"]),
)


def names(text: str) -> list[str]:
    return [text[found.start : found.end] for found in find_person_names(text, TOOLS)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Sarah Miller came", ["Sarah Miller"]),
        ("Yesterday Sarah J. Miller came", ["Sarah J. Miller"]),
        ("we met John Smith Jr. there", ["John Smith Jr."]),
        ("Maria Okonkwo-Reyes sings", ["Maria Okonkwo-Reyes"]),
        ("Mr. Okonkwo left, Dr. Ada Obi stayed", ["Okonkwo", "Ada Obi"]),
        ("my name is Adaeze", ["Adaeze"]),
        ("Hi Sarah, see you", ["Sarah"]),
        ("Regards,\nZsófia Nagy", ["Zsófia Nagy"]),
        ("owner Kwame Mensah waved", ["Kwame Mensah"]),
        ("Loved it! - Maria", ["Maria"]),
        ("Loved it. - Daniel K.", ["Daniel K."]),
        ("Grace Kim painted it", ["Grace Kim"]),
        ("Write to Ingrid Solberg, solberg.ingrid@example.com", ["Ingrid Solberg"]),
        ("Sarah Miller and John Smith met; Sarah paid", ["Sarah Miller", "John Smith", "Sarah"]),
    ],
)
def test_people(text: str, found: list[str]) -> None:
    assert names(text) == found


@pytest.mark.parametrize(
    "text",
    [
        "Sarah Miller Bakery opened",
        "John Smith & Sons",
        "Sarah's Kitchen is open",
        "Maria Garcia Park at noon",
        "Grace Notes play jazz",
        "The Austin Chronicle wrote",
        "Dr. Martin Luther King Jr. Drive",
        "Fresh Coffee Daily",
        "Sarah came by",
        "GREAT DEALS THIS WEEK",
        "john smith wrote in lower case",
        "Jean Jacket Sale",
    ],
)
def test_no_people(text: str) -> None:
    assert names(text) == []


def test_spellings_of_one_person_have_one_value() -> None:
    found = list(find_person_names("Sarah Miller wrote. Miller, that is. SARAH MILLER!", TOOLS))
    assert {one.value for one in found} == {"sarah miller"}
