"""Train on a Ray cluster by Ray Train: a fixed or elastic number of workers, checkpoints in a storage that all nodes see."""

from __future__ import annotations

import contextlib
import logging
import os
import posixpath
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunectl.backends.launchers import ray_errors, ray_worker, torchrun_agent
from tunectl.backends.launchers.agent_process import StopRequest
from tunectl.backends.launchers.torchrun_join import is_listening
from tunectl.backends.sweeps import trial_pruning
from tunectl.backends.trainers import trainer_loop
from tunectl.config.schema.launch import RayLaunch
from tunectl.core import progress_journal
from tunectl.core.errors import InfrastructureError, TunectlError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training import fit_request
from tunectl.training.fit_request import Failure, FitEnd, FitJob

EXTRA = ray_worker.EXTRA
FOLDER = "ray"
ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",  # no usage statistics are sent
    "TRAIN_ENABLE_SHARE_CUDA_VISIBLE_DEVICES": "0",  # each rank sees its own card, as cuda:0
    "RAY_DEDUP_LOGS": "1",
    # Ray Train's own print() would hand the bytecode that dill disassembles, for datasets' fingerprints, to the terminal
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # A warning that comes every few seconds where the cluster has no dashboard, and what each rank says at each checkpoint
    "RAY_DEDUP_LOGS_SKIP_REGEX": "Failed to query Ray Train Controller actor state|Reporting training result",
    # Seconds to wait for room for all workers, which a node that has just gone away seems to have until Ray misses it; then Ray counts anew
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # Ray's default of 15 gives way to all other processes, trainings included
}
LOCAL = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", **torchrun_agent.LOOPBACK}
"""What a cluster on this machine alone needs so that its processes listen on loopback: Ray does so where it has no clusters of several
machines, and this variable, which it reads on each system, says that it has none. Source: ray/_private/services.py, get_node_ip_address."""
FORWARDED = (trial_pruning.VARIABLE, progress_journal.VARIABLE)
"""What the workers get of our environment; not by Ray's ``runtime_env``, which its dashboard shows: a trial's may hold a password."""
START_HINT = "start a cluster (ray start --head) and set launch.address to it, or start one here: launch.address=local"
LOCAL_HINT = "look at /tmp/ray/session_latest/logs; free memory, or space below /tmp, and run again"
_BLIND = "Unable to set up cluster storage"
"""Ray's message where a worker does not find what the driver wrote into the storage."""


def prepare_environment(*, local: bool = False) -> None:
    """Set the environment variables that Ray reads at import and start, unless they are set already.

    ``local``: the cluster is started here and ends with this process; other machines do not reach it.
    """
    os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in os.environ})
    if local:
        os.environ.update(LOCAL)


