"""Generate answers of a policy in training: the decoding loop of evaluation, with each prompt read once for all its answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from tunectl.backends.modeling import decoding
from tunectl.backends.modeling.decoding import Decoder, GenerationState
from tunectl.backends.modeling.merged_weights import MergedWeights
from tunectl.config.schema.evaluate import Greedy, Sampling
from tunectl.core.optional import import_optional
from tunectl.training.rl.rl_types import Completion, Prompt

TOGETHER = 2
"""Answers generated together, as a multiple of hardware.generate_batch: those of one prompt share its cache, as beams do."""


class CompletionGenerator(Protocol):
    """Generates answers with the current weights of a policy: in this process, or on vLLM servers."""

    def sample_completions(
        self, prompts: Sequence[Prompt], copies: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[GenerationState]:
        """Return ``copies`` sampled answers to each prompt, in the order of ``prompts``; ``seeds`` has one seed per prompt."""

    def generate_greedy(self, prompts: Sequence[Prompt], limit: int) -> list[GenerationState]:
        """Return one greedy answer of at most ``limit`` tokens per prompt, in the order of ``prompts``."""

    def to_completion(self, line: GenerationState) -> Completion:
        """Return an answer as the reward functions receive it: decoded text, and whether it was finished."""


def decode_completion(tokenizer: Any, line: GenerationState) -> Completion:
    """Return an answer as the reward functions receive it: decoded text, and whether it was finished."""
    return Completion(tuple(line.answer), decoding.text_of(tokenizer, line), line.finished)


class RolloutGenerator:
    """A ``CompletionGenerator`` that runs the peft model in training itself."""

    def __init__(self, model: Any, tokenizer: Any, *, batch: int) -> None:
        """``batch`` is hardware.generate_batch."""
        self._torch = import_optional("torch", extra="train")
        self._model = model
        self._tokenizer = tokenizer
        self._batch = batch
        base = model.get_base_model()
        self._decoder = Decoder(base, decoding.stop_ids(base, tokenizer))
        self._merged = MergedWeights(model)

    def sample_completions(
        self, prompts: Sequence[Prompt], copies: int, sampling: Sampling, seeds: Sequence[int]
    ) -> list[GenerationState]:
        """Return ``copies`` sampled answers to each prompt, in the order of ``prompts``, with log-probabilities of their tokens.

        ``seeds`` has one seed per prompt, so that its answers do not depend on the other prompts.
        """
        lines = [[GenerationState(list(prompt.ids)) for _ in range(copies)] for prompt in prompts]
        uniforms = [self._draw_uniforms(seed, copies, sampling.max_new_tokens) for seed in seeds]
        order = sorted(range(len(lines)), key=lambda index: (-len(prompts[index].ids), index))
        width = max(1, TOGETHER * self._batch // copies)
        with self._merge_for_generation():
            for start in range(0, len(order), width):
                group = order[start : start + width]
                batch = [line for index in group for line in lines[index]]
                state = self._decoder.prefill([line.ids for line in batch])
                numbers = self._torch.cat([uniforms[index] for index in group]).to(self._model.device)
                self._decoder.decode(batch, state, sampling, seed=0, likely=True, uniforms=numbers)
        return [line for group in lines for line in group]

    def _draw_uniforms(self, seed: int, copies: int, limit: int) -> Any:
        """Return the random numbers of the answers to one prompt, (copies, limit): drawn on the CPU, so that all devices use the same."""
        random = self._torch.Generator().manual_seed(seed)
        return self._torch.rand((copies, limit), dtype=self._torch.float64, generator=random)

    def generate_greedy(self, prompts: Sequence[Prompt], limit: int) -> list[GenerationState]:
        """Return one greedy answer of at most ``limit`` tokens per prompt, in the order of ``prompts``."""
        lines = [GenerationState(list(prompt.ids)) for prompt in prompts]
        order = sorted(lines, key=lambda line: -len(line.ids))
        with self._merge_for_generation():
            for start in range(0, len(order), self._batch):
                batch = order[start : start + self._batch]
                state = self._decoder.prefill([line.ids for line in batch])
                self._decoder.decode(batch, state, Greedy(method="greedy", max_new_tokens=limit), seed=0)
        return lines

    def to_completion(self, line: GenerationState) -> Completion:
        """Return an answer as the reward functions receive it: decoded text, and whether it was finished."""
        return decode_completion(self._tokenizer, line)

    @contextmanager
    def _merge_for_generation(self) -> Iterator[None]:
        """Generate without gradients and dropout, with the adapter merged into the weights."""
        training = self._model.training
        self._model.eval()
        try:
            with self._torch.inference_mode(), self._merged.swap_in():
                yield
        finally:
            self._model.train(training)
