"""Paging of long lists: an address has the index of the first row, and any text may be given there."""

from __future__ import annotations


def find_page_start(text: str, size: int, total: int) -> int:
    """Return the index of the first row of the page that has row ``text``, at most that of the last page; 0 where ``text`` is no number.

    ``size``: rows per page; ``total``: rows of all pages.
    """
    at = int(text) if text.isascii() and text.isdecimal() and len(text) < 12 else 0
    last = max(0, total - 1) // size * size
    return min(at - at % size, last)
