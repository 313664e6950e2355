"""Files and folders that their owner alone may read: what people wrote, secrets, keys."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Final

from tunectl.artifacts import atomic_io
from tunectl.core import logging_setup

FOLDER: Final = 0o700
FILE: Final = 0o600
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
