"""The kernel of the text signals: nearest neighbors, and the difference of means.

Foreign texts in a window lie close together and far from most others. A regularized distance of means sees them badly while they
are few: they widen the pool's covariance in just the direction in which they differ. Neighbors see them well: texts most like a
foreign one are the other foreign ones, all in the window. A change of all texts by a little shifts means and no neighbors, so the
kernel is the sum of both parts, each centered and of norm one. It is made of window and reference together and of nothing else.

Sources: Henze, "A Multivariate Two-Sample Test Based on the Number of Nearest Neighbor Type Coincidences", Annals of Statistics 16
(1988); Zhou and Chen, "A New Ranking Scheme for Modern Data and Its Application to Two-Sample Hypothesis Testing", COLT 2023, for
neighbors that count by their rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tunectl.monitoring import tail_probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

NEIGHBORS = 40
"""Most neighbors of a row; the first has weight one, the last a fortieth."""
SHARE = 25
"""A row has at most one neighbor for so many rows of the pool."""
GRAPH = 2.0
"""Weight of neighbors; the means have weight one."""
RIDGES = (1.0, 0.1, 0.01)
"""Ridges of the distance of means, in parts of the pool's largest variance; their standardized distances are added up."""
BLOCK = 1000
"""Rows whose neighbors are searched at a time."""


@dataclass(frozen=True, slots=True)
class KernelNull:
    """Moments of a kernel's quadratic form where both groups have one distribution."""

    mean: float
    variance: float
    third: float
    """Third cumulant, if group membership were normally distributed."""
    lopsided: float
    """Addition to ``third`` per unit of squared skewness of the group membership, (m - n)^2 / (n m): groups of unequal size."""

    @property
    def spread(self) -> float:
        """Standard deviation of the form."""
        return float(self.variance**0.5)

    def tail(self, standard: float, n: int, m: int) -> float:
        """Return P(form >= mean + ``standard`` standard deviations) with groups of ``n`` and ``m`` rows."""
        third = self.third + self.lopsided * (m - n) ** 2 / (n * m)
        p_value = tail_probabilities.pearson_tail(standard, third / self.variance**1.5)
        return float(
            p_value**tail_probabilities.MARGIN
        )  # a kernel of few clusters has a longer tail than its skewness tells


@dataclass(frozen=True)
class TextKernel:
    """Kernel (similarity) matrix of the texts of a pool, as a sum: ``GRAPH * graph + axes @ axes.T``; the graph is not centered yet."""

    axes: NDArray[Any]
    """(rows, d), centered."""
    graph: Any
    """Weights of neighbors, a sparse matrix (rows, rows): the kernel contains it and its transpose."""
    scale: float
    """Weight of an edge."""

    @property
    def rows(self) -> int:
        """Number of rows of the pool."""
        return len(self.axes)

    @cached_property
    def degrees(self) -> NDArray[Any]:
        """Sum of each row's edges (rows,), both directions."""
        import numpy as np

        edges = np.asarray(self.graph.sum(axis=0)).ravel() + np.asarray(self.graph.sum(axis=1)).ravel()
        result: NDArray[Any] = edges.astype(np.float64)
        return result

    def graph_form(self, groups: NDArray[Any]) -> NDArray[Any]:
        """Return the graph's part of the squared norm of a group's centered feature sum, for each permutation; (permutations,).

        ``groups`` (permutations, rows) is 1 for the rows of the group, 0 for the others.
        """
        import numpy as np

        indicators = np.ascontiguousarray(groups.T)
        inside = 2 * np.einsum("ij,ij->j", self.graph @ indicators, indicators, dtype=np.float64)
        share = groups.sum(axis=1, dtype=np.float64) / self.rows
        result: NDArray[Any] = inside - 2 * share * (groups @ self.degrees) + share**2 * self.degrees.sum()
        return self.scale * result

    def strength(self, n: int, m: int, first: int) -> float:
        """Return the standardized distance of the mean of rows ``first`` to ``first + n`` from that of the last ``m`` rows."""
        import numpy as np

        contrast = np.zeros(self.rows, dtype=np.float32)
        contrast[first : first + n], contrast[-m:] = 1 / n, -1 / m
        form = float(((contrast @ self.axes) ** 2).sum()) + 2 * self.scale * float(contrast @ (self.graph @ contrast))
        return (form / (1 / n + 1 / m) - self.null.mean) / self.null.spread

    @cached_property
    def null(self) -> KernelNull:
        """Null distribution of the squared distance of two means, in units of the variance of a difference of means."""
        return null_of(self.graph + self.graph.T, self.axes, self.scale)


