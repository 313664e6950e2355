"""A server's life: readiness and its reasons, swaps without a dropped request, overload, disconnects, a graceful end."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import openai
from serving_process import Server

from tunectl.inference_log import pseudonyms
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.serving.routing import assign_variant

HI = [{"role": "user", "content": "Hi"}]
LONG: dict[str, Any] = {
    "model": "shop",
    "messages": HI,
    "max_tokens": 400,
    "temperature": 1.0,
    "seed": 3,
    "stream": True,
}


@contextmanager
def serving(folder: Path, store: ReleaseRegistry, **serve: Any) -> Iterator[Server]:
    server = Server(folder / "server", env={"TUNECTL_REGISTRY": str(store.root)}, **serve)
    try:
        server.until_ready(240)
        yield server
    finally:
        server.stop(seconds=90)


def stream(server: Server, body: dict[str, Any]) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    headers = {"Authorization": f"Bearer {server.keys['chat']}", "Content-Type": "application/json"}
    headers["Connection"] = "close"  # the socket is the reply's alone, and ends with it
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    return connection.getresponse()


def begin_request(server: Server, body: dict[str, Any]) -> socket.socket:
    """Send a request but for a space and the last letter of its body."""
    data = json.dumps(body).encode()[:-1]
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {server.keys['chat']}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data) + 2}\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall(head.encode() + data)
    return connection


def answered(client: openai.OpenAI, user: str | None) -> str:
    """The release that answers somebody who leaves the choice to the server."""
    named = {} if user is None else {"user": user}
    said = client.chat.completions.create(model="shop", messages=HI, max_tokens=1, **named)
    return str(said.system_fingerprint)


def test_swap_challenger_and_way_back_without_a_dropped_request(
    store: ReleaseRegistry, releases: tuple, tmp_path: Path
) -> None:
    first, second = releases[1], releases[2]
    seen: list[str] = []
    stop = threading.Event()
    with serving(tmp_path, store) as server:
        client = openai.OpenAI(base_url=f"{server.address}/v1", api_key=server.keys["chat"], max_retries=0, timeout=120)

        def ask() -> None:
            while not stop.is_set():
                seen.append(client.chat.completions.create(model="shop", messages=HI, max_tokens=4).system_fingerprint)

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        is_champion = lambda name: lambda ready, said: ready and said["variants"]["champion"]["release"] == name
        store.promote(second, author="test", message="better")
        server.wait(is_champion(second), 120)
        start = time.monotonic()
        store.rollback(author="test", message="back")
        server.wait(is_champion(first), 30, every=0.02)
        back = time.monotonic() - start
        store.start_canary(second, share=0.5, author="test", message="is it better?")
        server.wait(lambda _, said: "challenger" in said["variants"], 120)
        told = client.chat.completions.create(model="challenger", messages=HI, max_tokens=1)
        people = [f"person {number}" for number in range(24)]
        once, again = ([answered(client, one) for one in people] for _ in range(2))
        assert once == again  # whoever comes back meets the same model
        assert set(once) == {first, second}
        variant = assign_variant(pseudonyms.identify_caller(None, "chat"), store.canary())
        assert answered(client, None) == {"champion": first, "challenger": second}[variant]  # as the log hashes it
        stop.set()
        for asker in askers:
            asker.join(60)
        assert told.system_fingerprint == second
        assert {first, second} == set(seen)  # every single request was answered, by one of the two
        assert back < 5
        assert server.metrics()[f'tunectl_model_info{{base="tiny",release="{second}",variant="challenger"}}'] == 1


def test_a_broken_release_leaves_the_old_one_serving(store: ReleaseRegistry, releases: tuple, tmp_path: Path) -> None:
    with serving(tmp_path, store) as server:
        bad = store.folder(releases[2]) / "adapter" / "adapter_model.safetensors"
        store.promote(releases[2], author="test", message="it was whole a moment ago")
        bad.write_bytes(bad.read_bytes()[:-1] + b"x")
        said = server.wait(
            lambda _, said: "problems" in said or said["variants"]["champion"]["release"] == releases[2], 60
        )
        if "problems" in said:  # else it was loaded before it was damaged
            assert said["variants"]["champion"]["release"] == releases[1]
            assert "adapter/adapter_model.safetensors was changed" in said["problems"]["champion"]
        assert server.call("/v1/chat/completions", {**LONG, "stream": False, "max_tokens": 1})[0] == 200


def test_overload_is_refused_at_once_and_a_disconnect_frees_the_place(store: ReleaseRegistry, tmp_path: Path) -> None:
    with serving(tmp_path, store, limits__max_concurrency=1, limits__max_queue=1) as server:
        first, second = stream(server, LONG), None
        waiting = threading.Thread(target=lambda: stream(server, {**LONG, "max_tokens": 2}).read())
        waiting.start()
        until = time.monotonic() + 30
        while server.metrics()["tunectl_requests_waiting"] < 1:
            assert time.monotonic() < until
        status, headers, body = server.call("/v1/chat/completions", LONG)
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        assert json.loads(body)["error"]["code"] == "queue_full"
        first.fp.raw._sock.shutdown(socket.SHUT_RDWR)  # the client is gone
        waiting.join(60)
        assert not waiting.is_alive()
        until = time.monotonic() + 30
        while server.metrics()["tunectl_requests_running"] > 0:
            assert time.monotonic() < until
        found = server.metrics()
        assert found['tunectl_requests_total{finished_reason="cancelled"}'] == 1
        assert found['tunectl_requests_rejected_total{reason="queue_full"}'] == 1
        assert found["tunectl_generation_tokens_total"] < 400
        assert second is None


def test_a_request_may_take_only_so_long(store: ReleaseRegistry, tmp_path: Path) -> None:
    with serving(tmp_path, store, limits__request_timeout_seconds=0.5) as server:
        status, _, body = server.call("/v1/chat/completions", {**LONG, "stream": False, "n": 8})
        assert status == 504
        assert json.loads(body)["error"]["code"] == "timeout"


def test_when_the_worker_is_killed_the_program_ends(store: ReleaseRegistry, tmp_path: Path) -> None:
    with serving(tmp_path, store) as server:
        children = subprocess.run(
            ["ps", "-o", "pid=", "--ppid", str(server.process.pid)], capture_output=True, text=True
        ).stdout
        for pid in children.split():
            os.kill(int(pid), signal.SIGKILL)
        assert server.process.wait(60) != 0


def test_sigterm_finishes_streams_then_ends(store: ReleaseRegistry, tmp_path: Path) -> None:
    with serving(tmp_path, store, shutdown__pre_stop_seconds=1) as server:
        streams = [stream(server, {**LONG, "max_tokens": 100, "seed": number}) for number in range(8)]
        late = begin_request(server, {**LONG, "stream": False, "max_tokens": 2})
        server.process.send_signal(signal.SIGTERM)
        said = server.wait(lambda ready, _: not ready, 10, every=0.02)
        assert said["reason"] == "the server is stopping"
        asked = time.monotonic()
        status, _, body = server.call("/v1/chat/completions", {**LONG, "stream": False, "max_tokens": 2})
        assert status == 200, body  # until the notice is over
        late.sendall(b" ")
        time.sleep(max(0.0, asked + 1.3 - time.monotonic()))
        late.sendall(b"}")
        with late, late.makefile("rb") as reply:
            answer = reply.read()
        assert answer.startswith(b"HTTP/1.1 503")
        assert b'"draining"' in answer
        assert b"retry-after" in answer.lower()
        for one in streams:
            assert one.read().endswith(b"data: [DONE]\n\n")
        assert server.process.wait(60) == 0
