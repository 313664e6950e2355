"""Which answers prove that an adapter is alive: those in which tuned and base model are furthest apart. Pure."""

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
    """A rendered conversation."""

    messages: list[Message]
    text: str
    ids: list[int]

    @property
    def fixture(self) -> RenderFixture:
        """As the contract has it."""
        return RenderFixture(self.messages, self.text, self.ids)


@dataclass(frozen=True, slots=True)
class BaseTunedComparison:
    """What tuned and base model say to one conversation."""

    asked: RenderedConversation
    tuned: GreedyOutput
    base: GreedyOutput
    under_base: list[float]
    """Nats of the tuned answer's tokens under the base model."""

    @property
    def differs(self) -> bool:
        """Whether the two say different things."""
        return bool(self.tuned.ids) and self.tuned.ids != self.base.ids[: len(self.tuned.ids)]

    @property
    def apart(self) -> float:
        """Nats by which the two differ on the tuned model's tokens, mean of absolute differences; 0 for an empty answer."""
        pairs = zip(self.tuned.logprobs, self.under_base, strict=True)
        return fmean([abs(one - other) for one, other in pairs] or [0.0])


def truncate(said: GreedyOutput, limit: int) -> GreedyOutput:
    """Return the first ``limit`` tokens of an answer; greedy answers begin alike whatever their limit."""
    if len(said.ids) <= limit:
        return said
    return GreedyOutput(said.ids[:limit], said.logprobs[:limit], finished=False)


def select_probes(found: Sequence[BaseTunedComparison], count: int, *, least: float) -> list[BaseTunedComparison]:
    """Return at most ``count``: those that are answered differently first, the furthest apart first among them.

    Where both say the same, likelihoods that are at least twice ``least`` nats apart still tell one from the other; what is
    closer proves nothing and is left out, so there may be none.
    """
    telling = [one for one in found if one.differs or one.apart >= 2 * least]
    return sorted(telling, key=lambda one: (not one.differs, -one.apart))[:count]


def probe(one: BaseTunedComparison, texts: tuple[str, str]) -> ParityProbe:
    """Build the probe of the contract; ``texts`` are the decoded answers of tuned and base model."""
    return ParityProbe(
        messages=one.asked.messages,
        token_ids=one.asked.ids,
        answer_ids=one.tuned.ids,
        text=texts[0],
        logprobs=one.tuned.logprobs,
        base_ids=one.base.ids,
        base_text=texts[1],
        base_logprobs=one.base.logprobs,
        answer_under_base=one.under_base,
    )


class RecordedResponse(Struct, frozen=True):
    """One line of ``reference.jsonl``: what a release answered when it was packaged."""

    prompt: list[Message]
    answer: str
    tokens: int
    """Of the answer, a stop token not counted."""
    mean_logprob: float | None
    """Nats a token, under the engine; None for an empty answer."""
    finish_reason: str
    """stop, or length."""


def reference(prompt: Sequence[Message], text: str, said: GreedyOutput) -> RecordedResponse:
    """Return one answer of the engine."""
    nats = [one for one in said.logprobs if isfinite(one)]
    return RecordedResponse(
        list(prompt),
        text,
        len(said.ids) - said.finished,
        fmean(nats) if nats else None,
        "stop" if said.finished else "length",
    )
