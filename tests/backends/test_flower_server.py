"""What Flower's server takes from clients, without Flower: the real one is in tests/federated."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tunectl.backends.federated.flower_server import RoundKeeper
from tunectl.federated import exchange
from tunectl.federated.exchange import ServerTask

TASK = ServerTask(
    host="127.0.0.1",
    port=1,
    rounds=2,
    fraction_train=1.0,
    min_clients=1,
    expected_clients=0,
    weighting="answers",
    average="fedavg",
    seed=1,
    round_timeout_seconds=1,
    wait_timeout_seconds=1,
    token_env="TUNECTL_FEDERATE_TOKEN",
    certificates=None,
    base="b",
)
WEIGHTS = {"a": np.ones(2, np.float32)}


@pytest.fixture
def keeper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RoundKeeper:
    common = ModuleType("flwr.common")
    vars(common).update(parameters_to_ndarrays=lambda parameters: parameters(), GetPropertiesIns=lambda _: None)
    monkeypatch.setitem(sys.modules, "flwr", ModuleType("flwr"))
    monkeypatch.setitem(sys.modules, "flwr.common", common)
    monkeypatch.setenv(TASK.token_env, "secret")
    exchange.write_weights(exchange.round_file(tmp_path, 0), WEIGHTS)
    return RoundKeeper(tmp_path, TASK, 0)


def connect(cid: str, **properties: str) -> Any:
    told = SimpleNamespace(properties={"token": "secret", **properties})
    return SimpleNamespace(cid=cid, get_properties=lambda *_, **__: told)


def answer(client: Any, parameters: Any = lambda: [WEIGHTS["a"] * 3], **metrics: object) -> tuple[Any, Any]:
    return client, SimpleNamespace(parameters=parameters, num_examples=2, metrics=metrics)


def empty() -> list[Any]:
    raise EOFError("No data left in file")


def test_an_answer_that_cannot_be_read_is_left_out_of_the_round(keeper: RoundKeeper, tmp_path: Path) -> None:
    clients = {name: connect(f"id-{name}", name=name) for name in "abcdef"}
    keeper.draw(1, SimpleNamespace(all=lambda: {client.cid: client for client in clients.values()}))
    answers = [
        answer(clients["a"], steps=4, rows=5, refused=3),
        answer(clients["b"]),
        answer(clients["c"], steps="many"),
        answer(clients["d"], empty, steps=4),
        answer(clients["e"], steps=4, rows=1, refused=-1),
        answer(clients["f"], steps=4),
    ]
    weights = keeper.end(1, answers, [], lambda ordered: ordered[0].update)
    (record,) = exchange.read_rounds(tmp_path)
    assert [exchange.Contribution("a", answers=2, steps=4, rows=5, refused=3)] == record.contributions
    assert [reason.partition(":")[0] for reason in record.failures] == ["b", "c", "d", "e", "f"]
    assert record.failures[4] == (
        "f: rows = None, refused = None; must be whole numbers, and rows the sum of refused and num_examples = 2"
    )
    assert record.failures[0] == "b: steps = None; must be a whole number of 0 or more"
    assert weights["a"].tolist() == [3.0, 3.0]


def test_what_a_client_says_of_its_failure_is_one_line_in_the_record(
    keeper: RoundKeeper, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client = connect("1", name="a")
    keeper.draw(1, SimpleNamespace(all=lambda: {"1": client}))
    said = "out of memory\nround 1: a (9 answers)\r\x1b[2J\u202e" + "x" * 900
    failure = (client, SimpleNamespace(status=SimpleNamespace(message=said)))
    keeper.end(1, [], [failure], lambda ordered: ordered[0].update)
    (record,) = exchange.read_rounds(tmp_path)
    (reason,) = record.failures
    assert (reason.isprintable(), len(reason), reason[:13]) == (True, 500, "out of memory")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(said)

    keeper.draw(2, SimpleNamespace(all=lambda: {"1": client, "2": SimpleNamespace(cid="2", get_properties=refuse)}))
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_a_second_client_of_a_name_is_ignored_while_the_first_is_there(
    keeper: RoundKeeper, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, nameless = connect("1", name="berlin"), connect("2", name="berlin"), connect("3")
    connected = {client.cid: client for client in (first, second, nameless)}
    manager = SimpleNamespace(all=lambda: connected)
    assert keeper.draw(1, manager) == [first]
    assert keeper.draw(2, manager) == [first]
    assert capsys.readouterr().out.splitlines() == [
        "a client that says no name is ignored",
        "a second client named berlin is ignored: each needs a name of its own",
    ]
    del connected["1"]
    assert keeper.draw(3, manager) == [second], "it is the same one, connected anew"


def test_clients_that_do_not_answer_hold_a_round_up_once_and_not_each(keeper: RoundKeeper) -> None:
    def sleep(*_: object, **__: object) -> None:
        time.sleep(1.0)
        raise TimeoutError

    silent = [SimpleNamespace(cid=f"silent-{number}", get_properties=sleep) for number in range(20)]
    good = connect("1", name="berlin")
    started = time.monotonic()
    assert keeper.draw(1, SimpleNamespace(all=lambda: {client.cid: client for client in (*silent, good)})) == [good]
    assert time.monotonic() - started < 10


@pytest.mark.parametrize("name", ["x" * 201, "a\nround 3 of 3: 5 of 5 clients", "\x1b[2J"])
def test_a_name_that_would_forge_a_line_of_the_log_is_no_name(
    keeper: RoundKeeper, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    good, other = connect("1", name="berlin"), connect("2", name=name)
    assert keeper.draw(1, SimpleNamespace(all=lambda: {"1": good, "2": other})) == [good]
    assert capsys.readouterr().out == (
        "a client whose name is not printable, or has more than 200 characters, is ignored\n"
    )
