"""A console in a process of its own, and the browser that signs in to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from console_projects import DECIDED, PageFacts
from playwright.sync_api import Browser, BrowserContext, Page

from tunectl.console.screen_table import SCREENS
from tunectl.registry.release_store import ReleaseRegistry

ROOT = Path(__file__).parents[2]
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--no-sandbox"]
FLAGS += ["--disable-component-update", "--disable-sync"]
AXE = ROOT / "tests" / "data" / "axe-core" / "axe.min.js"
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
Look = tuple[tuple[int, int], Literal["light", "dark"]]
LOOKS: dict[str, Look] = {"wide-light": ((1280, 850), "light"), "phone-dark": ((390, 844), "dark")}
FOCUS_SEEN = """() => {
  const focused = document.activeElement, box = focused.querySelector(".box");  // of a link in a graph the box is framed
  return getComputedStyle(focused).outlineStyle !== "none" || box !== null && getComputedStyle(box).strokeWidth === "3px";
}"""
STATUS_NOTE = "the server responded with a status of"
KEY_NOTE = "Password forms should have"
"""What Chromium says of a form that asks for a key and for no name."""
REFUSED = {"/nothing": 404, DECIDED: 409}  # every other page answers 200
OTHER_LOOKS: dict[str, Look] = {"wide-dark": ((1280, 850), "dark"), "phone-light": ((390, 844), "light")}


class ConsoleProcess:
    def __init__(self, folder: Path, port: int = 0, words: Sequence[str] = ()) -> None:
        """``words``: another verb than the console of the project in ``folder``."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tunectl", *(words or ["console", f"console.port={port}"])],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A user's installation is compiled; compiling at each start would cost 10 MB and a second.
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": ""},
        )
        assert self.process.stdout is not None
        said = iter(self.process.stdout.readline, "")
        self.link = next(found[0] for line in said if (found := re.search(r"http\S+#\S+", line)))
        self.address = self.link.partition("/enter")[0]

    def close(self) -> str:
        """End it as Ctrl-C does; returns what it said to that."""
        self.process.send_signal(signal.SIGINT)
        return self.process.communicate(timeout=20)[1]


def enter(browser: Browser, console: ConsoleProcess) -> Any:
    """Sign in once, by the link; its token stays in no address."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(console.link)
    page.wait_for_url(console.address + "/")
    assert "#" not in page.url
    found = context.storage_state()
    context.close()
    return found


def watch(page: Page) -> list[str]:
    """Note console messages, errors of scripts, and requests to another host."""
    heard: list[str] = []
    # The browser notes the status of a page here too, which find_faults compares with the one that is expected.
    page.on(
        "console",
        lambda message: None if STATUS_NOTE in message.text or KEY_NOTE in message.text else heard.append(message.text),
    )
    page.on(
        "response",
        lambda answer: (
            heard.append(f"{answer.status} {answer.url}")
            if answer.status >= 400 and not answer.request.is_navigation_request()
            else None
        ),
    )
    page.on("pageerror", lambda error: heard.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None if "127.0.0.1" in request.url or request.url.startswith("data:") else heard.append(request.url)
        ),
    )
    return heard


def open_look(browser: Browser, state: Any, look: str) -> BrowserContext:
    (width, height), scheme = (LOOKS | OTHER_LOOKS)[look]
    return browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme, storage_state=state)


def find_faults(
    browser: Browser, console: ConsoleProcess, state: Any, paths: Iterable[str], look: str
) -> tuple[dict[str, list[tuple[str, str]]], list[str]]:
    """What axe says of each page that has faults, and what the browser noted."""
    context = open_look(browser, state, look)
    page = context.new_page()
    heard, wrong = watch(page), {}
    for path in paths:
        answer = page.goto(console.address + path)
        assert answer is not None
        if answer.status != REFUSED.get(path, 200):
            wrong[path] = [("status", str(answer.status))]
        page.evaluate(AXE.read_text())
        found = page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)
        if found["violations"]:
            wrong[path] = [
                *wrong.get(path, []),
                *((one["id"], one["nodes"][0]["html"][:120]) for one in found["violations"]),
            ]
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wrong[path] = [*wrong.get(path, []), ("scrolls sideways", look)]
    context.close()
    return wrong, heard


def follow_links(browser: Browser, console: ConsoleProcess, state: Any) -> list[str]:
    """One address of every screen, as links lead to it from Home."""
    context = browser.new_context(storage_state=state)
    waiting, found = ["/"], {"/": "/"}
    while waiting:
        for link in PageFacts(context.request.get(console.address + waiting.pop(0)).text()).links:
            address = link.partition("#")[0]
            for screen in SCREENS:
                if screen.path not in found and re.fullmatch(
                    re.sub(r"\{\w+\}", "[^/?]+", screen.path), address.partition("?")[0]
                ):
                    found[screen.path] = address
                    waiting.append(address)
    context.close()
    return list(found.values())


def find_other(store: ReleaseRegistry) -> str:
    """A release that is not the champion, and that no gate refused."""
    champion = store.champion()
    return next(name for name in store.ids()[:2] if champion is None or name != champion.release)


def press_tab_to(page: Page, selector: str) -> None:
    """Press Tab until the element has the focus, which must be visible."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            assert page.evaluate(FOCUS_SEEN), selector
            return
    raise AssertionError(f"no Tab leads to {selector} on {page.url}")
