"""The whole of it, once: two days in a real Prometheus, whose rules fire; a real Alertmanager; a real `tunectl retrain controller`."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import prometheus_stack
import pytest
import retrain_project
import synthetic_metrics
from serving_process import free_port

SCRAPE_KEY = "tk-scrape"


@dataclass
class Stack:
    """What runs, and what was heard."""

    prometheus: prometheus_stack.Server
    alertmanager: prometheus_stack.Server
    project: Path
    champion: str
    token: str
    controller: str
    heard: list[bytes] = field(default_factory=list)
    """What people were told."""


@pytest.fixture(scope="module")  # threads of its own that answer: they end with the file that needs them
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    if not prometheus_stack.INSTALLED:
        pytest.skip(prometheus_stack.NOT_INSTALLED)
    folder = tmp_path_factory.mktemp("stack")
    project, port = folder / "shop", free_port()
    champion = retrain_project.make(project).champion().release
    retrain_project.drift(project, champion)  # the alert will fire at once, and ask for it
    token = _token(project)
    heard: list[bytes] = []

    def people(_path: str, _authorization: str, body: bytes) -> tuple[int, bytes]:
        heard.append(body)
        return 200, b"ok"

    histories: list[synthetic_metrics.SyntheticHistory] = []
    one_at_a_time = threading.Lock()

    def metrics(job: str, key: str):
        def reply(path: str, authorization: str, _body: bytes) -> tuple[int, bytes]:
            if path != "/metrics" or authorization != f"Bearer {key}":
                return 401, b""
            with one_at_a_time:
                histories[0].advance_to(datetime.now(UTC))
                return 200, histories[0].texts()[job]

        return reply

    secrets = {"scrape_key": SCRAPE_KEY, "retrain_token": token}
    keys = (SCRAPE_KEY, SCRAPE_KEY, token)
    with (
        prometheus_stack.answering(metrics(synthetic_metrics.JOBS[0], keys[0])) as serve,
        prometheus_stack.answering(metrics(synthetic_metrics.JOBS[1], keys[1])) as monitor,
        prometheus_stack.answering(metrics(synthetic_metrics.JOBS[2], keys[2])) as controller_metrics,
        prometheus_stack.answering(people) as ears,
    ):
        targets = dict(zip(synthetic_metrics.JOBS, (serve, monitor, controller_metrics), strict=True))
        end = datetime.now(UTC).replace(microsecond=0)
        histories.append(synthetic_metrics.write_history(folder / "past.txt", targets, end))
        watcher = retrain_project.start(project, "on", f"retrain.port={port}", "retrain.reconcile_minutes=100000")
        try:
            routes = prometheus_stack.write_alertmanager_config(
                folder / "am", f"http://127.0.0.1:{port}/webhook", f"http://{ears}/hook", secrets
            )
            with prometheus_stack.alertmanager(routes) as manager:
                at, own = manager.url.removeprefix("http://"), free_port()
                targets |= {"prometheus": f"127.0.0.1:{own}", "alertmanager": at}
                config = prometheus_stack.write_prometheus_config(folder / "prom", targets, secrets, at)
                _fill(config, folder / "past.txt", end)
                with prometheus_stack.prometheus(config, own) as server:
                    yield Stack(server, manager, project, champion, token, f"http://127.0.0.1:{port}", heard)
        finally:
            watcher.terminate()
            watcher.wait(60)


def _token(project: Path) -> str:
    path = project / ".tunectl" / "retrain" / "token"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("t" * 40)
    return "t" * 40


def _fill(config: Path, past: Path, end: datetime) -> None:
    """Two passes: the longer windows are made of what the first pass records."""
    prometheus_stack.backfill(config.parent, past)
    quiet = config.with_name("quiet.yml")
    quiet.write_text("global: {scrape_interval: 1h}\n")
    since = (end - timedelta(hours=synthetic_metrics.HOURS - 1)).timestamp()
    for _ in range(2):
        with prometheus_stack.prometheus(quiet) as server:
            prometheus_stack.record(server, config, since, end.timestamp() - 60)
