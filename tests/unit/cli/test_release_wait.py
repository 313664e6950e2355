"""Promoted means that every server reports it: real servers on loopback that say what they are told."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tunectl.cli.release_wait import wait_until_ready
from tunectl.core.errors import InfrastructureError, UsageError


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
