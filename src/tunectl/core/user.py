"""Who types: kept in logs and records."""

from __future__ import annotations

import getpass


def current_user() -> str:
    """Return the name of this account; empty where it has none, as a number that a container was started with."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return ""
