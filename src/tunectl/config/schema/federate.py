"""The federate section: one adapter from data that may not be pooled. No stage reads it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tunectl.config.schema.base import HostPort, StrictModel, is_loopback, validate_host


class FederateTls(StrictModel):
    """Certificates of the server, PEM files."""

    ca_file: str = Field(min_length=1)
    """Certificate of the authority that signed the server's."""
    certificate_file: str = Field(min_length=1)
    """The server's certificate."""
    key_file: str = Field(min_length=1)
    """The server's private key."""


class SimulatedClients(StrictModel):
    """Settings of ``tunectl federate simulate``: clients on one machine."""

    shares: list[Annotated[float, Field(gt=0)]] = Field(min_length=2)
    """Share of the training inputs that each client has; one client for each number."""
    max_concurrent_fits: int = Field(ge=1, le=1024)
    """Clients that train at the same time; each needs the memory of a training."""


class Federate(StrictModel):
    """The section ``federate``: training of one adapter on several machines that do not share data."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Name of the federation; its rounds are in `.tunectl/federate/NAME`."""
    rounds: int = Field(ge=1, le=10_000)
    """Number of times that the clients train and the server averages; raise it while the validation loss still falls."""
    local_steps: int = Field(ge=1, le=1_000_000)
    """Optimizer steps of each client in a round; with more, the clients' adapters differ more."""
    fraction_train: float = Field(gt=0, le=1)
    """Share of the clients that a round asks, drawn with the seed; never fewer than min_clients."""
    min_clients: int = Field(ge=1, le=10_000)
    """Clients that a round waits for, and whose answers it needs; others may drop out."""
    weighting: Literal["answers", "clients"]
    """Weight of a client. answers: number of its training answers. clients: all the same, so that no large one rules."""
    average: Literal["fedavg", "product"]
    """fedavg: mean of A and of B (arXiv 1602.05629). product: mean of BA, reduced to the rank by singular values."""
    round_timeout_seconds: int = Field(ge=1, le=604_800)
    """Seconds after which a client that has not answered is left out of the round."""
    wait_timeout_seconds: int = Field(ge=1, le=604_800)
    """Seconds that the server waits for min_clients, and a client for the server."""
    host: str = Field(min_length=1)
    """Address that the server listens on. Other than loopback needs tls and a token."""
    port: int = Field(ge=0, le=65_535)
    """Port that the server listens on. 0: a free one, which suits a simulation."""
    tls: FederateTls | None
    """Certificates of the server. Null: no encryption, on loopback alone."""
    token_env: str = Field(min_length=1)
    """Environment variable with the secret that the server and its clients share; a client without it is refused."""
    server_address: HostPort
    """HOST:PORT of the server, for clients."""
    ca_file: str | None = Field(min_length=1)
    """Certificate that a client trusts for the server. Null: no encryption, on loopback alone."""
    simulate: SimulatedClients

    @model_validator(mode="after")
    def _require_tls_unless_loopback(self) -> Self:
        validate_host(self.host)
        if not is_loopback(self.host) and self.tls is None:
            raise ValueError(f"host is {self.host}, and tls is null; adapters leave this machine, so give certificates")
        if not is_loopback(self.server_address.rpartition(":")[0]) and self.ca_file is None:
            raise ValueError(
                f"server_address is {self.server_address}, and ca_file is null; give the certificate of its CA"
            )
        return self
