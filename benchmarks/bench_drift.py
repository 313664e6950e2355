"""False alarms and power of the drift monitor on real texts, beside Evidently's defaults and a fixed KL threshold.

    make bench-drift                             about 40 minutes on two cores; a line a minute says how far it is
    python benchmarks/bench_drift.py --quick     a tenth of the trials and fewer, in about three minutes; nothing is kept
    python benchmarks/bench_drift.py --own REVIEWS.csv --other TWEETS.csv --name films [--embedding encoder]

Files have the columns ``text`` and ``sentiment`` (a rating; below zero is negative). Windows are drawn out of ``own`` against 1,000
other rows of it, drawn anew for every window; changed windows have 15 or 30 % rows of ``other``, or 20 or 40 points more
negative rows. No map, scale or threshold has seen either file. Numbers (.json), table (.md) and plot (.png) go to
benchmarks/results; the last line is JSON. Ends with 1 where a target was missed.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import random
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import drift_baselines
import drift_report
import numpy as np
from drift_baselines import Peer
from drift_workers import Cell, Crew, Figures, Told
from hardware_info import machine, versions

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks
from tunectl.config.schema.monitor import MonitorSettings
from tunectl.monitoring import detector, evidently_report, factory, power_study, signals
from tunectl.monitoring.power_study import Rate, Shift, Simulation
from tunectl.monitoring.signals import MonitoredInference
from tunectl.monitoring.window import TimeSpan

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data" / "drift"
RESULTS = ROOT / "benchmarks" / "results"
REFERENCE = 1000
SIZES = (100, 300)
CHANGES = ("nothing", "other 15 %", "other 30 %", "negative +20", "negative +40")
TARGETS = {
    ("other 15 %", 300): 0.95,
    ("negative +20", 300): 0.90,
    ("negative +40", 300): 0.95,
    ("other 30 %", 100): 0.95,
    ("other 15 %", 100): 0.60,
}
FALSE_VERDICTS = 0.001
"""Of sequences of k windows in which nothing changed."""
OURS = ("prompt_text", "prompt_tone")
SECONDS = 10
"""For a window of 10,000 rows and its report."""
COUNTS = {
    "nulls": (400, 40, "windows without a change, a figure of our signals"),
    "shifted": (200, 20, "windows with a change, a figure of our signals"),
    "peers": (40, 4, "windows a figure of the peers, which are slow; 0 leaves them out"),
    "sequences": (5000, 40, "sequences without a change, a figure of the verdict; 0 leaves it out"),
    "powers": (100, 4, "sequences with a change, a figure of the verdict"),
}
"""Trials: whole, quick, and of what."""
SPARE = 200
"""Fewest rows that are left over for changed windows to draw from."""


def read(path: Path) -> tuple[list[str], np.ndarray]:
    """Texts, and whether each is negative."""
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    return [row["text"] for row in rows], np.array([float(row["sentiment"]) < 0 for row in rows])


def made(texts: Sequence[str], seed: int) -> list[MonitoredInference]:
    """Rows with these texts as prompts and as answers; what a text does not have is drawn, the same for every row."""
    source = random.Random(seed)
    return [
        MonitoredInference(
            id=str(place),
            prompt=text,
            answer=text,
            prompt_tokens=len(text.split()),
            answer_tokens=len(text.split()),
            finish_reason="length" if source.random() < 0.1 else "stop",
            refused=source.random() < 0.03,
            format_valid=source.random() < 0.95,
            mean_logprob=-source.expovariate(1.0),
            feedback=source.random() < 0.1,
        )
        for place, text in enumerate(texts)
    ]


class Corpora:
    """Both files, measured once."""

    def __init__(self, own: Path, other: Path, settings: MonitorSettings) -> None:
        self.tools = factory.feature_tools(settings, ProjectPaths(ROOT))
        self.rule = factory.detection_rule(settings)
        (ours, negative), (theirs, _) = read(own), read(other)
        self.texts, self.count = [*ours, *theirs], len(ours)
        self.negative = np.flatnonzero(negative)
        self.other = range(len(ours), len(self.texts))
        needed = REFERENCE + self.rule.required * max(SIZES) + SPARE
        for path, count in ((own, len(ours)), (other, len(theirs))):
            if count < needed:
                raise SystemExit(
                    f"{path}: {count} rows, {needed} are needed to draw a reference and windows that share none"
                )
        self.rows = made(self.texts, seed=1)
        count = len(self.rows)  # a window's language is looked at in part; here every row may be in one
        self.prompts = signals.compute_signal_values(self.rows, "prompt", self.tools, spoken=count)
        self.answers = signals.compute_signal_values(self.rows, "answer", self.tools, spoken=count)

    @cache  # noqa: B019  there is one of it
    def peer(self, block: str) -> Peer:
        """The rules of a block that are not ours."""
        make = {EVIDENTLY: drift_baselines.evidently, KL: drift_baselines.kl}[block]
        return make(self.texts, self.prompts["prompt_tone"].parts[0], self.prompts["prompt_text"].parts[0])

    def shift(self, change: str, side: str = "prompt") -> Shift:
        """What turns a window of ``own`` into a changed one."""
        return {
            "nothing": power_study.no_change,
            "other 15 %": power_study.inject_foreign(side, self.other, 0.15),
            "other 30 %": power_study.inject_foreign(side, self.other, 0.30),
            "negative +20": power_study.shift_share(side, self.negative, 0.20),
            "negative +40": power_study.shift_share(side, self.negative, 0.40),
        }[change]


def dealt(corpora: Corpora, change: str, rows: int, trial: int) -> tuple[np.ndarray, np.ndarray]:
    """A reference and a window, as the trials of ours draw them."""
    source = np.random.default_rng([7, trial])
    order = source.permutation(corpora.count)
    window, spare = order[REFERENCE : REFERENCE + rows], order[REFERENCE + rows :]
    return order[:REFERENCE], corpora.shift(change)(source, "prompt", window, spare)


def alone(corpora: Corpora, cell: Cell, begin: int, count: int) -> Told:
    """Each text and tone signal at its own level."""
    pool = {"prompt": {name: corpora.prompts[name] for name in OURS}}
    bench = Simulation(pool, {"prompt": range(corpora.count)}, corpora.rule, REFERENCE, cell.rows)
    seed, shift = 100 + CHANGES.index(cell.change), corpora.shift(cell.change)
    return bench.run(count, seed, shift, sequences=False, begin=begin).alone


def verdict(corpora: Corpora, cell: Cell, begin: int, count: int) -> Told:
    """The verdict of all thirteen signals, of one window and after k of them; prompts are of ``own``, answers (which do not
    change) of ``other``, each sequence with references of its own."""
    pool = {"prompt": corpora.prompts, "answer": corpora.answers}
    own = {"prompt": range(corpora.count), "answer": corpora.other}
    bench = Simulation(pool, own, corpora.rule, REFERENCE, cell.rows, unlikely=1.0)
    rates = bench.run(count, 200 + CHANGES.index(cell.change), corpora.shift(cell.change), begin=begin)
    return {"window": rates.window, "verdict": rates.verdict}


def beside(corpora: Corpora, cell: Cell, begin: int, count: int) -> Told:
    """How often each rule of a peer alarms."""
    alarms, counts = corpora.peer(cell.block), Counter[str]()
    for trial in range(begin, begin + count):
        told = alarms(*dealt(corpora, cell.change, cell.rows, trial))
        counts.update({name: int(alarm) for name, alarm in told.items()})
    return {name: Rate(found, count) for name, found in counts.items()}


TUNECTL, VERDICT, EVIDENTLY, KL = "tunectl", "tunectl, all signals,", "Evidently", "KL over 0.1,"
BLOCKS = {TUNECTL: alone, EVIDENTLY: beside, KL: beside, VERDICT: verdict}
"""Rules that are held beside one another, in the order of the table."""
READ: list[Corpora] = []
"""What was read: processes that are forked off find it here."""


def tried(cell: Cell, begin: int, count: int) -> Told:
    """A part of a cell's trials."""
    return BLOCKS[cell.block](READ[0], cell, begin, count)


