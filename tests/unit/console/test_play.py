"""Play: recorded answers without a server; with one, its answer is passed on as it comes, and nobody else is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from console_projects import Console, build

ASKED: list[dict[str, Any]] = []


class Answering(BaseHTTPRequestHandler):
    """Says what it was asked, as an OpenAI server streams."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append({**body, "path": self.path, "key": self.headers.get("Authorization")})
        if self.path == "/v1/feedback":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")
            return
        if body["messages"][0]["content"] == "refuse":
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


@pytest.fixture
def server() -> Iterator[str]:
    ASKED.clear()
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}"
    listening.shutdown()
    listening.server_close()


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(build(tmp_path / "shop"))


def declare(console: Console, server: str) -> None:
    path = console.layout.conf / "console" / "default.yaml"
    path.write_text(path.read_text().replace("servers: []", f"servers: [{server}]"))


def test_without_a_server_recorded_answers_are_shown(console: Console) -> None:
    shown = console.client.get("/play.json").json()
    assert (shown["servers"], len(shown["recorded"])) == ([], 25)
    page = console.client.get(f"/play?recorded={shown['recorded'][3]['id']}")
    assert "Shop 3 is the place. See you there!" in page.text
    assert 'id="play"' not in page.text


def test_a_live_question_is_asked_again(console: Console) -> None:
    shown = console.client.get("/play.json?replay=chatcmpl-0003").json()
    assert shown["question"] == "An ad for shop 3"


def test_the_answer_of_a_server_is_passed_on(console: Console, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECTL_SERVER_KEY", "tk-secret")
    declare(console, server)
    assert 'id="play"' in console.client.get("/play").text
    answer = console.post("/play/ask", server=server, variant="champion", question="An ad?", temperature="0.5")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert [json.loads(line) for line in answer.text.splitlines()] == [
        {"text": "Come ", "chance": 1.0},
        {"text": "in, ", "chance": 0.3679},
        {"text": "champion", "chance": None},
        {"id": "chatcmpl-1", "tokens": 3},
    ]
    (asked,) = ASKED
    assert (asked["path"], asked["key"], asked["temperature"]) == ("/v1/chat/completions", "Bearer tk-secret", 0.5)
    assert asked["user"].startswith("console:")


def test_a_judgment_goes_to_the_server_under_the_visitors_name(console: Console, server: str) -> None:
    declare(console, server)
    fields = {"server": server, "inference": "chatcmpl-1", "value": "down"}
    assert console.post("/play/feedback", **fields).status_code == 204
    (sent,) = ASKED
    name = console.sign_in.find(next(iter(console.client.cookies.values()))).name
    assert (sent["path"], sent["inference_id"], sent["kind"], sent["value"]) == (
        "/v1/feedback",
        "chatcmpl-1",
        "thumb",
        "down",
    )
    assert sent["annotator"] == f"console:{name}"
    assert console.post("/play/feedback", **{**fields, "value": "5"}).status_code == 422
    assert console.post("/play/feedback", **{**fields, "server": "http://127.0.0.1:1"}).status_code == 422
    assert console.stranger().post("/play/feedback", data=fields).status_code in (401, 403)
    assert Console(console.layout, acts=False).post("/play/feedback", **fields).status_code == 403
    assert len(ASKED) == 1


def test_no_other_server_is_asked(console: Console, server: str) -> None:
    refused = console.post("/play/ask", server=server, variant="champion", question="An ad?")
    assert refused.status_code == 422
    declare(console, server)
    assert console.post("/play/ask", server=server, variant="../x", question="An ad?").status_code == 422
    assert console.post("/play/ask", server=server, variant="base", question=" ").status_code == 422
    assert console.post("/play/ask", server=server, variant="base", question="a", temperature="hot").status_code == 422
    assert ASKED == []


def test_what_a_server_refuses_is_said(console: Console, server: str) -> None:
    declare(console, server)
    refused = console.post("/play/ask", server=server, variant="base", question="refuse")
    assert refused.status_code == 502
    assert "429: too many" in refused.text


def test_asking_needs_the_scope_and_a_page_of_ours(console: Console, server: str) -> None:
    declare(console, server)
    fields = {"server": server, "variant": "base", "question": "An ad?"}
    assert console.client.post("/play/ask", data=fields, headers={"Origin": "https://evil.invalid"}).status_code == 403
    assert console.stranger().post("/play/ask", data=fields, headers={"Origin": "http://localhost"}).status_code == 401
    looking = Console(console.layout, acts=False)
    assert looking.post("/play/ask", **fields).status_code == 403
    assert ASKED == []
