"""Signed releases: statements, roles, revoked keys, altered files, and rollbacks past what must not serve."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from tunectl.access import signatures
from tunectl.access.signatures import KeyRole, SigningKey, TrustedKey, TrustStore
from tunectl.backends.storage.object_store import FsspecObjectStore
from tunectl.cli.main import main
from tunectl.core.errors import DataError, GateError, InfrastructureError, UsageError
from tunectl.registry import (
    registry_formats,
    release_manifest,
    release_state,
    release_statement,
    remote_sync,
    signature_policy,
)
from tunectl.registry.release_manifest import BuildFacts, RecordedVerdict
from tunectl.registry.release_state import ReleaseEvent
from tunectl.registry.release_store import ReleaseRegistry
from tunectl.registry.remote import RemoteRegistry
from tunectl.registry.sequence_guard import SequenceGuard
from tunectl.registry.signed_registry import SignedRegistry
from tunectl.serving.release_vetting import ReleaseVetting

NOW = datetime(2026, 5, 1, tzinfo=UTC)


class Keys:
    """A file of trusted keys, and the private ones."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "trusted.json"

    def make(self, name: str, role: KeyRole, *, trusted: bool = True) -> SigningKey:
        key = signatures.generate_key(self.folder / f"{name}.key")
        if trusted:
            signatures.add_trusted_key(self.path, TrustedKey(name, role, key.public_key, NOW))
        return key

    def remove(self, name: str) -> None:
        content = json.loads(self.path.read_bytes())
        content["keys"] = [key for key in content["keys"] if key["name"] != name]
        self.path.write_text(json.dumps(content))


@pytest.fixture
def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Keys:
    found = Keys(tmp_path)
    found.make("ci", "release")
    found.make("ops", "pointer")
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, str(tmp_path / "ops.key"))
    return found


def fill(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "weights").write_text(text)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ReleaseRegistry:
    made = ReleaseRegistry(tmp_path / "store")
    for text in ("one", "two", "three"):
        facts = BuildFacts("shop", "openvino", "adapter", verdicts={"evaluate": RecordedVerdict(True, "better", "b")})
        made.add(fill(tmp_path / text, text), facts)
    return made


def ci(keys: Keys) -> SigningKey:
    return signatures.load_key(keys.folder / "ci.key")


def test_a_key_is_revoked_under_every_name(keys: Keys) -> None:
    public = ci(keys).public_key
    signatures.add_trusted_key(keys.path, TrustedKey("again", "release", public, NOW))
    signatures.revoke_trusted_key(keys.path, "ci")
    assert {key.name for key in signatures.read_trusted_keys(keys.path) if key.revoked_at} == {"ci", "again"}


def test_a_key_is_revoked_however_its_bytes_are_written(keys: Keys) -> None:
    """Of the last letter of 32 bytes in base64 two bits count for nothing."""
    public = ci(keys).public_key
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = f"{public[:42]}{letters[letters.index(public[42]) + 1]}="
    assert base64.b64decode(other) == base64.b64decode(public)
    signatures.add_trusted_key(keys.path, TrustedKey("again", "release", other, NOW))
    signatures.revoke_trusted_key(keys.path, "ci")
    assert {key.name for key in signatures.read_trusted_keys(keys.path) if key.revoked_at} == {"ci", "again"}


