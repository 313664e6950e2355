"""The programs of the demo: service, monitor and retrain controller as users start them; Prometheus and Alertmanager if they are installed."""

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

from loop_demo.scenario import DemoScenario
from loop_demo.timeline import SENT_BY_DEMO
from tunectl.access import api_keys

OFFLINE_ENV = {
    "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "BENTOML_DO_NOT_TRACK": "True", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
ALERT = "TunectlDriftSustained"
Result = TypeVar("Result")


def plain_environment() -> dict[str, str]:
    """Return this process's environment without the variables that would point the programs to the user's registry, database or webhook."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("TUNECTL_") or name == "TUNECTL_EXPORTER"
    }


class NotReadyError(Exception):
    """A program was not ready in time; the message says which, with the end of its log."""


def wait_until(condition: Callable[[], Result | None], seconds: float, description: str, every: float = 0.2) -> Result:
    """Wait until ``condition`` returns something true, and return that.

    Raises  NotReadyError after ``seconds``.
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
    """A program of tunectl, in a session of its own."""

    def __init__(self, name: str, arguments: list[str], folder: Path, environment: Mapping[str, str]) -> None:
        self.name, self.log = name, folder / ".tunectl" / "loop" / f"{name}.log"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tunectl", *arguments],
                cwd=folder, env={**plain_environment(), **OFFLINE_ENV, **environment}, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    @property
    def log_tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-1500:]

    def until(self, condition: Callable[[], Result | None], seconds: float, every: float = 0.2) -> Result:
        """Wait for a condition while the program runs.

        Raises  NotReadyError with the end of its log.
        """

        def check_running() -> Result | None:
            if self.process.poll() is not None:
                raise NotReadyError(f"{self.name} ended with {self.process.returncode}:\n{self.log_tail}")
            return condition()

        try:
            return wait_until(check_running, seconds, self.name, every)
        except NotReadyError as error:
            if self.process.poll() is not None:
                raise
            raise NotReadyError(f"{error}\n{self.log_tail}") from error

    def stop(self, seconds: float = 60) -> None:
        """Terminate it; kill it if it does not end in time."""
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
    """The running programs, and requests to them."""

    service: Program
    monitor: Program
    retrain: Program
    ports: dict[str, int]
    """Ports of service, monitor and retrain."""
    key: str
    """API key of service and monitor, with all scopes."""
    token: str
    """Bearer token of the retrain controller."""
    prometheus: local_stack.Server | None = None
    alertmanager: local_stack.Server | None = None

    def url(self, name: str) -> str:
        """Return the URL of a program."""
        return f"http://127.0.0.1:{self.ports[name]}"

    def get_variants(self) -> dict[str, str]:
        """Return the release of each variant that the service reports; empty if it does not answer."""
        try:
            status = self.get_json("service", "/readyz")
        except (OSError, ValueError, http.client.HTTPException):
            return {}
        return {variant: item["release"] for variant, item in status.get("variants", {}).items()}

    def get_json(self, name: str, path: str) -> Any:
        """Send a GET request to a program; return the JSON."""
        return json.loads(self.get_text(name, path))

    def get_text(self, name: str, path: str) -> str:
        """Send a GET request to a program; return the text."""
        secret = self.token if name == "retrain" else self.key
        request = urllib.request.Request(self.url(name) + path, headers={"Authorization": f"Bearer {secret}"})
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                content: bytes = answer.read()
        except urllib.error.HTTPError as error:
            content = error.read()
        return content.decode()

    def read_metric(self, name: str, metric: str) -> float | None:
        """Return one value of a program's metrics; None if there is none."""
        try:
            lines = self.get_text(name, "/metrics").splitlines()
        except OSError:
            return None
        return next((float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(f"{metric} ")), None)

    def list_firing_alerts(self) -> list[str]:
        """Return the names of the firing drift alerts; empty without Prometheus."""
        if self.prometheus is None:
            return []
        return [
            item["metric"]["alertname"]
            for item in self.prometheus.ask(f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}')
        ]

    def send_webhook(self, began: datetime, summary: str) -> int:
        """Send the webhook that Alertmanager would send; return the HTTP status, 0 if there is no answer."""
        body = json.dumps(make_webhook_payload(began, summary)).encode()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{self.url('retrain')}/webhook", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def make_webhook_payload(began: datetime, summary: str) -> dict[str, Any]:
    """Make Alertmanager's payload, version 4, of the drift alert; its description says who sends it."""
    labels = {"alertname": ALERT, "severity": "ticket", "job": "tunectl-monitor"}
    alert = {
        "status": "firing", "labels": labels, "annotations": {"summary": summary, "description": SENT_BY_DEMO}, "startsAt": began.astimezone(UTC).isoformat(),
        "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "", "fingerprint": "5ee17a1a11ce0001",
    }  # fmt: skip
    return {
        "version": "4", "groupKey": f'{{}}:{{alertname="{ALERT}"}}', "truncatedAlerts": 0, "status": "firing", "receiver": "tunectl-retrain",
        "groupLabels": {"alertname": ALERT}, "commonLabels": labels, "commonAnnotations": {}, "externalURL": "", "alerts": [alert],
    }  # fmt: skip


