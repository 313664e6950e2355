"""Name of the user, for logs and records."""

from __future__ import annotations

import os
import pwd


def current_user() -> str:
    """Return the name of this account; its number where it has none, as in some containers.

    The name comes from the operating system. ``getpass.getuser`` reads variables first (LOGNAME, USER), and anybody can set those.
    """
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"uid {number}"
