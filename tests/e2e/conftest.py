"""One project, its console and one browser for the tests of a file; a file may have its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from console_browser import FLAGS, ConsoleProcess, enter
from console_projects import build
from console_records import add_sweep
from playwright.sync_api import Browser, sync_playwright


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page") / "shop"
    build(folder, rows=300)
    add_sweep(folder)
    return folder


@pytest.fixture(scope="module")
def console(folder: Path) -> Iterator[ConsoleProcess]:
    process = ConsoleProcess(folder)
    yield process
    process.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def state(browser: Browser, console: ConsoleProcess) -> Any:
    return enter(browser, console)
