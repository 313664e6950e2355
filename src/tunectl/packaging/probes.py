"""Select the answers that prove that an adapter is applied: those in which tuned and base model differ most. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from msgspec import Struct

from tunectl.artifacts.records import Message
from tunectl.packaging.protocols import GreedyOutput
from tunectl.packaging.serving_contract import ParityProbe, RenderFixture


@dataclass(frozen=True, slots=True)
class RenderedConversation:
    """A conversation with its text and token ids by the chat template."""

    messages: list[Message]
    text: str
    ids: list[int]

    @property
    def fixture(self) -> RenderFixture:
        """The conversation as the serving contract stores it."""
        return RenderFixture(self.messages, self.text, self.ids)


@dataclass(frozen=True, slots=True)
class BaseTunedComparison:
    """Greedy answers of tuned and base model to one conversation, from which probes are selected."""

    conversation: RenderedConversation
    tuned: GreedyOutput
    base: GreedyOutput
    under_base: list[float]
    """Nats of the tuned answer's tokens under the base model."""

    @property
    def differs(self) -> bool:
        """Whether the two answers differ."""
        return bool(self.tuned.ids) and self.tuned.ids != self.base.ids[: len(self.tuned.ids)]

    @property
    def mean_logprob_gap(self) -> float:
        """Nats by which the two models differ on the tuned model's tokens, mean of absolute differences; 0 for an empty answer."""
        pairs = zip(self.tuned.logprobs, self.under_base, strict=True)
        return fmean([abs(item - other) for item, other in pairs] or [0.0])


def truncate(output: GreedyOutput, limit: int) -> GreedyOutput:
    """Return the first ``limit`` tokens of an answer; greedy answers have the same beginning whatever their limit."""
    if len(output.ids) <= limit:
        return output
    return GreedyOutput(output.ids[:limit], output.logprobs[:limit], finished=False)


def select_probes(comparisons: Sequence[BaseTunedComparison], count: int, *, least: float) -> list[BaseTunedComparison]:
    """Return at most ``count`` comparisons: those with different answers first, sorted by the difference of the models.

    Where both answers are equal, log-probabilities that differ by at least twice ``least`` nats still distinguish the models;
    smaller differences prove nothing and are left out, so there may be none.
    """
    telling = [item for item in comparisons if item.differs or item.mean_logprob_gap >= 2 * least]
    return sorted(telling, key=lambda item: (not item.differs, -item.mean_logprob_gap))[:count]


def probe(comparison: BaseTunedComparison, texts: tuple[str, str]) -> ParityProbe:
    """Return one comparison as the record that the contract file stores.

    The record has the prompt, and for both models the answer's token ids, log-probabilities (nats) and text; ``texts`` are the two
    decoded answers, the tuned model's first.
    """
    return ParityProbe(
        messages=comparison.conversation.messages,
        token_ids=comparison.conversation.ids,
        answer_ids=comparison.tuned.ids,
        text=texts[0],
        logprobs=comparison.tuned.logprobs,
        base_ids=comparison.base.ids,
        base_text=texts[1],
        base_logprobs=comparison.base.logprobs,
        answer_under_base=comparison.under_base,
    )


class RecordedResponse(Struct, frozen=True):
    """One line of ``reference.jsonl``: an answer of the release from when it was packaged, for the drift monitor."""

    prompt: list[Message]
    answer: str
    tokens: int
    """Number of tokens of the answer, without the stop token."""
    mean_logprob: float | None
    """Nats per token, under the engine; None for an empty answer."""
    finish_reason: str
    """stop, or length."""


def reference(prompt: Sequence[Message], text: str, output: GreedyOutput) -> RecordedResponse:
    """Return the line of ``reference.jsonl`` for an engine's answer ``text`` to ``prompt``."""
    nats = [logprob for logprob in output.logprobs if isfinite(logprob)]
    return RecordedResponse(
        list(prompt),
        text,
        len(output.ids) - output.finished,
        fmean(nats) if nats else None,
        "stop" if output.finished else "length",
    )
