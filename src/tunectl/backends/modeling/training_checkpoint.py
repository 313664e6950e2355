"""The state of a training between its steps, saved so that it survives a kill.

A checkpoint is a folder of the Trainer's files and two of ours; it counts only once ``complete.json`` is in it, which is
written last. Older ones are removed only after that, so at every moment there is a complete one to resume from.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.core.optional import import_optional
from tunectl.training.protocols import LogPoint

MARKER, FACTS, BEST, AVERAGE = "complete.json", "fit.json", "best.safetensors", "average.safetensors"


@dataclass
class TrainerState:
    """State of a training that its checkpoints hold beside the Trainer's: curve, best weights, moving average and running totals."""

    first_loss: float = float("inf")
    best_loss: float = float("inf")
    best_step: int = 0
    misses: int = 0
    """Validations in a row that were no better."""
    tokens: int = 0
    tokens_apart: int = 0
    seconds: float = 0.0
    history: list[LogPoint] = field(default_factory=list)
    best: dict[str, Any] = field(default_factory=dict)
    """Trained weights of the best validation, by name."""
    average: dict[str, Any] = field(default_factory=dict)
    """Moving average of the trained weights; empty where none is kept."""
    accountant: list[tuple[float, float, int]] = field(default_factory=list)
    """Of a private training: noise multiplier, sample rate and number of steps so far, as Opacus' accountant keeps them."""

    def save(self, folder: Path) -> None:
        """Write the state to ``folder``: one JSON file and two files of weights."""
        files = import_optional("safetensors.torch", extra="train")
        facts = {name: value for name, value in vars(self).items() if name not in {"best", "average"}}
        atomic_io.write_json(
            folder / FACTS, facts | {"first_loss": repr(self.first_loss), "best_loss": repr(self.best_loss)}
        )
        for name, weights in ((BEST, self.best), (AVERAGE, self.average)):
            files.save_file({key: value.contiguous() for key, value in weights.items()}, str(folder / name))

    @classmethod
    def load(cls, folder: Path) -> TrainerState:
        """Return the state that ``save`` wrote to ``folder``."""
        files = import_optional("safetensors.torch", extra="train")
        facts: dict[str, Any] = atomic_io.read_json(folder / FACTS, dict[str, Any])
        facts["history"] = msgspec.convert(facts["history"], list[LogPoint])
        facts["accountant"] = [tuple(entry) for entry in facts["accountant"]]
        facts |= {name: float(facts[name]) for name in ("first_loss", "best_loss")}
        best, average = (files.load_file(str(folder / name)) for name in (BEST, AVERAGE))
        return cls(**facts, best=best, average=average)


def finish_checkpoint(folder: Path) -> None:
    """Flush ``folder`` to the disk, write its complete.json, then remove older checkpoints."""
    for path in folder.iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    atomic_io.write_json(folder / MARKER, {path.name: path.stat().st_size for path in sorted(folder.iterdir())})
    for other in checkpoints(folder.parent):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)


def checkpoints(work: Path) -> list[Path]:
    """Return the checkpoint folders in ``work``, complete or not, sorted by step."""
    result = [path for path in work.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(result, key=lambda path: int(path.name.rpartition("-")[2]))


def latest_checkpoint(work: Path) -> Path | None:
    """Return the folder of the newest complete checkpoint in ``work``, None if there is none; remove incomplete ones."""
    newest = None
    for folder in checkpoints(work):
        if (folder / MARKER).is_file():
            newest = folder
        else:
            shutil.rmtree(folder, ignore_errors=True)
    return newest
