"""Play in a real browser: every column answers, hidden names come back with a judgment, a request is asked again with what came before it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from console_browser import FLAGS, ConsoleProcess, enter
from console_projects import build
from console_records import URL
from msgspec.structs import replace
from play_server import ASKED, declare, run_play_server
from playwright.sync_api import Page, expect, sync_playwright

from tunectl.backends.storage import inference_log_sql

TOLD = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "A cafe"}]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """Play of a project whose server answers, at the replay of a request."""
    layout = build(tmp_path / "shop")
    with inference_log_sql.open_log(URL, layout.root) as log:
        first = log.inference("chatcmpl-0003")
        log.write([replace(first, id="chatcmpl-talk", request={**first.request, "messages": TOLD})])
    with run_play_server() as server, sync_playwright() as driver:
        declare(layout, server)
        console = ConsoleProcess(layout.root)
        browser = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        opened = browser.new_context(storage_state=enter(browser, console)).new_page()
        opened.goto(console.address + "/play?replay=chatcmpl-talk")
        yield opened
        browser.close()
        console.close()


def test_a_question_is_asked_judged_blind_and_asked_again(page: Page) -> None:
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    columns = page.locator(".play-column")
    expect(page.locator("#question")).to_have_value("A cafe")
    page.locator("#blind").check()
    page.get_by_role("button", name="Ask").click()
    expect(columns).to_have_count(2)
    for at, letter in enumerate("AB"):
        expect(columns.nth(at).locator(".play-hidden:visible")).to_have_text(f"Answer {letter}")
        expect(columns.nth(at).locator(".play-facts")).to_contain_text("first word after")
    expect(page.locator(".play-name:visible")).to_have_count(0)
    said = {
        column.get_attribute("data-variant"): column.locator(".play-text").inner_text().strip()
        for column in columns.all()
    }
    assert said == {"champion": "Come in, champion", "base": "Come in, base"}
    expect(columns.first.locator(".chance-2")).to_have_text("in, ")  # a mean chance of 0.37
    assert [one["messages"] for one in ASKED] == [TOLD, TOLD], "the system message is sent again"
    columns.first.get_by_role("button", name="Bad answer").click()
    expect(columns.first.locator(".play-facts")).to_contain_text("judged bad")
    expect(columns.first.locator(".play-judge")).to_be_hidden()
    expect(page.locator(".play-name:visible")).to_have_count(2)
    assert (ASKED[-1]["path"], ASKED[-1]["value"]) == ("/v1/feedback", "down")
    assert wrong == []
    page.locator("#question").fill("refuse")
    page.get_by_role("button", name="Ask").click()
    expect(columns.first.locator(".play-facts")).to_contain_text("429: too many")
    expect(columns.first.locator(".play-facts")).not_to_contain_text("doctype")
