"""Which releases are in memory, as the store changes: loads wait for nobody, and nobody waits for a load."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from scenarios.process_inspection import alive
from serving_process import settings
from tiny_release import stored, tiny_release

from tunectl.access import signatures
from tunectl.access.signatures import TrustedKey, TrustStore
from tunectl.backends.engines.subprocess_engine import SubprocessEngine
from tunectl.backends.engines.transformers_engine import TransformersEngine
from tunectl.backends.modeling.merge_adapter import merge
from tunectl.config.schema.serve import ServeSettings
from tunectl.core.errors import InfrastructureError
from tunectl.generation.engine import GenerationRequest
from tunectl.packaging import serving_contract as contracts
from tunectl.registry import release_manifest, release_statement
from tunectl.registry.release_store import CANARY, CHAMPION, ReleaseRegistry
from tunectl.registry.sequence_guard import CanaryGuard, SequenceGuard
from tunectl.serving import load_backoff, loaded_release, metadata_endpoints
from tunectl.serving.load_backoff import FIRST_PAUSE, LONGEST_PAUSE, LoadBackoff
from tunectl.serving.loaded_release import load_release
from tunectl.serving.model_manager import ModelManager
from tunectl.serving.stream_router import TokenStream


class Gate:
    """The reference engine behind a gate: each load is counted, and waits while it is shut."""

    name = "transformers"

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.sessions: list[object] = []
        self.free = threading.Event()
        self.free.set()
        self.fails = False
        self.hangs = ""
        """A release whose load hangs until ``let_go``."""
        self.let_go = threading.Event()
        self.given_up = 0
        self.adapters: list[bool] = []

    def open(self, release: Path, deliver, *, adapter: bool):
        self.opened.append(release.name)
        self.adapters.append(adapter)
        assert self.free.wait(60)
        if release.name == self.hangs:
            assert self.let_go.wait(60)
        if self.fails:
            raise ZeroDivisionError("no error of ours")
        self.sessions.append(made := TransformersEngine(1).open(release, deliver, adapter=adapter))
        return made

    def cancel_open(self) -> None:
        self.given_up += 1


class Mute:
    """A session that takes everything in and says nothing."""

    broken = None

    def __init__(self, inner) -> None:
        self.close = inner.close

    def start(self, number: int, ask: GenerationRequest) -> None:
        pass

    def cancel(self, number: int) -> None:
        pass


@pytest.fixture
def gate() -> Gate:
    return Gate()


def build_manager(store: ReleaseRegistry, gate: Gate | SubprocessEngine, **given) -> ModelManager:
    usual = {"bundled": None, "base": False, "standby_seconds": 60.0, "changed": lambda: None}
    return ModelManager(store, lambda _: gate, **usual | given)


async def wait_for_loads(manager: ModelManager) -> None:
    while manager._loading:
        await asyncio.gather(*manager._loading.values())


async def settled(found: ModelManager) -> dict[str, str]:
    await found.reconcile()
    await wait_for_loads(found)
    await found.reconcile()
    return {variant: one.id for variant, one in found.loaded.items()}


def test_the_first_champion_is_loaded_before_a_challenger(
    store: ReleaseRegistry, releases: tuple, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = releases[1:]
    fetch = store.fetch

    def fetch_slowly(release: str) -> Path:
        time.sleep(0.3 if release == first else 0.0)
        return fetch(release)

    async def scenario() -> None:
        found = build_manager(store, gate)
        store.start_canary(second, share=0.5, author="t", message="w")
        monkeypatch.setattr(store, "fetch", fetch_slowly)
        assert await settled(found) == {"champion": first, "challenger": second}
        assert gate.opened == [first, second]
        await found.close()

    asyncio.run(scenario())


def test_a_challenger_that_is_promoted_is_not_loaded_again(store: ReleaseRegistry, releases: tuple, gate: Gate) -> None:
    first, second = releases[1:]

    async def scenario() -> None:
        found = build_manager(store, gate)
        store.start_canary(second, share=0.5, author="t", message="w")
        assert await settled(found) == {"champion": first, "challenger": second}
        store.promote(second, author="t", message="w")
        await found.reconcile()
        assert {variant: one.id for variant, one in found.loaded.items()} == {"champion": second}
        store.rollback(author="t", message="w")
        await found.reconcile()
        assert found.loaded["champion"].id == first
        store.start_canary(second, share=0.5, author="t", message="w")
        await found.reconcile()
        assert found.loaded["challenger"].id == second
        assert gate.opened == [first, second]
        assert not any(one.broken for one in gate.sessions)
        await found.close()

    asyncio.run(scenario())


def test_going_back_does_not_wait_for_what_is_being_loaded(store: ReleaseRegistry, releases: tuple, gate: Gate) -> None:
    first, second = releases[1:]

    async def scenario() -> None:
        found = build_manager(store, gate)
        assert await settled(found) == {"champion": first}
        gate.free.clear()
        store.promote(second, author="t", message="w")
        await asyncio.wait_for(found.reconcile(), 10)
        assert found.loaded["champion"].id == first
        async with asyncio.timeout(60):
            while second not in gate.opened:  # its files are checked first, in a thread
                await asyncio.sleep(0.01)
        store.rollback(author="t", message="w")
        await asyncio.wait_for(found.reconcile(), 10)
        gate.free.set()
        await wait_for_loads(found)
        await found.reconcile()
        assert {variant: one.id for variant, one in found.loaded.items()} == {"champion": first}
        assert found.trouble == {}
        assert gate.opened == [first, second]
        await found.close()

    asyncio.run(scenario())


def test_an_old_copy_of_the_registry_is_not_followed_and_readyz_says_so(
    store: ReleaseRegistry, releases: tuple, gate: Gate, tmp_path: Path
) -> None:
    first, second = releases[1:]

    async def scenario() -> None:
        found = build_manager(store, gate)
        found.vetting.guard = SequenceGuard(tmp_path / "newest_champion.json")
        pointer = store.root / "champion.json"
        before = pointer.read_bytes()
        store.promote(second, author="t", message="w")
        assert await settled(found) == {"champion": second}
        pointer.write_bytes(before)
        assert await settled(found) == {"champion": second}
        problems = metadata_endpoints.readiness_body(found)["problems"]
        assert list(problems) == ["registry"]
        assert (
            f"names release {first} with sequence 1, and {second} with sequence 2 was seen there"
            in problems["registry"]
        )
        strangers = metadata_endpoints.readiness_body(found, locations=False)["problems"]["registry"]
        assert (str(tmp_path) in problems["registry"], str(tmp_path) in strangers) == (True, False)
        assert f"delete {found.vetting.guard._path.name} and start again" in strangers
        await found.close()
        again = build_manager(store, gate)  # after a restart, too
        again.vetting.guard = SequenceGuard(tmp_path / "newest_champion.json")
        assert await settled(again) == {"champion": second}
        assert again.warning
        await again.close()

    asyncio.run(scenario())


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of trusted keys: ci and old vouch for releases, ops moves pointers."""
    path = tmp_path / "trusted.json"
    for name, role in (("ci", "release"), ("old", "release"), ("ops", "pointer")):
        key = signatures.generate_key(tmp_path / f"{name}.key")
        signatures.add_trusted_key(path, TrustedKey(name, role, key.public_key, datetime.now(UTC)))
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, str(tmp_path / "ops.key"))
    return path


