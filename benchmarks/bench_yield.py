"""A training beside a live server: the time to the first token without one, beside one that yields, and beside one that does not.

    python benchmarks/bench_yield.py [--root .] [--clients 2] [--seconds 40] [--rounds 1] [--keep]

The server is ``tunectl serve`` on the champion of ``make run``. The training is the fine-tuning of the same project, begun as
the retrain controller begins a retrain: once with ``retrain.resources`` as declared, once with neither niceness nor fewer processors.
Clients ask the next question when the last is answered. Works in ``.tunectl/bench-yield`` and touches nothing else; about
four minutes on two cores. Ratios are over the mean of the two windows without a training, before and after. The last line is
JSON; --keep keeps it in results/bench_yield.json.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path[:0] = [str(ROOT / "examples" / "local_lens"), str(ROOT / "monitoring")]

import local_stack  # noqa: E402
from hardware_info import machine, versions  # noqa: E402
from loop_demo import setup  # noqa: E402
from loop_demo.processes import OFFLINE_ENV, Program, plain_environment, wait_until  # noqa: E402
from synthetic_data import distribution_shift  # noqa: E402

from tunectl.access import api_keys  # noqa: E402
from tunectl.artifacts.paths import ProjectPaths  # noqa: E402
from tunectl.backends.system import supervised_process  # noqa: E402
from tunectl.backends.system.supervised_process import ProcessLimits  # noqa: E402
from tunectl.config.loading import checks  # noqa: E402
from tunectl.config.schema.retrain import RetrainResourcesConfig  # noqa: E402

RESULT = HERE / "results" / "bench_yield.json"
ALONE, YIELDING, GREEDY = "alone", "beside one that yields", "beside one that does not"
ENDLESS = ("sft.epochs=1000", "sft.evals_per_epoch=1", "sft.early_stopping=null")
"""A training that lasts longer than the measurement."""
LOADED_SECONDS = 25.0
"""Seconds of processor time after which a training has loaded model and data."""
TOKENS, WARM = 48, 5.0
"""Of an answer; seconds before a window."""
MAX_START_SECONDS = 600.0
"""Seconds within which a training must have started."""
Cells = dict[str, list[dict[str, Any]]]


def main() -> None:
    """Measure, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=ROOT, help="the checkout in which `make run` was run")
    parser.add_argument("--clients", type=int, default=2, help="requests under way (2)")
    parser.add_argument("--seconds", type=float, default=40.0, help="window of one measurement (40)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds over all ways (1)")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    args = parser.parse_args()
    start = time.monotonic()
    project = args.root / ".tunectl" / "bench-yield" / "project"
    store = setup.create_project(args.root, project)
    champion = store.champion()
    assert champion is not None
    layout = ProjectPaths(project)
    resources = checks.load_project_config(layout).root.retrain.resources
    bench = setup.create_worktree(project, "training")
    cells: Cells = {ALONE: [], YIELDING: [], GREEDY: []}
    with serving(project) as (port, key):
        load = ClientLoad(port, key, store.manifest(champion.release).project, args.clients, args.seconds)
        for _ in range(args.rounds):
            for name, limits in list_conditions(resources):
                cells[name].append(measure_window(name, limits, load, bench))
    result = {
        "benchmark": "yield",
        "machine": machine(),
        "settings": {
            "clients": args.clients,
            "window_seconds": args.seconds,
            "answer_tokens": TOKENS,
            "retrain.resources": resources.model_dump(),
            "versions": versions("tunectl-lm", "openvino-genai", "torch"),
        },
        "ways": {name: summary(cell) for name, cell in cells.items()},
        "over_alone": ratios(cells),
        "minutes": round((time.monotonic() - start) / 60, 1),
    }
    for line in format_table(result):
        print(line)
    if args.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def list_conditions(resources: RetrainResourcesConfig) -> list[tuple[str, ProcessLimits | None]]:
    """List the conditions of a round, in order; None: no training."""
    longest = 3600.0
    yielding = ProcessLimits(longest, resources.nice, resources.threads)
    return [(ALONE, None), (YIELDING, yielding), (GREEDY, ProcessLimits(longest)), (ALONE, None)]


class ClientLoad:
    """The load: requests and clients."""

    def __init__(self, port: int, key: str, model: str, clients: int, seconds: float) -> None:
        self._plan = {
            "transport": "http", "host": "127.0.0.1", "port": port, "path": "/v1/chat/completions", "key": key,
            "clients": clients, "warm": WARM, "seconds": seconds,
        }  # fmt: skip
        self._model, self._briefs = model, distribution_shift.generate_baseline_requests()

    def measure(self) -> dict[str, Any]:
        """Measure one window in a client process of its own."""
        bodies = [self._body(item.brief) for item in islice(self._briefs, 2000)]
        process = subprocess.run(
            [sys.executable, str(HERE / "serve_client.py")],
            input=json.dumps({**self._plan, "bodies": bodies}), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if process.returncode:
            raise SystemExit(f"the client failed: {process.stderr[-500:]}")
        result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
        if result["failed"]:
            raise SystemExit(f"the server did not answer: {result['failed'][0]}")
        return result

    def _body(self, text: str) -> dict[str, Any]:
        request = {"model": self._model, "messages": [{"role": "user", "content": text}], "max_tokens": TOKENS}
        return {**request, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.0}


@contextmanager
def serving(project: Path) -> Iterator[tuple[int, str]]:
    """The server as users start it: its port, and a key that opens it."""
    secret, entry = api_keys.create_key("bench-yield", ["admin"], None, datetime.now(UTC))
    api_keys.add(project / ".tunectl" / "keys.json", entry)
    port = local_stack.free_port()
    server = Program("serve", ["serve", f"serve.port={port}"], project, {})
    try:
        server.until(lambda: _ready(port), 400)
        yield port, secret
    finally:
        server.stop()


def _ready(port: int) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20) as answer:
        return bool(answer.status == 200)
    return False


