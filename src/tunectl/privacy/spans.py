"""A span of personal data, and its placeholder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

EntityType = Literal["email", "phone", "card", "iban", "ip", "address", "person", "url_credentials", "ssn", "secret"]
KINDS: tuple[EntityType, ...] = get_args(EntityType)

LABELS: dict[EntityType, str] = {
    "email": "EMAIL",
    "phone": "PHONE",
    "card": "CARD",
    "iban": "IBAN",
    "ip": "IP",
    "address": "ADDRESS",
    "person": "PERSON",
    "url_credentials": "SECRET",
    "ssn": "SSN",
    "secret": "SECRET",
}
PLACEHOLDER = re.compile(r"\[(" + "|".join(dict.fromkeys(LABELS.values())) + r")_([1-9][0-9]{0,5})\]")
"""Finds a placeholder in text; group 1 is its label, group 2 its number. Longer numbers are a stranger's: ours would grow with them."""


@dataclass(frozen=True, slots=True)
class PiiSpan:
    """Personal data at ``text[start:end]``."""

    kind: EntityType
    start: int
    end: int
    value: str
    """Canonical form: equal for two spellings of one value. It is personal data; never write it anywhere."""
