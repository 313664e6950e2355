"""Files in one folder through which tunectl and Flower's process communicate. Imported in both environments.

server.json    task of the server             client.json   task of a client
start.npz      weights of the first round     round-N.npz   weights after round N
rounds.jsonl   who took part in each round    failure.json  why Flower's process gave up
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.core.optional import import_optional
from tunectl.federated.averaging import AdapterWeights

SERVER, CLIENT, START, ROUNDS, FAILURE = "server.json", "client.json", "start.npz", "rounds.jsonl", "failure.json"
UPDATE, COUNTS = "update.npz", "counts.json"


class ServerTask(Struct, frozen=True):
    """Task of Flower's server; values are those of ``config.schema.federate.Federate``."""

    host: str
    port: int
    rounds: int
    fraction_train: float
    min_clients: int
    expected_clients: int
    """Clients that the first round waits for a while beyond ``min_clients``; 0 where their number is unknown."""
    weighting: str
    average: str
    seed: int
    round_timeout_seconds: int
    wait_timeout_seconds: int
    token_env: str
    certificates: tuple[str, str, str] | None
    """CA, certificate and key."""
    base: str
    """Digests of the base model's weights and chat template."""


class ClientTask(Struct, frozen=True):
    """Task of Flower's client."""

    name: str
    server_address: str
    ca_file: str | None
    token_env: str
    wait_timeout_seconds: int
    fit: list[str]
    """Command of a local training; the folder of the round is appended."""
    locks: list[str]
    """Lock files, of which a training holds one: so many train at the same time. Empty: no limit."""
    local_steps: int
    """Optimizer steps of a local training."""
    base: str
    """Base model of the federation, as in the server's task: an adapter belongs to one base model."""


class RoundRequest(Struct, frozen=True):
    """One local training."""

    number: int
    """1-based."""
    rounds: int
    local_steps: int
    """Optimizer steps of this training."""


class ClientCounts(Struct, frozen=True):
    """Two counts of a client's data, sent beside the adapter; nothing else leaves the client."""

    answers: int
    steps: int


class Contribution(Struct, frozen=True):
    """Contribution of a client to a round."""

    name: str
    answers: int
    steps: int


class FederatedRound(Struct, frozen=True):
    """Result of one round of averaging, for the report."""

    number: int
    asked: int
    contributions: list[Contribution]
    failures: list[str]
    """Why the other clients are not in it."""
    averaged: bool
    """False where fewer than min_clients answered: the weights were not changed."""


class FlowerFailure(Struct, frozen=True):
    """Why Flower's process stopped."""

    message: str


def write_weights(path: Path, weights: AdapterWeights) -> None:
    """Write tensors by name; the same tensors give the same bytes."""
    np = import_optional("numpy", extra="train")
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(weights[name]) for name in sorted(weights)})
    atomic_io.write_bytes(path, buffer.getvalue())


def read_weights(path: Path) -> dict[str, Any]:
    """Return the tensors that ``write_weights`` wrote."""
    np = import_optional("numpy", extra="train")
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def round_file(folder: Path, number: int) -> Path:
    """Return the file of the weights after a round; for round 0, that of the start."""
    return folder / (f"round-{number}.npz" if number else START)


def read_rounds(folder: Path) -> list[FederatedRound]:
    """Return the rounds that have ended."""
    return list(atomic_io.read_rows(folder / ROUNDS, FederatedRound)) if (folder / ROUNDS).is_file() else []
