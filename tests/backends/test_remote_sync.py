"""Two machines and one address, through the real fsspec: nobody undoes what another machine did without a word."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import version_0_1

from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.cli.main import main
from tunectl.core.errors import ArtifactError, GateError, UsageError
from tunectl.registry import history_adoption, release_state
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import RemoteRegistry
from tunectl.registry.remote_sync import pull, push, resolve

FACTS = BuildFacts("p", "openvino", "merged")


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of one server for all buckets: to stop one takes half a second."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def address(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    if request.param == "memory":
        yield f"memory://{uuid.uuid4().hex}/releases"
    elif request.param == "file":
        yield f"file://{tmp_path}/bucket"
    else:
        for name, value in {
            "AWS_ENDPOINT_URL": request.getfixturevalue("s3_server"),
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        import s3fs

        bucket = f"bucket-{uuid.uuid4().hex[:8]}"
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(bucket)
        yield f"s3://{bucket}/releases"
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def far(address: str) -> FsspecObjectStore:
    return FsspecObjectStore(address)


def package(folder: Path, name: str) -> Path:
    found = folder / f"package-{name}"
    found.mkdir(exist_ok=True)
    (found / "weights.bin").write_text(name)
    return found


def registry(tmp_path: Path, name: str) -> ReleaseRegistry:
    return ReleaseRegistry(tmp_path / name)


def added(store: ReleaseRegistry, name: str) -> str:
    return store.add(package(store.root.parent, name), FACTS, author="t", message="w").id


def cloned(store: ReleaseRegistry, far: FsspecObjectStore, name: str) -> ReleaseRegistry:
    """Another machine's registry that adopted what lies at the address."""
    other = registry(store.root.parent, name)
    pull(other, far)
    return other


@pytest.fixture
def shared(tmp_path: Path, far: FsspecObjectStore) -> tuple[ReleaseRegistry, ReleaseRegistry]:
    """Two machines whose registries are equal, and an address that has what they have."""
    ours = registry(tmp_path, "ours")
    ours.promote(added(ours, "old"), author="ann", message="first")
    push(ours, far)
    return ours, cloned(ours, far, "theirs")


def server(far: FsspecObjectStore, tmp_path: Path) -> RemoteRegistry:
    return RemoteRegistry(far, tmp_path / f"cache-{uuid.uuid4().hex[:6]}")


def told(found: RemoteRegistry) -> tuple[Any, ...]:
    pointer, canary = found.champion(), found.canary()
    return (
        pointer and (pointer.release, pointer.sequence),
        canary and canary.release,
        [entry.action for entry in found.log()],
    )


def test_a_machine_that_knows_nothing_of_another_changes_nothing(far: FsspecObjectStore, tmp_path: Path) -> None:
    """Two registries that were made independently, as in the scene that showed the defect."""
    one, other = registry(tmp_path, "A"), registry(tmp_path, "B")
    for store in (one, other):
        store.promote(added(store, "old"), author="ann", message="first")
    push(one, far)
    new = added(one, "new")
    one.promote(new, author="ann", message="much better")
    one.start_canary(one.ids()[0], share=0.1, author="ann", message="try")
    push(one, far)
    after = told(server(far, tmp_path))
    assert after == ((new, 2), one.ids()[0], ["add", "promote", "add", "promote", "canary_start"])
    with pytest.raises(GateError, match="have different histories since event 1: the champion there is") as caught:
        push(other, far)
    assert (
        caught.value.hint
        == f"keep one of the two: tunectl release sync {far.address} --keep theirs -m WHY (or: --keep ours)"
    )
    assert told(server(far, tmp_path)) == after


