"""Load a reward model and score answers with it, for alignment, evaluation and the annotation page."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import accumulate
from math import isfinite
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal

import msgspec

from tunectl.artifacts import atomic_io
from tunectl.artifacts.records import Example, ReferenceAnswer, Source
from tunectl.backends.modeling import lora_kernels, model_loader, reward_forward, short_attention
from tunectl.backends.modeling.process_group import ProcessGroup
from tunectl.chat import model_spec, template
from tunectl.chat.loss_mask import LossMasker
from tunectl.chat.tokenizer import Tokenizer
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core import progress
from tunectl.core.errors import ArtifactError
from tunectl.core.optional import import_optional
from tunectl.training import batch_schedule
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.reward.pair_batches import PromptGroup, answer_sequences, pack_sequences
from tunectl.training.reward.protocols import RewardModel, RewardScore, ScoredPrompt
from tunectl.training.reward.reward_artifacts import FACTS, JUDGE, MEMBERS, WEIGHTS, RewardFacts
from tunectl.training.reward.reward_artifacts import Ensemble as Read

Which = Literal["members", "judge"]
FEW = 20
"""Number of batches up to which no progress bar is shown: a step of alignment reads a few and has its own bar."""
WHERE = Source("answer")
"""Source of texts that come from no file."""


def load(*, base: Path, sft: Path, reward: Path, part: Which, profile: HardwareProfile) -> RewardModel:
    """Return the reward model in the artifact folder ``reward``, on ``base`` with the adapter ``sft`` merged in.

    ``part`` is the ensemble that gives rewards in training (members), or the separate model that evaluation uses (judge).
    Raises  ArtifactError where reward.json names another base, adapter or template, where a file was changed, or where there
            is no evaluation model (judge); MissingExtraError.
    """
    verified = load_verified(base=base, sft=sft, reward=reward, part=part)
    return RewardScorer(base, sft, folders(reward, part, verified), verified, profile)


def load_verified(*, base: Path, sft: Path, reward: Path, part: Which) -> Read:
    """Return the entry of ``part`` in reward.json, after comparing its digests with ``base``, ``sft`` and its own weights.

    Raises  ArtifactError where a recorded digest and the actual one differ, or reward.json has no such ``part``.
    """
    facts: RewardFacts = atomic_io.read_json(reward / FACTS, RewardFacts)
    its = model_spec.load(base)
    for what, folder, own, here in (
        ("base weights", base, facts.base, its.weights_sha256),
        ("chat template", base, facts.template, its.template_sha256),
        ("adapter", sft, facts.sft, atomic_io.sha256_path(sft / WEIGHTS)),
    ):
        if own != here:
            raise ArtifactError(
                f"{reward} does not fit {folder}: it was trained on the {what} {own[:12]}…, not {here[:12]}…",
                hint="rebuild it with: tunectl repro --to reward",
            )
    result = facts.members if part == MEMBERS else facts.judge
    if result is None:
        raise ArtifactError(
            f"{reward} has no evaluation model: reward.evaluation_model was null when it was built",
            hint="declare one and build it: tunectl repro 'reward.evaluation_model={share: 0.3, seed_offset: 1}'",
        )
    for folder, digest in zip(folders(reward, part, result), result.weights, strict=True):
        if not (folder / WEIGHTS).is_file() or atomic_io.sha256_path(folder / WEIGHTS) != digest:
            raise ArtifactError(
                f"{folder / WEIGHTS} is not what {reward / FACTS} records ({digest[:12]}…)",
                hint="restore it with: dvc checkout, or rebuild it with: tunectl repro --force --to reward",
            )
    return result


def folders(reward: Path, part: Which, verified: Read) -> list[Path]:
    """Return the adapter folders of ``part``: one per ensemble member, or the one of the separate evaluation model."""
    return (
        [reward / JUDGE] if part == JUDGE else [reward / MEMBERS / str(number) for number in range(len(verified.seeds))]
    )


class EnsembleReader:
    """Computes raw rewards with each member of an ensemble in turn; the base model is in memory once."""

    def __init__(self, model: Path, sft: Path, members: Sequence[Path], profile: HardwareProfile) -> None:
        """Load the reward model; raise ``ArtifactError`` where a file is absent or does not fit."""
        peft = import_optional("peft", extra="train")
        torch = import_optional("torch", extra="train")
        files = import_optional("safetensors.torch", extra="train")
        self._profile = profile
        base = reward_forward.build(model, sft, profile, seed=0).model
        try:
            self._model: Any = peft.PeftModel.from_pretrained(base, members[0])
            self._weights = [files.load_file(str(member / WEIGHTS)) for member in members]
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ArtifactError(
                f"{members[0]} cannot be loaded: {str(error)[:500]}", hint="rebuild it with: tunectl repro --to reward"
            ) from error
        self._model.to(profile.device).eval()
        if profile.device == "cpu":
            short_attention.use_short_attention(self._model)
        fused_layers = lora_kernels.use_fused_lora(self._model)
        layers = sum(1 for module in self._model.modules() if hasattr(module, "lora_A"))
        low = model_loader.dtype(profile) == torch.bfloat16
        self._how = reward_forward.route_of(self._model, autocast=low and fused_layers < layers)

    def supports_packing(self, bundles: Sequence[PromptGroup]) -> bool:
        """Return whether the model supports several answers packed in one row."""
        return reward_forward.supports_side_by_side(self._how, bundles)

    def read(self, rows: Sequence[PackedRow], label: str) -> list[list[float]]:
        """Return raw rewards of all answers of ``rows``: one list per member, with one float per answer. ``label`` names the progress bar."""
        torch = import_optional("torch", extra="train")
        peft = import_optional("peft", extra="train")
        starts = [0, *accumulate(len(row.branches) for row in rows)]
        groups = batch_schedule.token_batches(rows, range(len(rows)), self._profile.train_batch_tokens)
        result = []
        batches = len(groups) * len(self._weights)
        with progress.bar(label, batches) if batches > FEW else nullcontext() as bar:
            for weights in self._weights:
                if len(self._weights) > 1:
                    peft.set_peft_model_state_dict(self._model, weights)
                raw = [0.0] * starts[-1]
                for group in groups:
                    with torch.inference_mode():
                        values = reward_forward.rewards_of(self._how, [rows[number] for number in group]).tolist()
                    indexes = [index for number in group for index in range(starts[number], starts[number + 1])]
                    for index, value in zip(indexes, values, strict=True):
                        raw[index] = value
                    if bar is not None:
                        bar.advance()
                result.append(raw)
        return result

    def close(self) -> None:
        """Release the memory of the models."""
        torch = import_optional("torch", extra="train")
        del self._model, self._how, self._weights
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class RewardScorer:
    """A ``training.reward.protocols.RewardModel`` in this process: the ensemble, or the separate evaluation model."""

    def __init__(
        self, base: Path, sft: Path, members: Sequence[Path], verified: Read, profile: HardwareProfile
    ) -> None:
        """Load the reward model; raise ``ArtifactError`` where a file is absent or does not fit."""
        spec = model_spec.load(sft)
        self._part, self._where = verified, members[0]
        self._masker = LossMasker(
            template.load(base, system=spec.system),
            Tokenizer(base),
            end_of_turn=spec.eot_token.id,
            train_on="final_answer",
        )
        self._reader = EnsembleReader(base, sft, members, profile)
        self._share: bool | None = None

    def score(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> list[RewardScore]:
        if not answers:
            return []
        rows, owners = self._rows(prompts, answers)
        raw = self._reader.read(rows, "rewards")
        scores: list[RewardScore | None] = [None] * len(answers)
        for index, numbers in enumerate(owners):
            score = self._score([member[index] for member in raw])
            for number in numbers:
                scores[number] = score
        return [score for score in scores if score is not None]

    def _rows(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> tuple[list[PackedRow], list[list[int]]]:
        """Return rows with answers side by side, and for each answer in them the indices of all inputs that asked for it."""
        groups: dict[bytes, dict[str, list[int]]] = {}
        for number, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            groups.setdefault(msgspec.json.encode((list(prompt.messages), list(prompt.tools))), {}).setdefault(
                answer, []
            ).append(number)
        examples = []
        for group in groups.values():
            first = next(iter(group.values()))[0]
            texts = [ReferenceAnswer(text, WHERE) for text in group]
            messages, tools = prompts[first]
            examples.append(Example(str(first), WHERE, messages=list(messages), answers=texts, tools=list(tools)))
        rows: list[PackedRow] = []
        owners: list[list[int]] = []
        for masked, group in zip(self._masker.mask(examples), groups.values(), strict=True):
            numbers = list(group.values())
            for row, indices in pack_sequences(answer_sequences(masked), share=self._shares(answer_sequences(masked))):
                rows.append(row)
                owners += [numbers[index] for index in indices]
        return rows, owners

    def _shares(self, whole: list[tuple[int, ...]]) -> bool:
        """Return whether answers side by side in one row do not attend to each other in this model; tried once."""
        if self._share is None:
            if len(whole) < 2:
                return False
            row = pack_sequences(whole[:2], share=True)[0][0]
            self._share = self._reader.supports_packing([PromptGroup((row,), ())])
        return self._share

    def _score(self, raw: Sequence[float]) -> RewardScore:
        if not all(isfinite(value) for value in raw):
            raise ArtifactError(
                f"{self._where}: the reward of an answer is {next(value for value in raw if not isfinite(value))}, not a finite number",
                hint="rebuild it with: tunectl repro --force --to reward",
            )
        centered = [value - center for value, center in zip(raw, self._part.centers, strict=True)]
        return RewardScore(fmean(centered) / self._part.scale, pstdev(centered) / self._part.scale)

    def close(self) -> None:
        """Release the memory of the models."""
        self._reader.close()


class DistributedRewardModel:
    """A reward model on all ranks of a training: the answers are divided among the ranks, and the scores are gathered.

    Answers to the same prompt go to the same rank.
    """

    def __init__(self, model: RewardModel, group: ProcessGroup) -> None:
        """``model`` scores the answers of this rank."""
        self._model, self._group = model, group

    def score(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> list[RewardScore]:
        runs = [index == 0 or prompts[index] != prompts[index - 1] for index in range(len(prompts))]
        turns = list(accumulate(runs))  # index of its prompt, from 1
        own = [index for index, turn in enumerate(turns) if turn % self._group.world_size == self._group.rank]
        scores = self._model.score([prompts[index] for index in own], [answers[index] for index in own])
        return self._group.merge_by_index(dict(zip(own, scores, strict=True)), RewardScore)

    def close(self) -> None:
        """Release the memory of the models."""
        self._model.close()
