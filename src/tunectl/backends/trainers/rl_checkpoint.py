"""The state of a policy training between its steps, saved so that it survives a kill; folders as in ``training_checkpoint``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec import field as json_field

from tunectl.artifacts import atomic_io
from tunectl.core.optional import import_optional
from tunectl.training.rl.policy_validation import ValidationSample
from tunectl.training.rl.rl_types import Sample, StepMetrics, ValidationPoint

FACTS, BEST = "policy.json", "best.safetensors"


class _Facts(Struct, frozen=True):
    history: list[StepMetrics]
    points: list[ValidationPoint] = json_field(name="looks")
    samples: list[Sample]
    seconds: dict[str, float]
    answers: int
    first: ValidationSample | None
    best_step: int
    stopped: str | None


@dataclass
class RlTrainerState:
    """State of a policy training that its checkpoints hold beside the Trainer's: curve, validations, samples, best weights and totals."""

    history: list[StepMetrics] = field(default_factory=list)
    points: list[ValidationPoint] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    """Seconds by kind of work, over all parts of an interrupted run."""
    answers: int = 0
    first: ValidationSample | None = None
    """The validation before the first step, to compare with."""
    best_step: int = 0
    stopped: str | None = None
    """Why to stop early; None: continue."""
    best: dict[str, Any] = field(default_factory=dict)
    """Trained weights of the best validation, by name; empty: those of sft."""

    @contextmanager
    def time_block(self, description: str) -> Iterator[None]:
        """Add the duration of the block to ``seconds[description]``."""
        started = time.monotonic()
        yield
        self.seconds[description] = self.seconds.get(description, 0.0) + time.monotonic() - started

    def save(self, folder: Path) -> None:
        """Write the state to ``folder``: one JSON file and one file of weights."""
        files = import_optional("safetensors.torch", extra="train")
        facts = {name: value for name, value in vars(self).items() if name != "best"}
        atomic_io.write_json(folder / FACTS, _Facts(**facts))
        files.save_file({key: value.contiguous() for key, value in self.best.items()}, str(folder / BEST))

    @classmethod
    def load(cls, folder: Path) -> RlTrainerState:
        """Return the state that ``save`` wrote to ``folder``."""
        files = import_optional("safetensors.torch", extra="train")
        facts: _Facts = atomic_io.read_json(folder / FACTS, _Facts)
        values = {name: getattr(facts, name) for name in facts.__struct_fields__}
        return cls(**values, best=files.load_file(str(folder / BEST)))
