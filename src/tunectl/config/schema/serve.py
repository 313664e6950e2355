"""The serve section: the server. Of all stages only package reads it, for the Bento."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.annotate import Annotate
from tunectl.config.schema.base import StrictModel, validate_host
from tunectl.config.schema.inference_log import InferenceLogConfig

Alias = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w./:-]+$")]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]


class ServeEngine(StrictModel):
    """How the engine works."""

    threads: int = Field(ge=0, le=1024)
    """Threads of the CPU; 0 takes all."""
    kv_cache_tokens: int = Field(ge=1024)
    """Tokens whose keys and values are kept in memory; shared beginnings of prompts are found again there."""
    max_num_batched_tokens: int = Field(ge=16)
    """Most tokens of one step, so that a long prompt does not hold up the answers beside it."""
    precision: Literal["f32", "bf16"]
    """In which OpenVINO computes on CPUs that know both: f32 writes faster to few clients, bf16 reads long prompts faster."""


class ServeLimits(StrictModel):
    """What the server takes on."""

    max_concurrency: int = Field(ge=1, le=1024)
    """Answers that are written at once."""
    max_queue: int = Field(ge=0, le=100_000)
    """Answers that wait; one more is refused with 429."""
    max_tokens_in_flight: int = Field(ge=256)
    """Tokens that all running and waiting requests may take together, prompts and answers."""
    max_body_bytes: int = Field(ge=1000, le=100_000_000)
    """Largest body of a request."""
    max_json_depth: int = Field(ge=8, le=500)
    """Deepest nesting of its JSON."""
    request_timeout_seconds: float = Field(gt=0, le=86_400)
    """Longest time for a request; then it is cancelled."""
    body_timeout_seconds: float = Field(gt=0, le=3600)
    """Longest time for its body to arrive."""


class VariantConfig(StrictModel):
    """What is loaded beside the champion."""

    base: bool
    """Also answer as the base model, under the name base; needs a release whose adapter is kept apart."""
    standby_seconds: float = Field(ge=0)
    """How long the release before stays in memory after a swap, so that going back is immediate."""


class ShutdownConfig(StrictModel):
    """How the server stops."""

    pre_stop_seconds: float = Field(ge=0, le=600)
    """From readiness false to the closed door, for load balancers to notice."""
    grace_period_seconds: int = Field(ge=1, le=3600)
    """Longest time for open answers to finish; give the container a longer grace period."""


class Serve(StrictModel):
    """The serve section of ``conf/``."""

    host: str = Field(min_length=1)
    """Address to listen on; localhost or an IP address."""
    port: int = Field(ge=1, le=65535)
    """Port to listen on."""
    registry: str = Field(min_length=1)
    """The release store, a folder or an address (s3://bucket/releases); TUNECTL_STORE in the environment comes first."""
    poll_seconds: float = Field(ge=0.1, le=3600)
    """Between looks at the release store."""
    load_timeout_seconds: float = Field(gt=0, le=86_400)
    """Longest time for a release to be loaded and proved; then it is given up, and tried again later."""
    keys_file: str = Field(min_length=1)
    """File of the hashes of keys, made by `tunectl serve keys`; TUNECTL_KEYS in the environment comes first."""
    served_model_names: list[Alias]
    """Other names for the model, beside the project's, that leave the choice of the arm to the server."""
    cors: list[Origin]
    """Web origins whose pages may call the server; none by default."""
    engine: ServeEngine
    """How the engine works."""
    limits: ServeLimits
    """What the server takes on."""
    variants: VariantConfig
    """What is loaded beside the champion."""
    shutdown: ShutdownConfig
    """How the server stops."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        validate_host(self.host)
        return self


class ServeSettings(StrictModel):
    """What the server sees of the configuration."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """The usual name of the model."""
    serve: Serve
    """Its section."""
    inference_log: InferenceLogConfig
    """Where exchanges and feedback are kept."""
    annotate: Annotate
    """Of the arena page: its reasons to tick, and where judgements are kept; TUNECTL_JUDGEMENTS in the environment comes first."""
