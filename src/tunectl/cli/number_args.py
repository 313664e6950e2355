"""Parse numbers as users type them."""

from __future__ import annotations

import argparse


def parse_count(text: str) -> int:
    """Return a number of things to print, 0 or more.

    Raises  ArgumentTypeError for anything else, which argparse reports with the name of the option.
    """
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 0 on")
    return int(text)
