"""Who people are stays hidden, and the same person is found again."""

from __future__ import annotations

import stat

import pytest

from tunectl.artifacts.paths import ProjectPaths
from tunectl.config.loading import checks, override_file
from tunectl.core.errors import ConfigError, InfrastructureError
from tunectl.inference_log import pseudonyms


def load(*words: str):
    return checks.load_config(ProjectPaths(), override_file.merge_overrides([], words)).root.inference_log


@pytest.fixture(scope="module")
def live():
    return load()


def test_the_same_person_is_the_same_hash_under_one_salt_only():
    assert pseudonyms.pseudonymize(" Ada@Example.org", b"a" * 16) == pseudonyms.pseudonymize(
        "ada@example.org", b"a" * 16
    )
    assert pseudonyms.pseudonymize("ada@example.org", b"a" * 16) != pseudonyms.pseudonymize(
        "ada@example.org", b"b" * 16
    )
    assert len(pseudonyms.pseudonymize("x", b"a" * 16)) == 32
    assert "ada" not in pseudonyms.pseudonymize("ada@example.org", b"a" * 16)


def test_a_caller_is_the_same_person_to_the_log_and_to_a_canary_test():
    assert pseudonyms.identify_caller(" Ada@Example.org", "laptop") == "ada@example.org"
    assert pseudonyms.identify_caller(None, "Laptop") == pseudonyms.identify_caller("", "laptop") == "key laptop"
    assert pseudonyms.pseudonymize(pseudonyms.identify_caller(None, "laptop"), b"a" * 16) == (
        pseudonyms.pseudonymize(pseudonyms.key_holder_name("laptop"), b"a" * 16)
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Ada@Example.org ", "48eef52843ab78cd641876afd0f93ce3"),
        (pseudonyms.key_holder_name("laptop"), "de1ade39baebc484f5dc62c2a784a49d"),
    ],
)
def test_hashes_of_rows_that_exist_stay(name, expected):
    """Computed by version 0.1: people of an older log are found again."""
    assert pseudonyms.pseudonymize(name, b"0123456789abcdef") == expected


def test_the_salt_is_made_once_and_is_private(live, tmp_path):
    first = pseudonyms.load_hash_key(live, tmp_path, {})
    assert pseudonyms.load_hash_key(live, tmp_path, {}) == first
    assert stat.S_IMODE((tmp_path / live.hash_key_file).stat().st_mode) == 0o600
    assert [path.name for path in (tmp_path / live.hash_key_file).parent.iterdir()] == ["hash_key"]
    assert (
        pseudonyms.load_hash_key(live, tmp_path, {live.hash_key_env: "a secret of 20 signs\n"})
        == b"a secret of 20 signs"
    )  # as a file would end


def test_a_short_salt_is_refused(live, tmp_path):
    with pytest.raises(InfrastructureError) as caught:
        pseudonyms.load_hash_key(live, tmp_path, {live.hash_key_env: "short"})
    assert str(caught.value) == (
        "TUNECTL_HASH_KEY holds 5 bytes; at least 16 are needed, or hashes of user names could be guessed\n"
        "  write 64 random hexadecimal digits into it; users hashed with the old key are not found again"
    )


@pytest.mark.parametrize("key", ["k" * 32, "0101010101010101", "passpasspasspass"])
def test_a_salt_that_could_be_guessed_is_refused(live, tmp_path, key):
    with pytest.raises(InfrastructureError) as caught:
        pseudonyms.load_hash_key(live, tmp_path, {live.hash_key_env: key})
    assert caught.value.message == (
        f"TUNECTL_HASH_KEY holds {len(set(key))} different bytes; at least 6 are needed, or hashes of user names could be guessed"
    )


def test_an_unreadable_salt(live, tmp_path):
    (tmp_path / live.hash_key_file).mkdir(parents=True)
    with pytest.raises(InfrastructureError, match=r"cannot write .*hash_key: Is a directory"):
        pseudonyms.load_hash_key(live, tmp_path, {})


def test_a_store_holds_its_servers_to_one_salt(live, store):
    pseudonyms.check_hash_key(store, live, b"b" * 16)  # nobody is in it yet
    pseudonyms.register_hash_key(store, live, b"a" * 16)
    pseudonyms.register_hash_key(store, live, b"a" * 16)
    pseudonyms.check_hash_key(store, live, b"a" * 16)
    for asked in (pseudonyms.register_hash_key, pseudonyms.check_hash_key):
        with pytest.raises(InfrastructureError) as caught:
            asked(store, live, b"b" * 16)
        assert str(caught.value) == (
            "users in this inference log are hashed with another key than the one in TUNECTL_HASH_KEY or "
            ".tunectl/inference_log/hash_key\n"
            "  give all its servers one TUNECTL_HASH_KEY; if that key is lost, start a new database: inference_log.url"
        )
    (kept,) = store.events()
    assert not any(hash_key in str(kept.body).encode() for hash_key in (b"a" * 16, (b"a" * 16).hex().encode()))


def test_the_environment_names_the_database(live):
    assert pseudonyms.address(live, {}) == live.url
    assert pseudonyms.address(live, {"TUNECTL_INFERENCE_LOG_URL": "postgresql://db/live"}) == "postgresql://db/live"


@pytest.mark.parametrize(
    "address", ["postgresql://me:secret@db/live", "'postgresql://db/live?user=me&password=secret'"]
)
def test_a_password_in_the_url_is_refused_and_not_shown(live, address):
    with pytest.raises(ConfigError, match="url holds a password") as caught:
        load(f"inference_log.url={address}")
    assert "secret" not in str(caught.value)


def test_several_servers_need_postgresql(live):
    with pytest.raises(ConfigError) as caught:
        load("inference_log.replicas=2")
    assert (
        "replicas is 2 and url is sqlite:///.tunectl/inference_log/inference_log.sqlite; more than one server needs PostgreSQL"
        in str(caught.value)
    )
    two = load("inference_log.replicas=2", "inference_log.url=postgresql://db/live")
    assert pseudonyms.address(two, {}) == "postgresql://db/live"
    with pytest.raises(InfrastructureError) as raised:
        pseudonyms.address(two, {"TUNECTL_INFERENCE_LOG_URL": "sqlite:///a.sqlite"})
    assert str(raised.value) == (
        "inference_log.replicas is 2, but the inference log (TUNECTL_INFERENCE_LOG_URL or inference_log.url) is an SQLite file, which one server can use\n"
        "  use PostgreSQL: postgresql://USER@HOST/NAME, or set inference_log.replicas=1"
    )