def measure_window(name: str, limits: ProcessLimits | None, load: ClientLoad, bench: Path) -> dict[str, Any]:
    """One window; with a training beside it, how many processors that had."""
    with training(bench, limits) as mark:
        began, before = time.monotonic(), processor_seconds(mark)
        result = load.measure()
        took = time.monotonic() - began
        result["training_processors"] = round((processor_seconds(mark) - before) / took, 2)
    first = result["first"]
    print(
        f"{name:26} first token {first['p50']} / {first['p95']} ms, {result['tokens_per_second']} tokens/s; "
        f"the training had {result['training_processors']} processors",
        flush=True,
    )
    return result


@contextmanager
def training(bench: Path, limits: ProcessLimits | None) -> Iterator[str]:
    """A training under way, as the retrain controller runs one; the mark of its processes. Without limits there is none."""
    mark, stop = str(bench.absolute()), threading.Event()
    codes: list[int] = []
    if limits is None:
        yield mark
        return
    log = bench / ".tunectl" / "bench-yield.log"

    def run() -> None:
        words = [sys.executable, "-m", "tunectl", "repro", "--unattended", "--to", "sft", *ENDLESS]
        environment = {**plain_environment(), **OFFLINE_ENV}
        codes.append(
            supervised_process.run(
                words, cwd=bench, environment=environment, mark=mark, log=log, stop=stop, limits=limits
            )
        )

    def check_started() -> bool:
        if codes:
            raise SystemExit(f"the training ended with {codes[0]}: {log.read_text(errors='replace')[-1500:]}")
        return any(b"\0run\0sft\0" in words and seconds > LOADED_SECONDS for words, seconds in list_processes(mark))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(check_started, MAX_START_SECONDS, "a training under way", every=0.5)
        yield mark
    finally:
        stop.set()
        thread.join()


def processor_seconds(mark: str) -> float:
    """Of all processes that carry a mark and live."""
    return sum(seconds for _, seconds in list_processes(mark))


def list_processes(mark: str) -> Iterator[tuple[bytes, float]]:
    """Command line and processor seconds of each process that carries a mark."""
    needle = f"{supervised_process.MARK}={mark}".encode()
    for index in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if needle in (index / "environ").read_bytes().split(b"\0"):
                fields = (index / "stat").read_text().rpartition(")")[2].split()
                used = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
                yield (index / "cmdline").read_bytes(), used


def summary(some: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Medians over the windows of one way."""

    def middle(*path: str) -> float | None:
        values = []
        for item in some:
            value: Any = item
            for step in path:
                value = value[step]
            values += [] if value is None else [value]
        return round(statistics.median(values), 2) if values else None

    return {
        "first_ms_p50": middle("first", "p50"),
        "first_ms_p95": middle("first", "p95"),
        "between_ms_p50": middle("between", "p50"),
        "between_ms_p95": middle("between", "p95"),
        "tokens_per_second": middle("tokens_per_second"),
        "requests": sum(item["requests"] for item in some),
        "training_processors": middle("training_processors"),
    }


def ratios(cells: Cells) -> dict[str, dict[str, float | None]]:
    """The time to the first token over that without a training, round by round; the median."""

    def over(name: str, share: str) -> float | None:
        result = []
        for turn, cell in enumerate(cells[name]):
            alone = [each["first"][share] for each in cells[ALONE][2 * turn : 2 * turn + 2]]
            if cell["first"][share] is not None and None not in alone:
                result.append(cell["first"][share] / statistics.mean(alone))
        return round(statistics.median(result), 2) if result else None

    return {name: {share: over(name, share) for share in ("p50", "p95")} for name in (YIELDING, GREEDY)}


def format_table(result: dict[str, Any]) -> Iterator[str]:
    """The table, a line a way."""
    yield f"{'':26} {'first token, ms':>22} {'times alone':>16} {'tokens/s':>10} {'processors of the training':>28}"
    for name, item in result["ways"].items():
        times = result["over_alone"].get(name, {"p50": 1, "p95": 1})
        first = f"{item['first_ms_p50']} / {item['first_ms_p95']}"
        ratio = f"{times['p50']} / {times['p95']}"
        yield f"{name:26} {first:>22} {ratio:>16} {item['tokens_per_second']:>10} {item['training_processors']:>28}"


if __name__ == "__main__":
    main()
