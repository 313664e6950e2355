"""Two builds of one commit have the same bytes, wherever and whenever they are made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(place: Path, *, umask: int, age: float) -> dict[str, bytes]:
    """Copy the tracked files, with other times and modes, and build sdist and wheel there."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, place / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            target.chmod((0o777 if source.stat().st_mode & 0o100 else 0o666) & ~umask)
            os.utime(target, (age, age))
    out = place / "dist"
    words = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-t", "wheel", "-d", str(out)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1767225600"}
    subprocess.run(words, cwd=place, env=environment, check=True, capture_output=True, umask=umask)
    return {path.name: path.read_bytes() for path in out.iterdir()}


def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    first = build(tmp_path / "here", umask=0o022, age=1_700_000_000)
    second = build(tmp_path / "elsewhere" / "deep", umask=0o077, age=1_750_000_000)
    assert sorted(path.rpartition(".")[2] for path in first) == ["gz", "whl"]
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
