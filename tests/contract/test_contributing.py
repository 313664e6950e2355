"""CONTRIBUTING.md stays short, and what it points to exists."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
PATH = re.compile(r"`(\.?[\w./-]+(?:/|\.\w+|/[\w.-]+))`")


def list_paths() -> list[str]:
    return [name for name in PATH.findall(TEXT) if "NAME" not in name and "/" in name]


def test_it_is_short() -> None:
    assert len(TEXT.splitlines()) <= 120


def test_every_path_exists() -> None:
    paths = list_paths()
    assert len(paths) > 40
    assert [name for name in paths if not ((ROOT / name).exists() or (ROOT / "src" / "tunectl" / name).exists())] == []


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert links
    assert [name for name in links if not (ROOT / name).exists()] == []


def test_every_make_target_exists() -> None:
    targets = set(re.findall(r"(?:`|    )make ([\w-]+)", TEXT))
    known = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert len(targets) >= 10
    assert targets <= known


def test_every_name_in_capitals_or_camel_case_exists() -> None:
    source = "\n".join(path.read_text() for path in (ROOT / "src" / "tunectl").rglob("*.py"))
    names = set(re.findall(r"`([A-Z][A-Za-z_]+)\b(?:\(|`)", TEXT)) - {"NameStage", "NAME", "TUNECTL_CI", "LICENSE"}
    assert {"TunectlConfig", "READERS", "SubprocessEngine", "RejectedRecord"} <= names
    assert [
        name for name in sorted(names) if not re.search(rf"^\s*(?:class {name}\b|{name}\b.*=)", source, re.MULTILINE)
    ] == []


def test_the_layers_are_those_of_the_project() -> None:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    assert "\n".join(f"    {line}" for line in layers) in TEXT
