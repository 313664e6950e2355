"""Play: recorded answers without a server; with one, its answer is passed on as it comes, and nobody else is asked."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from console_projects import NOW, Console, build
from console_records import URL
from msgspec.structs import replace
from play_server import ASKED, declare, run_play_server

from tunectl.access import api_keys
from tunectl.access.api_keys import KeyStore
from tunectl.backends.storage import inference_log_sql
from tunectl.console import play_stream


@pytest.fixture
def server() -> Iterator[str]:
    with run_play_server() as address:
        yield address


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(build(tmp_path / "shop"))


def test_without_a_server_recorded_answers_are_shown(console: Console) -> None:
    shown = console.client.get("/play.json").json()
    assert (shown["servers"], len(shown["recorded"])) == ([], 25)
    page = console.client.get(f"/play?recorded={shown['recorded'][3]['id']}")
    assert "Shop 3 is the place. See you there!" in page.text
    assert 'id="play"' not in page.text


def test_a_live_question_is_asked_again(console: Console) -> None:
    shown = console.client.get("/play.json?replay=chatcmpl-0003").json()
    assert shown["question"] == "An ad for shop 3"


def test_what_came_before_a_question_is_sent_again_with_it(console: Console, server: str) -> None:
    declare(console.layout, server)
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "An ad?"}]
    told += [{"role": "assistant", "content": "For what?"}, {"role": "user", "content": "A cafe"}]
    with inference_log_sql.open_log(URL, console.layout.root) as log:
        first = log.inference("chatcmpl-0003")
        log.write([replace(first, id="chatcmpl-talk", request={**first.request, "messages": told})])
    shown = console.client.get("/play.json?replay=chatcmpl-talk").json()
    assert (shown["earlier"], shown["question"]) == (told[:3], "A cafe")
    assert "Sent before it: 3 messages" in console.client.get("/play?replay=chatcmpl-talk").text
    fields = {"server": server, "variant": "base", "question": "A small cafe", "replay": "chatcmpl-talk"}
    assert console.post("/play/ask", **fields).status_code == 200
    assert ASKED[0]["messages"] == [*told[:3], {"role": "user", "content": "A small cafe"}]


def test_who_may_not_read_the_log_has_no_model_repeat_it(console: Console, server: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret, entry = api_keys.create_key("builder", ["operate"], None, NOW)
    api_keys.add(path, entry)
    keys = KeyStore(path, 0.0)
    keys.load()
    other = Console(console.layout, keys=keys)
    other.client = other.stranger()
    assert other.post("/enter", secret=secret).status_code == 303
    declare(console.layout, server)
    fields = {"server": server, "variant": "base", "question": "Repeat what was said."}
    refused = other.post("/play/ask", **fields, replay="chatcmpl-0003")
    assert (refused.status_code, ASKED) == (403, [])
    assert "with the scope look only" in refused.text
    assert other.post("/play/ask", **fields).status_code == 200


def test_the_answer_of_a_server_is_passed_on(console: Console, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECTL_SERVER_KEY", "tk-secret")
    declare(console.layout, server)
    assert 'id="play"' in console.client.get("/play").text
    answer = console.post("/play/ask", server=server, variant="champion", question="An ad?", temperature="0.5")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/x-ndjson")
    assert answer.headers["content-encoding"] == "identity"  # compression would hold the pieces back
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
    declare(console.layout, server)
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
    declare(console.layout, server)
    assert console.post("/play/ask", server=server, variant="../x", question="An ad?").status_code == 422
    assert console.post("/play/ask", server=server, variant="base", question=" ").status_code == 422
    assert console.post("/play/ask", server=server, variant="base", question="a", temperature="hot").status_code == 422
    for name in ("temperature", "max_tokens"):
        given = {"server": server, "variant": "base", "question": "a", name: "nan"}
        assert console.post("/play/ask", **given).status_code == 422, name
    assert ASKED == []


def test_what_a_server_refuses_is_said(console: Console, server: str) -> None:
    declare(console.layout, server)
    refused = console.post("/play/ask", server=server, variant="base", question="refuse")
    assert refused.status_code == 502
    assert refused.text == f"{server} answered HTTP 429: too many\n"  # the page shows it as it is


def test_asking_needs_the_scope_and_a_page_of_ours(console: Console, server: str) -> None:
    declare(console.layout, server)
    fields = {"server": server, "variant": "base", "question": "An ad?"}
    assert console.client.post("/play/ask", data=fields, headers={"Origin": "https://evil.invalid"}).status_code == 403
    assert console.stranger().post("/play/ask", data=fields, headers={"Origin": "http://localhost"}).status_code == 401
    looking = Console(console.layout, acts=False)
    assert 'id="play"' not in looking.client.get("/play").text  # who may not ask sees no button for it
    assert "it takes a key with the scope operate" in looking.client.get("/play").text
    assert looking.post("/play/ask", **fields).status_code == 403
    assert ASKED == []


def test_servers_that_say_nothing_keep_no_page_waiting(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(play_stream, "TIMEOUT_SECONDS", 4.0)
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}

    async def ask(silent: str) -> tuple[list[int], int, list[int]]:
        transport = httpx.ASGITransport(app=console.application)
        cookies = dict(console.client.cookies)
        fields = {"server": silent, "variant": "base", "question": "An ad?"}
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", cookies=cookies) as browser:

            async def send() -> int:
                return (await browser.post("/play/ask", data=fields, headers=own, timeout=30)).status_code

            waiting = [asyncio.create_task(send()) for _ in range(play_stream.MAX_PLAYS)]
            await asyncio.sleep(1)
            refused = await send()
            page = await asyncio.wait_for(browser.get("/build"), timeout=2)
            assert not any(task.done() for task in waiting)
            ended = await asyncio.gather(*waiting)
            return [refused, page.status_code], await send(), ended

    with socket.create_server(("127.0.0.1", 0), backlog=32) as listener:
        silent = f"http://127.0.0.1:{listener.getsockname()[1]}"
        declare(console.layout, silent)
        during, afterwards, ended = asyncio.run(ask(silent))
    assert during == [503, 200]
    assert afterwards not in (200, 503), "a slot is free again, and the server still says nothing"
    assert set(ended) == {afterwards}
