"""Several fits on two ranks in one pair of processes, because starting torch takes longer than the fits."""

import json
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import torchrun_agent
from tunectl.backends.launchers.torchrun_agent import AgentSettings
from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher
from tunectl.config.schema.launch import TorchrunLaunch
from tunectl.training.fit_request import FitJob

WORKER = Path(__file__).with_name("rank_worker.py")


def build_launch(**changes: Any) -> TorchrunLaunch:
    values = {"nproc_per_node": 2, "max_restarts": 0, "shard": "none", "collective_timeout_seconds": 60}
    values |= {"nnodes": 1, "rdzv_endpoint": None, "storage_path": None}
    return TorchrunLaunch(method="torchrun", **{**values, **changes})


def write_requests(root: Path, jobs: Mapping[str, tuple[FitJob, str]]) -> None:
    """``jobs`` are name to job and ``launch.shard``; the request of each goes to ``root / name / "launch"``."""
    for name, (job, shard) in jobs.items():
        TorchrunLauncher(build_launch(shard=shard)).write_request(job, root / name / "launch")


def fit_all(root: Path, jobs: Mapping[str, tuple[FitJob, str]], result: type[Any]) -> tuple[dict[str, Any], str]:
    """Name to job, result and folder of the adapter; and what was logged."""
    script = root / "script.json"
    script.write_text(json.dumps({"fits": [str(root / name / "launch") for name in jobs]}))
    agent = AgentSettings(
        nproc_per_node=2,
        nnodes=1,
        max_restarts=0,
        rdzv_endpoint="127.0.0.1:0",
        is_host=True,
        join_timeout_seconds=60,
        run_id="many",
        local_addr="127.0.0.1",
        worker=[str(WORKER), str(script)],
        fit=str(root),
    )
    atomic_io.write_json(root / torchrun_agent.AGENT, agent)
    words = [sys.executable, "-m", torchrun_agent.__name__, str(root)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-4000:]
    found = {}
    for name, (job, _) in jobs.items():
        folder = root / name / "launch"
        found[name] = (job, atomic_io.read_json(folder / "single_result.json", result), folder / "adapter")
    return found, done.stderr


def scripted(folder: Path, script: dict, **changes) -> TorchrunLauncher:
    """A launcher whose ranks follow ``script``."""
    path = folder / "script.json"
    path.write_text(json.dumps(script))
    return TorchrunLauncher(build_launch(**changes), worker=(str(WORKER), str(path)))


JOIN = """
import json, sys
from pathlib import Path
from tunectl.backends.launchers import torchrun_join
from tunectl.config.schema.launch import LaunchConfig
config = LaunchConfig.model_validate(json.loads(sys.argv[1]))
print("fits", torchrun_join.join_stage("sft", config, Path(sys.argv[2]), worker=sys.argv[3:]))
"""


def two_machines(folder: Path, kills: list, **other) -> tuple[TorchrunLauncher, subprocess.Popen]:
    """A launcher for two machines, and the second one as a process; ``other`` are settings that the second has otherwise."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{probe.getsockname()[1]}"
    common = {"nproc_per_node": 1, "nnodes": 2, "rdzv_endpoint": endpoint, "max_restarts": 2}
    launcher = scripted(folder, {"kills": kills}, storage_path=str(folder / "storage"), **common)
    settings = launcher.settings.model_copy(update=other).model_dump(mode="json")
    words = [json.dumps(settings), str(folder / "other"), *launcher.worker]
    second = subprocess.Popen(
        [sys.executable, "-c", JOIN, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return launcher, second
