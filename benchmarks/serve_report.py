"""What the rows of bench_serve add up to: rates, times to the first token, ratios within rounds with their intervals, targets.

A row is one cell of one round: one system with so many clients, or at one rate of arrivals. Rows of runs on one machine with
the same settings add up, so that a run that was stopped is continued by starting it again.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from scipy import stats

CLIENTS = (1, 8, 32)
MIN_REQUESTS = 200
"""Requests of a cell over all rounds."""
PEERS_OF_OURS = ("vllm", "transformers_cb", "llama_cpp")
COMPARISONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "over_llama_cpp": ("tunectl", ("llama_cpp",)),
    "over_best_but_llama_cpp": ("tunectl", ("vllm", "transformers_cb")),
    "over_best": ("tunectl", PEERS_OF_OURS),
    "over_vllm": ("tunectl", ("vllm",)),
    "apart_over_vllm_adapter": ("tunectl_apart", ("vllm_adapter",)),
    "over_bare": ("tunectl", ("bare",)),
    "apart_over_bare": ("tunectl_apart", ("bare_apart",)),
    "merged_over_apart": ("tunectl", ("tunectl_apart",)),
}
"""By name: which system, over which others; of several the best of each round."""
TARGETS: tuple[tuple[str, str, int, float], ...] = (
    ("1 client, llama.cpp Q8_0", "over_llama_cpp", 1, 1.0),
    ("1 client, best of the others", "over_best_but_llama_cpp", 1, 1.8),
    ("8 clients, best of all", "over_best", 8, 1.4),
    ("32 clients, best of all", "over_best", 32, 1.05),
    ("32 clients, adapter apart, vLLM with the adapter", "apart_over_vllm_adapter", 32, 2.0),
    ("32 clients, own bare engine, same share of log-probabilities", "over_bare", 32, 0.95),
)
"""What the lower end of the interval must reach."""
Row = dict[str, Any]


def read_rows(path: Path, run: str) -> list[Row]:
    """The rows of one run: of one machine, with the same settings and versions."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [row for row in map(json.loads, lines) if row["run"] == run]


def append_row(path: Path, row: Row) -> None:
    """Add a row to the table."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as table:
        table.write(json.dumps(row) + "\n")


def count_rounds(rows: Sequence[Row], part: str, load: float) -> tuple[int, int]:
    """The number of the next round, and how many are whole: those that came to their last cell, which is given.

    A round that was cut short is not gone on with, since its cells would be measured at another time; what it has counts.
    """
    whole = {row["round"] for row in rows if (row["part"], row["load"]) == (part, load)}
    return 1 + max((row["round"] for row in rows), default=-1), len(whole)


def pick_rows(rows: Sequence[Row], system: str, part: str, load: float) -> dict[int, Row]:
    """The rows of one cell, by round."""
    cell = (system, part, load)
    return {row["round"]: row for row in rows if (row["system"], row["part"], row["load"]) == cell}


def compare(rows: Sequence[Row], system: str, others: Sequence[str], clients: int) -> dict[str, Any] | None:
    """The ratio of tokens/s within rounds, as a geometric mean with the 95 % interval of Student's t; None without a pair."""
    own = pick_rows(rows, system, "closed", clients)
    beside = [pick_rows(rows, other, "closed", clients) for other in others]
    logs = []
    for turn, row in own.items():
        rates = [each[turn]["tokens_per_second"] for each in beside if turn in each]
        if rates and max(rates) > 0 and row["tokens_per_second"] > 0:
            logs.append(math.log(row["tokens_per_second"] / max(rates)))
    return spread(logs) if logs else None


def spread(logs: Sequence[float]) -> dict[str, Any]:
    """Geometric mean and interval of ratios, given as logarithms; one ratio alone has no interval."""
    mean, low, high = statistics.fmean(logs), None, None
    if len(logs) > 1:
        width = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
        low, high = round(math.exp(mean - width), 3), round(math.exp(mean + width), 3)
    return {"ratio": round(math.exp(mean), 3), "low": low, "high": high, "pairs": len(logs)}


def compare_all(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """All comparisons, by name and clients."""
    return {
        name: {str(clients): compare(rows, system, others, clients) for clients in CLIENTS}
        for name, (system, others) in COMPARISONS.items()
    }


def judge(ratios: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for every target; what could not be measured is left out."""
    for name, comparison, clients, bound in TARGETS:
        ratio = ratios.get(comparison, {}).get(str(clients))
        if ratio is None:
            continue
        low = ratio["low"]
        words = f"{ratio['ratio']} ({low} to {ratio['high']}, {ratio['pairs']} rounds), at least {bound}"
        verdict = "no interval" if low is None else "held       " if low >= bound else "MISSED     "
        yield f"{verdict} {name}: {words}"


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Every cell: rates, and quantiles of the times to the first token over the requests of all rounds."""
    cells: dict[str, Any] = {}
    for system, part, load in sorted({(row["system"], row["part"], row["load"]) for row in rows}):
        rounds = list(pick_rows(rows, system, part, load).values())
        each = summarize_open(rounds) if part == "open" else summarize_closed(rounds)
        cells.setdefault(system, {}).setdefault(part, {})[f"{load:g}"] = each
    return cells


def summarize_closed(rows: Sequence[Row]) -> dict[str, Any]:
    """One cell with so many clients."""
    firsts = sorted(value for row in rows for value in row["first_ms"])
    return {
        "rounds": len(rows),
        "requests": len(firsts),
        "enough_requests": len(firsts) >= MIN_REQUESTS,
        **{
            name: round(statistics.median(row[name] for row in rows), 2)
            for name in ("tokens_per_second", "prompt_tokens_per_second", "client_cpu_share")
        },
        "first_ms_p50": quantile(firsts, 0.5),
        "first_ms_p95": quantile(firsts, 0.95),
        "failed": sorted({text for row in rows for text in row["failed"]})[:3],
    }


def summarize_open(rows: Sequence[Row]) -> dict[str, Any]:
    """One cell at one rate of arrivals."""
    sent = sum(row["sent"] for row in rows)
    return {
        "rounds": len(rows),
        "sent": sent,
        "good_share": round(sum(row["good"] for row in rows) / sent, 3) if sent else None,
        "goodput_per_second": round(statistics.median(row["goodput_per_second"] for row in rows), 3),
        "good_tokens_per_second": round(statistics.median(row["good_tokens_per_second"] for row in rows), 1),
        **{
            f"first_ms_{share}": statistics.median(times) if times else None
            for share in ("p50", "p95")
            for times in [[row["first"][share] for row in rows if row["first"][share] is not None]]
        },
        "failed": sorted({text for row in rows for text in row["failed"]})[:3],
    }


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """A quantile of sorted values; None of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def write_table(cells: dict[str, Any], says: dict[str, str]) -> Iterator[str]:
    """The closed part as a Markdown table."""
    yield "| new tokens/s + prompt tokens/s; first token p50 / p95 ms | " + " | ".join(map(str, CLIENTS)) + " |"
    yield "|---|" + "---|" * len(CLIENTS)
    for system, parts in cells.items():
        closed = [parts.get("closed", {}).get(f"{clients:g}") for clients in CLIENTS]
        texts = [
            f"{each['tokens_per_second']:.0f} + {each['prompt_tokens_per_second']:.0f}; {each['first_ms_p50']} / {each['first_ms_p95']}"
            if each
            else ""
            for each in closed
        ]
        yield f"| {says.get(system, system)} | " + " | ".join(texts) + " |"
