"""Which releases are in memory, as the store changes: loads wait for nobody, and nobody waits for a load."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tunectl.backends.transformers_engine import TransformersEngine
from tunectl.release.store import Store
from tunectl.services.server.residents import Residents


class Gate:
    """The reference engine behind a gate: each load is counted, and waits while it is shut."""

    name = "transformers"

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.pipelines: list[object] = []
        self.free = threading.Event()
        self.free.set()
        self.fails = False

    def open(self, release: Path, deliver, *, adapter: bool):
        self.opened.append(release.name)
        assert self.free.wait(60)
        if self.fails:
            raise ZeroDivisionError("no error of ours")
        self.pipelines.append(made := TransformersEngine(1).open(release, deliver, adapter=adapter))
        return made


@pytest.fixture
def gate() -> Gate:
    return Gate()


def residents(store: Store, gate: Gate, **given) -> Residents:
    settings = {"seed": None, "base": False, "observe": 60.0, "changed": lambda: None, **given}
    return Residents(store, lambda _: gate, **settings)


async def settled(found: Residents) -> dict[str, str]:
    await found.look()
    await found.loads()
    await found.look()
    return {arm: one.id for arm, one in found.loaded.items()}


def test_a_challenger_that_is_promoted_is_not_loaded_again(store: Store, releases: tuple, gate: Gate) -> None:
    first, second = releases[1:]

    async def story() -> None:
        found = residents(store, gate)
        store.challenge(second, share=0.5, by="t", why="w")
        assert await settled(found) == {"champion": first, "challenger": second}
        store.promote(second, by="t", why="w")
        await found.look()
        assert {arm: one.id for arm, one in found.loaded.items()} == {"champion": second}
        store.rollback(by="t", why="w")
        await found.look()
        assert found.loaded["champion"].id == first
        store.challenge(second, share=0.5, by="t", why="w")
        await found.look()
        assert found.loaded["challenger"].id == second
        assert gate.opened == [first, second]
        assert not any(one.broken for one in gate.pipelines)
        await found.close()

    asyncio.run(story())


def test_going_back_does_not_wait_for_what_is_being_loaded(store: Store, releases: tuple, gate: Gate) -> None:
    first, second = releases[1:]

    async def story() -> None:
        found = residents(store, gate)
        assert await settled(found) == {"champion": first}
        gate.free.clear()
        store.promote(second, by="t", why="w")
        await asyncio.wait_for(found.look(), 10)
        assert found.loaded["champion"].id == first
        store.rollback(by="t", why="w")
        await asyncio.wait_for(found.look(), 10)
        gate.free.set()
        await found.loads()
        await found.look()
        assert {arm: one.id for arm, one in found.loaded.items()} == {"champion": first}
        assert found.trouble == {}
        assert gate.opened == [first, second]
        await found.close()

    asyncio.run(story())


def test_whatever_a_library_raises_leaves_the_old_one_serving(store: Store, releases: tuple, gate: Gate) -> None:
    first, second = releases[1:]

    async def story() -> None:
        found = residents(store, gate)
        assert await settled(found) == {"champion": first}
        gate.fails = True
        store.promote(second, by="t", why="w")
        assert await settled(found) == {"champion": first}
        told = f"release {second} cannot be loaded: ZeroDivisionError: no error of ours"
        assert found.trouble == {"champion": told}
        await settled(found)
        assert gate.opened == [first, second]  # the same files are not tried again
        store.rollback(by="t", why="w")
        assert await settled(found) == {"champion": first}
        assert found.trouble == {}
        await found.close()

    asyncio.run(story())


def test_a_pipeline_that_broke_is_opened_anew(store: Store, releases: tuple, gate: Gate) -> None:
    first = releases[1]

    async def story() -> None:
        found = residents(store, gate)
        await settled(found)
        old = found.loaded["champion"]
        old.pipeline.broken = "it fell over"
        await found.look()
        assert not found.ready
        assert "the engine failed and is started again: it fell over" in found.trouble["champion"]
        assert await settled(found) == {"champion": first}
        assert found.loaded["champion"] is not old
        assert found.trouble == {}
        await found.close()

    asyncio.run(story())


def test_a_release_is_not_closed_under_a_request_that_still_waits(store: Store, releases: tuple, gate: Gate) -> None:
    async def story() -> None:
        found = residents(store, gate, observe=0.0)
        await settled(found)
        old = found.loaded["champion"]
        old.claims += 1
        store.promote(releases[2], by="t", why="w")
        await settled(found)
        await found.look()
        await asyncio.sleep(0.5)
        assert old.closed
        assert old.pipeline._thread.is_alive()
        old.claims -= 1
        for _ in range(50):
            await asyncio.sleep(0.1)
            if not old.pipeline._thread.is_alive():
                break
        assert not old.pipeline._thread.is_alive()
        await found.close()

    asyncio.run(story())
