"""Resolve pyproject.toml into run.txt and dev.txt, and each environment of its own (``*.in``) into a file beside it: one version a line, no hashes, no local versions.

torch stays a range: its builds for CPU and CUDA differ by machine, and a pinned local version would be wrong on the next one.
What only a CUDA build of torch asks for is left out for the same reason.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
RANGES = {"torch": "torch>=2.9", "torchvision": "torchvision>=0.24"}
CUDA_ONLY = re.compile(r"^(nvidia-|cuda-|triton==)")
HEADER = "# Made by `make lock` from pyproject.toml, extra [{extra}]. Install with pip; torch stays a range (see requirements/lock.py).\n"
ENVIRONMENTS = {
    "export": "the environment of tunectl's exporter",
    "serve-openvino": "what a Bento for the engine openvino installs",
}
ENVIRONMENT_HEADER = "# Made by `make lock` from {name}.in: {what}. Torch stays a range (see requirements/lock.py).\n"


def resolve_lines(source: str, extra: str | None = None, constraint: Path | None = None) -> list[str]:
    """Resolve a file, or one extra of it, into sorted requirement lines."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "lock.txt"
        words = [
            sys.executable,
            "-m",
            "piptools",
            "compile",
            "--quiet",
            "--strip-extras",
            "--no-header",
            "--no-annotate",
        ]
        words += ["--no-emit-index-url", "--no-emit-find-links", "--no-emit-trusted-host", "--output-file", str(out)]
        words += ["--extra", extra] if extra else []
        words += ["--constraint", str(constraint)] if constraint else []
        subprocess.run([*words, str(HERE.parent / source)], check=True, stdout=subprocess.DEVNULL)
        lines = [line for line in out.read_text().splitlines() if "==" in line and not CUDA_ONLY.match(line)]
    return sorted(RANGES.get(line.partition("==")[0], re.sub(r"\+[a-z0-9.]+$", "", line)) for line in lines)


def main() -> None:
    """Write all files; dev.txt holds only what run.txt does not."""
    run = HERE / "run.txt"
    first = resolve_lines("pyproject.toml", "all")
    run.write_text(HEADER.format(extra="all") + "\n".join(first) + "\n")
    second = [line for line in resolve_lines("pyproject.toml", "dev", run) if line not in first]
    (HERE / "dev.txt").write_text(HEADER.format(extra="dev") + "-r run.txt\n" + "\n".join(second) + "\n")
    for name, what in ENVIRONMENTS.items():
        lines = resolve_lines(f"requirements/{name}.in")
        (HERE / f"{name}.txt").write_text(ENVIRONMENT_HEADER.format(name=name, what=what) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
