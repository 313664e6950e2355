"""Install a lock file into the environment of the interpreter that runs this: ``python requirements/install.py run.txt``.

uv installs where it is there or can be had, pip otherwise. torch comes first and by a range, because its builds differ by
machine: ``--torch-backend auto`` takes the build for the GPU that is there, or the small one without CUDA. Where the index of
those builds cannot be reached, pip takes torch from the default index.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
TORCH = ("torch", "torchvision")
UV = "uv>=0.9"
PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
# An index that cannot be reached is an answer, too: uv would try it again for minutes.
IMPATIENT = {"UV_HTTP_TIMEOUT": "30", "UV_HTTP_RETRIES": "1"}


def read_torch_ranges(lock: Path) -> list[str]:
    """The lines of a lock file, and of the files that it includes, that name torch: ``torch>=2.9``."""
    found: list[str] = []
    for line in lock.read_text(encoding="utf-8").splitlines():
        if line.startswith("-r "):
            found += read_torch_ranges(lock.parent / line[3:].strip())
        elif line.partition(">")[0] in TORCH:
            found.append(line)
    return found


def find_uv() -> list[str] | None:
    """The command of uv in this environment, which is installed where it is absent; None where that fails."""
    if importlib.util.find_spec("uv") is None:
        subprocess.run([*PIP, UV], check=False, stderr=subprocess.DEVNULL)
        importlib.invalidate_caches()
    if importlib.util.find_spec("uv") is None:
        return None
    return [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]


def install_torch(uv: Sequence[str] | None, ranges: Sequence[str]) -> None:
    """Install the build of torch that fits this machine.

    Raises  subprocess.CalledProcessError where no index has it
    """
    if uv is not None:
        words = [*uv, "--torch-backend", "auto", *ranges]
        done = subprocess.run(words, env=os.environ | IMPATIENT, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        print("the index of torch's builds cannot be reached; taking torch from the default index", flush=True)
    subprocess.run([*PIP, *ranges], check=True)


def main(name: str) -> int:
    """Install ``name``, with one line a step and its time; the exit code of what failed, else 0."""
    lock, started = HERE / name, time.monotonic()
    try:
        uv = find_uv()
        ranges = read_torch_ranges(lock)
        print(f"[1/2] {', '.join(ranges) or 'no torch'} ({'uv' if uv else 'pip'})", flush=True)
        if ranges:
            install_torch(uv, ranges)
        print(f"[2/2] {name} ({time.monotonic() - started:.0f} s so far)", flush=True)
        subprocess.run([*(uv or PIP), "-r", str(lock)], check=True)
    except subprocess.CalledProcessError as error:
        return error.returncode  # uv or pip has said why
    print(f"installed {name} in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