def speed(corpora: Corpora, rows: int = 10_000) -> dict[str, float]:
    """Seconds for one window of so many rows that moved, all signals, texts to verdict and examples, and for Evidently's report
    of it; the reference, and the window before, are measured already."""
    looking = detector.DriftDetector(corpora.rule, corpora.tools, (), 1, rows)
    source = np.random.default_rng(3)
    texts = [
        f"{corpora.texts[place]} {number}"
        for number, place in enumerate(source.integers(len(corpora.texts), size=rows))
    ]
    window, reference = made(texts, 2), made(corpora.texts[:REFERENCE], 3)
    bases = {side: looking.measure_reference("reference", reference, side) for side in ("prompt", "answer")}
    last = looking.measure_rows(made(texts, 4))
    span = TimeSpan(datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 3, 2, tzinfo=UTC))
    importlib.import_module("evidently.metrics")  # seconds, once a process
    began = time.perf_counter()
    found = looking.examine_window(span, window, bases, [], release="r", missing={}, last=last)
    examined = time.perf_counter()
    with TemporaryDirectory() as folder:
        evidently_report.write(
            found, window, dict.fromkeys(("prompt", "answer"), reference), Path(folder) / "report.html"
        )
    return {"window": examined - began, "report": time.perf_counter() - examined}


