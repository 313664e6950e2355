"""Convert a config file of LLaMA-Factory or Axolotl to settings of tunectl: first key by key, then what depends on several keys."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunectl.config.loading.foreign_keys import PREFERENCES, TOOL, ImportedConfig, Tool, list_rules, to_int

REVISION = "the whole commit hash, 40 digits, from the list of commits of {repo}"
FORMATS: Mapping[Tool, Mapping[str, str]] = {
    "axolotl": {
        "alpaca": "alpaca",
        "chat_template": "messages",
        "sharegpt": "sharegpt",
        "completion": "text",
        "input_output": "segments",
    },
    "llama-factory": {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "messages"},
}
"""Names of prompt types and our formats, where their columns are the same."""
_ALPACA_COLUMNS: Mapping[str, str] = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "system": "system",
    "history": "history",
    "tools": "tools",
}
"""LLaMA-Factory's columns and the usual names of them, by which our format ``alpaca`` reads them."""
_TURN_COLUMNS: Mapping[str, str] = {
    "messages": "messages",
    "conversation": "messages",
    "conversations": "sharegpt",
}
"""Columns of turns, and our format that reads a column of this name."""
_LOCAL = ("/", "./", "../", "~")
_NOT_TEXT = frozenset({"null", "true", "false", "yes", "no", "on", "off"})
"""Names that YAML does not read as text."""


def import_axolotl(foreign: Mapping[str, Any]) -> ImportedConfig:
    """Return the settings that a config file of Axolotl converts to, and those that have no counterpart."""
    draft = _apply_rules(foreign, "axolotl")
    foreign = draft.foreign
    if foreign.get("base_model"):
        _set_base_model(draft, foreign["base_model"], foreign.get("revision_of_model"))
    adapter = foreign.get("adapter")
    if str(adapter) not in {"lora", "qlora"}:
        draft.drop("adapter", "tunectl tunes low-rank adapters; full tuning is not offered")
    four_bit = adapter == "qlora" or bool(foreign.get("load_in_4bit"))
    _set_method(draft, qlora=four_bit, dora=foreign.get("peft_use_dora"), rslora=foreign.get("peft_use_rslora"))
    with draft.catch_bad_value("lora_target_modules"):
        modules = foreign.get("lora_target_modules") or []
        names = [modules] if isinstance(modules, str) else list(modules)
        every = foreign.get("lora_target_linear") or names in (["all-linear"], ["all_linear"])
        if every or names:
            draft.set("sft.target_modules", "all-linear" if every else names)
    with draft.catch_bad_value("micro_batch_size"):
        if foreign.get("batch_size"):
            draft.set("sft.batch_size", to_int(foreign["batch_size"]))
        else:
            _set_batch_size(draft, "micro_batch_size", 1)
    _set_validation(draft, "val_set_size")
    _set_precision(
        draft,
        bfloat16=foreign.get("bf16") is True or foreign.get("bfloat16"),
        half=foreign.get("fp16") or foreign.get("float16"),
    )
    usual = {
        "sft.epochs": 1.0,
        "sft.lr_scheduler": "cosine",
        "sft.max_length": 512,
        "sft.lora_dropout": 0.0,
        "seed": 42,
    }
    _set_defaults(draft, "Axolotl", usual | ({} if "warmup_steps" in foreign else {"sft.warmup_ratio": 0.03}))
    for entry in _to_list(foreign.get("datasets")):
        with draft.catch_bad_value("datasets"):
            _add_axolotl_dataset(draft, entry)
    if foreign.get("pretraining_dataset"):
        draft.groups["cpt"] = "lora"
        draft.drop("pretraining_dataset", "declare its text as a source; the cpt stage, switched on, trains on it")
    return draft


