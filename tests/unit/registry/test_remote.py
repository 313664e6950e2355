"""What a server keeps of a store behind an address: what a pointer names, and nothing for ever."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from tunectl.core.errors import ArtifactError
from tunectl.registry import registry_formats, release_manifest
from tunectl.registry.protocols import MAX_RECORD_BYTES
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_state import ReleaseEvent
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import HALF_DONE, MAX_STEP, RemoteRegistry
from tunectl.registry.remote_sync import pull, push, resolve


class Objects:
    """A ``registry.protocols.ObjectStore`` in memory."""

    address = "memory://releases"

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.within = Path("/")

    def read(self, name: str, limit: int = MAX_RECORD_BYTES) -> bytes | None:
        content = self.held.get(name)
        assert content is None or len(content) <= limit
        return content

    def names(self, folder: str) -> list[str]:
        return sorted({name.split("/")[1] for name in self.held if name.startswith(f"{folder}/")})

    def write(self, name: str, content: bytes) -> None:
        self.held[name] = content

    def create(self, name: str, content: bytes) -> bool:
        return self.held.setdefault(name, content) is content

    def send(self, path: Path, name: str) -> None:
        self.held[name] = path.read_bytes()

    def fetch(self, name: str, path: Path, limit: int) -> int:
        assert path.resolve().is_relative_to(self.within), f"{path} would be written"
        return path.write_bytes(self.held[name][: limit + 1])

    def remove(self, name: str) -> None:
        self.held.pop(name, None)


@pytest.fixture
def four(tmp_path: Path) -> tuple[ReleaseRegistry, RemoteRegistry, Objects, list[str]]:
    store, objects, names = ReleaseRegistry(tmp_path / "store"), Objects(), []
    for text in "abcd":
        folder = tmp_path / text
        folder.mkdir()
        (folder / "contract.json").write_text(f'{{"{text}": 1}}')
        names.append(store.add(folder, BuildFacts("demo", "openvino", "merged")).id)
    return store, RemoteRegistry(objects, tmp_path / "cache"), objects, names


def promoted(store: ReleaseRegistry, mirror: RemoteRegistry, objects: Objects, name: str) -> set[str]:
    """Promote, and let the server bring it; what lies there afterwards."""
    store.promote(name, author="t", message="w")
    push(store, objects)
    mirror.fetch(name)
    return {path.name for path in mirror.folder(name).parent.iterdir()}


def test_what_no_pointer_names_is_deleted(four) -> None:
    store, mirror, objects, (one, two, three, four_) = four
    assert promoted(store, mirror, objects, one) == {one}
    assert promoted(store, mirror, objects, two) == {one, two}
    store.start_canary(one, share=0.1, author="t", message="w")
    assert promoted(store, mirror, objects, three) == {one, two, three}
    store.stop_canary(author="t", message="w")
    assert promoted(store, mirror, objects, four_) == {three, four_}
    store.rollback(author="t", message="w")
    push(store, objects)
    assert mirror.champion().release == three
    assert mirror.fetch(three).is_dir()


def test_what_a_kill_left_half_done_goes_after_a_day(four, tmp_path: Path) -> None:
    store, mirror, objects, (one, *_) = four
    for name, age in ((".old", HALF_DONE + 60), (".new", 60)):
        place = tmp_path / "cache" / name
        place.mkdir(parents=True)
        then = place.stat().st_mtime - age
        os.utime(place, (then, then))
    assert promoted(store, mirror, objects, one) == {one, ".new"}


def test_what_is_damaged_here_is_brought_again(four) -> None:
    store, mirror, objects, (one, *_) = four
    promoted(store, mirror, objects, one)
    before = (mirror.folder(one) / "contract.json").read_bytes()
    (mirror.folder(one) / "contract.json").write_bytes(b"damaged")
    assert (mirror.fetch(one) / "contract.json").read_bytes() == before
    (mirror.folder(one) / "manifest.json").unlink()
    assert (mirror.fetch(one) / "contract.json").read_bytes() == before
    assert [path.name for path in mirror.folder(one).parent.iterdir()] == [one]


def claimed(place: Path, name: str) -> RemoteRegistry:
    """A server's mirror below ``place`` whose bucket names the release ``name``, and holds one file of it."""
    objects, content = Objects(), b"owned"
    told = {
        "created_at": "2026-01-01T00:00:00+00:00",
        "project": "p",
        "parent": None,
        "engine": "e",
        "route": "merged",
        "bytes": len(content),
    }
    files = {"weights": hashlib.sha256(content).hexdigest()}
    objects.held[f"releases/{name}/weights"] = content
    objects.held[f"releases/{name}/manifest.json"] = json.dumps({**told, "id": name, "files": files}).encode()
    pointer = {
        "release": name,
        "previous": None,
        "promoted_at": "2026-01-01T00:00:00+00:00",
        "by": "",
        "why": "",
        "sequence": 1,
    }
    objects.held["champion.json"] = json.dumps(pointer).encode()
    return RemoteRegistry(objects, place / "data" / "mirror")