def sign(store: ReleaseRegistry, release: str, trusted: Path, name: str = "ci") -> None:
    release_statement.sign_release(store.folder(release), signatures.load_key(trusted.parent / f"{name}.key"))


def vetted(store: ReleaseRegistry, gate: Gate, trusted: Path, **given) -> ModelManager:
    found = build_manager(store, gate, **given)
    found.vetting.trust = TrustStore(trusted)
    found.vetting.guard = SequenceGuard(trusted.parent / "newest.json")
    return found


def test_what_no_trusted_key_signed_is_not_served_and_what_serves_goes_on(
    store: ReleaseRegistry, releases: tuple, gate: Gate, trusted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = releases[1:]

    async def scenario() -> None:
        found = vetted(store, gate, trusted)
        assert await settled(found) == {}, "its pointer was made before there was a key"
        assert "the champion pointer of" in found.warning
        assert "is not signed; it is not followed" in found.warning
        store.promote(second, author="t", message="w")
        assert await settled(found) == {}
        assert f"release {second} is not signed" in metadata_endpoints.readiness_body(found)["reason"]
        sign(store, second, trusted)
        assert await settled(found) == {"champion": second}
        assert metadata_endpoints.readiness_body(found).keys() == {"variants"}
        store.promote(first, author="t", message="w")  # unsigned release, good pointer
        assert await settled(found) == {"champion": second}
        body = metadata_endpoints.readiness_body(found)
        assert body["status"] == "degraded"
        assert body["problems"]["registry"] == f"release {first} is not signed; release {second} serves on"
        sign(store, first, trusted)
        assert await settled(found) == {"champion": first}
        pointer = json.loads((store.root / CHAMPION).read_text())  # a pointer that somebody wrote into the bucket
        forged = pointer | {"release": second, "digest": store.digest(second), "sequence": 99}
        (store.root / CHAMPION).write_text(json.dumps(forged))
        assert await settled(found) == {"champion": first}
        assert "with sequence 99 was altered: its signature does not fit" in found.warning
        (store.root / CHAMPION).write_text(json.dumps(pointer))
        assert await settled(found) == {"champion": first}
        assert found.warning == "", "nobody remembers the forged one"
        sign(store, second, trusted)
        store.start_canary(second, share=0.5, author="t", message="w")
        assert await settled(found) == {"champion": first, "challenger": second}
        monkeypatch.delenv(signatures.POINTER_KEY_ENV)
        store.stop_canary(author="t", message="w")
        store.start_canary(second, share=0.5, author="t", message="w")
        assert await settled(found) == {"champion": first}, "an unsigned canary gets no traffic"
        await found.close()

    asyncio.run(scenario())


def test_a_signed_canary_that_has_ended_is_not_put_up_again(
    store: ReleaseRegistry, releases: tuple, gate: Gate, trusted: Path
) -> None:
    first, second = releases[1:]
    sign(store, first, trusted)
    sign(store, second, trusted)

    async def scenario() -> None:
        found = vetted(store, gate, trusted)
        found.vetting.canary_guard = CanaryGuard(trusted.parent / "newest_canary.json")
        store.promote(second, author="t", message="w")
        store.promote(first, author="t", message="w")
        store.start_canary(second, share=0.5, author="t", message="w")
        replayed = (store.root / CANARY).read_bytes()
        assert await settled(found) == {"champion": first, "challenger": second}
        store.stop_canary(author="t", message="w")
        assert await settled(found) == {"champion": first}
        (store.root / CANARY).write_bytes(replayed)
        assert await settled(found) == {"champion": first}
        assert "it is an old copy" in found.warning
        await found.close()
        again = vetted(store, gate, trusted)
        again.vetting.canary_guard = CanaryGuard(trusted.parent / "newest_canary.json")
        assert await settled(again) == {"champion": first}
        altered = msgspec.json.encode(json.loads(replayed) | {"number": 99})
        (store.root / CANARY).write_bytes(altered)
        assert await settled(again) == {"champion": first}
        assert "altered" in again.warning
        store.start_canary(second, share=0.5, author="t", message="w")
        assert await settled(again) == {"champion": first, "challenger": second}
        assert again.warning == ""
        await again.close()

    asyncio.run(scenario())


def test_a_revoked_key_ends_nothing_that_serves_and_a_restart_skips_it(
    store: ReleaseRegistry, releases: tuple, gate: Gate, trusted: Path
) -> None:
    first, second = releases[1:]
    sign(store, first, trusted)
    sign(store, second, trusted, "old")

    async def scenario() -> None:
        found = vetted(store, gate, trusted)
        store.promote(second, author="t", message="w")
        assert await settled(found) == {"champion": second}
        signatures.revoke_trusted_key(trusted, "old")
        assert await settled(found) == {"champion": second}
        body = metadata_endpoints.readiness_body(found)
        assert (body["status"], found.ready) == ("degraded", True)
        assert body["problems"]["registry"] == f"release {second}: signed by old, whose key was revoked"
        await found.close()
        again = vetted(store, gate, trusted)
        assert await settled(again) == {"champion": first}
        assert again.warning == f"release {second}: signed by old, whose key was revoked; release {first} serves on"
        sign(store, second, trusted)  # somebody vouches for it again
        await again.close()
        last = vetted(store, gate, trusted)
        assert await settled(last) == {"champion": second}
        await last.close()

    asyncio.run(scenario())


def test_a_canary_whose_keys_are_revoked_goes_on_and_a_restart_skips_it(
    store: ReleaseRegistry, releases: tuple, gate: Gate, trusted: Path
) -> None:
    first, second = releases[1:]
    sign(store, first, trusted)
    sign(store, second, trusted, "old")
    both = {"champion": first, "challenger": second}

    async def scenario() -> None:
        manager = vetted(store, gate, trusted)
        store.promote(second, author="t", message="w")
        store.promote(first, author="t", message="w")
        store.start_canary(second, share=0.5, author="t", message="w")
        assert await settled(manager) == both
        signatures.revoke_trusted_key(trusted, "old")
        assert await settled(manager) == both
        body = metadata_endpoints.readiness_body(manager)
        assert body["status"] == "degraded"
        assert body["problems"] == {"registry": f"release {second}: signed by old, whose key was revoked"}
        sign(store, second, trusted)
        assert await settled(manager) == both
        assert manager.warning == ""
        signatures.revoke_trusted_key(trusted, "ops")
        assert await settled(manager) == both
        assert "the canary of" in manager.warning
        assert manager.warning.endswith("signed by ops, whose key was revoked")
        await manager.close()
        again = vetted(store, gate, trusted)
        assert await settled(again) == {"champion": first}, "the newest pointer that was followed is remembered"
        assert "its release gets no traffic" in again.warning
        await again.close()

    asyncio.run(scenario())


def test_a_release_that_is_another_than_was_signed_is_not_loaded(
    store: ReleaseRegistry, releases: tuple, gate: Gate, trusted: Path
) -> None:
    first, second = releases[1:]
    sign(store, first, trusted)
    sign(store, second, trusted)

    async def scenario() -> None:
        found = vetted(store, gate, trusted)
        store.promote(first, author="t", message="w")
        path = store.root / CHAMPION
        path.unlink()
        store.promote(second, author="t", message="w")
        manifest = store.manifest(second)
        release_manifest.save(msgspec.structs.replace(manifest, engine="vllm"), store.folder(second))
        assert await settled(found) == {}
        assert f"release {second} is not what was signed: engine differ" in found.trouble["champion"]
        await found.close()

    asyncio.run(scenario())


def test_readyz_without_a_key_names_the_broken_release_but_no_path(store: ReleaseRegistry, gate: Gate) -> None:
    found = build_manager(store, gate)
    found.trouble["champion"] = (
        "cannot read /srv/x/releases/0123456789abcdef/adapter/a.json: '/etc/tls.pem', s3://us/box/."
    )
    body = metadata_endpoints.readiness_body(found, locations=False)
    assert body["reason"] == "cannot read 0123456789abcdef/adapter/a.json: 'tls.pem', box."
    assert metadata_endpoints.readiness_body(found)["reason"] == found.trouble["champion"]


def test_a_pointer_of_another_digest_is_not_followed(store: ReleaseRegistry, releases: tuple, gate: Gate) -> None:
    second = releases[2]

    async def scenario() -> None:
        found = build_manager(store, gate)
        store.promote(second, author="t", message="w")
        path = store.root / CHAMPION
        pointer = json.loads(path.read_text())
        path.write_text(json.dumps(pointer | {"digest": second + "0" * 48}))
        assert await settled(found) == {}
        assert f"release {second} has the digest {store.digest(second)[:20]}" in found.trouble["champion"]
        await found.close()

    asyncio.run(scenario())


def test_the_bundled_release_is_served_where_it_is_signed(
    store: ReleaseRegistry, releases: tuple, gate: Gate, trusted: Path, tmp_path: Path
) -> None:
    first = releases[1]
    sign(store, first, trusted)
    bundled = tmp_path / "bento" / first
    shutil.copytree(store.folder(first), bundled)

    async def scenario() -> None:
        empty = ReleaseRegistry(tmp_path / "empty")
        found = vetted(empty, gate, trusted, bundled=bundled)
        assert await settled(found) == {}
        assert f"release {first} is not signed" in found.warning
        shutil.copy(release_statement.statement_path(store.folder(first)), bundled.parent)
        assert await settled(found) == {"champion": first}
        await found.close()

    asyncio.run(scenario())


def test_whatever_a_library_raises_leaves_the_old_one_serving(
    store: ReleaseRegistry, releases: tuple, gate: Gate
) -> None:
    first, second = releases[1:]

    async def scenario() -> None:
        found = build_manager(store, gate)
        assert await settled(found) == {"champion": first}
        gate.fails = True
        store.promote(second, author="t", message="w")
        assert await settled(found) == {"champion": first}
        told = f"release {second} cannot be loaded: ZeroDivisionError: no error of ours"
        assert found.trouble == {"champion": told}
        await settled(found)
        assert gate.opened == [first, second]  # the same files are not tried again
        store.rollback(author="t", message="w")
        assert await settled(found) == {"champion": first}
        assert found.trouble == {}
        await found.close()

    asyncio.run(scenario())


def test_a_session_that_broke_is_opened_anew(store: ReleaseRegistry, releases: tuple, gate: Gate) -> None:
    first = releases[1]

    async def scenario() -> None:
        found = build_manager(store, gate)
        await settled(found)
        old = found.loaded["champion"]
        old.engine_session.broken = "it fell over"
        await found.reconcile()
        assert not found.ready
        assert "the engine failed and is started again: it fell over" in found.trouble["champion"]
        assert await settled(found) == {"champion": first}
        assert found.loaded["champion"] is not old
        assert found.trouble == {}
        await found.close()

    asyncio.run(scenario())


def test_a_release_is_not_closed_under_a_request_that_still_waits(
    store: ReleaseRegistry, releases: tuple, gate: Gate
) -> None:
    async def scenario() -> None:
        found = build_manager(store, gate, standby_seconds=0.0)
        await settled(found)
        old = found.loaded["champion"]
        old.claims += 1
        store.promote(releases[2], author="t", message="w")
        await settled(found)
        await found.reconcile()
        await asyncio.sleep(0.5)
        assert old.closed
        assert old.engine_session._thread.is_alive()
        old.claims -= 1
        for _ in range(50):
            await asyncio.sleep(0.1)
            if not old.engine_session._thread.is_alive():
                break
        assert not old.engine_session._thread.is_alive()
        await found.close()

    asyncio.run(scenario())


ASK = GenerationRequest([1, 2], 8, 0.0, 1.0, frozenset())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between two tries that a test can wait for."""
    monkeypatch.setattr(load_backoff, "FIRST_PAUSE", 0.05)


def test_while_nothing_answers_the_same_files_are_tried_again(
    store: ReleaseRegistry, releases: tuple, gate: Gate, quick
) -> None:
    first, second = releases[1:]

    async def scenario() -> None:
        found = build_manager(store, gate)
        gate.fails = True
        assert await settled(found) == {}
        assert "no error of ours" in found.trouble["champion"]
        assert gate.opened == [first]  # not before the pause is over
        gate.fails = False
        await asyncio.sleep(0.1)
        assert await settled(found) == {"champion": first}
        assert found.trouble == {}
        gate.fails = True
        store.promote(second, author="t", message="w")
        await settled(found)
        await asyncio.sleep(0.1)
        await settled(found)
        assert gate.opened == [first, first, second]  # the old one serves, and these files are to blame
        gate.fails = False
        store.rollback(author="t", message="w")
        await settled(found)
        store.promote(second, author="t", message="again")
        assert await settled(found) == {"champion": second}
        await found.close()

    asyncio.run(scenario())


def test_pauses_grow_and_end_when_the_files_change(tmp_path: Path) -> None:
    found = LoadBackoff()
    assert found.find_refusal("champion", 1, 0.0, idle=False) is None
    now, pauses = 0.0, []
    for _ in range(9):
        found.add("champion", 1, "no", now, lasting=False)
        pause = FIRST_PAUSE
        while found.find_refusal("champion", 1, now + pause, idle=False):
            pause *= 2
        pauses.append(min(pause, LONGEST_PAUSE))
        now += pause
    assert pauses == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0, 60.0]
    assert found.find_refusal("challenger", 1, now, idle=False) is None
    found.add("champion", 1, "no", now, lasting=True)
    assert found.find_refusal("champion", 1, now + 1e6, idle=False) == "no"
    assert found.find_refusal("champion", 1, now + 1e6, idle=True) is None
    assert found.find_refusal("champion", 2, now, idle=False) is None
    found.forget("champion")
    assert found.find_refusal("champion", 1, now, idle=False) is None


def test_a_store_that_fails_is_no_reason_to_give_up_a_release(
    store: ReleaseRegistry, releases: tuple, gate: Gate, quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = releases[1]

    def unreachable() -> None:
        raise InfrastructureError("the network is down")

    async def scenario() -> None:
        found = build_manager(store, gate)
        assert await settled(found) == {"champion": first}
        monkeypatch.setattr(store, "champion", unreachable)
        await found.reconcile()
        assert found.trouble["champion"] == "the release store cannot be read: the network is down"
        assert found.ready
        found.loaded["champion"].engine_session.broken = "it fell over"
        assert await settled(found) == {"champion": first}  # it is opened anew all the same
        assert gate.opened == [first, first]
        monkeypatch.undo()
        await found.reconcile()
        assert found.trouble == {}
        await found.close()

    asyncio.run(scenario())


def test_standby_ends_while_the_store_cannot_be_read(
    store: ReleaseRegistry, releases: tuple, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = releases[1:]

    def unreachable() -> None:
        raise InfrastructureError("the network is down")

    async def scenario() -> None:
        found = build_manager(store, gate)
        await settled(found)
        store.promote(second, author="t", message="w")
        await settled(found)
        old, _ = found._resting[first]
        found._resting[first] = (old, time.monotonic() - 1)
        monkeypatch.setattr(store, "champion", unreachable)
        await found.reconcile()
        assert found._resting == {}
        await found.close()

    asyncio.run(scenario())


def test_a_pointer_that_vanishes_does_not_bring_the_bundled_release_back(
    store: ReleaseRegistry, releases: tuple, gate: Gate
) -> None:
    first, second = releases[1:]

    async def scenario() -> None:
        found = build_manager(store, gate, bundled=store.folder(first))
        (store.root / CHAMPION).rename(store.root / "away")
        assert await settled(found) == {"champion": first}  # nobody was promoted yet: the bundled release
        (store.root / "away").rename(store.root / CHAMPION)
        store.promote(second, author="t", message="w")
        assert await settled(found) == {"champion": second}
        (store.root / CHAMPION).rename(store.root / "away")
        assert await settled(found) == {"champion": second}
        assert f"{store.root} names no champion, and {second} with sequence 2 was seen there" in found.warning
        (store.root / "away").rename(store.root / CHAMPION)
        assert await settled(found) == {"champion": second}
        assert (found.trouble, found.warning) == ({}, "")
        await found.close()

    asyncio.run(scenario())


def test_a_challenger_leaves_the_rollback_release_loaded(
    store: ReleaseRegistry, releases: tuple, gate: Gate, tiny_model: Path, tmp_path: Path
) -> None:
    first, second = releases[1:]
    third = stored(tiny_release(tiny_model, tmp_path / "r3", seed=3), store.root)

    async def scenario() -> None:
        found = build_manager(store, gate)
        await settled(found)
        store.promote(second, author="t", message="w")
        await settled(found)
        store.start_canary(third, share=0.5, author="t", message="w")
        assert await settled(found) == {"champion": second, "challenger": third}
        store.stop_canary(author="t", message="w")
        assert await settled(found) == {"champion": second}
        store.rollback(author="t", message="w")
        await found.reconcile()
        assert found.loaded["champion"].id == first  # at once: it was in memory
        assert gate.opened == [first, second, third]
        await found.close()

    asyncio.run(scenario())


def test_no_user_gets_the_previous_challenger(
    store: ReleaseRegistry, releases: tuple, gate: Gate, tiny_model: Path, tmp_path: Path
) -> None:
    first, second = releases[1:]
    third = stored(tiny_release(tiny_model, tmp_path / "r3", seed=3), store.root)

    async def scenario() -> None:
        found = build_manager(store, gate)
        store.start_canary(second, share=0.5, author="t", message="w")
        assert await settled(found) == {"champion": first, "challenger": second}
        gate.free.clear()
        store.start_canary(third, share=0.5, author="t", message="w")
        await found.reconcile()
        assert {variant: one.id for variant, one in found.loaded.items()} == {"champion": first}
        assert found.canary.release == third
        gate.free.set()
        assert await settled(found) == {"champion": first, "challenger": third}
        await found.close()

    asyncio.run(scenario())


def test_an_engine_that_stops_answering_is_restarted(store: ReleaseRegistry, releases: tuple, gate: Gate) -> None:
    first = releases[1]

    async def scenario() -> None:
        found = build_manager(store, gate, silence_seconds=0.5)
        await settled(found)
        old, token_stream = found.loaded["champion"], TokenStream(1)
        old.engine_session = Mute(old.engine_session)
        old.router.start(old.engine_session, ASK, token_stream, 0)
        old.claims += 1
        await found.reconcile()
        assert found.ready
        await asyncio.sleep(0.6)
        await found.reconcile()
        assert not found.ready
        assert "the engine failed and is started again: it has said nothing for " in found.trouble["champion"]
        assert await settled(found) == {"champion": first}
        assert found.loaded["champion"] is not old
        ((_, piece),) = await asyncio.wait_for(token_stream.take(), 10)
        assert piece.end == "cancelled"
        late = TokenStream(1)  # of a request that waited meanwhile
        old.router.start(old.engine_session, ASK, late, 0)
        ((_, piece),) = await asyncio.wait_for(late.take(), 1)
        assert (piece.end, late.open, old.router.busy) == ("cancelled", 0, 0)
        await found.close()

    asyncio.run(scenario())


def test_a_load_that_hangs_is_given_up_and_others_go_on(
    store: ReleaseRegistry, releases: tuple, gate: Gate, tiny_model: Path, tmp_path: Path
) -> None:
    first, second = releases[1:]
    third = stored(tiny_release(tiny_model, tmp_path / "r3", seed=3), store.root)

    async def scenario() -> None:
        found = build_manager(store, gate)
        assert await settled(found) == {"champion": first}
        gate.hangs, found._load_timeout_seconds = second, 1.0
        store.start_canary(second, share=0.5, author="t", message="w")
        assert await settled(found) == {"champion": first}
        told = f"release {second} was not loaded and probed within 1 s"
        assert found.trouble["challenger"].startswith(told)
        assert gate.given_up == 1
        found._load_timeout_seconds = 20.0
        store.promote(third, author="t", message="w")
        assert (await settled(found))["champion"] == third  # though the other one hangs still
        gate.let_go.set()
        await closed_thread(gate.sessions, 3)
        await found.close()

    asyncio.run(scenario())


class Remote(ReleaseRegistry):
    """A store elsewhere: each download is counted, and waits while it is told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.slow = ""
        self.arrives = threading.Event()
        self.under_way: list[str] = []
        self.most = 0

    def fetch(self, release: str) -> Path:
        self.under_way.append(release)
        self.most = max(self.most, self.under_way.count(release))
        if release == self.slow:
            assert self.arrives.wait(60)
        self.under_way.remove(release)
        return super().fetch(release)


def test_a_slow_download_holds_up_no_other_release(
    store: ReleaseRegistry, releases: tuple, gate: Gate, tiny_model: Path, tmp_path: Path
) -> None:
    first, second = releases[1:]
    third = stored(tiny_release(tiny_model, tmp_path / "r3", seed=3), store.root)

    async def scenario() -> None:
        remote = Remote(store.root)
        found = build_manager(remote, gate)
        assert await settled(found) == {"champion": first}
        remote.slow = second
        store.start_canary(second, share=0.5, author="t", message="w")
        store.promote(third, author="t", message="w")
        await found.reconcile()
        async with asyncio.timeout(30):
            while found.loaded["champion"].id != third:
                await asyncio.sleep(0.05)
        assert remote.under_way == [second]
        remote.arrives.set()
        assert await settled(found) == {"champion": third, "challenger": second}
        await found.close()

    asyncio.run(scenario())


def test_what_two_variants_want_is_brought_for_one_after_the_other(
    store: ReleaseRegistry, releases: tuple, gate: Gate
) -> None:
    first = releases[1]

    async def scenario() -> None:
        remote = Remote(store.root)
        remote.slow = first
        found = build_manager(remote, gate, base=True)
        await found.reconcile()
        while not remote.under_way:
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.2)
        remote.arrives.set()
        assert await settled(found) == {"champion": first, "base": first}
        assert remote.most == 1
        await found.close()

    asyncio.run(scenario())


