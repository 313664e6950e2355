"""Webhooks by the thousand, hostile ones, and none at all, against a real watcher (faults 19, 20)."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import retrain_project
from serving_process import free_port

from scenarios.fault_result import FaultResult

PATIENT = "retrain.reconcile_minutes=100000"
ALERT = {"alertname": "TunectlDriftSustained", "severity": "ticket"}


def payload(
    *, start: str = "2026-05-01T10:00:00.123456789Z", status: str = "firing", version: str = "4", **more: Any
) -> bytes:
    """What Alertmanager sends."""
    alert = {
        "status": status,
        "labels": ALERT,
        "annotations": {"summary": "The world has changed."},
        "startsAt": start,
        "fingerprint": "f00d",
    }
    return json.dumps({"version": version, "groupKey": "{}", "truncatedAlerts": 0, "alerts": [alert], **more}).encode()


class Watched:
    """A watcher of a project, which can be killed and started again on the same port."""

    def __init__(self, folder: Path, *words: str, **environment: str) -> None:
        self.folder, self.port, self._words, self._environment = folder, free_port(), words, environment
        self.start()

    def start(self) -> None:
        self.process = retrain_project.start(
            self.folder, "on", f"retrain.port={self.port}", *self._words, **self._environment
        )
        self.until(lambda: self.ask("GET", "/healthz", None) == 200, "the watcher answers")

    @property
    def token(self) -> str:
        return (self.folder / ".tunectl" / "retrain" / "token").read_text().strip()

    def ask(self, method: str, path: str, token: str | None, body: bytes = b"") -> int:
        """The status of an answer; 0 where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            reply.read()
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()
        return reply.status

    def deliver(self, body: bytes) -> int:
        """As Alertmanager does: network errors and 5xx are tried again. The last status."""
        for _ in range(600):
            status = self.ask("POST", "/webhook", self.token, body)
            if status and status < 500:
                return status
            time.sleep(0.1)
        return status

    def until(self, condition: Any, what: str, seconds: float = 240) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, (self.folder / "log.txt").read_text()[-2000:]
            assert time.monotonic() < end, (
                f"{what}: not within {seconds} s: {(self.folder / 'log.txt').read_text()[-2000:]}"
            )
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.start()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def ended(self, runs: int) -> bool:
        """Whether so many runs have come to an end."""
        states = retrain_project.states(self.folder)
        return len(states) >= runs and states[runs - 1][-1] in ("promoted", "rejected", "failed", "insufficient")


def send_repeatedly(folder: Path, *, deliveries: int, restarts: int, at_once: int = 20) -> FaultResult:
    """The same webhook again and again, from many sides, while the watcher is killed and started again."""
    found = FaultResult(
        19,
        "webhooks",
        "exactly one run of a thousand deliveries; safe answers to everything else; 503 while busy, and the run later",
    )
    store = retrain_project.make(folder)
    champion = store.champion().release
    retrain_project.drift(folder, champion)
    watcher = Watched(folder, PATIENT, VERDICT="reject", FAKE_SECONDS="2")
    try:
        statuses: Counter[int] = Counter()
        with ThreadPoolExecutor(at_once) as pool:
            for turn in range(restarts + 1):
                restart = threading.Thread(target=watcher.restart)
                if turn:
                    restart.start()
                statuses.update(pool.map(watcher.deliver, [payload()] * (deliveries // (restarts + 1))))
                if turn:
                    restart.join()
        watcher.until(lambda: watcher.ended(1), "the run has ended")
        found.require(set(statuses) == {200}, f"answers: {dict(statuses)}")
        found.figures |= {"deliveries": deliveries, "restarts": restarts}
        _nothing_more(found, watcher)
        _busy(found, watcher, champion)
    finally:
        watcher.stop()
    return found


def _nothing_more(found: FaultResult, watcher: Watched) -> None:
    """What must start nothing, whatever is answered."""
    asked: list[tuple[str, str, str | None, bytes, int]] = [
        ("POST", "/webhook", watcher.token, payload(status="resolved"), 200),
        ("POST", "/webhook", watcher.token, payload(truncatedAlerts=900), 200),
        ("POST", "/webhook", watcher.token, payload(version="1"), 200),
        ("POST", "/webhook", watcher.token, payload(version="5"), 400),
        ("POST", "/webhook", watcher.token, payload()[:-20], 400),
        ("POST", "/webhook", watcher.token, b'{"version": "4"}', 400),
        ("POST", "/webhook", watcher.token, b"\xff\xfe" + b"[" * 10_000, 400),
        ("POST", "/webhook", watcher.token, payload(padding="x" * 5_000_000), 413),
        ("POST", "/webhook", None, payload(start="2026-05-02T10:00:00Z"), 401),
        ("POST", "/webhook", "wrong", payload(start="2026-05-02T10:00:00Z"), 401),
        ("GET", "/webhook", watcher.token, b"", 405),
        ("POST", "/runs/x", watcher.token, payload(), 405),
    ]
    for method, path, token, body, wanted in asked:
        status = watcher.ask(method, path, token, body)
        found.require(status == wanted, f"{method} {path} with {len(body)} bytes: {status}, {wanted} is due")
        found.require(watcher.ask("GET", "/healthz", None) == 200, "the watcher does not answer any more")
    time.sleep(1)
    found.require(
        len(retrain_project.states(watcher.folder)) == 1,
        f"{len(retrain_project.states(watcher.folder))} runs of one alert",
    )


def _busy(found: FaultResult, watcher: Watched, champion: str) -> None:
    """While a run trains a new alert is answered 503; delivered again, it starts its run afterwards."""
    retrain_project.drift(watcher.folder, champion, "b" * 16)
    found.require(watcher.deliver(payload(start="2026-05-03T10:00:00Z")) == 200, "the second alert is not taken")
    watcher.until(lambda: retrain_project.states(watcher.folder)[-1][-1] == "training", "the second run trains")
    status = watcher.ask("POST", "/webhook", watcher.token, payload(start="2026-05-04T10:00:00Z"))
    found.require(status == 503, f"busy is answered with {status}")
    retrain_project.drift(watcher.folder, champion, "c" * 16)
    found.require(watcher.deliver(payload(start="2026-05-04T10:00:00Z")) == 200, "the third alert is never taken")
    watcher.until(lambda: watcher.ended(3), "the third run has ended")
    found.figures["runs"] = len(retrain_project.states(watcher.folder))


def run_without_alertmanager(folder: Path) -> FaultResult:
    """No alert is ever delivered."""
    found = FaultResult(20, "Alertmanager down", "the watcher finds the drift by itself")
    store = retrain_project.make(folder)
    retrain_project.drift(folder, store.champion().release)
    began = time.monotonic()
    watcher = Watched(folder, "retrain.reconcile_minutes=0.03")
    try:
        watcher.until(lambda: watcher.ended(1), "the run has ended")
    finally:
        watcher.stop()
    states = retrain_project.states(folder)
    found.require(states[0][-1] == "promoted" and len(states) == 1, str(states))
    found.figures["seconds"] = round(time.monotonic() - began, 1)
    return found
