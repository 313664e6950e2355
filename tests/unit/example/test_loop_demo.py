"""The parts of the demonstration: what is said, counted, drawn and promised. The whole of it: tests/e2e/test_loop.py."""

from __future__ import annotations

import io
import json
import threading
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise, repeat
from pathlib import Path
from types import SimpleNamespace

import loop_demo_fixtures as parts
import pytest
from loop_demo import (
    chapters,
    layout,
    processes,
    setup,
    simulated_users,
    timeline,
    timeline_html,
    timeline_png,
    timeline_text,
)
from loop_demo.console_log import Narrator
from loop_demo.context import Lookout, Stages
from loop_demo.scenario import Town
from loop_demo.simulated_users import ChatAnswer, Crowd
from loop_demo.timeline import Clock, Mark, Promise, Span, Timeline
from msgspec.structs import replace

from tunectl.retraining import alert_webhook
from tunectl.retraining.state_machine import RetrainRun


@pytest.fixture
def told() -> Timeline:
    clock, runs = Clock(parts.BEGAN), [parts.retrain()]
    closed = [
        (parts.window(10), parts.at(20)),
        (parts.window(60, "ok", 1), parts.at(70)),
        (parts.window(80, "drift", 3), parts.at(94)),
    ]
    found = [*timeline.retrains(runs, clock, 600), *timeline.alerts(runs, clock), *timeline.windows(closed, clock)]
    spans = [Span("people", "everyday", 0, 50, "calm"), *timeline.experiments([parts.experiment()], clock, 600)]
    spans += [*timeline.champions(parts.LOG, clock, 600), *(one for one in found if isinstance(one, Span))]
    marks = [one for one in found if isinstance(one, Mark)]
    promises = [
        Promise("no request is dropped", held=True, evidence="912 of 912"),
        Promise("<b>", held=False, evidence='"&"'),
    ]
    return Timeline(
        "Retraining loop", parts.BEGAN, 600, spans, marks, promises, [("0:44", "from the change to the verdict")]
    )


def test_times_come_out_of_the_records(told: Timeline) -> None:
    assert told.lanes == ["people", "monitor", "alert", "retrain", "canary", "champion"]
    assert [(one.label, one.at, one.tone) for one in told.marks if one.lane == "monitor"] == [
        ("ok", 20, "calm"), ("ok", 70, "calm"), ("drift", 94, "bad"),
    ]  # fmt: skip
    assert [(one.label, one.at) for one in told.marks if one.lane == "alert"] == [("fires", 95), ("webhook", 99.5)]
    spans = {one.label: (one.since, one.until) for one in told.spans if one.lane == "retrain"}
    assert (spans["training"], spans["evaluating"], spans["canary"]) == ((101, 400), (400, 460), (460.1, 540))
    assert [(one.label, one.at, one.tone) for one in told.marks if one.lane == "retrain"] == [("promoted", 540, "good")]
    assert [(one.label, one.since, one.until) for one in told.spans if one.lane == "champion"] == [
        ("r0", 0, 540),
        ("r1", 540, 600),
    ]
    (tried,) = [one for one in told.spans if one.lane == "canary"]
    assert (tried.since, tried.until, tried.tone) == (460.1, 539, "good")
    assert not told.kept
    assert told.score == "1 of 2 promises held"


def test_what_has_not_ended_lasts_until_now() -> None:
    clock = Clock(parts.BEGAN)
    assert timeline.experiments([parts.experiment(None)], clock, 700)[0].until == 700
    run = parts.retrain()
    half = type(run)(run.key, run.attempt, run.trigger, run.steps[:3])
    assert timeline.retrains([half], clock, 222)[-1].until == 222


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03"), (-3, "0:00")]
)
def test_length(seconds: float, words: str) -> None:
    assert timeline.length(seconds) == words


def test_everything_stands_inside_the_drawing(told: Timeline) -> None:
    found = layout.drawing(told)
    assert [name for name, _ in found.lanes] == told.lanes
    for box in found.boxes:
        assert layout.LEFT <= box.x <= box.x + box.wide <= layout.WIDE - layout.RIGHT + 2.1
    for dot in found.dots:
        assert layout.LEFT <= dot.x <= layout.WIDE - layout.RIGHT
        assert 0 < dot.y < found.high
        assert not dot.label or dot.label_x + len(dot.label) * layout.LETTER / 2 <= layout.WIDE
    assert found.ticks[0] == ("0:00", layout.LEFT)
    assert 5 <= len(found.ticks) <= 15
    assert "drift" in {dot.label for dot in found.dots}, "how something ends is always said"


def test_labels_of_a_lane_do_not_cover_each_other(told: Timeline) -> None:
    many = [Mark("monitor", "drift", 500 + number / 10, "bad") for number in range(20)]
    said = [dot for dot in layout.drawing(replace(told, marks=[*told.marks, *many])).dots if dot.label]
    for one, other in pairwise(said):
        if one.y == other.y:
            wide = (len(one.label) + len(other.label)) * layout.LETTER / 2
            assert other.label_x - one.label_x >= wide, (one.label, other.label)


