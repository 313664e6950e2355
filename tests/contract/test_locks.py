"""The lock files hold what pyproject.toml asks for: whoever installs them has every extra that they promise."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def asked(extra: str) -> list[Requirement]:
    """What an extra needs, ours taken apart; the core first."""
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    todo, seen = [extra], set()
    while todo:
        name = todo.pop()
        seen.add(name)
        for one in map(Requirement, PROJECT["optional-dependencies"][name]):
            if one.name == PROJECT["name"]:
                todo += [each for each in sorted(one.extras) if each not in seen]
            else:
                found.append(one)
    return found


def locked(name: str) -> dict[str, str]:
    """Package to version, or to a range where it is one; files that are named are read, too."""
    text = (ROOT / "requirements" / name).read_text()
    found = {}
    for line in text.splitlines():
        if line.startswith("-r "):
            found |= locked(line.removeprefix("-r ").strip())
        elif line and line[0] not in "#-":
            package, _, rest = re.fullmatch(r"([\w.-]+)(\[.*?\])?(.*)", line).groups()
            found[canonicalize_name(package)] = rest.partition(";")[0].strip()
    return found


@pytest.mark.parametrize(("name", "extra"), [("run.txt", "all"), ("dev.txt", "dev")])
def test_a_lock_holds_everything_that_its_extra_asks_for(name: str, extra: str) -> None:
    """`make lock` mends it."""
    kept, wrong = locked(name), {}
    for one in asked(extra):
        if one.marker is not None and not one.marker.evaluate():
            continue
        version = kept.get(canonicalize_name(one.name))
        if version is None or (version.startswith("==") and not one.specifier.contains(version[2:], prereleases=True)):
            wrong[str(one)] = version or "absent"
    assert wrong == {}
