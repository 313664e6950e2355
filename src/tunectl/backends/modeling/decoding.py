"""The decoding loop that evaluation and policy training share: prompts are read in batches, finished sequences leave the batch."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tunectl.backends.modeling import kv_cache
from tunectl.config.schema.evaluate import Greedy, Sampling
from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional

COMPACT_BELOW = 0.8
"""Share of unfinished rows below which finished ones are removed from the batch."""


@dataclass
class GenerationState:
    """One sequence during generation: its prompt, its answer so far (token ids), and its share of the time in seconds."""

    ids: list[int]
    answer: list[int] = field(default_factory=list)
    seconds: float = 0.0
    finished: bool = False
    nats: list[float] = field(default_factory=list)
    """Log-probability of each token of the answer at the sampling temperature, if it is recorded."""

    def is_done(self, limit: int) -> bool:
        """Return whether the answer has ended its turn or has ``limit`` tokens."""
        return self.finished or len(self.answer) >= limit


@dataclass
class BatchState:
    """State of a batch between two tokens: the key-value cache, and ``logits`` (rows, vocabulary) of the next token."""

    cache: Any
    mask: Any
    """(rows, tokens so far), 1 where a token is real."""
    position: Any
    """(rows,) position of the next token."""
    logits: Any


@dataclass(frozen=True)
class SharedPrefix:
    """Key-value cache of the ``length`` tokens with which all prompts begin, computed once."""

    length: int
    cache: Any


class Decoder:
    """Runs the decoding loop on a transformers model: prefill prompts, then append tokens."""

    def __init__(self, model: Any, stops: Sequence[int]) -> None:
        """Wrap the loaded model; ``stops`` are the tokens that end an answer."""
        self._model = model
        self._stops = tuple(stops)
        self._torch = import_optional("torch", extra="train")
        # transformers renamed the argument in 5.2x
        base = model.get_base_model() if hasattr(model, "get_base_model") else model  # PEFT's forward takes anything
        self.cache_name = "cache" if "cache" in inspect.signature(type(base).forward).parameters else "past_key_values"

    def close(self) -> None:
        """Release the model's memory."""
        self._model = None

    def tensor(self, values: Any) -> Any:
        """Return ``values`` as a tensor of int64 on the model's device."""
        return self._torch.tensor(values, dtype=self._torch.long, device=self._model.device)

    def prefill_prefix(self, ids: Sequence[int]) -> SharedPrefix:
        """Return the key-value cache of the tokens ``ids``, with which all prompts begin."""
        cache = kv_cache.new_cache(self._model.config)
        self._model(input_ids=self.tensor([list(ids)]), use_cache=True, logits_to_keep=1, **{self.cache_name: cache})
        return SharedPrefix(len(ids), cache)

    def prefill(self, prompts: Sequence[Sequence[int]], prefix: SharedPrefix | None = None) -> BatchState:
        """Run ``prompts`` (token ids) through the model, padded on the left; return the state with one row per prompt.

        Equal prompts are computed once; ``prefix`` is the cache of their common beginning.
        """
        different = list(dict.fromkeys(map(tuple, prompts)))
        skip = prefix.length if prefix else 0
        cache = kv_cache.expand(prefix.cache, len(different)) if prefix else kv_cache.new_cache(self._model.config)
        longest = max(map(len, different)) - skip
        pads = [longest - len(ids) + skip for ids in different]
        pad = self._stops[0] if self._stops else 0
        ids = self.tensor([[pad] * gap + list(row[skip:]) for gap, row in zip(pads, different, strict=True)])
        own = self.tensor([[0] * gap + [1] * (longest - gap) for gap in pads])
        mask = self._torch.cat([own.new_ones((len(different), skip)), own], dim=1)
        positions = (own.cumsum(dim=1) - 1).clamp(min=0) + skip
        logits = self._model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=self.tensor(
                [-1]
            ),  # a slice is not contiguous: torch would copy the output layer for every row
            **{self.cache_name: cache},
        ).logits[:, -1]
        state = BatchState(cache, mask, positions[:, -1] + 1, logits)
        if len(different) == len(prompts):
            return state
        index_by_prompt = {ids: number for number, ids in enumerate(different)}
        return _select_rows(state, self.tensor([index_by_prompt[tuple(ids)] for ids in prompts]))

    def decode(
        self,
        lines: Sequence[GenerationState],
        state: BatchState,
        decoding: Greedy | Sampling,
        *,
        seed: int,
        likely: bool = False,
        uniforms: Any = None,
    ) -> None:
        """Append tokens to each of ``lines`` until it ends its turn or has ``decoding``'s limit; ``likely`` stores their log-probabilities.

        uniforms  (sequences, limit) float64 from 0 to 1, the random numbers of each sequence, so that no answer depends on the others.
                  None: they are drawn together, from ``seed``.
        """
        random = self._torch.Generator(device=state.logits.device).manual_seed(seed)
        at_work = list(lines)
        limit = decoding.max_new_tokens
        columns = iter(range(limit))
        while True:
            started = time.perf_counter()
            column = None if uniforms is None else uniforms[:, next(columns), None]
            tokens, chances = self._pick(state.logits, decoding, random, column, likely=likely)
            nats = chances.log().tolist() if likely else [None] * len(at_work)
            for line, token, log in zip(at_work, tokens.tolist(), nats, strict=True):
                self.append(line, token, limit, log)
            busy = [index for index, line in enumerate(at_work) if not line.is_done(limit)]
            if not busy:
                break
            if len(busy) <= COMPACT_BELOW * len(at_work):
                keep = self.tensor(busy)
                at_work = [at_work[index] for index in busy]
                state, tokens = _select_rows(state, keep), tokens[keep]
                uniforms = None if uniforms is None else uniforms[keep]
            self._step(state, tokens)
            split_time(time.perf_counter() - started, [line for line in at_work if not line.is_done(limit)])

    def append(self, line: GenerationState, token: int, limit: int, nats: float | None = None) -> None:
        """Add a token to a sequence that is not done, with its log-probability ``nats`` if there is one."""
        if not line.is_done(limit):
            line.answer.append(token)
            line.finished = token in self._stops
            if nats is not None:
                line.nats.append(nats)

    def _step(self, state: BatchState, tokens: Any) -> None:
        """Run one token per row through the model."""
        state.mask = self._torch.cat([state.mask, state.mask.new_ones((len(tokens), 1))], dim=1)
        state.logits = self._model(
            input_ids=tokens[:, None],
            attention_mask=state.mask,
            position_ids=state.position[:, None],
            use_cache=True,
            **{self.cache_name: state.cache},
        ).logits[:, -1]
        state.position = state.position + 1

    def _pick(
        self, logits: Any, decoding: Greedy | Sampling, random: Any, uniform: Any = None, *, likely: bool = False
    ) -> tuple[Any, Any]:
        """Return the next token of each row, and its probability before top_p, both of shape (rows,); for Greedy only if ``likely``, else None."""
        if isinstance(decoding, Greedy):
            tokens = logits.argmax(dim=-1)
            return tokens, logits.float().softmax(dim=-1).gather(1, tokens[:, None])[:, 0] if likely else None
        chances = (logits.float() / decoding.temperature).softmax(dim=-1)
        if decoding.top_p == 1:  # all tokens stay, so no sorting is needed
            indices = self._sample_indices(chances, random, uniform)
            return indices[:, 0], chances.gather(1, indices)[:, 0]
        ranked, order = chances.sort(dim=-1, descending=True)
        # a token stays while those likelier than it hold less than top_p together, so at least one stays
        ranked = ranked.masked_fill(ranked.cumsum(dim=-1) - ranked >= decoding.top_p, 0.0)
        indices = order.gather(1, self._sample_indices(ranked, random, uniform))
        return indices[:, 0], chances.gather(1, indices)[:, 0]

    def _sample_indices(self, weights: Any, random: Any, uniform: Any = None) -> Any:
        """Return one index per row, sampled with ``weights`` (rows, vocabulary) by ``uniform`` (rows, 1), or by ``random`` without; (rows, 1).

        By the inverse of the distribution function: one random number per row, where ``torch.multinomial`` draws one per place
        (32 rows of 49,152 places on 2 cores: 0.8 against 31 ms). Raises  UsageError where a weight is no number.
        """
        sums = weights.cumsum(dim=-1, dtype=self._torch.float64)
        totals = sums[:, -1:]
        if not bool((totals.isfinite() & (totals > 0)).all()):
            raise UsageError(
                "the model's probabilities are NaN or infinite, so no token can be sampled",
                hint="compute with higher precision: hardware.dtype=float32; or lower learning_rate of the section that trained it (sft, align)",
            )
        if uniform is None:
            uniform = self._torch.rand(
                (len(weights), 1), dtype=self._torch.float64, device=weights.device, generator=random
            )
        # a product that rounds up to the sum itself would be beyond the last index
        return self._torch.searchsorted(sums, uniform * totals, right=True).clamp_(max=weights.shape[1] - 1)