@contextmanager
def kept_within(mirror: RemoteRegistry) -> Iterator[None]:
    """Fail where it writes or deletes outside its cache, before it does: a mistake must not cost the machine that finds it."""
    within, really = mirror._cache.resolve(), shutil.rmtree

    def remove(path: Path, **how: object) -> None:
        assert Path(path).resolve().parent == within, f"{path} would be deleted"
        really(path, **how)

    mirror._files.within = within
    with mock.patch.object(shutil, "rmtree", remove):
        yield


@given(
    st.one_of(st.text(), st.text("./x"), st.from_regex("[0-9a-f]{16}\n")).filter(
        lambda name: not re.fullmatch("[0-9a-f]{16}", name)
    )
)
@example("{}/data/x")
@example("../x")
@example("../../data")
@example("..")
def test_a_name_that_is_none_writes_and_deletes_nothing(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "data" / "mirror").mkdir(parents=True)
        for canary in ("keys.json", "data/keys.json", "data/x", "data/mirror/.other"):
            (place / canary).write_text("secret")
        before = sorted(place.rglob("*"))
        called = name.replace("{}", folder)
        mirror, store = claimed(place, called), ReleaseRegistry(place / "data")
        acts = (
            mirror.champion,
            lambda: mirror.fetch(called),
            lambda: mirror.folder(called),
            lambda: store.folder(called),
        )
        with kept_within(mirror):
            for act in acts:
                with pytest.raises(ArtifactError):
                    act()
        assert sorted(place.rglob("*")) == before


def test_a_challenger_and_a_log_that_name_a_path_are_reported(tmp_path: Path) -> None:
    mirror = claimed(tmp_path, "../x")
    objects = mirror._files
    objects.held["challenger.json"] = b'{"release": "../x", "share": 0.5, "salt": "s"}'
    objects.held["log.jsonl"] = b'{"what": "add", "release": "../x", "at": ""}\n'
    for name, read in (
        ("champion.json", mirror.champion),
        ("challenger.json", mirror.canary),
        ("log.jsonl:1", mirror.log),
    ):
        with pytest.raises(ArtifactError) as caught:
            read()
        assert caught.value.message == (
            f"memory://releases/{name} is not the expected JSON: Expected `str` matching regex '^[0-9a-f]{{16}}(?!\\\\n)$' - at `$.release`"
        )
    assert mirror.ids() == []


def test_exactly_what_was_made_for_a_release_that_is_damaged_is_removed(tmp_path: Path) -> None:
    mirror = claimed(tmp_path, "0123456789abcdef")
    (tmp_path / "data" / "mirror" / ".another").mkdir(parents=True)
    with pytest.raises(ArtifactError, match="is damaged: its name should be"):
        mirror.fetch("0123456789abcdef")
    assert [path.name for path in (tmp_path / "data" / "mirror").iterdir()] == [".another"]


def test_another_folder_in_a_store_is_no_release(four) -> None:
    store, *_, (one, *others) = four
    folder = store.folder(one)
    folder.rename(folder.with_name("copy"))
    assert set(store.ids()) == set(others)


def test_of_numbered_pointers_the_newest_alone_stays_in_memory(tmp_path: Path) -> None:
    """Whoever writes to the address can add one of a megabyte before each look."""
    files = Objects()
    remote = RemoteRegistry(files, tmp_path / "cache")
    for number in range(1, 30):
        record = {
            "release": "a" * 16,
            "previous": None,
            "promoted_at": "2026-01-01T00:00:00+00:00",
            "author": "",
            "message": "",
            "sequence": number,
        }
        files.held[f"champion/{number:06d}.json"] = json.dumps({"format": 2, **record}).encode()
        pointer = remote.champion()
        assert pointer is not None
        assert pointer.sequence == number
    assert len(remote._events) == 1


