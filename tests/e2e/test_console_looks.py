"""The two looks that the other file leaves out: every screen wide and dark, and on a phone and light."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from console_browser import OTHER_LOOKS, ConsoleProcess, enter, find_faults, follow_links
from console_projects import list_paths
from playwright.sync_api import Browser


@pytest.mark.parametrize("look", OTHER_LOOKS)
def test_every_screen_is_accessible_in_the_other_looks(
    browser: Browser, console: ConsoleProcess, state: Any, folder: Path, look: str
) -> None:
    assert find_faults(browser, console, state, list_paths(folder), look) == ({}, [])


def test_the_recorded_project_is_accessible_in_the_other_looks(browser: Browser, tmp_path: Path) -> None:
    demo = ConsoleProcess(tmp_path, words=["demo", "--port", "0"])
    try:
        state = enter(browser, demo)
        paths = follow_links(browser, demo, state)
        for look in OTHER_LOOKS:
            assert find_faults(browser, demo, state, paths, look) == ({}, []), look
    finally:
        demo.close()