def test_of_many_signatures_of_one_key_one_is_verified(
    store: ReleaseRegistry, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement of 16 MB has room for 50,000 of them, each over megabytes: a quarter of an hour at every look."""
    path = release_statement.sign_release(store.folder(store.ids()[0]), ci(keys))
    envelope = json.loads(path.read_bytes())
    (good,) = envelope["signatures"]
    forged = {**good, "sig": base64.b64encode(b"\1" * 64).decode()}
    calls, really = list[bytes](), signatures._verify
    monkeypatch.setattr(signatures, "_verify", lambda *given: calls.append(given[1]) or really(*given))
    for last, status in ((forged, "untrusted"), (good, "trusted")):
        calls.clear()
        content = json.dumps({**envelope, "signatures": [forged] * 1000 + [last]}).encode()
        assert release_statement.check_statement(content, store.ids()[0], TrustStore(keys.path)).status == status
        assert len(calls) == 1


def test_a_private_key_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "ci.key"
    key = signatures.generate_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert signatures.load_key(path).key_id == key.key_id
    with pytest.raises(UsageError, match="exists"):
        signatures.generate_key(path)
    path.chmod(0o640)
    with pytest.raises(InfrastructureError, match=r"others may read it \(mode 640\)"):
        signatures.load_key(path)
    path.write_text("no key")
    path.chmod(0o600)
    with pytest.raises(DataError, match="is not an unencrypted private key"):
        signatures.load_key(path)


def test_the_statement_is_in_toto_over_content_digests(store: ReleaseRegistry, keys: Keys) -> None:
    release = store.ids()[0]
    path = release_statement.sign_release(store.folder(release), ci(keys))
    assert path == store.root / "releases" / f"{release}.intoto.json"
    assert store.verify(release) == [], "it lies beside the release, not in it"
    assert release in store.ids()
    assert len(store.ids()) == 3
    envelope = json.loads(path.read_text())
    payload = base64.b64decode(envelope["payload"])
    statement = json.loads(payload)
    assert (envelope["payloadType"], statement["_type"]) == (
        "application/vnd.in-toto+json",
        "https://in-toto.io/Statement/v1",
    )
    manifest = store.manifest(release)
    assert statement["subject"] == [{"name": "weights", "digest": {"sha256": manifest.files["weights"]}}]
    assert statement["predicate"]["digest"] == store.digest(release)
    assert len(store.digest(release)) == 64
    assert store.digest(release)[:16] == release
    assert statement["predicate"]["verdicts"]["evaluate"]["verdict"] == "better"
    # DSSE's own words: any other program verifies it so
    signed = b"DSSEv1 28 application/vnd.in-toto+json %d %s" % (len(payload), payload)
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(ci(keys).public_key))
    public.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    before = path.read_bytes()
    release_statement.sign_release(store.folder(release), ci(keys))
    assert path.read_bytes() == before, "the same key, the same bytes"


def test_what_a_statement_is_worth(store: ReleaseRegistry, keys: Keys) -> None:
    first, second, third = store.ids()
    trust = TrustStore(keys.path)

    def check(release: str) -> tuple[str, str]:
        return release_statement.check_statement(store.read_statement(release), release, trust)[:2]

    assert check(first) == ("untrusted", f"release {first} is not signed")
    foreign = keys.make("mallory", "release", trusted=False)
    release_statement.sign_release(store.folder(first), foreign)
    assert check(first) == ("untrusted", f"release {first} is signed by no trusted key of role release")
    release_statement.sign_release(store.folder(first), signatures.load_key(keys.folder / "ops.key"))
    assert check(first)[0] == "untrusted", "a pointer key vouches for no weights"
    release_statement.sign_release(store.folder(first), ci(keys))
    assert check(first) == ("trusted", f"release {first}: signed by ci")
    path = release_statement.statement_path(store.folder(first))
    assert len(json.loads(path.read_text())["signatures"]) == 3, "signatures of others stay"
    # a statement of another release
    release_statement.statement_path(store.folder(second)).write_bytes(path.read_bytes())
    assert check(second) == ("untrusted", f"the statement beside release {second} is about another one")
    # one whose words were changed
    envelope = json.loads(path.read_text())
    words = base64.b64decode(envelope["payload"]).replace(b'"better"', b'"bitter"')
    path.write_text(json.dumps({**envelope, "payload": base64.b64encode(words).decode()}))
    assert check(first) == ("untrusted", f"release {first} was altered: its signature does not fit")
    release_statement.statement_path(store.folder(third)).write_text("{")
    assert check(third) == ("untrusted", f"the statement about release {third} is malformed")


def test_a_manifest_that_says_more_than_was_signed(store: ReleaseRegistry, keys: Keys) -> None:
    release = store.ids()[0]
    release_statement.sign_release(store.folder(release), ci(keys))
    store.trust = TrustStore(keys.path)
    assert signature_policy.find_signature_problems(store, release) == []
    manifest = store.manifest(release)
    better = {"evaluate": RecordedVerdict(True, "much better", "b")}
    release_manifest.save(msgspec.structs.replace(manifest, verdicts=better), store.folder(release))
    assert store.verify(release) == [], "digests of files say nothing about it"
    assert signature_policy.find_signature_problems(store, release) == [
        f"release {release} is not what was signed: verdicts differ"
    ]
    with pytest.raises(GateError, match="not what was signed"):
        store.promote(release, author="t", message="")


def test_the_commit_is_signed_and_a_changed_one_is_found(
    store: ReleaseRegistry,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, str(keys.path))
    store.trust = TrustStore(keys.path)
    added = store.add(fill(tmp_path / "four", "four"), BuildFacts("shop", "openvino", "adapter"), git="1" * 40)
    folder = store.folder(added.id)
    path = release_statement.sign_release(folder, ci(keys))
    statement = json.loads(base64.b64decode(json.loads(path.read_text())["payload"]))
    assert (statement["predicateType"], statement["predicate"]["git"]) == ("urn:tunectl:release:v2", "1" * 40)
    assert signature_policy.find_signature_problems(store, added.id) == []
    for other in ("2" * 40, f"{'1' * 40}-dirty", None):
        release_manifest.save(msgspec.structs.replace(added, git=other), folder)
        assert store.verify(added.id) == []
        assert signature_policy.find_signature_problems(store, added.id) == [
            f"release {added.id} is not what was signed: git differ"
        ], other
        assert main(["release", "verify", added.id, "--store", str(store.root)]) == 5
        assert "git differ" in capsys.readouterr().out
        with pytest.raises(GateError, match="git differ"):
            store.promote(added.id, author="t", message="")
    checked = release_statement.check_statement(store.read_statement(added.id), added.id, store.trust).statement
    with pytest.raises(GateError, match="git differ"):
        release_statement.check_manifest(msgspec.structs.replace(added, git="2" * 40), None, checked)
    release_statement.check_manifest(msgspec.structs.replace(added, git=None), None, checked)  # as the seed of a Bento


def test_a_release_that_was_signed_before_its_commit_was_covered_stays_good(
    store: ReleaseRegistry,
    keys: Keys,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, str(keys.path))
    store.trust = TrustStore(keys.path)
    added = store.add(fill(tmp_path / "four", "four"), BuildFacts("shop", "openvino", "adapter"), git="1" * 40)
    payload = msgspec.json.encode(release_statement.build_statement(added, "urn:tunectl:release:v1"))
    assert b'"git"' not in payload
    signature = ci(keys).sign(release_statement.encode_pre_authentication(release_statement.PAYLOAD_TYPE, payload))
    envelope = {
        "payloadType": release_statement.PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"keyid": signature.key_id, "sig": signature.value}],
    }
    release_statement.statement_path(store.folder(added.id)).write_text(json.dumps(envelope))
    assert main(["release", "verify", added.id, "--store", str(store.root)]) == 0
    assert capsys.readouterr().out == f"{added.id}: whole, signed by ci before statements covered the commit\n"
    store.promote(added.id, author="t", message="")
    release_statement.sign_release(store.folder(added.id), ci(keys))
    assert main(["release", "verify", added.id, "--store", str(store.root)]) == 0
    assert capsys.readouterr().out == f"{added.id}: whole, signed by ci\n"


def test_a_later_commit_breaks_no_signature_and_is_told_as_unsigned(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(signatures.RELEASE_KEY_ENV, str(tmp_path / "ci.key"))
    store.trust = TrustStore(keys.path)
    source, facts = fill(tmp_path / "four", "four"), BuildFacts("shop", "openvino", "adapter")
    release = store.add(source, facts, git=f"{'1' * 40}-dirty").id
    assert store.add(source, facts, git="2" * 40).git == "2" * 40
    assert store.manifest(release).git == "2" * 40
    assert signature_policy.find_signature_problems(store, release) == []
    assert signature_policy.describe_signature(store, release) == "signed by ci, its later commit by nobody"


def test_nobody_vouches_for_another_commit_than_that_of_the_build(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, facts = fill(tmp_path / "four", "four"), BuildFacts("shop", "openvino", "adapter")
    release = store.add(source, facts, git="1" * 40).id
    monkeypatch.setenv(signatures.RELEASE_KEY_ENV, str(tmp_path / "ci.key"))
    store.add(source, facts, git="2" * 40)
    assert store.read_statement(release) is None
    store.add(source, facts, git="1" * 40)
    assert store.read_statement(release) is not None


def test_only_signed_releases_are_promoted_and_pointers_are_signed(
    store: ReleaseRegistry, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = store.ids()
    store.trust = TrustStore(keys.path)
    with pytest.raises(GateError, match=f"release {first} is not signed"):
        store.promote(first, author="t", message="")
    release_statement.sign_release(store.folder(first), ci(keys))
    pointer = store.promote(first, author="t", message="")
    assert pointer.digest == store.digest(first)
    assert release_statement.check_pointer(pointer, store.trust) == ("trusted", "signed by ops")
    assert release_statement.check_pointer(store.champion(), store.trust).status == "trusted"
    for change in ({"sequence": 9}, {"release": second}, {"digest": "0" * 64}, {"signature": None}):
        changed = msgspec.structs.replace(pointer, **change)
        assert release_statement.check_pointer(changed, store.trust).status == "untrusted", change
    release_statement.sign_release(store.folder(second), ci(keys))
    canary = store.start_canary(second, share=0.5, author="t", message="")
    assert release_statement.check_pointer(canary, store.trust).status == "trusted"
    assert (
        release_statement.check_pointer(msgspec.structs.replace(canary, share=1.0), store.trust).status == "untrusted"
    )
    monkeypatch.delenv(signatures.POINTER_KEY_ENV)
    with pytest.raises(GateError, match="TUNECTL_POINTER_KEY is not set"):
        store.promote(second, author="t", message="")
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, str(keys.folder / "ci.key"))
    with pytest.raises(GateError, match=r"names a key that .* does not trust for pointers"):
        store.rollback(author="t", message="")


def test_a_rollback_passes_what_is_damaged_or_revoked(store: ReleaseRegistry, keys: Keys) -> None:
    first, second, third = store.ids()
    for release in (first, second, third):
        store.promote(release, author="t", message="")
    (store.folder(second) / "weights").write_text("damaged")
    pointer = store.rollback(author="t", message="bad answers")
    assert (pointer.release, pointer.previous, pointer.sequence) == (first, None, 4)
    assert pointer.message.startswith(f"bad answers; past {second}: its files have 7 bytes, recorded are 3; ")
    assert [entry.release for entry in store.log() if entry.action == "rollback"] == [first]
    with pytest.raises(UsageError, match="no earlier release to roll back to"):
        store.rollback(author="t", message="")
    store.promote(third, author="t", message="")
    assert store.champion().previous == first, "the history knows where it stands"
    signatures.add_trusted_key(
        keys.path, TrustedKey("old", "release", keys.make("o", "release", trusted=False).public_key, NOW)
    )
    release_statement.sign_release(store.folder(first), signatures.load_key(keys.folder / "o.key"))
    store.trust = TrustStore(keys.path)
    signatures.revoke_trusted_key(keys.path, "old")
    with pytest.raises(UsageError, match=f"{first}: release {first}: signed by old, whose key was revoked"):
        store.rollback(author="t", message="")
    assert store.champion().release == third


def test_a_rollback_reads_no_large_weights(store: ReleaseRegistry) -> None:
    folder = store.folder(store.ids()[0])
    assert release_manifest.verify_quickly(folder) == []
    (folder / "weights").write_text("eno")
    assert release_manifest.verify_quickly(folder, limit=2) == [], "too large to be read"
    assert release_manifest.verify_quickly(folder) == ["weights was changed: its SHA-256 is not the recorded one"]
    (folder / "weights").write_text("cut off")
    assert release_manifest.verify_quickly(folder, limit=2) == ["its files have 7 bytes, recorded are 3"]
    (folder / "weights").rename(folder / "other")
    assert release_manifest.verify_quickly(folder, limit=2) == [
        "weights is missing",
        "other does not belong to this release",
    ]
    (folder / "manifest.json").unlink()
    assert "is not a stored release" in release_manifest.verify_quickly(folder)[0]


def test_a_release_that_is_built_again_is_signed(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = store.ids()
    trust = TrustStore(keys.path)
    monkeypatch.setenv(signatures.RELEASE_KEY_ENV, str(tmp_path / "ci.key"))
    facts = BuildFacts("shop", "openvino", "adapter", verdicts={"evaluate": RecordedVerdict(True, "better", "b")})
    assert store.add(tmp_path / "one", facts).id == first
    assert release_statement.check_statement(store.read_statement(first), first, trust).status == "trusted"
    better = {"evaluate": RecordedVerdict(True, "much better", "b")}
    store.add(tmp_path / "two", BuildFacts("shop", "openvino", "adapter", verdicts=better))
    assert store.read_statement(second) is None, "nobody vouches for a manifest that says something else"


def test_a_commit_reaches_an_address_and_comes_back(store: ReleaseRegistry, tmp_path: Path) -> None:
    first = store.ids()[0]
    files = FsspecObjectStore(f"file://{tmp_path}/remote")
    remote_sync.push(store, files)
    other = ReleaseRegistry(tmp_path / "other")
    remote_sync.pull(other, files)
    other.add(tmp_path / "one", BuildFacts("shop", "openvino", "adapter"))
    store.promote(first, author="t", message="")
    facts = BuildFacts("shop", "openvino", "adapter", verdicts={"evaluate": RecordedVerdict(True, "better", "b")})
    store.add(tmp_path / "one", facts, git="1" * 40)
    remote_sync.push(store, files)
    remote_sync.pull(other, files)
    assert other.log() == store.log()
    assert other.manifest(first).git == "1" * 40


def test_a_rollback_to_a_damaged_release_changes_nothing(store: ReleaseRegistry) -> None:
    first, second, _ = store.ids()
    store.promote(first, author="t", message="")
    store.promote(second, author="t", message="")
    (store.folder(first) / "weights").write_text("damaged")
    with pytest.raises(
        UsageError, match=f"no earlier release to roll back to; {first}: its files have 7 bytes, recorded are 3"
    ):
        store.rollback(author="t", message="")
    assert store.champion().release == second


def test_statements_and_signed_pointers_reach_an_address_and_come_back(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path
) -> None:
    first = store.ids()[0]
    release_statement.sign_release(store.folder(first), ci(keys))
    store.promote(first, author="t", message="")
    files = FsspecObjectStore(f"file://{tmp_path}/remote")
    remote_sync.push(store, files)
    remote, trust = RemoteRegistry(files, tmp_path / "cache"), TrustStore(keys.path)
    assert remote.ids() == store.ids()
    assert release_statement.check_statement(remote.read_statement(first), first, trust).status == "trusted"
    assert release_statement.check_pointer(remote.champion(), trust).status == "trusted"
    forged = msgspec.structs.replace(store.champion(), sequence=99)
    signed_only = RemoteRegistry(files, tmp_path / "cache", trust)
    files.create("champion/000099.json", registry_formats.POINTER.encode(forged))
    assert release_statement.check_pointer(signed_only.champion(), trust).status == "untrusted"
    (tmp_path / "remote/champion/000099.json").unlink()
    assert signed_only.champion() == store.champion(), "a forged one is not remembered as the newest"
    second = store.ids()[1]
    assert remote.read_statement(second) is None
    release_statement.sign_release(store.folder(second), ci(keys))
    remote_sync.push(store, files)
    assert remote.read_statement(second) == store.read_statement(second)
    other = ReleaseRegistry(tmp_path / "other", trust=trust)
    remote_sync.pull(other, files)
    assert signature_policy.find_signature_problems(other, first) == []
    assert release_statement.check_pointer(other.champion(), trust).status == "trusted"


def test_nothing_is_downloaded_where_the_manifest_is_not_the_signed_one(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path
) -> None:
    first = store.ids()[0]
    release_statement.sign_release(store.folder(first), ci(keys))
    files = FsspecObjectStore(f"file://{tmp_path}/remote")
    remote_sync.push(store, files)
    larger = msgspec.structs.replace(store.manifest(first), bytes=store.manifest(first).bytes + 1)
    files.write(f"releases/{first}/manifest.json", registry_formats.MANIFEST.encode(larger))
    for name in larger.files:
        files.remove(f"releases/{first}/{name}")
    with pytest.raises(GateError, match=f"release {first} is not what was signed: bytes differ"):
        RemoteRegistry(files, tmp_path / "cache", TrustStore(keys.path)).fetch(first)


@pytest.mark.parametrize("move", ["promote", "start_canary"])
def test_a_pointer_that_nobody_signed_is_not_adopted(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, move: str
) -> None:
    first, second, _ = store.ids()
    release_statement.sign_release(store.folder(first), ci(keys))
    store.promote(first, author="t", message="")
    files = FsspecObjectStore(f"file://{tmp_path}/remote")
    remote_sync.push(store, files)
    other = ReleaseRegistry(tmp_path / "other", trust=TrustStore(keys.path))
    remote_sync.pull(other, files)
    before = other.log()
    monkeypatch.delenv(signatures.POINTER_KEY_ENV)
    getattr(store, move)(second, author="mallory", message="", **({} if move == "promote" else {"share": 0.5}))
    remote_sync.push(store, files)
    with pytest.raises(GateError, match=f"the pointer to release {second} is not signed; nothing was adopted"):
        remote_sync.pull(other, files)
    assert (other.log(), other.champion().release) == (before, first)
    with pytest.raises(GateError, match=f"the pointer to release {second} is not signed; nothing was adopted"):
        remote_sync.resolve(other, files, "theirs", author="t", message="")
    assert other.log() == before


def test_the_canary_that_was_checked_is_the_one_that_is_adopted(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A download takes long: whoever writes there can put another canary in place meanwhile."""
    first, second, third = store.ids()
    for name in (first, second):
        release_statement.sign_release(store.folder(name), ci(keys))
    store.promote(first, author="t", message="")
    canary = store.start_canary(second, share=0.1, author="t", message="")
    files = FsspecObjectStore(f"file://{tmp_path}/remote")
    remote_sync.push(store, files)

    def forget_salt(events: list[ReleaseEvent]) -> None:
        events[-1] = msgspec.structs.replace(events[-1], salt=None, share=None)

    rewrite_history(tmp_path / "remote", forget_salt)
    really = remote_sync._fetch

    def fetch(*given: object) -> list[str]:
        forged = msgspec.structs.replace(canary, release=third, share=1.0, signature=None)
        record = registry_formats.REMOTE_CANARY.encode(registry_formats.RemoteCanary(forged))
        files.write("canary/000099.json", record)
        return really(*given)

    monkeypatch.setattr(remote_sync, "_fetch", fetch)
    other = ReleaseRegistry(tmp_path / "other", trust=TrustStore(keys.path))
    remote_sync.pull(other, files)
    assert other.canary() == canary


def rewrite_history(folder: Path, change: Callable[[list[ReleaseEvent]], None]) -> None:
    path = next((folder / "events").iterdir())
    events = [msgspec.json.decode(line, type=ReleaseEvent) for line in path.read_bytes().splitlines()]
    change(events)
    path.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in events))


