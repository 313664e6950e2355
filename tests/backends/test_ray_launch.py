"""Fits by Ray Train, on a cluster that is started here: the same bytes after a kill, and one clear error."""

import functools
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import moto_server
import pytest
import ray_ranks
import s3fs
from launched_fits import build_launch
from pydantic import ValidationError
from ray_ranks import launch, open_cluster
from tiny_fits import digest, plan, sft_job

from tunectl.backends.launchers import ray_errors, ray_launcher, ray_tables
from tunectl.backends.launchers.ray_launcher import RayLauncher
from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher
from tunectl.core.errors import InfrastructureError, MissingExtraError, UsageError

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def bucket():
    """A bucket that this process and the workers, which are started later, find by their environment."""
    with pytest.MonkeyPatch.context() as patch, moto_server.serve_bucket(patch) as name:
        yield name


@pytest.fixture(scope="module")
def cluster(bucket):
    """One cluster for all fits of this file: its start takes longer than they do."""
    with open_cluster():
        yield


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_killed_worker_costs_nothing_but_time_and_goes_on_from_s3(cluster, bucket, tiny_model, tmp_path):
    """The same bytes as by two ranks of torchrun, of which none is killed."""
    chosen = plan(dropout=0.2)
    plain, killed = (sft_job(tiny_model, tmp_path / name, chosen) for name in ("plain", "killed"))
    TorchrunLauncher(build_launch()).run(plain)
    function = functools.partial(ray_ranks.run_killed, marker=str(tmp_path / "killed once"))
    storage = f"s3://{bucket}/fits"
    end = RayLauncher(launch(storage_path=storage), function=function).run(killed)
    assert (tmp_path / "killed once").exists()
    assert (end.ranks, end.nodes, end.device, end.restarts) == (2, 1, "cpu", 1)
    assert digest(plain.out) == digest(killed.out)
    assert sorted(digest(plain.out)) == ["adapter_config.json", "adapter_model.safetensors"]
    assert not list(tmp_path.glob("*/work/ray/*"))
    assert not (tmp_path / "killed" / "work").exists(), "its checkpoints were in the bucket alone"
    assert [path for path in s3fs.S3FileSystem().find(f"{bucket}/fits") if "checkpoint" in path] == []


def test_a_cluster_that_is_not_there_is_named(tiny_model, tmp_path):
    pytest.importorskip("ray")
    launcher = RayLauncher(launch(address="127.0.0.1:1", storage_path=str(tmp_path)))
    with pytest.raises(InfrastructureError) as error:
        launcher.run(sft_job(tiny_model, tmp_path))
    assert error.value.message == "launch.address = 127.0.0.1:1: nothing listens there"


def test_a_storage_that_cannot_be_written_is_named_before_a_worker_starts(bucket, tmp_path):
    pytest.importorskip("ray")
    for storage, reason in {
        "s3://no-such-bucket/fits": "Bucket 'no-such-bucket' not found",
        "smoke://signals": "Unrecognized filesystem type in URI",
        str(tmp_path / "file" / "fits"): "Not a directory",
    }.items():
        (tmp_path / "file").touch()
        with pytest.raises(InfrastructureError) as error:
            ray_launcher.open_storage(storage)
        assert error.value.message.startswith(f"launch.storage_path = {storage}: ")
        assert reason in error.value.message


def test_a_storage_that_other_nodes_do_not_see_is_named(tmp_path):
    """By the message of the Ray that is installed: as a worker reports it that does not find what the driver wrote."""
    ray_launcher.prepare_environment()
    storage = pytest.importorskip("ray.train.v2._internal.execution.storage")
    here = storage.StorageContext(tmp_path / "fits", "sft", read_only=True)  # nobody has written into it
    with pytest.raises(RuntimeError) as caught:
        here._check_validation_file()
    failed = storage_error(caught.value)
    error = ray_launcher._describe(failed, "sft", launch(address="auto", storage_path=str(tmp_path / "fits")))
    assert isinstance(error, UsageError)
    assert error.message == f"launch.storage_path = {tmp_path / 'fits'}: the other nodes do not see what is in it"


