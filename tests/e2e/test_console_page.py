"""The console in a real browser: every screen wide and light, on a phone and dark, held to WCAG 2.2 AA and to its own policy."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_browser import (
    AXE,
    LOOKS,
    OTHER_LOOKS,
    RULES,
    ConsoleProcess,
    enter,
    find_faults,
    find_other,
    follow_links,
    open_look,
    press_tab_to,
)
from console_projects import build, initialize, list_paths
from playwright.sync_api import Browser, expect

from tunectl.console.screen_table import SCREENS
from tunectl.registry.release_store import ReleaseRegistry


@pytest.mark.parametrize("look", LOOKS)
def test_every_screen_is_accessible_and_keeps_its_policy(
    browser: Browser, console: ConsoleProcess, state: Any, folder: Path, look: str
) -> None:
    wrong, heard = find_faults(browser, console, state, list_paths(folder), look)
    assert wrong == {}
    assert heard == []


def test_stopping_a_canary_is_accessible(browser: Browser, console: ConsoleProcess, state: Any, folder: Path) -> None:
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    store.start_canary(find_other(store), share=0.1, author="ada", message="a look")
    try:
        for look in LOOKS | OTHER_LOOKS:
            assert find_faults(browser, console, state, ["/canary/stop"], look) == ({}, []), look
    finally:
        store.stop_canary(author="ada", message="looked at")


def test_the_page_to_sign_in_is_accessible_to_a_stranger(browser: Browser, console: ConsoleProcess) -> None:
    for look in LOOKS | OTHER_LOOKS:
        assert find_faults(browser, console, None, ["/enter", "/enter?next=%2Fbuild"], look) == ({}, []), look


def test_the_recorded_project_is_accessible_on_every_screen(browser: Browser, tmp_path: Path) -> None:
    demo = ConsoleProcess(tmp_path, words=["demo", "--port", "0"])
    try:
        state = enter(browser, demo)
        paths = follow_links(browser, demo, state)
        assert len(paths) > 20
        for look in LOOKS:
            assert find_faults(browser, demo, state, paths, look) == ({}, []), look
    finally:
        demo.close()


@pytest.mark.parametrize("kind", ["empty", "broken"])
def test_a_project_without_its_records_is_accessible_too(browser: Browser, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "shop"
    if kind == "empty":
        initialize(folder)
    else:
        for path in build(folder, rows=30).state_dir.parent.rglob("*.json*"):  # as a full disk leaves them
            if path.parent.name != "cache" and path.name != "keys.json":  # with broken keys no console starts
                path.write_bytes(path.read_bytes()[:-2])
    bare = ConsoleProcess(folder)
    try:
        entered = enter(browser, bare)
        paths = [screen.path for screen in SCREENS if "{" not in screen.path]
        for look in OTHER_LOOKS:
            assert find_faults(browser, bare, entered, paths, look) == ({}, []), look
    finally:
        bare.close()


def test_a_refusal_is_accessible(browser: Browser, console: ConsoleProcess, state: Any) -> None:
    for look in OTHER_LOOKS:
        context = open_look(browser, state, look)
        page = context.new_page()
        page.goto(console.address + "/build/stop")
        page.evaluate(
            "() => { const form = document.createElement('form'); form.method = 'post';"
            " form.action = '/rollback'; document.body.append(form); form.submit(); }"
        )
        expect(page.locator("h1")).to_have_text("This did not work")
        page.evaluate(AXE.read_text())
        assert page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)["violations"] == [], look
        context.close()


def test_nothing_scrolls_sideways_at_320_pixels(
    browser: Browser, console: ConsoleProcess, state: Any, folder: Path
) -> None:
    context = browser.new_context(viewport={"width": 320, "height": 640}, storage_state=state)
    page = context.new_page()
    wide = []
    for path in list_paths(folder):
        page.goto(console.address + path)
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            wide.append(path)
    context.close()
    assert wide == []


def test_a_phone_shows_the_way_out_and_the_stations_of_a_retrain_as_one_row_of_boxes(
    browser: Browser, console: ConsoleProcess, state: Any
) -> None:
    context = open_look(browser, state, "phone-dark")
    page = context.new_page()
    page.goto(console.address + "/retrain")
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    boxes = page.locator(".path li").evaluate_all("all => all.map(one => getComputedStyle(one).marginBottom)")
    assert set(boxes) == {"0px"}, "the box of Home's next step has another style"
    context.close()


def test_a_change_arrives_without_a_reload_and_keeps_the_focus(
    browser: Browser, console: ConsoleProcess, state: Any, folder: Path
) -> None:
    context = open_look(browser, state, "wide-light")
    page = context.new_page()
    page.goto(console.address + "/releases")
    page.locator("footer a").focus()
    time.sleep(1.5)  # the stream is open, and the watcher has looked once
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    store.promote(store.ids()[0], author="ada", message="seen without a reload")
    expect(page.get_by_text("seen without a reload").first).to_be_visible(timeout=20_000)
    assert page.evaluate("document.activeElement.closest('footer') !== null")
    context.close()


def test_a_question_mark_lists_the_keys_but_not_while_somebody_types(
    browser: Browser, console: ConsoleProcess, state: Any
) -> None:
    context = open_look(browser, state, "wide-light")
    page = context.new_page()
    page.goto(console.address + "/live")
    keys = page.get_by_role("dialog", name="Keyboard")
    page.locator("#q").focus()
    page.keyboard.type("?")
    expect(keys).to_be_hidden()
    page.locator("h1").click()
    page.keyboard.type("?")
    expect(keys).to_contain_text("skips to the content")
    page.evaluate(AXE.read_text())
    assert page.evaluate("rules => axe.run(document, {runOnly: rules})", RULES)["violations"] == []
    page.keyboard.press("Escape")
    expect(keys).to_be_hidden()
    context.close()


def test_the_question_mark_can_be_turned_off_for_this_browser_and_the_list_still_opens(
    browser: Browser, console: ConsoleProcess, state: Any
) -> None:
    context = open_look(browser, state, "wide-light")
    page = context.new_page()
    page.goto(console.address + "/")
    keys, opens = page.get_by_role("dialog", name="Keyboard"), page.get_by_role("button", name="Keyboard")
    press_tab_to(page, "#open-keys")
    page.keyboard.press("Enter")
    expect(keys).to_be_visible()
    page.get_by_role("checkbox", name="is a shortcut").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    for path in ("/", "/live"):  # WCAG 2.1.4: it stays off on every page
        page.goto(console.address + path)
        page.locator("h1").click()
        page.keyboard.type("?")
        expect(keys).to_be_hidden()
    opens.click()
    box = page.get_by_role("checkbox", name="is a shortcut")
    expect(box).not_to_be_checked()
    box.check()
    page.keyboard.press("Escape")
    page.keyboard.type("?")
    expect(keys).to_be_visible()
    context.close()


def test_a_fold_stays_as_the_reader_left_it(browser: Browser, console: ConsoleProcess, state: Any) -> None:
    context = open_look(browser, state, "wide-light")
    page = context.new_page()
    for path, wanted in (
        ("/live?variant=champion", False),
        ("/live", True),
    ):  # a filter is set: the server opens the fold
        page.goto(console.address + path)
        fold = page.locator("#live details").first
        assert fold.evaluate("one => one.open") is not wanted
        fold.locator("summary").click()
        page.evaluate("refresh()")
        assert fold.evaluate("one => one.open") is wanted, path
    context.close()


def test_a_page_whose_stream_is_refused_says_no_one_is_signed_out(
    browser: Browser, console: ConsoleProcess, state: Any
) -> None:
    context = open_look(browser, state, "wide-light")
    page = context.new_page()
    page.route("**/events", lambda route: route.fulfill(status=503, body="too many pages are open"))
    page.goto(console.address + "/releases")
    expect(page.locator("#connection")).to_contain_text("does not refresh by itself")
    context.close()


def test_eight_visible_pages_load_and_receive_a_change(
    browser: Browser, console: ConsoleProcess, state: Any, folder: Path
) -> None:
    context = open_look(browser, state, "wide-light")
    pages = [
        context.new_page() for _ in range(8)
    ]  # a browser opens six connections to one host, and a stream holds one
    for page in pages:
        page.goto(console.address + "/releases", timeout=30_000)
    time.sleep(1.5)
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    for message, closed in (("seen by eight", None), ("seen by seven", pages[0])):
        if closed is not None:
            closed.close()  # the page that held the stream
            pages.remove(closed)
        store.promote(find_other(store), author="ada", message=message)
        for page in pages:
            expect(page.get_by_text(message).first).to_be_visible(timeout=20_000)
    context.close()


def test_a_console_that_is_killed_and_started_again_goes_on_in_the_open_page(browser: Browser, folder: Path) -> None:
    first = ConsoleProcess(folder)
    port = int(first.address.rpartition(":")[2])
    context = browser.new_context()
    page = context.new_page()
    page.goto(first.link)
    page.wait_for_url(first.address + "/")
    page.goto(first.address + "/releases")
    time.sleep(1)
    first.process.kill()
    first.process.wait(20)
    expect(page.locator("#connection")).to_contain_text("does not answer", timeout=20_000)
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    store.promote(find_other(store), author="ada", message="while the console was down")
    second = ConsoleProcess(folder, port)
    try:
        expect(page.get_by_text("while the console was down").first).to_be_visible(timeout=30_000)
        expect(page.locator("#connection")).to_be_empty()
    finally:
        words = second.close()
        context.close()
    assert words.strip() == "stopped"


def test_a_release_is_promoted_by_keyboard_alone(
    browser: Browser, console: ConsoleProcess, state: Any, folder: Path
) -> None:
    store = ReleaseRegistry(folder / ".tunectl" / "releases")
    other = find_other(store)
    context = open_look(browser, state, "wide-light")
    page = context.new_page()
    page.goto(console.address + "/")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent").strip() == "Skip to content"
    for target in ("a[href='/releases']", f"a[href='/releases/{other}']", f"a[href='/releases/{other}/promote']"):
        press_tab_to(page, target)
        with page.expect_navigation():
            page.keyboard.press("Enter")
    press_tab_to(page, "input[name=reason]")
    page.keyboard.type("by keyboard alone")
    press_tab_to(page, "main form button")
    page.keyboard.press("Enter")
    page.wait_for_url(console.address + f"/releases/{other}")
    context.close()
    now = store.champion()
    assert now is not None
    assert (now.release, now.message) == (other, "by keyboard alone")


@pytest.fixture
def fresh(console: ConsoleProcess, folder: Path) -> Iterator[ConsoleProcess]:
    """Start a console that nobody has looked at."""
    process = ConsoleProcess(folder)
    yield process
    process.close()


def test_the_first_page_is_small_and_the_process_stays_small(
    browser: Browser, fresh: ConsoleProcess, folder: Path
) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 850})
    page, finished = context.new_page(), []
    page.on("requestfinished", lambda request: finished.append(request))  # noqa: PLW0108 - Playwright marks the function
    page.goto(fresh.link)
    page.wait_for_url(fresh.address + "/", wait_until="load")
    sizes = [request.sizes() for request in list(finished)]  # asked before the browser's page is closed
    for path in list_paths(folder):
        page.goto(fresh.address + path)
    assert len(sizes) > 3
    assert sum(one["responseBodySize"] + one["responseHeadersSize"] for one in sizes) <= 150_000
    status = Path(f"/proc/{fresh.process.pid}/status").read_text()
    assert int(status.partition("VmRSS:")[2].split()[0]) < 100_000
    page.goto(fresh.address + "/live")  # a page that is open hears of changes, so somebody has to look for them
    page.wait_for_function("() => live.source && live.source.readyState === 1")
    time.sleep(1)
    before = count_cpu_ticks(fresh.process.pid)
    time.sleep(5)
    assert count_cpu_ticks(fresh.process.pid) - before <= 5  # 1 % of a core, in hundredths of a second
    context.close()


def count_cpu_ticks(pid: int) -> int:
    """Return the CPU time that a process has used, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
