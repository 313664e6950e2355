"""Import an optional library at the last moment, or say which extra brings it."""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any

from tunectl.core.distribution import format_install_command
from tunectl.core.errors import MissingExtraError


def import_optional(module: str, *, extra: str) -> Any:
    """Import ``module``, or raise with the pip line of the extra that holds it.

    Returns the module, typed ``Any`` because most of these libraries carry no types.
    Raises  MissingExtraError when the library itself is absent; an ImportError from inside the library passes through
            unchanged, because reinstalling the extra would not mend it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        raise _missing(root, extra) from error


def require_installed(package: str, *, extra: str) -> None:
    """Raise as ``import_optional`` does where ``package`` is absent; it is not imported, since another process will need it.

    Raises  MissingExtraError.
    """
    if find_spec(package) is None:
        raise _missing(package, extra)


def _missing(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(f"{package} is not installed, and this needs it", hint=format_install_command(extra))
