"""The monitor as a process: watched, killed, started again, without a network."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from monitor_project import Project

COUNT = 'tunectl_drift_evaluations_total{verdict="ok"}'
SINCE = 'tunectl_drift_evaluations_total{verdict="drift"}'
EVIDENCE = "tunectl_drift_evidence"


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    made = Project(tmp_path / "project")
    running: list[subprocess.Popen[bytes]] = []
    start = made.start

    def started(*words: str) -> subprocess.Popen[bytes]:
        running.append(start(*words))
        return running[-1]

    made.start = started  # type: ignore[method-assign]
    yield made
    for process in running:
        process.kill()
        process.wait()


def test_it_watches_is_killed_and_goes_on(project: Project) -> None:
    """Fault test 17, our half: the exporter is gone with its process, and comes back with what it knew."""
    project.serve(240)
    project.serve(120, ("garden", "bread"))
    first = project.start("monitor.evidently=false")
    project.wait(SINCE, 1)
    assert project.sample(COUNT) == 1  # the first one had no reference of prompts, the third shifted
    assert project.sample("tunectl_drift_evidence_required") == 3
    assert (project.sample(EVIDENCE) or 0) >= 3
    assert project.sample("tunectl_drift_last_success_timestamp_seconds") > 1.7e9
    second = project.run("once")
    assert second.returncode == 5
    assert "another monitor watches this inference log" in second.stderr
    first.kill()
    first.wait()
    assert project.sample(EVIDENCE) is None
    before = project.windows()
    assert [one["verdict"] for one in before] == ["insufficient", "ok", "drift"]
    project.serve(240, ("garden", "bread"))
    again = project.start("monitor.evidently=false")
    project.wait(SINCE, 2)
    after = project.windows()
    assert [one["id"] for one in after[:3]] == [one["id"] for one in before]
    assert [one["verdict"] for one in after] == ["insufficient", "ok", "drift", "drift", "drift"]
    pooled = after[-1]["signals"]["prompt_text"]["pooled"]
    assert [(one["windows"], one["rows"]) for one in pooled] == [(3, 360), (4, 480)], "rows of before the kill"
    assert after[-1]["changed_since"] == before[-1]["since"]
    status, page = project.get("/")
    assert (status, after[-1]["id"] in page) == (200, True)
    status, page = project.get(f"/windows/{after[-1]['id']}")
    assert status == 200
    assert "word:" in page
    assert len(json.loads(project.get("/windows.json")[1])) == 5
    again.terminate()
    assert again.wait(30) == 0
    shown = project.run("show")
    assert shown.returncode == 3
    assert "drift: shifted" in shown.stdout
    assert "without a change once in" in shown.stdout


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare (util-linux) is not installed")
def test_without_a_network(project: Project) -> None:
    """Fault test 18, our half: windows, verdicts and Evidently's report in a namespace that reaches nothing."""
    if subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode != 0:
        pytest.skip("this user may not make a network namespace")
    project.serve(240)
    done = project.run("once", "--json", before=("unshare", "-n"))
    assert done.returncode == 0, done.stderr
    assert [one["verdict"] for one in json.loads(done.stdout)] == ["insufficient", "ok"]
    reports = sorted(one["report"] for one in json.loads(done.stdout))
    assert sorted(path.name for path in (project.folder / ".tunectl" / "monitor" / "reports").iterdir()) == reports


def test_words_that_are_wrong(project: Project) -> None:
    for words, message in (
        (("wacth",), "monitor wacth: no such action; there are once, list, show, set-reference, calibrate, backtest"),
        (("set-reference",), "monitor set-reference: the ids of the windows are missing"),
        (("backtest",), "--from is missing: when does the period begin?"),
    ):
        project.serve(1)
        done = project.run(*words)
        assert done.returncode == 2
        assert message in done.stderr
