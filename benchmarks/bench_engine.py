"""OpenVINO's settings side by side: why the server's engine is set as it is.

    python benchmarks/bench_engine.py --lever sampler|pages|allocator|chunks|int4|... [--artifacts DIR] [--rounds 8] [--keep]
    python benchmarks/bench_engine.py --lever NAME --quick [--registry DIR]

Tokens/s of the bare engine with 1, 8 and 32 streams that each begin anew when they end, on the release that bench_serve makes of
the bundled example, with prompts that nobody asked before. Each setting has a process of its own; all are open at once and only one
works. Each round takes them in another order, and ratios over the server's own setting are taken within a round, with 95 %
intervals. A setting is worth taking where the interval lies above 1 over at least 8 rounds, and `tunectl repro` with it still
passes the package stage, which holds the engine against the trained model. First tokens and the longest steps are told beside it.

With --lever int4 the adapter is exported with int8 and with int4 weights, once, and what the package stage measured of the loss of
both is printed beside the speed.
Every cell is a row of results/engine_rows.jsonl; a run that was stopped goes on with the same command.
The last line is JSON; --keep adds it to results/bench_engine.json, under the name of the lever.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import engine_settings
import serve_fixtures
import serve_report
from engine_settings import LEVERS, OURS, SETTINGS, Setting
from hardware_info import machine, versions
from serve_baselines import BATCH_TOKENS, CACHE_TOKENS, RUNNING
from serve_envs import ROOT, UnavailableError
from serve_report import CLOSED, END, Comparison

STREAMS = (1, 8, 32)
BLOCK = 32
PROMPTS = 600
"""Of one measurement; more than any setting answers in its seconds."""
LONG_PROMPT = 2000
MIN_PAIRS = 8
RESULT = ROOT / "benchmarks/results/bench_engine.json"
ROWS = RESULT.with_name("engine_rows.jsonl")


def main() -> None:
    """Measure and print."""
    args = parse_args()
    lever = LEVERS[args.lever]
    if args.quick:
        fixtures = serve_fixtures.quick(args.artifacts, args.registry)
        table = args.place / "quick_engine_rows.jsonl"
        table.unlink(missing_ok=True)
    else:
        fixtures, table = serve_fixtures.prepare_fixtures(args.place, args.artifacts), ROWS
    releases: dict[str, Path] = fixtures.releases
    losses: dict[str, dict[str, float]] = {}
    if any(SETTINGS[name].release == "int4" for name in lever.settings) and not args.quick:
        exported = serve_fixtures.prepare_weights(args.place, args.artifacts)
        releases = {**releases, "int4": exported["int4"][0]}
        losses = {weights: measures for weights, (_, measures) in exported.items()}
    result: dict[str, Any] = {
        "benchmark": "engine",
        "lever": args.lever,
        "machine": machine(),
        "settings": {
            "window_seconds": args.seconds,
            "answer_tokens": serve_fixtures.LENGTHS,
            "long_prompts": lever.long_prompts,
        },
        "versions": versions("openvino", "openvino-genai"),
    }
    code = [(ROOT / f"benchmarks/engine_{name}.py").read_text() for name in ("settings", "worker")]
    run = serve_report.hash_run([result, code, {layout: folder.name for layout, folder in releases.items()}])
    engines: dict[str, Worker] = {}
    absent: dict[str, str] = {}
    try:
        for name in (OURS, *lever.settings):
            try:
                engines[name] = Worker(SETTINGS[name], releases)
            except UnavailableError as error:
                absent[name] = str(error)
                print(f"{name:36} {error}", flush=True)
        measure(args, engines, Prompts(fixtures, long_prompts=lever.long_prompts), table, run)
    finally:
        for each in engines.values():
            each.close()
    rows = serve_report.read_rows(table, run)
    result |= {"run": run, "cannot_be_measured_here": absent, "loss": losses, "figures": summarize(rows, list(engines))}
    for line in write_table(result["figures"]):
        print(line, flush=True)
    for weights, loss in losses.items():
        print(f"{weights}: {loss}", flush=True)
    if args.keep and not args.quick:
        kept = json.loads(RESULT.read_text()) if RESULT.is_file() else {}
        RESULT.write_text(
            json.dumps({**kept, "levers": {**kept.get("levers", {}), args.lever: result}}, indent=1) + "\n"
        )
    print(json.dumps(result))


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lever", choices=list(LEVERS), required=True, help="which settings beside ours")
    parser.add_argument(
        "--artifacts", type=Path, default=ROOT / "artifacts", help="of a pipeline that has run (artifacts)"
    )
    parser.add_argument("--place", type=Path, default=ROOT / ".tunectl/bench-serve", help="what is measured")
    parser.add_argument(
        "--rounds", type=int, default=MIN_PAIRS, help="rounds over all settings, earlier ones counted (8)"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="window of one measurement (5)")
    parser.add_argument(
        "--quick", action="store_true", help="a check of the script: one round, one second, nothing kept"
    )
    parser.add_argument(
        "--registry", type=Path, default=ROOT / ".tunectl/releases", help="with --quick: what is measured"
    )
    parser.add_argument("--keep", action="store_true", help=f"add to {RESULT.relative_to(ROOT)}")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 1.0
    return args


def measure(args: argparse.Namespace, engines: dict[str, Worker], prompts: Prompts, table: Path, run: str) -> None:
    """Measure the rounds that are left; each cell is a row as soon as it is measured."""
    first, finished = serve_report.count_rounds(serve_report.read_rows(table, run))
    for turn in range(first, first + args.rounds - finished):
        about = serve_report.name_row(run, turn)
        for count in STREAMS:
            asked = prompts.make(f"engine {turn}/{count}")
            for name in random.Random(f"{turn}/{count}").sample(list(engines), len(engines)):
                cell = engines[name].ask({"streams": count, "prompts": asked, "seconds": args.seconds})
                serve_report.append_row(table, {**about, "system": name, "part": CLOSED, "load": count, **cell})
                print(f"{turn + 1} {count:3} {name:36} {cell['tokens_per_second']:7.1f} tokens/s", flush=True)
        serve_report.append_row(table, {**about, "system": "", "part": END, "load": 0})


def summarize(rows: Sequence[serve_report.Row], names: Sequence[str]) -> dict[str, Any]:
    """Return each setting's median rate, memory and steps, and its ratios over ours, by number of streams."""
    figures: dict[str, Any] = {}
    for name in names:
        cells = {count: list(serve_report.pick_rows(rows, name, CLOSED, count).values()) for count in STREAMS}
        figures[name] = {
            str(count): {
                **{
                    key: round(statistics.median(row[key] for row in cell), 1)
                    for key in ("tokens_per_second", "step_ms_p95", "megabytes", "huge_megabytes")
                },
                **{
                    f"{measure}_over_{OURS}": serve_report.compare(rows, Comparison(name, (OURS,), measure), count)
                    for measure in ("tokens_per_second", "first_p50", "first_p95")
                    if name != OURS
                },
            }
            for count, cell in cells.items()
            if cell
        }
    return figures


