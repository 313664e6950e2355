"""compose.yaml as its head tells it: the service and PostgreSQL, a key, an answer that is kept, a promotion, the end."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import openai
import pytest
import yaml
from containers import docker
from serving_process import free_port
from tiny_release import stored

from tunectl.registry.release_store import ReleaseRegistry

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3000)]
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FILE = ROOT / "monitoring/compose.yaml"


@dataclass(frozen=True)
class Compose:
    """`docker compose` on the file, under a name of its own."""

    words: list[str]
    environment: dict[str, str]

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.environment['TUNECTL_PORT']}"

    def __call__(self, *more: str) -> str:
        """What a command printed; it must end well."""
        done = self._run(*more)
        assert done.returncode == 0, f"{' '.join(more)}: {done.stderr[-2000:]}\n{self._run('logs').stdout[-6000:]}"
        return done.stdout.strip()

    def _run(self, *more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*self.words, *more], env=self.environment, capture_output=True, text=True, timeout=400)


@pytest.fixture
def compose(built, tmp_path: Path) -> Iterator[Compose]:
    """What it started is gone after the test."""
    base = yaml.safe_load((ROOT / "bentofile.yaml").read_text())["docker"]["base_image"]
    postgres = yaml.safe_load(FILE.read_text())["services"]["postgres"]["image"]
    subprocess.run([HERE / "postgres_image", postgres, base], check=True, timeout=1200)
    given = {
        "TUNECTL_IMAGE": built.image,
        "TUNECTL_RELEASES": str(tmp_path / "releases"),
        "TUNECTL_PROJECT": str(tmp_path),
        "TUNECTL_PORT": str(free_port()),
        "POSTGRES_PASSWORD": uuid.uuid4().hex,
        "TUNECTL_HASH_KEY": uuid.uuid4().hex,
    }
    told = ("TUNECTL_RETRAIN_TOKEN", "GRAFANA_PASSWORD", "TUNECTL_NOTIFY_URL", "TUNECTL_SCRAPE_KEY")  # of others
    environment = {**os.environ, **given, **dict.fromkeys(told, "nothing")}
    words = ["docker", "compose", "--file", str(FILE), "--project-name", f"tunectl-test-{uuid.uuid4().hex[:12]}"]
    running = Compose(words, environment)
    yield running
    running("down", "--volumes")


def champion(address: str) -> str:
    with urllib.request.urlopen(f"{address}/readyz", timeout=30) as answer:
        return json.loads(answer.read())["variants"]["champion"]["release"]


def test_the_service_and_its_database(built, compose: Compose, tmp_path: Path) -> None:
    store = ReleaseRegistry(tmp_path / "releases")
    first, second = (stored(release, store.root) for release in (built.first, built.second))
    store.promote(first, author="test", message="first")
    key, _ = compose(
        "run", "--rm", "--no-deps", "service", "python", "-m", "tunectl", "serve", "keys", "add", "me"
    ).split("\n")
    compose("up", "--detach", "--wait", "service")
    address = compose.address
    client = openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, timeout=60)
    ask = lambda: client.chat.completions.create(
        model="shop", messages=[{"role": "user", "content": "Grüß Gott 🧀"}], max_tokens=4
    )
    answers = [ask()]
    assert champion(address) == first

    store.promote(second, author="test", message="better")
    until = time.monotonic() + 120
    while champion(address) != second:
        assert time.monotonic() < until, "the promotion did not reach the running service"
        time.sleep(0.2)
    answers.append(ask())
    psql = ("exec", "--no-TTY", "postgres", "psql", "--username", "tunectl", "--no-align", "--tuples-only", "--command")
    rows = compose(*psql, "SELECT id, release FROM inferences ORDER BY accepted_at").splitlines()
    assert rows == [f"{answer.id}|{name}" for answer, name in zip(answers, (first, second), strict=True)]

    service = compose("ps", "--quiet", "service")
    compose("stop")
    assert json.loads(docker("inspect", service))[0]["State"]["ExitCode"] == 0
