"""The arena on the real server: a person with a key of it chats, chooses, and both stores have it."""

from __future__ import annotations

import html
import http.cookiejar
import json
import re
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
from serving_process import Server

from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.preferences import annotation_store as judgments


class Person:
    """A browser without a screen."""

    def __init__(self, server: Server) -> None:
        self.address = server.address
        self.opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def post(self, path: str, **fields: str) -> str:
        data = urllib.parse.urlencode(fields).encode()
        request = urllib.request.Request(f"{self.address}/arena{path}", data, {"Origin": self.address})
        with self.opener.open(request, timeout=120) as answer:
            assert answer.headers["content-security-policy"].startswith("default-src 'none'")
            return html.unescape(answer.read().decode())


def test_chat_choose_and_keep(server: Server) -> None:
    secret = server.key("ada", ["chat", "feedback"])
    time.sleep(1.5)  # keys are looked at every second
    person = Person(server)
    assert "Write a message; two models answer." in person.post("/enter", name="Ada", key=secret)
    page = person.post("/ask", text="Hello, I am ada@example.org")
    showing = re.search(r'name="showing" value="(\w+)"', page)
    assert showing, page
    page = person.post("/said", showing=showing[1], choice="left", tag="off topic")
    assert "trouble" not in page
    assert "chosen" in page
    with judgments.open_store(server.folder / "judgments") as found:
        (said,) = found.list_annotations("ada")  # the name of the key, which acts for nobody else
        question = found.tasks[said.task]
    assert [turn.content for turn in question.messages] == ["Hello, I am [EMAIL_1]"]
    assert said.tags == ["off topic"]
    assert (
        question.systems[0] == question.systems[1] == f"champion {server.ready()[1]['variants']['champion']['release']}"
    )
    with open_log("sqlite:///.tunectl/inference_log/inference_log.sqlite", server.folder) as live:
        rows = [one for one in live.inferences() if "[EMAIL_1]" in json.dumps(one.request)]
        opinions = [one for found in live.feedback_of([row.id for row in rows]).values() for one in found]
    assert len(rows) == 2
    assert rows[0].session == rows[1].session is not None
    assert [(one.kind, one.value["choice"]) for one in opinions] == [("preference", said.choice)]
    assert opinions[0].value["other"] in {row.id for row in rows}


def test_the_arena_refuses_requests_without_a_valid_key(server: Server) -> None:
    with urllib.request.urlopen(f"{server.address}/arena") as answer:
        assert "Your name" in answer.read().decode()
    for path, fields in (("/enter", {"name": "Bo", "key": "sk-made-up"}), ("/ask", {"text": "hi"}), ("/new", {})):
        with pytest.raises(urllib.error.HTTPError) as caught:
            Person(server).post(path, **fields)
        assert caught.value.code == 401
