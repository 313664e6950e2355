"""Fault tests 14 to 33 and 35 of monitor, retrain controller and backups at full counts, and the table that is kept.

    python benchmarks/fault_loop.py [--only 14 --only 27] [--scale 0.1] [--keep]

What each scenario does and promises: tests/support/scenarios/. Real processes, Git, DVC, SQLite, Prometheus; the trainer is faked to
be short where only the machine around it is tested. Ends with 1 where a target was missed. Takes about 40 minutes on two quiet cores;
``--scale`` takes that share of the counts.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "support")]

import prometheus_stack  # noqa: E402
from drift_fixtures import examiner, tools  # noqa: E402
from drift_fixtures import rows as made_rows  # noqa: E402
from hardware_info import machine, versions  # noqa: E402
from scenarios import (  # noqa: E402
    backups,
    drift,
    exporter,
    fault_report,
    gate_decisions,
    idempotence,
    offline,
    poisoned_canary,
    power_cuts,
    retrain_failures,
    retrain_kills,
    self_training,
    simulated_week,
    webhooks,
)  # fmt: skip
from scenarios.fault_result import Found  # noqa: E402

from tunectl.artifacts.paths import ProjectPaths  # noqa: E402
from tunectl.backends.system import terminal  # noqa: E402
from tunectl.core import progress  # noqa: E402
from tunectl.monitoring import factory, signals  # noqa: E402

RESULT = HERE / "results" / "fault_loop"
"""The numbers (.json) and the table (.md) that are kept."""
DATA = ROOT.parent / "shared" / "data" / "drift"
OWN, OTHER = DATA / "product_reviews.csv", DATA / "tweets.csv"


@dataclass
class Ground:
    """Where a run takes place."""

    folder: Path
    scale: float
    count: int = 0

    def times(self, count: int) -> int:
        """A full count, scaled."""
        return max(2, round(count * self.scale))

    def fresh(self) -> Path:
        """A folder that is not there yet."""
        self.count += 1
        return self.folder / f"ground{self.count}" / "shop"


def texts() -> tuple[signals.SignalColumns, range, range, int]:
    """Measured prompts, which of them are alike, which are foreign, and how many make a reference: real ones where they are there."""
    if OWN.is_file() and OTHER.is_file():
        import bench_drift
        import drift_corpora

        settings = bench_drift.settings("static")
        measured = factory.feature_tools(settings, ProjectPaths(bench_drift.ROOT))
        pair = drift_corpora.measure(*(drift_corpora.read(str(path), OWN.parent) for path in (OWN, OTHER)), measured)
        count, foreign = len(pair.own.texts), len(pair.other.texts)
        return pair.prompts, range(count), range(count, count + foreign), bench_drift.REFERENCE
    rows = [*made_rows(3000, seed=1), *made_rows(600, seed=2, topics=["bread"])]
    return signals.compute_signal_values(rows, "prompt", tools()), range(3000), range(3000, 3600), 1000


def fourteen_fifteen(ground: Ground) -> Iterator[Found]:
    """14, 15: null windows, and power against what drifted."""
    from drift_fixtures import RULE

    pool, own, foreign, reference = texts()
    for rows in (100, 300):
        yield drift.null(
            pool,
            own,
            RULE,
            reference=reference,
            rows=rows,
            repetitions=ground.times(200),
            evaluations=ground.times(2000),
        )
    yield drift.power(
        pool, own, foreign, RULE, reference=reference, sizes=(50, 100, 300), repetitions=ground.times(100)
    )


def sixteen(ground: Ground) -> Iterator[Found]:
    """16: empty, equal, huge and broken windows."""
    yield drift.degenerate(examiner(most=10_000), made_rows(1000, seed=3), many=ground.times(100_000), seconds=60)


def seventeen(ground: Ground) -> Iterator[Found]:
    """17: the monitor is killed, and the alerts say so."""
    if not prometheus_stack.THERE:
        yield Found(17, "drift job killed", "the alerts fire", wrong=[f"not tried: {prometheus_stack.MISSING}"])
        return
    yield exporter.stale(ground.fresh(), promises={"TunectlDriftJobStale": 12, "TunectlDriftJobAbsent": 8})


def eighteen(_ground: Ground) -> Iterator[Found]:
    """18: the whole loop without a network."""
    words = [sys.executable, "-m", "pytest", "-q", "tests/e2e/test_loop.py"]
    yield offline.offline(words, ROOT, {}, "the whole loop with a tiny model")


def nineteen(ground: Ground) -> Iterator[Found]:
    """19: one webhook a thousand times, over restarts."""
    yield webhooks.storm(ground.fresh(), deliveries=ground.times(1000), restarts=ground.times(10))


def twenty(ground: Ground) -> Iterator[Found]:
    """20: Alertmanager is down."""
    yield webhooks.unheard(ground.fresh())


def weeks_of(ground: Ground) -> Iterator[Found]:
    """21, 22: weeks of a flapping alert, and triggers in one second."""
    for ending in ("promoted", "rejected"):
        yield simulated_week.flapping(ground.fresh(), days=ground.times(28), minutes=15, seed=21, ending=ending)
    yield simulated_week.same_second(ground.fresh(), times=ground.times(50))


def twenty_three(ground: Ground) -> Iterator[Found]:
    """23: kill -9 of each party; two runs at a time, because half of a run waits."""
    result, rng, hits = retrain_kills.kills_found(), random.Random(23), Counter[str]()
    folders = ground.fresh(), ground.fresh()
    with ThreadPoolExecutor(len(folders)) as pool:
        lives, _ = pool.map(retrain_kills.lives, folders)
        shots = [
            (party, ground.fresh(), rng.random()) for party in retrain_kills.PARTIES for _ in range(ground.times(50))
        ]

        def shoot(party: str, folder: Path, share: float) -> str | None:
            hit = retrain_kills.killed(result, folder, party, share * lives[party])
            shutil.rmtree(folder.parent, ignore_errors=True)
            return hit and f"{party} while {hit}"

        for hit in progress.track(pool.map(shoot, *zip(*shots, strict=True)), "kills", len(shots)):
            hits[hit or "over already"] += 1
    misses = hits.pop("over already", 0)
    result.figures |= {"kills": len(shots), "hit": len(shots) - misses, **dict(sorted(hits.items()))}
    result.must(misses <= len(shots) / 5, f"{misses} of {len(shots)} kills came after the end: they say nothing")
    yield result


def twenty_four(ground: Ground) -> Iterator[Found]:
    """24: out of memory, a stage that fails, a full disk."""
    result = retrain_failures.troubles_found()
    for kind in retrain_failures.TROUBLES:
        retrain_failures.trouble(result, ground.fresh(), kind)
    retrain_failures.stopped(result, ground.fresh())
    retrain_failures.full(result, ground.fresh())
    yield result


def twenty_five(ground: Ground) -> Iterator[Found]:
    """25: two loops on one workspace."""
    yield retrain_kills.two_loops(ground.fresh())
    if retrain_kills.containers():
        yield retrain_kills.two_loops(ground.fresh(), retrain_kills.CONTAINER)
    else:
        yield Found(
            25, "two loops, each PID 1", "exactly one runs", wrong=["not tried: this machine makes no PID namespaces"]
        )


def twenty_six(ground: Ground) -> Iterator[Found]:
    """26: decisions of the gate whose right answer is known."""
    yield gate_decisions.decisions(ground.times(400))


def twenty_seven(ground: Ground) -> Iterator[Found]:
    """27: a promotion, cut at every step."""
    result, every = power_cuts.cuts_found(), max(1, round(1 / ground.scale))
    power_cuts.pointer(result, ground.fresh().parent, every=every)
    power_cuts.promotion(result, ground.fresh(), every=every)
    yield result


def twenty_eight(ground: Ground) -> Iterator[Found]:
    """28: the same retrain twice."""
    yield idempotence.twice(ground.fresh())


def twenty_nine_thirty(_ground: Ground) -> Iterator[Found]:
    """29, 30: five generations, and poisoned feedback."""
    yield self_training.five()
    yield self_training.poison()


def thirty_one(ground: Ground) -> Iterator[Found]:
    """31: backups while another process promotes and is killed."""
    yield backups.during_promotions(ground.fresh(), times=ground.times(100))


def thirty_two(ground: Ground) -> Iterator[Found]:
    """32: an old backup restored beside an address that has gone on."""
    yield backups.beside_a_newer_address(ground.fresh())


def thirty_three(ground: Ground) -> Iterator[Found]:
    """33: a backup onto a disk that gets full, at another byte each time."""
    yield backups.on_a_full_disk(ground.fresh(), times=ground.times(100))


def thirty_five(ground: Ground) -> Iterator[Found]:
    """35: a poisoner's key is removed in mid-experiment."""
    yield poisoned_canary.removed_key(ground.fresh(), times=ground.times(20))


