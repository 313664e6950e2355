"""Table of the settings of LLaMA-Factory and Axolotl with their counterparts in tunectl, and the conversions that it names.

Names and meanings are those of ``llamafactory-cli train FILE`` and ``axolotl train FILE``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

Tool = Literal["axolotl", "llama-factory"]
EFFECT, NONE, TOOL = "changes the result", "no effect on the result", "unknown to tunectl"
"""How much a setting without a counterpart matters."""
OFF: Final[tuple[Any, ...]] = (None, False, "", [], {}, "none", 0)
"""Values that switch a setting off: such a setting is not listed."""


class UnsupportedKey(NamedTuple):
    """A setting of the other tool that could not be carried over: its value, and why."""

    key: str
    value: Any
    matters: str
    """One of ``EFFECT``, ``NONE``, ``TOOL``."""
    reason: str


@dataclass(slots=True)
class ImportedConfig:
    """Result of an import while it is built: settings, comments, and keys that could not be carried over."""

    foreign: Mapping[str, Any]
    """Settings of the other tool's file."""
    groups: dict[str, str] = field(default_factory=dict)
    """Chosen file of each group, for example ``sft: dora``."""
    values: dict[str, Any] = field(default_factory=dict)
    """Our settings by dotted key."""
    notes: dict[str, str] = field(default_factory=dict)
    """Comments by dotted key."""
    sources: dict[str, str] = field(default_factory=dict)
    """Base of each source: ``files`` or ``hub``."""
    dropped: list[UnsupportedKey] = field(default_factory=list)

    def set(self, name: str, value: Any, note: str = "") -> None:
        """Set the dotted setting ``name`` of tunectl; ``note`` becomes a comment beside it.

        A value with ``${...}`` is listed as not carried over: it would be read as a reference to another setting of the project.
        """
        if "${" in str(value):
            self.dropped.append(UnsupportedKey(name, value, EFFECT, "${...} would be read as another setting of yours"))
            return
        self.values[name] = value
        if note:
            self.notes[name] = note

    def drop(self, key: str, reason: str, matters: str = EFFECT) -> None:
        """List the other tool's setting ``key`` as not carried over; ``matters``: whether that changes the result."""
        self.dropped.append(UnsupportedKey(key, self.foreign.get(key), matters, reason))

    @contextmanager
    def catch_bad_value(self, key: str) -> Iterator[None]:
        """List ``key`` as not converted if the block fails because its value has an unexpected type."""
        try:
            yield
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError) as error:
            self.drop(key, f"the value cannot be understood: {error}")


Conversion = Callable[[ImportedConfig, str, Any, str], None]
"""Converts one setting: (import so far, the other tool's key, its value, tunectl's key or the reason why there is none)."""


class ForeignKey(NamedTuple):
    """One setting of LLaMA-Factory and Axolotl, its counterpart in tunectl, and the conversion of its value."""

    axolotl: str
    """Names in Axolotl, separated by blanks; empty where it has none."""
    llama_factory: str
    ours: str
    """Our dotted setting, or why there is none."""
    convert: Conversion


# Conversions without a value of ours: the third column is the reason.


def skip(*_: Any) -> None:
    """Do nothing: the setting is converted together with others (``foreign_import``), or describes what tunectl always does."""


def drop_effective(draft: ImportedConfig, key: str, value: Any, reason: str) -> None:
    """List ``key``, which has no counterpart, as not carried over, unless ``value`` switches it off; its loss changes the result."""
    if value not in OFF:
        draft.drop(key, reason)


def drop_harmless(draft: ImportedConfig, key: str, _: Any, reason: str) -> None:
    """List ``key``, which has no counterpart, as not carried over; its loss does not change the result."""
    draft.drop(key, reason, NONE)


def require(*allowed: Any) -> Conversion:
    """Return a conversion that lists a setting as unsupported unless its value is among ``allowed``, which tunectl does anyway."""

    def check(draft: ImportedConfig, key: str, value: Any, reason: str) -> None:
        if value not in allowed:
            draft.drop(key, reason)

    return check


