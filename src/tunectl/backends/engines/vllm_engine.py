"""vLLM as an engine, for GPUs: its asynchronous engine on a loop of our own, adapters loaded by name.

It lives in an environment and a Bento of its own, because vLLM pins other versions of torch and transformers.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends.engines.subprocess_engine import SubprocessEngine
from tunectl.backends.modeling.peft_adapter import find_max_rank
from tunectl.config.schema.serve import Serve
from tunectl.core import logging_setup
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.core.optional import import_optional, require_installed
from tunectl.generation import json_schema_grammar
from tunectl.generation.engine import Deliver, FinishReason, GenerationRequest, TokenChunk

EXTRA = "vllm"
DEVICES = ("cpu", "cuda")
_ENDS: dict[str | None, FinishReason] = {"stop": "stop", "length": "length", "abort": "cancelled"}
"""By vLLM's finish reason; any other one is a failure."""


@dataclass(frozen=True, slots=True)
class VllmEngine:
    """Opens a release in vLLM on the GPU; the fields are vLLM's limits per session."""

    running: int
    batch_tokens: int
    prefix_caching: bool = True
    cards: int = 1
    """Number of GPUs over which the model is divided (tensor parallelism)."""
    name: str = "vllm"

    def open(self, release: Path, deliver: Deliver, *, adapter: bool) -> VllmSession:
        """Return a session on ``release/model``, with ``release/adapter`` if ``adapter``; blocks until it is loaded.

        Raises  ArtifactError with the library's error message where the release cannot be loaded; UsageError on another device than
                those of ``DEVICES``.
        """
        import_optional("vllm", extra=EXTRA)
        device = import_optional("vllm.platforms", extra=EXTRA).current_platform.device_type  # of ROCm it is cuda, too
        if device not in DEVICES:
            raise UsageError(
                f"vLLM is installed for the device {device}; the engine vllm runs on {', '.join(DEVICES)}, and nothing was run elsewhere",
                hint="install vLLM for CUDA, ROCm or the CPU, or package for another engine: package=openvino",
            )
        arguments = import_optional("vllm.engine.arg_utils", extra=EXTRA).AsyncEngineArgs(
            model=str(release / "model"),
            skip_tokenizer_init=False,
            tokenizer=str(release / "model"),
            load_format="safetensors",
            trust_remote_code=False,
            max_num_seqs=self.running,
            max_num_batched_tokens=max(self.batch_tokens, 2048),
            tensor_parallel_size=self.cards,
            enable_prefix_caching=self.prefix_caching,
            enable_lora=adapter,
            max_lora_rank=find_max_rank(release / "adapter")[1] if adapter else 16,
            logprobs_mode="processed_logprobs",  # of the distribution that is sampled from, as ``TokenChunk`` has them
            disable_log_stats=True,
        )
        session = VllmSession(deliver, release / "adapter" if adapter else None, seeded=device != "cpu")
        try:
            session.load(arguments)
        except Exception as error:
            session.close()
            raise ArtifactError(
                f"{release}: vLLM cannot load it: {str(error).strip()[:300]}",
                hint="vLLM's own lines above say why; if GPU memory is short, free some (nvidia-smi), lower serve.limits.max_concurrency, "
                "or raise serve.engine.tensor_parallel_size; otherwise check the release: tunectl release verify",
            ) from error
        return session

    def cancel_open(self) -> None:
        """Do nothing: loading in this process cannot be stopped."""


