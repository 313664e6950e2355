"""transformers as an engine: the reference that others are compared with. It runs its requests in turn, one token each.

Correctness before speed: no batches, so that no answer depends on what runs beside it.
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunectl.backends.engines.subprocess_engine import SubprocessEngine
from tunectl.backends.modeling import peft_adapter
from tunectl.config.schema.serve import Serve
from tunectl.core.errors import ArtifactError
from tunectl.core.optional import import_optional, require_installed
from tunectl.generation.engine import Deliver, GenerationRequest, TokenChunk

EXTRA = "train"


@dataclass(frozen=True, slots=True)
class TransformersEngine:
    """Opens a release's safetensors with transformers, on the CPU, or on a GPU where there is one."""

    threads: int
    name: str = "transformers"

    def open(self, release: Path, deliver: Deliver, *, adapter: bool) -> TransformersSession:
        """Return a session on ``release/model``, with ``release/adapter`` if ``adapter``; blocks until it is loaded.

        Raises  ArtifactError with the library's error message where the release cannot be loaded.
        """
        torch, transformers = import_optional("torch", extra=EXTRA), import_optional("transformers", extra=EXTRA)
        if adapter:
            peft_adapter.require_safetensors(release / "adapter")
        if self.threads:
            torch.set_num_threads(self.threads)
        try:
            model = transformers.AutoModelForCausalLM.from_pretrained(
                release / "model", use_safetensors=True, dtype="auto", local_files_only=True, trust_remote_code=False
            )
            if adapter:
                model = import_optional("peft", extra=EXTRA).PeftModel.from_pretrained(
                    model, release / "adapter", local_files_only=True
                )
        except Exception as error:  # whatever the libraries raise for broken files, safetensors an Exception of its own
            raise ArtifactError(
                f"{release}: transformers cannot load it: {str(error).strip()[:300]}",
                hint="if memory ran out, close other programs; otherwise check the release: tunectl release verify",
            ) from error
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return TransformersSession(torch, model.to(device).eval(), deliver)

    def cancel_open(self) -> None:
        """Do nothing: loading in this process cannot be stopped."""


@dataclass(slots=True)
class _ActiveRequest:
    ask: GenerationRequest
    generator: Any
    tokens: list[int]
    """Tokens that the model has not read yet."""
    cache: Any = None
    output_tokens: list[int] = field(default_factory=list)


class TransformersSession:
    """An engine session: one loaded model, driven by one thread of its own."""

    def __init__(self, torch: Any, model: Any, deliver: Deliver) -> None:
        self._torch, self._model, self._deliver = torch, model, deliver
        self.broken: str | None = None
        self._inbox: queue.SimpleQueue[tuple[int, GenerationRequest | None] | None] = queue.SimpleQueue()
        self._active: dict[int, _ActiveRequest] = {}
        self._thread = threading.Thread(target=self._run, name="transformers", daemon=True)
        self._thread.start()

    def start(self, number: int, request: GenerationRequest) -> None:
        """Queue a request under the number by which ``deliver`` reports its tokens."""
        self._inbox.put((number, request))

    def cancel(self, number: int) -> None:
        """Queue the cancellation of request ``number``."""
        self._inbox.put((number, None))

    def close(self) -> None:
        """Cancel running requests, end the session's thread and release its memory."""
        self._inbox.put(None)
        self._thread.join()

    def _run(self) -> None:
        with self._torch.inference_mode():
            while self._take():
                for number, running in list(self._active.items()):
                    piece = self._step(running)
                    if piece.end is not None:
                        del self._active[number]
                    self._deliver([(number, piece)])
        self._deliver([(number, TokenChunk([], [], "cancelled")) for number in self._active])
        self._active.clear()
        self._model = None

    def _take(self) -> bool:
        while True:
            try:
                item = self._inbox.get(block=not self._active)
            except queue.Empty:
                return True
            if item is None:
                return False
            number, ask = item
            if ask is None:
                if self._active.pop(number, None) is not None:
                    self._deliver([(number, TokenChunk([], [], "cancelled"))])
            elif self.broken is not None:
                self._deliver([(number, TokenChunk([], [], "failed", self.broken))])
            elif ask.schema is not None:
                self._deliver([(number, TokenChunk([], [], "refused", "the engine transformers follows no schema"))])
            else:
                self._active[number] = _ActiveRequest(ask, self._generator(ask), list(ask.prompt))

    def _generator(self, request: GenerationRequest) -> Any:
        generator = self._torch.Generator(device=self._model.device)
        if request.seed is None:
            generator.seed()
        else:
            generator.manual_seed(request.seed % 2**63)
        return generator

    def _step(self, running: _ActiveRequest) -> TokenChunk:
        try:
            token, logprob = self._next(running)
        except Exception as error:  # noqa: BLE001  # an error of the libraries ends this answer, not the thread
            reason = str(error).strip()[:300] or type(error).__name__
            if isinstance(error, self._torch.AcceleratorError):  # the GPU takes no more work from this process
                self.broken = reason
            return TokenChunk([], [], "failed", reason)
        if token in running.ask.stop_ids:
            return TokenChunk([], [], "stop")
        running.tokens = [token]
        running.output_tokens.append(token)
        full = len(running.output_tokens) >= running.ask.max_tokens
        return TokenChunk([token], [logprob] if running.ask.logprobs else [], "length" if full else None)

    def _next(self, running: _ActiveRequest) -> tuple[int, float]:
        torch, ask = self._torch, running.ask
        input_ids = torch.tensor([running.tokens], device=self._model.device)
        out = self._model(input_ids=input_ids, past_key_values=running.cache, use_cache=True, logits_to_keep=1)
        running.cache = out.past_key_values
        logits = out.logits[0, -1].float()
        if ask.presence or ask.frequency:
            counts = torch.bincount(
                torch.tensor(running.output_tokens, device=logits.device, dtype=torch.long), minlength=len(logits)
            )
            logits = logits - ask.presence * (counts > 0) - ask.frequency * counts
        if ask.temperature == 0:
            log_probs = logits.log_softmax(-1)
            token = int(log_probs.argmax())
        else:
            log_probs = _nucleus((logits / ask.temperature).log_softmax(-1), ask.top_p)
            token = int(torch.multinomial(log_probs.exp(), 1, generator=running.generator))
        return token, float(log_probs[token])


def _nucleus(logprobs: Any, top_p: float) -> Any:
    """Return the likeliest tokens that together reach ``top_p``, renormalized (Holtzman et al., 2019)."""
    if top_p >= 1:
        return logprobs
    ordered, indices = logprobs.sort(descending=True)
    beyond = ordered.exp().cumsum(-1) - ordered.exp() >= top_p
    return logprobs.index_fill(0, indices[beyond], float("-inf")).log_softmax(-1)


def engine(serve: Serve) -> SubprocessEngine:
    """Return the transformers engine with the settings ``serve``; each of its sessions runs in a process of its own."""
    require_installed("transformers", extra=EXTRA)
    settings = {"threads": serve.engine.threads}
    return SubprocessEngine("transformers", f"{__name__}:{TransformersEngine.__name__}", settings)
