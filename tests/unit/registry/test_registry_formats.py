"""A registry that tunectl 0.1 made opens as it is, and the first change writes it anew with all that it held."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import version_0_1
from msgspec import ValidationError, to_builtins
from version_0_1 import expected, renamed

from tunectl.artifacts.canary_state import CanaryState
from tunectl.artifacts.record_format import NewerRecordError, RecordFormat, rename_keys
from tunectl.canary.canary_store import CanaryStore
from tunectl.core.errors import ArtifactError
from tunectl.packaging import serving_contract
from tunectl.registry import registry_formats, release_manifest
from tunectl.registry.release_state import ChampionPointer, ReleaseEvent
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.retraining import golden_set

ACTIONS = {"challenge": "canary_start", "withdraw": "canary_stop"}
LAYOUTS = {"apart": "adapter", "merged": "merged"}


@pytest.fixture
def store(tmp_path: Path) -> ReleaseRegistry:
    return ReleaseRegistry(version_0_1.copy_project(tmp_path / "project") / ".tunectl" / "releases")


def events_of_0_1() -> list[dict]:
    entries = [
        renamed(one, what="action", at="created_at", by="author", why="message") for one in expected("releases")["log"]
    ]
    return [{**one, "action": ACTIONS.get(one["action"], one["action"])} for one in entries]


def without_none(record: object) -> object:
    if isinstance(record, dict):
        return {name: without_none(value) for name, value in record.items() if value is not None}
    return [without_none(one) for one in record] if isinstance(record, list) else record


def test_pointers_and_history_are_those_of_0_1(store: ReleaseRegistry) -> None:
    told = expected("releases")
    new = {"digest": None, "signature": None}
    assert to_builtins(store.champion()) == renamed(told["champion"], by="author", why="message", what="action") | new
    assert to_builtins(store.canary()) == renamed(told["trial"], by="author", why="message")
    assert without_none(to_builtins(store.log())) == without_none(events_of_0_1())
    assert store.ids() == told["ids"]
    assert {path.name for path in store.root.glob("*.json*")} == {"champion.json", "challenger.json", "log.jsonl"}


def test_releases_keep_their_names_manifests_and_contracts(store: ReleaseRegistry) -> None:
    told = expected("releases")
    for name in store.ids():
        assert store.verify(name) == []
        was = told["manifests"][name]
        found = to_builtins(store.manifest(name))
        assert found["layout"] == LAYOUTS[was["route"]]
        for key in was.keys() - {"route", "lineage", "verdicts"}:
            assert found[key] == was[key], key
        assert list(found["verdicts"].values()) == list(was["verdicts"].values())
        assert "adapt" not in found["lineage"]["stages"]
        assert list(found["lineage"]["stages"].values()) == list(was["lineage"]["stages"].values())
        assert store.manifest(name).refusals == told["refusals"][name]
        before = (store.folder(name) / "contract.json").read_bytes()
        contract, was = to_builtins(serving_contract.load(store.folder(name))), told["contracts"].get(name)
        assert (store.folder(name) / "contract.json").read_bytes() == before
        if was is not None:
            assert contract["eot_token"] == was["end_of_turn"]
            assert contract["layout"] == LAYOUTS[was["route"]]
            assert contract["tolerance"] == renamed(
                was["tolerance"], logprob="max_logprob_diff", agreement="min_token_agreement"
            )
            same = was.keys() - {"end_of_turn", "route", "tolerance", "format"}
            assert {key: contract[key] for key in same} == {key: was[key] for key in same}


def test_the_first_change_writes_the_history_anew_with_all_that_it_held(store: ReleaseRegistry) -> None:
    before, canary = store.log(), store.canary()
    store.rollback(author="Ann", message="worse")
    assert store.log()[:-1] == before
    assert store.canary() == canary
    assert {path.name for path in store.root.glob("*.json*")} == {"champion.json", "canary.json", "events.jsonl"}
    lines = [json.loads(line) for line in (store.root / "events.jsonl").read_bytes().splitlines()]
    assert {line["version"] for line in lines} == {2}
    assert json.loads((store.root / "champion.json").read_text())["version"] == 2


def test_a_change_that_is_cut_off_leaves_the_history_whole(store: ReleaseRegistry, monkeypatch) -> None:
    """Killed after the new file and before the old one goes: nothing is there twice, and nothing is lost."""
    before, unlink = store.log(), Path.unlink

    def cut(path: Path, missing_ok: bool = False) -> None:
        if path.name == "log.jsonl":
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", cut)
    with pytest.raises(KeyboardInterrupt):
        store.stop_canary(author="Ann", message="enough")
    monkeypatch.undo()
    assert (store.root / "log.jsonl").is_file()
    assert store.log() == before
    store.stop_canary(author="Ann", message="enough")
    assert store.log()[:-1] == before
    assert store.canary() is None


def test_experiments_are_those_of_0_1(store: ReleaseRegistry) -> None:
    rules = {"guard_tolerance": "guardrail_tolerance", "least": "min_units_per_variant", "most": "max_total_units"}
    names = {"measure": "metric", "began": "started_at", "ended": "ended_at", "by": "author", "why": "message"}
    was = [{**renamed(one, **names), "rules": renamed(one["rules"], **rules)} for one in expected("experiments")["all"]]
    kept = CanaryStore(store)
    assert [without_none(to_builtins(one)) for one in kept.all()] == [without_none(one) for one in was]
    running = kept.running()
    assert running is not None
    assert running.id == expected("experiments")["running"]
    assert not kept.repair()  # the canary of 0.1 is this experiment's: nobody is assigned anew
    kept.write(running)
    assert kept.running() == running
    assert json.loads((kept.folder / f"{running.id}.json").read_text())["version"] == 2


def test_golden_sets_are_those_of_0_1(store: ReleaseRegistry) -> None:
    found = golden_set.newest(store.root)
    assert found is not None
    was = expected("golden")["v2"]
    assert to_builtins(found[0]) == renamed(was["golden"], at="created_at")
    assert [one.id for one in golden_set.items(found[1], found[0])] == was["items"]
    golden_set.count_use(store.root)
    after = golden_set.newest(store.root)
    assert after is not None
    assert (after[0].version, after[0].uses) == (2, found[0].uses + 1)
    assert json.loads((found[1] / "golden.json").read_text())["format"] == 2


@pytest.mark.parametrize(
    ("name", "key", "read"),
    [
        ("champion.json", "version", ReleaseRegistry.champion),
        ("challenger.json", "version", ReleaseRegistry.canary),
        ("log.jsonl", "version", ReleaseRegistry.log),
        ("releases/2d4f4cd65546b5cb/manifest.json", "version", lambda store: store.manifest("2d4f4cd65546b5cb")),
        ("releases/2d4f4cd65546b5cb/contract.json", "format", lambda store: serving_contract.load(store.folder("2d4f4cd65546b5cb"))),
        ("golden/v2/golden.json", "format", lambda store: golden_set.newest(store.root)),
        ("experiments/manual-0a1b2c3d.json", "version", lambda store: CanaryStore(store).all()),
    ],
)  # fmt: skip
def test_what_a_later_tunectl_wrote_is_refused_by_name(store: ReleaseRegistry, name: str, key: str, read) -> None:
    path = store.root / name
    lines = (
        [json.loads(line) for line in path.read_bytes().splitlines()]
        if name.endswith("l")
        else [json.loads(path.read_bytes())]
    )
    path.write_text("".join(json.dumps({**one, key: 99}) + "\n" for one in lines))
    with pytest.raises(NewerRecordError, match=rf"{name}.* of version 99; this tunectl reads versions up to 2"):
        read(store)


@pytest.mark.parametrize("version", [0, -1, "2", True, 1.5, None])
def test_a_version_that_is_none_is_no_record(tmp_path: Path, version: object) -> None:
    form = RecordFormat("canary state", (lambda record: record,))
    (tmp_path / "canary.json").write_text(
        json.dumps({"release": "0" * 16, "share": 0.1, "salt": "s", "version": version})
    )
    with pytest.raises(
        ArtifactError,
        match=r"canary.json is not the expected JSON: .* must be a whole number, 1 or more - at `\$.version`",
    ):
        form.read(tmp_path / "canary.json", CanaryState)


def test_an_upgrade_leaves_its_argument_and_what_it_does_not_know() -> None:
    given = {"by": "Ann", "other": 1}
    assert rename_keys(given, {"by": "author", "why": "message"}) == {"author": "Ann", "other": 1}
    assert given == {"by": "Ann", "other": 1}


def test_several_versions_are_upgraded_one_after_the_other(tmp_path: Path) -> None:
    form = RecordFormat("thing", (lambda one: {**one, "a": one["a"] + 1}, lambda one: {**one, "a": one["a"] * 10}))
    assert [form.convert({"a": 1, "version": version}, dict, "x") for version in (1, 2, 3)] == [
        {"a": 20},
        {"a": 10},
        {"a": 1},
    ]
    assert form.to_plain({"a": 1}) == {"version": 3, "a": 1}


@pytest.mark.parametrize(
    "moment", ["soon", "2026-01-01T00:00:00", "2026-02-30T00:00:00+00:00", "0001-01-01T00:00:00+14:00", ""]
)
def test_a_time_that_cannot_be_compared_is_refused(store: ReleaseRegistry, moment: str) -> None:
    """Whoever may write to a bucket would stop the monitor with it, and the pages that show releases."""
    event = {"version": 2, "action": "add", "release": "a" * 16, "created_at": moment}
    with pytest.raises(ValidationError, match="must be a time with its zone"):
        registry_formats.EVENT.convert(event, ReleaseEvent, "events.jsonl")
    pointer = {
        "version": 2,
        "release": "a" * 16,
        "previous": None,
        "promoted_at": moment,
        "author": "",
        "message": "",
        "sequence": 1,
    }
    with pytest.raises(ValidationError, match="must be a time with its zone"):
        registry_formats.POINTER.convert(pointer, ChampionPointer, "champion.json")
    folder = store.folder(store.ids()[0])
    record = registry_formats.MANIFEST.to_plain(release_manifest.load(folder))
    (folder / release_manifest.NAME).write_text(json.dumps({**record, "created_at": moment}))
    with pytest.raises(ArtifactError, match="must be a time with its zone"):
        release_manifest.load(folder)