def missed(blocks: dict[str, Figures], level: float) -> list[str]:
    """Which targets are not reached: for a null the interval must reach down to the level; of the two signals the better one
    counts; a verdict in which nothing changed may say drift once in 1,000 sequences."""
    ours, found = blocks[TUNECTL], []
    for rows in SIZES:
        for name, rate in ours[f"nothing, {rows}"].items():
            if rate.interval[0] > level:
                found.append(f"{name}: {rate} false alarms at {rows} rows, at most {level:.0%} wanted")
    for (change, rows), wanted in TARGETS.items():
        name, best = max(ours[f"{change}, {rows}"].items(), key=lambda one: one[1].count)
        if best.share < wanted:
            found.append(f"{name}: {best} power for {change} at {rows} rows, {wanted:.0%} wanted")
    for rows in SIZES if VERDICT in blocks else ():
        told = blocks[VERDICT][f"nothing, {rows}"]
        if told["window"].interval[0] > level:
            found.append(f"window: {told['window']} flagged at {rows} rows, at most {level:.0%} wanted")
        if told["verdict"].share > FALSE_VERDICTS:
            found.append(f"verdict: {told['verdict']} false at {rows} rows, at most 1 in 1,000 wanted")
    return found


def main() -> int:
    """Print figures as they come, keep numbers, table and plot, and say which targets are missed."""
    args = arguments()
    if not args.own.is_file():
        raise SystemExit(f"{args.own} does not exist; name files of your own: --own FILE --other FILE")
    began = time.monotonic()
    READ.append(Corpora(args.own, args.other, settings(args.embedding)))
    crew = Crew(tried, args.workers)
    blocks = {
        name: crew.block(
            name, [Cell(name, one, rows, null if one == "nothing" else power) for rows in SIZES for one in CHANGES]
        )
        for name, null, power in (
            (TUNECTL, args.nulls, args.shifted),
            (EVIDENTLY, args.peers, args.peers),
            (KL, args.peers, args.peers),
            (VERDICT, args.sequences, args.powers),
        )
        if null
    }
    crew.close()
    seconds = {name: round(found, 2) for name, found in speed(READ[0]).items()}
    targets = missed(blocks, READ[0].rule.level)
    if sum(seconds.values()) > SECONDS:
        targets.append(f"{seconds['window']} s and {seconds['report']} s for 10,000 rows, {SECONDS} s wanted")
    result = {
        "machine": machine(),
        "versions": versions("tunectl-lm", "numpy", "evidently", "vaderSentiment"),
        "own": args.own.name,
        "other": args.other.name,
        "embedding": args.embedding,
        "reference_rows": REFERENCE,
        "figures": {block: drift_report.plain(figures) for block, figures in blocks.items()},
        "seconds_of_10000_rows": seconds,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "missed": targets,
    }
    shown = drift_report.page(result, blocks)
    print(shown)
    if not args.quick:
        drift_report.plot(blocks, CHANGES, SIZES, TUNECTL, RESULTS / f"{args.name}.png")
        (RESULTS / f"{args.name}.md").write_text(shown)
        (RESULTS / f"{args.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))
    return 1 if targets else 0


def arguments() -> argparse.Namespace:
    """The words of the command line; ``--quick`` lowers every count that was not given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--own", type=Path, default=DATA / "product_reviews.csv")
    parser.add_argument("--other", type=Path, default=DATA / "tweets.csv")
    parser.add_argument("--embedding", choices=("static", "encoder"), default="static")
    for name, (_, _, what) in COUNTS.items():
        parser.add_argument(f"--{name}", type=int, help=what)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (one a core)")
    parser.add_argument("--quick", action="store_true", help="few trials, to see that it runs; nothing is kept")
    parser.add_argument("--name", default="bench_drift", help="of the files in benchmarks/results")
    args = parser.parse_args()
    for name, (whole, quick, _) in COUNTS.items():
        if getattr(args, name) is None:
            setattr(args, name, quick if args.quick else whole)
    return args


def settings(embedding: str) -> MonitorSettings:
    """The project's own, with that embedding."""
    root = checks.load_config(ProjectPaths(ROOT)).root
    monitored = root.monitor.model_copy(update={"embedding": embedding})
    return MonitorSettings(
        project=root.project,
        seed=root.seed,
        monitor=monitored,
        inference_log=root.inference_log,
        registry=root.serve.registry,
        keys_file=root.serve.keys_file,
    )


if __name__ == "__main__":
    raise SystemExit(main())
