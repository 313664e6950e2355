"""Fits on several processes by torchrun: the same numbers, the same bytes after kills, and one clear error."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import tiny_fits
from launched_fits import WORKER, build_launch, fit_all, scripted, two_machines, write_requests
from listening_sockets import ListenWatch, find_open_addresses
from pydantic import ValidationError
from tiny_fits import cpt_job, digest, fit_here, plan, reward_job, rows, sft_job

from tunectl.backends.launchers import torchrun_join, torchrun_launcher
from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.trainers.sft_trainer import SftTrainer
from tunectl.config.schema.launch import LaunchConfig
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.training import fit_request
from tunectl.training.protocols import TrainResult

torch = pytest.importorskip("torch")
ODD = {"train": [*rows(8), *rows(1, answers=6, start=8)], "validation": rows(1, start=30)}
"""The row with six answers is a step alone, and validation has one row: the second rank has nothing to read."""


@pytest.fixture(scope="module")
def sft(tiny_model, tmp_path_factory):
    """An adapter below the reward models, fitted here."""
    job = sft_job(tiny_model, tmp_path_factory.mktemp("sft"))
    return job, fit_here(job)


def plan_dropout():
    """A plan whose bytes depend on what each rank draws in each step."""
    return plan(dropout=0.2, neftune_noise_alpha=1.0)


@pytest.fixture(scope="module")
def undisturbed(tiny_model, tmp_path_factory):
    """One fit on two ranks that nothing disturbs: its job, result, and folder of the adapter."""
    root = tmp_path_factory.mktemp("undisturbed")
    jobs = {"dropout": (sft_job(tiny_model, root / "dropout", plan_dropout()), "none")}
    write_requests(root, jobs)
    return fit_all(root, jobs, TrainResult)[0]["dropout"]


@pytest.fixture(scope="module")
def both(tiny_model, sft, tmp_path_factory):
    """Several fits on two ranks, in one pair of processes: name to job, result, and folder of the adapter."""
    root = tmp_path_factory.mktemp("both")
    dropout = plan_dropout()
    jobs = {
        "plain": (sft_job(tiny_model, root / "plain"), "none"),
        "cpt": (cpt_job(tiny_model, root / "cpt"), "none"),
        "cpt_sharded": (cpt_job(tiny_model, root / "cpt_sharded"), "layers"),
        "odd": (sft_job(tiny_model, root / "odd", **ODD), "none"),
        "odd_sharded": (sft_job(tiny_model, root / "odd_sharded", **ODD), "layers"),
        "reward": (reward_job(tiny_model, sft[0].out, root / "reward"), "none"),
        "reward_sharded": (reward_job(tiny_model, sft[0].out, root / "reward_sharded"), "layers"),
        "dropout": (sft_job(tiny_model, root / "dropout", dropout), "none"),
        "dropout_sharded": (sft_job(tiny_model, root / "dropout_sharded", dropout), "layers"),
    }
    write_requests(root, jobs)
    return fit_all(root, jobs, TrainResult)


@pytest.mark.parametrize("name", ["plain", "cpt", "odd", "reward"])
def test_two_ranks_learn_what_one_learns(both, sft, tiny_model, tmp_path, name):
    _, result, adapter = both[0][name]
    alone = sft_job(tiny_model, tmp_path, **(ODD if name == "odd" else {}))
    if name == "reward":
        alone = reward_job(tiny_model, sft[0].out, tmp_path)
    elif name == "cpt":
        alone = cpt_job(tiny_model, tmp_path)
    expected = fit_here(alone)
    tiny_fits.assert_equal_fits(result, adapter, expected, alone.out)


@pytest.mark.parametrize("name", ["cpt", "odd", "reward", "dropout"])
def test_sharded_layers_give_the_same_bytes(both, name):
    whole, sharded = both[0][name], both[0][f"{name}_sharded"]
    assert digest(whole[2]) == digest(sharded[2])
    assert (whole[1].first_loss, whole[1].best_loss) == (sharded[1].first_loss, sharded[1].best_loss)
    assert "each rank holds 21696 of 30976 weights" in both[1]


def test_a_run_says_what_it_is_on(both):
    lines = both[1].splitlines()
    assert "sft: 2 ranks on cpu, about 12 tokens a step each" in lines
    assert "sft: 2 ranks on cpu, frozen layers sharded, about 12 tokens a step each" in lines
    assert sum(line.startswith("reward: 2 ranks on cpu") for line in lines) == 2  # the other rank is silent


def test_dropout_differs_by_rank_and_step():
    drawn = set()
    for rank in range(2):
        for step in range(2):
            ProcessGroup(rank, 2).seed_step(5, step)
            drawn.add(float(torch.rand(1)))
    assert len(drawn) == 4
    state = torch.random.get_rng_state()
    ProcessGroup().seed_step(5, 1)
    assert torch.equal(state, torch.random.get_rng_state())


def test_more_ranks_than_rows_are_refused(tiny_model, tmp_path):
    job = sft_job(tiny_model, tmp_path, plan(batch_size=3))
    with pytest.raises(UsageError) as error:
        SftTrainer(ProcessGroup(1, 2)).fit(
            job.plan, model=tiny_model, train=job.train, validation=job.validation, out=job.out, work=job.work
        )
    assert error.value.message == (
        "sft: launch starts 2 ranks, but a typical step has 1 row: some ranks would have nothing to do"
    )
    assert error.value.hint == ("start at most 1: launch.nproc_per_node=1, or raise sft.batch_size (now 3 answers)")


def test_auto_counts_cards_and_a_cpu_has_none(tiny_model, tmp_path):
    with pytest.raises(UsageError) as error:
        TorchrunLauncher(build_launch(nproc_per_node="auto")).run(sft_job(tiny_model, tmp_path))
    assert error.value.message == "launch.nproc_per_node = auto counts GPUs, and hardware.device is cpu"
    job = sft_job(tiny_model, tmp_path, plan(profile=tiny_fits.PROFILE.model_copy(update={"device": "cuda"})))
    with pytest.raises(InfrastructureError) as error:
        TorchrunLauncher(build_launch()).run(job)
    assert error.value.message == f"launch.nproc_per_node = 2, and torch sees {torch.cuda.device_count()} GPUs"


@pytest.mark.slow
def test_one_machine_opens_no_port_to_others(tiny_model, tmp_path, monkeypatch):
    """Before and after a restart; whoever reaches the rendezvous of torchrun runs code, because its state is a pickle."""
    others = [name for _, name in socket.if_nameindex() if not name.startswith("lo")]
    up = [name for name in others if Path(f"/sys/class/net/{name}/operstate").read_text() == "up\n"]
    for variable in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME") if up else ():
        monkeypatch.setenv(variable, up[0])  # as where the machine's name resolves to its address
    launcher = scripted(tmp_path, {"kills": [[0, 1, "after_backward"]]}, max_restarts=1)
    with ListenWatch(tmp_path) as watch:
        assert launcher.run(sft_job(tiny_model, tmp_path)).restarts == 1
    assert find_open_addresses(watch) == set()
    ranks = [addresses for (_, words), addresses in watch.seen.items() if str(WORKER) in words]
    assert len(ranks) == 4  # two attempts of two
    assert all(ranks)  # gloo's own


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_loss_that_is_no_number_on_one_rank_stops_all_with_one_message(tiny_model, tmp_path, rank):
    launcher = scripted(tmp_path, {"rank": rank, "error": "nan"}, max_restarts=3)
    with pytest.raises(UsageError) as error:
        launcher.run(sft_job(tiny_model, tmp_path))
    assert error.value.message.startswith("sft: the loss is nan at step 3; the last good loss was 7.")
    assert error.value.message.endswith("at step 2")
    assert error.value.hint.startswith("lower sft.learning_rate (now 0.01)")


def test_the_crash_of_an_earlier_attempt_is_not_told(tmp_path):
    """In the last attempt torchrun ended rank 0 before it could write: its record is older than that of rank 1."""
    for rank, attempt in ((1, 0), (0, 0), (1, 1)):
        fit_request.record_crash(tmp_path, f"attempt {attempt}", rank, attempt)
    crash = fit_request.first_crash(tmp_path)
    assert crash is not None
    assert (crash.rank, crash.traceback) == (1, "attempt 1")


@pytest.mark.slow
def test_each_rank_is_killed_at_each_point(undisturbed, tiny_model, tmp_path):
    """Same bytes as without a kill, and the record tells of the restarts."""
    points = ("before_forward", "after_backward", "in_save", "after_save")
    kills = [[2 * place + rank, rank, point] for place, point in enumerate(points) for rank in (0, 1)]
    job = sft_job(tiny_model, tmp_path, undisturbed[0].plan)
    end = scripted(tmp_path, {"kills": kills}, max_restarts=len(kills)).run(job)
    assert digest(job.out) == digest(undisturbed[2])
    assert (end.ranks, end.nodes, end.device, end.restarts) == (2, 1, "cpu", len(kills))
    assert end.result.best_loss == undisturbed[1].best_loss
    assert not (job.work / "launch").exists()


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_rank_that_dies_when_all_have_finished_costs_nothing(undisturbed, tiny_model, tmp_path, restarts):
    """As gloo does now and then, when the rank at the other end of a connection is gone."""
    job = sft_job(tiny_model, tmp_path, undisturbed[0].plan)
    end = scripted(tmp_path, {"kills": [[0, 1, "at_exit"]]}, max_restarts=restarts).run(job)
    assert end.restarts == 0
    assert digest(job.out) == digest(undisturbed[2])


@pytest.mark.slow
def test_ctrl_c_finishes_the_step_and_the_next_run_goes_on(undisturbed, tiny_model, tmp_path):
    job, launcher = sft_job(tiny_model, tmp_path, undisturbed[0].plan), TorchrunLauncher(build_launch())
    stop = threading.Thread(target=_press_ctrl_c_at_a_checkpoint, args=(job.work,))
    stop.start()
    with pytest.raises(InfrastructureError) as error:
        launcher.run(job)
    stop.join()
    assert error.value.message.startswith("sft: stopped at step ") or " stopped at step " in error.value.message
    assert error.value.message.endswith("of 24; its state is kept")
    launcher.run(job)
    assert digest(job.out) == digest(undisturbed[2])


def _press_ctrl_c_at_a_checkpoint(work: Path) -> None:
    until = time.monotonic() + 120
    while not list(work.glob("checkpoint-*/complete.json")) and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_ranks_end_with_the_driver_even_by_kill_9(tiny_model, tmp_path):
    words = (
        "import sys; from pathlib import Path; import tiny_fits as t\n"
        "from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher\n"
        "from tunectl.config.schema.launch import LaunchConfig, TorchrunLaunch\n"
        "settings = TorchrunLaunch(method='torchrun', nproc_per_node=2, max_restarts=3, shard='none', "
        "collective_timeout_seconds=60, nnodes=1, rdzv_endpoint=None, storage_path=None)\n"
        "TorchrunLauncher(settings).run(t.sft_job(Path(sys.argv[1]), Path(sys.argv[2]), t.plan(epochs=900)))\n"
    )
    paths = os.pathsep.join([str(WORKER.parent), os.environ.get("PYTHONPATH", "")])
    driver = subprocess.Popen(
        [sys.executable, "-c", words, str(tiny_model), str(tmp_path)], env={**os.environ, "PYTHONPATH": paths}
    )
    until = time.monotonic() + 120
    while not list((tmp_path / "work").glob("checkpoint-*/complete.json")) and time.monotonic() < until:
        time.sleep(0.05)
    assert len(_mentioning(tmp_path)) >= 4  # driver, guard, agent, two ranks
    driver.kill()
    driver.wait()
    until = time.monotonic() + 15
    while _mentioning(tmp_path) and time.monotonic() < until:
        time.sleep(0.1)
    assert _mentioning(tmp_path) == []


def _mentioning(folder: Path) -> list[str]:
    """Processes whose command line names ``folder``."""
    found = []
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(folder) in words:
            found.append(words)
    return found


@pytest.mark.slow
def test_two_machines_give_the_bytes_of_one_with_two_processes(undisturbed, tiny_model, tmp_path):
    """A rank of the second one is killed on the way: both agents start theirs again."""
    launcher, second = two_machines(tmp_path, [[0, 1, "after_backward"]])
    job = sft_job(tiny_model, tmp_path, undisturbed[0].plan)
    end = launcher.run(job)
    launcher.close("sft")
    told, words = second.communicate(timeout=60)
    assert told == "fits 1\n", words
    assert (end.ranks, end.nodes) == (2, 2)
    assert digest(job.out) == digest(undisturbed[2])
    assert not list((tmp_path / "storage").glob("*/*"))  # rows and checkpoints go when they are not needed any more


def test_several_machines_need_a_place_to_meet():
    with pytest.raises(ValidationError, match="nnodes is 2, and rdzv_endpoint is null; several machines need one"):
        build_launch(nnodes=2, storage_path="/shared")
    for endpoint in ("first", ":29500", "first:port", "first:99999", "first:0"):
        with pytest.raises(ValidationError, match="must be HOST:PORT, with a port from 1 to 65535"):
            build_launch(nnodes=2, rdzv_endpoint=endpoint, storage_path="/shared")
    with pytest.raises(ValidationError, match="nnodes is 2, and storage_path is null; several machines need one"):
        build_launch(nnodes=2, rdzv_endpoint="first:29500")
    with pytest.raises(
        UsageError, match="needs training on several machines, but the launch settings here are for one"
    ):
        torchrun_join.join_stage("sft", LaunchConfig(build_launch()), Path())
    with pytest.raises(ValidationError, match="storage_path is s3://bucket/fits, and torchrun needs a folder"):
        build_launch(nnodes=2, rdzv_endpoint="first:29500", storage_path="s3://bucket/fits")
    assert torchrun_join.find_own_address("127.0.0.1:29500") == "127.0.0.1"


def test_a_machine_waits_while_another_stage_fits(tmp_path):
    assert not torchrun_join.is_other_stage_training(tmp_path / "absent", "sft")
    torchrun_launcher.write_session(tmp_path, "cpt", ended=False)
    assert torchrun_join.is_other_stage_training(tmp_path, "sft")
    assert not torchrun_join.is_other_stage_training(tmp_path, "cpt")
    torchrun_launcher.write_session(tmp_path, "sft", ended=False)  # that of cpt may be left from a run that was killed
    assert not torchrun_join.is_other_stage_training(tmp_path, "sft")
    torchrun_launcher.write_session(tmp_path, "sft", ended=True)
    torchrun_launcher.write_session(tmp_path, "cpt", ended=True)
    assert not torchrun_join.is_other_stage_training(tmp_path, "sft")


def test_machines_that_join_have_folders_of_their_own_in_the_project_that_they_share():
    code = "from tunectl.backends.launchers import torchrun_join; print(torchrun_join.name_own_folder('sft'))"
    names = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout for _ in range(2)}
    assert len(names) == 2
    assert all(name.startswith(f"join-sft-{socket.gethostname()}-") for name in names)
