"""The arena in a real browser: keyboard, phone, blind sides, and what reaches the two stores.

Behind it stand the real inference log and a server of a few lines whose two variants answer by rule.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import threading
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
import uvicorn
from playwright.sync_api import expect

from tunectl.access.api_keys import ApiKey
from tunectl.annotation.annotate_app import listen
from tunectl.annotation.arena_app import ArenaAppConfig, application
from tunectl.artifacts.records import Feedback, InferenceRecord
from tunectl.backends.storage.inference_log_sql import open_log
from tunectl.backends.text import pii_resources
from tunectl.inference_log import feedback_validation
from tunectl.inference_log.log_store import RequestOutcome
from tunectl.inference_log.log_writer import Writer
from tunectl.inference_log.redact import Redactor
from tunectl.preferences import annotation_store as judgments
from tunectl.privacy.mask import PiiMasker

KEY, SALT = "sk-arena", b"0123456789abcdef"
HOLDER = ApiKey("app", "0" * 64, ["chat", "feedback", "acts_for"], None, datetime(2026, 11, 1, tzinfo=UTC))
FLAGS = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--no-sandbox"]


class Api:
    """The routes that the arena asks, on a real inference log."""

    def __init__(self, live, challenger=True) -> None:
        self.live, self.challenger, self.full, self.asked, self.said = live, challenger, False, [], Counter()
        masker = PiiMasker(pii_resources.tools(regions=["US"], locales=["en_US"]))
        self.writer = Writer(live, Redactor(masker, SALT), policy="refuse", timeout_seconds=60, waiting=100)

    async def __call__(self, scope, receive, send) -> None:
        body = json.loads((await receive())["body"] or b"{}")
        if dict(scope["headers"]).get(b"authorization") != f"Bearer {KEY}".encode():
            status, answer = 401, {"error": {"message": "wrong key", "type": "authentication_error"}}
        else:
            status, answer = await getattr(self, scope["path"].rsplit("/", 1)[1])(body)
        start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        await send(start)
        await send({"type": "http.response.body", "body": json.dumps(answer).encode()})

    async def models(self, _):
        variants = ["champion", "challenger"] if self.challenger else ["champion"]
        return 200, {"data": [{"id": variant, "variant": variant, "release": f"rel-{variant}"} for variant in variants]}

    async def completions(self, body):
        if self.full:
            return 429, {"error": {"message": "too many requests are waiting", "type": "rate_limit_error"}}
        self.asked.append(body)
        text = (
            f"{'Aye' if body['model'] == 'champion' else 'Bee'} says: {body['messages'][-1]['content']} {body['seed']}"
        )
        name = f"chatcmpl-{len(self.asked)}"
        now = datetime.now(UTC)
        await self.writer.accept(
            InferenceRecord(name, now, body["model"], f"rel-{body['model']}", "t", body, user_hash="u")
        )
        response = {"id": name, "choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}
        await self.writer.finish(name, RequestOutcome(now, response, 1, 1, "stop", 0.1))
        return 200, response

    async def feedback(self, body):
        kind = feedback_validation.validate_feedback(body["kind"], body["value"])
        row = Feedback(body["id"], body["inference_id"], kind, body["value"], datetime.now(UTC), body["annotator"])
        self.said[await self.writer.feedback(row)] += 1
        return 200, {"id": body["id"]}


@contextmanager
def serving(folder, **other):
    with open_log("sqlite:///inference_log.sqlite", folder) as live:
        api = Api(live, **other)
        setup = ArenaAppConfig(
            "local_lens",
            ("true to the input", "off topic"),
            folder / "judgments",
            api.writer._redact._masker,
            lambda key: HOLDER if key == KEY else None,
        )
        arena = application(api, setup)

        async def both(scope, receive, send):
            inside = scope["type"] != "http" or scope["path"].startswith("/arena")
            await (arena if inside else api)(scope, receive, send)

        listening = listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(both, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])))
        thread.start()
        while not server.started:
            time.sleep(0.02)
        api.url = f"http://127.0.0.1:{listening.getsockname()[1]}/arena"
        try:
            yield api
        finally:
            server.should_exit = True
            thread.join(20)
            api.writer.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield found
        found.close()


def enter(browser, api, name="Ada", key=KEY, **context):
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(60_000)
    page.goto(api.url)
    page.fill("[name=name]", name)
    page.fill("[name=key]", key)
    page.keyboard.press("Enter")
    return page


def asks(page, text):
    expect(page.locator("#ask textarea")).to_be_focused(timeout=60_000)
    page.keyboard.type(text)
    page.keyboard.press("Enter")
    page.wait_for_selector("#choose")
    return page.inner_text("#left p"), page.inner_text("#right p")


def kept(folder):
    with judgments.open_store(folder / "judgments") as found:
        return found.list_annotations(), found.tasks


def test_a_conversation_by_keyboard(tmp_path, browser):
    with serving(tmp_path) as api:
        page = enter(browser, api)
        seen = asks(page, "Call me at +1 415 555 2671, 1 e s")  # keys inside the text are text
        assert {text[:3] for text in seen} == {"Aye", "Bee"}
        for word in ("champion", "challenger", "rel-", "variant"):
            assert word not in page.content()
        page.keyboard.press("1")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector("#ask")
        assert page.locator(".turn p").all_inner_texts()[-1] == seen[1]
        asks(page, "And then?")
        assert [turn["content"] for turn in api.asked[-1]["messages"]][1] == seen[1]  # it goes on with what was chosen
        page.keyboard.press("e")
        expect(page.locator("[name=edit]")).to_be_focused()
        page.keyboard.type("Better so.")
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowUp")
        page.wait_for_selector("#ask")
        assert page.locator(".turn p").all_inner_texts()[-1] == "Better so."
        page.keyboard.press("Escape")
        page.keyboard.press("n")
        expect(page.locator(".turn")).to_have_count(0)
        asks(page, "Fresh")
        page.keyboard.press("s")
        page.wait_for_selector("#ask")
        said, questions = kept(tmp_path)
        rows = api.live.feedback_of([one.id for one in api.live.inferences()])
    assert [one.annotator for one in said] == ["Ada"] * 3
    first = questions[said[0].task]
    assert first.systems == ["champion rel-champion", "challenger rel-challenger"]
    assert first.messages[0].content == "Call me at [PHONE_1], 1 e s"
    assert all("[PHONE_1]" in text and "555" not in text for text in first.answers)
    wins = 0 if said[0].choice == "first" else 1
    assert ("Aye", "Bee")[wins] == seen[1][:3]
    assert said[0].tags == ["true to the input"]
    assert (said[1].choice, said[1].edit, said[2].choice) == ("both_good", "Better so.", "skip")
    kinds = sorted((one.kind, name) for name, found in rows.items() for one in found)
    assert [kind for kind, _ in kinds] == ["edit", "preference", "preference"]
    preference = next(one for one in rows["chatcmpl-1"] if one.kind == "preference") if "chatcmpl-1" in rows else None
    other = rows.get("chatcmpl-2", [])
    value = (preference or next(one for one in other if one.kind == "preference")).value
    assert value["choice"] == said[0].choice
    assert len(list(judgments.load_annotations(tmp_path / "judgments"))) == 3  # as `tunectl annotate` leaves them


def test_sides_are_drawn_and_reloads_keep_them(tmp_path, browser):
    with serving(tmp_path) as api:
        page = enter(browser, api)
        sides = []
        for turn in range(40):  # until both sides were drawn; one in 2 ** 39 would be alike
            seen = asks(page, f"turn {turn}")
            page.reload()
            assert (page.inner_text("#left p"), page.inner_text("#right p")) == seen
            sides.append(seen[0][:3])
            page.keyboard.press("ArrowDown")
            page.wait_for_selector("#ask")
            if len(set(sides)) == 2:
                break
        assert len(set(sides)) == 2
        page.keyboard.type("half a tho")
        page.reload()
        assert page.input_value("#ask textarea") == "half a tho"


def test_a_champion_alone_answers_twice(tmp_path, browser):
    with serving(tmp_path, challenger=False) as api:
        page = enter(browser, api)
        left, right = asks(page, "Hello")
        assert left != right
        assert [(body["model"], body["temperature"]) for body in api.asked] == [("champion", 0.9)] * 2


def test_what_goes_wrong_is_said_and_nothing_is_lost(tmp_path, browser):
    with serving(tmp_path) as api:
        page = enter(browser, api, key="sk-wrong")
        page.wait_for_selector("[role=alert]")
        assert page.inner_text("[role=alert]").startswith(
            "That key is not right, or it may not chat and give feedback."
        )
        own = {"Origin": page.evaluate("location.origin")}
        assert page.request.post(f"{api.url}/ask", form={"text": "x"}, headers=own).status == 401
        assert page.request.post(f"{api.url}/ask", form={"text": "x"}).status == 403
        page = enter(browser, api)
        api.full = True
        expect(page.locator("#ask textarea")).to_be_focused(timeout=60_000)
        page.keyboard.type("Hello")
        page.keyboard.press("Enter")
        page.wait_for_selector(".trouble")
        assert (
            page.inner_text(".trouble")
            == "No answer: too many requests are waiting. Send your message again; if that fails too, tell the operator of this server."
        )
        assert page.input_value("#ask textarea") == "Hello"
        api.full = False
        page.keyboard.press("Enter")
        page.wait_for_selector("#choose")
        with judgments.open_store(tmp_path / "judgments"):  # somebody has `tunectl annotate` open
            page.keyboard.press("ArrowLeft")
            page.wait_for_selector(".trouble")
            assert "another process has this store of judgments open" in page.inner_text(".trouble")
            assert "Your choice does not count yet." in page.inner_text(".trouble")
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector("#ask")
        assert len(kept(tmp_path)[0]) == 1
        foreign = page.request.post(
            f"{api.url}/said", headers={"Origin": "http://evil.example"}, form={"choice": "left"}
        )
        assert foreign.status == 403
        page.click("text=leave")
        page.wait_for_selector("[name=key]")


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_everything_fits_the_screen(tmp_path, browser, width, height):
    with serving(tmp_path) as api:
        page = enter(browser, api, viewport={"width": width, "height": height})
        folder = os.environ.get("TUNECTL_SCREENSHOTS")
        expect(page.locator("#ask textarea")).to_be_focused(timeout=60_000)
        if folder:
            page.screenshot(path=f"{folder}/arena-empty-{width}.png")
        long = "Write an ad for the cafe at the corner. " * 6
        asks(page, long)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("left", "right", "both_good", "both_bad", "skip"):
            box = page.locator(f"[name=choice][value={name}]").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= height  # always in reach of a thumb
            assert box["height"] >= 36
        if folder:
            page.screenshot(path=f"{folder}/arena-choose-{width}.png")
        page.click("[name=choice][value=right]")
        page.wait_for_selector("#ask")
        box = page.locator(".send").bounding_box()
        assert box["y"] + box["height"] <= height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        if folder:
            page.screenshot(path=f"{folder}/arena-talk-{width}.png")
