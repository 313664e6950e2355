"""Where one step goes, from the engine's products to the client's socket, with 1, 8 and 32 streams.

    python benchmarks/bench_step.py [--artifacts DIR] [--rounds 8] [--tokens 64] [--keep]
    python benchmarks/bench_step.py --quick [--registry DIR]

The same number of streams, begun together, with new prompts and so many tokens each, goes through five layers in turn: the engine
alone without log-probabilities, with them, our thread around it, the process that it runs in, and the server over HTTP. Parts are
differences of milliseconds a step (the time until the last token, over the tokens of a stream); the engine itself says what of
its time is inference and what is sampling. Each round takes the layers in another order; reported is the median over rounds, with the
quartiles. A part may be negative where two layers do not differ by more than the noise. ``not attributed`` is the time of the
engine's own loop that is neither reading prompts nor inference nor sampling. What HTTP adds is divided by processor time: ``JSON,
sockets and log`` is that of the server's processes without the engine's, ``waiting`` the rest, negative where that work was done
beside the engine's.

Beside it: the engine's rate with 128 streams, and the products of the model's shapes in single precision by numpy, as a measure of
the machine. The last line is JSON; --keep keeps it in results/bench_step.json, with a plot beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import serve_fixtures
from hardware_info import machine, versions
from serve_bare_engine import open_pipeline
from serve_baselines import BATCH_TOKENS, CACHE_TOKENS, PEERS, RUNNING, RunningSystem
from serve_envs import ROOT
from serve_measurements import body, burst, prompt_ids

STREAMS = (1, 8, 32)
LARGE = 128
"""Streams of the engine's own rate at a large batch."""
PARTS = (
    "reading prompts",
    "inference",
    "sampling",
    "log-probabilities",
    "our thread",
    "process hop",
    "JSON, sockets and log",
    "waiting",
    "not attributed",
)
RESULT = ROOT / "benchmarks/results/bench_step.json"
PLOT = RESULT.with_suffix(".svg")
INK = "#767676"
"""Of letters and axes: read on white and on black, because a picture in a file does not know its page's theme."""
ENGINE_PROCESS = "subprocess_engine"
"""A word of its command."""
Walls = dict[str, float]


def main() -> None:
    """Measure and print."""
    args = parse_args()
    if args.quick:
        fixtures = serve_fixtures.quick(args.artifacts, args.registry)
    else:
        fixtures = serve_fixtures.prepare_fixtures(args.place, args.artifacts)
    result: dict[str, Any] = {
        "benchmark": "step",
        "machine": machine(),
        "versions": versions("openvino", "openvino-genai"),
        "settings": {"tokens": args.tokens, "rounds": args.rounds, "cache_tokens": CACHE_TOKENS},
        "quick": args.quick,
    }
    with Layers(fixtures, args.place, args.tokens) as layers:
        rounds = measure(layers, args.rounds)
        result["milliseconds_a_step"] = {str(count): combine(each, args.tokens) for count, each in rounds.items()}
        count = STREAMS[0] if args.quick else LARGE
        seconds = layers.engine(count, "large", 0, args.tokens)["wall"]
        result["large_batch"] = {"streams": count, "tokens_per_second": round(count * args.tokens / seconds, 1)}
    release = fixtures.releases["merged"]
    config = json.loads((release / "model/config.json").read_text())
    result["products_milliseconds_a_step"] = {str(rows): time_products(config, rows) for rows in (*STREAMS, LARGE)}
    for line in write_table(result["milliseconds_a_step"]):
        print(line, flush=True)
    if args.quick:
        print("a check of the script: these are no figures", flush=True)
    elif args.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
        PLOT.write_text(draw(result["milliseconds_a_step"]).replace("currentColor", INK))
    print(json.dumps(result))


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--artifacts", type=Path, default=ROOT / "artifacts", help="of a pipeline that has run")
    parser.add_argument("--place", type=Path, default=ROOT / ".tunectl/bench-serve", help="what is served")
    parser.add_argument("--rounds", type=int, default=8, help="rounds over all layers (8)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of a stream (64)")
    parser.add_argument("--quick", action="store_true", help="a check of the script: one round, eight tokens")
    parser.add_argument(
        "--registry", type=Path, default=ROOT / ".tunectl/releases", help="with --quick: what is served"
    )
    parser.add_argument(
        "--keep", action="store_true", help=f"write {RESULT.relative_to(ROOT)}, and its plot there and in docs/images"
    )
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.tokens = 1, 8
    return args


