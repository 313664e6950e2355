"""The signals that are monitored for drift, and how each is compared: the table ``SIGNALS``.

Two sides. Prompts are compared with prompts (an accepted window of live traffic, or the training prompts), answers with the
champion's own answers to validation prompts: people's texts are not comparable with its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from math import isfinite, log1p
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts.records import DriftSignal
from tunectl.monitoring import text_kernel, two_sample_tests
from tunectl.monitoring.features import Embedder, Sentiment, char_ngram_features, smooth_by_neighbors

if TYPE_CHECKING:
    from numpy.typing import NDArray

SignalSide = Literal["prompt", "answer"]
SIDES: tuple[SignalSide, ...] = ("prompt", "answer")
SignalKind = Literal["text", "tone", "language", "number", "category", "share"]


class MonitoredInference(Struct, frozen=True, omit_defaults=True):
    """The values of one inference (or one reference row) that signals are computed from. None is unknown and left out of its signal."""

    id: str
    prompt: str | None = None
    """Last user turn, redacted."""
    answer: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    finish_reason: str | None = None
    refused: bool | None = None
    """Whether the answer is empty or declines."""
    format_valid: bool | None = None
    mean_logprob: float | None = None
    """Nats per token."""
    feedback: bool | None = None
    """Whether there is feedback on it."""


@dataclass(frozen=True, slots=True)
class SignalBackends:
    """Functions that convert texts to numbers: embedder, sentiment, language detection."""

    embedder: Embedder
    tone: Sentiment
    language: Callable[[str], str]
    """Returns the code of a text's language, or ``unknown``."""


@dataclass(frozen=True, slots=True)
class SignalSpec:
    """A monitored signal: its value of an inference, its kind (which decides the test), and its weight in the budget of false alarms."""

    name: str
    side: SignalSide
    kind: SignalKind
    value: Callable[[MonitoredInference], Any]
    """Returns the value of a row; None where it has none."""
    weight: float = 1.0
    """Share of the signal in the budget of false alarms: texts and tone detect most changes."""

    @property
    def method(self) -> str:
        """Name of the signal's two-sample test."""
        return METHODS[self.kind]


METHODS: dict[SignalKind, str] = {
    "text": "mmd",
    "tone": "difference_of_means",
    "number": "wasserstein",
    "category": "total_variation",
    "language": "total_variation",
    "share": "difference_of_shares",
}


def _log(count: int | None) -> float | None:
    return None if count is None or count < 0 else log1p(count)


def _finite(value: float | None) -> float | None:
    return value if value is not None and isfinite(value) else None


SIGNALS: tuple[SignalSpec, ...] = (
    SignalSpec("prompt_text", "prompt", "text", lambda row: row.prompt, weight=6.0),
    SignalSpec("prompt_tone", "prompt", "tone", lambda row: row.prompt, weight=6.0),
    SignalSpec("prompt_language", "prompt", "language", lambda row: row.prompt),
    SignalSpec("prompt_tokens", "prompt", "number", lambda row: _log(row.prompt_tokens)),
    SignalSpec("feedback", "prompt", "share", lambda row: row.feedback),
    SignalSpec("answer_text", "answer", "text", lambda row: row.answer, weight=6.0),
    SignalSpec("answer_tone", "answer", "tone", lambda row: row.answer, weight=3.0),
    SignalSpec("answer_language", "answer", "language", lambda row: row.answer),
    SignalSpec("answer_tokens", "answer", "number", lambda row: _log(row.answer_tokens)),
    SignalSpec("mean_logprob", "answer", "number", lambda row: _finite(row.mean_logprob)),
    SignalSpec("finish_reason", "answer", "category", lambda row: row.finish_reason),
    SignalSpec("refusals", "answer", "share", lambda row: row.refused),
    SignalSpec("format_valid", "answer", "share", lambda row: row.format_valid),
)
CHARACTERS = 0.5
"""Weight of a text's character features beside its embedding of length one, in the feature map of the text signals."""
MAX_LANGUAGE_TEXTS = 2000
"""Most texts whose language is detected, the slowest of the signals; of more, every second one, or third."""
MIN_PERMUTATIONS = 19
"""Permutations of a test whose p-value is not used."""
WEIGHTS = {item.name: item.weight for item in SIGNALS}
"""Shares of the budget of false alarms, by signal: the closed set of signals, which are labels of the metrics."""


@dataclass(frozen=True, slots=True)
class SignalValues:
    """Values of one signal (rows with a value, ...), and which rows those are."""

    parts: tuple[NDArray[Any], ...]
    """For a text feature maps (rows, d), for a tone the balance (rows,) and an embedding (rows, d), for other kinds one array
    (rows,), categories as texts."""
    rows: NDArray[Any]
    """Indices of these rows."""

    def __len__(self) -> int:
        return len(self.rows)


