"""Learning curve: train on parts of the data, measure on validation, and fit how the loss falls with the size.

The loss is in nats per token of the right answers: it falls smoothly where metrics of matching words jump, and published curves
follow a power law in it. The intervals are over validation examples, paired because every size is measured on the same ones,
and drawn by group (all examples of one business together) because those of a group are not independent. The variation between seeds of
training is not included. All sizes are trained for the same number of epochs, so smaller ones take fewer steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from msgspec import Struct, field

from tunectl.artifacts.records import Example
from tunectl.core.errors import DataError
from tunectl.core.hashing import hash_to_unit
from tunectl.core.optional import import_optional
from tunectl.stats import bootstrap, power_law

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARES = (0.10, 0.25, 0.50, 1.00)
RESAMPLES = 2_000
CONFIDENCE = 0.95

Verdict = Literal["more helps", "enough", "cannot tell"]


class TrainAndScore(Protocol):
    """Trains a model on some records and scores it on validation; tests pass a fake."""

    @property
    def left_out(self) -> dict[str, int]:
        """Number of the validation examples that cannot be scored, by reason.

        Raises  DataError where they are too many.
        """

    def learn(self, train: Sequence[Example], *, label: str) -> list[Likelihood]:
        """Train on ``train`` (``label``: its share, ``50%``) and return the likelihood of each validation example's answers, in one order for all calls."""


class Likelihood(Struct, frozen=True):
    """Likelihood of the reference answers of one validation example under a trained model."""

    id: str
    """Id of the example."""
    nats: float
    """Sum of the log-probabilities of their tokens; zero or below."""
    tokens: int


class MeasuredSize(Struct, frozen=True):
    """Likelihoods on validation after training on one share of the training rows."""

    share: float
    rows: int
    likelihoods: list[Likelihood]


class CurvePoint(Struct, frozen=True):
    """One measured size on the learning curve: loss in nats per token, with its interval."""

    share: float
    rows: int
    loss: float
    low: float
    high: float


class ExpectedGain(Struct, frozen=True):
    """Fall of the loss in nats per token by more data, with its interval; positive is better."""

    value: float
    low: float
    high: float


class Curve(Struct, frozen=True):
    """The fitted learning curve, its measured points, and whether more data is worth collecting."""

    marks: list[CurvePoint]
    validation: int
    """Number of validation examples behind the intervals."""
    groups: int
    """Number of their groups, the unit of resampling."""
    limit: float
    """loss = limit + slope * rows ** -decay"""
    slope: float
    decay: float
    last: ExpectedGain
    """Measured gain from the last size but one to all of train."""
    doubled: ExpectedGain
    """Expected gain from all of train to twice as much, by the fitted law."""
    worth: float
    """Smallest fall of the loss for which more data is worth collecting, as given."""
    verdict: Verdict
    conclusion: str = field(name="words")
    """The conclusion as a sentence."""
    left_out: dict[str, int] = {}
    """Validation examples that cannot be scored, by reason."""

    def predict(self, rows: float) -> float:
        """Return the loss, in nats per token, that the fitted law predicts for ``rows`` records."""
        return power_law.PowerLaw(self.limit, self.slope, self.decay).predict(rows)


def take_nested_subsets(train: Sequence[Example], *, seed: int) -> Iterator[tuple[float, list[Example]]]:
    """Yield (share of ``SHARES``, its records): each subset contains the smaller ones, and records keep their order.

    Raises  DataError where train is too small for four different sizes.
    """
    sizes = [max(1, round(share * len(train))) for share in SHARES]
    if len(train) < 20 or len(set(sizes)) < len(SHARES):
        raise DataError(
            f"a learning curve needs at least 20 train records; there are {len(train)}",
            hint="add data first: with so little, more always helps",
        )
    order = sorted(range(len(train)), key=lambda row: (hash_to_unit(f"{seed}\0curve {train[row].id}"), row))
    for share, size in zip(SHARES, sizes, strict=True):
        yield share, [train[row] for row in sorted(order[:size])]


