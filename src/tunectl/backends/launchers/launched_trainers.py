"""The trainers of sft, cpt, reward and align, on several processes: the same calls, carried out by a launcher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunectl.backends.modeling import reward_scorer
from tunectl.backends.trainers.reward_trainer import RewardModelTrainer
from tunectl.config.schema.hardware import HardwareProfile
from tunectl.core.errors import TunectlError
from tunectl.training.fit_request import FitJob, FitLauncher
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import TrainResult
from tunectl.training.reward.pair_batches import PromptGroup
from tunectl.training.reward.protocols import RewardModel, RewardScore, ScoredPrompt
from tunectl.training.reward.reward_args import RewardArgs
from tunectl.training.rl.rl_types import PolicyData, RewardFunctions, RlArgs, RlResult
from tunectl.training.train_args import TrainingArgs


class LaunchedSftTrainer:
    """Trainer of sft and cpt that runs ``SftTrainer`` on the processes of a launcher."""

    def __init__(self, launcher: FitLauncher) -> None:
        """``launcher`` starts the processes."""
        self._launcher = launcher

    def fit(
        self,
        plan: TrainingArgs,
        *,
        model: Path,
        train: Sequence[PackedRow],
        validation: Sequence[PackedRow],
        out: Path,
        work: Path,
    ) -> TrainResult:
        return self._launcher.run(FitJob("sft", plan, model, None, train, validation, out, work)).result


class LaunchedRewardTrainer(RewardModelTrainer):
    """Trainer of reward models on the processes of a launcher; rewards are computed in this process."""

    def __init__(self, launcher: FitLauncher) -> None:
        """``launcher`` starts the processes."""
        super().__init__()
        self._launcher = launcher

    def fit(
        self,
        plan: RewardArgs,
        *,
        model: Path,
        sft: Path,
        train: Sequence[PromptGroup],
        validation: Sequence[PromptGroup],
        out: Path,
        work: Path,
    ) -> TrainResult:
        return self._launcher.run(FitJob("reward", plan, model, sft, train, validation, out, work)).result


class LaunchedPolicyTrainer:
    """Trainer of align on the processes of a launcher: each process builds its own rewards and validation metric from the settings."""

    def __init__(self, launcher: FitLauncher) -> None:
        """``launcher`` starts the processes."""
        self._launcher = launcher
        self._reward: Path | None = None

    def check_reward_model(self, base: Path, sft: Path, reward: Path, _profile: HardwareProfile) -> RewardModel:
        """Check the reward model in the folder ``reward``, and remember it for the ranks; returns a placeholder that cannot score.

        Raises  ArtifactError where it belongs to another base model or adapter, or one of its files was changed.
        """
        reward_scorer.load_verified(base=base, sft=sft, reward=reward, part="members")
        self._reward = reward
        return RemoteRewardModel()

    def fit(
        self, plan: RlArgs, *, model: Path, sft: Path, data: PolicyData, judges: RewardFunctions, out: Path, work: Path
    ) -> RlResult:
        """Train on all ranks and return the result; ``judges`` is not used, because each rank builds its own."""
        result: RlResult = self._launcher.run(
            FitJob("align", plan, model, sft, [data], (), out, work, self._reward)
        ).result
        return result


class RemoteRewardModel:
    """Placeholder of a reward model that only the ranks load; scoring with it is a bug."""

    def score(self, prompts: Sequence[ScoredPrompt], answers: Sequence[str]) -> list[RewardScore]:
        """Raise TunectlError: only ranks score."""
        raise TunectlError(
            "bug: RemoteRewardModel.score was called in the stage process; only the ranks load the reward model"
        )

    def close(self) -> None:
        """Do nothing: no model is loaded in this process."""
