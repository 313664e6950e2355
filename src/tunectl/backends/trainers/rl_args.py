"""Convert the arguments of a policy training to TRL's."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tunectl.backends.trainers.sft_args import NO_CLIP, OPTIMIZERS, SCHEDULES
from tunectl.config.schema.align import AlignBase, Dpo, Grpo, Kto, Rloo, VllmColocate, VllmServer
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.core.optional import import_optional
from tunectl.training.rl.rl_types import RlArgs


def check_vllm(vllm: VllmColocate | VllmServer | None, device: str, ranks: int) -> None:
    """Check that vLLM can be used as ``vllm`` asks, before anything is loaded.

    Raises  UsageError where several ranks would each start a vLLM, or one would divide its model; InfrastructureError without a GPU, or where vLLM is not
            installed.
    """
    if not isinstance(vllm, VllmColocate):
        return
    if ranks > 1:
        raise UsageError(
            f"align.vllm.mode is colocate, which works with one rank, but launch starts {ranks}",
            hint="use vLLM servers (align.vllm.mode: server), write answers with transformers (align.vllm=null), or set launch=local",
        )
    if vllm.tensor_parallel_size > 1:
        raise UsageError(
            f"align.vllm.tensor_parallel_size = {vllm.tensor_parallel_size}: TRL divides a model over ranks, and colocate works with one rank",
            hint="set it to 1; for a model that is larger than a card use vLLM servers (align.vllm.mode: server)",
        )
    if device != "cuda":
        raise InfrastructureError(
            f"align.vllm.mode is colocate: vLLM shares a GPU with the trainer, and hardware.device is {device}",
            hint="write answers with transformers: align.vllm=null, or use a GPU: hardware=gpu",
        )
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise InfrastructureError(
            "align.vllm.mode is colocate, but vllm is not installed",
            hint="install a version that TRL accepts (pip install 'trl[vllm]'), or set align.vllm=null",
        )


def to_rl_config(plan: RlArgs, settings: Rloo | Grpo, work: Path) -> Any:
    """Return TRL's ``RLOOConfig`` or ``GRPOConfig``: one optimizer step per generation."""
    trl = import_optional("trl", extra="train")
    result = trl.RLOOConfig if isinstance(settings, Rloo) else trl.GRPOConfig
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        arguments = result(
            **_common(plan, settings, settings.steps, work) | _online(settings) | _own(settings) | _vllm(settings.vllm)
        )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001  one process drives one card; TRL refuses to spread a model by itself
    return arguments


def to_preference_config(plan: RlArgs, settings: Dpo | Kto, steps: int, work: Path) -> Any:
    """Return TRL's ``DPOConfig`` or ``KTOConfig``: one item of the data loader is one optimizer step."""
    trl = import_optional("trl", extra="train")
    if isinstance(settings, Dpo):
        config_class = trl.DPOConfig
        own: dict[str, Any] = {
            "loss_type": [settings.loss],
            "label_smoothing": settings.label_smoothing,
            "ld_alpha": settings.ld_alpha,
            "per_device_train_batch_size": 1,
        }
    else:
        config_class = trl.KTOConfig
        own = {
            "desirable_weight": settings.desirable_weight,
            "undesirable_weight": settings.undesirable_weight,
            "per_device_train_batch_size": settings.batch_size,  # TRL refuses 1; our loader ignores it
        }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        result = config_class(
            **_common(plan, settings, steps, work) | own | {"beta": settings.beta, "max_length": None}
        )
    result._n_gpu = min(result.n_gpu, 1)  # noqa: SLF001  one process drives one card; TRL refuses to spread a model by itself
    return result


def _online(settings: Rloo | Grpo) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": settings.prompts_per_step * settings.num_generations,
        "num_generations": settings.num_generations,
        "num_iterations": 1,
        "max_completion_length": settings.max_new_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "beta": settings.beta,
        "mask_truncated_completions": True,
        "log_completions": False,
    }


def _common(plan: RlArgs, settings: AlignBase, steps: int, work: Path) -> dict[str, Any]:
    return dict(  # noqa: C408  keyword names read better than keys here
        output_dir=str(work),
        run_name=f"{plan.project}-{plan.label}",
        project=plan.project,
        max_steps=steps,
        gradient_accumulation_steps=1,
        disable_dropout=True,  # one step per generation: the policy that is trained generated the answers
        optim=OPTIMIZERS["adamw"],
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULES[settings.lr_scheduler],
        warmup_steps=round(settings.warmup_ratio * steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=NO_CLIP if settings.max_grad_norm is None else settings.max_grad_norm,
        gradient_checkpointing=plan.profile.gradient_checkpointing,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        bf16=False,
        seed=plan.seed,
        data_seed=plan.seed,
        use_cpu=plan.profile.device == "cpu",
        logging_steps=1,
        logging_strategy="steps",
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def _own(settings: Rloo | Grpo) -> dict[str, Any]:
    if isinstance(settings, Rloo):
        return {"normalize_advantages": settings.normalize_advantages}
    return {"loss_type": settings.loss, "scale_rewards": settings.scale_rewards}


def _vllm(vllm: VllmColocate | VllmServer | None) -> dict[str, Any]:
    if not isinstance(
        vllm, VllmColocate
    ):  # TRL's own mode "server" sends merged weights by NCCL; ours is server_generation
        return {"use_vllm": False}
    return {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": vllm.gpu_memory_utilization,
        "vllm_tensor_parallel_size": vllm.tensor_parallel_size,
    }