# Conversions to a value of ours: the third column is its key.


def convert(function: Callable[[Any], Any]) -> Conversion:
    """Return a conversion that sets ``function(value)``; a ValueError of it is the reason why the value cannot be converted."""

    def apply(draft: ImportedConfig, key: str, value: Any, own_key: str) -> None:
        try:
            draft.set(own_key, function(value))
        except (ValueError, TypeError, OverflowError) as error:
            draft.drop(key, str(error))

    return apply


def look_up(table: Mapping[str, str], description: str) -> Conversion:
    """Return a conversion by ``table``: our value to the other tool's names, separated by blanks; a refusal names the ``description``."""

    def find(value: Any) -> str:
        for ours, theirs in table.items():
            if str(value).lower() in theirs.split():
                return ours
        raise ValueError(f"{description} {value} is not offered; there are {', '.join(sorted(table))}")

    return convert(find)


def to_int(value: Any) -> int:
    """Return an integer, also where YAML read it as text. Raises  ValueError for a fraction and for infinity."""
    if not float(value).is_integer():
        raise ValueError(f"{value} is not a whole number")
    return int(float(value))


def split_targets(value: Any) -> Any:
    """Return LLaMA-Factory's ``lora_target`` as a list of module names, from a list or names separated by commas."""
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    return "all-linear" if names in (["all"], ["all-linear"]) else names


def set_template(draft: ImportedConfig, key: str, value: Any, own_key: str) -> None:
    """Set a chat template by its name, or the model's own where tunectl has none of that name."""
    name = str(value)
    if name in TEMPLATES:
        draft.set(own_key, name)
    elif name.startswith("tokenizer_default") and key == "chat_template":
        draft.set(own_key, None, "the model's own")
    elif name != "jinja" or key != "chat_template":
        draft.set(own_key, None, f"the model's own; compare it with {name}: tunectl data inspect")
        draft.drop(
            key, f"{name} is not one of our named templates, so the model's own is used; tunectl data inspect shows it"
        )


def set_template_text(draft: ImportedConfig, key: str, value: Any, own_key: str) -> None:
    """Set a chat template given as text, which must become a file; a path is used unchanged."""
    text = str(value or "")
    if "{" in text or "\n" in text:
        draft.set(own_key, "???", "a file that holds the text of chat_template_jinja")
        draft.drop(key, "put the template into a file, and name that file")
    elif text:
        draft.set(own_key, text)


def set_stage(draft: ImportedConfig, key: str, value: Any, _: str) -> None:
    """Convert LLaMA-Factory's ``stage``: ``pt`` becomes the section cpt, ``sft`` is kept, others are unsupported."""
    if value == "pt":
        draft.groups["cpt"] = "lora"
        draft.drop(key, "further pre-training is the cpt stage here, switched on; its settings keep our values")
    elif value != "sft":
        draft.drop(key, PREFERENCES)


def set_save_steps(draft: ImportedConfig, key: str, value: Any, own_key: str) -> None:
    """Set the steps between checkpoints from LLaMA-Factory's ``save_steps``; a share of all steps is not carried over."""
    if isinstance(value, int) and value >= 1:
        draft.set(own_key, value)
    else:
        draft.drop(key, "a share of all steps; tunectl counts steps: sft.save_steps", NONE)


def set_patience(draft: ImportedConfig, _: str, value: Any, own_key: str) -> None:
    """Set early stopping after ``value`` validations without improvement."""
    if value:
        draft.set(own_key, {"patience": to_int(value), "min_delta": 0.0})


def set_end_of_turn(draft: ImportedConfig, key: str, value: Any, own_key: str) -> None:
    """Set the end-of-turn token, of which tunectl has one."""
    tokens = [str(item) for item in value or []]
    if tokens:
        draft.set(own_key, tokens[0])
    if len(tokens) > 1:
        draft.drop(key, f"one token ends a turn here: {tokens[0]}")


