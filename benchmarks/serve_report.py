"""What the rows of bench_serve add up to: rates, times to the first token, ratios within rounds with their intervals, targets.

A row is one cell of one round: one system with so many clients, at one rate of arrivals, or started once. Rows of runs on one
machine with the same settings add up, so that a run that was stopped is continued by starting it again.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from scipy import stats
from serve_envs import ROOT

ROWS = ROOT / "benchmarks/results/serve_rows.jsonl"
CLIENTS = (1, 8, 32)
MIN_REQUESTS = 200
"""Requests of a cell over all rounds."""
PEERS_OF_OURS = ("vllm", "transformers_cb", "llama_cpp")
CLOSED, OPEN, STARTED, END = "closed", "open", "started", "end"
"""Parts of a run; a row of the last one says that its round is whole."""


class Comparison(NamedTuple):
    """A ratio: of which system, over which others (of several the best of each round), in which measure and part of a run."""

    system: str
    others: tuple[str, ...]
    measure: str = "tokens_per_second"
    part: str = CLOSED


COMPARISONS: dict[str, Comparison] = {
    "over_llama_cpp": Comparison("tunectl", ("llama_cpp",)),
    "over_best_but_llama_cpp": Comparison("tunectl", ("vllm", "transformers_cb")),
    "over_best": Comparison("tunectl", PEERS_OF_OURS),
    "over_vllm": Comparison("tunectl", ("vllm",)),
    "apart_over_vllm_adapter": Comparison("tunectl_apart", ("vllm_adapter",)),
    "over_bare": Comparison("tunectl", ("bare",)),
    "apart_over_bare": Comparison("tunectl_apart", ("bare_apart",)),
    "merged_over_apart": Comparison("tunectl", ("tunectl_apart",)),
    "without_logprobs_over_with": Comparison("tunectl_no_logprobs", ("tunectl",)),
    "first_p50_over_best": Comparison("tunectl", PEERS_OF_OURS, "first_p50"),
    "first_p95_over_best": Comparison("tunectl", PEERS_OF_OURS, "first_p95"),
    "apart_first_p50_over_vllm_adapter": Comparison("tunectl_apart", ("vllm_adapter",), "first_p50"),
    "apart_first_p95_over_vllm_adapter": Comparison("tunectl_apart", ("vllm_adapter",), "first_p95"),
    "memory_over_before": Comparison("tunectl", ("before",), "memory", STARTED),
    "start_over_before": Comparison("tunectl", ("before",), "start", STARTED),
}
NO_WORSE = 0.95
"""Of memory and start time beside an earlier version: two equal ones have an interval around 1, whose lower end is below it."""
TARGETS: tuple[tuple[str, str, float, float], ...] = (
    ("1 client, llama.cpp Q8_0", "over_llama_cpp", 1, 1.0),
    ("1 client, best of the others", "over_best_but_llama_cpp", 1, 1.8),
    ("8 clients, best of all", "over_best", 8, 1.4),
    ("32 clients, best of all", "over_best", 32, 1.05),
    ("32 clients, adapter apart, vLLM with the adapter", "apart_over_vllm_adapter", 32, 2.0),
    ("32 clients, own bare engine, same share of log-probabilities", "over_bare", 32, 0.95),
    *(
        (
            f"{clients} client{'s' * (clients > 1)}, first token {share}, {words}",
            f"{name}first_{share}_over_{other}",
            clients,
            1.0,
        )
        for words, name, other in (
            ("best of all", "", "best"),
            ("adapter apart, vLLM with the adapter", "apart_", "vllm_adapter"),
        )
        for clients in CLIENTS
        for share in ("p50", "p95")
    ),
    ("memory after load, the earlier version", "memory_over_before", 0, NO_WORSE),
    ("start time, the earlier version", "start_over_before", 0, NO_WORSE),
)
"""What the lower end of the interval must reach. Of times and memory the ratio is theirs over ours, so that more is better."""
Row = dict[str, Any]
MEASURES: dict[str, Callable[[Row], float]] = {
    "tokens_per_second": lambda row: float(row["tokens_per_second"]),
    "first_p50": lambda row: invert(quantile(sorted(row["first_ms"]), 0.5)),
    "first_p95": lambda row: invert(quantile(sorted(row["first_ms"]), 0.95)),
    "memory": lambda row: invert(row["megabytes"]),
    "start": lambda row: invert(row["seconds_to_ready"]),
}
"""What is compared, as a number of which more is better; 0 where there is none."""


def read_rows(path: Path, run: str) -> list[Row]:
    """Read the rows of one run: of one machine, with the same settings and versions. A line that a kill has cut is left out."""
    lines = path.read_text().splitlines() if path.is_file() else []
    return [row for row in map(parse_row, lines) if row is not None and row["run"] == run]


def parse_row(line: str) -> Row | None:
    """Parse a line of the table; None where it is not whole."""
    try:
        row: Row = json.loads(line)
    except ValueError:
        return None
    return row


def hash_run(about: Any) -> str:
    """Return the name of a run: equal for equal machines, settings and versions."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:12]


