"""What LLaMA-Factory and Axolotl have in common: base models, optimizers, schedules, sources, splits."""

from __future__ import annotations

import re
from typing import Any

from tunectl.config.loading.foreign_draft import NONE, ImportedConfig
from tunectl.config.loading.foreign_rules import to_int

OPTIMIZERS = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "adamw": "adamw",
    "adamw_8bit": "adamw_8bit",
    "adamw_bnb_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_8bit",
    "adafactor": "adafactor",
    "lion": "lion",
    "lion_32bit": "lion",
    "lion_8bit": "lion",
    "paged_lion_8bit": "lion",
    "sgd": "sgd",
}
"""Their optimizers; the fused, paged and 8-bit forms of one rule compute the same up to rounding."""

SCHEDULES = {"constant": "constant", "constant_with_warmup": "constant", "linear": "linear", "cosine": "cosine"}
TRACKERS = frozenset({"tensorboard", "mlflow", "wandb"})
TEMPLATES = {"chatml": "chatml", "llama3": "llama3", "gemma": "gemma", "mistral": "mistral", "zephyr": "zephyr"}
ONE_MACHINE = "tunectl trains on one machine"
PREFERENCES = (
    "only supervised tuning is taken over; preferences are declared in groups of their own: preferences, reward, align"
)
REVISION = "the whole commit hash, 40 digits, from the list of commits of {repo}"
_LOCAL = ("/", "./", "../", "~")


def base_model(draft: ImportedConfig, name: Any, revision: Any) -> None:
    """A Hub name or a local folder. A branch cannot be taken over: the commit must be given."""
    text = str(name)
    if text.startswith(_LOCAL):
        draft.groups["model"] = "folder"
        draft.set("model.source.path", text)
        return
    draft.groups["model"] = "hub"
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        draft.set("model.source.repo", text)
    else:
        draft.set("model.source.repo", "???", f"owner and name of {text}")
    commit = str(revision or "")
    if re.fullmatch(r"[0-9a-f]{40}", commit):
        draft.set("model.source.revision", commit)
    else:
        draft.set("model.source.revision", "???", REVISION.format(repo=text))


def effective_batch_size(draft: ImportedConfig, each: str, times: str, default: int) -> None:
    """Answers of one optimizer step: their batch a device times accumulated batches."""
    size = to_int(draft.given.get(each) or default) * to_int(draft.given.get(times) or 1)
    given = each in draft.given or times in draft.given
    draft.set("sft.batch_size", size, f"{each} x {times}" if given else "their default")


def validation(draft: ImportedConfig, key: str) -> None:
    """Their validation share; tunectl also sets a test share of the same size aside, which they have not."""
    value = float(draft.given.get(key) or 0)
    if value == 0:
        return
    if value >= 1:
        draft.drop(key, "a number of rows; tunectl takes shares: split.shares.validation=<0 to 1>")
    elif value >= 0.5:
        draft.drop(key, "validation and an equal test share would leave nothing to train on")
    else:
        train = round(1 - 2 * value, 6)
        note = "test: the same share, for the comparison with base and prompts"
        draft.set("split.shares", {"train": train, "validation": value, "test": value}, note)


def adapter_method(draft: ImportedConfig, *, dora: bool, rslora: bool, four_bit: bool) -> None:
    """One adapter method of ours for their switches, which can be combined there."""
    wanted = [name for name, on in (("qlora", four_bit), ("dora", dora), ("rslora", rslora)) if on]
    draft.groups["sft"] = wanted[0] if wanted else "lora"
    for other in wanted[1:]:
        draft.drop(other, f"tunectl does not combine {other} with {wanted[0]}")


def defaults(draft: ImportedConfig, tool: str, values: dict[str, Any]) -> None:
    """What their tool does where the file is silent and ours would do something else."""
    for name, value in values.items():
        if name not in draft.values:
            draft.set(name, value, f"{tool}'s default")


def source(draft: ImportedConfig, name: str, path: str, *, local: bool, revision: Any = None) -> str:
    """Declare a source; returns its dotted place."""
    key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_") or "data"
    while key in draft.sources:
        key += "_2"
    place = f"ingest.sources.{key}"
    draft.groups["ingest"] = "declared"
    draft.sources[key] = "files" if local else "hub"
    if local:
        draft.set(f"{place}.path", path)
    else:
        draft.set(f"{place}.id", path)
        pinned = str(revision) if revision and str(revision) != "main" else "???"
        draft.set(f"{place}.revision", pinned, REVISION.format(repo=path) if pinned == "???" else "")
    draft.set(f"{place}.holds", "examples")
    return place


def local_path(text: str) -> bool:
    """Whether a data set's name is a file here, and not a name on the Hub."""
    return text.startswith(_LOCAL) or bool(re.search(r"\.(jsonl?|csv|tsv|parquet|arrow|txt)$", text))


def report_to(draft: ImportedConfig, key: str, value: Any) -> None:
    """Where curves are sent; trackers that tunectl does not know are listed."""
    names = [str(item).lower() for item in (value if isinstance(value, list) else [value]) if item]
    known = sorted({name for name in names if name in TRACKERS} | set(draft.values.get("sft.report_to", [])))
    draft.set("sft.report_to", known)
    for name in names:
        if name not in TRACKERS and name not in {"none", "all"}:
            draft.drop(key, f"{name} is not offered; there are {', '.join(sorted(TRACKERS))}", NONE)
