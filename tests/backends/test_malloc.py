"""Memory that was freed stays with the process; in one of its own, because it cannot be undone."""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from tunectl.backends.system import malloc
if sys.argv[1] == "kept" and not malloc.retain_freed_memory():
    sys.exit(3)
for turn in range(20):
    if turn == 1:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"1" * 2**24
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        pytest.skip("this C library has no mallopt")
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_a_block_that_was_freed_is_used_again():
    kept = faults("kept")
    assert kept < 1000
    assert faults("as it was") > 4 * kept


def test_without_glibc_nothing_happens(monkeypatch):
    from tunectl.backends.system import malloc

    monkeypatch.setattr(malloc.ctypes, "CDLL", lambda name: object())
    assert malloc.retain_freed_memory() is False
