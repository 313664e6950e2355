"""The experiment of a store: one at a time, and the servers' file agrees with the records after any kill."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from tunectl.artifacts import io
from tunectl.core.errors import GateError, UsageError
from tunectl.release.experiment import Rules
from tunectl.release.manifest import Facts
from tunectl.release.store import Store
from tunectl.release.trials import Experiment, Trials
from tunectl.serving.arms import Trial

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RULES = Rules(0.2, 0.0, 0.05, 0.05, 0.05, 50, None)


@pytest.fixture
def trials(tmp_path: Path) -> tuple[Trials, list[str]]:
    store, names = Store(tmp_path / "store"), []
    for number in range(3):
        source = tmp_path / f"release{number}"
        source.mkdir()
        (source / "weights").write_text(str(number))
        names.append(store.add(source, Facts("shop", "transformers", "apart")).id)
    store.promote(names[0], by="test", why="first")
    return Trials(store), names


def made(challenger: str, name: str = "one") -> Experiment:
    until = NOW + timedelta(days=7)
    return Experiment(name, challenger, "", "click", RULES, 24.0, 5.0, NOW, until, "salt", "Ann", "why")


def test_servers_read_what_is_started_and_nothing_once_it_ended(trials: tuple[Trials, list[str]]) -> None:
    kept, names = trials
    found = kept.start(made(names[1]))
    assert found.champion == names[0]
    assert io.read_json(kept.store.root / "challenger.json", Trial) == Trial(names[1], 0.2, "salt")
    assert kept.start(made(names[1])) == found
    ended = kept.end(found, "harm", NOW, None)
    assert kept.served() is None
    assert kept.running() is None
    assert kept.all() == [ended]


def test_a_second_one_the_champion_and_a_stranger_are_refused(trials: tuple[Trials, list[str]]) -> None:
    kept, names = trials
    with pytest.raises(UsageError) as usage:
        kept.start(made(names[0]))
    assert usage.value.message == f"release {names[0]} is the champion already"
    kept.start(made(names[1]))
    with pytest.raises(GateError) as error:
        kept.start(made(names[2], "two"))
    assert str(error.value) == (
        f"experiment one with {names[1]} runs since 2026-05-01 00:00 UTC\n"
        "  wait for it, or end it: tunectl release experiment stop"
    )


def test_kills_between_record_and_file_are_mended(trials: tuple[Trials, list[str]]) -> None:
    kept, names = trials
    found = kept.start(made(names[1]))
    (kept.store.root / "challenger.json").unlink()  # killed after the record
    assert kept.mend()
    assert kept.served() is not None
    kept.write(replace(found, ended=NOW, decision="harm"))  # an end whose file came back, for example from a backup
    assert kept.mend()
    assert kept.served() is None
    assert not kept.mend()
