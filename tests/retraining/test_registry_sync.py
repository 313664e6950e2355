"""What the watcher promotes and tries reaches servers that look at an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.config.loading import checks
from tunectl.core.errors import ArtifactError, UsageError
from tunectl.registry.release_manifest import BuildFacts
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import RemoteRegistry
from tunectl.retraining.registry_sync import Publisher
from tunectl.services import retrain_controller

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> ReleaseRegistry:
    made = ReleaseRegistry(tmp_path / "store")
    for number in range(2):
        folder = tmp_path / f"r{number}"
        folder.mkdir()
        (folder / "weights").write_text(str(number))
        made.add(folder, BuildFacts("shop", "transformers", "adapter"))
    made.promote(made.ids()[0], author="test", message="first")
    return made


def test_every_move_of_a_pointer_is_copied_once(store: ReleaseRegistry, tmp_path: Path) -> None:
    address = f"file://{tmp_path / 'there'}"
    there = RemoteRegistry(FsspecObjectStore(address), tmp_path / "mirror")
    publisher = Publisher(store, address)
    assert publisher.sync_if_changed()
    assert there.champion() == store.champion()
    assert not publisher.sync_if_changed()
    challenger = store.ids()[1]
    store.start_canary(challenger, share=0.5, author="test", message="try")
    assert publisher.sync_if_changed()
    assert there.canary() == store.canary()
    store.promote(challenger, author="test", message="better")
    assert publisher.sync_if_changed()
    assert (there.champion(), there.canary()) == (store.champion(), None)
    assert there.log() == store.log()
    assert (there.fetch(challenger) / "weights").read_text() == "1"


def test_a_pointer_waits_for_no_release_that_it_does_not_name(store: ReleaseRegistry, tmp_path: Path) -> None:
    """A rollback must reach servers although a candidate that nobody serves is damaged, or large and not copied yet."""
    address = f"file://{tmp_path / 'there'}"
    there = RemoteRegistry(FsspecObjectStore(address), tmp_path / "mirror")
    publisher = Publisher(store, address)
    publisher.sync_if_changed()
    (other,) = set(store.ids()) - {store.champion().release}
    folder = tmp_path / "candidate"
    folder.mkdir()
    (folder / "weights").write_text("2")
    candidate = store.add(folder, BuildFacts("shop", "transformers", "adapter")).id
    (store.folder(candidate) / "weights").write_text("damaged")
    store.promote(other, author="test", message="better")
    store.rollback(author="test", message="worse")
    with pytest.raises(ArtifactError, match=f"release {candidate} is damaged"):
        publisher.sync_if_changed()
    assert (there.champion(), there.log()) == (store.champion(), store.log())


def test_a_folder_is_not_copied(store: ReleaseRegistry) -> None:
    assert not Publisher(store, ".tunectl/releases").sync_if_changed()


def test_an_address_is_no_place_to_promote_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv(retrain_controller.STORE, raising=False)
    root = checks.load_config(ProjectPaths(), []).root
    assert retrain_controller.open_registry(root, ProjectPaths()).root == Path(".tunectl/releases")
    monkeypatch.setenv(retrain_controller.STORE, "s3://bucket/shop")
    with pytest.raises(UsageError) as error:
        retrain_controller.open_registry(root, ProjectPaths())
    assert str(error.value) == (
        "retrain.registry = s3://bucket/shop: must be a folder, not an address\n  set serve.registry=s3://bucket/shop: the retrain controller copies its folder there"
    )
