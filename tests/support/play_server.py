"""A server that Play asks: it says what it was asked, as an OpenAI server streams, and keeps what came."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tunectl.artifacts.paths import ProjectPaths

ASKED: list[dict[str, Any]] = []
READINESS: dict[str, bytes] = {"body": b""}
"""What it says at ``/readyz``, and beside it."""


class Answering(BaseHTTPRequestHandler):
    """Says what it was asked, as an OpenAI server streams."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/readyz" else 503)
        self.end_headers()
        self.wfile.write(READINESS["body"])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
        if self.path == "/v1/feedback":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")
            return
        if body["messages"][-1]["content"] == "refuse":
            self.send_response(429)
            self.end_headers()
            self.wfile.write(b'{"error": {"message": "too many"}}')
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for piece, logprob in (("Come ", 0.0), ("in, ", -1.0), (body["model"], None)):
            tokens = None if logprob is None else {"content": [{"token": piece, "logprob": logprob}]}
            choice = {"delta": {"content": piece}, "logprobs": tokens}
            self._write({"id": "chatcmpl-1", "choices": [choice]})
        self._write({"id": "chatcmpl-1", "choices": [], "usage": {"completion_tokens": 3}})
        self.wfile.write(b"data: [DONE]\n\n")

    def _write(self, event: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(event).encode() + b"\n\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def run_play_server() -> Iterator[str]:
    """Serve while the block runs; yields the address."""
    ASKED.clear()
    READINESS["body"] = b""
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


def declare(layout: ProjectPaths, server: str) -> None:
    """Name the server in the settings of a project."""
    path = layout.conf / "console" / "default.yaml"
    path.write_text(path.read_text().replace("servers: []", f"servers: [{server}]"))
