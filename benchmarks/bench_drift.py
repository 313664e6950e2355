"""How rarely does the drift monitor's verdict err, and how many rows does it need? On real texts, beside other rules.

    make bench-drift                             about three hours on two cores; --minutes ends it earlier
    python benchmarks/bench_drift.py --quick     few trials, in some minutes; no results are written
    python benchmarks/bench_drift.py --pairs FILMS.csv,NEWS.csv --name kept_back

Pairs of corpora, each also reversed: reference (1,000 rows) and windows are drawn, with replacement, from the first, and changed
windows have rows of the second, or more of its own negative ones. Files have the columns ``text`` and ``sentiment`` (below zero is
negative). What was measured is kept in .tunectl/bench_drift and not measured again as long as the monitor's code is the same: an
interrupted run goes on, a longer one adds to it. False verdicts are counted where nothing changes, in long runs that share one reference each, with the monitor's tests at
the speed of ``frozen_tests``; changes are tested as the monitor tests them. Nothing has learned from these texts. Numbers (.json)
and table (.md) go to benchmarks/results; the last line is JSON. Ends with 1 where a target was missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import drift_baselines
import drift_corpora
import drift_journal
import drift_report
import drift_trials
import numpy as np
from drift_corpora import Pair
from hardware_info import machine, versions

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.config.schema.monitor import MonitorSettings
from tunectl.monitoring import drift_detector, evidently_report, factory
from tunectl.monitoring.power_study import Rate, Simulation
from tunectl.monitoring.signals import SignalBackends
from tunectl.monitoring.window import TimeSpan
from tunectl.monitoring.window_size import DetectionRule

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
RESULTS = ROOT / "benchmarks" / "results"
REFERENCE = 1000
PAIRS = "reviews,tweets reviews,questions tweets,restaurants questions,restaurants"
TARGETS = {
    ("15 % foreign", 300): (0.97, 1.0),
    ("20 points more negative", 300): (0.70, 0.95),
    ("15 % foreign", 100): (0.50, 0.95),
    ("30 % foreign", 100): (0.99, 1.0),
}
"""By change and rows of a window: share of sequences with a verdict by the third window, and by the ninth."""
FALSE_VERDICTS = 0.001
"""Of all evaluations."""
TONE = 0.95
"""Of windows of 300 rows, 20 points more negative: flagged by the tone signal at 5 %."""
SECONDS = 10
"""For a window of 10,000 rows and its report."""
NULLS = ("run", "sequences")
"""Kinds of trials in which nothing changes: long runs with windows of 300 rows, sequences of nine windows of 100."""
STEP = 2
"""Sequences of one change that are drawn at a time."""
NEGATIVES = 200
"""Fewest negative texts of a corpus that windows with more of them are drawn from."""
READ: list[tuple[Pair, DetectionRule]] = []
"""What was measured: processes that are forked off find it here."""


def null(task: drift_journal.Task) -> dict[str, Any]:
    """False verdicts of one reference where nothing changes: of a long run, or of sequences of nine windows."""
    pair, rule = READ[task.place]
    pool = {"prompt": pair.prompts, "answer": pair.answers}
    own = {"prompt": range(len(pair.own.texts)), "answer": range(len(pair.other.texts))}
    bench = Simulation(pool, own, rule, REFERENCE, task.rows)
    count = bench.count_false_verdicts if task.kind == "run" else bench.count_false_sequences
    return {"false": sum(count(task.trials, task.begin))}


def power(task: drift_journal.Task) -> dict[str, Any]:
    """Sequences of one change of one pair, noticed or not."""
    pair, rule = READ[task.place]
    sequences = drift_trials.run(pair, task.kind, task.rows, task.trials, rule, REFERENCE, task.begin)
    return {"delays": sequences.rates.delays, "in_a_row": sequences.in_a_row, "alone": sequences.alone}


def work(task: drift_journal.Task) -> tuple[drift_journal.Task, dict[str, Any]]:
    """One task, in a process of its own."""
    return task, (null if task.kind in NULLS else power)(task)


def peers(trials: int) -> dict[str, dict[str, Rate]]:
    """The rules of others on the first pair, window by window: shares of windows that they flag."""
    pair, _ = READ[0]
    texts = [*pair.own.texts, *pair.other.texts]
    tone, vectors = pair.prompts["prompt_tone"].parts[0], pair.prompts["prompt_text"].parts[0]
    rules = {"Evidently": drift_baselines.evidently, "KL over 0.1,": drift_baselines.kl}
    rates: dict[str, dict[str, Rate]] = {}
    for block, make in rules.items():
        alarms = make(texts, tone, vectors)
        for change in ("nothing", "15 % foreign", "20 points more negative"):
            counts: Counter[str] = Counter()
            for trial in range(trials):
                random = np.random.default_rng([7, trial])
                order = random.permutation(len(pair.own.texts))
                window = drift_trials.shift_of(pair, change)(random, "prompt", order[REFERENCE : REFERENCE + 300])
                counts.update({name: int(alarm) for name, alarm in alarms(order[:REFERENCE], window).items()})
            for name, count in counts.items():
                rates.setdefault(f"{block} {name}", {})[change] = Rate(count, trials)
    return rates


def speed(pair: Pair, rule: DetectionRule, tools: SignalBackends, most: int, rows: int = 10_000) -> dict[str, float]:
    """Seconds for one window of so many rows that shifted, texts to verdict and examples, and for Evidently's report of it.

    The reference, and the eight windows before, are measured already.
    """
    looking = drift_detector.DriftDetector(rule, tools, (), 1, most)
    source = np.random.default_rng(3)
    corpus = [*pair.own.texts, *pair.other.texts]
    texts = [f"{corpus[place]} {number}" for number, place in enumerate(source.integers(len(corpus), size=rows))]
    window, reference = drift_corpora.make_rows(texts, 2), drift_corpora.make_rows(corpus[:REFERENCE], 3)
    bases = {side: looking.measure_reference("reference", reference, side) for side in ("prompt", "answer")}
    last = looking.measure_rows(drift_corpora.make_rows(texts, 4))
    span = TimeSpan(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
    importlib.import_module("evidently.metrics")  # seconds, once a process
    began = time.perf_counter()
    pooled = [drift_detector.PooledWindow(span.since, each) for each in [*[last] * 8, looking.measure_rows(window)]]
    result = looking.examine_window(span, window, bases, [], release="r", missing={}, last=last, pooled=pooled)
    examined = time.perf_counter()
    with TemporaryDirectory() as folder:
        evidently_report.write(
            result, window, dict.fromkeys(("prompt", "answer"), reference), Path(folder) / "report.html"
        )
    return {"window": round(examined - began, 2), "report": round(time.perf_counter() - examined, 2)}


def find_missed(powers: Sequence[dict[str, Any]], nulls: Sequence[dict[str, Any]]) -> list[str]:
    """Which targets are not reached: where the 95 % interval of a share lies below its target, or more verdicts are false."""
    misses = []
    for one in powers:
        where = f"{one['change']} in {one['pair']} at {one['rows']} rows"
        for name, target in zip(("third", "ninth"), TARGETS[one["change"], one["rows"]], strict=True):
            if one[name].interval[1] < target:
                misses.append(f"{where}: {one[name]} by the {name} window, {target:.0%} wanted")
        tone = one["alone"].get("prompt_tone")
        if (one["change"], one["rows"]) == ("20 points more negative", 300) and tone.interval[1] < TONE:
            misses.append(f"{where}: the tone signal flags {tone}, {TONE:.0%} wanted")
    false, evaluations = (sum(sum(one[name]) for one in nulls) for name in ("false", "evaluations"))
    if false > FALSE_VERDICTS * evaluations:
        misses.append(f"{false} false verdicts in {evaluations:,} evaluations, {FALSE_VERDICTS:.1%} wanted")
    return misses


def list_tasks(args: argparse.Namespace) -> list[drift_journal.Task]:
    """What is to be measured, in rounds, so that whoever stops early has some of everything."""
    pairs = range(len(READ))
    runs = [drift_journal.Task("run", place % len(READ), 300, place, args.length) for place in range(args.runs)]
    runs += [
        drift_journal.Task("sequences", place % len(READ), 100, place, args.sequences) for place in range(args.runs)
    ]
    powers = [
        drift_journal.Task(change, place, rows, begin, min(STEP, args.trials - begin))
        for begin in range(0, args.trials, STEP)
        for change, rows in TARGETS
        for place in pairs
        if "negative" not in change or len(READ[place][0].own.negative) >= NEGATIVES
    ]
    mixed: list[drift_journal.Task] = []
    for place, one in enumerate(powers):
        mixed += [one, *runs[place // 2 : place // 2 + place % 2]]
    return mixed + runs[len(powers) // 2 :]


def main() -> int:
    """Print figures as they come, keep numbers and table, and say which targets are missed."""
    args, began = arguments(), time.monotonic()
    declared = settings(args.embedding)
    rule, tools = factory.detection_rule(declared), factory.feature_tools(declared, ProjectPaths(ROOT))
    pairs = [tuple(each.split(",")) for each in args.pairs.split()]
    corpora = {
        name: drift_corpora.read(name, args.data) for name in dict.fromkeys(name for pair in pairs for name in pair)
    }
    cache = ROOT / ".tunectl" / "bench_drift"
    cached = drift_corpora.with_cache(tools, list(corpora.values()), cache)
    for first, second in pairs:
        for own, other in ((first, second), (second, first)):
            READ.append((drift_corpora.measure(corpora[own], corpora[other], cached), rule))
    journal = drift_journal.Journal(
        cache / f"{args.name}.jsonl", [tools.embedder.name, REFERENCE, repr(rule), [pair.name for pair, _ in READ]]
    )
    tasks = list_tasks(args)
    journal.run_all(tasks, work, args.workers, began + 60 * args.minutes, limit_threads)
    nulls, powers = journal.null_figures(READ, NULLS), journal.power_figures(READ, TARGETS)
    result: dict[str, Any] = {
        "machine": machine(),
        "versions": versions("tunectl-lm", "numpy", "evidently", "vaderSentiment"),
        "embedding": tools.embedder.name,
        "reference_rows": REFERENCE,
        "null": nulls,
        "power": powers,
        "peers": peers(args.peers) if args.peers else {},
        "seconds_of_10000_rows": speed(READ[0][0], rule, tools, declared.monitor.window.max_sampled_rows),
    }
    misses = find_missed(powers, nulls)
    if sum(result["seconds_of_10000_rows"].values()) > SECONDS:
        misses.append(f"{result['seconds_of_10000_rows']} for 10,000 rows, {SECONDS} s wanted")
    result |= {"missed": misses, "minutes": round(journal.seconds / 60, 1)}
    text, numbers = drift_report.page(result), drift_report.plain(result)
    print(text)
    if not args.quick:
        (RESULTS / f"{args.name}.md").write_text(text)
        (RESULTS / f"{args.name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    print(json.dumps(numbers))
    return 1 if misses else 0


def limit_threads() -> None:
    """One thread of linear algebra a process."""
    from threadpoolctl import threadpool_limits

    threadpool_limits(1)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", default=PAIRS, help="names or files, two with a comma between, pairs with spaces")
    parser.add_argument("--embedding", choices=("auto", "static", "encoder"), default="encoder")
    parser.add_argument("--runs", type=int, help="references without a change, over all pairs (20)")
    parser.add_argument("--length", type=int, help="evaluations of a long run (1,000)")
    parser.add_argument("--sequences", type=int, help="sequences of nine windows for each reference (250)")
    parser.add_argument("--trials", type=int, help="sequences with a change, of each figure (100)")
    parser.add_argument("--minutes", type=float, default=120, help="after which no further trial is begun (120)")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the corpora")
    parser.add_argument("--peers", type=int, help="windows of a peer's figure, which are slow (40); 0 leaves them out")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (one a core)")
    parser.add_argument("--quick", action="store_true", help="few trials, to see that it runs; nothing is kept")
    parser.add_argument("--name", default="bench_drift", help="of the files in benchmarks/results")
    args = parser.parse_args()
    sizes = (("runs", 20, 2), ("length", 1000, 50), ("sequences", 250, 20), ("trials", 100, 2), ("peers", 40, 4))
    for name, whole, quick in sizes:
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else whole)
    args.name += "_quick" if args.quick else ""
    return args


def settings(embedding: str) -> MonitorSettings:
    """The project's own, with that embedding."""
    root = checks.load_config(ProjectPaths(ROOT)).root
    return MonitorSettings(
        project=root.project,
        seed=root.seed,
        monitor=root.monitor.model_copy(update={"embedding": embedding}),
        inference_log=root.inference_log,
        registry=root.serve.registry,
        keys_file=root.serve.keys_file,
    )


if __name__ == "__main__":
    raise SystemExit(main())
