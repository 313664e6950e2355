"""Which answers prove that an adapter is alive: those in which tuned and base model are furthest apart. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from statistics import fmean

from msgspec import Struct

from tunectl.artifacts.records import Message
from tunectl.core.errors import DataError
from tunectl.release.contract import Fixture, Probe
from tunectl.release.sides import Said


@dataclass(frozen=True, slots=True)
class Asked:
    """A rendered conversation."""

    messages: list[Message]
    text: str
    ids: list[int]

    @property
    def fixture(self) -> Fixture:
        """As the contract has it."""
        return Fixture(self.messages, self.text, self.ids)


@dataclass(frozen=True, slots=True)
class Compared:
    """What tuned and base model say to one conversation."""

    asked: Asked
    tuned: Said
    base: Said
    under_base: list[float]
    """Nats of the tuned answer's tokens under the base model."""

    @property
    def apart(self) -> float:
        """Nats a token by which the tuned model likes its answer better than the base does; 0 where both say the same."""
        if not self.tuned.ids or self.tuned.ids == self.base.ids[: len(self.tuned.ids)]:
            return 0.0
        return sum(one - other for one, other in zip(self.tuned.logprobs, self.under_base, strict=True)) / len(
            self.tuned.ids
        )


def cut(said: Said, limit: int) -> Said:
    """The first ``limit`` tokens of an answer; greedy answers begin alike whatever their limit."""
    if len(said.ids) <= limit:
        return said
    return Said(said.ids[:limit], said.logprobs[:limit], finished=False)


def chosen(found: Sequence[Compared], count: int) -> list[Compared]:
    """At most ``count``, the furthest apart first.

    Raises  DataError where tuned and base model answer everything alike: nothing could tell whether the adapter is applied.
    """
    ranked = sorted((one for one in found if one.apart > 0), key=lambda one: -one.apart)
    if not ranked:
        raise DataError(
            f"package: tuned and base model answer all {len(found)} validation inputs alike, so no probe can prove that the adapter is applied",
            hint="train longer, look at it with: tunectl chat; or ask about more inputs: package.quality.prompts",
        )
    return ranked[:count]


def probe(one: Compared, texts: tuple[str, str]) -> Probe:
    """As the contract has it; ``texts`` are the decoded answers of tuned and base model."""
    return Probe(
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


class Reference(Struct, frozen=True):
    """One line of ``reference.jsonl``: what a release answered when it was packaged."""

    prompt: list[Message]
    answer: str
    tokens: int
    """Of the answer, a stop token not counted."""
    mean_logprob: float | None
    """Nats a token, under the engine; None for an empty answer."""
    finish_reason: str
    """stop, or length."""


def reference(prompt: Sequence[Message], text: str, said: Said) -> Reference:
    """One answer of the engine."""
    nats = [one for one in said.logprobs if isfinite(one)]
    return Reference(
        list(prompt),
        text,
        len(said.ids) - said.finished,
        fmean(nats) if nats else None,
        "stop" if said.finished else "length",
    )
