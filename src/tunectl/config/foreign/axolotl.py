"""Axolotl's settings, as its files name them (``axolotl train FILE``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunectl.config.foreign import shared
from tunectl.config.foreign.draft import NONE, Draft
from tunectl.config.foreign.rules import Rule, convert, lacks, moot, number, one_of, part_of, same, trying, wants, whole

NAME = "Axolotl"
FORMATS = {
    "alpaca": "alpaca",
    "chat_template": "messages",
    "sharegpt": "sharegpt",
    "completion": "text",
    "input_output": "segments",
}
"""Named prompt types to our formats, as far as their columns are the same."""


def _template(draft: Draft, key: str, value: Any) -> None:
    name = str(value)
    if name in shared.TEMPLATES:
        draft.set("model.chat_template", shared.TEMPLATES[name])
    elif name.startswith("tokenizer_default"):
        draft.set("model.chat_template", None, "the model's own")
    elif name != "jinja":
        draft.set("model.chat_template", None, f"the model's own; compare it with {name}: tunectl doctor")
        draft.drop(
            key, f"{name} is not one of our named templates, so the model's own is used; tunectl doctor shows it"
        )


def _jinja(draft: Draft, key: str, value: Any) -> None:
    text = str(value or "")
    if "{" in text or "\n" in text:
        draft.set("model.chat_template", "???", "a file that holds the text of chat_template_jinja")
        draft.drop(key, "put the template into a file, and name that file")
    elif text:
        draft.set("model.chat_template", text)


def _patience(draft: Draft, key: str, value: Any) -> None:  # noqa: ARG001 - every rule has this form
    if value:
        draft.set("sft.early_stopping", {"patience": whole(value), "least_gain": 0.0})


def _end_of_turn(draft: Draft, key: str, value: Any) -> None:
    tokens = [str(item) for item in value or []]
    if tokens:
        draft.set("model.end_of_turn", tokens[0])
    if len(tokens) > 1:
        draft.drop(key, f"one token ends a turn here: {tokens[0]}")


def _special(draft: Draft, key: str, value: Any) -> None:
    names = sorted(name for name, token in (value or {}).items() if token)
    if names:
        draft.drop(key, f"{', '.join(names)}: special tokens are the model's own; padding is masked by length", NONE)


def _tracker(name: str) -> Rule:
    def apply(draft: Draft, key: str, value: Any) -> None:
        if value:
            shared.trackers(draft, key, [name])

    return apply


def _targets(value: Any) -> Any:
    names = [value] if isinstance(value, str) else list(value or [])
    return "all-linear" if names in (["all-linear"], ["all_linear"]) else names


_SPEED = moot("speed and memory only; tunectl chooses by itself")
_FILES = moot("tunectl keeps artifacts/ and its own caches")
_LOOP = moot("tunectl reports and resumes by itself")
_PACKING = moot("examples are batched by length instead of packed: no example sees another")
_VOCABULARY = "the vocabulary is the model's own"
_TWO_CARDS = lacks(f"{shared.ONE_MACHINE}; FSDP and parallel degrees are not used")

RULES: Mapping[str, Rule] = {
    # model
    "base_model": part_of("finish"),
    "revision_of_model": part_of("finish"),
    "base_model_config": moot("the configuration comes with the model"),
    "tokenizer_config": lacks("the tokenizer comes with the model"),
    "model_type": moot("found from the model"),
    "tokenizer_type": moot("found from the model"),
    "tokenizer_use_fast": _SPEED,
    "is_llama_derived_model": moot("found from the model"),
    "is_mistral_derived_model": moot("found from the model"),
    "is_falcon_derived_model": moot("found from the model"),
    "trust_remote_code": moot("code that comes with a model is never run"),
    "strict": moot("tunectl is always strict"),
    "load_in_8bit": lacks("8 bits are not offered; qlora uses 4"),
    "load_in_4bit": part_of("finish"),
    "gptq": lacks("the base model must have plain weights"),
    "chat_template": _template,
    "chat_template_jinja": _jinja,
    "default_system_message": same("sft.system"),
    "special_tokens": _special,
    "eot_tokens": _end_of_turn,
    "tokens": lacks(_VOCABULARY),
    "added_tokens_overrides": lacks(_VOCABULARY),
    "resize_token_embeddings_to_32x": lacks(_VOCABULARY),
    # method
    "adapter": part_of("finish"),
    "lora_model_dir": lacks("tuning starts from the base model; merge the adapter into it first"),
    "lora_r": same("sft.rank", whole),
    "lora_alpha": same("sft.alpha", number),
    "lora_dropout": same("sft.dropout", lambda value: number(value or 0)),
    "lora_target_modules": part_of("finish"),
    "lora_target_linear": part_of("finish"),
    "lora_fan_in_fan_out": moot("found from the model"),
    "lora_modules_to_save": lacks("only the adapter is trained"),
    "peft_use_dora": part_of("finish"),
    "peft_use_rslora": part_of("finish"),
    "peft": lacks("extra settings of peft are not offered"),
    "loraplus_lr_ratio": lacks("LoRA+ is not offered: one learning rate for the whole adapter"),
    "relora_steps": lacks("ReLoRA is not offered"),
    "unfrozen_parameters": lacks("only the adapter is trained"),
    "rl": lacks(shared.PREFERENCES),
    "reward_model": lacks(shared.PREFERENCES),
    "trl": lacks(shared.PREFERENCES),
    "plugins": lacks("code named in a file is never run"),
    # data
    "datasets": part_of("finish"),
    "test_datasets": lacks("validation and test come from the same sources; give rows a split column instead"),
    "pretraining_dataset": part_of("finish"),
    "dataset_prepared_path": _FILES,
    "dataset_processes": _SPEED,
    "shuffle_merged_datasets": part_of("always so"),
    "dataset_exact_deduplication": part_of("curate removes exact duplicates"),
    "push_dataset_to_hub": lacks("nothing is uploaded"),
    "sequence_len": same("sft.max_tokens", whole),
    "min_sample_len": lacks("short answers are judged by curate.quality"),
    "excess_length_strategy": wants(["drop"], "longer examples are rejected as too_long, never cut"),
    "train_on_inputs": lacks("only answers are learned from"),
    "val_set_size": part_of("finish"),
    "sample_packing": _PACKING,
    "eval_sample_packing": _PACKING,
    "sample_packing_sequentially": _PACKING,
    "sample_packing_group_size": _PACKING,
    "sample_packing_bin_size": _PACKING,
    "pad_to_sequence_len": _PACKING,
    "group_by_length": _PACKING,
    # training
    "micro_batch_size": part_of("finish"),
    "gradient_accumulation_steps": part_of("finish"),
    "batch_size": part_of("finish"),
    "eval_batch_size": _SPEED,
    "num_epochs": same("sft.epochs", number),
    "max_steps": lacks("training is counted in epochs: sft.epochs"),
    "optimizer": same("sft.optimiser", one_of(shared.OPTIMISERS, "optimiser")),
    "optim_args": lacks("the optimiser's other settings are fixed"),
    "adam_beta1": wants([0.9], "the optimiser's betas are fixed"),
    "adam_beta2": wants([0.999], "the optimiser's betas are fixed"),
    "adam_epsilon": wants([1e-8], "the optimiser's epsilon is fixed"),
    "lr_scheduler": same("sft.schedule", one_of(shared.SCHEDULES, "schedule")),
    "lr_scheduler_kwargs": lacks("schedules have no further settings"),
    "cosine_min_lr_ratio": lacks("the step size falls to 0"),
    "learning_rate": same("sft.learning_rate", number),
    "warmup_ratio": same("sft.warmup", number),
    "warmup_steps": lacks("a number of steps; tunectl takes a share of all steps: sft.warmup"),
    "weight_decay": same("sft.weight_decay", number),
    "max_grad_norm": same("sft.clip", lambda value: number(value) or None),
    "neftune_noise_alpha": same("sft.neftune", lambda value: number(value) if value else None),
    "noisy_embedding_alpha": same("sft.neftune", lambda value: number(value) if value else None),
    "seed": same("seed", whole),
    "bf16": part_of("finish"),
    "bfloat16": part_of("finish"),
    "fp16": part_of("finish"),
    "float16": part_of("finish"),
    "tf32": _SPEED,
    "fp8": lacks("8-bit floating point is not offered"),
    "gradient_checkpointing": same("profile.gradient_checkpointing", bool),
    "gradient_checkpointing_kwargs": _SPEED,
    "flash_attention": _SPEED,
    "sdp_attention": _SPEED,
    "xformers_attention": _SPEED,
    "flex_attention": _SPEED,
    "eager_attention": _SPEED,
    "attn_implementation": _SPEED,
    "s2_attention": lacks("attention is the model's own"),
    "torch_compile": _SPEED,
    "lora_mlp_kernel": _SPEED,
    "lora_qkv_kernel": _SPEED,
    "lora_o_kernel": _SPEED,
    "unsloth_cross_entropy_loss": _SPEED,
    "dataloader_num_workers": _SPEED,
    "dataloader_pin_memory": _SPEED,
    "dataloader_prefetch_factor": _SPEED,
    "low_cpu_mem_usage": _SPEED,
    "device_map": moot(shared.ONE_MACHINE),
    "local_rank": moot(shared.ONE_MACHINE),
    "ddp_timeout": moot(shared.ONE_MACHINE),
    "deepspeed": lacks(f"{shared.ONE_MACHINE}; DeepSpeed is not used"),
    "fsdp": _TWO_CARDS,
    "fsdp_config": _TWO_CARDS,
    "fsdp_version": _TWO_CARDS,
    "sequence_parallel_degree": _TWO_CARDS,
    "tensor_parallel_size": _TWO_CARDS,
    "context_parallel_size": _TWO_CARDS,
    "use_ray": lacks(f"{shared.ONE_MACHINE}; Ray is not used"),
    # output and evaluation
    "output_dir": _FILES,
    "hub_model_id": lacks("nothing is uploaded"),
    "hub_strategy": part_of("hub_model_id"),
    "logging_steps": _LOOP,
    "evals_per_epoch": same("sft.validations", whole),
    "eval_steps": moot("validations are counted an epoch: sft.validations"),
    "eval_strategy": _LOOP,
    "saves_per_epoch": _LOOP,
    "save_steps": same("sft.checkpoint_steps", whole),
    "save_strategy": _LOOP,
    "save_total_limit": _LOOP,
    "save_safetensors": part_of("always so"),
    "save_only_model": _LOOP,
    "early_stopping_patience": _patience,
    "load_best_model_at_end": _LOOP,
    "loss_watchdog_threshold": moot("a loss that is not finite stops training with a message"),
    "loss_watchdog_patience": moot("a loss that is not finite stops training with a message"),
    "resume_from_checkpoint": _LOOP,
    "auto_resume_from_checkpoints": _LOOP,
    "wandb_project": _tracker("wandb"),
    "wandb_entity": moot("runs are called after project; the rest comes from wandb's own settings"),
    "wandb_name": moot("runs are called after project; the rest comes from wandb's own settings"),
    "wandb_watch": moot("runs are called after project; the rest comes from wandb's own settings"),
    "wandb_log_model": lacks("nothing is uploaded"),
    "mlflow_tracking_uri": _tracker("mlflow"),
    "mlflow_experiment_name": _tracker("mlflow"),
    "use_tensorboard": _tracker("tensorboard"),
    "use_comet": lacks("Comet is not offered; sft.report_to has tensorboard, mlflow and wandb"),
    "debug": _LOOP,
    "eval_table_size": _LOOP,
}
"""Name there to what becomes of it."""


def translate(given: Mapping[str, Any]) -> Draft:
    """One of their files as a draft."""
    filled = {key: value for key, value in given.items() if value is not None}  # an empty line there means: unset
    return convert(filled, RULES, _finish)


def _finish(draft: Draft) -> None:
    given = draft.given
    if given.get("base_model"):
        shared.base_model(draft, given["base_model"], given.get("revision_of_model"))
    adapter = given.get("adapter")
    if str(adapter) not in {"lora", "qlora"}:
        draft.drop("adapter", "tunectl tunes low-rank adapters; full tuning is not offered")
    dora, rslora = bool(given.get("peft_use_dora")), bool(given.get("peft_use_rslora"))
    shared.method(draft, dora=dora, rslora=rslora, four_bit=adapter == "qlora" or bool(given.get("load_in_4bit")))
    if given.get("lora_target_linear"):
        draft.set("sft.targets", "all-linear")
    elif given.get("lora_target_modules"):
        with trying(draft, "lora_target_modules"):
            draft.set("sft.targets", _targets(given["lora_target_modules"]))
    with trying(draft, "micro_batch_size"):
        if given.get("batch_size"):
            draft.set("sft.batch_answers", whole(given["batch_size"]))
        else:
            shared.batch(draft, "micro_batch_size", "gradient_accumulation_steps", 1)
    with trying(draft, "val_set_size"):
        shared.validation(draft, "val_set_size")
    _precision(draft)
    usual: dict[str, Any] = {
        "sft.epochs": 1.0,
        "sft.schedule": "cosine",
        "sft.max_tokens": 512,
        "sft.dropout": 0.0,
        "seed": 42,
    }
    if "warmup_steps" not in given:
        usual["sft.warmup"] = 0.03
    shared.defaults(draft, NAME, usual)
    for entry in _listed(given.get("datasets")):
        with trying(draft, "datasets"):
            _dataset(draft, entry)
    if given.get("pretraining_dataset"):
        draft.groups["adapt"] = "lora"
        draft.drop("pretraining_dataset", "declare its text as a source; the adapt stage, switched on, trains on it")


def _precision(draft: Draft) -> None:
    given = draft.given
    if given.get("bf16") is True or given.get("bfloat16"):
        draft.set("profile.dtype", "bfloat16")
    elif given.get("fp16") or given.get("float16"):
        draft.set("profile.dtype", "auto")
        draft.drop("fp16", "half precision is not offered; auto takes bfloat16 where the machine computes in it")
    elif given.get("bf16") == "auto":
        draft.set("profile.dtype", "auto")


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if value else []


def _dataset(draft: Draft, entry: Any) -> None:
    if not isinstance(entry, dict) or not entry.get("path"):
        draft.drop("datasets", f"{entry!r} names no path")
        return
    files, path = entry.get("data_files"), str(entry["path"])
    named = path in {"json", "csv", "parquet", "text", "arrow"} and files
    for one in map(str, _listed(files)) if named else [path]:
        _source(draft, entry, one)
    if files and not named:
        draft.drop(
            "datasets", f"data_files of {path}: a Hub data set is read whole; a folder can be narrowed by a glob"
        )
    if _is_chat(entry):
        draft.set("sft.train_on", "assistant")
    elif "sft.train_on" not in draft.values:
        draft.set("sft.train_on", "answer")
    roles = entry.get("roles_to_train")
    if roles and [str(role) for role in roles] not in (["assistant"], ["gpt"]):
        draft.drop("datasets", f"roles_to_train {roles}: only assistant turns are learned from")


def _is_chat(entry: Mapping[str, Any]) -> bool:
    return str(entry.get("type")).partition(":")[0] in {"chat_template", "sharegpt"}


def _source(draft: Draft, entry: Mapping[str, Any], path: str) -> None:
    local = shared.local_path(path) or bool(entry.get("ds_type"))
    name = path.rstrip("/").rpartition("/")[2].partition(".")[0]
    place = shared.source(draft, name, path, local=local, revision=entry.get("revision"))
    if not local:
        for theirs, ours in (("name", "subset"), ("split", "split")):
            if entry.get(theirs):
                draft.set(f"{place}.{ours}", entry[theirs])
    _format(draft, place, entry)


def _format(draft: Draft, place: str, entry: Mapping[str, Any]) -> None:
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
