"""Install locks into the environment of the interpreter that runs this: ``python requirements/install.py torch.txt run.txt``.

uv installs where it is there or can be had, pip otherwise. Every file of a lock is held against its hash, and nothing is installed
that no lock names. torch comes first and by a range, because its builds differ by machine: ``--torch-backend auto`` takes the build
for the GPU that is there, or the small one without CUDA. Where the index of those builds cannot be reached, torch comes from the
default index: a second environment links to uv's copy of its 5 GB, where pip would write them again. At the end all packages are
checked to fit each other.
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
RANGES = ("torch.txt", "torchvision.txt")
"""Files of one line without a hash; all others are locks."""
UV = "uv>=0.9"
PIP = (sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
UV_OPTIONS = ("--quiet", "--python", sys.executable)
STRICT = ("--require-hashes", "--no-deps")
# An index that cannot be reached is an answer, too: uv would try it again for minutes.
IMPATIENT = {"UV_HTTP_TIMEOUT": "30", "UV_HTTP_RETRIES": "1"}


def find_uv() -> list[str] | None:
    """``uv pip`` in this environment, which is installed where it is absent; None where that fails."""
    if importlib.util.find_spec("uv") is None:
        subprocess.run([*PIP, UV], check=False, stderr=subprocess.DEVNULL)
        importlib.invalidate_caches()
    if importlib.util.find_spec("uv") is None:
        return None
    return [sys.executable, "-m", "uv", "pip"]


def install_torch(uv: Sequence[str] | None, ranges: Sequence[str]) -> None:
    """Install the build of torch that fits this machine.

    Raises  subprocess.CalledProcessError where no index has it
    """
    if uv is not None:
        words = [*uv, "install", *UV_OPTIONS, "--torch-backend", "auto", *ranges]
        done = subprocess.run(words, env=os.environ | IMPATIENT, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return
        print("the index of torch's builds cannot be reached; taking torch from the default index", flush=True)
        if subprocess.run([*uv, "install", *UV_OPTIONS, *ranges], check=False).returncode == 0:
            return
    subprocess.run([*PIP, *ranges], check=True)


def install_locks(uv: Sequence[str] | None, locks: Sequence[Path]) -> None:
    """Install locks by their hashes, then check that all packages fit each other.

    Raises  subprocess.CalledProcessError for a file with another hash, a version that no index has, or packages that do not fit
    """
    files = [word for lock in locks for word in ("-r", str(lock))]
    if uv is None:
        subprocess.run([*PIP, *STRICT, *files], check=True)
        subprocess.run([sys.executable, "-m", "pip", "check"], check=True, stdout=subprocess.DEVNULL)
    else:
        subprocess.run([*uv, "install", *UV_OPTIONS, *STRICT, *files], check=True)
        subprocess.run([*uv, "check", *UV_OPTIONS], check=True)


def main(names: Sequence[str]) -> int:
    """Install the files ``names`` that lie beside this one, with one line a step and its time; the exit code of what failed, else 0."""
    locks, started = [HERE / name for name in names if name not in RANGES], time.monotonic()
    ranges = [line for name in names if name in RANGES for line in (HERE / name).read_text(encoding="utf-8").split()]
    shown = ", ".join(lock.name for lock in locks)
    try:
        uv = find_uv()
        print(f"[1/2] {', '.join(ranges) or 'no torch'} ({'uv' if uv else 'pip'})", flush=True)
        if ranges:
            install_torch(uv, ranges)
        print(f"[2/2] {shown} ({time.monotonic() - started:.0f} s so far)", flush=True)
        install_locks(uv, locks)
    except subprocess.CalledProcessError as error:
        return error.returncode  # uv or pip has said why
    print(f"installed {shown} in {time.monotonic() - started:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
