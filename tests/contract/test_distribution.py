"""One distribution name: on PyPI ``tunectl`` is another project, so nothing may tell a user to install that."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import source_trees
import yaml
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from tunectl.core.distribution import (
    DISTRIBUTION,
    format_install_command,
    format_reinstall_command,
    normalize_name,
)

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
# The prose after a command begins with a bracket, a comma, a colon or a semicolon.
COMMAND = re.compile(r"(?:pip|pipx|uv tool|uv) (?:install|run) +((?:\[[^\]]*\]|[^\n\[),:;])*)|uvx +([^\n),:;]*)")
# A command or an extra of the package that is not ours: `pip install tunectl`, `tunectl[train]`.
# Behind `uvx --from SOURCE` the name is a command, and SOURCE is what is installed.
ANOTHER = re.compile(
    r"(?<![\w./-])tunectl\[(?!\[)|--from ['\"]?tunectl(?![\w./:-])"
    r"|\b(?:install|uvx(?! --from)) [^\n|;&,:]*(?<![\w./{-])tunectl(?![\w./:-])"
)


def read_texts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every string of a module; the values in an f-string read ``{}``."""
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values]
            yield node.lineno, "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.lineno, node.value


def find_requirements(text: str) -> list[str]:
    """What the pip commands of a text install: names only, without options, lock files and f-string values."""
    found = []
    for match in COMMAND.finditer(text):
        listed = (match[1] or match[2]).split()
        source = listed.index("--from") if "--from" in listed else None
        words = iter(listed if source is None else listed[source + 1 : source + 2])
        for word in words:
            if word in {"-r", "--requirement"}:
                next(words, None)
                continue
            try:
                found.append(Requirement(word.strip("'\"`.")).name)
            except InvalidRequirement:
                continue
    return found


def collect_hints() -> dict[str, list[str]]:
    """Place in the package to the names in its pip commands."""
    return {
        f"{path.relative_to(ROOT)}:{line}": find_requirements(text)
        for path, tree in source_trees.parse_package().items()
        for line, text in read_texts(tree)
        if COMMAND.search(text)
    }


def list_known_names() -> set[str]:
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def test_the_project_has_the_name_of_the_constant() -> None:
    assert PROJECT["name"] == DISTRIBUTION == "tunectl-lm"
    assert {
        one.name for lines in EXTRAS.values() for one in map(Requirement, lines) if one.name.startswith("tunectl")
    } == {DISTRIBUTION}


def test_extras_that_the_project_asks_of_itself_exist() -> None:
    asked = {
        extra
        for lines in EXTRAS.values()
        for one in map(Requirement, lines)
        if one.name == DISTRIBUTION
        for extra in one.extras
    }
    assert asked
    assert asked <= EXTRAS.keys()


def test_commands() -> None:
    assert format_install_command("inference-log") == "pip install 'tunectl-lm[inference-log]'"
    assert format_install_command("data", "train") == "pip install 'tunectl-lm[data,train]'"
    assert format_reinstall_command() == "pip install --force-reinstall tunectl-lm"


def test_hints_install_only_what_the_project_declares() -> None:
    hints = collect_hints()
    assert len(hints) >= 5
    known = list_known_names()
    wrong = {place: names for place, names in hints.items() if {canonicalize_name(name) for name in names} - known}
    assert wrong == {}


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("pip install 'tunectl[data]'", ["tunectl"]),
        ("pip install --force-reinstall tunectl", ["tunectl"]),
        ("install it (pip install 'trl[vllm]'), or", ["trl"]),
        ("pip install -r requirements/run.txt", []),
        ("uv pip install tunectl-lm", ["tunectl-lm"]),
        ("uvx --from 'tunectl-lm[console]' tunectl demo", ["tunectl-lm"]),
        ("uvx --from tunectl tunectl demo", ["tunectl"]),
        ("pip install 'tunectl-lm[data,train]' pytest", ["tunectl-lm", "pytest"]),
    ],
)
def test_the_search_sees_a_wrong_name(text: str, names: list[str]) -> None:
    assert find_requirements(text) == names


@pytest.mark.parametrize(
    ("text", "another"),
    [
        ("pip install tunectl", True),
        ("pip install -U 'tunectl[all]'", True),
        ("uvx tunectl demo", True),
        ("uvx --from tunectl tunectl demo", True),
        ("uvx --from 'tunectl[console]' tunectl demo", True),
        ("uvx --from '.[console]' tunectl demo", False),
        ("TUNECTL=tunectl[all,postgres]", True),
        ("pip install 'tunectl-lm[all]'", False),
        ("uvx --from tunectl-lm tunectl-lm", False),
        ("after pip install, run: tunectl check", False),
        ("pip install tunectl-lm; tunectl check", False),
        ("tunectl init", False),
        ("python -m tunectl", False),
    ],
)
def test_the_pattern_of_another_distribution(text: str, another: bool) -> None:
    assert bool(ANOTHER.search(text)) is another


def test_no_file_of_the_project_names_another_distribution() -> None:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    rooms = ("src/", "monitoring/", "requirements/", "conf/", "docs/", ".github/", ".ci/", "examples/")
    files = [
        ROOT / name
        for name in listed.split("\0")
        if (name.startswith(rooms) or "/" not in name) and not name.endswith((".jsonl", ".csv", ".pdf"))
    ]
    assert len(files) > 300
    wrong = []
    for path in files:
        if path.name == "CHANGELOG.md" or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if ANOTHER.search(line):
                wrong.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert wrong == []


def test_images_and_compose_file_install_this_distribution() -> None:
    compose = yaml.safe_load((ROOT / "monitoring" / "compose.yaml").read_text())
    default = compose["x-worker"]["build"]["args"]["TUNECTL"]
    image = (ROOT / "monitoring" / "worker.dockerfile").read_text()
    wanted = re.search(r'^ARG TUNECTL="(.*)"$', image, re.MULTILINE)
    assert wanted is not None
    assert default == f"${{TUNECTL_PACKAGE:-{wanted[1]}}}"
    assert Requirement(wanted[1]).name == DISTRIBUTION
    assert Requirement(wanted[1]).extras <= EXTRAS.keys()
    included = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["include"]
    assert f"{normalize_name()}-*.dist-info/**" in included
