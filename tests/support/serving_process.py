"""A real server for tests: `bentoml serve` in a process and folder of its own, on loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from conf_copy import copy_conf

from tunectl.access import api_keys, scopes

ROOT = Path(__file__).parents[2]


def settings(**serve: Any) -> dict[str, Any]:
    """The settings of conf/, with changes to the serve section given as dotted keys (``limits__max_concurrency=2``)."""
    import yaml

    read = lambda name: yaml.safe_load((ROOT / "conf" / name).read_text())
    found = {
        "project": "shop",
        "serve": read("serve/default.yaml"),
        "inference_log": read("inference_log/default.yaml"),
    }
    found["annotate"] = read("annotate/default.yaml")
    found["serve"]["poll_seconds"] = 0.2
    found["serve"]["key_limits"] = dict.fromkeys(found["serve"]["key_limits"])  # one key sends what many people would
    for key, value in serve.items():
        *path, last = key.split("__")
        place = found["serve"] if path[:1] != ["inference_log"] else found["inference_log"]
        for part in path if path[:1] != ["inference_log"] else path[1:]:
            place = place[part]
        place[last] = value
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


class Server:
    """A running server and ways to talk to it."""

    def __init__(self, folder: Path, *, env: dict[str, str] | None = None, grace: int = 20, **serve: Any) -> None:
        """``grace``: seconds that open answers have when it stops."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.port, self.log = folder, free_port(), folder / "log"
        (folder / "serve.json").write_text(json.dumps(settings(**serve)))
        self.keys = {scope: self.key(scope, [scope]) for scope in scopes.SCOPES if scope != "chat"}
        self.keys["chat"] = self.key("chat", ["chat", "acts_for"])  # its requests name people
        program = [sys.executable, "-m", "bentoml", "serve", "tunectl.services.bento_service:TunectlService"]
        words = ["--host", "127.0.0.1", "--port", str(self.port), "--timeout-graceful-shutdown", str(grace)]
        quiet = {
            "BENTOML_DO_NOT_TRACK": "True",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "BENTOML_CONTAINERIZED": "1",
        }
        self._words = [*program, *words]
        self._env = {**os.environ, **quiet, "BENTOML_HOME": str(folder / "bentoml"), **(env or {})}
        self.start()

    def start(self) -> None:
        """Start it, or start it again after its end."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._words, cwd=self.folder, stdout=log, stderr=log, env=self._env, start_new_session=True
            )

    def key(self, name: str, granted: list[str], per_minute: int | None = None) -> str:
        secret, entry = api_keys.create_key(name, granted, per_minute, datetime.now(UTC))
        api_keys.add(self.folder / ".tunectl/keys.json", entry)
        return secret

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def call(
        self,
        path: str,
        body: Any = None,
        *,
        key: str | None = "",
        headers: dict[str, str] | None = None,
        raw: bytes | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """One request; ``key`` '' is the one with scope chat, None none."""
        given = dict(headers or {})
        secret = self.keys["chat"] if key == "" else key
        if secret:
            given["Authorization"] = f"Bearer {secret}"
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        if data is not None:
            given.setdefault("Content-Type", "application/json")
        asked = urllib.request.Request(self.address + path, data, given)
        try:
            with urllib.request.urlopen(asked, timeout=60) as answer:
                return answer.status, {k.lower(): v for k, v in answer.headers.items()}, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, {k.lower(): v for k, v in error.headers.items()}, error.read()

    def ready(self) -> tuple[bool, dict[str, Any]]:
        try:
            status, _, body = self.call("/readyz", key=None)
        except OSError:
            return False, {}
        return status == 200, json.loads(body)

    def wait(self, condition, seconds: float = 90, every: float = 0.1) -> dict[str, Any]:
        """Wait until ``condition(ready, said)`` holds; what ``/readyz`` said then."""
        until = time.monotonic() + seconds
        said: dict[str, Any] = {}
        while time.monotonic() < until:
            ready, said = self.ready()
            if said and condition(ready, said):
                return said
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(every)
        raise AssertionError(f"{said}\n{self.log.read_text()[-3000:]}")

    def until_ready(self, seconds: float = 90) -> dict[str, Any]:
        return self.wait(lambda ready, _: ready, seconds)

    def metrics(self) -> dict[str, float]:
        _, _, text = self.call("/metrics", key=self.keys["scrape"])
        lines = [line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines}

    def stop(self, number: int = signal.SIGTERM, seconds: float = 40) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


class TypedServer(Server):
    """The server of a project, started the way a person does it."""

    tunectl = (sys.executable, "-m", "tunectl")

    def __init__(self, folder: Path, registry: Path, *words: str) -> None:
        """``words``: further ones of the command line."""
        copy_conf(folder)
        self.folder, self.port, self.log, self.keys = folder, free_port(), folder / "log", {"chat": ""}
        hidden = {"TUNECTL_KEYS", "TUNECTL_REGISTRY", "TUNECTL_SERVE", "TUNECTL_HOME", "TUNECTL_INFERENCE_LOG_URL"}
        self._env = {name: value for name, value in os.environ.items() if name not in hidden}
        self._env |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        self._words = [*self.tunectl, "serve", f"serve.port={self.port}", f"serve.registry={registry}", *words]
        self.start()

    def run(self, *words: str) -> str:
        done = subprocess.run([*self.tunectl, *words], cwd=self.folder, env=self._env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


def make_certificate(folder: Path) -> None:
    """``cert.pem`` and ``key.pem`` of localhost, which nobody vouches for."""
    words = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    out = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run(["openssl", *words, *names, *out], check=True, capture_output=True)
