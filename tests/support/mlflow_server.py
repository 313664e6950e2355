"""A real MLflow server on SQLite, in an environment of its own: MLflow pins what tunectl has newer.

The environment is made once (some minutes, 0.7 GB) below ``TUNECTL_TEST_ENVS``, or the user's cache folder. It also holds what
``tunectl track sync`` imports, so the sync runs there with MLflow's client beside the server, and W&B offline.
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
from pathlib import Path

PACKAGES = (
    "mlflow==3.17.2",
    "wandb==0.30.0",
    "hydra-core>=1.3.2,<1.4",
    "msgspec>=0.19",
    "pydantic>=2.10,<3",
    "pyyaml>=6",
    "rich>=13",
)
VARIABLE = "TUNECTL_TEST_ENVS"
ROOT = Path(__file__).parents[2]


def ensure_environment() -> Path:
    """The Python of the environment; made where it is absent, whole or not at all."""
    home = Path(
        os.environ.get(VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tunectl-tests"
    )
    key = hashlib.sha256(f"{PACKAGES}{sys.version}".encode()).hexdigest()[:12]
    place = home / f"mlflow-{key}"
    if not (place / ".ready").is_file():
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        subprocess.run([str(place / "bin" / "pip"), "install", "--quiet", *PACKAGES], check=True)
        (place / ".ready").write_text("")
    return place / "bin" / "python"


class MlflowServer:
    """The server on a port of loopback; ``uri`` is its address."""

    def __init__(self, python: Path, folder: Path) -> None:
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
