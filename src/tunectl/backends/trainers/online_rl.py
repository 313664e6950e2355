"""Train on rewards through TRL's ``RLOOTrainer`` and ``GRPOTrainer``: their loop, advantages, losses and logs.

Replaced are the slow parts: answers are generated with each prompt read once and with the adapter merged into a copy of the
weights; log-probabilities are computed with all answers of a prompt in one row, and the output layer on answers only. The policy is the
adapter of sft itself. For the reference its weights are put back for one pass.

Each generation is followed by one optimizer step, so the policy that generated an answer is the policy that is trained on it: the
ratio of both is 1, and it needs no pass of its own. The KL in a reward of RLOO takes the log-probabilities of generation: they cost
nothing, and differ from those of the training pass by the rounding of bfloat16 alone (hundredths of a nat per answer, times beta). The KL
that is reported and limited comes from the training pass, where policy and reference are computed the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunectl.backends.modeling import (
    batching,
    capability_probe,
    lora_kernels,
    model_loader,
    peft_adapter,
    short_attention,
)
from tunectl.backends.modeling.process_group import SINGLE, ProcessGroup
from tunectl.backends.trainers import online_trainer, server_generation, trainer_base, trainer_loop
from tunectl.backends.trainers.rl_args import check_vllm
from tunectl.backends.trainers.rl_checkpoint import RlTrainerState
from tunectl.backends.trainers.rl_validation import PolicyModel, row_of
from tunectl.backends.trainers.rollout import PolicyRun, RolloutStep
from tunectl.backends.trainers.rollout_generation import CompletionGenerator, RolloutGenerator
from tunectl.chat import model_spec
from tunectl.config.schema.align import Grpo, Rloo
from tunectl.core.optional import import_optional
from tunectl.training.prefix_sharing import ROW_TOKENS
from tunectl.training.rl import rollout_order
from tunectl.training.rl.rl_types import PolicyData, RewardFunctions, RlArgs, RlResult


class OnlineRlTrainer:
    """The ``PolicyTrainer`` of the methods rloo and grpo: samples answers and trains on their rewards."""

    def __init__(self, group: ProcessGroup = SINGLE) -> None:
        """``group`` is the processes that train together; every one of them makes the same calls."""
        self._group = group

    def fit(
        self, plan: RlArgs, *, model: Path, sft: Path, data: PolicyData, judges: RewardFunctions, out: Path, work: Path
    ) -> RlResult:
        """Sample answers, compute rewards and train, step by step; return the run with the weights of the best validation.

        Raises  UsageError when every answer was cut, a reward or the loss is NaN or infinite, or the KL to sft exceeds its limit;
                ArtifactError where an adapter does not load; InfrastructureError when memory or disk do not suffice, vLLM is not
                available, its servers do not answer or hold another model, or after Ctrl-C; MissingExtraError.
        """
        settings = plan.settings
        assert isinstance(settings, Rloo | Grpo)
        check_vllm(settings.vllm, plan.profile.device, self._group.world_size)
        prompts = min(settings.prompts_per_step, len(data.prompts))
        trainer_base.check_rank_count(
            self._group,
            plan.profile.device,
            prompts,
            "prompt",
            f"or raise align.prompts_per_step (now {settings.prompts_per_step})",
        )
        with trainer_loop.oom_to_error(plan, trainer_base.suggest_less_memory(plan)):
            return self._fit(plan, model, sft, data, judges, out, work)

    def _fit(
        self, plan: RlArgs, model: Path, sft: Path, data: PolicyData, judges: RewardFunctions, out: Path, work: Path
    ) -> RlResult:
        settings, group = plan.settings, self._group
        assert isinstance(settings, Rloo | Grpo)
        peft_model, tokenizer = load_policy(plan, model, sft)
        longest = max(len(prompt.ids) for prompt in (*data.prompts, *data.validation)) + settings.max_new_tokens
        trainer_base.require_memory_and_disk(
            plan, peft_model, max(longest, ROW_TOKENS), work, ranks=group.local_world_size
        )
        steps = rollout_order.prompts_per_step(
            len(data.prompts), steps=settings.steps, each=settings.prompts_per_step, seed=plan.seed
        )
        resumed = trainer_loop.latest_checkpoint(group, work)
        state = RlTrainerState.load(resumed) if resumed else RlTrainerState()
        base = model_spec.load(model)
        with server_generation.open_generator(settings.vllm, peft_model, tokenizer, base, work, group) as servers:
            if servers is not None:  # before the faster kernels, which ignore that the adapter is switched off
                longest_prompt = max(data.validation, key=lambda prompt: len(prompt.ids))
                servers.check_servers(model, longest_prompt.ids, longest)
            trainer = online_trainer.build_trainer(plan, settings, peft_model, tokenizer, work)
            policy = prepare_policy(plan, peft_model, tokenizer, data, servers)
            run = PolicyRun(plan, settings, policy, data, judges, steps, state, RolloutStep(0, []), group=group)
            trainer.run = run
            last_step = trainer_base.run_steps(run, trainer, resumed)
        if group.first:
            peft_adapter.save_adapter(peft_model, state.best, out, base)
        return to_result(state, last_step, len(steps), trainer_loop.count_trainable(peft_model))


def to_result(state: RlTrainerState, steps: int, planned: int, trainable: int) -> RlResult:
    """Return the result of a policy training that did ``steps`` of ``planned`` steps, with ``trainable`` trained weights."""
    return RlResult(
        steps=steps,
        planned_steps=planned,
        best_step=state.best_step,
        stopped=state.stopped,
        answers=state.answers,
        seconds=dict(state.seconds),
        trainable=trainable,
        history=tuple(state.history),
        validation=tuple(state.points),
        samples=tuple(state.samples),
    )


def load_policy(plan: RlArgs, model: Path, sft: Path) -> tuple[Any, Any]:
    """Return the base model with the trainable adapter of sft on it, and the tokenizer.

    Raises  ArtifactError where the adapter belongs to another base or cannot be loaded.
    """
    torch = import_optional("torch", extra="train")
    peft = import_optional("peft", extra="train")
    model_spec.check_base_matches(sft, model)
    peft_adapter.require_safetensors(sft)
    result = model_loader.load(model, adapter=None, profile=plan.profile)
    torch.manual_seed(plan.seed)
    adapted = peft.PeftModel.from_pretrained(result.model, sft, is_trainable=True)
    for module in adapted.modules():
        if hasattr(module, "lora_dropout"):  # one step per generation: the policy that is trained generated the answers
            for name in module.lora_dropout:
                module.lora_dropout[name] = torch.nn.Identity()
    return adapted, result.tokenizer


def prepare_policy(
    plan: RlArgs, model: Any, tokenizer: Any, data: PolicyData, writer: CompletionGenerator | None = None
) -> PolicyModel:
    """Return the policy with faster kernels and its generator of answers; without ``writer`` the model itself generates them."""
    torch = import_optional("torch", extra="train")
    if plan.profile.device == "cpu":
        short_attention.use_short_attention(model.get_base_model())
    fused_layers = lora_kernels.use_fused_lora(model)
    layers = sum(1 for module in model.modules() if hasattr(module, "lora_A"))
    autocast = model_loader.dtype(plan.profile) == torch.bfloat16 and fused_layers < layers
    longest_prompt = min(data.validation, key=lambda prompt: len(prompt.ids))
    probe = [list(longest_prompt.ids[-8:]), list(longest_prompt.ids[:8])]  # any tokens serve as a probe
    result = capability_probe.probe(model, [row_of(longest_prompt, probe)], autocast=autocast)
    return PolicyModel(
        model=model,
        writer=writer or RolloutGenerator(model, tokenizer, batch=plan.profile.generate_batch),
        route=batching.forward_path(model, plain_head=result.plain_head, autocast=autocast),
        start={name: value.clone() for name, value in peft_adapter.trainable_state(model).items()},
        tokens=plan.profile.train_batch_tokens,
        shared=result.shared_prompts,
    )
