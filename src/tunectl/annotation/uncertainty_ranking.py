"""Uncertainty of the reward model about each annotation task, by which the page orders them; computed beside the page, and cached."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import to_builtins

from tunectl.artifacts import atomic_io, manifest
from tunectl.artifacts.paths import ProjectPaths

if TYPE_CHECKING:
    from tunectl.config.schema.root import TunectlConfig
    from tunectl.preferences.annotation_store import AnnotationTask

RANDOM = "Questions come in random order: {reason}."
DOUBT = "Questions that the reward model is least sure of come first."


def why_unranked(layout: ProjectPaths) -> str | None:
    """Return why tasks cannot be ordered by a reward model; None where they can."""
    folder = layout.artifact("reward")
    if not (folder / manifest.NAME).is_file():
        return "there is no reward model yet (tunectl repro --to reward)"
    if (folder / manifest.PASSED_THROUGH).is_file():
        return "the reward model is switched off (reward: none)"
    verdict: dict[str, object] = atomic_io.read_json(folder / "verdict.json", dict[str, object])
    return None if verdict["passed"] else "the reward model did not pass its gate"


def rank_by_uncertainty(layout: ProjectPaths, root: TunectlConfig, tasks: Sequence[AnnotationTask]) -> dict[str, float]:
    """Return the uncertainty of each task by its id, 0 to 0.5; values computed with the same models are read from the cache.

    Raises  ArtifactError when the reward model belongs to other models, or one of them is not there.
    """
    from tunectl.annotation.active_sampling import preference_uncertainty
    from tunectl.backends.modeling import reward_scorer
    from tunectl.training.reward.protocols import ScoredPrompt

    folders = {name: layout.artifact(name) for name in ("model", "cpt", "sft", "reward")}
    stamps = {name: atomic_io.sha256_json(to_builtins(manifest.read(folder))) for name, folder in folders.items()}
    path = layout.cache / f"doubt-{atomic_io.sha256_json(stamps)[:16]}.json"
    doubts: dict[str, float] = atomic_io.read_json(path, dict[str, float]) if path.is_file() else {}
    new = [task for task in tasks if not task.attention and task.id not in doubts]
    if new:
        base = folders["model"] if manifest.read(folders["cpt"]).passed_through else folders["cpt"]
        model = reward_scorer.load(
            base=base, sft=folders["sft"], reward=folders["reward"], part="members", profile=root.hardware
        )
        try:
            scores = model.score(
                [ScoredPrompt(item.messages, item.tools) for item in new for _ in range(2)],
                [text for item in new for text in item.answers],
            )
        finally:
            model.close()
        pairs = zip(scores[::2], scores[1::2], strict=True)
        doubts |= {
            item.id: preference_uncertainty(first, second) for item, (first, second) in zip(new, pairs, strict=True)
        }
        atomic_io.write_json(path, doubts)
    return doubts
