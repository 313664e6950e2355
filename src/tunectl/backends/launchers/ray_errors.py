"""Convert what Ray raises where a process, a node or memory of a cluster is lost into an error of ours that says what to do."""

from __future__ import annotations

from typing import Any, Final

from tunectl.core.errors import InfrastructureError, TunectlError

LOGS: Final = "its log is in /tmp/ray/session_latest/logs of its node"
MAX_DETAIL: Final = 300
"""Characters of Ray's own message that are shown: some are a page long."""
_UP: Final = "see that all its nodes are up: ray status"
CAUSES: Final = {
    "OutOfMemoryError": (
        "a node ran out of memory, so Ray killed a process there",
        "take nodes with more memory, or start fewer processes on each: ray start --num-cpus=N",
    ),
    "OutOfDiskError": ("the disk of a node is full", "free space below /tmp/ray of each node"),
    "ObjectStoreFullError": ("Ray's object store is full", "enlarge it: ray start --object-store-memory=BYTES"),
    "NodeDiedError": ("a node was lost", _UP),
    "ObjectLostError": ("a node or a process was lost, with data that only it had", _UP),
    "LocalRayletDiedError": ("Ray's own process on this machine was lost", _UP),
    "RpcError": ("a process of Ray does not answer", _UP),
    "WorkerCrashedError": ("a process was killed several times", f"free memory on its node; {LOGS}"),
    "RayActorError": ("a process of the cluster was killed", f"free memory on its node; {LOGS}"),
}
"""Name of Ray's exception, or of its base class, to what happened and what to do."""


def describe(error: BaseException, task: str, hint: str) -> TunectlError:
    """Return our error that a worker raised, where ``error`` carries one; else an InfrastructureError that begins with ``task``.

    ``hint``: how to go on once the cause is mended.
    """
    root = find_root(error)
    if isinstance(root, TunectlError):
        return root
    for base in type(root).__mro__:
        if base.__module__ == "ray.exceptions" and base.__name__ in CAUSES:
            event, remedy = CAUSES[base.__name__]
            return InfrastructureError(f"{task}: {event} ({_shorten(root)})", hint=f"{remedy}; {hint}")
    return InfrastructureError(f"{task}: {_shorten(root)}", hint=f"{LOGS}; {hint}")


def find_root(error: BaseException) -> BaseException:
    """Return the error inside what Ray has wrapped around it; of several ranks, that of the first that failed."""
    failures: dict[int, BaseException] = getattr(error, "worker_failures", {})
    inner: Any = next((failures[rank] for rank in sorted(failures)), None)
    inner = inner or getattr(error, "controller_failure", None) or getattr(error, "cause", None)
    return find_root(inner) if isinstance(inner, BaseException) else error


def _shorten(error: BaseException) -> str:
    """Return the name of ``error`` and the beginning of its message, in one line."""
    text = " ".join(str(error).split())
    if len(text) > MAX_DETAIL:
        text = f"{text[:MAX_DETAIL].rstrip()} ..."
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
