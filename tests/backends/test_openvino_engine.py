"""The cases of ``openvino_engine_cases.py``, in a process of their own, as the server gives the engine one.

Where OpenVINO and torch have both computed with AMX in one process, the next signal ends it (SIGSEGV: the kernel cannot write
the signal's frame); tests that press Ctrl-C in this process would not survive that.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import openvino_release
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
CASES = Path(__file__).with_name("openvino_engine_cases.py")


def test_every_case_passes() -> None:
    openvino_release.find_exports()  # what that process exports stays there for the tests of this one
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)]
    done = subprocess.run([sys.executable, *words], cwd=CASES.parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-5000:]
    assert "8 passed" in done.stdout
