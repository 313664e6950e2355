"""What several benchmarks of training start from: the embedded base model, and the profile of this machine."""

from __future__ import annotations

from pathlib import Path

import yaml

from tunectl.config.schema.hardware import HardwareProfile
from tunectl.config.schema.model import ModelStage

ROOT = Path(__file__).parents[1]


def build_base_model(scratch: Path) -> Path:
    """Return the embedded base model, made by the product's own model stage."""
    from tunectl.pipeline.stages import model as stage_model

    folder = scratch / "model"
    folder.mkdir()
    section = yaml.safe_load((ROOT / "conf/model/smollm2_135m.yaml").read_text())
    stage_model.run(ModelStage.model_validate({"model": section}), stage_model.Inputs(), stage_model.Outputs(folder))
    return folder


def load_cpu_profile() -> HardwareProfile:
    """Return conf/hardware/cpu.yaml."""
    return HardwareProfile.model_validate(yaml.safe_load((ROOT / "conf/hardware/cpu.yaml").read_text()))
