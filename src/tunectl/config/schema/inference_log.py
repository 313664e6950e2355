"""The inference_log section: requests, answers and feedback of the server. Only the stage package reads it, for the Bento."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from tunectl.config.schema.base import StrictModel
from tunectl.config.schema.curate import PiiConfig
from tunectl.core.url_credentials import has_credentials

EnvVariableField = Field(pattern=r"^[A-Z_][A-Z0-9_]*$")


class InferenceLogConfig(StrictModel):
    """The section ``inference_log``: where requests, answers and feedback of the server are stored."""

    url: str = Field(pattern=r"^(sqlite:///.+|postgresql(\+psycopg)?://.+)$")
    """Database: ``sqlite:///FILE``, relative to the project, or ``postgresql://USER@HOST/NAME``; a server on another machine must have a valid certificate, unless ``?sslmode=`` sets another check."""
    url_env: str = EnvVariableField
    """Environment variable that overrides ``url`` where it is set: for passwords, and for containers."""
    replicas: int = Field(ge=1, le=1000)
    """Number of servers that write to the log; more than one needs PostgreSQL."""
    disk_full: Literal["serve_and_count", "refuse"]
    """When a row cannot be written: answer and count it, or refuse the request."""
    write_timeout_seconds: float = Field(gt=0, le=60)
    """Seconds that a request waits for its row to be on the disk before ``disk_full`` decides."""
    max_buffered_rows: int = Field(ge=1, le=1_000_000)
    """Rows held in memory at most while they cannot be written."""
    max_buffered_bytes: int = Field(ge=1_000_000, le=1_000_000_000_000)
    """Bytes of these rows at most, as JSON; in memory they take a few times that."""
    retention_days: int | None = Field(ge=1)
    """Days after which ``tunectl log prune`` deletes a row. Null: never."""
    hash_key_file: str = Field(min_length=1)
    """File of the secret key that users and sessions are hashed with, made at first use. Never commit it."""
    hash_key_env: str = EnvVariableField
    """Environment variable that overrides that file where it is set; the same on all replicas."""
    logprob_share: float = Field(ge=0, le=1)
    """Share of inferences whose answers are generated with log-probabilities, drawn by a hash of the inference's id; requests that
    ask for them always have them. The signal ``mean_logprob`` of the monitor has only these rows."""
    pii: PiiConfig
    """Personal data masked before writing, with the placeholders of ``curate``."""

    @field_validator("url")
    @classmethod
    def _refuse_password(cls, url: str) -> str:
        if has_credentials(url):
            raise ValueError(
                "url holds a password or a token, which would stand in Git, in artifacts and in the image; set the variable that url_env names"
            )
        return url

    @model_validator(mode="after")
    def _require_postgres_for_replicas(self) -> Self:
        if self.replicas > 1 and self.url.startswith("sqlite"):
            raise ValueError(
                f"replicas is {self.replicas} and url is {self.url}; more than one server needs PostgreSQL: set url to postgresql://USER@HOST/NAME, or replicas to 1"
            )
        return self
