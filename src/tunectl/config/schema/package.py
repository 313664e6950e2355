"""What is shipped, for which engine, and how it is proved: ``conf/package/{openvino,transformers,vllm,none}.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.annotate import Annotate
from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.evaluate import Evaluate
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.config.schema.serve import Serve, ServeSettings

Engine = Literal["openvino", "transformers", "vllm"]


class NoPackage(StrictModel):
    """Nothing is shipped."""

    method: Literal["none"]
    """Names this shape."""


class Decoding(StrictModel):
    """What a request gets that says nothing about it."""

    temperature: float = Field(ge=0, le=2)
    """Divides the logits; 0 always takes the likeliest token."""
    top_p: float = Field(gt=0, le=1)
    """Only the likeliest tokens that together reach this probability are drawn from."""
    max_tokens: int = Field(ge=1, le=32768)
    """Longest answer, in tokens."""


class ProbeConfig(StrictModel):
    """What a server must repeat before it may answer."""

    prompts: int = Field(ge=1, le=256)
    """Probes, of validation inputs that tuned and base model answer differently."""
    fixtures: int = Field(ge=1, le=256)
    """Rendered conversations with their token ids."""
    max_tokens: int = Field(ge=1, le=512)
    """Longest answer of a probe, in tokens."""
    min_token_agreement: float = Field(gt=0, le=1)
    """Least share of the probes' tokens that a server's engine must choose as well."""
    max_logprob_diff: float = Field(gt=0, le=5)
    """By how much its log-probabilities may differ on average, in nats."""


class ParityConfig(StrictModel):
    """How far the exported model may be from the trained one, else the verdict is no."""

    prompts: int = Field(ge=1, le=4096)
    """Validation inputs whose answers are read token by token."""
    max_tokens: int = Field(ge=1, le=2048)
    """Longest of these answers, in tokens."""
    min_token_agreement: float | None = Field(gt=0, le=1)
    """Least share of tokens that are the engine's first choice too. Null: printed only."""
    max_logprob_diff: float | None = Field(gt=0, le=5)
    """Greatest mean absolute difference of log-probabilities, in nats. Null: printed only."""
    inputs: int | None = Field(ge=0, le=100_000)
    """Test inputs that the engine answers, to compare the evaluation's measure. Null: all that evaluate took; 0: none."""


class Bento(StrictModel):
    """The Bento that is built."""

    name: str | None = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """Its name, that of the project where null; its version is the name of the release."""


class Gguf(StrictModel):
    """A GGUF file for llama.cpp and Ollama, beside the release."""

    type: Literal["f16", "bf16", "q8_0"]
    """How weights are held."""


class ReleaseConfig(StrictModel):
    """A release for one engine."""

    method: Literal["release"]
    """Names this shape."""
    engine: Engine
    """Which one serves it; each reads files of its own."""
    layout: Literal["adapter", "merged"]
    """apart: base and adapter side by side, put together by the engine. merged: one set of weights, faster on a CPU."""
    weights: Literal["bf16", "int8", "int4"]
    """How the engine holds the weights; transformers and vllm take bf16."""
    adapter: Literal["auto", "sft", "align"]
    """auto: that of align where evaluate calls it surely better, else that of sft."""
    precision: Literal["float32", "bfloat16", "auto"]
    """Of the trained model while its answers are recorded; float32 keeps its rounding out of the comparison."""
    decoding: Decoding
    """How requests are answered that say nothing about it."""
    probing: ProbeConfig
    """What a server must repeat before it may answer."""
    parity: ParityConfig
    """How far the export may be from the trained model."""
    reference_responses: int = Field(ge=0, le=10_000)
    """Validation inputs whose answers are kept, as what drift is compared with."""
    bento: Bento | None
    """Null: no Bento is built."""
    gguf: Gguf | None
    """Null: no GGUF file is written."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.engine == "openvino" and self.weights == "bf16":
            raise ValueError("weights: bf16 is not for engine openvino; take int8 or int4")
        if self.engine != "openvino" and self.weights != "bf16":
            raise ValueError(f"weights: {self.weights} is not for engine {self.engine}; take bf16")
        return self


class Package(RootModel[Annotated[ReleaseConfig | NoPackage, Field(discriminator="method")]]):
    """The package section of ``conf/``."""


class PackageStage(StrictModel):
    """What the package stage sees of the configuration."""

    project: str
    """Names the release."""
    seed: int
    """Draws the inputs that are looked at."""
    hardware: HardwareProfile
    """The machine that the trained model is asked on."""
    package: Package
    """Its section."""
    evaluate: Evaluate
    """The measure that the exported model is held to."""
    serve: Serve
    inference_log: InferenceLogConfig
    annotate: Annotate
    """The sections of the server, which the Bento carries."""

    @property
    def server(self) -> ServeSettings:
        """What the server in the Bento sees."""
        return ServeSettings(
            project=self.project, serve=self.serve, inference_log=self.inference_log, annotate=self.annotate
        )
