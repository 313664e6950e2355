"""Open the trusted keys of a project (``serve.trusted_keys_file``) for whatever moves a champion or canary on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from tunectl.access.signatures import TRUSTED_KEYS_ENV, TrustStore
from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.core import logging_setup
from tunectl.core.errors import TunectlError


def find_trusted_keys_file(layout: ProjectPaths) -> Path | None:
    """Return the path of the file of trusted public keys, from its environment variable, else ``serve.trusted_keys_file``.

    None where neither is set, outside a project, and where ``conf/`` is invalid (a warning is logged).
    """
    path = os.environ.get(TRUSTED_KEYS_ENV)
    if path:
        return layout.root / path
    if not (layout.root / "conf").is_dir():
        return None
    try:
        configured = checks.load_project_config(layout).root.serve.trusted_keys_file
    except (
        TunectlError
    ) as error:  # a mistake in conf/ must not prevent a rollback; servers check signatures all the same
        logging_setup.get_logger(__name__).warning("signatures are not checked: %s", error.message)
        return None
    return layout.root / configured if configured is not None else None


def open_trust(layout: ProjectPaths) -> TrustStore | None:
    """Return the store of trusted keys; None where signatures are not checked.

    Raises  InfrastructureError, DataError where the file cannot be used; MissingExtraError without the extra sign.
    """
    path = find_trusted_keys_file(layout)
    return TrustStore(path) if path is not None else None
