"""What tunectl 0.1 left on the disk (``tests/data/version_0_1``), for tests that open it with the code of today."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data" / "version_0_1"


def copy_project(folder: Path) -> Path:
    """A copy of the project that 0.1 wrote, ready to be opened; its folder."""
    shutil.copytree(DATA / "project", folder)
    (folder / "dot_tunectl").rename(folder / ".tunectl")
    return folder


def expected(part: str) -> Any:
    """What the code of 0.1 read from it, in the words of 0.1."""
    return json.loads((DATA / "expected.json").read_text())[part]


def renamed(record: dict[str, Any], **names: str) -> dict[str, Any]:
    """A record with the keys of today, which are given by the keys of 0.1."""
    return {names.get(key, key): value for key, value in record.items()}
