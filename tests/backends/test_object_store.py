"""A release store behind an address, through the real fsspec: in memory, and in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tunectl.backends.export.bento_build import _requirements
from tunectl.backends.storage import open_registry
from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.core.errors import ArtifactError, InfrastructureError, MissingExtraError, UsageError
from tunectl.registry import protocols
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import RemoteRegistry
from tunectl.registry.remote_sync import push


@pytest.fixture(params=["memory", "file"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return f"memory://{tmp_path.name}/releases" if request.param == "memory" else f"file://{tmp_path}/far"


@pytest.fixture
def store(tmp_path: Path) -> ReleaseRegistry:
    found = ReleaseRegistry(tmp_path / "store")
    for text in ("a", "b"):
        folder = tmp_path / text
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "adapter_model.safetensors").write_text(text)
        (folder / "contract.json").write_text("{}")
        found.add(folder, BuildFacts("demo", "openvino", "merged"))
    return found


def test_what_is_promoted_here_is_the_champion_there(store: ReleaseRegistry, address: str, tmp_path: Path) -> None:
    files = FsspecObjectStore(address)
    found = open_registry.open_registry(address, tmp_path / "server")
    assert (found.location, found.ids(), found.champion(), found.canary()) == (address, [], None, None)
    one, other = store.ids()
    store.promote(one, author="t", message="w")
    assert push(store, files) == [one, other]
    assert push(store, files) == []
    pointer = found.champion()
    assert pointer is not None
    assert (pointer.release, sorted(found.ids())) == (one, sorted([one, other]))
    folder = found.fetch(one)
    assert folder == tmp_path / "server" / ".tunectl" / "remote" / one
    assert (folder / "adapter" / "adapter_model.safetensors").read_text() == "a"
    assert found.fetch(one) == folder
    assert [path.name for path in folder.parent.iterdir()] == [one]
    store.start_canary(other, share=0.5, author="t", message="w")
    push(store, files)
    assert found.canary() == store.canary()
    store.promote(other, author="t", message="w")
    push(store, files)
    assert found.canary() is None
    assert found.champion() == store.champion()


def test_an_object_is_made_once_whatever_the_driver_says(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files = FsspecObjectStore(address)
    assert files.create("champion/000001.json", b"one")
    assert not files.create("champion/000001.json", b"other")
    if not address.startswith("file://"):

        def refuses(*_: object, **__: object) -> None:
            raise OSError(22, "At least one of the pre-conditions you specified did not hold")

        monkeypatch.setattr(files._files, "pipe_file", refuses)
        assert not files.create("champion/000001.json", b"other")
        with pytest.raises(InfrastructureError, match="pre-conditions"):
            files.create("champion/000002.json", b"two")
    assert files.read("champion/000001.json") == b"one"


def test_what_is_not_whole_is_not_brought(store: ReleaseRegistry, address: str, tmp_path: Path) -> None:
    files, found = FsspecObjectStore(address), RemoteRegistry(FsspecObjectStore(address), tmp_path / "cache")
    one, other = store.ids()
    with pytest.raises(InfrastructureError, match=f"has no release {one}"):
        found.fetch(one)
    push(store, files)
    files.write(f"releases/{one}/contract.json", b"[]")
    with pytest.raises(ArtifactError, match=f"release {one} of .* is damaged: contract.json was changed"):
        found.fetch(one)
    files.remove(f"releases/{other}/contract.json")
    with pytest.raises(ArtifactError, match=f"release {other} of .* lacks a file"):
        found.fetch(other)
    files.write("champion.json", b"{")
    with pytest.raises(ArtifactError, match=r"champion.json is not the expected JSON"):
        found.champion()
    files.remove("champion.json")
    told = json.loads((store.folder(one) / "manifest.json").read_text())
    told["files"]["../../outside"] = "0" * 64
    files.write(f"releases/{one}/manifest.json", json.dumps(told).encode())
    with pytest.raises(ArtifactError, match=r"names the file '../../outside', which is outside its release"):
        found.fetch(one)
    assert list((tmp_path / "cache").iterdir()) == []
    (store.folder(other) / "contract.json").write_text("changed")
    files.remove(f"releases/{other}/manifest.json")
    with pytest.raises(ArtifactError, match=f"release {other} is damaged"):
        push(store, files)


def test_addresses_that_do_not_work(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nosuch://a: Protocol not known: nosuch"):
        FsspecObjectStore("nosuch://a")
    (tmp_path / "file").write_text("")
    with pytest.raises(InfrastructureError, match=r"file://.*/champion.json: "):
        FsspecObjectStore(f"file://{tmp_path}/file").write("champion.json", b"x")
    assert isinstance(open_registry.open_registry("store", tmp_path), ReleaseRegistry)


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("memory://ann:geheim@host/releases", "memory://***@host/releases"),
        ("memory://ann:ge/he@im@host:22/releases/", "memory://***@host:22/releases"),
        ("memory://ghp_geheim0123456789abcdef01234567@host/releases", "memory://***@host/releases"),
        ("memory://bucket/releases@2", "memory://bucket/releases@2"),
        ("memory://bucket/releases?sig=geheim", "memory://bucket/releases?sig=***"),
    ],
)
def test_a_password_is_never_shown(address: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = open_registry.open_registry(address, tmp_path)
    assert found.location == told

    def fails(_: str, **__: object) -> bytes:
        raise OSError(f"cannot reach {address}")

    monkeypatch.setattr(found._files._files, "cat_file", fails)
    with pytest.raises(InfrastructureError) as caught:
        found.champion()
    assert str(caught.value).startswith(f"{told}/champion.json: cannot reach {told}")
    assert "geheim" not in str(caught.value)
    with pytest.raises(UsageError) as wrong:
        FsspecObjectStore(address.replace("memory", "nosuch"))
    assert str(wrong.value).startswith(f"{told.replace('memory', 'nosuch')}: Protocol not known")


def test_a_driver_that_is_missing_is_named_and_comes_with_the_bento() -> None:
    try:
        import s3fs  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError) as caught:
            FsspecObjectStore("s3://bucket/releases")
        assert str(caught.value) == "s3://bucket/releases needs the package s3fs\n  pip install s3fs"
    assert _requirements("openvino", "s3://bucket/releases").count("\ns3fs==") == 1
    assert "s3fs" not in _requirements("openvino", ".tunectl/releases")


def test_what_is_larger_than_declared_is_not_brought_and_leaves_nothing(
    store: ReleaseRegistry, address: str, tmp_path: Path
) -> None:
    files, found = FsspecObjectStore(address), RemoteRegistry(FsspecObjectStore(address), tmp_path / "cache")
    one, other = store.ids()
    push(store, files)
    weights = f"releases/{one}/adapter/adapter_model.safetensors"
    files.write(weights, b"a" * 20_000_000)
    with pytest.raises(ArtifactError, match=rf"{weights} has more than the 3 bytes that are declared") as caught:
        found.fetch(one)
    assert "who may write" in caught.value.hint
    assert list((tmp_path / "cache").iterdir()) == []
    with pytest.raises(ArtifactError, match="more than the 2 bytes"):
        files.fetch(f"releases/{other}/manifest.json", tmp_path / "part", 2)
    assert not (tmp_path / "part").exists()
    length = len((store.folder(other) / "manifest.json").read_bytes())
    assert files.fetch(f"releases/{other}/manifest.json", tmp_path / "part", length) == length


def test_a_release_that_the_disk_has_no_space_for_is_refused_before_it_is_brought(
    store: ReleaseRegistry, address: str, tmp_path: Path
) -> None:
    files = FsspecObjectStore(address)
    one = store.ids()[0]
    push(store, files)
    told = json.loads((store.folder(one) / "manifest.json").read_text())
    files.write(f"releases/{one}/manifest.json", json.dumps({**told, "bytes": 10**18}).encode())
    with pytest.raises(
        InfrastructureError, match=rf"release {one} needs 1000000000.0 GB on this disk, and .* GB are free"
    ):
        RemoteRegistry(files, tmp_path / "cache").fetch(one)
    assert list((tmp_path / "cache").iterdir()) == []


def test_manifests_statements_and_histories_have_bounds(store: ReleaseRegistry, address: str, tmp_path: Path) -> None:
    files, found = FsspecObjectStore(address), RemoteRegistry(FsspecObjectStore(address), tmp_path / "cache")
    one = store.ids()[0]
    push(store, files)
    for name, act in (
        (f"releases/{one}/manifest.json", lambda: found.fetch(one)),
        (f"releases/{one}.intoto.json", lambda: found.read_statement(one)),
    ):
        files.write(name, b" " * (protocols.MAX_MANIFEST_BYTES + 1))
        with pytest.raises(ArtifactError, match=rf"{name} has more than 16,000,000 bytes"):
            act()
    event = (tmp_path / "store" / "events.jsonl").read_bytes().splitlines(keepends=True)[0]
    filled = event.rstrip().ljust(protocols.MAX_HISTORY_BYTES // 3) + b"\n"
    for number in range(3, 6):
        files.write(f"events/{number:06d}.jsonl", filled)
    with pytest.raises(ArtifactError, match=r"events/000005.jsonl has more than 21,\d+,\d+ bytes"):
        found.log()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"a":' * 100_000, "is not the expected JSON"),
        (b"[" * 100_000, "is not the expected JSON"),
        (b" " * 1_000_001, "more than 1,000,000 bytes"),
    ],
)
def test_what_a_stranger_writes_in_place_of_a_record_is_an_error_and_no_crash(
    tmp_path: Path, content: bytes, words: str
) -> None:
    address = f"file://{tmp_path}/far"
    FsspecObjectStore(address).create("champion/000001.json", b"{}")
    (tmp_path / "far" / "champion" / "000001.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=rf"champion/000001\.json .*{words}"):
        open_registry.open_registry(address, tmp_path / "server").champion()
