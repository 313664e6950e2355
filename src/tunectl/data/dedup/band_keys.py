"""MinHash keys of all bands: in memory, or in a file from which one band at a time is read."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tunectl.artifacts.disk_list import read_at, require_free_bytes, write_at

if TYPE_CHECKING:
    from tunectl.data.dedup.shingles import Hashes

KEY_BYTES = 8


class BandKeys:
    """Table (bands, items) of 64-bit MinHash keys, in memory or in a file; threads may write different items at once.

    The file has no name, so it is deleted with the process. It is read and written by position, not memory-mapped: mapped pages would
    count as memory of the process.
    """

    def __init__(self, bands: int, items: int, scratch: Path | None) -> None:
        """Keep the keys in memory, or in ``scratch``.

        Raises  InfrastructureError where its disk has too little space for them.
        """
        import numpy as np

        self.items = items
        self._descriptor: int | None = None
        self._array: Hashes = np.zeros((bands, items if scratch is None else 0), np.uint64)
        if scratch is not None:
            needed = bands * items * KEY_BYTES
            require_free_bytes(scratch, needed, f"near-duplicate search in {items:,} records ({bands} bands)")
            self._descriptor, name = tempfile.mkstemp(dir=scratch)
            Path(name).unlink()
            os.truncate(self._descriptor, needed)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Free the disk."""
        if self._descriptor is not None:
            os.close(self._descriptor)

    def write(self, start: int, keys: Hashes) -> None:
        """Set the keys of the items from index ``start`` on; ``keys`` has shape (bands, items to set)."""
        if self._descriptor is None:
            self._array[:, start : start + keys.shape[1]] = keys
            return
        for band, row in enumerate(keys):
            write_at(self._descriptor, memoryview(row).cast("B"), (band * self.items + start) * KEY_BYTES)

    def read(self, band: int) -> Hashes:
        """Return the keys of one band, shape (items,)."""
        import numpy as np

        size = self.items * KEY_BYTES
        keys: Hashes = (
            self._array[band]
            if self._descriptor is None
            else np.frombuffer(read_at(self._descriptor, size, band * size), np.uint64)
        )
        return keys
