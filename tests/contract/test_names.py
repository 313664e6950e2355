"""Names: one word has one meaning, and each is the field's."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
import source_trees
from source_trees import SOURCE

ROOT = Path(__file__).parents[2]
FILES = [path for path in source_trees.FILES if path.name != "__init__.py"]

STAGE_CLASSES = {"Inputs", "Outputs", "Metrics"}
FAMILIES = (
    "cli/",
    "pipeline/stages/",
    "config/schema/",
    "backends/reports/",
    "backends/wiring/",
    "console/screens/",
    "console/acts/",
)
"""Folders whose modules may be called like a module elsewhere: a stage, its section and its verb share one name."""
FAMILY_NAMES = {"protocols", "report"}
PARTICIPLES = frozenset(
    [
        "begun",
        "bought",
        "built",
        "caught",
        "chosen",
        "done",
        "drawn",
        "driven",
        "fallen",
        "found",
        "given",
        "gone",
        "heard",
        "held",
        "hidden",
        "kept",
        "known",
        "laid",
        "led",
        "lent",
        "lost",
        "made",
        "meant",
        "met",
        "paid",
        "proven",
        "said",
        "seen",
        "sent",
        "shown",
        "sold",
        "spoken",
        "stood",
        "taken",
        "taught",
        "thought",
        "thrown",
        "told",
        "understood",
        "won",
        "worn",
        "written",
    ]
)
"""Irregular participles; forms that are imperatives as well (read, set, put, cut, let, run, split) are none of them."""
VERBS_IN_ED = {"embed", "feed", "need", "seed", "shed", "speed"}
ADJECTIVES = {"added", "fused", "grouped", "nested", "shared", "stacked", "tuned"}
"""Before a noun they say which one, as in ``nested_subsets``; alone they would be a participle."""
SPELLINGS = re.compile(
    r"licence|judgement|centre|normalis|optimis|labelled|modelled|colour|behaviour|tokenis|summaris|recognis|neighbour(?!hood)",
    re.IGNORECASE,
)
DATA = {"e2e.yaml": "centre", "name_words.py": "centre", "person_names.py": "neighbour"}
"""Files whose data holds such a word: values of E2E, words of names as people write them."""


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_property(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any("property" in ast.unparse(one) or ".setter" in ast.unparse(one) for one in node.decorator_list)


def begins_with_participle(name: str) -> bool:
    first, _, rest = name.strip("_").partition("_")
    if first in PARTICIPLES:
        return True
    regular = first.endswith("ed") and first not in VERBS_IN_ED
    return regular and not (rest and first in ADJECTIVES)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("kept", True),
        ("_folded", True),
        ("written_rows", True),
        ("embed", False),
        ("nested_subsets", False),
        ("nested", True),
        ("read_rows", False),
        ("open_release", False),
        ("feed", False),
    ],
)
def test_participles_are_told_from_verbs(name: str, expected: bool) -> None:
    assert begins_with_participle(name) is expected


def named_trees() -> Iterator[tuple[Path, ast.Module]]:
    """Modules with a name of their own, and their trees."""
    trees = source_trees.parse_package()
    return ((path, trees[path]) for path in FILES)


def test_functions_are_named_by_verbs_and_not_by_participles() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"
        for path, tree in named_trees()
        for node in functions(tree)
        if not is_property(node) and begins_with_participle(node.name)
    ]
    assert wrong == []


def public_classes(tree: ast.Module) -> Iterator[str]:
    """Classes of a module, also those inside a function or a class, and aliases of types at its top level."""
    yield from (node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            alias = node.targets[0].id
            if re.fullmatch(r"[A-Z][a-z]\w*[a-z]\w*", alias):
                yield alias


def test_no_class_name_is_used_twice() -> None:
    where: dict[str, set[str]] = defaultdict(set)
    for path, tree in named_trees():
        for name in public_classes(tree):
            if not name.startswith("_"):
                where[name].add(path.relative_to(SOURCE).as_posix())
    twice = {name: sorted(files) for name, files in where.items() if len(files) > 1 and name not in STAGE_CLASSES}
    assert twice == {}


def test_no_module_is_named_like_another_or_like_one_of_the_standard_library() -> None:
    where: dict[str, list[str]] = defaultdict(list)
    for path in FILES:
        name = path.relative_to(SOURCE).as_posix()
        if not name.startswith(FAMILIES) and path.stem not in FAMILY_NAMES and path.stem != "__main__":
            where[path.stem].append(name)
    assert {stem: names for stem, names in where.items() if len(names) > 1} == {}
    assert [str(path) for path in FILES if path.stem in sys.stdlib_module_names and path.stem != "__main__"] == []


def test_spelling_is_american() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{number} {word}"
        for path in [*FILES, *sorted((ROOT / "conf").rglob("*.yaml"))]
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for word in SPELLINGS.findall(line)
        if '"licence"' not in line and 'OLD_FOLDER: Final = "judgements"' not in line and DATA.get(path.name) != word
    ]
    assert wrong == []


def docstrings(tree: ast.Module) -> Iterator[ast.Constant]:
    """Strings that stand alone: of modules, classes and functions, and those below an attribute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value


def names_something(parts: list[str], trees: dict[Path, ast.Module]) -> bool:
    """Whether dotted parts are a package or a module of ours, or what a module defines."""
    path = SOURCE
    while parts and (path / parts[0]).is_dir():
        path, parts = path / parts[0], parts[1:]
    if not parts:
        return True
    file, inner = (path / f"{parts[0]}.py", parts[1:])
    if file not in trees:
        file, inner = path / "__init__.py", parts
    nodes = list(ast.walk(trees[file])) if file in trees else []
    known = {getattr(node, "name", None) or getattr(node, "id", None) for node in nodes}
    return bool(nodes) and known.issuperset(inner)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chat.tool_calls", True),
        ("config.schema.sft.Sft", True),
        ("generation", True),
        ("chat.tools", False),
        ("config.sft.Sft", False),
        ("training.rl.rl_types.Reward", False),
    ],
)
def test_names_of_modules_and_of_what_they_define_are_known(name: str, expected: bool) -> None:
    assert names_something(name.split("."), source_trees.parse_package()) is expected


def test_dotted_names_in_docstrings_exist() -> None:
    trees = source_trees.parse_package()
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    packages = {path.name for path in SOURCE.iterdir() if path.is_dir()}
    wrong = [
        f"{path.relative_to(ROOT)}:{text.lineno} {name}"
        for path, tree in trees.items()
        for text in docstrings(tree)
        for name in re.findall(r"``(?:tunectl\.)?([a-z_]+(?:\.\w+)+)(?:\(\))?``", text.value)
        if name.split(".")[0] in packages
        and not name.endswith((".yaml", ".json"))
        and f"`{name}`" not in settings
        and not names_something(name.split("."), trees)
    ]
    assert wrong == []
