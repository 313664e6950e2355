"""One pipeline of bench_engine in a process of its own, because allocators and huge pages are settings of a process.

    python benchmarks/engine_worker.py < commands

The first line in is the setting as JSON, each further one a measurement: how many streams, prompts as token ids with the number of
tokens to answer, seconds. One JSON line out for each. A stream begins anew with the next prompt when it ends.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai as genai

BLOCK = 32
WARM = 2.0
"""Seconds before a window, at least; it begins when every stream has had a token."""


class Engine:
    """One pipeline, and streams on it."""

    def __init__(self, plan: dict[str, Any]) -> None:
        scheduler = genai.SchedulerConfig()
        for name, value in plan["scheduler"].items():
            setattr(scheduler, name, value)
        self._pipeline = genai.ContinuousBatchingPipeline(
            plan["model"], scheduler_config=scheduler, device="CPU", properties=plan["properties"]
        )
        self._request = {"ignore_eos": True, "logprobs": 1, **plan["request"]}
        self._running: dict[int, tuple[Any, float]] = {}
        self._number = 0
        self._firsts: list[float] = []

    def measure(self, streams: int, prompts: Sequence[tuple[list[int], int]], seconds: float) -> dict[str, Any]:
        """Measure that many streams; they start at different places, so that not all end at once."""
        left = iter(prompts)
        for index in range(streams):
            self._begin(*next(left), first=max(1, 100 * (index + 1) // streams))
        start, last = time.monotonic(), self._number
        while time.monotonic() - start < WARM or self._has_unread(last):
            self._step(left)
        start, tokens, steps = time.monotonic(), 0, []
        self._firsts.clear()
        while (began := time.monotonic()) - start < seconds:
            tokens += self._step(left)
            steps.append(1000 * (time.monotonic() - began))
        passed = time.monotonic() - start
        for handle, _ in self._running.values():
            handle.cancel()
        self._running.clear()
        self._pipeline.step()
        return {
            "tokens_per_second": round(tokens / passed, 2),
            "step_ms_p95": round(sorted(steps)[int(0.95 * len(steps))], 2),
            "first_ms": [round(1000 * each, 1) for each in self._firsts],
            **read_memory(),
        }

    def _has_unread(self, last: int) -> bool:
        """Whether a prompt up to number ``last`` has no token yet: all are read at once in the beginning, and never again."""
        return any(number <= last and asked for number, (_, asked) in self._running.items())

    def _begin(self, ids: list[int], tokens: int, first: int | None = None) -> None:
        config = genai.GenerationConfig(max_new_tokens=first or tokens, **self._request)
        self._number += 1
        prompt = openvino.Tensor(np.array([ids], dtype=np.int64))
        self._running[self._number] = self._pipeline.add_request(self._number, prompt, config), time.monotonic()

    def _step(self, prompts: Iterator[tuple[list[int], int]]) -> int:
        self._pipeline.step()
        result, now = 0, time.monotonic()
        for number, (handle, asked) in list(self._running.items()):
            if not handle.can_read():
                continue
            (output,) = handle.read().values()
            result += len(output.generated_ids)
            if asked:  # this is its first token
                self._firsts.append(now - asked)
                self._running[number] = handle, 0.0
            if output.finish_reason != genai.GenerationFinishReason.NONE:
                del self._running[number]
                self._begin(*next(prompts))
        return result


def read_memory() -> dict[str, float]:
    """Megabytes of this process, and those of them in huge pages."""
    lines = [line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()]
    sizes = {words[0]: int(words[1]) for words in lines if words[-1] == "kB"}
    return {"megabytes": sizes["Pss:"] / 1e3, "huge_megabytes": sizes.get("AnonHugePages:", 0) / 1e3}


def main() -> None:
    """Load, then measure line after line."""
    engine = Engine(json.loads(sys.stdin.readline()))
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(engine.measure(**json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
