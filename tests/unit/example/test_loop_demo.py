"""The parts of the loop demo: progress log, simulated users, timeline and setup. The whole demo: tests/e2e/test_loop.py."""

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
    layout,
    processes,
    setup,
    simulated_users,
    timeline,
    timeline_html,
    timeline_png,
    timeline_text,
)
from loop_demo.console_log import ConsoleLog
from loop_demo.context import StageLogReader, VariantPoller
from loop_demo.scenario import SyntheticTraffic
from loop_demo.simulated_users import ChatAnswer, SimulatedUsers
from loop_demo.timeline import Clock, DemoCheck, Mark, Span, Timeline
from msgspec.structs import replace

from tunectl.retraining import alert_webhook
from tunectl.retraining.state_machine import RetrainRun


@pytest.fixture
def demo_timeline() -> Timeline:
    clock, runs = Clock(parts.BEGAN), [parts.retrain()]
    closed = [
        (parts.window(10), parts.at(20)),
        (parts.window(60, "ok", 1), parts.at(70)),
        (parts.window(80, "drift", 3), parts.at(94)),
    ]
    found = [
        *timeline.build_retrain_entries(runs, clock, 600),
        *timeline.build_alert_marks(runs, clock),
        *timeline.build_window_marks(closed, clock),
    ]
    spans = [
        Span("users", "baseline traffic", 0, 50, "normal"),
        *timeline.build_canary_spans([parts.experiment()], clock, 600),
    ]
    spans += [*timeline.build_champion_spans(parts.LOG, clock, 600), *(one for one in found if isinstance(one, Span))]
    marks = [one for one in found if isinstance(one, Mark)]
    checks = [
        DemoCheck("no request is dropped", passed=True, evidence="912 of 912"),
        DemoCheck("<b>", passed=False, evidence='"&"'),
    ]
    return Timeline(
        "Retraining loop", parts.BEGAN, 600, spans, marks, checks, [("0:44", "from the change to the verdict")]
    )


def test_timeline_times_are_those_of_the_records(demo_timeline: Timeline) -> None:
    assert demo_timeline.lanes == ["users", "monitor", "alert", "retrain", "canary", "champion"]
    assert [(one.label, one.at, one.category) for one in demo_timeline.marks if one.lane == "monitor"] == [
        ("ok", 20, "normal"), ("ok", 70, "normal"), ("drift", 94, "bad"),
    ]  # fmt: skip
    assert [(one.label, one.at) for one in demo_timeline.marks if one.lane == "alert"] == [
        ("fires", 95),
        ("webhook", 99.5),
    ]
    spans = {one.label: (one.since, one.until) for one in demo_timeline.spans if one.lane == "retrain"}
    assert (spans["training"], spans["evaluating"], spans["canary"]) == ((101, 400), (400, 460), (460.1, 540))
    assert [(one.label, one.at, one.category) for one in demo_timeline.marks if one.lane == "retrain"] == [
        ("promoted", 540, "good")
    ]
    assert [(one.label, one.since, one.until) for one in demo_timeline.spans if one.lane == "champion"] == [
        ("r0", 0, 540),
        ("r1", 540, 600),
    ]
    (canary,) = [one for one in demo_timeline.spans if one.lane == "canary"]
    assert (canary.since, canary.until, canary.category) == (460.1, 539, "good")
    assert not demo_timeline.passed
    assert demo_timeline.score == "1 of 2 checks passed"


def test_entries_without_an_end_last_until_now() -> None:
    clock = Clock(parts.BEGAN)
    assert timeline.build_canary_spans([parts.experiment(None)], clock, 700)[0].until == 700
    run = parts.retrain()
    half = type(run)(run.key, run.attempt, run.trigger, run.steps[:3])
    assert timeline.build_retrain_entries([half], clock, 222)[-1].until == 222


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0:00"), (7.4, "0:07"), (754, "12:34"), (3723, "1:02:03"), (-3, "0:00")]
)
def test_format_duration(seconds: float, words: str) -> None:
    assert timeline.format_duration(seconds) == words


def test_layout_fits_into_the_drawing(demo_timeline: Timeline) -> None:
    found = layout.compute_layout(demo_timeline)
    assert [name for name, _ in found.lanes] == demo_timeline.lanes
    for box in found.boxes:
        assert layout.LEFT <= box.x <= box.x + box.width <= layout.WIDTH - layout.RIGHT + 2.1
    for dot in found.dots:
        assert layout.LEFT <= dot.x <= layout.WIDTH - layout.RIGHT
        assert 0 < dot.y < found.height
        assert not dot.label or dot.label_x + len(dot.label) * layout.CHARACTER_WIDTH / 2 <= layout.WIDTH
    assert found.ticks[0] == ("0:00", layout.LEFT)
    assert 5 <= len(found.ticks) <= 15
    assert "drift" in {dot.label for dot in found.dots}, "results always have a label"


