"""A fit on a Ray cluster of several nodes: one goes away without a word, or comes later."""

import functools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import ray_ranks
from tiny_fits import assert_equal_fits, fit_here, sft_job

from tunectl.backends.launchers.ray_launcher import RayLauncher, prepare_environment, start_control
from tunectl.config.schema.launch import RayLaunch

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NODE = {"num_cpus": 1, "object_store_memory": 80_000_000}


@contextmanager
def open_nodes(count: int) -> Iterator[tuple[Any, Any, list[Any]]]:
    """Ray, and a cluster of a head without room for workers and ``count`` nodes with room for one."""
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    prepare_environment()
    head = {**NODE, "num_cpus": 0, "include_dashboard": False}
    # A node with a hook for the end of this process can be added by the main thread alone
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head, shutdown_at_exit=False)
    nodes = [cluster.add_node(**NODE) for _ in range(count)]
    cluster.wait_for_nodes(timeout=120)
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        yield ray, cluster, nodes
    finally:
        ray.shutdown()
        cluster.shutdown()


def build_launch(storage: Path, max_failures: int) -> RayLaunch:
    return RayLaunch(
        method="ray",
        address="auto",
        num_workers=(1, 2),
        max_failures=max_failures,
        storage_path=str(storage),
        shard="none",
        collective_timeout_seconds=60,
    )


def act_once(condition: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Start a thread that waits for ``condition``, and then calls ``act``."""

    def run() -> None:
        until = time.monotonic() + 300
        while not condition() and time.monotonic() < until:
            time.sleep(0.1)
        act()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_node_goes_away(tiny_model, tmp_path):
    job, storage = sft_job(tiny_model, tmp_path / "fit"), tmp_path / "storage"
    launcher = RayLauncher(build_launch(storage, 3))
    with open_nodes(2) as (ray, cluster, nodes):
        controls = [start_control(ray) for _ in range(4)]
        places = ray.get(
            [actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for actor in controls]
        )
        assert set(places) == {ray.get_runtime_context().get_node_id()}
        remover = act_once(
            lambda: bool(list(storage.glob("**/complete.json"))),
            lambda: cluster.remove_node(nodes[1], allow_graceful=False),
        )
        end = launcher.run(job)
        remover.join()
    assert end.restarts >= 1
    assert end.ranks == 1
    alone = sft_job(tiny_model, tmp_path / "alone")
    assert_equal_fits(end.result, job.out, fit_here(alone), alone.out)


def test_a_node_comes_later_and_the_fit_grows(tiny_model, tmp_path, monkeypatch):
    """Ray looks for more room each minute, here each five seconds; it starts all ranks again from the last checkpoint."""
    job, marker = sft_job(tiny_model, tmp_path / "fit"), tmp_path / "alone at step 5"
    with open_nodes(1) as (ray, cluster, _):
        ray.cloudpickle.register_pickle_by_value(ray_ranks)
        train = pytest.importorskip("ray.train")
        own = train.ScalingConfig
        monkeypatch.setattr(train, "ScalingConfig", functools.partial(own, elastic_resize_monitor_interval_s=5.0))
        adder = act_once(marker.exists, lambda: cluster.add_node(**NODE))
        function = functools.partial(ray_ranks.run_waiting, marker=str(marker))
        end = RayLauncher(build_launch(tmp_path / "storage", 0), function=function).run(job)
        adder.join()
    assert marker.exists()
    assert (end.ranks, end.restarts) == (2, 1), "growing is no failure: none was allowed"
    alone = sft_job(tiny_model, tmp_path / "alone")
    assert_equal_fits(end.result, job.out, fit_here(alone), alone.out)
