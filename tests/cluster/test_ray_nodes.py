"""A fit on a Ray cluster of three nodes, one of which goes away without a word: it ends on what is left."""

import threading
import time

import pytest
from tiny_fits import assert_equal_fits, fit_here, sft_job

from tunectl.backends.launchers.ray_launcher import RayLauncher, prepare_environment, start_control
from tunectl.config.schema.launch import RayLaunch


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_node_goes_away(tiny_model, tmp_path):
    ray = pytest.importorskip("ray")
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    job = sft_job(tiny_model, tmp_path / "fit")
    settings = RayLaunch(
        method="ray",
        address="auto",
        num_workers=(1, 2),
        max_failures=3,
        storage_path=str(tmp_path / "storage"),
        shard="none",
        collective_timeout_seconds=60,
    )
    launcher = RayLauncher(settings)
    prepare_environment()
    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80_000_000}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80_000_000) for _ in range(2)]
    cluster.wait_for_nodes(timeout=120)
    ray.init(address=cluster.address, logging_level="ERROR")
    try:
        controls = [start_control(ray) for _ in range(4)]
        places = ray.get(
            [actor.__ray_call__.remote(lambda _: ray.get_runtime_context().get_node_id()) for actor in controls]
        )
        assert set(places) == {ray.get_runtime_context().get_node_id()}
        remover = threading.Thread(target=_remove_at_a_checkpoint, args=(cluster, nodes[1], tmp_path / "storage"))
        remover.start()
        end = launcher.run(job)
        remover.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert end.restarts >= 1
    assert end.ranks == 1
    alone = sft_job(tiny_model, tmp_path / "alone")
    assert_equal_fits(end.result, job.out, fit_here(alone), alone.out)


def _remove_at_a_checkpoint(cluster, node, storage):
    until = time.monotonic() + 300
    while not list(storage.glob("**/complete.json")) and time.monotonic() < until:
        time.sleep(0.1)
    cluster.remove_node(node, allow_graceful=False)