def test_labels_of_a_lane_do_not_overlap(demo_timeline: Timeline) -> None:
    many = [Mark("monitor", "drift", 500 + number / 10, "bad") for number in range(20)]
    labeled = [
        dot
        for dot in layout.compute_layout(replace(demo_timeline, marks=[*demo_timeline.marks, *many])).dots
        if dot.label
    ]
    for one, other in pairwise(labeled):
        if one.y == other.y:
            wide = (len(one.label) + len(other.label)) * layout.CHARACTER_WIDTH / 2
            assert other.label_x - one.label_x >= wide, (one.label, other.label)


def test_an_empty_timeline_is_drawn(tmp_path: Path) -> None:
    empty = Timeline("Empty", parts.BEGAN, 0.0)
    assert layout.compute_layout(empty).boxes == ()
    assert "</html>" in timeline_html.render_page(empty)
    timeline_png.draw_png(empty, tmp_path / "empty.png")


def test_timeline_as_html_and_png(demo_timeline: Timeline, tmp_path: Path) -> None:
    text = timeline_html.render_page(demo_timeline, (("stories", "retrains.html"),))
    assert text.count("<rect") == len(demo_timeline.spans)
    assert text.count("<circle") == len(demo_timeline.marks)
    assert "&lt;b&gt;" in text
    assert "<b></td>" not in text
    assert 'href="retrains.html"' in text
    assert "1 of 2 checks passed" in text
    assert "http" not in text.replace("http-equiv", ""), "the page is self-contained"
    timeline_png.draw_png(demo_timeline, tmp_path / "made" / "timeline.png")
    data = (tmp_path / "made" / "timeline.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) > 20_000


def console():
    from rich.console import Console

    return Console(file=io.StringIO(), width=120, color_system=None)


def test_timeline_in_a_terminal(demo_timeline: Timeline) -> None:
    out = console()
    timeline_text.print_timeline(demo_timeline, out)
    text = out.file.getvalue()
    lines = text.splitlines()
    (champion,) = [line for line in lines if line.strip().startswith("champion ") and "━" in line]
    assert champion.index(" r0 ") < champion.index("┣")
    assert any(line.split()[:3] == ["1:34", "monitor", "drift"] for line in lines)
    assert "✓ no request is dropped" in text
    assert "✗ <b>" in text
    cells = timeline_text.render_lane(demo_timeline, "alert", 60)
    assert [place for place, (sign, _) in enumerate(cells) if sign != " "] == [9]


def test_console_log_prints_chapters_and_records_checks() -> None:
    out = console()
    console_log = ConsoleLog(out, 3)
    console_log.start_chapter("Baseline traffic", "No drift.")
    console_log.print_line("window 1\nin detail", "changed")
    assert console_log.record_check("baseline traffic raises no alert", passed=True, evidence="2 windows")
    assert not console_log.record_check("no request is dropped", passed=False, evidence="visitor 3")
    text = out.file.getvalue()
    assert "1 of 3" in text
    assert "◆ window 1" in text
    assert "✗ no request is dropped: visitor 3" in text
    assert [one.passed for one in console_log.checks] == [True, False]
    assert [(item.statement, item.evidence) for item in console_log.checks if not item.passed] == [
        ("no request is dropped", "visitor 3")
    ]


# simulated users


def test_score_ad_rates_required_and_closing_phrases() -> None:
    required, closing = ("Granite Hall", "Edgewood", "a free chalk bag"), ("Dare you to drop in",)
    whole = "No fear, Edgewood: Granite Hall. Grab A free chalk bag. Dare you to drop in: Granite Hall, Edgewood."
    assert simulated_users.score_ad(required, closing, whole) == 1.0
    assert simulated_users.score_ad(
        required, closing, "Granite Hall in Edgewood has a free chalk bag."
    ) == pytest.approx(0.36)
    assert simulated_users.score_ad(required, closing, "") == 0.0
    assert simulated_users.score_ad(required, closing, "No fear, Edgewood: Gran") < 0.05


def events(*texts: str, done: bool = True) -> bytes:
    lines = [json.dumps({"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": text}}]}) for text in texts]
    return "".join(f"data: {line}\n\n" for line in [*lines, *(["[DONE]"] if done else [])]).encode()


def test_a_stream_is_complete_only_with_done() -> None:
    assert simulated_users.read_stream(events("An ", "ad.")) == ChatAnswer(200, "An ad.", "chatcmpl-1", complete=True)
    assert not simulated_users.read_stream(events("An ", done=False)).complete
    broken = b'data: {"error": {"message": "the engine failed"}}\n\n'
    assert not simulated_users.read_stream(events("An ", done=False) + broken).complete


@pytest.fixture
def service():
    """A service that answers 429 once to users whose number ends in 3, and truncates the stream of visitor 5."""
    received: list[dict] = []
    busy: set[str] = set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.append(body)
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
    yield server.server_address[1], received
    server.shutdown()
    server.server_close()


