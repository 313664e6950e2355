"""What a server keeps of a store behind an address: what a pointer names, and nothing for ever."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunectl.release.manifest import Facts
from tunectl.release.mirror import HALF_DONE, Mirror, sync
from tunectl.release.store import Store


class Objects:
    """A ``release.mirror.Files`` in memory."""

    address = "memory://releases"

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}

    def read(self, name: str) -> bytes | None:
        return self.held.get(name)

    def names(self, folder: str) -> list[str]:
        return sorted({name.split("/")[1] for name in self.held if name.startswith(f"{folder}/")})

    def write(self, name: str, content: bytes) -> None:
        self.held[name] = content

    def send(self, path: Path, name: str) -> None:
        self.held[name] = path.read_bytes()

    def fetch(self, name: str, path: Path) -> None:
        path.write_bytes(self.held[name])

    def remove(self, name: str) -> None:
        self.held.pop(name, None)


@pytest.fixture
def four(tmp_path: Path) -> tuple[Store, Mirror, Objects, list[str]]:
    store, objects, names = Store(tmp_path / "store"), Objects(), []
    for text in "abcd":
        folder = tmp_path / text
        folder.mkdir()
        (folder / "contract.json").write_text(f'{{"{text}": 1}}')
        names.append(store.add(folder, Facts("demo", "openvino", "merged")).id)
    return store, Mirror(objects, tmp_path / "cache"), objects, names


def promoted(store: Store, mirror: Mirror, objects: Objects, name: str) -> set[str]:
    """Promote, and let the server bring it; what lies there afterwards."""
    store.promote(name, by="t", why="w")
    sync(store, objects)
    mirror.bring(name)
    return {path.name for path in mirror.folder(name).parent.iterdir()}


def test_what_no_pointer_names_is_deleted(four) -> None:
    store, mirror, objects, (one, two, three, four_) = four
    assert promoted(store, mirror, objects, one) == {one}
    assert promoted(store, mirror, objects, two) == {one, two}
    store.challenge(one, share=0.1, by="t", why="w")
    assert promoted(store, mirror, objects, three) == {one, two, three}
    store.withdraw(by="t", why="w")
    assert promoted(store, mirror, objects, four_) == {three, four_}
    store.rollback(by="t", why="w")
    sync(store, objects)
    assert mirror.champion().release == three
    assert mirror.bring(three).is_dir()


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
    assert (mirror.bring(one) / "contract.json").read_bytes() == before
    (mirror.folder(one) / "manifest.json").unlink()
    assert (mirror.bring(one) / "contract.json").read_bytes() == before
    assert [path.name for path in mirror.folder(one).parent.iterdir()] == [one]