def find_swaps(events: list[ReleaseEvent]) -> list[int]:
    return [number for number, event in enumerate(events) if event.action in release_state.SWAPS]


def insert_forged(events: list[ReleaseEvent]) -> None:
    last = find_swaps(events)[-1]
    forged = msgspec.structs.replace(events[last], release=events[0].release, signature=None, digest=None, sequence=2)
    events.insert(last, forged)


@pytest.mark.parametrize(
    "change",
    [
        insert_forged,
        lambda events: events.pop(find_swaps(events)[1]),
        lambda events: events.insert(find_swaps(events)[1], events[find_swaps(events)[0]]),
        lambda events: events.insert(find_swaps(events)[0], events.pop(find_swaps(events)[1])),
        lambda events: events.__setitem__(
            find_swaps(events)[1], msgspec.structs.replace(events[find_swaps(events)[1]], message="all fine")
        ),
    ],
    ids=["an unsigned promotion", "one left out", "one twice", "another order", "another message"],
)
def test_a_history_that_was_rewritten_below_a_signed_champion_is_not_adopted(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path, change: Callable[[list[ReleaseEvent]], None]
) -> None:
    ids = store.ids()
    for release in ids:
        release_statement.sign_release(store.folder(release), ci(keys))
        store.promote(release, author="t", message="")
    remote_sync.push(store, FsspecObjectStore(f"file://{tmp_path}/remote"))
    rewrite_history(tmp_path / "remote", change)
    other = ReleaseRegistry(tmp_path / "other", trust=TrustStore(keys.path))
    with pytest.raises(GateError, match=r"(no trusted key signed|was altered).*nothing was adopted"):
        remote_sync.pull(other, FsspecObjectStore(f"file://{tmp_path}/remote"))
    assert other.log() == []