def test_every_request_is_counted(service) -> None:
    port, received = service
    request = SimpleNamespace(brief="an ad", ad="better")
    users = SimulatedUsers(
        port, "key", "shop", SyntheticTraffic(repeat, repeat, lambda one, answer: float(answer == "good")), workers=4
    )
    mine = users.send_requests(repeat(request), 40, edits=0.5)
    assert (mine.requests, mine.answered, mine.retries) == (40, 39, 4)
    assert mine.dropped == ["visitor 5: status 200, 2 characters of an answer"]
    assert mine.up + mine.down + mine.edits == sum("kind" in body for body in received)
    assert mine.down == 0
    assert mine.edits > 0
    assert mine.approval_rate == 1.0
    with users.send_in_background(repeat(request), 200) as meanwhile:
        while meanwhile.answered < 3:
            pass
    assert users.counts.requests == 40 + meanwhile.requests


def test_a_refused_connection_is_a_dropped_request() -> None:
    users = SimulatedUsers(1, "key", "shop", SyntheticTraffic(repeat, repeat, lambda *_: 1.0), workers=1)
    assert (
        users.send_requests(repeat(SimpleNamespace(brief="", ad="")), 1).dropped[0].startswith("visitor 1: status 0, ")
    )


# processes


def test_the_controller_accepts_the_webhook_of_the_demo_script() -> None:
    body = json.dumps(processes.make_webhook_payload(parts.at(90), "Drift: prompt_text.")).encode()
    (found,) = alert_webhook.parse_alertmanager(body, ("TunectlDriftSustained",), parts.BEGAN)
    assert (found.author, found.message) == ("Alertmanager", "Drift: prompt_text.")
    (again,) = alert_webhook.parse_alertmanager(body, ("TunectlDriftSustained",), parts.at(5))
    assert again.id == found.id
    assert timeline.name_alert_sender(RetrainRun("k", 1, found, [])) == "the demo script", (
        "the timeline does not name Alertmanager"
    )
    real = replace(found, facts={**found.facts, "description": "Prompts moved."})
    assert timeline.name_alert_sender(RetrainRun("k", 1, real, [])) == "Alertmanager"


def test_programs_do_not_get_the_users_inference_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNECTL_INFERENCE_LOG_URL", "postgresql://real")
    monkeypatch.setenv("TUNECTL_EXPORTER", "/python")
    found = processes.plain_environment()
    assert "TUNECTL_INFERENCE_LOG_URL" not in found
    assert found["TUNECTL_EXPORTER"] == "/python"


def test_a_program_that_is_never_ready_is_reported_with_its_log(tmp_path: Path) -> None:
    program = processes.Program("check", ["--help"], tmp_path, {})
    with pytest.raises(processes.NotReadyError, match="check ended with 0"):
        program.until(lambda: False, 60)
    assert "usage" in program.log_tail.casefold()
    program.stop()


def test_stages_are_read_from_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    stages = StageLogReader(log)
    assert stages.read_new(1.0) == []
    log.write_text("Running stage 'compose':\n> tunectl run compose\nRunning sta")
    assert stages.read_new(2.0) == ["compose"]
    with log.open("a") as stream:
        stream.write("ge 'sft':\n")
    assert stages.read_new(5.0) == ["sft"]
    assert [(one.label, one.since, one.until) for one in stages.spans(9.0)] == [
        ("compose", 2.0, 5.0),
        ("sft", 5.0, 9.0),
    ]


def test_poller_measures_seconds_until_a_change() -> None:
    poller = VariantPoller(dict)
    now = datetime.now(UTC)
    poller.history = [(now, {"champion": "a"}), (now + timedelta(seconds=4), {"champion": "b"})]
    assert poller.seconds_until(now + timedelta(seconds=1), lambda variants: variants["champion"] == "b") == 3.0
    assert poller.seconds_until(now + timedelta(seconds=5), lambda variants: variants["champion"] == "b") == 0.0
    assert poller.seconds_until(now, lambda variants: variants["champion"] == "c") is None


# setup


@pytest.mark.parametrize("recorded", ["experiment=null", "experiment=small"])
def test_the_settings_of_the_demo_are_valid(recorded: str) -> None:
    """Also after ``make run``, which records ``experiment=small``."""
    from tunectl.artifacts.paths import ProjectPaths
    from tunectl.config.loading import checks, override_file

    layout = ProjectPaths(parts.ROOT)
    before = override_file.merge_overrides(override_file.load_overrides(layout), [recorded])
    root = checks.load_config(layout, override_file.merge_overrides(before, setup.SETTINGS)).root
    assert root.align.root.method == "none"
    assert root.retrain.train.start == "champion"
    assert root.monitor.window.max_rows == 200
    clients = {row["business"] for row in setup.read_rows(parts.ROOT, setup.NEW_CLIENTS)}
    assert root.retrain.gate.min_golden_items <= len(clients), "briefs of one client count once in the golden set"
    assert setup.MAX_PAST_CAMPAIGNS > setup.CHALLENGER_CAMPAIGNS
