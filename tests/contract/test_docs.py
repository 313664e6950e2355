"""What the documents refer to exists, and the README stays short."""

import re
from pathlib import Path

import pytest

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


def test_the_glossary_has_one_meaning_a_word():
    text = (ROOT / "docs" / "concepts" / "glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+) \| [^|]+ \|$", text, re.MULTILINE)
    words = [word for word in words if word not in {"word", "---"}]
    assert len(words) > 100
    assert sorted(word for word in set(words) if words.count(word) > 1) == []
