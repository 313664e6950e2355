"""The whole loop, once, with a tiny model: real service, monitor, watcher, Git, DVC, training, engines, Prometheus and Alertmanager.

The same chapters as `make loop`, in the same words: drift, alert, webhook, feedback, dvc repro, gate, canary, promotion without a
dropped request, calm; a challenger that the gate rejects, and one that is rolled back because people are worse off.
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
from loop_demo.console_log import Narrator
from loop_demo.timeline import Timeline

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.inference_log.training_window import FeedbackWindow
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining.run_store import RunStore

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path):
    if not local_stack.THERE:
        pytest.skip(local_stack.MISSING)
    from rich.console import Console

    folder = tmp_path_factory.mktemp("loop")
    before = dict(os.environ)
    os.environ.update(tiny_demo_project.environment())
    try:
        scene = tiny_demo_project.scene(folder, tiny_model)
        console = Console(file=sys.stdout, width=120)
        found = runner.perform(scene, Narrator(console, len(chapters.CHAPTERS)), began=datetime.now(UTC))
        timeline_text.show(found, console)
        runner.write(found, folder / "out", scene.project / runner.STORIES)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return scene, found, folder / "out"


def test_every_promise_is_kept(played: tuple) -> None:
    _, found, _ = played
    assert chapters.promises(found.promises) == []
    assert len(found.promises) == 13, "and none was left out"


def test_the_records_tell_the_same_story(played: tuple) -> None:
    scene, _, _ = played
    runs = RunStore(ProjectPaths(scene.project).retrain).runs()
    assert [run.state for run in runs] == ["promoted", "rejected", "withdrawn"]
    first, second, third = runs
    assert (first.trigger.kind, first.trigger.author) == ("alert", "Alertmanager")
    assert [run.trigger.release for run in (second, third)] == [scene.poor.release, scene.harmful.release]
    store = ReleaseRegistry(scene.project / ".tunectl" / "releases")
    assert store.champion().release == first.facts("evaluating")["release"]
    told = [(entry.action, entry.release) for entry in store.log() if entry.action != "add"]
    better, worse = store.champion().release, scene.harmful.release
    assert [what for what, _ in told] == [
        "promote",
        "canary_start",
        "promote",
        "canary_stop",
        "canary_start",
        "canary_stop",
    ]
    assert [release for _, release in told[1:]] == [better, better, better, worse, worse]
    named = atomic_io.read_json(scene.project / "inference_log" / "window.json", FeedbackWindow)
    assert [one.window for one in named.snapshots] == [first.facts("proposed")["window"]["id"]]
    assert (
        f"sft.init_adapter=.tunectl/init_adapters/{first.facts('proposed')['champion']}"
        in tiny_demo_project.recorded(scene.project)
    )


def test_the_timeline_has_everything_and_true_times(played: tuple) -> None:
    _, found, out = played
    assert found.lanes == ["people", "monitor", "alert", "retrain", "build", "canary", "champion"]
    assert {one.label for one in found.spans if one.lane == "build"} >= {
        "compose",
        "feedback",
        "curate",
        "sft",
        "package",
    }
    moments = {one.label: one.at for one in reversed(found.marks)}  # the first of each: windows go on while it builds
    assert moments["drift"] <= moments["webhook"] + 1
    assert all(0 <= one.since <= one.until <= found.seconds + 1 for one in found.spans)
    again = json.loads((out / "timeline.json").read_text())
    assert again["seconds"] == found.seconds
    assert "</html>" in (out / "timeline.html").read_text()
    assert (out / "timeline.png").stat().st_size > 20_000
    assert "<h2>Retrains, the newest first</h2>" in (out / "retrains.html").read_text()


def test_nothing_is_left_running_or_lying_about(played: tuple) -> None:
    scene, found, _ = played
    assert isinstance(found, Timeline)
    mine = str(scene.project).encode()
    left = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if (place / "cwd").readlink() == scene.project or mine in (place / "cmdline").read_bytes():
                left.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:
            continue
    assert left == []
    assert not (scene.project / ".tunectl" / "retrain" / "worktree").exists()
    assert not (scene.project / ".tunectl" / "releases" / "canary.json").exists()
