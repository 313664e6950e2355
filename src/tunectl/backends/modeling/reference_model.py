"""The trained model in transformers, with which a release is compared: greedy answers and log-probabilities of given tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunectl.backends.modeling import generator, model_loader
from tunectl.backends.modeling.decoding import Decoder, GenerationState
from tunectl.config.schema.evaluate import Greedy
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.optional import import_optional
from tunectl.packaging.protocols import GreedyOutput


class ReferenceModel:
    """The trained model in transformers (a ``packaging.protocols.TrainedModel``), with which a release's engine is compared."""

    def __init__(self, base: Path, adapter: Path | None, stops: Sequence[int], profile: HardwareProfile) -> None:
        """Load ``base``, add ``adapter`` into its weights where there is one.

        Raises  ArtifactError where a file is absent or does not fit.
        """
        self._torch = import_optional("torch", extra="train")
        loaded = model_loader.load(base, adapter=adapter, profile=profile)
        self._model = generator.merge_adapter(loaded.model).eval()
        self._decoder = Decoder(self._model, tuple(stops))
        self._batch = profile.generate_batch

    def generate(self, prompts: Sequence[Sequence[int]], limit: int) -> list[GreedyOutput]:
        """Return one greedy answer per prompt (token ids), of at most ``limit`` tokens; prompts of similar length share a batch."""
        lines = [GenerationState(list(ids)) for ids in prompts]
        with self._torch.inference_mode():
            for batch in self._batches([len(ids) for ids in prompts]):
                rows = [lines[index] for index in batch]
                state = self._decoder.prefill([row.ids for row in rows])
                greedy = Greedy(method="greedy", max_new_tokens=limit)
                self._decoder.decode(rows, state, greedy, seed=0, likely=True)
        return [GreedyOutput(line.answer, line.nats, line.finished) for line in lines]

    def likelihood(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], of: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return per answer the log-probability (nats) of each token of its list in ``of``, given the prompt and the answer up to that position."""
        result: list[list[float]] = [[] for _ in prompts]
        with self._torch.inference_mode():
            for batch in self._batches([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)]):
                rows = [[*prompts[index], *answers[index]] for index in batch]
                # the positions before this one predict tokens of prompts, never of answers
                first = min(len(prompts[index]) for index in batch) - 1
                logits = self._logits(rows, first)
                for row, index in enumerate(batch):
                    start, count = len(prompts[index]) - 1 - first, len(answers[index])
                    nats = logits[row, start : start + count].float().log_softmax(dim=-1)
                    targets = self._decoder.tensor(list(of[index]))[:, None]
                    result[index] = nats.gather(-1, targets)[:, 0].tolist()
        return result

    def close(self) -> None:
        """Release the model's memory."""
        self._model = None
        self._decoder.close()

    def _batches(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return indices in batches of about equal length, longest first."""
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        return [order[start : start + self._batch] for start in range(0, len(order), self._batch)]

    def _logits(self, rows: Sequence[Sequence[int]], first: int) -> Any:
        """Return logits from position ``first`` on, of shape (rows, time, vocabulary)."""
        longest = max(map(len, rows))
        ids = self._decoder.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
        mask = self._decoder.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return self._model(input_ids=ids, attention_mask=mask, logits_to_keep=longest - first).logits
