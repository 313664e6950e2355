"""The experiment of a store: one at a time, and the servers' file agrees with the records after any kill."""

from argparse import ArgumentParser
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Thread

import pytest
from msgspec.structs import replace

from tunectl.artifacts import lock
from tunectl.canary.canary_store import CanaryRecord, CanaryStore
from tunectl.canary.sequential_test import CanaryResult, SequentialTestRules
from tunectl.cli import release
from tunectl.core.errors import GateError, UsageError
from tunectl.registry.release_manifest import BuildFacts, RecordedVerdict
from tunectl.registry.release_store import ReleaseRegistry

NOW = datetime(2026, 5, 1, tzinfo=UTC)
RULES = SequentialTestRules(0.2, 0.0, 0.05, 0.05, 0.05, 50, None)


@pytest.fixture
def canaries(tmp_path: Path) -> tuple[CanaryStore, list[str]]:
    store, names = ReleaseRegistry(tmp_path / "store"), []
    for number in range(3):
        source = tmp_path / f"release{number}"
        source.mkdir()
        (source / "weights").write_text(str(number))
        names.append(store.add(source, BuildFacts("shop", "transformers", "adapter")).id)
    store.promote(names[0], author="test", message="first")
    return CanaryStore(store), names


def made(challenger: str, name: str = "one") -> CanaryRecord:
    until = NOW + timedelta(days=7)
    return CanaryRecord(name, challenger, "", "click", RULES, 24.0, 5.0, NOW, until, "salt", "Ann", "why")


def test_servers_read_what_is_started_and_nothing_once_it_ended(canaries: tuple[CanaryStore, list[str]]) -> None:
    kept, names = canaries
    found = kept.start(made(names[1]))
    assert found.champion == names[0]
    canary = kept.store.canary()
    assert canary is not None
    assert (canary.release, canary.share, canary.salt, canary.author, canary.message) == (
        names[1],
        0.2,
        "salt",
        "Ann",
        "canary one: why",
    )
    assert kept.start(made(names[1])) == found
    assert kept.store.canary() == canary, "begun once"
    ended = kept.end(found, "harm", NOW, None)
    assert kept.store.canary() is None
    assert kept.running() is None
    assert kept.all() == [ended]
    told = [(one.action, one.release, one.share, one.message) for one in kept.store.log()[-2:]]
    assert told == [
        ("canary_start", names[1], 0.2, "canary one: why"),
        ("canary_stop", names[1], None, "canary one ended: harm"),
    ]


def test_a_persons_own_challenger_is_not_touched(canaries: tuple[CanaryStore, list[str]]) -> None:
    kept, names = canaries
    theirs = kept.store.start_canary(names[2], share=0.0, author="Bo", message="by name only")
    with pytest.raises(GateError) as error:
        kept.start(made(names[1]))
    assert str(error.value) == (
        f"{names[2]} is challenger already, set by Bo: by name only\n  stop it first: tunectl release canary stop"
    )
    assert kept.all() == [], "and no record speaks of it"
    assert not kept.repair()
    assert kept.store.canary() == theirs


def test_what_a_gate_refused_is_not_tried(canaries: tuple[CanaryStore, list[str]], tmp_path: Path) -> None:
    kept, _ = canaries
    source = tmp_path / "refused"
    source.mkdir()
    (source / "weights").write_text("refused")
    facts = BuildFacts(
        "shop", "transformers", "adapter", verdicts={"evaluate": RecordedVerdict(False, "worse", "It is worse.")}
    )
    with pytest.raises(GateError, match=r"was refused: evaluate: It is worse\.") as told:
        kept.start(made(kept.store.add(source, facts).id))
    assert kept.all() == []
    parser = ArgumentParser()
    release.add(parser)
    words = told.value.hint.partition("tunectl release ")[2].split()
    assert parser.parse_args(words).force, "what the hint says can be typed"


def test_one_that_won_is_not_put_up_again(canaries: tuple[CanaryStore, list[str]]) -> None:
    kept, names = canaries
    found = kept.start(made(names[1]))
    kept.store.promote(names[1], author="test", message="it won")  # killed before the experiment's end is written
    assert not kept.repair()
    assert kept.store.canary() is None
    kept.end(found, "promote", NOW, None)
    assert [one.decision for one in kept.all()] == ["promote"]


def test_a_second_canary_the_champion_and_an_unknown_release_are_refused(
    canaries: tuple[CanaryStore, list[str]],
) -> None:
    kept, names = canaries
    with pytest.raises(UsageError) as usage:
        kept.start(made(names[0]))
    assert usage.value.message == f"release {names[0]} is the champion already"
    kept.start(made(names[1]))
    with pytest.raises(GateError) as error:
        kept.start(made(names[2], "two"))
    assert str(error.value) == (
        f"canary one has been testing {names[1]} since 2026-05-01 00:00 UTC\n"
        "  wait for its end, or end it: tunectl release canary stop"
    )


def test_kills_between_record_and_file_are_repaired(canaries: tuple[CanaryStore, list[str]]) -> None:
    kept, names = canaries
    found = kept.start(made(names[1]))
    (kept.store.root / "canary.json").unlink()  # killed after the record
    assert kept.repair()
    canary = kept.store.canary()
    assert canary is not None
    assert canary.salt == found.salt, "everybody stays in their variant"
    kept.write(replace(found, ended_at=NOW, decision="harm"))  # an end whose file came back, for example from a backup
    assert kept.repair()
    assert kept.store.canary() is None
    assert not kept.repair()


def test_what_a_person_ended_stays_ended(canaries: tuple[CanaryStore, list[str]]) -> None:
    kept, names = canaries
    found = kept.start(made(names[1]))
    ended = kept.end(found, "running", NOW, None)  # while the controller still reads the traffic of what it knows
    reading = CanaryResult("promote", "better", 50, 50, 0.1, 0.2, 0.0, 0.2, {})
    assert kept.record_result(found, reading) == ended
    assert kept.end(found, "promote", NOW, reading) == ended
    assert kept.start(made(names[1])) == ended
    assert kept.all() == [ended]
    assert not kept.repair()
    assert kept.store.canary() is None


def test_a_look_is_kept_and_a_busy_store_is_waited_for(canaries: tuple[CanaryStore, list[str]]) -> None:
    kept, names = canaries
    found = kept.start(made(names[1]))
    reading = CanaryResult("running", "not yet", 5, 5, 0.1, 0.2, -0.5, 0.5, {})
    assert kept.record_result(found, reading).reading == reading
    patient = CanaryStore(ReleaseRegistry(kept.store.root, timeout_seconds=20.0))
    with lock.file_lock(kept.store.root / ".experiment.lock", "a test"):
        with pytest.raises(lock.LockTimeoutError, match="another process changes its canary: a test"):
            kept.end(found, "harm", NOW, None)
        waiting = Thread(target=patient.end, args=(found, "harm", NOW, None))
        waiting.start()
    waiting.join(20)
    assert [one.decision for one in kept.all()] == ["harm"]
