"""The programs that are watched: service, monitor and retrain controller as users start them; Prometheus and Alertmanager where they are installed."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import local_stack

from loop_demo.scenario import Scene
from loop_demo.timeline import BY_HAND
from tunectl.access import api_keys

QUIET = {
    "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
ALERT = "TunectlDriftSustained"
Found = TypeVar("Found")


def plain_environment() -> dict[str, str]:
    """Ours without what points our programs to another store, database or person: none of that is theirs to touch."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TUNECTL_") or name == "TUNECTL_EXPORTER"
    }


class NotReadyError(Exception):
    """Something did not come in time; the message says what, and what the programs printed last."""


def until(condition: Callable[[], Found | None], seconds: float, description: str, every: float = 0.2) -> Found:
    """Wait until ``condition`` gives something true; that.

    Raises  NotReadyError when it never does.
    """
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        if time.monotonic() > end:
            raise NotReadyError(f"{description}: not within {seconds:.0f} s")
        time.sleep(every)


class Program:
    """One of ours, in a session of its own."""

    def __init__(self, name: str, words: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log = name, folder / ".tunectl" / "loop" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tunectl", *words],
                cwd=folder, env={**plain_environment(), **QUIET, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def last_words(self) -> str:
        """The end of what it printed."""
        return self.log.read_text(errors="replace")[-1500:]

    def until(self, condition: Callable[[], Found | None], seconds: float, every: float = 0.2) -> Found:
        """Wait for something of this program, as long as it lives.

        Raises  NotReadyError with its last words.
        """

        def alive() -> Found | None:
            if self.process.poll() is not None:
                raise NotReadyError(f"{self.name} ended with {self.process.returncode}:\n{self.last_words}")
            return condition()

        try:
            return until(alive, seconds, self.name, every)
        except NotReadyError as error:
            if self.process.poll() is not None:
                raise
            raise NotReadyError(f"{error}\n{self.last_words}") from error

    def stop(self, seconds: float = 60) -> None:
        """End it, kindly at first."""
        with suppress(ProcessLookupError):
            self.process.terminate()
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


@dataclass
class Stack:
    """What runs, and how to talk to it."""

    service: Program
    monitor: Program
    retrain: Program
    ports: dict[str, int]
    """Of service, monitor and retrain."""
    key: str
    """Opens everything of service and monitor."""
    token: str
    """Opens the endpoints of the retrain controller."""
    prometheus: local_stack.Server | None = None
    alertmanager: local_stack.Server | None = None

    def address(self, name: str) -> str:
        """Where a program answers."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def get_variants(self) -> dict[str, str]:
        """The release of each variant, as the service says; nothing where it does not answer."""
        try:
            status = self.read("service", "/readyz")
        except (OSError, ValueError, http.client.HTTPException):
            return {}
        return {variant: item["release"] for variant, item in status.get("variants", {}).items()}

    def read(self, name: str, path: str) -> Any:
        """JSON of a program."""
        return json.loads(self.text(name, path))

    def text(self, name: str, path: str) -> str:
        """What a program answers."""
        secret = self.token if name == "retrain" else self.key
        request = urllib.request.Request(self.address(name) + path, headers={"Authorization": f"Bearer {secret}"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            content = error.read()
        return content.decode()

    def sample(self, name: str, metric: str) -> float | None:
        """One number of a program's metrics; None where there is none."""
        try:
            lines = self.text(name, "/metrics").splitlines()
        except OSError:
            return None
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{metric} ")), None)

    def firing(self) -> list[str]:
        """Names of the alerts of drift that fire in Prometheus; none where it is not there."""
        if self.prometheus is None:
            return []
        return [
            item["metric"]["alertname"]
            for item in self.prometheus.ask(f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}')
        ]

    def deliver(self, began: datetime, summary: str) -> int:
        """What Alertmanager would send, where there is none; the status of the answer, 0 where nobody answers."""
        body = json.dumps(payload(began, summary)).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.address('retrain')}/webhook", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def payload(began: datetime, summary: str) -> dict[str, Any]:
    """Alertmanager's payload, version 4, of the one alert that asks for a retrain; it says who delivers it."""
    labels = {"alertname": ALERT, "severity": "ticket", "job": "tunectl-monitor"}
    alert = {
        "status": "firing", "labels": labels, "annotations": {"summary": summary, "description": BY_HAND}, "startsAt": began.astimezone(UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "5ee17a1a11ce0001",
    }  # fmt: skip
    return {
        "version": "4", "groupKey": f'{{}}:{{alertname="{ALERT}"}}', "truncatedAlerts": 0, "status": "firing", "receiver": "tunectl-retrain",
        "groupLabels": {"alertname": ALERT}, "commonLabels": labels, "commonAnnotations": {}, "externalURL": "", "alerts": [alert],
    }  # fmt: skip


@contextmanager
def running(scene: Scene, say: Callable[[str], None], *, observers: bool = True) -> Iterator[Stack]:
    """Everything, ready; ended afterwards in any case. ``observers``: Prometheus and Alertmanager, where they are installed."""
    started: list[Program] = []
    try:
        stack = _stack(scene, started)
        stack.service.until(lambda: "champion" in stack.get_variants(), 400)
        say(f"service   {stack.address('service')}/docs")
        stack.monitor.until(lambda: _answers(stack, "monitor"), 400)
        say(f"monitor   {stack.address('monitor')}/")
        stack.retrain.until(lambda: _answers(stack, "retrain"), 60)
        say(f"retrain   {stack.address('retrain')}/")
        with ExitStack() as running:
            if observers and local_stack.THERE:
                say(f"alerts    {_observe(stack, scene, running)}/alerts")
            else:
                say(
                    f"alerts    {local_stack.MISSING if observers else 'as asked'}: the same webhook is delivered by hand"
                )
            yield stack
    finally:
        for program in reversed(started):
            program.stop()


def _stack(scene: Scene, started: list[Program]) -> Stack:
    ports = {name: local_stack.free_port() for name in ("service", "monitor", "retrain")}
    secret, entry = api_keys.create_key(f"loop-{os.getpid()}", ["admin"], None, datetime.now(UTC))
    api_keys.add(scene.project / ".tunectl" / "keys.json", entry)
    for name, port in ports.items():
        started.append(_program(scene, name, port))
    service, monitor, retrain = started
    token = scene.project / ".tunectl" / "retrain" / "token"
    retrain.until(lambda: token.is_file() and len(token.read_text().strip()) >= 32, 120)
    return Stack(service, monitor, retrain, ports, secret, token.read_text().strip())


def _program(scene: Scene, name: str, port: int) -> Program:
    section = {"service": "serve"}.get(name, name)
    verb = ["retrain", "controller"] if name == "retrain" else [section]
    own = [word for word in scene.words if word.startswith(f"{section}.")]
    shared = [word for word in scene.words if word.startswith("inference_log.")]
    return Program(name, [*verb, f"{section}.port={port}", *own, *shared], scene.project, {})


def _answers(stack: Stack, name: str) -> bool:
    try:
        return stack.text(name, "/healthz").strip() == "ok"
    except OSError:
        return False


def _observe(stack: Stack, scene: Scene, exit_stack: ExitStack) -> str:
    """Start both; where Prometheus shows itself.

    Raises  NotReadyError with the end of its log where one of them does not start.
    """
    try:
        return _start_observers(stack, scene, exit_stack)
    except AssertionError as error:  # of local_stack
        raise NotReadyError(f"Prometheus or Alertmanager: {error}") from error


def _start_observers(stack: Stack, scene: Scene, exit_stack: ExitStack) -> str:
    folder = scene.project / ".tunectl" / "loop"
    secrets = {"scrape_key": stack.key, "retrain_token": stack.token}
    webhook = f"{stack.address('retrain')}/webhook"
    routes = local_stack.write_alertmanager_config(
        folder / "alertmanager", webhook, f"{stack.address('retrain')}/nobody", secrets
    )
    stack.alertmanager = exit_stack.enter_context(local_stack.alertmanager(routes))
    at, own = stack.alertmanager.url.removeprefix("http://"), local_stack.free_port()
    targets = {
        f"tunectl-{'serve' if name == 'service' else name}": f"127.0.0.1:{port}" for name, port in stack.ports.items()
    }
    targets |= {"prometheus": f"127.0.0.1:{own}", "alertmanager": at}
    config = local_stack.write_prometheus_config(folder / "prometheus", targets, secrets, at)
    stack.prometheus = exit_stack.enter_context(local_stack.prometheus(config, own))
    return str(stack.prometheus.url)
