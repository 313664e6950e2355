"""A Docker engine for tests, and containers of the image under test; everything that is started here is ended here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from serving_process import free_port

LOCKED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
TWO_CORES = ("--cpus", "2", "--memory", "3g")


class NoEngine(Exception):
    """No Docker engine answers, and none can be started; the text says why."""


def docker(*words: str, check: bool = True, given: str = "", seconds: float = 400) -> str:
    """What a docker command printed on its standard output; ``given`` is its input."""
    done = subprocess.run(["docker", *words], input=given, capture_output=True, text=True, timeout=seconds)
    assert not check or done.returncode == 0, f"docker {' '.join(words)}: {done.stderr[-2000:]}"
    return done.stdout.strip()


def _answers() -> bool:
    return subprocess.run(["docker", "info"], capture_output=True).returncode == 0


@contextmanager
def engine(folder: Path) -> Iterator[None]:
    """Make sure that a Docker engine answers while the block runs; its log goes into ``folder``.

    Raises  NoEngine
    """
    if shutil.which("docker") is None:
        raise NoEngine("docker is not installed (Debian: docker.io docker-buildx)")
    if _answers():
        yield
        return
    if shutil.which("dockerd") is None or os.geteuid() != 0:
        raise NoEngine("none runs, and only root can start one")
    log = folder / "dockerd.log"
    with log.open("wb") as stream:
        running = subprocess.Popen(["dockerd"], stdout=stream, stderr=stream, start_new_session=True)
    try:
        until = time.monotonic() + 300
        while not _answers():
            if running.poll() is not None or time.monotonic() > until:
                raise NoEngine(f"dockerd says: {log.read_text().strip().splitlines()[-1]}")
            time.sleep(0.5)
        yield
    finally:
        running.terminate()
        running.wait(60)


class Container:
    """A container of the image, reached over loopback."""

    def __init__(self, image: str, name: str, *options: str, volume: str, command: tuple[str, ...] = ()) -> None:
        self.name, self.port, self.started = name, free_port(), time.monotonic()
        network = () if "host" in options else ("-p", f"127.0.0.1:{self.port}:3000")
        own = ("-e", f"BENTOML_PORT={self.port}", "-e", "BENTOML_HOST=127.0.0.1") if not network else ()
        words = (*LOCKED, *TWO_CORES, *network, *own, "-v", f"{volume}:/data", *options)
        docker("run", "--detach", "--name", name, *words, image, *command)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def inside(self, *words: str, check: bool = True) -> str:
        """What a command in the container printed."""
        return docker("exec", self.name, *words, check=check)

    def log(self) -> str:
        done = subprocess.run(["docker", "logs", self.name], capture_output=True, text=True, timeout=300)
        return done.stdout + done.stderr

    def state(self) -> dict[str, Any]:
        return json.loads(docker("inspect", self.name))[0]

    def get(self, path: str, key: str | None = None) -> tuple[int, str]:
        asked = urllib.request.Request(self.address + path)
        if key:
            asked.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait(self, condition, seconds: float = 400, every: float = 0.1) -> dict[str, Any]:
        """Wait until ``condition(ready, said)`` holds; what ``/readyz`` said then."""
        until, said = time.monotonic() + seconds, {}
        while time.monotonic() < until:
            try:
                status, text = self.get("/readyz")
            except OSError:
                status, text = 0, "{}"
            said = json.loads(text)
            if said and condition(status == 200, said):
                return said
            assert self.state()["State"]["Running"], self.log()[-3000:]
            time.sleep(every)
        raise AssertionError(f"{said}\n{self.log()[-3000:]}")

    def until_ready(self) -> dict[str, Any]:
        return self.wait(lambda ready, _: ready)

    def processor_seconds(self) -> float:
        """CPU time that all its processes took so far, which others on the machine do not lengthen."""
        told = self.inside(
            "sh", "-c", "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null", check=False
        )
        words = told.split()
        return int(words[words.index("usage_usec") + 1]) / 1e6 if "usage_usec" in words else int(words[-1]) / 1e9

    def stop(self, seconds: int = 75) -> int:
        """As ``docker stop`` does; the exit code of the server."""
        docker("stop", "--time", str(seconds), self.name, seconds=seconds + 60)
        return int(self.state()["State"]["ExitCode"])


def key(image: str, volume: str, name: str, *scopes: str) -> str:
    """A new key in a volume, made as a user makes it."""
    words = [word for scope in scopes for word in ("--scope", scope)]
    made = ("python", "-m", "tunectl", "serve", "keys", "add", name, "--json", *words)
    return json.loads(docker("run", "--rm", *LOCKED, "-v", f"{volume}:/data", image, *made))["key"]
