"""A real MLflow server on SQLite, and the client that users have, each in an environment of its own.

MLflow pins what tunectl has newer; the extra ``mlflow`` therefore installs ``mlflow-skinny``. So the client's environment has that
alone, and what ``tunectl track sync`` imports, in the versions of the locks. W&B is in it, too, and runs offline. Both environments
are made once (some minutes, 0.8 GB) below ``TUNECTL_TEST_ENVS``, or the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path

SERVER = ("mlflow==3.17.2",)
CLIENT = ("mlflow-skinny", "wandb", "hydra-core", "msgspec", "pydantic", "pyyaml", "rich")
LOCKS = ("run.txt", "mlflow.txt", "wandb.txt")
"""Locks of tunectl with the extras ``mlflow`` and ``wandb``, in ``requirements/``."""
VARIABLE = "TUNECTL_TEST_ENVS"
ROOT = Path(__file__).parents[2]


def ensure_server() -> Path:
    """The Python of the server's environment; made where it is absent."""
    return _ensure_environment("mlflow", SERVER)


def ensure_client() -> Path:
    """The Python of the client's environment; made where it is absent."""
    lines = [line for lock in LOCKS for line in (ROOT / "requirements" / lock).read_text().splitlines()]
    pins = sorted({line.split()[0] for line in lines if "==" in line})
    return _ensure_environment("mlflow-client", CLIENT, pins)


def _ensure_environment(name: str, packages: Sequence[str], constraints: Sequence[str] = ()) -> Path:
    """Make the environment where it is absent, whole or not at all; returns its Python."""
    home = Path(
        os.environ.get(VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tunectl-tests"
    )
    key = hashlib.sha256(f"{packages}{constraints}{sys.version}".encode()).hexdigest()[:12]
    place = home / f"{name}-{key}"
    if not (place / ".ready").is_file():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        (place / "constraints.txt").write_text("\n".join(constraints))
        words = ["install", "--quiet", "--constraint", str(place / "constraints.txt"), *packages]
        subprocess.run([str(place / "bin" / "pip"), *words], check=True)
        (place / ".ready").write_text("")
    return place / "bin" / "python"


class MlflowServer:
    """The server on a port of loopback; ``uri`` is its address, ``python`` that of its environment."""

    def __init__(self, python: Path, folder: Path) -> None:
        self.python = python
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        self.log = folder / "server.log"
        words = ["-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        words += [
            "--backend-store-uri",
            f"sqlite:///{folder}/mlflow.sqlite",
            "--artifacts-destination",
            str(folder / "files"),
        ]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [str(python), *words],
                cwd=folder,
                env=environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        end = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                assert self.process.poll() is None, self.log.read_text()
                assert time.monotonic() < end, self.log.read_text()
                time.sleep(0.5)

    def stop(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
