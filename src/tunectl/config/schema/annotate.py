"""The annotate section: the page on which people compare answers. Of all stages only package reads it, for the Bento."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel, is_loopback, validate_host
from tunectl.config.schema.evaluate import Sampling

Tag = Annotated[str, Field(min_length=1, max_length=30, pattern=r"^[^,\n]+$")]


class CandidateGenerationConfig(StrictModel):
    """Settings of ``tunectl annotate prepare``: which inputs and models produce the answers that people compare."""

    inputs: int = Field(ge=1, le=100_000)
    """Number of inputs, drawn with the seed; more give more pairs and more work for people."""
    part: Literal["train", "validation"]
    """Which part of ``split`` they come from; test is for evaluate alone."""
    systems: list[Literal["model", "sft", "align"]] = Field(min_length=2, max_length=2)
    """Models that write the two answers; the same twice: two samples."""
    decoding: Sampling
    """Sampling of the answers; a higher temperature makes the two answers differ more."""


class QueuePolicyConfig(StrictModel):
    """Settings of the order of annotation tasks: repeats and attention checks."""

    repeat_rate: float = Field(ge=0, le=0.5)
    """Share of turns that repeat a judged question, to measure agreement: one of others first, else an old one of their own."""
    attention_rate: float = Field(ge=0, le=0.5)
    """Share of turns that are attention checks: a reference against the answer to another input."""
    min_gap: int = Field(ge=1, le=1000)
    """Turns before a person sees a question of their own again."""


class Annotate(StrictModel):
    """The section ``annotate``: the page on which people compare answers."""

    store: str = Field(min_length=1)
    """Folder of questions and judgments, relative to the project. Commit it."""
    host: str = Field(min_length=1)
    """Address to listen on; localhost or an IP address. One that other machines reach needs keys of scope annotate."""
    port: int = Field(ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    tags: list[Tag] = Field(max_length=9)
    """Reasons that people can tick, with the keys 1 to 9."""
    prepare: CandidateGenerationConfig
    """How the answers to compare are generated."""
    queue: QueuePolicyConfig
    """Order of the questions."""

    @property
    def loopback(self) -> bool:
        """Whether ``host`` is reachable from this machine only."""
        return is_loopback(self.host)

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        validate_host(self.host)
        return self
