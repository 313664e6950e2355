"""Flower's client: ``python -m tunectl.backends.federated.flower_client FOLDER``, in Flower's environment.

Runs the local training of each round as a process in tunectl's environment, and sends its adapter and four counts. The server sends weights
and numbers; no code from the server is run here.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from tunectl.artifacts import atomic_io, lock
from tunectl.federated import exchange
from tunectl.federated.exchange import ClientCounts, ClientTask, RoundRequest

RETRY_SECONDS = 1.0
CONNECT_SECONDS = 180.0
"""Longest attempt to connect that fails: gRPC gives a name 120 s, and an address 20 s. One that ran longer was connected."""
OUTPUT = "output.txt"
"""File in the folder of a round: what the local training printed, where it failed."""


def main(folder: Path) -> int:
    """Run the Flower client: train in every round until the server ends, with the task file in ``folder``; return the exit code."""
    task: ClientTask = atomic_io.read_json(folder / exchange.CLIENT, ClientTask)
    try:
        take_part(folder, task)
    except Exception as error:  # noqa: BLE001  the parent process prints the error
        atomic_io.write_json(folder / exchange.FAILURE, exchange.FlowerFailure(f"{type(error).__name__}: {error}"))
        return 1
    return 0


def take_part(folder: Path, task: ClientTask) -> None:
    """Connect to the server and train whenever it asks, until it has no more rounds.

    A server that is not up yet, or restarts, is tried again for ``task.wait_timeout_seconds`` from then on.
    Raises  TimeoutError where the server cannot be reached for longer than that.
    """
    from flwr.client import start_client
    from grpc import RpcError

    logging.getLogger("flwr").setLevel(logging.ERROR)  # our own lines replace Flower's log
    client = _build_client(folder, task)
    certificate = Path(task.ca_file).read_bytes() if task.ca_file else None
    lost = time.monotonic()
    while True:
        start = time.monotonic()
        try:
            start_client(
                server_address=task.server_address,
                client=client,
                root_certificates=certificate,
                insecure=certificate is None,
            )
        except RpcError as error:
            now = time.monotonic()
            if client.last_seen >= start or now - start > CONNECT_SECONDS:
                lost = now  # it was connected: a client that the server asks nothing gets no message for hours
            away = now - lost
            if away > task.wait_timeout_seconds:
                raise TimeoutError(
                    f"no server at {task.server_address} for {away:.0f} s: {error.details()}; start it, or correct federate.server_address"
                ) from error
            time.sleep(RETRY_SECONDS)
        else:
            return


def _build_client(folder: Path, task: ClientTask) -> Any:
    from flwr.client import Client
    from flwr.common import (
        Code,
        FitRes,
        GetPropertiesRes,
        Parameters,
        Status,
        ndarrays_to_parameters,
        parameters_to_ndarrays,
    )

    class LocalClient(Client):
        """Answers the server."""

        def __init__(self) -> None:
            self.last_seen = 0.0
            """Time at which the last message of the server was answered; 0: there was none."""

        def get_properties(self, _ins: Any) -> Any:
            """Return name and token of this client."""
            self.last_seen = time.monotonic()
            properties = {"name": task.name, "token": os.environ.get(task.token_env, "")}
            return GetPropertiesRes(Status(Code.OK, ""), properties)

        def fit(self, ins: Any) -> Any:
            """Train from the adapter of the round."""
            names = json.loads(str(ins.config["names"]))
            weights = dict(zip(names, parameters_to_ndarrays(ins.parameters), strict=True))
            request = RoundRequest(int(ins.config["round"]), int(ins.config["rounds"]), task.local_steps)
            try:
                check_base(task, str(ins.config["base"]))
                update, counts = fit_locally(folder, task, request, weights)
            except OSError as error:
                _print(str(error))
                # the only error code of Flower that fits
                failed = Status(Code.FIT_NOT_IMPLEMENTED, f"{task.name}: {error}")
                return FitRes(failed, Parameters([], ""), 0, {})
            finally:
                self.last_seen = time.monotonic()
            result = ndarrays_to_parameters([update[name] for name in names])
            sent = {"steps": counts.steps, "rows": counts.rows, "refused": counts.refused}
            return FitRes(Status(Code.OK, ""), result, counts.answers, sent)

    return LocalClient()


def check_base(task: ClientTask, base: str) -> None:
    """Check that the server's base model (``base``, its digest) is the client's: an adapter fits no other.

    Raises  OSError where the digests differ.
    """
    if base != task.base:
        raise OSError(
            f"base model and chat template differ: their digest is {base[:12]} on the server, but {task.base[:12]} on client {task.name}; "
            "give server and clients the same settings of model, then: tunectl repro --to model"
        )


def fit_locally(
    folder: Path, task: ClientTask, request: RoundRequest, weights: dict[str, Any]
) -> tuple[dict[str, Any], ClientCounts]:
    """Train one round in a subprocess, from the server's ``weights``; return the trained adapter and the counts.

    Raises  OSError with the last line of the training's output where it failed, and the file that has all of it.
    """
    round_folder = folder / f"round-{request.number}"
    round_folder.mkdir(parents=True, exist_ok=True)
    exchange.write_weights(round_folder / exchange.START, weights)
    atomic_io.write_json(round_folder / "request.json", request)
    label = f"round {request.number} of {request.rounds}"
    environment = {name: value for name, value in os.environ.items() if name != task.token_env}
    with _hold_one(task.locks, lambda: _print(f"{label}: waiting until another client has fitted")):
        _print(f"{label}: fitting {request.local_steps} steps")
        start = time.monotonic()
        process = subprocess.run(
            [*task.fit, str(round_folder)], env=environment, capture_output=True, text=True, check=False
        )
    if process.returncode:
        log = round_folder / OUTPUT
        atomic_io.write_text(log, process.stdout + process.stderr)
        _print(f"wrote the output of the fit to {log}")  # only here: the server need not know the path
        lines = [line for line in process.stderr.splitlines() if line.strip()]
        raise OSError(
            f"the fit of round {request.number} failed: {lines[-1] if lines else f'exit code {process.returncode}'}; "
            f"its whole output is in {round_folder.name}/{OUTPUT}, in the folder of that client"
        )
    counts: ClientCounts = atomic_io.read_json(round_folder / exchange.COUNTS, ClientCounts)
    _print(f"{label}: fitted {counts.steps} steps in {time.monotonic() - start:.0f} s")
    return exchange.read_weights(round_folder / exchange.UPDATE), counts


@contextmanager
def _hold_one(locks: Sequence[str], on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold one of the lock files while the block runs; where none is free, call ``on_wait`` once and wait."""
    if not locks:
        yield
        return
    with ExitStack() as stack:
        streams = [stack.enter_context(Path(name).open("a", encoding="utf-8")) for name in locks]
        if not _lock_any(streams):
            on_wait()
            while not _lock_any(streams):
                time.sleep(0.2)
        yield


def _lock_any(streams: Sequence[TextIO]) -> bool:
    """Lock one of these files; return False where all of them are locked."""
    return any(lock.try_lock(stream.fileno()) for stream in streams)


def _print(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
