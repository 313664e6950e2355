"""LLaMA-Factory's settings, as its files name them (``llamafactory-cli train FILE``)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunectl.config.loading import foreign_shared
from tunectl.config.loading.foreign_draft import ImportedConfig
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

NAME = "LLaMA-Factory"
_FORMATS = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "messages"}


def _targets(value: Any) -> Any:
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    return "all-linear" if names in (["all"], ["all-linear"]) else names


def _stage(draft: ImportedConfig, key: str, value: Any) -> None:
    if value == "pt":
        draft.groups["cpt"] = "lora"
        draft.drop(key, "further pre-training is the cpt stage here, switched on; its settings keep our values")
    elif value != "sft":
        draft.drop(key, foreign_shared.PREFERENCES)


def _template(draft: ImportedConfig, key: str, value: Any) -> None:
    name = str(value)
    if name in foreign_shared.TEMPLATES:
        draft.set("model.chat_template", foreign_shared.TEMPLATES[name])
    else:
        draft.set("model.chat_template", None, f"the model's own; compare it with {name}: tunectl data inspect")
        draft.drop(
            key, f"{name} is not one of our named templates, so the model's own is used; tunectl data inspect shows it"
        )


def _schedule(draft: ImportedConfig, key: str, value: Any) -> None:
    rename_to("sft.lr_scheduler", one_of(foreign_shared.SCHEDULES, "schedule"))(draft, key, value)


def _save_steps(draft: ImportedConfig, key: str, value: Any) -> None:
    if isinstance(value, int) and value >= 1:
        draft.set("sft.save_steps", value)
    else:
        draft.drop(key, "a share of all steps; tunectl counts steps: sft.save_steps", "no effect on the result")


def _patience(draft: ImportedConfig, key: str, value: Any) -> None:  # noqa: ARG001 - every rule has this form
    if value:
        draft.set("sft.early_stopping", {"patience": to_int(value), "min_delta": 0.0})


_SPEED = drop_irrelevant("speed and memory only; tunectl chooses by itself")
_FILES = drop_irrelevant("tunectl keeps artifacts/ and its own caches")
_LOOP = drop_irrelevant("tunectl reports and resumes by itself")

RULES: Mapping[str, Rule] = {
    # model
    "model_name_or_path": handle_elsewhere("finish"),
    "model_revision": handle_elsewhere("finish"),
    "trust_remote_code": drop_irrelevant("code that comes with a model is never run"),
    "adapter_name_or_path": drop_unsupported("tuning starts from the base model; merge the adapter into it first"),
    "quantization_bit": handle_elsewhere("finish"),
    "bits": handle_elsewhere("finish"),
    "quantization_method": requires_value(["bnb", "bitsandbytes", None], "4-bit tuning uses bitsandbytes"),
    "quantization_type": requires_value(["nf4"], "4-bit tuning uses nf4"),
    "double_quantization": requires_value([True], "4-bit tuning uses double quantisation"),
    "rope_scaling": drop_unsupported("the context length is the model's own"),
    "shift_attn": drop_unsupported("attention is the model's own"),
    "resize_vocab": drop_unsupported("the vocabulary is the model's own"),
    "add_tokens": drop_unsupported("the vocabulary is the model's own"),
    "add_special_tokens": drop_unsupported("the vocabulary is the model's own"),
    "flash_attn": _SPEED,
    "use_unsloth": _SPEED,
    "use_unsloth_gc": _SPEED,
    "enable_liger_kernel": _SPEED,
    "low_cpu_mem_usage": _SPEED,
    "use_fast_tokenizer": _SPEED,
    "upcast_layernorm": _SPEED,
    "cache_dir": _FILES,
    "disable_gradient_checkpointing": rename_to("hardware.gradient_checkpointing", lambda value: not value),
    "gradient_checkpointing": rename_to("hardware.gradient_checkpointing", bool),
    # method
    "stage": _stage,
    "do_train": handle_elsewhere("tunectl repro trains"),
    "do_eval": handle_elsewhere("tunectl repro evaluates"),
    "do_predict": handle_elsewhere("tunectl repro evaluates"),
    "predict_with_generate": handle_elsewhere("the evaluate stage generates"),
    "finetuning_type": requires_value(
        ["lora"], "tunectl tunes low-rank adapters; full, freeze and oft are not offered"
    ),
    "lora_rank": rename_to("sft.lora_rank", to_int),
    "lora_alpha": rename_to("sft.lora_alpha", to_float),
    "lora_dropout": rename_to("sft.lora_dropout", to_float),
    "lora_target": rename_to("sft.target_modules", _targets),
    "use_dora": handle_elsewhere("finish"),
    "use_rslora": handle_elsewhere("finish"),
    "loraplus_lr_ratio": drop_unsupported("LoRA+ is not offered: one learning rate for the whole adapter"),
    "pissa_init": drop_unsupported("PiSSA is not offered: adapters start from zero"),
    "additional_target": drop_unsupported("only the adapter is trained"),
    "create_new_adapter": handle_elsewhere("always so"),
    "use_galore": drop_unsupported("GaLore is for full tuning"),
    "use_apollo": drop_unsupported("APOLLO is for full tuning"),
    "use_badam": drop_unsupported("BAdam is for full tuning"),
    "pref_beta": drop_unsupported(foreign_shared.PREFERENCES),
    "pref_loss": drop_unsupported(foreign_shared.PREFERENCES),
    "pref_ftx": drop_unsupported(foreign_shared.PREFERENCES),
    "reward_model": drop_unsupported(foreign_shared.PREFERENCES),
    # data
    "dataset": handle_elsewhere("finish"),
    "dataset_dir": handle_elsewhere("finish"),
    "eval_dataset": drop_unsupported(
        "validation and test come from the same sources; give rows a split column instead"
    ),
    "template": _template,
    "cutoff_len": rename_to("sft.max_length", to_int),
    "max_samples": drop_unsupported("rows are not cut off silently; make a smaller file"),
    "train_on_prompt": drop_unsupported("only answers are learned from"),
    "mask_history": handle_elsewhere("finish"),
    "default_system": rename_to("sft.system"),
    "tool_format": drop_irrelevant("tool calls follow the chat template"),
    "mix_strategy": requires_value(["concat"], "sources are put together, not interleaved"),
    "interleave_probs": drop_unsupported("sources are put together; split.balance re-weights to a declared population"),
    "streaming": _SPEED,
    "packing": drop_irrelevant("examples are batched by length instead of packed: no example sees another"),
    "neat_packing": drop_irrelevant("examples are batched by length instead of packed: no example sees another"),
    "overwrite_cache": _FILES,
    "preprocessing_num_workers": _SPEED,
    "preprocessing_batch_size": _SPEED,
    "dataloader_num_workers": _SPEED,
    "tokenized_path": _FILES,
    "val_size": handle_elsewhere("finish"),
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
    "metric_for_best_model": requires_value(
        ["eval_loss", "loss"], "the best checkpoint is the one of least validation loss"
    ),
    "resume_from_checkpoint": _LOOP,
    "report_to": foreign_shared.report_to,
    "run_name": drop_irrelevant("runs are called after project"),
    "push_to_hub": drop_unsupported("nothing is uploaded"),
    "use_swanlab": drop_unsupported("SwanLab is not offered; sft.report_to has tensorboard, mlflow and wandb"),
    # training
    "per_device_train_batch_size": handle_elsewhere("finish"),
    "gradient_accumulation_steps": handle_elsewhere("finish"),
    "learning_rate": rename_to("sft.learning_rate", to_float),
    "num_train_epochs": rename_to("sft.epochs", to_float),
    "max_steps": drop_unsupported("training is counted in epochs: sft.epochs"),
    "lr_scheduler_type": _schedule,
    "warmup_ratio": rename_to("sft.warmup_ratio", to_float),
    "warmup_steps": drop_unsupported("a number of steps; tunectl takes a share of all steps: sft.warmup_ratio"),
    "optim": rename_to("sft.optimizer", one_of(foreign_shared.OPTIMIZERS, "optimizer")),
    "weight_decay": rename_to("sft.weight_decay", to_float),
    "max_grad_norm": rename_to("sft.max_grad_norm", lambda value: to_float(value) or None),
    "label_smoothing_factor": rename_to("sft.label_smoothing", to_float),
    "neftune_noise_alpha": rename_to("sft.neftune_noise_alpha", lambda value: to_float(value) if value else None),
    "adam_beta1": requires_value([0.9], "the optimizer's betas are fixed"),
    "adam_beta2": requires_value([0.999], "the optimizer's betas are fixed"),
    "seed": rename_to("seed", to_int),
    "data_seed": drop_unsupported("one seed for all: seed"),
    "bf16": handle_elsewhere("finish"),
    "fp16": handle_elsewhere("finish"),
    "pure_bf16": handle_elsewhere("finish"),
    "ddp_timeout": drop_irrelevant(foreign_shared.ONE_MACHINE),
    "deepspeed": drop_unsupported(f"{foreign_shared.ONE_MACHINE}; DeepSpeed is not used"),
    "fsdp": drop_unsupported(f"{foreign_shared.ONE_MACHINE}; FSDP is not used"),
    "fsdp_config": drop_unsupported(f"{foreign_shared.ONE_MACHINE}; FSDP is not used"),
    "ray_run_name": drop_unsupported(f"{foreign_shared.ONE_MACHINE}; Ray is not used"),
    "ray_num_workers": drop_unsupported(f"{foreign_shared.ONE_MACHINE}; Ray is not used"),
    # evaluation
    "per_device_eval_batch_size": _SPEED,
    "eval_strategy": _LOOP,
    "evaluation_strategy": _LOOP,
    "eval_steps": drop_irrelevant("validations are counted an epoch: sft.evals_per_epoch"),
    "early_stopping_steps": _patience,
    "compute_accuracy": drop_irrelevant("evaluate reports BLEU, chrF, ROUGE-L and perplexity"),
    "max_new_tokens": rename_to("evaluate.decoding.max_new_tokens", to_int),
    "temperature": drop_irrelevant("evaluate compares with evaluate.decoding, greedy by default"),
    "top_p": drop_irrelevant("evaluate compares with evaluate.decoding, greedy by default"),
}
"""Name there to what becomes of it."""


def import_llama_factory(given: Mapping[str, Any], declared: Mapping[str, Any]) -> ImportedConfig:
    """One of their files as a draft; ``declared`` is their ``dataset_info.json``, empty where it was not found."""

    def finish(draft: ImportedConfig) -> None:
        _finish(draft, declared)

    return convert({key: value for key, value in given.items() if value is not None}, RULES, finish)


def _finish(draft: ImportedConfig, declared: Mapping[str, Any]) -> None:
    given = draft.given
    if given.get("model_name_or_path"):
        foreign_shared.base_model(draft, given["model_name_or_path"], given.get("model_revision"))
    bits = given.get("quantization_bit") or given.get("bits")
    if bits and str(bits) != "4":
        draft.drop("quantization_bit", f"{bits} bits are not offered; qlora uses 4")
    four = str(bits) == "4"
    foreign_shared.adapter_method(
        draft, dora=bool(given.get("use_dora")), rslora=bool(given.get("use_rslora")), four_bit=four
    )
    with catch_bad_value(draft, "per_device_train_batch_size"):
        foreign_shared.effective_batch_size(draft, "per_device_train_batch_size", "gradient_accumulation_steps", 8)
    with catch_bad_value(draft, "val_size"):
        foreign_shared.validation(draft, "val_size")
    draft.set("sft.loss_on", "final_answer" if given.get("mask_history") else "assistant")
    if given.get("bf16") or given.get("pure_bf16"):
        draft.set("hardware.dtype", "bfloat16")
    elif given.get("fp16"):
        draft.set("hardware.dtype", "auto")
        draft.drop("fp16", "half precision is not offered; auto takes bfloat16 where the machine computes in it")
    rank = draft.values.get("sft.lora_rank", 8)
    usual: dict[str, Any] = {
        "sft.lora_rank": 8,
        "sft.lora_alpha": 2 * rank,
        "sft.lora_dropout": 0.0,
        "sft.target_modules": "all-linear",
        "sft.epochs": 3.0,
    }
    usual |= {
        "sft.learning_rate": 5e-5,
        "sft.lr_scheduler": "linear",
        "sft.warmup_ratio": 0.0,
        "sft.max_length": 2048,
        "seed": 42,
    }
    foreign_shared.defaults(draft, NAME, usual)
    with catch_bad_value(draft, "dataset"):
        for name in _names(given.get("dataset")):
            _dataset(draft, name, declared.get(name), str(given.get("dataset_dir") or "data"))


def _names(value: Any) -> list[str]:
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return [str(item) for item in value or []]


def _dataset(draft: ImportedConfig, name: str, entry: Any, folder: str) -> None:
    """One data set by its entry in ``dataset_info.json``; where there is none, the file must be given."""
    if not isinstance(entry, dict):
        place = foreign_shared.source(draft, name, "???", local=True)
        draft.set(f"{place}.path", "???", f"the file of data set {name}; dataset_info.json was not found or lacks it")
        return
    hub = entry.get("hf_hub_url")
    if hub and not entry.get("file_name"):
        place = foreign_shared.source(draft, name, str(hub), local=False, revision=entry.get("revision"))
    else:
        place = foreign_shared.source(draft, name, f"{folder}/{entry.get('file_name', '???')}", local=True)
    if entry.get("ranking"):
        draft.drop("dataset", f"{name} holds preferences (ranking); {foreign_shared.PREFERENCES}")
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
