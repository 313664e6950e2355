"""Choose which stages run on several processes, and their backends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from tunectl.artifacts import atomic_io
from tunectl.config.schema.launch import LaunchConfig, LocalLaunch, RayLaunch, TorchrunLaunch
from tunectl.training.fit_request import FitLauncher

TRAINED: Final = frozenset(("cpt", "sft", "reward", "align"))
"""Stages that train over a fixed schedule of steps."""
WRITERS: Final = frozenset(("evaluate", "preferences", "package"))
"""Stages that only generate answers: inputs are divided among the processes of this machine."""


def _do_nothing() -> None:
    """Do nothing: there is nothing to stop."""


@dataclass
class LaunchedBackends:
    """Backends that replace a stage's own to run it on several processes, and a record of how they ran."""

    method: str
    backends: dict[str, Any] = field(default_factory=dict)
    ends: list[Any] = field(default_factory=list)
    shard: str = "none"
    close: Callable[[], None] = _do_nothing
    """Called when the stage ends, also after an error."""

    def record(self) -> dict[str, Any]:
        """Return the metrics ``launch`` of the stage: method, ranks, nodes, device, restarts; empty if no model was trained or loaded."""
        if self.method == "local":
            return {"launch": {"method": "local", "ranks": 1}}
        if not self.ends:
            return {}
        last = self.ends[-1]
        return {
            "launch": {
                "method": self.method,
                "ranks": last.ranks,
                "nodes": last.nodes,
                "device": last.device,
                "shard": self.shard,
                "restarts": sum(end.restarts for end in self.ends),
            }
        }


def read(path: Path) -> LaunchConfig:
    """Return the launch settings that ``compose`` wrote to ``path``; those of one local process if there is no such file."""
    if not path.is_file():
        return LaunchConfig(LocalLaunch(method="local"))
    return LaunchConfig.model_validate(atomic_io.read_json(path))


def launch_backends(stage: str, config: LaunchConfig, own: Any = None) -> LaunchedBackends | None:
    """Return the backends with which ``stage`` runs as ``config`` says; None for a stage that ``config`` does not concern.

    ``own``: the stage's settings, needed where it generates answers.
    """
    settings = config.root
    if stage in WRITERS and isinstance(settings, TorchrunLaunch):
        return _divide_inputs(stage, settings, own)
    if stage not in TRAINED:
        return None
    if isinstance(settings, LocalLaunch):
        return LaunchedBackends(settings.method)
    launcher = _build_launcher(settings)
    return LaunchedBackends(
        settings.method, _build_backends(stage, launcher), launcher.ends, settings.shard, lambda: launcher.close(stage)
    )


def _divide_inputs(stage: str, settings: TorchrunLaunch, own: Any) -> LaunchedBackends:
    """Return backends whose models are held by the processes of this machine."""
    from tunectl.backends.launchers.model_replicas import ReplicaLauncher
    from tunectl.backends.wiring import evaluation, packaging, preferences

    launcher = ReplicaLauncher(stage, settings, own.hardware)
    backends: dict[str, Any]
    if stage == "evaluate":
        tools = evaluation.build_backend(own.hardware, own.evaluate.judge)
        backends = {"backend": replace(tools, open=launcher.open_generator)}
    elif stage == "preferences":
        backends = {"backend": replace(preferences.build_backend(own.hardware), open=launcher.open_generator)}
    else:
        backends = {"tools": packaging.PackagingBackend(own.hardware, launcher.open_reference)}
    return LaunchedBackends(settings.method, backends, launcher.ends)


def _build_backends(stage: str, launcher: FitLauncher) -> dict[str, Any]:
    """Return the arguments of ``run`` of ``stage`` that run its trainings on ``launcher``."""
    from tunectl.backends.launchers import launched_trainers

    if stage == "reward":
        return {"trainer": launched_trainers.LaunchedRewardTrainer(launcher)}
    if stage != "align":
        return {"trainer": launched_trainers.LaunchedSftTrainer(launcher)}
    from tunectl.backends.wiring import align

    trainer = launched_trainers.LaunchedPolicyTrainer(launcher)
    tools = replace(align.build_backend(), trainer=lambda _: trainer, reward=trainer.check_reward_model)
    return {"tools": tools}


def _build_launcher(settings: TorchrunLaunch | RayLaunch) -> FitLauncher:
    if isinstance(settings, RayLaunch):
        from tunectl.backends.launchers.ray_launcher import RayLauncher

        return RayLauncher(settings)
    from tunectl.backends.launchers.torchrun_launcher import TorchrunLauncher

    return TorchrunLauncher(settings)
