"""Run the real Prometheus and Alertmanager with our configuration, on this machine, without containers.

Each gets a folder of its own with a copy of the configuration, in which only addresses, secret files and intervals are changed. Debian has both: ``apt-get install prometheus prometheus-alertmanager``.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MONITORING = Path(__file__).resolve().parent
PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
NOT_INSTALLED = "Prometheus and Alertmanager are not installed (Debian: prometheus prometheus-alertmanager)"
INSTALLED = bool(PROMETHEUS and ALERTMANAGER)
SHORT_INTERVALS = {"group_wait": "1s", "group_interval": "2s", "repeat_interval": "10s"}


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def write_prometheus_config(
    folder: Path, targets: Mapping[str, str], secrets: Mapping[str, str], alertmanager: str, **changes: Any
) -> Path:
    """Write our Prometheus configuration with other targets, and secrets from files in ``folder``; a job without a target is left out.

    Scrapes every second, unless ``changes`` of its section ``global`` say otherwise.
    """
    import yaml

    shutil.copytree(MONITORING / "prometheus", folder, dirs_exist_ok=True)
    path = folder / "prometheus.yml"
    config = yaml.safe_load(path.read_text())
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s", **changes}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    config["scrape_configs"] = [item for item in config["scrape_configs"] if item["job_name"] in targets]
    for job in config["scrape_configs"]:
        job["static_configs"][0]["targets"] = targets[job["job_name"]].split()
        if "authorization" in job:
            job["authorization"]["credentials_file"] = _secret(folder, job["authorization"], secrets)
    path.write_text(yaml.safe_dump(config))
    return path


def write_alertmanager_config(folder: Path, webhook: str, people: str, secrets: Mapping[str, str]) -> Path:
    """Write our Alertmanager configuration with short intervals and other addresses."""
    import yaml

    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((MONITORING / "alertmanager" / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route.update(SHORT_INTERVALS)
    for receiver in config["receivers"]:
        for hook in receiver.get("webhook_configs", []):
            hook["url"] = webhook
            authorization = hook["http_config"]["authorization"]
            authorization["credentials_file"] = _secret(folder, authorization, secrets)
        for slack in receiver.get("slack_configs", []):
            slack["api_url_file"] = str(folder / "notify_url")
    (folder / "notify_url").write_text(people)
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _secret(folder: Path, authorization: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    name = Path(authorization["credentials_file"]).name
    path = folder / name
    path.touch(mode=0o600)
    path.write_text(secrets[name])
    return str(path)


class Server:
    """A running Prometheus or Alertmanager."""

    def __init__(self, arguments: list[str], folder: Path, port: int) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(arguments, stdout=log, stderr=log)

    def until_ready(self, seconds: float = 60) -> None:
        """Wait until it answers."""
        wait(self._ready, seconds, lambda: self.log.read_text()[-3000:])

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return get(f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False

    def api(self, path: str, **parameters: str) -> Any:
        """Return the data of an answer of its API."""
        status, body = get(f"{self.url}{path}?{urllib.parse.urlencode(parameters)}")
        assert status == 200, body
        return json.loads(body)["data"]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return the answer to a query, as of now."""
        result: list[dict[str, Any]] = self.api("/api/v1/query", query=expr)["result"]
        return result

    def stop(self) -> None:
        """Terminate it; kill it if it does not end."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def prometheus(config: Path, port: int | None = None) -> Iterator[Server]:
    """Run a Prometheus that keeps its data beside ``config``, and shows the runbooks."""
    port = port or free_port()
    arguments = [
        str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", f"--web.external-url=http://127.0.0.1:{port}",
        f"--web.user-assets={MONITORING / 'runbooks'}", "--log.level=warn",
    ]  # fmt: skip
    with _running(Server(arguments, config.parent, port)) as server:
        yield server


@contextmanager
def alertmanager(config: Path) -> Iterator[Server]:
    """Run an Alertmanager of its own, without a cluster."""
    port = free_port()
    arguments = [
        str(ALERTMANAGER), f"--config.file={config}", f"--storage.path={config.parent / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=debug",
    ]  # fmt: skip
    with _running(Server(arguments, config.parent, port)) as server:
        yield server


@contextmanager
def _running(server: Server) -> Iterator[Server]:
    try:
        server.until_ready()
        yield server
    finally:
        server.stop()


def get(url: str) -> tuple[int, str]:
    """Send a GET request; return status and text."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait(condition: Callable[[], Any], seconds: float, reason: Callable[[], str] = lambda: "") -> Any:
    """Wait until ``condition`` returns something true, and return that.

    Raises  AssertionError with ``reason`` after ``seconds``.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        result = condition()
        if result:
            return result
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} s. {reason()}")
