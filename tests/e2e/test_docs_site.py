"""The documentation site is built strictly, asks no other host for anything, and is searched from a folder."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLAGS = ["--no-sandbox", "--disable-gpu"]


def copy_sources(place: Path) -> Path:
    """Copy what the site is made from, and return the folder."""
    listed = ["docs", "mkdocs.yml", "monitoring", "benchmarks", "examples/local_lens", "requirements", "*.md"]
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *listed]
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
