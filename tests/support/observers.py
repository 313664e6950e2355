"""The real Prometheus and Alertmanager on our configuration, in a folder of their own: names, ports and secrets changed, nothing else."""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from serving_process import free_port

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"
PROMETHEUS = shutil.which("prometheus")
ALERTMANAGER = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
PROMTOOL, AMTOOL = shutil.which("promtool"), shutil.which("amtool")
MISSING = "Prometheus and Alertmanager are not installed (Debian: prometheus prometheus-alertmanager)"
THERE = bool(PROMETHEUS and ALERTMANAGER and PROMTOOL and AMTOOL)


def scraped(folder: Path, targets: dict[str, str], secrets: dict[str, str], alertmanager: str, **changes: Any) -> Path:
    """Our Prometheus configuration with other targets, and secrets from files in ``folder``; a job without a target is left out."""
    shutil.copytree(MONITORING / "prometheus", folder, dirs_exist_ok=True)
    path = folder / "prometheus.yml"
    config = yaml.safe_load(path.read_text())
    config["global"] |= {"scrape_interval": "1s", "evaluation_interval": "1s", **changes}
    config["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"] = [alertmanager]
    config["scrape_configs"] = [one for one in config["scrape_configs"] if one["job_name"] in targets]
    for job in config["scrape_configs"]:
        job["static_configs"][0]["targets"] = targets[job["job_name"]].split()
        if "authorization" in job:
            job["authorization"]["credentials_file"] = _secret(folder, job["authorization"], secrets)
    path.write_text(yaml.safe_dump(config))
    return path


def routed(folder: Path, webhook: str, people: str, secrets: dict[str, str]) -> Path:
    """Our Alertmanager configuration, hurried, with other addresses."""
    folder.mkdir(parents=True, exist_ok=True)
    config = yaml.safe_load((MONITORING / "alertmanager" / "alertmanager.yml").read_text())
    for route in (config["route"], *config["route"]["routes"]):
        route |= {"group_wait": "1s", "group_interval": "2s", "repeat_interval": "10s"}
    for receiver in config["receivers"]:
        for hook in receiver.get("webhook_configs", []):
            hook["url"] = webhook
            hook["http_config"]["authorization"]["credentials_file"] = _secret(
                folder, hook["http_config"]["authorization"], secrets
            )
        for slack in receiver.get("slack_configs", []):
            slack["api_url_file"] = str(folder / "notify_url")
    (folder / "notify_url").write_text(people)
    path = folder / "alertmanager.yml"
    path.write_text(yaml.safe_dump(config))
    return path


def _secret(folder: Path, authorization: dict[str, str], secrets: dict[str, str]) -> str:
    name = Path(authorization["credentials_file"]).name
    path = folder / name
    path.write_text(secrets[name])
    return str(path)


class Server:
    """One of the two, running."""

    def __init__(self, words: list[str], folder: Path, port: int) -> None:
        self.url, self.log = f"http://127.0.0.1:{port}", folder / "log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def until_ready(self, seconds: float = 60) -> None:
        wait(self._ready, seconds, lambda: self.log.read_text()[-3000:])

    def _ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        try:
            return get(f"{self.url}/-/ready")[0] == 200
        except OSError:
            return False

    def api(self, path: str, **given: str) -> Any:
        status, body = get(f"{self.url}{path}?{urllib.parse.urlencode(given)}")
        assert status == 200, body
        return json.loads(body)["data"]

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The answer to a query, as of now."""
        found: list[dict[str, Any]] = self.api("/api/v1/query", query=expr)["result"]
        return found

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def prometheus(config: Path, port: int | None = None) -> Iterator[Server]:
    """A Prometheus that keeps its data beside ``config``, and shows the runbooks."""
    port = port or free_port()
    server = Server(
        [
            PROMETHEUS, f"--config.file={config}", f"--storage.tsdb.path={config.parent / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", f"--web.external-url=http://127.0.0.1:{port}",
            f"--web.user-assets={MONITORING / 'runbooks'}", "--log.level=warn",
        ],
        config.parent, port,
    )  # fmt: skip
    try:
        server.until_ready()
        yield server
    finally:
        server.stop()


@contextmanager
def alertmanager(config: Path) -> Iterator[Server]:
    """An Alertmanager of its own, without a cluster."""
    port = free_port()
    server = Server(
        [
            ALERTMANAGER, f"--config.file={config}", f"--storage.path={config.parent / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address=", "--log.level=debug",
        ],
        config.parent, port,
    )  # fmt: skip
    try:
        server.until_ready()
        yield server
    finally:
        server.stop()


@contextmanager
def answering(reply: Callable[[str, str, bytes], tuple[int, bytes]]) -> Iterator[str]:
    """A web server whose answers ``reply`` (path, Authorization, body) gives; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = reply(self.path, self.headers.get("Authorization", ""), body)
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _any

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def get(url: str) -> tuple[int, str]:
    """Status and text."""
    try:
        with urllib.request.urlopen(url, timeout=20) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wait(condition: Callable[[], Any], seconds: float, why: Callable[[], str] = lambda: "") -> Any:
    """Until ``condition`` gives something true; that."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.25)
    raise AssertionError(f"not within {seconds} s. {why()}")


def backfill(folder: Path, openmetrics: Path) -> None:
    """Put a past into the data of a Prometheus that does not run."""
    words = [PROMTOOL, "tsdb", "create-blocks-from", "openmetrics", "--quiet", str(openmetrics), str(folder / "data")]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def record(server: Server, config: Path, since: float, until: float) -> None:
    """Evaluate the recording rules over the past; a Prometheus sees it after a restart."""
    words = [
        PROMTOOL, "tsdb", "create-blocks-from", "rules", f"--start={since:.0f}", f"--end={until:.0f}", f"--url={server.url}",
        f"--output-dir={config.parent / 'data'}", "--eval-interval=60s", str(config.parent / "rules" / "recording.yml"),
    ]  # fmt: skip
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