def drop_special_tokens(draft: ImportedConfig, key: str, value: Any, _: str) -> None:
    """List special tokens as not carried over: those of the model are used."""
    names = sorted(name for name, token in (value or {}).items() if token)
    if names:
        draft.drop(key, f"{', '.join(names)}: special tokens are the model's own; padding is masked by length", NONE)


def report_to(draft: ImportedConfig, key: str, value: Any, own_key: str) -> None:
    """Set the experiment trackers; those that tunectl does not know are listed as unsupported."""
    if key != "report_to" and not value:
        return
    trackers = value if key == "report_to" else key.removeprefix("use_").partition("_")[0]
    names = [str(item).lower() for item in (trackers if isinstance(trackers, list) else [trackers]) if item]
    draft.set(own_key, sorted({*TRACKERS} & {*names} | {*draft.values.get(own_key, [])}))
    for name in names:
        if name == "tensorboard":
            draft.drop(key, "curves are in artifacts/plots/*/history.csv, and dvc plots draws them", NONE)
        elif name not in {*TRACKERS, "none", "all"}:
            draft.drop(key, f"{name} is not offered; there are {', '.join(TRACKERS)}", NONE)


OPTIMIZERS = {
    "adamw": "adamw adamw_torch adamw_torch_fused adamw_hf",
    "adamw_8bit": "adamw_8bit adamw_bnb_8bit paged_adamw_8bit",
    "adafactor": "adafactor",
    "lion": "lion lion_32bit lion_8bit paged_lion_8bit",
    "sgd": "sgd",
}
"""Our optimizers and the names that they have there; the fused, paged and 8-bit variants compute the same up to rounding."""
SCHEDULES = {"constant": "constant constant_with_warmup", "linear": "linear", "cosine": "cosine"}
TEMPLATES = frozenset({"chatml", "llama3", "gemma", "mistral", "zephyr"})
TRACKERS = ("mlflow", "wandb")
PREFERENCES = (
    "only supervised tuning is taken over; preferences are declared in groups of their own: preferences, reward, align"
)
FILES = "tunectl keeps artifacts/ and its own caches"
UPLOAD = "nothing is uploaded"
LAUNCH = "several processes are declared with launch=torchrun or launch=ray"


