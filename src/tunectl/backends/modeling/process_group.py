"""The processes that share one training, and the few collectives that it needs.

Rows of a step are divided among the ranks, and the gradients of the adapter are summed once per step. Everything else is equal on each
rank: schedule, optimizer, average and best weights follow from the seed and from sums that all ranks have.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import msgspec

from tunectl.core.optional import import_optional


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """This process among the ``world_size`` processes of one training; with one process every method is a no-op."""

    rank: int = 0
    world_size: int = 1
    local_world_size: int = 1
    """Processes on this machine, which share its memory and its cores."""
    sharded: bool = False
    """Frozen layers are divided among the ranks (FSDP2), so that each forward pass is a collective."""
    stop_requested: Callable[[], bool] | None = None
    """Called by the first rank once per step: whether the training is to end after it."""
    publish: Callable[[Path | None], None] | None = None
    """Called with each complete checkpoint of the first rank, and with None on the others, to copy it to where a restart finds it. None: no copy is needed."""
    size_setting: str = "launch.nproc_per_node"
    """Dotted key of the setting for the number of processes, for messages."""

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and logs (rank 0)."""
        return self.rank == 0

    def sum(self, *numbers: float) -> list[float]:
        """Return each of ``numbers`` summed over the ranks, in float64."""
        return self._reduce(numbers, "SUM")

    def max(self, *numbers: float) -> list[float]:
        """Return the maximum over the ranks of each of ``numbers``."""
        return self._reduce(numbers, "MAX")

    def gather(self, number: float) -> list[float]:
        """Return the value that each rank passed, by rank."""
        own = [0.0] * self.world_size
        own[self.rank] = number
        return self.sum(*own)

    def _reduce(self, numbers: Sequence[float], operation: str) -> list[float]:
        if self.world_size == 1:
            return list(numbers)
        torch = import_optional("torch", extra="train")
        distributed = import_optional("torch.distributed", extra="train")
        values = torch.tensor(numbers, dtype=torch.float64)  # on the CPU, by gloo: no synchronization with a card
        distributed.all_reduce(values, op=getattr(distributed.ReduceOp, operation))
        result: list[float] = values.tolist()
        return result

    def sum_gradients(self, model: Any) -> None:
        """Sum the gradients of all trained weights over the ranks, in one flat float32 ``all_reduce``."""
        if self.world_size == 1:
            return
        torch = import_optional("torch", extra="train")
        distributed = import_optional("torch.distributed", extra="train")
        trained = [weights for weights in model.parameters() if weights.requires_grad]
        parts = [weights.new_zeros(weights.shape) if weights.grad is None else weights.grad for weights in trained]
        flat = torch.cat([part.flatten().float() for part in parts])
        distributed.all_reduce(flat)
        for weights, part in zip(trained, flat.split([part.numel() for part in parts]), strict=True):
            weights.grad = part.view_as(weights).to(weights.dtype)

    def sum_tensor(self, values: Any) -> Any:
        """Sum a tensor over the ranks in place, and return it."""
        if self.world_size > 1:
            import_optional("torch.distributed", extra="train").all_reduce(values)
        return values

    def gather_bytes(self, content: bytes) -> list[bytes]:
        """Return the bytes that each rank passed, by rank."""
        if self.world_size == 1:
            return [content]
        torch = import_optional("torch", extra="train")
        distributed = import_optional("torch.distributed", extra="train")
        sizes = [int(size) for size in self.gather(float(len(content)))]
        own = torch.zeros(max(1, *sizes), dtype=torch.uint8)
        if content:
            own[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        parts = [torch.empty_like(own) for _ in sizes]
        distributed.all_gather(parts, own)
        return [part[:size].numpy().tobytes() for part, size in zip(parts, sizes, strict=True)]

    def join(self, numbers: Sequence[float]) -> list[float]:
        """Return the lists that all ranks passed, concatenated by rank."""
        parts = self.gather_bytes(msgspec.msgpack.encode([float(number) for number in numbers]))
        return [number for part in parts for number in msgspec.msgpack.decode(part, type=list[float])]

    def merge_by_index(self, own: Mapping[int, Any], shape: Any) -> list[Any]:
        """Return the values of all ranks in one list, sorted by index; ``own`` has this rank's by index, ``shape`` is their type."""
        if self.world_size == 1:
            return [own[index] for index in sorted(own)]
        parts = self.gather_bytes(msgspec.msgpack.encode(list(own.items())))
        pairs = [pair for part in parts for pair in msgspec.msgpack.decode(part, type=list[tuple[int, shape]])]
        return [value for _, value in sorted(pairs, key=itemgetter(0))]

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        self.sum(0.0)

    def end_checkpoint(self, folder: Path | None) -> None:
        """Publish the checkpoint in ``folder`` for a restart, and wait until it is; the first rank passes the folder, the others None."""
        if self.publish is None:
            self.barrier()
        else:
            self.publish(folder)

    def agree_to_stop(self, stopped: bool) -> bool:
        """Return on all ranks, after the same step, whether any of them passed ``stopped`` as true."""
        if self.world_size == 1:
            return stopped
        stop = stopped or (self.first and self.stop_requested is not None and self.stop_requested())
        return self.max(float(stop))[0] > 0

    def seed_step(self, seed: int, step: int) -> None:
        """Seed dropout and noise by step and rank, so that a resumed training draws the same numbers. A single process is not seeded again."""
        if self.world_size > 1:
            digest = hashlib.sha256(f"{seed}:dropout:{step}:{self.rank}".encode()).digest()
            import_optional("torch", extra="train").manual_seed(int.from_bytes(digest[:6], "big"))


SINGLE = ProcessGroup()
"""A training in this process alone."""
