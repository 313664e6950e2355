"""Fits on several ranks that cannot end well: one clear error, by torchrun and by Ray."""

import pytest
import ray_ranks
from launched_fits import scripted, two_machines
from tiny_fits import sft_job

from tunectl.backends.launchers.ray_launcher import RayLauncher
from tunectl.core.errors import InfrastructureError, UsageError

pytest.importorskip("torch")


@pytest.mark.slow
def test_a_rank_that_always_fails_is_named_once(tiny_model, tmp_path):
    launcher = scripted(tmp_path, {"rank": 1, "error": "crash"}, max_restarts=1)
    with pytest.raises(InfrastructureError) as error:
        launcher.run(sft_job(tiny_model, tmp_path))
    first, *tail = error.value.message.splitlines()
    assert first == "sft: rank 1 ended with exit code 1, and launch.max_restarts is 1"
    assert tail[-1].strip() == "ZeroDivisionError: a bug of this rank"
    assert str(tmp_path / "work" / "launch" / "logs") in error.value.hint


@pytest.mark.slow
def test_a_folder_that_the_other_machine_does_not_see_is_refused(tiny_model, tmp_path):
    launcher, second = two_machines(tmp_path, [], storage_path=str(tmp_path / "a disk of its own"))
    with pytest.raises(UsageError) as error:
        launcher.run(sft_job(tiny_model, tmp_path))
    launcher.close("sft")
    assert "on another machine, does not see the request in " in error.value.message
    assert error.value.message.startswith("launch.storage_path: rank ")
    assert "UsageError" in second.communicate(timeout=60)[1]
    assert second.returncode


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_loss_that_is_no_number_on_ray_stops_all_with_one_message(tiny_model, tmp_path):
    with ray_ranks.open_cluster(), pytest.raises(UsageError) as error:
        RayLauncher(ray_ranks.launch(), function=ray_ranks.run_spoiled).run(sft_job(tiny_model, tmp_path))
    assert error.value.message.startswith("sft: the loss is nan at step ")
