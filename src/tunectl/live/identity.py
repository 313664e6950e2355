"""People and conversations under a keyed hash: the same one is recognised again, and nobody can tell who it is.

A hash without a key could be undone by trying all addresses, so the key (the salt) is kept away from the database: whoever
has only the one cannot undo the other.
"""

from __future__ import annotations

import hashlib
import hmac


def hidden(name: str, salt: bytes) -> str:
    """The 32 hexadecimal digits under which ``name`` is kept: of a user, a session or an annotator.

    Case and outer white space do not matter, so that people find themselves again when they ask to be forgotten.
    """
    return hmac.new(salt, name.strip().casefold().encode(), hashlib.sha256).hexdigest()[:32]
