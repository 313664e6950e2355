"""Federated training with the real Flower and a tiny model: three clients, one of which is killed; then sft takes the result."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import federate_project
import pytest

from tunectl.artifacts import atomic_io
from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.export import exporter_env
from tunectl.backends.modeling import peft_adapter
from tunectl.config.loading import override_file
from tunectl.core.errors import InfrastructureError, UsageError
from tunectl.federated import exchange
from tunectl.federated.exchange import ClientTask
from tunectl.pipeline import federate_rows, federate_run, runner

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def flower() -> str:
    return str(exporter_env.ensure_interpreter(ROOT / ".tunectl" / "exporters", exporter_env.FLOWER))


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, flower: str, monkeypatch: pytest.MonkeyPatch) -> ProjectPaths:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(exporter_env.FLOWER.variable, flower)
    return federate_project.build(tmp_path, tiny_model)


def find_process(words: tuple[str, ...]) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if all(word.encode() in line for word in words):
                found.append(int(entry.name))
    return found


def test_a_client_without_a_server_says_so(tmp_path: Path, flower: str) -> None:
    task = ClientTask(
        "a", "127.0.0.1:9", None, "TOKEN", wait_timeout_seconds=2, fit=[], locks=[], base="x", local_steps=4
    )
    atomic_io.write_json(tmp_path / exchange.CLIENT, task)
    words = [flower, "-m", "tunectl.backends.federated.flower_client", str(tmp_path)]
    done = subprocess.run(words, env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, capture_output=True, check=False)
    failure = atomic_io.read_json(tmp_path / exchange.FAILURE, exchange.FlowerFailure)
    assert done.returncode == 1
    assert failure.message.startswith("TimeoutError: no server at 127.0.0.1:9 for ")
    assert "Connection refused" in failure.message


def test_a_client_that_is_killed_is_left_out_and_the_rest_goes_on(project: ProjectPaths) -> None:
    folder = (project.state_dir / "federate" / "default").absolute()
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-m", "tunectl", "federate", "simulate", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 600
    while len(exchange.read_rounds(folder)) < 1:  # client-3 is killed once the first round has ended
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    for pid in find_process(("tunectl.backends.federated.flower_client", str(folder / "client-3"))):
        os.kill(pid, signal.SIGKILL)
    text, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    rounds = json.loads(text)["rounds"]
    assert [item["number"] for item in rounds] == [1, 2]
    assert all(item["averaged"] for item in rounds)
    assert [client["name"] for client in rounds[0]["contributions"]] == ["client-1", "client-2", "client-3"]
    assert [client["name"] for client in rounds[1]["contributions"]] == ["client-1", "client-2"]
    sizes = [client["answers"] for client in rounds[0]["contributions"]]
    assert sizes == sorted(sizes, reverse=True)
    assert all(client["steps"] == 4 for item in rounds for client in item["contributions"])
    first, last = (exchange.read_weights(exchange.round_file(folder, number)) for number in (0, 2))
    assert all((first[name] != last[name]).any() for name in first if "lora_B" in name)
    text = "".join(path.read_text() for path in folder.glob("*.json*"))
    assert "Say" not in text  # no training text is in what the server holds

    out = folder / "result"
    override_file.save_overrides(
        project, override_file.merge_overrides(override_file.load_overrides(project), [f"sft.adapter={out}"])
    )
    for stage in ("compose", "sft"):
        runner.execute_stage(project, stage)
    stored = peft_adapter.read_adapter(project.artifact("sft"))
    assert all((stored[name] == last[name]).all() for name in last)
    metrics = atomic_io.read_json(project.metrics("sft"))
    assert metrics["steps"] == 0
    assert metrics["validation_loss"] < metrics["validation_loss_before"]
    assert (project.artifact("sft") / "federated.json").is_file()
    check_release(project, last)


def check_release(project: ProjectPaths, weights: Mapping[str, Any]) -> None:
    """What follows sft takes the result like any other adapter: it is evaluated, judged by the gate, and packaged."""
    for stage in ("preferences", "reward", "align", "evaluate", "package"):
        runner.execute_stage(project, stage)
    verdict = atomic_io.read_json(project.artifact("evaluate") / "verdict.json")
    assert verdict["verdict"] in {"tuned_better", "prompting_is_enough", "do_not_tune", "not_enough_evidence"}
    parity = atomic_io.read_json(project.artifact("package") / "verdict.json")
    assert parity["passed"], parity
    shipped = peft_adapter.read_adapter(project.artifact("package") / "release" / "adapter")
    assert all((shipped[name] == weights[name]).all() for name in weights)


def test_a_server_goes_on_with_its_rounds_and_over_tls_a_wrong_token_is_nobody(
    project: ProjectPaths, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    federate_project.make_certificates(tmp_path)
    words = [
        "federate.rounds=1",
        "federate.min_clients=1",
        "federate.tls={ca_file: ca.pem, certificate_file: server.pem, key_file: server.key}",
        "federate.ca_file=ca.pem",
        "federate.simulate.shares=[0.5, 0.5]",
        "federate.average=product",
    ]
    monkeypatch.setenv("TUNECTL_FEDERATE_TOKEN", "0123456789abcdef")
    said: list[str] = []
    federation = federate_run.open_federation(project, words)
    out = federate_run.simulate(federation, said.append)
    assert any("round 1 of 1: waiting until another client has fitted" in line for line in said)
    assert any("round 1 of 1: fitted " in line for line in said)
    before = peft_adapter.read_adapter(out)
    again = federate_run.open_federation(project, [*words, "federate.rounds=2"])
    federate_run.simulate(again, said.append)
    assert [item.number for item in exchange.read_rounds(again.folder)] == [1, 2]
    after = peft_adapter.read_adapter(out)
    assert any((before[name] != after[name]).any() for name in before)
    other = federate_run.open_federation(project, [*words, "federate.weighting=clients"])
    with pytest.raises(UsageError, match="holds rounds of a federation with other settings"):
        federate_run.simulate(other, said.append)

    alone = federate_run.open_federation(
        project, [*words, "federate.name=alone", "federate.token_env=OTHER_TOKEN", "federate.wait_timeout_seconds=60"]
    )
    federate_run.prepare_server(alone)
    path = alone.folder / exchange.SERVER
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {"token_env": "TUNECTL_FEDERATE_TOKEN"}))
    with pytest.raises(
        InfrastructureError,
        match=r"server gave up: TimeoutError: 0 clients connected within 60 s, but federate.min_clients is 1",
    ):
        federate_run.run_simulation(alone, [federate_rows.read_examples(project)], said.append)
    assert any("a client without the token of TUNECTL_FEDERATE_TOKEN is ignored" in line for line in said)
