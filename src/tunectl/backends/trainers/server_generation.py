"""Generate answers of a policy in training on vLLM servers: the adapter is sent as a folder, tokens come back by HTTP.

Each change of the weights gets its own folder and adapter name, because vLLM caches by the name of the adapter.
The log-probabilities for training are those of the trainer: the server's differ by its rounding.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import decoding, peft_adapter
from tunectl.backends.modeling.decoding import GenerationState
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.trainers.rollout_generation import decode_completion
from tunectl.backends.trainers.vllm_client import VllmClient
from tunectl.chat.model_spec import ModelSpec
from tunectl.config.schema.align import VllmColocate, VllmServer
from tunectl.config.schema.evaluate import Greedy, Sampling
from tunectl.core import logging_setup
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training.rl.rl_types import Completion, Prompt

_log = logging_setup.get_logger(__name__)
REQUESTS_A_SERVER = 32
"""Requests per server at the same time; vLLM batches their answers, and further ones wait there."""
PROBE_TOKENS = 256
MAX_DIFFERENCE = 0.25
"""Nats per token between server and trainer, mean over a prompt: rounding to bfloat16 gives hundredths, another model whole nats."""


class ServerGenerator:
    """A ``CompletionGenerator`` on vLLM servers that hold the base model; the adapter is sent to them after each change."""

    def __init__(
        self,
        servers: Sequence[VllmClient],
        model: Any,
        tokenizer: Any,
        base: ModelSpec,
        folder: Path,
        group: ProcessGroup,
    ) -> None:
        """``folder`` is where adapters go, at the same path for all servers; ``group`` makes the same calls on every rank."""
        self._servers, self._model, self._tokenizer, self._base, self._group = servers, model, tokenizer, base, group
        self._stops = decoding.stop_ids(model.get_base_model(), tokenizer)
        self._run = uuid.uuid4().hex[:8]
        self._folder = folder / f"adapters-{self._run}"
        self._digest, self._name, self._loads = "", "", 0

    def check_servers(self, model: Path, probe: Sequence[int], longest: int) -> None:
        """Check on the first rank that the servers hold the same base model and apply adapters as this process does.

        probe    tokens of a prompt, whose likelihoods are compared, without the adapter and with it
        longest  tokens of a prompt and its answer at most
        Raises   InfrastructureError with the server, what is wrong with it and how to start it.
        """
        if not self._group.first:
            return
        ids = list(probe[:PROBE_TOKENS])
        with self._model.disable_adapter():
            plain = self._read_logprobs(ids)
        adapted = self._read_logprobs(ids)
        start = f"vllm serve {model.absolute()} --enable-lora"
        for server in self._servers:
            served = server.read_model()
            if served.max_model_len < longest:
                raise InfrastructureError(
                    f"{server.url} takes {served.max_model_len} tokens, and a prompt with its answer may have {longest}",
                    hint=f"start it with --max-model-len {longest}, or lower align.max_new_tokens",
                )
            apart = _mean_difference(server.read_logprobs(served.name, ids), plain)
            if apart > MAX_DIFFERENCE:
                raise InfrastructureError(
                    f"{server.url} serves another model than {model}: log-probabilities of a prompt differ by {apart:.2f} nats "
                    f"a token; the limit is {MAX_DIFFERENCE}",
                    hint=f"start it with the model that align learns on: {start}",
                )
        name = self._load_weights()
        for server in self._servers:
            apart = _mean_difference(server.read_logprobs(name, ids), adapted)
            if apart > MAX_DIFFERENCE:
                raise InfrastructureError(
                    f"{server.url} applies the adapter in another way than peft: log-probabilities of a prompt differ by "
                    f"{apart:.2f} nats a token; the limit is {MAX_DIFFERENCE}",
                    hint="train sft with plain LoRA, or write answers with transformers: align.vllm=null",
                )
        _log.info("align: answers come from %s", ", ".join(server.url for server in self._servers))

    def sample_completions(
        self, prompts: Sequence[Prompt], copies: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[GenerationState]:
        """Return ``copies`` sampled answers to each prompt, in the order of ``prompts``; ``seeds`` has one seed per prompt."""
        return self._write(prompts, copies, sampling, seeds)

    def generate_greedy(self, prompts: Sequence[Prompt], limit: int) -> list[GenerationState]:
        """Return one greedy answer of at most ``limit`` tokens per prompt, in the order of ``prompts``."""
        return self._write(prompts, 1, Greedy(method="greedy", max_new_tokens=limit), [None] * len(prompts))

    def to_completion(self, line: GenerationState) -> Completion:
        """Return an answer as the reward functions receive it: decoded text, and whether it was finished."""
        return decode_completion(self._tokenizer, line)

    def close(self) -> None:
        """Unload the adapter from the servers, and delete its folder."""
        if self._group.first:
            if self._name:
                self._forget(self._name)
            shutil.rmtree(self._folder, ignore_errors=True)
        for server in self._servers:
            server.close()

    def _write(
        self, prompts: Sequence[Prompt], copies: int, how: Greedy | Sampling, seeds: Sequence[int | None]
    ) -> list[GenerationState]:
        """Return ``copies`` answers to each of ``prompts``, which are sent to the servers in turn."""
        name = self._group.gather_bytes(self._load_weights().encode() if self._group.first else b"")[0].decode()
        if not prompts:
            return []
        servers, first = self._servers, self._group.rank

        def ask(index: int) -> list[list[int]]:
            server = servers[(first + index) % len(servers)]
            return server.complete(name, prompts[index].ids, copies, how, seeds[index], self._stops)

        answers = _run_at_once(ask, len(prompts), REQUESTS_A_SERVER * len(servers))
        return [
            GenerationState(list(prompt.ids), answer, finished=answer[-1] in self._stops)
            for prompt, group in zip(prompts, answers, strict=True)
            for answer in group
        ]

    def _load_weights(self) -> str:
        """Load the current weights on all servers, where they have changed; returns the name of their adapter."""
        digest = _hash_weights(self._model)
        if digest == self._digest:
            return self._name
        self._loads += 1
        name = f"tunectl-{self._run}-{self._loads}"
        folder = (self._folder / str(self._loads)).absolute()
        peft_adapter.save_adapter(self._model, {}, folder, self._base)
        for server in self._servers:
            server.load_adapter(name, folder)
        if self._name:
            self._forget(self._name)
            shutil.rmtree(self._folder / str(self._loads - 1), ignore_errors=True)
        self._digest, self._name = digest, name
        return name

    def _forget(self, name: str) -> None:
        for server in self._servers:
            try:
                server.unload_adapter(name)
            except InfrastructureError as error:
                _log.warning("align: an adapter that is not needed any more stays on a server: %s", error.message)

    def _read_logprobs(self, ids: Sequence[int]) -> list[float]:
        """Return nats of each token after those before it, by the model of this process."""
        torch = import_optional("torch", extra="train")
        training = self._model.training
        self._model.eval()
        with torch.no_grad():
            tokens = torch.tensor([list(ids)], device=self._model.device)
            nats = self._model(input_ids=tokens).logits[0, :-1].float().log_softmax(dim=-1)
            result: list[float] = nats.gather(1, tokens[0, 1:, None])[:, 0].tolist()
        self._model.train(training)
        return result


@contextmanager
def open_generator(
    vllm: VllmColocate | VllmServer | None, model: Any, tokenizer: Any, base: ModelSpec, work: Path, group: ProcessGroup
) -> Iterator[ServerGenerator | None]:
    """Yield a generator on the vLLM servers that ``vllm`` names; None if answers are generated in this process.

    Raises  UsageError naming the variable of the key when it is not set.
    """
    if not isinstance(vllm, VllmServer):
        yield None
        return
    key = _read_key(vllm)
    servers = [VllmClient(url, api_key=key, timeout_seconds=vllm.timeout_seconds) for url in vllm.urls]
    generator = ServerGenerator(servers, model, tokenizer, base, Path(vllm.storage_path or work), group)
    try:
        yield generator
    finally:
        generator.close()


def _read_key(settings: VllmServer) -> str | None:
    if settings.api_key_env is None:
        return None
    key = os.environ.get(settings.api_key_env)
    if not key:
        raise UsageError(
            f"align.vllm.api_key_env names {settings.api_key_env}, but that variable is not set",
            hint=f"export {settings.api_key_env}=..., or start the servers without a key: align.vllm.api_key_env=null",
        )
    return key


def _run_at_once(ask: Callable[[int], list[list[int]]], count: int, most: int) -> list[list[list[int]]]:
    """Run ``ask`` for each number below ``count``, at most ``most`` at once; after an error no further one begins."""
    with ThreadPoolExecutor(min(count, most)) as pool:
        try:
            return list(pool.map(ask, range(count)))
        except InfrastructureError:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _hash_weights(model: Any) -> str:
    torch = import_optional("torch", extra="train")
    result = hashlib.sha256()
    for weights in peft_adapter.trainable_state(model).values():
        result.update(weights.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return result.hexdigest()


def _mean_difference(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return sum(abs(a - b) for a, b in zip(ours, theirs, strict=True)) / len(ours)
