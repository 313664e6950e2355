"""Builds of trials are sent when a sweep or a worker ends, also by Ctrl-C."""

from __future__ import annotations

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

from tunectl.backends.vcs import git_worktree
from tunectl.cli import sweep_run, sweep_show, sweep_worker
from tunectl.config.loading import checks
from tunectl.pipeline import build_tracking, sweep_setup
from tunectl.pipeline import sweep_worker as workers

STUDY = SimpleNamespace(
    name="s", definition=SimpleNamespace(commit="c"), set_limits=lambda *_: None, set_stopped=lambda _: None
)


@pytest.mark.parametrize("ends", [None, KeyboardInterrupt])
@pytest.mark.parametrize("verb", [sweep_run, sweep_worker])
def test_a_sweep_that_ends_sends_its_builds(
    monkeypatch: pytest.MonkeyPatch, verb: Any, ends: type[BaseException] | None
) -> None:
    sent: list[object] = []

    def run_workers(*_: object, **__: object) -> int:
        assert not sent
        if ends:
            raise ends
        return 1

    section = SimpleNamespace(max_hours=None, workers=1, confirm=False)
    plan = SimpleNamespace(section=section, track="the trackers")
    monkeypatch.setattr(workers, "run_workers", run_workers)
    monkeypatch.setattr(build_tracking, "start_sync", lambda _, settings: sent.append(settings))
    monkeypatch.setattr(sweep_show, "open_named", lambda *_: (STUDY, []))
    monkeypatch.setattr(sweep_show, "print_summary", lambda *_, **__: None)
    monkeypatch.setattr(sweep_setup, "load_plan", lambda *_: plan)
    monkeypatch.setattr(sweep_setup, "open_or_create", lambda *_: STUDY)
    monkeypatch.setattr(git_worktree, "revision", lambda _: "c")
    resolved = SimpleNamespace(root=SimpleNamespace(track="the trackers"))
    monkeypatch.setattr(checks, "load_project_config", lambda *_: resolved)
    args = argparse.Namespace(arguments=["s"], overrides=[])
    if ends:
        with pytest.raises(ends):
            verb.run(args)
    else:
        assert verb.run(args) == 0
    assert sent == ["the trackers"]