ROWS: tuple[tuple[tuple[int, ...], Callable[[Ground], Iterator[Found]]], ...] = (
    ((14, 15), fourteen_fifteen), ((16,), sixteen), ((17,), seventeen), ((18,), eighteen), ((19,), nineteen), ((20,), twenty),
    ((21, 22), weeks_of), ((23,), twenty_three), ((24,), twenty_four), ((25,), twenty_five), ((26,), twenty_six), ((27,), twenty_seven),
    ((28,), twenty_eight), ((29, 30), twenty_nine_thirty), ((31,), thirty_one), ((32,), thirty_two), ((33,), thirty_three), ((35,), thirty_five),
)  # fmt: skip


def main() -> int:
    """Run, print a line a scenario and the table, keep the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=int, action="append", help="this fault test; again for more")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the counts")
    parser.add_argument(
        "--keep", action="store_true", help="write benchmarks/results/fault_loop.json and .md; with --only these rows"
    )
    args = parser.parse_args()
    terminal.install_progress()
    folder = Path(tempfile.mkdtemp(prefix="tunectl-faults-"))
    ground = Ground(folder, args.scale)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = [row for row in ROWS if not args.only or set(row[0]) & set(args.only)]
    results = fault_report.run(rows, ground)
    shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(fault_report.table(results)))
    result = {"machine": machine(), "versions": versions("dvc", "numpy"), "scale": args.scale}
    result["rows"] = [{**asdict(each), "held": each.held} for each in results]
    if args.keep:
        fault_report.keep(result, RESULT, others=bool(args.only))
    print(json.dumps(result))
    return 0 if all(each.held for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
