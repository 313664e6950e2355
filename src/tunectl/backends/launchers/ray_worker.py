"""One rank of a training on a Ray cluster: what Ray Train calls on each worker, and the actor that driver and ranks share."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import worker
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.core import logging_setup, progress_journal
from tunectl.core.errors import TunectlError
from tunectl.core.optional import import_optional
from tunectl.training import fit_request
from tunectl.training.fit_request import Failure, FitEnd, FitRequest

EXTRA = "ray"
_STEP_FILE = "trainer_state.json"


class FitControl:
    """A Ray actor by which the driver asks the ranks to stop, and the ranks report attempts and failures to the driver."""

    def __init__(self) -> None:
        """Start without a request or a report."""
        self._stop, self._attempts = False, 0
        self._failure: bytes | None = None

    def stop(self) -> None:
        """Ask the ranks to stop after the current step."""
        self._stop = True

    def is_stopping(self) -> bool:
        """Return whether a stop was requested."""
        return self._stop

    def begin(self) -> int:
        """Count an attempt of the first rank; return how many there were before."""
        self._attempts += 1
        return self._attempts - 1

    def record_failure(self, failure: bytes) -> None:
        """Keep an encoded error that another attempt would not solve; only the first one is kept."""
        self._failure = self._failure or failure

    def read_failure(self) -> bytes | None:
        """Return the encoded error that ``record_failure`` kept; None if there is none."""
        return self._failure


def run_rank(config: dict[str, Any]) -> None:
    """Run one rank of a training; Ray Train calls this on each worker, again after a failure.

    ``config`` has the encoded request, the rows in the object store, the ``FitControl`` actor and environment variables.
    """
    ray, train = import_optional("ray", extra=EXTRA), import_optional("ray.train", extra=EXTRA)
    control = config["control"]
    if ray.get(control.read_failure.remote()) is not None:
        return  # nothing to try again: the driver raises it
    context = train.get_context()
    rank = context.get_world_rank()
    os.environ.update(config["environment"])
    logging_setup.configure_logging(level="error" if rank else "info")
    if not rank:
        progress_journal.continue_journal()  # does nothing on a machine that does not see the project's folder
    folder = Path(tempfile.mkdtemp(prefix="tunectl-fit-"))
    try:
        request = msgspec.json.decode(config["request"], type=FitRequest)
        request = msgspec.structs.replace(request, work=str(folder / "work"))
        (folder / fit_request.ROWS).write_bytes(ray.get(config["rows"]))
        group = _join_ranks(request, context, lambda: bool(ray.get(control.is_stopping.remote())))
        restarts = ray.get(control.begin.remote()) if group.first else 0
        if _fetch_checkpoint(folder / "work") != fit_request.RESULT:
            result = worker.run_fit(request, folder, group)
            end = FitEnd(
                result, group.world_size, -(-group.world_size // group.local_world_size), request.device, restarts
            )
            _report_end(folder / fit_request.ADAPTER, end, group)
    except TunectlError as error:
        failure = Failure(type(error).__name__, error.message, error.hint, rank)
        ray.get(control.record_failure.remote(msgspec.json.encode(failure)))
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _join_ranks(request: FitRequest, context: Any, stop_requested: Callable[[], bool]) -> ProcessGroup:
    """Return the group of ranks that Ray has started."""
    worker.hide_ranks()
    return ProcessGroup(
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        local_world_size=context.get_local_world_size(),
        sharded=request.sharded,
        stop_requested=stop_requested,
        publish=_report,
        size_setting="launch.num_workers",
    )


def _report(folder: Path | None) -> None:
    """Hand a checkpoint to Ray, which brings it to the storage; all ranks wait for that."""
    train = import_optional("ray.train", extra=EXTRA)
    if folder is None:
        train.report({})
        return
    train.report({"checkpoint": folder.name}, checkpoint=train.Checkpoint.from_directory(str(folder)))


def _fetch_checkpoint(work: Path) -> str | None:
    """Bring the newest checkpoint of the storage here; returns ``RESULT`` where the training had ended already."""
    checkpoint = import_optional("ray.train", extra=EXTRA).get_checkpoint()
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        if (Path(folder) / fit_request.RESULT).is_file():
            _report(None)
            return fit_request.RESULT
        step = json.loads((Path(folder) / _STEP_FILE).read_bytes())["global_step"]
        shutil.copytree(folder, work / f"checkpoint-{step}")
    return None


def _report_end(adapter: Path, end: FitEnd[Any], group: ProcessGroup) -> None:
    """Report the adapter as the last checkpoint, with the result of the training."""
    if group.first:
        atomic_io.write_json(adapter / fit_request.RESULT, end)
    _report(adapter if group.first else None)
