"""What is watched, and how each thing is compared: the table ``SIGNALS``.

Two sides. Prompts are compared with prompts (an accepted window of live traffic, or the training prompts), answers with the
champion's own answers to validation prompts: people's texts are not its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from math import isfinite, log1p
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct
from msgspec.structs import replace

from tunectl.artifacts.records import Signal
from tunectl.monitor import test
from tunectl.monitor.features import Embedder, Tone, characters, refined

if TYPE_CHECKING:
    from numpy.typing import NDArray

Side = Literal["prompt", "answer"]
SIDES: tuple[Side, ...] = ("prompt", "answer")
Kind = Literal["text", "tone", "language", "number", "category", "share"]


class Row(Struct, frozen=True, omit_defaults=True):
    """One exchange as the monitor sees it, or one row of a reference. None is "not known", and is left out of its signal."""

    id: str
    prompt: str | None = None
    """What was asked last. Redacted."""
    answer: str | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    finish_reason: str | None = None
    refused: bool | None = None
    """Whether the answer is empty or declines."""
    format_valid: bool | None = None
    mean_logprob: float | None = None
    """Nats a token."""
    feedback: bool | None = None
    """Whether somebody said something about it."""


@dataclass(frozen=True, slots=True)
class Tools:
    """What turns texts into numbers."""

    embedder: Embedder
    tone: Tone
    language: Callable[[str], str]
    """The code of a text's language, or ``unknown``."""


@dataclass(frozen=True, slots=True)
class Watched:
    """One row of the table of signals."""

    name: str
    side: Side
    kind: Kind
    value: Callable[[Row], Any]
    """None where the row has none."""

    @property
    def method(self) -> str:
        """How it is compared."""
        return METHODS[self.kind]


