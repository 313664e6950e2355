"""Parts of a simulation, the shared secret, and what the settings of a federation refuse."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conf_copy import copy_conf
from msgspec import structs

from tunectl.artifacts import atomic_io, row_counts
from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.artifacts.row_counts import RowCounter
from tunectl.chat import model_spec, template
from tunectl.cli import federate as cli
from tunectl.config.loading import checks
from tunectl.core.errors import ConfigError, DataError, UsageError
from tunectl.federated import exchange
from tunectl.pipeline import federate_rows, federate_run

ROOT = Path(__file__).parents[3]


def example(number: int, cluster: str | None = None) -> Example:
    source = Source("rows.csv", number)
    return Example(
        f"e{number}", source, [Message("user", str(number))], [ReferenceAnswer("a", source)], cluster=cluster
    )


def test_parts_have_their_shares_and_clusters_stay_together() -> None:
    train = [example(number, f"c{number // 5}") for number in range(100)]
    parts = federate_rows.partition((train, [example(200)]), [0.6, 0.3, 0.1], 7)
    assert [len(part) for part, _ in parts] == [60, 30, 10]
    assert sorted(item.id for part, _ in parts for item in part) == sorted(item.id for item in train)
    owners = [{item.cluster for item in part} for part, _ in parts]
    assert sum(len(owner) for owner in owners) == len(set.union(*owners))
    assert all(validation == [example(200)] for _, validation in parts)
    assert parts == federate_rows.partition((train, [example(200)]), [0.6, 0.3, 0.1], 7)
    assert parts != federate_rows.partition((train, [example(200)]), [0.6, 0.3, 0.1], 8)


def test_other_machines_need_a_secret() -> None:
    federate_run.check_token("TOKEN", "127.0.0.1", {})
    federate_run.check_token("TOKEN", "10.0.0.7", {"TOKEN": "0123456789abcdef"})
    with pytest.raises(UsageError) as caught:
        federate_run.check_token("TOKEN", "10.0.0.7", {"TOKEN": "short"})
    assert caught.value.message.startswith(
        "TOKEN holds 5 characters; server and clients on several machines need the same secret"
    )


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ProjectPaths:
    copy_conf(tmp_path)
    monkeypatch.chdir(tmp_path)
    return ProjectPaths()


def test_a_client_counts_the_rows_that_it_leaves_out(tiny_model: Path, tmp_path: Path) -> None:
    base, folder = tmp_path / "base", tmp_path / "client-a"
    shutil.copytree(tiny_model, base)
    path = base / template.FILE
    path.write_text("{% if messages[0].content == '7' %}{{ raise_exception('odd') }}{% endif %}" + path.read_text())
    spec = structs.replace(model_spec.load(base), template_sha256=template.digest(path.read_text()))
    model_spec.save(spec, base)
    section = checks.load_project_config(ProjectPaths(ROOT), []).root.sft
    tally = RowCounter("federate: a")
    rows = federate_rows.pack_examples([example(number) for number in range(10)], base, section, tally)
    assert sum(len(row.branches) for row in rows) == 9
    said = federate_rows.save_counts(tally, folder, 0.2)
    assert said == f"federate: a: 10 rows, 1 refused (1 template_refuses; rejects.jsonl in {folder}), 9 trained"
    assert row_counts.load(folder).rejected == {"template_refuses": 1}

    many = RowCounter("federate: b")
    federate_rows.pack_examples([example(number) for number in range(5, 9)], base, section, many)
    with pytest.raises(DataError) as caught:
        federate_rows.save_counts(many, folder, 0.2)
    assert caught.value.message.startswith("federate: b: 25.0% of 4 rows were rejected; the limit is 20%\n")
    assert "template_refuses: first rows.csv:7 the chat template refuses a conversation of" in caught.value.message
    assert caught.value.hint == "fix the data, or allow more: sft.max_rejected_share=<share from 0 to 1>"


def test_the_rounds_say_who_left_rows_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = [exchange.Contribution("a", 9, 4, 10, 1), exchange.Contribution("b", 8, 4, 8, 0)]
    atomic_io.write_rows(tmp_path / exchange.ROUNDS, [exchange.FederatedRound(1, 2, made, [], averaged=True)])
    cli._print_rounds(tmp_path, tmp_path / "result", as_json=False)
    assert "round 1: a (9 answers, 1 of 10 rows refused), b (8 answers)\n" in capsys.readouterr().out
    cli._print_rounds(tmp_path, tmp_path / "result", as_json=True)
    assert json.loads(capsys.readouterr().out)["rounds"][0]["contributions"][0]["refused"] == 1


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (
            "federate.host=0.0.0.0",
            "host is 0.0.0.0, and tls is null; adapters leave this machine, so give certificates",
        ),
        ("federate.host=fed.example.org", "host is fed.example.org; write localhost or an IP address"),
        ("federate.server_address=10.0.0.1:99999", "must be HOST:PORT, with a port from 1 to 65535"),
        ("federate.server_address=fed.example.org:8090", "server_address is fed.example.org:8090, and ca_file is null"),
    ],
)
def test_nothing_leaves_the_machine_without_encryption(layout: ProjectPaths, word: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checks.load_project_config(layout, [word])
    assert len(caught.value.problems) == 1
    assert reason in caught.value.problems[0]


def test_private_training_is_refused_in_a_federation(layout: ProjectPaths) -> None:
    with pytest.raises(UsageError) as caught:
        federate_run.open_federation(layout, ["sft=private"])
    assert caught.value.message == "sft.privacy is set, and a federation supports only null there"