def measure(layers: Layers, rounds: int) -> dict[int, list[Walls]]:
    """All rounds, by number of streams: seconds of each layer."""
    names = list(layers.measures)
    result: dict[int, list[Walls]] = {count: [] for count in STREAMS}
    for turn in range(-1, rounds):  # the first one warms up
        for count in STREAMS:
            walls: Walls = {}
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                walls |= layers.measures[name](count, f"{turn}/{count}/{name}")
            if turn >= 0:
                result[count].append(walls)
                print(
                    f"{turn + 1} {count:3} streams {json.dumps({k: round(v, 4) for k, v in walls.items()})}", flush=True
                )
    return result


class Layers:
    """Every layer, opened once; the server is stopped while another one is measured."""

    def __init__(self, fixtures: serve_fixtures.ServeFixtures, place: Path, tokens: int) -> None:
        self.fixtures, self.place, self.tokens = fixtures, place, tokens
        self.measures: dict[str, Callable[[int, str], Walls]] = {
            "prompts": lambda count, name: rename("prompts", self.engine(count, name, 0, 1)),
            "plain": lambda count, name: rename("plain", self.engine(count, name, 0, self.tokens)),
            "logprobs": lambda count, name: rename("logprobs", self.engine(count, name, 1, self.tokens)),
            "thread": lambda count, name: {"thread": self.session(self.thread, self.listeners[0], count, name)},
            "process": lambda count, name: {"process": self.session(self.process, self.listeners[1], count, name)},
            "http": self.http,
        }

    def __enter__(self) -> Layers:
        from tunectl.backends.engines.openvino_engine import OpenVinoEngine
        from tunectl.backends.engines.subprocess_engine import SubprocessEngine

        release = self.fixtures.releases["merged"]
        peer = next(peer for peer in PEERS if peer.name == "tunectl")
        self.server = RunningSystem(peer, self.fixtures, self.place)
        self.bare = open_pipeline(str(release / "model"), CACHE_TOKENS, BATCH_TOKENS, LARGE, None)
        settings = {"threads": 0, "cache_tokens": CACHE_TOKENS, "batch_tokens": BATCH_TOKENS, "running": RUNNING}
        self.listeners = (Listener(), Listener())
        self.thread = OpenVinoEngine(**settings).open(release, self.listeners[0], adapter=False)
        factory = f"{OpenVinoEngine.__module__}:{OpenVinoEngine.__name__}"
        process = SubprocessEngine("openvino", factory, settings)
        self.process = process.open(release, self.listeners[1], adapter=False)
        self.server.wait()
        self.server.pause()
        return self

    def __exit__(self, *_: object) -> None:
        self.thread.close()
        self.process.close()
        self.server.stop()

    def prompts(self, count: int, name: str) -> list[list[int]]:
        """New prompts."""
        return [prompt_ids(self.server, text) for text, _ in self.fixtures.make_prompts(count, f"step {name}")]

    def engine(self, count: int, name: str, logprobs: int, tokens: int) -> Walls:
        """The engine alone: seconds in all, of inference, and of sampling."""
        import numpy as np
        import openvino
        import openvino_genai as genai

        config = genai.GenerationConfig(max_new_tokens=tokens, ignore_eos=True, logprobs=logprobs)
        tensors = [openvino.Tensor(np.array([ids], dtype=np.int64)) for ids in self.prompts(count, name)]
        start = time.monotonic()
        answers = self.bare.generate(tensors, [config] * count)
        wall = time.monotonic() - start
        raw = answers[0].perf_metrics.raw_metrics
        return {
            "wall": wall,
            "inference": sum(raw.inference_durations) / 1e6,  # microseconds, of all streams together
            "sampling": sum(raw.sampling_durations) / 1e6,
        }

    def session(self, session: Any, listener: Listener, count: int, name: str) -> float:
        """One of our sessions: seconds until the last token."""
        from tunectl.generation.engine import GenerationRequest

        requests = [GenerationRequest(ids, self.tokens, 0.0, 1.0, frozenset()) for ids in self.prompts(count, name)]
        listener.expect(count)
        start = time.monotonic()
        for number, request in enumerate(requests):
            session.start(number, request)
        listener.done.wait(600)
        return time.monotonic() - start

    def http(self, count: int, name: str) -> Walls:
        """Return the server's seconds until the last token, and of processor time in all its processes and without the engine's."""
        texts = self.fixtures.make_prompts(count, f"step {name}")
        bodies = [body(self.server, [{"role": "user", "content": text}], self.tokens) for text, _ in texts]
        self.server.resume()
        cpu, front = self.server.cpu(), self.server.cpu(without=ENGINE_PROCESS)
        figures = burst(self.server, bodies)
        cpu, front = self.server.cpu() - cpu, self.server.cpu(without=ENGINE_PROCESS) - front
        self.server.pause()
        return {"http": figures["until_last_token_seconds"], "http_cpu": cpu, "http_front_cpu": front}