def fit_and_advise(points: Sequence[MeasuredSize], *, worth: float, seed: int, clusters: Mapping[str, str]) -> Curve:
    """Return the curve fitted through ``points`` (ascending sizes), with the verdict whether twice the data is worth collecting.

    ``worth`` is the smallest gain that justifies more data, in nats per token; ``clusters`` maps the id of a validation example to its
    group. More data helps if even the lower end of the expected gain reaches ``worth``; there is enough if not even the upper end does.
    Raises  DataError where validation has fewer than two groups of examples with answers.
    """
    np, statistics = _statistics(points, clusters)
    rows = [point.rows for point in points]
    counts = bootstrap.resample_counts(len(statistics[0]), RESAMPLES, seed)
    observed = np.asarray([_loss(table.sum(axis=0)) for table in statistics])
    resampled = np.stack([_loss(counts @ table) for table in statistics], axis=1)
    law = power_law.fit(rows, observed.tolist(), higher_is_better=False, floor=0.0)
    _, slopes, decays = power_law.fit_many(rows, resampled, higher_is_better=False, floor=0.0)
    most = rows[-1]
    doubled = _gain(law.predict(most) - law.predict(2 * most), slopes * (most**-decays - (2.0 * most) ** -decays))
    lows, highs = np.quantile(resampled, _tails(), axis=0)
    marks = [
        CurvePoint(p.share, p.rows, float(o), float(a), float(b))
        for p, o, a, b in zip(points, observed, lows, highs, strict=True)
    ]
    last = _gain(float(observed[-2] - observed[-1]), resampled[:, -2] - resampled[:, -1])
    verdict, conclusion = _verdict(doubled, worth, most)
    return Curve(
        marks,
        len(points[0].likelihoods),
        len(statistics[0]),
        law.limit,
        law.slope,
        law.decay,
        last,
        doubled,
        worth,
        verdict,
        conclusion,
    )


def _statistics(points: Sequence[MeasuredSize], clusters: Mapping[str, str]) -> tuple[Any, list[NDArray[Any]]]:
    """Return numpy, and for each size the sums of nats and tokens of each group: (groups, 2)."""
    np = import_optional("numpy", extra="data")
    names = [clusters.get(likelihood.id, likelihood.id) for likelihood in points[0].likelihoods]
    if len(set(names)) < 2:
        raise DataError(
            f"a learning curve needs at least two groups of validation examples with answers; there are {len(set(names))}",
            hint="raise split.shares.validation",
        )
    tables = [
        np.asarray([(likelihood.nats, likelihood.tokens) for likelihood in point.likelihoods], dtype=float)
        for point in points
    ]
    return np, [bootstrap.sum_by_group(table, names) for table in tables]


def _loss(sums: Any) -> Any:
    return -sums[..., 0] / sums[..., 1]


def _tails() -> list[float]:
    return [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]


def _gain(value: float, resampled: Any) -> ExpectedGain:
    low, high = import_optional("numpy", extra="data").quantile(resampled, _tails())
    return ExpectedGain(float(value), float(low), float(high))


def _verdict(gain: ExpectedGain, worth: float, rows: int) -> tuple[Verdict, str]:
    expected = f"{2 * rows:,} records instead of {rows:,} are expected to lower the loss by {gain.value:.3f} nats a token ({gain.low:.3f} to {gain.high:.3f})"
    if gain.low >= worth:
        return "more helps", f"More data would help: {expected}; {worth:g} was called worth it."
    if gain.high < worth:
        return (
            "enough",
            f"More data of this kind would help little: {expected}; less than the {worth:g} called worth it.",
        )
    return (
        "cannot tell",
        f"Cannot tell whether more data would help: {expected}, and the {worth:g} called worth it lies between. More validation examples would narrow it.",
    )
