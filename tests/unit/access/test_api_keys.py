"""Keys: hashes only, scopes, rates, and a file that is read again."""

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import version_0_1

from tunectl.access import api_keys, signatures
from tunectl.access.api_errors import ApiError
from tunectl.access.scopes import SCOPE_MEANINGS, SCOPES
from tunectl.access.signatures import TrustedKey
from tunectl.artifacts.record_format import NewerRecordError
from tunectl.core.errors import DataError, InfrastructureError, UsageError

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def ring(path: Path) -> api_keys.KeyStore:
    made = api_keys.KeyStore(path, every=1.0)
    made.load()
    return made


def test_the_file_never_holds_the_key(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret, entry = api_keys.create_key("shop", ["chat"], None, NOW)
    api_keys.add(path, entry)
    assert secret.startswith("tk-")
    assert len(secret) > 40
    assert secret not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o640
    assert ring(path).key(secret, "chat", 0).name == "shop"


def test_who_has_no_key_and_who_may_not(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    secret, entry = api_keys.create_key("scraper", ["scrape"], None, NOW)
    api_keys.add(path, entry)
    opened = ring(path)
    for given, status, text in (
        (None, 401, "send a key: Authorization: Bearer <key>"),
        ("tk-wrong", 401, "that key is not known here; check it, or ask the operator for one"),
        (secret, 403, "the key scraper has the scopes scrape; this needs chat: use a key that has it"),
    ):
        with pytest.raises(ApiError) as caught:
            opened.key(given, "chat", 0)
        assert (caught.value.status, str(caught.value)) == (status, text)


def test_admin_may_everything(tmp_path: Path) -> None:
    secret, entry = api_keys.create_key("boss", ["admin"], None, NOW)
    api_keys.add(tmp_path / "k", entry)
    opened = ring(tmp_path / "k")
    assert all(opened.key(secret, scope, 0) for scope in SCOPES)


def test_no_scope_but_admin_opens_another() -> None:
    for scope in SCOPES:
        _, entry = api_keys.create_key("a", [scope], None, NOW)
        assert [other for other in SCOPES if entry.allows(other)] == (list(SCOPES) if scope == "admin" else [scope])
    assert set(SCOPE_MEANINGS) == set(SCOPES)


def test_a_change_counts_within_the_interval_and_a_broken_file_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    opened = ring(path)  # no file yet
    secret, entry = api_keys.create_key("late", ["chat"], None, NOW)
    api_keys.add(path, entry)
    assert opened.key(secret, "chat", 10).name == "late"
    for number, broken in enumerate((b'{"keys": [', b'{"keys": [{"name": "\xff"}]}')):
        path.write_bytes(broken)
        assert opened.key(secret, "chat", 20 + number).name == "late"
    api_keys.write(path, [entry])
    api_keys.remove(path, "late")
    assert opened.key(secret, "chat", 21.5).name == "late"
    with pytest.raises(ApiError, match="not known here"):
        opened.key(secret, "chat", 22.1)


def test_rates_fill_evenly(tmp_path: Path) -> None:
    _, entry = api_keys.create_key("slow", ["chat"], 2, NOW)
    opened = ring(tmp_path / "none")
    assert [opened.consume(entry, now) for now in (0.0, 0.0)] == [0, 0]
    assert opened.consume(entry, 0.0) == pytest.approx(30)
    assert opened.consume(entry, 31.0) == 0
    assert api_keys.KeyStore(tmp_path, 1).consume(api_keys.create_key("free", ["chat"], None, NOW)[1], 0) == 0


def test_errors_say_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    api_keys.add(path, api_keys.create_key("one", ["chat"], None, NOW)[1])
    with pytest.raises(UsageError) as taken:
        api_keys.add(path, api_keys.create_key("one", ["chat"], None, NOW)[1])
    assert (
        str(taken.value)
        == f"{path}: there is a key one already\n  choose another name, or: tunectl serve keys remove one"
    )
    with pytest.raises(UsageError) as absent:
        api_keys.remove(path, "two")
    assert str(absent.value) == f"{path}: no key two; there are: one\n  list them: tunectl serve keys list"
    both = json.loads(path.read_text())
    both["keys"] *= 2
    path.write_text(json.dumps(both))
    with pytest.raises(DataError, match="names the key one twice"):
        api_keys.read(path)
    path.write_text("{}")
    with pytest.raises(DataError, match="is not a file of keys: Object missing required field `keys`"):
        api_keys.read(path)
    with pytest.raises(InfrastructureError, match="cannot be read: Is a directory"):
        api_keys.read(tmp_path)
    assert [item.name for item in tmp_path.iterdir()] == ["keys.json"]


def test_nobody_loses_a_key_that_somebody_else_adds_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "new" / "keys.json"
    names = [f"key-{number}" for number in range(12)]
    with ThreadPoolExecutor(len(names)) as everybody:
        list(everybody.map(lambda name: api_keys.add(path, api_keys.create_key(name, ["chat"], None, NOW)[1]), names))
    assert sorted(key.name for key in api_keys.read(path)) == sorted(names)
    with ThreadPoolExecutor(len(names)) as everybody:
        list(everybody.map(lambda name: api_keys.remove(path, name), names[1:]))
    assert [key.name for key in api_keys.read(path)] == names[:1]


def test_a_file_that_cannot_be_looked_at_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "folder" / "keys.json"
    secret, entry = api_keys.create_key("shop", ["chat"], None, NOW)
    api_keys.add(path, entry)
    opened = ring(path)
    path.unlink()
    path.parent.rmdir()
    path.parent.write_text("a file where the folder was")
    assert opened.key(secret, "chat", 10).name == "shop"
    assert opened.key(secret, "chat", 20).name == "shop"
    assert caplog.text.count("the old keys stay") == 1


def test_a_server_without_keys_says_what_to_do(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ring(tmp_path / "keys.json")
    assert (
        f"{tmp_path / 'keys.json'} holds no keys, so every request is refused: tunectl serve keys add NAME"
        in caplog.text
    )


def test_keys_of_0_1_are_accepted_and_written_in_the_form_of_today(tmp_path: Path) -> None:
    path = version_0_1.copy_project(tmp_path / "project") / ".tunectl" / "keys.json"
    told = version_0_1.expected("keys")
    secrets = dict(line.split() for line in (version_0_1.DATA / "clear_keys.txt").read_text().splitlines() if line)
    opened = ring(path)
    for name, allowed in told["accepted"].items():
        found = opened.key(secrets[name], None, 0)
        assert (found.name, found.scopes, found.per_minute) == (name, allowed["scopes"], allowed["per_minute"])
    was = [datetime.fromisoformat(one["made_at"]) for one in told["file"]]
    assert [one.created_at for one in api_keys.read(path)] == was
    api_keys.add(path, api_keys.create_key("new", ["chat"], None, NOW)[1])
    assert [one.created_at for one in api_keys.read(path)] == [*was, NOW]
    written = json.loads(path.read_text())
    assert (written["version"], "made_at" in written["keys"][0]) == (2, False)
    path.write_text(json.dumps({**written, "version": 99}))
    with pytest.raises(NewerRecordError, match=r"keys.json is a file of keys of version 99"):
        api_keys.read(path)


def test_a_key_that_is_disabled_or_expired_opens_nothing(tmp_path: Path) -> None:
    path, now = tmp_path / "keys.json", datetime.now(UTC)
    off, entry = api_keys.create_key("off", ["admin"], None, NOW)
    api_keys.add(path, entry)
    over, entry = api_keys.create_key("over", ["chat"], None, NOW, expires_at=now - timedelta(seconds=1))
    api_keys.add(path, entry)
    good, entry = api_keys.create_key("good", ["chat"], None, NOW, expires_at=now + timedelta(days=1))
    api_keys.add(path, entry)
    api_keys.set_enabled(path, "off", enabled=False)
    opened = ring(path)
    assert opened.key(good, "chat", 0).name == "good"
    for secret, words in ((off, "the key off is disabled"), (over, "the key over has expired on ")):
        with pytest.raises(ApiError) as caught:
            opened.key(secret, "chat", 0)
        assert caught.value.status == 401
        assert words in str(caught.value)
    api_keys.set_enabled(path, "off", enabled=True)
    assert ring(path).key(off, "chat", 0).name == "off"
    with pytest.raises(UsageError, match="no key made-up"):
        api_keys.set_enabled(path, "made-up", enabled=True)


def test_limits_are_of_the_key_else_of_the_server_and_bound_no_admin(tmp_path: Path) -> None:
    limits = api_keys.KeyLimits(per_minute=2, max_concurrency=1, tokens_per_minute=100)
    opened = api_keys.KeyStore(tmp_path / "keys.json", 1.0, limits)
    plain, boss, own = (
        api_keys.create_key(name, [scope], None, NOW, **more)[1]
        for name, scope, more in (
            ("plain", "chat", {}),
            ("boss", "admin", {}),
            ("own", "chat", {"tokens_per_minute": 6000, "max_concurrency": 2}),
        )
    )
    assert [opened.consume(plain, 0.0) for _ in range(3)] == [0.0, 0.0, 30.0]
    assert [opened.consume(boss, 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert [opened.consume_tokens(plain, 60, 0.0) > 0 for _ in range(3)] == [False, True, True]
    assert opened.consume_tokens(own, 9000, 0.0) == 0.0  # more than a minute's are owed
    assert opened.consume_tokens(own, 1, 0.0) == pytest.approx(30.01)
    with opened.hold(plain) as first, opened.hold(plain) as second:
        assert (first, second) == (True, False)
    with opened.hold(own) as first, opened.hold(own) as second, opened.hold(own) as third:
        assert (first, second, third) == (True, True, False)
    with opened.hold(plain) as again, opened.hold(boss) as other, opened.hold(boss) as more:
        assert (again, other, more) == (True, True, True)


def test_trusted_keys_that_two_people_add_at_once_are_all_kept(tmp_path: Path) -> None:
    path, names = tmp_path / "trusted.json", [f"k{number}" for number in range(16)]
    key = base64.b64encode(bytes(32)).decode()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: signatures.add_trusted_key(path, TrustedKey(name, "pointer", key, NOW)), names))
    assert sorted(entry.name for entry in signatures.read_trusted_keys(path)) == sorted(names)
