"""A model that several processes hold, one per GPU, so that stages which only generate answers use the whole machine.

Batches are cut as one process would cut them and distributed to the processes in turn, so the answers are those of one process.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from tunectl.backends.launchers import replica_worker
from tunectl.backends.launchers.replica_worker import (
    AnswerCall,
    Call,
    GenerateCall,
    LengthsCall,
    LikelihoodCall,
    ReplicaRequest,
)
from tunectl.backends.launchers.torchrun_launcher import count_ranks
from tunectl.backends.launchers.worker import CARDS, choose_card
from tunectl.backends.system import framed_socket
from tunectl.backends.system.exit_status import describe_exit, suggest_after_kill
from tunectl.config.schema.evaluate import BeamSearch, Greedy, Sampling
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.launch import TorchrunLaunch
from tunectl.core import logging_setup, progress
from tunectl.core.errors import InfrastructureError
from tunectl.evaluation.protocols import GeneratedText, GenerationPrompt, Generator
from tunectl.packaging.protocols import GreedyOutput, TrainedModel
from tunectl.training import fit_request
from tunectl.training.fit_request import Failure

_log = logging_setup.get_logger(__name__)
STOP_TIMEOUT_SECONDS = 30.0
"""Seconds from the request to end until a process is killed."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ReplicaEnd:
    """Record of how a generation was run, for its stage's metrics: number of processes, device, nodes and restarts."""

    ranks: int
    device: str
    nodes: int = 1
    restarts: int = 0


class Replica:
    """Handle of one replica process: starts it, sends it calls and reads its answers."""

    def __init__(self, request: ReplicaRequest, rank: int) -> None:
        """Start the process; ``read`` waits until it has loaded."""
        self.rank = rank
        environment = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        if request.profile["device"] == "cuda":
            environment[CARDS] = choose_card(rank)  # each process sees one card, as cuda:0
        self._socket, other = socket.socketpair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", replica_worker.__name__, str(other.fileno()), str(rank)],
                stdin=subprocess.DEVNULL,
                pass_fds=(other.fileno(),),
                start_new_session=True,  # Ctrl-C in the terminal reaches this process only
                env=environment,
            )
        self._frames: Iterator[bytes] = framed_socket.read_frames(self._socket)
        self.send(request)

    def send(self, message: Any) -> None:
        """Send a request or a call as msgpack; that the process has died is reported by the next ``read``."""
        with suppress(OSError):
            self._socket.sendall(framed_socket.encode_frame(message))

    def read(self, bar: Any = None) -> bytes:
        """Return the result of the last call as msgpack; meanwhile the process's progress messages advance ``bar``, if there is one.

        Raises  the error that the process raised; InfrastructureError where it died.
        """
        with suppress(OSError):  # a process that dies before it has read everything resets the connection
            for frame in self._frames:
                kind, value = msgspec.msgpack.decode(frame, type=tuple[str, msgspec.Raw])
                if kind == "failure":
                    raise fit_request.build_error(msgspec.msgpack.decode(value, type=Failure))
                if kind != "progress":
                    return bytes(value)
                if bar is not None:
                    bar.advance(msgspec.msgpack.decode(value, type=float))
        code = self._process.wait()
        raise InfrastructureError(
            f"generation process {self.rank} ended with {describe_exit(code)} before it had written its answers",
            hint=suggest_after_kill(code, "lower hardware.generate_batch or launch.nproc_per_node")
            + "its log lines are above; run the same command again",
        )

    def close(self) -> None:
        """End the process and close its socket."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._socket.close()

    def kill(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()


class ReplicaPool:
    """A fixed number of replica processes that hold the same model, one per GPU."""

    def __init__(self, request: ReplicaRequest, count: int) -> None:
        """Start ``count`` processes and wait until all have loaded.

        Raises  the error of the first one that cannot.
        """
        self._replicas = [Replica(request, rank) for rank in range(count)]
        self._lock = threading.Lock()
        self.context = msgspec.msgpack.decode(self._read_all(self._replicas)[0], type=int | None)

    def __len__(self) -> int:
        return len(self._replicas)

    def call(self, calls: Sequence[Call], shape: type[T], bar: Any = None) -> list[T]:
        """Send ``calls[rank]`` to the process of each rank, and return the results by rank, decoded as type ``shape``.

        Raises  the first error of a process, after all have been ended.
        """
        used = self._replicas[: len(calls)]
        for replica, message in zip(used, calls, strict=True):
            replica.send(message)
        return [msgspec.msgpack.decode(answer, type=shape) for answer in self._read_all(used, bar)]

    def _read_all(self, replicas: Sequence[Replica], bar: Any = None) -> list[bytes]:
        """Return the answer of each, in their order; all are killed where one fails or Ctrl-C was pressed."""
        shared = None if bar is None else _SharedBar(bar, self._lock)
        with ThreadPoolExecutor(len(replicas)) as threads:
            answers = [threads.submit(replica.read, shared) for replica in replicas]
            try:
                wait(answers, return_when=FIRST_EXCEPTION)
                failed = [answer for answer in answers if answer.done() and answer.exception()]
                if failed:
                    self.kill()
            except BaseException:
                self.kill()
                raise
        for answer in failed:
            answer.result()
        return [answer.result() for answer in answers]

    def kill(self) -> None:
        """Kill all processes."""
        for replica in self._replicas:
            replica.kill()

    def close(self) -> None:
        """Close the sockets of all processes, and wait until they have ended."""
        for replica in self._replicas:
            replica.close()


@dataclass(frozen=True, slots=True)
class _SharedBar:
    """A bar that several threads move."""

    bar: Any
    lock: threading.Lock

    def advance(self, steps: float) -> None:
        with self.lock:
            self.bar.advance(steps)


class ReplicatedGenerator:
    """An ``evaluation.protocols.Generator`` whose model is held by several processes."""

    def __init__(self, pool: ReplicaPool) -> None:
        """``pool`` holds generators."""
        self._pool = pool

    @property
    def context(self) -> int | None:
        """Most tokens of prompt and answer together; None if the model declares no limit."""
        return self._pool.context

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Return the number of tokens of each prompt."""
        return self._pool.call([LengthsCall(list(prompts))], list[int])[0]

    def answer(
        self, requests: Sequence[GenerationPrompt], decoding: Greedy | BeamSearch | Sampling, *, seed: int, label: str
    ) -> list[GeneratedText]:
        """Return one reply per request, in their order; ``label`` names the progress bar.

        The seconds of all replies add up to the wall time of this call.
        """
        if not requests:
            return []
        count = min(len(self._pool), len(requests))
        call = AnswerCall(list(requests), decoding.model_dump(mode="json"), seed, count)
        replies: dict[int, GeneratedText] = {}
        with progress.bar(label, len(requests)) as bar:
            for part in self._pool.call([call] * count, dict[int, GeneratedText], bar):
                replies |= part
        return [replace(replies[index], seconds=replies[index].seconds / count) for index in range(len(requests))]

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


