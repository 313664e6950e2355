"""The torchrun agent of one machine: starts one worker per rank, and restarts all when one fails.

``python -m tunectl.backends.launchers.torchrun_agent FOLDER``, where ``agent.json`` in its folder says how many. It runs below
``process_guard``, so that it ends with whoever started it.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from msgspec import Struct

from tunectl.artifacts import atomic_io
from tunectl.core.optional import import_optional

RANK_FAILED, NOBODY_THERE = 1, 3
"""Exit codes: a rank failed too often; no other machine joined in time."""
AGENT, LOGS, FAILED = "agent.json", "logs", "failed_ranks.json"
FIX = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE"
"""Without it a restart reads the addresses of the attempt before, and may never connect. Source: pytorch/pytorch#135712."""
STORE = "TUNECTL_STORE_FOLDER"
"""Variable that names the folder where the ranks of one machine find each other; unset with several machines."""
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo", "NCCL_SOCKET_IFNAME": "=lo"}
"""Variables that make gloo and NCCL listen on the interface that no other machine reaches; NCCL takes a name without = for a prefix."""


class AgentSettings(Struct, frozen=True):
    """Settings of the torchrun agent of one machine, as in ``agent.json``; names are torchrun's."""

    nproc_per_node: int
    nnodes: int
    max_restarts: int
    rdzv_endpoint: str
    """HOST:PORT of the rendezvous of the agents; not used with one node."""
    is_host: bool
    """Whether this agent listens at the rendezvous."""
    join_timeout_seconds: int
    run_id: str
    local_addr: str
    """Address by which the other nodes reach this one."""
    worker: list[str]
    """Arguments for Python that start a rank."""
    fit: str
    """Folder of the training, which each rank gets as its last argument."""


class FailedRank(Struct, frozen=True):
    """Record of the rank whose exit made the last attempt fail; the exit code is negative for a signal."""

    rank: int
    exit_code: int
    """Negative: number of the signal that ended it."""


def main(folder: Path) -> int:
    """Run the ranks of this machine with the settings in ``folder``'s ``agent.json``; return the exit code, 0 if all succeeded."""
    settings: AgentSettings = atomic_io.read_json(folder / AGENT, AgentSettings)
    os.environ[FIX] = "1"
    launcher = import_optional("torch.distributed.launcher.api", extra="train")
    multiprocessing = import_optional("torch.distributed.elastic.multiprocessing", extra="train")
    rendezvous = import_optional("torch.distributed.elastic.rendezvous.api", extra="train")
    _log_to(folder / LOGS / "agent.log")
    quiet = dict.fromkeys(range(1, settings.nproc_per_node), multiprocessing.Std.ALL)
    try:
        with _open_rendezvous(settings) as rendezvous_settings:
            config = launcher.LaunchConfig(
                min_nodes=settings.nnodes,
                max_nodes=settings.nnodes,
                nproc_per_node=settings.nproc_per_node,
                logs_specs=multiprocessing.DefaultLogsSpecs(
                    log_dir=str(folder / LOGS), redirects={0: multiprocessing.Std.NONE} | quiet
                ),
                run_id=settings.run_id,
                rdzv_backend="c10d",
                max_restarts=settings.max_restarts,
                local_addr=settings.local_addr,
                **rendezvous_settings,
            )
            launcher.elastic_launch(config, sys.executable)(*settings.worker, settings.fit)
    except multiprocessing.errors.ChildFailedError as error:
        atomic_io.write_json(folder / FAILED, choose_failed(error.failures))
        return RANK_FAILED
    except rendezvous.RendezvousError:
        return NOBODY_THERE
    return 0


@contextmanager
def _open_rendezvous(settings: AgentSettings) -> Iterator[dict[str, Any]]:
    """Yield torchrun's settings of the rendezvous; with one node all goes through files, or through loopback.

    torch's TCPStore listens on every address and asks for no key, and the rendezvous unpickles what it finds in its store.
    """
    joining: dict[str, Any] = {"is_host": settings.is_host, "join_timeout": settings.join_timeout_seconds}
    if settings.nnodes > 1:
        yield {"rdzv_endpoint": settings.rdzv_endpoint, "rdzv_configs": joining}
        return
    # not in the folder of the training, which may be on a shared disk: a FileStore needs file locks; this one has mode 0700
    with tempfile.TemporaryDirectory(prefix="tunectl-store-") as folder:
        os.environ.update(LOOPBACK | {STORE: folder})
        yield {"rdzv_endpoint": f"{folder}/agent", "rdzv_configs": joining | {"store_type": "file"}}


def choose_failed(failures: Mapping[int, Any]) -> FailedRank:
    """Return the rank in ``failures`` (failures by rank) that caused the others: one killed by a signal, else one with an error.

    The other ranks lose their connection to it and fail too, or torchrun ends them with SIGTERM.
    """
    ends = [FailedRank(rank, failure.exitcode) for rank, failure in sorted(failures.items())]
    order = {True: 0, False: 1}  # order: ended by another signal, by an error, by torchrun's SIGTERM
    return min(ends, key=lambda end: 2 if end.exit_code == -signal.SIGTERM else order[end.exit_code < 0])


def _log_to(path: Path) -> None:
    """Write torch's messages about failed ranks to a file: the user gets the error that its reader makes of them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed"):
            logger = logging.getLogger(name)
            logger.handlers[:], logger.propagate = [handler], False


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
