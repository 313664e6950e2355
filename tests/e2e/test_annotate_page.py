"""The comparison page in a real browser: keys, reloads, several people, kill -9, and what can be typed wrongly."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from cli_errors import drop_more
from conf_copy import copy_conf
from playwright.sync_api import expect

from tunectl.access.api_keys import add as add_key
from tunectl.access.api_keys import create_key
from tunectl.annotation.annotate_app import OUT_OF_DATE, WRONG_KEY
from tunectl.artifacts.records import Message, Source
from tunectl.cli.main import main
from tunectl.preferences.annotation_store import (
    ANNOTATIONS,
    AnnotationEvent,
    AnnotationTask,
    Retraction,
    load_annotations,
    open_store,
)

FLAGS = [
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
]
FLAGS += ["--disable-sync", "--no-sandbox"]
QUIET = ["annotate.queue.repeat_rate=0", "annotate.queue.attention_rate=0"]


def questions(count: int) -> list[AnnotationTask]:
    return [
        AnnotationTask(
            f"q{number:02}",
            f"prompt {number}",
            Source("briefs.jsonl", number),
            [Message("user", f"Write an ad for cafe {number}. It is in Midtown, cheap, and open late.")],
            [
                f"Cafe {number} pours until two. Midtown, small prices." + " Come by." * number,
                f"Visit cafe {number} today!" * 2,
            ],
            ["sft", "sft"],
        )
        for number in range(count)
    ]


@pytest.fixture
def project(tmp_path, monkeypatch):
    copy_conf(tmp_path)
    with open_store(tmp_path / "judgments") as store:
        store.add(questions(5))
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Server:
    def __init__(self, project: Path, *words: str, **environment: str) -> None:
        command = [sys.executable, "-m", "tunectl", "annotate", "annotate.port=0", *QUIET, *words]
        self.process = subprocess.Popen(
            command,
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **environment},
        )
        order = self.process.stdout.readline()
        assert order == "Questions come in random order: there is no reward model yet (tunectl repro --to reward).\n"
        line = self.process.stdout.readline()
        found = re.match(r"open (http://\S+/) ; stop with Ctrl-C", line)
        assert found, line + (self.process.stdout.read() if self.process.poll() is not None else "")
        self.url = found[1]

    def stop(self, with_signal: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        code = self.process.wait(20)
        self.process.stdout.close()
        return code


@contextmanager
def serving(project: Path, *words: str, **environment: str):
    server = Server(project, *words, **environment)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield found
        found.close()


def enter(browser, url, name="Ada", key=None, **context):
    """A new person at the page: own cookies, own window."""
    page = browser.new_context(**context).new_page()
    page.set_default_timeout(30_000)
    page.goto(url)
    page.fill("[name=name]", name)
    if key is not None:
        page.fill("[name=key]", key)
    page.keyboard.press("Enter")
    return page


def count(page, text):
    expect(page.locator("#count")).to_have_text(text, timeout=30_000)
    page.wait_for_load_state("load")  # keys do something once the scripts are there


def journal(project) -> list[AnnotationEvent | Retraction]:
    return [
        msgspec.json.decode(line, type=AnnotationEvent | Retraction)
        for line in (project / "judgments" / ANNOTATIONS).read_bytes().splitlines()
    ]


def test_letters_and_digits_can_be_turned_off_for_this_browser(project, browser):
    with serving(project) as server:
        page = enter(browser, server.url)
        count(page, "0 saved, 5 to go")
        page.get_by_role("checkbox", name="Letters and digits are shortcuts").uncheck()
        page.reload()
        count(page, "0 saved, 5 to go")
        box = page.get_by_role("checkbox", name="Letters and digits are shortcuts")
        expect(box).not_to_be_checked()
        for key in ("1", "e", "s", "u"):
            page.keyboard.press(key)
        expect(page.locator("[name=edit]")).to_be_hidden()
        expect(page.locator("input[name=tag]:checked")).to_have_count(0)
        page.keyboard.press("ArrowLeft")  # an arrow is no character
        count(page, "1 saved, 4 to go")
        box.check()
        page.keyboard.press("s")
        count(page, "2 saved, 3 to go")


def test_a_whole_round_by_keyboard(project, browser):
    with serving(project) as server:
        page = enter(browser, server.url)
        count(page, "0 saved, 5 to go")
        seen = []
        for number, key in enumerate(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown"]):
            seen.append((page.inner_text("#left p"), page.inner_text("#right p")))
            if number == 0:
                page.keyboard.press("1")
                page.keyboard.press("3")
            page.keyboard.press(key)
            count(page, f"{number + 1} saved, {4 - number} to go")
        page.keyboard.press("u")
        count(page, "3 saved, 2 to go")
        assert (page.inner_text("#left p"), page.inner_text("#right p")) == seen[3]  # the same question, the same sides
        page.keyboard.press("e")
        expect(page.locator("[name=edit]")).to_be_focused()
        page.keyboard.type("Late coffee, small prices: s u e 1")  # keys inside the text are text
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowLeft")
        count(page, "4 saved, 1 to go")
        page.keyboard.press("s")
        page.wait_for_selector("text=All done")
    entries = journal(project)
    assert [type(entry) for entry in entries] == [
        AnnotationEvent,
        AnnotationEvent,
        AnnotationEvent,
        AnnotationEvent,
        Retraction,
        AnnotationEvent,
        AnnotationEvent,
    ]
    known = {item.id: item for item in questions(5)}
    said = [entry for entry in entries if isinstance(entry, AnnotationEvent)]
    assert [one.choice for one in said[2:4]] + [said[5].choice] == ["both_good", "both_bad", "skip"]
    for one, (left, right), wins in ((said[0], seen[0], 0), (said[1], seen[1], 1), (said[4], seen[3], 0)):
        answers = known[one.task].answers
        assert answers[one.left] == left
        assert answers[0 if one.choice == "first" else 1] == (left, right)[wins]
    assert said[0].tags == ["true to the input", "right length"]
    assert said[4].edit == "Late coffee, small prices: s u e 1"
    assert [one.annotator for one in said] == ["Ada"] * 6


def test_who_wrote_an_answer_is_not_in_the_page(project, browser):
    with serving(project) as server:
        page = enter(browser, server.url)
        count(page, "0 saved, 5 to go")
        assert "sft" not in page.content()


def test_a_reload_in_the_middle_loses_nothing(project, browser):
    with serving(project) as server:
        page = enter(browser, server.url)
        count(page, "0 saved, 5 to go")
        page.keyboard.press("ArrowLeft")
        count(page, "1 saved, 4 to go")
        before = page.inner_text("#left p")
        page.keyboard.press("2")
        page.keyboard.press("e")
        expect(page.locator("[name=edit]")).to_be_focused()
        page.keyboard.type("Half a thought")
        page.reload()
        count(page, "1 saved, 4 to go")
        assert page.inner_text("#left p") == before
        assert page.input_value("[name=edit]") == "Half a thought"
        assert page.is_checked("input[value='well written']")
    assert len(journal(project)) == 1


def test_of_a_long_conversation_the_last_turn_is_in_sight_and_tool_calls_are_shown(project, browser):
    call = {"type": "function", "function": {"name": "opening_hours", "arguments": {"place": "Peach & Pour"}}}
    talk = [
        Message("user", "Peach & Pour is a cafe in Midtown. " * 60),
        Message("assistant", "", tool_calls=[call]),
        Message("tool", "Mon 7-5"),
        Message("user", "Now say it warmly."),
    ]
    folder = project / "talk"
    with open_store(folder) as store:
        store.add([AnnotationTask("t", "talk", Source("briefs.jsonl", 9), talk, ["one", "two"], ["sft", "sft"])])
    with serving(project, "annotate.store=talk") as server:
        page = enter(browser, server.url, viewport={"width": 390, "height": 844})
        count(page, "0 saved, 1 to go")
        expect(page.locator("text=Now say it warmly.")).to_be_in_viewport()
        assert '{"name": "opening_hours", "arguments": {"place": "Peach & Pour"}}' in page.inner_text(".asked")
        page.keyboard.press("S")  # as with caps lock
        page.wait_for_selector("text=All done")


def test_two_people_at_once(project, browser):
    with serving(project) as server:
        ada, bo = enter(browser, server.url, "Ada"), enter(browser, server.url, "Bo Øst")
        count(ada, "0 saved, 5 to go")
        count(bo, "0 saved, 5 to go")
        assert ada.inner_text(".asked") != bo.inner_text(".asked")  # not the same question by chance
        for turn in range(5):
            for page in (ada, bo):
                page.keyboard.press("ArrowLeft" if page is ada else "ArrowRight")
            for page in (ada, bo):
                count(page, f"{turn + 1} saved, {4 - turn} to go")
    said = journal(project)
    for name in ("Ada", "Bo Øst"):
        assert sorted(one.task for one in said if one.annotator == name) == [f"q{number:02}" for number in range(5)]


def test_a_choice_from_an_old_window_is_not_saved_and_says_so(project, browser):
    with serving(project) as server:
        page = enter(browser, server.url)
        count(page, "0 saved, 5 to go")
        other = page.context.new_page()
        other.goto(server.url)
        other.wait_for_selector("#question form")
        other.keyboard.press("s")
        count(other, "1 saved, 4 to go")
        other.keyboard.press("u")
        count(other, "0 saved, 5 to go")
        other.keyboard.press("ArrowUp")
        count(other, "1 saved, 4 to go")
        page.keyboard.press("ArrowLeft")  # answers the first showing, which was saved as a skip and taken back
        expect(page.locator("#question .trouble")).to_have_text(OUT_OF_DATE)
        count(page, "1 saved, 4 to go")
    assert [one.choice for one in journal(project) if isinstance(one, AnnotationEvent)] == ["skip", "both_good"]


def test_kill_loses_nothing_that_the_page_had_confirmed(project, browser):
    for confirmed in range(3):
        server = Server(project)
        page = enter(browser, server.url)
        count(page, f"{confirmed} saved, {5 - confirmed} to go")
        page.keyboard.press("ArrowLeft")
        count(page, f"{confirmed + 1} saved, {4 - confirmed} to go")
        if confirmed == 2:
            with (project / "judgments" / ANNOTATIONS).open("ab") as stream:
                stream.write(b'{"what":"said","id":"cut o')  # killed in the middle of the next line
        server.stop(signal.SIGKILL)
    with serving(project) as server:
        page = enter(browser, server.url)
        count(page, "3 saved, 2 to go")
    assert len(journal(project)) == 3


def test_a_stopped_server_is_reported_and_the_vote_can_be_sent_again(project, browser):
    server = Server(project)
    page = enter(browser, server.url)
    count(page, "0 saved, 5 to go")
    port = server.url.rsplit(":", 1)[1].strip("/")
    server.stop(signal.SIGKILL)
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#lost:visible")
    assert "this choice may not be saved" in page.inner_text("#lost")
    with serving(project, f"annotate.port={port}"):
        page.keyboard.press("ArrowLeft")
        count(page, "1 saved, 4 to go")
        page.wait_for_selector("#lost", state="hidden")
    assert len(journal(project)) == 1


def test_a_key_keeps_others_out(project, browser):
    secret, entry = create_key("ada", ["annotate"], None, datetime.now(UTC))
    add_key(project / ".tunectl" / "keys.json", entry)
    with serving(project) as server:
        page = enter(browser, server.url, key="wrong")
        page.wait_for_selector("[role=alert]")
        assert page.inner_text("[role=alert]") == WRONG_KEY
        assert page.request.get(server.url + "question").status == 401
        page.fill("[name=name]", "somebody else")
        page.fill("[name=key]", secret)
        page.keyboard.press("Enter")
        count(page, "0 saved, 5 to go")
        page.keyboard.press("ArrowLeft")
        count(page, "1 saved, 4 to go")
    assert [event.annotator for event in journal(project)] == ["ada"]


def test_forms_of_other_sites_and_other_names_of_the_host_are_refused(project, browser):
    with serving(project) as server:
        page = enter(browser, server.url)
        count(page, "0 saved, 5 to go")
        foreign = page.request.post(
            server.url + "said",
            headers={"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"},
            form={"choice": "left"},
        )
        assert foreign.status == 403
        assert page.request.get(server.url, headers={"Host": "evil.example"}).status == 421
    assert journal(project) == []


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844)])
def test_everything_fits_the_screen(project, browser, width, height):
    with serving(project) as server:
        page = enter(browser, server.url, viewport={"width": width, "height": height})
        count(page, "0 saved, 5 to go")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for name in ("left", "right", "both_good", "both_bad", "skip"):
            box = page.locator(f"[name=choice][value={name}]").bounding_box()
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
            assert box["y"] + box["height"] <= height  # always in reach of a thumb
            assert box["height"] >= 36
        page.click("[name=choice][value=right]")
        count(page, "1 saved, 4 to go")
        if folder := os.environ.get("TUNECTL_SCREENSHOTS"):
            page.screenshot(path=f"{folder}/annotate-{width}.png")


def fails(capsys, *words):
    code = main(["annotate", *words])
    return code, drop_more(capsys.readouterr().err)


def test_a_taken_port(project, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert fails(capsys, f"annotate.port={port}") == (
            5,
            (
                f"tunectl: annotate.port = {port}: 127.0.0.1:{port} is taken by another program\n"
                f"  close that program, or choose another port: tunectl annotate annotate.port={port + 1}\n"
            ),
        )


def test_an_address_that_this_machine_does_not_have(project, capsys):
    add_key(project / ".tunectl" / "keys.json", create_key("ada", ["annotate"], None, datetime.now(UTC))[1])
    assert fails(capsys, "annotate.host=203.0.113.1") == (
        5,
        (
            "tunectl: annotate.host = 203.0.113.1: this machine has no such address\n"
            "  use one that it has, 0.0.0.0 for all of them, or 127.0.0.1 for this machine alone\n"
        ),
    )


def test_two_pages_on_one_store(project, capsys):
    with serving(project) as server:
        code, text = fails(capsys)
    assert code == 5
    assert re.fullmatch(
        r"tunectl: judgments: another process has this store of judgments open: "
        rf"tunectl annotate, process {server.process.pid}, since \d\d:\d\d:\d\d\n"
        r"  let several people share one page, or close the other\n",
        text,
    )


def test_nothing_to_ask(project, capsys):
    assert fails(capsys, "annotate.store=empty") == (
        2,
        (
            "tunectl: empty: there are no answers to compare yet\n"
            "  let the models write answers: tunectl annotate prepare, or while the page is open: tunectl annotate --generate\n"
        ),
    )


def test_an_open_address_without_a_key(project, capsys):
    add_key(project / ".tunectl" / "keys.json", create_key("shop", ["chat"], None, datetime.now(UTC))[1])
    assert fails(capsys, "annotate.host=0.0.0.0") == (
        2,
        (
            "tunectl: annotate.host = 0.0.0.0: other machines can reach the page, and no key in .tunectl/keys.json opens it\n"
            "  make one for each person: tunectl serve keys add NAME --scope annotate\n"
        ),
    )


def test_an_edited_journal(project):
    path = project / "judgments" / ANNOTATIONS
    path.write_bytes(b'{"what":"said"}\n')
    with pytest.raises(
        Exception, match=r"(?s)annotations\.jsonl:1 is malformed: .*the file was changed by hand; restore it from Git"
    ):
        list(load_annotations(project / "judgments"))
