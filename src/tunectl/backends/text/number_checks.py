"""Wrapper of python-stdnum: checksums of cards, accounts and social security numbers."""

from __future__ import annotations

from collections.abc import Callable

from tunectl.core.optional import import_optional


def card() -> Callable[[str], bool]:
    """Return whether digits pass Luhn's check (ISO/IEC 7812-1)."""
    valid: Callable[[str], bool] = import_optional("stdnum.luhn", extra="data").is_valid
    return valid


def iban() -> Callable[[str], bool]:
    """Return whether an account number has the form of its country and the checksum of ISO 13616."""
    valid: Callable[[str], bool] = import_optional("stdnum.iban", extra="data").is_valid
    return valid


def ssn() -> Callable[[str], bool]:
    """Return whether a social security number is one that can be issued."""
    valid: Callable[[str], bool] = import_optional("stdnum.us.ssn", extra="data").is_valid
    return valid
