"""Generation and scoring with transformers, in batches sorted by length (evaluation's wrapper of torch).

Greedy and sampled answers come from our own loop: prompts of one batch share what they have in common (one system text
and its examples are computed once), finished rows leave the batch, and the likelihood of reference answers is computed from
the same cache that the answer starts from. Beam search is left to ``model.generate``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import kv_cache
from tunectl.backends.modeling.decoding import (
    BatchState,
    Decoder,
    GenerationState,
    SharedPrefix,
    split_elapsed_time,
    stop_ids,
    text_of,
)
from tunectl.chat.literal_tokens import encode_rendered
from tunectl.config.schema.evaluate import BeamSearch, Greedy, Sampling
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core import progress
from tunectl.core.errors import InfrastructureError
from tunectl.core.optional import import_optional
from tunectl.evaluation.protocols import GeneratedText, GenerationPrompt, LogProb
from tunectl.training import resource_check

MIN_SHARED_TOKENS = 24
"""Number of common tokens from which a shared prefix is worth its copy into every row."""
BEAM_ROWS = 2
"""Beams in one batch, as a multiple of the batch size: a token takes 64 rows only two thirds of the time of 16."""
SCORED_TOKENS = 2048
"""Tokens per pass through the output layer while scoring: 2,048 x 49,152 logits are 200 MB in bfloat16."""


def model_loader(profile: HardwareProfile) -> Any:
    """Return a function (model folder, adapter folder) -> ``HfGenerator`` on the hardware of ``profile``."""

    def load(folder: Path, adapter: Path | None) -> HfGenerator:
        from tunectl.backends.modeling import model_loader as modeling_model_loader
        from tunectl.backends.modeling import short_attention

        loaded = modeling_model_loader.load(folder, adapter=adapter, profile=profile)
        model = merge_adapter(loaded.model)
        if profile.device == "cpu":
            short_attention.patch_attention(model)
        return HfGenerator(model, loaded.tokenizer, batch=profile.generate_batch)

    return load


def merge_adapter(model: Any) -> Any:
    """Return the model with its LoRA adapter merged into its weights; a model without an adapter is returned unchanged."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


@dataclass
class _RequestState(GenerationState):
    """One request and its answer so far."""

    index: int = 0
    references: list[LogProb] = field(default_factory=list)