def test_whoever_is_behind_is_refused_and_pulls(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, tmp_path: Path
) -> None:
    ours, theirs = shared
    new = added(ours, "new")
    ours.promote(new, author="ann", message="better")
    ours.start_canary(ours.ids()[0], share=0.25, author="ann", message="try")
    push(ours, far)
    after = told(server(far, tmp_path))
    only_here = added(theirs, "theirs only")
    with pytest.raises(
        GateError, match=r"has events that .* does not have \(champion .*, sequence 2; here the sequence is 1\)"
    ) as caught:
        push(theirs, far)
    assert caught.value.hint == f"adopt them, then go on: tunectl release pull {far.address}"
    assert told(server(far, tmp_path)) == after
    found = pull(theirs, far)
    assert (found.events, found.releases) == (3, [new])
    assert (theirs.champion(), theirs.canary()) == (ours.champion(), ours.canary())
    assert theirs.log()[:-1] == ours.log()
    assert (theirs.log()[-1].action, theirs.log()[-1].release) == ("add", only_here)
    assert all(theirs.verify(name) == [] for name in theirs.ids())
    assert pull(theirs, far).events == 0
    assert push(theirs, far) == [only_here]
    theirs.rollback(author="bob", message="worse")
    push(theirs, far)
    pointer = server(far, tmp_path).champion()
    assert pointer is not None
    assert (pointer.release, pointer.sequence, pointer.action) == (ours.ids()[0], 3, "rollback")
    pull(ours, far)
    assert ours.champion() == theirs.champion()
    assert ours.log() == theirs.log()


def test_of_two_syncs_at_once_exactly_one_wins(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, address: str, tmp_path: Path
) -> None:
    for round_number in range(3):
        for store, who in zip(shared, ("ann", "bob"), strict=True):
            store.promote(added(store, f"{who} {round_number}"), author=who, message="better")
        results = _push_together(shared, address)
        assert sorted(results.values()) == ["refused", "won"]
        winner, loser = (shared[next(one for one in results if results[one] == word)] for word in ("won", "refused"))
        found = server(far, tmp_path)
        assert (found.champion(), found.log()) == (winner.champion(), winner.log())
        resolve(loser, far, "theirs", author="cy", message="the other one was first")
        pull(winner, far)
        assert winner.log() == loser.log()


