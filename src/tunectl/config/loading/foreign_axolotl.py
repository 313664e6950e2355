"""Axolotl's settings, as its files name them (``axolotl train FILE``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunectl.config.loading import foreign_shared
from tunectl.config.loading.foreign_draft import NONE, ImportedConfig
from tunectl.config.loading.foreign_rules import (
    Rule,
    catch_bad_value,
    convert,
    drop_irrelevant,
    drop_unsupported,
    handle_elsewhere,
    one_of,
    rename_to,
    requires_value,
    to_float,
    to_int,
)

NAME = "Axolotl"
FORMATS = {
    "alpaca": "alpaca",
    "chat_template": "messages",
    "sharegpt": "sharegpt",
    "completion": "text",
    "input_output": "segments",
}
"""Named prompt types to our formats, as far as their columns are the same."""


def _template(draft: ImportedConfig, key: str, value: Any) -> None:
    name = str(value)
    if name in foreign_shared.TEMPLATES:
        draft.set("model.chat_template", foreign_shared.TEMPLATES[name])
    elif name.startswith("tokenizer_default"):
        draft.set("model.chat_template", None, "the model's own")
    elif name != "jinja":
        draft.set("model.chat_template", None, f"the model's own; compare it with {name}: tunectl data inspect")
        draft.drop(
            key, f"{name} is not one of our named templates, so the model's own is used; tunectl data inspect shows it"
        )


def _jinja(draft: ImportedConfig, key: str, value: Any) -> None:
    text = str(value or "")
    if "{" in text or "\n" in text:
        draft.set("model.chat_template", "???", "a file that holds the text of chat_template_jinja")
        draft.drop(key, "put the template into a file, and name that file")
    elif text:
        draft.set("model.chat_template", text)


def _patience(draft: ImportedConfig, key: str, value: Any) -> None:  # noqa: ARG001 - every rule has this form
    if value:
        draft.set("sft.early_stopping", {"patience": to_int(value), "min_delta": 0.0})


def _end_of_turn(draft: ImportedConfig, key: str, value: Any) -> None:
    tokens = [str(item) for item in value or []]
    if tokens:
        draft.set("model.eot_token", tokens[0])
    if len(tokens) > 1:
        draft.drop(key, f"one token ends a turn here: {tokens[0]}")


def _special(draft: ImportedConfig, key: str, value: Any) -> None:
    names = sorted(name for name, token in (value or {}).items() if token)
    if names:
        draft.drop(key, f"{', '.join(names)}: special tokens are the model's own; padding is masked by length", NONE)


def _tracker(name: str) -> Rule:
    def apply(draft: ImportedConfig, key: str, value: Any) -> None:
        if value:
            foreign_shared.report_to(draft, key, [name])

    return apply


def _targets(value: Any) -> Any:
    names = [value] if isinstance(value, str) else list(value or [])
    return "all-linear" if names in (["all-linear"], ["all_linear"]) else names


_SPEED = drop_irrelevant("speed and memory only; tunectl chooses by itself")
_FILES = drop_irrelevant("tunectl keeps artifacts/ and its own caches")
_LOOP = drop_irrelevant("tunectl reports and resumes by itself")
_PACKING = drop_irrelevant("examples are batched by length instead of packed: no example sees another")
_VOCABULARY = "the vocabulary is the model's own"
_TWO_CARDS = drop_unsupported(f"{foreign_shared.ONE_MACHINE}; FSDP and parallel degrees are not used")

RULES: Mapping[str, Rule] = {
    # model
    "base_model": handle_elsewhere("finish"),
    "revision_of_model": handle_elsewhere("finish"),
    "base_model_config": drop_irrelevant("the configuration comes with the model"),
    "tokenizer_config": drop_unsupported("the tokenizer comes with the model"),
    "model_type": drop_irrelevant("found from the model"),
    "tokenizer_type": drop_irrelevant("found from the model"),
    "tokenizer_use_fast": _SPEED,
    "is_llama_derived_model": drop_irrelevant("found from the model"),
    "is_mistral_derived_model": drop_irrelevant("found from the model"),
    "is_falcon_derived_model": drop_irrelevant("found from the model"),
    "trust_remote_code": drop_irrelevant("code that comes with a model is never run"),
    "strict": drop_irrelevant("tunectl is always strict"),
    "load_in_8bit": drop_unsupported("8 bits are not offered; qlora uses 4"),
    "load_in_4bit": handle_elsewhere("finish"),
    "gptq": drop_unsupported("the base model must have plain weights"),
    "chat_template": _template,
    "chat_template_jinja": _jinja,
    "default_system_message": rename_to("sft.system"),
    "special_tokens": _special,
    "eot_tokens": _end_of_turn,
    "tokens": drop_unsupported(_VOCABULARY),
    "added_tokens_overrides": drop_unsupported(_VOCABULARY),
    "resize_token_embeddings_to_32x": drop_unsupported(_VOCABULARY),
    # method
    "adapter": handle_elsewhere("finish"),
    "lora_model_dir": drop_unsupported("tuning starts from the base model; merge the adapter into it first"),
    "lora_r": rename_to("sft.lora_rank", to_int),
    "lora_alpha": rename_to("sft.lora_alpha", to_float),
    "lora_dropout": rename_to("sft.lora_dropout", lambda value: to_float(value or 0)),
    "lora_target_modules": handle_elsewhere("finish"),
    "lora_target_linear": handle_elsewhere("finish"),
    "lora_fan_in_fan_out": drop_irrelevant("found from the model"),
    "lora_modules_to_save": drop_unsupported("only the adapter is trained"),
    "peft_use_dora": handle_elsewhere("finish"),
    "peft_use_rslora": handle_elsewhere("finish"),
    "peft": drop_unsupported("extra settings of peft are not offered"),
    "loraplus_lr_ratio": drop_unsupported("LoRA+ is not offered: one learning rate for the whole adapter"),
    "relora_steps": drop_unsupported("ReLoRA is not offered"),
    "unfrozen_parameters": drop_unsupported("only the adapter is trained"),
    "rl": drop_unsupported(foreign_shared.PREFERENCES),
    "reward_model": drop_unsupported(foreign_shared.PREFERENCES),
    "trl": drop_unsupported(foreign_shared.PREFERENCES),
    "plugins": drop_unsupported("code named in a file is never run"),
    # data
    "datasets": handle_elsewhere("finish"),
    "test_datasets": drop_unsupported(
        "validation and test come from the same sources; give rows a split column instead"
    ),
    "pretraining_dataset": handle_elsewhere("finish"),
    "dataset_prepared_path": _FILES,
    "dataset_processes": _SPEED,
    "shuffle_merged_datasets": handle_elsewhere("always so"),
    "dataset_exact_deduplication": handle_elsewhere("curate removes exact duplicates"),
    "push_dataset_to_hub": drop_unsupported("nothing is uploaded"),
    "sequence_len": rename_to("sft.max_length", to_int),
    "min_sample_len": drop_unsupported("short answers are judged by curate.quality"),
    "excess_length_strategy": requires_value(["drop"], "longer examples are rejected as too_long, never cut"),
    "train_on_inputs": drop_unsupported("only answers are learned from"),
    "val_set_size": handle_elsewhere("finish"),
    "sample_packing": _PACKING,
    "eval_sample_packing": _PACKING,
    "sample_packing_sequentially": _PACKING,
    "sample_packing_group_size": _PACKING,
    "sample_packing_bin_size": _PACKING,
    "pad_to_sequence_len": _PACKING,
    "group_by_length": _PACKING,
    # training
    "micro_batch_size": handle_elsewhere("finish"),
    "gradient_accumulation_steps": handle_elsewhere("finish"),
    "batch_size": handle_elsewhere("finish"),
    "eval_batch_size": _SPEED,
    "num_epochs": rename_to("sft.epochs", to_float),
    "max_steps": drop_unsupported("training is counted in epochs: sft.epochs"),
    "optimizer": rename_to("sft.optimizer", one_of(foreign_shared.OPTIMIZERS, "optimizer")),
    "optim_args": drop_unsupported("the optimizer's other settings are fixed"),
    "adam_beta1": requires_value([0.9], "the optimizer's betas are fixed"),
    "adam_beta2": requires_value([0.999], "the optimizer's betas are fixed"),
    "adam_epsilon": requires_value([1e-8], "the optimizer's epsilon is fixed"),
    "lr_scheduler": rename_to("sft.lr_scheduler", one_of(foreign_shared.SCHEDULES, "schedule")),
    "lr_scheduler_kwargs": drop_unsupported("schedules have no further settings"),
    "cosine_min_lr_ratio": drop_unsupported("the step size falls to 0"),
    "learning_rate": rename_to("sft.learning_rate", to_float),
    "warmup_ratio": rename_to("sft.warmup_ratio", to_float),
    "warmup_steps": drop_unsupported("a number of steps; tunectl takes a share of all steps: sft.warmup_ratio"),
    "weight_decay": rename_to("sft.weight_decay", to_float),
    "max_grad_norm": rename_to("sft.max_grad_norm", lambda value: to_float(value) or None),
    "neftune_noise_alpha": rename_to("sft.neftune_noise_alpha", lambda value: to_float(value) if value else None),
    "noisy_embedding_alpha": rename_to("sft.neftune_noise_alpha", lambda value: to_float(value) if value else None),
    "seed": rename_to("seed", to_int),
    "bf16": handle_elsewhere("finish"),
    "bfloat16": handle_elsewhere("finish"),
    "fp16": handle_elsewhere("finish"),
    "float16": handle_elsewhere("finish"),
    "tf32": _SPEED,
    "fp8": drop_unsupported("8-bit floating point is not offered"),
    "gradient_checkpointing": rename_to("hardware.gradient_checkpointing", bool),
    "gradient_checkpointing_kwargs": _SPEED,
    "flash_attention": _SPEED,
    "sdp_attention": _SPEED,
    "xformers_attention": _SPEED,
    "flex_attention": _SPEED,
    "eager_attention": _SPEED,
    "attn_implementation": _SPEED,
    "s2_attention": drop_unsupported("attention is the model's own"),
    "torch_compile": _SPEED,
    "lora_mlp_kernel": _SPEED,
    "lora_qkv_kernel": _SPEED,
    "lora_o_kernel": _SPEED,
    "unsloth_cross_entropy_loss": _SPEED,
    "dataloader_num_workers": _SPEED,
    "dataloader_pin_memory": _SPEED,
    "dataloader_prefetch_factor": _SPEED,
    "low_cpu_mem_usage": _SPEED,
    "device_map": drop_irrelevant(foreign_shared.ONE_MACHINE),
    "local_rank": drop_irrelevant(foreign_shared.ONE_MACHINE),
    "ddp_timeout": drop_irrelevant(foreign_shared.ONE_MACHINE),
    "deepspeed": drop_unsupported(f"{foreign_shared.ONE_MACHINE}; DeepSpeed is not used"),
    "fsdp": _TWO_CARDS,
    "fsdp_config": _TWO_CARDS,
    "fsdp_version": _TWO_CARDS,
    "sequence_parallel_degree": _TWO_CARDS,
    "tensor_parallel_size": _TWO_CARDS,
    "context_parallel_size": _TWO_CARDS,
    "use_ray": drop_unsupported(f"{foreign_shared.ONE_MACHINE}; Ray is not used"),
    # output and evaluation
    "output_dir": _FILES,
    "hub_model_id": drop_unsupported("nothing is uploaded"),
    "hub_strategy": handle_elsewhere("hub_model_id"),
    "logging_steps": _LOOP,
    "evals_per_epoch": rename_to("sft.evals_per_epoch", to_int),
    "eval_steps": drop_irrelevant("validations are counted an epoch: sft.evals_per_epoch"),
    "eval_strategy": _LOOP,
    "saves_per_epoch": _LOOP,
    "save_steps": rename_to("sft.save_steps", to_int),
    "save_strategy": _LOOP,
    "save_total_limit": _LOOP,
    "save_safetensors": handle_elsewhere("always so"),
    "save_only_model": _LOOP,
    "early_stopping_patience": _patience,
    "load_best_model_at_end": _LOOP,
    "loss_watchdog_threshold": drop_irrelevant("a loss that is not finite stops training with a message"),
    "loss_watchdog_patience": drop_irrelevant("a loss that is not finite stops training with a message"),
    "resume_from_checkpoint": _LOOP,
    "auto_resume_from_checkpoints": _LOOP,
    "wandb_project": _tracker("wandb"),
    "wandb_entity": drop_irrelevant("runs are called after project; the rest comes from wandb's own settings"),
    "wandb_name": drop_irrelevant("runs are called after project; the rest comes from wandb's own settings"),
    "wandb_watch": drop_irrelevant("runs are called after project; the rest comes from wandb's own settings"),
    "wandb_log_model": drop_unsupported("nothing is uploaded"),
    "mlflow_tracking_uri": _tracker("mlflow"),
    "mlflow_experiment_name": _tracker("mlflow"),
    "use_tensorboard": _tracker("tensorboard"),
    "use_comet": drop_unsupported("Comet is not offered; sft.report_to has tensorboard, mlflow and wandb"),
    "debug": _LOOP,
    "eval_table_size": _LOOP,
}
"""Name there to what becomes of it."""


def import_axolotl(given: Mapping[str, Any]) -> ImportedConfig:
    """One of their files as a draft."""
    filled = {key: value for key, value in given.items() if value is not None}  # an empty line there means: unset
    return convert(filled, RULES, _finish)


def _finish(draft: ImportedConfig) -> None:
    given = draft.given
    if given.get("base_model"):
        foreign_shared.base_model(draft, given["base_model"], given.get("revision_of_model"))
    adapter = given.get("adapter")
    if str(adapter) not in {"lora", "qlora"}:
        draft.drop("adapter", "tunectl tunes low-rank adapters; full tuning is not offered")
    dora, rslora = bool(given.get("peft_use_dora")), bool(given.get("peft_use_rslora"))
    foreign_shared.adapter_method(
        draft, dora=dora, rslora=rslora, four_bit=adapter == "qlora" or bool(given.get("load_in_4bit"))
    )
    if given.get("lora_target_linear"):
        draft.set("sft.target_modules", "all-linear")
    elif given.get("lora_target_modules"):
        with catch_bad_value(draft, "lora_target_modules"):
            draft.set("sft.target_modules", _targets(given["lora_target_modules"]))
    with catch_bad_value(draft, "micro_batch_size"):
        if given.get("batch_size"):
            draft.set("sft.batch_size", to_int(given["batch_size"]))
        else:
            foreign_shared.effective_batch_size(draft, "micro_batch_size", "gradient_accumulation_steps", 1)
    with catch_bad_value(draft, "val_set_size"):
        foreign_shared.validation(draft, "val_set_size")
    _precision(draft)
    usual: dict[str, Any] = {
        "sft.epochs": 1.0,
        "sft.lr_scheduler": "cosine",
        "sft.max_length": 512,
        "sft.lora_dropout": 0.0,
        "seed": 42,
    }
    if "warmup_steps" not in given:
        usual["sft.warmup_ratio"] = 0.03
    foreign_shared.defaults(draft, NAME, usual)
    for entry in _to_list(given.get("datasets")):
        with catch_bad_value(draft, "datasets"):
            _dataset(draft, entry)
    if given.get("pretraining_dataset"):
        draft.groups["cpt"] = "lora"
        draft.drop("pretraining_dataset", "declare its text as a source; the cpt stage, switched on, trains on it")


def _precision(draft: ImportedConfig) -> None:
    given = draft.given
    if given.get("bf16") is True or given.get("bfloat16"):
        draft.set("hardware.dtype", "bfloat16")
    elif given.get("fp16") or given.get("float16"):
        draft.set("hardware.dtype", "auto")
        draft.drop("fp16", "half precision is not offered; auto takes bfloat16 where the machine computes in it")
    elif given.get("bf16") == "auto":
        draft.set("hardware.dtype", "auto")


def _to_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _dataset(draft: ImportedConfig, entry: Any) -> None:
    if not isinstance(entry, dict) or not entry.get("path"):
        draft.drop("datasets", f"{entry!r} names no path")
        return
    files, path = entry.get("data_files"), str(entry["path"])
    named = path in {"json", "csv", "parquet", "text", "arrow"} and files
    for one in map(str, _to_list(files)) if named else [path]:
        _source(draft, entry, one)
    if files and not named:
        draft.drop(
            "datasets", f"data_files of {path}: a Hub data set is read whole; a folder can be narrowed by a glob"
        )
    if _is_chat(entry):
        draft.set("sft.loss_on", "assistant")
    elif "sft.loss_on" not in draft.values:
        draft.set("sft.loss_on", "final_answer")
    roles = entry.get("roles_to_train")
    if roles and [str(role) for role in roles] not in (["assistant"], ["gpt"]):
        draft.drop("datasets", f"roles_to_train {roles}: only assistant turns are learned from")


def _is_chat(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("type")).partition(":")[0] in {"chat_template", "sharegpt"}


def _source(draft: ImportedConfig, entry: Mapping[str, Any], path: str) -> None:
    local = foreign_shared.local_path(path) or bool(entry.get("ds_type"))
    name = path.rstrip("/").rpartition("/")[2].partition(".")[0]
    place = foreign_shared.source(draft, name, path, local=local, revision=entry.get("revision"))
    if not local:
        for theirs, ours in (("name", "subset"), ("split", "split")):
            if entry.get(theirs):
                draft.set(f"{place}.{ours}", entry[theirs])
    _format(draft, place, entry)


def _format(draft: ImportedConfig, place: str, entry: Mapping[str, Any]) -> None:
    kind = entry.get("type")
    if isinstance(kind, dict):
        prompts = [kind[key] for key in ("field_instruction", "field_input") if kind.get(key)]
        draft.set(f"{place}.format", "columns")
        draft.set(f"{place}.columns.prompt", prompts or ["instruction"])
        draft.set(f"{place}.columns.answer", kind.get("field_output") or "output")
        if kind.get("field_system"):
            draft.set(f"{place}.columns.system", kind["field_system"])
        if kind.get("format"):
            draft.drop("datasets", f"the prompt format {kind['format']!r}; see {place}.prompt.template")
        return
    mapped = entry.get("message_property_mappings") or {}
    by_from = mapped.get("role") == "from" or entry.get("field_messages") == "conversations"
    name = "sharegpt" if kind == "chat_template" and by_from else FORMATS.get(str(kind).partition(":")[0])
    if name is None:
        draft.drop("datasets", f"type {kind} is not offered; the format of {place} is found by its columns")
        return
    draft.set(f"{place}.format", name)
    if name == "text":
        draft.set(f"{place}.holds", "documents")
        if entry.get("field"):
            draft.set(f"{place}.format", "columns")
            draft.set(f"{place}.columns.text", [entry["field"]])
