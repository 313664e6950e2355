"""A loop watched in a browser without a reload: real records of `make loop`, put back one after another as the loop wrote them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from console_browser import FLAGS, ROOT, ConsoleProcess, enter
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import inference_log_sql
from tunectl.console import recorded_project
from tunectl.console.recorded_registry import RecordedRegistry
from tunectl.inference_log.log_store import TimeWindow
from tunectl.retraining.run_store import ApprovalDecision, RunStore
from tunectl.retraining.state_machine import RetrainRun

URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
SEEN_MS = 15_000
"""Longest time until a page shows what was written; usually it takes two seconds."""
PATHS = ("/", "/drift", "/retrain", "/decisions", "/releases")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield opened
        opened.close()


def take_back(layout: ProjectPaths) -> tuple[list[TimeWindow], RetrainRun]:
    """Take the windows and the retrain out of a recorded project; returns them."""
    with inference_log_sql.open_log(URL, layout.root) as log:
        windows = log.windows()
    with sqlite3.connect(layout.root / URL.removeprefix("sqlite:///")) as database:
        database.execute("DELETE FROM windows")
    (run,) = RunStore(layout.retrain).runs()
    for path in (layout.retrain / "runs").glob("*.json"):
        path.unlink()
    return windows, run


def watch(context: Any, address: str) -> dict[str, Page]:
    """Open every page, and mark it: a reload would lose the mark."""
    pages = {}
    for path in PATHS:
        pages[path] = context.new_page()
        pages[path].goto(address + path)
        pages[path].evaluate("window.opened = 1")
    return pages


def see(page: Page, text: str) -> None:
    expect(page.get_by_text(text).first).to_be_visible(timeout=SEEN_MS)


def test_drift_retrain_decision_and_promotion_appear_in_open_pages(browser: Browser, tmp_path: Path) -> None:
    layout, _ = recorded_project.unpack(tmp_path, ROOT / "conf")
    windows, run = take_back(layout)
    store, earlier = RunStore(layout.retrain), datetime.now(UTC) - timedelta(days=9)
    store.record_decision(
        "0" * 12 + "-1", "retrain", ApprovalDecision(approved=False, at=earlier, author="ben", nonce="n")
    )
    console = ConsoleProcess(tmp_path)
    try:
        state = enter(browser, console)
        context = browser.new_context(storage_state=state)
        pages = watch(context, console.address)
        see(pages["/drift"], "No window of traffic is closed yet.")
        see(pages["/retrain"], "There was no retrain yet.")
        see(pages["/decisions"], "Nothing waits for you.")
        for window, words in zip(windows, ("Too few rows", "No drift", "Drift in the newest window"), strict=True):
            with inference_log_sql.open_log(URL, layout.root) as log:
                log.add_window(window)
            see(pages["/drift"], words)
        play_retrain(store, run, pages)
        decide(browser.new_context(storage_state=state), console.address, run)
        see(pages["/decisions"], "Nothing waits for you.")
        expect(pages["/decisions"].locator(f"tr:has-text('{run.id}')")).to_contain_text("yes", timeout=SEEN_MS)
        registry = RecordedRegistry(layout.releases)
        champion = registry.champion()
        assert champion is not None
        other = next(name for name in registry.ids() if name != champion.release)
        registry.promote(other, author="tunectl retrain", message=f"retrain {run.id}: the canary is better")
        see(pages["/releases"], f"retrain {run.id}: the canary is better")
        see(pages["/"], other)
        assert {path: page.evaluate("window.opened") for path, page in pages.items()} == dict.fromkeys(PATHS, 1)
    finally:
        console.close()


def play_retrain(store: RunStore, run: RetrainRun, pages: dict[str, Page]) -> None:
    """Write the recorded steps of the retrain, as of now: a question is open for a day."""
    now = datetime.now(UTC)
    proposed, waiting = run.steps
    waiting = replace(waiting, at=now, facts={**waiting.facts, "until": (now + timedelta(days=1)).isoformat()})
    begun = replace(run, steps=[replace(proposed, at=now)])
    store.save(begun)
    see(pages["/retrain"], "Running now")
    see(pages["/retrain"], run.id)
    store.save(replace(begun, steps=[*begun.steps, waiting]))
    see(pages["/retrain"], "Waits for a person")
    see(pages["/decisions"], "Decide")
    see(pages["/"], "Waits for you")


def decide(context: Any, address: str, run: RetrainRun) -> None:
    """Say yes in another browser, as another person does."""
    page = context.new_page()
    page.goto(f"{address}/decisions/{run.id}?question=retrain")
    page.locator("button[value=yes]").click()
    page.wait_for_url(f"**/retrain/{run.id}")
    context.close()
