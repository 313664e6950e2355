"""What the documents refer to exists, and the README stays short."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import source_trees

ROOT = Path(__file__).parents[2]
DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def find_anchors(path: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}


def test_the_readme_has_at_most_150_lines_of_100_columns():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 100] == []


@pytest.mark.parametrize("page", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    broken = []
    for target in LINK.findall(CODE.sub("", page.read_text(encoding="utf-8"))):
        name, _, anchor = target.partition("#")
        if "://" in target:
            continue
        path = (page.parent / name).resolve() if name else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in find_anchors(path)):
            broken.append(target)
    assert broken == []


def test_every_page_is_linked_from_an_index():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in DOCS
        for target in LINK.findall(page.read_text(encoding="utf-8"))
    }
    assert [str(page.relative_to(ROOT)) for page in DOCS[1:] if page.resolve() not in linked] == []


def test_every_path_on_the_page_of_the_architecture_exists():
    text = (ROOT / "docs" / "about" / "architecture.md").read_text(encoding="utf-8")
    written = {"artifacts/", "config/", "metrics/"}  # by the stages; the last two are below artifacts/
    names = set(re.findall(r"`([\w.]+/[\w./]*)`", text)) - written
    assert len(names) > 60, "the table of the five tests is gone, or is written another way"
    roots = (ROOT, ROOT / "src" / "tunectl")
    assert sorted(name for name in names if not any((root / name).exists() for root in roots)) == []


def rows_of_the_architecture() -> dict[str, list[str]]:
    """The files that the first sentence of each row names, by the number of its question."""
    text = (ROOT / "docs" / "about" / "architecture.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (\d\w?)\. [^|]+ \| [^|]+ \| (.+) \|$", text, re.MULTILINE)
    return {number: re.findall(r"`([\w/]+\.\w+)`", cell.partition(". ")[0]) for number, cell in cells}


def find_imports(tree: ast.Module) -> Iterator[str]:
    """Names of modules that a module imports, also by a text; one that ends in a dot stands for the modules of a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{item.name}" for item in node.names))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("tunectl."):
            yield node.value.partition(":")[0]


def find_unlinked(files: list[str]) -> list[str]:
    """The Python files of a row that neither import another one of it nor are imported by one."""
    trees = {name: source_trees.parse_package().get(source_trees.SOURCE / name) for name in files}
    modules = {
        name: "tunectl." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name, tree in trees.items()
        if tree
    }
    imports = {name: set(find_imports(trees[name])) for name in modules}
    linked = set()
    for name in modules:
        for other, module in modules.items():
            if other != name and imports[name] & {module, f"{module.rpartition('.')[0]}."}:
                linked |= {name, other}
    return sorted(modules.keys() - linked)


@pytest.mark.parametrize(("number", "files"), rows_of_the_architecture().items())
def test_the_files_of_a_row_import_each_other(number: str, files: list[str]) -> None:
    assert len(files) > 2, number
    assert find_unlinked(files) == []


def test_a_file_that_a_row_does_not_need_is_found() -> None:
    assert find_unlinked(["registry/release_store.py", "registry/event_log.py", "chat/template.py"]) == [
        "chat/template.py"
    ]


def test_the_counts_below_the_table_are_those_of_its_rows() -> None:
    text = (ROOT / "docs" / "about" / "architecture.md").read_text(encoding="utf-8")
    counts = re.search(r"after (\d+) files,.*? load in (\d+), and the learning rate\s+passes (\d+)", text)
    rows = rows_of_the_architecture()
    assert counts is not None
    assert [int(count) for count in counts.groups()] == [len(set(rows[number])) for number in ("3", "4", "5")]


def test_the_version_is_that_of_the_newest_section_of_the_changes() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    heading = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert heading is not None
    assert heading[1] == version


def test_the_glossary_has_one_meaning_a_word():
    text = (ROOT / "docs" / "concepts" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    words = [word for word in words if word not in {"word", "---"}]
    assert len(words) > 100
    assert sorted(word for word in set(words) if words.count(word) > 1) == []
