"""Import an optional library when it is needed, or raise an error that names its extra."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from importlib.util import find_spec
from typing import Any, NamedTuple

from tunectl.core.distribution import format_install_command
from tunectl.core.errors import MissingExtraError


class RequiredPackage(NamedTuple):
    """A library that will be imported, the extra that installs it, and the setting or stage that needs it."""

    package: str
    """Import name of the library, without submodules."""
    extra: str
    """The extra of this distribution that installs it."""
    used_by: str
    """The stage or command that imports it, for the message."""


def import_optional(module: str, *, extra: str) -> Any:
    """Import ``module``, or raise with the pip command for the extra that installs it.

    Returns the module, typed ``Any`` because most of these libraries carry no types.
    Raises  MissingExtraError when the library itself is absent; an ImportError from inside the library passes through
            unchanged, because reinstalling the extra would not solve it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        root = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != root:
            raise
        raise _build_missing_error(root, extra) from error


def require_installed(package: str, *, extra: str) -> None:
    """Check that ``package`` is installed, without importing it: another process will import it.

    Raises  MissingExtraError.
    """
    if find_spec(package) is None:
        raise _build_missing_error(package, extra)


def find_missing(packages: Iterable[RequiredPackage]) -> list[RequiredPackage]:
    """Return the packages that are not installed, in the order given; nothing is imported."""
    return [package for package in packages if find_spec(package.package) is None]


def describe_missing(missing: Iterable[RequiredPackage]) -> MissingExtraError:
    """Return one error for all absent packages: one line per extra, and one pip command that installs all of them."""
    extras: dict[str, tuple[dict[str, None], dict[str, None]]] = {}
    for item in missing:
        packages, users = extras.setdefault(item.extra, ({}, {}))
        packages[item.package] = users[item.used_by] = None
    lines = [
        f"  {extra}: {', '.join(packages)} (for {', '.join(users)})" for extra, (packages, users) in extras.items()
    ]
    return MissingExtraError(
        "\n".join(["this recipe needs packages that are not installed", *lines]), hint=format_install_command(*extras)
    )


def require_all(packages: Iterable[RequiredPackage]) -> None:
    """Raise one error that names every absent package, so that nobody installs extras one failure at a time.

    Raises  MissingExtraError.
    """
    missing = find_missing(packages)
    if missing:
        raise describe_missing(missing)


def _build_missing_error(package: str, extra: str) -> MissingExtraError:
    return MissingExtraError(f"{package} is not installed, and this needs it", hint=format_install_command(extra))