KEYS: tuple[ForeignKey, ...] = (
    # model
    ForeignKey("base_model revision_of_model", "model_name_or_path model_revision", "model.source", skip),
    ForeignKey("base_model_config", "", "the configuration comes with the model", drop_harmless),
    ForeignKey("tokenizer_config", "", "the tokenizer comes with the model", drop_effective),
    ForeignKey("model_type tokenizer_type is_llama_derived_model is_mistral_derived_model is_falcon_derived_model", "", "found from the model", drop_harmless),
    ForeignKey("trust_remote_code", "trust_remote_code", "code that comes with a model is never run", drop_harmless),
    ForeignKey("strict", "", "tunectl is always strict", drop_harmless),
    ForeignKey("load_in_8bit", "", "8 bits are not offered; qlora uses 4", drop_effective),
    ForeignKey("load_in_4bit adapter", "quantization_bit bits", "sft=qlora", skip),
    ForeignKey("gptq", "", "the base model must have plain weights", drop_effective),
    ForeignKey("", "quantization_method", "4-bit tuning uses bitsandbytes", require("bnb", "bitsandbytes", None)),
    ForeignKey("", "quantization_type", "4-bit tuning uses nf4", require("nf4")),
    ForeignKey("", "double_quantization", "4-bit tuning uses double quantization", require(True)),
    ForeignKey("", "rope_scaling", "the context length is the model's own", drop_effective),
    ForeignKey("s2_attention", "shift_attn", "attention is the model's own", drop_effective),
    ForeignKey("chat_template", "template", "model.chat_template", set_template),
    ForeignKey("chat_template_jinja", "", "model.chat_template", set_template_text),
    ForeignKey("default_system_message", "default_system", "sft.system", convert(lambda value: value)),
    ForeignKey("", "tool_format", "tool calls follow the chat template", drop_harmless),
    ForeignKey("special_tokens", "", "the model's own", drop_special_tokens),
    ForeignKey("eot_tokens", "", "model.eot_token", set_end_of_turn),
    ForeignKey("tokens added_tokens_overrides resize_token_embeddings_to_32x", "resize_vocab add_tokens add_special_tokens", "the vocabulary is the model's own", drop_effective),
    # method
    ForeignKey("", "stage", "sft, or cpt for pt", set_stage),
    ForeignKey("", "do_train do_eval do_predict predict_with_generate", "tunectl repro trains and evaluates", skip),
    ForeignKey("", "finetuning_type", "tunectl tunes low-rank adapters; full, freeze and oft are not offered", require("lora")),
    ForeignKey("lora_model_dir", "adapter_name_or_path", "set sft.init_adapter to that folder; it must fit the rank and layers of sft", drop_effective),
    ForeignKey("lora_r", "lora_rank", "sft.lora_rank", convert(to_int)),
    ForeignKey("lora_alpha", "lora_alpha", "sft.lora_alpha", convert(float)),
    ForeignKey("lora_dropout", "", "sft.lora_dropout", convert(lambda value: float(value or 0))),
    ForeignKey("", "lora_dropout", "sft.lora_dropout", convert(float)),
    ForeignKey("lora_target_modules lora_target_linear", "", "sft.target_modules", skip),
    ForeignKey("", "lora_target", "sft.target_modules", convert(split_targets)),
    ForeignKey("peft_use_dora peft_use_rslora", "use_dora use_rslora", "sft=dora, sft=rslora", skip),
    ForeignKey("lora_fan_in_fan_out", "", "found from the model", drop_harmless),
    ForeignKey("lora_modules_to_save unfrozen_parameters", "additional_target", "only the adapter is trained", drop_effective),
    ForeignKey("", "create_new_adapter", "always so", skip),
    ForeignKey("peft", "", "extra settings of peft are not offered", drop_effective),
    ForeignKey("loraplus_lr_ratio", "loraplus_lr_ratio", "LoRA+ is not offered: one learning rate for the whole adapter", drop_effective),
    ForeignKey("relora_steps", "", "ReLoRA is not offered", drop_effective),
    ForeignKey("", "pissa_init", "PiSSA is not offered: adapters start from zero", drop_effective),
    ForeignKey("", "use_galore", "GaLore is for full tuning", drop_effective),
    ForeignKey("", "use_apollo", "APOLLO is for full tuning", drop_effective),
    ForeignKey("", "use_badam", "BAdam is for full tuning", drop_effective),
    ForeignKey("rl reward_model trl", "pref_beta pref_loss pref_ftx reward_model", PREFERENCES, drop_effective),
    ForeignKey("plugins", "", "code named in a file is never run", drop_effective),
    # data
    ForeignKey("datasets pretraining_dataset", "dataset dataset_dir", "ingest.sources", skip),
    ForeignKey("test_datasets", "eval_dataset", "validation and test come from the same sources; give rows a split column instead", drop_effective),
    ForeignKey("dataset_prepared_path", "overwrite_cache tokenized_path cache_dir", FILES, drop_harmless),
    ForeignKey("shuffle_merged_datasets", "", "always so", skip),
    ForeignKey("dataset_exact_deduplication", "", "curate.exact", skip),
    ForeignKey("push_dataset_to_hub", "", UPLOAD, drop_effective),
    ForeignKey("sequence_len", "cutoff_len", "sft.max_length", convert(to_int)),
    ForeignKey("min_sample_len", "", "short answers are judged by curate.quality", drop_effective),
    ForeignKey("excess_length_strategy", "", "longer examples are rejected as too_long, never cut", require("drop")),
    ForeignKey("", "max_samples", "rows are not cut off silently; make a smaller file", drop_effective),
    ForeignKey("train_on_inputs", "train_on_prompt", "only answers are learned from", drop_effective),
    ForeignKey("", "mask_history", "sft.loss_on", skip),
    ForeignKey("", "mix_strategy", "sources are put together, not interleaved", require("concat")),
    ForeignKey("", "interleave_probs", "sources are put together; split.balance re-weights to a declared population", drop_effective),
    ForeignKey("val_set_size", "val_size", "split.shares", skip),
    ForeignKey(
        "sample_packing eval_sample_packing sample_packing_sequentially sample_packing_group_size"
        " sample_packing_bin_size pad_to_sequence_len group_by_length",
        "packing neat_packing",
        "examples are batched by length instead of packed: no example sees another",
        drop_harmless,
    ),
    # training
    ForeignKey("micro_batch_size gradient_accumulation_steps batch_size", "per_device_train_batch_size gradient_accumulation_steps", "sft.batch_size", skip),
    ForeignKey("num_epochs", "num_train_epochs", "sft.epochs", convert(float)),
    ForeignKey("max_steps", "max_steps", "training is counted in epochs: sft.epochs", drop_effective),
    ForeignKey("optimizer", "optim", "sft.optimizer", look_up(OPTIMIZERS, "optimizer")),
    ForeignKey("optim_args", "", "the optimizer's other settings are fixed", drop_effective),
    ForeignKey("adam_beta1", "adam_beta1", "the optimizer's betas are fixed", require(0.9)),
    ForeignKey("adam_beta2", "adam_beta2", "the optimizer's betas are fixed", require(0.999)),
    ForeignKey("adam_epsilon", "", "the optimizer's epsilon is fixed", require(1e-8)),
    ForeignKey("lr_scheduler", "lr_scheduler_type", "sft.lr_scheduler", look_up(SCHEDULES, "schedule")),
    ForeignKey("lr_scheduler_kwargs", "", "schedules have no further settings", drop_effective),
    ForeignKey("cosine_min_lr_ratio", "", "the step size falls to 0", drop_effective),
    ForeignKey("learning_rate", "learning_rate", "sft.learning_rate", convert(float)),
    ForeignKey("warmup_ratio", "warmup_ratio", "sft.warmup_ratio", convert(float)),
    ForeignKey("warmup_steps", "warmup_steps", "a number of steps; tunectl takes a share of all steps: sft.warmup_ratio", drop_effective),
    ForeignKey("weight_decay", "weight_decay", "sft.weight_decay", convert(float)),
    ForeignKey("max_grad_norm", "max_grad_norm", "sft.max_grad_norm", convert(lambda value: float(value) or None)),
    ForeignKey("", "label_smoothing_factor", "sft.label_smoothing", convert(float)),
    ForeignKey("neftune_noise_alpha noisy_embedding_alpha", "neftune_noise_alpha", "sft.neftune_noise_alpha", convert(lambda value: float(value) or None if value else None)),
    ForeignKey("seed", "seed", "seed", convert(to_int)),
    ForeignKey("", "data_seed", "one seed for all: seed", drop_effective),
    ForeignKey("bf16 bfloat16 fp16 float16", "bf16 fp16 pure_bf16", "hardware.dtype", skip),
    ForeignKey("fp8", "", "8-bit floating point is not offered", drop_effective),
    ForeignKey("gradient_checkpointing", "gradient_checkpointing", "hardware.gradient_checkpointing", convert(bool)),
    ForeignKey("", "disable_gradient_checkpointing", "hardware.gradient_checkpointing", convert(lambda value: not value)),
    ForeignKey(
        "tokenizer_use_fast dataset_processes eval_batch_size tf32 gradient_checkpointing_kwargs flash_attention"
        " sdp_attention xformers_attention flex_attention eager_attention attn_implementation torch_compile"
        " lora_mlp_kernel lora_qkv_kernel lora_o_kernel unsloth_cross_entropy_loss dataloader_num_workers"
        " dataloader_pin_memory dataloader_prefetch_factor low_cpu_mem_usage",
        "flash_attn use_unsloth use_unsloth_gc enable_liger_kernel low_cpu_mem_usage use_fast_tokenizer"
        " upcast_layernorm streaming preprocessing_num_workers preprocessing_batch_size dataloader_num_workers"
        " per_device_eval_batch_size",
        "speed and memory only; tunectl chooses by itself",
        drop_harmless,
    ),
    ForeignKey("device_map local_rank ddp_timeout", "ddp_timeout", LAUNCH, drop_harmless),
    ForeignKey("deepspeed", "deepspeed", f"{LAUNCH}; DeepSpeed is not used", drop_effective),
    ForeignKey("", "fsdp fsdp_config", f"{LAUNCH}; launch.shard=layers divides the model", drop_effective),
    ForeignKey(
        "fsdp fsdp_config fsdp_version sequence_parallel_degree tensor_parallel_size context_parallel_size",
        "",
        f"{LAUNCH}; launch.shard=layers divides the model, parallel degrees are not used",
        drop_effective,
    ),
    ForeignKey("use_ray", "ray_run_name ray_num_workers", LAUNCH, drop_effective),
    # output and evaluation
    ForeignKey("output_dir", "output_dir overwrite_output_dir logging_dir", FILES, drop_harmless),
    ForeignKey("hub_model_id wandb_log_model", "push_to_hub", UPLOAD, drop_effective),
    ForeignKey("hub_strategy", "", "hub_model_id", skip),
    ForeignKey("save_safetensors", "", "always so", skip),
    ForeignKey("evals_per_epoch", "", "sft.evals_per_epoch", convert(to_int)),
    ForeignKey("eval_steps", "eval_steps", "validations are counted an epoch: sft.evals_per_epoch", drop_harmless),
    ForeignKey("save_steps", "", "sft.save_steps", convert(to_int)),
    ForeignKey("", "save_steps", "sft.save_steps", set_save_steps),
    ForeignKey("early_stopping_patience", "early_stopping_steps", "sft.early_stopping", set_patience),
    ForeignKey(
        "logging_steps eval_strategy saves_per_epoch save_strategy save_total_limit save_only_model"
        " load_best_model_at_end resume_from_checkpoint auto_resume_from_checkpoints debug eval_table_size",
        "logging_steps plot_loss save_strategy save_total_limit save_only_model load_best_model_at_end"
        " resume_from_checkpoint eval_strategy evaluation_strategy",
        "tunectl reports and resumes by itself",
        drop_harmless,
    ),
    ForeignKey("", "metric_for_best_model", "the best checkpoint is the one of least validation loss", require("eval_loss", "loss")),
    ForeignKey("loss_watchdog_threshold loss_watchdog_patience", "", "a loss that is not finite stops training with a message", drop_harmless),
    ForeignKey("wandb_project mlflow_tracking_uri mlflow_experiment_name use_tensorboard", "report_to", "track.to", report_to),
    ForeignKey("wandb_entity wandb_name wandb_watch", "", "runs are called after project; the rest comes from wandb's own settings", drop_harmless),
    ForeignKey("", "run_name", "runs are called after project", drop_harmless),
    ForeignKey("use_comet", "", "Comet is not offered; track.to has mlflow and wandb", drop_effective),
    ForeignKey("", "use_swanlab", "SwanLab is not offered; track.to has mlflow and wandb", drop_effective),
    ForeignKey("", "compute_accuracy", "evaluate reports BLEU, chrF, ROUGE-L and perplexity", drop_harmless),
    ForeignKey("", "max_new_tokens", "evaluate.decoding.max_new_tokens", convert(to_int)),
    ForeignKey("", "temperature top_p", "evaluate compares with evaluate.decoding, greedy by default", drop_harmless),
)  # fmt: skip
"""Every setting of the two tools that an import knows."""


def list_rules(tool: Tool) -> dict[str, ForeignKey]:
    """Return the known settings of ``tool`` (``axolotl`` or ``llama-factory``), by their names there."""
    return {name: row for row in KEYS for name in (row.axolotl if tool == "axolotl" else row.llama_factory).split()}
