"""A build that the console starts: it runs on its own, says who started it and why, and is stopped as by Ctrl-C."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import sweep_project as project
from console_projects import Console

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.pipeline import background_build, run_ledger


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> ProjectPaths:
    return ProjectPaths(project.make(tmp_path_factory.mktemp("build") / "shop", build=False))


@pytest.fixture
def console(layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch) -> Console:
    for name in ("PYTHONPATH", "HF_HUB_OFFLINE", "DVC_NO_ANALYTICS"):
        monkeypatch.setenv(name, project.ENVIRONMENT[name])
    return Console(layout)


def read_form(console: Console, path: str) -> dict[str, str]:
    page = console.client.get(path)
    assert page.status_code == 200, page.text[-500:]
    return dict(re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text))


def wait_for_end(layout: ProjectPaths, runs: int) -> None:
    end = time.monotonic() + 60
    while background_build.find_build(layout) is not None or len(run_ledger.list_runs(layout)) < runs:
        assert time.monotonic() < end, background_build.read_log_end(layout)
        time.sleep(0.1)


def test_a_build_is_started_seen_and_stopped(
    console: Console, layout: ProjectPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_SECONDS", "60")
    form = read_form(console, "/build/start")
    started = console.post("/build/start", **form, answer="start", reason="a first build", settings="sft.lora_rank=8")
    assert (started.status_code, started.headers["location"]) == (303, "/build")
    end = time.monotonic() + 60
    while "Running stage 'sft'" not in background_build.read_log_end(layout):
        assert time.monotonic() < end, background_build.read_log_end(layout)
        time.sleep(0.1)
    page = console.client.get("/build").text
    assert "A build is running." in page
    assert "a first build" in page
    assert "Running stage &#39;sft&#39;" in page
    again = console.post("/build/start", **form, answer="start", reason="me, too")
    assert again.status_code == 409
    assert "A build is already running." in again.text
    other = read_form(console, "/build/stop")
    assert console.post("/build/stop", process="1", reason="x").status_code == 409
    assert console.post("/build/stop", **other, reason=" ").status_code == 422
    assert console.post("/build/stop", **other, reason="wrong rank").status_code == 303
    wait_for_end(layout, 1)
    run = run_ledger.read_run(layout, run_ledger.list_runs(layout)[0])
    assert (run.exit_code, run.reason, run.overrides) == (130, "a first build", ["sft.lora_rank=8"])
    assert run.failure is not None
    assert run.failure.message == f"{run.author} stopped it: wrong rank"
    assert run.author == console.sign_in.find(next(iter(console.client.cookies.values()))).name
    assert "No build runs." in console.client.get("/build/stop").text


def test_of_two_who_start_at_once_one_starts(console: Console, layout: ProjectPaths) -> None:
    form = read_form(console, "/build/start")
    before = len(run_ledger.list_runs(layout))
    with ThreadPoolExecutor(2) as both:
        replies = list(
            both.map(lambda who: console.post("/build/start", **form, answer="start", reason=who), ("ann", "ben"))
        )
    assert sorted(reply.status_code for reply in replies) == [303, 409], [reply.text[-900:] for reply in replies]
    wait_for_end(layout, before + 1)
    time.sleep(1)
    assert len(run_ledger.list_runs(layout)) == before + 1


def test_the_next_build_goes_on_and_leaves_its_output(console: Console, layout: ProjectPaths) -> None:
    form = read_form(console, "/build/start")
    assert console.post("/build/start", **form, answer="start", reason="goes on").status_code == 303
    wait_for_end(layout, 2)
    assert (layout.artifacts / "sft" / "adapter").is_file()
    page = console.client.get("/build").text
    assert "A build is running." not in page
    assert "Output of the build" in page
    assert "goes on" in console.client.get("/runs").text


def test_a_mistake_in_the_settings_starts_nothing(console: Console, layout: ProjectPaths) -> None:
    form = read_form(console, "/build/start")
    before = atomic_io.sha256_path(layout.overrides)
    for settings, words in (
        ("sft.lora_rnk=8", "lora_rank"),
        ("--force", "is not key=value"),
        ("sft.epochs='2", "No closing quotation"),
    ):
        refused = console.post("/build/start", **form, answer="start", reason="x", settings=settings)
        assert refused.status_code == 422, (settings, refused.text[-800:])
        assert words in refused.text
    assert console.post("/build/start", **form, answer="start", reason="").status_code == 422
    old = {**form, "pending": "compose"}
    assert console.post("/build/start", **old, answer="start", reason="x").status_code == 409
    assert background_build.find_build(layout) is None
    assert atomic_io.sha256_path(layout.overrides) == before


def test_the_preview_names_the_stages_that_typed_settings_would_run(console: Console) -> None:
    form = read_form(console, "/build/start")
    page = console.post("/build/start", **form, answer="preview", reason="try 4", settings="sft.lora_rank=4")
    assert page.status_code == 200
    assert "sft.lora_rank 8 -&gt; 4" in page.text
    assert 'value="sft.lora_rank=4"' in page.text
    assert 'value="try 4"' in page.text
    assert "tunectl repro sft.lora_rank=4" in page.text
