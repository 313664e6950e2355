"""What servers and monitor say at /metrics, on the page Live, in its twin, and in the terminal."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic, sleep

import pytest
from console_projects import Console, PageFacts, build
from prometheus_client.parser import text_string_to_metric_families

from tunectl.artifacts import lock
from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.monitoring.monitor_metrics import DriftMetrics
from tunectl.serving.serving_metrics import ServingMetrics
from tunectl.status import http_fetch, service_metrics
from tunectl.status.service_metrics import ServiceFigures, estimate_quantile

KEY = "tune-secret"
Say = Callable[[str], int]


def render_server() -> bytes:
    metrics = ServingMetrics()
    for seconds in (0.03, 0.3, 0.3, 0.3):
        metrics.first.observe(seconds)
        metrics.whole.observe(10 * seconds)
    metrics.requests.labels("stop").inc(4)
    metrics.rejected.labels("queue_full").inc(2)
    metrics.running.set(3)
    metrics.set_model_info({"champion": ("ab" * 8, "base")})
    return metrics.render()


def render_monitor() -> bytes:
    metrics = DriftMetrics(3.0)
    metrics.record_failure()
    metrics.record_success(1_700_000_000.0)
    return metrics.render()


@pytest.fixture
def say() -> Iterator[Callable[..., int]]:
    """Start a program on a port of its own that answers with a status and a body, to requests with the key; return the port."""
    servers: list[ThreadingHTTPServer] = []

    def start(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> int:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                known = self.headers.get("Authorization") == f"Bearer {KEY}" and self.path == "/metrics"
                self.send_response(status if known else 401)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body if known else b"{}")

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def say_any() -> Iterator[Callable[[bytes], tuple[int, list[str | None]]]]:
    """Start a program that answers every request with a body; return its port, and the keys that it was sent."""
    servers: list[ThreadingHTTPServer] = []

    def start(body: bytes) -> tuple[int, list[str | None]]:
        keys: list[str | None] = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                keys.append(self.headers.get("Authorization"))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        Thread(target=servers[-1].serve_forever, daemon=True).start()
        return servers[-1].server_port, keys

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> ProjectPaths:
    return build(tmp_path_factory.mktemp("metrics") / "shop")


def declare(layout: ProjectPaths, *servers: str, monitor: int = 3001, prometheus: str = "null") -> None:
    settings = {
        "console.servers": json.dumps(list(servers)),
        "monitor.port": str(monitor),
        "console.prometheus": prometheus,
    }
    lines = "".join(f"- {name}={value}\n" for name, value in settings.items())
    (layout.conf / "overrides.yaml").write_text(lines)


def read(layout: ProjectPaths) -> ServiceFigures:
    from tunectl.config.loading import checks

    return service_metrics.read_service_figures(layout, checks.load_project_config(layout).root)


def test_page_twin_and_terminal_show_the_same_figures_of_servers_and_monitor(
    project: ProjectPaths, say: Say, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNECTL_SERVER_KEY", KEY)
    server, monitor = say(render_server()), say(render_monitor())
    declare(project, f"http://127.0.0.1:{server}/", "http://127.0.0.1:1", monitor=monitor)
    monkeypatch.chdir(project.root)
    with lock.file_lock(project.monitor_lock, "monitor", busy="a monitor runs"):
        console = Console(project)
        page, twin = console.client.get("/live"), console.client.get("/live.json").json()
        assert main(["log", "show", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["services"] == twin["services"]
        assert main(["log", "show"]) == 0
        printed = " ".join(capsys.readouterr().out.split())
    first, silent = twin["services"]["servers"]
    assert first["first_token"]["count"] == 4
    assert 0.2 < first["first_token"]["median"] < first["first_token"]["p95"] < 0.4
    assert first["between_tokens"] is None
    assert (first["running"], first["waiting"], first["finished"], first["rejected"]) == (
        3,
        0,
        {"stop": 4},
        {"queue_full": 2},
    )
    assert first["releases"] == {"champion": "ab" * 8}
    assert silent["state"] == "not reachable"
    assert twin["services"]["monitor"] == {
        "address": f"http://127.0.0.1:{monitor}", "state": "answers", "evidence": 0.0, "evidence_required": 3.0,
        "windows": {"error": 1}, "succeeded_at": "2023-11-14T22:13:20Z",
    }  # fmt: skip
    assert PageFacts(page.text).errors == []
    for words in ("0.267 s", "95 % within", "2 queue_full", "4 stop", "It does not answer.", "1 error"):
        assert words in page.text, words
    assert "3 running, 0 waiting, 4 finished (4 stop), 2 rejected (2 queue_full), first token 0.27 s" in printed
    assert "server http://127.0.0.1:1: not reachable" in printed
    assert "1 windows (1 error), evidence 0.0 of 3" in printed


@pytest.mark.parametrize(
    ("body", "status", "key", "state"),
    [
        (b"", 200, "", "key refused"),
        (b"moved", 302, KEY, "no metrics"),
        (b"<html>a page of somebody else</html>", 200, KEY, "no metrics"),
        (b'tunectl_requests_running{a="', 200, KEY, "no metrics"),
        (b"tunectl_requests_running NaN\n", 200, KEY, "no metrics"),
    ],
)
def test_a_server_that_gives_no_metrics_has_a_state(
    project: ProjectPaths, say: Say, monkeypatch: pytest.MonkeyPatch, body: bytes, status: int, key: str, state: str
) -> None:
    monkeypatch.setenv("TUNECTL_SERVER_KEY", key)
    other = say(render_server())
    port = say(body, status, {"Location": f"http://127.0.0.1:{other}/metrics"})
    declare(project, f"http://127.0.0.1:{port}", "http://127.0.0.1:1")
    figures = read(project)
    assert [server.state for server in figures.servers] == [state, "not reachable"]
    assert figures.monitor is None, "no monitor runs here"
    text = Console(project).client.get("/live").text
    assert ("scope <code>scrape</code>" in text) == (state == "key refused")


GAUGES = b"tunectl_requests_running 1\ntunectl_requests_waiting 0\n"


@pytest.mark.parametrize(
    "body",
    [
        GAUGES + b'tunectl_model_info{model="a"} 1\n',
        GAUGES + b'tunectl_requests_total{why="stop"} 4\n',
        GAUGES + b'tunectl_time_to_first_token_seconds_bucket{upto="1"} 4\n',
        GAUGES + b'tunectl_time_to_first_token_seconds_bucket{le="soon"} 4\n',
        GAUGES + b'tunectl_time_to_first_token_seconds_bucket{le="+Inf"} -4\n',
        GAUGES + b"tunectl_inference_log_errors_total 1e300\n",
        GAUGES + b"tunectl_requests_rejected_total{reason=",
        b'tunectl_requests_total{finished_reason="stop"} 4\n',
        GAUGES + b'tunectl_model_info{variant="a",release="b"} 1\n' + b'x{y="z"} 1 ' * 500,
    ],
)
def test_metrics_with_names_of_tunectl_and_other_labels_count_as_none(
    project: ProjectPaths, say: Say, monkeypatch: pytest.MonkeyPatch, body: bytes
) -> None:
    monkeypatch.setenv("TUNECTL_SERVER_KEY", KEY)
    address = f"http://127.0.0.1:{say(body)}"
    declare(project, address)
    (server,) = read(project).servers
    assert server == service_metrics.ServerFigures(address, "no metrics")
    assert [*service_metrics.describe_services(ServiceFigures([server]))] == [
        f"server {address}: no metrics of tunectl"
    ]


def test_terminal_and_page_show_the_log_beside_a_program_with_other_metrics(
    project: ProjectPaths, say: Say, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNECTL_SERVER_KEY", KEY)
    port = say(b'tunectl_drift_evidence{kind="a"} 1\ntunectl_model_info{model="a"} 1\n')
    declare(project, f"http://127.0.0.1:{port}", monitor=port)
    monkeypatch.chdir(project.root)
    with lock.file_lock(project.monitor_lock, "monitor", busy="a monitor runs"):
        assert main(["log", "show"]) == 0
        assert f"monitor http://127.0.0.1:{port}: no metrics of tunectl" in " ".join(capsys.readouterr().out.split())
        page = Console(project).client.get("/live")
    assert page.status_code == 200
    assert page.text.count("What answers there has no metrics of tunectl.") == 2


def test_a_body_that_arrives_byte_by_byte_is_given_up_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_fetch, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]

        def drip() -> None:
            connection, _ = door.accept()
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
                for _ in range(100):
                    connection.sendall(b"#")
                    sleep(0.05)

        Thread(target=drip, daemon=True).start()
        begun = monotonic()
        assert service_metrics._read_server(f"http://127.0.0.1:{port}", "").state == "not reachable"
    assert monotonic() - begun < 4, "100 bytes would take 5 s"


def render_prometheus(**programs: bytes) -> bytes:
    """What the HTTP API of Prometheus answers: the series of programs, by instance, each with the labels of its scrape."""
    result = [
        {
            "metric": {"__name__": sample.name, "instance": instance, "job": "tunectl", **sample.labels},
            "value": [1_700_000_000.1, str(sample.value).replace("inf", "+Inf")],
        }
        for instance, text in programs.items()
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
        if sample.name.startswith("tunectl_")
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def test_figures_are_read_from_prometheus_without_the_key_of_the_servers(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, say_any: Callable[[bytes], tuple[int, list[str | None]]]
) -> None:
    monkeypatch.setenv("TUNECTL_SERVER_KEY", KEY)
    port, keys = say_any(render_prometheus(server=render_server(), watch=render_monitor(), odd=GAUGES))
    declare(project, "http://127.0.0.1:1", prometheus=f"http://127.0.0.1:{port}")
    figures = read(project)
    assert [one.address for one in figures.servers] == ["odd", "server"]
    server = figures.servers[1]
    assert (server.running, server.finished, server.releases) == (3, {"stop": 4}, {"champion": "ab" * 8})
    assert 0.2 < server.first_token.median < server.first_token.p95 < 0.4
    assert (figures.monitor.address, figures.monitor.evidence_required) == ("watch", 3.0)
    assert keys == [None], "asked once, without a key"
    page = Console(project).client.get("/live").text
    assert f"As the Prometheus at http://127.0.0.1:{port} has them" in page
    assert PageFacts(page).errors == []


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "does not answer as Prometheus does"),
        (b'{"data": {"result": [{"metric": {}, "value": [1]}]}}', "does not answer as Prometheus does"),
        (render_prometheus(), "has no metrics of tunectl"),
        (render_prometheus(a=b"tunectl_requests_running -1\n"), "has no metrics of tunectl"),
    ],
)
def test_without_such_a_prometheus_the_programs_are_asked(
    project: ProjectPaths, say_any: Callable[[bytes], tuple[int, list[str | None]]], body: bytes, words: str
) -> None:
    port, _ = say_any(body)
    declare(project, "http://127.0.0.1:1", prometheus=f"http://127.0.0.1:{port}")
    figures = read(project)
    assert [one.state for one in figures.servers] == ["not reachable"]
    assert words in figures.problem
    assert words in next(service_metrics.describe_services(figures))


def test_several_pages_ask_the_servers_once(project: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(
        "tunectl.console.screens.live.read_service_figures", lambda *_: asked.append(1) or ServiceFigures()
    )
    declare(project)
    console = Console(project)
    for _ in range(3):
        assert "No server is named in" in console.client.get("/live").text
    assert len(asked) == 1


def test_a_paused_page_does_not_follow(project: ProjectPaths) -> None:
    console = Console(project)
    assert 'data-live="/live"' in console.client.get("/live").text
    paused = console.client.get("/live?paused=1&variant=champion").text
    assert "data-live" not in paused
    assert 'href="/live?variant=champion">Follow again' in paused


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ([(1.0, 0), (2.0, 10), (float("inf"), 10)], 0.5, 1.5),
        ([(1.0, 4), (2.0, 4), (float("inf"), 8)], 0.5, 1.0),
        ([(1.0, 0), (2.0, 0), (float("inf"), 3)], 0.5, 2.0),
    ],
)
def test_quantile_of_a_histogram(buckets: list[tuple[float, float]], share: float, expected: float) -> None:
    assert estimate_quantile(buckets, share) == expected
