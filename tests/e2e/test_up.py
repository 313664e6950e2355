"""``tunectl up``: one command that starts a build and what runs beside it, and ends all of it."""

from __future__ import annotations

import http.client
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import sweep_project as project
from conf_copy import copy_conf
from serving_process import free_port

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli.main import main
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.pipeline import run_ledger


def test_outside_a_project_it_says_where_to_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["up"]) == 2
    assert "is not a tunectl project: there is no conf/config.yaml in it" in capsys.readouterr().err
    assert not (tmp_path / ".tunectl").exists()


def test_it_builds_and_a_mistake_stops_it_before_anything_starts(tmp_path: Path) -> None:
    folder = project.make(tmp_path / "shop", build=False)
    text = project.tunectl(folder, "up", "--no-console", "sft.lora_rnak=8", code=2)
    assert "lora_rank" in text
    assert not (folder / ".tunectl" / "up.log").exists()
    text = project.tunectl(folder, "up", "--no-console", "--serve", "sft.lora_rank=8", code=5)
    assert "up       tunectl repro sft.lora_rank=8\n" in text
    assert "up       the build is done\n" in text
    assert (
        "up       not started: serve; there is no champion yet: tunectl repro --reset-overrides builds a release\n"
        in text
    )
    layout = ProjectPaths(folder)
    last = run_ledger.read_run(layout, run_ledger.list_runs(layout)[0])
    assert (last.exit_code, last.overrides) == (0, ["sft.lora_rank=8"])
    assert "tunectl repro sft.lora_rank=8" in (folder / ".tunectl" / "up.log").read_text()


def test_the_console_runs_beside_and_ends_with_it(tmp_path: Path) -> None:
    copy_conf(tmp_path)
    override_file.save_overrides(ProjectPaths(tmp_path), [Override.from_cli("console.port=0")])
    words = [sys.executable, "-m", "tunectl", "up", "--no-build"]
    with subprocess.Popen(words, cwd=tmp_path, env=project.ENVIRONMENT, stdout=subprocess.PIPE, text=True) as up:
        assert up.stdout is not None
        text = ""
        while (link := re.search(r"^console  open http://127\.0\.0\.1:(\d+)/enter#", text, re.MULTILINE)) is None:
            line = up.stdout.readline()
            assert line, text
            text += line
        connection = http.client.HTTPConnection("127.0.0.1", int(link[1]), timeout=20)
        connection.request("GET", "/")
        assert connection.getresponse().status == 303
        connection.close()
        up.send_signal(signal.SIGINT)
        text += up.stdout.read()
    assert up.returncode == 130
    assert "up       running: console; Ctrl-C ends them\n" in text
    with pytest.raises(ConnectionRefusedError):
        connection.request("GET", "/")


def test_ctrl_c_ends_the_build_too(tmp_path: Path) -> None:
    folder = project.make(tmp_path / "shop", build=False)
    words = [sys.executable, "-m", "tunectl", "up", "--no-console", "seed=3"]
    up = subprocess.Popen(
        words,
        cwd=folder,
        env={**project.ENVIRONMENT, "FAKE_SECONDS": "60"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    end = time.monotonic() + 90
    while not (folder / ".tunectl" / "executed").is_file():  # split is done, so sft runs next and takes a minute
        assert time.monotonic() < end
        assert up.poll() is None
        time.sleep(0.1)
    up.send_signal(signal.SIGINT)
    text, _ = up.communicate(timeout=60)
    assert up.returncode == 130, text
    left = [one for one in Path("/proc").glob("[0-9]*") if _works_in(one, folder)]
    assert left == []
    layout = ProjectPaths(folder)
    assert run_ledger.read_run(layout, run_ledger.list_runs(layout)[0]).exit_code != 0


@pytest.mark.timeout(400)
def test_server_monitor_and_retrain_controller_share_one_log_and_end_with_it(
    tmp_path: Path, releases: tuple[Path, str, str]
) -> None:
    folder = tmp_path / "shop"
    copy_conf(folder)
    layout = ProjectPaths(folder)
    shutil.copytree(releases[0], layout.releases)
    project.git(folder, "init", "--quiet")
    ports = {"serve": free_port(), "monitor": free_port(), "retrain": free_port()}
    override_file.save_overrides(layout, [Override.from_cli(f"{name}.port={port}") for name, port in ports.items()])
    words = ["up", "--no-build", "--no-console", "--serve", "--monitor", "--retrain"]
    with subprocess.Popen([sys.executable, "-m", "tunectl", *words], cwd=folder, env=project.ENVIRONMENT) as up:
        end = time.monotonic() + 300
        while waiting := [name for name, port in ports.items() if not _answers(port, name)]:
            assert time.monotonic() < end, (waiting, layout.up_log.read_text())
            assert up.poll() is None, layout.up_log.read_text()
            time.sleep(0.5)
        assert any(_works_in(one, folder) for one in Path("/proc").glob("[0-9]*"))
        up.send_signal(signal.SIGINT)
        up.wait(120)
    log = layout.up_log.read_text()
    assert up.returncode == 130, log
    assert "up       running: serve, monitor, retrain; Ctrl-C ends them\n" in log
    assert {line.split()[1] for line in log.splitlines()} == {"up", *ports}
    assert [one for one in Path("/proc").glob("[0-9]*") if _works_in(one, folder)] == []
    assert not any(_answers(port, name) for name, port in ports.items())


def _answers(port: int, service: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/readyz" if service == "serve" else "/healthz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _works_in(process: Path, folder: Path) -> bool:
    try:
        return process.joinpath("cwd").resolve(strict=True) == folder.resolve()
    except OSError:
        return False
