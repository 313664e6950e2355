"""The whole loop, once, with a tiny model: real service, monitor, retrain controller, Git, DVC, training, engines, Prometheus and Alertmanager.

The same chapters as `make loop`: drift, alert, webhook, feedback, dvc repro, gate, canary, promotion without a dropped request, no drift
against the new reference; a challenger that the gate rejects, and one that the canary test stops.
"""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

import local_stack
import loop_demo_fixtures  # noqa: F401  makes the example importable
import pytest
import tiny_demo_project
from loop_demo import chapters, runner, timeline_text
from loop_demo.console_log import ConsoleLog
from loop_demo.timeline import Timeline

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.inference_log.training_window import FeedbackWindow
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    if not local_stack.INSTALLED:
        pytest.skip(local_stack.NOT_INSTALLED)
    from rich.console import Console

    folder = tmp_path_factory.mktemp("loop")
    before = dict(os.environ)
    os.environ.update(tiny_demo_project.environment())
    try:
        scenario = tiny_demo_project.create_scenario(folder, tiny_model)
        console = Console(file=sys.stdout, width=120)
        found = runner.run_demo(scenario, ConsoleLog(console, len(chapters.CHAPTERS)), began=datetime.now(UTC))
        timeline_text.print_timeline(found, console)
        runner.write_timeline(found, folder / "out", scenario.project / runner.RETRAINS_PAGE)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return scenario, found, folder / "out"


def test_every_check_passes(demo_run: tuple) -> None:
    _, found, _ = demo_run
    assert [item for item in found.checks if not item.passed] == []
    assert len(found.checks) == 13, "no check was skipped"


def test_the_records_match_the_run(demo_run: tuple) -> None:
    scenario, _, _ = demo_run
    runs = RunStore(ProjectPaths(scenario.project).retrain).runs()
    assert [run.state for run in runs] == ["promoted", "rejected", "withdrawn"]
    first, second, third = runs
    assert (first.trigger.kind, first.trigger.author) == ("alert", "Alertmanager")
    assert [run.trigger.release for run in (second, third)] == [scenario.poor.release, scenario.build_harmful().release]
    store = ReleaseRegistry(scenario.project / ".tunectl" / "releases")
    assert store.champion().release == first.facts("evaluating")["release"]
    events = [(entry.action, entry.release) for entry in store.log() if entry.action != "add"]
    better, worse = store.champion().release, scenario.build_harmful().release
    assert [what for what, _ in events] == [
        "promote",
        "canary_start",
        "promote",
        "canary_stop",
        "canary_start",
        "canary_stop",
    ]
    assert [release for _, release in events[1:]] == [better, better, better, worse, worse]
    named = atomic_io.read_json(scenario.project / "inference_log" / "window.json", FeedbackWindow)
    assert [one.window for one in named.snapshots] == [first.facts("proposed")["window"]["id"]]
    assert (
        f"sft.init_adapter=.tunectl/init_adapters/{first.facts('proposed')['champion']}"
        in tiny_demo_project.load_recorded_overrides(scenario.project)
    )


def test_the_timeline_has_every_lane_and_the_times_of_the_records(demo_run: tuple) -> None:
    _, found, out = demo_run
    assert found.lanes == ["users", "monitor", "alert", "retrain", "build", "canary", "champion"]
    assert {one.label for one in found.spans if one.lane == "build"} >= {
        "compose",
        "feedback",
        "curate",
        "sft",
        "package",
    }
    moments = {
        one.label: one.at for one in reversed(found.marks)
    }  # the first of each: more windows close during the build
    assert moments["drift"] <= moments["webhook"] + 1
    assert all(0 <= one.since <= one.until <= found.seconds + 1 for one in found.spans)
    again = json.loads((out / "timeline.json").read_text())
    assert again["seconds"] == found.seconds
    assert "</html>" in (out / "timeline.html").read_text()
    assert (out / "timeline.png").stat().st_size > 20_000
    assert "<h2>Retrains, the newest first</h2>" in (out / "retrains.html").read_text()


def test_no_process_worktree_or_canary_is_left(demo_run: tuple) -> None:
    scenario, found, _ = demo_run
    assert isinstance(found, Timeline)
    mine = str(scenario.project).encode()
    left = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").readlink() == scenario.project or mine in (place / "cmdline").read_bytes():
                left.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    assert left == []
    assert not (scenario.project / ".tunectl" / "retrain" / "worktree").exists()
    assert not (scenario.project / ".tunectl" / "releases" / "canary.json").exists()
