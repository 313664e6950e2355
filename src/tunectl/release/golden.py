"""The golden set: frozen at the first release, versioned, never fed by feedback, and counted: each decision wears it a little.

<store>/golden/v<N>/items.jsonl   Example
<store>/golden/v<N>/golden.json   Golden
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts import io
from tunectl.artifacts.records import Example
from tunectl.core.errors import ArtifactError

ITEMS, NAME = "items.jsonl", "golden.json"


class Golden(Struct, frozen=True):
    """One version."""

    version: int
    at: datetime
    items: int
    digest: str
    """SHA-256 of the items' file."""
    uses: int
    """Decisions that looked at it."""
    source: str
    """Where the items are from."""


def newest(store: Path) -> tuple[Golden, Path] | None:
    """The version in force and its folder; None before the first."""
    found = sorted((store / "golden").glob(f"v*/{NAME}"), key=lambda path: int(path.parent.name[1:]))
    return (io.read_json(found[-1], Golden), found[-1].parent) if found else None


def freeze(
    store: Path, examples: Sequence[Example], size: int, *, seed: int, at: datetime, source: str
) -> tuple[Golden, Path]:
    """Draw at most ``size`` of ``examples`` as the next version, in a folder of its own."""
    usable = [one for one in examples if one.messages and any(answer.text.strip() for answer in one.answers)]
    drawn = sorted(random.Random(f"{seed}:golden").sample(range(len(usable)), min(size, len(usable))))  # noqa: S311
    before = newest(store)
    version = before[0].version + 1 if before else 1
    with io.replacing_folder(store / "golden" / f"v{version}", store / "tmp-golden") as fresh:
        io.write_rows(fresh / ITEMS, (usable[place] for place in drawn))
        made = Golden(version, at, len(drawn), io.digest(fresh / ITEMS), 0, source)
        io.write_json(fresh / NAME, made)
    return made, store / "golden" / f"v{version}"


def items(folder: Path, golden: Golden) -> list[Example]:
    """The items.

    Raises  ArtifactError where somebody changed them.
    """
    if io.digest(folder / ITEMS) != golden.digest:
        raise ArtifactError(
            f"{folder / ITEMS} was changed: the golden set is frozen",
            hint="restore it, or delete that folder: the next gate draws a new version",
        )
    return list(io.read_rows(folder / ITEMS, Example))


def used(store: Path) -> None:
    """Count one decision of the version in force."""
    found = newest(store)
    if found is not None:
        io.write_json(found[1] / NAME, replace(found[0], uses=found[0].uses + 1))
