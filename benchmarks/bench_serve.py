"""Serving: our server over HTTP beside the bare engine and what else would serve the same model on this machine.

    python benchmarks/bench_serve.py [--artifacts DIR] [--rounds 5] [--minutes 240] [--only NAME ...] [--rates 1.5 3] [--keep]
    python benchmarks/bench_serve.py --quick [--registry DIR]
    python benchmarks/bench_serve.py --memory 10000
    python benchmarks/bench_serve.py --starts 8 --old CHECKOUT

The systems are a closed list (serve_baselines.PEERS), each with its precision and its best settings. Those that are not installed
are named, with the command. Each round starts all of them anew and measures them in another order, first those that serve the merged
model, then those that keep the adapter apart: together they need more memory than 24 GB. One stands still (SIGSTOP) while another is
measured. Same model, same prompts, same answer lengths, the load generator on the same cores.

Closed part: 1, 8 and 32 clients that each send the next request when the last is answered; new tokens/s, prompt tokens/s, and
milliseconds to the first token. A window lasts until 1/5 of 200 requests (with five rounds) have had their first token.
Open part, of the systems that speak HTTP: requests at random times (Poisson) at so many a second, sampled answers of 16 to 256
tokens, every tenth prompt of 2,000 tokens; goodput: answers that came whole with their first token within --limit-ms of their time.
First tokens (p50 and p95) are judged beside the best peer's; a ratio of times is theirs over ours, so that more is better.

Every cell of every round is a row of results/serve_rows.jsonl as soon as it is measured. A run on the same machine with the same
settings continues that table: rounds add up until --rounds are there. Ratios are taken within rounds and reported with 95 % intervals.
--quick checks the script with the champion of a registry and our own systems, and keeps nothing. --memory N sends N short requests
to our server alone. --starts N starts our server and that of an earlier checkout in turn, N times each: seconds until it is ready,
and memory after load. The last line is JSON; --keep keeps it in results/bench_serve.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import serve_fixtures
import serve_report
import serve_starts
from hardware_info import machine, versions
from serve_baselines import BATCH_TOKENS, CACHE_TOKENS, PEERS, MeasuredSystem, RunningSystem
from serve_envs import ROOT, UnavailableError
from serve_measurements import bodies, drive, memory, open_driven, prefixes
from serve_report import CLIENTS, CLOSED, END, MIN_REQUESTS, OPEN

WARM = 3.0
"""Seconds before a window."""
LONGEST = 420.0
"""Seconds of a window at most, whatever was answered."""
RESULT = ROOT / "benchmarks/results/bench_serve.json"
MEMORY = RESULT.with_stem("bench_serve_memory")
STARTS = RESULT.with_stem("bench_serve_starts")
ROUNDS = 5
"""Rounds in which a cell has ``MIN_REQUESTS``; further ones add requests."""
LAYOUTS = ("merged", "adapter")
"""Of releases: systems of one are started together."""
MIN_FREE_MB = 2048
"""Of memory once all systems of a layout have started: with less they push each other's files out of memory, and get slow."""
QUICK = ("tunectl", "bare", "tunectl_no_logprobs")
"""Systems that one release is enough for."""
MAX_MEMORY_GROWTH = 0.03
"""Of the server's memory after the first tenth of many requests."""
T = TypeVar("T")


