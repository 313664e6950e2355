"""Curation on a Ray cluster that is started here: the bytes of the local way, also when a process is killed in any step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import curation_corpus
import pytest
from curation_corpus import curate_into, make_corpus, make_giant_bucket
from listening_sockets import ListenWatch, find_open_addresses

from tunectl.backends.launchers import ray_tables
from tunectl.backends.launchers.ray_launcher import prepare_environment
from tunectl.core.errors import DataError, InfrastructureError, MissingExtraError
from tunectl.data.partitioned.curation import PartitionedCuration

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def cluster() -> Any:
    """One cluster for all tests of this file: its start takes longer than they do."""
    prepare_environment(local=True)
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    ray.cloudpickle.register_pickle_by_value(curation_corpus)  # workers do not have the folder of the tests
    yield ray
    ray.shutdown()


class KillOnce:
    """Kills its process before the work of a step, the first time in a run."""

    def __init__(self, work: Any, marker: Path) -> None:
        self.work, self.marker = work, marker

    def __call__(self, batch: Any) -> Any:
        if not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.work(batch)


def engine(partitions: int, kills: Path | None = None) -> Any:
    """With ``kills`` one process is killed in each step."""

    def run(filters: Any, blocks: Any, build: Any, files: Any, total: Any, after: Any) -> Any:
        with ray_tables.open_tables(partitions) as tables:
            if kills is not None:
                kills.mkdir()
                for name in ("map", "group"):
                    setattr(tables, name, kill_in_each(getattr(tables, name), kills))
            how = PartitionedCuration(
                tables, filters, blocks, build, uuid.uuid4().hex, range_bytes=5000, pairs_a_part=40
            )
            return how.run(files, total, after)

    return run


def kill_in_each(step: Any, kills: Path) -> Any:
    def run(table: Any, work: Any, columns: Any) -> Any:
        name = type(work).__name__ if not hasattr(work, "__name__") else work.__name__
        return step(table, work if name == "SelectRecords" else KillOnce(work, kills / name), columns)

    return run


@pytest.mark.parametrize(("partitions", "seed", "near"), [(1, 1, {}), (3, 2, {"action": "cluster"}), (17, 3, {})])
def test_random_corpora(cluster: Any, tmp_path: Path, partitions: int, seed: int, near: dict[str, Any]) -> None:
    records = make_corpus(seed)
    local = curate_into(tmp_path / "local", records, near)
    assert curate_into(tmp_path / "ray", records, near, engine(partitions)) == local


def test_a_process_is_killed_in_each_step(cluster: Any, tmp_path: Path) -> None:
    cluster.cloudpickle.register_pickle_by_value(__import__(__name__))
    records = [*make_corpus(4), *make_giant_bucket(60)]
    local = curate_into(tmp_path / "local", records, {})
    assert curate_into(tmp_path / "ray", records, {}, engine(3, tmp_path / "kills")) == local
    steps = {
        "JudgeRecords",
        "DropDuplicates",
        "SignRecords",
        "list_pairs",
        "PickTexts",
        "ComparePairs",
        "DescribeClusters",
    }
    assert {path.name for path in (tmp_path / "kills").iterdir()} == steps


def test_a_line_that_is_no_record_is_named(cluster: Any, tmp_path: Path) -> None:
    def spoil(filters: Any, blocks: Any, build: Any, files: Any, total: Any, after: Any) -> Any:
        files[0].write_bytes(files[0].read_bytes() + b'{"id": 1}\n')
        return engine(3)(filters, blocks, build, files, total, after)

    with pytest.raises(DataError, match=r"ingest/documents.jsonl:6 is malformed: "):
        curate_into(tmp_path, make_giant_bucket(5), None, spoil)


def die(batch: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def miss_a_package(batch: Any) -> Any:
    raise MissingExtraError("no package ftfy on this node", hint="install it")


def fill_a_disk(batch: Any) -> Any:
    raise OSError(28, "No space left on device")


def run_step(work: Any) -> None:
    with ray_tables.open_tables(2) as tables:
        rows = tables.start([{"part": 1}], {"part": "int64"})
        tables.map(tables.group(rows, lambda batch: batch, {"part": "int64"}), work, {"part": "int64"})


def lose_an_actor(ray: Any) -> None:
    with ray_tables.open_tables(2):
        actor = ray.remote(KillOnce).remote(None, Path())
        ray.kill(actor)
        ray.get(actor.__ray_ready__.remote())


def test_what_is_lost_on_the_cluster_ends_with_one_error_and_no_traceback(
    cluster: Any, capfd: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_tables, "MAX_RETRIES", 1)  # each takes seconds, since a new process is started
    cluster.cloudpickle.register_pickle_by_value(__import__(__name__))
    begins = "^curate.engine = ray: a step failed on the cluster: "
    with pytest.raises(InfrastructureError, match=begins + "a process was killed several times"):
        run_step(die)
    with pytest.raises(InfrastructureError, match=begins + r"OSError: \[Errno 28\] No space left on device"):
        run_step(fill_a_disk)
    with pytest.raises(MissingExtraError, match="no package ftfy on this node"):
        run_step(miss_a_package)
    with pytest.raises(InfrastructureError, match=begins + r"a process of the cluster was killed \(ActorDiedError: "):
        lose_an_actor(cluster)
    assert "Traceback" not in "".join(capfd.readouterr())


def test_a_cluster_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray")
    if ray.is_initialized():
        ray.shutdown()
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    with (
        pytest.raises(InfrastructureError, match=r"RAY_ADDRESS = 127\.0\.0\.1:1: nothing listens there"),
        ray_tables.open_tables(),
    ):
        pass


def test_a_cluster_that_is_started_here_opens_no_port_to_others(tmp_path):
    pytest.importorskip("ray")
    words = (
        "import time; from tunectl.backends.launchers import ray_tables\n"
        "with ray_tables.open_tables(2): time.sleep(5)\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "GLOO_"))}
    with ListenWatch(tmp_path) as watch:
        subprocess.run([sys.executable, "-c", words, str(tmp_path)], env=environment, check=True, timeout=300)
    assert find_open_addresses(watch) == set()
    for name in ("gcs_server", "raylet"):
        assert any(addresses for (_, words), addresses in watch.seen.items() if name in words), name