class HfGenerator:
    """Answers the prompts of evaluate with one transformers model in this process (an ``evaluation.protocols.Generator``)."""

    def __init__(self, model: Any, tokenizer: Any, *, batch: int) -> None:
        """``batch`` is the number of answers generated together; beam search has ``BEAM_ROWS`` times as many rows."""
        self._model = model.eval()
        self._tokenizer = tokenizer
        self._batch = batch
        self._torch = import_optional("torch", extra="train")
        self._stops = stop_ids(model, tokenizer)
        self._decoder = Decoder(self._model, self._stops)

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and answer together, from the model's configuration; None if it has no limit."""
        limit = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        return int(limit) if limit else None

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt; special tokens are in the text already."""
        return [len(ids) for ids in self._encode(prompts)]

    def close(self) -> None:
        """Release the model's memory."""
        self._model = None
        self._decoder.close()

    def answer(
        self, requests: Sequence[GenerationPrompt], decoding: Greedy | BeamSearch | Sampling, *, seed: int, label: str
    ) -> list[GeneratedText]:
        """Return one reply per request, in their order; rows of similar length share a batch, and the longest are generated first."""
        replies = self.answer_share(requests, decoding, seed=seed, label=label)
        return [replies[index] for index in range(len(requests))]

    def answer_share(
        self,
        requests: Sequence[GenerationPrompt],
        decoding: Greedy | BeamSearch | Sampling,
        *,
        seed: int,
        label: str,
        rank: int = 0,
        world_size: int = 1,
    ) -> dict[int, GeneratedText]:
        """Return the replies of process ``rank`` among ``world_size``, by index of the request.

        Whole batches are distributed, so that all processes together give the replies that a single one gives.
        """
        if not requests:
            return {}
        rows = [
            _RequestState(ids, index=index)
            for index, ids in enumerate(self._encode([item.prompt for item in requests]))
        ]
        order = sorted(rows, key=lambda row: (-len(row.ids), row.index))
        width = max(1, BEAM_ROWS * self._batch // decoding.beams) if isinstance(decoding, BeamSearch) else self._batch
        starts = range(0, len(order), width)[rank::world_size]
        own = [row for start in starts for row in order[start : start + width]]
        with self._torch.inference_mode(), self._enough_memory(width), progress.bar(label, len(own)) as bar:
            prefix = self._shared_prefix(order) if not isinstance(decoding, BeamSearch) else None
            for start in starts:
                batch = order[start : start + width]
                self._run_batch(batch, requests, decoding, prefix, seed + start)
                bar.advance(len(batch), **_speed(order[: start + width]))
        return {row.index: self._reply(row) for row in own}

    @contextmanager
    def _enough_memory(self, rows: int) -> Iterator[None]:
        """Raise an error that says what to lower where the block runs out of memory."""
        try:
            yield
        except (RuntimeError, MemoryError) as error:
            if resource_check.is_out_of_memory(error):
                raise InfrastructureError(
                    f"out of memory while {rows} answers were generated together",
                    hint=f"lower hardware.generate_batch (now {self._batch}), evaluate.prompts.shots or evaluate.decoding.max_new_tokens",
                ) from error
            raise

    def _run_batch(
        self,
        batch: list[_RequestState],
        requests: Sequence[GenerationPrompt],
        decoding: Greedy | BeamSearch | Sampling,
        prefix: SharedPrefix | None,
        seed: int,
    ) -> None:
        """Score and answer the rows of one batch."""
        references = [self._encode(requests[row.index].references) for row in batch]
        if isinstance(decoding, BeamSearch) and not any(references):
            self._beams(batch, decoding)
            return
        with split_elapsed_time(batch):
            state = self._decoder.prefill([row.ids for row in batch], prefix)
        for turn in range(max(map(len, references))):
            self._score(batch, state, [reference[turn] if turn < len(reference) else [] for reference in references])
        if isinstance(decoding, BeamSearch):
            self._beams(batch, decoding)
        else:
            self._decoder.decode(batch, state, decoding, seed=seed)

    def _encode(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return encode_rendered(self._tokenizer.backend_tokenizer, texts, ids)

    def _shared_prefix(self, rows: list[_RequestState]) -> SharedPrefix | None:
        """Run the common beginning of all prompts through the model; every row keeps at least one token of its own."""
        first = rows[0].ids
        length = min(min(_count_common_tokens(first, row.ids), len(row.ids) - 1) for row in rows)
        if len(rows) < 2 or length < MIN_SHARED_TOKENS:
            return None
        with split_elapsed_time(rows):
            return self._decoder.prefill_prefix(first[:length])

    def _score(self, batch: list[_RequestState], state: BatchState, answers: list[list[int]]) -> None:
        """Log-probability of one given answer per row (none where it is empty), continuing the cache of the prompts."""
        longest = max(map(len, answers))
        targets = self._decoder.tensor([answer + [0] * (longest - len(answer)) for answer in answers])
        real = self._decoder.tensor([[1] * len(answer) + [0] * (longest - len(answer)) for answer in answers])
        total = self._log_probs(state.logits[:, None], targets[:, :1], real[:, :1])
        fork = BatchState(kv_cache.clone(state.cache), state.mask, state.position, None)
        stride = max(1, SCORED_TOKENS // len(batch))
        for start in range(0, longest - 1, stride):
            stop = min(start + stride, longest - 1)
            fork.mask = self._torch.cat([fork.mask, real[:, start:stop]], dim=1)
            logits = self._model(
                input_ids=targets[:, start:stop],
                attention_mask=fork.mask,
                position_ids=fork.position[:, None] + self._torch.arange(start, stop, device=targets.device),
                use_cache=True,
                **{self._decoder.cache_name: fork.cache},
            ).logits
            total = total + self._log_probs(logits, targets[:, start + 1 : stop + 1], real[:, start + 1 : stop + 1])
        for row, answer, nats in zip(batch, answers, total.tolist(), strict=True):
            if answer:
                row.references.append(LogProb(nats, len(answer)))

    def _log_probs(self, logits: Any, targets: Any, real: Any) -> Any:
        """Sum over time of the log-probability of ``targets`` (rows, time) where ``real`` is 1; shape (rows,)."""
        sums = []
        for row, ids, is_real in zip(logits, targets, real, strict=True):  # a row at a time: float32 logits are large
            log_probs = row.float().log_softmax(dim=-1).gather(-1, ids[:, None])[:, 0]
            sums.append((log_probs * is_real).sum(dtype=self._torch.float64))
        return self._torch.stack(sums)

    def _beams(self, batch: list[_RequestState], settings: BeamSearch) -> None:
        """Beam search of transformers over one batch."""
        longest = max(len(row.ids) for row in batch)
        pad = self._stops[0] if self._stops else 0
        ids = self._decoder.tensor([[pad] * (longest - len(row.ids)) + row.ids for row in batch])
        mask = self._decoder.tensor([[0] * (longest - len(row.ids)) + [1] * len(row.ids) for row in batch])
        with split_elapsed_time(batch):
            sequences = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                num_beams=settings.beams,
                do_sample=False,
                length_penalty=settings.length_penalty,
                max_new_tokens=settings.max_new_tokens,
                eos_token_id=list(self._stops) or None,
                pad_token_id=pad,
            )[:, longest:].tolist()
        for row, answer in zip(batch, sequences, strict=True):
            for token in answer:
                self._decoder.append(row, token, settings.max_new_tokens)

    def _reply(self, row: _RequestState) -> GeneratedText:
        return GeneratedText(
            text_of(self._tokenizer, row),
            len(row.ids),
            len(row.answer),
            row.seconds,
            row.finished,
            tuple(row.references),
        )


def _count_common_tokens(first: Sequence[int], other: Sequence[int]) -> int:
    """Return how many tokens two sequences begin with in common."""
    for index, (left, right) in enumerate(zip(first, other, strict=False)):
        if left != right:
            return index
    return min(len(first), len(other))


def _speed(rows: Sequence[_RequestState]) -> dict[str, str]:
    seconds = sum(row.seconds for row in rows)
    return {"tokens/s": f"{sum(len(row.answer) for row in rows) / seconds:.0f}"} if seconds else {}
