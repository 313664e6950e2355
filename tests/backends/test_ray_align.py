"""Learning from rewards on the workers of Ray Train: a worker that dies costs time, and not a byte."""

import functools

import pytest
import ray_ranks
import tiny_policies
from ray_ranks import launch, open_cluster
from tiny_fits import digest

from tunectl.backends.launchers.ray_launcher import RayLauncher

torch = pytest.importorskip("torch")


@pytest.fixture
def cluster():
    with open_cluster():
        yield


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_policy_learns_on_workers_and_a_killed_one_changes_no_byte(cluster, tiny_model, tmp_path):
    start = tiny_policies.build_policy(tiny_model, tmp_path)
    reward = tiny_policies.build_reward(start, tmp_path / "rewards")
    chosen = tiny_policies.plan(rewards=[*tiny_policies.TERMS, tiny_policies.MODEL], prompts_per_step=3)
    plain, killed = (tiny_policies.policy_job(start, tmp_path / name, chosen, reward) for name in ("plain", "killed"))
    first = RayLauncher(launch()).run(plain)
    function = functools.partial(ray_ranks.run_killed, marker=str(tmp_path / "killed once"))
    second = RayLauncher(launch(), function=function).run(killed)
    assert (first.ranks, second.restarts, first.result.steps) == (2, 1, 8)
    assert digest(plain.out) == digest(killed.out)
    assert first.result.validation == second.result.validation
    assert [point.completions_crc32 for point in first.result.history] == [
        point.completions_crc32 for point in second.result.history
    ]