class ReplicatedReference:
    """A ``packaging.protocols.TrainedModel`` that is held by several processes."""

    def __init__(self, pool: ReplicaPool, batch: int) -> None:
        """``pool`` holds reference models; ``batch`` is hardware.generate_batch."""
        self._pool, self._batch = pool, batch

    def generate(self, prompts: Sequence[Sequence[int]], limit: int) -> list[GreedyOutput]:
        """Return one greedy answer per prompt (token ids), of at most ``limit`` tokens."""
        shares = self._distribute([len(ids) for ids in prompts])
        calls = [GenerateCall([list(prompts[index]) for index in share], limit) for share in shares]
        return _in_order(shares, self._pool.call(calls, list[GreedyOutput]))

    def likelihood(
        self, prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]], of: Sequence[Sequence[int]]
    ) -> list[list[float]]:
        """Return per answer the log-probability (nats) of each token of its list in ``of``, given the prompt and the answer up to that position."""
        shares = self._distribute([len(p) + len(a) for p, a in zip(prompts, answers, strict=True)])
        calls = [
            LikelihoodCall(*([list(rows[index]) for index in share] for rows in (prompts, answers, of)))
            for share in shares
        ]
        return _in_order(shares, self._pool.call(calls, list[list[float]]))

    def _distribute(self, lengths: Sequence[int]) -> list[list[int]]:
        """Return the indices for each process: whole batches, the longest first, in the batches that one process would form."""
        order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
        batches = [order[start : start + self._batch] for start in range(0, len(order), self._batch)]
        count = min(len(self._pool), len(batches))
        return [[index for batch in batches[rank::count] for index in batch] for rank in range(count)]

    def close(self) -> None:
        """End the processes."""
        self._pool.close()


def _in_order(shares: Sequence[Sequence[int]], parts: Sequence[Sequence[T]]) -> list[T]:
    by_index = {
        index: value
        for share, part in zip(shares, parts, strict=True)
        for index, value in zip(share, part, strict=True)
    }
    return [by_index[index] for index in range(len(by_index))]


@dataclass
class ReplicaLauncher:
    """Opens models on several processes of this machine; ``ends`` gets one entry per model opened."""

    stage: str
    settings: TorchrunLaunch
    profile: HardwareProfile
    ends: list[ReplicaEnd] = field(default_factory=list)

    @cached_property
    def count(self) -> int:
        """Number of processes; it is computed when a model is opened, because a stage that opens none needs no GPU."""
        return count_ranks(self.settings, self.profile.device)

    def open_generator(self, folder: Path, adapter: Path | None) -> Generator:
        """Return an ``evaluation.protocols.Generator`` on all processes, for the model in ``folder`` with ``adapter``."""
        if self.count == 1:
            return replica_worker.load_generator(folder, adapter, self.profile)
        return ReplicatedGenerator(self._open("generator", folder, adapter, self.profile))

    def open_reference(
        self, folder: Path, adapter: Path | None, stops: Sequence[int], profile: HardwareProfile
    ) -> TrainedModel:
        """Return a ``packaging.protocols.TrainedModel`` on all processes; ``stops`` are the token ids that end an answer."""
        if self.count == 1:
            return replica_worker.load_reference(folder, adapter, stops, profile)
        return ReplicatedReference(self._open("reference", folder, adapter, profile, stops), profile.generate_batch)

    def _open(
        self,
        kind: Any,
        folder: Path,
        adapter: Path | None,
        profile: HardwareProfile,
        stops: Sequence[int] = (),
    ) -> ReplicaPool:
        if not self.ends:
            _log.info("%s: %d processes on %s write answers", self.stage, self.count, profile.device)
        if profile.threads is None:
            threads = max(1, len(os.sched_getaffinity(0)) // self.count)
            profile = profile.model_copy(update={"threads": threads})
        request = ReplicaRequest(
            kind,
            str(folder.absolute()),
            str(adapter.absolute()) if adapter else None,
            profile.model_dump(mode="json"),
            list(stops),
        )
        pool = ReplicaPool(request, self.count)
        self.ends.append(ReplicaEnd(self.count, profile.device))
        return pool
