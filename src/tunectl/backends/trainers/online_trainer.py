"""TRL's ``RLOOTrainer`` and ``GRPOTrainer`` with our generation, log-probabilities and rewards in place of theirs."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from tunectl.backends.modeling.decoding import GenerationState
from tunectl.backends.trainers import rl_validation, rollout, trainer_base
from tunectl.backends.trainers.rl_args import to_rl_config
from tunectl.backends.trainers.rollout import PolicyRun
from tunectl.config.schema.align import Grpo, Rloo
from tunectl.core.optional import import_optional
from tunectl.training.rl.rl_types import RlArgs


class OnlineTrainerMixin(trainer_base.PolicyTrainerMixin):
    """Mixin over TRL's RLOOTrainer or GRPOTrainer: replaces generation, log-probabilities and rewards.

    The attribute ``run`` must be set before training starts.
    """

    run: PolicyRun

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Any:
        """Generate, score and train on one step; return its loss as a scalar tensor."""
        run = self.run
        model.train()
        trl_inputs = rollout.start(run, inputs["numbers"], self.state.global_step + 1)
        batch = self._generate_and_score_completions(trl_inputs)
        rollout.compute_reference_logprobs(run, batch["completion_mask"].shape[1])
        with run.state.time_block("learn"):
            loss = self._learn(model, batch)
        run.stopped = run.group.agree_to_stop(run.stopped)
        rollout.check_kl(run)
        trainer_base.require_finite_loss(run, run.turn.number, loss)
        run.state.answers += len(run.turn.lines)
        run.state.history.append(rollout.build_step_metrics(run, loss, self._get_learning_rate()))
        return import_optional("torch", extra="train").tensor(loss, device=self.args.device)

    def _learn(self, model: Any, batch: dict[str, Any]) -> float:
        """Forward and backward over all micro-batches, with TRL's loss; returns the loss of the step."""
        torch = import_optional("torch", extra="train")
        turn, total = self.run.turn, 0.0
        answers = len(turn.lines)
        for part in rollout.split_micro_batches(self.run):
            indices = torch.tensor(part.indices, device=self.args.device)
            turn.part = part
            turn.inputs = {
                key: value[indices] if torch.is_tensor(value) and value.shape[:1] == (answers,) else value
                for key, value in batch.items()
            }
            loss = self._compute_loss(model, turn.inputs) * rollout.loss_weight(self.run.settings, turn.inputs, batch)
            self.accelerator.backward(loss)
            total += float(loss.detach())
        self.run.group.sum_gradients(model)
        return self.run.group.sum(total)[0]

    def _tokenize_prompts(self, prompts: list[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
        """Return the token ids of the prompts, which were tokenized before."""
        return [list(prompt.ids) for prompt in self.run.turn.prompts], None, {}

    def _generate_single_turn(self, prompt_ids: Any, images: Any, multimodal: Any, *rest: Any, **more: Any) -> Any:
        """Return token lists of the answers; GRPO also needs log-probabilities, which only vLLM's answers require."""
        run = self.run
        with run.state.time_block("generate"):
            if not self.use_vllm:
                rollout.generate_completions(run)
                ids = [list(line.answer) for line in run.turn.lines]
                return ids if isinstance(run.settings, Rloo) else (ids, None)
            result = super()._generate_single_turn(prompt_ids, images, multimodal, *rest, **more)
            ids = result if isinstance(run.settings, Rloo) else result[0]
            pairs = zip(prompt_ids, ids, strict=True)
            stops = set(self.eos_token_ids)
            lines = [GenerationState(list(prompt), list(own), finished=own[-1] in stops) for prompt, own in pairs]
            rollout.add_completions(run, lines)
            return result

    def _calculate_rewards(self, *_args: Any, **_kwargs: Any) -> Any:
        """Return (answers, 1): the declared reward; NaN, which TRL leaves out of every mean, for answers that were cut."""
        with self.run.state.time_block("reward"):
            result = rollout.score_answers(self.run)
        torch = import_optional("torch", extra="train")
        return torch.tensor(result, dtype=torch.float32, device=self.args.device)[:, None]

    def _get_per_token_logps_and_entropies(
        self, model: Any, input_ids: Any, attention_mask: Any, logits_to_keep: int, *_args: Any, **_kwargs: Any
    ) -> tuple[Any, Any, None]:
        """Return (answers, longest): nats of each token. With gradients where the loss needs them, else of generation or of sft."""
        run = self.run
        if import_optional("torch", extra="train").is_grad_enabled():
            return self._read_part(logits_to_keep)
        if _adapters_off(model):
            return rollout.compute_reference_logprobs(run, logits_to_keep), None, None
        sampling_logprobs = rollout.get_sampling_logprobs(run, logits_to_keep)
        return (
            (rollout.compute_logprobs(run, logits_to_keep) if sampling_logprobs is None else sampling_logprobs),
            None,
            None,
        )

    def _read_part(self, width: int) -> tuple[Any, Any, None]:
        torch = import_optional("torch", extra="train")
        turn = self.run.turn
        assert turn.part is not None
        nats = rl_validation.token_logprobs(self.run.policy, turn.part.rows, width, self.run.settings.temperature)
        # one step per generation: the policy that is trained generated the answers
        turn.inputs["old_logps"] = nats.detach().sum(dim=1)
        reference = turn.reference[list(turn.part.indices)]
        turn.kl += (nats.detach() - reference).sum(dim=1).tolist()
        return nats, torch.full_like(nats, torch.nan), None  # entropies would need a pass over all logits

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as TRL does, without the entropy, which is not measured here; ``start_time`` is passed on to TRL."""
        self._metrics["train"].pop("entropy", None)
        super().log(logs, start_time)


def build_trainer(plan: RlArgs, settings: Rloo | Grpo, model: Any, tokenizer: Any, work: Path) -> Any:
    """Return TRL's trainer for ``settings`` over a peft model."""
    datasets = import_optional("datasets", extra="train")
    kind = trainer_base.mix_into_trl(OnlineTrainerMixin, "RLOOTrainer" if isinstance(settings, Rloo) else "GRPOTrainer")
    callback = trainer_base.make_callback_class()()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # TRL asks transformers by an old name
        trainer = kind(
            model=model,
            reward_funcs=[_reward],
            args=to_rl_config(plan, settings, work),
            # a placeholder: the rows come from our data loader
            train_dataset=datasets.Dataset.from_list([{"prompt": ""}]),
            processing_class=tokenizer,
            callbacks=[callback],
        )
    callback.trainer = trainer
    if "ref" in model.peft_config:  # drop TRL's reference model: sft's weights are put into the adapter for one pass
        model.delete_adapter("ref")
    trainer_base.mute_progress(trainer)
    return trainer


def _reward(**_kwargs: Any) -> list[float]:
    """Return the placeholder that TRL requires; ``_calculate_rewards`` computes the declared rewards."""
    raise NotImplementedError


def _adapters_off(model: Any) -> bool:
    """Return whether TRL has switched the adapter off, which is how it asks for the reference."""
    return any(getattr(module, "disable_adapters", False) is True for module in model.modules())
