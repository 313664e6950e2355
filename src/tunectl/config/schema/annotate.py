"""The annotate section: the page on which people compare answers. Of all stages only package reads it, for the Bento."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel, validate_host
from tunectl.config.schema.evaluate import Sampling

Tag = Annotated[str, Field(min_length=1, max_length=30, pattern=r"^[^,\n]+$")]


class CandidateGenerationConfig(StrictModel):
    """How answers are made for people to compare."""

    inputs: int = Field(ge=1, le=100_000)
    """How many inputs, drawn with the seed."""
    part: Literal["train", "validation"]
    """Which part of ``split`` they come from; test is for evaluate alone."""
    systems: list[Literal["model", "sft", "align"]] = Field(min_length=2, max_length=2)
    """Who writes the two answers; the same twice means two samples."""
    decoding: Sampling
    """How they are sampled."""


class QueuePolicyConfig(StrictModel):
    """Which question comes next."""

    repeat_rate: float = Field(ge=0, le=0.5)
    """Share of the turns that ask again what was asked before: first what others judged, else one's own of a while ago."""
    attention_rate: float = Field(ge=0, le=0.5)
    """Share of the turns that ask what has a known answer: a reference against the answer to another input."""
    min_gap: int = Field(ge=1, le=1000)
    """Turns before somebody meets a question of their own again."""


class Annotate(StrictModel):
    """The annotate section of ``conf/``."""

    store: str = Field(min_length=1)
    """Folder of questions and judgements, relative to the project. Commit it."""
    host: str = Field(min_length=1)
    """Address to listen on; localhost or an IP address. Other than this machine's own needs a key."""
    port: int = Field(ge=0, le=65535)
    """Port to listen on; 0 takes a free one."""
    key_env: str | None = Field(pattern=r"^[A-Z_][A-Z0-9_]*$")
    """Environment variable that holds the key which people must type. Null: none is asked for."""
    tags: list[Tag] = Field(max_length=9)
    """Reasons that can be ticked, with the keys 1 to 9."""
    prepare: CandidateGenerationConfig
    """How answers are made."""
    queue: QueuePolicyConfig
    """Which question comes next."""

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the page."""
        return self.host == "localhost" or ip_address(self.host).is_loopback

    @model_validator(mode="after")
    def _require_key_unless_loopback(self) -> Self:
        validate_host(self.host)
        if not self.loopback and self.key_env is None:
            raise ValueError(
                f"host is {self.host}, which others reach, and key_env is null; name a variable that holds a key"
            )
        return self
