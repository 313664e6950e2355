"""LLaMA-Factory's settings, as its files name them (``llamafactory-cli train FILE``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunectl.config.foreign import shared
from tunectl.config.foreign.draft import Draft
from tunectl.config.foreign.rules import Rule, convert, lacks, moot, number, one_of, part_of, same, trying, wants, whole

NAME = "LLaMA-Factory"
_FORMATS = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "messages"}


def _targets(value: Any) -> Any:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    return "all-linear" if names in (["all"], ["all-linear"]) else names


def _stage(draft: Draft, key: str, value: Any) -> None:
    if value == "pt":
        draft.groups["adapt"] = "lora"
        draft.drop(key, "further pre-training is the adapt stage here, switched on; its settings keep our values")
    elif value != "sft":
        draft.drop(key, shared.PREFERENCES)


def _template(draft: Draft, key: str, value: Any) -> None:
    name = str(value)
    if name in shared.TEMPLATES:
        draft.set("model.chat_template", shared.TEMPLATES[name])
    else:
        draft.set("model.chat_template", None, f"the model's own; compare it with {name}: tunectl doctor")
        draft.drop(
            key, f"{name} is not one of our named templates, so the model's own is used; tunectl doctor shows it"
        )


def _schedule(draft: Draft, key: str, value: Any) -> None:
    same("sft.schedule", one_of(shared.SCHEDULES, "schedule"))(draft, key, value)


def _save_steps(draft: Draft, key: str, value: Any) -> None:
    if isinstance(value, int) and value >= 1:
        draft.set("sft.checkpoint_steps", value)
    else:
        draft.drop(key, "a share of all steps; tunectl counts steps: sft.checkpoint_steps", "no effect on the result")


def _patience(draft: Draft, key: str, value: Any) -> None:  # noqa: ARG001 - every rule has this form
    if value:
        draft.set("sft.early_stopping", {"patience": whole(value), "least_gain": 0.0})


_SPEED = moot("speed and memory only; tunectl chooses by itself")
_FILES = moot("tunectl keeps artifacts/ and its own caches")
_LOOP = moot("tunectl reports and resumes by itself")

RULES: Mapping[str, Rule] = {
    # model
    "model_name_or_path": part_of("finish"),
    "model_revision": part_of("finish"),
    "trust_remote_code": moot("code that comes with a model is never run"),
    "adapter_name_or_path": lacks("tuning starts from the base model; merge the adapter into it first"),
    "quantization_bit": part_of("finish"),
    "bits": part_of("finish"),
    "quantization_method": wants(["bnb", "bitsandbytes", None], "4-bit tuning uses bitsandbytes"),
    "quantization_type": wants(["nf4"], "4-bit tuning uses nf4"),
    "double_quantization": wants([True], "4-bit tuning uses double quantisation"),
    "rope_scaling": lacks("the context length is the model's own"),
    "shift_attn": lacks("attention is the model's own"),
    "resize_vocab": lacks("the vocabulary is the model's own"),
    "add_tokens": lacks("the vocabulary is the model's own"),
    "add_special_tokens": lacks("the vocabulary is the model's own"),
    "flash_attn": _SPEED,
    "use_unsloth": _SPEED,
    "use_unsloth_gc": _SPEED,
    "enable_liger_kernel": _SPEED,
    "low_cpu_mem_usage": _SPEED,
    "use_fast_tokenizer": _SPEED,
    "upcast_layernorm": _SPEED,
    "cache_dir": _FILES,
    "disable_gradient_checkpointing": same("profile.gradient_checkpointing", lambda value: not value),
    "gradient_checkpointing": same("profile.gradient_checkpointing", bool),
    # method
    "stage": _stage,
    "do_train": part_of("tunectl repro trains"),
    "do_eval": part_of("tunectl repro evaluates"),
    "do_predict": part_of("tunectl repro evaluates"),
    "predict_with_generate": part_of("the evaluate stage generates"),
    "finetuning_type": wants(["lora"], "tunectl tunes low-rank adapters; full, freeze and oft are not offered"),
    "lora_rank": same("sft.rank", whole),
    "lora_alpha": same("sft.alpha", number),
    "lora_dropout": same("sft.dropout", number),
    "lora_target": same("sft.targets", _targets),
    "use_dora": part_of("finish"),
    "use_rslora": part_of("finish"),
    "loraplus_lr_ratio": lacks("LoRA+ is not offered: one learning rate for the whole adapter"),
    "pissa_init": lacks("PiSSA is not offered: adapters start from zero"),
    "additional_target": lacks("only the adapter is trained"),
    "create_new_adapter": part_of("always so"),
    "use_galore": lacks("GaLore is for full tuning"),
    "use_apollo": lacks("APOLLO is for full tuning"),
    "use_badam": lacks("BAdam is for full tuning"),
    "pref_beta": lacks(shared.PREFERENCES),
    "pref_loss": lacks(shared.PREFERENCES),
    "pref_ftx": lacks(shared.PREFERENCES),
    "reward_model": lacks(shared.PREFERENCES),
    # data
    "dataset": part_of("finish"),
    "dataset_dir": part_of("finish"),
    "eval_dataset": lacks("validation and test come from the same sources; give rows a split column instead"),
    "template": _template,
    "cutoff_len": same("sft.max_tokens", whole),
    "max_samples": lacks("rows are not cut off silently; make a smaller file"),
    "train_on_prompt": lacks("only answers are learned from"),
    "mask_history": part_of("finish"),
    "default_system": same("sft.system"),
    "tool_format": moot("tool calls follow the chat template"),
    "mix_strategy": wants(["concat"], "sources are put together, not interleaved"),
    "interleave_probs": lacks("sources are put together; split.balance re-weights to a declared population"),
    "streaming": _SPEED,
    "packing": moot("examples are batched by length instead of packed: no example sees another"),
    "neat_packing": moot("examples are batched by length instead of packed: no example sees another"),
    "overwrite_cache": _FILES,
    "preprocessing_num_workers": _SPEED,
    "preprocessing_batch_size": _SPEED,
    "dataloader_num_workers": _SPEED,
    "tokenized_path": _FILES,
    "val_size": part_of("finish"),
    # output
    "output_dir": _FILES,
    "overwrite_output_dir": _FILES,
    "logging_dir": _FILES,
    "logging_steps": _LOOP,
    "plot_loss": _LOOP,
    "save_steps": _save_steps,
    "save_strategy": _LOOP,
    "save_total_limit": _LOOP,
    "save_only_model": _LOOP,
    "load_best_model_at_end": _LOOP,
    "metric_for_best_model": wants(["eval_loss", "loss"], "the best checkpoint is the one of least validation loss"),
    "resume_from_checkpoint": _LOOP,
    "report_to": shared.trackers,
    "run_name": moot("runs are called after project"),
    "push_to_hub": lacks("nothing is uploaded"),
    "use_swanlab": lacks("SwanLab is not offered; sft.report_to has tensorboard, mlflow and wandb"),
    # training
    "per_device_train_batch_size": part_of("finish"),
    "gradient_accumulation_steps": part_of("finish"),
    "learning_rate": same("sft.learning_rate", number),
    "num_train_epochs": same("sft.epochs", number),
    "max_steps": lacks("training is counted in epochs: sft.epochs"),
    "lr_scheduler_type": _schedule,
    "warmup_ratio": same("sft.warmup", number),
    "warmup_steps": lacks("a number of steps; tunectl takes a share of all steps: sft.warmup"),
    "optim": same("sft.optimiser", one_of(shared.OPTIMISERS, "optimiser")),
    "weight_decay": same("sft.weight_decay", number),
    "max_grad_norm": same("sft.clip", lambda value: number(value) or None),
    "label_smoothing_factor": same("sft.label_smoothing", number),
    "neftune_noise_alpha": same("sft.neftune", lambda value: number(value) if value else None),
    "adam_beta1": wants([0.9], "the optimiser's betas are fixed"),
    "adam_beta2": wants([0.999], "the optimiser's betas are fixed"),
    "seed": same("seed", whole),
    "data_seed": lacks("one seed for all: seed"),
    "bf16": part_of("finish"),
    "fp16": part_of("finish"),
    "pure_bf16": part_of("finish"),
    "ddp_timeout": moot(shared.ONE_MACHINE),
    "deepspeed": lacks(f"{shared.ONE_MACHINE}; DeepSpeed is not used"),
    "fsdp": lacks(f"{shared.ONE_MACHINE}; FSDP is not used"),
    "fsdp_config": lacks(f"{shared.ONE_MACHINE}; FSDP is not used"),
    "ray_run_name": lacks(f"{shared.ONE_MACHINE}; Ray is not used"),
    "ray_num_workers": lacks(f"{shared.ONE_MACHINE}; Ray is not used"),
    # evaluation
    "per_device_eval_batch_size": _SPEED,
    "eval_strategy": _LOOP,
    "evaluation_strategy": _LOOP,
    "eval_steps": moot("validations are counted an epoch: sft.validations"),
    "early_stopping_steps": _patience,
    "compute_accuracy": moot("evaluate reports BLEU, chrF, ROUGE-L and perplexity"),
    "max_new_tokens": same("evaluate.decoding.max_new_tokens", whole),
    "temperature": moot("evaluate compares with evaluate.decoding, greedy by default"),
    "top_p": moot("evaluate compares with evaluate.decoding, greedy by default"),
}
"""Name there to what becomes of it."""


def translate(given: Mapping[str, Any], declared: Mapping[str, Any]) -> Draft:
    """One of their files as a draft; ``declared`` is their ``dataset_info.json``, empty where it was not found."""

    def finish(draft: Draft) -> None:
        _finish(draft, declared)

    return convert({key: value for key, value in given.items() if value is not None}, RULES, finish)


def _finish(draft: Draft, declared: Mapping[str, Any]) -> None:
    given = draft.given
    if given.get("model_name_or_path"):
        shared.base_model(draft, given["model_name_or_path"], given.get("model_revision"))
    bits = given.get("quantization_bit") or given.get("bits")
    if bits and str(bits) != "4":
        draft.drop("quantization_bit", f"{bits} bits are not offered; qlora uses 4")
    four = str(bits) == "4"
    shared.method(draft, dora=bool(given.get("use_dora")), rslora=bool(given.get("use_rslora")), four_bit=four)
    with trying(draft, "per_device_train_batch_size"):
        shared.batch(draft, "per_device_train_batch_size", "gradient_accumulation_steps", 8)
    with trying(draft, "val_size"):
        shared.validation(draft, "val_size")
    draft.set("sft.train_on", "answer" if given.get("mask_history") else "assistant")
    if given.get("bf16") or given.get("pure_bf16"):
        draft.set("profile.dtype", "bfloat16")
    elif given.get("fp16"):
        draft.set("profile.dtype", "auto")
        draft.drop("fp16", "half precision is not offered; auto takes bfloat16 where the machine computes in it")
    rank = draft.values.get("sft.rank", 8)
    usual: dict[str, Any] = {
        "sft.rank": 8,
        "sft.alpha": 2 * rank,
        "sft.dropout": 0.0,
        "sft.targets": "all-linear",
        "sft.epochs": 3.0,
    }
    usual |= {
        "sft.learning_rate": 5e-5,
        "sft.schedule": "linear",
        "sft.warmup": 0.0,
        "sft.max_tokens": 2048,
        "seed": 42,
    }
    shared.defaults(draft, NAME, usual)
    with trying(draft, "dataset"):
        for name in _names(given.get("dataset")):
            _dataset(draft, name, declared.get(name), str(given.get("dataset_dir") or "data"))


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [str(item) for item in value or []]


def _dataset(draft: Draft, name: str, entry: Any, folder: str) -> None:
    """One data set by its entry in ``dataset_info.json``; where there is none, the file must be given."""
    if not isinstance(entry, dict):
        place = shared.source(draft, name, "???", local=True)
        draft.set(f"{place}.path", "???", f"the file of data set {name}; dataset_info.json was not found or lacks it")
        return
    hub = entry.get("hf_hub_url")
    if hub and not entry.get("file_name"):
        place = shared.source(draft, name, str(hub), local=False, revision=entry.get("revision"))
    else:
        place = shared.source(draft, name, f"{folder}/{entry.get('file_name', '???')}", local=True)
    if entry.get("ranking"):
        draft.drop("dataset", f"{name} holds preferences (ranking); {shared.PREFERENCES}")
    for key, ours in (("subset", "subset"), ("split", "split")):
        if hub and entry.get(key):
            draft.set(f"{place}.{ours}", entry[key])
    columns = entry.get("columns") or {}
    formatting = str(entry.get("formatting", "alpaca"))
    if formatting == "alpaca" and columns.get("response"):
        prompts = [columns[key] for key in ("prompt", "query") if columns.get(key)]
        draft.set(f"{place}.format", "columns")
        draft.set(f"{place}.columns.prompt", prompts)
        draft.set(f"{place}.columns.answer", columns["response"])
        if columns.get("system"):
            draft.set(f"{place}.columns.system", columns["system"])
    elif formatting in _FORMATS:
        tags = entry.get("tags") or {}
        by_role = tags.get("role_tag") == "role" or columns.get("messages") == "messages"
        draft.set(f"{place}.format", "messages" if formatting == "sharegpt" and by_role else _FORMATS[formatting])
    else:
        draft.drop("dataset", f"{name} has the format {formatting}, which is not offered")
