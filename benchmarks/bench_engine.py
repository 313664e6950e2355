"""OpenVINO's settings side by side: why the server's engine is set as it is.

    python benchmarks/bench_engine.py [--artifacts DIR] [--rounds 3] [--seconds 5] [--only NAME ...] [--keep]

Tokens/s of the bare engine with 1, 8 and 32 streams that each begin anew when they end, on the release that bench_serve makes of
the bundled example, with prompts that nobody asked before. All pipelines are open at once and only one works; each round takes
them in another order, and ratios over the server's own setting are taken within a round. What a setting does to the answers is
reported by `tunectl repro`: the package stage holds the engine against the trained model.
The last line is JSON; --keep keeps it in results/bench_engine.json.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import serve_fixtures
from hardware_info import machine, versions
from serve_baselines import BATCH_TOKENS, CACHE_TOKENS, RUNNING
from serve_envs import ROOT

STREAMS = (1, 8, 32)
OURS = "f32"
WARM = 2.0
"""Seconds before a window."""
BLOCK = 32
RESULT = ROOT / "benchmarks/results/bench_engine.json"


@dataclass(frozen=True)
class Setting:
    """One way to set the engine."""

    properties: dict[str, Any] = field(default_factory=dict)
    scheduler: dict[str, Any] = field(default_factory=dict)
    request: dict[str, Any] = field(default_factory=dict)


F32 = {"INFERENCE_PRECISION_HINT": "f32"}
LOOKUP = {"num_assistant_tokens": 3, "max_ngram_size": 3}
SETTINGS = {
    OURS: Setting(F32),
    "bf16": Setting({"INFERENCE_PRECISION_HINT": "bf16"}),
    "f32, scales over 64": Setting({**F32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "64"}),
    "f32, activations not quantized": Setting({**F32, "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"}),
    "f32, cache in f32": Setting({**F32, "KV_CACHE_PRECISION": "f32"}),
    "f32, steps of 2048": Setting(F32, {"max_num_batched_tokens": 2048}),
    "f32, prompts not split": Setting(F32, {"max_num_batched_tokens": 2048, "dynamic_split_fuse": False}),
    "f32, threads not pinned": Setting({**F32, "ENABLE_CPU_PINNING": False}),
    "f32, no log-probabilities": Setting(F32, request={"logprobs": 0}),
    "f32, prompt lookup": Setting({**F32, "prompt_lookup": True}, request=LOOKUP),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--artifacts", type=Path, default=ROOT / "artifacts", help="of a pipeline that has run (artifacts)"
    )
    parser.add_argument("--place", type=Path, default=ROOT / ".tunectl/bench-serve", help="what is measured")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all settings (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="window of one measurement (5)")
    parser.add_argument("--only", nargs="+", choices=list(SETTINGS), help="these settings")
    parser.add_argument("--keep", action="store_true", help=f"write {RESULT.relative_to(ROOT)}")
    args = parser.parse_args()
    fixtures = serve_fixtures.prepare_fixtures(args.place, args.artifacts)
    engines = {name: Engine(fixtures, SETTINGS[name]) for name in args.only or SETTINGS}
    rates: dict[str, dict[int, list[float]]] = {name: {count: [] for count in STREAMS} for name in engines}
    for turn in range(args.rounds):
        for count in STREAMS:
            for name in random.Random(f"{turn}/{count}").sample(list(engines), len(engines)):
                rate = engines[name].rate(count, f"{turn}/{count}", args.seconds)
                rates[name][count].append(rate)
                print(f"{turn + 1} {count:3} {name:32} {rate:7.1f} tokens/s", flush=True)
    result = {
        "benchmark": "engine",
        "machine": machine(),
        "settings": {"window_seconds": args.seconds, "answer_tokens": serve_fixtures.LENGTHS},
        "versions": versions("openvino", "openvino-genai"),
        "tokens_per_second": {name: over(rows, statistics.median) for name, rows in rates.items()},
        f"over_{OURS}": {name: ratios(rows, rates[OURS]) for name, rows in rates.items() if OURS in rates},
    }
    if args.keep:
        RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


def over(rows: dict[int, list[float]], middle: Any) -> dict[str, float]:
    """By number of streams."""
    return {str(count): round(middle(values), 1) for count, values in rows.items()}


def ratios(rows: dict[int, list[float]], ours: dict[int, list[float]]) -> dict[str, float]:
    """Over ours, round by round; the median."""
    return {
        str(count): round(statistics.median(a / b for a, b in zip(values, ours[count], strict=True)), 2)
        for count, values in rows.items()
    }


class Engine:
    """One pipeline, and streams on it."""

    def __init__(self, fixtures: serve_fixtures.ServeFixtures, setting: Setting) -> None:
        import openvino_genai as genai
        from tokenizers import Tokenizer

        self._genai, self._fixtures, self._setting = genai, fixtures, setting
        release = fixtures.releases["merged"]
        self._tokenizer = Tokenizer.from_file(str(release / "model/tokenizer.json"))
        self._around = json.loads((release / "contract.json").read_text())["fixtures"][0]
        scheduler = genai.SchedulerConfig()
        settings = {
            "num_kv_blocks": CACHE_TOKENS // BLOCK,
            "max_num_batched_tokens": BATCH_TOKENS,
            "max_num_seqs": RUNNING,
            "dynamic_split_fuse": True,
            "enable_prefix_caching": True,
        }
        for name, value in {**settings, **setting.scheduler}.items():
            setattr(scheduler, name, value)
        self._pipeline = genai.ContinuousBatchingPipeline(
            str(release / "model"), scheduler_config=scheduler, device="CPU", properties=setting.properties
        )
        self._running: dict[int, Any] = {}
        self._number = 0

    def rate(self, streams: int, name: str, seconds: float) -> float:
        """Tokens a second of that many streams; they start at different places, so that not all end at once."""
        prompts = iter(self._fixtures.make_prompts(4000, f"engine {name}"))
        for index in range(streams):
            self._begin(*next(prompts), first=max(1, 100 * (index + 1) // streams))
        start = time.monotonic()
        while time.monotonic() - start < WARM:
            self._step(prompts)
        start, result = time.monotonic(), 0
        while (passed := time.monotonic() - start) < seconds:
            result += self._step(prompts)
        for handle in self._running.values():
            handle.cancel()
        self._running.clear()
        self._pipeline.step()
        return result / passed

    def _begin(self, text: str, tokens: int, first: int | None = None) -> None:
        import numpy as np
        import openvino

        question: str = self._around["messages"][-1]["content"]
        ids = self._tokenizer.encode(self._around["text"].replace(question, text), add_special_tokens=False).ids
        asked_for = {"ignore_eos": True, "logprobs": 1, **self._setting.request}
        config = self._genai.GenerationConfig(max_new_tokens=first or tokens, **asked_for)
        self._number += 1
        prompt = openvino.Tensor(np.array([ids], dtype=np.int64))
        self._running[self._number] = self._pipeline.add_request(self._number, prompt, config)

    def _step(self, prompts: Any) -> int:
        self._pipeline.step()
        result = 0
        for number, handle in list(self._running.items()):
            if not handle.can_read():
                continue
            (output,) = handle.read().values()
            result += len(output.generated_ids)
            if output.finish_reason != self._genai.GenerationFinishReason.NONE:
                del self._running[number]
                self._begin(*next(prompts))
        return result


if __name__ == "__main__":
    main()