class VllmSession:
    """An engine session: one vLLM engine, and the event loop that runs it in a thread."""

    def __init__(self, deliver: Deliver, adapter: Path | None, *, seeded: bool) -> None:
        self.broken: str | None = None
        self._deliver, self._adapter, self._seeded = deliver, adapter, seeded
        self._engine: Any = None
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="vllm", daemon=True)
        self._thread.start()

    def load(self, arguments: Any) -> None:
        """Start vLLM with ``arguments`` (``AsyncEngineArgs``); raise what vLLM raises."""

        async def start() -> Any:
            return import_optional("vllm.v1.engine.async_llm", extra=EXTRA).AsyncLLM.from_engine_args(arguments)

        self._engine = self._wait(start())

    def start(self, number: int, request: GenerationRequest) -> None:
        """Start a request under the number by which ``deliver`` reports its tokens."""
        self._loop.call_soon_threadsafe(self._begin, number, request)

    def cancel(self, number: int) -> None:
        """Abort request ``number``."""
        self._loop.call_soon_threadsafe(self._stop, number)

    def close(self) -> None:
        """Abort running requests, and end the engine and its loop."""
        if self._loop.is_closed():
            return
        self._wait(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _end(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._engine is None:
            return
        try:
            self._engine.shutdown()
        except Exception as error:  # noqa: BLE001  # an engine that died cannot be shut down
            logging_setup.get_logger(__name__).warning("vLLM does not end as it should: %s", error)

    def _begin(self, number: int, request: GenerationRequest) -> None:
        task = self._loop.create_task(self._answer(number, request))
        self._tasks[number] = task
        task.add_done_callback(lambda finished_task: self._report_end(number, finished_task))

    def _report_end(self, number: int, task: asyncio.Task[None]) -> None:
        """Report the end here and not in the task itself: a task that is cancelled before its first step never runs."""
        del self._tasks[number]
        if task.cancelled():
            self._deliver([(number, TokenChunk([], [], "cancelled"))])

    def _stop(self, number: int) -> None:
        if (task := self._tasks.get(number)) is not None:
            task.cancel()

    async def _answer(self, number: int, request: GenerationRequest) -> None:
        try:
            async for piece in self._pieces(number, request):
                self._deliver([(number, piece)])
        except Exception as error:  # noqa: BLE001  # any error of vLLM is passed to the waiting request
            reason = str(error).strip()[:300]
            if getattr(self._engine, "errored", False):
                self.broken = reason
            # vLLM checks a request, its grammar included, before it takes it, and raises ValueError
            end: FinishReason = "refused" if isinstance(error, ValueError) and self.broken is None else "failed"
            self._deliver([(number, TokenChunk([], [], end, reason))])

    async def _pieces(self, number: int, ask: GenerationRequest) -> Any:
        vllm = import_optional("vllm", extra=EXTRA)
        lora = None
        if self._adapter is not None:
            request = import_optional("vllm.lora.request", extra=EXTRA).LoRARequest
            lora = request("adapter", 1, str(self._adapter))
        prompt = {"prompt_token_ids": ask.prompt}
        sampling = _sampling(vllm, ask, seeded=self._seeded)
        async for out in self._engine.generate(prompt, sampling, str(number), lora_request=lora):
            result = out.outputs[0]
            ids = list(result.token_ids)
            steps = zip(ids, result.logprobs or [], strict=True) if ask.logprobs else ()
            logprobs = [logprob[token].logprob for token, logprob in steps]
            if result.finish_reason == "stop" and ids and ids[-1] in ask.stop_ids:
                ids, logprobs = ids[:-1], logprobs[:-1]
            if not out.finished:
                yield TokenChunk(ids, logprobs)
                continue
            end = _ENDS.get(result.finish_reason, "failed")
            yield TokenChunk(ids, logprobs, end, f"vLLM ended it: {result.finish_reason}" if end == "failed" else "")
            return
        yield TokenChunk([], [], "failed", "vLLM ended it without a reason")


def _sampling(vllm: Any, request: GenerationRequest, *, seeded: bool) -> Any:
    """Return vLLM's parameters of a request, without its seed unless ``seeded``.

    vLLM's CPU build (0.32) dies of a seed whose prompt is read in several steps: it sets the generator back, and one of torch's for
    the CPU cannot be ("CPU Generator does not use offset").
    """
    form: dict[str, Any] = {}
    if request.schema is not None:
        params = import_optional("vllm.sampling_params", extra=EXTRA)
        form["structured_outputs"] = params.StructuredOutputsParams(
            grammar=json_schema_grammar.schema_to_ebnf(request.schema)
        )
    return vllm.SamplingParams(
        max_tokens=request.max_tokens,
        temperature=request.temperature,
        top_p=request.top_p,
        seed=request.seed if seeded else None,
        presence_penalty=request.presence,
        frequency_penalty=request.frequency,
        stop_token_ids=sorted(request.stop_ids),
        ignore_eos=not request.stop_ids,
        logprobs=0 if request.logprobs else None,
        detokenize=False,
        output_kind=import_optional("vllm.sampling_params", extra=EXTRA).RequestOutputKind.DELTA,
        **form,
    )


def engine(serve: Serve) -> SubprocessEngine:
    """Return the vLLM engine with the settings ``serve``; each of its sessions runs in a process of its own.

    Raises  UsageError for a model on more GPUs than there are; MissingExtraError when vLLM is not installed.
    """
    require_installed("vllm", extra=EXTRA)
    _check_card_count(serve.engine.tensor_parallel_size)
    settings = {
        "running": serve.limits.max_concurrency,
        "batch_tokens": serve.engine.max_num_batched_tokens,
        "prefix_caching": serve.engine.prefix_caching,
        "cards": serve.engine.tensor_parallel_size,
    }
    return SubprocessEngine("vllm", f"{__name__}:{VllmEngine.__name__}", settings)


def _check_card_count(count: int) -> None:
    """Raise UsageError where torch sees fewer than ``count`` GPUs: vLLM would say so after a minute, or wait for ever on a CPU."""
    if count == 1:
        return
    visible = import_optional("torch", extra=EXTRA).cuda.device_count()
    if count > visible:
        raise UsageError(
            f"serve.engine.tensor_parallel_size = {count}, and torch sees {visible} GPUs",
            hint=f"set it to {max(1, visible)}, or serve on a machine with {count} GPUs",
        )