def import_llama_factory(foreign: Mapping[str, Any], datasets_info: Mapping[str, Any]) -> ImportedConfig:
    """Return the settings that a LLaMA-Factory file converts to; ``datasets_info``: its ``dataset_info.json``, empty where not found."""
    draft = _apply_rules(foreign, "llama-factory")
    foreign = draft.foreign
    if foreign.get("model_name_or_path"):
        _set_base_model(draft, foreign["model_name_or_path"], foreign.get("model_revision"))
    bits = foreign.get("quantization_bit") or foreign.get("bits")
    if bits and str(bits) != "4":
        draft.drop("quantization_bit", f"{bits} bits are not offered; qlora uses 4")
    _set_method(draft, qlora=str(bits) == "4", dora=foreign.get("use_dora"), rslora=foreign.get("use_rslora"))
    with draft.catch_bad_value("per_device_train_batch_size"):
        _set_batch_size(draft, "per_device_train_batch_size", 8)
    _set_validation(draft, "val_size")
    draft.set("sft.loss_on", "final_answer" if foreign.get("mask_history") else "assistant")
    _set_precision(draft, bfloat16=foreign.get("bf16") or foreign.get("pure_bf16"), half=foreign.get("fp16"))
    usual: dict[str, Any] = {
        "sft.lora_rank": 8,
        "sft.lora_alpha": 2 * draft.values.get("sft.lora_rank", 8),
        "sft.lora_dropout": 0.0,
        "sft.target_modules": "all-linear",
        "sft.epochs": 3.0,
        "sft.learning_rate": 5e-5,
        "sft.lr_scheduler": "linear",
        "sft.warmup_ratio": 0.0,
        "sft.max_length": 2048,
        "seed": 42,
    }
    _set_defaults(draft, "LLaMA-Factory", usual)
    with draft.catch_bad_value("dataset"):
        names = foreign.get("dataset")
        parts = names.split(",") if isinstance(names, str) else [str(item) for item in names or []]
        for name in filter(None, (part.strip() for part in parts)):
            _add_llama_factory_dataset(draft, name, datasets_info.get(name), str(foreign.get("dataset_dir") or "data"))
    return draft


def _apply_rules(foreign: Mapping[str, Any], tool: Tool) -> ImportedConfig:
    """Apply the rule of each key, in the order of the file; an empty value means: not set."""
    draft = ImportedConfig({key: value for key, value in foreign.items() if value is not None})
    rules = list_rules(tool)
    for key, value in draft.foreign.items():
        rule = rules.get(key)
        if rule is None:
            draft.drop(key, "tunectl does not know this setting; look it up in the other tool's manual", TOOL)
        else:
            with draft.catch_bad_value(key):
                rule.convert(draft, key, value, rule.ours)
    return draft


def _set_base_model(draft: ImportedConfig, name: Any, revision: Any) -> None:
    """Set the base model: a Hub name or a local folder. A branch is not enough: the commit must be given."""
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


def _set_method(draft: ImportedConfig, **switches: Any) -> None:
    """Set our one adapter method from their switches, which can be combined there; the first one that is on wins."""
    methods = [name for name, on in switches.items() if on]
    draft.groups["sft"] = methods[0] if methods else "lora"
    for other in methods[1:]:
        draft.drop(other, f"tunectl does not combine {other} with {methods[0]}")


def _set_precision(draft: ImportedConfig, *, bfloat16: Any, half: Any) -> None:
    if bfloat16:
        draft.set("hardware.dtype", "bfloat16")
    elif half:
        draft.set("hardware.dtype", "auto")
        draft.drop("fp16", "half precision is not offered; auto takes bfloat16 where the machine computes in it")
    elif draft.foreign.get("bf16") == "auto":
        draft.set("hardware.dtype", "auto")


def _set_batch_size(draft: ImportedConfig, each: str, default: int) -> None:
    """Set the answers per optimizer step: their batch per device times accumulated batches."""
    times = "gradient_accumulation_steps"
    size = to_int(draft.foreign.get(each) or default) * to_int(draft.foreign.get(times) or 1)
    is_set = each in draft.foreign or times in draft.foreign
    draft.set("sft.batch_size", size, f"{each} x {times}" if is_set else "their default")


