"""Take the pictures of the console that README and the guides show, from the recorded project of ``tunectl demo``: ``make screenshots``.

Each screen is taken light and dark, in Chromium, and written to docs/images as WebP. Needs Playwright, Pillow and Debian's chromium.
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

IMAGES = Path(__file__).parent / "images"
SCREENS = {
    "home": "/",
    "rejects": "/data/rows?stage=curate&part=rejects&reason=near_duplicate",
    "results": "/results",
    "retrain": "/retrain",
}
WIDTH, HEIGHT = 1100, 690
QUALITY = 60


def main() -> int:
    """Start the demo, and take every screen."""
    words = [sys.executable, "-m", "tunectl", "demo", "--port", "0"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    try:
        link = next(match[0] for line in process.stdout or () if (match := re.search(r"http\S+", line)))
        take_all(link)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
    return 0


def take_all(link: str) -> None:
    """Sign in with ``link``, and write two pictures of each screen."""
    IMAGES.mkdir(exist_ok=True)
    address = link.partition("/enter")[0]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(link)
        page.wait_for_url(f"{address}/")
        for name, path in SCREENS.items():
            page.goto(address + path)
            page.wait_for_load_state()
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                take(page, IMAGES / f"{name}-{scheme}.webp")
        browser.close()


def take(page: Page, path: Path) -> None:
    """Write what is seen of a page."""
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.convert("RGB").save(path, "WEBP", quality=QUALITY, method=6)
    sys.stdout.write(f"{path.relative_to(IMAGES.parent)}: {path.stat().st_size / 1000:.0f} KB\n")


if __name__ == "__main__":
    sys.exit(main())
