"""Normalize rows of numbers to unit vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray


def l2_normalize(rows: NDArray[Any]) -> NDArray[Any]:
    """Return ``rows`` (rows, d) scaled to Euclidean norm 1, float32; non-finite values count as 0, and rows of zeros stay so."""
    import numpy as np

    clean = np.nan_to_num(np.asarray(rows, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    lengths = np.linalg.norm(clean, axis=1, keepdims=True)
    scaled: NDArray[Any] = clean / np.where(lengths > 1e-12, lengths, 1.0)
    return scaled
