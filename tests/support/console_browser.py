"""A console in a process of its own, and the browser that signs in to it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser

ROOT = Path(__file__).parents[2]
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--no-sandbox"]
FLAGS += ["--disable-component-update", "--disable-sync"]


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