METHODS: dict[Kind, str] = {
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


SIGNALS: tuple[Watched, ...] = (
    Watched("prompt_text", "prompt", "text", lambda row: row.prompt),
    Watched("prompt_tone", "prompt", "tone", lambda row: row.prompt),
    Watched("prompt_language", "prompt", "language", lambda row: row.prompt),
    Watched("prompt_tokens", "prompt", "number", lambda row: _log(row.prompt_tokens)),
    Watched("feedback", "prompt", "share", lambda row: row.feedback),
    Watched("answer_text", "answer", "text", lambda row: row.answer),
    Watched("answer_tone", "answer", "tone", lambda row: row.answer),
    Watched("answer_language", "answer", "language", lambda row: row.answer),
    Watched("answer_tokens", "answer", "number", lambda row: _log(row.answer_tokens)),
    Watched("mean_logprob", "answer", "number", lambda row: _finite(row.mean_logprob)),
    Watched("finish_reason", "answer", "category", lambda row: row.finish_reason),
    Watched("refusals", "answer", "share", lambda row: row.refused),
    Watched("format_valid", "answer", "share", lambda row: row.format_valid),
)
SPOKEN = 2000
"""Most texts whose language is looked at, the slowest of the signals; of more, every second one, or third."""
NAMES = tuple(one.name for one in SIGNALS)
"""The closed set of signals: labels of the metrics."""


@dataclass(frozen=True, slots=True)
class Column:
    """One signal's values of some rows: of those rows that have one."""

    parts: tuple[NDArray[Any], ...]
    """Of a text feature maps (rows, d), of a tone the balance (rows,) and an embedding (rows, d), of other kinds one array
    (rows,), categories as texts."""
    rows: NDArray[Any]
    """Which rows these are."""

    def __len__(self) -> int:
        return len(self.rows)


Columns = Mapping[str, Column]


def columns(
    rows: Sequence[Row], side: Side, tools: Tools, *, without: Sequence[str] = (), spoken: int = SPOKEN
) -> dict[str, Column]:
    """The values of all signals of one side; those named in ``without`` are left out, language is that of ``spoken`` rows at most."""
    import numpy as np

    found: dict[str, Column] = {}
    tools = replaced(tools, embedder=_Once(tools.embedder))
    for one in SIGNALS:
        if one.side == side and one.name not in without:
            places = [place for place, row in enumerate(rows) if one.value(row) is not None]
            if one.kind == "language":
                places = places[:: -(-len(places) // spoken) or 1]
            values = [one.value(rows[place]) for place in places]
            found[one.name] = Column(_PARTS[one.kind](values, tools), np.array(places, dtype=np.int64))
    return found


class _Once:
    """An embedder that is asked once for the texts of a side, which two of its signals need."""

    def __init__(self, inner: Embedder) -> None:
        self.name, self._inner = inner.name, inner
        self._texts: list[str] | None = None
        self._vectors: NDArray[Any] | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[Any]:
        """See ``Embedder``."""
        if self._vectors is None or self._texts != texts:
            self._texts, self._vectors = list(texts), self._inner.embed(texts)
        return self._vectors


def _text(values: Sequence[str], tools: Tools) -> tuple[NDArray[Any], ...]:
    return tools.embedder.embed(values), characters(values)


def _tone(values: Sequence[str], tools: Tools) -> tuple[NDArray[Any], ...]:
    return tools.tone.score(values), tools.embedder.embed(values)


def _numbers(values: Sequence[float], _tools: Tools) -> tuple[NDArray[Any], ...]:
    import numpy as np

    return (np.array(values, dtype=np.float64),)


def _names(values: Sequence[str], _tools: Tools) -> tuple[NDArray[Any], ...]:
    import numpy as np

    return (np.array(values, dtype=np.str_),)


def _spoken(values: Sequence[str], tools: Tools) -> tuple[NDArray[Any], ...]:
    return _names([tools.language(value) for value in values], tools)


_PARTS: dict[Kind, Callable[[Sequence[Any], Tools], tuple[NDArray[Any], ...]]] = {
    "text": _text,
    "tone": _tone,
    "language": _spoken,
    "number": _numbers,
    "category": _names,
    "share": _numbers,
}


def tested(kind: Kind, first: Column, second: Column, dealer: test.Dealer, level: float) -> test.Tested:
    """Compare the values of a window with those of a reference; both need at least two rows."""
    import numpy as np

    pooled = [np.concatenate([one, other]) for one, other in zip(first.parts, second.parts, strict=True)]
    deals = dealer.deals(len(first), len(second))
    if kind == "text":
        return test.kernel(pooled, deals, level)
    if kind == "tone":
        return test.mean(refined(*pooled), deals, level)
    if kind in {"category", "language"}:
        return test.variation(np.unique(pooled[0], return_inverse=True)[1], deals, level)
    return (test.wasserstein if kind == "number" else test.share)(pooled[0], deals, level)


def compared(
    window: Columns, reference: Columns, floors: Mapping[str, float], dealer: test.Dealer, *, level: float, minimum: int
) -> list[Signal]:
    """Each signal that both sides have, tested at its own ``level``; with fewer rows than ``minimum`` on a side it says why not."""
    found = []
    for one in SIGNALS:
        if one.name in window and one.name in reference:
            ours, theirs = window[one.name], reference[one.name]
            bare = Signal(one.name, one.method, n=len(ours), reference=len(theirs))
            if len(ours) < minimum or len(theirs) < minimum:
                side, count = ("window", len(ours)) if len(ours) < minimum else ("reference", len(theirs))
                found.append(replace(bare, reason=f"too few rows in the {side}: {count} of {minimum}"))
                continue
            result = tested(one.kind, ours, theirs, dealer, level)
            found.append(
                replace(
                    bare,
                    score=result.score,
                    threshold=result.threshold,
                    p_value=result.p_value,
                    effect=result.effect,
                    floor=floors.get(one.name, 0.0),
                )
            )
    return found


def floors(reference: Columns, dealer: test.Dealer, *, quantile: float, minimum: int, seed: int) -> dict[str, float]:
    """The effect that ``quantile`` of random splits of the reference into halves stay below, by signal.

    A difference that the reference shows against itself is no drift, however many rows make it significant.
    """
    import numpy as np

    found = {}
    for one in SIGNALS:
        column = reference.get(one.name)
        if column is not None and len(column) >= minimum:
            order = np.random.default_rng(seed).permutation(len(column))
            half = len(column) // 2
            first, second = _picked(column, order[:half]), _picked(column, order[half:])
            found[one.name] = tested(one.kind, first, second, dealer, 1.0 - quantile).bar
    return found


def _picked(column: Column, places: NDArray[Any]) -> Column:
    return Column(tuple(part[places] for part in column.parts), column.rows[places])


def drawn(found: Columns, places: NDArray[Any]) -> dict[str, Column]:
    """The values of the rows ``places`` (numbers of rows) only, in that order: to draw windows out of measured texts."""
    import numpy as np

    chosen = {}
    for name, column in found.items():
        where = np.full(int(max([*column.rows, *places], default=0)) + 1, -1)
        where[column.rows] = np.arange(len(column))
        inside = where[places]
        chosen[name] = _picked(column, inside[inside >= 0])
    return chosen
