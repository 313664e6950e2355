"""From a CSV of one's own to a first verdict, with the commands of docs/own_data.md and a tiny model."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import sweep_project as project

from tunectl.artifacts.paths import ProjectPaths
from tunectl.evaluation import results
from tunectl.pipeline import run_ledger

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(600)


def test_the_commands_of_the_page_end_with_a_verdict(tmp_path: Path, tiny_model: Path) -> None:
    lines = (ROOT / "examples/local_lens/data/campaigns.jsonl").read_text().splitlines()[:120]
    with (tmp_path / "ads.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["prompt", "completion"])
        writer.writerows([row["prompt"][:80], row["completion"][:40]] for row in map(json.loads, lines))
    text = project.tunectl(tmp_path, "init", "shop", "--from", "ads.csv")
    proposed = re.search(r"^next: cd shop && tunectl up (.*?)    ", text, re.MULTILINE)
    assert proposed is not None
    folder = tmp_path / "shop"
    words = [
        *proposed[1].split(),
        "model=folder",
        f"model.source.path={tiny_model}",
        "evaluate.decoding.max_new_tokens=8",
    ]
    text = project.tunectl(folder, "up", "--no-console", *words, code=3)  # a tiny random model learns nothing
    assert "this was a first look" in text
    shown = re.findall(r"^(Input|Base|Tuned)\b", text, re.MULTILINE)
    assert shown == ["Input", "Base", "Tuned"] * 3, "three test inputs, answered before and after training"
    assert "next: tunectl repro --reset-overrides" in text
    layout = ProjectPaths(folder)
    found = results.load(layout.artifact("evaluate") / results.NAME)
    assert [system.name for system in found.systems] == ["base", "prompted", "nearest", "tuned"]
    last = run_ledger.read_run(layout, run_ledger.list_runs(layout)[0])
    assert (last.exit_code, last.failure, last.primary) == (3, None, "bleu")
    assert last.verdicts["evaluate"].reason in text
    assert last.curves["sft"]["loss"]
