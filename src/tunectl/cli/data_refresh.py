"""``tunectl data refresh``: ask the servers of declared addresses whether their pages changed.

What a page held is written as its SHA-256 into conf/web_page_digests.json, which ``compose`` reads as it reads files: the next
``tunectl repro`` runs ingest again exactly where a page changed. Commit that file with the rest of ``conf/``.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import RejectedRow
from tunectl.config.schema.ingest import UrlSource


@dataclass(frozen=True, slots=True)
class PageState:
    """Result of asking for one declared web page: new, changed, unchanged or refused."""

    source: str
    url: str
    state: str
    """new (never read before), changed, unchanged, or refused."""
    detail: str
    """Why a page was refused; empty for others."""
    digest: str | None
    """SHA-256 of its content now; for a refused page the last known one, None where there is none."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options and positional arguments of ``tunectl data refresh`` to ``parser``."""
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Request every declared page, conditionally, and write the digests if any page is new or changed; return the exit code.

    Raises  UsageError where no address is declared.
    """
    from dataclasses import asdict

    from tunectl.backends.system import terminal
    from tunectl.core.errors import UsageError

    layout = ProjectPaths()
    sources = _load_url_sources(layout)
    if not sources:
        raise UsageError(
            "no source in ingest.sources is a list of web addresses, so there is no page to check",
            hint="changed files are found by tunectl repro; conf/ingest/source/urls.yaml shows how to declare addresses",
        )
    digests: dict[str, str] = (
        atomic_io.read_json(layout.web_page_digests, dict[str, str]) if layout.web_page_digests.is_file() else {}
    )
    pages = [page for name, source in sources.items() for page in _check_pages(layout, name, source, digests)]
    moved = sum(page.state in {"new", "changed"} for page in pages)
    if moved:
        atomic_io.write_json(
            layout.web_page_digests, {page.url: page.digest for page in pages if page.digest is not None}
        )
    if args.json:
        terminal.print_json({"pages": [asdict(page) for page in pages], "changed": moved})
        return 0
    terminal.table(
        "", ("source", "address", "state", "why"), [(page.source, page.url, page.state, page.detail) for page in pages]
    )
    note = f"noted in {layout.web_page_digests}; read them with: tunectl repro" if moved else "nothing to read again"
    terminal.print_line(f"{moved} of {len(pages)} pages are new or changed: {note}")
    return 0


def _load_url_sources(layout: ProjectPaths) -> dict[str, UrlSource]:
    from tunectl.config.loading import checks

    sources = checks.load_project_config(layout).root.ingest.sources
    return {name: source for name, source in sources.items() if isinstance(source, UrlSource)}


def _check_pages(layout: ProjectPaths, name: str, source: UrlSource, digests: dict[str, str]) -> list[PageState]:
    """Return the pages of one source. The earlier digest of a page is the recorded one, or that of the page which ingest has cached."""
    from tunectl.backends.readers.web_fetch import Fetcher
    from tunectl.core import progress

    pages = []
    with Fetcher(source.fetch, layout.cache / "pages", source.limits.max_file_bytes) as fetcher:
        for url in progress.track(source.urls, name):
            path = fetcher.cache_path(url)
            before = digests.get(url) or (atomic_io.sha256_path(path) if path.is_file() else None)
            result = fetcher.get(url)
            if isinstance(result, RejectedRow):
                pages.append(PageState(name, url, "refused", f"{result.reason}: {result.detail}", before))
                continue
            now = atomic_io.sha256_path(result.path)
            state = "unchanged" if now == before else "new" if before is None else "changed"
            pages.append(PageState(name, url, state, "", now))
    return pages
