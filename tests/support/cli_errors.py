"""What the command line prints with an error, without the line that names its entry in the documentation."""

from __future__ import annotations

import re


def drop_more(text: str) -> str:
    """Leave out ``more: tunectl docs NAME`` at the end; tests/unit/core/test_documentation.py is the test of that line."""
    return re.sub(r"  more: tunectl docs [\w-]+\n\Z", "", text)