def test_a_long_unsigned_history_is_looked_through_in_one_pass(keys: Keys) -> None:
    """64 MB of an address hold half a million events, and for a hint they are looked through twice."""
    moment, names = "2026-01-01T00:00:00+00:00", [f"{number:016x}" for number in range(100_000)]
    entries = [ReleaseEvent("promote", name, moment, sequence=number) for number, name in enumerate(names, 1)]
    started = time.process_time()
    assert release_statement.find_forged_swap(entries, TrustStore(keys.path), force=True) is None
    assert release_statement.find_forged_swap(entries, TrustStore(keys.path), 99_999) == entries[-1]
    assert time.process_time() - started < 10


def test_no_rollback_goes_to_a_release_whose_promotion_nobody_signed(
    store: ReleaseRegistry, keys: Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = store.ids()
    for release in store.ids():
        release_statement.sign_release(store.folder(release), ci(keys))
    store.promote(first, author="t", message="")
    key = os.environ[signatures.POINTER_KEY_ENV]
    monkeypatch.delenv(signatures.POINTER_KEY_ENV)
    store.promote(second, author="mallory", message="")
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, key)
    store.promote(third, author="t", message="")
    store.trust = TrustStore(keys.path)
    pointer = store.rollback(author="t", message="trouble")
    assert pointer.release == first
    assert f"past {second}: no trusted key signed its promotion" in pointer.message


