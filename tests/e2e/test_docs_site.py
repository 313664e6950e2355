"""The documentation site is built strictly, asks no other host for anything, and is searched from a folder."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu"]


def copy_sources(place: Path) -> Path:
    """Copy the checkout as Git knows it, and return the folder."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    return place


def build(place: Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, str(place / "docs" / "build_site.py")]
    return subprocess.run(words, cwd=place, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = copy_sources(tmp_path_factory.mktemp("site"))
    done = build(place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "tunectl docs opens them" in done.stdout
    return place / "build" / "docs" / "site"


def test_two_builds_have_the_same_bytes(site: Path, tmp_path: Path) -> None:
    assert build(copy_sources(tmp_path / "elsewhere")).returncode == 0
    second = tmp_path / "elsewhere" / "build" / "docs" / "site"
    first = {path.relative_to(site): path.read_bytes() for path in site.rglob("*") if path.is_file()}
    assert len(first) > 70
    assert first == {path.relative_to(second): path.read_bytes() for path in second.rglob("*") if path.is_file()}


def build_packages(root: Path, out: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "hatchling", "build", "-d", str(out), *(f"-t{target}" for target in targets)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
    return subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=True)


def find_dead_links(site: Path) -> list[str]:
    """Links and search results of the pages in a wheel that lead to no file of it."""
    found = []
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for address in re.findall(r' (?:href|src)="([^":#?]+)["#?]', "" if page.name == "404.html" else text):
            if not (page.parent / address).resolve().exists():
                found.append(f"{page.relative_to(site)}: {address}")
    index = json.loads((site / "search.js").read_text(encoding="utf-8").removeprefix("var __index = "))
    places = {item["location"].partition("#")[0] for item in index["items"]}
    return found + [f"search: {place}" for place in sorted(places) if not (site / place).is_file()]


def test_the_wheel_holds_the_pages_and_opens_them(site: Path, tmp_path: Path) -> None:
    """At most 0.6 MB of them; the wheel that is made from the sdist is the same."""
    build_packages(site.parents[2], tmp_path, "sdist", "wheel")
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        pages = [item for item in archive.infolist() if item.filename.startswith("tunectl/_site/")]
        archive.extractall(tmp_path / "installed")
    assert sum(item.compress_size for item in pages) <= 600_000
    names = {item.filename.removeprefix("tunectl/_site/") for item in pages}
    assert {"index.html", "search.js", "reference/errors.html", "guides/serve.html"} <= names
    assert names.isdisjoint({"search.json", "sitemap.xml", "sources.sha256"})
    with zipfile.ZipFile(wheel) as archive:
        console = archive.read("tunectl/_site/guides/console.html").decode()
    assert "<em>Picture: Home: " in console
    assert "<picture>" not in console
    assert {name for name in names if name.endswith((".webp", ".png"))} == {"assets/images/favicon.png"}
    assert not [name for name in names if name.startswith(("decisions/", "about/results/"))]
    assert find_dead_links(tmp_path / "installed" / "tunectl" / "_site") == []
    words = [sys.executable, "-m", "tunectl", "docs", "--print", "cannot-be-read"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    place = tmp_path / "installed" / "tunectl" / "_site" / "reference" / "errors.html"
    assert done.stdout == f"{place.as_uri()}#cannot-be-read\n"
    (sdist,) = tmp_path.glob("*.tar.gz")
    shutil.unpack_archive(sdist, tmp_path / "source", filter="data")
    build_packages(next((tmp_path / "source").iterdir()), tmp_path / "second", "wheel")
    assert next((tmp_path / "second").iterdir()).read_bytes() == wheel.read_bytes()


def test_pages_of_another_state_are_left_out_of_the_wheel(site: Path, tmp_path: Path) -> None:
    page = site.parents[2] / "docs" / "about" / "limits.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(f"{text}\nOne more.\n", encoding="utf-8")
    try:
        done = build_packages(site.parents[2], tmp_path, "wheel")
    finally:
        page.write_text(text, encoding="utf-8")
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as archive:
        assert [name for name in archive.namelist() if "_site/" in name] == []
    assert (
        "build/docs/site is older than docs/: the package has no documentation. Run: make docs"
        in done.stdout + done.stderr
    )


def test_an_anchor_that_is_not_there_fails_the_build(tmp_path: Path) -> None:
    place = copy_sources(tmp_path)
    page = place / "docs" / "about" / "devices.md"
    page.write_text(page.read_text(encoding="utf-8") + "\n[see](limits.md#no-such-anchor)\n", encoding="utf-8")
    done = build(place)
    assert done.returncode != 0
    assert "no-such-anchor" in done.stdout + done.stderr
    assert not (place / "build" / "docs" / "site" / "sources.sha256").exists()


def test_search_works_from_a_folder_and_no_page_asks_another_host(site: Path) -> None:
    from playwright.sync_api import sync_playwright

    asked: list[str] = []
    errors: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: errors.append(str(error)))
        for path in [site / "index.html", *sorted((site / "guides").glob("*.html"))]:
            page.goto(path.as_uri())
        page.keyboard.press("/")
        page.get_by_placeholder("Search").fill("learning_rate")
        page.locator("a[href*='reference/settings.html']").first.wait_for()
        browser.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []
