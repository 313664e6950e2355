"""Which ports a Ray cluster opens that a training starts on this machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import ray_ranks
from listening_sockets import ListenWatch, find_open_addresses


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_cluster_that_is_started_here_opens_one_port_to_others(tiny_model, tmp_path):
    """torch's TCPStore of the first rank: Ray Train lets nobody choose another store. It unpickles nothing."""
    pytest.importorskip("ray")
    words = (
        "import sys; from pathlib import Path; import ray_ranks, tiny_fits\n"
        "from tunectl.backends.launchers.ray_launcher import RayLauncher\n"
        "RayLauncher(ray_ranks.launch()).run(tiny_fits.sft_job(Path(sys.argv[1]), Path(sys.argv[2])))\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_"))}
    paths = os.pathsep.join([str(Path(ray_ranks.__file__).parent), environment.get("PYTHONPATH", "")])
    with ListenWatch(tmp_path) as watch:
        subprocess.run(
            [sys.executable, "-c", words, str(tiny_model), str(tmp_path)],
            env={**environment, "PYTHONPATH": paths},
            check=True,
            timeout=500,
        )
    found = find_open_addresses(watch)
    assert {address for *_, address in found} == {"::"}
    # Ray renames a process while it runs a call, so a worker is known by its id.
    workers = {pid for pid, words in watch.seen if "TrainWorker" in words}
    assert {pid for pid, *_ in found} <= workers, found
    for name in ("gcs_server", "raylet", "TrainWorker"):
        assert any(addresses for (_, words), addresses in watch.seen.items() if name in words), name
