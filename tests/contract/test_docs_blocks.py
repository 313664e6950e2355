"""Every console, YAML and Python block of the documents runs, or says in its fence that it is only shown."""

from __future__ import annotations

import runpy
import shutil
from pathlib import Path

import pytest
from conf_copy import copy_conf
from docs_blocks import RUN, list_fences, parse_page, split_commands

ROOT = Path(__file__).parents[2]
SITE = runpy.run_path(str(ROOT / "docs" / "build_site.py"))
PAGES = [ROOT / "README.md", *(ROOT / source for source in SITE["list_sources"](ROOT) if source.endswith(".md"))]
"""All pages of the site, also those that lie outside docs/, and the README of the repository."""


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the configuration of this checkout; nothing is recorded in it."""
    copy_conf(tmp_path)
    shutil.copyfile(ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if list(parse_page(page).examples())], ids=name)
def test_the_blocks_of_a_page_run(page: Path, project: Path) -> None:
    for example in parse_page(page).examples():
        example.evaluate()


def test_a_block_that_does_not_run_is_marked() -> None:
    """Each block has a language; the marks are few, and only on what could run."""
    fences = {page: list_fences(page.read_text(encoding="utf-8")) for page in PAGES}
    wrong = [
        f"{name(page)}:{line}: ```{language} {mark}".rstrip()
        for page, found in fences.items()
        for line, language, mark in found
        if not language
        or (mark and (language, mark) != ("console", "recorded") and (mark != "shown" or language not in RUN))
    ]
    assert wrong == []
    blocks = [(language, mark) for found in fences.values() for _, language, mark in found if language in RUN]
    examples = sum(len(list(parse_page(page).examples())) for page in PAGES)
    assert examples == sum(mark != "shown" for _, mark in blocks), "sybil and the marks count the same blocks"
    assert examples >= 15
    assert len(blocks) >= 50


def test_the_site_shows_blocks_without_their_marks() -> None:
    """Python-Markdown would take a fence with a mark for text."""
    for page in PAGES[1:]:
        source = name(page)
        text = SITE["change_links"](page.read_text(encoding="utf-8"), source, SITE["list_sources"](ROOT))
        assert [fence for fence in list_fences(text) if fence[2]] == [], source


def test_a_block_that_does_not_print_what_it_shows_is_found(project: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    for text, message in {
        "```console\n$ tunectl check sft.lora_rank=0\n```\n": "exit code 2",
        "```console\n$ tunectl check sft.lora_rank=0\ntunectl: something else\n```\n": "must be a whole number",
        "```console\n$ rm -rf all\n```\n": "mark the block",
        "```yaml\nlora_rank: 8\n```\n": "the first line names no file",
        "```yaml\n# conf/sft/small.yaml\ndefaults: [lora, _self_]\nlora_rnk: 8\n```\n": "lora_rnk",
        "```python\nassert 1 == 2\n```\n": "",
    }.items():
        page.write_text(text)
        (example,) = parse_page(page).examples()
        with pytest.raises(AssertionError, match=message):
            example.evaluate()


def test_commands_are_read_with_their_output() -> None:
    text = "$ tunectl a \\\n    b=1   # why\nline\n$ tunectl c\n"
    assert list(split_commands(text)) == [("tunectl a      b=1   # why", "line\n"), ("tunectl c", "")]
