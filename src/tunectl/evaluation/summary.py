"""The comparison as a small table for a terminal, and as flat numbers for DVC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunectl.artifacts.records import truncate
from tunectl.evaluation import metrics, win_rate
from tunectl.evaluation.results import AnswerRow, MetricDifference, Results, Score, System

SHOWN = ("bleu", "slot_error", "chrf", "rouge_l", "perplexity", "checks", "words")
FEW_INPUTS = 100
"""Number of test inputs below which the table notes that its intervals are wide."""
LONGEST_EXAMPLE = 220
"""Most letters of an example's input or answer in the terminal; the report has the whole text."""


def summary_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Return (column titles, rows) of the final table: one row per system, its metrics, its gain over base with interval, its speed."""
    names = columns_of(results)
    title = metrics.get_metric(results.primary).title
    columns = ["system", *(metrics.get_metric(name).title for name in names), f"{title} over base", "tokens/s"]
    rows = [
        [
            system.title,
            *(_value(system.scores.get(name)) for name in names),
            _gain(results, system.name),
            _format_speed(system),
        ]
        for system in results.systems
    ]
    return columns, rows


def columns_of(results: Results) -> list[str]:
    """Return the names of the metrics that the table shows: those that some system has, the primary one first."""
    measured = {name for system in results.systems for name in system.scores}
    names = [name for name in SHOWN if name in measured]
    return sorted(names, key=lambda name: name != results.primary)


def to_dvc_metrics(results: Results) -> dict[str, dict[str, float]]:
    """Return numbers by system and metric, for DVC metrics; each system has its speed and tokens, too."""
    result = {}
    for system in results.systems:
        numbers = {name: round(score.value, 4) for name, score in system.scores.items()}
        if system.cost is not None:
            numbers["answer_tokens"] = float(system.cost.tokens)
            numbers["prompt_tokens"] = float(system.cost.prompt_tokens)
        result[system.name] = numbers
    return result


def win_lines(results: Results) -> list[str]:
    """Return one sentence per judge with judgments: how often aligned beat tuned."""
    return [
        f"aligned against tuned, {win_rate.title(item.judge).lower()}: {100 * item.rate:.0f} % of {item.pairs} pairs "
        f"({100 * (item.low or 0):.0f} to {100 * (item.high or 0):.0f}), {item.wins} won, {item.ties} tied, {item.losses} lost"
        for item in results.win_rates
        if item.rate is not None
    ]


def cause_lines(results: Results) -> list[str]:
    """Return one sentence per likely cause why aligned is not significantly better than tuned, with what to try."""
    aligned = results.verdict.aligned
    causes = [] if aligned is None else aligned.causes
    return [f"why aligned may gain nothing: {cause.finding} What to try: {cause.advice}" for cause in causes]


def size_note(results: Results) -> str | None:
    """Return a note that there are few test inputs; None where there are enough."""
    if results.inputs >= FEW_INPUTS:
        return None
    return f"{results.inputs} test inputs: the intervals are wide"


def example_lines(results: Results, rows: Sequence[AnswerRow]) -> Iterator[str]:
    """Yield the answers of the base model and of the last trained model to ``rows``, one line each, under the input."""
    names = [system.name for system in results.systems]
    titles = {system.name: system.title for system in results.systems}
    systems = ["base", next(name for name in ("aligned", "tuned") if name in names)]
    width = max(len("Input"), *(len(titles[name]) for name in systems))
    for row in rows:
        yield f"{'Input':{width}}  {truncate(row.input, LONGEST_EXAMPLE)}"
        for name in systems:
            yield f"{titles[name]:{width}}  {truncate(row.answers[name], LONGEST_EXAMPLE)}"


def _value(score: Score | None) -> str:
    return "-" if score is None else f"{score.value:.1f}"


def _gain(results: Results, name: str) -> str:
    for difference in results.differences:
        if (difference.system, difference.against, difference.measure) == (name, "base", results.primary):
            return format_difference(difference)
    return "-"


def format_difference(difference: MetricDifference) -> str:
    """Return a difference with its interval: ``+12.3 (10.1 to 14.4)``."""
    if difference.low is None or difference.high is None:
        return f"{difference.value:+.1f} (no interval)"
    return f"{difference.value:+.1f} ({difference.low:.1f} to {difference.high:.1f})"


def _format_speed(system: System) -> str:
    if system.cost is None or system.cost.tokens_per_second is None:
        return "-"
    return f"{system.cost.tokens_per_second:.0f}"
