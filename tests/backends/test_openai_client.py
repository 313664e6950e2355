"""The judge over HTTP, against a fake server on loopback."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tunectl.artifacts.records import Message
from tunectl.backends.text import openai_client
from tunectl.backends.text.openai_client import OpenAiClient
from tunectl.config.schema.evaluate import LlmJudge
from tunectl.core.errors import InfrastructureError, UsageError

pytest.importorskip("httpx")
TALK = [Message("system", "rules"), Message("user", "which?")]


@contextmanager
def server(reply):
    """``reply(number, body)`` gives status and text of the n-th request."""
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"path": self.path, "key": self.headers.get("Authorization"), **body})
            status, text = reply(len(seen), body)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *words):
            pass

    running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{running.server_port}/v1", seen
    finally:
        running.shutdown()
        running.server_close()
        thread.join()


def judge(url, **changes):
    values = {
        "base_url": url, "model": "big", "api_key_env": None, "question": "better?", "inputs": 4,
        "timeout_seconds": 5, "concurrency": 2,
    }  # fmt: skip
    return LlmJudge(**{**values, **changes})


def said(text):
    return json.dumps({"choices": [{"message": {"content": text}}]})


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(openai_client, "PAUSE", 0)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


def test_replies_come_in_order_with_the_key_of_the_variable(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "secret-1")
    with server(lambda number, body: (200, said(body["messages"][1]["content"]))) as (url, seen):
        ask = OpenAiClient(judge(url, api_key_env="JUDGE_KEY"))
        talks = [[TALK[0], Message("user", str(number))] for number in range(6)]
        assert ask(talks) == [str(number) for number in range(6)]
    assert seen[0]["path"] == "/v1/chat/completions"
    assert {request["key"] for request in seen} == {"Bearer secret-1"}
    assert (seen[0]["model"], seen[0]["temperature"]) == ("big", 0)


def test_a_busy_server_is_retried():
    with server(lambda number, body: (429, "busy") if number < 3 else (200, said("[[A]]"))) as (url, seen):
        assert OpenAiClient(judge(url, concurrency=1))([TALK]) == ["[[A]]"]
    assert len(seen) == 3


def test_a_refusal_is_reported_with_its_words():
    with server(lambda number, body: (401, "wrong key")) as (url, seen):
        with pytest.raises(InfrastructureError) as caught:
            OpenAiClient(judge(url))([TALK])
        assert caught.value.message == f"the judge at {url}/chat/completions gave no usable answer: HTTP 401: wrong key"
        assert caught.value.hint == (
            "check evaluate.judge.base_url, evaluate.judge.model, and the key in the variable that evaluate.judge.api_key_env "
            "names; or switch the judge off: evaluate.judge=null"
        )
    assert len(seen) == 1


def test_another_shape_is_reported():
    with server(lambda number, body: (200, "{}")) as (url, _), pytest.raises(InfrastructureError) as caught:
        OpenAiClient(judge(url))([TALK])
    assert (
        caught.value.message
        == f"the judge at {url}/chat/completions gave no usable answer: its reply has no text at choices[0].message.content: {{}}"
    )


def test_an_address_where_nobody_listens():
    with server(lambda number, body: (200, "")) as (url, _):
        pass
    with pytest.raises(InfrastructureError) as caught:
        OpenAiClient(judge(url))([TALK])
    assert caught.value.message == (
        f"the judge at {url}/chat/completions gave no usable answer: [Errno 111] Connection refused"
    )


def test_a_named_key_that_is_not_set(monkeypatch):
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(UsageError) as caught:
        OpenAiClient(judge("http://127.0.0.1:1/v1", api_key_env="JUDGE_KEY"))
    assert caught.value.message == "evaluate.judge.api_key_env names JUDGE_KEY, but that variable is not set"


def test_nothing_to_ask_asks_nobody():
    assert OpenAiClient(judge("http://127.0.0.1:1/v1"))([]) == []