def stop_ids(model: Any, tokenizer: Any) -> tuple[int, ...]:
    """Return the ids of the tokens that end an answer: the tokenizer's and those of the generation settings."""
    eos_ids = getattr(model.generation_config, "eos_token_id", None)
    several = eos_ids if isinstance(eos_ids, list) else [eos_ids]
    return tuple(dict.fromkeys(token for token in [tokenizer.eos_token_id, *several] if token is not None))


def text_of(tokenizer: Any, line: GenerationState) -> str:
    """Return the text of the sequence's answer, without the token that ended it."""
    tokens = line.answer[:-1] if line.finished else line.answer
    return str(tokenizer.decode(tokens, skip_special_tokens=True)).strip()


def split_time(seconds: float, lines: Sequence[GenerationState]) -> None:
    """Add ``seconds``, divided equally, to the time of each sequence in ``lines``."""
    for line in lines:
        line.seconds += seconds / len(lines)


@contextmanager
def split_elapsed_time(lines: Sequence[GenerationState]) -> Iterator[None]:
    """Add the duration of the block, divided equally, to the time of each sequence in ``lines``."""
    started = time.perf_counter()
    yield
    split_time(time.perf_counter() - started, lines)


def _select_rows(state: BatchState, keep: Any) -> BatchState:
    """Return the state of the rows ``keep``, which may contain a row more than once."""
    state.cache.batch_select_indices(keep)
    return BatchState(state.cache, state.mask[keep], state.position[keep], state.logits[keep])
