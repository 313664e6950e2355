"""The live section: where requests, answers and feedback are kept. Of all stages only package reads it, for the Bento."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.curate import PiiConfig

Variable = Field(pattern=r"^[A-Z_][A-Z0-9_]*$")


class InferenceLogConfig(StrictModel):
    """The live section of ``conf/``."""

    url: str = Field(pattern=r"^(sqlite:///.+|postgresql(\+psycopg)?://.+)$")
    """Database: ``sqlite:///FILE``, relative to the project, or ``postgresql://USER@HOST/NAME``."""
    url_env: str = Variable
    """Environment variable whose value, where it is set, takes the place of ``url``: for passwords, and for containers."""
    replicas: int = Field(ge=1, le=1000)
    """How many servers write to one store; more than one needs PostgreSQL."""
    disk_full: Literal["serve_and_count", "refuse"]
    """When a row cannot be kept: answer and count it, or refuse the request."""
    write_timeout_seconds: float = Field(gt=0, le=60)
    """Seconds that a request waits for its row to be on the disk before ``disk_full`` decides."""
    max_buffered_rows: int = Field(ge=1, le=1_000_000)
    """Rows that wait for the disk in memory at most."""
    max_buffered_bytes: int = Field(ge=1_000_000, le=1_000_000_000_000)
    """Bytes of these rows at most, as JSON; in memory they take a few times that."""
    retention_days: int | None = Field(ge=1)
    """``tunectl log prune`` deletes what is older. Null: only what is asked for by name."""
    hash_key_file: str = Field(min_length=1)
    """File of the key under which people and sessions are hashed, made at first use. Never commit it."""
    hash_key_env: str = Variable
    """Environment variable whose value, where it is set, takes the place of that file: equal on all replicas."""
    pii: PiiConfig
    """What is masked before it is written, with the placeholders of ``curate``."""

    @model_validator(mode="after")
    def _require_postgres_for_replicas(self) -> Self:
        if self.replicas > 1 and self.url.startswith("sqlite"):
            raise ValueError(
                f"replicas is {self.replicas} and url is {self.url}; more than one server needs PostgreSQL"
            )
        return self