def test_a_timeline_of_nothing_is_drawn_too(tmp_path: Path) -> None:
    empty = Timeline("Nothing", parts.BEGAN, 0.0)
    assert layout.drawing(empty).boxes == ()
    assert "</html>" in timeline_html.page(empty)
    timeline_png.write(empty, tmp_path / "empty.png")


def test_page_and_picture(told: Timeline, tmp_path: Path) -> None:
    text = timeline_html.page(told, (("stories", "retrains.html"),))
    assert text.count("<rect") == len(told.spans)
    assert text.count("<circle") == len(told.marks)
    assert "&lt;b&gt;" in text
    assert "<b></td>" not in text
    assert 'href="retrains.html"' in text
    assert "1 of 2 promises held" in text
    assert "http" not in text.replace("http-equiv", ""), "it needs nothing else"
    timeline_png.write(told, tmp_path / "made" / "timeline.png")
    data = (tmp_path / "made" / "timeline.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000


def console():
    from rich.console import Console

    return Console(file=io.StringIO(), width=120, color_system=None)


def test_in_a_terminal(told: Timeline) -> None:
    out = console()
    timeline_text.show(told, out)
    text = out.file.getvalue()
    lines = text.splitlines()
    (champion,) = [line for line in lines if line.strip().startswith("champion ") and "━" in line]
    assert champion.index(" r0 ") < champion.index("┣")
    assert any(line.split()[:3] == ["1:34", "monitor", "drift"] for line in lines)
    assert "✓ no request is dropped" in text
    assert "✗ <b>" in text
    cells = timeline_text.strip(told, "alert", 60)
    assert [place for place, (sign, _) in enumerate(cells) if sign != " "] == [9]


def test_the_narrator_says_when_and_keeps_promises() -> None:
    out = console()
    narrator = Narrator(out, 3)
    narrator.chapter("A quiet day", "Nothing happens.")
    narrator.say("window 1\nin detail", "moved")
    assert narrator.promise("quiet traffic raises no alarm", holds=True, evidence="2 windows")
    assert not narrator.promise("no request is dropped", holds=False, evidence="visitor 3")
    text = out.file.getvalue()
    assert "1 of 3" in text
    assert "◆ window 1" in text
    assert "✗ no request is dropped: visitor 3" in text
    assert [one.held for one in narrator.promises] == [True, False]
    assert chapters.promises(narrator.promises) == ["no request is dropped: visitor 3"]


# people


def test_an_ad_is_liked_by_what_is_in_it_and_how_it_ends() -> None:
    must, endings = ("Granite Hall", "Edgewood", "a free chalk bag"), ("Dare you to drop in",)
    whole = "No fear, Edgewood: Granite Hall. Grab A free chalk bag. Dare you to drop in: Granite Hall, Edgewood."
    assert simulated_users.liking(must, endings, whole) == 1.0
    assert simulated_users.liking(must, endings, "Granite Hall in Edgewood has a free chalk bag.") == pytest.approx(
        0.36
    )
    assert simulated_users.liking(must, endings, "") == 0.0
    assert simulated_users.liking(must, endings, "No fear, Edgewood: Gran") < 0.05


def events(*texts: str, done: bool = True) -> bytes:
    lines = [json.dumps({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}}]}) for text in texts]
    return "".join(f"data: {line}\n\n" for line in [*lines, *(["[DONE]"] if done else [])]).encode()


def test_a_stream_is_whole_when_it_says_so() -> None:
    assert simulated_users.read_stream(events("An ", "ad.")) == ChatAnswer(200, "An ad.", "chatcmpl-1", whole=True)
    assert not simulated_users.read_stream(events("An ", done=False)).whole
    broken = b'data: {"error": {"message": "the engine failed"}}\n\n'
    assert not simulated_users.read_stream(events("An ", done=False) + broken).whole


@pytest.fixture
def service():
    """A service that sends every third person away once, and breaks off for visitor 5."""
    heard: list[dict] = []
    busy: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.append(body)
            status, data, more = 200, b"{}", {}
            if self.path == "/v1/chat/completions":
                data = events("good") if body["user"] != "visitor-5" else events("go", done=False)
                if body["user"].endswith("3") and body["user"] not in busy:
                    busy.add(body["user"])
                    status, data, more = 429, b"{}", {"Retry-After": "0.01"}
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **more}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1], heard
    server.shutdown()
    server.server_close()


def test_every_request_is_accounted_for(service) -> None:
    port, heard = service
    asked = SimpleNamespace(brief="an ad", ad="better")
    crowd = Crowd(port, "key", "shop", Town(repeat, repeat, lambda one, answer: float(answer == "good")), workers=4)
    mine = crowd.ask(repeat(asked), 40, edits=0.5)
    assert (mine.requests, mine.answered, mine.waited) == (40, 39, 4)
    assert mine.dropped == ["visitor 5: status 200, 2 characters of an answer"]
    assert mine.up + mine.down + mine.edits == sum("kind" in body for body in heard)
    assert mine.down == 0
    assert mine.edits > 0
    assert mine.liked == 1.0
    with crowd.murmuring(repeat(asked), 200) as meanwhile:
        while meanwhile.answered < 3:
            pass
    assert crowd.tally.requests == 40 + meanwhile.requests


