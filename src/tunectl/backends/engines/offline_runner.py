"""Run a release in the engine that will serve it, by the same calls that serve requests (``generation.engine``).

Run as a module in the exporter environment it does one job: ``python -m tunectl.backends.engines.offline_runner JOB ANSWER``.
"""

from __future__ import annotations

import json
import queue
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from tunectl.core.errors import InfrastructureError
from tunectl.generation.engine import Engine, EngineSession, GenerationRequest, TokenChunk
from tunectl.packaging.protocols import GREEDY, GreedyOutput, SamplingParams, TeacherForced

CACHE_TOKENS, STEP_TOKENS, TOGETHER = 65_536, 1024, 32
"""Sizes of an engine while it is compared with the trained model."""


class RunnerJob(msgspec.Struct, frozen=True):
    """Job file of the subprocess in the exporter environment: a release, prompts as token ids, and how to answer them."""

    release: str
    engine: str
    adapter: bool
    stops: list[int]
    prompts: list[list[int]]
    limit: int
    answers: list[list[int]] | None
    """Answers to read (teacher forcing); None: answers are generated, at most ``limit`` tokens each."""
    how: SamplingParams


class LocalRunner:
    """Opens one engine session on a release in this process, and runs many requests on it at once."""

    def __init__(self, engine: Engine, release: Path, stops: Sequence[int], *, adapter: bool) -> None:
        self._chunks: queue.SimpleQueue[tuple[int, TokenChunk]] = queue.SimpleQueue()
        self._stops = frozenset(stops)
        self._label = f"{release}: the engine {engine.name}"
        self._session: EngineSession = engine.open(release, self._deliver, adapter=adapter)

    def _deliver(self, pieces: Sequence[tuple[int, TokenChunk]]) -> None:
        for piece in pieces:
            self._chunks.put(piece)

    def close(self) -> None:
        """Close the engine session and release its memory."""
        self._session.close()

    def generate(
        self, prompts: Sequence[Sequence[int]], limit: int, sampling: SamplingParams = GREEDY
    ) -> list[GreedyOutput]:
        """Return one answer per prompt (token ids), of at most ``limit`` tokens.

        A finished answer ends with its stop token, whose log-probability is not known (NaN).
        """
        stop = min(self._stops)
        result = self._all([(list(prompt), limit) for prompt in prompts], sampling)
        return [
            GreedyOutput([*ids, stop], [*nats, float("nan")], finished=True)
            if ended
            else GreedyOutput(ids, nats, finished=False)
            for ids, nats, ended in result
        ]

    def teacher_force(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[TeacherForced]:
        """Return the engine's likeliest token and its log-probability (nats) at each position of the given ``answers`` (token ids).

        The engine continues each answer from its beginning; where its token differs from the given one, the given one is put in its place
        and it continues from there. So each answer costs one request, and one more per difference, mostly read from the prefix cache.
        """
        tokens_by_answer: list[tuple[list[int], list[float]]] = [([], []) for _ in answers]
        stop = min(self._stops)
        while True:
            open_ = [index for index, answer in enumerate(answers) if len(tokens_by_answer[index][0]) < len(answer)]
            if not open_:
                return [TeacherForced(choices, nats) for choices, nats in tokens_by_answer]
            asks = [
                (
                    [*prompts[p], *answers[p][: len(tokens_by_answer[p][0])]],
                    len(answers[p]) - len(tokens_by_answer[p][0]),
                )
                for p in open_
            ]
            for index, (ids, nats, ended) in zip(open_, self._all(asks), strict=True):
                choices, logprobs = tokens_by_answer[index]
                for token, nat in zip([*ids, *[stop] * ended], [*nats, *[float("nan")] * ended], strict=True):
                    expected = answers[index][len(choices)]
                    choices.append(token)
                    logprobs.append(nat)
                    if len(choices) == len(answers[index]) or not self._same(token, expected):
                        break

    def _same(self, token: int, expected: int) -> bool:
        return token == expected or (token in self._stops and expected in self._stops)

    def _all(
        self, asks: Sequence[tuple[list[int], int]], sampling: SamplingParams = GREEDY
    ) -> list[tuple[list[int], list[float], bool]]:
        """Return ids, log-probabilities, and whether a stop token ended it, of each request; ``TOGETHER`` run at a time."""
        result: list[tuple[list[int], list[float]]] = [([], []) for _ in asks]
        ended = [False] * len(asks)
        waiting, at_work = list(range(len(asks)))[::-1], 0
        while waiting or at_work:
            while waiting and at_work < TOGETHER:
                number = waiting.pop()
                prompt, limit = asks[number]
                request = GenerationRequest(
                    prompt, limit, sampling.temperature, sampling.top_p, self._stops, seed=sampling.seed + number
                )
                self._session.start(number, request)
                at_work += 1
            number, piece = self._chunks.get()
            result[number][0].extend(piece.ids)
            result[number][1].extend(piece.logprobs)
            if piece.end in {"refused", "failed", "cancelled"}:
                raise InfrastructureError(
                    f"{self._label} failed on prompt {number + 1} of {len(asks)}: {piece.why or piece.end}",
                    hint="its log lines above may say more; if memory ran out, close other programs; then run again",
                )
            if piece.end is not None:
                at_work -= 1
                ended[number] = piece.end == "stop"
        return [(ids, nats, stopped) for (ids, nats), stopped in zip(result, ended, strict=True)]


class SubprocessRunner:
    """Runs each request in a subprocess of the exporter environment, because its libraries conflict with ours."""

    def __init__(self, release: Path, engine: str, stops: Sequence[int], *, adapter: bool) -> None:
        self._job_fields: dict[str, Any] = {
            "release": str(release.absolute()), "engine": engine, "adapter": adapter, "stops": list(stops)
        }  # fmt: skip

    def close(self) -> None:
        """Do nothing: no process is kept between two requests."""

    def generate(
        self, prompts: Sequence[Sequence[int]], limit: int, sampling: SamplingParams = GREEDY
    ) -> list[GreedyOutput]:
        return [GreedyOutput(**row) for row in self._run_job(prompts, limit, None, sampling)]

    def teacher_force(self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> list[TeacherForced]:
        return [TeacherForced(**row) for row in self._run_job(prompts, 0, answers)]

    def _run_job(
        self, prompts: Sequence[Any], limit: int, answers: Sequence[Any] | None, sampling: SamplingParams = GREEDY
    ) -> list[dict[str, Any]]:
        from tunectl.backends.export import exporter_env

        if not prompts:
            return []
        job = {**self._job_fields, "prompts": prompts, "limit": limit, "answers": answers, "how": sampling}
        with tempfile.TemporaryDirectory() as scratch:
            question, answer = Path(scratch) / "job.json", Path(scratch) / "answer.json"
            question.write_bytes(msgspec.json.encode(job))
            arguments = ["-m", "tunectl.backends.engines.offline_runner", str(question), str(answer)]
            exporter_env.run_in_env(arguments, f"asking the engine {self._job_fields['engine']}")
            result: list[dict[str, Any]] = json.loads(answer.read_text())
        return result


def open_runner(release: Path, engine: str, stops: Sequence[int], *, adapter: bool) -> LocalRunner:
    """Return a runner on the release in folder ``release``: OpenVINO in this environment, or transformers for every other ``engine``.

    ``stops`` are the ids of the tokens that end an answer; ``adapter`` says whether ``release/adapter`` is applied.
    Raises  ArtifactError for files that the engine cannot load; MissingExtraError where its library is not installed.
    """
    if engine == "openvino":
        from tunectl.backends.engines.openvino_engine import OpenVinoEngine

        return LocalRunner(OpenVinoEngine(0, CACHE_TOKENS, STEP_TOKENS, TOGETHER), release, stops, adapter=adapter)
    from tunectl.backends.engines.transformers_engine import TransformersEngine

    return LocalRunner(TransformersEngine(0), release, stops, adapter=adapter)


def main(job: Path, answer: Path) -> None:
    """Run the ``RunnerJob`` in the file ``job``, and write its results to the file ``answer`` as JSON.

    NaN is written as ``NaN``, which Python's parser reads although JSON does not have it.
    """
    runner_job = msgspec.json.decode(job.read_bytes(), type=RunnerJob)
    side = open_runner(Path(runner_job.release), runner_job.engine, runner_job.stops, adapter=runner_job.adapter)
    try:
        result: Sequence[Any] = (
            side.generate(runner_job.prompts, runner_job.limit, runner_job.how)
            if runner_job.answers is None
            else side.teacher_force(runner_job.prompts, runner_job.answers)
        )
    finally:
        side.close()
    rows = [{name: getattr(row, name) for name in row.__struct_fields__} for row in result]
    answer.write_text(json.dumps(rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
