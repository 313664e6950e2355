"""Put the built documentation into sdist and wheel, where ``make docs`` built it from the pages that lie here.

Without it, or with pages of another state, the package is built without: `tunectl docs` says so. The release workflow builds the
pages first, and fails where the wheel has none.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import sys
import tempfile
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SITE = Path("build/docs/site")
ONLY_SERVED = ("search.json", "sitemap.xml")
"""Files that only a web server needs; a browser that opens a folder reads search.js."""
PICTURE = re.compile(
    r'<picture>.*?<img alt="([^"]*)".*?</picture>|<img alt="([^"]*)" src="[^"]*\.(?:png|svg)" ?/?>', re.DOTALL
)
"""Pictures are as large as all pages; in a wheel their description stands in their place."""
FAVICON = "favicon.png"
LEFT_OUT = (
    "decisions/",
    "about/results/",
    "about/architecture.html",
    "about/benchmarks.html",
    "about/changes.html",
    "about/contributing.html",
)
"""Beginnings of pages for whoever develops or upgrades tunectl: the site has them, and a wheel does not."""
MENU_ITEM = re.compile(
    r'<li class="md-nav__item[^"]*">\s*<a href="([^"#]*)[^"]*" class="md-nav__link[^"]*">.*?</a>\s*</li>', re.DOTALL
)
LINK = re.compile(r'<a [^>]*?href="([^":#]+)[^"]*"[^>]*>(.*?)</a>|<link rel="(?:prev|next)" href="([^"]*)">', re.DOTALL)
INDEX = "var __index = "


class DocumentationHook(BuildHookInterface):  # type: ignore[type-arg]
    """The hook that hatchling calls once for each target."""

    @cached_property
    def scratch(self) -> str:
        """A folder for copies of pages."""
        return tempfile.mkdtemp(prefix="tunectl-docs-")

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files of the site to a target."""
        root = Path(self.root)
        if version == "editable" or not (root / SITE).is_dir():
            return
        sys.path.insert(0, str(root / "docs"))
        try:
            from build_site import DIGEST, compute_digest
        finally:
            sys.path.pop(0)
        digest = root / SITE / DIGEST
        if not digest.is_file() or digest.read_text(encoding="utf-8").strip() != compute_digest(root):
            self.app.display_warning(f"{SITE} is older than docs/: the package has no documentation. Run: make docs")
            return
        wheel = self.target_name == "wheel"
        place = Path("tunectl/_site") if wheel else SITE
        for path in sorted((root / SITE).rglob("*")):
            name = path.relative_to(root / SITE).as_posix()
            if path.is_file() and not (wheel and self.is_left_out(name)):
                source = self.shorten(path, name) if wheel else path
                build_data["force_include"][str(source)] = str(place / name)

    def is_left_out(self, name: str) -> bool:
        """Whether a file of the site has no place in a wheel: pictures, records of development, what only a web server needs."""
        file = name.rpartition("/")[2]
        picture = file.endswith((".webp", ".png", ".svg")) and file != FAVICON
        return picture or file in (*ONLY_SERVED, "sources.sha256") or name.startswith(LEFT_OUT)

    def shorten(self, path: Path, name: str) -> Path:
        """Return the file, or a copy without what a wheel leaves out: pictures are described, and of links the words stay."""
        if path.suffix != ".html" and name != "search.js":
            return path
        text = path.read_text(encoding="utf-8")
        if name == "search.js":
            index = json.loads(text.removeprefix(INDEX))
            index["items"] = [item for item in index["items"] if not item["location"].startswith(LEFT_OUT)]
            shorter = f"{INDEX}{json.dumps(index, ensure_ascii=False, separators=(',', ':'))}\n"
        else:
            leads_out = partial(self.leads_out, name)
            shorter = PICTURE.sub(lambda found: f"<em>Picture: {found[1] or found[2]}.</em>", text)
            shorter = MENU_ITEM.sub(lambda found: "" if leads_out(found[1]) else found[0], shorter)
            shorter = LINK.sub(lambda found: (found[2] or "") if leads_out(found[1] or found[3]) else found[0], shorter)
        if shorter == text:
            return path
        copy = Path(tempfile.mkdtemp(dir=self.scratch)) / path.name
        copy.write_text(shorter, encoding="utf-8")
        return copy

    def leads_out(self, page: str, address: str) -> bool:
        """Whether an address on a page is that of a page that a wheel leaves out."""
        return posixpath.normpath(posixpath.join(posixpath.dirname(page), address)).startswith(LEFT_OUT)

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        shutil.rmtree(self.scratch, ignore_errors=True)
