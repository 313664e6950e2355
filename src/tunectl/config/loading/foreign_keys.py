"""The settings of LLaMA-Factory and Axolotl beside ours: one table for both.

Names and meanings are those of ``llamafactory-cli train FILE`` and ``axolotl train FILE``.
"""

from __future__ import annotations

from tunectl.config.loading.foreign_rules import (
    OPTIMIZERS,
    PREFERENCES,
    SCHEDULES,
    Apply,
    ForeignKey,
    Tool,
    combine,
    drop_special_tokens,
    ignore,
    lack,
    look_up,
    rename,
    report_by_key,
    report_to,
    require,
    set_end_of_turn,
    set_patience,
    set_save_steps,
    set_stage,
    set_targets,
    set_template,
    set_template_text,
    to_float_or_none,
    to_int,
)

SPEED = "speed and memory only; tunectl chooses by itself"
FILES = "tunectl keeps artifacts/ and its own caches"
LOOP = "tunectl reports and resumes by itself"
PACKING = "examples are batched by length instead of packed: no example sees another"
VOCABULARY = "the vocabulary is the model's own"
FOUND = "found from the model"
UPLOAD = "nothing is uploaded"
ADAPTER = "only the adapter is trained"
LAUNCH = "several processes are declared with launch=torchrun or launch=ray"
OWN_SPLIT = "validation and test come from the same sources; give rows a split column instead"
TRACKER_NAMES = "runs are called after project; the rest comes from wandb's own settings"

