"""The worktree of a trial: one worker at a time, and whole."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sweep_fixtures as fixtures
import sweep_project as project
from msgspec.structs import replace

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.vcs import dvc_repo, git_worktree
from tunectl.config.schema.sweep import Sweep
from tunectl.pipeline.sweep_trial import WorktreeTrials
from tunectl.sweeps.trial_records import TrialClaim, TrialState, TrialSummary


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WorktreeTrials:
    """Trials of a project without a build: its worktrees are Git's alone."""
    monkeypatch.setattr(dvc_repo, "share_cache", lambda *_: None)
    folder = project.make(tmp_path / "shop", build=False)
    made = replace(fixtures.definition(), commit=git_worktree.revision(folder))
    return WorktreeTrials(ProjectPaths(folder), Sweep.model_validate(made.section), made)


def test_a_worktree_whose_removal_was_cut_off_is_made_anew(
    trials: WorktreeTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = trials.folder / "trial-0"
    opened = trials._open_worktree(path, [], str(path))
    (opened / "kept").touch()
    assert (trials._open_worktree(path, [], str(path)) / "kept").exists(), "that of an earlier attempt is kept"

    def cut_off(*_: object) -> None:
        (opened / "sft.py").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(git_worktree, "remove", cut_off)
        with pytest.raises(KeyboardInterrupt):
            trials.remove("trial-0")
    assert (trials._open_worktree(path, [], str(path)) / "sft.py").exists()


def test_a_trial_waits_for_a_worker_that_still_builds_it(
    trials: WorktreeTrials, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stop = threading.Event(), threading.Event()
    monkeypatch.setattr(WorktreeTrials, "build", lambda *_: begun.set())
    claim = TrialClaim(number=0, id=1, overrides=[], attempt=2, start=False)
    with trials._lock("trial-0"):
        thread = threading.Thread(target=trials.run, args=(claim, {}, stop))
        thread.start()
        assert not begun.wait(2.0)
        stop.set()
        thread.join(10.0)
        assert not thread.is_alive()
    assert not begun.is_set()


def test_worktrees_of_trials_that_have_ended_are_removed_and_those_in_use_are_not(trials: WorktreeTrials) -> None:
    for number in range(3):
        trials._open_worktree(trials.folder / f"trial-{number}", [], "mark")
    with trials._lock("trial-1"):
        trials.remove_ended([summarize(0, "failed"), summarize(1, "complete"), summarize(2, "running")])
    assert sorted(path.name for path in trials.folder.glob("trial-*")) == ["trial-1", "trial-2"]


def summarize(number: int, state: TrialState) -> TrialSummary:
    known = {"values": None, "settings": {}, "overrides": [], "start": False, "attempts": 1, "steps": 0}
    return TrialSummary(number=number, state=state, seconds=None, stages=0, reused=0, reason="", **known)