def _set_validation(draft: ImportedConfig, key: str) -> None:
    """Set their validation share; tunectl also holds out a test share of the same size, which they do not have."""
    with draft.catch_bad_value(key):
        value = float(draft.foreign.get(key) or 0)
        if value >= 1:
            draft.drop(key, "a number of rows; tunectl takes shares: split.shares.validation=<0 to 1>")
        elif value >= 0.5:
            draft.drop(key, "validation and an equal test share would leave nothing to train on")
        elif value != 0:
            shares = {"train": round(1 - 2 * value, 6), "validation": value, "test": value}
            draft.set("split.shares", shares, "test: the same share, for the comparison with base and prompts")


def _set_defaults(draft: ImportedConfig, tool: str, values: Mapping[str, Any]) -> None:
    """Write the other tool's default where the file has no value and our default differs."""
    for name, value in values.items():
        if name not in draft.values:
            draft.set(name, value, f"{tool}'s default")


def _to_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _add_source(draft: ImportedConfig, name: str, path: str, *, local: bool, revision: Any = None) -> str:
    """Declare a source; return its dotted key."""
    key = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    if not key or key[0].isdigit() or key in _NOT_TEXT:
        key = f"data_{key}".rstrip("_")
    while key in draft.sources:
        key += "_2"
    key_prefix = f"ingest.sources.{key}"
    draft.groups["ingest"] = "declared"
    draft.sources[key] = "files" if local else "hub"
    if local:
        draft.set(f"{key_prefix}.path", path)
    else:
        draft.set(f"{key_prefix}.id", path)
        pinned = str(revision) if revision and str(revision) != "main" else "???"
        draft.set(f"{key_prefix}.revision", pinned, REVISION.format(repo=path) if pinned == "???" else "")
    draft.set(f"{key_prefix}.holds", "examples")
    return key_prefix


def _add_axolotl_dataset(draft: ImportedConfig, entry: Any) -> None:
    if not isinstance(entry, dict) or not entry.get("path"):
        draft.drop("datasets", f"{entry!r} names no path")
        return
    files, path = entry.get("data_files"), str(entry["path"])
    named = path in {"json", "csv", "parquet", "text", "arrow"} and files
    for item in map(str, _to_list(files)) if named else [path]:
        is_file = item.startswith(_LOCAL) or re.search(r"\.(jsonl?|csv|tsv|parquet|arrow|txt)$", item)
        local = bool(is_file) or bool(entry.get("ds_type"))
        name = item.rstrip("/").rpartition("/")[2].partition(".")[0]
        key_prefix = _add_source(draft, name, item, local=local, revision=entry.get("revision"))
        if not local:
            _set_given(draft, key_prefix, subset=entry.get("name"), split=entry.get("split"))
        _set_axolotl_format(draft, key_prefix, entry)
    if files and not named:
        narrowed = f"data_files of {path}: a Hub data set is read whole; a folder can be narrowed by a glob"
        draft.drop("datasets", narrowed)
    if str(entry.get("type")).partition(":")[0] in {"chat_template", "sharegpt"}:
        draft.set("sft.loss_on", "assistant")
    elif "sft.loss_on" not in draft.values:
        draft.set("sft.loss_on", "final_answer")
    roles = entry.get("roles_to_train")
    if roles and [str(role) for role in roles] not in (["assistant"], ["gpt"]):
        draft.drop("datasets", f"roles_to_train {roles}: only assistant turns are learned from")


