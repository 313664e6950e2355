"""The name under which this package is installed, and the pip commands that hints show.

The import name and the command are ``tunectl``. On PyPI that name belongs to another project, so a hint with it would
install another project's package. Everything that names the distribution uses this module; a contract test searches for others.
"""

from __future__ import annotations

from typing import Final

DISTRIBUTION: Final = "tunectl-lm"


def format_install_command(*extras: str) -> str:
    """Return the pip command that installs this package with ``extras``."""
    return f"pip install '{DISTRIBUTION}[{','.join(extras)}]'"


def format_tool_command(extra: str, *arguments: str) -> str:
    """Return the command of uv that runs ``tunectl`` with an extra, from the file or folder of this installation."""
    return f"uvx --from '{_find_origin()}[{extra}]' tunectl {' '.join(arguments)}"


def _find_origin() -> str:
    """Return the wheel or folder that this distribution was installed from; its name where it came from an index."""
    import json
    from importlib.metadata import PackageNotFoundError, distribution
    from urllib.parse import unquote, urlsplit

    try:
        text = distribution(DISTRIBUTION).read_text(
            "direct_url.json"
        )  # PEP 610: written by installers, not for an index
        address = urlsplit(json.loads(text or "{}").get("url", ""))
    except (PackageNotFoundError, ValueError, AttributeError):
        return DISTRIBUTION
    return unquote(address.path) if address.scheme == "file" and address.path else DISTRIBUTION


def format_reinstall_command() -> str:
    """Return the pip command that restores files that are missing from this installation."""
    return f"pip install --force-reinstall {DISTRIBUTION}"


def normalize_name() -> str:
    """Return the name as folders of installed metadata spell it (``tunectl_lm-0.2.0.dist-info``)."""
    return DISTRIBUTION.replace("-", "_")
