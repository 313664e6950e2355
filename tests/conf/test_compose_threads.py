"""Hydra's state is that of the process: threads of the console compose one after the other."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks

ROOT = Path(__file__).parents[2]


def test_threads_compose_at_once(tmp_path: Path) -> None:
    layout = ProjectPaths(tmp_path)
    layout.conf.symlink_to(ROOT / "conf")
    with ThreadPoolExecutor(4) as pool:
        ranks = list(
            pool.map(
                lambda rank: checks.load_project_config(layout, [f"sft.lora_rank={rank}"]).root.sft.lora_rank,
                range(1, 9),
            )
        )
    assert ranks == list(range(1, 9))
