"""``tunectl federate server`` and ``client`` as commands: two projects, as on two machines, over TLS on loopback."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import federate_project
import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.export import exporter_env
from tunectl.federated import exchange

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def projects(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The server's, and those of two clients; each client's has the rows of that client alone."""
    flower = exporter_env.ensure_interpreter(ROOT / ".tunectl" / "exporters", exporter_env.FLOWER)
    monkeypatch.setenv(exporter_env.FLOWER.variable, str(flower))
    monkeypatch.setenv("TUNECTL_FEDERATE_TOKEN", "0123456789abcdef")
    found = [tmp_path / name for name in ("server", "berlin", "oslo")]
    found[0].mkdir()
    monkeypatch.chdir(found[0])
    federate_project.build(found[0], tiny_model)
    for folder in found[1:]:
        shutil.copytree(found[0], folder)
    shutil.rmtree(ProjectPaths(found[0]).artifact("split"))  # a server has no rows
    return found


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts ``tunectl federate`` with some words in a folder; what still runs at the end of the test is killed."""
    processes = []

    def run(folder: Path, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tunectl", "federate", *words]
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        processes.append(
            subprocess.Popen(
                command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
            )
        )
        return processes[-1]

    yield run
    for process in processes:
        with process:
            process.kill()


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 600.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def is_listening(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_two_machines_over_tls_of_which_one_is_killed(
    projects: list[Path], tmp_path: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    server_folder, berlin_folder, oslo_folder = projects
    for folder in (tmp_path / "right", tmp_path / "wrong"):
        folder.mkdir()
        federate_project.make_certificates(folder)
    right, wrong = (tmp_path / name / "ca.pem" for name in ("right", "wrong"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tls = f"{{ca_file: {right}, certificate_file: {right.parent}/server.pem, key_file: {right.parent}/server.key}}"
    server = start(
        server_folder,
        "server",
        "--json",
        "federate.rounds=4",
        "federate.min_clients=1",
        f"federate.port={port}",
        f"federate.tls={tls}",
    )
    wait_for(lambda: is_listening(port), server)
    address = f"federate.server_address=127.0.0.1:{port}"
    stranger = start(
        berlin_folder, "client", "stranger", address, f"federate.ca_file={wrong}", "federate.wait_timeout_seconds=5"
    )
    printed, errors = stranger.communicate(timeout=300)
    assert stranger.returncode == 5, (printed, errors)
    assert f"no server at 127.0.0.1:{port} for " in errors
    assert "certificate" in errors.lower()

    berlin = start(berlin_folder, "client", "berlin", address, f"federate.ca_file={right}")
    oslo = start(oslo_folder, "client", "oslo", address, f"federate.ca_file={right}")
    rounds_folder = server_folder / ".tunectl" / "federate" / "default"
    wait_for(lambda: "oslo" in {name for names in list_clients(rounds_folder) for name in names}, server)
    oslo.send_signal(signal.SIGKILL)
    oslo.wait()
    printed, errors = server.communicate(timeout=900)
    assert server.returncode == 0, errors
    _, errors = berlin.communicate(timeout=60)
    assert berlin.returncode == 0, errors
    rounds = json.loads(printed)["rounds"]
    assert [item["number"] for item in rounds] == [1, 2, 3, 4]
    assert all(item["averaged"] for item in rounds)
    clients = list_clients(rounds_folder)
    assert all("berlin" in names for names in clients[1:])
    assert clients[-1] == {"berlin"}
    assert not any("stranger" in names for names in clients)
    assert (rounds_folder / "result" / "federated.json").is_file()
    assert "Say" not in "".join(path.read_text() for path in rounds_folder.glob("*.json*"))  # no row left a client


def list_clients(folder: Path) -> list[set[str]]:
    """Names of the clients that each round took."""
    return [{client.name for client in item.contributions} for item in exchange.read_rounds(folder)]
