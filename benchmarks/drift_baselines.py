"""What the drift benchmark is held beside: Evidently's defaults, and a fixed threshold on a divergence."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

KL_LIMIT = 0.1
"""The rule of thumb of dashboards that compare binned distributions."""
DriftRule = Callable[[np.ndarray, np.ndarray], dict[str, bool]]
"""Rows of a reference and of a window; whether each of its rules alarms."""


def evidently(texts: Sequence[str], tone: np.ndarray, vectors: np.ndarray) -> DriftRule:
    """Evidently's defaults: its choice of test for a text column and for the column of tone; embeddings by its four methods."""
    import pandas as pd
    from evidently import DataDefinition, Dataset, Report
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import distance, mmd, model, ratio
    from evidently.metrics import ValueDrift

    columns = [f"e{index}" for index in range(vectors.shape[1])]
    methods = {"model": model(), "mmd": mmd(), "distance": distance(), "ratio": ratio()}

    def dataset(places: np.ndarray) -> Dataset:
        table = pd.DataFrame({"text": [texts[index] for index in places], "tone": tone[places]})
        kinds = DataDefinition(text_columns=["text"], numerical_columns=["tone"])
        return Dataset.from_pandas(table, data_definition=kinds)

    def alarms(reference: np.ndarray, window: np.ndarray) -> dict[str, bool]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = Report([ValueDrift(column="text"), ValueDrift(column="tone")], include_tests=True)
            snapshot = report.run(dataset(window), dataset(reference)).dict()
            tests = {item["name"]: item["status"] for item in snapshot["tests"]}
            alarms = {name: _is_failure(tests[f"Value Drift for column {name}"]) for name in ("text", "tone")}
            now, then = (pd.DataFrame(vectors[places], columns=columns) for places in (window, reference))
            for name, method in methods.items():  # "model" writes a column into what it is given
                alarms[f"embeddings, {name}"] = bool(method(now.copy(), then.copy())[1])
        return alarms

    return alarms


def _is_failure(status: object) -> bool:
    return str(getattr(status, "value", status)) == "FAIL"


def kl(texts: Sequence[str], tone: np.ndarray, _vectors: np.ndarray) -> DriftRule:
    """A fixed threshold on Kullback-Leibler divergences: of word shares, and of deciles of length and tone."""
    words = [text.casefold().split() for text in texts]
    lengths = np.array([len(text) for text in texts], dtype=float)

    def alarms(reference: np.ndarray, window: np.ndarray) -> dict[str, bool]:
        then, now = (Counter(word for index in places for word in words[index]) for places in (reference, window))
        vocabulary = then.keys() | now.keys()
        alarms = {
            "words": divergence([now[word] for word in vocabulary], [then[word] for word in vocabulary]) > KL_LIMIT
        }
        for name, values in (("length deciles", lengths), ("tone deciles", tone)):
            edges = np.unique(np.quantile(values[reference], np.linspace(0, 1, 11)[1:-1]))
            counts = [
                np.bincount(np.digitize(values[places], edges), minlength=len(edges) + 1)
                for places in (window, reference)
            ]
            alarms[name] = divergence(*counts) > KL_LIMIT
        return alarms

    return alarms


def divergence(now: Sequence[float], then: Sequence[float]) -> float:
    """Kullback-Leibler divergence of counts, nats; half a count is added to each."""
    p, q = np.asarray(now, dtype=float) + 0.5, np.asarray(then, dtype=float) + 0.5
    return float((p / p.sum() * np.log((p / p.sum()) / (q / q.sum()))).sum())