async def closed_thread(sessions: list, count: int) -> None:
    """Wait for the last of so many sessions to be open, and closed because it came too late."""
    async with asyncio.timeout(60):
        while len(sessions) < count or sessions[-1]._thread.is_alive():
            await asyncio.sleep(0.05)


def test_a_session_that_never_proves_itself_is_given_up_and_closed(
    store: ReleaseRegistry, releases: tuple, gate: Gate
) -> None:
    folder = store.folder(releases[1])
    opens = gate.open

    def mute(*given, **named):
        return Mute(opens(*given, **named))

    async def scenario() -> None:
        await (await load_release(folder, lambda _: gate)).close()  # from now on a load is a matter of a moment
        gate.open = mute
        with pytest.raises(InfrastructureError, match="was not loaded and probed within 3 s"):
            await load_release(folder, lambda _: gate, load_timeout_seconds=3.0)
        assert gate.given_up == 0
        assert not gate.sessions[1]._thread.is_alive()

    asyncio.run(scenario())


def test_an_engine_that_hangs_as_it_opens_is_ended_and_readyz_says_so(
    store: ReleaseRegistry, releases: tuple, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1] / "support"))
    engine = SubprocessEngine("frail", "faulty_engine:FrailEngine", {"mood": "hangs"})

    async def scenario() -> None:
        found = build_manager(store, engine, load_timeout_seconds=1.0)
        await found.reconcile()
        async with asyncio.timeout(30):
            while not engine._opening:
                await asyncio.sleep(0.01)
            (pid,) = [one._process.pid for one in engine._opening]
            await wait_for_loads(found)
            said = metadata_endpoints.readiness_body(found)["reason"]
            assert said.startswith(f"release {releases[1]} was not loaded and probed within 1 s")
            while engine._opening or alive(pid):
                await asyncio.sleep(0.01)
        await found.close()

    asyncio.run(scenario())