def _set_axolotl_format(draft: ImportedConfig, key_prefix: str, entry: Mapping[str, Any]) -> None:
    kind = entry.get("type")
    if isinstance(kind, dict):
        prompts = [kind[key] for key in ("field_instruction", "field_input") if kind.get(key)] or ["instruction"]
        _set_columns(draft, key_prefix, prompts, kind.get("field_output") or "output", kind.get("field_system"))
        if kind.get("format"):
            draft.drop("datasets", f"the prompt format {kind['format']!r}; see {key_prefix}.prompt.template")
        return
    mapped = entry.get("message_property_mappings") or {}
    by_from = mapped.get("role") == "from" or entry.get("field_messages") == "conversations"
    format_ = FORMATS["axolotl"].get(str(kind).partition(":")[0])
    name = "sharegpt" if kind == "chat_template" and by_from else format_
    if name is None:
        draft.drop("datasets", f"type {kind} is not offered; the format of {key_prefix} is found by its columns")
        return
    draft.set(f"{key_prefix}.format", name)
    if name == "text":
        draft.set(f"{key_prefix}.holds", "documents")
        if entry.get("field"):
            draft.set(f"{key_prefix}.format", "columns")
            draft.set(f"{key_prefix}.columns.text", [entry["field"]])


def _set_given(draft: ImportedConfig, key_prefix: str, **values: Any) -> None:
    for name, value in values.items():
        if value:
            draft.set(f"{key_prefix}.{name}", value)


def _set_columns(draft: ImportedConfig, key_prefix: str, prompts: list[Any], answer: Any, system: Any) -> None:
    draft.set(f"{key_prefix}.format", "columns")
    _set_given(draft, f"{key_prefix}.columns", prompt=prompts, answer=answer, system=system)


def _add_llama_factory_dataset(draft: ImportedConfig, name: str, entry: Any, folder: str) -> None:
    """One data set by its entry in ``dataset_info.json``; where there is none, the file must be given."""
    if not isinstance(entry, dict):
        needed = f"the file of data set {name}; dataset_info.json was not found or lacks it"
        draft.set(f"{_add_source(draft, name, '???', local=True)}.path", "???", needed)
        return
    hub = entry.get("hf_hub_url")
    if hub and not entry.get("file_name"):
        key_prefix = _add_source(draft, name, str(hub), local=False, revision=entry.get("revision"))
    else:
        key_prefix = _add_source(draft, name, f"{folder}/{entry.get('file_name', '???')}", local=True)
    if entry.get("ranking"):
        draft.drop("dataset", f"{name} holds preferences (ranking); {PREFERENCES}")
    if hub:
        _set_given(draft, key_prefix, subset=entry.get("subset"), split=entry.get("split"))
    formatting = str(entry.get("formatting", "alpaca"))
    columns = {key: value for key, value in (entry.get("columns") or {}).items() if value}
    if formatting == "alpaca" and "response" in columns:
        _set_alpaca_columns(draft, key_prefix, name, columns)
    elif formatting == "alpaca":
        draft.set(f"{key_prefix}.format", "alpaca")
    elif formatting in FORMATS["llama-factory"]:
        by_role = (entry.get("tags") or {}).get("role_tag") == "role"
        default = "messages" if by_role else FORMATS["llama-factory"][formatting]
        draft.set(f"{key_prefix}.format", _TURN_COLUMNS.get(str(columns.get("messages")), default))
    else:
        draft.drop("dataset", f"{name} has the format {formatting}, which is not offered")


def _set_alpaca_columns(draft: ImportedConfig, key_prefix: str, name: str, columns: Mapping[str, Any]) -> None:
    """Take the format ``alpaca`` where all columns have their usual names; else declare those that can be declared."""
    if columns.keys() >= {"prompt", "query", "response"} and columns.items() <= _ALPACA_COLUMNS.items():
        draft.set(f"{key_prefix}.format", "alpaca")
        return
    prompts = [columns[key] for key in ("prompt", "query") if key in columns]
    _set_columns(draft, key_prefix, prompts, columns["response"], columns.get("system"))
    rest = " and ".join(key for key in ("history", "tools") if key in columns)
    if rest:
        way = f"rename the columns to {', '.join(_ALPACA_COLUMNS.values())}, and set {key_prefix}.format=alpaca"
        draft.drop("dataset", f"{name}: no setting declares a column for {rest}; to have them read, {way}")
