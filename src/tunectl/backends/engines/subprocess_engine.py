"""Run an inference engine in a subprocess, controlled over a socket.

OpenVINO GenAI's Python holds the interpreter's lock while it loads and during every step (its binding of ``step`` releases
nothing): in the server's own process the event loop would stand still for most of the time, and streams would come in bursts.
A crash inside any engine ends its process only: its requests fail with an error, and the server opens the release anew. One that hangs
while it opens can be ended, and gives its memory back. vLLM starts processes itself; those end with the one that started them.

    to the engine    [number, Ask], or [number, null] to cancel
    from the engine  first "" or why it cannot be opened; then [[number, Piece], ...] per step, or the reason why it broke

Each is a msgpack message, after its length in four bytes. The engine ends when its end of the socket closes, so it never outlives a server.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import msgspec

from tunectl.backends.system.framed_socket import encode_frame, read_frames
from tunectl.core import logging_setup
from tunectl.core.errors import ArtifactError, TunectlError
from tunectl.generation.engine import Deliver, Engine, FinishReason, GenerationRequest, TokenChunk

PACKAGES: Final = Path(__file__).resolve().parents[3]
"""The folder that holds this package, for a process that was not installed with it."""
CLOSE_TIMEOUT: Final = 30.0
"""Seconds from the request to end until a process is killed."""
OPEN_HINT: Final = (
    "its log lines above say why; if memory ran out, free some (with OpenVINO also: lower serve.engine.kv_cache_tokens); "
    "otherwise check the release: tunectl release verify"
)
EngineRequest = tuple[int, GenerationRequest | None]
EngineMessage = list[tuple[int, TokenChunk]] | str
_decode_request = msgspec.msgpack.Decoder(EngineRequest).decode
_decode_message = msgspec.msgpack.Decoder(EngineMessage).decode


@dataclass(frozen=True, slots=True)
class SubprocessEngine:
    """An ``Engine`` that opens each session of another engine, made by ``factory``, in a process of its own."""

    name: str
    factory: str
    """``module:name`` of the function that makes the engine there."""
    settings: dict[str, Any]
    """Keyword arguments of that function."""
    _opening: list[SubprocessSession] = field(default_factory=list, init=False, repr=False, compare=False)
    _cancelled: threading.Event = field(default_factory=threading.Event, init=False, repr=False, compare=False)

    def open(self, release: Path, deliver: Deliver, *, adapter: bool) -> SubprocessSession:
        """Start a process that loads the release, and return its session once it is loaded.

        Raises  ArtifactError with the engine's error message where the release cannot be loaded, or when the process dies.
        """
        session_settings = {
            "factory": self.factory,
            "settings": self.settings,
            "release": str(release),
            "adapter": adapter,
        }
        session = SubprocessSession(self.name, json.dumps(session_settings), deliver)
        self._opening.append(session)
        try:
            if self._cancelled.is_set():
                session.kill()
            session.load()
        finally:
            self._opening.remove(session)
        return session

    def cancel_open(self) -> None:
        """Kill the processes that are still loading, and open no more."""
        self._cancelled.set()
        for session in list(self._opening):
            session.kill()


class SubprocessSession:
    """An ``EngineSession`` whose engine runs in a child process: sends it requests and receives its tokens over a socket.

    The process starts with the object; ``load`` waits until it can answer.
    """

    def __init__(self, name: str, session_settings: str, deliver: Deliver) -> None:
        self.broken: str | None = None
        self._name, self._deliver = name, deliver
        self._open_requests: dict[int, None] = {}
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closing = self._over = False
        paths = [str(PACKAGES), *filter(None, [os.environ.get("PYTHONPATH")])]
        self._socket, child_socket = socket.socketpair()
        with child_socket:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    __name__,
                    str(child_socket.fileno()),
                    session_settings,
                ],  # no module of the working folder
                stdin=subprocess.DEVNULL,
                pass_fds=(child_socket.fileno(),),
                process_group=0,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            )
        self._frames = read_frames(self._socket)
        threads = ((self._read, "reads"), (self._write, "writes"))
        self._threads = [threading.Thread(target=run, name=f"{name} {what}", daemon=True) for run, what in threads]

    def load(self) -> None:
        """Wait until the child process has loaded the release.

        Raises  ArtifactError with the engine's error message where the release cannot be loaded, or when the process dies.
        """
        message = self._first()
        if message:
            self._end()
            text, _, hint = message.partition("\n  ")  # as ``str`` joins the two of an error
            raise ArtifactError(text, hint=hint)
        for thread in self._threads:
            thread.start()

    def _first(self) -> str:
        """Return why the session is not open; empty when it is."""
        message = next(self._frames, None)
        if message is None:
            return f"the engine {self._name} cannot be opened: its process {self._describe_exit()}\n  {OPEN_HINT}"
        return str(_decode_message(message))

    def _describe_exit(self) -> str:
        try:
            code = self._process.wait(CLOSE_TIMEOUT)
        except subprocess.TimeoutExpired:
            return "does not answer"
        if code >= 0:
            return f"ended with exit code {code}; its log lines above say why"
        cause = ": mostly the system does so when memory is short" if code == -signal.SIGKILL else ""
        return f"was ended by signal {-code} ({signal.Signals(-code).name}){cause}"

    def start(self, number: int, request: GenerationRequest) -> None:
        """Send a request to the process, under the number by which ``deliver`` reports its tokens."""
        self._open_requests[number] = None
        self._outbox.put(encode_frame((number, request)))
        if self._over:
            self._give_up()

    def cancel(self, number: int) -> None:
        """Tell the process to cancel request ``number``."""
        if number in self._open_requests:
            self._outbox.put(encode_frame((number, None)))

    def kill(self) -> None:
        """Kill the process and all that it started; do nothing if it has ended."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Close the socket, so that the process cancels running requests and ends; wait for its end."""
        self._closing = True
        self._outbox.put(None)
        until = time.monotonic() + CLOSE_TIMEOUT
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        self._end(max(0.0, until - time.monotonic()))

    def _end(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Close the process, what it started and left, and the socket; safe to call twice."""
        if self._socket.fileno() < 0:
            return
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            logging_setup.get_logger(__name__).warning(
                "the process of the engine %s does not end; it is killed", self._name
            )
        self.kill()
        self._process.wait()
        self._socket.close()

    def _write(self) -> None:
        try:
            while (message := self._outbox.get()) is not None:
                self._socket.sendall(message)
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:  # the other end is gone; the reading thread reports it to all requests
            return

    def _read(self) -> None:
        try:
            for frame in self._frames:
                self._handle_message(_decode_message(frame))
        except OSError:
            pass
        if not self._closing and self.broken is None:
            self.broken = f"its process {self._describe_exit()}"
            logging_setup.get_logger(__name__).error("the engine %s: %s", self._name, self.broken)
        self._over = True
        self._give_up()
        self._outbox.put(None)

    def _handle_message(self, message: EngineMessage) -> None:
        if isinstance(message, str):
            self.broken = message
            return
        for number, piece in message:
            if piece.end is not None:
                self._open_requests.pop(number, None)
        self._deliver(message)

    def _give_up(self) -> None:
        """Fail every open request, each once, whichever thread comes first."""
        end: FinishReason = "failed" if self.broken is not None else "cancelled"
        for number in list(self._open_requests):
            if self._open_requests.pop(number, number) is None:
                self._deliver([(number, TokenChunk([], [], end, self.broken or ""))])


class _EngineServer:
    """The engine's side: a session and the socket that leads to the server."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._failure_sent = False
        self.session: Any = None

    def deliver(self, batch: Sequence[tuple[int, TokenChunk]]) -> None:
        """Send what a step produced; before the pieces of a failure, the message that the session is broken."""
        broken = self.session and self.session.broken
        try:
            if broken and not self._failure_sent:
                self._failure_sent = True
                self._socket.sendall(encode_frame(broken))
            self._socket.sendall(encode_frame(batch))
        except OSError:  # the server is gone; the thread that reads ends this process
            return

    def run(self, engine: Engine, release: Path, *, adapter: bool) -> None:
        """Open the release, then handle every message until the server is gone."""
        try:
            self.session = engine.open(release, self.deliver, adapter=adapter)
        except TunectlError as error:
            self._socket.sendall(encode_frame(str(error)))
            return
        except Exception as error:  # noqa: BLE001  # errors of the libraries, for example of a full GPU
            logging_setup.get_logger(__name__).exception("the engine %s failed", engine.name)
            reason = f"{release}: the engine {engine.name} cannot open it: {type(error).__name__}: {str(error).strip()[:300]}"
            self._socket.sendall(encode_frame(f"{reason}\n  {OPEN_HINT}"))
            return
        self._socket.sendall(encode_frame(""))
        for frame in read_frames(self._socket):
            number, ask = _decode_request(frame)
            if ask is None:
                self.session.cancel(number)
            else:
                self.session.start(number, ask)
        self.session.close()


def _close_inherited(connection: socket.socket) -> None:
    """Close a socket that a process forked by the engine would hold open: the server could not see the engine's own end."""
    with suppress(OSError):
        os.close(connection.detach())


def main(number: int, session_settings: dict[str, Any]) -> None:
    """Run one engine session in this process, on the socket with file descriptor ``number``.

    SIGINT and SIGTERM are ignored, so that a server that shuts down can finish its answers; closing the socket ends this process.
    """
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)
    logging_setup.configure_logging(json_lines=True)
    module, _, name = session_settings["factory"].partition(":")
    engine: Engine = getattr(import_module(module), name)(**session_settings["settings"])
    with socket.socket(fileno=number) as connection:
        os.register_at_fork(after_in_child=partial(_close_inherited, connection))
        _EngineServer(connection).run(engine, Path(session_settings["release"]), adapter=session_settings["adapter"])
    sys.stdout.flush()
    os._exit(0)  # a slow or failing teardown of the libraries is skipped


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
