"""The golden set: frozen at the first release, versioned, without feedback. Decisions are counted: repeated use overfits to it.

<store>/golden/v<N>/items.jsonl   Example
<store>/golden/v<N>/golden.json   Golden
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.artifacts.record_format import RecordFormat, rename_keys
from tunectl.artifacts.records import Example
from tunectl.core.errors import ArtifactError

ITEMS, NAME = "items.jsonl", "golden.json"
FOLDER: Final = "golden"
SCRATCH: Final = "tmp-golden"
"""Folder for a half-written version, also one that a killed process has left."""


def upgrade_golden(record: dict[str, Any]) -> dict[str, Any]:
    """Return a ``golden.json`` of tunectl 0.1 with the field names of today: ``at`` becomes ``created_at``."""
    return rename_keys(record, {"at": "created_at"})


GOLDEN: Final = RecordFormat("golden set", (upgrade_golden,), key="format")
"""The format's version is under ``format``: ``version`` is the number of the set."""


class GoldenSetVersion(Struct, frozen=True):
    """A version of the golden set. It is replaced after a number of decisions, because repeated decisions on the same items overfit to them."""

    version: int
    created_at: datetime
    items: int
    digest: str
    """SHA-256 of the items' file."""
    uses: int
    """Number of decisions that used it."""
    source: str
    """Source of the items."""


def newest(store: Path) -> tuple[GoldenSetVersion, Path] | None:
    """Return the current version of the golden set and its folder; None before the first. ``store`` is the folder of the registry."""
    result = sorted((store / FOLDER).glob(f"v*/{NAME}"), key=lambda path: int(path.parent.name[1:]))
    return (GOLDEN.read(result[-1], GoldenSetVersion), result[-1].parent) if result else None


def freeze(
    store: Path, examples: Sequence[Example], size: int, *, seed: int, at: datetime, source: str
) -> tuple[GoldenSetVersion, Path]:
    """Write at most ``size`` of ``examples``, drawn with ``seed``, as the next version; return it and its folder."""
    usable = [
        example for example in examples if example.messages and any(answer.text.strip() for answer in example.answers)
    ]
    sampled_indexes = sorted(random.Random(f"{seed}:golden").sample(range(len(usable)), min(size, len(usable))))  # noqa: S311
    before = newest(store)
    shutil.rmtree(store / SCRATCH, ignore_errors=True)  # of a process that was killed
    version = before[0].version + 1 if before else 1
    with atomic_io.atomic_directory(store / FOLDER / f"v{version}", store / SCRATCH) as folder:
        atomic_io.write_rows(folder / ITEMS, (usable[index] for index in sampled_indexes))
        golden = GoldenSetVersion(version, at, len(sampled_indexes), atomic_io.sha256_path(folder / ITEMS), 0, source)
        GOLDEN.write(folder / NAME, golden)
    return golden, store / FOLDER / f"v{version}"


def items(folder: Path, golden: GoldenSetVersion) -> list[Example]:
    """Return the examples in ``folder`` of the golden set version ``golden``.

    Raises  ArtifactError where they differ from its digest.
    """
    if atomic_io.sha256_path(folder / ITEMS) != golden.digest:
        raise ArtifactError(
            f"{folder / ITEMS} was changed: the golden set is frozen",
            hint="restore it from a backup, or delete that folder: the next gate samples a new golden set",
        )
    return list(atomic_io.read_rows(folder / ITEMS, Example))


def count_use(store: Path) -> None:
    """Count one decision on the current version of the golden set."""
    result = newest(store)
    if result is not None:
        GOLDEN.write(result[1] / NAME, replace(result[0], uses=result[0].uses + 1))
