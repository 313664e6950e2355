"""Fault tests 14 to 33 and 35 of monitor, retrain controller and backups at full counts, and their table.

    python benchmarks/fault_loop.py [--only 14 --only 27] [--scale 0.1] [--keep]

Each scenario and its target: tests/support/scenarios/. Real processes, Git, DVC, SQLite, Prometheus; the trainer is a short stand-in
where training itself is not tested. Exit code 1 if a target was missed. Takes about 40 minutes on two quiet cores;
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
from scenarios.fault_result import FaultResult  # noqa: E402

from tunectl.artifacts.paths import ProjectPaths  # noqa: E402
from tunectl.backends.system import terminal  # noqa: E402
from tunectl.core import progress  # noqa: E402
from tunectl.monitoring import factory, signals  # noqa: E402

RESULT = HERE / "results" / "fault_loop"
"""The numbers (.json) and the table (.md) that are kept."""
DATA = ROOT.parent / "shared" / "data" / "drift"
OWN, OTHER = DATA / "product_reviews.csv", DATA / "tweets.csv"


@dataclass
class LoopFaultWorkspace:
    """The folders and the scale of a run."""

    folder: Path
    scale: float
    count: int = 0

    def scale_count(self, count: int) -> int:
        """Return a full count times the scale."""
        return max(2, round(count * self.scale))

    def new_folder(self) -> Path:
        """Return the path of a folder that does not exist yet."""
        self.count += 1
        return self.folder / f"workspace{self.count}" / "shop"


def load_texts() -> tuple[signals.SignalColumns, range, range, int]:
    """Load measured prompts, the rows of the own and of the foreign corpus, and the reference size; real texts if they are on this machine."""
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


def run_drift_verdicts(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """14, 15: windows without a change, and detection of changed ones."""
    from drift_fixtures import RULE

    pool, own, foreign, reference = load_texts()
    for rows in (100, 300):
        yield drift.null(
            pool,
            own,
            RULE,
            reference=reference,
            rows=rows,
            repetitions=workspace.scale_count(200),
            evaluations=workspace.scale_count(2000),
        )
    yield drift.power(
        pool, own, foreign, RULE, reference=reference, sizes=(50, 100, 300), repetitions=workspace.scale_count(100)
    )


def run_degenerate_windows(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """16: empty, constant, huge and invalid windows."""
    yield drift.degenerate(
        examiner(most=10_000), made_rows(1000, seed=3), many=workspace.scale_count(100_000), seconds=60
    )


def run_stale_monitor(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """17: the monitor is killed, and alerts fire."""
    if not prometheus_stack.INSTALLED:
        yield FaultResult(
            17, "drift job killed", "the alerts fire", wrong=[f"not tried: {prometheus_stack.NOT_INSTALLED}"]
        )
        return
    yield exporter.stale(workspace.new_folder(), promises={"TunectlDriftJobStale": 12, "TunectlDriftJobAbsent": 8})


def run_offline(_workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """18: the whole loop without a network."""
    words = [sys.executable, "-m", "pytest", "-q", "tests/e2e/test_loop.py"]
    yield offline.offline(words, ROOT, {}, "the whole loop with a tiny model")


def run_repeated_webhooks(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """19: one webhook a thousand times, over restarts."""
    yield webhooks.send_repeatedly(
        workspace.new_folder(), deliveries=workspace.scale_count(1000), restarts=workspace.scale_count(10)
    )


def run_without_alertmanager(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """20: Alertmanager is down."""
    yield webhooks.run_without_alertmanager(workspace.new_folder())


def run_flapping_alerts(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """21, 22: weeks of a flapping alert, and triggers in one second."""
    for ending in ("promoted", "rejected"):
        yield simulated_week.flapping(
            workspace.new_folder(), days=workspace.scale_count(28), minutes=15, seed=21, ending=ending
        )
    yield simulated_week.same_second(workspace.new_folder(), times=workspace.scale_count(50))


def run_retrain_kills(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """23: kill -9 of each process of a retrain; two runs at a time, because half of a run waits."""
    result, rng, states = retrain_kills.new_result(), random.Random(23), Counter[str]()
    folders = workspace.new_folder(), workspace.new_folder()
    with ThreadPoolExecutor(len(folders)) as pool:
        lives, _ = pool.map(retrain_kills.measure_lifetimes, folders)
        kills = [
            (party, workspace.new_folder(), rng.random())
            for party in retrain_kills.PARTIES
            for _ in range(workspace.scale_count(50))
        ]

        def kill_party(party: str, folder: Path, share: float) -> str | None:
            state = retrain_kills.run_and_kill(result, folder, party, share * lives[party])
            shutil.rmtree(folder.parent, ignore_errors=True)
            return state and f"{party} while {state}"

        for state in progress.track(pool.map(kill_party, *zip(*kills, strict=True)), "kills", len(kills)):
            states[state or "over already"] += 1
    misses = states.pop("over already", 0)
    result.figures |= {"kills": len(kills), "hit": len(kills) - misses, **dict(sorted(states.items()))}
    result.require(misses <= len(kills) / 5, f"{misses} of {len(kills)} kills came after the end")
    yield result


def run_retrain_failures(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """24: out of memory, a stage that fails, a full disk."""
    result = retrain_failures.new_result()
    for kind in retrain_failures.FAILURES:
        retrain_failures.run_failure(result, workspace.new_folder(), kind)
    retrain_failures.run_stopped_retrain(result, workspace.new_folder())
    retrain_failures.run_on_full_disk(result, workspace.new_folder())
    yield result


def run_two_loops(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """25: two loops on one workspace."""
    yield retrain_kills.two_loops(workspace.new_folder())
    if retrain_kills.can_make_pid_namespaces():
        yield retrain_kills.two_loops(workspace.new_folder(), retrain_kills.CONTAINER)
    else:
        yield FaultResult(
            25, "two loops, each PID 1", "exactly one runs", wrong=["not tried: this machine makes no PID namespaces"]
        )


def run_gate_decisions(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """26: decisions of the gate whose right answer is known."""
    yield gate_decisions.decisions(workspace.scale_count(400))


def run_power_cuts(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """27: a promotion, cut at every step."""
    result, every = power_cuts.new_result(), max(1, round(1 / workspace.scale))
    power_cuts.pointer(result, workspace.new_folder().parent, every=every)
    power_cuts.promotion(result, workspace.new_folder(), every=every)
    yield result


def run_idempotence(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """28: the same retrain twice."""
    yield idempotence.twice(workspace.new_folder())


def run_self_training(_workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """29, 30: five generations of self-training, and poisoned feedback."""
    yield self_training.five()
    yield self_training.poison()


def run_backups_during_promotions(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """31: backups while another process promotes and is killed."""
    yield backups.during_promotions(workspace.new_folder(), times=workspace.scale_count(100))


def run_old_backup(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """32: an old backup restored beside an address that has gone on."""
    yield backups.beside_a_newer_address(workspace.new_folder())


def run_backup_on_full_disk(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """33: a backup onto a disk that gets full, at another byte each time."""
    yield backups.on_a_full_disk(workspace.new_folder(), times=workspace.scale_count(100))


def run_poisoned_canary(workspace: LoopFaultWorkspace) -> Iterator[FaultResult]:
    """35: the key of a user with poisoned feedback is removed during a canary test."""
    yield poisoned_canary.removed_key(workspace.new_folder(), times=workspace.scale_count(20))


SCENARIOS: tuple[tuple[tuple[int, ...], Callable[[LoopFaultWorkspace], Iterator[FaultResult]]], ...] = (
    ((14, 15), run_drift_verdicts), ((16,), run_degenerate_windows), ((17,), run_stale_monitor), ((18,), run_offline), ((19,), run_repeated_webhooks), ((20,), run_without_alertmanager),
    ((21, 22), run_flapping_alerts), ((23,), run_retrain_kills), ((24,), run_retrain_failures), ((25,), run_two_loops), ((26,), run_gate_decisions), ((27,), run_power_cuts),
    ((28,), run_idempotence), ((29, 30), run_self_training), ((31,), run_backups_during_promotions), ((32,), run_old_backup), ((33,), run_backup_on_full_disk), ((35,), run_poisoned_canary),
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
    workspace = LoopFaultWorkspace(folder, args.scale)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rows = [row for row in SCENARIOS if not args.only or set(row[0]) & set(args.only)]
    results = fault_report.run_scenarios(rows, workspace)
    shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(fault_report.format_table(results)))
    result = {"machine": machine(), "versions": versions("dvc", "numpy"), "scale": args.scale}
    result["rows"] = [{**asdict(each), "held": each.held} for each in results]
    if args.keep:
        fault_report.write_results(result, RESULT, others=bool(args.only))
    print(json.dumps(result))
    return 0 if all(each.held for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
