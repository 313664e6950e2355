"""Flower's client without Flower: what is kept of a local training that fails, and how long a server may be away."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tunectl.backends.federated import flower_client
from tunectl.federated.exchange import ClientTask, RoundRequest


def test_the_whole_output_of_a_failed_fit_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = [sys.executable, "-c", "print('step 1'); raise SystemExit('row 7 is broken\\nout of memory')"]
    task = ClientTask("client-1", "127.0.0.1:9", None, "TOKEN", 1, fit, [], 2, "base")
    weights = {"lora_A": np.zeros((1, 1), np.float32)}
    with pytest.raises(
        OSError, match=r"the fit of round 3 failed: out of memory; its whole output is in round-3/output\.txt"
    ):
        flower_client.fit_locally(tmp_path, task, RoundRequest(number=3, rounds=4, local_steps=2), weights)
    log = tmp_path / "round-3" / "output.txt"
    assert log.read_text(encoding="utf-8").split("\n")[:3] == ["step 1", "row 7 is broken", "out of memory"]
    assert str(log) in capsys.readouterr().out


class RpcError(Exception):
    """gRPC's error, where its library is not installed."""

    def details(self) -> str:
        return "Connection refused"


class Network:
    """A clock, and a Flower whose connections last a number of seconds, with or without a message of the server."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.client = 5000.0, SimpleNamespace(last_seen=0.0)
        self.connections: Iterator[tuple[float, bool] | None] = iter(())
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self.wait)
        monkeypatch.setattr(flower_client, "time", clock)
        monkeypatch.setattr(flower_client, "_build_client", lambda folder, task: self.client)
        for name, facts in (
            ("flwr", {}),
            ("flwr.client", {"start_client": self.connect, "Client": object}),
            ("grpc", {"RpcError": RpcError}),
        ):
            module = ModuleType(name)
            vars(module).update(facts)
            monkeypatch.setitem(sys.modules, name, module)

    def wait(self, seconds: float) -> None:
        self.now += seconds

    def connect(self, **_: Any) -> None:
        connection = next(self.connections)
        if connection is None:  # the server has ended
            return
        seconds, asked = connection
        self.client.last_seen = self.now if asked else self.client.last_seen
        self.now += seconds
        raise RpcError


TASK = ClientTask("client-1", "127.0.0.1:9", None, "TOKEN", 600, [], [], 2, "base")
REFUSED = (0.0, False)


@pytest.mark.parametrize(
    "connections",
    [
        [(4800.0, True), REFUSED, None],  # asked for its name, then idle while others fit
        [(4800.0, False), REFUSED, None],  # it came in the middle of a round: not one message
        [*[REFUSED] * 500, (4800.0, False), *[REFUSED] * 500, (10.0, True), *[REFUSED] * 500, None],
    ],
)
def test_a_server_that_restarts_after_an_idle_time_is_tried_again(
    connections: list[tuple[float, bool] | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(monkeypatch)
    network.connections = iter(connections)
    flower_client.take_part(tmp_path, TASK)
    assert next(network.connections, "used up") == "used up"


@pytest.mark.parametrize("seconds", [0.0, 20.0, 120.0])
def test_a_server_that_stays_away_is_given_up_however_long_an_attempt_takes(
    seconds: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(monkeypatch)
    network.connections = iter([(4800.0, True), *[(seconds, False)] * 1000])
    with pytest.raises(TimeoutError, match=r"no server at 127\.0\.0\.1:9 for 6\d\d s: Connection refused"):
        flower_client.take_part(tmp_path, TASK)


def test_a_fit_that_fails_is_a_message_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build = flower_client._build_client
    network = Network(monkeypatch)
    names = ("Code", "FitRes", "GetPropertiesRes", "Parameters", "Status")
    common = ModuleType("flwr.common")
    vars(common).update(dict.fromkeys(names, lambda *facts: facts), ndarrays_to_parameters=list)
    vars(common).update(Code=SimpleNamespace(OK=0, FIT_NOT_IMPLEMENTED=1), parameters_to_ndarrays=list)
    monkeypatch.setitem(sys.modules, "flwr.common", common)
    client = build(tmp_path, TASK)
    assert client.last_seen == 0
    config = {"names": json.dumps(["lora_A"]), "round": 1, "rounds": 1, "base": "another model"}
    answer = client.fit(SimpleNamespace(config=config, parameters=[np.zeros(1)]))
    assert "base model and chat template differ" in answer[0][1]
    assert client.last_seen == network.now
