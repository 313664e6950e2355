"""The serve section: the server. Only the stage package reads it, for the Bento."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.annotate import Annotate
from tunectl.config.schema.base import StrictModel, validate_host
from tunectl.config.schema.inference_log import InferenceLogConfig

Alias = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[\w./:-]+$")]
Origin = Annotated[str, Field(pattern=r"^(\*|https?://[^/\s]+)$")]


class ServeEngine(StrictModel):
    """Threads, memory and precision of the inference engine."""

    threads: int = Field(ge=0, le=1024)
    """CPU threads; 0: all."""
    kv_cache_tokens: int = Field(ge=1024)
    """Tokens in the KV cache; more allow more concurrent requests and prefix reuse, and take more memory."""
    max_num_batched_tokens: int = Field(ge=16)
    """Tokens in one step at most; lower keeps long prompts from delaying the answers beside them."""
    prefix_caching: bool
    """Whether prompts with equal beginnings share computation. With it, any key's holder can infer from the time to the first token whether a prompt was asked before."""
    precision: Literal["f32", "bf16"]
    """Type that OpenVINO computes in, on CPUs that support both: f32 generates faster for few clients, bf16 reads long prompts faster."""
    tensor_parallel_size: int = Field(ge=1, le=64)
    """Cards over which vLLM divides the model; above 1 for models that are larger than a card. Other engines refuse it."""


class ServeLimits(StrictModel):
    """Limits beyond which requests wait or are refused."""

    max_concurrency: int = Field(ge=1, le=1024)
    """Answers generated at once; more give more answers per second in all, each of them slower."""
    max_queue: int = Field(ge=0, le=100_000)
    """Requests that wait; more are refused with 429. Fewer: refused sooner, after shorter waits."""
    max_tokens_in_flight: int = Field(ge=256)
    """Tokens of all running and waiting requests together, prompts and answers, as estimated; more are refused with 429."""
    max_body_bytes: int = Field(ge=1000, le=100_000_000)
    """Bytes in one request at most."""
    max_json_depth: int = Field(ge=8, le=500)
    """Deepest nesting of the request's JSON."""
    request_timeout_seconds: float = Field(gt=0, le=86_400)
    """Seconds before a request is canceled; raise it for long answers."""
    body_timeout_seconds: float = Field(gt=0, le=3600)
    """Seconds for the request's body to arrive."""


class KeyLimitsConfig(StrictModel):
    """Limits of a key that has none itself (`tunectl serve keys add`); keys of scope admin have none."""

    per_minute: int | None = Field(ge=1)
    """Requests per minute, in bursts of up to that many. Null: no limit."""
    max_concurrency: int | None = Field(ge=1)
    """Requests at once; fewer than limits.max_concurrency and limits.max_queue together, or one key holds every place. Null: no limit."""
    tokens_per_minute: int | None = Field(ge=1)
    """Tokens of prompts and answers per minute, as estimated when a request arrives. Null: no limit."""


class VariantConfig(StrictModel):
    """Which models are loaded beside the champion."""

    base: bool
    """Also serve the base model, under the name base; needs a release with layout adapter."""
    standby_seconds: float = Field(ge=0)
    """Seconds that the last champion stays loaded after a swap, for an immediate rollback; costs its memory."""


class TlsConfig(StrictModel):
    """Certificate and key with which the server itself speaks HTTPS."""

    certificate_file: str = Field(min_length=1)
    """Certificate with its chain, PEM."""
    private_key_file: str = Field(min_length=1)
    """Private key of the certificate, PEM, without a password."""


class ShutdownConfig(StrictModel):
    """Delays of the server between SIGTERM and its end."""

    pre_stop_seconds: float = Field(ge=0, le=600)
    """Seconds between readiness going false and the end of new requests, so that load balancers notice; 0 where a preStop hook waits instead."""
    grace_period_seconds: int = Field(ge=1, le=3600)
    """Seconds for running answers to finish; give the container a longer grace period."""


class Serve(StrictModel):
    """The section ``serve``: the server of the champion."""

    host: str = Field(min_length=1)
    """Address to listen on; localhost or an IP address."""
    port: int = Field(ge=1, le=65535)
    """Port to listen on."""
    tls: TlsConfig | None
    """Certificate and key: the server accepts HTTPS only. Null: HTTP, for this machine or a proxy in front."""
    registry: str = Field(min_length=1)
    """The release registry, a folder or an address (s3://bucket/releases); the environment variable TUNECTL_REGISTRY overrides it."""
    poll_seconds: float = Field(ge=0.1, le=3600)
    """Seconds between reads of the registry; a promotion is noticed after this."""
    load_timeout_seconds: float = Field(gt=0, le=86_400)
    """Seconds for a release to load and pass its probes; then it is given up and tried again later."""
    keys_file: str = Field(min_length=1)
    """File of the hashes of API keys, made by `tunectl serve keys`; the environment variable TUNECTL_KEYS overrides it."""
    trusted_keys_file: str | None = Field(min_length=1)
    """File of the public keys whose signature a release and a pointer must have, made by `tunectl release keygen`; the environment variable TUNECTL_TRUSTED_KEYS overrides it. Null: signatures are not checked."""
    served_model_names: list[Alias]
    """Other names of the model in requests, beside that of the project."""
    cors: list[Origin]
    """Web origins whose pages may call the server (CORS)."""
    engine: ServeEngine
    """Settings of the inference engine."""
    limits: ServeLimits
    """Limits beyond which requests wait or are refused."""
    key_limits: KeyLimitsConfig
    """Limits of a key that has none itself."""
    variants: VariantConfig
    """Models loaded beside the champion."""
    shutdown: ShutdownConfig
    """How the server stops."""

    @model_validator(mode="after")
    def _check_host(self) -> Self:
        validate_host(self.host)
        return self


class ServeSettings(StrictModel):
    """Sections of the configuration that the server reads."""

    project: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the model in requests."""
    serve: Serve
    """The section of this stage."""
    inference_log: InferenceLogConfig
    """The inference log."""
    annotate: Annotate
    """Tags and store of the arena page; the environment variable TUNECTL_JUDGMENTS overrides the store."""