def test_a_long_history_is_pulled_in_linear_time(tmp_path: Path) -> None:
    events = [
        registry_formats.EVENT.encode(ReleaseEvent("add", f"{number:016x}", "2026-01-01T00:00:00+00:00"))
        for number in range(100_000)
    ]
    store, objects = ReleaseRegistry(tmp_path / "other"), Objects()
    objects.write("events/000001.jsonl", b"".join(events[:-1]))
    assert pull(store, objects).events == 99_999
    objects.write("events/100000.jsonl", events[-1])
    started = time.process_time()
    assert pull(store, objects).events == 1
    assert time.process_time() - started < 20  # a few seconds, most of them for reading and writing the lines


@pytest.mark.parametrize("sequence", [2**64 - 1, 10**12, MAX_STEP + 2, 0, -1])
def test_a_sequence_that_no_promotion_gives_is_not_gone_on_from(four, sequence: int) -> None:
    """Above it a pointer would need more digits than an address has: no server would follow this registry again."""
    store, _, objects, (one, two, *_) = four
    store.promote(one, author="t", message="w")
    push(store, objects)
    forged = ReleaseEvent("promote", one, "2026-01-01T00:00:00+00:00", sequence=sequence)
    objects.write(f"events/{len(store.log()) + 1:06d}.jsonl", registry_formats.EVENT.encode(forged))
    store.promote(two, author="t", message="w")
    for act in (
        lambda: pull(store, objects),
        lambda: push(store, objects),
        lambda: resolve(store, objects, "ours", author="t", message="w"),
        lambda: resolve(store, objects, "theirs", author="t", message="w"),
    ):
        with pytest.raises(ArtifactError, match=f"event 6 of the history has the sequence {sequence}; 1 to 100001 are"):
            act()
    assert store.champion().sequence == 2


def test_a_history_whose_pointer_is_not_there_yet_is_pulled_whole(four, tmp_path: Path) -> None:
    """A push makes the pointer last: what it was cut off before must not make another machine drop what it has downloaded."""
    store, _, objects, (one, two, three, _) = four
    for name in (one, two, three):
        store.promote(name, author="t", message="w")
        push(store, objects)
    del objects.held["champion/000003.json"]
    other = ReleaseRegistry(tmp_path / "other")
    assert pull(other, objects).releases == [three, two]
    assert [other.verify(name) for name in (two, three)] == [[], []]


def test_a_release_keeps_its_digest_with_its_own_files_alone(four, tmp_path: Path) -> None:
    """A digest is over lines: a name with a line end could stand for two files, and the first of them be left out."""
    store, mirror, objects, (one, *_) = four
    folder = tmp_path / "two files"
    folder.mkdir()
    (folder / "a.json").write_text("checks")
    (folder / "b.bin").write_text("weights")
    release = store.add(folder, BuildFacts("demo", "openvino", "merged")).id
    push(store, objects)
    key = f"releases/{release}/manifest.json"
    manifest = json.loads(objects.held[key])
    checks, weights = manifest["files"].values()
    name = f"a.json {checks}\nb.bin"
    assert release_manifest.content_digest({name: weights}) == release_manifest.content_digest(manifest["files"])
    objects.held[key] = json.dumps({**manifest, "files": {name: weights}}).encode()
    objects.held[f"releases/{release}/{name}"] = b"weights"
    with pytest.raises(ArtifactError, match="a line end cannot stand in the name of a file of a release"):
        mirror.fetch(release)
    assert not (tmp_path / "cache").exists()
    (folder / name).write_text("weights")
    with pytest.raises(ArtifactError, match="a line end cannot stand in the name of a file of a release"):
        store.add(folder, BuildFacts("demo", "openvino", "merged"))
    (store.folder(one) / name).write_text("weights")
    assert "a line end cannot stand" in store.verify(one)[0]


@pytest.mark.parametrize("found", ["another", "no JSON"])
def test_a_pointer_that_somebody_wrote_before_us_is_not_taken_for_ours(four, found: str) -> None:
    """Numbered objects are never replaced: a rollback would be reported as done, and no server would follow."""
    store, mirror, objects, (one, two, *_) = four
    for name in (one, two):
        store.promote(name, author="t", message="w")
        push(store, objects)
    pointer = store.rollback(author="t", message="broken")
    forged = registry_formats.POINTER.encode(replace(pointer, release=two))
    objects.held["champion/000003.json"] = forged if found == "another" else b"{"
    if found == "another":
        with pytest.raises(ArtifactError, match=r"champion/000003\.json is not the record of this registry"):
            push(store, objects)
    else:
        with pytest.raises(ArtifactError, match="is not the expected JSON"):
            push(store, objects)
    del objects.held["champion/000003.json"]
    push(store, objects)
    push(store, objects)
    assert mirror.champion() == pointer
