"""One of several processes that hold a model and generate answers: ``python -m tunectl.backends.launchers.replica_worker SOCKET RANK``.

    to the process    a ``ReplicaRequest``, then calls
    from the process  ["ready", context] or ["failure", Failure]; for a call any number of ["progress", steps], then ["result", value]

It ends when its end of the socket closes, and with the process that started it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct
from pydantic import TypeAdapter

from tunectl.backends.system import framed_socket, process_guard
from tunectl.config.schema.evaluate import Decoding
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core import logging_setup, progress
from tunectl.core.errors import TunectlError
from tunectl.evaluation.protocols import GenerationPrompt
from tunectl.training.fit_request import Failure

_log = logging_setup.get_logger(__name__)


class ReplicaRequest(Struct, frozen=True):
    """First message to a replica process: the model and adapter to load, and on which hardware."""

    kind: Literal["generator", "reference"]
    """Kind of the model: the generator of evaluation, or the trained model that packaging compares with."""
    folder: str
    adapter: str | None
    profile: dict[str, Any]
    stops: list[int] = []
    """Tokens that end an answer; used by a reference only."""


class AnswerCall(Struct, frozen=True, tag="answer"):
    """Call to a replica process: answer this rank's share of the batches of ``requests``, which ``world_size`` processes divide."""

    requests: list[GenerationPrompt]
    decoding: dict[str, Any]
    seed: int
    world_size: int


class LengthsCall(Struct, frozen=True, tag="lengths"):
    """Call to a replica process: return the number of tokens of each prompt."""

    prompts: list[str]


class GenerateCall(Struct, frozen=True, tag="generate"):
    """Call to a replica process: answer ``prompts`` (token ids) greedily, at most ``limit`` tokens each."""

    prompts: list[list[int]]
    limit: int


class LikelihoodCall(Struct, frozen=True, tag="likelihood"):
    """Call to a replica process: return per answer the log-probability (nats) of each token of its list in ``of``, given the answer up to that position."""

    prompts: list[list[int]]
    answers: list[list[int]]
    of: list[list[int]]


Call = AnswerCall | LengthsCall | GenerateCall | LikelihoodCall
_DECODING: TypeAdapter[Any] = TypeAdapter(Decoding)


class SocketProgress:
    """Progress bars of a replica process: sends each advance to the parent process, which draws the bar."""

    def __init__(self, connection: socket.socket) -> None:
        """Use ``connection``, which leads to the parent process."""
        self._socket = connection

    @contextmanager
    def bar(self, label: str, total: float | None) -> Iterator[SocketProgress]:
        """Yield this object; ``label`` and ``total`` are not used, because the parent process opens the bar."""
        yield self

    def advance(self, steps: float = 1, **figures: str) -> None:
        """Send the number of steps done to the parent process."""
        self._socket.sendall(framed_socket.encode_frame(["progress", steps]))


def load_model(request: ReplicaRequest) -> Any:
    """Return the generator or reference model that ``request`` names, loaded in this process."""
    profile = HardwareProfile(**request.profile)
    folder, adapter = Path(request.folder), Path(request.adapter) if request.adapter else None
    if request.kind == "generator":
        return load_generator(folder, adapter, profile)
    return load_reference(folder, adapter, request.stops, profile)


def load_generator(folder: Path, adapter: Path | None, profile: HardwareProfile) -> Any:
    """Return an ``HfGenerator`` for the model in ``folder`` with ``adapter``, loaded in this process."""
    from tunectl.backends.modeling import generator

    return generator.model_loader(profile)(folder, adapter)


def load_reference(folder: Path, adapter: Path | None, stops: Sequence[int], profile: HardwareProfile) -> Any:
    """Return packaging's ``ReferenceModel`` for the model in ``folder`` with ``adapter``, loaded in this process."""
    from tunectl.backends.modeling.reference_model import ReferenceModel

    return ReferenceModel(folder, adapter, stops, profile)


def carry_out(model: Any, call: Call, rank: int) -> Any:
    """Run ``call`` on ``model`` in the process ``rank``; return what the method of ``model`` for that kind of call returns."""
    if isinstance(call, AnswerCall):
        decoding = _DECODING.validate_python(call.decoding)
        return model.answer_share(
            call.requests, decoding, seed=call.seed, label="answers", rank=rank, world_size=call.world_size
        )
    if isinstance(call, LengthsCall):
        return model.lengths(call.prompts)
    if isinstance(call, GenerateCall):
        return model.generate(call.prompts, call.limit)
    return model.likelihood(call.prompts, call.answers, call.of)


def answer_calls(connection: socket.socket, rank: int) -> None:
    """Load the model that the first message names, and answer calls until the parent process closes the socket."""
    frames = framed_socket.read_frames(connection)

    def send(kind: str, value: Any) -> None:
        connection.sendall(framed_socket.encode_frame([kind, value]))

    try:
        model = load_model(msgspec.msgpack.decode(next(frames), type=ReplicaRequest))
        send("ready", getattr(model, "context", None))
        with progress.use_renderer(SocketProgress(connection)):
            for frame in frames:
                send("result", carry_out(model, msgspec.msgpack.decode(frame, type=Call), rank))
    except TunectlError as error:
        send("failure", Failure(type(error).__name__, error.message, error.hint, rank))
    except Exception as error:  # noqa: BLE001  any error is raised in the process that waits for the answers
        _log.exception("process %d failed", rank)
        lines = str(error).strip().splitlines() or [""]
        send("failure", Failure("InfrastructureError", f"process {rank}: {type(error).__name__}: {lines[0]}", "", rank))


def main(arguments: Sequence[str]) -> None:
    """Run one replica process; ``arguments`` are the file descriptor of its socket and its rank.

    Ctrl-C is handled by the process that started this one.
    """
    process_guard.die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    number, rank = map(int, arguments)
    logging_setup.configure_logging(level="error" if rank else "info")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    with socket.socket(fileno=number) as connection:
        answer_calls(connection, rank)
    sys.stdout.flush()
    os._exit(0)  # skip torch's teardown, which takes seconds


if __name__ == "__main__":
    main(sys.argv[1:])
