"""The pages of the documentation: built ones in the wheel or in a checkout, else the Markdown files of a checkout."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

from tunectl.core.errors import InfrastructureError, UsageError

_PACKAGE = Path(__file__).parents[1]
_ANCHOR = {".html": re.compile(r' id="?([\w-]+)"?[ >]'), ".md": re.compile(r"^#+ (.+)$", re.MULTILINE)}
_WITH_ANCHORS = ("errors", "commands", "settings", "glossary")
"""Pages whose headings can be named without their page; the first page with that heading is taken."""


class DocumentationPage(NamedTuple):
    """A file of the documentation, and the anchor of one of its headings or ``""``."""

    path: Path
    anchor: str

    @property
    def address(self) -> str:
        """The page's address for a browser, with the anchor."""
        return self.path.as_uri() + (f"#{self.anchor}" if self.anchor else "")


def find_folder(package: Path = _PACKAGE) -> Path:
    """Return the folder of the documentation: the pages in the wheel, those that ``make docs`` built, or the Markdown files.

    Raises:
        InfrastructureError: where this installation has none of them.
    """
    checkout = package.parents[1]
    for folder in (package / "_site", checkout / "build" / "docs" / "site", checkout / "docs"):
        if (folder / "index.html").is_file() or (folder / "README.md").is_file():
            return folder
    raise InfrastructureError(
        "this installation of tunectl has no documentation",
        hint="install a released wheel, or run make docs in a checkout",
    )


def find_page(folder: Path, slug: str) -> DocumentationPage:
    """Return the page, with the anchor, that ``tunectl docs SLUG`` opens.

    Args:
        folder: Folder of the pages.
        slug: A page with or without its folder (``serve``, ``guides/serve``), with or without ``#heading``; or a heading of the
            index of errors, of the commands, the settings or the glossary; or a command (``release list``); or a setting
            (``sft.lora_rank``). Empty for the first page.

    Raises:
        UsageError: where there is no such page or heading, with near names.
    """
    name, _, anchor = slug.partition("#")
    suffix = ".html" if (folder / "index.html").is_file() else ".md"
    pages = _list_pages(folder, suffix)
    path = pages.get(name.removesuffix(".md").removesuffix(".html").strip("/"))
    if path is None and not anchor:
        for page in _WITH_ANCHORS:
            heading = _find_anchor(pages[page], name) if page in pages else ""
            if heading:
                return DocumentationPage(pages[page], heading)
    if path is None:
        raise UsageError(f"{slug}: the documentation has no such page or heading", hint=_suggest(name, pages))
    if anchor and anchor not in read_anchors(path):
        raise UsageError(f"{slug}: {path.name} has no heading {anchor}", hint=_suggest(anchor, read_anchors(path)))
    return DocumentationPage(path, anchor)


def _find_anchor(page: Path, name: str) -> str:
    """Return the anchor of ``page`` under which ``name`` stands: a heading, a command without ``tunectl``, or a setting; empty: nowhere."""
    anchors = read_anchors(page)
    parts = name.split()
    commands = ["-".join(["tunectl", *parts[:count]]) for count in range(len(parts), 0, -1)]
    for anchor in (name, *commands):  # the page of a verb explains sub-verbs without a heading of their own
        if anchor in anchors:
            return anchor
    section = name.partition(".")[0]
    is_setting = "." in name and section in anchors and name in page.read_text(encoding="utf-8")
    return section if is_setting else ""


def read_anchors(path: Path) -> dict[str, None]:
    """Return the anchors of a page as keys, in its order; those of a Markdown file as GitHub makes them."""
    headings = _ANCHOR[path.suffix].findall(path.read_text(encoding="utf-8"))
    if path.suffix == ".md":
        headings = [re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings]
    return dict.fromkeys(headings)


def _list_pages(folder: Path, suffix: str) -> dict[str, Path]:
    """Return each page by its path without suffix and by its name alone, and each index by its folder."""
    pages: dict[str, Path] = {}
    for path in sorted(folder.rglob(f"*{suffix}")):
        page_path = path.relative_to(folder).with_suffix("")
        if page_path.name in {"index", "README"}:
            pages["" if page_path.parent == Path() else page_path.parent.as_posix()] = path
        else:
            pages[page_path.as_posix()] = path
            pages.setdefault(page_path.name, path)
    return pages


def _suggest(name: str, names: dict[str, Path] | dict[str, None]) -> str:
    near = get_close_matches(name, names, 3)
    return f"did you mean {' or '.join(near)}?" if near else "tunectl docs opens the first page, which has a search"