def build_kernel(values: NDArray[Any], seed: int) -> TextKernel | None:
    """Return the kernel of a pool's feature maps (rows, d); None where all rows are equal. ``seed`` decides between equal neighbors."""
    import numpy as np

    centered = np.asarray(values - values.mean(axis=0), dtype=np.float32)
    moves = float(np.abs(centered).max()) > 1e-6 * float(np.abs(values).max())  # less is rounding
    axes = weigh_axes(centered, centered) if moves else None
    if axes is None:
        return None
    graph = join_neighbors(centered, max(1, min(NEIGHBORS, len(values) // SHARE)), seed)
    return TextKernel(axes, graph, GRAPH / norm_of_centered(graph + graph.T))


def weigh_axes(centered: NDArray[Any], learned: NDArray[Any]) -> NDArray[Any] | None:
    """Return ``centered`` (rows, d) on the k principal axes of ``learned``, shape (rows, k), weighted so that the kernel of ``learned`` has norm one.

    With a ridge, directions get more weight the less the pool varies in them. None where nothing varies.
    """
    import numpy as np

    variances, axes = np.linalg.eigh(np.asarray(learned.T @ learned, dtype=np.float64) / len(learned))
    variances = np.maximum(variances, 0.0)
    significant = variances > 1e-7 * max(variances[-1], 1e-30)
    if not significant.any():
        return None
    variances, axes = variances[significant], axes[:, significant]
    weights = [1 / (variances + ridge * variances[-1]) for ridge in RIDGES]
    total = np.sum([each / np.sqrt(((each * variances) ** 2).sum()) for each in weights], axis=0)
    total /= len(learned) * np.sqrt(((total * variances) ** 2).sum())
    result: NDArray[Any] = (centered @ (axes * np.sqrt(total)).astype(np.float32)).astype(np.float32)
    return result


def join_neighbors(centered: NDArray[Any], count: int, seed: int, same: float = 0.0) -> csr_array:
    """Return the graph of nearest neighbors of ``centered`` (rows, d) by cosine: a sparse matrix (rows, rows), not symmetric.

    Row i has ``count`` entries: 1 for its nearest row, falling linearly to 1 / ``count``. Equal neighbors are ordered at random
    (``seed``). ``same``: value on the diagonal (0: none), for simulations that draw a row more than once.
    """
    import numpy as np
    from scipy.sparse import csr_array

    rows = len(centered)
    order = np.random.default_rng(seed).permutation(rows)
    lengths = np.linalg.norm(centered, axis=1, keepdims=True)
    directions = (centered / np.where(lengths > 0, lengths, 1.0))[order]
    nearest = np.empty((rows, count), dtype=np.int64)
    for start in range(0, rows, BLOCK):
        likeness = directions[start : start + BLOCK] @ directions.T
        diagonal = np.arange(len(likeness))
        likeness[diagonal, start + diagonal] = -np.inf
        result = np.argpartition(likeness, rows - count, axis=1)[:, rows - count :]
        ranked = np.argsort(-np.take_along_axis(likeness, result, axis=1), axis=1, kind="stable")
        nearest[start : start + BLOCK] = np.take_along_axis(result, ranked, axis=1)
    weights = np.tile((np.arange(count, 0, -1) / count).astype(np.float32), (rows, 1))
    where, whom = np.repeat(order, count), order[nearest].ravel()
    if same:
        where, whom = np.concatenate([where, order]), np.concatenate([whom, order])
        weights = np.concatenate([weights.ravel(), np.full(rows, same, dtype=np.float32)])
    return csr_array((weights.ravel(), (where, whom)), shape=(rows, rows))


def norm_of_centered(edges: Any) -> float:
    """Return the Frobenius norm (a float) of the symmetric sparse matrix ``edges`` once rows and columns are centered."""
    import numpy as np

    degrees = np.asarray(edges.sum(axis=0), dtype=np.float64).ravel()
    total = float((edges.data.astype(np.float64) ** 2).sum())
    rows = edges.shape[0]
    return float(np.sqrt(max(total - 2 / rows * degrees @ degrees + (degrees.sum() / rows) ** 2, 1e-6)))


def null_of(edges: Any, axes: NDArray[Any], scale: float) -> KernelNull:
    """Return the cumulants of ``scale * edges + axes @ axes.T``, centered, as a quadratic form of independent normal variables.

    ``edges`` is symmetric and sparse. The cumulants are traces of the kernel, its square and its cube; ``lopsided`` corrects the third
    for groups of unequal size, where ``edges`` has few large entries.
    """
    import numpy as np

    rows = edges.shape[0]
    degrees = np.asarray(edges.sum(axis=0), dtype=np.float64).ravel()
    total, squared = float(degrees.sum()), float(degrees @ degrees)
    inner = np.asarray(axes.T @ axes, dtype=np.float64)
    reached = edges @ axes
    moved = np.asarray(axes.T @ reached, dtype=np.float64)
    both = np.asarray(reached - reached.mean(axis=0), dtype=np.float64)
    cubed = float((edges @ edges).multiply(edges).sum())
    cubed += -3 / rows * float(degrees @ (edges @ degrees)) + 3 / rows**2 * total * squared - (total / rows) ** 3
    trace = scale * (float(edges.diagonal().sum()) - total / rows) + float(np.trace(inner))
    second = (scale * norm_of_centered(edges)) ** 2 + 2 * scale * float(np.trace(moved)) + float((inner**2).sum())
    third = scale**3 * cubed + 3 * scale**2 * float((both**2).sum()) + 3 * scale * float((moved * inner).sum())
    third += float((inner @ inner * inner).sum())
    skewness = scale**3 * float(
        (edges.data.astype(np.float64) ** 3).sum() - (edges.diagonal().astype(np.float64) ** 3).sum()
    )
    return KernelNull(trace / rows, 2 * second / rows**2, 8 * third / rows**3, 4 * skewness / rows**3)