def connect(ray: Any, setting: str, address: str, hint: str, **options: Any) -> bool:
    """Join the cluster at ``address``, or start one here where it is ``local``; returns whether this process was in none before.

    ``setting`` has the address; ``hint``: what to do where no cluster is there; ``options`` go to ``ray.init``.
    Raises  InfrastructureError where no cluster is reachable, or none starts.
    """
    if ":" in address and not is_listening(address):  # Ray would try for minutes
        raise InfrastructureError(f"{setting} = {address}: nothing listens there", hint=hint)
    if ray.is_initialized():
        return False
    try:
        ray.init(address=address, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises a bare Exception where its processes start too slowly
        raise InfrastructureError(
            f"{setting} = {address}: {(str(error).strip().splitlines() or [type(error).__name__])[0]}",
            hint=LOCAL_HINT if address == "local" else hint,
        ) from error
    return True


@dataclass
class RayLauncher:
    """Runs trainings on a Ray cluster, one after the other; ``ends`` records ranks, nodes, device and restarts of each."""

    settings: RayLaunch
    ends: list[FitEnd[Any]] = field(default_factory=list)
    function: Any = ray_worker.run_rank
    """Function that each worker calls."""

    def run(self, job: FitJob) -> FitEnd[Any]:
        """Train on the cluster; return the trainer's result with ranks, nodes, device and restarts.

        Raises  the error that a rank raised; UsageError where nodes do not see the storage; InfrastructureError where the storage
                cannot be written, workers fail too often, no cluster is reachable, or after Ctrl-C; MissingExtraError without Ray.
        """
        prepare_environment(local=self.settings.address == "local")
        ray = import_optional("ray", extra=EXTRA)
        if self.settings.storage_path is not None:
            open_storage(self.settings.storage_path)
        started = self._connect(ray)
        try:
            control = start_control(ray)
            trainer = self._build(ray, job, control)
            result = _wait(ray, trainer, control, job.fit.label, self.settings)
            end = _take(result, job)
        except ray.exceptions.RayError as error:
            raise _describe(error, job.fit.label, self.settings) from error
        finally:
            if started:
                ray.shutdown()
        shutil.rmtree(job.work.absolute() / FOLDER, ignore_errors=True)
        self.ends.append(end)
        return end

    def close(self, stage: str) -> None:
        """Do nothing: no machine waits for more trainings."""

    def _connect(self, ray: Any) -> bool:
        """Join the cluster, or start one here; returns whether we started it and so have to end it.

        Raises  InfrastructureError where it is not there.
        """
        options: dict[str, Any] = {}
        if self.settings.address == "local":
            most = (
                self.settings.num_workers
                if isinstance(self.settings.num_workers, int)
                else self.settings.num_workers[1]
            )
            options = {"num_cpus": max(most, len(os.sched_getaffinity(0))), "include_dashboard": False}
        return connect(ray, "launch.address", self.settings.address, START_HINT, **options)

    def _build(self, ray: Any, job: FitJob, control: Any) -> Any:
        train, torch = import_optional("ray.train", extra=EXTRA), import_optional("ray.train.torch", extra=EXTRA)
        cards = job.fit.profile.device == "cuda"
        request = fit_request.build_request(
            job,
            job.work,
            sharded=self.settings.shard == "layers",
            collective_timeout_seconds=self.settings.collective_timeout_seconds,
        )
        rows = msgspec.msgpack.encode([job.train, job.validation])
        return torch.TorchTrainer(
            self.function,
            train_loop_config={
                "request": msgspec.json.encode(request),
                "rows": ray.put(rows),
                "control": control,
                "environment": {name: os.environ[name] for name in FORWARDED if name in os.environ},
            },
            torch_config=torch.TorchConfig(
                backend="cpu:gloo,cuda:nccl" if cards else "gloo", timeout_s=self.settings.collective_timeout_seconds
            ),
            scaling_config=train.ScalingConfig(num_workers=self.settings.num_workers, use_gpu=cards),
            run_config=train.RunConfig(
                name=job.work.name,
                storage_path=self.settings.storage_path or str(job.work.absolute() / FOLDER),
                failure_config=train.FailureConfig(max_failures=self.settings.max_failures),
                checkpoint_config=train.CheckpointConfig(num_to_keep=2),
                logging_config=train.LoggingConfig(log_level="ERROR"),  # the first rank logs what users need
            ),
        )


def start_control(ray: Any) -> Any:
    """Start the actor that driver and ranks share, on the driver's node: the loss of any other node must not end it."""
    strategies = import_optional("ray.util.scheduling_strategies", extra=EXTRA)
    here = strategies.NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(ray_worker.FitControl).options(num_cpus=0, scheduling_strategy=here).remote()


def open_storage(address: str) -> None:
    """Create the folder for checkpoints at ``address``, so that a wrong address or key is reported before a worker starts.

    Raises  InfrastructureError with the storage's error message.
    """
    pyarrow = import_optional("pyarrow.fs", extra=EXTRA)
    try:
        filesystem, folder = pyarrow.FileSystem.from_uri(address if "://" in address else str(Path(address).absolute()))
        filesystem.create_dir(folder)
    except (OSError, ValueError) as error:
        raise InfrastructureError(
            f"launch.storage_path = {address}: {str(error).strip().splitlines()[0]}",
            hint="give a folder that all nodes see, or s3://BUCKET/FOLDER of a bucket that is there, with keys in the environment of "
            "this machine and of the workers",
        ) from error


def _wait(ray: Any, trainer: Any, control: Any, label: str, settings: RayLaunch) -> Any:
    """Run the training in a thread, so that this process handles Ctrl-C: the first lets the current step finish.

    Raises  what ``RayLauncher.run`` says.
    """
    outcome: list[Any] = []

    def fit() -> None:
        try:
            outcome.append(trainer.fit())
        except BaseException as error:  # noqa: BLE001  raised again in the waiting thread
            outcome.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    waiting, stop_sent = StopRequest(label), False
    with trainer_loop.stop_on_ctrl_c(waiting):
        while thread.is_alive():
            if waiting.stopped and not stop_sent:
                control.stop.remote()
                stop_sent = True
            time.sleep(0.1)
    failure = None
    with contextlib.suppress(ray.exceptions.RayActorError):  # lost, as ``outcome`` says then
        failure = ray.get(control.read_failure.remote())
    if failure is not None:
        raise fit_request.build_error(msgspec.json.decode(failure, type=Failure))
    if isinstance(outcome[0], BaseException):
        raise _describe(outcome[0], label, settings) from outcome[0]
    return outcome[0]


def _describe(error: BaseException, label: str, settings: RayLaunch) -> TunectlError:
    """Convert what Ray raises into an error of ours."""
    if _BLIND in str(error):
        return UsageError(
            f"launch.storage_path = {settings.storage_path}: the other nodes do not see what is in it",
            hint="give a folder on a file system that all nodes mount at this path, or an address such as s3://bucket/folder",
        )
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    rank = f": rank {min(failures)}" if failures else ""
    return ray_errors.describe(
        error,
        f"{label}: training on Ray failed, and launch.max_failures is {settings.max_failures}{rank}",
        "checkpoints are kept: run the same command again to resume",
    )


def _take(result: Any, job: FitJob) -> FitEnd[Any]:
    """Copy the adapter from the storage to where the job wants it, and remove the checkpoints of this training."""
    out = job.out
    with result.checkpoint.as_directory() as folder:
        shutil.copytree(folder, out, dirs_exist_ok=True)
    end = fit_request.read_result(out / fit_request.RESULT, job.trainer)
    (out / fit_request.RESULT).unlink()
    result.checkpoint.filesystem.delete_dir(posixpath.dirname(result.checkpoint.path))
    return end
