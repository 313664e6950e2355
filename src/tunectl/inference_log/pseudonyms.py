"""Pseudonyms: keyed hashes (HMAC-SHA-256) of users and conversations.

A hash without a key could be reversed by trying all addresses, so the key is stored apart from the database: whoever
has only one of them cannot reverse the other.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tunectl.artifacts import private_files
from tunectl.config.schema.inference_log import InferenceLogConfig
from tunectl.core.errors import InfrastructureError
from tunectl.inference_log import project_folder
from tunectl.inference_log.log_store import InferenceLog, LogEvent

NEW_KEY: Final = "write 64 random hexadecimal digits into it; users hashed with the old key are not found again"
EVENT: Final = "hash_key"
"""Id and kind of the event with the fingerprint of the key."""
_FINGERPRINT_MESSAGE: Final = b"salt"
"""The name of the key in 0.1. It stays, or the key of an older log would count as another one."""


def pseudonymize(name: str, key: bytes) -> str:
    """Return the 32 hexadecimal digits that replace ``name`` in the log: of a user, a session or an annotator.

    Case and outer white space are ignored, so that people's data is found when they ask for erasure.
    """
    return hmac.new(key, normalize_name(name).encode(), hashlib.sha256).hexdigest()[:32]


def list_pseudonyms(name: str, key: bytes) -> list[str]:
    """Return the pseudonyms of ``name`` in all its written forms: as it is, and with accents as letters of their own or not (Unicode NFC, NFD).

    People see no difference, and a client sends either.
    """
    forms = [name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)]
    return list(dict.fromkeys(pseudonymize(form, key) for form in forms))


def normalize_name(name: str) -> str:
    """Return ``name`` in the form in which names are compared: without regard to case and outer white space."""
    return name.strip().casefold()


def key_holder_name(key: str) -> str:
    """Return the name under which requests that name no user are logged: one for each API key."""
    return f"key {key}"


def identify_caller(user: str | None, key: str) -> str:
    """Return who sends a request: the user that it names, else the holder of its key.

    The inference log hashes this name, and a canary test assigns it to a variant: both must mean the same person, so that each
    identity of the test is found in the log.
    """
    return normalize_name(user or key_holder_name(key))


def address(settings: InferenceLogConfig, environment: Mapping[str, str] = os.environ) -> str:
    """Return the URL of the database: that in the environment where there is one, else that of the configuration.

    Raises  InfrastructureError where several replicas would share an SQLite file.
    """
    url = environment.get(settings.url_env) or settings.url
    if settings.replicas > 1 and url.startswith("sqlite"):
        raise InfrastructureError(
            f"inference_log.replicas is {settings.replicas}, but the inference log ({settings.url_env} or inference_log.url) is an SQLite file, "
            "which one server can use",
            hint="use PostgreSQL: postgresql://USER@HOST/NAME, or set inference_log.replicas=1",
        )
    return url


def load_hash_key(
    settings: InferenceLogConfig, root: Path, environment: Mapping[str, str] = os.environ, *, make: bool = True
) -> bytes:
    """Return the key of the hashes: from the environment, else from its file, which is made at first use and is readable by its owner only.

    ``make`` False: an absent key is an error, because with a new key no person of an existing log would be found.
    Raises  InfrastructureError where ``tunectl log migrate`` must run first, the key could be guessed, it is absent and ``make`` is False, or its file cannot be
            made or read.
    """
    project_folder.require_new_folder(root)
    key, path = environment.get(settings.hash_key_env), root / settings.hash_key_file
    if key is None and not make and not path.exists():
        raise InfrastructureError(
            f"{path} does not exist and {settings.hash_key_env} is not set, so users cannot be looked up by name",
            hint=f"set {settings.hash_key_env} to the server's key, or run this on the machine with its file",
        )
    return private_files.load_secret_key(
        path, key, variable=settings.hash_key_env, risk="hashes of user names", hint=NEW_KEY
    )


def register_hash_key(store: InferenceLog, settings: InferenceLogConfig, key: bytes) -> None:
    """Record the fingerprint of the hash key in a log that has none yet; else compare ``key`` with the recorded one.

    Raises  InfrastructureError where they differ, as ``check_hash_key``.
    """
    store.add_event(LogEvent(EVENT, datetime.now(UTC), EVENT, {"fingerprint": _fingerprint(key)}))
    check_hash_key(store, settings, key)


def check_hash_key(store: InferenceLog, settings: InferenceLogConfig, key: bytes) -> None:
    """Check that ``key`` is the hash key with which the rows of a log were written; with another key no user in it would be found.

    Raises  InfrastructureError where its fingerprint differs from the recorded one.
    """
    for event in store.events(kind=EVENT):
        if event.body["fingerprint"] != _fingerprint(key):
            raise InfrastructureError(
                f"users in this inference log are hashed with another key than the one in {settings.hash_key_env} or {settings.hash_key_file}",
                hint=f"give all its servers one {settings.hash_key_env}; if that key is lost, start a new database: inference_log.url",
            )


def _fingerprint(key: bytes) -> str:
    """Return a fingerprint of a key, which does not reveal it; by another digest than that of names, so that it equals no name's hash."""
    return hmac.new(key, _FINGERPRINT_MESSAGE, hashlib.sha512).hexdigest()[:32]
