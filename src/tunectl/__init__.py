"""tunectl: declare, build, prove and ship fine-tuned language models.

Importing this package does nothing; ``tunectl.__version__`` is read from the installed metadata on access
(``0+source`` where the code is on the path and not installed).
"""

from __future__ import annotations


def __getattr__(name: str) -> str:
    """Resolve ``__version__`` lazily, so that ``tunectl --help`` reads no package metadata."""
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        from tunectl.core.distribution import DISTRIBUTION

        try:
            return version(DISTRIBUTION)
        except PackageNotFoundError:
            return "0+source"
    raise AttributeError(f"module 'tunectl' has no attribute {name!r}")
