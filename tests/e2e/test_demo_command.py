"""``tunectl demo`` as people start it: it listens, opens a browser's session, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("names", [["SIGINT"], ["SIGTERM"], ["SIGINT", "SIGINT"]])
def test_the_command_listens_and_removes_its_copy(tmp_path: Path, names: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "TMPDIR": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "-m", "tunectl", "demo", "--port", "0"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    try:
        assert process.stdout is not None
        folder = re.search(r"lies in (\S+)", process.stdout.readline())[1]
        address = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())[0]
        assert Path(folder, "dvc.lock").is_file()
        with urllib.request.urlopen(f"{address}/healthz", timeout=20) as reply:
            assert reply.read() == b"ok\n"
        with urllib.request.urlopen(f"{address}/", timeout=20) as reply:
            assert "/enter" in reply.url, "nobody gets in without the link"
    finally:
        for name in names:
            process.send_signal(getattr(signal, name))
            time.sleep(0.01)
        process.wait(30)
        process.stdout.close()
    assert not Path(folder).exists()
