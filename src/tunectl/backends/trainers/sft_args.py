"""Convert our training arguments to TRL's and peft's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tunectl.core.errors import UsageError
from tunectl.core.optional import import_optional
from tunectl.training.train_args import LoraArgs, TrainingArgs

OPTIMIZERS = {
    "adamw": "adamw_torch_fused",
    "adamw_8bit": "adamw_bnb_8bit",
    "adafactor": "adafactor",
    "lion": "lion_8bit",
    "sgd": "sgd",
}
SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
NO_CLIP = 0.0
"""TRL's value for no limit."""


def to_sft_config(plan: TrainingArgs, config: str, settings: dict[str, Any], *, steps: int, work: Path) -> Any:
    """Return TRL's arguments of class ``config`` (such as SFTConfig); one item of the data loader is one optimizer step.

    ``settings`` are the arguments that only that class has.
    """
    if plan.optimizer in {"adamw_8bit", "lion"}:
        import_optional("bitsandbytes", extra="gpu")
    result = getattr(import_optional("trl", extra="train"), config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # all versions know this older name of the argument
        arguments = result(**_values(plan, steps, work) | settings)
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001  one process drives one card; TRL refuses to spread a model by itself
    return arguments


def _values(plan: TrainingArgs, steps: int, work: Path) -> dict[str, Any]:
    return dict(  # noqa: C408  keyword names read better than keys here
        output_dir=str(work),
        run_name=f"{plan.project}-{plan.label}",
        project=plan.project,
        max_steps=steps,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        optim=OPTIMIZERS[plan.optimizer],
        learning_rate=plan.learning_rate,
        lr_scheduler_type=SCHEDULES[plan.lr_scheduler],
        warmup_steps=round(plan.warmup_ratio * steps),
        weight_decay=plan.weight_decay,
        max_grad_norm=NO_CLIP if plan.max_grad_norm is None else plan.max_grad_norm,
        neftune_noise_alpha=plan.neftune_noise_alpha,
        gradient_checkpointing=plan.profile.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=False,
        seed=plan.seed,
        data_seed=plan.seed,
        use_cpu=plan.profile.device == "cpu",
        logging_steps=max(1, min(10, steps // 20)),
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        max_length=None,
        logging_strategy="steps",
    )


def peft_config(adapter: LoraArgs, task: str) -> Any:
    """Return peft's ``LoraConfig`` for an adapter; ``task`` is peft's task type, such as CAUSAL_LM."""
    return import_optional("peft", extra="train").LoraConfig(
        task_type=task,
        r=adapter.lora_rank,
        lora_alpha=adapter.lora_alpha,
        lora_dropout=adapter.lora_dropout,
        target_modules=adapter.target_modules
        if isinstance(adapter.target_modules, str)
        else list(adapter.target_modules),
        use_dora=adapter.method == "dora",
        use_rslora=adapter.method == "rslora",
    )


def check_target_modules(model: Any, adapter: LoraArgs, section: str) -> None:
    """Check that the layers that the settings declare exist in the model; ``section`` is the section of the settings, for the message.

    Raises  UsageError naming the unknown layer and the existing ones.
    """
    if isinstance(adapter.target_modules, str):
        return
    linear = import_optional("torch.nn", extra="train").Linear
    names = [name for name, module in model.named_modules() if isinstance(module, linear)]
    heads = [model.get_output_embeddings(), getattr(model, "score", None)]
    module_names = sorted(
        {name.rpartition(".")[2] for name in names if not any(model.get_submodule(name) is head for head in heads)}
    )
    for target in adapter.target_modules:
        if not any(name == target or name.endswith(f".{target}") for name in names) or target in {"lm_head", "score"}:
            raise UsageError(
                f"{section}.target_modules names {target}, which the model does not have; it has {', '.join(module_names)}",
                hint=f"or train all of them: {section}.target_modules=all-linear",
            )
