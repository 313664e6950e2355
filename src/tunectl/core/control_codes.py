"""Make text from outside safe for a terminal: codes that move the cursor, change titles or the writing direction become a visible sign."""

from __future__ import annotations

import re
from typing import Final

_CODES: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control codes of ASCII and of Latin-1 (one of them begins sequences as ESC does), except line ends and tabs; and characters that
change the direction in which text is shown."""


def replace_control_codes(text: str) -> str:
    """Return ``text`` with U+FFFD in place of each control code; line ends and tabs are kept."""
    return _CODES.sub("\N{REPLACEMENT CHARACTER}", text)
