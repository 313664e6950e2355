"""Promoted means that every server reports it: real servers on loopback that say what they are told."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tunectl.cli.main import main
from tunectl.cli.release_wait import wait_until_ready
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.registry.release_store import ReleaseRegistry


class Says(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, body = self.server.said.pop(0) if len(self.server.said) > 1 else self.server.said[0]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def log_message(self, *_) -> None:
        pass


@contextmanager
def saying(*said) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Says)
    server.said = list(said)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def serves(release: str, **other) -> dict:
    return {"ready": True, "variants": {"champion": {"release": release}}, **other}


def test_it_waits_for_the_last_one() -> None:
    with (
        saying((200, serves("new"))) as one,
        saying((200, serves("old")), (503, {"ready": False, "variants": {}}), (200, serves("new"))) as other,
    ):
        assert wait_until_ready([one, other], "new", 30) >= 1.0


def test_who_does_not_follow_is_named_with_the_reason() -> None:
    trouble = serves("old", problems={"champion": "release new is damaged\n  package again"})
    with saying((200, trouble)) as one, saying((502, b"bad gateway")) as two, saying((200, serves("new"))) as three:
        with pytest.raises(InfrastructureError) as caught:
            wait_until_ready([one, two, three, "http://127.0.0.1:9"], "new", 0)
        assert caught.value.message.startswith(
            f"after 0 s 3 of 4 servers do not serve new: {one}: serves old (release new is damaged); "
            f"{two}: is no server of ours; http://127.0.0.1:9: does not answer ("
        )


def test_what_is_no_address() -> None:
    with pytest.raises(UsageError) as caught:
        wait_until_ready(["file:///etc/passwd"], "new", 1)
    assert (
        str(caught.value) == "--wait file:///etc/passwd: is not an address\n  for example --wait http://127.0.0.1:3000"
    )


@pytest.mark.parametrize(
    ("address", "seconds"),
    [("http://", 1.0), ("http://h:x", 1.0), ("http://a b", 1.0), ("http://[::1", 1.0), ("http://h", float("nan")), ("http://h", -1.0)],
)  # fmt: skip
def test_a_wrong_address_or_time_is_refused_before_anything_is_promoted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], address: str, seconds: float
) -> None:
    registry = ReleaseRegistry(tmp_path)
    assert (
        main(["release", "promote", "--store", str(tmp_path), "any", "--wait", address, "--seconds", f"{seconds}"]) == 2
    )
    assert "--wait" in (err := capsys.readouterr().err) or "--seconds" in err
    assert registry.champion() is None


def test_a_server_that_speaks_no_http_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def speak() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"what?\r\n\r\n")

        thread = threading.Thread(target=speak)
        thread.start()
        with pytest.raises(InfrastructureError, match="does not answer"):
            wait_until_ready([f"http://127.0.0.1:{server.getsockname()[1]}"], "new", 0)
        thread.join()