def name_row(run: str, turn: int) -> Row:
    """Return what a row begins with: its run, its time and its round."""
    return {"run": run, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}", "round": turn}


def append_row(path: Path, row: Row) -> None:
    """Add a row to the table, on a line of its own also behind one that was cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as table:
        if table.tell():
            table.seek(-1, 2)
            if table.read(1) != b"\n":
                table.write(b"\n")
        table.write(json.dumps(row).encode() + b"\n")


def count_rounds(rows: Sequence[Row]) -> tuple[int, int]:
    """Return the number of the next round, and how many are whole: those whose last cell is followed by a row of their end.

    A round that was cut short is not gone on with, since its cells would be measured at another time; what it has counts.
    """
    whole = {row["round"] for row in rows if row["part"] == END}
    return 1 + max((row["round"] for row in rows), default=-1), len(whole)


def pick_rows(rows: Sequence[Row], system: str, part: str, load: float) -> dict[int, Row]:
    """Pick the rows of one cell, by round."""
    cell = (system, part, load)
    return {row["round"]: row for row in rows if (row["system"], row["part"], row["load"]) == cell}


def compare(rows: Sequence[Row], comparison: Comparison, load: float) -> dict[str, Any] | None:
    """Return a ratio within rounds, as a geometric mean with the 95 % interval of Student's t; None without a pair.

    A round in which a system failed that others have is left out: the best of the rest would be another one.
    """
    measure = MEASURES[comparison.measure]
    own, *beside = (
        {turn: measure(row) for turn, row in pick_rows(rows, name, comparison.part, load).items()}
        for name in (comparison.system, *comparison.others)
    )
    logs = []
    measured = [each for each in beside if each]
    for turn, value in own.items():
        best = max((each[turn] for each in measured), default=0.0) if all(turn in each for each in measured) else 0.0
        if best > 0 and value > 0:
            logs.append(math.log(value / best))
    return spread(logs) if logs else None


def invert(value: float | None) -> float:
    """Return 1 over a time or a size, of which less is better; 0 of none."""
    return 1 / value if value else 0.0


def spread(logs: Sequence[float]) -> dict[str, Any]:
    """Geometric mean and interval of ratios, given as logarithms; one ratio alone has no interval."""
    mean, low, high = statistics.fmean(logs), None, None
    if len(logs) > 1:
        width = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
        low, high = round(math.exp(mean - width), 3), round(math.exp(mean + width), 3)
    return {"ratio": round(math.exp(mean), 3), "low": low, "high": high, "pairs": len(logs)}


def compare_all(rows: Sequence[Row]) -> dict[str, dict[str, Any]]:
    """Return all comparisons, by name and clients; of what was started there is one, under 0."""
    return {
        name: {str(load): compare(rows, each, load) for load in (CLIENTS if each.part == CLOSED else (0,))}
        for name, each in COMPARISONS.items()
    }


def judge(ratios: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yield a line for every target; what could not be measured is left out."""
    for name, comparison, load, bound in TARGETS:
        ratio = ratios.get(comparison, {}).get(str(load))
        if ratio is None:
            continue
        low = ratio["low"]
        words = f"{ratio['ratio']} ({low} to {ratio['high']}, {ratio['pairs']} rounds), at least {bound}"
        verdict = "no interval" if low is None else "held       " if low >= bound else "MISSED     "
        yield f"{verdict} {name}: {words}"