def main() -> None:
    """Everything, or the memory part alone."""
    args = parse_args()
    start = time.monotonic()
    if args.quick:
        fixtures = serve_fixtures.quick(args.artifacts, args.registry)
    else:
        # in a process that ends: the models that it loads would take 2 GB from what is measured
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            fixtures = pool.submit(serve_fixtures.prepare_fixtures, args.place, args.artifacts).result()
    result = {"benchmark": "serve", "machine": machine(), "settings": settings(args, fixtures), "quick": args.quick}
    run = run_name(result, fixtures)
    if args.starts:
        result |= serve_starts.measure(fixtures, args.place, args.old.absolute(), args.starts, run)
    else:
        start_fleet = partial(Fleet, args, fixtures)
        result |= measure_memory(args, start_fleet) if args.memory else Rounds(args, start_fleet, run, start).measure()
    result |= {"minutes": round((time.monotonic() - start) / 60, 1)}
    if args.quick:
        print("a check of the script: these are no figures", flush=True)
    elif args.keep:
        path = MEMORY if args.memory else STARTS if args.starts else RESULT
        path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--artifacts", type=Path, default=ROOT / "artifacts", help="of a pipeline that has run (artifacts)"
    )
    parser.add_argument(
        "--place", type=Path, default=ROOT / ".tunectl/bench-serve", help="environments and what is served"
    )
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds over all systems, earlier ones counted (5)")
    parser.add_argument("--minutes", type=float, default=240.0, help="no new round begins that would end later (240)")
    parser.add_argument("--only", nargs="+", choices=[item.name for item in PEERS], help="these systems")
    parser.add_argument("--rates", nargs="*", type=float, default=[1.5, 3.0], help="arrivals a second (1.5 3)")
    parser.add_argument("--open-seconds", type=float, default=30.0, help="seconds of arrivals at each rate (30)")
    parser.add_argument(
        "--limit-ms", type=float, default=1000.0, help="a first token later than this is not good (1000)"
    )
    parser.add_argument("--memory", type=int, metavar="N", help="only the memory of our server over N requests")
    parser.add_argument(
        "--starts", type=int, metavar="N", help="only start and memory of our server, beside --old, N pairs"
    )
    parser.add_argument(
        "--old", type=Path, metavar="CHECKOUT", help="with --starts: the earlier version, a whole checkout"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a check of the script: one round, few requests, nothing kept"
    )
    parser.add_argument(
        "--registry", type=Path, default=ROOT / ".tunectl/releases", help="with --quick: what is served"
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"write {RESULT.relative_to(ROOT)}, {MEMORY.name} or {STARTS.name}"
    )
    args = parser.parse_args()
    if args.starts and not (args.old and (args.old / "src/tunectl").is_dir()):
        parser.error(
            f"--starts needs --old, a checkout with src/tunectl, not {args.old}: git worktree add ../old COMMIT"
        )
    if args.quick:
        args.rounds, args.open_seconds, args.rates = 1, 6.0, args.rates[:1]
        args.only = [name for name in args.only or QUICK if name in QUICK]
    args.requests = 4 if args.quick else -(-MIN_REQUESTS // min(args.rounds, ROUNDS))
    return args


def settings(args: argparse.Namespace, fixtures: serve_fixtures.ServeFixtures) -> dict[str, Any]:
    """Return what the figures depend on."""
    return {
        "clients": CLIENTS,
        "answer_tokens": serve_fixtures.LENGTHS,
        "requests_a_window": args.requests,
        "warm_seconds": WARM,
        "longest_seconds": LONGEST,
        "rates": args.rates,
        "open_seconds": args.open_seconds,
        "limit_ms": args.limit_ms,
        "cache_tokens": CACHE_TOKENS,
        "batch_tokens": BATCH_TOKENS,
        "logprob_share": fixtures.settings["inference_log"]["logprob_share"],
        "only": args.only,
        "versions": versions("tunectl-lm", "openvino-genai", "bentoml"),
    }


def run_name(result: dict[str, Any], fixtures: serve_fixtures.ServeFixtures) -> str:
    """Return the name of rows that add up: the same machine, settings, server's settings, and code of what is measured and measures."""
    files = sorted(path for part in ("serving", "backends/engines", "generation") for path in source_files(part))
    files += [ROOT / f"benchmarks/serve_{name}.py" for name in ("bare_engine", "baselines", "client", "measurements")]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    return serve_report.hash_run([result["machine"], result["settings"], fixtures.settings, digest])


def source_files(part: str) -> list[Path]:
    """Our own code of one folder."""
    return list((ROOT / "src/tunectl" / part).rglob("*.py"))


class Fleet:
    """All systems of a layout, started one after another, with another one first each ``turn``; they are stopped unless they are measured."""

    def __init__(
        self, args: argparse.Namespace, fixtures: serve_fixtures.ServeFixtures, layout: str, turn: int = 0
    ) -> None:
        self.running: dict[str, RunningSystem] = {}
        self.absent: dict[str, str] = {}
        self.started: dict[str, float] = {}
        self.fixtures = fixtures
        names = ["tunectl"] if args.memory else args.only
        wanted = [item for item in PEERS if (item.name in names if names else not item.on_request)]
        peers = [item for item in wanted if item.release == layout]
        first = turn % len(peers) if peers else 0
        self.peers = peers[first:] + peers[:first]
        self.place: Path = args.place

    def __enter__(self) -> Fleet:
        try:
            for peer in self.peers:
                self._start(peer)
            self._check_memory()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _check_memory(self) -> None:
        from tunectl.training.resource_check import available_memory

        free = (available_memory() or 0) >> 20
        if free < MIN_FREE_MB:
            raise SystemExit(
                f"{', '.join(self.running)} leave {free} MB of memory, and {MIN_FREE_MB} are needed: figures would "
                "show files that are read again and again. End other programs, or name fewer systems (--only)"
            )

    def _start(self, peer: MeasuredSystem) -> None:
        try:
            self.running[peer.name] = RunningSystem(peer, self.fixtures, self.place)
        except UnavailableError as error:
            self._without(peer.name, error)
        else:
            self.try_system(peer.name, self._warm)

    def _warm(self, running: RunningSystem) -> None:
        name = running.peer.name
        self.started[name] = round(running.wait(), 1)
        drive(running, bodies(running, 4, "warm"), clients=2, warm=0, seconds=60)
        print(f"{name:16} ready after {self.started[name]:5.1f} s: {running.peer.says}", flush=True)
        running.pause()

    def try_system(self, name: str, work: Callable[[RunningSystem], T]) -> T | None:
        """Run a step with a system; a failure is printed with the reason, and the system is left out from then on."""
        try:
            return work(self.running[name])
        except UnavailableError as error:
            self.running.pop(name).stop()
            self._without(name, error)
            return None

    def _without(self, name: str, error: UnavailableError) -> None:
        self.absent[name] = str(error)
        print(f"{name:16} {error}", flush=True)

    def __exit__(self, *_: object) -> None:
        for item in self.running.values():
            item.stop()


class Rounds:
    """All rounds, each cell a row of the table as soon as it is measured.

    A round has processes of its own, because the ratio of two systems differed by a tenth between two starts, and stayed so.
    """

    def __init__(
        self, args: argparse.Namespace, start_fleet: Callable[[str, int], Fleet], run: str, start: float
    ) -> None:
        self.args, self.start_fleet, self.run, self.start = args, start_fleet, run, start
        self.table: Path = args.place / "quick_rows.jsonl" if args.quick else serve_report.ROWS
        if args.quick:
            self.table.unlink(missing_ok=True)

    def measure(self) -> dict[str, Any]:
        """Measure the rounds that are left, then say what all of them add up to."""
        args, longest = self.args, 0.0
        first, finished_rounds = serve_report.count_rounds(serve_report.read_rows(self.table, self.run))
        if finished_rounds:
            print(f"{finished_rounds} rounds are there already ({self.table})", flush=True)
        for turn in range(first, first + args.rounds - finished_rounds):
            if turn > first and time.monotonic() - self.start + longest > 60 * args.minutes:
                print(f"another round would end after {args.minutes:g} minutes; the next run goes on", flush=True)
                break
            began = time.monotonic()
            self._round(turn)
            longest = max(longest, time.monotonic() - began)
        return self._report()

    def _round(self, turn: int) -> None:
        about: dict[str, dict[str, Any]] = {}
        for layout in LAYOUTS:
            with self.start_fleet(layout, turn) as fleet:
                self._measure_layout(fleet, turn)
                for name, figures in describe_fleet(fleet, quick=self.args.quick).items():
                    about.setdefault(name, {}).update(figures)
        self._append(turn, {"system": "", "part": END, "load": 0, **about})

    def _measure_layout(self, fleet: Fleet, turn: int) -> None:
        for clients in CLIENTS:
            work = partial(measure_closed_loop, self.args, clients=clients, turn=turn)
            self._cells(fleet, list(fleet.running), turn, CLOSED, clients, work)
        served = [name for name, item in fleet.running.items() if item.peer.ready]
        for rate in self.args.rates:
            self._cells(fleet, served, turn, OPEN, rate, partial(open_cell, self.args, rate=rate, turn=turn))

    def _append(self, turn: int, row: serve_report.Row) -> None:
        serve_report.append_row(self.table, serve_report.name_row(self.run, turn) | row)

    def _cells(
        self,
        fleet: Fleet,
        order: Sequence[str],
        turn: int,
        part: str,
        load: float,
        work: Callable[[RunningSystem], dict[str, Any]],
    ) -> None:
        for name in order:
            measured = fleet.try_system(name, work) if name in fleet.running else None
            if measured is not None:
                self._append(turn, {"system": name, "part": part, "load": load, **measured})

    def _report(self) -> dict[str, Any]:
        rows = serve_report.read_rows(self.table, self.run)
        cells, ratios = serve_report.summarize(rows), serve_report.compare_all(rows)
        says = {peer.name: peer.says for peer in PEERS}
        thin = serve_report.find_thin_cells(cells)
        for line in (*serve_report.write_table(cells, says), *thin, *serve_report.judge(ratios)):
            print(line, flush=True)
        return {
            "run": self.run,
            "systems": {name: says[name] for name in cells},
            **serve_report.summarize_rounds(rows),
            "cells": cells,
            "ratios": ratios,
        }


def describe_fleet(fleet: Fleet, *, quick: bool) -> dict[str, dict[str, Any]]:
    """Start times, sizes, what is absent, and what a shared beginning of prompts saves, by system."""
    shared = {}
    for name in ("tunectl", "vllm") if not quick else ():
        if name in fleet.running and (figures := fleet.try_system(name, prefixes)):
            shared[name] = figures
    return {
        "seconds_to_ready": fleet.started,
        "megabytes": {name: round(item.memory()) for name, item in fleet.running.items()},
        "cannot_be_measured_here": fleet.absent,
        "shared_beginnings": shared,
    }


def measure_closed_loop(args: argparse.Namespace, running: RunningSystem, *, clients: int, turn: int) -> dict[str, Any]:
    """One window of one system with so many clients."""
    requests = max(args.requests, 2 * clients) if not args.quick else args.requests
    running.resume()
    cpu = running.cpu()
    payloads = bodies(running, clients * 4 + 3 * requests, f"{turn}/{clients}")
    warm = WARM if not args.quick else 0.5
    measured = drive(running, payloads, clients=clients, warm=warm, seconds=warm, requests=requests, longest=LONGEST)
    measured["server_cpu_seconds"] = round(running.cpu() - cpu, 2)
    running.settle()
    running.pause()
    first = measured["first"]
    print(
        f"{turn + 1} {clients:3} clients {running.peer.name:16} {measured['tokens_per_second']:7.1f} new + "
        f"{measured['prompt_tokens_per_second']:.1f} prompt tokens/s, first {first['p50']} / {first['p95']} ms, "
        f"{measured['requests']} requests {measured['failed'] or ''}",
        flush=True,
    )
    return measured


def open_cell(args: argparse.Namespace, running: RunningSystem, *, rate: float, turn: int) -> dict[str, Any]:
    """Arrivals at one rate."""
    running.resume()
    measured = open_driven(running, rate, args.open_seconds, args.limit_ms / 1000, f"{turn}/{rate:g}")
    running.settle()
    running.pause()
    first = measured["first"]
    print(
        f"{turn + 1} {rate:3g} a second {running.peer.name:16} {measured['good']} of {measured['sent']} good, "
        f"{measured['goodput_per_second']} a second, first {first['p50']} / {first['p95']} ms {measured['failed'] or ''}",
        flush=True,
    )
    return measured


def measure_memory(args: argparse.Namespace, start_fleet: Callable[[str], Fleet]) -> dict[str, Any]:
    """Memory of our server over many requests."""
    with start_fleet("merged") as fleet:
        if "tunectl" not in fleet.running:
            raise SystemExit(f"our server cannot be measured here: {fleet.absent.get('tunectl')}")
        figures = memory(fleet.running["tunectl"], args.memory)
    growth = figures["growth_after_the_first_tenth"]
    state = "held  " if growth <= MAX_MEMORY_GROWTH else "MISSED"
    print(f"{state} growth of memory after the first tenth: {growth} (at most {MAX_MEMORY_GROWTH})", flush=True)
    return {"memory": figures}


if __name__ == "__main__":
    main()
