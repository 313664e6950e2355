"""Estimate a run: collect the facts about data, model and machine, and compute tokens, memory and minutes of each stage."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.modeling.layer_benchmark import Speed
from tunectl.config.schema.root import TunectlConfig
from tunectl.core import logging_setup
from tunectl.core.errors import ArtifactError, MissingExtraError, UsageError
from tunectl.pipeline import curation_rates
from tunectl.pipeline.cost_estimate import Machine, ModelShape, estimate
from tunectl.training import resource_check

ASSUMED_FLOPS = {"cpu": 200e9, "cuda": 60e12}
"""Speed that is assumed for a layer where torch is not installed yet: two cores with AVX-512, a mid-range card."""
ASSUMED_BYTES_A_PARAMETER = 2
SMALL = resource_check.ModelSize(parameters=135_000_000, layers=30, hidden=576, intermediate=1536, vocabulary=49_152)
"""SmolLM2-135M, whose proportions are used where only a number of parameters is known."""


def estimate_run(layout: ProjectPaths, root: TunectlConfig, *, time_layer: bool = True) -> dict[str, Any]:
    """Return the estimate as plain values: ``stages`` (tokens, memory_gb, minutes, last seconds, basis), their totals, model and machine.

    ``time_layer`` False: no layer of the model is timed, which loads torch; its speed is assumed, that of the last sft run is still used.
    Raises  DataError for a source that is missing or cannot be understood.
    """
    from tunectl.evaluation import safety
    from tunectl.pipeline.dataset_size import estimate_dataset_size

    shape, source = model_size(layout, root)
    fit = resource_check.estimate_memory(
        shape,
        tokens=root.hardware.train_batch_tokens,
        trainable=adapter_parameters(shape, root.sft.lora_rank),
        checkpointing=root.hardware.gradient_checkpointing,
        weight_bytes=0.6 if root.sft.method == "qlora" else 2.0,
    )
    size = ModelShape(shape.parameters, shape.layers, source, _download(root, shape.parameters), fit)
    with logging_setup.mute("tunectl.data"):  # how a file is read is told by ingest
        amounts = estimate_dataset_size(layout, root.ingest)  # before the machine is timed: a source may be missing
    last = _read_seconds(layout)
    machine = _machine(layout, root, shape, last, time_layer=time_layer)
    questions = len(safety.questions(()))
    stage_costs = estimate(root, amounts, size, machine, safety_questions=questions)
    stages = [
        {
            "stage": item.stage,
            "tokens": item.tokens,
            "memory_gb": round(item.memory_bytes / 1e9, 2),
            "minutes": round(item.minutes, 2),
            "last": last.get(item.stage),
            "basis": item.basis,
        }
        for item in stage_costs
    ]
    return {
        "stages": stages,
        "minutes": round(sum(item.minutes for item in stage_costs), 2),
        "memory_gb": round(max(item.memory_bytes for item in stage_costs) / 1e9, 2),
        "model": {"parameters": shape.parameters, "layers": shape.layers, "source": source},
        "curate_engine": curation_rates.describe_break_even(curation_rates.MEASURED),
        "machine": {"layer_seconds": dataclasses.asdict(machine.speed), "source": machine.source},
    }


def model_size(layout: ProjectPaths, root: TunectlConfig) -> tuple[resource_check.ModelSize, str]:
    """Return the shape of the base model, and where it is from: its artifact, its folder, or the number in its name.

    Raises  UsageError where a model that was not downloaded yet has no size in its name.
    """
    contract = layout.artifact("model") / "model_spec.json"
    source = root.model.source
    if contract.is_file() and (contract.parent / "config.json").is_file():
        result: dict[str, Any] = atomic_io.read_json(contract)
        return _shape(contract.parent / "config.json", int(result["parameters"])), "contract"
    if source.method == "folder" and (Path(source.path) / "config.json").is_file():
        weights = sum(file.stat().st_size for file in Path(source.path).glob("*.safetensors"))
        return _shape(Path(source.path) / "config.json", weights // ASSUMED_BYTES_A_PARAMETER), "folder"
    name = {"hub": "repo", "wheel": "file", "folder": "path"}[source.method]
    text = str(getattr(source, name))
    hit = re.search(r"(\d+(?:\.\d+)?)\s*([mb])(?![a-z])", text.lower())
    if hit is None:
        raise UsageError(
            f"model.source.{name} = {text}: the size is not in the name, and the model is not downloaded yet",
            hint="run its stage first: tunectl repro --to model",
        )
    parameters = int(float(hit[1]) * (1e6 if hit[2] == "m" else 1e9))
    return guess_shape(parameters), "name"


def guess_shape(parameters: int) -> resource_check.ModelSize:
    """Return the typical layers and widths of a model with ``parameters`` weights, scaled from those of a small model."""
    growth = (parameters / SMALL.parameters) ** (1 / 3)
    return resource_check.ModelSize(
        parameters=parameters,
        layers=max(1, round(SMALL.layers * growth**0.3)),
        hidden=round(SMALL.hidden * growth**1.3),
        intermediate=round(SMALL.intermediate * growth**1.3),
        vocabulary=SMALL.vocabulary,
    )


def adapter_parameters(shape: resource_check.ModelSize, rank: int) -> int:
    """Return the number of weights of a LoRA adapter of this rank on all linear layers: four of attention, three of the MLP."""
    attention = 4 * 2 * shape.hidden
    mlp = 3 * (shape.hidden + shape.intermediate)
    return shape.layers * rank * (attention + mlp)


def _shape(config: Path, parameters: int) -> resource_check.ModelSize:
    result = json.loads(config.read_text(encoding="utf-8"))
    return resource_check.ModelSize(
        parameters=parameters,
        layers=int(result["num_hidden_layers"]),
        hidden=int(result["hidden_size"]),
        intermediate=int(result.get("intermediate_size") or 4 * result["hidden_size"]),
        vocabulary=int(result["vocab_size"]),
    )


def _download(root: TunectlConfig, parameters: int) -> int:
    """Return the bytes to download: 4.5 bits per weight in a GGUF file of this kind, two bytes in safetensors."""
    method = root.model.source.method
    return 0 if method == "folder" else int(parameters * (0.73 if method == "wheel" else 2))


def _read_seconds(layout: ProjectPaths) -> dict[str, float]:
    """Return the seconds of each stage's last run; stages that were switched off then are left out."""
    from tunectl.pipeline.stages import STAGES

    seconds: dict[str, float] = {}
    for stage in STAGES:
        path = layout.metrics(stage.name)
        if path.is_file() and not (layout.artifact(stage.name) / manifest.PASSED_THROUGH).is_file():
            seconds[stage.name] = float(atomic_io.read_json(path)["seconds"])
    return seconds


