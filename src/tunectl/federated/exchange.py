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
    """Task file of Flower's server (server.json); values are those of ``config.schema.federate.Federate``."""

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
    """Task file of Flower's client (client.json): whom to connect to, and the command that trains."""

    name: str
    server_address: str
    ca_file: str | None
    token_env: str
    wait_timeout_seconds: int
    fit: list[str]
    """Command of a local training; the folder of the round is appended."""
    locks: list[str]
    """Lock files; a training holds one of them, so their number limits the trainings at the same time. Empty: no limit."""
    local_steps: int
    """Optimizer steps of a local training."""
    base: str
    """Base model of the federation, as in the server's task: an adapter belongs to one base model."""


class RoundRequest(Struct, frozen=True):
    """Request for the local training of one round, ``number`` of ``rounds``; written for the process that trains."""

    number: int
    """1-based."""
    rounds: int
    local_steps: int
    """Optimizer steps of this training."""


class ClientCounts(Struct, frozen=True):
    """Numbers that a client sends with its adapter; nothing else leaves the client."""

    answers: int
    """Training answers that it learns from."""
    steps: int
    """Optimizer steps."""
    rows: int
    """Training rows that it has: ``answers`` and ``refused``."""
    refused: int
    """Rows that it does not learn from, for example because the chat template refuses them."""


class Contribution(Struct, frozen=True):
    """A client's contribution to a round's average: its answers (the weight), and its other counts as in ``ClientCounts``."""

    name: str
    answers: int
    steps: int
    rows: int
    refused: int


class FederatedRound(Struct, frozen=True):
    """Record of one round of averaging, a line of rounds.jsonl."""

    number: int
    asked: int
    contributions: list[Contribution]
    failures: list[str]
    """Why the other clients are not in it."""
    averaged: bool
    """False where fewer than min_clients answered: the weights were not changed."""


class FlowerFailure(Struct, frozen=True):
    """Reason why Flower's process gave up (failure.json)."""

    message: str


def write_weights(path: Path, weights: AdapterWeights) -> None:
    """Write tensors by name to the .npz file ``path``; equal tensors give equal bytes."""
    np = import_optional("numpy", extra="train")
    buffer = io.BytesIO()
    np.savez(buffer, **{name: np.asarray(weights[name]) for name in sorted(weights)})
    atomic_io.write_bytes(path, buffer.getvalue())


def read_weights(path: Path) -> dict[str, Any]:
    """Return the tensors by name in the .npz file ``path``."""
    np = import_optional("numpy", extra="train")
    with np.load(path, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def round_file(folder: Path, number: int) -> Path:
    """Return the path in ``folder`` of the averaged weights after round ``number`` (from 1), or for 0 of the initial ones."""
    return folder / (f"round-{number}.npz" if number else START)


def read_rounds(folder: Path) -> list[FederatedRound]:
    """Return the records of the rounds that have ended, in order; empty before the first has."""
    return list(atomic_io.read_rows(folder / ROUNDS, FederatedRound)) if (folder / ROUNDS).is_file() else []