KEYS: tuple[ForeignKey, ...] = (
    # model
    combine("base_model revision_of_model", "model_name_or_path model_revision", "model.source"),
    ignore("base_model_config", "", "the configuration comes with the model"),
    lack("tokenizer_config", "", "the tokenizer comes with the model"),
    ignore("model_type tokenizer_type is_llama_derived_model is_mistral_derived_model is_falcon_derived_model", "", FOUND),
    ignore("trust_remote_code", "trust_remote_code", "code that comes with a model is never run"),
    ignore("strict", "", "tunectl is always strict"),
    lack("load_in_8bit", "", "8 bits are not offered; qlora uses 4"),
    combine("load_in_4bit adapter", "quantization_bit bits", "sft=qlora"),
    lack("gptq", "", "the base model must have plain weights"),
    require("", "quantization_method", ["bnb", "bitsandbytes", None], "4-bit tuning uses bitsandbytes"),
    require("", "quantization_type", ["nf4"], "4-bit tuning uses nf4"),
    require("", "double_quantization", [True], "4-bit tuning uses double quantization"),
    lack("", "rope_scaling", "the context length is the model's own"),
    lack("s2_attention", "shift_attn", "attention is the model's own"),
    ForeignKey("chat_template", "template", "model.chat_template", set_template),
    ForeignKey("chat_template_jinja", "", "model.chat_template", set_template_text),
    rename("default_system_message", "default_system", "sft.system"),
    ignore("", "tool_format", "tool calls follow the chat template"),
    ForeignKey("special_tokens", "", "the model's own", drop_special_tokens),
    ForeignKey("eot_tokens", "", "model.eot_token", set_end_of_turn),
    lack(
        "tokens added_tokens_overrides resize_token_embeddings_to_32x", "resize_vocab add_tokens add_special_tokens",
        VOCABULARY,
    ),
    # method
    ForeignKey("", "stage", "sft, or cpt for pt", set_stage),
    combine("", "do_train do_eval do_predict predict_with_generate", "tunectl repro trains and evaluates"),
    require("", "finetuning_type", ["lora"], "tunectl tunes low-rank adapters; full, freeze and oft are not offered"),
    lack(
        "lora_model_dir", "adapter_name_or_path", "tuning starts from the base model; merge the adapter into it first"
    ),
    rename("lora_r", "lora_rank", "sft.lora_rank", to_int),
    rename("lora_alpha", "lora_alpha", "sft.lora_alpha", float),
    rename("lora_dropout", "", "sft.lora_dropout", lambda value: float(value or 0)),
    rename("", "lora_dropout", "sft.lora_dropout", float),
    combine("lora_target_modules lora_target_linear", "", "sft.target_modules"),
    rename("", "lora_target", "sft.target_modules", set_targets),
    combine("peft_use_dora peft_use_rslora", "use_dora use_rslora", "sft=dora, sft=rslora"),
    ignore("lora_fan_in_fan_out", "", FOUND),
    lack("lora_modules_to_save unfrozen_parameters", "additional_target", ADAPTER),
    combine("", "create_new_adapter", "always so"),
    lack("peft", "", "extra settings of peft are not offered"),
    lack("loraplus_lr_ratio", "loraplus_lr_ratio", "LoRA+ is not offered: one learning rate for the whole adapter"),
    lack("relora_steps", "", "ReLoRA is not offered"),
    lack("", "pissa_init", "PiSSA is not offered: adapters start from zero"),
    lack("", "use_galore", "GaLore is for full tuning"),
    lack("", "use_apollo", "APOLLO is for full tuning"),
    lack("", "use_badam", "BAdam is for full tuning"),
    lack("rl reward_model trl", "pref_beta pref_loss pref_ftx reward_model", PREFERENCES),
    lack("plugins", "", "code named in a file is never run"),
    # data
    combine("datasets pretraining_dataset", "dataset dataset_dir", "ingest.sources"),
    lack("test_datasets", "eval_dataset", OWN_SPLIT),
    ignore("dataset_prepared_path", "overwrite_cache tokenized_path cache_dir", FILES),
    combine("shuffle_merged_datasets", "", "always so"),
    combine("dataset_exact_deduplication", "", "curate.exact"),
    lack("push_dataset_to_hub", "", UPLOAD),
    rename("sequence_len", "cutoff_len", "sft.max_length", to_int),
    lack("min_sample_len", "", "short answers are judged by curate.quality"),
    require("excess_length_strategy", "", ["drop"], "longer examples are rejected as too_long, never cut"),
    lack("", "max_samples", "rows are not cut off silently; make a smaller file"),
    lack("train_on_inputs", "train_on_prompt", "only answers are learned from"),
    combine("", "mask_history", "sft.loss_on"),
    require("", "mix_strategy", ["concat"], "sources are put together, not interleaved"),
    lack("", "interleave_probs", "sources are put together; split.balance re-weights to a declared population"),
    combine("val_set_size", "val_size", "split.shares"),
    ignore(
        "sample_packing eval_sample_packing sample_packing_sequentially sample_packing_group_size"
        " sample_packing_bin_size pad_to_sequence_len group_by_length",
        "packing neat_packing",
        PACKING,
    ),
    # training
    combine(
        "micro_batch_size gradient_accumulation_steps batch_size",
        "per_device_train_batch_size gradient_accumulation_steps",
        "sft.batch_size",
    ),
    rename("num_epochs", "num_train_epochs", "sft.epochs", float),
    lack("max_steps", "max_steps", "training is counted in epochs: sft.epochs"),
    rename("optimizer", "optim", "sft.optimizer", look_up(OPTIMIZERS, "optimizer")),
    lack("optim_args", "", "the optimizer's other settings are fixed"),
    require("adam_beta1", "adam_beta1", [0.9], "the optimizer's betas are fixed"),
    require("adam_beta2", "adam_beta2", [0.999], "the optimizer's betas are fixed"),
    require("adam_epsilon", "", [1e-8], "the optimizer's epsilon is fixed"),
    rename("lr_scheduler", "lr_scheduler_type", "sft.lr_scheduler", look_up(SCHEDULES, "schedule")),
    lack("lr_scheduler_kwargs", "", "schedules have no further settings"),
    lack("cosine_min_lr_ratio", "", "the step size falls to 0"),
    rename("learning_rate", "learning_rate", "sft.learning_rate", float),
    rename("warmup_ratio", "warmup_ratio", "sft.warmup_ratio", float),
    lack(
        "warmup_steps", "warmup_steps", "a number of steps; tunectl takes a share of all steps: sft.warmup_ratio"
    ),
    rename("weight_decay", "weight_decay", "sft.weight_decay", float),
    rename("max_grad_norm", "max_grad_norm", "sft.max_grad_norm", lambda value: float(value) or None),
    rename("", "label_smoothing_factor", "sft.label_smoothing", float),
    rename("neftune_noise_alpha noisy_embedding_alpha", "neftune_noise_alpha", "sft.neftune_noise_alpha", to_float_or_none),
    rename("seed", "seed", "seed", to_int),
    lack("", "data_seed", "one seed for all: seed"),
    combine("bf16 bfloat16 fp16 float16", "bf16 fp16 pure_bf16", "hardware.dtype"),
    lack("fp8", "", "8-bit floating point is not offered"),
    rename("gradient_checkpointing", "gradient_checkpointing", "hardware.gradient_checkpointing", bool),
    rename("", "disable_gradient_checkpointing", "hardware.gradient_checkpointing", lambda value: not value),
    ignore(
        "tokenizer_use_fast dataset_processes eval_batch_size tf32 gradient_checkpointing_kwargs flash_attention"
        " sdp_attention xformers_attention flex_attention eager_attention attn_implementation torch_compile"
        " lora_mlp_kernel lora_qkv_kernel lora_o_kernel unsloth_cross_entropy_loss dataloader_num_workers"
        " dataloader_pin_memory dataloader_prefetch_factor low_cpu_mem_usage",
        "flash_attn use_unsloth use_unsloth_gc enable_liger_kernel low_cpu_mem_usage use_fast_tokenizer"
        " upcast_layernorm streaming preprocessing_num_workers preprocessing_batch_size dataloader_num_workers"
        " per_device_eval_batch_size",
        SPEED,
    ),
    ignore("device_map local_rank ddp_timeout", "ddp_timeout", LAUNCH),
    lack("deepspeed", "deepspeed", f"{LAUNCH}; DeepSpeed is not used"),
    lack("", "fsdp fsdp_config", f"{LAUNCH}; launch.shard=layers divides the model"),
    lack(
        "fsdp fsdp_config fsdp_version sequence_parallel_degree tensor_parallel_size context_parallel_size", "",
        f"{LAUNCH}; launch.shard=layers divides the model, parallel degrees are not used",
    ),
    lack("use_ray", "ray_run_name ray_num_workers", LAUNCH),
    # output and evaluation
    ignore("output_dir", "output_dir overwrite_output_dir logging_dir", FILES),
    lack("hub_model_id wandb_log_model", "push_to_hub", UPLOAD),
    combine("hub_strategy", "", "hub_model_id"),
    combine("save_safetensors", "", "always so"),
    rename("evals_per_epoch", "", "sft.evals_per_epoch", to_int),
    ignore("eval_steps", "eval_steps", "validations are counted an epoch: sft.evals_per_epoch"),
    rename("save_steps", "", "sft.save_steps", to_int),
    ForeignKey("", "save_steps", "sft.save_steps", set_save_steps),
    ForeignKey("early_stopping_patience", "early_stopping_steps", "sft.early_stopping", set_patience),
    ignore(
        "logging_steps eval_strategy saves_per_epoch save_strategy save_total_limit save_only_model"
        " load_best_model_at_end resume_from_checkpoint auto_resume_from_checkpoints debug eval_table_size",
        "logging_steps plot_loss save_strategy save_total_limit save_only_model load_best_model_at_end"
        " resume_from_checkpoint eval_strategy evaluation_strategy",
        LOOP,
    ),
    require(
        "", "metric_for_best_model", ["eval_loss", "loss"], "the best checkpoint is the one of least validation loss"
    ),
    ignore(
        "loss_watchdog_threshold loss_watchdog_patience", "", "a loss that is not finite stops training with a message"
    ),
    ForeignKey("", "report_to", "track.to", report_to),
    ForeignKey("wandb_project", "", "track.to", report_by_key("wandb")),
    ForeignKey("mlflow_tracking_uri mlflow_experiment_name", "", "track.to", report_by_key("mlflow")),
    ForeignKey("use_tensorboard", "", "track.to", report_by_key("tensorboard")),
    ignore("wandb_entity wandb_name wandb_watch", "", TRACKER_NAMES),
    ignore("", "run_name", "runs are called after project"),
    lack("use_comet", "", "Comet is not offered; track.to has mlflow and wandb"),
    lack("", "use_swanlab", "SwanLab is not offered; track.to has mlflow and wandb"),
    ignore("", "compute_accuracy", "evaluate reports BLEU, chrF, ROUGE-L and perplexity"),
    rename("", "max_new_tokens", "evaluate.decoding.max_new_tokens", to_int),
    ignore("", "temperature top_p", "evaluate compares with evaluate.decoding, greedy by default"),
)  # fmt: skip
"""Every setting of the two tools that an import knows."""


def list_rules(tool: Tool) -> dict[str, Apply]:
    """Map the name of each setting of ``tool`` to its conversion."""
    return {
        name: key.apply for key in KEYS for name in (key.axolotl if tool == "axolotl" else key.llama_factory).split()
    }