def _has_parameters(layout: ProjectPaths, shape: resource_check.ModelSize) -> bool:
    """Return whether the model artifact has as many parameters as ``shape``."""
    contract = layout.artifact("model") / "model_spec.json"
    return contract.is_file() and int(atomic_io.read_json(contract)["parameters"]) == shape.parameters


def _list_stages_of_model(layout: ProjectPaths, stages: Iterable[str]) -> list[str]:
    """Return those of ``stages`` whose artifact was made with the model artifact that is there now."""
    model = _read_manifest(layout.artifact("model"))
    if model is None:
        return []
    digest, records = atomic_io.sha256_json(model), {stage: _read_manifest(layout.artifact(stage)) for stage in stages}
    return [stage for stage, record in records.items() if record is not None and record.inputs.get("model") == digest]


def _read_manifest(folder: Path) -> manifest.Manifest | None:
    """Return the manifest of an artifact; None where it was deleted, or is of another version."""
    try:
        return manifest.read(folder)
    except ArtifactError:
        return None


def _machine(
    layout: ProjectPaths,
    root: TunectlConfig,
    shape: resource_check.ModelSize,
    last: Mapping[str, float],
    *,
    time_layer: bool,
) -> Machine:
    """Return speeds: those of the last run with this model where there is one, else measured now, or assumed.

    ``last``: seconds of each stage's last run, with whatever model.
    """
    seconds: dict[str, float] = {}
    reached: float | None = None
    metrics = layout.metrics("sft")
    if _has_parameters(layout, shape):
        seconds = {stage: last[stage] for stage in _list_stages_of_model(layout, last)}
        result: dict[str, Any] = atomic_io.read_json(metrics) if metrics.is_file() else {}
        reached = float(result["tokens_per_second"]) if result.get("tokens_per_second") else None
    if not time_layer:
        return Machine(_assume_layer_speed(root, shape), "assumed: not timed", reached, seconds)
    from tunectl.backends.modeling.layer_benchmark import layer_speed

    reason = f"assumed: there is no {root.hardware.device} here"
    try:
        speed = layer_speed(
            root.hardware,
            hidden=shape.hidden,
            intermediate=shape.intermediate,
            vocabulary=shape.vocabulary,
            rank=root.sft.lora_rank,
            batch=root.hardware.generate_batch,
        )
    except MissingExtraError:
        speed, reason = None, "assumed: torch is not installed"
    if speed is None:
        return Machine(_assume_layer_speed(root, shape), reason, reached, seconds)
    return Machine(speed, "timed now", reached, seconds)


def _assume_layer_speed(root: TunectlConfig, shape: resource_check.ModelSize) -> Speed:
    """Return a layer's times from an assumed number of operations per second."""
    flops, batch = ASSUMED_FLOPS[root.hardware.device], root.hardware.generate_batch
    weights = 4 * shape.hidden**2 + 3 * shape.hidden * shape.intermediate
    seconds_per_token = 2 * weights / flops
    return Speed(
        learn=2 * seconds_per_token,
        read=seconds_per_token,
        write_one=1e-3,
        write_batch=1e-3 + batch * seconds_per_token,
        batch=batch,
        head=2 * shape.hidden * shape.vocabulary / flops,
    )