@contextmanager
def run_stack(
    scenario: DemoScenario, print_line: Callable[[str], None], *, with_prometheus: bool = True
) -> Iterator[Stack]:
    """Start all programs, wait until they are ready, and stop them at the end. ``with_prometheus``: Prometheus and Alertmanager, too, if they are installed."""
    started: list[Program] = []
    try:
        stack = _start_programs(scenario, started)
        stack.service.until(lambda: "champion" in stack.get_variants(), 400)
        print_line(f"service   {stack.url('service')}/docs")
        stack.monitor.until(lambda: _is_healthy(stack, "monitor"), 400)
        print_line(f"monitor   {stack.url('monitor')}/")
        stack.retrain.until(lambda: _is_healthy(stack, "retrain"), 60)
        print_line(f"retrain   {stack.url('retrain')}/")
        with ExitStack() as servers:
            if with_prometheus and local_stack.INSTALLED:
                print_line(f"alerts    {_start_prometheus(stack, scenario, servers)}/alerts")
            else:
                print_line(
                    f"alerts    {local_stack.NOT_INSTALLED if with_prometheus else 'off, by --no-prometheus'}: the demo script sends the webhook"
                )
            yield stack
    finally:
        for program in reversed(started):
            program.stop()


def _start_programs(scenario: DemoScenario, started: list[Program]) -> Stack:
    ports = {name: local_stack.free_port() for name in ("service", "monitor", "retrain")}
    secret, entry = api_keys.create_key(f"loop-{os.getpid()}", ["admin"], None, datetime.now(UTC))
    api_keys.add(scenario.project / ".tunectl" / "keys.json", entry)
    for name, port in ports.items():
        started.append(_start_program(scenario, name, port))
    service, monitor, retrain = started
    token = scenario.project / ".tunectl" / "retrain" / "token"
    retrain.until(lambda: token.is_file() and len(token.read_text().strip()) >= 32, 120)
    return Stack(service, monitor, retrain, ports, secret, token.read_text().strip())


def _start_program(scenario: DemoScenario, name: str, port: int) -> Program:
    section = {"service": "serve"}.get(name, name)
    verb = ["retrain", "controller"] if name == "retrain" else [section]
    own = [override for override in scenario.overrides if override.startswith(f"{section}.")]
    shared = [override for override in scenario.overrides if override.startswith("inference_log.")]
    return Program(name, [*verb, f"{section}.port={port}", *own, *shared], scenario.project, {})


def _is_healthy(stack: Stack, name: str) -> bool:
    try:
        return stack.get_text(name, "/healthz").strip() == "ok"
    except OSError:
        return False


def _start_prometheus(stack: Stack, scenario: DemoScenario, exit_stack: ExitStack) -> str:
    """Start Prometheus and Alertmanager; return the URL of Prometheus.

    Raises  NotReadyError with the end of its log if one of them does not start.
    """
    try:
        return _start_servers(stack, scenario, exit_stack)
    except AssertionError as error:  # raised by local_stack
        raise NotReadyError(f"Prometheus or Alertmanager: {error}") from error


def _start_servers(stack: Stack, scenario: DemoScenario, exit_stack: ExitStack) -> str:
    folder = scenario.project / ".tunectl" / "loop"
    secrets = {"scrape_key": stack.key, "retrain_token": stack.token}
    webhook = f"{stack.url('retrain')}/webhook"
    routes = local_stack.write_alertmanager_config(
        folder / "alertmanager", webhook, f"{stack.url('retrain')}/nobody", secrets
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