class Listener:
    """Receives the pieces of a session and signals when all answers have ended."""

    def __init__(self) -> None:
        self.done, self.open = threading.Event(), 0

    def expect(self, count: int) -> None:
        """Wait for so many ends."""
        self.open = count
        self.done.clear()

    def __call__(self, pieces: Sequence[tuple[int, Any]]) -> None:
        self.open -= sum(piece.end is not None for _, piece in pieces)
        if self.open <= 0:
            self.done.set()


def rename(name: str, walls: Walls) -> Walls:
    """The three times of the engine under a name of their own."""
    return {f"{name}_{part}": value for part, value in walls.items()}


def split(walls: Walls, tokens: int) -> dict[str, float]:
    """The parts of one round, milliseconds a step; they add up to the server's time."""
    decode_inference = walls["plain_inference"] - walls["prompts_inference"]
    decode_sampling = walls["plain_sampling"] - walls["prompts_sampling"]
    decode = walls["plain_wall"] - walls["prompts_wall"]
    seconds = (
        walls["prompts_wall"],
        decode_inference,
        decode_sampling,
        walls["logprobs_wall"] - walls["plain_wall"],
        walls["thread"] - walls["logprobs_wall"],
        walls["process"] - walls["thread"],
        walls["http_front_cpu"],
        walls["http"] - walls["process"] - walls["http_front_cpu"],
        decode - decode_inference - decode_sampling,
    )
    return {name: 1000 * value / tokens for name, value in zip(PARTS, seconds, strict=True)}


def combine(rounds: Sequence[Walls], tokens: int) -> dict[str, Any]:
    """Median and quartiles of each part over rounds, and of the whole."""
    parts = [split(walls, tokens) for walls in rounds]
    columns = {name: [each[name] for each in parts] for name in PARTS}
    columns["whole"] = [1000 * walls["http"] / tokens for walls in rounds]
    columns["processor time of the server"] = [1000 * walls["http_cpu"] / tokens for walls in rounds]
    return {name: describe(values) for name, values in columns.items()}


def describe(values: Sequence[float]) -> dict[str, float]:
    """Median and quartiles."""
    low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return {"median": round(middle, 3), "low": round(low, 3), "high": round(high, 3)}


def time_products(config: dict[str, Any], rows: int) -> dict[str, float]:
    """Milliseconds of the matrix products of one step with ``rows`` streams, single precision, and how fast that is."""
    import numpy as np

    hidden, inner, layers = config["hidden_size"], config["intermediate_size"], config["num_hidden_layers"]
    narrow = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    shapes = [(hidden, hidden, 2 * layers), (hidden, narrow, 2 * layers), (hidden, inner, 2 * layers)]
    shapes += [(inner, hidden, layers), (hidden, config["vocab_size"], 1)]
    random, total, work = np.random.default_rng(1), 0.0, 0.0
    for wide, out, times in shapes:
        left = random.standard_normal((rows, wide), dtype=np.float32)
        right = random.standard_normal((wide, out), dtype=np.float32)
        durations = []
        for _ in range(5):
            start = time.perf_counter()
            left @ right
            durations.append(time.perf_counter() - start)
        total += times * statistics.median(durations)
        work += times * 2.0 * rows * wide * out
    return {"milliseconds": round(1000 * total, 3), "gflop_per_second": round(work / total / 1e9, 1)}


def write_table(steps: dict[str, dict[str, Any]]) -> list[str]:
    """The parts as a Markdown table: median, and quartiles in brackets."""
    counts = list(steps)
    lines = [
        "| milliseconds a step | " + " | ".join(map(name_streams, counts)) + " |",
        "|---|" + "---|" * len(counts),
    ]
    for name in (*PARTS, "whole", "processor time of the server"):
        texts = [
            f"{steps[count][name]['median']} ({steps[count][name]['low']} to {steps[count][name]['high']})"
            for count in counts
        ]
        lines.append(f"| {name} | " + " | ".join(texts) + " |")
    return lines


def name_streams(count: str) -> str:
    """Return the words for so many streams."""
    return f"{count} stream" if count == "1" else f"{count} streams"


def draw(steps: dict[str, dict[str, Any]]) -> str:
    """One bar for each number of streams: shares of a step; what is negative is drawn as nothing."""
    from tunectl.backends.reports import svg_plots

    medians = {count: {name: max(0.0, parts[name]["median"]) for name in PARTS} for count, parts in steps.items()}
    totals = {count: sum(parts.values()) or 1.0 for count, parts in medians.items()}
    series = {name: [medians[count][name] / totals[count] for count in steps] for name in PARTS}
    labels = [name_streams(count) for count in steps]
    return svg_plots.stacked_bars(
        labels, series, xlabel="share of a step", alt="Where a step of the server goes, by number of streams"
    )


if __name__ == "__main__":
    main()
