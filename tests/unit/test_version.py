"""The version is that of the installed package; code that is only on the path says so."""

import importlib.metadata

import tunectl
from tunectl.core.distribution import DISTRIBUTION


def test_installed_code_has_the_version_of_its_package():
    assert tunectl.__version__ == importlib.metadata.version(DISTRIBUTION)


def test_code_on_the_path_alone_has_one_too(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert tunectl.__version__ == "0+source"
