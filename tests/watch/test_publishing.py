"""What the watcher promotes and tries reaches servers that look at an address."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunectl.artifacts.layout import Layout
from tunectl.backends.fsspec_files import FsspecFiles
from tunectl.config import check
from tunectl.core.errors import UsageError
from tunectl.release.manifest import Facts
from tunectl.release.mirror import Mirror
from tunectl.release.store import Store
from tunectl.services import watch
from tunectl.services.watcher.publishing import Publisher

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(tmp_path / "store")
    for number in range(2):
        folder = tmp_path / f"r{number}"
        folder.mkdir()
        (folder / "weights").write_text(str(number))
        made.add(folder, Facts("shop", "transformers", "apart"))
    made.promote(made.ids()[0], by="test", why="first")
    return made


def test_every_move_of_a_pointer_is_copied_once(store: Store, tmp_path: Path) -> None:
    address = f"file://{tmp_path / 'there'}"
    there = Mirror(FsspecFiles(address), tmp_path / "mirror")
    publisher = Publisher(store, address)
    assert publisher.publish()
    assert there.champion() == store.champion()
    assert not publisher.publish()
    challenger = store.ids()[1]
    store.challenge(challenger, share=0.5, by="test", why="try")
    assert publisher.publish()
    assert there.trial() == store.trial()
    store.promote(challenger, by="test", why="better")
    assert publisher.publish()
    assert (there.champion(), there.trial()) == (store.champion(), None)
    assert there.log() == store.log()
    assert (there.bring(challenger) / "weights").read_text() == "1"


def test_a_folder_is_not_copied(store: Store) -> None:
    assert not Publisher(store, ".tunectl/releases").publish()


def test_an_address_is_no_place_to_promote_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.delenv(watch.STORE, raising=False)
    root = check.load(Layout(), []).root
    assert watch.store_of(root, Layout()).root == Path(".tunectl/releases")
    monkeypatch.setenv(watch.STORE, "s3://bucket/shop")
    with pytest.raises(UsageError) as error:
        watch.store_of(root, Layout())
    assert str(error.value) == (
        "watch.store = s3://bucket/shop: takes a folder\n  set serve.store=s3://bucket/shop: the watcher copies its folder there"
    )
