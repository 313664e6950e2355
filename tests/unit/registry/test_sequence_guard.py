"""The newest pointer that was seen is in force: an older one is an old copy, or somebody's replay."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from tunectl.access import signatures
from tunectl.access.signatures import SigningKey, TrustedKey, TrustStore
from tunectl.artifacts.canary_state import CanaryState
from tunectl.registry import release_statement
from tunectl.registry.release_state import ChampionPointer
from tunectl.registry.sequence_guard import CanaryGuard, SequenceGuard
from tunectl.serving.release_vetting import ReleaseVetting

FIFTH = ChampionPointer("5" * 16, "4" * 16, "2026-11-27T00:00:00+00:00", "ann", "better", 5)
FOURTH = replace(FIFTH, release="4" * 16, previous=None, sequence=4)


def test_five_then_four_stays_on_five_until_there_is_a_six() -> None:
    guard = SequenceGuard()
    assert guard.latest(None, "here") is None
    assert (guard.latest(FIFTH, "here"), guard.warning) == (FIFTH, "")
    assert guard.latest(FOURTH, "here") == FIFTH
    assert "sequence 4, and 5555555555555555 with sequence 5 was seen there" in guard.warning
    assert (guard.latest(FIFTH, "here"), guard.warning) == (FIFTH, "")
    back = replace(FOURTH, sequence=6, action="rollback")
    assert (guard.latest(back, "here"), guard.warning) == (back, "")


def test_a_pointer_that_was_deleted_is_remembered(tmp_path: Path) -> None:
    path = tmp_path / "newest.json"
    SequenceGuard(path).latest(FIFTH, "s3://bucket/shop")
    again = SequenceGuard(path)
    assert again.latest(None, "s3://bucket/shop") == FIFTH
    assert "names no champion, and 5555555555555555 with sequence 5 was seen there" in again.warning


def test_another_release_under_the_same_sequence_is_not_followed() -> None:
    guard = SequenceGuard()
    guard.latest(FIFTH, "here")
    assert guard.latest(replace(FIFTH, release="6" * 16), "here") == FIFTH
    assert guard.warning


def test_it_is_remembered_and_belongs_to_one_place(tmp_path: Path) -> None:
    path = tmp_path / "state" / "newest.json"
    SequenceGuard(path).latest(FIFTH, "s3://bucket/shop")
    again = SequenceGuard(path)
    assert again.latest(FOURTH, "s3://bucket/shop") == FIFTH
    assert f"delete {path}" in again.warning
    assert (again.latest(FOURTH, "s3://bucket/other"), again.warning) == (FOURTH, "")


@pytest.mark.parametrize("content", [b"", b"{", b'{"location": "here"}', b"\xff"])
def test_a_file_that_is_damaged_remembers_nothing(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "newest.json"
    path.write_bytes(content)
    assert SequenceGuard(path).latest(FOURTH, "here") == FOURTH


def test_a_place_that_cannot_be_written_is_no_reason_not_to_serve(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    guard = SequenceGuard(tmp_path / "file" / "newest.json")
    assert guard.latest(FIFTH, "here") == FIFTH
    assert guard.latest(FOURTH, "here") == FIFTH


def make_trusted_keys(trusted: Path, *names: str) -> dict[str, SigningKey]:
    keys = {name: signatures.generate_key(trusted.parent / f"{name}.key") for name in names}
    for name, key in keys.items():
        signatures.add_trusted_key(trusted, TrustedKey(name, "pointer", key.public_key, datetime.now(UTC)))
    return keys


def remove_trusted_key(trusted: Path, name: str) -> None:
    content = json.loads(trusted.read_bytes())
    content["keys"] = [key for key in content["keys"] if key["name"] != name]
    trusted.write_text(json.dumps(content))


END_TRUST = {"revoked": signatures.revoke_trusted_key, "removed": remove_trusted_key}


@pytest.mark.parametrize("ended", END_TRUST)
@pytest.mark.parametrize("restart", [False, True])
def test_a_pointer_whose_key_is_no_longer_trusted_hinders_no_other(tmp_path: Path, restart: bool, ended: str) -> None:
    path, trusted = tmp_path / "newest.json", tmp_path / "trusted.json"
    keys = make_trusted_keys(trusted, "ops", "stolen")
    fourth, fifth, sixth = (
        release_statement.sign_champion(pointer, keys["ops"])
        for pointer in (FOURTH, FIFTH, replace(FIFTH, release="6" * 16, sequence=6))
    )
    evil = release_statement.sign_champion(replace(FIFTH, release="e" * 16, sequence=10**11), keys["stolen"])
    trust, guard = TrustStore(trusted), SequenceGuard(path)
    for pointer in (fifth, evil):
        assert guard.latest(pointer, "here", trust) == pointer
    assert guard.latest(sixth, "here", trust) == evil, "its key is good: the highest sequence is in force"
    END_TRUST[ended](trusted, "stolen")
    if restart:
        trust, guard = TrustStore(trusted), SequenceGuard(path)
    assert guard.latest(None, "here", trust) == evil
    assert guard.latest(fourth, "here", trust) == evil
    assert "sequence 4, and 5555555555555555 with sequence 5 was seen there" in guard.warning
    for pointer in (fifth, sixth):  # what was in force before it, and the next promotion
        assert (guard.latest(pointer, "here", trust), guard.warning) == (pointer, "")
    assert guard.latest(fifth, "here", trust) == sixth


OLD = CanaryState("6" * 16, 0.1, "salt", number=4)
NEW = replace(OLD, release="7" * 16, number=9)


def test_a_canary_that_was_replaced_or_has_ended_is_not_put_up_again(tmp_path: Path) -> None:
    path = tmp_path / "newest_canary.json"
    guard = CanaryGuard(path)
    assert [guard.observe(canary, "here") for canary in (None, OLD, OLD, NEW, NEW)] == [""] * 5
    assert guard.observe(OLD, "here").startswith(
        "the canary of here has the number 4, and number 9 was seen there: it is an old copy (to follow it, delete "
    )
    assert guard.observe(replace(OLD, number=None), "here").startswith("the canary of here has the number 0")
    assert [guard.observe(canary, "here") for canary in (NEW, None)] == ["", ""]
    again = CanaryGuard(path)  # after a restart, too
    assert "has the number 9, and number 9, and its end was seen there" in again.observe(NEW, "here")
    assert again.observe(replace(NEW, number=10), "here") == ""
    assert again.observe(OLD, "elsewhere") == ""


def test_a_registry_whose_canaries_have_no_numbers_is_followed() -> None:
    guard, state = CanaryGuard(), replace(OLD, number=None)
    assert [guard.observe(canary, "here") for canary in (state, None, state)] == ["", "", ""]


@pytest.mark.parametrize("ended", END_TRUST)
@pytest.mark.parametrize("restart", [False, True])
def test_a_canary_whose_key_is_no_longer_trusted_hinders_no_other(tmp_path: Path, restart: bool, ended: str) -> None:
    path, trusted = tmp_path / "newest_canary.json", tmp_path / "trusted.json"
    keys = make_trusted_keys(trusted, "ops", "stolen")
    fourth, ninth = (release_statement.sign_canary(state, keys["ops"]) for state in (OLD, NEW))
    evil = release_statement.sign_canary(replace(NEW, release="e" * 16, number=10**11), keys["stolen"])
    trust, guard = TrustStore(trusted), CanaryGuard(path)
    assert [guard.observe(canary, "here", trust) for canary in (fourth, evil)] == ["", ""]
    assert f"number {10**11} was seen there" in guard.observe(ninth, "here", trust), "its key is good"
    END_TRUST[ended](trusted, "stolen")
    if restart:
        trust, guard = TrustStore(trusted), CanaryGuard(path)
    assert guard.observe(evil, "here", trust) == "", "what serves goes on; who signed it is asked elsewhere"
    assert "number 4, and its end was seen there" in guard.observe(fourth, "here", trust), "it was replaced"
    assert guard.observe(ninth, "here", trust) == ""
    assert "number 9 was seen there" in guard.observe(fourth, "here", trust)
    assert [guard.observe(canary, "here", trust) for canary in (ninth, None)] == ["", ""]
    assert "number 9, and its end was seen there" in guard.observe(ninth, "here", trust)


def test_two_keys_that_sign_the_same_number_are_both_remembered(tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.json"
    keys = make_trusted_keys(trusted, "ops", "stolen")
    ours, evil = (release_statement.sign_canary(NEW, keys[name]) for name in ("ops", "stolen"))
    trust, guard = TrustStore(trusted), CanaryGuard(tmp_path / "newest_canary.json")
    assert [guard.observe(canary, "here", trust) for canary in (evil, ours, evil, None)] == [""] * 4
    signatures.revoke_trusted_key(trusted, "stolen")
    assert "number 9, and its end was seen there" in guard.observe(ours, "here", trust)


class CanaryReader:
    """A registry of which only the canary is read."""

    location = "here"

    def __init__(self) -> None:
        self.state: CanaryState | None = None

    def canary(self) -> CanaryState | None:
        return self.state


@pytest.mark.parametrize("ended", END_TRUST)
@pytest.mark.parametrize("restart", [False, True])
def test_a_server_follows_the_next_canary_after_one_of_a_stolen_key(tmp_path: Path, restart: bool, ended: str) -> None:
    path, trusted, store = tmp_path / "newest_canary.json", tmp_path / "trusted.json", CanaryReader()
    keys = make_trusted_keys(trusted, "ops", "stolen")
    ours = release_statement.sign_canary(NEW, keys["ops"])
    evil = release_statement.sign_canary(replace(NEW, release="e" * 16, number=10**11), keys["stolen"])

    def start_server() -> ReleaseVetting:
        return ReleaseVetting(store, None, canary_guard=CanaryGuard(path), trust=TrustStore(trusted))

    server = start_server()
    store.state = evil
    assert server.read_canary() == (evil, "")
    END_TRUST[ended](trusted, "stolen")
    if restart:
        server = start_server()
    for state, followed in ((None, None), (ours, ours), (replace(evil, number=10**12), None), (ours, ours)):
        store.state = state
        assert server.read_canary()[0] == followed
    assert server.read_canary() == (ours, "")
    for state in (None, ours):  # a bucket writer without a key
        store.state = state
        found = server.read_canary()
    assert found[0] is None
    assert "number 9, and its end was seen there" in found[1]


def test_where_no_keys_are_trusted_no_pointer_of_another_key_is_kept(tmp_path: Path) -> None:
    """Whoever writes to the address can name a new key with each pointer, and the file would grow with each."""
    guard = SequenceGuard(tmp_path / "newest.json")
    for number in range(5, 25):
        signature = signatures.Signature(f"{number:064x}", "c2lnbmVk")
        guard.latest(replace(FIFTH, sequence=number, signature=signature), "here")
    assert (tmp_path / "newest.json").read_text().count('"sequence"') == 1


def test_where_no_keys_are_trusted_no_canary_of_another_key_is_kept(tmp_path: Path) -> None:
    guard = CanaryGuard(tmp_path / "newest.json")
    for number in range(5, 25):
        signature = signatures.Signature(f"{number:064x}", "c2lnbmVk")
        assert guard.observe(replace(NEW, number=number, signature=signature), "here") == ""
    assert (tmp_path / "newest.json").read_text().count('"number"') == 1
