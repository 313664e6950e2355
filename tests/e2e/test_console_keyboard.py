"""By keyboard alone, through what people do most; and what an open page keeps while it changes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sweep_project
from console_browser import ConsoleProcess, find_other, open_look, press_tab_to
from playwright.sync_api import Browser, Page, expect

from tunectl.registry.release_store import ReleaseRegistry


@pytest.fixture
def page(browser: Browser, state: Any) -> Iterator[Page]:
    context = open_look(browser, state, "wide-light")
    yield context.new_page()
    context.close()


def press_through(page: Page, *targets: str) -> None:
    """Go from page to page: press Tab until each has the focus, then Enter."""
    for target in targets:
        press_tab_to(page, target)
        with page.expect_navigation():
            page.keyboard.press("Enter")


def test_a_build_is_found_started_and_followed_by_keyboard(
    browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = sweep_project.make(tmp_path / "shop", build=False)
    monkeypatch.setenv("FAKE_SECONDS", "5")  # as long as its training takes
    console = ConsoleProcess(folder)
    context = browser.new_context()
    page = context.new_page()
    try:
        page.goto(console.address + "/")
        press_tab_to(page, "#secret")
        page.keyboard.type(console.link)
        with page.expect_navigation(url=console.address + "/"):
            page.keyboard.press("Enter")
        press_through(page, "a[href='/build']", "a[href='/build/sft']", "a[href='/build']", "a[href='/build/start']")
        press_tab_to(page, "input[name=reason]")
        page.keyboard.type("by keyboard alone")
        press_through(page, "button[value=start]")
        expect(page.get_by_text("A build is running.")).to_be_visible(timeout=60_000)
        expect(page.get_by_text("A build is running.")).to_be_hidden(timeout=120_000)  # heard without a reload
        press_through(page, "a[href='/runs']")
        expect(page.locator("main")).to_contain_text("by keyboard alone")
    finally:
        context.close()
        console.close()


def test_a_verdict_is_read_and_runs_are_compared_by_keyboard(page: Page, console: ConsoleProcess) -> None:
    page.goto(console.address + "/")
    press_through(page, "a[href='/results']", "main a[href='/results/answers']")
    expect(page.locator("h1")).to_have_text("Answers")
    press_through(page, "a[href='/runs']", "form[action='/runs/compare'] button")
    assert "/runs/compare?old=" in page.url
    expect(page.locator("h1")).to_have_text("Two runs")


def test_a_release_is_rolled_back_by_keyboard(page: Page, console: ConsoleProcess, folder: Path) -> None:
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    before = store.champion()
    assert before is not None
    store.promote(find_other(store), author="ada", message="a mistake")
    page.goto(console.address + "/releases")
    press_through(page, "a[href='/rollback']")
    press_tab_to(page, "input[name=reason]")
    page.keyboard.type("it was a mistake")
    press_through(page, "main form button")
    now = store.champion()
    assert now is not None
    assert (now.release, now.message) == (before.release, "it was a mistake")


def test_selection_and_scroll_survive_an_update(page: Page, console: ConsoleProcess, folder: Path) -> None:
    page.set_viewport_size({"width": 1280, "height": 400})
    page.goto(console.address + "/releases")
    page.wait_for_function("() => live.source && live.source.readyState === 1")
    page.evaluate("() => { getSelection().selectAllChildren(document.querySelector('h1')); scrollTo(0, 150); }")
    time.sleep(1.5)  # the watcher has looked once
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    store.promote(find_other(store), author="ada", message="seen below")
    expect(page.get_by_text("seen below").first).to_be_attached(timeout=20_000)
    assert page.evaluate("getSelection().toString()") == "Releases"
    assert page.evaluate("scrollY") >= 150


def test_a_hidden_page_holds_no_connection_and_catches_up(page: Page, console: ConsoleProcess, folder: Path) -> None:
    port = int(console.address.rpartition(":")[2])
    page.goto(console.address + "/releases")
    page.wait_for_function("() => live.source && live.source.readyState === 1")
    assert count_connections(port) > 0
    set_hidden(page, hidden=True)
    end = time.monotonic() + 30  # a connection that nothing uses is closed after some seconds
    while count_connections(port):
        assert time.monotonic() < end
        time.sleep(0.2)
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    store.promote(find_other(store), author="ada", message="while nobody looked")
    set_hidden(page, hidden=False)
    expect(page.get_by_text("while nobody looked").first).to_be_visible(timeout=20_000)


def set_hidden(page: Page, *, hidden: bool) -> None:
    """Do what a browser does when a page goes behind another one, or comes back."""
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def count_connections(port: int) -> int:
    """Return how many connections to a port of this machine are open."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)
