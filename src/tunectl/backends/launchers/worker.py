"""One rank of distributed training: ``python -m tunectl.backends.launchers.worker FOLDER``, started by torchrun.

Every rank reads the same request and rows and calls the same trainer; the first one alone writes, logs and tracks. An error of ours is
saved in ``failure.json`` and is not tried again; any other end of a rank makes torchrun restart all ranks, from the last checkpoint.
The other ranks fail then as well, because they wait for it: each crash is recorded, and the first one is reported.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from tunectl.artifacts import atomic_io
from tunectl.backends.launchers import torchrun_agent
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.backends.system import process_guard, terminal
from tunectl.core import logging_setup, progress_journal
from tunectl.core.errors import TunectlError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training import fit_request
from tunectl.training.fit_request import FitEnd, FitRequest
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import TrainResult
from tunectl.training.reward.pair_batches import PromptGroup
from tunectl.training.reward.reward_args import RewardArgs
from tunectl.training.rl.rl_types import PolicyData, RlArgs, RlResult
from tunectl.training.train_args import TrainingArgs

_log = logging_setup.get_logger(__name__)
Plan = TypeVar("Plan", TrainingArgs, RlArgs)
MEETING_SECONDS = 60
"""Seconds that a rank waits for the others where it does not see the request."""
CARDS = "CUDA_VISIBLE_DEVICES"
HIDDEN = (
    *("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK"),
    *("MASTER_ADDR", "MASTER_PORT", "ACCELERATE_TORCH_DEVICE"),
)
"""Variables that accelerate and transformers look for."""


def main(folder: Path) -> int:
    """Run this rank of the training that ``folder`` describes; returns the exit code."""
    process_guard.die_with_parent()
    if (folder / fit_request.FAILURE).is_file() or (folder / fit_request.RESULT).is_file():
        return 0  # the training has ended: another rank has written why, or only a rank's own end failed
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    logging_setup.configure_logging(level="error" if rank else "info")
    if not rank:
        terminal.install_progress()
        progress_journal.continue_journal()
    request = _read_request(folder)
    if request is not None and request.device == "cuda":
        os.environ[CARDS] = choose_card(local)  # before torch reads it: each rank sees one card, as cuda:0
    try:
        group = join_ranks(request, folder)
        if request is None:
            return 1  # the folder was removed by the process that started this one
        if restarts and group.first:
            _log.warning("a rank failed, and all were started again: restart %d", restarts)
        result = run_fit(request, folder, group)
        if group.first:
            end = FitEnd(
                result, group.world_size, group.world_size // group.local_world_size, _device(request), restarts
            )
            atomic_io.write_json(folder / fit_request.RESULT, end)
        group.barrier()
    except TunectlError as error:
        fit_request.record_failure(folder, error, rank)
        return error.exit_code
    except Exception:  # noqa: BLE001  any error is written to a file, and reported by the process that started the training
        fit_request.record_crash(folder, traceback.format_exc(), rank, restarts)
        return 1
    import_optional("torch.distributed", extra="train").destroy_process_group()
    return 0


def choose_card(local_rank: int) -> str:
    """Return the CUDA device (its index or UUID) for the process ``local_rank`` (from 0) of this machine, among the visible ones."""
    visible = os.environ.get(CARDS)
    return visible.split(",")[local_rank] if visible else str(local_rank)


def _read_request(folder: Path) -> FitRequest | None:
    """Return the request, or None on a machine that does not see its folder."""
    if not (folder / fit_request.REQUEST).is_file():
        return None
    request: FitRequest = atomic_io.read_json(folder / fit_request.REQUEST, FitRequest)
    return request


def join_ranks(request: FitRequest | None, folder: Path) -> ProcessGroup:
    """Join the other ranks and return the process group; RANK, WORLD_SIZE and the like are then hidden from accelerate.

    ``request`` is None on a rank that cannot read ``folder``.
    Raises  UsageError where a rank does not see the folder that the others see.
    """
    torch = import_optional("torch", extra="train")
    distributed = import_optional("torch.distributed", extra="train")
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    timeout = timedelta(seconds=request.collective_timeout_seconds if request else MEETING_SECONDS)
    distributed.init_process_group(backend, timeout=timeout, **_open_store(distributed, timeout))
    group = ProcessGroup(
        rank=distributed.get_rank(),
        world_size=distributed.get_world_size(),
        local_world_size=int(os.environ["LOCAL_WORLD_SIZE"]),
        sharded=request is not None and request.sharded,
        stop_requested=(folder / fit_request.STOP).exists,
    )
    hide_ranks()
    _refuse_another_folder(request, folder, group)
    return group


def hide_ranks() -> None:
    """Let accelerate and transformers see one process only: else they wrap the model, and save on every rank."""
    for name in HIDDEN:
        os.environ.pop(name, None)
    # transformers would warn that a process group is there, and it does not use it
    logging.getLogger("transformers.training_args").setLevel(logging.ERROR)


def _open_store(distributed: Any, timeout: timedelta) -> dict[str, Any]:
    """Return the arguments by which ``init_process_group`` finds the other ranks: none with several machines.

    With one it is a file, a new one for each attempt: the store that torch opens by default listens on every address.
    """
    if torchrun_agent.STORE not in os.environ:
        return {}
    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    store = distributed.FileStore(f"{os.environ[torchrun_agent.STORE]}/ranks-{attempt}", ranks)
    store.set_timeout(timeout)
    return {"store": store, "rank": rank, "world_size": ranks}


def _refuse_another_folder(request: FitRequest | None, folder: Path, group: ProcessGroup) -> None:
    """Refuse where ranks read different requests: a folder of the same name on a local disk holds another one, or none."""
    visible = request is not None and Path(request.model).is_dir()
    request_number = float(int(request.id[:12], 16)) if request and visible else 0.0
    (newest,) = group.max(request_number)
    blind = [int(rank) for rank in group.gather(0.0 if request_number == newest else group.rank + 1.0) if rank]
    if blind:
        raise UsageError(
            f"launch.storage_path: rank {blind[0] - 1} of {group.world_size}, on another machine, does not see the request in {folder}, "
            "or the model that it names",
            hint="give a folder on a file system that all machines mount at this path, and keep the project on one, too",
        )


def run_fit(request: FitRequest, folder: Path, group: ProcessGroup) -> TrainResult | RlResult:
    """Run the request with the trainer that it names; return its result and write the adapter to ``folder``."""
    if request.trainer == "align":
        return _fit_policy(request, folder, group)
    from tunectl.backends.trainers import reward_trainer, sft_trainer

    out = folder / fit_request.ADAPTER
    if request.trainer == "sft":
        rows, validation = fit_request.read_rows(folder, PackedRow)
        plan = _own_plan(fit_request.decode_plan(request.plan, TrainingArgs), group)
        return sft_trainer.SftTrainer(group).fit(
            plan, model=Path(request.model), train=rows, validation=validation, out=out, work=Path(request.work)
        )
    groups, held_out = fit_request.read_rows(folder, PromptGroup)
    args = fit_request.decode_plan(request.plan, RewardArgs)
    return reward_trainer.RewardModelTrainer(group).fit(
        replace(args, fit=_own_plan(args.fit, group)),
        model=Path(request.model),
        sft=Path(request.sft or ""),
        train=groups,
        validation=held_out,
        out=out,
        work=Path(request.work),
    )


def _fit_policy(request: FitRequest, folder: Path, group: ProcessGroup) -> RlResult:
    """Align: this rank loads a policy, and where one is declared a reward model."""
    from tunectl.backends.modeling.reward_scorer import DistributedRewardModel
    from tunectl.backends.wiring import align

    (data,), _ = fit_request.read_rows(folder, PolicyData)
    plan = _own_plan(fit_request.decode_rl_plan(request.plan), group)
    tools, base, sft = align.build_backend(), Path(request.model), Path(request.sft or "")
    model = None
    if request.reward is not None:
        model = DistributedRewardModel(tools.reward(base, sft, Path(request.reward), plan.profile), group)
    try:
        return align.build_trainer(plan.settings, group).fit(
            plan,
            model=base,
            sft=sft,
            data=data,
            judges=align.build_judges(plan.settings, tools, model),
            out=folder / fit_request.ADAPTER,
            work=Path(request.work),
        )
    finally:
        if model is not None:
            model.close()


def _own_plan(plan: Plan, group: ProcessGroup) -> Plan:
    """Return the arguments of this rank: the cores of a machine are divided among its ranks."""
    profile = plan.profile
    if profile.threads is None:
        cores = len(os.sched_getaffinity(0))
        profile = profile.model_copy(update={"threads": max(1, cores // group.local_world_size)})
    return replace(plan, profile=profile)


def _device(request: FitRequest) -> str:
    if request.device == "cpu":
        return "cpu"
    torch: Any = import_optional("torch", extra="train")
    return str(torch.cuda.get_device_name(0))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
