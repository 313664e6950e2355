"""The trainers of sft, cpt and reward, on several processes: the same calls, carried out by a launcher."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunectl.backends.trainers.reward_trainer import RewardModelTrainer
from tunectl.training.fit_request import FitJob, FitLauncher
from tunectl.training.prefix_sharing import PackedRow
from tunectl.training.protocols import TrainResult
from tunectl.training.reward.pair_batches import PromptGroup
from tunectl.training.reward.reward_args import RewardArgs
from tunectl.training.train_args import TrainingArgs


class LaunchedSftTrainer:
    """Fit on several processes what ``SftTrainer`` fits in this one."""

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
    """Fit a reward model on several processes; read rewards in this one."""

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
