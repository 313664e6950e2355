"""The pages can be built as a site: all are in its navigation, and say the same to GitHub and to Python-Markdown."""

import posixpath
import re
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONFIG = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
FENCE = re.compile(r"^( *)(```).*?^ *```", re.DOTALL | re.MULTILINE)
ITEM = re.compile(r"(?:[-*+]|\d+\.) ")


@pytest.fixture(scope="module")
def build_site():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import build_site

        return build_site
    finally:
        sys.path.remove(str(ROOT / "docs"))


def list_places(entry) -> list[str]:
    """Pages that the navigation names."""
    if isinstance(entry, str):
        return [entry]
    return [place for item in (entry.values() if isinstance(entry, dict) else entry) for place in list_places(item)]


def test_every_page_is_once_in_the_navigation(build_site):
    pages = [place for place in build_site.list_sources(ROOT).values() if place.endswith(".md")]
    assert sorted(list_places(CONFIG["nav"])) == sorted(pages)


def test_the_settings_are_those_that_both_programs_read():
    assert set(CONFIG) == {
        "site_name", "site_description", "docs_dir", "site_dir", "use_directory_urls", "strict", "theme", "extra",
        "extra_javascript", "plugins", "markdown_extensions", "nav",
    }  # fmt: skip
    assert CONFIG["plugins"] == ["search"], "Zensical reads no plugin of MkDocs, and says nothing"
    assert CONFIG["theme"]["font"] is False, "fonts would come from another host"


def test_links_of_copied_pages_stay_within_the_site(build_site):
    places = build_site.list_sources(ROOT)
    lost = []
    for source, place in places.items():
        if place.endswith(".md"):
            text = build_site.change_links((ROOT / source).read_text(encoding="utf-8"), source, places)
            for _, _, target in build_site.LINK.findall("".join(build_site.CODE.split(text)[::2])):
                name = target.partition("#")[0]
                found = posixpath.normpath(posixpath.join(posixpath.dirname(place), name))
                if name and "://" not in target and found not in places.values():
                    lost.append(f"{source}: {target}")
    assert lost == []


def test_a_link_is_changed_with_its_place(build_site):
    places = {"docs/about/README.md": "about/README.md", "CHANGELOG.md": "about/changes.md", "docs/x.md": "x.md"}
    text = "[a](../../CHANGELOG.md#new) [b](../x.md) `[c](../x.md)` [d](../../Makefile) ![e](../../no.png) [f](#g)\n"
    changed = build_site.change_links(text, "docs/about/README.md", places)
    assert changed == "[a](changes.md#new) [b](../x.md) `[c](../x.md)` d e [f](#g)\n"
    assert build_site.change_links("[b](docs/x.md)", "CHANGELOG.md", places) == "[b](../x.md)"
    broken = "`make\nbuild`, [a](../../CHANGELOG.md) and `make`; a ` by itself\n\n[b](../x.md) `"
    assert build_site.change_links(broken, "docs/about/README.md", places) == broken.replace(
        "../../CHANGELOG.md", "changes.md"
    )


def test_lists_and_tables_have_an_empty_line_before_them(build_site):
    """GitHub draws them without one, Python-Markdown as part of the paragraph."""
    wrong = []
    for source, place in build_site.list_sources(ROOT).items():
        if not place.endswith(".md"):
            continue
        text = FENCE.sub(lambda match: "\n" * match[0].count("\n"), (ROOT / source).read_text(encoding="utf-8"))
        lines = ["", *text.splitlines()]
        for number, (before, line) in enumerate(pairwise(lines), start=1):
            begins = (ITEM.match(line) and not ITEM.match(before)) or (line.startswith("|") and before[:1] != "|")
            if begins and before.strip() and before[:1] not in {" ", "#"}:
                wrong.append(f"{source}:{number}: {line[:60]}")
    assert wrong == []


def test_what_is_wrong_with_a_built_page_is_found(build_site, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.html").write_text(
        '<h1 id="top"></h1><a href="../two.html#here">x</a><a href="#top">x</a><a href="https://example.org">x</a>'
        '<a href="gone.html">x</a><a href="../two.html#there">x</a><a href="..">x</a>'
        '<script src="https://cdn.example.org/x.js"></script><img src="//cdn.example.org/x.png"><img src="data:,x">'
    )
    (tmp_path / "two.html").write_text('<p id="here"></p>')
    (tmp_path / "s.css").write_text("a { background: url(https://cdn.example.org/x.png) } b { background: url(x.png) }")
    assert build_site.check_site(tmp_path) == [
        "a/one.html: loads https://cdn.example.org/x.js",
        "a/one.html: loads //cdn.example.org/x.png",
        "a/one.html: gone.html leads nowhere",
        "a/one.html: ../two.html#there: the page has no such anchor",
        "a/one.html: .. leads nowhere",
        "s.css: loads https://cdn.example.org/x.png",
    ]


def test_the_lock_of_the_site_and_that_of_the_tests_agree():
    versions = [
        dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("docs.txt", "dev.txt", "run.txt")
    ]
    site = versions[0]
    assert site["zensical"] == "0.0.73"
    assert {name: other[name] for other in versions[1:] for name in other.keys() & site.keys()} == site