def _push_together(stores: tuple[ReleaseRegistry, ReleaseRegistry], address: str) -> dict[int, str]:
    """Both have read the same history before either writes; what became of each."""
    gate, results = threading.Barrier(2), dict[int, str]()

    def sync(number: int, store: ReleaseRegistry) -> None:
        mine = FsspecObjectStore(address)
        create = mine.create

        def create_together(name: str, content: bytes) -> bool:
            if name.startswith("events/"):
                gate.wait(30)
            return create(name, content)

        mine.create = create_together  # type: ignore[method-assign]
        try:
            push(store, mine)
            results[number] = "won"
        except GateError:
            results[number] = "refused"

    threads = [threading.Thread(target=sync, args=(number, store)) for number, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


@pytest.mark.parametrize("keep", ["ours", "theirs"])
def test_a_fork_ends_with_one_command_that_writes_a_higher_sequence(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, tmp_path: Path, keep: Any
) -> None:
    ours, theirs = shared
    here, there = added(ours, "here"), added(theirs, "there")
    theirs.promote(there, author="bob", message="mine")
    push(theirs, far)
    for release in (here, ours.ids()[0], here):
        ours.promote(release, author="ann", message="mine")
    before = ours.log()
    for refused in (push, pull):
        with pytest.raises(GateError, match="different histories since event 3"):
            refused(ours, far)
    resolve(ours, far, keep, author="cy", message="we talked about it")
    pointer = ours.champion()
    assert pointer is not None
    assert (pointer.release, pointer.sequence, pointer.author) == (here if keep == "ours" else there, 5, "cy")
    found = server(far, tmp_path)
    assert (found.champion(), found.log()) == (pointer, ours.log())
    assert [entry.action for entry in found.log()] == ["add", "promote", "add", "promote", "add", "promote"]
    kept = (ours.root / "forks" / "000005.jsonl").read_text().splitlines()
    assert [json.loads(line)["release"] for line in kept] == [entry.release for entry in before]
    pull(theirs, far)
    assert theirs.champion() == pointer
    assert release_state.promotion_stack(theirs.log())[-1] == pointer.release
    back = theirs.rollback(author="bob", message="no")
    assert back.release != pointer.release, "a promotion of what was champion already is no step to go back"


def test_who_is_ahead_and_keeps_its_own_loses_no_promotion(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, tmp_path: Path
) -> None:
    ours, _ = shared
    first = ours.ids()[0]
    second, third = added(ours, "second"), added(ours, "third")
    for release in (second, third):
        ours.promote(release, author="ann", message="mine")
    resolve(ours, far, "ours", author="cy", message="no fork at all")
    assert release_state.promotion_stack(ours.log()) == [first, second, third]
    assert server(far, tmp_path).champion() == ours.champion()
    assert ours.rollback(author="ann", message="no").release == second


def test_what_was_written_is_never_written_again(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore
) -> None:
    ours, _ = shared
    assert far.names("champion") == ["000001.json"]
    before = far.read("champion/000001.json")
    assert far.create("champion/000001.json", b"other") is False
    assert far.read("champion/000001.json") == before
    ours.promote(added(ours, "new"), author="ann", message="better")
    push(ours, far)
    assert sorted(far.names("champion")) == ["000001.json", "000002.json"]
    assert sorted(far.names("events")) == ["000001.jsonl", "000003.jsonl"]


def test_two_processes_of_one_machine_add_all_that_is_new(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, tmp_path: Path
) -> None:
    """One finds the part that it wanted to make: the other one was a moment earlier, with all but the last events."""
    ours, _ = shared
    added(ours, "one")
    create = far.create

    def create_after_the_other(name: str, content: bytes) -> bool:
        far.create = create  # type: ignore[method-assign]
        lines = content.splitlines(keepends=True)
        assert create(name, b"".join(lines[:2]))
        return create(name, content)

    added(ours, "two")
    ours.promote(added(ours, "three"), author="ann", message="better")
    far.create = create_after_the_other  # type: ignore[method-assign]
    push(ours, far)
    found = server(far, tmp_path)
    assert (found.champion(), found.log()) == (ours.champion(), ours.log())


@pytest.mark.parametrize("cut", ["events", "canary", "champion"])
def test_a_sync_that_was_cut_off_is_finished_by_the_next(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, tmp_path: Path, cut: str
) -> None:
    ours, _ = shared
    before = told(server(far, tmp_path))
    ours.promote(added(ours, "new"), author="ann", message="better")
    ours.start_canary(ours.ids()[0], share=0.5, author="ann", message="try")
    create = far.create

    def cut_off(name: str, content: bytes) -> bool:
        if name.startswith(cut):
            raise KeyboardInterrupt
        return create(name, content)

    far.create = cut_off  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        push(ours, far)
    assert told(server(far, tmp_path))[0] == before[0], "the pointer moves last"
    far.create = create  # type: ignore[method-assign]
    push(ours, far)
    found = server(far, tmp_path)
    assert (found.champion(), found.canary(), found.log()) == (ours.champion(), ours.canary(), ours.log())


def test_an_address_of_0_1_is_read_and_carried_on(far: FsspecObjectStore, tmp_path: Path) -> None:
    store = ReleaseRegistry(version_0_1.copy_project(tmp_path / "project") / ".tunectl" / "releases")
    for name in ("champion.json", "challenger.json", "log.jsonl"):
        far.write(name, (store.root / name).read_bytes())
    for path in (path for path in (store.root / "releases").rglob("*") if path.is_file()):
        far.send(path, path.relative_to(store.root).as_posix())
    found = server(far, tmp_path)
    assert (found.champion(), found.canary(), found.log()) == (store.champion(), store.canary(), store.log())
    assert push(store, far) == []
    assert (far.names("champion"), far.names("events")) == (["000004.json"], ["000001.jsonl"])
    found = server(far, tmp_path)
    assert (found.champion(), found.canary(), found.log()) == (store.champion(), store.canary(), store.log())
    store.stop_canary(author="ann", message="enough")
    store.rollback(author="ann", message="worse")
    push(store, far)
    found = server(far, tmp_path)
    assert (found.champion(), found.canary(), found.log()) == (store.champion(), None, store.log())
    other = registry(tmp_path, "other")
    pull(other, far)
    assert other.log()[: len(store.log())] == store.log()


def test_a_server_stays_on_the_newest_pointer_that_it_saw(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, tmp_path: Path
) -> None:
    ours, _ = shared
    found = server(far, tmp_path)
    for number in range(4):
        ours.promote(added(ours, str(number)), author="ann", message="w")
    push(ours, far)
    newest = found.champion()
    assert newest is not None
    assert (newest.sequence, found.warning) == (5, "")
    far.remove("champion/000005.json")
    far.create("champion/000004.json", json.dumps({"version": 2, **_plain(ours, 4)}).encode())
    assert found.champion() == newest
    assert "was seen there: it is an old copy" in found.warning
    ours.rollback(author="ann", message="back")
    push(ours, far)
    after = found.champion()
    assert after is not None
    assert (after.sequence, after.action, found.warning) == (6, "rollback", "")


def _plain(store: ReleaseRegistry, sequence: int) -> dict[str, Any]:
    entry = next(one for one in store.log() if one.sequence == sequence)
    return {
        "release": entry.release, "previous": entry.previous, "promoted_at": entry.created_at,
        "author": "", "message": "", "sequence": sequence,
    }  # fmt: skip


def test_a_part_of_the_history_that_is_missing_is_reported(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, tmp_path: Path
) -> None:
    ours, _ = shared
    ours.promote(added(ours, "new"), author="ann", message="better")
    push(ours, far)
    far.remove("events/000001.jsonl")
    with pytest.raises(
        ArtifactError, match=r"events: the file that begins with event 1 is missing; the next one is 000003.jsonl"
    ):
        server(far, tmp_path).log()
    far.write("champion/000009.json", far.read("champion/000001.json") or b"")
    with pytest.raises(ArtifactError, match=r"champion/000009.json holds sequence number 1, expected 9"):
        server(far, tmp_path).champion()


def test_a_pull_that_is_killed_anywhere_is_finished_by_the_next_change(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = shared
    ours.promote(added(ours, "new"), author="ann", message="better")
    ours.start_canary(ours.ids()[0], share=0.5, author="ann", message="try")
    push(ours, far)
    formats = history_adoption.registry_formats
    for cut in ("EVENT", "POINTER", "CANARY_STATE"):
        store = ReleaseRegistry(theirs.root.with_name(f"killed-{cut}"))
        with monkeypatch.context() as patch:
            patch.setattr(history_adoption, "registry_formats", _Cut(formats, cut))
            with pytest.raises(KeyboardInterrupt):
                pull(store, far)
        store.add(package(store.root.parent, "later"), FACTS, author="t", message="w")
        assert store.log()[:-1] == ours.log(), cut
        assert (store.champion(), store.canary()) == (ours.champion(), ours.canary())
        push(store, far)
        pull(ours, far)


class _Cut:
    """The formats of the registry, of which one is killed before it writes."""

    def __init__(self, formats: Any, cut: str) -> None:
        self._formats, self._cut = formats, cut

    def __getattr__(self, name: str) -> Any:
        if name == self._cut:
            raise KeyboardInterrupt
        return getattr(self._formats, name)


def test_an_empty_address_has_nothing_to_pull(far: FsspecObjectStore, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no registry at"):
        pull(registry(tmp_path, "empty"), far)


def test_the_verbs(
    shared: tuple[ReleaseRegistry, ReleaseRegistry], far: FsspecObjectStore, address: str, capsys
) -> None:
    ours, theirs = shared
    new = added(ours, "new")
    ours.promote(new, author="ann", message="better")
    assert main(["release", "sync", address, "--store", str(ours.root)]) == 0
    capsys.readouterr()
    assert main(["release", "sync", address, "--store", str(theirs.root)]) == 3
    assert f"tunectl release pull {far.address}" in capsys.readouterr().err
    assert main(["release", "pull", address, "--store", str(theirs.root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"events": 2, "brought": [new], "champion": new}
    ours.rollback(author="ann", message="worse")
    theirs.promote(added(theirs, "newer"), author="bob", message="newer")
    assert main(["release", "sync", address, "--store", str(theirs.root)]) == 0
    assert main(["release", "sync", address, "--store", str(ours.root)]) == 3
    capsys.readouterr()
    assert (
        main(["release", "sync", address, "--store", str(ours.root), "--keep", "ours", "-m", "we talked", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["champion"] == ours.ids()[0]
    pointer = ours.champion()
    assert pointer is not None
    assert (pointer.sequence, pointer.message) == (4, "we talked")
