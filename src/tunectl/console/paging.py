"""Paging of long lists: an address has the index of the first row, and any text may be given there."""

from __future__ import annotations


def place_page(text: str, size: int, total: int) -> int:
    """Return the place of the first row of the page that ``text`` names; the first page where it is no number, the last behind the end."""
    at = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0
    last = max(0, total - 1) // size * size
    return min(at - at % size, last)
