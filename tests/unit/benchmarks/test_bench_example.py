"""The benchmark of other seeds: what counts as better, and which rows stand in its table."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))

import bench_example  # noqa: E402


def make_row(rate: tuple[float, float, float], bleu: tuple[float, float, float]) -> dict[str, Any]:
    """A row with that win rate and that difference in BLEU."""
    return {
        "instructions": "native",
        "settings": "now",
        "machine": {"processor": "a processor"},
        "seed": 101,
        "reward": {"accuracy": 0.8, "accuracy_low": 0.75, "accuracy_high": 0.85, "judge_accuracy": 0.7},
        "win_rates": {"reward": list(rate)},
        "differences": {"checks": [1.0, -1.0, 3.0], "bleu": list(bleu)},
        "seconds": {"align": 120, "reward": 60},
    }


def test_an_interval_counts_by_its_end() -> None:
    """A win rate is sure above one half, a loss below; a measure is lower where its whole interval is."""
    rows = [
        make_row((0.6, 0.51, 0.7), (-0.5, -1.5, 0.5)),
        make_row((0.6, 0.49, 0.7), (-2.0, -3.0, -1.0)),
        make_row((0.4, 0.3, 0.49), (0.0, -1.0, 1.0)),
        {**make_row((0.6, 0.51, 0.7), (0.0, -1.0, 1.0)), "win_rates": {}},
    ]
    assert bench_example.summarize(rows) == {
        "runs": 4,
        "judged": 3,
        "surely_better": 1,
        "surely_worse": 1,
        "measures_surely_lower": 1,
    }


def test_the_table_tells_each_row_and_the_counts() -> None:
    """The figures of a row stand in its line."""
    row = make_row((0.6, 0.51, 0.7), (-0.5, -1.5, 0.5))
    table = bench_example.make_table([row, {**row, "win_rates": {}}], [{**row, "settings": "before"}])
    line = "| now | native | a processor | 101 | 80.0% (75.0 to 85.0) | 70.0% | 60.0% (51.0 to 70.0) | +1.0 (-1.0 to +3.0) | -0.5 (-1.5 to +0.5) | 3 |"
    now, before = table.split("## Earlier settings")
    assert line in now
    assert line.replace("now", "before") in before
    assert (
        "Of 2 runs the interval of the win rate lies above 50 % in 1, and below in 0; in 1 the judge was no better"
        in now
    )
    assert "| no verdict |" in now


def test_the_digest_of_settings_leaves_out_the_seeds_that_change(tmp_path: Path) -> None:
    """The same settings with another seed of align are the same; another seed of sft is another model."""
    folder = tmp_path / "artifacts" / "config"
    folder.mkdir(parents=True)

    def digest(sft: int, align: int, steps: int = 6) -> str:
        for name, seed in (("sft", sft), ("align", align)):
            settings = {"settings": {"seed": seed, "steps": steps}}
            (folder / f"{name}.json").write_text(json.dumps(settings))
        return bench_example.digest_settings(tmp_path)

    first = digest(17, 17)
    assert digest(17, 101) == first
    assert digest(18, 17) != first
    assert digest(17, 17, steps=8) != first