@pytest.fixture
def address(store: ReleaseRegistry, keys: Keys, tmp_path: Path) -> FsspecObjectStore:
    """Return an address at which the first release is champion, and all are signed; a key ``old`` is about to be revoked."""
    keys.make("old", "pointer")
    for release in store.ids():
        release_statement.sign_release(store.folder(release), ci(keys))
    store.promote(store.ids()[0], author="t", message="")
    files = FsspecObjectStore(f"file://{tmp_path}/remote")
    remote_sync.push(store, files)
    return files


def change_with_old_key(
    store: ReleaseRegistry, keys: Keys, files: FsspecObjectStore, monkeypatch: pytest.MonkeyPatch, move: str
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv(signatures.POINTER_KEY_ENV, str(keys.folder / "old.key"))
        share = {} if move == "promote" else {"share": 0.5}
        getattr(store, move)(store.ids()[1], author="mallory", message="", **share)
        remote_sync.push(store, files)


def test_who_follows_and_serves_nothing_believes_no_more_than_a_server(
    store: ReleaseRegistry,
    keys: Keys,
    address: FsspecObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trust = TrustStore(keys.path)

    def follow(name: str) -> SignedRegistry:
        registry = RemoteRegistry(address, tmp_path / name, trust)
        return SignedRegistry(registry, trust, SequenceGuard(tmp_path / f"{name}.json"))

    watching, (first, second, _) = follow("watching"), store.ids()
    assert watching.champion() == store.champion()
    assert watching.fetch(first).name == first
    forged = msgspec.structs.replace(
        store.champion(), release=second, sequence=99, promoted_at="2999-01-01T00:00:00+00:00"
    )
    address.create("champion/000099.json", registry_formats.POINTER.encode(forged))
    assert watching.champion() == store.champion(), "what it followed stays"
    with pytest.raises(GateError, match="was altered: its signature does not fit; it is not followed"):
        follow("fresh").champion()
    address.remove("champion/000099.json")
    before = store.champion()
    change_with_old_key(store, keys, address, monkeypatch, "promote")
    assert watching.champion().release == second
    for put_back in (before, None):
        with monkeypatch.context() as patch:
            patch.setattr(RemoteRegistry, "champion", lambda _self, pointer=put_back: pointer)
            assert watching.champion().release == second, "an older one is not followed"
            assert follow("watching").champion().release == second, "nor after a restart"
    signatures.revoke_trusted_key(keys.path, "old")
    assert watching.champion().release == second, "what serves goes on"
    address.remove(f"releases/{second}.intoto.json")
    with pytest.raises(GateError, match=f"release {second} is not signed"):
        watching.fetch(second)


@pytest.mark.parametrize("move", ["promote", "start_canary"])
def test_what_a_revoked_key_points_at_is_not_adopted(
    store: ReleaseRegistry,
    keys: Keys,
    address: FsspecObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    move: str,
) -> None:
    trust = TrustStore(keys.path)
    other, fresh = (ReleaseRegistry(tmp_path / name, trust=trust) for name in ("other", "fresh"))
    remote_sync.pull(other, address)
    before = other.log()
    change_with_old_key(store, keys, address, monkeypatch, move)
    signatures.revoke_trusted_key(keys.path, "old")
    for registry in (other, fresh):
        with pytest.raises(GateError, match="signed by old, whose key was revoked; nothing was adopted"):
            remote_sync.pull(registry, address, force=True)
    with pytest.raises(GateError, match="signed by old, whose key was revoked; nothing was adopted"):
        remote_sync.resolve(other, address, "theirs", author="t", message="")
    assert (other.log(), fresh.log()) == (before, [])


def test_what_was_champion_before_its_key_was_revoked_stays_in_the_history(
    store: ReleaseRegistry, keys: Keys, address: FsspecObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust = TrustStore(keys.path)
    other, fresh = (ReleaseRegistry(tmp_path / name, trust=trust) for name in ("other", "fresh"))
    change_with_old_key(store, keys, address, monkeypatch, "promote")
    remote_sync.pull(other, address)
    signatures.revoke_trusted_key(keys.path, "old")
    store.promote(store.ids()[2], author="t", message="")
    remote_sync.push(store, address)
    remote_sync.pull(other, address)
    assert other.champion() == store.champion(), "it had the promotion of the old key"
    with pytest.raises(
        GateError, match=r"no trusted key signed the promote .*sequence 2.*nothing was adopted"
    ) as caught:
        remote_sync.pull(fresh, address)
    assert f"to adopt it knowingly: tunectl release pull {address.address} --force" in caught.value.hint
    assert fresh.log() == []
    remote_sync.pull(fresh, address, force=True)
    assert fresh.champion() == store.champion()
    assert other.rollback(author="t", message="").release == store.ids()[1]


def test_no_rollback_goes_to_what_a_revoked_key_promoted_at_an_address_that_was_not_kept(
    store: ReleaseRegistry, keys: Keys, address: FsspecObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _, third = store.ids()
    other = ReleaseRegistry(tmp_path / "other", trust=TrustStore(keys.path))
    remote_sync.pull(other, address)
    change_with_old_key(store, keys, address, monkeypatch, "promote")
    signatures.revoke_trusted_key(keys.path, "old")
    remote_sync.resolve(other, address, "ours", author="t", message="that was mallory")
    assert (other.champion().release, other.champion().previous) == (first, None)
    with pytest.raises(UsageError, match="no earlier release to roll back to"):
        other.rollback(author="t", message="")
    other.add(tmp_path / "three", BuildFacts("shop", "openvino", "adapter"))
    release_statement.sign_release(other.folder(third), ci(keys))
    other.promote(third, author="t", message="")
    assert other.rollback(author="t", message="").release == first


def test_a_promotion_that_came_with_a_fork_is_passed_where_only_a_revoked_key_signed_it(
    store: ReleaseRegistry, keys: Keys, address: FsspecObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = store.ids()
    other = ReleaseRegistry(tmp_path / "other", trust=TrustStore(keys.path))
    remote_sync.pull(other, address)
    other.add(tmp_path / "three", BuildFacts("shop", "openvino", "adapter"))
    release_statement.sign_release(other.folder(third), ci(keys))
    other.promote(third, author="t", message="")
    change_with_old_key(store, keys, address, monkeypatch, "promote")
    signatures.revoke_trusted_key(keys.path, "old")
    remote_sync.resolve(other, address, "ours", author="t", message="that was mallory")
    pointer = other.rollback(author="t", message="trouble")
    assert pointer.release == first
    assert f"past {second}: no trusted key signed its promotion" in pointer.message


def test_a_canary_that_ended_is_not_started_again_by_who_may_write_there(
    store: ReleaseRegistry, keys: Keys, address: FsspecObjectStore, tmp_path: Path
) -> None:
    """Its signature is good, and its line is taken from the history."""
    second = store.ids()[1]
    release_statement.sign_release(store.folder(second), ci(keys))
    store.start_canary(second, share=0.5, author="t", message="")
    remote_sync.push(store, address)
    other = ReleaseRegistry(tmp_path / "other", trust=TrustStore(keys.path))
    remote_sync.pull(other, address)
    assert other.canary() is not None
    started = [event for event in store.log() if event.action == "canary_start"]
    store.stop_canary(author="t", message="worse")
    remote_sync.push(store, address)
    number = len(store.log()) + 1
    address.write(f"events/{number:06d}.jsonl", b"".join(map(registry_formats.EVENT.encode, started)))
    for registry in (other, ReleaseRegistry(tmp_path / "fresh", trust=TrustStore(keys.path))):
        with pytest.raises(GateError, match=f"is event {number}, and was signed as event {number - 2}"):
            remote_sync.pull(registry, address)


def test_a_fork_is_resolved_only_with_a_key_that_servers_follow(
    store: ReleaseRegistry, keys: Keys, address: FsspecObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ReleaseRegistry(tmp_path / "other", trust=TrustStore(keys.path))
    remote_sync.pull(other, address)
    store.promote(store.ids()[2], author="t", message="")
    remote_sync.push(store, address)
    before = other.log()
    monkeypatch.delenv(signatures.POINTER_KEY_ENV)
    with pytest.raises(GateError, match=f"{signatures.POINTER_KEY_ENV} is not set"):
        remote_sync.resolve(other, address, "ours", author="t", message="")
    assert other.log() == before


def test_two_machines_sign_a_release_and_both_signatures_reach_the_address(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path
) -> None:
    release, files = store.ids()[0], FsspecObjectStore(f"file://{tmp_path}/remote")
    path = release_statement.sign_release(store.folder(release), ci(keys))
    remote_sync.push(store, files)
    path.unlink()
    release_statement.sign_release(store.folder(release), keys.make("audit", "release"))
    for _ in range(2):
        remote_sync.push(store, files)
        stored = json.loads(files.read(f"releases/{release}.intoto.json") or b"")
        assert len(stored["signatures"]) == 2
    path.write_bytes(path.read_bytes().replace(b'"payload":"', b'"payload":"AAAA'))
    remote_sync.push(store, files)
    assert files.read(f"releases/{release}.intoto.json") == path.read_bytes(), "another statement is replaced"


def test_a_pointer_of_a_revoked_key_is_not_remembered_as_the_newest(
    store: ReleaseRegistry, keys: Keys, address: FsspecObjectStore, tmp_path: Path
) -> None:
    remote = RemoteRegistry(address, tmp_path / "cache", TrustStore(keys.path))
    forged = release_statement.sign_champion(
        msgspec.structs.replace(store.champion(), sequence=10**11), signatures.load_key(keys.folder / "old.key")
    )
    signatures.revoke_trusted_key(keys.path, "old")
    address.create(f"champion/{10**11}.json", registry_formats.POINTER.encode(forged))
    assert remote.champion() == forged
    (tmp_path / f"remote/champion/{10**11}.json").unlink()
    store.promote(store.ids()[2], author="t", message="")
    remote_sync.push(store, address)
    assert (remote.champion(), remote.warning) == (store.champion(), "")


@pytest.mark.parametrize("ended", ["revoked", "removed"])
def test_a_pointer_that_was_followed_before_trust_in_its_key_ended_does_not_hold_servers(
    store: ReleaseRegistry, keys: Keys, address: FsspecObjectStore, tmp_path: Path, ended: str
) -> None:
    guards = [SequenceGuard(tmp_path / "newest.json"), SequenceGuard(tmp_path / "newest.json")]
    servers = [
        ReleaseVetting(RemoteRegistry(address, tmp_path / "cache", trust), None, guard, trust=trust)
        for guard, trust in ((guard, TrustStore(keys.path)) for guard in guards)
    ]
    before = servers[0].read_pointer()
    forged = release_statement.sign_champion(
        msgspec.structs.replace(store.champion(), sequence=10**11), signatures.load_key(keys.folder / "old.key")
    )
    address.create(f"champion/{10**11}.json", registry_formats.POINTER.encode(forged))
    assert servers[0].read_pointer() == (forged, "")
    if ended == "revoked":
        signatures.revoke_trusted_key(keys.path, "old")
    else:
        keys.remove("old")
    assert servers[0].read_pointer().pointer == forged, "what serves goes on"
    (tmp_path / f"remote/champion/{10**11}.json").unlink()
    store.promote(store.ids()[2], author="t", message="")
    remote_sync.push(store, address)
    after = [server.read_pointer() for server in reversed(servers)]  # the first was started again
    assert after == [(store.champion(), "")] * 2
    (tmp_path / "remote/champion/000002.json").unlink()
    assert servers[0].read_pointer().pointer == store.champion() != before.pointer


@pytest.mark.parametrize("forged", [False, True])
def test_promotions_that_are_older_than_the_keys_are_adopted_only_knowingly(
    store: ReleaseRegistry, keys: Keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, forged: bool
) -> None:
    first, second, third = store.ids()
    for release in store.ids():
        release_statement.sign_release(store.folder(release), ci(keys))
    with monkeypatch.context() as patch:
        patch.delenv(signatures.POINTER_KEY_ENV)
        store.promote(first, author="t", message="before keys were trusted")
        store.promote(second, author="t", message="before keys were trusted")
    store.trust = TrustStore(keys.path)
    store.promote(third, author="t", message="")
    files = FsspecObjectStore(f"file://{tmp_path}/remote")
    remote_sync.push(store, files)
    if forged:
        rewrite_history(tmp_path / "remote", lambda events: events.pop(find_swaps(events)[0]))
    fresh = ReleaseRegistry(tmp_path / "fresh", trust=store.trust)
    with pytest.raises(GateError, match=r"no trusted key signed the promote .*nothing was adopted") as caught:
        remote_sync.pull(fresh, files)
    assert f"to adopt it knowingly: tunectl release pull {files.address} --force" in caught.value.hint
    assert fresh.log() == []
    remote_sync.pull(fresh, files, force=True)
    assert fresh.champion() == store.champion()
    assert store.rollback(author="t", message="").release == second
    assert store.rollback(author="t", message="").release == first


def test_the_verbs(
    store: ReleaseRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(signatures.TRUSTED_KEYS_ENV, "keys/trusted.json")
    where = ["--store", str(store.root)]
    first = store.ids()[0]
    assert main(["release", "keygen", "ci", "--role", "release", *where]) == 0
    assert "export TUNECTL_RELEASE_KEY=.tunectl/ci.key" in capsys.readouterr().out
    assert main(["release", "keygen", "ci", "--role", "pointer", *where]) == 2
    assert "there is a key ci already" in capsys.readouterr().err
    assert main(["release", "verify", first, *where]) == 5
    assert capsys.readouterr().out == f"{first}: release {first} is not signed\n"
    assert main(["release", "sign", first, *where]) == 2
    assert "no key to sign with" in capsys.readouterr().err
    monkeypatch.setenv(signatures.RELEASE_KEY_ENV, ".tunectl/ci.key")
    assert main(["release", "sign", first, *where]) == 0
    capsys.readouterr()
    assert main(["release", "verify", first, *where]) == 0
    assert capsys.readouterr().out == f"{first}: whole, signed by ci\n"
    assert main(["release", "promote", first, *where]) == 3
    assert "TUNECTL_POINTER_KEY is not set" in capsys.readouterr().err
    assert main(["release", "keygen", "ops", "--role", "pointer", *where]) == 0
    monkeypatch.setenv(signatures.POINTER_KEY_ENV, ".tunectl/ops.key")
    monkeypatch.setenv("LOGNAME", "the-boss")
    assert main(["release", "promote", first, *where]) == 0
    assert store.champion().author == "ops"
    assert main(["release", "revoke", "ci", *where]) == 0
    capsys.readouterr()
    assert main(["release", "verify", first, *where]) == 5
    assert capsys.readouterr().out == f"{first}: release {first}: signed by ci, whose key was revoked\n"
    added = store.add(fill(tmp_path / "four", "four"), BuildFacts("shop", "openvino", "adapter"))
    assert store.read_statement(added.id) is not None, "TUNECTL_RELEASE_KEY signs what is added"


def test_a_statement_that_is_nested_deeply_is_unreadable_and_no_crash(keys: Keys) -> None:
    trust = TrustStore(keys.path)
    deep = b'{"_type":"x","subject":[],"predicateType":"y","predicate":{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}}"
    envelope = {
        "payloadType": release_statement.PAYLOAD_TYPE,
        "payload": base64.b64encode(deep).decode(),
        "signatures": [],
    }
    for content in (json.dumps(envelope).encode(), b"[" * 100_000):
        checked = release_statement.check_statement(content, "a" * 16, trust)
        assert (checked.status, checked.reason) == (
            "untrusted",
            f"the statement about release {'a' * 16} is malformed",
        )