def test_nobody_there_is_a_dropped_request() -> None:
    crowd = Crowd(1, "key", "shop", Town(repeat, repeat, lambda *_: 1.0), workers=1)
    assert crowd.ask(repeat(SimpleNamespace(brief="", ad="")), 1).dropped[0].startswith("visitor 1: status 0, ")


# programs


def test_the_webhook_that_is_delivered_by_hand_is_one_that_the_controller_takes() -> None:
    body = json.dumps(processes.payload(parts.at(90), "The world has changed.")).encode()
    (found,) = alert_webhook.parse_alertmanager(body, ("TunectlDriftSustained",), parts.BEGAN)
    assert (found.author, found.message) == ("Alertmanager", "The world has changed.")
    (again,) = alert_webhook.parse_alertmanager(body, ("TunectlDriftSustained",), parts.at(5))
    assert again.id == found.id
    assert timeline.sender(RetrainRun("k", 1, found, [])) == "the story, by hand", (
        "and the timeline names no Alertmanager"
    )
    real = replace(found, facts={**found.facts, "description": "Prompts moved."})
    assert timeline.sender(RetrainRun("k", 1, real, [])) == "Alertmanager"


def test_programs_are_not_led_to_the_users_own_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", "postgresql://real")
    monkeypatch.setenv("TUNECTL_EXPORTER", "/python")
    found = processes.plain_environment()
    assert "TUNECTL_INFERENCE_LOG_URL" not in found
    assert found["TUNECTL_EXPORTER"] == "/python"


def test_what_never_comes_is_told_with_the_last_words(tmp_path: Path) -> None:
    program = processes.Program("check", ["--help"], tmp_path, {})
    with pytest.raises(processes.NotReadyError, match="check ended with 0"):
        program.until(lambda: False, 60)
    assert "usage" in program.last_words.casefold()
    program.stop()


def test_stages_are_read_off_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stages = Stages(log)
    assert stages.fresh(1.0) == []
    log.write_text("Running stage 'compose':\n> tunectl run compose\nRunning sta")
    assert stages.fresh(2.0) == ["compose"]
    with log.open("a") as stream:
        stream.write("ge 'sft':\n")
    assert stages.fresh(5.0) == ["sft"]
    assert [(one.label, one.since, one.until) for one in stages.spans(9.0)] == [
        ("compose", 2.0, 5.0),
        ("sft", 5.0, 9.0),
    ]


def test_when_the_service_was_seen_to_change() -> None:
    look = Lookout(dict)
    now = datetime.now(UTC)
    look.history = [(now, {"champion": "a"}), (now + timedelta(seconds=4), {"champion": "b"})]
    assert look.since(now + timedelta(seconds=1), lambda variants: variants["champion"] == "b") == 3.0
    assert look.since(now + timedelta(seconds=5), lambda variants: variants["champion"] == "b") == 0.0
    assert look.since(now, lambda variants: variants["champion"] == "c") is None


# the workshop


def test_of_an_ad_the_first_sentence_is_left() -> None:
    given = [
        {"prompt": "a", "completion": "One is this. Two is that."},
        {"prompt": "b", "completion": "What? That 3.5 of it."},
    ]
    assert setup.keep_first_sentences([*given, {"prompt": "c", "completion": ""}]) == [
        {"prompt": "a", "completion": "One is this."}, {"prompt": "b", "completion": "What?"}, {"prompt": "c", "completion": ""},
    ]  # fmt: skip
    every = setup.keep_first_sentences(setup.rows(parts.ROOT, setup.NEW_CLIENTS))
    assert max(len(row["completion"].split()) for row in every) < 20


def test_a_bad_challenger_is_built_anew_when_anything_of_it_changes() -> None:
    job = setup.Job("bad", "why", ("sft.epochs=2",), {"ads.jsonl": [{"prompt": "a"}]})
    same = setup.Job("bad", "other words", ("sft.epochs=2",), {"ads.jsonl": [{"prompt": "a"}]})
    other = setup.Job("bad", "why", ("sft.epochs=2",), {"ads.jsonl": [{"prompt": "b"}]})
    assert job.key("r0") == same.key("r0") != other.key("r0")
    assert job.key("r0") != job.key("r1")


@pytest.mark.parametrize("recorded", ["experiment=null", "experiment=small"])
def test_the_small_settings_are_settings(recorded: str) -> None:
    """Also after ``make run``, which records ``experiment=small``."""
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.loading import checks, override_file

    layout = ProjectPaths(parts.ROOT)
    before = override_file.merge_overrides(override_file.load_overrides(layout), [recorded])
    root = checks.load_config(layout, override_file.merge_overrides(before, setup.SETTINGS)).root
    assert root.align.root.method == "none"
    assert root.retrain.train.start == "champion"
    assert root.monitor.window.max_rows == 200
    clients = {row["business"] for row in setup.rows(parts.ROOT, setup.NEW_CLIENTS)}
    assert root.retrain.gate.min_golden_items <= len(clients), "briefs of one client count once in the golden set"
    assert setup.PAST > setup.ROWS
