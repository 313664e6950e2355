"""The DVC stages, one per file. This table holds strings only, so that listing stages imports nothing.

A stage module has four public names: ``Inputs`` (a frozen dataclass: one field per stage that it reads, with that stage's
folder), ``Outputs`` (``artifact``: the folder to fill; ``plots``: a folder for CSV plots; ``work``: a folder that survives a kill),
``Metrics`` (a frozen dataclass of numbers) and ``run(cfg, inputs, outputs, *, <backend>=None) -> Metrics``.
"""

from __future__ import annotations

from typing import NamedTuple


class Stage(NamedTuple):
    """Name, help text and settings class of one pipeline stage."""

    name: str
    help: str
    settings: str
    """``module:class`` of the part of the configuration that the stage gets."""

    @property
    def module(self) -> str:
        """Dotted path of the stage's module, such as ``tunectl.pipeline.stages.sft``."""
        return f"tunectl.pipeline.stages.{self.name}"


STAGES: tuple[Stage, ...] = (
    Stage("model", "fetch and verify the base model", "tunectl.config.schema.model:ModelStage"),
    Stage("ingest", "read raw sources into documents and examples", "tunectl.config.schema.ingest:IngestStage"),
    Stage(
        "feedback",
        "turn answers that users approved or edited into training rows",
        "tunectl.config.schema.feedback:FeedbackStage",
    ),
    Stage("curate", "repair, deduplicate, mask personal data, weigh", "tunectl.config.schema.curate:CurateStage"),
    Stage("split", "divide into train, validation and test without leaks", "tunectl.config.schema.split:SplitStage"),
    Stage("cpt", "continue pretraining on raw text", "tunectl.config.schema.cpt:CptStage"),
    Stage("sft", "fine-tune a LoRA adapter on examples", "tunectl.config.schema.sft:SftStage"),
    Stage(
        "preferences",
        "build preference pairs, measure agreement between annotators",
        "tunectl.config.schema.preferences:PreferencesStage",
    ),
    Stage(
        "reward",
        "train a reward model on the pairs, test it on held-out pairs",
        "tunectl.config.schema.reward:RewardStage",
    ),
    Stage(
        "align",
        "align the tuned model with preferences (RLOO, GRPO, DPO, KTO)",
        "tunectl.config.schema.align:AlignStage",
    ),
    Stage(
        "evaluate",
        "compare base, prompted, tuned and aligned model, with intervals",
        "tunectl.config.schema.evaluate:EvaluateStage",
    ),
    Stage(
        "package",
        "export the better adapter, check the export, write its contract",
        "tunectl.config.schema.package:PackageStage",
    ),
)

COMPOSE = "compose"
"""The first stage of dvc.yaml; it has no configuration of its own and always runs."""


def find(name: str) -> Stage:
    """Return the entry of the stage table for ``name``.

    Raises  UsageError naming the nearest stage.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    from difflib import get_close_matches

    from tunectl.core.errors import UsageError

    if name == COMPOSE:
        raise UsageError(f"{COMPOSE}: is no stage of its own, it runs before every other one", hint="leave it out")
    names = [COMPOSE, *(stage.name for stage in STAGES)]
    near = get_close_matches(name, names, 1)
    hint = f"did you mean {near[0]}?" if near else ""
    raise UsageError(f"{name}: no such stage; there are {', '.join(names)}", hint=hint)
