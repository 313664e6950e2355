"""Pages of the documentation are found by name, heading, or the name of an error."""

from __future__ import annotations

import ast
import os
from pathlib import Path

import pytest

from tunectl.cli import demo
from tunectl.cli.main import main
from tunectl.core import distribution, documentation, error_slugs
from tunectl.core.errors import InfrastructureError, UsageError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small site below a package folder, as a wheel has it."""
    folder = tmp_path / "lib" / "tunectl" / "_site"
    pages = {
        "index.html": '<h1 id="documentation">Documentation</h1>',
        "guides/index.html": "<h1>Guides</h1>",
        "guides/serve.html": "<h1 id=serve>Serve</h1><h2 id=elsewhere>Elsewhere</h2>",
        "reference/errors.html": '<h4 id="cannot-be-read">cannot-be-read</h4>',
        "reference/settings.html": '<h2 id="sft">sft</h2><code>sft.lora_rank</code>',
        "reference/commands.html": '<h3 id="tunectl-release-list">tunectl release list</h3>',
    }
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("slug", "place"),
    [
        ("", "index.html"),
        ("guides", "guides/index.html"),
        ("serve", "guides/serve.html"),
        ("guides/serve.md", "guides/serve.html"),
        ("serve#elsewhere", "guides/serve.html#elsewhere"),
        ("sft", "reference/settings.html#sft"),
        ("sft.lora_rank", "reference/settings.html#sft"),
        ("release list", "reference/commands.html#tunectl-release-list"),
        ("cannot-be-read", "reference/errors.html#cannot-be-read"),
    ],
)
def test_a_slug_names_a_page(site: Path, slug: str, place: str) -> None:
    assert documentation.find_page(site, slug).address == f"{site.as_uri()}/{place}"


@pytest.mark.parametrize(
    ("slug", "message", "hint"),
    [
        ("srve", "srve: the documentation has no such page or heading", "did you mean serve?"),
        ("sft.rank", "sft.rank: the documentation has no such page or heading", "tunectl docs opens the first page"),
        ("zzz", "zzz: the documentation has no such page or heading", "tunectl docs opens the first page"),
        ("serve#elsewere", "serve#elsewere: serve.html has no heading elsewere", "did you mean elsewhere or serve?"),
    ],
)
def test_what_is_not_there_is_said_with_near_names(site: Path, slug: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        documentation.find_page(site, slug)
    assert caught.value.message == message
    assert hint in caught.value.hint


def test_pages_of_the_wheel_come_first_then_built_ones_then_markdown(site: Path, tmp_path: Path) -> None:
    package = site.parent
    assert documentation.find_folder(package) == site
    (site / "index.html").rename(site / "gone")
    with pytest.raises(InfrastructureError, match="this installation of tunectl has no documentation"):
        documentation.find_folder(package)
    for folder, name in ((tmp_path / "docs", "README.md"), (tmp_path / "build" / "docs" / "site", "index.html")):
        folder.mkdir(parents=True)
        (folder / name).touch()
        assert documentation.find_folder(package) == folder


def test_markdown_pages_of_this_checkout_have_the_same_headings() -> None:
    for slug, place in {
        "tutorial": "tutorial.md",
        "cannot-be-read": "reference/errors.md#cannot-be-read",
        "tunectl-serve": "reference/commands.md#tunectl-serve",
        "release list": "reference/commands.md#tunectl-release-list",
        "serve keys": "reference/commands.md#tunectl-serve",
        "sft.lora_rank": "reference/settings.md#sft",
    }.items():
        assert documentation.find_page(ROOT / "docs", slug).address == f"{(ROOT / 'docs').as_uri()}/{place}"


def test_docs_opens_a_browser_where_there_is_one(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(documentation, "find_folder", lambda: site)
    browser = tmp_path / "browser"
    browser.write_text('#!/bin/sh\necho "$1" >> "$0.opened"\n')
    browser.chmod(0o755)
    for name in ("BROWSER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    address = f"{site.as_uri()}/reference/errors.html#cannot-be-read"
    assert main(["docs", "cannot-be-read"]) == 0
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    assert main(["docs", "--print", "cannot-be-read"]) == 0
    assert not Path(f"{browser}.opened").exists()
    assert main(["docs", "cannot-be-read"]) == 0
    assert Path(f"{browser}.opened").read_text() == f"{address}\n"
    assert capfd.readouterr().out == f"{address}\n" * 3


def test_docs_prints_a_markdown_file_where_nothing_was_built(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(documentation, "find_folder", lambda: ROOT / "docs")
    assert main(["docs", "cannot-be-read"]) == 0
    seen = capsys.readouterr()
    assert seen.out == f"{ROOT}{os.sep}docs{os.sep}reference{os.sep}errors.md#cannot-be-read\n"
    assert seen.err == "make docs builds the pages for a browser\n"


def test_an_error_of_the_command_line_names_its_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs", "qqqqqq"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "tunectl: qqqqqq: the documentation has no such page or heading"
    assert lines[2:] == ["  more: tunectl docs the-documentation-has-no-such-page-or"]
    assert documentation.find_page(ROOT / "docs", lines[2].split()[-1]).path.name == "errors.md"


def test_every_error_of_the_index_is_opened_by_its_name() -> None:
    index = ROOT / "docs" / "reference" / "errors.md"
    anchors = documentation.read_anchors(index)
    assert len(anchors) > 500
    assert [slug for slug in anchors if documentation.find_page(ROOT / "docs", slug) != (index, slug)] == []


def test_a_missing_extra_is_one_line_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(demo, "PACKAGES", ("no_such_package",))
    monkeypatch.setattr(distribution, "_find_origin", lambda: "/dist/one.whl")
    assert main(["demo"]) == 4
    line = "tunectl demo needs the extra [console]: uvx --from '/dist/one.whl[console]' tunectl demo"
    assert capsys.readouterr().err == f"tunectl: {line}\n"


def test_an_error_that_was_raised_elsewhere_or_never_has_no_entry() -> None:
    assert error_slugs.find_slug(UsageError("there is no such thing at all")) is None
    with pytest.raises(UsageError) as caught:
        raise UsageError("there is no such thing at all")
    assert error_slugs.find_slug(caught.value) is None, "raised by a test, not by the package"


@pytest.mark.parametrize(
    ("source", "slug"),
    [
        ('raise UsageError(f"{path}: cannot be read: {why}")', "cannot-be-read"),
        (
            'raise a.UsageError("one two three " + f"{x} four five six seven eight")',
            "one-two-three-four-five-six-seven",
        ),
        ('raise UsageError(f"{name} doesn\'t fit {x}")', None),
        ("raise UsageError(message)", None),
        ("raise", None),
    ],
)
def test_a_slug_is_the_first_constant_words(source: str, slug: str | None) -> None:
    assert next((found for _, found, _ in error_slugs.iter_raises(ast.parse(source))), None) == slug
