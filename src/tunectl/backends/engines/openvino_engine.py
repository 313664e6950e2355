"""OpenVINO GenAI as an engine: one continuous-batching pipeline per variant, driven step by step by one thread.

Adapters are set when a pipeline is opened, because one pipeline has one set of adapters for all its requests.
"""

from __future__ import annotations

import queue
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunectl.backends.engines.subprocess_engine import SubprocessEngine
from tunectl.backends.modeling import peft_adapter
from tunectl.config.schema.serve import Serve
from tunectl.core import logging_setup
from tunectl.core.errors import ArtifactError
from tunectl.core.optional import import_optional, require_installed
from tunectl.generation import json_schema_grammar
from tunectl.generation.engine import Deliver, FinishReason, GenerationRequest, TokenChunk

EXTRA = "serve"
BLOCK = 32
"""Tokens of one block of the CPU's key-value cache."""


@dataclass(frozen=True, slots=True)
class OpenVinoEngine:
    """Opens a release as an OpenVINO GenAI pipeline on the CPU; the fields are the limits of each pipeline."""

    threads: int
    """CPU threads; 0 takes all."""
    cache_tokens: int
    """Size of the KV cache in tokens, shared prefixes of answered prompts included."""
    batch_tokens: int
    """Most tokens of one step, so that a long prompt does not delay the other requests."""
    running: int
    """Most requests that are generated at once."""
    prefix_caching: bool = True
    precision: str = "f32"
    """Precision of the computation, f32 or bf16; weights keep their own."""
    name: str = "openvino"

    def open(self, release: Path, deliver: Deliver, *, adapter: bool) -> OpenVinoSession:
        """Return a session on ``release/model``, with ``release/adapter`` if ``adapter``; blocks until it is loaded.

        Raises  ArtifactError with the library's error message where the release cannot be loaded.
        """
        genai = import_optional("openvino_genai", extra=EXTRA)
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": self.precision}
        if self.threads:
            properties["INFERENCE_NUM_THREADS"] = self.threads
        if adapter:
            properties["adapters"] = _adapter(genai, release / "adapter")
        scheduler = genai.SchedulerConfig()
        scheduler.num_kv_blocks = max(1, self.cache_tokens // BLOCK)
        scheduler.max_num_batched_tokens = self.batch_tokens
        scheduler.max_num_seqs = self.running
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = self.prefix_caching
        try:
            inner = genai.ContinuousBatchingPipeline(
                str(release / "model"), scheduler_config=scheduler, device="CPU", properties=properties
            )
        except Exception as error:  # the library raises bare RuntimeError
            raise _unloadable(release / "model", error) from error
        if adapter:
            _switch_on(genai, inner)
        return OpenVinoSession(genai, inner, deliver)

    def cancel_open(self) -> None:
        """Do nothing: loading in this process cannot be stopped."""


def _adapter(genai: Any, folder: Path) -> Any:
    """Return the adapter with the LoRA scale that it was trained with, which the library does not read from PEFT's files."""
    strength = peft_adapter.lora_scaling(folder, "OpenVINO")
    try:
        return genai.AdapterConfig(genai.Adapter(str(folder / peft_adapter.WEIGHTS)), strength)
    except Exception as error:
        raise _unloadable(folder, error) from error


def _switch_on(genai: Any, inner: Any) -> None:
    """Make the pipeline apply its adapters: ``add_request`` and ``step`` never do, only ``generate`` does, and then for good."""
    openvino, numpy = import_optional("openvino", extra=EXTRA), import_optional("numpy", extra=EXTRA)
    inner.generate([openvino.Tensor(numpy.array([[0]], dtype=numpy.int64))], [genai.GenerationConfig(max_new_tokens=1)])


def _unloadable(path: Path, error: Exception) -> ArtifactError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ArtifactError(
        f"{path}: OpenVINO cannot load it: {lines[-1][:300]}",
        hint="if memory ran out, close other programs; otherwise check the release: tunectl release verify",
    )


@dataclass(slots=True)
class _ActiveRequest:
    ask: GenerationRequest
    handle: Any
    cancelled: bool = False


class OpenVinoSession:
    """An engine session: one loaded pipeline, driven by one thread of its own."""

    def __init__(self, genai: Any, inner: Any, deliver: Deliver) -> None:
        self._genai, self._inner, self._deliver = genai, inner, deliver
        self._tensor = import_optional("openvino", extra=EXTRA).Tensor
        self._numpy = import_optional("numpy", extra=EXTRA)
        self._inbox: queue.SimpleQueue[tuple[int, GenerationRequest | None] | None] = queue.SimpleQueue()
        self._active: dict[int, _ActiveRequest] = {}
        self.broken: str | None = None
        self._ended: dict[Any, FinishReason] = {
            genai.GenerationFinishReason.STOP: "stop",
            genai.GenerationFinishReason.LENGTH: "length",
        }
        self._thread = threading.Thread(target=self._run, name="openvino", daemon=True)
        self._thread.start()

    def start(self, number: int, request: GenerationRequest) -> None:
        """Queue a request under the number by which ``deliver`` reports its tokens."""
        self._inbox.put((number, request))

    def cancel(self, number: int) -> None:
        """Queue the cancellation of request ``number``; the pipeline's thread handles it before its next step."""
        self._inbox.put((number, None))

    def close(self) -> None:
        """Cancel running requests, end the pipeline's thread and release its memory."""
        self._inbox.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        try:
            while self._take():
                self._inner.step()
                self._collect()
        except Exception as error:  # noqa: BLE001  # the library raises bare RuntimeError; it is passed to the waiting request
            self._fail(error)
        self._deliver([(number, TokenChunk([], [], "cancelled")) for number in self._active])
        for running in self._active.values():
            running.handle.cancel()
        self._active.clear()
        self._inner = None
        if self.broken is not None:
            self._refuse_all()

    def _refuse_all(self) -> None:
        """Fail every active request: after a failed step the library is unusable until the pipeline is closed."""
        while (item := self._inbox.get()) is not None:
            number, ask = item
            if ask is not None:
                self._deliver([(number, TokenChunk([], [], "failed", self.broken or ""))])

    def _take(self) -> bool:
        """Take requests from the queue; with nothing to do, wait for one. False when the session is to close."""
        while True:
            try:
                item = self._inbox.get(block=not self._active)
            except queue.Empty:
                return True
            if item is None:
                return False
            number, ask = item
            if ask is None:
                self._cancel(number)
            else:
                self._begin(number, ask)

    def _cancel(self, number: int) -> None:
        running = self._active.get(number)
        if running is None:
            return
        running.handle.cancel()
        if len(self._active) == 1:  # the library frees cancelled requests in its next step
            self._inner.step()
        del self._active[number]
        self._deliver([(number, TokenChunk([], [], "cancelled"))])

    def _begin(self, number: int, request: GenerationRequest) -> None:
        prompt = self._tensor(self._numpy.array([request.prompt], dtype=self._numpy.int64))
        try:
            self._active[number] = _ActiveRequest(
                request, self._inner.add_request(number, prompt, self._config(request))
            )
        except Exception as error:  # noqa: BLE001  # for example a schema that it cannot compile
            self._deliver([(number, TokenChunk([], [], "refused", str(error).strip()[:300]))])

    def _config(self, request: GenerationRequest) -> Any:
        config = self._genai.GenerationConfig(
            max_new_tokens=request.max_tokens,
            stop_token_ids=set(request.stop_ids),
            ignore_eos=not request.stop_ids,
            logprobs=int(request.logprobs),
            presence_penalty=request.presence,
            frequency_penalty=request.frequency,
        )
        if request.temperature > 0:
            config.do_sample = True
            config.temperature = request.temperature
            config.top_p = request.top_p
            config.rng_seed = secrets.randbits(63) if request.seed is None else request.seed % 2**63
        if request.schema is not None:
            config.structured_output_config = self._genai.StructuredOutputConfig(
                grammar=json_schema_grammar.schema_to_ebnf(request.schema)
            )
        return config

    def _collect(self) -> None:
        result = []
        for number, running in list(self._active.items()):
            piece = self._piece(running)
            if piece is None:
                continue
            result.append((number, piece))
            if piece.end is not None:
                del self._active[number]
        if result:
            self._deliver(result)

    def _piece(self, running: _ActiveRequest) -> TokenChunk | None:
        handle = running.handle
        if not handle.can_read():
            if handle.get_status() == self._genai.GenerationStatus.IGNORED:
                return TokenChunk([], [], "failed", "the key-value cache is full")
            return None
        (output,) = handle.read().values()
        ids = output.generated_ids
        logprobs = output.generated_log_probs if running.ask.logprobs else []
        end = self._ended.get(output.finish_reason)
        if end == "stop" and ids and ids[-1] in running.ask.stop_ids:
            ids, logprobs = ids[:-1], logprobs[:-1]
        return TokenChunk(ids, logprobs, end)

    def _fail(self, error: Exception) -> None:
        """Report the failure to every request; the library's handles are not released, since its state is unknown now."""
        logging_setup.get_logger(__name__).error("OpenVINO failed: %s", error)
        self.broken = reason = str(error).strip()[:300] or type(error).__name__
        self._deliver([(number, TokenChunk([], [], "failed", reason)) for number in self._active])
        self._active.clear()


def engine(serve: Serve) -> SubprocessEngine:
    """Return the OpenVINO engine with the settings ``serve``; each of its sessions runs in a process of its own."""
    require_installed("openvino_genai", extra=EXTRA)
    engine_settings = serve.engine
    settings = {
        "threads": engine_settings.threads,
        "cache_tokens": engine_settings.kv_cache_tokens,
        "batch_tokens": engine_settings.max_num_batched_tokens,
        "running": serve.limits.max_concurrency,
        "prefix_caching": engine_settings.prefix_caching,
        "precision": engine_settings.precision,
    }
    return SubprocessEngine("openvino", f"{__name__}:{OpenVinoEngine.__name__}", settings)
