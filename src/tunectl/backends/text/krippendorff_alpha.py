"""Wrapper of krippendorff: the agreement coefficient of several raters."""

from __future__ import annotations

from collections.abc import Sequence

from tunectl.core.optional import import_optional


def alpha(ratings: Sequence[Sequence[int | None]]) -> float | None:
    """Return Krippendorff's alpha of nominal ``ratings``, (raters, items); None in them: this rater did not rate that item.

    None if it is undefined: no item has two ratings, or all ratings are equal.
    """
    numpy = import_optional("numpy", extra="data")
    krippendorff = import_optional("krippendorff", extra="data")
    table = numpy.array([[numpy.nan if value is None else value for value in row] for row in ratings], dtype=float)
    pairable = table[:, (~numpy.isnan(table)).sum(axis=0) > 1]
    if len(numpy.unique(pairable[~numpy.isnan(pairable)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=pairable, level_of_measurement="nominal"))
