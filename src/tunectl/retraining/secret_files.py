"""Secret files of the retrain controller: the key that signs links, and the token of the alert webhook."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from tunectl.artifacts import atomic_io
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError, UsageError

_log = logging_setup.get_logger(__name__)
TOKEN_OF_0_1 = Path(".tunectl/watch/token")
"""Path of the token in version 0.1, below the project."""


def load_token(root: Path, token_file: str) -> str:
    """Return the bearer token of Alertmanager, Grafana and Prometheus; it is made at first use.

    The token file of version 0.1 is never replaced silently, because Alertmanager and Grafana, which send that token, would get 401.
    Raises  UsageError where only the file of version 0.1 exists; InfrastructureError as ``load_or_create``.
    """
    path, old = root / token_file, root / TOKEN_OF_0_1
    if not path.exists() and old.is_file():
        raise UsageError(
            f"{path} does not exist, but version 0.1 left a token in {old}",
            hint=f"move it, so that Alertmanager, Grafana and Prometheus keep it: mkdir -p {path.parent} && mv {old} {path}",
        )
    return load_or_create(path)


def load_or_create(path: Path, *, signs: bool = False) -> str:
    """Return the text of a secret file, made at first use, readable by its owner only.

    ``signs`` True: it is a signing key, and a file that other accounts can read is refused. False: it is a token, which other accounts
    (Alertmanager's) read too, so a file that everybody can read only logs a warning.
    Raises  InfrastructureError where the file cannot be made or read, is too short, or is refused.
    """
    try:
        if not path.exists():
            atomic_io.create_exclusive(path, f"{secrets.token_hex(32)}\n".encode(), mode=0o600)
        status, result = path.stat(), path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        raise InfrastructureError(
            f"{path} cannot be read: {error.strerror}",
            hint="it holds a secret of the retrain controller: check its permissions",
        ) from error
    rights = stat.S_IMODE(status.st_mode)
    if signs and rights & 0o077:
        raise InfrastructureError(
            f"{path} signs approval links, and other users may read it (mode {rights:o})",
            hint="delete it: a new one is created, and open approvals are requested again; chmod 600 is enough where nobody else has an account",
        )
    if rights & 0o004 and status.st_uid == os.getuid():
        _log.warning("everybody on this machine may read %s (mode %o)", path, rights)
    if len(result) < 32:
        raise InfrastructureError(
            f"{path} holds {len(result)} characters; at least 32 are needed", hint="delete it: a new one is made"
        )
    return result
