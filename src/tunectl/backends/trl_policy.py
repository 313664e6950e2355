"""Learn from rewards through TRL's ``RLOOTrainer`` and ``GRPOTrainer``: their loop, advantages, losses and logs.

What is ours is what costs time: answers are written with each prompt read once and with the adapter merged into a copy of the
weights; likelihoods are read with all answers of a prompt in one row, and the output layer on answers only. The policy is the
adapter of sft itself. For the reference its weights are put back for one pass.

Each generation is followed by one optimiser step, so the policy that wrote an answer is the policy that learns from it: the
ratio of both is 1, and it needs no pass of its own. The KL in a reward of RLOO takes the likelihoods from writing: they cost
nothing, and differ from those of reading by the rounding of bfloat16 alone (hundredths of a nat an answer, times beta). The KL
that is reported and bounded comes from the reading pass, where policy and reference are read the same way.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunectl.backends import (
    adapter_file,
    fit_run,
    fit_state,
    hf_model,
    policy_loop,
    torch_batch,
    torch_kernels,
    torch_probe,
    torch_short,
    trl_loop,
    trl_policy_trainer,
)
from tunectl.backends.policy_look import Policy, row_of
from tunectl.backends.policy_state import PolicyState
from tunectl.backends.policy_turn import PolicyRun, Turn
from tunectl.backends.policy_write import Writer
from tunectl.backends.trl_policy_arguments import refuse_no_vllm
from tunectl.chat import contract
from tunectl.config.align import Grpo, Rloo
from tunectl.core.lazy import need
from tunectl.training import turns
from tunectl.training.policy import Aligned, Judges, PolicyData, PolicyPlan
from tunectl.training.rows import ROW_TOKENS


class TrlPolicy:
    """The trainer of ``rloo`` and ``grpo``; see ``training.policy.PolicyTrainer``."""

    def fit(
        self, plan: PolicyPlan, *, model: Path, sft: Path, data: PolicyData, judges: Judges, out: Path, work: Path
    ) -> Aligned:
        """See ``training.policy.PolicyTrainer.fit``.

        Raises  UsageError when every answer was cut, a reward or the loss is no number, or the policy ran away from sft;
                ArtifactError where an adapter does not load; EnvironmentFailure when memory or disk do not suffice, vLLM is not to
                be had, or after Ctrl-C; MissingExtra.
        """
        settings = plan.settings
        assert isinstance(settings, Rloo | Grpo)
        refuse_no_vllm(settings.vllm, plan.profile.device)
        trl_loop.prepare_trackers(plan, work)
        with trl_loop.memory_in_words(plan, policy_loop.what_to_lower(plan)):
            return _fit(plan, settings, model, sft, data, judges, out, work)


def _fit(
    plan: PolicyPlan,
    settings: Rloo | Grpo,
    model: Path,
    sft: Path,
    data: PolicyData,
    judges: Judges,
    out: Path,
    work: Path,
) -> Aligned:
    peft_model, tokenizer = loaded(plan, model, sft)
    longest = max(len(asked.ids) for asked in (*data.questions, *data.watch)) + settings.max_new_tokens
    policy_loop.refuse_too_big(plan, peft_model, max(longest, ROW_TOKENS), work)
    steps = turns.turns(len(data.questions), steps=settings.steps, each=settings.prompts_per_step, seed=plan.seed)
    resumed = fit_state.latest(work)
    state = PolicyState.load(resumed) if resumed else PolicyState()
    trainer = trl_policy_trainer.made(plan, settings, peft_model, tokenizer, work)
    policy = prepared(plan, peft_model, tokenizer, data)
    run = PolicyRun(plan, settings, policy, data, judges, steps, state, Turn(0, []))
    trainer.run = run
    done = policy_loop.through(run, trainer, resumed)
    trl_loop.save(peft_model, state.best, out, contract.load(model))
    return aligned(state, done, len(steps), trl_loop.trainable(peft_model))


def aligned(state: PolicyState, steps: int, planned: int, trainable: int) -> Aligned:
    """How it went."""
    return Aligned(
        steps=steps,
        planned_steps=planned,
        best_step=state.best_step,
        stopped=state.stopped,
        answers=state.answers,
        seconds=dict(state.seconds),
        trainable=trainable,
        history=tuple(state.history),
        looks=tuple(state.looks),
        samples=tuple(state.samples),
    )


def loaded(plan: PolicyPlan, model: Path, sft: Path) -> tuple[Any, Any]:
    """The base with the adapter of sft on it, ready to be trained on, and the tokenizer.

    Raises  ArtifactError where the adapter belongs to another base or cannot be loaded.
    """
    torch = need("torch", extra="train")
    peft = need("peft", extra="train")
    contract.refuse_other_base(sft, model)
    adapter_file.refuse_pickle(sft)
    found = hf_model.load(model, adapter=None, profile=plan.profile)
    torch.manual_seed(plan.seed)
    adapted = peft.PeftModel.from_pretrained(found.model, sft, is_trainable=True)
    for module in adapted.modules():
        if hasattr(module, "lora_dropout"):  # the policy that learns is the policy that wrote
            for name in module.lora_dropout:
                module.lora_dropout[name] = torch.nn.Identity()
    return adapted, found.tokenizer


def prepared(plan: PolicyPlan, model: Any, tokenizer: Any, data: PolicyData) -> Policy:
    """``model`` made fast, and everything that reads and writes with it."""
    torch = need("torch", extra="train")
    if plan.profile.device == "cpu":
        torch_short.speed_up(model.get_base_model())
    sped = torch_kernels.speed_up_lora(model)
    layers = sum(1 for module in model.modules() if hasattr(module, "lora_A"))
    autocast = hf_model.dtype(plan.profile) == torch.bfloat16 and sped < layers
    asked = min(data.watch, key=lambda question: len(question.ids))
    trial = [list(asked.ids[-8:]), list(asked.ids[:8])]  # any tokens will do
    found = torch_probe.probe(model, [row_of(asked, trial)], autocast=autocast)
    return Policy(
        model=model,
        writer=Writer(model, tokenizer, batch=plan.profile.generate_batch),
        route=torch_batch.route_of(model, plain_head=found.plain_head, autocast=autocast),
        start={name: value.clone() for name, value in fit_run.trained(model).items()},
        tokens=plan.profile.train_tokens,
        shared=found.shared_prompts,
    )
