"""The package section: engine, format and tests of a release: ``conf/package/{openvino,transformers,vllm,none}.yaml``."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, RootModel, model_validator

from tunectl.config.schema.annotate import Annotate
from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.evaluate import Evaluate
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.config.schema.serve import Serve, ServeSettings

EngineName = Literal["openvino", "transformers", "vllm"]


class NoPackage(StrictModel):
    """Switches packaging off: no release is built."""

    method: Literal["none"]
    """Name of this choice."""


class ServingDecoding(StrictModel):
    """Default decoding of the server, for requests that set none."""

    temperature: float = Field(ge=0, le=2)
    """Divides the logits; 0: greedy."""
    top_p: float = Field(gt=0, le=1)
    """Probability mass of the likeliest tokens to sample from; 1: all."""
    max_tokens: int = Field(ge=1, le=32768)
    """Tokens in one answer at most."""


class ProbeConfig(StrictModel):
    """Settings of the probes: prompts with answers that a server must reproduce before it is ready."""

    prompts: int = Field(ge=1, le=256)
    """Number of probes, from validation inputs that tuned and base model answer differently."""
    fixtures: int = Field(ge=1, le=256)
    """Number of rendered conversations whose token ids the server must reproduce; more cover rarer cases of the chat template."""
    max_tokens: int = Field(ge=1, le=512)
    """Tokens in one answer to a probe at most."""
    min_token_agreement: float = Field(gt=0, le=1)
    """Lowest share of the probes' tokens that the server's engine must choose too."""
    max_logprob_diff: float = Field(gt=0, le=5)
    """Highest mean difference of log-probabilities, in nats."""


class ParityConfig(StrictModel):
    """Bounds on the difference between exported and trained model; beyond them the verdict is failed."""

    prompts: int = Field(ge=1, le=4096)
    """Validation inputs whose answers are compared token by token."""
    max_tokens: int = Field(ge=1, le=2048)
    """Tokens in one of these answers at most."""
    min_token_agreement: float | None = Field(gt=0, le=1)
    """Lowest share of tokens that are also the engine's first choice. Null: only printed."""
    max_logprob_diff: float | None = Field(gt=0, le=5)
    """Highest mean absolute difference of log-probabilities, in nats. Null: only printed."""
    inputs: int | None = Field(ge=0, le=100_000)
    """Test inputs that the engine answers, to compare the metric of evaluate. Null: as many as evaluate; 0: none."""


class Bento(StrictModel):
    """Settings of the Bento that is built from the release."""

    name: str | None = Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")
    """Name of the Bento. Null: that of the project. Its version is the name of the release."""


class Gguf(StrictModel):
    """Settings of the GGUF file for llama.cpp and Ollama that is written beside the release."""

    type: Literal["f16", "bf16", "q8_0"]
    """Type of the weights; q8_0 is the smallest and least exact."""


class ReleaseConfig(StrictModel):
    """Contents of a release, its engine, and the tests that it must pass."""

    method: Literal["release"]
    """Name of this choice."""
    engine: EngineName
    """Inference engine; each reads its own file format."""
    layout: Literal["adapter", "merged"]
    """adapter: base and adapter as separate files, combined by the engine. merged: one set of weights, faster on a CPU."""
    weights: Literal["bf16", "int8", "int4"]
    """Type of the weights in the engine; transformers and vllm take bf16. int4 is smaller and less exact than int8."""
    adapter: Literal["auto", "sft", "align"]
    """auto: that of align where evaluate finds it significantly better, else that of sft."""
    precision: Literal["float32", "bfloat16", "auto"]
    """Type of the trained model when the exported one is compared with it. float32: least rounding. bfloat16: half the memory."""
    decoding: ServingDecoding
    """Decoding of requests that do not set it."""
    probing: ProbeConfig
    """Probes: answers that a server must reproduce before it is ready."""
    parity: ParityConfig
    """Bounds on the difference between exported and trained model."""
    reference_responses: int = Field(ge=0, le=10_000)
    """Number of answers to validation inputs kept as the drift reference; more find smaller drift. 0: none."""
    bento: Bento | None
    """The Bento to build. Null: none."""
    gguf: Gguf | None
    """GGUF file to write. Null: none."""

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if self.engine == "openvino" and self.weights == "bf16":
            raise ValueError("weights: bf16 is not for engine openvino; take int8 or int4")
        if self.engine != "openvino" and self.weights != "bf16":
            raise ValueError(f"weights: {self.weights} is not for engine {self.engine}; take bf16")
        return self


class Package(RootModel[Annotated[ReleaseConfig | NoPackage, Field(discriminator="method")]]):
    """The section ``package``: a release, or none."""


class PackageStage(StrictModel):
    """Sections of the configuration that the stage package reads, from ``artifacts/config/package.json``."""

    project: str
    """Name of the release."""
    seed: int
    """Seed of the choice of compared inputs."""
    hardware: HardwareProfile
    """The machine that the trained model runs on."""
    package: Package
    """The section of this stage."""
    evaluate: Evaluate
    """The metric that the exported model must reach."""
    serve: Serve
    inference_log: InferenceLogConfig
    annotate: Annotate
    """The sections of the server, which the Bento carries."""

    @property
    def server(self) -> ServeSettings:
        """Return the server's settings, as the Bento gets them."""
        return ServeSettings(
            project=self.project, serve=self.serve, inference_log=self.inference_log, annotate=self.annotate
        )
