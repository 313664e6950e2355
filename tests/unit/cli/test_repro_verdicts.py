"""How `tunectl repro` ends where a gate said no."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from console_records import add_evaluation
from msgspec.structs import replace

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import repro
from tunectl.core.errors import GateError
from tunectl.evaluation import results
from tunectl.evaluation.alignment_facts import AlignmentCause
from tunectl.evaluation.results import AlignedVerdict

NO = {
    "passed": False,
    "verdict": "no_better_than_chance",
    "reason": "The reward model knows no more than chance.",
    "evidence": [],
    "helps": ["More pairs.", "Agree first."],
}
YES = {"passed": True, "verdict": "tuned_better", "reason": "Tuned is better.", "evidence": []}


def given(root: Path, **verdicts: dict[str, Any]) -> ProjectPaths:
    layout = ProjectPaths(root)
    for name, found in verdicts.items():
        atomic_io.write_json(layout.artifact(name) / "verdict.json", found)
    return layout


def test_a_no_of_reward_ends_with_exit_3_though_nothing_was_aligned(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = given(tmp_path, reward=NO, evaluate=YES)
    with pytest.raises(GateError) as caught:
        repro._summarize(layout, 1.0, as_json=False)
    assert caught.value.exit_code == 3
    assert caught.value.message == "reward: The reward model knows no more than chance."
    assert caught.value.hint == (
        "what would help: More pairs.\n  what would help: Agree first.\n"
        f"  the evidence is in {layout.artifact('reward')}"
    )
    assert "evaluate: Tuned is better." in capsys.readouterr().out


def test_every_no_is_said(tmp_path: Path) -> None:
    layout = given(tmp_path, reward=NO, evaluate=YES | {"passed": False, "reason": "Do not tune."})
    with pytest.raises(GateError) as caught:
        repro._summarize(layout, 1.0, as_json=True)
    assert caught.value.message == "reward: The reward model knows no more than chance.\nevaluate: Do not tune."


def test_all_said_yes(tmp_path: Path) -> None:
    repro._summarize(given(tmp_path, reward=YES, evaluate=YES), 1.0, as_json=False)


def test_what_comes_after_the_target_is_of_an_earlier_run_and_neither_told_nor_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = given(tmp_path, reward=YES | {"reason": "It knows."}, evaluate=NO, package=NO)
    atomic_io.write_json(layout.artifact("evaluate") / "results.json", {"of": "an earlier run"})
    repro._summarize(layout, 1.0, targets=["sft", "align"], as_json=False)
    assert capsys.readouterr().out == (
        "reward: It knows.\nleft as before: evaluate, package; tunectl repro goes on with them\n"
    )
    repro._summarize(layout, 1.0, targets=["align"], as_json=True)
    assert json.loads(capsys.readouterr().out)["results"] is None
    with pytest.raises(GateError):
        repro._summarize(layout, 1.0, targets=["align", "evaluate"], as_json=True)


def test_why_aligning_may_gain_nothing_is_printed_after_the_verdicts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_evaluation(tmp_path)
    layout = given(tmp_path, reward=YES)
    path = layout.artifact("evaluate") / results.NAME
    found = results.load(path)
    causes = [AlignmentCause("answers_cut", "70 % were cut.", "A larger limit.", 0.6)]
    aligned = AlignedVerdict(True, "aligned_no_better", "Aligned is no better.", causes=causes)
    atomic_io.write_json(path, replace(found, verdict=replace(found.verdict, aligned=aligned)))
    repro._summarize(layout, 1.0, targets=["evaluate"], as_json=False)
    lines = capsys.readouterr().out.splitlines()
    line = "why aligned may gain nothing: 70 % were cut. What to try: A larger limit."
    assert lines.index("evaluate: Tuned is better: +12.0 BLEU.") < lines.index(line)
