"""What is compared with a trained model has log-probabilities whatever ``inference_log.logprob_share`` is: probes, parity, references."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tunectl.backends.engines.offline_runner import LocalRunner
from tunectl.generation.engine import GenerationRequest, TokenChunk
from tunectl.serving.loaded_release import run_probes
from tunectl.serving.stream_router import StreamRouter

STOP = 9
ANSWER = [5, 6]


class Greedy:
    """An engine that always answers the same; it gives log-probabilities to requests that want them."""

    name = "greedy"

    def __init__(self, deliver: Callable[[Sequence[tuple[int, TokenChunk]]], None] | None = None) -> None:
        self.asked: list[GenerationRequest] = []
        self._deliver = deliver

    def open(self, release: Path, deliver: Any, *, adapter: bool) -> Greedy:
        self._deliver = deliver
        return self

    def start(self, number: int, request: GenerationRequest) -> None:
        self.asked.append(request)
        ids = ANSWER[len(request.prompt) - 1 :][: request.max_tokens] or ANSWER[:1]
        assert self._deliver is not None
        self._deliver([(number, TokenChunk(ids, [-0.5] * len(ids) if request.logprobs else [], "length"))])


@pytest.mark.parametrize("read", [False, True], ids=["references", "parity"])
def test_answers_of_the_package_stage_have_them(tmp_path: Path, read: bool) -> None:
    engine = Greedy()
    runner: Any = LocalRunner(engine, tmp_path, [STOP], adapter=False)  # type: ignore[arg-type]
    (answer,) = runner.teacher_force([[1]], [ANSWER]) if read else runner.generate([[1]], 2)
    assert answer.logprobs == [-0.5, -0.5]
    assert [request.logprobs for request in engine.asked] == [True]


def test_probes_of_a_server_have_them() -> None:
    async def prove() -> tuple[Greedy, float]:
        router = StreamRouter(asyncio.get_running_loop())
        engine = Greedy(router.deliver)
        probe = SimpleNamespace(
            token_ids=[1], answer_ids=ANSWER, logprobs=[-0.5, -0.75], base_ids=[7, 7], answer_under_base=[-3.0, -3.0]
        )
        tolerance = SimpleNamespace(min_token_agreement=0.9, max_logprob_diff=0.5)
        contract: Any = SimpleNamespace(tolerance=tolerance, probes=[probe])
        session: Any = engine
        report = await run_probes(contract, session, router, frozenset({STOP}))
        return engine, report.logprob_gap

    engine, gap = asyncio.run(prove())
    assert engine.asked
    assert all(request.logprobs for request in engine.asked)
    assert gap == pytest.approx(0.125)
