"""Small functions of our own beside those of libraries: time and results. ``python benchmarks/bench_small_functions.py [DATA]``.

``DATA`` holds ``drift/product_reviews.csv`` and ``drift/tweets.csv``, with the columns text and sentiment, which people gave.
"""

from __future__ import annotations

import csv
import json
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from hardware_info import machine, versions
from scipy import optimize, stats

from tunectl.backends.text import vader
from tunectl.monitoring.features import Sentiment
from tunectl.stats import goodness_of_fit, power_law

ROWS = (100, 200, 400, 800, 1600)
CURVES = 1_000
"""Bootstrap curves of one learning-curve report."""


def measure_power_law() -> dict[str, object]:
    """Fit noisy curves of a known law, each way; the error is that of the score predicted at ten times the rows."""
    rng = np.random.default_rng(1)
    sizes = np.asarray(ROWS, dtype=float)
    truth = 60 - 120 * sizes**-0.4
    curves = truth + rng.normal(0, 1.0, (CURVES, len(ROWS)))
    expected = 60 - 120 * (10 * sizes[-1]) ** -0.4
    started = time.perf_counter()
    limits, slopes, decays = power_law.fit_many(ROWS, curves, higher_is_better=True)
    ours, seconds = limits + slopes * (10 * sizes[-1]) ** -decays, time.perf_counter() - started
    started, theirs, failed = time.perf_counter(), [], 0
    for curve in curves:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optimize.OptimizeWarning)
                result, _ = optimize.curve_fit(lambda x, a, b, c: a - b * x**-c, sizes, curve, p0=(curve[-1], 50, 0.4))
        except RuntimeError:
            failed += 1
            continue
        theirs.append(result[0] - result[1] * (10 * sizes[-1]) ** -result[2])
    peer = time.perf_counter() - started
    return {
        "seconds": round(seconds, 4),
        "seconds_scipy": round(peer, 2),
        "median_error": round(float(np.median(np.abs(ours - expected))), 2),
        "median_error_scipy": round(float(np.median(np.abs(np.asarray(theirs) - expected))), 2),
        "largest_error": round(float(np.abs(ours - expected).max()), 1),
        "largest_error_scipy": round(float(np.abs(np.asarray(theirs) - expected).max()), 1),
        "not_fitted_scipy": failed,
    }


def measure_goodness_of_fit() -> dict[str, object]:
    """p values of small counts: the exact one, and SciPy's Monte Carlo test with as many draws as ours."""
    counts, shares = (9, 1, 0), (0.5, 0.3, 0.2)
    started = time.perf_counter()
    ours = goodness_of_fit.chi_square_test(counts, shares, seed=1)
    seconds = time.perf_counter() - started
    total = sum(counts)

    def draw(size: tuple[int, ...]) -> np.ndarray:
        return np.random.default_rng(1).multinomial(total, shares, size=size[:-1])

    def statistic(table: np.ndarray, axis: int) -> np.ndarray:
        expected = total * np.asarray(shares)
        return ((table - expected) ** 2 / expected).sum(axis=axis)

    started = time.perf_counter()
    result = stats.monte_carlo_test(
        np.asarray(counts), draw, statistic, n_resamples=9_999, alternative="greater", vectorized=True
    )
    peer = time.perf_counter() - started
    return {
        "p": round(ours.p_value, 5),
        "method": ours.method,
        "milliseconds": round(1e3 * seconds, 2),
        "p_scipy": round(float(result.pvalue), 5),
        "milliseconds_scipy": round(1e3 * peer, 2),
    }


def measure_tone(data: Path) -> dict[str, object]:
    """Rank correlation with what people said, of our rules and of vaderSentiment's, on one lexicon."""
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    theirs, ours = SentimentIntensityAnalyzer(), Sentiment(vader.lexicon())
    result: dict[str, object] = {}
    for name in ("product_reviews", "tweets"):
        with (data / "drift" / f"{name}.csv").open(newline="", encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        texts, people = [row["text"] for row in rows], [float(row["sentiment"]) for row in rows]
        started = time.process_time()
        own = ours.score(texts)
        between = time.process_time()
        peer = np.asarray([theirs.polarity_scores(text)["compound"] for text in texts])
        ended = time.process_time()
        for side, scores, seconds in (("", own, between - started), ("_vader", peer, ended - between)):
            result[f"{name}_seconds{side}"] = round(seconds, 2)
            result[f"{name}_correlation{side}"] = round(float(stats.spearmanr(scores, people)[0]), 3)
            result[f"{name}_silent{side}"] = round(float((scores == 0).mean()), 3)
    return result


if __name__ == "__main__":
    print(
        json.dumps(
            {
                "benchmark": "small functions",
                "machine": machine(),
                "versions": versions("numpy", "scipy"),
                "power_law": measure_power_law(),
                "goodness_of_fit": measure_goodness_of_fit(),
                "tone": measure_tone(Path(sys.argv[1])) if sys.argv[1:] else None,
            },
            indent=2,
        )
    )
