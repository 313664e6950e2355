"""Files and folders that their owner alone may read: what people wrote, secrets, keys."""

from __future__ import annotations

import secrets
import stat
from pathlib import Path
from typing import Final

from tunectl.artifacts import atomic_io
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError

FOLDER: Final = 0o700
FILE: Final = 0o600
MIN_KEY_BYTES: Final = 16
"""Shortest secret key in bytes."""
MIN_DIFFERENT_BYTES: Final = 6
"""Fewest different bytes of a secret key: of 16 random hexadecimal digits fewer are different in 3 of 100,000 cases."""
_OTHERS: Final = 0o007


def make_folder(folder: Path) -> None:
    """Create a folder that only its owner may read; an existing one is restricted as ``restrict`` does.

    Raises  InfrastructureError where it cannot be made.
    """
    try:
        folder.mkdir(parents=True, mode=FOLDER, exist_ok=True)
    except OSError as error:
        raise atomic_io.write_error(folder, error) from error
    restrict(folder, FOLDER)


def restrict(path: Path, mode: int = FILE) -> None:
    """Set the permissions ``mode`` of a file or folder where every account of this machine can access it; an absent one is ignored.

    Access for its group alone is kept, as granted on purpose. Where the mode cannot be changed, because the file belongs to another
    account, a warning is logged.
    """
    try:
        rights = stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return
    if not rights & _OTHERS:
        return
    log = logging_setup.get_logger(__name__)
    try:
        path.chmod(mode)
    except OSError as error:
        log.warning("everybody on this machine may use %s (mode %o): %s", path, rights, error.strerror)
        return
    log.info("%s was open to everybody on this machine (mode %o), and is %o now", path, rights, mode)


def load_secret_key(path: Path, value: str | None, *, variable: str, risk: str, hint: str) -> bytes:
    """Return a secret key: ``value``, else the content of its file, which is made at first use for its owner only.

    ``variable``: the environment variable that ``value`` comes from. ``risk``: what could be guessed with a short key. ``hint``: how to
    write a better one.
    Raises  InfrastructureError where the key could be guessed, or its file cannot be made or read.
    """
    source = variable if value is not None else str(path)
    try:
        if value is None:
            if not path.exists():
                path.parent.mkdir(parents=True, mode=FOLDER, exist_ok=True)
                atomic_io.create_exclusive(path, f"{secrets.token_hex(32)}\n".encode(), mode=FILE)
            restrict(path)
        key = (path.read_bytes() if value is None else value.encode()).strip()
    except OSError as error:
        raise atomic_io.write_error(path, error) from error
    if len(key) < MIN_KEY_BYTES:
        raise InfrastructureError(
            f"{source} holds {len(key)} bytes; at least {MIN_KEY_BYTES} are needed, or {risk} could be guessed",
            hint=hint,
        )
    if len(set(key)) < MIN_DIFFERENT_BYTES:
        raise InfrastructureError(
            f"{source} holds {len(set(key))} different bytes; at least {MIN_DIFFERENT_BYTES} are needed, or {risk} could be guessed",
            hint=hint,
        )
    return key
