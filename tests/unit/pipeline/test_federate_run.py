"""Parts of a simulation, the shared secret, and what the settings of a federation refuse."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.artifacts.records import Example, Message, ReferenceAnswer, Source
from tunectl.config.loading import checks
from tunectl.core.errors import ConfigError, UsageError
from tunectl.pipeline import federate_run

ROOT = Path(__file__).parents[3]


def example(number: int, cluster: str | None = None) -> Example:
    source = Source("rows.csv", number)
    return Example(
        f"e{number}", source, [Message("user", str(number))], [ReferenceAnswer("a", source)], cluster=cluster
    )


def test_parts_have_their_shares_and_clusters_stay_together() -> None:
    train = [example(number, f"c{number // 5}") for number in range(100)]
    parts = federate_run.partition((train, [example(200)]), [0.6, 0.3, 0.1], 7)
    assert [len(part) for part, _ in parts] == [60, 30, 10]
    assert sorted(item.id for part, _ in parts for item in part) == sorted(item.id for item in train)
    owners = [{item.cluster for item in part} for part, _ in parts]
    assert sum(len(owner) for owner in owners) == len(set.union(*owners))
    assert all(validation == [example(200)] for _, validation in parts)
    assert parts == federate_run.partition((train, [example(200)]), [0.6, 0.3, 0.1], 7)
    assert parts != federate_run.partition((train, [example(200)]), [0.6, 0.3, 0.1], 8)


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
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return ProjectPaths()


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        (
            "federate.host=0.0.0.0",
            "host is 0.0.0.0, and tls is null; adapters leave this machine, so give certificates",
        ),
        ("federate.host=fed.example.org", "host is fed.example.org; write localhost or an IP address"),
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