SignalColumns = Mapping[str, SignalValues]


def compute_signal_values(
    rows: Sequence[MonitoredInference],
    side: SignalSide,
    tools: SignalBackends,
    *,
    without: Sequence[str] = (),
    max_texts: int = MAX_LANGUAGE_TEXTS,
) -> dict[str, SignalValues]:
    """Return the values of all signals of ``side`` (prompt or answer) by name, but not of those in ``without``.

    Language is detected for ``max_texts`` rows at most.
    """
    import numpy as np

    signal_values: dict[str, SignalValues] = {}
    tools = replaced(tools, embedder=_CachedEmbedder(tools.embedder))
    for item in SIGNALS:
        if item.side == side and item.name not in without:
            indices = [index for index, row in enumerate(rows) if item.value(row) is not None]
            if item.kind == "language":
                indices = indices[:: -(-len(indices) // max_texts) or 1]
            values = [item.value(rows[index]) for index in indices]
            signal_values[item.name] = SignalValues(_PARTS[item.kind](values, tools), np.array(indices, dtype=np.int64))
    return signal_values


class _CachedEmbedder:
    """An embedder that caches the texts of a side, which two of its signals need."""

    def __init__(self, inner: Embedder) -> None:
        self.name, self._inner = inner.name, inner
        self._texts: list[str] | None = None
        self._vectors: NDArray[Any] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        if self._vectors is None or self._texts != texts:
            self._texts, self._vectors = list(texts), self._inner.embed(texts)
        return self._vectors


def _text(values: Sequence[str], tools: SignalBackends) -> tuple[NDArray[Any], ...]:
    return tools.embedder.embed(values), CHARACTERS * char_ngram_features(values)


def _tone(values: Sequence[str], tools: SignalBackends) -> tuple[NDArray[Any], ...]:
    return tools.tone.score(values), tools.embedder.embed(values)


def _numbers(values: Sequence[float], _tools: SignalBackends) -> tuple[NDArray[Any], ...]:
    import numpy as np

    return (np.array(values, dtype=np.float64),)


def _names(values: Sequence[str], _tools: SignalBackends) -> tuple[NDArray[Any], ...]:
    import numpy as np

    return (np.array(values, dtype=np.str_),)


def _detect_languages(values: Sequence[str], tools: SignalBackends) -> tuple[NDArray[Any], ...]:
    return _names([tools.language(value) for value in values], tools)


_PARTS: dict[SignalKind, Callable[[Sequence[Any], SignalBackends], tuple[NDArray[Any], ...]]] = {
    "text": _text,
    "tone": _tone,
    "language": _detect_languages,
    "number": _numbers,
    "category": _names,
    "share": _numbers,
}


def run_signal_test(
    kind: SignalKind,
    first: SignalValues,
    second: SignalValues,
    permuter: two_sample_tests.PermutationCache,
    level: float,
) -> two_sample_tests.TwoSampleResult:
    """Return the test of a window's values against those of a reference at ``level``; both need at least two rows."""
    import numpy as np

    pooled = [np.concatenate([part, other]) for part, other in zip(first.parts, second.parts, strict=True)]
    permutations = permuter.get_permutations(len(first), len(second))
    if kind == "text":
        return two_sample_tests.mmd(pooled, permutations, level)
    if kind == "tone":
        return two_sample_tests.difference_of_means(smooth_by_neighbors(*pooled), permutations, level)
    if kind in {"category", "language"}:
        return two_sample_tests.total_variation(np.unique(pooled[0], return_inverse=True)[1], permutations, level)
    return (two_sample_tests.wasserstein if kind == "number" else two_sample_tests.difference_of_shares)(
        pooled[0], permutations, level
    )


def suffix_strengths(
    name: str, windows: Sequence[SignalValues], reference: SignalValues, maximum: int, seed: int
) -> list[float]:
    """Return the test statistic of the signal ``name`` for the last one, two, three ... of ``windows``, pooled, against ``reference``.

    The statistics are in standard errors or standard deviations, so they can be compared where all p-values are equal to the smallest
    possible one. Of each window at most ``maximum`` rows are used.
    """
    import numpy as np

    kind = next(item.kind for item in SIGNALS if item.name == name)
    windows = [_take_rows(window, np.arange(len(window))[:: -(-len(window) // maximum) or 1]) for window in windows]
    signal_values = _take_rows(reference, np.arange(min(maximum * len(windows), len(reference))))
    if kind == "text":
        parts = [np.concatenate(each) for each in zip(*(item.parts for item in [*windows, signal_values]), strict=True)]
        kernel = text_kernel.build_kernel(np.concatenate(parts, axis=1), seed)
        sizes = np.cumsum([len(window) for window in windows[::-1]])
        return [
            kernel.strength(int(size), len(signal_values), int(sizes[-1] - size))
            if kernel is not None and size
            else 0.0
            for size in sizes
        ]
    permuter, result = two_sample_tests.PermutationCache(MIN_PERMUTATIONS, seed), []
    for size in range(1, len(windows) + 1):
        ours = pool_columns([{name: window} for window in windows[-size:]], maximum * size, seed).get(name, windows[-1])
        enough = min(len(ours), len(signal_values)) > 1
        score = run_signal_test(kind, ours, signal_values, permuter, 0.05).score if enough else 0.0
        result.append(score / (1 / max(len(ours), 1) + 1 / max(len(signal_values), 1)) ** 0.5)
    return result


def run_all_tests(
    window: SignalColumns,
    reference: SignalColumns,
    floors: Mapping[str, float],
    permuter: two_sample_tests.PermutationCache,
    *,
    level: float,
    minimum: int,
) -> list[DriftSignal]:
    """Test each signal that window and reference have at ``level``; one with fewer rows than ``minimum`` on either side gets a reason, no p-value."""
    results = []
    for item in SIGNALS:
        if item.name in window and item.name in reference:
            window_values, reference_values = window[item.name], reference[item.name]
            bare = DriftSignal(item.name, item.method, n=len(window_values), reference=len(reference_values))
            if len(window_values) < minimum or len(reference_values) < minimum:
                side, count = (
                    ("window", len(window_values))
                    if len(window_values) < minimum
                    else ("reference", len(reference_values))
                )
                results.append(replace(bare, reason=f"too few rows in the {side}: {count} of {minimum}"))
                continue
            result = run_signal_test(item.kind, window_values, reference_values, permuter, level)
            results.append(
                replace(
                    bare,
                    score=result.score,
                    threshold=result.threshold,
                    p_value=result.p_value,
                    effect=result.effect,
                    effect_floor=floors.get(item.name, 0.0),
                )
            )
    return results


def effect_floors(
    reference: SignalColumns, permuter: two_sample_tests.PermutationCache, *, quantile: float, minimum: int, seed: int
) -> dict[str, float]:
    """Return by signal the effect below which the share ``quantile`` of random splits of the reference into halves stay.

    A difference that the reference shows against itself is no drift, even where many rows make it significant. A signal with
    fewer than ``minimum`` values has none.
    """
    import numpy as np

    result = {}
    for item in SIGNALS:
        column = reference.get(item.name)
        if column is not None and len(column) >= minimum:
            order = np.random.default_rng(seed).permutation(len(column))
            half = len(column) // 2
            first, second = _take_rows(column, order[:half]), _take_rows(column, order[half:])
            result[item.name] = run_signal_test(item.kind, first, second, permuter, 1.0 - quantile).bar
    return result


def _take_rows(column: SignalValues, indices: NDArray[Any]) -> SignalValues:
    return SignalValues(tuple(part[indices] for part in column.parts), column.rows[indices])


def pool_columns(windows: Sequence[SignalColumns], maximum: int, seed: int) -> dict[str, SignalValues]:
    """Return the values of several windows' rows together; of more than ``maximum`` rows, a sample is drawn."""
    import numpy as np

    if len(windows) == 1:
        return dict(windows[0])
    pooled = {}
    for name in windows[-1]:
        columns = [each[name] for each in windows if name in each and len(each[name])]
        if not columns:
            continue
        parts = tuple(np.concatenate(each) for each in zip(*(column.parts for column in columns), strict=True))
        signal_values = SignalValues(parts, np.arange(sum(len(column) for column in columns)))
        if len(signal_values) > maximum:
            signal_values = _take_rows(
                signal_values, np.sort(np.random.default_rng(seed).choice(len(signal_values), maximum, replace=False))
            )
        pooled[name] = signal_values
    return pooled


def subset(signal_columns: SignalColumns, indices: NDArray[Any]) -> dict[str, SignalValues]:
    """Return the values of the rows ``indices`` only, in that order: to draw windows from measured texts."""
    import numpy as np

    columns = {}
    for name, column in signal_columns.items():
        where = np.full(int(max([*column.rows, *indices], default=0)) + 1, -1)
        where[column.rows] = np.arange(len(column))
        inside = where[indices]
        columns[name] = _take_rows(column, inside[inside >= 0])
    return columns