def find_thin_cells(cells: dict[str, Any]) -> Iterator[str]:
    """Yield a line for every cell with fewer requests than the quantiles of its first tokens need."""
    for system, parts in cells.items():
        for part, loads in parts.items():
            for load, cell in loads.items():
                count = cell["sent" if part == OPEN else "requests"]
                if count < MIN_REQUESTS:
                    yield f"too few     {system}, {part}, {load}: {count} requests of {MIN_REQUESTS}"


def summarize(rows: Sequence[Row]) -> dict[str, Any]:
    """Every cell: rates, and quantiles of the times to the first token over the requests of all rounds."""
    cells: dict[str, Any] = {}
    for system, part, load in sorted(
        {(row["system"], row["part"], row["load"]) for row in rows if row["part"] in (CLOSED, OPEN)}
    ):
        rounds = list(pick_rows(rows, system, part, load).values())
        each = summarize_open(rounds) if part == OPEN else summarize_closed(rounds)
        cells.setdefault(system, {}).setdefault(part, {})[f"{load:g}"] = each
    return cells


def summarize_closed(rows: Sequence[Row]) -> dict[str, Any]:
    """One cell with so many clients."""
    firsts = sorted(value for row in rows for value in row["first_ms"])
    return {
        "rounds": len(rows),
        "requests": len(firsts),
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


def summarize_rounds(rows: Sequence[Row]) -> dict[str, Any]:
    """What whole rounds say of their systems: medians of start time and memory, else what the last one says."""
    ends = [row for row in rows if row["part"] == END]
    result: dict[str, Any] = {
        measure: {
            name: statistics.median(values)
            for name in sorted({name for row in ends for name in row[measure]})
            for values in [[row[measure][name] for row in ends if name in row[measure]]]
        }
        for measure in ("seconds_to_ready", "megabytes")
    }
    last = ends[-1] if ends else {}
    return result | {name: last.get(name, {}) for name in ("cannot_be_measured_here", "shared_beginnings")}


def quantile(ordered: Sequence[float], share: float) -> float | None:
    """A quantile of sorted values; None of none."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


def write_table(cells: dict[str, Any], says: dict[str, str]) -> Iterator[str]:
    """Yield the closed and the open part, as far as they were measured, as Markdown tables."""
    closed = "new tokens/s + prompt tokens/s; first token p50 / p95 ms, by clients"
    opened = "good answers a second (share); first token p50 / p95 ms, by arrivals a second"
    for part, title, say in ((CLOSED, closed, _say_closed), (OPEN, opened, _say_open)):
        loads = sorted({load for parts in cells.values() for load in parts.get(part, ())}, key=float)
        if loads:
            yield ""
            yield f"| {title} | " + " | ".join(loads) + " |"
            yield "|---|" + "---|" * len(loads)
            for system, parts in cells.items():
                texts = [say(parts[part][load]) if load in parts.get(part, ()) else "" for load in loads]
                yield f"| {says.get(system, system)} | " + " | ".join(texts) + " |"


def _say_closed(cell: dict[str, Any]) -> str:
    rates = f"{cell['tokens_per_second']:.0f} + {cell['prompt_tokens_per_second']:.0f}"
    return f"{rates}; {cell['first_ms_p50']} / {cell['first_ms_p95']}"


def _say_open(cell: dict[str, Any]) -> str:
    return f"{cell['goodput_per_second']} ({cell['good_share']}); {cell['first_ms_p50']} / {cell['first_ms_p95']}"
