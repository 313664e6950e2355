"""List the optional packages that the stages of a recipe need, before any stage runs.

A missing library would otherwise stop a build after hours, and the next one some stages later. Each rule lists
what its stage imports with the chosen options, and no more: a partial installation of an extra is accepted if it is enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields
from importlib import import_module
from typing import Any

from tunectl.access.signatures import RELEASE_KEY_ENV
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.wiring.launch import TRAINED
from tunectl.core.errors import DataError
from tunectl.core.optional import RequiredPackage
from tunectl.data.readers import file_discovery
from tunectl.pipeline.stages import STAGES, find

Packages = Iterator[tuple[str, str]]
"""Import name and extra."""

READER_PACKAGES = {"html": "trafilatura", "pdf": "pypdf", "docx": "docx", "parquet": "pyarrow", "arrow": "pyarrow"}
"""Library that reads each type of file; other types need none."""
PII = ("phonenumbers", "stdnum", "faker")
"""Packages of the detection of personal data; all are needed, whichever kinds are chosen."""
MODEL = ("torch", "transformers", "peft", "safetensors", "tokenizers", "jinja2")
TRAINER = (*MODEL, "accelerate", "datasets", "trl")
REPORT = ("numpy", "jinja2", "matplotlib")
"""Packages for a report page with plots."""


def list_required_packages(config: Any, stages: Iterable[str]) -> list[RequiredPackage]:
    """Return the optional packages that ``stages`` import; ``config`` is the whole configuration, or that of one stage."""
    return [RequiredPackage(package, extra, name) for name in stages for package, extra in RULES[name](config)]


def list_build_packages(config: Any, targets: Iterable[str] = ()) -> list[RequiredPackage]:
    """Return the packages that ``tunectl repro`` needs for ``targets`` and their inputs; without targets, for all stages."""
    stages = list_upstream_stages(targets)
    result = [RequiredPackage("dvc", "pipeline", "repro"), *list_required_packages(config, stages)]
    if config.serve.trusted_keys_file is not None or RELEASE_KEY_ENV in os.environ:
        result.append(RequiredPackage("cryptography", "sign", "repro"))
    if config.launch.root.method == "ray" and any(_has_method(config, name) for name in TRAINED.intersection(stages)):
        result.append(RequiredPackage("ray", "ray", "launch"))
    if config.curate.engine == "ray" and "curate" in stages:
        result.append(RequiredPackage("ray", "ray", "curate"))
    return result


def _has_method(config: Any, stage: str) -> bool:
    section = getattr(config, stage)
    return bool(getattr(section, "root", section).method != "none")


def list_upstream_stages(targets: Iterable[str]) -> list[str]:
    """Return the names of the targets and of all stages that they read, in the order of the pipeline; all without targets."""
    todo = [name for name in targets if name in RULES]
    if not todo:
        return [stage.name for stage in STAGES]
    result: set[str] = set()
    while todo:
        name = todo.pop()
        if name not in result:
            result.add(name)
            todo += [field.name for field in fields(import_module(find(name).module).Inputs)]
    return [stage.name for stage in STAGES if stage.name in result]


def _extra(extra: str, packages: Iterable[str]) -> Packages:
    return ((package, extra) for package in packages)


def _model(config: Any) -> Packages:
    method = config.model.source.method
    yield from _extra("train", ("transformers", "safetensors", "tokenizers", "jinja2"))
    yield from _extra("train", {"hub": ("huggingface_hub",), "wheel": ("gguf", "torch")}.get(method, ()))


def _ingest(config: Any) -> Packages:
    for name, source in config.ingest.sources.items():
        if source.method == "hub":
            yield "datasets", "train"
            continue
        if source.method == "urls":
            yield from _extra("data", ("httpx", "protego"))
            kinds = {"html"} if source.type == "auto" else {source.type}
        else:
            kinds = _file_kinds(source.path, source.type, f"ingest.sources.{name}.path")
        yield from _readers(kinds)


def _readers(kinds: Iterable[str]) -> Packages:
    return _extra("data", dict.fromkeys(READER_PACKAGES[kind] for kind in sorted(kinds) if kind in READER_PACKAGES))


def _file_kinds(path: str, type_name: str, key: str) -> set[str]:
    """Return the types of the files that a path means; an invalid path is reported by the stage."""
    if type_name != "auto":
        return {type_name}
    try:
        files = file_discovery.glob_files(path, ProjectPaths().root, key)
    except DataError:
        return set()
    return {file_discovery.file_type(file) or "" for file in files}


def _feedback(_config: Any) -> Packages:
    return iter(())


def _curate(config: Any) -> Packages:
    cfg = config.curate
    if cfg.repair is not None and cfg.repair.mojibake:
        yield "ftfy", "data"
    if cfg.language is not None:
        yield "py3langid", "data"
    if cfg.pii is not None:
        yield from _extra("data", PII)
    if cfg.near is not None:
        yield from _extra("data", ("numpy", "scipy"))


def _split(config: Any) -> Packages:
    if config.split.population:
        yield from _extra("data", ("numpy", "scipy"))


def _cpt(config: Any) -> Packages:
    if config.cpt.root.method != "none":
        yield from _extra("train", TRAINER)


def _sft(config: Any) -> Packages:
    yield from _extra("train", TRAINER)
    if config.sft.method == "qlora" or config.sft.optimizer in {"adamw_8bit", "lion"}:
        yield "bitsandbytes", "gpu"
    if config.sft.privacy is not None:
        yield "opacus", "private"


def _preferences(config: Any) -> Packages:
    cfg = config.preferences.root
    if cfg.method == "none":
        return
    yield from _extra("data", ("numpy", "krippendorff"))
    for name, source in cfg.sources.items():
        yield from _readers(_file_kinds(source.path, source.type, f"preferences.sources.{name}.path"))
    if cfg.simulated is not None:
        yield from _extra("train", MODEL)


def _reward(config: Any) -> Packages:
    if config.reward.root.method != "none":
        yield from _extra("train", TRAINER)
        yield from _extra("data", REPORT)


def _align(config: Any) -> Packages:
    cfg = config.align.root
    if cfg.method == "none":
        return
    yield from _extra("train", TRAINER)
    yield from _extra("data", REPORT)
    if cfg.validation.metric.method == "score":
        yield "sacrebleu", "evaluate"
    if getattr(cfg, "vllm", None) is not None and cfg.vllm.mode == "server":
        yield "httpx", "train"
    checks = [term.check for term in (*getattr(cfg, "rewards", ()), cfg.validation.metric) if term.method == "check"]
    if any(check.method == "json_schema" for check in checks):
        yield "jsonschema", "evaluate"


def _evaluate(config: Any) -> Packages:
    cfg = config.evaluate
    yield from _extra("train", MODEL)
    yield from _extra("evaluate", (*REPORT, "bm25s", "rouge_score", "sacrebleu"))
    if any(check.method == "json_schema" for check in cfg.checks):
        yield "jsonschema", "evaluate"
    if cfg.judge is not None:
        yield "httpx", "evaluate"


def _package(config: Any) -> Packages:
    cfg = config.package.root
    if cfg.method == "none":
        return
    yield from _extra("train", MODEL)  # openvino's own libraries are in the exporter's environment
    if cfg.parity.inputs != 0:
        yield from _extra("evaluate", ("numpy", "rouge_score", "sacrebleu"))
    if cfg.bento is not None:
        yield "bentoml", "serve"


RULES: dict[str, Callable[[Any], Packages]] = {
    "model": _model,
    "ingest": _ingest,
    "feedback": _feedback,
    "curate": _curate,
    "split": _split,
    "cpt": _cpt,
    "sft": _sft,
    "preferences": _preferences,
    "reward": _reward,
    "align": _align,
    "evaluate": _evaluate,
    "package": _package,
}
"""Rule of each stage; a test compares the names with the stage table."""
