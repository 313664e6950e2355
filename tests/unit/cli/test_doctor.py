"""``tunectl doctor``: what the machine has, and what to do about what it lacks."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from conf_copy import copy_conf

from tunectl.artifacts.paths import ProjectPaths
from tunectl.cli import up
from tunectl.cli.main import main
from tunectl.config.loading import override_file
from tunectl.config.loading.override_parsing import Override
from tunectl.core.errors import InfrastructureError
from tunectl.pipeline import system_check
from tunectl.pipeline.system_check import SystemCheck

ROOT = Path(__file__).parents[3]
GPU = ["NVIDIA L4, 23034 MiB, 550.54.15"]


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (system_check.check_python((3, 11, 7)), "ok", ""),
        (system_check.check_python((3, 10, 1)), "problem", "install Python 3.11 or newer"),
        (system_check.check_cores(2), "ok", ""),
        (system_check.check_cores(1), "note", "slow"),
        (system_check.check_memory(8_000_000_000), "ok", ""),
        (system_check.check_memory(1_000_000_000), "note", "hardware.train_batch_tokens"),
        (system_check.check_memory(None), "note", "does not report"),
        (system_check.check_disk(1_000_000_000), "note", "dvc gc"),
        (system_check.check_torch(None, []), "problem", "pip install 'tunectl-lm[train]'"),
        (system_check.check_torch("2.9.0+cpu", []), "ok", ""),
        (system_check.check_torch("2.9.0+cpu", GPU), "problem", "cannot use the GPU"),
        (system_check.check_torch("2.9.0+cu128", GPU), "ok", ""),
        (system_check.check_gpu([]), "note", "hardware=cpu"),
        (system_check.check_gpu(GPU), "ok", ""),
        (system_check.check_git(None), "problem", "install Git"),
        (system_check.check_docker(installed=True, version=None), "note", "start it"),
        (system_check.check_docker(installed=False, version=None), "note", "only images"),
        (system_check.check_docker(installed=True, version="28.1"), "ok", ""),
        (system_check.check_ports({}), "ok", ""),
        (system_check.check_extras({"data": [], "train": ["torch"]}), "note", "tunectl check"),
        (system_check.check_extras({"data": []}), "ok", ""),
    ],
)
def test_each_result_says_what_to_do(found: SystemCheck, status: str, says: str) -> None:
    assert found.status == status
    assert says in found.advice
    assert bool(found.advice) == (status != "ok")


def test_an_extra_that_is_made_of_others_lacks_what_they_lack() -> None:
    lines = [
        "msgspec>=0.19",
        'msgspec>=0.19; extra == "data"',
        'no-such-package>=1; extra == "train"',
        'tunectl-lm[data,train]; extra == "all"',
        'tunectl-lm[all]; extra == "all"',
    ]
    assert system_check.find_missing_by_extra(lines) == {
        "all": ["no-such-package"],
        "data": [],
        "train": ["no-such-package"],
    }


def test_a_port_that_is_taken_is_named_with_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = system_check.check_ports({"monitor": 0, "serve": port})
    assert (found.status, found.found) == ("note", f"taken: {port} (serve)")
    assert found.advice.endswith(f"for example serve.port={port + 10}")
    assert system_check.check_ports({"monitor": 0, "serve": port}).found == f"free: 0 monitor, {port} serve"


def test_the_ports_are_those_of_the_project(tmp_path: Path) -> None:
    declared = system_check.list_ports(ROOT)
    assert declared == {name: port for name, port in system_check.PORTS.items() if name in declared}
    assert {"serve", "monitor", "retrain", "annotate"} <= declared.keys()
    assert system_check.list_ports(tmp_path) == system_check.PORTS
    copy_conf(tmp_path)
    layout = ProjectPaths(tmp_path)
    override_file.save_overrides(layout, [Override.from_cli("serve.port=4000")])
    assert system_check.list_ports(tmp_path)["serve"] == 4000
    override_file.save_overrides(layout, [Override.from_cli("serve.port=word")])
    assert system_check.list_ports(tmp_path)["serve"] == 3000


def test_a_program_that_is_absent_or_fails_is_none() -> None:
    assert system_check.run_program("no-such-program-here") is None
    assert system_check.run_program("false") is None


def test_the_installed_extras_are_read() -> None:
    assert {"train", "serve", "retrain", "all"} <= set(system_check.find_missing_by_extra())


def test_a_problem_ends_with_exit_5(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fine = SystemCheck("Python", "ok", "3.11.7", "")
    monkeypatch.setattr(system_check, "check_system", lambda _folder: [fine])
    assert main(["doctor"]) == 0
    assert "3.11.7" in capsys.readouterr().out
    bad = SystemCheck("Git", "problem", "not found", "install Git")
    monkeypatch.setattr(system_check, "check_system", lambda _folder: [fine, bad])
    assert main(["doctor", "--json"]) == 5
    out, err = capsys.readouterr()
    assert [one["status"] for one in json.loads(out)] == ["ok", "problem"]
    assert err == "tunectl: Git: not found\n  install Git\n"


def test_up_asks_for_torch_and_git_only_where_it_builds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = [
        system_check.check_torch(None, []),
        system_check.check_git(None),
        SystemCheck("memory", "note", "2 GB free", "end other programs"),
    ]
    monkeypatch.setattr(system_check, "check_system", lambda _folder: results)
    up._check_machine(tmp_path, build=False)
    assert "2 GB free" in capsys.readouterr().out
    with pytest.raises(InfrastructureError, match="torch: not installed; Git: not found"):
        up._check_machine(tmp_path, build=True)
