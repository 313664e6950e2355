"""A loop watched in a browser without a reload: real records of `make loop`, put back one after another as the loop wrote them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from console_browser import ROOT, ConsoleProcess, enter
from msgspec.structs import replace
from playwright.sync_api import Browser, Page, expect

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage import inference_log_sql
from tunectl.console import recorded_project
from tunectl.console.recorded_project import RecordedRegistry
from tunectl.inference_log.log_store import TimeWindow
from tunectl.retraining.run_store import ApprovalDecision, RunStore
from tunectl.retraining.state_machine import RetrainRun

URL = "sqlite:///.tunectl/inference_log/inference_log.sqlite"
SEEN_MS = 15_000
"""Longest time until a page shows what was written; usually it takes two seconds."""
VERDICTS = {"insufficient": "No verdict", "ok": "No drift", "drift": "Drift in the newest window"}
PATHS = ("/", "/drift", "/retrain", "/decisions", "/releases")


def take_back(layout: ProjectPaths) -> tuple[list[TimeWindow], list[RetrainRun]]:
    """Take the windows and the retrains out of a recorded project; returns them."""
    with inference_log_sql.open_log(URL, layout.root) as log:
        windows = log.windows()
    with closing(sqlite3.connect(layout.root / URL.removeprefix("sqlite:///"))) as database, database:
        database.execute("DELETE FROM windows")
    runs = RunStore(layout.retrain).runs()
    for path in (layout.retrain / "runs").glob("*.json"):
        path.unlink()
    return windows, runs


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
    windows, runs = take_back(layout)
    promoted, waiting = runs[0], runs[-1]
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
        for window in windows:
            with inference_log_sql.open_log(URL, layout.root) as log:
                log.add_window(window)
            see(pages["/drift"], VERDICTS[window.body["verdict"]])
            expect(pages["/drift"].locator(f"main a[href='/drift/{window.id}']").first).to_be_visible(timeout=SEEN_MS)
        play_retrain(store, promoted, pages)
        ask(store, waiting, pages)
        decide(browser.new_context(storage_state=state), console.address, waiting)
        see(pages["/decisions"], "Nothing waits for you.")
        decided = pages["/decisions"].locator(f"tr:has-text('{waiting.id}')")
        expect(decided).to_contain_text("yes", timeout=SEEN_MS)
        registry = RecordedRegistry(layout.releases)
        champion = registry.champion()
        assert champion is not None
        other = next(name for name in registry.ids() if name != champion.release)
        registry.promote(other, author="tunectl retrain", message=f"retrain {waiting.id}: a person said yes")
        see(pages["/releases"], f"retrain {waiting.id}: a person said yes")
        see(pages["/"], other)
        assert {path: page.evaluate("window.opened") for path, page in pages.items()} == dict.fromkeys(PATHS, 1)
    finally:
        console.close()


def play_retrain(store: RunStore, run: RetrainRun, pages: dict[str, Page]) -> None:
    """Write the recorded steps of a retrain one after the other, from its proposal to its promotion."""
    for count in range(1, len(run.steps)):
        store.save(replace(run, steps=run.steps[:count]))
        see(pages["/retrain"], "Running now")
        state = run.steps[count - 1].state.replace("_", " ")
        expect(pages["/retrain"].locator("ol.path li[aria-current]")).to_contain_text(state, timeout=SEEN_MS)
    store.save(run)
    expect(pages["/retrain"].locator(f"tr:has(a[href='/retrain/{run.id}'])")).to_contain_text(
        "promoted", timeout=SEEN_MS
    )


def ask(store: RunStore, run: RetrainRun, pages: dict[str, Page]) -> None:
    """Write the recorded retrain that waits, as of now: its question is open for a day."""
    now = datetime.now(UTC)
    last = replace(run.steps[-1], at=now, facts={**run.steps[-1].facts, "until": (now + timedelta(days=1)).isoformat()})
    store.save(replace(run, steps=[*run.steps[:-1], last]))
    see(pages["/retrain"], "Waits for a person")
    see(pages["/decisions"], "Decide")
    see(pages["/"], "Waits for you")


def decide(context: Any, address: str, run: RetrainRun) -> None:
    """Say yes in another browser, as another person does."""
    page = context.new_page()
    page.goto(f"{address}/decisions/{run.id}?question=promote")
    page.locator("input[name=reason]").fill("it answers better")
    page.locator("button[value=yes]").click()
    page.wait_for_url(f"**/retrain/{run.id}")
    context.close()