def test_a_disk_that_hangs_under_a_release_is_not_waited_for(
    store: ReleaseRegistry, releases: tuple, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = threading.Event()
    monkeypatch.setattr(loaded_release, "verify_release", lambda folder: there.wait(60))

    async def scenario() -> None:
        with pytest.raises(InfrastructureError, match=r"was not loaded and probed within 0\.2 s"):
            await load_release(store.folder(releases[1]), lambda _: gate, load_timeout_seconds=0.2)
        there.set()

    asyncio.run(scenario())
    assert gate.opened == []


def test_a_server_that_stops_waits_for_no_load(store: ReleaseRegistry, releases: tuple, gate: Gate) -> None:
    async def scenario() -> None:
        gate.hangs = releases[1]
        found = build_manager(store, gate)
        await found.reconcile()
        while not gate.opened:
            await asyncio.sleep(0.05)
        async with asyncio.timeout(3):
            await found.close()
        assert gate.given_up == 1
        gate.let_go.set()
        await closed_thread(gate.sessions, 1)

    asyncio.run(scenario())


def test_the_base_answers_beside_the_champion_without_its_adapter(
    store: ReleaseRegistry, releases: tuple, gate: Gate
) -> None:
    first = releases[1]

    async def scenario() -> None:
        found = build_manager(store, gate, base=True)
        assert await settled(found) == {"champion": first, "base": first}
        assert (gate.opened, gate.adapters) == ([first, first], [True, False])
        assert found.loaded["base"].proof is None
        told = contracts.load(store.folder(first)).base
        served = metadata_endpoints.models(ServeSettings.model_validate(settings(), strict=True), found)
        assert [(one["id"], one["parent"]) for one in served if one["variant"] == "base"] == [("base", None)]
        assert [one["revision"] for one in served if one["variant"] == "base"] == [told.revision]
        assert {one["parent"] for one in served if one["variant"] == "champion"} == {told.source}
        await found.close()

    asyncio.run(scenario())


def merged_release(apart: Path, folder: Path) -> Path:
    """The same release with its adapter added into its weights, without a manifest."""
    shutil.copytree(apart, folder)
    (folder / "manifest.json").unlink()
    shutil.rmtree(folder / "model")
    merge(apart / "model", apart / "adapter", folder / "model")
    contracts.save(msgspec.structs.replace(contracts.load(folder), layout="merged"), folder)
    return folder


def test_a_merged_release_has_no_base_to_answer_with(
    store: ReleaseRegistry, releases: tuple, gate: Gate, tmp_path: Path
) -> None:
    merged = stored(merged_release(store.folder(releases[1]), tmp_path / "merged"), store.root)
    store.promote(merged, author="t", message="w")

    async def scenario() -> None:
        found = build_manager(store, gate, base=True)
        assert await settled(found) == {"champion": merged}
        assert (
            "holds base and adapter merged into one model, so serve.variants.base cannot serve the base alone"
            in found.trouble["base"]
        )
        await found.close()

    asyncio.run(scenario())
