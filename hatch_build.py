"""Put the built documentation into sdist and wheel, where ``make docs`` built it from the pages that lie here.

Without it, or with pages of another state, the package is built without: `tunectl docs` says so. The release workflow builds the
pages first, and fails where the wheel has none.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SITE = Path("build/docs/site")
ONLY_SERVED = ("search.json", "sitemap.xml")
"""Files that only a web server needs; a browser that opens a folder reads search.js."""
PICTURE = re.compile(r'<picture>.*?<img alt="([^"]*)".*?</picture>|<img alt="([^"]*)" src="[^"]*\.png" ?/?>', re.DOTALL)
"""Pictures are as large as all pages; in a wheel their description stands in their place."""
FAVICON = "favicon.png"


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
            picture = path.suffix in {".webp", ".png"} and path.name != FAVICON
            if path.is_file() and not (wheel and (picture or path.name in (*ONLY_SERVED, DIGEST))):
                source = self.drop_pictures(path) if wheel and path.suffix == ".html" else path
                build_data["force_include"][str(source)] = str(place / path.relative_to(root / SITE))

    def drop_pictures(self, page: Path) -> Path:
        """Return the page, or a copy of it with the descriptions of its pictures in their place."""
        text = page.read_text(encoding="utf-8")
        described = PICTURE.sub(lambda found: f"<em>Picture: {found[1] or found[2]}.</em>", text)
        if described == text:
            return page
        copy = Path(tempfile.mkdtemp(dir=self.scratch)) / page.name
        copy.write_text(described, encoding="utf-8")
        return copy

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copies."""
        shutil.rmtree(self.scratch, ignore_errors=True)