def storage_error(cause: Exception) -> Exception:
    from ray.train import WorkerGroupError

    return WorkerGroupError(f"[Rank 1 Error Snippet]:\n{cause}", {1: cause})


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_actor_that_is_lost_is_named(cluster):
    """The one that driver and ranks share: then each rank fails with Ray's error, and so does the training."""
    import ray

    control = ray_launcher.start_control(ray)
    ray.kill(control)

    def fit():
        try:
            ray.get(control.begin.remote())
        except ray.exceptions.ActorDiedError as lost:
            raise storage_error(lost) from lost

    with pytest.raises(InfrastructureError) as error:
        ray_launcher._wait(ray, SimpleNamespace(fit=fit), control, "sft", launch())
    assert error.value.message.startswith(
        "sft: training on Ray failed, and launch.max_failures is 2: rank 1: a process of the cluster was killed (ActorDiedError: "
    )
    assert "FitControl" in error.value.message
    assert error.value.hint.endswith("checkpoints are kept: run the same command again to resume")


def test_what_ray_raises_is_an_error_that_says_what_to_do():
    exceptions = pytest.importorskip("ray").exceptions
    cases = {
        exceptions.OutOfMemoryError("Memory on the node was 15 GB"): "out of memory",
        exceptions.WorkerCrashedError(): "killed several times",
        exceptions.NodeDiedError("gone"): "a node was lost",
        exceptions.OwnerDiedError("ff", b"", ""): "with data that only it had",
        exceptions.ObjectStoreFullError("full"): "object store is full",
        exceptions.LocalRayletDiedError(): "on this machine was lost",
        exceptions.ActorUnavailableError("gone", None): "a process of the cluster was killed",
    }
    for cause, words in cases.items():
        for raised in (cause, exceptions.RayTaskError("step", "Traceback", cause).as_instanceof_cause()):
            error = ray_errors.describe(raised, "curate.engine = ray", "run again")
            assert isinstance(error, InfrastructureError)
            assert error.message.startswith("curate.engine = ray: ")
            assert words in error.message
            assert f"({type(cause).__name__}: " in error.message
            assert error.hint.endswith("; run again")
            assert len(error.message.splitlines()) == 1
    ours = MissingExtraError("ftfy is not installed", hint="pip install it")
    wrapped = exceptions.RayTaskError("step", "Traceback", ours).as_instanceof_cause()
    assert ray_errors.describe(wrapped, "curate.engine = ray", "run again") is ours
    unknown = ray_errors.describe(exceptions.RayTaskError("step", "Traceback", KeyError("x")), "curate", "run again")
    assert (unknown.message, unknown.exit_code) == ("curate: KeyError: 'x'", 5)


def test_a_cluster_that_does_not_start_is_named(tmp_path):
    """In a process of its own, since this one may be in a cluster already."""
    pytest.importorskip("ray")
    (tmp_path / "file").touch()
    code = (
        "import ray\nfrom tunectl.backends.launchers import ray_launcher\nfrom tunectl.core.errors import InfrastructureError\n"
        "try: ray_launcher.connect(ray, 'RAY_ADDRESS', 'local', '')\n"
        "except InfrastructureError as error: print(error.message, error.hint == ray_launcher.LOCAL_HINT)"
    )
    environment = {**os.environ, "RAY_TMPDIR": str(tmp_path / "file" / "ray")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=250)
    assert done.stdout.startswith("RAY_ADDRESS = local: [Errno 20] Not a directory: "), done.stderr
    assert done.stdout.endswith(" True\n")


def test_settings_that_cannot_work_are_refused(monkeypatch):
    with pytest.raises(ValidationError, match=r"address is ray://head:10001; Ray's client .* is not supported"):
        launch(address="ray://head:10001", storage_path="/shared")
    for address in ("head", "head:port", "head:99999"):
        with pytest.raises(ValidationError, match=f"address is {address}; it must be HOST:PORT"):
            launch(address=address, storage_path="/shared")
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UsageError, match=f"RAY_ADDRESS = {address}: must be HOST:PORT"), ray_tables.open_tables():
            pass
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with (
        pytest.raises(UsageError, match=r"RAY_ADDRESS = ray://head:10001: Ray's client .* is not supported"),
        ray_tables.open_tables(),
    ):
        pass
    with pytest.raises(ValidationError, match="address is auto, and storage_path is null"):
        launch(address="auto")
    with pytest.raises(ValidationError, match="num_workers is \\[8, 1\\]; give the smaller number first"):
        launch(num_workers=(8, 1))
    assert launch(num_workers=[1, 8]).num_workers == (1, 8)
    assert Path(launch(storage_path="s3://bucket/folder").storage_path or "").parts[0] == "s3:"
