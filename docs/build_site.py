"""Build the documentation site: ``make docs``, or ``python docs/build_site.py`` where Zensical is installed.

    python docs/build_site.py            write build/docs/site, and check every link of it
    python docs/build_site.py --pages    only copy the pages to build/docs/pages, for another program that reads mkdocs.yml

The pages of docs/ are copied to build/docs/pages, with the few that lie elsewhere in the checkout; links between them are changed to
match. Then Zensical builds them as mkdocs.yml says. At the end no link may lead nowhere, and no page may load from another host.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from html.parser import HTMLParser
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[1]
BUILD = Path("build/docs")
ELSEWHERE = {
    "monitoring/README.md": "guides/operate.md",
    "CHANGELOG.md": "about/changes.md",
    "CONTRIBUTING.md": "about/contributing.md",
    "benchmarks/README.md": "about/benchmarks.md",
    "benchmarks/results/bench_drift.md": "about/results/bench_drift.md",
    "benchmarks/results/bench_example.md": "about/results/bench_example.md",
    "benchmarks/results/bench_step.svg": "assets/bench_step.svg",
    "benchmarks/results/canary.md": "about/results/canary.md",
    "benchmarks/results/fault_loop.md": "about/results/fault_loop.md",
    "benchmarks/results/fault_tests.md": "about/results/fault_tests.md",
    "examples/local_lens/loop.png": "assets/loop.png",
}
"""Files outside docs/ that are part of the site, and their place in it."""
SEARCHED = ("monitoring/README.md",)
"""Those of them that the search finds; the others are records for whoever develops it."""
CODE = re.compile(r"(^```.*?^```|`(?:[^`\n]|\n(?!\n))*`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "srcset", "link": "href"}
"""Elements whose address a browser loads by itself."""
FOLDER_LINK = re.compile(r'(<a [^>]*href="(?:[^":#]*/)?\.\.?)/?"')
PREFORMATTED = re.compile(r"(<pre.*?</pre>)", re.DOTALL)
MARK = re.compile(r"^( *```\w+) (?:shown|recorded)$", re.MULTILINE)
"""What a test reads in a fence; Python-Markdown would take such a block for text."""
COLOR = re.compile(r"\x1b\[[0-9;]*m")  # Zensical colors each letter by itself, in a file, too
DIGEST = "sources.sha256"
SCOPE = re.compile(r'__md_scope=new URL\("([^"]*)",location\)')
"""The way from a page to the first one, as Zensical writes it."""
INLINE = re.compile(r'<script( id="__config" type="application/json")?>(.*?)</script>', re.DOTALL)
CONFIG = """(() => {
  const base = document.currentScript.dataset.base, config = %s;
  config.base = base;
  config.search = base + config.search;
  const place = document.createElement("script");
  place.id = "__config";
  place.type = "application/json";
  place.textContent = JSON.stringify(config);
  document.currentScript.after(place);
})();
"""


def main(words: Sequence[str] | None = None) -> int:
    """Build the site, and say what is wrong with it; 1 where something is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", action="store_true", help="copy the pages only")
    args = parser.parse_args(words)
    copy_pages(ROOT)
    if args.pages:
        return 0
    call = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    done = subprocess.run(call, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.stderr.write(COLOR.sub("", done.stdout).partition("Traceback")[0])
        return done.returncode
    site = ROOT / BUILD / "site"
    finish_site(site)
    problems = check_site(site)
    for problem in problems:
        sys.stderr.write(f"{problem}\n")
    if problems:
        return 1
    (site / DIGEST).write_text(compute_digest(ROOT) + "\n", encoding="utf-8")
    count = sum(1 for _ in site.rglob("*.html"))
    sys.stdout.write(f"{BUILD}/site: {count} pages; tunectl docs opens them\n")
    return 0


# Pages


def list_sources(root: Path) -> dict[str, str]:
    """Return the place in the site of each file that is part of it, both relative: to the checkout, and to the pages."""
    docs = root / "docs"
    inside = [path for path in sorted(docs.rglob("*")) if path.suffix in {".md", ".js", ".css", ".png", ".webp"}]
    return {path.relative_to(root).as_posix(): path.relative_to(docs).as_posix() for path in inside} | ELSEWHERE


def copy_pages(root: Path) -> None:
    """Copy all sources to build/docs/pages, whose old content goes."""
    pages = root / BUILD / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    places = list_sources(root)
    for source, place in places.items():
        (pages / place).parent.mkdir(parents=True, exist_ok=True)
        if place.endswith(".md"):
            text = (root / source).read_text(encoding="utf-8")
            head = "---\nsearch:\n  exclude: true\n---\n\n" if source in ELSEWHERE and source not in SEARCHED else ""
            (pages / place).write_text(head + change_links(text, source, places), encoding="utf-8")
        else:
            shutil.copyfile(root / source, pages / place)


def change_links(text: str, source: str, places: Mapping[str, str]) -> str:
    """Return the text of a page whose links fit its place in the site; of a link to what is not in the site the words stay."""

    def change(match: re.Match[str]) -> str:
        picture, words, target = match.groups()
        name, mark, anchor = target.partition("#")
        if not name or "://" in target:
            return match[0]
        found = os.path.normpath(PurePosixPath(source).parent / name)
        if found not in places:
            return words
        new = os.path.relpath(places[found], PurePosixPath(places[source]).parent)
        return f"{picture}[{words}]({new}{mark}{anchor})"

    text = "".join(part if number % 2 else LINK.sub(change, part) for number, part in enumerate(CODE.split(text)))
    return MARK.sub(r"\1", text)


def compute_digest(root: Path) -> str:
    """Return a digest of everything that a site is built from: it tells whether built pages are those of this checkout."""
    digest = hashlib.sha256()
    for source in sorted([*list_sources(root), "mkdocs.yml", "docs/build_site.py", "requirements/docs.txt"]):
        digest.update(source.encode() + b"\0" + hashlib.sha256((root / source).read_bytes()).digest())
    return digest.hexdigest()


# Site


def finish_site(site: Path) -> None:
    """Make the pages work from a folder, too: the index of the search as a script, and links to pages, not to folders.

    Less is in a wheel: the sheets of Zensical's other theme go, words are searched without markup, and what all pages say in a script of
    their own they load from one file.
    """
    index = json.loads((site / "search.json").read_text(encoding="utf-8"))
    for item in index["items"]:
        item["text"] = " ".join(re.sub(r"</?[a-z][^>]*>", " ", item["text"]).split())
    text = json.dumps(index, ensure_ascii=False, separators=(",", ":"))
    (site / "search.js").write_text(f"var __index = {text}\n", encoding="utf-8")
    shutil.rmtree(site / "assets" / "stylesheets" / "classic")
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        parts = PREFORMATTED.split(FOLDER_LINK.sub(r'\1/index.html"', text))
        parts[::2] = [re.sub(r"\s*\n\s*", "\n", part) for part in parts[::2]]  # a tenth of the size in a wheel
        text = "".join(parts)
        path.write_text(text if path.name == "404.html" else share_scripts(text, site), encoding="utf-8")


def share_scripts(page: str, site: Path) -> str:
    """Return the page with its inline scripts in files, which pages share: only the way to the first page differs."""
    scope = SCOPE.search(page)
    if scope is None:
        return page
    base = scope[1]

    def move(match: re.Match[str]) -> str:
        text = match[2].replace(f'"{base}"', "document.currentScript.dataset.base")
        if match[1]:
            config = json.loads(match[2])
            config |= {"base": "", "search": config["search"].removeprefix(base)}
            text = CONFIG % json.dumps(config)
        file = f"assets/page-{hashlib.sha256(text.encode()).hexdigest()[:8]}.js"
        (site / file).write_text(text, encoding="utf-8")
        return f'<script src="{base}/{file}" data-base="{base}"></script>'

    return INLINE.sub(move, page)


class _Page(HTMLParser):
    """What a built page names: its anchors, its links, and what a browser loads with it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        if tag == "a" and "href" in values:
            self.links.append(values["href"])
        address = values.get(LOADING.get(tag, ""))
        if address is not None and values.get("rel") not in {"prev", "next", "canonical"}:
            self.loads.append(address)


def check_site(site: Path) -> list[str]:
    """Return a line for each link that leads nowhere, and for each thing that is loaded from another host."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    problems = [
        line for path, page in pages.items() if path.name != "404.html" for line in check_page(path, page, pages)
    ]
    for sheet in sorted(site.rglob("*.css")):
        foreign = re.findall(r"(?:url\(|@import )['\"]?((?:https?:)?//[^'\") ]+)", sheet.read_text(encoding="utf-8"))
        problems += [f"{sheet.relative_to(site)}: loads {address}" for address in foreign]
    return [line.replace(f"{site}/", "") for line in problems]


def check_page(path: Path, page: _Page, pages: Mapping[Path, _Page]) -> Iterator[str]:
    """Yield what is wrong with the links and the loads of one page."""
    for address in page.loads + page.links:
        parts = urlsplit(address)
        if parts.scheme or parts.netloc:
            if address in page.loads and parts.scheme != "data":
                yield f"{path}: loads {address}"
            continue
        target = Path(os.path.normpath(path.parent / unquote(parts.path))) if parts.path else path
        if not target.is_file():
            yield f"{path}: {address} leads nowhere"
        elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors:
            yield f"{path}: {address}: the page has no such anchor"


if __name__ == "__main__":
    sys.exit(main())