def write_table(figures: dict[str, Any]) -> list[str]:
    """Return ratios of tokens/s as a Markdown table, and what each interval says."""
    lines = [f"| tokens/s over {OURS} | " + " | ".join(f"{count} streams" for count in STREAMS) + " |"]
    lines.append("|---|" + "---|" * len(STREAMS))
    for name, cells in figures.items():
        ratios = [cells.get(str(count), {}).get(f"tokens_per_second_over_{OURS}") for count in STREAMS]
        if any(ratios):
            lines.append(f"| {name} | " + " | ".join(map(describe_ratio, ratios)) + " |")
    return lines


def describe_ratio(ratio: dict[str, Any] | None) -> str:
    """Return a ratio with its interval, and whether all of it lies above 1 over enough pairs."""
    if ratio is None:
        return ""
    if ratio["low"] is None or ratio["pairs"] < MIN_PAIRS:
        verdict = f"{ratio['pairs']} of {MIN_PAIRS} rounds"
    else:
        verdict = "faster" if ratio["low"] > 1 else "slower" if ratio["high"] < 1 else "no difference shown"
    return f"{ratio['ratio']} ({ratio['low']} to {ratio['high']}): {verdict}"


class Prompts:
    """Prompts as token ids, each with the number of tokens to answer."""

    def __init__(self, fixtures: serve_fixtures.ServeFixtures, *, long_prompts: bool) -> None:
        from tokenizers import Tokenizer

        release = fixtures.releases["merged"]
        self._fixtures, self._long = fixtures, long_prompts
        self._tokenizer = Tokenizer.from_file(str(release / "model/tokenizer.json"))
        self._around = json.loads((release / "contract.json").read_text())["fixtures"][0]

    def make(self, name: str) -> list[tuple[list[int], int]]:
        """Make prompts that nobody asked before; the same for the same ``name``. Of long ones every tenth is long."""
        question: str = self._around["messages"][-1]["content"]
        made = self._fixtures.make_prompts(PROMPTS, name)
        texts = [self._around["text"].replace(question, text) for text, _ in made]
        ids = [each.ids for each in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
        if self._long:
            for number in range(9, len(ids), 10):
                following = [token for each in ids[number : number + 100] for token in each]
                ids[number] = (following * (1 + LONG_PROMPT // len(following)))[:LONG_PROMPT]
        return [(each, length) for each, (_, length) in zip(ids, made, strict=True)]


class Worker:
    """The process of one setting."""

    def __init__(self, setting: Setting, releases: dict[str, Path]) -> None:
        """Start it and wait until it has loaded.

        Raises  UnavailableError where its environment or its release is absent, or it ends.
        """
        if setting.release not in releases:
            raise UnavailableError(f"no release with {setting.release}: run it without --quick")
        env = {**os.environ, **engine_settings.build_environment(setting)}
        words = [sys.executable, str(ROOT / "benchmarks/engine_worker.py")]
        self._process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        scheduler = {
            "num_kv_blocks": CACHE_TOKENS // BLOCK,
            "max_num_batched_tokens": BATCH_TOKENS,
            "max_num_seqs": RUNNING,
            "dynamic_split_fuse": True,
            "enable_prefix_caching": True,
        }
        self.ask(
            {
                "model": str(releases[setting.release] / "model"),
                "properties": setting.properties,
                "scheduler": {**scheduler, **setting.scheduler},
                "request": setting.request,
            }
        )

    def ask(self, plan: dict[str, Any]) -> dict[str, Any]:
        """Send one line and return what comes back.

        Raises  UnavailableError where the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(plan) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # its end is told below
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise UnavailableError(f"its process ended with {self._process.wait()}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()


if __name__ == "__main__":
    main()
